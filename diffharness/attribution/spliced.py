"""A task's documents under either model's layers above, from any state at the layer: fast what-ifs without lm-eval.

States and codes of both models are read once; an arm then costs one pass through the layers above. Exact for every
surrogate and every output type, generated answers included (teacher-forced). What lm-eval's own metric makes of an arm
is `interventions.py`'s business.

Legend: A arms, B rows, T positions, D width, L latents, N documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.attribution.batches import BATCH_TOKENS, Batch, DocumentForm, batches
from diffharness.attribution.states import ModelPair, PairStates

State = Callable[[PairStates], Float[Tensor, "B T D"]]
"""What stands at the layer in an arm."""
BASELINE, CANDIDATE = 0, 1


class SplicedScores:
    """Scores of documents from states of one's own making.

    Args:
        pair: the models and their crosscoder.
        documents: what is read.
        batch_tokens: padded tokens a batch.
        keep: hold the states of all batches; else a batch is read again by every call that goes over the documents,
            and the memory is that of one batch.
    """

    def __init__(
        self,
        pair: ModelPair,
        documents: Sequence[DocumentForm],
        batch_tokens: int = BATCH_TOKENS,
        *,
        keep: bool = True,
    ) -> None:
        self.pair = pair
        self.documents = tuple(documents)
        self._order = batches(documents, batch_tokens)
        self._batches = [Batch([self.documents[i] for i in some], pair.device) for some in self._order]
        self._kept = [PairStates(pair, batch) for batch in self._batches] if keep else None

    def states(self) -> Iterator[PairStates]:
        """Both models' states, batch by batch."""
        if self._kept is not None:
            yield from self._kept
        else:
            yield from (PairStates(self.pair, batch) for batch in self._batches)

    @torch.no_grad()
    def m_of(self, stack: int, states: Sequence[State]) -> Float[np.ndarray, "A N"]:
        """m of every document under many arms, in the order given; every batch is read once for all of them.

        Args:
            stack: whose layers above read the states: `BASELINE` or `CANDIDATE`.
            states: what stands at the layer in each arm.
        """
        found_AN = np.empty((len(states), len(self.documents)))
        for some, batch, both in zip(self._order, self._batches, self.states(), strict=True):
            for a, state in enumerate(states):
                logits_BTV = self.pair.uppers[stack].logits(batch.ids_BT, state(both))
                found_AN[a, some] = batch.path(logits_BTV).cpu().numpy()
        return found_AN

    def m(self, stack: int, state: State) -> Float[np.ndarray, " N"]:
        """m of every document under one arm."""
        return self.m_of(stack, [state])[0]

    def metrics(self, stack: int, states: Sequence[State]) -> Float[np.ndarray, "A N"]:
        """M of every document under many arms, in the surrogate's unit."""
        return self.to_metric(self.m_of(stack, states))

    def metric(self, stack: int, state: State) -> Float[np.ndarray, " N"]:
        """M of every document under one arm, in the surrogate's unit."""
        return self.metrics(stack, [state])[0]

    def to_metric(self, m_AN: Float[np.ndarray, "A N"]) -> Float[np.ndarray, "A N"]:
        """M at each m, in the surrogate's unit."""
        rows = [[d.surrogate.metric(float(m)) for d, m in zip(self.documents, m_N, strict=True)] for m_N in m_AN]
        return np.array(rows).reshape(len(m_AN), len(self.documents))

    @torch.no_grad()
    def whole_m(self, model: int) -> Float[np.ndarray, " N"]:
        """m of every document by a whole model that nothing is spliced into."""
        found_N = np.empty(len(self.documents))
        for some in self._order:
            batch = Batch([self.documents[i] for i in some], self.pair.device)
            device = self.pair.readers[model].device
            logits_BTV = self.pair.readers[model].model(batch.ids_BT.to(device), use_cache=False).logits
            found_N[some] = batch.path(logits_BTV.to(self.pair.device)).cpu().numpy()
        return found_N

    @torch.no_grad()
    def mean_difference(self) -> Float[Tensor, " D"]:
        """Mean of x^c − x^b over the positions with a code, as a direction of length 1 (0 where there is none)."""
        total_D = sum(
            (both.x_BTD[1].double() - both.x_BTD[0].double())[both.coded_BT].sum(dim=0) for both in self.states()
        )
        if not isinstance(total_D, Tensor):
            raise ValueError("a mean difference needs at least one document")
        return total_D / total_D.norm().clamp_min(1e-300)


def own(model: int) -> State:
    """A model's own state."""
    return lambda states: states.x_BTD[model]


def put_back(latents_L: Bool[Tensor, " L"], factor: float = 1.0) -> State:
    """x^c − Σ_{j∈C} f_j (d_j^c − d_j^b): the candidate's state with some latents in the baseline's version.

    `factor` makes the change larger or smaller.
    """
    return lambda states: (
        states.x_BTD[1].double() - factor * (states.decoded(1, latents_L) - states.decoded(0, latents_L))
    )


def taken_out(latents_L: Bool[Tensor, " L"], factor: float = 1.0) -> State:
    """x^b − Σ_{j∈C} f_j d_j^b: the baseline's state without some latents."""
    return lambda states: states.x_BTD[0].double() - factor * states.decoded(0, latents_L)


def reconstructed(model: int) -> State:
    """A model's state without its error ε: Σ_j f_j d_j + b where there is a code, its own state elsewhere."""
    return lambda states: states.start(model) + states.decoded(model)


def direction_put_back(direction_D: Float[Tensor, " D"]) -> State:
    """The candidate's state, as the baseline's along one direction (of length 1) where there is a code."""
    return lambda states: _without(
        states.x_BTD[1].double(), states.x_BTD[1].double() - states.x_BTD[0].double(), states, direction_D
    )


def direction_taken_out(direction_D: Float[Tensor, " D"]) -> State:
    """The baseline's state with nothing along one direction (of length 1) where there is a code."""
    return lambda states: _without(states.x_BTD[0].double(), states.x_BTD[0].double(), states, direction_D)


def _without(x_BTD: Tensor, part_BTD: Tensor, states: PairStates, direction_D: Tensor) -> Float[Tensor, "B T D"]:
    along_BT = (part_BTD @ direction_D) * states.coded_BT
    return x_BTD - along_BT[..., None] * direction_D
