"""Finds the Lookalike to talk to: the local cloud of a state folder, else the environment's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from local.commands.exits import Unreachable, WrongUse
from lookalike.settings import PREFIX

if TYPE_CHECKING:
    from local.commands.api import Api
    from local.state import State
    from lookalike.core.ports import Stores
    from lookalike.settings import Settings

DEFAULT_DATA_DIR = Path(".lookalike")
API_URL = "LOOKALIKE_API_URL"
API_KEY = "LOOKALIKE_API_KEY"
AWS_URL = "AWS_ENDPOINT_URL"
_NAMES = ("_BUCKET", "_TABLE", "_URL")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Lookalike is. ``state`` is None when it is not a local cloud of this machine."""

    api_url: str
    aws_url: str
    state: State | None

    def api(self) -> str:
        """The API's address.

        Raises
        ------
        Unreachable
            It is not known.
        """
        if not self.api_url:
            raise Unreachable(f"The API's address is not known; set {API_URL}.")
        return self.api_url

    def open_api(self, connections: int = 1) -> Api:
        """The API, asked with the local cloud's own key, elsewhere with ``LOOKALIKE_API_KEY``.

        Raises
        ------
        Unreachable
            Its address is not known.
        WrongUse
            The variable holds no key.
        """
        from local.api_key import read_local_key
        from local.commands.api import Api
        from lookalike.core.access import read_key_text

        if self.state is not None:
            return Api(self.api(), read_local_key(Path(self.state.data_dir)), connections)
        key = os.environ.get(API_KEY, "").strip()
        if key and not read_key_text(key):
            raise WrongUse(f"{API_KEY} holds no API key; one reads lk_<id>_<secret>.")
        return Api(self.api(), key, connections)

    def local(self) -> State:
        """The state of the local cloud.

        Raises
        ------
        Unreachable
            Lookalike runs elsewhere.
        """
        if self.state is None:
            raise Unreachable("This works on a local cloud only; start one with `lookalike up`.")
        return self.state

    def settings(self) -> Settings:
        """Names of buckets, tables and the queue, as the functions have them."""
        from lookalike.settings import Settings

        return Settings.from_env()

    def stores(self) -> Stores:
        """The stores behind the functions."""
        from lookalike.stores import aws_stores

        return aws_stores(self.settings())


def data_dir_option(command: Command) -> Command:
    """Add ``--data-dir``, by which a command finds the local cloud."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="State folder of the local cloud to talk to.  [default: .lookalike]",
    )(command)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def use_local(state: State) -> None:
    """Set this process's AWS and Lookalike variables to those of a local cloud's functions.

    The caller's own AWS variables go: a profile or a session of a real account has no place here.
    """
    from local.functions import read_functions
    from local.template import Template

    config = json.loads(Path(state.data_dir, "host.json").read_bytes())
    template = Template.load(Path(config["template"]), state.aws_url, config["parameters"])
    environment: dict[str, str] = {}
    for function in read_functions(template).values():
        environment |= function.environment
    environment |= config["environment"]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    ours = (PREFIX, "AWS_", "NO_PROXY")
    os.environ.update({k: v for k, v in environment.items() if k.startswith(ours)})


def connect(data_dir: Path | None) -> Connection:
    """Find Lookalike, and set the AWS SDK's variables so that clients made after this reach it.

    Without a local cloud it is where the caller's variables say: the AWS SDK's, and at least one
    that names a part of Lookalike. Credentials alone do not mean that a command is for there.

    Raises
    ------
    Unreachable
        Nothing runs in the state folder, and the environment names nothing else.
    """
    from local.state import find_running

    folder = data_dir or DEFAULT_DATA_DIR
    state = find_running(folder)
    if state is not None:
        use_local(state)
        return Connection(state.api_url, state.aws_url, state)
    api_url, aws_url = os.environ.get(API_URL, ""), os.environ.get(AWS_URL, "")
    named = any(k.startswith(PREFIX) and k.endswith(_NAMES) and v for k, v in os.environ.items())
    if data_dir is None and (named or aws_url):
        return Connection(api_url.rstrip("/"), aws_url, None)
    raise Unreachable(
        f"No Lookalike is running in {folder}/; start it with `lookalike up`"
        + (
            f", or name a deployed one by {API_URL} (docs/operations.md)."
            if data_dir is None
            else "."
        )
    )
