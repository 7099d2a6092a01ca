"""boto3 clients with bounded retries and timeouts, and AWS's errors as ours."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lookalike.core.errors import Conflict, Unavailable

_NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
_LOST_RACE = {
    "ConditionalCheckFailedException",
    "PreconditionFailed",
    "412",
    "409",
    "ConditionalRequestConflict",
}


@functools.cache
def client(service: str) -> Any:
    """The process's client of a service.

    Endpoint, region and credentials are the SDK's own settings.
    """
    config = Config(
        connect_timeout=3,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=32,
        s3={"addressing_style": "path"} if service == "s3" else None,
        # The SDK's default CRC on every transfer costs CPU; ETags and our own digests cover
        # integrity.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version="s3v4" if service == "s3" else None,
    )
    return _session().client(service, config=config)


def credentials() -> Any:
    """The process's AWS credentials, refreshed by the SDK when they are about to expire."""
    return _session().get_credentials().get_frozen_credentials()


def ca_bundle() -> str | None:
    """File of the certificates that the SDK is set up to trust; None for the usual ones."""
    bundle: str | None = _sdk().get_config_variable("ca_bundle")
    return bundle or os.environ.get("REQUESTS_CA_BUNDLE")


@functools.cache
def _session() -> Any:
    return boto3.Session(botocore_session=_sdk())


@functools.cache
def _sdk() -> Any:
    return botocore.session.get_session()


def forget_clients() -> None:
    """Make new clients at the next call, after the SDK's settings have changed."""
    client.cache_clear()
    _session.cache_clear()
    _sdk.cache_clear()


def error_code(error: ClientError) -> str:
    """The service's error code, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_not_found(error: ClientError) -> bool:
    """Whether the object is not there."""
    return error_code(error) in _NOT_FOUND


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise `Conflict` for a lost conditional write and `Unavailable` for any other refusal."""
    try:
        yield
    except ClientError as error:
        if error_code(error) in _LOST_RACE:
            raise Conflict(f"{what}: changed meanwhile") from error
        raise Unavailable(f"{what}: {error}") from error
    except BotoCoreError as error:
        raise Unavailable(f"{what}: {error}") from error
