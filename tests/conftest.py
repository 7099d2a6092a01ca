"""Fixtures that more than one suite uses."""

from __future__ import annotations

import functools
import io
import itertools
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.encoder import Encoded, preprocess
from lookalike.core.encoders import parse_space
from lookalike.core.pooling import POOLINGS, pool
from lookalike.core.ports import Stores


class Ticking:
    """A clock that moves by one second at every look, so that no two writes share a time."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture(scope="module")
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the graph of the encoder that the module calls ``ENCODER``."""
    from lookalike.modelbuild import ensure_model

    folder: Path = tmp_path_factory.mktemp("models")
    ensure_model(request.module.ENCODER, "fp32", folder)
    return folder


@pytest.fixture
def fresh_stores(clock: Ticking) -> Callable[[], Stores]:
    """Makes sets of empty stores in memory."""
    return functools.partial(memory_stores_of, clock)


@pytest.fixture
def memory_stores(fresh_stores: Callable[[], Stores]) -> Stores:
    return fresh_stores()


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """Draws a small photo that depends on its seed: JPEG bytes of ``size`` pixels."""

    def draw(seed: int = 0, size: tuple[int, int] = (96, 128), kind: str = "JPEG") -> bytes:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    return draw


class ToyEncoder:
    """An encoder without a model: a cell's activations are a random projection of 4 of its pixels.

    Prepares and pools images as its record says; maps are (n, 24, side, side) float32, of both
    signs.
    """

    def __init__(self, space: str) -> None:
        self.space = space
        self.record, self.pooling = parse_space(space)
        self.dim = 24
        self.min_side = 2 * self.record.resize_side
        self.encoded = 0
        side = self.record.map_side
        rng = np.random.default_rng(zlib.crc32(space.encode()))
        self._projection = rng.normal(size=(side, side, 12, self.dim))

    def encode(self, batch: np.ndarray) -> Encoded:
        self.encoded += len(batch)
        side = self.record.map_side
        picked = np.linspace(0, batch.shape[-1] - 1, 2 * side).astype(int)
        pixels = batch[:, :, picked][:, :, :, picked].reshape(len(batch), 3, side, 2, side, 2)
        cells = pixels.transpose(0, 2, 4, 1, 3, 5).reshape(len(batch), side, side, 12)
        maps = np.einsum("nhwp,hwpc->nchw", cells, self._projection).astype(np.float32)
        weights = POOLINGS[self.pooling](maps)
        return Encoded(pool(maps, weights), maps, weights)

    def embed(self, images: list[Image.Image]) -> Encoded:
        return self.encode(preprocess(images, self.record))


@pytest.fixture
def toy_encoder_of() -> Callable[[str], ToyEncoder]:
    """Gives the toy encoder of an embedding space, the same at every call."""
    return functools.cache(ToyEncoder)


@pytest.fixture
def ids() -> Callable[[], str]:
    """Query ids in order, of a ULID's form."""
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):026d}"


def wait_for(probe: Callable[[], Any], within_s: float = 20) -> Any:
    """Ask until the answer is true; the last answer is in the error."""
    deadline = time.monotonic() + within_s
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s} s: {answer!r}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def eventually():
    """Wait until a probe's answer is true, and give it."""
    return wait_for
