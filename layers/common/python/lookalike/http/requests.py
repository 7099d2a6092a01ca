"""Turns HTTP requests into what the services take. Everything a client can get wrong ends here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from msgspec import UNSET, Struct, UnsetType

from lookalike.core.errors import InvalidRequest, NotFound, UnsupportedMedia
from lookalike.core.filters import Filter, parse_filter, parse_filter_text
from lookalike.core.keys import DEFAULT_CATALOGUE, MAX_NAME_BYTES
from lookalike.core.material import Box
from lookalike.http.body import SearchFields, read_json, read_search_body
from lookalike.http.message import JSON_TYPE, HttpRequest, utf8
from lookalike.http.parameters import (
    DEFAULT_K,
    ClusterName,
    ClustersParameters,
    FindingsParameters,
    PageParameters,
    ProductParameters,
    SearchBody,
    SearchParameters,
    SimilarParameters,
)
from lookalike.http.validation import checked, query_parameters
from lookalike.services.search_request import MAX_INPUTS, QueryInput, SearchRequest

Value = TypeVar("Value")
Shape = TypeVar("Shape", bound=Struct)


def read_search(request: HttpRequest) -> SearchRequest:
    """Read ``POST /search``.

    Raises
    ------
    Reject
        What is wrong with the body or a parameter.
    """
    parameters = query_parameters(request.query, SearchParameters)
    given = read_search_body(request)
    body = checked(given.fields, SearchBody, strict=given.strict)
    return SearchRequest(
        catalogue=request.caller.allowed(
            _first(body.catalogue, parameters.catalogue, DEFAULT_CATALOGUE)
        ),
        inputs=_inputs(given, body),
        k=_first(body.k, parameters.k, DEFAULT_K),
        filter=_filter(_first(body.filter, parameters.filter, None)),
        not_like=tuple(utf8(item, "not_like") for item in _first(body.not_like, UNSET, [])),
        min_score=_first(body.min_score, parameters.min_score, None),
        exact=_first(body.exact, parameters.exact, False),
        explain=_first(body.explain, parameters.explain, True),
        base_url=request.base_url,
        caller=request.caller,
    )


def read_similar(request: HttpRequest) -> SearchRequest:
    """Read ``GET /products/{product_id}/similar``: a search by one stored product."""
    parameters = query_parameters(request.query, SimilarParameters)
    catalogue, product_id = _product(request, parameters.catalogue)
    return SearchRequest(
        catalogue=catalogue,
        inputs=(QueryInput(product_id=product_id),),
        k=parameters.k,
        filter=_filter(parameters.filter),
        exact=parameters.exact,
        explain=parameters.explain,
        base_url=request.base_url,
        caller=request.caller,
    )


def read_product(request: HttpRequest) -> tuple[str, str]:
    """Read ``/products/{product_id}``: (catalogue, product id)."""
    parameters = query_parameters(request.query, ProductParameters)
    return _product(request, parameters.catalogue)


def read_page(request: HttpRequest) -> PageParameters:
    """Read ``GET /products``."""
    parameters = query_parameters(request.query, PageParameters)
    request.caller.allowed(parameters.catalogue)
    if parameters.cluster is not None and parameters.status == "failed":
        raise InvalidRequest(
            "What could not be indexed is in no cluster; ask for status=live.", parameter="cluster"
        )
    return parameters


def read_clusters(request: HttpRequest) -> str:
    """Read ``GET /clusters``: the catalogue."""
    parameters = query_parameters(request.query, ClustersParameters)
    return request.caller.allowed(parameters.catalogue)


def read_findings(request: HttpRequest) -> FindingsParameters:
    """Read ``GET /findings``."""
    parameters = query_parameters(request.query, FindingsParameters)
    request.caller.allowed(parameters.catalogue)
    return parameters


def read_rename(request: HttpRequest) -> tuple[str, str, str | None]:
    """Read ``PATCH /clusters/{cluster_id}``: (catalogue, cluster id, name)."""
    parameters = query_parameters(request.query, ClustersParameters)
    catalogue = request.caller.allowed(parameters.catalogue)
    name = read_body(request, ClusterName).name
    if name is not None:
        utf8(name, "name")
    return catalogue, request.path_parameter("cluster_id"), name


def read_body(request: HttpRequest, shape: type[Shape]) -> Shape:
    """Read a JSON body.

    Raises
    ------
    Reject
        It is no JSON, or not of this shape.
    """
    media_type = request.content_type.partition(";")[0].strip().lower() or JSON_TYPE
    if media_type != JSON_TYPE:
        raise UnsupportedMedia(f"“{media_type}” is not read here; send {JSON_TYPE}.")
    return checked(read_json(request.body), shape)


def _product(request: HttpRequest, catalogue: str) -> tuple[str, str]:
    names = request.caller.allowed(catalogue), request.path_parameter("product_id")
    if any(len(name.encode()) > MAX_NAME_BYTES for name in names):  # more than stores may be asked
        raise NotFound(
            f"There is no such product: names have at most {MAX_NAME_BYTES} bytes.",
            parameter="product_id",
        )
    return names


def _first(body: Value | UnsetType, query: Value | UnsetType, default: Value) -> Value:
    """The body wins over the query, which wins over the default."""
    if not isinstance(body, UnsetType):
        return body
    return default if isinstance(query, UnsetType) else query


def _filter(value: object) -> Filter | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return parse_filter_text(utf8(value, "filter"))
    return parse_filter(value)


def _inputs(given: SearchFields, body: SearchBody) -> tuple[QueryInput, ...]:
    products = _several(body.product_id, "product_id")
    uploads = _several(body.upload_key, "upload_key")
    earlier = _several(body.query_id, "query_id")
    count = len(given.images) + len(products) + len(uploads) + len(earlier)
    if not count:
        raise InvalidRequest(
            "Nothing to search with: give image, product_id, upload_key or query_id."
        )
    if count > MAX_INPUTS:
        raise InvalidRequest(f"There are {count} inputs; {MAX_INPUTS} are allowed.")
    cells = _cells(body)
    crops = iter(_crops(body.crop, count - len(products)))
    weights = iter(_weights(body.weights, count))
    return (
        *(QueryInput(image=item, crop=next(crops), weight=next(weights)) for item in given.images),
        *(QueryInput(product_id=item, weight=next(weights)) for item in products),
        *(QueryInput(upload_key=item, crop=next(crops), weight=next(weights)) for item in uploads),
        *(
            QueryInput(query_id=item, cells=cells, crop=next(crops), weight=next(weights))
            for item in earlier
        ),
    )


def _cells(body: SearchBody) -> tuple[tuple[int, int], ...] | None:
    if isinstance(body.cells, UnsetType):
        return None
    if isinstance(body.query_id, UnsetType):
        raise InvalidRequest(
            "“cells” are of an earlier search; name it by “query_id”.", parameter="cells"
        )
    return tuple((row, column) for row, column in body.cells)


def _several(value: str | list[str] | UnsetType, parameter: str) -> list[str]:
    if isinstance(value, UnsetType):
        return []
    return [utf8(item, parameter) for item in ([value] if isinstance(value, str) else value)]


def _weights(value: list[float] | UnsetType, count: int) -> Sequence[float]:
    if isinstance(value, UnsetType):
        return [1.0] * count
    if len(value) != count:
        raise InvalidRequest(
            f"There are {count} inputs and {len(value)} weights; give one weight for each input.",
            parameter="weights",
        )
    if not all(math.isfinite(weight) for weight in value) or not any(value):
        raise InvalidRequest(
            "“weights” must be finite, and at least one must be above zero.", parameter="weights"
        )
    return value


def _crops(value: list[float | list[float] | None] | UnsetType, count: int) -> list[Box | None]:
    """One crop or None for each image, then each upload."""
    if isinstance(value, UnsetType):
        return [None] * count
    numbers = [item for item in value if isinstance(item, float)]
    boxes: list[list[float] | None] = [item for item in value if not isinstance(item, float)]
    if numbers and boxes:
        raise InvalidRequest(
            "“crop” mixes numbers and boxes; give [x, y, width, height] or a list of such boxes.",
            parameter="crop",
        )
    if numbers:
        boxes = [numbers]
    if len(boxes) != count:
        raise InvalidRequest(
            f"There are {count} images and {len(boxes)} crops; give one (or null) for each image, "
            "then each upload, then the earlier search.",
            parameter="crop",
        )
    return [None if box is None else _crop(box) for box in boxes]


def _crop(box: list[float]) -> Box:
    if len(box) != 4 or not all(math.isfinite(item) for item in box):
        raise InvalidRequest("“crop” must be four numbers: x, y, width, height.", parameter="crop")
    x, y, width, height = box
    if x < 0 or y < 0 or width <= 0 or height <= 0:
        raise InvalidRequest(
            f"“crop” is {box}; x and y must not be negative, width and height above zero.",
            parameter="crop",
        )
    return x, y, width, height
