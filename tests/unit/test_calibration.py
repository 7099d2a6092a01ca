"""What scores mean: the isotonic map, the subspace, the pairs they are fitted on, the file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core import calibration as module
from lookalike.core.calibration import (
    MIN_PAIRS,
    MIN_ROWS,
    Calibration,
    ScoreMap,
    Subspace,
    calibration_error,
    decode_calibration,
    encode_calibration,
    fit_score_map,
    fit_subspace,
    held_out_error,
)
from lookalike.core.calibration_pairs import (
    Relevance,
    best_of_products,
    by_chance,
    cross_fitted_pairs,
    judged_pairs,
)
from lookalike.core.container import encode_container
from lookalike.core.errors import CorruptFile
from lookalike.core.head import Head, fit_head


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and matches whose probability is the score squared."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count)
    return scores, rng.uniform(size=count) < scores**2


def units(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_map_finds_the_probability() -> None:
    fitted = fit_score_map(*drawn(20_000))
    assert fitted is not None
    scores = np.linspace(0.05, 0.95, 19)
    assert fitted.match(scores) == pytest.approx(scores**2, abs=0.06)
    fresh_scores, fresh = drawn(20_000, 1)
    assert calibration_error(fitted.match(fresh_scores), fresh) < 0.015
    assert calibration_error(fresh_scores, fresh) > 0.15


def test_pools_are_those_of_isotonic_regression() -> None:
    regression = pytest.importorskip("sklearn.isotonic").IsotonicRegression()
    scores, good = drawn(3_000, 2)
    fitted = fit_score_map(scores, good)
    assert fitted is not None
    bins = np.array_split(np.argsort(scores), 100)
    hits = [good[part].mean() for part in bins]
    expected = regression.fit_transform(
        np.arange(100), hits, sample_weight=[len(part) for part in bins]
    )
    assert fitted.matches[:-1] == pytest.approx(expected, abs=0.02)  # (g + ½) / (n + 1) aside


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1, 1, width=32), st.booleans()), min_size=MIN_PAIRS, max_size=400
    ),
    st.none() | st.tuples(st.floats(-1, 1), st.floats(0, 1)),
)
def test_the_map_never_falls_and_stays_a_probability(
    pairs: list[tuple[float, bool]], chance: tuple[float, float] | None
) -> None:
    fitted = fit_score_map(*zip(*pairs, strict=True), chance)
    assert fitted is not None
    found = fitted.match(np.linspace(-1, 1, 401))
    assert np.all(np.diff(found) >= 0)
    assert np.all((found >= 0) & (found <= 1))
    assert np.all(np.diff(fitted.scores) >= 0)


def test_too_few_pairs_say_nothing() -> None:
    scores, good = drawn(MIN_PAIRS - 1)
    assert fit_score_map(scores, good) is None
    assert held_out_error(scores, good, np.arange(len(scores))) is None


def test_luck_is_no_certainty_but_the_same_photo_is_nearly_one() -> None:
    fitted = fit_score_map(np.linspace(0.5, 0.6, 100), np.ones(100))
    assert fitted is not None
    assert fitted.match([0.55])[0] == pytest.approx(100.5 / 101)
    mixed = fit_score_map(np.linspace(0.5, 0.6, 100), np.arange(100) % 2)
    assert mixed is not None
    assert mixed.match([0.6])[0] == pytest.approx(0.5, abs=0.05)
    assert mixed.match([1.0])[0] == 0.99


def test_below_what_searches_give_the_map_goes_down_to_chance() -> None:
    scores, good = np.linspace(0.5, 0.6, 300), np.ones(300)
    with_chance = fit_score_map(scores, good, (0.0, 0.1))
    without = fit_score_map(scores, good)
    assert with_chance is not None and without is not None
    assert with_chance.match([-0.5, 0.0])[:2] == pytest.approx(0.1)
    assert 0.1 < with_chance.match([0.25])[0] < 0.9
    assert without.match([0.0])[0] > 0.9


def test_an_error_by_hand() -> None:
    # In the bin of 0.1 and 0.12 one of two matches, 0.39 off; 0.9 does, 0.1 off.
    assert calibration_error([0.1, 0.12, 0.9], [0, 1, 1]) == pytest.approx((2 * 0.39 + 0.1) / 3)


def test_what_was_fitted_on_a_query_does_not_speak_for_it() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    scores = rng.uniform(0.4, 0.8, 400)
    good = rng.uniform(size=40)[groups] < 0.5  # decided by the query alone
    held_out = held_out_error(scores, good, groups)
    fitted = fit_score_map(scores, good)
    assert fitted is not None and held_out is not None
    assert held_out > calibration_error(fitted.match(scores), good)


@pytest.fixture(scope="module")
def plane() -> tuple[np.ndarray, np.ndarray]:
    """600 unit rows near a 5-dimensional subspace of 64 dimensions, and the subspace."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 5)))[0].T
    rows = rng.normal(size=(600, 5)) @ basis + 0.02 * rng.normal(size=(600, 64))
    return units(rows), basis


