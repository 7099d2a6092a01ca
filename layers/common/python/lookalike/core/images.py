"""Turns bytes of unknown origin into upright RGB images, and those into crops and thumbnails.

Refuses what is no image, what is broken and what is over the limits, always as `Unindexable` with
a reason that a merchant understands. Size is checked on the header, before decoding; time and
memory are bounded while it runs.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

# Importing a plugin registers it; without these lines Pillow would import all forty of them.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from lookalike.core.errors import InvalidRequest, Unindexable
from lookalike.core.srgb import to_rgb, to_srgb

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
_MAX_EXIF_BYTES = 65_536  # the standard's limit
# Decoded in one call that nothing can interrupt, and with up to 20 bytes a pixel.
_AT_ONCE = frozenset({"AVIF", "HEIF", "WEBP"})
# What JPEG's decoder gets at a time. Each scan of a progressive one goes over the whole picture, so
# that a small file can ask for hours: the clock is looked at after few of them.
_JPEG_BLOCK_BYTES = 4_096
# The clock of a thread is slow to look at, so that it is not done for each part of a header.
_UNTIMED_BYTES = 256
_TILE_SIZE_TAGS = (322, 323)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What decoding an image may take.

    Parameters
    ----------
    max_bytes
        Of the file.
    max_pixels
        Width times height; half of it for formats that are decoded at once (AVIF, HEIF, WebP).
    max_seconds
        By ``clock``, for each image, and for all of those together that get limits which `shared`
        gave. What is decoded at once ends first.
    clock
        Seconds, such as of CPU time.
    memory
        Entered around decoding; makes it a `MemoryError` to take too much.
    """

    max_bytes: int
    max_pixels: int
    max_seconds: float = math.inf
    clock: Callable[[], float] = lambda: 0.0
    memory: AbstractContextManager[None] = field(default_factory=nullcontext)
    deadline: float = math.inf

    def shared(self) -> ImageLimits:
        """Limits for several images, whose time runs from now."""
        return replace(self, deadline=self.clock() + self.max_seconds)


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
        ``empty-file``, ``too-large``, ``too-many-pixels``, ``too-much-memory``, ``too-slow``,
        ``not-an-image``, ``missing-codec`` or ``corrupt-image``.
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
    try:
        # Pillow warns of each odd tag, of which a file may have 65,535: that is a flood in the log.
        # The decoders parse hostile bytes and let through whatever that trips over (struct.error,
        # SyntaxError, ZeroDivisionError …): for the owner of the file it is all one.
        with limits.memory, warnings.catch_warnings(action="ignore"):
            return _decode(_TimedFile(data, limits), kind, limits, min_side)
    except Unindexable:
        raise
    except MemoryError:
        raise Unindexable(
            "too-much-memory",
            f"Decoding the {kind} file takes too much memory; save it smaller, or as a JPEG.",
        ) from None
    except Exception as error:
        raise Unindexable(
            "corrupt-image",
            f"The {kind} file is damaged or incomplete and cannot be decoded ({_cause(error)}).",
        ) from error


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its header makes no sense"  # Pillow names the Python object that it reads from
    return str(error)[:120] or type(error).__name__


class _TimedFile(io.BytesIO):
    """A file that cannot be read any more when the time for decoding it is over."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        super().__init__(data)
        self._clock = limits.clock
        self._end = min(limits.clock() + limits.max_seconds, limits.deadline)
        self._untimed = 0

    def read(self, size: int | None = -1, /) -> bytes:
        # Reading nothing counts, too: a file may have millions of parts that are empty.
        self._untimed += max(size, 4) if size is not None and size >= 0 else _UNTIMED_BYTES
        if self._untimed >= _UNTIMED_BYTES:
            self._untimed = 0
            if self._clock() > self._end:
                raise Unindexable(
                    "too-slow",
                    "Decoding the file takes too long; save it smaller, or as a plain JPEG.",
                )
        return super().read(size)


def _decode(file: _TimedFile, kind: str, limits: ImageLimits, min_side: int | None) -> Decoded:
    with Image.open(file, formats=[kind]) as source:
        width, height = source.size
        _check_pixels(source, kind, limits)
        if kind == "JPEG":
            source.decodermaxblock = _JPEG_BLOCK_BYTES
            if min_side is not None:
                source.draft(None, (min_side, min_side))
        drafted = source.size != (width, height)
        source.load()
        if not drafted:
            width, height = source.size  # Pillow turns a TIFF upright while it loads
        orientation = _orientation(source)
        profile = source.info.get("icc_profile")
        image: Image.Image = source
        if profile and image.mode in {"CMYK", "LAB"}:
            image = to_srgb(image, profile)
        if image.mode in {"LA", "RGBA"}:
            image = _reduced(image, min_side)  # before there is a second one of its size
        image = _reduced(to_rgb(image), min_side)
        if profile and source.mode not in {"CMYK", "LAB"}:
            grey = source.mode in {"1", "L", "LA", "I", "F"} or source.mode.startswith("I;16")
            image = to_srgb(image.convert("L") if grey else image, profile).convert("RGB")
        if orientation in _TRANSPOSE:
            image = image.transpose(_TRANSPOSE[orientation])
            if orientation in _SIDEWAYS:
                width, height = height, width
        if image is source:
            image = image.copy()  # closing the file would take the pixels along
    # EXIF (with where the photo was taken) and the applied profile must not reach a thumbnail.
    image.info.clear()
    return Decoded(image, width, height, kind)


def _check_pixels(source: Image.Image, kind: str, limits: ImageLimits) -> None:
    width, height = source.size
    most = limits.max_pixels // 2 if kind in _AT_ONCE else limits.max_pixels
    if width * height > most:
        raise Unindexable(
            "too-many-pixels",
            f"The {kind} image has {width:,} x {height:,} pixels; at most {most:,} "
            "in all are accepted.",
        )
    if isinstance(source, TiffImagePlugin.TiffImageFile):
        # Tiles are decoded whole, whatever they reach over the edges.
        tile = [max(int(source.tag_v2.get(tag, 1)), 1) for tag in _TILE_SIZE_TAGS]
        across, down = (-(-side // by) * by for side, by in zip(source.size, tile, strict=True))
        if across * down > 2 * limits.max_pixels:
            raise Unindexable(
                "too-many-pixels",
                f"The tiles of the TIFF file have {tile[0]:,} x {tile[1]:,} pixels each, far more "
                "than the image needs; save it anew.",
            )


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
    if len(source.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        return int(source.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # EXIF that cannot be parsed (any exception, see `decode`) says nothing about the picture.
        return 1


def _reduced(image: Image.Image, min_side: int | None) -> Image.Image:
    """What draft mode does for JPEG: average whole blocks of pixels, keeping at least min_side."""
    factor = min(image.size) // min_side if min_side else 1
    return image.reduce(factor) if factor > 1 else image


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
