"""Runs that go on from folders of plain lm-eval, of any engine, up to the report; and runs that never store."""

import shutil

import pytest

import diffharness
from diffharness.errors import UsageError
from diffharness.evaluation.scores import Evaluation
from tests.evaluation import plain
from tests.tiny import ONLY_ACCOUNT, metrics, tokenizer, write_task

TASKS = ["tiny_choice", "tiny_text", "tiny_answer"]
LIGHT = {**ONLY_ACCOUNT, "attribution_documents": 6}
"""Most tests here are about what an account is made from."""


def folders(tmp_path_factory, tiny, tiny_moved, engine):
    root = tmp_path_factory.mktemp(engine)
    sides = {"baseline": tiny.baseline, "candidate": tiny_moved}
    return {side: plain.run(model, root / side, TASKS, tiny.tasks, engine) for side, model in sides.items()}


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny, tiny_moved):
    """What plain lm-eval left of both sides."""
    return folders(tmp_path_factory, tiny, tiny_moved, "hf")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, tiny, tiny_moved):
    """The same weights, scored by an engine that is not of Hugging Face."""
    return folders(tmp_path_factory, tiny, tiny_moved, "tiny-engine")


@pytest.fixture(scope="module")
def own(tiny_options, tmp_path_factory):
    """The same comparison with everything recorded by the run itself."""
    options = {**tiny_options, **LIGHT, "tasks": TASKS, "output": tmp_path_factory.mktemp("own") / "run"}
    return diffharness.run(diffharness.RunConfig.make(options))


def run(results, tiny_options, tmp_path, **more):
    options = {key: value for key, value in tiny_options.items() if key not in ("baseline", "candidate", "tasks")}
    options |= {f"{side}_results": folder for side, folder in results.items()}
    options |= {**LIGHT, "output": tmp_path / "run", **more}
    return diffharness.run(diffharness.RunConfig.make({k: v for k, v in options.items() if v is not None}))


def test_folders_of_plain_lm_eval_give_the_same_report(scored, own, tiny_options, tmp_path):
    found = run(scored, tiny_options, tmp_path)
    assert found.validation.mechanism_withheld is None
    for mine, theirs in zip(own.tasks, found.tasks, strict=True):
        assert (mine.task, mine.metric, mine.baseline, mine.candidate) == (
            theirs.task, theirs.metric, theirs.baseline, theirs.candidate,
        )  # fmt: skip
        assert [c.contribution for c in theirs.components] == pytest.approx(
            [c.contribution for c in mine.components], abs=1e-3
        ), "answers made from text may lack their stop"
        assert [c.ablation and c.ablation.change for c in theirs.components] == [
            c.ablation and c.ablation.change for c in mine.components
        ]
    assert any("re-tokenised" in note for note in found.comparability.notes)


def test_another_engines_folders_need_weights_to_replay_with(foreign, tiny_options, tmp_path):
    with pytest.raises(UsageError, match=r"scored by 'tiny-engine' .*--replay-baseline"):
        run(foreign, tiny_options, tmp_path)


def test_another_engines_scores_are_explained_by_its_weights(foreign, own, tiny, tiny_moved, tiny_options, tmp_path):
    weights = {"replay_baseline": str(tiny.baseline), "replay_candidate": str(tiny_moved)}
    found = run(foreign, tiny_options, tmp_path, **weights)
    assert found.validation.mechanism_withheld is None
    choice, mine = found.tasks[0], own.tasks[0]
    assert (choice.baseline, choice.candidate) == (mine.baseline, mine.candidate)
    assert [c.contribution for c in choice.components] == pytest.approx(
        [c.contribution for c in mine.components], abs=1e-4
    )


def test_other_weights_than_were_scored_give_scores_and_no_mechanism(foreign, tiny, tiny_moved, tiny_options, tmp_path):
    weights = {"replay_baseline": str(tiny.baseline), "replay_candidate": str(tiny.candidate)}
    found = run(foreign, tiny_options, tmp_path, **weights)
    withheld = found.validation.mechanism_withheld
    assert withheld is not None
    assert "the candidate's weights, replayed, do not give the answers that were scored" in withheld
    assert found.latents == ()
    assert {task.verdict for task in found.tasks} != {"inconclusive"}
    assert all(not task.components and task.account_reason for task in found.tasks)
    assert {c.side for c in found.validation.replay if not c.holds} == {"candidate"}
    assert not (tmp_path / "run" / "activations").exists(), "nothing is harvested or trained in vain"
    for view in ("report.md", "report.html"):
        assert "do not give the answers that were scored" in (tmp_path / "run" / view).read_text()


