"""Plain FAISS: one flat index or inverted lists of float32, saved as one file."""

from __future__ import annotations

import math
from pathlib import Path

import faiss
import numpy as np
from index.contender import ROUNDS, ROWS_PER_LIST, Contender
from index.vectors import Filter, Float32, K


class _File(Contender):
    """A FAISS index in one file. An append is what a file allows: load, add, write, rename."""

    rewrites = True

    def _make(self) -> faiss.Index:
        raise NotImplementedError

    def build(self) -> None:
        index = self._make()
        index.add(self.vectors.embeddings)
        faiss.write_index(index, str(self.folder / "index.faiss"))

    def open(self) -> None:
        self.index = faiss.read_index(str(self.folder / "index.faiss"))

    def prepare_append(self, scratch: Path) -> None:
        self._file = scratch / "index.faiss"
        faiss.write_index(self.index, str(self._file))

    def append(self, embeddings: Float32, durable: bool = True) -> None:
        if not durable:
            self.index.add(embeddings)
            return
        index = faiss.read_index(str(self._file))
        index.add(embeddings)
        written = self._file.with_suffix(".new")
        faiss.write_index(index, str(written))
        written.replace(self._file)

    def _selector(self, condition: Filter) -> faiss.IDSelector:
        # The bitmap must outlive the selector, which only points to it.
        self._bitmap = np.packbits(self.vectors.allowed(condition), bitorder="little")
        return faiss.IDSelectorBitmap(self._bitmap)


class Flat(_File):
    """Brute force."""

    setting = "exact"
    efforts = (0,)

    def _make(self) -> faiss.Index:
        return faiss.IndexFlatIP(self.vectors.dim)

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        selector = self._selector(condition) if condition else None
        found = self.index.search(query[None], K, params=faiss.SearchParameters(sel=selector))[1]
        return found[0].tolist()


class Inverted(_File):
    """4·√rows inverted lists."""

    setting = "nprobe"
    efforts = (1, 4, 16, 32, 64, 128)

    def _make(self) -> faiss.Index:
        lists = round(4 * math.sqrt(self.vectors.rows))
        index = faiss.index_factory(
            self.vectors.dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, ROWS_PER_LIST
        rng = np.random.default_rng(0)
        chosen = rng.permutation(self.vectors.rows)[: ROWS_PER_LIST * lists]
        index.train(self.vectors.embeddings[np.sort(chosen)])
        return index

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        selector = self._selector(condition) if condition else None
        parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        return self.index.search(query[None], K, params=parameters)[1][0].tolist()
