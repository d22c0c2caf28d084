"""A crosscoder's quality in the terminal, and as a file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.artifacts import write_atomically
from diffharness.errors import RunError
from diffharness.report.numbers import count, percent, plain, signed
from diffharness.report.quality import rule_words, stability_sentence
from diffharness.report.schema import CrosscoderQuality
from diffharness.report.text import clean


def print_quality(quality: CrosscoderQuality, console: Console, place: str) -> None:
    """A row a model, and what holds for all of them."""
    table = Table("model", box=None, header_style="dim")
    for heading in ("explained variance", *(("ΔCE", "loss recovered") if quality.splice else ())):
        table.add_column(heading, justify="right")
    for model, variance in quality.explained_variance.items():
        loss = quality.splice.get(model)
        more = (signed(loss.delta_ce), percent(loss.loss_recovered, 1)) if loss is not None else ()
        table.add_row(clean(model), percent(variance, 1), *more)
    facts = [
        f"{count(quality.n_latents)} latents, L0 {plain(quality.l0, 1)}, dead {percent(quality.dead_share, 1)}, "
        f"{rule_words(quality)}"
    ]
    if quality.n_measured_tokens is not None:
        facts.append(f"on {count(quality.n_measured_tokens)} tokens")
    stable = stability_sentence(quality)
    facts += [text for text in (stable, quality.source) if text]
    console.print(Text(clean(place), style="bold"), table, *(Text(clean(fact)) for fact in facts), sep="\n")
    if quality.stale is not None:
        console.print(Text(f"stale: {clean(quality.stale)}", style="bold dark_orange"))


def write_quality(quality: CrosscoderQuality, file: Path) -> None:
    """The same as JSON, like the `quality.json` beside a crosscoder.

    Raises:
        RunError: the file can not be written.
    """
    try:
        write_atomically(file, quality.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise RunError(f"--json {file} can not be written ({error.strerror}); choose another file") from error
