"""Ports on AWS, or on whatever ``AWS_ENDPOINT_URL`` names. Importing it calls nothing."""

from __future__ import annotations

from lookalike.adapters.api_keys import DynamoApiKeys
from lookalike.adapters.dynamodb import (
    DynamoCounts,
    DynamoFailures,
    DynamoLineages,
    DynamoProducts,
    DynamoRegistry,
)
from lookalike.adapters.feedback import DynamoFeedback
from lookalike.adapters.rollups import DynamoRollups
from lookalike.adapters.s3 import S3ObjectStore
from lookalike.adapters.search_log import DynamoSearchLog
from lookalike.adapters.sqs import SqsQueue
from lookalike.adapters.work import DynamoArtifacts, DynamoClusterNames, DynamoJobs
from lookalike.core.ports import Stores
from lookalike.settings import Settings


def aws_stores(settings: Settings) -> Stores:
    """The set that the settings name."""
    return Stores(
        images=S3ObjectStore(settings.images_bucket),
        index=S3ObjectStore(settings.index_bucket),
        products=DynamoProducts(settings.products_table),
        failures=DynamoFailures(settings.failures_table),
        registry=DynamoRegistry(settings.registry_table),
        lineages=DynamoLineages(settings.generations_table),
        counts=DynamoCounts(settings.generations_table),
        log=DynamoSearchLog(settings.searches_table, settings.search_retention_days),
        queue=SqsQueue(settings.ingest_queue_url),
        api_keys=DynamoApiKeys(settings.api_keys_table),
        artifacts=DynamoArtifacts(settings.clusters_table),
        jobs=DynamoJobs(settings.clusters_table),
        cluster_names=DynamoClusterNames(settings.clusters_table),
        feedback=DynamoFeedback(settings.feedback_table),
        rollups=DynamoRollups(settings.rollups_table),
    )
