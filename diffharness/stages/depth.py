"""The stage of the depth profile: what every layer carries of the tasks' gaps, before there is a crosscoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.stages.forms import drawn_of, forms_of
from diffharness.stages.reading import Progress, write_json

if TYPE_CHECKING:
    from diffharness.attribution.depth import DocumentDepth
    from diffharness.pipeline import Run


def depth(run: Run, folder: Path, progress: Progress) -> None:
    """Swap the baseline's state in at every layer, on a stratified sample of every task's documents."""
    from diffharness.attribution.depth import read_depth, refused_layers, task_depth

    forms, reasons = forms_of(run)
    models = [run.session.model(side).hf_model for side in ("baseline", "candidate")]
    n_layers = run.session.n_layers
    refused = refused_layers(models, n_layers)
    layers = [layer for layer in range(n_layers) if layer not in refused]
    rng = np.random.default_rng(run.config.seed)
    drawn = drawn_of(run, forms, run.config.depth_documents)
    total, done, tasks = sum(len(d.stands_for) for d in drawn.values()), 0, {}
    for name, task in forms.items():
        strata, stands_for = drawn[name].strata, drawn[name].stands_for
        chosen = [form for form in task.forms if form.doc_id in stands_for]
        if not chosen or not layers:
            reasons[name] = "no document's score can differ" if layers else next(iter(refused.values()))
            continue
        read = read_depth(
            models[0], models[1], chosen, layers, progress=lambda n, _, before=done: progress(before + n, total)
        )
        done += len(chosen)
        if not _is_finite(read):
            reasons[name] = "a score is not finite when the baseline's state is swapped in"
            continue
        found = task_depth(
            read, strata=strata, stands_for=stands_for, n_constant=len(task.constant), weights=task.weights, rng=rng
        )
        tasks[name] = {"unit": task.unit, **{k: _plain(v) for k, v in vars(found).items()}}
    body = {"n_layers": n_layers, "layers": layers, "refused": refused, "tasks": tasks, "reasons": reasons}
    write_json(folder / "depth.json", body)


def _is_finite(read: list[DocumentDepth]) -> bool:
    return all(np.isfinite([d.m_baseline, d.m_candidate, d.scale, *d.m_above_L]).all() for d in read)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
