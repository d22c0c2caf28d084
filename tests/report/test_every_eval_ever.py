"""The export says what Every Eval Ever 0.3.0 asks for, with the run's own numbers and no path of this machine."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from diffharness.errors import RunError
from diffharness.report.every_eval_ever import every_eval_ever, portable
from diffharness.report.schema import Report
from tests.report.example import example_report

_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_SAMPLES = (
    "^data/[^/]+/[^/]+/[^/]+/[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-"
    "[0-9A-Fa-f]{12}_samples\\.jsonl$"
)


def _object(closed: bool = False, optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": not closed}


_RESULT = _object(
    optional=("generation_config",),
    evaluation_result_id=_TEXT,
    evaluation_name=_TEXT,
    source_data=_object(dataset_name=_TEXT, source_type={"enum": ["hf_dataset", "other", "url"]}),
    metric_config={
        **_object(lower_is_better={"type": "boolean"}),
        "if": {"required": ["score_type"]},
        "then": {"required": ["min_score", "max_score"]},
    },
    score_details=_object(score={"type": "number"}, details=_TEXTS),
    generation_config=_object(
        generation_args=_object(
            closed=True, optional=("temperature", "top_p", "top_k", "max_tokens"),
            temperature={}, top_p={}, top_k={}, max_tokens={"type": "integer"},
        ),
        additional_details=_TEXTS,
    ),
)  # fmt: skip
AGGREGATE = _object(
    closed=True,
    optional=("evaluation_timestamp", "detailed_evaluation_results"),
    schema_version={"const": "0.3.0"},
    evaluation_id=_TEXT,
    retrieved_timestamp={"type": "string", "pattern": "^[0-9]+$"},
    evaluation_timestamp=_TEXT,
    source_metadata=_object(
        source_type={"const": "evaluation_run"},
        source_organization_name=_TEXT,
        evaluator_relationship={"enum": ["first_party", "third_party", "collaborative", "other"]},
        additional_details=_TEXTS,
    ),
    model_info=_object(name=_TEXT, id={"type": "string", "pattern": "^[^/]+/[^/]+$"}, additional_details=_TEXTS),
    eval_library=_object(name=_TEXT, version=_TEXT),
    evaluation_results={"type": "array", "items": _RESULT, "minItems": 1},
    detailed_evaluation_results=_object(
        format={"const": "jsonl"}, file_path={"pattern": _SAMPLES}, hash_algorithm={"const": "sha256"},
        checksum=_TEXT, total_rows={"type": "integer", "minimum": 1}, additional_details=_TEXTS,
    ),
)  # fmt: skip
"""What the published eval.schema.json asks of the fields that are written, in our words."""
_ATTRIBUTION = _object(
    turn_idx={"type": "integer"}, source=_TEXT, extracted_value=_TEXT, extraction_method=_TEXT,
    is_terminal={"type": "boolean"},
)  # fmt: skip
INSTANCE = _object(
    closed=True, schema_version={"const": "0.3.0"}, evaluation_id=_TEXT, model_id=_TEXT, evaluation_name=_TEXT,
    evaluation_result_id=_TEXT, sample_id=_TEXT, sample_hash=_TEXT, interaction_type={"const": "single_turn"},
    input=_object(raw=_TEXT, reference={"type": "array"}, choices={"type": ["array", "null"]}),
    output=_object(raw={"type": "array", "items": _TEXT}), messages={"type": "null"},
    answer_attribution={"type": "array", "items": _ATTRIBUTION},
    evaluation=_object(score={"type": "number"}, is_correct={"type": "boolean"}), metadata=_TEXTS,
)  # fmt: skip


def aggregates(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The records by side."""
    read = [json.loads(content) for name, content in files.items() if name.endswith(".json")]
    return {record["model_info"]["additional_details"]["side"]: record for record in read}


