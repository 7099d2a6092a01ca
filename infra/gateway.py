"""What API Gateway does around the functions: unknown methods and its own errors.

Chalice describes only the routes. This adds what makes every answer of the API, also those that no
function sees, a problem document.
"""

from __future__ import annotations

import copy
import json
from typing import Any

Json = dict[str, Any]

ANY_METHOD = "x-amazon-apigateway-any-method"
ALLOW_METHODS = "method.response.header.Access-Control-Allow-Methods"
ALLOW_ANY_ORIGIN = "gatewayresponse.header.Access-Control-Allow-Origin"
CONTENT_TYPE = "gatewayresponse.header.Content-Type"

NO_ROUTE = (
    404,
    "not-found",
    "Not found",
    "There is no such route. GET /openapi.json describes those that exist.",
)
# Response types of API Gateway: (status, kind of problem, title, what the caller can do).
GATEWAY_RESPONSES: dict[str, tuple[int, str, str, str]] = {
    "REQUEST_TOO_LARGE": (
        413,
        "too-large",
        "Too large",
        "The body is too large: images over 4.5 MB (in JSON, 3.3 MB) go through POST /uploads.",
    ),
    "UNSUPPORTED_MEDIA_TYPE": (
        415,
        "unsupported-media",
        "Unsupported media type",
        "Send image/*, multipart/form-data or application/json.",
    ),
    # What API Gateway calls a route that is not there: it takes every other one for one of AWS's
    # own, which asks for AWS's signature; an API key in the Authorization header is a wrong one.
    "MISSING_AUTHENTICATION_TOKEN": NO_ROUTE,
    "INVALID_SIGNATURE": NO_ROUTE,
    "RESOURCE_NOT_FOUND": NO_ROUTE,
    "BAD_REQUEST_BODY": (400, "malformed-body", "Malformed body", "The body cannot be read."),
    "THROTTLED": (429, "throttled", "Too many requests", "Try again in a second."),
    "QUOTA_EXCEEDED": (429, "throttled", "Too many requests", "The quota is used up."),
    "INTEGRATION_FAILURE": (503, "unavailable", "Unavailable", "Try again in a second."),
    "INTEGRATION_TIMEOUT": (504, "timeout", "Timeout", "The function did not answer in time."),
    # Whatever else the gateway answers by itself; a function that crashed is one.
    "DEFAULT_4XX": (
        400,
        "bad-request",
        "Bad request",
        "The gateway refused the request. Does GET /openapi.json describe its route? Is its URL "
        "too long? POST /search takes a filter in its JSON body, too.",
    ),
    "DEFAULT_5XX": (502, "failed", "Failed", "The function did not finish. Try again."),
}


def finish_api(properties: Json) -> Json:
    """Add unknown methods and gateway responses to the API that Chalice described."""
    finished = copy.deepcopy(properties)
    definition = finished["DefinitionBody"]
    # All bodies, both ways: it looks at the request's Accept only, which clients need not send, to
    # decide whether an answer in base64 is decoded.
    definition["x-amazon-apigateway-binary-media-types"] = ["*/*"]
    for methods in definition["paths"].values():
        # The function answers a wrong method with 405 and Allow; the gateway alone would say that
        # the route does not exist.
        methods[ANY_METHOD] = _any_method(next(iter(methods.values())))
        _mend_preflight(methods)
    definition["x-amazon-apigateway-gateway-responses"] = {
        name: gateway_response(*problem) for name, problem in GATEWAY_RESPONSES.items()
    }
    finished["EndpointConfiguration"] = {"Type": finished["EndpointConfiguration"]}
    return finished


def gateway_response(status: int, kind: str, title: str, detail: str) -> Json:
    """One answer of API Gateway itself as a problem document (RFC 9457)."""
    problem = {
        "type": f"urn:lookalike:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "urn:lookalike:request:$context.requestId",
    }
    return {
        "statusCode": status,
        "responseParameters": {
            CONTENT_TYPE: "'application/problem+json'",
            ALLOW_ANY_ORIGIN: "'*'",
        },
        "responseTemplates": {"application/json": json.dumps(problem)},
    }


def _mend_preflight(methods: Json) -> None:
    """A web page of any origin may search; it may not delete or rename."""
    if (preflight := methods.get("options")) is None:
        return
    answer = preflight["x-amazon-apigateway-integration"]["responses"]["default"]
    allowed = answer["responseParameters"][ALLOW_METHODS].strip("'").split(",")
    kept = ",".join(method for method in allowed if method not in {"DELETE", "PATCH"})
    answer["responseParameters"][ALLOW_METHODS] = f"'{kept}'"
    # Or the gateway fails to make binary what the mock answers.
    answer["contentHandling"] = "CONVERT_TO_TEXT"


def _any_method(method: Json) -> Json:
    kept = ("consumes", "produces", "responses", "parameters", "x-amazon-apigateway-integration")
    return {key: copy.deepcopy(method[key]) for key in kept if key in method}
