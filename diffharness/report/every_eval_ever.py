"""The scores of a run in the format of Every Eval Ever, schema 0.3.0 (github.com/evaleval/every_eval_ever).

A file a model with its scores, and one with its documents where the run's folder has them. The format knows neither
pairs nor mechanisms: gap and verdict stand among each score's details, the account stays in `report.json`. Paths of
this machine are left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from diffharness.report.every_eval_ever_documents import (
    VERSION,
    Documents,
    evaluation_name,
    read_documents,
    result_id,
)
from diffharness.report.schema import ModelInfo, Report, Task
from diffharness.report.settings import TaskSettings, hub_id, read_settings
from diffharness.report.text import clean

COLLECTION = "diffharness"
SCALES: dict[str, tuple[float, float]] = {
    "acc": (0.0, 1.0),
    "acc_norm": (0.0, 1.0),
    "acc_mutual_info": (0.0, 1.0),
    "exact_match": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "mcc": (-1.0, 1.0),
    "bleu": (0.0, 100.0),
    "perplexity": (1.0, math.inf),
    "word_perplexity": (1.0, math.inf),
    "byte_perplexity": (1.0, math.inf),
    "bits_per_byte": (0.0, math.inf),
}
"""What a score of lm-eval's metrics lies within; of other metrics nothing is said."""
_METRIC_IDS = {"acc": "accuracy", "exact_match": "exact_match", "f1": "f1", "mcc": "mcc", "bleu": "bleu"}
_GENERATION = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_gen_toks": "max_tokens"}


def every_eval_ever(report: Report, folder: Path | None, now: float) -> dict[str, bytes]:
    """The files by their path below `data/`'s parent, as the collection lays them out.

    Args:
        report: the run's report.
        folder: the run's folder, for the documents and the tasks' settings; `None` for scores alone.
        now: seconds since 1970, when the record is made.

    Raises:
        RunError: the folder's evaluation is damaged.
    """
    files: dict[str, bytes] = {}
    for model in report.models:
        rows = [(task, score) for task in report.tasks if (score := _score(task, model.side)) is not None]
        if rows:
            files.update(_of_model(report, model, rows, folder, now))
    return files


def _score(task: Task, side: str) -> float | None:
    return {"baseline": task.baseline, "candidate": task.candidate}.get(side, task.ancestor)


