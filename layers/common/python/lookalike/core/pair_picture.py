"""Draws an explanation as one picture: query and result side by side, matching parts numbered.

Owns what that picture looks like. Its type is Pillow's own, so no font need be installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from lookalike.core.colour_maps import SEQUENTIAL
from lookalike.core.explanation import Explanation, Match
from lookalike.core.overlay import Square, render_overlay

Colour = tuple[int, int, int]
CellList = tuple[tuple[int, int], ...]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MIN_HEIGHT, MAX_HEIGHT, MAX_WIDTH = 400, 640, 800
MOST_MATCHES, MOST_DIFFERENCES = 3, 2

# From M. Okabe and K. Ito's palette for all kinds of colour vision; white figures are read on them.
_MATCH_COLOURS: tuple[Colour, ...] = ((213, 94, 0), (0, 114, 178), (204, 121, 167))
_INK, _QUIET, _PAPER = (32, 40, 44), (98, 108, 114), (255, 255, 255)
_MARGIN, _GAP = 32, 24
_LINE, _CASING = 4.0, 8.0  # widths in pixels
_ROUNDING = 0.09  # of a cell's side
_HATCH = 13


def render_pair(
    query: Image.Image,
    query_square: Square,
    result: Image.Image,
    result_square: Square,
    explanation: Explanation,
    part: int,
    *,
    doubtful: bool = False,
) -> Image.Image:
    """Query and result at one height with their Grad-CAM overlays and the figures below.

    Parts that match have one number and colour on both sides; what pulls the score down is hatched.

    Parameters
    ----------
    query, result
        RGB, upright.
    query_square, result_square
        (left, top, side) that the network saw, in pixels of each.
    explanation
        Of this pair.
    part
        Which of the query's images ``query`` is.
    doubtful
        Grad-CAM is no better than chance here, and the picture says so.

    Returns
    -------
    Image.Image
        RGB; the photos are at most 800 by 640 pixels each.
    """
    side = explanation.query[part]
    first_row = part * side.grid[0]
    matches = [
        match
        for match in explanation.matches
        if match.query_part == part and match.contribution > 0
    ][:MOST_MATCHES]
    height = min(max(query.height, result.height, MIN_HEIGHT), MAX_HEIGHT)
    rows = range(first_row, first_row + side.grid[0])
    of_query = [
        _moved(item.cells, first_row)
        for item in explanation.differs
        if item.side == "query" and item.cells[0][0] in rows
    ]
    of_result = [item.cells for item in explanation.differs if item.side == "result"]
    left = [_moved(match.query_cells, first_row) for match in matches]
    right = [match.result_cells for match in matches]
    panels = (
        _panel(query, query_square, height, side.gradcam, left, of_query[:MOST_DIFFERENCES]),
        _panel(
            result,
            result_square,
            height,
            explanation.result.gradcam,
            right,
            of_result[:MOST_DIFFERENCES],
        ),
    )
    key = "Grad-CAM, no better than chance" if doubtful else "Grad-CAM, weak to strong"
    return _composed(panels, height, explanation, matches, key)


def _moved(cells: CellList, first_row: int) -> CellList:
    return tuple((row - first_row, column) for row, column in cells)


def _panel(
    photo: Image.Image,
    square: Square,
    height: int,
    heat: npt.NDArray[np.float64],
    matched: Sequence[CellList],
    different: Sequence[CellList],
) -> Image.Image:
    """One side: the photo with its overlay, numbered outlines and hatching."""
    scale = min(height / photo.height, MAX_WIDTH / photo.width)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    image = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    left, top, side = (value * scale for value in square)
    panel = render_overlay(image, (left, top, side), heat, kind="gradcam")
    grid = (heat.shape[0], heat.shape[1])
    masks = {
        cells: _region(size, (left, top, side), grid, cells) for cells in (*matched, *different)
    }
    for cells in different:
        _hatch(panel, masks[cells])
    numbers: dict[CellList, list[int]] = {}
    for number, cells in enumerate(matched):
        numbers.setdefault(cells, []).append(number)
    for cells, which in numbers.items():
        cell_side = side / max(grid)
        for colour, width in ((_PAPER, _CASING), (_MATCH_COLOURS[which[0]], _LINE)):
            panel.paste(colour, mask=_outline(masks[cells], cell_side, width))
    for cells, which in numbers.items():
        _badges(panel, (left, top, side), grid, cells, which)
    return panel


def _region(
    size: tuple[int, int], square: Square, grid: tuple[int, int], cells: CellList
) -> Image.Image:
    """A mask of the pixels of some cells."""
    left, top, side = square
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    tall, wide = side / grid[0], side / grid[1]
    for row, column in cells:
        x, y = left + column * wide, top + row * tall
        x0, y0 = round(x), round(y)
        # Of a very narrow photo a cell may have less than a pixel.
        x1, y1 = max(round(x + wide) - 1, x0), max(round(y + tall) - 1, y0)
        draw.rectangle((x0, y0, x1, y1), fill=255)
    return mask


def _outline(mask: Image.Image, cell_side: float, width: float) -> Image.Image:
    """An even line with round corners just inside a region.

    Across the edge of a blurred mask the level says how far away the edge is.
    """
    radius = max(cell_side * _ROUNDING, 4.0)
    blurred = mask.filter(ImageFilter.GaussianBlur(radius))
    centre = _CASING / 2
    away = np.abs(_inside() * radius - centre)
    table = np.rint(np.clip(width / 2 + 0.5 - away, 0.0, 1.0) * 255)
    return blurred.point(table.astype(int).tolist())


@lru_cache(maxsize=1)
def _inside() -> npt.NDArray[np.float64]:
    """How far inside the edge each level is, in standard deviations of the blur, at most 3."""
    distances = np.linspace(-3.0, 3.0, 601)
    levels = [(1 + math.erf(distance / math.sqrt(2))) / 2 for distance in distances]
    return np.interp(np.arange(256) / 255, levels, distances)


def _hatch(panel: Image.Image, mask: Image.Image) -> None:
    """Thin diagonal lines, light beside dark, so that they are seen on any photo."""
    columns, rows = np.arange(panel.width), np.arange(panel.height)
    phase = (columns[None, :] + rows[:, None]) % _HATCH
    for colour, first in ((_PAPER, 0), (_INK, 2)):
        chosen = (phase >= first) & (phase < first + 2)
        lines = Image.fromarray(np.where(chosen, 150, 0).astype(np.uint8))
        panel.paste(colour, mask=ImageChops.darker(lines, mask))


def _badges(
    panel: Image.Image,
    square: Square,
    grid: tuple[int, int],
    cells: CellList,
    numbers: Sequence[int],
) -> None:
    """The numbers of a region, side by side on the cell that is nearest to its middle."""
    left, top, side = square
    places = np.asarray(cells, dtype=np.float64)
    middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()] + 0.5
    size = 30
    x = left + middle[1] * side / grid[1] - size * len(numbers) / 2
    y = top + middle[0] * side / grid[0] - size / 2
    for place, number in enumerate(numbers):
        badge = _badge(number, size)
        panel.paste(badge.convert("RGB"), (round(x) + place * size, round(y)), badge.getchannel(3))


@lru_cache(maxsize=32)
def _badge(number: int, size: int) -> Image.Image:
    """A disc with a number, RGBA."""
    large = 4 * size
    disc = Image.new("RGBA", (large, large), (*_PAPER, 0))
    draw = ImageDraw.Draw(disc)
    draw.ellipse((0, 0, large - 1, large - 1), fill=_PAPER)
    draw.ellipse((6, 6, large - 7, large - 7), fill=_MATCH_COLOURS[number])
    middle = large / 2
    text = str(number + 1)
    draw.text((middle, middle), text, fill=_PAPER, font=_font(large * 0.62), anchor="mm")
    return disc.reduce(4)


@lru_cache(maxsize=16)
def _font(size: float) -> Font:
    return ImageFont.load_default(size)


def _composed(
    panels: Sequence[Image.Image],
    height: int,
    explanation: Explanation,
    matches: Sequence[Match],
    key: str,
) -> Image.Image:
    """The panels under their names, the figures below."""
    across = sum(panel.width for panel in panels) + _GAP
    legend = _legend(max(across, 560), explanation, matches, key)
    top = _MARGIN + 30
    picture = Image.new(
        "RGB",
        (max(across, 560) + 2 * _MARGIN, top + height + _GAP + legend.height + _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(picture)
    x = _MARGIN
    for name, panel in zip(("Query", "Result"), panels, strict=True):
        draw.text((x, top - 12), name, fill=_QUIET, font=_font(18), anchor="ls")
        picture.paste(panel, (x, top + (height - panel.height) // 2))
        x += panel.width + _GAP
    picture.paste(legend, (_MARGIN, top + height + _GAP))
    return picture


def _legend(
    width: int, explanation: Explanation, matches: Sequence[Match], key: str
) -> Image.Image:
    """The score and what it comes from, then the key to the marks, broken to the width."""
    draft = Image.new("RGB", (width, 600), _PAPER)
    draw = ImageDraw.Draw(draft)
    score = f"{explanation.score:.3f}"
    draw.text((0, 34), score, fill=_INK, font=_font(40), anchor="ls")
    after = _font(40).getlength(score) + 14
    draw.text((after, 16), "cosine of query and result", fill=_QUIET, font=_font(16), anchor="ls")
    draw.text((after, 36), _origin(explanation), fill=_INK, font=_font(16), anchor="ls")
    items = [(_badge(number, 26), _share_text(match)) for number, match in enumerate(matches)]
    items.append((_ramp(), key))
    if explanation.differs:
        items.append((_swatch(), "pulls the score down"))
    x, y = 0, 62
    for mark, words in items:
        taken = mark.width + 10 + round(_font(18).getlength(words))
        if x and x + taken > width:
            x, y = 0, y + 40
        draft.paste(mark.convert("RGB"), (x, y), mark.getchannel(3))
        draw.text((x + mark.width + 10, y + 13), words, fill=_INK, font=_font(18), anchor="lm")
        x += taken + 28
    return draft.crop((0, 0, width, y + 28))


def _origin(explanation: Explanation) -> str:
    front, back = explanation.foreground_share, explanation.background_share
    if front is None or back is None:
        return "foreground and background cannot be told apart"
    return f"{_percent(front)} foreground to foreground, {_percent(back)} background to background"


def _share_text(match: Match) -> str:
    return "of the score" if match.share is None else f"{_percent(match.share)} of the score"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _ramp() -> Image.Image:
    """Grad-CAM's colours from weak to strong."""
    colours = np.repeat(SEQUENTIAL[None, 40::2], 14, axis=0)
    ramp = Image.new("RGBA", (colours.shape[1], 26))
    ramp.paste(Image.fromarray(colours), (0, 6))
    return ramp


def _swatch() -> Image.Image:
    swatch = Image.new("RGB", (40, 26), (186, 192, 196))
    _hatch(swatch, Image.new("L", swatch.size, 255))
    return swatch.convert("RGBA")
