"""Stages of the account: gaps split, checked exactly, and tried against controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness import defaults
from diffharness.stages.forms import drawn_of, forms_of, prompts_of, references_of
from diffharness.stages.naming import is_named_by_probes, probes_of, taxonomy_of
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    load_seeds,
    read_account,
    read_categories,
    read_rows,
    write_json,
)
from diffharness.stages.scoring import document_worth, load_clustered, primary

if TYPE_CHECKING:
    from diffharness.attribution.account import TaskAccount
    from diffharness.attribution.states import ModelPair
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.pipeline import Run


def model_pair(run: Run, crosscoder: Crosscoder) -> ModelPair:
    """Both models at the run's layer."""
    from diffharness.attribution.states import ModelPair

    readers = (run.session.reader("baseline"), run.session.reader("candidate"))
    return ModelPair(readers, (run.session.upper("baseline"), run.session.upper("candidate")), crosscoder)


def task_accounts(
    run: Run, crosscoder: Crosscoder, progress: Progress, only: set[str] | None = None, n_documents: int | None = None
) -> tuple[list[TaskAccount], dict[str, str]]:
    """The account of every task that has one, and the reason for those that have none.

    Args:
        run: whose tasks.
        crosscoder: takes the gaps apart.
        progress: documents done.
        only: names of the tasks; all by default.
        n_documents: accounted for a task; as configured by default.
    """
    from diffharness.attribution.account import collect
    from diffharness.attribution.path import account_for

    forms, reasons = forms_of(run, only)
    prompts, unanswered = prompts_of(run, forms)
    forms, reasons = {name: forms[name] for name in prompts}, {**reasons, **unanswered}
    pair = model_pair(run, crosscoder)
    drawn = drawn_of(run, forms, n_documents or run.config.attribution_documents)
    total, done, accounts = sum(len(d.stands_for) for d in drawn.values()), 0, []
    for name, task in forms.items():
        stands_for = drawn[name].stands_for
        chosen = [form for form in task.forms if form.doc_id in stands_for]
        found = account_for(
            pair, chosen, references_of(run, name), progress=lambda n, _, before=done: progress(before + n, total)
        )
        done += len(chosen)
        accounts.append(collect(name, task, found, crosscoder.n_latents, stands_for, prompts[name]))
    return accounts, reasons


def account(run: Run, folder: Path, progress: Progress) -> None:
    """Split every task's gap over categories (written and read), bias, error, prior and, if there is one, prompt."""
    from diffharness.assembly.account import accounts, write_contributions

    crosscoder = load_crosscoder(run, MAIN)
    categories = read_categories(run)
    found, reasons = task_accounts(run, crosscoder, progress)
    evaluations = load_clustered(run, "baseline"), load_clustered(run, "candidate")
    gaps = {row["task"]: row["gap"] for row in read_rows(run) if row["is_primary"]}
    rng = np.random.default_rng(run.config.seed)
    body = accounts(
        found,
        categories=categories,
        metrics={info.name: primary(run, info) for info in evaluations[0].tasks},
        gaps=gaps,
        worth={info.name: document_worth(run, info) for info in evaluations[0].tasks},
        evaluations=evaluations,
        rng=rng,
    )
    write_json(folder / "account.json", {**body, "reasons": reasons})
    write_contributions(found, categories, folder / "contributions.parquet")


def check(run: Run, folder: Path, progress: Progress) -> None:
    """Run the models without each clearly contributing category and let lm-eval score what is left."""
    from diffharness.assembly.checks import clear_contributions
    from diffharness.assembly.scores import moved_tasks
    from diffharness.stages.checking import exact_check, prompt_check

    wanted = clear_contributions(read_rows(run), read_account(run)["tasks"], run.config.smallest_effect)
    moved = moved_tasks(read_rows(run), run.config.smallest_effect)
    write_json(folder / "checks.json", [*exact_check(run, wanted, progress), *prompt_check(run, moved)])


def control(run: Run, folder: Path, progress: Progress) -> None:
    """Do the account of the moved tasks again: with shuffled labels, a random encoder, crosscoders of other seeds."""
    from diffharness.assembly.checks import by_seeds, controls
    from diffharness.assembly.scores import moved_tasks
    from diffharness.crosscoder.random_encoder import random_encoder

    tasks = read_account(run)["tasks"]
    moved = moved_tasks(read_rows(run), run.config.smallest_effect) & set(tasks)
    if not moved or not is_named_by_probes(run):
        write_json(folder / "controls.json", {"controls": [], "seeds": {}})
        return
    trained = load_crosscoder(run, MAIN)
    accounts: list[TaskAccount] = []
    names: list[str] = []
    if trained.n_latents <= defaults.RANDOM_ENCODER_LATENTS:
        x_NMD, heldout_NMD = run.harvested.training(MAIN)
        blind = random_encoder(trained, x_NMD, heldout_NMD=heldout_NMD, seed=run.config.seed).requires_grad_(False)
        accounts, names = _account_again(run, blind, moved, progress)
    body = controls(
        tasks,
        categories=read_categories(run),
        moved=[name for name in tasks if name in moved],
        blind_accounts=accounts,
        blind_categories=names,
        rng=np.random.default_rng(run.config.seed),
    )
    others = [
        _account_again(run, other.to(trained.threshold.device), moved, progress) for other in load_seeds(run, MAIN)
    ]
    found = {"controls": [c.model_dump(mode="json") for c in body], "seeds": by_seeds(others)}
    write_json(folder / "controls.json", found)


def _account_again(
    run: Run, crosscoder: Crosscoder, tasks: set[str], progress: Progress
) -> tuple[list[TaskAccount], list[str]]:
    """The accounts of some tasks by another crosscoder, on fewer documents, and the names of its latents."""
    from diffharness.latents.description import annotate

    names = [a.category for a in annotate(crosscoder, probes_of(run, MAIN, progress), taxonomy_of(run))]
    n_documents = min(defaults.CONTROL_DOCUMENTS, run.config.attribution_documents)
    accounts, _ = task_accounts(run, crosscoder, progress, only=tasks, n_documents=n_documents)
    return accounts, names


def report(run: Run, folder: Path) -> None:
    """Put everything together and write every view of it."""
    from diffharness.assembly import report as assembly
    from diffharness.report.writer import write_report

    (folder / "run.yaml").write_text(run.config.to_yaml(), encoding="utf-8")
    write_report(assembly.report(run), folder)
