"""The recording model: lm-eval's own `HFLM`, which also remembers what it read.

Nothing hooks the model while it scores: the three request methods are passed through and only the token ids that
go by are kept, so that scores stay lm-eval's own to the bit. With `record_to` and `layer` it is the model that
`diffharness lm-eval` registers.
"""

# lm-eval's registry hides the class that it decorates from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from diffharness.errors import UsageError
from diffharness.evaluation.ledger import Ledger, Reading


@dataclass
class _Tokens:
    """What one forwarded request looked like, before it is known whose it is."""

    ids: tuple[int, ...]
    start: int
    targets: tuple[int, ...]
    log_likelihood: float | None
    truncated: bool


class _ProgressHook(CacheHook):
    """lm-eval tells its cache of every answer as it comes; without a cache, that is a progress report."""

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__(None)
        self._report = report

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        del attr, req, res
        self._report()


class RecordingModel(HFLM):
    """A causal Hugging Face model in lm-eval that keeps a ledger of its requests.

    Takes every argument of lm-eval's `hf` model, and

    Args:
        record_to: folder that `diffharness lm-eval` leaves scores, ledger and activations in.
        layer: the layer (index, or fraction of depth) whose activations are left there.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        *,
        record_to: str | None = None,
        layer: str | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pretrained, **kwargs)
        self.record_to = Path(record_to) if record_to is not None else None
        self.layer = None if layer is None else str(layer)
        self.n_requests = 0
        self._quiet = False
        self._readings: list[Reading] = []
        self._passing: list[_Tokens] = []
        self._prompts: list[str] = []
        if self.backend != "causal":
            raise UsageError(f"{self.pretrained} is not a causal language model; only those can be compared")

    @property
    def hf_model(self) -> PreTrainedModel:
        """The Hugging Face model itself."""
        return self.model

    @property
    def hf_tokenizer(self) -> Any:
        """The tokenizer."""
        return self.tokenizer

    def tokenize(self, text: str) -> list[int]:
        """The ids that the model would read for a text, special tokens included, cut to the context."""
        return self.tok_encode(text)[: self.max_length]

    def report_progress(self, report: Callable[[], None]) -> None:
        """Call `report` once for every request that is answered, in place of lm-eval's own progress bars."""
        self._quiet = True
        self.cache_hook = _ProgressHook(report)

    def ledger(self) -> Ledger:
        """What was recorded since the last `clear_ledger`."""
        return Ledger(tuple(self._readings))

    def clear_ledger(self) -> None:
        """Forget what was recorded."""
        self._readings = []
        self.n_requests = 0

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse lm-eval's response cache: its hits never reach the model, so they would be missing here.

        Raises:
            UsageError: when lm-eval wraps the model in a cache.
        """
        if getattr(cache_hook, "dbdict", None) is not None:
            raise UsageError(
                "--use_cache answers requests without the model, so nothing could be recorded; leave it out"
            )
        super().set_cache_hook(cache_hook)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's, recorded."""
        self.n_requests += len(requests)
        self._passing = []
        answers = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._quiet)
        for (request, repeat), tokens in zip(_with_repeats(requests), self._passing, strict=True):
            self._keep(request, repeat, 0, tokens)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's, recorded a window at a time."""
        self.n_requests += len(requests)
        self._passing = []
        answers = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or self._quiet)
        windows = iter(self._passing)
        for request, repeat in _with_repeats(requests):
            remaining = len(self.tok_encode(request.args[-1]))
            window = 0
            while remaining > 0:
                tokens = next(windows)
                self._keep(request, repeat, window, tokens)
                remaining -= len(tokens.targets)
                window += 1
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As lm-eval's, recorded with the ids that were really generated.

        lm-eval batches within requests of equal generation arguments; passing one such group at a time leaves its
        batches as they were and makes a prompt's text enough to tell whose answer a row is.
        """
        self.n_requests += len(requests)
        groups: dict[str, list[int]] = defaultdict(list)
        for position, request in enumerate(requests):
            groups[repr(request.args[1])].append(position)
        answers: list[str] = [""] * len(requests)
        keys = list(_with_repeats(requests))
        for positions in groups.values():
            self._passing, self._prompts = [], []
            texts = super().generate_until([requests[i] for i in positions], disable_tqdm=disable_tqdm or self._quiet)
            recorded: dict[str, deque[_Tokens]] = defaultdict(deque)
            for prompt, tokens in zip(self._prompts, self._passing, strict=True):
                recorded[prompt].append(tokens)
            for position, text in zip(positions, texts, strict=True):
                request, repeat = keys[position]
                answers[position] = text
                self._keep(request, repeat, 0, recorded[request.args[0]].popleft())
        return answers

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        answers = super()._loglikelihood_tokens(
            requests, disable_tqdm=disable_tqdm or self._quiet, override_bs=override_bs
        )
        for (_, context, continuation), (log_likelihood, _) in zip(requests, answers, strict=True):
            whole = (list(context) + list(continuation))[-(self.max_length + 1) :]
            self._passing.append(
                _Tokens(
                    ids=tuple(whole[:-1]),
                    start=len(whole) - 1 - len(continuation),
                    targets=tuple(continuation),
                    log_likelihood=log_likelihood,
                    truncated=len(context) + len(continuation) > self.max_length + 1,
                )
            )
        return answers

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """As lm-eval's; the strings are remembered in the order of the rows."""
        self._prompts.extend(strings)
        return super().tok_batch_encode(strings, *args, **kwargs)

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        output = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
        mask = kwargs["attention_mask"].bool().cpu()
        for row, whole in enumerate(output.cpu()):
            prompt = context[row].cpu()[mask[row]].tolist()
            generated = self._until_stop(whole[context.shape[1] :].tolist(), stop)
            self._passing.append(
                _Tokens(
                    ids=tuple((prompt + generated)[:-1]),
                    start=len(prompt) - 1,
                    targets=tuple(generated),
                    log_likelihood=None,
                    truncated=len(prompt) >= self.max_length - (max_length - context.shape[1]),
                )
            )
        return output

    def _until_stop(self, generated: list[int], stop: Sequence[str]) -> list[int]:
        """The ids up to the end of the answer: the first end-of-text token or completed stop string, included."""
        ends = {self.eot_token_id, self.tokenizer.pad_token_id}
        length = next((i + 1 for i, token in enumerate(generated) if token in ends), len(generated))
        stops = [s for s in stop if s]

        def stopped(n: int) -> bool:
            text = self.tok_decode(generated[:n])
            return any(s in text for s in stops)

        if stops and stopped(length):
            low, high = 1, length
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if stopped(middle) else (middle + 1, high)
            length = low
        return generated[:length]

    def _keep(self, request: Instance, repeat: int, window: int, tokens: _Tokens) -> None:
        self._readings.append(
            Reading(
                task=str(request.task_name),
                doc_id=int(request.doc_id or 0),
                index=request.idx,
                repeat=repeat,
                window=window,
                kind=request.request_type,
                ids=tokens.ids,
                start=tokens.start,
                targets=tokens.targets,
                log_likelihood=tokens.log_likelihood,
                truncated=tokens.truncated,
            )
        )


def _with_repeats(requests: list[Instance]) -> list[tuple[Instance, int]]:
    """Each request with how often the same object came before: lm-eval repeats a request by repeating the object."""
    seen: dict[int, int] = defaultdict(int)
    numbered = []
    for request in requests:
        numbered.append((request, seen[id(request)]))
        seen[id(request)] += 1
    return numbered


register_model("diffharness")(RecordingModel)
