"""A crosscoder's quality as the report's row."""

from __future__ import annotations

import pytest
import torch

from diffharness.activations.splicing import SpliceLoss
from diffharness.assembly.quality import quality
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import measure
from diffharness.crosscoder.stability import matched_share
from diffharness.report.schema import CrosscoderQuality

SIDES = ("baseline", "candidate", "ancestor")


def crosscoder(n_models: int = 2, **changes: object) -> Crosscoder:
    body = {"sides": SIDES[:n_models], "d_model": 6, "n_latents": 15, "k": 4, **changes}
    made = Crosscoder(CrosscoderConfig.model_validate(body)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in made.parameters():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return made


def tokens(n_models: int = 2) -> torch.Tensor:
    return torch.randn(50, n_models, 6, generator=torch.Generator().manual_seed(1))


def loss(**changes: float | None) -> SpliceLoss:
    values = {
        "n_texts": 3, "n_tokens": 30, "clean": 2.0, "spliced": 2.5, "zeroed": 4.0, "mean": 3.0,
        "delta_low": 0.4, "delta_high": 0.6, **changes,
    }  # fmt: skip
    return SpliceLoss(**values)


def test_everything_that_was_measured_is_in_the_row_and_in_its_file():
    first = crosscoder(training=TrainingSettings(n_latents=15, k=4, seed=3, sparsity="topk"), activation="topk")
    measures = measure(first, tokens())
    stable = matched_share(first, first, alive=measures.fired_L)
    row = quality(first, measures, splice={"baseline": loss()}, stability=stable, stale="why", source="a/b")
    found = row.splice["baseline"]
    assert (found.ce, found.delta_ce, found.loss_recovered, found.loss_recovered_mean) == (2.0, 0.5, 0.75, 0.5)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.4, 0.6)
    assert row.stability is not None
    assert (row.stability.share, row.stability.seeds) == (1.0, (3, 3))
    assert (row.sparsity, row.activation, row.threshold, row.stale, row.source) == ("topk", "topk", None, "why", "a/b")
    assert (row.splice_reason, row.stability_reason) == (None, None)
    assert row.n_measured_tokens == 50
    assert row.pairs[0].delta_norm == row.delta_norm
    assert row.pairs[0].cosine_median == row.decoder_cosine_median
    assert sum(row.pairs[0].cosine.counts) == int(measures.fired_L.sum())
    assert CrosscoderQuality.model_validate_json(row.model_dump_json()) == row


def test_what_was_not_measured_has_a_reason():
    row = quality(crosscoder(k=None), measure(crosscoder(), tokens()))
    assert (row.k, row.splice, row.stability, row.stale) == (None, {}, None, None)
    assert row.splice_reason
    assert row.stability_reason
    without = loss(zeroed=1.9, delta_low=None)
    row = quality(crosscoder(), measure(crosscoder(), tokens()), splice={"baseline": without})
    assert (row.splice["baseline"].loss_recovered, row.splice["baseline"].interval) == (None, None)


@pytest.mark.parametrize(("n_models", "n_pairs"), [(1, 0), (2, 1), (3, 3)])
def test_any_number_of_models_and_any_names(n_models: int, n_pairs: int):
    row = quality(crosscoder(n_models), measure(crosscoder(n_models), tokens(n_models)))
    assert len(row.pairs) == n_pairs
    assert list(row.explained_variance) == list(row.models)
    renamed = crosscoder(2, sides=("it", "pt"))
    assert quality(renamed, measure(renamed, tokens())).models == ("it", "pt")


def test_where_it_came_from_is_said_once():
    made = crosscoder(source="a/b: normalisation taken as none")
    measures = measure(made, tokens())
    assert quality(made, measures).source == "a/b: normalisation taken as none"
    assert quality(made, measures, source="file").source == "file; a/b: normalisation taken as none"
    assert quality(crosscoder(), measures).source == ""
