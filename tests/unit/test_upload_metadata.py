from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.commands.upload_metadata import MetadataRows, user_metadata
from lookalike.core.attributes import from_user_metadata, typed
from lookalike.core.errors import InvalidRequest

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80)


@given(TEXT)
def test_what_is_sent_is_what_the_function_reads(value: str) -> None:
    sent = user_metadata({"title": value}, "row")
    assert all(item.isascii() and item.isprintable() for item in sent.values())
    expected = {"title": typed(value)} if value.strip() else {}
    assert from_user_metadata(sent) == expected


def test_an_encoded_word_in_the_data_is_not_decoded() -> None:
    sent = user_metadata({"title": "=?utf-8?q?x?="}, "row")
    assert from_user_metadata(sent) == {"title": "=?utf-8?q?x?="}


def test_names_and_values_as_s3_takes_them() -> None:
    values = {"Product Name": "Boot", "price": 49.9, "sale": True, "size": None, "note": "  "}
    assert user_metadata(values, "row") == {
        "product_name": "Boot",
        "price": "49.9",
        "sale": "true",
    }


def test_s3s_limit_is_explained() -> None:
    with pytest.raises(
        InvalidRequest, match=r"row 7: its metadata has 2\d{3} bytes; S3 takes 2048"
    ):
        user_metadata({"text": "x" * 2045}, "row 7")
    assert user_metadata({"text": "x" * 2044}, "row 7") == {"text": "x" * 2044}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Größe": "1"}, "cannot name S3 metadata"),
        ({"": "1"}, "cannot name S3 metadata"),
        ({"sizes": [1, 2]}, r"those go in a product\.json"),
    ],
)
def test_what_cannot_be_user_metadata(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        user_metadata(values, "row")


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"file": "a.jpg", "product_id": 7, "price": 5}\n\n{"product_id": "b"}\n')
    rows = MetadataRows(path)
    found = rows.find(str(tmp_path / "a.jpg"), "a.jpg", "a")
    assert found is not None
    assert (found.product_id, found.user_metadata) == ("7", {"price": "5"})
    assert rows.find("/x/b.jpg", "b.jpg", "b") is not None
    assert rows.find("/x/c.jpg", "c.jpg", "c") is None


def test_a_spreadsheets_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("\ufefffile,title\na.jpg,Grün\n".encode())
    assert MetadataRows(path).find("/x/a.jpg", "a.jpg", "a") is not None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", b"", r"neither \.csv nor \.jsonl"),
        ("rows.csv", b"name,title\n", "neither a file nor a product_id column"),
        ("rows.csv", b"", "neither a file nor a product_id column"),
        ("rows.csv", b"file,title\n\xff,x\n", "not UTF-8"),
        ("rows.csv", b"file,title\na.jpg,x,y\n", "row 2: has more values"),
        ("rows.csv", b"file,title\na.jpg,x\n./a.jpg,y\n", "row 3: an earlier row"),
        ("rows.csv", b"file,product_id\na.jpg,x/y\n", "must not contain"),
        ("rows.csv", b"file,product_id\n,\n", "row 2: needs a file or a product_id"),
        ("rows.jsonl", b"{]\n", "row 1: not JSON"),
        ("rows.jsonl", b"[1]\n", "row 1: must be a JSON object"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        MetadataRows(path)
