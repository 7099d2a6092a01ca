"""``lookalike failures``: what could not be indexed and why, and another try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import Failed, Unreachable
from local.commands.terminal import local_time, print_json, print_table

if TYPE_CHECKING:
    from lookalike.core.ports import Stores
    from lookalike.core.types import Failure

_PAGE = 100

catalogue_option = click.option("--catalogue", help="Only this catalogue.  [default: all]")


class ListByDefault(click.Group):
    """A group that is its command ``list`` when no other is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` in front of options, or of nothing."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListByDefault)
def failures() -> None:
    """List what could not be indexed and why; retry."""


@failures.command("list")
@catalogue_option
@data_dir_option
@json_option
def list_failures(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List what could not be indexed."""
    found = read_failures(connect(data_dir).stores(), catalogue)
    if as_json:
        print_json([_fields(item) for item in found])
        return
    rows = [(item.key, item.reason, item.detail, item.tries, local_time(item.at)) for item in found]
    if rows:
        print_table(("Key", "Reason", "What is wrong", ">Tries", "When"), rows)
    else:
        click.echo("No failures.")


@failures.command("retry")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@catalogue_option
@data_dir_option
@json_option
def retry_failures(
    keys: tuple[str, ...], catalogue: str | None, data_dir: Path | None, as_json: bool
) -> None:
    """Try failed files again: those named by their keys, or all."""
    connection = connect(data_dir)
    if not connection.settings().ingest_queue_url:
        raise Unreachable("The ingest queue is not known; set LOOKALIKE_INGEST_QUEUE_URL.")
    stores = connection.stores()
    if keys:
        known = stores.failures.get_many(keys)
        if unknown := [key for key in keys if key not in known]:
            raise Failed(f"Nothing failed under {', '.join(unknown)}; see `lookalike failures`.")
        chosen = list(dict.fromkeys(keys))
    else:
        chosen = [item.key for item in read_failures(stores, catalogue)]
    if chosen:
        stores.queue.send_keys(chosen)
    if as_json:
        print_json({"queued": chosen})
    else:
        click.echo(f"{len(chosen)} queued to be tried again." if chosen else "No failures.")


def read_failures(stores: Stores, catalogue: str | None) -> Iterator[Failure]:
    """The failures of one catalogue or of all, in order of catalogue and key, a page at a time."""
    names = sorted(stores.counts.all()) if catalogue is None else [catalogue]
    for name in names:
        after: str | None = ""
        while after is not None:
            page, after = stores.failures.page(name, _PAGE, after)
            yield from page


def _fields(failure: Failure) -> dict[str, object]:
    return {
        "catalogue": failure.catalogue,
        "key": failure.key,
        "reason": failure.reason,
        "detail": failure.detail,
        "tries": failure.tries,
        "at": failure.at,
    }
