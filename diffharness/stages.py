"""What each stage does: reads what earlier stages left, calls its room, writes its artifact.

Only `pipeline.py` calls these; heavy imports happen inside, so that a finished run is read without them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.errors import RunError
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.activations.store import ActivationStore
    from diffharness.attribution.account import TaskAccount
    from diffharness.attribution.path import ModelPair
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.evaluation.scores import Evaluation, MetricKey, TaskInfo
    from diffharness.pipeline import Run

Progress = Callable[[int, int], None]
MAIN = ("baseline", "candidate")
HELDOUT_SHARE = 0.1


def evaluate(run: Run, side: str, folder: Path, progress: Progress) -> None:
    """Score one side with lm-eval, or take over what `diffharness lm-eval` recorded."""
    if side in run.recorded:
        for file in run.recorded[side].iterdir():
            if file.is_file() and file.name != "manifest.json":
                shutil.copyfile(file, folder / file.name)
        return
    from diffharness.evaluation import harness

    evaluation, results = harness.evaluate(
        run.session.model(side),
        run.session.tasks,
        limit=run.config.limit,
        model_args=run.session.model_args[side],
        progress=progress,
    )
    evaluation.save(folder)
    harness.write_results(results, folder)


def primary(run: Run, info: TaskInfo) -> MetricKey:
    """The metric that a task's account is of."""
    wanted = run.config.metric
    for metric in info.metrics:
        if wanted is not None and wanted in (metric.metric, str(metric)):
            return metric
    return info.metrics[0]


def compare(run: Run, folder: Path) -> None:
    """Pair the documents of both sides; one row a metric of a task."""
    from diffharness.assembly.scores import scored_row
    from diffharness.evaluation import comparison

    evaluations = {side: run.load_evaluation(side) for side in run.sides}
    baseline, candidate = evaluations["baseline"], evaluations["candidate"]
    asked = comparison.comparability(baseline, candidate)
    for evaluation in (baseline, candidate):
        for info in evaluation.tasks:
            run.session.check_tokens(evaluation.ledger.tokens(info.name), f"task {info.name!r}")
    notes = (*run.check(), *asked.notes)
    rng = np.random.default_rng(run.config.seed)
    rows = []
    for info in baseline.tasks:
        first = primary(run, info)
        for metric in sorted(info.metrics, key=lambda m: m != first):
            found = comparison.compare(
                info.name,
                metric,
                baseline,
                candidate,
                run.session.tasks.aggregation(info.name, metric.metric),
                rng,
            )
            ancestor = evaluations["ancestor"].task(info.name).scores if "ancestor" in evaluations else {}
            rows.append(scored_row(info, found, ancestor.get(str(metric)), is_primary=metric == first))
    result = schema.Comparability(
        documents_equal=asked.documents_equal,
        prompts_equal=asked.prompts_equal,
        tokenizers_equal=not any("tokenizer" in note for note in notes),
        notes=notes,
    )
    _write(folder / "comparison.json", {"rows": rows, "comparability": result.model_dump(mode="json")})


def harvest(run: Run, folder: Path, progress: Progress) -> None:
    """Let all models read the training texts, or take over what was recorded; leave the activations side by side."""
    import torch

    from diffharness.activations.corpus import Text, sample_texts
    from diffharness.activations.replay import replay
    from diffharness.activations.store import StoreWriter

    rng = np.random.default_rng(run.config.seed)
    stores = _recorded_activations(run)
    if run.config.corpus:
        tokenize = run.session.model("baseline").tokenize
        texts = sample_texts(run.config.corpus, tokenize, n_tokens=run.config.train_tokens, rng=rng)
    else:
        read = {
            r.ids: f"{r.task}:{r.doc_id}" for side in MAIN for r in run.load_evaluation(side).ledger if len(r.ids) > 1
        }
        texts = [Text(ids, source) for ids, source in read.items() if all(ids in places for _, places in stores)]
        texts = [texts[i] for i in rng.permutation(len(texts))]
        reach = np.searchsorted(np.cumsum([len(t.ids) - 1 for t in texts]), run.config.train_tokens) + 1
        texts = texts[:reach]
    run.session.check_tokens({i for text in texts for i in text.ids}, "the corpus")
    if len(texts) < 2:
        raise RunError("there are fewer than two texts to train the crosscoder on; give a larger --corpus")
    writer = StoreWriter(folder, sides=run.sides, layer=run.session.layer, texts=texts)
    if stores:
        for i, text in enumerate(texts):
            writer.add_text(i, torch.cat([store.rows_of(places[text.ids]) for store, places in stores], dim=1))
        writer.finish()
        return
    for batch in replay([run.session.reader(s) for s in run.sides], [t.ids for t in texts], progress=progress):
        writer.add(batch)
    writer.finish()


