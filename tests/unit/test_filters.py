"""What filters mean, in which ways they are written, and that rows and columns agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.columns import Column, columns_of
from lookalike.core.errors import InvalidRequest
from lookalike.core.filters import parse_filter, parse_filter_text

SHOE = {
    "category": "Shoes",
    "price": 49.9,
    "brand": "Acme",
    "sizes": (41, 42),
    "sale": True,
    "washable": "TRUE",
    "street": "Lange Straße",
    "title": "Boots (red)",
    "heel height": "12",
    "nothing": (),
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("category=shoes", True),
        ("category=hats", False),
        ("category!=hats", True),
        ("category=hats|shoes", True),
        ("category!=hats|shoes", False),
        ("category!=hats|bags", True),
        ("price<=50", True),
        ("price<49.9", False),
        ("price>=49.9,category=shoes", True),
        ("price>50", False),
        ("price>=number(4.99e1)", True),
        ("price<number(1e-3)", False),
        ("sizes=42", True),
        ("sizes=43", False),
        ("sizes!=41", False),
        ("sizes<42,sizes>41", True),
        ("missing=1", False),
        ("missing!=1", True),
        ("missing<1", False),
        ("NOT missing<1", True),
        ("brand>5", False),
        ("brand<5", False),
        ("brand>=ACME,brand<B", True),
        ("street=lange STRASSE", True),
        ("street>lange strasse", False),
        ("sale=true", True),
        ("sale=TRUE", True),
        ("sale=1", False),
        ("sale>=true", False),
        ("sale<2", False),
        ("washable=true", True),
        ("title=Boots (red)", True),
        ('title="boots (red)"', True),
        ("heel height>=12", True),
        ("heel height exists", True),
        ("NOT heel height exists", False),
        ("nothing exists", False),
        ("nothing!=1", True),
        ("missing exists", False),
        ("NOT missing exists", True),
        ("price>50 OR sale=true", True),
        ("price>50 OR sale=false", False),
        ("brand=x AND price>50 OR sale=true", True),
        ("brand=x AND (price>50 OR sale=true)", False),
        ("brand=acme, (price>50 OR sale=true)", True),
        ("NOT (brand=x OR price>50), category=shoes", True),
        ("NOT NOT brand=acme", True),
        (",brand=acme,,price<50,", True),
        ('{"price": {"gte": 10, "lt": 50}}', True),
        ('{"price": {"gte": 10, "lt": 20}}', False),
        ('{"sale": true}', True),
        ('{"sale": 1}', False),
        ('{"washable": true}', True),
        ('{"brand": ["x", "ACME"]}', True),
        ('{"brand": {"in": ["x"]}}', False),
        ('{"brand": {"ne": ["x", "y"]}}', True),
        ('{"brand": {"exists": true}, "colour": {"exists": false}}', True),
        ('{"price": "49.90"}', True),
        ('{"or": [{"brand": "x"}, {"price": {"lt": 50}, "sale": true}]}', True),
        ('{"or": [{"brand": "x"}, {"price": {"lt": 50}, "sale": false}]}', False),
        ('{"and": [{"brand": "acme"}, {"not": {"brand": "x"}}]}', True),
        ('{"not": {"brand": "acme", "price": 1}}', True),
        ('{"not": {"not": {"brand": "acme"}}}', True),
        ("", True),
        ("{}", True),
        (" , ", True),
    ],
)
def test_matching(text, matches):
    asked = parse_filter_text(text)
    assert asked.matches(SHOE) is matches
    assert asked.select(1, columns_of([SHOE]).get).tolist() == [matches]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "is a JSON object such as"),
        (["category"], "is a JSON object such as"),
        ("category", "character 1, “category”: a condition is missing; write one like"),
        ("category=shoes,price", "character 16, “price”"),
        ("{broken", "begins like JSON"),
        ('{"a":' * 9999, "its JSON is nested too deeply"),
        ({"price": {"about": 5}}, "at price: there is no test “about”; write one of eq, ne, in"),
        ({"price": {"in": []}}, "in takes a list of 1 to 256 values"),
        ({"price": {"in": "text"}}, "in takes a list"),
        ({"price": {"exists": "yes"}}, "exists takes true or false"),
        ({"price": None}, '{"exists": false}'),
        ({"price": {}}, "at price: there is no test; write one such as"),
        ({"price": {"lt": {"deep": 1}}}, "must be a text, a finite number, true or false"),
        ({"price": {"lt": [1, 2]}}, "lt compares with one value; 2 are given"),
        ({"price": float("nan")}, "a finite number"),
        ({"price": 10**400}, "a finite number"),
        ({str(number): 1 for number in range(33)}, "more than the 32 conditions"),
        (",".join(f"a{number}=1" for number in range(33)), "more than the 32 conditions"),
        ({"or": [{"a": 1, "b": {"lt": 2, "gt": 1}}] * 11}, "more than the 32 conditions"),
        ({"price": list(range(257))}, "at price: a condition has at most 256 values; 257 are"),
        ("a=" + "|".join(map(str, range(257))), "a condition has at most 256 values; 257 are"),
        ('{"price": ' + "9" * 5000 + "}", "a number in its JSON has too many digits."),
        ({"price": {"\ud800": 1}}, "no test “?”"),
        ({"\ud800": 1}, "no Unicode text"),
        ({"price": "\ud800"}, "no Unicode text"),
        ('{"price": ["\\ud800"]}', "no Unicode text"),
        ("price=\ud800", "no Unicode text"),
        ({"price": "x" * 2001}, "at most 2000 characters"),
        ({"x" * 65: 1}, "1 to 64 characters"),
        ({"": 1}, "1 to 64 characters"),
        ({"or": []}, "at or: or takes a list of filters"),
        ({"or": {"a": 1}}, "at or: or takes a list of filters"),
        ({"and": "a"}, "at and: and takes a list of filters"),
        ({"or": [{"a": 1}, {"b": {"x": 1}}]}, "at or[1].b: there is no test “x”"),
        ({"or": [{"a": 1}, "b=1"]}, "at or[1]: a filter is a JSON object"),
        ({"or": [{}]}, "at or[0]: this filter is empty"),
        ({"not": {}}, "at not: this filter is empty"),
        ({"not": [{"a": 1}]}, "at not: a filter is a JSON object"),
        ("a=1 OR b=2, c=3", "character 1, “a=1 OR b=2, c=3”: OR beside a comma is unclear"),
        ("a=1)", "character 4, “)”: there is no ( that this ) closes"),
        ("b=2, (a=1", "character 6, “(a=1”: this ( is not closed"),
        ("a=1, ()", "character 6, “()”: there is nothing"),
        ("(a=1) b=2", "character 7, “b=2”: a comma, AND or OR is missing"),
        ("title=Salt AND Pepper", "character 16, “Pepper”"),
        ("a=1 AND", "at its end: a condition is missing"),
        ("AND a=1", "a condition is missing before AND"),
        ("a=1 OR AND b=1", "character 8, “AND b=1”: a condition is missing before AND"),
        ('a="b', 'character 3, “"b”: this double quote is not closed'),
        ('a="b" c', "character 7, “c”: after a value in double quotes"),
        ("a=b (c", "character 5, “(c”: this ( is not closed; in quotes it need not be"),
        ("<5", "name of an attribute is missing before <"),
        ("price<1|2", "lt compares with one value"),
        ("a!5", "a condition is missing"),
    ],
    ids=lambda value: str(value)[:30].encode(errors="replace").decode(),
)
def test_what_is_no_filter_is_refused_by_parameter(value, says):
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(value)
    assert caught.value.parameter == "filter"
    assert says in caught.value.detail


def nested(depth: int, kind: str) -> object:
    inner: object = {"a": {"lt": 1}}
    for _ in range(depth):
        inner = {kind: inner if kind == "not" else [inner, {"b": 1}]}
    return inner


@pytest.mark.parametrize("kind", ["and", "or", "not"])
def test_depth_is_bounded(kind):
    assert parse_filter(nested(8, kind))
    with pytest.raises(InvalidRequest, match="at most 8 deep"):
        parse_filter(nested(9, kind))


@pytest.mark.parametrize("kinds", [("or",), ("not",), ("or", "not"), ("not", "or", "and")])
def test_the_deepest_filter_says_itself(kinds):
    value: dict[str, object] = {"a": {"lt": 1}}
    for level in range(8):
        kind = kinds[level % len(kinds)]
        several = [value, {"b": {"gt": level}}]
        value = {"c": level, kind: {**value, "d": level} if kind == "not" else several}
    asked = parse_filter(value)
    assert parse_filter_text(str(asked)) == asked


def test_depth_of_parentheses_is_bounded():
    assert parse_filter_text("(" * 8 + "a=1" + ")" * 8) == parse_filter_text("a=1")
    for depth in (9, 8000):
        with pytest.raises(InvalidRequest, match="at most 8 deep"):
            parse_filter_text("(" * depth + "a=1" + ")" * depth)
    assert parse_filter_text("NOT " * 8001 + "a=1") == parse_filter_text("a!=1")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, ""),
        ({"a": "X", "b": {"lt": 3}}, "a=x, b<3"),
        ({"brand": ["a", "b", "A"], "sale": True}, "brand=a|b, sale=true"),
        ({"price": {"gte": 0.5, "lt": 1e-12}}, "price>=0.5, price<number(1e-12)"),
        ({"price": [1e15, 123456789012345]}, "price=number(1000000000000000.0)|123456789012345"),
        ({"a": {"exists": False}, "b": {"exists": True}}, "NOT a exists, b exists"),
        ({"or": [{"a": 1, "b": 2}, {"c": 3}]}, "a=1 AND b=2 OR c=3"),
        ({"a": 1, "or": [{"b": 2}, {"c": 3}]}, "a=1, (b=2 OR c=3)"),
        ({"not": {"a": 1, "b": 2}}, "NOT (a=1 AND b=2)"),
        ({"not": {"a": {"lt": 1}}}, "NOT a<1"),
        ({"not": {"a": 1}}, "a!=1"),
        ({"Heel Height": 1, "it exists": 2, " x": 3}, 'heel height=1, "it exists"=2, " x"=3'),
        ({"title": 'a "b" \\, (c)'}, 'title="a \\"b\\" \\\\, (c)"'),
        ({"state": "OR", "empty": "", "less": "<5"}, 'state=or, empty="", less="<5"'),
        ({"{": 1}, '"{"=1'),
    ],
)
def test_the_text_form(value, text):
    assert str(parse_filter(value)) == text
    assert parse_filter_text(text) == parse_filter(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" category = Shoes , price <= 50 ", {"category": "shoes", "price": {"lte": 50}}),
        ("a==b", {"a": "=b"}),
        ("a=b=c<d", {"a": "b=c<d"}),
        ("a=", {"a": ""}),
        ("a=|b", {"a": ["", "b"]}),
        ('size=19"', {"size": '19"'}),
        ("title=red (a, b) x", {"title": "red (a, b) x"}),
        ("width (cm)<5", {"width (cm)": {"lt": 5}}),
        ("a|b=1", {"a|b": 1}),
        ("state=OR", {"state": "or"}),
        ("state=CA|OR AND a=1", {"state": ["ca", "or"], "a": 1}),
        ("state=OREGON OR state=ORANGE", {"or": [{"state": "oregon"}, {"state": "orange"}]}),
        ("order=1", {"order": 1}),
        ("NOT(a<1)AND(b=1)", {"not": {"a": {"lt": 1}}, "b": 1}),
        ('"a b" exists', {"a b": {"exists": True}}),
        ("a='b'", {"a": "'b'"}),
        ("exists=1", {"exists": 1}),
        ("a exists AND b EXISTS", {"a": {"exists": True}, "b": {"exists": True}}),
        ("a=1e5", {"a": "1e5"}),
        ("grün=日本", {"grün": "日本"}),
    ],
)
def test_reading_text(text, value):
    assert parse_filter_text(text) == parse_filter(value)


def test_a_truth_value_is_no_number_in_a_filter():
    assert parse_filter({"a": True}) != parse_filter({"a": 1})
    assert len({parse_filter({"a": True}), parse_filter({"a": 1}), parse_filter({"a": 1.0})}) == 2
    assert parse_filter({"a": [True, 1]}).matches({"a": 1})


def test_the_attributes_that_a_filter_asks_for():
    asked = parse_filter_text("a=1, (b=2 OR NOT (c exists AND a<3))")
    assert asked.attributes == {"a", "b", "c"}
    assert parse_filter({}).attributes == frozenset()


NAMES = st.sampled_from(["a", "b", "c d"])
WORDS = ["", "x", "X", "Straße", "strasse", "10", "1.50", " 10", "007", "true", "FALSE", 'z|(," OR']
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-2, 11),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=4),
)
ATTRIBUTES = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3).map(tuple))
TESTS = st.one_of(
    SCALARS,
    st.lists(SCALARS, min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"]), SCALARS, min_size=1),
    st.builds(lambda values: {"in": values}, st.lists(SCALARS, min_size=1, max_size=3)),
    st.builds(lambda yes: {"exists": yes}, st.booleans()),
)


def groups(inner: st.SearchStrategy) -> st.SearchStrategy:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda parts: {"and": parts}, several),
        st.builds(lambda parts: {"or": parts}, several),
        st.builds(lambda part: {"not": part}, inner),
        st.builds(lambda part, parts: {**part, "or": parts}, inner, several),
    )


FILTERS = st.recursive(st.dictionaries(NAMES, TESTS, min_size=1), groups, max_leaves=4)


@given(FILTERS, st.lists(ATTRIBUTES, max_size=8))
def test_columns_say_what_rows_say(value, rows):
    asked = parse_filter(value)
    columns = columns_of(rows)
    expected = [asked.matches(row) for row in rows]
    assert asked.select(len(rows), columns.get).tolist() == expected
    stored = {name: Column.decode(column.encode()) for name, column in columns.items()}
    assert asked.select(len(rows), stored.get).tolist() == expected
    # Segment by segment it is the same as all at once.
    one_by_one = [asked.select(1, columns_of([row]).get)[0] for row in rows]
    assert one_by_one == expected


@given(FILTERS, ATTRIBUTES)
def test_a_filter_says_itself(value, row):
    asked = parse_filter(value)
    again = parse_filter_text(str(asked))
    assert again == asked and hash(again) == hash(asked)
    assert str(again) == str(asked)
    assert parse_filter_text(json.dumps(value)) == asked
    assert again.matches(row) is asked.matches(row)


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), min_size=1, max_size=3)
)
def test_any_name_and_any_text_can_be_said(value):
    reserved = {"and", "or", "not"} & {name.lower() for name in value}
    if not reserved:
        asked = parse_filter(value)
        assert parse_filter_text(str(asked)) == asked
        assert asked.matches({name.lower(): text for name, text in value.items()}) or len(
            {name.lower() for name in value}
        ) < len(value)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9_-]{0,5}( [a-z0-9]{1,5})?", fullmatch=True),
            st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
            st.from_regex(r"[^,|()\"\s<>=!{A-Z][^,|()A-Z]{0,8}", fullmatch=True),
        ),
        max_size=5,
    )
)
def test_what_was_a_filter_before_and_or_and_not_still_is(parts):
    asked = parse_filter_text(",".join("".join(part) for part in parts))
    operators = {"=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
    expected = [{name: {operators[symbol]: value}} for name, symbol, value in parts]
    assert asked == (parse_filter({"and": expected}) if expected else parse_filter({}))


@given(st.text(alphabet='ab=<>!|,() "\\{}:[]1.NOTANDOR', max_size=40) | st.text(max_size=40))
def test_any_text_is_a_filter_or_is_refused(text):
    try:
        asked = parse_filter_text(text)
    except InvalidRequest:
        return
    assert parse_filter_text(str(asked)) == asked


def test_what_the_page_on_filters_shows_can_be_read():
    page = (Path(__file__).parents[2] / "docs/filters.md").read_text()
    cells = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    texts = [text.replace("\\|", "|") for cell in cells for text in re.findall("`([^`]+)`", cell)]
    texts += re.findall(r"--filter '([^']+)'", page)
    bodies = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(texts) > 10 and bodies
    for text in texts + bodies:
        assert parse_filter_text(text).attributes, text
