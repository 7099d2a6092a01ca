"""Runs one encoder: RGB images in, embeddings with their feature maps out.

Owns preprocessing and the ONNX Runtime session; knows nothing of file formats, stores or building.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from lookalike.core.encoders import EncoderRecord, space_id
from lookalike.core.geometry import seen_square
from lookalike.core.pooling import POOLINGS, pool

Array = npt.NDArray[np.float32]

INPUT_NAME = "images"
OUTPUT_NAME = "feature_map"

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder gives for n images.

    ``embeddings`` (n, dim) float32, L2-normalised; ``maps`` (n, C, h, w) float32, the last feature
    map; ``weights`` (n, h, w) float32, the pooling weights, each summing to 1.
    """

    embeddings: Array
    maps: Array
    weights: Array


def preprocess(images: Sequence[Image.Image], record: EncoderRecord) -> Array:
    """Scale, crop and normalise images as the encoder was trained.

    The shorter side is scaled to ``record.resize_side`` and the centre square of
    ``record.input_size`` is kept. Both are one resampling of the square's source box, so that an
    image of extreme proportions costs no more than any other.

    Returns
    -------
    Array
        (n, 3, S, S) float32.
    """
    size = record.input_size
    resampling = _RESAMPLING[record.interpolation]
    scale = np.array([1 / std for std in record.std], dtype=np.float32)[:, None, None]
    shift = np.array(record.mean, dtype=np.float32)[:, None, None] * scale
    batch = np.empty((len(images), 3, size, size), dtype=np.float32)
    for row, image in zip(batch, images, strict=True):
        left, top, side = seen_square(*image.size, record)
        box = (left, top, left + side, top + side)
        pixels = np.asarray(image.resize((size, size), resampling, box=box))
        np.multiply(pixels.transpose(2, 0, 1), scale, out=row)
        row -= shift
    return batch


class Encoder:
    """One ONNX graph in one ONNX Runtime session, with a pooling.

    Parameters
    ----------
    model_path
        ONNX graph made by `lookalike.modelbuild` for ``record``.
    record
        The encoder's record.
    pooling
        ``border`` or ``gap``.
    threads
        Threads of one run.
    """

    def __init__(
        self, model_path: Path, record: EncoderRecord, pooling: str, threads: int = 1
    ) -> None:
        self.record = record
        self.pooling = pooling
        self.space = space_id(record, pooling)
        self.dim = record.dim
        # Photos reduced to twice the side keep a cosine of 0.999; to once the side, of 0.994.
        self.min_side = 2 * record.resize_side
        self._weigh = POOLINGS[pooling]
        self._session = _session(model_path, threads)

    def embed(self, images: Sequence[Image.Image]) -> Encoded:
        """Embed images as one batch.

        Parameters
        ----------
        images
            RGB images, upright, each at least one pixel.
        """
        return self.encode(preprocess(images, self.record))

    def encode(self, batch: Array) -> Encoded:
        """Embed images that `preprocess` has made ready: (n, 3, S, S) float32."""
        maps = self.feature_maps(batch)
        weights = self._weigh(maps)
        return Encoded(pool(maps, weights), maps, weights)

    def feature_maps(self, batch: Array) -> Array:
        """Run the graph alone: (n, 3, S, S) float32 preprocessed → (n, C, h, w) float32."""
        side = self.record.map_side
        maps = np.empty((len(batch), self.dim, side, side), dtype=np.float32)
        # One image a run: its activations stay in the CPU's cache, which is a fifth faster than ten
        # a run (docs/encoders.md), and memory does not grow with the batch.
        for row in range(len(batch)):
            (maps[row : row + 1],) = self._session.run(
                [OUTPUT_NAME], {INPUT_NAME: batch[row : row + 1]}
            )
        return maps


def _session(model_path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads that spin would be billed, and would starve the other worker of a small machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(model_path), sess_options=options, providers=["CPUExecutionProvider"]
    )
