"""Sentences about latents: their status, their name, what they go with; worded no stronger than they are."""

from __future__ import annotations

from diffharness.report.numbers import count, p_words, percent, plain, span
from diffharness.report.schema import Annotation, Latent

MOSTLY = 0.5
"""Share of a latent's activation from which on it is said to be about position."""
TOO_FEW = "too few to tell"
"""With what a conclusion begins that says nothing."""


def position_share(latent: Latent) -> float | None:
    """Share of the activation on first, special and template tokens together; `None` where none is known."""
    known = [
        share
        for share in (latent.first_token_share, latent.special_token_share, latent.template_token_share)
        if share is not None
    ]
    return min(1.0, sum(known)) if known else None


def position_sentence(latent: Latent) -> str | None:
    """A warning where most of the activation lies on tokens without content of their own."""
    share = position_share(latent)
    if share is None or share < MOSTLY:
        return None
    places = {
        "first": latent.first_token_share,
        "special": latent.special_token_share,
        "template": latent.template_token_share,
    }
    named = ", ".join(f"{name} {percent(part)}" for name, part in places.items() if part is not None)
    return (
        f"mostly about position, not content: {percent(share)} of its activation lies on first, special or "
        f"template tokens ({named})"
    )


def norm_sentence(latent: Latent) -> str | None:
    """What Δnorm alone would call it; none where that is not known."""
    if latent.status_by_norm is None:
        return None
    if latent.status_by_norm == latent.status:
        return "Δnorm alone says the same"
    return f"by Δnorm alone: {latent.status_by_norm}"


def matched_sentence(latent: Latent) -> str | None:
    """Whether other seeds found it again; none where one seed was trained."""
    if latent.matched is None:
        return None
    return "found again by the other seeds" if latent.matched else "not found again by the other seeds"


def association_sentence(latent: Latent) -> str | None:
    """What it fires with, which is not yet a cause; none where nothing was found."""
    found = latent.association
    if found is None:
        return None
    where = "of all tasks together" if found.task is None else f"of {found.task}"
    return (
        f"fires more on documents {where} that the candidate {found.direction}; corrected {p_words(found.p_adjusted)} "
        f"({found.method}, {count(found.n_gain)} gained and {count(found.n_lose)} lost); an association, not a cause"
    )


def annotator_name(annotator: str) -> str:
    """Who named a latent, in words: `probes`, `the language model x`, `the file y`."""
    kind, _, name = annotator.partition(": ")
    if annotator == "probe":
        return "probes"
    return {"lm": f"the language model {name}", "file": f"the file {name}"}.get(kind, annotator) if name else annotator


def annotation_sentence(found: Annotation | None, *, costs: bool = True) -> str | None:
    """Who named the latents, how far the names can be trusted and what they cost; none where it is not known."""
    if found is None:
        return None
    clear = "" if found.n_clear is None else f" ({count(found.n_clear)} of the names clear)"
    parts = [
        f"names by {annotator_name(found.annotator)}: {count(found.n_named)} of {count(found.n_asked)} latents named"
        f"{clear}, {count(found.n_unclear)} unclear"
    ]
    if found.detection is not None:
        chance = "" if found.detection_chance is None else f" ({plain(found.detection_chance, 2)} by chance)"
        parts.append(f"detection score {plain(found.detection, 2)}{chance}")
    agreement = agreement_clause(found)
    if agreement is not None:
        parts.append(agreement)
    if costs and (found.n_calls or found.n_cached):
        parts.append(f"{count(found.n_calls)} calls, {count(found.n_cached)} answers kept from earlier")
    if costs and found.n_tokens is not None:
        parts.append(f"{count(found.n_tokens)} tokens of prompts and answers")
    return "; ".join(parts)


def agreement_clause(found: Annotation) -> str | None:
    """κ with a second annotator, or why there is none; none where there is no second."""
    agreement = found.agreement
    if agreement is None:
        return None
    other = annotator_name(agreement.other)
    if agreement.kappa is None:
        return f"no κ with {other}: {(agreement.reason or 'no reason was recorded').rstrip('.')}"
    interval = "" if agreement.kappa_interval is None else f" {span(agreement.kappa_interval, 2)}"
    return f"κ with {other} {plain(agreement.kappa, 2)}{interval} over {count(agreement.n)} latents"


def is_told(conclusion: str) -> bool:
    """Whether a conclusion of the shift says anything."""
    return bool(conclusion) and TOO_FEW not in conclusion


def shift_word(conclusion: str) -> str:
    """The conclusion's first words: `up`, `down`, or `too few to tell`."""
    return conclusion.partition(":")[0]
