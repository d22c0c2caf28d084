"""The accounts of all tasks as rows of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.assembly.numbers import number
from diffharness.report import schema
from diffharness.report.schema import component_label
from diffharness.secrets import without_secrets
from diffharness.statistics.multiple import benjamini_hochberg

if TYPE_CHECKING:
    from diffharness.attribution.account import ComponentSum, TaskAccount
    from diffharness.attribution.path import DocumentAccount
    from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey

Worth = Callable[[Any], float | None]
"""A document's value of its task's metric as one number."""
N_DOCUMENTS = 6
"""Documents shown a task."""


def present(categories: Sequence[str]) -> tuple[str, ...]:
    """The categories that latents have, in the taxonomy's order, `unclear` always among them."""
    from diffharness.latents.taxonomy import UNCLEAR, in_order

    return in_order({*categories, UNCLEAR})


def write_contributions(accounts: Sequence[TaskAccount], categories: Sequence[str], path: Path) -> None:
    """`contributions.parquet`: a row a (task, document, component)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from diffharness.attribution.account import contributions

    names = present(categories)
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "task", "doc_id", "weight", "kind", "origin", "category", "contribution", "contribution_raw", "interaction",
        )
    }  # fmt: skip
    for account in accounts:
        parts = contributions(account, categories, names)
        n = len(account.doc_ids)
        for c, key in enumerate(parts.keys):
            columns["task"] += [account.task] * n
            columns["doc_id"] += list(account.doc_ids)
            columns["weight"] += account.sample_N.tolist()
            columns["kind"] += [key.kind] * n
            columns["origin"] += [key.origin] * n
            columns["category"] += [key.category] * n
            columns["contribution"] += parts.values_NC[:, c].tolist()
            columns["contribution_raw"] += [number(value) for value in parts.raw_NC[:, c].tolist()]
            columns["interaction"] += parts.interaction_NC[:, c].tolist()
    text, real = pa.string(), pa.float64()
    types = [text, pa.int64(), real, text, text, text, real, real, real]
    pq.write_table(pa.table(columns, schema=pa.schema(list(zip(columns, types, strict=True)))), path)


def accounts(
    found: Sequence[TaskAccount],
    *,
    categories: Sequence[str],
    metrics: Mapping[str, MetricKey],
    gaps: Mapping[str, float],
    worth: Mapping[str, Worth],
    evaluations: tuple[Evaluation, Evaluation],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """All tasks' accounts as JSON: surrogate, components, per-latent sums, documents and completeness."""
    from diffharness.attribution.account import READ, WRITTEN, sum_components

    names = present(categories)
    sums = {
        account.task: sum_components(
            account,
            categories,
            names,
            rng,
            _clusters(account, evaluations[0].of(account.task, metrics[account.task].filter)),
        )
        for account in found
    }
    flat = [part for task in sums.values() for part in task]
    q_values = iter(benjamini_hochberg([part.p_value for part in flat]).tolist())
    return {
        "tasks": {
            account.task: {
                **_surrogate(account, metrics[account.task], gaps[account.task], worth[account.task], evaluations),
                "interaction": sum(p.interaction for p in sums[account.task] if p.key.origin == WRITTEN),
                "components": [_component(account, part, next(q_values)) for part in sums[account.task]],
                "latents": {origin: account.latents_L(origin).tolist() for origin in (WRITTEN, READ)},
                "completeness": max((abs(a.scale) * _residual(a) for a in account.accounts), default=0.0),
                "n_accounted": len(account.doc_ids),
                "documents": _documents(
                    account, categories, names, metrics[account.task], worth[account.task], evaluations
                ),
            }
            for account in found
        },
        "completeness": _completeness(found),
    }


def _clusters(account: TaskAccount, documents: Mapping[int, DocumentScore]) -> list[str] | None:
    """The accounted documents' clusters, where they have such."""
    found = [documents[i].cluster for i in account.doc_ids]
    known = [cluster for cluster in found if cluster is not None]
    return known if len(known) == len(found) else None


def _component(account: TaskAccount, part: ComponentSum, q_value: float) -> dict[str, Any]:
    from diffharness.attribution.account import is_content_free

    second, own = (account.second_prior, account.upper) if part.key.kind == "prior" else (None, None)
    return {
        "kind": part.key.kind,
        "origin": part.key.origin,
        "category": part.key.category,
        "contribution": part.contribution,
        "contribution_raw": number(part.contribution_raw),
        "interaction": part.interaction,
        "low": part.low,
        "high": part.high,
        "p_value": number(part.p_value),
        "q_value": number(q_value),
        "n_latents": part.n_latents,
        "second_start": second,
        "at_own_states": own,
        "is_content_free": None if own is None else is_content_free(part.contribution, own),
    }


