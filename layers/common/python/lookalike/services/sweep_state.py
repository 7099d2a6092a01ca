"""How far the sweep is: one object in the index bucket, so that the next run can go on.

Whoever runs last owns it. A run that finds that another has written meanwhile stops: both may ask
for the same object, which is harmless, but they never mix what they have found.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import msgspec

from lookalike.core.errors import Conflict, Unindexable
from lookalike.core.ports import Clock, ObjectStore
from lookalike.core.types import Counts
from lookalike.services.derived import HASH_BYTES

logger = logging.getLogger(__name__)

STATE_KEY = "sweep/state"
OBJECTS, PRODUCTS, THUMBNAILS, MAPS, INDEX, DONE = (
    "objects",
    "products",
    "thumbnails",
    "maps",
    "index",
    "done",
)
_PHASES = frozenset({OBJECTS, PRODUCTS, THUMBNAILS, MAPS, INDEX, DONE})
_TYPE = "application/octet-stream"
_VERSION = 2
_MAX_BYTES = 2**30
_SAVE_EVERY_S = 30.0


class Superseded(Exception):
    """Another run has taken the sweep over."""


@dataclass(slots=True)
class SweepState:
    """Where a sweep goes on, and what it has found until there.

    ``begun_at`` names the sweep. It goes on in ``phase`` behind ``after``; while records are
    compared, ``catalogue`` is the one at hand and ``counts`` what was counted of it.

    ``in_bucket``, ``needed``, ``stored`` and ``lacking`` are `KeySet`s: keys that the bucket holds,
    names of what is derived and to stay, those of it that were listed, and those that were not.
    ``found_wrong`` says whether the comparison with the index has found anything; ``indexed_at`` is
    when the last one began that did not. Times are epoch seconds.
    """

    begun_at: float
    phase: str = OBJECTS
    catalogue: str = ""
    after: str = ""
    in_bucket: bytes = b""
    needed: bytes = b""
    stored: bytes = b""
    lacking: bytes = b""
    counts: Counts = field(default_factory=Counts)
    found_wrong: bool = False
    indexed_at: float = 0.0
    version: int = _VERSION

    def enter(self, phase: str, catalogue: str = "") -> None:
        """Go on at the beginning of a phase, or of a catalogue in it."""
        self.phase, self.catalogue, self.after, self.counts = phase, catalogue, "", Counts()

    @property
    def is_sound(self) -> bool:
        """Whether a sweep can go on with it; one of another version of the code may not be."""
        sets = (self.in_bucket, self.needed, self.stored, self.lacking)
        return (
            self.version == _VERSION
            and self.phase in _PHASES
            and not any(len(item) % HASH_BYTES for item in sets)
        )


class SweepLedger:
    """Reads and writes the state as one owner.

    Parameters
    ----------
    index
        The bucket that has it.
    clock
        Epoch seconds.
    """

    def __init__(self, index: ObjectStore, clock: Clock) -> None:
        self._index = index
        self._clock = clock
        self._etag: str | None = None
        self._saved_at = 0.0

    def read(self) -> SweepState | None:
        """The state as it is; None when there is none that can be read."""
        try:
            found = self._index.get(STATE_KEY, _MAX_BYTES)
        except Unindexable:
            self._etag = getattr(self._index.head(STATE_KEY), "etag", None)
            return None
        if found is None:
            self._etag = None
            return None
        self._etag = found[0].etag
        try:
            state = msgspec.msgpack.decode(found[1], type=SweepState)
        except msgspec.MsgspecError:
            logger.warning("the state of the sweep cannot be read; it starts over")
            return None
        if not state.is_sound:
            logger.warning("the state of the sweep is not one to go on with; it starts over")
            return None
        return state

    def save(self, state: SweepState) -> None:
        """Write the state.

        Raises
        ------
        Superseded
            Somebody else has written it since it was read or written here.
        """
        body = msgspec.msgpack.encode(state)
        try:
            self._etag = self._index.replace(STATE_KEY, body, _TYPE, self._etag)
        except Conflict:
            # A first try whose answer was lost looks like another writer.
            found = self._index.get(STATE_KEY, _MAX_BYTES)
            if found is None or found[1] != body:
                raise Superseded from None
            self._etag = found[0].etag
        self._saved_at = self._clock()

    @property
    def is_due(self) -> bool:
        """Whether enough was done since the last time for the state to be written."""
        return self._clock() - self._saved_at >= _SAVE_EVERY_S
