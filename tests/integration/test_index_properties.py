"""Any mix of what changes an index, in any order and into each other, answers as brute force does.

Everything is as it is wired for the functions, but for the stores (in memory), the clock (by hand),
the encoders (toys) and the threads (none, so that what was found can be found again).
"""

from __future__ import annotations

import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from crash_points.world import GRACE_S, SETTLE_S, SMALL, TOYS, Clock, draw, toys_and_no_threads
from lookalike.adapters.failing import FailingStores
from lookalike.adapters.memory import MemoryObjectStore
from lookalike.core.errors import Conflict, InvalidRequest
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head, decode_head
from lookalike.core.keys import head_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.types import Generation
from lookalike.services.query import SearchResponse
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.segments import read_segment
from lookalike.wiring import Services, build_services

HISTORIES = int(os.environ.get("HISTORIES", "45"))
CATALOGUE = "shop"
THRESHOLDS = replace(SMALL, merge_segments=3, shard_rows=12, head_rows=10)
ERROR = 0.02
"""How far codes of eight bits, twice, take a cosine off."""

photo_seeds = st.integers(0, 40)
keys = st.builds("shop/p{}/v{}.png".format, st.integers(0, 15), st.integers(0, 2))
kinds = st.sampled_from(["red", "blue", None])
uploads = st.dictionaries(keys, st.tuples(photo_seeds, kinds), min_size=1, max_size=9)
tasks = st.sampled_from(
    ["compact", "compact", "build", "build", "clean up", "toy-a", "toy-b", "roll back", "drop"]
)
turns = st.integers(1, 80)
# Shorter together than what an append may take.
interludes = st.lists(
    st.one_of(
        st.tuples(st.just("upload"), uploads),
        st.tuples(st.just("delete"), st.sets(keys, max_size=3)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, SETTLE_S / 4])),
        st.tuples(st.just("task"), tasks),
    ),
    min_size=1,
    max_size=3,
)
probes = st.fixed_dictionaries(
    {"k": st.sampled_from([1, 3, 10, 100]), "exact": st.booleans()},
    optional={"kind": st.sampled_from(["red", "blue"])},
)


class Interrupted(FailingStores):
    """Stores before whose chosen call somebody else gets a turn."""

    def arm(self, at: int, interlude: Callable[[], object]) -> None:
        self.calls, self._at, self._interlude = 0, at, interlude

    def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self._at:
            self._interlude()
        return method(*arguments, **options)


