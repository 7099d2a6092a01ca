"""What must hold of a world when everything that was to be delivered has been: design §10."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crash_points.world import CATALOGUE, FOREVER, GRACE_S, World, draw
from lookalike.core.attributes import from_user_metadata
from lookalike.core.compaction import named_keys
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head, decode_head
from lookalike.core.keys import head_key, map_key, product_of, segment_key
from lookalike.core.types import Counts, Generation, Product, row_version
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.segments import read_segment
from lookalike.wiring import Services

_ERROR = 0.02  # how far codes of eight bits, twice, take a cosine off
_HOUR_S, _DAY_S = 3600.0, 86_400.0


def check_promises(world: World) -> None:
    """Right at once; nothing for a sweep to mend but counts; nothing left lying about for long."""
    system = world.system()
    assert not world.dead, f"dead letters: {world.dead}"
    check_now(world, system)
    assert world.sweep(system) == 0, "the sweep found something to mend"
    check_counts(world)
    live_on(world, system)
    check_now(world, world.system())
    check_tidy(world)


def check_now(world: World, system: Services) -> None:
    """Records, index and answers agree with the bucket."""
    check_records(world)
    check_index(world)
    check_answers(world, system)


def live_on(world: World, system: Services) -> None:
    """Days go by in which only the scheduled functions run."""
    for _ in range(3):
        world.wait(_HOUR_S + GRACE_S)
        system.compaction.run(FOREVER, CATALOGUE) if world.stores.lineages.all() else None
    world.wait(2 * _DAY_S)
    assert world.sweep(system) == 0


def check_records(world: World) -> None:
    """Each object is live as it is, or has a failure with a reason; there is no other record."""
    objects = {info.key: info for info in world.stores.images.list("")}
    live: set[str] = set()
    for product in products(world):
        assert product.object_keys, "an empty record"
        for key in product.object_keys:
            assert key not in live, f"{key} is on two records"
            live.add(key)
        for key, view in product.views.items():
            found = world.stores.images.head(key)
            assert found is not None and view.etag == found.etag, f"{key} is not what it was"
            assert view.attributes == from_user_metadata(found.metadata)
            assert view.version == row_version(view.etag, product.attributes)
        if product.document is not None:
            key = f"{product.catalogue}/{product.product_id}/product.json"
            assert product.document.etag == objects[key].etag
    failures, _ = world.stores.failures.page(CATALOGUE, 1000)
    failed = {item.key for item in failures}
    assert not live & failed, f"live and failed: {live & failed}"
    assert live | failed == objects.keys(), f"differ: {(live | failed) ^ objects.keys()}"
    photos = {key for key, seed in world.bucket.items() if seed is not None}
    assert failed == world.bucket.keys() - photos
    assert all(item.reason == "not-an-image" for item in failures), failures


def check_counts(world: World) -> None:
    records = list(products(world))
    wanted = Counts(
        sum(bool(item.views) for item in records),
        sum(len(item.views) for item in records),
        sum(seed is None for seed in world.bucket.values()),
    )
    assert world.stores.counts.all().get(CATALOGUE, Counts()) == wanted


def check_index(world: World) -> None:
    """Every generation that can be searched has each live row, and every file that it names."""
    views = [(item, view) for item in products(world) for view in item.views.values()]
    for lineage in world.stores.lineages.all():
        beside = lineage.beside
        usable = beside is not None and beside.phase in {"ready", "kept"}
        for generation in lineage.generations if usable else lineage.generations[:1]:
            rows = raw_rows(world, generation)
            for product, view in views:
                attributes, embedding = rows[view.key, view.version]
                assert attributes == product.attributes
                wanted = embed(world, generation.encoder, world.bucket[view.key])
                assert float(wanted[0] @ embedding) > 1 - _ERROR, f"{view.key} has another's row"
        for _, view in views:
            name = map_key(lineage.current.encoder, view.key, view.etag)
            assert world.stores.index.head(name), f"{view.key} has no map"
            assert world.stores.index.head(view.thumbnail), f"{view.key} has no thumbnail"


def raw_rows(world: World, generation: Generation) -> dict[tuple[str, str], tuple[Any, Any]]:
    """(attributes, embedding) of every raw row of a generation, all of whose files are there."""
    entries, manifest = world.stores.registry.read(generation.scope)
    for name in named_keys(manifest, entries):
        assert world.stores.index.head(name), f"{name} is named and not there"
    digests = [run.digest for shard in manifest.shards for run in shard.runs]
    digests += [
        entry.digest
        for entry in entries
        if segment_key(CATALOGUE, entry.digest) not in manifest.replaced
    ]
    rows = {}
    for digest in digests:
        segment = read_segment(world.stores.index, CATALOGUE, digest)
        assert segment.encoder == generation.encoder
        for number, key in enumerate(segment.keys):
            found = segment.attributes[number], segment.embeddings()[number]
            rows[key, segment.versions[number]] = found
    return rows


def check_answers(world: World, system: Services) -> None:
    """Each product once, by its best view as it is now, and nothing that was deleted."""
    if not world.stores.lineages.all():
        assert not any(seed is not None for seed in world.bucket.values())
        return
    check_answer(world, system, seed=0)
    for kind in sorted(set(world.kinds.values())):
        check_answer(world, system, seed=0, kind=kind)


def check_answer(
    world: World, system: Services, seed: int, kind: str = "", *, explain: bool = False
) -> str:
    """Search with a photo and compare with every photo in the bucket; gives the query's id."""
    wanted = parse_filter({"kind": kind}) if kind else None
    photo = QueryInput(image=draw(seed))
    answer = system.query.search(
        SearchRequest(CATALOGUE, (photo,), k=100, filter=wanted, explain=explain)
    )
    generation = Generation(CATALOGUE, answer.generation, answer.encoder)
    head = head_of(world, generation)
    query = head.project(embed(world, generation.encoder, seed))[0]
    scores: dict[str, float] = {}
    for key, shown in world.bucket.items():
        product_id = product_of(key)[1]
        if shown is not None and (not kind or kind_of(world, product_id) == kind):
            row = head.project(embed(world, generation.encoder, shown))[0]
            scores[product_id] = max(float(query @ row), scores.get(product_id, -1.0))
    found = [(item.product_id, item.score) for item in answer.results]
    assert len(dict(found)) == len(found), f"twice in one answer: {found}"
    assert dict(found) == pytest.approx(scores, abs=_ERROR)
    return answer.query_id


