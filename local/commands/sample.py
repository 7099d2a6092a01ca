"""Puts the sample catalogue into the bucket, drawing it first if no earlier run has.

Runs as a process of its own (``python -m local.commands.sample DATA_DIR PARENT_PID``), so that
drawing keeps nothing waiting, and reports on its standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from local.commands.upload_plan import PlannedFile
from local.die_with_parent import bind_to_parent
from lookalike import __version__
from lookalike.core.keys import PRODUCT_DOCUMENT

CATALOGUE = "sample"
EXAMPLE_PRODUCT = "mug-01"
EXAMPLE_QUERY = "mug.jpg"
_CHUNK = 24  # photos drawn between two trips to the bucket
_DRAWN = "drawn.json"
_QUERY_QUALITY = 90
_NICENESS = 10  # whoever tries a search meanwhile goes first


@dataclass(frozen=True, slots=True)
class SampleProgress:
    """How far the sample is: photos that are drawn and in the bucket, of how many."""

    photos: int
    total: int
    searchable: bool = False


def sample_folder(data_dir: Path) -> Path:
    """Where the drawn photos are kept: ``catalogue/`` and, to search with, ``queries/``."""
    return data_dir / "sample"


class SampleProcess:
    """The process that draws and uploads; stop it or read its progress to the end."""

    def __init__(self, data_dir: Path) -> None:
        # A session of its own: Ctrl-C is for the parent, which stops this process in its turn.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.commands.sample", str(data_dir), str(os.getpid())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def progress(self) -> Iterator[SampleProgress]:
        """What the process reports, as it does.

        Raises
        ------
        RuntimeError
            It failed; the message is its last line.
        """
        assert self._process.stdout is not None and self._process.stderr is not None
        for line in self._process.stdout:
            yield SampleProgress(**json.loads(line))
        said = self._process.stderr.read().strip().splitlines()
        if self._process.wait() > 0:
            raise RuntimeError(said[-1] if said else "no reason given")

    def stop(self) -> None:
        """End it if it still runs, and release its pipes."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def put_sample(data_dir: Path, report: Callable[[SampleProgress], None]) -> None:
    """Draw what is not drawn yet and upload it a few products at a time, until all is searchable.

    Raises
    ------
    Unreachable, Retry
        The local cloud has stopped.
    """
    from data.sample import products, query_photos, write_catalogue
    from local.commands.connection import connect
    from local.commands.upload import bucket_put
    from local.commands.upload_run import Upload

    folder = sample_folder(data_dir)
    connection = connect(data_dir)
    stores = connection.stores()
    bucket = connection.settings().images_bucket
    upload = Upload(stores.products, stores.failures, bucket_put(bucket))
    photos = [(product.product_id, view) for product in products() for view in product.views]
    sent = 0

    def planned(product_id: str, name: str) -> PlannedFile:
        path = folder / "catalogue" / product_id / name
        return PlannedFile(str(path), f"{CATALOGUE}/{product_id}/{name}")

    def on_drawn(drawn: int, total: int) -> None:
        nonlocal sent
        if drawn - sent >= _CHUNK or drawn == total:
            # Documents first: a photo's row is then written with its product's attributes at once.
            started = dict.fromkeys(product_id for product_id, _ in photos[sent:drawn])
            upload.send([planned(product_id, PRODUCT_DOCUMENT) for product_id in started])
            upload.send(
                [planned(product_id, f"{view}.jpg") for product_id, view in photos[sent:drawn]]
            )
            sent = drawn
            report(SampleProgress(sent, total))

    if _is_drawn(folder, len(photos)):
        on_drawn(len(photos), len(photos))
    else:
        write_catalogue(folder / "catalogue", on_drawn)
        queries = folder / "queries"
        queries.mkdir(exist_ok=True)
        for photo in query_photos():
            photo.image.save(queries / photo.name, quality=_QUERY_QUALITY)
        (folder / _DRAWN).write_text(_description(len(photos)))
    upload.finish()
    report(SampleProgress(sent, len(photos), searchable=True))


def _description(photos: int) -> str:
    return json.dumps({"version": __version__, "photos": photos})


def _is_drawn(folder: Path, photos: int) -> bool:
    marker = folder / _DRAWN
    return marker.is_file() and marker.read_text() == _description(photos)


def main(data_dir: Path, parent_pid: int) -> None:
    """Report progress on the standard output until all is searchable."""
    bind_to_parent(parent_pid)
    os.nice(_NICENESS)
    put_sample(data_dir, lambda progress: print(json.dumps(asdict(progress)), flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
