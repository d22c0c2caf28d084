"""What the account costs: path integrals and exact checks against evaluating the same documents, and peak memory.

Two pairs: an organism with its trained crosscoder, whose tasks are of all output types, and a pair of larger random
Llamas with a random crosscoder, on which lm-eval's own overhead weighs less. `python -m tests.benchmarks.account_speed
N` prints the peak memory of the path integrals of N documents in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaForCausalLM

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.attribution.batches import DocumentForm, Span
from diffharness.attribution.forms import task_forms
from diffharness.attribution.interventions import Arm, intervene
from diffharness.attribution.path import account_for
from diffharness.attribution.references import References
from diffharness.attribution.states import ModelPair
from diffharness.attribution.surrogates import Choice
from diffharness.evaluation.harness import LoadedTasks
from diffharness.evaluation.recording import RecordingModel
from diffharness.pipeline import Run
from diffharness.stages.explanation import model_pair
from diffharness.stages.reading import MAIN, load_crosscoder, read_latents
from diffharness.stages.scoring import primary
from tests import tiny
from tests.benchmarks import workload
from tests.benchmarks.latents_speed import planted_sparsity
from tests.benchmarks.memory import AnonymousPeak
from tests.benchmarks.timing import Spent, ratio_figures, timed

ORGANISM_TASKS = ("organism_safety", "organism_multilingual", "organism_facts", "organism_helpfulness")
"""One of every output type."""
SIZES = workload.Sizes(hidden_size=128, n_layers=4, n_words=2000, n_documents=4, n_answers=1, prompt_words=(90, 90))
BATCH_SIZE, N_LATENTS, K = 32, 512, 8
MEMORY_DOCUMENTS = 80
"""Four batches: with fewer, what the allocator keeps of freed blocks still grows."""
PROMPT, ANSWER = 90, 4
"""Tokens of a document whose memory is measured; four choices each."""


@dataclass(frozen=True)
class Pair:
    """Two models, their crosscoder, and tasks that they answered."""

    name: str
    models: tuple[RecordingModel, RecordingModel]
    pair: ModelPair
    tasks: LoadedTasks
    forms: Mapping[str, Sequence[DocumentForm]]
    """By task, the documents that are accounted for: all of it, but those that are known to score alike."""
    chosen: tuple[int, ...]
    """Latents that an exact check puts back."""


def organism_pair(run: Run) -> Pair:
    """The models and crosscoder of a finished run on an organism."""
    run.report()
    crosscoder = load_crosscoder(run, MAIN)
    evaluations = run.load_evaluation("baseline"), run.load_evaluation("candidate")
    forms = {}
    for name in ORGANISM_TASKS:
        forms[name] = task_forms(name, primary(run, evaluations[0].task(name)), *evaluations).forms
    latents = tuple(latent.index for latent in read_latents(run, MAIN) if latent.category == "safety")
    models = run.session.model("baseline"), run.session.model("candidate")
    return Pair("organism", models, model_pair(run, crosscoder), run.session.tasks, forms, latents)


def larger_pair(folder: Path, seed: int) -> Pair:
    """Random Llamas and a random crosscoder that keeps a few latents a token."""
    workload.build(folder, SIZES, seed)
    models = (workload.recording_model(folder / "baseline"), workload.recording_model(folder / "candidate"))
    tasks = workload.load_tasks(folder)
    pair = random_pair([model.hf_model for model in models], SIZES.n_layers // 2 - 1, seed)
    names = [name for name in workload.LIKELIHOOD if name != "words_shots"]
    evaluations = [workload.evaluate_recorded(model, tasks, tuple(names)) for model in models]
    forms = {
        name: task_forms(name, evaluations[0].task(name).metrics[0], evaluations[0], evaluations[1]).forms
        for name in names
    }
    return Pair("larger pair", models, pair, tasks, forms, tuple(range(N_LATENTS // 8)))


def random_pair(models: Sequence[torch.nn.Module], layer: int, seed: int) -> ModelPair:
    """Two models and a random crosscoder over what they write at a layer."""
    readers = (LayerReader(models[0], layer), LayerReader(models[1], layer))
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(8, SIZES.n_words, (8, 64), generator=generator)
    x_NMD = torch.stack([reader.read(ids_BT).flatten(0, 1) for reader in readers], dim=1)
    crosscoder = planted_sparsity(N_LATENTS, x_NMD.shape[-1], K, x_NMD, seed)
    return ModelPair(readers, (UpperStack(models[0], layer), UpperStack(models[1], layer)), crosscoder)


def speed_figures(pair: Pair, n_rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Ratios of the costs over evaluating the same documents on both models with plain lm-eval, task by task.

    What is written is timed with the read line cut to one node, what is read by what the whole account takes more; so
    reading states, codes and scores counts as written. Either is for one of the two orders.
    """
    plain = tuple(_plain(model) for model in pair.models)
    references = _read_against([form for forms in pair.forms.values() for form in forms])
    figures: dict[str, Any] = {}
    for task, forms in pair.forms.items():
        ways = {
            "evaluation": partial(_evaluate, plain, pair.tasks, task),
            "candidate": partial(_evaluate, plain[1:], pair.tasks, task),
            "written": partial(account_for, pair.pair, forms, references, read_nodes=(1,)),
            "whole": partial(account_for, pair.pair, forms, references),
            "check": partial(_check, pair, task),
        }
        spent: dict[str, list[Spent]] = {name: [] for name in ways}
        for number in range(-1, n_rounds):  # the first only warms up
            names = list(ways)
            for name in names if number % 2 else reversed(names):
                taken = timed(ways[name])[1]
                if number >= 0:
                    spent[name].append(taken)
            say(f"{pair.name}, {task}: round {number + 1} of {n_rounds}")
        share = len(forms) / len(pair.tasks.tasks[task].eval_docs)
        evaluation = [_times(s, share) for s in spent["evaluation"]]
        written = [_times(s, 0.5) for s in spent["written"]]
        read = [
            Spent((whole.wall_s - own.wall_s) / 2, (whole.cpu_s - own.cpu_s) / 2)
            for whole, own in zip(spent["whole"], spent["written"], strict=True)
        ]
        of = f"{pair.name}, {task}"
        figures |= {
            f"{of}: documents": len(forms),
            **ratio_figures(f"{of}: written an order over evaluation", written, evaluation),
            **ratio_figures(f"{of}: read an order over evaluation", read, evaluation),
            **ratio_figures(f"{of}: exact check over evaluation", spent["check"], spent["evaluation"]),
            **ratio_figures(f"{of}: exact check over the candidate's evaluation", spent["check"], spent["candidate"]),
        }
    return figures


