"""``lookalike reindex``: another encoder, head or routing, built beside what searches use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import Failed, WrongUse
from local.commands.functions import run_function
from local.commands.terminal import plain, print_json
from local.commands.watching import Show, progress, run_and_watch

if TYPE_CHECKING:
    from lookalike.core.types import Lineage

_PAUSE_S = 2.0
_TRIES = 5

Build = dict[str, Any]


@click.command()
@click.option("--encoder", help="Encoder to change to.  [default: the one that is in use]")
@click.option("--catalogue", help="Which catalogue.  [default: the only one]")
@click.option("--rollback", is_flag=True, help="Go back to the generation before this one.")
@click.option("--drop", is_flag=True, help="Give up the generation beside the current one.")
@click.option("--wait/--no-wait", default=True, help="Wait until the new generation is in use.")
@data_dir_option
@json_option
def reindex(
    encoder: str | None,
    catalogue: str | None,
    rollback: bool,
    drop: bool,
    wait: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Build the index of a catalogue anew, and swap it in.

    Uploads and searches go on meanwhile. With another encoder, every photo is read and encoded
    again; else head and shards are fitted again on what is stored. The new generation is swapped
    in when it is complete, and the old one kept for a while: --rollback exchanges the two.
    Lookalike fits heads and splits shards by itself when a catalogue has grown.
    """
    if sum(map(bool, (encoder, rollback, drop))) > 1:
        raise WrongUse("Choose one of --encoder, --rollback and --drop.")
    action = "rollback" if rollback else "drop" if drop else "build"
    detail = {"action": action, "catalogue": catalogue, "encoder": encoder}
    asked = {name: value for name, value in detail.items() if value is not None}
    report = run_function(data_dir, "Reindex", asked)
    state = _only(report)
    if wait and action == "build":
        with progress(visible=not as_json) as show:
            state = _follow(data_dir, state, report["asked"], show)
    if as_json:
        print_json(state)
    else:
        click.echo(_sentence(state))


def _follow(data_dir: Path | None, state: Build, asked: str, show: Show) -> Build:
    """Take the build of the generation asked for on, and show how far it is, until it is in use.

    Raises
    ------
    Failed
        It cannot go on, or was given up meanwhile.
    """
    catalogue, tries = state["catalogue"], 0
    lineages = connect(data_dir).stores().lineages
    while _is_on_its_way(state, asked):
        show(phase_of(state), state["done"], state["total"])
        time.sleep(_PAUSE_S)
        detail = {"catalogue": catalogue}
        report = run_and_watch(
            data_dir, "Reindex", detail, lambda: _watch(lineages.get(catalogue), show)
        )
        state = _only(report)
        reason = report["postponed"].get(catalogue)
        tries = tries + 1 if reason else 0
        if tries == _TRIES:
            raise Failed(f"The build cannot go on: {plain(reason)}")
    if state["generation"] != asked:
        raise Failed(
            f"The build of {plain(asked)} was given up; "
            f"{plain(catalogue)} uses {plain(state['generation'])}."
        )
    return state


def _is_on_its_way(state: Build, asked: str) -> bool:
    """Whether a generation is being built, or is to be when another one has been dropped."""
    is_built = state["beside"] == asked and state["phase"] not in {"kept", "dropping"}
    return is_built or state["next"] == asked


def _watch(lineage: Lineage | None, show: Show) -> None:
    if lineage is not None and lineage.beside is not None:
        beside = lineage.beside
        show(PHASES.get(beside.phase, beside.phase), beside.done, beside.total)


def _only(report: dict[str, Any]) -> Build:
    (state,) = report["catalogues"]
    found: Build = state
    return found


PHASES = {
    "announced": "waiting for uploads under way",
    "filling": "taking over what is there",
    "compacting": "building its index",
    "ready": "about to be used",
    "kept": "kept for a rollback",
    "dropping": "being dropped",
}
"""What the phases of a generation beside the current one are, for people."""


def phase_of(state: Build) -> str:
    """What the generation beside is up to, in words."""
    return PHASES.get(state["phase"], str(state["phase"]))


def _sentence(state: Build) -> str:
    name = plain(state["catalogue"])
    in_use = f"{name} uses {plain(state['generation'])}"
    if not state["phase"]:
        return f"{in_use}."
    beside = f"{plain(state['beside'])} is {phase_of(state)}"
    skipped = state["skipped"]
    left = f" {skipped:,} photos changed meanwhile and come by themselves." if skipped else ""
    return f"{in_use}; {beside}{follows(state)}.{left}"


def follows(state: Build) -> str:
    """What follows a generation on its way out, as the end of a sentence; may be empty."""
    encoder = state["next_encoder"]
    return f"; a new generation in {plain(encoder)} follows" if encoder else ""
