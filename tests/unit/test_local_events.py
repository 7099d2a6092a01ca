from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from local.api_definition import read_api
from local.pollers import failed_items, record, retry_delay_s
from local.proxy_event import MalformedAnswer, ProxyRequest, build_event, read_answer
from local.template import Template, TemplateError
from lookalike.core.errors import InvalidRequest
from lookalike.http.parameters import SimilarParameters
from lookalike.http.validation import query_parameters

MESSAGE = {
    "MessageId": "m1",
    "ReceiptHandle": "h1",
    "Body": "text",
    "MD5OfBody": "1cb251ec0d568de6a929b520c4aed8d1",
    "Attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": "1"},
    "MessageAttributes": {"Kind": {"StringValue": "x", "DataType": "String"}},
}


def request(**changed: Any) -> ProxyRequest:
    values: dict[str, Any] = {
        "method": "POST",
        "path": "/products/a%2Fb",
        "query": "k=1&k=2&empty=&plus=a+b%26",
        "headers": (("Host", "h"), ("Accept", "a/b"), ("X-Two", "1"), ("x-two", "2")),
        "body": b"",
        "resource": "/products/{id}",
        "path_parameters": {"id": "a%2Fb"},
        "stage": "api",
        "request_id": "r1",
        "source_ip": "127.0.0.1",
        "received": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return ProxyRequest(**{**values, **changed})


def test_sqs_records_have_lambdas_shape() -> None:
    assert record(MESSAGE, "arn:aws:sqs:us-east-1:123456789012:q") == {
        "messageId": "m1",
        "receiptHandle": "h1",
        "body": "text",
        "attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": "1"},
        "messageAttributes": {
            "Kind": {
                "stringValue": "x",
                "binaryValue": None,
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": "String",
            }
        },
        "md5OfBody": "1cb251ec0d568de6a929b520c4aed8d1",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:q",
        "awsRegion": "us-east-1",
    }


@pytest.mark.parametrize(
    ("payload", "failed"),
    [
        (b"null", set()),
        (b"", set()),
        (b"{}", set()),
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": null}', set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "unknown"}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"id": "b"}]}', {"a", "b"}),
        (b'{"batchItemFailures": ["b"]}', {"a", "b"}),
        (b'{"batchItemFailures": 3}', {"a", "b"}),
        (b'"text"', {"a", "b"}),
        (b"not json", {"a", "b"}),
    ],
)
def test_partial_failures_are_read_as_lambda_reads_them(payload: bytes, failed: set[str]) -> None:
    assert failed_items(payload, ["a", "b"]) == failed


def test_retries_come_later_each_time_up_to_a_minute() -> None:
    delays = [
        retry_delay_s({"Attributes": {"ApproximateReceiveCount": str(count)}})
        for count in (1, 2, 3, 7, 5000)
    ]
    assert delays == [1, 2, 4, 60, 60]


def test_a_proxy_event_keeps_every_value_and_the_paths_encoding() -> None:
    event = build_event(request(), ())
    assert event["resource"] == "/products/{id}"
    assert event["path"] == "/products/a%2Fb"
    assert event["pathParameters"] == {"id": "a%2Fb"}
    assert event["multiValueQueryStringParameters"] == {
        "k": ["1", "2"],
        "empty": [""],
        "plus": ["a b&"],
    }
    assert event["queryStringParameters"] == {"k": "2", "empty": "", "plus": "a b&"}
    assert event["multiValueHeaders"]["Accept"] == ["a/b"]
    assert event["headers"]["x-two"] == "2"
    assert event["body"] is None
    assert event["isBase64Encoded"] is False
    assert event["requestContext"]["requestId"] == "r1"
    assert event["requestContext"]["resourcePath"] == "/products/{id}"
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["requestTimeEpoch"] == 1767323045000


@pytest.mark.parametrize("query", ["filter=a=%ff%fe", "filter=a%3D%C3", "filter=a=\udcff"])
def test_a_query_that_is_not_utf8_is_refused_by_the_function(query: str) -> None:
    event = build_event(request(query=query), ())
    with pytest.raises(InvalidRequest, match="“filter” is not valid UTF-8"):
        query_parameters(event["multiValueQueryStringParameters"], SimilarParameters)


@pytest.mark.parametrize(
    ("content_type", "types", "binary"),
    [
        ("image/png", ("image/*",), True),
        ("IMAGE/PNG", ("image/png",), True),
        ("multipart/form-data; boundary=x", ("multipart/form-data",), True),
        ("application/json", ("image/*",), False),
        ("application/json", ("*/*",), True),
        ("", ("image/*",), False),
        ("", ("*/*",), True),
    ],
)
def test_bodies_are_base64_by_media_type(
    content_type: str, types: tuple[str, ...], binary: bool
) -> None:
    headers = (("content-type", content_type),) if content_type else ()
    event = build_event(request(body="é".encode(), headers=headers), types)
    assert event["isBase64Encoded"] is binary
    assert event["body"] == (base64.b64encode("é".encode()).decode() if binary else "é")


