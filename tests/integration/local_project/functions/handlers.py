"""Handlers of the small project on which the local cloud is tested."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def api(event: Json, context: Any) -> Json:
    """Answer with what was received, or misbehave as the path says."""
    action = event["resource"]
    if action == "/echo/{name}":
        return {"statusCode": 200, "body": json.dumps(event)}
    if action == "/crash":
        os._exit(7)
    if action == "/sleep":
        time.sleep(60)
    if action == "/raise":
        raise ValueError("on purpose")
    if action == "/grow":
        held = bytearray(500_000_000)
        time.sleep(60)
        return {"statusCode": 200, "body": str(len(held))}
    if action == "/large":
        return {"statusCode": 200, "body": "x" * 7_000_000}
    if action == "/nonsense":
        return {"statusCode": "?"}
    body = event["body"] or ""
    received = base64.b64decode(body) if event["isBase64Encoded"] else body.encode()
    if action == "/digest":
        return {"statusCode": 200, "body": hashlib.sha256(received).hexdigest()}
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "image/png"},
        "multiValueHeaders": {"X-Several": ["one", "two"]},
        "body": base64.b64encode(received).decode(),
        "isBase64Encoded": True,
    }


def trivial(event: Json, context: Any) -> Json:
    """Answer at once with what the runtime says about the call."""
    return {
        "request_id": context.aws_request_id,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "memory_mb": context.memory_limit_in_mb,
        "name": context.function_name,
        "setting": os.environ["SETTING"],
        "pid": os.getpid(),
        "event": event,
    }


def consume(event: Json, context: Any) -> Json:
    """Record each delivery in a folder, and fail the messages that ask for it."""
    failed = []
    for record in event["Records"]:
        received = record["attributes"]["ApproximateReceiveCount"]
        name = f"{record['messageId']}.{received}.json"
        staged = Path(os.environ["SEEN"], f"{name}.part")
        staged.write_text(json.dumps(record), encoding="utf-8")
        staged.replace(Path(os.environ["SEEN"], name))
        if "fail" in record["body"]:
            failed.append({"itemIdentifier": record["messageId"]})
        if "crash" in record["body"] and received == "1":
            sys.stdout.flush()
            os._exit(3)
    return {"batchItemFailures": failed}
