"""The dictionary: model, training, checkpoints, quality."""

from diffharness.crosscoder.checkpoint import save
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.loading import load
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import QualityMeasures, measure, staleness
from diffharness.crosscoder.random_encoder import random_encoder
from diffharness.crosscoder.stability import Stability, matched_share
from diffharness.crosscoder.training import train

__all__ = [
    "Crosscoder",
    "CrosscoderConfig",
    "QualityMeasures",
    "Stability",
    "TrainingSettings",
    "load",
    "matched_share",
    "measure",
    "random_encoder",
    "save",
    "staleness",
    "train",
]
