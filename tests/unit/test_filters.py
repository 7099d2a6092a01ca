from __future__ import annotations

import pytest

from lookalike.core.errors import InvalidRequest
from lookalike.core.filters import parse_filter, parse_filter_text

SHOE = {"category": "Shoes", "price": 49.9, "brand": "Acme", "sizes": (41, 42), "sale": True}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("category=shoes", True),
        ("category=hats", False),
        ("category!=hats", True),
        ("category=hats|shoes", True),
        ("price<=50", True),
        ("price<49.9", False),
        ("price>=49.9,category=shoes", True),
        ("price>50", False),
        ("sizes=42", True),
        ("sizes=43", False),
        ("sizes!=41", False),
        ("missing=1", False),
        ("missing!=1", True),
        ("brand>5", False),
        ('{"price": {"gte": 10, "lt": 50}}', True),
        ('{"price": {"gte": 10, "lt": 20}}', False),
        ('{"sale": true}', True),
        ('{"sale": 1}', False),
        ('{"brand": ["x", "ACME"]}', True),
        ('{"brand": {"in": ["x"]}}', False),
        ('{"brand": {"exists": true}, "colour": {"exists": false}}', True),
        ('{"price": "49.90"}', True),
        ("", True),
    ],
)
def test_matching(text, matches):
    assert parse_filter_text(text).matches(SHOE) is matches


@pytest.mark.parametrize(
    "value",
    [
        7,
        ["category"],
        "category",
        "category=shoes,price",
        "{broken",
        {"price": {"about": 5}},
        {"price": {"in": []}},
        {"price": {"in": "text"}},
        {"price": {"exists": "yes"}},
        {"price": None},
        {"price": {"lt": {"deep": 1}}},
        {"price": float("nan")},
        {str(number): 1 for number in range(33)},
        {"price": list(range(257))},
        {"price": {"\ud800": 1}},
        {"\ud800": 1},
        {"price": "\ud800"},
        '{"price": ["\\ud800"]}',
        {"price": "x" * 2001},
        {"x" * 65: 1},
    ],
)
def test_what_is_no_filter_is_refused_by_parameter(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(value)
    assert caught.value.parameter == "filter"


def test_it_says_itself_for_the_search_log():
    assert str(parse_filter({"a": "x", "b": {"lt": 3}})) == "a eq x, b lt 3"
