"""Draws searches and what shoppers did with them, reproducibly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from lookalike.core.feedback import FeedbackEntry
from lookalike.core.types import SearchRecord

RETENTION_S = 90 * 86_400
START = 1_700_000_000.0
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(at: float, rng: random.Random) -> str:
    """A query id of epoch second ``at``."""
    value, text = (int(at * 1000) << 80) | rng.getrandbits(80), ""
    for _ in range(26):
        value, digit = divmod(value, 32)
        text = _LETTERS[digit] + text
    return text


@dataclass
class Shop:
    """A catalogue, how many products it has, and its share of all searches."""

    name: str
    products: int
    weight: float
    clusters: int = 40
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = [f"{self.name}-p{number}" for number in range(self.products)]


SHOPS = (Shop("shoes", 1_500, 0.7), Shop("größer#2", 300, 0.25), Shop("tiny", 5, 0.05))


def searches(
    number: int, days: float, seed: int = 0, shops: tuple[Shop, ...] = SHOPS
) -> Iterator[tuple[SearchRecord, list[FeedbackEntry]]]:
    """Searches in order of time, each with the feedback on it, of which some comes days later.

    Products are liked by rank (popularity falls as 1 / rank), clicks fall with the rank in the
    answer; latencies are log-normal.
    """
    rng = random.Random(seed)
    weights = [shop.weight for shop in shops]
    moments = sorted(START + rng.random() * days * 86_400 for _ in range(number))
    for at in moments:
        (shop,) = rng.choices(shops, weights)
        yield _search(at, shop, rng)


def _search(at: float, shop: Shop, rng: random.Random) -> tuple[SearchRecord, list[FeedbackEntry]]:
    k = rng.choice((5, 10, 10, 10, 20))
    picked = {int(len(shop.ids) ** rng.random()) - 1 for _ in range(k)}
    names = [shop.ids[place] for place in sorted(picked, key=lambda place: rng.random())]
    if rng.random() < 0.02:
        names = []
    top = rng.gauss(0.75, 0.12)
    results = tuple(
        (name, "front", round(top - 0.01 * place, 6)) for place, name in enumerate(names)
    )
    is_foreign = top < 0.5
    record = SearchRecord(
        query_id=ulid(at, rng),
        at=at + 0.05,
        catalogue=shop.name,
        encoder="toy-a-border-v1",
        generation=f"{shop.name}/toy",
        kind=rng.choice(("image", "image", "product", "upload")),
        k=k,
        results=results,
        took_ms={"total": round(rng.lognormvariate(3.2, 0.6), 3)},
        filter="price<=50" if rng.random() < 0.1 else "",
        match=None if shop.name == "tiny" else round(min(max(top, 0), 1), 6),
        verdict="" if shop.name == "tiny" else "no_good_match" if is_foreign else "match",
        cluster="" if shop.name == "tiny" else f"c{int(shop.clusters ** rng.random())}",
    )
    return record, list(_feedback(record, rng))


def _feedback(record: SearchRecord, rng: random.Random) -> Iterator[FeedbackEntry]:
    for rank, (name, _, _) in enumerate(record.results, 1):
        if rng.random() >= 0.35 / rank:
            continue
        at = record.at + rng.expovariate(1 / 40) + (rng.random() < 0.02) * 2 * 86_400
        events = ["bad"] if rng.random() < 0.05 else ["click"]
        if events == ["click"] and rng.random() < 0.1:
            events.append("buy")
        for event in events:
            yield FeedbackEntry(
                record.query_id, name, event, rank, record.catalogue, at, record.at + RETENTION_S
            )
