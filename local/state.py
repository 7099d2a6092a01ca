"""The state folder: the record of the running local cloud, and the lock that admits only one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

LOCK_NAME = "lock"
STATE_NAME = "state.json"


class AlreadyRunning(Exception):
    """Another local cloud uses the folder."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where the running local cloud is. ``pids`` has the supervisor and its children by name."""

    data_dir: str
    api_url: str
    aws_url: str
    control_url: str
    dashboard_url: str | None
    started_at: str
    pids: dict[str, int]


class FolderLock:
    """Held while a local cloud runs; the kernel lets go of it however the process ends."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._path = data_dir / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        AlreadyRunning
            Another process has it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunning(
                f"A local cloud already runs on {self._path.parent}; stop it, or choose another "
                "folder with --data-dir."
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def write_state(data_dir: Path, state: State) -> None:
    """Replace the record in one step."""
    staged = data_dir / f".{STATE_NAME}.{os.getpid()}"
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
    staged.replace(data_dir / STATE_NAME)


def remove_state(data_dir: Path) -> None:
    """Remove the record."""
    (data_dir / STATE_NAME).unlink(missing_ok=True)


def find_running(data_dir: Path) -> State | None:
    """The local cloud that runs on a folder; a record that a crash left does not count."""
    try:
        state = msgspec.json.decode((data_dir / STATE_NAME).read_bytes(), type=State)
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except (OSError, msgspec.MsgspecError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return state
    finally:
        os.close(descriptor)
    return None
