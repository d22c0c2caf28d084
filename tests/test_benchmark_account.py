"""The account and null benchmarks count what they say, on planted reports and arrays; nothing is trained or timed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from diffharness.attribution.account import OTHERS, TaskAccount
from diffharness.organism.plant import Plant
from diffharness.report.schema import Component, Interval, Report, Shapley, ShapleyPlayer, Task
from tests import planted
from tests.benchmarks.account_truth import (
    PlantedRun,
    read_only_figures,
    shapley_figures,
    shift_figures,
    truth_figures,
)
from tests.benchmarks.null_pairs import Spread, claims_against
from tests.benchmarks.nulls import LEVEL, Rate, contribution_rates, score_rates, shift_rates
from tests.report.example import example_report

GAP = 0.4
STRENGTHS = {"safety": (0.2, 0.9), "facts": (0.85, 0.85)}


def part(kind: str, origin: str | None, category: str | None, value: float, half: float = 0.01, **more) -> Component:
    return Component(
        kind=kind, origin=origin, category=category, contribution=value, contribution_raw=value, share=None,
        interval=Interval(low=value - half, high=value + half), p_value=None, q_value=None, **more,
    )  # fmt: skip


def latents(**sums: tuple[float, float]) -> list[Component]:
    """By category, what is written and what is read."""
    return [
        part("latents", origin, name, value)
        for name, pair in sums.items()
        for origin, value in zip(("written", "read"), pair, strict=True)
    ]


@pytest.fixture(scope="module")
def example() -> Report:
    return example_report()


def task_of(report: Report, components: list[Component], name: str = "organism_safety", **changes) -> Task:
    surrogate = report.tasks[0].surrogate
    assert surrogate is not None
    surrogate = surrogate.model_copy(update={"gap": changes.pop("gap", GAP)})
    update = {"task": name, "verdict": "improved", "categories": ("safety",), "components": tuple(components)}
    return report.tasks[0].model_copy(update={**update, "surrogate": surrogate, **changes})


def run_of(report: Report, *tasks: Task, plant: Plant | None = None, **changes) -> PlantedRun:
    body = report.model_copy(update={"tasks": tasks, **changes})
    return PlantedRun("case", 0, plant or Plant(strengths=STRENGTHS), None, body)


def test_blame_is_of_what_is_written_and_read_together(example):
    task = task_of(example, latents(safety=(0.05, 0.15), facts=(0.1, -0.02)))
    report = run_of(example, task).report
    (both,) = planted.blames(report, STRENGTHS, 1)
    (written,) = planted.blames(report, STRENGTHS, 1, ("written",))
    assert (both.leader, both.holds) == ("safety", True)
    assert both.share == pytest.approx(0.2 / 0.28)
    assert (written.leader, written.holds) == ("facts", False)


def test_half_is_asked_for_and_not_only_the_lead(example):
    task = task_of(example, latents(safety=(0.04, 0.0), facts=(0.03, 0.0), helpfulness=(0.03, 0.0)))
    figures = truth_figures([run_of(example, task)])
    assert figures["smallest share of the planted category"] == pytest.approx(0.4)
    assert figures["single tasks blamed rightly"] == 0


def test_a_falling_gap_blames_what_falls(example):
    task = task_of(example, latents(safety=(-0.2, -0.1), facts=(0.1, 0.0)), gap=-GAP, verdict="regressed")
    (blame,) = planted.blames(run_of(example, task).report, STRENGTHS, 1)
    assert (blame.leader, blame.share) == ("safety", pytest.approx(1.5))


def test_composites_blame_the_capability_that_moved(example):
    right = task_of(example, latents(safety=(0.2, 0.1), facts=(0.1, 0.1)), "a", categories=("facts", "safety"))
    wrong = task_of(example, latents(safety=(0.1, 0.1), facts=(0.2, 0.1)), "b", categories=("facts", "safety"))
    figures = truth_figures([run_of(example, right, wrong)])
    assert figures["composite tasks with one capability moved"] == 2
    assert figures["composites blamed rightly"] == 0.5
    assert figures["single tasks"] == 0


def test_nothing_written_is_seen_part_by_part(example):
    read = latents(safety=(0.0, 0.3), facts=(0.0, 0.1))
    nil = task_of(example, read)
    cancelled = task_of(example, [*latents(safety=(0.1, 0.3)), part("error", "written", None, -0.1)])
    plant = Plant(strengths=STRENGTHS, above=1)
    figures = read_only_figures([run_of(example, nil, plant=plant)])
    assert figures["above: largest written part or sum over the gap"] == 0
    assert figures["above: read names the capability"] == 1
    figures = read_only_figures([run_of(example, cancelled, plant=plant)])
    assert figures["above: largest written part or sum over the gap"] == pytest.approx(0.25)


def test_a_shift_of_answers_is_measured_by_the_prior_with_its_sign(example):
    shift = Plant(strengths={"safety": (0.85, 0.85)}, answer_bias={"sorry": 3.0})
    most = task_of(example, [part("prior", None, None, 0.3, is_content_free=True, second_start=0.29)], "a")
    against = task_of(example, [part("prior", None, None, -0.3, is_content_free=False, second_start=0.1)], "b")
    still = task_of(example, [part("prior", None, None, 0.0)], "c", verdict="no change")
    found = run_of(example, most, still, plant=shift)
    assert found.is_shift_only
    assert not found.is_read_only
    figures = shift_figures([found])
    assert figures["bias: moved tasks"] == 1
    assert figures["bias: smallest share of the prior"] == pytest.approx(0.75)
    assert figures["bias: priors called content-free"] == 1
    assert shift_figures([run_of(example, most, against)])["bias: smallest share of the prior"] == pytest.approx(-0.75)


def player(name: str, value: float, written: float, *, agrees: bool | None) -> ShapleyPlayer:
    interval = Interval(low=written - 0.01, high=written + 0.01)
    return ShapleyPlayer(
        name=name, categories=(name,), value=value, interval=None, standard_error=None, written=written,
        written_interval=interval, agrees=agrees,
    )  # fmt: skip


def test_shapley_values_are_set_against_what_is_written(example):
    players = (
        player("a", 0.3, 0.28, agrees=True), player("b", -0.1, -0.12, agrees=True),
        player("c", -0.02, 0.03, agrees=False), player("d", 0.0, 0.001, agrees=None),
        player("e", 0.0, 0.02, agrees=None),
    )  # fmt: skip
    rows = (
        Shapley(task="one", metric="acc", players=players, same_unit=True),
        Shapley(task="two", metric="bits_per_byte", players=(player("a", 9.0, -9.0, agrees=True),), same_unit=False),
        Shapley(task="three", metric="exact_match", reason="its answers are generated"),
    )
    figures = shapley_figures([run_of(example, shapley=rows)])
    assert figures["Shapley values or contributions whose interval excludes 0"] == 5
    assert figures["of these, Shapley values of exactly 0"] == 1
    assert figures["of these, alike in sign"] == 0.6
    assert figures["alike in sign, where neither is exactly 0"] == 0.75
    expected = np.corrcoef([p.value for p in players], [p.written for p in players])[0, 1]
    assert figures["correlation of contributions and Shapley values"] == pytest.approx(expected)
    assert figures["Shapley values of the other sign"] == [["case", 0, "one", "c", -0.02, 0.03]]
    assert figures["moved tasks without Shapley values"][0][2] == "three"


def test_players_of_many_parts_do_not_count_as_single_categories(example):
    players = (
        player("a", 0.3, 0.28, agrees=True), player("b", 0.0, 0.02, agrees=None), player("c", 0.0, 0.0, agrees=None),
        player("other categories", -0.1, 0.1, agrees=False), player("bias and error", 0.0, 0.1, agrees=None),
    )  # fmt: skip
    figures = shapley_figures([run_of(example, shapley=(Shapley(task="one", metric="acc", players=players),))])
    assert figures["Shapley values of single categories among these"] == 2
    assert figures["alike in sign, single categories"] == 0.5
    assert figures["of these, alike in sign"] == 0.25


def test_a_run_without_shapley_values_misses_their_bounds(example):
    figures = shapley_figures([run_of(example, shapley=())])
    assert figures["of these, alike in sign"] == 0
    assert figures["correlation of contributions and Shapley values"] == 0


def test_the_spread_of_nulls_is_students_prediction_interval():
    spread = Spread((1.0, 2.0, 3.0))
    # mean 2, s 1, t(0.975, 2) = 4.302653: 2 ± 4.302653 · √(4/3)
    assert spread.interval == pytest.approx((2 - 4.968276, 2 + 4.968276), abs=1e-5)
    assert spread.is_beyond_largest(3.1)
    assert spread.is_beyond_largest(-3.1)
    assert not spread.is_beyond_largest(3.0)
    assert spread.is_beyond_interval(7.0)
    assert not spread.is_beyond_interval(6.9)


def test_claims_are_set_against_every_null_and_only_clear_ones_are_claims(example):
    claimed = task_of(example, latents(safety=(0.2, 0.1), facts=(0.03, 0.03), helpfulness=(0.002, 0.0)))
    nulls = [
        run_of(example, task_of(example, latents(safety=(0.001 * i, 0.0), facts=(0.0, 0.04 * i)), verdict="no change"))
        for i in (-1, 0, 2)
    ]
    found = claims_against(run_of(example, claimed).report, [null.report for null in nulls], STRENGTHS)
    assert [(c["category"], c["planted"]) for c in found] == [("safety", True), ("facts", False)]
    safety, facts = found
    assert safety["beyond largest"]
    assert safety["beyond interval"]
    assert facts["largest of nulls"] == pytest.approx(0.08)
    assert not facts["beyond largest"]


def test_a_rate_keeps_to_five_percent_within_what_its_rounds_allow():
    rng = np.random.default_rng(0)
    held = {
        chance: [bound.holds for bound in Rate(rng.binomial(10, chance, 400) / 10).bounds("rate", both=True)]
        for chance in (LEVEL, 0.1, 0.02)
    }
    assert held == {LEVEL: [True, True], 0.1: [False, True], 0.02: [True, False]}


def planted_account(n: int, n_latents: int, rng: np.random.Generator) -> TaskAccount:
    """Contributions that all point one way: real ones, called at once."""
    matrices = [sparse.csr_array(rng.gamma(2.0, size=(n, n_latents))) for _ in range(4)]
    ones = np.ones(n)
    return TaskAccount(
        task="task", forms=None, accounts=(), doc_ids=tuple(range(n)), baseline_N=np.zeros(n), candidate_N=ones,
        scale_N=ones, latents={"written": tuple(matrices[:2]), "read": tuple(matrices[2:])},
        others_ONC=rng.gamma(2.0, size=(2, n, len(OTHERS))), second_prior_ON=np.zeros((2, n)),
        upper_ON=np.zeros((2, n)), sample_N=ones,
        weight_N=ones,
    )  # fmt: skip


def test_drawn_signs_find_five_percent_where_the_true_ones_find_everything():
    rng = np.random.default_rng(1)
    accounts = [planted_account(40, 4, rng)]
    categories = ["safety", "safety", "facts", "unclear"]
    rates = contribution_rates(accounts, categories, rng, 40)
    assert all(bound.holds for bound in rates["tests"].bounds("tests", both=True))
    assert rates["intervals"].mean < 0.15
    assert rates["lists"].mean <= LEVEL + rates["lists"].allowance


def test_exchanged_documents_are_not_called_more_often_than_asked(tiny_evaluations, tiny_tasks):
    sides = dict(zip(("baseline", "candidate"), tiny_evaluations, strict=True))
    run = SimpleNamespace(
        config=SimpleNamespace(metric=None),
        session=SimpleNamespace(tasks=tiny_tasks),
        load_evaluation=sides.__getitem__,
    )
    rates = score_rates(run, np.random.default_rng(2), 6)
    assert rates["all"].mean <= LEVEL + rates["all"].allowance


def test_dealt_labels_find_five_percent_of_category_shifts():
    rng = np.random.default_rng(3)
    categories = ["safety"] * 30 + ["facts"] * 30 + ["unclear"] * 60
    acquired = np.where(np.array(categories) == "safety", 5.0, 1.0) * rng.gamma(2.0, size=120)
    body = {
        "categories": categories,
        "tuned": {
            "baseline": {"is_specific": [False] * 120, "acquired": np.ones(120).tolist()},
            "candidate": {"is_specific": [i % 4 == 0 for i in range(120)], "acquired": acquired.tolist()},
        },
    }
    run = SimpleNamespace(latents=lambda sides: sides, read_json=lambda _stage, _name: body)
    rates = shift_rates(run, rng, 40)
    assert {name.split(", ")[1] for name in rates} == {"counts", "mass"}
    for name, rate in rates.items():
        assert all(bound.holds for bound in rate.bounds(name, both="mass" in name))
