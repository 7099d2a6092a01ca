"""The restricted reader of checkpoints: tensors come out exactly, all else is refused by name."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.encoders import ENCODERS
from lookalike.core.errors import InvalidRequest
from lookalike.modelbuild.checkpoint import read_checkpoint


class Global:
    """Pickles as a reference to ``module.name``, whatever is installed."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class TorchPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes what torch.save writes, from `Global` and `Storage` descriptions."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            if obj.arguments:
                self.save(tuple(obj.arguments))
                self.write(pickle.REDUCE)
            return
        if isinstance(obj, Storage):
            self.save(obj.identity())
            self.write(pickle.BINPERSID)
            return
        super().save(obj, save_persistent_id)


class Storage:
    def __init__(self, key: str, values: np.ndarray, kind: str = "FloatStorage", view: Any = None):
        self.key, self.values, self.kind, self.view = key, values, kind, view

    def identity(self) -> tuple[Any, ...]:
        start = ("storage", Global("torch", self.kind), self.key, "cpu", self.values.size)
        return (*start, self.view) if self.view is not Ellipsis else start


def tensor(storage: Storage, size: Any, stride: Any, offset: int = 0) -> Global:
    return Global("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, False, None)


def dump(value: Any) -> bytes:
    stream = io.BytesIO()
    TorchPickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def legacy(state: Any, storages: list[Storage], little_endian: bool = True) -> bytes:
    body = dump(0x1950A86A20F9469CFC6C) + dump(1001) + dump({"little_endian": little_endian})
    body += dump(state) + dump([storage.key for storage in storages])
    for storage in storages:
        body += struct.pack("<q", storage.values.size) + storage.values.tobytes()
    return body


def zipped(state: Any, storages: list[Storage]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", dump(state))
        archive.writestr("net/byteorder", "little")
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.values.tobytes())
    return stream.getvalue()


def read(data: bytes, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "net.pth"
    path.write_bytes(data)
    return read_checkpoint(path)


def refusal(data: bytes, folder: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(data, folder)
    assert "net.pth is refused" in caught.value.detail
    return caught.value.detail


VALUES = np.arange(24, dtype=np.float32)


@pytest.mark.parametrize("write", [legacy, zipped])
def test_tensors_come_out_exactly(write: Any, tmp_path: Path) -> None:
    floats = Storage("7", VALUES, view=None if write is legacy else Ellipsis)
    counts = Storage("8", np.array([41, 42]), "LongStorage", floats.view)
    state = OrderedDict(
        whole=tensor(floats, (2, 3, 4), (12, 4, 1)),
        transposed=tensor(floats, (4, 3), (1, 4), offset=12),
        scalar=tensor(counts, (), (), offset=1),
    )

    tensors = read(write(state, [floats, counts]), tmp_path)

    assert np.array_equal(tensors["whole"], VALUES.reshape(2, 3, 4))
    assert np.array_equal(tensors["transposed"], VALUES[12:].reshape(3, 4).T)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 42


@pytest.mark.parametrize("write", [legacy, zipped])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.nn.modules.conv", "Conv2d"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "defaultdict"),
        ("numpy", "load"),
    ],
)
def test_any_other_global_is_refused_by_name(
    write: Any, module: str, name: str, tmp_path: Path
) -> None:
    detail = refusal(write({"w": Global(module, name, "x")}, []), tmp_path)

    assert f"{module}.{name}" in detail


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_no_code_runs(tmp_path: Path) -> None:
    target = tmp_path / "ran"

    refusal(pickle.dumps(Touch(target)), tmp_path)
    refusal(legacy({"w": 1}, []) + pickle.dumps(Touch(target)), tmp_path)

    assert not target.exists()


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2, 2), (23, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 5),
        ((2,), (1,), -3),
        ((2, 2), (1,), 0),
        ((10**9,), (0,), 0),
        ((2.0,), (1,), 0),
    ],
)
def test_tensor_that_leaves_its_storage(
    size: Any, stride: Any, offset: int, tmp_path: Path
) -> None:
    storage = Storage("0", VALUES)

    refusal(legacy({"w": tensor(storage, size, stride, offset)}, [storage]), tmp_path)


def test_storage_view_is_refused(tmp_path: Path) -> None:
    storage = Storage("0", VALUES, view=("1", 0, 4))

    refusal(legacy({"w": tensor(storage, (4,), (1,))}, [storage]), tmp_path)


def test_big_endian_is_refused(tmp_path: Path) -> None:
    assert "big-endian" in refusal(legacy({}, [], little_endian=False), tmp_path)


@pytest.mark.parametrize("state", [[1, 2], {"w": 3}, {4: "x"}, "text"])
def test_what_is_no_dict_of_tensors(state: Any, tmp_path: Path) -> None:
    refusal(legacy(state, []), tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"text", b"PK\x03\x04", pickle.dumps(3), zipped({}, [])[:40]]
)
def test_what_is_no_checkpoint(data: bytes, tmp_path: Path) -> None:
    refusal(data, tmp_path)


STORAGE = Storage("0", VALUES)
SOUND = legacy({"w": tensor(STORAGE, (24,), (1,))}, [STORAGE])


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(SOUND) - 1), value=st.integers(0, 255), end=st.integers(1, 400))
def test_damaged_checkpoints_never_escape(
    position: int, value: int, end: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(SOUND)
    data[position] = value

    try:
        tensors = read(bytes(data[:end]), tmp_path_factory.getbasetemp())
    except InvalidRequest:
        return
    assert all(isinstance(array, np.ndarray) for array in tensors.values())


@pytest.mark.parametrize("name", [name for name in ENCODERS if ENCODERS[name].weights_file])
def test_published_weights(name: str) -> None:
    record = ENCODERS[name]
    path = metadata.distribution(record.distribution).locate_file(record.weights_file)

    tensors = read_checkpoint(Path(str(path)))

    assert tensors["_conv_head.weight"].shape[0] == record.dim
    assert tensors["_fc.weight"].shape == (1000, record.dim)
    assert all(np.isfinite(array).all() for array in tensors.values())
