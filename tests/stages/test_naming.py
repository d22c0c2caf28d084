"""Who names a run's latents: nobody, a person, a language model behind a real local server, or two to compare."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diffharness
from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.latents.taxonomy import load_taxonomy
from diffharness.regression.blessing import label_hash
from diffharness.regression.scores import FinishedRun
from diffharness.report.schema import Latent, Report
from diffharness.stages.naming import check_annotators
from tests.latents.annotators.chat_server import Answer, ChatServer, Failure, array, is_grading, serve
from tests.latents.annotators.conftest import straight_to_the_local_server
from tests.tiny import ONLY_ACCOUNT, write_jsonl, write_taxonomy

__all__ = ["straight_to_the_local_server"]

NAMES = ("animals", "night")


def says(category: str) -> str:
    return json.dumps({"category": category, "explanation": f"the tokens are of {category}"})


def by_dogs(messages: list[dict[str, str]]) -> Answer:
    """Names a latent by how many dogs it is shown; finds any category in texts with a dog."""
    if is_grading(messages):
        return json.dumps([int("dog" in text) for text in array(messages)])
    shown = json.dumps(array(messages))
    return says(NAMES[shown.count("dog") % 2])


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve(by_dogs) as running:
        yield running


def named(report: Report) -> dict[int, Latent]:
    return {latent.index: latent for latent in report.latents if latent.category != "unclear"}


def labels(folder: Path, *lines: str, header: str = "latent,category,note", name: str = "labels.csv") -> Path:
    file = folder / name
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def account_of(report: Report) -> dict[str | None, int | None]:
    """Latents by category in the account of the first task."""
    return {c.category: c.n_latents for c in report.tasks[0].components if c.kind == "latents"}


def test_with_nobody_asked_nothing_has_a_name_and_the_report_says_so(again, tiny):
    report = again(annotator="none", ancestor=str(tiny.ancestor), **ONLY_ACCOUNT)
    assert {latent.category for latent in report.latents} == {"unclear"}
    assert {latent.evidence.annotator for latent in report.latents} == {"none"}
    assert {latent.evidence.reason for latent in report.latents} == {"nobody was asked (--annotator none)"}
    assert report.annotation is None
    assert (report.categories, report.categories_reason) == ((), "nobody was asked to name latents (--annotator none)")
    assert any("--annotator none" in note for note in report.run.notes)
    assert account_of(report) == {"unclear": 32}


def test_a_persons_labels_name_their_latents_and_the_account_uses_them(again, tmp_path):
    file = labels(tmp_path, "3,night,the dark", "5,Animals,", "7,unclear,", "9,,")
    report = again(annotator=f"file,{file}", **ONLY_ACCOUNT)
    assert {j: latent.category for j, latent in named(report).items()} == {3: "night", 5: "animals"}
    evidence = {j: report.latents[j].evidence for j in (3, 5, 9, 10)}
    assert {e.annotator for e in evidence.values()} == {"file: labels.csv"}
    assert [e.reason for e in evidence.values()] == [
        "the dark", "labelled by a person", "left empty in the file", "not in the file",
    ]  # fmt: skip
    assert account_of(report) == {"animals": 1, "night": 1, "unclear": 30}
    for task in (task for task in report.tasks if task.components):
        night = sum(c.contribution for c in task.components if c.category == "night")
        assert night == pytest.approx(report.latents[3].contributions.get(task.task, 0.0), abs=1e-9)
    assert report.annotation is not None
    assert (report.annotation.annotator, report.annotation.n_named) == ("file: labels.csv", 2)
    assert (report.annotation.n_unclear, report.annotation.n_calls) == (30, 0)


def test_the_names_of_an_earlier_run_are_taken_over_whole(again, first):
    """Without them a gate that holds two runs against each other holds other categories against each other."""
    before = FinishedRun.open(first)
    report = again(annotator=f"file,{first / 'latents.parquet'}", **ONLY_ACCOUNT)
    assert named(report), "nothing is shown by names that are all the same"
    assert label_hash(FinishedRun(first, report)) == label_hash(before)
    assert report.annotation is not None
    assert report.annotation.annotator == "file: run/latents.parquet"


def test_the_table_to_fill_in_is_left_once_and_never_touched_again(again, tmp_path):
    again(nu_error=0.3, **ONLY_ACCOUNT)
    table = tmp_path / "run" / "labels.csv"
    header, *rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    assert header[:3] == ["latent", "category", "note"]
    assert len(rows) == 32
    filled = "latent,category\n3,night\n"
    table.write_text(filled)
    assert named(again(nu_error=0.3, **ONLY_ACCOUNT)) != {3}
    assert set(named(again(annotator=f"file,{table}", **ONLY_ACCOUNT))) == {3}
    assert set(named(again(annotator=f"file,{table}", nu_error=0.4, **ONLY_ACCOUNT))) == {3}
    assert table.read_text() == filled


@pytest.mark.parametrize("name", ["labels.csv", "labels.txt", "LABELS.CSV"])
def test_labels_that_changed_rename_the_latents(again, ran, tmp_path, name):
    spec = f"file, {labels(tmp_path, '3,night', header='latent,category', name=name)}"
    again(annotator=spec, **ONLY_ACCOUNT)
    ran.clear()
    again(annotator=spec, **ONLY_ACCOUNT)
    assert ran == []
    labels(tmp_path, "4,night", header="latent,category", name=name)
    assert set(named(again(annotator=spec, **ONLY_ACCOUNT))) == {4}
    assert ran == ["latents baseline-candidate", "account", "checks", "documents", "flips", "report"]


def test_a_language_model_names_as_many_latents_as_it_may(again, server):
    report = again(annotator=server.spec, annotate=6, **ONLY_ACCOUNT)
    asked = [latent for latent in report.latents if not latent.evidence.reason.startswith("not among the 6")]
    assert len(asked) == 6
    assert set(named(report)) == {latent.index for latent in asked}
    assert {latent.category for latent in asked} <= set(NAMES)
    for latent in asked:
        assert latent.evidence.annotator == "lm: parrot-1"
        assert latent.evidence.reason == f"the tokens are of {latent.category}"
        detection = latent.evidence.detection
        assert detection is not None
        assert (0 <= detection.score <= 1, detection.chance) == (True, 0.5)
    found = report.annotation
    assert found is not None
    assert (found.annotator, found.n_named, found.n_unclear, found.n_asked) == ("lm: parrot-1", 6, 26, 6)
    assert found.n_calls == len(server.requests) == 12, "one to name and one to grade each"
    assert found.n_cached == 0
    assert (found.n_tokens or 0) > 100
    assert found.detection == pytest.approx(
        sum(latent.evidence.detection.score for latent in asked if latent.evidence.detection) / 6
    )
    assert sum(n or 0 for name, n in account_of(report).items() if name in NAMES) == 6


def test_prompts_do_not_tell_whose_a_latent_is(again, server):
    again(annotator=server.spec, annotate=6, **ONLY_ACCOUNT)
    for messages in server.prompts:
        text = json.dumps(messages).lower()
        assert not any(word in text for word in ("baseline", "candidate", "fine-tun", "specific to"))
        if not is_grading(messages):
            assert any(isinstance(piece, list) for shown in array(messages) for piece in shown), "where it is active"


def test_what_was_answered_is_not_asked_again(again, server, tmp_path, ran):
    before = again(annotator=server.spec, annotate=6, **ONLY_ACCOUNT)
    n_calls = len(server.requests)
    (tmp_path / "run" / "latents.json").unlink()
    ran.clear()
    assert again(annotator=server.spec, annotate=6, **ONLY_ACCOUNT) == before
    assert ran == ["latents baseline-candidate"]
    assert len(server.requests) == n_calls
    found = json.loads((tmp_path / "run" / "latents.json").read_text())["annotation"]
    assert (found["n_calls"], found["n_cached"]) == (0, n_calls)
    more = again(annotator=server.spec, annotate=8, **ONLY_ACCOUNT)
    assert len(named(more)) == 8
    assert 0 < len(server.requests) - n_calls <= 4


def test_answers_are_kept_without_prompts_or_keys(again, server, tmp_path):
    again(annotator=server.spec, annotate=3, **ONLY_ACCOUNT)
    kept = (tmp_path / "run" / "annotations" / "answers.jsonl").read_text()
    assert kept.count("\n") == 6
    assert "sk-test" not in kept
    assert "content" not in kept
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"sk-test" not in file.read_bytes(), file


def test_a_model_that_talks_nonsense_names_nothing(again):
    with serve(lambda _: "as you like it") as server:
        report = again(annotator=server.spec, annotate=2, **ONLY_ACCOUNT)
    assert named(report) == {}
    asked = [latent for latent in report.latents if not latent.evidence.reason.startswith("not among")]
    assert len(asked) == 2
    assert all(latent.evidence.reason == "the annotator's answers could not be used (3 tries)" for latent in asked)
    assert len(server.requests) == 6, "asked again twice"
    assert report.annotation is not None
    assert report.annotation.detection is None


def test_a_service_that_fails_stops_the_run_in_one_line_and_the_next_goes_on(again, server, tmp_path, ran):
    server.answer = lambda _: Failure(401, "who are you?")
    with pytest.raises(RunError, match="annotator parrot-1") as error:
        again(annotator=server.spec, annotate=2, **ONLY_ACCOUNT)
    assert "\n" not in str(error.value)
    assert "sk-test" not in str(error.value)
    server.answer = by_dogs
    ran.clear()
    assert len(named(again(annotator=server.spec, annotate=2, **ONLY_ACCOUNT))) == 2
    assert "train baseline-candidate" not in ran


def test_with_an_ancestor_the_model_names_its_latents_too(again, server, tiny, tmp_path):
    report = again(annotator=server.spec, annotate=2, ancestor=str(tiny.ancestor), **ONLY_ACCOUNT)
    for sides in ("ancestor-baseline", "ancestor-candidate", "ancestor-baseline-candidate"):
        body = json.loads((tmp_path / "run" / "crosscoder" / sides / "latents.json").read_text())
        assert sum(name in NAMES for name in body["categories"]) == 2
    assert {row.name for row in report.categories} == {*NAMES, "unclear"}


def test_two_annotators_are_compared_and_the_first_names(again, first, tmp_path):
    before = Report.load(first)
    rows = [f"{latent.index},{latent.category}" for latent in before.latents[:20]]
    same = again(annotator=["probe", f"file,{labels(tmp_path, *rows, header='latent,category')}"], **ONLY_ACCOUNT)
    assert [latent.category for latent in same.latents] == [latent.category for latent in before.latents]
    assert same.annotation is not None
    assert same.annotation.annotator == "probe"
    agreement = same.annotation.agreement
    assert agreement is not None
    assert (agreement.other, agreement.n) == ("file: labels.csv", 20)
    assert (agreement.kappa is None) == (agreement.reason is not None)
    assert agreement.kappa is None or agreement.kappa == pytest.approx(1)


def test_kappa_of_two_annotators_is_cohens(again, tmp_path):
    first = labels(tmp_path, *(f"{j},{NAMES[j % 2]}" for j in range(20)), header="latent,category", name="a.csv")
    second = labels(
        tmp_path, *(f"{j},{NAMES[j % 2 if j < 15 else 0]}" for j in range(18)), header="latent,category", name="b.csv"
    )
    report = again(annotator=[f"file,{first}", f"file,{second}"], **ONLY_ACCOUNT)
    assert report.annotation is not None
    agreement = report.annotation.agreement
    assert agreement is not None
    a = [j % 2 for j in range(18)]
    b = [j % 2 if j < 15 else 0 for j in range(18)]
    seen = sum(x == y for x, y in zip(a, b, strict=True)) / 18
    expected = (sum(a) * sum(b) + (18 - sum(a)) * (18 - sum(b))) / 18**2
    assert agreement.n == 18
    assert agreement.kappa == pytest.approx((seen - expected) / (1 - expected))
    assert agreement.kappa_interval is not None
    assert agreement.kappa_interval.low < agreement.kappa < agreement.kappa_interval.high


def test_annotators_that_judged_no_latent_in_common_say_so(again, tmp_path):
    files = [labels(tmp_path, f"{j},night", header="latent,category", name=f"{j}.csv") for j in (3, 4)]
    report = again(annotator=[f"file,{file}" for file in files], **ONLY_ACCOUNT)
    assert report.annotation is not None
    agreement = report.annotation.agreement
    assert agreement is not None
    assert (agreement.n, agreement.kappa) == (0, None)
    assert agreement.reason is not None
    assert "no latent" in agreement.reason


@pytest.mark.parametrize("order", [("probe", "{server}"), ("{server}", "probe")], ids=" then ".join)
def test_probes_and_a_model_can_be_compared_beside_an_ancestor(again, server, tiny, order):
    specs = [spec.format(server=server.spec) for spec in order]
    report = again(annotator=specs, annotate=3, ancestor=str(tiny.ancestor), **ONLY_ACCOUNT)
    assert report.annotation is not None
    assert report.annotation.agreement is not None
    assert report.annotation.agreement.n == 3
    assert {report.annotation.annotator, report.annotation.agreement.other} == {"probe", "lm: parrot-1"}


@pytest.fixture
def refused(small, tmp_path, monkeypatch) -> Callable[..., str]:
    """The one line in which a run is refused, before any work."""
    monkeypatch.setattr(harness, "evaluate", lambda *_, **__: pytest.fail("evaluated"))

    def run(**changes: Any) -> str:
        with pytest.raises(UsageError) as error:
            diffharness.run(diffharness.RunConfig.make({**small, "output": tmp_path / "run", **changes}))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()
        return str(error.value)

    return run


def probes(folder: Path, **texts: str) -> Path:
    rows: list[dict[str, object]] = [
        {"text": f"{word} number {i}", "category": name} for name, word in texts.items() for i in range(6)
    ]
    return write_jsonl(folder / "own.jsonl", rows)


def test_a_taxonomy_and_probes_of_ones_own_name_latents(again, tmp_path):
    rows: list[dict[str, object]] = [
        {"text": f"{word} {more}", "category": name}
        for name, word in (("weather", "night"), ("pets", "dog"), ("weather", "day"))
        for more in ("the river runs", "a tree is red", "one two three", "good old house", "it is in", "then and it")
    ]
    taxonomy = write_taxonomy(tmp_path / "own.yaml", "pets", "weather", "sports")
    report = again(probes=write_jsonl(tmp_path / "own.jsonl", rows), taxonomy=taxonomy, **ONLY_ACCOUNT)
    assert {latent.category for latent in report.latents} <= {"pets", "weather", "unclear"}
    best = {latent.evidence.best for latent in report.latents if latent.status != "dead"}
    assert {"pets", "weather"} <= best
    assert "sports" not in best, "the taxonomy may know more than there are probes of"


def test_a_probe_of_a_category_that_the_taxonomy_lacks_is_refused_by_line(refused, tmp_path):
    message = refused(probes=probes(tmp_path, animals="dog", nights="night"))
    assert "own.jsonl, line 7: category 'nights' is not in the taxonomy; did you mean 'night'?" in message


def test_builtin_probes_with_a_taxonomy_of_ones_own_need_names_in_common(refused, tmp_path):
    message = refused(probes=None, taxonomy=write_taxonomy(tmp_path / "own.yaml", "pets", "weather"))
    assert "none is of the taxonomy's categories; give --probes of your own" in message


def test_without_probes_the_builtin_ones_name(again, ran):
    report = again(probes=None, taxonomy=None, **ONLY_ACCOUNT)
    assert ran == ["latents baseline-candidate", "account", "checks", "documents", "flips", "report"]
    assert any("built-in English probes" in note for note in report.run.notes)
    judged = [latent.evidence for latent in report.latents if latent.evidence.best is not None]
    assert judged
    assert {evidence.best for evidence in judged} <= set(load_taxonomy().names)
    assert all(evidence.contrast_share is not None for evidence in judged), "the built-in probes have contrasts"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("prob", "did you mean 'probe'?"),
        ("file,", "names no table; give file,PATH.csv"),
        ("file,{tmp}/none.csv", "annotations {tmp}/none.csv: can not be read"),
        ("file,{tmp}/columns.csv", "column 'latent' is missing"),
        ("file,{tmp}/unknown.csv", "line 2: category 'dogs' is not in the taxonomy"),
        ("file,{tmp}/number.csv", "line 2: latent 'x' is no number"),
        ("local-chat-completions", "has no arguments of the form key=value"),
    ],
    ids=lambda value: value.partition(",")[0] if "," in value else "",
)
def test_an_annotator_that_can_not_work_is_refused_before_any_work(refused, tmp_path, spec, message):
    labels(tmp_path, "1,night", header="number,category", name="columns.csv")
    labels(tmp_path, "1,dogs", header="latent,category", name="unknown.csv")
    labels(tmp_path, "x,night", header="latent,category", name="number.csv")
    assert message.format(tmp=tmp_path) in refused(annotator=spec.format(tmp=tmp_path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("local-chat-completion,model=m,base_url=http://127.0.0.1:1/v1", "is no model of lm-eval's registry; did you"),
        ("local-chat-completions,model=m", "has no address; add base_url="),
        ("local-chat-completions,base_url=http://127.0.0.1:1/v1", "names no model; add model=NAME"),
        ("local-chat-completions,model=m,base_url=nowhere", "is no address; give http://"),
        ("hf,pretrained={tmp}/none", "{tmp}/none does not exist"),
    ],
    ids=lambda value: value.partition(",")[0] if "," in value else "",
)
def test_an_annotating_model_that_can_not_work_is_refused_before_any_work(refused, tmp_path, spec, message):
    assert message.format(tmp=tmp_path) in refused(annotator=spec.format(tmp=tmp_path))


def test_labels_are_looked_through_where_the_number_of_latents_is_not_known_yet(small, tmp_path):
    """It was once taken for the largest number there is, and filled the memory."""
    file = labels(tmp_path, "70000,night", header="latent,category")
    check_annotators(diffharness.RunConfig.make({**small, "latents": None, "annotator": f"file,{file}"}))


def test_labels_of_latents_that_there_are_not_are_refused(refused, tmp_path):
    file = labels(tmp_path, "32,night", header="latent,category")
    assert "latent 32 is out of range; they go from 0 to 31" in refused(annotator=f"file,{file}")


def test_a_copy_of_a_runs_folder_asks_nothing_again(first, small, server, tmp_path):
    shutil.copytree(first, tmp_path / "one")
    options = {**small, "annotator": server.spec, "annotate": 2, **ONLY_ACCOUNT}
    one = diffharness.run(diffharness.RunConfig.make({**options, "output": tmp_path / "one"}))
    n_calls = len(server.requests)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "latents.json").unlink()
    two = diffharness.run(diffharness.RunConfig.make({**options, "output": tmp_path / "two"}))
    assert len(server.requests) == n_calls
    assert two.latents == one.latents
