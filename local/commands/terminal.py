"""What commands print: tables, JSON, and text from elsewhere that cannot command the terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """A console that does not cut tables short when its output goes to a file or a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPED_WIDTH
    return made


def print_json(value: object) -> None:
    """Print a structure as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose name starts with ``>`` are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row))
    console().print(table)


def plain(value: object) -> str:
    """Text without control characters, so that a file name or title can be shown; None is empty."""
    if value is None:
        return ""
    return "".join(
        "�" if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char for char in str(value)
    )


def local_time(epoch_s: float) -> str:
    """A moment as the clock on the wall shows it."""
    return datetime.fromtimestamp(epoch_s).strftime("%Y-%m-%d %H:%M:%S")


def millis(seconds: float) -> str:
    """A duration for people: ``38 ms``, ``1.24 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(size_bytes: Any) -> str:
    """A size for people, in powers of 1000."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
