"""Changes a catalogue's encoder, head or routing: a generation is built beside the current one.

announced (both take every append) → filling → compacting → ready → swapped by one conditional
write of the lineage; the old one is kept for a rollback, then dropped. Every phase can stop
anywhere and be done again, by any number of runners; rows are brought over in batches, with the
place to go on from in the lineage. Searches see the generation before the swap or the one after.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from dataclasses import replace
from typing import Literal

from lookalike.core.encoders import encoder_record, parse_space, space_id
from lookalike.core.errors import Conflict, InvalidRequest, NotFound, Retry
from lookalike.core.generations import (
    IN_THE_MAKING,
    GenerationPolicy,
    begun,
    dropped,
    dropping,
    exchanged,
    following,
    wanted,
)
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Build, Generation, Lineage, Manifest
from lookalike.services.bring_over import PhotoReader
from lookalike.services.build_state import BuildState, ReindexReport, build_state
from lookalike.services.compact import Compaction, HeadLost
from lookalike.services.new_generation import NewGeneration

logger = logging.getLogger(__name__)

Action = Literal["build", "rollback", "drop"]

_LOST_RACES = 3
_USUAL_DIM = 1280


class Reindex:
    """The use case behind the *reindex* function.

    Parameters
    ----------
    stores
        Where to read and write.
    policy
        Thresholds and periods.
    pooling
        Of catalogues that are new.
    compaction
        Compacts the generation that is built.
    photos
        Encodes photos anew.
    pool
        Runs reads side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        policy: GenerationPolicy,
        pooling: str,
        compaction: Compaction,
        photos: PhotoReader,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._policy = policy
        self._pooling = pooling
        self._compaction = compaction
        self._photos = photos
        self._pool = pool
        self._clock = clock

    def run(self, deadline: float, catalogue: str | None = None) -> ReindexReport:
        """Take every catalogue's build, or one's, as far as it goes before the deadline.

        Builds that the rows call for begin by themselves; see `lookalike.core.generations.wanted`.

        Raises
        ------
        NotFound
            There is no such catalogue.
        """
        report = ReindexReport()
        lineages = self._stores.lineages.all()
        if catalogue is not None:
            lineages = [self._lineage(catalogue)]
        for lineage in lineages:
            try:
                lineage = self._advance(lineage, deadline)
            except Retry as error:
                # One catalogue that cannot go on now must not keep the others from it.
                logger.warning("reindexing %s postponed: %s", lineage.catalogue, error)
                report.postponed[lineage.catalogue] = str(error)
                lineage = self._stores.lineages.get(lineage.catalogue) or lineage
            report.catalogues.append(build_state(lineage))
        return report

    def ask(self, action: Action, catalogue: str | None, encoder: str | None) -> BuildState:
        """Do what an event asks for: `begin`, `roll_back` or `drop`."""
        match action:
            case "build":
                return self.begin(catalogue, encoder)
            case "rollback":
                return self.roll_back(catalogue)
            case "drop":
                return self.drop(catalogue)

    def begin(self, catalogue: str | None = None, encoder: str | None = None) -> BuildState:
        """Ask for a new generation, of another encoder or of the same; idempotent.

        Raises
        ------
        InvalidRequest
            There is no such encoder, another one is being built or is about to be, or no catalogue
            is named where there are several.
        NotFound
            There is no such catalogue.
        Unavailable
            The encoder's graph is not there.
        """
        lineage = self._lineage(catalogue)
        space = lineage.current.encoder
        if encoder is not None:
            space = space_id(encoder_record(encoder), self._pooling_of(space))
            self._photos.check(space)
        return build_state(self._ask(lineage, space))

    def roll_back(self, catalogue: str | None = None) -> BuildState:
        """Exchange the current generation and the one before it, which was kept.

        Raises
        ------
        InvalidRequest
            None was kept.
        """
        lineage = self._lineage(catalogue)
        if lineage.beside is None or lineage.beside.phase != "kept":
            raise InvalidRequest(
                f"No generation before the current one is kept of catalogue “{lineage.catalogue}”.",
                parameter="rollback",
            )
        back = exchanged(lineage, self._clock(), back=True)
        logger.info("%s rolled back to %s", lineage.catalogue, back.current.generation)
        return build_state(self._stores.lineages.put(back))

    def drop(self, catalogue: str | None = None) -> BuildState:
        """Give up the generation beside the current one, built, half-built or kept.

        Raises
        ------
        InvalidRequest
            There is none.
        """
        lineage = self._lineage(catalogue)
        if lineage.beside is None:
            raise InvalidRequest(
                f"Catalogue “{lineage.catalogue}” has one generation only.", parameter="drop"
            )
        return build_state(self._stores.lineages.put(dropping(lineage, self._clock())))

    def _ask(self, lineage: Lineage, space: str) -> Lineage:
        beside = lineage.beside
        if beside is None:
            return self._announce(lineage, space, "it was asked for")
        made = beside.generation if beside.phase in IN_THE_MAKING else following(lineage)
        if made is None:
            return self._stores.lineages.put(dropping(lineage, self._clock(), then=space))
        if made.encoder == space:
            return lineage
        raise InvalidRequest(
            f"A generation of {made.encoder} is being built; give it up first "
            "with `lookalike reindex --drop`.",
            parameter="encoder",
        )

    def _announce(self, lineage: Lineage, space: str, why: str) -> Lineage:
        logger.info("a new generation of %s in %s: %s", lineage.catalogue, space, why)
        return self._stores.lineages.put(begun(lineage, space, self._clock()))

    def _advance(self, lineage: Lineage, deadline: float) -> Lineage:
        """Phase by phase until there is something to wait for, or the deadline."""
        lost = 0
        while self._clock() < deadline:
            try:
                after = self._step(lineage, deadline)
            except Conflict:
                lost += 1
                if lost == _LOST_RACES:
                    raise
                after = self._stores.lineages.get(lineage.catalogue)
            if after is None:
                break
            lineage = after
        return lineage

    def _step(self, lineage: Lineage, deadline: float) -> Lineage | None:
        """One step further; None when it is not time for one."""
        beside = lineage.beside
        if beside is None:
            why = self._wanted(lineage)
            return self._announce(lineage, lineage.current.encoder, why) if why else None
        match beside.phase:
            case "announced":
                return self._after_settling(lineage, beside)
            case "filling":
                return self._fill(lineage, beside)
            case "compacting":
                return self._compact(lineage, beside, deadline)
            case "ready":
                swapped = exchanged(lineage, self._clock())
                logger.info("%s swapped to %s", lineage.catalogue, swapped.current.generation)
                return self._stores.lineages.put(swapped)
            case "kept":
                return self._after_keeping(lineage, beside)
            case "dropping":
                return self._drop(lineage, beside)
            case unknown:
                raise AssertionError(f"a build has no phase {unknown}")

    def _after_settling(self, lineage: Lineage, beside: Build) -> Lineage | None:
        """Every append that began before the announcement has ended."""
        if self._clock() < beside.started_at + self._policy.settle_s:
            return None
        return self._put(lineage, phase="filling", total=self._live_views(lineage.catalogue))

    def _fill(self, lineage: Lineage, beside: Build) -> Lineage:
        current, settled_at = lineage.current, beside.started_at + self._policy.settle_s
        if current.encoder == beside.generation.encoder:
            self._new(beside).take_over(current, beside.started_at)
            return self._put(lineage, phase="compacting", done=beside.total)
        # What became searchable later was appended to both.
        views, batch = self._new(beside).bring(
            self._photos, beside.cursor, lambda view: view.searchable_at <= settled_at
        )
        return self._put(
            lineage,
            phase="filling" if batch.after is not None else "compacting",
            cursor=batch.after or "",
            done=beside.done + views - batch.brought.postponed,
            skipped=beside.skipped + batch.brought.skipped,
        )

    def _compact(self, lineage: Lineage, beside: Build, deadline: float) -> Lineage | None:
        new, rows = self._new(beside), self._live_views(lineage.catalogue)
        if not beside.cursor:  # else only some of what was missing is there
            new.fit(rows)
        try:
            if not self._compacted(beside, deadline):
                return None
        except HeadLost as error:
            logger.warning("%s: %s", beside.generation.scope, error)
            new.fit(rows, anew=True)
            return lineage
        done = new.complete(self._photos, beside.cursor, deadline)
        if done.brought.postponed:
            logger.error(
                "%s is not swapped in: %d views would be lost",
                beside.generation.scope,
                done.brought.postponed,
            )
        if done.after is not None:
            is_further = done.after != beside.cursor
            return self._put(lineage, phase="compacting", cursor=done.after) if is_further else None
        # What was missing may call for a head and for bases, which all the rest has by now.
        if new.fit(rows) or done.brought.appended:
            return self._put(lineage, phase="compacting", cursor="")
        new.note_fullest()
        return self._put(lineage, phase="ready", cursor="", done=beside.total)

    def _compacted(self, beside: Build, deadline: float) -> bool:
        done = self._compaction.compact(beside.generation, deadline, delete_files=False)
        return done.finished

    def _after_keeping(self, lineage: Lineage, beside: Build) -> Lineage | None:
        now = self._clock()
        if now >= beside.changed_at + self._policy.keep_generation_s:
            return self._stores.lineages.put(dropping(lineage, now))
        if now < beside.changed_at + self._policy.grace_s:
            return None
        _, manifest = self._stores.registry.read(beside.generation.scope, since=now)
        if self._dim(beside.generation, manifest) is None:
            # Nothing could be found with it, and nobody would look after it.
            return self._stores.lineages.put(dropping(lineage, now))
        why = self._wanted(lineage)
        if not why:
            return None
        logger.info("%s is dropped for a new generation: %s", beside.generation.scope, why)
        return self._stores.lineages.put(dropping(lineage, now, then=lineage.current.encoder))

    def _drop(self, lineage: Lineage, beside: Build) -> Lineage | None:
        """Appends that knew of it have ended; its files become orphans, which have their grace."""
        now = self._clock()
        if now < beside.changed_at + self._policy.settle_s:
            return None
        self._stores.registry.drop(beside.generation.scope)
        return self._stores.lineages.put(dropped(lineage, now))

    def _wanted(self, lineage: Lineage) -> str:
        rows = self._live_views(lineage.catalogue)
        if not rows:
            return ""
        _, manifest = self._stores.registry.read(lineage.current.scope, since=self._clock())
        dim = self._dim(lineage.current, manifest)
        return wanted(lineage, manifest, rows, dim, self._policy)

    def _dim(self, generation: Generation, manifest: Manifest) -> int | None:
        """Length of an indexed embedding; None when the generation's head cannot be read."""
        try:
            head = self._compaction.head(generation.catalogue, manifest.head)
        except HeadLost as error:
            logger.warning("%s: %s", generation.scope, error)
            return None
        return head.dim_out if head else _raw_dim(generation.encoder)

    def _put(self, lineage: Lineage, *, phase: str, **changes: object) -> Lineage:
        assert lineage.beside is not None
        changed_at = self._clock() if phase != lineage.beside.phase else lineage.beside.changed_at
        values: dict[str, object] = {"phase": phase, "changed_at": changed_at} | changes
        beside = replace(lineage.beside, **values)  # type: ignore[arg-type]
        return self._stores.lineages.put(replace(lineage, beside=beside))

    def _new(self, beside: Build) -> NewGeneration:
        return NewGeneration(self._stores, beside.generation, self._policy, self._pool, self._clock)

    def _live_views(self, catalogue: str) -> int:
        counts = self._stores.counts.all().get(catalogue)
        return counts.views if counts else 0

    def _pooling_of(self, space: str) -> str:
        try:
            return parse_space(space)[1]
        except InvalidRequest:
            return self._pooling

    def _lineage(self, catalogue: str | None) -> Lineage:
        if catalogue is not None:
            found = self._stores.lineages.get(catalogue)
            if found is None:
                raise NotFound(f"There is no catalogue “{catalogue}”.", parameter="catalogue")
            return found
        lineages = self._stores.lineages.all()
        if len(lineages) == 1:
            return lineages[0]
        names = ", ".join(item.catalogue for item in lineages) or "none yet"
        raise InvalidRequest(f"Name one of the catalogues: {names}.", parameter="catalogue")


def _raw_dim(space: str) -> int:
    try:
        return parse_space(space)[0].dim
    except InvalidRequest:  # of a release that knew other encoders
        return _USUAL_DIM
