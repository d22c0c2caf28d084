"""The normalised space: a mean a model and dimension, and one scale a model, summed in float64.

Legend: N tokens, M models, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.errors import RunError

CHUNK_TOKENS = 4096
CODE_VALUES = 1 << 22
"""Activations (tokens × latents) that are in memory at a time, several times over: 16 MiB each in float32."""


def chunks(x_NMD: Activations, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[Tensor]:
    """Contiguous pieces, so that a memory map is never read whole."""
    for start in range(0, len(x_NMD), chunk_tokens):
        yield x_NMD[start : start + chunk_tokens]


def code_chunk_tokens(config: CrosscoderConfig) -> int:
    """Tokens whose dense codes are computed at a time: so many that the code stays within `CODE_VALUES`."""
    n_codes = len(config.columns) if config.decoupled else 1
    return max(1, min(CHUNK_TOKENS, CODE_VALUES // (config.n_latents * n_codes)))


def normalisation(x_NMD: Activations, config: CrosscoderConfig) -> tuple[Float[Tensor, "M D"], Float[Tensor, " M"]]:
    """Mean (float64) of each model and dimension, and the scale that makes the mean of ‖scale (x − mean)‖² the width.

    One scale a model (Minder et al.'s newer convention), because scales change Δnorm. Tokens of other kind
    than those coded later (first tokens, with norms many times the usual) are for the caller to leave out.

    Raises:
        RunError: a model's activations are not finite, or constant.
    """
    n_tokens = len(x_NMD)
    sum_MD = torch.zeros(x_NMD.shape[1:], dtype=torch.float64)
    for x_CMD in chunks(x_NMD):
        sum_MD += x_CMD.to(torch.float64).sum(dim=0).cpu()
    mean_MD = sum_MD / n_tokens
    square_M = torch.zeros(len(mean_MD), dtype=torch.float64)
    for x_CMD in chunks(x_NMD):
        square_M += (x_CMD.to(torch.float64).cpu() - mean_MD).square().sum(dim=(0, 2))
    for side, square in zip(config.columns, square_M.tolist()):
        if not 0 < square < float("inf"):
            raise RunError(
                f"activations of {side}: squared deviation from their mean is {square}; a crosscoder needs "
                "finite activations that vary, check the model's weights and dtype"
            )
    width_M = torch.tensor(config.widths or (config.d_model,) * len(square_M))
    return mean_MD, (n_tokens * width_M / square_M).sqrt()
