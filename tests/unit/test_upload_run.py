from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from local.commands.upload_plan import PlannedFile
from local.commands.upload_run import Upload
from lookalike.adapters.memory import MemoryFailures, MemoryProducts
from lookalike.core.attributes import from_user_metadata
from lookalike.core.errors import Unavailable
from lookalike.core.keys import parse_key
from lookalike.core.types import Document, Failure, Product, View


class Cloud:
    """A bucket that indexes what is put: at once, or at each of the upload's pauses."""

    def __init__(self, at_once: bool = True) -> None:
        self.now = 1000.0
        self.products = MemoryProducts()
        self.failures = MemoryFailures()
        self.puts: list[str] = []
        self.at_once = at_once
        self.waiting: list[PlannedFile] = []
        self.bad: dict[str, str] = {}
        self.on_pause: Callable[[], None] = self.index_next
        self._lock = threading.Lock()

    def put(self, file: PlannedFile) -> str:
        body = Path(file.path).read_bytes()
        with self._lock:
            self.puts.append(file.key)
            if self.at_once:
                self.index(file)
            else:
                self.waiting.append(file)
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    def index(self, file: PlannedFile) -> None:
        etag = hashlib.md5(Path(file.path).read_bytes(), usedforsecurity=False).hexdigest()
        parsed = parse_key(file.key)
        id_ = (parsed.catalogue, parsed.product_id)
        product = self.products.get_many([id_]).get(id_) or Product(*id_, generation="g")
        if file.key in self.bad:
            known = self.failures.get_many([file.key]).get(file.key)
            tries = known.tries + 1 if known else 1
            reason = self.bad[file.key]
            self.failures.put(
                Failure(parsed.catalogue, file.key, reason, "It is bad.", etag, self.now, tries)
            )
        elif parsed.is_document:
            self.products.put(replace(product, document=Document(etag, {})))
        else:
            attributes = from_user_metadata(file.metadata or {})
            view = View(
                file.key, etag, "v", "s", 0, 8, 8, "t", self.now, self.now + 2.0, attributes
            )
            self.products.put(replace(product, views={**product.views, file.key: view}))

    def index_next(self) -> None:
        if self.waiting:
            self.index(self.waiting.pop(0))

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.on_pause()

    def upload(self, *files: PlannedFile, watch: bool = True, patience_s: float = 60.0) -> Upload:
        upload = Upload(
            self.products,
            self.failures,
            self.put,
            clock=lambda: self.now,
            patience_s=patience_s,
            pause=self.pause,
        )
        upload.send(files, watch=watch)
        upload.finish()
        return upload


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., PlannedFile]:
    def make(key: str, body: bytes = b"", **metadata: str) -> PlannedFile:
        path = tmp_path / key.replace("/", "_")
        path.write_bytes(body or key.encode())
        return PlannedFile(str(path), key, metadata or None)

    return make


Make = Callable[..., PlannedFile]


def test_everything_becomes_searchable(make: Make) -> None:
    cloud = Cloud()
    files = [make(f"shop/{n}.jpg") for n in range(250)] + [make("shop/5/product.json")]
    report = cloud.upload(*files).report
    assert (report.total, report.uploaded, report.searchable) == (251, 251, 251)
    assert sorted(cloud.puts) == sorted(file.key for file in files)
    assert not report.failed and not report.waiting
    # A document has no moment at which it became searchable.
    assert report.latencies_s == [2.0] * 250


def test_a_second_upload_sends_nothing(make: Make) -> None:
    cloud = Cloud()
    files = [make("shop/a.jpg", title="A"), make("shop/b.jpg"), make("shop/b/product.json")]
    cloud.upload(*files)
    report = cloud.upload(*files).report
    assert len(cloud.puts) == 3
    assert (report.unchanged, report.uploaded, report.searchable) == (3, 0, 0)


def test_changed_content_or_metadata_is_sent_again(make: Make) -> None:
    cloud = Cloud()
    cloud.upload(make("shop/a.jpg", b"1", title="A"), make("shop/b.jpg", b"2", title="B"))
    report = cloud.upload(
        make("shop/a.jpg", b"other", title="A"), make("shop/b.jpg", b"2", title="Better")
    ).report
    assert report.searchable == 2
    # New metadata of the same photo takes effect, but the photo was searchable all along.
    assert len(report.latencies_s) == 1
    product = cloud.products.get_many([("shop", "b")])["shop", "b"]
    assert product.attributes == {"title": "Better"}


