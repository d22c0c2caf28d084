"""What if: an ablated model's scores as the report's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.evaluation.comparison import Comparison


def ablated_model(
    categories: Sequence[str], n_latents: int, found: Sequence[Comparison], baselines: Sequence[float]
) -> schema.AblatedModel:
    """The candidate with some categories put back to the baseline's version.

    Args:
        categories: their names, or numbers of latents.
        n_latents: how many latents that is.
        found: of every task, the comparison candidate → ablated; none where there are no latents.
        baselines: the baseline's score of every task.
    """
    rows = tuple(
        schema.AblatedRow(
            task=one.task,
            metric=one.metric.metric,
            baseline=baseline,
            candidate=one.baseline,
            ablated=one.candidate,
            change=one.candidate - one.baseline,
            interval=schema.Interval(
                low=one.result.low, high=one.result.high, level=one.result.level, method=one.result.method
            ),
            n=one.result.n,
        )
        for one, baseline in zip(found, baselines, strict=True)
    )
    return schema.AblatedModel(
        name=f"candidate without {' and '.join(categories)}",
        mode="put_back",
        categories=tuple(categories),
        n_latents=n_latents,
        rows=rows,
        reason=None if n_latents else "no latent of this run is of such a category",
    )
