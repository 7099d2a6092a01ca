"""Decoding: every kind of image comes out as upright sRGB, everything else as a clear refusal."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from lookalike.core.errors import InvalidRequest, Unindexable
from lookalike.core.images import Decoded, ImageLimits, crop, decode, thumbnail_webp

LIMITS = ImageLimits(max_bytes=2_000_000, max_pixels=4_000_000)
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (30, 40, 210), (255, 255, 255)


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Pixels well inside the quadrants: top left, top right, bottom left, bottom right."""
    x, y = image.width // 4, image.height // 4
    return [
        image.getpixel(at)  # type: ignore[misc]
        for at in [(x, y), (3 * x, y), (x, 3 * y), (3 * x, 3 * y)]
    ]


def assert_quadrants(decoded: Decoded, tolerance: int = 12) -> None:
    assert decoded.image.mode == "RGB"
    np.testing.assert_allclose(
        corners(decoded.image), [RED, GREEN, BLUE, WHITE], atol=tolerance, rtol=0
    )


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(Unindexable) as caught:
        decode(data, limits)
    assert caught.value.detail.endswith(".")
    assert " object at 0x" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_every_format(kind: str, options: dict[str, Any]) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    decoded = decode(encode(quadrants(), kind, **options), LIMITS)

    assert (decoded.width, decoded.height, decoded.format) == (64, 48, kind)
    assert_quadrants(decoded)


def test_gif_gives_its_first_frame() -> None:
    second = Image.new("RGB", (64, 48), (0, 0, 0))
    data = encode(quadrants(), "GIF", save_all=True, append_images=[second], duration=50)

    assert_quadrants(decode(data, LIMITS), tolerance=20)


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_other_animations_give_their_first_frame(kind: str) -> None:
    second = Image.new("RGB", (64, 48), (0, 0, 0))
    data = encode(quadrants(), kind, save_all=True, append_images=[second])

    assert_quadrants(decode(data, LIMITS))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants()
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}

    decoded = decode(encode(stored, kind, exif=exif, **options.get(kind, {})), LIMITS)

    assert (decoded.width, decoded.height) == decoded.image.size == (64, 48)
    assert_quadrants(decoded)


def test_broken_exif_is_ignored() -> None:
    data = encode(quadrants(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0MM\0*\xff\xff\xff")

    assert_quadrants(decode(data, LIMITS))


def test_cmyk_jpeg() -> None:
    cmyk = quadrants().convert("CMYK")

    assert_quadrants(decode(encode(cmyk, "JPEG", quality=95), LIMITS), tolerance=20)


def test_grey_and_bilevel() -> None:
    for mode in ("L", "1"):
        decoded = decode(encode(Image.new(mode, (8, 8), 255), "PNG"), LIMITS)
        assert decoded.image.getpixel((4, 4)) == WHITE


def test_palette() -> None:
    data = encode(quadrants().quantize(8), "PNG")

    assert_quadrants(decode(data, LIMITS))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 16))
    image.paste((0, 0, 0, 128), (8, 0, 16, 8))
    kind = "TIFF" if mode == "PA" else "PNG"
    if mode == "PA":
        mode = "RGBA"

    decoded = decode(encode(image.convert(mode), kind), LIMITS).image

    assert decoded.getpixel((3, 12)) == (0, 0, 0)
    assert decoded.getpixel((12, 12)) == WHITE
    np.testing.assert_allclose(decoded.getpixel((12, 3)), (127, 127, 127), atol=1)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_entry_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (8, 0, 16, 16))

    decoded = decode(encode(image, "PNG", transparency=transparency), LIMITS).image

    assert decoded.getpixel((3, 3)) == WHITE
    assert decoded.getpixel((12, 3)) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(kind: str) -> None:
    samples = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)

    decoded = decode(encode(Image.fromarray(samples), kind), LIMITS).image

    expected = np.arange(256).reshape(16, 16)
    np.testing.assert_allclose(np.asarray(decoded)[..., 0], expected, atol=1)


