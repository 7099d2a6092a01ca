"""The one place where ports meet adapters. Importing it calls nothing and loads no model."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from lookalike.adapters.dynamodb import (
    DynamoCounts,
    DynamoFailures,
    DynamoGenerations,
    DynamoProducts,
    DynamoRegistry,
    DynamoSearchLog,
)
from lookalike.adapters.s3 import S3ObjectStore
from lookalike.adapters.sqs import SqsQueue
from lookalike.core.encoder import Encoder
from lookalike.core.encoders import encoder_record, parse_space, space_id
from lookalike.core.images import ImageLimits
from lookalike.core.ports import Ids, Stores
from lookalike.models import default_model_dir, find_model
from lookalike.services.catalogue import Catalogue
from lookalike.services.ingest import Ingest
from lookalike.services.live_index import LiveIndex
from lookalike.services.observe import Observer
from lookalike.services.query import Query
from lookalike.services.query_embedding import QueryEmbedder
from lookalike.services.sweep import Sweep
from lookalike.services.uploads import Uploads
from lookalike.settings import Settings

_PARALLEL_CALLS = 16


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases, ready to be called, and the stores behind them."""

    settings: Settings
    stores: Stores
    ingest: Ingest
    query: Query
    catalogue: Catalogue
    uploads: Uploads
    sweep: Sweep


@functools.cache
def services() -> Services:
    """The services of this process, from its environment, made at the first call."""
    settings = Settings.from_env()
    return build_services(settings, aws_stores(settings), lambda: str(ULID()))


def aws_stores(settings: Settings) -> Stores:
    """Ports on AWS, or on whatever ``AWS_ENDPOINT_URL`` names."""
    return Stores(
        images=S3ObjectStore(settings.images_bucket),
        index=S3ObjectStore(settings.index_bucket),
        products=DynamoProducts(settings.products_table),
        failures=DynamoFailures(settings.failures_table),
        registry=DynamoRegistry(settings.registry_table),
        generations=DynamoGenerations(settings.generations_table),
        counts=DynamoCounts(settings.generations_table),
        log=DynamoSearchLog(settings.searches_table, settings.search_retention_days),
        queue=SqsQueue(settings.ingest_queue_url),
    )


def build_services(settings: Settings, stores: Stores, ids: Ids) -> Services:
    """The services on any ports."""
    clock = time.time
    pool = ThreadPoolExecutor(_PARALLEL_CALLS, thread_name_prefix="lookalike")
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)

    @functools.cache
    def encoder_of(space: str) -> Encoder:
        record, pooling = parse_space(space)
        folder = Path(settings.model_dir) if settings.model_dir else default_model_dir()
        path = find_model(record, settings.precision, folder)
        return Encoder(path, record, pooling, settings.encoder_threads)

    ingest = Ingest(
        stores,
        Observer(stores.images, limits, settings.max_document_bytes),
        encoder_of,
        space_id(encoder_record(settings.encoder), settings.pooling),
        pool,
        clock,
    )
    live_index = LiveIndex(stores.index, stores.registry, settings.refresh_s, pool, clock)
    query = Query(
        stores,
        live_index,
        QueryEmbedder(stores, live_index, encoder_of, limits),
        settings.url_expires_s,
        settings.refresh_s,
        ThreadPoolExecutor(1, thread_name_prefix="refresh"),
        ThreadPoolExecutor(2, thread_name_prefix="search-log"),
        clock,
        ids,
    )
    catalogue = Catalogue(
        stores,
        ingest.reconcile,
        settings.url_expires_s,
    )
    sweep = Sweep(
        stores,
        clock,
    )
    uploads = Uploads(stores.index, settings.max_image_bytes, clock, ids)
    return Services(settings, stores, ingest, query, catalogue, uploads, sweep)
