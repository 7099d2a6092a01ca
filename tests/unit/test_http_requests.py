from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import InvalidRequest, MalformedBody, Reject, TooLarge, UnsupportedMedia
from lookalike.core.filters import parse_filter
from lookalike.http.message import HttpRequest
from lookalike.http.requests import read_page, read_product, read_search, read_similar
from lookalike.services.search_request import QueryInput, SearchRequest

ONE, TWO = base64.b64encode(b"one").decode(), base64.b64encode(b"two").decode()


def json_search(body: object, **query: str) -> SearchRequest:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    given_ = {name: [value] for name, value in query.items()}
    return read_search(HttpRequest(content_type="application/json", body=encoded, query=given_))


def form_search(*parts: tuple[str, bytes]) -> SearchRequest:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in parts
    )
    content_type = "multipart/form-data; boundary=B"
    return read_search(HttpRequest(content_type=content_type, body=body + b"--B--\r\n"))


def refusal(body: object, **query: str) -> Reject:
    with pytest.raises(Reject) as caught:
        json_search(body, **query)
    return caught.value


def test_a_raw_image_with_query_parameters() -> None:
    request = HttpRequest(
        content_type="image/jpeg; charset=binary",
        body=b"\xff\xd8",
        query={"k": ["3"], "catalogue": ["my shop"], "filter": ["price<=50"], "min_score": ["0.5"]},
    )
    assert read_search(request) == SearchRequest(
        "my shop",
        (QueryInput(image=b"\xff\xd8"),),
        k=3,
        filter=parse_filter({"price": {"lte": 50}}),
        min_score=0.5,
    )


def test_defaults() -> None:
    found = json_search({"product_id": "a"})
    assert found == SearchRequest("default", (QueryInput(product_id="a"),), k=10)


def test_inputs_stand_in_the_order_images_products_uploads() -> None:
    found = json_search(
        {
            "upload_key": ["u1", "u2"],
            "product_id": "p",
            "image": [ONE, "data:image/png;base64," + TWO],
            "weights": [1, 2, 3, 4, 0],
            "crop": [None, [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], None],
        }
    )
    assert found.inputs == (
        QueryInput(image=b"one", weight=1.0),
        QueryInput(image=b"two", crop=(1.0, 2.0, 3.0, 4.0), weight=2.0),
        QueryInput(product_id="p", weight=3.0),
        QueryInput(upload_key="u1", crop=(0.1, 0.2, 0.3, 0.4), weight=4.0),
        QueryInput(upload_key="u2", weight=0.0),
    )


def test_a_single_crop_applies_to_the_one_image() -> None:
    found = json_search({"image": ONE, "product_id": "p", "crop": [1, 2, 3, 4]})
    assert found.inputs[0].crop == (1.0, 2.0, 3.0, 4.0)
    assert found.inputs[1].crop is None


def test_fields_of_the_body_win_over_the_query() -> None:
    body = {"product_id": "a", "k": 5, "filter": {"a": 1}}
    found = json_search(body, k="7", filter="b=2", catalogue="shop")
    assert (found.k, found.filter, found.catalogue) == (5, parse_filter({"a": 1}), "shop")


def test_a_filter_may_be_text_in_json() -> None:
    assert json_search({"product_id": "a", "filter": "a=1"}).filter == parse_filter({"a": 1})


def test_filters_of_several_parts() -> None:
    text = 'brand=acme AND NOT (price>50 OR "on sale"=true)'
    value = {"brand": "acme", "not": {"or": [{"price": {"gt": 50}}, {"on sale": True}]}}
    found = json_search({"product_id": "a", "filter": value})
    assert found.filter == parse_filter(value)
    assert json_search({"product_id": "a"}, filter=text).filter == found.filter
    assert form_search(("image", b"a"), ("filter", text.encode())).filter == found.filter


@pytest.mark.parametrize(
    ("text", "exact"), [("true", True), ("1", True), ("false", False), ("0", False), ("True", True)]
)
def test_exact_in_a_query(text: str, exact: bool) -> None:
    assert json_search({"product_id": "a"}, exact=text).exact is exact
    similar = HttpRequest(query={"exact": [text]}, path_parameters={"product_id": "a"})
    assert read_similar(similar).exact is exact


def test_exact_in_a_body_wins_over_the_query() -> None:
    assert json_search({"product_id": "a", "exact": True}).exact is True
    assert json_search({"product_id": "a", "exact": False}, exact="true").exact is False
    assert json_search({"product_id": "a"}).exact is False


