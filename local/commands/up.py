"""``lookalike up``: the whole of Lookalike on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.commands.connection import DEFAULT_DATA_DIR
from local.commands.exits import Unreachable, WrongUse
from local.commands.terminal import plain
from lookalike.settings import PREFIX, Settings

if TYPE_CHECKING:
    from local.cloud import RunningCloud
    from local.commands.sample import SampleProcess
    from local.state import State

_PORT = click.IntRange(1, 65_535)
_NAMES_OF_RESOURCES = ("_BUCKET", "_TABLE", "_URL", "_DATA_DIR")


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="State folder: what is in the buckets, tables and queues; addresses, logs, the sample.",
)
@click.option("--api-port", type=_PORT, default=8000, show_default=True, help="Port of the API.")
@click.option(
    "--aws-port", type=_PORT, default=5000, show_default=True, help="Port of the AWS endpoint."
)
@click.option(
    "--dashboard-port", type=_PORT, default=5006, show_default=True, help="Port of the dashboard."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that embed photos side by side.  [default: one a core]",
)
@click.option("--require-api-key", is_flag=True, help="Answer only requests with an API key.")
@click.option("--dashboard/--no-dashboard", default=True, help="Serve the dashboard.")
@click.option("--sample/--no-sample", default=True, help="Put the sample catalogue in.")
@click.option(
    "--enforce-roles", is_flag=True, help="Let functions do only what their roles on AWS allow."
)
def up(
    data_dir: Path,
    api_port: int,
    aws_port: int,
    dashboard_port: int,
    workers: int | None,
    require_api_key: bool,
    dashboard: bool,
    sample: bool,
    enforce_roles: bool,
) -> None:
    """Start Lookalike on this machine.

    That is the bucket, the functions, the API and the dashboard, until Ctrl-C. What was put in
    stays in the state folder, and is there again at the next start. On the first start the sample
    is drawn, which takes a while; it can be searched as it grows.
    """
    from local import cloud
    from local.commands.model import model_folder
    from local.ports import PortInUse
    from local.state import AlreadyRunning
    from lookalike.modelbuild import ensure_model

    settings = Settings.from_env()
    needs_key = require_api_key or settings.require_api_key
    _step(f"Preparing the encoder {settings.encoder} ({settings.precision})")
    folder = model_folder().resolve()
    ensure_model(settings.encoder, settings.precision, folder)
    options = cloud.Options(
        data_dir=data_dir,
        api_port=api_port,
        aws_port=aws_port,
        dashboard_port=dashboard_port,
        workers=workers or os.cpu_count() or 1,
        dashboard=dashboard,
        enforce_roles=enforce_roles,
        environment={
            "LOOKALIKE_CACHE_DIR": str(data_dir.resolve() / "bases"),
            **chosen_settings(os.environ),
            "LOOKALIKE_MODEL_DIR": str(folder),
            "LOOKALIKE_REQUIRE_API_KEY": str(needs_key).lower(),
        },
    )
    try:
        running = cloud.up(options, _step)
    except (AlreadyRunning, PortInUse) as error:
        raise WrongUse(str(error)) from error
    except cloud.StartError as error:
        raise Unreachable(str(error)) from error
    try:
        _renew_key(data_dir, needs_key)
        _show(running.state, data_dir, sample)
        _wait(running, data_dir, sample)
    finally:
        click.echo("\nStopping …", err=True)
        running.stop()
    click.echo("Stopped.", err=True)


def chosen_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's settings, without the names, which the template decides."""
    known = {PREFIX + item.name.upper() for item in fields(Settings)}
    return {
        name: value
        for name, value in environ.items()
        if name in known and not name.endswith(_NAMES_OF_RESOURCES)
    }


def _renew_key(data_dir: Path, needed: bool) -> None:
    """Give this machine's dashboard and commands a key of their own, and end the one before."""
    from local.api_key import read_local_key, renew_local_key
    from local.commands.connection import connect
    from lookalike.services.access import ApiKeys

    if needed or read_local_key(data_dir):
        keys = ApiKeys(connect(data_dir).stores().api_keys, time.time)
        renew_local_key(data_dir, keys, wanted=needed)


def _step(sentence: str) -> None:
    click.echo(f"{plain(sentence)} …", err=True)


def _wait(running: RunningCloud, data_dir: Path, sample: bool) -> None:
    """Return at Ctrl-C; meanwhile the sample catalogue goes in."""
    from local.commands.sample import SampleProcess

    if not sample:
        running.wait()
        return
    process = SampleProcess(data_dir)
    reader = threading.Thread(target=_follow, args=(process, data_dir), daemon=True, name="sample")
    reader.start()
    try:
        running.wait()
    finally:
        process.stop()
        reader.join()


def _follow(process: SampleProcess, data_dir: Path) -> None:
    """Say how the sample comes along: at each quarter, and when it is searchable."""
    from local.commands.sample import CATALOGUE, EXAMPLE_QUERY, sample_folder

    said = 0
    try:
        for progress in process.progress():
            quarter = 4 * progress.photos // max(progress.total, 1)
            if progress.searchable:
                photo = sample_folder(data_dir) / "queries" / EXAMPLE_QUERY
                click.echo(f"Sample catalogue: all {progress.total} photos are searchable; try:\n")
                click.echo(
                    f"  lookalike search {photo} --catalogue {CATALOGUE}{_option(data_dir)}\n"
                )
            elif said < quarter < 4:
                said = quarter
                click.echo(f"Sample catalogue: {progress.photos} of {progress.total} photos …")
    except RuntimeError as error:
        click.echo(f"The sample catalogue could not be put in: {plain(error)}", err=True)


def _option(data_dir: Path) -> str:
    return "" if data_dir == DEFAULT_DATA_DIR else f" --data-dir {data_dir}"


def _show(state: State, data_dir: Path, sample: bool) -> None:
    from local.api_key import FILE_NAME, read_local_key
    from local.commands.sample import CATALOGUE, EXAMPLE_PRODUCT

    rows = [
        ("API", state.api_url),
        ("API reference", f"{state.api_url}/docs"),
        ("AWS endpoint", state.aws_url),
        ("Bucket", f"s3://{Settings().images_bucket}"),
    ]
    if state.dashboard_url:
        rows.append(("Dashboard", state.dashboard_url))
    if read_local_key(data_dir):
        rows.append(("API key", str(data_dir / FILE_NAME)))
    rows.append(("Logs", str(data_dir / "logs")))
    click.echo("\nLookalike is running.\n")
    for name, value in rows:
        click.echo(f"  {name:<15}{value}")
    option = _option(data_dir)
    hints = [f"lookalike upload PHOTOS_FOLDER{option}", f"lookalike search PHOTO.jpg{option}"]
    if sample:
        hints.append(f"lookalike search {EXAMPLE_PRODUCT} --catalogue {CATALOGUE}{option}")
    click.echo("\nIn another terminal:\n")
    for hint in hints:
        click.echo(f"  {hint}")
    click.echo("\nCtrl-C stops it.\n")
