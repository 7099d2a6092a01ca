"""Builds an encoder's graph into a model folder: weights → graph → (int8) → file → manifest.

Everything is written under a temporary name, flushed, and renamed; the manifest comes last. Graph
files are named by their content, so that builders that race each leave a complete pair and the
last manifest wins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from PIL import Image

from lookalike.core.encoders import check_precision, encoder_record
from lookalike.core.errors import Unavailable
from lookalike.models import (
    Manifest,
    file_sha256,
    find_model,
    manifest_path,
)


def build_model(
    name: str,
    precision: str,
    model_dir: Path,
    weights: Path | None = None,
    force: bool = False,
    calibration: Sequence[Image.Image] | None = None,
) -> Path:
    """Build an encoder's ONNX graph, unless a sound one is there already.

    Parameters
    ----------
    name
        An encoder of `lookalike.core.encoders.ENCODERS`.
    precision
        ``fp32`` or ``int8``.
    model_dir
        Folder that the graph and its manifest are written to; made if missing.
    weights
        Checkpoint to use instead of the published one; always builds.
    force
        Build even if a sound graph is there.
    calibration
        RGB images that int8 ranges are measured on; by default those drawn by
        `lookalike.modelbuild.calibration`.

    Returns
    -------
    Path
        The graph.

    Raises
    ------
    Unavailable
        Weights or a package that is needed to build are missing; the message says what to install.
    InvalidRequest
        There is no such encoder or precision, or the checkpoint is refused.
    """
    record = encoder_record(name)
    check_precision(precision)
    if not force and weights is None:
        try:
            return find_model(record, precision, model_dir)
        except Unavailable:
            pass  # missing, damaged or of another release: exactly what building is for
    _require_onnx()
    from lookalike.modelbuild.checkpoint import read_checkpoint
    from lookalike.modelbuild.networks import build_graph
    from lookalike.modelbuild.weights import find_weights

    model_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model_dir, prefix=".build-") as folder:
        scratch = Path(folder)
        source = find_weights(record, weights, scratch)
        model = build_graph(record, read_checkpoint(source))
        if precision == "int8":
            from lookalike.modelbuild.quantize import quantize

            model = quantize(model, record, calibration, scratch)
        built = scratch / "graph.onnx"
        _write(built, model.SerializeToString(deterministic=True))
        digest = file_sha256(built)
        manifest = Manifest(
            encoder=record.name,
            precision=precision,
            file=f"{record.name}-{precision}-{digest[:12]}.onnx",
            sha256=digest,
            source_sha256=file_sha256(source),
            created_with={
                package: metadata.version(package) for package in ("numpy", "onnx", "onnxruntime")
            },
        )
        described = scratch / "manifest.json"
        _write(described, manifest.to_json().encode())
        built.replace(model_dir / manifest.file)
        described.replace(manifest_path(record, precision, model_dir))
        _sync_folder(model_dir)
    return model_dir / manifest.file


def ensure_model(name: str, precision: str, model_dir: Path) -> Path:
    """The verified graph of an encoder, built first if it is missing or damaged."""
    return build_model(name, precision, model_dir)


def _require_onnx() -> None:
    try:
        import onnx
    except ImportError:
        raise Unavailable(
            "Building an encoder needs the onnx package; run: pip install onnx"
        ) from None
    del onnx


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the renames durable; a folder can be synced on POSIX only."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
