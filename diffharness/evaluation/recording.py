"""The recording model: lm-eval's own `HFLM`, which also remembers what it read.

Nothing hooks the model while it scores: the three request methods are passed through and only the token ids that
go by are kept, so that scores stay lm-eval's own to the bit. With `record_to` and `layer` it is the model that
`diffharness lm-eval` registers.
"""

# lm-eval's registry hides the class that it decorates from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import register_model
from transformers import PreTrainedModel

from diffharness.errors import RunError, UsageError
from diffharness.evaluation.answers import AnswerEnd
from diffharness.evaluation.forwarded import Forwarded, in_order_of_requests, windows_of, with_repeats
from diffharness.evaluation.grouping import TokenRequest, wrongly_grouped
from diffharness.evaluation.ledger import Ledger, LedgerWriter
from diffharness.evaluation.weights import CheckedHFLM


class _ProgressHook(CacheHook):
    """lm-eval tells its cache of every answer as it comes; without a cache, that is a progress report."""

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__(None)
        self._report = report

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        del attr, req, res
        self._report()


class RecordingModel(CheckedHFLM):
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
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise UsageError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: requests can not be recorded on several processes yet; "
                "start one process, without `accelerate launch` or `torchrun`"
            )
        super().__init__(pretrained, **kwargs)
        self.record_to = Path(record_to) if record_to is not None else None
        self.layer = None if layer is None else str(layer)
        self.n_requests = 0
        self._quiet = False
        self._writer = LedgerWriter()
        self._asked: list[Instance] = []
        self._passing: list[Forwarded] = []
        self._prompts: list[tuple[str, bool]] = []
        self._text_lengths: list[int] | None = None
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

    @property
    def context_tokens(self) -> int:
        """Tokens that the model reads at most."""
        return self.max_length

    @property
    def adds_special_tokens(self) -> bool:
        """Whether a text starts with the tokenizer's special tokens."""
        return self.add_bos_token is not False

    def tokenize(self, text: str) -> list[int]:
        """The ids that the model would read for a text, special tokens included, cut to the context."""
        return self.tok_encode(text)[: self.max_length]

    def report_progress(self, report: Callable[[], None]) -> None:
        """Call `report` once for every request that is answered, in place of lm-eval's own progress bars."""
        self._quiet = True
        self.cache_hook = _ProgressHook(report)

    def ledger(self) -> Ledger:
        """What was recorded since the last `clear_ledger`."""
        return self._writer.ledger()

    def clear_ledger(self) -> None:
        """Forget what was recorded."""
        self._writer = LedgerWriter()
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
        with self._recording(requests) as passing:
            answers = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._quiet)
            for (request, repeat), row in zip(with_repeats(requests), passing, strict=True):
                self._writer.add(row.reading(request, repeat))
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's, recorded a window at a time."""
        with self._recording(requests) as passing:
            self._text_lengths = []
            answers = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or self._quiet)
            windows = iter(passing)
            for (request, repeat), length in zip(with_repeats(requests), self._text_lengths, strict=True):
                for window, row in enumerate(windows_of(length, windows)):
                    self._writer.add(row.reading(request, repeat, window))
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As lm-eval's, recorded with the ids that were really generated."""
        with self._recording(requests) as passing:
            answers = super().generate_until(requests, disable_tqdm=disable_tqdm or self._quiet)
            rows = in_order_of_requests(requests, [prompt for prompt, _ in self._prompts], passing)
            for (request, repeat), row in zip(with_repeats(requests), rows, strict=True):
                self._writer.add(row.reading(request, repeat))
        return answers

    @contextmanager
    def _recording(self, requests: list[Instance]) -> Iterator[list[Forwarded]]:
        """The rows of one call as they are forwarded; forgotten when it is over."""
        self.n_requests += len(requests)
        self._asked = requests
        try:
            yield self._passing
        finally:
            self._asked, self._passing, self._prompts, self._text_lengths = [], [], [], None

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """As lm-eval's; the lengths of rolling texts are remembered."""
        ids = super().tok_encode(string, *args, **kwargs)
        if self._text_lengths is not None:
            self._text_lengths.append(len(ids))
        return ids

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As lm-eval's, but for the requests that its grouping gets wrong: those are scored again without it.

        Raises:
            RunError: a target has no tokens, which lm-eval could not score either.
        """
        for i, (_, _, continuation) in enumerate(requests):
            if not continuation:
                asked = self._asked[i]
                raise RunError(
                    f"task {asked.task_name!r}, document {asked.doc_id}, request {asked.idx}: the target "
                    f"{asked.args[-1]!r} has no tokens of its own; give it text, or a delimiter before it"
                )
        answers = super()._loglikelihood_tokens(
            requests, disable_tqdm=disable_tqdm or self._quiet, override_bs=override_bs
        )
        plain = self._rescore(requests, answers, override_bs) if self.logits_cache else {}
        longest = self.max_length + 1
        for i, ((_, context, continuation), (log_likelihood, greedy)) in enumerate(zip(requests, answers, strict=True)):
            whole = (context + continuation)[-longest:]
            self._passing.append(
                Forwarded(
                    ids=array("i", whole[:-1]),
                    start=len(whole) - 1 - len(continuation),
                    targets=tuple(continuation),
                    truncated=len(context) + len(continuation) > longest,
                    log_likelihood=log_likelihood,
                    greedy=greedy,
                    plain_log_likelihood=plain.get(i),
                )
            )
        return answers

    def _rescore(
        self, requests: list[TokenRequest], answers: list[tuple[float, bool]], override_bs: int | None
    ) -> dict[int, float]:
        """Put right, in `answers`, what the grouping got wrong (its greedy check is right); return the wrong values."""
        wrong = wrongly_grouped(requests)
        if not wrong:
            return {}
        batch_size = override_bs or min(self.batch_sizes.values(), default=1)  # only read for batch_size=auto
        self.logits_cache = False
        try:
            right = super()._loglikelihood_tokens(
                [(None, *requests[i][1:]) for i in wrong], disable_tqdm=True, override_bs=batch_size
            )
        finally:
            self.logits_cache = True
        plain = {i: answers[i][0] for i in wrong}
        for i, (log_likelihood, _) in zip(wrong, right, strict=True):
            answers[i] = (log_likelihood, answers[i][1])
        return plain

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As lm-eval's; the strings, and whether they were cut, are remembered in the order of the rows."""
        ids, mask = super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
        width = ids.shape[1]
        may_be_cut = truncation or (left_truncate_len is not None and width >= left_truncate_len)
        for string, n_kept in zip(strings, mask.sum(1).tolist(), strict=True):
            cut = may_be_cut and n_kept == width and super().tok_batch_encode([string])[0].shape[1] > width
            self._prompts.append((string, cut))
        return ids, mask

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        output = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
        end = AnswerEnd(self._end_ids(kwargs), stop, self.think_end_token, self.tok_decode)
        mask_BT = kwargs["attention_mask"].bool().cpu()
        width = context.shape[1]
        cuts = [cut for _, cut in self._prompts[len(self._passing) :]]
        for whole, kept, cut in zip(output.cpu(), mask_BT, cuts, strict=True):
            prompt = whole[:width][kept].tolist()
            generated = whole[width:].tolist()
            targets = generated[: end.length(generated)]
            self._passing.append(
                Forwarded(
                    ids=array("i", (prompt + targets)[:-1]),
                    start=len(prompt) - 1,
                    targets=tuple(targets),
                    truncated=cut,
                )
            )
        return output

    def _end_ids(self, kwargs: dict[str, Any]) -> set[int]:
        """The ids after which `generate` pads a row."""
        configured = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ids = kwargs.get("eos_token_id", configured)
        return set() if ids is None else {int(i) for i in torch.as_tensor(ids).flatten()}


register_model("diffharness")(RecordingModel)
