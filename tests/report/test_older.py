"""A report that version 1.3 wrote, whose account stops at the layer, still opens and is shown in every view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from diffharness.report.account_notes import account_notes
from diffharness.report.charts import figures
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import SCHEMA_VERSION, Report
from diffharness.report.view import ordered, waterfall
from diffharness.report.words import account_sentence
from tests.report.test_quality import printed


def interval(value: float) -> dict[str, Any]:
    return {"low": value - 0.05, "high": value + 0.05, "level": 0.95, "method": "paired percentile bootstrap"}


def component(kind: str, origin: str | None, category: str | None, value: float, check: float | None) -> dict[str, Any]:
    ablation = None if check is None else {"score": 0.9 - check, "change": check, "interval": interval(check), "n": 40}
    return {
        "kind": kind, "origin": origin, "category": category, "contribution": value, "contribution_raw": 5 * value,
        "interval": interval(value), "share": value / 0.4, "p_value": 0.001, "q_value": 0.002,
        "n_latents": 23 if kind == "latents" else None, "ablation": ablation,
        "ablation_reason": None if ablation or kind != "latents" else "the contribution is not clear",
    }  # fmt: skip


def report_1_3() -> dict[str, Any]:
    """A report as 1.3 wrote it: `upper` in one piece, one order, no interaction, nothing tried against random sets."""
    task = {
        "task": "an_old_task", "metric": "acc", "filter": "none", "is_primary": True, "output_type": "multiple_choice",
        "higher_is_better": True, "categories": ["safety"], "n": 40, "baseline": 0.5, "candidate": 0.9,
        "ancestor": None, "gap": 0.4, "interval": interval(0.4), "p_value": 0.0001, "q_value": 0.0003,
        "verdict": "improved", "not_tracked": 0.0, "interaction": None, "account_reason": None, "completeness": 1e-4,
        "n_accounted": 40, "documents": [],
        "surrogate": {
            "name": "probability of the gold choice", "unit": "probability", "baseline": 0.5, "candidate": 0.9,
            "gap": 0.4, "rank_correlation": 0.9, "tracks": True, "tracks_reason": "one sign",
        },
        "components": [
            component("latents", "written", "safety", 0.22, 0.3),
            component("latents", "written", "facts", 0.01, None),
            component("bias", "written", None, 0.02, None),
            component("error", "written", None, 0.03, None),
            component("upper", None, None, 0.12, None),
        ],
    }  # fmt: skip
    return {
        "schema_version": "1.3",
        "run": {
            "name": "old", "created": "2026-02-01T12:00:00Z", "command": "diffharness run", "layer": 1, "n_layers": 4,
            "order": "the candidate's upper layers", "smallest_effect": 0.02, "seed": 0, "seconds": 12.0, "notes": [],
        },
        "models": [
            {
                "side": side, "name": side, "model_args": "", "n_parameters": 10, "n_layers": 4, "hidden_size": 8,
                "dtype": "float32", "fingerprint": "9f86d081884c7d65",
            }
            for side in ("baseline", "candidate")
        ],
        "comparability": {"documents_equal": True, "prompts_equal": True, "tokenizers_equal": True, "notes": []},
        "quality": [], "tasks": [task], "categories": [], "categories_reason": "there is no ancestor", "latents": [],
        "annotation": None, "changed": None, "corpus": [],
        "validation": {
            "completeness": {"median": 1e-5, "percentile_99": 1e-3, "maximum": 2e-3, "n": 40, "nodes": 8},
            "replay": [], "controls": [], "mechanism_withheld": None,
        },
        "provenance": {
            "versions": {"diffharness": "0.4.0"}, "platform": "Linux", "config": {}, "config_hash": "0",
            "task_hashes": {},
        },
    }  # fmt: skip


@pytest.fixture
def older(tmp_path: Path) -> Report:
    (tmp_path / "report.json").write_text(json.dumps(report_1_3()), encoding="utf-8")
    return Report.load(tmp_path)


def test_it_opens_with_its_version_and_without_what_is_new(older: Report) -> None:
    assert older.schema_version == "1.3" != SCHEMA_VERSION
    for new in (older.claims, older.shapley, older.depth, older.flips, older.ablated):
        assert new == ()
    (task,) = older.tasks
    assert task.upper_check is None
    assert [c.interaction for c in task.components] == [None] * 5
    assert ordered(task.components)[-1].kind == "upper"
    assert Report.model_validate_json(older.model_dump_json()) == older


def test_its_waterfall_still_leads_to_the_candidate(older: Report) -> None:
    steps = waterfall(older.tasks[0])
    assert [step.label for step in steps] == ["baseline", "safety", "facts", "bias", "error", "upper", "candidate"]
    assert steps[-2].end == pytest.approx(steps[-1].end)


@pytest.mark.parametrize("view", ["terminal", "markdown", "html"])
def test_every_view_shows_the_upper_layers_in_one_piece(older: Report, view: str) -> None:
    pages = {
        "terminal": lambda: printed(older, 100),
        "markdown": lambda: render_markdown(older),
        "html": lambda: render_html(older, figures(older)),
    }
    page = pages[view]()
    for told in ("an_old_task", "upper", "+0.120", "+0.220", "agrees"):
        assert told in page.replace("\\_", "_"), told
    for new in ("(read)", "Written differently", "Shapley", "interaction</th>", "are a cause"):
        assert new not in page, new


def test_nothing_of_it_is_a_cause_since_nothing_was_tried_against_chance(older: Report) -> None:
    said = account_sentence(older.tasks[0], older.claims)
    assert "the upper layers +0.120 (30\u00a0%)" in said
    assert "whether random latents do as much was not tried" in said
    assert "cause" not in said
    assert account_notes(older.tasks[0]) == ()


def test_unknown_keys_are_refused_in_old_reports_too() -> None:
    body = report_1_3()
    body["tasks"][0]["components"][0]["reading"] = 1.0
    with pytest.raises(ValidationError, match="reading"):
        Report.model_validate(body)
