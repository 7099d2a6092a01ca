"""The ingest queue on SQS."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from lookalike.adapters.aws import aws_errors, client
from lookalike.core.errors import Unavailable

_MESSAGES_A_CALL = 10  # SQS's limit


class SqsQueue:
    """Implements `lookalike.core.ports.Queue`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sqs = client("sqs")

    def send_keys(self, keys: Sequence[str], *, write_again: bool = False) -> None:
        """See `lookalike.core.ports.Queue`."""
        # A message a key, as bucket events are: one that fails comes again alone.
        flag = {"write_again": True} if write_again else {}
        bodies = (json.dumps({"keys": [key], **flag}) for key in keys)
        while batch := list(itertools.islice(bodies, _MESSAGES_A_CALL)):
            entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(batch)]
            with aws_errors("sending to the ingest queue"):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            if answer.get("Failed"):
                raise Unavailable(f"the ingest queue refused {len(answer['Failed'])} messages")

    def backlog(self) -> int:
        """See `lookalike.core.ports.Queue`."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with aws_errors("asking the ingest queue for its length"):
            answer = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)
