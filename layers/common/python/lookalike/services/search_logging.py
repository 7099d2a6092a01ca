"""Writes searches to the search log without anybody waiting for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future

import msgspec

from lookalike.core.types import SearchRecord

logger = logging.getLogger(__name__)
# Kept whatever the level of everything else: it stands in for table entries that fail.
search_log = logging.getLogger("lookalike.searches")
search_log.setLevel(logging.INFO)


def log_search(write: Callable[[SearchRecord], None], pool: Executor, record: SearchRecord) -> None:
    """Write a search to the table beside everything else.

    The function's own log has every search first: a process that is frozen or reclaimed with the
    write in flight loses nothing that cannot be found there.

    Parameters
    ----------
    write
        Writes to the table.
    pool
        Runs the write.
    record
        The search.
    """
    search_log.info("search", extra={"search": msgspec.to_builtins(record)})

    def report(written: Future[None]) -> None:
        if (error := written.exception()) is not None:
            logger.error(
                "search %s is not in the search log: %r",
                record.query_id,
                error,
                extra={"metrics": {"SearchesNotLogged": 1}},
            )

    pool.submit(write, record).add_done_callback(report)
