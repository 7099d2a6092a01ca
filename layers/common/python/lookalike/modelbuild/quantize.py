"""Static int8 quantization of an encoder's graph (QDQ), with ranges measured on calibration images.

Minimum and maximum were as good as entropy and better than percentiles of 99.99 (docs/encoders.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime.quantization as ort_quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from lookalike.core.encoder import INPUT_NAME, preprocess
from lookalike.core.encoders import EncoderRecord
from lookalike.modelbuild.calibration import calibration_images

if TYPE_CHECKING:
    import onnx

BATCH = 8


class _Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """Feeds preprocessed images in batches."""

    def __init__(self, images: Sequence[Image.Image], record: EncoderRecord) -> None:
        self._batches: Iterator[Any] = (
            {INPUT_NAME: preprocess(images[start : start + BATCH], record)}
            for start in range(0, len(images), BATCH)
        )

    def get_next(self) -> Any:
        return next(self._batches, None)


def quantize(
    model: onnx.ModelProto,
    record: EncoderRecord,
    images: Sequence[Image.Image] | None,
    scratch: Path,
) -> onnx.ModelProto:
    """Quantize weights (a scale per channel) and activations to 8 bits.

    Parameters
    ----------
    model
        The fp32 graph.
    record
        Its encoder, for preprocessing.
    images
        RGB calibration images; None draws the default ones.
    scratch
        Folder for intermediate files.

    Returns
    -------
    onnx.ModelProto
        The graph with QuantizeLinear and DequantizeLinear pairs, which ONNX Runtime fuses.
    """
    import onnx

    source, prepared, target = (scratch / f"{step}.onnx" for step in ("fp32", "prepared", "int8"))
    onnx.save(model, source)
    # Batch norm is folded already, so that only the shapes of the intermediate tensors are wanted.
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    ort_quantization.quantize_static(
        prepared,
        target,
        _Reader(calibration_images() if images is None else images, record),
        quant_format=ort_quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort_quantization.QuantType.QUInt8,
        weight_type=ort_quantization.QuantType.QInt8,
        calibrate_method=ort_quantization.CalibrationMethod.MinMax,
    )
    return onnx.load(target)
