"""Surfaces as grids of points: revolved, swept, lofted and bevelled shapes, with smooth normals.

The z axis points up, the front of a product looks towards -y. A `Part` is one grid
and its material.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data.sample.material import Material
from data.sample.texture import Floats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A grid of points (rows, columns, 3), its normals and uv, and what it is made of.

    With ``wrap`` the last column joins the first. ``two_sided`` surfaces are drawn from behind too.
    """

    points: Floats
    normals: Floats
    uv: Floats
    material: Material
    wrap: bool = False
    two_sided: bool = False

    def transformed(self, matrix: npt.ArrayLike, offset: Sequence[float] = (0, 0, 0)) -> Part:
        """The part turned (or evenly scaled) by a 3×3 matrix and then moved."""
        turn = np.asarray(matrix, np.float32)
        normals = unit(self.normals @ turn.T)
        points = self.points @ turn.T + np.asarray(offset, np.float32)
        return replace(self, points=points, normals=normals)


def unit(vectors: Floats) -> Floats:
    """Vectors along the last axis scaled to length 1; null vectors stay null."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    scaled: Floats = (vectors / np.maximum(length, 1e-12)[..., None]).astype(np.float32)
    return scaled


def rotation(axis: str, degrees: float) -> Floats:
    """Rotation matrix about ``x``, ``y`` or ``z``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def moved(
    parts: Sequence[Part], turn: npt.ArrayLike, offset: Sequence[float] = (0, 0, 0)
) -> list[Part]:
    """Every part transformed alike."""
    return [part.transformed(turn, offset) for part in parts]


def surface(
    points: npt.ArrayLike,
    material: Material,
    *,
    wrap: bool = False,
    flip: bool = False,
    two_sided: bool = False,
) -> Part:
    """A part from a (rows, columns, 3) grid; normals by central differences.

    Normals point along d(row) × d(column), or the other way with ``flip``.
    """
    grid = np.asarray(points, np.float32)
    if flip:
        grid = grid[::-1]
    d_row: Floats = np.asarray(np.gradient(grid, axis=0), np.float32)
    d_column: Floats
    if wrap:
        d_column = (np.roll(grid, -1, axis=1) - np.roll(grid, 1, axis=1)) / 2
    else:
        d_column = np.asarray(np.gradient(grid, axis=1), np.float32)
    normals = unit(np.cross(d_row, d_column).astype(np.float32))
    rows, columns = grid.shape[:2]
    u = np.linspace(0, 1, columns, endpoint=not wrap, dtype=np.float32)
    v = np.linspace(0, 1, rows, dtype=np.float32)[:: -1 if flip else 1]
    uv = np.stack(np.broadcast_arrays(u[None, :], v[:, None]), axis=-1).astype(np.float32)
    return Part(grid, normals, uv, material, wrap, two_sided)


def rounded(
    corners: Sequence[tuple[float, float]],
    radius: float = 0.03,
    spacing: float = 0.05,
    steps: int = 5,
) -> Floats:
    """A polyline (n, 2) with its inner corners replaced by curves and its sides resampled."""
    pts = np.asarray(corners, np.float64)
    path: list[npt.NDArray[np.float64]] = [pts[:1]]
    last = pts[0]
    for i in range(1, len(pts) - 1):
        before, at, after = pts[i - 1], pts[i], pts[i + 1]
        cut_in = min(radius, 0.45 * float(np.linalg.norm(at - before)))
        cut_out = min(radius, 0.45 * float(np.linalg.norm(after - at)))
        start = at + (before - at) / max(float(np.linalg.norm(before - at)), 1e-9) * cut_in
        end = at + (after - at) / max(float(np.linalg.norm(after - at)), 1e-9) * cut_out
        path.append(_side(last, start, spacing))
        t = np.linspace(0, 1, steps)[1:, None]
        path.append((1 - t) ** 2 * start + 2 * t * (1 - t) * at + t**2 * end)
        last = end
    path.append(_side(last, pts[-1], spacing))
    return np.concatenate(path).astype(np.float32)


def _side(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], spacing: float
) -> npt.NDArray[np.float64]:
    count = max(1, int(np.ceil(float(np.linalg.norm(end - start)) / spacing)))
    return start + (end - start) * (np.arange(1, count + 1) / count)[:, None]