def test_a_value_of_exact_that_is_not_allowed_is_explained() -> None:
    error = refusal({"product_id": "a", "exact": "sometimes"})
    assert "sometimes" in error.detail and "bool" in error.detail
    assert "Score every row" in error.detail


def test_a_form_has_the_fields_of_the_json_body() -> None:
    found = form_search(
        ("image", b"\x00one"),
        ("image", b"two\r\n"),
        ("product_id", b"p"),
        ("weights", b"1, 0.5, 2"),
        ("crop", b"[[1,2,3,4],null]"),
        ("k", b"4"),
        ("filter", b'{"category": "shoes"}'),
        ("not_like", b"x"),
        ("not_like", "y ü".encode()),
        ("min_score", b"-0.5"),
        ("exact", b"true"),
        ("catalogue", b"shop"),
    )
    assert found == SearchRequest(
        "shop",
        (
            QueryInput(image=b"\x00one", crop=(1.0, 2.0, 3.0, 4.0)),
            QueryInput(image=b"two\r\n", weight=0.5),
            QueryInput(product_id="p", weight=2.0),
        ),
        k=4,
        filter=parse_filter({"category": "shoes"}),
        not_like=("x", "y ü"),
        min_score=-0.5,
        exact=True,
    )


def test_parts_of_an_earlier_search() -> None:
    cells = json_search({"query_id": "Q", "cells": [[0, 1], [8, 0]]})
    assert cells.inputs == (QueryInput(query_id="Q", cells=((0, 1), (8, 0))),)
    crop = json_search({"query_id": "Q", "crop": [0.1, 0, 0.5, 1]})
    assert crop.inputs == (QueryInput(query_id="Q", crop=(0.1, 0.0, 0.5, 1.0)),)
    assert json_search({"query_id": "Q"}).inputs == (QueryInput(query_id="Q"),)
    assert [item.kind for item in (cells, crop)] == ["region", "region"]
    assert json_search({"query_id": "Q"}).kind == "repeat"
    form = form_search(("query_id", b"Q"), ("cells", b"[[0,1],[8,0]]"), ("explain", b"false"))
    assert form.inputs == cells.inputs and form.explain is False


def test_an_earlier_search_stands_last() -> None:
    body = {"query_id": "Q", "upload_key": "u", "product_id": "p", "image": ONE}
    boxes = [[1, 2, 3, 4], None, [5, 6, 7, 8]]
    assert json_search(body | {"weights": [1, 2, 3, 4], "crop": boxes}).inputs == (
        QueryInput(image=b"one", crop=(1.0, 2.0, 3.0, 4.0), weight=1.0),
        QueryInput(product_id="p", weight=2.0),
        QueryInput(upload_key="u", weight=3.0),
        QueryInput(query_id="Q", crop=(5.0, 6.0, 7.0, 8.0), weight=4.0),
    )
    with_cells = json_search(body | {"crop": [*boxes[:2], None], "cells": [[0, 0]]})
    assert with_cells.inputs[0].crop == (1.0, 2.0, 3.0, 4.0)
    assert with_cells.inputs[3] == QueryInput(query_id="Q", cells=((0, 0),))
    assert with_cells.kind == "mixed"


def test_explain_and_where_explanations_are() -> None:
    assert json_search({"product_id": "a"}).explain is True
    assert json_search({"product_id": "a"}, explain="false").explain is False
    assert json_search({"product_id": "a", "explain": True}, explain="false").explain is True
    similar = HttpRequest(
        query={"explain": ["0"]}, path_parameters={"product_id": "a"}, base_url="https://a.example"
    )
    assert read_similar(similar).explain is False
    assert read_similar(similar).base_url == "https://a.example"
    body = b'{"product_id": "a"}'
    assert read_search(HttpRequest(body=body, base_url="https://b")).base_url == "https://b"


