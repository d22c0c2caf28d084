"""Comparing runs: paired intervals of planted differences, what is left out and said, and every view of it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from diffharness.assembly.compare import comparison
from diffharness.errors import UsageError
from diffharness.report.compare.model import Comparison, Difference
from diffharness.report.compare.runs import labels, read_runs
from diffharness.report.compare.terminal import print_comparison
from diffharness.report.compare.words import headline, ranked
from diffharness.report.compare.writing import FILES, render, write
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.numbers import signed
from diffharness.report.schema import Report
from tests.report.compared import planted_run
from tests.report.compared import write as write_report
from tests.report.example import HOSTILE, example_report, hostile_report
from tests.report.test_older import report_1_3

N = 300


def compared(*folders: Path) -> Comparison:
    return comparison(read_runs(folders), "diffharness compare")


def printed(found: Comparison, width: int = 80) -> str:
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=width))
    return out.getvalue()


def of(found: Comparison, kind: str, task: str | None = None) -> Difference:
    (row,) = [d for d in found.differences if d.kind == kind and d.task == task]
    return row


def noise(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3))


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two runs whose documents' contributions are alike but for a shift of what safety writes in one task."""
    tmp_path = tmp_path_factory.mktemp("shifted")
    shared = {name: noise(i) + 1 for i, name in enumerate(("one", "two"))}
    jitter = [0.1 * (noise(9 + i) - noise(9 + i).mean(axis=0)) for i in range(2)]  # of mean 0, so the shift is exact
    moved = {name: own + jitter[i] for i, (name, own) in enumerate(shared.items())}
    moved["one"] = moved["one"] + [0.2, 0, 0]
    return compared(
        planted_run(tmp_path / "a", shared, candidate="first"), planted_run(tmp_path / "b", moved, candidate="second")
    )


def test_a_planted_difference_is_found_with_the_interval_of_paired_documents(shifted: Comparison):
    safety = of(shifted, "latents")
    assert (safety.run, safety.against, safety.unit) == ("second", "first", "probability")
    assert safety.difference == pytest.approx(0.2)
    assert safety.interval is not None
    wanted = 1.96 * 0.1 * np.sqrt(4 / N)  # two columns in two tasks; unpaired it would be fourteen times as wide
    assert (safety.interval.high - safety.interval.low) / 2 == pytest.approx(wanted, rel=0.12)
    assert safety.written == pytest.approx(0.2)
    assert safety.read == pytest.approx(0.0, abs=1e-9)
    assert safety.is_clear
    assert not of(shifted, "error").is_clear
    assert of(shifted, "latents", "one").is_clear
    assert not of(shifted, "latents", "two").is_clear
    assert headline(shifted).startswith("2 runs, 2 tasks in common: safety differs most, +0.200 [")
    assert ranked(shifted)[0] == safety


def test_parts_of_a_difference_add_up_to_that_of_the_gap(shifted: Comparison):
    for task in (None, "one", "two"):
        parts = [d.difference for d in shifted.differences if d.task == task and d.kind != "gap"]
        assert of(shifted, "gap", task).difference == pytest.approx(sum(parts))
    gaps = {whole.candidate: whole.gap for whole in shifted.sums}
    assert of(shifted, "gap").difference == pytest.approx(gaps["second"] - gaps["first"])


def test_documents_drawn_apart_give_the_interval_of_independent_runs(tmp_path: Path):
    first, second = noise(1), noise(2)
    ids = {"a": range(N), "b": range(N, 2 * N)}
    folders = [
        planted_run(tmp_path / name, {"one": own}, doc_ids={"one": ids[name]}, candidate=name)
        for name, own in (("a", first), ("b", second))
    ]
    error = of(compared(*folders), "error")
    assert error.interval is not None
    wanted = 1.96 * np.sqrt(2 / N)
    assert (error.interval.high - error.interval.low) / 2 == pytest.approx(wanted, rel=0.12)


