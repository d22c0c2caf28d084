from __future__ import annotations

import shutil

import pytest

from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.session import Session
from tests import tiny as made


def session(tiny, **changes: object) -> Session:
    models = {"baseline": str(tiny.baseline), "candidate": str(tiny.candidate)}
    options = {**models, "tasks": ["tiny"], "include_path": [tiny.tasks], "layer": "1", **changes}
    config = RunConfig.make(options)
    return Session(
        config, {side: str(options[side]) for side in ("baseline", "candidate", "ancestor") if side in options}
    )


def with_words(tiny, folder, words: list[str]):
    shutil.copytree(tiny.candidate, folder)
    made.tokenizer(words).save_pretrained(folder)
    return folder


def test_a_pair_that_fits_has_no_notes(tiny):
    found = session(tiny, ancestor=str(tiny.ancestor))
    assert found.sides == ("baseline", "candidate", "ancestor")
    assert found.check() == ()
    assert (found.layer, found.n_layers) == (1, 3)


def test_added_tokens_are_noted_and_refused_where_something_uses_them(tiny, tmp_path):
    found = session(tiny, candidate=with_words(tiny, tmp_path / "added", [*made.WORDS, "extra", "more"]))
    (note,) = found.check()
    assert "candidate's tokenizer has 2 added" in note
    last = len(made.SPECIAL) + len(made.WORDS)
    found.check_tokens({1, 5, last - 1, last + 7}, "the corpus")
    with pytest.raises(UsageError, match="the corpus uses the token 'extra' of the candidate's tokenizer"):
        found.check_tokens({1, last}, "the corpus")


@pytest.mark.parametrize(
    "words", [[made.WORDS[1], made.WORDS[0], *made.WORDS[2:]], ["other", *made.WORDS[1:]]], ids=["moved", "renamed"]
)
def test_a_token_with_another_id_is_refused(tiny, tmp_path, words):
    with pytest.raises(UsageError, match=r"tokenizers of baseline and candidate differ: token '(a|other)'"):
        session(tiny, candidate=with_words(tiny, tmp_path / "other", words)).check()


def test_fingerprint_of_tasks_follows_their_yaml_and_their_data(tiny, tmp_path):
    tasks = tmp_path / "tasks"
    shutil.copytree(tiny.tasks, tasks)
    data = tmp_path / "elsewhere.jsonl"
    data.write_text('{"text": "the dog"}\n')
    (tasks / "more.yaml").write_text(f"task: more\ndataset_kwargs: {{data_files: {data}}}\n")

    def now() -> str:
        return session(tiny, include_path=[tasks]).tasks_fingerprint

    seen = [now()]
    assert now() == seen[0]
    data.write_text('{"text": "the cat"}\n')
    seen.append(now())
    (tasks / "tiny_word.jsonl").write_text('{"prompt": "a", "word": "b"}\n')
    seen.append(now())
    assert len(set(seen)) == 3


def test_fingerprints_need_no_model_to_be_loaded(tiny, monkeypatch):
    found = session(tiny, candidate=f"pretrained={tiny.candidate},dtype=float32")
    monkeypatch.setattr(Session, "model", lambda *_: pytest.fail("loaded a model"))
    prints = found.model_fingerprints
    assert prints["baseline"] != prints["candidate"]
    assert prints == session(tiny, candidate=f"pretrained={tiny.candidate},dtype=float32").model_fingerprints
