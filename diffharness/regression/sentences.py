"""What a decided score rule says in one line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diffharness.report.numbers import MINUS, count, p_words, percent

if TYPE_CHECKING:
    from diffharness.regression.comparison import Terms
    from diffharness.regression.decision import Decision
    from diffharness.regression.evidence import Evidence


def score_sentence(n: int, terms: Terms, evidence: Evidence, decision: Decision, detectable: float | None) -> str:
    """What was found, with its numbers, and what to do about it."""
    digits = _digits(terms.margin)
    gap, margin = _signed(evidence.gap, digits), f"{terms.margin:g}"
    interval = f"[{_signed(decision.low, digits)}, {_signed(decision.high, digits)}]"
    level = percent(decision.level, 1 if decision.level < 0.99 else 2).replace(".0\u00a0", "\u00a0")
    found = f"{gap} {interval} at {level}"
    if decision.verdict == "improved":
        said = f"better by {gap.lstrip('+')} {interval} at {level}"
    elif decision.verdict == "pass" and evidence.standard_error == 0 and evidence.gap == 0:
        said = f"no document's score differs; {count(n)} of them leave less than the margin of {margin} open"
    elif decision.verdict == "pass":
        inside = "a loss is detectable, but lies inside the margin" if decision.falls else "no loss beyond the margin"
        said = f"{inside} of {margin}: {found}"
    elif decision.verdict == "regression":
        said = f"lost more than the margin of {margin}: {found}{_p(decision.p_beyond_corrected, decision.n_rules)}"
    elif decision.verdict == "likely regression":
        said = (
            f"the loss is real{_p(decision.p_loss_corrected, decision.n_rules)} and probably beyond the margin of "
            f"{margin}: {found}; more documents would tell its size"
        )
    else:
        open_ = f"a loss beyond the margin of {margin} is neither shown nor excluded"
        said = f"{open_}: {found}{_found(n, digits, detectable)}"
    if evidence.approximate is not None:
        said += f"; approximate: {evidence.approximate}"
    return said


def _found(n: int, digits: int, detectable: float | None) -> str:
    if detectable is None:
        return "; nothing tells how these scores vary"
    return f"; {count(n)} documents find a loss of {detectable:.{digits}f} beyond it 8 times of 10"


def _p(p: float, n_rules: int) -> str:
    over = f", corrected over {n_rules} rules" if n_rules > 1 else ""
    return f" ({p_words(p)}{over})"


def _digits(margin: float) -> int:
    """Enough to see the margin in."""
    return 3 if margin <= 0 else max(3, 1 - math.floor(math.log10(margin)))


def _signed(value: float, digits: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:+,.{digits}f}"
    return (text if any(c in "123456789" for c in text) else text[1:]).replace("-", MINUS)
