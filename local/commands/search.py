"""``lookalike search``: what looks like this image, or like this product."""

from __future__ import annotations

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
    if len(numbers) != 4:
        raise click.BadParameter(f"“{value}” is not four numbers such as 0.2,0.1,0.5,0.8.")
    return numbers


@click.command(no_args_is_help=True)
@click.argument("what", metavar="IMAGE|PRODUCT_ID", type=click.Path())
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
@click.option("--min-score", type=float, help="Leave out results with a lower cosine.")
@click.option("--exact", is_flag=True, help="Score every row: slow on large catalogues.")
@data_dir_option
@json_option
def search(
    what: str,
    k: int,
    catalogue: str,
    filter_: str | None,
    crop: tuple[float, ...] | None,
    min_score: float | None,
    exact: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Find products that look like an image or like a stored product.

    An argument that is a file is an image, any other is a product's id.
    """
    from local.commands.api import Api
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
    given = {
        "k": k,
        "catalogue": catalogue,
        "filter": filter_,
        "min_score": min_score,
        "exact": "true" if exact else None,
    }
    query = {name: value for name, value in given.items() if value is not None}
    with Api(connect(data_dir).api()) as api:
        if is_image:
            answer = api.search_image(image, query, crop)
        else:
            answer = api.search_product(what, query)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    if not answer["results"]:
        raise click.exceptions.Exit(FAILED)


def _show(answer: dict[str, Any]) -> None:
    if not answer["results"]:
        click.echo("Nothing found.")
        return
    print_table(
        (">Rank", ">Score", "Product", "View", "Title", "Category"),
        (
            (
                item["rank"],
                f"{item['score']:.3f}",
                item["product_id"],
                item["view"],
                item["title"],
                item["category"],
            )
            for item in answer["results"]
        ),
    )
    took = answer["took_ms"]
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in took.items() if name != "total")
    click.echo(plain(f"{took['total']:.0f} ms ({stages}) · query {answer['query_id']}"))
