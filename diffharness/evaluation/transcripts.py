"""From the files of plain lm-eval to an `Evaluation`: its scores, and a ledger made anew from what it asked and got.

The recorded requests pass through the recording model's own code (encoding, windows, truncation, prefix tokens), so
that the ledger is the one that recording would have given. What text can not give back is said in `settings["notes"]`:
ids of generated answers are made from their text, and of a rolling text in several windows only the sum of its
log-likelihoods is known.
"""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from lm_eval.api.instance import Instance, OutputType
from lm_eval.utils import handle_non_serializable, hash_string

from diffharness.errors import UsageError
from diffharness.evaluation.gathering import document_score, task_info
from diffharness.evaluation.harness import LoadedTasks
from diffharness.evaluation.ledger import Ledger, Reading
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation
from diffharness.evaluation.transcriber import Transcriber
from diffharness.evaluation.transcript_files import ResultFiles, Sample
from diffharness.evaluation.transcript_notes import Counts, notes
from diffharness.evaluation.transcript_options import protocol

_Key = tuple[str, int, int, int]
"""Task, document, request, repeat."""


@dataclass
class _Transcript:
    """What the files asked and were answered, for all tasks."""

    instances: dict[str, list[Instance]] = field(default_factory=lambda: defaultdict(list))
    """By request type; each as often as it was answered, in lm-eval's order."""
    answers: dict[_Key, Any] = field(default_factory=dict)
    texts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Generated answers by the identity of their request, in the order of the repeats."""

    def add(self, task: str, output_type: str, doc: Any, sample: Sample, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Take over the requests of one document."""
        kind = cast("OutputType", "loglikelihood" if output_type == "multiple_choice" else output_type)
        for index, (asked, responses) in enumerate(zip(arguments, sample["resps"], strict=True)):
            asked = asked[-1:] if kind == "loglikelihood_rolling" else asked
            request = Instance(
                cast("OutputType", kind), doc, asked, index, metadata=(task, sample["doc_id"], len(responses))
            )
            self.instances[kind].extend([request] * len(responses))
            for repeat, response in enumerate(responses):
                self.answers[task, sample["doc_id"], index, repeat] = response
                if kind == "generate_until":
                    self.texts[id(request)].append(response)


def read_transcript(
    files: ResultFiles, model: RecordingModel, tasks: LoadedTasks, *, model_args: str = ""
) -> Evaluation:
    """Scores, documents and ledger of a run of plain lm-eval, from its files.

    Scores are the files' own. `settings` holds `limit`, `protocol`, `batch_size`, `engine` (lm-eval's name of what
    answered), `notes` (what is not exact) and `rolling_log_likelihood`: by task and document, the sum over the windows
    of a rolling text that has several; their readings have no `log_likelihood` of their own.

    Args:
        files: the run.
        model: the replay model: Hugging Face weights and tokenizer of what answered.
        tasks: the run's tasks, as they are here.
        model_args: the replay model's arguments, kept with the result.

    Raises:
        UsageError: a task is not here or has other documents, a file is cut off or altered, or a request does not fit
            the replay model.
    """
    transcript, counts, asked_by = _Transcript(), Counts(), protocol(files, tasks)
    infos, documents = [], []
    for name in files.tasks:
        if name not in tasks.tasks:
            raise UsageError(f"{files.results} has results of task {name!r}, which was not loaded; add it to the tasks")
        task, samples = tasks.tasks[name], files.read(name)
        if {metric for sample in samples for metric in sample["metrics"]} <= {"bypass"}:
            raise UsageError(f"{files.results} was written with --predict_only and has no scores; run lm-eval without")
        docs = _checked_documents(files, name, task, samples)
        seen: set[int] = set()
        for sample in samples:
            doc = docs[sample["doc_id"]]
            arguments = [_rendered(model, asked, counts) for asked in sample["arguments"]]
            if sample["doc_id"] not in seen:
                transcript.add(name, files.output_type(name), doc, sample, arguments)
                seen.add(sample["doc_id"])
            sample |= {"doc": doc, "arguments": arguments}
            _restore_arrays(task, sample, counts)
            documents.append(document_score(name, task, sample))
        infos.append(task_info(name, task, dict(files.body), samples))
        counts.add_prompts(name, task, samples, asked_by, model)
    readings = _readings(files, model, transcript, counts)
    batch_size = files.body["config"].get("batch_size")
    settings = {
        "limit": files.body["config"].get("limit"),
        "protocol": asked_by,
        "batch_size": batch_size,
        "include_path": [],
        "layer": None,
        "engine": files.engine,
        "notes": [*files.notes, *notes(files, model, counts)],
        "rolling_log_likelihood": counts.rolling_sums,
    }
    return Evaluation(model_args, tuple(infos), tuple(documents), Ledger(tuple(readings)), settings)


