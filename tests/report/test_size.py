"""The page's size: what there is no room for is left out, the weakest latents first, and said so."""

from __future__ import annotations

import json

import pytest

from diffharness.report.explorer import STATIC_CARDS, Explorer, explore, record, tree
from diffharness.report.html import LIMIT_BYTES, render_html
from diffharness.report.schema import Latent, Report
from tests.report.embedded import built, embedded
from tests.report.example import example_report

N_LATENTS = 40


@pytest.fixture(scope="module")
def latents() -> tuple[Latent, ...]:
    return example_report(n_tasks=1, n_latents=N_LATENTS).latents


def draw(latent: Latent, detail: str) -> str:
    """A card whose size is known: 100 characters a line, 1,000 with numbers, 5,000 with texts."""
    n = {"line": 100, "numbers": 1_000, "fewer texts": 5_000, "all": 5_000}[detail]
    return f'<details class="latent" id="latent-{latent.index}"><summary>{detail}</summary><p>{"x" * n}</p></details>'


def shown(latents: tuple[Latent, ...], room: int) -> Explorer:
    found = explore(latents, draw, room)
    assert [latent["i"] for latent in json.loads(found.data)["latents"]] == [latent.index for latent in latents]
    return found


def test_with_room_for_all_nothing_is_left_out(latents: tuple[Latent, ...]) -> None:
    found = shown(latents, 10_000_000)
    assert set(found.details.values()) == {"all", "fewer texts"}
    assert found.left_out() is None


@pytest.mark.parametrize("room", [30_000, 70_000, 120_000, 150_000])
def test_the_data_keep_to_their_room_and_weak_latents_lose_their_texts_first(
    latents: tuple[Latent, ...], room: int
) -> None:
    found = shown(latents, room)
    assert len(found.data.encode()) <= room + 20
    rank = {"all": 0, "fewer texts": 1, "numbers": 2, "line": 3}
    order = [rank[detail] for detail in found.details.values()]
    assert order == sorted(order)
    said = found.left_out()
    assert said is not None
    assert f"the texts of {sum(place > 1 for place in order)}" in said
    assert (f"all but one line of {order.count(3)} of the {N_LATENTS} latents" in said) == (3 in order)


def test_without_any_room_every_latent_keeps_its_line(latents: tuple[Latent, ...]) -> None:
    found = shown(latents, 0)
    assert list(found.details.values()) == ["all"] * STATIC_CARDS + ["line"] * (N_LATENTS - STATIC_CARDS)


def test_what_is_copied_has_the_report_s_names_and_no_texts(latents: tuple[Latent, ...]) -> None:
    copied = record(latents[0])
    assert copied["index"] == latents[0].index
    assert copied["evidence"]["auroc"] == pytest.approx(latents[0].evidence.auroc, rel=1e-3)
    assert set(copied) <= set(Latent.model_fields) - {"examples", "lens"}


def test_a_tree_is_the_same_html_again() -> None:
    html = '<p class="a b" title="&#34;x&#34;">one <bdi>&lt;i&gt;</bdi> two</p>'
    assert built(tree(html)) == html.replace("&#34;", "&quot;")
    for bad in ("<p>", '<p onclick="x">y</p>', '<p style="color:red">y</p>'):
        with pytest.raises(ValueError, match=r"not well formed|does not set"):
            tree(bad)


def test_a_hostile_string_is_one_text_of_the_tree() -> None:
    assert tree("<p>&lt;/script&gt;\ufffe</p>") == ["p", "</script>\ufffd"]


def test_thirty_tasks_and_five_hundred_latents_stay_below_five_megabytes() -> None:
    report: Report = example_report(n_tasks=30, n_latents=500)
    page = render_html(report, drawn=())
    assert len(page.encode()) <= LIMIT_BYTES < 5_000_000
    assert len(embedded(page)) == 500