def _residual(account: DocumentAccount) -> float:
    """What the quadrature missed of a document, in units of m; of the worse order."""
    return max(abs(w.residual) + abs(r.residual) for w, r in zip(account.written, account.read, strict=True))


def _surrogate(
    account: TaskAccount, metric: MetricKey, gap: float, worth: Worth, evaluations: tuple[Evaluation, Evaluation]
) -> dict[str, Any]:
    from diffharness.attribution.account import tracking
    from diffharness.evaluation.comparison import document_metric

    sides = [e.of(account.task, metric.filter) for e in evaluations]
    values = [[document_metric(side[i], metric, worth) for i in account.doc_ids] for side in sides]
    if all(v is not None for side in values for v in side):
        difference_N = np.subtract(np.array(values[1], dtype=float), np.array(values[0], dtype=float))
        correlation, tracks, reason = tracking(account, difference_N, gap, metric.higher_is_better)
    else:
        correlation, tracks, reason = None, False, "the metric has no number for a single document"
    same_unit = (
        account.forms.unit == "score"
        or (account.forms.unit == "probability" and metric.metric.startswith(("acc", "exact_match")))
        or metric.metric == account.forms.unit.replace(" ", "_")
    )
    surrogate = schema.Surrogate(
        name=account.forms.name,
        unit=account.forms.unit,
        baseline=float(account.mean(account.baseline_N)),
        candidate=float(account.mean(account.candidate_N)),
        gap=account.gap,
        rank_correlation=number(correlation),
        tracks=tracks,
        tracks_reason=reason,
        higher_is_better=account.forms.higher_is_better,
    )
    return {
        "surrogate": surrogate.model_dump(mode="json"),
        "not_tracked": gap - account.gap if same_unit else None,
    }


def _documents(
    account: TaskAccount,
    categories: Sequence[str],
    names: Sequence[str],
    metric: MetricKey,
    worth: Worth,
    evaluations: tuple[Evaluation, Evaluation],
) -> list[dict[str, Any]]:
    """The documents whose metric changed, those whose surrogate moved most first."""
    from diffharness.attribution.account import contributions
    from diffharness.evaluation.comparison import document_metric

    base, cand = (e.of(account.task, metric.filter) for e in evaluations)
    parts = contributions(account, categories, names)
    labels = [component_label(key.kind, key.category, key.origin) for key in parts.keys]
    shown = []
    for i in np.argsort(-np.abs(account.candidate_N - account.baseline_N), kind="stable"):
        before, after = base[account.doc_ids[i]], cand[account.doc_ids[i]]
        scores = document_metric(before, metric, worth), document_metric(after, metric, worth)
        if scores[0] is None or scores[1] is None or scores[0] == scores[1]:
            continue
        shown.append(
            schema.Document(
                doc_id=before.doc_id,
                prompt=before.prompt[-600:],
                gold=before.target[:300],
                baseline_answer=before.answer[:300],
                candidate_answer=after.answer[:300],
                baseline_score=scores[0],
                candidate_score=scores[1],
                contributions={label: float(v) for label, v in zip(labels, parts.values_NC[i], strict=True)},
            ).model_dump(mode="json")
        )
        if len(shown) == N_DOCUMENTS:
            break
    return shown


def _completeness(found: Sequence[TaskAccount]) -> dict[str, Any] | None:
    documents = [a for account in found for a in account.accounts]
    if not documents:
        return None
    values = np.array([a.incompleteness for a in documents])
    return schema.Completeness(
        median=float(np.median(values)),
        percentile_99=float(np.quantile(values, 0.99)),
        maximum=float(values.max()),
        n=len(values),
        nodes=max(b.n_nodes for a in documents for b in (*a.written, *a.read)),
    ).model_dump(mode="json")


def model_info(side: str, model_args: str, model: Any, fingerprint: str, n_layers: int) -> schema.ModelInfo:
    """One model's row."""
    name = dict(part.split("=", 1) for part in model_args.split(",") if "=" in part).get("pretrained", model_args)
    config = model.config.get_text_config()
    return schema.ModelInfo(
        side=side,  # pyright: ignore[reportArgumentType]
        name=Path(name).name or name,
        model_args=without_secrets(model_args),
        n_parameters=int(model.num_parameters()),
        n_layers=n_layers,
        hidden_size=int(config.hidden_size),
        dtype=str(model.dtype).removeprefix("torch."),
        fingerprint=fingerprint,
    )
