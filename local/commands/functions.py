"""Commands that run one function of the local cloud now and print its report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import FAILED, Failed, Unreachable
from local.commands.terminal import plain, print_json


@click.command()
@data_dir_option
@json_option
def sweep(data_dir: Path | None, as_json: bool) -> None:
    """Index what differs between bucket and records.

    Lookalike does this by itself every now and then, to find what no event told it of.
    """
    report = run_function(data_dir, "Sweep")
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"{report['objects']:,} objects and {report['products']:,} products compared; "
            f"{report['queued']:,} differ and were queued."
        )
        if not report["finished"]:
            click.echo("Time ran out before the end; the next sweep starts over.")
    if not report["finished"]:
        raise click.exceptions.Exit(FAILED)


def run_function(data_dir: Path | None, name: str) -> Any:
    """Invoke a function of the local cloud by its logical id; gives what it returns.

    Raises
    ------
    Unreachable
        There is no local cloud.
    Failed
        The function raised an error.
    """
    from local.control import ControlError, invoke
    from local.scheduler import scheduled_event

    state = connect(data_dir).local()
    try:
        outcome = invoke(state, name, scheduled_event("by-hand", datetime.now(UTC)))
    except ControlError as error:
        raise Unreachable(str(error)) from error
    if outcome["error"]:
        said = outcome["payload"]
        message = said.get("errorMessage", said) if isinstance(said, dict) else said
        raise Failed(f"{name} failed: {plain(message)}")
    return outcome["payload"]
