"""lancedb: a table in a folder, IVF_FLAT on the embeddings, bitmap indexes on the attributes.

Of its vector indexes IVF_FLAT is the fastest here at any recall: IVF_SQ and IVF_PQ need a second
pass over the rows for theirs, IVF_HNSW_SQ took a minute to build at 100,000 rows.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from index.bucket_server import bucket_server
from index.contender import ROUNDS, ROWS_PER_LIST, Contender
from index.vectors import ATTRIBUTES, STEPS, Filter, Float32, K
from index.wire import SlowWire
from lancedb.index import Bitmap, IvfFlat

_ACCESS = {
    "allow_http": "true",
    "aws_access_key_id": "none",
    "aws_secret_access_key": "none",
    "aws_region": "us-east-1",
}


class LanceTable(Contender):
    """An append is ``table.add``: new files and a new version, without fsync."""

    setting = "nprobes"
    efforts = (1, 4, 16, 32, 64, 128)

    def build(self) -> None:
        values = self.vectors.values
        rows = _rows(0, self.vectors.embeddings, values)
        table = lancedb.connect(self.folder).create_table("rows", rows, mode="overwrite")
        lists = round(4 * math.sqrt(self.vectors.rows))
        lists_ = IvfFlat("dot", lists, max_iterations=ROUNDS, sample_rate=ROWS_PER_LIST)
        table.create_index("vector", config=lists_)
        for name in ATTRIBUTES:
            table.create_index(name, config=Bitmap())

    def open(self) -> None:
        self.table = lancedb.connect(self.folder).open_table("rows")

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        search = self.table.search(query).distance_type("dot").nprobes(effort).limit(K)
        if condition:
            search = search.where(f"{condition.attribute} < {condition.bound}")
        return search.select(["id", "_distance"]).to_arrow()["id"].to_pylist()

    @contextmanager
    def opened_remote(self, scratch: Path, wire: SlowWire, background: bool) -> Iterator[bool]:
        with bucket_server(self.folder, wire) as url:
            self.table = lancedb.connect(
                "s3://b/", storage_options={"aws_endpoint": url, **_ACCESS}
            ).open_table("rows")
            yield True

    def prepare_append(self, scratch: Path) -> None:
        # Its files are never changed, so links to them will do.
        shutil.copytree(self.folder, scratch / "table", copy_function=os.link)
        self.table = lancedb.connect(scratch / "table").open_table("rows")
        self._next = self.vectors.rows

    def append(self, embeddings: Float32, durable: bool = True) -> None:
        count = len(embeddings)
        values = {name: np.arange(count) % STEPS for name in ATTRIBUTES}
        self.table.add(_rows(self._next, embeddings, values))
        self._next += count


def _rows(first: int, embeddings: Float32, values: dict[str, np.ndarray]) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    columns = {name: pa.array(values[name].astype(np.int32)) for name in ATTRIBUTES}
    ids = np.arange(first, first + len(embeddings))
    return pa.table({"id": pa.array(ids), **columns, "vector": vectors})
