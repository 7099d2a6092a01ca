"""Where products stand: sweeps, paper, tables, floors and rooms, with shadows. Linear RGB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data.sample.material import Pattern, Sample, linear, marbled, mix, wood
from data.sample.raster import Camera
from data.sample.studio import Light
from data.sample.texture import Floats, bilinear, blurred, cells, enlarged, noise, step

TILE = 1024
WORLD = 6.0  # units of length that one tile of a floor covers


@dataclass(frozen=True)
class Setting:
    """A background: ``floor`` names a texture or is a colour, ``wall`` likewise.

    ``horizon`` is how far behind the product the floor ends; infinite for a seamless sweep.
    """

    floor: str
    wall: str
    horizon: float = np.inf
    bounce: str = "#ffffff"
    scale: float = 1.0


SETTINGS = {
    "white": Setting("#fbfbfb", "#ffffff"),
    "offwhite": Setting("#efedea", "#f6f4f1"),
    "grey": Setting("#b9bbbe", "#dfe1e3", bounce="#b9bbbe"),
    "dark": Setting("#3b3e44", "#5b5f68", bounce="#3b3e44"),
    "blush": Setting("#e9c3b8", "#efd0c6", bounce="#e9c3b8"),
    "sage": Setting("#a9bca4", "#b9cab4", bounce="#a9bca4"),
    "mustard": Setting("#dfb04f", "#e5bd68", bounce="#dfb04f"),
    "powder": Setting("#a9c3dc", "#bbd0e4", bounce="#a9c3dc"),
    "oak-table": Setting("oak", "#d9d4cb", 2.6, "#b58a5a"),
    "walnut-table": Setting("walnut", "#8d9598", 2.8, "#6b4a33"),
    "marble-top": Setting("marble", "#cfd2d2", 2.4, "#dddddd"),
    "linen": Setting("linen", "#cfc6b6", 6.0, "#cfc3ad"),
    "concrete": Setting("concrete", "#a5a6a4", 3.4, "#9a9a97"),
    "kitchen": Setting("oak", "room-kitchen", 2.0, "#b58a5a"),
    "studio-room": Setting("planks", "room-living", 3.2, "#a67f58", 0.6),
    "loft-room": Setting("concrete", "room-loft", 3.4, "#8f8f8c"),
    "rug": Setting("rug", "room-living", 3.6, "#b9ad99", 0.7),
    "garden": Setting("planks", "room-garden", 2.2, "#8c8f66", 0.8),
}
SMALL_SETTINGS = (
    "oak-table",
    "marble-top",
    "linen",
    "walnut-table",
    "concrete",
    "kitchen",
    "garden",
)
LARGE_SETTINGS = ("studio-room", "loft-room", "rug", "concrete", "offwhite")
PAPERS = ("grey", "offwhite", "blush", "sage", "mustard", "powder", "dark")


@lru_cache(maxsize=8)
def floor_texture(name: str) -> npt.NDArray[np.uint32]:
    """A floor (1024, 1024) that tiles, linear RGB packed with 10 bits a channel."""
    grid = (np.arange(TILE, dtype=np.float32) + 0.5) / TILE
    u, v = (a.ravel() for a in np.meshgrid(grid, grid))
    rgb = _floor_colour(name, u, v)
    parts = (np.clip(rgb, 0, 1) * 1023).astype(np.uint32)
    return np.asarray(parts[0] << 20 | parts[1] << 10 | parts[2])


def _floor_colour(name: str, u: Floats, v: Floats) -> Floats:
    if name in {"oak", "walnut", "planks"}:
        boards = 7 if name == "planks" else 4
        light, dark = {
            "oak": ("#c79c66", "#a5763f"),
            "walnut": ("#7d573b", "#4f3422"),
            "planks": ("#b98f62", "#8e6740"),
        }[name]
        board = np.floor(v * boards)
        shift = (board * 0.37 + 0.13) % 1
        grain: Pattern = wood(light, dark, "x", 1.0)
        colour = grain(Sample(u, v, (u + shift) * 8, (v * boards % 1) * 1.3 + board * 2.1, 0 * u))
        seam = np.abs(v * boards % 1 - 0.5) * 2
        return colour * (0.9 + 0.2 * shift) * (1 - 0.55 * step(0.985, 0.02, seam))
    if name == "marble":
        # Two copies that differ by a repeat hide the seam of a pattern that does not tile.
        stone = marbled("#e9e8e4", "#8f9296")
        a = stone(Sample(u, v, u * 3, v * 3, 0 * u))
        b = stone(Sample(u, v, u * 3 - 3, v * 3 - 3, 0 * u))
        return mix(b, a, np.minimum(step(0.2, 0.3, 1 - u), step(0.2, 0.3, 1 - v)))
    if name == "linen":
        thread = np.sin(u * 2 * np.pi * 170) * np.sin(v * 2 * np.pi * 170)
        fold = bilinear(noise(2.0, 71), u, v)
        cloth: Floats = linear("#d3c7b2") * (
            0.93 + 0.09 * thread + 0.05 * fold + 0.05 * bilinear(noise(0.6, 72), u, v)
        )
        return cloth
    if name == "rug":
        tuft = bilinear(cells(120.0, 73), u, v)
        motif = np.maximum(np.abs(u * 6 % 1 - 0.5), np.abs(v * 6 % 1 - 0.5))
        field = mix(linear("#c9bda8"), linear("#a3937d"), step(0.4, 0.05, motif) * 0.6)
        return field * (0.9 + 0.1 * tuft)
    blotch = bilinear(noise(1.5, 74), u, v)
    return linear("#9b9b98") * (1 + 0.08 * blotch + 0.04 * bilinear(noise(0.2, 75), u * 2, v * 2))


@lru_cache(maxsize=8)
def room(name: str) -> Floats:
    """An out-of-focus room (3, 128, 128): furniture as soft blocks of light and colour."""
    seed = sum(ord(c) for c in name)
    rng = np.random.default_rng(seed)
    palettes = {
        "room-kitchen": ("#cfd3cf", ["#7c8a86", "#b08d62", "#e8e4da", "#5a6a70", "#f6efdf"]),
        "room-living": ("#cdc4b6", ["#7d8b93", "#a5684b", "#e9e2d2", "#5d6b57", "#f4ead2"]),
        "room-loft": ("#9a9793", ["#4a4b4f", "#7f5a45", "#c8c5bf", "#e9e4d8", "#39424a"]),
        "room-garden": ("#93ab72", ["#6f9150", "#b9cf8d", "#dfe6c1", "#4f6b3d", "#a7bf7f"]),
    }
    base, accents = palettes[name]
    canvas = np.broadcast_to(linear(base)[..., None], (3, 128, 128)).copy()
    for k in range(16):
        x, y = rng.integers(-10, 120, 2)
        w, h = rng.integers(8, 36), rng.integers(10, 60)
        canvas[:, max(y, 0) : y + h, max(x, 0) : x + w] = linear(accents[k % len(accents)])[
            ..., None
        ]
    x = int(rng.integers(8, 80))
    canvas[:, 6:64, x : x + 34] = np.array([1.25, 1.25, 1.2], np.float32)[:, None, None]
    canvas[:, :, x + 16 : x + 18] *= 0.6
    return np.stack([enlarged(enlarged(layer, 13), 128) for layer in canvas])


def background(setting: Setting, camera: Camera, light: Light, side: int, spin: float) -> Floats:
    """The empty scene, (3, side, side) linear RGB; ``spin`` turns the floor's texture."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    column, row = np.broadcast_arrays(axis[None, :], axis[:, None])
    dx, dy, dz = camera.rays(column, row)
    down = np.minimum(dz, -1e-4)
    reach = -camera.eye[2] / down
    x, y = camera.eye[0] + dx * reach, camera.eye[1] + dy * reach
    ahead = camera.axes[2][:2] / max(float(np.hypot(*camera.axes[2][:2])), 1e-6)
    beyond = np.where(dz < -1e-4, x * ahead[0] + y * ahead[1], 99).astype(np.float32)
    key_side = np.float32(light.key @ camera.axes[0])
    slope = (column - 0.5) * key_side * 0.22 + (0.5 - row) * 0.06
    if setting.floor.startswith("#"):
        blend = step(1.6, 5.0, np.minimum(beyond, 9))
        base = mix(linear(setting.floor)[..., None], linear(setting.wall)[..., None], blend)
        return (base * (1 + slope)).astype(np.float32)
    turn = np.radians(spin)
    across = (x * np.cos(turn) - y * np.sin(turn)) * (setting.scale / WORLD)
    along = (x * np.sin(turn) + y * np.cos(turn)) * (setting.scale / WORLD)
    index = ((along * TILE).astype(np.int32) & (TILE - 1)) * TILE + (
        (across * TILE).astype(np.int32) & (TILE - 1)
    )
    packed = floor_texture(setting.floor)[index]
    ground: Floats = (
        np.stack([packed >> 20, packed >> 10 & 1023, packed & 1023]).astype(np.float32) / 1023
    )
    ground *= 0.62 + 0.4 * np.float32(light.key[2]) + slope
    wall = _wall(setting.wall, side, spin) * (1 + slope)
    ground = _defocus(ground, np.clip((beyond - 0.9) / 2.2, 0, 1))
    soft = 0.1 + 0.05 * setting.horizon
    return mix(ground, wall, step(setting.horizon, soft, beyond)).astype(np.float32)