def smooth(corners: Sequence[Sequence[float]], count: int = 40) -> Floats:
    """A Catmull–Rom curve (count, d) through the given points."""
    pts = np.asarray(corners, np.float64)
    ext = np.concatenate([2 * pts[:1] - pts[1:2], pts, 2 * pts[-1:] - pts[-2:-1]])
    t = np.linspace(0, len(pts) - 1, count)
    i = np.minimum(t.astype(int), len(pts) - 2)
    f = (t - i)[:, None]
    a, b, c, d = ext[i], ext[i + 1], ext[i + 2], ext[i + 3]
    curve = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
    return np.asarray(curve, np.float32)


def ring(count: int) -> Floats:
    """Angles of a closed ring of points, starting at the back (+y) so that the seam is hidden."""
    return (np.arange(count) * (2 * np.pi / count) + np.pi / 2).astype(np.float32)


def revolve(
    profile: npt.ArrayLike,
    material: Material,
    *,
    count: int = 72,
    squash: tuple[float, float] = (1, 1),
    ribs: tuple[int, float] = (0, 0),
    two_sided: bool = False,
) -> Part:
    """A profile (n, 2) of (radius, z), given upwards along the outside, turned about the z axis.

    ``ribs`` is (how many, relative depth) of flutes.
    """
    line = np.asarray(profile, np.float32)
    angle = ring(count)
    radius = np.maximum(line[:, :1], 2e-3) * (1 + ribs[1] * np.cos(ribs[0] * angle))[None, :]
    x = radius * np.cos(angle) * squash[0]
    y = radius * np.sin(angle) * squash[1]
    z = np.broadcast_to(line[:, 1:], x.shape)
    part = surface(np.stack([x, y, z], axis=-1), material, wrap=True, two_sided=two_sided)
    return _outward(part)


def _outward(part: Part) -> Part:
    """d(row) × d(column) of an upward profile points inwards; reverse the columns instead."""
    return Part(
        part.points[:, ::-1],
        -part.normals[:, ::-1],
        part.uv[:, ::-1],
        part.material,
        part.wrap,
        part.two_sided,
    )


def tube(
    path: npt.ArrayLike,
    radius: float | npt.ArrayLike,
    material: Material,
    *,
    count: int = 14,
    flat: float = 1.0,
    reference: tuple[float, float, float] = (0, 0, 1),
) -> Part:
    """A tube along a path (n, 3), closed at both ends.

    The section starts with its side across ``reference``; ``flat`` scales it along that side.
    """
    line = np.asarray(path, np.float32)
    radii = np.broadcast_to(np.asarray(radius, np.float32), len(line)).copy()
    tangent = unit(np.gradient(line, axis=0).astype(np.float32))
    line = np.concatenate([line[:1], line[:1], line, line[-1:], line[-1:]])
    line[1] -= tangent[0] * radii[0] * 0.3
    line[0] -= tangent[0] * radii[0] * 0.35
    line[-2] += tangent[-1] * radii[-1] * 0.3
    line[-1] += tangent[-1] * radii[-1] * 0.35
    radii = np.concatenate([[2e-3], radii[:1] * 0.75, radii, radii[-1:] * 0.75, [2e-3]])
    tangent = np.concatenate([tangent[:1], tangent[:1], tangent, tangent[-1:], tangent[-1:]])
    side = _transported(tangent, np.asarray(reference, np.float32))
    other = np.cross(side, tangent)
    angle = np.arange(count) * (2 * np.pi / count)
    section = (
        side[:, None] * np.cos(angle)[None, :, None] * flat
        + other[:, None] * np.sin(angle)[None, :, None]
    )
    points = line[:, None] + section * radii[:, None, None]
    return surface(points, material, wrap=True)


def _transported(tangent: Floats, reference: Floats) -> Floats:
    """A direction across each tangent (n, 3) that turns with the path but does not twist."""
    side = np.cross(tangent[0], reference)
    if float(np.linalg.norm(side)) < 0.05:
        side = np.cross(tangent[0], np.array([0.3, 1.0, 0.2], np.float32))
    sides = np.empty_like(tangent)
    for k, along in enumerate(tangent):
        side = side - along * (side @ along)
        side = side / np.linalg.norm(side)
        sides[k] = side
    return sides


def loft(rings: npt.ArrayLike, material: Material, *, two_sided: bool = False) -> Part:
    """A skin over closed rings (rows, columns, 3), upwards, each counter-clockwise from above."""
    return _outward(surface(rings, material, wrap=True, two_sided=two_sided))


