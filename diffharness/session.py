"""What a run works with: the models and tasks, checked before anything long starts and loaded only when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness import defaults, templates
from diffharness.architecture import Architecture, read_architecture
from diffharness.artifacts import fingerprint, model_fingerprint, path_fingerprint, split_model_args
from diffharness.config import ASKED, AUTO, RunConfig
from diffharness.errors import UsageError
from diffharness.loaded import LoadedCrosscoder, model_name
from diffharness.stages.reading import MAIN
from diffharness.stages.training import training_settings

if TYPE_CHECKING:
    from diffharness.activations.capture import LayerReader, UpperStack
    from diffharness.activations.corpora import CorpusSpec
    from diffharness.evaluation.harness import LoadedTasks
    from diffharness.evaluation.recording import RecordingModel


class Session:
    """The models, tasks and layer of one run.

    Args:
        config: the run.
        model_args: by side, lm-eval model arguments; ancestor optional.
        usual_layer: what is read where neither the user nor a loaded crosscoder says it.
        choose_layer: finds what `--layer auto` means; called when the layer is first asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        model_args: Mapping[str, str],
        usual_layer: str = defaults.LAYER,
        choose_layer: Callable[[], int] | None = None,
    ) -> None:
        self.config = config
        self._choose_layer = choose_layer
        self._usual_layer = usual_layer
        self.model_args = dict(model_args)
        self._models: dict[str, RecordingModel] = {}
        self._readers: dict[str, LayerReader] = {}
        self._uppers: dict[str, UpperStack] = {}

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
        return {side: model_fingerprint(split_model_args(args)) for side, args in self.model_args.items()}

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
    def corpora(self) -> tuple[CorpusSpec, ...]:
        """The corpora that the crosscoder is trained on; none stands for what the tasks made the models read."""
        from diffharness.activations.corpora import parse_corpus

        return tuple(parse_corpus(spec) for spec in self.config.corpus)

    @property
    def corpus_fingerprints(self) -> list[str]:
        """What tells the corpora's content from another, as far as it is on this machine."""
        return [
            self.tasks_fingerprint if spec.kind == "tasks" else path_fingerprint(Path(spec.name))
            for spec in self.corpora
            if spec.kind != "hub"
        ]

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
            if self.config.apply_chat_template:
                self._models[side].hf_tokenizer.chat_template = self.architectures["baseline"].tokenizer.chat_template
        return self._models[side]

    def reader(self, side: str) -> LayerReader:
        """Reads a side's activations at the run's layer, or layers."""
        from diffharness.activations.capture import LayerReader

        if side not in self._readers:
            self._readers[side] = LayerReader(self.model(side).hf_model, self.layers)
        return self._readers[side]

    @cached_property
    def loaded(self) -> LoadedCrosscoder | None:
        """The crosscoder that is loaded in place of training."""
        spec = self.config.crosscoder
        return None if spec is None else LoadedCrosscoder(spec, self.config.code_norm)

    @property
    def layer_fingerprint(self) -> str:
        """What the layer follows from, without loading a model; `auto` is as if it was named."""
        if self.config.layer == AUTO:
            return str(self.layer)
        if self.config.layer is not None or self.loaded is None:
            return self.config.layer or self._usual_layer
        return fingerprint(self.loaded.fingerprint, self._usual_layer)

    @property
    def names(self) -> dict[str, str]:
        """What each side's model is called where others read it."""
        return {side: model_name(args) for side, args in self.model_args.items()}

    @property
    def protocol(self) -> dict[str, Any]:
        """How models are asked, as arguments of lm-eval's `simple_evaluate`; what is left out is the tasks' own."""
        given = {name: getattr(self.config, name) for name in ASKED}
        return {name: value for name, value in given.items() if value not in (None, False)}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the baseline tokenizer's special tokens."""
        return self.architectures["baseline"].special_ids

    @property
    def skipped_ids(self) -> frozenset[int]:
        """Ids whose positions have no code, besides the first of a sequence; a loaded crosscoder may say which."""
        own = self.loaded.skipped_ids if self.loaded is not None else None
        return own if own is not None else self.special_ids if self.config.skip_special else frozenset()

    @property
    def device(self) -> str:
        """Where the baseline is; the crosscoder goes there too."""
        return str(next(self.model("baseline").hf_model.parameters()).device)

    @property
    def store_dtype(self) -> str:
        """What activations are stored in: as asked for, or what the models' dtypes promote to."""
        import functools

        import torch

        if self.config.activation_dtype != "auto":
            return self.config.activation_dtype
        dtypes = [self.model(side).hf_model.dtype for side in self.sides]
        return str(functools.reduce(torch.promote_types, dtypes)).removeprefix("torch.")

    def upper(self, side: str) -> UpperStack:
        """A side's layers above the run's layer."""
        from diffharness.activations.capture import UpperStack

        if side not in self._uppers:
            self._uppers[side] = UpperStack(self.model(side).hf_model, self.layer)
        return self._uppers[side]

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """Each side's sizes and vocabulary."""
        return {side: read_architecture(side, args) for side, args in self.arguments.items()}

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The 0-based layers that are read: those that `--layer` means, or a loaded crosscoder's.

        Raises:
            UsageError: a layer that the models do not have, or several for an account.
        """
        if self.config.layer == AUTO and self._choose_layer is not None:
            return (self._choose_layer(),)
        from diffharness.activations.layers import resolve_layer

        own = self.loaded.config.layer if self.loaded is not None else None
        if own is not None and self.config.layer is None and own >= self.n_layers:
            raise UsageError(
                f"--crosscoder {self.config.crosscoder} reads layer {own}, the models have layers 0 to "
                f"{self.n_layers - 1}; give one of these models"
            )
        spec = self.config.layer or (self._usual_layer if own is None else str(own))
        return tuple(sorted({resolve_layer(part, self.n_layers) for part in spec.split("+")}))

    @property
    def layer(self) -> int:
        """The only layer of the run."""
        if len(self.layers) > 1:
            raise UsageError(
                f"--layer {self.config.layer} names {len(self.layers)} layers, but an account is at one; name one"
            )
        return min(self.layers)

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
        from diffharness.evaluation.tokenizers import compare_tokenizers

        asked = templates.check(self.config, self.architectures)
        sizes = {side: a.hidden_size for side, a in self.architectures.items()}
        for side, size in sizes.items():
            if size != sizes["baseline"]:
                raise UsageError(
                    f"the {side} has hidden size {size}, the baseline {sizes['baseline']}; a crosscoder here reads "
                    "models of one width, so compare models of one architecture"
                )
        self._check_crosscoder(sizes["baseline"])
        notes = [
            note
            for side in self.sides[1:]
            for note in compare_tokenizers(
                self.architectures["baseline"].tokenizer, self.architectures[side].tokenizer, side
            )
        ]
        if self.config.metric is not None:
            self.tasks.check_metric(self.config.metric)
        if self.config.needs_tasks:
            _ = self.tasks
        return (*notes, *asked, *self._check_corpora())

    def _check_crosscoder(self, d_model: int) -> None:
        """Find options of the crosscoder that can not work, or a loaded one that does not fit."""
        if self.config.layer == AUTO:  # follows from the evaluations
            if self.n_layers < 2:
                raise UsageError("--layer auto chooses a layer below the last, and the models have one; leave it out")
            training_settings(self.config, d_model, len(MAIN))
        elif not self.config.needs_tasks:
            _ = self.layers
        elif self.loaded is not None:
            self.loaded.check(MAIN, d_model, self.config.layer, self.layer)
            if self.config.skip_special and not self.skipped_ids:
                raise UsageError(
                    f"--crosscoder {self.config.crosscoder} was trained on the positions of special tokens too; leave "
                    "--skip-special out"
                )
        else:
            _ = self.layer
            training_settings(self.config, d_model, len(MAIN))

    def _check_corpora(self) -> tuple[str, ...]:
        """Find corpora that can not be read; notes on tasks without a training split."""
        from diffharness.activations.corpora import check_corpus

        specs = self.corpora
        tasks = self.tasks.tasks if any(spec.kind == "tasks" for spec in specs) else None
        return check_corpus(specs, tasks)

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
