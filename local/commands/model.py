"""``lookalike model``: the encoders there are, and building their ONNX graphs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from local.commands.connection import json_option
from local.commands.terminal import print_json, print_table, size


@click.group()
def model() -> None:
    """List the encoders; build one's ONNX graph."""


def model_folder() -> Path:
    """Where graphs are: the folder that the settings name, else the user's cache folder."""
    from lookalike.models import default_model_dir
    from lookalike.settings import Settings

    named = Settings.from_env().model_dir
    return Path(named) if named else default_model_dir()


@model.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the encoders and which of them are built."""
    from lookalike.core.encoders import ENCODERS, PRECISIONS
    from lookalike.core.errors import Unavailable
    from lookalike.models import read_manifest
    from lookalike.settings import Settings

    folder, chosen = model_folder(), Settings.from_env()
    built: dict[str, dict[str, int]] = {}
    for record in ENCODERS.values():
        built[record.name] = {}
        for precision in PRECISIONS:
            with suppress(Unavailable, OSError):
                file = folder / read_manifest(record, precision, folder).file
                built[record.name][precision] = file.stat().st_size
    if as_json:
        rows = [
            {
                "encoder": record.name,
                "default": record.name == chosen.encoder,
                "input_size": record.input_size,
                "dim": record.dim,
                "licence": record.licence,
                "source": record.source,
                "built_bytes": built[record.name],
            }
            for record in ENCODERS.values()
        ]
        print_json({"folder": str(folder), "precision": chosen.precision, "encoders": rows})
        return
    print_table(
        ("Encoder", ">Input", ">Dim", "Licence", "Built", "Weights"),
        (
            (
                record.name,
                record.input_size,
                record.dim,
                record.licence,
                ", ".join(f"{name} {size(count)}" for name, count in built[record.name].items()),
                record.source,
            )
            for record in ENCODERS.values()
        ),
    )
    click.echo(f"New catalogues use {chosen.encoder} ({chosen.precision}). Graphs are in {folder}.")


@model.command("build")
@click.argument("name")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint to use instead of the published one.",
)
@click.option(
    "--precision",
    type=click.Choice(("fp32", "int8")),
    default="fp32",
    show_default=True,
    help="int8 takes half the time and loses a little.",
)
@click.option("--force", is_flag=True, help="Build it even if it is there.")
def build(name: str, weights: Path | None, precision: str, force: bool) -> None:
    """Build the ONNX graph of the encoder NAME."""
    from lookalike.modelbuild import build_model

    path = build_model(name, precision, model_folder(), weights=weights, force=force)
    click.echo(f"{path} ({size(path.stat().st_size)})")
