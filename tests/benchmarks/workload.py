"""What the recording benchmark runs: a pair of random Llamas, lm-eval tasks of every output type, and one evaluation.

Words are tokens. Documents are random too; what is measured does not depend on what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval
import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaForCausalLM

from diffharness.activations.capture import LayerReader
from diffharness.activations.corpus import Text
from diffharness.activations.harvesting import ReplayedTexts
from diffharness.activations.layers import decoder_layers
from diffharness.activations.store import StoreSpec, write_store
from diffharness.evaluation import harness
from diffharness.evaluation.harness import LoadedTasks
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation
from tests import tiny

LIKELIHOOD = ("words_choice", "words_shots", "words_target", "words_text")
GENERATION = ("words_answer",)
BATCH_SIZE = 8
SIDES = ("baseline", "candidate")


@dataclass(frozen=True)
class Sizes:
    """How large models and tasks are."""

    hidden_size: int = 256
    n_layers: int = 8
    n_words: int = 4000
    n_documents: int = 16
    """Of each task of log-likelihoods; a quarter of it (but 8) with examples and in running text."""
    n_answers: int = 8
    """Documents of the task that generates."""
    answer_tokens: int = 128
    """Tokens of each answer: half of lm-eval's default."""
    prompt_words: tuple[int, int] = (30, 150)


