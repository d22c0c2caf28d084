import itertools

import pytest
import torch

from diffharness.crosscoder.batches import batches


def numbered(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None, None].expand(n, 2, 3).contiguous()


def drawn(x: torch.Tensor, n_batches: int, batch: int = 32, block: int = 16, seed: int = 0) -> torch.Tensor:
    stream = batches(x, batch, block, torch.Generator().manual_seed(seed))
    return torch.stack([x.clone() for x in itertools.islice(stream, n_batches)])


def test_every_token_comes_equally_often():
    n = 1000
    seen = drawn(numbered(n), 20 * n // 32)[:, :, 0, 0].flatten().long()
    counts = torch.bincount(seen, minlength=n)
    assert counts.double().mean() == pytest.approx(20, rel=0.01)
    assert counts.min() >= 14  # the ends wait for the next epoch where an offset leaves them out
    assert counts.max() <= 23


def test_no_two_tokens_of_a_batch_are_from_one_block():
    for batch in drawn(numbered(2048), 64)[:, :, 0, 0]:
        assert batch.sort().values.diff().min() >= 1
        assert len({int(t) // 16 for t in batch}) >= 24  # 32 of 128 blocks, each cut anywhere


def test_batch_statistics_are_those_of_a_full_shuffle():
    """Neighbours that resemble each other must not make a batch's mean vary more than that of random tokens."""
    generator = torch.Generator().manual_seed(1)
    walk = torch.randn(1 << 15, generator=generator)
    x = torch.nn.functional.conv1d(walk[None, None], torch.ones(1, 1, 40) / 40**0.5)[0, 0][:, None, None]
    means = drawn(x, 400, batch=64).mean(dim=(1, 2, 3))
    shuffled = x[torch.randperm(len(x), generator=generator)][: 400 * 64].view(400, 64).mean(1)
    neighbours = x[: 400 * 64].view(400, 64).mean(1)
    assert means.var() / shuffled.var() == pytest.approx(1, abs=0.35)
    assert neighbours.var() > 10 * shuffled.var()


def test_the_order_depends_on_the_seed_alone():
    x = numbered(500)
    torch.testing.assert_close(drawn(x, 40), drawn(x, 40), rtol=0, atol=0)
    assert not torch.equal(drawn(x, 40), drawn(x, 40, seed=1))


def test_fewer_tokens_than_a_batch_are_one_batch():
    assert sorted(drawn(numbered(10), 1, batch=64)[0, :, 0, 0].tolist()) == list(range(10))
