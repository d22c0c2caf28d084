"""Training: from paired activations to a crosscoder whose threshold keeps k latents a token.

Legend: N tokens, M models (models × layers), D width, L latents.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from diffharness.crosscoder.batches import Activations, batches
from diffharness.crosscoder.calibration import calibrate
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.initialisation import initialise
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import normalisation
from diffharness.crosscoder.objective import Objective, Step
from diffharness.crosscoder.partition import constrain_gradients
from diffharness.crosscoder.penalties import PenalisedObjective
from diffharness.crosscoder.resuming import SAVE_SECONDS, TrainingState, load_optimiser, optimiser_tensors
from diffharness.crosscoder.schedule import dead_after, number_of_steps, peak_learning_rate, rate_share
from diffharness.crosscoder.topk import TopKObjective
from diffharness.errors import RunError, UsageError

MEDIAN_TOKENS = 8192
"""Tokens that the initial bias, a geometric median, is taken over."""
EVALUATION_TOKENS = 4096
"""Held-out tokens that explained variance is followed on, spread over all of them."""
LOG_EVERY = 20
"""Steps between two lines of the log."""

Log = Callable[[dict[str, float]], None]


def train(
    x_NMD: Activations,
    settings: TrainingSettings,
    *,
    sides: tuple[str, ...],
    heldout_NMD: Activations,
    layers: Sequence[int] = (),
    widths: Sequence[int] = (),
    models: Sequence[str] = (),
    skipped_ids: Collection[int] = (),
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: Log | None = None,
    resume_in: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Crosscoder:
    """Train a crosscoder on raw activations and calibrate its threshold on held-out ones.

    The same data, settings and number of threads give the same weights, on a CPU bit for bit.

    Args:
        x_NMD: (tokens, models, width), a tensor, the rows of a store, or streamed, of any float dtype: read block by
            block, computed with in float32. With several layers, all layers of the first model come first.
        settings: sparsity, sizes, schedule.
        sides: names of the models.
        heldout_NMD: tokens that the threshold is calibrated and explained variance followed on.
        layers: 0-based decoder blocks that the activations are of.
        widths: of each model, where they differ; the columns beyond a model's width have to be zero.
        models: what the models are called by their owners.
        skipped_ids: ids whose positions are not among the rows; noted in the configuration.
        device: where to compute; left out: where the data is.
        progress: called with steps done and steps in all.
        log: called every `LOG_EVERY` steps with what training shows (step, tokens, unexplained, l0, ...).
        resume_in: folder that the state is kept in from time to time; a training that was killed and is called again
            with the same arguments goes on from there, and removes the state when it is done.
        save_seconds: least time between two saves of the state.

    Raises:
        UsageError: shapes and `sides` do not fit together, there are no tokens, or `resume_in` holds the state of
            another training.
        RunError: activations are constant or not finite, or training diverged.
    """
    config = _configuration(x_NMD, settings, sides, layers, widths).model_copy(
        update={
            "models": tuple(models),
            "skipped_ids": tuple(sorted(skipped_ids)),
            "n_train_tokens": len(x_NMD),
            "n_heldout_tokens": len(heldout_NMD),
        }
    )
    _check_shapes(x_NMD, heldout_NMD, config)
    state = TrainingState(resume_in, _identity(config, x_NMD), save_seconds)
    run = _Training(Crosscoder(config).requires_grad_(False), x_NMD, heldout_NMD, settings, state)
    run.begin(torch.device(device or x_NMD.device))
    run.optimise(progress, log)
    crosscoder = run.crosscoder
    del run  # and the optimiser's memory
    if settings.sparsity == "batch_topk":
        calibrate(crosscoder, heldout_NMD)
    state.remove()
    return crosscoder


class _Training:
    """One training: the crosscoder, what changes with it from step to step, and the loop."""

    def __init__(
        self,
        crosscoder: Crosscoder,
        x_NMD: Activations,
        heldout_NMD: Activations,
        settings: TrainingSettings,
        state: TrainingState,
    ) -> None:
        self.crosscoder = crosscoder
        self._x_NMD, self._heldout_NMD = x_NMD, heldout_NMD
        self._settings = settings
        self._state = state
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._n_steps = number_of_steps(settings, len(x_NMD))
        self._batch_tokens = min(settings.batch_tokens, len(x_NMD))
        self._step = 0
        self._best = (-math.inf, 0)
        """Best explained variance of held-out tokens, and the evaluations since."""

    def begin(self, device: torch.device) -> None:
        """Initial weights and normalisation, or those that an earlier training left."""
        saved = self._state.load()
        crosscoder, settings = self.crosscoder, self._settings
        if saved is None:
            mean_MD, scale_M = normalisation(self._x_NMD, crosscoder.config)
            crosscoder.mean_MD.copy_(mean_MD)
            crosscoder.scale_M.copy_(scale_M)
            sample_NMD = next(batches(self._x_NMD, MEDIAN_TOKENS, settings.block_tokens, self._generator))
            initialise(crosscoder, crosscoder.normalize(sample_NMD), self._generator)
        else:
            for name, tensor in crosscoder.state_dict().items():
                tensor.copy_(saved.tensors[name])
            self._generator.set_state(saved.tensors["generator"])
        self._begun_with = self._generator.get_state()
        crosscoder.to(device)
        self._objective = objective(crosscoder, settings)
        self._weights = [*crosscoder.parameters(), *self._objective.parameters()]
        self._peak = settings.learning_rate or peak_learning_rate(crosscoder.config.d_model, settings.n_latents)
        # The loss is a mean over models and dimensions, so gradients are small: eps has to be smaller still.
        self._optimiser = torch.optim.Adam(self._weights, lr=self._peak, eps=1e-12, fused=True)
        self._silent_tokens_L = torch.zeros(settings.n_latents, dtype=torch.long, device=device)
        if saved is not None:
            prefix = "objective."
            kept = {n.removeprefix(prefix): t for n, t in saved.tensors.items() if n.startswith(prefix)}
            self._objective.load_state(kept)
            load_optimiser(self._optimiser, saved.tensors)
            self._silent_tokens_L.copy_(saved.tensors["silent_tokens_L"])
            self._step, self._best = saved.step, (saved.numbers["best"], saved.numbers["since_best"])

    def optimise(self, progress: Callable[[int, int], None] | None, log: Log | None) -> None:
        """The loop: Adam over batches, with the rate, k and the dead latents followed from step to step."""
        settings = self._settings
        stream = batches(self._x_NMD, settings.batch_tokens, settings.block_tokens, self._generator, skip=self._step)
        logged = (time.monotonic(), self._step)
        while self._step < self._n_steps and not self._is_stale():
            seen, norm = self._update(next(stream))
            self._step += 1
            evaluated = self._evaluate() if self._evaluates(log) else {}
            if log is not None and (evaluated or self._step % LOG_EVERY == 0 or self._step == self._n_steps):
                seconds = time.monotonic() - logged[0]
                speed = (self._step - logged[1]) * self._batch_tokens / max(seconds, 1e-9)
                log({**self._record(seen, norm), "tokens_per_second": speed, **evaluated})
                logged = (time.monotonic(), self._step)
            if self._state.is_due:
                self._save()
            if progress is not None:
                progress(self._step, self._n_steps)
        self._objective.finish()
        for weight in self._weights:
            weight.grad = None

    @property
    def _share(self) -> float:
        """How far training has come: 0 at the first step, 1 at the last."""
        return min(1.0, self._step / max(1, self._n_steps - 1))

    def _update(self, x_NMD: torch.Tensor) -> tuple[Step, float]:
        """One step; what it showed, and the gradient's norm."""
        settings = self._settings
        z_NMD = self.crosscoder.normalize(x_NMD)
        dead_L = self._dead_L()
        self._optimiser.zero_grad()  # so that old and new gradients are never held together
        seen = self._objective.gradients(z_NMD, share=self._share, dead_L=dead_L)
        constrain_gradients(self.crosscoder)
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm_of_all = torch.nn.utils.get_total_norm(gradients, foreach=True)
        norm = float(norm_of_all)
        if not (math.isfinite(seen.unexplained) and math.isfinite(norm)):
            raise RunError(f"crosscoder training diverged at step {self._step}; a smaller learning rate may help")
        if norm > settings.gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(self._weights, settings.gradient_clip, norm_of_all, foreach=True)
        self._silent_tokens_L = torch.where(seen.fired_L, 0, self._silent_tokens_L + len(z_NMD))
        self._optimiser.param_groups[0]["lr"] = self._peak * rate_share(self._step, self._n_steps, settings)
        self._optimiser.step()
        return seen, norm

    def _dead_L(self) -> torch.Tensor:
        return self._silent_tokens_L > dead_after(self._settings, self._n_steps, self._batch_tokens)

    def _record(self, seen: Step, norm: float) -> dict[str, float]:
        """One line of the log."""
        return {
            "step": self._step,
            "n_steps": self._n_steps,
            "tokens": self._step * self._batch_tokens,
            "unexplained": seen.unexplained,
            "l0": seen.l0,
            "dead_share": float(self._dead_L().double().mean()),
            "learning_rate": float(self._optimiser.param_groups[0]["lr"]),
            "gradient_norm": norm,
            **seen.notes,
        }

    def _evaluates(self, log: Log | None) -> bool:
        wanted = log is not None or self._settings.stop_patience is not None
        return wanted and self._step % self._settings.evaluate_every == 0

    def _evaluate(self) -> dict[str, float]:
        """Explained variance of held-out tokens by the training rule; nothing of the training is changed."""
        every = -(-len(self._heldout_NMD) // EVALUATION_TOKENS)
        pieces = [self._heldout_NMD[start : start + 64] for start in range(0, len(self._heldout_NMD), 64 * every)]
        z_NMD = self.crosscoder.normalize(torch.cat(pieces))
        before = {name: value.clone() for name, value in self._objective.state().items()}
        alive_L = torch.zeros_like(self._silent_tokens_L, dtype=torch.bool)
        seen = self._objective.gradients(z_NMD, share=self._share, dead_L=alive_L)
        self._objective.load_state(before)
        explained = 1 - seen.unexplained
        self._best = (explained, 0) if explained > self._best[0] else (self._best[0], self._best[1] + 1)
        return {"heldout_explained_variance": explained}

    def _is_stale(self) -> bool:
        """Whether held-out explained variance has stopped rising, where that ends the training."""
        return self._settings.stop_patience is not None and self._best[1] >= self._settings.stop_patience

    def _save(self) -> None:
        tensors = {
            **self.crosscoder.state_dict(),
            **optimiser_tensors(self._optimiser),
            **{f"objective.{name}": value for name, value in self._objective.state().items()},
            "silent_tokens_L": self._silent_tokens_L,
            "generator": self._begun_with,
        }
        self._state.save(self._step, tensors, {"best": self._best[0], "since_best": self._best[1]})


def objective(crosscoder: Crosscoder, settings: TrainingSettings) -> Objective:
    """The loss of a kind of sparsity."""
    if settings.sparsity in ("batch_topk", "topk"):
        return TopKObjective(crosscoder, settings)
    return PenalisedObjective(crosscoder, settings)


def _configuration(
    x_NMD: Activations,
    settings: TrainingSettings,
    sides: tuple[str, ...],
    layers: Sequence[int],
    widths: Sequence[int],
) -> CrosscoderConfig:
    """The blank crosscoder that a kind of sparsity needs."""
    rule = {"batch_topk": "threshold", "topk": "topk", "l1": "relu", "jumprelu": "threshold"}[settings.sparsity]
    return CrosscoderConfig(
        sides=sides,
        layers=tuple(layers),
        d_model=x_NMD.shape[-1],
        widths=tuple(widths) if len(set(widths)) > 1 else (),
        n_latents=settings.n_latents,
        k=settings.k,
        activation=rule,  # pyright: ignore[reportArgumentType]
        threshold_shape=(settings.n_latents,) if settings.sparsity == "jumprelu" else (),
        n_tied=settings.n_tied,
        n_dedicated=settings.n_dedicated,
        groups=settings.groups,
        training=settings,
    )


def _identity(config: CrosscoderConfig, x_NMD: Activations) -> dict[str, str]:
    """What tells one training from another, the data by its first tokens."""
    first = x_NMD[:256].to(torch.float32).cpu().contiguous().numpy().tobytes()
    return {"config": config.model_dump_json(), "first": hashlib.sha256(first).hexdigest(), "torch": torch.__version__}


def _check_shapes(x_NMD: Activations, heldout_NMD: Activations, config: CrosscoderConfig) -> None:
    """Tokens, models and width fit together, and there is something to train and calibrate on."""
    columns = config.columns
    for name, data_NMD in (("training", x_NMD), ("held-out", heldout_NMD)):
        if len(data_NMD.shape) != 3 or data_NMD.shape[1] != len(columns) or data_NMD.shape[2] != x_NMD.shape[2]:
            raise UsageError(
                f"{name} activations have shape {tuple(data_NMD.shape)}; "
                f"(tokens, {len(columns)} models, width) is needed for {', '.join(columns)}"
            )
        if len(data_NMD) == 0:
            raise UsageError(f"there are no {name} tokens for the crosscoder; give a larger corpus")
