"""Reads a resource's properties so that none is overlooked: what was not read is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.template import TemplateError

_REQUIRED = object()


class Properties:
    """A JSON object of which every member must be read or named as without local effect.

    Parameters
    ----------
    path
        Where the object is in the template, for error messages.
    values
        The object, its references resolved.
    """

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TemplateError(f"{path} must be an object, not {values!r}.")
        self.path = path
        self._values = dict(values)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """Read a member; without a default it must be there."""
        if name in self._values:
            return self._values.pop(name)
        if default is _REQUIRED:
            raise TemplateError(f"{self.path}.{name} is missing.")
        return default

    def take_object(self, name: str) -> Properties | None:
        """Read a member that is an object, if it is there."""
        value = self._values.pop(name, None)
        return None if value is None else Properties(f"{self.path}.{name}", value)

    def take_objects(self, name: str) -> list[Properties]:
        """Read a member that is a list of objects; missing is empty."""
        return [
            Properties(f"{self.path}.{name}[{position}]", value)
            for position, value in enumerate(self._values.pop(name, []))
        ]

    def take_renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Read those members that are there, under the names the SDK gives them."""
        return {new: self._values.pop(old) for old, new in names.items() if old in self._values}

    def ignore(self, reasons: Mapping[str, str]) -> None:
        """Skip members that are known to have no local effect."""
        for name in reasons:
            self._values.pop(name, None)

    def finish(self) -> None:
        """Refuse what was not read.

        Raises
        ------
        TemplateError
            Names the path of a member that the local cloud does not understand.
        """
        if self._values:
            name = next(iter(self._values))
            raise TemplateError(f"The local cloud does not understand {self.path}.{name}.")
