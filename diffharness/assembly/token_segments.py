"""A document's account by token, laid out as it is read: what its sequences share once, then what each has of its own.

Numbers of a shared stretch are summed over the sequences that share it, so that nothing counts twice and all stretches
add up to the document's account. Legend: T positions, C columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.attribution.batches import DocumentForm, Span
    from diffharness.attribution.tokens import TokenAccount

AROUND = 40
"""Pieces that are kept on either side of a column's strongest."""
_KEPT_WHOLE = 2 * AROUND + 1
_LONGEST_CHARACTER = 8
"""Tokens that may make up one character."""
_LONGEST_PIECE = 200
_UNFINISHED = "\ufffd"
DIGITS = 4


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens under one name."""

    name: str
    texts: tuple[str, ...]
    """Of pieces: a token each, or the tokens of one character."""
    lengths: tuple[int, ...]
    """Tokens of every piece."""
    values_PC: Float[np.ndarray, "P C"]
    """Of every piece."""


def stretches(form: DocumentForm, found: TokenAccount, output_type: str, tokenizer: Any) -> list[Stretch]:
    """A document's stretches in reading order.

    Args:
        form: its readings.
        found: its account by token.
        output_type: lm-eval's, of its task.
        tokenizer: makes texts of ids.
    """
    sequences = dict(zip(found.sequences, found.values, strict=True))
    owners = {ids: [i for i, span in enumerate(form.spans) if span.ids == ids] for ids in sequences}
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for ids, own in owners.items():
        groups.setdefault(_shared(ids, [form.spans[i] for i in own], output_type), []).append(ids)
    made = []
    for shared, members in groups.items():
        if shared:
            values_TC = np.sum([sequences[ids][: len(shared)] for ids in members], axis=0)
            made.append(_stretch(_shared_name(output_type), shared, shared, values_TC, tokenizer))
        for ids in members:
            own = owners[ids]
            last = form.spans[own[0]].targets[-1:] if len(own) == 1 else ()  # scored, and read by nobody
            if len(ids) + len(last) > len(shared):
                values_TC = sequences[ids][len(shared) :]
                values_TC = np.vstack([values_TC, np.zeros((len(last), values_TC.shape[1]))])
                name = ", ".join(_own_name(i, len(form.spans), output_type) for i in own)
                made.append(_stretch(name, (*ids, *last), (*ids, *last)[len(shared) :], values_TC, tokenizer))
    return made


def _shared(ids: tuple[int, ...], spans: Sequence[Span], output_type: str) -> tuple[int, ...]:
    """What comes before the scored tokens; the whole sequence where several readings are of it."""
    if output_type == "loglikelihood_rolling":
        return ()
    return ids if len(spans) > 1 else ids[: spans[0].start + 1]


def _shared_name(output_type: str) -> str:
    return "before the answers differ" if output_type == "generate_until" else "prompt"


def _own_name(reading: int, n_readings: int, output_type: str) -> str:
    if output_type == "multiple_choice":
        return f"choice {reading + 1}"
    if output_type == "generate_until":
        repeat = f" {reading // 2 + 1}" if n_readings > 2 else ""
        return f"{('baseline', 'candidate')[reading % 2]}'s answer{repeat}"
    part = f", part {reading + 1}" if n_readings > 1 else ""
    return ("text" if output_type == "loglikelihood_rolling" else "target") + part


def _stretch(
    name: str, sequence: tuple[int, ...], own: tuple[int, ...], values_TC: np.ndarray, tokenizer: Any
) -> Stretch:
    """The last tokens of a sequence, decoded where they stand."""
    first = len(sequence) - len(own)
    parts = [(at - first, n, text) for at, n, text in pieces(sequence, tokenizer, {first}) if at >= first]
    values_PC = np.array([values_TC[at : at + n].sum(axis=0) for at, n, _ in parts])
    return Stretch(name, tuple(t for _, _, t in parts), tuple(n for _, n, _ in parts), values_PC)


def pieces(ids: Sequence[int], tokenizer: Any, cuts: Collection[int] = ()) -> Iterator[tuple[int, int, str]]:
    """First token, number of tokens and text of every piece: what decoding adds, characters kept whole.

    Args:
        ids: a sequence.
        tokenizer: decodes it, a few tokens at a time.
        cuts: places that no piece reaches across.
    """
    start = at = 0
    for end in range(1, len(ids) + 1):
        before, now = (_decoded(ids[start:stop], tokenizer) for stop in (at, end))
        is_cut = end == len(ids) or end in cuts or end - at >= _LONGEST_CHARACTER
        if now.endswith(_UNFINISHED) and not is_cut:
            continue
        text = now[len(before) :] if now.startswith(before) else _decoded(ids[at:end], tokenizer)
        yield at, end - at, text
        start, at = at, end


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) if ids else ""


def segment(stretch: Stretch, strongest: int) -> schema.TokenSegment:
    """A stretch as the report has it: whole where it is short, else what is near the strongest pieces.

    Args:
        stretch: what is laid out, its columns those of the report.
        strongest: how many of the first columns have their strongest piece and what is around it kept.
    """
    n = len(stretch.texts)
    kept = set(range(n))
    if n > _KEPT_WHOLE:
        peaks = np.abs(stretch.values_PC[:, :strongest]).argmax(axis=0).tolist() or [n - 1]
        kept = {p for peak in peaks for p in range(max(0, peak - AROUND), min(n, peak + AROUND + 1))}
    chosen = sorted(kept)
    first_P = np.cumsum([0, *stretch.lengths[:-1]])
    left_C = stretch.values_PC.sum(axis=0) - stretch.values_PC[chosen].sum(axis=0)
    return schema.TokenSegment(
        name=stretch.name,
        n_tokens=sum(stretch.lengths),
        places=tuple(int(first_P[p]) for p in chosen),
        lengths=tuple(stretch.lengths[p] for p in chosen),
        texts=tuple(stretch.texts[p][:_LONGEST_PIECE] for p in chosen),
        values=tuple(tuple(rounded(v) for v in column) for column in stretch.values_PC[chosen].T),
        left_out=tuple(rounded(v) if len(chosen) < n else 0.0 for v in left_C),
    )


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.{DIGITS}g}")
