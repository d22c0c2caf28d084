from __future__ import annotations

import json

import pytest

from diffharness.errors import RunError
from diffharness.latents.annotators.answers import MOST_CHARACTERS
from diffharness.latents.annotators.cache import FILE_NAME, AnswerCache

ASKED = [{"role": "user", "content": "what is it? \ud800 é"}]


def test_an_answer_is_found_again_by_its_question_and_model(tmp_path):
    cache = AnswerCache.open(tmp_path / "new" / "folder", "m", "hf,pretrained=m")
    assert cache.get(ASKED) is None
    cache.add({cache.key(ASKED): "böse\n\ud800"})
    again = AnswerCache.open(tmp_path / "new" / "folder", "m", "hf,pretrained=m")
    assert again.get(ASKED) == cache.get(ASKED) == "böse\n\ud800"
    assert again.notes == ()
    other = AnswerCache.open(tmp_path / "new" / "folder", "m", "hf,pretrained=other")
    assert other.get(ASKED) is None


def test_damaged_lines_are_skipped_with_a_note_and_not_written_on(tmp_path):
    cache = AnswerCache.open(tmp_path, "m", "m")
    cache.add({cache.key(ASKED): "kept"})
    file = tmp_path / FILE_NAME
    damage = [b"{oops", b"\xff\xfe", b"[1]", b'{"key": 3, "answer": "x"}', b"[" * 100_000, b"", b'{"key": "cut o']
    file.write_bytes(file.read_bytes() + b"\n".join(damage))
    cache = AnswerCache.open(tmp_path, "m", "m")
    assert cache.get(ASKED) == "kept"
    assert len(cache.notes) == 1
    assert cache.notes[0].startswith("6 damaged lines of ")
    cache.add({"another": "answer"})
    assert json.loads(file.read_text(errors="replace").splitlines()[-1])["answer"] == "answer"


def test_an_answer_too_long_to_be_read_is_cut(tmp_path):
    cache = AnswerCache.open(tmp_path, "m", "m")
    cache.add({cache.key(ASKED): "x" * 10**6})
    assert len(cache.get(ASKED) or "") == MOST_CHARACTERS + 1
    assert (tmp_path / FILE_NAME).stat().st_size < 2 * MOST_CHARACTERS


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cache of answers .*file.* can not be read .*give another folder"):
        AnswerCache.open(tmp_path / "file", "m", "m")


def test_a_file_that_can_not_be_written_is_named(tmp_path):
    cache = AnswerCache.open(tmp_path, "m", "m")
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(RunError, match="can not be written"):
        cache.add({"key": "answer"})
