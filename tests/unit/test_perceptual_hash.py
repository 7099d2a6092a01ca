from __future__ import annotations

import numpy as np
import pytest

from lookalike.core.perceptual_hash import close_pairs, differing_bits, perceptual_hashes


def smooth(count: int, seed: int = 0) -> np.ndarray:
    """Pictures of a few patches each, (count, 32, 32)."""
    chance = np.random.default_rng(seed)
    cells = chance.uniform(0, 255, (count, 8, 8))
    return cells.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


def test_the_mirrored_hash_is_the_hash_of_the_mirrored_picture():
    pictures = smooth(40)
    hashes, mirrored = perceptual_hashes(pictures)
    of_mirrored, straight = perceptual_hashes(pictures[:, :, ::-1].copy())
    assert (mirrored == of_mirrored).all() and (straight == hashes).all()
    assert len(set(hashes.tolist()) | set(mirrored.tolist())) == 80


def test_brightness_and_contrast_leave_the_hash_as_it_is():
    pictures = smooth(40)
    brighter = perceptual_hashes(pictures * np.float32(0.5) + 60)[0]
    assert (differing_bits(perceptual_hashes(pictures)[0], brighter) <= 1).all()


def test_every_close_pair_of_different_hashes_is_found():
    chance = np.random.default_rng(4)
    seeds = chance.integers(0, 2**63, 30, dtype=np.uint64)
    flips = np.bitwise_xor.reduce(
        np.uint64(1) << chance.integers(0, 64, (600, 4), dtype=np.uint64), axis=1
    )
    hashes = np.unique(seeds[chance.integers(0, 30, 600)] ^ flips)
    mirrored = hashes ^ np.uint64(0x5555_5555_5555_5555)
    wanted = {
        (left, right)
        for left in range(len(hashes))
        for right in range(left + 1, len(hashes))
        if min(
            (hashes[left] ^ hashes[right]).bit_count(),
            (hashes[left] ^ mirrored[right]).bit_count(),
        )
        <= 4
    }
    assert len(wanted) > 100
    assert set(map(tuple, close_pairs(hashes, mirrored).tolist())) == wanted


def test_a_mirror_image_is_paired_with_its_picture():
    hashes, mirrored = perceptual_hashes(np.concatenate([smooth(5), smooth(5)[:, :, ::-1]]))
    assert close_pairs(hashes, mirrored).tolist() == [[n, n + 5] for n in range(5)]


def test_a_thousand_times_the_same_photo_costs_a_thousand_pairs():
    hashes = np.full(1000, 12345, np.uint64)
    pairs = close_pairs(hashes, ~hashes)
    assert pairs.tolist() == [[0, n] for n in range(1, 1000)]


def test_more_bits_than_are_all_found_are_refused():
    with pytest.raises(ValueError, match="at most 4"):
        close_pairs(np.zeros(2, np.uint64), np.zeros(2, np.uint64), 5)


def test_no_pictures_have_no_pairs():
    assert close_pairs(np.empty(0, np.uint64), np.empty(0, np.uint64)).shape == (0, 2)


def test_many_photos_that_are_nearly_the_same_cost_a_few_pairs_each():
    chance = np.random.default_rng(6)
    levels = chance.permutation(np.arange(1024, dtype=np.uint64))
    hashes = (np.uint64(0x3A5C) << np.uint64(48)) | levels
    pairs = close_pairs(hashes, ~hashes)
    # Over ten bits each is within four bits of 385 others.
    assert 1024 <= len(pairs) < 1024 * 64
    assert len(np.unique(pairs)) == 1024
