"""What a function that is no HTTP route answers when it will never do what an event asks for."""

from __future__ import annotations

from chalicelib.log import logger
from lookalike.core.errors import Reject


def refusal(error: Reject) -> dict[str, str]:
    """Log a refusal in one line and give the answer: a failed invocation's, without failing.

    A raised error would be an alarm, with a traceback, for what its sender has to mend.
    """
    kind = type(error).__name__
    logger.warning("refused", error=str(error), kind=kind)
    return {"errorType": kind, "errorMessage": str(error)}
