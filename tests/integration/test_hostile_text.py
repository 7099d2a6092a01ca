"""Hostile documents, keys, metadata, filters and bodies: a failure record, a 4xx, or success."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile_images import OK
from lookalike.core.attributes import from_document, from_user_metadata
from lookalike.core.errors import InvalidRequest, Reject, Unindexable
from lookalike.core.filters import parse_filter, parse_filter_text
from lookalike.core.keys import parse_key
from lookalike.http.message import HttpRequest
from lookalike.http.problems import problem_answer, problem_of
from lookalike.http.requests import read_page, read_product, read_search, read_similar
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BAD = "bad-metadata"
DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "not a number": (b'{"price": NaN}', BAD),
    "infinity": (b'{"price": -Infinity}', BAD),
    "too large a number": (b'{"price": 1e999}', BAD),
    "a number of 5,000 digits": (b'{"price": ' + b"9" * 5_000 + b"}", BAD),
    "deep lists": (b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", BAD),
    "deep objects": (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, BAD),
    "a name twice": (b'{"a": 1, "a": 2, "A": 3}', OK),
    "10 MB": (b'{"a": "' + b"a" * 10_000_000 + b'"}', "too-large"),
    "half a surrogate": (b'{"a": "\\ud800"}', BAD),
    "half a surrogate in a name": (b'{"\\udfff": 1}', BAD),
    "a null character": (b'{"a\\u0000": "b\\u0000"}', OK),
    "a list": (b"[1, 2]", BAD),
    "nothing": (b"", BAD),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), OK),
    "no UTF-8": (b'{"a": "\xff\xfe"}', BAD),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', OK),
    "65 attributes": (json.dumps(dict.fromkeys(map(str, range(65)), 1)).encode(), BAD),
    "an object inside": (b'{"a": {"__proto__": 1}}', BAD),
    "a large whole number": (b'{"a": 9007199254740993}', BAD),
    "many lists": (json.dumps({"a": [[1]]}).encode(), BAD),
    "two documents": (b'{"a": 1}{"b": 2}', BAD),
}
KEYS = (
    "shop/../secret.jpg",
    "../../etc/passwd.jpg",
    "shop//a.jpg",
    "shop/./a.jpg",
    "shop/a\n.jpg",
    "shop/a\r\nX-Header: 1.jpg",
    "shop/a\0.jpg",
    "shop/\x7f\x1b[31m.jpg",
    "shop/" + "é" * 509 + ".jpg",
    "shop/a/b/c/d/e.jpg",
    "/shop/a.jpg",
    "shop/\ud800.jpg",
    "shop/" + "a" * 252 + ".jpg",
    "shop/.jpg",
)
FINE = (
    "shop/" + "a" * 251 + ".jpg",
    "shop/<script>alert(1)</script>.jpg",
    "shop/%2e%2e%2f.jpg",
    "shop/a+b c%20d&e=f?g#h.jpg",
    "shop/\u202egpj.exe.jpg",
    "shop/'; DROP TABLE products; --.jpg",
    "shop/{{7*7}}${7*7}.jpg",
    "shop/" + "\N{PILE OF POO}" * 62 + ".jpg",
)


@pytest.fixture
def services(memory_stores, toy_encoder_of, clock, ids) -> Services:
    return build_services(Settings(), memory_stores, ids, clock, toy_encoder_of)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_read_or_one_failure(services, photo, name) -> None:
    body, end = DOCUMENTS[name]
    stores, key = services.stores, "shop/boot/product.json"
    stores.images.put_object("shop/boot/front.jpg", photo(), "image/jpeg")
    stores.images.put_object(key, body, "application/json")

    assert services.ingest.reconcile([key, "shop/boot/front.jpg"]) == {}

    failure = stores.failures.get_many([key]).get(key)
    assert (failure.reason if failure else OK) == end
    assert stores.products.get_many([("shop", "boot")])["shop", "boot"].views


def test_a_key_is_searchable_or_one_failure(services, photo) -> None:
    stores = services.stores
    for key in (*KEYS, *FINE):
        stores.images.put_object(key, photo(), "image/jpeg")

    assert services.ingest.reconcile([*KEYS, *FINE]) == {}

    assert set(stores.failures.get_many(KEYS)) == set(KEYS)
    assert stores.failures.get_many(FINE) == {}
    products, _ = stores.products.page("shop", 100)
    assert {key for product in products for key in product.views} == set(FINE)


def test_more_metadata_than_is_kept_is_cut(services, photo) -> None:
    metadata = {f"name-{number:03d}": "x" * 5_000 for number in range(200)}
    metadata |= {
        "title": "=?utf-8?b?////?=",
        "a": "=?x-unknown?q?a?=",
        "b": "=?utf-8?q?=ED=A0=80?=",
    }
    services.stores.images.put_object("shop/a.jpg", photo(), "image/jpeg", metadata)

    assert services.ingest.reconcile(["shop/a.jpg"]) == {}

    (view,) = services.stores.products.get_many([("shop", "a")])["shop", "a"].views.values()
    assert len(view.attributes) == 64
    assert all(len(str(value)) <= 2_000 for value in view.attributes.values())


characters = st.characters() | st.sampled_from("\ud800\0\n\x1b\"'\\{}[](),|=<>!%&")
texts = st.text(characters, max_size=60)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 2**53, -(2**63), 1e308])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
words = st.sampled_from(
    ["category", "price", "=", "<=", "!=", "|", ",", "(", ")", "AND", "OR", "NOT", "exists", '"',
     "number(1e400)", "number(-0)", "007", "\\", " ", "\t", "50", "true", "é", "\ud800"]
)  # fmt: skip


@fuzz
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_document_is_read_or_refused(body: bytes) -> None:
    try:
        attributes = from_document(body)
    except Unindexable as error:
        assert error.reason == BAD
    else:
        json.dumps(attributes, allow_nan=False).encode()


@fuzz
@given(st.dictionaries(texts, texts | st.text("=?utf8bq-", max_size=20), max_size=70))
def test_any_metadata_is_read(metadata: dict[str, str]) -> None:
    attributes = from_user_metadata(metadata)
    assert len(attributes) <= 64


@fuzz
@given(texts | st.text(st.sampled_from("ab/.\0\n"), max_size=30).map(lambda text: f"{text}.jpg"))
def test_any_key_is_read_or_refused(key: str) -> None:
    try:
        parsed = parse_key(key)
    except Unindexable as error:
        assert error.reason in {"bad-key", "unsupported-type"}
    else:
        assert ".." not in (parsed.catalogue, parsed.product_id, parsed.view)
        assert all(char.isprintable() or char.isspace() or ord(char) > 127 for char in key)


@fuzz
@given(
    texts | st.lists(words, max_size=30).map("".join) | st.lists(words, max_size=9).map(" ".join)
)
def test_any_filter_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_filter_text(text)
    except InvalidRequest as error:
        problem_answer(problem_of(error, ""))
    else:
        assert parse_filter_text(str(found)) == found
        found.matches({"category": "shoes", "price": 50, "sale": True})


@fuzz
@given(values)
def test_any_filter_is_read_or_refused(value: object) -> None:
    try:
        found = parse_filter(value)
    except InvalidRequest as error:
        problem_answer(problem_of(error, ""))
    else:
        assert parse_filter_text(str(found)) == found


FIELDS = ("image", "product_id", "upload_key", "query_id", "cells", "crop", "weights", "k",
          "filter", "not_like", "min_score", "exact", "explain", "catalogue")  # fmt: skip
bodies = st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=4)
types = st.sampled_from(
    ["application/json", "", "image/jpeg", "text/plain", "multipart/form-data; boundary=b",
     "multipart/form-data", "\ud800", "application/json; charset=utf-7"]
)  # fmt: skip
forms = st.lists(st.tuples(st.sampled_from(FIELDS), texts), max_size=4).map(
    lambda parts: (
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            % (name.encode(), text.encode(errors="surrogatepass"))
            for name, text in parts
        )
        + b"--b--\r\n"
    )
)


@fuzz
@given(
    st.builds(
        HttpRequest,
        path_parameters=st.fixed_dictionaries({"product_id": texts}),
        query=st.dictionaries(
            st.sampled_from(("k", "filter", "cursor", "limit", "catalogue", "status")) | texts,
            st.lists(texts, max_size=2),
            max_size=3,
        ),
        content_type=types,
        body=st.binary(max_size=100) | forms | bodies.map(lambda body: json.dumps(body).encode()),
    )
)
def test_any_request_is_read_or_one_4xx(request: HttpRequest) -> None:
    for read in (read_search, read_similar, read_page, read_product):
        try:
            read(request)
        except Reject as error:
            problem = problem_of(error, "")
            assert 400 <= problem.status < 500
            body = problem_answer(problem).body
            assert isinstance(body, str)
            assert len(body.encode()) < 10_000
