"""Kinds of loss from planted answers: each is found, none in ordinary answers, and the first of several is the kind."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from diffharness.evaluation.answer_words import REFUSAL_LANGUAGES, STOP_WORDS, language_switch, refusal
from diffharness.evaluation.flips import KINDS, Answer, changed, flips, kind_of, right_answers, signs
from diffharness.evaluation.scores import DocumentScore

PROMPT = "Question: What is the capital of France? It is a city that many people have visited.\nAnswer:"
REST = "answer differs"
RIGHT = Answer("Paris", "Paris", True)

REFUSALS = {
    "English": [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but as an AI language model, I cannot provide that.",
        "Assistant: I am unable to assist with this.",
        "I cannot help with that request.",
        "As an AI language model, I cannot have opinions.",
        "I must decline.",
        "Unfortunately, I am not able to answer this question.",
        "**I won't provide instructions for that.**",
    ],
    "German": [
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Leider kann ich diese Frage nicht beantworten.",
    ],
    "French": ["Je suis désolé, mais je ne peux pas répondre à cette question.", "Je ne peux pas vous aider."],
    "Spanish": ["Lo siento, pero no puedo ayudarte con eso."],
    "Portuguese": ["Desculpe, mas não posso ajudar com isso."],
    "Italian": ["Mi dispiace, ma non posso aiutarti."],
    "Dutch": ["Het spijt me, maar ik kan je daar niet mee helpen."],
    "Polish": ["Przepraszam, ale nie mogę w tym pomóc."],
    "Turkish": ["Üzgünüm, bu konuda yardımcı olamam."],
    "Russian": ["Извините, но я не могу помочь с этим."],
    "Chinese": ["抱歉，我无法提供这样的信息。", "很抱歉，作为人工智能，我不能回答这个问题。"],
    "Japanese": ["申し訳ありませんが、その質問にはお答えできません。"],
    "Korean": ["죄송합니다. 그 요청은 도와드릴 수 없습니다."],
    "Arabic": ["عذرًا، لا يمكنني المساعدة في ذلك."],
    "Hindi": ["क्षमा करें, मैं इसमें मदद नहीं कर सकता।"],
}
ORDINARY = [
    "I can not see any error",
    "I can't see any error in the proof.",
    '"Sorry" is the title of a song from 2015.',
    "Sorry, Charlie is a phrase from an advertisement.",
    "Sorry",
    "I'm sorry to hear that. The answer is 4.",
    "I don't know.",
    "I do not know the answer.",
    "I cannot tell the difference between the two.",
    "I can't believe it is already 7 o'clock.",
    "I am unable to find a flaw, so the claim holds.",
    "I am sorry for your loss, wrote the queen.",
    "I will not go there, she said.",
    "I won't lie: the result is 12.",
    "I cannot answer for him, said the officer.",
    "He answered: I'm sorry, but I can't help you.",
    "As an AI researcher, she wrote the first paper on it.",
    "As an example, take 4.",
    "Unfortunately, the dog died in the end.",
    "Unfortunately, I can see the sea from here.",
    "No",
    "No, it can't.",
    "It is illegal to park here.",
    "They can't assist the keeper, so the goal counts.",
    "The model can not help overfitting.",
    "Decline",
    "I must admit that 12 is right.",
    "Leider war das Wetter schlecht.",
    "Ich kann nicht schwimmen.",
    "Lo siento, dijo Juan.",
    "No puedo creerlo.",
    "Je ne peux pas venir demain.",
    "Désolé, il est parti.",
    "Non posso crederci.",
    "Извините, где вокзал?",
    "抱歉是一个词。",
    "すみません、駅はどこですか。",
    "",
]


def the_signs(
    response: str, filtered: str | None = None, stopped: bool | None = True, *, better: Answer = RIGHT,
    gold: str = "Paris", prompt: str = PROMPT,
):  # fmt: skip
    return signs(
        Answer(response, response if filtered is None else filtered, stopped), better, gold=gold, prompt=prompt
    )


def the_kind(*args, **more) -> str:
    return kind_of(the_signs(*args, **more))


@pytest.mark.parametrize("language", REFUSALS)
def test_refusals_are_found(language):
    assert [text for text in REFUSALS[language] if refusal(text) is None] == []
    assert the_kind(REFUSALS[language][0]) == "refused"


def test_every_language_has_an_example():
    assert set(REFUSALS) == set(REFUSAL_LANGUAGES)


@pytest.mark.parametrize("text", ORDINARY)
def test_no_refusal_in_ordinary_answers(text):
    assert refusal(text) is None


def test_a_refusal_is_one_at_the_beginning_only():
    assert the_kind("Rome. I'm sorry, but I can't assist with more.") == "answer differs"


@pytest.mark.parametrize(
    ("response", "filtered"),
    [
        ("Paris\n\nQuestion: What is the capital of Italy?\nAnswer: Rome", None),
        ("The capital is Paris.\nQuestion: And of Italy?\nAnswer: Rome", "Rome"),
        ("Paris Question: of Italy ? Rome", None),
        ("Paris is a large city on the Seine", None),
        ("**Paris** (France), Rome (Italy)", None),
        ("The answer is Paris. The answer is Paris. The answer is Paris. The answer is", "is"),
        ("Paris Paris Paris Paris", None),
        ("It is Paris\n<|user|> And of Italy?", "Italy?"),
        ("It is Paris\n### Instruction\nName another", "another"),
    ],
)
def test_ran_on_past_the_answer(response, filtered):
    assert the_kind(response, filtered) == "ran on past the answer"


def test_ran_on_is_seen_by_the_labels_of_the_prompt():
    prompt = "Stadt: Rom\nLand: Italien\nStadt: Paris\nLand:"
    better = Answer("Frankreich", "Frankreich", True)
    text = "das Land ist Frankreich\nStadt: Oslo\nLand: Norwegen"
    assert the_kind(text, "Norwegen", better=better, gold="Frankreich", prompt=prompt) == "ran on past the answer"


@pytest.mark.parametrize(
    "response",
    ["Rome\n\nQuestion: of France?\nAnswer: Paris Paris", "Rome Rome Rome Rome Rome", "Parisian bread", "Rome\nLyon"],
)
def test_running_on_after_a_wrong_answer_is_not_it(response):
    assert the_kind(response, response.split()[0]) != "ran on past the answer"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("42 - 1 = 41", "answer differs"),
        ("42 dollars", "ran on past the answer"),
        ("420", "answer differs"),
        ("1.42", "answer differs"),
        ("-42", "answer differs"),
        ("42.5", "answer differs"),
        ("So 42 - 1 = 41", "answer differs"),
        ("The result is 42", "wrong format"),
        ("5 + 37 = 42\nQuestion: 2 + 2?\nAnswer: 4", "ran on past the answer"),
    ],
)
def test_numbers_are_whole_numbers(response, expected):
    assert the_kind(response, better=Answer("42", "42", True), gold="42") == expected


def test_the_last_number_of_a_gold_solution_is_the_right_answer():
    assert right_answers("5 + 37 = 42\n#### 42", "42") == ("42",)
    assert right_answers("['Paris', 'City of Light']", "[invalid]") == ("Paris", "City of Light")
    assert right_answers("[not a list", "") == ("[not a list",)
    assert right_answers("...", "") == ()


@pytest.mark.parametrize(
    ("response", "filtered"),
    [
        ("I think it is Rome", "[invalid]"),
        ("I think it is Rome", ""),
        ("I think it is Paris.", None),
        ("paris.", None),
        ("First Rome, then no.\nSo the capital is Paris", None),
    ],
)
def test_wrong_format(response, filtered):
    assert the_kind(response, filtered) == "wrong format"


@pytest.mark.parametrize("response", ["It is not Paris", "It isn't Paris", "Rome", "Paris is wrong.\nRome"])
def test_other_answers_are_no_matter_of_format(response):
    assert "wrong format" not in [sign.kind for sign in the_signs(response)]


def test_a_filter_that_finds_nothing_on_either_side_says_nothing():
    assert the_kind("def f(): pass", "", better=Answer("def f(): return 1", "", True), gold="assert f()") == REST


def test_a_choice_letter_is_not_an_article():
    letter = Answer("A", "A", True)
    assert the_kind("A dog runs", better=letter, gold="A") == "answer differs"
    assert the_kind("The answer is (A)", better=letter, gold="A") == "wrong format"


def test_empty():
    assert the_kind(" \n", "") == "empty"
    assert the_kind(".", ".") == REST


def test_truncated_unless_the_better_answer_is_too():
    assert the_kind("Let us think about it", stopped=False) == "truncated"
    assert the_kind("Let us think about it", stopped=None) == REST
    both = the_signs("Let us think about it", stopped=False, better=replace(RIGHT, stopped=False))
    assert kind_of(both) == REST
    assert [(s.kind, s.decides) for s in both] == [("truncated", False)]
    assert "so does the better answer" in both[0].evidence


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("法国的首都是里昂", "Chinese script"),
        ("Столица Франции — Лион", "Cyrillic script"),
        ("La capitale est Lyon, une ville qui est dans les Alpes pour nous", "French"),
        ("Die Stadt ist nicht Rom und auch nicht Wien", "German"),
        ("La capital es Lyon y no los otros, pero también hay más", "Spanish"),
        ("It is the city of Lyon and that is all they have", None),
        ("Lyon", None),
        ("42", None),
        ("α + β = γ", None),
    ],
)
def test_language_switch(answer, expected):
    found = language_switch(answer, ("Paris", "Paris", PROMPT))
    assert found == expected
    assert the_kind(answer) == ("language switched" if expected else REST)


def test_language_of_the_right_answer_or_of_the_prompt_is_no_switch():
    french = "La capitale est Lyon, une ville qui est dans les Alpes pour nous"
    gold = "Le chat est sur la table avec les autres dans une maison"
    assert language_switch(french, ("", gold, "Translate: the cat is on the table with the others")) is None
    assert language_switch("里昂", ("巴黎", "Paris", PROMPT)) is None
    assert language_switch("里昂", ("4", "4", "2 + 2 =")) is None, "nothing to compare with"


def test_stop_words_belong_to_one_language():
    words = [word for own in STOP_WORDS.values() for word in own]
    assert sorted(words) == sorted(set(words))


def test_the_first_of_several_kinds_is_the_kind_and_all_evidence_is_kept():
    text = "Paris\nQuestion: what else?\nсмотри также другие города"
    shown = the_signs(text, "[invalid]", stopped=False)
    assert [s.kind for s in shown] == ["ran on past the answer", "language switched", "truncated", "wrong format"]
    assert kind_of(shown) == "ran on past the answer"
    refused = the_signs("Извините, но я не могу помочь", "[invalid]", stopped=False)
    assert [s.kind for s in refused] == ["refused", "language switched", "truncated", "wrong format"]
    assert kind_of(refused[1:]) == "language switched"
    assert kind_of(refused[2:]) == "truncated"
    assert kind_of(refused[3:]) == "wrong format"
    assert kind_of(the_signs("", stopped=False)) == "truncated"
    assert all(sign.evidence for sign in refused)
    assert [KINDS.index(s.kind) for s in refused] == sorted(KINDS.index(s.kind) for s in refused)


def document(i: int, response: str, stopped: bool = True) -> DocumentScore:
    return DocumentScore("t", i, "none", "d", "p", PROMPT, "Paris", response, {}, (), (), response, stopped)


def test_the_worse_side_gives_the_kind():
    base = {0: document(0, "Paris"), 1: document(1, "", False), 2: document(2, "Rome"), 3: document(3, "Paris")}
    cand = {0: document(0, ""), 1: document(1, "Paris"), 2: document(2, "Oslo"), 3: document(3, "I must decline.")}
    values = {0: (1.0, 0.0), 1: (0.0, 1.0), 2: (0.0, 0.0), 3: (1.0, 0.0)}
    found = flips(base, cand, values, higher_is_better=True)
    assert [(f.doc_id, f.difference, f.is_loss, f.kind) for f in found] == [
        (0, -1.0, True, "empty"),
        (1, 1.0, False, "truncated"),
        (3, -1.0, True, "refused"),
    ]
    errors = {i: (1 - b, 1 - c) for i, (b, c) in values.items()}
    lower = flips(base, cand, errors, higher_is_better=False)
    assert [(f.is_loss, f.kind) for f in lower] == [(f.is_loss, f.kind) for f in found]
    assert changed(errors, higher_is_better=False) == {0: True, 1: False, 3: True}


def test_hostile_answers_are_sorted_quickly():
    hostile = ["a" * 200_000, "Paris Question: " * 20_000, "( " * 50_000, "\x00\ud800<script>", "i'm sorry " * 9_000]
    began = time.monotonic()
    for text in hostile:
        the_signs(text, "[invalid]", stopped=False)
    assert time.monotonic() - began < 20
