"""``lookalike status``: where Lookalike is, what it holds and what it has still to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from local.commands.connection import Connection, connect, data_dir_option, json_option
from local.commands.exits import UNREACHABLE
from local.commands.terminal import local_time, plain, print_json, print_table, size
from local.commands.work_summary import jobs_of, show_work


@click.command()
@data_dir_option
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """Show addresses, catalogues, scheduled work, queue and functions."""
    found = read_status(connect(data_dir))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["unreachable"]:
        raise click.exceptions.Exit(UNREACHABLE)


def read_status(connection: Connection) -> dict[str, Any]:
    """What can be known; ``unreachable`` says what could not be asked, and why."""
    found: dict[str, Any] = {
        "addresses": _addresses(connection),
        "catalogues": None,
        "work": None,
        "queue": None,
        "functions": None,
        "unreachable": {},
    }
    questions = {"catalogues": _catalogues, "work": _work, "queue": _queue}
    if connection.state is not None:
        questions["functions"] = _functions
    for name, ask in questions.items():
        try:
            found[name] = ask(connection)
        except (click.ClickException, _expected()) as error:
            message = error.message if isinstance(error, click.ClickException) else str(error)
            found["unreachable"][name] = message
    return found


def _expected() -> type[Exception]:
    from lookalike.core.errors import LookalikeError

    return LookalikeError


def _addresses(connection: Connection) -> dict[str, str]:
    dashboard = connection.state.dashboard_url if connection.state else None
    known = {
        "api": connection.api_url,
        "aws_endpoint": connection.aws_url,
        "dashboard": dashboard or "",
        "bucket": f"s3://{connection.settings().images_bucket}",
    }
    return {name: value for name, value in known.items() if value}


def _catalogues(connection: Connection) -> list[dict[str, Any]]:
    with connection.open_api() as api:
        catalogues: list[dict[str, Any]] = api.get("/stats")["catalogues"]
        return catalogues


def _work(connection: Connection) -> list[dict[str, Any]]:
    """Scheduled work by catalogue: how far it is, and what it has made."""
    stores = connection.stores()
    return [
        job
        for name in sorted(lineage.catalogue for lineage in stores.lineages.all())
        for job in jobs_of(stores, name)
    ]


def _queue(connection: Connection) -> dict[str, int] | None:
    """Depth of the ingest queue and of its dead-letter queue; None when the queue is not known."""
    from lookalike.adapters.aws import aws_errors, client

    url = connection.settings().ingest_queue_url
    if not url:
        return None
    sqs = client("sqs")

    def attributes(queue: str) -> dict[str, str]:
        answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
        found: dict[str, str] = answer["Attributes"]
        return found

    with aws_errors("reading the ingest queue"):
        queue = attributes(url)
        policy = json.loads(queue.get("RedrivePolicy", "{}"))
        dead = {"ApproximateNumberOfMessages": "0"}
        if arn := policy.get("deadLetterTargetArn"):
            dead = attributes(sqs.get_queue_url(QueueName=arn.rsplit(":", 1)[-1])["QueueUrl"])
    return {
        "visible": int(queue["ApproximateNumberOfMessages"]),
        "in_flight": int(queue["ApproximateNumberOfMessagesNotVisible"]),
        "dead_letters": int(dead["ApproximateNumberOfMessages"]),
    }


def _functions(connection: Connection) -> dict[str, Any]:
    from local import control
    from local.commands.exits import Unreachable

    try:
        functions: dict[str, Any] = control.status(connection.local())["functions"]
    except control.ControlError as error:
        raise Unreachable(str(error)) from error
    return functions


def build_line(catalogue: str, build: dict[str, Any]) -> str:
    """What the generation beside a catalogue's current one is up to, in one line."""
    from local.commands.reindex import follows, phase_of

    line = f"{plain(catalogue)}: {plain(build['generation'])} is {phase_of(build)}"
    if build["phase"] in {"filling", "compacting"} and build["total"]:
        line += f", {build['done']:,} of {build['total']:,} photos"
        if build["skipped"]:
            line += f" ({build['skipped']:,} changed meanwhile)"
    return f"{line}, since {local_time(build['changed_at'])}{follows(build)}."


def _show(found: dict[str, Any]) -> None:
    for name, value in found["addresses"].items():
        click.echo(f"{name.replace('_', ' '):<14}{plain(value)}")
    if found["catalogues"]:
        print_table(
            (
                "Catalogue",
                ">Products",
                ">Views",
                ">Failures",
                ">Shards",
                ">Bases",
                ">Runs",
                ">Segments",
                ">Rows",
                ">Size",
                "Encoder",
            ),
            (
                (
                    item["catalogue"],
                    f"{item['products']:,}",
                    f"{item['views']:,}",
                    f"{item['failures']:,}",
                    f"{item['shards']:,}",
                    f"{item['bases']:,}",
                    f"{item['runs']:,}",
                    f"{item['segments']:,}",
                    f"{item['rows']:,}",
                    size(item["size_bytes"]),
                    item["encoder"],
                )
                for item in found["catalogues"]
            ),
        )
        for item in found["catalogues"]:
            if item["build"]:
                click.echo(build_line(item["catalogue"], item["build"]))
    elif found["catalogues"] is not None:
        click.echo("\nNothing has been uploaded yet.\n")
    if found["work"]:
        show_work(found["work"])
    if queue := found["queue"]:
        click.echo(
            f"Queue: {queue['visible']:,} waiting, {queue['in_flight']:,} in work, "
            f"{queue['dead_letters']:,} dead letters."
        )
    if found["functions"]:
        print_table(
            ("Function", ">Processes", ">Busy", ">Invocations", ">Errors"),
            (
                (
                    name,
                    f"{len(item['pids'])} of {item['max_workers']}",
                    item["busy"],
                    f"{item['invocations']:,}",
                    f"{item['errors']:,}",
                )
                for name, item in found["functions"].items()
            ),
        )
    for name, reason in found["unreachable"].items():
        click.echo(f"No {name}: {plain(reason)}", err=True)
