"""Turns bytes of unknown origin into upright RGB images, and those into crops and thumbnails.

Refuses what is no image, what is broken and what is over the limits, always as `Unindexable` with
a reason that a merchant understands. Limits are checked on the header, before decoding.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# Importing a plugin registers it; without these lines Pillow would import all forty of them.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lookalike.core.errors import InvalidRequest, Unindexable

__all__ = ["Decoded", "ImageLimits", "crop", "decode", "thumbnail_webp"]

# Pillow's own guard only warns, at a size of its choosing; `ImageLimits` decides here.
Image.MAX_IMAGE_PIXELS = None

_PLUGINS = {
    "AVIF": AvifImagePlugin,
    "BMP": BmpImagePlugin,
    "GIF": GifImagePlugin,
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "TIFF": TiffImagePlugin,
    "WEBP": WebPImagePlugin,
}
FORMATS = (*sorted(_PLUGINS), "HEIF")

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_MAX_PROFILE_BYTES = 4_000_000
_START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 100  # encoders write about ten, and a thumbnail in the EXIF has its own
_BAND_ROWS = 256


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is decoded: bytes of the file, and pixels (width times height)."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB image.

    ``width`` and ``height`` are the upright original's, which ``image`` may be a reduction of.
    ``format`` is the file's, such as ``JPEG``.
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(data: bytes, limits: ImageLimits, min_side: int | None = None) -> Decoded:
    """Decode an image file.

    The first frame of an animation; EXIF orientation applied; transparency on white; colours
    converted to sRGB from an embedded profile; 16-bit and floating-point samples scaled to 8 bits.

    Parameters
    ----------
    data
        The file.
    limits
        What is refused before decoding.
    min_side
        If given, the image may be decoded smaller, as long as its shorter side stays at least this
        many pixels. Saves most of the time for large photos.

    Raises
    ------
    Unindexable
        ``empty-file``, ``too-large``, ``too-many-pixels``, ``too-many-scans``, ``not-an-image``,
        ``missing-codec`` or ``corrupt-image``.
    """
    if not data:
        raise Unindexable("empty-file", "The file is empty.")
    if len(data) > limits.max_bytes:
        raise Unindexable(
            "too-large",
            f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted.",
        )
    kind = _sniff(data)
    if kind is None:
        raise Unindexable(
            "not-an-image",
            f"The file's content is not an image, whatever its name says; "
            f"these are read: {', '.join(FORMATS)}.",
        )
    if kind == "HEIF":
        _require_heif()
    # Each scan of a progressive JPEG goes over the whole picture: a small file can ask for hours.
    if kind == "JPEG" and data.count(_START_OF_SCAN) > MAX_SCANS:
        raise Unindexable(
            "too-many-scans", f"The JPEG file has over {MAX_SCANS} scans; save it as a plain one."
        )
    try:
        # The decoders parse hostile bytes and let through whatever that trips over (struct.error,
        # SyntaxError, ZeroDivisionError, MemoryError …): for the owner of the file it is all one.
        return _decode(data, kind, limits, min_side)
    except Unindexable:
        raise
    except Exception as error:
        raise Unindexable(
            "corrupt-image",
            f"The {kind} file is damaged or incomplete and cannot be decoded "
            f"({str(error)[:120] or type(error).__name__}).",
        ) from error


def _decode(data: bytes, kind: str, limits: ImageLimits, min_side: int | None) -> Decoded:
    with Image.open(io.BytesIO(data), formats=[kind]) as source:
        width, height = source.size
        if width * height > limits.max_pixels:
            raise Unindexable(
                "too-many-pixels",
                f"The image has {width:,} x {height:,} pixels; at most {limits.max_pixels:,} "
                "in all are accepted.",
            )
        if min_side is not None and kind == "JPEG":
            source.draft(None, (min_side, min_side))
        drafted = source.size != (width, height)
        source.load()
        if not drafted:
            width, height = source.size  # Pillow turns a TIFF upright while it loads
        orientation = _orientation(source)
        profile = source.info.get("icc_profile")
        image: Image.Image = source
        if profile and image.mode in {"CMYK", "LAB"}:
            image = _to_srgb(image, profile)
        image = _reduced(_to_rgb(image), min_side)
        if profile and source.mode not in {"CMYK", "LAB"}:
            grey = source.mode in {"1", "L", "LA", "I", "F"} or source.mode.startswith("I;16")
            image = _to_srgb(image.convert("L") if grey else image, profile).convert("RGB")
        if orientation in _TRANSPOSE:
            image = image.transpose(_TRANSPOSE[orientation])
            if orientation in _SIDEWAYS:
                width, height = height, width
        if image is source:
            image = image.copy()  # closing the file would take the pixels along
    # EXIF (with where the photo was taken) and the applied profile must not reach a thumbnail.
    image.info.clear()
    return Decoded(image, width, height, kind)


def _sniff(data: bytes) -> str | None:
    """The image format that a file's first bytes announce."""
    head = data[:32]
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    if head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[i : i + 4] for i in (8, 16, 20, 24, 28)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
            return "HEIF"
    return None


