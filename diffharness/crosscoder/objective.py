"""What a training step minimises: one interface for all kinds of sparsity.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one batch showed."""

    unexplained: float
    """Σ‖ε‖² / Σ‖z‖²: the reconstruction's error in units of the normalised data's variance."""
    l0: float
    """Mean number of active latents a token."""
    fired_L: Bool[Tensor, " L"]
    notes: Mapping[str, float] = field(default_factory=dict)
    """What else is worth a line in the log, such as `k` or `penalty`."""


class Objective(Protocol):
    """A loss over a crosscoder, and what is learned for it besides the crosscoder's own weights."""

    def parameters(self) -> list[Tensor]:
        """What is learned besides the crosscoder's four parameters."""
        ...

    def gradients(self, z_NMD: Float[Tensor, "N M D"], *, share: float, dead_L: Bool[Tensor, " L"]) -> Step:
        """Set `.grad` of everything that is learned, from normalised activations.

        Args:
            z_NMD: a batch.
            share: how far training has come, from 0 at the first step to 1 at the last.
            dead_L: latents that have been silent for long.
        """
        ...

    def finish(self) -> None:
        """Put what was learned besides the weights into the crosscoder."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs, the values of `parameters` included."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        ...
