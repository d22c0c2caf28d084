"""The latents' cards: what each field looks like, and that nothing is said of what is absent."""

from __future__ import annotations

import json

import pytest

from diffharness.report.cards import (
    MOST_CHARACTERS,
    MOST_EXAMPLES,
    MOST_TOKENS,
    carded,
    groups,
    lens_rows,
    task_rows,
    token_name,
)
from diffharness.report.html import render_html
from diffharness.report.latent_words import (
    annotation_sentence,
    annotator_name,
    association_sentence,
    matched_sentence,
    norm_sentence,
    position_sentence,
)
from diffharness.report.markdown import render_markdown
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.numbers import interval, percent, points, signed, span
from diffharness.report.schema import Agreement, Annotation, Example, Latent, Lens, Promoted, Report
from diffharness.report.view import strongest
from tests.report.embedded import card_html, embedded
from tests.report.example import example_report
from tests.report.test_quality import flat, printed

LONGER_THAN_SHOWN = 220


@pytest.fixture(scope="module")
def words(page: str) -> str:
    return flat(page).replace("\u00a0", " ")


def card(page: str, index: int) -> str:
    return flat(card_html(page, index)).replace("\u00a0", " ")


def with_latent(report: Report, **changes: object) -> Report:
    """The report with its first latent alone, changed."""
    return report.model_copy(update={"latents": (report.latents[0].model_copy(update=changes),), "changed": None})


def text(*values: float, kind: str = "top", **more: object) -> Example:
    tokens = tuple(f" t{i}" for i in range(len(values)))
    return Example.model_validate({"tokens": tokens, "values": values, "source": "s", "kind": kind, **more})


def test_a_card_shows_every_number_of_its_latent(report: Report, page: str) -> None:
    for latent in report.latents[:8]:
        said = card(page, latent.index)
        wanted = [span(latent.nu_reconstruction_interval, 2), f"{latent.n_active:,} tokens, {latent.n_texts:,} texts"]
        if latent.nu_error_interval is not None:
            wanted.append(span(latent.nu_error_interval, 2))
        wanted += [percent(share, 2) for share in latent.density_by_task.values()]
        wanted += [signed(value) for value in latent.contributions.values()]
        if latent.use is not None:
            wanted += [percent(latent.use.rate_baseline, 2), points(latent.use.rate_interval)]
            wanted += [signed(latent.use.mean_candidate - latent.use.mean_baseline), interval(latent.use.mean_interval)]
        for lens in latent.lens.values():
            wanted += [signed(value, 2) for value in (*lens.up.values, *lens.down.values)]
        assert [number for number in wanted if number.replace("\u00a0", " ") not in said] == []


def test_a_name_is_a_hypothesis_with_its_annotator_and_its_evidence(report: Report, page: str) -> None:
    said = card(page, report.latents[0].index)
    assert "Hypothesis : safety , named by the language model local/namer." in said
    assert "Contrasts : more active on the probe in 88 % of pairs (50 % by chance)" in said
    assert "Detection score 0.83 against 0.50 by chance, 40 texts (balanced accuracy)" in said
    unclear = next(latent for latent in report.latents if latent.category == "unclear")
    assert "(nearest: facts )" in card(page, unclear.index)


def test_a_status_has_its_side_its_reason_and_what_the_norm_says(report: Report, page: str) -> None:
    said = card(page, report.latents[1].index)
    assert "candidate-specific : ν^r and ν^ε lie below their bounds" in said
    assert "By Δnorm alone: shared." in said
    assert "Not found again by the other seeds" in said
    assert "✗ unmatched" in said
    assert (norm_sentence(report.latents[0]), matched_sentence(report.latents[2])) == (
        "Δnorm alone says the same",
        None,
    )


def test_examples_are_in_three_groups_with_the_range_from_its_top_down(report: Report, page: str) -> None:
    kinds = [group.kind for group in groups(report.latents[1])]
    assert kinds == ["top", "quantile", "near miss"]
    said = card(page, report.latents[1].index)
    heads = ["Where it fires most", "Across its range", "Near misses : texts that came nearest without firing"]
    places = [said.index(head) for head in heads]
    assert places == sorted(places)
    quantiles = [said.index(f"quantile {quantile}") for quantile in ("0.75", "0.50", "0.25")]
    assert quantiles == sorted(quantiles)


def test_what_is_shown_of_many_quantiles_spans_them() -> None:
    found = [text(1.0, 0.0, kind="quantile", quantile=n / 20) for n in range(20)]
    for full, most in ((True, MOST_EXAMPLES["quantile"]), (False, 5)):
        (group,) = groups(example_latent_with(*found), full)
        shown = [example.quantile or 0.0 for example in group.examples]
        assert len(shown) == most
        assert (shown[0], shown[-1]) == (0.95, 0.0)
        assert shown == sorted(shown, reverse=True)


