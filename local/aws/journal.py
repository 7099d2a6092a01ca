"""The file that keeps the local AWS: a SQLite database; a commit is on disk when it returns.

It knows rows and bytes, nothing of moto. SQLite's write-ahead log recognises a torn tail by its
checksums and cuts it, takes back what does not fit on a full disk, and locks out a second process.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x4C4F4F4B
FORMAT = 1
"""Raised when older versions of the project cannot read what is written."""
CHUNK_BYTES = 1 << 18
_CHUNK_BITS = 24
"""Of a chunk's number; the bits above are its body's."""
_BINARY = "\0binary"
_BINARY_ESCAPED = json.dumps(_BINARY)
_PAGES_BEFORE_CHECKPOINT = 4_000
_MAX_LOG_BYTES = 1 << 26

_TABLES = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, resource TEXT, at REAL, request BLOB UNIQUE
);
CREATE TABLE versions (
    bucket TEXT, key BLOB, position INTEGER, body INTEGER, state TEXT,
    PRIMARY KEY (bucket, key, position)
);
CREATE TABLE uploads (bucket TEXT, upload TEXT, state TEXT, PRIMARY KEY (bucket, upload));
CREATE TABLE parts (
    bucket TEXT, upload TEXT, number INTEGER, body INTEGER, state TEXT,
    PRIMARY KEY (bucket, upload, number)
);
CREATE TABLE items (
    arn TEXT, hash_key BLOB, range_key BLOB, state TEXT, PRIMARY KEY (arn, hash_key, range_key)
);
CREATE TABLE messages (
    arn TEXT, message TEXT, sequence INTEGER, state TEXT, PRIMARY KEY (arn, message)
);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, content BLOB);
"""


class JournalError(Exception):
    """The file cannot be used; the message says why and what to do."""


class Journal:
    """An open journal.

    Parameters
    ----------
    path
        The file; made when it is missing.

    Raises
    ------
    JournalError
        Another process uses the file, a newer version wrote it, or it is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        try:
            # Before the log is opened: then its index is in memory and the lock is for good.
            self.rows("PRAGMA locking_mode = EXCLUSIVE")
            is_new = self._is_new()
            self.rows("PRAGMA journal_mode = WAL")
            self.rows("PRAGMA synchronous = FULL")
            self.rows(f"PRAGMA wal_autocheckpoint = {_PAGES_BEFORE_CHECKPOINT}")
            self.rows(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
            with self.transaction():
                for statement in _TABLES.split(";\n") if is_new else ():
                    self.rows(statement)
            self._bodies = (self.rows("SELECT max(id) FROM chunks")[0][0] or 0) >> _CHUNK_BITS
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise JournalError(
                    f"{self._path} is in use by another process; a data folder has one local cloud."
                ) from error
            raise JournalError(f"{self._path} cannot be used: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise JournalError(f"{self._path} is not a journal of Lookalike: {error}.") from error

    def _is_new(self) -> bool:
        application = self.rows("PRAGMA application_id")[0][0]
        version = self.rows("PRAGMA user_version")[0][0]
        if application == 0 and not self.rows("SELECT 1 FROM sqlite_master LIMIT 1"):
            return True
        if application != APPLICATION_ID:
            raise JournalError(f"{self._path} is not a journal of Lookalike.")
        if version > FORMAT:
            raise JournalError(
                f"{self._path} was written by a newer Lookalike (format {version}, this one reads "
                f"up to {FORMAT}); update it, or choose another folder with --data-dir."
            )
        return False

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is done within, or nothing; on disk at the end."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite ends the transaction itself after some errors.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and read its rows."""
        return self._database.execute(statement, values).fetchall()

    def write_body(self, content: bytes) -> int:
        """Keep a content; returns its number."""
        self._bodies += 1
        first = self._bodies << _CHUNK_BITS
        view = memoryview(content)
        self._database.executemany(
            "INSERT INTO chunks VALUES (?, ?)",
            (
                (first + position, view[start : start + CHUNK_BYTES])
                for position, start in enumerate(range(0, len(content) or 1, CHUNK_BYTES))
            ),
        )
        return self._bodies

    def read_body(self, body: int, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of a content; reads only the chunks that have them."""
        first = body << _CHUNK_BITS
        lowest = start // CHUNK_BYTES
        chunks = self._database.execute(
            "SELECT content FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id",
            (first + lowest, first + max(end - 1, start) // CHUNK_BYTES),
        )
        content = b"".join(row[0] for row in chunks)
        offset = lowest * CHUNK_BYTES
        if start == offset and end - offset == len(content):
            return content
        return content[start - offset : end - offset]

    def delete_body(self, body: int) -> None:
        """Free a content's space for others."""
        first = body << _CHUNK_BITS
        self.rows(
            "DELETE FROM chunks WHERE id BETWEEN ? AND ?",
            (first, first + (1 << _CHUNK_BITS) - 1),
        )


def encode_text(text: str) -> bytes:
    """A column's bytes of any string, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def decode_text(column: bytes) -> str:
    """The string of ``encode_text``."""
    return column.decode("utf-8", "surrogatepass")


def encode_state(fields: dict[str, Any]) -> str:
    """A column of named fields. JSON of the standard library, which escapes lone surrogates."""
    return json.dumps(fields, separators=(",", ":"), default=_binary)


def decode_state(column: str) -> dict[str, Any]:
    """The fields of ``encode_state``."""
    hook = _from_binary if _BINARY_ESCAPED in column else None
    return dict(json.loads(column, object_hook=hook))


def _binary(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {_BINARY: base64.b64encode(value).decode()}
    raise TypeError(f"The journal cannot keep a {type(value).__name__}.")


def _from_binary(fields: dict[str, Any]) -> Any:
    return base64.b64decode(fields[_BINARY]) if fields.keys() == {_BINARY} else fields
