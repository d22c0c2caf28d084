"""Replay, text by text: what a store is written from and a stream is fed with; and the texts that are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.activations.corpus import Text
from diffharness.activations.replay import batch_tokens, replay
from diffharness.errors import RunError


class ReplayedTexts:
    """Reads texts with some models; where memory was short once, it starts with smaller batches from then on.

    Args:
        readers: one a model, all of the same layers.
        note: called with a sentence when memory is short.
    """

    def __init__(self, readers: Sequence[LayerReader], note: Callable[[str], None] | None = None) -> None:
        self._readers = readers
        self._note = note
        self._max_tokens = batch_tokens(readers[0].device)

    def __call__(self, texts: Sequence[Text]) -> Iterator[tuple[int, Mapping[int, Float[Tensor, "T M D"]]]]:
        """Each text's place in the list and its activations by layer, in the order of the batches."""
        ids = [text.ids for text in texts]
        for batch in replay(self._readers, ids, max_tokens=self._max_tokens, note=self._halve):
            for row, place in enumerate(batch.rows):
                yield place, {layer: x_BTMD[row, : batch.lengths[row]] for layer, x_BTMD in batch.x.items()}

    def _halve(self, text: str) -> None:
        self._max_tokens //= 2
        if self._note is not None:
            self._note(text)


def heldout_texts(texts: Sequence[Text], share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of the texts that belong to a random share of the documents (sources), at least one either side.

    Raises:
        RunError: all texts are of one document.
    """
    documents, of_text = np.unique([text.source for text in texts], return_inverse=True)
    if len(documents) < 2:
        raise RunError(f"all training texts are of one document ({texts[0].source}); give a larger --corpus")
    count = min(max(1, round(share * len(documents))), len(documents) - 1)
    chosen = np.zeros(len(documents), dtype=bool)
    chosen[rng.permutation(len(documents))[:count]] = True
    return chosen[of_text]
