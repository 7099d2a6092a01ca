"""Turns decoded pixels of any mode and colour profile into 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 4_000_000
# A transform of any number of stages, which may all be one: 160 kB of them cost 9 s.
_ELEMENTS = b"mpet"
_BAND_ROWS = 256


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with 8 bits a channel, transparency composited on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    return image.convert("RGB")


def _to_8_bit(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scale grey samples of any range to 0 … 255.

    Integers are taken as 16-bit unless one is larger than that (then as 31-bit); floating-point
    samples as 0 … 1, 0 … 255 or 0 … 65535, the smallest that holds them all.
    """
    peak = float(samples.max(initial=0, where=np.isfinite(samples)))
    scales = (1.0, 255.0, 65535.0) if samples.dtype.kind == "f" else (65535.0, 2.0**31 - 1)
    full = next((scale for scale in scales if peak <= scale), max(peak, 1.0))
    scaled = np.empty(samples.shape, dtype=np.uint8)
    for start in range(0, len(samples), _BAND_ROWS):  # in bands, to spare memory
        band = samples[start : start + _BAND_ROWS].astype(np.float32)
        band = np.nan_to_num(band * (255.0 / full), posinf=0.0, neginf=0.0)
        scaled[start : start + _BAND_ROWS] = np.rint(np.clip(band, 0.0, 255.0))
    return scaled


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None if it is sRGB itself or does not fit the mode."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space != {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}.get(mode):
        return None
    if "sRGB" in (source.profile.profile_description or ""):
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded colour profile; one that is broken or does not fit is ignored."""
    if len(profile) > _MAX_PROFILE_BYTES or _ELEMENTS in profile:
        return image
    try:
        transform = _transform(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if transform is None else transform.apply(image)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
