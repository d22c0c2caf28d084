"""What a run works with: the models and tasks, checked before anything long starts and loaded only when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import fingerprint, model_fingerprint, path_fingerprint
from diffharness.config import RunConfig
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.activations.capture import LayerReader, UpperStack
    from diffharness.evaluation.harness import LoadedTasks
    from diffharness.evaluation.recording import RecordingModel


@dataclass(frozen=True)
class Architecture:
    """What has to fit between the models, read without loading weights."""

    hidden_size: int
    n_layers: int
    vocabulary: Mapping[str, int]


class Session:
    """The models, tasks and layer of one run.

    Args:
        config: the run.
        model_args: by side, lm-eval model arguments; ancestor optional.
    """

    def __init__(self, config: RunConfig, model_args: Mapping[str, str]) -> None:
        self.config = config
        self.model_args = dict(model_args)
        self._models: dict[str, RecordingModel] = {}

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides there are, the ancestor last."""
        return tuple(s for s in ("baseline", "candidate", "ancestor") if s in self.model_args)

    @cached_property
    def arguments(self) -> dict[str, dict[str, Any]]:
        """lm-eval model arguments of every side, parsed."""
        from diffharness.evaluation.harness import parse_model_args

        return {side: parse_model_args(args) for side, args in self.model_args.items()}

    @cached_property
    def model_fingerprints(self) -> dict[str, str]:
        """What tells one side's model from another, without loading it."""
        return {side: model_fingerprint(_split_args(args)) for side, args in self.model_args.items()}

    @cached_property
    def tasks_fingerprint(self) -> str:
        """What tells the tasks from others, without loading them: names, YAML, and every file that a YAML names."""
        from importlib.metadata import version

        parts: list[Any] = [self.config.tasks, version("lm-eval")]
        for folder in self.config.include_path:
            if folder.is_dir():
                parts.append(path_fingerprint(folder))
                parts.extend(path_fingerprint(f) for f in _files_named_in(folder))
        return fingerprint(parts)

    @cached_property
    def tasks(self) -> LoadedTasks:
        """The tasks, loaded."""
        from diffharness.evaluation.harness import load_tasks

        return load_tasks(self.config.tasks, self.config.include_path)

    def model(self, side: str) -> RecordingModel:
        """A side's model, loaded once."""
        if side not in self._models:
            from diffharness.evaluation.harness import load_model

            self._models[side] = load_model(
                self.model_args[side], batch_size=self.config.batch_size, device=self.config.device
            )
        return self._models[side]

    def reader(self, side: str) -> LayerReader:
        """Reads a side's activations at the run's layer."""
        from diffharness.activations.capture import LayerReader

        return LayerReader(self.model(side).hf_model, self.layer)

    def upper(self, side: str) -> UpperStack:
        """A side's layers above the run's layer."""
        from diffharness.activations.capture import UpperStack

        return UpperStack(self.model(side).hf_model, self.layer)

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """Each side's sizes and vocabulary."""
        return {side: _architecture(side, args) for side, args in self.arguments.items()}

    @cached_property
    def layer(self) -> int:
        """The 0-based layer that `--layer` means."""
        from diffharness.activations.layers import resolve_layer

        return resolve_layer(self.config.layer, self.n_layers)

    @property
    def n_layers(self) -> int:
        """Decoder blocks of the shallowest model."""
        return min(a.n_layers for a in self.architectures.values())

    def check(self) -> tuple[str, ...]:
        """Find what can not work before any long work starts.

        Returns:
            Notes on differences that are allowed.

        Raises:
            UsageError: a model, task, layer or corpus that can not be used, in one line with the remedy.
        """
        from diffharness.activations.corpus import read_texts
        from diffharness.latents.probes import load_probes

        if self.config.corpus and sum(len(read_texts(path)) for path in self.config.corpus) < 2:
            raise UsageError(f"--corpus {self.config.corpus[0]} holds one text; give at least two, to hold one out")
        if self.config.probes is not None:
            load_probes(self.config.probes)
        sizes = {side: a.hidden_size for side, a in self.architectures.items()}
        for side, size in sizes.items():
            if size != sizes["baseline"]:
                raise UsageError(
                    f"the {side} has hidden size {size}, the baseline {sizes['baseline']}; a crosscoder here reads "
                    "models of one width, so compare models of one architecture"
                )
        _ = self.layer
        notes = [
            note
            for side in self.sides[1:]
            for note in _compare_vocabularies(side, self.architectures["baseline"], self.architectures[side])
        ]
        if self.config.metric is not None:
            self.tasks.check_metric(self.config.metric)
        _ = self.tasks
        return tuple(notes)

    def check_tokens(self, ids: set[int], where: str) -> None:
        """Refuse a token that not every side's tokenizer has; such tokens are allowed as long as nothing uses them.

        Args:
            ids: what is read.
            where: what reads it, for the message.

        Raises:
            UsageError: naming the first such token.
        """
        shared = set.intersection(*(set(a.vocabulary.values()) for a in self.architectures.values()))
        for side, architecture in self.architectures.items():
            used = sorted(token for token, i in architecture.vocabulary.items() if i in ids - shared)
            if used:
                raise UsageError(
                    f"{where} uses the token {used[0]!r} of the {side}'s tokenizer, which not all have; compare models "
                    "that share a tokenizer, or leave out the text that uses it"
                )


