"""Words and rows of Shapley values on the real metric, beside what is *written* in the same order, for every view."""

from __future__ import annotations

from diffharness.report.markup import escape
from diffharness.report.numbers import count, interval, percent, plain, signed
from diffharness.report.schema import Report, Shapley, ShapleyPlayer, Task
from diffharness.report.text import brief

TITLE = "On the real metric"
CAPTION = (
    "Shapley values: what each part adds to the score of the candidate's upper layers on the baseline's state, as a "
    "mean over all orders in which the parts can come; beside it what it writes in the surrogate, in the same order"
)
_MOST_PLAYERS = 3
_HEAD = "| part | Shapley value | interval | written | interval | sign |\n|---|--:|--:|--:|--:|---|"


def shapley_of(report: Report, task: Task) -> Shapley | None:
    """The task's values, or why there are none, at the row of its primary metric."""
    return next((row for row in report.shapley if task.is_primary and row.task == task.task), None)


def shapley_sentence(row: Shapley) -> str:
    """What was scored, and how."""
    if row.reason is not None:
        return f"No Shapley values: {row.reason}."
    sets = "all" if row.exact else "of drawn orders"
    said = (
        f"{plain(row.v_none)} with none of the parts and {plain(row.v_all)} with all ({count(row.n_subsets)} sets, "
        f"{sets}, on {count(row.n_documents)} documents"
    )
    if row.n_changed:
        said += f"; {count(row.n_changed)} of them score otherwise than recorded, {plain(row.recorded)} in all"
    reason = f" No intervals: {row.interval_reason}." if row.interval_reason else ""
    return f"The candidate's upper layers score {said}).{reason}"


def agreement_sentence(report: Report) -> str | None:
    """How the values go together with what is written; none where there are no values."""
    found = report.shapley_agreement
    if found is None:
        return None
    if found.sign_agreement is None:
        said = f"none of {count(found.n_pairs)} parts is clear"
    else:
        share = percent(found.sign_agreement)
        said = f"what is written has their sign in {share} of {count(found.n_clear)} clear parts"
    if found.n_still:
        said += f" ({count(found.n_still)} more are clear in what is written but move no decision)"
    if found.correlation is not None:
        said += f", correlation {plain(found.correlation, 2)} over {count(found.n_correlated)}"
    return f"Shapley values: {said}"


def sign_word(player: ShapleyPlayer) -> str:
    """Whether value and *written* point the same way; a value of exactly 0 points nowhere."""
    if player.is_still:
        return "moves no decision"
    return "not clear" if player.agrees is None else "agrees" if player.agrees else "does not agree"


def terminal_shapley(report: Report, task: Task) -> str | None:
    """One line of a task's largest values; none where there are no values."""
    row = shapley_of(report, task)
    if row is None or not row.players:
        return None
    largest = sorted(row.players, key=lambda player: -abs(player.value))
    said = ", ".join(f"{brief(player.name, 24)} {signed(player.value)}" for player in largest[:_MOST_PLAYERS])
    rest = f" and {len(largest) - _MOST_PLAYERS} more" if len(largest) > _MOST_PLAYERS else ""
    return f"on the real metric (Shapley): {said}{rest}"


def markdown_shapley(report: Report, task: Task) -> str | None:
    """The table of a task; none where there is nothing to say."""
    row = shapley_of(report, task)
    if row is None:
        return None
    said = escape(brief(shapley_sentence(row), 400))
    if not row.players:
        return said
    rows = [_markdown_row(player) for player in row.players]
    lines = [f"<details><summary>{TITLE}</summary>", f"{CAPTION}. {said}", "\n".join([_HEAD, *rows]), "</details>"]
    return "\n\n".join(lines)


def _markdown_row(player: ShapleyPlayer) -> str:
    cells = (
        escape(brief(player.name, 60)),
        signed(player.value),
        interval(player.interval),
        signed(player.written),
        interval(player.written_interval),
        sign_word(player),
    )
    return f"| {' | '.join(cells)} |"