def _read_against(documents: Sequence[DocumentForm]) -> References:
    """All that the documents are scored on, to be read against each other."""
    return References([span.ids for document in documents for span in document.spans])


def largest(figures: Mapping[str, Any], ending: str) -> float:
    """The largest median of a ratio, over pairs and tasks."""
    return max(value for name, value in figures.items() if name.endswith(f": {ending}"))


def _times(spent: Spent, factor: float) -> Spent:
    return Spent(spent.wall_s * factor, spent.cpu_s * factor)


def _plain(model: RecordingModel) -> HFLM:
    """lm-eval's own model over the same weights."""
    plain: Any = HFLM
    return plain(pretrained=model.hf_model, tokenizer=model.hf_tokenizer, batch_size=BATCH_SIZE, device="cpu")


def _evaluate(models: Sequence[HFLM], tasks: LoadedTasks, task: str) -> None:
    for model in models:
        workload.evaluate_plain(model, tasks, (task,))


def _check(pair: Pair, task: str) -> None:
    with intervene(pair.pair.readers, pair.pair.crosscoder, 1, Arm("put_back", pair.chosen)):
        workload.evaluate_recorded(pair.models[1], pair.tasks, (task,))


def memory_figures(n_documents: int) -> dict[str, float]:
    """Peak memory of the path integrals, of some documents and of twice as many: the least of three each."""
    peaks = {}
    for n in (n_documents, 2 * n_documents):
        command = [sys.executable, "-m", "tests.benchmarks.account_speed", str(n)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
        peaks[n] = min(int(found.stdout.split()[-1]) for found in runs)
    few, many = peaks.values()
    return {
        "memory: documents": n_documents,
        "memory: MB of the path integrals": few / 1e6,
        "memory: MB with twice the documents": many / 1e6,
        "memory: growth with twice the documents": many / few,
    }


def _measure_memory(n_documents: int) -> int:
    """Bytes that the account of documents takes on top of the models and of making the crosscoder."""
    config = tiny.config(
        vocab_size=SIZES.n_words,
        hidden_size=SIZES.hidden_size,
        intermediate_size=4 * SIZES.hidden_size,
        num_hidden_layers=SIZES.n_layers,
        max_position_embeddings=512,
    )
    before = AnonymousPeak()
    torch.manual_seed(0)
    models = [LlamaForCausalLM(config).requires_grad_(False).eval() for _ in range(2)]
    pair = random_pair(models, SIZES.n_layers // 2 - 1, seed=0)
    taken = before.stop()
    rng = np.random.default_rng(0)
    peak = AnonymousPeak()
    documents = [_random_document(i, rng) for i in range(n_documents)]
    account_for(
        pair, documents, _read_against(documents), written_nodes=(2,), read_nodes=(2,)
    )  # nodes come one after the other
    return peak.stop() - taken


def _random_document(doc_id: int, rng: np.random.Generator) -> DocumentForm:
    prompt = tuple(rng.integers(8, SIZES.n_words, PROMPT).tolist())
    answers = [tuple(rng.integers(8, SIZES.n_words, ANSWER).tolist()) for _ in range(4)]
    spans = tuple(Span((prompt + answer)[:-1], PROMPT - 1, answer) for answer in answers)
    return DocumentForm(doc_id, spans, Choice((0,), (1.0,) * 4))


if __name__ == "__main__":
    sys.stdout.write(f"{_measure_memory(int(sys.argv[1]))}\n")
