from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from health_shop import drawn
from lookalike.core.health_crops import MIN_COARSE, MIN_MATCH, CropSearch, match
from lookalike.core.image_quality import photo_facts


def compared(whole: Image.Image, part: Image.Image) -> tuple[float, float, bool]:
    """(coarse, fine, mirrored) of a pair, as the service compares thumbnails."""
    for image in (whole, part):
        image.thumbnail((256, 256))
    facts = np.asarray([photo_facts(whole, 0), photo_facts(part, 1)])
    search = CropSearch(facts["signature"], facts["aspect"])
    (window,) = search.find(0, np.asarray([1]))
    if window is None:
        return -1.0, -1.0, False
    return window.correlation, match(whole, part, window), window.mirrored


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_is_found_in_its_whole(seed: int, mirrored: bool):
    x, y = np.random.default_rng(seed).integers(0, 100, 2).tolist()
    part = drawn(seed).crop((x, y, x + 300, y + 375))
    if mirrored:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    coarse, fine, is_mirrored = compared(drawn(seed), part)
    assert coarse >= MIN_COARSE and fine >= MIN_MATCH and is_mirrored is mirrored


def test_a_square_part_of_an_upright_photo_is_found():
    assert compared(drawn(3), drawn(3).crop((50, 60, 370, 380)))[1] >= MIN_MATCH


@pytest.mark.parametrize("seed", range(6))
def test_another_photo_is_not_taken_for_a_part(seed: int):
    coarse, fine, _ = compared(drawn(seed), drawn(seed + 50))
    assert coarse < MIN_COARSE and fine < 0.6


def test_the_same_shape_in_another_colour_is_another_photo():
    red, green, blue = drawn(2).split()
    assert compared(drawn(2), drawn(2))[1] > 0.99
    inverted = Image.merge("RGB", [c.point(lambda v: 255 - v) for c in (red, green, blue)])
    assert compared(drawn(2), inverted)[1] < MIN_MATCH


def test_a_part_of_another_shape_than_any_window_has_no_place():
    assert compared(drawn(1), drawn(1).crop((0, 0, 400, 60)))[0] == -1


def test_flat_pictures_match_nothing():
    flat = Image.new("RGB", (200, 200), "white")
    assert compared(flat, flat.copy())[1] == 0
