"""Says what a search's scores mean in its catalogue, and which clusters it reached.

Fitting is `lookalike.services.calibrate`'s. What was fitted is kept in memory and renewed behind
searches: none waits for more than a second for the first read, and none fails for want of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lookalike.core.calibration import Calibration, decode_calibration
from lookalike.core.errors import CorruptFile, Unindexable, Vanished
from lookalike.core.jobs import Artifact
from lookalike.core.pooling import pool as pooled
from lookalike.core.ports import Clock, ObjectStore, Stores
from lookalike.core.segment import Float32
from lookalike.core.types import Generation
from lookalike.services.clusters import Clusters
from lookalike.services.query_embedding import Embedded
from lookalike.services.ranking import Found
from lookalike.services.search_request import SearchRequest

logger = logging.getLogger(__name__)

Verdict = Literal["match", "low_confidence", "no_good_match"]

LOW_MATCH = 0.5
"""A best result below it is more likely no good match than one."""
FIRST_READ_S = 1.0
"""Seconds that a search waits at most, for clusters as well, if it is the process's first."""
MAX_CALIBRATION_BYTES = 2**24
_CATALOGUES = 32


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is said of a search: of all of it, and of each result in order.

    Everything is None where nothing is calibrated, or there are no clusters. ``cluster`` is the
    one that the query is nearest to.
    """

    verdict: Verdict | None
    matches: list[float | None]
    clusters: list[str | None]
    cluster: str | None


@dataclass(frozen=True, slots=True)
class _Known:
    asked_at: float
    key: str = ""
    calibration: Calibration | None = None


class Judge:
    """Judges searches.

    Parameters
    ----------
    stores
        Where calibrations are read.
    clusters
        Which cluster an embedding is in.
    refresh_s
        Seconds after which it is asked again, behind a search, which calibration is current.
    clock
        Epoch seconds.
    pool
        Reads behind searches.
    """

    def __init__(
        self, stores: Stores, clusters: Clusters, refresh_s: float, clock: Clock, pool: Executor
    ) -> None:
        self._stores = stores
        self._clusters = clusters
        self._refresh_s = refresh_s
        self._clock = clock
        self._pool = pool
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[str, Future[None]] = {}
        self._lock = threading.RLock()  # a pool may run what it is given at once

    def warm(self, catalogue: str) -> None:
        """Begin to read what `judge` will need, unless that is there."""
        self._clusters.warm(catalogue)
        with self._lock:
            known = self._known.get(catalogue)
            is_fresh = known and 0 <= self._clock() - known.asked_at < self._refresh_s
            reading = self._reading.get(catalogue)
            if not is_fresh and (reading is None or reading.done()):
                reading = self._pool.submit(self._read, catalogue)
                if not reading.done():  # as it is where a pool runs things at once
                    self._reading[catalogue] = reading

    def calibration(self, generation: Generation, head: str) -> Calibration | None:
        """What scores under this head (its digest) mean; None when nothing was fitted for it.

        Never raises: what cannot be read now is an error in the log, and is tried again.
        """
        catalogue = generation.catalogue
        self.warm(catalogue)
        with self._lock:
            known = self._known.get(catalogue)
            reading = self._reading.get(catalogue)
        if known is None and reading is not None:
            try:
                reading.result(FIRST_READ_S)
            except TimeoutError:
                logger.warning("the calibration of “%s” took too long", catalogue)
            with self._lock:  # no search waits again for what takes so long
                known = self._known.setdefault(catalogue, _Known(self._clock()))
        fitted = known.calibration if known else None
        if fitted is None or fitted.generation != generation.generation or fitted.head != head:
            return None
        return fitted

    def judge(
        self,
        request: SearchRequest,
        generation: Generation,
        query: Embedded,
        found: Sequence[Found],
    ) -> Judgement:
        """What is said of a search and its results; never raises."""
        head, began = query.index.head, time.monotonic()
        matches: list[float | None] = [None] * len(found)
        verdict: Verdict | None = None
        fitted = self.calibration(generation, head.digest) if len(query.index) else None
        if fitted is not None and _is_foreign(fitted, request, query):
            # The map was fitted on queries that belong; of others it would say too much.
            verdict = "no_good_match"
        elif fitted is not None and fitted.score_map is not None:
            probabilities = fitted.score_map.match([item.score for item in found])
            matches = [round(float(value), 4) for value in probabilities]
            best = float(probabilities[0]) if len(probabilities) else 0.0
            verdict = "match" if best >= LOW_MATCH else "low_confidence"
        # Both have been read since the search began; they share what it may wait.
        left = max(0.0, FIRST_READ_S - (time.monotonic() - began))
        finder = self._clusters.finder(generation, head, wait_s=left) if len(query.index) else None
        if finder is None:
            return Judgement(verdict, matches, [None] * len(found), None)
        cluster, *clusters = finder.ids(
            np.stack([query.embedding, *(item.embedding for item in found)])
        )
        return Judgement(verdict, matches, list(clusters), cluster)

    def _read(self, catalogue: str) -> None:
        at = self._clock()
        with self._lock:
            known = self._known.get(catalogue, _Known(at))
        try:
            artifact = self._stores.artifacts.current(catalogue).get("calibration")
            if artifact is None:
                known = _Known(at)
            elif artifact.key == known.key:
                known = _Known(at, known.key, known.calibration)
            else:
                known = _Known(at, artifact.key, read_calibration(self._stores.index, artifact))
        except Exception:  # whatever it is, searches do without
            logger.exception("no new calibration of “%s”", catalogue)
            known = _Known(at, known.key, known.calibration)
        finally:
            with self._lock:
                self._known[catalogue] = known
                self._known.move_to_end(catalogue)
                while len(self._known) > _CATALOGUES:
                    self._known.popitem(last=False)
                self._reading.pop(catalogue, None)


def read_calibration(store: ObjectStore, artifact: Artifact) -> Calibration:
    """Read what an artifact of kind “calibration” names.

    Raises
    ------
    Vanished
        The bucket does not hold it.
    CorruptFile
        It is not a whole calibration.
    """
    try:
        found = store.get(artifact.key, MAX_CALIBRATION_BYTES)
    except Unindexable as error:
        raise CorruptFile(f"calibration {artifact.key} cannot be read: {error}") from error
    if found is None:
        raise Vanished(f"calibration {artifact.key} is not in the bucket")
    return decode_calibration(found[1], artifact.key)


def _is_foreign(fitted: Calibration, request: SearchRequest, query: Embedded) -> bool:
    """Whether every photo that is searched with lies off the catalogue's subspace.

    Stored products are the catalogue's own, and a few cells of a photo are no photo: with either
    among what is looked for, nothing is said.
    """
    subspace, photos = fitted.subspace, _photos(request, query)
    if subspace is None or not photos or photos[0].shape != subspace.mean.shape:
        return False
    return bool((subspace.residuals(np.stack(photos)) > subspace.threshold).all())


def _photos(request: SearchRequest, query: Embedded) -> list[Float32]:
    """Raw embeddings of the photos that a query is made of; none if it is not of photos alone."""
    photos = []
    for part in query.parts:
        if part.coefficient <= 0 or part.input < 0:
            continue
        item = request.inputs[part.input]
        is_region = item.query_id is not None and (item.cells is not None or item.crop is not None)
        if part.maps is None or part.weights is None or is_region:
            return []
        photos.append(pooled(part.maps[None], part.weights[None])[0])
    return photos
