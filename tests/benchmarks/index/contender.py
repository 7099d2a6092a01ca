"""What every index in the comparison is asked to do."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from index.vectors import Filter, Float32, Vectors
from index.wire import SlowWire, fetch_whole

# How inverted lists of those that leave it to the caller are trained.
ROUNDS = 10
ROWS_PER_LIST = 40

MODULES = {
    "lookalike": "index.ours:Ours",
    "lookalike folder": "index.ours:OursInFolder",
    "lookalike fsync": "index.ours:OursSynced",
    "lancedb": "index.lance:LanceTable",
    "usearch": "index.graphs:Usearch",
    "hnswlib": "index.graphs:Hnswlib",
    "faiss flat": "index.plain_faiss:Flat",
    "faiss ivf": "index.plain_faiss:Inverted",
}


class Contender(ABC):
    """One way to keep a catalogue's embeddings in ``folder`` and to search them.

    A process calls `build`, or `open` and then the rest. Row ids are 0 … rows − 1; appended rows go
    on from there.
    """

    setting: ClassVar[str] = ""
    efforts: Sequence[int] = ()
    has_background: ClassVar[bool] = False  # whether it fetches more than a search waits for
    rewrites: ClassVar[bool] = False  # whether a durable append writes all of the index

    def __init__(self, folder: Path, vectors: Vectors) -> None:
        self.folder = folder
        self.vectors = vectors

    @abstractmethod
    def build(self) -> None:
        """Index all rows and leave files in the folder. Two threads."""

    @abstractmethod
    def open(self) -> None:
        """Make ready to search, from the files."""

    @abstractmethod
    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        """Ten nearest rows, best first; raises NotImplementedError where it cannot filter."""

    @abstractmethod
    def prepare_append(self, scratch: Path) -> None:
        """Before any append: what is appended goes to ``scratch``, the files stay as they are."""

    @abstractmethod
    def append(self, embeddings: Float32, durable: bool = True) -> None:
        """Add (n, dim) rows so that they survive the process; else only so that they are found."""

    def after_appends(self) -> None:
        """Make appended rows searchable, where `append` does not."""
        return

    def exact(self, query: Float32, condition: Filter) -> list[int] | None:
        """What its own search of every row finds; None where there is none to choose."""
        return None

    def default_effort(self) -> int | None:
        """The effort that it comes with; None lets the benchmark choose by recall."""
        return None

    @contextmanager
    def opened_remote(self, scratch: Path, wire: SlowWire, background: bool) -> Iterator[bool]:
        """Make ready to search with the files behind the wire; False where that cannot be.

        Without ``background`` only what a search waits for is fetched.
        """
        yield False

    def fetch(self, target: Path, wire: SlowWire) -> None:
        """Fetch all files that a search needs; `open` opens those then."""
        fetch_whole(self.folder, target, wire)
        self.folder = target

    def size_bytes(self) -> dict[str, int]:
        """Bytes in the folder by what they are."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {"index": sum(path.stat().st_size for path in files)}


def contender(name: str, folder: Path, vectors: Vectors) -> Contender:
    """Make a contender; ImportError when its library is not installed."""
    module, _, kind = MODULES[name].partition(":")
    made: Contender = getattr(importlib.import_module(module), kind)(folder, vectors)
    return made