def test_a_document_that_stands_for_others_weighs_as_much_in_a_difference(tmp_path: Path):
    weight = np.where(np.arange(N) < N // 3, 4.0, 1.0)
    values = np.where(np.arange(N)[:, None] < N // 3, 1.0, 0.0) + 0.01 * noise(1)
    a = planted_run(tmp_path / "a", {"one": values}, weights={"one": weight}, candidate="a")
    b = planted_run(tmp_path / "b", {"one": values}, candidate="b")
    error = of(compared(a, b), "error")
    assert error.difference == pytest.approx(1 / 3 - 2 / 3, abs=0.01)
    assert error.interval is not None
    assert error.interval.low < error.difference < error.interval.high < 0


def test_without_contributions_of_documents_no_difference_is_claimed(tmp_path: Path):
    a = planted_run(tmp_path / "a", {"one": noise(1)}, candidate="a")
    b = planted_run(tmp_path / "b", {"one": noise(1) + 5}, candidate="b", with_documents=False)
    found = compared(a, b)
    assert all(d.interval is None for d in found.differences)
    assert not any(d.is_clear for d in found.differences)
    assert {d.reason for d in found.differences} == {"one in b: the run holds no contributions of single documents"}
    assert "no interval: one in b" in printed(found)
    assert found.parts[0].interval is not None  # that of the run which holds them stays


def test_contributions_that_are_not_those_of_the_report_give_no_interval(tmp_path: Path):
    a = planted_run(tmp_path / "a", {"one": noise(1)}, candidate="a")
    b = planted_run(tmp_path / "b", {"one": noise(2)}, candidate="b")
    (a / "contributions.parquet").write_bytes((b / "contributions.parquet").read_bytes())
    assert all(d.interval is None for d in compared(a, b).differences)
    (a / "contributions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"contributions\.parquet can not be read"):
        compared(a, b)


@pytest.mark.parametrize(("seeds", "is_clear"), [(1.01, True), (0.2, False)])
def test_a_difference_that_other_seeds_make_too_is_not_claimed(tmp_path: Path, seeds: float, is_clear: bool):
    a = planted_run(tmp_path / "a", {"one": 0.01 * noise(1) + 1}, candidate="a", seeds=seeds)
    b = planted_run(tmp_path / "b", {"one": 0.01 * noise(1) + 1.5}, candidate="b", seeds=seeds)
    found = of(compared(a, b), "latents")
    assert (found.apart_by_seeds, found.is_clear) == (is_clear, is_clear)


def test_tasks_that_can_not_be_compared_are_left_out_and_named(tmp_path: Path):
    values = {name: noise(i) for i, name in enumerate(("same", "changed", "mine"))}
    a = planted_run(tmp_path / "a", values, candidate="a")
    b = planted_run(
        tmp_path / "b", {k: values[k] for k in ("same", "changed")}, candidate="b", hashes={"changed": "ffff"}
    )
    found = compared(a, b)
    assert found.tasks == found.common == ("same",)
    assert {cell.task for cell in found.cells} == {"same"}
    assert found.left_out == (
        "changed is left out: its documents or prompts differ (hash 0f448c5b758a3fa6 in a, ffff in b)",
        "mine is left out: only a has it",
    )


def test_units_that_differ_are_in_no_sum_and_named(tmp_path: Path):
    a = planted_run(tmp_path / "a", {"one": noise(1)}, candidate="a")
    b = planted_run(tmp_path / "b", {"one": noise(1)}, candidate="b")
    report = Report.load(b)
    (task,) = report.tasks
    assert task.surrogate is not None
    other = task.model_copy(update={"surrogate": task.surrogate.model_copy(update={"unit": "nats"})})
    write_report(b, report.model_copy(update={"tasks": (other,)}))
    found = compared(a, b)
    assert found.left_out == ("one is in no sum: its account is in probability in a, nats in b",)
    assert found.differences == found.sums == ()
    assert len(found.cells) == 2
    assert "There is no gap to explain." in printed(found)


def test_a_task_of_some_runs_is_shown_and_in_no_sum(tmp_path: Path):
    values = {"all": noise(1), "two": noise(2)}
    folders = [planted_run(tmp_path / name, values, candidate=name) for name in ("a", "b")]
    folders.append(planted_run(tmp_path / "c", {"all": noise(3)}, candidate="c"))
    found = compared(*folders)
    assert (found.tasks, found.common) == (("all", "two"), ("all",))
    assert {whole.tasks for whole in found.sums} == {("all",)}
    assert "1 task in common and 1 more that some share" in headline(found)
    assert [d.run for d in found.differences if d.task is None and d.kind == "gap"] == ["b", "c"]


def test_what_runs_do_not_have_in_common_is_said(tmp_path: Path):
    report = example_report()
    other = report.model_copy(
        update={
            "models": tuple(m.model_copy(update={"name": f"{m.name}2", "fingerprint": "ff"}) for m in report.models),
            "run": report.run.model_copy(update={"layer": 3, "smallest_effect": 0.05}),
            "quality": (),
        }
    )
    write_report(tmp_path / "a", report)
    write_report(tmp_path / "b", other)
    said = "\n".join(compared(tmp_path / "a", tmp_path / "b").notes)
    for told in ("The baselines differ", "The crosscoders differ", "layer compared differs: 2 of 4 in", "0.050 in"):
        assert told in said
    same = "\n".join(compared(tmp_path / "a", write_copy(tmp_path, report)).notes)
    assert "compare the same two models" in same
    assert "differ:" not in same


def write_copy(folder: Path, report: Report) -> Path:
    write_report(folder / "copy", report)
    return folder / "copy"


def test_an_older_report_compares_and_nothing_is_claimed_where_documents_are_not_known(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report_1_3()), encoding="utf-8")
    found = compared(tmp_path / "a", tmp_path / "b")
    assert "not known whether the documents of an_old_task are the same" in "\n".join(found.notes)
    assert {d.kind for d in found.differences} == {"latents", "bias", "error", "upper", "gap"}
    assert not any(d.is_clear for d in found.differences)
    assert "upper" in printed(found)


def test_runs_of_one_name_are_told_apart_by_their_folders():
    assert labels(["x", "y"], [Path("/r/a/report.json"), Path("/r/b/report.json")]) == ["x", "y"]
    same = [Path("/r/a/run/report.json"), Path("/r/b/run/report.json"), Path("/r/c/other/report.json")]
    assert labels(["x", "x", "y"], same) == ["a/run", "b/run", "y"]
    assert labels(["x", "x", "a"], [Path("/r/a/report.json"), Path("/r/b/report.json"), Path("/r/c/report.json")]) == [
        "a", "b", "c",
    ]  # fmt: skip
    assert labels(["x", "x"], [Path("/r/report.json"), Path("/r/old.json")]) == ["r", "old.json"]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_terminal_shows_every_score_and_part_whole(shifted: Comparison, width: int):
    text = printed(shifted, width)
    assert max(map(len, text.splitlines())) <= width
    for cell in shifted.cells:
        assert f"{signed(cell.gap)} [{signed(cell.interval.low)}" in text
    for part in shifted.parts:
        assert signed(part.contribution) in text
        assert part.written is None or part.read is None or f"w {signed(part.written)}, r {signed(part.read)}" in text
    assert "differs" in text
    assert "one +0.200" in text


def test_every_format_holds_every_number(shifted: Comparison, tmp_path: Path):
    paths = write(shifted, FILES, tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["comparison.md", "comparison.html", "comparison.json", "comparison.csv"]
    assert Comparison.model_validate_json(paths[2].read_text(encoding="utf-8")) == shifted
    for path in paths[:2]:
        text = path.read_text(encoding="utf-8")
        for row in [*shifted.differences, *shifted.parts]:
            value = row.difference if isinstance(row, Difference) else row.contribution
            assert signed(value) in text or (path.suffix == ".md" and isinstance(row, Difference) and row.task)
    rows = list(csv.DictReader(io.StringIO(paths[3].read_text(encoding="utf-8"))))
    counts = {what: sum(row["what"] == what for row in rows) for what in ("score", "sum", "part", "difference")}
    assert counts == {
        "score": len(shifted.cells), "sum": len(shifted.parts), "part": len(shifted.accounts),
        "difference": len(shifted.differences),
    }  # fmt: skip
    assert float(rows[0]["value"]) == shifted.cells[0].gap


def test_pages_link_to_the_runs_reports_wherever_they_lie(tmp_path: Path):
    folders = [planted_run(tmp_path / f"javascript:{n}", {"one": noise(1)}, candidate=n) for n in ("a", "b")]
    (folders[0] / "report.html").write_text("x")
    found = comparison(read_runs(folders), "c", tmp_path)
    assert [run.page for run in found.runs] == ["javascript:a/report.html", None]
    assert 'href="javascript%3Aa/report.html"' in render(found, "html")
    assert "](<javascript%3Aa/report.html>)" in render(found, "md")


def test_strings_from_outside_do_not_act(tmp_path: Path):
    bad = hostile_report()
    for name in ("a", "b"):
        write_report(tmp_path / name, bad)
    found = compared(tmp_path / "a", tmp_path / "b")
    assert set(found.tasks) <= set(HOSTILE)
    assert found.tasks
    page, text = render(found, "html"), render(found, "md")
    assert not re.search(r"<(script|img|iframe|a href=.?javascript)", page, re.IGNORECASE)
    assert "default-src 'none'" in page
    assert "<script" not in text.lower()
    assert not re.search("[\x1b\u202e\x07]", page + text + printed(found) + render(found, "csv"))
    for row in csv.reader(io.StringIO(render(found, "csv"))):
        assert not any(cell.startswith(("=", "@")) for cell in row)


def test_many_differences_and_notes_stay_within_a_page_of_markdown(shifted: Comparison):
    many = shifted.model_copy(update={"differences": shifted.differences * 300, "left_out": ("left out " * 60,) * 300})
    text = render(many, "md")
    assert len(text.encode()) <= LIMIT_BYTES
    assert "more differences, in `comparison.html`" in text
    assert "more, in `comparison.html`" in text.split("#### What to know")[1]
    assert "#### What the gaps are made of" in text
