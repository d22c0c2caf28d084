"""What a latent stands for, decided offline by probes: texts tagged by category, and matched texts without it.

Legend: P probe texts and contrasts, L latents, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import sparse, stats

from diffharness.latents.probe_evidence import CHANCE, Columns, Design, Evidence, Maxima, gather, held_out_auroc
from diffharness.latents.taxonomy import UNCLEAR, Taxonomy
from diffharness.statistics.multiple import benjamini_hochberg

HELD_OUT_METHOD = "AUROC, on each half of the probes, of the category that the other half gives; mean of both"


@dataclass(frozen=True)
class Detection:
    """A label tried on texts that had no part in choosing it."""

    score: float
    chance: float
    """What a label drawn by lot scores."""
    n: int
    """Held-out texts."""
    method: str


@dataclass(frozen=True)
class Annotation:
    """The category of a latent and the evidence for it, from whichever annotator."""

    category: str
    """A category's name, or `unclear`."""
    auroc: float | None = None
    """Of the best category's texts against all others; `None` where no probe excites the latent, and from annotators
    that do not rank."""
    q_value: float | None = None
    """Benjamini–Hochberg over latents × categories, of the best category."""
    best: str | None = None
    """The best category, also where the evidence is too weak to name it."""
    runner_up: str | None = None
    runner_up_auroc: float | None = None
    reason: str = ""
    """Why it has its name or none, in words."""
    annotator: str = "probe"
    """`probe`, `lm: <model>` or `file: <name>`."""
    contrast_share: float | None = None
    """Of the best category's (text, contrast) pairs, those whose text excites the latent more, ties counting half;
    `None` without contrasts."""
    share: float | None = None
    """Of its activation a token on the categories' texts, each category weighing alike: what the name's texts have."""
    is_judged: bool = True
    """Whether the annotator was asked about the latent at all."""
    is_clear: bool = False
    """Whether the evidence is more than enough for the name; the other names are weak."""
    detection: Detection | None = None
    """The name tried on held-out texts; `None` where there is no name, or too few texts to hold some out."""


@dataclass(frozen=True)
class NamingRule:
    """When the best category becomes the name."""

    level: float = 0.05
    """q has to be below."""
    min_auroc: float = 0.7
    min_lead: float = 0.05
    """AUROC of the best over that of the second."""
    contrast_level: float = 0.05
    """The sign test's p over the pairs has to be below."""
    min_contrast_share: float = 0.6
    clear_auroc: float = 0.8
    """A clear name has at least this AUROC,"""
    clear_share: float = 0.5
    """and at least this share of the latent's activation on the probes."""


def annotate_by_probes(
    maxima_PL: Maxima,
    categories: Sequence[str | None],
    *,
    pairs: Sequence[int | None] | None = None,
    rule: NamingRule | None = None,
    taxonomy: Taxonomy | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Annotation, ...]:
    """Name every latent by the probe texts on which it fires most.

    `maxima_PL` may be sparse; a block of latents is dense at a time. `categories` has a text's tag and `None` for a
    contrast; `pairs` has, for a contrast, the row of its text. For each latent and category a tie-corrected
    Mann–Whitney test, one-sided: the category's texts v the texts of all others and every contrast; then
    Benjamini–Hochberg over latents × categories. Where the best category has contrasts, the latent must also fire
    more on its texts than on their matched ones: a one-sided sign test over the pairs that are not tied. A latent
    with one and the same value on every row (one that never fires on them) can not be tested whatever the tags
    are; it does not count, so that a dictionary with more dead latents names the others alike.

    Named latents carry a `Detection`, the score of `held_out_auroc` over halves that `rng` draws. That a latent is
    named at all was decided on both halves: of the names that are luck the score is luck too, and q bounds how many
    are.

    Raises `ValueError` where rows, tags and pairs do not fit, or there is one category only.
    """
    rule = rule or NamingRule()
    columns = Columns.of(maxima_PL)
    design = Design.of(columns.n_rows, categories, pairs, taxonomy)
    evidence = gather(columns, design)
    q_LK = benjamini_hochberg(evidence.p_LK)
    n_pairs_K = design.pair_QK.sum(axis=0)
    found = [_name(design.names, evidence, latent, q_LK[latent], n_pairs_K, rule) for latent in range(len(q_LK))]
    named = np.flatnonzero([annotation.category != UNCLEAR for annotation in found])
    score_L = held_out_auroc(columns.take(named), design, rng)
    for latent, score in zip(named.tolist(), score_L.tolist()):
        if not np.isnan(score):
            found[latent] = replace(found[latent], detection=Detection(score, CHANCE, columns.n_rows, HELD_OUT_METHOD))
    return tuple(found)


