"""One suite for every implementation of the ports: memory, and AWS as moto plays it."""

from __future__ import annotations

import json
from dataclasses import replace

import boto3
import pytest
import urllib3
from moto.server import ThreadedMotoServer
from ulid import ULID

from lookalike.adapters.aws import forget_clients
from lookalike.adapters.signed import SignedRequests
from lookalike.core.access import ApiKey
from lookalike.core.errors import Conflict, Unavailable, Unindexable
from lookalike.core.keys import content_digest
from lookalike.core.ports import Stores
from lookalike.core.types import (
    BaseEntry,
    Build,
    Counts,
    Document,
    Failure,
    Generation,
    Lineage,
    Manifest,
    Product,
    Run,
    SearchRecord,
    SegmentEntry,
    Shard,
    View,
)
from lookalike.settings import Settings
from lookalike.stores import aws_stores

TABLES = {
    "products_table": ("catalogue", "product_id"),
    "failures_table": ("catalogue", "key"),
    "registry_table": ("scope", "entry"),
    "generations_table": ("kind", "catalogue"),
    "searches_table": ("bucket", "query_id"),
    "api_keys_table": ("kind", "id"),
    "feedback_table": ("bucket", "entry"),
    "rollups_table": ("scope", "entry"),
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
    assert table.put(product()) == first, "sent again, as its answer was lost"
    with pytest.raises(Conflict):
        table.put(product(document=None))
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


def test_ranges_of_an_object(stores):
    store = stores.index
    key = "bases/s é/x.base"
    assert store.get_range(key, 0, 4) is None
    assert store.get_range(key, 0, 0) is None
    store.put(key, bytes(range(100)), "application/octet-stream")
    assert store.get_range(key, 0, 100) == bytes(range(100))
    assert store.get_range(key, 10, 5) == bytes(range(10, 15))
    assert store.get_range(key, 99, 1) == b"c"
    assert store.get_range(key, 90, 50) == bytes(range(90, 100))
    assert store.get_range(key, 100, 5) == b""
    assert store.get_range(key, 5000, 5) == b""
    assert store.get_range(key, 10, 0) == b""
    store.put("empty", b"", "application/octet-stream")
    assert store.get_range("empty", 0, 1) == b""
    store.delete(key)
    assert store.get_range(key, 10, 5) is None


def segment(number: int, scope: str = "s/g") -> SegmentEntry:
    digest = f"{(number * 7919) % 100_000:032x}"  # in another order than commits
    return SegmentEntry(scope, digest, number + 1, 100, 1_700_000_000.25 + number)


def test_segments_are_read_in_order_of_commit_and_removed(stores):
    registry = stores.registry
    assert registry.read("s/g") == ([], Manifest("s/g"))
    entries = [segment(number) for number in range(60)]
    other = segment(3, "s/g2")
    for entry in (*entries[::-1], entries[4], other):
        registry.add(entry)
    assert registry.read("s/g") == (entries, Manifest("s/g"))
    assert registry.read("s/g2") == ([other], Manifest("s/g2"))
    registry.remove([*entries[:57], entries[0], segment(99)])
    assert registry.read("s/g")[0] == entries[57:]
    registry.remove([])
    registry.remove(entries[:57])
    assert registry.read("s/g")[0] == entries[57:]
    assert registry.read("s/g2")[0] == [other]


def test_segments_since_a_moment_come_with_the_manifest(stores):
    registry = stores.registry
    entries = [segment(number) for number in range(9)]
    for entry in entries:
        registry.add(entry)
    manifest = registry.put_manifest(Manifest("s/g", head="h"))
    at = entries[5].committed_at
    assert registry.read("s/g", since=at) == (entries[5:], manifest)
    assert registry.read("s/g", since=at + 0.001) == (entries[6:], manifest)
    assert registry.read("s/g", since=at + 1e-7)[0][0] in entries[5:7]
    assert registry.read("s/g", since=0.0) == (entries, manifest)
    assert registry.read("s/g", since=-5.0) == (entries, manifest)
    assert registry.read("s/g", since=at + 1000) == ([], manifest)
    same_moment = SegmentEntry("s/g", "f" * 32, 1, 1, at)
    registry.add(same_moment)
    assert registry.read("s/g", since=at)[0] == [entries[5], same_moment, *entries[6:]]


def test_the_manifest_is_written_by_one_of_two(stores):
    registry = stores.registry
    shard = Shard(
        BaseEntry("b", 9, 3, 1000, 100, 8, 1.5), (Run("r1", 5, 50, 1.25),), (Run("r2", 4, 40, 1.5),)
    )
    first = registry.put_manifest(
        Manifest("s/g", "head", 7, (shard, Shard()), {"segments/s é/x.seg": 1_700_000_000.123456})
    )
    assert first.revision is not None
    assert registry.read("s/g")[1] == first
    assert registry.read("s/other")[1].revision is None
    with pytest.raises(Conflict):
        registry.put_manifest(Manifest("s/g"))  # another creator
    second = registry.put_manifest(Manifest("s/g", revision=first.revision))
    assert second.revision != first.revision
    with pytest.raises(Conflict):
        registry.put_manifest(Manifest("s/g", "late", revision=first.revision))
    assert registry.read("s/g")[1] == second
    registry.drop("s/g")
    with pytest.raises(Conflict):
        registry.put_manifest(second)
    assert registry.read("s/g")[1] == Manifest("s/g")


def test_a_big_manifest_is_read_whole_behind_pages_of_segments(stores):
    """Many segments (more than one page of a query, which is 1 MB) and a manifest of 700 kB."""
    registry = stores.registry
    scope = f"{'long-name-' * 150}/g"
    entries = [segment(number, scope) for number in range(400)]
    for entry in entries:
        registry.add(entry)
    replaced = {
        f"segments/{'long-name-' * 5}/{content_digest(b'%d' % number)}.seg": 1_700_000_000.5
        for number in range(7000)
    }
    manifest = registry.put_manifest(Manifest(scope, replaced=replaced))
    assert registry.read(scope) == (entries, manifest)
    assert registry.read(scope, since=entries[-1].committed_at) == (entries[-1:], manifest)
    registry.drop(scope)
    assert registry.read(scope) == ([], Manifest(scope))


def test_dropping_a_scope_leaves_others(stores):
    registry = stores.registry
    kept = {}
    for scope in ("s/g", "s/g2", "s2/g"):
        for number in range(30):
            registry.add(segment(number, scope))
        manifest = registry.put_manifest(Manifest(scope, head=scope))
        kept[scope] = ([segment(number, scope) for number in range(30)], manifest)
    registry.drop("s/g")
    registry.drop("s/g")
    assert registry.read("s/g") == ([], Manifest("s/g"))
    for scope in ("s/g2", "s2/g"):
        assert registry.read(scope) == kept[scope]


def test_a_lineage_is_written_by_one_of_two(stores):
    table = stores.lineages
    assert table.get("s") is None and table.all() == []
    current = Generation("s", "g1", "e")
    first = table.put(Lineage("s", current))
    assert first.revision is not None and table.get("s") == first
    with pytest.raises(Conflict):
        table.put(Lineage("s", Generation("s", "g2", "f")))  # another creator
    build = Build(Generation("s", "g2", "f"), "filling", 1.25, 2.5, "p é", 3, 4, 1)
    second = table.put(Lineage("s", current, build, 2, first.revision))
    assert table.get("s") == second
    assert [item.generation for item in second.generations] == ["g1", "g2"]
    with pytest.raises(Conflict):
        table.put(Lineage("s", current, None, 1, first.revision))
    assert table.get("s") == second
    third = table.put(Lineage("a", Generation("a", "g1", "e")))
    assert table.all() == [third, second]


def test_counts(stores):
    stores.counts.add("s", Counts(2, 3, 1))
    stores.counts.add("s", Counts(-1, 0, -1))
    assert stores.counts.all() == {"s": Counts(1, 3, 0)}
    stores.counts.set("s", Counts(7, 8, 9))
    assert stores.counts.all() == {"s": Counts(7, 8, 9)}
    assert stores.lineages.all() == []


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
    assert stores.log.get(records[3].query_id, now) == records[3]
    assert stores.log.get("no such id", now) is None
    assert stores.log.get("0" * 26, now) is None


def test_queue(stores):
    stores.queue.send_keys([f"k{number}" for number in range(250)])


def test_a_dotted_key_is_no_other_object(stores):
    stores.images.put("c.jpg", b"1", "image/jpeg")
    for key in ("shop/../c.jpg", "./c.jpg", f"../{Settings().index_bucket}/x"):
        assert stores.images.head(key) is None
        assert stores.images.get(key, 10) is None


def test_a_manifest_beyond_what_an_item_holds_is_refused_and_changes_nothing(moto_stores):
    registry = moto_stores.registry
    first = registry.put_manifest(Manifest("s/g", "head"))
    replaced = {content_digest(b"%d" % number): float(number) for number in range(20_000)}
    with pytest.raises(Unavailable):
        registry.put_manifest(Manifest("s/g", "head", replaced=replaced, revision=first.revision))
    assert registry.read("s/g")[1] == first


@pytest.fixture
def without_signed_requests(monkeypatch):
    monkeypatch.setattr(SignedRequests, "send", lambda *arguments, **options: None)


def test_what_is_not_plain_is_left_to_the_sdk(moto_stores, without_signed_requests):
    """The SDK's answers mean the same: ranges, batches and conditions."""
    test_ranges_of_an_object(moto_stores)
    test_segments_are_read_in_order_of_commit_and_removed(moto_stores)
    moto_stores.registry.drop("s/g")
    test_the_manifest_is_written_by_one_of_two(moto_stores)
    test_a_lineage_is_written_by_one_of_two(moto_stores)


def test_golden_table_items_still_load(moto_stores, request):
    path = request.config.rootpath / "tests/golden/table-items-v1.json"
    for table, items in json.loads(path.read_text()).items():
        for item in items:
            boto3.client("dynamodb").put_item(TableName=f"lookalike-{table}", Item=item)
    space = "efficientnet-lite2-border-v1"
    old, new = (Generation("shop", name, space) for name in (space, f"{space}-g2"))
    entries, manifest = moto_stores.registry.read(new.scope)
    assert entries == [SegmentEntry(new.scope, "0" * 31 + "a", 10, 13824, 1_764_000_000.25)]
    covered = Run("4" * 32, 9000, 12_150_000, 1_763_999_000.0)
    base = BaseEntry("2" * 32, 9000, 1, 4_000_000, 26_624, 9000, 1_763_999_000.0, 1_763_999_500.0)
    fresh = Run("1" * 32, 320, 434_176, 1_764_000_000.0)
    assert manifest == Manifest(
        new.scope,
        "3" * 32,
        5000,
        (Shard(base, (covered,), (fresh,)), Shard()),
        {f"segments/shop/{'5' * 32}.seg": 1_764_000_100.5},
        manifest.revision,
    )
    # What has come to the record since (``fullest_rows``) is written along the next time.
    again = moto_stores.registry.put_manifest(manifest)
    assert moto_stores.registry.read(new.scope)[1] == again
    assert again == replace(manifest, revision=again.revision)
    lineage = moto_stores.lineages.get("shop")
    kept = Build(old, "kept", 1_764_000_000.0, 1_764_000_050.0, done=7, total=9, skipped=1)
    assert lineage == Lineage("shop", new, kept, 2, lineage.revision)
    assert moto_stores.lineages.put(lineage).revision == lineage.revision


def test_api_keys(stores):
    table = stores.api_keys
    assert table.get("b" * 12) is None and table.all() == []
    first = ApiKey("b" * 12, "0" * 64, "shop é", ("a", "b c"), ("read", "write"), 5, 1.5, 2.5)
    second = ApiKey("a" * 12, "1" * 64, "all", None, ("read",), 5, 1.5)
    for key in (first, second):
        table.put(key)
        assert table.get(key.key_id) == key
    table.put(replace(first, revoked_at=3.5))
    assert table.get(first.key_id).revoked_at == 3.5
    assert [table.count(first.key_id, minute) for minute in (7, 7, 8, 7)] == [1, 2, 1, 3]
    assert table.count(second.key_id, 7) == 1
    assert table.all() == [second, replace(first, revoked_at=3.5)]


@pytest.mark.parametrize("body", [{"S": "{"}, {"S": '{"key_id": 5}'}, {"N": "1"}, None])
def test_a_damaged_api_key_opens_nothing_and_hides_no_other(moto_stores, caplog, body):
    table = moto_stores.api_keys
    table.put(key := ApiKey("b" * 12, "0" * 64, "shop", None, ("read",), 5, 1.5))
    item = {"kind": {"S": "key"}, "id": {"S": "a" * 12}} | ({"body": body} if body else {})
    boto3.client("dynamodb").put_item(TableName=Settings().api_keys_table, Item=item)
    assert table.get("a" * 12) is None and table.all() == [key]
    assert "a" * 12 in caplog.text
