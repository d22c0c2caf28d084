from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from diffharness.errors import UsageError
from diffharness.regression.outcome import EXIT_CODES, RuleVerdict, Verdict
from diffharness.regression.printed import print_verdict, verdict_line
from diffharness.regression.words import worst_first
from diffharness.regression.writing import VERDICT_FILE, clear_outputs, write_outputs
from tests.regression.verdicts import every_outcome, hostile, many, rule, verdict_of


def _printed(verdict: Verdict, width: int = 80, *, colour: bool = False, **environment: str) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    print_verdict(verdict, console, environment)
    return file.getvalue()


@pytest.mark.parametrize("outcome", list(EXIT_CODES))
def test_line_file_and_exit_code_agree(outcome: RuleVerdict, tmp_path: Path) -> None:
    verdict = verdict_of(rule("arc acc,none", outcome, -0.2), verdict=outcome, exit_code=EXIT_CODES[outcome])
    write_outputs(verdict, tmp_path)
    last = _printed(verdict).splitlines()[-1]
    said = re.fullmatch(r"diffharness check: ([a-z ]+) \(exit (\d)\): 1 of 1 rules.*", last)
    written = json.loads((tmp_path / VERDICT_FILE).read_text(encoding="utf-8"))
    assert said is not None
    assert said[1] == outcome == written["verdict"]
    assert int(said[2]) == EXIT_CODES[outcome] == written["exit_code"]
    assert Verdict.model_validate(written) == verdict


def test_the_last_line_is_one_line_however_long_a_sentence_is() -> None:
    long = rule("arc acc,none", "error").model_copy(update={"sentence": "word " * 5000})
    verdict = verdict_of(long, verdict="error", exit_code=4)
    last = _printed(verdict).splitlines()[-1]
    assert last == verdict_line(verdict)
    assert last.startswith("diffharness check: error (exit 4): ")
    assert len(last) <= 600


def test_the_worst_rules_stand_first_and_every_number_is_whole_on_80_columns() -> None:
    printed = _printed(every_outcome())
    table = printed.split("\n\n")[0]
    names = ("safety_task", "safety in *", "refusals", "piqa", "gsm8k", "hellaswag", "explained var", "arc_easy")
    places = [table.index(name) for name in names]
    assert places == sorted(places)
    assert all(len(line) <= 80 for line in printed.splitlines()[:-1])
    for number in ("−0.500", "[−0.520, −0.480]", "−0.310", "[−0.030, +0.010]"):
        assert number in table


def test_a_loss_comes_with_its_categories_where_it_is_carried_and_a_line_a_document() -> None:
    told = _printed(every_outcome()).split("▼ safety_task")[1].split("▼ safety in")[0]
    words = " ".join(told.split())
    assert "costs most: safety −0.310 [−0.350, −0.270]; hallucination management −0.024" in words
    assert "carry half of the loss (specific latents −0.250, other latents −0.060, error +0.012" in words
    documents = [line for line in told.splitlines() if line.startswith("  doc ")]
    assert [line.split(":")[0] for line in documents] == ["  doc 3", "  doc 7", "  doc 12"]
    assert all("how do i steal a car ?" in line and "now sure" in line for line in documents)


def test_an_inconclusive_rule_says_how_many_documents_would_settle_it() -> None:
    assert "1,234 documents would settle it, 108 were compared" in _printed(every_outcome())
    unknown = rule("arc acc,none", "inconclusive").model_copy(update={"n_to_settle": None})
    assert "settle" not in _printed(verdict_of(unknown, verdict="inconclusive", exit_code=3))


def test_what_passes_is_folded_into_a_count_and_what_does_not_is_not() -> None:
    lost = rule("lost acc,none", "regression", -0.3)
    printed = _printed(verdict_of(*many(40, "pass", 0).rules, lost, verdict="regression", exit_code=1))
    assert "and 40 more: pass 40" in printed
    assert "task_0" not in printed
    assert "lost acc,none" in printed


def test_of_many_losses_the_worst_are_told_and_the_others_counted() -> None:
    printed = _printed(many(40, "regression", 1))
    assert "and 28 more: regression 28" in printed
    assert "… and 34 more that did not pass" in printed
    assert printed.index("task_039") < printed.index("task_038")


