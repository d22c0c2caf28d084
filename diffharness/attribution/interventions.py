"""Exact interventions: a model runs with another state at the layer, while lm-eval scores it with its own metric.

Hooks around the model put the state there, so whatever lm-eval does with it (scoring, generation with a cache) goes
through it; the other model reads along. x^m is a model's state, f its code, d^m its decoder, m the model that is run
and m' the other one. Positions without a code (the first that is no padding, skipped ids) are left alone, but for
`swap` and `add`, which take every position from the other model.

Legend: B rows, T positions, N coded positions, M models, D width, L latents, S chosen latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.attribution.read_along import ReadAlong
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

Mode = Literal["nothing", "put_back", "put_in", "remove", "reconstruct", "swap", "add", "mean_difference"]
BASELINE, CANDIDATE = 0, 1
_CHUNK_CELLS = 8_000_000
"""Numbers of a temporary table: pre-activations of some tokens."""
_ON_THE_OTHER: tuple[Mode, ...] = ("swap", "add")
"""Modes that begin with the other model's state."""
_SIGNS: dict[Mode, tuple[int, int]] = {
    "put_back": (-1, 1),
    "put_in": (-1, 1),
    "remove": (-1, 0),
    "swap": (0, -1),
    "add": (1, -1),
}
"""What becomes of the chosen latents' Σ f d of the model that is run, and of the other's."""


@dataclass(frozen=True)
class Arm:
    """What stands at the layer in place of the model's own state."""

    mode: Mode
    """`nothing`: its own state, all machinery running. `put_back` (candidate) and `put_in` (baseline): the latents in
    the other model's version, x^m − Σ f d^m + Σ f d^m'. `remove`: without the latents, x^m − Σ f d^m. `reconstruct`:
    the reconstruction x̂^m. `swap`: the other model's state, without the latents if any: x^m' − Σ f d^m'.
    `add`: the other model's state with the latents in the version of the model that is run, x^m' − Σ f d^m' + Σ f d^m.
    `mean_difference`: x^m moved by the difference of the models' mean activations, x^m + mean^m' − mean^m."""
    latents: tuple[int, ...] = ()
    """Indices, for the modes that are about latents."""

    def __post_init__(self) -> None:
        if self.latents and self.mode not in _SIGNS:
            raise ValueError(f"an arm of mode {self.mode} is about no latents")


@contextmanager
def intervene(readers: Sequence[LayerReader], crosscoder: Crosscoder, target: int, arm: Arm) -> Iterator[None]:
    """Within the context, one of the two models runs with another state at the layer.

    Args:
        readers: of the baseline and the candidate, at the layer.
        crosscoder: over (baseline, candidate).
        target: which model is run (`BASELINE` or `CANDIDATE`); restored on leaving.
        arm: what stands at the layer. With nothing changed the model's outputs are its own to the byte.

    Raises:
        ValueError: `put_back` on the baseline, `put_in` on the candidate, or a latent that the crosscoder lacks.
        UsageError: `mean_difference` with a crosscoder that does not hold the means.
    """
    if (arm.mode, target) in (("put_back", BASELINE), ("put_in", CANDIDATE)):
        raise ValueError(f"{arm.mode} goes with the {('candidate', 'baseline')[target]}")
    model = readers[target].model
    along = ReadAlong(readers[1 - target], crosscoder.config.skipped_ids)
    state = _State(crosscoder, target, arm)

    def change(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        own_BTD = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            changed_BTD = state.changed(own_BTD, along.read, along.coded(own_BTD.device))
        return (changed_BTD, *output[1:]) if isinstance(output, tuple) else changed_BTD

    handles = [
        model.register_forward_pre_hook(along.starts, with_kwargs=True),
        decoder_layers(model)[1][readers[target].layer].register_forward_hook(change),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _State:
    """The state of an arm, from both models' own."""

    def __init__(self, crosscoder: Crosscoder, target: int, arm: Arm) -> None:
        self.crosscoder, self.target, self.arm = crosscoder, target, arm
        self.device = crosscoder.W_dec_LMD.device
        if arm.latents and not 0 <= min(arm.latents) <= max(arm.latents) < crosscoder.n_latents:
            raise ValueError(f"latents {arm.latents} are not all of 0 to {crosscoder.n_latents - 1}")
        self.chosen_S = torch.tensor(arm.latents, dtype=torch.long, device=self.device)
        divisor_M1 = crosscoder.scale_M[:, None] + crosscoder.config.scale_epsilon
        self.decoder_SMD = crosscoder.W_dec_LMD.detach()[self.chosen_S] / divisor_M1
        if arm.mode == "mean_difference" and not crosscoder.mean_MD.any():
            raise UsageError("the crosscoder does not hold the models' mean activations; leave mean_difference out")

    def changed(
        self, own_BTD: Float[Tensor, "B T D"], read: Callable[[], Tensor], coded_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """What takes the place of a model's own state, in its dtype and on its device."""
        mode, target = self.arm.mode, self.target
        if mode == "mean_difference":
            move_D = self.crosscoder.mean_MD[1 - target] - self.crosscoder.mean_MD[target]
            return _at(own_BTD, coded_BT, own_BTD[coded_BT] + move_D.to(own_BTD.device))
        other_BTD = read().to(own_BTD.device)
        is_other = mode in _ON_THE_OTHER
        x_BTD = other_BTD.to(own_BTD.dtype) if is_other else own_BTD
        if (is_other and not self.arm.latents) or not coded_BT.any():
            return x_BTD
        exact = torch.promote_types(own_BTD.dtype, torch.float32)
        pair = (own_BTD, other_BTD) if target == BASELINE else (other_BTD, own_BTD)
        x_NMD = torch.stack([x[coded_BT].to(self.device, exact) for x in pair], dim=1)
        if mode == "reconstruct":
            return _at(own_BTD, coded_BT, self._reconstructed(x_NMD))
        source = 1 - target if is_other else target
        return _at(x_BTD, coded_BT, x_NMD[:, source] + self._shift(x_NMD))

    def _chunks(self, x_NMD: Tensor) -> Iterator[Tensor]:
        return iter(x_NMD.split(max(1, _CHUNK_CELLS // self.crosscoder.n_latents)))

    def _reconstructed(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N D"]:
        return torch.cat([self.crosscoder(part)[:, self.target] for part in self._chunks(x_NMD)])

    def _shift(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N D"]:
        """What is added where the chosen latents change."""
        own, other = _SIGNS.get(self.arm.mode, (-1, 1))
        parts = []
        for part_nMD in self._chunks(x_NMD):
            f_nML = self.crosscoder.encode(part_nMD)
            f_nMS = (f_nML[:, None] if f_nML.ndim == 2 else f_nML)[..., self.chosen_S].expand(-1, 2, -1)
            decoded = [f_nMS[:, m] @ self.decoder_SMD[:, m] for m in (self.target, 1 - self.target)]
            parts.append(own * decoded[0] + other * decoded[1])
        return torch.cat(parts)


def _at(x_BTD: Tensor, coded_BT: Tensor, values_ND: Tensor) -> Float[Tensor, "B T D"]:
    """A state with other values at some positions."""
    changed_BTD = x_BTD.clone()
    changed_BTD[coded_BT] = values_ND.to(x_BTD)
    return changed_BTD
