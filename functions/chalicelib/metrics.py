"""The functions' metrics: log lines in CloudWatch's embedded metric format (EMF).

A line of the log that carries ``metrics`` is a data point of each metric that it names, beside its
request ids. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

NAMESPACE = "Lookalike"
DIMENSION = "function_name"
UNITS = {
    # embed
    "Freshness": "Seconds",  # upload → searchable, one value a photo
    "QueueAge": "Seconds",  # sent → received, one value a message
    "FailuresFiled": "Count",
    "GiveUps": "Count",
    "Postponed": "Count",
    "UnreadableMessages": "Count",
    # query
    "SearchLatency": "Milliseconds",
    "SearchDecode": "Milliseconds",
    "SearchEncode": "Milliseconds",
    "SearchIndex": "Milliseconds",
    "SearchHydrate": "Milliseconds",
    "SearchesNotLogged": "Count",
    "AnswerTime": "Milliseconds",
    "Answers2xx": "Count",
    "Answers3xx": "Count",
    "Answers4xx": "Count",
    "Answers5xx": "Count",
    "AccessRefused": "Count",  # 401, 403 and 429
    # all that run on a schedule but reindex: 1 for a run that came to the end of its work, else 0
    "RunFinished": "Count",
    # all that run on a schedule but sweep
    "CataloguesPostponed": "Count",
    # compact
    "UnreadableFiles": "Count",
    # recluster, project, health and rollup
    "RunsGivenUp": "Count",
    # rollup: hours whose entries expired before they were counted
    "HoursNotCounted": "Count",
    # sweep: keys that it asked for
    "SweepAskedAgain": "Count",
}
"""Every metric and its unit."""

_measured = logging.getLogger("lookalike.metrics")
_measured.setLevel(logging.INFO)  # whatever the level of the log is


def measure(
    message: str, metrics: Mapping[str, float | Sequence[float]], **context: object
) -> None:
    """Write one line of the log, whatever its level, that counts in each of ``metrics``.

    Parameters
    ----------
    message
        What happened.
    metrics
        Names out of `UNITS`, each with its value, or with its values (at most 100).
    context
        More keys of the line: ids and whatever explains the values.
    """
    _measured.info(message, extra={**context, "metrics": metrics})


class EmbeddedMetrics(logging.Filter):
    """Makes EMF of records that carry ``metrics``; lets everything pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what CloudWatch reads to the record."""
        metrics: Mapping[str, float | Sequence[float]] | None = record.__dict__.pop("metrics", None)
        if metrics:
            named = [{"Name": name, "Unit": UNITS.get(name, "None")} for name in metrics]
            directive = {"Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": named}
            record.__dict__.update(metrics)
            record.__dict__["_aws"] = {
                "Timestamp": int(record.created * 1000),
                "CloudWatchMetrics": [directive],
            }
        return True
