"""A crosscoder that is loaded in place of training: what tells it from another, and whether it fits the models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import fingerprint, path_fingerprint, split_model_args
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.crosscoder.config import CrosscoderConfig
    from diffharness.crosscoder.model import Crosscoder

OWN_NAMES = frozenset(("baseline", "candidate", "ancestor"))


def split_revision(spec: str) -> tuple[str, str | None]:
    """A path as it is; a Hub id and what stands behind its `@`."""
    if Path(spec).expanduser().exists() or "@" not in spec:
        return spec, None
    name, revision = spec.rsplit("@", 1)
    return name, revision or None


def model_name(model_args: str) -> str:
    """What a model is called where others read it: a Hub id, or its folder's own name."""
    name = str(split_model_args(model_args).get("pretrained", model_args))
    return Path(name).resolve().name if Path(name).exists() else name


@dataclass(frozen=True)
class LoadedCrosscoder:
    """A crosscoder on this machine or on the Hub."""

    spec: str
    """A folder, a file, or `HUB_ID[@REVISION]`."""
    code_norm: str | None = None
    """How it scales its code, where its file does not say."""
    option: str = "--crosscoder "
    """How messages call it, before its name."""

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; none for one on the Hub."""
        path = Path(self.spec).expanduser()
        return path if path.exists() else None

    @property
    def fingerprint(self) -> str:
        """What tells it from another without loading it: the files' content, or Hub id and revision."""
        named = split_revision(self.spec) if self.path is None else path_fingerprint(self.path)
        return fingerprint(named, self.code_norm)

    def open(self, *, sides: tuple[str, ...] | None = None, device: str = "cpu") -> Crosscoder:
        """Load it; no gradients.

        Raises:
            UsageError: there is none, or it can not be read.
        """
        from diffharness.crosscoder.loading import load

        name, revision = split_revision(self.spec)
        found = load(name, device=device, code_norm=self.code_norm, sides=sides, revision=revision)
        return found.requires_grad_(False)

    @cached_property
    def config(self) -> CrosscoderConfig:
        """What it is, under its own names of the models; weights are only read where no file of ours says it.

        Raises:
            UsageError: there is none, or it can not be read.
        """
        from pydantic import ValidationError

        from diffharness.crosscoder.config import CrosscoderConfig

        if self.code_norm is not None or self.path is None:
            return self.open().config
        with suppress(
            OSError, ValueError, AttributeError, ValidationError
        ):  # the reader of all formats says what it is
            body = (self.path / "config.json").read_text(encoding="utf-8")
            if json.loads(body).get("format") == "diffharness-crosscoder":
                return CrosscoderConfig.model_validate_json(body)
        return self.open().config

    @property
    def skipped_ids(self) -> frozenset[int] | None:
        """Ids whose positions it has no code for; none for a file of another format, which does not say."""
        return None if self.config.source else frozenset(self.config.skipped_ids)

    @property
    def stated_quality(self) -> dict[str, Any] | None:
        """What `quality.json` beside it says, on this machine; none where there is none."""
        if self.path is None:
            return None
        folder = self.path if self.path.is_dir() else self.path.parent
        try:
            found = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def check(self, sides: tuple[str, ...], d_model: int, layer: str | None, resolved_layer: int) -> None:
        """Refuse one that can not read a run's models.

        Args:
            sides: of the run, in order.
            d_model: width of the run's models.
            layer: what the user said of it, or none.
            resolved_layer: what is read.

        Raises:
            UsageError: number of models, their names, width, layers or kind of code do not fit, in one line each.
        """
        config, shown = self.config, f"{self.option}{self.spec}"
        if len(config.layers) > 1:
            raise UsageError(
                f"{shown} reads layers {', '.join(map(str, config.layers))}, but an account is at one layer; give a "
                "crosscoder of one layer"
            )
        if config.layer is not None and config.layer != resolved_layer:
            raise UsageError(
                f"{shown} reads layer {config.layer}, but --layer {layer} means {resolved_layer}; leave --layer out, "
                "or give a crosscoder of that layer"
            )
        self.check_models(sides, d_model)
        if config.decoupled:
            raise UsageError(
                f"{shown} has a code of its own for every model, and an account needs one code for both; give a "
                "crosscoder whose models share the code"
            )

    def check_models(self, sides: tuple[str, ...], d_model: int, widths: tuple[int, ...] = ()) -> None:
        """Refuse one that is over other models, by number, name or width.

        A file of ours names its models; those of other formats are taken in order.

        Args:
            sides: of the models that are read, in order.
            d_model: their width.
            widths: of every column, where they differ.

        Raises:
            UsageError: naming both.
        """
        config, shown = self.config, f"{self.option}{self.spec}"
        if len(config.sides) != len(sides):
            count = "one model" if len(config.sides) == 1 else f"{len(config.sides)} models"
            raise UsageError(
                f"{shown} is over {count} ({', '.join(config.sides)}), but {', '.join(sides)} are read; give one that "
                f"was trained on {len(sides)}"
            )
        alike = (d_model,) * len(sides)
        there, wanted = (
            _by_model(config.widths, sides) or (config.d_model,) * len(sides),
            _by_model(widths, sides) or alike,
        )
        if there != wanted:
            raise UsageError(
                f"{shown} reads width {_shown(there)}, the models have {_shown(wanted)}; give a crosscoder of these "
                "models"
            )
        if config.sides != sides and (not config.source or set(config.sides) <= OWN_NAMES):
            raise UsageError(
                f"{shown} was trained on {'–'.join(config.sides)}, but {'–'.join(sides)} are read; give one of those, "
                f"or rename its models with `diffharness crosscoder convert --sides {','.join(sides)}`"
            )

    @property
    def name(self) -> str:
        """What it is called where others read it: a Hub id, or the name of its folder or file."""
        return self.spec if self.path is None else self.path.resolve().name

    def origin(self, names: Sequence[str], *, layer_unknown: str = "the run's is taken") -> str:
        """Where it comes from and what was assumed of it, in one line; `names` are what the models are called."""
        config, parts = self.config, [f"loaded from {self.name}"]
        if config.source:
            parts.append("its models are taken in order")
        if not config.layers:
            parts.append(f"its file does not say which layer it reads: {layer_unknown}")
        if config.models and tuple(config.models) != tuple(names):
            parts.append(f"trained on {' and '.join(config.models)}")
        if config.expects != "raw":
            parts.append(
                "its file does not hold the scale of its input, which was set so that the tokens' mean norm is the "
                "root of the width"
            )
        if config.activation == "batch_topk":
            parts.append(f"its file has no threshold, which was calibrated to k {config.k}")
        return "; ".join(parts)


def _by_model(widths: tuple[int, ...], sides: tuple[str, ...]) -> tuple[int, ...]:
    """One width a model, from one a model and layer."""
    return widths[:: max(1, len(widths) // len(sides))]


def _shown(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, dict.fromkeys(widths)))
