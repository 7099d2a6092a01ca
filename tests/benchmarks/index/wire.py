"""A slow wire: every GET waits, and bytes come at a connection's speed. Sleeps are real."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROUND_TRIP_S = 0.030
BYTES_PER_S = 90e6
CONNECTIONS = 8


class SlowWire:
    """Counts and delays GETs. Those of different threads are different connections."""

    def __init__(self, round_trip_s: float = ROUND_TRIP_S, bytes_per_s: float = BYTES_PER_S):
        self.round_trip_s = round_trip_s
        self.bytes_per_s = bytes_per_s
        self.gets = 0
        self.bytes = 0
        self._is_cut = False
        self._lock = threading.Lock()

    def carry(self, size_bytes: int, begun: float) -> None:
        """Wait until a GET of so many bytes that ``begun`` then would be done; count it then.

        ``begun`` is of `time.perf_counter`: what reading and writing files took meanwhile is not
        added, as on a real wire it goes on beside.
        """
        if self._is_cut:
            raise ConnectionError("the wire is cut")
        done = begun + self.round_trip_s + size_bytes / self.bytes_per_s
        time.sleep(max(0.0, done - time.perf_counter()))
        with self._lock:
            self.gets += 1
            self.bytes += size_bytes

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._is_cut = True


def fetch_whole(source: Path, target: Path, wire: SlowWire) -> None:
    """Copy all files of a folder over the wire: 8 connections, as few GETs as keep them busy."""
    paths = sorted(item for item in source.rglob("*") if item.is_file())
    total = sum(path.stat().st_size for path in paths)
    length = max(-(-total // CONNECTIONS), 2**20)
    parts = []
    for path in paths:
        size = path.stat().st_size
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("wb") as file:
            file.truncate(size)
        parts += [(path, copy, start, length) for start in range(0, max(size, 1), length)]

    def fetch(item: tuple[Path, Path, int, int]) -> None:
        path, copy, start, length = item
        begun = time.perf_counter()
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        with copy.open("r+b") as file:
            file.seek(start)
            file.write(data)
        wire.carry(len(data), begun)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(fetch, parts))
