"""The API's description (OpenAPI 3.1), generated from the types that requests and answers have."""

from __future__ import annotations

import copy
import functools
from typing import Any

import msgspec

from lookalike import __version__
from lookalike.http.examples import EXPLANATION, SEARCH_BODIES, SEARCH_RESPONSE
from lookalike.http.explanation_parameters import PICTURES
from lookalike.http.message import JSON_TYPE
from lookalike.http.operations import OPERATIONS, Operation
from lookalike.http.parameters import SearchBody
from lookalike.http.problems import PROBLEM_TYPE, Problem
from lookalike.services.explanation_answer import ExplanationAnswer
from lookalike.services.query import SearchResponse

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"
PROBLEM_DESCRIPTIONS = {
    400: "The request or its URL is too long or broken, or the body is not what its content type "
    "says.",
    401: "There is no API key with this request, or none that is valid.",
    403: "The API key is not for this catalogue, or may not do this.",
    404: "The catalogue, product, upload, search or picture does not exist.",
    405: "The route exists, but not with this method; `Allow` says which do.",
    410: "The search has expired, or the product or its photo has been deleted or replaced since.",
    413: "The body or the image is too large.",
    415: "The body is of a kind that is not read here, or the file is no image.",
    422: "A value is not allowed (`parameter`), or the image cannot be used (`reason`).",
    429: "The API key has used up its requests of this minute; `Retry-After` says when to come "
    "back.",
    500: "Something went wrong here. It was logged under `instance`.",
    502: "The function did not finish.",
    503: "A part of the service cannot be reached; `Retry-After` says when to come back.",
    504: "The function did not answer in time.",
}
KEY_PROBLEMS = (401, 403, 429)
GATEWAY_PROBLEMS = (400, 502, 504)
HEADERS_OF_PROBLEMS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "integer"}}},
    503: {"Retry-After": {"schema": {"type": "integer"}}},
}
SECURITY_SCHEME: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, as `lookalike keys create` prints it. Some are for certain "
    "catalogues only, and most may not delete. `lookalike up` asks for none, unless it is started "
    "with `--require-api-key`.",
}
PATH_PARAMETERS: dict[str, Json] = {
    "query_id": {
        "description": "The `query_id` of a search's answer.",
        "schema": {"type": "string"},
        "example": SEARCH_RESPONSE["query_id"],
    },
    "product_id": {
        "description": "The product's id, percent-encoded.",
        "schema": {"type": "string"},
        "example": "boot-7",
    },
    "cluster_id": {
        "description": "The `cluster_id` of a cluster.",
        "schema": {"type": "string"},
        "example": "c3",
    },
    "picture": {
        "description": "What is drawn, and the kind of file.",
        "schema": {"type": "string", "enum": list(PICTURES)},
        "example": "pair.png",
    },
}
EXAMPLES = {SearchResponse: SEARCH_RESPONSE, ExplanationAnswer: EXPLANATION}
X_CACHE = {
    "description": "`hit`: the answer was there already; `miss`: it was computed for this request.",
    "schema": {"type": "string", "enum": ["hit", "miss"]},
}
LOCATION = {"schema": {"type": "string"}}
# Lists of numbers, and what may be an object, are one field each.
TEXTS_OF_A_FORM = {
    "crop": "0.25,0.1,0.5,0.8",
    "weights": "1,0.5",
    "cells": "[[3,3],[3,4]]",
    "filter": "category=shoes,price<=50",
}
DESCRIPTION = """\
Visual product search: put photos into a bucket, search with a photo.

`POST /search` takes an image as it is (`Content-Type: image/jpeg`), a form, or JSON. Request bodies
hold up to 4.5 MB, which is 3.3 MB of image in JSON; for larger images ask `POST /uploads` for an
upload and search with its key. `explanation_url` of each result says why it was found. Errors are
problem documents (RFC 9457).
"""


