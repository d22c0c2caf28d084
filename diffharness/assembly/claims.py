"""Claims: which are tried, and how what was found is worded in the report.

Legend: N documents, C contributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffharness.assembly.checks import SMALLEST_SHARE
from diffharness.report import schema
from diffharness.report.claims import FOUND_WHERE_LOOKED_FOR, MISSING, cause_words, falls_short_words, not_tried_words
from diffharness.statistics.multiple import holm

if TYPE_CHECKING:
    import pyarrow as pa

    from diffharness.attribution.claims import Documents, Finding, Trial
    from diffharness.attribution.matched import Origin
    from diffharness.pipeline import Run

LEVEL = 0.05
"""Of both p-values."""
_NOT_SHOWN = ("claimed_sign", "p_studentised", "not_tried")


@dataclass(frozen=True)
class Contributed:
    """What categories contribute to one task, a document."""

    doc_ids: tuple[int, ...]
    sample_N: Float[np.ndarray, " N"]
    """How many of the task's documents each stands for."""
    keys: tuple[tuple[str, Origin], ...]
    """Categories by origin; those that contribute nothing at all are left out."""
    values_NC: Float[np.ndarray, "N C"]
    gap_N: Float[np.ndarray, " N"]


def contributed(table: pa.Table, task: str) -> Contributed:
    """One task's documents of `contributions.parquet`."""
    is_own = np.array(table["task"].to_pylist()) == task
    rows = table.take(np.flatnonzero(is_own)).to_pylist()
    doc_ids = tuple(sorted({row["doc_id"] for row in rows}))
    place = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    sample_N, gap_N = np.ones(len(doc_ids)), np.zeros(len(doc_ids))
    columns: dict[tuple[str, Origin], np.ndarray] = {}
    for row in rows:
        i = place[row["doc_id"]]
        sample_N[i] = row["weight"]
        gap_N[i] += row["contribution"]
        if row["kind"] == "latents":
            columns.setdefault((row["category"], row["origin"]), np.zeros(len(doc_ids)))[i] = row["contribution"]
    keys = tuple(key for key, values_N in columns.items() if values_N.any())
    values_NC = np.array([columns[key] for key in keys]).reshape(len(keys), len(doc_ids)).T
    return Contributed(doc_ids, sample_N, keys, values_NC, gap_N)


def clear_keys(task: Mapping[str, Any]) -> set[tuple[str, Origin]]:
    """The categories and origins that clearly contribute to a task, by its account over all documents."""
    gap = task["surrogate"]["gap"]
    return {
        (part["category"], part["origin"])
        for part in task["components"]
        if part["kind"] == "latents"
        and (part["low"] > 0 or part["high"] < 0)
        and abs(part["contribution"]) >= SMALLEST_SHARE * abs(gap)
    }


def tried(task: str, trial: Trial, finding: Finding, documents: Documents, tested_N: np.ndarray) -> dict[str, Any]:
    """A claim that was tested, as JSON."""
    beside = {
        "mean_difference": trial.mean_difference_N,
        "reconstruct_only": trial.reconstruct_only_N,
        "swap": trial.swap_N,
    }
    return {
        "task": task,
        "category": trial.wanted.category,
        "origin": trial.wanted.origin,
        "effect": finding.effect,
        "claimed_sign": finding.sign,
        "interval": {
            "low": float(finding.interval.low),
            "high": float(finding.interval.high),
            "level": finding.interval.level,
            "method": finding.interval.method,
        },
        "n": finding.n,
        "random_effects": _summary(finding, trial.factors) if trial.not_tried is None else None,
        "p_random": finding.p_random if trial.not_tried is None else None,
        "p_studentised": finding.p_studentised if trial.not_tried is None else None,
        **{name: float(documents.mean(values_N, tested_N)) for name, values_N in beside.items()},
        "not_tried": trial.not_tried,
    }


def _summary(finding: Finding, factors: Sequence[float]) -> dict[str, Any]:
    q05, q95 = np.quantile(finding.random_S, [0.05, 0.95])
    return {
        "mean": float(finding.random_S.mean()),
        "sd": float(finding.random_S.std(ddof=1)),
        "q05": float(q05),
        "q95": float(q95),
        "n_sets": len(finding.random_S),
        "exceed": finding.n_reaching,
        "factor": float(np.median(factors)),
    }


