"""An lm-eval model: one of a run's two models with some latents put back, removed or put in, from the run's folder.

`diffharness lm-eval run --model diffharness-ablated --model_args run=FOLDER,ablate=safety --tasks ...`, or in Python
`lm_eval.simple_evaluate(model=AblatedModel.from_run(FOLDER, ablate=("safety",)), tasks=...)`.
"""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string

from diffharness.activations.capture import LayerReader
from diffharness.artifacts import altered_files, model_fingerprint, split_model_args
from diffharness.attribution.interventions import BASELINE, CANDIDATE, Arm, intervene
from diffharness.config import RunConfig, read_yaml
from diffharness.crosscoder import checkpoint
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError
from diffharness.evaluation.loading import load_model
from diffharness.evaluation.recording import RecordingModel
from diffharness.latents.choosing import chosen_latents

Side = Literal["baseline", "candidate"]
NAME = "diffharness-ablated"
SIDES = ("baseline", "candidate")
_OWN_SIDE = {"put_back": "candidate", "put_in": "baseline"}
"""The model that a mode is about; `remove` goes with either."""
_ARGUMENTS = ("run", "ablate", "mode", "side", "batch_size", "device")
Answer = TypeVar("Answer")


class AblatedModel(LM):
    """One of two models, run with an intervention at the layer; everything else is lm-eval's `hf` model.

    Args:
        model: the model that is scored.
        readers: of the baseline and the candidate, at the layer; one of them reads `model`.
        crosscoder: over (baseline, candidate).
        arm: what stands at the layer.
        name: what was ablated, for lm-eval's results.
    """

    def __init__(
        self,
        model: RecordingModel,
        readers: tuple[LayerReader, LayerReader],
        crosscoder: Crosscoder,
        arm: Arm,
        name: str = "",
    ) -> None:
        super().__init__()
        self.inner = model
        self.readers = readers
        self.crosscoder = crosscoder
        self.arm = arm
        self.name = name
        self.target = BASELINE if readers[BASELINE].model is model.hf_model else CANDIDATE

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        ablate: Sequence[str | int],
        mode: str = "put_back",
        side: str | None = None,
        *,
        batch_size: int | str | None = None,
        device: str | None = None,
    ) -> AblatedModel:
        """Load a run's two models, its crosscoder and its latents' categories.

        Args:
            run: folder of a finished run.
            ablate: categories, or numbers of latents.
            mode: `put_back` (the candidate, with these latents in the baseline's version), `remove` (either model,
                without them), `put_in` (the baseline, with these latents in the candidate's version).
            side: the model, for `remove`; the candidate by default.
            batch_size: lm-eval's; the run's by default.
            device: torch's; the run's by default.

        Raises:
            UsageError: no such category, a run without a mechanism, models that have changed since the run.
        """
        names = tuple(str(name) for name in ablate)
        side = _side(mode, side)
        found = _read_run(Path(run))
        chosen = chosen_latents(names, found.categories, f"ablate={'+'.join(names)}")
        size = batch_size if batch_size is not None else found.config.batch_size
        models = [load_model(found.model_args[s], batch_size=size, device=device or found.config.device) for s in SIDES]
        if found.config.apply_chat_template:
            models[1].hf_tokenizer.chat_template = models[0].hf_tokenizer.chat_template
        crosscoder = checkpoint.load(found.folder / "crosscoder", str(models[0].hf_model.device)).requires_grad_(False)
        baseline, candidate = (LayerReader(model.hf_model, crosscoder.config.layers[0]) for model in models)
        arm = Arm(mode, chosen)  # pyright: ignore[reportArgumentType]
        name = f"{side} of {found.folder.name}, {mode} {'+'.join(names)}"
        return cls(models[SIDES.index(side)], (baseline, candidate), crosscoder, arm, name)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> AblatedModel:
        """From lm-eval's parsed model arguments: `run=FOLDER,ablate=A+B[,mode=...][,side=...]`.

        Raises:
            UsageError: as `from_run`, or an argument that is missing or unknown.
        """
        options = {k: v for k, v in (additional_config or {}).items() if v is not None and k != "max_batch_size"}
        if not torch.cuda.is_available() and str(options.get("device")).startswith("cuda"):
            del options["device"]  # lm-eval's default, in whose place its `hf` model takes the CPU too
        given = {**options, **arg_dict}
        unknown = next((key for key in given if key not in _ARGUMENTS), None)
        if unknown is not None:
            raise UsageError(f"{NAME} takes no {unknown}; give {', '.join(_ARGUMENTS)}")
        for key in ("run", "ablate"):
            if given.get(key) in (None, ""):
                raise UsageError(f"{NAME} needs {key}; give --model_args run=FOLDER,ablate=CATEGORY+CATEGORY")
        ablate = given.pop("ablate")
        names = ablate if isinstance(ablate, list | tuple) else str(ablate).split("+")
        return cls.from_run(given.pop("run"), names, **given)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> AblatedModel:
        """As `create_from_arg_obj`, from `key=value,...`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def _answered(self, method: Callable[..., list[Answer]], requests: list[Instance], quiet: bool) -> list[Answer]:
        with intervene(self.readers, self.crosscoder, self.target, self.arm):
            answers = method(requests, disable_tqdm=quiet)
        self.inner.clear_ledger()
        return answers

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's `hf` model, under the intervention."""
        return self._answered(self.inner.loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's `hf` model, under the intervention."""
        return self._answered(self.inner.loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As lm-eval's `hf` model, under the intervention; both models step together."""
        return self._answered(self.inner.generate_until, requests, disable_tqdm)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse lm-eval's response cache, which does not know one model from another.

        Raises:
            UsageError: when lm-eval wraps the model in a cache.
        """
        if getattr(cache_hook, "dbdict", None) is not None:
            raise UsageError("--use_cache would mix the answers of ablated models, which share a name; leave it out")
        super().set_cache_hook(cache_hook)

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.inner.device

    @property
    def batch_sizes(self) -> dict[Any, int]:
        """lm-eval's."""
        return self.inner.batch_sizes

    @property
    def tokenizer_name(self) -> str:
        """The model's tokenizer."""
        return self.inner.tokenizer_name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's chat template."""
        return self.inner.chat_template(chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as a prompt."""
        return self.inner.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt)

    def get_model_info(self) -> dict[str, Any]:
        """lm-eval's description of the model, and what was changed in it."""
        return {**self.inner.get_model_info(), "ablated": self.name, "n_ablated_latents": len(self.arm.latents)}


register_model(NAME)(AblatedModel)


def _side(mode: str, side: str | None) -> str:
    """The model that is scored."""
    if mode not in ("put_back", "remove", "put_in"):
        raise UsageError(f"mode={mode} is none; give put_back, remove or put_in")
    if side not in (None, *SIDES):
        raise UsageError(f"side={side} is no side; give baseline or candidate")
    own = _OWN_SIDE.get(mode)
    if own is not None and side not in (None, own):
        raise UsageError(f"mode={mode} is about the {own}; leave side={side} out, or give mode=remove")
    return own or side or "candidate"


@dataclass(frozen=True)
class _RunFolder:
    """What a finished run left that its models can be run again with."""

    folder: Path
    config: RunConfig
    model_args: Mapping[str, str]
    categories: tuple[str, ...]


def _read_run(folder: Path) -> _RunFolder:
    """Open a run's folder.

    Raises:
        UsageError: it holds no finished run, one without a mechanism, or one of models that have changed.
    """
    if not (folder / "run.yaml").is_file() or not (folder / "validity.json").is_file():
        raise UsageError(f"run={folder} holds no finished run; give the --output folder of one")
    validity = json.loads((folder / "validity.json").read_text(encoding="utf-8"))
    if validity["withheld"] is not None:
        raise UsageError(f"run={folder} has no mechanism: {validity['withheld']}")
    if not (folder / "latents.json").is_file() or not (folder / "crosscoder").is_dir():
        raise UsageError(f"run={folder} has no mechanism: no crosscoder and named latents are in it; run it again")
    altered = altered_files(folder, "latents baseline-candidate")
    if altered:
        raise UsageError(f"run={folder}: {altered[0]} was cut off or altered since it was written; run it again")
    models = {row["side"]: row for row in validity["models"]}
    for side in SIDES:
        if model_fingerprint(split_model_args(models[side]["model_args"])) != models[side]["fingerprint"]:
            raise UsageError(
                f"run={folder}: the {side} {models[side]['model_args']} is not what it was when the run was made; run "
                "it again"
            )
    rows = json.loads((folder / "latents.json").read_text(encoding="utf-8"))["latents"]
    by_index = {row["index"]: row["category"] for row in rows}
    return _RunFolder(
        folder,
        RunConfig.make(read_yaml(folder / "run.yaml"), f"{folder / 'run.yaml'}"),
        {side: models[side]["model_args"] for side in SIDES},
        tuple(by_index[index] for index in range(len(by_index))),
    )
