"""The embed function: a batch of bucket events in, an index that agrees with the bucket."""

from __future__ import annotations

from chalice.app import Blueprint, SQSEvent

from chalicelib.log import logger
from lookalike import wiring
from lookalike.events import BatchResponse, batch_response, read_batch

blueprint = Blueprint(__name__)


@blueprint.on_sqs_message(queue="ingest", batch_size=10, name="embed")
def embed(event: SQSEvent) -> BatchResponse:
    """Reconcile the objects that a batch names; report the messages that must return."""
    ingest = wiring.services().ingest
    batch = read_batch(event.to_dict(), wiring.services().settings.max_receives)
    for message in batch.unreadable:
        logger.error("message not understood", message_id=message.message_id, error=message.error)
    ingest.give_up(batch.last_chances)
    retries = ingest.reconcile(batch.keys)
    for key, error in retries.items():
        logger.warning("object postponed", key=key, error=str(error))
    return batch_response(batch.failed(retries))
