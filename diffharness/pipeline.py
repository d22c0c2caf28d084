"""The stages of a run, in order, and what each is made from.

    evaluate ─► compare ─► validate ─────────────────────────────────────────────┐
    harvest ──► train ───► latents ──► account ─► documents, checks, claims, … ────┴─► report

A stage leaves its artifact in the run's folder; one whose fingerprint stands is not run again, and models and tasks
are only loaded when a stage needs them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from diffharness import defaults, templates
from diffharness.artifacts import Workspace
from diffharness.assembly import depth
from diffharness.command import default_command
from diffharness.config import RunConfig
from diffharness.made_from import Stage, evaluated_from, harvested_from, named_from, stage_fingerprint, trained_from
from diffharness.progress import Report as Progress
from diffharness.progress import StageProgress
from diffharness.recorded import with_recorded
from diffharness.report.schema import Report
from diffharness.session import Session
from diffharness.stages.ablation import check_ablate
from diffharness.stages.naming import check_annotators
from diffharness.stages.reading import MAIN

if TYPE_CHECKING:
    from diffharness.evaluation.scores import Evaluation
    from diffharness.stages.replaying import Harvested


def run(config: RunConfig, *, console: Console | None = None, command: str | None = None) -> Report:
    """Compare two models and leave the report in `config.output`.

    Args:
        config: what to compare.
        console: where progress is shown; silent without.
        command: what reproduces the run, for the report; made from the configuration by default.

    Raises:
        UsageError: something about the configuration can not work; found before any long work.
        RunError: a stage failed.
    """
    return Run(config, console, command).report()


class Run:
    """One run: its session, its folder, and its stages, each run at most once."""

    def __init__(self, config: RunConfig, console: Console | None = None, command: str | None = None) -> None:
        asked_layer = config.layer
        config, self.recorded = with_recorded(config)
        recorded_layer = config.layer
        if config.crosscoder is not None and asked_layer is None:  # a loaded crosscoder's own layer comes first
            config = config.model_copy(update={"layer": None})
        self.config = config
        self.command = command or default_command(config)
        self.workspace = Workspace(config.output)
        sides = {side: getattr(config, side) for side in ("baseline", "candidate", "ancestor")}
        model_args = {side: args for side, args in sides.items() if args is not None}
        depth.refuse_recorded(config, self.recorded)
        chosen = lambda: depth.layer_choice(self).layer  # noqa: E731
        self.session = Session(config, model_args, recorded_layer or defaults.LAYER, chosen)
        self.progress = StageProgress(console)
        self.seconds = 0.0
        self._notes: tuple[str, ...] | None = None
        self._finished: dict[str, Stage] = {}

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides there are, the ancestor last."""
        return self.session.sides

    @property
    def compared(self) -> tuple[str, ...]:
        """The sides whose tasks are compared; without a corpus, what these made them read is trained on."""
        return MAIN

    @property
    def ancestral(self) -> tuple[tuple[str, ...], ...]:
        """The sides of the crosscoders that the category shift is counted in: the paper's two, then all three."""
        if "ancestor" not in self.sides:
            return ()
        return (("ancestor", "baseline"), ("ancestor", "candidate"), ("ancestor", "baseline", "candidate"))

    def stage(
        self, name: str, title: str, made_from: Any, work: Callable[[Path, Progress], None],
        into: str = "", *, resumable: bool = False,
    ) -> Stage:  # fmt: skip
        """Run a stage unless it stands; the first that has to run checks the whole session before."""
        if name in self._finished:
            return self._finished[name]
        made = stage_fingerprint(name, made_from)
        if not self.workspace.is_done(name, made):
            self.check()
            began = time.monotonic()
            stage = self.workspace.stage(name, made, into, resumable=resumable)
            with self.progress.stage(title) as report, stage as folder:
                work(folder, report)
            self.seconds += time.monotonic() - began
        self._finished[name] = Stage(self.workspace.root / into, made)
        return self._finished[name]

    def check(self) -> tuple[str, ...]:
        """Find what can not work, once; notes on what differs but is allowed."""
        if self._notes is None:
            with self.progress.stage("check models, tasks and texts"):
                self._notes = self.session.check()
                if self.config.needs_tasks:
                    check_annotators(self.config)
                    check_ablate(self.config)
        return self._notes

    def evaluation(self, side: str) -> Stage:
        """lm-eval's scores, documents and ledger of one side."""
        from diffharness import stages

        if self.shared(side) != side:
            self.evaluation(self.shared(side))  # first: its copy where the templates are equal
        made_from = evaluated_from(self, side)
        work = lambda folder, report: stages.evaluate(self, side, folder, report)  # noqa: E731
        title = templates.title(side) if side not in self.recorded else f"read the {side}'s evaluation"
        return self.stage(f"evaluate {side}", title, made_from, work, f"evaluation/{side}")

    def shared(self, side: str) -> str:
        """The evaluation in which a side was asked as the baseline was, which all but its scores is made from."""
        return templates.shared_side(self.config, side)

    def load_evaluation(self, side: str) -> Evaluation:
        """What `evaluation` left."""
        from diffharness.evaluation.scores import Evaluation

        return Evaluation.load(self.evaluation(side).folder)

    def comparison(self) -> Stage:
        """The gaps of all metrics, with intervals."""
        from diffharness import stages

        made_from = [
            *(self.evaluation(s).fingerprint for s in dict.fromkeys([*self.sides, *map(self.shared, self.sides)])),
            self.config.metric, self.config.cluster, self.config.seed,
        ]  # fmt: skip
        work = lambda folder, _report: stages.compare(self, folder)  # noqa: E731
        return self.stage("compare", "compare the scores in pairs of documents", made_from, work)

    def depth(self) -> Stage:
        """How much of every gap each layer carries, on some documents a task."""
        from diffharness import stages

        made_from = [self.comparison().fingerprint, self.config.depth_documents]
        work = lambda folder, report: stages.depth(self, folder, report)  # noqa: E731
        return self.stage("depth", "look at every layer for the gaps", made_from, work)

    def validity(self) -> Stage:
        """Whether stored activations, read by each model's upper layers, give lm-eval's own answers."""
        from diffharness import stages

        self.comparison()  # finds what can not be compared, before anything is replayed
        made_from = [
            *(self.evaluation(self.shared(s)).fingerprint for s in self.sides), self.session.layer_fingerprint,
            self.config.activation_dtype,
        ]  # fmt: skip
        work = lambda folder, report: stages.validate(self, folder, report)  # noqa: E731
        return self.stage("validate", "try whether replay gives lm-eval's answers", made_from, work)

    def harvest(self) -> Stage:
        """Activations of all models on the corpora, or on what the tasks made them read."""
        from diffharness import stages

        work = lambda folder, report: stages.harvest(self, folder, report)  # noqa: E731
        title = "read the texts with all models under nnsight" if not self.config.stream else "choose the texts"
        return self.stage("harvest", title, harvested_from(self), work, "activations", resumable=True)

    @property
    def harvest_fingerprint(self) -> str:
        """That of the activations of corpora, before they are read."""
        return stage_fingerprint("harvest", harvested_from(self))

    @cached_property
    def harvested(self) -> Harvested:
        """The activations, opened and verified once."""
        from diffharness import stages

        return stages.harvested(self)

    def crosscoder(self, sides: tuple[str, ...]) -> Stage:
        """A crosscoder over two or three of the models, trained or loaded, with its quality."""
        from diffharness import stages

        name, title = f"train {'-'.join(sides)}", "–".join(sides)
        into = "crosscoder" if sides == MAIN else f"crosscoder/{'-'.join(sides)}"
        if sides == MAIN and self.session.loaded is not None:
            made_from = [self.harvest().fingerprint, self.session.loaded.fingerprint, self.config.skip_special]
            work = lambda folder, report: stages.load(self, folder, report)  # noqa: E731
            return self.stage(name, f"load the crosscoder {title}", made_from, work, into)
        made_from = [self.harvest().fingerprint, sides, *trained_from(self.config)]
        work = lambda folder, report: stages.train(self, sides, folder, report)  # noqa: E731
        return self.stage(name, f"train the crosscoder {title}", made_from, work, into, resumable=True)

    def latents(self, sides: tuple[str, ...]) -> Stage:
        """Each latent scaled, identified and named; the main pair's looked at on the evaluation documents too."""
        from diffharness import stages

        config, main = self.config, sides == MAIN
        made_from = [
            self.crosscoder(sides).fingerprint, *named_from(config), config.nu_reconstruction, config.nu_error,
            [*(self.evaluation(self.shared(s)).fingerprint for s in MAIN), config.metric] if main else None,
        ]  # fmt: skip
        work = lambda folder, report: stages.describe_latents(self, sides, folder, report)  # noqa: E731
        return self.stage(
            f"latents {'-'.join(sides)}", f"scale and name the latents of {'–'.join(sides)}", made_from, work,
            "" if main else f"crosscoder/{'-'.join(sides)}",
        )  # fmt: skip

    def account(self) -> Stage:
        """Every task's gap split over categories."""
        from diffharness import stages

        made_from = [
            self.comparison().fingerprint, self.latents(("baseline", "candidate")).fingerprint,
            self.config.attribution_documents, defaults.REFERENCE_TEXTS,
        ]  # fmt: skip
        work = lambda folder, report: stages.account(self, folder, report)  # noqa: E731
        return self.stage("account", "split the gaps along the path", made_from, work)

    def checks(self) -> Stage:
        """The exact check of every clear contribution, by lm-eval's own metric."""
        from diffharness import stages

        made_from = [self.account().fingerprint, self.config.smallest_effect]
        work = lambda folder, report: stages.check(self, folder, report)  # noqa: E731
        return self.stage("checks", "check the account: latents put back, scored by lm-eval", made_from, work)

    def claims(self) -> Stage:
        """Every clear contribution tried against random sets of latents."""
        from diffharness import stages

        made_from = [self.checks().fingerprint, self.config.random_sets]
        work = lambda folder, report: stages.claims(self, folder, report)  # noqa: E731
        return self.stage("claims", "try the contributions against random sets of latents", made_from, work)

    def ablations(self) -> Stage:
        """The candidate without the categories of each `--ablate`, scored on all tasks."""
        from diffharness import stages

        made_from = [self.comparison().fingerprint, self.latents(MAIN).fingerprint, self.config.ablate]
        work = lambda folder, report: stages.ablation(self, folder, report)  # noqa: E731
        return self.stage("ablations", "score the candidate without some categories", made_from, work)

    def controls(self) -> Stage:
        """The account with a random encoder and with shuffled labels."""
        from diffharness import stages

        made_from = [self.checks().fingerprint]
        work = lambda folder, report: stages.control(self, folder, report)  # noqa: E731
        return self.stage("controls", "try the account with a random encoder", made_from, work)

    def flips(self) -> Stage:
        """The documents whose score changed, by what their answers show."""
        from diffharness import stages

        account = self.account().fingerprint if self.withheld is None else None
        made_from = [self.comparison().fingerprint, account]
        work = lambda folder, report: stages.flips(self, folder, report)  # noqa: E731
        return self.stage("flips", "sort the answers that changed", made_from, work)

    def documents(self) -> Stage:
        """Flipped documents of the tasks with a gap, token by token."""
        from diffharness import stages

        made_from = [self.account().fingerprint, self.config.smallest_effect]
        work = lambda folder, report: stages.documents(self, folder, report)  # noqa: E731
        return self.stage("documents", "find the tokens behind the answers that changed", made_from, work)

    def shapley(self) -> Stage:
        """The categories' Shapley values on the real metric."""
        from diffharness import stages

        config = self.config
        made_from = [self.account().fingerprint, config.shapley, config.smallest_effect, config.seed]
        work = lambda folder, report: stages.shapley(self, folder, report)  # noqa: E731
        return self.stage("shapley", "share the gaps out on the real metric", made_from, work)

    def report(self) -> Report:
        """All of it, written as JSON, Markdown and HTML."""
        from diffharness import stages

        made_from: list[Any] = [*(self.evaluation(s).fingerprint for s in self.sides), self.command]
        if self.withheld is None:
            made_from += [
                self.depth().fingerprint,
                self.checks().fingerprint,
                self.ablations().fingerprint if self.config.ablate else None,
                *(self.latents(sides).fingerprint for sides in self.ancestral),
                self.controls().fingerprint if self.config.controls else None,
                self.shapley().fingerprint if self.config.shapley != "none" else None,
                self.claims().fingerprint if self.config.random_sets else None,
                self.documents().fingerprint,
            ]
        else:
            made_from += [self.comparison().fingerprint, self.validity().fingerprint]
        made_from.append(self.flips().fingerprint)
        work = lambda folder, _report: stages.report(self, folder)  # noqa: E731
        folder = self.stage("report", "write the report", made_from, work).folder
        return Report.load(folder)

    @property
    def withheld(self) -> str | None:
        """Why there can be no mechanism section, where the validity gate found so."""
        return self.read_json(self.validity(), "validity.json")["withheld"]

    def read_json(self, stage: Stage, name: str) -> Any:
        """What a stage left as JSON."""
        return json.loads((stage.folder / name).read_text(encoding="utf-8"))
