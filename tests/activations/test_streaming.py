import pytest
import torch

from diffharness.activations.store import ActivationStore, write_store
from diffharness.activations.streaming import StreamedActivations
from tests.activations.test_store import SPEC, Reading, texts

SKIPPED = frozenset({5})


def streamed(columns=(0, 1)) -> tuple[StreamedActivations, Reading]:
    reading = Reading()
    stream = StreamedActivations(reading, texts(), layer=3, columns=columns, d_model=4, skipped_ids=SKIPPED)
    return stream, reading


def test_streamed_rows_are_those_of_a_store(tmp_path):
    write_store(tmp_path, SPEC, texts(), Reading())
    stored = ActivationStore.open(tmp_path).rows(("candidate", "baseline"), 3, skipped_ids=SKIPPED)
    stream, _ = streamed(columns=(1, 0))
    assert stream.shape == stored.shape
    torch.testing.assert_close(stream[:], stored[:], rtol=0, atol=0)
    torch.testing.assert_close(stream[17:23], stored[17:23], rtol=0, atol=0)


def test_reading_in_order_reads_each_text_once(monkeypatch):
    monkeypatch.setattr("diffharness.activations.streaming.WINDOW_TOKENS", 30)
    stream, reading = streamed()
    pieces = [stream[start : start + 7] for start in range(0, len(stream), 7)]
    assert reading.n_texts == len(texts())
    torch.testing.assert_close(torch.cat(pieces), streamed()[0][:], rtol=0, atol=0)


@pytest.mark.parametrize("buffer_bytes", [1 << 20, 1])
def test_batches_hold_every_row_equally_often_in_a_new_order(monkeypatch, buffer_bytes):
    monkeypatch.setattr("diffharness.activations.streaming.BUFFER_BYTES", buffer_bytes)
    stream, reading = streamed()
    batches = stream.batches(16, torch.Generator().manual_seed(0))
    n_epochs = 12
    drawn = torch.cat([next(batches) for _ in range(n_epochs * len(stream) // 16)]).flatten(1)
    assert (reading.n_texts == len(texts())) == (buffer_bytes > 1), "what the buffer holds whole is read once"
    rows, counts = torch.cat([drawn, stream[:].flatten(1)]).unique(dim=0, return_counts=True)
    _, own = stream[:].flatten(1).unique(dim=0, return_counts=True)
    assert len(rows) == len(own)
    assert ((counts - own) / own - n_epochs).abs().max() <= 2
    again = stream.batches(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(next(again), drawn[:16].view(16, 2, 4), rtol=0, atol=0)
