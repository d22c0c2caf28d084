"""A crosscoder over many models cut down to two of them, its latents' numbers and meaning kept.

Decoders, biases, means and scales are those of the two. The code was read from all models together: the activation of a
model that is absent is stood in for by the mean of the two that are there, in the normalised space, and by what least
squares add to that mean from the same two. Both are linear, so they go into the encoder's weights. (The mean alone cost
two points of explained variance on the embedded models, with it half a point; of candidates that are the same, one
stands in for the other exactly.) Selection compares with the two models' own decoder norms, and its threshold is found
anew, so that a token has as many active latents in the mean as in the joint code.

Legend: N tokens, M models, P = 2 of them, D width, X = P · D, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.calibration import ThresholdCalibration
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import CHUNK_TOKENS, chunks, code_chunk_tokens

FIT_TOKENS = 1 << 16
"""Tokens, at most, that the stand-in of an absent model is fitted on."""
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the least squares, in units of a normalised activation's mean square; the held-out tokens choose, or the mean."""


@torch.no_grad()
def restrict(
    crosscoder: Crosscoder,
    pair: tuple[str, str],
    train_NMD: Activations,
    heldout_NMD: Activations,
    *,
    sides: tuple[str, str] = ("baseline", "candidate"),
) -> Crosscoder:
    """The crosscoder of two of its models.

    Args:
        crosscoder: over at least two models, of one layer, with one code for all.
        pair: which sides of it.
        train_NMD: raw activations of all its models; what stands in for absent ones is fitted on them.
        heldout_NMD: the same on tokens that it was not trained on; the threshold is found on them.
        sides: what the two are called from now on.

    Raises:
        ValueError: a side that it has not, several layers, a code for every model, or a rule of other formats.
    """
    config = crosscoder.config
    if config.decoupled or config.expects != "raw" or len(config.columns) != len(config.sides):
        raise ValueError("only a crosscoder of one layer and one code, over raw activations, can be restricted")
    missing = [side for side in pair if side not in config.sides]
    if missing or pair[0] == pair[1]:
        raise ValueError(f"{missing or pair} are not two of {', '.join(config.sides)}")
    places = [config.sides.index(side) for side in pair]
    models = tuple(config.models[place] for place in places) if config.models else ()
    others = ", ".join(side for side in config.sides if side not in pair) or "none"
    restricted = Crosscoder(
        config.model_copy(
            update={
                "sides": sides,
                "models": models,
                "widths": (),
                "n_tied": 0 if config.n_dedicated else config.n_tied,
                "n_dedicated": (),  # a constraint of training; by place, which absent models would shift
                "description": f"restricted from one over {', '.join(config.sides)}; left out: {others}",
            }
        )
    ).requires_grad_(False)
    restricted.to(device=crosscoder.W_dec_LMD.device, dtype=crosscoder.W_dec_LMD.dtype)
    restricted.W_enc_LMD.copy_(_folded(crosscoder, places, train_NMD, heldout_NMD))
    restricted.b_enc_L.copy_(crosscoder.b_enc_L)
    restricted.W_dec_LMD.copy_(crosscoder.W_dec_LMD[:, places])
    restricted.b_dec_MD.copy_(crosscoder.b_dec_MD[places])
    restricted.mean_MD.copy_(crosscoder.mean_MD[places])
    restricted.scale_M.copy_(crosscoder.scale_M[places])
    restricted.threshold.copy_(crosscoder.threshold)
    if config.activation == "threshold":
        _find_threshold(restricted, crosscoder, places, heldout_NMD)
    return restricted


def _folded(
    crosscoder: Crosscoder, places: list[int], train_NMD: Activations, heldout_NMD: Activations
) -> Float[Tensor, "L P D"]:
    """The encoder's weights of two models, with those of all others carried over to their stand-ins."""
    folded_LPD = crosscoder.W_enc_LMD[:, places].double().cpu()
    for absent in set(range(len(crosscoder.config.sides))) - set(places):
        weight_LD = crosscoder.W_enc_LMD[:, absent].double().cpu()
        added_XD = _beyond_mean(
            _moments(crosscoder, train_NMD, places, absent), _moments(crosscoder, heldout_NMD, places, absent)
        )
        folded_LPD += weight_LD[:, None] / 2 + (weight_LD @ added_XD.T).unflatten(1, folded_LPD.shape[1:])
    return folded_LPD


@dataclass(frozen=True)
class _Moments:
    """Means over tokens, of what two models have and of what a third has beyond the mean of the two."""

    gram_XX: Float[Tensor, "X X"]
    cross_XD: Float[Tensor, "X D"]
    square: float

    def error(self, added_XD: Float[Tensor, "X D"]) -> float:
        """Mean squared error of a stand-in."""
        return self.square + float((added_XD * (self.gram_XX @ added_XD - 2 * self.cross_XD)).sum())


def _moments(crosscoder: Crosscoder, x_NMD: Activations, places: list[int], absent: int) -> _Moments:
    """In float64, over the first `FIT_TOKENS` tokens, in the normalised space."""
    width = crosscoder.config.d_model
    gram_XX = torch.zeros(2 * width, 2 * width, dtype=torch.float64)
    cross_XD, square = torch.zeros(2 * width, width, dtype=torch.float64), 0.0
    n_tokens = 0
    for x_CMD in islice(chunks(x_NMD), FIT_TOKENS // CHUNK_TOKENS):
        n_tokens += len(x_CMD)
        z_CMD = crosscoder.normalize(x_CMD).double().cpu()
        two_CPD = z_CMD[:, places]
        beyond_CD = z_CMD[:, absent] - two_CPD.mean(dim=1)
        gram_XX += two_CPD.flatten(1).T @ two_CPD.flatten(1)
        cross_XD += two_CPD.flatten(1).T @ beyond_CD
        square += float(beyond_CD.square().sum())
    return _Moments(gram_XX / n_tokens, cross_XD / n_tokens, square / n_tokens)


def _beyond_mean(train: _Moments, heldout: _Moments) -> Float[Tensor, "X D"]:
    """What is added to the mean of the two, as a linear map; zero where nothing does better on held-out tokens."""
    unit_XX = torch.eye(len(train.gram_XX), dtype=torch.float64)
    fitted = [torch.linalg.solve(train.gram_XX + ridge * unit_XX, train.cross_XD) for ridge in RIDGES]
    return min([torch.zeros_like(train.cross_XD), *fitted], key=heldout.error)


def _find_threshold(
    restricted: Crosscoder, crosscoder: Crosscoder, places: list[int], heldout_NMD: Activations
) -> None:
    """Set the threshold at which as many latents are active as in the joint code.

    Thresholds that differ by latent first follow the decoders' norms and are then all multiplied by one number.
    """
    unit = torch.ones_like(restricted.threshold)
    if unit.numel() > 1:
        unit = crosscoder.threshold * restricted.code_norm_L / crosscoder.code_norm_L.clamp_min(1e-30)
        unit = unit.clamp_min(1e-30)
    n_tokens = code_chunk_tokens(crosscoder.config)
    n_active = sum(int((crosscoder.encode(x_CMD) > 0).sum()) for x_CMD in chunks(heldout_NMD, n_tokens))
    found = ThresholdCalibration(max(1, n_active))
    for x_CMD in chunks(heldout_NMD, n_tokens):
        f_CL = restricted.pre_activations(restricted.normalize(x_CMD[:, places])).relu_()
        found.update(f_CL.mul_(restricted.code_norm_L).div_(unit))
    restricted.threshold.copy_(unit * found.threshold())
