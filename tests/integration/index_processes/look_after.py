"""The scheduled functions, over and over until standard input is closed."""

from __future__ import annotations

import sys
import threading
import time

from lookalike.wiring import services


def main() -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    runs = 0
    while not ended.wait(0.2):
        deadline = time.time() + 60
        services().compaction.run(deadline)
        services().reindex.run(deadline)
        runs += 1
    print(runs)


if __name__ == "__main__":
    main()
