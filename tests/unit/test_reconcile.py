from __future__ import annotations

from dataclasses import replace

from lookalike.core.reconcile import (
    MAX_VIEWS,
    Gone,
    NewDocument,
    NewView,
    Refused,
    Touched,
    Unchanged,
    count_change,
    decide,
    is_empty,
    refuse_excess,
    stale_views,
)
from lookalike.core.types import Counts, Product, row_version

FRONT, BACK, DOCUMENT = "s/p/front.jpg", "s/p/back.jpg", "s/p/product.json"
EMPTY = Product("s", "p", "g")


def view(etag: str, **attributes) -> NewView:
    return NewView(etag, 1.0, attributes, 10, 20, f"thumbnails/{etag}")


def placed(product: Product) -> Product:
    """As after a commit: every stale view has its row."""
    stale = {
        item.key: replace(item, segment="seg", row=0, searchable_at=5.0)
        for item in stale_views(product)
    }
    return replace(product, views={**product.views, **stale})


def test_a_new_view_needs_a_row_and_takes_the_products_attributes():
    product = decide(EMPTY, {FRONT: view("a", colour="red")}, 5.0)
    (front,) = stale_views(product)
    assert front.version == row_version("a", {"colour": "red"})
    assert (product.updated_at, front.searchable_at) == (5.0, 0.0)
    assert count_change(EMPTY, product) == Counts(1, 1, 0)


def test_unchanged_and_repeated_observations_change_nothing():
    product = placed(decide(EMPTY, {FRONT: view("a")}, 5.0))
    assert decide(product, {FRONT: Unchanged()}, 6.0) is product
    assert decide(product, {BACK: Gone()}, 6.0) is product
    assert decide(product, {BACK: Refused("x", 1.0, "bad", "bad")}, 6.0) is product


def test_metadata_of_one_view_makes_every_row_stale():
    product = placed(decide(EMPTY, {FRONT: view("a"), BACK: view("b")}, 5.0))
    touched = decide(product, {FRONT: Touched("a", 2.0, {"price": 3})}, 6.0)
    assert [item.key for item in stale_views(touched)] == [BACK, FRONT]
    assert touched.views[FRONT].searchable_at == 5.0


def test_a_touch_with_the_same_metadata_needs_no_row():
    product = placed(decide(EMPTY, {FRONT: view("a", colour="red")}, 5.0))
    touched = decide(product, {FRONT: Touched("a", 2.0, {"colour": "red"})}, 6.0)
    assert touched.views[FRONT].last_modified == 2.0
    assert stale_views(touched) == []


def test_the_document_wins_over_views_and_leaves_with_its_object():
    seen = {FRONT: view("a", price=1, colour="red"), DOCUMENT: NewDocument("d", 1.0, {"price": 2})}
    product = placed(decide(EMPTY, seen, 5.0))
    assert product.attributes == {"price": 2, "colour": "red"}
    without = decide(product, {DOCUMENT: Gone()}, 6.0)
    assert without.attributes == {"price": 1, "colour": "red"}
    assert len(stale_views(without)) == 1


def test_a_refused_overwrite_takes_the_old_view_out():
    product = placed(decide(EMPTY, {FRONT: view("a")}, 5.0))
    refused = decide(product, {FRONT: Refused("b", 2.0, "corrupt-image", "…")}, 6.0)
    assert is_empty(refused)
    assert count_change(product, refused) == Counts(-1, -1, 0)


def test_an_overwrite_replaces_the_version():
    product = placed(decide(EMPTY, {FRONT: view("a")}, 5.0))
    overwritten = decide(product, {FRONT: view("b")}, 6.0)
    assert overwritten.views[FRONT].version != product.views[FRONT].version
    assert count_change(product, overwritten) == Counts()


def test_new_views_beyond_the_limit_are_refused_and_known_ones_are_not():
    full = {f"s/p/{number:03d}.jpg": view(str(number)) for number in range(MAX_VIEWS)}
    product = placed(decide(EMPTY, full, 5.0))
    seen = refuse_excess(product, {"s/p/000.jpg": view("new"), "s/p/999.jpg": view("x")})
    assert isinstance(seen["s/p/000.jpg"], NewView)
    assert isinstance(seen["s/p/999.jpg"], Refused)
    assert seen["s/p/999.jpg"].reason == "too-many-views"
