"""One photo: geometry, light and background put together, then what a real camera adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.sample.mesh import Mesh
from data.sample.raster import Camera, Fragments, look, rasterise
from data.sample.scene import SETTINGS, background, shadow
from data.sample.studio import (
    ambient_occlusion,
    bounce_of,
    key_visibility,
    occluders,
    shade,
    studio_light,
)
from data.sample.texture import Floats

SIDE = 600
INNER = 800  # side of the image that products are drawn at before they are reduced to SIDE


@dataclass(frozen=True)
class Shot:
    """How a photo is taken. Angles in degrees, ``setting`` a name in `SETTINGS`."""

    azimuth: float
    elevation: float
    setting: str
    fill: float = 0.74
    field_deg: float = 28.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.008
    lift: tuple[float, float, float] = (1.0, 1.0, 1.0)  # exposure and white balance
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """A mesh with what does not depend on the view."""

    mesh: Mesh
    occluders: Floats
    open_sky: Floats


def model_of(mesh: Mesh) -> Model:
    """Work out a mesh's ambient occlusion once for all its photos."""
    points = occluders(mesh)
    return Model(mesh, points, ambient_occlusion(mesh, points))


def take(model: Model, shot: Shot) -> Image.Image:
    """Draw a photo, 600 x 600 RGB."""
    rng = np.random.default_rng(shot.seed)
    setting = SETTINGS[shot.setting]
    mesh = model.mesh
    camera = look(
        mesh.points,
        shot.azimuth,
        shot.elevation,
        fill=shot.fill,
        field_deg=shot.field_deg,
        roll=shot.roll,
        shift=shot.shift,
    )
    light = studio_light(shot.azimuth, bounce_of(setting.bounce), rng)
    vertex = np.stack([model.open_sky, key_visibility(mesh, model.occluders, light)], axis=1)
    scene = background(setting, camera, light, SIDE, float(rng.uniform(-25, 25)))
    scene *= shadow(camera, light, model.occluders, SIDE)[None]
    canvas = Image.fromarray(_encode(scene.reshape(3, -1)).reshape(SIDE, SIDE, 3), "RGB")
    solid = np.array([m.alpha >= 1 for m in mesh.materials])[mesh.owner]
    for layer in (solid, ~solid):
        if layer.any():
            place, depth = camera.project(mesh.points)
            faces = np.flatnonzero(layer)
            found = rasterise(place, depth, mesh.faces[faces], mesh.two_sided[faces], INNER)
            found = Fragments(
                found.pixel, faces[found.triangle], found.second, found.third, found.depth
            )
            _paste(canvas, *shade(mesh, found, camera, light, vertex, INNER), found.pixel)
    return _develop(canvas, shot, rng)


def _paste(canvas: Image.Image, rgb: Floats, alpha: Floats, pixel: npt.NDArray[np.int64]) -> None:
    layer = np.zeros((INNER * INNER, 4), np.uint8)
    layer[pixel, :3] = _encode(rgb)
    layer[pixel, 3] = alpha * 255
    row, column = np.divmod(pixel, INNER)
    # Whole groups of 4 x 4 inner pixels become 3 x 3, so that a cut-out reduces like the whole.
    low, high = (
        [int(a.min()) // 4 * 4 for a in (column, row)],
        [-(-int(a.max() + 1) // 4) * 4 for a in (column, row)],
    )
    image = Image.fromarray(
        np.ascontiguousarray(layer.reshape(INNER, INNER, 4)[low[1] : high[1], low[0] : high[0]]),
        "RGBA",
    )
    size = ((high[0] - low[0]) * SIDE // INNER, (high[1] - low[1]) * SIDE // INNER)
    small = image.resize(size, Image.Resampling.BICUBIC)
    canvas.paste(small, (low[0] * SIDE // INNER, low[1] * SIDE // INNER), small)


@lru_cache(maxsize=1)
def _tone() -> npt.NDArray[np.uint8]:
    """Linear 0..2 in 4,096 steps to sRGB bytes, with a soft shoulder from 0.75 up."""
    x = np.linspace(0, 2, 4096)
    knee = 0.75
    x = np.where(x > knee, knee + (1 - knee) * (1 - np.exp(-(x - knee) / (1 - knee))), x)
    curve = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(curve * 255 + 0.5, 0, 255), np.uint8)


def _encode(rgb: Floats) -> npt.NDArray[np.uint8]:
    index = np.clip(rgb * 2047.5, 0, 4095).astype(np.int16)
    return np.ascontiguousarray(_tone()[index].T)


@lru_cache(maxsize=1)
def _film_grain() -> npt.NDArray[np.int16]:
    """Gaussian noise (1024, 1024) in 1/64 of a grey level for a deviation of 1."""
    return (np.random.default_rng(97).standard_normal((1024, 1024)) * 64).astype(np.int16)


def _develop(image: Image.Image, shot: Shot, rng: np.random.Generator) -> Image.Image:
    """Exposure, white balance and sensor noise."""
    row, column = rng.integers(0, 1024 - SIDE, 2)
    grain = _film_grain()[row : row + SIDE, column : column + SIDE]
    strength = int(shot.noise * 255 * 16)
    levels = np.arange(256, dtype=np.float32)
    lut = np.concatenate([np.clip(levels * gain, 0, 255) for gain in shot.lift]).astype(np.uint8)
    pixels = np.asarray(image.point(lut.tolist()), np.int16)
    noisy = pixels + ((grain * np.int16(max(strength, 1))) >> 10)[..., None]
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8), "RGB")


__all__ = ["INNER", "SIDE", "Camera", "Model", "Shot", "model_of", "take"]