def _require_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise Unindexable(
            "missing-codec",
            "HEIC/HEIF images are not read by this installation; convert the image to JPEG, or "
            "install the extra: pip install 'lookalike[heic]'.",
        ) from None
    pillow_heif.register_heif_opener()


def _orientation(source: Image.Image) -> int:
    try:
        return int(source.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # EXIF that cannot be parsed (any exception, see `decode`) says nothing about the picture.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
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


def _reduced(image: Image.Image, min_side: int | None) -> Image.Image:
    """What draft mode does for JPEG: average whole blocks of pixels, keeping at least min_side."""
    factor = min(image.size) // min_side if min_side else 1
    return image.reduce(factor) if factor > 1 else image


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


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded colour profile; one that is broken or does not fit is ignored."""
    if len(profile) > _MAX_PROFILE_BYTES:
        return image
    try:
        transform = _transform(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if transform is None else transform.apply(image)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)


def crop(decoded: Decoded, box: tuple[float, float, float, float]) -> Decoded:
    """Cut a rectangle out of an image.

    Parameters
    ----------
    decoded
        The image.
    box
        x, y, width, height in pixels of the upright original, or as fractions of it when all four
        are at most 1. What reaches over the edge is cut off.

    Raises
    ------
    InvalidRequest
        The box is not four finite numbers, is empty, or lies outside the image.
    """
    if len(box) != 4 or not np.isfinite(box).all():
        raise InvalidRequest("A crop is four numbers: x,y,width,height.", parameter="crop")
    fractional = all(value <= 1 for value in box)
    unit_x, unit_y = (1.0, 1.0) if fractional else (decoded.width, decoded.height)
    x, y, w, h = box[0] / unit_x, box[1] / unit_y, box[2] / unit_x, box[3] / unit_y
    left, right = max(x, 0.0), min(x + w, 1.0)
    top, bottom = max(y, 0.0), min(y + h, 1.0)
    if w <= 0 or h <= 0 or left >= right or top >= bottom:
        raise InvalidRequest(
            f"The crop {','.join(f'{value:g}' for value in box)} holds nothing of an image of "
            f"{decoded.width} x {decoded.height} pixels; give x,y,width,height inside it.",
            parameter="crop",
        )
    x0, x1 = _pixel_range(left, right, decoded.image.width)
    y0, y1 = _pixel_range(top, bottom, decoded.image.height)
    return Decoded(
        decoded.image.crop((x0, y0, x1, y1)),
        max(1, round((right - left) * decoded.width)),
        max(1, round((bottom - top) * decoded.height)),
        decoded.format,
    )


def _pixel_range(low: float, high: float, size: int) -> tuple[int, int]:
    """Pixels that a range of fractions covers, at least one."""
    start = min(round(low * size), size - 1)
    return start, max(round(high * size), start + 1)


def thumbnail_webp(decoded: Decoded, side: int = 256) -> bytes:
    """A WebP no larger than ``side`` pixels either way, in the image's proportions."""
    image = decoded.image
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        # A gap of 1 averages whole blocks first: half the time of a direct resize. Method 0 takes
        # two thirds of the time of method 2 for a quarter more bytes (docs/encoders.md).
        image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=1.0)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=75, method=0)
    return stream.getvalue()
