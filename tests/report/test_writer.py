from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffharness.report.files import to_json
from diffharness.report.schema import Report
from diffharness.report.writer import write_report


def test_all_files_are_written_and_the_truth_round_trips(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert {"report.json", "report.md", "report.html", "figures/heatmap.svg", "figures/heatmap.png"} <= names
    assert "figures/account-organism_safety.svg" in names
    assert all(path.is_file() for path in paths)
    assert Report.load(tmp_path) == report
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_pictures_named_in_the_markdown_are_there(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in page.split("](")[1:]]
    assert pictures
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_figures_of_an_earlier_run_go_and_files_of_others_stay(report: Report, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "account-gone.svg").touch()
    (tmp_path / "figures" / "mine.svg").touch()
    write_report(report.model_copy(update={"tasks": report.tasks[:1]}), tmp_path)
    left = set(os.listdir(tmp_path / "figures"))
    assert "account-gone.svg" not in left
    assert "mine.svg" in left


def test_json_has_no_nan_and_no_half_code_points(report: Report) -> None:
    provenance = report.provenance.model_copy(update={"config": {"a": float("nan"), "b": Path("x"), "c": "\ud83d"}})
    run = report.run.model_copy(update={"name": "half \udc80 of one"})
    text = to_json(report.model_copy(update={"provenance": provenance, "run": run}))
    text.encode("utf-8")
    read = json.loads(text, parse_constant=pytest.fail)
    assert read["provenance"]["config"]["a"] is None
    assert read["provenance"]["config"]["b"] == "x"
    assert "half" in Report.model_validate_json(text).run.name


def test_a_failed_write_leaves_the_old_file(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").write_text("old")

    def fail(source: str, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("diffharness.report.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(report.model_copy(update={"tasks": ()}), tmp_path)
    assert (tmp_path / "report.json").read_text() == "old"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
