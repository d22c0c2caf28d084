"""What every view shows, before it is drawn: order of the rows, steps of a waterfall, sums by category."""

from __future__ import annotations

from dataclasses import dataclass

from diffharness.report.schema import CategoryShift, Component, Latent, Report, Task, component_label

_SEVERITY = {"regressed": 0, "improved": 1, "inconclusive": 2, "no change": 3}
_AFTER_LATENTS = {"bias": 0, "error": 1, "upper": 2, "prior": 3, "prompt": 4}


@dataclass(frozen=True)
class Step:
    """A bar of a waterfall from `start` to `end`; totals (baseline, candidate) have no contribution."""

    label: str
    start: float
    end: float
    contribution: float | None = None
    low: float | None = None
    high: float | None = None
    row: int | None = None
    """Its place among `ordered` components, which is the row of the table; `None` for totals and sums."""


@dataclass(frozen=True)
class Part:
    """A component with its origins added up: what a category's latents, or another kind, carry of a gap."""

    kind: str
    category: str | None
    contribution: float
    share: float | None
    members: tuple[Component, ...]


@dataclass(frozen=True)
class Heat:
    """Categories × tasks: what the latents of each category contribute to each task's surrogate gap."""

    tasks: tuple[Task, ...]
    categories: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    """A row a task; `None` where the task has no such component."""
    shades: tuple[tuple[float, ...], ...]
    """The same over the largest of all tasks in the same unit, −1 to 1; 0 where no gap is explained."""


@dataclass(frozen=True)
class Protocol:
    """The category shift by one protocol."""

    name: str
    is_default: bool
    rows: tuple[CategoryShift, ...]

    @property
    def has_matched(self) -> bool:
        """Whether it is known which latents the other seeds found again."""
        return any(row.n_matched_baseline is not None or row.n_matched_candidate is not None for row in self.rows)

    @property
    def has_mass_test(self) -> bool:
        """Whether the masses were compared, and not only listed."""
        return any(row.mass_change is not None or row.mass_conclusion for row in self.rows)


