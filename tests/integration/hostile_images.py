"""Image files made to break whoever decodes them, and what each has to end as.

Bombs grow with the limits that they are made for, so that small limits make small bombs.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

KINDS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    *(("AVIF",) if features.check("avif") else ()),
)
OK = "ok"
CORRUPT = "corrupt-image"
PIXELS = "too-many-pixels"
MEMORY = "too-much-memory"
SLOW = "too-slow"
NO_IMAGE = "not-an-image"


@dataclass(frozen=True)
class Hostile:
    """A file and the reasons it may be refused for; ``ok`` is that it is read."""

    name: str
    body: bytes
    ends: frozenset[str]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    samples = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def small_images() -> dict[str, bytes]:
    """A valid small file of each format."""
    return {kind: encode(noise(48, 36), kind) for kind in KINDS}


def hostile_images(max_pixels: int, max_bytes: int) -> Iterator[Hostile]:
    """The corpus for limits on pixels and bytes."""
    for make in (_truncated, _wrong, _pngs, _gifs, _bmps, _jpegs, _tiffs, _at_once, _odd):
        for name, body, ends in make(max_pixels, max_bytes):
            yield Hostile(name, body, frozenset(ends.split("|")))


Cases = Iterator[tuple[str, bytes, str]]


def _truncated(max_pixels: int, max_bytes: int) -> Cases:
    for kind, body in small_images().items():
        for part in range(16):
            cut = body[: len(body) * part // 16]
            ends = "empty-file" if not cut else f"{CORRUPT}|{NO_IMAGE}"
            # What PNG and GIF miss may be nothing but their last words; WebP and TIFF may be whole.
            yield f"{kind} truncated at {part}/16", cut, f"{ends}|{OK}" if part == 15 else ends


def _wrong(max_pixels: int, max_bytes: int) -> Cases:
    files = small_images()
    for kind, body in files.items():
        for other, donor in files.items():
            if kind != other:
                yield (
                    f"{kind} with the head of {other}",
                    donor[:12] + body[12:],
                    f"{CORRUPT}|{PIXELS}|{OK}",
                )
        yield f"{kind} before a page", body + b"<script>alert(1)</script>" * 99, OK
        yield f"{kind} before a zip", body + b"PK\3\4" + bytes(200), OK
        yield f"{kind} after a page", b"<html>" + body, NO_IMAGE
        yield f"{kind} repeated", body * 3, OK
    yield "a program", b"\x7fELF" + bytes(500), NO_IMAGE
    yield "a page", b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_IMAGE
    yield "nothing", b"", "empty-file"
    yield "too many bytes", files["JPEG"] + bytes(max_bytes), "too-large"


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def png(
    width: int, height: int, *extra: bytes, colour: int = 2, bits: int = 8, data: bytes
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(entries: int, rest: int) -> bytes:
    """EXIF of which each entry holds all of the file."""
    size = 2 + 12 * entries + 4 + rest
    listed = (struct.pack("<HHII", 1 + i, 7, size, 8) for i in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + b"".join(listed) + bytes(4 + rest)


def _pngs(max_pixels: int, max_bytes: int) -> Cases:
    side = int(max_pixels**0.5)
    tiny = zlib.compress(bytes(8 * 25))

    def flat(count: int, width: int) -> bytes:
        return zlib.compress(bytes((1 + width) * count), 9)

    yield "PNG bomb", png(side, side, data=flat(side, 3 * side)), OK
    yield "PNG bomb with alpha", png(side, side, colour=6, data=flat(side, 4 * side)), OK
    wide = png(side, side, colour=4, bits=16, data=flat(side, 4 * side))
    yield "PNG bomb, 16 bits with alpha", wide, OK
    yield "PNG declared", png(60_000, 60_000, data=tiny), PIXELS
    yield "PNG of the largest size", png(2**31 - 1, 2**31 - 1, data=tiny), f"{PIXELS}|{CORRUPT}"
    yield "PNG of no size", png(0, 0, data=tiny), CORRUPT
    yield "PNG a pixel high", png(max_pixels, 1, data=flat(1, 3 * max_pixels)), f"{OK}|{MEMORY}"
    yield "PNG a pixel wide", png(1, max_pixels, data=flat(max_pixels, 3)), f"{OK}|{MEMORY}"
    yield "PNG with less in it", png(side, side, data=tiny), CORRUPT
    bomb = zlib.compress(bytes(20_000_000), 9)
    yield "PNG text bomb", png(8, 8, chunk(b"zTXt", b"a\0\0" + bomb), data=tiny), CORRUPT
    text = chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)
    yield "PNG international text bomb", png(8, 8, text, data=tiny), CORRUPT
    yield "PNG profile bomb", png(8, 8, chunk(b"iCCP", b"a\0\0" + bomb), data=tiny), CORRUPT
    many = b"".join(chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6))) for i in range(66))
    yield "PNG with many texts", png(8, 8, many, data=tiny), f"{CORRUPT}|{SLOW}"
    yield "PNG EXIF bomb", png(8, 8, chunk(b"eXIf", exif(5_000, 0)), data=tiny), OK
    huge = exif(40_000, min(max_bytes - 500_000, 10**7))
    yield "PNG large EXIF bomb", png(8, 8, chunk(b"eXIf", huge), data=tiny), OK
    chunks = chunk(b"teXt", b"") * ((max_bytes - 10_000) // 12)
    yield "PNG of empty chunks", png(8, 8, chunks, data=tiny), f"{OK}|{SLOW}"


def _gifs(max_pixels: int, max_bytes: int) -> Cases:
    def gif(width: int, height: int, body: bytes) -> bytes:
        head = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0)
        return b"GIF89a" + head + body + frame + b"\x02\x02\x4c\x01\0;"

    yield "GIF declared", gif(65_535, 65_535, b""), PIXELS
    yield "GIF with less in it", gif(600, 600, b""), CORRUPT
    long = b"\x21\xfe" + (b"\xff" + b"a" * 255) * ((max_bytes - 10_000) // 256) + b"\0"
    yield "GIF with a long comment", gif(1, 1, long), f"{OK}|{CORRUPT}"
    comments = b"\x21\xfe\x01a\0" * ((max_bytes - 10_000) // 5)
    yield "GIF of comments", gif(1, 1, comments), f"{OK}|{CORRUPT}|{SLOW}"


def bmp(width: int, height: int, body: bytes) -> bytes:
    """A BMP of 256 colours, run-length encoded."""
    start = 14 + 40 + 1024
    file = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return file + sizes + bytes(1024) + body


def _bmps(max_pixels: int, max_bytes: int) -> Cases:
    side, room = int(max_pixels**0.5), max_bytes - 10_000
    yield "BMP of runs of one", bmp(side, side, b"\x01\x05" * (room // 2)), f"{OK}|{CORRUPT}|{SLOW}"
    # Each of these four bytes asks for 255 rows.
    yield "BMP of jumps", bmp(side, side, b"\0\x02\xff\xff" * (room // 4)), f"{OK}|{CORRUPT}"
    jumps = bmp(max_pixels, 1, b"\0\x02\xff\xff" * 1000)
    yield "BMP of wide jumps", jumps, f"{OK}|{CORRUPT}|{MEMORY}"
    yield "BMP of negative size", bmp(-5, -5, b"\x01\x05" * 30), f"{CORRUPT}|{PIXELS}"
    yield "BMP declared", bmp(2**31 - 1, 2**31 - 1, b"\0\x01"), PIXELS


def progressive_bomb(side: int, size: int) -> bytes:
    """A small JPEG of very many scans, each of which goes over the whole picture."""
    body = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    first = body.index(b"\xff\xda")
    second = body.index(b"\xff\xda", first + 2)
    end = second + 2
    while body[end] != 0xFF or body[end + 1] == 0:
        end += 1
    scan = body[second:end]
    return body[:second] + scan * (size // len(scan)) + body[-2:]


def _jpegs(max_pixels: int, max_bytes: int) -> Cases:
    side = int(max_pixels**0.5)
    body = encode(noise(64, 48), "JPEG")
    yield "JPEG of very many scans", progressive_bomb(side, max_bytes // 4), f"{SLOW}|{CORRUPT}"
    yield "JPEG with a film appended", body + b"\xff\xda\0\x08" * 9_000, OK
    sized = bytearray(body)
    frame = body.index(b"\xff\xc0")
    sized[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    yield "JPEG declared", bytes(sized), PIXELS
    bomb = b"Exif\0\0" + exif(5_000, 0)
    marker = b"\xff\xe1" + struct.pack(">H", 2 + len(bomb)) + bomb
    yield "JPEG with EXIF bombs", body[:2] + marker * 9 + body[2:], OK
    comment = b"\xff\xfe\0\x03a" * ((max_bytes - 10_000) // 5)
    yield "JPEG of comments", body[:2] + comment + body[2:], f"{OK}|{SLOW}"
    profile = b"ICC_PROFILE\0\1\1" + b"\xff" * 60_000
    icc = b"\xff\xe2" + struct.pack(">H", 2 + len(profile)) + profile
    yield "JPEG with a broken profile", body[:2] + icc + body[2:], OK
    yield "CMYK JPEG", encode(noise(64, 48).convert("CMYK"), "JPEG"), OK


def tiff(width: int, height: int, tags: Mapping[int, list[int]], data: bytes, packed: int) -> bytes:
    """A grey TIFF with its ``data`` at byte 8; ``packed`` is the number of the compression."""
    known = {256: [width], 257: [height], 258: [8], 259: [packed], 262: [1], 277: [1]}
    start = 8 + len(data)
    after = start + 2 + 12 * len(known | dict(tags)) + 4
    listed, blob = b"", b""
    for tag, values in sorted((known | dict(tags)).items()):
        raw = struct.pack(f"<{len(values)}I", *values)
        where = raw if len(raw) == 4 else struct.pack("<I", after + len(blob))
        blob += raw if len(raw) > 4 else b""
        listed += struct.pack("<HHI", tag, 4, len(values)) + where
    count = struct.pack("<H", len(known | dict(tags)))
    return b"II*\0" + struct.pack("<I", start) + data + count + listed + bytes(4) + blob


def _tiffs(max_pixels: int, max_bytes: int) -> Cases:
    side = int(max_pixels**0.5)
    whole = zlib.compress(bytes(side * side), 9)
    strip = {273: [8], 278: [side], 279: [len(whole)]}
    yield "TIFF bomb", tiff(side, side, strip, whole, 8), OK
    yield "TIFF declared", tiff(60_000, 60_000, strip, whole, 8), PIXELS
    tile = zlib.compress(bytes(4096 * 4096), 9)
    tiles = {322: [4096], 323: [4096], 324: [8] * 600, 325: [len(tile)] * 600}
    yield "TIFF of tiles far over the edge", tiff(1, 600 * 4096, tiles, tile, 8), PIXELS
    count = (max_bytes - 10_000) // 8
    strips = {273: [8] * count, 278: [1], 279: [1] * count}
    ends = f"{OK}|{CORRUPT}|{SLOW}|{MEMORY}"
    yield "TIFF of very many strips", tiff(1, count, strips, b"aaaa", 1), ends
    yield "TIFF of more strips than rows", tiff(10, 10, strips, bytes(100), 1), ends
    plain = tiff(10, 10, {273: [8], 278: [10], 279: [100]}, bytes(100), 1)
    start = struct.unpack("<I", plain[4:8])[0]
    last = start + 2 + 12 * struct.unpack("<H", plain[start : start + 2])[0]
    looping = plain[:last] + struct.pack("<I", start) + plain[last + 4 :]
    yield "TIFF whose directory follows itself", looping, OK
    yield "TIFF of odd tags", exif(40_000, min(max_bytes - 500_000, 10**7)), f"{CORRUPT}|{SLOW}"
    yield "16-bit TIFF", encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "TIFF"), OK
    odd = np.array([[np.nan, np.inf], [-np.inf, 1e38]], np.float32)
    yield "TIFF of no numbers", encode(Image.fromarray(odd), "TIFF"), OK


def _at_once(max_pixels: int, max_bytes: int) -> Cases:
    inside, over = int((max_pixels // 2) ** 0.5), int((0.7 * max_pixels) ** 0.5)
    for kind, options in (("WEBP", {"method": 0, "quality": 1}), ("AVIF", {"speed": 10})):
        if kind not in KINDS:
            continue
        flat = encode(Image.new("RGB", (inside, inside)), kind, **options)
        yield f"{kind} bomb", flat, f"{OK}|{MEMORY}"
        yield f"{kind} too large", encode(Image.new("RGB", (over, over)), kind, **options), PIXELS
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(99)]
    for kind in {"WEBP", "GIF", "PNG", "AVIF"} & set(KINDS):
        several = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        yield f"{kind} of 99 frames", several, OK


def profile_bomb(stages: int) -> bytes:
    """A colour profile of so many stages, all of which are one."""
    stage = b"matf" + struct.pack(">IHH12f", 0, 3, 3, *(1, 0, 0), *(0, 1, 0), *(0, 0, 1), 0, 0, 0)
    elements = b"mpet" + struct.pack(">IHHI", 0, 3, 3, stages)
    elements += struct.pack(">II", len(elements) + 8 * stages, len(stage)) * stages + stage
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {b"D2B0": elements}
    for number in range(struct.unpack(">I", whole[128:132])[0]):
        name, at, size = struct.unpack(">4sII", whole[132 + 12 * number : 144 + 12 * number])
        # One that is called sRGB would not be applied.
        tags[name] = whole[at : at + size].replace(b"s\0R\0G\0B", b"T\0e\0s\0t")
    listed, bodies, start = b"", b"", 132 + 12 * len(tags)
    for name, body in tags.items():
        listed += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    rest = struct.pack(">I", len(tags)) + listed + bodies
    version_4_4 = b"\x04\x40\0\0"
    return struct.pack(">I", 128 + len(rest)) + whole[4:8] + version_4_4 + whole[12:128] + rest


def _odd(max_pixels: int, max_bytes: int) -> Cases:
    for size in ((1, 1), (1, 20_000), (20_000, 1)):
        # The sides of WebP have 14 bits.
        for kind in KINDS if max(size) < 16_384 else ("JPEG", "PNG", "TIFF", "BMP", "GIF"):
            yield f"{kind} of {size[0]} x {size[1]}", encode(Image.new("RGB", size), kind), OK
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        yield f"PNG of mode {mode}", encode(Image.new(mode, (9, 9)), "PNG"), OK
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("cut", srgb[:99]), ("huge", srgb + bytes(5 * 10**6))):
        for kind in ("JPEG", "WEBP", "TIFF"):
            if len(profile) < max_bytes:
                file = encode(noise(9, 9), kind, icc_profile=profile)
                yield f"{kind} with a {name} profile", file, OK
