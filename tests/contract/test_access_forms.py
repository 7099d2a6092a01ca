"""The forms of ``POST /uploads``, as the local bucket takes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal import moto_api_backend
from moto.s3.models import s3_backends
from werkzeug.test import Client

from local.aws import presigned
from local.aws.durable_moto import DurableMoto
from lookalike.adapters.aws import forget_clients
from lookalike.adapters.s3 import S3ObjectStore
from lookalike.core.access import Caller
from lookalike.services.uploads import UploadForm, Uploads

ENDPOINT, BUCKET, KEY_ID = "http://127.0.0.1:5000", "lookalike-index", "abcdefghijkl"
UPLOAD_KEY = "01J0000000000000000000000G"
OBJECT_KEY = f"uploads/{KEY_ID}/{UPLOAD_KEY}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    forget_clients()
    moto_api_backend.reset()
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, "us-east-1")
    yield Client(DurableMoto())
    moto_api_backend.reset()
    forget_clients()


def form() -> UploadForm:
    uploads = Uploads(S3ObjectStore(BUCKET), 100, lambda: 0.0, lambda: UPLOAD_KEY)
    return uploads.create(Caller(KEY_ID))


def send(bucket: Client, fields: dict[str, str], body: bytes = b"photo") -> tuple[int, str]:
    data: dict[str, Any] = {**fields, "file": (BytesIO(body), "photo.jpg")}
    answer = bucket.post(f"/{BUCKET}", base_url=ENDPOINT, data=data)
    return answer.status_code, answer.text


def stored() -> list[str]:
    return list(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys)


def test_a_form_admits_one_object_under_its_keys_folder(bucket: Client) -> None:
    made = form()
    assert urlsplit(made.url).path == f"/{BUCKET}"
    assert send(bucket, made.fields)[0] == 204
    assert stored() == [OBJECT_KEY]
    url = urlsplit(S3ObjectStore(BUCKET).url(OBJECT_KEY, 60))
    answer = bucket.get(url.path, base_url=ENDPOINT, query_string=url.query)
    assert (answer.data, answer.content_type) == (b"photo", "application/octet-stream")


def tampered(fields: dict[str, str], old: str, new: str) -> dict[str, str]:
    policy = json.loads(base64.b64decode(fields["policy"]))
    changed = json.loads(json.dumps(policy).replace(old, new))
    assert changed != policy
    return {**fields, "policy": base64.b64encode(json.dumps(changed).encode()).decode()}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": f"uploads/{KEY_ID}/other"}, "AccessDenied"),
        ({"key": f"uploads/mnopqrstuvwx/{UPLOAD_KEY}"}, "AccessDenied"),
        ({"key": f"queries/{UPLOAD_KEY}.query"}, "AccessDenied"),
        ({"Content-Type": "text/html"}, "AccessDenied"),
        ({"Content-Type": "image/svg+xml"}, "AccessDenied"),
        ({"Content-Type": None}, "AccessDenied"),
        ({"acl": "public-read"}, "AccessDenied"),
        ({"x-amz-meta-title": "x"}, "AccessDenied"),
        ({"success_action_redirect": "https://elsewhere"}, "AccessDenied"),
        ({"policy": None}, "AccessDenied"),
        ({"x-amz-signature": None}, "AccessDenied"),
        ({"x-amz-credential": None}, "AccessDenied"),
        ({"x-amz-signature": "0" * 64}, "SignatureDoesNotMatch"),
        ({"x-amz-signature": "é"}, "SignatureDoesNotMatch"),
        ({"x-amz-credential": "local/20200101/us-east-1/s3/aws4_request"}, "Signature"),
        ({"policy": ("100", "1000000000")}, "SignatureDoesNotMatch"),
        ({"policy": (KEY_ID, "mnopqrstuvwx")}, "SignatureDoesNotMatch"),
        ({"policy": ("application/octet-stream", "text/html")}, "SignatureDoesNotMatch"),
        ({"policy": ('"expiration": "20', '"expiration": "21')}, "SignatureDoesNotMatch"),
    ],
)
def test_nothing_of_a_form_can_be_changed(
    bucket: Client, change: dict[str, Any], code: str
) -> None:
    fields = form().fields
    ((name, value),) = change.items()
    if isinstance(value, tuple):
        fields = tampered(fields, *value)
    else:
        fields = {k: v for k, v in {**fields, name: value}.items() if v is not None}
    status, text = send(bucket, fields)
    assert (status, code in text) == (403, True), text
    assert stored() == []


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"x" * 100, 204), (b"x" * 101, 400)])
def test_a_form_limits_the_size(bucket: Client, body: bytes, status: int) -> None:
    assert send(bucket, form().fields, body)[0] == status


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_forms_of_both_versions_are_checked(bucket: Client, version: str) -> None:
    s3 = boto3.client(
        "s3",
        config=Config(signature_version=version),
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    fields = s3.generate_presigned_post(BUCKET, "k")["fields"]
    assert send(bucket, tampered(fields, '"k"', '"l"') | {"key": "l"})[0] == 403
    assert send(bucket, fields)[0] == 204
    assert stored() == ["k"]


@pytest.mark.parametrize(
    "change",
    [
        {"expiration": 5},
        {"expiration": "2099-01-01T00:00:00"},
        {"conditions": 5},
        {"conditions": [5]},
        {"conditions": [["eq", "$key"]]},
        {"conditions": [["content-length-range", "a", "b"]]},
        {"conditions": [["like", "$key", "x"]]},
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(bucket: Client, change: dict[str, Any]) -> None:
    """Of a signer whose secret nobody here knows, so that only the policy is wrong."""
    policy = {"expiration": "2099-01-01T00:00:00Z", "conditions": []} | change
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    fields = {"key": "k", "policy": text, "awsaccesskeyid": "other", "signature": "x"}
    status, answer = send(bucket, fields)
    assert (status, "InvalidPolicyDocument" in answer) == (400, True), answer
    assert stored() == []


def test_every_field_of_an_object_in_a_policy_counts(bucket: Client) -> None:
    policy = {"expiration": "2099-01-01T00:00:00Z", "conditions": [{"bucket": BUCKET, "key": "k"}]}
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    fields = {"policy": text, "awsaccesskeyid": "other", "signature": "x"}
    assert send(bucket, {**fields, "key": "l"})[0] == 403
    assert send(bucket, {**fields, "key": "k"})[0] == 204


def test_a_role_s_forms_are_checked_with_its_secret(bucket: Client) -> None:
    s3 = boto3.client(
        "s3",
        config=Config(signature_version="s3v4"),
        aws_access_key_id="ASIAROLE",
        aws_secret_access_key="secret",
        aws_session_token="token",
    )
    fields = s3.generate_presigned_post(BUCKET, "k")["fields"]
    known = Client(DurableMoto(secrets={"ASIAROLE": "secret"}))
    assert send(known, tampered(fields, '"k"', '"l"') | {"key": "l"})[0] == 403
    assert send(known, fields)[0] == 204
    assert send(Client(DurableMoto(secrets={"ASIAROLE": "another"})), fields)[0] == 403


def test_a_policy_expires_at_its_moment() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    policy = presigned._Policy(now, [("eq", "bucket", BUCKET)], [])
    presigned._check_policy(policy, {"bucket": BUCKET}, 1, now)
    with pytest.raises(presigned.Refusal, match="expired"):
        presigned._check_policy(policy, {"bucket": BUCKET}, 1, now + timedelta(seconds=1))
