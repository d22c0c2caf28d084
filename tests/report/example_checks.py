"""What the example report's own checks found: claims, Shapley values, depth and flips of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from diffharness.report.claims import MISSING, cause_words, falls_short_words, not_tried_words
from diffharness.report.schema import (
    Claim,
    Component,
    DepthProfile,
    FlipExample,
    FlipKind,
    FlipKinds,
    Interval,
    LayerDepth,
    PositionShift,
    RandomEffects,
    Report,
    Shapley,
    ShapleyAgreement,
    ShapleyPlayer,
    Task,
    component_label,
)

_CAUSE = cause_words(against=False)
WORDS = {
    ("organism_safety", "written"): _CAUSE,
    ("organism_safety", "read"): falls_short_words([MISSING["sets"]]),
    ("organism_multilingual", "written"): _CAUSE,
    ("organism_instructions", "written"): falls_short_words([MISSING["corrected"]]),
    ("organism_self_reference", "written"): _CAUSE,
    ("organism_hallucination", "written"): not_tried_words("too few latents fire as often"),
    ("organism_safety_multilingual", "written"): falls_short_words([MISSING["tracks"]]),
}
"""By task and origin, what may be said of the category that carries it."""
_CARRIED = (0.1, 0.35, 0.7, 1.0)
"""Share of a gap by layer."""


def example_claims(tasks: Iterable[Task]) -> tuple[Claim, ...]:
    """A claim on every component with an exact check that `WORDS` has words for."""
    return tuple(
        _claim(task, component, WORDS[task.task, component.origin or ""])
        for task in tasks
        for component in task.components
        if component.ablation is not None and (task.task, component.origin) in WORDS
    )


def _claim(task: Task, component: Component, words: str) -> Claim:
    effect = 0.95 * component.contribution
    tried = not words.startswith(not_tried_words(""))
    fair = RandomEffects(mean=0.004, sd=0.02, q05=-0.031, q95=0.038, n_sets=24, exceed=0, factor=1.2)
    return Claim(
        task=task.task,
        category=component.category or "",
        origin="read" if component.origin == "read" else "written",
        effect=effect,
        interval=Interval(low=effect - 0.04, high=effect + 0.04),
        n=50,
        random_effects=fair if tried else None,
        p_random=1 / 25 if tried else None,
        p_corrected=(0.003 if words == _CAUSE else 0.21) if tried else None,
        mean_difference=0.5 * effect,
        reconstruct_only=-0.003,
        swap=1.2 * effect,
        is_causal=words == _CAUSE,
        words=words,
    )


def example_shapley(tasks: Sequence[Task]) -> tuple[tuple[Shapley, ...], ShapleyAgreement | None]:
    """Values of the tasks that are scored by choices; the others have none, with a reason."""
    rows = tuple(_values(task) for task in tasks if task.components and task.verdict in ("improved", "regressed"))
    players = [player for row in rows for player in row.players]
    agreed = ShapleyAgreement(
        n_pairs=len(players), n_clear=sum(p.agrees is not None for p in players), sign_agreement=1.0,
        n_correlated=len(players), correlation=0.97,
    )  # fmt: skip
    return rows, agreed if players else None


def _values(task: Task) -> Shapley:
    if task.output_type != "multiple_choice":
        return Shapley(task=task.task, metric=task.metric, reason="its answers are generated")
    written = {c.category: c for c in task.components if c.origin == "written"}
    own = written[task.categories[0]]
    others = [c for c in written.values() if c.kind == "latents" and c is not own]
    rest = [c for c in task.components if c.origin == "written" and c.kind != "latents"]
    players = (
        _player(task.categories[0], [own], agrees=True),
        _player("other categories", others, agrees=None),
        _player("bias and error", rest, agrees=None),
    )
    total = sum(player.value for player in players)
    return Shapley(
        task=task.task, metric=task.metric, players=players, n_subsets=8, n_documents=task.n_accounted,
        v_none=task.candidate - total, v_all=task.candidate, recorded=task.candidate, same_unit=True,
    )  # fmt: skip


def _player(name: str, members: Sequence[Component], *, agrees: bool | None) -> ShapleyPlayer:
    written = sum(c.contribution for c in members)
    half = abs(written) / 2 if agrees is not None else 0.05
    return ShapleyPlayer(
        name=name,
        categories=tuple(c.category for c in members if c.category is not None),
        value=1.05 * written,
        interval=Interval(low=1.05 * written - half, high=1.05 * written + half),
        standard_error=None,
        written=written,
        written_interval=Interval(low=written - half, high=written + half),
        agrees=agrees,
    )


def example_depth(tasks: Iterable[Task]) -> tuple[DepthProfile, ...]:
    """A profile a task with a surrogate; shares only where its gap is real."""
    return tuple(_profile(task) for task in tasks if task.surrogate is not None)


def _profile(task: Task) -> DepthProfile:
    assert task.surrogate is not None
    gap, moved = task.surrogate.gap, task.verdict in ("improved", "regressed")
    layers = tuple(
        LayerDepth(
            layer=layer,
            carried=share * gap,
            carried_raw=4.2 * share * gap,
            interval=Interval(low=share * gap - 0.05, high=share * gap + 0.05),
            share=share if moved else None,
            share_interval=Interval(low=share - 0.1, high=share + 0.1) if moved else None,
        )
        for layer, share in enumerate(_CARRIED)
    )
    return DepthProfile(
        task=task.task, unit=task.surrogate.unit, moved=moved, n_documents=64, n_task=task.n, gap=gap,
        gap_interval=Interval(low=gap - 0.05, high=gap + 0.05), layers=layers,
        share_reason=None if moved else "no gap to explain",
    )  # fmt: skip


def example_flips(tasks: Iterable[Task]) -> tuple[FlipKinds, ...]:
    """Documents of each task with a gap: refusals where answers are generated, a place that answers moved to else."""
    return tuple(_flips(task) for task in tasks if task.components and task.verdict in ("improved", "regressed"))


def _flips(task: Task) -> FlipKinds:
    lost, gained = (3, 31) if task.gap > 0 else (31, 3)
    generated = task.output_type == "generate_until"
    example = FlipExample(
        doc_id=10, is_loss=task.gap < 0, baseline_answer="the river", candidate_answer="i can not help with that .",
        gold="the mill", evidence=("refused: i can not help with that",),
    )  # fmt: skip
    contributions = {component_label(c.kind, c.category, c.origin): c.contribution for c in task.components}
    rest = FlipKind(
        kind="answer differs", n_lost=lost - (2 if generated else 0), n_gained=gained, gap=task.gap, n_accounted=30,
        contributions=contributions, examples=(),
    )  # fmt: skip
    refused = rest.model_copy(
        update={"kind": "refused", "n_lost": 2, "n_gained": 0, "gap": -0.02, "examples": (example,)}
    )
    place = PositionShift(
        position=0, n=task.n, baseline=0.26, candidate=0.29, right=0.27, p_value=0.3, q_value=0.5, moved=False
    )
    return FlipKinds(
        task=task.task, metric=task.metric, n=task.n, n_flips=lost + gained, n_lost=lost, n_gained=gained,
        kinds=(refused, rest) if generated else (rest,), position=None if generated else place,
    )  # fmt: skip


def hostile_checks(report: Report, names: Mapping[str, str]) -> dict[str, object]:
    """The report's checks with every free text of a task replaced by its hostile name."""
    return {
        "claims": tuple(
            c.model_copy(update={"task": names[c.task], "category": names[c.task], "words": names[c.task]})
            for c in report.claims
        ),
        "depth": tuple(
            d.model_copy(update={"task": names[d.task], "unit": names[d.task], "share_reason": names[d.task]})
            for d in report.depth
        ),
        "shapley": tuple(_hostile_values(row, names[row.task]) for row in report.shapley),
        "flips": tuple(_hostile_flips(row, names[row.task]) for row in report.flips),
    }


def _hostile_values(row: Shapley, bad: str) -> Shapley:
    players = tuple(p.model_copy(update={"name": bad, "categories": (bad,)}) for p in row.players)
    reason = bad if row.reason is not None else None
    return row.model_copy(
        update={"task": bad, "metric": bad, "players": players, "reason": reason, "interval_reason": bad}
    )


def _hostile_flips(row: FlipKinds, bad: str) -> FlipKinds:
    answers = {"baseline_answer": bad, "candidate_answer": bad + "x" * 100_000, "gold": bad, "evidence": (bad,)}
    kinds = tuple(
        k.model_copy(
            update={
                "contributions": {bad: 0.25},
                "examples": tuple(e.model_copy(update=answers) for e in k.examples),
            }
        )
        for k in row.kinds
    )
    return row.model_copy(update={"task": bad, "metric": bad, "kinds": kinds, "reason": bad, "gap_reason": bad})