def test_both_models_values_stand_under_a_text_and_need_no_mouse() -> None:
    latent = example_latent_with(text(0.0, 3.0, 1.0, baseline=(0.0, 2.5, 0.5), candidate=(0.0, 0.25, 1.0)))
    (group,) = groups(latent)
    both = group.examples[0].both
    assert [(token.text, token.baseline, token.candidate) for token in both] == [(" t1", 2.5, 0.25), (" t2", 0.5, 1.0)]


def test_a_near_miss_is_shown_where_either_model_came_nearest() -> None:
    n = LONGER_THAN_SHOWN
    held = [0.0] * n
    held[n - 5] = 0.75
    latent = example_latent_with(text(*[0.0] * n, kind="near miss", baseline=tuple(held), candidate=(0.0,) * n))
    (group,) = groups(latent)
    (shown,) = group.examples
    assert [token.text for token in shown.both] == [f" t{n - 5}"]
    assert (shown.cut_before, shown.cut_after) == (True, False)
    assert not any(token.shade for token in shown.tokens)


def example_latent_with(*examples: Example) -> Latent:
    return example_report(n_tasks=1, n_latents=1).latents[0].model_copy(update={"examples": examples})


@pytest.mark.parametrize("peak", [0, 3, LONGER_THAN_SHOWN // 2, LONGER_THAN_SHOWN - 1])
def test_a_long_text_is_cut_around_its_strongest_token(peak: int) -> None:
    values = [0.0] * LONGER_THAN_SHOWN
    values[peak] = 2.0
    for kind in ("top", "quantile"):
        (group,) = groups(example_latent_with(text(*values, kind=kind)))
        (shown,) = group.examples
        assert len(shown.tokens) == MOST_TOKENS[kind]
        assert [token.text for token in shown.tokens if token.shown] == [f" t{peak}"]
        assert sum(len(token.text) for token in shown.tokens) <= MOST_CHARACTERS


def test_a_text_of_long_tokens_is_cut_by_its_characters() -> None:
    example = Example(tokens=("x" * 5_000,) * 40, values=(1.0,) * 40, source="s")
    (group,) = groups(example_latent_with(example))
    assert 1 <= len(group.examples[0].tokens) < 40
    assert sum(len(token.text) for token in group.examples[0].tokens) < 2 * MOST_CHARACTERS


def test_values_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens with 2 baseline"):
        text(0.0, 1.0, 2.0, baseline=(0.0, 1.0))


def test_mostly_about_position_is_said_in_words(report: Report, page: str) -> None:
    latent = report.latents[3]
    assert position_sentence(latent) == (
        "mostly about position, not content: 55\u00a0% of its activation lies on first, special or template tokens "
        "(first 31\u00a0%, special 24\u00a0%)"
    )
    assert "Mostly about position, not content" in card(page, latent.index)
    assert "Mostly about position" not in card(page, report.latents[0].index)
    assert "(mostly about position)" in render_markdown(report)
    unknown = {"first_token_share": None, "special_token_share": None, "template_token_share": None}
    assert position_sentence(latent.model_copy(update=unknown)) is None


def test_an_association_is_not_worded_as_a_cause(report: Report) -> None:
    said = association_sentence(report.latents[0])
    assert said is not None
    assert said.startswith(
        "fires more on documents of all tasks together that the candidate gains; corrected p = 0.023"
    )
    assert said.endswith("an association, not a cause")
    assert "of organism_safety that the candidate loses" in (association_sentence(report.latents[3]) or "")
    assert association_sentence(report.latents[1]) is None


def test_neighbours_are_links_where_their_card_is_shown(report: Report, page: str) -> None:
    said = card_html(page, 3)
    nearest = said[said.index("Nearest latents") : said.index("</p>", said.index("Nearest latents"))]
    assert '<a href="#latent-11">11</a>' in nearest
    assert "100003" in nearest
    assert "#latent-100003" not in page


def test_tokens_of_the_lens_are_seen_with_their_spaces(report: Report) -> None:
    assert [token_name(t) for t in (" sorry", "sorry", "\n", "\x1b[31m")] == ["␣sorry", "sorry", "↵", "\\x1b[31m"]
    uneven = Lens(up=Promoted(tokens=("a", "b"), values=(2.0, 1.0)), down=Promoted(tokens=("c",), values=(-1.0,)))
    rows = lens_rows(report.latents[0].model_copy(update={"lens": {"baseline": uneven}}))
    assert rows == ((("a", 2.0), ("c", -1.0)), (("b", 1.0), None))


def test_tasks_on_which_it_fires_and_to_which_it_contributes_are_one_table(report: Report) -> None:
    latent = report.latents[0].model_copy(
        update={"contributions": {"a": 0.1, "b": -0.3, "d": 0.0001}, "density_by_task": {"b": 0.01, "c": 0.2}}
    )
    rows = [(row.task, row.density, row.contribution) for row in task_rows(latent)]
    assert rows == [("b", 0.01, -0.3), ("a", None, 0.1), ("c", 0.2, None)]


def test_nothing_is_said_of_what_a_latent_does_not_have(report: Report) -> None:
    bare = with_latent(
        report,
        side=None,
        status_by_norm=None,
        status_reason="",
        nu_reconstruction_interval=None,
        nu_error_interval=None,
        n_active=0,
        n_texts=0,
        special_token_share=None,
        template_token_share=None,
        density_by_task={},
        use=None,
        association=None,
        matched=None,
        neighbours=(),
        lens={},
        examples=(),
        contributions={},
        evidence=report.latents[0].evidence.model_copy(
            update={"auroc": None, "contrast_share": None, "detection": None, "best": None, "reason": ""}
        ),
    )
    bare = bare.model_copy(update={"annotation": None})
    said = card(render_html(bare, drawn=()), bare.latents[0].index)
    for word in ("alone", "seeds", "matched", "Use", "Association", "By task", "Promoted", "Nearest", "fires on",
                 "template", "Contrasts", "Detection", "AUROC", "[", "None"):  # fmt: skip
        assert word not in said
    assert "No example was recorded." in said
    pages = render_html(bare, drawn=()), render_markdown(bare), printed(bare)
    assert not any("κ with" in page or "named, " in page for page in pages)


def test_who_named_the_latents_is_in_every_view(report: Report, words: str) -> None:
    markdown = render_markdown(report).replace("\\", "")
    terminal = " ".join(printed(report).split())
    for view in (words, markdown, terminal):
        assert "ames by probes: 52 of 60 latents named, 8 unclear; detection score 0.83 (0.50 by chance)" in view
        assert "κ with the language model local/namer 0.62 [0.48, 0.74] over 44 latents" in view
    for view in (words, markdown):
        assert "120 calls, 80 answers kept from earlier; 340,000 tokens of prompts and answers" in view
    assert "calls" not in terminal


def test_an_agreement_without_a_number_says_why() -> None:
    agreement = Agreement(other="file: names.csv", kappa=None, kappa_interval=None, n=0, reason="no latent in both.")
    found = Annotation(
        annotator="lm: m", n_named=1, n_unclear=2, n_asked=3, detection=None, detection_chance=None, agreement=agreement
    )
    assert annotation_sentence(found) == (
        "names by the language model m: 1 of 3 latents named, 2 unclear; no κ with the file names.csv: "
        "no latent in both"
    )
    assert annotation_sentence(found.model_copy(update={"agreement": None}), costs=False) == (
        "names by the language model m: 1 of 3 latents named, 2 unclear"
    )
    assert [annotator_name(name) for name in ("probe", "file: a: b", "someone")] == [
        "probes",
        "the file a: b",
        "someone",
    ]


def test_latents_whose_use_changed_always_have_a_card() -> None:
    report, most = example_report(n_tasks=2, n_latents=60), 40
    least = strongest(report.latents)[-1].index
    assert report.changed is not None
    assert least not in {latent.index for latent in carded(report, most)}
    told = report.model_copy(update={"changed": report.changed.model_copy(update={"latents": (least,)})})
    shown = carded(told, most)
    assert least in {latent.index for latent in shown}
    assert len(shown) == most


def test_five_hundred_latents_with_long_texts_stay_below_five_megabytes() -> None:
    report = example_report(n_tasks=1, n_latents=500)
    n = LONGER_THAN_SHOWN
    values = tuple(0.25 * (i % 3) for i in range(n))
    full = [
        text(*values, kind=kind, baseline=values, candidate=values, quantile=0.5 if kind == "quantile" else None)
        for kind, most in MOST_EXAMPLES.items()
        for _ in range(most)
    ]
    latents = tuple(latent.model_copy(update={"examples": tuple(full)}) for latent in report.latents)
    report = report.model_copy(update={"latents": latents})
    page = render_html(report, drawn=())
    assert len(page.encode()) < 5_000_000
    assert len(render_markdown(report).encode()) <= LIMIT_BYTES
    assert "latents are left out, the weakest first: report.json has everything" in page
    shown = embedded(page)
    assert len(shown) == len(report.latents)
    with_texts = [
        index for index, latent in shown.items() if "d" not in latent or '"ol.examples"' in json.dumps(latent)
    ]
    assert 50 < len(with_texts) < 500
    assert with_texts == list(shown)[: len(with_texts)]


def test_hostile_names_tokens_and_reasons_are_shown_as_text(hostile: Report, hostile_page: str) -> None:
    said = flat(hostile_page)
    for place in (
        "Names by the file ",
        "no κ with the language model ",
        "named by ",
        "Association : fires more on documents of ",
    ):
        assert f"{place}&lt;script&gt;alert(1)&lt;/script&gt;" in said
    assert "&lt;script&gt;alert(1)&lt;/scrip…" in said
    assert "<script>alert" not in hostile_page
    assert "\x1b" not in printed(hostile)
