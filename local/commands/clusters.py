"""``lookalike clusters``: the groups that products fall into, and what you call them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import WrongUse
from local.commands.failures import ListByDefault
from local.commands.terminal import local_time, plain, print_json, print_table

if TYPE_CHECKING:
    from lookalike.services.clusters import ClusterInfo, Clusters

catalogue_option = click.option("--catalogue", help="Which catalogue.  [default: the only one]")


@click.group(cls=ListByDefault)
def clusters() -> None:
    """List a catalogue's clusters, and name them.

    Clusters are made by `lookalike recluster` and by themselves; a name that you give stays with
    its cluster. These commands ask tables and bucket, not the API.
    """


@clusters.command("list")
@catalogue_option
@data_dir_option
@json_option
def list_clusters(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List the clusters, the largest first."""
    service, name = _open(data_dir, catalogue)
    found = service.list(name)
    if as_json:
        print_json(_fields(found))
        return
    if not found.serial:
        click.echo(f"{plain(name)} has no clusters yet; `lookalike recluster` makes them.")
        return
    print_table(
        ("Cluster", "Name", ">Products", ">Cohesion", "Since", "Words"),
        (
            (
                info.cluster_id,
                info.name,
                f"{info.size:,}",
                f"{info.cohesion:.2f}",
                local_time(info.born_at),
                ", ".join(info.words),
            )
            for info in found.clusters
        ),
    )


@clusters.command("rename")
@click.argument("cluster")
@click.argument("name", required=False)
@catalogue_option
@data_dir_option
@json_option
def rename_cluster(
    cluster: str, name: str | None, catalogue: str | None, data_dir: Path | None, as_json: bool
) -> None:
    """Name a cluster; without NAME, go back to the name that was found."""
    service, of = _open(data_dir, catalogue)
    info: ClusterInfo = service.rename(of, cluster, name)
    if as_json:
        print_json(_fields(info))
    else:
        click.echo(f"{plain(info.cluster_id)} of {plain(of)} is called “{plain(info.name)}”.")


def _open(data_dir: Path | None, catalogue: str | None) -> tuple[Clusters, str]:
    """The service, and the catalogue that is meant.

    Raises
    ------
    WrongUse
        None was named, and there is not just one.
    """
    from lookalike.services.clusters import Clusters

    stores = connect(data_dir).stores()
    if catalogue is None:
        names = sorted(lineage.catalogue for lineage in stores.lineages.all())
        if len(names) != 1:
            said = f"there are {', '.join(map(plain, names))}" if names else "there is none yet"
            raise WrongUse(f"Name a catalogue by --catalogue; {said}.")
        (catalogue,) = names
    pool = ThreadPoolExecutor(1)
    return Clusters(stores, 0.0, time.time, pool), catalogue


def _fields(answer: object) -> Any:
    import msgspec

    return msgspec.to_builtins(answer)
