"""`--own-templates`: the candidate is asked in its own chat template, and once more in the baseline's.

Its scores are of its own template. All that reads activations is of the baseline's, in which both models read the same
sequences; what the own template makes of a gap is the component `prompt` (`attribution/prompt.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.architecture import Architecture
    from diffharness.config import RunConfig
    from diffharness.session import Session

SHARED = "candidate-baseline-template"
"""The evaluation of the candidate in the baseline's template, where its scores are of its own; a folder's name too."""


def refused(config: RunConfig) -> str | None:
    """Why own templates can not go with the other options; `None` where they can, or are not asked for."""
    if not config.own_templates:
        return None
    if config.baseline_results is not None:
        return (
            "own_templates asks the candidate in two templates, and recorded answers are to one; leave own_templates "
            "out, or give the models in place of their results"
        )
    if not config.apply_chat_template:
        return "own_templates needs apply_chat_template; give both, or leave own_templates out"
    return None


def shared_side(config: RunConfig, side: str) -> str:
    """The evaluation of a side that was asked as the baseline was."""
    return SHARED if config.own_templates and side == "candidate" else side


def model_side(side: str) -> str:
    """Whose model an evaluation is of."""
    return "candidate" if side == SHARED else side


def title(side: str) -> str:
    """What the stage of an evaluation does."""
    called = "candidate in the baseline's template" if side == SHARED else side
    return f"evaluate the {called} with lm-eval"


def asked_from(config: RunConfig, side: str, baseline: str) -> list[str]:
    """What a side's prompts are made from besides its own tokenizer and the options; `baseline` tells that model."""
    if not config.apply_chat_template or side == "baseline":
        return []
    return ["own template"] if config.own_templates and side == "candidate" else [baseline]


def check(config: RunConfig, architectures: Mapping[str, Architecture]) -> tuple[str, ...]:
    """Find models without the chat template that is asked for; notes on what the report's numbers are of.

    Raises:
        UsageError: naming the model and the remedy.
    """
    if not config.apply_chat_template:
        return ()
    remedy = "name a tokenizer that has one in the model arguments (pretrained=...,tokenizer=...)"
    if not architectures["baseline"].tokenizer.chat_template:
        raise UsageError(
            "--apply-chat-template: the baseline's tokenizer has no chat template; leave the option out, or " + remedy
        )
    if not config.own_templates:
        return ()
    if not architectures["candidate"].tokenizer.chat_template:
        raise UsageError(
            "--own-templates: the candidate's tokenizer has no chat template of its own; leave the option out, so that "
            "the baseline's serves both, or " + remedy
        )
    if are_equal(architectures):
        return ("the candidate's chat template is the baseline's, so --own-templates changes nothing and prompt is 0",)
    return (
        "the candidate's scores are of its own chat template (--own-templates); all parts of the account but prompt, "
        "their checks, ablated models and documents by token are of both models asked in the baseline's",
    )


def are_equal(architectures: Mapping[str, Architecture]) -> bool:
    """Whether the candidate's own template is the baseline's, so that it has nothing to be asked twice."""
    baseline, candidate = (architectures[side].tokenizer.chat_template for side in ("baseline", "candidate"))
    return baseline == candidate


@contextmanager
def own_template(session: Session, side: str) -> Iterator[None]:
    """A side's model asks in its own chat template while this lasts, where `--own-templates` says so."""
    if shared_side(session.config, side) == side:
        yield
        return
    words = session.model(side).hf_tokenizer
    shared = words.chat_template
    words.chat_template = session.architectures[side].tokenizer.chat_template
    try:
        yield
    finally:
        words.chat_template = shared
