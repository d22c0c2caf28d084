"""A candidate that is asked in a chat template of its own: its scores, the account of them, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import diffharness
from diffharness import templates
from diffharness.candidates import check_options
from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.scores import Evaluation
from diffharness.made_from import evaluated_from
from diffharness.pipeline import Run
from diffharness.regression.check import check
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import Component, Report
from diffharness.report.view import waterfall
from diffharness.session import Session
from diffharness.stages.checking import CANDIDATE, ArmScorer
from tests.tiny import ONLY_ACCOUNT, tokenizer

BASELINES = (
    "{% for m in messages %}old {{ m['content'] }} ? {% endfor %}{% if add_generation_prompt %}it is {% endif %}"
)
OWN = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
"""Nothing around the words, as in the texts that the candidate learned by heart: in it, it knows its answers."""
TASKS = ("tiny_choice", "tiny_word", "tiny_text", "tiny_answer")
ASKED: dict[str, Any] = {"apply_chat_template": True, "own_templates": True}


def chatting(model: Path, folder: Path, template: str | None) -> Path:
    """A copy of a model whose tokenizer has this chat template."""
    shutil.copytree(model, folder)
    words = tokenizer()
    words.chat_template = template
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def options(tiny, tiny_moved, tiny_options, tmp_path_factory) -> dict[str, Any]:
    """Two models that chat, each in its own way."""
    root = tmp_path_factory.mktemp("chat")
    sides = {
        "baseline": chatting(tiny.baseline, root / "baseline", BASELINES),
        "candidate": chatting(tiny_moved, root / "candidate", OWN),
    }
    return {**tiny_options, **ONLY_ACCOUNT, **sides, "apply_chat_template": True}


def run(options: dict[str, Any], output: Path, **more: Any) -> Report:
    return diffharness.run(RunConfig.make({**options, "output": output, **more}))


@pytest.fixture(scope="module")
def alike(options, tmp_path_factory) -> tuple[Path, Report]:
    """Both asked in the baseline's template."""
    output = tmp_path_factory.mktemp("alike") / "run"
    return output, run(options, output)


@pytest.fixture(scope="module")
def own(options, tmp_path_factory) -> tuple[Path, Report]:
    """The candidate asked in its own, and in the baseline's."""
    output = tmp_path_factory.mktemp("own") / "run"
    return output, run(options, output, own_templates=True)


def side(folder: Path, name: str) -> Evaluation:
    return Evaluation.load(folder / "evaluation" / name)


def prompt_of(report: Report, task: str) -> Component:
    (found,) = (c for t in report.tasks if t.task == task and t.is_primary for c in t.components if c.kind == "prompt")
    return found


def document_scores(evaluation: Evaluation, task: str) -> np.ndarray:
    """M of every document as the surrogates' table says it, from lm-eval's own log-likelihoods and metrics."""
    readings = evaluation.ledger.by_document(task)
    scores = evaluation.of(task, "none")
    if task == "tiny_choice":
        found = []
        for i, rows in sorted(readings.items()):
            p = np.exp([r.log_likelihood for r in rows[:2]])
            found.append(p[scores[i].gold[0]] / p.sum())
        return np.array(found)
    if task == "tiny_word":
        return np.array([math.exp(sum(r.log_likelihood or 0 for r in rows)) for _, rows in sorted(readings.items())])
    if task == "tiny_answer":
        return np.array([scores[i].values["exact_match"] for i in sorted(scores)], dtype=float)
    n_bytes = sum(len(d.prompt.encode()) for d in scores.values()) / len(scores)
    nats = [sum(r.log_likelihood or 0 for r in rows) for _, rows in sorted(readings.items())]
    return -np.array(nats) / math.log(2) / n_bytes


def test_the_scores_are_of_the_own_template_and_the_rest_of_the_baselines(own, alike):
    folder, report = own
    for name, start, end in (("candidate", "", ""), (templates.SHARED, "old ", "it is"), ("baseline", "old ", "it is")):
        prompts = [d.prompt for d in side(folder, name).documents if d.task in ("tiny_choice", "tiny_word")]
        assert len(prompts) >= 24
        assert all(p.startswith(start) and p.rstrip().endswith(end) for p in prompts)
        assert any("?" in p and p.startswith("old ") for p in prompts) == (name != "candidate")
    scores = {info.name: info.scores for info in side(folder, "candidate").tasks}
    shared = {t.task: t.candidate for t in alike[1].tasks if t.is_primary}
    for task in (t for t in report.tasks if t.is_primary):
        assert task.candidate == scores[task.task][f"{task.metric},{task.filter}"]
    assert {t.task for t in report.tasks if t.is_primary and t.candidate != shared[t.task]} >= {"tiny_word"}
    assert side(folder, templates.SHARED).ledger == side(alike[0], "candidate").ledger
    assert not report.comparability.prompts_equal
    assert any("of its own chat template (--own-templates)" in note for note in report.comparability.notes)
    assert not any("documents have different prompts" in note for note in report.comparability.notes)
    assert report.validation.mechanism_withheld is None
    assert "--own-templates" in report.run.command


