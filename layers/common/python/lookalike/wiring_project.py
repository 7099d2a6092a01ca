"""Where ports meet adapters for the project function, whose layer is not that of the others.

It has t-SNE, and neither FAISS, ONNX Runtime nor Pillow. Importing this calls nothing.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor

from ulid import ULID

from lookalike.core.ports import Clock, Ids, Stores
from lookalike.services.jobs import JobLedger
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.project import Project
from lookalike.services.project_layout import MapPolicy
from lookalike.settings import Settings, policy_of
from lookalike.stores import aws_stores

_PARALLEL_CALLS = 16


@functools.cache
def project() -> Project:
    """The service of this process, from its environment, made at the first call."""
    settings = Settings.from_env()
    return build_project(settings, aws_stores(settings), lambda: str(ULID()))


def build_project(
    settings: Settings, stores: Stores, ids: Ids, clock: Clock = time.time
) -> Project:
    """The service on any ports."""
    pool = ThreadPoolExecutor(_PARALLEL_CALLS, thread_name_prefix="lookalike")
    return Project(
        stores,
        LiveEmbeddings(stores, pool),
        JobLedger(stores, clock, ids),
        policy_of(MapPolicy, settings),
        os.cpu_count() or 1,
        clock,
    )
