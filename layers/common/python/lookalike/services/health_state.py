"""How far a run of the health check is, and the rows that it works on, as working objects.

Each object is written under a name made of its content and named by the state that knows it, and
the state by the job's record: whoever goes on sees all of it as one moment left it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from lookalike.core.errors import CorruptFile
from lookalike.core.health import Mask, Rows
from lookalike.core.health_file import PartRows, decode_part
from lookalike.core.jobs import work_key
from lookalike.core.keys import content_digest
from lookalike.core.neighbours import Float32, Int64
from lookalike.core.ports import Stores
from lookalike.core.segment import dequantize
from lookalike.services.jobs import Run


class State(msgspec.Struct):
    """Where a run is, besides its phase.

    ``cursor`` says which rows were read into ``parts``; ``unreadable`` are files that could not be;
    ``looked_at`` names the facts of photos of the next part.
    ``centroids`` names the object with the centroids after so many ``rounds``, ``nearest`` those
    with the rows' centroids, ``divided`` rows so far; ``graph`` the neighbours of the lists before
    ``list_next``; ``copies`` the pairs found for the rows before ``compared``. ``counted`` is how
    many products there were when the run began.
    """

    generation: str
    encoder: str
    head: str
    through_at: float
    counted: int
    cursor: bytes = b""
    parts: list[str] = []
    rows: int = 0
    unreadable: list[str] = []
    looked_at: str = ""
    centroids: str = ""
    rounds: int = 0
    nearest: list[str] = []
    divided: int = 0
    list_next: int = 0
    graph: list[str] = []
    compared: int = 0
    copies: list[str] = []


def write_object(run: Run, kind: str, body: bytes) -> str:
    """Write a working object; gives its name."""
    name = f"{kind}-{content_digest(body)}"
    run.put(name, body)
    return name


def read_object(run: Run, name: str) -> bytes:
    """A working object; raises `CorruptFile` when it is not there."""
    body = run.get(name)
    if body is None:
        raise CorruptFile(f"the working object {name} of the health check is gone")
    return body


def save_state(stores: Stores, run: Run, state: State, **changes: Any) -> None:
    """Write the state, then the job's record with these changes, which names it."""
    before = run.job.cursor
    name = write_object(run, "state", msgspec.msgpack.encode(state))
    run.save(cursor=name, **changes)
    if before and before != name:
        stores.index.delete(work_key(run.job, before))


def read_state(run: Run) -> State | None:
    """The state that the job's record names; None when it names none that can be read."""
    body = run.get(run.job.cursor) if run.job.cursor else None
    try:
        return msgspec.msgpack.decode(body, type=State) if body else None
    except msgspec.MsgspecError:
        return None


@dataclass(frozen=True, slots=True)
class Gathered:
    """All rows of a run: what rules see, and what else is known of them.

    ``kept`` says which rows of the parts these are: of a view that was overwritten meanwhile the
    one read last.
    """

    rows: Rows
    codes: np.ndarray[tuple[int, int], np.dtype[np.int8]]
    scales: Float32
    thumbnails: np.ndarray[tuple[int], np.dtype[np.bytes_]]
    kept: Mask

    def embeddings(self, numbers: Int64) -> Float32:
        """(n, dim) float32, L2-normalised, of some rows."""
        return dequantize(self.codes[numbers], self.scales[numbers])


def gather(run: Run, state: State) -> Gathered:
    """Read the parts; raises `CorruptFile`."""
    parts = [decode_part(read_object(run, name), name) for name in state.parts]
    places: dict[str, int] = {}
    categories = []
    for part in parts:
        known = np.asarray([places.setdefault(n, len(places)) for n in part.names] + [-1], np.int32)
        categories.append(known[part.categories])
    views = np.concatenate([part.views for part in parts])
    _, last = np.unique(views[::-1], return_index=True)
    kept = np.zeros(len(views), dtype=np.bool_)
    kept[len(views) - 1 - last] = True

    def column(name: str) -> np.ndarray[Any, Any]:
        return np.concatenate([getattr(part, name) for part in parts])[kept]

    rows = Rows(
        products=column("products"),
        categories=np.concatenate(categories)[kept],
        names=tuple(places),
        sides=column("sides"),
        since=column("since"),
        facts=column("facts"),
    )
    return Gathered(rows, column("codes"), column("scales"), column("thumbnails"), kept)


def named_parts(run: Run, state: State) -> Iterator[PartRows]:
    """The parts once more, one at a time, with what their rows are called."""
    for name in state.parts:
        yield decode_part(read_object(run, name), name, named=True)
