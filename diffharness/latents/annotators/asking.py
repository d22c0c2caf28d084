"""Questions to a model, each answered once: from the cache, or by a call; bad answers are asked for again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from diffharness.errors import RunError
from diffharness.latents.annotators.answers import AnswerError
from diffharness.latents.annotators.cache import AnswerCache
from diffharness.latents.annotators.prompt import Messages, n_characters, with_complaint

CHARACTERS_A_TOKEN = 4
"""Roughly, in English; numbers of tokens here are numbers of characters over this."""

_AT_ONCE = 16
"""Questions between two writes of the cache: as many answers are lost at most when a run is cut off."""

Generate: TypeAlias = Callable[[Sequence[Messages]], Sequence[str | None]]
"""Answers of a model, in order; `None` for a prompt that is longer than the model can read."""

TOO_LONG = "its prompt is longer than the annotator's model can read"

T = TypeVar("T")


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked, and how an answer is read; `read` raises `AnswerError`."""

    messages: Messages
    read: Callable[[str], T]


@dataclass(frozen=True)
class Unusable:
    """A question that got no answer that could be used, and why."""

    reason: str


@dataclass(frozen=True)
class Cost:
    """What asking takes, or took."""

    n_latents: int
    n_calls: int = 0
    """Questions sent to the model, repeated ones included; before asking, at most so many unless answers are bad."""
    n_cached: int = 0
    """Questions answered from the cache."""
    n_retries: int = 0
    """Questions that repeat one whose answer could not be used."""
    n_prompt_characters: int = 0
    """Sent."""
    n_answer_characters: int = 0
    """Received."""

    @property
    def n_prompt_tokens(self) -> int:
        """Roughly: characters over 4."""
        return round(self.n_prompt_characters / CHARACTERS_A_TOKEN)

    @property
    def n_answer_tokens(self) -> int:
        """Roughly: characters over 4."""
        return round(self.n_answer_characters / CHARACTERS_A_TOKEN)

    @property
    def before(self) -> str:
        """An estimate in words."""
        return (
            f"{_many(self.n_latents, 'latent')}: at most {_many(self.n_calls, 'call')} if no answer has to be "
            f"repeated, {self.n_cached:,} more from the cache; about {self.n_prompt_tokens:,} tokens "
            "to send (characters / 4)"
        )

    @property
    def after(self) -> str:
        """What asking took, in words."""
        return (
            f"{_many(self.n_latents, 'latent')}: {_many(self.n_calls, 'call')} ({self.n_retries:,} of them repeated), "
            f"{self.n_cached:,} more from the cache; about {self.n_prompt_tokens:,} tokens sent and "
            f"{self.n_answer_tokens:,} received (characters / 4)"
        )

    def plus(self, other: Cost) -> Cost:
        """Both, of the same latents."""
        return Cost(
            self.n_latents,
            self.n_calls + other.n_calls,
            self.n_cached + other.n_cached,
            self.n_retries + other.n_retries,
            self.n_prompt_characters + other.n_prompt_characters,
            self.n_answer_characters + other.n_answer_characters,
        )


def ask(
    questions: Sequence[Question[T]],
    generate: Generate,
    cache: AnswerCache,
    retries: int,
    advance: Callable[[int], None],
) -> tuple[list[T | Unusable], Cost]:
    """Answers in the order of the questions, and what they cost (`n_latents` is 0).

    A bad answer is asked for again with the reason, up to `retries` times. Equal questions are sent once. `advance` is
    told of every so many questions that are done.

    Raises `RunError` where the model fails or does not answer every question; what was answered before is kept.
    """
    results: list[T | Unusable] = [Unusable(_unusable(retries))] * len(questions)
    pending = {place: question.messages for place, question in enumerate(questions)}
    cost = Cost(0)
    for attempt in range(1, retries + 2):
        again: dict[int, Messages] = {}
        for some in _chunks(list(pending)):
            answers, spent = _answer([pending[place] for place in some], generate, cache)
            cost = cost.plus(spent)
            for place, answer in zip(some, answers, strict=True):
                if answer is None:
                    results[place] = Unusable(TOO_LONG)
                    continue
                try:
                    results[place] = questions[place].read(answer)
                except AnswerError as bad:
                    again[place] = with_complaint(questions[place].messages, attempt, str(bad))
            advance(len(some) if attempt > retries else len(some) - sum(place in again for place in some))
        if attempt <= retries:
            cost = cost.plus(Cost(0, n_retries=len(again)))
        pending = again
    return results, cost


def _answer(conversations: Sequence[Messages], generate: Generate, cache: AnswerCache) -> tuple[list[str | None], Cost]:
    """From the cache, or by one call of `generate` for all that it lacks."""
    keys = [cache.key(messages) for messages in conversations]
    known = [cache.get(messages) for messages in conversations]
    asked = {key: messages for key, messages, answer in zip(keys, conversations, known) if answer is None}
    fresh: dict[str, str | None] = {}
    if asked:
        answers = list(generate(list(asked.values())))
        if len(answers) != len(asked):
            raise RunError(f"the annotator {cache.name} gave {len(answers)} answers to {len(asked)} questions")
        fresh = dict(zip(asked, answers))
        cache.add({key: answer for key, answer in fresh.items() if answer is not None})
    sent = [key for key, answer in fresh.items() if answer is not None]
    cost = Cost(
        n_latents=0,
        n_calls=len(sent),
        n_cached=len(conversations) - len(asked),
        n_prompt_characters=sum(n_characters(asked[key]) for key in sent),
        n_answer_characters=sum(len(fresh[key] or "") for key in sent),
    )
    return [cache.get(messages) for messages in conversations], cost


def _chunks(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), _AT_ONCE):
        yield places[start : start + _AT_ONCE]


def _many(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def _unusable(retries: int) -> str:
    tries = "1 try" if retries == 0 else f"{retries + 1} tries"
    return f"the annotator's answers could not be used ({tries})"
