"""The real adapters, answered by moto in this process: any HTTP request of theirs can fail.

Requests of the signed path and of the SDK come by here alike. What moto holds can be copied, so
that a scenario is prepared once.
"""

from __future__ import annotations

import copy
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import botocore.exceptions
import urllib3
from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto import mock_aws
from moto.backends import get_backend
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import botocore_stubber

import infra
from crash_points.clouds import MemoryCloud
from lookalike.adapters import aws, signed
from lookalike.adapters.failing import Crash
from lookalike.core.ports import Clock, Stores
from lookalike.core.search_hours import PERIODS, SHARDS, hour_of, number_at
from lookalike.core.types import ObjectInfo
from lookalike.settings import Settings
from lookalike.stores import aws_stores

ACCOUNT, REGION = "123456789012", "us-east-1"
_METADATA = "x-amz-meta-"
_ANSWER = tuple[int, Mapping[str, str], bytes]


class TimedOut(Exception):
    """No answer came; each way to send has an error of its own for that."""


@dataclass(frozen=True, slots=True)
class WireFault:
    """A way for a request to fail.

    ``answer`` makes what is said instead, by service. With ``lasting`` each repetition of the same
    request fails as well: retries do not help.
    """

    name: str
    answer: Callable[[str], _ANSWER]
    effective: bool = False
    lasting: bool = False
    conditional: bool = False

    def befalls(self, request: str) -> bool:
        """Whether a request, as `Wire` names it, can fail so."""
        return not self.conditional or request.endswith(" if")


def _crash(_: str) -> _ANSWER:
    raise Crash


def _timeout(_: str) -> _ANSWER:
    raise TimedOut


def _error(status: int, codes: Mapping[str, str]) -> Callable[[str], _ANSWER]:
    def answer(service: str) -> _ANSWER:
        code = codes.get(service, codes[""])
        if service == "s3":
            body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
            return status, {"Content-Type": "application/xml"}, body.encode()
        body = json.dumps({"__type": f"com.amazonaws#{code}", "message": "injected"})
        return (400 if status in {409, 412} else status), {}, body.encode()

    return answer


_internal = _error(500, {"s3": "InternalError", "": "InternalServerError"})
_throttled = _error(
    503, {"s3": "SlowDown", "dynamodb": "ProvisionedThroughputExceededException", "": "Throttling"}
)
_lost = _error(412, {"s3": "PreconditionFailed", "": "ConditionalCheckFailedException"})

WIRE_FAULTS = (
    WireFault("crash before", _crash),
    WireFault("crash after", _crash, effective=True),
    WireFault("5xx once", _internal),
    WireFault("5xx once, after it took effect", _internal, effective=True),
    WireFault("5xx at every try", _internal, lasting=True),
    WireFault("throttled once", _throttled),
    WireFault("throttled at every try", _throttled, lasting=True),
    WireFault("timeout", _timeout),
    WireFault("timeout, after it took effect", _timeout, effective=True),
    WireFault("timeout at every try, each took effect", _timeout, effective=True, lasting=True),
    WireFault("conflict that won", _lost, effective=True, conditional=True),
)


class Wire:
    """Passes requests on to moto, or lets one fail.

    ``names`` are those that came by; ``clock`` is the world's.
    """

    def __init__(self, pass_on: Callable[[AWSPreparedRequest], Any], clock: Clock) -> None:
        self._pass_on = pass_on
        self.clock = clock
        self.names: list[str] = []
        self.mend()

    def mend(self) -> None:
        """Let no request fail any more."""
        self._at, self._fault, self._dead = 0, None, False
        self._failing = ""

    def arm(self, at: int, fault: WireFault) -> None:
        """Let request number ``at`` from now on fail."""
        self.mend()
        self.names.clear()
        self._at, self._fault = at, fault

    def send(self, request: AWSPreparedRequest) -> _ANSWER:
        """Answer one request."""
        if self._dead:
            raise Crash
        service, name = _named(request)
        self.names.append(name)
        fault = self._fault
        same = f"{name} {request.url} {request.body!r}"
        is_hit = len(self.names) == self._at or (fault and fault.lasting and same == self._failing)
        if fault is None or not is_hit:
            return self._plain(request)
        self._failing = same
        if fault.effective:
            self._plain(request)
        try:
            return fault.answer(service)
        except Crash:
            self._dead = True
            raise

    def _plain(self, request: AWSPreparedRequest) -> _ANSWER:
        status, headers, body = self._pass_on(request)
        return status, headers, body.encode() if isinstance(body, str) else body


