"""``lookalike search``: what looks like this image, or like this product."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import FAILED
from local.commands.terminal import plain, print_json, print_table


def read_box(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Read x,y,w,h."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f"“{value}” is not four numbers such as 0.2,0.1,0.5,0.8.")
    return numbers


def read_cells(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[list[int]] | None:
    """Read row,column;row,column."""
    if value is None:
        return None
    try:
        cells = [[int(number) for number in cell.split(",")] for cell in value.split(";")]
    except ValueError:
        cells = []
    if not cells or any(len(cell) != 2 for cell in cells):
        raise click.BadParameter(f"“{value}” is not rows and columns such as 3,3;3,4.")
    return cells


@click.command(no_args_is_help=True)
@click.argument("what", metavar="[IMAGE|PRODUCT_ID]", required=False, type=click.Path())
@click.option("-k", default=10, show_default=True, help="How many products.")
@click.option("--catalogue", default="default", show_default=True, help="Where to look.")
@click.option(
    "--filter",
    "filter_",
    metavar="CONDITIONS",
    help="Such as 'category=shoes,price<=50' or 'brand=acme AND NOT (price>50 OR sale=true)'.",
)
@click.option(
    "--crop",
    metavar="X,Y,W,H",
    callback=read_box,
    help="Search with a part of the image: pixels, or fractions when no number is over 1.",
)
@click.option(
    "--like-query", metavar="QUERY_ID", help="Search again with an earlier search, or a part of it."
)
@click.option(
    "--cells",
    metavar="ROW,COLUMN;…",
    callback=read_cells,
    help="Of the earlier search, in the grid that its explanations have for the query.",
)
@click.option(
    "--explain",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write why each result matches into this folder, as a picture and as JSON.",
)
@click.option("--min-score", type=float, help="Leave out results with a lower cosine.")
@click.option("--exact", is_flag=True, help="Score every row: slow on large catalogues.")
@data_dir_option
@json_option
def search(
    what: str | None,
    k: int,
    catalogue: str,
    filter_: str | None,
    crop: tuple[float, ...] | None,
    like_query: str | None,
    cells: list[list[int]] | None,
    explain: Path | None,
    min_score: float | None,
    exact: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Find products that look like a photo or a product.

    An argument that is a file is an image, any other is a product's id.
    """
    from local.commands.explain import explain_results

    what = what or None
    if (what is None) == (like_query is None):
        raise click.UsageError("Give one of an image, a product's id and --like-query.")
    if cells is not None and like_query is None:
        raise click.UsageError("--cells are of an earlier search: --like-query says of which.")
    is_image = what is not None and _is_image(what, crop)
    given = {
        "k": k,
        "catalogue": catalogue,
        "filter": filter_,
        "min_score": min_score,
        "exact": "true" if exact else None,
    }
    query = {name: value for name, value in given.items() if value is not None}
    with connect(data_dir).open_api() as api:
        if what is None:
            part = {"query_id": like_query, "cells": cells, "crop": crop}
            answer = api.search({n: value for n, value in part.items() if value is not None}, query)
        elif is_image:
            answer = api.search_image(Path(what), query, crop)
        else:
            answer = api.search({"product_id": what}, query)
        failures = [] if explain is None else explain_results(api, answer, explain)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
        if explain is not None and answer["results"]:
            click.echo(f"Explanations are in {plain(explain)}.")
    for failure in failures:
        click.echo(failure, err=True)
    if failures or not answer["results"]:
        raise click.exceptions.Exit(FAILED)


def _is_image(what: str, crop: tuple[float, ...] | None) -> bool:
    """Whether the argument is a file; raises `click.UsageError` when it makes no sense."""
    from lookalike.core.attributes import is_text

    image = Path(what)
    try:
        is_image, is_folder = image.is_file(), image.is_dir()
    except OSError:  # such as an id that is too long for a file's name
        is_image = is_folder = False
    if not is_image:
        if crop is not None:
            raise click.UsageError(f"--crop needs an image, and there is no file {plain(what)}.")
        if is_folder:
            raise click.UsageError(f"{plain(what)} is a folder; search takes one image.")
        if not is_text(what):
            raise click.UsageError(
                f"There is no file {plain(what)}, and a product's id is text in UTF-8."
            )
    return is_image


VERDICTS = {
    "low_confidence": "None of these is likely to be a good match.",
    "no_good_match": "This photo is unlike anything in the catalogue; no good match.",
}
"""What is said of a search that the calibrated scores do not speak for."""


def _show(answer: dict[str, Any]) -> None:
    if not answer["results"]:
        click.echo("Nothing found.")
        return
    from local.commands.explain import COLUMNS, cells_of, percent

    if (verdict := VERDICTS.get(answer.get("verdict") or "")) is not None:
        click.echo(verdict)
    explained = any("explanation" in item for item in answer["results"])
    print_table(
        (
            ">Rank",
            ">Score",
            ">Match",
            "Product",
            "View",
            "Title",
            "Category",
            *(COLUMNS if explained else ()),
        ),
        (
            (
                item["rank"],
                f"{item['score']:.3f}",
                percent(item.get("match")),
                item["product_id"],
                item["view"],
                item["title"],
                item["category"],
                *(cells_of(item["explanation"]) if explained else ()),
            )
            for item in answer["results"]
        ),
    )
    took = answer["took_ms"]
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in took.items() if name != "total")
    click.echo(plain(f"{took['total']:.0f} ms ({stages}) · query {answer['query_id']}"))
