"""Runs a module as ``python -m`` does, in a process that does not outlive its parent.

Executed as a script (``python die_with_parent.py PARENT_PID MODULE ARGUMENTS...``), so that the
function processes import nothing of the local cloud.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_S = 1.0


def bind_to_parent(parent_pid: int) -> None:
    """Die by SIGKILL when the parent is gone: by the kernel on Linux, else by watching it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the module named on the command line."""
    bind_to_parent(int(sys.argv[1]))
    sys.path[0] = str(Path.cwd())  # as with -m, in place of this script's folder
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