def test_answers_merge_headers_and_decode_for_clients_that_accept() -> None:
    payload = json.dumps(
        {
            "statusCode": 201,
            "headers": {"Content-Type": "image/png", "X-A": "single", "X-B": 1},
            "multiValueHeaders": {"x-a": ["one", "two"]},
            "body": "iVBOR/8=",
            "isBase64Encoded": True,
        }
    ).encode()
    answer = read_answer(payload, "image/png,*/*", ("image/*",))
    assert answer.status == 201
    assert answer.body == b"\x89PNG\xff"
    assert sorted(answer.headers) == [
        ("Content-Type", "image/png"),
        ("X-B", "1"),
        ("x-a", "one"),
        ("x-a", "two"),
    ]
    for accept in (None, "text/html,image/png"):
        assert read_answer(payload, accept, ("image/*",)).body == b"iVBOR/8="
    for accept in (None, "", "text/html,image/png", "nonsense"):
        assert read_answer(payload, accept, ("*/*",)).body == b"\x89PNG\xff"
    text = b'{"body": "iVBOR/8="}'
    assert read_answer(text, None, ("*/*",)).body == b"iVBOR/8="


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "text",
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 200, "body": {"not": "text"}},
        {"statusCode": 200, "extra": 1},
        {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
    ],
)
def test_malformed_answers_are_refused(answer: Any) -> None:
    with pytest.raises(MalformedAnswer):
        read_answer(json.dumps(answer).encode(), None, ())


def api_template(paths: dict[str, Any], **definition: Any) -> Template:
    return Template(
        {
            "Resources": {
                "F": {"Type": "AWS::Serverless::Function", "Properties": {"Handler": "a.b"}},
                "Api": {
                    "Type": "AWS::Serverless::Api",
                    "Properties": {
                        "StageName": "api",
                        "DefinitionBody": {"swagger": "2.0", "paths": paths, **definition},
                    },
                },
            }
        },
        {},
        "http://127.0.0.1:1",
    )


def proxied() -> dict[str, Any]:
    uri = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/${F.Arn}/invocations"
    return {
        "get": {"x-amazon-apigateway-integration": {"type": "aws_proxy", "uri": {"Fn::Sub": uri}}}
    }


@pytest.mark.parametrize(
    ("path", "resource", "parameters"),
    [
        ("/", "/", {}),
        ("/products", "/products", {}),
        ("/products/", "/products", {}),
        ("/products/search", "/products/search", {}),
        ("/products/7", "/products/{id}", {"id": "7"}),
        ("/products/a%2Fb%20c", "/products/{id}", {"id": "a%2Fb%20c"}),
        ("/prod%75cts", "/products", {}),
        ("/files/a/b", "/files/{rest+}", {"rest": "a/b"}),
        ("/files", None, {}),
        ("/nothing", None, {}),
    ],
)
def test_routes_prefer_literal_segments(
    path: str, resource: str | None, parameters: dict[str, str]
) -> None:
    resources = ("/files/{rest+}", "/products/{id}", "/products/search", "/products", "/")
    api = read_api(api_template({name: proxied() for name in resources}))
    assert api is not None
    found = api.find(path)
    assert (found[0].resource if found else None) == resource
    assert (found[1] if found else {}) == parameters


def test_gateway_answers_come_from_the_template_with_their_variables() -> None:
    responses = {
        "DEFAULT_5XX": {
            "statusCode": 500,
            "responseParameters": {"gatewayresponse.header.Content-Type": "'text/x'"},
            "responseTemplates": {
                "application/json": "$context.requestId $context.error.messageString"
            },
        }
    }
    api = read_api(api_template({}, **{"x-amazon-apigateway-gateway-responses": responses}))
    assert api is not None
    answer = api.answer("INTEGRATION_ERROR", 502)
    assert (answer.status, dict(answer.headers)) == (500, {"Content-Type": "text/x"})
    assert answer.body("r1", "X", 'say "no"') == 'r1 "say \\"no\\""'
    usual = api.answer("MISSING_AUTHENTICATION_TOKEN", 403)
    assert json.loads(usual.body("r1", "X", "gone")) == {"message": "gone"}


def test_integrations_and_definitions_that_are_not_understood_are_refused() -> None:
    http = {"get": {"x-amazon-apigateway-integration": {"type": "http_proxy", "uri": "u"}}}
    with pytest.raises(TemplateError, match="http_proxy"):
        read_api(api_template({"/": http}))
    with pytest.raises(TemplateError, match="x-amazon-apigateway-policy"):
        read_api(api_template({}, **{"x-amazon-apigateway-policy": {}}))
