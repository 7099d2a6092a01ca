"""Overlays lie where the cells are, keep the photo where the map is weak, and encode losslessly."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lookalike.core.encoders import encoder_record
from lookalike.core.explanation import Difference, Explanation, Match, Side
from lookalike.core.geometry import seen_square
from lookalike.core.images import ImageLimits, decode
from lookalike.core.overlay import encode_picture, render_overlay
from lookalike.core.pair_picture import MAX_HEIGHT, MAX_WIDTH, render_pair

LITE2 = encoder_record("efficientnet-lite2")
GREY = (120, 120, 120)


def photo(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def one_cell(row: int, column: int, value: float = 1.0, side: int = 9) -> np.ndarray:
    heat = np.zeros((side, side))
    heat[row, column] = value
    return heat


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """(h, w): the largest change of any channel."""
    difference = np.asarray(after).astype(int) - np.asarray(before).astype(int)
    return np.abs(difference).max(axis=2)


@pytest.mark.parametrize("size", [(400, 533), (533, 400), (500, 500), (2000, 300)])
def test_a_strong_cell_colours_its_pixels(size):
    image = photo(*size)
    left, top, side = square = seen_square(*size, LITE2)
    for row, column in ((0, 0), (3, 7), (8, 4)):
        after = render_overlay(image, square, one_cell(row, column), kind="gradcam")
        x, y = left + (column + 0.5) * side / 9, top + (row + 0.5) * side / 9
        assert after.size == size
        inside = changed(image, after)[
            round(top) + 3 : round(top + side) - 3, round(left) + 3 : round(left + side) - 3
        ]
        weights = inside / inside.sum()
        centre = (
            (weights.sum(axis=1) * np.arange(inside.shape[0])).sum() + round(top) + 3.5,
            (weights.sum(axis=0) * np.arange(inside.shape[1])).sum() + round(left) + 3.5,
        )
        if 0 < row < 8 and 0 < column < 8:
            assert np.allclose(centre, (y, x), atol=max(1.0, side / 90))
        assert after.getpixel((int(x), int(y))) != GREY


def test_a_photo_that_was_taken_sideways():
    # Stored with its top to the left; what is shown is the top, in red.
    upright = Image.new("RGB", (300, 400), "white")
    upright.paste((200, 0, 0), (0, 0, 300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to see it upright
    stored = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(stored, "PNG", exif=exif)
    image = decode(stored.getvalue(), ImageLimits(10**6, 10**6)).image
    assert image.size == (300, 400)
    square = seen_square(*image.size, LITE2)
    after = render_overlay(image, square, one_cell(1, 4), kind="gradcam")
    places = changed(image, after)[80:320, 30:270]
    assert places[:120].sum() > 5 * places[120:].sum()
    plain = after.getpixel((150, 300))
    assert plain == (255, 255, 255) and after.getpixel((60, 180)) == (200, 0, 0)


@pytest.mark.parametrize("kind", ["gradcam", "contributions", "pulls"])
def test_a_map_of_zeros_leaves_the_photo_as_it_is_inside(kind):
    image = photo(400, 400)
    after = render_overlay(image, (25.0, 25.0, 350.0), np.zeros((9, 9)), kind=kind)
    assert changed(image, after)[27:373, 27:373].max() == 0


def test_around_the_square_the_photo_is_veiled_and_a_line_divides():
    image = Image.new("RGB", (400, 600), "white")
    after = render_overlay(image, (25.0, 125.0, 350.0), np.zeros((9, 9)), kind="gradcam")
    assert after.getpixel((5, 5)) == (219, 219, 219)
    assert after.getpixel((200, 300)) == (255, 255, 255)
    assert max(after.getpixel((200, 124))) < 100  # seen on white
    black = render_overlay(
        Image.new("RGB", (400, 600)), (25.0, 125.0, 350.0), np.zeros((9, 9)), kind="gradcam"
    )
    assert black.getpixel((200, 125)) == (255, 255, 255)  # seen on black


def test_above_zero_is_orange_below_is_blue_and_neither_has_a_halo_of_the_other():
    image = photo(450, 450)
    square = (0.0, 0.0, 450.0)
    for value, warm in ((2.0, True), (-0.001, False)):  # only their proportions count
        after = render_overlay(image, square, one_cell(4, 4, value), kind="pulls")
        inner = np.asarray(after).astype(int)[3:-3, 3:-3]
        warmth = inner[..., 0] - inner[..., 2]
        assert (warmth.max() > 80) == warm and (warmth.min() < -80) == (not warm)
        assert warmth.min() >= -2 if warm else warmth.max() <= 2


def test_stronger_is_less_transparent():
    image = photo(900, 100)
    heat = np.linspace(0, 1, 9)[None, :]
    after = render_overlay(image, (0.0, -400.0, 900.0), heat.repeat(9, axis=0), kind="pulls")
    row = changed(image, after)[50, 60:840:100]
    assert (np.diff(row) >= 0).all() and row[-1] > row[0]


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 50), (7, 7)])
@pytest.mark.parametrize("kind", ["gradcam", "pulls"])
def test_the_smallest_photos(size, kind):
    after = render_overlay(photo(*size), seen_square(*size, LITE2), one_cell(4, 4), kind=kind)
    assert after.size == size


def test_bands_leave_no_seam():
    # 700 rows are three bands; down a column of a constant map every row is the same.
    image = photo(700, 700)
    after = np.asarray(render_overlay(image, (0.0, 0.0, 700.0), np.ones((9, 9)), kind="gradcam"))
    assert (after[5:-5, 5:-5] == after[300, 300]).all()


def test_numpy_takes_no_copy_of_a_large_photo():
    image = photo(3000, 2000)
    heat = np.random.default_rng(1).normal(size=(9, 9))
    tracemalloc.start()
    render_overlay(image, seen_square(3000, 2000, LITE2), heat, kind="pulls")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_pictures_are_files_of_their_format():
    image = Image.effect_noise((80, 60), 50).convert("RGB")
    with Image.open(io.BytesIO(encode_picture(image, "png"))) as read:
        assert read.format == "PNG" and np.array_equal(np.asarray(read), np.asarray(image))
    with Image.open(io.BytesIO(encode_picture(image, "webp"))) as read:
        assert read.format == "WEBP" and read.size == (80, 60)


def side(heat: np.ndarray) -> Side:
    flat = np.zeros(heat.shape)
    return Side(heat.shape, flat, heat, flat, heat > 0.5, 0.9, 0.0)


def explained(parts: int = 1, share: float | None = 0.31) -> Explanation:
    first = 9 * (parts - 1)
    return Explanation(
        0.776,
        tuple(side(np.zeros((9, 9))) for _ in range(parts)),
        side(np.zeros((9, 9))),
        (
            Match(share, 0.2, parts - 1, ((first + 2, 2), (first + 2, 3)), ((6, 6), (6, 7))),
            Match(0.2, 0.15, parts - 1, ((first + 2, 2), (first + 2, 3)), ((1, 1),)),
        ),
        (Difference("query", ((first + 7, 7),), -0.1), Difference("result", ((4, 0),), -0.1)),
        None if share is None else 0.9,
        None if share is None else 0.8,
        None if share is None else 0.05,
    )


def pair(query: tuple[int, int], result: tuple[int, int], **given: float | None) -> Image.Image:
    return render_pair(
        photo(*query),
        seen_square(*query, LITE2),
        photo(*result),
        seen_square(*result, LITE2),
        explained(**given),
        0,
    )


@pytest.mark.parametrize(
    ("query", "result"),
    [
        ((400, 533), (400, 533)),
        ((30, 40), (3000, 200)),
        ((4000, 300), (600, 900)),
        ((1, 1), (9, 1)),
        ((1, 3000), (20000, 3)),
        ((2, 9000), (3000, 1)),
    ],
)
def test_a_pair_is_bounded_whatever_its_photos(query, result):
    drawn = pair(query, result)
    assert drawn.width <= 2 * MAX_WIDTH + 100 and drawn.height <= MAX_HEIGHT + 300
    assert drawn.getpixel((2, 2)) == (255, 255, 255)


def test_matching_parts_have_one_colour_on_both_sides_and_differences_are_hatched():
    drawn = np.asarray(pair((640, 640), (640, 640)))

    # Panels of 640 begin at (32, 62) and (696, 62); their squares 40 inside, cells of 62.2.
    def cell(left: int, row: int, column: int) -> np.ndarray:
        y, x = 62 + 40 + row * 560 / 9, left + 40 + column * 560 / 9
        return drawn[round(y) : round(y + 62), round(x) : round(x + 62)].reshape(-1, 3)

    def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
        return bool((np.abs(pixels.astype(int) - colour).max(axis=1) < 12).sum() > 60)

    orange, blue = (213, 94, 0), (0, 114, 178)
    assert has(cell(32, 2, 2), orange) and has(cell(696, 6, 6), orange)
    assert has(cell(696, 1, 1), blue)
    # The query's region belongs to both matches: outlined once, numbered twice.
    assert has(np.concatenate([cell(32, 2, 2), cell(32, 2, 3)]), blue)
    assert not has(cell(32, 6, 6), orange) and not has(cell(32, 1, 1), blue)
    for left, row, column in ((32, 7, 7), (696, 4, 0)):
        hatched = cell(left, row, column)
        assert hatched.max() > 180 and hatched.min() < 90
    assert np.ptp(cell(32, 5, 5)) == 0


def test_a_part_of_several_is_shown_by_its_own_rows():
    square = seen_square(400, 400, LITE2)
    arguments = (photo(400, 400), square, photo(400, 400), square)
    alone = render_pair(*arguments, explained(), 0)
    second = render_pair(*arguments, explained(parts=2), 1)
    assert np.array_equal(np.asarray(alone), np.asarray(second))
    other = render_pair(*arguments, explained(parts=2), 0)
    assert not np.array_equal(np.asarray(alone), np.asarray(other))


def test_a_doubtful_map_is_called_so_below_the_photos():
    square = seen_square(400, 400, LITE2)
    arguments = (photo(400, 400), square, photo(400, 400), square, explained(), 0)
    plain, doubtful = (
        np.asarray(render_pair(*arguments, doubtful=doubtful)) for doubtful in (False, True)
    )
    assert plain.shape == doubtful.shape
    changed = np.flatnonzero((plain != doubtful).any(axis=(1, 2)))
    assert len(changed) and changed.min() > 400


def test_a_score_of_zero_has_no_shares():
    assert pair((400, 400), (400, 400), share=None).width > 800
