"""Rules on the mechanism, and where a loss lies, against planted reports."""

from __future__ import annotations

import pytest

from diffharness.regression import words
from diffharness.regression.mechanism import decide_contributions, decide_quality, decide_specific, why
from diffharness.regression.policy import ContributionRule, SpecificLimit
from diffharness.report.schema import CategoryShift, Component, Interval, Report, Task
from tests.report.example import example_report


@pytest.fixture(scope="module")
def report() -> Report:
    return example_report()


def _lost(report: Report) -> Task:
    return next(t for t in report.tasks if t.verdict == "regressed" and t.surrogate is not None and t.surrogate.tracks)


def _part(
    kind: str, value: float, half: float, category: str | None = None, origin: str | None = "written"
) -> Component:
    return Component.model_validate({
        "kind": kind, "origin": origin, "category": category, "contribution": value, "contribution_raw": value,
        "interval": Interval(low=value - half, high=value + half), "share": None, "p_value": None, "q_value": None,
    })  # fmt: skip


def _with(report: Report, *components: Component) -> Report:
    """The report with one task, whose account is planted."""
    task = _lost(report)
    assert task.surrogate is not None
    gap = sum(c.contribution for c in components)
    surrogate = task.surrogate.model_copy(update={"gap": gap, "unit": "probability"})
    task = task.model_copy(update={"components": components, "surrogate": surrogate})
    return report.model_copy(update={"tasks": (task,)})


PLANTED = (
    _part("latents", -0.20, 0.02, "safety"),
    _part("latents", -0.10, 0.02, "safety", "read"),
    _part("latents", -0.04, 0.01, "facts"),
    _part("latents", 0.07, 0.01, "arithmetic"),
    _part("bias", -0.01, 0.001),
    _part("error", -0.02, 0.001),
    _part("error", 0.005, 0.001, None, "read"),
    _part("prior", -0.03, 0.001, None, "read"),
)


def test_costs_are_the_two_worst_categories_with_both_origins(report: Report) -> None:
    found = why(_with(report, *PLANTED), _lost(report).task)
    assert [(c.category, round(c.contribution, 9)) for c in found.costs] == [("safety", -0.3), ("facts", -0.04)]
    interval = found.costs[0].interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-0.34, -0.26))


def test_a_loss_is_split_by_what_carries_it_and_adds_up(report: Report) -> None:
    planted = _with(report, *PLANTED)
    task = planted.tasks[0]
    template = report.latents[0]
    latents = tuple(
        template.model_copy(update={
            "index": i, "status": status, "contributions": {task.task: value}, "read": {task.task: read},
        })
        for i, (status, value, read) in enumerate([
            ("baseline-specific", -0.18, -0.03), ("candidate-specific", -0.02, 0.0), ("shared", -0.07, -0.07),
        ])
    )  # fmt: skip
    carried = why(planted.model_copy(update={"latents": latents}), task.task).carried
    assert carried is not None
    assert carried.specific_latents == pytest.approx(-0.17)
    assert carried.other_latents == pytest.approx(-0.27 + 0.17)
    assert carried.error == pytest.approx(-0.025)
    assert carried.upper == pytest.approx(-0.03)
    assert task.surrogate is not None
    total = carried.specific_latents + carried.other_latents + carried.error + carried.upper
    assert total == pytest.approx(task.surrogate.gap)
    assert carried.sentence.startswith("mostly carried by latents specific to one of the models: −0.170 of −0.325")


def test_the_candidates_own_chat_template_is_a_part_of_its_own_of_a_loss(report: Report) -> None:
    planted = _with(report, *PLANTED[:4], _part("prompt", -0.6, 0.01))
    carried = why(planted, planted.tasks[0].task).carried
    assert carried is not None
    assert (carried.prompt, carried.upper) == (pytest.approx(-0.6), 0.0)
    assert carried.sentence.startswith("mostly carried by the candidate's own chat template in place of the baseline's")
    assert "own chat template −0.600" in words.carried(carried)
    without = why(report, _lost(report).task).carried
    assert without is not None
    assert without.prompt == 0
    assert "chat template" not in words.carried(without)


def test_every_account_of_the_example_adds_up_to_its_surrogates_gap(report: Report) -> None:
    seen = 0
    for task in report.tasks:
        carried = why(report, task.task).carried
        if carried is not None and task.surrogate is not None:
            total = carried.specific_latents + carried.other_latents + carried.error + carried.upper
            assert total == pytest.approx(task.surrogate.gap, abs=(task.completeness or 0) + 1e-9)
            seen += 1
    assert seen >= 5


def test_flipped_documents_went_wrong(report: Report) -> None:
    task = _lost(report)
    scores = {d.doc_id: (d.baseline_score, d.candidate_score) for d in task.documents}
    found = why(report, task.task).flipped
    assert len(found) == min(3, sum(after < before for before, after in scores.values()))
    assert all(scores[d.doc_id][1] < scores[d.doc_id][0] for d in found)


