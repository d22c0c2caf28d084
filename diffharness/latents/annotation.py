"""What a latent stands for, decided offline by probes: texts tagged by category.

Legend: P probe texts, L latents, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffharness.latents.taxonomy import UNCLEAR, in_order
from diffharness.statistics.multiple import benjamini_hochberg
from diffharness.statistics.ranks import mann_whitney_table


@dataclass(frozen=True)
class Annotation:
    """The category of a latent and the evidence for it."""

    category: str
    """A probe category, or `unclear`."""
    auroc: float | None
    """Of the best category against all other texts; `None` where the latent never fires on the probes."""
    q_value: float | None
    """Benjamini–Hochberg over latents × categories, of the best category."""
    best: str | None
    """The best category, also where the evidence is too weak to name it."""
    runner_up: str | None
    runner_up_auroc: float | None
    reason: str
    """Why it has its name or none, in words."""


@dataclass(frozen=True)
class NamingRule:
    """When the best category becomes the name."""

    level: float = 0.05
    """q has to be below."""
    min_auroc: float = 0.7
    min_lead: float = 0.05
    """AUROC of the best over that of the second."""


def annotate_by_probes(
    max_activation_PL: Float[np.ndarray, "P L"],
    categories: Sequence[str],
    rule: NamingRule | None = None,
) -> tuple[Annotation, ...]:
    """Name every latent by the probe texts on which it fires most.

    `max_activation_PL` is the maximum activation of each latent over a text's coded positions, `categories`
    the P texts' tags. For each latent and category a tie-corrected Mann–Whitney test (category v all other
    texts, one-sided), and Benjamini–Hochberg over latents × categories. A latent with one and the same value
    on every probe (one that never fires on them) can not be tested whatever the tags are; it does not count,
    so that a dictionary with more dead latents names the others alike.

    Raises `ValueError` where tags and texts differ in number, or there is one category only.
    """
    rule = rule or NamingRule()
    max_activation_PL = np.asarray(max_activation_PL)
    if len(categories) != len(max_activation_PL):
        raise ValueError(f"{len(max_activation_PL)} probe texts with {len(categories)} categories")
    names = in_order(categories)
    member_PK = np.array([[tag == name for name in names] for tag in categories], dtype=bool)
    auroc_LK, p_LK = mann_whitney_table(max_activation_PL, member_PK)
    silent_L = np.all(max_activation_PL == max_activation_PL[:1], axis=0)
    q_LK = benjamini_hochberg(np.where(silent_L[:, None], np.nan, p_LK))
    return tuple(
        _silent() if silent_L[latent] else _name(names, auroc_LK[latent], q_LK[latent], rule)
        for latent in range(max_activation_PL.shape[1])
    )


def _silent() -> Annotation:
    return Annotation(UNCLEAR, None, None, None, None, None, "it does not fire on the probes")


def _name(
    names: Sequence[str], auroc_K: Float[np.ndarray, " K"], q_K: Float[np.ndarray, " K"], rule: NamingRule
) -> Annotation:
    best, second = (int(place) for place in np.argsort(-auroc_K, kind="stable")[:2])
    auroc, q_value, runner_up = float(auroc_K[best]), float(q_K[best]), float(auroc_K[second])
    doubts: list[str] = []
    if not q_value < rule.level:
        doubts.append(f"q = {q_value:.2g} is not below {rule.level:g}")
    if not auroc >= rule.min_auroc:
        doubts.append(f"its AUROC of {auroc:.2f} is below {rule.min_auroc:g}")
    if not auroc - runner_up >= rule.min_lead:
        doubts.append(f"{names[second]} is close behind ({auroc:.2f} v {runner_up:.2f})")
    if doubts:
        category = UNCLEAR
        reason = f"most active on {names[best]}, but {' and '.join(doubts)}"
    else:
        category = names[best]
        reason = (
            f"fires more on {category} than on other probes: AUROC {auroc:.2f}, q = {q_value:.2g}; "
            f"next is {names[second]} with {runner_up:.2f}"
        )
    return Annotation(category, auroc, q_value, names[best], names[second], runner_up, reason)
