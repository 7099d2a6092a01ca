"""Nothing that was acknowledged is lost, whatever is killed meanwhile.

A longer run: ``LOOKALIKE_CHAOS_OPERATIONS=1000 pytest -m slow -s tests/e2e/test_chaos.py``; another
one: ``LOOKALIKE_CHAOS_SEED``.
"""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import pytest
from chaos.clients import WORK, Client, Maintenance, Searcher
from chaos.history import History
from chaos.killer import Killer
from chaos.oracle import Oracle
from running_cloud import THRESHOLDS, Running, free_port, start

OPERATIONS = int(os.environ.get("LOOKALIKE_CHAOS_OPERATIONS", "100"))
SEED = int(os.environ.get("LOOKALIKE_CHAOS_SEED", "1"))
CLIENTS = 4
# Appends last longer while what they need is being killed; files that were replaced go soon.
SETTINGS = {
    **THRESHOLDS,
    "LOOKALIKE_SETTLE_S": "15",
    "LOOKALIKE_GRACE_S": "10",
    "LOOKALIKE_MAP_METHOD": "pca",
    "LOOKALIKE_QUIET_S": "1",
}
BOUND_S = 60.0
JOIN_S = 300.0


@pytest.fixture
def launch(tmp_path):
    """Starts the local cloud, always on the same folder and ports; the last one is stopped."""
    ports = {"api_port": free_port(), "aws_port": free_port()}
    started: list[Running] = []

    def up() -> Running:
        started.append(start(tmp_path, **ports, settings=SETTINGS))
        started[-1].wait_until_it_answers()
        return started[-1]

    yield up
    started[-1].stop()


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills_of_anything(launch, photo):
    begun = time.monotonic()
    cloud = launch()
    history = History(products=min(max(OPERATIONS // 9, 12), 160), draw=photo)
    stop = threading.Event()
    maintenance = [
        Maintenance(cloud, name, SEED + number)
        for number, name in enumerate(("Compact", "Reindex", "Sweep", *WORK), 200)
    ]
    with ThreadPoolExecutor(16) as pool:
        beside = [
            pool.submit(Searcher(cloud, history, SEED + 100, BOUND_S).run, stop),
            *(pool.submit(item.run, stop) for item in maintenance),
        ]
        killer = Killer(cloud, history, launch, SEED)
        work = [
            pool.submit(killer.run, OPERATIONS, stop),
            *(
                pool.submit(Client(cloud, history, SEED + number).run, OPERATIONS // CLIENTS, stop)
                for number in range(CLIENTS)
            ),
        ]
        wait(work, return_when=FIRST_EXCEPTION)
        stop.set()
        history.may_go_on.set()
        for future in [*work, *beside]:
            future.result(JOIN_S)
    worked_s = time.monotonic() - begun
    oracle = Oracle(killer.cloud, history)
    oracle.check()
    print(
        json.dumps(
            {
                "operations": history.operations,
                "outcomes": history.outcomes,
                "kills": history.kills_by_kind,
                "searches beside": history.answers,
                "worst lag in them, s": round(history.worst_lag_s, 1),
                "finished by hand": {item.function: item.finished for item in maintenance},
                "seconds of operations": round(worked_s, 1),
                "checked": oracle.checked,
                "differences": len(history.differences),
            },
            indent=1,
        )
    )
    assert not history.differences
