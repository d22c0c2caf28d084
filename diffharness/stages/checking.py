"""The exact check: what lm-eval's own metric makes of a category, written and read, by running the models without it.

*Written* is checked by the candidate with the category put back to the baseline's version. *Read* is checked by the
difference of two ablations: the category is taken out of the baseline's state under either model's layers above. Before
any of these counts, both models must reproduce their own scores to the byte with the same machinery changing nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.errors import RunError
from diffharness.stages.reading import MAIN, Progress, load_crosscoder, read_categories
from diffharness.stages.scoring import clustered, load_clustered, primary

if TYPE_CHECKING:
    from diffharness.attribution.interventions import Arm
    from diffharness.evaluation.contrasts import Change
    from diffharness.evaluation.scores import Evaluation
    from diffharness.pipeline import Run
    from diffharness.statistics.paired import PairedResult

BASELINE, CANDIDATE = 0, 1
N_SHARED = 3
"""Evaluations that all categories share: nothing changed in either model, and the swapped state."""
N_OWN = {"written": 1, "read": 2}
"""Evaluations of a category's own: put back; taken out of the baseline's state under either model's layers above."""


class ArmScorer:
    """lm-eval's scores of either model with another state at the layer.

    Args:
        run: whose models, tasks and crosscoder.
        total: evaluations that will be made, for the progress.
        progress: called with (done, all).
    """

    def __init__(self, run: Run, total: int = 1, progress: Progress = lambda _done, _total: None) -> None:
        self.run = run
        self.crosscoder = load_crosscoder(run, MAIN)
        self._protocols = [run.load_evaluation(run.shared(side)).settings.get("protocol") for side in MAIN]
        self._total, self._progress, self._n_done = total, progress, 0

    def score(self, target: int, arm: Arm | None, only: Sequence[str] | None = None) -> Evaluation:
        """One model's scores under an arm.

        Args:
            target: whose layers above are run: 0 the baseline's, 1 the candidate's.
            arm: what stands at the layer; `None` runs the model by itself, without any machinery.
            only: names of tasks; all by default.
        """
        from diffharness.attribution.interventions import intervene

        if arm is None:
            return self._evaluated(target, only)
        readers = [self.run.session.reader(side) for side in MAIN]
        with intervene(readers, self.crosscoder, target, arm):
            return self._evaluated(target, only)

    def _evaluated(self, target: int, only: Sequence[str] | None) -> Evaluation:
        from diffharness.evaluation import harness

        run, place, n = self.run, min(self._n_done, self._total - 1), self._total
        names = None if only is None else [name for name in run.session.tasks.names if name in set(only)]
        found, _ = harness.evaluate(
            run.session.model(MAIN[target]), run.session.tasks, only=names, limit=run.config.limit,
            protocol=self._protocols[target],
            progress=lambda done, total: self._progress(place * total + done, n * total),
        )  # fmt: skip
        self._n_done += 1
        _same_questions(found, run.load_evaluation(run.shared(MAIN[target])))
        return clustered(run, found)

    def reproduced(self, target: int) -> Evaluation:
        """A model's evaluation that arms are compared with: what changing nothing gives, to the byte.

        That is the recorded one; or, where these weights score otherwise in this place (another engine or batch size
        recorded it), the model's own scores here.

        Raises:
            RunError: changing nothing does not reproduce the model's scores.
        """
        from diffharness.attribution.interventions import Arm

        recorded = load_clustered(self.run, self.run.shared(MAIN[target]))
        nothing = self.score(target, Arm("nothing"))
        if first_difference(nothing, recorded) is None:
            return recorded
        plain = self.score(target, None)
        where = first_difference(nothing, plain)
        if where is not None:
            raise RunError(
                f"the {MAIN[target]} with nothing changed at the layer does not give its own scores ({where}), so no "
                "exact check counts; try --batch-size 1 or another --device"
            )
        return plain


def first_difference(one: Evaluation, other: Evaluation) -> str | None:
    """The first document whose answer or value of a metric is not the same to the byte, or that some log-likelihood or
    generated token is not; `None` where everything is."""
    documents = [{(d.task, d.doc_id, d.filter): d for d in e.documents} for e in (one, other)]
    if documents[0].keys() != documents[1].keys():
        return "other documents were scored"
    for key, document in documents[0].items():
        same = documents[1][key]
        if document.answer != same.answer or _shown(document.values) != _shown(same.values):
            return f"task {key[0]!r}, document {key[1]}: {_shown(document.values)} and {_shown(same.values)}"
    return None if one.ledger == other.ledger else "log-likelihoods or generated tokens differ"


def _shown(values: Mapping[str, Any]) -> str:
    """Values so that equal ones are equal, those that are not a number too."""
    return ", ".join(f"{name} {values[name]!r}" for name in sorted(values))


