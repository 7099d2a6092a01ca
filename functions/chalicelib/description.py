"""The query function's description of itself: OpenAPI and the page that shows it."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike.http.message import HttpAnswer, HttpRequest

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/")
def root(request: HttpRequest) -> object:
    """To the documentation, below the stage if there is one."""
    return HttpAnswer(302, headers={"Location": f"{request.path.rstrip('/')}/docs"})


@endpoint(blueprint, "GET", "/openapi.json")
def openapi(request: HttpRequest) -> object:
    """The API's description."""
    from lookalike.http.openapi import document  # not on the way to a first search

    return document()


@endpoint(blueprint, "GET", "/docs")
def docs(request: HttpRequest) -> object:
    """The API's description as a page that needs nothing from elsewhere."""
    from lookalike.http.docs import docs_page

    return docs_page()
