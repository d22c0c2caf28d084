"""Why a document's score changed, as far as the answers themselves show it: kinds of loss that are no loss of skill.

A flip is a document whose score changed. Its kind is what the answer of the side that scored worse shows, be that the
candidate (the document was lost) or the baseline (it was gained). An answer may show several signs; all are kept, and
the first in the order of `KINDS` is the kind. A sign of `refused` or `truncated` that the better answer shows as well
is kept but decides nothing: it is not what the two differ in. `answer differs` is what is left: skill, as far as can be
told. A sign is no proof: a model that does not know the answer may ramble up to the limit. Signs are read from texts by
rules, and rules err: an answer that is a common word may be found by accident.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from diffharness.evaluation.answer_words import language_switch, refusal
from diffharness.evaluation.scores import DocumentScore

Kind = Literal[
    "refused", "ran on past the answer", "language switched", "truncated", "empty", "wrong format", "answer differs"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of precedence."""
REST: Kind = "answer differs"

_LONGEST, _LONGEST_LINE = 40_000, 2_000
"""Characters of an answer, and of a line in it, that are searched."""
_MOST_TURNS = 20
_LONGEST_GOLD = 200
_LONGEST_PERIOD = 40
"""Words of a text that is repeated, at most."""
_NOTHING = ("", "[invalid]")
"""What lm-eval's filters leave where they find nothing."""
_TURN = re.compile(
    r"(?:^|(?<=\s))(?:Question|Q|Problem|User|Human|Input|Instruction|Exercise|Passage|Frage|Pregunta|Вопрос|问题|問題|질문)"
    r"\s*\d*\s*[:\uff1a]|^\s*#{1,6}\s*(?:Question|Instruction|Input|User|Human|Problem|Exercise)\b|<\|[A-Za-z_]+\|>"
    r"|\[/?INST\]",
    re.MULTILINE,
)
"""What begins another turn or question."""
_LABEL = re.compile(r"^[ \t]*([^\W\d_][\w ]{0,24}):", re.MULTILINE)
_ANSWER_LABELS = {"answer", "a", "final answer", "response", "solution", "output", "explanation", "reasoning"}
"""Labels of an answer's own parts."""
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Answer:
    """One side's answer to a document."""

    response: str
    """As it was written."""
    filtered: str
    """What the task's filter left of it."""
    stopped: bool | None
    """Whether it ended by itself; `None` where that is not known."""


@dataclass(frozen=True)
class Sign:
    """Something that an answer shows."""

    kind: Kind
    evidence: str
    decides: bool = True
    """Whether it may be the flip's kind: not where the better answer shows it too."""


@dataclass(frozen=True)
class Flip:
    """A document whose score changed."""

    doc_id: int
    difference: float
    """Candidate − baseline, in the metric's unit."""
    is_loss: bool
    """Whether the candidate's score is the worse one, in the metric's direction."""
    kind: Kind
    signs: tuple[Sign, ...]


def changed(values: Mapping[int, tuple[float, float]], *, higher_is_better: bool) -> dict[int, bool]:
    """The documents whose score changed, and whether they were lost.

    Args:
        values: by document, the baseline's and the candidate's score.
        higher_is_better: the metric's direction.
    """
    return {i: (c < b) == higher_is_better for i, (b, c) in values.items() if b != c}


def flips(
    baseline: Mapping[int, DocumentScore],
    candidate: Mapping[int, DocumentScore],
    values: Mapping[int, tuple[float, float]],
    *,
    higher_is_better: bool,
) -> list[Flip]:
    """The documents of a generating task whose score changed, each with its kind; in the order of `values`."""
    found = []
    for doc_id, is_loss in changed(values, higher_is_better=higher_is_better).items():
        sides = (baseline[doc_id], candidate[doc_id])
        worse, better = sides[::-1] if is_loss else sides
        shown = signs(_answer(worse), _answer(better), gold=worse.target, prompt=worse.prompt)
        before, after = values[doc_id]
        found.append(Flip(doc_id, after - before, is_loss, kind_of(shown), shown))
    return found


def kind_of(shown: tuple[Sign, ...]) -> Kind:
    """The first kind that decides, in the order of `KINDS`."""
    for kind in KINDS:
        if any(sign.kind == kind and sign.decides for sign in shown):
            return kind
    return REST


def signs(worse: Answer, better: Answer, *, gold: str, prompt: str) -> tuple[Sign, ...]:
    """All that the worse answer shows, in the order of `KINDS`."""
    found: list[Sign] = []
    text = worse.response[:_LONGEST]
    rights = right_answers(gold, better.filtered)
    if (words := refusal(worse.response)) is not None:
        both = refusal(better.response) is not None
        found.append(Sign("refused", f"begins with {_short(words)}{_so(both=both)}", not both))
    if (evidence := _ran_on(text, worse.filtered, rights, prompt)) is not None:
        found.append(Sign("ran on past the answer", evidence))
    if (language := language_switch(text, (better.response, gold, prompt))) is not None:
        found.append(Sign("language switched", f"is in {language}, which prompt, gold and the other answer are not"))
    if worse.stopped is False:
        both = better.stopped is False
        found.append(Sign("truncated", f"ended by the limit of tokens, no stop in it{_so(both=both)}", not both))
    if not worse.response.strip():
        found.append(Sign("empty", "nothing was written"))
    elif (evidence := _wrong_format(text, worse.filtered, better.filtered, rights)) is not None:
        found.append(Sign("wrong format", evidence))
    return tuple(found)


