"""Tables with a few places for texts a latent, filled while texts stream by.

Legend: L latents; S slots (places for a text) of a latent; C contenders, of different latents, of one text; V values
shown of a token: the activation and what either model of the pair holds; W tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float16, Float64, Int, Int64, UInt64

N_VALUES = 3
"""Values kept of a token of a window: activation, and the presence in either model."""
LARGEST_SHARE = float(np.finfo(np.float16).max)
"""Values beyond this many peaks are kept as this many."""


class Slots:
    """The S texts of every latent with the highest scores, at most one of a group.

    Texts are offered one by one, so the result does not depend on how they come in batches. A text whose group already
    has a slot takes that slot where its peak is larger, and contends with no other. Of equal scores the text seen first
    stays. Windows are kept as float16 shares of their peak: 11 bits of precision at any size of the activations.
    """

    def __init__(self, n_latents: int, n_slots: int, window: int = 0) -> None:
        shape = (n_latents, n_slots)
        self.score_LS = np.full(shape, -np.inf)
        self.peak_LS = np.zeros(shape)
        self.order_LS = np.full(shape, -1, dtype=np.int64)
        """Number of the text in the order they were seen; −1 where the slot is empty."""
        self.group_LS = np.zeros(shape, dtype=np.uint64)
        self.first_LS = np.zeros(shape, dtype=np.int32)
        """Index of the window's first token in the text."""
        self.length_LS = np.zeros(shape, dtype=np.int32)
        """Tokens of the window, less than W where the text is shorter."""
        self._share_LSVW = np.zeros((*shape, N_VALUES, window), dtype=np.float16)
        self._worst_L = np.full(n_latents, -np.inf if n_slots else np.inf)

    def may_enter(self, latent_C: Int[np.ndarray, " C"], score_C: Float[np.ndarray, " C"]) -> Int64[np.ndarray, " K"]:
        """Which of the contenders are no worse than the worst text kept; only these are worth an offer."""
        return np.flatnonzero(score_C >= self._worst_L[latent_C])

    def offer(
        self,
        latent_C: Int[np.ndarray, " C"],
        score_C: Float[np.ndarray, " C"],
        peak_C: Float[np.ndarray, " C"],
        group: np.uint64,
        order: int,
    ) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
        """Offer one text to some latents, each named once.

        Returns:
            Which of the C were accepted, and the slot that each of them was given.
        """
        entering = self.may_enter(latent_C, score_C)
        if not len(entering):
            return entering, entering
        latent, score, peak = latent_C[entering], score_C[entering], peak_C[entering]
        order_CS, worst_C = self.order_LS[latent], self._worst_L[latent]
        same_CS = (self.group_LS[latent] == group) & (order_CS >= 0)
        again_C = same_CS.any(axis=1)
        latest_of_worst_C = np.where(self.score_LS[latent] == worst_C[:, None], order_CS, -2).argmax(axis=1)
        slot = np.where(again_C, same_CS.argmax(axis=1), latest_of_worst_C)
        wins_C = np.where(again_C, peak > self.peak_LS[latent, slot], score > worst_C)
        latent, slot = latent[wins_C], slot[wins_C]
        self.score_LS[latent, slot] = score[wins_C]
        self.peak_LS[latent, slot] = peak[wins_C]
        self.order_LS[latent, slot] = order
        self.group_LS[latent, slot] = group
        self._worst_L[latent] = self.score_LS[latent].min(axis=1)
        return entering[wins_C], slot

    def show(
        self,
        latent_C: Int[np.ndarray, " C"],
        slot_C: Int[np.ndarray, " C"],
        first_C: Int[np.ndarray, " C"],
        length: int,
        share_CVW: Float16[np.ndarray, "C V W"] | None = None,
    ) -> None:
        """Set the windows of filled slots: their first tokens, number of tokens, and values as shares of the peak."""
        self.first_LS[latent_C, slot_C] = first_C
        self.length_LS[latent_C, slot_C] = length
        if share_CVW is not None:
            self._share_LSVW[latent_C, slot_C] = share_CVW

    def strongest(self, latent: int) -> Int64[np.ndarray, " K"]:
        """Slots of a latent that hold a text, the largest peak first; of equal ones the text seen first."""
        filled = np.flatnonzero(self.order_LS[latent] >= 0)
        return filled[np.lexsort((self.order_LS[latent, filled], -self.peak_LS[latent, filled]))]

    def values(self, latent: int, slot: int) -> Float64[np.ndarray, "V T"]:
        """Activation and presences on the tokens of a window."""
        share_VW = self._share_LSVW[latent, slot, :, : self.length_LS[latent, slot]]
        return share_VW.astype(np.float64) * self.peak_LS[latent, slot]


class Lottery:
    """One uniform number in [0, 1) for every (group, latent), the same whenever it is asked for.

    To keep the S groups with the highest numbers is a uniform sample without replacement of the distinct groups, in
    one pass and without their number (bottom-k sampling, Cohen and Kaplan 2007). The numbers are those of SplitMix64
    (Steele, Lea and Flood 2014) at a hash of the pair and a seed drawn from the generator.
    """

    def __init__(self, n_latents: int, rng: np.random.Generator) -> None:
        seed = rng.integers(0, 2**64, dtype=np.uint64)
        self._ticket_L = _mix(np.arange(n_latents, dtype=np.uint64) ^ seed)

    def draw(self, group: np.uint64, latent_C: Int[np.ndarray, " C"]) -> Float64[np.ndarray, " C"]:
        """The numbers of a group for some latents."""
        bits_C = _mix(self._ticket_L[latent_C] ^ group)
        return (bits_C >> np.uint64(11)).astype(np.float64) * 2.0**-53


def group_numbers(texts: Sequence[int], groups: Sequence[str] | None) -> npt.NDArray[np.uint64]:
    """A number for each text's group, equal in every process; a text without a group is its own."""
    names = [f"text {text}" for text in texts] if groups is None else [f"group {group}" for group in groups]
    digests = [blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _mix(bits: UInt64[np.ndarray, " L"]) -> UInt64[np.ndarray, " L"]:
    """One step of SplitMix64."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
