"""The crosscoder benchmark measures what it says, at sizes that take seconds; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch

from diffharness.crosscoder import TrainingSettings, measure, train
from tests.benchmarks.crosscoder import Sizes, bounds_of
from tests.benchmarks.crosscoder_data import SIDES, PlantedActivations
from tests.benchmarks.crosscoder_gpu import TableSizes, gpu_table
from tests.benchmarks.crosscoder_memory import memory_figures
from tests.benchmarks.crosscoder_peer import Peer
from tests.benchmarks.crosscoder_rounds import Data, explained_variance, our_reconstruction
from tests.benchmarks.crosscoder_training import Bench

TINY = Sizes(
    small=64, large=128, d_model=16, k=4, batch_tokens=64, n_planted=48, block_steps=4, n_rounds=8, n_large_rounds=2,
    n_share_steps=4, test_tokens=256,
)  # fmt: skip

TRAINER = '''
import einops
import torch
from ..dictionary import Dictionary


class BatchTopKCrossCoderTrainer:
    """Learns nothing: reconstructs the mean with a code of k latents."""

    def __init__(self, steps, activation_dim, dict_size, k, layer, lm_name, num_layers=2, lr=None, warmup_steps=1000,
                 decay_start=None, threshold_start_step=1000, seed=None, device=None, activation_mean=None,
                 activation_std=None):
        assert warmup_steps < steps
        self.ae = Dictionary(dict_size, k, activation_mean)
        self.lr = lr or 1.0
        self.seen = []
        self.weight = einops.rearrange(torch.zeros(num_layers, activation_dim, dict_size), "m d l -> m l d")

    def update(self, step, x):
        assert x.dtype == torch.float32
        self.seen.append((step, tuple(x.shape)))
'''
DICTIONARY = """
import torch


class Dictionary:
    threshold = torch.tensor(-1.0)

    def __init__(self, n_latents, k, mean):
        self.n_latents, self.k, self.mean = n_latents, k, mean

    def encode(self, x, use_threshold):
        return (torch.arange(self.n_latents) < self.k).float().expand(len(x), -1)

    def decode(self, f):
        return self.mean.expand(len(f), *self.mean.shape)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a checkout of the peer looks like; its package can not be imported as a whole."""
    package = tmp_path / "dictionary_learning"
    (package / "trainers").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('an older nnsight is needed')\n")
    (package / "trainers" / "__init__.py").write_text("raise ImportError('an older nnsight is needed')\n")
    (package / "dictionary.py").write_text(DICTIONARY)
    (package / "trainers" / "crosscoder.py").write_text(TRAINER)
    return tmp_path


def test_planted_activations_are_made_by_their_seeds():
    first = PlantedActivations(16, 48, seed=0).draw(300, seed=1)
    assert first.shape == (320, len(SIDES), 16)
    assert torch.equal(first, PlantedActivations(16, 48, seed=0).draw(300, seed=1))
    assert not torch.equal(first, PlantedActivations(16, 48, seed=0).draw(300, seed=2))
    assert not torch.equal(first, PlantedActivations(16, 48, seed=1).draw(300, seed=1))


def test_explained_variance_is_the_mean_over_models_of_what_quality_measures():
    world = PlantedActivations(16, 48, seed=0)
    data = Data(world.draw(1024, 0), world.draw(256, 1), world.draw(2500, 2))
    settings = TrainingSettings(n_latents=64, k=4, n_steps=60, batch_tokens=256)
    crosscoder = train(data.train_NMD, settings, sides=SIDES, heldout_NMD=data.calibration_NMD)
    value, l0 = explained_variance(our_reconstruction(crosscoder), data.test_NMD)
    expected = measure(crosscoder, data.test_NMD)
    assert value == pytest.approx(sum(expected.explained_variance.values()) / 2, abs=1e-4)
    assert l0 == pytest.approx(expected.l0)


def test_moments_are_those_of_the_training_tokens():
    x_NMD = PlantedActivations(8, 48, seed=0).draw(5000, 0)
    mean_MD, std_MD = Data(x_NMD, x_NMD, x_NMD).moments()
    torch.testing.assert_close(mean_MD, x_NMD.double().mean(0))
    torch.testing.assert_close(std_MD, x_NMD.double().std(0, unbiased=False))


def test_ours_and_the_peer_take_as_many_steps_on_batches_of_the_same_size(checkout: Path):
    bench = Bench(TINY, 0, Peer(checkout), lambda _text: None)
    figures = bench.training()
    assert figures["rounds_64"] == TINY.n_rounds
    assert figures["peer_learning_rate"] == 1.0
    assert figures["peer_with_our_schedule_learning_rate"] == figures["ours_learning_rate"]
    assert figures["peer_l0_batch_topk"] == TINY.k
    assert "peer_explained_variance_threshold" not in figures
    # The stand-in reconstructs the training tokens' mean, so ours is better by all that it explains.
    assert figures["explained_variance_over_peer_points"] == pytest.approx(
        100 * (figures["ours_explained_variance"] - figures["peer_explained_variance_batch_topk"])
    )
    assert figures["peer_explained_variance_batch_topk"] == pytest.approx(0, abs=0.1)
    assert (
        figures["step_over_product_64_low"] <= figures["step_over_product_64"] <= figures["step_over_product_64_high"]
    )


def test_without_a_peer_its_figures_and_bounds_are_left_out():
    bench = Bench(TINY, 0, None, lambda _text: None)
    figures = {**bench.describe(), **bench.large_steps(), **bench.training()}
    assert not [name for name in figures if name.startswith(("peer_ms", "speed", "explained"))]
    assert {"ours_ms_128", "ours_ms_64", "ours_explained_variance", "ours_defaults_explained_variance"} < set(figures)
    json.dumps(figures, allow_nan=False)
    assert bounds_of(figures, TINY) == []


def test_bounds_are_on_the_numbers_of_latents_they_were_set_for():
    figures = {"step_over_product_8192": 1.8, "step_over_product_2048": 1.8, "speed_over_peer_8192": 5.5}
    bounds = bounds_of(figures, Sizes(small=2048, large=8192))
    assert [(b.name, b.holds) for b in bounds] == [("speed_over_peer_8192", True), ("step_over_product_8192", False)]


def test_shares_of_a_step_sum_to_one():
    shares = Bench(TINY, 0, None, lambda _text: None).shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert "Adam" in shares


def test_the_table_of_a_device_names_it_and_leaves_memory_empty_where_it_does_not_tell(checkout: Path):
    sizes = TableSizes(
        d_model=16, n_latents=64, k=4, batch_tokens=64, n_train_tokens=256, n_planted=48, block_steps=2, n_rounds=2
    )
    table = gpu_table(torch.device("cpu"), sizes, Peer(checkout), seed=0)
    assert table["device"] == "cpu"
    assert table["ours_memory_peak_mb"] is None
    assert {"ours_tokens_per_s_gpu", "product_ms_gpu", "product_bfloat16_ms_gpu", "peer_tokens_per_s_gpu"} < set(table)
    json.dumps(table, allow_nan=False)


def test_a_folder_without_the_trainer_is_refused(tmp_path: Path):
    with pytest.raises(click.UsageError, match=r"dictionary\.py is missing"):
        Peer(tmp_path)


def test_memory_is_measured_in_a_process_of_its_own():
    options = {"width": 16, "k": 4, "batch": 64, "steps": 2, "threads": 1, "seed": 0}
    figures = memory_figures(64, None, options)
    assert 0 <= figures["ours_memory_growth_mb_64"] < figures["ours_memory_peak_mb_64"]
