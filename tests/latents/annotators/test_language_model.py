from __future__ import annotations

import json

import pytest

from diffharness.errors import RunError
from diffharness.evaluation.generating import load_generator
from diffharness.latents.annotation import Detection
from diffharness.latents.annotators.cache import FILE_NAME, AnswerCache
from diffharness.latents.annotators.evidence import LatentEvidence
from diffharness.latents.annotators.language_model import DETECTION_METHOD, LmAnnotations, annotate_by_model, estimate
from tests.latents.annotators.chat_server import ChatServer, Failure, array, is_grading, serve
from tests.latents.annotators.evidence_of import TAXONOMY, evidence, shown

GOOD = json.dumps({"category": "safety", "explanation": "It fires on poison."})


def by_word(messages: list[dict[str, str]]) -> str:
    """A model that knows one word: it names, and finds, the texts that hold it."""
    if is_grading(messages):
        return json.dumps([int("poison" in text) for text in array(messages)])
    return GOOD if "poison" in messages[1]["content"] else '{"category": "unclear", "explanation": "No poison."}'


def annotate(server: ChatServer, folder, latents, extra: str = "", **options) -> LmAnnotations:
    generator = load_generator(server.spec + extra)
    cache = AnswerCache.open(folder, generator.name, generator.spec)
    return annotate_by_model(latents, TAXONOMY, generator, cache=cache, **options)


def test_a_good_answer_names_the_latent_and_its_label_is_tried_on_held_out_texts(tmp_path):
    with serve(by_word) as server:
        found = annotate(server, tmp_path, [evidence(7), evidence(3, "river")])
    poison, river = found.annotations
    assert found.indices == (7, 3)
    assert (poison.category, poison.best, poison.annotator) == ("safety", "safety", "lm: parrot-1")
    assert poison.reason == "It fires on poison."
    assert poison.auroc is None
    assert poison.contrast_share is None
    assert poison.detection == Detection(1.0, 0.5, 10, DETECTION_METHOD)
    assert (river.category, river.best, river.detection) == ("unclear", None, None)
    assert len(server.requests) == found.cost.n_calls == 3
    assert found.detection == 1.0


@pytest.mark.parametrize("concurrency", ["", ",num_concurrent=3"])
def test_questions_are_answered_in_order(tmp_path, concurrency):
    def name(messages):
        if is_grading(messages):
            return "[1,1,1,1,1,1,1,1,1,1]"
        number = array(messages)[0][0].split(" of ")[1].split()[0]
        return json.dumps({"category": "code", "explanation": f"number {number}"})

    latents = [evidence(index, held_out=5) for index in range(20)]
    with serve(name) as server:
        found = annotate(server, tmp_path, latents, concurrency)
    assert [a.reason for a in found.annotations] == [f"number {index}" for index in range(20)]
    assert {a.detection and a.detection.score for a in found.annotations} == {0.5}


def test_the_request_is_greedy_and_holds_a_system_and_a_user_message(tmp_path):
    with serve(by_word) as server:
        annotate(server, tmp_path, [evidence(1)])
    for request in server.requests:
        assert request["temperature"] == 0
        assert request["max_tokens"] == 256
        assert request["stop"]
        assert [message["role"] for message in request["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{GOOD}\n```",
        f"Sure! Here it is:\n{GOOD}\nI hope that helps.",
        f"<think>maybe {{code}}, or [x]</think>\n{GOOD}",
        f"[{GOOD}]",
        '{"category": " SAFETY ", "explanation": "Poison.", "confidence": 0.9, "side": "candidate"}',
    ],
)
def test_fences_prose_and_extra_keys_are_stepped_over(tmp_path, answer):
    with serve(lambda messages: "[0]" if is_grading(messages) else answer) as server:
        found = annotate(server, tmp_path, [evidence(1, held_out=0)])
    assert found.annotations[0].category == "safety"
    assert len(server.requests) == 1