@pytest.mark.parametrize("k", [0, -1, 101, 100_000, 10**30])
def test_k_out_of_bounds_names_the_bounds(k: int) -> None:
    for error in (refusal({"product_id": "a", "k": k}), refusal({"product_id": "a"}, k=str(k))):
        assert isinstance(error, InvalidRequest)
        assert error.parameter == "k"
        assert str(k)[:20] in error.detail
        assert "from 1 to 100" in error.detail


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, None),
        ({"product_id": []}, None),
        ({"product_id": ""}, "product_id"),
        ({"product_id": ["a", 7]}, "product_id[1]"),
        ({"product_id": "a", "k": "5"}, "k"),
        ({"product_id": "a", "k": True}, "k"),
        ({"product_id": "a", "K": 5}, "K"),
        ({"product_id": "a", "weights": [-1]}, "weights[0]"),
        ({"product_id": "a", "weights": [0]}, "weights"),
        ({"product_id": "a", "weights": [1, 2]}, "weights"),
        ({"product_id": "a", "weights": [1e300]}, "weights[0]"),
        ({"product_id": "a", "crop": [1, 2, 3, 4]}, "crop"),
        ({"image": ONE, "crop": [1, 2, 3]}, "crop"),
        ({"image": ONE, "crop": [[1, 2, 3]]}, "crop[0]"),
        ({"image": ONE, "crop": [[1, 2, 3, 4], 5]}, "crop"),
        ({"image": ONE, "crop": [0, 0, 0, 1]}, "crop"),
        ({"image": ONE, "crop": [-1, 0, 1, 1]}, "crop"),
        ({"image": [ONE, TWO], "crop": [0, 0, 1, 1]}, "crop"),
        ({"product_id": "a", "filter": 7}, "filter"),
        ({"product_id": "a", "filter": "shoes"}, "filter"),
        ({"product_id": "a", "filter": {"price": {"around": 5}}}, "filter"),
        ({"product_id": "a", "filter": {"or": []}}, "filter"),
        ({"product_id": "a", "filter": "(a=1"}, "filter"),
        ({"product_id": "a", "filter": {str(n): n for n in range(33)}}, "filter"),
        ({"product_id": "a", "exact": "true"}, "exact"),
        ({"product_id": "a", "exact": 1}, "exact"),
        ({"product_id": "a", "exact": None}, "exact"),
        ({"product_id": "a", "explain": "no"}, "explain"),
        ({"product_id": "a", "cells": [[0, 0]]}, "cells"),
        ({"query_id": "Q", "cells": []}, "cells"),
        ({"query_id": "Q", "cells": [[0]]}, "cells[0]"),
        ({"query_id": "Q", "cells": [[0, 0, 0]]}, "cells[0]"),
        ({"query_id": "Q", "cells": [[0, -1]]}, "cells[0][1]"),
        ({"query_id": "Q", "cells": [[0, 1.5]]}, "cells[0][1]"),
        ({"query_id": "Q", "cells": [0, 1]}, "cells[0]"),
        ({"query_id": "Q", "cells": [[0, 0]] * 5000}, "cells"),
        ({"query_id": "Q", "cells": [[0, 0]], "crop": [[0, 0, 1, 1], None]}, "crop"),
        ({"query_id": "Q", "crop": [[0, 0, 1, 1], [0, 0, 1, 1]]}, "crop"),
        ({"query_id": "Q", "image": ONE, "crop": [0, 0, 1, 1]}, "crop"),
        ({"query_id": ["Q"]}, "query_id"),
        ({"query_id": ""}, "query_id"),
        ({"query_id": "Q", "product_id": ["a"] * 16}, None),
        ({"product_id": "a", "not_like": "b"}, "not_like"),
        ({"product_id": "a", "min_score": 1.5}, "min_score"),
        ({"product_id": "a", "catalogue": ""}, "catalogue"),
        ({"product_id": "a", "catalogue": None}, "catalogue"),
        ({"image": 7}, "image"),
        ({"image": None}, "image"),
        ({"image": [ONE] * 17}, "image"),
        ({"product_id": ["a"] * 10, "image": [ONE] * 10}, None),
    ],
)
def test_values_that_are_not_allowed(body: dict[str, Any], parameter: str | None) -> None:
    error = refusal(body)
    assert isinstance(error, InvalidRequest)
    assert error.parameter == parameter
    assert error.detail.endswith(".")


