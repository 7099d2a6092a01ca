"""Runs of scheduled work: how they go on, which runner counts, and what they leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lookalike.adapters.failing import FAULTS, Crash, FailingStores
from lookalike.core.errors import Conflict, NotFound, Retry, Unavailable
from lookalike.core.jobs import Artifact, artifact_key, work_prefix
from lookalike.core.types import Generation, Lineage
from lookalike.services.jobs import (
    MAX_TRIES,
    SAVE_EVERY_S,
    CatalogueReport,
    JobLedger,
    Run,
    Superseded,
    make_current,
    run_catalogues,
)

PHASES = ["first", "second"]
STEPS = 3


@pytest.fixture
def ledger(memory_stores, clock, ids) -> JobLedger:
    return JobLedger(memory_stores, clock, ids)


def left(stores) -> list[str]:
    return [info.key for info in stores.index.list("work/")]


def test_a_run_goes_on_where_it_was_saved(memory_stores, ledger):
    run = ledger.open("s", "recluster")
    assert not run.is_under_way
    run.begin("sampling", 10)
    run.put("cursor", b"4")
    run.save(done=4, cursor="p4")
    later = ledger.open("s", "recluster")
    assert later.is_under_way and later.take_up()
    assert (later.job.phase, later.job.done, later.job.total, later.job.cursor) == (
        "sampling",
        4,
        10,
        "p4",
    )
    assert later.get("cursor") == b"4" and later.get("another") is None
    later.save(phase="assigning", done=0, total=7, cursor="")
    later.finish()
    ended = memory_stores.jobs.get("s", "recluster")
    assert not ledger.open("s", "recluster").is_under_way and left(memory_stores) == []
    assert (ended.slices, ended.tries, ended.error) == (1, 0, "")


def test_the_second_of_two_runners_is_told(memory_stores, ledger):
    first = ledger.open("s", "recluster")
    first.begin("sampling")
    second = ledger.open("s", "recluster")
    second.take_up()
    for late in (first.save, first.finish, lambda: first.begin("sampling"), first.take_up):
        with pytest.raises(Superseded):
            late()
    second.put("mine", b"1")
    second.save(done=1)
    assert memory_stores.jobs.get("s", "recluster").done == 1 and second.get("mine") == b"1"
    assert issubclass(Superseded, Retry), "its catalogue is left to the next run"


def test_two_that_begin_at_once_are_one(memory_stores, ledger):
    one, other = ledger.open("s", "health"), ledger.open("s", "health")
    one.begin("hashing")
    one.put("found", b"1")
    with pytest.raises(Superseded):
        other.begin("hashing")
    assert one.get("found") == b"1"


def test_a_new_run_sees_nothing_of_the_one_before(memory_stores, ledger):
    first = ledger.open("s", "project")
    first.begin("pca")
    first.put("layout", b"old")
    anew = ledger.open("s", "project")
    anew.begin("pca")
    assert anew.get("layout") is None and left(memory_stores) == []
    assert anew.job.run != first.job.run
    other = ledger.open("t", "project")
    other.begin("pca")
    other.put("layout", b"kept")
    anew.finish()
    assert left(memory_stores) == [f"{work_prefix('project', 't')}{other.job.run}/layout"]


@pytest.mark.parametrize("way", ["finish", "begin"])
def test_who_clears_up_leaves_the_next_run_alone(memory_stores, ledger, monkeypatch, way):
    """Another runner begins between the record's write and the listing of what is left."""
    mine = ledger.open("s", "project")
    mine.begin("pca")
    mine.put("layout", b"old")
    found = memory_stores.index.list

    def begin_and_list(prefix: str):
        monkeypatch.undo()
        begun = ledger.open("s", "project")
        begun.begin("pca")
        begun.put("layout", b"new")
        return found(prefix)

    monkeypatch.setattr(memory_stores.index, "list", begin_and_list)
    mine.finish() if way == "finish" else mine.begin("pca")
    now = ledger.open("s", "project")
    assert now.job.run != mine.job.run and now.get("layout") == b"new"
    assert left(memory_stores) == [f"{work_prefix('project', 's')}{now.job.run}/layout"]


def test_time_between_slices_is_not_counted_as_work(clock, ledger, memory_stores):
    run = ledger.open("s", "health")
    run.begin("hashing")
    clock.now += 60
    run.save(done=1)
    clock.now += 10_000
    run = ledger.open("s", "health")
    run.take_up()
    clock.now += 60
    run.finish()
    took_s = memory_stores.jobs.get("s", "health").took_s
    assert 120 <= took_s <= 130


def test_it_says_when_enough_would_be_lost(clock, ledger):
    run = ledger.open("s", "health")
    run.begin("hashing")
    assert not run.is_due
    clock.now += SAVE_EVERY_S
    assert run.is_due
    run.save(done=1)
    assert not run.is_due


def test_a_run_whose_slices_all_die_is_given_up(clock, ledger, memory_stores, caplog):
    ledger.open("s", "project").begin("layout")
    for _ in range(MAX_TRIES):
        assert ledger.open("s", "project").take_up()
    last = ledger.open("s", "project")
    assert not last.take_up() and "given up" in caplog.text
    ended = ledger.open("s", "project")
    assert not ended.is_under_way and "died 5 times" in ended.job.error
    assert ended.rests(100)
    clock.now += 100
    assert not ended.rests(100)
    ended.begin("layout")
    assert not ended.rests(100) and ended.job.tries == 0


