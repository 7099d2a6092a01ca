"""When scheduled work is due again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lookalike.core.jobs import MIN_PRODUCTS, Artifact, Job, RenewalPolicy, why_due, work_key

POLICY = RenewalPolicy(renew_s=1000.0, renew_share=0.1, quiet_s=20.0, pause_s=200.0)
_NAMES = ("s", "map", "key", "encoder", "generation", "head")
MADE = Artifact(*_NAMES, made_at=5000.0, through_at=4990.0, serial=1, products=100)


def due(artifact: Artifact | None = MADE, **changes) -> bool:
    known = {"products": 100, "arrivals": 0, "newest_at": 4000.0, "now": 5100.0}
    return bool(why_due(POLICY, artifact, **(known | changes)))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"newest_at": 5080.0}, True),
        ({"newest_at": 5081.0}, False),  # photos are arriving
        ({"products": MIN_PRODUCTS, "newest_at": 0.0}, True),
        ({"products": MIN_PRODUCTS - 1, "newest_at": 0.0}, False),
    ],
)
def test_what_was_never_made_is_made_when_photos_have_stopped_arriving(changes, wanted):
    assert due(None, **changes) is wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"arrivals": 10, "products": 110}, True),
        ({"arrivals": 9, "products": 109}, False),
        ({"products": 90}, True),
        ({"products": 91}, False),
        # As many came as went: the count alone would not show it.
        ({"arrivals": 5, "products": 100}, True),
        ({"arrivals": 4, "products": 100}, False),
        # It is to shrink with the catalogue, down to nothing.
        ({"products": MIN_PRODUCTS - 1}, True),
        ({"products": 0}, True),
    ],
)
def test_what_is_there_is_renewed_when_a_share_of_the_products_changed(changes, wanted):
    assert due(**changes) is wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"arrivals": 50, "products": 150, "newest_at": 5100.0}, False),
        # Photos that never stop arriving put it off for so long, not forever.
        ({"arrivals": 50, "products": 150, "newest_at": 5200.0, "now": 5200.0}, True),
        ({"arrivals": 50, "products": 150, "newest_at": 5000.0, "now": 5019.0}, False),
    ],
)
def test_photos_that_arrive_put_it_off_for_a_while(changes, wanted):
    assert due(**changes) is wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),  # nothing has changed
        ({"arrivals": 1, "products": 101}, True),
        ({"products": 99}, True),
        ({"newest_at": 4991.0}, True),  # a photo was overwritten
        ({"arrivals": 1, "products": 101, "now": 5999.0}, False),
    ],
)
def test_what_is_old_is_renewed_if_anything_changed(changes, wanted):
    assert due(**({"now": 6000.0} | changes)) is wanted


def test_runs_do_not_share_working_objects():
    job = Job("s", "project", run="r1")
    names = {
        work_key(job, "layout"),
        work_key(replace(job, run="r2"), "layout"),
        work_key(replace(job, catalogue="t"), "layout"),
        work_key(replace(job, name="health"), "layout"),
        work_key(job, "cursor"),
    }
    assert len(names) == 5