def _named(request: AWSPreparedRequest) -> tuple[str, str]:
    """The service, and what is asked of it: ``… if`` for writes with a condition."""
    headers = {key.lower(): _text(value) for key, value in request.headers.items()}
    target = headers.get("x-amz-target", "")
    if target:
        service = "sqs" if "SQS" in target else "dynamodb"
        is_if = b'"ConditionExpression"' in _bytes(request.body)
        return service, f"{target.rpartition('.')[2]}{' if' if is_if else ''}"
    is_if = "if-none-match" in headers or "if-match" in headers
    path = re.sub(r"\?.*", "", request.url.split("/", 3)[-1])
    folder = "/".join(path.split("/")[:2])
    return "s3", f"{request.method} {folder}{' if' if is_if else ''}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b""


class _Pool:
    """What the signed path sends by."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def request(self, method: str, url: str, **options: Any) -> Any:
        headers = HTTPHeaders()
        for key, value in options["headers"].items():
            headers[key] = value
        request = AWSPreparedRequest(method, url, headers, options["body"] or b"", False)
        try:
            status, found, body = self._wire.send(request)
        except TimedOut:
            raise urllib3.exceptions.ReadTimeoutError(None, url, "injected") from None  # type: ignore[arg-type]
        return SimpleNamespace(
            status=status,
            headers=urllib3.HTTPHeaderDict({key: str(value) for key, value in found.items()}),
            read=lambda: b"" if method == "HEAD" else body,
            close=lambda: None,
            release_conn=lambda: None,
        )


class MotoCloud:
    """Moto in this process, with the template's tables; its S3 has the world's clock."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        queue = boto3.client("sqs").create_queue(QueueName="ingest")["QueueUrl"]
        self._settings = settings = Settings(ingest_queue_url=queue)
        for bucket in (settings.images_bucket, settings.index_bucket):
            boto3.client("s3").create_bucket(Bucket=bucket)
        template = json.loads(Path(infra.__file__).with_name("resources.json").read_text())
        for name, resource in template["Resources"].items():
            if resource.get("Type") == "AWS::DynamoDB::Table":
                field = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
                known = ("AttributeDefinitions", "BillingMode", "KeySchema")
                boto3.client("dynamodb").create_table(
                    TableName=getattr(settings, field),
                    **{item: resource["Properties"][item] for item in known},
                )
        self.stores = aws_stores(settings)

    def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        aws.client("s3").put_object(
            Bucket=self._settings.images_bucket, Key=key, Body=body, Metadata=metadata
        )

    def receive(self) -> list[str]:
        (queue,) = get_backend("sqs")[ACCOUNT][REGION].queues.values()
        bodies = [message.body for message in queue._messages]
        queue._messages.clear()
        return bodies

    def content(self) -> Any:
        """All that moto holds; objects' bodies are shared, as nothing changes them."""
        buckets = get_backend("s3")[ACCOUNT]["aws"].buckets
        tables = get_backend("dynamodb")[ACCOUNT][REGION].tables
        return (
            {name: [(k, list(v)) for k, v in item.keys.lists()] for name, item in buckets.items()},
            {name: copy.deepcopy(item.items) for name, item in tables.items()},
        )

    def restored(self, content: Any, clock: Clock) -> MotoCloud:
        """Itself, holding what it held; its queue is empty then."""
        self.wire.clock = clock
        objects, items = content
        for name, bucket in get_backend("s3")[ACCOUNT]["aws"].buckets.items():
            dict.clear(bucket.keys)
            for key, versions in objects[name]:
                dict.__setitem__(bucket.keys, key, list(versions))
        for name, table in get_backend("dynamodb")[ACCOUNT][REGION].tables.items():
            table.items = copy.deepcopy(items[name])
        self.receive()
        return self

    def in_memory(self, empty: Stores, catalogue: str, clock: Clock) -> MemoryCloud:
        """What moto holds of a catalogue, read by the adapters, where looking at it is cheap."""
        cloud = MemoryCloud(empty, clock)
        buckets = get_backend("s3")[ACCOUNT]["aws"].buckets
        for bucket, store in (
            (self._settings.images_bucket, cloud.stores.images),
            (self._settings.index_bucket, cloud.stores.index),
        ):
            for key, item in buckets[bucket].keys.items():
                info = ObjectInfo(
                    key,
                    item.etag.strip('"'),
                    item.size,
                    float(int(item.last_modified.timestamp())),
                    "",
                    {
                        name.removeprefix(_METADATA): value
                        for name, value in item.metadata.items()
                        if name.startswith(_METADATA)
                    },
                )
                store._objects[key] = (info, item.value)  # type: ignore[attr-defined]
        copies: Any = cloud.stores
        cloud.queue.bodies += self.receive()
        for product in self.stores.products.page(catalogue, 1000)[0]:
            copies.products._products[product.catalogue, product.product_id] = product
        for failure in self.stores.failures.page(catalogue, 1000)[0]:
            copies.failures._failures[failure.key] = failure
        for lineage in self.stores.lineages.all():
            copies.lineages._lineages[lineage.catalogue] = lineage
            beside = [lineage.beside.generation] if lineage.beside else []
            for generation in (lineage.current, *beside):
                entries, manifest = self.stores.registry.read(generation.scope)
                for entry in entries:
                    copies.registry.add(entry)
                if manifest.revision:
                    copies.registry._manifests[generation.scope] = manifest
        for name, counts in self.stores.counts.all().items():
            copies.counts.set(name, counts)
        self._copy_work(copies, catalogue, clock())
        return cloud

    def _copy_work(self, copies: Any, catalogue: str, now: float) -> None:
        """What scheduled work has made, how far it is, and the searches that it is made of."""
        for made in self.stores.artifacts.current(catalogue).values():
            copies.artifacts._artifacts[catalogue, made.kind] = made
        for job in self.stores.jobs.all(catalogue):
            copies.jobs._jobs[catalogue, job.name] = job
        for cluster_id, name in self.stores.cluster_names.all(catalogue).items():
            copies.cluster_names.put(catalogue, cluster_id, name)
        tables = get_backend("dynamodb")[ACCOUNT][REGION].tables
        table = tables[self._settings.searches_table]
        for hour in {hour_of(item.attrs["query_id"].value) for item in table.all_items()}:
            for shard in range(SHARDS):
                for record in self.stores.log.page(hour, shard, "", 1000, now)[0]:
                    copies.log.write(record)
                for event in self.stores.feedback.page(hour, shard, "", 1000, now)[0]:
                    copies.feedback.put(event)
        for period in PERIODS:
            last = number_at(period, now)
            for rollup in self.stores.rollups.range(catalogue, period, last - 100, last):
                copies.rollups._rollups.setdefault((catalogue, period), {})[rollup.number] = rollup
        for touched in self.stores.rollups.touched():
            copies.rollups.touch(touched.hour, touched.at)
        if state := self.stores.rollups.state():
            copies.rollups._state[""] = state


