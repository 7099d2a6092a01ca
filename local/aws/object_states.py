"""The fields of moto's S3 objects and uploads that are kept, and objects made of them again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from moto.moto_api._internal.managed_state_model import ManagedState
from moto.s3.models import (
    FakeAcl,
    FakeDeleteMarker,
    FakeGrant,
    FakeGrantee,
    FakeKey,
    FakeMultipart,
    s3_backends,
)
from moto.utilities.utils import LowercaseDict
from requests.structures import CaseInsensitiveDict

from local.aws.bodies import Body

_VERSION_FIELDS = (
    *("account_id", "region_name", "partition", "website_redirect_location"),
    *("checksum_algorithm", "checksum_value", "checksum_type", "checksum_parts"),
    *("_storage_class", "_etag", "_version_id", "_is_versioned", "_status", "contentsize"),
    *("encryption", "kms_key_id", "bucket_key_enabled", "bucket_name"),
    *("lock_mode", "lock_legal_status", "lock_until"),
)
_UPLOAD_FIELDS = (
    *("key_name", "account_id", "region_name", "storage", "tags", "id"),
    *("sse_encryption", "kms_key_id"),
)


def _tags(version: Any) -> dict[str, dict[str, Any]]:
    tags: dict[str, dict[str, Any]] = s3_backends[version.account_id][version.partition].tagger.tags
    return tags


def forget_tags(versions: Iterable[Any], kept: Iterable[Any]) -> None:
    """Let go of the tags of versions that go; moto keeps an entry of every one there ever was."""
    names = {version.arn for version in kept if isinstance(version, FakeKey)}
    for version in versions:
        if isinstance(version, FakeKey) and version.arn not in names:
            _tags(version).pop(version.arn, None)


def version_state(version: Any) -> dict[str, Any]:
    """The kept fields of a version, a delete marker or a part."""
    if not isinstance(version, FakeKey):
        return {
            "marker_of_marker": isinstance(version.key, FakeDeleteMarker),
            "last_modified": version.last_modified.isoformat(),
            "_version_id": version._version_id,
        }
    _ = version.etag  # computed when it is first asked for
    return {
        **{name: getattr(version, name) for name in _VERSION_FIELDS},
        "last_modified": version.last_modified.isoformat(),
        "_expiry": version._expiry.isoformat() if version._expiry else None,
        "_metadata": dict(version._metadata),
        "acl": _acl_state(version.acl),
        "tags": _tags(version).get(version.arn),
        "multipart": _parts_state(version.multipart),
    }


def object_of(name: Any, fields: dict[str, Any]) -> Any:
    """The version or part of kept fields, without its body; its tags are put into moto."""
    version: Any = FakeKey.__new__(FakeKey)
    ManagedState.__init__(
        version,
        "s3::keyrestore",
        transitions=[(None, "IN_PROGRESS"), ("IN_PROGRESS", "RESTORED")],
    )
    version.name = name
    version.lock = threading.Lock()
    version.disposed = False
    for field in _VERSION_FIELDS:
        setattr(version, field, fields[field])
    version.last_modified = datetime.fromisoformat(fields["last_modified"])
    version._expiry = datetime.fromisoformat(fields["_expiry"]) if fields["_expiry"] else None
    version._metadata = LowercaseDict(fields["_metadata"])
    version.acl = _acl(json.dumps(fields["acl"]))
    if fields["tags"] is None:
        _tags(version).pop(version.arn, None)
    else:
        _tags(version)[version.arn] = fields["tags"]
    version.multipart = _parts(fields["multipart"])
    return version


class _Buried:
    """What a delete marker hides: moto asks for its kind, ETag and size."""

    etag = ""
    size = 0

    def __init__(self, name: str) -> None:
        self.name = name


def marker_of(name: str, fields: dict[str, Any]) -> Any:
    """The delete marker of kept fields."""
    marker: Any = FakeDeleteMarker.__new__(FakeDeleteMarker)
    marker.name = name
    marker.key = _Buried(name)
    if fields["marker_of_marker"]:
        hidden: Any = FakeDeleteMarker.__new__(FakeDeleteMarker)
        hidden.key, hidden.name = marker.key, name
        marker.key = hidden
    marker.last_modified = datetime.fromisoformat(fields["last_modified"])
    marker._version_id = fields["_version_id"]
    return marker


def _acl_state(acl: FakeAcl | None) -> list[Any] | None:
    if acl is None:
        return None
    return [
        [[[who.id, who.uri, who.display_name] for who in grant.grantees], grant.permissions]
        for grant in acl.grants
    ]


@lru_cache(maxsize=256)
def _acl(state: str) -> FakeAcl | None:
    """Moto replaces an object's list as a whole and never changes it, so that equal ones share."""
    grants = json.loads(state)
    if grants is None:
        return None
    return FakeAcl(
        [FakeGrant([FakeGrantee(*who) for who in grantees], rights) for grantees, rights in grants]
    )


def _parts_state(multipart: Any) -> dict[str, Any] | None:
    """What moto asks of the parts of a complete object: how many, and the size of each."""
    if multipart is None:
        return None
    parts = [[number, part.etag.strip('"'), part.size] for number, part in multipart.parts.items()]
    for part in multipart.parts.values():
        part.body = Body(size=part.size)
    return {"id": multipart.id, "parts": parts}


def _parts(state: dict[str, Any] | None) -> Any:
    if state is None:
        return None
    multipart = FakeMultipart("", CaseInsensitiveDict(), account_id="", region_name="us-east-1")
    multipart.id = state["id"]
    for number, etag, size in state["parts"]:
        part: Any = FakeKey(number, b"", account_id="", region_name="us-east-1", etag=etag)
        part.body, part.contentsize = Body(size=size), size
        multipart.parts[number] = part
    multipart.partlist = sorted(multipart.parts)
    return multipart


def upload_state(upload: Any) -> dict[str, Any]:
    """The kept fields of an upload in progress."""
    return {
        **{name: getattr(upload, name) for name in _UPLOAD_FIELDS},
        "metadata": dict(upload.metadata.items()),
        "acl": _acl_state(upload.acl),
    }


def upload_of(bucket: str, fields: dict[str, Any]) -> Any:
    """The upload of kept fields, without its parts."""
    upload: Any = FakeMultipart.__new__(FakeMultipart)
    for name in _UPLOAD_FIELDS:
        setattr(upload, name, fields[name])
    upload.bucket_name = bucket
    upload.metadata = CaseInsensitiveDict(fields["metadata"])
    upload.acl = _acl(json.dumps(fields["acl"]))
    upload.parts, upload.partlist = {}, []
    return upload
