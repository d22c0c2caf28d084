"""What went through the model while lm-eval scored, and whose request it was: `recording.py`'s part of the adapter."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lm_eval.api.instance import Instance
from lm_eval.models.utils import Collator

from diffharness.errors import RunError
from diffharness.evaluation.ledger import Reading


@dataclass(frozen=True)
class Forwarded:
    """What one forwarded request looked like; the fields are a `Reading`'s, the ids packed: there may be millions."""

    ids: array[int]
    start: int
    targets: tuple[int, ...]
    truncated: bool
    log_likelihood: float | None = None
    greedy: bool | None = None
    plain_log_likelihood: float | None = None

    def reading(self, request: Instance, repeat: int, window: int = 0) -> Reading:
        """The row of the ledger, now that it is known whose it is.

        Raises:
            RunError: the prompt of a generated answer has no tokens.
        """
        task, doc_id = str(request.task_name), int(request.doc_id or 0)
        if self.start < 0:
            raise RunError(
                f"task {task!r}, document {doc_id}: its prompt has no tokens, so nothing predicts the answer's first; "
                "give the task a prompt, or the model add_bos_token=True"
            )
        return Reading(
            task=task, doc_id=doc_id, index=request.idx, repeat=repeat, window=window, kind=request.request_type,
            ids=tuple(self.ids), start=self.start, targets=self.targets, log_likelihood=self.log_likelihood,
            truncated=self.truncated, greedy=self.greedy, plain_log_likelihood=self.plain_log_likelihood,
        )  # fmt: skip


_NOTHING = Forwarded(ids=array("i"), start=0, targets=(), truncated=False, log_likelihood=0.0)
"""What is read of a rolling text without tokens."""


def with_repeats(requests: Sequence[Instance]) -> list[tuple[Instance, int]]:
    """Each request with how often the same object came before: lm-eval repeats a request by repeating the object."""
    seen: dict[int, int] = defaultdict(int)
    numbered = []
    for request in requests:
        numbered.append((request, seen[id(request)]))
        seen[id(request)] += 1
    return numbered


def windows_of(n_tokens: int, windows: Iterator[Forwarded]) -> Iterator[Forwarded]:
    """The next text's windows: as many as it takes to score all its tokens."""
    if n_tokens == 0:
        yield _NOTHING
    while n_tokens > 0:
        window = next(windows)
        n_tokens -= len(window.targets)
        yield window


def in_order_of_requests(
    requests: Sequence[Instance], prompts: Sequence[str], rows: Sequence[Forwarded]
) -> list[Forwarded]:
    """Generated rows, given as they were forwarded, one a request.

    lm-eval goes through its groups of equal generation arguments one after the other, and keeps the order of equal
    prompts within one; so a prompt's text tells whose answer a row is.
    """
    waiting: dict[str, deque[Forwarded]] = defaultdict(deque)
    for prompt, row in zip(prompts, rows, strict=True):
        waiting[prompt].append(row)
    arguments = [request.arguments[1] for request in requests]
    groups = Collator.group(range(len(requests)), fn=arguments.__getitem__)
    found = {
        position: waiting[requests[position].arguments[0]].popleft() for group in groups.values() for position in group
    }
    return [found[position] for position in range(len(requests))]
