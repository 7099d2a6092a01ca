"""The encoder records and the names of embedding spaces."""

from __future__ import annotations

import dataclasses

import pytest

from lookalike.core.encoders import (
    DEFAULT_ENCODER,
    ENCODERS,
    check_precision,
    encoder_record,
    parse_space,
    space_id,
)
from lookalike.core.errors import InvalidRequest


def test_default_is_lite2() -> None:
    assert encoder_record(DEFAULT_ENCODER) is ENCODERS["efficientnet-lite2"]


@pytest.mark.parametrize(
    ("name", "size", "resize", "side", "dim"),
    [
        ("efficientnet-lite0", 224, 256, 7, 1280),
        ("efficientnet-lite1", 240, 274, 8, 1280),
        ("efficientnet-lite2", 260, 297, 9, 1280),
        ("resnet50", 224, 232, 7, 2048),
    ],
)
def test_published_facts(name: str, size: int, resize: int, side: int, dim: int) -> None:
    record = encoder_record(name)

    assert (record.input_size, record.resize_side) == (size, resize)
    assert (record.map_side, record.dim) == (side, dim)


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder_record("resnet50").dim = 3  # type: ignore[misc]


def test_unknown_encoder_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        encoder_record("clip")

    assert all(name in caught.value.detail for name in ENCODERS)
    assert caught.value.parameter == "encoder"


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("pooling", ["border", "gap"])
def test_space_round_trips(name: str, pooling: str) -> None:
    assert parse_space(space_id(encoder_record(name), pooling)) == (ENCODERS[name], pooling)


def test_space_is_readable() -> None:
    assert (
        space_id(encoder_record("efficientnet-lite2"), "border") == "efficientnet-lite2-border-v1"
    )


@pytest.mark.parametrize(
    "space", ["", "efficientnet-lite2", "efficientnet-lite2-border-v2", "clip-gap-v1", "a-max-v1"]
)
def test_foreign_space_is_refused(space: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_space(space)


def test_unknown_pooling_and_precision_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="border or gap"):
        space_id(encoder_record("resnet50"), "max")
    with pytest.raises(InvalidRequest, match="fp32, int8"):
        check_precision("fp16")
