"""What a reconstruction costs its model: cross-entropy of the next tokens with activations put in place of the true.

Legend: B sequences, T positions, N coded positions, M models (models × layers where several layers are read), D width,
V vocabulary, I texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import context_border, input_device
from diffharness.activations.replay import coded_positions, length_batches, pad
from diffharness.errors import RunError, UsageError

BATCH_TOKENS = 1024
"""Padded tokens a batch: the logits of so many positions are in memory at a time."""
SPLICE_TEXTS = 64
"""Held-out texts that are read, at most; the interval says what that leaves open."""
ARMS = ("clean", "spliced", "zeroed", "mean")
"""What stands at the coded positions: the model's own activation, its reconstruction, 0, the mean activation."""


@dataclass(frozen=True)
class SpliceLoss:
    """One model's cross-entropy, in nats a prediction, when its activations at one layer are replaced.

    Activations are replaced at all coded positions of a text at once and left as they are elsewhere (the first token,
    skipped ids). Counted are the predictions of the next token from the text's first coded position on, i.e. all that
    the replacement can change; a mean over predictions, not over texts.
    """

    n_texts: int
    """Texts with such a prediction."""
    n_tokens: int
    """Predictions."""
    clean: float
    spliced: float
    """With x̂ in place of x."""
    zeroed: float
    """With 0 in place of x."""
    mean: float
    """With the mean of x over all coded positions of the texts in place of x."""
    delta_low: float | None
    delta_high: float | None
    """95 % interval of `delta`, from its spread over texts (a ratio of two means, linearised; Student's t); none for
    a single text."""

    @property
    def delta(self) -> float:
        """ΔCE = spliced − clean."""
        return self.spliced - self.clean

    @property
    def loss_recovered(self) -> float | None:
        """(zeroed − spliced) / (zeroed − clean): 1 is no loss, 0 as bad as no activation at all.

        As `dictionary_learning` and SAELens define it. None where zeroing does not raise the cross-entropy.
        """
        return _recovered(self.zeroed, self.spliced, self.clean)

    @property
    def loss_recovered_mean(self) -> float | None:
        """The same against the mean activation, which is stricter: a constant reconstruction recovers nothing."""
        return _recovered(self.mean, self.spliced, self.clean)


def _recovered(worst: float, spliced: float, clean: float) -> float | None:
    return (worst - spliced) / (worst - clean) if worst > clean else None


@torch.no_grad()
def splice(
    readers: Sequence[LayerReader],
    uppers: Mapping[str, UpperStack],
    reconstruct: Callable[[Float[Tensor, "N M D"]], Float[Tensor, "N M D"]],
    texts: Sequence[Sequence[int]],
    *,
    skipped_ids: Collection[int] = (),
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SpliceLoss]:
    """Replace each model's activations by their reconstruction, one model and layer at a time.

    Models run from their own activations in all arms, so a reconstruction that changes nothing costs exactly nothing.
    Each text is read twice up to the layer and four times above it, by every model; of a batch at a time, activations
    and logits are in memory.

    Args:
        readers: one a model, in the order of the reconstruction's models, all of the same layers.
        uppers: the layers above, by the name of the reconstruction's column (`side`, or `side@layer` where several
            layers are read: all layers of the first model, then of the second), in that order.
        reconstruct: raw activations (float32) of a batch's coded positions to raw reconstructions, such as
            `crosscoder.quality.reconstruct`; models narrower than the widest are padded with zeros.
        texts: token ids; texts without a counted prediction are left out.
        skipped_ids: ids whose positions have no code, besides the first of a text.
        batch_tokens: padded tokens a batch.
        progress: called with (texts done, all texts).

    Returns:
        By column.

    Raises:
        UsageError: readers and uppers do not fit together.
        RunError: no text has a counted prediction, or a cross-entropy is not finite.
    """
    splicer = _Splicer(readers, uppers, reconstruct, frozenset(skipped_ids))
    useful = [tuple(ids) for ids in texts if splicer.n_predictions(ids)]
    if not useful:
        raise RunError(
            "no text has a token after its first coded position, so there is no cross-entropy to measure; give longer "
            "texts"
        )
    borders = {border for reader in readers if (border := context_border(reader.model)) is not None}
    batches = length_batches([len(ids) for ids in useful], batch_tokens, borders)
    mean_MD = splicer.mean([[useful[i] for i in rows] for rows in batches])
    sums = {name: np.zeros((len(useful), len(ARMS))) for name in uppers}
    done = 0
    for rows in batches:
        for name, sums_BA in splicer.sums([useful[i] for i in rows], mean_MD):
            sums[name][rows] = sums_BA
        done += len(rows)
        if progress is not None:
            progress(done, len(useful))
    n_I = np.array([splicer.n_predictions(ids) for ids in useful], dtype=np.float64)
    return {name: _loss(name, sums_IA, n_I) for name, sums_IA in sums.items()}


