"""Pooling: weights that sum to one, border saliency by hand, embeddings of unit length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lookalike.core.pooling import (
    FLOOR,
    POOLINGS,
    UNSURE_CONTRAST,
    border_contrast,
    border_saliency,
    pool,
    uniform,
)

MAPS = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(0, 6, width=32),
)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@given(maps=MAPS)
def test_weights_sum_to_one_and_are_positive(name: str, maps: np.ndarray) -> None:
    weights = POOLINGS[name](maps)

    assert weights.dtype == np.float32
    assert weights.shape == (maps.shape[0], *maps.shape[2:])
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@given(maps=MAPS)
def test_embeddings_have_unit_length(name: str, maps: np.ndarray) -> None:
    embeddings = pool(maps, POOLINGS[name](maps))

    alive = maps.any(axis=(1, 2, 3))
    assert embeddings.dtype == np.float32
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    tiny = maps.max(axis=(1, 2, 3)) < 1e-6
    np.testing.assert_allclose(lengths[alive & ~tiny], 1.0, rtol=1e-4)
    assert not embeddings[~alive].any()


def test_border_saliency_by_hand() -> None:
    """Border cells all (1, 0); the middle is at right angles to them: d = 1 there, 0 elsewhere."""
    maps = np.zeros((1, 2, 3, 3), dtype=np.float32)
    maps[0, 0] = 1
    maps[0, :, 1, 1] = [0, 2]

    weights = border_saliency(maps)[0]

    total = 8 * FLOOR + (1 + FLOOR)
    expected = np.full((3, 3), FLOOR / total)
    expected[1, 1] = (1 + FLOOR) / total
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_border_saliency_scales_between_the_extremes() -> None:
    """Cells at 0°, 90° and 60° from the border: d = 0, 1 and 1 - cos 60° = 0.5."""
    maps = np.zeros((1, 2, 4, 3), dtype=np.float32)
    maps[0, 0] = 1
    maps[0, :, 1, 1] = [0, 5]
    maps[0, :, 2, 1] = [0.5, np.sqrt(0.75)]

    weights = border_saliency(maps)[0]

    ratio = (weights[2, 1] - weights[0, 0]) / (weights[1, 1] - weights[0, 0])
    assert ratio == pytest.approx(0.5, abs=1e-5)


def test_border_saliency_does_not_see_brightness() -> None:
    maps = np.random.default_rng(1).random((2, 4, 5, 5)).astype(np.float32)

    np.testing.assert_allclose(border_saliency(maps * 7), border_saliency(maps), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_map_without_contrast_gets_uniform_weights(value: float) -> None:
    maps = np.full((1, 4, 3, 5), value, dtype=np.float32)

    np.testing.assert_allclose(border_saliency(maps), uniform(maps), rtol=1e-6)


def test_uniform_pooling_is_the_normalised_average() -> None:
    maps = np.random.default_rng(2).random((3, 7, 4, 4)).astype(np.float32)

    means = maps.mean(axis=(2, 3))
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)

    np.testing.assert_allclose(pool(maps, uniform(maps)), expected, rtol=1e-5)


def test_batch_equals_one_by_one() -> None:
    maps = np.random.default_rng(3).random((4, 6, 5, 5)).astype(np.float32)

    alone = np.concatenate([border_saliency(maps[i : i + 1]) for i in range(4)])

    np.testing.assert_allclose(border_saliency(maps), alone, rtol=1e-5)


def test_no_images_give_no_rows() -> None:
    maps = np.empty((0, 6, 5, 5), dtype=np.float32)

    assert pool(maps, border_saliency(maps)).shape == (0, 6)


def test_border_contrast_by_hand() -> None:
    """The ring (1, 0) around cells that sum to (1, √3): at 60°, 1 - cos 60° = 0.5."""
    maps = np.zeros((1, 2, 4, 4), dtype=np.float32)
    maps[0, 0] = 1
    maps[0, :, 1:3, 1:3] = 0
    maps[0, 0, 1, 1] = 1
    maps[0, 1, 2, 2] = np.sqrt(3)

    np.testing.assert_allclose(border_contrast(maps), [0.5], rtol=1e-6)


def test_a_product_that_fills_the_image_has_no_border_contrast() -> None:
    generator = np.random.default_rng(0)
    everywhere = generator.uniform(0.9, 1.1, (1, 8, 9, 9)).astype(np.float32)
    in_the_middle = everywhere.copy()
    in_the_middle[:, :6, 1:8, 1:8] = 0

    filled, framed = border_contrast(np.concatenate([everywhere, in_the_middle]))

    assert filled < 0.01
    assert framed > UNSURE_CONTRAST


@given(maps=MAPS)
def test_border_contrast_is_between_0_and_1(maps: np.ndarray) -> None:
    contrast = border_contrast(maps)

    assert contrast.dtype == np.float32
    assert contrast.shape == (len(maps),)
    assert (contrast >= -1e-6).all() and (contrast <= 1 + 1e-6).all()
    if min(maps.shape[2:]) <= 2:
        assert not contrast.any()
