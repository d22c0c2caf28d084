"""The whole report, from what the stages left in the run's folder."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel

from diffharness import __version__, defaults
from diffharness.artifacts import fingerprint
from diffharness.assembly import depth, shapley
from diffharness.assembly.checks import ablation, no_check_reason
from diffharness.assembly.claims import claims
from diffharness.assembly.scores import decisions
from diffharness.assembly.shift import shift
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.pipeline import Run

N_CHANGED = 12
"""Shared latents shown as what changed."""
Part = TypeVar("Part", bound=BaseModel)
Checked: TypeAlias = tuple[str, str | None, str | None]
"""What an exact check is of: task, category and origin."""
MAIN = ("baseline", "candidate")
ORDER = (
    "the mean of both orders: what is written under the candidate's upper layers and read at the baseline's state, and "
    "what is written under the baseline's and read at the candidate's; half their difference is the interaction"
)
_COMPONENT = (
    "kind", "origin", "category", "contribution", "contribution_raw", "interaction", "second_start", "at_own_states",
    "is_content_free",
)  # fmt: skip
_PACKAGES = ("lm-eval", "nnsight", "torch", "transformers", "tokenizers", "numpy", "scipy", "pyarrow")


def report(run: Run) -> schema.Report:
    """Read every stage's artifact and put the report together."""
    comparison = run.read_json(run.comparison(), "comparison.json")
    validity = run.read_json(run.validity(), "validity.json")
    mechanism = _mechanism(run, comparison["rows"]) if validity["withheld"] is None else _withheld(run, comparison)
    return schema.Report(
        run=schema.RunInfo(
            name=run.config.output.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=run.command,
            layer=validity["layer"],
            n_layers=validity["n_layers"],
            order=ORDER,
            smallest_effect=run.config.smallest_effect,
            seed=run.config.seed,
            seconds=round(run.seconds, 1),
            notes=(*_notes(run), *depth.notes(run), *validity["notes"], *mechanism.notes),
        ),
        models=tuple(schema.ModelInfo.model_validate(m) for m in validity["models"]),
        comparability=schema.Comparability.model_validate(comparison["comparability"]),
        quality=mechanism.quality,
        tasks=mechanism.tasks,
        ablated=_ablated(run) if validity["withheld"] is None else (),
        depth=depth.profiles(run) if validity["withheld"] is None else (),
        **(shapley.parts(run) if validity["withheld"] is None else {}),
        categories=mechanism.categories,
        categories_reason=mechanism.categories_reason,
        latents=mechanism.latents,
        annotation=mechanism.annotation,
        changed=mechanism.changed,
        corpus=mechanism.corpus,
        claims=mechanism.claims,
        flips=tuple(schema.FlipKinds.model_validate(row) for row in run.read_json(run.flips(), "flips.json")),
        documents=mechanism.documents,
        validation=schema.Validation(
            completeness=mechanism.completeness,
            replay=tuple(schema.ReplayCheck.model_validate(check) for check in validity["checks"]),
            rescored=tuple(schema.Rescored.model_validate(row) for row in comparison["rescored"]),
            controls=mechanism.controls,
            mechanism_withheld=validity["withheld"],
        ),
        provenance=schema.Provenance(
            versions={"diffharness": __version__, **{name: metadata.version(name) for name in _PACKAGES}},
            platform=f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
            config=run.config.public(),
            config_hash=fingerprint(run.config.model_dump(mode="json", exclude={"output"})),
            task_hashes={row["task"]: row["hash"] for row in comparison["rows"]},
        ),
    )


def _ablated(run: Run) -> tuple[schema.AblatedModel, ...]:
    """The models that `--ablate` asked for."""
    if not run.config.ablate:
        return ()
    return tuple(schema.AblatedModel.model_validate(m) for m in run.read_json(run.ablations(), "ablations.json"))


@dataclass(frozen=True)
class _Mechanism:
    """The part of the report that rests on replay."""

    tasks: tuple[schema.Task, ...]
    notes: tuple[str, ...] = ()
    quality: tuple[schema.CrosscoderQuality, ...] = ()
    categories: tuple[schema.CategoryShift, ...] = ()
    categories_reason: str | None = None
    latents: tuple[schema.Latent, ...] = ()
    annotation: schema.Annotation | None = None
    changed: schema.ChangedUse | None = None
    corpus: tuple[schema.CorpusSource, ...] = ()
    claims: tuple[schema.Claim, ...] = ()
    documents: tuple[schema.TaskDocuments, ...] = ()
    completeness: schema.Completeness | None = None
    controls: tuple[schema.Control, ...] = ()


