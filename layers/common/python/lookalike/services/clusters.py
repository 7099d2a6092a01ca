"""A catalogue's clusters as others read them: who they are, who is in them, what they are called.

Making them is `lookalike.services.recluster`'s. What a search needs is kept in memory and renewed
behind it; no search waits for more than the first read, and none fails for want of clusters.
"""

from __future__ import annotations

import logging
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TypeVar

from lookalike.core.clustering import assign
from lookalike.core.clusters import (
    Arrivals,
    Clustering,
    Float32,
    MemberPage,
    decode_clusters,
    decode_page,
    pages_from,
)
from lookalike.core.errors import (
    CorruptFile,
    InvalidRequest,
    NotFound,
    Retry,
    Unavailable,
    Unindexable,
    Vanished,
)
from lookalike.core.head import Head
from lookalike.core.jobs import Artifact
from lookalike.core.ports import Clock, ObjectStore, Stores
from lookalike.core.types import Generation

logger = logging.getLogger(__name__)

MAX_NAME = 80
"""Characters of a name that is given to a cluster."""
FIRST_READ_S = 1.0
"""Seconds that a search waits at most for what no search of this process has read before."""
_UNSEEN = {"Cf", "Zs", "Zl", "Zp"}
_MAX_ARRIVALS_BYTES = 2**28
_CATALOGUES = 32
_TRIES = 3

Answer = TypeVar("Answer")
MembersPage = tuple[list[str], str | None]


@dataclass(frozen=True, slots=True)
class ClusterFinder:
    """Says which cluster embeddings under one head are in."""

    clustering: Clustering
    centroids: Float32

    def ids(self, embeddings: Float32) -> list[str]:
        """The cluster_id of each embedding (n, dim_out), L2-normalised."""
        numbers, _ = assign(self.centroids, embeddings)
        return [self.clustering.clusters[number].cluster_id for number in numbers]


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster as it is shown. ``given`` when somebody has named it; ``size`` counts arrivals."""

    cluster_id: str
    name: str
    given: bool
    words: tuple[str, ...]
    size: int
    cohesion: float
    born_at: float
    representatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterList:
    """A catalogue's clusters, the largest first; ``serial`` is 0 while there are none."""

    catalogue: str
    encoder: str = ""
    serial: int = 0
    made_at: float = 0.0
    clusters: list[ClusterInfo] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """What is in memory of a catalogue, asked for at ``asked_at``."""

    asked_at: float
    key: str = ""
    clustering: Clustering | None = None
    finder: tuple[Head, ClusterFinder] | None = None


