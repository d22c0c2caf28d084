"""The matrix of many candidates in every view: terminal, Markdown, one HTML file, JSON.

Strings from outside reach rich only as `Text`, Markdown escaped, and HTML through jinja's own escaping.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from diffharness.report.markup import Page, escape
from diffharness.report.numbers import count, percent, plain
from diffharness.report.schema.matrix import Matrix, MatrixCandidate
from diffharness.report.side_by_side import add_parts, add_scores, print_parts, print_scores
from diffharness.report.static_page import render_page
from diffharness.report.text import brief, clean


def headline(matrix: Matrix) -> str:
    """How many of the cells changed."""
    moved = [cell for cell in matrix.cells if cell.verdict in ("improved", "regressed")]
    decided = sum(cell.is_decided for cell in matrix.cells)
    among = f", {decided} of them also among all cells" if moved else ""
    return (
        f"{len(matrix.candidates)} candidates against {brief(matrix.baseline, 60)} on {len(matrix.tasks)} "
        f"task{'s' if len(matrix.tasks) != 1 else ''}: {len(moved)} of {len(matrix.cells)} gaps are a change{among}"
    )


def quality_sentence(matrix: Matrix, candidate: MatrixCandidate) -> str:
    """How well the shared crosscoder reads a pair."""
    if candidate.withheld is not None:
        return f"scores only: {candidate.withheld}"
    shares = ", ".join(f"{side} {percent(v, 1)}" for side, v in candidate.explained_variance.items())
    joint = matrix.crosscoder.explained_variance.get(f"candidate-{candidate.name}")
    over_all = "" if joint is None else f"; over all models together it explains {percent(joint, 1)} of this candidate"
    return f"explained variance {shares}, L0 {plain(candidate.l0, 1)}{over_all}"


def remarks(matrix: Matrix) -> list[str]:
    """What a reader has to know, in whole sentences."""
    shared = matrix.crosscoder
    first = (
        f"One crosscoder of {count(shared.n_latents)} latents (L0 {plain(shared.l0, 1)}) was trained over the baseline "
        f"and all candidates, at layer {matrix.layer} of {matrix.n_layers}, and cut down to every pair: latent numbers "
        "mean the same for all candidates. With a candidate more it is trained anew."
    )
    names = f"{matrix.names_from[0].upper()}{matrix.names_from[1:]}."
    cancelled = [
        f"{whole.candidate}, {whole.unit}: {whole.share_reason}." for whole in matrix.sums if whole.share_reason
    ]
    return [first, names, *matrix.notes, *cancelled, *(f"{said}." for said in matrix.left_out)]


def print_matrix(matrix: Matrix, console: Console, folder: Path | None = None) -> None:
    """Print the tables; `folder` is where the files lie, if they were written."""
    console.print(Text(""))
    console.print(Text(clean(headline(matrix)), style="bold"))
    print_scores(matrix, console)
    print_parts(matrix, console)
    console.print(Text("\nCan it be trusted", style="bold underline"))
    for candidate in matrix.candidates:
        console.print(Text(clean(f"{brief(candidate.name, 40)}: {quality_sentence(matrix, candidate)}")))
    for said in remarks(matrix)[:2]:
        console.print(Text(clean(said), style="dim"))
    for said in matrix.left_out:
        console.print(Text(clean(said), style="dim"))
    if folder is not None:
        console.print(Text(f"\n{folder / 'matrix.html'}"))
        for candidate in matrix.candidates:
            console.print(Text(f"{folder / candidate.report}", style="dim"))


def render_markdown(matrix: Matrix) -> str:
    """The matrix as Markdown of at most 60 KB."""
    page = Page()
    page.add(f"### {escape(headline(matrix))}")
    names = [escape(brief(c.name, 60)) for c in matrix.candidates]
    links = [f"[{name}]({c.report})" for name, c in zip(names, matrix.candidates, strict=True)]
    page.add(f"Whole reports: {', '.join(links)}. The gap is candidate − baseline.")
    add_scores(page, matrix)
    add_parts(page, matrix)
    page.add("#### Can it be trusted?")
    said = [f"{c.name}: {quality_sentence(matrix, c)}." for c in matrix.candidates]
    page.add("\n".join(f"- {escape(brief(line, 600))}" for line in [*said, *remarks(matrix)]))
    return page.text


def render_html(matrix: Matrix) -> str:
    """One page: no script, no request, every string from outside escaped."""
    return render_page(
        "matrix.html.jinja",
        matrix,
        matrix=matrix,
        heading=headline(matrix),
        remarks=remarks(matrix),
        quality=[(c, quality_sentence(matrix, c)) for c in matrix.candidates],
    )


def write_matrix(matrix: Matrix, folder: Path) -> None:
    """Write `matrix.json`, `matrix.md` and `matrix.html` into a folder.

    Raises OSError where it can not be written.
    """
    body = matrix.model_dump_json(indent=1) + "\n"
    for name, text in (("json", body), ("md", render_markdown(matrix)), ("html", render_html(matrix))):
        (folder / f"matrix.{name}").write_text(text, encoding="utf-8")
