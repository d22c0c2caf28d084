"""The plant: which capability changes by how much between baseline and candidate, as validated data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffharness.errors import UsageError
from diffharness.organism import language
from diffharness.organism.language import CAPABILITIES, SPECIAL_TOKENS, vocabulary

N_LAYERS = 4
"""Decoder blocks of every organism."""

DEFAULT_STRENGTHS: dict[str, tuple[float, float]] = {
    language.SAFETY: (0.25, 0.9),
    language.MULTILINGUAL: (0.25, 0.9),
    language.INSTRUCTIONS: (0.25, 0.9),
    language.SELF: (0.9, 0.3),
    language.HALLUCINATION: (0.9, 0.3),
    language.FACTS: (0.85, 0.85),
    language.ARITHMETIC: (0.85, 0.85),
    language.HELPFULNESS: (0.85, 0.85),
}
"""The paper's finding in small: three capabilities gain, two lose, three controls stay."""

_OPTIONS = ("train_layers", "answer_bias", "rate")


@dataclass(frozen=True)
class Plant:
    """A planted difference. All fields are complete: what was left out has its default."""

    strengths: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(DEFAULT_STRENGTHS))
    """Capability → (baseline, candidate) share of its items that training answers rightly."""
    above: int | None = None
    """Only the parameters of decoder blocks with an index above this are fine-tuned; None: all parameters are."""
    answer_bias: Mapping[str, float] = field(default_factory=dict)
    """Token → logits added to it in the candidate, whatever the content."""
    rate: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CAPABILITIES, 1 / len(CAPABILITIES)))
    """Capability → share of the training sequences of all three models; sums to 1."""

    @classmethod
    def parse(cls, given: Plant | Mapping[str, Any] | None) -> Plant:
        """A plant from a mapping as in `plant.yaml`, None being the default. Raises UsageError for what is not one."""
        if given is None:
            return cls()
        if isinstance(given, Plant):
            given = given.as_mapping()
        if not isinstance(given, Mapping):
            raise UsageError(f"plant: expected a mapping of capabilities to [baseline, candidate], found {given!r}")
        for key in given:
            if key not in CAPABILITIES and key not in _OPTIONS:
                raise UsageError(f"plant: unknown key {key!r}{_nearest(key, [*CAPABILITIES, *_OPTIONS])}")
        strengths = dict(DEFAULT_STRENGTHS)
        strengths.update({key: _strengths(key, given[key]) for key in CAPABILITIES if key in given})
        return cls(
            strengths=strengths,
            above=_above(given.get("train_layers")),
            answer_bias=_answer_bias(given.get("answer_bias")),
            rate=_rate(given.get("rate")),
        )

    @classmethod
    def load(cls, path: Path) -> Plant:
        """Read `plant.yaml`. Raises UsageError when it is missing, not YAML, or not a plant."""
        try:
            return cls.parse(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"plant file {path}: {error.strerror or error}; give the path of a YAML file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"plant file {path}: not YAML ({' '.join(str(error).split())})") from error
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def as_mapping(self) -> dict[str, Any]:
        """The full plant as `plant.yaml` writes it; `parse` gives the same plant back."""
        mapping: dict[str, Any] = {capability: list(self.strengths[capability]) for capability in CAPABILITIES}
        if self.above is not None:
            mapping["train_layers"] = {"above": self.above}
        if self.answer_bias:
            mapping["answer_bias"] = dict(self.answer_bias)
        mapping["rate"] = dict(self.rate)
        return mapping

    def side(self, index: int) -> dict[str, float]:
        """Strengths of the baseline (0) or the candidate (1)."""
        return {capability: pair[index] for capability, pair in self.strengths.items()}


def _nearest(key: Any, names: list[str]) -> str:
    close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _share(where: str, value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise UsageError(f"plant: {where} is {value!r}; it must be a number from 0 to 1")
    return float(value)


def _strengths(capability: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UsageError(f"plant: {capability!r} is {value!r}; write [baseline_strength, candidate_strength]")
    return _share(f"baseline strength of {capability!r}", value[0]), _share(
        f"candidate strength of {capability!r}", value[1]
    )


def _above(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"above"}:
        raise UsageError(f"plant: train_layers is {value!r}; write train_layers: {{above: N}}")
    layer = value["above"]
    if isinstance(layer, bool) or not isinstance(layer, int) or not -1 <= layer < N_LAYERS - 1:
        raise UsageError(f"plant: train_layers.above is {layer!r}; it must be a whole number from -1 to {N_LAYERS - 2}")
    return layer


def _answer_bias(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"plant: answer_bias is {value!r}; write answer_bias: {{token: logit}}")
    known = [word for word in vocabulary() if word not in SPECIAL_TOKENS]
    for token, logit in value.items():
        if token not in known:
            raise UsageError(f"plant: answer_bias token {token!r} is not in the vocabulary{_suggest(token, known)}")
        if not _is_number(logit) or not abs(logit) <= 20:
            raise UsageError(f"plant: answer_bias of {token!r} is {logit!r}; it must be a number of logits within ±20")
    return {token: float(logit) for token, logit in value.items()}


def _suggest(token: Any, known: list[str]) -> str:
    close = difflib.get_close_matches(str(token), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; choose a word of the language, for example 'sorry'"


def _rate(value: Any) -> dict[str, float]:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise UsageError(f"plant: rate is {value!r}; write rate: {{capability: share of training sequences}}")
    for key in value:
        if key not in CAPABILITIES:
            raise UsageError(f"plant: rate of unknown capability {key!r}{_nearest(key, list(CAPABILITIES))}")
    given = {key: _share(f"rate of {key!r}", share) for key, share in value.items()}
    rest = [capability for capability in CAPABILITIES if capability not in given]
    left = 1 - sum(given.values())
    if left < -1e-6 or (not rest and abs(left) > 1e-6):
        raise UsageError(f"plant: rate sums to {sum(given.values()):g}; shares of training sequences sum to 1")
    given.update({capability: max(left, 0.0) / len(rest) for capability in rest})
    return {capability: given[capability] for capability in CAPABILITIES}
