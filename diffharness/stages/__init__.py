"""What each stage does: reads what earlier stages left, calls its room, writes its artifact.

Only `pipeline.py` calls these; heavy imports happen inside, so that a finished run is read without them.
"""

from diffharness.stages.ablation import ablation
from diffharness.stages.claims import claims
from diffharness.stages.depth import depth
from diffharness.stages.dictionary import load, train
from diffharness.stages.documents import documents
from diffharness.stages.explanation import account, check, control, report
from diffharness.stages.flips import flips
from diffharness.stages.latents import describe_latents
from diffharness.stages.replaying import harvest, harvested
from diffharness.stages.scoring import compare, evaluate
from diffharness.stages.shapley import shapley
from diffharness.stages.validation import validate

__all__ = [
    "ablation",
    "account",
    "check",
    "claims",
    "compare",
    "control",
    "depth",
    "describe_latents",
    "documents",
    "evaluate",
    "flips",
    "harvest",
    "harvested",
    "load",
    "report",
    "shapley",
    "train",
    "validate",
]
