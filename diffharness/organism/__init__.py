"""The embedded default: a tiny model trio with a planted, known difference."""

from diffharness.organism.builder import Organism, build, tasks_path
from diffharness.organism.plant import Plant

__all__ = ["Organism", "Plant", "build", "tasks_path"]
