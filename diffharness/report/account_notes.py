"""What a reader of one task's account has to know besides its numbers, in sentences."""

from __future__ import annotations

from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.schema import Task
from diffharness.report.view import is_real, parts

LARGE_ERROR = 0.25
"""From this share of the gap on, the crosscoder explains too little."""
_LARGE = 0.1
_MOST_SEEDS = 3
"""Categories of which the spread over seeds is said."""


def account_notes(task: Task) -> tuple[str, ...]:
    """Notes on an account of a real gap: how it arose, error, prior, prompt, interaction, odd shares, seeds."""
    if task.surrogate is None or not task.components or not is_real(task) or not task.surrogate.gap:
        return ()
    notes = (_origins, _upper, _error, _prior, _prompt, _interaction, _shares, _seeds)
    return tuple(said for note in notes if (said := note(task)) is not None)


def _sum(task: Task, *, kind: str | None = None, origin: str | None = None) -> float:
    return sum(
        c.contribution
        for c in task.components
        if (kind is None or c.kind == kind) and (origin is None or c.origin == origin)
    )


def _share(task: Task, amount: float) -> float:
    assert task.surrogate is not None
    return amount / task.surrogate.gap


def _origins(task: Task) -> str | None:
    if not any(c.origin == "read" for c in task.components):
        return None
    written, read, prior = _sum(task, origin="written"), _sum(task, origin="read"), _sum(task, kind="prior")
    return (
        f"Written differently at the layer: {signed(written)}; read differently above it: {signed(read)}; "
        f"a prior: {signed(prior)}."
    )


def _upper(task: Task) -> str | None:
    if task.upper_check is None:
        return None
    return (
        f"By lm-eval's own score the candidate's layers above, put on the baseline's state, change {task.metric} by "
        f"{signed(task.upper_check.change)} {interval(task.upper_check.interval)}: what is read and the prior together."
    )


def _error(task: Task) -> str | None:
    error = _sum(task, kind="error")
    if abs(_share(task, error)) < LARGE_ERROR:
        return None
    return (
        f"The crosscoder does not describe {signed(error)} of it ({percent(_share(task, error))}): another layer "
        "(`diffharness layers`), more --train-tokens or more --latents may say more."
    )


def _prior(task: Task) -> str | None:
    prior = next((c for c in task.components if c.kind == "prior"), None)
    if prior is None or prior.at_own_states is None or abs(_share(task, prior.contribution)) < _LARGE:
        return None
    own = f"the layers above differ by {signed(prior.at_own_states)} on the task's own documents"
    if prior.is_content_free:
        return f"The prior ({signed(prior.contribution)}) is a shift that does not depend on content: {own}."
    second = (
        "" if prior.second_start is None else f", and by {signed(prior.second_start)} on them without their latents"
    )
    return f"The prior ({signed(prior.contribution)}) can not be called a shift without content: {own}{second}."


def _prompt(task: Task) -> str | None:
    """How much the own template makes of the gap, and what the rest is of."""
    prompt = next((c for c in task.components if c.kind == "prompt"), None)
    if prompt is None:
        return None
    said = (
        f"The candidate's own chat template in place of the baseline's makes {signed(prompt.contribution)} of it "
        f"{interval(prompt.interval)}; all other parts are of both models asked in the baseline's"
    )
    if prompt.ablation is None:
        return f"{said}."
    return f"{said}, in which the candidate scores {plain(prompt.ablation.score)} ({task.metric})."


def _interaction(task: Task) -> str | None:
    if task.interaction is None or abs(_share(task, task.interaction)) < LARGE_ERROR:
        return None
    return (
        f"What is written and what is read depend on each other: by whose upper layers come first, "
        f"{plain(abs(task.interaction))} more or less counts as written; the account is the mean."
    )


def _shares(task: Task) -> str | None:
    """Of parts that are large enough to be seen as odd, not of every small one."""
    if all(part.share is None or -_LARGE <= part.share <= 1 + _LARGE for part in parts(task)):
        return None
    return "Shares below 0 % or above 100 % are of parts that pull against each other and cancel in the gap."


def _seeds(task: Task) -> str | None:
    """How much the largest categories vary with the crosscoder's seed."""
    found = []
    for part in [p for p in parts(task) if p.kind == "latents" and p.category is not None][:_MOST_SEEDS]:
        by_seed = [sum(values) for values in zip(*(c.seeds for c in part.members), strict=True)]
        if by_seed:
            spread = f"{signed(min(by_seed))} to {signed(max(by_seed))}" if len(by_seed) > 1 else signed(by_seed[0])
            found.append(f"{part.category} {spread} (here {signed(part.contribution)})")
    return f"By crosscoders of other seeds, on fewer documents: {'; '.join(found)}." if found else None
