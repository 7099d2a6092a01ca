"""A z-buffered scanline rasteriser in numpy, and the camera that feeds it.

All spans of all triangles are expanded at once, so the cost follows the pixels drawn and not the
number of triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.sample.mesh import Ints, unit
from data.sample.texture import Floats

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: ``axes`` are right, up and forward; other lengths are in image sides."""

    eye: Floats
    axes: Floats
    focal: float
    centre: tuple[float, float]

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Points (n, 3) to image positions (2, n) in 0..1 (y down) and depths (n,)."""
        x, y, depth = self.axes @ (points - self.eye).T
        column = self.centre[0] + self.focal * x / depth
        row = self.centre[1] - self.focal * y / depth
        return np.stack([column, row]), depth

    def rays(self, column: Floats, row: Floats) -> tuple[Floats, Floats, Floats]:
        """Directions (x, y and z apart) through image positions; depth 1 along the view axis."""
        a = (column - self.centre[0]) / self.focal
        b = (self.centre[1] - row) / self.focal
        right, up, forward = self.axes
        x, y, z = (right[i] * a + up[i] * b + forward[i] for i in range(3))
        return x, y, z


def look(
    points: Floats,
    azimuth: float,
    elevation: float,
    *,
    fill: float = 0.72,
    field_deg: float = 28.0,
    roll: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Camera:
    """A camera that sees all points in ``fill`` of the image, centred but for ``shift``.

    Azimuth 0 looks at the front (from -y), 90 from +x; angles in degrees.
    """
    az, el, ro = np.radians([azimuth, elevation, roll])
    forward = -np.array([np.sin(az) * np.cos(el), -np.cos(az) * np.cos(el), np.sin(el)])
    right = np.array([np.cos(az), np.sin(az), 0.0])
    up = np.cross(right, forward)
    right, up = right * np.cos(ro) + up * np.sin(ro), up * np.cos(ro) - right * np.sin(ro)
    axes = np.stack([right, up, forward]).astype(np.float32)
    target = (points.min(axis=0) + points.max(axis=0)) / 2
    focal = 0.5 / float(np.tan(np.radians(field_deg) / 2))
    distance = 4.0
    for _ in range(3):
        eye = (target - axes[2] * distance).astype(np.float32)
        place, _ = Camera(eye, axes, focal, (0.0, 0.0)).project(points)
        low, high = place.min(axis=1), place.max(axis=1)
        distance *= float((high - low).max()) / fill
    middle = (low + high) / 2
    return Camera(
        eye, axes, focal, (0.5 - float(middle[0]) + shift[0], 0.5 - float(middle[1]) + shift[1])
    )


@dataclass(frozen=True)
class Fragments:
    """The visible pixels: flat index, triangle, weights of its 2nd and 3rd corner, depth."""

    pixel: Ints
    triangle: Ints
    second: Floats
    third: Floats
    depth: Floats


def rasterise(
    place: Floats, depth: Floats, faces: Ints, two_sided: npt.NDArray[np.bool_], side: int
) -> Fragments:
    """Visible fragments of triangles on a square image of ``side`` pixels.

    ``place`` (2, n) is in 0..1 and ``depth`` (n,) positive; single-sided triangles must be
    counter-clockwise as seen to be drawn.
    """
    x = (place[0] * side)[faces].T.astype(np.float64)
    y = (place[1] * side)[faces].T.astype(np.float64)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    keep = np.flatnonzero((np.abs(area) > 1e-9) & ((area < 0) | two_sided))
    x, y, area = x[:, keep], y[:, keep], area[keep]
    first = np.clip(np.ceil(y.min(axis=0) - 0.5), 0, side).astype(np.int64)
    end = np.clip(np.floor(y.max(axis=0) - 0.5) + 1, 0, side).astype(np.int64)
    which, row = _expand(first, end)
    centre = row + 0.5
    sign = np.sign(area)
    low = np.full(len(which), -0.5)
    high = np.full(len(which), side - 0.5)
    for i, j in ((1, 2), (2, 0), (0, 1)):
        # Inside this edge: slope * x >= bound, with x at pixel centres.
        slope = -(y[j] - y[i]) * sign
        offset = (y[j] - y[i]) * x[i] * sign
        run = (x[j] - x[i]) * sign
        s = slope[which]
        at = -(offset[which] + run[which] * (centre - y[i][which]))
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = at / s
        low = np.where(s > 0, np.maximum(low, bound), low)
        high = np.where(s < 0, np.minimum(high, bound), high)
    left = np.clip(np.ceil(low - 0.5), 0, side).astype(np.int64)
    right = np.clip(np.floor(high - 0.5) + 1, 0, side).astype(np.int64)
    inverse = (1 / depth.astype(np.float64))[faces[keep]].T
    # Each weight is a plane over the image: gradient x, gradient y, constant.
    planes = np.empty((6, len(keep)))
    for k, (i, j) in enumerate(((2, 0), (0, 1))):
        planes[3 * k] = -(y[j] - y[i]) / area
        planes[3 * k + 1] = (x[j] - x[i]) / area
        planes[3 * k + 2] = ((y[j] - y[i]) * x[i] - (x[j] - x[i]) * y[i]) / area
    # So is the inverse depth, which decides what is in front.
    rise, fall, level = (
        planes[k] * (inverse[1] - inverse[0]) + planes[3 + k] * (inverse[2] - inverse[0])
        for k in range(3)
    )
    begin = fall[which] * centre + (level + inverse[0])[which]
    pixel, owner, near = _nearest(left, right, row, which, begin, rise[which], side)
    px, py = (pixel % side + 0.5).astype(np.float32), (pixel // side + 0.5).astype(np.float32)
    weights = planes.T.astype(np.float32)[owner]
    second = weights[:, 0] * px + weights[:, 1] * py + weights[:, 2]
    third = weights[:, 3] * px + weights[:, 4] * py + weights[:, 5]
    w = 1 / near
    corner = inverse.T.astype(np.float32)[owner]
    return Fragments(pixel, keep[owner], second * corner[:, 1] * w, third * corner[:, 2] * w, w)


def _nearest(
    left: Ints, right: Ints, row: Ints, which: Ints, begin: Doubles, rise: Doubles, side: int
) -> tuple[Ints, Ints, Floats]:
    """Of all spans' pixels the nearest ones: pixel, triangle and inverse depth."""
    used = np.flatnonzero(right > left)
    left, count = left[used].astype(np.int32), (right[used] - left[used]).astype(np.int32)
    before = (np.cumsum(count, dtype=np.int32) - count).astype(np.int32)
    total = int(count.sum())
    offset = np.arange(total, dtype=np.int32)
    column = offset + np.repeat(left - before, count)
    near = np.repeat(begin[used].astype(np.float32), count) + np.repeat(
        rise[used].astype(np.float32), count
    ) * (column.astype(np.float32) + np.float32(0.5))
    np.maximum(near, np.float32(1e-6), out=near)
    pixel = column + np.repeat((row[used] * side).astype(np.int32), count)
    # Positive floats order like their bits: one maximum finds the nearest fragment and its index.
    packed = near.view(np.uint32).astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= offset.view(np.uint32)
    buffer = np.zeros(side * side, np.uint64)
    np.maximum.at(buffer, pixel, packed)
    hit = np.flatnonzero(buffer)
    winner = (buffer[hit] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    span = used[np.searchsorted(before, winner, side="right") - 1]
    return hit, which[span], near[winner]


def _expand(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Every integer of the ranges [start, end) with the index of its range."""
    count = np.maximum(end - start, 0)
    which = np.repeat(np.arange(len(start)), count)
    base = np.cumsum(count) - count
    return which, np.arange(len(which)) - base[which] + start[which]


def surface_samples(points: Floats, faces: Ints, count: int, seed: int) -> Floats:
    """Points (count, 3) spread evenly over a mesh's area."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    rng = np.random.default_rng(seed)
    total = np.cumsum(area)
    chosen = np.searchsorted(total, (np.arange(count) + rng.random(count)) * (total[-1] / count))
    chosen = np.minimum(chosen, len(faces) - 1)
    s, t = rng.random((2, count, 1)).astype(np.float32)
    over = s + t > 1
    s, t = np.where(over, 1 - s, s), np.where(over, 1 - t, t)
    spread: Floats = a[chosen] * (1 - s - t) + b[chosen] * s + c[chosen] * t
    return spread


def visibility(points: Floats, occluders: Floats, directions: Floats, cell: float = 0.05) -> Floats:
    """Share of ``directions`` (d, 3) that each point (n, 3) sees past the occluders, 0..1.

    Every direction gets a coarse depth map of the occluder points.
    """
    seen = np.zeros(len(points), np.float32)
    grid = int(np.ceil(8 / cell))
    for k, direction in enumerate(directions):
        spin = np.array([np.cos(k * 2.4), np.sin(k * 2.4), 0.37])
        side = unit(np.cross(direction, spin).astype(np.float32))
        basis = np.stack([side, np.cross(direction, side), direction]).astype(np.float32)
        ou, ov, od = basis @ occluders.T
        pu, pv, pd = basis @ points.T
        index = ((ov / cell + grid / 2).astype(np.int64)) * grid + (ou / cell + grid / 2).astype(
            np.int64
        )
        nearest = np.full(grid * grid, -9, np.float32)
        np.maximum.at(nearest, index, od)
        at = ((pv / cell + grid / 2).astype(np.int64)) * grid + (pu / cell + grid / 2).astype(
            np.int64
        )
        seen += pd + np.float32(1.9 * cell) >= nearest[at]
    return seen / np.float32(len(directions))
