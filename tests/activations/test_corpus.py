"""What is drawn from corpora: whole documents, cut but never mixed, to a budget that is split by weight."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers.processors import TemplateProcessing

from diffharness.activations import sources
from diffharness.activations.corpora import check_corpus, parse_corpus
from diffharness.activations.corpus import Sample, sample_corpus
from diffharness.activations.text_files import JsonLines
from diffharness.errors import UsageError
from tests import tiny as made

WORDS = made.WORDS
TOKENIZER = made.tokenizer()
EVERYTHING = 10**9


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def sample(*specs: str, n_tokens: int = EVERYTHING, seed: int = 0, max_length: int = 32, **more) -> Sample:
    rng = np.random.default_rng(seed)
    parsed = [parse_corpus(spec) for spec in specs]
    return sample_corpus(
        parsed, more.pop("tokenizer", TOKENIZER), max_length=max_length, n_tokens=n_tokens, rng=rng, **more
    )


def words(n: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, n))


def texts_by_source(found: Sample) -> dict[str, list[tuple[int, ...]]]:
    grouped: dict[str, list[tuple[int, ...]]] = {}
    for text in found.texts:
        grouped.setdefault(text.source, []).append(text.ids)
    return grouped


def test_every_kind_of_file_gives_each_text_once_and_says_where_it_stands(tmp_path):
    texts = [words(4, seed) for seed in range(5)]
    jsonl(tmp_path / "a.jsonl", texts)
    (tmp_path / "b.txt").write_text("\n" + "\n\n \n".join(texts))
    pq.write_table(pa.table({"text": texts, "id": range(5)}), tmp_path / "c.parquet", row_group_size=2)
    (tmp_path / "d" / "deep").mkdir(parents=True)
    (tmp_path / "e").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / "d" / ("deep" if i % 2 else ".") / f"{i}.txt").write_text(text)
    jsonl(tmp_path / "e" / "train.jsonl", texts)
    places = {
        "a.jsonl": [f"a.jsonl:{i}" for i in range(1, 6)],
        "b.txt": [f"b.txt:{i}" for i in (2, 5, 8, 11, 14)],
        "c.parquet": [f"c.parquet:{i}" for i in range(1, 6)],
        "d": ["d/0.txt:1", "d/deep/1.txt:1", "d/2.txt:1", "d/deep/3.txt:1", "d/4.txt:1"],
        "hf:e": [f"hf:{tmp_path / 'e'}:{i}" for i in range(1, 6)],
    }
    for name, expected in places.items():
        spec = f"hf:{tmp_path / 'e'}" if name == "hf:e" else str(tmp_path / name)
        check_corpus([parse_corpus(spec)])
        found = sample(spec)
        ids = [tuple(TOKENIZER.encode(text)) for text in texts]
        assert texts_by_source(found) == {place: [i] for place, i in zip(expected, ids, strict=True)}, name
        assert [t.source for t in found.texts] != expected, "in random order"
        assert found.texts == sample(spec).texts, "the same for one seed"
        assert found.texts != sample(spec, seed=1).texts


def test_lines_of_one_text_stay_together(tmp_path):
    (tmp_path / "a.txt").write_text("the cat\nruns\n\nthe dog\n")
    found = sample(str(tmp_path / "a.txt"))
    assert {TOKENIZER.decode(t.ids, skip_special_tokens=True) for t in found.texts} == {"the cat runs", "the dog"}


@pytest.mark.parametrize("special", ["<bos> $A", "<bos> $A <eos>", "<bos> <bos> $A", "$A"])
def test_long_documents_are_cut_without_loss_and_never_mixed(tmp_path, special):
    tokenizer = made.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=special, special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    room = 10 - special.count("<bos>")
    lengths = [3, room - 1, room, room + 1, room + 2, 3 * room, 5 * room + 4]
    texts = [words(n, seed) for seed, n in enumerate(lengths)]
    found = sample(jsonl(tmp_path / "a.jsonl", texts), tokenizer=tokenizer, max_length=10)
    prefix = (1,) * special.count("<bos>")
    for i, pieces in sorted((int(s.split(":")[1]) - 1, p) for s, p in texts_by_source(found).items()):
        assert all(piece[: len(prefix)] == prefix and len(piece) <= 10 for piece in pieces)
        assert len({len(p) for p in pieces[:-1]}) <= 1, "only the last is short"
        read = sum((piece[len(prefix) :] for piece in pieces), ())
        whole = tuple(tokenizer.encode(texts[i]))[len(prefix) :]
        assert whole[: len(read)] == read, "in order, none twice, none of another document"
        assert len(whole) - len(read) == (1 if len(whole) % room == 1 and len(whole) > 1 else 0)


def test_special_tokens_are_not_doubled_and_may_be_left_out(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ["<bos> the cat"])
    (text,) = sample(path).texts
    assert TOKENIZER.convert_ids_to_tokens(list(text.ids)) == ["<bos>", "the", "cat"]
    (text,) = sample(jsonl(tmp_path / "b.jsonl", ["the cat"]), add_special_tokens=False).texts
    assert TOKENIZER.convert_ids_to_tokens(list(text.ids)) == ["the", "cat"]


@pytest.mark.parametrize(
    ("weights", "sizes", "expected"),
    [
        ((1, 1, 1), (500, 500, 500), (100, 100, 100)),
        ((3, 2, 1), (500, 500, 500), (150, 100, 50)),
        ((1, 1, 1), (500, 20, 500), (140, 20, 140)),
        ((2, 1, 1), (30, 500, 500), (30, 135, 135)),
        ((3, 1, 1), (500, 500, 10), (217, 73, 10)),
        ((1, 1, 1), (10, 20, 30), (10, 20, 30)),
    ],
)
def test_the_budget_is_split_by_weight_and_what_one_lacks_goes_to_the_others(tmp_path, weights, sizes, expected):
    specs = [
        f"{jsonl(tmp_path / f'{i}.jsonl', [words(1, seed) for seed in range(size)])}@{weight}"
        for i, (weight, size) in enumerate(zip(weights, sizes, strict=True))
    ]
    found = sample(*specs, n_tokens=300)
    counts = [c.n_tokens for c in found.counts]
    assert counts == pytest.approx(expected, abs=1)
    assert sum(counts) == sum(len(t.ids) - 1 for t in found.texts) == min(300, sum(sizes))
    assert sum(c.share for c in found.counts) == pytest.approx(1)
    short = [i for i, (n, w) in enumerate(zip(sizes, weights, strict=True)) if n < 300 * w / sum(weights)]
    assert [note.split()[0] for note in found.notes] == [str(tmp_path / f"{i}.jsonl") for i in short]


def test_counts_are_of_documents_and_their_sequences(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [words(4), words(25), "", words(9)])
    (count,) = sample(path, max_length=11).counts
    assert (count.source, count.n_documents, count.n_sequences, count.n_tokens) == (path, 3, 5, 38)
    assert count.share == 1


def test_sources_are_mixed_and_documents_stay_whole(tmp_path):
    specs = [jsonl(tmp_path / f"{i}.jsonl", [words(25, s) for s in range(20)]) for i in range(2)]
    sources = [t.source for t in sample(*specs, max_length=11).texts]
    assert sources[::3] == sources[1::3] == sources[2::3], "three sequences a document"
    assert len({s.split(":")[0] for s in sources[:30]}) == 2
    assert sorted(sources) != sources


def test_a_budget_is_passed_by_less_than_a_sequence(tmp_path):
    specs = [jsonl(tmp_path / f"{i}.jsonl", [words(7, s) for s in range(40)]) for i in range(9)]
    assert 300 <= sum(c.n_tokens for c in sample(*specs, n_tokens=300).counts) < 307


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no text in .*a\.jsonl has two tokens; give longer texts"):
        sample(jsonl(tmp_path / "a.jsonl", ["", ""]))
    with pytest.raises(UsageError, match="context of 2 tokens is too short"):
        sample(jsonl(tmp_path / "b.jsonl", ["the cat"]), max_length=2)


def test_a_malformed_line_past_the_checked_part_is_named_when_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("diffharness.activations.text_files.CHECKED_BYTES", 30)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "the cat"}\n' * 4 + "cut off\n")
    assert check_corpus([parse_corpus(str(path))]) == ()
    with pytest.raises(UsageError, match=r"a\.jsonl, line 5: not a JSON object"):
        sample(str(path))


def test_only_what_is_drawn_is_parsed(tmp_path, monkeypatch):
    path = jsonl(tmp_path / "a.jsonl", [words(4, seed) for seed in range(1000)])
    parsed = Counter()
    plain = JsonLines.parse

    def counted(self, line, number):
        parsed[number] += 1
        return plain(self, line, number)

    monkeypatch.setattr(JsonLines, "parse", counted)
    found = sample(path, n_tokens=40)
    assert sum(parsed.values()) == len(found.texts) == 10
    assert max(int(t.source.split(":")[1]) for t in found.texts) > 500, "from the whole file"


def test_a_stream_is_read_no_further_than_its_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHUFFLED_DOCUMENTS", 16)
    read = []

    def endless(name, config, *, split, streaming):
        assert (name, config, split, streaming) == ("org/name", "small", "test", True)
        for i in range(EVERYTHING):
            read.append(i)
            yield {"body": words(5, i)}

    monkeypatch.setattr("datasets.load_dataset", endless)
    spec = "hf:org/name/small:test:body"
    assert check_corpus([parse_corpus(spec)]) == ()
    read.clear()
    found = sample(spec, n_tokens=100)
    assert len(found.texts) == 20
    assert len(read) <= 16 + 20 + 1
    assert len({t.source for t in found.texts}) == 20
    assert found.texts[0].source.startswith("hf:org/name:")


def task(tmp_path, name: str, rows, **settings):
    from diffharness.evaluation.harness import load_tasks

    made.write_task(tmp_path, name, rows, training_split="test", fewshot_split="test", **settings)
    return load_tasks([name], [tmp_path]).tasks[name]


ROWS = [
    {"prompt": words(3, i), "choices": ["night", "day"], "gold": i % 2, "word": "tree", "text": words(6, i)}
    for i in range(4)
]
SETTINGS = {
    "choice": {"output_type": "multiple_choice", "doc_to_target": "gold", "doc_to_choice": "choices"},
    "answer": {"output_type": "generate_until", "doc_to_target": "{{word}}", "target_delimiter": " : "},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tasks_give_their_documents_as_lm_eval_shows_examples(tmp_path, name):
    found = task(
        tmp_path, name, ROWS, doc_to_text="{{prompt}}",
        metric_list=made.metrics("acc" if name == "choice" else "exact_match"), **SETTINGS[name],
    )  # fmt: skip
    result = sample("tasks", tasks={name: found})
    shown = {
        f"{name}:test:{i}": TOKENIZER.decode(ids, skip_special_tokens=True)
        for i, ids in enumerate((t.ids for t in sorted(result.texts, key=lambda t: t.source)), start=1)
    }
    examples = found.fewshot_context(ROWS[0], 3)
    own = set(examples.split("\n\n")[:3])
    assert own <= set(shown.values())
    assert shown[f"{name}:test:2"] == ROWS[1]["prompt"] + (" day" if name == "choice" else " : tree")


def test_texts_are_given_whole_and_tasks_without_training_split_are_noted(tmp_path, tiny_tasks):
    text = task(
        tmp_path, "whole", ROWS, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=made.metrics("bits_per_byte", higher_is_better=False),
    )  # fmt: skip
    tasks = {"whole": text, "tiny_word": tiny_tasks.tasks["tiny_word"]}
    notes = check_corpus([parse_corpus("tasks")], tasks)
    assert notes == ("task 'tiny_word' has no training split and adds nothing to the corpus",)
    found = sample("tasks", tasks=tasks)
    assert found.notes[0] == notes[0]
    assert [c.source for c in found.counts] == ["whole:test"]
    assert {TOKENIZER.decode(t.ids, skip_special_tokens=True) for t in found.texts} == {r["text"] for r in ROWS}
    with pytest.raises(UsageError, match=r"no task has a training split \(tiny_word\)"):
        check_corpus([parse_corpus("tasks")], {"tiny_word": tasks["tiny_word"]})