def test_foreign_queries_are_off_the_subspace_and_genuine_ones_seldom(plane) -> None:
    rows, _ = plane
    fitted = fit_subspace(rows[:400], np.arange(400))
    assert fitted is not None
    genuine = fitted.residuals(rows[400:]) > fitted.threshold
    assert genuine.mean() <= 0.06
    rng = np.random.default_rng(1)
    foreign = units(rng.normal(size=(200, 64)))
    assert np.all(fitted.residuals(foreign) > fitted.threshold)
    share = (fitted.residuals(rows[:400]) > fitted.threshold).mean()
    assert share < 0.02  # the fitted are nearer than those that were held out


def test_a_residual_is_the_squared_distance(plane) -> None:
    rows, basis = plane
    flat = Subspace(np.zeros(64, np.float32), basis.astype(np.float32), 0.0)
    outside = rows - rows @ basis.T @ basis
    assert flat.residuals(rows) == pytest.approx((outside**2).sum(axis=1), abs=1e-5)


def test_photos_of_one_product_are_held_out_together() -> None:
    """Each product has a direction of its own: only its other photos could explain it."""
    rng = np.random.default_rng(0)
    products = np.repeat(np.arange(12), 6)
    rows = units(np.eye(48)[products] + 0.01 * rng.normal(size=(72, 48)))
    together = fit_subspace(rows, products)
    apart = fit_subspace(rows, rng.permutation(72))
    assert together is not None and apart is not None
    assert together.threshold > 3 * apart.threshold


def test_too_few_rows_say_nothing_of_foreign_queries(plane) -> None:
    rows, _ = plane
    assert fit_subspace(rows[: MIN_ROWS - 1], np.arange(MIN_ROWS - 1)) is None
    assert fit_subspace(rows, np.zeros(600, dtype=np.int64)) is None  # nothing to hold out


def test_rows_that_are_all_alike_are_fitted_too() -> None:
    rows = units(np.ones((MIN_ROWS, 8)))
    fitted = fit_subspace(rows, np.arange(MIN_ROWS))
    assert fitted is not None and np.isfinite(fitted.threshold)
    assert fitted.residuals(units(-np.ones((1, 8))))[0] > fitted.threshold


def test_a_calibration_comes_back_from_its_file(plane) -> None:
    rows, _ = plane
    whole = Calibration(
        "space",
        "g1",
        "d1",
        "category",
        fit_score_map(*drawn(500)),
        fit_subspace(rows, np.arange(600)),
    )
    found = decode_calibration(encode_calibration(whole, made_at=1.5), "x")
    assert (found.encoder, found.generation, found.head, found.relevance) == (
        "space",
        "g1",
        "d1",
        "category",
    )
    assert whole.score_map and found.score_map and whole.subspace and found.subspace
    scores = np.linspace(-1, 1, 99)
    assert np.array_equal(found.score_map.match(scores), whole.score_map.match(scores))
    assert found.subspace.threshold == whole.subspace.threshold
    assert found.subspace.residuals(rows) == pytest.approx(
        whole.subspace.residuals(rows), rel=0.02, abs=2e-4
    )
    empty = Calibration("space", "g1", "", "", None, None)
    assert decode_calibration(encode_calibration(empty), "x") == empty
    assert encode_calibration(empty) != encode_calibration(empty, made_at=1.0)


def test_a_file_that_does_not_hold_what_it_says_is_refused() -> None:
    kind = module.KIND
    header = {"encoder": "e", "generation": "g", "head": "", "relevance": "category"}
    knots = {"scores": b"\0" * 16, "matches": b"\0" * 8}
    for body in (
        encode_container(kind, header, knots),
        encode_container(kind, header, {"scores": b"", "matches": b""}),
        encode_container(kind, {}, {}),
        encode_container(kind, header, {"mean": b"\0" * 8, "components": b"\0" * 6}),
        b"LKCA",
    ):
        with pytest.raises(CorruptFile, match="broken"):
            decode_calibration(body, "broken")


