"""Activations to train crosscoders on: a planted sparse dictionary under correlated noise, in two models.

Latents fire by a power law, most of them together with others of their text; most are in both models under slightly
different directions, a few in one model only. Noise is of low rank and largely common to the models, as what a small
dictionary can not explain is. Models differ in offset and scale.

Legend: N tokens, M models, D width, F planted latents, R rank of the noise, C drawn latents of a token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIDES = ("baseline", "candidate")
TEXT_TOKENS = 64
DRAWN = 40
"""Latents drawn for a token, with replacement: half from its text's own, half from all."""
TEXT_LATENTS = 48
RANK = 48
CHUNK_TEXTS = 128


class PlantedActivations:
    """A world, made by its seed, from which any number of tokens can be drawn."""

    def __init__(self, d_model: int, n_planted: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        rng = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng)

        self.n_planted, self.d_model = n_planted, d_model
        base_F1D = normal(n_planted, 1, d_model)
        directions_FMD = base_F1D + 0.3 * normal(n_planted, len(SIDES), d_model)
        directions_FMD /= directions_FMD.norm(dim=-1, keepdim=True)
        owner_F = torch.randint(33, (n_planted,), generator=rng)  # 1 in 33 in each model alone
        for m in range(len(SIDES)):
            directions_FMD[owner_F == m, 1 - m] = 0
        self._directions_FX = directions_FMD.flatten(1).to(self.device)
        frequency_F = 1 / (torch.arange(n_planted) + 20.0)
        self._frequency_F = frequency_F[torch.randperm(n_planted, generator=rng)].to(self.device)
        noise_RMD = normal(RANK, 1, d_model) + 0.3 * normal(RANK, len(SIDES), d_model)
        noise_RMD *= ((torch.arange(RANK) + 1.0) ** -0.5)[:, None, None]
        self._noise_RX = (noise_RMD * 0.3 * math.sqrt(DRAWN / d_model)).flatten(1).to(self.device)
        self._isotropic = 0.2 * math.sqrt(DRAWN / d_model)
        self._scale_MD = torch.tensor([[1.0], [1.3]]).expand(-1, d_model).flatten().to(self.device)
        self._offset_X = (normal(len(SIDES), d_model) * 0.5).flatten().to(self.device)

    def draw(self, n_tokens: int, seed: int) -> Tensor:
        """Raw activations (N, M, D) in bfloat16, as stores keep them; N is rounded up to whole texts."""
        rng = torch.Generator(device=self.device).manual_seed(1_000_003 * (seed + 1))
        n_texts = -(-n_tokens // TEXT_TOKENS)
        shape = (n_texts * TEXT_TOKENS, len(SIDES), self.d_model)
        x_NMD = torch.empty(shape, dtype=torch.bfloat16, device=self.device)
        for first in range(0, n_texts, CHUNK_TEXTS):
            texts = min(CHUNK_TEXTS, n_texts - first)
            start = first * TEXT_TOKENS
            x_NMD[start : start + texts * TEXT_TOKENS] = self._chunk(texts, rng).unflatten(1, (len(SIDES), -1))
        return x_NMD

    def _chunk(self, n_texts: int, rng: torch.Generator) -> Tensor:
        n_tokens = n_texts * TEXT_TOKENS

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, device=self.device)

        def latents(*shape: int) -> Tensor:
            n = math.prod(shape)
            return torch.multinomial(self._frequency_F, n, replacement=True, generator=rng).view(shape)

        own = latents(n_texts, TEXT_LATENTS)
        which = torch.randint(TEXT_LATENTS, (n_texts, TEXT_TOKENS * DRAWN // 2), generator=rng, device=self.device)
        of_text = own.gather(1, which).view(n_tokens, DRAWN // 2)
        latent_NC = torch.cat([of_text, latents(n_tokens, DRAWN - DRAWN // 2)], dim=1)
        size_NC = (0.5 * normal(n_tokens, DRAWN)).exp_()
        x_NX = torch.nn.functional.embedding_bag(latent_NC, self._directions_FX, per_sample_weights=size_NC, mode="sum")
        x_NX += normal(n_tokens, RANK) @ self._noise_RX
        x_NX += self._isotropic * normal(n_tokens, x_NX.shape[1])
        return x_NX.mul_(self._scale_MD).add_(self._offset_X)
