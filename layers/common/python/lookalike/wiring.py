"""The one place where ports meet adapters. Importing it calls nothing and loads no model."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from lookalike.services.analytics import Analytics
from lookalike.services.base_files import BaseFiles
from lookalike.services.bring_over import PhotoReader
from lookalike.services.calibrate import Calibrate, CalibratePolicy
from lookalike.services.catalogue import Catalogue
from lookalike.services.clusters import Clusters
from lookalike.services.compact import Compaction
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.delivery import Delivery
from lookalike.services.earlier_search import EarlierSearches
from lookalike.services.explain import Explanations
from lookalike.services.explained_pair import PairFinder
from lookalike.services.explanation_pictures import ExplanationPictures
from lookalike.services.failures import GivingUp
from lookalike.services.feature_maps import FeatureMaps
from lookalike.services.feedback import Feedback
from lookalike.services.findings import Findings
from lookalike.services.health import HealthCheck, HealthPolicy
from lookalike.services.ingest import Ingest
from lookalike.services.jobs import JobLedger
from lookalike.services.judge import Judge
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.live_index import LiveIndex
from lookalike.services.observe import Observer
from lookalike.services.query import Query
from lookalike.services.query_embedding import QueryEmbedder
from lookalike.services.query_material import QueryMaterials
from lookalike.services.ranking import Ranking
from lookalike.services.recluster import Recluster, ReclusterPolicy
from lookalike.services.reindex import Reindex
from lookalike.services.rollup import SearchRollup
from lookalike.services.sweep import Sweep
from lookalike.services.uploads import Uploads
from lookalike.settings import Settings, policy_of
from lookalike.stores import aws_stores

_PARALLEL_CALLS = 16

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
    clusters: Clusters
    recluster: Recluster
    calibrate: Calibrate
    health: HealthCheck
    findings: Findings
    feedback: Feedback
    rollup: SearchRollup
    analytics: Analytics


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
    clusters = Clusters(stores, settings.derived_refresh_s, clock, pool)
    retention_s = settings.search_retention_days * 86_400.0
    writes = CountedWrites(stores, retention_s, clock)
    query = Query(
        stores,
        live_index,
        QueryEmbedder(stores, live_index, encoder_of, limits, earlier),
        Ranking(stores, live_index, settings.nprobe),
        Judge(stores, clusters, settings.derived_refresh_s, clock, pool),
        materials,
        writes.write,
        settings.url_expires_s,
        settings.refresh_s,
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
        clusters,
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
    ledger = JobLedger(stores, clock, ids)
    live = LiveEmbeddings(stores, pool)
    analytics = Analytics(stores, clock)
    recluster = Recluster(stores, live, ledger, policy_of(ReclusterPolicy, settings), clock)
    calibrate = Calibrate(
        stores,
        live,
        live_index,
        ledger,
        analytics.judged,
        policy_of(CalibratePolicy, settings),
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
        clusters,
        recluster,
        calibrate,
        HealthCheck(stores, live, ledger, policy_of(HealthPolicy, settings), pool, clock),
        Findings(stores, settings.url_expires_s),
        Feedback(stores, writes, retention_s, clock),
        SearchRollup(stores, ledger, clusters, retention_s, clock),
        analytics,
    )


def _cache_folder(settings: Settings) -> Path:
    if settings.cache_dir:
        return Path(settings.cache_dir)
    return Path(tempfile.gettempdir()) / "lookalike-bases"


def _encoders(settings: Settings) -> Callable[[str], Encoder]:
    @functools.cache
    def encoder_of(space: str) -> Encoder:
        record, pooling = parse_space(space)
        folder = Path(settings.model_dir) if settings.model_dir else default_model_dir()
        path = find_model(record, settings.precision, folder)
        return Encoder(path, record, pooling, settings.encoder_threads)

    return encoder_of
