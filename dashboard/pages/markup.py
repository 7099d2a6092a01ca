"""The HTML of results and tables. Every value from outside is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import urlencode, urlsplit


def safe_url(url: object) -> str:
    """An http(s) URL, escaped for an attribute; empty for anything else."""
    text = str(url or "")
    return escape(text) if urlsplit(text).scheme in {"http", "https"} else ""


def empty(title: str, detail: str) -> str:
    """What a list says when it has nothing to show."""
    return f'<div class="empty"><strong>{escape(title)}</strong>{escape(detail)}</div>'


def result_grid(results: Sequence[Mapping[str, Any]], catalogue: str) -> str:
    """Search results as cards."""
    cards = "".join(_card(result, catalogue) for result in results)
    return f'<div class="grid">{cards}</div>'


def _card(result: Mapping[str, Any], catalogue: str) -> str:
    product_id = str(result["product_id"])
    title = str(result.get("title") or product_id)
    score = float(result["score"])
    like = escape(urlencode({"like": product_id, "catalogue": catalogue}))
    thumbnail = safe_url(result.get("thumbnail_url"))
    facts = [str(result["category"])] if result.get("category") else []
    price = result.get("attributes", {}).get("price")
    if price is not None:
        facts.append(f"{price:.2f}" if isinstance(price, float) else str(price))
    explained = safe_url(result.get("explanation_url"))
    why = f'<button class="why" data-why="{explained}">Why?</button>' if explained else ""
    return (
        '<article class="result">'
        f'<a href="{safe_url(result.get("image_url"))}" target="_blank" rel="noopener">'
        f'<img src="{thumbnail}" alt="{escape(title)}" loading="lazy"></a>'
        '<div class="words">'
        f'<div class="score" title="{_meaning(result.get("match"))}"><span>{score:.3f}</span>'
        f'<div class="bar"><span style="width:{max(0.0, min(score, 1.0)):.0%}"></span></div></div>'
        f'<div class="title">{escape(title)}</div>'
        f'<div class="quiet">{escape(" · ".join(facts))}</div>'
        f'<div class="like"><a href="?{like}">More like this</a>{why}</div>'
        "</div></article>"
    )


def _meaning(match: float | None) -> str:
    known = "" if match is None else f"; a good match with a probability of {match:.0%}"
    return f"cosine similarity{known}"


def picture(webp: bytes) -> str:
    """The picture of a query and a result side by side, in the page: its URL may need a key."""
    data = base64.b64encode(webp).decode()
    return f'<img class="pair" src="data:image/webp;base64,{data}" alt="Which parts match which">'


def explanation_facts(facts: Sequence[tuple[str, str]]) -> str:
    """What an explanation says in figures and words, as (name, value)."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def query_line(image: str, text: str) -> str:
    """What was searched with: ``image`` is a data URL or empty."""
    picture = f'<img src="{escape(image)}" alt="The photo searched with">' if image else ""
    return f'<div class="query">{picture}<div>{escape(text)}</div></div>'


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Big figures with their names."""
    inner = "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span class="quiet">{escape(name)}</span></div>'
        for name, figure in figures
    )
    return f'<div class="tiles">{inner}</div>'


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A table; each column is (heading, CSS class of its cells)."""
    head = "".join(f'<th class="{style}">{escape(name)}</th>' for name, style in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{style}">{escape(cell)}</td>'
            for cell, (_, style) in zip(row, columns, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    rows_of = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{rows_of}</table></div>'


def moment(epoch_s: float) -> str:
    """A time of day with its date, in UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%d %b %H:%M:%S")