def _withheld(run: Run, comparison: Mapping[str, Any]) -> _Mechanism:
    """Scores alone: replay does not stand for what was scored."""
    reason = "the mechanism is withheld: replay does not give lm-eval's answers"
    nothing = {"tasks": {}, "reasons": {row["task"]: reason for row in comparison["rows"]}}
    tasks = _tasks(comparison["rows"], nothing, {}, run.config.smallest_effect)
    return _Mechanism(tasks, categories_reason=reason)


def _mechanism(run: Run, rows: Sequence[Mapping[str, Any]]) -> _Mechanism:
    account = run.read_json(run.account(), "account.json")
    ablations = {
        (row["task"], row["category"], row["origin"]): ablation(row)
        for row in run.read_json(run.checks(), "checks.json")
    }
    tried = run.read_json(run.controls(), "controls.json") if run.config.controls else {"controls": [], "seeds": {}}
    dictionaries = [MAIN, *run.ancestral]
    described = {sides: run.read_json(run.latents(sides), "latents.json") for sides in dictionaries}
    categories, categories_reason = shift(run, described)
    corpus = run.read_json(run.harvest(), "corpus.json")
    completeness = account["completeness"]
    latents = _latents(described[MAIN]["latents"], account["tasks"])
    return _Mechanism(
        tasks=_tasks(rows, _with_seeds(account, tried["seeds"]), ablations, run.config.smallest_effect),
        notes=(*(f"Texts of the crosscoder: {note}." for note in corpus["notes"]), *_control_notes(run, described)),
        quality=tuple(_quality(run, sides, described[sides]["counts"]) for sides in dictionaries),
        categories=categories,
        categories_reason=categories_reason,
        annotation=_part(schema.Annotation, described[MAIN]["annotation"]),
        changed=_changed(described[MAIN]["changed"], latents),
        latents=latents,
        corpus=tuple(schema.CorpusSource.model_validate(source) for source in corpus["sources"]),
        claims=claims(run, account["tasks"], rows),
        documents=tuple(
            schema.TaskDocuments.model_validate(row) for row in run.read_json(run.documents(), "documents.json")
        ),
        completeness=schema.Completeness.model_validate(completeness) if completeness else None,
        controls=tuple(schema.Control.model_validate(c) for c in tried["controls"]),
    )


def _changed(body: Mapping[str, Any], latents: Sequence[schema.Latent]) -> schema.ChangedUse:
    """Shared latents whose use changed most, and in turn with them those that write most of the gaps."""
    size = {j.index: sum(map(abs, j.contributions.values())) for j in latents if j.status == "shared"}
    by_written = [index for index in sorted(size, key=lambda index: -size[index]) if size[index]]
    by_use = body["latents"]
    in_turn = [index for pair in zip_longest(by_use, by_written[:N_CHANGED]) for index in pair if index is not None]
    return schema.ChangedUse.model_validate({**body, "latents": tuple(dict.fromkeys(in_turn))[:N_CHANGED]})


def _part(kind: type[Part], body: Mapping[str, Any] | None) -> Part | None:
    return None if body is None else kind.model_validate(body)


def _control_notes(run: Run, described: Mapping[tuple[str, ...], Mapping[str, Any]]) -> tuple[str, ...]:
    """Which control was left out, and why."""
    n_latents = len(described[MAIN]["latents"])
    if not run.config.controls or n_latents <= defaults.RANDOM_ENCODER_LATENTS:
        return ()
    return (
        f"The control with a random encoder was left out: with {n_latents:,} latents it would take too much memory "
        f"(it is done up to {defaults.RANDOM_ENCODER_LATENTS:,}).",
    )


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    if not run.config.corpus:
        done = "trained" if run.config.crosscoder is None else "measured"
        notes.append(f"No corpus was given: the crosscoder was {done} on what the tasks made the models read.")
    if run.config.annotator[0] == "none":
        notes.append("Nobody was asked to name latents (--annotator none), so every category is `unclear`.")
    elif run.config.probes is None and "probe" in run.config.annotator:
        notes.append("Latents are named by the built-in English probes; --probes gives others.")
    return tuple(notes)


