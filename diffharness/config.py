"""What a run is: validated, hashed, written beside its results."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from diffharness import defaults
from diffharness.errors import UsageError
from diffharness.secrets import without_secrets
from diffharness.templates import refused

ASKED = ("num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "system_instruction", "gen_kwargs")
"""Options that change what models are asked; lm-eval's own names."""

TRAINED = ("latents", "k", "sparsity", "shared_latents", "dedicated", "groups", "seeds")
"""Options of a crosscoder that is trained; one that is loaded has them settled."""

AUTO = "auto"
"""What `layer` is where it follows from the gaps (`assembly/depth.py`)."""


class RunConfig(BaseModel):
    """One comparison of two models. The fields are the options of `diffharness run`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str | None = None
    """Model compared with: a folder, a Hub id, or lm-eval `model_args`."""
    candidate: str | None = None
    """Model compared."""
    ancestor: str | None = None
    """Model that both descend from; adds the category shift."""
    tasks: tuple[str, ...] = ()
    """lm-eval task, group and pattern names."""
    include_path: tuple[Path, ...] = ()
    """Folders of further task YAML files."""
    metric: str | None = None
    """`metric` or `metric,filter` that the account is of, where a task has it; by default a task's first."""
    cluster: str | None = None
    """Field of the tasks' documents whose value says what belongs together (a passage, a subject): tests and intervals
    then draw it whole; by default what a task's YAML names as `metadata.cluster`."""
    layer: str | None = None
    """Index of a decoder block, a fraction of depth, or `auto` (`defaults.AUTO_RULE`); by default half of the depth, or
    what a loaded crosscoder says."""
    depth_documents: int = Field(defaults.DEPTH_DOCUMENTS, ge=8)
    """Documents a task, at most, that every layer is looked at with, drawn in strata by what became of their score."""
    corpus: tuple[str, ...] = ()
    """Texts that the crosscoder is trained on: files, Hugging Face datasets, `tasks`, each with a weight or without
    (`activations/corpora.py`); by default what the tasks made the models read."""
    probes: Path | None = None
    """Texts that name latents: a JSONL file with `text`, `category` and perhaps a matched `contrast` in every line, or
    a folder of such files; by default the built-in English ones (`tasks/probes/`)."""
    taxonomy: Path | None = None
    """YAML file of the categories that there are; by default the built-in one (`latents/taxonomy.yaml`)."""
    annotator: tuple[str, ...] = (defaults.ANNOTATOR,)
    """Who names the latents: `probe`, `none`, `file,LABELS.csv`, `file,RUN/latents.parquet` (as that run did), or an
    lm-eval model as `name,key=value,...`; of two the first names, and their agreement is reported."""
    annotate: int = Field(defaults.ANNOTATE, ge=1)
    """Latents that an annotating model is asked about, those that differ most first."""
    nu_reconstruction: float = Field(defaults.NU_RECONSTRUCTION, gt=0)
    """A latent is specific to a model where ν^r is below this,"""
    nu_error: float = Field(defaults.NU_ERROR, gt=0)
    """and ν^ε below this."""
    latents: int | None = Field(None, ge=1)
    """Size of the crosscoder; by default four times the hidden size."""
    k: int | None = Field(None, ge=1)
    """Mean number of active latents a token; by default the hidden size over 32, at least 8 and at most 100."""
    sparsity: Literal["batch_topk", "topk", "l1", "jumprelu"] = defaults.SPARSITY
    """What keeps the code sparse: the k largest of a token on average over a batch, or of every token; a penalty; or
    thresholds that are learned with one."""
    shared_latents: int = Field(0, ge=0)
    """Designated shared latents: their decoders are the same in all models."""
    dedicated: int = Field(0, ge=0)
    """Latents that read and write one model alone, so many for each model."""
    groups: tuple[int, ...] = ()
    """Matryoshka: sizes of nested dictionaries that explain the activations by themselves; all latents come last."""
    seeds: int = Field(1, ge=1)
    """Crosscoders trained with seeds of their own: the first is used, the others say how stable its latents are."""
    crosscoder: str | None = None
    """Crosscoder that is loaded in place of training: a folder, a file, or `HUB_ID[@REVISION]`."""
    code_norm: str | None = None
    """How a loaded crosscoder scales its code, where its file does not say: `sum`, `concatenated`, `mixed:A,B`, `none`
    or `per_model`."""
    train_tokens: int = Field(defaults.TRAIN_TOKENS, ge=100)
    """Tokens harvested from the corpora, a tenth of them held out."""
    activation_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What activations are stored in; by default what the models compute in."""
    stream: bool = False
    """Whether activations go straight into training and are never on disk; every pass reads the texts again."""
    skip_special: bool = False
    """Whether the positions of special tokens are left out, as the first one always is."""
    limit: float | None = Field(None, gt=0)
    """Documents a task: a count, or a fraction below 1."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples before each document; by default as many as the task says."""
    apply_chat_template: bool = False
    """Whether prompts are put into the baseline's chat template, for both models alike."""
    own_templates: bool = False
    """Whether the candidate's scores are of its own chat template instead (`templates.py`)."""
    fewshot_as_multiturn: bool | None = None
    """Whether examples are turns of the conversation; by default as lm-eval does."""
    system_instruction: str | None = None
    gen_kwargs: str | None = None
    """Generation arguments, `key=value,...`, in place of the tasks' own."""
    batch_size: int | str = defaults.BATCH_SIZE
    """lm-eval's batch size: a number, so that both models are scored in the same batches, or `auto`."""
    device: str | None = None
    """Torch device; by default the first GPU, else the CPU."""
    seed: int = defaults.SEED
    attribution_documents: int = Field(defaults.ATTRIBUTION_DOCUMENTS, ge=1)
    """Documents a task that its gap is accounted for on, drawn in strata by what became of their score."""
    smallest_effect: float = Field(defaults.SMALLEST_EFFECT, ge=0)
    """Gaps below this are not called a change: absolute for scores between 0 and 1, else relative to the loss."""
    output: Path = Path(defaults.OUTPUT)
    baseline_results: Path | None = None
    """Folder that `diffharness lm-eval` recorded the baseline's evaluation in, or that plain lm-eval left with
    `--output_path` and `--log_samples`."""
    candidate_results: Path | None = None
    replay_baseline: str | None = None
    """Hugging Face weights to replay with, where `baseline_results` were scored by another engine."""
    replay_candidate: str | None = None
    shapley: Literal["likelihood", "all", "none"] = defaults.SHAPLEY
    """Which tasks' categories get Shapley values on the real metric: those scored by log-likelihoods, all (generated
    answers are generated anew for every set of categories), or none."""
    random_sets: int = Field(defaults.RANDOM_SETS, ge=0)
    """Random sets of latents that every claim is tried against; 0 leaves them out, and nothing is worded as a cause."""
    ablate: tuple[str, ...] = ()
    """Categories (or numbers of latents), joined by commas, that the candidate is scored without: each a model."""
    controls: bool = True
    """Whether the account is done again with a random encoder and shuffled labels."""

    @field_validator("batch_size")
    @classmethod
    def _batch_size(cls, value: int | str) -> int | str:
        """A positive number, or lm-eval's `auto` and `auto:N`."""
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and value > 0:
            return value
        if isinstance(value, str) and re.fullmatch(r"auto(:[1-9]\d*)?", value):
            return value
        raise ValueError(f"{value!r} is no batch size; give a number above 0, `auto` or `auto:N`")

    @field_validator("random_sets")
    @classmethod
    def _enough_sets(cls, value: int) -> int:
        """None, or so many that a claim can beat them all at 5 %."""
        if 0 < value < defaults.FEWEST_RANDOM_SETS:
            raise ValueError(
                f"with {value} random sets no claim can beat chance at 5 %; give at least "
                f"{defaults.FEWEST_RANDOM_SETS}, or 0 to leave them out"
            )
        return value

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpora_as_text(cls, value: Any) -> Any:
        """Files may be paths."""
        return tuple(str(v) if isinstance(v, Path) else v for v in value) if isinstance(value, list | tuple) else value

    @field_validator("annotator", mode="before")
    @classmethod
    def _annotators(cls, value: Any) -> Any:
        """One may stand alone."""
        return (value,) if isinstance(value, str) else value

    @field_validator("ablate", mode="before")
    @classmethod
    def _ablated(cls, value: Any) -> Any:
        """One may stand alone, a latent may be a number."""
        models = value if isinstance(value, list | tuple) else (value,)
        return tuple(str(model) if isinstance(model, int) else model for model in models)

    @field_validator("groups", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        """`64,256` as on the command line, or a number alone."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return (value,) if isinstance(value, int) else value

    @field_validator("baseline", "candidate", "ancestor", "layer", "crosscoder", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Folders may be paths and layers numbers."""
        return str(value) if isinstance(value, Path | int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if (self.baseline_results is None) != (self.candidate_results is None):
            raise ValueError("baseline_results and candidate_results go together; give both or neither")
        for side in ("baseline", "candidate"):
            if getattr(self, f"replay_{side}") is not None and getattr(self, f"{side}_results") is None:
                raise ValueError(
                    f"replay_{side} names the weights to replay {side}_results with; give these, or only {side}"
                )
        if (reason := refused(self)) is not None:
            raise ValueError(reason)
        recorded = self.baseline_results is not None
        if recorded and (asked := next((name for name in ASKED if getattr(self, name) not in (None, False)), None)):
            raise ValueError(f"{asked} is settled by the recorded evaluations; leave it out")
        for side in ("baseline", "candidate"):
            if getattr(self, side) is None and not recorded:
                raise ValueError(f"{side} is missing; give a folder, a Hub id or lm-eval model_args")
        if not self.tasks and not recorded:
            raise ValueError("tasks is missing; give the names of lm-eval tasks")
        self._check_crosscoder()
        if not 1 <= len(self.annotator) <= 2 or (len(self.annotator) == 2 and "none" in self.annotator):
            raise ValueError(
                f"annotator {' and '.join(self.annotator) or '()'}: give one, or two to compare; none stands alone"
            )
        return self

    @model_validator(mode="after")
    def _auto_layer(self) -> Self:
        """`auto` is chosen once both models are evaluated, and before anything reads activations."""
        if AUTO not in (self.layer or "").split("+"):
            return self
        if self.layer != AUTO:
            raise ValueError(f"layer {self.layer}: auto chooses one layer; give it alone, or name every layer")
        if not self.needs_tasks:
            raise ValueError("layer auto follows from the gaps of a benchmark, and there is none here; name a layer")
        if self.crosscoder is not None:
            raise ValueError(f"layer auto chooses anew, but crosscoder {self.crosscoder} has one; leave layer out")
        return self

    def _check_crosscoder(self) -> None:
        """Options of the crosscoder that can not go together."""
        fields = type(self).model_fields
        given = next((name for name in TRAINED if getattr(self, name) != fields[name].default), None)
        if self.crosscoder is not None and given is not None:
            raise ValueError(
                f"{given} is of training, but crosscoder {self.crosscoder} is loaded; leave one of the two out"
            )
        if self.code_norm is not None and self.crosscoder is None:
            raise ValueError("code_norm says how a file is read; give the file as crosscoder, or leave it out")
        if self.k is not None and self.latents is not None and self.k > self.latents:
            raise ValueError(f"k {self.k} is above latents {self.latents}; lower k or raise latents")
        if self.groups and self.sparsity not in ("batch_topk", "topk"):
            raise ValueError(f"groups go with batch_topk and topk, not with sparsity {self.sparsity}; leave one out")

    @property
    def needs_tasks(self) -> bool:
        """Whether there is a benchmark; without one a crosscoder is trained by itself."""
        return True

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "the options") -> Self:
        """Validate values from anywhere.

        Raises:
            UsageError: one line that names the first wrong key or value and the remedy.
        """
        _check_keys(values, source)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{source}: {where + ': ' if where else ''}{message}") from error

    def public(self) -> dict[str, Any]:
        """The resolved configuration as JSON, with secrets in model arguments hidden."""
        return {name: _without_secrets(value) for name, value in self.model_dump(mode="json").items()}

    def to_yaml(self) -> str:
        """The same as YAML."""
        return yaml.safe_dump(self.public(), sort_keys=False, allow_unicode=True)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value


def _check_keys(values: dict[str, Any], source: str) -> None:
    known = RunConfig.model_fields
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {key!r}; {hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a run's YAML file; single values of list options may stand alone.

    Raises:
        UsageError: the file is absent, is not a mapping, or has an unknown key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config {path} can not be read ({error.strerror}); `diffharness init` writes one"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path} is not text in UTF-8; `diffharness init` writes a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"--config {path}{where}: not YAML ({problem}); `diffharness init` writes one") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} is not a mapping of options; `diffharness init` writes one")
    _check_keys(values, f"--config {path}")
    for key in ("tasks", "include_path", "corpus", "annotator"):
        if isinstance(values.get(key), str):
            values[key] = [part.strip() for part in values[key].split(",")] if key == "tasks" else [values[key]]
    return {key: value for key, value in values.items() if value is not None}