ROWS = [("a", "front", 0.9), ("b", "front", 0.8), ("c", "front", 0.7), ("d", "front", 0.6)]


def test_what_is_above_the_lowest_that_was_judged_is_judged_by_it() -> None:
    judged = [
        (ROWS, {"a": 1, "c": 1}),
        (ROWS, {"d": 0}),
        (ROWS, {"a": 3, "b": 0}),
        (ROWS, {"a": 1}),
    ]
    found = judged_pairs(judged)
    rows = zip(found.queries, found.ranks, found.scores, found.good, strict=True)
    assert list(rows) == [
        (0, 1, 0.9, True),
        (0, 2, 0.8, False),
        (1, 1, 0.9, False),
        (1, 2, 0.8, False),
        (1, 3, 0.7, False),
        (2, 1, 0.9, True),
    ]


def test_the_photo_itself_judges_nothing() -> None:
    assert len(judged_pairs([([("a", "front", 0.99), *ROWS], {"b": 1})])) == 1
    found = best_of_products(
        [0.98, 0.9, 0.8, 0.7], ["a", "a", "b", "a"], ["x", "x", None, "x"], "x"
    )
    assert found == [(0.9, True)]  # near-duplicate, match, unknown, seen


def test_relevance_is_by_category_or_by_product() -> None:
    assert Relevance("category").label("p", "shoes") == "shoes"
    assert Relevance("category").label("p", None) is None
    assert Relevance("product").label("p", "shoes") == "p"


def test_a_search_of_the_sample_leaves_out_the_query_and_its_product() -> None:
    raw = units(np.asarray([[1, 0, 0], [1, 0.3, 0], [1, 0.4, 0], [0, 1, 0]], dtype=np.float32))
    owners, labels = ["a", "a", "b", "c"], ["x", "x", "x", "y"]
    head = Head.identity(3)
    category = cross_fitted_pairs(raw, owners, labels, head, Relevance("category"), [0])
    scores = raw[0] @ raw.T
    assert category.scores == pytest.approx([scores[2], scores[3]])
    assert category.good == [True, False]
    product = cross_fitted_pairs(raw, owners, owners, head, Relevance("product"), [0])
    assert product.scores == pytest.approx([scores[1], scores[2], scores[3]])
    assert product.good == [True, False, False]


def test_heads_of_the_sample_have_not_seen_the_query() -> None:
    """Scores agree with those of new photos, where a head's own photos score lower."""
    rng = np.random.default_rng(0)
    rows = units(
        rng.normal(size=(450, 16)) @ rng.normal(size=(16, 96)) + rng.normal(size=(450, 96))
    )
    known, new = rows[:300], rows[300:]
    head = fit_head(known, 64)
    owners = [str(number) for number in range(300)]
    fitted = cross_fitted_pairs(known, owners, ["x"] * 300, head, Relevance("category"), range(300))
    assert len(fitted) == 3_000
    indexed = head.project(known)
    own = indexed @ indexed.T
    np.fill_diagonal(own, -1)

    def best(scores: np.ndarray) -> float:
        return float(np.sort(scores, axis=1)[:, -10:].mean())

    wanted = best(head.project(new) @ indexed.T)
    assert abs(np.mean(fitted.scores) - wanted) < 0.5 * abs(best(own) - wanted)


def test_chance_is_that_of_two_rows_at_random() -> None:
    rng = np.random.default_rng(0)
    rows = units(rng.normal(size=(2_000, 32)))
    labels = [None if number % 10 == 0 else str(number % 4) for number in range(2_000)]
    score, share = by_chance(rows, labels)
    assert score == pytest.approx(0, abs=0.02)
    assert share == pytest.approx(0.25, abs=0.04)
    assert by_chance(rows[:2], [None, "x"])[1] == 0.0


def test_the_map_is_linear_between_its_knots() -> None:
    assert ScoreMap(np.asarray([0.0, 1.0]), np.asarray([0.2, 0.6])).match([-1, 0.5, 2]) == (
        pytest.approx([0.2, 0.4, 0.6])
    )
