"""Latents named as an earlier run named them: its `latents.parquet`, for a run that loads its crosscoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffharness.errors import UsageError
from diffharness.latents.annotation import Annotation
from diffharness.latents.annotators.answers import shorten
from diffharness.latents.taxonomy import UNCLEAR, Taxonomy, closest

SUFFIX = ".parquet"
_COLUMNS = ("index", "category", "reason")


def annotate_as_before(path: Path, n_latents: int, taxonomy: Taxonomy) -> tuple[Annotation, ...]:
    """The annotations of latents 0 to n - 1 from the table of a run with the same crosscoder.

    Latents that the table does not have are `unclear`.

    Raises `UsageError`, naming the file: no table of a run's latents, of more latents than there are, a category that
    the taxonomy does not have.
    """
    where = f"annotations {path}"
    rows = _rows(path, where)
    if rows[-1]["index"] >= n_latents:
        raise UsageError(
            f"{where}: latent {rows[-1]['index']} is out of range; they go from 0 to {n_latents - 1}: give the table "
            "of the run whose crosscoder is loaded"
        )
    names = (*taxonomy.names, UNCLEAR)
    annotator = f"file: {path.parent.name}/{path.name}"
    found: dict[int, Annotation] = {}
    for row in rows:
        category = str(row["category"])
        if category not in names:
            remedy = closest(category, list(names), f"there are: {', '.join(names)}")
            raise UsageError(
                f"{where}: category {shorten(category, 60)!r} is not in the taxonomy; give the run's --taxonomy "
                f"({remedy})"
            )
        best = None if category == UNCLEAR else category
        reason = shorten(f"as in an earlier run: {row['reason'] or 'no reason was kept'}")
        found[row["index"]] = Annotation(category=category, best=best, reason=reason, annotator=annotator)
    absent = Annotation(category=UNCLEAR, best=None, reason="not in the file", annotator=annotator, is_judged=False)
    return tuple(found.get(latent, absent) for latent in range(n_latents))


def _rows(path: Path, where: str) -> list[dict[str, Any]]:
    """A row a latent, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(path).read(columns=list(_COLUMNS)).to_pylist()
    except FileNotFoundError as error:
        raise UsageError(f"{where}: there is no such file; give RUN/latents.parquet of a finished run") from error
    except (OSError, pa.ArrowException) as error:
        said = shorten(str(error), 120)
        raise UsageError(f"{where}: can not be read ({said}); give RUN/latents.parquet of a finished run") from error
    is_ours = all(set(row) == set(_COLUMNS) and isinstance(row["index"], int) and row["index"] >= 0 for row in rows)
    if not is_ours or len({row["index"] for row in rows}) < max(len(rows), 1):
        raise UsageError(f"{where}: no table of a run's latents; give RUN/latents.parquet of a finished run")
    return sorted(rows, key=lambda row: row["index"])
