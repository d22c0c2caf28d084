"""Which latents a user means: those of a category, or one by its number."""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.errors import UsageError
from diffharness.latents.taxonomy import in_order


def chosen_latents(wanted: Sequence[str], categories: Sequence[str], where: str) -> tuple[int, ...]:
    """The latents of some categories, and some by number, in ascending order.

    Args:
        wanted: names of categories, or numbers of latents.
        categories: every latent's category, in the order of the latents.
        where: what named them, for the message.

    Raises:
        UsageError: nothing is named, or a category that no latent is of; those that there are are listed.
    """
    if not wanted:
        raise UsageError(f"{where} names nothing; give {_those(categories)}")
    found: set[int] = set()
    for name in wanted:
        if name in categories:
            found |= {index for index, own in enumerate(categories) if own == name}
        elif name.isdecimal() and int(name) < len(categories):
            found.add(int(name))
        else:
            raise UsageError(f"{where}: no latent is of a category {name!r}; give {_those(categories)}")
    return tuple(sorted(found))


def _those(categories: Sequence[str]) -> str:
    return f"{', '.join(in_order(categories))}, or numbers of latents (0 to {len(categories) - 1})"
