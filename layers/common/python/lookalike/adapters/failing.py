"""Stores that stop at a chosen call, to show that a crash between any two calls loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from lookalike.core.ports import Stores


class Crash(BaseException):
    """The process died here. A BaseException, as no handler may survive it."""


class FailingStores:
    """Counts every call to every store and runs ``fault`` at the chosen one.

    Parameters
    ----------
    stores
        The real ones.
    at
        Number of the call, from 1, at which to fail; 0 never fails.
    fault
        Raises what the call raises.
    effective
        Whether the call takes effect before the fault.
    """

    def __init__(
        self,
        stores: Stores,
        at: int = 0,
        fault: Callable[[], None] | None = None,
        *,
        effective: bool = False,
    ) -> None:
        self.calls = 0
        self._at = at
        self._fault = fault or _crash
        self._effective = effective
        wrapped = {item.name: _Wrapped(getattr(stores, item.name), self) for item in fields(stores)}
        self.stores = replace(stores, **wrapped)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Pass one call on, or fail at it."""
        self.calls += 1
        if self.calls != self._at:
            return method(*args, **kwargs)
        if self._effective:
            method(*args, **kwargs)
        self._fault()
        return None

    def survives(self, use_case: Callable[[], object]) -> bool:
        """Run a use case; whether it ended before the chosen call came."""
        try:
            use_case()
        except Crash:
            return False
        return self.calls < self._at


class _Wrapped:
    def __init__(self, store: object, owner: FailingStores) -> None:
        self._store = store
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return lambda *args, **kwargs: self._owner.call(method, *args, **kwargs)


def _crash() -> None:
    raise Crash