def _let_go(key: Any, garbage: bool = False) -> None:
    """Of an object that has left: a copy of what moto held may need its body once more."""
    key.disposed = True


@contextmanager
def moto_in_process(clock: Clock) -> Iterator[MotoCloud]:
    """A cloud whose requests all go by its ``wire``; nothing waits between tries."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", {"AWS_DEFAULT_REGION": REGION}))
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            os.environ.pop(name, None)
        stack.enter_context(mock_aws())
        aws.forget_clients()
        stack.callback(aws.forget_clients)
        wire = Wire(partial(BotocoreStubber.process_request, botocore_stubber), clock)

        def send(_: BotocoreStubber, request: AWSPreparedRequest) -> _ANSWER:
            try:
                return wire.send(request)
            except TimedOut:
                raise botocore.exceptions.ReadTimeoutError(endpoint_url=request.url) from None

        sleepless = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        patches: dict[str, Any] = {
            "moto.core.botocore_stubber.BotocoreStubber.process_request": send,
            "moto.s3.models.FakeKey.dispose": _let_go,
            "moto.s3.models.utcnow": lambda: datetime.fromtimestamp(wire.clock(), UTC),
            "botocore.endpoint.time": sleepless,
            "botocore.retries.quota.RetryQuota.acquire": lambda *_: True,  # points do not share it
            "lookalike.adapters.table.time": sleepless,
        }
        stack.enter_context(mock.patch.object(signed, "connections", lambda _: _Pool(wire)))
        for name, value in patches.items():
            stack.enter_context(mock.patch(name, value))
        yield MotoCloud(wire)