class Clusters:
    """The use case behind everything that shows or names clusters.

    Parameters
    ----------
    stores
        Where to read, and to write names.
    refresh_s
        Seconds after which it is asked again, behind a search, which clusters are current.
    clock
        Epoch seconds.
    pool
        Reads behind searches.
    """

    def __init__(self, stores: Stores, refresh_s: float, clock: Clock, pool: Executor) -> None:
        self._stores = stores
        self._refresh_s = refresh_s
        self._clock = clock
        self._pool = pool
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[str, Future[None]] = {}
        self._lock = threading.RLock()  # a pool may run what is submitted at once

    def warm(self, catalogue: str) -> None:
        """Begin to read what `current` will be asked for, unless that is there."""
        self._begin_reading(catalogue)

    def current(self, catalogue: str) -> Clustering | None:
        """The clusters of a catalogue as they were ``refresh_s`` ago or later; None for none.

        Never raises: what cannot be read now is a warning in the log, and is tried again.
        """
        known = self._current(catalogue)
        return known.clustering if known else None

    def finder(
        self, generation: Generation, head: Head, *, wait_s: float = FIRST_READ_S
    ) -> ClusterFinder | None:
        """What tells embeddings of a generation, under its head, their clusters; see `current`.

        None when the clusters are of another encoder, or their first read takes longer than
        ``wait_s``.
        """
        known = self._current(generation.catalogue, wait_s)
        if known is None or known.clustering is None or not known.clustering.clusters:
            return None
        clustering = known.clustering
        if clustering.encoder != generation.encoder or clustering.means.shape[1] != head.dim_in:
            return None
        if known.finder is None or known.finder[0] is not head:
            known.finder = head, ClusterFinder(clustering, clustering.centroids(head))
        return known.finder[1]

    def list(self, catalogue: str) -> ClusterList:
        """All clusters as they are now. Names that were given win over those that were found.

        Raises
        ------
        NotFound
            There is no such catalogue.
        Retry
            They cannot be read now.
        """

        def read(artifact: Artifact | None) -> ClusterList:
            if artifact is None:
                return ClusterList(catalogue)
            clustering = read_clustering(self._stores.index, artifact)
            arrived = read_arrivals(self._stores.index, artifact).sizes(len(clustering.clusters))
            given = self._stores.cluster_names.all(catalogue)
            infos = [
                ClusterInfo(
                    cluster.cluster_id,
                    given.get(cluster.cluster_id, cluster.name),
                    cluster.cluster_id in given,
                    cluster.words,
                    cluster.size + more,
                    cluster.cohesion,
                    cluster.born_at,
                    cluster.representatives,
                )
                for cluster, more in zip(clustering.clusters, arrived, strict=True)
            ]
            infos.sort(key=lambda info: -info.size)
            made_at, serial = clustering.made_at, clustering.serial
            return ClusterList(catalogue, clustering.encoder, serial, made_at, infos)

        return self._as_of_now(catalogue, read)

    def members(self, catalogue: str, cluster_id: str, limit: int, after: str = "") -> MembersPage:
        """Ids of products in a cluster behind ``after``, in order, and what to go on behind.

        Products that were deleted since the clusters were made may still be among them.

        Raises
        ------
        NotFound
            There is no such catalogue, or it has no such cluster.
        Retry
            They cannot be read now.
        """

        def read(artifact: Artifact | None) -> MembersPage:
            clustering = read_clustering(self._stores.index, artifact) if artifact else None
            number = clustering.index_of(cluster_id) if clustering else None
            if artifact is None or clustering is None or number is None:
                raise _no_cluster(catalogue, cluster_id, "cluster")
            arrivals = read_arrivals(self._stores.index, artifact)
            found = arrivals.ids(number, after)
            for page in pages_from(clustering.members[number], after):
                # Whatever comes in later pages comes behind what there is, if that is enough.
                if sum(id_ < page.first for id_ in found) > limit:
                    break
                ids = _read_page(self._stores.index, artifact.key, page)
                found += [id_ for id_ in ids if id_ > after and id_ not in arrivals.placed]
            found.sort()
            more = len(found) > limit
            return found[:limit], found[limit - 1] if more else None

        return self._as_of_now(catalogue, read)

    def rename(self, catalogue: str, cluster_id: str, name: str | None) -> ClusterInfo:
        """Give a cluster a name, which it keeps from run to run; None: the one found for it.

        Raises
        ------
        InvalidRequest
            This cannot be a name.
        NotFound
            There is no such catalogue, or it has no such cluster.
        Retry
            A table or the bucket cannot be reached.
        """
        if name is not None:
            name = name.strip()
            kinds = {unicodedata.category(char) for char in name}
            if len(name) > MAX_NAME or kinds <= _UNSEEN or kinds & {"Cc", "Cs"}:
                raise InvalidRequest(
                    f"A name has 1 to {MAX_NAME} characters, some that can be seen and none that "
                    "are control characters.",
                    parameter="name",
                )
        self._info(catalogue, cluster_id)
        self._stores.cluster_names.put(catalogue, cluster_id, name)
        return self._info(catalogue, cluster_id)  # which may be gone by now

    def _info(self, catalogue: str, cluster_id: str) -> ClusterInfo:
        for info in self.list(catalogue).clusters:
            if info.cluster_id == cluster_id:
                return info
        raise _no_cluster(catalogue, cluster_id, "cluster_id")

    def _current(self, catalogue: str, wait_s: float = FIRST_READ_S) -> _Known | None:
        reading = self._begin_reading(catalogue)
        known = self._known.get(catalogue)
        if known is None and reading is not None:
            try:
                reading.result(wait_s)
            except TimeoutError:
                logger.warning("the clusters of %s took too long to read", catalogue)
            with self._lock:
                # Searches that come now wait no more; what is read comes to them later.
                known = self._known.setdefault(catalogue, _Known(self._clock()))
        return known

    def _begin_reading(self, catalogue: str) -> Future[None] | None:
        """The reading under way, which is begun when what is known is old; None for no need."""
        with self._lock:
            known = self._known.get(catalogue)
            if known is not None and 0 <= self._clock() - known.asked_at < self._refresh_s:
                return None
            reading = self._reading.get(catalogue)
            if reading is None or reading.done():
                reading = self._pool.submit(self._read, catalogue)
                self._reading[catalogue] = reading
            return reading

    def _read(self, catalogue: str) -> None:
        """Look which clusters are current, and read them if they are others."""
        now = self._clock()
        before = self._known.get(catalogue) or _Known(now)
        known = _Known(now, before.key, before.clustering, before.finder)
        try:
            artifact = self._stores.artifacts.current(catalogue).get("clusters")
            if artifact is None:
                known = _Known(now)
            elif artifact.key != before.key:
                known = _Known(now, artifact.key, read_clustering(self._stores.index, artifact))
        except (Retry, CorruptFile, Vanished) as error:
            logger.warning("the clusters of %s cannot be read now: %s", catalogue, error)
        except Exception:
            # Whatever it is, no search fails for it.
            logger.exception("the clusters of %s cannot be read", catalogue)
        with self._lock:
            self._known[catalogue] = known
            self._known.move_to_end(catalogue)
            while len(self._known) > _CATALOGUES:
                gone, _ = self._known.popitem(last=False)
                self._reading.pop(gone, None)

    def _as_of_now(self, catalogue: str, read: Callable[[Artifact | None], Answer]) -> Answer:
        """Read what is current; again if that was replaced and deleted meanwhile."""
        for attempt in range(_TRIES):
            artifact = self._stores.artifacts.current(catalogue).get("clusters")
            if artifact is None and self._stores.lineages.get(catalogue) is None:
                raise NotFound(f"There is no catalogue “{catalogue}”.", parameter="catalogue")
            try:
                return read(artifact)
            except Vanished as error:
                if attempt == _TRIES - 1:
                    raise Unavailable(f"{error}; it is made anew within minutes") from error
            except CorruptFile as error:
                raise Unavailable(f"{error}; it is made anew within minutes") from error
        raise AssertionError("the last try answers or raises")


