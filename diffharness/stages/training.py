"""From a user's options to trained crosscoders in a folder: the same for a run and without a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from diffharness import defaults
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.crosscoder.batches import Activations
    from diffharness.crosscoder.config import Sparsity, TrainingSettings
    from diffharness.crosscoder.logs import Log
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.progress import Report

LOG_NAME = "log.jsonl"
_TRAINED = ".trained"
"""Stands beside a crosscoder whose training is over while others of the same call are still trained."""


class CrosscoderOptions(Protocol):
    """What a user says of a crosscoder; each as in `RunConfig`."""

    @property
    def latents(self) -> int | None:
        """Size of the crosscoder."""
        ...

    @property
    def k(self) -> int | None:
        """Mean number of active latents a token."""
        ...

    @property
    def sparsity(self) -> Sparsity:
        """What keeps the code sparse."""
        ...

    @property
    def shared_latents(self) -> int:
        """Latents whose decoders are the same in all models."""
        ...

    @property
    def dedicated(self) -> int:
        """Latents of each model alone."""
        ...

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of nested dictionaries."""
        ...


class TrainOptions(BaseModel):
    """How a crosscoder is trained without a benchmark; the fields are the options of `crosscoder train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latents: int | None = Field(None, ge=1)
    k: int | None = Field(None, ge=1)
    sparsity: Literal["batch_topk", "topk", "l1", "jumprelu"] = defaults.SPARSITY
    shared_latents: int = Field(0, ge=0)
    dedicated: int = Field(0, ge=0)
    groups: tuple[int, ...] = ()
    seed: int = defaults.SEED
    seeds: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    batch_tokens: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    initial_k: int | None = Field(None, ge=1)
    stop_patience: int | None = Field(None, ge=1)
    product_dtype: Literal["auto", "float32", "bfloat16"] | None = None

    @field_validator("groups", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        """`64,256`, as on the command line."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> TrainOptions:
        """Validate.

        Raises:
            UsageError: one line that names the first wrong value.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = f"--{first['loc'][0]}".replace("_", "-")
            raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error

    def settings(self, d_model: int, n_sides: int) -> TrainingSettings:
        """Those of a training on models of a width."""
        return training_settings(
            self,
            d_model,
            n_sides,
            seed=self.seed,
            n_steps=self.steps,
            n_epochs=self.epochs,
            batch_tokens=self.batch_tokens,
            learning_rate=self.learning_rate,
            initial_k=self.initial_k,
            stop_patience=self.stop_patience,
            product_dtype=self.product_dtype,
        )


def training_settings(options: CrosscoderOptions, d_model: int, n_sides: int, **more: Any) -> TrainingSettings:
    """The settings of a training on models of a width.

    Args:
        options: what the user says; sizes that are left out follow from the width.
        d_model: width of the models.
        n_sides: how many models there are.
        **more: further fields of `TrainingSettings`; those that are None are left out.

    Raises:
        UsageError: options that do not go together, in one line.
    """
    from diffharness.crosscoder.config import TrainingSettings

    n_latents, k = defaults.crosscoder_size(d_model, options.latents, options.k)
    if options.k is not None and options.k > n_latents:
        raise UsageError(
            f"--k {options.k} is above the {n_latents} latents that there are; lower it or raise --latents"
        )
    apart = options.shared_latents + options.dedicated * n_sides
    if apart > n_latents:
        raise UsageError(
            f"--shared-latents {options.shared_latents} and --dedicated {options.dedicated} for each of {n_sides} "
            f"models are {apart} latents, more than the {n_latents} that there are; lower them or raise --latents"
        )
    try:
        return TrainingSettings(
            n_latents=n_latents,
            k=k,
            sparsity=options.sparsity,
            n_tied=options.shared_latents,
            n_dedicated=(options.dedicated,) * n_sides if options.dedicated else (),
            groups=_with_all(options.groups, n_latents),
            **{name: value for name, value in more.items() if value is not None},
        )
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(f"--{part}".replace("_", "-") for part in found["loc"])
        message = found["msg"].removeprefix("Value error, ")
        raise UsageError(f"the crosscoder's options can not work: {where + ': ' if where else ''}{message}") from error


def _with_all(groups: tuple[int, ...], n_latents: int) -> tuple[int, ...]:
    """The nested sizes, with all latents as the last.

    Raises:
        UsageError: they do not ascend within the latents.
    """
    if any(a >= b for a, b in zip((0, *groups), groups)) or (groups and groups[-1] > n_latents):
        shown = ",".join(map(str, groups))
        raise UsageError(f"--groups {shown} must ascend from 1 to at most the {n_latents} latents that there are")
    return groups if not groups or groups[-1] == n_latents else (*groups, n_latents)


def train_seeds(
    x_NMD: Activations,
    heldout_NMD: Activations,
    settings: TrainingSettings,
    folder: Path,
    progress: Report,
    *,
    n_seeds: int = 1,
    logs: Callable[[str], Sequence[Log]] = lambda _name: (),
    **about: Any,
) -> list[Crosscoder]:
    """Train crosscoders with one seed after the other and save them, each with its log.

    The first is saved in the folder itself, the others in `seed-N/`. A call that was cut off and is made again with the
    same arguments goes on where it was.

    Args:
        x_NMD: activations (tokens, models × layers, width).
        heldout_NMD: the same on other texts.
        settings: of the first; the others have the following seeds.
        folder: where the result and, until it is done, the state of training are.
        progress: told the steps, with what training shows behind them.
        n_seeds: how many.
        logs: further logs for the crosscoder of a name (`seed-N`).
        **about: what else `crosscoder.training.train` takes: sides, layers, models, device ...
    """
    from diffharness.crosscoder import checkpoint

    trained: list[Crosscoder] = []
    for number in range(n_seeds):
        own = settings.model_copy(update={"seed": settings.seed + number})
        place = folder if number == 0 else folder / f"seed-{own.seed}"
        place.mkdir(parents=True, exist_ok=True)
        if (place / _TRAINED).exists():
            trained.append(checkpoint.load(place, str(about.get("device") or x_NMD.device)))
            continue
        report = _of_several(progress, number, n_seeds)
        crosscoder = _train(x_NMD, heldout_NMD, own, place, report, logs(f"seed-{own.seed}"), about)
        checkpoint.save(crosscoder, place)
        (place / _TRAINED).touch()
        trained.append(crosscoder)
    for mark in folder.rglob(_TRAINED):
        mark.unlink()
    return trained


def _train(
    x_NMD: Activations,
    heldout_NMD: Activations,
    settings: TrainingSettings,
    place: Path,
    report: Report,
    logs: Sequence[Log],
    about: Mapping[str, Any],
) -> Crosscoder:
    from diffharness.crosscoder.logs import JsonLines, describe, several
    from diffharness.crosscoder.training import train

    shown = ""

    def show(record: Mapping[str, float]) -> None:
        nonlocal shown
        shown = describe(record)

    with ExitStack() as stack:
        log = stack.enter_context(several(JsonLines(place / LOG_NAME), *logs))

        def keep(record: dict[str, float]) -> None:
            show(record)
            log(record)

        return train(
            x_NMD,
            settings,
            heldout_NMD=heldout_NMD,
            progress=lambda done, total: report(done, total, shown),
            log=keep,
            resume_in=place / "training",
            **about,
        )


def _of_several(progress: Report, number: int, count: int) -> Report:
    """The progress of one training as that of several alike."""

    def report(done: int, total: int, note: str = "", /) -> None:
        progress(number * total + done, count * total, note)

    return report
