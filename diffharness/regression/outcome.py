"""What a check says: a result a rule, and one verdict over all, from which line, file and exit code are taken."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Interval, Model

GATE_SCHEMA_VERSION = "1.0"

RuleVerdict = Literal["pass", "improved", "regression", "likely regression", "inconclusive", "error"]
EXIT_CODES: dict[RuleVerdict, int] = {
    "pass": 0,
    "improved": 0,
    "regression": 1,
    "likely regression": 1,
    "inconclusive": 3,
    "error": 4,
}


class CategoryCost(Model):
    """What one category's latents cost a task, in the unit of the task's surrogate."""

    category: str
    contribution: float
    """Written and read together."""
    interval: Interval | None


class FlippedDocument(Model):
    """A document that the model before answered better."""

    doc_id: int
    prompt: str
    target: str
    baseline_answer: str | None
    """`None` where it was not kept: a baseline file holds scores only."""
    candidate_answer: str


class Carried(Model):
    """Where a task's loss lies: its whole surrogate gap in parts."""

    specific_latents: float
    """What latents specific to either side write."""
    other_latents: float
    """What all other latents write, and all that is read of latents."""
    error: float
    """Error, written and read, and the bias."""
    upper: float
    """The prior, or the upper layers where they are not split."""
    prompt: float = 0.0
    """The candidate's own chat template in place of the baseline's, where it was asked in both."""
    sentence: str


class Why(Model):
    """The mechanism behind a score's loss, from the run's own account."""

    costs: tuple[CategoryCost, ...] = ()
    """The two categories that cost most."""
    flipped: tuple[FlippedDocument, ...] = ()
    """At most three."""
    carried: Carried | None = None
    reason: str | None = None
    """Why there is no mechanism to show, or what weakens it."""


class RuleResult(Model):
    """One rule of the policy, decided."""

    rule: str
    """Its name, once in a policy: `arc_easy acc,none`, `safety in *`, `explained variance`."""
    kind: Literal["score", "contribution", "specific", "quality"]
    verdict: RuleVerdict
    sentence: str
    """One line with the numbers: what was found, and what to do about it."""
    task: str | None = None
    metric: str | None = None
    """`metric,filter`, as lm-eval names it."""
    category: str | None = None
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    """Candidate − baseline, turned so that higher is better."""
    interval: Interval | None = None
    """Of the difference, at 1 − 2 alpha (after correction, where the policy corrects)."""
    margin: float | None = None
    """The loss that is accepted, ≥ 0."""
    alpha: float | None = None
    n: int | None = None
    """Documents compared."""
    p_value: float | None = None
    """One-sided, of the loss exceeding the margin by chance."""
    p_corrected: float | None = None
    detectable: float | None = None
    """The smallest loss beyond the margin that these documents find 8 times of 10."""
    n_to_settle: int | None = None
    """Documents that would settle an inconclusive rule."""
    why: Why | None = None


class Verdict(Model):
    """The whole check."""

    schema_version: str = GATE_SCHEMA_VERSION
    run: str
    """The run's folder, as it was given."""
    against: str
    """The baseline file, or `baseline of the run`."""
    verdict: RuleVerdict
    exit_code: int
    """0, 1, 3 or 4; what the policy says of inconclusive rules is in it."""
    rules: tuple[RuleResult, ...]
    notes: tuple[str, ...] = ()
    """What was left out, is stale, or weakens the verdict."""

    @property
    def line(self) -> str:
        """One line for people and machines: `diffharness check: regression (exit 1): 1 of 12 rules …`."""
        worst = [rule for rule in self.rules if rule.verdict == self.verdict]
        of = f"{len(worst)} of {len(self.rules)} rules"
        said = f": {worst[0].rule}: {worst[0].sentence}" if worst and self.verdict != "pass" else ""
        return f"diffharness check: {self.verdict} (exit {self.exit_code}): {of}{said}"
