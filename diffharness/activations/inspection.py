"""What a store on disk holds, and whether it is whole: for `diffharness activations`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffharness.activations.store import REMEDY, ActivationStore, StoreSpec
from diffharness.errors import UsageError


@dataclass(frozen=True)
class StoreSummary:
    """What `inspect` found."""

    folder: Path
    spec: StoreSpec
    n_texts: int
    n_tokens: int
    """Positions, the first of each text included."""
    n_first: int
    n_special: int
    """Positions of special tokens, other than first ones."""
    n_shards: int
    n_bytes: int
    """Of the shards."""
    sources: tuple[tuple[str, int, int], ...]
    """Name, texts and tokens of each source, the largest first."""
    problems: tuple[str, ...]
    """What is wrong with shards, one sentence each."""
    remedy: str = REMEDY

    @property
    def streamed(self) -> bool:
        """Whether only the texts are kept."""
        return self.n_shards == 0


def inspect(folder: Path) -> StoreSummary:
    """Read the index and check every shard against its checksum.

    Raises:
        UsageError: the folder holds no store.
        RunError: the index is damaged.
    """
    found = next((f for f in (folder, folder / "activations") if (f / "index.parquet").is_file()), None)
    if found is None:
        raise UsageError(f"{folder} holds no activations; give a run's folder, or what `diffharness lm-eval` recorded")
    store = ActivationStore.open(found, verify=False)
    special = np.asarray(store.spec.special_ids)
    counts: dict[str, tuple[int, int]] = {}
    n_special = 0
    for text in store.texts:
        source = text.source.rpartition(":")[0]
        n_texts, n_tokens = counts.get(source, (0, 0))
        counts[source] = (n_texts + 1, n_tokens + len(text.ids))
        n_special += int(np.isin(text.ids[1:], special).sum())
    files = [found / shard["name"] for shard in store.shards]
    return StoreSummary(
        folder=found,
        spec=store.spec,
        n_texts=len(store.texts),
        n_tokens=sum(n for _, n in counts.values()),
        n_first=len(store.texts),
        n_special=n_special,
        n_shards=len(files),
        n_bytes=sum(f.stat().st_size for f in files if f.is_file()),
        sources=tuple(sorted(((name, *n) for name, n in counts.items()), key=lambda row: -row[2])),
        problems=tuple(store.problems()),
    )
