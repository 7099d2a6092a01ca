"""The one place where ports meet adapters. Importing it calls nothing and loads no model."""

from __future__ import annotations

import functools
import inspect
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ulid import ULID

from lookalike.adapters.memory_bound import MemoryBound
from lookalike.core.compaction import CompactionPolicy
from lookalike.core.encoder import Encoder
from lookalike.core.encoders import encoder_record, parse_space, space_id
from lookalike.core.generations import GenerationPolicy
from lookalike.core.images import ImageLimits
from lookalike.core.ports import Clock, Ids, Stores
from lookalike.models import default_model_dir, find_model
from lookalike.services.access import Access
from lookalike.services.base_files import BaseFiles
from lookalike.services.bring_over import PhotoReader
from lookalike.services.catalogue import Catalogue
from lookalike.services.compact import Compaction
from lookalike.services.delivery import Delivery
from lookalike.services.earlier_search import EarlierSearches
from lookalike.services.explain import Explanations
from lookalike.services.explained_pair import PairFinder
from lookalike.services.explanation_pictures import ExplanationPictures
from lookalike.services.failures import GivingUp
from lookalike.services.feature_maps import FeatureMaps
from lookalike.services.ingest import Ingest
from lookalike.services.live_index import LiveIndex
from lookalike.services.observe import Observer
from lookalike.services.query import Query
from lookalike.services.query_embedding import QueryEmbedder
from lookalike.services.query_material import QueryMaterials
from lookalike.services.reindex import Reindex
from lookalike.services.sweep import Sweep
from lookalike.services.uploads import Uploads
from lookalike.settings import Settings
from lookalike.stores import aws_stores

_PARALLEL_CALLS = 16

Policy = TypeVar("Policy", CompactionPolicy, GenerationPolicy)
# All ranges that a cold query reads of a base at once.
_PARALLEL_RANGES = 32


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases, ready to be called, and the stores behind them."""

    settings: Settings
    stores: Stores
    access: Access
    ingest: Ingest
    delivery: Delivery
    query: Query
    explanations: Explanations
    catalogue: Catalogue
    uploads: Uploads
    sweep: Sweep
    compaction: Compaction
    reindex: Reindex


@functools.cache
def services() -> Services:
    """The services of this process, from its environment, made at the first call."""
    settings = Settings.from_env()
    return build_services(settings, aws_stores(settings), lambda: str(ULID()))


def build_services(
    settings: Settings,
    stores: Stores,
    ids: Ids,
    clock: Clock = time.time,
    encoder_of: Callable[[str], Encoder] | None = None,
) -> Services:
    """The services on any ports; by default with the encoders of ``settings.model_dir``."""
    encoder_of = encoder_of or _encoders(settings)
    pool = ThreadPoolExecutor(_PARALLEL_CALLS, thread_name_prefix="lookalike")
    limits = ImageLimits(
        settings.max_image_bytes,
        settings.max_image_pixels,
        settings.max_decode_s,
        time.thread_time,
        MemoryBound(settings.max_decode_bytes),
    )
    feature_maps = FeatureMaps(stores.images, stores.index, encoder_of, limits, pool)

    observer = Observer(stores.images, limits, settings.max_document_bytes)
    ingest = Ingest(
        stores,
        observer,
        encoder_of,
        space_id(encoder_record(settings.encoder), settings.pooling),
        pool,
        clock,
    )
    live_index = LiveIndex(
        stores.index,
        stores.registry,
        BaseFiles(
            stores.index,
            _cache_folder(settings),
            settings.cache_bytes,
            ThreadPoolExecutor(_PARALLEL_RANGES, thread_name_prefix="ranges"),
        ),
        settings.refresh_s,
        settings.settle_s,
        pool,
        clock,
        settings.index_threads,
    )
    materials = QueryMaterials(stores.index, settings.query_retention_s, clock)
    earlier = EarlierSearches(materials, feature_maps.read_many)
    query = Query(
        stores,
        live_index,
        QueryEmbedder(stores, live_index, encoder_of, limits, earlier),
        materials,
        settings.url_expires_s,
        settings.refresh_s,
        settings.nprobe,
        ThreadPoolExecutor(1, thread_name_prefix="refresh"),
        ThreadPoolExecutor(2, thread_name_prefix="search-log"),
        ThreadPoolExecutor(2, thread_name_prefix="query-material"),
        clock,
        ids,
    )
    explanations = Explanations(
        stores.index,
        PairFinder(stores, materials, live_index, query.generation),
        feature_maps,
        ExplanationPictures(stores.images, limits),
        settings.url_expires_s,
        clock,
    )
    catalogue = Catalogue(
        stores,
        ingest.reconcile,
        settings.url_expires_s,
    )
    sweep = Sweep(
        stores, pool, clock, settings.query_retention_s, settings.sweep_backlog, time.sleep
    )
    uploads = Uploads(stores.index, settings.max_image_bytes, clock, ids)
    compaction = Compaction(stores, policy_of(CompactionPolicy, settings), pool, clock)
    photos = PhotoReader(stores, observer, encoder_of, pool, clock)
    generations = policy_of(GenerationPolicy, settings)
    reindex = Reindex(stores, generations, settings.pooling, compaction, photos, pool, clock)
    access = Access(
        stores.api_keys,
        settings.require_api_key,
        settings.api_key_refresh_s,
        ThreadPoolExecutor(2, thread_name_prefix="api-keys"),
        clock,
    )
    return Services(
        settings,
        stores,
        access,
        ingest,
        Delivery(ingest, GivingUp(stores, clock)),
        query,
        explanations,
        catalogue,
        uploads,
        sweep,
        compaction,
        reindex,
    )


def _cache_folder(settings: Settings) -> Path:
    if settings.cache_dir:
        return Path(settings.cache_dir)
    return Path(tempfile.gettempdir()) / "lookalike-bases"


def policy_of(kind: Callable[..., Policy], settings: Settings) -> Policy:
    """The part of the settings that a planner knows, by the names of its fields."""
    return kind(**{name: getattr(settings, name) for name in inspect.signature(kind).parameters})


def _encoders(settings: Settings) -> Callable[[str], Encoder]:
    @functools.cache
    def encoder_of(space: str) -> Encoder:
        record, pooling = parse_space(space)
        folder = Path(settings.model_dir) if settings.model_dir else default_model_dir()
        path = find_model(record, settings.precision, folder)
        return Encoder(path, record, pooling, settings.encoder_threads)

    return encoder_of
