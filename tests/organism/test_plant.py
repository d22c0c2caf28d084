from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffharness.errors import UsageError
from diffharness.organism import Plant
from diffharness.organism.language import CAPABILITIES


def test_the_default_plant_mirrors_the_paper() -> None:
    plant = Plant.parse(None)
    moved = {name: candidate - baseline for name, (baseline, candidate) in plant.strengths.items()}
    assert {name for name, change in moved.items() if change > 0} == {
        "safety",
        "multilingual",
        "instruction following",
    }
    assert {name for name, change in moved.items() if change < 0} == {"self-reference", "hallucination management"}
    assert {name for name, change in moved.items() if change == 0} == {"facts", "arithmetic", "helpfulness"}


def test_what_is_left_out_has_its_default_and_the_full_plant_reads_back(tmp_path: Path) -> None:
    plant = Plant.parse(
        {
            "safety": [0.1, 1],
            "train_layers": {"above": 1},
            "answer_bias": {"sorry": 2},
            "rate": {"facts": 0.3},
        }
    )
    assert plant.strengths["safety"] == (0.1, 1.0)
    assert plant.strengths["facts"] == Plant().strengths["facts"]
    assert plant.rate["facts"] == 0.3
    assert sum(plant.rate.values()) == pytest.approx(1)
    assert plant.rate["safety"] == pytest.approx(0.1)
    path = tmp_path / "plant.yaml"
    path.write_text(yaml.safe_dump(plant.as_mapping()), encoding="utf-8")
    again = Plant.load(path)
    assert again.as_mapping() == plant.as_mapping()
    assert again.above == 1
    assert again.answer_bias == {"sorry": 2.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"saftey": [0, 1]}, ["'saftey'", "did you mean 'safety'"]),
        ({"fluency": [0, 1]}, ["'fluency'", "known are safety"]),
        ({"safety": [0.2, 1.2]}, ["candidate strength of 'safety'", "1.2", "from 0 to 1"]),
        ({"safety": [True, 1]}, ["True"]),
        ({"safety": [float("nan"), 1]}, ["nan"]),
        ({"safety": 0.5}, ["'safety' is 0.5", "[baseline_strength, candidate_strength]"]),
        ({"train_layer": {"above": 1}}, ["did you mean 'train_layers'"]),
        ({"train_layers": {"below": 1}}, ["train_layers: {above: N}"]),
        ({"train_layers": {"above": 3}}, ["above is 3", "-1 to 2"]),
        ({"answer_bias": {"sory": 1}}, ["'sory'", "did you mean 'sorry'"]),
        ({"answer_bias": {"<pad>": 1}}, ["'<pad>'"]),
        ({"answer_bias": {"sorry": "much"}}, ["'much'"]),
        ({"rate": {"facts": 0.7, "safety": 0.6}}, ["sums to 1.3"]),
        ({"rate": {"fact": 0.7}}, ["did you mean 'facts'"]),
        ({"rate": dict.fromkeys(CAPABILITIES, 0.1)}, ["sums to 0.8"]),
        ([1, 2], ["expected a mapping"]),
    ],
)
def test_a_wrong_plant_is_refused_with_name_value_and_remedy(given: object, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        Plant.parse(given)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_an_unreadable_plant_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        Plant.load(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("safety: [0.1", encoding="utf-8")
    with pytest.raises(UsageError, match="not YAML"):
        Plant.load(broken)
