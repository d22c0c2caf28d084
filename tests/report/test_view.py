from __future__ import annotations

import itertools

import pytest

from diffharness.report.schema import Report
from diffharness.report.view import by_severity, heat, parts, strongest, waterfall, weight_of


def test_waterfall_leads_from_the_baseline_to_the_candidate(report: Report) -> None:
    for task in report.tasks:
        if task.surrogate is None:
            continue
        steps = waterfall(task)
        bars = [step for step in steps if step.contribution is not None]
        assert sum(step.contribution or 0 for step in bars) == pytest.approx(task.surrogate.gap, abs=1e-9)
        assert bars[0].start == steps[0].end == task.surrogate.baseline
        assert bars[-1].end == pytest.approx(steps[-1].end)
        for before, after in itertools.pairwise(bars):
            assert after.start == pytest.approx(before.end)


def test_a_waterfall_with_too_many_bars_adds_up_the_smallest(report: Report) -> None:
    task = report.tasks[0]
    steps = waterfall(task, limit=7)
    assert len(steps) == 7 + 2
    assert steps[1].label == "safety"
    assert sum("smaller" in step.label for step in steps) == 1
    assert sum(step.contribution or 0 for step in steps) == pytest.approx(task.surrogate.gap if task.surrogate else 0)


def test_a_task_without_an_account_has_no_waterfall(report: Report) -> None:
    with pytest.raises(ValueError, match="organism_instructions_self"):
        waterfall(report.tasks[-1])


def test_tasks_are_ordered_by_severity(report: Report) -> None:
    verdicts = [task.verdict for task in by_severity(report.tasks)]
    assert verdicts == sorted(verdicts, key=["regressed", "improved", "inconclusive", "no change"].index)


def test_parts_add_the_origins_of_a_category(report: Report) -> None:
    task = report.tasks[0]
    written, read = (
        next(c for c in task.components if (c.category, c.origin) == ("safety", origin))
        for origin in ("written", "read")
    )
    part = next(p for p in parts(task) if p.category == "safety")
    assert part.members == (written, read)
    assert part.contribution == pytest.approx(written.contribution + read.contribution)
    assert part.share == pytest.approx((written.share or 0) + (read.share or 0))
    assert len([p for p in parts(task) if p.kind == "error"]) == 1


def test_the_example_is_an_account(report: Report) -> None:
    """Components add up to the gap, interactions to nothing: what the example must share with every real report."""
    for task in report.tasks:
        if task.surrogate is None:
            assert task.account_reason
            continue
        assert sum(c.contribution for c in task.components) == pytest.approx(task.surrogate.gap)
        assert sum(c.interaction or 0.0 for c in task.components) == pytest.approx(0.0)
        written = sum(c.interaction or 0.0 for c in task.components if c.origin == "written")
        assert task.interaction == pytest.approx(written)
        kinds = {(c.kind, c.origin) for c in task.components}
        latents = {("latents", "written"), ("latents", "read")}
        assert kinds == latents | {("bias", "written"), ("error", "written"), ("error", "read"), ("prior", None)}


def test_the_heat_map_shades_only_gaps_that_are_explained(report: Report) -> None:
    heated = heat(report)
    assert heated is not None
    for task, row in zip(heated.tasks, heated.shades, strict=True):
        explained = task.verdict in ("improved", "regressed") and task.surrogate is not None and task.surrogate.tracks
        assert any(row) == explained
        assert all(-1 <= shade <= 1 for shade in row)


def test_latents_are_ordered_by_absolute_contribution(report: Report) -> None:
    weights = [weight_of(latent) for latent in strongest(report.latents)]
    assert weights == sorted(weights, reverse=True)