def test_streamed_activations_give_the_account_without_touching_the_disk(own, tiny_options, tmp_path):
    options = {**tiny_options, **LIGHT, "tasks": TASKS, "stream": True, "output": tmp_path / "run"}
    found = diffharness.run(diffharness.RunConfig.make(options))
    assert not list((tmp_path / "run").rglob("shard_*"))
    for mine, theirs in zip(own.tasks, found.tasks, strict=True):
        assert mine.gap == theirs.gap
        assert sum(c.contribution for c in theirs.components) == pytest.approx(
            sum(c.contribution for c in mine.components), abs=1e-3
        )
    quality = found.quality[0]
    assert quality.n_train_tokens == own.quality[0].n_train_tokens
    assert min(quality.explained_variance.values()) > 0.8 * min(own.quality[0].explained_variance.values())


def test_positions_of_special_tokens_can_be_left_out(tiny_options, tmp_path):
    options = {**tiny_options, **LIGHT, "tasks": TASKS, "skip_special": True, "output": tmp_path / "run"}
    found = diffharness.run(diffharness.RunConfig.make(options))
    assert all(sum(c.contribution for c in t.components) == pytest.approx(t.surrogate.gap, abs=1e-2)
               for t in found.tasks if t.surrogate is not None)  # fmt: skip
    shown = {token for latent in found.latents for example in latent.examples for token in example.tokens}
    assert not shown & {"<bos>", "<eos>", "<unk>", "<pad>"}


def test_both_models_are_asked_in_the_baselines_chat_template(tiny, tiny_moved, tiny_options, tmp_path):
    template = (
        "{% for m in messages %}the {{ m['content'] }} ? {% endfor %}{% if add_generation_prompt %}it is{% endif %}"
    )
    sides = {}
    for side, model, own in (("baseline", tiny.baseline, template), ("candidate", tiny_moved, "{{ messages }}")):
        sides[side] = shutil.copytree(model, tmp_path / side)
        words = tokenizer()
        words.chat_template = own
        words.save_pretrained(sides[side])
    options = {**tiny_options, **LIGHT, **sides, "tasks": ["tiny_word"], "output": tmp_path / "run"}
    asked = {"apply_chat_template": True, "num_fewshot": 1, "system_instruction": "good day"}
    yaml = tmp_path / "tasks"
    shutil.copytree(tiny.tasks, yaml)
    task = (yaml / "tiny_word.yaml").read_text().replace("num_fewshot: 0\n", "fewshot_split: test\n")
    (yaml / "tiny_word.yaml").write_text(task)
    found = diffharness.run(diffharness.RunConfig.make({**options, **asked, "include_path": [yaml]}))
    assert found.comparability.prompts_equal
    assert found.validation.mechanism_withheld is None
    candidate = Evaluation.load(tmp_path / "run" / "evaluation" / "candidate")
    assert candidate.settings["protocol"] == asked, "the exact check asks in the same way"
    prompts = [document.prompt for document in candidate.documents]
    assert all(p.startswith("the good day ? the ") and p.endswith("it is") and p.count("?") >= 4 for p in prompts)
    assert "--apply-chat-template" in found.run.command
    with pytest.raises(UsageError, match="has no chat template"):
        diffharness.run(diffharness.RunConfig.make({**tiny_options, **asked, "output": tmp_path / "none"}))


def test_how_models_are_asked_is_settled_by_what_was_recorded(scored, tiny_options, tmp_path):
    with pytest.raises(UsageError, match="num_fewshot is settled by the recorded evaluations"):
        run(scored, tiny_options, tmp_path, num_fewshot=3)


def test_report_says_which_documents_lm_eval_gave_a_wrong_log_probability(tiny, tiny_options, tmp_path):
    tasks = shutil.copytree(tiny.tasks, tmp_path / "tasks")
    rows: list[dict[str, object]] = [
        {"prompt": "the dog", "end": " runs in house"}, {"prompt": "the dog runs", "end": " in house"},
    ]  # fmt: skip
    write_task(
        tasks, "tiny_split", rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target="{{end}}",
        metric_list=metrics("acc"),
    )  # fmt: skip
    options = {**tiny_options, **LIGHT, "tasks": ["tiny_split"], "include_path": [tasks], "output": tmp_path / "run"}
    found = diffharness.run(diffharness.RunConfig.make(options))
    assert {(r.task, r.side, r.n) for r in found.validation.rescored} == {
        ("tiny_split", "baseline", 1), ("tiny_split", "candidate", 1),
    }  # fmt: skip
    assert all(r.largest > 1e-3 for r in found.validation.rescored)
    assert all(check.holds for check in found.validation.replay), "the right values are those that replay gives"
    assert "1 document of tiny_split a wrong log-probability" in (tmp_path / "run" / "report.html").read_text()
