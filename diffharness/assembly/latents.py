"""Latents as rows of the report, and as a table of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.activations.positions import FIRST, SPECIAL, TEMPLATE
from diffharness.assembly.numbers import number
from diffharness.latents.taxonomy import UNCLEAR
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.activations.corpus import Text
    from diffharness.latents.annotation import Annotation
    from diffharness.latents.association import Associations
    from diffharness.latents.examples import LatentExample
    from diffharness.latents.identification import LatentIdentity
    from diffharness.latents.lens import LensTokens
    from diffharness.latents.scaling import Ratios
    from diffharness.latents.use import LatentUse


@dataclass(frozen=True)
class Cards:
    """What only the latents that differ most have: the rest of the table stays small."""

    chosen: Sequence[int]
    """Indices of latents; the other fields are in this order."""
    examples: Mapping[int, tuple[schema.Example, ...]]
    neighbours: Sequence[Sequence[tuple[int, float]]]
    lens: Sequence[Mapping[str, LensTokens]]


def latent_rows(
    identity: LatentIdentity,
    names: Sequence[Annotation],
    cards: Cards,
    *,
    density_by_task: Mapping[str, np.ndarray],
    use: LatentUse,
    associations: Associations,
    is_matched: np.ndarray | None,
) -> list[schema.Latent]:
    """One row a latent, without contributions."""
    scaling = identity.scaling
    place = {j: i for i, j in enumerate(cards.chosen)}
    rows = []
    for j, name in enumerate(names):
        first, special, template = (number(scaling.kind_share_LK[j, kind]) for kind in (FIRST, SPECIAL, TEMPLATE))
        card = place.get(j)
        is_specific = identity.status[j].endswith("-specific")
        rows.append(
            schema.Latent(
                index=j,
                status=identity.status[j],  # pyright: ignore[reportArgumentType]
                side=identity.side[j] if is_specific else None,
                status_by_norm=identity.status_by_norm[j],  # pyright: ignore[reportArgumentType]
                status_reason=identity.reason[j],
                category=name.category,
                evidence=_evidence(name),
                delta_norm=number(identity.delta_norm[j]),
                nu_reconstruction=number(scaling.nu_reconstruction.value_L[j]),
                nu_error=number(scaling.nu_error.value_L[j]),
                nu_reconstruction_interval=_ratio_interval(scaling.nu_reconstruction, j),
                nu_error_interval=_ratio_interval(scaling.nu_error, j),
                decoder_cosine=number(identity.cosine[j]),
                density=float(scaling.density_L[j]),
                density_by_task={
                    task: float(found_L[j]) for task, found_L in density_by_task.items() if found_L[j] > 0
                },
                n_active=int(scaling.n_active_L[j]),
                n_texts=int(scaling.n_texts_L[j]),
                mean_activation=number(scaling.mean_activation_L[j]),
                first_token_share=first,
                special_token_share=special,
                template_token_share=template,
                use=_use(use, j),
                association=_association(associations, j),
                matched=None if is_matched is None else bool(is_matched[j]),
                contributions={},
                examples=cards.examples.get(j, ()),
                neighbours=tuple(
                    schema.Neighbour(index=index, cosine=cosine)
                    for index, cosine in (cards.neighbours[card] if card is not None else ())
                ),
                lens={side: _lens(found) for side, found in cards.lens[card].items()} if card is not None else {},
            )
        )
    return rows


def _evidence(name: Annotation) -> schema.Evidence:
    detection = name.detection
    return schema.Evidence(
        auroc=name.auroc,
        q_value=name.q_value,
        runner_up=name.runner_up,
        runner_up_auroc=name.runner_up_auroc,
        reason=name.reason,
        annotator=name.annotator,
        contrast_share=name.contrast_share,
        best=name.best,
        share=name.share,
        is_clear=name.is_clear if name.annotator == "probe" and name.category != UNCLEAR else None,
        detection=None if detection is None else schema.Detection(**asdict(detection)),
    )


def _ratio_interval(found: Ratios, j: int) -> schema.Interval | None:
    if np.isnan(found.low_L[j]) or np.isnan(found.high_L[j]):
        return None
    return schema.Interval(
        low=float(found.low_L[j]), high=float(found.high_L[j]), method="percentile bootstrap over groups of documents"
    )


def _use(use: LatentUse, j: int) -> schema.Use | None:
    """None where the latent fires in neither model, or its interval is unknown."""
    rate, mean = use.rate_change, use.mean_change
    ends = (rate.low_L[j], rate.high_L[j], mean.low_L[j], mean.high_L[j])
    if use.n_fired_L[j] == 0 or not np.isfinite(ends).all():
        return None
    method = f"Student's t of a ratio of sums over {use.unit}s"
    return schema.Use(
        rate_baseline=float(use.rate_LM[j, 0]),
        rate_candidate=float(use.rate_LM[j, 1]),
        rate_interval=schema.Interval(low=float(ends[0]), high=float(ends[1]), method=method),
        mean_baseline=float(use.mean_LM[j, 0]),
        mean_candidate=float(use.mean_LM[j, 1]),
        mean_interval=schema.Interval(low=float(ends[2]), high=float(ends[3]), method=method),
        q_value=number(mean.q_L[j]),
    )


def _association(found: Associations, j: int) -> schema.Association | None:
    if np.isnan(found.p_adjusted_L[j]):
        return None
    return schema.Association(
        task=None,
        direction="gains" if found.statistic_L[j] > 0 else "loses",
        statistic=float(found.statistic_L[j]),
        p_value=float(found.p_L[j]),
        p_adjusted=float(found.p_adjusted_L[j]),
        n_gain=found.n_gain,
        n_lose=found.n_lose,
        method=found.method,
    )


def _lens(found: LensTokens) -> schema.Lens:
    up, down = (schema.Promoted(tokens=part.tokens, values=part.values) for part in (found.up, found.down))
    return schema.Lens(up=up, down=down)


SHOWN = {"top": 5, "quantile": 10, "near miss": 3}
"""Examples of each kind on a card."""


class Shower:
    """Looks up the tokens of examples: training texts by number from 0 up, evaluation texts from −1 down."""

    def __init__(
        self, texts: Sequence[Text], evaluation: Sequence[Text], tokenizer: Any, skipped_ids: frozenset[int]
    ) -> None:
        self._texts = texts
        self._evaluation = evaluation
        self._tokenizer = tokenizer
        self._skipped_ids = skipped_ids
        self._known: dict[int, tuple[str, ...]] = {}

    def shown(self, example: LatentExample) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """An example's tokens and activations."""
        tokens = self._tokens(example.text)
        return tokens[example.first : example.first + len(example.values)], example.values

    def card(self, examples: Sequence[LatentExample]) -> tuple[schema.Example, ...]:
        """What a card shows of a latent's examples: of each kind the first few, of the sample evenly."""
        found: list[schema.Example] = []
        for kind, limit in SHOWN.items():
            own = [example for example in examples if example.kind == kind]
            places = np.unique(np.linspace(0, len(own) - 1, limit).round().astype(int)) if own else ()
            found += [self._row(own[i] if kind == "quantile" else own[n]) for n, i in enumerate(places)]
        return tuple(found)

    def _row(self, example: LatentExample) -> schema.Example:
        tokens, values = self.shown(example)
        baseline, candidate = example.presence if example.kind != "near miss" else ((), ())
        return schema.Example(
            tokens=tokens,
            values=tuple(round(v, 3) for v in values),
            baseline=tuple(round(v, 3) for v in baseline),
            candidate=tuple(round(v, 3) for v in candidate),
            source=example.source,
            kind=example.kind,
            quantile=example.quantile,
        )

    def _tokens(self, number: int) -> tuple[str, ...]:
        from diffharness.activations.rows import coded_places

        if number not in self._known:
            ids = (self._texts[number] if number >= 0 else self._evaluation[-1 - number]).ids
            tokens = token_texts(ids, self._tokenizer)
            self._known[number] = tuple(tokens[place] for place in coded_places(ids, self._skipped_ids))
        return self._known[number]


