"""One invocation of the embed function in a process of its own, which poison kills."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from chalicelib.embed import embed
from lookalike.services import observe

POISON = b"\xff\xd8kills the process"
decode = observe.decode


def deadly(data: bytes, *args: Any, **kwargs: Any) -> Any:
    """As a codec's crash would: nobody can catch it."""
    if data.startswith(POISON):
        os._exit(139)
    return decode(data, *args, **kwargs)


if __name__ == "__main__":
    observe.decode = deadly
    answer = embed(msgspec.json.decode(sys.stdin.buffer.read()), None)
    sys.stderr.write(msgspec.json.encode(answer).decode())
