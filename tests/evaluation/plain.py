"""Plain lm-eval, as a user runs it: without diffharness, its files written with `--output_path --log_samples`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.loggers import EvaluationTracker
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import AutoModelForCausalLM, AutoTokenizer

from diffharness.evaluation import harness


def run(model: Path, output: Path, tasks: list[str], include: Path, engine: str = "hf", **options: Any) -> Path:
    """What `lm-eval run --output_path OUTPUT --log_samples` does, without a process of its own."""
    tracker = EvaluationTracker(output_path=str(output))
    results = lm_eval.simple_evaluate(
        model=engine, model_args={"pretrained": str(model)}, tasks=tasks,
        task_manager=harness.TaskManager(include_path=str(include), include_defaults=False),
        evaluation_tracker=tracker, bootstrap_iters=0, batch_size=4, device="cpu", **options,
    )  # fmt: skip
    assert results is not None
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return output


@register_model("tiny-engine")
class Engine(TemplateLM):
    """A backend of its own: no batches, no cache, greedy token by token."""

    def __init__(self, pretrained: str, **_: Any) -> None:
        super().__init__()
        self.network = AutoModelForCausalLM.from_pretrained(pretrained)
        self.tokenizer = AutoTokenizer.from_pretrained(pretrained)
        self.max_length = 32

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.tokenizer.bos_token_id

    def tok_encode(self, string, add_special_tokens=None, **_):
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens is not False)

    @torch.no_grad()
    def _log_p(self, ids):
        return self.network(torch.tensor([ids])).logits[0].log_softmax(-1)

    def _loglikelihood_tokens(self, requests, **_):
        answers = []
        for _, context, continuation in requests:
            log_p = self._log_p((context + continuation)[:-1][-self.max_length :])[-len(continuation) :]
            total = sum(float(row[token]) for row, token in zip(log_p, continuation, strict=True))
            answers.append((total, log_p.argmax(-1).tolist() == continuation))
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        answers = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            scored = self._loglikelihood_tokens([(None, *make_disjoint_window(w)) for w in windows])
            answers.append(sum((log_likelihood for log_likelihood, _ in scored), 0.0))
        return answers

    def generate_until(self, requests, disable_tqdm=False):
        answers = []
        for request in requests:
            prompt, arguments = request.args
            ids, new = self.tok_encode(prompt), []
            while len(new) < arguments["max_gen_toks"] and (not new or new[-1] != self.eot_token_id):
                new.append(int(self._log_p(ids + new)[-1].argmax()))
            text = self.tokenizer.decode(new, skip_special_tokens=True)
            answers.append(text.split(arguments["until"][0])[0])
        return answers