def build(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write models and tasks into an existing folder."""
    words = [f"w{i}" for i in range(sizes.n_words)]
    config = tiny.config(
        vocab_size=sizes.n_words + len(tiny.SPECIAL),
        hidden_size=sizes.hidden_size,
        intermediate_size=8 * sizes.hidden_size // 3,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.02,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    tokenizer = tiny.tokenizer(words)
    for side in SIDES:
        model.save_pretrained(folder / side)
        tokenizer.save_pretrained(folder / side)
        for parameter in model.parameters():
            parameter.data += 0.002 * torch.randn_like(parameter)
    (folder / "tasks").mkdir()
    _write_tasks(folder / "tasks", words, sizes, np.random.default_rng(seed))


def _write_tasks(folder: Path, words: list[str], sizes: Sizes, rng: np.random.Generator) -> None:
    def text(shortest: int, longest: int) -> str:
        return " ".join(rng.choice(words, rng.integers(shortest, longest + 1)))

    def rows(n: int) -> list[dict[str, object]]:
        return [
            {
                "prompt": text(*sizes.prompt_words),
                "choices": [text(2, 5) for _ in range(4)],
                "gold": int(rng.integers(4)),
                "end": text(1, 3),
            }
            for _ in range(n)
        ]

    n, few = sizes.n_documents, max(8, sizes.n_documents // 4)
    choice = {
        "output_type": "multiple_choice", "doc_to_text": "{{prompt}}", "doc_to_target": "gold",
        "doc_to_choice": "choices", "metric_list": tiny.metrics("acc", "acc_norm"),
    }  # fmt: skip
    tiny.write_task(folder, "words_choice", rows(n), **choice)
    tiny.write_task(folder, "words_shots", rows(few), **{**choice, "num_fewshot": 2, "fewshot_split": "test"})
    tiny.write_task(
        folder, "words_target", rows(n), output_type="loglikelihood", doc_to_text="{{prompt}}",
        doc_to_target=" {{end}}", metric_list=tiny.metrics("acc"),
    )  # fmt: skip
    tiny.write_task(
        folder, "words_text", rows(few), output_type="loglikelihood_rolling", doc_to_text="",
        doc_to_target="{{prompt}}", metric_list=tiny.metrics("bits_per_byte", higher_is_better=False),
    )  # fmt: skip
    tiny.write_task(
        folder, "words_answer", rows(sizes.n_answers), output_type="generate_until", doc_to_text="{{prompt}}",
        doc_to_target="{{end}}", metric_list=tiny.metrics("exact_match"),
        generation_kwargs={"until": ["\n\n"], "max_gen_toks": sizes.answer_tokens, "do_sample": False},
    )  # fmt: skip


def load_tasks(folder: Path) -> LoadedTasks:
    """All tasks of a workload."""
    return harness.load_tasks([*LIKELIHOOD, *GENERATION], [folder / "tasks"])


def plain_model(folder: Path) -> HFLM:
    """lm-eval's own `hf` model, loaded with the arguments that ours is loaded with."""
    options = {"batch_size": BATCH_SIZE, "max_batch_size": None, "device": "cpu"}
    model: Any = HFLM
    return model.create_from_arg_obj({"pretrained": str(folder)}, options)


def plain_around(model: RecordingModel) -> HFLM:
    """lm-eval's own `hf` model over the very weights of ours, so that where they lie in memory makes no difference."""
    plain: Any = HFLM
    return plain(pretrained=model.hf_model, tokenizer=model.hf_tokenizer, batch_size=BATCH_SIZE, device="cpu")


def recording_model(folder: Path) -> RecordingModel:
    """Our model."""
    return harness.load_model(str(folder), batch_size=BATCH_SIZE, device="cpu")


def evaluate_plain(model: HFLM, tasks: LoadedTasks, only: tuple[str, ...]) -> dict[str, Any]:
    """Plain lm-eval, with the arguments that `harness.evaluate` gives."""
    chosen = [tasks.tasks[name] for name in only]
    evaluate: Any = lm_eval.simple_evaluate
    with _quietly():
        return evaluate(
            model=model, tasks=chosen, task_manager=tasks.manager, limit=None, bootstrap_iters=0, log_samples=True
        )


def evaluate_recorded(model: RecordingModel, tasks: LoadedTasks, only: tuple[str, ...]) -> Evaluation:
    """Ours: the same call, and the ledger gathered and checked."""
    with _quietly():
        return harness.evaluate(model, tasks, only=only)[0]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars, and without lm-eval's asking `pip` and `nvcc` about the machine after every evaluation.

    That takes a second, which would dilute the ratios.
    """
    with (
        patch("lm_eval.evaluator.add_env_info", lambda _storage: None),
        Path(os.devnull).open("w") as nowhere,
        redirect_stderr(nowhere),
    ):
        yield


@dataclass(frozen=True)
class Stored:
    """What a replay to disk stored."""

    n_readings: int
    """Rows of both ledgers."""
    n_sequences: int
    """Distinct ones among them, which is what was replayed."""
    n_tokens: int
    n_token_bytes: int
    """Layers × models × width × bytes of a number."""
    n_shards: int
    n_shard_bytes: int
    n_index_bytes: int


def replay_to_disk(
    models: tuple[RecordingModel, ...], evaluations: tuple[Evaluation, ...], folder: Path, seed: int
) -> Stored:
    """Both models read the union of both ledgers' sequences; the activations of the middle layer are stored."""
    n_readings, read = 0, {}
    for evaluation in evaluations:
        for reading in evaluation.ledger:
            n_readings += 1
            read.setdefault(reading.ids, f"{reading.task}:{reading.doc_id}")
    texts = [Text(ids, source) for ids, source in read.items() if len(ids) > 1]
    texts = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    layer = len(decoder_layers(models[0].hf_model)[1]) // 2 - 1  # what stands after half of the blocks
    spec = StoreSpec(
        sides=SIDES,
        layers=(layer,),
        d_model=models[0].hf_model.config.hidden_size,
        dtype=str(models[0].hf_model.dtype).removeprefix("torch."),
        models=dict.fromkeys(SIDES, "random"),
    )
    write_store(folder, spec, texts, ReplayedTexts([LayerReader(model.hf_model, layer) for model in models]))
    shards = [file.stat().st_size for file in folder.glob("*.safetensors")]
    return Stored(
        n_readings=n_readings,
        n_sequences=len(texts),
        n_tokens=sum(len(text.ids) for text in texts),
        n_token_bytes=spec.token_bytes,
        n_shards=len(shards),
        n_shard_bytes=sum(shards),
        n_index_bytes=(folder / "index.parquet").stat().st_size,
    )
