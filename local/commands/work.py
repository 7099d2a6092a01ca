"""``lookalike recluster``, ``project``, ``health`` and ``rollup``: scheduled work, done now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import FAILED
from local.commands.terminal import plain, print_json
from local.commands.watching import Show, progress, run_and_watch
from local.commands.work_summary import in_words

if TYPE_CHECKING:
    from lookalike.core.jobs import JobName
    from lookalike.core.ports import Stores

_PAUSE_S = 2.0
_TRIES = 5

Report = dict[str, Any]


def _options(command: Callable[..., None]) -> Callable[..., None]:
    catalogue = click.option("--catalogue", help="Only this catalogue.  [default: all]")
    return catalogue(data_dir_option(json_option(command)))


@click.command()
@_options
def recluster(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Group products into clusters anew, and calibrate scores.

    A cluster keeps its id, and the name that you gave it, as long as most of its products stay
    together. Lookalike does this by itself when a tenth of a catalogue has changed, and once a day;
    a new product joins the nearest cluster within a minute.
    """
    _work(data_dir, "Recluster", ("recluster", "calibrate"), catalogue, as_json)


@click.command()
@_options
def project(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Lay the map of a catalogue out anew.

    It begins with the map there is, so that products stay about where they were. Lookalike does
    this by itself when a tenth of a catalogue has changed, and once a day; a new product is placed
    among its neighbours within a minute.
    """
    _work(data_dir, "Project", ("project",), catalogue, as_json)


@click.command()
@_options
def health(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Look for what is wrong with a catalogue.

    That is: photos that are there twice, products that look like those of another category or like
    none of their own, bad photos, products that no search has shown, and thin categories.
    Lookalike does this by itself when a tenth of a catalogue has changed, and once a day.
    """
    _work(data_dir, "Health", ("health",), catalogue, as_json)


@click.command()
@_options
def rollup(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Add up the search log by hour, day and week.

    Hours to which searches or feedback were added are counted again. Searches that have expired
    are deleted. Lookalike does this by itself every minute.
    """
    _work(data_dir, "Rollup", ("rollup",), catalogue, as_json)


def _work(
    data_dir: Path | None,
    function: str,
    jobs: tuple[JobName, ...],
    catalogue: str | None,
    as_json: bool,
) -> None:
    connection = connect(data_dir)
    connection.local()
    stores = connection.stores()
    done: list[Report] = []
    postponed: dict[str, str] = {}
    with progress(visible=not as_json) as show:
        for name in _catalogues(stores, function, catalogue):
            for job in jobs:
                report = _until_finished(data_dir, stores, function, job, name, show)
                done += report["catalogues"]
                postponed |= report["postponed"]
    if as_json:
        print_json({"catalogues": done, "postponed": postponed})
    else:
        for item in done:
            click.echo(f"{plain(item['catalogue'])}: {in_words(item['job'], item['summary'])}.")
        if not done and not postponed:
            click.echo("Nothing has been uploaded yet.")
        for name, reason in postponed.items():
            click.echo(f"{plain(name)} is left to the next run: {plain(reason)}", err=True)
    if postponed:
        raise click.exceptions.Exit(FAILED)


def _catalogues(stores: Stores, function: str, catalogue: str | None) -> Sequence[str | None]:
    """One after the other; the search log is one for all, and added up at once."""
    if catalogue is not None or function == "Rollup":
        return [catalogue]
    return sorted(lineage.catalogue for lineage in stores.lineages.all())


def _until_finished(
    data_dir: Path | None,
    stores: Stores,
    function: str,
    job: JobName,
    catalogue: str | None,
    show: Show,
) -> Report:
    """Slice after slice, until there is no more to do or it cannot go on; gives the last report.

    What has begun anew goes on after that.
    """

    def look() -> None:
        doing = f"{plain(catalogue)} {job}".strip()
        found = stores.jobs.get(catalogue, job) if catalogue is not None else None
        if found is None or not found.phase:
            show(doing, 0, 0)
        else:
            show(f"{doing}: {plain(found.phase)}", found.done, found.total)

    detail: dict[str, Any] = {"job": job, "now": True}
    if catalogue is not None:
        detail["catalogue"] = catalogue
    tries = 0
    while True:
        report = run_and_watch(data_dir, function, detail, look)
        tries = tries + 1 if report["postponed"] else 0
        if report["finished"] or tries == _TRIES:
            return report
        if tries:
            time.sleep(_PAUSE_S)
        else:
            detail = {name: value for name, value in detail.items() if name != "now"}
