"""Fetches why each result of a search matches, and writes it into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from local.commands.api import Api
from local.commands.exits import Failed, WrongUse
from local.commands.terminal import console, plain

COLUMNS = (">Foreground", "Trust", "Strongest match")
_LONGEST_NAME = 120
_BADGES = {True: "better than chance", False: "no better than chance", None: "–"}
_NOT_KEPT = (
    "This search cannot be explained: nothing of it was kept. "
    "LOOKALIKE_QUERY_RETENTION_S of the query function says for how long searches are."
)


def explain_results(api: Api, answer: dict[str, Any], folder: Path) -> list[str]:
    """Write ``<rank>-<product>.png`` and ``.json`` for each result of a search.

    Parameters
    ----------
    api
        Where the search was made.
    answer
        The search's; each result gets ``explanation``, null where there is none.
    folder
        Made if it does not exist.

    Returns
    -------
    list[str]
        A sentence for each result that could not be explained, such as one deleted meanwhile.

    Raises
    ------
    Failed
        Nothing of the search was kept.
    WrongUse
        The folder cannot be written.
    """
    results = answer["results"]
    if results and not any(result.get("explanation_url") for result in results):
        raise Failed(_NOT_KEPT)
    failures = []
    with console(stderr=True).status("explaining") as progress:
        for number, result in enumerate(results, 1):
            progress.update(f"explaining {number} of {len(results)}")
            result["explanation"] = None
            product = result["product_id"]
            try:
                result["explanation"] = api.explanation(answer["query_id"], product)
                picture = api.pair_picture(answer["query_id"], product)
            except Failed as error:
                failures.append(f"{plain(product)}: {error.message}")
                continue
            name = _file_name(result["rank"], product)
            _write(folder, name + ".png", picture)
            text = json.dumps(result["explanation"], indent=1, ensure_ascii=False)
            _write(folder, name + ".json", text.encode())
    return failures


def cells_of(explanation: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a row of the result table says, for `COLUMNS`."""
    if explanation is None:
        return ("",) * len(COLUMNS)
    strongest = explanation["matches"][:1]
    return (
        percent(explanation["foreground_share"]),
        _BADGES[explanation["trust"]["better_than_chance"]],
        f"{percent(strongest[0]['share'])} of the score" if strongest else "",
    )


def percent(share: float | None) -> str:
    """A share in words; a dash for None."""
    return "–" if share is None else f"{share * 100:.0f} %"


def _file_name(rank: int, product: str) -> str:
    """Safe on any file system whatever the id; the rank keeps cut names apart."""
    return f"{rank:02d}-{quote(product, safe=' ')[:_LONGEST_NAME]}"


def _write(folder: Path, name: str, data: bytes) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    except OSError as error:
        raise WrongUse(f"{plain(folder / name)} cannot be written: {error.strerror}.") from error
