"""The gate: a finished run against what was accepted, by the rules of a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from diffharness.errors import UsageError
from diffharness.regression.baseline import Baseline
from diffharness.regression.columns import Column, paired
from diffharness.regression.comparison import ScoreComparison, Terms
from diffharness.regression.crosscoders import crosscoder_notes, known_categories
from diffharness.regression.decision import decide_scores
from diffharness.regression.floors import decide_floor
from diffharness.regression.mechanism import decide_contributions, decide_quality, decide_specific, why
from diffharness.regression.outcome import EXIT_CODES, RuleResult, RuleVerdict, Verdict
from diffharness.regression.pairing import Pairs, Refused, pair_tasks
from diffharness.regression.policy import OnInconclusive, Policy, TaskRule, gated_metrics, read_policy
from diffharness.regression.scores import FinishedRun, SideScores, TaskScores

OWN = "baseline of the run"
_WORST: tuple[RuleVerdict, ...] = ("regression", "likely regression", "error", "inconclusive", "improved", "pass")
_INCONCLUSIVE: dict[OnInconclusive, int] = {"pass": 0, "fail": 1, "exit3": 3}


@dataclass
class _Check:
    """One check: both sides' scores, the policy, and what was found so far."""

    run: FinishedRun
    policy: Policy
    source: str
    """What the policy was read from."""
    before: SideScores
    after: SideScores
    baseline: Baseline | None
    file: str | None
    intersect: bool
    notes: list[str] = field(default_factory=list)

    def rules(self) -> tuple[RuleResult, ...]:
        """Every rule, decided; scores first, in the order of the run's tasks."""
        scores = list(self.score_rules())
        compared = [one for one in scores if isinstance(one, ScoreComparison)]
        decided = iter(decide_scores(compared))
        results = [next(decided) if isinstance(one, ScoreComparison) else one for one in scores]
        results += self.floors()
        results = [self._with_why(result) for result in results]
        return (*results, *self.mechanism())

    def _with_why(self, result: RuleResult) -> RuleResult:
        """A lost score with the mechanism behind it, as far as the run's account knows it."""
        if result.task is None or result.verdict not in ("regression", "likely regression"):
            return result
        return result.model_copy(update={"why": why(self.run.report, result.task)})

    def mechanism(self) -> tuple[RuleResult, ...]:
        """What the policy asks of the mechanism, all of it of the run's own pair of models."""
        report, policy, alpha = self.run.report, self.policy, self.policy.defaults.alpha
        found = (
            *decide_contributions(report, policy.contributions, alpha),
            *decide_specific(report, policy.specific, alpha),
        )
        least = policy.min_explained_variance
        return found if least is None else (*found, decide_quality(report, least))

    def score_rules(self) -> Iterator[ScoreComparison | RuleResult]:
        """The score rules, ready to be decided, or why they can not be."""
        for name in dict.fromkeys([*self.after.tasks, *self.before.tasks]):
            rule = self.policy.rule_of(name)
            if rule is None:
                continue
            pairs = pair_tasks(
                name, self.before, self.after, intersect=self.intersect, file=self.file,
                by_design=self.file is None and self.run.has_own_templates,
            )  # fmt: skip
            if pairs is None:
                where = "the run" if name not in self.after.tasks else self.file
                self.notes.append(f"{name}: left out, {where} does not have it")
                continue
            if isinstance(pairs, Pairs) and pairs.note is not None:
                self.notes.append(pairs.note)
            task = self.after.tasks.get(name) or self.before.tasks[name]
            known = [*task.columns, *task.left_out]
            for metric in gated_metrics(rule, task.first, known, f"{self.source}: task {name!r}"):
                yield self._score_rule(task, metric, rule, pairs)

    def _score_rule(
        self, task: TaskScores, metric: str, rule: TaskRule, pairs: Pairs | Refused
    ) -> ScoreComparison | RuleResult:
        refused = partial(_error, task.name, metric)
        if isinstance(pairs, Refused):
            return refused(pairs.sentence)
        there, here = self.before.tasks[task.name], self.after.tasks[task.name]
        for side, called in ((here, "the candidate's"), (there, self.file or "the baseline's")):
            if metric not in side.columns:
                reason = side.left_out.get(metric, "there is no such score")
                return refused(f"{called} {metric} can not be compared: {reason}; evaluate again, or leave it out")
        base, cand = there.columns[metric].taken(pairs.before), here.columns[metric].taken(pairs.after)
        if self.file is not None:
            base, cand = base.rounded(), cand.rounded()
        found = paired(here.metrics[metric].metric, base, cand)
        if isinstance(found, str):
            return refused(f"{found}; leave it out of the policy")
        key = here.metrics[metric]
        higher = key.higher_is_better if rule.direction is None else rule.direction == "higher"
        return ScoreComparison(
            rule=f"{task.name} {metric}", task=task.name, metric=metric, higher_is_better=higher,
            terms=self._terms(task.name, metric, rule, there.columns[metric]), baseline=found.baseline,
            candidate=found.candidate, aggregate=found.aggregate, span=found.span,
            clusters=self._clusters(there, here, rule, pairs),
        )  # fmt: skip

    def _terms(self, task: str, metric: str, rule: TaskRule, before: Column) -> Terms:
        """Margin in the metric's unit, alpha, correction and noise floor."""
        defaults = self.policy.defaults
        margin, score = rule.margin or defaults.margin, abs(before.score)
        value = margin.value * score if margin.relative else margin.value
        if rule.margin is None and not margin.relative and not before.is_bounded:
            value = margin.value * score
            self.notes.append(
                f"{task}: {metric} has no bounds, so that its margin is {margin.value:.3g} of the score before "
                f"({value:.3g}); the policy can give one in its unit"
            )
        floors = [
            n.floor
            for n in (self.baseline.noise if self.baseline is not None else ())
            if (n.task, n.metric) == (task, metric)
        ]
        return Terms(
            margin=value, alpha=rule.alpha or defaults.alpha, correction=defaults.correction,
            min_effect=max(floors, default=0.0),
        )  # fmt: skip

    def _clusters(self, there: TaskScores, here: TaskScores, rule: TaskRule, pairs: Pairs) -> np.ndarray | None:
        """Which documents are drawn together: as the policy says, else as either side's task does."""
        key = rule.cluster or here.cluster
        if rule.cluster is None and here.clusters is not None:
            return np.asarray(here.clusters)[list(pairs.after)]
        if there.clusters is not None and rule.cluster in (None, there.cluster):
            return np.asarray(there.clusters)[list(pairs.before)]
        if key is None:
            return None
        return np.asarray(self.run.clusters(here, key, "candidate"))[list(pairs.after)]

    def floors(self) -> list[RuleResult]:
        """Values that the candidate's scores have to reach."""
        results = []
        for floor in self.policy.floors:
            task = self.after.tasks[floor.task]
            metric = next(m for m in task.metrics if floor.metric in (m, m.rsplit(",", 1)[0]))
            column = task.columns.get(metric) or task.left_out[metric]
            higher = task.metrics[metric].higher_is_better
            results.append(decide_floor(floor, column, higher_is_better=higher, alpha=self.policy.defaults.alpha))
        return results

    def expect(self) -> None:
        """Say which settings of a file the run does not have."""
        protocol = self.after.settings.get("protocol")
        asked = {"limit": self.after.settings.get("limit"), **(protocol if isinstance(protocol, dict) else {})}
        for key, value in self.policy.expected.items():
            if asked.get(key) != value:
                shown = "the task's own" if asked.get(key) is None else asked[key]
                self.notes.append(f"{self.source} was made with {key} {value}, the run with {shown}")


