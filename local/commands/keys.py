"""``lookalike keys``: who may use the API, and for what."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.failures import ListByDefault
from local.commands.terminal import plain, print_json, print_table
from lookalike.core.access import MAX_RATE

if TYPE_CHECKING:
    from lookalike.core.access import ApiKey
    from lookalike.services.access import ApiKeys

_DAY_S = 86_400


@click.group(cls=ListByDefault)
def keys() -> None:
    """Make, list and revoke API keys.

    A deployed API asks for a key with each request, as does a local one that was started with
    --require-api-key. These commands do not: they write to the table, with your AWS identity, and
    LOOKALIKE_API_KEYS_TABLE names that of a deployed one.
    """


@keys.command("create")
@click.option("--label", required=True, help="What you will know the key by.")
@click.option(
    "--catalogue",
    "catalogues",
    multiple=True,
    help="A catalogue that the key is for; may be repeated.  [default: all]",
)
@click.option("--write", is_flag=True, help="Let it delete products, too.")
@click.option(
    "--rate",
    type=click.IntRange(1, MAX_RATE),
    default=600,
    show_default=True,
    help="Requests a minute that it is good for.",
)
@click.option(
    "--expires-in",
    "days",
    metavar="DAYS",
    type=click.IntRange(1, 36_500),
    help="Days after which it opens nothing.  [default: never]",
)
@data_dir_option
@json_option
def create_key(
    label: str,
    catalogues: tuple[str, ...],
    write: bool,
    rate: int,
    days: int | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    key, text = _keys(data_dir).create(
        label,
        catalogues or None,
        ("read", "write") if write else ("read",),
        rate,
        None if days is None else days * _DAY_S,
    )
    if as_json:
        print_json({"key": text, **_fields(key)})
        return
    click.echo(f"{plain(label)}, for {_catalogues(key)}; revoke it by {key.key_id}.", err=True)
    click.echo(text)


@keys.command("list")
@data_dir_option
@json_option
def list_keys(data_dir: Path | None, as_json: bool) -> None:
    """List the keys that were made, without their secrets."""
    found = _keys(data_dir).all()
    if as_json:
        print_json([_fields(key) for key in found])
        return
    if not found:
        click.echo("No keys; `lookalike keys create --label NAME` makes one.")
        return
    now = time.time()
    print_table(
        ("Id", "Label", "Catalogues", "Rights", ">Rate", "Created", "Expires", "State"),
        (
            (
                key.key_id,
                key.label,
                _catalogues(key),
                ", ".join(key.rights),
                f"{key.rate:,}",
                _day(key.created_at),
                _day(key.expires_at),
                key.state(now),
            )
            for key in found
        ),
    )


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@data_dir_option
@json_option
def revoke_key(key_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Make a key open nothing any more, within seconds and for good."""
    key = _keys(data_dir).revoke(key_id)
    if as_json:
        print_json(_fields(key))
    else:
        click.echo(f"{plain(key.label)} ({key.key_id}) is revoked.")


def _keys(data_dir: Path | None) -> ApiKeys:
    from lookalike.services.access import ApiKeys

    return ApiKeys(connect(data_dir).stores().api_keys, time.time)


def _catalogues(key: ApiKey) -> str:
    return "all catalogues" if key.catalogues is None else plain(", ".join(key.catalogues))


def _day(epoch_s: float | None) -> str:
    """A date in UTC, which no two machines read differently."""
    return "" if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d")


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "label": key.label,
        "catalogues": None if key.catalogues is None else list(key.catalogues),
        "rights": list(key.rights),
        "rate": key.rate,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "state": key.state(time.time()),
    }