def test_where_the_surrogate_does_not_track_there_is_a_reason_and_no_cause(report: Report) -> None:
    task = _lost(report)
    assert task.surrogate is not None
    loose = task.surrogate.model_copy(update={"tracks": False, "tracks_reason": "they rank apart"})
    found = why(report.model_copy(update={"tasks": (task.model_copy(update={"surrogate": loose}),)}), task.task)
    assert (found.costs, found.carried) == ((), None)
    assert found.reason is not None
    assert "they rank apart" in found.reason
    withheld = report.validation.model_copy(update={"mechanism_withheld": "replay differs"})
    found = why(report.model_copy(update={"validation": withheld}), task.task)
    assert found.reason is not None
    assert "replay differs" in found.reason
    assert found.carried is None
    assert why(report, "none such").reason == "the run's report has no account of none such"


@pytest.mark.parametrize(
    ("category", "least", "verdict"),
    [
        ("safety", -0.01, "regression"),
        ("safety", -0.28, "likely regression"),
        ("safety", -0.5, "pass"),
        ("facts", -0.05, "pass"),
        ("facts", -0.035, "likely regression"),
        ("arithmetic", 0.05, "pass"),
        ("arithmetic", 0.1, "regression"),
        ("arithmetic", 0.07, "inconclusive"),
        ("self-reference", -0.01, "inconclusive"),
    ],
)
def test_a_categorys_contribution_is_held_against_the_least(
    report: Report, category: str, least: float, verdict: str
) -> None:
    rule = ContributionRule(category=category, min_contribution=least)
    (found,) = decide_contributions(_with(report, *PLANTED), [rule])
    assert found.verdict == verdict
    assert (found.kind, found.category) == ("contribution", category)


def test_where_less_is_better_a_rise_is_the_cost(report: Report) -> None:
    planted = _with(report, _part("latents", 0.05, 0.01, "safety"))
    task = planted.tasks[0]
    assert task.surrogate is not None
    surrogate = task.surrogate.model_copy(update={"unit": "bits per byte"})
    planted = planted.model_copy(update={"tasks": (task.model_copy(update={"surrogate": surrogate}),)})
    (found,) = decide_contributions(planted, [ContributionRule(category="safety", min_contribution=-0.01)])
    assert found.verdict == "regression"
    assert found.difference == pytest.approx(-0.05)
    assert why(planted, task.task).costs[0].contribution == pytest.approx(0.05)


def test_all_matches_of_all_rules_are_corrected_together(report: Report) -> None:
    wide = (_part("latents", -0.03, 0.0332, "safety"),)  # p = 0.038 of no cost, by itself
    one = _with(report, *wide)
    rule = ContributionRule(category="safety", min_contribution=-0.01)
    assert decide_contributions(one, [rule])[0].verdict == "likely regression"
    tasks = tuple(one.tasks[0].model_copy(update={"task": f"task {i}"}) for i in range(2))
    both = decide_contributions(one.model_copy(update={"tasks": tasks}), [rule])
    assert [found.verdict for found in both] == ["inconclusive", "inconclusive"]
    assert len(decide_contributions(one, [rule.model_copy(update={"task": "nothing*"})])) == 0


def _shift(n_baseline: int, n_candidate: int, total: int = 200) -> CategoryShift:
    return CategoryShift(
        name="safety", n_baseline=n_baseline, n_candidate=n_candidate, total_baseline=total, total_candidate=total,
        mass_baseline=0.1, mass_candidate=0.1, change=None, change_reason="planted", interval=None, p_value=None,
        q_value=None, protocol="three-way", conclusion="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("n_baseline", "n_candidate", "side", "verdict"),
    [
        (90, 10, "baseline", "regression"),
        (10, 90, "baseline", "pass"),
        (10, 90, "candidate", "regression"),
        (40, 22, "baseline", "likely regression"),
        (100, 100, "baseline", "pass"),
        (2, 1, "baseline", "inconclusive"),
        (0, 0, "candidate", "pass"),
        (30, 0, "baseline", "regression"),
    ],
)
def test_specific_latents_may_exceed_the_other_sides_by_so_much(
    report: Report, n_baseline: int, n_candidate: int, side: str, verdict: str
) -> None:
    limit = SpecificLimit.model_validate({"side": side, "change": "50%"})
    planted = report.model_copy(update={"categories": (_shift(n_baseline, n_candidate),)})
    (found,) = decide_specific(planted, {"safety": limit})
    assert found.verdict == verdict, found.sentence
    (absent,) = decide_specific(planted, {"facts": limit})
    assert absent.verdict == "inconclusive"


def test_the_crosscoder_has_to_explain_what_is_asked_of_the_worse_model(report: Report) -> None:
    least = min(v for row in report.quality if "candidate" in row.models for v in row.explained_variance.values())
    assert decide_quality(report, 0.0).verdict == "pass"
    found = decide_quality(report, 0.9999)
    assert found.verdict == "regression"
    assert "0.9999 is asked for" in found.sentence
    assert least <= 1
