"""The light: key, fill, rim and soft boxes, and the shading of fragments. Linear RGB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data.sample.material import Material, Sample, grain_vector, linear
from data.sample.mesh import Mesh
from data.sample.raster import Camera, Fragments, surface_samples, visibility
from data.sample.texture import Floats, step

CHUNK = 24_576  # pixels shaded at a time: the arrays of one chunk stay in the second-level cache


@dataclass(frozen=True)
class Light:
    """Directions point towards the lights; ``bounce`` (3, 1) comes from below."""

    key: Floats
    rim: Floats
    key_strength: float
    fill: float
    bounce: Floats
    tint: Floats
    cone: Floats


def studio_light(azimuth: float, bounce: Floats, rng: np.random.Generator) -> Light:
    """A rig that turns with the camera: key from the upper left or right, rim from behind."""
    side = -1.0 if rng.random() < 0.65 else 1.0
    key_az = azimuth + side * rng.uniform(30, 58)
    key = _direction(key_az, rng.uniform(38, 58))
    rim = _direction(azimuth + 180 - side * rng.uniform(-35, 35), 40)
    spread = [
        _direction(key_az + 9 * np.cos(a), float(np.degrees(np.arcsin(key[2]))) + 8 * np.sin(a))
        for a in np.arange(8) * (np.pi / 4)
    ]
    warm = float(rng.uniform(-0.05, 0.07))
    tint = np.array([[1 + warm], [1.0], [1 - warm]], np.float32)
    return Light(
        key,
        rim,
        float(rng.uniform(0.72, 0.95)),
        float(rng.uniform(0.42, 0.58)),
        bounce,
        tint,
        np.stack(spread).astype(np.float32),
    )


def _direction(azimuth: float, elevation: float) -> Floats:
    az, el = np.radians([azimuth, elevation])
    return np.array([np.sin(az) * np.cos(el), -np.cos(az) * np.cos(el), np.sin(el)], np.float32)


@lru_cache(maxsize=1)
def _sky() -> Floats:
    """24 directions (24, 3) over the sphere but for its lowest part, for ambient occlusion."""
    k = np.arange(24) + 0.5
    z = 1 - 1.25 * k / 24
    angle = k * np.pi * (1 + 5**0.5)
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=-1).astype(np.float32)


def occluders(mesh: Mesh) -> Floats:
    """Points on a mesh that cast its shadows."""
    return surface_samples(mesh.points, mesh.faces, 9000, seed=3)


def ambient_occlusion(mesh: Mesh, points: Floats) -> Floats:
    """How open to the sky each vertex is, 0..1."""
    return _smooth(mesh, visibility(mesh.points + mesh.normals * 0.03, points, _sky()))


def key_visibility(mesh: Mesh, points: Floats, light: Light) -> Floats:
    """How much of the key light each vertex sees past the rest of the product, 0..1."""
    return _smooth(mesh, visibility(mesh.points + mesh.normals * 0.03, points, light.cone))


def _smooth(mesh: Mesh, values: Floats) -> Floats:
    """Values averaged with their neighbours on each part's grid."""
    out = values.copy()
    for start, rows, columns, wrap in mesh.grids:
        grid = values[start : start + rows * columns].reshape(rows, columns)
        if wrap:
            padded = np.concatenate([grid[:, -1:], grid, grid[:, :1]], axis=1)
        else:
            padded = np.pad(grid, ((0, 0), (1, 1)), mode="edge")
        grid = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        padded = np.pad(grid, ((1, 1), (0, 0)), mode="edge")
        grid = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        out[start : start + rows * columns] = grid.ravel()
    return out


def shade(
    mesh: Mesh, fragments: Fragments, camera: Camera, light: Light, vertex: Floats, side: int
) -> tuple[Floats, Floats]:
    """Linear RGB (3, n) and alpha (n,) of fragments, ordered as the fragments are.

    ``vertex`` (v, 2) holds ambient occlusion and key visibility.
    """
    table = np.concatenate([mesh.normals, mesh.uv, vertex], axis=1).astype(np.float32)
    corners = table[mesh.faces]
    corners[:, 1] -= corners[:, 0]
    corners[:, 2] -= corners[:, 0]
    count = len(fragments.pixel)
    rgb = np.empty((3, count), np.float32)
    alpha = np.ones(count, np.float32)
    owner = mesh.owner[fragments.triangle]
    for index, material in enumerate(mesh.materials):
        members = np.flatnonzero(owner == index)
        for start in range(0, len(members), CHUNK):
            pick = members[start : start + CHUNK]
            rgb[:, pick], alpha[pick] = _shade_chunk(
                mesh, material, fragments, corners, camera, light, pick, side
            )
    return rgb, alpha


