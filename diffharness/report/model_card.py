"""The candidate's results for its card on the Hugging Face Hub: a `model-index` block, and a section on what changed.

The block is the Hub's own form (hub-docs, modelcard.md): results by data set, each with its metrics. Results on the
same data set, configuration and split are one to the Hub; tasks that share them are listed under their own names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffharness.report.markup import Page, code, escape
from diffharness.report.numbers import count, interval, plain, signed
from diffharness.report.schema import Report, Task
from diffharness.report.settings import TaskSettings, hub_id, read_settings
from diffharness.report.settling import approximate_sentence, settling_sentence
from diffharness.report.text import brief
from diffharness.report.view import by_severity, is_explained, is_real, parts, primary
from diffharness.report.words import VERDICT_SIGNS, account_sentence, headline, part_name, replay_sentence

LIMIT_BYTES = 30_000
_METRIC_TYPES = {"acc": "accuracy"}
"""lm-eval's names of metrics that the Hub calls otherwise."""
_SOURCE = {"name": "lm-evaluation-harness", "url": "https://github.com/EleutherAI/lm-evaluation-harness"}
_MOST_ACCOUNTS = 8
_MOST_PARTS = 3
IN_THE_REPORT = "in the run's own report"
_HEAD = """| task | metric | documents | before | this model | gap | interval | verdict |
|---|---|--:|--:|--:|--:|--:|---|"""


def render_model_card(report: Report, folder: Path | None = None) -> str:
    """A card of the candidate: the `model-index` as front matter, then what changed against the baseline.

    Args:
        report: the run's report.
        folder: the run's folder, which knows the tasks' data sets; `None` where there is none.
    """
    index = {"model-index": model_index(report, read_settings(folder, "candidate"))}
    block = yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=1_000)
    return f"---\n{block}---\n\n{changes(report)}"


def model_index(report: Report, settings: Mapping[str, TaskSettings]) -> list[dict[str, Any]]:
    """The candidate's scores in the Hub's form; `settings` by task."""
    rows: dict[str, list[Task]] = {}
    for task in report.tasks:
        rows.setdefault(task.task, []).append(task)
    shared = Counter(_place(ran) for name in rows if (ran := settings.get(name)) is not None)
    results = []
    for name, scores in rows.items():
        ran = settings.get(name)
        known = ran is not None and ran.dataset is not None and shared[_place(ran)] == 1
        results.append(
            {
                "task": {"type": "text-generation", "name": "Text generation"},
                "dataset": _dataset(name, ran, known=known),
                "metrics": [_metric(task) for task in scores],
                "source": dict(_SOURCE),
            }
        )
    return [{"name": brief(_name(report, "candidate"), 200), "results": results}]


def _place(ran: TaskSettings) -> tuple[str | None, str | None, str | None]:
    return ran.dataset, ran.config, ran.split


def _dataset(name: str, ran: TaskSettings | None, *, known: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": brief(name, 200), "type": brief(name, 200)}
    if ran is None:
        return found
    if known:
        found["type"] = ran.dataset
        found |= {key: value for key, value in (("config", ran.config), ("split", ran.split)) if value is not None}
    if ran.num_fewshot is not None:
        found["args"] = {"num_few_shot": ran.num_fewshot}
    return found


def _metric(task: Task) -> dict[str, Any]:
    name = task.metric if task.filter == "none" else f"{task.metric} ({task.filter})"
    return {
        "type": brief(_METRIC_TYPES.get(task.metric, task.metric), 80),
        "value": round(task.candidate, 6),
        "name": brief(name, 120),
    }


def _name(report: Report, side: str) -> str:
    """What the model is called: its id on the Hub, or its name."""
    model = next((m for m in report.models if m.side == side), None)
    return side if model is None else hub_id(model) or model.name


def changes(report: Report) -> str:
    """The section for the card: the verdict, the scores beside the baseline's, and why, in at most 30 KB."""
    page = Page(LIMIT_BYTES, where=IN_THE_REPORT)
    page.add(f"## What changed against {code(_name(report, 'baseline'), 120)}")
    page.add(escape(headline(report)))
    rows = [_row(task) for task in by_severity(report.tasks)]
    page.table(_HEAD, rows, "scores", share=0.4)
    _why(page, report)
    said = [settling_sentence(report), approximate_sentence(report), replay_sentence(report)]
    page.add("\n".join(f"- {escape(brief(sentence, 600))}." for sentence in said if sentence is not None))
    page.add(_made(report))
    return page.text


def _made(report: Report) -> str:
    same = report.comparability.documents_equal
    answered = "both models answered the same documents" if same else "**the two did not answer the same documents**"
    return (
        f"Made with diffharness from scores of lm-evaluation-harness: {answered}; the gap is this model − the one "
        "before. Names of categories are hypotheses about latents of a crosscoder at "
        f"layer {report.run.layer} of {report.run.n_layers}."
    )


def _row(task: Task) -> str:
    better = "" if task.higher_is_better else " (lower is better)"
    name = task.metric if task.filter == "none" else f"{task.metric} ({task.filter})"
    cells = (
        escape(brief(task.task, 80)),
        escape(brief(name, 60)) + better,
        count(task.n),
        plain(task.baseline),
        plain(task.candidate),
        signed(task.gap),
        interval(task.interval),
        f"{VERDICT_SIGNS[task.verdict]} {task.verdict}",
    )
    return f"| {' | '.join(cells)} |"


def _why(page: Page, report: Report) -> None:
    if report.validation.mechanism_withheld is not None:
        page.add(f"Why they changed is withheld: {escape(brief(report.validation.mechanism_withheld, 600))}")
        return
    real = [task for task in by_severity(primary(report)) if is_real(task)]
    told = [f"- {escape(brief(task.task, 80))}: {escape(_account(report, task))}" for task in real[:_MOST_ACCOUNTS]]
    if told:
        page.add("### Why")
        page.add("\n".join(told))
    if len(real) > _MOST_ACCOUNTS:
        page.add(f"… and {len(real) - _MOST_ACCOUNTS} more tasks with a gap, {IN_THE_REPORT}.")


def _account(report: Report, task: Task) -> str:
    """The largest parts of a gap in a line, and which of them are causes; why there are none, where there are none."""
    if not is_explained(task) or task.surrogate is None:
        return brief(account_sentence(task, report.claims), 600)
    largest = [f"{brief(part_name(part), 60)} {signed(part.contribution)}" for part in parts(task)[:_MOST_PARTS]]
    causal = {claim.category for claim in report.claims if claim.task == task.task and claim.is_causal}
    causes = [brief(part_name(part), 60) for part in parts(task) if part.category in causal]
    said = f"confirmed as a cause: {', '.join(causes)}" if causes else "none is confirmed as a cause"
    return f"of {signed(task.surrogate.gap)} ({brief(task.surrogate.name, 80)}): {', '.join(largest)}; {said}."
