"""The report's one data model: every view (terminal, Markdown, HTML, JSON) is made from it.

Lower case words are the design's: a gap is always candidate − baseline, a component is one part of a gap.
A value that can not be computed is `None` with a reason beside it; NaN is refused.
"""

from __future__ import annotations

from pathlib import Path

from diffharness.report.schema.ablations import AblatedModel, AblatedRow
from diffharness.report.schema.annotation import Agreement, Annotation, Detection, Evidence
from diffharness.report.schema.base import Histogram, Interval, LatentStatus, Model, Side, TaskVerdict
from diffharness.report.schema.claims import Claim, RandomEffects
from diffharness.report.schema.crosscoder import CrosscoderQuality, DecoderPair, SpliceLoss, Stability
from diffharness.report.schema.depth import HALF, DepthProfile, LayerDepth, carried_together
from diffharness.report.schema.documents import FlippedDocument, OtherFlips, TaskDocuments, TokenColumn, TokenSegment
from diffharness.report.schema.flips import FlipExample, FlipKind, FlipKinds, PositionShift
from diffharness.report.schema.latents import (
    Association,
    CategoryShift,
    ChangedUse,
    Example,
    Latent,
    Lens,
    Neighbour,
    Promoted,
    Use,
)
from diffharness.report.schema.shapley import Shapley, ShapleyAgreement, ShapleyPlayer
from diffharness.report.schema.tasks import Ablation, Component, Document, Surrogate, Task, component_label
from diffharness.report.schema.trust import Completeness, Control, CorpusSource, ReplayCheck, Rescored, Validation

__all__ = [
    "HALF",
    "SCHEMA_VERSION",
    "AblatedModel",
    "AblatedRow",
    "Ablation",
    "Agreement",
    "Annotation",
    "Association",
    "CategoryShift",
    "ChangedUse",
    "Claim",
    "Comparability",
    "Completeness",
    "Component",
    "Control",
    "CorpusSource",
    "CrosscoderQuality",
    "DecoderPair",
    "DepthProfile",
    "Detection",
    "Document",
    "Evidence",
    "Example",
    "FlipExample",
    "FlipKind",
    "FlipKinds",
    "FlippedDocument",
    "Histogram",
    "Interval",
    "Latent",
    "LatentStatus",
    "LayerDepth",
    "Lens",
    "Model",
    "ModelInfo",
    "Neighbour",
    "OtherFlips",
    "PositionShift",
    "Promoted",
    "Provenance",
    "RandomEffects",
    "ReplayCheck",
    "Report",
    "Rescored",
    "RunInfo",
    "Shapley",
    "ShapleyAgreement",
    "ShapleyPlayer",
    "Side",
    "SpliceLoss",
    "Stability",
    "Surrogate",
    "Task",
    "TaskDocuments",
    "TaskVerdict",
    "TokenColumn",
    "TokenSegment",
    "Use",
    "Validation",
    "carried_together",
    "component_label",
]

SCHEMA_VERSION = "1.5"


class RunInfo(Model):
    """What was run."""

    name: str
    created: str
    """ISO 8601, UTC."""
    command: str
    """A command that reproduces the run."""
    layer: int
    """0-based index of the decoder block whose output was compared."""
    n_layers: int
    order: str
    """Whose upper stack the account uses, in words."""
    smallest_effect: float
    seed: int
    seconds: float
    """Wall time of the stages that ran."""
    notes: tuple[str, ...] = ()
    """What a reader has to know before the tables, in whole sentences."""


class ModelInfo(Model):
    """One of the models compared."""

    side: Side
    name: str
    model_args: str
    n_parameters: int
    n_layers: int
    hidden_size: int
    dtype: str
    fingerprint: str
    """Of the model's files, or of its Hub id and revision; first 16 hex digits of a SHA-256."""


class Comparability(Model):
    """Whether the two sides answered the same questions."""

    documents_equal: bool
    prompts_equal: bool
    tokenizers_equal: bool
    notes: tuple[str, ...] = ()


class Provenance(Model):
    """What made this report."""

    versions: dict[str, str]
    platform: str
    config: dict[str, object]
    config_hash: str
    task_hashes: dict[str, str]


class Report(Model):
    """A leaderboard whose every row says why."""

    schema_version: str = SCHEMA_VERSION
    run: RunInfo
    models: tuple[ModelInfo, ...]
    comparability: Comparability
    quality: tuple[CrosscoderQuality, ...]
    tasks: tuple[Task, ...]
    ablated: tuple[AblatedModel, ...] = ()
    """What if: models without some categories (`--ablate`)."""
    depth: tuple[DepthProfile, ...] = ()
    """A task each: how much of its gap every layer carries."""
    categories: tuple[CategoryShift, ...]
    categories_reason: str | None = None
    """Why there is no category shift."""
    latents: tuple[Latent, ...]
    annotation: Annotation | None = None
    """How the latents got their names."""
    shapley: tuple[Shapley, ...] = ()
    """A task with a gap each: its categories on the real metric."""
    shapley_agreement: ShapleyAgreement | None = None
    """How these values go together with what is written."""
    changed: ChangedUse | None = None
    """What changed where nothing, or little, is specific."""
    corpus: tuple[CorpusSource, ...] = ()
    claims: tuple[Claim, ...] = ()
    """What undoing each clear contribution does, beside random sets of latents."""
    flips: tuple[FlipKinds, ...] = ()
    """A task each: its documents whose score changed, by what their answers show."""
    documents: tuple[TaskDocuments, ...] = ()
    """A task with a gap each: documents whose score changed, down to their tokens."""
    validation: Validation
    provenance: Provenance

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read `report.json`, or the run folder that holds it."""
        path = Path(path)
        file = path / "report.json" if path.is_dir() else path
        return cls.model_validate_json(file.read_text(encoding="utf-8"))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from diffharness.report.frames import Report as Shown

        return Shown(self).to_html()
