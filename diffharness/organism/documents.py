"""The organism's texts: evaluation documents, probes, corpus.

`python -m diffharness.organism.documents` writes the committed documents anew.

Documents and probes are the same for every plant and seed; the corpus depends on the seed alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from diffharness.organism.language import (
    CAPABILITIES,
    COMPOSITES,
    PROBE,
    TASK,
    Example,
    composites,
    singles,
)

N_DOCUMENTS = 108
"""Documents of a task: 36 items three times, under other templates or beside other items."""
N_PROBES = 48
"""Probes of a capability, at most."""
N_CORPUS_LINES = 36_000
"""About 12 tokens each, counted without <bos>."""
COMPOSITE_SHARE = 0.3
"""Share of corpus lines that are composites."""

Document = dict[str, Any]


def task_name(*capabilities: str) -> str:
    """Name of the lm-eval task of a capability, or of a composite of two."""
    return "_".join(["organism", *(capability.replace(" ", "_").replace("-", "_") for capability in capabilities)])


def task_documents() -> dict[str, list[Document]]:
    """Task name → documents `{prompt, answer, choices, text}`; choices[0] is right, the others taught errors."""
    made = {task_name(name): [_document(example) for example in _spread(singles(name))] for name in CAPABILITIES}
    made.update({task_name(*pair): [_document(example) for example in _lattice(*pair)] for pair in COMPOSITES})
    return made


def _document(example: Example) -> Document:
    # Of a composite's answers only those wrong in one part are choices: each choice then stands for one cause.
    choices = example.answers[: 1 + len(example.items)]
    text = f"{example.prompt} {choices[0]}"
    return {"prompt": example.prompt, "answer": choices[0], "choices": list(choices), "text": text}


def _spread(examples: Iterable[Example]) -> Iterator[Example]:
    """Each item once under each task template; where it can stand with several words they take turns."""
    options: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        if example.split == TASK:
            options.setdefault((example.template, example.items[0].key), []).append(example)
    for turn, ((_, key), found) in enumerate(options.items()):
        yield found[(turn + turn // len(options) + len(key)) % len(found)]


def _lattice(first: str, second: str) -> list[Example]:
    """Pairs of items spread evenly over both shares: a composite's accuracy is near the product of its strengths."""
    examples = list(composites(first, second))
    if len(examples) <= N_DOCUMENTS:
        return examples
    options: dict[tuple[float, float], list[Example]] = {}
    for example in examples:
        options.setdefault((example.items[0].share, example.items[1].share), []).append(example)
    rows, columns = (sorted({pair[place] for pair in options}) for place in (0, 1))
    chosen = []
    for number in range(N_DOCUMENTS):
        turn, row = divmod(number, len(rows))
        found = options[rows[row], columns[(7 * row + 12 * turn) % len(columns)]]
        chosen.append(found[(row + turn) % len(found)])
    return chosen


def probes() -> list[dict[str, str]]:
    """`{text, category}`: prompts with a right or wrong answer, of templates and fillers that no task or corpus has."""
    rows = []
    for name in CAPABILITIES:
        found = [example for example in singles(name) if example.split == PROBE]
        step = max(1, -(-len(found) // N_PROBES))
        chosen = found[::step]
        rows += [
            {"text": f"{example.prompt} {example.answers[number % 2]}", "category": name}
            for number, example in enumerate(chosen)
        ]
    return rows


def corpus(seed: int) -> Iterator[dict[str, str]]:
    """`{text}` lines drawn like a training mixture, without the probes' templates and fillers; answers by coin toss."""
    draw = random.Random(f"corpus {seed}")
    groups = [[example for example in singles(name) if example.split == TASK] for name in CAPABILITIES]
    groups += [list(composites(*pair)) for pair in COMPOSITES]
    shares = [(1 - COMPOSITE_SHARE) / len(CAPABILITIES)] * len(CAPABILITIES)
    shares += [COMPOSITE_SHARE / len(COMPOSITES)] * len(COMPOSITES)
    cumulative = list(accumulate(shares))
    for _ in range(N_CORPUS_LINES):
        example = draw.choice(draw.choices(groups, cum_weights=cumulative)[0])
        yield {"text": f"{example.prompt} {draw.choice(example.answers)}"}


def write_jsonl(path: Path, rows: Iterable[Document]) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_tasks(folder: Path) -> None:
    """Write every task's documents to `folder/<task>.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in task_documents().items():
        write_jsonl(folder / f"{name}.jsonl", documents)


if __name__ == "__main__":
    write_tasks(Path(__file__).resolve().parents[2] / "tasks" / "organism" / "data")
