from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from app import app
from lookalike.core.filters import parse_filter
from lookalike.http.examples import SEARCH_BODIES, SEARCH_RESPONSE
from lookalike.http.message import HttpRequest
from lookalike.http.openapi import document
from lookalike.http.requests import read_search


def schema_of(name: str) -> dict[str, Any]:
    components = copy.deepcopy(document()["components"])
    return {"$ref": f"#/components/schemas/{name}", "components": components}


def test_the_document_is_valid() -> None:
    validate(document())


def test_it_describes_exactly_the_routes_that_exist() -> None:
    described = {
        (method.upper(), path) for path, item in document()["paths"].items() for method in item
    }
    routed = {(method, path) for path, methods in app.routes.items() for method in methods}
    assert described == routed


def test_every_schema_is_used_and_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    for name in document()["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text


@pytest.mark.parametrize("name", SEARCH_BODIES)
def test_examples_of_requests_are_valid_and_are_read(name: str) -> None:
    example = SEARCH_BODIES[name]["value"]
    Draft202012Validator(schema_of("SearchBody")).validate(example)
    body = json.dumps(example).encode()
    assert read_search(HttpRequest(content_type="application/json", body=body)).inputs


def test_examples_of_filters_are_filters() -> None:
    body = document()["components"]["schemas"]["SearchBody"]["properties"]
    assert len(body["filter"]["examples"]) > 1
    for example in body["filter"]["examples"]:
        assert parse_filter(example).attributes
    of_search = {
        item["name"]: item for item in document()["paths"]["/search"]["post"]["parameters"]
    }
    for example in of_search["filter"]["schema"]["examples"]:
        assert parse_filter(example).attributes


@pytest.mark.parametrize(
    ("path", "method"), [("/search", "post"), ("/products/{product_id}/similar", "get")]
)
def test_exact_is_described(path: str, method: str) -> None:
    parameters = document()["paths"][path][method]["parameters"]
    (exact,) = (item for item in parameters if item["name"] == "exact")
    assert exact["schema"]["type"] == "boolean" and exact["schema"]["default"] is False
    assert "Score every row" in exact["description"]


def test_the_example_of_an_answer_has_every_field() -> None:
    Draft202012Validator(schema_of("SearchResponse")).validate(SEARCH_RESPONSE)
    result = document()["components"]["schemas"]["Result"]
    assert set(SEARCH_RESPONSE["results"][0]) == set(result["properties"])
    assert set(SEARCH_RESPONSE) == set(
        document()["components"]["schemas"]["SearchResponse"]["properties"]
    )


def test_every_operation_and_parameter_says_what_it_is() -> None:
    for item in document()["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert all(parameter["description"] for parameter in operation["parameters"])