def test_an_unknown_field_names_those_that_exist() -> None:
    assert "not_like" in refusal({"product_id": "a", "colour": "red"}).detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"image"',
        b"\xff\xfe",
        b'{"product_id": "\\ud800"}',
        b'{"product_id": "\xed\xa0\x80"}',
        b'{"k": NaN}',
        b'{"k": 1e999}',
        b'{"filter":' * 50_000,
        b'{"image": "%%%"}',
        b'{"image": "YQ"}',
        '{"image": "ü"}'.encode(),
        b'{"image": ""}',
        b'{"image": "data:image/png;base64,"}',
    ],
)
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    assert isinstance(refusal(body), MalformedBody)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"no form"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data\r\n"),
        ("multipart/form-data; boundary=B", b'--B\r\nContent-Disposition: form-data; name="image"'),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--B--',
        ),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--B--\r\n',
        ),
        ("image/jpeg", b""),
    ],
)
def test_forms_that_cannot_be_read(content_type: str, body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_search(HttpRequest(content_type=content_type, body=body))


def test_forms_are_bounded() -> None:
    with pytest.raises(TooLarge):
        form_search(*[("product_id", b"a")] * 300)
    with pytest.raises(TooLarge):
        form_search(("filter", b"a" * 100_000))
    with pytest.raises(InvalidRequest, match="17 images"):
        form_search(*[("image", b"a")] * 17)
    with pytest.raises(InvalidRequest, match="more than once"):
        form_search(("image", b"a"), ("k", b"1"), ("k", b"2"))
    with pytest.raises(InvalidRequest, match="weights"):
        form_search(("image", b"a"), ("weights", b"nan"))
    with pytest.raises(InvalidRequest, match="crop"):
        form_search(("image", b"a"), ("crop", b"0,0,inf,1"))
    with pytest.raises(InvalidRequest, match="cells"):
        form_search(("query_id", b"Q"), ("cells", b"0,1"))
    with pytest.raises(InvalidRequest, match="commas"):
        form_search(("image", b"a"), ("crop", b"left"))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match="image/\\*"):
        read_search(HttpRequest(content_type=content_type, body=b"x"))


def test_no_content_type_is_json_as_api_gateway_has_it() -> None:
    assert read_search(HttpRequest(body=b'{"product_id": "a"}')).inputs[0].product_id == "a"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"k": ["ten"]}, "k"),
        ({"k": [""]}, "k"),
        ({"k": ["1", "2"]}, "k"),
        ({"colour": ["red"]}, "colour"),
        ({"min_score": ["nan"]}, "min_score"),
        ({"catalogue": ["\udcff"]}, "catalogue"),
        ({"filter": ["a=\ufffd\ufffd"]}, "filter"),
        ({"catalogue": ["caf\ufffd"]}, "catalogue"),
        ({"catalogue": ["a" * 256]}, "catalogue"),
        ({"filter": ["a" * 10_000]}, "filter"),
        ({"exact": ["maybe"]}, "exact"),
        ({"exact": [""]}, "exact"),
        ({"exact": ["true", "true"]}, "exact"),
    ],
)
def test_query_parameters_are_checked(query: dict[str, list[str]], parameter: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_search(HttpRequest(content_type="image/png", body=b"x", query=query))
    assert caught.value.parameter == parameter


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63))
def test_path_parameters_are_decoded_once(name: str) -> None:
    request = HttpRequest(path_parameters={"product_id": quote(name, safe="")})
    assert read_product(request) == ("default", name)
    assert read_similar(request).inputs == (QueryInput(product_id=name),)


def test_path_parameters_must_be_utf8() -> None:
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_product(HttpRequest(path_parameters={"product_id": "%ff"}))


def test_pages() -> None:
    page = read_page(HttpRequest(query={"status": ["failed"], "limit": ["7"], "cursor": ["Yg=="]}))
    assert (page.status, page.limit, page.cursor) == ("failed", 7, "Yg==")
    assert page.catalogue == "default"
    assert read_page(HttpRequest(query={"cluster": ["c3"]})).cluster == "c3"
    for query in ({"status": ["dead"]}, {"limit": ["0"]}, {"limit": ["101"]}, {"group": ["3"]}):
        with pytest.raises(InvalidRequest):
            read_page(HttpRequest(query=query))


@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "multipart/form-data; boundary=B"]),
)
def test_no_body_whatever_is_an_unexpected_error(body: bytes, content_type: str) -> None:
    for whole in (body, b'--B\r\nContent-Disposition: form-data; name="k"\r\n' + body):
        with pytest.raises(Reject):
            read_search(HttpRequest(content_type=content_type, body=whole))


@pytest.mark.parametrize("charset", ["nonsense", "unicode_escape", "utf-7"])
def test_fields_of_a_form_are_utf8_whatever_they_say(charset: str) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n'
        b'--B\r\nContent-Disposition: form-data; name="k"\r\n'
        + f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode()
        + b"\\ud800\r\n--B--\r\n"
    )
    with pytest.raises(InvalidRequest) as caught:
        read_search(HttpRequest(content_type="multipart/form-data; boundary=B", body=body))
    assert caught.value.parameter == "k"
