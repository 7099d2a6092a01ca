"""Decides which files are uploaded under which keys, from folders and names alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.commands.upload_metadata import MetadataRows
from lookalike.core.errors import InvalidRequest, Unindexable
from lookalike.core.keys import IMAGE_EXTENSIONS, PRODUCT_DOCUMENT, parse_key


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file and its key. ``metadata`` is None when no metadata file says anything of it."""

    path: str
    key: str
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is not uploaded because no product could have its key."""

    path: str
    key: str
    reason: str
    detail: str


@dataclass(slots=True)
class UploadPlan:
    """What is uploaded.

    ``skipped`` counts files that are neither images nor product documents; ``undescribed`` counts
    images that no row of the metadata file describes.
    """

    files: list[PlannedFile] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    skipped: int = 0
    undescribed: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    folders: tuple[str, ...]
    """Folders between the given one and the file; the product's name, joined."""
    name: str


def plan_upload(
    paths: Sequence[Path], catalogue: str, rows: MetadataRows | None = None
) -> UploadPlan:
    """Find the files and give each its key.

    A file that is given, or directly inside a given folder, is a product of its own; one in
    folders below is a view of the product that the folders name. A given folder that holds a
    ``product.json`` is itself a product. A metadata row decides over both.

    Parameters
    ----------
    paths
        Files and folders; folders are searched all the way down.
    catalogue
        First part of every key.
    rows
        What a metadata file says.

    Raises
    ------
    InvalidRequest
        The catalogue's name is not possible, or two files would get the same key.
    """
    _check_catalogue(catalogue)
    plan = UploadPlan()
    path_of: dict[str, str] = {}
    for found in _find(paths):
        if not _is_wanted(found):
            plan.skipped += 1
            continue
        planned = _planned(found, catalogue, rows)
        earlier = path_of.get(planned.key)
        if earlier == planned.path:
            continue  # the same file, given twice
        if earlier is not None:
            raise InvalidRequest(
                f"{earlier} and {planned.path} would both be uploaded as {planned.key}; rename "
                "one, or upload them into different catalogues."
            )
        path_of[planned.key] = planned.path
        try:
            parsed = parse_key(planned.key)
        except Unindexable as error:
            plan.refused.append(Refusal(planned.path, planned.key, error.reason, error.detail))
        else:
            plan.files.append(planned)
            if rows is not None and planned.metadata is None and not parsed.is_document:
                plan.undescribed += 1
    return plan


def _check_catalogue(catalogue: str) -> None:
    try:
        parsed = parse_key(f"{catalogue}/x.jpg")
    except Unindexable as error:
        raise InvalidRequest(f"“{catalogue}” cannot name a catalogue: {error}") from None
    if parsed.catalogue != catalogue:
        raise InvalidRequest(f"“{catalogue}” cannot name a catalogue: it contains “/”.")


def _find(paths: Iterable[Path]) -> Iterator[_Found]:
    for path in paths:
        absolute = str(path.resolve())
        if path.is_dir():
            name = Path(absolute).name
            is_product = Path(absolute, PRODUCT_DOCUMENT).is_file()
            yield from _walk(absolute, (name,) if is_product and name else ())
        else:
            yield _Found(absolute, (), Path(absolute).name)


def _walk(folder: str, folders: tuple[str, ...]) -> Iterator[_Found]:
    """Files by name, then those of the folders below; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be read: {error.strerror}.") from error
    for entry in inside:
        if entry.is_file():
            yield _Found(entry.path, folders, entry.name)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _walk(entry.path, (*folders, entry.name))


def _is_wanted(found: _Found) -> bool:
    if found.name == PRODUCT_DOCUMENT:
        return bool(found.folders)
    stem, _, extension = found.name.rpartition(".")
    # Files such as ._front.jpg are what a Mac leaves on other people's disks; no photo is hidden.
    return bool(stem) and not stem.startswith(".") and extension.lower() in IMAGE_EXTENSIONS


def _planned(found: _Found, catalogue: str, rows: MetadataRows | None) -> PlannedFile:
    product_id = "-".join(found.folders)
    stem = found.name.rpartition(".")[0]
    row = None
    if rows is not None:
        relative = "/".join((*found.folders, found.name))
        row = rows.find(found.path, relative, product_id or stem)
    if found.name == PRODUCT_DOCUMENT:
        return PlannedFile(found.path, f"{catalogue}/{product_id}/{found.name}")
    if row is not None and row.product_id not in ("", product_id):
        product_id = "" if row.product_id == stem else row.product_id
    middle = f"{product_id}/" if product_id else ""
    key = f"{catalogue}/{middle}{found.name}"
    return PlannedFile(found.path, key, None if row is None else row.user_metadata)