def check_tidy(world: World) -> None:
    """The index bucket holds what is named and nothing else."""
    named: set[str] = set()
    for lineage in world.stores.lineages.all():
        generations = [lineage.current, *([lineage.beside.generation] if lineage.beside else [])]
        for generation in generations:
            entries, manifest = world.stores.registry.read(generation.scope)
            named |= named_keys(manifest, entries)
            assert not manifest.replaced
        for product in products(world):
            for view in product.views.values():
                named.add(view.thumbnail)
                named |= {map_key(item.encoder, view.key, view.etag) for item in generations}
    for made in world.stores.artifacts.current(CATALOGUE).values():
        named |= {made.key, made.arrivals_key}
    there = {info.key for info in world.stores.index.list("")}
    left = {name for name in there - named if not name.startswith("sweep/")}
    assert not left, f"never collected: {left}"


def products(world: World) -> Iterator[Product]:
    after: str | None = ""
    while after is not None:
        page, after = world.stores.products.page(CATALOGUE, 100, after)
        yield from page


def kind_of(world: World, product_id: str) -> str:
    """A product's attribute is that of its last view which has it."""
    kinds = [kind for key, kind in sorted(world.kinds.items()) if product_of(key)[1] == product_id]
    return kinds[-1] if kinds else ""


def head_of(world: World, generation: Generation) -> Head:
    name = world.stores.registry.read(generation.scope)[1].head
    if not name:
        return Head.identity(24)
    found = world.stores.index.get(head_key(CATALOGUE, name), 10**7)
    assert found is not None
    return decode_head(found[1], name)


_EMBEDDINGS: dict[tuple[str, int], Any] = {}


def embed(world: World, space: str, seed: int | None) -> np.ndarray:
    """The (1, dim) raw embedding of a photo."""
    assert seed is not None
    if (space, seed) not in _EMBEDDINGS:
        image = Image.open(io.BytesIO(draw(seed))).convert("RGB")
        _EMBEDDINGS[space, seed] = world.toys(space).embed([image]).embeddings
    return _EMBEDDINGS[space, seed]