def _readings(files: ResultFiles, model: RecordingModel, transcript: _Transcript, counts: Counts) -> list[Reading]:
    """Let the requests pass through the recording model, and give each reading the answer of the files."""
    transcriber = Transcriber(model, files, transcript.texts, counts)
    try:
        for kind, requests in transcript.instances.items():
            getattr(transcriber, kind)(requests)
    except (AssertionError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "a request is empty"
        raise UsageError(
            f"the requests in {files.results} do not fit the replay model ({reason}); give the weights that answered "
            "them, with their context length"
        ) from error
    ledger = transcriber.ledger()
    ledger.check_complete(list(transcript.answers))
    by_request: dict[_Key, list[Reading]] = defaultdict(list)
    for reading in ledger:
        by_request[reading.task, reading.doc_id, reading.index, reading.repeat].append(reading)
    return [
        reading
        for key, windows in by_request.items()
        for reading in _answered(windows, transcript.answers[key], counts)
    ]


def _answered(windows: list[Reading], answer: Any, counts: Counts) -> list[Reading]:
    """The readings of one request with its recorded answer."""
    first = windows[0]
    rescored = [r for r in windows if r.plain_log_likelihood is not None]
    counts.n_rescored += len(rescored)
    if first.kind == "generate_until":
        return [replace(first, retokenised=True)]
    log_likelihood, greedy = answer if first.kind == "loglikelihood" else (answer, None)
    if len(windows) > 1:
        if not rescored:
            counts.rolling_sums.setdefault(first.task, {})[str(first.doc_id)] = log_likelihood
        return [replace(r, log_likelihood=None, plain_log_likelihood=None, greedy=None) for r in windows]
    if rescored:
        return [replace(first, plain_log_likelihood=log_likelihood, greedy=greedy)]
    return [replace(first, log_likelihood=log_likelihood, greedy=greedy)]


def _checked_documents(files: ResultFiles, name: str, task: Any, samples: Iterable[Sample]) -> dict[int, Any]:
    """The task's own documents by number, after they were found to be those that were asked.

    Raises:
        UsageError: naming task and document.
    """
    logged = {sample["doc_id"]: sample["doc_hash"] for sample in samples}
    docs = {i: doc for i, doc in enumerate(task.eval_docs) if i in logged}
    hashes = {
        i: hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))
        for i, doc in docs.items()
    }
    different = [i for i, logged_hash in logged.items() if hashes.get(i) != logged_hash]
    if different and len(docs) == len(logged) and sorted(hashes.values()) == sorted(logged.values()):
        raise UsageError(
            f"{files.samples[name]}: the documents of task {name!r} are numbered in another order than they were read "
            "in, as lm-eval does where --samples is not sorted; run it again with sorted --samples"
        )
    if different:
        raise UsageError(
            f"task {name!r} has other documents here than in {files.samples[name]} ({len(different)} of {len(logged)} "
            f"differ, first document {different[0]}); use the task's version that was run, or run lm-eval again"
        )
    for sample in samples:
        if (first := sample["arguments"][0][0]) and _is_changed(first, sample["prompt_hash"]):
            raise UsageError(
                f"{files.samples[name]}: the prompt of document {sample['doc_id']} is not the one that its hash is of; "
                "the file was altered, run lm-eval again"
            )
    return docs


def _is_changed(prompt: Any, prompt_hash: str) -> bool:
    text = prompt[0] if isinstance(prompt, list) else prompt
    return isinstance(text, str) and hash_string(text) != prompt_hash


def _rendered(model: RecordingModel, arguments: tuple[Any, ...], counts: Counts) -> tuple[Any, ...]:
    """Arguments with the chat that an API was sent made into the text that the replay model's template makes of it."""
    prompt = arguments[0]
    if isinstance(prompt, str):
        return arguments
    try:
        text = model.apply_chat_template(json.loads(prompt[0]))
    except Exception as error:
        raise UsageError(
            f"the recorded run sent chats to an API, which the replay model's chat template can not render ({error}); "
            "give replay weights with the chat template of what answered"
        ) from error
    counts.n_chats += 1
    return (text, *arguments[1:])


def _restore_arrays(task: Any, sample: Sample, counts: Counts) -> None:
    """Have lm-eval make again what its files hold as rounded text only: arrays among a document's values (brier score).

    Only of log-likelihoods, which are exact in the files; answers are never judged again.
    """
    values: Mapping[str, Any] = {m: sample[m] for m in sample["metrics"]}
    lost = [m for m, v in values.items() if isinstance(v, list) and any(isinstance(x, str) for x in v)]
    if task.OUTPUT_TYPE == "multiple_choice" and lost:
        again = task.process_results(sample["doc"], sample["filtered_resps"])
        sample |= {metric: again[metric] for metric in lost}
        counts.remade |= set(lost)
