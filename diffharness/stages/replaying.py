"""Stages of the activations: harvested or streamed for the crosscoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.errors import RunError
from diffharness.stages.reading import Progress, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from diffharness.activations.corpus import Text
    from diffharness.activations.store import ActivationStore, StoreSpec
    from diffharness.crosscoder.batches import Activations
    from diffharness.pipeline import Run

HELDOUT_SHARE = 0.1


class RunTexts:
    """Reads texts with all models at the run's layers: from what `diffharness lm-eval` left, else by replay."""

    def __init__(self, run: Run) -> None:
        from diffharness.activations.harvesting import ReplayedTexts

        self._layers = run.session.layers
        self._n_sides = len(run.sides)
        self._replayed = ReplayedTexts([run.session.reader(side) for side in run.sides], run.progress.say)
        self._recorded = [] if run.config.corpus else _recorded_stores(run)

    def __call__(self, texts: Sequence[Text]) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
        """Each text's place in the list and its activations by layer."""
        import torch

        left = []
        for i, text in enumerate(texts):
            found = [(store, places[text.ids]) for store, places in self._recorded if text.ids in places]
            if len(found) == self._n_sides:
                yield i, {n: torch.cat([store.text(t, n) for store, t in found], dim=1) for n in self._layers}
            else:
                left.append(i)
        for place, x in self._replayed([texts[i] for i in left]):
            yield left[place], x


def _recorded_stores(run: Run) -> list[tuple[ActivationStore, dict[tuple[int, ...], int]]]:
    """What `diffharness lm-eval` left of every side at the run's layer, with each sequence's place in it.

    Raises:
        RunError: a store is damaged, or belongs to other weights.
    """
    from diffharness.activations.store import ActivationStore

    folders = {side: run.recorded[side].folder / "activations" for side in run.sides if side in run.recorded}
    if len(folders) < len(run.sides) or not all((f / "index.parquet").is_file() for f in folders.values()):
        return []
    stores = {side: ActivationStore.open(folder) for side, folder in folders.items()}
    for side, store in stores.items():
        if store.spec.models["recorded"] != run.session.model_fingerprints[side]:
            raise RunError(
                f"{store.folder} holds activations of other weights than the {side}'s; record the evaluation again"
            )
    if not all(set(run.session.layers) <= set(store.spec.layers) for store in stores.values()):
        return []
    return [(store, {text.ids: i for i, text in enumerate(store.texts)}) for store in stores.values()]


def store_spec(run: Run) -> StoreSpec:
    """What the run's store holds."""
    from diffharness.activations.store import StoreSpec

    return StoreSpec(
        sides=run.sides,
        layers=run.session.layers,
        d_model=run.session.architectures["baseline"].hidden_size,
        dtype=run.session.store_dtype,
        models={side: run.session.model_fingerprints[side] for side in run.sides},
        special_ids=tuple(sorted(run.session.special_ids)),
    )


def harvest(run: Run, folder: Path, progress: Progress) -> None:
    """Let all models read the training texts and leave the activations side by side; only the texts when streamed."""
    from diffharness.activations.store import write_store, write_texts

    rng = np.random.default_rng(run.config.seed)
    texts, sources = _corpus_texts(run, rng) if run.config.corpus else _ledger_texts(run, rng)
    run.session.check_tokens({i for text in texts for i in text.ids}, "the corpus")
    if len(texts) < 2:
        raise RunError("there are fewer than two texts to train the crosscoder on; give a larger --corpus")
    write_json(folder / "corpus.json", sources)
    if run.config.stream:
        write_texts(folder, store_spec(run), texts)
    else:
        write_store(folder, store_spec(run), texts, RunTexts(run), progress)


def _corpus_texts(run: Run, rng: np.random.Generator) -> tuple[list[Text], dict[str, Any]]:
    """Texts of the corpora in random order, and what came from where."""
    from dataclasses import asdict

    from diffharness.activations.corpus import sample_corpus

    model = run.session.model("baseline")
    specs = run.session.corpora
    sample = sample_corpus(
        specs,
        model.hf_tokenizer,
        max_length=model.context_tokens,
        n_tokens=run.config.train_tokens,
        rng=rng,
        tasks=run.session.tasks.tasks if any(spec.kind == "tasks" for spec in specs) else None,
        add_special_tokens=model.adds_special_tokens,
    )
    texts = [sample.texts[i] for i in rng.permutation(len(sample.texts))]
    sources = [{**asdict(count), "source": _short(count.source)} for count in sample.counts]
    return texts, {"sources": sources, "notes": list(sample.notes)}