@functools.cache
def document() -> Json:
    """The OpenAPI document; treat it as read-only."""
    answers = {kind for operation in OPERATIONS for kind in operation.answers}
    parameters = {operation.parameters for operation in OPERATIONS}
    bodies = {operation.body for operation in OPERATIONS if operation.body is not None}
    _, schemas = msgspec.json.schema_components(
        sorted({Problem, SearchBody} | bodies | answers, key=lambda kind: kind.__name__),
        ref_template=REFERENCE,
    )
    _, of_parameters = msgspec.json.schema_components(parameters, ref_template=REFERENCE)
    paths: Json = {}
    for operation in OPERATIONS:
        properties = of_parameters[operation.parameters.__name__]["properties"]
        described = _operation(operation, properties, schemas)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lookalike",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to this document, so that it is right below any host and stage.
        "servers": [{"url": "."}],
        "tags": [
            {"name": "Search", "description": "Find the products that look like a photo."},
            {"name": "Explanations", "description": "Why a product matches a search."},
            {"name": "Products", "description": "What the catalogues hold, and in which groups."},
            {"name": "Service", "description": "Health, counts and this description."},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": SECURITY_SCHEME},
            "schemas": schemas,
            "responses": {
                f"Problem{status}": {
                    "description": text,
                    "headers": HEADERS_OF_PROBLEMS.get(status, {}),
                    "content": {
                        PROBLEM_TYPE: {"schema": {"$ref": REFERENCE.format(name="Problem")}}
                    },
                }
                for status, text in PROBLEM_DESCRIPTIONS.items()
            },
        },
    }


def _operation(operation: Operation, properties: Json, schemas: Json) -> Json:
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": [{"apiKey": []}] if operation.right else [],
        "parameters": _parameters(operation, properties),
        "responses": _responses(operation),
    }
    if operation.takes_search:
        described["requestBody"] = _search_body(schemas)
    if operation.body is not None:
        schema = {"$ref": REFERENCE.format(name=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    return described


def _parameters(operation: Operation, properties: Json) -> list[Json]:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, **described}
        for name, described in PATH_PARAMETERS.items()
        if f"{{{name}}}" in operation.path
    ]
    for name, schema in properties.items():
        described = copy.deepcopy(schema)
        # Absent, not null, is how a query says nothing.
        kinds = [kind for kind in described.pop("anyOf", []) if kind != {"type": "null"}]
        if kinds:
            described = {**kinds[0], **{k: v for k, v in described.items() if v is not None}}
        text = described.pop("description", "")
        parameters.append({"name": name, "in": "query", "description": text, "schema": described})
    return parameters


def _responses(operation: Operation) -> Json:
    answer: Json = {"description": operation.summary}
    if operation.answers:
        kinds = [{"$ref": REFERENCE.format(name=kind.__name__)} for kind in operation.answers]
        content: Json = {"schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}
        if operation.answers[0] in EXAMPLES:
            content["example"] = EXAMPLES[operation.answers[0]]
        answer["content"] = {JSON_TYPE: content}
    elif operation.media_types:
        answer["content"] = {kind: {"schema": {}} for kind in operation.media_types}
    cache: Json = {"X-Cache": X_CACHE} if operation.cached else {}
    headers = cache | ({"Location": LOCATION} if operation.status == 302 else {})
    if headers:
        answer["headers"] = headers
    responses = {str(operation.status): answer}
    if operation.elsewhere:
        responses[str(operation.elsewhere)] = {
            "description": "It is at another URL, which opens for an hour.",
            "headers": cache | {"Location": LOCATION},
        }
    problems = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in sorted(
            {*operation.problems, *GATEWAY_PROBLEMS, *(KEY_PROBLEMS if operation.right else ())}
        )
    }
    return responses | problems


def _search_body(schemas: Json) -> Json:
    """The three ways to send a search. A form has the JSON body's fields; lists of ids repeat."""
    binary = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = copy.deepcopy(schemas[SearchBody.__name__])
    form["properties"]["image"] = {
        "type": "array",
        "items": binary,
        "description": "One image file or several, each as a part named `image`.",
    }
    for name, example in TEXTS_OF_A_FORM.items():
        text = form["properties"][name]["description"]
        form["properties"][name] = {"type": "string", "description": text, "examples": [example]}
    form.pop("title", None)
    reference = {"$ref": REFERENCE.format(name=SearchBody.__name__)}
    return {
        "required": True,
        "content": {
            JSON_TYPE: {"schema": reference, "examples": SEARCH_BODIES},
            "multipart/form-data": {"schema": form},
            "image/*": {"schema": binary},
            "application/octet-stream": {"schema": binary},
        },
    }
