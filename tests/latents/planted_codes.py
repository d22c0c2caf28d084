"""Codes of texts made from dense activations, for tests of what is gathered from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diffharness.crosscoder.sparse import Entries
from diffharness.latents.codes import TextCodes


def codes_of(texts: Sequence[np.ndarray], n_latents: int) -> TextCodes:
    """What an encoder would have seen in texts with these activations (tokens, latents); its products are 0."""
    activation_NL = torch.from_numpy(np.concatenate([np.zeros((0, n_latents)), *texts])).float()
    token_E, latent_E = activation_NL.nonzero(as_tuple=True)
    activation_E = activation_NL[token_E, latent_E]
    nothing_EM = torch.zeros(len(token_E), 2)
    return TextCodes(
        entries=Entries.of(token_E, latent_E, len(activation_NL), n_latents),
        length_B=torch.tensor([len(text) for text in texts], dtype=torch.int64),
        f_E=activation_E,
        activation_E=activation_E,
        error_EM=nothing_EM,
        reconstruction_EM=nothing_EM,
        presence_EM=nothing_EM,
        near_BL=None,
    )
