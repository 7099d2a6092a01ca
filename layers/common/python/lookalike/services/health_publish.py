"""Turns what a run of the health check found into the catalogue's current findings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lookalike.core.errors import CorruptFile, Unindexable
from lookalike.core.health import Found, ShownProducts
from lookalike.core.health_categories import all_findings
from lookalike.core.health_file import (
    MAX_LISTED,
    Finding,
    Place,
    decode_copies,
    encode_facts,
    encode_findings,
)
from lookalike.core.jobs import Artifact, ArtifactKind, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.neighbours import Neighbours
from lookalike.core.ports import Stores
from lookalike.core.shown import read_shown
from lookalike.core.types import Scalar
from lookalike.services.health_state import Gathered, State, named_parts, read_object
from lookalike.services.jobs import Run, make_current

_TYPE = "application/octet-stream"
_MAX_SHOWN_BYTES = 2**28


def publish(
    stores: Stores,
    run: Run,
    state: State,
    gathered: Gathered,
    neighbours: Neighbours,
    made: Mapping[str, Artifact],
    now: float,
    grace_s: float,
) -> dict[str, Artifact]:
    """Write findings and facts, and make them current; gives what is current, by kind.

    Raises
    ------
    Conflict
        Somebody else has made others current meanwhile.
    CorruptFile
        A working object is not what it should be.
    """
    copies = decode_copies(read_object(run, name) for name in state.copies)
    shown = _shown(stores, made.get("shown"))
    found = all_findings(gathered.rows, neighbours, copies, shown)
    listed = {kind: items[:MAX_LISTED] for kind, items in found.items()}
    places = _places(run, state, gathered, listed)
    findings = {kind: [_finding(item, places) for item in items] for kind, items in listed.items()}
    totals = {kind: len(items) for kind, items in found.items()}
    body, head_bytes = encode_findings(findings, totals, run.job.begun_at)
    rows = gathered.rows
    products = len(np.unique(rows.products))
    summary: dict[str, Scalar] = {
        **totals,
        "products": products,
        "views": len(rows),
        "unreadable_files": len(state.unreadable),
        "head_bytes": head_bytes,
    }
    known = rows.facts[rows.facts["aspect"] > 0]
    put = _Put(stores, run, state, made, now, grace_s)
    return {
        **made,
        "facts": put.current("facts", encode_facts(known), {"photos": len(known)}),
        "findings": put.current("findings", body, summary),
    }


class _Put:
    """Makes objects current that a run has made."""

    def __init__(
        self,
        stores: Stores,
        run: Run,
        state: State,
        made: Mapping[str, Artifact],
        now: float,
        grace_s: float,
    ) -> None:
        self._stores = stores
        self._job = run.job
        self._state = state
        self._made = made
        self._now = now
        self._grace_s = grace_s

    def current(self, kind: ArtifactKind, body: bytes, summary: Mapping[str, Scalar]) -> Artifact:
        """Write an object and the record that names it."""
        before = self._made.get(kind)
        key = artifact_key(kind, self._job.catalogue, content_digest(body))
        # Also when nothing has changed: what is there may have been altered.
        self._stores.index.put(key, body, _TYPE)
        if before is not None and before.key == key:
            return make_current(self._stores, before, before, self._now, self._grace_s)
        return make_current(
            self._stores,
            before,
            Artifact(
                catalogue=self._job.catalogue,
                kind=kind,
                key=key,
                encoder=self._state.encoder,
                generation=self._state.generation,
                head=self._state.head,
                made_at=self._job.begun_at,
                through_at=self._state.through_at,
                serial=before.serial + 1 if before else 1,
                products=self._state.counted,
                summary=summary,
            ),
            self._now,
            self._grace_s,
        )


def _places(
    run: Run, state: State, gathered: Gathered, listed: Mapping[str, list[Found]]
) -> dict[int, Place]:
    """What the rows are called that findings are about."""
    wanted = {row for items in listed.values() for item in items for row in item.rows}
    numbers = np.cumsum(gathered.kept) - 1
    places: dict[int, Place] = {}
    start = 0
    for part in named_parts(run, state):
        kept = gathered.kept[start : start + len(part)]
        for at in np.flatnonzero(kept).tolist():
            row = int(numbers[start + at])
            if row in wanted:
                photo = f"{int(part.facts['photo'][at]):016x}"
                places[row] = Place(part.product_ids[at], part.keys[at], photo)
        start += len(part)
    return places


def _finding(found: Found, places: Mapping[int, Place]) -> Finding:
    return Finding(
        found.code,
        found.reason,
        round(found.weight, 4),
        found.category,
        dict(found.evidence),
        tuple(places[row] for row in found.rows),
    )


def _shown(stores: Stores, artifact: Artifact | None) -> ShownProducts | None:
    """Which products searches have shown, as far as that was counted."""
    if artifact is None:
        return None
    try:
        found = stores.index.get(artifact.key, _MAX_SHOWN_BYTES)
        if found is None:
            return None
        searches = int(artifact.summary.get("searches", 0))
        return ShownProducts(read_shown(found[1]), searches, artifact.through_at)
    except (CorruptFile, Unindexable):
        return None
