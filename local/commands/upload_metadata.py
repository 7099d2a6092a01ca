"""Reads metadata files (CSV, JSON lines) and turns their rows into S3 user metadata."""

from __future__ import annotations

import csv
import json
import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.header import Header
from pathlib import Path
from typing import Any

from lookalike.core.attributes import MAX_ATTRIBUTES, MAX_NAME_CHARS
from lookalike.core.errors import InvalidRequest

MAX_USER_METADATA_BYTES = 2048  # S3's own limit on names and values together
FILE_COLUMN = "file"
PRODUCT_COLUMN = "product_id"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the product it names (maybe empty) and its other columns as S3 user metadata."""

    product_id: str
    user_metadata: Mapping[str, str]


class MetadataRows:
    """The rows of one metadata file, found by the files or products that they describe.

    Parameters
    ----------
    path
        ``.csv`` with a header line, or ``.jsonl`` with one object a line; UTF-8.

    Raises
    ------
    InvalidRequest
        The file cannot be read, or a row is wrong; the message names file and row.
    """

    def __init__(self, path: Path) -> None:
        self._folder = str(path.parent.resolve())
        self._by_path: dict[str, Row] = {}
        self._by_name: dict[str, Row] = {}
        self._by_product: dict[str, Row] = {}
        for number, values in _read(path):
            where = f"{path}, row {number}"
            row = _row(values, where)
            file = str(values.get(FILE_COLUMN) or "").strip()
            if file:
                self._add(self._by_path, os.path.normpath(Path(self._folder, file)), row, where)
                self._by_name.setdefault(file.removeprefix("./"), row)
            elif row.product_id:
                self._add(self._by_product, row.product_id, row, where)
            else:
                raise InvalidRequest(f"{where}: needs a {FILE_COLUMN} or a {PRODUCT_COLUMN}.")

    def _add(self, rows: dict[str, Row], name: str, row: Row, where: str) -> None:
        if name in rows:
            raise InvalidRequest(f"{where}: an earlier row describes {name} already.")
        rows[name] = row

    def find(self, path: str, relative: str, product_id: str) -> Row | None:
        """The row of a file.

        Parameters
        ----------
        path
            Its absolute path.
        relative
            Its path from the folder that was given, with ``/``.
        product_id
            The product it belongs to unless its row says otherwise.
        """
        return (
            self._by_path.get(path)
            or self._by_name.get(relative)
            or self._by_name.get(relative.rpartition("/")[2])
            or self._by_product.get(product_id)
        )


def _read(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".jsonl"}:
        raise InvalidRequest(f"{path} is neither .csv nor .jsonl.")
    try:
        # utf-8-sig: spreadsheets begin their CSV files with a byte order mark.
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else None) as lines:
            yield from _csv_rows(path, lines) if suffix == ".csv" else _json_rows(path, lines)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except csv.Error as error:
        raise InvalidRequest(f"{path} cannot be read as CSV: {error}.") from error


def _csv_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = reader.fieldnames or []
    if FILE_COLUMN not in names and PRODUCT_COLUMN not in names:
        raise InvalidRequest(
            f"{path} has neither a {FILE_COLUMN} nor a {PRODUCT_COLUMN} column in its first line."
        )
    for number, row in enumerate(reader, 2):
        if None in row:
            raise InvalidRequest(f"{path}, row {number}: has more values than the first line.")
        yield number, row


def _json_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"{path}, row {number}: not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise InvalidRequest(f"{path}, row {number}: must be a JSON object.")
        yield number, row


def _row(values: Mapping[str, Any], where: str) -> Row:
    product_id = values.get(PRODUCT_COLUMN)
    product_id = "" if product_id is None else str(product_id).strip()
    if "/" in product_id:
        raise InvalidRequest(f"{where}: a {PRODUCT_COLUMN} must not contain “/”.")
    attributes = {
        name: value for name, value in values.items() if name not in {FILE_COLUMN, PRODUCT_COLUMN}
    }
    return Row(product_id, user_metadata(attributes, where))


def user_metadata(attributes: Mapping[str, Any], where: str) -> dict[str, str]:
    """Attributes as S3 user metadata: names in lower case with ``_`` for spaces, values in ASCII.

    Values that are not printable ASCII are encoded words (RFC 2047), which
    `lookalike.core.attributes.from_user_metadata` reads back. Empty values and nulls are left out.

    Parameters
    ----------
    attributes
        Texts, numbers and booleans by name.
    where
        What to call the row in messages.

    Raises
    ------
    InvalidRequest
        A name or value cannot be user metadata, or they are more than S3's 2 KB.
    """
    encoded: dict[str, str] = {}
    for name, value in attributes.items():
        key = "_".join(name.split()).lower()
        if not _NAME.fullmatch(key) or len(key) > MAX_NAME_CHARS:
            raise InvalidRequest(
                f"{where}: “{name}” cannot name S3 metadata; use up to {MAX_NAME_CHARS} letters "
                "(a to z), digits, “_”, “-” and “.”, or put it in a product.json."
            )
        if isinstance(value, list | dict):
            raise InvalidRequest(
                f"{where}: “{name}” holds several values; those go in a product.json."
            )
        text = (
            json.dumps(value)
            if isinstance(value, bool)
            else str(value if value is not None else "")
        )
        if text.strip():
            encoded[key] = _encoded(text.strip())
    size = sum(len(name) + len(value) for name, value in encoded.items())
    if size > MAX_USER_METADATA_BYTES:
        raise InvalidRequest(
            f"{where}: its metadata has {size} bytes; S3 takes {MAX_USER_METADATA_BYTES} with an "
            "object (other alphabets count double or more). Put long texts in a product.json."
        )
    if len(encoded) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"{where}: has {len(encoded)} attributes; {MAX_ATTRIBUTES} are kept.")
    return encoded


def _encoded(value: str) -> str:
    if _PLAIN_VALUE.fullmatch(value) and "=?" not in value:
        return value
    return Header(value, "utf-8").encode(maxlinelen=0)
