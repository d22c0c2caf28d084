import numpy as np
import pytest
import torch

from diffharness.activations import store as room
from diffharness.activations.capture import LayerReader
from diffharness.activations.corpus import Text, sample_texts
from diffharness.activations.replay import length_batches, replay
from diffharness.activations.store import ActivationStore, StoreWriter
from diffharness.errors import RunError, UsageError


def texts(n: int = 9) -> list[Text]:
    generator = np.random.default_rng(0)
    return [Text(tuple(generator.integers(4, 30, generator.integers(2, 12)).tolist()), f"t{i}") for i in range(n)]


def write(folder, models, some):
    readers = [LayerReader(m.hf_model, 1) for m in models]
    writer = StoreWriter(folder, sides=("baseline", "candidate"), layer=1, texts=some)
    for batch in replay(readers, [t.ids for t in some], max_tokens=24):
        writer.add(batch)
    return writer.finish()


def test_store_returns_each_texts_activations_under_both_models(tiny_models, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARD_TOKENS", 20)
    some = texts()
    files = write(tmp_path, tiny_models, some)
    store = ActivationStore.open(tmp_path)
    assert len([f for f in files if f.suffix == ".safetensors"]) > 1
    assert sorted(t.ids for t in store.texts) == sorted(t.ids for t in some)
    for text, start in zip(store.texts, store.starts, strict=True):
        for m, model in enumerate(tiny_models):
            with torch.no_grad():
                alone = model.hf_model(torch.tensor([text.ids]), output_hidden_states=True).hidden_states[2][0, 1:]
            torch.testing.assert_close(store.x_NMD[start : start + len(text.ids) - 1, m], alone, rtol=0, atol=1e-5)


def test_sides_come_in_the_order_asked_for(tiny_models, tmp_path):
    write(tmp_path, tiny_models, texts())
    store = ActivationStore.open(tmp_path)
    torch.testing.assert_close(store.of(("candidate", "baseline")), store.x_NMD.flip(1))


def test_heldout_rows_are_whole_texts(tiny_models, tmp_path):
    write(tmp_path, tiny_models, texts())
    store = ActivationStore.open(tmp_path)
    heldout = store.heldout(0.3, np.random.default_rng(0))
    owner = store.text_of_token()
    assert len({*owner[heldout]} & {*owner[~heldout]}) == 0
    assert len({*owner[heldout]}) == 3


def test_damaged_store_is_named(tmp_path):
    with pytest.raises(RunError, match="does not hold activations"):
        ActivationStore.open(tmp_path)


def test_length_batches_hold_every_row_once_within_the_budget():
    lengths = [3, 9, 1, 4, 4, 30, 2]
    batches = length_batches(lengths, 16)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in b) * len(b) <= 16 for b in batches if len(b) > 1)


def test_corpora_share_the_token_budget(tmp_path):
    for name, word in (("a", "x"), ("b", "y")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{word} {word} {word} {word} {word}"}}\n' * 50)
    found = sample_texts(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl"],
        lambda text: [1, *(ord(c) for c in text.split())],
        n_tokens=60,
        rng=np.random.default_rng(0),
    )
    assert sum(len(t.ids) - 1 for t in found) == 60
    assert sum(t.source.startswith("a") for t in found) == len(found) / 2


@pytest.mark.parametrize("body", ["", "not json\n", '{"words": "x"}\n', "[1]\n"])
def test_bad_corpus_is_refused_by_name(tmp_path, body):
    path = tmp_path / "bad.jsonl"
    path.write_text(body)
    with pytest.raises(UsageError, match=r"--corpus .*bad\.jsonl"):
        sample_texts([path], lambda _: [1, 2], n_tokens=10, rng=np.random.default_rng(0))