class Shop(RuleBasedStateMachine):
    """One catalogue, those who write to it and look after it, and what its bucket should hold."""

    cache_dir: Path
    toys: Callable[[str], Any]
    fresh_stores: Callable[[Clock], Stores]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.stores = self.fresh_stores(self.clock)
        self.interrupted = Interrupted(self.stores)
        self.ids = map("{:026d}".format, itertools.count(1))
        self.bucket: dict[str, tuple[int, str | None]] = {}
        self.restart()
        self.passer_by = self.build(self.stores)

    def build(self, stores: Stores) -> Services:
        thresholds = replace(THRESHOLDS, cache_dir=str(self.cache_dir))
        return build_services(thresholds, stores, lambda: next(self.ids), self.clock, self.toys)

    @rule()
    def restart(self) -> None:
        """Functions that know nothing take the place of those that were running."""
        self.system = self.build(self.interrupted.stores)

    # What users do.

    @initialize(files=st.lists(uploads, min_size=1, max_size=8))
    def begin(self, files: list[dict[str, tuple[int, str | None]]]) -> None:
        for some in files:
            self.upload(some)

    @rule(files=uploads)
    def upload(self, files: dict[str, tuple[int, str | None]]) -> None:
        self.put(files)
        self.index(self.system, list(files))

    @rule(gone=st.sets(keys, max_size=6))
    def delete(self, gone: set[str]) -> None:
        self.take_away(gone)
        self.index(self.system, sorted(gone))

    def put(self, files: dict[str, tuple[int, str | None]]) -> None:
        for key, (seed, kind) in files.items():
            metadata = {"kind": kind} if kind else {}
            self.stores.images.put_object(key, draw(seed), "image/png", metadata)
            self.bucket[key] = (seed, kind)

    def take_away(self, gone: set[str]) -> None:
        for key in gone:
            self.stores.images.delete(key)
            self.bucket.pop(key, None)

    def index(self, system: Services, wanted: list[str]) -> None:
        for _ in range(5):
            wanted = list(system.ingest.reconcile(wanted))
            if not wanted:
                return
        raise AssertionError(f"these keys are never done: {wanted}")

    # What runs beside.

    @rule(seconds=st.sampled_from([1, SETTLE_S, GRACE_S, 5 * GRACE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(task=tasks)
    def look_after(self, task: str) -> None:
        self.maintain(self.system, task)

    @rule(encoder=st.sampled_from(sorted(TOYS)))
    def build_in_full(self, encoder: str) -> None:
        self.maintain(self.system, encoder)
        for _ in range(3):
            self.wait(SETTLE_S)
            self.maintain(self.system, "build")

    def maintain(self, system: Services, task: str) -> None:
        deadline = float("inf")
        if task == "compact":
            system.compaction.run(deadline)
        elif task == "clean up":
            system.compaction.run(deadline, CATALOGUE)
        elif task == "build":
            system.reindex.run(deadline)
        else:
            with suppress(InvalidRequest, Conflict):
                if task == "roll back":
                    system.reindex.roll_back(CATALOGUE)
                elif task == "drop":
                    system.reindex.drop(CATALOGUE)
                else:
                    system.reindex.begin(CATALOGUE, task)

    @rule(files=uploads, gone=st.sets(keys, max_size=3), at=turns, interludes=interludes)
    def write_interrupted(
        self,
        files: dict[str, tuple[int, str | None]],
        gone: set[str],
        at: int,
        interludes: list[Any],
    ) -> None:
        """Others run between two calls of an append, which lasts less than it may."""
        self.put(files)
        self.take_away(gone - files.keys())
        wanted = sorted(files.keys() | gone)
        self.interrupted.arm(at, lambda: self.take_turns(interludes, wanted))
        self.index(self.system, wanted)
        self.interrupted.arm(0, self.compare)

    @rule(task=tasks, at=turns, interludes=interludes)
    def look_after_interrupted(self, task: str, at: int, interludes: list[Any]) -> None:
        """Others run between two calls of a scheduled function, among them the same one."""
        self.interrupted.arm(at, lambda: self.take_turns(interludes, []))
        self.maintain(self.system, task)
        self.interrupted.arm(0, self.compare)

    @rule(seed=photo_seeds, at=turns, busy=st.lists(tasks, min_size=1, max_size=3), probe=probes)
    def query_interrupted(self, seed: int, at: int, busy: list[str], probe: dict[str, Any]) -> None:
        """A query during which the index is rebuilt, swapped and cleaned up answers the same."""
        self.interrupted.arm(at, lambda: [self.maintain(self.passer_by, task) for task in busy])
        self.check(self.search(self.system, seed, **probe), seed, **probe)
        self.interrupted.arm(0, self.compare)

    def take_turns(self, interludes: list[Any], busy: list[str]) -> None:
        for kind, what in interludes:
            if kind == "upload":
                self.put(what)
                self.index(self.passer_by, list(what))
            elif kind == "delete":
                self.take_away(what)
                self.index(self.passer_by, sorted(what))
            elif kind == "wait":
                self.clock.now += what
            else:
                self.maintain(self.passer_by, what)
            self.look(busy)

    def look(self, busy: list[str]) -> None:
        """A query in between: whatever nobody is writing just now is found, once."""
        found = [item.product_id for item in self.search(self.passer_by, 0, k=100).results]
        assert len(found) == len(set(found))
        in_flux = {product_of(key) for key in busy}
        assert {item for item in found if item not in in_flux} == self.products() - in_flux

    # What must hold.

    @rule(seed=photo_seeds, probe=probes)
    def query(self, seed: int, probe: dict[str, Any]) -> None:
        for system in (self.system, self.passer_by):
            self.check(self.search(system, seed, **probe), seed, **probe)

    @invariant()
    def compare(self) -> None:
        if not self.stores.lineages.all():
            return
        for exact in (False, True):
            probe = {"k": 100, "exact": exact}
            self.check(self.search(self.system, 0, **probe), 0, **probe)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every generation that queries may use holds each live row, readable."""
        for lineage in self.stores.lineages.all():
            beside = lineage.beside
            usable = beside is not None and beside.phase in {"ready", "kept"}
            for generation in lineage.generations if usable else lineage.generations[:1]:
                held = self.raw_rows(generation)
                records, _ = self.stores.products.page(CATALOGUE, 100)
                views = [view for record in records for view in record.views.values()]
                assert {(view.key, view.version) for view in views} <= held
                assert {view.key for view in views} == self.bucket.keys()

    def raw_rows(self, generation: Generation) -> set[tuple[str, str]]:
        entries, manifest = self.stores.registry.read(generation.scope)
        digests = [run.digest for shard in manifest.shards for run in shard.runs]
        digests += [
            entry.digest
            for entry in entries
            if segment_key(CATALOGUE, entry.digest) not in manifest.replaced
        ]
        held: set[tuple[str, str]] = set()
        for digest in digests:
            segment = read_segment(self.stores.index, CATALOGUE, digest)
            assert segment.encoder == generation.encoder
            held.update(zip(segment.keys, segment.versions, strict=True))
        return held

    def search(self, system: Services, seed: int, **probe: Any) -> SearchResponse:
        if kind := probe.pop("kind", None):
            probe["filter"] = parse_filter({"kind": kind})
        photo = QueryInput(image=draw(seed))
        return system.query.search(SearchRequest(CATALOGUE, (photo,), **probe))

    def check(
        self, answer: SearchResponse, seed: int, k: int, kind: str | None = None, **_: Any
    ) -> None:
        """The answer is that of comparing the query with every photo in the bucket."""
        scores = self.brute_force(answer, seed, kind)
        found = {item.product_id: item.score for item in answer.results}
        said = f"{found} should be {scores}"
        assert len(found) == len(answer.results) == min(k, len(scores)), said
        assert found.keys() <= scores.keys(), said
        assert list(found.values()) == sorted(found.values(), reverse=True), said
        last = sorted(scores.values(), reverse=True)[: len(found)][-1:]
        for product_id, score in found.items():
            assert score == pytest.approx(scores[product_id], abs=ERROR), said
            assert scores[product_id] >= last[0] - 2 * ERROR, said

    def brute_force(self, answer: SearchResponse, seed: int, kind: str | None) -> dict[str, float]:
        """Each product's best score, by the encoder and the head of the answer's generation.

        That may be the one before or the one after a swap that the query met.
        """
        generation = Generation(CATALOGUE, answer.generation, answer.encoder)
        name = self.stores.registry.read(generation.scope)[1].head
        head = Head.identity(24)
        if name:
            head = decode_head(self.stores.index.get(head_key(CATALOGUE, name), 10**6)[1], name)
        query = head.project(self.embed(generation.encoder, seed))[0]
        scores: dict[str, float] = {}
        for key, (photo, _) in self.bucket.items():
            product_id = product_of(key)
            if kind is None or self.kind(product_id) == kind:
                row = head.project(self.embed(generation.encoder, photo))[0]
                scores[product_id] = max(float(query @ row), scores.get(product_id, -1.0))
        return scores

    def embed(self, space: str, seed: int) -> np.ndarray:
        if (space, seed) not in self.embeddings:
            image = Image.open(io.BytesIO(draw(seed)))
            self.embeddings[space, seed] = self.toys(space).embed([image]).embeddings
        return self.embeddings[space, seed]

    def kind(self, product_id: str) -> str | None:
        """A product's attribute is that of its last view which has it."""
        kinds = [
            kind
            for key, (_, kind) in sorted(self.bucket.items())
            if product_of(key) == product_id and kind is not None
        ]
        return kinds[-1] if kinds else None

    def state(self) -> set[str]:
        """What there is at the end."""
        found: set[str] = set()
        for lineage in self.stores.lineages.all():
            _, manifest = self.stores.registry.read(lineage.current.scope)
            bases = [shard.base for shard in manifest.shards if shard.base]
            there = {
                "base": bool(bases),
                "lists": any(base.lists > 1 for base in bases),
                "shards": len(manifest.shards) > 1,
                "head": bool(manifest.head),
                "replaced": bool(manifest.replaced),
                "swapped": lineage.current.generation != "toy-a-border-v1",
                "other encoder": lineage.current.encoder != "toy-a-border-v1",
                "kept": lineage.beside is not None and lineage.beside.phase == "kept",
            }
            found |= {name for name, is_so in there.items() if is_so}
        return found

    def products(self) -> set[str]:
        return set(map(product_of, self.bucket))


def product_of(key: str) -> str:
    return key.split("/")[1]


@pytest.fixture
def shop(fresh_stores, toy_encoder_of, tmp_path) -> Iterator[type[Shop]]:
    class Here(Shop):
        cache_dir = tmp_path
        toys = staticmethod(toy_encoder_of)
        embeddings: ClassVar = {}

        @staticmethod
        def fresh_stores(clock: Clock) -> Stores:
            images, index = MemoryObjectStore(clock), MemoryObjectStore(clock)
            return replace(fresh_stores(), images=images, index=index)

    with toys_and_no_threads():
        yield Here


def live_through(shop: type[Shop], examples: int, **options: Any) -> None:
    run_state_machine_as_test(
        shop,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


def test_any_history_answers_as_brute_force(shop):
    """Always the same histories, among which there is everything that an index can be."""
    met: Counter[str] = Counter()

    class Noted(shop):
        def teardown(self) -> None:
            met.update(self.state())
            super().teardown()

    live_through(Noted, 40, derandomize=True)
    states = {"base", "lists", "shards", "head", "swapped", "other encoder", "kept", "replaced"}
    assert met.keys() >= states, met


@pytest.mark.slow
def test_many_histories_answer_as_brute_force(shop):
    """Others each time; ``HISTORIES=2000`` in the environment makes it a longer run."""
    live_through(shop, HISTORIES)
