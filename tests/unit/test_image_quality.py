from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from health_shop import drawn
from lookalike.core.image_quality import blur, photo_facts


def test_blurring_a_picture_is_seen():
    picture = drawn(1)
    values = [
        float(photo_facts(picture.filter(ImageFilter.GaussianBlur(radius)), 0)["blur"])
        for radius in (0, 2, 5, 10)
    ]
    assert values == sorted(values) and values[0] < 0.3 and values[3] > 0.5


def test_a_ramp_is_all_blur_and_a_chequerboard_none():
    ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    # Averaging nine of two levels that take turns leaves a ninth of what they differ by.
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.float32)
    assert blur(ramp) == pytest.approx(1) and blur(board) == pytest.approx(1 / 9)
    assert blur(np.full((64, 64), 7, np.float32)) == 1 and blur(np.ones((5, 5), np.float32)) == 0


def test_brightness_is_of_the_brighter_half():
    half = Image.new("L", (100, 100), 10)
    half.paste(200, (0, 0, 100, 50))
    facts = photo_facts(half, 7)
    assert facts["brightness"] == pytest.approx(200) and facts["contrast"] == pytest.approx(95)
    assert facts["photo"] == 7 and facts["aspect"] == 1
    assert (facts["signature"][:8] == 200).all() and (facts["signature"][8:] == 10).all()


def test_any_shape_has_facts():
    for size in ((1, 1), (256, 1), (1, 256)):
        facts = photo_facts(Image.new("RGB", size, "white"), 1)
        assert facts["aspect"] == pytest.approx(size[0] / size[1]) and np.isfinite(facts["blur"])