def mark_clear(
    found: Sequence[Annotation],
    mass_PL: sparse.csr_array | Float[np.ndarray, "P L"],
    lengths: Sequence[int],
    categories: Sequence[str | None],
    rule: NamingRule | None = None,
) -> tuple[Annotation, ...]:
    """The same annotations with the share of activation that the names' texts have, and which names are clear.

    A name that the rank test gives may be of a latent that fires a little more on one category and a good deal on
    others; most of the activation of one that is clear is on texts of the category.

    Args:
        found: from `annotate_by_probes`.
        mass_PL: sum of each latent's activation over every text.
        lengths: coded tokens of the texts.
        categories: of the texts; None for contrasts, which do not count here.
        rule: what clear means.
    """
    rule = rule or NamingRule()
    names = sorted({name for name in categories if name is not None})
    member_KP = np.array([[own == name for own in categories] for name in names], dtype=np.float64)
    tokens_K1 = (member_KP @ np.asarray(lengths, dtype=np.float64))[:, None]
    activation_KL = (mass_PL.T @ member_KP.T).T / tokens_K1
    total_L = activation_KL.sum(axis=0)
    marked = []
    for latent, annotation in enumerate(found):
        if annotation.category == UNCLEAR or not total_L[latent] > 0:
            marked.append(annotation)
            continue
        share = float(activation_KL[names.index(annotation.category), latent] / total_L[latent])
        clear = share >= rule.clear_share and (annotation.auroc or 0.0) >= rule.clear_auroc
        marked.append(replace(annotation, share=share, is_clear=clear))
    return tuple(marked)


def _name(
    names: Sequence[str],
    evidence: Evidence,
    latent: int,
    q_K: Float[np.ndarray, " K"],
    n_pairs_K: np.ndarray,
    rule: NamingRule,
) -> Annotation:
    if evidence.silent_L[latent]:
        return Annotation(UNCLEAR, reason="it does not fire on the probes")
    auroc_K = evidence.auroc_LK[latent]
    best, second = (int(place) for place in np.argsort(-auroc_K, kind="stable")[:2])
    auroc, q_value, runner_up = float(auroc_K[best]), float(q_K[best]), float(auroc_K[second])
    doubts: list[str] = []
    if not q_value < rule.level:
        doubts.append(f"q = {q_value:.2g} is not below {rule.level:g}")
    if not auroc >= rule.min_auroc:
        doubts.append(f"its AUROC of {auroc:.2f} is below {rule.min_auroc:g}")
    if not auroc - runner_up >= rule.min_lead:
        doubts.append(f"{names[second]} is close behind ({auroc:.2f} v {runner_up:.2f})")
    share, beside = None, ""
    if n_pairs := int(n_pairs_K[best]):
        wins, losses = int(evidence.wins_LK[latent, best]), int(evidence.losses_LK[latent, best])
        share = (wins + (n_pairs - wins - losses) / 2) / n_pairs
        doubts += _contrast_doubts(share, n_pairs, wins, losses, rule)
        beside = f"; more than on the matched text without it in {100 * share:.0f} % of {n_pairs} pairs"
    if doubts:
        category = UNCLEAR
        reason = f"most active on {names[best]}, but {' and '.join(doubts)}"
    else:
        category = names[best]
        reason = (
            f"fires more on {category} than on other probes: AUROC {auroc:.2f}, q = {q_value:.2g}; "
            f"next is {names[second]} with {runner_up:.2f}{beside}"
        )
    return Annotation(
        category=category,
        auroc=auroc,
        q_value=q_value,
        best=names[best],
        runner_up=names[second],
        runner_up_auroc=runner_up,
        reason=reason,
        contrast_share=share,
    )


def _contrast_doubts(share: float, n_pairs: int, wins: int, losses: int, rule: NamingRule) -> list[str]:
    """Why the best category is not told from the matched texts without it, if it is not."""
    told = f"{100 * share:.0f} % of {n_pairs} pairs"
    if share <= 1 - rule.min_contrast_share:
        return [f"more on matched texts without it (it leads in {told})"]
    if share < rule.min_contrast_share:
        return [f"as much on matched texts without it ({told})"]
    # of a fair coin over the pairs that are not tied: at least so many wins
    p_value = float(stats.binom.sf(wins - 1, wins + losses, 0.5))
    if not p_value < rule.contrast_level:
        return [f"its lead over matched texts without it may be chance ({told}, p = {p_value:.2g})"]
    return []