def token_texts(ids: Sequence[int], tokenizer: Any) -> tuple[str, ...]:
    """Each token as it reads in the text: what decoding one token more adds."""
    pieces, before = [], ""
    for n in range(1, len(ids) + 1):
        text = tokenizer.decode(list(ids[:n]), clean_up_tokenization_spaces=False)
        pieces.append(text[len(before) :] if text.startswith(before) else tokenizer.decode([ids[n - 1]]))
        before = text
    return tuple(pieces)


_NESTED = {
    "evidence", "contributions", "read", "examples", "use", "association", "neighbours", "lens", "density_by_task",
    "nu_reconstruction_interval", "nu_error_interval",
}  # fmt: skip
MAIN = ("baseline", "candidate")


def _ends(name: str, interval: schema.Interval | None) -> dict[str, float | None]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": low, f"{name}_high": high}


def write_latents(rows: Sequence[schema.Latent], path: Path) -> None:
    """`latents.parquet`: a row a latent."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [
        {
            **row.model_dump(exclude=_NESTED),
            "auroc": row.evidence.auroc,
            "q_value": row.evidence.q_value,
            "reason": row.evidence.reason,
            "annotator": row.evidence.annotator,
            "is_clear": row.evidence.is_clear,
            "contrast_share": row.evidence.contrast_share,
            "detection": None if row.evidence.detection is None else row.evidence.detection.score,
            **_ends("nu_reconstruction", row.nu_reconstruction_interval),
            **_ends("nu_error", row.nu_error_interval),
            **{
                f"{name}_{side}": getattr(row.use, f"{name}_{side}", None) for name in ("rate", "mean") for side in MAIN
            },
            "association": None if row.association is None else row.association.direction,
            "association_p_adjusted": None if row.association is None else row.association.p_adjusted,
        }
        for row in rows
    ]
    table = pa.Table.from_pylist(flat)
    types = {"matched": pa.bool_(), "is_clear": pa.bool_(), "side": pa.string(), "association": pa.string()}
    fields = [
        field.with_type(types.get(field.name, pa.float64())) if pa.types.is_null(field.type) else field
        for field in table.schema
    ]  # a column that is empty in this run has its type all the same
    pq.write_table(table.cast(pa.schema(fields)), path)
