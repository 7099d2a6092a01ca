from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import data.sample
from local.commands.sample import (
    EXAMPLE_PRODUCT,
    EXAMPLE_QUERY,
    SampleProcess,
    SampleProgress,
    put_sample,
)
from local.commands.upload_plan import PlannedFile
from lookalike.adapters.memory import MemoryFailures, MemoryProducts
from lookalike.core.types import Document, Product, View

PRODUCTS = [SimpleNamespace(product_id=f"mug-{n:02}", views=("front", "side")) for n in range(30)]


class Bucket:
    """Indexes what is put at once."""

    def __init__(self) -> None:
        self.products = MemoryProducts()
        self.failures = MemoryFailures()
        self.keys: list[str] = []

    def put(self, file: PlannedFile) -> str:
        self.keys.append(file.key)
        catalogue, product_id, name = file.key.split("/")
        id_ = (catalogue, product_id)
        known = self.products.get_many([id_]).get(id_) or Product(*id_, generation="g")
        views, document = dict(known.views), known.document
        if name == "product.json":
            document = Document("e", {})
        else:
            views[file.key] = View(file.key, "e", "v", "s", 0, 8, 8, "t", 0.0, 0.0)
        self.products.put(Product(*id_, "g", views, document, known.updated_at, known.revision))
        return "e"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket()
    connection = SimpleNamespace(
        stores=lambda: made, settings=lambda: SimpleNamespace(images_bucket="photos")
    )
    # One at a time: views of one product would race for its record, as they may in no other test.
    monkeypatch.setattr("local.commands.upload_run.THREADS", 1)
    monkeypatch.setattr("local.commands.connection.connect", lambda data_dir: connection)
    monkeypatch.setattr("local.commands.upload.bucket_put", lambda name: made.put)
    monkeypatch.setattr(data.sample, "products", lambda: PRODUCTS)
    photo = SimpleNamespace(name="mug.jpg", image=Image.new("RGB", (4, 4)))
    monkeypatch.setattr(data.sample, "query_photos", lambda: [photo])
    return made


def draw(folder: Path, on_progress: Callable[[int, int], None]) -> None:
    photos = [(product.product_id, view) for product in PRODUCTS for view in product.views]
    for number, (product_id, view) in enumerate(photos, 1):
        place = folder / product_id
        place.mkdir(parents=True, exist_ok=True)
        (place / "product.json").write_text("{}")
        (place / f"{view}.jpg").write_text(view)
        on_progress(number, len(photos))


def test_the_sample_goes_in_as_it_is_drawn(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data.sample, "write_catalogue", draw)
    reports: list[SampleProgress] = []
    put_sample(tmp_path, reports.append)
    assert reports == [
        SampleProgress(24, 60),
        SampleProgress(48, 60),
        SampleProgress(60, 60),
        SampleProgress(60, 60, searchable=True),
    ]
    photos = [key for key in bucket.keys if key.endswith(".jpg")]
    assert len(photos) == len(set(photos)) == 60
    first = {key: bucket.keys.index(key) for key in bucket.keys}
    assert all(first[f"{key.rpartition('/')[0]}/product.json"] < first[key] for key in photos)
    assert (tmp_path / "sample" / "queries" / "mug.jpg").is_file()


def test_a_drawn_sample_is_not_drawn_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data.sample, "write_catalogue", draw)
    put_sample(tmp_path, lambda progress: None)
    monkeypatch.setattr(data.sample, "write_catalogue", None)
    bucket.products = MemoryProducts()  # as after a new start
    put_sample(tmp_path, lambda progress: None)
    assert sum(key.endswith(".jpg") for key in bucket.keys) == 120


def test_a_drawing_that_was_interrupted_is_done_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(folder: Path, on_progress: Callable[[int, int], None]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data.sample, "write_catalogue", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put_sample(tmp_path, lambda progress: None)
    monkeypatch.setattr(data.sample, "write_catalogue", draw)
    put_sample(tmp_path, lambda progress: None)
    assert len(bucket.products.page("sample", 100)[0]) == 30
    assert json.loads((tmp_path / "sample" / "drawn.json").read_text())["photos"] == 60


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    process = SampleProcess(tmp_path)
    try:
        with pytest.raises(RuntimeError, match="No Lookalike is running"):
            list(process.progress())
    finally:
        process.stop()


def test_the_examples_that_up_names_exist() -> None:
    products = data.sample.products()
    assert EXAMPLE_PRODUCT in {product.product_id for product in products}
    kind, _, _ = EXAMPLE_QUERY.partition(".")
    assert kind in {product.category for product in products}
