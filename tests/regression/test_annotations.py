from __future__ import annotations

import pytest

from diffharness.regression.annotations import command, inert, workflow_commands
from diffharness.regression.outcome import RuleVerdict
from tests.regression.verdicts import HOSTILE, every_outcome, hostile, many, verdict_of


def _parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it: its name, properties and message (`ActionCommand.TryParseV2`)."""
    assert line.startswith("::")
    end = line.index("::", 2)
    name, _, rest = line[2:end].partition(" ")
    properties = {}
    for pair in rest.split(","):
        key, _, value = pair.partition("=")
        for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(code, character)
        properties[key.strip()] = value
    message = line[end + 2 :]
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        message = message.replace(code, character)
    return name, properties, message


def test_losses_and_errors_are_errors_and_inconclusive_rules_warnings() -> None:
    found = [_parsed(line) for line in workflow_commands(every_outcome())]
    assert [(name, properties["title"].split(":")[0]) for name, properties, _ in found] == [
        ("error", "▼ regression"),
        ("error", "▼ regression"),
        ("error", "▼ likely regression"),
        ("error", "! error"),
        ("warning", "? inconclusive"),
    ]
    assert "costs most: safety −0.310 [−0.350, −0.270]" in found[0][2]
    assert "1,234 documents would settle it" in found[4][2]


@pytest.mark.parametrize(("verdict", "kind"), [("regression", "error"), ("inconclusive", "warning")])
def test_at_most_ten_of_a_type_the_worst_and_the_rest_counted(verdict: RuleVerdict, kind: str) -> None:
    lines = workflow_commands(many(25, verdict, 1))
    found = [_parsed(line) for line in lines]
    assert [name for name, _, _ in found] == [kind] * 10
    assert "task_024" in found[0][1]["title"]
    assert found[-1][2].startswith("16 more rules")
    assert len(workflow_commands(many(10, verdict, 1))) == 10


def test_nothing_is_said_of_what_passes() -> None:
    assert workflow_commands(many(5, "pass", 0)) == []


def test_an_error_without_a_rule_is_said() -> None:
    lines = workflow_commands(verdict_of(verdict="error", exit_code=4, notes=("no scores of arc",)))
    assert [_parsed(line) for line in lines] == [("error", {"title": "diffharness: error"}, "no scores of arc")]


def test_the_runner_reads_back_what_was_meant() -> None:
    line = command("error", "100 % of a, b: c", "50 % of a, b: c%0Ad")
    assert line == "::error title=100 %25 of a%2C b%3A c::50 %25 of a, b: c%250Ad"
    assert _parsed(line) == ("error", {"title": "100 % of a, b: c"}, "50 % of a, b: c%0Ad")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_is_one_line_with_one_title_and_nothing_acts(text: str) -> None:
    line = command("error", text, text)
    assert len(line.splitlines()) == 1
    assert len(line) < 3000
    name, properties, message = _parsed(line)
    assert name == "error"
    assert list(properties) == ["title"]
    assert "::" not in message
    assert "##" not in message
    for acting in ("\x1b", "\x00", "\r", "\u202e", "\ud800"):
        assert acting not in line


def test_hostile_rules_make_no_more_commands_than_ten_of_a_type() -> None:
    names = [_parsed(line)[0] for line in workflow_commands(hostile())]
    assert names == ["error"] * 10 + ["warning"] * 10


def test_commands_are_broken_however_many_characters_stand_together() -> None:
    for text in ("::", ":::::", "##", "####[error]", "a::b##c"):
        assert "::" not in inert(text)
        assert "##" not in inert(text)
        assert inert(text).replace("\u200b", "") == text
    assert inert("a:b #1") == "a:b #1"
