"""What changed inside, as Markdown: the finding, the category shift, and the latents that contribute most."""

from __future__ import annotations

from diffharness.report.latent_words import annotation_sentence, is_told, position_sentence, shift_word
from diffharness.report.markup import Page, escape
from diffharness.report.numbers import ABSENT, interval, p_value, percent, plain, points, signed, span
from diffharness.report.schema import CategoryShift, Interval, Latent, Report
from diffharness.report.text import brief
from diffharness.report.view import Protocol, changed_latents, protocols, strongest

MOST_LATENTS = 20
_MOST_CHANGED = 12
_LEAST_BYTES = 3_500
"""Kept free for the latents."""
_CHANGED_HEAD = """| latent | category | rate, baseline | candidate | points | mean, baseline | candidate | difference |
|--:|---|--:|--:|--:|--:|--:|--:|"""
_SHIFT_HEAD = "| category | baseline | candidate | change | interval | p | q |"
_MASS_HEAD = " mass, baseline | candidate | points | p | q |"
_LATENT_HEAD = """| latent | category | status | Δnorm | ν^r | ν^ε | found again | largest contribution |
|--:|---|---|--:|--:|--:|---|---|"""


def add_inside(page: Page, report: Report) -> None:
    """The finding where little is specific, then the category shift by each protocol."""
    if report.changed is not None:
        page.add(escape(brief(report.changed.sentence, 800)))
        rows = [_changed_row(latent) for latent in changed_latents(report)[:_MOST_CHANGED]]
        if rows:
            page.add("\n".join([_CHANGED_HEAD, *rows]), name="the latents whose use changed most")
    if not report.categories:
        page.add(escape(brief(report.categories_reason or "No category shift was computed.", 600)))
        return
    for position, protocol in enumerate(protocols(report)):
        name = escape(brief(protocol.name, 120))
        rows = [_shift_row(row, protocol, said=position == 0) for row in protocol.rows]
        head = _head(protocol, said=position == 0)
        if position == 0:
            page.add(f"Category shift by {name}.{_matched_note(protocol)}")
            page.table(head, rows, "categories", share=0.6)
            continue
        table = "\n".join([head, *rows])
        block = f"<details><summary>The same by {name}</summary>\n\n{table}\n\n</details>"
        if not page.add(block, reserved=_LEAST_BYTES):
            page.add(f"The same by {name} is in `report.html`.")


def _matched_note(protocol: Protocol) -> str:
    return " In brackets: those found again by the other seeds." if protocol.has_matched else ""


def _head(protocol: Protocol, *, said: bool) -> str:
    head = _SHIFT_HEAD + (_MASS_HEAD if protocol.has_mass_test else "") + (" conclusion |" if said else "")
    ruler = "---|" + "--:|" * (head.count("|") - 2 - said) + ("---|" if said else "")
    return f"{head}\n|{ruler}"


def _shift_row(row: CategoryShift, protocol: Protocol, *, said: bool) -> str:
    cells = [
        escape(brief(row.name, 60)),
        _counted(row.n_baseline, row.total_baseline, row.n_matched_baseline),
        _counted(row.n_candidate, row.total_candidate, row.n_matched_candidate),
        f"{signed(row.change, 0)} %" if row.change is not None else ABSENT,
        interval(row.interval, 0),
        p_value(row.p_value),
        p_value(row.q_value),
    ]
    if protocol.has_mass_test:
        cells += [
            percent(row.mass_baseline, 1),
            percent(row.mass_candidate, 1),
            _with(signed(row.mass_change, 1), interval(row.mass_interval, 1), row.mass_interval),
            p_value(row.mass_p_value),
            p_value(row.mass_q_value),
        ]
    if said:
        mass = f"; mass: {_short(row.mass_conclusion)}" if row.mass_conclusion else ""
        cells.append(escape(f"{_short(row.conclusion)}{mass}"))
    return f"| {' | '.join(cells)} |"


def _short(conclusion: str) -> str:
    """A conclusion that says something in full, any other by its first words."""
    return brief(conclusion if is_told(conclusion) else shift_word(conclusion), 160)


def _counted(n: int, total: int, matched: int | None) -> str:
    return f"{n} of {total}" + ("" if matched is None else f" ({matched})")


def _changed_row(latent: Latent) -> str:
    cells = [str(latent.index), escape(brief(latent.category, 40))]
    use = latent.use
    if use is None:
        cells += [ABSENT] * 6
    else:
        rate, mean = use.rate_candidate - use.rate_baseline, use.mean_candidate - use.mean_baseline
        cells += [percent(use.rate_baseline, 2), percent(use.rate_candidate, 2)]
        cells += [f"{signed(100 * rate, 2)} {points(use.rate_interval)}"]
        cells += [plain(use.mean_baseline), plain(use.mean_candidate), f"{signed(mean)} {interval(use.mean_interval)}"]
    return f"| {' | '.join(cells)} |"


def add_latents(page: Page, report: Report) -> None:
    """The latents that contribute most, and who named them; nothing where there are none."""
    if not report.latents:
        return
    ranked = strongest(report.latents)
    rows = [_latent_row(latent) for latent in ranked[:MOST_LATENTS]]
    named = annotation_sentence(report.annotation)
    page.add("#### Which latents?")
    page.add("A category is a hypothesis." + (f" {escape(brief(_capital(named), 600))}." if named else ""))
    room = page.limit - page.size - len(_LATENT_HEAD.encode()) - 200
    while rows and sum(len(row.encode()) + 1 for row in rows) > room:
        rows.pop()
    table = "\n".join([_LATENT_HEAD, *rows])
    summary = f"The {len(rows)} of {len(ranked)} that contribute most"
    page.add(f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>", name="the latents that contribute most")


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _latent_row(latent: Latent) -> str:
    largest = max(latent.contributions.items(), key=lambda item: abs(item[1]), default=None)
    about = " (mostly about position)" if position_sentence(latent) is not None else ""
    cells = (
        str(latent.index),
        escape(brief(latent.category, 40)) + about,
        latent.status,
        plain(latent.delta_norm, 2),
        _ratio(latent.nu_reconstruction, latent.nu_reconstruction_interval),
        _ratio(latent.nu_error, latent.nu_error_interval),
        ABSENT if latent.matched is None else "✓ yes" if latent.matched else "✗ no",
        f"{signed(largest[1])} {escape(brief(largest[0], 60))}" if largest else ABSENT,
    )
    return f"| {' | '.join(cells)} |"


def _ratio(value: float | None, spread: Interval | None) -> str:
    return _with(plain(value, 2), span(spread, 2), spread)


def _with(number: str, spread: str, given: Interval | None) -> str:
    return number if given is None else f"{number} {spread}"
