"""Who may ask: checks the API key of a request, counts what it uses, makes and revokes keys."""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from lookalike.core.access import (
    ANYBODY,
    KEY_ID_LENGTH,
    MAX_RATE,
    SECRET_BYTES,
    ApiKey,
    Caller,
    Right,
    key_text,
    opens,
    read_key_text,
    secret_sha256,
)
from lookalike.core.errors import Forbidden, InvalidRequest, NotFound, Throttled, Unauthorized
from lookalike.core.keys import is_catalogue
from lookalike.core.ports import ApiKeyTable, Clock

MAX_LABEL = 200
_MINUTE_S = 60
_REMEMBERED = 1_000  # ids, known or not
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SCHEME = "bearer "
_NO_KEY = "This needs an API key, as “Authorization: Bearer lk_…”."


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may ask, while the request is still being counted."""

    caller: Caller
    counted: Future[None] | None = None

    def check(self) -> None:
        """Wait for the count: nothing is answered before.

        Raises
        ------
        Throttled
            The key has used up its requests of this minute.
        Retry
            The table cannot be reached.
        """
        if self.counted is not None:
            self.counted.result()


class Access:
    """The use case in front of every route that needs a key.

    Parameters
    ----------
    keys
        Where keys are.
    required
        Whether one is needed at all; without, everybody may do everything.
    refresh_s
        Seconds for which a key is believed to be as it was read, so that revoking it takes effect.
    pool
        Counts requests beside their work.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        keys: ApiKeyTable,
        required: bool,
        refresh_s: float,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._required = required
        self._refresh_s = refresh_s
        self._pool = pool
        self._clock = clock
        self._known: OrderedDict[str, tuple[ApiKey | None, float]] = OrderedDict()
        self._spent: dict[str, int] = {}

    def key(self, authorization: str) -> ApiKey | None:
        """The key of a request with this ``Authorization`` header; None where none is needed.

        Raises
        ------
        Unauthorized
            There is no key, or none that is valid.
        Retry
            The table cannot be reached.
        """
        return self._valid(authorization) if self._required else None

    def admit(self, key: ApiKey | None, right: Right) -> Admitted:
        """Let a request in whose key `key` has found, if it may, and begin to count it.

        What reads may be done while it is counted; what writes, or is refused, is counted here.

        Raises
        ------
        Unauthorized
            There is no key, and one is needed.
        Throttled
            The key has used up its requests of this minute.
        Forbidden
            The key has not this right.
        Retry
            The table cannot be reached.
        """
        if not self._required:
            return Admitted(ANYBODY)
        if key is None:
            raise Unauthorized(_NO_KEY)
        now = self._clock()
        minute = int(now // _MINUTE_S)
        left_s = math.ceil((minute + 1) * _MINUTE_S - now)
        if self._spent.get(key.key_id) == minute:  # and costs no more writes here
            raise _throttled(key, left_s)
        catalogues = None if key.catalogues is None else frozenset(key.catalogues)
        counted = self._pool.submit(self._count, key, minute, left_s)
        admitted = Admitted(Caller(key.key_id, catalogues), counted)
        is_refused = right not in key.rights
        if right == "write" or is_refused:
            admitted.check()
        if is_refused:
            raise Forbidden(f"This API key may not {right}; its rights are: {_rights(key)}.")
        return admitted

    def _valid(self, authorization: str) -> ApiKey:
        if not authorization:
            raise Unauthorized(_NO_KEY)
        sent = None
        if authorization[: len(_SCHEME)].lower() == _SCHEME:
            sent = read_key_text(authorization[len(_SCHEME) :].strip())
        if sent is None:
            raise Unauthorized(
                "The Authorization header holds no API key; it must be “Bearer lk_<id>_<secret>”."
            )
        key_id, secret = sent
        key = self._key(key_id)
        if not opens(key, secret) or key is None:
            raise Unauthorized("There is no such API key.")
        state = key.state(self._clock())
        if state != "valid":
            raise Unauthorized(f"The API key {key_id} is {state}.")
        return key

    def _key(self, key_id: str) -> ApiKey | None:
        now = self._clock()
        key, asked_at = self._known.get(key_id, (None, -math.inf))
        if now - asked_at >= self._refresh_s:
            key = self._keys.get(key_id)
            self._known[key_id] = (key, now)
            self._known.move_to_end(key_id)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return key

    def _count(self, key: ApiKey, minute: int, left_s: int) -> None:
        """Count a request of a minute, over all functions."""
        if self._keys.count(key.key_id, minute) > key.rate:
            self._spent[key.key_id] = minute
            raise _throttled(key, left_s)


class ApiKeys:
    """The use case behind ``lookalike keys``.

    Parameters
    ----------
    keys
        Where keys are.
    clock
        Epoch seconds.
    """

    def __init__(self, keys: ApiKeyTable, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def create(
        self,
        label: str,
        catalogues: Sequence[str] | None,
        rights: Sequence[Right],
        rate: int,
        expires_in_s: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key: its record, and its text, which nobody can tell again.

        Raises
        ------
        InvalidRequest
            Something of this cannot be in a key.
        """
        if not label.strip() or len(label) > MAX_LABEL:
            raise InvalidRequest(
                f"A label has 1 to {MAX_LABEL} characters, to know the key by.", parameter="label"
            )
        if not 1 <= rate <= MAX_RATE:
            raise InvalidRequest(
                f"The rate is {rate}; it must be 1 to {MAX_RATE:,} a minute.", parameter="rate"
            )
        for name in catalogues or ():
            if not is_catalogue(name):
                raise InvalidRequest(f"“{name}” cannot be a catalogue.", parameter="catalogue")
        now = self._clock()
        key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(KEY_ID_LENGTH))
        secret = secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(
            key_id=key_id,
            secret_sha256=secret_sha256(secret),
            label=label,
            catalogues=None if catalogues is None else tuple(dict.fromkeys(catalogues)),
            rights=tuple(rights),
            rate=rate,
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        self._keys.put(key)
        return key, key_text(key_id, secret)

    def all(self) -> list[ApiKey]:
        """Every key that was ever made, the oldest first."""
        return sorted(self._keys.all(), key=lambda key: (key.created_at, key.key_id))

    def revoke(self, key_id: str) -> ApiKey:
        """Make a key open nothing from now on; raises `NotFound`. Again changes nothing."""
        key = self._keys.get(key_id)
        if key is None:
            raise NotFound(f"There is no API key “{key_id}”.", parameter="key_id")
        if key.revoked_at is None:
            key = replace(key, revoked_at=self._clock())
            self._keys.put(key)
        return key


def _throttled(key: ApiKey, left_s: int) -> Throttled:
    return Throttled(
        f"This API key is good for {key.rate:,} requests a minute, which are used up.", left_s
    )


def _rights(key: ApiKey) -> str:
    return ", ".join(key.rights) or "none"
