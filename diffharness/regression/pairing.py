"""The same documents on both sides, found by their hashes; what can not be compared is refused by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffharness.regression.scores import SideScores, TaskScores


@dataclass(frozen=True)
class Pairs:
    """Positions of documents that are the same on both sides, in the candidate's order."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    note: str | None = None
    """What was left out."""


@dataclass(frozen=True)
class Refused:
    """Why a task can not be compared, and what to do: a sentence."""

    sentence: str


def pair_tasks(
    name: str,
    before: SideScores,
    after: SideScores,
    *,
    intersect: bool,
    file: str | None,
    by_design: bool = False,
) -> Pairs | Refused | None:
    """Pair a task's documents.

    Args:
        name: the task.
        before: the accepted scores.
        after: the candidate's.
        intersect: whether to go on with the documents that match.
        file: how messages call the baseline file; `None` where both sides are of one run.
        by_design: whether the two sides have prompts of their own (`--own-templates`), so that those may differ.

    Returns:
        The pairs, why there are none, or `None` for a task that one side lacks where that is accepted.
    """
    there, here = before.tasks.get(name), after.tasks.get(name)
    source = file or "the run's baseline"
    if there is None or here is None:
        if intersect:
            return None
        if here is None:
            return Refused(f"the run does not have this task, {source} does; run it too, or go on with --intersect")
        return Refused(
            f"{source} does not have this task; bless a run that has it, leave it out of the policy, or go on with "
            "--intersect"
        )
    if there.version != here.version:
        return Refused(
            f"the task changed: version {there.version or 'unknown'} in {source}, {here.version or 'unknown'} in the "
            "run; use the version that was blessed, or bless a run of this one"
        )
    if (settled := _asked_otherwise(before.settings, after.settings, ("gen_kwargs",))) is not None:
        return Refused(f"answers were generated otherwise: {settled}; ask alike, or bless a run of these settings")
    if by_design:
        here = replace(here, asked=here.documents)
        there = replace(there, asked=there.documents)
    return _pair(there, here, _settings(before, after), intersect=intersect, source=source)


def _pair(there: TaskScores, here: TaskScores, settings: str, *, intersect: bool, source: str) -> Pairs | Refused:
    """The documents of a task that both sides have, by document and question first, then by document alone."""
    matched = _match(
        list(zip(there.documents, there.asked, strict=True)), list(zip(here.documents, here.asked, strict=True))
    )
    rest = _rest(matched, there.n, here.n)
    by_document = _match([there.documents[i] for i in rest[0]], [here.documents[i] for i in rest[1]])
    otherwise = sorted(rest[1][j] for j in by_document)
    n_gone, n_new = len(rest[0]) - len(by_document), len(rest[1]) - len(by_document)
    if (n_gone or n_new) and not intersect:
        return Refused(
            f"{n_gone} of {there.n} documents of {source} are not in the run, {n_new} of the run's {here.n} are not in "
            f"{source}{settings}; evaluate the same documents, or go on with --intersect"
        )
    if otherwise and not intersect:
        number = here.doc_ids[otherwise[0]] if here.doc_ids else otherwise[0]
        return Refused(
            f"{len(otherwise)} of {here.n} documents have another prompt or target than in {source} (the first is "
            f"document {number}){settings}; ask alike, bless a run of this version, or go on with --intersect"
        )
    if not matched:
        return Refused(
            f"no document is the same as in {source}{settings}; ask alike, or bless a run of these documents"
        )
    note = None
    if n_gone or n_new or otherwise:
        asked = f", {len(otherwise)} that were asked otherwise" if otherwise else ""
        note = (
            f"{there.name}: {len(matched)} documents compared; left out were {n_gone} of {source} alone, {n_new} of "
            f"the run alone{asked}"
        )
    order = sorted(matched)
    return Pairs(tuple(matched[j] for j in order), tuple(order), note)


def _match(there: Sequence[Any], here: Sequence[Any]) -> dict[int, int]:
    """Positions `here` to positions `there` of equal things; what comes several times is paired in order."""
    waiting: dict[Any, list[int]] = defaultdict(list)
    for i in reversed(range(len(there))):
        waiting[there[i]].append(i)
    return {j: waiting[thing].pop() for j, thing in enumerate(here) if waiting[thing]}


def _rest(matched: Mapping[int, int], n_there: int, n_here: int) -> tuple[list[int], list[int]]:
    """Positions on both sides that are not paired."""
    taken = set(matched.values())
    return [i for i in range(n_there) if i not in taken], [j for j in range(n_here) if j not in matched]


def _settings(before: SideScores, after: SideScores) -> str:
    """What the two sides were asked with, where that differs: a likely cause."""
    found = _asked_otherwise(before.settings, after.settings, None)
    return f" ({found})" if found is not None else ""


def _asked_otherwise(before: Mapping[str, Any], after: Mapping[str, Any], only: Sequence[str] | None) -> str | None:
    """Settings that differ, `key before, then now`; a side whose settings are not known is not held against it."""
    said = []
    flat = [_flat(side) for side in (before, after)]
    for key in dict.fromkeys([*flat[0], *flat[1]]):
        values = [side.get(key) for side in flat]
        if (only is None or key in only) and values[0] != values[1]:
            said.append(f"{key} was {_shown(values[0])}, is {_shown(values[1])}")
    return "; ".join(said) or None


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`limit` and the protocol's keys; what is empty or false is as if it was not given."""
    protocol = settings.get("protocol")
    found = {"limit": settings.get("limit"), **(protocol if isinstance(protocol, Mapping) else {})}
    return {key: value for key, value in found.items() if value not in (None, False, {}, "")}


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
