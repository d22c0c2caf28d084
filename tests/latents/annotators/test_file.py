from __future__ import annotations

import csv

import pytest

from diffharness.errors import UsageError
from diffharness.latents.annotators.evidence import LatentEvidence, ShownText
from diffharness.latents.annotators.file import annotate_by_file, write_template
from tests.latents.annotators.evidence_of import TAXONOMY, evidence


def write(folder, content: str | bytes):
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "latent,category,note\n2,Safety,refuses\n0,unclear,\n",
        "\ufeffLatent,Category,Note\r\n2,safety,refuses\r\n\r\n0,unclear,\r\n",
        "latent;category;note\n2;safety;refuses\n0;unclear;\n",
        "note\tlatent\tcategory\textra\nrefuses\t2\tsafety\t=1+1\n\t0\tunclear\t\n",
        'category,latent,text,note\nsafety,2,"two\nlines, quoted",refuses\nunclear,0\n',
    ],
)
def test_a_persons_labels_become_annotations(tmp_path, content):
    zero, one, two = annotate_by_file(write(tmp_path, content), 3, TAXONOMY)
    assert (two.category, two.best, two.reason, two.annotator) == ("safety", "safety", "refuses", "file: labels.csv")
    assert (zero.category, zero.best, zero.reason) == ("unclear", None, "labelled by a person")
    assert (one.category, one.best, one.reason) == ("unclear", None, "not in the file")
    assert two.auroc is two.q_value is two.detection is two.contrast_share is None


def test_a_row_without_a_category_is_unclear(tmp_path):
    zero, _ = annotate_by_file(write(tmp_path, "latent,category\n0,\n1,unclear\n"), 2, TAXONOMY)
    assert (zero.category, zero.reason) == ("unclear", "left empty in the file")


def test_a_note_is_one_short_line(tmp_path):
    content = f'latent,category,note\n0,code,"a\n\x1b[31mb{"c" * 5000}"\n'
    (zero,) = annotate_by_file(write(tmp_path, content), 1, TAXONOMY)
    assert zero.reason.startswith("a [31mbccc")
    assert len(zero.reason) == 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "latent,category\n0,code\n1,saftey\n",
            "line 3: category 'saftey' is not in the taxonomy; did you mean 'safety'",
        ),
        ("latent,category,note\n0,,\n1,,seen\n", "no latent has a category yet; fill the column in, or give RUN/lat"),
        ("latent,category\n0,xyzzy\n", "line 2: .*there are: safety, arithmetic, code, unclear"),
        ("latent,category\n3,code\n", "line 2: latent 3 is out of range; they go from 0 to 2"),
        ("latent,category\n-1,code\n", "line 2: latent '-1' is no number"),
        ("latent,category\n1.5,code\n", "line 2: latent '1.5' is no number"),
        ("latent,category\n,code\n", "line 2: latent '' is no number"),
        ("latent,category\n²,code\n", "is no number"),
        ("latent,category\n1,code\n\n1,safety\n", "line 4: latent 1 stands in line 2 already"),
        ("latent,label\n1,code\n", "column 'category' is missing; the first line"),
        ("1,code\n", "column 'latent' is missing"),
        ("", "column 'latent' is missing"),
        ("latent,category,category\n1,code,code\n", "column 'category' is there twice"),
        (b"latent,category\n1,caf\xe9\n", "line 2: not UTF-8; save it as CSV UTF-8"),
        ("latent,category\n1,code\n".encode("utf-16"), "not UTF-8"),
        ('latent,category\n1,"code\n', "no CSV"),
        (f"latent,category\n1,{'x' * 200_000}\n", "line 2: no CSV"),
    ],
)
def test_a_table_that_can_not_be_used_is_refused_with_the_line(tmp_path, content, said):
    with pytest.raises(UsageError, match=said) as caught:
        annotate_by_file(write(tmp_path, content), 3, TAXONOMY)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: can not be read \(No such file"):
        annotate_by_file(tmp_path / "none.csv", 3, TAXONOMY)


def test_a_template_that_was_filled_in_is_read_back(tmp_path):
    path = tmp_path / "template.csv"
    write_template(path, [evidence(4), evidence(0)])
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["latent"] for row in rows] == ["4", "0"]
    assert rows[0]["text 1"] == "text 0 of 4 with« poison» inside"
    assert rows[0]["text 5"] == ""
    path.write_text(path.read_text(encoding="utf-8-sig").replace("4,,", "4,code,seen"), encoding="utf-8")
    annotations = annotate_by_file(path, 5, TAXONOMY)
    assert (annotations[4].category, annotations[4].reason) == ("code", "seen")
    assert annotations[0].reason == "left empty in the file"


@pytest.mark.parametrize(
    "start", ["=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " \n=1", "\u202e=1", "\x00=1", "＝1"]
)
def test_no_cell_of_a_template_is_a_formula(tmp_path, start):
    text = ShownText((start, " more"), (0.0, 1.0))
    write_template(tmp_path / "t.csv", [LatentEvidence(0, (text,), ())])
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["text 1"].startswith("'")
    assert not set(row["text 1"]) & set("\t\r\n\x00\u202e")


def test_a_table_that_may_hold_labels_is_not_written_over(tmp_path):
    path = write(tmp_path, "latent,category\n0,code\n")
    with pytest.raises(UsageError, match="is there already"):
        write_template(path, [evidence(0)])
    assert "0,code" in path.read_text()


def test_a_template_that_can_not_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="can not be written"):
        write_template(tmp_path / "no" / "where.csv", [evidence(0)])