def by_severity(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Regressed first, then improved, inconclusive, no change; the largest gap first in each."""
    return tuple(sorted(tasks, key=lambda t: (_SEVERITY[t.verdict], -abs(t.gap), t.task)))


def primary(report: Report) -> tuple[Task, ...]:
    """A row a task: those of the primary metrics."""
    return tuple(task for task in report.tasks if task.is_primary)


def is_real(task: Task) -> bool:
    """Whether there is a gap to explain."""
    return task.verdict in ("improved", "regressed")


def is_explained(task: Task) -> bool:
    """Whether the task has a real gap and an account whose surrogate follows the metric."""
    return is_real(task) and bool(task.components) and task.surrogate is not None and task.surrogate.tracks


def label(component: Component) -> str:
    """The component's name in tables and figures."""
    return component_label(component.kind, component.category, component.origin)


def ordered(components: tuple[Component, ...]) -> tuple[Component, ...]:
    """Latents by size, then bias, error, upper, prior, prompt."""
    return tuple(
        sorted(
            components,
            key=lambda c: (_AFTER_LATENTS.get(c.kind, -1), -abs(c.contribution), label(c)),
        )
    )


def parts(task: Task) -> tuple[Part, ...]:
    """The components with their origins added up, the largest first."""
    groups: dict[tuple[str, str | None], list[Component]] = {}
    for component in task.components:
        groups.setdefault((component.kind, component.category), []).append(component)
    made = []
    for (kind, category), members in groups.items():
        shares = [c.share for c in members if c.share is not None]
        made.append(
            Part(
                kind=kind,
                category=category,
                contribution=sum(c.contribution for c in members),
                share=sum(shares) if len(shares) == len(members) else None,
                members=tuple(members),
            )
        )
    return tuple(sorted(made, key=lambda p: (-abs(p.contribution), p.kind, p.category or "")))


def waterfall(task: Task, limit: int = 14) -> tuple[Step, ...]:
    """Baseline, the components end to end, candidate, in the surrogate's unit.

    With more than `limit` components the smallest latents are added up in one bar, so that the bars still
    lead from the baseline to the candidate. Raises ValueError for a task without an account.
    """
    if task.surrogate is None or not task.components:
        raise ValueError(f"task {task.task!r} has no account to draw")
    components = ordered(task.components)
    latents = [c for c in components if c.kind == "latents"]
    n_hidden = len(latents) - max(1, limit - (len(components) - len(latents)) - 1)
    hidden = set(map(id, latents[-n_hidden:])) if len(components) > limit and n_hidden > 1 else set()

    rows = {id(component): row for row, component in enumerate(components)}
    at = task.surrogate.baseline
    steps = [Step("baseline", at, at)]
    rest = sum(c.contribution for c in components if id(c) in hidden)
    shown = [c for c in components if id(c) not in hidden]
    n_before = sum(c.kind == "latents" for c in shown)
    for position, component in enumerate(shown):
        if hidden and position == n_before:
            steps.append(Step(f"{len(hidden)} smaller", at, at + rest, rest))
            at += rest
        steps.append(
            Step(
                label(component),
                at,
                at + component.contribution,
                component.contribution,
                at + component.interval.low,
                at + component.interval.high,
                rows[id(component)],
            )
        )
        at += component.contribution
    if hidden and n_before == len(shown):
        steps.append(Step(f"{len(hidden)} smaller", at, at + rest, rest))
    steps.append(Step("candidate", task.surrogate.candidate, task.surrogate.candidate))
    return tuple(steps)


def heat(report: Report) -> Heat | None:
    """The contributions of latents by category and task; `None` where no task has an account."""
    tasks = tuple(t for t in report.tasks if t.components and t.surrogate is not None)
    sums: list[dict[str, float]] = []
    weight: dict[str, float] = {}
    for task in tasks:
        row: dict[str, float] = {}
        for component in task.components:
            if component.kind == "latents" and component.category is not None:
                row[component.category] = row.get(component.category, 0.0) + component.contribution
        sums.append(row)
        for category, value in row.items():
            weight[category] = weight.get(category, 0.0) + abs(value)
    if not weight:
        return None
    categories = tuple(sorted(weight, key=lambda c: (c == "unclear", -weight[c], c)))
    largest: dict[str, float] = {}
    for task, row in zip(tasks, sums, strict=True):
        if is_explained(task):
            largest[_unit(task)] = max([largest.get(_unit(task), 0.0), *(abs(v) for v in row.values())])
    shades = []
    for task, row in zip(tasks, sums, strict=True):
        top = largest.get(_unit(task)) if is_explained(task) else None
        shades.append(tuple(row.get(c, 0.0) / top if top else 0.0 for c in categories))
    cells = tuple(tuple(row.get(c) for c in categories) for row in sums)
    return Heat(tasks, categories, cells, tuple(shades))


def _unit(task: Task) -> str:
    return task.surrogate.unit if task.surrogate is not None else ""


def protocols(report: Report) -> tuple[Protocol, ...]:
    """The category shift by protocol, the one that the report rests on first."""
    groups: dict[str, list[CategoryShift]] = {}
    for row in report.categories:
        groups.setdefault(row.protocol, []).append(row)
    made = [Protocol(name, all(row.is_default for row in rows), tuple(rows)) for name, rows in groups.items()]
    return tuple(sorted(made, key=lambda protocol: not protocol.is_default))


def changed_latents(report: Report) -> tuple[Latent, ...]:
    """The shared latents whose use changed most, in the order of `report.changed`."""
    if report.changed is None:
        return ()
    by_index = {latent.index: latent for latent in report.latents}
    return tuple(by_index[index] for index in report.changed.latents if index in by_index)


def strongest(latents: tuple[Latent, ...]) -> tuple[Latent, ...]:
    """Latents by what they contribute to any task, in absolute value, the largest first."""
    return tuple(sorted(latents, key=lambda j: (-weight_of(j), j.index)))


def weight_of(latent: Latent) -> float:
    """The sum of the latent's absolute contributions over tasks."""
    return sum(abs(value) for value in latent.contributions.values())


def side_name(report: Report, side: str) -> str:
    """The name of the model on a side, or the side itself where the report names none."""
    return next((m.name for m in report.models if m.side == side), side)
