"""A recording model that is handed its answers, to make the ledger of requests that were answered elsewhere.

The model is run for two things: requests that lm-eval's grouping scored on the wrong tokens are scored again, as
recording does, and after each generated answer it is asked for the stop that ended it, which is in no file.
"""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from copy import copy
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from diffharness.evaluation.grouping import TokenRequest
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.transcript_files import ResultFiles
from diffharness.evaluation.transcript_notes import Counts
from diffharness.evaluation.transcript_options import HUGGING_FACE

STOP_TOKENS = 8
"""Tokens of a stop, at most."""


class _Unanswered(HFLM):
    """Stands where the recording model calls lm-eval's `hf` model: encodes as that does, and answers nothing.

    The recording model turns `logits_cache` off to have wrongly grouped requests scored again; those are.
    """

    _grouped: bool
    _texts: dict[int, list[str]]
    _text: str
    _ends: set[int]
    _counts: Counts

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if self._grouped and not self.logits_cache:
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        return [(math.nan, False)] * len(requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        del disable_tqdm
        texts = []
        for request in requests:
            self._text = self._texts[id(request)].pop(0)
            super().generate_until([request], disable_tqdm=True)
            texts.append(self._text)
        return texts

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        del kwargs
        n_most = max_length - context.shape[1]
        ids = self.tok_encode(self._text, add_special_tokens=False)[:n_most]
        end = self._stop_after(context, ids, n_most - len(ids), stop)
        same = self.tok_decode([*ids, *end]).startswith(self._text)
        self._counts.add_answer(same=same, stop=bool(end), room=len(ids) < n_most)
        return _appended(context, [*ids, *end] or [self.eot_token_id])

    def _stop_after(self, context: torch.Tensor, ids: list[int], n_most: int, stops: list[str]) -> list[int]:
        """The most likely next tokens, where they are a stop: an end-of-text token, or one of some texts."""
        end: list[int] = []
        for _ in range(min(n_most, STOP_TOKENS)):
            end.append(int(self._model_call(_appended(context, [*ids, *end]))[0, -1].argmax()))
            tail = self.tok_decode([*ids, *end]).removeprefix(self._text)
            if end[-1] in self._ends or any(tail.startswith(stop) for stop in stops if stop):
                return end
            if not any(stop.startswith(tail) for stop in stops):
                break
        return []


class Transcriber(RecordingModel, _Unanswered):
    """A recording model that is handed its answers.

    It shares weights, tokenizer and settings with the model it is made of, whose ledger it leaves alone.
    """

    def __init__(self, model: RecordingModel, files: ResultFiles, texts: dict[int, list[str]], counts: Counts) -> None:
        own = {name: copy(v) if isinstance(v, list | dict | set) else v for name, v in vars(model).items()}
        self.__dict__.update(own)
        self.report_progress(lambda: None)
        self.clear_ledger()
        max_length, batch_size = files.body.get("max_length"), str(files.body["config"].get("batch_size"))
        if max_length is not None and max_length < model.max_length:
            self._max_length = max_length
        self.batch_size_per_gpu = int(batch_size) if batch_size.isdigit() else 64
        self.logits_cache = self._grouped = model.logits_cache and files.engine in HUGGING_FACE
        self._texts, self._text, self._counts = texts, "", counts
        self._ends = {self.eot_token_id, *self._end_ids({})}


def _appended(context: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """One prompt with further ids, as a batch of one."""
    return torch.cat([context, torch.tensor([ids], dtype=context.dtype, device=context.device)], dim=1)