def test_without_a_metadata_file_the_stored_metadata_stays(make: Make) -> None:
    cloud = Cloud()
    cloud.upload(make("shop/a.jpg", b"1", title="A"))
    assert cloud.upload(make("shop/a.jpg", b"1")).report.unchanged == 1
    assert len(cloud.puts) == 1


def test_failures_are_reported_and_not_sent_twice(make: Make) -> None:
    cloud = Cloud()
    cloud.bad["shop/bad.jpg"] = "not-an-image"
    files = [make("shop/bad.jpg"), make("shop/good.jpg")]
    first = cloud.upload(*files).report
    assert [(f.key, f.reason, f.known) for f in first.failed] == [
        ("shop/bad.jpg", "not-an-image", False)
    ]
    assert first.searchable == 1
    second = cloud.upload(*files).report
    assert [(f.key, f.known) for f in second.failed] == [("shop/bad.jpg", True)]
    assert len(cloud.puts) == 2
    del cloud.bad["shop/bad.jpg"]
    third = cloud.upload(make("shop/bad.jpg", b"repaired")).report
    assert (third.searchable, third.failed) == (1, [])


def test_what_was_given_up_is_sent_again_and_its_old_failure_is_no_answer(make: Make) -> None:
    cloud = Cloud()
    cloud.bad["shop/a.jpg"] = "gave-up"
    file = make("shop/a.jpg")
    assert len(cloud.upload(file).report.failed) == 1
    del cloud.bad["shop/a.jpg"]
    cloud.at_once = False
    report = cloud.upload(file).report
    assert (report.searchable, report.failed) == (1, [])


def test_waiting_lasts_as_long_as_anything_moves(make: Make) -> None:
    cloud = Cloud(at_once=False)
    files = [make(f"shop/{n}.jpg") for n in range(5)]
    # One photo a pause, each pause just within patience: five times patience in all.

    def index_slowly() -> None:
        cloud.now += 9.0
        cloud.index_next()

    cloud.on_pause = index_slowly
    report = cloud.upload(*files, patience_s=10.0).report
    assert report.searchable == 5
    assert cloud.now > 1000 + 40


def test_patience_ends(make: Make) -> None:
    cloud = Cloud(at_once=False)
    cloud.on_pause = lambda: None
    report = cloud.upload(make("shop/a.jpg"), make("shop/b.jpg"), patience_s=10.0).report
    assert sorted(file.key for file in report.waiting) == ["shop/a.jpg", "shop/b.jpg"]
    assert 1010 < cloud.now < 1012


def test_files_that_are_stuck_do_not_hide_others(make: Make) -> None:
    cloud = Cloud(at_once=False)
    files = [make(f"shop/{n}.jpg") for n in range(150)]
    stuck = {file.key for file in files[:120]}

    def index_others() -> None:
        for file in [item for item in cloud.waiting if item.key not in stuck]:
            cloud.waiting.remove(file)
            cloud.index(file)

    cloud.on_pause = index_others
    report = cloud.upload(*files, patience_s=5.0).report
    assert report.searchable == 30
    assert {file.key for file in report.waiting} == stuck


def test_without_waiting_nothing_is_watched(make: Make) -> None:
    cloud = Cloud(at_once=False)
    report = cloud.upload(make("shop/a.jpg"), watch=False).report
    assert (report.uploaded, report.searchable, report.waiting) == (1, 0, [])


def test_a_file_that_cannot_be_read_fails_alone(make: Make, tmp_path: Path) -> None:
    cloud = Cloud()
    gone = PlannedFile(str(tmp_path / "gone.jpg"), "shop/gone.jpg")
    report = cloud.upload(gone, make("shop/a.jpg")).report
    assert [(item.key, item.reason) for item in report.failed] == [("shop/gone.jpg", "unreadable")]
    assert report.searchable == 1


def test_a_bucket_that_cannot_be_reached_stops_the_upload(make: Make) -> None:
    cloud = Cloud()

    def put(file: PlannedFile) -> str:
        raise Unavailable("no bucket")

    upload = Upload(cloud.products, cloud.failures, put)
    with pytest.raises(Unavailable, match="no bucket"):
        upload.send([make(f"shop/{n}.jpg") for n in range(300)])
