"""Every use case on the real adapters, one of whose HTTP requests fails, is made good as well.

`tests/benchmarks/bench_crash_points.py` tries every way to fail at every request.
"""

from __future__ import annotations

import pytest

from crash_points.points import Tally, WirePoints
from crash_points.scenarios import SCENARIOS
from crash_points.wire import WIRE_FAULTS, moto_in_process
from crash_points.world import Clock, toys_and_no_threads
from lookalike.core.errors import Conflict
from lookalike.core.types import Generation, Lineage, Manifest, Product


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_request_may_fail(name, memory_stores, toy_encoder_of, tmp_path, record_property):
    tally = Tally()
    with toys_and_no_threads(), moto_in_process(Clock()) as cloud:
        points = WirePoints(SCENARIOS[name], memory_stores, toy_encoder_of, tmp_path, cloud, 1)
        for point, attempt in points.all():
            tally.note(point, attempt)
    record_property("points", tally.tried)
    assert tally.tried and not tally.lost, f"{tally}"


def test_a_write_whose_answer_is_lost_is_no_conflict():
    """It is sent again and finds itself: a request that was granted must not be refused."""
    lost = [item for item in WIRE_FAULTS if item.effective and not item.lasting]
    with moto_in_process(Clock()) as cloud:
        products, registry, lineages = (
            cloud.stores.products,
            cloud.stores.registry,
            cloud.stores.lineages,
        )
        for fault in (item for item in lost if item.name.startswith(("5xx", "timeout"))):
            shop = fault.name[0]
            generation = Generation(shop, "g", "toy-a-border-v1")
            for put, record, other in (
                (products.put, Product(shop, "p", "g"), Product(shop, "p", "other")),
                (registry.put_manifest, Manifest(f"{shop}/g"), Manifest(f"{shop}/g", head="other")),
                (lineages.put, Lineage(shop, generation), Lineage(shop, generation, serial=2)),
            ):
                cloud.wire.arm(1, fault)
                written = put(record)
                assert len(cloud.wire.names) > 1, "it was sent once"
                cloud.wire.mend()
                assert put(record) == written
                with pytest.raises(Conflict):
                    put(other)
