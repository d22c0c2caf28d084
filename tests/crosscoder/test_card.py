"""The card says what a crosscoder is and how good, loads as YAML, and names no folder of a machine."""

from __future__ import annotations

from typing import Any

import yaml

from diffharness.crosscoder.card import model_card, public_name, published, without_paths
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings

QUALITY = {
    "explained_variance": {"baseline": 0.9312, "candidate": 0.9077},
    "l0": 15.97,
    "dead_share": 0.0125,
    "decoder_cosine_median": 0.981,
    "n_measured_tokens": 40_000,
    "splice": {"baseline": {"delta_ce": 0.0421, "loss_recovered": 0.987}, "candidate": {"delta_ce": 0.05}},
    "stability": {"share": 0.63},
    "stale": None,
}


def config(**changes: object) -> CrosscoderConfig:
    body = {
        "sides": ("baseline", "candidate"), "layers": (13,), "d_model": 64, "n_latents": 512, "k": 16,
        "models": ("org/base-1b", "org/base-1b-it"), "n_train_tokens": 360_000, "training": TrainingSettings(),
    }  # fmt: skip
    return CrosscoderConfig(**{**body, **changes})


def header(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_header_names_library_tags_and_base_models():
    found = header(model_card(config(), QUALITY, "me/cc"))
    assert found["library_name"] == "diffharness"
    assert "crosscoder" in found["tags"]
    assert found["base_model"] == ["org/base-1b", "org/base-1b-it"]


def test_card_carries_the_quality_table_and_how_to_load_it():
    card = model_card(config(), QUALITY, "me/cc")
    for row in (
        "| explained variance, baseline | 93.1% |",
        "| explained variance, candidate | 90.8% |",
        "| L0 | 16.0 |",
        "| dead latents | 1.2% |",
        "| ΔCE of baseline, spliced (nats a token) | +0.042 |",
        "| loss recovered, baseline | 98.7% |",
        "| latents that another seed has too | 63.0% |",
        "| layer | 13 |",
        "| latents | 512 |",
    ):
        assert row in card
    assert 'diffharness.crosscoder.load("me/cc")' in card
    assert "--crosscoder me/cc" in card
    assert "On 40,000 tokens" in card


def test_what_is_not_known_is_said_and_not_invented():
    card = model_card(config(models=(), layers=(), k=None, training=None, n_train_tokens=0), None, "me/cc")
    assert "base_model" not in header(card)
    assert "Not measured." in card
    assert "| layer | not known |" in card
    assert "| active latents a token (k) | not known |" in card


def test_no_path_of_this_machine_is_in_the_card():
    private = config(
        models=("/home/me/secret/base", r"C:\models\tuned"),
        source="dictionary_learning era 5, /data/private/runs/ae.pt, normalisation as in the file",
        description="~/work/notes/plan.txt",
    )
    card = model_card(private, {**QUALITY, "stale": "measured in /home/me/x/y"}, "me/cc")
    for word in ("home", "secret", "C:\\", "private", "runs/", "~/"):
        assert word not in card, word
    assert "base" in card
    assert "ae.pt" in card
    assert "base_model" not in header(card)
    assert published(private).models == ("base", "tuned")


def test_only_paths_are_shortened():
    assert public_name("org/name") == "org/name"
    assert without_paths("a ratio of 1/2, loss / norm, https://hub.co/a/b") == (
        "a ratio of 1/2, loss / norm, https://hub.co/a/b"
    )
    assert without_paths("from /a/b/c.pt, then") == "from c.pt, then"


def test_decoupled_codes_and_several_layers_are_explained():
    card = model_card(config(code_norm="per_model", layers=(4, 8)), None, "me/cc")
    assert "(tokens, models, latents)" in card
    assert "baseline@4, baseline@8, candidate@4, candidate@8" in card
