"""Latents named by a person: a CSV table that is read, and one to fill in that is written."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from diffharness.errors import UsageError
from diffharness.latents.annotation import Annotation
from diffharness.latents.annotators.answers import shorten
from diffharness.latents.annotators.earlier import SUFFIX, annotate_as_before
from diffharness.latents.annotators.evidence import LatentEvidence, ShownText, evenly, prepare
from diffharness.latents.taxonomy import UNCLEAR, Taxonomy, closest

COLUMNS = ("latent", "category", "note")
_HEADER = "the first line has to name the columns: latent,category and, if wanted, note"
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # white space before them is dropped
_CELL_CHARACTERS = 300


def annotate_by_file(path: Path, n_latents: int, taxonomy: Taxonomy) -> tuple[Annotation, ...]:
    """The annotations of latents 0 to n - 1 from a table with the columns `latent`, `category` and perhaps `note`.

    Capitals do not matter, other columns are ignored, and semicolons or tabs may stand for commas, as spreadsheets
    write them. Latents that the table leaves out or leaves empty are `unclear`. The `latents.parquet` of a run stands
    for the names that it gave (`annotators/earlier.py`).

    Raises `UsageError` with file, line and remedy: not UTF-8, a column that is missing, a latent that is no number, out
    of range or listed twice, a category that the taxonomy does not have, no category in any line.
    """
    if path.suffix == SUFFIX:
        return annotate_as_before(path, n_latents, taxonomy)
    where = f"annotations {path}"
    rows = _rows(_read(path, where), where)
    names = {name.casefold(): name for name in (*taxonomy.names, UNCLEAR)}
    annotator = f"file: {path.name}"
    found: dict[int, Annotation] = {}
    lines: dict[int, int] = {}
    for line, row in rows:
        here = f"{where}, line {line}"
        latent = _latent(row["latent"], n_latents, here)
        if latent in found:
            raise UsageError(f"{here}: latent {latent} stands in line {lines[latent]} already; leave one of them")
        given = row["category"].strip()
        category = names.get(given.casefold()) if given else UNCLEAR
        if category is None:
            remedy = closest(given.casefold(), list(names), f"there are: {', '.join(names.values())}")
            raise UsageError(f"{here}: category {shorten(given, 60)!r} is not in the taxonomy; {remedy}")
        reason = shorten(row.get("note", "")) or ("labelled by a person" if given else "left empty in the file")
        best = None if category == UNCLEAR else category
        found[latent] = Annotation(
            category=category, best=best, reason=reason, annotator=annotator, is_judged=bool(given)
        )
        lines[latent] = line
    if not any(annotation.is_judged for annotation in found.values()):
        raise UsageError(
            f"{where}: no latent has a category yet; fill the column in, or give RUN/latents.parquet for the names "
            "that a run gave"
        )
    absent = Annotation(category=UNCLEAR, best=None, reason="not in the file", annotator=annotator, is_judged=False)
    return tuple(found.get(latent, absent) for latent in range(n_latents))


def write_template(path: Path, evidence: Sequence[LatentEvidence], n_texts: int = 5) -> None:
    """Write a table to fill in: latent, an empty category and note, and texts with the tokens that fire in « ».

    Cells that a spreadsheet would take for a formula begin with an apostrophe. Nothing tells whose a latent is.

    Raises `UsageError` where there is such a file already, which may hold labels, or it can not be written.
    """
    if path.exists():
        raise UsageError(f"{path} is there already and may hold labels; give another name, or move it away")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"text {number}" for number in range(1, n_texts + 1))])
    for each in evidence:
        texts = [_cell(text) for text in evenly(each.quantiles, n_texts)]
        writer.writerow([each.index, "", "", *texts, *[""] * (n_texts - len(texts))])
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(table.getvalue(), encoding="utf-8-sig")  # without the mark, spreadsheets guess an encoding
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} can not be written ({error.strerror}); give another place") from error


def _cell(text: ShownText) -> str:
    shown = prepare(text, _CELL_CHARACTERS)
    marked = "".join(f"«{token}»" if value > 0 else token for token, value in zip(shown.tokens, shown.values))
    cell = " ".join(marked.replace("»«", "").split())
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _read(path: Path, where: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{where}: can not be read ({error.strerror}); give a CSV file") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{where}, line {line}: not UTF-8; save it as CSV UTF-8") from error


def _rows(text: str, where: str) -> list[tuple[int, dict[str, str]]]:
    """The rows that are not empty, with the line that each ends on; columns by lower-case name."""
    header_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        if missing := [name for name in COLUMNS[:2] if name not in header]:
            raise UsageError(f"{where}: column {missing[0]!r} is missing; {_HEADER}")
        if double := [name for name in COLUMNS if header.count(name) > 1]:
            raise UsageError(f"{where}: column {double[0]!r} is there twice; leave one of them")
        rows: list[tuple[int, dict[str, str]]] = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(header) - len(cells))
                rows.append((reader.line_num, dict(zip(header, padded))))
    except csv.Error as error:
        raise UsageError(f"{where}, line {reader.line_num}: no CSV ({error}); save it as CSV UTF-8") from error
    return rows


def _latent(cell: str, n_latents: int, here: str) -> int:
    cell = cell.strip()
    if not (cell.isascii() and cell.isdigit() and len(cell) < 12):
        raise UsageError(f"{here}: latent {shorten(cell, 60)!r} is no number; give one from 0 to {n_latents - 1}")
    if int(cell) >= n_latents:
        raise UsageError(f"{here}: latent {cell} is out of range; they go from 0 to {n_latents - 1}")
    return int(cell)
