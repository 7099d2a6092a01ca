"""Scheduled work in DynamoDB: what it has made of each catalogue, how far it is, clusters' names.

One table. A catalogue is a partition, so that one call reads all of a kind of it; the sort key is
the kind of record and its name.
"""

from __future__ import annotations

from dataclasses import replace

from lookalike.adapters.table import Item, Table, decode_record, encode_record, text
from lookalike.core.jobs import Artifact, Job, JobName

_ARTIFACT, _JOB, _NAME = "artifact#", "job#", "name#"


def _key(catalogue: str, entry: str) -> Item:
    return {"catalogue": text(catalogue), "entry": text(entry)}


class DynamoArtifacts:
    """What scheduled work has made; implements `lookalike.core.ports.ArtifactTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def current(self, catalogue: str) -> dict[str, Artifact]:
        """See `lookalike.core.ports.ArtifactTable`."""
        items = self._table.beginning(("catalogue", catalogue), "entry", _ARTIFACT)
        found = [
            replace(decode_record(item, Artifact), revision=item["revision"]["S"]) for item in items
        ]
        return {artifact.kind: artifact for artifact in found}

    def put(self, artifact: Artifact) -> Artifact:
        """See `lookalike.core.ports.ArtifactTable`."""
        revision = self._table.put_revised(
            f"{artifact.kind} of {artifact.catalogue}",
            _key(artifact.catalogue, _ARTIFACT + artifact.kind),
            encode_record(replace(artifact, revision=None)),
            artifact.revision,
        )
        return replace(artifact, revision=revision)

    def remove(self, artifact: Artifact) -> None:
        """See `lookalike.core.ports.ArtifactTable`."""
        self._table.call(
            "DeleteItem",
            f"{artifact.kind} of {artifact.catalogue}",
            Key=_key(artifact.catalogue, _ARTIFACT + artifact.kind),
            ConditionExpression="attribute_not_exists(revision) OR revision = :revision",
            ExpressionAttributeValues={":revision": text(artifact.revision or "")},
        )


class DynamoJobs:
    """How far jobs are; implements `lookalike.core.ports.JobTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def get(self, catalogue: str, name: JobName) -> Job | None:
        """See `lookalike.core.ports.JobTable`."""
        item = self._table.get(_key(catalogue, _JOB + name))
        return _job(item) if item else None

    def put(self, job: Job) -> Job:
        """See `lookalike.core.ports.JobTable`."""
        revision = self._table.put_revised(
            f"{job.name} of {job.catalogue}",
            _key(job.catalogue, _JOB + job.name),
            encode_record(replace(job, revision=None)),
            job.revision,
        )
        return replace(job, revision=revision)

    def all(self, catalogue: str) -> list[Job]:
        """See `lookalike.core.ports.JobTable`."""
        items = self._table.beginning(("catalogue", catalogue), "entry", _JOB)
        return [_job(item) for item in items]


def _job(item: Item) -> Job:
    return replace(decode_record(item, Job), revision=item["revision"]["S"])


class DynamoClusterNames:
    """Names of clusters; implements `lookalike.core.ports.ClusterNames`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def all(self, catalogue: str) -> dict[str, str]:
        """See `lookalike.core.ports.ClusterNames`."""
        items = self._table.beginning(("catalogue", catalogue), "entry", _NAME)
        return {item["entry"]["S"].removeprefix(_NAME): item["name"]["S"] for item in items}

    def put(self, catalogue: str, cluster_id: str, name: str | None) -> None:
        """See `lookalike.core.ports.ClusterNames`."""
        key, what = _key(catalogue, _NAME + cluster_id), f"name of {cluster_id} of {catalogue}"
        if name is None:
            self._table.call("DeleteItem", what, Key=key)
        else:
            self._table.call("PutItem", what, Item=key | {"name": text(name)})