def test_a_slice_that_saves_may_die_as_often_as_it_likes(ledger):
    ledger.open("s", "project").begin("layout")
    for done in range(3 * MAX_TRIES):
        run = ledger.open("s", "project")
        assert run.take_up()
        run.save(done=done)


def work(ledger: JobLedger, doing: list[tuple[str, int]]) -> bool:
    """A job of two phases of some steps each, as services do it; whether it came to its end."""
    run = ledger.open("s", "project")
    if run.is_under_way:
        if not run.take_up():
            return True
    elif run.job.finished_at:
        return True
    else:
        run.begin(PHASES[0], STEPS)
    while run.is_under_way:
        while run.job.done < STEPS:
            doing.append((run.job.phase, run.job.done))
            run.put("state", f"{run.job.phase} {run.job.done + 1}".encode())
            run.save(done=run.job.done + 1)
        if run.job.phase == PHASES[-1]:
            run.finish()
        else:
            run.save(phase=PHASES[1], done=0)
    return True


def calls_of_a_run(fresh_stores, clock, ids) -> list[str]:
    failing = FailingStores(fresh_stores())
    work(JobLedger(failing.stores, clock, ids), [])
    return failing.names


def test_whichever_call_fails_each_step_is_done_and_once_but_for_the_one_that_failed(
    fresh_stores, clock, ids
):
    names = calls_of_a_run(fresh_stores, clock, ids)
    assert "jobs.put" in names and "index.delete" in names
    for at in range(1, len(names) + 1):
        for fault in FAULTS:
            stores, doing = fresh_stores(), []
            failing = FailingStores.with_fault(stores, at, fault)
            try:
                work(JobLedger(failing.stores, clock, ids), doing)
            except (Crash, Retry, Conflict, Unavailable):
                failing.mend()
            while not work(JobLedger(stores, clock, ids), doing):
                pass
            job = stores.jobs.get("s", "project")
            assert not job.phase and not job.error, f"{fault.name} at {at}"
            assert set(doing) == {(phase, done) for phase in PHASES for done in range(STEPS)}
            assert len(doing) <= len(set(doing)) + 1


def lineages(stores, *names: str) -> None:
    for name in names:
        stores.lineages.put(Lineage(name, Generation(name, "g", "e")))


def report(lineage: Lineage, *, finished: bool = True) -> CatalogueReport:
    return CatalogueReport(lineage.catalogue, "health", "", 1, 1, finished)


def test_a_catalogue_that_cannot_go_on_keeps_no_other_from_it(memory_stores):
    lineages(memory_stores, "a", "b", "c")

    def advance(lineage: Lineage) -> CatalogueReport:
        if lineage.catalogue == "b":
            raise Unavailable("the table is away")
        return report(lineage)

    done = run_catalogues(memory_stores, None, advance)
    assert [item.catalogue for item in done.catalogues] == ["a", "c"]
    assert done.postponed == {"b": "the table is away"} and not done.finished
    assert run_catalogues(memory_stores, "c", advance).finished


def test_work_is_finished_when_it_is_on_every_catalogue(memory_stores):
    assert run_catalogues(memory_stores, None, report).finished, "there is none"
    lineages(memory_stores, "a", "b")
    half = run_catalogues(
        memory_stores, None, lambda item: report(item, finished=item.catalogue == "a")
    )
    assert not half.finished and not half.postponed
    with pytest.raises(NotFound) as caught:
        run_catalogues(memory_stores, "nobody", report)
    assert caught.value.parameter == "catalogue"


def test_an_error_of_the_work_itself_is_seen_when_the_others_had_their_turn(memory_stores):
    """Retries and alarms need it."""
    lineages(memory_stores, "a", "b")
    seen = []

    def advance(lineage: Lineage) -> CatalogueReport:
        seen.append(lineage.catalogue)
        if lineage.catalogue == "a":
            raise ZeroDivisionError
        return report(lineage)

    with pytest.raises(ZeroDivisionError):
        run_catalogues(memory_stores, None, advance)
    assert seen == ["a", "b"]


def test_what_was_current_stays_until_the_next_takes_its_place(memory_stores, clock):
    for kind, owner in (("map", "s2"), ("clusters", "s")):
        memory_stores.index.put(artifact_key(kind, owner, "other"), b"x", "a/b")
    before = None
    for name in ("first", "second", "third"):
        clock.now += 9000
        key = artifact_key("map", "s", name)
        memory_stores.index.put(key, b"x", "a/b")
        memory_stores.index.put(f"{key}-arrivals", b"x", "a/b")
        memory_stores.index.put(f"{key}-about-to-be-named", b"x", "a/b")
        after = Artifact(
            *("s", "map", key, "e", "g", "", clock.now, 1.0, 1, 9), arrivals_key=f"{key}-arrivals"
        )
        clock.now += 60
        written = make_current(memory_stores, before, after, clock.now, 900)
        assert memory_stores.artifacts.current("s")["map"] == written
        with pytest.raises(Conflict):
            make_current(memory_stores, before, replace(after, serial=7), clock.now, 900)
        before = written
    kept = {info.key.removeprefix("derived/") for info in memory_stores.index.list("derived/")}
    assert kept == {
        *("map/s/second", "map/s/second-arrivals"),
        *("map/s/third", "map/s/third-arrivals", "map/s/third-about-to-be-named"),
        *("map/s2/other", "clusters/s/other"),
    }


def test_a_run_without_an_error_does_not_rest(ledger):
    run: Run = ledger.open("s", "health")
    run.begin("hashing")
    run.finish()
    assert not run.rests(1e9)
