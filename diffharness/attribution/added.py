"""The candidate run from the baseline's state plus what some latents change, while lm-eval generates with it.

At the layer, x^b + Σ_{j∈C} f_j (d_j^c − d_j^b) takes the place of x^c; f is the code of both models' states on the
tokens that are being read. Positions without a code keep the baseline's state. It completes the arms of
`interventions.py`: with bias and error as well it is the candidate with the other latents put back.

Legend: B rows, T positions, N coded positions, M models, D width, L latents, S chosen latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.attribution.interventions import CANDIDATE, Arm, intervene
from diffharness.attribution.read_along import ReadAlong
from diffharness.crosscoder.model import Crosscoder

_CHUNK_CELLS = 8_000_000
"""Numbers of a temporary table: pre-activations of some tokens."""


@contextmanager
def with_added(
    readers: Sequence[LayerReader], crosscoder: Crosscoder, latents_L: Bool[np.ndarray, " L"], *, bias_and_error: bool
) -> Iterator[None]:
    """Within the context, the candidate's layers above read the baseline's state plus some of what tells it apart.

    Args:
        readers: of the baseline and the candidate, at the layer.
        crosscoder: over (baseline, candidate).
        latents_L: whose changes are added.
        bias_and_error: whether those of bias and error are too; with all latents the candidate is itself, to the byte.
    """
    if bias_and_error:
        others = tuple(np.flatnonzero(~latents_L).tolist())
        with intervene(readers, crosscoder, CANDIDATE, Arm("put_back", others) if others else Arm("nothing")):
            yield
        return
    model = readers[CANDIDATE].model
    along = ReadAlong(readers[1 - CANDIDATE], crosscoder.config.skipped_ids)
    chosen_L = torch.as_tensor(latents_L, device=crosscoder.W_dec_LMD.device)
    decoder_SMD = crosscoder.raw_decoder().detach()[chosen_L]

    def change(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        own_BTD = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            base_BTD = along.read().to(own_BTD.device)
            changed_BTD = base_BTD.to(own_BTD.dtype, copy=True)
            coded_BT = along.coded(own_BTD.device)
            x_NMD = torch.stack([x[coded_BT] for x in (base_BTD, own_BTD)], dim=1)
            if len(decoder_SMD):
                changed_BTD[coded_BT] = _added(crosscoder, chosen_L, decoder_SMD, x_NMD).to(changed_BTD)
        return (changed_BTD, *output[1:]) if isinstance(output, tuple) else changed_BTD

    handles = [
        model.register_forward_pre_hook(along.starts, with_kwargs=True),
        decoder_layers(model)[1][readers[CANDIDATE].layer].register_forward_hook(change),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _added(
    crosscoder: Crosscoder, chosen_L: Tensor, decoder_SMD: Tensor, x_NMD: Float[Tensor, "N M D"]
) -> Float[Tensor, "N D"]:
    """x^b + Σ f (d^c − d^b) over the chosen latents, in float32."""
    parts = []
    for part_NMD in x_NMD.to(decoder_SMD.device, torch.float32).split(max(1, _CHUNK_CELLS // crosscoder.n_latents)):
        f = crosscoder.encode(part_NMD)[..., chosen_L]
        f_NMS = f if f.ndim == 3 else f[:, None].expand(-1, 2, -1)
        parts.append(part_NMD[:, 0] + f_NMS[:, 1] @ decoder_SMD[:, 1] - f_NMS[:, 0] @ decoder_SMD[:, 0])
    return torch.cat(parts) if parts else x_NMD[:, 0]