def _short(source: str) -> str:
    """A file's own name, without its folders, for the report."""
    return Path(source).name if Path(source).exists() else source


def _ledger_texts(run: Run, rng: np.random.Generator) -> tuple[list[Text], dict[str, Any]]:
    """What the tasks made the models read, each sequence once, in random order up to the budget."""
    from diffharness.activations.corpus import Text

    read: dict[tuple[int, ...], str] = {}
    n_readings = 0
    for side in run.compared:
        for reading in run.load_evaluation(run.shared(side)).ledger:
            n_readings += 1
            if len(reading.ids) > 1:
                read.setdefault(reading.ids, f"{reading.task}:{reading.doc_id}")
    texts = [Text(ids, source) for ids, source in read.items()]
    texts = [texts[i] for i in rng.permutation(len(texts))]
    reach = np.searchsorted(np.cumsum([len(t.ids) - 1 for t in texts]), run.config.train_tokens) + 1
    texts = texts[:reach]
    by_task: dict[str, list[Text]] = {}
    for text in texts:
        by_task.setdefault(text.source.rpartition(":")[0], []).append(text)
    n_tokens = {task: sum(len(t.ids) - 1 for t in own) for task, own in by_task.items()}
    sources = [
        {
            "source": task,
            "n_documents": len({t.source for t in own}),
            "n_sequences": len(own),
            "n_tokens": n_tokens[task],
            "share": n_tokens[task] / sum(n_tokens.values()),
        }
        for task, own in by_task.items()
    ]
    notes = [f"the tasks made the models read {n_readings} sequences, {len(read)} of them distinct"]
    return texts, {"sources": sources, "notes": notes}


@dataclass(frozen=True)
class Harvested:
    """Texts and where their activations come from."""

    run: Run
    store: ActivationStore
    heldout: np.ndarray
    """Mask of the texts that no crosscoder is trained on."""

    @property
    def texts(self) -> tuple[Text, ...]:
        """The texts in the store's order."""
        return self.store.texts

    def rows(self, sides: tuple[str, ...], texts: np.ndarray | None = None) -> Activations:
        """Activations of some sides on the coded positions of some texts (indices; all by default).

        With several layers, all layers of the first side come first.
        """
        run, skipped = self.run, self.run.session.skipped_ids
        if not run.config.stream:
            from diffharness.activations.side_by_side import SideBySide, models_first

            chosen = None if texts is None else texts.tolist()
            layers = [self.store.rows(sides, layer, chosen, skipped) for layer in run.session.layers]
            return layers[0] if len(layers) == 1 else SideBySide(layers, models_first(len(layers), len(sides)))
        from diffharness.activations.streaming import StreamedActivations

        chosen = self.texts if texts is None else [self.texts[i] for i in texts.tolist()]
        return StreamedActivations(
            RunTexts(run),
            chosen,
            layer=run.session.layer,
            columns=[run.sides.index(side) for side in sides],
            d_model=self.store.spec.d_model,
            skipped_ids=skipped,
        )

    def heldout_ids(self, limit: int) -> list[tuple[int, ...]]:
        """Token ids of the first held-out texts."""
        return [self.texts[i].ids for i in np.flatnonzero(self.heldout)[:limit]]

    def training(self, sides: tuple[str, ...]) -> tuple[Activations, Activations]:
        """Activations to train on, and held-out ones."""
        return self.rows(sides, np.flatnonzero(~self.heldout)), self.rows(sides, np.flatnonzero(self.heldout))


def harvested(run: Run) -> Harvested:
    """Open the run's activations; every shard is checked."""
    from diffharness.activations.harvesting import heldout_texts
    from diffharness.activations.store import ActivationStore

    store = ActivationStore.open(run.harvest().folder)
    rng = np.random.default_rng(run.config.seed)
    return Harvested(run, store, heldout_texts(store.texts, HELDOUT_SHARE, rng))
