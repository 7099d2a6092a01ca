"""Torn files, full disks, other versions, second processes, and what is freed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import S3Backend, s3_backends

from durable.journalled import BUCKETS, Call, Cloud, state, table, url, versioning
from local.aws.durable_moto import DurableMoto
from local.aws.journal import CHUNK_BYTES, Journal, JournalError

BUCKET = BUCKETS[0]


def put(key: str, body: bytes = b"x") -> Call:
    return "s3", "put_object", {"Bucket": BUCKET, "Key": key, "Body": body}


def count(cloud: Cloud, rows: str) -> int:
    return int(cloud.journal.rows(f"SELECT count(*) FROM {rows}")[0][0])


def test_a_torn_tail_loses_only_what_it_had(cloud: Cloud, tmp_path: Path) -> None:
    """The log is cut and garbled at many places; commits that end before stay, in order."""
    log = cloud.path.with_name("aws.db-wal")
    ends = [log.stat().st_size]
    for number in range(12):
        item = {"h": {"S": "torn"}, "r": {"N": str(number)}}
        answers = cloud.call_all(
            [put(f"k{number}"), ("dynamodb", "put_item", {"TableName": "pairs", "Item": item})]
        )
        assert [answer.status for answer in answers] == [200, 200]
        ends.append(log.stat().st_size)
    whole, content = cloud.path.read_bytes(), log.read_bytes()
    cloud.journal.close()
    tried = 0
    for position in range(ends[0] - 5_000, len(content), 2_477):
        whole_commits = sum(end <= position for end in ends) - 1
        for damaged in (
            content[:position],
            content[:position] + bytes(200),
            content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :],
        ):
            folder = tmp_path / f"cut-{tried}"
            folder.mkdir()
            (folder / "aws.db").write_bytes(whole)
            (folder / "aws.db-wal").write_bytes(damaged)
            journal = Journal(folder / "aws.db")
            journal.rows("PRAGMA synchronous = OFF")
            objects = {row[0] for row in journal.rows("SELECT key FROM versions")}
            items = journal.rows("SELECT count(*) FROM items")[0][0]
            journal.close()
            shutil.rmtree(folder)
            # A prefix, object and item of a call together, and nothing that was whole is missing.
            assert objects == {f"k{number}".encode() for number in range(items)}
            assert items >= whole_commits
            tried += 1
    assert tried > 100


def test_a_full_disk_takes_back_what_configures(cloud: Cloud) -> None:
    before = state()
    pages = cloud.journal.rows("PRAGMA page_count")[0][0]
    cloud.journal.rows(f"PRAGMA max_page_count = {pages}")
    answers = cloud.call_all(
        [
            ("s3", "create_bucket", {"Bucket": "new-bucket"}),
            table("new", ("k", "HASH", "S")),
            put("k", b"z" * 100_000),
        ]
    )
    assert [answer.status for answer in answers] == [500] * 3
    assert b"<Code>InternalError</Code>" in answers[0].body
    assert b"InternalServerError" in answers[1].body
    assert state() == before
    cloud.journal.rows("PRAGMA max_page_count = 1000000")
    assert cloud.call_all([put("k")])[0].status == 200


def test_one_failing_call_leaves_the_others(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(S3Backend, "list_objects_v2", fail)
    answers = cloud.call_all([put("k"), ("s3", "list_objects_v2", {"Bucket": BUCKET})])
    assert [answer.status for answer in answers] == [200, 500]
    cloud.crash()
    assert cloud.call("s3", "get_object", Bucket=BUCKET, Key="k").body == b"x"


def test_bodies_are_read_when_asked_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(number % 251 for number in range(5 * CHUNK_BYTES + 7))
    cloud.call_all([put("large", body)])
    kept = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys["large"].body
    assert kept._content is None
    read: list[int] = []
    read_body = Journal.read_body

    def counted(self: Journal, *where: int) -> bytes:
        content = read_body(self, *where)
        read.append(len(content))
        return content

    monkeypatch.setattr(Journal, "read_body", counted)
    get = {"Bucket": BUCKET, "Key": "large"}
    edge = 2 * CHUNK_BYTES
    for wanted, expected in (
        ("bytes=10-19", body[10:20]),
        (f"bytes={edge - 3}-{edge + 3}", body[edge - 3 : edge + 4]),
        ("bytes=-5", body[-5:]),
        (f"bytes={len(body) - 1}-", body[-1:]),
    ):
        read.clear()
        answer = cloud.call("s3", "get_object", **get, Range=wanted)
        assert (answer.status, answer.body) == (206, expected)
        assert sum(read) == len(expected)
    answer = cloud.call("s3", "get_object", **get, Range="bytes=0-1,4-5")
    assert (answer.status, answer.body) == (200, body)
    assert cloud.call("s3", "get_object", **get, Range=f"bytes={len(body)}-").status == 416
    assert cloud.call("s3", "get_object", **get).body == body


def test_space_is_freed_with_the_last_version(cloud: Cloud) -> None:
    named = {"Bucket": BUCKET, "Key": "k"}
    cloud.call_all([put("k", b"1" * 3 * CHUNK_BYTES)])
    assert count(cloud, "chunks") == 3
    cloud.call_all([put("k", b"2")])
    assert count(cloud, "chunks") == 1
    cloud.call("s3", "delete_object", **named)
    assert count(cloud, "chunks") == 0
    for end in ("abort_multipart_upload", "complete_multipart_upload"):
        started = cloud.call("s3", "create_multipart_upload", **named)
        upload = started.body.split(b"<UploadId>")[1].split(b"<")[0].decode()
        part = {**named, "UploadId": upload, "PartNumber": 1, "Body": b"3"}
        etag = dict(cloud.call("s3", "upload_part", **part).headers)["ETag"]
        assert count(cloud, "parts") == 1
        parts = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
        ended = cloud.call("s3", end, **named, UploadId=upload, **(parts if "com" in end else {}))
        assert ended.status < 300
        assert count(cloud, "parts") == count(cloud, "uploads") == 0
    assert count(cloud, "chunks") == 1


def test_tags_go_with_their_object(cloud: Cloud) -> None:
    tags = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].tagger.tags
    before = len(tags)
    cloud.call_all([put("k"), put("k", b"again")])
    assert len(tags) == before + 1
    cloud.call("s3", "delete_object", Bucket=BUCKET, Key="k")
    assert len(tags) == before


def test_only_versions_that_differ_are_written(cloud: Cloud) -> None:
    version = {"Bucket": BUCKETS[1], "Key": "k", "Body": b"x"}
    for _ in range(5):
        cloud.call("s3", "put_object", **version)
    written = cloud.journal.rows("SELECT rowid FROM versions ORDER BY position")
    cloud.call("s3", "put_object", **version)
    now = cloud.journal.rows("SELECT rowid FROM versions ORDER BY position")
    # The last but one is written too: it is not the latest any more.
    assert (len(now), now[:4]) == (6, written[:4])


def test_deleted_resources_come_back_empty(cloud: Cloud) -> None:
    item = {"TableName": "singles", "Item": {"h": {"B": b"1"}}}
    message = {"QueueUrl": url("first"), "MessageBody": "x"}
    bucket = {"Bucket": BUCKETS[1]}
    cloud.call_all([("dynamodb", "put_item", item), ("sqs", "send_message", message)])
    deleted = cloud.call_all(
        [
            ("s3", "create_multipart_upload", {**bucket, "Key": "k"}),
            ("s3", "delete_bucket", bucket),
            ("dynamodb", "delete_table", {"TableName": "singles"}),
            ("sqs", "delete_queue", {"QueueUrl": url("first")}),
        ]
    )
    assert max(answer.status for answer in deleted) < 300
    assert count(cloud, "items") + count(cloud, "messages") + count(cloud, "uploads") == 0
    cloud.crash()
    assert ("queue", "first") not in state()
    cloud.call_all(
        [
            ("s3", "create_bucket", bucket),
            table("singles", ("h", "HASH", "B")),
            ("sqs", "create_queue", {"QueueName": "first"}),
        ]
    )
    before = state()
    cloud.crash()
    assert state() == before
    assert before["bucket", BUCKETS[1]] == (None, [])  # the new one was never versioned
    assert before["items", "singles"] == before["messages", "first"] == []


def test_configuration_is_replayed_in_its_order(cloud: Cloud) -> None:
    suspended = {"Bucket": BUCKET, "VersioningConfiguration": {"Status": "Suspended"}}
    create = ("s3", "create_bucket", {"Bucket": BUCKET})
    requests = count(cloud, "requests")
    cloud.call_all([versioning(BUCKET), ("s3", "put_bucket_versioning", suspended)])
    cloud.call_all([versioning(BUCKET), create])
    assert count(cloud, "requests") == requests + 2
    cloud.crash()
    assert state()["bucket", BUCKET][0] == "Enabled"


def test_what_nothing_would_keep_is_refused(cloud: Cloud) -> None:
    fifo = {"QueueName": "a.fifo", "Attributes": {"FifoQueue": "true"}}
    backup = {"TableName": "pairs", "BackupName": "backup"}
    assert cloud.call("sqs", "create_queue", **fifo).status == 400
    assert cloud.call("dynamodb", "create_backup", **backup).status == 501


def test_a_second_process_is_refused(cloud: Cloud) -> None:
    command = [
        sys.executable,
        "-m",
        "local.aws.moto_server",
        "--port",
        "1",
        "--journal",
        cloud.path,
    ]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode != 0
    assert "in use by another process" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aws.db"
    Journal(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 999")
    newer.close()
    with pytest.raises(JournalError, match="written by a newer Lookalike"):
        Journal(path)


@pytest.mark.parametrize("content", [b"no database" * 1000, None])
def test_another_file_is_refused_and_left(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "aws.db"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE other (id)")
        other.close()
        content = path.read_bytes()
    else:
        path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal of Lookalike"):
        Journal(path)
    assert path.read_bytes() == content


@pytest.mark.usefixtures("shimmed")
def test_without_a_journal_all_is_in_memory() -> None:
    moto = DurableMoto()
    assert Cloud.requests is not None
    assert moto.call(Cloud.requests(("s3", "create_bucket", {"Bucket": "memory"}))).status == 200
