"""The embed function: a batch of bucket events in, an index that agrees with the bucket."""

from __future__ import annotations

import time

from chalice.app import Blueprint, SQSEvent

from chalicelib.log import log_invocations, logger
from chalicelib.metrics import measure
from lookalike import wiring
from lookalike.events import Batch, BatchResponse, batch_response, read_batch
from lookalike.services.failures import GAVE_UP
from lookalike.services.ingest_pass import Outcome, Searchable

blueprint = Blueprint(__name__)


@blueprint.on_sqs_message(queue="ingest", batch_size=10, name="embed")
@log_invocations
def embed(event: SQSEvent) -> BatchResponse:
    """Index the objects that a batch names; report the messages that must return."""
    received_at = time.time()
    services = wiring.services()
    batch = read_batch(event.to_dict(), services.settings.max_receives)
    for message in batch.unreadable:
        logger.error("message not understood", message_id=message.message_id, error=message.error)
    retries = services.delivery.deliver(batch.delivered, lambda outcome: _tell(outcome, batch))
    for key, error in retries.items():
        logger.warning("object postponed", key=key, error=str(error))
    metrics: dict[str, float | list[float]] = {
        "Postponed": len(retries),
        "UnreadableMessages": len(batch.unreadable),
    }
    if ages := [received_at - message.sent_at for message in batch.messages]:
        metrics["QueueAge"] = ages
    measure("batch", metrics)
    return batch_response(batch.failed(retries))


def _tell(outcome: Outcome, batch: Batch) -> None:
    """One line of the log a photo that became searchable or failed, from its upload's id on."""
    message = batch.message_of(outcome.key)
    ids = {
        "key": outcome.key,
        "message_id": message.message_id,
        "upload_request_id": message.uploads.get(outcome.key),
    }
    if isinstance(outcome, Searchable):
        measure("searchable", {"Freshness": outcome.freshness_s}, **ids)
    elif outcome.reason == GAVE_UP:
        measure("gave up", {"FailuresFiled": 1, "GiveUps": 1}, **ids)
    else:
        measure("failed", {"FailuresFiled": 1}, reason=outcome.reason, **ids)
