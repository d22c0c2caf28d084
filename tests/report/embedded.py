"""Cards that a page embeds for its script, as the HTML that the script builds from them."""

from __future__ import annotations

import html
import json
import re
from typing import Any


def embedded(page: str) -> dict[int, dict[str, Any]]:
    """The page's data of its latents, by latent, in the page's order."""
    (data,) = re.findall(r'<script type="application/json" id="latent-data">(.*?)</script>', page, re.DOTALL)
    return {latent["i"]: latent for latent in json.loads(data)["latents"]}


def built(node: Any) -> str:
    """A tree as HTML."""
    if isinstance(node, str):
        return html.escape(node, quote=False)
    tag, *classes = node[0].split(".")
    given = {"class": " ".join(classes)} if classes else {}
    for part in node[1:]:
        given |= part if isinstance(part, dict) else {}
    inner = "".join(built(part) for part in node[1:] if not isinstance(part, dict))
    said = "".join(f' {name}="{html.escape(value)}"' for name, value in given.items())
    return f"<{tag}{said}>{inner}</{tag}>"


def card_html(page: str, index: int) -> str:
    """A latent's card: the page's own, or the one that the script builds."""
    start = page.find(f'<details class="latent" id="latent-{index}"')
    if start >= 0:
        return page[start : page.index("</details>", start)]
    return "".join(built(part) for part in embedded(page)[index]["d"])