def _split_args(args: str) -> dict[str, Any]:
    """Model arguments as lm-eval splits them, without importing it."""
    if "=" in args and not Path(args).exists():
        return dict(part.split("=", 1) for part in args.split(",") if "=" in part)
    return {"pretrained": args}


def _files_named_in(folder: Path) -> list[Path]:
    """Existing files that the YAML files of a folder name, relative to the working directory."""
    import re

    found = set()
    for file in folder.rglob("*.yaml"):
        for word in re.findall(r"[\w./\\-]+\.\w+", file.read_text(encoding="utf-8", errors="replace")):
            path = Path(word)
            if path.suffix in (".json", ".jsonl", ".csv", ".parquet", ".txt", ".tsv") and path.is_file():
                found.add(path)
    return sorted(found)


def _architecture(side: str, arguments: Mapping[str, Any]) -> Architecture:
    from transformers import AutoConfig, AutoTokenizer

    from diffharness.evaluation.harness import is_missing_folder

    name = str(arguments["pretrained"])
    path = Path(name)
    if is_missing_folder(name):
        raise UsageError(f"the {side}'s folder {name} does not exist; give a model folder or a Hub id")
    if path.is_dir() and not (path / "config.json").is_file():
        raise UsageError(f"the {side}'s folder {name} holds no config.json; give a Hugging Face model folder")
    options = {
        key: arguments[key] for key in ("revision", "subfolder", "trust_remote_code") if arguments.get(key) is not None
    }
    try:
        config = AutoConfig.from_pretrained(name, **options).get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(str(arguments.get("tokenizer") or name), **options)
        return Architecture(config.hidden_size, config.num_hidden_layers, tokenizer.get_vocab())
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"the {side} {name!r} is neither a model folder nor a Hub model within reach: {reason}"
        ) from error


def _compare_vocabularies(side: str, baseline: Architecture, other: Architecture) -> list[str]:
    """Notes on tokens that only one side has; they are allowed as long as no sequence uses them.

    Raises:
        UsageError: a token means another id on the other side.
    """
    shared = baseline.vocabulary.keys() & other.vocabulary.keys()
    moved = [t for t in shared if baseline.vocabulary[t] != other.vocabulary[t]]
    ids = {i: t for t, i in baseline.vocabulary.items()}
    renamed = [t for t, i in other.vocabulary.items() if t not in shared and i in ids]
    if moved or renamed:
        token = sorted(moved or renamed)[0]
        raise UsageError(
            f"the tokenizers of baseline and {side} differ: token {token!r} is "
            f"{baseline.vocabulary.get(token, 'absent')} on one side and {other.vocabulary[token]} on the other; "
            "compare models that share a tokenizer"
        )
    extra = len(baseline.vocabulary.keys() ^ other.vocabulary.keys())
    return [f"the {side}'s tokenizer has {extra} added or missing tokens against the baseline's"] if extra else []
