"""What a finished run says of its latents, recomputed from the models, the texts and the stages' own files."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch
from transformers import AutoModelForCausalLM

import diffharness
from diffharness.activations.store import ActivationStore
from diffharness.crosscoder import checkpoint
from diffharness.evaluation.scores import Evaluation
from diffharness.report.schema import CategoryShift, Example, Interval, Latent, Report
from tests.tiny import ONLY_ACCOUNT, tokenizer

LAYER = 1
MAIN = ("baseline", "candidate")
TASKS = {"tiny_choice", "tiny_word", "tiny_text", "tiny_answer"}
COLUMNS = {
    "index": int, "status": str, "status_by_norm": str, "status_reason": str, "side": str, "category": str,
    "reason": str, "annotator": str, "auroc": float, "q_value": float, "detection": float, "delta_norm": float,
    "nu_reconstruction": float, "nu_reconstruction_low": float, "nu_reconstruction_high": float, "nu_error": float,
    "nu_error_low": float, "nu_error_high": float, "decoder_cosine": float, "density": float, "mean_activation": float,
    "n_active": int, "n_texts": int, "first_token_share": float, "special_token_share": float,
    "template_token_share": float, "rate_baseline": float, "rate_candidate": float, "mean_baseline": float,
    "mean_candidate": float,
}  # fmt: skip
PERHAPS_EMPTY = {"matched", "contrast_share", "association", "association_p_adjusted", "is_clear"}


@pytest.fixture(scope="module")
def report(tiny_run) -> Report:
    return Report.load(tiny_run)


@pytest.fixture(scope="module")
def fired(report) -> list[Latent]:
    return [latent for latent in report.latents if latent.status != "dead"]


@dataclass
class Reread:
    """Dense codes of texts, read again with plain transformers."""

    of_documents: dict[tuple[str, int], dict[tuple[int, ...], np.ndarray]]
    """Activations (tokens, latents) of every distinct sequence of a document."""
    of_texts: dict[str, np.ndarray]
    """The same of the corpus, by source."""


@pytest.fixture(scope="module")
def reread(tiny, tiny_options, tiny_run) -> Reread:
    """Every sequence by itself through both whole models; position 0 is never coded."""
    crosscoder = checkpoint.load(tiny_run / "crosscoder")
    norm_L = crosscoder.decoder_norm_LM.sum(dim=-1).double()
    models = [AutoModelForCausalLM.from_pretrained(tiny_options[side]).eval() for side in MAIN]
    known: dict[tuple[int, ...], np.ndarray] = {}

    @torch.no_grad()
    def activation(ids: tuple[int, ...]) -> np.ndarray:
        if ids not in known:
            read = [m(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER + 1][0, 1:] for m in models]
            f_NL = crosscoder.code(crosscoder.read(crosscoder.normalize(torch.stack(read, dim=1))))
            known[ids] = (f_NL.double() * norm_L).numpy()
        return known[ids]

    documents: dict[tuple[str, int], dict[tuple[int, ...], np.ndarray]] = defaultdict(dict)
    for side in MAIN:
        for reading in Evaluation.load(tiny_run / "evaluation" / side).ledger:
            if len(reading.ids) > 1:
                documents[reading.task, reading.doc_id][reading.ids] = activation(reading.ids)
    words, texts = tokenizer(), {}
    for number, line in enumerate(tiny.corpus.read_text().splitlines(), start=1):
        texts[f"{tiny.corpus.name}:{number}"] = activation(tuple(words(json.loads(line)["text"])["input_ids"]))
    return Reread(documents, texts)


def stage_of(run: Path, *sides: str) -> dict[str, Any]:
    return json.loads((run / "crosscoder" / "-".join(sides) / "latents.json").read_text())


def by_protocol(report: Report) -> dict[str, list[CategoryShift]]:
    found: dict[str, list[CategoryShift]] = defaultdict(list)
    for row in report.categories:
        found[row.protocol].append(row)
    return found


PROTOCOLS = {
    "two crosscoders": (("ancestor", "baseline"), ("ancestor", "candidate")),
    "three-way": (("ancestor", *MAIN), ("ancestor", *MAIN)),
}


def test_an_ancestor_gives_both_protocols_and_three_way_is_read_first(report):
    rows = by_protocol(report)
    assert set(rows) == set(PROTOCOLS)
    assert {p: {row.is_default for row in found} for p, found in rows.items()} == {
        "two crosscoders": {False}, "three-way": {True},
    }  # fmt: skip
    for found in rows.values():
        assert [row.name for row in found] == ["animals", "night", "unclear"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counts_and_masses_of_the_shift_are_those_of_the_latents(tiny_run, report, protocol):
    for side, sides in zip(MAIN, PROTOCOLS[protocol], strict=True):
        body = stage_of(tiny_run, *sides)
        own, names = body["tuned"][side], body["categories"]
        assert len(names) == len(own["is_specific"]) == len(own["acquired"]) == 32
        counts = Counter(name for name, counts in zip(names, own["is_specific"], strict=True) if counts)
        assert sum(counts.values()) == own["counts"][f"{side}-specific"]
        total = math.fsum(own["acquired"])
        assert total > 0
        for row in by_protocol(report)[protocol]:
            assert getattr(row, f"n_{side}") == counts[row.name]
            assert getattr(row, f"total_{side}") == sum(counts.values())
            mass = math.fsum(m for m, name in zip(own["acquired"], names, strict=True) if name == row.name)
            assert getattr(row, f"mass_{side}") == pytest.approx(mass / total, abs=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shares_of_mass_are_whole_and_every_row_of_the_shift_says_what_it_knows(report, protocol):
    rows = by_protocol(report)[protocol]
    for side in MAIN:
        assert math.fsum(getattr(row, f"mass_{side}") for row in rows) == pytest.approx(1)
    for row in rows:
        assert row.mass_change == pytest.approx(100 * (row.mass_candidate - row.mass_baseline))
        assert row.mass_interval is not None
        assert -100 <= row.mass_interval.low <= row.mass_interval.high <= 100
        for words in (row.conclusion, row.mass_conclusion):
            assert words.startswith(("up: ", "down: ", "too few to tell: "))
        assert (row.change is None) == (row.change_reason is not None)
        assert (row.n_matched_baseline, row.n_matched_candidate) == (None, None), "there is one seed"
        if row.p_value is None:
            assert row.n_baseline + row.n_candidate == 0 or 0 in (row.total_baseline, row.total_candidate)
            continue
        table = [
            [row.n_candidate, row.total_candidate - row.n_candidate],
            [row.n_baseline, row.total_baseline - row.n_baseline],
        ]
        assert row.p_value == pytest.approx(scipy.stats.fisher_exact(table).pvalue)
        assert row.q_value is not None
        assert row.q_value >= row.p_value - 1e-12


def test_every_latent_says_why_it_is_what_it_is(report, fired):
    statuses = get_args(type(report.latents[0]).model_fields["status"].annotation)
    assert [latent.index for latent in report.latents] == list(range(32))
    for latent in report.latents:
        assert latent.status in statuses
        assert latent.status_reason
        assert latent.evidence.reason
        assert latent.evidence.annotator == "probe"
        assert (latent.side is not None) == latent.status.endswith("-specific")
        assert latent.side is None or latent.status == f"{latent.side}-specific"
        assert latent.matched is None
    assert len(fired) >= 20
    for latent in (latent for latent in report.latents if latent.status == "dead"):
        assert (latent.n_active, latent.n_texts, latent.density, latent.examples) == (0, 0, 0, ())
        assert (latent.nu_reconstruction, latent.nu_error, latent.use) == (None, None, None)
        assert latent.status_reason == "it never fired"
        assert latent.category == "unclear"


def test_specific_latents_are_those_with_both_ratios_below_their_thresholds(report):
    assert any(latent.side == "candidate" for latent in report.latents)
    for latent in report.latents:
        nu_reconstruction, nu_error = latent.nu_reconstruction, latent.nu_error
        below = nu_reconstruction is not None and nu_reconstruction < 0.5 and nu_error is not None and nu_error < 0.2
        assert (latent.side is not None) == (below and latent.n_active >= 20)
        assert ("are below 0.5 and 0.2" in latent.status_reason) == below


def test_ratios_have_intervals_where_enough_documents_have_the_latent(report):
    enough = [latent for latent in report.latents if latent.n_texts >= 50]
    assert len(enough) >= 15
    for latent in enough:
        for name in ("nu_reconstruction", "nu_error"):
            value, interval = getattr(latent, name), getattr(latent, f"{name}_interval")
            assert value is not None
            assert isinstance(interval, Interval)
            assert interval.low < value < interval.high
    for latent in report.latents:
        assert latent.n_texts >= 5 or latent.nu_error_interval is None


def test_shares_and_densities_are_shares(fired):
    for latent in fired:
        shares = (latent.first_token_share, latent.special_token_share, latent.template_token_share)
        assert all(share is not None and 0 <= share <= 1 for share in shares), latent.index
        assert 0 <= sum(share for share in shares if share is not None) <= 1 + 1e-9
        assert set(latent.density_by_task) <= TASKS
        assert all(0 < density <= 1 for density in latent.density_by_task.values())
    assert {task for latent in fired for task in latent.density_by_task} == TASKS


def test_activity_is_that_of_the_training_texts_read_again(tiny_run, report, reread):
    texts = ActivationStore.open(tiny_run / "activations").texts
    codes = [reread.of_texts[text.source][: len(text.ids) - 1] for text in texts]
    n_tokens = sum(map(len, codes))
    for latent in report.latents:
        own = [f_NL[:, latent.index] for f_NL in codes]
        assert latent.n_active == pytest.approx(sum((f > 0).sum() for f in own), abs=1)
        assert latent.n_texts == pytest.approx(sum((f > 0).any() for f in own), abs=1)
        assert latent.density == latent.n_active / n_tokens
        if latent.n_active:
            mass = sum(f.sum() for f in own)
            assert latent.mean_activation == pytest.approx(mass / latent.n_active, rel=0.01)
            after_bos = sum(f[0] for f in own) / mass
            assert latent.first_token_share == pytest.approx(after_bos, abs=0.01), "the first position after <bos>"
            assert latent.special_token_share == 0


@pytest.mark.parametrize("task", sorted(TASKS))
def test_density_of_a_task_is_that_of_its_documents_read_again(report, reread, task):
    """A sequence counts once in each of its documents."""
    f_NL = np.concatenate([f for (name, _), own in reread.of_documents.items() if name == task for f in own.values()])
    expected_L = (f_NL > 0).mean(axis=0)
    found_L = [latent.density_by_task.get(task, 0.0) for latent in report.latents]
    assert found_L == pytest.approx(expected_L.tolist(), abs=1.5 / len(f_NL))


def examples(report: Report) -> Iterator[tuple[Latent, Example]]:
    return ((latent, example) for latent in report.latents for example in latent.examples)


def test_examples_fit_their_tokens_and_are_of_known_texts(report, tiny):
    kinds = Counter(example.kind for _, example in examples(report))
    assert set(kinds) == {"top", "quantile", "near miss"}
    for _, example in examples(report):
        assert len(example.tokens) == len(example.values) > 0
        assert len(example.baseline) in (0, len(example.tokens))
        assert len(example.candidate) == len(example.baseline)
        name, _, number = example.source.partition(":")
        assert name in {tiny.corpus.name, *TASKS}
        assert number.isdigit()
        if example.kind == "near miss":
            assert not any((*example.values, *example.baseline, *example.candidate))
        else:
            assert max(example.values) > 0
            assert example.baseline
        assert (example.quantile is not None) == (example.kind == "quantile")


def test_examples_have_the_activation_that_their_text_gives(tiny, report, reread):
    words = tokenizer()
    lines = tiny.corpus.read_text().splitlines()
    n_checked = 0
    for latent, example in examples(report):
        if example.source not in reread.of_texts:
            continue
        expected = reread.of_texts[example.source][:, latent.index]
        shown = json.loads(lines[int(example.source.partition(":")[2]) - 1])["text"]
        assert "".join(example.tokens).strip() == shown
        assert len(words(shown)["input_ids"]) - 1 == len(example.values), "all but the first position"
        assert example.values == pytest.approx(expected.tolist(), rel=2e-3, abs=2e-3)
        n_checked += 1
    assert n_checked > 100


def test_top_examples_are_the_strongest_texts_and_lie_in_order(report, reread, fired):
    of_documents = [f for own in reread.of_documents.values() for f in own.values()]
    for latent in fired:
        top = [max(example.values) for example in latent.examples if example.kind == "top"]
        peaks = sorted((f_NL[:, latent.index].max() for f_NL in of_documents), reverse=True)
        assert top == sorted(top, reverse=True)
        assert top[0] >= peaks[0] * (1 - 2e-3)
        quantiles = [example.quantile for example in latent.examples if example.kind == "quantile"]
        assert quantiles == sorted(q for q in quantiles if q is not None)


def test_neighbours_and_promoted_tokens_are_of_other_latents_and_real_tokens(report, fired):
    vocabulary = set(tokenizer().get_vocab())
    for latent in fired:
        assert latent.neighbours
        assert latent.index not in {n.index for n in latent.neighbours}
        cosines = [n.cosine for n in latent.neighbours]
        assert cosines == sorted(cosines, reverse=True)
        assert all(-1 <= c <= 1 for c in cosines)
        assert set(latent.lens) == set(MAIN)
        for lens in latent.lens.values():
            assert set(lens.up.tokens) | set(lens.down.tokens) <= vocabulary
            assert list(lens.up.values) == sorted(lens.up.values, reverse=True)
            assert list(lens.down.values) == sorted(lens.down.values)


def test_use_is_a_share_with_an_interval_around_its_change(report):
    used = [latent.use for latent in report.latents if latent.use is not None]
    assert len(used) >= 15
    for use in used:
        assert 0 <= use.rate_baseline <= 1
        assert 0 <= use.rate_candidate <= 1
        assert use.rate_interval.low <= use.rate_candidate - use.rate_baseline <= use.rate_interval.high
        assert use.mean_interval.low <= use.mean_candidate - use.mean_baseline <= use.mean_interval.high
        assert use.q_value is None or 0 <= use.q_value <= 1


def test_what_changed_without_being_specific_is_said(report):
    assert report.changed is not None
    counts = Counter(latent.status for latent in report.latents)
    assert report.changed.n_specific_baseline == counts["baseline-specific"]
    assert report.changed.n_specific_candidate == counts["candidate-specific"]
    assert report.changed.sentence.endswith(".")
    assert len(report.changed.latents) <= 12
    assert {report.latents[index].status for index in report.changed.latents} <= {"shared"}


def test_the_table_of_latents_is_flat_and_says_what_the_report_says(tiny_run, report):
    table = pq.read_table(tiny_run / "latents.parquet")
    kinds = {int: pa.types.is_integer, float: pa.types.is_floating, str: pa.types.is_string}
    assert set(table.column_names) == set(COLUMNS) | PERHAPS_EMPTY
    for name, kind in COLUMNS.items():
        assert kinds[kind](table.schema.field(name).type), name
    assert not any(pa.types.is_nested(field.type) for field in table.schema)
    for row, latent in zip(table.to_pylist(), report.latents, strict=True):
        same = set(row) & set(Latent.model_fields)
        assert {name: row[name] for name in same} == {name: getattr(latent, name) for name in same}
        assert row["auroc"] == latent.evidence.auroc
        interval = latent.nu_error_interval
        assert (row["nu_error_low"], row["nu_error_high"]) == (
            (None, None) if interval is None else (interval.low, interval.high)
        )
        assert row["rate_candidate"] == (None if latent.use is None else latent.use.rate_candidate)


def specific(report: Report) -> set[int]:
    return {latent.index for latent in report.latents if latent.side is not None}


def test_wider_thresholds_make_more_latents_specific_and_train_nothing_again(first, again, ran):
    before = specific(Report.load(first))
    wide = again(nu_reconstruction=2.0, nu_error=2.0, **ONLY_ACCOUNT)
    assert ran == ["latents baseline-candidate", "account", "checks", "documents", "flips", "report"]
    narrow = again(nu_reconstruction=0.05, nu_error=0.05, **ONLY_ACCOUNT)
    assert specific(narrow) < before <= specific(wide)
    assert specific(narrow) < specific(wide)
    for found, threshold in ((narrow, 0.05), (wide, 2.0)):
        for latent in found.latents:
            ratios = [nu for nu in (latent.nu_error, latent.nu_reconstruction) if nu is not None]
            below = len(ratios) == 2 and max(ratios) < threshold
            assert (latent.index in specific(found)) == (below and latent.n_active >= 20)
        assert found.changed is not None
        assert found.changed.n_specific_candidate == sum(latent.side == "candidate" for latent in found.latents)


def test_another_seed_marks_the_latents_that_it_found_again(tiny, small, tmp_path):
    options = {**small, "ancestor": str(tiny.ancestor), "tasks": ["tiny_choice"], "train_tokens": 600, "latents": 24}
    options |= {"seeds": 2, **ONLY_ACCOUNT, "output": tmp_path / "run"}
    report = diffharness.run(diffharness.RunConfig.make(options))
    assert all(latent.matched in (True, False) for latent in report.latents)
    assert not any(latent.matched for latent in report.latents if latent.status == "dead")
    share = np.mean([bool(latent.matched) for latent in report.latents if latent.status != "dead"])
    stability = report.quality[0].stability
    assert stability is not None
    assert share == pytest.approx(stability.share, abs=0.1), "of the latents that fire, not of held-out texts alone"
    for protocol, both in PROTOCOLS.items():
        for side, sides in zip(MAIN, both, strict=True):
            body = stage_of(tmp_path / "run", *sides)
            marked = Counter(
                name
                for name, specific, matched in zip(
                    body["categories"], body["tuned"][side]["is_specific"], body["is_matched"], strict=True
                )
                if specific and matched
            )
            for row in by_protocol(report)[protocol]:
                assert getattr(row, f"n_matched_{side}") == marked[row.name]
    table = pq.read_table(tmp_path / "run" / "latents.parquet", columns=["matched"])
    assert pa.types.is_boolean(table.schema.field("matched").type)


def test_latents_of_a_loaded_crosscoder_have_cards_too(first, small, tmp_path):
    options = {key: value for key, value in small.items() if key not in ("latents", "k")}
    options |= {"crosscoder": first / "crosscoder", **ONLY_ACCOUNT, "output": tmp_path / "run"}
    report = diffharness.run(diffharness.RunConfig.make(options))
    fired = [latent for latent in report.latents if latent.status != "dead"]
    assert fired
    assert all(latent.examples and latent.neighbours and latent.lens for latent in fired)


def test_streamed_activations_give_the_latents_of_stored_ones(first, small, tmp_path):
    """The same crosscoder, so that only the reading differs."""
    options = {key: value for key, value in small.items() if key not in ("latents", "k")}
    options |= {"crosscoder": first / "crosscoder", **ONLY_ACCOUNT, "stream": True, "output": tmp_path / "run"}
    found, before = diffharness.run(diffharness.RunConfig.make(options)).latents, Report.load(first).latents
    assert [latent.status for latent in found] == [latent.status for latent in before]
    for one, other in zip(found, before, strict=True):
        assert one.n_active == pytest.approx(other.n_active, abs=1)
        assert one.nu_error == pytest.approx(other.nu_error, abs=1e-3)
        assert [e.source for e in one.examples if e.kind == "top"] == [
            e.source for e in other.examples if e.kind == "top"
        ]
