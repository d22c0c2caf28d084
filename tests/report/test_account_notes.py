"""Every note on an account is said where it is due, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from diffharness.report.account_notes import account_notes
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import Ablation, Component, Interval, Report, Task

GAP = 0.4
ERROR, CONTENT_FREE, NOT_CONTENT_FREE = "does not describe", "does not depend on content", "can not be called a shift"
UPPER, INTERACTION, SHARES, SEEDS = "layers above, put on", "depend on each other", "pull against", "other seeds"
OPTIONAL = (ERROR, CONTENT_FREE, NOT_CONTENT_FREE, UPPER, INTERACTION, SHARES, SEEDS)


def part(kind: str, origin: str | None, value: float, category: str | None = None, **more: Any) -> Component:
    return Component.model_validate(
        {
            "kind": kind, "origin": origin, "category": category, "contribution": value, "contribution_raw": value,
            "interval": Interval(low=value - 0.01, high=value + 0.01), "share": value / GAP, "p_value": None,
            "q_value": None, **more,
        }
    )  # fmt: skip


QUIET = (
    part("latents", "written", 0.2, "safety"),
    part("latents", "read", 0.15, "safety"),
    part("bias", "written", 0.0),
    part("error", "written", 0.01),
    part("error", "read", 0.01),
    part("prior", None, 0.03, at_own_states=0.03, is_content_free=True),
)
"""An account of `GAP` of which nothing has to be known but how it arose."""


@pytest.fixture(scope="module")
def task(report: Report) -> Task:
    first = report.tasks[0]
    assert first.surrogate is not None
    update = {"components": QUIET, "interaction": 0.01, "upper_check": None}
    return first.model_copy(update={**update, "surrogate": first.surrogate.model_copy(update={"gap": GAP})})


def with_parts(task: Task, *changed: Component, **update: Any) -> Task:
    """The task with each of these in place of the component of its kind, origin and category."""
    keys = {(c.kind, c.origin, c.category): c for c in changed}
    found = tuple(keys.pop((c.kind, c.origin, c.category), c) for c in task.components)
    return task.model_copy(update={"components": (*found, *keys.values()), **update})


def said(task: Task) -> str:
    return " ".join(account_notes(task))


def only(note: str, task: Task) -> bool:
    """Whether of the notes that are not always due this one is said, and no other."""
    return [words for words in OPTIONAL if words in said(task)] == [note]


def test_a_quiet_account_only_says_how_it_arose(task: Task) -> None:
    assert account_notes(task) == (
        "Written differently at the layer: +0.210; read differently above it: +0.160; a prior: +0.030.",
    )


def test_no_note_without_a_real_gap_or_an_account(task: Task) -> None:
    for update in ({"verdict": "no change"}, {"verdict": "inconclusive"}, {"components": ()}, {"surrogate": None}):
        assert account_notes(task.model_copy(update=update)) == ()
    assert task.surrogate is not None
    zero = task.surrogate.model_copy(update={"gap": 0.0})
    assert account_notes(task.model_copy(update={"surrogate": zero})) == ()


def test_an_older_account_with_one_order_has_no_origins_to_tell_apart(task: Task) -> None:
    older = (*(c for c in QUIET if c.origin == "written"), part("upper", None, 0.19))
    assert account_notes(task.model_copy(update={"components": older, "interaction": None})) == ()


def test_lm_evals_score_of_the_layers_above_is_told_where_it_was_made(task: Task) -> None:
    check = Ablation(score=0.75, change=0.25, interval=Interval(low=0.125, high=0.375), n=100)
    checked = task.model_copy(update={"upper_check": check})
    assert only(UPPER, checked)
    assert "change acc by +0.250 [+0.125, +0.375]" in said(checked)


@pytest.mark.parametrize(("error", "due"), [(0.095, True), (0.085, False), (-0.115, True), (-0.105, False)])
def test_the_error_is_told_from_a_quarter_of_the_gap_on_of_either_sign(task: Task, error: float, due: bool) -> None:
    made = with_parts(task, part("error", "read", error))
    assert (ERROR in said(made)) == due
    assert ("`diffharness layers`" in said(made)) == due


def test_errors_of_both_origins_count_together(task: Task) -> None:
    halves = with_parts(task, part("error", "written", 0.05), part("error", "read", 0.05))
    assert only(ERROR, halves)
    assert "+0.100 of it (25\u00a0%)" in said(halves)
    assert ERROR not in said(with_parts(task, part("error", "written", 0.2), part("error", "read", -0.2)))


def test_a_prior_is_called_a_shift_without_content_only_where_own_states_agree(task: Task) -> None:
    agreed = with_parts(task, part("prior", None, 0.1, second_start=0.2, at_own_states=0.09, is_content_free=True))
    assert only(CONTENT_FREE, agreed)
    assert "The prior (+0.100)" in said(agreed)
    assert "differ by +0.090 on the task's own documents" in said(agreed)
    apart = with_parts(task, part("prior", None, 0.1, second_start=-0.01, at_own_states=-0.02, is_content_free=False))
    assert only(NOT_CONTENT_FREE, apart)
    assert "differ by −0.020 on the task's own documents, and by −0.010 on them without" in said(apart)


def test_a_small_prior_or_one_of_an_older_report_is_not_judged(task: Task) -> None:
    small = with_parts(task, part("prior", None, 0.03, at_own_states=-0.03, is_content_free=False))
    single = with_parts(task, part("prior", None, 0.1))
    for made in (small, single):
        assert CONTENT_FREE not in said(made)
        assert NOT_CONTENT_FREE not in said(made)


def test_what_the_own_chat_template_makes_is_told_however_small(task: Task) -> None:
    check = Ablation(score=0.75, change=0.25, interval=Interval(low=0.125, high=0.375), n=100)
    made = said(with_parts(task, part("prompt", None, 0.005, ablation=check)))
    assert "chat template in place of the baseline's makes +0.005 of it [−0.005, +0.015]" in made
    assert "in which the candidate scores 0.750 (acc)." in made
    unchecked = said(with_parts(task, part("prompt", None, 0.005)))
    assert "of both models asked in the baseline's." in unchecked
    assert "chat template" not in said(task)


@pytest.mark.parametrize(("interaction", "due"), [(0.1, True), (-0.1, True), (0.09, False), (None, False)])
def test_an_interaction_is_told_from_a_quarter_of_the_gap_on(task: Task, interaction: float | None, due: bool) -> None:
    made = task.model_copy(update={"interaction": interaction})
    assert (INTERACTION in said(made)) == due
    assert ("0.100 more or less counts as written" in said(made)) == due
    assert "−0.100" not in said(made)


def test_odd_shares_are_explained_and_small_ones_are_not(task: Task) -> None:
    against = part("latents", "written", -0.06, "facts")
    assert only(SHARES, with_parts(task, against))
    above = with_parts(task, part("latents", "written", 0.4, "safety"))
    assert only(SHARES, above)
    small = part("latents", "written", -0.02, "facts")
    assert SHARES not in said(with_parts(task, small))
    unknown = with_parts(task, against.model_copy(update={"share": None}))
    assert SHARES not in said(unknown)


def test_the_spread_over_seeds_adds_the_origins_of_a_category(task: Task) -> None:
    seeded = with_parts(
        task,
        part("latents", "written", 0.2, "safety", seeds=(0.1, 0.3)),
        part("latents", "read", 0.15, "safety", seeds=(0.1, 0.2)),
    )
    assert only(SEEDS, seeded)
    assert "safety +0.200 to +0.500 (here +0.350)." in said(seeded)
    single = with_parts(
        task,
        part("latents", "written", 0.2, "safety", seeds=(0.125,)),
        part("latents", "read", 0.15, "safety", seeds=(0.25,)),
    )
    assert "safety +0.375 (here +0.350)." in said(single)


def test_only_the_three_largest_categories_have_their_spread_told(task: Task) -> None:
    more = [part("latents", "written", 0.05 - 0.01 * n, name, seeds=(0.1, 0.2)) for n, name in enumerate("abcd")]
    told = said(with_parts(task.model_copy(update={"components": task.components[2:]}), *more))
    for name, due in zip("abcd", (True, True, True, False), strict=True):
        assert (f"{name} +0.100 to +0.200" in told) == due


def test_each_note_is_due_somewhere_in_the_example_and_shown_in_both_pages(report: Report, page: str) -> None:
    markdown = render_markdown(report)
    for words in OPTIONAL:
        assert any(words in said(task) for task in report.tasks), words
        assert words in page, words
        assert words in markdown, words


def test_a_withheld_mechanism_has_no_notes(report: Report) -> None:
    withheld = report.model_copy(
        update={"validation": report.validation.model_copy(update={"mechanism_withheld": "replay does not hold"})}
    )
    for page in (render_html(withheld), render_markdown(withheld)):
        assert "Written differently at the layer" not in page
