"""The end of the report as Markdown: how far it can be trusted, and what made it."""

from __future__ import annotations

import re

from diffharness.report.markup import Page, code, escape
from diffharness.report.numbers import count, interval, percent, plain, signed
from diffharness.report.quality import ModelRow, model_rows, rule_words, stability_sentence
from diffharness.report.schema import CrosscoderQuality, Report
from diffharness.report.shapley import agreement_sentence
from diffharness.report.text import brief, clean, shorten
from diffharness.report.words import corpus_sentence, replay_sentence, rescored_sentence

_QUALITY_HEAD = (
    "| crosscoder | model | explained variance | cross-entropy | ΔCE spliced | loss recovered | against the mean "
    "| tokens |\n|---|---|--:|--:|--:|--:|--:|--:|"
)


_MOST = 12
"""Crosscoders, and controls."""


def add_trust(page: Page, report: Report) -> None:
    """Can it be trusted?"""
    page.add("#### Can it be trusted?")
    if report.quality:
        shown = report.quality[:_MOST]
        page.add("\n".join(_quality_line(quality) for quality in shown), name="the crosscoders")
        page.add(quality_table(shown), name="the crosscoders' table")
        if len(report.quality) > _MOST:
            page.add(f"… and {len(report.quality) - _MOST} more crosscoders, {page.where}.")
    lines = []
    for said in (corpus_sentence, replay_sentence, rescored_sentence, agreement_sentence):
        if (sentence := said(report)) is not None:
            lines.append(f"- {escape(brief(sentence, 600))}")
    complete = report.validation.completeness
    if complete is not None:
        lines.append(
            f"- completeness: residual {percent(complete.median, 3)} median, "
            f"{percent(complete.percentile_99, 2)} at the 99th percentile "
            f"of {count(complete.n)} documents, {complete.nodes} nodes"
        )
    controls = report.validation.controls
    for control in controls[:_MOST]:
        lines.append(
            f"- control ({control.name}, {escape(brief(control.task, 60))}): "
            f"{escape(brief(control.category, 40))} has {percent(control.share)} of what latents carry, "
            f"{percent(control.control_share)} under the control"
        )
    if len(controls) > _MOST:
        lines.append(f"- … and {len(controls) - _MOST} more controls, {page.where}")
    page.add("\n".join(lines) or "Nothing was validated.", name="how it was validated")


def quality_table(qualities: tuple[CrosscoderQuality, ...]) -> str:
    """A row a crosscoder and model: explained variance, and what its reconstruction costs the model."""
    rows = [_model_row(row) for row in model_rows(qualities)]
    reasons = {q.splice_reason for q in qualities if q.splice_reason}
    table = "\n".join([_QUALITY_HEAD, *rows])
    if not reasons:
        return table
    return f"{table}\n\nNo cross-entropy: {escape(brief('; '.join(sorted(reasons)), 200))}."


def _model_row(row: ModelRow) -> str:
    loss = row.splice
    cells = [escape(brief(row.crosscoder, 60)), escape(brief(row.model, 40)), percent(row.explained_variance, 1)]
    if loss is None:
        cells += ["–"] * 5
    else:
        cells += [plain(loss.ce), f"{signed(loss.delta_ce)} {interval(loss.interval)}"]
        cells += [percent(loss.loss_recovered, 1), percent(loss.loss_recovered_mean, 1), count(loss.n_tokens)]
    return f"| {' | '.join(cells)} |"


def _quality_line(quality: CrosscoderQuality) -> str:
    parts = [
        f"{count(quality.n_latents)} latents",
        f"{rule_words(quality)}",
        f"L0 {plain(quality.l0, 1)}" + (f" (wanted {quality.k})" if quality.k is not None else ""),
        f"dead {percent(quality.dead_share, 1)}",
        f"decoder cosine {plain(quality.decoder_cosine_median, 2)} (median)",
        stability_sentence(quality) or "",
        quality.source,
    ]
    said = "; ".join(escape(brief(part, 600)) for part in parts if part)
    stale = f" **Stale: {escape(brief(quality.stale, 400))}.**" if quality.stale is not None else ""
    return f"- crosscoder {escape(brief(quality.name, 60))}: {said}.{stale}"


def add_provenance(page: Page, report: Report) -> None:
    """What made the report."""
    command = shorten(clean(report.run.command), 2_000)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", command)), default=0))
    versions = ", ".join(
        f"{escape(brief(k, 40))} {escape(brief(v, 40))}" for k, v in report.provenance.versions.items()
    )
    page.add("#### Provenance")
    page.add(f"{fence}\n{command}\n{fence}")
    page.add(
        f"{escape(brief(report.run.created, 40))}, {escape(brief(report.provenance.platform, 120))}, "
        f"configuration {code(report.provenance.config_hash, 64)}; {shorten(versions, 1_500)}."
    )
