"""Speed and memory of the pass over a store: scaling, intervals and examples against encoding alone, and against direct
least squares over (latents × tokens × width).
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import torch

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import code_chunk_tokens
from diffharness.latents.codes import TextEncoder
from diffharness.latents.description import ReadText, scale_texts
from diffharness.latents.examples import ExampleCollector
from tests.benchmarks.timing import Spent, ratio_figures, timed

N_LATENTS, D_MODEL, K = 16_384, 512, 32
N_TOKENS, TEXT_TOKENS = 32_768, 128
DIRECT_LATENTS, DIRECT_TOKENS = 16, 4096
LARGE = 70_000


def planted_sparsity(n_latents: int, d_model: int, k: int, x_NMD: torch.Tensor, seed: int = 0) -> Crosscoder:
    """A random crosscoder whose threshold keeps about k latents a token of some activations."""
    config = CrosscoderConfig(
        sides=("baseline", "candidate"), d_model=d_model, n_latents=n_latents, activation="threshold", k=k
    )
    crosscoder = Crosscoder(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    crosscoder.W_dec_LMD.normal_(std=d_model**-0.5, generator=generator)
    crosscoder.W_enc_LMD.copy_(crosscoder.W_dec_LMD)
    scaled = crosscoder.scaled(crosscoder.read(crosscoder.normalize(x_NMD[:256]))).flatten()
    crosscoder.threshold.fill_(float(scaled.kthvalue(int(scaled.numel() * (1 - k / n_latents)))[0]))
    return crosscoder


def activations(n_tokens: int, d_model: int, seed: int = 0) -> torch.Tensor:
    """Random pairs that share half of their variance."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n_tokens, 1, d_model, generator=generator)
    return common + torch.randn(n_tokens, 2, d_model, generator=generator)


def speed_figures(n_rounds: int) -> dict[str, Any]:
    """Ratios in one process, interleaved; memory in processes of their own."""
    x_NMD = activations(N_TOKENS, D_MODEL)
    crosscoder = planted_sparsity(N_LATENTS, D_MODEL, K, x_NMD)
    texts = [ReadText(f"text {i}", np.zeros(TEXT_TOKENS, dtype=np.uint8)) for i in range(N_TOKENS // TEXT_TOKENS)]
    encoder = TextEncoder(crosscoder)

    def alone() -> None:
        for x_CMD in x_NMD.split(code_chunk_tokens(crosscoder.config)):
            crosscoder.encode(x_CMD)

    def whole() -> None:
        collector = ExampleCollector(N_LATENTS, np.random.default_rng(0))
        scale_texts([encoder], x_NMD, texts, collector)

    codes = encoder(x_NMD[:DIRECT_TOKENS], [TEXT_TOKENS] * (DIRECT_TOKENS // TEXT_TOKENS))
    chosen = torch.bincount(codes.entries.latent_E, minlength=N_LATENTS).argsort(descending=True)[:DIRECT_LATENTS]
    f_NL = torch.cat([crosscoder.encode(x_CMD) for x_CMD in x_NMD[:DIRECT_TOKENS].split(256)])
    z_NMD = crosscoder.normalize(x_NMD[:DIRECT_TOKENS])
    decoded_NMD = torch.cat([crosscoder.decode_normalized(f_CL) for f_CL in f_NL.split(256)])

    spent: dict[str, list[Spent]] = {"alone": [], "whole": [], "direct": []}
    whole()
    for _ in range(n_rounds):
        spent["alone"].append(timed(alone)[1])
        spent["whole"].append(timed(whole)[1])
        spent["direct"].append(timed(lambda: direct(crosscoder, z_NMD, decoded_NMD, f_NL, chosen))[1])
    a_latent = [Spent(s.wall_s / N_LATENTS, s.cpu_s / N_LATENTS) for s in spent["whole"]]
    scale = N_TOKENS / DIRECT_TOKENS / DIRECT_LATENTS
    a_direct = [Spent(scale * s.wall_s, scale * s.cpu_s) for s in spent["direct"]]
    return {
        "setting of the speeds": f"{N_LATENTS} latents, width 2 × {D_MODEL}, k {K}, {N_TOKENS} tokens",
        **ratio_figures("speed of the pass over encoding alone", spent["alone"], spent["whole"]),
        **ratio_figures("latents a second over direct least squares", a_direct, a_latent),
        "GB of accumulators for 70,000 latents": _large_bytes() / 1e9,
    }


def direct(
    crosscoder: Crosscoder, z_NMD: torch.Tensor, decoded_NMD: torch.Tensor, f_NL: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """β of error and reconstruction in both models by least squares, the way the field does it: the target
    (latents, tokens, width) of one model at a time is made and projected."""
    found = []
    f_CN, d_CMD = f_NL[:, chosen].T, crosscoder.W_dec_LMD[chosen]
    probe_CD = d_CMD[:, 1]
    denominator_C = f_CN.square().sum(dim=1) * probe_CD.square().sum(dim=1)
    for m in (0, 1):
        own_CND = f_CN[:, :, None] * d_CMD[:, m][:, None, :]
        for y_CND in (z_NMD[:, m] - decoded_NMD[:, m] + own_CND, decoded_NMD[:, m].expand_as(own_CND)):
            found.append(torch.einsum("cnd,cd,cn->c", y_CND, probe_CD, f_CN) / denominator_C)
    return torch.stack(found)


def _large_bytes() -> int:
    """What the pass takes beyond the crosscoder and the codes of a batch, at 70,000 latents: the least of three."""
    command = [sys.executable, "-m", "tests.benchmarks.latents_speed"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    return min(int(found.stdout.split()[-1]) for found in runs)


def _measure_large() -> int:
    from tests.benchmarks.memory import AnonymousPeak

    n_tokens, width = 2048, 16
    x_NMD = activations(n_tokens, width)
    crosscoder = planted_sparsity(LARGE, width, 100, x_NMD)
    texts = [ReadText(f"text {i}", np.zeros(TEXT_TOKENS, dtype=np.uint8)) for i in range(n_tokens // TEXT_TOKENS)]
    encoder = TextEncoder(crosscoder)
    encoder(x_NMD, [TEXT_TOKENS] * len(texts), near=True)
    before = AnonymousPeak()
    encoder(x_NMD, [TEXT_TOKENS] * len(texts), near=True)
    taken = before.stop()
    peak = AnonymousPeak()
    collector = ExampleCollector(LARGE, np.random.default_rng(0))
    (sums,) = scale_texts([encoder], x_NMD, texts, collector)
    sums.finish(np.random.default_rng(0))
    return peak.stop() - taken


if __name__ == "__main__":
    sys.stdout.write(f"{_measure_large()}\n")
