"""Latents named by a language model, and every name tried on texts that the model did not see when it gave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffharness.latents.annotation import Annotation, Detection
from diffharness.latents.annotators.answers import Naming, read_detection, read_naming
from diffharness.latents.annotators.asking import TOO_LONG, Cost, Generate, Question, Unusable, ask
from diffharness.latents.annotators.cache import AnswerCache
from diffharness.latents.annotators.evidence import LatentEvidence, ShownText
from diffharness.latents.annotators.prompt import Messages, detection_messages, n_characters, naming_messages
from diffharness.latents.taxonomy import UNCLEAR, Category, Taxonomy

DETECTION_METHOD = "the same model picks the held-out texts that show the category (balanced accuracy)"
NO_HELD_OUT = "it has no held-out texts of both sorts"


@dataclass(frozen=True)
class LmAnnotations:
    """What a model named latents, and what it took."""

    indices: tuple[int, ...]
    """The latents, in the order in which they came."""
    annotations: tuple[Annotation, ...]
    """One a latent."""
    ungraded: Mapping[int, str]
    """Named latents whose label was not tried, and why."""
    cost: Cost
    notes: tuple[str, ...] = ()
    """What else is worth telling, such as damaged lines of the cache."""

    @property
    def detection(self) -> float | None:
        """Mean detection score of the named latents; `None` where no label was tried."""
        scores = [each.detection.score for each in self.annotations if each.detection is not None]
        return float(np.mean(scores)) if scores else None


def annotate_by_model(
    evidence: Sequence[LatentEvidence],
    taxonomy: Taxonomy,
    generate: Generate,
    *,
    cache: AnswerCache,
    retries: int = 2,
    n_detection: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LmAnnotations:
    """Name every latent by its texts, then grade the names on held-out texts.

    Naming takes a call a latent, grading another for each that got a name. The score is balanced accuracy (half the
    share of active texts found plus half that of silent ones left alone; chance 0.5) over `n_detection` texts, half of
    each sort where there are enough.

    Args:
        evidence: the latents; one that fires on no text is `unclear` without a call.
        taxonomy: the names that there are.
        generate: the model, such as `load_generator` gives.
        cache: its answers so far.
        retries: how often an answer that can not be used is asked for again; then the latent is `unclear`.
        n_detection: held-out texts a latent.
        seed: picks and orders the held-out texts, of each latent by its own texts and not by its place.
        progress: called with (questions done, questions at most).

    Raises:
        RunError: the model fails; answers until then are in the cache.
    """
    count = _Count(progress, sum(bool(each.quantiles) * (1 + _can_be_graded(each)) for each in evidence))
    shown = [each for each in evidence if each.quantiles]
    questions = [_naming(each, taxonomy) for each in shown]
    answers, cost = ask(questions, generate, cache, retries, count.advance)
    named = dict(zip((each.index for each in shown), answers, strict=True))
    annotations = {each.index: _annotation(named.get(each.index), cache.name) for each in evidence}

    to_grade = [each for each in evidence if annotations[each.index].category != UNCLEAR]
    gradable = [each for each in to_grade if _can_be_graded(each)]
    count.settle(len(shown) + len(gradable))
    grading = [_grading(each, annotations[each.index].category, taxonomy, n_detection, seed) for each in gradable]
    grades, more = ask(grading, generate, cache, retries, count.advance)
    ungraded = {each.index: NO_HELD_OUT for each in to_grade if not _can_be_graded(each)}
    for each, grade in zip(gradable, grades, strict=True):
        if isinstance(grade, Unusable):
            ungraded[each.index] = grade.reason
        else:
            annotations[each.index] = replace(annotations[each.index], detection=grade)
    return LmAnnotations(
        indices=tuple(each.index for each in evidence),
        annotations=tuple(annotations[each.index] for each in evidence),
        ungraded=ungraded,
        cost=replace(cost.plus(more), n_latents=len(evidence)),
        notes=cache.notes,
    )


def estimate(
    evidence: Sequence[LatentEvidence],
    taxonomy: Taxonomy,
    cache: AnswerCache,
    *,
    retries: int = 2,
    n_detection: int = 10,
    seed: int = 0,
) -> Cost:
    """What `annotate_by_model` will ask at most, if no answer has to be asked for again; nothing is sent.

    Calls that grade a name not yet known are counted as if every latent got one, with the longest definition. Tokens
    are characters over 4.
    """
    sent: list[Messages] = []

    def refuse(conversations: Sequence[Messages]) -> list[None]:
        sent.extend(conversations)
        return [None] * len(conversations)

    dry = annotate_by_model(
        evidence, taxonomy, refuse, cache=cache, retries=retries, n_detection=n_detection, seed=seed
    )
    longest = max(taxonomy.categories, key=lambda category: len(category.definition))
    for each, annotation in zip(evidence, dry.annotations, strict=True):
        if annotation.reason == TOO_LONG and _can_be_graded(each):
            texts, _ = _held_out(each, n_detection, seed)
            sent.append(detection_messages(longest, texts))
    return replace(dry.cost, n_calls=len(sent), n_prompt_characters=sum(n_characters(each) for each in sent))


class _Count:
    """How many questions are done."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def advance(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done))

    def settle(self, total: int) -> None:
        self._total = total
        self.advance(0)


def _naming(evidence: LatentEvidence, taxonomy: Taxonomy) -> Question[Naming]:
    return Question(naming_messages(evidence, taxonomy), lambda answer: read_naming(answer, taxonomy))


def _annotation(answer: Naming | Unusable | None, name: str) -> Annotation:
    if answer is None:
        category, reason = UNCLEAR, "it fires on none of the texts"
    elif isinstance(answer, Unusable):
        category, reason = UNCLEAR, answer.reason
    else:
        category, reason = answer.category, answer.explanation
    best = None if category == UNCLEAR else category
    return Annotation(category=category, best=best, reason=reason, annotator=f"lm: {name}")


def _can_be_graded(evidence: LatentEvidence) -> bool:
    return bool(evidence.heldout_active and evidence.heldout_silent)


def _grading(
    evidence: LatentEvidence, name: str, taxonomy: Taxonomy, n_detection: int, seed: int
) -> Question[Detection]:
    category = next(each for each in taxonomy.categories if each.name == name)
    texts, is_active = _held_out(evidence, n_detection, seed)

    def read(answer: str) -> Detection:
        said = np.array(read_detection(answer, len(texts)))
        score = (said[is_active].mean() + (~said[~is_active]).mean()) / 2
        return Detection(score=float(score), chance=0.5, n=len(texts), method=DETECTION_METHOD)

    return Question(detection_messages(_without_examples(category), texts), read)


def _without_examples(category: Category) -> Category:
    return Category(category.name, category.definition)


def _held_out(evidence: LatentEvidence, n: int, seed: int) -> tuple[list[ShownText], np.ndarray]:
    """As many active as silent texts, at most n in all, in an order that tells nothing; and which are active."""
    content = json.dumps([text.tokens for text in (*evidence.heldout_active, *evidence.heldout_silent)])
    digest = hashlib.sha256(content.encode("ascii")).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    each = max(1, min(n // 2, len(evidence.heldout_active), len(evidence.heldout_silent)))
    chosen = [
        (texts[place], active)
        for texts, active in ((evidence.heldout_active, True), (evidence.heldout_silent, False))
        for place in rng.choice(len(texts), size=each, replace=False)
    ]
    order = rng.permutation(len(chosen))
    return [chosen[place][0] for place in order], np.array([chosen[place][1] for place in order])
