"""Which products searches have shown: hashes of their ids, sorted, each once.

The file is nothing else: ``<u8`` numbers, each the BLAKE2b-64 of a product id in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import key_hash
from lookalike.core.errors import CorruptFile

Hashes = npt.NDArray[np.uint64]
NONE: Hashes = np.empty(0, dtype=np.uint64)
_BUFFER = 100_000


def product_hash(product_id: str) -> int:
    """What a product is known by."""
    return key_hash(product_id, "")


def read_shown(data: bytes | memoryview) -> Hashes:
    """Read a file; raises `CorruptFile` for one that is not whole or not in order."""
    if len(data) % 8:
        raise CorruptFile(f"a list of shown products has {len(data)} bytes, no multiple of 8")
    hashes = np.frombuffer(data, dtype="<u8").astype(np.uint64)
    if not (hashes[1:] > hashes[:-1]).all():
        raise CorruptFile("a list of shown products is not in order")
    return hashes


def write_shown(hashes: Hashes) -> bytes:
    """The file of these hashes, which are sorted and differ."""
    return hashes.astype("<u8").tobytes()


class ShownProducts:
    """Collects hashes of product ids; a million take about 10 MB."""

    def __init__(self, hashes: Hashes = NONE) -> None:
        self._hashes = hashes
        self._recent: set[int] = set()

    def add(self, product_ids: Iterable[str]) -> None:
        """Take in products."""
        self._recent.update(map(product_hash, product_ids))
        if len(self._recent) > _BUFFER:
            self._fold()

    def merge(self, other: ShownProducts) -> None:
        """Take in everything that another has."""
        self._hashes = np.union1d(self._hashes, other.hashes())

    def hashes(self) -> Hashes:
        """All of them, sorted, each once."""
        if self._recent:
            self._fold()
        return self._hashes

    def _fold(self) -> None:
        recent = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
        self._hashes = np.union1d(self._hashes, recent)
        self._recent.clear()
