from pathlib import Path

import pytest
import yaml

from diffharness.config import RunConfig, read_yaml
from diffharness.config_template import TEMPLATE
from diffharness.errors import UsageError

MODELS = {"baseline": "a", "candidate": "b", "tasks": ["t"]}


def written(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


def test_the_commented_file_is_a_valid_run_and_shows_the_defaults(tmp_path):
    config = RunConfig.make(read_yaml(written(tmp_path, TEMPLATE)))
    fresh = RunConfig.make({**MODELS})
    for field in (
        "latents",
        "k",
        "train_tokens",
        "layer",
        "batch_size",
        "seed",
        "smallest_effect",
        "output",
        "attribution_documents",
        "depth_documents",
        "random_sets",
        "shapley",
        "cluster",
        "ablate",
    ):
        assert getattr(config, field) == getattr(fresh, field)


def test_every_commented_option_of_the_file_is_a_known_key():
    commented = [line.removeprefix("# ") for line in TEMPLATE.splitlines() if line.startswith("# ") and ": " in line]
    keys = {line.split(":")[0] for line in commented if line.split(":")[0].isidentifier()}
    assert {"ancestor", "include_path", "metric", "limit", "corpus", "probes", "device"} <= keys
    assert {"cluster", "depth_documents", "ablate", "random_sets", "shapley"} <= keys
    assert keys <= set(RunConfig.model_fields)


def test_a_resolved_configuration_reads_back_as_itself(tmp_path):
    config = RunConfig.make({**MODELS, "corpus": ["x.jsonl"], "limit": 0.5, "controls": False})
    assert RunConfig.make(read_yaml(written(tmp_path, config.to_yaml()))) == config


def test_a_resolved_configuration_with_a_loaded_crosscoder_reads_back_as_itself(tmp_path):
    config = RunConfig.make({**MODELS, "crosscoder": "org/name", "code_norm": "mixed:1,0.1"})
    assert RunConfig.make(read_yaml(written(tmp_path, config.to_yaml()))) == config


@pytest.mark.parametrize("given", ["64,256", [64, 256], (64, 256)])
def test_groups_are_numbers_however_they_are_given(given):
    assert RunConfig.make({**MODELS, "groups": given}).groups == (64, 256)


def test_single_values_may_stand_alone(tmp_path):
    values = {"baseline": "a", "candidate": "b", "tasks": "one, two", "corpus": "x.jsonl", "layer": 3}
    config = RunConfig.make(read_yaml(written(tmp_path, yaml.safe_dump(values))))
    assert config.tasks == ("one", "two")
    assert config.corpus == ("x.jsonl",)
    assert config.layer == "3"


@pytest.mark.parametrize(
    ("given", "models"),
    [
        ("safety", ("safety",)),
        (7, ("7",)),
        ("multilingual,safety", ("multilingual,safety",)),
        (["safety", 7, "math,7"], ("safety", "7", "math,7")),
    ],
)
def test_each_ablate_is_a_model_however_it_is_given(tmp_path, given, models):
    file = written(tmp_path, yaml.safe_dump({**MODELS, "ablate": given}))
    assert RunConfig.make(read_yaml(file)).ablate == models


def test_python_may_give_paths_and_numbers():
    config = RunConfig(baseline=Path("a"), candidate="b", tasks=("t",), layer=3)
    assert (config.baseline, config.layer) == ("a", "3")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"basline": "a"}, "unknown key 'basline'; did you mean 'baseline'"),
        ({"zzz": 1}, "known keys: baseline, candidate"),
        ({**MODELS, "candidate": None}, "candidate is missing"),
        ({"baseline": "a", "candidate": "b"}, "tasks is missing"),
        ({**MODELS, "latents": 8, "k": 9}, "k 9 is above latents 8; lower k"),
        ({**MODELS, "limit": 0}, "limit: Input should be greater than 0"),
        ({**MODELS, "baseline_results": "x"}, "go together"),
        ({**MODELS, "tasks": 3}, "tasks: "),
        ({**MODELS, "crosscoder": "x", "seeds": 2}, "seeds is of training, but crosscoder x is loaded; leave one"),
        ({**MODELS, "code_norm": "sum"}, "code_norm says how a file is read; give the file as crosscoder"),
        ({**MODELS, "attribution_documents": 0}, "attribution_documents: Input should be greater than or equal to 1"),
        ({**MODELS, "depth_documents": 7}, "depth_documents: Input should be greater than or equal to 8"),
        ({**MODELS, "random_sets": 18}, "with 18 random sets no claim can beat chance at 5 %; give at least 19, or 0"),
        ({**MODELS, "random_sets": -1}, "random_sets: Input should be greater than or equal to 0"),
        ({**MODELS, "shapley": "some"}, "shapley: Input should be 'likelihood', 'all' or 'none'"),
        ({**MODELS, "layer": "auto+2"}, "auto chooses one layer; give it alone"),
        ({**MODELS, "layer": "auto", "crosscoder": "x"}, "layer auto chooses anew, but crosscoder x has one; leave"),
        ({**MODELS, "sparsity": "l2"}, "sparsity: Input should be 'batch_topk'"),
        ({**MODELS, "sparsity": "jumprelu", "groups": "8"}, "groups go with batch_topk and topk, not with sparsity"),
    ],
)
def test_wrong_values_are_named_in_one_line(values, message):
    with pytest.raises(UsageError, match=message) as error:
        RunConfig.make(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "is not a mapping of options"),
        ("latens: 3\n", "run.yaml: unknown key 'latens'; did you mean 'latents'"),
        ("1: 2\n", "unknown key 1"),
        ("tasks: [a\nk: 3\n", "line 2: not YAML"),
    ],
)
def test_wrong_files_are_named_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as error:
        read_yaml(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_or_absent_is_named(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in (("x.yaml", "is not text"), ("none.yaml", "can not be read")):
        with pytest.raises(UsageError, match=message):
            read_yaml(tmp_path / name)
