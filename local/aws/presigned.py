"""What S3 enforces on presigned requests and moto does not: expiry; a form's policy, signed."""

from __future__ import annotations

import base64
import hmac
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from werkzeug.formparser import parse_form_data

Environ = dict[str, Any]

SECRETS = {"local": "local"}
"""By access key: that of the functions, unless they act in roles (`local.roles`)."""
_UNCHECKED_FIELDS = frozenset({"policy", "file", "x-amz-signature", "awsaccesskeyid", "signature"})


class Refusal(Exception):
    """The request must be answered with an S3 error.

    Parameters
    ----------
    status
        HTTP status.
    code
        S3's error code.
    message
        What is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> bytes:
        """The XML document S3 answers with."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        ).encode()


class _Policy(NamedTuple):
    """What a form's policy says: conditions are an operator, a field and a value."""

    expires: datetime
    conditions: list[tuple[str, str, str]]
    sizes: list[tuple[int, int]]


def check_request(environ: Environ, now: datetime, secrets: Mapping[str, str] = SECRETS) -> None:
    """Refuse a presigned request that has expired or breaks its policy.

    Raises
    ------
    Refusal
        403 ``AccessDenied``; 400 ``EntityTooLarge``, ``EntityTooSmall`` and others of S3's.
    """
    _check_expiry(parse_qs(environ.get("QUERY_STRING", "")), now)
    content_type = environ.get("CONTENT_TYPE", "")
    is_form = content_type.lower().startswith("multipart/form-data")
    if environ["REQUEST_METHOD"] == "POST" and is_form:
        _check_form(environ, now, secrets)


def _check_expiry(query: Mapping[str, list[str]], now: datetime) -> None:
    """Signature version 4 names a start and a duration, version 2 an end in Unix seconds."""
    try:
        if "X-Amz-Expires" in query and "X-Amz-Date" in query:
            start = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            expires = start + timedelta(seconds=int(query["X-Amz-Expires"][0]))
        elif "Expires" in query and "Signature" in query:
            expires = datetime.fromtimestamp(int(query["Expires"][0]), UTC)
        else:
            return
    except (ValueError, OverflowError):
        raise Refusal(
            403, "AccessDenied", "The presigned request's dates cannot be read."
        ) from None
    if now > expires:
        raise Refusal(403, "AccessDenied", "Request has expired")


def _check_form(environ: Environ, now: datetime, secrets: Mapping[str, str]) -> None:
    body: bytes = environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)
    _, form, files = parse_form_data(
        {**environ, "wsgi.input": io.BytesIO(body)}, max_form_memory_size=len(body)
    )
    fields = {name.lower(): value for name, value in form.items()}
    uploaded = files.get("file")
    size = len(uploaded.read() if uploaded else fields.get("file", "").encode())
    for file in files.values():
        file.close()
    if "policy" not in fields:  # the template's buckets are open to nobody
        raise Refusal(403, "AccessDenied", "Access Denied")
    if uploaded is None and "file" not in fields:
        raise Refusal(400, "InvalidArgument", "POST requires exactly one file upload per request.")
    fields["bucket"] = environ["PATH_INFO"].strip("/").split("/")[0]
    policy = _policy(fields["policy"])
    _check_signature(fields, secrets)
    _check_policy(policy, fields, size, now)


def _check_signature(fields: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Check that whose key a form names has signed its policy; others' secrets are not known here.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html
    """
    access_key, *scope = fields.get("x-amz-credential", "").split("/")
    signed = fields.get("x-amz-signature") or fields.get("signature")
    if not signed or not (access_key or fields.get("awsaccesskeyid")):
        raise Refusal(403, "AccessDenied", "Access Denied")
    if (secret := secrets.get(access_key or fields["awsaccesskeyid"])) is None:
        return
    key = f"AWS4{secret}".encode() if access_key else secret.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    policy = fields["policy"].encode()
    if access_key:
        expected = hmac.digest(key, policy, "sha256").hex()
    else:  # version 2, which SDKs use where they are not told of 4
        expected = base64.b64encode(hmac.digest(key, policy, "sha1")).decode()
    if not hmac.compare_digest(signed.encode(), expected.encode()):
        raise Refusal(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )


def _policy(text: str) -> _Policy:
    try:
        document = json.loads(base64.b64decode(text, validate=True))
        expires = datetime.fromisoformat(document["expiration"])
        if expires.tzinfo is None:
            raise ValueError("an end without a zone")
        conditions, sizes = [], []
        for operator, name, value in _conditions(document["conditions"]):
            if operator == "content-length-range":
                sizes.append((int(name), int(value)))
            elif operator in ("eq", "starts-with"):
                conditions.append((operator, str(name).removeprefix("$").lower(), str(value)))
            else:
                raise ValueError(operator)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise Refusal(400, "InvalidPolicyDocument", "Invalid Policy: it cannot be read.") from None
    return _Policy(expires, conditions, sizes)


def _conditions(written: Any) -> Iterator[Any]:
    """The conditions of a policy; an object says what fields are equal to."""
    for condition in written:
        if isinstance(condition, dict):
            yield from (("eq", name, value) for name, value in condition.items())
        else:
            yield condition


def _check_policy(policy: _Policy, fields: Mapping[str, str], size: int, now: datetime) -> None:
    """Check all conditions.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
    """
    if now > policy.expires:
        raise Refusal(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
    for smallest, largest in policy.sizes:
        _check_size(size, smallest, largest)
    allowed = {"bucket"}
    for operator, name, wanted in policy.conditions:
        value = fields.get(name, "")
        if value != wanted and not (operator == "starts-with" and value.startswith(wanted)):
            raise Refusal(
                403,
                "AccessDenied",
                "Invalid according to Policy: Policy Condition failed: "
                f"{json.dumps([operator, f'${name}', wanted])}",
            )
        allowed.add(name)
    for name in fields.keys() - _UNCHECKED_FIELDS - allowed:
        if not name.startswith("x-ignore-"):
            raise Refusal(
                403, "AccessDenied", f"Invalid according to Policy: Extra input fields: {name}"
            )


def _check_size(size: int, smallest: int, largest: int) -> None:
    if size < smallest:
        raise Refusal(
            400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size"
        )
    if size > largest:
        raise Refusal(
            400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"
        )
