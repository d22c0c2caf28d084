"""What stages' results are made from, where that is more than the configuration's fields; and how it is fingerprinted.

A stage whose result was made from the same is not run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness import __version__
from diffharness.artifacts import fingerprint, path_fingerprint
from diffharness.latents.annotators.spec import parse_annotator
from diffharness.templates import asked_from, model_side

if TYPE_CHECKING:
    from diffharness.config import RunConfig
    from diffharness.pipeline import Run

LAYOUT = 5
"""Of the stages' artifacts; a run of another layout is made anew."""


@dataclass(frozen=True)
class Stage:
    """A finished stage: where its files are, and what it was made from."""

    folder: Path
    fingerprint: str


def stage_fingerprint(name: str, made_from: Any) -> str:
    """What tells a stage's result from that of other inputs, and of other versions."""
    return fingerprint(__version__, LAYOUT, name, made_from)


def evaluated_from(run: Run, side: str) -> list[Any]:
    """What a side's scores are made from."""
    return [
        run.session.model_fingerprints[model_side(side)],
        run.session.tasks_fingerprint,
        run.config.limit,
        run.session.protocol,
        run.config.batch_size,
        run.config.device,
        path_fingerprint(run.recorded[side].folder) if side in run.recorded else None,
        *asked_from(run.config, side, run.session.model_fingerprints["baseline"]),
    ]


def harvested_from(run: Run) -> list[Any]:
    """What the activations are made from."""
    config, session = run.config, run.session
    texts = [*config.corpus, *session.corpus_fingerprints] or [
        run.evaluation(run.shared(s)).fingerprint for s in run.compared
    ]
    return [
        {s: session.model_fingerprints[s] for s in run.sides},
        texts,
        session.layer_fingerprint,
        config.train_tokens,
        config.seed,
        config.device,
        config.activation_dtype,
        config.stream,
    ]


def trained_from(config: RunConfig) -> list[Any]:
    """What a crosscoder is made from but for its activations and models."""
    return [
        config.latents, config.k, config.sparsity, config.shared_latents, config.dedicated, config.groups, config.seed,
        config.seeds, config.skip_special,
    ]  # fmt: skip


def named_from(config: RunConfig) -> list[Any]:
    """What the names of latents are made from."""
    files = [config.probes, config.taxonomy, *(label_file(spec) for spec in config.annotator)]
    asked = config.annotate if set(config.annotator) - {"probe", "none"} else None
    return [config.annotator, asked, *(None if f is None else path_fingerprint(f) for f in files)]


def label_file(annotator: str) -> Path | None:
    """The file of a person's labels, where an annotator is one."""
    spec = None if annotator == "none" else parse_annotator(annotator)
    return Path(spec.argument) if spec is not None and spec.kind == "file" else None
