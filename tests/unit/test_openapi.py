from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from app import app
from lookalike.core.filters import parse_filter
from lookalike.core.material import MAX_PARTS
from lookalike.http.examples import EXPLANATION, SEARCH_BODIES, SEARCH_RESPONSE
from lookalike.http.explanation_parameters import PICTURES
from lookalike.http.message import HttpRequest
from lookalike.http.openapi import document
from lookalike.http.operations import OPERATIONS
from lookalike.http.requests import read_search
from lookalike.services.query_material import MAX_PHOTO_BYTES


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


@pytest.mark.parametrize(
    ("path", "method"), [("/search", "post"), ("/products/{product_id}/similar", "get")]
)
def test_explain_is_described(path: str, method: str) -> None:
    parameters = document()["paths"][path][method]["parameters"]
    (explain,) = (item for item in parameters if item["name"] == "explain")
    assert explain["schema"]["type"] == "boolean" and explain["schema"]["default"] is True
    assert "explanations_expire_at" in explain["description"]


def test_the_example_of_an_answer_has_every_field() -> None:
    Draft202012Validator(schema_of("SearchResponse")).validate(SEARCH_RESPONSE)
    result = document()["components"]["schemas"]["Result"]
    assert set(SEARCH_RESPONSE["results"][0]) == set(result["properties"])
    assert set(SEARCH_RESPONSE) == set(
        document()["components"]["schemas"]["SearchResponse"]["properties"]
    )


def test_the_example_of_an_explanation_is_one() -> None:
    Draft202012Validator(schema_of("ExplanationAnswer")).validate(EXPLANATION)
    schemas = document()["components"]["schemas"]
    assert set(EXPLANATION) == set(schemas["ExplanationAnswer"]["properties"])
    assert set(EXPLANATION["trust"]["query"]) == set(schemas["Trust"]["properties"])
    for side in ("query", "result"):
        cells = [cell for row in EXPLANATION[side]["contributions"] for cell in row]
        assert sum(cells) == pytest.approx(EXPLANATION["score"], abs=1e-5)


def test_it_says_when_nothing_can_be_explained() -> None:
    text = document()["paths"]["/search"]["post"]["description"]
    limits = (f"{MAX_PHOTO_BYTES // 10**6} MB", f"{MAX_PARTS} images")
    for said in ("null", "explain=false", "not kept at all", *limits, "written in time"):
        assert said in text


def test_pictures_are_described() -> None:
    of_picture = document()["paths"]["/explanations/{query_id}/{product_id}/{picture}"]["get"]
    names = {item["name"]: item for item in of_picture["parameters"]}
    assert set(names) == {"query_id", "product_id", "picture", "map", "part", "max_side"}
    assert names["picture"]["schema"]["enum"] == list(PICTURES)
    assert names["map"]["schema"]["enum"] == ["contributions", "gradcam", "pulls"]
    answers = of_picture["responses"]
    assert set(answers["200"]["content"]) == {"image/png", "image/webp"}
    assert set(answers["303"]["headers"]) == {"X-Cache", "Location"}
    assert {"404", "410", "422"} <= set(answers)


def test_every_problem_is_described_and_none_is_spare() -> None:
    described = {name for name in document()["components"]["responses"]}
    text = json.dumps(document()["paths"])
    used = {name for name in described if f'"#/components/responses/{name}"' in text}
    assert {f"Problem{status}" for item in OPERATIONS for status in item.problems} <= used
    assert used <= described <= used | {"Problem405"}


def test_every_operation_and_parameter_says_what_it_is() -> None:
    for item in document()["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert all(parameter["description"] for parameter in operation["parameters"])
