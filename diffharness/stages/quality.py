"""How well a crosscoder does, put together: on held-out activations, inside its models, and against other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffharness.activations.splicing import SpliceLoss
    from diffharness.crosscoder.batches import Activations
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.report.schema import CrosscoderQuality
    from diffharness.session import Session


def measured(
    trained: Sequence[Crosscoder],
    heldout_NMD: Activations,
    *,
    splice: Mapping[str, SpliceLoss] | None = None,
    loaded_from: str = "",
    stated: Mapping[str, Any] | None = None,
) -> CrosscoderQuality:
    """The first crosscoder's quality on raw held-out activations.

    Args:
        trained: the first is measured; the others were trained with other seeds and say how stable its latents are,
            the one that has the fewest of them counting.
        heldout_NMD: (tokens, models × layers, width).
        splice: what its reconstructions cost its models, by column.
        loaded_from: where it comes from, if it was not trained on these activations: only then it may be stale.
        stated: its own `quality.json`, where it is loaded and has one.
    """
    from diffharness.assembly.quality import quality
    from diffharness.crosscoder.quality import measure, staleness
    from diffharness.crosscoder.stability import matched_share

    first, *others = trained
    measures = measure(first, heldout_NMD)
    matches = [matched_share(first, other, alive=measures.fired_L) for other in others]
    stable = min(matches, key=lambda found: found.share, default=None)
    stale = staleness(measures, _stated_variance(stated)) if loaded_from else None
    return quality(first, measures, splice=splice, stability=stable, stale=stale, source=loaded_from)


def _stated_variance(stated: Mapping[str, Any] | None) -> dict[str, float]:
    """Explained variance by model in another's `quality.json`, which may hold anything."""
    found = (stated or {}).get("explained_variance")
    values = found.items() if isinstance(found, dict) else ()
    return {name: float(value) for name, value in values if isinstance(value, int | float)}


def spliced(
    session: Session, crosscoder: Crosscoder, sides: Sequence[str], texts: Sequence[Sequence[int]]
) -> dict[str, SpliceLoss]:
    """What the crosscoder's reconstructions cost its models on some texts, by column."""
    from diffharness.activations.capture import UpperStack
    from diffharness.activations.splicing import splice
    from diffharness.crosscoder.quality import reconstruct

    columns = [(side, layer) for side in sides for layer in session.layers]
    uppers = {
        name: UpperStack(session.model(side).hf_model, layer)
        for name, (side, layer) in zip(crosscoder.config.columns, columns, strict=True)
    }
    return splice(
        [session.reader(side) for side in sides],
        uppers,
        lambda x_NMD: reconstruct(crosscoder, x_NMD),
        texts,
        skipped_ids=session.skipped_ids,
    )
