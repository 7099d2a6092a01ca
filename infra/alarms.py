"""The template's alarms: which metric, from which value on, and why from that one.

What to do when one rings is in docs/operations.md, a section each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: it rings when ``statistic`` of ``metric`` is over ``threshold``.

    That is in each of ``periods`` periods of ``period_s`` seconds. ``namespace`` is ``AWS/SQS``,
    ``AWS/Lambda`` or the functions' own, ``of`` the logical id of the queue or function. Without
    ``over`` it rings under the threshold, and when nothing is reported at all.
    """

    description: str
    namespace: str
    metric: str
    of: str
    statistic: str
    threshold: float
    period_s: int = 5 * MINUTE_S
    periods: int = 1
    over: bool = True

    def resource(self, name: str) -> Json:
        """The CloudFormation resource of this logical id, which the alarm's name ends with."""
        statistic: Json = {"Statistic": self.statistic}
        if self.statistic.startswith("p"):
            # A percentile of a few samples is the slowest of them.
            statistic = {
                "ExtendedStatistic": self.statistic,
                "EvaluateLowSampleCountPercentile": "ignore",
            }
        topic = [{"Ref": "AlarmTopicArn"}]
        return {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmName": {"Fn::Sub": f"${{NamePrefix}}-{name}"},
                "AlarmDescription": self.description,
                "Namespace": self.namespace,
                "MetricName": self.metric,
                "Dimensions": [self._dimension()],
                **statistic,
                "Threshold": self.threshold,
                "ComparisonOperator": "GreaterThanThreshold" if self.over else "LessThanThreshold",
                "Period": self.period_s,
                "EvaluationPeriods": self.periods,
                "TreatMissingData": "notBreaching" if self.over else "breaching",
                "AlarmActions": {"Fn::If": ["HasAlarmTopic", topic, {"Ref": "AWS::NoValue"}]},
            },
        }

    def _dimension(self) -> Json:
        if self.namespace == "AWS/SQS":
            return {"Name": "QueueName", "Value": {"Fn::GetAtt": [self.of, "QueueName"]}}
        name = "FunctionName" if self.namespace == "AWS/Lambda" else "function_name"
        return {"Name": name, "Value": {"Ref": self.of}}


def _errors(of: str, runs: int, period_s: int, what: str) -> Alarm:
    return Alarm(what, "AWS/Lambda", "Errors", of, "Sum", runs, period_s)


def _duration(of: str, threshold_ms: int, what: str) -> Alarm:
    return Alarm(what, "AWS/Lambda", "Duration", of, "Maximum", threshold_ms)


def _own(metric: str, of: str, statistic: str, threshold: float, what: str, **when: Any) -> Alarm:
    return Alarm(what, "Lookalike", metric, of, statistic, threshold, **when)


def _of_scheduled_work(of: str, late_h: int, nothing: str) -> dict[str, Alarm]:
    """Alarms of a function that does slices of work every minute.

    A run takes several slices on a large catalogue. One that cannot go on is postponed, and no run
    comes to its end; one that dies five times is given up and begun anew.
    """
    return {
        f"{of}ErrorsAlarm": _errors(
            of, 2, 15 * MINUTE_S, f"The {of.lower()} function fails again and again."
        ),
        f"{of}DurationAlarm": _duration(
            of, 885_000, f"A slice of the {of.lower()} function does not stop in time."
        ),
        f"{of}LateAlarm": _own(
            *("RunFinished", of, "Sum", 1),
            f"{nothing} for {late_h} hours.",
            period_s=late_h * HOUR_S,
            over=False,
        ),
        f"{of}GivenUpAlarm": _own(
            *("RunsGivenUp", of, "Sum", 0),
            f"A run of the {of.lower()} function died five times and was given up.",
            period_s=15 * MINUTE_S,
        ),
    }


