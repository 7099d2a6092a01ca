"""What is told of a catalogue's generations to whoever asks the reindex function for one."""

from __future__ import annotations

from dataclasses import dataclass, field

from lookalike.core.generations import following
from lookalike.core.types import Lineage


@dataclass(frozen=True, slots=True)
class BuildState:
    """Where a catalogue is. ``phase`` is empty when there is no generation beside the current one.

    ``done`` of ``total`` views are brought over, ``skipped`` of them could not be read. ``next`` is
    what is built when the generation beside, on its way out, has gone.
    """

    catalogue: str
    generation: str
    encoder: str
    phase: str = ""
    beside: str = ""
    beside_encoder: str = ""
    done: int = 0
    total: int = 0
    skipped: int = 0
    next: str = ""
    next_encoder: str = ""

    @property
    def asked(self) -> str:
        """The generation that a request for a build, to which this is the answer, is about."""
        return self.next or self.beside


@dataclass(slots=True)
class ReindexReport:
    """Every catalogue that was looked at; ``postponed`` says why one was left to the next run.

    ``asked`` is the generation that a request for a build is about, if there was one.
    """

    catalogues: list[BuildState] = field(default_factory=list)
    postponed: dict[str, str] = field(default_factory=dict)
    asked: str = ""


def build_state(lineage: Lineage) -> BuildState:
    """Where a catalogue with this lineage is."""
    current, beside = lineage.current, lineage.beside
    if beside is None:
        return BuildState(lineage.catalogue, current.generation, current.encoder)
    after = following(lineage)
    return BuildState(
        lineage.catalogue,
        current.generation,
        current.encoder,
        beside.phase,
        beside.generation.generation,
        beside.generation.encoder,
        beside.done,
        beside.total,
        beside.skipped,
        after.generation if after else "",
        after.encoder if after else "",
    )
