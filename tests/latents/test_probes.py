"""Reading probes: what is accepted, and one line for everything that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffharness.errors import UsageError
from diffharness.latents import probes as probes_module
from diffharness.latents.probes import MIN_TEXTS, Probe, builtin_probes, load_probes
from diffharness.latents.taxonomy import Category, Taxonomy


def _lines(*categories: str) -> list[str]:
    return [
        json.dumps({"text": f"{category} {number}", "category": category})
        for category in categories
        for number in range(MIN_TEXTS)
    ]


def _write(folder: Path, lines: list[str], name: str = "probes.jsonl") -> Path:
    file = folder / name
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
        ('{"text": "a", "category": "facts", "contrast": ""}', "'contrast' is empty or no string"),
        ('{"text": "a", "category": "facts", "contrast": ["b"]}', "'contrast' is empty or no string"),
        ('{"text": "a", "category": "facts", "contrast": " a"}', "the contrast equals its text"),
        ('{"text": "a", "category": "facts", "contrast": "facts 1"}', "'facts 1' is a text of 'facts' itself at"),
        ('{"text": "facts  2", "category": "safety"}', "the text 'facts 2' stands already at probes"),
        ("[" * 100_000, "not JSON"),
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


def test_contrasts_are_read_and_may_be_texts_of_another_category(tmp_path: Path) -> None:
    line = '{"text": "a", "category": "facts", "contrast": "safety 1"}'
    null = '{"text": "b", "category": "facts", "contrast": null}'
    probes = load_probes(_write(tmp_path, [*_lines("safety", "facts"), line, null]))
    assert probes[0].contrast is None
    assert probes[-2:] == [Probe("a", "facts", "safety 1"), Probe("b", "facts")]


def test_line_ends_inside_a_text_and_marks_of_other_systems_split_nothing(tmp_path: Path) -> None:
    odd = {"text": "one\u2028two\x85three", "category": "facts"}
    file = tmp_path / "odd.jsonl"
    lines = [*_lines("safety", "facts"), json.dumps(odd, ensure_ascii=False)]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert load_probes(file)[-1] == Probe("one\u2028two\x85three", "facts")


def test_a_folder_is_read_file_by_file_and_texts_may_not_repeat_across_files(tmp_path: Path) -> None:
    _write(tmp_path, _lines("safety"), "b.jsonl")
    _write(tmp_path, _lines("facts"), "a.jsonl")
    (tmp_path / "README.md").write_text("no probes")
    assert [probe.category for probe in load_probes(tmp_path)] == ["facts"] * MIN_TEXTS + ["safety"] * MIN_TEXTS
    _write(tmp_path, _lines("facts"), "c.jsonl")
    with pytest.raises(UsageError, match=r"c\.jsonl, line 1: the text 'facts 0' stands already at .*a\.jsonl, line 1"):
        load_probes(tmp_path)


def test_a_folder_without_probes_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.jsonl file; give"):
        load_probes(tmp_path)


def test_names_are_checked_against_a_taxonomy_where_one_is_given(tmp_path: Path) -> None:
    own = Taxonomy((Category("safety", "Care."), Category("facts", "Knowing.")))
    assert len(load_probes(_write(tmp_path, _lines("safety", "facts")), own)) == 2 * MIN_TEXTS
    file = _write(tmp_path, [*_lines("safety", "facts"), '{"text": "a", "category": "fatcs"}'])
    with pytest.raises(UsageError, match=r"line 11: category 'fatcs' is not in the taxonomy; did you mean 'facts'\?"):
        load_probes(file, own)


def _builtin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_module, "__file__", str(folder / "diffharness" / "latents" / "probes.py"))


@pytest.mark.parametrize("home", ["tasks/probes", "diffharness/tasks/probes"])
def test_the_built_in_folder_is_found_in_a_checkout_and_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    _builtin(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="built-in probes are missing"):
        builtin_probes()
    (tmp_path / home).mkdir(parents=True)
    _write(tmp_path / home, _lines("safety", "facts", "arithmetic"))
    assert builtin_probes() == tmp_path / home
    assert len(load_probes()) == 3 * MIN_TEXTS


def test_of_the_built_in_probes_those_of_a_taxonomys_names_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _builtin(tmp_path, monkeypatch)
    (tmp_path / "tasks" / "probes").mkdir(parents=True)
    _write(tmp_path / "tasks" / "probes", _lines("safety", "facts", "arithmetic"))
    own = Taxonomy((Category("facts", "Knowing."), Category("safety", "Care."), Category("zither", "Plucking.")))
    assert {probe.category for probe in load_probes(None, own)} == {"facts", "safety"}
    with pytest.raises(UsageError, match="none is of the taxonomy's categories; give --probes"):
        load_probes(None, Taxonomy((Category("zither", "Plucking."),)))
