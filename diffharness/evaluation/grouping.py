"""Which requests lm-eval's grouping scores on the wrong tokens.

With `logits_cache` lm-eval forwards one row for all requests that share `context + continuation[:-1]`, scored over the
longest continuation among them, and takes each request's log-probabilities from the *first* positions of that span. A
request whose continuation is shorter (the same text, split later) needs the last ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

TokenRequest = tuple[Any, list[int], list[int]]
"""What lm-eval scores: something to call it by, the context's ids and the continuation's."""


def wrongly_grouped(requests: Sequence[TokenRequest]) -> list[int]:
    """Positions of the requests of one call whose log-likelihood plain lm-eval gathers from the wrong positions."""
    longest: dict[bytes, int] = {}
    prefixes = [array("q", [*context, *continuation[:-1]]).tobytes() for _, context, continuation in requests]
    for prefix, (_, _, continuation) in zip(prefixes, requests, strict=True):
        longest[prefix] = max(len(continuation), longest.get(prefix, 0))
    return [i for i, prefix in enumerate(prefixes) if len(requests[i][2]) < longest[prefix]]
