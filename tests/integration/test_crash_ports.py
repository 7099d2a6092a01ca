"""Every use case, stopped at every call to a port in every way, is made good by the redelivery."""

from __future__ import annotations

import pytest

from crash_points.points import Points, Tally
from crash_points.scenarios import SCENARIOS
from crash_points.world import toys_and_no_threads


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_point_is_survived(name, memory_stores, toy_encoder_of, tmp_path, record_property):
    tally = Tally()
    with toys_and_no_threads():
        points = Points(SCENARIOS[name], memory_stores, toy_encoder_of, tmp_path)
        for point, attempt in points.all():
            tally.note(point, attempt)
    record_property("points", tally.tried)
    assert tally.tried and not tally.lost, f"{tally}"
