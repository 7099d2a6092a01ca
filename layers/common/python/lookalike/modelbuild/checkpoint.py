"""Reads the tensors of a PyTorch checkpoint without torch, and admits nothing else from it.

A checkpoint is a pickle, and a pickle is a program. The unpickler here knows the globals that
tensors need, each replaced by an inert stand-in, and refuses every other by name. Reads both of
torch.save's formats: the legacy stream of pickles followed by raw storages, and the zip archive
(torch 1.6 and later).
"""

from __future__ import annotations

import io
import math
import pickle  # nosec B403  # only an Unpickler that admits tensors is made of it
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lookalike.core.errors import InvalidRequest

Tensors = dict[str, npt.NDArray[Any]]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _OrderedDict(dict[Any, Any]):
    """Stands in for OrderedDict; its pickled attributes (torch's ``_metadata``) are not wanted."""

    def __setstate__(self, state: object) -> None:
        return


def _rebuild_tensor(
    storage: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: object
) -> _Tensor:
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor with a negative size")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and (last >= storage.length or count > storage.length):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return _Tensor(storage, offset, size, stride)


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(np.dtype(_STORAGE_DTYPES[name]))
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _location, length, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise pickle.UnpicklingError("it refers to something that is no plain storage")
        if not isinstance(length, int) or length < 0:
            raise pickle.UnpicklingError("a storage with a negative length")
        return _Storage(str(key), storage_type.dtype, length)


def read_checkpoint(path: Path) -> Tensors:
    """Read the tensors of a state dict.

    Parameters
    ----------
    path
        A file of torch.save holding a dict of tensors.

    Returns
    -------
    dict of str to array
        Contiguous arrays, by parameter name.

    Raises
    ------
    InvalidRequest
        The file is no checkpoint of tensors, is damaged, or asks for any other global, which the
        message names.
    """
    try:
        with path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                return _read_zip(stream)
            stream.seek(0)
            return _read_legacy(stream)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        struct.error,
        AttributeError,
        EOFError,
        ImportError,
        IndexError,
        KeyError,
        MemoryError,
        OSError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise InvalidRequest(
            f"{path} is refused as a checkpoint: {error}.", parameter="weights"
        ) from error


def _read_legacy(stream: IO[bytes]) -> Tensors:
    if _unpickle(stream) != _LEGACY_MAGIC or _unpickle(stream) != _LEGACY_PROTOCOL:
        raise ValueError("it is not a file of torch.save")
    if not _unpickle(stream)["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    tensors = _named_tensors(_unpickle(stream))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    data: dict[str, npt.NDArray[Any]] = {}
    for key in _unpickle(stream):
        (length,) = struct.unpack("<q", stream.read(8))
        storage = storages.get(str(key))
        if storage is None or length != storage.length:
            raise ValueError(f"storage {key} has another length than its tensors")
        data[storage.key] = _array(stream.read(length * storage.dtype.itemsize), storage)
    return _materialise(tensors, data)


def _read_zip(stream: IO[bytes]) -> Tensors:
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise ValueError("it has no data.pkl")
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        tensors = _named_tensors(_unpickle(io.BytesIO(archive.read(pickled))))
        data: dict[str, npt.NDArray[Any]] = {}
        for storage in {tensor.storage for tensor in tensors.values()}:
            entry = archive.getinfo(f"{root}data/{storage.key}")
            if entry.file_size != storage.length * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key} has another length than its tensors")
            data[storage.key] = _array(archive.read(entry), storage)
    return _materialise(tensors, data)


def _unpickle(stream: IO[bytes]) -> Any:
    return _TensorUnpickler(stream).load()


def _array(raw: bytes, storage: _Storage) -> npt.NDArray[Any]:
    if len(raw) != storage.length * storage.dtype.itemsize:
        raise ValueError(f"it ends in the middle of storage {storage.key}")
    return np.frombuffer(raw, dtype=storage.dtype)


def _named_tensors(state: object) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise ValueError("it holds no dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {name!r} is no tensor")
    return state


def _materialise(tensors: dict[str, _Tensor], data: dict[str, npt.NDArray[Any]]) -> Tensors:
    """Strided views of the storages, copied; `_rebuild_tensor` has checked that they fit."""
    arrays: Tensors = {}
    for name, tensor in tensors.items():
        flat = data[tensor.storage.key][tensor.offset :]
        steps = tuple(step * flat.itemsize for step in tensor.stride)
        view = np.lib.stride_tricks.as_strided(flat, tensor.size, steps, writeable=False)
        arrays[name] = np.array(view, order="C")
    return arrays
