"""Exit codes of the command and the errors that carry them; any other error is a defect."""

from __future__ import annotations

import click

OK = 0
FAILED = 1
"""Some files failed, or nothing was found."""
USAGE = 2
"""The command line, a file that it names, or a parameter is wrong."""
UNREACHABLE = 3
"""No Lookalike is running, or it cannot be reached or answers with a fault of its own."""
INTERRUPTED = 130

MEANINGS = {
    OK: "all is well",
    FAILED: "some files failed, or nothing was found",
    USAGE: "the command line, a file it names or a parameter is wrong",
    UNREACHABLE: "no Lookalike is running, or it cannot be reached",
    INTERRUPTED: "stopped with Ctrl-C",
}


class Failed(click.ClickException):
    """The command ran, and what was asked for could not be had."""

    exit_code = FAILED


class WrongUse(click.ClickException):
    """What was asked for is not possible as it was asked."""

    exit_code = USAGE


class Unreachable(click.ClickException):
    """There is nothing that answers."""

    exit_code = UNREACHABLE
