"""The stage that looks at documents whose score changed token by token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness.stages.explanation import model_pair
from diffharness.stages.flips import scored_tasks
from diffharness.stages.forms import forms_of, references_of
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    read_categories,
    read_rows,
    write_json,
)

if TYPE_CHECKING:
    from diffharness.pipeline import Run


def documents(run: Run, folder: Path, progress: Progress) -> None:
    """Account for the tokens of a few flipped documents of every task with a gap; say why the others have none."""
    from diffharness.assembly.account import present
    from diffharness.assembly.documents import choose, task_documents
    from diffharness.assembly.flips import Contributions, document_kinds
    from diffharness.assembly.scores import moved_tasks
    from diffharness.attribution.tokens import token_accounts

    moved = moved_tasks(read_rows(run), run.config.smallest_effect)
    if not moved:
        write_json(folder / "documents.json", [])
        return
    scored = scored_tasks(run, lambda _done, _total: None, run.shared("candidate"))
    kinds = document_kinds(scored, np.random.default_rng(run.config.seed))
    contributions = Contributions.load(run.account().folder / "contributions.parquet")
    forms, reasons = forms_of(run, moved)
    tasks = [task for task in scored if task.task in moved]
    chosen = {t.task: choose(t, contributions, forms.get(t.task), reasons.get(t.task)) for t in tasks}
    categories = read_categories(run)
    names = present(categories)
    pair = model_pair(run, load_crosscoder(run, MAIN))
    total, done, found = sum(len(c.doc_ids) for c in chosen.values()), 0, []
    for task in tasks:
        own, wanted = forms.get(task.task), chosen[task.task].doc_ids
        by_id = {} if own is None else {form.doc_id: form for form in own.forms}
        accounts = token_accounts(
            pair,
            [by_id[i] for i in wanted],
            categories,
            names,
            references_of(run, task.task),
            progress=lambda n, _, before=done: progress(before + n, total),
        )
        done += len(wanted)
        body = task_documents(
            task, chosen[task.task], own, accounts, kinds[task.task],
            categories=categories, names=names, tokenizer=run.session.model("baseline").hf_tokenizer,
        )  # fmt: skip
        found.append(body.model_dump(mode="json"))
    write_json(folder / "documents.json", found)
