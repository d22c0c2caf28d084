"""What a direction of the residual stream says about the next token, by a model's own final norm and unembedding.

Nothing is known of architectures here: what lies between the last decoder block and the unembedding is asked for its
answers to a few states, and a head whose answers are not a norm's or a linear map's is refused.

Legend: T positions, L directions, D width, H width of the unembedding's input, V tokens, X either of D and (D, H).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffharness.activations.capture import UpperStack
from diffharness.activations.layers import decoder_layers, input_device
from diffharness.errors import UsageError

N_POSITIONS = 4
"""Positions whose own states and logits are reproduced before a head is believed."""

LOUD = 16.0
"""Root mean square of the states that are asked: so large that a norm's ε (10⁻⁵ at most) does not show."""

BLOCK_VALUES = 1 << 24
"""Entries of the unembedding that are in float32 at a time: 64 MiB."""


@dataclass(frozen=True, eq=False)
class Head:
    """The linear part of a model's final norm and unembedding.

    The norm's division is left out: it is one positive number a state, so it changes neither the order of the tokens
    nor their proportions. So are biases, which are no change, and whatever monotone function of the logits follows
    (soft capping, a constant factor).
    """

    unembedding: nn.Module
    gain_X: Float[Tensor, " D"] | Float[Tensor, "D H"]
    """What the final norm multiplies every dimension by (1 without a norm), or the linear map that stands there."""
    centred: bool
    """Whether the norm takes the mean over dimensions away first (LayerNorm)."""
    n_tokens: int
    """Logits V; more than the tokenizer has tokens where the vocabulary is padded."""
    dtype: torch.dtype
    """What the unembedding takes."""

    @property
    def d_model(self) -> int:
        """Width D of the residual stream."""
        return self.gain_X.shape[0]

    @torch.no_grad()
    def promotes(self, d_LD: Float[Tensor, "L D"]) -> Float[Tensor, "L V"]:
        """W_U (γ ∘ d), of the centred d for a LayerNorm: the change of logits for one unit of each direction.

        In float32, on the unembedding's device, the directions in the length that they have; their scale is that of a
        state whose final norm divides by 1. An unembedding that is more than a plain matrix (quantised, adapted,
        offloaded) is called in its own precision.

        Args:
            d_LD: directions in raw units, on any device.
        """
        return self.unembed(self._normed(d_LD.to(self.gain_X.device, torch.float32)))

    def _normed(self, d_LD: Tensor) -> Tensor:
        d_LD = d_LD - d_LD.mean(dim=-1, keepdim=True) if self.centred else d_LD
        return d_LD * self.gain_X if self.gain_X.ndim == 1 else d_LD @ self.gain_X

    @torch.no_grad()
    def unembed(self, h_LH: Float[Tensor, "L H"]) -> Float[Tensor, "L V"]:
        """W_U h without bias, in float32; the matrix is converted piece by piece."""
        if not _is_matrix(self.unembedding):
            h_LH = h_LH.to(self.dtype)
            return (self.unembedding(h_LH) - self.unembedding(torch.zeros_like(h_LH[:1]))).float()
        weight_VH: Any = self.unembedding.weight
        h_LH = h_LH.to(weight_VH.device, torch.float32)
        rows = max(1, BLOCK_VALUES // weight_VH.shape[1])
        logits_LV = h_LH.new_empty(len(h_LH), len(weight_VH))
        for first in range(0, len(weight_VH), rows):
            logits_LV[:, first : first + rows] = h_LH @ weight_VH[first : first + rows].float().T
        return logits_LV


def _is_matrix(module: nn.Module) -> bool:
    """Whether a module is exactly a multiplication by a weight that is here."""
    weight: Any = getattr(module, "weight", None)
    return (
        type(module) is nn.Linear
        and type(weight) is nn.Parameter
        and weight.is_floating_point()
        and not weight.is_meta
        and not hasattr(module, "_hf_hook")
    )


@torch.no_grad()
def head(model: nn.Module, path: str | None = None) -> Head:
    """A model's head, found by what it answers and not by its parts' names.

    Args:
        model: a causal language model of transformers, in any wrapper, dtype and place.
        path: where the blocks are, if they are not to be searched (`decoder_layers`).

    Raises:
        UsageError: no unembedding, or something else than a norm or a linear map before it, or the model's own logits
            are not reproduced.
    """
    last = len(decoder_layers(model, path)[1]) - 1
    get: Any = getattr(model, "get_output_embeddings", None)
    unembedding = get() if callable(get) else None
    if not isinstance(unembedding, nn.Module):
        raise _refused(model, "has no unembedding")
    own = _own_pass(model, decoder_layers(model, path)[1][last], unembedding)
    stack = UpperStack(model, last, path)

    def above(state_LD: Tensor) -> Tensor:
        return _between(stack, unembedding, state_LD)

    tolerance = 1e-3 if own.state_TD.dtype in (torch.float32, torch.float64) else 2e-2
    if not _close(above(own.state_TD), own.hidden_TH, tolerance):
        raise _refused(model, "reads more than the residual stream in its final norm")
    found = _fit(above, own.state_TD, tolerance)
    if found is None:
        raise _refused(model, "has neither a norm nor a linear map between its last block and its unembedding")
    made = Head(unembedding, *found, n_tokens=own.output_TV.shape[-1], dtype=own.hidden_TH.dtype)
    again_TV = made.unembed(own.hidden_TH.float() - own.hidden_TH[:1].float())
    output_TV = own.output_TV.float() - own.output_TV[:1].float()
    if not (_close(again_TV, output_TV, tolerance) and _follows(own.logits_TV, own.output_TV, tolerance)):
        raise _refused(model, "makes more of its logits than its unembedding does")
    return made


def _refused(model: nn.Module, why: str) -> UsageError:
    return UsageError(f"{type(model).__name__} {why}; the tokens that a direction promotes can not be told for it")


@dataclass(frozen=True, eq=False)
class _OwnPass:
    """What passes through a head when the model reads some tokens."""

    state_TD: Tensor
    hidden_TH: Tensor
    output_TV: Tensor
    logits_TV: Tensor


def _own_pass(model: nn.Module, block: nn.Module, unembedding: nn.Module) -> _OwnPass:
    """One pass over a few tokens.

    Raises:
        UsageError: the unembedding is not called once, or there is not one state a token.
    """
    states: list[Tensor] = []
    calls: list[tuple[Tensor, Tensor]] = []

    def look(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    def listen(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.extend([(args[0].clone(), output.clone())] if args else [])

    handles = [block.register_forward_hook(look), unembedding.register_forward_hook(listen)]
    ids_BT = torch.arange(N_POSITIONS, device=input_device(model))[None]
    try:
        logits_BTV = model(ids_BT, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != 1 or len(states) != 1 or any(part.shape[:2] != ids_BT.shape for part in (states[0], *calls[0])):
        raise _refused(model, "has not one state and one call of its unembedding a token")
    if states[0].ndim != 3:
        raise _refused(model, "has several residual streams")
    return _OwnPass(states[0][0], calls[0][0][0], calls[0][1][0], logits_BTV[0])


def _between(stack: UpperStack, unembedding: nn.Module, state_LD: Tensor) -> Tensor:
    """What the unembedding is given for each state after the last block; it is itself run for the first one only."""
    hidden: list[Tensor] = []

    def catch(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden.append(args[0])
        return (args[0][:1], *args[1:])

    handle = unembedding.register_forward_pre_hook(catch)
    try:
        stack.logits(torch.zeros(len(state_LD), 1, dtype=torch.long), state_LD[:, None])
    finally:
        handle.remove()
    return hidden[-1][:, 0]


def _fit(above: Callable[[Tensor], Tensor], state_TD: Tensor, tolerance: float) -> tuple[Tensor, bool] | None:
    """The gain and whether it is of centred states; None where neither a norm nor a linear map answers.

    A norm answers a state of alternating signs ±c, whose mean is 0, with its gain in those signs, whatever c.
    """
    width, dtype = state_TD.shape[-1], state_TD.dtype
    unit_TD = state_TD.float() / state_TD.float().square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-30)
    loud_TD = (LOUD * (unit_TD + 1)).to(dtype).float()  # the offset tells a norm that centres from one that does not
    signs_D = 1.0 - 2.0 * (torch.arange(width, device=loud_TD.device) % 2)
    if width % 2:
        signs_D[-1] = 0
    signs_2D = LOUD * torch.stack([signs_D, signs_D.roll(1)])
    asked = torch.cat([signs_2D, -signs_2D, loud_TD, 2 * loud_TD])
    up_2H, down_2H, loud_TH, twice_TH = above(asked.to(dtype)).float().split([2, 2, len(loud_TD), len(loud_TD)])
    bias_H = (up_2H[0] + down_2H[0]) / 2
    if _close(twice_TH - bias_H, 2 * (loud_TH - bias_H), tolerance):
        return _linear_map(above, bias_H, width, dtype), False
    if loud_TH.shape[-1] != width:
        return None
    gains_2D = (up_2H - bias_H) * signs_2D.square().mean(dim=-1, keepdim=True).sqrt() / signs_2D
    gain_D = torch.where(signs_2D[0] != 0, gains_2D[0], gains_2D[1])
    for centred in (False, True):
        moved_TD = loud_TD - loud_TD.mean(dim=-1, keepdim=True) if centred else loud_TD
        normed_TD = moved_TD / moved_TD.square().mean(dim=-1, keepdim=True).sqrt()
        if _close(normed_TD * gain_D + bias_H, loud_TH, tolerance):
            return gain_D, centred
    return None


def _linear_map(above: Callable[[Tensor], Tensor], bias_H: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """The answers to the unit vectors: (D, H), or its diagonal where that is all."""
    basis_DD = torch.eye(width, dtype=dtype, device=bias_H.device)
    map_DH = torch.cat([above(some).float() - bias_H for some in basis_DD.split(512)])
    is_diagonal = map_DH.shape[0] == map_DH.shape[1] and torch.equal(map_DH, map_DH.diagonal().diag())
    return map_DH.diagonal().clone() if is_diagonal else map_DH


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether all entries agree, in units of the largest; never where one is not finite."""
    found, expected = found.float().to(expected.device), expected.float()
    return bool(((found - expected).abs() <= tolerance * expected.abs().max()).all())


def _follows(logits_TV: Tensor, output_TV: Tensor, tolerance: float) -> bool:
    """Whether a model's logits rise with what its unembedding answers."""
    output_TV = output_TV[:, : logits_TV.shape[-1]]
    ordered_TV = logits_TV.float().gather(1, output_TV.to(logits_TV.device).argsort(dim=-1))
    return bool((ordered_TV.diff(dim=-1) >= -tolerance * ordered_TV.abs().max()).all())
