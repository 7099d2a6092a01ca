"""``lookalike up``: the whole of Lookalike on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.commands.connection import DEFAULT_DATA_DIR
from local.commands.exits import Unreachable, WrongUse
from local.commands.terminal import plain
from lookalike.settings import PREFIX

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
    help="State folder: addresses, logs, the drawn sample.",
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
@click.option("--dashboard/--no-dashboard", default=True, help="Serve the dashboard.")
@click.option("--sample/--no-sample", default=True, help="Put the sample catalogue in.")
def up(
    data_dir: Path,
    api_port: int,
    aws_port: int,
    dashboard_port: int,
    workers: int | None,
    dashboard: bool,
    sample: bool,
) -> None:
    """Start Lookalike on this machine.

    That is the bucket, the functions, the API and the dashboard, until Ctrl-C. For now the bucket
    and the index live as long as the command does: a new start begins empty, and puts the sample
    catalogue in again. On the first start the sample is drawn, which takes a while; it can be
    searched as it grows.
    """
    from local import cloud
    from local.commands.model import model_folder
    from local.ports import PortInUse
    from local.state import AlreadyRunning
    from lookalike.modelbuild import ensure_model
    from lookalike.settings import Settings

    settings = Settings.from_env()
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
        environment={
            "LOOKALIKE_CACHE_DIR": str(data_dir.resolve() / "bases"),
            **chosen_settings(os.environ),
            "LOOKALIKE_MODEL_DIR": str(folder),
        },
    )
    try:
        running = cloud.up(options, _step)
    except (AlreadyRunning, PortInUse) as error:
        raise WrongUse(str(error)) from error
    except cloud.StartError as error:
        raise Unreachable(str(error)) from error
    try:
        _show(running.state, data_dir, sample)
        _wait(running, data_dir, sample)
    finally:
        click.echo("\nStopping …", err=True)
        running.stop()
    click.echo("Stopped.", err=True)


def chosen_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's ``LOOKALIKE_*`` settings, without the names, which the template decides."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not name.endswith(_NAMES_OF_RESOURCES)
    }


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
    from local.commands.sample import CATALOGUE, EXAMPLE_PRODUCT
    from lookalike.settings import Settings

    rows = [
        ("API", state.api_url),
        ("API reference", f"{state.api_url}/docs"),
        ("AWS endpoint", state.aws_url),
        ("Bucket", f"s3://{Settings().images_bucket}"),
    ]
    if state.dashboard_url:
        rows.append(("Dashboard", state.dashboard_url))
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
