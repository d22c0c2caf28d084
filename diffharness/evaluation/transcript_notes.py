"""What the files of plain lm-eval can not give back exactly, counted while they are read, and said in words."""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval.utils import hash_string

from diffharness.errors import UsageError
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.transcript_files import ResultFiles, Sample
from diffharness.evaluation.transcript_options import HUGGING_FACE


@dataclass
class Counts:
    """What was met."""

    n_answers: int = 0
    n_ended: int = 0
    """Answers after which the replay model finds a stop most likely."""
    n_open: int = 0
    """Answers that had room for more, and after which it does not."""
    n_other_text: int = 0
    """Answers of which the ids say something else."""
    n_chats: int = 0
    n_rescored: int = 0
    remade: set[str] = field(default_factory=set)
    """Metrics whose documents' values were computed again from the recorded log-likelihoods."""
    other_prompts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By task: documents that would be asked otherwise today, and all."""
    rolling_sums: dict[str, dict[str, float]] = field(default_factory=dict)
    """By task and document: log-likelihood of a rolling text in several windows."""

    def add_answer(self, *, same: bool, stop: bool, room: bool) -> None:
        """Count a generated answer: do its ids say the recorded text, was its stop found, had it room for more."""
        self.n_answers += 1
        self.n_other_text += not same
        self.n_ended += stop
        self.n_open += room and not stop

    def add_prompts(
        self, name: str, task: Any, samples: Sequence[Sample], protocol: Mapping[str, Any], model: RecordingModel
    ) -> None:
        """Count the documents that lm-eval would ask otherwise today, with the protocol that the files stand for.

        Raises:
            UsageError: it can not ask at all with that protocol.
        """
        logged = {sample["doc_id"]: sample["prompt_hash"] for sample in samples}
        try:
            asked = _prompts_today(name, task, sorted(logged), protocol, model)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"task {name!r} can not be asked here as it was then ({reason}); use the task's version that was run "
                "and weights with the chat template of what answered"
            ) from error
        n_other = sum(hash_string(prompt) != logged[doc_id] for doc_id, prompt in asked.items())
        if n_other and not self.n_chats:
            self.other_prompts[name] = (n_other, len(logged))


def _prompts_today(
    name: str, task: Any, doc_ids: Sequence[int], protocol: Mapping[str, Any], model: RecordingModel
) -> dict[int, str]:
    """The prompts of documents, made as `simple_evaluate` makes them from the protocol."""
    own, shots = task.get_config("num_fewshot"), protocol.get("num_fewshot")
    task.set_config(key="num_fewshot", value=own if own == 0 or shots is None else shots)
    task.set_fewshot_seed(seed=protocol.get("fewshot_random_seed", 1234))
    chats = bool(protocol.get("apply_chat_template"))
    task.build_all_requests(
        samples=protocol.get("samples", {}).get(name),
        limit=None if name in protocol.get("samples", {}) else len(doc_ids),
        system_instruction=protocol.get("system_instruction"),
        apply_chat_template=chats,
        fewshot_as_multiturn=protocol.get("fewshot_as_multiturn", True),
        chat_template=model.apply_chat_template if chats else None,
        tokenizer_name=model.tokenizer_name if chats else "",
    )
    task.set_config(key="num_fewshot", value=own)
    first = [instance for instance in task.instances if instance.idx == 0]
    return {doc_id: str(i.arguments[0]) for doc_id, i in zip(doc_ids, first, strict=False)}


def notes(files: ResultFiles, model: RecordingModel, counts: Counts) -> list[str]:
    """What is not exact, a sentence each."""
    n, found = counts.n_answers, []
    foreign = files.engine not in HUGGING_FACE
    if foreign:
        found.append(
            f"scored by {files.engine}, replayed with Hugging Face weights: token ids and windows are those of "
            "lm-eval's hf model, and where that engine cut a long context is not known"
        )
    if n:
        ends = f"in {counts.n_ended} the stop is what the replay model finds most likely next"
        ends += f", in {counts.n_open} it is not known" if counts.n_open else ""
        found.append(f"generated ids re-tokenised in {n} of {n} answers, as the samples files hold text; {ends}")
    if counts.n_other_text:
        found.append(f"{counts.n_other_text} of {n} answers, re-tokenised, do not decode to the recorded text")
    if n and getattr(model, "think_end_token", None) is not None:
        found.append("thinking was cut off before lm-eval wrote the answers and can not be replayed")
    n_sums = sum(map(len, counts.rolling_sums.values()))
    if n_sums:
        found.append(f"{n_sums} rolling texts take several windows; only the sum of their log-likelihoods is known")
    if counts.n_rescored:
        found.append(
            f"{counts.n_rescored} requests were scored on the wrong tokens by lm-eval's grouping; the replay model "
            "scored them again for the mechanism, the scores stay"
        )
    if counts.n_chats:
        found.append(
            f"{counts.n_chats} prompts were sent to an API as chats; they are rendered with the replay model's template"
        )
    if counts.remade:
        found.append(
            f"{', '.join(sorted(counts.remade))}: the files hold rounded values, made again from the log-likelihoods"
        )
    for task, (some, every) in counts.other_prompts.items():
        found.append(
            f"{task}: lm-eval would ask {some} of {every} documents otherwise here than it did then (shots, template "
            "or task changed); exact checks are of today's prompts"
        )
    return [*found, *_differences(files, model)]


def _differences(files: ResultFiles, model: RecordingModel) -> list[str]:
    """How the replay model differs from what lm-eval wrote down of the one that answered."""
    found, body = [], files.body
    if (length := body.get("max_length")) is not None and length != model.max_length:
        found.append(f"the context was {length} tokens when scored and is {model.max_length} in the replay model")
    tokenizer = model.hf_tokenizer
    for name in ("eos", "bos"):
        recorded = body.get(f"tokenizer_{name}_token")
        own = [getattr(tokenizer, f"{name}_token", None), str(getattr(tokenizer, f"{name}_token_id", None))]
        if isinstance(recorded, list) and recorded != own:
            found.append(
                f"the {name} token was {recorded[0]!r} ({recorded[-1]}) when scored and is {own[0]!r} ({own[1]}) in "
                "the replay model's tokenizer"
            )
    return found
