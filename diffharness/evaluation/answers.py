"""Where a generated answer ends: the ids that lm-eval's answer text was made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerEnd:
    """What ends an answer.

    Args:
        ends: ids after which Hugging Face's `generate` writes only padding.
        stops: texts at which lm-eval cuts the answer.
        think_end: text or id up to whose last occurrence lm-eval takes a generation for thinking, which no stop cuts.
        decode: ids to text, as lm-eval decodes them.
    """

    ends: Collection[int]
    stops: Sequence[str]
    think_end: str | int | None
    decode: Callable[[list[int]], str]

    def length(self, generated: Sequence[int]) -> int:
        """How many of the generated ids were chosen by the model up to the end of the answer, its stop included."""
        length = next((i + 1 for i, token in enumerate(generated) if token in self.ends), len(generated))
        kept = list(generated[:length])
        first = length - kept[::-1].index(self.think_end) if self.think_end in kept else 0
        think_end = self.think_end if isinstance(self.think_end, str) else ""
        n_thoughts = self.decode(kept[first:]).count(think_end) if think_end else 0

        def stopped(n: int) -> bool:
            answer = self.decode(kept[first:n])
            if think_end:
                *thoughts, answer = answer.split(think_end)
                if len(thoughts) < n_thoughts:
                    return False
            answer = answer if self.think_end is None else answer.lstrip()
            return any(stop in answer for stop in self.stops if stop)

        return bisect_left(range(length), True, lo=first + 1, key=stopped) if stopped(length) else length