def read_clustering(store: ObjectStore, artifact: Artifact) -> Clustering:
    """The clusters that an artifact of kind ``clusters`` names, without their members.

    Raises
    ------
    Vanished
        The bucket does not hold them: others have taken their place.
    CorruptFile
        The object is not what it should be.
    """
    length = int(artifact.summary["head_bytes"])
    head = store.get_range(artifact.key, 0, length)
    if head is None:
        raise Vanished(f"{artifact.key} is not in the bucket")
    return decode_clusters(head, artifact.key)


def read_arrivals(store: ObjectStore, artifact: Artifact) -> Arrivals:
    """The products that came since; raises `Vanished` and `CorruptFile`."""
    if not artifact.arrivals_key:
        return Arrivals({})
    try:
        found = store.get(artifact.arrivals_key, _MAX_ARRIVALS_BYTES)
    except Unindexable as error:
        raise CorruptFile(f"{artifact.arrivals_key} cannot be read: {error}") from error
    if found is None:
        raise Vanished(f"{artifact.arrivals_key} is not in the bucket")
    return Arrivals.decode(found[1], artifact.arrivals_key)


def read_members(
    store: ObjectStore, artifact: Artifact, clustering: Clustering
) -> Iterator[tuple[int, list[str]]]:
    """Pages of product ids as of the snapshot with their cluster's number, all by one GET.

    Raises
    ------
    Vanished
        The bucket does not hold them.
    CorruptFile
        They are not what they should be.
    """
    pages = [(number, page) for number, of in enumerate(clustering.members) for page in of]
    if not pages:
        return
    start, last = pages[0][1].start, pages[-1][1]
    data = _read_range(store, artifact.key, start, last.start + last.length - start)
    for number, page in pages:
        begin = page.start - start
        yield number, decode_page(page, data[begin : begin + page.length], artifact.key)


def _read_page(store: ObjectStore, key: str, page: MemberPage) -> list[str]:
    return decode_page(page, _read_range(store, key, page.start, page.length), key)


def _read_range(store: ObjectStore, key: str, start: int, length: int) -> bytes:
    data = store.get_range(key, start, length)
    if data is None:
        raise Vanished(f"{key} is not in the bucket")
    return data


def _no_cluster(catalogue: str, cluster_id: str, parameter: str) -> NotFound:
    return NotFound(
        f"Catalogue “{catalogue}” has no cluster “{cluster_id}”; `lookalike clusters list` names "
        "those that it has.",
        parameter=parameter,
    )
