"""Names and cursors that are longer than AWS may be asked for are the client's mistake."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import catalogue, query
from chalicelib.api import answer_of
from lookalike import wiring
from lookalike.core.errors import Unavailable
from lookalike.core.ports import Stores
from lookalike.http.message import HttpRequest
from lookalike.settings import Settings
from lookalike.wiring import build_services

MOST_BYTES = 1024  # of a sort key of DynamoDB, and of a key of S3
SHOP = {"catalogue": ["shop"]}
LONG = {"255": "é" * 127 + "x", "256": "é" * 128, "2,000": "x" * 2000}


class LikeAws:
    """A store that cannot be asked for longer names, as AWS's cannot (moto's can)."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            arguments = tuple(list(item) if name == "get_many" else item for item in arguments)
            for text in texts([*arguments, *named.values()]):
                if len(text.encode()) > MOST_BYTES:
                    raise Unavailable("ValidationException: the key is too long")
            return getattr(self._store, name)(*arguments, **named)

        return call


def texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return (
        [item for part in value for item in texts(part)] if isinstance(value, list | tuple) else []
    )


@pytest.fixture
def ask(
    memory_stores: Stores,
    toy_encoder_of: Any,
    ids: Any,
    photo: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    stores = replace(
        memory_stores,
        images=LikeAws(memory_stores.images),
        products=LikeAws(memory_stores.products),
        failures=LikeAws(memory_stores.failures),
    )
    services = build_services(Settings(), stores, ids, encoder_of=toy_encoder_of)
    memory_stores.images.put_object("shop/a.jpg", photo(1), "image/jpeg")  # type: ignore[attr-defined]
    assert services.ingest.reconcile(["shop/a.jpg"]) == {}
    monkeypatch.setattr(wiring, "services", lambda: services)

    def status(view: Any, product_id: str = "", **query: list[str]) -> int:
        request = HttpRequest(path_parameters={"product_id": product_id}, query=SHOP | query)
        return answer_of(view, request, "read").status

    return status


@pytest.mark.parametrize("length", LONG)
@pytest.mark.parametrize("view", [catalogue.product, catalogue.delete_product, query.similar])
def test_a_product_whose_name_is_too_long_is_not_there(
    ask: Callable[..., int], view: Any, length: str
) -> None:
    assert ask(view, LONG[length]) == 404
    assert ask(view, "b", catalogue=["👟" * 255]) == 404


@pytest.mark.parametrize("of", ["live", "failed"])
def test_a_cursor_that_is_too_long_is_none_of_ours(ask: Callable[..., int], of: str) -> None:
    def after(name: str) -> list[str]:
        return [base64.urlsafe_b64encode(name.encode()).decode()]

    assert ask(catalogue.products, cursor=after("x" * MOST_BYTES), status=[of]) == 200
    for name in ("x" * (MOST_BYTES + 1), "👟" * 257, "x" * 3000):
        assert ask(catalogue.products, cursor=after(name), status=[of]) == 422
