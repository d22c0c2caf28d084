"""What several commands have: options, and what they set up. Heavy imports happen inside: `--help` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diffharness import defaults

Option = Callable[..., Any]
MODEL = "a folder, a Hub id, or lm-eval model_args"
SPARSITIES = ("batch_topk", "topk", "l1", "jumprelu")


def together(*options: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One decorator for several options, in their order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def dictionary_options() -> list[Option]:
    """What a crosscoder that is trained is like."""
    return [
        click.option("--latents", type=int, help=f"Size of the crosscoder  [{defaults.EXPANSION} × hidden size]"),
        click.option("--k", type=int, help="Mean number of active latents a token  [hidden size / 32, 8 to 100]"),
        click.option("--sparsity", type=click.Choice(SPARSITIES), help="What keeps the code sparse: the k largest "
                     "over a batch or of every token, a penalty, or learned thresholds  "
                     f"[{defaults.SPARSITY}]"),
        click.option("--shared-latents", metavar="N", type=int, help="Latents whose decoders are the same in all "
                     "models  [0]"),
        click.option("--dedicated", metavar="N", type=int, help="Latents of each model alone, so many for each  [0]"),
        click.option("--groups", metavar="A,B", help="Matryoshka: sizes of nested dictionaries; all latents come "
                     "last by themselves  [none]"),
        click.option("--seeds", metavar="N", type=int, help="Crosscoders to train with seeds of their own: the first "
                     "is used, the others say how stable its latents are  [1]"),
    ]  # fmt: skip


def loaded_options() -> list[Option]:
    """A crosscoder that is loaded in place of training."""
    return [
        click.option("--crosscoder", metavar="CROSSCODER", help="Load this crosscoder and train none: a folder, a "
                     "file, or a Hub id (owner/name[@revision]), in our format or another project's; goes without "
                     "the options of training."),
        code_norm_option(),
    ]  # fmt: skip


def code_norm_option() -> Option:
    """What some files do not say."""
    return click.option(
        "--code-norm",
        metavar="NORM",
        help="How the loaded file scales its code, where it does not say: sum, concatenated, mixed:A,B, none or "
        "per_model.",
    )


def naming_options() -> list[Option]:
    """Which latents are specific, and who names them."""
    return [
        click.option("--annotator", metavar="WHO", multiple=True, help="Who names the latents: probe, none, "
                     "file,LABELS.csv, file,RUN/latents.parquet (the names of an earlier run with its crosscoder), "
                     "or an lm-eval model such as local-chat-completions,model=NAME,base_url=URL; "
                     f"give two to compare them  [{defaults.ANNOTATOR}]"),
        click.option("--annotate", metavar="N", type=int, help="Latents that an annotating model is asked about, those "
                     f"that differ most first  [{defaults.ANNOTATE}]"),
        click.option("--nu-reconstruction", metavar="X", type=float, help="A latent is specific to a model where ν^r "
                     f"is below this  [{defaults.NU_RECONSTRUCTION}]"),
        click.option("--nu-error", metavar="X", type=float, help="... and ν^ε below this  "
                     f"[{defaults.NU_ERROR}]"),
    ]  # fmt: skip


def run_options(with_models: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of `run`; those of `demo` leave models, tasks and texts out."""
    models: list[Option] = [
        click.option("--baseline", metavar="MODEL", help=f"Model compared with: {MODEL}."),
        click.option("--candidate", metavar="MODEL", help=f"Model compared: {MODEL}."),
        click.option("--ancestor", metavar="MODEL", help="Model that both descend from; adds the category shift."),
        click.option("--tasks", metavar="A,B", multiple=True, help="lm-eval tasks, groups or patterns; repeatable."),
        click.option("--include-path", metavar="DIR", multiple=True, help="Folder of further tasks; repeatable."),
        click.option("--metric", metavar="NAME[,FILTER]", help="What the account is of  [a task's first metric]"),
        click.option("--cluster", metavar="KEY", help="Field of the documents that says which belong together (a "
                     "passage, a subject); tests and intervals draw it whole  [a task's own metadata.cluster]"),
        click.option("--corpus", metavar="TEXTS[@WEIGHT]", multiple=True, help="Texts to train the crosscoder on: "
                     "JSONL (`text` in every line), .txt or Parquet, hf:NAME[:SPLIT[:COLUMN]], or `tasks` for the "
                     "tasks' training splits; repeatable  [what the tasks made the models read]"),
        click.option("--probes", metavar="PATH", help="Texts that name latents (JSONL with `text`, `category` and "
                     "perhaps `contrast`, or a folder of such)  [built-in English ones]"),
        click.option("--taxonomy", metavar="YAML", help="The categories that there are  [built in]"),
        click.option("--baseline-results", metavar="DIR", help="Go on from what `diffharness lm-eval` recorded, or "
                     "from a folder of plain lm-eval (--output_path with --log_samples, any engine)."),
        click.option("--candidate-results", metavar="DIR", help="The same for the candidate."),
        click.option("--replay-baseline", metavar="MODEL", help="Hugging Face weights to replay --baseline-results "
                     "with  [those that were scored]"),
        click.option("--replay-candidate", metavar="MODEL", help="The same for the candidate."),
        *loaded_options(),
        click.option("--config", metavar="YAML", type=click.Path(path_type=Path), help="Read options from a file; "
                     "`diffharness init` writes one."),
    ]  # fmt: skip
    asked: list[Option] = [
        click.option("--num-fewshot", type=int, help="Examples before each document  [as the task says]"),
        click.option("--apply-chat-template/--no-chat-template", default=None, help="Put prompts into the baseline's "
                     "chat template, for both models alike  [no]"),
        click.option("--own-templates/--one-template", default=None, help="With --apply-chat-template: score the "
                     "candidate in its own chat template. It is asked in the baseline's too, and what the template "
                     "makes of a gap is a part of its own, `prompt`  [one template]"),
        click.option("--fewshot-as-multiturn/--no-fewshot-as-multiturn", default=None, help="Make examples turns of "
                     "the conversation  [as lm-eval]"),
        click.option("--system-instruction", metavar="TEXT", help="What comes before every prompt."),
        click.option("--gen-kwargs", metavar="KEY=VALUE,...", help="Generation arguments in place of the tasks' own."),
    ]  # fmt: skip
    common: list[Option] = [
        *naming_options(),
        click.option("--layer", metavar="N|auto", help="Decoder block, or fraction of depth; auto is "
                     f"{defaults.AUTO_RULE}  [{defaults.LAYER}, or what the loaded crosscoder reads]"),
        click.option("--depth-documents", metavar="N", type=int, help="Documents a task, at most, that every layer is "
                     f"looked at with  [{defaults.DEPTH_DOCUMENTS}]"),
        *dictionary_options(),
        click.option("--train-tokens", type=int, help=f"Tokens of the corpora to read  [{defaults.TRAIN_TOKENS}]"),
        click.option("--activation-dtype", metavar="DTYPE", help="float32, bfloat16 or float16: what activations are "
                     "stored in  [as the models compute]"),
        click.option("--stream/--store", default=None, help="Feed activations straight into training, never to disk; "
                     "every pass reads the texts again  [store]"),
        click.option("--skip-special/--code-special", default=None, help="Leave out the positions of special tokens, "
                     "as the first one always is  [code]"),
        click.option("--limit", type=float, help="Documents a task: a count, or a fraction below 1  [all]"),
        click.option("--batch-size", metavar="N", help=f"lm-eval's batch size, or auto  [{defaults.BATCH_SIZE}]"),
        click.option("--device", help="Torch device  [the first GPU, else the CPU]"),
        click.option("--seed", type=int, help=f"Of the crosscoder, samples and intervals  [{defaults.SEED}]"),
        click.option("--smallest-effect", type=float, help="Gaps below this are no change: absolute for scores from "
                     f"0 to 1, else relative  [{defaults.SMALLEST_EFFECT}]"),
        click.option("--attribution-documents", type=int, help="Documents a task to split its gap on, drawn in strata "
                     f"[{defaults.ATTRIBUTION_DOCUMENTS}]"),
        click.option("--random-sets", metavar="N", type=int, help="Random sets of latents that every claim is tried "
                     "against; 0 leaves them out, and nothing is worded as a cause  "
                     f"[{defaults.RANDOM_SETS}]"),
        click.option("--shapley", type=click.Choice(("likelihood", "all", "none")), help="Tasks whose categories get "
                     "Shapley values on the real metric; `all` generates answers anew for every set of categories  "
                     f"[{defaults.SHAPLEY}]"),
        click.option("--ablate", metavar="CATEGORY[,CATEGORY]", multiple=True, help="Score the candidate without "
                     "these, put back to the baseline's version, as a model of its own; repeatable  [none]"),
        click.option("--controls/--no-controls", default=None, help="Try the account with a random encoder and "
                     "shuffled labels  [controls]"),
    ]  # fmt: skip
    output = defaults.OUTPUT if with_models else defaults.DEMO_OUTPUT
    last: list[Option] = [click.option("--output", metavar="DIR", help=f"The run's folder  [{output}]")]

    return together(*([*models, *asked] if with_models else []), *common, *last)


def run_config(config: Path | None, options: dict[str, Any]) -> Any:
    """The run that `run_options` mean: a file's keys, and over them what was given on the command line."""
    from diffharness.config import RunConfig, read_yaml

    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "tasks" in given:
        given["tasks"] = [name.strip() for part in given["tasks"] for name in part.split(",") if name.strip()]
    values = read_yaml(config) if config is not None else {}
    source = f"--config {config}" if config is not None and not given else "the options"
    return RunConfig.make({**values, **given}, source)


def make_console(out: bool = False) -> Any:
    """The terminal: its standard error, where progress is shown, or what a command prints."""
    from rich.console import Console

    return Console(stderr=not out)


def quiet_libraries() -> None:
    """Keep libraries' own bars and notices out of the way of ours; must come before they are imported.

    Threads that wait sleep instead of spinning: on a busy machine spinning made the same work ten times slower.
    """
    import logging
    import os
    import warnings

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("lm_eval", "datasets", "transformers", "nnsight", "accelerate", "httpx", "evaluate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
