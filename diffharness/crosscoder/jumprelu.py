"""JumpReLU: an activation is kept as it is above its latent's threshold, and the threshold is learned.

Legend: N tokens, L latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def jump(scaled_NL: Float[Tensor, "N L"], threshold_L: Float[Tensor, " L"], bandwidth: float) -> Float[Tensor, "N L"]:
    """`scaled_NL` where it is above the threshold, else 0; differentiable in both.

    The jump's derivative by the threshold θ, −θ δ(s − θ), is replaced by −(θ/ε) over the values within ε/2 of the
    threshold (a rectangle kernel, straight through; Rajamanoharan et al. 2407.14435, eq. 11); that by the value is the
    kept values' own.
    """
    kept_NL: Tensor = _Jump.apply(scaled_NL, threshold_L, bandwidth)
    return kept_NL


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *inputs: Tensor | float) -> Tensor:
        scaled_NL, threshold_L, bandwidth = inputs
        assert isinstance(scaled_NL, Tensor)
        assert isinstance(threshold_L, Tensor)
        ctx.save_for_backward(scaled_NL, threshold_L)
        ctx.bandwidth = bandwidth  # pyright: ignore[reportAttributeAccessIssue]
        return scaled_NL * (scaled_NL > threshold_L)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        (slope_NL,) = slopes
        scaled_NL, threshold_L = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        bandwidth: float = ctx.bandwidth  # pyright: ignore[reportAttributeAccessIssue]
        near_NL = (scaled_NL - threshold_L).abs() < bandwidth / 2
        slope_threshold_L = (slope_NL * near_NL).sum(dim=0) * (-threshold_L / bandwidth)
        return slope_NL * (scaled_NL > threshold_L), slope_threshold_L, None
