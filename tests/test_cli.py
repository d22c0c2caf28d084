"""Every failure a user can cause exits with one line that names the thing and the remedy; --help stays light."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from lm_eval.tasks import TaskManager

from diffharness import cli
from diffharness.errors import RunError
from diffharness.evaluation import harness
from tests import tiny as made

HEAVY = (
    "torch", "lm_eval", "transformers", "nnsight", "pydantic", "numpy", "scipy", "pyarrow", "altair", "jinja2", "rich",
)  # fmt: skip
COMMANDS = ["demo", "init", "run", "layers", "activations", "crosscoder", "report", "schema"]
INNER = [f"crosscoder {name}" for name in ("train", "quality", "convert", "push")]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


def flags(options: dict[str, Any]) -> list[str]:
    found = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            found += [f"--{name.replace('_', '-')}", str(one)]
    return found


@pytest.fixture(scope="module")
def bad(tiny, tmp_path_factory) -> Path:
    """A folder of things that can not work."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "no_config").mkdir()
    (folder / "file").write_text("")
    (folder / "one_text.jsonl").write_text('{"text": "the dog"}\n')
    (folder / "no_text.jsonl").write_text('{"text": "the dog"}\n{"texts": 1}\n')
    (folder / "no_utf8.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "typo.yaml").write_text("latens: 3\n")
    (folder / "list.yaml").write_text("- 1\n")
    (folder / "labels.csv").write_text("latent,category\n1,dogs\n")
    made.save_model(folder / "wide", seed=3, hidden_size=32)
    shutil.copytree(tiny.candidate, folder / "other_ids")
    made.tokenizer([*reversed(made.WORDS)]).save_pretrained(folder / "other_ids")
    (folder / "tasks").mkdir()
    settings = {"output_type": "loglikelihood", "doc_to_text": "{{prompt}}", "doc_to_target": "{{word}}"}
    made.write_task(folder / "tasks", "tiny_empty", [], **settings, metric_list=made.metrics("acc"))
    rows: list[dict[str, object]] = [{"prompt": "the", "word": "dog"}]
    filtered = {**settings, "process_docs": "!function none.keep_none"}
    made.write_task(folder / "tasks", "tiny_filtered", rows, **filtered, metric_list=made.metrics("acc"))
    text = (
        (folder / "tasks" / "tiny_filtered.yaml")
        .read_text()
        .replace("'!function none.keep_none'", "!function none.keep_none")
    )
    (folder / "tasks" / "tiny_filtered.yaml").write_text(text)
    (folder / "tasks" / "none.py").write_text("def keep_none(docs):\n    return docs.filter(lambda _: False)\n")
    return folder


def included_only(include_path: list[str] | None = None, include_defaults: bool = True) -> TaskManager:
    """Tasks without lm-eval's own fourteen thousand, which take it seconds to read."""
    del include_defaults
    return TaskManager(include_path=include_path, include_defaults=False)


CASES: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "unknown task": ({"tasks": "tiny_choise"}, ("'tiny_choise' is unknown", "'tiny_choice'", "lm-eval ls")),
    "missing model folder": ({"candidate": "{bad}/none"}, ("candidate's folder {bad}/none does not exist", "give a")),
    "folder without config": ({"ancestor": "{bad}/no_config"}, ("ancestor's folder", "no config.json", "give a")),
    "model arguments without a model": ({"candidate": "dtype=float32"}, ("name no model", "add pretrained=")),
    "layer out of range": ({"layer": "3"}, ("--layer 3 is out of range", "layers 0 to 2")),
    "layer no number": ({"layer": "nan"}, ("--layer 'nan' is not a layer", "index from 0 to 2")),
    "other width": ({"candidate": "{bad}/wide"}, ("candidate has hidden size 32", "models of one architecture")),
    "other tokenizer": ({"candidate": "{bad}/other_ids"}, ("tokenizers of baseline and candidate differ", "compare")),
    "empty task": ({"include_path": "{bad}/tasks", "tasks": "tiny_empty"}, ("'tiny_empty' has no documents", "check")),
    "task of no documents": ({"include_path": "{bad}/tasks", "tasks": "tiny_filtered"}, ("has no documents", "check")),
    "missing task folder": ({"include_path": "{bad}/none"}, ("--include-path {bad}/none is not a folder", "give")),
    "unknown key": ({"config": "{bad}/typo.yaml"}, ("typo.yaml: unknown key 'latens'", "did you mean 'latents'")),
    "no mapping": ({"config": "{bad}/list.yaml"}, ("list.yaml is not a mapping", "diffharness init")),
    "output below a file": ({"output": "{bad}/file/run"}, ("--output {bad}/file/run can not be written", "choose")),
    "missing corpus": ({"corpus": "{bad}/none.jsonl"}, ("--corpus {bad}/none.jsonl is not a file", "give a JSONL")),
    "empty corpus": ({"corpus": "{bad}/empty.jsonl"}, ("empty.jsonl is empty", "give a JSONL")),
    "corpus without text": ({"corpus": "{bad}/no_text.jsonl"}, ("no_text.jsonl, line 2", "with a `text`")),
    "corpus of other bytes": ({"corpus": "{bad}/no_utf8.jsonl"}, ("no_utf8.jsonl, line 1", "with a `text`")),
    "corpus of one text": ({"corpus": "{bad}/one_text.jsonl"}, ("one_text.jsonl holds one text", "at least two")),
    "missing probes": ({"probes": "{bad}/none.jsonl"}, ("probes {bad}/none.jsonl", "give a UTF-8 JSONL")),
    "probes without category": ({"probes": "{bad}/one_text.jsonl"}, ("line 1: 'category' is missing", "write lines")),
    "missing taxonomy": ({"taxonomy": "{bad}/none.yaml"}, ("{bad}/none.yaml: can not be read", "give a UTF-8")),
    "taxonomy of something else": ({"taxonomy": "{bad}/list.yaml"}, ("holds no list of categories", "write 'categor")),
    "unknown annotator": ({"annotator": "probes"}, ("'probes' is none that there is", "did you mean 'probe'")),
    "annotator without arguments": (
        {"annotator": "local-chat-completions"}, ("'local-chat-completions' has no arguments of the form key=value",),
    ),
    "missing labels": ({"annotator": "file,{bad}/none.csv"}, ("annotations {bad}/none.csv: can not be read", "give")),
    "labels of another category": (
        {"annotator": "file,{bad}/labels.csv"}, ("labels.csv, line 2: category 'dogs' is not in the taxonomy",),
    ),
    "three annotators": ({"annotator": ["probe", "probe", "probe"]}, ("give one, or two to compare",)),
    "nobody and somebody": ({"annotator": ["probe", "none"]}, ("none stands alone",)),
    "threshold of nothing": ({"nu_error": "0"}, ("nu_error: Input should be greater than 0",)),
    "nobody to ask about": ({"annotate": "0"}, ("annotate: Input should be greater than or equal to 1",)),
    "crosscoder that is not there": (
        {"crosscoder": "{bad}/none", "latents": None, "k": None}, ("{bad}/none: no such folder or file", "check the"),
    ),
    "crosscoder that is out of reach": (
        {"crosscoder": "owner/nothing", "latents": None, "k": None}, ("owner/nothing can not be reached from here",),
    ),
    "crosscoder and options of training": (
        {"crosscoder": "x"}, ("latents is of training, but crosscoder x is loaded", "leave one of the two out"),
    ),
    "code norm of nothing": ({"code_norm": "sum"}, ("code_norm says how a file is read", "give the file")),
    "more dedicated than there are": ({"dedicated": "20"}, ("are 40 latents, more than the 32 that there are",)),
    "groups above all": ({"groups": "8,64"}, ("--groups 8,64 must ascend from 1 to at most the 32 latents",)),
    "groups with a penalty": ({"groups": "8", "sparsity": "l1"}, ("groups go with batch_topk and topk",)),
    "k above the default": ({"k": "65", "latents": None}, ("--k 65 is above the 64 latents that there are",)),
    "auto among several": ({"layer": "auto+1"}, ("layer auto+1: auto chooses one layer; give it alone",)),
    "layer of another name": ({"layer": "automatic"}, ("--layer 'automatic' is not a layer", "index from 0 to 2")),
    "too few documents for the layers": (
        {"depth_documents": "7"}, ("depth_documents: Input should be greater than or equal to 8",),
    ),
    "account of nothing": (
        {"attribution_documents": "0"}, ("attribution_documents: Input should be greater than or equal to 1",),
    ),
    "clusters of nothing": (
        {"cluster": "chapter"}, ("--cluster 'chapter' is a field of no task's documents", "tiny_word"),
    ),
    "so few random sets": ({"random_sets": "18"}, ("no claim can beat chance at 5 %", "at least 19, or 0 to leave")),
    "Shapley values of something": ({"shapley": "some"}, ("'some' is not one of 'likelihood', 'all', 'none'",)),
    "ablated category that is none": ({"ablate": "nihgt"}, ("--ablate 'nihgt' is no category", "did you mean 'night'")),
    "ablated latent that is none": ({"ablate": "32"}, ("--ablate 32: the latents are numbered 0 to 31",)),
    "several layers": ({"layer": "0+1"}, ("--layer 0+1 names 2 layers, but an account is at one",)),
    "k above latents": ({"k": "64"}, ("k 64 is above latents 32", "lower k or raise latents")),
    "unknown metric": ({"metric": "acc_norn"}, ("'acc_norn' is a metric of no task", "'acc_norm'", "bits_per_byte")),
    "unknown filter": ({"metric": "acc,strict"}, ("'acc,strict' is a metric of no task", "acc,none")),
    "one recording": ({"baseline_results": "{bad}"}, ("go together", "give both or neither")),
    "no recording": (
        {"baseline_results": "{bad}", "candidate_results": "{bad}"},
        ("--baseline-results {bad} holds no results of lm-eval", "diffharness lm-eval run"),
    ),
    "no number": ({"latents": "many"}, ("'many' is not a valid integer", "diffharness run --help")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_before_any_work_and_leaves_nothing(tiny_options, bad, tmp_path, monkeypatch, case):
    monkeypatch.setattr(harness, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    monkeypatch.setattr(harness, "TaskManager", included_only)
    changes, expected = CASES[case]
    options = {**tiny_options, "output": tmp_path / "new" / "run", **changes}
    options |= {n: value if isinstance(value, list) else str(value).format(bad=bad) for n, value in changes.items()}
    result = call(
        "run", *flags({name: value for name, value in options.items() if changes.get(name, value) is not None})
    )
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert [x for x in result.stderr.splitlines() if not x.startswith("✓")] == [line]
    assert line.startswith("diffharness: ")
    for part in expected:
        assert part.format(bad=bad) in line
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_altogether_is_named(tmp_path):
    for arguments, message in (
        (["--baseline", "a", "--tasks", "t"], "candidate is missing; give a folder"),
        (["--baseline", "a", "--candidate", "b"], "tasks is missing; give the names"),
    ):
        result = call("run", *arguments)
        assert (result.exit_code, message in result.stderr) == (2, True)


def test_missing_corpus_is_named_although_the_evaluations_stand(tiny_run, tiny, tiny_options, tmp_path):
    options = {**tiny_options, "ancestor": tiny.ancestor, "output": tiny_run, "corpus": tmp_path / "none.jsonl"}
    result = call("run", *flags(options))
    assert result.exit_code == 2
    assert "none.jsonl is not a file" in result.stderr


def test_failure_of_the_run_itself_exits_4(monkeypatch):
    def fails(*_: object, **__: object):
        raise RunError("the thing broke; mend it")

    monkeypatch.setattr("diffharness.pipeline.run", fails)
    result = call("run", "--baseline", "a", "--candidate", "b", "--tasks", "t")
    assert (result.exit_code, result.stderr) == (4, "diffharness: the thing broke; mend it\n")


def test_debug_shows_the_traceback_and_keeps_the_exit_code():
    plain, debug = call("run", "--tasks", "t"), call("--debug", "run", "--tasks", "t")
    assert plain.exit_code == debug.exit_code == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_help_of_every_command_imports_nothing_heavy():
    script = f"""
import sys
from click.testing import CliRunner
from diffharness.cli import main
for command in [[], *[name.split() for name in {COMMANDS + INNER}]]:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, result.output
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_has_help():
    result = call("--help")
    for name in [*COMMANDS, "lm-eval"]:
        assert name in result.output
    for name in (
        "--baseline",
        "--smallest-effect",
        "--baseline-results",
        "--config",
        "--crosscoder",
        "--sparsity",
        "--taxonomy",
        "--annotator",
        "--annotate",
        "--nu-reconstruction",
        "--nu-error",
        "--layer",
        "--depth-documents",
        "--attribution-documents",
        "--cluster",
        "--ablate",
        "--random-sets",
        "--shapley",
    ):
        assert name in call("run", "--help").output


def test_init_writes_a_file_once(tmp_path):
    file = tmp_path / "mine.yaml"
    assert call("init", file).exit_code == 0
    before = file.read_text()
    again = call("init", file)
    assert (again.exit_code, file.read_text()) == (2, before)
    assert f"{file} exists; name another file" in again.stderr
    assert call("init", tmp_path / "none" / "x.yaml").exit_code == 2


def test_flags_win_over_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", seen.append)
    file = tmp_path / "x.yaml"
    file.write_text("{baseline: a, candidate: b, tasks: [one], seed: 3, k: 5}")
    assert (
        call("run", "--config", file, "--seed", 4, "--tasks", "two,three", "--tasks", "four", "--no-controls").exit_code
        == 0
    )
    (config,) = seen
    assert (config.seed, config.k, config.baseline, config.controls) == (4, 5, "a", False)
    assert config.tasks == ("two", "three", "four")


def test_schema_is_a_json_schema_that_a_finished_report_satisfies(tiny_run):
    schema = json.loads(call("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    report = json.loads((tiny_run / "report.json").read_text())
    jsonschema.validate(report, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "models": None}, schema)


def test_report_prints_and_writes_the_views_again(tiny_run, tmp_path):
    shutil.copy(tiny_run / "report.json", tmp_path)
    result = call("report", tmp_path)
    assert result.exit_code == 0
    assert "tiny_choice" in result.stdout
    for name in ("report.md", "report.html"):
        assert (tmp_path / name).read_text() == (tiny_run / name).read_text()


def test_report_of_no_run_is_one_line(tmp_path):
    assert "holds no report.json; give the --output folder" in call("report", tmp_path).stderr
    (tmp_path / "report.json").write_text("{}")
    result = call("report", tmp_path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_activations_says_what_a_store_holds_and_finds_damage(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    whole = call("activations", tmp_path / "run")
    assert whole.exit_code == 0
    for words in ("baseline (", "candidate (", "ancestor (", "16, float32", "corpus.jsonl", "shards are whole"):
        assert words in " ".join(whole.stdout.split())
    shard = tmp_path / "run" / "activations" / "shard_00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    damaged = call("activations", tmp_path / "run" / "activations")
    assert damaged.exit_code == 4
    assert "shard_00000.safetensors is absent or cut off" in " ".join(damaged.stdout.replace("\n", "").split())
    assert "1 of 1 shards are damaged; delete it" in damaged.stderr


def test_activations_of_no_store_is_one_line(tmp_path):
    done = call("activations", tmp_path)
    assert done.exit_code == 2
    assert "holds no activations" in done.stderr
