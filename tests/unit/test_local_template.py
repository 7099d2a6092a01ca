from __future__ import annotations

from typing import Any

import pytest

from local.functions import read_functions
from local.properties import Properties
from local.runtime import concurrency
from local.template import Template, TemplateError

ENDPOINT = "http://127.0.0.1:5000/"


def template(resources: dict[str, Any] | None = None, **given: str) -> Template:
    document = {
        "Parameters": {"Prefix": {"Default": "pre"}, "Count": {"Type": "Number", "Default": 3}},
        "Resources": {
            "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Ref": "Prefix"}}},
            "Queue": {
                "Type": "AWS::SQS::Queue",
                "Properties": {"QueueName": {"Fn::Sub": "${Prefix}-q"}},
            },
            "Table": {"Type": "AWS::DynamoDB::Table", "Properties": {}},
            "Function": {"Type": "AWS::Serverless::Function", "Properties": {"Handler": "a.b"}},
            **(resources or {}),
        },
    }
    return Template(document, given, ENDPOINT)


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ({"Ref": "Prefix"}, "pre"),
        ({"Ref": "Count"}, 3),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Ref": "Bucket"}, "pre"),
        ({"Ref": "Queue"}, "http://127.0.0.1:5000/123456789012/pre-q"),
        ({"Ref": "Table"}, "Table"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, "arn:aws:sqs:us-east-1:123456789012:pre-q"),
        ({"Fn::GetAtt": "Queue.QueueName"}, "pre-q"),
        ({"Fn::GetAtt": ["Bucket", "Arn"]}, "arn:aws:s3:::pre"),
        ({"Fn::Sub": "${Prefix}/${Bucket.Arn}/${!Kept}"}, "pre/arn:aws:s3:::pre/${Kept}"),
        ({"Fn::Sub": ["${A}-${Prefix}", {"A": {"Ref": "Count"}}]}, "3-pre"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Prefix"}]]}, "a-pre"),
        (
            {"Deep": [{"Ref": "Prefix"}, {"Two": 2, "Keys": {"Ref": "Count"}}]},
            {"Deep": ["pre", {"Two": 2, "Keys": 3}]},
        ),
    ],
)
def test_resolves_what_it_understands(value: Any, resolved: Any) -> None:
    assert template().resolve(value) == resolved


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"Fn::If": ["A", 1, 2]}, "Fn::If"),
        ({"Fn::ImportValue": "x"}, "Fn::ImportValue"),
        ({"Ref": "Nobody"}, "Nobody"),
        ({"Fn::GetAtt": ["Bucket", "WebsiteURL"]}, "WebsiteURL"),
        ({"Fn::Sub": "${Nobody.Arn}"}, "Nobody"),
    ],
)
def test_refuses_the_rest_by_name(value: Any, named: str) -> None:
    with pytest.raises(TemplateError, match=named):
        template().resolve({"Property": [value]})


def test_given_parameters_replace_defaults_and_unknown_ones_are_refused() -> None:
    assert template(Prefix="other").resolve({"Ref": "Prefix"}) == "other"
    with pytest.raises(TemplateError, match="Nope"):
        template(Nope="x")


def test_a_parameter_without_value_is_refused() -> None:
    with pytest.raises(TemplateError, match="Needed"):
        Template({"Parameters": {"Needed": {}}, "Resources": {}}, {}, ENDPOINT)


def test_a_resource_attribute_that_changes_its_meaning_is_refused() -> None:
    with pytest.raises(TemplateError, match="Condition of Maybe"):
        template({"Maybe": {"Type": "AWS::SQS::Queue", "Condition": "C"}})


def test_properties_that_nobody_read_are_refused_with_their_path() -> None:
    properties = Properties("Bucket", {"Read": 1, "Skipped": 2, "Nested": {"Unknown": 3}})
    assert properties.take("Read") == 1
    properties.ignore({"Skipped": "a reason"})
    nested = properties.take_object("Nested")
    properties.finish()
    assert nested is not None
    with pytest.raises(TemplateError, match=r"Bucket\.Nested\.Unknown"):
        nested.finish()
    with pytest.raises(TemplateError, match=r"Bucket\.Missing is missing"):
        properties.take("Missing")


def test_reads_functions_with_their_events() -> None:
    body = {
        "Handler": "pkg.handler",
        "Role": "arn:aws:iam::1:role/R",
        "FunctionName": {"Fn::Sub": "${Prefix}-f"},
        "Timeout": 60,
        "MemorySize": 1769,
        "Environment": {"Variables": {"COUNT": {"Ref": "Count"}}},
        "Events": {
            "In": {
                "Type": "SQS",
                "Properties": {
                    "Queue": {"Fn::GetAtt": ["Queue", "Arn"]},
                    "BatchSize": 7,
                    "FunctionResponseTypes": ["ReportBatchItemFailures"],
                    "ScalingConfig": {"MaximumConcurrency": {"Ref": "Count"}},
                },
            },
            "Often": {"Type": "Schedule", "Properties": {"Schedule": "rate(5 minutes)"}},
            "Off": {
                "Type": "Schedule",
                "Properties": {"Schedule": "rate(1 day)", "Enabled": False},
            },
        },
    }
    read = read_functions(
        template({"F": {"Type": "AWS::Serverless::Function", "Properties": body}})
    )["F"]
    assert (read.name, read.handler, read.timeout_s, read.memory_mb) == (
        "pre-f",
        "pkg.handler",
        60.0,
        1769,
    )
    assert read.environment == {"COUNT": "3"}
    assert read.role_arn == "arn:aws:iam::1:role/R"
    assert [(q.queue_name, q.batch_size, q.maximum_concurrency) for q in read.queues] == [
        ("pre-q", 7, 3)
    ]
    assert [schedule.expression for schedule in read.schedules] == ["rate(5 minutes)"]


def test_a_function_runs_no_more_often_at_a_time_than_the_template_allows() -> None:
    body = {"Handler": "a.b", "ReservedConcurrentExecutions": 1}
    read = read_functions(
        template({"F": {"Type": "AWS::Serverless::Function", "Properties": body}})
    )
    assert concurrency(read["F"], 4) == 1
    assert concurrency(read["Function"], 4) == 4


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"Handler": "a.b", "VpcConfig": {}}, r"F\.VpcConfig"),
        ({"Handler": "a.b", "Events": {"E": {"Type": "S3", "Properties": {}}}}, "S3"),
        (
            {
                "Handler": "a.b",
                "Events": {
                    "E": {
                        "Type": "SQS",
                        "Properties": {"Queue": "arn:q", "FilterCriteria": {"Filters": []}},
                    }
                },
            },
            "FilterCriteria",
        ),
    ],
)
def test_refuses_function_properties_it_does_not_understand(
    properties: dict[str, Any], named: str
) -> None:
    resource = {"F": {"Type": "AWS::Serverless::Function", "Properties": properties}}
    with pytest.raises(TemplateError, match=named):
        read_functions(template(resource))
