"""Builds an organism: three model folders, corpus, probes, plant; written whole or not at all, and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diffharness.errors import UsageError
from diffharness.organism.language import BOS, EOS, PAD, UNKNOWN, vocabulary
from diffharness.organism.plant import Plant

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from diffharness.organism.training import TrainingSettings

_STAMP = "build.json"
_SOURCES = ("words.py", "language.py", "documents.py", "plant.py", "mixture.py", "training.py", "builder.py")


@dataclass(frozen=True)
class Organism:
    """Where the files of one build are; all paths are absolute."""

    folder: Path
    ancestor: Path
    baseline: Path
    candidate: Path
    corpus: Path
    probes: Path
    plant: Path

    @classmethod
    def at(cls, folder: Path) -> Organism:
        """The organism whose files stand in a folder."""
        folder = folder.resolve()
        return cls(
            folder=folder,
            ancestor=folder / "ancestor",
            baseline=folder / "baseline",
            candidate=folder / "candidate",
            corpus=folder / "corpus.jsonl",
            probes=folder / "probes.jsonl",
            plant=folder / "plant.yaml",
        )


def build(
    plant: Plant | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    out: Path | None = None,
    null: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    settings: TrainingSettings | None = None,
) -> Organism:
    """Train the three models, or reuse a complete build of the same plant, seed, language and code.

    Args:
        plant: what changes between baseline and candidate, as in `plant.yaml`; None is the default plant.
        seed: of weights, training draws and corpus.
        out: folder to leave the files in; None keeps them in the user's cache folder alone.
        null: train the candidate on with the baseline's own mixture.
        progress: called as progress(model, steps done, steps in all).
        settings: of the training; None is what the package ships with.

    Raises UsageError when the plant is wrong or `out` can not be written or holds something else.
    """
    complete = Plant.parse(plant)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed!r}; it must be a whole number from 0 up")
    stamp = _stamp(complete, seed, null, settings)
    cached = cache_folder() / stamp["fingerprint"][:16]
    target = cached if out is None else out
    if _is_complete(target, stamp):
        return Organism.at(target)
    if out is None:
        shutil.rmtree(cached, ignore_errors=True)  # left broken by whoever deleted files of it
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not this build; name another folder, or delete it first")
    with _beside(target) as folder:
        if _is_complete(cached, stamp):
            shutil.copytree(cached, folder, dirs_exist_ok=True)
        else:
            _write(folder, complete, seed, null, settings, progress)
            (folder / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
        _move(folder, target, stamp)
    return Organism.at(target)


def cache_folder() -> Path:
    """Where builds are kept: `$XDG_CACHE_HOME/diffharness/organism`, `~/.cache/...` without it."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "diffharness" / "organism"


def tasks_path() -> Path:
    """Folder of the organism's tasks, for lm-eval's `include_path`: of the checkout, else of the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "tasks" / "organism", package / "tasks" / "organism"):
        if (folder / "organism.yaml").is_file():
            return folder
    raise UsageError(f"the organism's tasks are missing beside {package}; install diffharness again")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, split at whitespace, <bos> in front: lm-eval feeds the models what they were trained on."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = {word: index for index, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab=tokens, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokens[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def _stamp(plant: Plant, seed: int, null: bool, settings: TrainingSettings | None) -> dict[str, Any]:
    """What a build is made from, with a fingerprint over it and over the code that makes it."""
    made_from = {
        "plant": plant.as_mapping(),
        "seed": seed,
        "null": null,
        "settings": None if settings is None else asdict(settings),
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return {"fingerprint": digest.hexdigest(), **made_from}


def _is_complete(folder: Path, stamp: dict[str, Any]) -> bool:
    organism = Organism.at(folder)
    files = [organism.corpus, organism.probes, organism.plant]
    files += [side / "model.safetensors" for side in (organism.ancestor, organism.baseline, organism.candidate)]
    try:
        found = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found.get("fingerprint") == stamp["fingerprint"] and all(file.is_file() for file in files)


def _write(
    folder: Path,
    plant: Plant,
    seed: int,
    null: bool,
    settings: TrainingSettings | None,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    from diffharness.organism.documents import corpus, probes, write_jsonl
    from diffharness.organism.training import TrainingSettings, train_all

    tokenizer = make_tokenizer()
    for name, model in train_all(plant, seed, null, settings or TrainingSettings(), progress):
        _save_model(model, folder / name)
        tokenizer.save_pretrained(folder / name)
    write_jsonl(folder / "corpus.jsonl", corpus(seed))
    write_jsonl(folder / "probes.jsonl", probes())
    text = yaml.safe_dump(plant.as_mapping(), sort_keys=False, allow_unicode=True, default_flow_style=None)
    (folder / "plant.yaml").write_text(text, encoding="utf-8")


def _save_model(model: LlamaForCausalLM, folder: Path) -> None:
    # As `save_pretrained` does, without the progress bar that it can not be kept from drawing.
    from safetensors.torch import save_file

    folder.mkdir()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the target's file system, removed if it has not been moved away."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target}: can not be written ({error.strerror}); name a folder that can") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path, stamp: dict[str, Any]) -> None:
    folder.chmod(0o755)
    try:
        folder.rename(target)
    except OSError:
        # Another process may have finished the same build first.
        if not _is_complete(target, stamp):
            raise
