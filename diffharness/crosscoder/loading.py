"""Reading a crosscoder of any known format, from a folder, a file or the Hugging Face Hub.

Legend: N tokens, M models (models × layers where several layers are read), D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder import checkpoint
from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.calibration import calibrate
from diffharness.crosscoder.formats import FORMATS, Options, read_files
from diffharness.crosscoder.formats.files import read_config, weights_in
from diffharness.crosscoder.formats.hub import fetch, is_hub_id
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

FIT_TOKENS = 1 << 14
"""Tokens that what a file left out is taken from."""


def load(
    path_or_repo: str | Path,
    *,
    device: str = "cpu",
    code_norm: str | None = None,
    sides: tuple[str, ...] | None = None,
    revision: str | None = None,
) -> Crosscoder:
    """A crosscoder of ours or of another project, without gradients.

    Its `encode` takes raw activations and gives the code by the file's own inference rule; what was assumed in reading
    is in `config.source`. Files of other projects name their models by order alone: two are taken for baseline and
    candidate, three for ancestor, baseline and candidate, as this field orders them.

    Args:
        path_or_repo: a folder, a file of weights, or a Hub id, behind which a folder or file may stand
            (`owner/name/folder`).
        device: where its tensors go.
        code_norm: where a file does not say by what its threshold's code is scaled: `sum`, `concatenated`,
            `mixed:A,B` (weights of the concatenated norm and of the sum), `none` or `per_model`.
        sides: names of the models in the file's order, or `side@layer` of every column.
        revision: branch, tag or commit on the Hub; none: the newest.

    Raises:
        UsageError: there is nothing of this name, it is of no known format, damaged, or does not say what is needed.
    """
    options = Options.make(code_norm, sides)
    path = Path(path_or_repo).expanduser()
    name = str(path_or_repo)
    if path.exists():
        name = (path if path.is_dir() else path.parent).resolve().name
    elif is_hub_id(name):
        path = fetch(name, revision)
    else:
        raise UsageError(f"{path_or_repo}: no such folder or file, and no Hub id (owner/name); check the name")
    native = _native_folder(path)
    if native is not None:
        return _load_native(native, device, options)
    files = read_files(path, name)
    return FORMATS.find(files).read(files, options).to(device)


def complete(crosscoder: Crosscoder, x_NMD: Activations) -> Crosscoder:
    """What its file left out, taken from the raw activations that it is to be used on: scale of its input, threshold.

    The first `FIT_TOKENS` tokens are used; one that lacks nothing is given back as it is.

    Raises:
        UsageError: the activations give no scale.
    """
    if crosscoder.config.expects != "raw":
        crosscoder = fit_scale(crosscoder, x_NMD[:FIT_TOKENS])
    if crosscoder.config.activation == "batch_topk" and not crosscoder.config.decoupled:
        crosscoder = fit_threshold(crosscoder, x_NMD[:FIT_TOKENS])
    return crosscoder


def fit_scale(crosscoder: Crosscoder, x_NMD: Float[Tensor, "N M D"]) -> Crosscoder:
    """One that takes raw activations, from one whose file left the factors of its input out.

    The factor of model m is √width_m / mean ‖x^m‖ (Kissane et al. 2024), from the tokens given, in float64; it goes
    into the normaliser, so that the code, its threshold and the decoders' norms stay as they are. Weights are shared.

    Args:
        crosscoder: one that `expects` mean norm √width.
        x_NMD: raw activations of the tokens to be coded, without the first of a sequence.

    Raises:
        UsageError: it takes raw activations already, or a model's activations are none, zero or not finite.
    """
    config = crosscoder.config
    if config.expects == "raw":
        raise UsageError("the crosscoder takes raw activations already; leave its scale as it is")
    widths = torch.tensor(config.widths or (config.d_model,) * len(config.columns), dtype=torch.float64)
    norm_M = torch.stack([x_ND.to("cpu", torch.float64).norm(dim=-1).mean() for x_ND in x_NMD.unbind(1)])
    if not bool((norm_M.isfinite() & (norm_M > 0)).all()):
        raise UsageError(f"no scale can be fitted to activations of mean norm {norm_M.tolist()}; check what is read")
    factor_M = (widths.sqrt() / norm_M).to(crosscoder.scale_M)
    source = f"{config.source}; scaled to mean norm √width by the factors of {len(x_NMD)} tokens"
    fitted = _reconfigured(crosscoder, expects="raw", source=source)
    fitted.scale_M = crosscoder.scale_M * factor_M
    fitted.mean_MD = crosscoder.mean_MD / factor_M[:, None]
    return fitted


def fit_threshold(crosscoder: Crosscoder, x_NMD: Activations) -> Crosscoder:
    """One with a threshold, from one whose code depends on which tokens are read together (`batch_topk`).

    The threshold keeps k latents a token in the mean over the tokens given, as after our own training. Weights are
    shared.

    Args:
        crosscoder: one of the rule `batch_topk`, with one code for all models.
        x_NMD: raw activations.

    Raises:
        UsageError: it has another rule.
    """
    config = crosscoder.config
    if config.activation != "batch_topk" or config.decoupled:
        raise UsageError("only a code that the batch decides lacks a threshold; leave the crosscoder as it is")
    source = f"{config.source}; threshold calibrated to k {config.k} on {len(x_NMD)} tokens"
    fitted = _reconfigured(crosscoder, activation="threshold", relu=True, source=source)
    fitted.threshold = torch.zeros_like(crosscoder.b_enc_L[0])
    calibrate(fitted, x_NMD)
    return fitted


def _reconfigured(crosscoder: Crosscoder, **changes: Any) -> Crosscoder:
    """The same tensors with another configuration."""
    with torch.device("meta"):
        changed = Crosscoder(crosscoder.config.model_copy(update=changes))
    for name in crosscoder.state_dict():
        setattr(changed, name, getattr(crosscoder, name))
    return changed


def _native_folder(path: Path) -> Path | None:
    """The folder of a crosscoder of ours; none where it is of another format."""
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name != checkpoint.WEIGHTS_NAME:
        return None
    if not (folder / checkpoint.CONFIG_NAME).is_file():
        return None
    found = read_config(folder / checkpoint.CONFIG_NAME)
    return folder if found.get("format") == "diffharness-crosscoder" else None


def _load_native(folder: Path, device: str, options: Options) -> Crosscoder:
    crosscoder = checkpoint.load(folder, device)
    config = crosscoder.config
    options.check_code_norm(read_files(weights_in(folder), folder.name), config.code_norm)
    if options.sides is not None:
        if len(options.sides) != len(config.sides) or any("@" in side for side in options.sides):
            raise UsageError(
                f"{folder} is over {len(config.sides)} models ({', '.join(config.sides)}), but --sides names "
                f"{', '.join(options.sides)}; give a name for each"
            )
        crosscoder.config = config.model_copy(update={"sides": options.sides})
    return crosscoder
