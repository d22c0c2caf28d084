"""The model card of a crosscoder: what it is, how good it is, and how to load it; without paths of any machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from diffharness.crosscoder.config import CrosscoderConfig

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONG_PATH = re.compile(r"(?<![\w:/])(?:~|[A-Za-z]:)?[\\/](?:[\w .@+~-]+[\\/])+[\w.@+~-]*")


def model_card(config: CrosscoderConfig, quality: Mapping[str, Any] | None, repo_id: str) -> str:
    """README.md of a crosscoder on the Hub.

    Args:
        config: what it is, published as it is by `published`.
        quality: what its `quality.json` says; none where it was not measured.
        repo_id: where it is uploaded.
    """
    config = published(config)
    header = {
        "library_name": "diffharness",
        "tags": ["crosscoder", "model-diffing", "sparse-autoencoder", "mechanistic-interpretability", "diffharness"],
        "base_model": [name for name in config.models if _HUB_ID.fullmatch(name)],
    }
    parts = [
        f"---\n{yaml.safe_dump({k: v for k, v in header.items() if v}, sort_keys=False)}---",
        f"# {repo_id.rpartition('/')[2]}",
        f"A crosscoder: one sparse code read from {_count(len(config.sides), 'model')} at once, with a decoder for "
        "each (Lindsey et al. 2024; Minder et al. 2025).",
        _table("what", "value", _facts(config)),
        "## Quality",
        _quality(quality),
        "## How to load it",
        _usage(config, repo_id),
    ]
    return "\n\n".join(parts) + "\n"


def published(config: CrosscoderConfig) -> CrosscoderConfig:
    """The configuration with files and folders of this machine reduced to their own names."""
    return config.model_copy(
        update={
            "models": tuple(public_name(name) for name in config.models),
            "source": without_paths(config.source),
            "description": without_paths(config.description),
        }
    )


def public_name(model: str) -> str:
    """A Hub id as it is, a path's last part."""
    if _HUB_ID.fullmatch(model):
        return model
    return PureWindowsPath(model).name if "\\" in model else PurePosixPath(model).name or model


def without_paths(text: str) -> str:
    """A text in which absolute paths are reduced to their last part."""
    return _LONG_PATH.sub(lambda found: re.split(r"[\\/]", found.group().rstrip("\\/"))[-1], text)


def _facts(config: CrosscoderConfig) -> list[tuple[str, str]]:
    training = config.training
    names = config.models or ("",) * len(config.sides)
    facts = [
        ("models", ", ".join(f"{side} ({name})" if name else side for side, name in zip(config.sides, names))),
        ("layer" if len(config.layers) < 2 else "layers", ", ".join(map(str, config.layers)) or "not known"),
        ("width", ", ".join(map(str, config.widths)) or str(config.d_model)),
        ("latents", f"{config.n_latents:,}"),
        ("active latents a token (k)", "not known" if config.k is None else str(config.k)),
        ("inference rule", f"{config.activation}, code norm {config.code_norm}"),
    ]
    if training is not None:
        facts.append(("trained with", f"{training.sparsity}, seed {training.seed}"))
    if config.n_train_tokens:
        facts.append(("training tokens", f"{config.n_train_tokens:,}"))
    optional = {
        "designated shared latents": config.n_tied,
        "latents of one model alone": ", ".join(map(str, config.n_dedicated)),
        "nested sizes": ", ".join(map(str, config.groups)),
        "source": config.source,
    }
    return facts + [(name, str(value)) for name, value in optional.items() if value]


def _quality(quality: Mapping[str, Any] | None) -> str:
    """What `quality.json` holds of the measures that are known here."""
    if quality is None:
        return "Not measured."
    rows = [(f"explained variance, {name}", _percent(v)) for name, v in _mapping(quality, "explained_variance").items()]
    single = {"l0": ("L0", "{:.1f}"), "dead_share": ("dead latents", "{:.1%}")}
    rows += [(name, form.format(quality[key])) for key, (name, form) in single.items() if _number(quality.get(key))]
    for column, loss in _mapping(quality, "splice").items():
        rows += _splice_rows(column, loss)
    median = quality.get("decoder_cosine_median")
    if _number(median):
        rows.append(("median cosine of the first two models' decoders", f"{median:.2f}"))
    share = _mapping(quality, "stability").get("share")
    if _number(share):
        rows.append(("latents that another seed has too", _percent(share)))
    text = _table("measure", "value", rows)
    tokens = quality.get("n_measured_tokens")
    where = f"On {tokens:,} tokens that it was not trained on.\n\n" if isinstance(tokens, int) and tokens else ""
    stale = quality.get("stale")
    return where + text + (f"\n\nStale where it was measured last: {without_paths(stale)}." if stale else "")


def _splice_rows(column: str, loss: Any) -> list[tuple[str, str]]:
    if not isinstance(loss, Mapping):
        return []
    names = {"delta_ce": f"ΔCE of {column}, spliced (nats a token)", "loss_recovered": f"loss recovered, {column}"}
    forms = {"delta_ce": "{:+.3f}", "loss_recovered": "{:.1%}"}
    return [(name, forms[key].format(loss[key])) for key, name in names.items() if _number(loss.get(key))]


def _usage(config: CrosscoderConfig, repo_id: str) -> str:
    code = "(tokens, models, latents): every model has its own" if config.decoupled else "(tokens, latents)"
    units = "raw activations" if config.expects == "raw" else "activations scaled to a mean norm of √width"
    return f"""\
```python
import diffharness.crosscoder

crosscoder = diffharness.crosscoder.load("{repo_id}")
# x: {units} (tokens, {len(config.columns)}, {config.d_model}), in the order {", ".join(config.columns)}
f = crosscoder.encode(x)  # {code}
x_hat = crosscoder.decode(f)
d = crosscoder.state()["W_dec_LMD"]  # decoders: (latents, models, width)
```

In a comparison of the models on benchmark tasks:

```
diffharness run --baseline ... --candidate ... --tasks ... --crosscoder {repo_id}
```

`x` are residual streams after the decoder block of that layer, without the first token of each text."""


def _table(first: str, second: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {first} | {second} |", "|---|---|", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _mapping(quality: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = quality.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percent(value: Any) -> str:
    return f"{value:.1%}" if _number(value) else "not known"


def _count(n: int, thing: str) -> str:
    return f"one {thing}" if n == 1 else f"{n} {thing}s"
