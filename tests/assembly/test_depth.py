"""The rule of `--layer auto` on planted profiles, and what the report takes over of a stage's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffharness.assembly.depth import choose, profiles_from, refuse_recorded
from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.recorded import Recorded
from diffharness.report.schema import DepthProfile, carried_together


def body(*tasks: tuple[str, float, list[float]], layers=(0, 1, 2, 3), certain: bool = True) -> dict:
    """What the stage leaves of tasks: name, gap, and what each layer that was tried carries."""
    return {
        "n_layers": 4,
        "layers": list(layers),
        "refused": {str(layer): f"layer {layer} reads back" for layer in range(4) if layer not in layers},
        "reasons": {},
        "tasks": {
            name: {
                "unit": "probability",
                "n_documents": 8,
                "n_task": 20,
                "gap": gap,
                "gap_low": gap - 0.01,
                "gap_high": gap + 0.01,
                "carried_L": carried,
                "carried_raw_L": carried,
                "low_L": [c - 0.01 for c in carried],
                "high_L": [c + 0.01 for c in carried],
                "share_low_L": [c / gap - 0.01 for c in carried] if certain else None,
                "share_high_L": [c / gap + 0.01 for c in carried] if certain else None,
            }
            for name, gap, carried in tasks
        },
    }


def rows(*names: str, gap: float = 0.4) -> list[dict]:
    return [
        {
            "task": name,
            "is_primary": True,
            "effect_kind": "absolute",
            "baseline": 0.3,
            "gap": gap,
            "low": gap - 0.05,
            "high": gap + 0.05,
            "higher_is_better": True,
        }
        for name in names
    ]


def made(stage: dict, *moved: str, still: tuple[str, ...] = (), smallest_effect: float = 0.02):
    return profiles_from(stage, [*rows(*moved), *rows(*still, gap=0.0)], smallest_effect)


def test_the_first_layer_that_carries_half_is_chosen():
    found = made(body(("a", 0.4, [0.0, 0.1, 0.3, 0.4])), "a")
    choice = choose(found, [0, 1, 2, 3], 4)
    assert choice.layer == 2
    assert "first to carry half" in choice.why
    assert "75" in choice.why


def test_tasks_count_by_the_size_of_their_gap_and_downward_gaps_count_alike():
    stage = body(("up", 0.1, [0.1, 0.1, 0.1, 0.1]), ("down", -0.4, [0.0, -0.2, -0.3, -0.4]))
    found = made(stage, "up", "down")
    assert carried_together(found) == pytest.approx({0: 0.1 / 0.5, 1: 0.3 / 0.5, 2: 0.4 / 0.5, 3: 1.0})
    assert choose(found, [0, 1, 2, 3], 4).layer == 1


def test_what_runs_against_the_gap_or_beyond_it_does_not_make_up_for_another_task():
    stage = body(("over", 0.1, [0.5, 0.5, 0.5, 0.1]), ("against", 0.3, [-0.3, -0.3, 0.2, 0.3]))
    found = made(stage, "over", "against")
    assert carried_together(found) == pytest.approx({0: 0.25, 1: 0.25, 2: 0.75, 3: 1.0})
    assert choose(found, [0, 1, 2, 3], 4).layer == 2


def test_tasks_without_a_gap_have_no_say_and_no_shares():
    stage = body(("a", 0.4, [0.0, 0.0, 0.4, 0.4]), ("b", 5.0, [5.0, 5.0, 5.0, 5.0]))
    moved, still = made(stage, "a", still=("b",))
    assert choose((moved, still), [0, 1, 2, 3], 4).layer == 2
    assert still.share_reason == "no gap to explain"
    assert all(row.share is None and row.carried == 5.0 for row in still.layers)
    assert [row.share for row in moved.layers] == [0.0, 0.0, 1.0, 1.0]
    assert moved.first_half() == 2


def test_the_smallest_effect_decides_what_a_gap_is():
    stage = body(("a", 0.4, [0.0, 0.0, 0.4, 0.4]))
    (profile,) = made(stage, "a", smallest_effect=0.5)
    assert not profile.moved
    assert choose((profile,), [0, 1, 2, 3], 4).layer == 2


@pytest.mark.parametrize(("layers", "expected"), [((0, 1, 2, 3), 2), ((0, 1, 3), 1), ((0, 3), 0)])
def test_without_a_gap_it_is_the_middle_or_what_can_be_tried_next_to_it(layers, expected):
    choice = choose((), layers, 4)
    assert choice.layer == expected
    assert "no task has a gap" in choice.why


def test_never_the_last_layer_but_the_one_before_it_that_carries_most():
    found = made(body(("a", 0.4, [0.05, 0.1, 0.08, 0.4])), "a")
    choice = choose(found, [0, 1, 2, 3], 4)
    assert choice.layer == 1
    assert "none below the last carries half" in choice.why


def test_a_layer_that_could_not_be_tried_has_a_reason_and_is_not_chosen():
    found = made(body(("a", 0.4, [0.0, 0.3, 0.4]), layers=(0, 2, 3)), "a")
    row = found[0].layers[1]
    assert (row.carried, row.share, row.reason) == (None, None, "layer 1 reads back")
    assert [row.carried for row in found[0].layers] == [0.0, None, 0.3, 0.4]
    assert choose(found, [0, 2, 3], 4).layer == 2
    with pytest.raises(UsageError, match="--layer auto finds no layer below the last that can be compared at; name"):
        choose(found, [3], 4)


def test_an_uncertain_gap_has_no_shares_and_still_a_say():
    (profile,) = made(body(("a", 0.4, [0.0, 0.3, 0.4, 0.4]), certain=False), "a")
    assert profile.share_reason == "the interval of the gap on these documents holds 0"
    assert all(row.share is None for row in profile.layers)
    assert profile.first_half() is None
    assert choose((profile,), [0, 1, 2, 3], 4).layer == 1


def test_a_profile_survives_json():
    (profile,) = made(body(("a", 0.4, [0.0, 0.3, 0.4]), layers=(0, 2, 3)), "a")
    assert DepthProfile.model_validate_json(profile.model_dump_json()) == profile


def test_recorded_activations_refuse_auto(tmp_path: Path):
    (tmp_path / "with" / "activations").mkdir(parents=True)
    (tmp_path / "without").mkdir()
    auto = RunConfig.make({"baseline": "a", "candidate": "b", "tasks": ["t"], "layer": "auto"})
    refuse_recorded(auto, {"baseline": Recorded(tmp_path / "without")})
    refuse_recorded(auto.model_copy(update={"layer": "1"}), {"baseline": Recorded(tmp_path / "with")})
    with pytest.raises(
        UsageError, match=r"--layer auto chooses .*--candidate-results .*with holds .* leave --layer out"
    ):
        refuse_recorded(auto, {"candidate": Recorded(tmp_path / "with")})
