from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.compaction import (
    DEAD_PAUSE_S,
    MAX_FRESH_ROWS,
    RUN_ROWS,
    STEP_ROWS,
    Collect,
    CompactionPolicy,
    Forget,
    Merge,
    Rebuild,
    Route,
    absorbed,
    blocked_shard,
    named_keys,
    plan,
    room,
    searched_rows,
    swapped,
)
from lookalike.core.generations import (
    ROLLED_BACK,
    GenerationPolicy,
    begun,
    dropped,
    dropping,
    exchanged,
    shards_for,
    wanted,
)
from lookalike.core.keys import base_key, head_key, segment_key
from lookalike.core.types import (
    BaseEntry,
    Build,
    Generation,
    Lineage,
    Manifest,
    Run,
    SegmentEntry,
    Shard,
)

SCOPE, NOW = "shop/g", 1_000_000.0
POLICY = CompactionPolicy(merge_segments=4, base_rows=100, flat_rows=1000, settle_s=90, grace_s=900)


def entry(name: str, rows: int = 1, at: float = NOW) -> SegmentEntry:
    return SegmentEntry(SCOPE, name, rows, 100 * rows, at)


def run(name: str, rows: int) -> Run:
    return Run(name, rows, 100 * rows, NOW - 500)


def base(rows: int, trained: int | None = None, built_at: float = NOW) -> BaseEntry:
    return BaseEntry("base", rows, 1, rows, 10, trained or rows, NOW - 500, built_at)


def manifest(*shards: Shard, **changes) -> Manifest:
    return replace(Manifest(SCOPE), shards=shards or (Shard(),), **changes)


def key(digest: str) -> str:
    return segment_key("shop", digest)


def test_few_segments_are_left_alone():
    assert plan(manifest(), [entry("a"), entry("b"), entry("c")], 3, POLICY, NOW) is None


def test_enough_segments_are_merged():
    entries = [entry(name) for name in "abcd"]
    assert plan(manifest(), entries, 4, POLICY, NOW) == Merge(tuple(entries))
    one = replace(POLICY, merge_segments=1)
    assert plan(manifest(), entries[:1], 1, one, NOW) == Merge(tuple(entries[:1]))


def test_segments_that_cannot_be_read_do_not_count():
    entries = [entry(name) for name in "abcde"]
    step = plan(manifest(), entries, 5, POLICY, NOW, blocked={key("b")})
    assert step == Merge((entries[0], *entries[2:]))
    assert plan(manifest(), entries[:4], 4, POLICY, NOW, blocked={key("b")}) is None


