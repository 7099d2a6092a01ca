"""A map that is made in slices: ended anywhere, dead at any write, taken over by another runner."""

from __future__ import annotations

import numpy as np
import pytest

from lookalike.services import jobs, live_embeddings, project_run
from project_shop import ProjectShop, groups_apart
from recluster_shop import CATALOGUE, FOREVER


@pytest.fixture
def filled(memory_stores, clock, ids) -> ProjectShop:
    """Three groups of 20 products."""
    made = ProjectShop(memory_stores, clock, ids)
    made.open()
    for group in range(3):
        made.put_group(group, 20)
    return made


class Deadlines:
    """A deadline that has come whenever it is looked at, but the first few times."""

    def __init__(self, clock, looks: int) -> None:
        self.clock = clock
        self.looks = looks

    def __le__(self, now: float) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_slices_that_end_anywhere_make_the_same_map(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    filled.project()
    whole = filled.on_map()
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 7)
    monkeypatch.setattr(project_run, "PART_ROWS", 20)
    filled.stores.artifacts._artifacts.clear()
    phases = set()
    now = True
    for _slice in range(300):
        report = filled.map_service().run(Deadlines(filled.clock, 2), now=now)
        now = False
        phases.add(report.catalogues[0].phase)
        if report.finished:
            break
    assert report.finished and {"reading", "laying out", "placing"} <= phases
    job = filled.stores.jobs.get(CATALOGUE, "project")
    assert job.slices > 30 and not list(filled.stores.index.list("work/"))
    sliced = filled.on_map()
    assert set(sliced) == set(whole)
    apart = [np.hypot(*np.subtract(sliced[id_], whole[id_])) for id_ in whole]
    assert groups_apart(sliced) and np.isfinite(apart).all()


class Died(Exception):
    pass


def test_a_slice_that_dies_at_any_write_is_gone_on_with(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 15)
    monkeypatch.setattr(project_run, "PART_ROWS", 30)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", -1.0)
    puts = type(filled.stores.index).put
    deaths = {"at": 0, "left": 0}

    def put(self, key, body, content_type, **options):
        deaths["left"] -= 1
        if deaths["left"] == 0:
            raise Died
        puts(self, key, body, content_type, **options)

    monkeypatch.setattr(type(filled.stores.index), "put", put)
    monkeypatch.setattr("lookalike.core.projection.COLD_ITERATIONS", 50)
    for at in range(1, 14):
        filled.stores.artifacts._artifacts.pop((CATALOGUE, "map"), None)
        filled.clock.now += 1000
        deaths["left"] = at
        with pytest.raises(Died):
            filled.map_service().run(FOREVER, now=True)
        deaths["left"] = 0
        assert filled.map_service().run(FOREVER).finished
        assert set(filled.on_map()) == filled.live()
        assert not list(filled.stores.index.list("work/"))


def test_a_slice_that_dies_when_all_is_published_publishes_once(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    finish = jobs.Run.finish
    deaths = [True]

    def die(self, error=""):
        if deaths.pop() if deaths else False:
            raise Died
        finish(self, error)

    monkeypatch.setattr(jobs.Run, "finish", die)
    with pytest.raises(Died):
        filled.map_service().run(FOREVER, now=True)
    made = filled.map().artifact
    assert filled.map_service().run(FOREVER).finished
    assert filled.map().artifact == made and made.serial == 1


def test_a_runner_that_was_taken_over_changes_nothing(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    """One is stopped before it publishes; another ends the run; the first one goes on."""
    written = project_run.MapRun._written
    taken_over = []

    def late(self):
        if not taken_over:
            taken_over.append(True)
            assert filled.map_service().run(FOREVER).finished
            assert filled.map().artifact.serial == 1
        return written(self)

    monkeypatch.setattr(project_run.MapRun, "_written", late)
    report = filled.map_service().run(FOREVER, now=True)
    assert taken_over and CATALOGUE in report.postponed
    assert filled.map().artifact.serial == 1 and set(filled.on_map()) == filled.live()
    assert not list(filled.stores.index.list("work/"))


def test_what_is_saved_is_written_however_time_goes_on(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    """It becomes time to save between two looks of one block; then the process dies."""
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 10)
    save = jobs.Run.save

    def dying(run, **changes):
        save(run, **changes)
        raise KeyboardInterrupt

    for look in range(2, 6):
        looks = iter(range(1, 1000))

        def is_due(run, looks=looks, look=look):
            return run.job.phase == "reading" and next(looks) >= look

        with monkeypatch.context() as patch:
            patch.setattr(jobs.Run, "is_due", property(is_due))
            patch.setattr(jobs.Run, "save", dying)
            with pytest.raises(KeyboardInterrupt):
                filled.map_service(map_method="pca").run(FOREVER, now=True)
        filled.project(map_method="pca")
        assert set(filled.on_map()) == filled.live()
