"""One suite for every implementation of the ports: memory, and AWS as moto plays it."""

from __future__ import annotations

import boto3
import pytest
import urllib3
from moto.server import ThreadedMotoServer
from ulid import ULID

from lookalike.adapters.aws import forget_clients
from lookalike.core.errors import Conflict, Unindexable
from lookalike.core.ports import Stores
from lookalike.core.types import (
    Counts,
    Document,
    Failure,
    Generation,
    Product,
    SearchRecord,
    SegmentEntry,
    View,
)
from lookalike.settings import Settings
from lookalike.wiring import aws_stores

TABLES = {
    "products_table": ("catalogue", "product_id"),
    "failures_table": ("catalogue", "key"),
    "registry_table": ("scope", "digest"),
    "generations_table": ("kind", "catalogue"),
    "searches_table": ("bucket", "query_id"),
}


@pytest.fixture(scope="module")
def moto_address():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto_stores(moto_address, monkeypatch):
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    forget_clients()
    urllib3.request("POST", f"{moto_address}/moto-api/reset")
    s3, dynamodb = boto3.client("s3"), boto3.client("dynamodb")
    settings = Settings(
        ingest_queue_url=boto3.client("sqs").create_queue(QueueName="ingest")["QueueUrl"]
    )
    for bucket in (settings.images_bucket, settings.index_bucket):
        s3.create_bucket(Bucket=bucket)
    for field, (partition, sort) in TABLES.items():
        dynamodb.create_table(
            TableName=getattr(settings, field),
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": partition, "KeyType": "HASH"},
                {"AttributeName": sort, "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in (partition, sort)
            ],
        )
    yield aws_stores(settings)
    forget_clients()


@pytest.fixture(params=["memory", "moto"])
def stores(request) -> Stores:
    return request.getfixturevalue(f"{request.param}_stores")


def product(**changes) -> Product:
    view = View("s/p é/a.jpg", "etag", "0" * 16, "seg", 3, 10, 20, "t", 1.5, 2.5, {"n": (1, "x")})
    values = {"views": {view.key: view}, "document": Document("d", {"price": 3.5}), **changes}
    return Product("s", "p é", "g", updated_at=9.0, **values)


def test_objects(stores):
    store = stores.images
    assert store.head("a") is None and store.get("a", 10) is None
    store.put("a/b c+é%25☕.jpg", b"12345", "image/jpeg")
    info, body = store.get("a/b c+é%25☕.jpg", 5)
    assert body == b"12345" and info.size_bytes == 5
    assert info.etag == "827ccb0eea8a706c4c34a16891f84e7b"
    assert store.head(info.key).etag == info.etag
    with pytest.raises(Unindexable) as caught:
        store.get(info.key, 4)
    assert caught.value.reason == "too-large"
    store.put(info.key, b"other", "image/jpeg", if_absent=True)
    assert store.get(info.key, 5)[1] == b"12345"
    store.put("z", b"", "text/plain")
    assert next((item.key, item.etag) for item in store.list("")) == (info.key, info.etag)
    assert [item.key for item in store.list("a/")] == [info.key]
    assert store.url("z", 60)
    url, fields = store.upload_form("uploads/x", 100, 60)
    assert url and fields["key"] == "uploads/x"
    store.delete("z")
    store.delete("z")
    assert store.head("z") is None


def test_product_records_are_written_by_one_of_two(stores):
    table = stores.products
    assert table.get_many([("s", "p é")]) == {}
    first = table.put(product())
    assert first.revision is not None
    assert table.get_many([("s", "p é"), ("s", "p é"), ("s", "none")]) == {("s", "p é"): first}
    with pytest.raises(Conflict):
        table.put(product())
    second = table.put(product(document=None, revision=first.revision))
    with pytest.raises(Conflict):
        table.put(product(views={}, revision=first.revision))
    with pytest.raises(Conflict):
        table.delete(first)
    table.delete(second)
    with pytest.raises(Conflict):
        table.delete(second)
    assert table.get_many([("s", "p é")]) == {}


def test_more_records_than_one_call_can_read(stores):
    ids = [("s", f"p{number:03d}") for number in range(130)]
    for catalogue, product_id in ids:
        stores.products.put(Product(catalogue, product_id, "g"))
    assert sorted(stores.products.get_many(ids)) == ids
    page, after = stores.products.page("s", 100)
    assert [item.product_id for item in page] == [item for _, item in ids[:100]]
    rest, end = stores.products.page("s", 100, after)
    assert [item.product_id for item in rest] == [item for _, item in ids[100:]] and end is None
    assert stores.products.page("other", 10) == ([], None)


def test_failures(stores):
    table = stores.failures
    failures = [Failure("s", f"s/{n}.jpg", "bad", "It is bad.", "e", 1.0, n) for n in range(3)]
    assert [table.put(item) for item in failures] == [True] * 3
    assert table.put(failures[0]) is False
    assert table.get_many(["s/1.jpg", "s/none.jpg"]) == {"s/1.jpg": failures[1]}
    page, after = table.page("s", 2)
    assert page == failures[:2]
    assert table.page("s", 2, after) == (failures[2:], None)
    assert table.delete("s/1.jpg") is True
    assert table.delete("s/1.jpg") is False
    assert table.get_many(["s/1.jpg"]) == {}


def test_registry(stores):
    entries = [SegmentEntry("s/g/0", digest, 2, 100, 1.0) for digest in "ab"]
    for entry in (entries[1], entries[0], entries[0]):
        stores.registry.add(entry)
    assert stores.registry.live("s/g/0") == entries
    assert stores.registry.live("s/h/0") == []


def test_the_first_generation_stays(stores):
    table = stores.generations
    assert table.current("s") is None
    first = table.create(Generation("s", "g1", "e", 8))
    assert table.create(Generation("s", "g2", "f", 9)) == first
    table.create(Generation("a", "g1", "e", 8))
    assert [item.catalogue for item in table.catalogues()] == ["a", "s"]


def test_counts(stores):
    stores.counts.add("s", Counts(2, 3, 1))
    stores.counts.add("s", Counts(-1, 0, -1))
    assert stores.counts.all() == {"s": Counts(1, 3, 0)}
    stores.counts.set("s", Counts(7, 8, 9))
    assert stores.counts.all() == {"s": Counts(7, 8, 9)}
    assert stores.generations.catalogues() == []


def test_search_log(stores):
    records = [
        SearchRecord(
            str(ULID.from_timestamp(1_700_000_000.0 + number * 600)),
            1_700_000_000 + number * 600,
            "s",
            "e",
            "g",
            "image",
            10,
            (("p", "v", 0.5),),
            {"total": 1.5},
        )
        for number in range(12)
    ]
    for record in records:
        stores.log.write(record)
    now = 1_700_000_000 + 7200
    assert stores.log.recent(5, now) == records[:-6:-1]
    assert stores.log.get(records[3].query_id) == records[3]
    assert stores.log.get("no such id") is None
    assert stores.log.get("0" * 26) is None


def test_queue(stores):
    stores.queue.send_keys([f"k{number}" for number in range(250)])


def test_a_dotted_key_is_no_other_object(stores):
    stores.images.put("c.jpg", b"1", "image/jpeg")
    for key in ("shop/../c.jpg", "./c.jpg", f"../{Settings().index_bucket}/x"):
        assert stores.images.head(key) is None
        assert stores.images.get(key, 10) is None