def _wall(wall: str, side: int, spin: float) -> Floats:
    if wall.startswith("#"):
        return np.broadcast_to(linear(wall)[..., None], (3, side, side))
    left = int(abs(spin) * 7) % 40
    return np.stack([enlarged(layer[:88, left : left + 88], side) for layer in room(wall)])


def _defocus(image: Floats, amount: Floats) -> Floats:
    """Blend towards a blurred copy, as a lens does behind its plane of focus."""
    if float(amount.max()) <= 0:
        return image
    side = image.shape[1]
    soft = np.stack([enlarged(enlarged(layer[::2, ::2], side // 7), side) for layer in image])
    return mix(image, soft, amount)


def shadow(camera: Camera, light: Light, occluders: Floats, side: int) -> Floats:
    """How much light reaches the floor, (side, side) of 0..1."""
    cell, cells_across = 0.045, 224
    half = cells_across // 2
    cast = np.zeros((cells_across, cells_across), np.float32)
    for low, high, blur in ((0.0, 0.35, 1.6), (0.35, 1.0, 3.6), (1.0, 9.0, 6.5)):
        chosen = occluders[(occluders[:, 2] >= low) & (occluders[:, 2] < high)]
        cast = np.maximum(cast, _splat(chosen, light.key[:2] / light.key[2], cell, half, blur))
    near = occluders[occluders[:, 2] < 0.16]
    contact = _splat(near, np.zeros(2, np.float32), cell, half, 1.5)
    wide = _splat(occluders, np.zeros(2, np.float32), cell, half, 9.0)
    dark = 1 - (1 - 0.42 * cast) * (1 - 0.6 * contact) * (1 - 0.3 * wide)
    coarse = side // 3
    axis = (np.arange(coarse, dtype=np.float32) + 0.5) / coarse
    dx, dy, dz = camera.rays(axis[None, :], axis[:, None])
    reach = -camera.eye[2] / np.minimum(dz, -1e-3)
    x = (camera.eye[0] + dx * reach) / cell + half
    y = (camera.eye[1] + dy * reach) / cell + half
    inside = (dz < -1e-3) & (x > 1) & (x < cells_across - 2) & (y > 1) & (y < cells_across - 2)
    x, y = np.where(inside, x, 1), np.where(inside, y, 1)
    column, row = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - column, y - row
    upper = dark[row, column] * (1 - fx) + dark[row, column + 1] * fx
    lower = dark[row + 1, column] * (1 - fx) + dark[row + 1, column + 1] * fx
    value = ((upper * (1 - fy) + lower * fy) * inside).astype(np.float32)
    return 1 - enlarged(value, side)


def _splat(points: Floats, lean: Floats, cell: float, half: int, blur: float) -> Floats:
    """A blurred map of where points fall when light leans by ``lean`` a unit of height."""
    size = 2 * half
    column = ((points[:, 0] - points[:, 2] * lean[0]) / cell + half).astype(np.int64)
    row = ((points[:, 1] - points[:, 2] * lean[1]) / cell + half).astype(np.int64)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    hits = np.bincount(row[inside] * size + column[inside], minlength=size * size)
    return blurred(np.minimum(hits, 1).astype(np.float32).reshape(size, size), blur)
