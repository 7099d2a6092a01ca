"""Finds an encoder's weights: inside an installed wheel, in a file, or through torchvision."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path

from lookalike.core.encoders import EncoderRecord
from lookalike.core.errors import InvalidRequest, Unavailable
from lookalike.models import file_sha256


def find_weights(record: EncoderRecord, weights: Path | None, scratch: Path) -> Path:
    """The checkpoint file of an encoder.

    Parameters
    ----------
    record
        The encoder.
    weights
        A checkpoint to use instead of the published one.
    scratch
        Folder for a download.

    Raises
    ------
    Unavailable
        A package is missing or the download fails; the message says what to install.
    InvalidRequest
        ``weights`` does not exist, or published weights have another digest than the record's.
    """
    if weights is not None:
        if not weights.is_file():
            raise InvalidRequest(f"There is no file {weights}.", parameter="weights")
        return weights
    path = _in_wheel(record) if record.weights_file else _download(record, scratch)
    digest = file_sha256(path)
    if not digest.startswith(record.weights_sha256):
        raise InvalidRequest(
            f"{path} is not what {record.name} was published as: its SHA-256 is {digest}, expected "
            f"{record.weights_sha256}.",
            parameter="weights",
        )
    return path


def _in_wheel(record: EncoderRecord) -> Path:
    """The weights file of an installed distribution, found without importing any of its code."""
    command = f"pip install {record.distribution}"
    try:
        path = Path(
            str(metadata.distribution(record.distribution).locate_file(record.weights_file))
        )
    except metadata.PackageNotFoundError:
        raise Unavailable(
            f"The weights of {record.name} are not installed; run: {command}"
        ) from None
    if not path.is_file():
        raise Unavailable(
            f"{record.distribution} is installed without {record.weights_file}; "
            f"run: {command} --force-reinstall"
        )
    return path


def _download(record: EncoderRecord, scratch: Path) -> Path:
    try:
        from torch.hub import download_url_to_file
        from torchvision.models import ResNet50_Weights
    except ImportError:
        raise Unavailable(
            f"{record.name} takes its weights from torchvision; give a checkpoint with "
            "--weights FILE, or run: pip install 'lookalike[torch]'"
        ) from None
    handle = tempfile.NamedTemporaryFile(dir=scratch, suffix=".pth", delete=False)  # noqa: SIM115
    handle.close()
    url = ResNet50_Weights.IMAGENET1K_V2.url
    try:
        download_url_to_file(url, handle.name, hash_prefix=record.weights_sha256, progress=False)
    except (OSError, RuntimeError) as error:
        raise Unavailable(
            f"{url} cannot be downloaded ({error}); download it elsewhere and give it with "
            "--weights FILE"
        ) from error
    return Path(handle.name)
