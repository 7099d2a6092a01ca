"""usearch and hnswlib: graphs in memory, saved as one file. M 16, ef 128 and 100 to build."""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np
import usearch.index
from index.contender import Contender
from index.vectors import EXTRA, Filter, Float32, K

_THREADS_TO_BUILD = 2


class _Graph(Contender):
    """An append adds to the graph in memory and saves all of it, as there is nothing smaller."""

    setting = "ef"
    rewrites = True
    efforts = (16, 32, 64, 128, 256)

    def prepare_append(self, scratch: Path) -> None:
        self._file = scratch / "index.graph"
        self._next = self.vectors.rows

    def append(self, embeddings: Float32, durable: bool = True) -> None:
        self._add(np.arange(self._next, self._next + len(embeddings)), embeddings)
        self._next += len(embeddings)
        if durable:
            written = self._file.with_suffix(".new")
            self._save(written)
            written.replace(self._file)

    def _add(self, ids: np.ndarray, embeddings: Float32) -> None:
        raise NotImplementedError

    def _save(self, path: Path) -> None:
        raise NotImplementedError


class Usearch(_Graph):
    """Embeddings as bfloat16, usearch's default on this kind of machine."""

    def build(self) -> None:
        index = usearch.index.Index(ndim=self.vectors.dim, metric="ip", dtype="bf16")
        rows = np.arange(self.vectors.rows)
        index.add(rows, self.vectors.embeddings, threads=_THREADS_TO_BUILD)
        index.save(str(self.folder / "index.graph"))

    def open(self) -> None:
        # view=True maps the file; it opens faster but cannot be appended to.
        self.index = usearch.index.Index.restore(str(self.folder / "index.graph"))

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        if condition:
            raise NotImplementedError("usearch's Python binding has no filtered search")
        self.index.expansion_search = effort
        return self.index.search(query, K, threads=1).keys.tolist()

    def _add(self, ids: np.ndarray, embeddings: Float32) -> None:
        self.index.add(ids, embeddings, threads=1)

    def _save(self, path: Path) -> None:
        self.index.save(str(path))


class Hnswlib(_Graph):
    """Embeddings as float32."""

    def build(self) -> None:
        index = hnswlib.Index("ip", self.vectors.dim)
        index.init_index(self.vectors.rows, M=16, ef_construction=100)
        index.add_items(self.vectors.embeddings, num_threads=_THREADS_TO_BUILD)
        index.save_index(str(self.folder / "index.graph"))

    def open(self) -> None:
        self.index = hnswlib.Index("ip", self.vectors.dim)
        capacity = self.vectors.rows + EXTRA
        self.index.load_index(str(self.folder / "index.graph"), max_elements=capacity)

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        self.index.set_ef(effort)
        admits = None if condition is None else self.vectors.allowed(condition).__getitem__
        found = self.index.knn_query(query, K, num_threads=1, filter=admits)[0]
        return found[0].tolist()

    def _add(self, ids: np.ndarray, embeddings: Float32) -> None:
        self.index.add_items(embeddings, ids, num_threads=1)

    def _save(self, path: Path) -> None:
        self.index.save_index(str(path))
