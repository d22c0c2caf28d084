from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffharness.latents.annotators.answers import AnswerError, read_detection, read_naming
from tests.latents.annotators.evidence_of import TAXONOMY

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["safety", "category", "unclear", " \x00\u202e "]),
    lambda inside: st.lists(inside) | st.dictionaries(st.sampled_from(["category", "explanation", "x"]), inside),
    max_leaves=8,
).map(json.dumps)


@given(st.text(alphabet='{}[]",:01 category\\n') | JSON | st.tuples(JSON, st.text(), JSON).map("".join))
def test_whatever_comes_is_a_name_of_the_taxonomy_or_refused(answer):
    try:
        found = read_naming(answer, TAXONOMY)
    except AnswerError:
        return
    assert found.category in (*TAXONOMY.names, "unclear")
    assert 0 < len(found.explanation) <= 300


@given(st.text(alphabet="[]{},01 2-.e") | JSON, st.integers(1, 4))
def test_whatever_comes_is_as_many_grades_as_texts_or_refused(answer, n):
    try:
        found = read_detection(answer, n)
    except AnswerError:
        return
    assert len(found) == n


@pytest.mark.parametrize(
    "answer", ["[1, 0, 1]", "Here: [1,0,1].", "```json\n[1,0,1]\n```", '{"answer": [true, false, 1]}']
)
def test_grades_are_found_in_what_stands_around_them(answer):
    assert read_detection(answer, 3) == (True, False, True)


def test_an_object_given_twice_alike_counts_once():
    one = '{"category": "code", "explanation": "x"}'
    assert read_naming(f"{one}\nFinal answer:\n{one}", TAXONOMY).category == "code"
