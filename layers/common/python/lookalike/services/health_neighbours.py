"""The phase of the health check that finds every row's neighbours, saved as often as need be.

Few rows are all compared. Many are put into lists: centroids are trained round by round, rows are
divided among them block by block, and then each list's rows are compared with those near it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from lookalike.core.health import NEIGHBOURS
from lookalike.core.health_file import encode_graph
from lookalike.core.neighbours import (
    MANY_ROWS,
    ROUNDS,
    Float32,
    Int64,
    Lists,
    Neighbours,
    divide,
    exact_neighbours,
    list_neighbours,
    nearest_lists,
    sample_rows,
    train_centroids,
)
from lookalike.services.health_state import Gathered, State, read_object, write_object
from lookalike.services.jobs import Run

_SEED = 5
ROWS_AT_ONCE = 8192

Keep = Callable[[int], bool]


class NeighbourSearch:
    """Takes the phase further.

    Parameters
    ----------
    run
        Whose working objects are written.
    state
        Where the phase is; goes along.
    gathered
        The rows.
    is_due
        Whether it is time to save, or the slice is over.
    keep
        Saves how many rows are done; False when the slice is over.
    """

    def __init__(
        self,
        run: Run,
        state: State,
        gathered: Gathered,
        is_due: Callable[[], bool],
        keep: Keep,
    ) -> None:
        self._run = run
        self._state = state
        self._gathered = gathered
        self._is_due = is_due
        self._keep = keep
        self._count = len(gathered.rows)

    def go_on(self) -> bool:
        """Find the neighbours that are left; False when the slice is over before."""
        if self._count <= MANY_ROWS:
            everything = np.arange(self._count)
            found = exact_neighbours(self._gathered.embeddings(everything), NEIGHBOURS)
            self._state.graph = []
            self._write([(everything, found)], 0)
            return True
        centroids = self._centroids()
        if centroids is None:
            return False
        nearest = self._nearest(centroids)
        return nearest is not None and self._compare(divide(nearest, centroids))

    def _centroids(self) -> Float32 | None:
        """Trained to the end; None when the slice is over before."""
        state, centroids = self._state, None
        if state.centroids:
            body = read_object(self._run, state.centroids)
            dim, values = msgspec.msgpack.decode(body, type=tuple[int, bytes])
            centroids = np.frombuffer(values, np.float32).reshape(-1, dim)
        if centroids is not None and state.rounds >= ROUNDS:
            return centroids
        some = np.random.default_rng(_SEED).permutation(self._count)[: sample_rows(self._count)]
        sample = self._gathered.embeddings(np.sort(some))
        while centroids is None or state.rounds < ROUNDS:
            centroids = train_centroids(sample, self._count, before=centroids, rounds=1)
            state.rounds += 1
            if state.rounds == ROUNDS or self._is_due():
                body = msgspec.msgpack.encode((centroids.shape[1], centroids.tobytes()))
                state.centroids = write_object(self._run, "centroids", body)
                if not self._keep(0):
                    return None
        return centroids

    def _nearest(self, centroids: Float32) -> np.ndarray[tuple[int], np.dtype[np.int32]] | None:
        """Each row's centroid; None when the slice is over before."""
        state = self._state
        found = [np.empty(0, np.int32)]
        for start in range(state.divided, self._count, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, self._count)
            rows = np.arange(start, end)
            found.append(nearest_lists(self._gathered.embeddings(rows), centroids))
            if end == self._count or self._is_due():
                body = np.concatenate(found).tobytes()
                state.nearest.append(write_object(self._run, "nearest", body))
                state.divided = end
                found = [np.empty(0, np.int32)]
                if not self._keep(0):
                    return None
        parts = [np.frombuffer(read_object(self._run, name), np.int32) for name in state.nearest]
        return np.concatenate(parts)

    def _compare(self, lists: Lists) -> bool:
        waiting: list[tuple[Int64, Neighbours]] = []
        for number in range(self._state.list_next, len(lists)):
            if waiting and self._is_due():
                self._write(waiting, number)
                if not self._keep(int(lists.starts[number])):
                    return False
            waiting.append(list_neighbours(lists, number, self._gathered.embeddings, NEIGHBOURS))
        self._write(waiting, len(lists))
        return True

    def _write(self, waiting: list[tuple[Int64, Neighbours]], list_next: int) -> None:
        """Write what was found, which are the neighbours of the lists before ``list_next``."""
        state = self._state
        if waiting:
            rows = np.concatenate([of for of, _ in waiting])
            found = Neighbours(
                np.concatenate([item.rows for _, item in waiting]),
                np.concatenate([item.cosines for _, item in waiting]),
            )
            body = encode_graph(state.list_next, rows, found)
            state.graph.append(write_object(self._run, "graph", body))
        state.list_next = list_next
        waiting.clear()
