"""Stores whose chosen call fails, to show that no call, however it fails, loses anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from lookalike.core.errors import Conflict, Unavailable
from lookalike.core.ports import Stores


class Crash(BaseException):
    """The process died here. A BaseException, as no handler may survive it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way for a call to fail.

    ``effective`` calls have taken effect before; with ``lasting`` all calls after it fail as well.
    ``conditional`` faults only befall writes that depend on what is stored.
    """

    name: str
    error: type[BaseException]
    effective: bool = False
    lasting: bool = False
    conditional: bool = False

    def befalls(self, call: str) -> bool:
        """Whether a call, by its store and method (``products.put``), can fail so."""
        return not self.conditional or call in _CONDITIONAL


FAULTS = (
    Fault("crash before", Crash),
    Fault("crash after", Crash, effective=True),
    Fault("refused", Unavailable),
    Fault("answer lost", Unavailable, effective=True),
    Fault("outage", Unavailable, lasting=True),
    Fault("conflict", Conflict, conditional=True),
    Fault("conflict that won", Conflict, effective=True, conditional=True),
)

_CONDITIONAL = {
    "artifacts.put",
    "artifacts.remove",
    "index.replace",
    "jobs.put",
    "lineages.put",
    "products.delete",
    "products.put",
    "registry.put_manifest",
    "rollups.put",
    "rollups.put_state",
}


class FailingStores:
    """Counts every call to every store and lets the chosen one fail.

    Parameters
    ----------
    stores
        The real ones.
    at
        Number of the call, from 1, at which to fail; 0 never fails.
    fault
        Raises what the call raises; by default a `Crash`.
    effective
        Whether the call takes effect before the fault.
    lasting
        Whether all calls after it fail, too. Of a process that has died they always do.
    """

    def __init__(
        self,
        stores: Stores,
        at: int = 0,
        fault: Callable[[], None] | None = None,
        *,
        effective: bool = False,
        lasting: bool = False,
    ) -> None:
        self.calls = 0
        self.names: list[str] = []
        """Store and method of each call."""
        self._at = at
        self._fault = fault or _crash
        self._effective = effective
        self._lasting = lasting
        wrapped = {
            item.name: _Wrapped(item.name, getattr(stores, item.name), self)
            for item in fields(stores)
        }
        self.stores = replace(stores, **wrapped)

    @classmethod
    def with_fault(cls, stores: Stores, at: int, fault: Fault) -> FailingStores:
        """Stores whose call number ``at`` fails in one of the ways there are."""

        def fail() -> None:
            raise fault.error(f"{fault.name} at call {at}")

        return cls(stores, at, fail, effective=fault.effective, lasting=fault.lasting)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Pass one call on, or fail at it."""
        self.calls += 1
        if self.calls == self._at:
            if self._effective:
                method(*args, **kwargs)
            self._fail()
        if self._lasting and 0 < self._at < self.calls:
            self._fault()
        return method(*args, **kwargs)

    def mend(self) -> None:
        """Let no call fail any more."""
        self._at = 0

    def survives(self, use_case: Callable[[], object]) -> bool:
        """Run a use case; whether it ended before the chosen call came."""
        try:
            use_case()
        except Crash:
            return False
        return self.calls < self._at

    def _fail(self) -> None:
        try:
            self._fault()
        except Crash:
            self._lasting = True  # nothing that a dead process still has to do is done
            raise


class _Wrapped:
    def __init__(self, store_name: str, store: object, owner: FailingStores) -> None:
        self._store_name = store_name
        self._store = store
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._owner.names.append(f"{self._store_name}.{name}")
            return self._owner.call(method, *args, **kwargs)

        return call


def _crash() -> None:
    raise Crash
