"""A crosscoder's activations from models and texts, without a benchmark; and the choice between these and a store.

Legend: N tokens, M models (models × layers), D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from diffharness.artifacts import fingerprint
from diffharness.config import RunConfig
from diffharness.errors import RunError, UsageError
from diffharness.standalone.sources import FileSource, Opened, Source, StoreSource

if TYPE_CHECKING:
    from rich.console import Console

    from diffharness.activations.splicing import SpliceLoss
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.pipeline import Run
    from diffharness.progress import StageProgress


class HarvestConfig(RunConfig):
    """Two or three models and texts for them, without a benchmark."""

    @property
    def needs_tasks(self) -> bool:
        """No."""
        return False

    @model_validator(mode="after")
    def _consistent(self) -> HarvestConfig:
        for side in ("baseline", "candidate"):
            if getattr(self, side) is None:
                raise ValueError(f"{side} is missing; give a folder, a Hub id or lm-eval model_args, or --activations")
        if not self.corpus:
            raise ValueError("corpus is missing; give texts for the models to read, or --activations")
        if any(spec.split("@")[0] == "tasks" for spec in self.corpus):
            raise ValueError("corpus tasks needs a benchmark, and there is none here; give files or hf:DATASET")
        if self.stream and self.layer is not None and "+" in self.layer:
            raise ValueError(f"stream reads one layer, and layer {self.layer} names several; leave one of them out")
        return self


@dataclass(frozen=True)
class ModelSource:
    """Models that read texts: through the same functions as a run, into `activations/` of the output folder."""

    config: HarvestConfig
    console: Console | None = field(default=None, compare=False)

    @cached_property
    def _run(self) -> Run:
        from diffharness.pipeline import Run

        return Run(self.config, self.console)

    @property
    def sides(self) -> tuple[str, ...]:
        """Baseline, candidate, ancestor."""
        return self._run.sides

    @property
    def layers(self) -> tuple[int, ...]:
        """As `--layer` says."""
        return self._run.session.layers

    @property
    def d_model(self) -> int:
        """Of all models alike."""
        return self._run.session.architectures["baseline"].hidden_size

    @property
    def widths(self) -> tuple[int, ...]:
        """They do not differ."""
        return ()

    @property
    def fingerprint(self) -> str:
        """Of models, texts and layer, before anything is read."""
        return fingerprint(self._run.harvest_fingerprint, self.config.skip_special)

    def check(self, progress: StageProgress) -> None:
        """Models, texts and layers."""
        del progress  # the run shows it
        self._run.check()

    def open(self) -> Opened:
        """Harvest."""
        run = self._run
        run.harvest()
        if not len(run.harvested.rows(self.sides)):
            raise RunError("the texts have no token with a code; give a larger --corpus")
        return Opened(
            *run.harvested.training(self.sides),
            run.harvested.rows(self.sides),
            skipped_ids=run.session.skipped_ids,
            models=tuple(run.session.names[side] for side in self.sides),
            device=run.session.device,
            splice=self._splice,
        )

    def _splice(self, crosscoder: Crosscoder) -> Mapping[str, SpliceLoss]:
        from diffharness.activations.splicing import SPLICE_TEXTS
        from diffharness.stages.quality import spliced

        return spliced(self._run.session, crosscoder, self.sides, self._run.harvested.heldout_ids(SPLICE_TEXTS))


OF_STORES = ("layer", "skip_special", "output", "seed", "device")
"""Options that mean something for stored activations too."""


def choose(
    activations: Sequence[Path],
    sides: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    console: Console | None = None,
) -> Source:
    """The activations that a user means.

    Args:
        activations: stores, recordings or a file; none: models read texts.
        sides: what the models are called.
        options: fields of `HarvestConfig`; for stored activations only `OF_STORES`, with layers as numbers.
        console: where progress is shown.

    Raises:
        UsageError: options that contradict each other.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not activations:
        if sides:
            raise UsageError("--sides names stored models; --baseline, --candidate and --ancestor have theirs already")
        return ModelSource(HarvestConfig.make(given), console)
    other = next((name for name in given if name not in OF_STORES), None)
    if other is not None:
        raise UsageError(
            f"--{other.replace('_', '-')} is for models that read texts, and --activations are there already; leave "
            "one of the two out"
        )
    layers = tuple(given.get("layer", ()))
    if any(path.is_file() for path in activations):
        if len(activations) > 1:
            raise UsageError("--activations with a file names that file alone; give one file, or only folders")
        if given.get("skip_special"):
            raise UsageError("--skip-special needs to know the tokens, which a file does not hold; leave it out")
        return FileSource(activations[0], sides, layers)
    return StoreSource(tuple(activations), sides, layers, bool(given.get("skip_special")), int(given.get("seed", 0)))
