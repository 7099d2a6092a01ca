"""How many crash points there are, and how many of them are survived.

    python tests/benchmarks/bench_crash_points.py [--wire] [--share N] [SCENARIO ...]

Without ``--wire``: every call to a port fails in every way, on stores in memory. With it: every
request of the real adapters, on moto in this process, in ``--share`` ways (0, the default: all).
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lookalike.adapters.memory import memory_stores_of

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

from conftest import ToyEncoder  # noqa: E402

from crash_points.points import Points, Tally, WirePoints  # noqa: E402
from crash_points.scenarios import SCENARIOS  # noqa: E402
from crash_points.wire import moto_in_process  # noqa: E402
from crash_points.world import Clock, toys_and_no_threads  # noqa: E402


def tried(name: str, toys: Any, *, wire: bool, share: int) -> Tally:
    """Every point of one scenario."""
    tally = Tally()
    stores = memory_stores_of(Clock())
    with ExitStack() as stack:
        stack.enter_context(toys_and_no_threads())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arguments: tuple[Any, ...] = (SCENARIOS[name], stores, toys, folder)
        if wire:
            cloud = stack.enter_context(moto_in_process(Clock()))
            points: Points = WirePoints(*arguments, cloud, share)
        else:
            points = Points(*arguments)
        for point, attempt in points.all():
            tally.note(point, attempt)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--wire", action="store_true")
    parser.add_argument("--share", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    toys = functools.cache(ToyEncoder)
    points = lost = 0
    for name in options.scenarios:
        begun = time.monotonic()
        tally = tried(name, toys, wire=options.wire, share=options.share)
        points, lost = points + tally.tried, lost + sum(map(len, tally.lost.values()))
        print(f"{name:24} {time.monotonic() - begun:6.1f} s  {tally}", flush=True)
    print(f"{points} points tried, {points - lost} survived")


if __name__ == "__main__":
    main()
