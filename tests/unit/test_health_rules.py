"""Each rule on rows whose answer is known."""

from __future__ import annotations

import numpy as np

from lookalike.core.health import (
    COPY,
    Rows,
    ShownProducts,
    low_quality,
    near_duplicates,
    never_shown,
    outliers,
    thin_categories,
)
from lookalike.core.health_categories import all_findings, wrong_categories
from lookalike.core.image_quality import FACTS
from lookalike.core.neighbours import Neighbours, exact_neighbours

DAY = 86_400.0


def rows_of(categories: list[int], names: tuple[str, ...], **changes: np.ndarray) -> Rows:
    """Good photos, a product each."""
    count = len(categories)
    facts = np.zeros(count, FACTS)
    facts["aspect"], facts["contrast"], facts["brightness"], facts["blur"] = 1, 50, 150, 0.2
    return Rows(
        products=changes.get("products", np.arange(count).astype(np.uint64)),
        categories=np.asarray(categories, np.int32),
        names=names,
        sides=changes.get("sides", np.full(count, 500, np.int32)),
        since=changes.get("since", np.zeros(count)),
        facts=changes.get("facts", facts),
    )


def grouped(counts: list[int], spread: float = 0.4) -> np.ndarray:
    """Embeddings about one axis a group."""
    chance = np.random.default_rng(6)
    of = np.repeat(np.arange(len(counts)), counts)
    points = np.eye(16)[of] + spread * chance.normal(size=(len(of), 16)) / 4
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def copies(*pairs: tuple[int, int, float, int, int, int]) -> np.ndarray:
    return np.asarray(list(pairs), COPY)


def test_a_product_among_those_of_another_category_is_found():
    categories = [0] * 40 + [1] * 40
    categories[3] = 1
    near = exact_neighbours(grouped([40, 40]), 10)
    (found,) = wrong_categories(rows_of(categories, ("hat", "shoe")), near)
    assert found.rows == (3,) and found.category == "shoe"
    assert found.evidence["likely"] == "hat" and found.evidence["share"] == 1.0
    assert "“shoe”" in found.reason and "“hat”" in found.reason


def test_categories_that_look_alike_accuse_nobody():
    chance = np.random.default_rng(1)
    categories = chance.integers(0, 2, 80).tolist()
    near = exact_neighbours(grouped([80]), 10)
    assert wrong_categories(rows_of(categories, ("shirt", "blouse")), near) == []


def test_views_of_the_same_product_and_copies_have_no_vote():
    categories = [0] * 40 + [1] * 40
    categories[:8] = [1] * 8
    points = grouped([40, 40])
    points[:8] = points[0]  # a misplaced product with eight views of one photo
    products = np.arange(80).astype(np.uint64)
    products[:4] = 0  # four of which are another's
    rows = rows_of(categories, ("hat", "shoe"), products=products)
    found = wrong_categories(rows, exact_neighbours(points, 20))
    assert {item.rows[0] for item in found} == {0, 4, 5, 6, 7}


def test_what_is_like_nothing_else_is_an_outlier():
    points = grouped([40, 40])
    points[7] = np.eye(16)[9]
    (found,) = outliers(rows_of([0] * 40 + [1] * 40, ("a", "b")), exact_neighbours(points, 10))
    assert found.rows == (7,) and found.category == "a"
    assert found.evidence["cosine"] < found.evidence["usual_cosine"]
    few = rows_of([0] * 10 + [1] * 10, ("a", "b"))
    assert outliers(few, exact_neighbours(points[:20], 10)) == []


def test_a_copy_keeps_no_product_from_being_an_outlier_of_its_own_views():
    points = grouped([40])
    points[7] = points[8] = np.eye(16)[9]
    products = np.arange(40).astype(np.uint64)
    products[8] = 7
    found = outliers(rows_of([0] * 40, ("a",), products=products), exact_neighbours(points, 10))
    assert [item.rows for item in found] == [(7,)]


def test_groups_are_all_that_copies_connect():
    rows = rows_of([0] * 9, ("a",))
    pairs = copies(
        (0, 1, 0.95, 2, 0, 0), (1, 2, 0.9, 20, 0, 1), (7, 3, 0.99, 0, 0, 0), (5, 6, 0.8, 3, 1, 0)
    )
    found = near_duplicates(rows, pairs)
    assert {item.rows: item.code for item in found} == {
        (0, 1, 2): "cropped",
        (3, 7): "same-photo",
        (5, 6): "mirrored",
    }
    assert found[0].reason == "3 products show the same photo, once cut to a part of it."
    assert found[0].evidence == {"photos": 3, "products": 3, "match": 0.9, "hash_bits": 20}
    assert near_duplicates(rows, copies()) == []


def test_a_long_chain_is_one_group():
    pairs = copies(*[(n, n + 1, 0.9, 1, 0, 0) for n in reversed(range(199))])
    (found,) = near_duplicates(rows_of([0] * 200, ("a",)), pairs)
    assert found.evidence["photos"] == 200 and len(found.rows) == 20


def test_the_same_photo_twice_in_one_product_is_said_so():
    rows = rows_of([0, 0], ("a",), products=np.zeros(2, np.uint64))
    (found,) = near_duplicates(rows, copies((0, 1, 1.0, 0, 0, 0)))
    assert found.reason == "One product has the same photo 2 times."


def test_each_poor_photo_has_its_gravest_fault():
    facts = rows_of([0] * 6, ("a",)).facts
    facts["contrast"][0] = 1
    facts["brightness"][[0, 2]] = 20
    facts["blur"][[0, 3]] = 0.8
    facts["aspect"][4], facts["contrast"][4] = 0, 0  # nobody could look at it
    sides = np.asarray([500, 60, 500, 500, 500, 500], np.int32)
    found = low_quality(rows_of([0] * 6, ("a",), facts=facts, sides=sides))
    assert {item.rows[0]: item.code for item in found} == {
        0: "near-blank",
        1: "tiny",
        2: "dark",
        3: "blurred",
    }
    assert found[1].evidence == {"shorter_side": 60} and "60 pixels" in found[1].reason


def test_products_that_waited_and_were_not_shown():
    products = np.asarray([1, 1, 2, 3, 4], np.uint64)
    since = np.asarray([50, 0, 0, 9.5, 0]) * DAY
    rows = rows_of([0] * 5, ("a",), products=products, since=since)
    shown = ShownProducts(np.asarray([4], np.uint64), 500, 10 * DAY)
    found = never_shown(rows, shown)
    assert [(item.rows, item.evidence["days"]) for item in found] == [((0,), 10), ((2,), 10)]
    assert never_shown(rows, None) == []
    assert never_shown(rows, ShownProducts(shown.hashes, 99, 10 * DAY)) == []


def test_a_category_with_few_products_beside_others():
    rows = rows_of([0] * 60 + [1] * 50 + [2] * 2, ("a", "b", "c"))
    (found,) = thin_categories(rows)
    assert found.category == "c" and found.evidence == {
        "category": "c",
        "products": 2,
        "median": 50.0,
    }
    assert thin_categories(rows_of([0] * 2, ("a",))) == []
    assert thin_categories(rows_of([0, 1, 1, 2, 2], ("a", "b", "c")))[0].category == "a"


def test_all_kinds_have_an_answer_even_without_categories_or_neighbours():
    nobody = Neighbours(np.full((3, 10), -1, np.int32), np.full((3, 10), -1, np.float32))
    found = all_findings(rows_of([-1, -1, -1], ()), nobody, copies(), None)
    assert len(found) == 6 and not any(found.values())
