"""A feature map as it is stored: where it is not zero, and one byte there. Owns ``LKFM`` files.

The last feature maps of networks that end in a ReLU are nine tenths zeros. Codes are of the square
root, so that cells of small activations keep their direction: A ≈ peak · (code/255)², or with a
sign and 127 levels where some activation is negative.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.container import Container, FileKind, decode_container, encode_container
from lookalike.core.errors import CorruptFile

KIND = FileKind("feature map", b"LKFM", 1)
MAX_VALUES = 2**18  # the largest encoder's map has two fifths of that
_LARGEST = float(np.finfo(np.float32).max)

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, int, int]
    peak: float
    signed: bool


def encode_map(maps: Float32) -> bytes:
    """The file of one feature map (C, h, w) float32, of finite values."""
    flat = maps.ravel()
    present = flat != 0
    values = flat[present]
    peak = float(np.abs(values).max(initial=0.0))
    signed = bool(values.size and values.min() < 0)
    roots = np.sqrt(np.abs(values) / np.float32(peak or 1.0))
    if signed:
        codes = np.rint(np.copysign(roots, values) * 127).astype(np.int8).tobytes()
    else:
        codes = np.rint(roots * 255).astype(np.uint8).tobytes()
    header = {"shape": list(maps.shape), "peak": peak, "signed": signed}
    return encode_container(
        KIND, header, {"bitmap": _deflate(np.packbits(present)), "codes": codes}
    )


def decode_map(data: bytes | memoryview, name: str) -> Float32:
    """Read a feature map file: (C, h, w) float32; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered feature map of a known format version, or are one that
        no encoder makes.
    """
    try:
        file = decode_container(KIND, data, name)
        header = _header(file)
        size = math.prod(header.shape)
        bitmap = _inflate(file.section("bitmap"), -(-size // 8))
        codes = np.frombuffer(file.section("codes"), dtype=np.uint8)
        present = np.unpackbits(bitmap, count=size).view(bool)
        if len(codes) != np.count_nonzero(present):
            raise ValueError("there is not one code for each activation")
        flat = np.zeros(size, dtype=np.float32)
        flat[present] = _levels(header)[codes]
    except CorruptFile:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, zlib.error) as error:
        raise CorruptFile(f"feature map {name} does not hold what its header says") from error
    return flat.reshape(header.shape)


def _header(file: Container) -> _Header:
    """What a file says of itself, checked before anything is made of it."""
    channels, height, width = file.header["shape"]
    header = _Header((channels, height, width), file.header["peak"], file.header["signed"])
    if not all(type(side) is int and side > 0 for side in header.shape):
        raise ValueError("the shape is not three sizes")
    if math.prod(header.shape) > MAX_VALUES:
        raise ValueError("the shape is too large")
    if type(header.peak) is not float or not 0 <= header.peak <= _LARGEST:
        raise ValueError("the peak is no activation")
    return header


def _levels(header: _Header) -> Float32:
    """The activation that each code, read as an unsigned byte, stands for: (256,) float32."""
    codes = np.arange(256, dtype=np.uint8)
    roots = codes.view(np.int8) / np.float32(127) if header.signed else codes / np.float32(255)
    return np.asarray(np.copysign(roots * roots, roots) * np.float32(header.peak), np.float32)


def _deflate(bitmap: npt.NDArray[np.uint8]) -> bytes:
    # Runs of zero bytes are most of what can be saved: a third of the time of any other strategy.
    squeezer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return squeezer.compress(bitmap.tobytes()) + squeezer.flush()


def _inflate(section: memoryview, size: int) -> npt.NDArray[np.uint8]:
    """Unpack exactly ``size`` bytes; a file that would grow beyond them is not unpacked further."""
    inflater = zlib.decompressobj()
    bitmap = inflater.decompress(section, size + 1)
    if len(bitmap) != size or not inflater.eof:
        raise ValueError("the bitmap is not of the shape")
    return np.frombuffer(bitmap, dtype=np.uint8)