def _of_model(
    report: Report, model: ModelInfo, rows: Sequence[tuple[Task, float]], folder: Path | None, now: float
) -> dict[str, bytes]:
    """The record of one model, and its documents."""
    model_id = hub_id(model) or f"unknown/{portable(model.name)}"
    ran = _epoch(report.run.created)
    key = f"{COLLECTION}/{model_id}@{model.fingerprint}/{ran}"
    name = f"data/{COLLECTION}/{'/'.join(map(portable, model_id.split('/')))}/{_uuid(key)}"
    settings = read_settings(folder, model.side)
    documents = read_documents(folder, model.side)
    record: dict[str, Any] = {
        "schema_version": VERSION,
        "evaluation_id": key,
        "evaluation_timestamp": ran,
        "retrieved_timestamp": str(int(now)),
        "source_metadata": _source(report),
        "eval_library": {"name": "lm_eval", "version": report.provenance.versions.get("lm-eval", "unknown")},
        "model_info": _model(report, model, model_id),
        "evaluation_results": [
            _result(report, task, score, model, settings.get(task.task), documents) for task, score in rows
        ],
    }
    files: dict[str, bytes] = {}
    lines = documents.lines([task for task, _ in rows], key, model_id)
    if lines:
        content = "".join(_line(line) for line in lines).encode()
        files[f"{name}_samples.jsonl"] = content
        record["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": f"{name}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(content).hexdigest(),
            "total_rows": len(lines),
            "additional_details": {"left_out": documents.left_out([task for task, _ in rows])},
        }
    files[f"{name}.json"] = (json.dumps(_valid(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return files


def _source(report: Report) -> dict[str, Any]:
    return {
        "source_name": "lm-evaluation-harness, run by diffharness",
        "source_type": "evaluation_run",
        "source_organization_name": "unknown",
        "evaluator_relationship": "other",
        "additional_details": {
            "diffharness_version": report.provenance.versions.get("diffharness", "unknown"),
            "report_schema_version": report.schema_version,
            "config_hash": report.provenance.config_hash,
        },
    }


def _model(report: Report, model: ModelInfo, model_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": model.name,
        "id": model_id,
        "inference_engine": {"name": "transformers"},
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "open_weights" if hub_id(model) else "unknown",
            "side": model.side,
            "fingerprint": model.fingerprint,
            "num_parameters": str(model.n_parameters),
            "dtype": model.dtype,
        },
    }
    if (version := report.provenance.versions.get("transformers")) is not None:
        found["inference_engine"]["version"] = version
    if hub_id(model):
        found["developer"] = model_id.split("/")[0]
    return found


def _result(
    report: Report, task: Task, score: float, model: ModelInfo, ran: TaskSettings | None, documents: Documents
) -> dict[str, Any]:
    """One score of one task."""
    found: dict[str, Any] = {
        "evaluation_result_id": result_id(task),
        "evaluation_name": evaluation_name(task),
        "source_data": _dataset(task, ran),
        "metric_config": _metric(task, score),
        "score_details": {"score": score, "details": _details(report, task, model)},
    }
    if not task.is_group:
        found["score_details"]["uncertainty"] = _uncertainty(task, score, documents)
    if ran is not None:
        found["generation_config"] = _generation(ran)
    return found


def _dataset(task: Task, ran: TaskSettings | None) -> dict[str, Any]:
    if ran is None or ran.dataset is None:
        return {"dataset_name": task.task, "source_type": "other"}
    found: dict[str, Any] = {"dataset_name": task.task, "source_type": "hf_dataset", "hf_repo": ran.dataset}
    if ran.split is not None:
        found["hf_split"] = ran.split
    if ran.config is not None:
        found["additional_details"] = {"config": ran.config}
    return {**found, "samples_number": task.n}


def _metric(task: Task, score: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metric_id": _METRIC_IDS.get(task.metric, f"lm_eval.{task.metric}"),
        "metric_name": task.metric,
        "lower_is_better": not task.higher_is_better,
    }
    low, high = SCALES.get(task.metric, (math.inf, -math.inf))
    if low <= score <= high:
        found |= {"score_type": "continuous", "min_score": low, "max_score": "Infinity" if math.isinf(high) else high}
    else:
        found["additional_details"] = {"bounds_status": "unknown"}
    return found


def _details(report: Report, task: Task, model: ModelInfo) -> dict[str, str]:
    """What the score is worth beside the other model's, for those who know this project."""
    found = {"filter": task.filter, "task_hash": report.provenance.task_hashes.get(task.task, "unknown")}
    if model.side == "candidate":
        before = next((m for m in report.models if m.side == "baseline"), None)
        found |= {
            "baseline": "unknown" if before is None else hub_id(before) or before.name,
            "gap": repr(task.gap),
            "gap_low": repr(task.interval.low),
            "gap_high": repr(task.interval.high),
            "gap_level": repr(task.interval.level),
            "verdict": task.verdict,
        }
    return found


def _uncertainty(task: Task, score: float, documents: Documents) -> dict[str, Any]:
    """The standard error of a mean over documents, where the score is one; else the number of documents alone."""
    found: dict[str, Any] = {"num_samples": task.n}
    values = documents.values(task)
    if len(values) == task.n > 1 and math.isclose(statistics.fmean(values), score, rel_tol=1e-9, abs_tol=1e-12):
        deviation = statistics.stdev(values)
        found["standard_deviation"] = deviation
        found["standard_error"] = {"value": deviation / math.sqrt(len(values)), "method": "analytic"}
    return found


def _generation(ran: TaskSettings) -> dict[str, Any]:
    numbers = {_GENERATION[k]: v for k, v in ran.generation.items() if k in _GENERATION and isinstance(v, int | float)}
    others = {
        str(k): v if isinstance(v, str) else json.dumps(v) for k, v in ran.generation.items() if k not in _GENERATION
    }
    if ran.num_fewshot is not None:
        others["num_fewshot"] = str(ran.num_fewshot)
    return {"generation_args": numbers, "additional_details": others}


def portable(name: str) -> str:
    """A name as one part of a path on any system, for example `org_model`."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80]
    reserved = re.fullmatch(r"(?i)data|con|prn|aux|nul|com\d|lpt\d", kept.split(".")[0]) is not None
    return f"_{kept}" if reserved or not kept else kept


def _uuid(key: str) -> uuid.UUID:
    """A name for the file that is the same for the same model and run."""
    return uuid.UUID(bytes=hashlib.sha256(key.encode("utf-8", "replace")).digest()[:16], version=4)


def _epoch(created: str) -> str:
    """ISO 8601 as seconds since 1970; the text itself where it is no time."""
    try:
        return str(int(datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()))
    except ValueError:
        return clean(created)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_valid(record), ensure_ascii=False, allow_nan=False) + "\n"


def _valid(value: Any) -> Any:
    """Half code points, which UTF-8 does not have, as `U+FFFD`."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value
