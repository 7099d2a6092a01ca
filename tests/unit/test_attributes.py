from __future__ import annotations

import contextlib
import json
from email.header import Header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.attributes import from_document, from_user_metadata, typed
from lookalike.core.errors import Unindexable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("49.90", 49.9),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("007", "007"),
        ("1e5", "1e5"),
        ("12345678901234567890", "12345678901234567890"),
        ("nan", "nan"),
        (" red ", "red"),
        ("", ""),
    ],
)
def test_typed(text, value):
    result = typed(text)
    assert result == value and type(result) is type(value)


def test_user_metadata_in_any_alphabet():
    encoded = Header("Grüne Schuhe 👟", "utf-8").encode()
    assert from_user_metadata({"Title": encoded, "price": "49.90", "empty": " "}) == {
        "title": "Grüne Schuhe 👟",
        "price": 49.9,
    }


def test_a_broken_encoded_word_stays_as_it_is():
    assert from_user_metadata({"title": "=?no-such-charset?q?x?="}) == {
        "title": "=?no-such-charset?q?x?="
    }


@pytest.mark.parametrize("codec", ["unicode_escape?q?\\ud800", "utf-7?q?+2AA-"])
def test_an_encoded_word_that_is_no_text_stays_as_it_is(codec):
    assert from_user_metadata({"title": f"=?{codec}?="}) == {"title": f"=?{codec}?="}


def test_document():
    body = b'{"Title": "Boot", "price": 10, "sizes": [41, "M"], "sale": true, "note": null}'
    assert from_document(body) == {"title": "Boot", "price": 10, "sizes": (41, "M"), "sale": True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": {"b": 1}}',
        b'{"a": [[1]]}',
        b'{"a": 99999999999999999999}',
        b'{"": 1}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": "' + b"x" * 2001 + b'"}',
        json.dumps({str(number): 1 for number in range(65)}).encode(),
        json.dumps({"a": [1] * 65}).encode(),
        b"[" * 100_000,
    ],
)
def test_bad_documents_are_refused_with_a_reason(body):
    with pytest.raises(Unindexable) as caught:
        from_document(body)
    assert caught.value.reason == "bad-metadata"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with contextlib.suppress(Unindexable):
        from_document(body)
