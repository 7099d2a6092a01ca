"""What moto has is what a start reads back, after any calls and on a full disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable.journalled import BUCKETS, Cloud, state
from durable.moto_calls import VALUES, Step, call_of, steps

_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def _check(batches: list[tuple[str, list[Step]]]) -> set[str]:
    """Run batches of calls, with a crash or a full disk between; returns what took effect."""
    effective = set()
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder))
        cloud.prepare()
        for event, batch in batches:
            before = state()
            if event == "disk full":
                pages = cloud.journal.rows("PRAGMA page_count")[0][0]
                cloud.journal.rows(f"PRAGMA max_page_count = {pages}")
                batch = [*batch, ("put", (BUCKETS[0], "filler", b"z" * 200_000))]
            answers = cloud.call_all([call_of(step) for step in batch])
            if event == "disk full":
                # Those that configure are committed alone; what is together is refused together.
                assert answers[-1].status == 500
                kept = {step[0] for step in batch} & {"lifetime", "tag queue"}
                assert kept or ({a.status for a in answers} == {500} and state() == before)
                before = state()
                cloud.crash()
                assert state() == before
            elif state() != before:
                effective.update(
                    step[0]
                    for step, answer in zip(batch, answers, strict=True)
                    if answer.status < 300
                )
            if event == "crash":
                before = state()
                cloud.crash()
                assert state() == before
        before = state()
        cloud.crash()
        assert state() == before
        cloud.journal.close()
    return effective


@pytest.mark.usefixtures("shimmed")
@settings(max_examples=12, **_QUIET)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "", "crash", "disk full"]), st.lists(steps, min_size=1, max_size=4)
        ),
        min_size=4,
        max_size=12,
    )
)
def test_a_start_reads_back_what_moto_had(batches: list[tuple[str, list[Step]]]) -> None:
    _check(batches)


@pytest.mark.slow
@pytest.mark.usefixtures("shimmed")
@settings(max_examples=10, **_QUIET)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "crash"]), st.lists(steps, max_size=4)),
        min_size=20,
        max_size=40,
    )
)
def test_long_histories_are_read_back(batches: list[tuple[str, list[Step]]]) -> None:
    _check(batches)


@pytest.mark.usefixtures("shimmed")
def test_every_kind_of_call_takes_effect_and_is_kept() -> None:
    """The property would hold of calls that all fail."""
    plain, versioned = BUCKETS
    story: list[tuple[str, tuple[Any, ...]]] = [
        ("put", (plain, "a", b"x")),
        ("put", (versioned, "a", b"y")),
        ("copy", (plain, "..", plain, "a")),
        ("tag", (plain, "a", "put")),
        ("tag", (plain, "a", "delete")),
        ("acl", (plain, "a")),
        ("delete", (versioned, "a")),
        ("delete version", ("a", 0)),
        ("delete many", (plain, [".."])),
        ("begin upload", (plain, "b")),
        ("copy part", (plain, 0, "a")),
        ("put part", (plain, 0, 1, b"z")),
        ("abort upload", (plain, 0)),
        ("begin upload", (plain, "b")),
        ("put part", (plain, 0, 1, b"z")),
        ("complete upload", (plain, 0)),
        ("put item", ("a", "1", {"v": {"B": b"1"}})),
        ("put single", (b"1", {})),
        ("update item", ("a", "1")),
        ("delete item", ("a", "1.0")),
        ("write batch", ("a", {})),
        ("transact", ("a", False)),
        ("send", ("first", "x", 0)),
        ("receive", ("first", 10, 30)),
        ("show again", ("first", 0, 60)),
        ("delete message", ("first", 0)),
        ("purge", ("first",)),
        ("tag queue", ("first", "a")),
        ("lifetime", (True,)),
    ]
    assert _check([("crash", [step]) for step in story]) == set(VALUES)
