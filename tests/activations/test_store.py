import json
import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from diffharness.activations import store as room
from diffharness.activations.corpus import Text
from diffharness.activations.harvesting import heldout_texts
from diffharness.activations.rows import coded_places
from diffharness.activations.store import ActivationStore, StoreSpec, write_store
from diffharness.errors import RunError

SPEC = StoreSpec(("baseline", "candidate"), (1, 3), 4, "float32", {"baseline": "b", "candidate": "c"}, (5,))


def texts(n: int = 30) -> list[Text]:
    generator = np.random.default_rng(0)
    return [Text(tuple(generator.integers(4, 30, generator.integers(2, 12)).tolist()), f"t{i}") for i in range(n)]


class Reading:
    """Activations that are a function of text, layer, position, model and dimension; counts what is read."""

    def __init__(self) -> None:
        self.n_texts = 0

    def __call__(self, some: Sequence[Text]) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
        for i in reversed(range(len(some))):
            self.n_texts += 1
            yield i, {layer: planted(some[i], layer) for layer in (1, 3)}


def planted(text: Text, layer: int) -> Tensor:
    x = torch.tensor(text.ids, dtype=torch.float32)[:, None, None] + torch.arange(len(text.ids))[:, None, None] / 64
    return x * torch.tensor([1.0, -1.0])[:, None] + layer + torch.arange(4) / 8


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(room, "SHARD_TOKENS", 40)


def test_store_gives_back_every_position_of_every_text(tmp_path, small_shards):
    write_store(tmp_path, SPEC, texts(), Reading())
    store = ActivationStore.open(tmp_path)
    assert len(store.shards) > 3
    assert store.spec == SPEC
    assert [t.ids for t in store.texts] == [t.ids for t in texts()]
    for i, text in enumerate(texts()):
        for layer in (1, 3):
            torch.testing.assert_close(store.text(i, layer), planted(text, layer), rtol=0, atol=0)


def test_rows_are_the_coded_positions_in_order_of_the_sides_asked_for(tmp_path, small_shards):
    write_store(tmp_path, SPEC, texts(), Reading())
    store = ActivationStore.open(tmp_path)
    skipped = frozenset({5, 11})
    rows = store.rows(("candidate", "baseline"), 3, [0, 4, 5, 29], skipped)
    expected = torch.cat(
        [planted(texts()[i], 3)[torch.from_numpy(coded_places(texts()[i].ids, skipped))] for i in (0, 4, 5, 29)]
    ).flip(1)
    assert rows.shape == expected.shape
    torch.testing.assert_close(rows[:], expected, rtol=0, atol=0)
    for start, stop in ((0, 1), (3, 9), (len(rows) - 2, len(rows)), (2, 2)):
        torch.testing.assert_close(rows[start:stop], expected[start:stop], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_stored_in_half_the_bytes(tmp_path, dtype):
    spec = StoreSpec(**{**SPEC.__dict__, "dtype": dtype})
    some = texts(400)
    write_store(tmp_path, spec, some, Reading())
    n_tokens = sum(len(t.ids) for t in some)
    on_disk = sum(f.stat().st_size for f in tmp_path.glob("shard_*"))
    assert on_disk == pytest.approx(n_tokens * 2 * 2 * 4 * 2, rel=0.03)
    store = ActivationStore.open(tmp_path)
    torch.testing.assert_close(store.text(7, 1).float(), planted(some[7], 1), rtol=1e-2, atol=0)


def test_numbers_beyond_the_dtype_are_refused(tmp_path):
    spec = StoreSpec(**{**SPEC.__dict__, "dtype": "float16"})
    with pytest.raises(RunError, match="not finite in float16"):
        write_store(tmp_path, spec, [Text((4, 100_000), "t")], Reading())
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_interrupted_store_goes_on_with_the_shard_that_is_missing(tmp_path, small_shards):
    some, whole = texts(), Reading()
    write_store(tmp_path, SPEC, some, whole)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    (tmp_path / "index.parquet").unlink()
    (tmp_path / "shard_00001.safetensors").unlink()
    again = Reading()
    write_store(tmp_path, SPEC, some, again)
    assert 0 < again.n_texts < whole.n_texts / 2
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def cut(file):
    file.write_bytes(file.read_bytes()[:-3])


def altered(file):
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(bytes(body))


def other_models(file):
    folder = file.parent / "other"
    folder.mkdir()
    write_store(folder, StoreSpec(**{**SPEC.__dict__, "models": {"baseline": "x"}}), texts(), Reading())
    shutil.copyfile(folder / file.name, file)


@pytest.mark.parametrize("damage", [cut, altered, other_models, lambda f: f.unlink()])
def test_a_damaged_shard_is_refused_by_name_and_redone(tmp_path, small_shards, damage):
    write_store(tmp_path, SPEC, texts(), Reading())
    damage(tmp_path / "shard_00002.safetensors")
    with pytest.raises(RunError, match=r"shard_00002\.safetensors"):
        ActivationStore.open(tmp_path)
    again = Reading()
    write_store(tmp_path, SPEC, texts(), again)
    assert 0 < again.n_texts < 30
    ActivationStore.open(tmp_path)


def test_an_altered_index_is_refused_by_name(tmp_path):
    write_store(tmp_path, SPEC, texts(), Reading())
    file = tmp_path / "index.parquet"
    table = pq.read_table(file)
    ids = table["ids"].to_pylist()
    ids[3][0] += 1
    changed = table.set_column(2, "ids", [ids]).cast(table.schema)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(RunError, match=r"index\.parquet was altered"):
        ActivationStore.open(tmp_path)
    file.write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"index\.parquet is no index"):
        ActivationStore.open(tmp_path)
    assert json.loads(table.schema.metadata[b"diffharness"])["format"] == room.FORMAT


def test_heldout_texts_are_whole_documents_and_never_all():
    some = [Text((1, 2), f"document {i // 2}") for i in range(20)]
    chosen = heldout_texts(some, 0.3, np.random.default_rng(0))
    assert chosen.sum() == 6
    assert (chosen[::2] == chosen[1::2]).all()
    assert heldout_texts(some[:4], 0.9, np.random.default_rng(0)).sum() == 2
    with pytest.raises(RunError, match="one document"):
        heldout_texts(some[:2], 0.5, np.random.default_rng(0))