def right_answers(gold: str, better: str) -> tuple[str, ...]:
    """What counts as the right answer: the gold ones, a gold solution's last number, the better side's answer."""
    golds = [gold]
    if gold.startswith("["):
        try:
            listed = ast.literal_eval(gold)
            golds = [str(g) for g in listed] if isinstance(listed, list) else golds
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            golds = [gold]  # a text that begins with a bracket, and no list
    golds = [g.rpartition("####")[2] for g in golds]
    whole = dict.fromkeys(text.strip() for text in (*golds, better) if text not in _NOTHING)
    return tuple(t for t in whole if len(t) <= _LONGEST_GOLD and any(c.isalnum() for c in t))


def _answer(document: DocumentScore) -> Answer:
    return Answer(document.response or "", document.answer, document.stopped)


def _pattern(right: str) -> re.Pattern[str]:
    """Where a text holds a right answer as words of their own; a single letter only as a choice stands in a text."""
    escaped = r"\s+".join(re.escape(word) for word in right.split())
    if len(right) == 1 and right.isalpha() and not _UNSPACED.match(right):
        return re.compile(rf"\({escaped}\)|(?<!\w){escaped}(?=[.):,]|\s*(?:\n|$))")
    if _UNSPACED.search(right):
        return re.compile(escaped, re.IGNORECASE)
    before = r"(?<![\w−-])(?<!\d[.,])" if right[0].isalnum() else ""
    return re.compile(rf"{before}{escaped}(?!\w|[.,]\d)", re.IGNORECASE)


def _ran_on(text: str, filtered: str, rights: tuple[str, ...], prompt: str) -> str | None:
    """How an answer goes on after it gave the right one; `None` where it does not."""
    for right in rights:
        if _same(filtered, right):
            continue
        pattern = _pattern(right)
        for turn in islice(_turns(text, prompt), _MOST_TURNS):
            if pattern.search(_last_line(text[: turn.start()])):
                return f"after {_short(right)} it goes on with {_short(text[turn.start() :])}"
        first = re.compile(r"[\s*_\"'`(\[$]*").match(text)
        given = pattern.match(text, first.end() if first else 0)
        if given is not None and _goes_on(right, text[given.end() :]):
            return f"begins with {_short(right)} and goes on with {_short(text[given.end() :])}"
        repeated = _repeated(text)
        if repeated is not None and pattern.search(_last_line(repeated[0])):
            return f"after {_short(right)} it repeats {_short(repeated[1])}"
    return None


def _goes_on(right: str, rest: str) -> bool:
    """Whether there is more text behind a right answer, and not the rest of a sum that it is the first number of."""
    is_sum = _NUMBER.fullmatch(right) is not None and re.match(r"\s*[-−+*/×÷=^%]", rest) is not None
    return not is_sum and any(c.isalnum() for c in rest)


def _turns(text: str, prompt: str) -> Iterator[re.Match[str]]:
    """Where another turn begins in an answer: by usual words, or by a label that begins lines of the prompt."""
    labels = {m[1].casefold() for m in _LABEL.finditer(prompt[-_LONGEST:])} - _ANSWER_LABELS
    yield from _TURN.finditer(text)
    yield from (m for m in _LABEL.finditer(text) if m[1].casefold() in labels)


def _repeated(text: str) -> tuple[str, str] | None:
    """What a text ends in repeating three times or more: the text up to its first time, and what is repeated."""
    words = text.split()
    for period in range(1, min(_LONGEST_PERIOD, len(words) // 3) + 1):
        start = len(words) - period
        while start > 0 and words[start - 1] == words[start - 1 + period]:
            start -= 1
        if len(words) - start >= max(3 * period, 4):
            return " ".join(words[: start + period]), " ".join(words[start : start + period])
    return None


def _wrong_format(text: str, filtered: str, better: str, rights: tuple[str, ...]) -> str | None:
    """How an answer is one in another form than the task reads; `None` where it is not."""
    if filtered.strip() in _NOTHING and better.strip() not in _NOTHING:
        return f"the filter found nothing in {_short(text)}"
    last = re.split(r"(?<=[.!?。])\s+", _last_line(text))[-1]
    for right in rights:
        if filtered.strip() == right:
            continue
        if _same(filtered, right):
            return f"{_short(filtered)} is {_short(right)} in another case, spacing or punctuation"
        for match in _pattern(right).finditer(last):
            denied = re.search(r"(?:\bnot|\bno|n't|n\u2019t)\s+\W*$", last[: match.start()], re.IGNORECASE)
            later = _NUMBER.fullmatch(right) and _NUMBER.search(last, match.end())
            if not denied and not later:
                return f"{_short(right)} stands in {_short(last)}, out of the form that is read"
    return None


def _last_line(text: str) -> str:
    return next((line for line in reversed(text[-_LONGEST_LINE:].splitlines()) if line.strip()), "")


def _same(one: str, other: str) -> bool:
    """Whether two answers differ in case, spacing and punctuation at most."""
    first, second = (re.sub(r"[^\w.−-]|_", "", text.casefold()).strip(".") for text in (one, other))
    return first == second


def _so(*, both: bool) -> str:
    return "; so does the better answer" if both else ""


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text[: 4 * limit].split())
    return f"“{line if len(line) <= limit else line[: limit - 1] + '…'}”"
