"""The API key that the local cloud makes for its own dashboard and commands.

It is in the state folder for its owner to read, and another one after each start.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lookalike.core.access import MAX_RATE, read_key_text
from lookalike.core.errors import NotFound
from lookalike.services.access import ApiKeys

FILE_NAME = "api-key"
LABEL = "lookalike up"


def read_local_key(data_dir: Path) -> str:
    """The key in a state folder; "" when there is none."""
    try:
        return (data_dir / FILE_NAME).read_text().strip()
    except FileNotFoundError:
        return ""


def renew_local_key(data_dir: Path, keys: ApiKeys, *, wanted: bool) -> None:
    """Revoke the key of the start before and, if one is wanted, make another."""
    path = data_dir / FILE_NAME
    if known := read_key_text(read_local_key(data_dir)):
        with suppress(NotFound):  # the tables are new
            keys.revoke(known[0])
    path.unlink(missing_ok=True)
    if wanted:
        _, text = keys.create(LABEL, None, ("read", "write"), MAX_RATE)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