def _recorded_activations(run: Run) -> list[tuple[ActivationStore, dict[tuple[int, ...], int]]]:
    """What `diffharness lm-eval` left of every side at the run's layer, with each sequence's place in it.

    Empty where a corpus is to be read instead, or where a side has none at that layer.
    """
    from diffharness.activations.store import ActivationStore

    folders = [run.recorded[side] / "activations" for side in run.sides if side in run.recorded]
    if run.config.corpus or len(folders) < len(run.sides) or not all((f / "index.parquet").is_file() for f in folders):
        return []
    stores = [ActivationStore.open(folder) for folder in folders]
    if any(store.layer != run.session.layer for store in stores):
        return []
    return [(store, {text.ids: i for i, text in enumerate(store.texts)}) for store in stores]


def _activations(run: Run, sides: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """The store's activations of some sides, the mask of held-out rows, and the texts."""
    import torch

    from diffharness.activations.store import ActivationStore

    store = ActivationStore.open(run.harvest().folder)
    heldout_N = store.heldout(HELDOUT_SHARE, np.random.default_rng(run.config.seed))
    return store.of(sides), torch.from_numpy(heldout_N), store.texts


def train(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Train a crosscoder over two sides and measure it on held-out texts."""
    from diffharness.assembly.latents import quality
    from diffharness.crosscoder import checkpoint
    from diffharness.crosscoder.config import TrainingSettings
    from diffharness.crosscoder.quality import measure
    from diffharness.crosscoder.training import train as train_crosscoder
    from diffharness.defaults import crosscoder_size

    x_NMD, heldout_N, _ = _activations(run, sides)
    n_latents, k = crosscoder_size(x_NMD.shape[2], run.config.latents, run.config.k)
    settings = TrainingSettings(n_latents=n_latents, k=k, seed=run.config.seed)
    crosscoder = train_crosscoder(
        x_NMD[~heldout_N],
        settings,
        sides=sides,
        heldout_NMD=x_NMD[heldout_N],
        layer=run.session.layer,
        progress=progress,
    )
    checkpoint.save(crosscoder, folder)
    row = quality(crosscoder, measure(crosscoder, x_NMD[heldout_N]))
    _write(folder / "quality.json", row.model_dump(mode="json"))


def load_crosscoder(run: Run, sides: tuple[str, str]) -> Crosscoder:
    """The trained crosscoder over two sides."""
    from diffharness.crosscoder import checkpoint

    device = str(next(run.session.model("baseline").hf_model.parameters()).device)
    return checkpoint.load(run.crosscoder(sides).folder, device).requires_grad_(False)


def probes_of(run: Run, sides: tuple[str, str], progress: Progress) -> Any:
    """The probes as two sides read them, or none."""
    from diffharness.latents.description import probe_activations
    from diffharness.latents.probes import load_probes

    if run.config.probes is None:
        return None
    probes = load_probes(run.config.probes)
    model = run.session.model("baseline")
    ids = [model.tokenize(p.text) for p in probes]
    run.session.check_tokens({i for text in ids for i in text}, f"--probes {run.config.probes}")
    kept = [i for i, text in enumerate(ids) if len(text) > 1]
    x_NMD, lengths = probe_activations([run.session.reader(s) for s in sides], [ids[i] for i in kept], progress)
    return x_NMD, lengths, [probes[i].category for i in kept]


def describe_latents(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Scale, identify and name every latent of a crosscoder."""
    from diffharness.assembly.latents import latent_rows, write_latents
    from diffharness.latents.description import describe

    x_NMD, _, texts = _activations(run, sides)
    table = describe(
        load_crosscoder(run, sides), x_NMD, texts, probes=probes_of(run, sides, progress), progress=progress
    )
    rows = latent_rows(table, texts, run.session.model("baseline").hf_tokenizer)
    body = {
        "counts": table.identity.counts(),
        "mass": [float(m) for m in table.identity.mass],
        "latents": [row.model_dump(mode="json") for row in rows],
    }
    _write(folder / "latents.json", body)
    write_latents(rows, folder / "latents.parquet")


def model_pair(run: Run, crosscoder: Crosscoder) -> ModelPair:
    """Both models at the run's layer."""
    from diffharness.attribution.path import ModelPair

    readers = (run.session.reader("baseline"), run.session.reader("candidate"))
    return ModelPair(readers, (run.session.upper("baseline"), run.session.upper("candidate")), crosscoder)


def task_accounts(
    run: Run, crosscoder: Crosscoder, progress: Progress, only: set[str] | None = None
) -> tuple[list[TaskAccount], dict[str, str]]:
    """The account of every task that has one, and the reason for those that have none."""
    from diffharness.attribution.account import collect
    from diffharness.attribution.forms import NoAccountError, task_forms
    from diffharness.attribution.path import account_for

    baseline, candidate = run.load_evaluation("baseline"), run.load_evaluation("candidate")
    forms, reasons = {}, {}
    for info in baseline.tasks:
        if only is not None and info.name not in only:
            continue
        try:
            forms[info.name] = task_forms(info.name, primary(run, info), baseline, candidate)
        except NoAccountError as reason:
            reasons[info.name] = str(reason)
    pair = model_pair(run, crosscoder)
    total, done, accounts = sum(len(f.forms) for f in forms.values()), 0, []
    for name, task in forms.items():
        found = account_for(pair, task.forms, progress=lambda n, _, before=done: progress(before + n, total))
        done += len(task.forms)
        accounts.append(collect(name, task, found, crosscoder.n_latents))
    return accounts, reasons


def account(run: Run, folder: Path, progress: Progress) -> None:
    """Split every task's gap over categories, bias, error and the upper layers."""
    from diffharness.assembly.account import accounts, model_info, write_contributions

    crosscoder = load_crosscoder(run, MAIN)
    latents = _latents(run, MAIN)
    found, reasons = task_accounts(run, crosscoder, progress)
    evaluations = run.load_evaluation("baseline"), run.load_evaluation("candidate")
    gaps = {row["task"]: row["gap"] for row in _rows(run) if row["is_primary"]}
    rng = np.random.default_rng(run.config.seed)
    body = accounts(
        found,
        categories=[latent.category for latent in latents],
        metrics={info.name: primary(run, info) for info in evaluations[0].tasks},
        gaps=gaps,
        evaluations=evaluations,
        dtypes={side: str(run.session.model(side).hf_model.dtype) for side in MAIN},
        rng=rng,
    )
    models = [
        model_info(side, run.session.model_args[side], run.session.model(side).hf_model,
                            run.session.model_fingerprints[side], run.session.architectures[side].n_layers)
        for side in run.sides
    ]  # fmt: skip
    _write(
        folder / "account.json",
        {
            **body,
            "reasons": reasons,
            "models": [m.model_dump(mode="json") for m in models],
            "layer": run.session.layer,
            "n_layers": run.session.n_layers,
        },
    )
    write_contributions(found, [latent.category for latent in latents], folder / "contributions.parquet")


def check(run: Run, folder: Path, progress: Progress) -> None:
    """Put each clearly contributing category back to the baseline's version and let lm-eval score what is left."""
    from diffharness.assembly.checks import ablation, clear_contributions
    from diffharness.attribution.interventions import put_back
    from diffharness.evaluation import comparison, harness

    latents = _latents(run, MAIN)
    wanted = clear_contributions(_rows(run), _account(run)["tasks"], run.config.smallest_effect)
    ablations: list[dict[str, Any]] = []
    candidate = run.load_evaluation("candidate") if wanted else None
    for position, (category, tasks) in enumerate(wanted.items()):
        assert candidate is not None
        chosen = np.array([latent.index for latent in latents if latent.category == category])
        model = run.session.model("candidate").hf_model
        with put_back(model, run.session.reader("baseline"), load_crosscoder(run, MAIN), chosen):
            ablated, _ = harness.evaluate(
                run.session.model("candidate"), run.session.tasks, only=tasks, limit=run.config.limit,
                protocol=candidate.settings.get("protocol"),
                progress=lambda done, total, p=position: progress(p * total + done, len(wanted) * total),
            )  # fmt: skip
        _same_questions(ablated, candidate)
        for name in tasks:
            metric = primary(run, candidate.task(name))
            found = comparison.compare(
                name, metric, ablated, candidate, run.session.tasks.aggregation(name, metric.metric),
                np.random.default_rng(run.config.seed),
            )  # fmt: skip
            ablations.append({"task": name, "category": category, **ablation(found).model_dump(mode="json")})
    _write(folder / "checks.json", ablations)


def _same_questions(ablated: Evaluation, candidate: Evaluation) -> None:
    """Refuse an exact check that asked otherwise than the evaluation that it is compared with."""
    from diffharness.evaluation.comparison import comparability

    found = comparability(ablated, candidate)
    if not found.prompts_equal:
        raise RunError(f"the exact check was asked other prompts than the recorded evaluation ({found.notes[0]})")


def control(run: Run, folder: Path, progress: Progress) -> None:
    """Do the account of the moved tasks again with a random encoder, and with shuffled labels."""
    from diffharness.assembly.checks import controls
    from diffharness.assembly.scores import moved_tasks
    from diffharness.crosscoder.random_encoder import random_encoder
    from diffharness.latents.description import annotate

    moved = moved_tasks(_rows(run), run.config.smallest_effect) & set(_account(run)["tasks"])
    if not moved or run.config.probes is None:
        _write(folder / "controls.json", [])
        return
    x_NMD, heldout_N, _ = _activations(run, MAIN)
    trained = load_crosscoder(run, MAIN)
    blind = random_encoder(
        trained, x_NMD[~heldout_N], heldout_NMD=x_NMD[heldout_N], seed=run.config.seed
    ).requires_grad_(False)
    names = [a.category for a in annotate(blind, probes_of(run, MAIN, progress))]
    accounts, _ = task_accounts(run, blind, progress, only=moved)
    real = {latent.index: latent for latent in _latents(run, MAIN)}
    body = controls(
        _account(run)["tasks"],
        categories=[real[i].category for i in range(len(real))],
        blind_accounts=accounts,
        blind_categories=names,
        rng=np.random.default_rng(run.config.seed),
    )
    _write(folder / "controls.json", [c.model_dump(mode="json") for c in body])


def report(run: Run, folder: Path) -> None:
    """Put everything together and write every view of it."""
    from diffharness.assembly import report as assembly
    from diffharness.report.writer import write_report

    (folder / "run.yaml").write_text(run.config.to_yaml(), encoding="utf-8")
    write_report(assembly.report(run), folder)


def _latents(run: Run, sides: tuple[str, str]) -> tuple[schema.Latent, ...]:
    body = run.read_json(run.latents(sides), "latents.json")
    return tuple(schema.Latent.model_validate(row) for row in body["latents"])


def _rows(run: Run) -> list[dict[str, Any]]:
    return run.read_json(run.comparison(), "comparison.json")["rows"]


def _account(run: Run) -> dict[str, Any]:
    return run.read_json(run.account(), "account.json")


def _write(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body, ensure_ascii=False, allow_nan=False), encoding="utf-8")
