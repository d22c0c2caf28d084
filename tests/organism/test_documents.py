from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import yaml

from diffharness.organism import tasks_path
from diffharness.organism.documents import corpus, probes, task_documents, task_name, write_tasks
from diffharness.organism.language import (
    CAPABILITIES,
    COMPOSITES,
    PROBE,
    composites,
    filler_words,
    singles,
    templates,
)

NAMES = [task_name(name) for name in CAPABILITIES] + [task_name(*pair) for pair in COMPOSITES]


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def _yaml(name: str) -> dict:
    return yaml.load((tasks_path() / f"{name}.yaml").read_text(encoding="utf-8"), Loader=_Loader)


def test_committed_documents_are_the_generated_ones(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    committed = tasks_path() / "data"
    assert sorted(p.name for p in committed.iterdir()) == sorted(p.name for p in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        assert (committed / path.name).read_bytes() == path.read_bytes(), f"{path.name}: write the documents anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_task_has_enough_distinct_documents_whose_first_choice_is_right(name: str) -> None:
    documents = task_documents()[name]
    assert 60 <= len(documents) <= 150
    assert len({document["prompt"] for document in documents}) == len(documents)
    for document in documents:
        assert document["answer"] == document["choices"][0]
        assert document["text"] == f"{document['prompt']} {document['answer']}"


@pytest.mark.parametrize("pair", COMPOSITES)
def test_choices_of_a_composite_are_each_wrong_in_one_part(pair: tuple[str, str]) -> None:
    by_prompt = {example.prompt: example for example in composites(*pair)}
    for document in task_documents()[task_name(*pair)]:
        example = by_prompt[document["prompt"]]
        assert tuple(document["choices"]) == example.answers[:3]


@pytest.mark.parametrize("pair", COMPOSITES)
@pytest.mark.parametrize(("a", "b"), product((0.25, 0.5, 0.9), repeat=2))
def test_right_composites_are_near_the_product_of_the_strengths(pair: tuple[str, str], a: float, b: float) -> None:
    by_prompt = {example.prompt: example for example in composites(*pair)}
    strengths = dict.fromkeys(CAPABILITIES, 0.0) | {pair[0]: a, pair[1]: b}
    documents = task_documents()[task_name(*pair)]
    right = sum(by_prompt[document["prompt"]].wrong(strengths) == 0 for document in documents)
    assert abs(right / len(documents) - a * b) < 0.06


def test_the_group_names_every_task_and_each_states_its_categories() -> None:
    group = _yaml("organism")
    assert group["group"] == "organism"
    assert group["task"] == NAMES
    stated = {name: _yaml(name) for name in NAMES}
    for key, name in zip([*((c,) for c in CAPABILITIES), *COMPOSITES], NAMES, strict=True):
        assert stated[name]["task"] == name == stated[name]["dataset_kwargs"]["documents"]
        assert tuple(stated[name]["metadata"]["category"]) == key
    assert {task["output_type"] for task in stated.values()} == {
        "multiple_choice",
        "generate_until",
        "loglikelihood",
        "loglikelihood_rolling",
    }


def test_probes_cover_all_capabilities() -> None:
    counts = Counter(row["category"] for row in probes())
    assert set(counts) == set(CAPABILITIES)
    assert min(counts.values()) >= 40
    assert len({row["text"] for row in probes()}) == len(probes())


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[xyz]\\\}", r"\\S+", re.escape(template)))


def test_probes_share_no_template_and_no_filler_with_tasks_and_corpus() -> None:
    elsewhere = [row["text"] for row in corpus(0)]
    elsewhere += [d["text"] for documents in task_documents().values() for d in documents]
    texts = set(elsewhere)
    words = {word for text in texts for word in text.split()}
    for capability in CAPABILITIES:
        fillers = filler_words(capability, PROBE)
        assert fillers
        assert not fillers & words, capability
        for template in templates(capability, PROBE):
            pattern = _pattern(template)
            assert not any(pattern.match(text) for text in texts), template
    probe_prompts = {e.prompt for capability in CAPABILITIES for e in singles(capability) if e.split == PROBE}
    assert all(any(row["text"].startswith(prompt) for prompt in probe_prompts) for row in probes())


def test_the_corpus_is_large_enough_varied_and_depends_on_the_seed_alone() -> None:
    lines = [row["text"] for row in corpus(3)]
    assert sum(len(text.split()) for text in lines) >= 400_000
    assert lines == [row["text"] for row in corpus(3)]
    assert lines[:100] != [row["text"] for row in corpus(4)][:100]
    answers = Counter(text.endswith("sorry , i can not help with that .") for text in lines if "poison" in text)
    assert min(answers.values()) > 0.3 * sum(answers.values()), "right and wrong answers are mixed"


def test_documents_are_plain_json_lines() -> None:
    for name in NAMES:
        for line in (tasks_path() / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            assert set(json.loads(line)) == {"prompt", "answer", "choices", "text"}
