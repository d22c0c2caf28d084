"""A control: random encoder directions with decoders fitted to them, so that only the reading is destroyed.

Legend: N tokens, M models, D width, L latents, X = M·D.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse
import torch

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.calibration import calibrate
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import chunks

FIT_TOKENS = 200_000
"""Decoders are fitted on at most so many tokens, spread over the data."""
N_ROUNDS = 3
"""Selection depends on decoder norms and decoders on the selection: both are found in turns."""


@torch.no_grad()
def random_encoder(
    crosscoder: Crosscoder,
    x_NMD: Activations,
    *,
    heldout_NMD: Activations,
    seed: int,
    ridge: float = 1e-3,
) -> Crosscoder:
    """A crosscoder like the given one, but with a random unit encoder and least-squares decoders.

    Normalisation, k and calibration on held-out tokens are the given one's; decoders and biases are
    fitted by ridge regression in float64 on raw activations `x_NMD`. `ridge` is in units of the mean
    variance of a latent's activation.
    """
    generator = torch.Generator().manual_seed(seed)
    config = crosscoder.config.model_copy(
        update={"training": None, "description": f"random encoder (seed {seed}), decoders fitted"}
    )
    control = Crosscoder(config).requires_grad_(False)
    control.mean_MD.copy_(crosscoder.mean_MD)
    control.scale_M.copy_(crosscoder.scale_M)
    direction_LMD = torch.randn(control.W_enc_LMD.shape, generator=generator)
    control.W_enc_LMD.copy_(direction_LMD / direction_LMD.flatten(1).norm(dim=1)[:, None, None])
    control.W_dec_LMD.copy_(control.W_enc_LMD)
    for _ in range(N_ROUNDS):
        calibrate(control, heldout_NMD)
        _fit_decoders(control, x_NMD, ridge)
    calibrate(control, heldout_NMD)
    return control


def _fit_decoders(crosscoder: Crosscoder, x_NMD: Activations, ridge: float) -> None:
    """Set decoders and biases to the ridge solution for the codes that the crosscoder gives now."""
    codes, targets = [], []
    for number, piece in enumerate(chunks(x_NMD)):
        if number % -(-len(x_NMD) // FIT_TOKENS):
            continue
        f_NL = crosscoder.encode(piece).cpu().numpy()
        codes.append(scipy.sparse.csr_array(f_NL, dtype=np.float64))
        targets.append(crosscoder.normalize(piece).flatten(1).cpu().numpy())
    f_NL = scipy.sparse.vstack(codes, format="csr")
    z_NX = np.concatenate(targets)
    n_tokens = len(z_NX)
    mean_L = np.asarray(f_NL.mean(axis=0)).ravel()
    mean_X = z_NX.mean(axis=0, dtype=np.float64)
    covariance_LL = (f_NL.T @ f_NL).toarray() / n_tokens - np.outer(mean_L, mean_L)
    covariance_LX = (f_NL.T @ z_NX) / n_tokens - np.outer(mean_L, mean_X)
    covariance_LL[np.diag_indices_from(covariance_LL)] += ridge * np.trace(covariance_LL) / len(mean_L)
    decoder_LX = scipy.linalg.solve(covariance_LL, covariance_LX, assume_a="pos")
    bias_X = mean_X - mean_L @ decoder_LX
    crosscoder.W_dec_LMD.copy_(torch.from_numpy(decoder_LX).view_as(crosscoder.W_dec_LMD))
    crosscoder.b_dec_MD.copy_(torch.from_numpy(bias_X).view_as(crosscoder.b_dec_MD))
