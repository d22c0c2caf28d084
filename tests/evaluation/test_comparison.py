"""Every kind of metric against lm-eval's own aggregate and an independent float64 computation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from lm_eval.api import metrics as lm_eval_metrics

from diffharness.errors import RunError
from diffharness.evaluation import measures
from diffharness.evaluation.comparison import comparability, compare, document_metric, document_value, effect_size
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, TaskInfo, Value

N = 40
RNG = np.random.default_rng(7)


def document(i: int, metric: str, value: Value) -> DocumentScore:
    return DocumentScore("t", i, "none", f"d{i}", f"p{i}", "", "", "", {metric: value})


def evaluation(metric: MetricKey, values: list[Value], score: float) -> Evaluation:
    info = TaskInfo("t", "generate_until", (metric,), (), "", "", {str(metric): score})
    documents = tuple(document(i, metric.metric, v) for i, v in enumerate(values))
    return Evaluation("", (info,), documents, Ledger(()))


def mean(values) -> float:
    return float(np.mean(values))


def both(metric: MetricKey, base: list[Value], cand: list[Value], aggregation, seed: int = 0):
    sides = [evaluation(metric, values, float(aggregation(values))) for values in (base, cand)]
    return compare("t", metric, *sides, aggregation, np.random.default_rng(seed))


def bootstrap(base, cand, aggregation, n_resamples: int = 4000) -> tuple[float, float]:
    """Percentiles of the difference over resampled documents, one by one."""
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(n_resamples):
        chosen = rng.integers(0, len(base), len(base))
        draws.append(aggregation([cand[i] for i in chosen]) - aggregation([base[i] for i in chosen]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def test_accuracy_has_the_exact_counts_and_an_interval_around_the_gap():
    base = [float(i % 2) for i in range(N)]
    cand = [1.0 if i < 30 else v for i, v in enumerate(base)]
    found = both(MetricKey("acc", "none", True), base, cand, mean)
    assert (found.baseline, found.candidate, found.result.n) == (0.5, 0.875, N)
    assert (found.result.n_better, found.result.n_worse) == (15, 0)
    assert 0 < found.result.low < 0.375 < found.result.high < 0.6
    assert found.effect_kind == "absolute"
    assert found.result.p_value < 1e-3


LL = -RNG.gamma(4, 1, N)
BETTER = LL + 0.3 + 0.1 * RNG.normal(size=N)
BYTES = RNG.integers(10, 60, N).astype(float)

RATIOS = {
    "perplexity": (MetricKey("perplexity", "none", False), LL.tolist(), BETTER.tolist(), "logarithmic"),
    **{
        name: (
            MetricKey(name, "none", False),
            [(x * 20, b) for x, b in zip(LL.tolist(), BYTES.tolist(), strict=True)],
            [(x * 20, b) for x, b in zip(BETTER.tolist(), BYTES.tolist(), strict=True)],
            kind,
        )
        for name, kind in (
            ("bits_per_byte", "relative"), ("byte_perplexity", "logarithmic"), ("word_perplexity", "logarithmic"),
        )
    },
}  # fmt: skip
OWN = {
    "perplexity": lm_eval_metrics.perplexity,
    "bits_per_byte": lm_eval_metrics.bits_per_byte,
    "byte_perplexity": lm_eval_metrics.weighted_perplexity,
    "word_perplexity": lm_eval_metrics.weighted_perplexity,
}


@pytest.mark.parametrize("name", RATIOS)
def test_ratio_metrics_agree_with_lm_eval_and_a_plain_bootstrap(name):
    metric, base, cand, kind = RATIOS[name]
    found = both(metric, base, cand, OWN[name])
    assert found.result.gap == pytest.approx(OWN[name](cand) - OWN[name](base), abs=1e-9)
    low, high = bootstrap(base, cand, OWN[name])
    width = high - low
    assert found.result.low == pytest.approx(low, abs=0.15 * width)
    assert found.result.high == pytest.approx(high, abs=0.15 * width)
    assert found.result.n_better > found.result.n_worse, "less is better"
    assert found.effect_kind == kind


GOLD = [i % 2 for i in range(N)]
GUESSES = [[g if r < right else 1 - g for g, r in zip(GOLD, RNG.random(N), strict=True)] for right in (0.6, 0.9)]


WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "to", "its", "old", "house"]
SENTENCES = [" ".join(RNG.choice(WORDS, 9)) for _ in range(N)]


def said(share: float, references: int = 0) -> list[Value]:
    """Gold and answer, a share of whose words are others; gold of several references where asked for."""
    pairs: list[Value] = []
    for gold in SENTENCES:
        answer = " ".join(w if r > share else "dog" for w, r in zip(gold.split(), RNG.random(9), strict=True))
        pairs.append((tuple([gold, f"{gold} again", "so"][:references]) if references else gold, answer))
    return pairs


CORPUS_METRICS = {
    "f1": (lm_eval_metrics.f1_score, *([(g, p) for g, p in zip(GOLD, guess, strict=True)] for guess in GUESSES)),
    "mcc": (lm_eval_metrics.matthews_corrcoef, *([(g + 2 * (i % 3 == 0), p) for i, (g, p) in
            enumerate(zip(GOLD, guess, strict=True))] for guess in GUESSES)),
    "bleu": (lm_eval_metrics.bleu, said(0.4), said(0.2)),
    "bleu of several references": (lm_eval_metrics.bleu, said(0.4, 3), said(0.2, 3)),
    "chrf": (lm_eval_metrics.chrf, said(0.4), said(0.2)),
    "chrf++": (lm_eval_metrics.chrfpp, said(0.4), said(0.2)),
    "ter": (lm_eval_metrics.ter, said(0.4), said(0.2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS_METRICS)
def test_counting_gives_what_lm_eval_gives_on_every_resample(name, monkeypatch):
    aggregation, base, cand = CORPUS_METRICS[name]
    metric = MetricKey(name.split()[0], "none", name != "ter")
    monkeypatch.setattr(measures, "_COUNTED_RESAMPLES", 40)
    monkeypatch.setattr(measures, "_GENERIC_RESAMPLES", 40)
    calls = []
    counted = both(metric, base, cand, lambda values: (calls.append(1), aggregation(values))[1]).result
    assert len(calls) == 2, "lm-eval's function made the two scores and nothing else"
    monkeypatch.setattr(measures, "count", lambda *_: None)
    recomputed = both(metric, base, cand, aggregation).result
    assert dataclasses.astuple(counted)[:5] == pytest.approx(dataclasses.astuple(recomputed)[:5], abs=1e-9)
    assert counted.gap == aggregation(cand) - aggregation(base)
    assert counted.low < counted.gap < counted.high
    assert "the metric recomputed, exchanges over documents" in counted.method


@pytest.mark.parametrize("name", ["f1", "mcc", "bleu"])
def test_corpus_metric_has_the_interval_of_a_plain_bootstrap(name):
    aggregation, base, cand = CORPUS_METRICS[name]
    found = both(MetricKey(name, "none", True), base, cand, aggregation)
    assert (found.baseline, found.candidate) == (aggregation(base), aggregation(cand))
    low, high = bootstrap(base, cand, aggregation, 400)
    assert found.result.low == pytest.approx(low, abs=0.2 * (high - low))
    assert found.result.high == pytest.approx(high, abs=0.2 * (high - low))
    assert "recomputed" in found.result.method
    assert found.effect_kind == ("relative" if name == "bleu" else "absolute")


def test_another_function_under_a_known_name_is_recomputed_as_it_is():
    _, base, cand = CORPUS_METRICS["f1"]

    def wrong(values):
        return mean([g != p for g, p in values])

    found = both(MetricKey("f1", "none", False), base, cand, wrong)
    low, high = bootstrap(base, cand, wrong, 400)
    assert found.result.gap == wrong(cand) - wrong(base)
    assert found.result.low == pytest.approx(low, abs=0.2 * (high - low))


def test_brier_scores_are_paired_by_document():
    sides = [[(g, (1 - p, p)) for g, p in zip(GOLD, RNG.random(N).tolist(), strict=True)] for _ in range(2)]
    found = both(MetricKey("brier_score", "none", False), *sides, lm_eval_metrics.brier_score)
    each = [[sum(((i == g) - p) ** 2 for i, p in enumerate(ps)) for g, ps in side] for side in sides]
    plain = both(MetricKey("brier_score", "none", False), *each, mean)
    assert dataclasses.astuple(found.result) == pytest.approx(dataclasses.astuple(plain.result), abs=1e-9)
    assert found.effect_kind == "absolute"


def test_a_document_alone_is_worth_its_own_aggregate_or_whether_it_is_right():
    f1, bleu = MetricKey("f1", "none", True), MetricKey("bleu", "none", True)
    worth = document_value(lm_eval_metrics.f1_score)
    assert [document_metric(document(0, "f1", pair), f1, worth) for pair in ((0, 0), (1, 0), ((0, 2), 2))] == [1, 0, 1]
    pair = SENTENCES[0], SENTENCES[0].replace("the", "dog")
    worth = document_value(lm_eval_metrics.bleu)
    assert document_metric(document(0, "bleu", pair), bleu, worth) == lm_eval_metrics.bleu([pair])
    assert document_metric(document(0, "odd", (1, 1.5)), MetricKey("odd", "none", True), document_value(sum)) is None
    assert document_metric(document(0, "bits_per_byte", (-6.0, 3)), RATIOS["bits_per_byte"][0], worth) == 2.0


def test_equal_sides_of_an_unbounded_metric_have_no_gap_and_nothing_to_tell_how_they_vary():
    for metric, base, _, _ in RATIOS.values():
        found = both(metric, base, base, OWN[metric.metric])
        assert (found.result.gap, found.result.low, found.result.high) == (0, 0, 0)
        assert "without bounds" in (found.result.approximate_reason or "")


def test_equal_right_and_wrong_leave_open_what_few_documents_can_not_show():
    values = [float(g) for g in GOLD]
    found = both(MetricKey("acc", "none", True), values, values, mean)
    z2 = 1.959964**2
    assert (found.result.low, found.result.high) == pytest.approx((-z2 / (N + z2), z2 / (N + z2)), abs=1e-6)


def test_documents_of_one_cluster_are_drawn_together():
    metric = MetricKey("acc", "none", True)
    base = [0.0] * N
    cand = [float(i // 8 in (0, 2)) for i in range(N)]
    sides = [evaluation(metric, values, mean(values)) for values in (base, cand)]
    named = [
        dataclasses.replace(s, documents=tuple(dataclasses.replace(d, cluster=str(d.doc_id // 8)) for d in s.documents))
        for s in sides
    ]
    alone, grouped = (compare("t", metric, *pair, mean, np.random.default_rng(0)).result for pair in (sides, named))
    assert alone.low > 0
    assert grouped.low <= 0, "two clusters of five settle nothing"
    assert grouped.p_value == 0.5, "2 of the 4 patterns of signs of the two clusters that differ"
    assert (grouped.n, grouped.n_clusters) == (N, 5)
    assert "5 clusters" in grouped.method
    assert "fewer than 30 clusters" in (grouped.approximate_reason or "")


@pytest.mark.parametrize("name", ["bits_per_byte", "f1"])
def test_whole_task_metrics_draw_clusters_too(name):
    metric, base, cand, aggregation = (
        (*RATIOS[name][:3], OWN[name]) if name in RATIOS else
        (MetricKey(name, "none", True), *CORPUS_METRICS[name][1:], CORPUS_METRICS[name][0])
    )  # fmt: skip
    sides = []
    for values in (base, cand):
        thrice = [v for v in values for _ in range(3)]
        one = evaluation(metric, thrice, float(aggregation(thrice)))
        grouped = tuple(dataclasses.replace(d, cluster=f"{d.doc_id // 3:03d}") for d in one.documents)
        sides.append(dataclasses.replace(one, documents=grouped))
    tripled = compare("t", metric, *sides, aggregation, np.random.default_rng(0)).result
    once = both(metric, base, cand, aggregation).result
    assert tripled.n_clusters == N
    assert (tripled.gap, tripled.low, tripled.high) == pytest.approx((once.gap, once.low, once.high), abs=1e-9)
    assert tripled.p_value == once.p_value


def test_score_that_is_no_number_is_refused_by_name():
    with pytest.raises(RunError, match=r"task 't': acc,none is nan and nan"):
        both(MetricKey("acc", "none", True), [math.nan], [math.nan], mean)


@pytest.mark.parametrize(
    ("kind", "baseline", "expected"),
    [
        ("absolute", 0.7, 0.02),
        ("relative", -3.0, 0.06),
        ("relative", 1.5, 0.03),
        ("logarithmic", 100.0, 100 - math.exp(0.98 * math.log(100))),
        ("logarithmic", math.e, math.e - math.exp(0.98)),
    ],
)
def test_smallest_effect_in_the_metrics_unit(kind, baseline, expected):
    assert effect_size(kind, baseline, 0.02) == pytest.approx(expected)


def test_document_metric_is_one_number_in_the_metrics_direction_or_none():
    ratio = MetricKey("bits_per_byte", "none", False)
    assert document_metric(document(0, "bits_per_byte", (-6.0, 3)), ratio) == 2.0
    assert document_metric(document(0, "bits_per_byte", (-6.0, 0)), ratio) is None
    assert document_metric(document(0, "perplexity", -2.0), MetricKey("perplexity", "none", False)) == 2.0
    assert document_metric(document(0, "f1", (1, 1)), MetricKey("f1", "none", True)) is None
    assert document_metric(document(0, "acc", math.nan), MetricKey("acc", "none", True)) is None


def changed(found: Evaluation, i: int, **changes: str) -> Evaluation:
    documents = [dataclasses.replace(d, **changes) if d.doc_id == i else d for d in found.documents]
    return dataclasses.replace(found, documents=tuple(documents))


def test_other_prompts_are_noted_and_other_documents_refused():
    base = evaluation(MetricKey("acc", "none", True), [1.0] * 5, 1.0)
    same = comparability(base, base)
    assert (same.documents_equal, same.prompts_equal, same.notes) == (True, True, ())
    other = comparability(base, changed(base, 3, prompt_hash="x"))
    assert not other.prompts_equal
    assert other.notes == ("t: 1 of 5 documents have different prompts",)
    with pytest.raises(RunError, match="'t' has other documents on the candidate's side"):
        comparability(base, changed(base, 3, doc_hash="x"))
    with pytest.raises(RunError, match="other documents"):
        comparability(base, dataclasses.replace(base, documents=base.documents[:4]))
