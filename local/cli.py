"""The ``lookalike`` command: names its subcommands and loads only the one that runs."""

from __future__ import annotations

import importlib
from typing import Any

import click

from local.commands import exits
from local.commands.terminal import plain

COMMANDS = {
    "up": "local.commands.up:up",
    "upload": "local.commands.upload:upload",
    "search": "local.commands.search:search",
    "status": "local.commands.status:status",
    "failures": "local.commands.failures:failures",
    "clusters": "local.commands.clusters:clusters",
    "keys": "local.commands.keys:keys",
    "sweep": "local.commands.functions:sweep",
    "compact": "local.commands.functions:compact",
    "recluster": "local.commands.work:recluster",
    "project": "local.commands.work:project",
    "health": "local.commands.work:health",
    "rollup": "local.commands.work:rollup",
    "reindex": "local.commands.reindex:reindex",
    "model": "local.commands.model:model",
    "eval": "local.commands.evaluate:evaluate",
}


class Utf8Text(click.types.StringParamType):
    """Text that can be sent: an argument may hold any bytes, and Python keeps those it can't read.

    Paths are not text: a file's name may be any bytes.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same text, when it is UTF-8."""
        from lookalike.core.attributes import is_text

        text: str = super().convert(value, param, ctx)
        if not is_text(text):
            self.fail(f"“{plain(text)}” is not text in UTF-8.", param, ctx)
        return text


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, in the order of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        path = COMMANDS.get(cmd_name)
        if path is None:
            return None
        module, _, name = path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        _check_texts(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error raised on purpose becomes a line and an exit code."""
        from lookalike.core.errors import LookalikeError, Retry

        try:
            return super().invoke(ctx)
        except Retry as error:
            raise exits.Unreachable(str(error)) from error
        except LookalikeError as error:
            raise exits.WrongUse(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise click.exceptions.Exit(exits.INTERRUPTED) from None


def _check_texts(command: click.Command) -> None:
    """Give every text that a command or its subcommands take the type `Utf8Text`."""
    for param in command.params:
        if param.type is click.STRING:
            param.type = Utf8Text()
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _check_texts(inner)


_EXIT_CODES = "; ".join(f"{code}: {meaning}" for code, meaning in exits.MEANINGS.items())


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Exit codes: {_EXIT_CODES}.",
)
@click.version_option(package_name="lookalike", message="lookalike %(version)s")
def cli() -> None:
    """Visual product search that lives in a bucket.

    Start with `lookalike up`. The other commands find the Lookalike that runs on this machine
    through its state folder (--data-dir, else .lookalike/ here), else a deployed one that
    LOOKALIKE_API_URL and other variables name (docs/operations.md).
    """


def main() -> None:
    """Entry point of the ``lookalike`` script."""
    cli()
