"""What the dashboard draws as HTML: everything from outside is escaped."""

from __future__ import annotations

from dashboard.pages.markup import (
    explanation_facts,
    moment,
    picture,
    result_grid,
    safe_url,
    table,
)

HOSTILE = '"><script>alert(1)</script>'


def test_a_card_shows_what_was_found_and_links_to_more():
    result = {
        "product_id": "mug 1&2",
        "score": 0.8125,
        "title": "Blue mug",
        "category": "mug",
        "image_url": "http://127.0.0.1:5000/a?x=1&y=2",
        "thumbnail_url": "http://127.0.0.1:5000/t",
        "attributes": {"price": 16.0},
    }
    html = result_grid([result], "default")
    assert "0.812" in html
    assert "Blue mug" in html
    assert "mug · 16.00" in html
    assert 'href="?like=mug+1%262&amp;catalogue=default"' in html
    assert 'href="http://127.0.0.1:5000/a?x=1&amp;y=2"' in html


def test_only_what_can_be_explained_may_be_asked_why():
    plain = {"product_id": "a", "score": 0.5, "attributes": {}, "explanation_url": None}
    explained = plain | {"explanation_url": "http://127.0.0.1:8000/explanations/q/a"}
    html = result_grid([plain, explained, plain], "default")
    assert html.count("data-why") == 1
    assert 'data-why="http://127.0.0.1:8000/explanations/q/a"' in html


def test_facts_and_pictures_are_escaped():
    assert "<script" not in explanation_facts([(HOSTILE, HOSTILE)])
    assert 'src="data:image/webp;base64,IiA+"' in picture(b'" >')


def test_hostile_metadata_stays_text():
    result = {
        "product_id": HOSTILE,
        "score": 1.0,
        "title": HOSTILE,
        "category": HOSTILE,
        "image_url": "javascript:alert(1)",
        "thumbnail_url": HOSTILE,
        "attributes": {"price": HOSTILE},
    }
    html = result_grid([result], HOSTILE)
    assert "<script" not in html
    assert "javascript:" not in html


def test_a_result_without_metadata_is_named_by_its_id():
    result = {"product_id": "p-7", "score": -0.2, "attributes": {}}
    html = result_grid([result], "default")
    assert '<div class="title">p-7</div>' in html
    assert "width:0%" in html


def test_only_web_addresses_are_linked():
    assert safe_url("https://shop.example/a") == "https://shop.example/a"
    assert safe_url("data:text/html,x") == ""
    assert safe_url(None) == ""


def test_a_table_escapes_its_cells():
    html = table([("Key", "key"), ("Tries", "number")], [["<b>", "3"]])
    assert '<td class="key">&lt;b&gt;</td><td class="number">3</td>' in html


def test_times_are_utc():
    assert moment(1_700_000_000.0) == "14 Nov 22:13:20"