def check(
    folder: Path,
    *,
    against: Path | None = None,
    policy: Path | None = None,
    intersect: bool = False,
    on_inconclusive: OnInconclusive | None = None,
    tolerance: float | None = None,
) -> Verdict:
    """Check a finished run.

    Args:
        folder: the run's.
        against: a baseline file; without one, what the policy names, else the run's own baseline.
        policy: a YAML file, ours or vLLM's; without one the first metric of every task may lose a point.
        intersect: go on with the tasks and documents that match.
        on_inconclusive: in place of what the policy says.
        tolerance: relative, of the values in a file of vLLM's.

    Raises:
        UsageError: the policy, the baseline file or the folder can not be used.
        RunError: the run is not finished or damaged.
    """
    source = f"--policy {policy}" if policy is not None else "the policy"
    rules = read_policy(policy, tolerance=tolerance) if policy is not None else Policy()
    if tolerance is not None and not rules.floors:
        raise UsageError("--tolerance is of the values in vLLM's files; leave it out, or give such a file as --policy")
    against = against or rules.baseline
    baseline = Baseline.load(against) if against is not None else None
    run = FinishedRun.open(folder)
    after = run.side("candidate")
    before = baseline.scores() if baseline is not None else run.side("baseline")
    file = str(against) if against is not None else None
    one = _Check(run, rules, source, before, after, baseline, file, intersect)
    known = {n: [*t.columns, *t.left_out] for side in (before, after) for n, t in side.tasks.items()}
    rules.check_names(known, known_categories(run, baseline), source)
    _check_floors(rules, after, source)
    if policy is None:
        one.notes.append(
            "no policy was given: every task's first metric may lose 0.01 (bounded metrics; of others 1 % of the score "
            "before), at alpha 0.05 with Holm's correction"
        )
    one.expect()
    results = one.rules()
    if not results:
        raise UsageError(f"{source} has no rule for this run; name its tasks, or leave `tasks` out to gate all")
    notes = (*one.notes, *_other_pair(run, baseline, results), *crosscoder_notes(run, baseline))
    return settled(folder, file or OWN, results, notes, on_inconclusive or rules.defaults.on_inconclusive)


