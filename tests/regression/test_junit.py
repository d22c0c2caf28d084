from __future__ import annotations

from xml.etree import ElementTree

import pytest

from diffharness.regression.junit import to_junit
from diffharness.regression.outcome import EXIT_CODES, Verdict
from tests.regression.verdicts import every_outcome, hostile, many, verdict_of

ATTRIBUTES = {
    "testsuites": ({"name"}, {"time", "tests", "failures", "errors"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url", "version"},
    ),
    "testcase": ({"name"}, {"time", "classname", "group"}),
    "failure": (set(), {"type", "message"}),
    "error": (set(), {"type", "message"}),
    "skipped": (set(), {"type", "message"}),
    "system-out": (set(), set()),
}
"""Element → attributes it must have and may have, by the schema that Jenkins checks JUnit files with."""
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testsuite", "properties", "testcase", "system-out", "system-err"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}


def _parsed(verdict: Verdict) -> ElementTree.Element:
    root = ElementTree.fromstring(to_junit(verdict))
    for element in root.iter():
        needed, allowed = ATTRIBUTES[element.tag]
        assert needed <= set(element.attrib) <= needed | allowed
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
    for parent in (root, *root.findall("testsuite")):
        cases = list(parent.iter("testcase"))
        assert int(parent.get("tests", "")) == len(cases)
        assert int(parent.get("failures", "")) == len([c for c in cases if c.find("failure") is not None])
        assert int(parent.get("errors", "")) == len([c for c in cases if c.find("error") is not None])
    assert all(len(case) <= 1 for case in root.iter("testcase"))
    return root


def test_a_suite_a_task_and_one_for_the_mechanism() -> None:
    root = _parsed(every_outcome())
    suites = [suite.get("name") for suite in root]
    assert suites[:2] == ["scores: arc_easy", "scores: hellaswag"]
    assert suites[-1] == "mechanism"
    assert [case.get("name") for case in root[-1]] == ["safety in *", "explained variance"]


def test_losses_fail_with_the_numbers_errors_err_and_inconclusive_rules_are_skipped() -> None:
    cases = {case.get("name"): case for case in _parsed(every_outcome()).iter("testcase")}
    lost = cases["safety_task acc,none"].find("failure")
    assert lost is not None
    assert lost.get("type") == "regression"
    assert lost.get("message") == "safety_task acc,none: -0.500, accepted is a loss of 0.010."
    lines = (lost.text or "").splitlines()
    assert lines[0] == "baseline 0.800, candidate 0.300, difference −0.500 [−0.520, −0.480], margin 0.010"
    assert lines[1] == "costs most: safety −0.310 [−0.350, −0.270]"
    assert sum(line.startswith("document ") for line in lines) == 3
    likely = cases["refusals acc,none"].find("failure")
    assert likely is not None
    assert likely.get("type") == "likely regression"
    assert cases["piqa acc,none"].find("error") is not None
    skipped = cases["gsm8k exact_match,none"].find("skipped")
    assert skipped is not None
    assert "1,234 documents would settle it" in skipped.get("message", "")
    assert [child.tag for child in cases["arc_easy acc,none"]] == ["system-out"]


@pytest.mark.parametrize(("exit_code", "tag"), [(0, "skipped"), (3, "skipped"), (1, "failure")])
def test_an_inconclusive_rule_fails_where_the_policy_fails_the_check_for_it(exit_code: int, tag: str) -> None:
    root = _parsed(many(3, "inconclusive", exit_code))
    assert {child.tag for case in root.iter("testcase") for child in case} == {tag}


@pytest.mark.parametrize("verdict", list(EXIT_CODES))
def test_no_file_is_green_where_the_exit_code_is_not(verdict: str) -> None:
    empty = verdict_of(verdict=verdict, exit_code=EXIT_CODES[verdict], notes=("No scores were found.",))
    root = _parsed(empty)
    bad = int(root.get("failures", "")) + int(root.get("errors", ""))
    assert (bad > 0) == (empty.exit_code > 0)


def test_hostile_strings_are_text_in_a_file_that_parses() -> None:
    content = to_junit(hostile())
    assert len(content) < 600_000
    root = _parsed(hostile())
    names = [case.get("name") or "" for case in root.iter("testcase")]
    assert len(names) == len(hostile().rules)
    assert names[0] == "<script>alert(1)</script>"
    assert "]]></failure><testcase name='fake'/>" in names
    assert "fake" not in names
    told = "".join(failure.text or "" for failure in root.iter("failure"))
    assert "\\x1b[31mred" in told
    assert "\\ud800" in told
    for character in ("\x00", "\x1b", "\ufffe", "\u202e", "\r"):
        assert character not in told
        assert character.encode() not in content
