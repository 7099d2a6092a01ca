"""A sample of a catalogue's products that is nearly the same in every run.

The products whose ids have the smallest hashes (bottom-k: Cohen & Kaplan, "Summarizing data using
bottom-k sketches", 2007): independent of the order in which they come, and of most of what comes
and goes, so that clusters do not move because other rows were drawn.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lookalike.core.container import FileKind, decode_container, encode_container
from lookalike.core.head import Head
from lookalike.core.segment import Float32, dequantize, quantize

KIND = FileKind("sample", b"LKCS", 1)
_AT_ONCE = 8192

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class Sample:
    """At most ``limit`` rows, as int8 codes: those of the smallest hashes so far."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hashes: list[Hashes] = []
        self._codes: list[npt.NDArray[np.int8]] = []
        self._scales: list[Float32] = []
        self._known: list[Mask] = []

    def __len__(self) -> int:
        return sum(map(len, self._hashes))

    @property
    def hashes(self) -> Hashes:
        """(n,) uint64, ascending."""
        self._shrink()
        return self._hashes[0] if self._hashes else np.empty(0, np.uint64)

    @property
    def known(self) -> Mask:
        """(n,) in order of hash: which rows were there when the last clusters were made."""
        self._shrink()
        return self._known[0] if self._known else np.empty(0, np.bool_)

    def add(self, hashes: Hashes, raw: Float32, known: Mask) -> None:
        """Rows (n, dim), L2-normalised, by the hashes (n,) of their products.

        Of two rows of a product the later one is kept. See ``known`` for that.
        """
        if not len(hashes):
            return
        codes, scales = quantize(raw)
        self._hashes.append(hashes)
        self._codes.append(codes)
        self._scales.append(scales)
        self._known.append(known)
        if len(self) >= 2 * self._limit:
            self._shrink()

    def raw(self) -> Iterator[Float32]:
        """The rows (some, dim) float32, L2-normalised, in order of hash, some at a time."""
        self._shrink()
        if self._hashes:
            codes, scales = self._codes[0], self._scales[0]
            for start in range(0, len(codes), _AT_ONCE):
                yield dequantize(codes[start : start + _AT_ONCE], scales[start : start + _AT_ONCE])

    def embeddings(self, head: Head) -> Float32:
        """(n, head.dim_out) float32 in order of hash."""
        parts = [head.project(raw) for raw in self.raw()]
        return np.concatenate(parts) if parts else np.empty((0, head.dim_out), np.float32)

    def encode(self) -> bytes:
        """For `decode`, later."""
        self._shrink()
        if not self._hashes:
            return encode_container(KIND, {"limit": self._limit, "rows": 0}, {})
        header = {"limit": self._limit, "rows": len(self)}
        sections = {
            "hashes": self._hashes[0].astype("<u8").tobytes(),
            "codes": self._codes[0].tobytes(),
            "scales": self._scales[0].astype("<f4").tobytes(),
            "known": self._known[0].tobytes(),
        }
        return encode_container(KIND, header, sections)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Sample:
        """What `encode` gave; raises `CorruptFile`. ``name`` is for the error."""
        file = decode_container(KIND, data, name)
        sample, rows = cls(file.header["limit"]), file.header["rows"]
        if rows:
            codes = np.frombuffer(file.section("codes"), dtype=np.int8)
            sample._hashes = [np.frombuffer(file.section("hashes"), dtype="<u8")]
            sample._codes = [codes.reshape(rows, -1)]
            sample._scales = [np.frombuffer(file.section("scales"), dtype="<f4")]
            sample._known = [np.frombuffer(file.section("known"), dtype=np.bool_)]
        return sample

    def _shrink(self) -> None:
        if len(self._hashes) <= 1 and len(self) <= self._limit and self._is_sorted():
            return
        hashes = np.concatenate(self._hashes)[::-1]  # np.unique finds the first of each: the latest
        found, places = np.unique(hashes, return_index=True)
        chosen = len(hashes) - 1 - places[: self._limit]
        self._hashes = [found[: self._limit]]
        self._codes = [np.concatenate(self._codes)[chosen]]
        self._scales = [np.concatenate(self._scales)[chosen]]
        self._known = [np.concatenate(self._known)[chosen]]

    def _is_sorted(self) -> bool:
        return all(bool((part[1:] > part[:-1]).all()) for part in self._hashes)
