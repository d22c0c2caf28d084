from __future__ import annotations

from typing import Any

from diffharness.report.glossary import GLOSSARY, anchor
from diffharness.report.numbers import signed
from diffharness.report.schema import Claim, Component, CorpusSource, Interval, Report, Task
from diffharness.report.words import account_sentence, check_word, corpus_sentence, headline, verdict_reason

CAUSE = "safety latents are a cause: without their change the candidate scores 0.806, not 0.960"


def _with_check(task: Task, **changes: Any) -> Task:
    """The task with the exact check of what its leading category writes changed."""

    def changed(component: Component) -> Component:
        if component.ablation is None or component.origin != "written":
            return component
        return component.model_copy(update={"ablation": component.ablation.model_copy(update=changes)})

    return task.model_copy(update={"components": tuple(changed(c) for c in task.components)})


def _claim(report: Report, task: Task, origin: str) -> Claim:
    return next(c for c in report.claims if (c.task, c.category, c.origin) == (task.task, "safety", origin))


def test_headline_counts_verdicts_and_names_the_category_that_carries_most(report: Report) -> None:
    said = headline(report)
    assert "6 of 10 tasks changed: 4 improved and 2 regressed (no change in 2, inconclusive in 2)" in said
    assert "safety carries most (+0.274 of +0.428 in organism_safety)" in said


def test_headline_without_a_change_explains_nothing(report: Report) -> None:
    null = report.model_copy(update={"tasks": report.tasks[5:8]})
    assert headline(null) == "No gap to explain in 3 tasks: no change in 2, inconclusive in 1."
    assert headline(report.model_copy(update={"tasks": ()})) == "No task was evaluated."


def test_headline_of_a_withheld_mechanism_names_no_category(report: Report) -> None:
    withheld = report.validation.model_copy(update={"mechanism_withheld": "replay does not hold"})
    said = headline(report.model_copy(update={"validation": withheld}))
    assert "withheld" in said
    assert "safety" not in said


def test_the_parts_of_a_sentence_are_of_both_origins_together(report: Report) -> None:
    task = report.tasks[0]
    own = {c.origin: c.contribution for c in task.components if c.category == "safety"}
    assert own.keys() == {"written", "read"}
    assert f"safety latents carry {signed(own['written'] + own['read'])} (64\u00a0%)" in account_sentence(task)


def test_a_part_is_a_cause_only_where_the_exact_check_agrees_and_its_claim_beat_random_sets(report: Report) -> None:
    task = report.tasks[0]
    assert CAUSE in account_sentence(task, report.claims)
    opposite = _with_check(task, change=-0.1, interval=Interval(low=-0.2, high=-0.01))
    assert "does not agree" in account_sentence(opposite, report.claims)
    assert "so they are not called a cause" in account_sentence(opposite, report.claims)
    unsure = _with_check(task, interval=Interval(low=-0.1, high=0.3))
    assert "holds 0" in account_sentence(unsure, report.claims)
    for other in (opposite, unsure):
        assert "are a cause" not in account_sentence(other, report.claims)
    written = [next(c for c in t.components if c.category == "safety") for t in (task, opposite, unsure)]
    assert [check_word(t, c) for t, c in zip((task, opposite, unsure), written, strict=True)] == [
        "agrees",
        "does not agree",
        "same sign, holds 0",
    ]


def test_a_candidate_in_its_own_template_is_checked_as_it_scores_in_the_baselines(report: Report) -> None:
    task = report.tasks[0]
    written = next(c for c in task.components if c.ablation is not None)
    assert written.ablation is not None
    own = {"kind": "prompt", "origin": None, "category": None, "contribution": 0.2}
    check = written.ablation.model_copy(update={"score": 0.8125})
    asked_twice = task.model_copy(update={
        "components": (*task.components, written.model_copy(update={**own, "ablation": check})),
    })  # fmt: skip
    assert CAUSE.replace("not 0.960", "not 0.812") in account_sentence(asked_twice, report.claims)
    assert "the candidate's own chat template in place of the baseline's +0.200" in account_sentence(asked_twice)


