"""Crosscoders without a benchmark: trained, measured, converted, and got ready for the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import Workspace, altered_files, write_atomically
from diffharness.errors import RunError, UsageError
from diffharness.loaded import LoadedCrosscoder
from diffharness.made_from import stage_fingerprint
from diffharness.progress import StageProgress
from diffharness.stages.training import TrainOptions, train_seeds

if TYPE_CHECKING:
    from rich.console import Console

    from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
    from diffharness.crosscoder.logs import Log
    from diffharness.report.schema import CrosscoderQuality
    from diffharness.standalone.sources import Opened, Source

STAGE = "crosscoder"
QUALITY_NAME = "quality.json"


def train(
    source: Source,
    options: TrainOptions,
    output: Path,
    *,
    device: str | None = None,
    logs: Sequence[str] = (),
    console: Console | None = None,
) -> CrosscoderQuality:
    """Train a crosscoder, or several with different seeds, and leave it in a folder with its quality and log.

    A call that was cut off and is made again with the same arguments goes on where it was; one that is finished only
    gives its quality.

    Args:
        source: what it is trained on.
        options: how.
        output: holds config.json, model.safetensors, quality.json and log.jsonl afterwards.
        device: where to compute; by default where the models are, or the first GPU.
        logs: `wandb`, `tensorboard`.
        console: where progress is shown.

    Raises:
        UsageError: options that do not fit the activations, or a folder that holds another crosscoder.
        RunError: training failed.
    """
    progress = StageProgress(console)
    Workspace(output)
    _check_loggers(logs)
    source.check(progress)
    settings = options.settings(source.d_model, len(source.sides))
    made = stage_fingerprint(STAGE, [source.fingerprint, settings.model_dump(), options.seeds])
    if not _refuse_other(output, made, settings):
        opened = source.open()
        title = f"train the crosscoder {'–'.join(source.sides)}"
        stage = Workspace(output).stage(STAGE, made, resumable=True)
        with progress.stage(title) as report, stage as folder:
            trained = train_seeds(
                opened.train_NMD,
                opened.heldout_NMD,
                settings,
                folder,
                report,
                n_seeds=options.seeds,
                logs=_loggers(logs, output, settings, made),
                sides=source.sides,
                layers=source.layers,
                widths=source.widths,
                models=opened.models,
                skipped_ids=opened.skipped_ids,
                device=device or opened.device or _default_device(),
            )
            report(1, 1, "measuring")
            row = _measured(opened, trained, opened.heldout_NMD)
            write_atomically(folder / QUALITY_NAME, row.model_dump_json(indent=1) + "\n")
    return _read_quality(output)


def as_trained(config: CrosscoderConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of activations; what is left out is as the crosscoder was trained: layers, positions, held-out texts."""
    found = dict(options)
    of_file = any(path.is_file() for path in options.get("activations", ()))
    if config.layers and not of_file:
        found.setdefault("layer", "+".join(map(str, config.layers)))
    if config.skipped_ids and not of_file:
        found.setdefault("skip_special", True)
    if config.training is not None:
        found.setdefault("seed", config.training.seed)
    return found


def quality(
    loaded: LoadedCrosscoder,
    source: Source,
    *,
    everything: bool = False,
    device: str | None = None,
    console: Console | None = None,
) -> CrosscoderQuality:
    """Measure a crosscoder on activations: of documents that a training on them holds out, or on all.

    Raises:
        UsageError: it does not fit the activations.
    """
    from diffharness.crosscoder.loading import complete

    progress = StageProgress(console)
    source.check(progress)
    config = loaded.config
    loaded.check_models(source.sides, source.d_model, source.widths)
    if config.layers and source.layers and config.layers != source.layers:
        raise UsageError(
            f"{loaded.spec} reads layer {_joined(config.layers)}, the activations are of layer "
            f"{_joined(source.layers)}; name the layers with --layer, or give activations of those"
        )
    opened = source.open()
    with progress.stage("measure the crosscoder"):
        crosscoder = loaded.open(device=device or opened.device or _default_device())
        changes = {"sides": source.sides, "layers": config.layers or source.layers}
        crosscoder.config = crosscoder.config.model_copy(update=changes)
        crosscoder = complete(crosscoder, opened.train_NMD)
        tokens_NMD = opened.all_NMD if everything else opened.heldout_NMD
        origin = loaded.origin(opened.models or config.models, layer_unknown="that of the activations is taken")
        return _measured(opened, [crosscoder], tokens_NMD, origin, loaded.stated_quality)


