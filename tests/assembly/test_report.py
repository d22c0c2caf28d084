"""A finished run of the tiny models, checked from its files alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict

import pyarrow.parquet as pq
import pytest
import yaml

from diffharness.attribution.path import TOLERANCE
from diffharness.report.schema import Report, component_label

TASKS = {"tiny_choice", "tiny_word", "tiny_text", "tiny_answer"}


@pytest.fixture(scope="module")
def report(tiny_run) -> Report:
    return Report.load(tiny_run)


@pytest.fixture(scope="module")
def accounted(report):
    return [task for task in report.tasks if task.components]


def test_every_output_type_is_accounted_for_and_moved(accounted):
    assert {t.task for t in accounted} == TASKS
    assert {t.output_type for t in accounted} == {
        "multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until",
    }  # fmt: skip
    assert {t.verdict for t in accounted} == {"improved"}
    assert all(t.n_accounted == t.n == 12 for t in accounted)


def test_contributions_sum_to_the_surrogates_gap_up_to_the_quadrature(accounted):
    for task in accounted:
        total = sum(c.contribution for c in task.components)
        assert total == pytest.approx(
            task.surrogate.gap, abs=1e-3 * max(abs(task.surrogate.gap), 0.002) + task.completeness
        )
        assert task.completeness < 0.005
        assert task.surrogate.gap == pytest.approx(task.surrogate.candidate - task.surrogate.baseline)


def test_layers_above_that_do_not_differ_read_nothing_and_all_is_written(accounted):
    """The pair differs only below the layer, so that both stacks above read alike wherever a line begins."""
    for task in accounted:
        above = [c for c in task.components if c.origin != "written"]
        assert {(c.kind, c.origin) for c in above} == {("latents", "read"), ("error", "read"), ("prior", None)}
        assert [c.contribution for c in above] == pytest.approx([0.0] * len(above), abs=1e-5)
        assert [c.interaction for c in task.components] == pytest.approx([0.0] * len(task.components), abs=1e-5)
        assert task.interaction == pytest.approx(0, abs=1e-5)
        assert (task.upper_check is not None) == any(c.ablation for c in task.components)
        assert task.upper_check is None or task.upper_check.change == 0
        written = sum(c.contribution for c in task.components if c.origin == "written")
        assert abs(written) > 0.01
        assert written == pytest.approx(task.surrogate.gap, abs=1e-4 + task.completeness)


def test_stored_contributions_sum_to_the_reports(tiny_run, accounted):
    sums: dict[tuple[str, str, str | None, str | None], list[float]] = defaultdict(list)
    raw: dict[tuple[str, str, str | None, str | None], list[float]] = defaultdict(list)
    for row in pq.read_table(tiny_run / "contributions.parquet").to_pylist():
        key = row["task"], row["kind"], row["origin"], row["category"]
        sums[key].append(row["contribution"])
        raw[key].append(row["contribution_raw"])
    expected = {(t.task, c.kind, c.origin, c.category): c for t in accounted for c in t.components}
    assert set(sums) == set(expected)
    for key, component in expected.items():
        assert len(sums[key]) == 12
        assert math.fsum(sums[key]) / 12 == pytest.approx(component.contribution, abs=1e-9)
        assert math.fsum(raw[key]) / 12 == pytest.approx(component.contribution_raw, abs=1e-9)


def test_latents_contributions_sum_to_their_categorys(report, accounted):
    for task in accounted:
        for component in (c for c in task.components if c.kind == "latents"):
            latents = [x for x in report.latents if x.category == component.category]
            own = [x.read.get(task.task, 0.0) for x in latents]
            if component.origin == "written":
                own = [x.contributions.get(task.task, 0.0) - n for x, n in zip(latents, own, strict=True)]
            assert math.fsum(own) == pytest.approx(component.contribution, abs=1e-9)
            assert len(own) == component.n_latents


def test_intervals_hold_their_contribution(accounted):
    for component in (c for t in accounted for c in t.components):
        assert component.interval.low <= component.contribution <= component.interval.high
        assert component.p_value is not None
        assert component.q_value >= component.p_value - 1e-12


def test_shares_are_of_real_gaps_only(report, accounted):
    for task in accounted:
        assert [c.share for c in task.components] == pytest.approx(
            [c.contribution / task.surrogate.gap for c in task.components]
        )
    assert all(not t.components and t.account_reason for t in report.tasks if not t.is_primary)


def test_surrogate_tracks_and_what_it_misses_is_told(accounted):
    for task in accounted:
        assert task.surrogate.tracks, task.surrogate.tracks_reason
        assert task.not_tracked == pytest.approx(task.gap - task.surrogate.gap)
    (text,) = [t for t in accounted if t.task == "tiny_text"]
    assert text.surrogate.gap == pytest.approx(text.gap, abs=1e-4), "bits per byte is its own surrogate"


def test_clear_contributions_have_an_exact_check_or_a_reason(accounted):
    checked = [(t, c) for t in accounted for c in t.components if c.ablation]
    assert checked
    for task, component in checked:
        assert component.origin == "written", "nothing is read differently here"
        assert component.ablation.change == pytest.approx(task.candidate - component.ablation.score)
        assert component.interval.excludes_zero()
    assert all((c.ablation is None) == (c.ablation_reason is not None) for t in accounted for c in t.components)


def test_replay_agrees_with_lm_eval_on_every_task_and_side(report):
    checks = report.validation.replay
    assert {(c.task, c.side) for c in checks} == {(t, s) for t in TASKS for s in ("baseline", "candidate")}
    assert all(c.holds and c.n >= 10 for c in checks)
    assert all(c.maximum < 1e-4 and c.n_requests >= 12 for c in checks if c.task != "tiny_answer")
    assert all(c.changed_share == 0 and c.n_decisions >= 12 for c in checks), [c.model_dump() for c in checks]
    assert report.validation.completeness.maximum <= TOLERANCE
    assert report.validation.completeness.median < TOLERANCE / 10


def test_documents_shown_are_those_that_changed(accounted):
    for task in accounted:
        assert 0 < len(task.documents) <= 6
        for document in task.documents:
            assert document.baseline_score != document.candidate_score
            assert set(document.contributions) == {
                component_label(c.kind, c.category, c.origin) for c in task.components
            }


def test_controls_repeat_the_account_of_every_moved_task(report):
    assert {(c.name, c.task) for c in report.validation.controls} == {
        (name, task) for name in ("shuffled labels", "random encoder") for task in TASKS
    }


def test_ancestor_adds_its_scores_crosscoders_and_shift(report):
    assert [m.side for m in report.models] == ["baseline", "candidate", "ancestor"]
    assert [q.models for q in report.quality] == [
        ("baseline", "candidate"), ("ancestor", "baseline"), ("ancestor", "candidate"),
        ("ancestor", "baseline", "candidate"),
    ]  # fmt: skip
    assert all(t.ancestor is not None for t in report.tasks)
    assert {c.name for c in report.categories} >= {"animals", "night"}
    assert {quality.n_latents for quality in report.quality} == {32}
    assert [sum(quality.n_by_status.values()) for quality in report.quality if len(quality.models) == 2] == [32] * 3


def test_metadata_categories_are_shown_and_never_name_a_latent(report):
    assert {t.categories for t in report.tasks} == {("night",)}
    assert report.provenance.config["probes"].endswith("probes.jsonl")


def test_no_file_of_the_run_has_a_number_that_is_none(tiny_run):
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in {file}")

    for file in tiny_run.rglob("*.json"):
        if "results" not in file.name:
            json.loads(file.read_text(), parse_constant=refuse)


def test_manifest_has_the_hash_of_every_file(tiny_run):
    artifacts = json.loads((tiny_run / "manifest.json").read_text())["artifacts"]
    files = {str(p.relative_to(tiny_run)) for p in tiny_run.rglob("*") if p.is_file()}
    assert set(artifacts) == files - {"manifest.json", "labels.csv"}, "the table is the reader's to fill in"
    for name, entry in artifacts.items():
        assert entry["sha256"] == hashlib.sha256((tiny_run / name).read_bytes()).hexdigest()


def test_run_folder_is_as_the_contract_says(tiny_run, report):
    for name in (
        "run.yaml", "manifest.json", "evaluation/baseline/ledger.parquet", "evaluation/candidate/results.json",
        "activations/index.parquet", "crosscoder/config.json", "crosscoder/model.safetensors",
        "crosscoder/quality.json", "latents.parquet", "contributions.parquet", "report.json", "report.md",
        "report.html", "figures",
    ):  # fmt: skip
        assert (tiny_run / name).exists(), name
    assert yaml.safe_load((tiny_run / "run.yaml").read_text()) == report.provenance.config
    assert pq.read_table(tiny_run / "latents.parquet").num_rows == len(report.latents) == 32
