"""The words of claims and their table in every view: what may be called a cause, and what is missing where not."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffharness.report.markup import escape
from diffharness.report.numbers import ABSENT, interval, p_value, signed
from diffharness.report.schema import Claim, Interval, Report
from diffharness.report.text import brief
from diffharness.report.view import is_real, primary

FOUND_WHERE_LOOKED_FOR = "found only where it was looked for"
MISSING = {
    "unseen": "its effect is not clear on documents that did not select it",
    "sign": "its effect has not the sign of its contribution",
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
NO_CLAIMS = "No contribution was tried against random sets of latents, so none is worded as a cause"
_MOST_ROWS, _MOST_LINES = 24, 3
_HEAD = "| claim | effect | interval | random sets | p | worded as |\n|---|--:|--:|--:|--:|---|"


def cause_words(*, against: bool) -> str:
    """Of a claim that holds in every way; `against` where it works against the gap."""
    return "a cause that works against the gap" if against else "a cause"


def falls_short_words(missing: Sequence[str]) -> str:
    """Of a claim that was tested and does not hold."""
    return f"contributes; {', '.join(missing)}"


def not_tried_words(reason: str) -> str:
    """Of a claim that random sets can not be compared with."""
    return f"contributes; not tried: {reason}"


def claim_of(claims: Sequence[Claim], task: str, category: str | None, origin: str | None) -> Claim | None:
    """What is claimed of a component; none where it was not tried."""
    found = (c for c in claims if (c.task, c.category, c.origin) == (task, category, origin))
    return next(found, None)


def ordered_claims(report: Report) -> tuple[Claim, ...]:
    """Causes first, then by task and the size of the effect."""
    return tuple(sorted(report.claims, key=lambda c: (not c.is_causal, c.task, -abs(c.effect or 0.0), c.category)))


def claim_name(claim: Claim) -> str:
    """`safety (read) in TASK`."""
    origin = " (read)" if claim.origin == "read" else ""
    return f"{brief(claim.category, 40)}{origin} in {brief(claim.task, 60)}"


def random_range(claim: Claim, digits: int = 3) -> str:
    """What nine in ten of the random sets do: `[−0.021, +0.034]`."""
    random = claim.random_effects
    return ABSENT if random is None else interval(Interval(low=random.q05, high=random.q95), digits)


def claims_sentence(report: Report) -> str | None:
    """How many claims beat chance; none where there is no gap to explain."""
    if not any(is_real(task) and task.components for task in primary(report)):
        return None
    if not report.claims:
        return NO_CLAIMS
    n_causal = sum(claim.is_causal for claim in report.claims)
    return (
        f"{n_causal} of {len(report.claims)} contributions that were tried beat random sets of latents on documents "
        "that did not select them and are confirmed by lm-eval's own score; only these are worded as causes"
    )


def markdown_claims(report: Report) -> str | None:
    """The claims as a block of Markdown; none where there is no gap to explain."""
    sentence = claims_sentence(report)
    if sentence is None:
        return None
    if not report.claims:
        return f"**{TITLE}** {sentence}."
    lines = [f"<details><summary>{TITLE}</summary>", f"{sentence}. {CAPTION}."]
    shown = ordered_claims(report)
    lines.append("\n".join([_HEAD, *(_markdown_row(claim) for claim in shown[:_MOST_ROWS])]))
    if len(shown) > _MOST_ROWS:
        lines.append(f"… and {len(shown) - _MOST_ROWS} more, in `report.html`.")
    return "\n\n".join([*lines, "</details>"])


def _markdown_row(claim: Claim) -> str:
    cells = (
        escape(claim_name(claim)),
        signed(claim.effect),
        interval(claim.interval),
        random_range(claim),
        p_value(claim.p_corrected),
        escape(brief(claim.words, 240)),
    )
    return f"| {' | '.join(cells)} |"


def terminal_claims(report: Report, width: int) -> RenderableType | None:
    """The claims on a terminal: a sentence, and the first of them; none where nothing was tried."""
    if not report.claims:
        return None
    n_causal = sum(claim.is_causal for claim in report.claims)
    said = f"{TITLE} {n_causal} of {len(report.claims)} contributions do, and only these are worded as causes."
    shown = ordered_claims(report)[:_MOST_LINES]
    words_room = min(max(len("worded as"), *(len(claim.words) for claim in shown)), max(10, (width - 46) // 2))
    room = max(10, width - 46 - words_room)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("claim", no_wrap=True, overflow="ellipsis", max_width=room)
    for name in ("effect", "random sets", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worded as", no_wrap=True, overflow="ellipsis", max_width=words_room)
    for claim in shown:
        numbers = (signed(claim.effect), random_range(claim), p_value(claim.p_corrected))
        table.add_row(Text(claim_name(claim)), *map(Text, numbers), Text(brief(claim.words, 120)))
    return Group(Text(said, style="dim"), table)
