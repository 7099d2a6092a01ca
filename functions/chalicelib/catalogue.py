"""The query function's views of the catalogue: products, failures, counts, health."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.message import HttpAnswer, HttpRequest
from lookalike.http.parameters import NoParameters
from lookalike.http.requests import read_page, read_product
from lookalike.http.validation import query_parameters

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/products")
def products(request: HttpRequest) -> object:
    """A page of products, or of objects that could not be indexed."""
    page = read_page(request)
    catalogue = wiring.services().catalogue
    if page.cluster is not None:
        return catalogue.cluster(page.catalogue, page.cluster, page.limit, page.cursor)
    read = catalogue.failures if page.status == "failed" else catalogue.products
    return read(page.catalogue, page.limit, page.cursor)


@endpoint(blueprint, "GET", "/products/{product_id}")
def product(request: HttpRequest) -> object:
    """One product with its views and attributes."""
    return wiring.services().catalogue.product(*read_product(request))


@endpoint(blueprint, "DELETE", "/products/{product_id}")
def delete_product(request: HttpRequest) -> object:
    """Delete a product's objects from the bucket; the index follows."""
    wiring.services().catalogue.delete(*read_product(request))
    return HttpAnswer(204)


@endpoint(blueprint, "GET", "/health")
def health(request: HttpRequest) -> object:
    """Whether the service can answer."""
    query_parameters(request.query, NoParameters)
    return wiring.services().catalogue.health()


@endpoint(blueprint, "GET", "/stats")
def stats(request: HttpRequest) -> object:
    """Counts of the caller's catalogues."""
    query_parameters(request.query, NoParameters)
    return wiring.services().catalogue.stats(request.caller)