@pytest.mark.parametrize(
    ("dtype", "peak"), [("int32", 65535), ("int32", 2**31 - 1), ("float32", 1)]
)
def test_wide_samples_are_scaled(dtype: str, peak: int) -> None:
    samples = np.linspace(0, peak, 256).astype(dtype).reshape(16, 16)

    decoded = decode(encode(Image.fromarray(samples), "TIFF"), LIMITS).image

    expected = np.arange(256).reshape(16, 16)
    np.testing.assert_allclose(np.asarray(decoded)[..., 1], expected, atol=1)


def test_not_a_number_is_black() -> None:
    samples = np.full((4, 4), np.nan, dtype=np.float32)

    assert decode(encode(Image.fromarray(samples), "TIFF"), LIMITS).image.getpixel((1, 1)) == (
        0,
        0,
        0,
    )


def test_lab_profile_free_tiff() -> None:
    lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    ).apply(quadrants())

    assert_quadrants(decode(encode(lab, "TIFF"), LIMITS))


def swapped_profile() -> bytes:
    """sRGB with its red and green colourants exchanged: red in the file means green on screen."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12],
        data[red + 4 : red + 12],
    )
    description, size = struct.unpack(">II", data[tags[b"desc"] + 4 : tags[b"desc"] + 12])
    body = bytes(data[description : description + size])
    data[description : description + size] = body.replace(
        "sRGB".encode("utf-16-be"), "Test".encode("utf-16-be")
    )
    return bytes(data)


def test_embedded_profile_is_applied() -> None:
    image = Image.new("RGB", (32, 32), (230, 20, 20))

    decoded = decode(encode(image, "PNG", icc_profile=swapped_profile()), LIMITS).image

    np.testing.assert_allclose(decoded.getpixel((5, 5)), (20, 230, 20), atol=3)


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = quadrants()

    decoded = decode(encode(image, "PNG", icc_profile=profile), LIMITS).image

    assert np.array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200], b"\0" * 300])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_broken_or_foreign_profile_is_ignored(profile: bytes, mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new(mode, (8, 8), 0)

    with_profile = decode(encode(image, kind, icc_profile=profile), LIMITS).image

    without = decode(encode(image, kind), LIMITS).image
    assert np.array_equal(np.asarray(with_profile), np.asarray(without))


def test_nothing_of_the_files_metadata_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    decoded = decode(encode(quadrants(), "JPEG", exif=exif, comment=b"secret"), LIMITS)

    assert decoded.image.info == {}
    assert b"taken at home" not in thumbnail_webp(decoded)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_images_are_decoded_smaller(kind: str) -> None:
    data = encode(quadrants(1600, 1200), kind)

    decoded = decode(data, LIMITS, min_side=297)

    assert (decoded.width, decoded.height) == (1600, 1200)
    assert 297 <= min(decoded.image.size) < 2 * 297
    assert_quadrants(decoded)


def test_small_images_are_never_decoded_smaller() -> None:
    assert decode(encode(quadrants(), "JPEG"), LIMITS, min_side=297).image.size == (64, 48)


def test_draft_mode_with_orientation_reports_the_upright_original() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(quadrants(1601, 1201), "JPEG", exif=exif)

    decoded = decode(data, LIMITS, min_side=297)

    assert (decoded.width, decoded.height) == (1201, 1601)
    assert decoded.image.width < decoded.image.height


def test_empty_file() -> None:
    assert refusal(b"") == "empty-file"


def test_too_many_bytes() -> None:
    assert refusal(b"\xff\xd8\xff" + bytes(50), ImageLimits(10, 10)) == "too-large"


@pytest.mark.parametrize(
    "data", [b"hello, I am a text file", b"%PDF-1.7", b"<svg></svg>", b"\0" * 99]
)
def test_what_is_no_image(data: bytes) -> None:
    assert refusal(data) == "not-an-image"


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_no_pixels() -> None:
    assert refusal(png_bomb(0)) == "corrupt-image"


def test_bomb_is_refused_on_its_header() -> None:
    assert refusal(png_bomb(30_000)) == "too-many-pixels"


def test_own_limit_decides_alone() -> None:
    """Pillow would warn at 89 million pixels; a higher limit of ours must not be second-guessed."""
    data = png_bomb(9_500)

    assert refusal(data, ImageLimits(2_000_000, 80_000_000)) == "too-many-pixels"
    assert refusal(data, ImageLimits(2_000_000, 100_000_000)) == "corrupt-image"  # pixels missing


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_truncated_image(kind: str, keep: float) -> None:
    noise = np.random.default_rng(4).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)

    assert refusal(data[: int(len(data) * keep)]) == "corrupt-image"


def test_heif_without_its_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    assert refusal(b"\0\0\0\x18ftypheic" + bytes(60)) == "missing-codec"


SEEDS = [
    encode(quadrants(24, 16), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
]


@settings(max_examples=250, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=12),
    end=st.integers(0, 4000),
)
def test_hostile_bytes_never_escape(seed: bytes, edits: list[tuple[int, int]], end: int) -> None:
    data = bytearray(seed[: max(end % (2 * len(seed)), 1)])
    for position, value in edits:
        data[position % len(data)] = value

    try:
        decoded = decode(bytes(data), LIMITS, min_side=16)
    except Unindexable as error:
        assert error.reason in {
            "not-an-image",
            "corrupt-image",
            "too-many-pixels",
            "missing-codec",
        }
    else:
        assert decoded.image.mode == "RGB"
        assert min(decoded.image.size) >= 1


@pytest.mark.parametrize(
    ("box", "size", "pixel"),
    [
        ((0, 0, 32, 24), (32, 24), RED),
        ((0.5, 0, 0.5, 0.5), (32, 24), GREEN),
        ((0, 0.5, 0.5, 1), (32, 24), BLUE),
        ((32, 24, 500, 500), (32, 24), WHITE),
        ((-10, -10, 20, 20), (10, 10), RED),
        ((63.6, 47.6, 0.2, 0.2), (1, 1), WHITE),
    ],
)
def test_crop(
    box: tuple[float, float, float, float], size: tuple[int, int], pixel: tuple[int, int, int]
) -> None:
    cut = crop(decode(encode(quadrants(), "PNG"), LIMITS), box)

    assert cut.image.size == (cut.width, cut.height) == size
    assert cut.image.getpixel((size[0] // 2, size[1] // 2)) == pixel


def test_crop_of_a_reduced_image_is_in_pixels_of_the_original() -> None:
    decoded = decode(encode(quadrants(1600, 1200), "JPEG"), LIMITS, min_side=300)

    cut = crop(decoded, (800, 0, 800, 600))

    assert (cut.width, cut.height) == (800, 600)
    assert cut.image.width == decoded.image.width // 2
    np.testing.assert_allclose(np.asarray(cut.image).mean(axis=(0, 1)), GREEN, atol=6)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 10),
        (0, 0, -5, 10),
        (64, 0, 10, 10),
        (0.2, 1.0, 0.5, 0.5),
        (float("nan"), 0, 1, 1),
        (0, 0, float("inf"), 1),
        (1, 2, 3),
    ],
)
def test_crop_of_nothing_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        crop(decode(encode(quadrants(), "PNG"), LIMITS), box)  # type: ignore[arg-type]

    assert caught.value.parameter == "crop"


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ((1600, 1200), (256, 192)),
        ((300, 900), (85, 256)),
        ((60, 40), (60, 40)),
        ((1, 2000), (1, 256)),
    ],
)
def test_thumbnail(original: tuple[int, int], expected: tuple[int, int]) -> None:
    decoded = decode(encode(quadrants(*original), "PNG"), LIMITS)

    thumbnail = Image.open(io.BytesIO(thumbnail_webp(decoded)))

    assert (thumbnail.format, thumbnail.size) == ("WEBP", expected)


def test_thumbnail_looks_like_the_image() -> None:
    decoded = decode(encode(quadrants(1000, 800), "PNG"), LIMITS)

    assert_quadrants(decode(thumbnail_webp(decoded), LIMITS), tolerance=15)
