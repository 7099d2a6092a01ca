"""Log files of a limited size, one a process or function, in ``.lookalike/logs``."""

from __future__ import annotations

import logging
import logging.handlers
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 5_000_000
KEPT_FILES = 2


class _Handler(logging.handlers.RotatingFileHandler):
    """Leaves a line out that cannot be written, on a full disk: there is nowhere to say so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Open the file anew for the next line."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()


class LogFile:
    """A log file that is rotated at ``MAX_BYTES``; lines are written as they come."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._handler = _Handler(
            path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True
        )
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, line: str) -> None:
        """Append one line."""
        record = logging.LogRecord("local", logging.INFO, "", 0, "%s", (line,), None)
        self._handler.handle(record)

    def write_bytes(self, line: bytes) -> None:
        """Append one line as a process wrote it."""
        # awslambdaric ends the lines of a traceback with carriage returns, for CloudWatch.
        text = line.decode("utf-8", "replace").rstrip("\r\n").replace("\r", "\n")
        self.write(text)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log file; none when it does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400 * lines))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
