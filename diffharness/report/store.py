"""What a store of activations holds, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.report.numbers import count
from diffharness.report.text import clean

if TYPE_CHECKING:
    from diffharness.activations.inspection import StoreSummary

MOST_SOURCES = 12


def print_store(found: StoreSummary, console: Console) -> None:
    """Print a summary and whether the store is whole."""
    spec = found.spec
    facts = Table.grid(padding=(0, 2))
    rows = {
        "models": ", ".join(f"{side} ({spec.models.get(side, 'unknown')})" for side in spec.sides),
        "layers": ", ".join(map(str, spec.layers)),
        "width": f"{count(spec.d_model)}, {spec.dtype}",
        "texts": count(found.n_texts),
        "tokens": f"{count(found.n_tokens)}, {count(found.n_first)} of them first in their text, "
        f"{count(found.n_special)} special",
        "on disk": "nothing but the texts: activations were streamed"
        if found.streamed
        else f"{count(found.n_shards)} shards, {found.n_bytes / 1e6:,.1f} MB",
    }
    for name, value in rows.items():
        facts.add_row(Text(name, style="dim"), Text(clean(value)))
    console.print(Text(clean(str(found.folder)), style="bold"), facts)
    sources = Table("source", box=None, header_style="dim")
    for heading in ("texts", "tokens"):
        sources.add_column(heading, justify="right")
    for name, n_texts, n_tokens in found.sources[:MOST_SOURCES]:
        sources.add_row(clean(name), count(n_texts), count(n_tokens))
    if len(found.sources) > MOST_SOURCES:
        rest = found.sources[MOST_SOURCES:]
        sources.add_row(f"{len(rest)} more", count(sum(r[1] for r in rest)), count(sum(r[2] for r in rest)))
    console.print(sources)
    for problem in found.problems:
        console.print(Text(f"✗ {clean(problem)}", style="bold red"))
    if not found.problems:
        what = "the index is whole" if found.streamed else f"index and {count(found.n_shards)} shards are whole"
        console.print(Text(f"✓ {what}", style="green"))
