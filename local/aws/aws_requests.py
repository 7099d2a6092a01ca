"""What a request to the local AWS asks for: its service, its action, and how that is kept.

What changes objects, items or messages is kept by its effects. What makes and configures buckets,
queues and tables is rare: the requests themselves are kept, and sent again at a start.
"""

from __future__ import annotations

import io
import json
import re
import sys
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
from moto.s3.responses import S3Response
from moto.s3.utils import bucket_name_from_url

Environ = dict[str, Any]


class Kind(Enum):
    """How an answered request is kept."""

    EFFECTS = "reads, or changes records that say so themselves"
    CREATES = "kept; the same again changes nothing"
    CHANGES = "kept; replaces the same request made before"
    DELETES = "ends all that is kept about its resource"
    UNKNOWN = "refused: nothing would keep it"


class Call(NamedTuple):
    """A request as far as keeping it goes."""

    service: str
    kind: Kind
    resource: str = ""

    @property
    def what(self) -> str:
        """What was asked, for a refusal."""
        return f"this call of {self.service}"


class KeptRequest(msgspec.Struct, frozen=True):
    """A request that is sent again at a start, without what differs from one sending to another."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


_CREATES = frozenset({"CreateQueue", "CreateTable"})
_DELETES = frozenset({"DeleteQueue", "DeleteTable"})
_CHANGES = frozenset(
    {
        *("SetQueueAttributes", "TagQueue", "UntagQueue", "AddPermission", "RemovePermission"),
        *("UpdateTable", "UpdateTimeToLive", "UpdateContinuousBackups"),
        *("TagResource", "UntagResource"),
    }
)
_EFFECTS = re.compile(
    r"(Get|List|Describe|Batch(Get|Write)|Transact|(Batch)?Execute|Query$|Scan$)"
    r"|(Put|Update|Delete)Item$|(Send|Receive|Delete)Message(Batch)?$"
    r"|ChangeMessageVisibility(Batch)?$|PurgeQueue$"
)
_VOLATILE_HEADERS = frozenset({"HTTP_X_AMZ_DATE", "HTTP_X_AMZ_SECURITY_TOKEN"})


def use_path_style(environ: Environ) -> None:
    """Put the bucket that the host of a request to S3 names into its path."""
    host = environ.get("HTTP_HOST", "")
    asked = SimpleNamespace(headers={"host": host}, url=f"http://{host}/")
    if _scope(environ)[0] != "s3" or not S3Response.subdomain_based_buckets(asked):
        return
    bucket = bucket_name_from_url(asked.url)
    environ["HTTP_HOST"] = "127.0.0.1"
    if bucket:
        for name in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            environ[name] = f"/{bucket}{environ[name]}"


def read_call(environ: Environ, body: bytes) -> Call:
    """Tell what a request asks for."""
    service, region = _scope(environ)
    if service == "s3":
        return _s3_call(environ)
    if service in ("sqs", "dynamodb"):
        return _json_call(service, region, environ, body)
    if service == "sts" and _form_action(environ, body) == "GetCallerIdentity":
        return Call(service, Kind.EFFECTS)
    return Call(service, Kind.UNKNOWN)


def keep(environ: Environ, body: bytes) -> bytes:
    """The request as it is kept; the same bytes for the same request."""
    headers = {
        name: value
        for name, value in environ.items()
        if name in ("HTTP_HOST", "CONTENT_TYPE")
        or (name.startswith("HTTP_X_AMZ_") and name not in _VOLATILE_HEADERS)
    }
    if authorization := environ.get("HTTP_AUTHORIZATION"):
        # Only the key, the region and the service matter to moto, which checks no signature.
        headers["HTTP_AUTHORIZATION"] = re.sub(
            r"/\d{8}/", "/20000101/", authorization.split(",")[0]
        )
    kept = KeptRequest(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        environ.get("QUERY_STRING", ""),
        dict(sorted(headers.items())),
        body,
    )
    return msgspec.msgpack.encode(kept)


def environ_of_kept(request: bytes) -> Environ:
    """The request of ``keep`` as WSGI."""
    kept = msgspec.msgpack.decode(request, type=KeptRequest)
    host, _, port = kept.headers.get("HTTP_HOST", "127.0.0.1").partition(":")
    return {
        "REQUEST_METHOD": kept.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": kept.path,
        "QUERY_STRING": kept.query,
        "RAW_URI": kept.path,
        "REQUEST_URI": kept.path,
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(kept.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(kept.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **kept.headers,
    }


def _scope(environ: Environ) -> tuple[str, str]:
    """Service and region; unsigned and presigned requests without a target are S3's, as in moto."""
    parts = environ.get("HTTP_AUTHORIZATION", "").split(",", 1)[0].split("/")
    if len(parts) == 5:
        return parts[3].lower(), parts[2]
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form = "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")
    return ("unsigned", "") if target or form else ("s3", "")


def _s3_call(environ: Environ) -> Call:
    bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    method = environ["REQUEST_METHOD"]
    if key or not bucket or method not in ("PUT", "DELETE"):
        return Call("s3", Kind.EFFECTS)
    if environ.get("QUERY_STRING"):
        return Call("s3", Kind.CHANGES, f"s3:{bucket}")
    return Call("s3", Kind.CREATES if method == "PUT" else Kind.DELETES, f"s3:{bucket}")


def _json_call(service: str, region: str, environ: Environ, body: bytes) -> Call:
    version, _, action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    if not version:
        action = _form_action(environ, body)
    if version.startswith("DynamoDBStreams"):
        return Call(service, Kind.UNKNOWN)
    if action in _CREATES | _DELETES | _CHANGES:
        resource = f"{service}:{region}:{_resource(environ, body)}"
        if action in _CHANGES:
            return Call(service, Kind.CHANGES, resource)
        return Call(service, Kind.CREATES if action in _CREATES else Kind.DELETES, resource)
    return Call(service, Kind.EFFECTS if _EFFECTS.match(action) else Kind.UNKNOWN)


def _resource(environ: Environ, body: bytes) -> str:
    """The name that all requests about a queue or a table have in common."""
    try:
        fields: Any = json.loads(body)
    except ValueError:
        fields = {name: values[0] for name, values in _form(environ, body).items()}
    for name in ("QueueUrl", "QueueName", "TableName", "ResourceArn"):
        if isinstance(fields, dict) and isinstance(fields.get(name), str):
            return str(re.split("[/:]", fields[name])[-1])
    return str(environ["PATH_INFO"].rsplit("/", 1)[-1])


def _form_action(environ: Environ, body: bytes) -> str:
    return _form(environ, body).get("Action", [""])[0]


def _form(environ: Environ, body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode("utf-8", "replace")) or parse_qs(environ.get("QUERY_STRING", ""))