class _Splicer:
    """The models, and what is read of one batch of texts at a time."""

    def __init__(
        self,
        readers: Sequence[LayerReader],
        uppers: Mapping[str, UpperStack],
        reconstruct: Callable[[Tensor], Tensor],
        skipped_ids: frozenset[int],
    ) -> None:
        wanted = [layer for reader in readers for layer in reader.layers]
        if [upper.layer for upper in uppers.values()] != wanted:
            raise UsageError(
                f"the readers' layers are {wanted} and those of the stacks above {[u.layer for u in uppers.values()]}; "
                "give a stack for every model and layer, in the readers' order"
            )
        self.readers, self.uppers, self.reconstruct, self.skipped_ids = readers, uppers, reconstruct, skipped_ids

    def n_predictions(self, ids: Sequence[int]) -> int:
        """Predictions of a next token from the first coded position on."""
        first = next((t for t in range(1, len(ids)) if ids[t] not in self.skipped_ids), len(ids))
        return max(0, len(ids) - 1 - first)

    def _read(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Ids, which positions are coded, and the activations of every column in its model's dtype."""
        ids_BT = pad(texts, input_device(self.readers[0].model))
        coded_BT = coded_positions(ids_BT, [len(ids) for ids in texts], self.skipped_ids)
        states = [state for reader in self.readers for state in reader.read_layers(ids_BT).values()]
        return ids_BT, coded_BT, states

    def mean(self, batches: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
        """The mean activation of every column over all coded positions, in float64."""
        sums = [torch.zeros(()) for _ in self.uppers]
        n_coded = 0
        for texts in batches:
            _, coded_BT, states = self._read(texts)
            n_coded += int(coded_BT.sum())
            sums = [
                total.to(state.device) + state[coded_BT.to(state.device)].double().sum(dim=0)
                for total, state in zip(sums, states, strict=True)
            ]
        return [total / n_coded for total in sums]

    def sums(self, texts: Sequence[Sequence[int]], mean: Sequence[Tensor]) -> Iterator[tuple[str, np.ndarray]]:
        """By column: summed negative log-likelihood (B, arms) of each text's counted predictions."""
        ids_BT, coded_BT, states = self._read(texts)
        decoded_NMD = self.reconstruct(_side_by_side(states, coded_BT))
        for m, (name, upper) in enumerate(self.uppers.items()):
            state_BTD = states[m]
            coded = coded_BT.to(state_BTD.device)
            decoded_ND = decoded_NMD[:, m, : state_BTD.shape[-1]].to(state_BTD)
            arms = []
            for put in (None, decoded_ND, torch.zeros_like(mean[m]), mean[m]):
                changed_BTD = state_BTD
                if put is not None:
                    changed_BTD = state_BTD.clone()
                    changed_BTD[coded] = put.to(state_BTD)
                arms.append(self._negative_log_likelihoods(upper, ids_BT, changed_BTD, texts))
            yield name, np.stack(arms, axis=1)

    def _negative_log_likelihoods(
        self, upper: UpperStack, ids_BT: Tensor, state_BTD: Tensor, texts: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Of each text's counted predictions, summed in float64."""
        logits_BTV = upper.logits(ids_BT, state_BTD)
        sums = []
        for logits_TV, ids in zip(logits_BTV, texts, strict=True):
            n = self.n_predictions(ids)
            targets_n = torch.tensor(ids[len(ids) - n :], device=logits_TV.device)
            predicting_nV = logits_TV[len(ids) - 1 - n : len(ids) - 1].float()
            loss_n = torch.nn.functional.cross_entropy(predicting_nV, targets_n, reduction="none")
            sums.append(float(loss_n.double().sum()))
        return np.array(sums)


def _side_by_side(states: Sequence[Tensor], coded_BT: Tensor) -> Float[Tensor, "N M D"]:
    """The coded positions' activations in float32 on the ids' device, narrower models padded with zeros."""
    width = max(state.shape[-1] for state in states)
    return torch.stack(
        [
            torch.nn.functional.pad(
                state[coded_BT.to(state.device)].to(coded_BT.device, torch.float32), (0, width - state.shape[-1])
            )
            for state in states
        ],
        dim=1,
    )


def _loss(name: str, sums_IA: np.ndarray, n_I: np.ndarray) -> SpliceLoss:
    ce_A = sums_IA.sum(axis=0) / n_I.sum()
    for arm, value in zip(ARMS, ce_A.tolist(), strict=True):
        if not math.isfinite(value):
            raise RunError(f"cross-entropy of {name} ({arm}) is {value}; check the model's weights and dtype")
    clean, spliced, zeroed, mean = ce_A.tolist()
    half = ratio_half_width(sums_IA[:, 1] - sums_IA[:, 0], n_I)
    delta = spliced - clean
    return SpliceLoss(
        n_texts=len(n_I),
        n_tokens=int(n_I.sum()),
        clean=clean,
        spliced=spliced,
        zeroed=zeroed,
        mean=mean,
        delta_low=None if half is None else delta - half,
        delta_high=None if half is None else delta + half,
    )


def ratio_half_width(difference_I: np.ndarray, n_I: np.ndarray, level: float = 0.95) -> float | None:
    """Half the interval of Σ difference / Σ n over texts (Cochran 1977, section 2.11: a ratio estimator)."""
    from scipy.stats import t

    n_texts = len(n_I)
    if n_texts < 2:
        return None
    residual_I = difference_I - difference_I.sum() / n_I.sum() * n_I
    error = math.sqrt(n_texts / (n_texts - 1) * float((residual_I**2).sum())) / float(n_I.sum())
    return float(t.ppf((1 + level) / 2, n_texts - 1)) * error
