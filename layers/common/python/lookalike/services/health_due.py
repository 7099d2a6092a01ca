"""Says when a catalogue is to be checked again, and why."""

from __future__ import annotations

from collections.abc import Mapping

from lookalike.core.errors import Unindexable
from lookalike.core.jobs import MIN_PRODUCTS, Artifact, RenewalPolicy, why_due
from lookalike.core.keys import content_digest
from lookalike.core.ports import Clock, ObjectStore
from lookalike.core.types import Run as CompactedRun
from lookalike.services.live_embeddings import LiveRows

_MAX_FINDINGS_BYTES = 2**28


class Renewal:
    """Decides for all catalogues; remembers which findings it has read.

    Parameters
    ----------
    index
        The bucket that has the findings.
    policy
        When findings are made anew.
    clock
        Epoch seconds.
    """

    def __init__(self, index: ObjectStore, policy: RenewalPolicy, clock: Clock) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._sound: dict[str, tuple[str, str]] = {}

    def why(self, made: Mapping[str, Artifact], rows: LiveRows, products: int) -> str:
        """Why a catalogue is to be checked, in a few words for the log; "" when it is not.

        Parameters
        ----------
        made
            What is current, by kind.
        rows
            Its rows.
        products
            Live products now.
        """
        findings, shown = made.get("findings"), made.get("shown")
        if findings and self._is_lost(findings):
            return "the findings cannot be read"
        source = rows.generation.generation, rows.head_digest
        if findings and (findings.generation, findings.head) != source:
            return "another generation is current"
        renewed = findings is not None and self._clock() - findings.made_at >= self._policy.renew_s
        if renewed and findings and shown and shown.made_at > findings.made_at:
            return "searches have been counted since"
        if findings and products >= MIN_PRODUCTS and (changed := self._changed(findings, rows)):
            return f"{changed} photos came or were overwritten"
        return why_due(
            self._policy,
            findings,
            products=products,
            arrivals=max(0, products - findings.products) if findings else 0,
            newest_at=rows.newest_at,
            now=self._clock(),
        )

    def _is_lost(self, findings: Artifact) -> bool:
        """Whether the file is gone or altered: one look at it, once it was read whole."""
        info = self._index.head(findings.key)
        if info is None:
            return True
        if self._sound.get(findings.catalogue) == (findings.key, info.etag):
            return False
        try:
            found = self._index.get(findings.key, _MAX_FINDINGS_BYTES)
        except Unindexable:
            return True
        if found is None or not findings.key.endswith(f"/{content_digest(found[1])}"):
            return True
        self._sound[findings.catalogue] = (findings.key, found[0].etag)
        return False

    def _changed(self, findings: Artifact, rows: LiveRows) -> int:
        """How many rows were written since, if they are many and have come to rest.

        Where compaction has merged them with rows from before, those are among them.
        """
        now, policy = self._clock(), self._policy
        age_s, quiet_s = now - findings.made_at, now - rows.newest_at
        if age_s < policy.quiet_s or not (quiet_s >= policy.quiet_s or age_s >= policy.pause_s):
            return 0
        changed = sum(
            file.rows
            for file in rows.files
            if (file.newest_at if isinstance(file, CompactedRun) else file.committed_at)
            > findings.made_at
        )
        views = int(findings.summary.get("views", findings.products))
        return changed if changed >= policy.renew_share * max(views, 1) else 0
