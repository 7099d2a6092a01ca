"""The object store on S3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from lookalike.adapters.aws import aws_errors, client, error_code, is_not_found
from lookalike.adapters.signed import SignedRequests
from lookalike.core.errors import Conflict, too_large
from lookalike.core.types import ObjectInfo

_METADATA = "x-amz-meta-"
_NO_RANGE = {404: None, 416: b""}  # no such object; it ends before the range


class S3ObjectStore:
    """One bucket; implements `lookalike.core.ports.ObjectStore`."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._s3 = client("s3")
        self._signed = SignedRequests("s3")

    def head(self, key: str) -> ObjectInfo | None:
        """See `lookalike.core.ports.ObjectStore`."""
        answer = self._signed.send("HEAD", self._path(key))
        if answer is not None and answer.status == 404:
            return None
        if answer is not None and answer.status == 200:
            return _described(key, answer.headers)
        with aws_errors(f"reading {key}"):
            try:
                return _info(key, self._s3.head_object(Bucket=self.bucket, Key=key))
            except ClientError as error:
                if is_not_found(error):
                    return None
                raise

    def get(self, key: str, max_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        """See `lookalike.core.ports.ObjectStore`."""
        answer = self._signed.send("GET", self._path(key), max_bytes=max_bytes)
        if answer is not None and answer.status == 200:
            info = _described(key, answer.headers)
            if info.size_bytes > max_bytes:
                raise too_large(info.size_bytes, max_bytes)
            return info, answer.body
        with aws_errors(f"reading {key}"):
            try:
                response = self._s3.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if is_not_found(error):
                    return None
                raise
            info = _info(key, response)
            if info.size_bytes > max_bytes:
                response["Body"].close()
                raise too_large(info.size_bytes, max_bytes)
            return info, response["Body"].read()

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """See `lookalike.core.ports.ObjectStore`."""
        if length < 1:  # a Range header cannot say that
            return None if self.head(key) is None else b""
        wanted = f"bytes={start}-{start + length - 1}"
        answer = self._signed.send("GET", self._path(key), {"Range": wanted})
        if answer is not None and answer.status == 206:
            return answer.body
        if answer is not None and answer.status in _NO_RANGE:
            return _NO_RANGE[answer.status]
        with aws_errors(f"reading {key}"):
            try:
                response = self._s3.get_object(Bucket=self.bucket, Key=key, Range=wanted)
            except ClientError as error:
                if is_not_found(error):
                    return None
                if error_code(error) in {"InvalidRange", "416"}:
                    return b""
                raise
            body: bytes = response["Body"].read()
            return body

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        """See `lookalike.core.ports.ObjectStore`."""
        headers = {"Content-Type": content_type} | ({"If-None-Match": "*"} if if_absent else {})
        answer = self._signed.send("PUT", self._path(key), headers, body)
        # Content-addressed where it is conditional: what is there is what was to be written.
        if answer is not None and (answer.status == 200 or (if_absent and answer.status == 412)):
            return
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with aws_errors(f"writing {key}"):
            try:
                self._s3.put_object(
                    Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, **condition
                )
            except ClientError as error:
                if not (if_absent and error_code(error) in {"PreconditionFailed", "412"}):
                    raise

    def delete(self, key: str) -> None:
        """See `lookalike.core.ports.ObjectStore`."""
        with aws_errors(f"deleting {key}"):
            self._s3.delete_object(Bucket=self.bucket, Key=key)

    def replace(self, key: str, body: bytes, content_type: str, etag: str | None) -> str:
        """See `lookalike.core.ports.ObjectStore`."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'}
        with aws_errors(f"writing {key}"):
            try:
                answer = self._s3.put_object(
                    Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, **condition
                )
            except ClientError as error:
                if is_not_found(error):  # S3 says so of If-Match without an object
                    raise Conflict(f"{key} was deleted meanwhile") from error
                raise
        return str(answer["ETag"]).strip('"')

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See `lookalike.core.ports.ObjectStore`."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, StartAfter=after
        )
        with aws_errors(f"listing {prefix or self.bucket}"):
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(
                        item["Key"],
                        item["ETag"].strip('"'),
                        item["Size"],
                        item["LastModified"].timestamp(),
                    )

    def _path(self, key: str) -> str:
        return f"/{self.bucket}/{key}"

    def url(self, key: str, expires_s: int) -> str:
        """See `lookalike.core.ports.ObjectStore`."""
        return self._signed.url(self._path(key), expires_s)

    def upload_form(self, key: str, max_bytes: int, expires_s: int) -> tuple[str, dict[str, str]]:
        """See `lookalike.core.ports.ObjectStore`."""
        # The one type that no browser shows, whatever the bytes are.
        type_ = {"Content-Type": "application/octet-stream"}
        form = self._s3.generate_presigned_post(
            self.bucket,
            key,
            Fields=type_,
            Conditions=[["content-length-range", 1, max_bytes], type_],
            ExpiresIn=expires_s,
        )
        return form["url"], form["fields"]


def _described(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        etag=headers["ETag"].strip('"'),
        size_bytes=int(headers["Content-Length"]),
        last_modified=parsedate_to_datetime(headers["Last-Modified"]).timestamp(),
        content_type=headers.get("Content-Type", ""),
        metadata={
            name.lower().removeprefix(_METADATA): _text(value)
            for name, value in headers.items()
            if name.lower().startswith(_METADATA)
        },
    )


def _text(value: str) -> str:
    """A header's value; clients that send UTF-8 as it is come out as Latin-1 from HTTP."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _info(key: str, response: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        etag=response["ETag"].strip('"'),
        size_bytes=response["ContentLength"],
        last_modified=response["LastModified"].timestamp(),
        content_type=response.get("ContentType", ""),
        metadata=response.get("Metadata", {}),
    )