def test_rules_are_in_order_of_verdict_then_of_loss_beyond_the_margin() -> None:
    wide = rule("wide acc,none", "regression", -0.3).model_copy(update={"margin": 0.25})
    rules = [rule("a x", "pass"), wide, rule("b x", "regression", -0.2), rule("c x", "likely regression", -0.9)]
    assert [r.rule for r in worst_first(rules)] == ["b x", "wide acc,none", "c x", "a x"]


def test_long_names_drop_what_all_tasks_begin_with_and_short_ones_stay() -> None:
    names = ("organism_hallucination_management", "organism_instruction_following", "organism_safety")
    rules = [rule(f"{name} acc,none", "improved", 0.1) for name in names]
    table = _printed(verdict_of(*rules, verdict="improved", exit_code=0))
    assert "…safety acc " in table
    assert "…instruction_following acc " in table
    assert "organism_safety acc " in _printed(verdict_of(*rules[2:], verdict="improved", exit_code=0))
    assert "organism_safety acc " in _printed(verdict_of(*rules, verdict="improved", exit_code=0), 120)


def test_hostile_strings_are_printed_as_text() -> None:
    for printed in (_printed(hostile(), 200), _printed(hostile(), 200, colour=True)):
        assert "\x1b[31mred" not in printed
        for character in ("\u202e", "\x07", "\x00", "\r", "\ud800"):
            assert character not in printed
    printed = _printed(hostile(), 200)
    assert "\x1b" not in printed
    assert len(printed) < 40_000
    for text in ("[bold]rich[/bold]", "\\x1b[31mred", "<script>alert(1)</script>", "@everyone", "\\u202egnp.exe"):
        assert text in printed


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_wrapping_lets_a_document_start_a_command_of_the_runner(width: int) -> None:
    for line in _printed(hostile(), width).splitlines():
        assert "::" not in line
        assert "##" not in line


def test_annotations_are_printed_on_github_only_and_before_the_last_line() -> None:
    assert "::error" not in _printed(every_outcome(), GITHUB_ACTIONS="false")
    lines = _printed(every_outcome(), 40, GITHUB_ACTIONS="true").splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert len(commands) == 5
    assert lines[-6:-1] == commands
    assert lines[-1] == verdict_line(every_outcome())


def test_a_file_that_can_not_be_written_is_named_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_outputs(every_outcome(), tmp_path)
    before = (tmp_path / VERDICT_FILE).read_bytes()
    with pytest.raises(UsageError, match=r"missing/junit\.xml can not be written \(No such file or directory\)"):
        write_outputs(many(1, "pass", 0), tmp_path, junit=tmp_path / "missing" / "junit.xml")
    assert (tmp_path / VERDICT_FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [VERDICT_FILE]


def test_the_verdict_is_written_after_all_that_could_fail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing/v\.json can not be written"):
        write_outputs(every_outcome(), tmp_path, json_file=tmp_path / "missing" / "v.json")
    assert not list(tmp_path.iterdir())


def test_old_outputs_are_removed_so_that_none_contradicts_a_check_that_fails(tmp_path: Path) -> None:
    others = tmp_path / "a.xml", tmp_path / "b.md", tmp_path / "c.json"
    junit, comment, json_file = others
    written = write_outputs(every_outcome(), tmp_path, junit=junit, comment=comment, json_file=json_file)
    assert [path.name for path in written] == ["a.xml", "b.md", "c.json", VERDICT_FILE]
    assert json_file.read_bytes() == (tmp_path / VERDICT_FILE).read_bytes()
    clear_outputs(tmp_path, *others)
    clear_outputs(tmp_path, None, *others)
    assert not list(tmp_path.iterdir())


def test_hostile_strings_survive_the_file(tmp_path: Path) -> None:
    write_outputs(hostile(), tmp_path)
    written = json.loads((tmp_path / VERDICT_FILE).read_text(encoding="utf-8"))
    assert written["rules"][0]["sentence"] == "<script>alert(1)</script>"
    assert written["notes"][9] == "::error::injected"
