"""Commands that run one function of the local cloud now and print its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import FAILED, Failed, Unreachable, WrongUse
from local.commands.terminal import console, plain, print_json

_SWEEP_STEP_S = 5.0


@click.command()
@data_dir_option
@json_option
def sweep(data_dir: Path | None, as_json: bool) -> None:
    """Index what was missed, mend the index, delete leftovers.

    Bucket, records and index are compared, and what differs is queued, no faster than it is worked
    off. Thumbnails and feature maps of photos that are gone are deleted, and searches that have
    expired. Lookalike does this by itself every now and then. Ctrl-C stops the command; what is
    left is done by the next sweep that Lookalike does.
    """
    total: dict[str, Any] = {}
    with _progress(visible=not as_json) as show:
        detail: dict[str, Any] = {"mode": "anew", "within_s": _SWEEP_STEP_S}
        while not total.get("finished"):
            report = run_function(data_dir, "Sweep", detail, notes_wait=not total)
            detail = {"mode": "go-on", "within_s": _SWEEP_STEP_S}
            if report["phase"] == "index":
                # A catalogue's index is read in one go, which takes what it takes.
                del detail["within_s"]
            total = _added(total, report)
            show(_sweeping(total))
    if as_json:
        print_json(total)
        return
    click.echo(
        f"{total['objects']:,} objects and {total['products']:,} products compared; "
        f"{total['queued']:,} differ and were queued"
        + (f", {total['lost']:,} of them missing in the index." if total["lost"] else ".")
    )
    if total["given_up"]:
        click.echo(
            f"{total['given_up']:,} catalogues are too large for their index to be compared.",
            err=True,
        )
    click.echo(
        f"{total['deleted_thumbnails']:,} thumbnails and {total['deleted_maps']:,} feature "
        f"maps that nothing needs deleted, {total['deleted_queries']:,} searches and "
        f"{total['deleted_explanations']:,} explanations that have expired."
    )


def _added(total: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Sum of what was counted, and otherwise what was said last."""
    return {
        name: total.get(name, 0) + value if type(value) is int else value
        for name, value in report.items()
    }


def _sweeping(total: dict[str, Any]) -> str:
    doing = "comparing" if total["phase"] in {"objects", "products", "index"} else "tidying"
    return (
        f"{doing} {total['phase']}: {total['objects']:,} objects and {total['products']:,} "
        f"products seen, {total['queued']:,} queued"
    )


@contextmanager
def _progress(*, visible: bool) -> Iterator[Callable[[str], None]]:
    """A line that says how far it is, on a terminal."""
    shown = console(stderr=True)
    if not (visible and shown.is_terminal):
        yield lambda text: None
        return
    with shown.status("comparing") as status:
        yield status.update


@click.command()
@click.option("--catalogue", help="Only this catalogue, and its orphaned files.  [default: all]")
@data_dir_option
@json_option
def compact(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Merge what was appended to the index, and drop what is dead.

    Lookalike does this by itself every minute. Files that were replaced are deleted a while later,
    when nobody reads them any more.
    """
    detail = {"catalogue": catalogue} if catalogue is not None else {}
    report = run_function(data_dir, "Compact", detail)
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"{report['merged_segments']:,} segments with {report['merged_rows']:,} rows merged, "
            f"{report['bases']:,} bases built, {report['dropped_rows']:,} dead rows dropped, "
            f"{report['deleted_objects']:,} files deleted."
        )
        for key in report["unreadable"]:
            remedy = "`lookalike reindex` encodes its photos again"
            if key.startswith("bases/"):
                remedy = "it is built anew out of its raw rows"
            click.echo(f"{plain(key)} cannot be read; {remedy}.", err=True)
        for name, reason in report["postponed"].items():
            click.echo(f"{plain(name)} is left to the next run: {plain(reason)}", err=True)
        if not report["finished"] and not report["postponed"]:
            click.echo("Time ran out before the end; the next run goes on.", err=True)
    if report["unreadable"] or not report["finished"]:
        raise click.exceptions.Exit(FAILED)


def run_function(
    data_dir: Path | None,
    name: str,
    detail: dict[str, Any] | None = None,
    *,
    notes_wait: bool = True,
) -> Any:
    """Invoke a function of the local cloud by its logical id; gives what it returns.

    A function that is running already is waited for, as long as `local.control` waits for answers.

    Parameters
    ----------
    data_dir
        State folder of the local cloud.
    name
        Logical id of the function.
    detail
        What is asked of it beside what it does on schedule.
    notes_wait
        Whether to say so when a run that is under way is waited for.

    Raises
    ------
    Unreachable
        There is no local cloud, or the function could not reach what it needs.
    WrongUse
        The function refused what was asked.
    Failed
        The function raised another error.
    """
    from local.control import ControlError, invoke, status
    from local.scheduler import scheduled_event

    state = connect(data_dir).local()
    if notes_wait:
        with suppress(ControlError):  # then the invocation says so
            running = status(state)["functions"].get(name)
            if running and running["busy"] >= running["max_workers"]:
                click.echo(f"{name} is running already; waiting for it to end.", err=True)
    try:
        outcome = invoke(state, name, scheduled_event("by-hand", datetime.now(UTC), detail))
    except ControlError as error:
        raise Unreachable(str(error)) from error
    payload = outcome["payload"]
    if outcome["error"] or (isinstance(payload, dict) and "errorType" in payload):
        raise _error(name, payload)
    return payload


def _error(name: str, said: Any) -> click.ClickException:
    from lookalike.core import errors

    document = said if isinstance(said, dict) else {}
    message = plain(document.get("errorMessage", said))
    kind = getattr(errors, str(document.get("errorType")), None)
    if isinstance(kind, type) and issubclass(kind, errors.Reject):
        return WrongUse(message)
    if isinstance(kind, type) and issubclass(kind, errors.Retry):
        return Unreachable(message)
    return Failed(f"{name} failed: {message}")
