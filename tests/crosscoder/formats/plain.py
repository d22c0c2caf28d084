"""What foreign crosscoders compute, as plainly as can be and in float64, and random tensors for their files.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffharness.crosscoder.loading import load
from diffharness.errors import UsageError

N, D, L = 40, 6, 20


def random_tensors(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """Normal ones by name and shape."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.4 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def random_input(*shape: int, seed: int = 1) -> Tensor:
    """Raw activations of another size in every model."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x * (2.0 + torch.arange(shape[1], dtype=torch.float32)).view(-1, *[1] * (len(shape) - 2)) + 0.5


def pre_activations(z_NMD: Tensor, W_enc_MDL: Tensor, b_enc_L: Tensor) -> Tensor:
    """Σ_m z^m W_enc^m + b_enc."""
    return torch.einsum("nmd,mdl->nl", z_NMD.double(), W_enc_MDL.double()) + b_enc_L.double()


def reconstruction(f: Tensor, W_dec_MLD: Tensor, b_dec_MD: Tensor) -> Tensor:
    """Of a code that the models share, or of one a model."""
    letters = "nl" if f.ndim == 2 else "nml"
    return torch.einsum(f"{letters},mld->nmd", f.double(), W_dec_MLD.double()) + b_dec_MD.double()


def largest(values: Tensor, k: int) -> Tensor:
    """The k largest of each row, by sorting; the rest are zero."""
    smallest_kept = values.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return values * (values >= smallest_kept)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest expected value, and zero at the same places."""
    assert found.shape == expected.shape
    assert float((found.double() - expected.double()).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert torch.equal(found == 0, expected == 0)
    assert float((expected != 0).float().mean()) > 0


def write_files(folder: Path, weights: str, tensors: Mapping[str, Tensor], configs: Mapping[str, Any]) -> Path:
    """A folder with weights (safetensors or a pickle of tensors) and configurations in JSON, or a text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if weights.endswith(".safetensors"):
        save_file(whole, folder / weights)
    else:
        torch.save(whole, folder / weights)
    for name, content in configs.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def refuses(path: Path, *words: str, **options: Any) -> None:
    """Loading fails in one line that has all the words."""
    with pytest.raises(UsageError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
