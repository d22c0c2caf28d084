"""A policy is read as it was meant, or refused in one line that names what is nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffharness.errors import UsageError
from diffharness.regression.policy import Policy, SpecificLimit, TaskRule, gated_metrics, read_policy

FULL = """
version: 1
baseline: baselines/small.json
defaults: {margin: 0.02, alpha: 0.01, correction: none, on_inconclusive: pass}
tasks:
  gsm8k: {metric: "exact_match,strict-match", margin: 3%, alpha: 0.1}
  "mmlu_*": {metric: [acc, "acc_norm,none"], cluster: subject, direction: higher}
mechanism:
  - {category: safety, task: "*", min_contribution: -0.01}
  - max_specific: {hallucination management: {side: baseline, change: 50%}}
  - min_explained_variance: 0.7
"""
TASKS = {
    "gsm8k": ["exact_match,strict-match", "exact_match,flexible-extract"],
    "mmlu_law": ["acc,none", "acc_norm,none"],
}
CATEGORIES = ["safety", "hallucination management"]


def policy(tmp_path: Path, text: str) -> Policy:
    """Of a file with this text."""
    file = tmp_path / "gate.yaml"
    file.write_text(text, encoding="utf-8")
    return read_policy(file)


def test_every_key_is_read(tmp_path: Path) -> None:
    """Margins as numbers or shares, patterns, and three kinds of rules on the mechanism."""
    found = policy(tmp_path, FULL)
    assert found.baseline == tmp_path / "baselines/small.json"
    assert (found.defaults.margin.value, found.defaults.correction) == (0.02, "none")
    law = found.rule_of("mmlu_law")
    assert law is not None
    assert law.cluster == "subject"
    assert gated_metrics(law, "acc,none", TASKS["mmlu_law"], "") == ("acc,none", "acc_norm,none")
    gsm = found.rule_of("gsm8k")
    assert gsm is not None
    assert gsm.margin is not None
    assert (gsm.margin.value, gsm.margin.relative) == (0.03, True)
    assert found.rule_of("arc_easy") is None
    assert [(r.category, r.task, r.min_contribution) for r in found.contributions] == [("safety", "*", -0.01)]
    assert found.specific == {"hallucination management": SpecificLimit(side="baseline", change=0.5)}
    assert found.min_explained_variance == 0.7
    found.check_names(TASKS, CATEGORIES, "gate.yaml")


def test_without_a_file_every_task_is_gated_by_its_first_metric() -> None:
    """At one point, Holm, one in twenty; exit 3 when inconclusive."""
    usual = Policy()
    assert usual.rule_of("anything") == TaskRule()
    assert gated_metrics(TaskRule(), "acc,none", ["acc,none", "acc_norm,none"], "") == ("acc,none",)
    assert usual.defaults.margin.value == 0.01
    assert (usual.defaults.alpha, usual.defaults.correction, usual.defaults.on_inconclusive) == (0.05, "holm", "exit3")


def test_a_name_comes_before_a_pattern(tmp_path: Path) -> None:
    """Whatever their order."""
    found = policy(tmp_path, 'version: 1\ntasks:\n  "*": {margin: 0.1}\n  gsm8k: {margin: 0.2}\n')
    rule = found.rule_of("gsm8k")
    assert rule is not None
    assert rule.margin is not None
    assert rule.margin.value == 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no policy"),
        ("- a", "is no policy"),
        ("a: [", "not YAML"),
        ("version: 2", "version"),
        ("taks: {}", "unknown key 'taks'; did you mean 'tasks'?"),
        ("defaults: {margins: 1}", "defaults: unknown key 'margins'; did you mean 'margin'?"),
        ("defaults: {margin: -1}", "margin"),
        ("defaults: {margin: .nan}", "margin"),
        ("defaults: {alpha: 0.9}", "alpha"),
        ("defaults: {on_inconclusive: shrug}", "on_inconclusive"),
        ("tasks: {gsm8k: {metrik: acc}}", "task 'gsm8k': unknown key 'metrik'; did you mean 'metric'?"),
        ("mechanism: [{category: safety}]", "go together"),
        ("mechanism: [{min_explained_varianz: 1}]", "did you mean 'min_explained_variance'?"),
        ("mechanism: [{}]", "give one of"),
        ("mechanism: [{max_specific: {safety: {side: left, change: 50%}}}]", "side"),
        ("floors: []", "unknown key 'floors'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    """In one line, with the file's name."""
    with pytest.raises(UsageError) as error:
        policy(tmp_path, text)
    assert said in str(error.value)
    assert "gate.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {gsm9k: {}}", "task 'gsm9k' is none of the run's; did you mean 'gsm8k'?"),
        ('tasks: {"arc_*": {}}', "task 'arc_*' is none of the run's"),
        ("tasks: {mmlu_law: {metric: acc_nrm}}", "has no metric 'acc_nrm'; did you mean 'acc_norm,none'?"),
        ("tasks: {gsm8k: {metric: exact_match}}", "has several filters"),
        (
            "mechanism: [{category: savety, min_contribution: 0}]",
            "category 'savety' is none of the run's; did you mean",
        ),
        ("mechanism: [{max_specific: {safty: {side: baseline, change: 1}}}]", "category 'safty'"),
        ("mechanism: [{category: safety, task: gsmk, min_contribution: 0}]", "task 'gsmk'"),
    ],
)
def test_names_that_the_run_does_not_have_are_refused_with_the_nearest(tmp_path: Path, text: str, said: str) -> None:
    """Tasks, patterns, metrics and categories."""
    with pytest.raises(UsageError) as error:
        policy(tmp_path, text).check_names(TASKS, CATEGORIES, "gate.yaml")
    assert said in str(error.value)


VLLM = """
model_name: "meta-llama/Meta-Llama-3-8B-Instruct"
tasks:
- name: "gsm8k"
  metrics:
  - name: "exact_match,strict-match"
    value: 0.756
  - name: "exact_match,flexible-extract"
    value: 0.5
limit: 250
num_fewshot: 5
tensor_parallel_size: 2
"""


def test_accuracy_files_of_vllm_are_floors(tmp_path: Path) -> None:
    """Five percent below the value at the least, and nothing else is gated."""
    found = policy(tmp_path, VLLM)
    assert [f.metric for f in found.floors] == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert found.floors[0].least == pytest.approx(0.756 * 0.95)
    assert found.expected == {"limit": 250, "num_fewshot": 5}
    assert found.rule_of("gsm8k") is None
    found.check_names(TASKS, (), "gate.yaml")
    file = tmp_path / "gate.yaml"
    assert read_policy(file, tolerance=0.1).floors[0].least == pytest.approx(0.756 * 0.9)
    file.write_text(VLLM + "rtol: 0.08\n")
    assert read_policy(file).floors[0].tolerance == 0.08


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("[]", "tasks is empty"),
        ("[{metrics: []}]", "has no name"),
        ("[{name: a}]", "has no metrics"),
        ("[{name: a, metrics: [{value: 1}]}]", "a metric has no name"),
        ("[{name: a, metrics: [{name: acc, value: high}]}]", "the value 'high'"),
        ("[{name: a, metrics: [{name: acc, value: .nan}]}]", "the value nan"),
        ("[{name: a, metriks: []}]", "unknown key 'metriks'; did you mean 'metrics'?"),
    ],
)
def test_broken_accuracy_files_are_named(tmp_path: Path, tasks: str, said: str) -> None:
    """Not passed for want of rules."""
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        policy(tmp_path, f"tasks: {tasks}")
