"""Replay, text by text: what a store is written from and a stream is fed with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.activations.corpus import Text
from diffharness.activations.replay import batch_tokens, replay


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
