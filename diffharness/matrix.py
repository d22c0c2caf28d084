"""One baseline and many candidates with one shared crosscoder.

    evaluate all ─► harvest ─► train one crosscoder ─► name its latents ─┐
                                                 └─► restrict to a pair ─┴─► a run for each candidate ─► matrix

What all share is in `<output>/shared`, every candidate's run in `<output>/<its name>`. Finished work is not done again;
a candidate more is evaluated by itself, but the crosscoder is then trained anew, and what rests on it is too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from diffharness import stages
from diffharness.artifacts import Workspace, path_fingerprint
from diffharness.candidates import SHARED, Candidates, check_options
from diffharness.command import default_command
from diffharness.config import TRAINED, RunConfig
from diffharness.errors import DiffharnessError
from diffharness.made_from import Stage, label_file, named_from, stage_fingerprint
from diffharness.pipeline import Run
from diffharness.progress import StageProgress
from diffharness.recorded import Recorded
from diffharness.report.schema.matrix import Matrix
from diffharness.session import Session
from diffharness.stages import joint as joint_stages
from diffharness.stages.reading import MAIN
from diffharness.stages.training import training_settings

if TYPE_CHECKING:
    from rich.console import Console

    from diffharness.report.schema import Report
    from diffharness.stages.replaying import Harvested


class JointSession(Session):
    """The models of a matrix: the baseline, then every candidate."""

    @property
    def sides(self) -> tuple[str, ...]:
        """As they were given."""
        return tuple(self.model_args)

    def check(self) -> tuple[str, ...]:
        """As of a run, for all models together."""
        notes = super().check()
        training_settings(self.config, self.architectures["baseline"].hidden_size, len(self.sides))
        return notes


class JointRun(Run):
    """Evaluations, texts, crosscoder and names that all pairs share."""

    def __init__(self, config: RunConfig, candidates: Candidates, console: Console | None = None) -> None:
        super().__init__(config.model_copy(update={"output": config.output / SHARED}), console)
        assert config.baseline is not None
        self._model_args = {"baseline": config.baseline, **candidates.sides}
        self.release()

    def release(self) -> None:
        """Forget the models, which are loaded again when they are asked for."""
        self.session = JointSession(self.config, self._model_args)

    @property
    def compared(self) -> tuple[str, ...]:
        """All models."""
        return self.sides

    def crosscoder(self, sides: tuple[str, ...]) -> Stage:
        """The one over all models."""
        config = self.config
        made_from = [
            self.harvest().fingerprint, sides, config.latents, config.k, config.sparsity, config.shared_latents,
            config.dedicated, config.groups, config.seed, config.skip_special,
        ]  # fmt: skip
        work = lambda folder, report: stages.train(self, sides, folder, report)  # noqa: E731
        title = f"train one crosscoder over the baseline and {len(sides) - 1} candidates"
        return self.stage("train", title, made_from, work, "crosscoder", resumable=True)

    def restricted(self, name: str, side: str) -> Stage:
        """The same cut down to the baseline and one candidate."""
        made_from = [self.crosscoder(self.sides).fingerprint, side]
        work = lambda folder, _report: joint_stages.restrict_joint(self, side, folder)  # noqa: E731
        return self.stage(f"restrict {name}", f"cut the crosscoder down to baseline and {name}", made_from, work, name)

    def names(self) -> Stage:
        """The latents' names, found once."""
        config = self.config
        made_from = [
            self.crosscoder(self.sides).fingerprint, *named_from(config), config.nu_reconstruction, config.nu_error,
        ]  # fmt: skip
        work = lambda folder, report: joint_stages.name_joint(self, folder, report)  # noqa: E731
        return self.stage("names", "name the shared latents", made_from, work)

    @property
    def annotator(self) -> str:
        """Who names the latents in every pair's run: nobody and a person's table as asked, else the names found."""
        asked = self.config.annotator[0]
        if asked == "none" or label_file(asked) is not None:
            return asked
        return f"file,{self.names().folder / joint_stages.NAMES}"

    @property
    def names_from(self) -> str:
        """In words."""
        asked = self.config.annotator[0]
        if asked == "none":
            return "nobody was asked to name latents (--annotator none)"
        if (file := label_file(asked)) is not None:
            return f"the latents' names are those of {file.name}, for all candidates"
        who = "probes" if asked == "probe" else asked.partition(",")[0]
        return (
            f"the shared latents were named once, by {who} read by all models together "
            f"({SHARED}/{joint_stages.NAMES}); every candidate's run takes these names"
        )


