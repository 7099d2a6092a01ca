from __future__ import annotations

import pytest

from lookalike.core.errors import CorruptFile
from lookalike.core.health_file import (
    Finding,
    Place,
    decode_findings_head,
    decode_page,
    encode_findings,
)


def finding(number: int) -> Finding:
    place = Place(f"p{number}", f"shop/p{number}.jpg", "00ff")
    return Finding("dark", f"Größe {number}", 0.5, "", {"brightness": 1.5, "n": number}, (place,))


def test_every_page_reads_alone_what_was_written():
    items = [finding(number) for number in range(250)]
    data, length = encode_findings({"low-quality": items, "outlier": []}, {"low-quality": 900}, 5.0)
    head = decode_findings_head(data[:length], "f")
    assert head.totals == {"low-quality": 900} and head.listed == {"low-quality": 250, "outlier": 0}
    assert [len(head.pages[kind]) for kind in ("low-quality", "outlier")] == [3, 0]
    read = []
    for start, size, digest in head.pages["low-quality"]:
        read += decode_page(data[start : start + size], digest, "f")
    assert read == items


def test_an_altered_page_or_head_is_refused():
    data, length = encode_findings({"outlier": [finding(1)]}, {"outlier": 1}, 0.0)
    start, size, digest = decode_findings_head(data[:length], "f").pages["outlier"][0]
    page = bytearray(data[start : start + size])
    page[3] ^= 1
    with pytest.raises(CorruptFile, match="checksum"):
        decode_page(bytes(page), digest, "f")
    with pytest.raises(CorruptFile):
        decode_findings_head(data[: length - 1], "f")


def test_checks_at_two_times_have_two_names():
    first, second = (encode_findings({}, {}, at)[0] for at in (1.0, 2.0))
    assert first != second
