from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffharness.latents.annotators.evidence import LatentEvidence, ShownText, clean, evenly, prepare, strength
from diffharness.latents.annotators.prompt import detection_messages, n_characters, naming_messages, pieces
from tests.latents.annotators.chat_server import array
from tests.latents.annotators.evidence_of import TAXONOMY, evidence, shown

TOKENS = st.lists(st.tuples(st.text(max_size=12), st.sampled_from([0.0, 0.0, 0.3, 2.0])), min_size=1, max_size=12)


@given(TOKENS)
def test_any_text_comes_back_from_the_array_token_by_token(tokens):
    text = ShownText(tuple(token for token, _ in tokens), tuple(value for _, value in tokens))
    cleaned = [(clean(token), strength(value, text.peak)) for token, value in tokens]
    messages = naming_messages(LatentEvidence(0, (text,), ()), TAXONOMY)
    (back,) = array(messages)
    assert [tuple(piece) for piece in back if not isinstance(piece, str)] == [pair for pair in cleaned if pair[1]]
    assert "".join(p if isinstance(p, str) else p[0] for p in back) == "".join(token for token, _ in cleaned)
    (plain,) = array(detection_messages(TAXONOMY.categories[0], [text]))
    assert plain == "".join(token for token, _ in cleaned)


def test_the_prompt_shows_every_category_and_unclear_and_not_which_latent_it_is():
    user = naming_messages(evidence(31415), TAXONOMY)[1]["content"]
    for category in TAXONOMY.categories:
        assert f"- {category.name}: {category.definition}\n" in user
    assert "- unclear: no category fits, or the evidence is mixed\n" in user
    one, other = (naming_messages(LatentEvidence(i, (shown("a b", "b"),), ()), TAXONOMY) for i in (31415, 27182))
    assert one == other


def test_the_wording_does_not_lead():
    """Without the texts and the categories, the prompt says nothing of models, sides, tasks, scores or a finding."""
    messages = naming_messages(LatentEvidence(0, (), ()), TAXONOMY)
    words = " ".join(message["content"] for message in messages).lower()
    for word in (
        "baseline",
        "candidate",
        "specific",
        "fine-tun",
        "score",
        "task",
        "norm",
        "decoder",
        "benchmark",
        "important",
    ):
        assert word not in words


def test_strengths_are_steps_of_the_strongest_shown():
    text = ShownText(("a", "b", "c", "d", "e", "f"), (0.0, 0.01, 5.0, 10.0, float("nan"), -3.0))
    assert pieces(prepare(text), 10.0) == ["a", ["b", 1], ["c", 5], ["d", 10], "ef"]


def test_texts_beyond_those_that_fit_are_left_out_evenly():
    assert evenly(range(100), 5) == (0, 25, 50, 74, 99)
    assert evenly(range(3), 5) == (0, 1, 2)
    many = tuple(shown(f"text {i} b", "b") for i in range(100))
    found = array(naming_messages(LatentEvidence(0, many, many), TAXONOMY))
    assert len(found) == 30
    assert found[0][0] == "text 0"
    assert found[19][0] == "text 99"


def test_the_length_of_a_prompt_is_that_of_its_contents():
    assert n_characters([{"role": "system", "content": "abc"}, {"role": "user", "content": "de"}]) == 5
