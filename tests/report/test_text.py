from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffharness.report.text import brief, brief_label, clean, one_line, shorten, squeeze


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_what_is_left_can_not_act(text: str) -> None:
    left = one_line(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) <= 0x9F for c in left)
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in left)
    left.encode("utf-8")


def test_control_and_direction_characters_become_visible() -> None:
    assert clean("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"
    assert clean("two\r\nlines") == "two\nlines"
    assert one_line("a\tb\nc") == "a⇥b↵c"


def test_ordinary_text_of_any_script_is_left_alone() -> None:
    for text in ("perro niño", "שלום", "日本語", "👩‍👩‍👧"):
        assert clean(text) == text


def test_cut_texts_say_so_and_names_keep_their_ends() -> None:
    assert shorten("x" * 1000, 10) == "x" * 10 + "… (+990 characters)"
    assert len(brief("organism_hallucination", 10)) == 10
    assert squeeze("organism_instructions_self", 13) == "organi…s_self"
    assert squeeze("short", 13) == "short"


def test_a_label_is_cut_before_its_origin() -> None:
    assert brief_label("safety (read)", 20) == "safety (read)"
    assert brief_label("instruction following (read)", 24) == "instruction foll… (read)"
    assert brief_label("instruction following", 12) == "instruction…"
