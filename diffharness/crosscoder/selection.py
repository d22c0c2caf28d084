"""Which latents a code keeps: the largest of a whole batch, and the threshold that does the same at inference.

Legend: N tokens, L latents, C candidates.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def largest_of_batch(
    scaled_NL: Float[Tensor, "N L"], n_kept: int, above: float = 0.0
) -> tuple[Int[Tensor, " C"], float]:
    """Flat indices of the `n_kept` largest positive values (all of them where fewer are positive).

    `above` is a guess from below of the smallest kept value, for example a share of the last batch's: only
    larger values are sorted, which is what makes the selection cheap. A guess that is too high is noticed
    and dropped, so the result never depends on it. Returns the indices and the smallest kept value.
    """
    flat = scaled_NL.detach().flatten()
    candidates_C = (flat > max(above, 0.0)).nonzero().squeeze(1)
    if len(candidates_C) < n_kept and above > 0:
        candidates_C = (flat > 0).nonzero().squeeze(1)
    values_C = flat[candidates_C]
    if len(candidates_C) > n_kept:
        values_C, order = values_C.topk(n_kept, sorted=False)
        candidates_C = candidates_C[order]
    return candidates_C, float(values_C.min()) if len(values_C) else 0.0


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
