"""Builds Lookalike's index of a catalogue: appended segments, compaction, routing to shards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from index.vectors import STEPS, Float32, Vectors

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.encoder import Encoder
from lookalike.core.ports import ObjectStore
from lookalike.core.segment import Row
from lookalike.core.types import Counts, Generation, Lineage, Manifest, Product, View
from lookalike.services.append import append_rows
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

CATALOGUE = "bench"
SPACE = "synthetic"
SEGMENTS = 40


class FastClock:
    """The time, and what was skipped of it so far: nobody waits for periods of grace."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.time() + self.skipped


class NumberedProducts:
    """Product records that are made when they are read: product p00000007 has row 7."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        return {item: _product(int(item[1][1:])) for item in ids}

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        first = int(after[1:]) + 1 if after else 0
        last = min(first + limit, self._rows)
        page = [_product(number) for number in range(first, last)]
        return page, page[-1].product_id if last < self._rows else None


def _product(number: int) -> Product:
    key = _key(number)
    view = View(key, "", f"{number:016x}", "", 0, 1, 1, "", 0.0, 0.0)
    return Product(CATALOGUE, f"p{number:08d}", "", {key: view})


def _key(number: int) -> str:
    return f"{CATALOGUE}/p{number:08d}.jpg"


def key_of(key: str) -> int:
    """The row that an object key stands for."""
    return int(key[len(CATALOGUE) + 2 : -len(".jpg")])


def rows_of(
    first: int, embeddings: Float32, values: dict[str, Sequence[int]] | None = None
) -> list[Row]:
    """Rows to append, numbered from ``first``."""
    if values is None:
        steps = [number % STEPS for number in range(len(embeddings))]
        values = {"random": steps, "clustered": steps}
    rows = []
    for number, embedding in enumerate(embeddings):
        attributes = {name: column[number] for name, column in values.items()}
        rows.append(Row(_key(first + number), f"{first + number:016x}", embedding, attributes))
    return rows


def build_index(vectors: Vectors, store: ObjectStore) -> tuple[Generation, Manifest]:
    """Append all rows in large segments and run the scheduled functions until they rest."""
    settings, clock = Settings(head_rows=0), FastClock()
    generation = Generation(CATALOGUE, f"{SPACE}-g1", SPACE)
    stores = replace(
        memory_stores_of(clock),
        index=store,
        products=NumberedProducts(vectors.rows),
    )
    stores.lineages.put(Lineage(CATALOGUE, generation))
    stores.counts.set(CATALOGUE, Counts(vectors.rows, vectors.rows))
    for numbers in np.array_split(np.arange(vectors.rows), SEGMENTS):
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        values = {name: column[first:last].tolist() for name, column in vectors.values.items()}
        rows = {SPACE: rows_of(first, vectors.embeddings[first:last], values)}
        append_rows(stores.index, stores.registry, [generation], rows, clock())
    services = build_services(settings, stores, lambda: "", clock, _no_encoder)
    _run_until_rest(services, clock)
    current = stores.lineages.all()[0].current
    entries, manifest = stores.registry.read(current.scope)
    assert not entries, "segments are left that compaction did not take in"
    return current, Manifest(manifest.scope, manifest.head, manifest.fitted_rows, manifest.shards)


def _run_until_rest(services: Services, clock: FastClock) -> None:
    """Schedules go round; then the generation before and swapped-out files reach their end."""
    settings, compaction = services.settings, services.compaction
    clock.skipped += settings.settle_s
    for _ in range(8):
        compaction.run(clock() + 600, CATALOGUE)
        services.reindex.run(clock() + 600, CATALOGUE)
        lineage = services.stores.lineages.all()[0]
        if lineage.beside is None:
            break
        kept = lineage.beside.phase == "kept"
        clock.skipped += settings.keep_generation_s if kept else settings.settle_s
    for _ in range(3):
        clock.skipped += 2 * 3600 + settings.grace_s
        compaction.run(clock() + 600, CATALOGUE)


def _no_encoder(space: str) -> Encoder:
    raise AssertionError("no photo is to be encoded: every row is in a segment")
