"""A system with shops in it, and requests with API keys to it as API Gateway hands them on."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ulid import ULID

from app import app
from lookalike import wiring
from lookalike.core.access import Right
from lookalike.core.ports import Stores
from lookalike.services.access import ApiKeys
from lookalike.wiring import Services

EVENT = json.loads((Path(__file__).parent.parent / "events/api_product_escaped.json").read_text())
NOW = 1_700_000_040.0
MINE, THEIRS = "mine", "theirs"
MY_IDS = [str(ULID.from_timestamp(NOW - 900)) for _ in range(400)]
THEIR_IDS = [str(ULID.from_timestamp(NOW - 900)) for _ in range(20)]
Json = dict[str, Any]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Asked:
    """A request without its key."""

    method: str
    resource: str
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Json | bytes | None = None


@dataclass
class World:
    """A system with one shop in it, or two, and what each has left there."""

    services: Services
    ids: Iterator[str]
    now: float = NOW

    @property
    def stores(self) -> Stores:
        return self.services.stores

    def key(self, *catalogues: str, write: bool = False, rate: int = 60_000, **more: Any) -> str:
        rights: tuple[Right, ...] = ("read", "write") if write else ("read",)
        keys = ApiKeys(self.stores.api_keys, lambda: self.now)
        return keys.create("test", catalogues or None, rights, rate, **more)[1]

    def ask(self, asked: Asked, key: str | None) -> Answer:
        event = copy.deepcopy(EVENT)
        event["requestContext"] |= {"resourcePath": asked.resource, "httpMethod": asked.method}
        event["pathParameters"] = {n: quote(v, safe="") for n, v in asked.path.items()} or None
        event["requestContext"]["path"] = asked.resource.format(**event["pathParameters"] or {})
        event["multiValueQueryStringParameters"] = {n: [v] for n, v in asked.query.items()} or None
        if key is not None:
            event["headers"]["Authorization"] = f"Bearer {key}"
        if asked.body is not None:
            is_image = isinstance(asked.body, bytes)
            event["headers"]["Content-Type"] = "image/jpeg" if is_image else "application/json"
            body = asked.body if isinstance(asked.body, bytes) else json.dumps(asked.body).encode()
            event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "services", lambda: self.services)
            answer = app(event, None)
        sent = answer["body"].encode()
        if answer.get("isBase64Encoded"):
            sent = base64.b64decode(sent)
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        return Answer(answer["statusCode"], headers, sent)


@dataclass(frozen=True)
class Shop:
    """What a shop's own requests have left: its key, a search, an upload, a cursor."""

    catalogue: str
    key: str
    products: tuple[str, ...]
    query_id: str
    upload_key: str
    cursor: str


def open_shop(world: World, catalogue: str, ids: list[str], photo: Any, first_seed: int) -> Shop:
    """Put products, one failure, a search and an upload of a catalogue's own key there."""
    names = [f"{catalogue}-p{number}" for number in range(4)]
    keys = [f"{catalogue}/{name}/front.jpg" for name in names]
    for number, key in enumerate(keys):
        metadata = {"title": f"{catalogue} {number}", "price": str(number)}
        body = photo(first_seed + number)
        world.stores.images.put_object(key, body, "image/jpeg", metadata)  # type: ignore[attr-defined]
    broken = f"{catalogue}/{catalogue}-broken.jpg"
    world.stores.images.put_object(broken, b"no image", "image/jpeg")  # type: ignore[attr-defined]
    assert world.services.ingest.reconcile([*keys, broken]) == {}
    world.ids = iter(ids)
    key = world.key(catalogue, "nobody", write=True)  # and one that nothing was uploaded to
    search = Asked("POST", "/search", {}, {"catalogue": catalogue}, photo(first_seed))
    found = world.ask(search, key)
    assert found.status == 200, found.body
    upload = world.ask(Asked("POST", "/uploads"), key).json
    world.stores.index.put(upload["fields"]["key"], photo(first_seed + 9), "image/jpeg")
    listed = Asked("GET", "/products", {}, {"catalogue": catalogue, "limit": "2"})
    cursor = world.ask(listed, key).json["cursor"]
    return Shop(catalogue, key, tuple(names), found.json["query_id"], upload["upload_key"], cursor)
