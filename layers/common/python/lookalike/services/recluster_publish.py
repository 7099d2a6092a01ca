"""Writes what a recluster run found as the file that may become the catalogue's clusters."""

from __future__ import annotations

from lookalike.core.cluster_names import named
from lookalike.core.clusters import Cluster, Clustering, encode_clusters, without_empty
from lookalike.core.jobs import Artifact, Job, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.ports import Stores
from lookalike.services.recluster_state import Assigning

_TYPE = "application/octet-stream"


def written(
    stores: Stores, found: Assigning, members: list[list[str]], job: Job, setting: int
) -> Artifact:
    """Write the clusters, at least one of which has members; what they are is not current yet.

    The same run writes the same file, so that one that died behind this may do it again.
    """
    clustering, members_left = without_empty(_clustering(found, members, job), members)
    data, head_bytes = encode_clusters(clustering, members_left)
    key = artifact_key("clusters", job.catalogue, content_digest(data))
    stores.index.put(key, data, _TYPE)
    products = sum(map(len, members_left))
    source = found.source
    return Artifact(
        catalogue=job.catalogue,
        kind="clusters",
        key=key,
        encoder=source.encoder,
        generation=source.generation,
        head=source.head,
        made_at=job.begun_at,
        through_at=source.through_at,
        serial=found.serial,
        products=products,
        summary={
            "clusters": len(clustering.clusters),
            "cohesion": round(sum(found.similarity) / max(sum(found.counted), 1), 4),
            "changed": round(found.plan.changed, 4),
            "kept": found.plan.kept,
            "next_number": found.plan.next_number,
            "setting": setting,
            "unreadable_files": len(found.unreadable),
            "head_bytes": head_bytes,
        },
    )


def _clustering(found: Assigning, members: list[list[str]], job: Job) -> Clustering:
    names = named(found.words)
    clusters = []
    for number, ids in enumerate(members):
        here = set(ids)
        faces = tuple(id_ for _, id_ in found.best[number] if id_ in here)
        clusters.append(
            Cluster(
                cluster_id=found.plan.ids[number],
                name=names[number][0],
                words=names[number][1],
                size=len(ids),
                cohesion=round(found.similarity[number] / max(found.counted[number], 1), 4),
                born_at=found.plan.born_at[number],
                representatives=faces,
            )
        )
    return Clustering(
        serial=found.serial,
        encoder=found.source.encoder,
        generation=found.source.generation,
        made_at=job.begun_at,
        clusters=tuple(clusters),
        means=found.plan.means,
        next_number=found.plan.next_number,
        chosen_products=found.plan.chosen_products,
    )
