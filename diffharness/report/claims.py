"""The words of claims: what may be called a cause, and what is missing where it may not."""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.report.schema import Claim, Report

FOUND_WHERE_LOOKED_FOR = "found only where it was looked for"
MISSING = {
    "unseen": "its effect is not clear on documents that did not select it",
    "sets": "a random set does as much",
    "corrected": "not far enough from random sets after correction",
    "checked": "lm-eval's own score did not check it",
    "check": "lm-eval's own score does not confirm it",
    "tracks": "the surrogate does not track the metric",
}
"""By condition, what is said where it does not hold."""
TITLE = "Does it beat chance?"
CAPTION = (
    "What undoing each clear contribution does to the surrogate, beside random sets of latents that fire as often and "
    "move the state as far, on documents that did not select it. p is Holm-corrected over everything looked at"
)
NO_CLAIMS = "No contribution was tried against random sets of latents, so none is worded as a cause."


def cause_words(*, against: bool) -> str:
    """Of a claim that holds in every way; `against` where it works against the gap."""
    return "a cause that works against the gap" if against else "a cause"


def falls_short_words(missing: Sequence[str]) -> str:
    """Of a claim that was tested and does not hold."""
    return f"contributes; {', '.join(missing)}"


def not_tried_words(reason: str) -> str:
    """Of a claim that random sets can not be compared with."""
    return f"contributes; not tried: {reason}"


def claim_of(report: Report, task: str, category: str | None, origin: str | None) -> Claim | None:
    """What is claimed of a component; none where it was not tried."""
    found = (c for c in report.claims if (c.task, c.category, c.origin) == (task, category, origin))
    return next(found, None)


def ordered_claims(report: Report) -> tuple[Claim, ...]:
    """Causes first, then by task and the size of the effect."""
    return tuple(sorted(report.claims, key=lambda c: (not c.is_causal, c.task, -abs(c.effect or 0.0), c.category)))


def claims_sentence(report: Report) -> str:
    """How many claims beat chance, in one sentence without its full stop."""
    if not report.claims:
        return NO_CLAIMS.rstrip(".")
    n, n_causal = len(report.claims), sum(c.is_causal for c in report.claims)
    said = f"{n_causal} of {n} clear contributions beat random sets of latents"
    return f"{said} on documents that did not select them, and are confirmed by lm-eval's own score"
