"""API keys: what they are, how one is written down, what its holder may do.

A key is ``lk_<id>_<secret>``. The id is public; of the secret only the SHA-256 is stored, which is
enough for 256 random bits: there is nothing to guess that salt or slowness would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Literal

from lookalike.core.errors import Forbidden

Right = Literal["read", "write"]

KEY_ID_LENGTH = 12
SECRET_BYTES = 32
MAX_RATE = 60_000
"""Most requests a minute that a key may be given: what one partition of a table can count."""

_KEY = re.compile(rf"lk_([0-9a-z]{{{KEY_ID_LENGTH}}})_([A-Za-z0-9_-]{{43}})")
_NOBODYS = "0" * 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored. ``catalogues`` is None for all; times are epoch seconds.

    ``rate`` is how many requests a minute it is good for.
    """

    key_id: str
    secret_sha256: str
    label: str
    catalogues: tuple[str, ...] | None
    rights: tuple[Right, ...]
    rate: int
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now: float) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything at epoch second ``now``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: ``key_id`` is "" and ``catalogues`` None for all where no keys are needed."""

    key_id: str = ""
    catalogues: frozenset[str] | None = None

    def sees(self, catalogue: str) -> bool:
        """Whether what is in a catalogue is the caller's to know."""
        return self.catalogues is None or catalogue in self.catalogues

    def allowed(self, catalogue: str) -> str:
        """The catalogue that was named; raises `Forbidden` if it is not the caller's to name."""
        if not self.sees(catalogue):
            raise Forbidden(
                f"This API key is not for the catalogue “{catalogue}”.", parameter="catalogue"
            )
        return catalogue


ANYBODY = Caller()
"""Whoever asks where no keys are needed."""


def key_text(key_id: str, secret: str) -> str:
    """A key as its holder keeps it."""
    return f"lk_{key_id}_{secret}"


def read_key_text(text: str) -> tuple[str, str] | None:
    """(id, secret) of a key; None for what is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def secret_sha256(secret: str) -> str:
    """What is stored of a secret: 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def opens(key: ApiKey | None, secret: str) -> bool:
    """Whether a secret is the key's; it takes as long whatever it is, and where there is no key."""
    stored = key.secret_sha256 if key is not None else _NOBODYS
    return hmac.compare_digest(secret_sha256(secret), stored)
