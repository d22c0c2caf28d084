"""The native format on disk: `config.json`, enough to rebuild the blank model, and `model.safetensors`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import RunError, UsageError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def save(crosscoder: Crosscoder, folder: Path | str) -> None:
    """Write the two files, each under a temporary name first; other files in the folder stay.

    The configuration is in the weights' header too, so that `load` notices a pair of two different saves.

    Raises:
        RunError: the folder can not be written.
    """
    config_json = crosscoder.config.model_dump_json(indent=2)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in crosscoder.state().items()}
    write_together(Path(folder), tensors, {"config": config_json}, {CONFIG_NAME: config_json + "\n"})


def write_together(
    folder: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], texts: Mapping[str, str]
) -> None:
    """Write `model.safetensors` and texts by file name, all under temporary names first; other files stay.

    Raises:
        RunError: the folder can not be written.
    """
    temporary = {name: folder / f".{name}.{os.getpid()}.partial" for name in (WEIGHTS_NAME, *texts)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), temporary[WEIGHTS_NAME], metadata=metadata)
        for name, text in texts.items():
            temporary[name].write_text(text, encoding="utf-8")
            temporary[WEIGHTS_NAME].chmod(temporary[name].stat().st_mode)  # safetensors lets nobody else read
        for name, path in temporary.items():
            path.replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise RunError(f"crosscoder can not be written to {folder}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            for path in temporary.values():
                path.unlink(missing_ok=True)


def load(folder: Path | str, device: str = "cpu") -> Crosscoder:
    """Rebuild the crosscoder that `save` left in a folder.

    Raises:
        UsageError: a file is missing, is no crosscoder of this format, or the two do not belong together.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG_NAME)
    tensors, config_in_weights = _read_weights(folder / WEIGHTS_NAME, device)
    if config_in_weights is not None and config_in_weights != config:
        raise UsageError(
            f"{folder}: {CONFIG_NAME} and {WEIGHTS_NAME} are of two different saves; train the crosscoder again"
        )
    crosscoder = Crosscoder(config).requires_grad_(False)
    crosscoder.to(device=device, dtype=tensors["W_dec_LMD"].dtype if "W_dec_LMD" in tensors else None)
    _check_tensors(folder / WEIGHTS_NAME, crosscoder.state(), tensors)
    for name, tensor in crosscoder.state().items():
        tensor.copy_(tensors[name])
    return crosscoder


def _read_config(path: Path) -> CrosscoderConfig:
    try:
        return CrosscoderConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no crosscoder configuration can be read ({error})") from error
    except ValidationError as error:
        raise UsageError(f"{path}: not a crosscoder configuration of this version: {_first(error)}") from error


def _read_weights(path: Path, device: str) -> tuple[dict[str, Tensor], CrosscoderConfig | None]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            header = (file.metadata() or {}).get("config")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, None if header is None else CrosscoderConfig.model_validate_json(header)
    except (OSError, SafetensorError, ValidationError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(f"{path}: no crosscoder weights can be read ({reason})") from error


def _check_tensors(path: Path, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """The tensors are those of the configuration: names, shapes, finite."""
    if wanted.keys() != found.keys():
        odd = sorted(wanted.keys() ^ found.keys())
        raise UsageError(f"{path}: tensors missing or unknown: {', '.join(odd)}; train the crosscoder again")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise UsageError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, but {CONFIG_NAME} says {tuple(wanted[name].shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise UsageError(f"{path}: {name} holds values that are not finite; train the crosscoder again")


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    details = error.errors()[0]
    where = ".".join(str(part) for part in details["loc"])
    return f"{where}: {details['msg']}" if where else details["msg"]