def not_selected(task: str, key: tuple[str, Origin]) -> dict[str, Any]:
    """A clear contribution that no half of the documents selects, as JSON."""
    nothing = ("effect", "claimed_sign", "interval", "random_effects", "p_random", "p_studentised")
    beside = ("mean_difference", "reconstruct_only", "swap", "not_tried")
    return {"task": task, "category": key[0], "origin": key[1], "n": 0, **dict.fromkeys((*nothing, *beside))}


def claims(
    run: Run, accounts: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[schema.Claim, ...]:
    """A run's claims; none where they were left out."""
    if not run.config.random_sets:
        return ()
    body, checks = run.read_json(run.claims(), "claims.json"), run.read_json(run.checks(), "checks.json")
    return worded(body, checks, accounts, rows)


def worded(
    body: Mapping[str, Any],
    checks: Sequence[Mapping[str, Any]],
    accounts: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> tuple[schema.Claim, ...]:
    """The claims as the report shows them, worded no stronger than they are.

    The family of Holm's correction is everything that was looked at, every category by either origin on every task
    with a real gap, and not only what was selected: the halves keep a document's luck out of the test, but a set of
    latents that by luck does much on one half does much on the other too, and the largest of many was picked.

    Args:
        body: what the claims stage left.
        checks: the exact checks: `task`, `category`, `origin`, `change`, and `interval` or its `low` and `high`.
        accounts: by task, the account.
        rows: the leaderboard.
    """
    found = body["claims"]
    p_values = [claim["p_studentised"] for claim in found]
    untested = [1.0] * max(0, body["n_looked_at"] - sum(p is not None for p in p_values))
    corrected = holm([*(np.nan if p is None else p for p in p_values), *untested])
    checked = {(c["task"], c["category"], c.get("origin", "written")): c for c in checks}
    gaps = {row["task"]: row["gap"] for row in rows if row["is_primary"]}
    made = []
    for claim, p_corrected in zip(found, corrected[: len(found)], strict=True):
        p = None if claim["p_studentised"] is None else float(p_corrected)
        check = checked.get((claim["task"], claim["category"], claim["origin"]))
        is_causal, words = _worded(claim, p, check, accounts[claim["task"]]["surrogate"], gaps[claim["task"]])
        shown = {name: value for name, value in claim.items() if name not in _NOT_SHOWN}
        made.append(schema.Claim.model_validate({**shown, "p_corrected": p, "is_causal": is_causal, "words": words}))
    return tuple(made)


def _worded(
    claim: Mapping[str, Any],
    p_corrected: float | None,
    check: Mapping[str, Any] | None,
    surrogate: Mapping[str, Any],
    gap: float,
) -> tuple[bool, str]:
    """Whether a claim may be called a cause, and what may be said of it."""
    if claim["effect"] is None:
        return False, FOUND_WHERE_LOOKED_FOR
    if claim["not_tried"] is not None:
        return False, not_tried_words(claim["not_tried"])
    is_clear = claim["interval"]["low"] > 0 or claim["interval"]["high"] < 0
    has_sign, beats_sets = claim["effect"] * claim["claimed_sign"] > 0, claim["p_random"] <= LEVEL
    holds = {
        "unseen": is_clear,
        "sign": has_sign or not is_clear,
        "sets": beats_sets or not has_sign,
        "corrected": not beats_sets or (p_corrected is not None and p_corrected <= LEVEL),
        "checked": check is not None,
        "check": check is None or _agrees(claim["effect"] * surrogate["gap"], gap, check),
        "tracks": surrogate["tracks"],
    }
    missing = [MISSING[name] for name, does in holds.items() if not does]
    if missing:
        return False, falls_short_words(missing)
    return True, cause_words(against=claim["effect"] * surrogate["gap"] < 0)


def _agrees(signed_effect: float, gap: float, check: Mapping[str, Any]) -> bool:
    """Whether lm-eval's own check has the effect's sign, each relative to its own gap, and its interval excludes 0."""
    bounds = check.get("interval", check)
    return signed_effect * gap * check["change"] > 0 and (bounds["low"] > 0 or bounds["high"] < 0)
