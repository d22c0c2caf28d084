"""The threshold that keeps k latents a token at inference, found on held-out tokens.

Legend: N tokens, L latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import chunks, code_chunk_tokens


@torch.no_grad()
def calibrate(crosscoder: Crosscoder, heldout_NMD: Activations) -> None:
    """Set the inference threshold so that the mean number of active latents on held-out tokens is k."""
    calibration = ThresholdCalibration((crosscoder.config.k or 1) * len(heldout_NMD))
    for x_NMD in chunks(heldout_NMD, code_chunk_tokens(crosscoder.config)):
        f_NL = crosscoder.pre_activations(crosscoder.normalize(x_NMD)).relu_()
        calibration.update(f_NL.mul_(crosscoder.code_norm_L))
    crosscoder.threshold.fill_(calibration.threshold())


class ThresholdCalibration:
    """The threshold that keeps a wanted number of values, from values seen chunk by chunk.

    Only the largest `n_kept + 1` values are remembered, so memory does not grow with the number of latents.
    """

    def __init__(self, n_kept: int) -> None:
        self.n_kept = n_kept
        self._values = torch.zeros(0)
        self._floor = 0.0

    def update(self, scaled_NL: Float[Tensor, "N L"]) -> None:
        """Add one chunk of scaled activations f_j Σ_m ‖d_j^m‖."""
        flat = scaled_NL.detach().flatten().cpu()
        self._values = torch.cat([self._values.to(flat.dtype), flat[(flat > 0) & (flat >= self._floor)]])
        if len(self._values) > 2 * (self.n_kept + 1):
            self._trim()

    def _trim(self) -> None:
        """Forget all values below the (n_kept + 1)-th, but keep every tie of it."""
        smallest = self._values.topk(self.n_kept + 1, sorted=False).values.min()
        self._values = self._values[self._values >= smallest]
        self._floor = float(smallest)

    def threshold(self) -> float:
        """The value θ such that 'strictly greater than θ' holds for `n_kept` of the values seen.

        Half-way between two neighbours, so that rounding moves nothing across it. Where ties make the exact
        count impossible, the nearer of the two possible counts; 0 where fewer values are positive.
        """
        ordered = self._values.sort(descending=True).values
        if len(ordered) <= self.n_kept:
            return 0.0
        last, following = ordered[self.n_kept - 1], ordered[self.n_kept]
        if last > following:
            return _between(last, following)
        n_greater, n_not_less = int((ordered > last).sum()), int((ordered >= last).sum())
        if self.n_kept - n_greater <= n_not_less - self.n_kept:
            return float(last)
        return float(torch.nextafter(last, torch.zeros_like(last)))


def _between(upper: Tensor, lower: Tensor) -> float:
    """A value in [lower, upper), half-way where the dtype has one."""
    middle = (upper + lower) / 2
    return float(middle if lower <= middle < upper else lower)
