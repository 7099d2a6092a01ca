"""The encoder: preprocessing by definition, embeddings that no batch changes, int8 near fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.encoders import ENCODERS
from lookalike.core.pooling import border_saliency, pool, uniform
from lookalike.modelbuild import build_model
from lookalike.modelbuild.calibration import calibration_images

RECORD = ENCODERS["efficientnet-lite0"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoder-models")


@pytest.fixture(scope="module")
def graph(model_dir: Path) -> Path:
    return build_model(RECORD.name, "fp32", model_dir)


@pytest.fixture(scope="module")
def encoder(graph: Path) -> Encoder:
    return Encoder(graph, RECORD, "border")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return calibration_images(6, seed=11)


def test_preprocessing_by_definition() -> None:
    """Scale the whole image, then cut the centre, then (pixel - mean) / std."""
    image = calibration_images(1, seed=3)[0].resize((512, 256))

    got = preprocess([image], RECORD)

    centre = image.resize((512, 256), Image.Resampling.BICUBIC).crop((144, 16, 368, 240))
    pixels = np.asarray(centre, dtype=np.float32).transpose(2, 0, 1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], (pixels - 127) / 128, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_preprocessing_normalises_each_channel(name: str) -> None:
    record = ENCODERS[name]
    image = Image.new("RGB", (300, 500), (10, 100, 250))

    got = preprocess([image], record)

    size = record.input_size
    expected = (np.array([10, 100, 250]) - record.mean) / record.std
    assert got.shape == (1, 3, size, size)
    np.testing.assert_allclose(got.mean(axis=(0, 2, 3)), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 3), (5, 7)])
def test_extreme_shapes(size: tuple[int, int], encoder: Encoder) -> None:
    encoded = encoder.embed([Image.new("RGB", size, (200, 40, 40))])

    assert np.isfinite(encoded.embeddings).all()
    np.testing.assert_allclose(np.linalg.norm(encoded.embeddings), 1, rtol=1e-5)


def test_shapes_and_facts(encoder: Encoder, images: list[Image.Image]) -> None:
    encoded = encoder.embed(images)

    assert encoded.embeddings.shape == (6, encoder.dim) == (6, 1280)
    assert encoded.maps.shape == (6, 1280, 7, 7)
    assert encoded.weights.shape == (6, 7, 7)
    assert (encoder.space, encoder.min_side) == ("efficientnet-lite0-border-v1", 512)
    assert {encoded.embeddings.dtype, encoded.maps.dtype, encoded.weights.dtype} == {
        np.dtype(np.float32)
    }
    assert 0 <= encoded.maps.min() < encoded.maps.max() <= 6  # ReLU6


def test_embedding_does_not_depend_on_the_batch(
    encoder: Encoder, images: list[Image.Image]
) -> None:
    together = encoder.embed(images).embeddings

    alone = np.concatenate([encoder.embed([image]).embeddings for image in images])

    assert np.array_equal(together, alone)


def test_pooling_is_of_the_returned_map(graph: Path, images: list[Image.Image]) -> None:
    for pooling, weigh in (("border", border_saliency), ("gap", uniform)):
        encoded = Encoder(graph, RECORD, pooling).embed(images)

        assert np.array_equal(encoded.weights, weigh(encoded.maps))
        assert np.array_equal(encoded.embeddings, pool(encoded.maps, encoded.weights))


def test_no_images(encoder: Encoder) -> None:
    encoded = encoder.embed([])

    assert encoded.embeddings.shape == (0, 1280)
    assert encoded.maps.shape == (0, 1280, 7, 7)


def test_a_picture_is_nearer_to_its_own_variant(
    encoder: Encoder, images: list[Image.Image]
) -> None:
    variants = [
        image.rotate(4, fillcolor=image.getpixel((2, 2))).resize((200, 200)) for image in images
    ]

    cosines = encoder.embed(images).embeddings @ encoder.embed(variants).embeddings.T

    assert cosines.argmax(axis=1).tolist() == list(range(len(images)))


def test_int8_is_close_to_fp32(
    encoder: Encoder, model_dir: Path, images: list[Image.Image]
) -> None:
    path = build_model(RECORD.name, "int8", model_dir, calibration=calibration_images(16))

    quantized = Encoder(path, RECORD, "border").embed(images).embeddings

    cosines = (quantized * encoder.embed(images).embeddings).sum(axis=1)
    assert cosines.min() > 0.95
    assert cosines.max() < 1  # it is another graph


def test_calibration_images_are_deterministic_and_varied() -> None:
    first, second = calibration_images(3), calibration_images(3)

    pixels = [np.asarray(image) for image in first]
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(pixels, second, strict=True))
    assert not np.array_equal(pixels[0], pixels[1])
    assert all(array.std() > 5 for array in pixels)
