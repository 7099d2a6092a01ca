"""Decides when a catalogue needs another generation, and what its lineage says then. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lookalike.core.head import MAX_FITTED_ROWS
from lookalike.core.types import Build, Generation, Lineage, Manifest, Shard

GROWTH = 8
"""How many times the rows of its fit a catalogue must have for another fit to be worth it."""
OVERFULL = 1.25
"""How full shards may be, on average, before rows are routed to more of them."""
SKEWED = 1.5
"""How full the fullest shard may be, and how far it may grow from what a build could make of it."""
FILLED = 0.75
"""How full shards of a new generation are."""
USUAL_DIM = 256
"""Length of an embedding that ``shard_rows`` is meant for; shards of longer ones hold fewer."""
ROLLED_BACK = "rolled back"
"""Cursor of a kept generation that was current before the one that is."""

IN_THE_MAKING = frozenset({"announced", "filling", "compacting", "ready"})

_NEXT = "next "


@dataclass(frozen=True, slots=True)
class GenerationPolicy:
    """The settings of the same names (`lookalike.settings.Settings`)."""

    head_rows: int
    head_dim: int
    shard_rows: int
    settle_s: float
    grace_s: float
    keep_generation_s: float


def wanted(
    lineage: Lineage, manifest: Manifest, live_rows: int, dim: int | None, policy: GenerationPolicy
) -> str:
    """Why a new generation of the same space is needed; empty when it is not.

    Parameters
    ----------
    lineage, manifest
        The catalogue's, and its current generation's.
    live_rows
        Live views of the catalogue.
    dim
        Length of an embedding under the current head, None when that cannot be read.
    policy
        Thresholds.
    """
    beside = lineage.beside
    if beside is not None and beside.phase != "kept":
        return ""
    if dim is None:
        return "its head cannot be read"
    if beside is not None and beside.cursor == ROLLED_BACK:
        return ""
    if policy.head_rows > 0 and live_rows >= policy.head_rows:
        if not manifest.head:
            return "there are enough rows to fit a head"
        if manifest.fitted_rows < MAX_FITTED_ROWS and live_rows >= GROWTH * manifest.fitted_rows:
            return "the head was fitted on far fewer rows than there are"
    if live_rows > OVERFULL * len(manifest.shards) * shard_capacity(dim, policy):
        return "the shards are too full"
    # A build that could not split a shard is not worth another before there is more to split.
    if fullest_rows(manifest) > SKEWED * max(shard_capacity(dim, policy), manifest.fullest_rows):
        return "one shard is too full"
    return ""


def fullest_rows(manifest: Manifest) -> int:
    """Rows of the shard that has most of them."""
    return max(map(shard_rows, manifest.shards), default=0)


def shard_rows(shard: Shard) -> int:
    """Rows of a shard's base and of the runs beside it."""
    base_rows = shard.base.rows if shard.base else 0
    return base_rows + sum(run.rows for run in shard.fresh)


def shard_capacity(dim: int, policy: GenerationPolicy) -> int:
    """Rows that a shard of embeddings of this length is meant for."""
    return max(1, policy.shard_rows * USUAL_DIM // max(dim, USUAL_DIM))


def shards_for(rows: int, dim: int, policy: GenerationPolicy) -> int:
    """How many shards a new generation of so many rows gets."""
    capacity = shard_capacity(dim, policy)
    return 1 if rows <= capacity else -int(-rows // (FILLED * capacity))


def fullest_share(rows: int, dim: int, policy: GenerationPolicy) -> float:
    """Which share of so many rows one shard of a new generation may have."""
    return OVERFULL * shard_capacity(dim, policy) / max(rows, 1)


def begun(lineage: Lineage, space: str, now: float) -> Lineage:
    """The lineage with a new generation of this space beside the current one."""
    generation = _next(lineage, space)
    build = Build(generation, "announced", now, now)
    return replace(lineage, serial=lineage.serial + 1, beside=build)


def exchanged(lineage: Lineage, now: float, *, back: bool = False) -> Lineage:
    """The lineage with the generation beside as the current one, which is kept beside."""
    assert lineage.beside is not None
    kept = Build(lineage.current, "kept", now, now, cursor=ROLLED_BACK if back else "")
    return replace(lineage, current=lineage.beside.generation, beside=kept)


def dropping(lineage: Lineage, now: float, then: str = "") -> Lineage:
    """The lineage with the generation beside on its way out; a build of space ``then`` follows."""
    assert lineage.beside is not None
    since = lineage.beside.changed_at if lineage.beside.phase == "dropping" else now
    cursor = f"{_NEXT}{then}" if then else ""
    beside = replace(lineage.beside, phase="dropping", changed_at=since, cursor=cursor)
    return replace(lineage, beside=beside)


def following(lineage: Lineage) -> Generation | None:
    """The generation that is to be built when the one beside, on its way out, has gone."""
    beside = lineage.beside
    if beside is None or beside.phase != "dropping" or not beside.cursor.startswith(_NEXT):
        return None
    return _next(lineage, beside.cursor.removeprefix(_NEXT))


def dropped(lineage: Lineage, now: float) -> Lineage:
    """The lineage without the generation beside, or with the one that was to follow it."""
    assert lineage.beside is not None
    after = following(lineage)
    alone = replace(lineage, beside=None)
    return begun(alone, after.encoder, now) if after else alone


def _next(lineage: Lineage, space: str) -> Generation:
    return Generation(lineage.catalogue, f"{space}-g{lineage.serial + 1}", space)
