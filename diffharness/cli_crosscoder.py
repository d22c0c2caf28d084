"""`diffharness crosscoder`: parses, calls, prints; no logic. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffharness import defaults
from diffharness.cli_options import (
    MODEL,
    Option,
    code_norm_option,
    dictionary_options,
    make_console,
    quiet_libraries,
    together,
)
from diffharness.errors import UsageError

FORMATS = ("native", "dictionary_learning", "steered")


@click.group()
def crosscoder() -> None:
    """Train, measure, convert and share crosscoders without a benchmark."""


def _source_options(purpose: str) -> list[Option]:
    return [
        click.option("--activations", metavar="PATH", multiple=True, type=click.Path(path_type=Path), help=f"{purpose} "
                     "what is stored: a run's folder, what `diffharness lm-eval ... record_to=DIR` left (repeat it for "
                     "each model: texts that all have read are paired), or a .safetensors file with one tensor "
                     "(tokens, models, width)."),
        click.option("--baseline", metavar="MODEL", help=f"{purpose} what models make of texts: {MODEL}."),
        click.option("--candidate", metavar="MODEL", help="The second model."),
        click.option("--ancestor", metavar="MODEL", help="A third: the crosscoder is over baseline, candidate, "
                     "ancestor, in this order."),
        click.option("--corpus", metavar="TEXTS[@WEIGHT]", multiple=True, help="Texts that the models read: JSONL "
                     "(`text` in every line), .txt or Parquet, or hf:NAME[:SPLIT[:COLUMN]]; repeatable."),
        click.option("--layer", metavar="N[+N]", help="Decoder block, or several: then the crosscoder reads all of "
                     f"them  [all that are stored; with models {defaults.LAYER} of the depth]"),
        click.option("--sides", metavar="A,B", help="What the models are called, in order; or which of a store's "
                     "models are read  [as stored, else baseline,candidate,ancestor]"),
        click.option("--train-tokens", "--tokens", "train_tokens", type=int, help="Tokens of the corpora to read  "
                     f"[{defaults.TRAIN_TOKENS}]"),
        click.option("--activation-dtype", metavar="DTYPE", help="float32, bfloat16 or float16: what activations are "
                     "stored in  [as the models compute]"),
        click.option("--skip-special/--code-special", default=None, help="Leave out the positions of special tokens, "
                     "as the first one always is  [code]"),
        click.option("--batch-size", metavar="N", help=f"Of the models  [{defaults.BATCH_SIZE}]"),
        click.option("--device", help="Torch device  [the first GPU, else the CPU]"),
    ]  # fmt: skip


@crosscoder.command()
@together(
    *_source_options("Train on"),
    click.option("--stream/--store", default=None, help="Feed activations straight into training, never to disk  "
                 "[store, in OUTPUT/activations]"),
    *dictionary_options(),
    click.option("--steps", type=int, help="Optimiser steps  [as many as the epochs take, at least 400]"),
    click.option("--epochs", type=float, help="Passes over the tokens  [4]"),
    click.option("--batch-tokens", type=int, help="Tokens in a batch  [1024]"),
    click.option("--learning-rate", type=float, help="Peak of Adam's rate  [by width and latents]"),
    click.option("--initial-k", type=int, help="k at the start, which moves to --k in the first fifth of the steps  "
                 "[--k]"),
    click.option("--product-dtype", type=click.Choice(("auto", "float32", "bfloat16")), help="What candidates for the "
                 "code are found in; the chosen are computed in float32  [auto: bfloat16 where it is fast]"),
    click.option("--stop-patience", metavar="N", type=int, help="Stop when the explained variance of held-out tokens "
                 "has not risen for N evaluations  [never]"),
    click.option("--seed", type=int, help=f"Of weights, order and held-out texts  [{defaults.SEED}]"),
    click.option("--log", "logs", type=click.Choice(("wandb", "tensorboard")), multiple=True, help="Log there too; "
                 "log.jsonl is written in any case."),
    click.option("--output", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where the crosscoder "
                 "is left: config.json, model.safetensors, quality.json, log.jsonl."),
)  # fmt: skip
def train(output: Path, logs: tuple[str, ...], device: str | None, **options: Any) -> None:
    """Train a crosscoder on stored activations, or on what models make of texts.

    Stopped with Ctrl-C, the same command goes on where it was.
    """
    quiet_libraries()
    from diffharness.report.quality_table import print_quality
    from diffharness.stages.training import TrainOptions
    from diffharness.standalone.crosscoders import train as train_crosscoder

    given = {name: value for name, value in options.items() if value is not None and value != ()}
    own = {name: given.pop(name) for name in TrainOptions.model_fields if name in given}
    trained = TrainOptions.make(own)
    source = _source({**given, "seed": trained.seed}, output, device)
    row = train_crosscoder(source, trained, output, device=device, logs=logs, console=make_console())
    print_quality(row, make_console(out=True), str(output))


@crosscoder.command()
@click.argument("spec", metavar="CROSSCODER")
@together(
    *_source_options("Measure on"),
    code_norm_option(),
    click.option("--all/--heldout", "everything", default=None, help="Measure on all tokens, or on the tenth of the "
                 "documents that a training on them holds out  [held-out of --activations, all of --corpus]"),
    click.option("--seed", type=int, help="Of the held-out texts  [the crosscoder's]"),
    click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="Write it as JSON too, "
                 "like the quality.json beside a crosscoder."),
)  # fmt: skip
def quality(
    spec: str,
    code_norm: str | None,
    everything: bool | None,
    json_file: Path | None,
    device: str | None,
    **options: Any,
) -> None:
    """Measure CROSSCODER (a folder, a file or a Hub id) on stored activations, or on what models make of texts.

    With models it also says what its reconstructions cost them (ΔCE, loss recovered). Give texts that it was not
    trained on.
    """
    import tempfile

    quiet_libraries()
    from diffharness.loaded import LoadedCrosscoder
    from diffharness.report.quality_table import print_quality, write_quality
    from diffharness.standalone.crosscoders import as_trained
    from diffharness.standalone.crosscoders import quality as measure

    loaded = LoadedCrosscoder(spec, code_norm, option="")
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    given = as_trained(loaded.config, given)
    everything = "activations" not in given if everything is None else everything
    with tempfile.TemporaryDirectory() as scratch:
        source = _source(given, Path(scratch), device)
        row = measure(loaded, source, everything=everything, device=device, console=make_console())
    print_quality(row, make_console(out=True), spec)
    if json_file is not None:
        write_quality(row, json_file)


@crosscoder.command()
@click.argument("spec", metavar="SOURCE")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(FORMATS), required=True, help="native: config.json and model.safetensors. "
              "dictionary_learning: that project's newest layout. steered: a .pt file for lm-eval "
              "(--model steered --model_args pretrained=MODEL,steer_path=DEST) that adds decoder rows to the residual "
              "stream at every position.")  # fmt: skip
@code_norm_option()
@click.option("--sides", metavar="A,B", help="What its models are called from now on, in the file's order.")
@click.option("--layer", metavar="N[+N]", help="What it reads, where its file does not say it.")
@click.option("--latents", metavar="J,J", help="steered: latents whose rows are added up.")
@click.option("--side", metavar="SIDE", help="steered: whose decoder  [candidate]")
@click.option("--coefficient", type=float, default=1.0, show_default=True, help="steered: what they are multiplied by, "
              "in units of the latents' activation.")  # fmt: skip
@click.option("--hookpoint", metavar="NAME", help="steered: what the model calls a decoder block, with {layer} for the "
              "index  [layers.{layer}; GPT-2: h.{layer}]")  # fmt: skip
def convert(
    spec: str,
    destination: Path,
    to: str,
    code_norm: str | None,
    sides: str | None,
    layer: str | None,
    latents: str | None,
    **options: Any,
) -> None:
    """Read SOURCE (a folder, a file or a Hub id, of any known format) and write it to DEST in another."""
    quiet_libraries()
    from diffharness.loaded import LoadedCrosscoder
    from diffharness.standalone.crosscoders import convert as convert_crosscoder

    convert_crosscoder(
        LoadedCrosscoder(spec, code_norm, option=""),
        destination,
        to,
        sides=_words(sides) or None,
        layers=_numbers("--layer", layer, "+"),
        latents=_numbers("--latents", latents, ","),
        **options,
    )
    click.echo(f"wrote {destination}")


@crosscoder.command()
@click.argument("spec", metavar="CROSSCODER")
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--private/--public", default=True, help="Who may read a repository that is made  [private]")
@click.option("--dry-run", is_flag=True, help="Upload nothing; leave the folder that would be.")
@click.option("--folder", metavar="DIR", type=click.Path(path_type=Path), help="Where --dry-run leaves it  "
              "[NAME-upload]")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@code_norm_option()
def push(
    spec: str, repo_id: str, private: bool, dry_run: bool, folder: Path | None, yes: bool, code_norm: str | None
) -> None:
    """Upload CROSSCODER to the Hugging Face Hub, with a model card that carries its quality.

    Asks before anything leaves this machine. Measure it before: its quality.json is what the card shows.
    """
    import tempfile

    quiet_libraries()
    from diffharness.crosscoder.hub import push as upload
    from diffharness.loaded import LoadedCrosscoder
    from diffharness.standalone.crosscoders import ready_to_push

    loaded = LoadedCrosscoder(spec, code_norm, option="")
    if dry_run:
        folder = folder or Path(f"{repo_id.rpartition('/')[2]}-upload")
        files = ready_to_push(loaded, repo_id, folder)
        click.echo(f"would upload to {repo_id}: {', '.join(file.name for file in files)}, in {folder}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        files = ready_to_push(loaded, repo_id, Path(scratch))
        kind = "private" if private else "public"
        sizes = sum(file.stat().st_size for file in files) / 1e6
        question = f"upload {len(files)} files ({sizes:,.1f} MB) to {repo_id}, {kind} if it is new?"
        if not yes and not click.confirm(question, err=True):
            raise UsageError("nothing was uploaded")
        click.echo(f"uploaded to {upload(Path(scratch), repo_id, private=private)}")


def _source(given: dict[str, Any], output: Path, device: str | None) -> Any:
    """The activations that the options name."""
    from diffharness.standalone.harvesting import choose

    named = ("layer", "sides", "activations")
    options = {name: value for name, value in given.items() if name not in named}
    activations, layer = given.get("activations", ()), given.get("layer")
    if layer is not None:
        options["layer"] = _numbers("--layer", layer, "+") if activations else layer
    options |= {"output": output, "device": device}
    return choose(activations, _words(given.get("sides")), options, console=make_console())


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(option: str, text: str | None, between: str) -> tuple[int, ...]:
    parts = [part.strip() for part in (text or "").split(between) if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"{option} {text} is not whole numbers joined by {between!r}; give some such as 3{between}17")
    return tuple(sorted({int(part) for part in parts}))
