"""Which documents of a task are accounted for, where not all are: a stratified draw, and what each one stands for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np


def stratified(strata: Mapping[int, Hashable], n: int, rng: np.random.Generator) -> dict[int, float]:
    """Draw documents from every stratum in proportion to its size, at least one of each.

    Args:
        strata: by document, what it is like.
        n: documents wanted; all are taken where there are no more, and a few more where strata are tiny.
        rng: draws.

    Returns:
        By drawn document, in order, how many of its stratum it stands for (1 where all are taken): weighted means are
        unbiased (Cochran 1977, chapter 5).
    """
    if len(strata) <= n:
        return dict.fromkeys(sorted(strata), 1.0)
    members: dict[Hashable, list[int]] = {}
    for document in sorted(strata):
        members.setdefault(strata[document], []).append(document)
    sizes = {stratum: max(1, int(n * len(own) / len(strata))) for stratum, own in members.items()}
    fractions = sorted(members, key=lambda s: (n * len(members[s]) / len(strata)) % 1, reverse=True)
    for stratum in fractions:  # what rounding down left over, to the largest remainders
        if sum(sizes.values()) < n and sizes[stratum] < len(members[stratum]):
            sizes[stratum] += 1
    drawn = {
        int(document): len(own) / sizes[stratum]
        for stratum, own in members.items()
        for document in rng.choice(own, size=sizes[stratum], replace=False)
    }
    return dict(sorted(drawn.items()))