def box(
    size: Sequence[float],
    material: Material,
    *,
    at: Sequence[float] = (0, 0, 0),
    bevel: float = 0.04,
    cells: int = 7,
    puff: float = 0.0,
) -> list[Part]:
    """A bevelled box as six parts; ``at`` is its centre, ``puff`` swells its faces like upholstery.

    The uv of a face are its two other coordinates, in units of length from the centre.
    """
    half = np.asarray(size, np.float32) / 2
    bevel = min(bevel, float(half.min()) * 0.95)
    turn = bevel * (1 - np.tan(np.linspace(np.pi / 4, 0, 5)[:-1]))
    lines = []
    for h in half:
        flat = np.linspace(-h + bevel, h - bevel, max(cells, 2))
        lines.append(np.concatenate([-h + turn, flat, (h - turn)[::-1]]).astype(np.float32))
    parts = []
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        a, b = np.meshgrid(lines[i], lines[j], indexing="ij")
        for sign in (1, -1):
            cube = np.empty((*a.shape, 3), np.float32)
            cube[..., i], cube[..., j], cube[..., axis] = a, b, sign * half[axis]
            inner = np.clip(cube, -(half - bevel), half - bevel)
            normals = unit(cube - inner)
            points = inner + normals * bevel
            if puff:
                swell = (1 - (a / half[i]) ** 2) * (1 - (b / half[j]) ** 2)
                points[..., axis] += sign * puff * swell
                normals[..., i] += 2 * puff * a / half[i] ** 2 * (1 - (b / half[j]) ** 2)
                normals[..., j] += 2 * puff * b / half[j] ** 2 * (1 - (a / half[i]) ** 2)
                normals = unit(normals)
            points += np.asarray(at, np.float32)
            uv = np.stack([a, b], axis=-1)
            if sign < 0:
                points, normals, uv = points[:, ::-1], normals[:, ::-1], uv[:, ::-1]
            parts.append(Part(points, normals, uv, material))
    return parts


def sphere(
    radius: float, material: Material, *, at: Sequence[float] = (0, 0, 0), count: int = 64
) -> Part:
    """A ball."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, count // 2)
    profile = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return revolve(profile, material, count=count).transformed(np.eye(3), at)


@dataclass(frozen=True)
class Mesh:
    """All parts of a product as flat arrays, scaled to fit a cube of side 2 that stands on z = 0.

    ``faces`` (t, 3) index the vertices; ``owner`` (t,) names the material, ``two_sided`` (t,).
    ``points`` = ``original`` * scale + offset.
    """

    points: Floats
    normals: Floats
    uv: Floats
    faces: Ints
    owner: Ints
    two_sided: npt.NDArray[np.bool_]
    materials: tuple[Material, ...]
    grids: tuple[tuple[int, int, int, bool], ...]
    scale: float
    offset: Floats


def assemble(parts: Sequence[Part]) -> Mesh:
    """Join parts into one mesh; parts that share a material are shaded together."""
    materials: list[Material] = []
    faces, owner, two_sided, grids = [], [], [], []
    start = 0
    for part in parts:
        index = next((i for i, m in enumerate(materials) if m is part.material), len(materials))
        if index == len(materials):
            materials.append(part.material)
        rows, columns = part.points.shape[:2]
        triangles = _triangles(rows, columns, part.wrap) + start
        faces.append(triangles)
        owner.append(np.full(len(triangles), index))
        two_sided.append(np.full(len(triangles), part.two_sided))
        grids.append((start, rows, columns, part.wrap))
        start += rows * columns
    points = np.concatenate([part.points.reshape(-1, 3) for part in parts])
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 2 / float((high - low).max())
    offset = -scale * np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)
    return Mesh(
        (points * scale + offset).astype(np.float32),
        np.concatenate([part.normals.reshape(-1, 3) for part in parts]),
        np.concatenate([part.uv.reshape(-1, 2) for part in parts]),
        np.concatenate(faces),
        np.concatenate(owner),
        np.concatenate(two_sided),
        tuple(materials),
        tuple(grids),
        scale,
        offset.astype(np.float32),
    )


def _triangles(rows: int, columns: int, wrap: bool) -> Ints:
    row, column = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij"
    )
    right = (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = a + columns, b + columns
    both = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2)
    return both.reshape(-1, 3).astype(np.int64)
