"""The four SQS calls of the pollers, on asyncio: boto3 would need a thread for every long poll."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from local.roles import Role
from local.template import ACCOUNT_ID, REGION

Message = dict[str, Any]
_LAMBDAS_OWN = frozenset({"ReceiveMessage", "DeleteMessageBatch", "GetQueueAttributes"})
"""What Lambda's pollers call; the others are how a retry is brought forward on a laptop."""
RELEASE_PATH = "/_local/release"
"""Of the local endpoint only; no bucket can have this name."""
MAX_BATCH = 10
"""SQS's own limit of messages a call."""


class SqsError(Exception):
    """The local AWS endpoint refused a call or cannot be reached."""


class SqsClient:
    """Calls one queue through SQS's JSON protocol.

    Parameters
    ----------
    session
        The HTTP session to use.
    endpoint
        Base URL of the local AWS endpoint.
    queue_name
        The queue.
    role
        Whose permissions are needed, if roles are enforced.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        queue_name: str,
        role: Role | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._queue_url = f"{endpoint}/{ACCOUNT_ID}/{queue_name}"
        self._role = role

    async def receive(self, count: int, wait_s: int) -> list[Message]:
        """Up to ``count`` (at most 10) messages, waiting for the first."""
        answer = await self._call(
            "ReceiveMessage",
            {
                "MaxNumberOfMessages": min(count, MAX_BATCH),
                "WaitTimeSeconds": wait_s,
                "MessageSystemAttributeNames": ["All"],
                "MessageAttributeNames": ["All"],
            },
        )
        return list(answer.get("Messages") or [])

    async def delete(self, handles: Sequence[str]) -> None:
        """Delete messages for good."""
        await self._in_batches("DeleteMessageBatch", [{"ReceiptHandle": item} for item in handles])

    async def show_again(self, delays: Sequence[tuple[str, int]]) -> None:
        """Make messages visible again after so many seconds each."""
        entries = [{"ReceiptHandle": item, "VisibilityTimeout": delay} for item, delay in delays]
        await self._in_batches("ChangeMessageVisibilityBatch", entries)

    async def counts(self) -> dict[str, int]:
        """Approximate numbers of messages: ``visible`` and ``in_flight``."""
        names = {
            "ApproximateNumberOfMessages": "visible",
            "ApproximateNumberOfMessagesNotVisible": "in_flight",
        }
        answer = await self._call("GetQueueAttributes", {"AttributeNames": list(names)})
        return {names[key]: int(value) for key, value in answer["Attributes"].items()}

    async def release(self) -> None:
        """Make everything in flight visible at once: for a consumer that starts after a crash."""
        url = f"{self._endpoint}{RELEASE_PATH}"
        body = msgspec.json.encode({"queue": self._queue_url.rsplit("/", 1)[-1]})
        try:
            async with self._session.post(url, data=body) as response:
                if response.status != 200:
                    raise SqsError(f"release: {response.status}")
        except (aiohttp.ClientError, OSError) as error:
            raise SqsError(f"release: {error}") from error

    async def _in_batches(self, action: str, entries: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(entries), MAX_BATCH):
            batch = [
                {"Id": str(position), **entry}
                for position, entry in enumerate(entries[start : start + MAX_BATCH])
            ]
            answer = await self._call(action, {"Entries": batch})
            if answer.get("Failed"):
                raise SqsError(f"{action}: {answer['Failed']}")

    async def _call(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        role = self._role if action in _LAMBDAS_OWN else None
        key = role.access_key_id if role else "local"
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{action}",
            # Service, region and caller are read from it; the signature is not checked.
            "Authorization": "AWS4-HMAC-SHA256 "
            f"Credential={key}/20000101/{REGION}/sqs/aws4_request, SignedHeaders=host, Signature=0",
            **({"X-Amz-Security-Token": role.session_token} if role else {}),
        }
        payload = msgspec.json.encode({"QueueUrl": self._queue_url, **body})
        try:
            async with self._session.post(
                self._endpoint, data=payload, headers=headers
            ) as response:
                content = await response.read()
                if response.status != 200:
                    raise SqsError(f"{action}: {response.status} {content[:500]!r}")
                return dict(msgspec.json.decode(content or b"{}"))
        except (aiohttp.ClientError, OSError) as error:
            raise SqsError(f"{action}: {error}") from error