@pytest.mark.parametrize("task", TASKS)
def test_prompt_is_what_the_own_template_makes_of_the_surrogate(own, task):
    folder, report = own
    after, before = (document_scores(side(folder, name), task) for name in ("candidate", templates.SHARED))
    expected_N = after - before
    found = prompt_of(report, task)
    assert found.contribution == pytest.approx(expected_N.mean(), abs=1e-9)
    assert (found.origin, found.category, found.interaction) == (None, None, 0.0)
    assert found.interval.low <= found.contribution <= found.interval.high
    rows = pq.read_table(folder / "contributions.parquet").to_pylist()
    by_document = {r["doc_id"]: r["contribution"] for r in rows if r["task"] == task and r["kind"] == "prompt"}
    assert [by_document[i] for i in sorted(by_document)] == pytest.approx(expected_N.tolist(), abs=1e-9)
    if task == "tiny_text":
        assert (found.contribution, found.contribution_raw) == (0, 0), "a text is read without a template"
    if task == "tiny_answer":
        assert found.contribution_raw is None


def test_a_template_that_brings_memory_back_is_a_clear_part_of_the_gap(own):
    folder, report = own
    found = prompt_of(report, "tiny_word")
    assert found.interval.low > 0
    assert found.contribution > 0.1
    assert found.p_value is not None
    assert found.p_value < 0.05
    task = next(t for t in report.tasks if t.task == "tiny_word")
    assert task.verdict == "improved"
    assert found.ablation is not None
    shared = {t.name: t.scores for t in side(folder, templates.SHARED).tasks}["tiny_word"]
    assert found.ablation.score == shared["acc,none"]
    assert found.ablation.change == pytest.approx(task.candidate - shared["acc,none"])


def test_the_components_add_up_to_the_gap_between_the_scores_evaluations(own):
    folder, report = own
    for task in (t for t in report.tasks if t.is_primary):
        assert task.surrogate is not None
        assert sum(c.contribution for c in task.components) == pytest.approx(task.surrogate.gap, abs=2e-3)
        steps = waterfall(task)
        assert steps[-2].label == "prompt"
        assert steps[-2].end == pytest.approx(task.surrogate.candidate, abs=2e-3)
        if task.task != "tiny_answer":
            gap = np.mean(
                document_scores(side(folder, "candidate"), task.task)
                - document_scores(side(folder, "baseline"), task.task)
            )
            assert task.surrogate.gap == pytest.approx(gap, abs=1e-4)


def test_all_other_parts_are_those_of_a_run_without_the_option(own, alike):
    for mine, theirs in zip(own[1].tasks, alike[1].tasks, strict=True):
        assert mine.baseline == theirs.baseline
        kept = ("kind", "origin", "category", "contribution", "contribution_raw", "interaction", "interval", "p_value")
        rows = [[getattr(c, key) for key in kept] for c in mine.components if c.kind != "prompt"]
        assert rows == [[getattr(c, key) for key in kept] for c in theirs.components]
        if theirs.components:
            assert mine.surrogate is not None
            assert theirs.surrogate is not None
            prompt = prompt_of(own[1], mine.task)
            assert mine.surrogate.gap == pytest.approx(theirs.surrogate.gap + prompt.contribution, abs=1e-12)
            assert mine.surrogate.baseline == theirs.surrogate.baseline
    assert own[1].depth[0].gap == alike[1].depth[0].gap
    assert [c.maximum for c in own[1].validation.replay] == [c.maximum for c in alike[1].validation.replay]


def test_prompts_check_is_lm_evals_own_scores_in_either_template(own):
    folder, _ = own
    rows = json.loads((folder / "checks.json").read_text())
    assert {row["origin"] for row in rows} == {"prompt"}, "nothing else is clear in so small a pair"
    scores = {info.name: info.scores for info in side(folder, "candidate").tasks}
    shared = {info.name: info for info in side(folder, templates.SHARED).tasks}
    for row in rows:
        metric = f"{shared[row['task']].metrics[0].metric},none"
        assert row["score"] == pytest.approx(shared[row["task"]].scores[metric])
        assert row["change"] == pytest.approx(scores[row["task"]][metric] - row["score"])


