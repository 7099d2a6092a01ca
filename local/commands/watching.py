"""Runs a function of the local cloud and shows meanwhile, on a terminal, how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from local.commands.functions import run_function
from local.commands.terminal import console

_LOOK_S = 0.5

Show = Callable[[str, int, int], None]
"""Takes what is done now, and how much of how much of it; 0 of 0 when that is not known."""


def run_and_watch(
    data_dir: Path | None, name: str, detail: dict[str, Any], look: Callable[[], None]
) -> dict[str, Any]:
    """Run a function once; looks in between are for the eye only.

    Raises as `local.commands.functions.run_function` does.
    """
    from lookalike.core.errors import Retry

    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(run_function(data_dir, name, detail, notes_wait=False))
        except click.ClickException as error:
            outcome.append(error)

    # A daemon: Ctrl-C ends the command, and the function goes on by itself.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        try:
            look()
        except Retry:
            continue
    (found,) = outcome
    if isinstance(found, click.ClickException):
        raise found
    report: dict[str, Any] = found
    return report


@contextmanager
def progress(*, visible: bool) -> Iterator[Show]:
    """A bar on standard error, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console(stderr=True)
    with Progress(*columns, console=shown, disable=not (visible and shown.is_terminal)) as bar:
        task = bar.add_task("…", total=None)

        def show(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing, completed=done, total=total or None)

        yield show