def test_a_part_without_a_causal_claim_of_what_it_writes_there_is_no_cause(report: Report) -> None:
    task = report.tasks[0]
    own = _claim(report, task, "written")
    others: tuple[Claim, ...] = (
        own.model_copy(update={"task": "another"}),
        own.model_copy(update={"category": "facts"}),
        own.model_copy(update={"origin": "read"}),
    )
    for claims in ((), others):
        said = account_sentence(task, claims)
        assert "whether random latents do as much was not tried" in said
        assert "cause" not in said
    failed = own.model_copy(update={"is_causal": False, "words": "contributes; a random set does as much"})
    said = account_sentence(task, (*others, failed))
    assert "not called a cause: a random set does as much." in said
    assert "are a cause" not in said


def test_every_task_called_a_cause_in_the_example_has_its_claim(report: Report) -> None:
    causal = {claim.task for claim in report.claims if claim.is_causal and claim.origin == "written"}
    called = {task.task for task in report.tasks if "are a cause" in account_sentence(task, report.claims)}
    assert called == causal == {"organism_safety", "organism_multilingual", "organism_self_reference"}


def test_what_is_written_against_the_gap_is_said_to_work_against_it_whatever_is_read(report: Report) -> None:
    task = report.tasks[0]
    assert task.surrogate is not None
    written = {"contribution": -0.2, "share": -0.2 / task.surrogate.gap}

    def turned(component: Component) -> Component:
        if component.category != "safety":
            return component
        update = written if component.origin == "written" else {"contribution": 0.3, "share": 0.7}
        return component.model_copy(update=update)

    against = task.model_copy(update={"components": tuple(turned(c) for c in task.components)})
    against = _with_check(against, score=0.99, change=-0.03, interval=Interval(low=-0.05, high=-0.01))
    said = account_sentence(against, report.claims)
    assert "safety latents work against the gap: without their change the candidate scores 0.990" in said
    assert "are a cause" not in said


def test_the_check_is_compared_against_its_own_gap_where_metric_and_surrogate_point_apart(report: Report) -> None:
    task = report.tasks[0]
    perplexity = _with_check(
        task.model_copy(update={"gap": -task.gap, "higher_is_better": False}),
        change=-0.2,
        interval=Interval(low=-0.3, high=-0.1),
    )
    assert "are a cause" in account_sentence(perplexity, report.claims)


def test_nothing_causal_is_said_where_the_surrogate_does_not_track(report: Report) -> None:
    task = next(t for t in report.tasks if t.task == "organism_safety_multilingual")
    forced = tuple(c.model_copy(update={"is_causal": True}) for c in report.claims if c.task == task.task)
    assert forced
    said = account_sentence(task, forced)
    assert "does not track exact_match" in said
    assert "say nothing about what caused" in said
    assert "carr" not in said


def test_there_is_no_gap_to_explain_without_a_real_gap(report: Report) -> None:
    said = {t.task: account_sentence(t) for t in report.tasks}
    assert said["organism_facts"].startswith("There is no gap to explain")
    assert said["organism_arithmetic"].startswith("There is no gap to explain")
    assert "cut at different places" in said["organism_instructions_self"]


def test_verdicts_say_why(report: Report) -> None:
    reasons = {t.task: verdict_reason(t, 0.02) for t in report.tasks}
    assert "excludes 0" in reasons["organism_safety"]
    assert "within ±0.020" in reasons["organism_facts"]
    assert "holds 0" in reasons["organism_arithmetic"]


def test_words_have_anchors_of_their_own() -> None:
    assert len({anchor(word) for word in GLOSSARY}) == len(GLOSSARY)


def test_a_loaded_crosscoder_is_not_said_to_be_trained_on_the_runs_texts(report: Report) -> None:
    source = CorpusSource(source="stories.jsonl", n_documents=2, n_sequences=2, n_tokens=1200, share=1.0)
    report = report.model_copy(update={"corpus": (source,)})
    assert (corpus_sentence(report) or "").startswith("crosscoder trained on 1,200 tokens of stories.jsonl")
    first, *others = report.quality
    loaded = report.model_copy(update={"quality": (first.model_copy(update={"source": "loaded from cc"}), *others)})
    assert (corpus_sentence(loaded) or "").startswith("crosscoder loaded, and measured on 1,200 tokens of stories")