def document(doc_id: int, value: float, **changed: Any) -> dict[str, Any]:
    answer = "right" if value == 1.0 else "wrong"
    return {
        "task": "organism_safety", "doc_id": doc_id, "filter": "none", "doc_hash": f"d{doc_id}", "prompt_hash": "p",
        "prompt": f"question {doc_id}", "target": "right", "answer": answer, "values": {"acc": value}, "gold": [0],
        "choices": ["right", "wrong"], **changed,
    }  # fmt: skip


def info(task: str, metric: str) -> dict[str, Any]:
    return {
        "name": task, "output_type": "multiple_choice", "version": "1", "hash": "a", "scores": {}, "categories": [],
        "metrics": [{"metric": metric, "filter": "none", "higher_is_better": True}],
    }  # fmt: skip


VALUES = [1.0, 0.0, 1.0, 1.0]


def report_of_four() -> Report:
    """One task of four documents, three of them right."""
    report = example_report(n_tasks=1)
    task = report.tasks[0].model_copy(update={"n": 4, "candidate": 0.75, "ancestor": None})
    models = tuple(
        m.model_copy(update={"model_args": f"pretrained=some-org/model-{m.side},dtype=float32"}) for m in report.models
    )
    return report.model_copy(update={"tasks": (task,), "models": models})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "evaluation" / "candidate"
    home.mkdir(parents=True)
    documents = [document(i, value) for i, value in enumerate(VALUES)]
    body = {"model_args": "m", "settings": {}, "tasks": [info("organism_safety", "acc")], "documents": documents}
    (home / "evaluation.json").write_text(json.dumps(body))
    config = {
        "dataset_path": "some-org/safety", "dataset_name": "main", "test_split": "test",
        "generation_kwargs": {"temperature": 0.0, "max_gen_toks": 8, "until": ["\n"]},
    }  # fmt: skip
    results = {"configs": {"organism_safety": config}, "n-shot": {"organism_safety": 3}}
    (home / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_every_score_of_every_model_is_a_result(report: Report) -> None:
    found = aggregates(every_eval_ever(report, None, now=2e9))
    assert {"baseline", "candidate"} <= set(found)
    for side in ("baseline", "candidate"):
        jsonschema.validate(found[side], AGGREGATE)
        scores = [result["score_details"]["score"] for result in found[side]["evaluation_results"]]
        assert scores == [getattr(task, side) for task in report.tasks]
        assert found[side]["retrieved_timestamp"] == "2000000000"
    ids = [result["evaluation_result_id"] for result in found["candidate"]["evaluation_results"]]
    assert len(set(ids)) == len(ids)
    gap = found["candidate"]["evaluation_results"][0]["score_details"]["details"]
    assert (float(gap["gap"]), gap["verdict"]) == (report.tasks[0].gap, report.tasks[0].verdict)
    assert "gap" not in found["baseline"]["evaluation_results"][0]["score_details"]["details"]


def test_a_scale_is_given_only_where_it_is_known_and_holds_the_score(report: Report) -> None:
    def config(metric: str, score: float) -> dict[str, Any]:
        task = report.tasks[0].model_copy(update={"metric": metric, "candidate": score})
        made = every_eval_ever(report.model_copy(update={"tasks": (task,)}), None, now=0)
        return aggregates(made)["candidate"]["evaluation_results"][0]["metric_config"]

    assert (config("acc", 0.5)["metric_id"], config("acc", 0.5)["max_score"]) == ("accuracy", 1.0)
    assert config("word_perplexity", 12.0)["max_score"] == "Infinity"
    for metric, score in (("acc", 51.0), ("my_judge", 0.5)):
        assert "score_type" not in config(metric, score)
        assert config(metric, score)["additional_details"] == {"bounds_status": "unknown"}


def test_documents_stand_in_a_file_of_their_own_that_the_record_names(folder: Path) -> None:
    files = every_eval_ever(report_of_four(), folder, now=0)
    record = aggregates(files)["candidate"]
    jsonschema.validate(record, AGGREGATE)
    named = record["detailed_evaluation_results"]
    content = files[named["file_path"]]
    assert named["checksum"] == hashlib.sha256(content).hexdigest()
    lines = [json.loads(line) for line in content.decode().splitlines()]
    assert named["total_rows"] == len(lines) == 4
    for line, value in zip(lines, VALUES, strict=True):
        jsonschema.validate(line, INSTANCE)
        assert line["evaluation"] == {"score": value, "is_correct": value == 1.0}
        assert (line["evaluation_id"], line["model_id"]) == (record["evaluation_id"], record["model_info"]["id"])
        assert line["evaluation_result_id"] == record["evaluation_results"][0]["evaluation_result_id"]
    assert named["file_path"].removesuffix("_samples.jsonl") + ".json" in files


def test_settings_and_standard_error_come_from_the_folder(folder: Path) -> None:
    (result,) = aggregates(every_eval_ever(report_of_four(), folder, now=0))["candidate"]["evaluation_results"]
    assert result["source_data"]["hf_repo"] == "some-org/safety"
    assert result["generation_config"]["generation_args"] == {"temperature": 0.0, "max_tokens": 8}
    assert result["generation_config"]["additional_details"] == {"until": '["\\n"]', "num_fewshot": "3"}
    found = result["score_details"]["uncertainty"]
    assert found["standard_error"]["value"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_a_score_that_is_no_mean_of_its_documents_has_no_standard_error(folder: Path) -> None:
    report = report_of_four()
    other = report.tasks[0].model_copy(update={"candidate": 0.7})
    files = every_eval_ever(report.model_copy(update={"tasks": (other,)}), folder, now=0)
    (result,) = aggregates(files)["candidate"]["evaluation_results"]
    assert result["score_details"]["uncertainty"] == {"num_samples": 4}


def test_documents_that_are_not_right_or_wrong_are_left_out_and_named(folder: Path) -> None:
    file = folder / "evaluation" / "candidate" / "evaluation.json"
    body = json.loads(file.read_text())
    body["documents"] += [document(i, 0.5, task="other", values={"bits_per_byte": 0.5}) for i in range(4)]
    body["tasks"].append(info("other", "bits_per_byte"))
    file.write_text(json.dumps(body))
    report = report_of_four()
    other = report.tasks[0].model_copy(update={"task": "other", "metric": "bits_per_byte", "candidate": 0.5})
    files = every_eval_ever(report.model_copy(update={"tasks": (*report.tasks, other)}), folder, now=0)
    named = aggregates(files)["candidate"]["detailed_evaluation_results"]
    assert named["total_rows"] == 4
    assert named["additional_details"]["left_out"].startswith("other bits_per_byte: their values")


def test_a_model_of_the_hub_has_its_id_and_a_folder_gives_no_path_away(report: Report) -> None:
    assert aggregates(every_eval_ever(report_of_four(), None, 0))["candidate"]["model_info"]["id"] == (
        "some-org/model-candidate"
    )
    models = tuple(
        m.model_copy(update={"model_args": "/home/someone/secret/tuned", "name": "tuned"}) for m in report.models
    )
    files = every_eval_ever(report.model_copy(update={"models": models}), None, 0)
    assert aggregates(files)["candidate"]["model_info"]["id"] == "unknown/tuned"
    assert not any(b"secret" in content for content in files.values())


def test_the_same_run_has_the_same_file_names_and_hostile_names_leave_no_folder(hostile: Report) -> None:
    assert [*every_eval_ever(hostile, None, 0)] == [*every_eval_ever(hostile, None, 1e9)]
    for name, content in every_eval_ever(hostile, None, 0).items():
        assert name.count("/") == 4
        assert ".." not in name.split("/")
        jsonschema.validate(json.loads(content.decode("utf-8")), AGGREGATE)
    assert [portable(name) for name in ("../..", "con", "data", "a b/c", "")] == ["_", "_con", "_data", "a_b_c", "_"]


def test_a_damaged_evaluation_is_named(folder: Path) -> None:
    (folder / "evaluation" / "candidate" / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match=r"does not hold a recorded evaluation .*; run it again"):
        every_eval_ever(report_of_four(), folder, now=0)
