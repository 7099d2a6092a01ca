"""``lookalike failures``: what could not be indexed and why, and another try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import Connection, connect, data_dir_option, json_option
from local.commands.exits import Failed, Unreachable
from local.commands.terminal import local_time, print_json, print_table

if TYPE_CHECKING:
    from lookalike.adapters.dead_letters import DeadLetter, DeadLetters
    from lookalike.core.ports import Stores
    from lookalike.core.types import Failure

_PAGE = 100
_MOST_LETTERS = 10_000
_UNREADABLE = "unreadable-message"
_DEAD_LETTER = "dead-letter"

catalogue_option = click.option("--catalogue", help="Only this catalogue.  [default: all]")


class ListByDefault(click.Group):
    """A group that is its command ``list`` when no other is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` in front of options, or of nothing."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and the keys that it names; ``error`` says why it could not be read."""

    letter: DeadLetter
    keys: tuple[str, ...]
    error: str = ""

    def is_of(self, catalogue: str | None) -> bool:
        """Whether it names a key of this catalogue; of None, any."""
        from lookalike.core.keys import catalogue_of

        return catalogue is None or any(catalogue_of(key) == catalogue for key in self.keys)

    def is_named(self, names: Sequence[str]) -> bool:
        """Whether a key that it names, or itself if it names none, is among these."""
        return not set(names).isdisjoint(self.keys or (self.letter.message_id,))


@click.group(cls=ListByDefault)
def failures() -> None:
    """List what could not be indexed and why; retry."""


@failures.command("list")
@catalogue_option
@data_dir_option
@json_option
def list_failures(catalogue: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List what could not be indexed.

    Messages in the dead-letter queue that tell of nothing else are listed as well: by the key that
    they name or, if they cannot be read, by their id.
    """
    connection = connect(data_dir)
    found = [_fields(item) for item in read_failures(connection.stores(), catalogue)]
    if connection.settings().ingest_queue_url:
        queue = _dead_letters(connection)
        letters = _read(queue)
        queue.show(item.letter for item in letters)
        tries = connection.settings().max_receives
        found += _told_by_letters(letters, catalogue, {item["key"] for item in found}, tries)
    else:
        click.echo("The ingest queue is not known, so its dead letters are not listed.", err=True)
    if as_json:
        print_json(found)
        return
    rows = [
        (item["key"], item["reason"], item["detail"], item["tries"], local_time(item["at"]))
        for item in found
    ]
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
    """Try failed files again: those named by their keys, or all.

    Their messages leave the dead-letter queue. One that cannot be read is named by its id.
    """
    connection = connect(data_dir)
    queue, stores = _dead_letters(connection), connection.stores()
    letters = _read(queue)
    if keys:
        chosen = [item for item in letters if item.is_named(keys)]
        known = {*stores.failures.get_many(keys), *_names(letters)}
        if unknown := [key for key in keys if key not in known]:
            queue.show(item.letter for item in letters)
            raise Failed(f"Nothing failed under {', '.join(unknown)}; see `lookalike failures`.")
        wanted = list(dict.fromkeys(keys))
    else:
        chosen = [item for item in letters if item.is_of(catalogue)]
        filed = [item.key for item in read_failures(stores, catalogue)]
        wanted = list(dict.fromkeys([*filed, *_names(chosen)]))
    queue.retry(item.letter for item in chosen)
    queue.show(item.letter for item in letters if item not in chosen)
    covered = set(_names(chosen))
    if rest := [key for key in wanted if key not in covered]:
        stores.queue.send_keys(rest)
    if as_json:
        print_json({"queued": wanted})
    else:
        click.echo(f"{len(wanted)} queued to be tried again." if wanted else "No failures.")


@failures.command("discard")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@data_dir_option
def discard_letters(ids: tuple[str, ...], data_dir: Path | None) -> None:
    """Delete dead letters that cannot be read, by their ids: nothing can be made of them."""
    queue = _dead_letters(connect(data_dir))
    letters = _read(queue)
    chosen = [item for item in letters if item.error and item.letter.message_id in ids]
    queue.delete(item.letter for item in chosen)
    queue.show(item.letter for item in letters if item not in chosen)
    if unknown := set(ids) - set(_names(chosen)):
        raise Failed(f"No message that cannot be read has the id {', '.join(sorted(unknown))}.")
    click.echo(f"{len(chosen)} deleted.")


def read_failures(stores: Stores, catalogue: str | None) -> Iterator[Failure]:
    """The failures of one catalogue or of all, in order of catalogue and key, a page at a time."""
    names = sorted(stores.counts.all()) if catalogue is None else [catalogue]
    for name in names:
        after: str | None = ""
        while after is not None:
            page, after = stores.failures.page(name, _PAGE, after)
            yield from page


def _dead_letters(connection: Connection) -> DeadLetters:
    from lookalike.adapters.dead_letters import DeadLetters

    url = connection.settings().ingest_queue_url
    if not url:
        raise Unreachable("The ingest queue is not known; set LOOKALIKE_INGEST_QUEUE_URL.")
    return DeadLetters(url)


def _read(queue: DeadLetters) -> list[Letter]:
    from lookalike.events import read_hint

    found = []
    for letter in queue.take(_MOST_LETTERS):
        try:
            found.append(Letter(letter, read_hint(letter.body).keys))
        except ValueError as error:
            found.append(Letter(letter, (), str(error)))
    return found


def _names(letters: Sequence[Letter]) -> list[str]:
    """What these letters are listed by."""
    return [name for item in letters for name in (item.keys or (item.letter.message_id,))]


def _told_by_letters(
    letters: Sequence[Letter], catalogue: str | None, known: set[str], tries: int
) -> list[dict[str, Any]]:
    """Entries for what only dead letters tell of."""
    found: dict[str, dict[str, Any]] = {}
    for item in letters:
        if not item.is_of(catalogue):
            continue
        reason, detail = _UNREADABLE, item.error
        if not item.error:
            reason = _DEAD_LETTER
            detail = "Its message kept failing. Nothing is known to be wrong with the file now."
        for name in _names([item]):
            if name not in known:
                at = item.letter.sent_at
                found[name] = _entry("", name, reason, detail, tries, at)
    return list(found.values())


def _fields(failure: Failure) -> dict[str, Any]:
    return _entry(
        failure.catalogue,
        failure.key,
        failure.reason,
        failure.detail,
        failure.tries,
        failure.at,
    )


def _entry(
    catalogue: str, key: str, reason: str, detail: str, tries: int, at: float
) -> dict[str, Any]:
    return {
        "catalogue": catalogue,
        "key": key,
        "reason": reason,
        "detail": detail,
        "tries": tries,
        "at": at,
    }
