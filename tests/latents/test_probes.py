"""Reading probes: what is accepted, and one line for everything that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffharness.errors import UsageError
from diffharness.latents.probes import MIN_TEXTS, Probe, load_probes


def _lines(*categories: str) -> list[str]:
    return [
        json.dumps({"text": f"{category} {number}", "category": category})
        for category in categories
        for number in range(MIN_TEXTS)
    ]


def _write(folder: Path, lines: list[str]) -> Path:
    file = folder / "probes.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_probes_are_read_in_order_with_their_categories(tmp_path: Path) -> None:
    lines = [*_lines("safety", "facts"), "", '{"text": "wie geht es ?", "category": "facts", "note": "kept out"}']
    probes = load_probes(_write(tmp_path, lines))
    assert probes[0] == Probe("safety 0", "safety")
    assert probes[-1] == Probe("wie geht es ?", "facts")
    assert len(probes) == 2 * MIN_TEXTS + 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{text: 1}", "not JSON"),
        ('["a", "b"]', "a list is no object"),
        ('{"text": "a"}', "'category' is missing"),
        ('{"text": "  ", "category": "facts"}', "'text' is missing, empty"),
        ('{"text": "a", "category": 3}', "'category' is missing, empty or no string"),
        ('{"text": "a", "category": "unclear"}', "kept for latents without a name"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, bad: str, says: str) -> None:
    file = _write(tmp_path, [*_lines("safety", "facts"), bad])
    with pytest.raises(UsageError) as caught:
        load_probes(file)
    message = str(caught.value)
    assert f"{file}, line {2 * MIN_TEXTS + 1}: " in message
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "is empty"),
        (_lines("safety"), "only category is 'safety'"),
        (_lines("safety", "facts")[:-1], f"'facts' has {MIN_TEXTS - 1} of at least {MIN_TEXTS}"),
    ],
)
def test_too_little_to_compare_is_said_with_a_remedy(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load_probes(_write(tmp_path, lines))
    assert ";" in str(caught.value)


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jsonl: can not be read"):
        load_probes(tmp_path / "nowhere.jsonl")