def settled(
    folder: Path, against: str, rules: Sequence[RuleResult], notes: Sequence[str], on_inconclusive: OnInconclusive
) -> Verdict:
    """The verdict over all rules: the worst of them."""
    found: list[RuleVerdict] = [rule.verdict for rule in rules]
    verdict = min(found, key=_WORST.index)
    code = _INCONCLUSIVE[on_inconclusive] if verdict == "inconclusive" else EXIT_CODES[verdict]
    return Verdict(
        run=str(folder), against=against, verdict=verdict, exit_code=code, rules=tuple(rules), notes=tuple(notes)
    )


def _other_pair(run: FinishedRun, baseline: Baseline | None, results: Sequence[RuleResult]) -> tuple[str, ...]:
    """That the mechanism is not that of the gap in the scores, where the blessed model is not the run's baseline."""
    own = next(model for model in run.report.models if model.side == "baseline")
    is_told = any(rule.why is not None or rule.kind in ("contribution", "specific") for rule in results)
    if baseline is None or own.fingerprint == baseline.model_fingerprint or not is_told:
        return ()
    return (
        f"scores are compared with the blessed model ({baseline.model}), but reasons and rules on the mechanism are of "
        f"the run's own pair, whose baseline is another model ({own.name}); for the reasons of these gaps run the "
        "candidate against the blessed model",
    )


def _check_floors(policy: Policy, after: SideScores, source: str) -> None:
    for floor in policy.floors:
        if floor.task not in after.tasks:
            raise UsageError(f"{source}: the run does not have task {floor.task!r}; run it too, or leave it out")


def _error(task: str, metric: str, sentence: str) -> RuleResult:
    return RuleResult(
        rule=f"{task} {metric}", kind="score", verdict="error", sentence=sentence, task=task, metric=metric
    )
