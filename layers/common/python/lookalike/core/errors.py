"""Every error Lookalike raises on purpose, branching by what the caller does next.

LookalikeError
├── Retry                 the same call may succeed later: redeliver the message, answer 503
│   ├── Conflict          a conditional write lost its race: read again, then decide again
│   ├── Unavailable       a store or an encoder cannot be reached right now
│   └── Vanished          an index file was swapped out and deleted: read the registry again
├── CorruptFile           a stored file is truncated or altered: named, never searched
├── Unindexable           this object will never be indexed as it is: a failure record, or a
│                         4xx when it came with a request
└── Reject                this request will never be served as it is: one 4xx
    ├── InvalidRequest    422, a value is wrong (names the parameter)
    ├── MalformedBody     400, the body cannot be read at all
    ├── NotFound          404
    ├── TooLarge          413
    ├── UnsupportedMedia  415
    ├── Unauthorized      401, no API key, or none that is valid
    ├── Forbidden         403, an API key that is not for this
    └── Throttled         429, an API key that has asked too often
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "Conflict",
    "CorruptFile",
    "Forbidden",
    "InvalidRequest",
    "LookalikeError",
    "MalformedBody",
    "NotFound",
    "Reject",
    "Retry",
    "Throttled",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unindexable",
    "UnsupportedMedia",
    "Vanished",
    "too_large",
]


class LookalikeError(Exception):
    """Base of every deliberate error. ``str(error)`` is a sentence for a person."""


class Retry(LookalikeError):
    """The same call may succeed later; nothing was lost."""


class Conflict(Retry):
    """A conditional write found that somebody else had written first."""


class Unavailable(Retry):
    """A store, an encoder or a function cannot be reached right now."""


class Vanished(Retry):
    """An index file was swapped out and deleted while it was in use; the registry knows better."""


class CorruptFile(LookalikeError):
    """A stored file does not hold what its checksum says; the message names it."""


class Unindexable(LookalikeError):
    """An object that cannot be indexed as it is, with a reason a merchant understands.

    Parameters
    ----------
    reason
        A stable machine-readable code in kebab case, such as ``"not-an-image"``.
    detail
        One sentence: what is wrong, what would be right.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Reject(LookalikeError):
    """A request that will never be served as it is.

    Parameters
    ----------
    detail
        One sentence naming the bad value, what is allowed and the next step.
    parameter
        The request parameter that is wrong, if one is.
    """

    status = 400
    title = "Bad request"
    headers: Mapping[str, str] = {}
    """What the answer says beside the problem."""

    def __init__(self, detail: str, *, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter


class MalformedBody(Reject):
    """The body cannot be read as what its content type says."""

    status = 400
    title = "Malformed body"


class InvalidRequest(Reject):
    """A parameter has a value that is not allowed."""

    status = 422
    title = "Invalid request"


class NotFound(Reject):
    """The named catalogue, product or query does not exist."""

    status = 404
    title = "Not found"


class Gone(Reject):
    """What is named existed and does not any more: an expired query, a deleted product."""

    status = 410
    title = "Gone"


class TooLarge(Reject):
    """The body or image is over a limit."""

    status = 413
    title = "Too large"


class UnsupportedMedia(Reject):
    """The body is of a kind that is not read here."""

    status = 415
    title = "Unsupported media type"


class Unauthorized(Reject):
    """The request has no API key, or none that is valid."""

    status = 401
    title = "Unauthorized"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="lookalike"'}


class Forbidden(Reject):
    """The request's API key is valid, and not for this."""

    status = 403
    title = "Forbidden"


class Throttled(Reject):
    """The request's API key has asked too often; in ``retry_after_s`` seconds it may again."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_s)}


def too_large(size_bytes: int, max_bytes: int) -> Unindexable:
    """The error of every `ObjectStore.get` for an object over the limit."""
    return Unindexable(
        "too-large",
        f"The file has {size_bytes:,} bytes; at most {max_bytes:,} are read.",
    )
