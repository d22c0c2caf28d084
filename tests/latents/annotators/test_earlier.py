from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffharness.errors import UsageError
from diffharness.latents.annotators.file import annotate_by_file
from tests.latents.annotators.evidence_of import TAXONOMY


def table(folder, categories=("safety", "unclear"), **columns):
    (folder / "accepted").mkdir()
    path = folder / "accepted" / "latents.parquet"
    rows = {
        "index": list(range(len(categories))),
        "category": list(categories),
        "reason": ["fires on refusals", None],
        "auroc": [0.9, None],
    }
    pq.write_table(pa.table({name: value for name, value in {**rows, **columns}.items() if value is not None}), path)
    return path


def test_latents_are_called_as_an_earlier_run_called_them(tmp_path):
    zero, one, two = annotate_by_file(table(tmp_path), 3, TAXONOMY)
    assert (zero.category, zero.best, zero.annotator) == ("safety", "safety", "file: accepted/latents.parquet")
    assert zero.reason == "as in an earlier run: fires on refusals"
    assert (one.category, one.best, one.is_judged) == ("unclear", None, True)
    assert (two.category, two.reason, two.is_judged) == ("unclear", "not in the file", False)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"category": ["saftey", "unclear"]},
            "'saftey' is not in the taxonomy; give the run's --taxonomy .did you",
        ),
        ({"index": [0, 3]}, "latent 3 is out of range; they go from 0 to 1: give the table of the run"),
        ({"index": [1, 1]}, "no table of a run's latents"),
        ({"index": [0, -1]}, "no table of a run's latents"),
        ({"index": ["0", "1"]}, "no table of a run's latents"),
        ({"category": None}, "no table of a run's latents|can not be read"),
    ],
)
def test_a_table_of_something_else_is_refused_with_its_name(tmp_path, columns, said):
    with pytest.raises(UsageError, match=rf"accepted/latents\.parquet: .*({said})"):
        annotate_by_file(table(tmp_path, **columns), 2, TAXONOMY)


@pytest.mark.parametrize(("content", "said"), [(b"PAR1", "can not be read"), (None, "no such file")])
def test_no_table_is_refused_with_what_to_give(tmp_path, content, said):
    path = tmp_path / "latents.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{said}.*give RUN/latents\.parquet") as caught:
        annotate_by_file(path, 2, TAXONOMY)
    assert "\n" not in str(caught.value)
