"""The bound is the kernel's, ends with the block, and also when nothing at all is left."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading

import pytest

from lookalike.adapters.memory_bound import MemoryBound

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")


def limit() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_DATA)


def test_taking_more_is_an_error_and_taking_less_is_none() -> None:
    before = limit()
    bound = MemoryBound(100_000_000)
    with bound:
        assert limit() != before
        assert len(bytearray(60_000_000))
    for _ in range(2):
        with pytest.raises(MemoryError), bound:
            bytearray(200_000_000)
        assert limit() == before
        assert len(bytearray(200_000_000))


# In a process of its own: one that has run for long has memory to reuse, which no limit sees.
IN_SMALL_PIECES = """
import resource
from lookalike.adapters.memory_bound import MemoryBound

before = resource.getrlimit(resource.RLIMIT_DATA)
bound = MemoryBound(12_000_000)
kept = [[b""] * 1_000_000 for _ in range(3)]
for pieces in kept:
    try:
        with bound:
            for at in range(len(pieces)):
                pieces[at] = bytes(64 + at % 64)
    except MemoryError:
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
    else:
        raise AssertionError("no limit")
"""


def test_the_bound_ends_when_it_was_reached_in_small_pieces() -> None:
    subprocess.run([sys.executable, "-c", IN_SMALL_PIECES], check=True, timeout=60)


@pytest.mark.parametrize("call", ["mmap.mmap", "os.open", "resource.setrlimit"])
def test_a_block_that_cannot_begin_leaves_the_next_one_bounded(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before, bound = limit(), MemoryBound(100_000_000)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(f"lookalike.adapters.memory_bound.{call}", fail)
        with pytest.raises(OSError), bound:
            raise AssertionError("it began")
    assert limit() == before
    with bound:
        assert limit() != before
    assert limit() == before


def test_where_there_is_no_bound_the_callers_limit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.adapters.memory_bound._LINUX", False)
    before = limit()
    resource.setrlimit(resource.RLIMIT_DATA, (10**12, before[1]))
    try:
        with MemoryBound(1):
            assert limit() == (10**12, before[1])
        assert limit() == (10**12, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize("bounds", [1, 2])
def test_blocks_that_overlap_have_one_limit_that_ends_with_the_last(bounds: int) -> None:
    before = limit()
    first = MemoryBound(100_000_000)
    second = first if bounds == 1 else MemoryBound(90_000_000)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with second:
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    with first:
        bounded = limit()
        other.start()
        inside.wait(10)
        assert limit() == bounded != before
    assert limit() == bounded
    leave.set()
    other.join(10)
    assert limit() == before


def test_a_limit_that_is_lower_already_stays() -> None:
    before = limit()
    resource.setrlimit(resource.RLIMIT_DATA, (10**12, before[1]))
    try:
        with MemoryBound(10**15):
            assert limit() == (10**12, before[1])
        assert limit() == (10**12, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