def test_a_merge_holds_so_many_rows_only_and_at_least_one_segment():
    entries = [entry(str(number), STEP_ROWS // 2) for number in range(6)]
    assert plan(manifest(), entries, None, POLICY, NOW) == Merge(tuple(entries[:2]))


def test_a_merge_leaves_the_manifest_small_enough_for_its_item():
    entries = [entry(f"{number:032d}") for number in range(10_000)]
    step = plan(manifest(), entries, None, POLICY, NOW)
    assert isinstance(step, Merge) and 1000 < len(step.entries) < 10_000
    after = swapped(manifest(), NOW, shards=[Shard()], merged=step.entries)
    assert 0 <= room(after) < 200
    # Under that pressure they may go as soon as every append is over.
    left = entries[len(step.entries) :]
    assert plan(after, left, None, POLICY, NOW + 89) is None
    collect = plan(after, left, None, POLICY, NOW + 91)
    assert isinstance(collect, Collect) and len(collect.keys) == 1000


def test_merged_segments_are_forgotten_before_anything_else():
    entries = [entry(name) for name in "abcdef"]
    found = manifest(replaced={key("b"): NOW - 10_000})
    assert plan(found, entries, None, POLICY, NOW) == Forget((entries[1],))


def test_what_is_not_routed_yet_is_routed_first():
    shards = [Shard(), Shard(), Shard(fresh=(run("a", 200), run("b", STEP_ROWS), run("c", 1)))]
    found = manifest(*shards, head="h")
    step = plan(found, [], 10, POLICY, NOW, shards=2)
    assert step == Route((run("a", 200),))
    step = plan(found, [], 10, POLICY, NOW, shards=2, blocked={key("a"), key("b")})
    assert step == Route((run("c", 1),))
    blocked = {key("a"), key("b"), key("c")}
    assert plan(found, [], None, POLICY, NOW, shards=2, blocked=blocked) != Route(())
    empty = manifest(Shard(), Shard(), Shard(), head="h")
    assert plan(empty, [], 10, POLICY, NOW, shards=2) == Route(())
    assert plan(empty, [], 10, POLICY, NOW, shards=3) is None


@pytest.mark.parametrize(
    ("base_rows", "fresh_rows", "due"),
    [
        (0, 99, False),
        (0, 100, True),
        (500, 99, False),
        (500, 100, True),
        (5000, 499, False),
        (5000, 500, True),
        (10**6, MAX_FRESH_ROWS - 1, False),
        (10**6, MAX_FRESH_ROWS, True),
    ],
)
def test_a_base_is_rebuilt_when_too_much_lies_beside_it(base_rows, fresh_rows, due):
    shard = Shard(base(base_rows) if base_rows else None, fresh=(run("a", fresh_rows),))
    found = manifest(Shard(), shard)
    retrain = base_rows < fresh_rows
    expected = Rebuild(1, retrain) if due else None
    assert plan(found, [], base_rows + fresh_rows, POLICY, NOW, shards=2) == expected
    assert plan(found, [], None, POLICY, NOW, shards=2, build_bases=False) is None
    assert plan(found, [], None, POLICY, NOW, shards=2, blocked={blocked_shard(1)}) is None


def test_lists_are_trained_anew_when_a_shard_has_doubled():
    shard = Shard(base(1500, trained=1000), fresh=(run("a", 499),))
    assert plan(manifest(shard), [], None, POLICY, NOW) == Rebuild(0, False)
    shard = Shard(base(1500, trained=1000), fresh=(run("a", 500),))
    assert plan(manifest(shard), [], None, POLICY, NOW) == Rebuild(0, True)


def test_dead_rows_call_for_a_rebuild_of_the_oldest_base_once_an_hour():
    old = Shard(base(1000, built_at=NOW - DEAD_PAUSE_S - 2))
    older = Shard(base(1000, built_at=NOW - DEAD_PAUSE_S - 3))
    new = Shard(base(1000, built_at=NOW - DEAD_PAUSE_S + 1))
    found = manifest(new, old, older)
    assert plan(found, [], 2250, POLICY, NOW, shards=3) is None
    assert plan(found, [], 2249, POLICY, NOW, shards=3) == Rebuild(2, False)
    assert plan(found, [], None, POLICY, NOW, shards=3) is None
    assert plan(manifest(new), [], 0, POLICY, NOW) is None


def test_a_lost_base_is_built_anew_unless_its_shard_is_blocked():
    found = manifest(Shard(), Shard(base(500), covered=(run("a", 500),)))

    def step(lost: str, **changes) -> object:
        keys = {base_key("shop", lost)}
        return plan(found, [], 500, POLICY, NOW, shards=2, lost=keys, **changes)

    assert step("base") == Rebuild(1, retrain=True)
    assert step("another") is None
    assert step("base", blocked={blocked_shard(1)}) is None
    assert step("base", build_bases=False) is None


def test_replaced_files_are_collected_after_their_grace():
    found = manifest(replaced={key("a"): NOW - 900, key("b"): NOW - 899, "heads/x": NOW - 901})
    assert plan(found, [], 0, POLICY, NOW) == Collect(("heads/x", key("a")))


def test_everything_that_rows_are_in_is_named():
    shard = Shard(base(9), covered=(run("a", 9),), fresh=(run("b", 2),))
    found = manifest(shard, head="h", replaced={key("d"): NOW})
    entries = [entry("c", 3), entry("d", 5)]
    assert named_keys(found, entries) == {
        key("a"),
        key("b"),
        key("c"),
        base_key("shop", "base"),
        head_key("shop", "h"),
    }
    assert searched_rows(found, entries) == 9 + 2 + 3


def test_a_swap_replaces_what_it_no_longer_names():
    shard = Shard(base(9), covered=(run("a", 9),), fresh=(run("b", 2),))
    before = manifest(shard, head="h", replaced={key("z"): 1.0})
    after = swapped(before, NOW, shards=[Shard(fresh=(run("a", 9), run("c", 2)))])
    gone = {key("b"): NOW, base_key("shop", "base"): NOW}
    assert after.replaced == {key("z"): 1.0} | gone
    after = swapped(before, NOW, shards=[shard], head=("i", 5), merged=[entry("a"), entry("d")])
    assert (after.head, after.fitted_rows) == ("i", 5)
    # A segment that is a run as well is not gone.
    assert after.replaced == {key("z"): 1.0, head_key("shop", "h"): NOW, key("d"): NOW}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_runs_stay_few_and_rows_are_seldom_rewritten(merges):
    """As many merges as may be, each absorbing what the planner says."""
    shard, written = Shard(), 0
    for number, rows in enumerate(merges):
        chosen = absorbed(shard, rows)
        merged = rows + sum(item.rows for item in chosen)
        written += merged
        left = tuple(item for item in shard.fresh if item not in chosen)
        shard = Shard(fresh=(*left, run(str(number), merged)))
    total = sum(merges)
    assert sum(item.rows for item in shard.fresh) == total
    assert len(shard.fresh) <= 2 + total.bit_length()
    assert written <= total * (2 + total.bit_length())


def test_full_runs_are_not_rewritten():
    assert absorbed(Shard(fresh=(run("a", RUN_ROWS - 10),)), RUN_ROWS // 2 + 20) == []


# When a generation is wanted, and what lineages say.

RULES = GenerationPolicy(
    head_rows=1000,
    head_dim=256,
    shard_rows=10_000,
    settle_s=90,
    grace_s=900,
    keep_generation_s=86_400,
)
FIRST = Generation("shop", "e", "e")
LINEAGE = Lineage("shop", FIRST)


@pytest.mark.parametrize(
    ("head", "fitted", "rows", "shards", "reason"),
    [
        ("", 0, 999, 1, ""),
        ("", 0, 1000, 1, "fit a head"),
        ("h", 1000, 7999, 1, ""),
        ("h", 1000, 8000, 1, "far fewer"),
        ("h", 1600, 12_500, 1, ""),
        ("h", 2000, 12_501, 1, "too full"),
        ("h", 40_000, 320_000, 50, "far fewer"),
        ("h", 50_000, 500_000, 50, ""),
    ],
)
def test_a_generation_is_wanted_for_a_head_or_for_more_shards(head, fitted, rows, shards, reason):
    found = manifest(*[Shard()] * shards, head=head, fitted_rows=fitted)
    said = wanted(LINEAGE, found, rows, 256, RULES)
    assert reason in said and bool(reason) == bool(said)


def test_a_generation_is_wanted_for_a_skewed_shard_once_there_is_more_of_it():
    def skewed(rows: int, noted: int = 0) -> str:
        shards = Shard(base(rows - 5, trained=9), fresh=(run("a", 5),)), *[Shard()] * 3
        found = manifest(*shards, head="h", fitted_rows=50_000, fullest_rows=noted)
        return wanted(LINEAGE, found, 20_000, 256, RULES)

    assert skewed(15_000) == ""
    assert "one shard" in skewed(15_001)
    assert "one shard" in skewed(15_001, noted=9_000)
    # The build could do no better than that.
    assert skewed(16_000, noted=16_000) == skewed(24_000, noted=16_000) == ""
    assert "one shard" in skewed(24_001, noted=16_000)


def test_heads_can_be_turned_off_and_long_embeddings_fill_shards_sooner():
    off = replace(RULES, head_rows=0)
    assert wanted(LINEAGE, manifest(), 2500, 1280, off) == ""
    assert "too full" in wanted(LINEAGE, manifest(), 2501, 1280, off)


def test_what_is_being_built_or_was_rolled_back_is_left_alone():
    for phase in ("announced", "filling", "compacting", "ready", "dropping"):
        lineage = replace(LINEAGE, beside=Build(FIRST, phase, NOW, NOW))
        assert wanted(lineage, manifest(), 5000, 256, RULES) == ""
    kept = replace(LINEAGE, beside=Build(FIRST, "kept", NOW, NOW))
    assert wanted(kept, manifest(), 5000, 256, RULES)
    back = replace(LINEAGE, beside=Build(FIRST, "kept", NOW, NOW, cursor=ROLLED_BACK))
    assert wanted(back, manifest(), 5000, 256, RULES) == ""
    # Without its head nothing is found: that is mended whatever was rolled back.
    assert wanted(back, manifest(), 5000, None, RULES) == "its head cannot be read"


def test_shards_are_filled_by_three_quarters_at_most():
    assert shards_for(10_000, 256, RULES) == 1
    for rows in (10_001, 15_000, 15_001, 1_000_000):
        shards = shards_for(rows, 256, RULES)
        assert shards > 1 and rows / shards <= 7500 < rows / (shards - 1)


def test_a_lineage_through_a_build_and_back():
    lineage = begun(LINEAGE, "f", NOW)
    second = Generation("shop", "f-g2", "f")
    assert lineage.generations == (FIRST, second) and lineage.beside.phase == "announced"
    swapped_in = exchanged(lineage, NOW + 1)
    assert swapped_in.generations == (second, FIRST) and swapped_in.beside.phase == "kept"
    back = exchanged(swapped_in, NOW + 2, back=True)
    assert back.generations == (FIRST, second)
    going = dropping(back, NOW + 3)
    assert going.generations == (FIRST,)
    assert dropped(going, NOW + 4) == replace(LINEAGE, serial=2)
    then = dropping(going, NOW + 5, then="g")
    assert then.beside.changed_at == NOW + 3, "asking again does not make it last longer"
    third = dropped(then, NOW + 6)
    assert third.generations == (FIRST, Generation("shop", "g-g3", "g"))