def convert(
    loaded: LoadedCrosscoder,
    destination: Path,
    to: str,
    *,
    sides: tuple[str, ...] | None = None,
    layers: tuple[int, ...] = (),
    latents: Sequence[int] = (),
    side: str | None = None,
    coefficient: float = 1.0,
    hookpoint: str | None = None,
) -> None:
    """Read a crosscoder of any format and write it in another.

    Args:
        loaded: the crosscoder.
        destination: a new folder, or the `.pt` file of `steered`.
        to: `native`, `dictionary_learning`, or `steered` (lm-eval's model of that name).
        sides: what its models are called from now on, in the file's order.
        layers: what it reads, where its file does not say it.
        latents: for `steered`, those whose decoder rows are added up.
        side: for `steered`, whose decoder; by default the candidate's.
        coefficient: for `steered`, what they are multiplied by.
        hookpoint: for `steered`, what the model calls a decoder block.

    Raises:
        UsageError: what the format can not hold, or a destination that is taken.
    """
    from diffharness.crosscoder import checkpoint, steered
    from diffharness.crosscoder.formats.dictionary_learning_writer import write as write_dictionary_learning

    if destination.exists() and (destination.is_file() or any(destination.iterdir())):
        raise UsageError(f"{destination} is there already; choose a new one")
    if to != "steered" and (latents or side is not None or hookpoint is not None):
        raise UsageError(f"--latents, --side and --hookpoint are of --to steered, not of {to}; leave them out")
    crosscoder = loaded.open(sides=sides)
    said = crosscoder.config.layers
    if layers and said and layers != said:
        raise UsageError(f"{loaded.spec} says that it reads layer {_joined(said)}; leave --layer out")
    crosscoder.config = crosscoder.config.model_copy(update={"layers": said or layers})
    if to == "steered":
        chosen = side or ("candidate" if "candidate" in crosscoder.sides else crosscoder.sides[-1])
        steered.write(
            crosscoder,
            destination,
            latents=latents,
            side=chosen,
            coefficient=coefficient,
            hookpoint=hookpoint or steered.HOOKPOINT,
        )
    elif to == "dictionary_learning":
        write_dictionary_learning(crosscoder, destination)
    else:
        checkpoint.save(crosscoder, destination)


def ready_to_push(loaded: LoadedCrosscoder, repo_id: str, folder: Path) -> list[Path]:
    """Write what an upload consists of, with the card, into a new folder; nothing leaves the machine."""
    from diffharness.crosscoder import hub

    hub.check_repo_id(repo_id)
    return hub.prepare(loaded.open(), loaded.stated_quality, repo_id, folder)


def _measured(
    opened: Opened,
    trained: Sequence[Any],
    tokens_NMD: Any,
    loaded_from: str = "",
    stated: Mapping[str, Any] | None = None,
) -> CrosscoderQuality:
    from diffharness.stages.quality import measured

    splice = opened.splice(trained[0]) if opened.splice is not None else None
    return measured(trained, tokens_NMD, splice=splice, loaded_from=loaded_from, stated=stated)


def _refuse_other(output: Path, made: str, settings: TrainingSettings) -> bool:
    """Whether this very crosscoder stands in the folder.

    Raises:
        UsageError: another one does.
    """
    from diffharness.crosscoder.config import CrosscoderConfig

    try:
        stages = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["stages"]
        entry = stages.get(STAGE, {}).get("fingerprint")
    except (OSError, ValueError, KeyError, AttributeError):
        stages, entry = {}, None
    if "compare" in stages:
        raise UsageError(f"--output {output} is the folder of a run; choose another")
    if not (output / "config.json").exists():
        return False
    if entry == made:
        return not altered_files(output, STAGE)
    try:
        found = CrosscoderConfig.model_validate_json((output / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    raise UsageError(
        f"--output {output} holds a crosscoder {_difference(found, settings)}; choose another folder, or delete it"
    )


def _difference(found: CrosscoderConfig | None, settings: TrainingSettings) -> str:
    """What tells the crosscoder that is there from the one that was asked for, in words."""
    if found is None or found.training is None:
        return "that was not trained here"
    there, asked = found.training.model_dump(), settings.model_dump()
    name = next((name for name in asked if there[name] != asked[name]), None)
    if name is None:
        return "of other activations, seeds or version"
    return f"of other settings ({name} {there[name]} there, {asked[name]} asked for)"


def _check_loggers(names: Sequence[str]) -> None:
    """Find a package that is not installed before anything is read."""
    from importlib.util import find_spec

    missing = next((name for name in names if find_spec(name) is None), None)
    if missing is not None:
        raise UsageError(f"--log {missing} needs the package {missing}, which is not installed: pip install {missing}")


def _loggers(names: Sequence[str], output: Path, settings: TrainingSettings, made: str) -> Callable[[str], list[Log]]:
    """Further logs for each crosscoder that is trained."""
    from diffharness.crosscoder.logs import TensorBoard, WeightsAndBiases

    def make(seed: str) -> list[Log]:
        found: list[Log] = []
        if "tensorboard" in names:
            found.append(TensorBoard(output / "tensorboard" / seed))
        if "wandb" in names:
            name = f"{output.resolve().name}-{seed}"
            found.append(WeightsAndBiases("diffharness", name, settings.model_dump(), run_id=f"{made}-{seed}"))
        return found

    return make


def _read_quality(output: Path) -> CrosscoderQuality:
    from diffharness.report.schema import CrosscoderQuality

    try:
        return CrosscoderQuality.model_validate_json((output / QUALITY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{output / QUALITY_NAME} can not be read; delete {output} and train again") from error


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _joined(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
