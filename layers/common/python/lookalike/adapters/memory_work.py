"""The ports of scheduled work without a network. Nothing survives it."""

from __future__ import annotations

import threading

from lookalike.adapters.memory_revisions import put_unchanged
from lookalike.core.errors import Conflict
from lookalike.core.jobs import Artifact, Job, JobName


class MemoryArtifacts:
    """What scheduled work has made, in a dict."""

    def __init__(self) -> None:
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._lock = threading.Lock()

    def current(self, catalogue: str) -> dict[str, Artifact]:
        """See `lookalike.core.ports.ArtifactTable`."""
        with self._lock:
            known = self._artifacts.items()
            return {kind: artifact for (owner, kind), artifact in known if owner == catalogue}

    def put(self, artifact: Artifact) -> Artifact:
        """See `lookalike.core.ports.ArtifactTable`."""
        with self._lock:
            return put_unchanged(self._artifacts, (artifact.catalogue, artifact.kind), artifact)

    def remove(self, artifact: Artifact) -> None:
        """See `lookalike.core.ports.ArtifactTable`."""
        key = artifact.catalogue, artifact.kind
        with self._lock:
            stored = self._artifacts.get(key)
            if stored is not None and stored.revision != artifact.revision:
                raise Conflict(f"{artifact.kind} of {artifact.catalogue} was changed meanwhile")
            self._artifacts.pop(key, None)


class MemoryJobs:
    """How far jobs are, in a dict."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def get(self, catalogue: str, name: JobName) -> Job | None:
        """See `lookalike.core.ports.JobTable`."""
        return self._jobs.get((catalogue, name))

    def put(self, job: Job) -> Job:
        """See `lookalike.core.ports.JobTable`."""
        with self._lock:
            return put_unchanged(self._jobs, (job.catalogue, job.name), job)

    def all(self, catalogue: str) -> list[Job]:
        """See `lookalike.core.ports.JobTable`."""
        with self._lock:
            return [self._jobs[key] for key in sorted(self._jobs) if key[0] == catalogue]


class MemoryClusterNames:
    """Names of clusters in a dict."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}

    def all(self, catalogue: str) -> dict[str, str]:
        """See `lookalike.core.ports.ClusterNames`."""
        return dict(self._names.get(catalogue, {}))

    def put(self, catalogue: str, cluster_id: str, name: str | None) -> None:
        """See `lookalike.core.ports.ClusterNames`."""
        names = self._names.setdefault(catalogue, {})
        if name is None:
            names.pop(cluster_id, None)
        else:
            names[cluster_id] = name
