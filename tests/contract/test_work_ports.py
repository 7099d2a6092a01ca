"""What scheduled work keeps in tables, in memory and in DynamoDB as moto plays it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crash_points.wire import WIRE_FAULTS, moto_in_process
from lookalike.core.errors import Conflict
from lookalike.core.jobs import Artifact, Job

SHOP = "größer#2"  # names are any that keys allow, the separator of sort keys included


@pytest.fixture(scope="module")
def moto():
    with moto_in_process(lambda: 1_700_000_000.0) as cloud:
        empty = cloud.content()
        yield lambda: cloud.restored(empty, cloud.wire.clock)


@pytest.fixture(params=["memory", "moto"])
def stores(request, memory_stores):
    return memory_stores if request.param == "memory" else request.getfixturevalue("moto")().stores


def artifact(**changes) -> Artifact:
    values = {
        "key": f"derived/clusters/{SHOP}/0a",
        "encoder": "toy-a-border-v1",
        "generation": f"{SHOP}/toy",
        "head": "",
        "made_at": 1.25,
        "through_at": 0.1 + 0.2,  # not a round number in any base
        "serial": 1,
        "products": 30,
        "summary": {"clusters": 7, "cohesion": 0.7, "method": "k-means", "is_whole": True},
    }
    return Artifact(SHOP, "clusters", **(values | changes))


def job(**changes) -> Job:
    values = {"run": "r1", "phase": "sampling", "begun_at": 1.5, "total": 10, "cursor": "p é"}
    return Job(SHOP, "recluster", **(values | changes))


@pytest.mark.parametrize(
    ("table", "record", "other"),
    [
        ("artifacts", artifact(), artifact(key=f"derived/clusters/{SHOP}/0b", serial=2)),
        ("jobs", job(), job(phase="assigning", cursor="", done=10, error="no")),
    ],
)
def test_a_record_is_written_by_one_of_two(stores, table, record, other):
    table = getattr(stores, table)
    first = table.put(record)
    assert first.revision is not None and replace(first, revision=None) == record
    assert table.put(record) == first, "sent again, as its answer was lost"
    with pytest.raises(Conflict):
        table.put(other)
    second = table.put(replace(other, revision=first.revision))
    assert second.revision != first.revision
    with pytest.raises(Conflict):
        table.put(replace(record, serial=3) if table is stores.artifacts else job(run="r2"))
    with pytest.raises(Conflict):
        table.put(replace(first, **({"serial": 4} if table is stores.artifacts else {"done": 5})))


def test_what_was_made_is_found_by_kind(stores):
    table = stores.artifacts
    assert table.current(SHOP) == {}
    clusters = table.put(artifact())
    layout = table.put(replace(artifact(), kind="map", summary={}, arrivals_key="x", arrivals=2))
    table.put(replace(artifact(), catalogue="größer"))
    assert table.current(SHOP) == {"clusters": clusters, "map": layout}
    types = [type(value) for value in table.current(SHOP)["clusters"].summary.values()]
    assert types == [int, float, str, bool]


def test_what_is_current_can_be_taken_away_by_who_knows_it(stores):
    first = stores.artifacts.put(artifact())
    stores.artifacts.put(replace(first, serial=2))
    with pytest.raises(Conflict):
        stores.artifacts.remove(first)
    second = stores.artifacts.current(SHOP)["clusters"]
    stores.artifacts.remove(second)
    stores.artifacts.remove(second)
    assert stores.artifacts.current(SHOP) == {}


def test_jobs_are_listed_by_name(stores):
    table = stores.jobs
    assert table.get(SHOP, "recluster") is None and table.all(SHOP) == []
    project = table.put(replace(job(), name="project"))
    recluster = table.put(job())
    table.put(replace(job(), catalogue="größer"))
    assert table.all(SHOP) == [project, recluster]
    assert table.get(SHOP, "recluster") == recluster and table.get(SHOP, "health") is None


def test_names_are_given_and_taken_away(stores):
    table = stores.cluster_names
    table.put(SHOP, "c10", "Blue shoes ☕")
    table.put(SHOP, "c2", "Hats")
    table.put("größer", "c1", "Other")
    assert table.all(SHOP) == {"c10": "Blue shoes ☕", "c2": "Hats"}
    table.put(SHOP, "c2", "Bonnets")
    table.put(SHOP, "c10", None)
    table.put(SHOP, "c10", None)
    assert table.all(SHOP) == {"c2": "Bonnets"} and table.all("nobody") == {}


def test_a_write_whose_answer_is_lost_is_no_conflict(moto):
    """It is sent again and finds itself."""
    cloud = moto()
    for fault in WIRE_FAULTS:
        if fault.effective and not fault.lasting and fault.name.startswith(("5xx", "timeout")):
            for put, record in (
                (cloud.stores.artifacts.put, artifact()),
                (cloud.stores.jobs.put, job()),
            ):
                shop = f"{fault.name[0]}"
                cloud.wire.arm(1, fault)
                written = put(replace(record, catalogue=shop))
                assert len(cloud.wire.names) > 1, "it was sent once"
                cloud.wire.mend()
                assert put(replace(record, catalogue=shop)) == written