def _shade_chunk(
    mesh: Mesh,
    material: Material,
    fragments: Fragments,
    corners: Floats,
    camera: Camera,
    light: Light,
    pick: npt.NDArray[np.int64],
    side: int,
) -> tuple[Floats, Floats]:
    three = corners[fragments.triangle[pick]]
    values = (
        three[:, 0]
        + three[:, 1] * fragments.second[pick][:, None]
        + three[:, 2] * fragments.third[pick][:, None]
    ).T.copy()
    row, column = np.divmod(fragments.pixel[pick], side)
    inverse_side = np.float32(1 / side)
    dx, dy, dz = camera.rays(
        (column.astype(np.float32) + 0.5) * inverse_side,
        (row.astype(np.float32) + 0.5) * inverse_side,
    )
    depth = fragments.depth[pick]
    shrink = np.float32(1 / mesh.scale)
    sample = Sample(
        values[3],
        values[4],
        (camera.eye[0] + dx * depth - mesh.offset[0]) * shrink,
        (camera.eye[1] + dy * depth - mesh.offset[1]) * shrink,
        (camera.eye[2] + dz * depth - mesh.offset[2]) * shrink,
    )
    n = values[:3]
    if material.bump:
        n = n + np.stack(grain_vector(material.bump, sample))
    n *= 1 / np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2)
    away = 1 / np.sqrt(dx**2 + dy**2 + dz**2)
    view = np.stack([-dx * away, -dy * away, -dz * away])
    facing = n[0] * view[0] + n[1] * view[1] + n[2] * view[2]
    n = np.where(facing < 0, -n, n)
    return _light(
        material, material.pattern(sample), n, view, np.abs(facing), light, values[5], values[6]
    )


def _light(
    material: Material,
    albedo: Floats,
    n: Floats,
    view: Floats,
    facing: Floats,
    light: Light,
    open_sky: Floats,
    sees_key: Floats,
) -> tuple[Floats, Floats]:
    to_key = n[0] * light.key[0] + n[1] * light.key[1] + n[2] * light.key[2]
    to_rim = n[0] * light.rim[0] + n[1] * light.rim[1] + n[2] * light.rim[2]
    key = (
        np.maximum(to_key * 0.88 + 0.12, 0)
        * (0.12 + 0.88 * sees_key)
        * np.float32(light.key_strength)
    )
    up = 0.5 + 0.5 * n[2]
    ambient = (light.bounce * (1 - up) + light.tint * up) * (light.fill * open_sky)
    rim = np.maximum(to_rim, 0) * (0.22 * open_sky)
    lit = ambient + light.tint * (key + rim)
    edge = (1 - facing) ** 4
    twice = 2 * facing
    reflected = np.stack([twice * n[i] - view[i] for i in range(3)])
    mirror = _environment(reflected, light, material.gloss) * (0.35 + 0.65 * open_sky)
    if material.metal:
        tinted = albedo + (1 - albedo) * (edge * 0.7)
        # The dark floor line of the studio is what makes polished metal look like metal.
        line = 1 - 0.7 * material.gloss * np.exp(-(((reflected[2] + 0.12) / 0.16) ** 2))
        out = tinted * mirror * (1.25 * line) + albedo * lit * (0.45 * (1 - material.gloss))
    else:
        strength = (0.04 + 0.5 * edge * material.gloss) * (0.25 + 0.75 * material.gloss)
        out = albedo * lit + mirror * strength
    if material.sheen:
        out += (albedo * 0.5 + 0.1) * (material.sheen * (1 - facing) ** 2 * open_sky)
    if material.glow:
        out += albedo * material.glow
    if material.alpha >= 1:
        return out.astype(np.float32), np.ones(len(facing), np.float32)
    cover = (
        material.alpha
        + (1 - material.alpha) * (0.85 * (1 - facing) ** 2)
        + mirror.mean(axis=0) * 0.05
    )
    return out.astype(np.float32), np.clip(cover, 0, 1).astype(np.float32)


def _environment(r: Floats, light: Light, gloss: float) -> Floats:
    """What a reflection along ``r`` (3, n) sees of the studio, (3, n)."""
    soft = 0.05 + 0.5 * (1 - gloss)
    kx, ky, kz = light.key
    # The soft box is a rectangle in the plane across the key direction.
    ahead = np.maximum(r[0] * kx + r[1] * ky + r[2] * kz, 1e-3)
    flat = float(np.hypot(kx, ky))
    a = (-ky * r[0] + kx * r[1]) / flat / ahead
    b = (r[2] * flat - kz * (kx * r[0] + ky * r[1]) / flat) / ahead
    panel = (
        (1 - step(0.42, soft, np.abs(a))) * (1 - step(0.95, soft, np.abs(b + 0.4))) * (ahead > 2e-3)
    )
    strip = (
        (1 - step(0.16, soft, np.abs(r[0] * kx + r[1] * ky + 0.55))) * step(-0.1, 0.5, r[2]) * 0.8
    )
    brightness = (2.6 - 1.5 * (1 - gloss)) * panel + strip
    up = step(0.0, 0.35 + soft, r[2])
    room = 0.16 + 0.42 * up * (0.6 + 0.4 * r[2])
    seen: Floats = light.tint * (brightness + room * up) + light.bounce * (0.5 * (1 - up))
    return seen


def bounce_of(colour: str) -> Floats:
    """What a floor of this colour throws back from below."""
    floor: Floats = (0.16 + 0.6 * linear(colour)).astype(np.float32)
    return floor
