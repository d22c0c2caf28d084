"""What a corpus may be called, and what is found before anything long starts."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffharness.activations.corpora import CorpusSpec, check_corpus, parse_corpus
from diffharness.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("stories.jsonl", CorpusSpec("jsonl", "stories.jsonl")),
        ("stories.jsonl@0.7", CorpusSpec("jsonl", "stories.jsonl", weight=0.7)),
        ("some/stories.jsonl@2", CorpusSpec("jsonl", "some/stories.jsonl", weight=2.0)),
        ("mail@home.txt", CorpusSpec("text", "mail@home.txt")),
        ("a/b.parquet", CorpusSpec("parquet", "a/b.parquet")),
        ("tasks", CorpusSpec("tasks", "tasks")),
        ("tasks@0.5", CorpusSpec("tasks", "tasks", weight=0.5)),
        ("org/name", CorpusSpec("hub", "org/name")),
        ("org/name@3", CorpusSpec("hub", "org/name", weight=3.0)),
        ("hf:name", CorpusSpec("hub", "name")),
        ("hf:org/name:test:body", CorpusSpec("hub", "org/name", "test", "body")),
        ("hf:org/name/config:test", CorpusSpec("hub", "org/name", "test", config="config")),
        ("hf:/some/where/deep", CorpusSpec("hub", "/some/where/deep")),
    ],
)
def test_a_corpus_is_known_by_its_name(spec, expected):
    assert parse_corpus(spec) == expected


def test_a_file_that_is_there_wins_over_a_weight_and_over_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    for name in ("org/name", "x@2"):
        (tmp_path / name).write_text("")
    assert parse_corpus("org/name") == CorpusSpec("jsonl", "org/name")
    assert parse_corpus("org") == CorpusSpec("folder", "org")
    assert parse_corpus("x@2") == CorpusSpec("jsonl", "x@2")
    assert parse_corpus("x@2@3") == CorpusSpec("jsonl", "x@2", weight=3.0)


@pytest.mark.parametrize("spec", ["", "x.jsonl@0", "x.jsonl@-1", "x.jsonl@nan", "hf:a/b/c/d", "hf:a:b:c:d", "hf:a::c"])
def test_what_can_not_be_meant_is_refused(spec):
    with pytest.raises(UsageError, match=f"--corpus {spec!r}"):
        parse_corpus(spec)


@pytest.mark.parametrize("spec", ["a.jsonl", "hf:a", "hf:a:test", "hf:a/b/c:test:body", "tasks"])
def test_a_spec_is_written_as_it_is_read(spec):
    assert str(parse_corpus(spec)) == spec
    assert str(parse_corpus(f"{spec}@2")) == spec


def parquet(column, values):
    return pa.table({column: values})


BAD = {
    "no.jsonl": (None, r"no\.jsonl is not a file; give a JSONL"),
    "empty.jsonl": (b"\n", r"empty\.jsonl is empty; give a JSONL"),
    "third.jsonl": (b'{"text": "a"}\n\n{"words": 1}\n', r"third\.jsonl, line 3: not a JSON object with a `text`"),
    "bytes.jsonl": (b'{"text": "\xff"}\n', r"bytes\.jsonl, line 1: not a JSON object"),
    "one.jsonl": (b'{"text": "a"}\n', r"one\.jsonl holds one text; give at least two"),
    "empty.txt": (b"\n \n", r"empty\.txt is empty"),
    "bytes.txt": (b"a\n\n\xff\n", r"bytes\.txt, line 3: not UTF-8"),
    "odd.parquet": (b"PAR", r"odd\.parquet is not a Parquet file"),
    "names.parquet": (parquet("body", ["a"]), r"names\.parquet has no column 'text', it has: body"),
    "numbers.parquet": (parquet("text", [1, 2]), r"numbers\.parquet: column 'text' is of int64"),
    "empty.parquet": (parquet("text", pa.array([], pa.string())), r"empty\.parquet is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_before_long_work(tmp_path, name):
    body, message = BAD[name]
    if isinstance(body, pa.Table):
        pq.write_table(body, tmp_path / name)
    elif body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(UsageError, match=message) as error:
        check_corpus([parse_corpus(str(tmp_path / name))])
    assert "\n" not in str(error.value)


def test_a_folder_without_texts_and_a_corpus_given_twice_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no \.txt files"):
        check_corpus([parse_corpus(str(tmp_path))])
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' * 2)
    assert check_corpus([parse_corpus(str(path))]) == ()
    with pytest.raises(UsageError, match=r"a\.jsonl is given twice; give it once, with a weight"):
        check_corpus([parse_corpus(str(path)), parse_corpus(f"{path}@2")])


def test_a_dataset_out_of_reach_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--corpus hf:.*none is neither a file nor a dataset within reach: "):
        check_corpus([parse_corpus(f"hf:{tmp_path}/none")])


def test_a_dataset_without_the_column_names_those_it_has(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"body": "a", "id": 1}\n')
    with pytest.raises(UsageError, match=r"row 1: no text in column 'text'; it has: body, id; give hf:NAME"):
        check_corpus([parse_corpus(f"hf:{tmp_path}")])
