"""The dictionary: model, training, checkpoints, quality."""

from diffharness.crosscoder.checkpoint import save
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.loading import load
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import QualityMeasures, measure
from diffharness.crosscoder.random_encoder import random_encoder
from diffharness.crosscoder.training import train

__all__ = [
    "Crosscoder",
    "CrosscoderConfig",
    "QualityMeasures",
    "TrainingSettings",
    "load",
    "measure",
    "random_encoder",
    "save",
    "train",
]
