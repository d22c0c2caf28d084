"""The adapter to the tasks' own training splits: each document as lm-eval would show it as a solved example."""

# lm-eval's task objects are known by what they answer to; its decorators hide the types.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffharness.errors import UsageError

if TYPE_CHECKING:
    from lm_eval.api.task import Task


def training_split(task: Task) -> str | None:
    """The name of a task's training split, or `None` where it has none."""
    if not task.has_training_docs():
        return None
    return str(getattr(task.config, "training_split", None) or "train")


def training_documents(name: str, task: Task) -> Sequence[Any]:
    """A task's training documents, to be indexed.

    Raises:
        UsageError: the split that the task names can not be read.
    """
    try:
        documents = task.training_docs()
        return documents if hasattr(documents, "__getitem__") else list(documents)  # pyright: ignore[reportReturnType]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--corpus tasks: the training split {training_split(task)!r} of task {name!r} can not be read ({reason}); "
            "mend its YAML or leave the task out"
        ) from error


def training_text(task: Task, document: Any) -> str:
    """Question, delimiter and right answer as in lm-eval's few-shot prompts; a text to be scored whole as it is."""
    if str(task.OUTPUT_TYPE) == "loglikelihood_rolling":
        return str(task.doc_to_target(document))
    if not hasattr(task, "build_qa_turn"):  # a task written in Python, not in YAML
        return f"{task.doc_to_text(document)}{task.doc_to_target(document)}"
    shown = task.fewshot_cfg
    question = task.doc_to_text(document, shown.doc_to_text)
    answer = task.doc_to_target(document, shown.doc_to_target)
    choices = task.doc_to_choice(document, shown.doc_to_choice) if shown.doc_to_choice else None
    if getattr(task, "multiple_input", 0) and choices:
        question, choices = choices[int(question)], None
    if isinstance(answer, list):
        answer = answer[0] if answer else ""
    if isinstance(answer, int) and choices:
        answer = choices[answer]
    messages = task.build_qa_turn(
        q=str(question),
        a=str(answer),
        gen_prefix=task.resolve_field(document, shown.gen_prefix),
        tgt_delim=shown.target_delimiter,
        few_delim="",
    )
    return "".join(message.to_text() for message in messages)
