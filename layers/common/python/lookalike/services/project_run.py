"""One run that makes a map: reads live rows, lays some products out, places the rest, publishes.

Owns the phases and what is saved between them, so that a slice that dies is gone on with. When to
run, `lookalike.services.project` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lookalike.core.errors import Conflict, CorruptFile, Vanished
from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.map_columns import Points, decode_details, decode_labels, encode_columns, taken
from lookalike.core.map_file import Chunk, decode_anchors, encode_map
from lookalike.core.placement import Anchors
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Generation
from lookalike.services.jobs import Run, make_current
from lookalike.services.live_embeddings import LiveEmbeddings, RowsCursor
from lookalike.services.map_files import open_map
from lookalike.services.project_arrivals import MAP_TYPE, Arrivals
from lookalike.services.project_layout import Before, Layout, MapPolicy
from lookalike.services.project_rows import Rows, open_finder
from lookalike.services.project_state import (
    LAYING_OUT,
    PLACING,
    READING,
    PartIndex,
    PartRows,
    PlacedChunk,
    Progress,
    Sample,
    get_object,
    put_object,
    save,
)

PART_ROWS = 8_192
"""Rows of one working object: 4 MB of embeddings of length 256."""


@dataclass(slots=True)
class MapRun:
    """A run with what it needs; `advance` takes it through its phases.

    ``is_over`` says whether the slice's time is over, ``artifacts`` what the catalogue has.
    """

    stores: Stores
    live: LiveEmbeddings
    arrivals: Arrivals
    policy: MapPolicy
    threads: int
    clock: Clock
    run: Run
    generation: Generation
    progress: Progress
    artifacts: dict[str, Artifact]
    is_over: Callable[[], bool]
    _layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        self._layout = Layout(self.run, self.progress, self.policy, self.threads)

    def advance(self) -> bool:
        """Go on until the map is published, or time is over; whether it is published.

        Raises
        ------
        MethodMissing
            The method is not installed here.
        """
        if self.run.job.phase == READING:
            if not self._read():
                return False
            if not self._rows_read:
                return self._end_empty()
            iterations = self._layout.draw(self._before())
            save(self.run, self.progress, LAYING_OUT, 0, iterations)
        if self.run.job.phase == LAYING_OUT:
            if not self._layout.advance(self.is_over):
                return False
            save(self.run, self.progress, PLACING, 0, self._rows_read)
        return self._place() and self._publish()

    @property
    def _rows_read(self) -> int:
        return sum(rows for _, _, rows in self.progress.parts)

    def _read(self) -> bool:
        """Gather what may stand for products; whether that is done."""
        progress = self.progress
        live = self.live.open(self.generation)
        if live.head_digest != progress.head:
            raise Conflict(f"{self.generation.scope} has got another head")
        cursor = RowsCursor.decode(progress.rows_cursor) if progress.rows_cursor else RowsCursor()
        seen = set(np.frombuffer(progress.seen, np.uint64).tolist())
        rows = Rows(None, seen)
        is_first = True
        for block in live.blocks(cursor):
            if rows.finder is None:
                rows.finder = open_finder(
                    self.stores.index,
                    self.artifacts.get("clusters"),
                    progress.encoder,
                    live.head(block.raw.shape[1]),
                )
            over = self.is_over() and not is_first
            is_first = False
            saves = over or self.run.is_due  # time goes on: what is saved must be written
            if len(rows) >= PART_ROWS or saves:
                rows = self._write_part(rows)
            if saves:
                progress.unreadable = sorted({*progress.unreadable, *live.unreadable})
                progress.rows_cursor = cursor.encode()
                progress.seen = np.fromiter(seen, np.uint64, len(seen)).tobytes()
                save(self.run, progress, READING, len(cursor.seen), live.rows)
            if over:
                return False
            rows.add(block)
        self._write_part(rows)
        progress.unreadable = sorted({*progress.unreadable, *live.unreadable})
        progress.rows_cursor = progress.seen = b""
        return True

    def _write_part(self, rows: Rows) -> Rows:
        """Write what was gathered; gives what goes on from there."""
        if not len(rows):
            return rows
        index = PartIndex(rows.product_hashes, rows.row_hashes, rows.is_first)
        part = PartRows(
            np.concatenate(rows.embeddings),
            encode_columns(rows.labels),
            encode_columns(rows.columns),
        )
        names = (
            put_object(self.run, "index", index.encode()),
            put_object(self.run, "part", part.encode()),
        )
        self.progress.parts.append((*names, len(rows)))
        return Rows(rows.finder, rows.seen)

    def _end_empty(self) -> bool:
        """End a run that has found no product: then there is no map."""
        made = self.artifacts.get("map")
        if made is not None:
            self.stores.artifacts.remove(made)
        self.run.finish()
        return True

    def _before(self) -> Before | None:
        made = self.artifacts.get("map")
        if made is None:
            return None
        try:
            file = open_map(self.stores.index, made.key)
            anchors = file.anchors()
        except (Vanished, CorruptFile):
            return None
        if anchors is None:
            return None
        same_space = (made.encoder, made.head) == (self.progress.encoder, self.progress.head)
        comparable = file.head.method == self.policy.map_method
        return Before(anchors, file.head.scale, same_space, comparable)

    def _place(self) -> bool:
        """Give every product its place; whether that is done."""
        progress = self.progress
        anchors = decode_anchors(get_object(self.run, progress.layout), progress.layout)
        kept = Sample.decode(get_object(self.run, progress.sample)).kept
        start = 0
        begun_with = len(progress.chunks)
        for number, (index_name, name, rows) in enumerate(progress.parts):
            if number >= len(progress.chunks):
                over = self.is_over() and len(progress.chunks) > begun_with
                if over or self.run.is_due:
                    save(self.run, progress, PLACING, start, self._rows_read)
                if over:
                    return False
                chosen = np.flatnonzero(kept[start : start + rows])
                chunk = self._placed(index_name, name, chosen, anchors)
                placed = put_object(self.run, "chunk", chunk.encode())
                progress.chunks.append((placed, len(chosen)))
            start += rows
        return True

    def _placed(
        self,
        index_name: str,
        name: str,
        chosen: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        anchors: Anchors,
    ) -> PlacedChunk:
        index = PartIndex.decode(get_object(self.run, index_name))
        part = PartRows.decode(get_object(self.run, name))
        products = index.products[chosen]
        positions, placed = anchors.place(products, part.embeddings[chosen])
        x, y = positions.astype(np.float32).T
        labels = taken(decode_labels(part.labels, name), chosen)
        points = Points(products, x, y, placed, labels.category, labels.cluster)
        details = part.details
        if len(chosen) < len(index.products):
            details = encode_columns(taken(decode_details(details, name), chosen))
        return PlacedChunk(encode_columns(points), details, products, index.rows[chosen])

    def _publish(self) -> bool:
        """Make the map the current one, unless a runner that died has done it."""
        progress = self.progress
        catalogue = self.generation.catalogue
        current = self.stores.artifacts.current(catalogue).get("map")
        if (current.serial if current else 0) == progress.serial:
            artifact = self._written()
            # What has come meanwhile is on the map before anybody sees it.
            artifact = self.arrivals.placed(self.generation, artifact, self.is_over)
            make_current(self.stores, current, artifact, self.clock(), self.policy.grace_s)
        self.run.finish()
        return True

    def _written(self) -> Artifact:
        progress = self.progress
        catalogue = self.generation.catalogue
        chunks = []
        known, products = [], []
        for name, rows in progress.chunks:
            chunk = PlacedChunk.decode(get_object(self.run, name))
            chunks.append(Chunk(rows, chunk.points, chunk.details))
            known.append(chunk.rows)
            products.append(chunk.products)
        body = encode_map(
            str(progress.summary["method"]),
            progress.scale,
            chunks,
            np.concatenate(known),
            np.concatenate(products),
            decode_anchors(get_object(self.run, progress.layout), progress.layout),
        )
        key = artifact_key("map", catalogue, content_digest(body))
        self.stores.index.put(key, body, MAP_TYPE)
        return Artifact(
            catalogue,
            "map",
            key,
            progress.encoder,
            progress.generation,
            progress.head,
            made_at=self.clock(),
            through_at=progress.through_at,
            serial=progress.serial + 1,
            products=sum(rows for _, rows in progress.chunks),
            summary={
                **progress.summary,
                "clusters": progress.clusters,
                "unreadable_files": len(progress.unreadable),
            },
        )