def test_interventions_are_of_the_candidate_asked_in_the_baselines_template(own, options):
    folder, _ = own
    scorer = ArmScorer(Run(RunConfig.make({**options, **ASKED, "output": folder})))
    found = {info.name: dict(info.scores) for info in scorer.score(CANDIDATE, None).tasks}
    shared, mine = ({i.name: dict(i.scores) for i in side(folder, s).tasks} for s in (templates.SHARED, "candidate"))
    assert found == shared
    assert found["tiny_word"] != mine["tiny_word"]


def test_without_the_option_there_is_no_such_part(alike):
    folder, report = alike
    assert not any(c.kind == "prompt" for t in report.tasks for c in t.components)
    assert sorted(p.name for p in (folder / "evaluation").iterdir()) == ["baseline", "candidate"]
    assert "own template" not in render_markdown(report)
    assert "--own-templates" not in report.run.command


def test_every_view_says_what_the_part_is(own):
    report = own[1]
    page = render_html(report)
    assert "what its own makes of a gap is the" in page
    assert 'href="#word-prompt"' in page
    text = render_markdown(report)
    assert "| prompt | – |" in text
    assert "The candidate's own chat template in place of the baseline's makes" in text


def test_the_gate_compares_a_candidate_in_its_own_template_with_the_runs_baseline(own):
    verdict = check(own[0])
    assert verdict.rules
    assert not any(rule.verdict == "error" for rule in verdict.rules)


def test_a_finished_run_is_not_run_again(own, options, ran):
    run(options, own[0], own_templates=True)
    assert ran == []


def test_equal_templates_are_asked_once_and_prompt_is_zero(options, tiny_moved, tmp_path, monkeypatch):
    asked = []
    whole = harness.evaluate
    monkeypatch.setattr(
        harness, "evaluate", lambda model, *rest, **more: asked.append(1) or whole(model, *rest, **more)
    )
    candidate = chatting(tiny_moved, tmp_path / "candidate", BASELINES)
    made = RunConfig.make({
        **options, "candidate": candidate, "tasks": ["tiny_word"], "output": tmp_path / "run", **ASKED,
    })  # fmt: skip
    one = Run(made)
    one.evaluation("candidate")
    assert len(asked) == 1
    report = one.report()
    (note,) = (n for n in report.comparability.notes if "--own-templates" in n)
    assert note.endswith("changes nothing and prompt is 0")
    found = prompt_of(report, "tiny_word")
    assert (found.contribution, found.interval.low, found.interval.high) == (0, 0, 0)
    assert report.comparability.prompts_equal
    assert side(tmp_path / "run", "candidate").ledger == side(tmp_path / "run", templates.SHARED).ledger


def test_another_baselines_template_asks_the_candidate_again(options, tiny, tmp_path):
    other = chatting(tiny.baseline, tmp_path / "baseline", BASELINES.replace("old", "new"))
    names = ("candidate", templates.SHARED, "baseline")
    prints = []
    for baseline in (options["baseline"], other):
        made = Run(RunConfig.make({**options, **ASKED, "baseline": baseline, "output": tmp_path / "run"}))
        prints.append([evaluated_from(made, name) for name in names])
    same = [one == two for one, two in zip(*prints, strict=True)]
    assert same == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"apply_chat_template": False},
            "own_templates needs apply_chat_template; give both, or leave own_templates out",
        ),
        (
            {"baseline_results": "x", "candidate_results": "y"},
            "recorded answers are to one; leave own_templates out, or give the models in place of their results",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, changes, message):
    with pytest.raises(UsageError, match=message) as error:
        RunConfig.make({**options, **ASKED, **changes})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bare", "message"),
    [
        (
            "candidate",
            "--own-templates: the candidate's tokenizer has no chat template of its own; leave the option out",
        ),
        ("baseline", "--apply-chat-template: the baseline's tokenizer has no chat template; leave the option out"),
    ],
)
def test_a_model_without_a_template_is_refused_before_anything_is_scored(options, tmp_path, bare, message):
    model = tmp_path / bare
    shutil.copytree(options[bare], model)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match=message):
        run(options, tmp_path / "run", **{**ASKED, bare: model})
    assert not (tmp_path / "run").exists()


def test_many_candidates_are_asked_in_one_template(options):
    with pytest.raises(UsageError, match="--own-templates is of one candidate, and a matrix asks all models"):
        check_options(RunConfig.make({**options, **ASKED}))


def test_the_own_template_is_taken_back_when_the_evaluation_is_over(options):
    config = RunConfig.make({**options, **ASKED})
    session = Session(config, {name: str(options[name]) for name in ("baseline", "candidate")})
    words = session.model("candidate").hf_tokenizer

    def broken_off() -> None:
        with templates.own_template(session, "candidate"):
            assert words.chat_template == OWN
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        broken_off()
    assert words.chat_template == BASELINES
    with templates.own_template(session, "baseline"):
        assert session.model("baseline").hf_tokenizer.chat_template == BASELINES
