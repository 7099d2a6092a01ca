from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import Unindexable
from lookalike.core.keys import (
    catalogue_of,
    explanation_key,
    first_live_explanation,
    parse_key,
    thumbnail_key,
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("shop/shoe/front.jpg", ("shop", "shoe", "front")),
        ("shop/shoe.png", ("shop", "shoe", "shoe")),
        ("shoe.webp", ("default", "shoe", "shoe")),
        ("shop/shoe 100% 👟/a b.JPG", ("shop", "shoe 100% 👟", "a b")),
        ("shop/shoe/product.json", ("shop", "shoe", "")),
        ("shop/a.b.c.jpeg", ("shop", "a.b.c", "a.b.c")),
    ],
)
def test_meaning(key, expected):
    parsed = parse_key(key)
    assert (parsed.catalogue, parsed.product_id, parsed.view) == expected
    assert parsed.is_document == key.endswith("product.json")
    assert catalogue_of(key) == parsed.catalogue


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("shop/a/b/c.jpg", "bad-key"),
        ("shop//c.jpg", "bad-key"),
        ("/c.jpg", "bad-key"),
        ("shop/../c.jpg", "bad-key"),
        ("shop/./c.jpg", "bad-key"),
        ("shop/new\nline.jpg", "bad-key"),
        ("shop/" + "x" * 300 + ".jpg", "bad-key"),
        ("x" * 1025, "bad-key"),
        ("shop/notes.txt", "unsupported-type"),
        ("shop/noextension", "unsupported-type"),
        ("shop/.jpg", "unsupported-type"),
        ("shop/..jpg", "bad-key"),
        ("shop/...jpg", "bad-key"),
        ("product.json", "unsupported-type"),
        ("shop/product.json", "unsupported-type"),
    ],
)
def test_what_is_refused(key, reason):
    with pytest.raises(Unindexable) as caught:
        parse_key(key)
    assert caught.value.reason == reason


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(key):
    try:
        parsed = parse_key(key)
    except Unindexable:
        return
    assert parsed.catalogue and parsed.product_id and parsed.key == key


def test_each_upload_of_each_key_has_its_own_thumbnail():
    uploads = [(key, etag, at) for key in ("a", "b") for etag in ("1", "2") for at in (3.0, 4.5)]
    assert len({thumbnail_key(*upload) for upload in uploads}) == 8
    assert thumbnail_key("a", "1", 4.5) == thumbnail_key("a", "1", 4.0)  # S3 tells whole seconds


@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_explanations_are_in_order_of_the_hour_in_which_their_search_expires(expires_at, now):
    key = explanation_key(expires_at, "pair", "explanation.json")
    gone = key < first_live_explanation(now)
    assert not (gone and expires_at > now)
    assert gone or expires_at > now - 3600
    assert gone or key < explanation_key(expires_at + 3600, "a", "a")


def test_where_an_explanation_is():
    assert explanation_key(7200.0, "pair", "a.png") == "explanations/00000002/pair/a.png"
    assert explanation_key(7200.1, "pair", "a.png") == "explanations/00000003/pair/a.png"
    assert first_live_explanation(7199.9) == "explanations/00000002"
    assert first_live_explanation(7200.0) == "explanations/00000003"