# Thresholds: a function that answers a request or a message is near its timeout at four fifths of
# it; one that runs on a schedule works until 10 or 30 s before it, so there only what comes after
# that is late. A run that fails is followed by another within the minute (sweep: a quarter of an
# hour), so one alone is no alarm.
ALARMS = {
    "DeadLetterAlarm": Alarm(
        "Messages of the ingest queue were given up; their objects have failure records.",
        *("AWS/SQS", "ApproximateNumberOfMessagesVisible", "IngestDeadLetterQueue"),
        *("Maximum", 0),
    ),
    # Two failed tries, each of which hides a message for six minutes, are no alarm.
    "IngestAgeAlarm": Alarm(
        "Uploads have waited longer than a quarter of an hour to become searchable.",
        *("AWS/SQS", "ApproximateAgeOfOldestMessage", "IngestQueue", "Maximum", 900),
    ),
    # The median, which neither retries nor what a sweep finds can move alone.
    "FreshnessAlarm": _own(
        *("Freshness", "Embed", "p50", 120),
        "Half of what becomes searchable was uploaded over two minutes before.",
        periods=3,
    ),
    # More broken files in an hour than a person would notice one by one.
    "FailuresAlarm": _own(
        *("FailuresFiled", "Embed", "Sum", 100),
        "Over a hundred objects an hour cannot be indexed.",
        period_s=HOUR_S,
    ),
    "EmbedErrorsAlarm": _errors("Embed", 0, 5 * MINUTE_S, "The embed function fails."),
    "EmbedThrottlesAlarm": Alarm(
        "The embed function is denied processes; uploads wait.",
        *("AWS/Lambda", "Throttles", "Embed", "Sum", 0),
        periods=3,
    ),
    "EmbedDurationAlarm": _duration(
        "Embed", 48_000, "A batch of uploads takes four fifths of the embed function's timeout."
    ),
    "QueryErrorsAlarm": _errors("APIHandler", 0, 5 * MINUTE_S, "The query function fails."),
    "QueryThrottlesAlarm": Alarm(
        "The query function is denied processes; requests fail.",
        *("AWS/Lambda", "Throttles", "APIHandler", "Sum", 0),
    ),
    "QueryDurationAlarm": _duration(
        "APIHandler", 23_000, "A request takes four fifths of the query function's timeout."
    ),
    # Warm searches take tens of milliseconds; a second is what a shopper waits for.
    "SearchLatencyAlarm": _own(
        *("SearchLatency", "APIHandler", "p95", 1000),
        "One search in twenty takes longer than a second.",
        periods=3,
    ),
    # One alone is a throttle that the caller's retry has got over.
    "ServerErrorsAlarm": _own(
        *("Answers5xx", "APIHandler", "Sum", 5),
        "Requests are answered with 500 or 503.",
        periods=2,
    ),
    # One a second.
    "AccessRefusedAlarm": _own(
        *("AccessRefused", "APIHandler", "Sum", 300),
        "Many requests are refused for their API key or their rate.",
    ),
    "SearchesNotLoggedAlarm": _own(
        *("SearchesNotLogged", "APIHandler", "Sum", 0),
        "Searches were answered that are not in the search log.",
    ),
    "SweepErrorsAlarm": _errors("Sweep", 1, HOUR_S, "The sweep fails again and again."),
    "SweepDurationAlarm": _duration("Sweep", 296_000, "A sweep does not stop in time."),
    # 24 runs in which not one came to its end.
    "SweepLateAlarm": _own(
        *("RunFinished", "Sweep", "Sum", 1),
        "No sweep has been finished for six hours.",
        period_s=6 * HOUR_S,
        over=False,
    ),
    # Events get lost rarely; a hundred in an hour have one cause.
    "DriftAlarm": _own(
        *("SweepAskedAgain", "Sweep", "Sum", 100),
        "Bucket, records and index differ in over a hundred places.",
        period_s=HOUR_S,
    ),
    "CompactErrorsAlarm": _errors(
        "Compact", 2, 15 * MINUTE_S, "The compact function fails again and again."
    ),
    "CompactDurationAlarm": _duration("Compact", 885_000, "A compaction does not stop in time."),
    # Two runs of the longest that there may be.
    "CompactLateAlarm": _own(
        *("RunFinished", "Compact", "Sum", 1),
        "No compaction has come to its end for half an hour.",
        period_s=30 * MINUTE_S,
        over=False,
    ),
    "CompactPostponedAlarm": _own(
        *("CataloguesPostponed", "Compact", "Minimum", 0),
        "Every compaction for an hour had to leave a catalogue to the next.",
        period_s=HOUR_S,
    ),
    "UnreadableFilesAlarm": _own(
        *("UnreadableFiles", "Compact", "Sum", 0),
        "Index files cannot be read; searches miss their rows.",
        period_s=15 * MINUTE_S,
    ),
    "ReindexErrorsAlarm": _errors(
        "Reindex", 2, 15 * MINUTE_S, "The reindex function fails again and again."
    ),
    "ReindexDurationAlarm": _duration("Reindex", 885_000, "A reindex run does not stop in time."),
    "ReindexPostponedAlarm": _own(
        *("CataloguesPostponed", "Reindex", "Minimum", 0),
        "Every reindex run for an hour had to leave a catalogue to the next.",
        period_s=HOUR_S,
    ),
    **_of_scheduled_work("Recluster", 6, "No clusters and calibrations have been finished"),
    **_of_scheduled_work("Project", 6, "No maps have been finished"),
    **_of_scheduled_work("Health", 6, "No examination of the catalogues has been finished"),
    # What expires before it is counted is lost; that takes months.
    **_of_scheduled_work("Rollup", 6, "The search log has not been added up"),
    "HoursNotCountedAlarm": _own(
        *("HoursNotCounted", "Rollup", "Sum", 0),
        "Searches expired before they were added up.",
        period_s=15 * MINUTE_S,
    ),
}
"""By logical id."""


def alarm_resources() -> Json:
    """The template's part."""
    return {name: alarm.resource(name) for name, alarm in ALARMS.items()}