def _quality(run: Run, pair: tuple[str, ...], counts: dict[str, int]) -> schema.CrosscoderQuality:
    found = run.read_json(run.crosscoder(pair), "quality.json")
    return schema.CrosscoderQuality.model_validate({**found, "n_by_status": counts})


def _tasks(
    rows: Sequence[Mapping[str, Any]],
    account: Mapping[str, Any],
    ablations: Mapping[Checked, schema.Ablation],
    smallest_effect: float,
) -> tuple[schema.Task, ...]:
    tasks = []
    for row, decided in zip(rows, decisions(rows, smallest_effect), strict=True):
        found = account["tasks"].get(row["task"]) if row["is_primary"] else None
        verdict = decided["verdict"]
        reason = None
        if found is None:
            reason = (
                account["reasons"].get(row["task"], "no account was made")
                if row["is_primary"]
                else "a group has no account of its own; see its tasks"
                if row["is_group"]
                else "the account is of the task's primary metric"
            )
        tasks.append(
            schema.Task(
                **{key: row[key] for key in ("task", "metric", "filter", "is_primary", "output_type", "n")},
                higher_is_better=row["higher_is_better"],
                **{key: row[key] for key in ("baseline", "candidate", "ancestor", "gap", "p_value")},
                categories=tuple(row["categories"]),
                interval=schema.Interval(low=row["low"], high=row["high"], level=row["level"], method=row["method"]),
                **decided,
                surrogate=schema.Surrogate.model_validate(found["surrogate"]) if found else None,
                not_tracked=found["not_tracked"] if found else None,
                interaction=found["interaction"] if found else None,
                components=_components(row["task"], found, ablations, verdict) if found else (),
                upper_check=ablations.get((row["task"], None, "upper")) if found else None,
                account_reason=reason,
                completeness=found["completeness"] if found else None,
                n_accounted=found["n_accounted"] if found else 0,
                documents=tuple(schema.Document.model_validate(d) for d in found["documents"]) if found else (),
            )
        )
    return tuple(tasks)


def _with_seeds(account: Mapping[str, Any], seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
    """The accounts with what other seeds' crosscoders make of every component."""
    for task, rows in seeds.items():
        found = {(row["kind"], row["origin"], row["category"]): row["seeds"] for row in rows}
        for part in account["tasks"][task]["components"]:
            part["seeds"] = found.get((part["kind"], part["origin"], part["category"]), [0.0] * _n_seeds(rows))
    return account


def _n_seeds(rows: Sequence[Mapping[str, Any]]) -> int:
    return len(rows[0]["seeds"]) if rows else 0


def _components(
    task: str, found: Mapping[str, Any], ablations: Mapping[Checked, schema.Ablation], verdict: str
) -> tuple[schema.Component, ...]:
    moved = verdict in ("improved", "regressed")
    gap = found["surrogate"]["gap"]
    parts = []
    for part in found["components"]:
        origin = "prompt" if part["kind"] == "prompt" else part["origin"]
        has_check = part["kind"] in ("latents", "prompt")
        check = ablations.get((task, part["category"], origin)) if has_check else None
        parts.append(
            schema.Component(
                **{key: part[key] for key in _COMPONENT},
                interval=schema.Interval(low=part["low"], high=part["high"]),
                share=part["contribution"] / gap if moved and gap else None,
                p_value=part["p_value"],
                q_value=part["q_value"],
                n_latents=part["n_latents"],
                seeds=tuple(part.get("seeds", ())),
                ablation=check,
                ablation_reason=None if check else no_check_reason(part, gap, moved=moved),
            )
        )
    return tuple(parts)


def _latents(rows: Sequence[dict[str, Any]], tasks: Mapping[str, Any]) -> tuple[schema.Latent, ...]:
    """Latents with what they contribute to each task, written and read together; zeros are left out."""
    written, read = (
        {name: np.array(task["latents"][origin]) for name, task in tasks.items()} for origin in ("written", "read")
    )
    found = []
    for row in rows:
        j = row["index"]
        both = {name: float(written[name][j] + read[name][j]) for name in tasks if written[name][j] or read[name][j]}
        own = {name: float(read[name][j]) for name in both if read[name][j]}
        found.append(schema.Latent.model_validate({**row, "contributions": both, "read": own}))
    return tuple(found)
