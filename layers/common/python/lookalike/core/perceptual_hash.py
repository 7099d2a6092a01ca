"""Perceptual hashes: 64 bits that stay when a photo is saved again, made smaller or brightened.

The signs of the lowest frequencies of the discrete cosine transform of the grey picture, against
their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
Finds all pairs within a few bits without comparing all pairs.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

HASH_SIDE = 32
"""Side in pixels of the grey picture that is hashed."""
MAX_BITS = 4
"""Bits by which hashes of copies of one photo differ at most (docs/health.md)."""

_FREQUENCIES = 8
_BANDS = 6  # two of them at least are the same when no more than four bits differ
_MOST_ALIKE = 64

Float32 = npt.NDArray[np.float32]
UInt64 = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]


def perceptual_hashes(grey: Float32) -> tuple[UInt64, UInt64]:
    """Hashes (n,) uint64 of pictures and of their mirror images.

    Parameters
    ----------
    grey
        (n, 32, 32) float32.
    """
    basis = _cosines(HASH_SIDE)[: _FREQUENCIES + 1]
    spectrum = (basis @ grey @ basis.T).astype(np.float32)
    # Mirroring a picture changes the sign of every odd horizontal frequency.
    signs = np.where(np.arange(_FREQUENCIES + 1) % 2, -1, 1).astype(np.float32)
    return _packed(spectrum), _packed((spectrum * signs).astype(np.float32))


def differing_bits(left: UInt64, right: UInt64) -> npt.NDArray[np.int64]:
    """How many bits differ between hashes, one by one."""
    bits: npt.NDArray[np.int64] = np.bitwise_count(left ^ right).astype(np.int64)
    return bits


def close_pairs(hashes: UInt64, mirrored: UInt64, max_bits: int = MAX_BITS) -> Pairs:
    """Pairs (n, 2) of pictures that are alike or mirror images, the lower number first.

    Near-linear: of pictures with the same hash each is paired with the first of them only, and
    different hashes are compared only where two of six bands of their bits are the same, each with
    the next 64 of those at most. Up to there all pairs within ``max_bits`` are found.

    Parameters
    ----------
    hashes, mirrored
        (n,) uint64 as `perceptual_hashes` gives them.
    max_bits
        Bits that may differ, at most 4.
    """
    if max_bits > _BANDS - 2:
        raise ValueError(f"max_bits is {max_bits}; at most {_BANDS - 2} are all found")
    # Either of a picture's two hashes stands for both it and its mirror image.
    canonical = np.minimum(hashes, mirrored)
    _, first, group = np.unique(canonical, return_index=True, return_inverse=True)
    same = np.stack([first[group], np.arange(len(hashes))], axis=1)
    found = [same[same[:, 0] != same[:, 1]].astype(np.int64)]
    ours = np.concatenate([hashes[first], mirrored[first]])
    owner = np.concatenate([first, first]).astype(np.int64)
    for pairs in _within(ours, max_bits):
        # Two mirror images may be closer than the pictures are: their medians are others.
        is_straight = (pairs < len(first)).any(axis=1)
        found.append(np.sort(owner[pairs[is_straight]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]], dtype=np.int64)


def _within(hashes: UInt64, max_bits: int) -> list[Pairs]:
    """Pairs of places in ``hashes`` that differ by at most so many bits; some more than once."""
    width = 64 // _BANDS + 1
    bands = [
        (hashes >> np.uint64(min(band * width, 63))) & np.uint64((1 << width) - 1)
        for band in range(_BANDS)
    ]
    found: list[Pairs] = []
    for left, right in combinations(range(_BANDS), 2):
        key = (bands[left] << np.uint64(width)) | bands[right]
        order = np.lexsort((hashes, key))
        ordered = key[order]
        # Each place with the one so many places behind it, while the key stays the same.
        step = 1
        places = np.flatnonzero(ordered[1:] == ordered[:-1])
        while len(places) and step <= _MOST_ALIKE:
            a, b = order[places], order[places + step]
            close = differing_bits(hashes[a], hashes[b]) <= max_bits
            found.append(np.stack([a[close], b[close]], axis=1).astype(np.int64))
            step += 1
            places = places[places + step < len(ordered)]
            places = places[ordered[places + step] == ordered[places]]
    return found


def _packed(spectrum: Float32) -> UInt64:
    """The 64 signs of each (9, 9) spectrum: the lowest 8 × 8 frequencies but the mean's."""
    low = spectrum[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(spectrum), -1)
    values = np.concatenate([low[:, 1:], spectrum[:, :1, _FREQUENCIES]], axis=1)
    bits = values > np.median(values, axis=1, keepdims=True)
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view("<u8")[:, 0].astype(np.uint64)


def _cosines(size: int) -> Float32:
    """(size, size) float32: the transform's basis, a frequency a row."""
    frequency, place = np.arange(size)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * (2 * place + 1) * frequency / (2 * size)).astype(np.float32)
