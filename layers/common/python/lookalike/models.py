"""Finds the ONNX graphs that `lookalike.modelbuild` made, and trusts none that it has not hashed.

A model folder holds, for each encoder and precision, a manifest ``<encoder>-<precision>.json`` that
names a graph file and its SHA-256. It is written last: a graph without one does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lookalike.core.encoders import EncoderRecord, check_precision
from lookalike.core.errors import Unavailable

BUILDER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known about one built graph."""

    encoder: str
    precision: str
    file: str
    sha256: str
    source_sha256: str
    builder_version: int = BUILDER_VERSION
    created_with: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest file's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def default_model_dir() -> Path:
    """Where graphs are kept unless told otherwise: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    return root / "lookalike" / "models"


def manifest_path(record: EncoderRecord, precision: str, model_dir: Path) -> Path:
    """Where the manifest of one encoder and precision is."""
    return model_dir / f"{record.name}-{precision}.json"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(record: EncoderRecord, precision: str, model_dir: Path) -> Manifest:
    """Read a manifest without looking at the graph.

    Raises
    ------
    Unavailable
        It is missing, unreadable, or of another release; the message says which command builds it.
    """
    path = manifest_path(record, precision, model_dir)
    command = build_command(record, precision)
    try:
        manifest = Manifest(**json.loads(path.read_bytes()))
        outside = Path(manifest.file).name != manifest.file
    except FileNotFoundError:
        raise Unavailable(
            f"{record.name} ({precision}) has not been built in {model_dir}; run: {command}"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(f"{path} cannot be read ({error}); run: {command}") from error
    if (manifest.encoder, manifest.precision) != (record.name, precision):
        raise Unavailable(f"{path} describes another graph; run: {command}")
    if manifest.builder_version != BUILDER_VERSION:
        raise Unavailable(f"{path} was made by another release; run: {command}")
    if outside:
        raise Unavailable(f"{path} names a file outside its folder; run: {command}")
    return manifest


def find_model(record: EncoderRecord, precision: str, model_dir: Path) -> Path:
    """The graph of an encoder, verified against its manifest.

    Parameters
    ----------
    record
        The encoder.
    precision
        ``fp32`` or ``int8``.
    model_dir
        Folder of graphs and manifests.

    Raises
    ------
    Unavailable
        The graph is missing or damaged; the message names the file and the command that builds it.
    InvalidRequest
        There is no such precision.
    """
    check_precision(precision)
    manifest = read_manifest(record, precision, model_dir)
    path = model_dir / manifest.file
    command = build_command(record, precision)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error}); run: {command}") from error
    if digest != manifest.sha256:
        raise Unavailable(
            f"{path} is damaged: its SHA-256 is {digest[:12]}…, its manifest says "
            f"{manifest.sha256[:12]}…; run: {command}"
        )
    return path


def build_command(record: EncoderRecord, precision: str) -> str:
    """The command that builds a graph."""
    suffix = "" if precision == "fp32" else f" --precision {precision}"
    return f"lookalike model build {record.name}{suffix}"