class PairRun(Run):
    """An ordinary run of one candidate that takes evaluations, activations and crosscoder from what all share."""

    def __init__(self, config: RunConfig, joint: JointRun, side: str, console: Console | None = None) -> None:
        super().__init__(config, console)
        self._joint, self._side = joint, side
        own = dict(zip(MAIN, ("baseline", side), strict=True))
        self.recorded = {main: Recorded(joint.evaluation(one).folder) for main, one in own.items()}

    def harvest(self) -> Stage:
        """The shared activations stay where they are."""
        work = lambda folder, _report: joint_stages.take_texts(self._joint, folder)  # noqa: E731
        made_from = [self._joint.harvest().fingerprint, self._side]
        return self.stage("harvest", "take the texts that all share", made_from, work, "activations")

    @cached_property
    def harvested(self) -> Harvested:
        """This pair's columns of them."""
        self.harvest()
        return joint_stages.pair_harvested(self, self._joint, self._side)


def run(config: RunConfig, candidates: Candidates, *, console: Console | None = None) -> Matrix:
    """Compare every candidate with the baseline and leave the matrix in `config.output`.

    Args:
        config: options of a run; its candidate is any of the candidates.
        candidates: what is compared.
        console: where progress is shown.

    Raises:
        UsageError: an option or model that can not be used, found before any long work.
        RunError: a stage failed.
    """
    check_options(config)
    joint = JointRun(config, candidates, console)
    _say_if_trained_anew(joint, candidates, console)
    for side in joint.sides:
        joint.evaluation(side)
    crosscoders = {name: joint.restricted(name, candidates.side(name)).folder for name in candidates.arguments}
    annotator = joint.annotator
    joint.release()
    reports: dict[str, Report] = {}
    for name, args in candidates.arguments.items():
        if console is not None:
            console.print(f"[bold]{name}[/]", highlight=False)
        made = _pair_config(config, args, config.output / name, crosscoders[name], annotator)
        try:
            reports[name] = PairRun(made, joint, candidates.side(name), console).report()
        except DiffharnessError as error:
            raise type(error)(f"candidate {name}: {error}") from error
    return _matrix(config, candidates, joint, reports, console)


def _pair_config(config: RunConfig, args: str, output: Path, crosscoder: Path, annotator: str) -> RunConfig:
    """One candidate's run, which loads what was trained for all."""
    fields = RunConfig.model_fields
    settled = {name: fields[name].get_default() for name in (*TRAINED, "layer")}
    changes = {"candidate": args, "output": output, "crosscoder": str(crosscoder), "annotator": (annotator,)}
    return RunConfig.make({**config.model_dump(), **settled, **changes})


def _say_if_trained_anew(joint: JointRun, candidates: Candidates, console: Console | None) -> None:
    """Say so where a shared crosscoder over other models stands already."""
    file = joint.workspace.root / "crosscoder" / "config.json"
    if console is None or not file.is_file():
        return
    try:
        there = tuple(json.loads(file.read_text(encoding="utf-8"))["sides"])
    except (ValueError, KeyError):  # altered since it was written, which the stage notices
        return
    if there != joint.sides:
        console.print(
            f"the shared crosscoder is over {len(there) - 1} other candidates; with these {len(candidates.arguments)} "
            "it is trained anew, and so is all that rests on it",
            highlight=False,
        )


def _matrix(
    config: RunConfig,
    candidates: Candidates,
    joint: JointRun,
    reports: Mapping[str, Report],
    console: Console | None,
) -> Matrix:
    """Put the reports together, where they or the command have changed."""
    from diffharness.assembly.matrix import matrix
    from diffharness.report.matrix import write_matrix

    workspace = Workspace(config.output)
    command = matrix_command(config, candidates)
    files = [config.output / name / file for name in reports for file in ("report.json", "contributions.parquet")]
    made = stage_fingerprint("matrix", [command, list(reports), *(path_fingerprint(file) for file in files)])
    if not workspace.is_done("matrix", made):
        quality = joint.read_json(joint.crosscoder(joint.sides), "quality.json")
        found = matrix(reports, config.output, quality=quality, names_from=joint.names_from, command=command)
        with StageProgress(console).stage("write the matrix"), workspace.stage("matrix", made) as folder:
            write_matrix(found, folder)
    return Matrix.load(config.output)


def matrix_command(config: RunConfig, candidates: Candidates) -> str:
    """The command line that means this matrix."""
    words = shlex.split(default_command(config))
    place = words.index("--candidate")
    each = [word for args in candidates.arguments.values() for word in ("--candidate", args)]
    return shlex.join(["diffharness", "matrix", *words[2:place], *each, *words[place + 2 :]])
