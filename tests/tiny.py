"""Two tiny random models with a word tokenizer, and a task of every output type: enough for lm-eval, in seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = (
    "the a dog cat bird river runs sings sleeps in on under house tree night day and then it is red blue green one "
    "two three four good bad old new ? . :"
)
WORDS = TEXT.split()
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
ONLY_ACCOUNT: dict[str, Any] = {"controls": False, "random_sets": 0, "shapley": "none"}
"""Options that leave out of a run what only tries its account."""


@dataclass(frozen=True)
class TinyPair:
    """The models, the tasks, a corpus, and what names latents."""

    baseline: Path
    candidate: Path
    ancestor: Path
    tasks: Path
    corpus: Path
    probes: Path
    taxonomy: Path


def tokenizer(words: list[str] | None = None) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *(words or WORDS)])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def config(**changes: object) -> LlamaConfig:
    sizes: dict[str, object] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    return LlamaConfig(**{**sizes, **changes})


def save_model(folder: Path, seed: int, like: Path | None = None, noise: float = 0.03, **changes: object) -> Path:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(**changes))
    if like is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(like).state_dict())
        for parameter in model.parameters():
            parameter.data += noise * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def fine_tune(folder: Path, like: Path, texts: list[str], n_steps: int = 60, first_upper_layer: int = 2) -> Path:
    """A model that has learned some texts by heart, in the layers below one only."""
    model = LlamaForCausalLM.from_pretrained(like)
    words = tokenizer()
    rows = [torch.tensor(words(text)["input_ids"]) for text in texts]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    labels_BT = ids_BT.masked_fill(ids_BT == 0, -100)
    lower = [p for i in range(first_upper_layer) for p in model.model.layers[i].parameters()]
    optimizer = torch.optim.Adam(lower, lr=0.03)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model(input_ids=ids_BT, labels=labels_BT).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _sentences(n: int, seed: int, length: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(WORDS), (n, length), generator=generator)
    return [" ".join(WORDS[i] for i in row) for row in ids.tolist()]


def write_task(folder: Path, name: str, rows: list[dict[str, object]], **settings: object) -> None:
    data = write_jsonl(folder / f"{name}.jsonl", rows)
    body = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1.0, "category": ["night"]},
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(body, sort_keys=False))


def metrics(*names: str, higher_is_better: bool = True) -> list[dict[str, object]]:
    aggregation = {"perplexity": "perplexity", "bits_per_byte": "bits_per_byte"}
    return [
        {"metric": n, "aggregation": aggregation.get(n, "mean"), "higher_is_better": higher_is_better} for n in names
    ]


def write_tasks(folder: Path, n: int = 12) -> Path:
    folder.mkdir()
    prompts, ends, others = (_sentences(n, seed, length) for seed, length in ((1, 5), (2, 3), (3, 2)))
    rows: list[dict[str, object]] = [
        {"prompt": p, "choices": [a, b], "gold": i % 2, "word": a.split()[0], "text": f"{p} {a} {p} {b} " * 3}
        for i, (p, a, b) in enumerate(zip(prompts, ends, others, strict=True))
    ]
    write_task(
        folder, "tiny_choice", rows, output_type="multiple_choice", doc_to_text="{{prompt}}", doc_to_target="gold",
        doc_to_choice="choices", metric_list=metrics("acc", "acc_norm"),
    )  # fmt: skip
    write_task(
        folder, "tiny_word", rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target=" {{word}}",
        metric_list=metrics("acc"),
    )  # fmt: skip
    write_task(
        folder, "tiny_text", rows, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=metrics("bits_per_byte", higher_is_better=False),
    )  # fmt: skip
    write_task(
        folder, "tiny_answer", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 6, "do_sample": False}, metric_list=metrics("exact_match"),
    )  # fmt: skip
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump({"group": "tiny", "task": ["tiny_choice", "tiny_word", "tiny_text", "tiny_answer"]})
    )
    return folder


def write_taxonomy(path: Path, *names: str) -> Path:
    entries = [{"name": name, "definition": f"Texts about {name}."} for name in names]
    path.write_text(yaml.safe_dump({"categories": entries}, sort_keys=False))
    return path


def build(folder: Path) -> TinyPair:
    baseline = save_model(folder / "baseline", seed=0)
    tagged: list[dict[str, object]] = [
        {"text": f"{word} {sentence}", "category": category}
        for category, word in (("night", "night"), ("animals", "dog"))
        for sentence in _sentences(12, seed=len(category), length=5)
    ]
    return TinyPair(
        baseline=baseline,
        candidate=save_model(folder / "candidate", seed=1, like=baseline, noise=0.05),
        ancestor=save_model(folder / "ancestor", seed=2, like=baseline, noise=0.05),
        tasks=write_tasks(folder / "tasks"),
        corpus=write_jsonl(folder / "corpus.jsonl", [{"text": t} for t in _sentences(400, seed=9, length=12)]),
        probes=write_jsonl(folder / "probes.jsonl", tagged),
        taxonomy=write_taxonomy(folder / "taxonomy.yaml", "animals", "night"),
    )