def _same_questions(found: Evaluation, recorded: Evaluation) -> None:
    """Refuse an exact check that asked otherwise than the evaluation that it is compared with."""
    from diffharness.evaluation.comparison import comparability

    asked = comparability(found, recorded)
    if not asked.prompts_equal:
        raise RunError(f"the exact check was asked other prompts than the recorded evaluation ({asked.notes[0]})")


@dataclass(frozen=True)
class _Row:
    """One effect on a task's real metric."""

    task: str
    category: str | None
    origin: str
    score: float
    found: PairedResult
    documents: dict[int, float | None]

    def body(self) -> dict[str, Any]:
        """As JSON."""
        found = self.found
        return {
            "task": self.task,
            "category": self.category,
            "origin": self.origin,
            "score": self.score,
            "change": found.gap,
            "low": found.low,
            "high": found.high,
            "level": found.level,
            "method": found.method,
            "p_value": found.p_value,
            "n": found.n,
            "documents": self.documents,
        }


def exact_check(
    run: Run, wanted: Mapping[str, Mapping[str, Sequence[str]]], progress: Progress
) -> list[dict[str, Any]]:
    """What lm-eval's real metrics make of categories, by running the models without them.

    Args:
        run: whose models, tasks, latents and crosscoder.
        wanted: by origin (`written`, `read`) and category, the tasks that it is checked on.
        progress: called with (done, all).

    Returns:
        Rows `{task, category, origin, score, change, low, high, level, method, p_value, n, documents}`; `documents`
        is the same change of every document by itself ({doc_id: number or None}; higher is what the metric calls
        higher). `origin` is `written` (candidate − candidate with the category put back; `score` is of the latter),
        `read` (what taking the category out of the baseline's state costs under the candidate's layers above, minus
        what it costs the baseline; `score` is of the candidate's layers on that state), or `upper` with category
        `None` (the candidate's layers above on the baseline's state, minus the baseline: one row a task).

    Raises:
        RunError: with nothing changed at the layer a model does not reproduce its scores to the byte.
    """
    from diffharness.attribution.interventions import Arm

    tasks = {name for categories in wanted.values() for names in categories.values() for name in names}
    if not tasks:
        return []
    total = N_SHARED + sum(N_OWN[origin] * len(categories) for origin, categories in wanted.items())
    scorer = ArmScorer(run, total, progress)
    baseline, candidate = scorer.reproduced(BASELINE), scorer.reproduced(CANDIDATE)
    swapped = scorer.score(CANDIDATE, Arm("swap"), sorted(tasks))
    rows = [_effect(run, info.name, None, "upper", (baseline, swapped), score=swapped) for info in swapped.tasks]
    chosen: dict[str, tuple[int, ...]] = {}
    for index, category in enumerate(read_categories(run)):
        chosen[category] = (*chosen.get(category, ()), index)
    for category, names in wanted.get("written", {}).items():
        put_back = scorer.score(CANDIDATE, Arm("put_back", chosen[category]), names)
        change = put_back, candidate
        rows += [_effect(run, name, category, "written", change, score=put_back) for name in names]
    for category, names in wanted.get("read", {}).items():
        swapped_without = scorer.score(CANDIDATE, Arm("swap", chosen[category]), names)
        baseline_without = scorer.score(BASELINE, Arm("remove", chosen[category]), names)
        changes = (swapped_without, swapped), (baseline_without, baseline)
        rows += [_effect(run, name, category, "read", *changes, score=swapped_without) for name in names]
    return [row.body() for row in rows]


def prompt_check(run: Run, tasks: Collection[str]) -> list[dict[str, Any]]:
    """Rows of what the candidate's own chat template makes of tasks' real metrics; none where it was not asked in it.

    `origin` is `prompt`, `score` is of the candidate in the baseline's template.
    """
    if run.shared("candidate") == "candidate":
        return []
    change = load_clustered(run, run.shared("candidate")), load_clustered(run, "candidate")
    names = [info.name for info in change[0].tasks if info.name in tasks]
    return [_effect(run, name, None, "prompt", change, score=change[0]).body() for name in names]


def _effect(
    run: Run, task: str, category: str | None, origin: str, change: Change, other: Change | None = None, *,
    score: Evaluation,
) -> _Row:  # fmt: skip
    """One row: a change of a task's score, or of how much more it changes than another."""
    from diffharness.evaluation import comparison, contrasts

    metric = primary(run, change[0].task(task))
    aggregation: Callable[[list[Any]], float] = run.session.tasks.aggregation(task, metric.metric)
    rng = np.random.default_rng(run.config.seed)
    if other is None:
        found = comparison.compare(task, metric, *change, aggregation, rng).result
    else:
        found = contrasts.contrast(task, metric, change, other, aggregation, rng)
    documents = contrasts.differences(task, metric, change, other, aggregation)
    return _Row(task, category, origin, score.task(task).scores[str(metric)], found, documents)