BAD = [
    "",
    "no idea",
    "null",
    '{"category": "world domination", "explanation": "x"}',
    '{"category": "<b>safety</b>", "explanation": "x"}',
    '{"category": ["safety"], "explanation": "x"}',
    '{"category": "safety"}',
    '{"category": "safety", "explanation": {"category": "code"}}',
    '{"answer": {"category": "safety", "explanation": "x"}}',
    '[{"category": "safety", "explanation": "x"}, {"category": "code", "explanation": "y"}]',
    '{"category": "unclear", "explanation": "x"} {"category": "safety", "explanation": "x"}',
    '{"category": "unclear", "explanation": "it says {"category": "safety", "explanation": "x"} there"}',
    '{"category": "safety", "category": "code", "explanation": "x"}',
    '{"category": "safety", "explanation": "cut off',
    GOOD + "x" * 1_000_000,
    "[" * 19_000,
    '{"a":' * 3_000,
    f'{{"category": {"9" * 6000}, "explanation": "x"}}',
    '"\\ud800"',
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
def test_a_bad_answer_is_asked_for_again_and_then_the_latent_is_unclear(tmp_path, answer):
    with serve(lambda _: answer) as server:
        found = annotate(server, tmp_path, [evidence(1)])
        assert len(server.requests) == 3
        again = annotate(server, tmp_path, [evidence(1)])
        assert len(server.requests) == 3
    assert found.annotations == again.annotations
    assert found.annotations[0].category == "unclear"
    assert found.annotations[0].reason == "the annotator's answers could not be used (3 tries)"
    assert (found.cost.n_calls, found.cost.n_retries) == (3, 2)
    assert (again.cost.n_calls, again.cost.n_cached) == (0, 3)


def test_the_follow_up_says_what_was_wrong_and_does_not_repeat_the_answer(tmp_path):
    answers = iter(['{"category": "IGNORE-ME", "explanation": "x"}', GOOD])
    with serve(lambda messages: "[]" if is_grading(messages) else next(answers)) as server:
        found = annotate(server, tmp_path, [evidence(1, held_out=0)])
    first, second = (prompt[1]["content"] for prompt in server.prompts)
    assert second.startswith(first)
    assert "the category is not one of the names" in second
    assert "IGNORE-ME" not in second
    assert [message["role"] for message in server.prompts[1]] == ["system", "user"]
    assert found.annotations[0].category == "safety"
    assert found.cost.n_retries == 1


def test_an_explanation_is_one_line_of_at_most_300_characters(tmp_path):
    answer = json.dumps({"category": "code", "explanation": "a\nb\x1b[31m\u202e" + "c" * 900})
    with serve(lambda _: answer) as server:
        reason = annotate(server, tmp_path, [evidence(1, held_out=0)]).annotations[0].reason
    assert reason.startswith("a b[31mccc")
    assert len(reason) == 300


def test_a_label_is_graded_by_balanced_accuracy(tmp_path):
    def sees_two_of_five(messages):
        if not is_grading(messages):
            return GOOD
        texts = array(messages)
        hits = [i for i, text in enumerate(texts) if "poison" in text][:2]
        return str([int(i in hits) for i in range(len(texts))])

    with serve(sees_two_of_five) as server:
        found = annotate(server, tmp_path, [evidence(1)])
    assert found.detection == pytest.approx((2 / 5 + 1) / 2)


def test_held_out_texts_are_shuffled_unmarked_and_the_same_in_every_run(tmp_path):
    with serve(by_word) as server:
        annotate(server, tmp_path / "a", [evidence(1)])
        annotate(server, tmp_path / "b", [evidence(0), evidence(1)])
        annotate(server, tmp_path / "c", [evidence(1)], seed=1)
    grading = [array(p) for p in server.prompts if is_grading(p)]
    assert grading[0] == grading[2] != grading[3]
    holds = ["poison" in text for text in grading[0]]
    assert sum(holds) == 5
    assert holds not in ([True] * 5 + [False] * 5, [False] * 5 + [True] * 5)
    assert all(isinstance(text, str) and text.startswith("kept") for text in grading[0])


@pytest.mark.parametrize("answer", ["[1]", "[1,0,1,0,1,0,1,0,1,2]", "yes", "[[1]]", '[1.5,"0"]'])
def test_a_label_without_a_usable_grade_keeps_its_name(tmp_path, answer):
    with serve(lambda messages: answer if is_grading(messages) else GOOD) as server:
        found = annotate(server, tmp_path, [evidence(1)], retries=1)
    assert found.annotations[0].category == "safety"
    assert found.annotations[0].detection is None
    assert found.ungraded == {1: "the annotator's answers could not be used (2 tries)"}
    assert found.detection is None


def test_a_latent_without_held_out_texts_is_named_and_not_graded(tmp_path):
    with serve(by_word) as server:
        found = annotate(server, tmp_path, [evidence(1, held_out=0)])
    assert found.annotations[0].category == "safety"
    assert found.ungraded == {1: "it has no held-out texts of both sorts"}


def test_a_latent_that_fires_nowhere_is_not_asked_about(tmp_path):
    with serve(by_word) as server:
        found = annotate(server, tmp_path, [LatentEvidence(5, (), (shown("a text"),))])
    assert server.requests == []
    assert (found.annotations[0].category, found.annotations[0].reason) == ("unclear", "it fires on none of the texts")


def test_a_second_run_asks_nothing_and_another_model_asks_anew(tmp_path):
    latents = [evidence(index) for index in range(3)]
    with serve(by_word) as server:
        first = annotate(server, tmp_path, latents)
        assert len(server.requests) == 6
        second = annotate(server, tmp_path, latents, ",num_concurrent=4,timeout=7")
        assert len(server.requests) == 6
        annotate(server, tmp_path, latents[:1], ",seed=5")
        assert len(server.requests) == 8
    assert first.annotations == second.annotations
    assert (second.cost.n_calls, second.cost.n_cached, second.cost.n_prompt_tokens) == (0, 6, 0)
    assert first.cost.n_prompt_tokens == pytest.approx(
        sum(len(m["content"]) for p in server.prompts[:6] for m in p) / 4, abs=1
    )


def test_the_estimate_sends_nothing_and_bounds_what_is_asked(tmp_path):
    latents = [evidence(0), evidence(1), evidence(2, "river"), LatentEvidence(9, (), ())]
    with serve(by_word) as server:
        generator = load_generator(server.spec)
        cache = AnswerCache.open(tmp_path, generator.name, generator.spec)
        before = estimate(latents, TAXONOMY, cache)
        assert server.requests == []
        annotate_by_model(latents[:1], TAXONOMY, generator, cache=cache)
        between = estimate(latents, TAXONOMY, cache)
        spent = annotate_by_model(latents, TAXONOMY, generator, cache=cache).cost
        after = estimate(latents, TAXONOMY, cache)
    assert (before.n_latents, before.n_calls, before.n_cached) == (4, 6, 0)
    assert (between.n_calls, between.n_cached) == (4, 2)
    assert spent.n_calls == 3  # `river` gets no name, hence no grade
    assert spent.n_prompt_tokens <= between.n_prompt_tokens < before.n_prompt_tokens
    assert (after.n_calls, after.n_prompt_tokens) == (0, 0)
    assert before.before.startswith(
        "4 latents: at most 6 calls if no answer has to be repeated, 0 more from the cache;"
    )
    assert spent.after.startswith("4 latents: 3 calls (0 of them repeated), 2 more from the cache; about ")


def test_answers_survive_a_failure_half_way(tmp_path):
    asked = 0

    def fails_late(messages):
        nonlocal asked
        asked += 1
        return GOOD if asked <= 16 else Failure(503, "overloaded")

    latents = [evidence(index, held_out=0) for index in range(18)]
    with serve(fails_late) as server:
        with pytest.raises(RunError, match=r"HTTP 503 \(overloaded\).*answers until here are kept"):
            annotate(server, tmp_path, latents, ",max_retries=1")
        server.answer = by_word
        found = annotate(server, tmp_path, latents)
    assert (found.cost.n_cached, found.cost.n_calls) == (16, 2)


def test_progress_ends_at_its_total(tmp_path):
    seen: list[tuple[int, int]] = []
    with serve(by_word) as server:
        annotate(server, tmp_path, [evidence(1), evidence(2, "river")], progress=lambda *at: seen.append(at))
    assert seen[0][1] == 4
    assert seen[-1] == (3, 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_cache_holds_neither_prompts_nor_keys(tmp_path):
    with serve(by_word) as server:
        annotate(server, tmp_path, [evidence(1)], ",auth_token=hush-hush")
    text = (tmp_path / FILE_NAME).read_text()
    assert server.headers[0]["Authorization"] == "Bearer sk-test-not-a-real-key"
    assert "sk-test" not in text
    assert "hush" not in text
    assert "inside" not in text


def test_a_random_model_ends_in_unclear(tmp_path, tiny):
    """Its window of 32 tokens holds no prompt, which is not cut but said."""
    generator = load_generator(f"hf,pretrained={tiny.baseline}", device="cpu")
    cache = AnswerCache.open(tmp_path, generator.name, generator.spec)
    found = annotate_by_model([evidence(1)], TAXONOMY, generator, cache=cache)
    assert found.annotations[0].category == "unclear"
    assert found.annotations[0].reason == "its prompt is longer than the annotator's model can read"
    assert found.cost.n_calls == 0


def test_a_random_model_that_can_read_the_prompt_ends_in_unclear(tmp_path):
    from tests.tiny import save_model

    folder = save_model(tmp_path / "model", 0, max_position_embeddings=2048)
    generator = load_generator(f"hf,pretrained={folder},max_gen_toks=8", device="cpu", batch_size=2)
    cache = AnswerCache.open(tmp_path, generator.name, generator.spec)
    found = annotate_by_model([evidence(1), evidence(2)], TAXONOMY, generator, cache=cache, retries=1)
    assert {a.reason for a in found.annotations} == {"the annotator's answers could not be used (2 tries)"}
    assert {a.annotator for a in found.annotations} == {"lm: model"}
    assert found.cost.n_calls == 4
