"""Explanations: every formula by hand, what the numbers promise, and degenerate images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.explanation import Cells, Explanation, explain, foreground_cells
from lookalike.core.head import Head
from lookalike.core.pooling import pool


def grid(*cells: list[float]) -> np.ndarray:
    """A map (C, 1, n) of cells given one by one."""
    return np.array(cells, dtype=np.float32).T[:, None, :]


def shares(*weights: float) -> np.ndarray:
    return np.array([weights], dtype=np.float32)


def random_cells(seed: int, side: int = 4, channels: int = 12, sparse: bool = False) -> Cells:
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(0.2, 1, (channels, side, side)), 0).astype(np.float32)
    weights = rng.random((side, side)).astype(np.float32)
    if sparse:
        weights *= rng.random((side, side)) < 0.5
        weights[1, 1] = 1
    return Cells(maps, weights / weights.sum())


def fitted(channels: int = 12, dim: int = 5, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    components = np.linalg.qr(rng.normal(size=(channels, dim)))[0].T
    mean = rng.random(channels) * 0.3
    return Head(channels, dim, mean.astype(np.float32), components.astype(np.float32))


HEADS = {"identity": Head.identity(12), "fitted": fitted()}


def embedding(cells: Cells, head: Head) -> np.ndarray:
    return head.project(pool(cells.maps[None], cells.weights[None]))[0].astype(np.float64)


def mixed(parts: list[Cells], factors: list[float], head: Head) -> list[Cells]:
    """Parts with coefficients such that Σ c·e has length 1."""
    whole = sum(f * embedding(part, head) for f, part in zip(factors, parts, strict=True))
    length = float(np.linalg.norm(whole))
    return [replace(p, coefficient=f / length) for f, p in zip(factors, parts, strict=True)]


def score_of(parts: list[Cells], result: Cells, head: Head) -> float:
    """S as a search has it, for images that are whatever they are."""
    whole = sum(part.coefficient * embedding(part, head) for part in parts)
    return float(whole @ embedding(result, head) / np.linalg.norm(whole))


def test_two_cells_by_hand():
    """g = (½, ½), r = (1, 0): S = 1/√2, all of it of the cell along r; v = (½, −½)/|g|²·|g|."""
    query = Cells(grid([1, 0], [0, 1]), shares(0.5, 0.5))
    result = Cells(grid([3, 0], [1, 0]), shares(0.25, 0.75))

    got = explain([query], result, Head.identity(2))

    root = 1 / np.sqrt(2)
    assert got.score == pytest.approx(root)
    np.testing.assert_allclose(got.query[0].contributions, [[root, 0]], atol=1e-7)
    # dS/dg = (r − S·ĝ)/|g| = ((1, 0) − (½, ½))·√2; v·A(x) = ±1/√2, w = ½.
    np.testing.assert_allclose(got.query[0].pulls, [[root / 2, -root / 2]], atol=1e-7)
    np.testing.assert_allclose(got.query[0].gradcam, [[1, 0]])
    # Both cells of the result point the same way: they share by w·A, and neither pulls.
    np.testing.assert_allclose(got.result.contributions, [[root * 0.5, root * 0.5]], atol=1e-7)
    assert not got.result.pulls.any() and not got.result.gradcam.any()
    assert got.query[0].residual == pytest.approx(0, abs=1e-7)


def test_a_fitted_head_by_hand():
    """m = (0, ⅗), W swaps the axes: ĝ = (⅗, ⅘), u = W(⅗, ⅕) = (⅕, ⅗), |u| = √10/5."""
    head = Head(2, 2, np.array([0, 0.6], np.float32), np.array([[0, 1], [1, 0]], dtype=np.float32))
    query = Cells(grid([6, 0], [0, 8]), shares(0.5, 0.5))
    towards = np.array([1, 0], dtype=np.float32)
    result = Cells(grid([0, 1]), shares(1), towards)

    got = explain([query], result, head)

    spread = np.sqrt(10) / 5
    assert got.score == pytest.approx(0.2 / spread)
    # w·W(A/|g| − m)·r/|u| with |g| = 5: second components 0 − 0.6 and 1.6 − 0.6, halved.
    expected = np.array([[-0.3, 0.5]]) / spread
    np.testing.assert_allclose(got.query[0].contributions, expected, atol=1e-6)
    # e = (1, 3)/√10, δ = r − S·e = (0.9, −0.3); Wᵀδ/|u| = (−0.3, 0.9)/|u|; at right angles to ĝ:
    # (−0.3, 0.9) − 0.54·(0.6, 0.8) = (−0.624, 0.468); by |g| and times A: −0.7488 and 0.7488.
    pulls = np.array([[-0.7488, 0.7488]]) / 2 / spread
    np.testing.assert_allclose(got.query[0].pulls, pulls, atol=1e-6)
    np.testing.assert_allclose(got.query[0].gradcam, [[0, 1]])


def test_several_images_by_hand():
    """q = (0.8, 0.6) of two photos of one cell each: they have 0.8·r₁ and 0.6·r₂ of the score."""
    first = Cells(grid([2, 0]), shares(1), coefficient=0.8)
    second = Cells(grid([0, 1]), shares(1), coefficient=0.6)
    result = Cells(grid([0.6, 0], [0, 0.8]), shares(0.5, 0.5))

    got = explain([first, second], result, Head.identity(2))

    assert got.score == pytest.approx(0.96)
    assert got.query[0].contributions.item() == pytest.approx(0.48)
    assert got.query[1].contributions.item() == pytest.approx(0.48)
    np.testing.assert_allclose(got.result.contributions, [[0.48, 0.48]], atol=1e-6)


def test_what_storing_changes_is_shared_out_by_weight():
    """The search used (0.6, 0.8), the map gives (1, 0): 0.6 − 1 is missing, ¼ and ¾ of it."""
    stored = np.array([0.6, 0.8], dtype=np.float32)
    query = Cells(grid([1, 0], [1, 0]), shares(0.25, 0.75), stored)
    result = Cells(grid([1, 0]), shares(1))

    got = explain([query], result, Head.identity(2))

    assert got.score == pytest.approx(0.6)
    assert got.query[0].residual == pytest.approx(-0.4)
    np.testing.assert_allclose(got.query[0].contributions, [[0.15, 0.45]], atol=1e-6)
    assert got.result.residual == pytest.approx(0, abs=1e-7)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Cells], Cells, Head]:
    head = HEADS[draw(st.sampled_from(sorted(HEADS)))]
    seed = draw(st.integers(0, 10**6))
    factors = draw(st.lists(st.sampled_from([1.0, 0.4, -0.5, 2.0]), min_size=1, max_size=3))
    sparse = draw(st.booleans())
    parts = [random_cells(seed + k, sparse=sparse) for k in range(len(factors))]
    result = random_cells(seed + 10, sparse=draw(st.booleans()))
    if draw(st.booleans()):  # embeddings as they come back from a store
        rng = np.random.default_rng(seed)

        def stored(cells: Cells) -> Cells:
            noisy = embedding(cells, head) + rng.normal(0, 2e-3, head.dim_out)
            return replace(cells, embedding=(noisy / np.linalg.norm(noisy)).astype(np.float32))

        parts, result = [stored(part) for part in parts], stored(result)
    if len(factors) == 1:
        factors = [1.0]
    whole = sum(
        f * (embedding(p, head) if p.embedding is None else p.embedding.astype(np.float64))
        for f, p in zip(factors, parts, strict=True)
    )
    length = float(np.linalg.norm(whole))
    parts = [replace(p, coefficient=f / length) for f, p in zip(factors, parts, strict=True)]
    return parts, result, head


@given(pairs())
def test_sums(pair: tuple[list[Cells], Cells, Head]):
    parts, result, head = pair

    got = explain(parts, result, head)

    total = sum(side.contributions.sum() for side in got.query)
    assert total == pytest.approx(got.score, abs=1e-9)
    assert got.result.contributions.sum() == pytest.approx(got.score, abs=1e-9)
    for side, cells in zip([*got.query, got.result], [*parts, result], strict=True):
        assert side.pulls.sum() == pytest.approx(0, abs=1e-9)
        assert side.gradcam.min() >= 0
        assert side.gradcam.max() in (0, 1)
        unseen = cells.weights == 0
        assert not side.contributions[unseen].any()
        assert not side.gradcam[unseen].any()
        assert not side.pulls[unseen].any()
        assert abs(side.residual) < 0.1


@given(pairs(), st.sampled_from([1e-6, 0.3, 7.0, 1e6]))
def test_a_scaled_map_changes_nothing(pair: tuple[list[Cells], Cells, Head], factor: float):
    parts, result, head = pair
    scaled = [replace(part, maps=part.maps * np.float32(factor)) for part in parts]

    got, expected = explain(scaled, result, head), explain(parts, result, head)

    for mine, other in zip(got.query, expected.query, strict=True):
        np.testing.assert_allclose(mine.contributions, other.contributions, atol=1e-5)
        np.testing.assert_allclose(mine.pulls, other.pulls, atol=1e-5)
        np.testing.assert_allclose(mine.gradcam, other.gradcam, atol=1e-3)


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("factors", [[1.0], [1.0, 0.5], [1.0, -0.4]], ids=str)
def test_a_pull_is_the_slope_of_the_score_in_the_cells_weight(name: str, factors: list[float]):
    """Weigh one cell a little more or less, and pool, project and compare anew."""
    head = HEADS[name]
    parts = mixed([random_cells(7 + k) for k in range(len(factors))], factors, head)
    result = random_cells(30)
    got = explain(parts, result, head)
    step = 0.02

    def moved(cells: Cells, row: int, column: int, by: float) -> Cells:
        weights = cells.weights.astype(np.float64)
        weights[row, column] *= 1 + by
        return replace(cells, weights=(weights / weights.sum()).astype(np.float32))

    for row, column in np.ndindex(4, 4):
        for part in range(len(parts)):
            ends = [
                score_of(
                    [moved(p, row, column, by) if k == part else p for k, p in enumerate(parts)],
                    result,
                    head,
                )
                for by in (step, -step)
            ]
            slope = (ends[0] - ends[1]) / (2 * step)
            assert got.query[part].pulls[row, column] == pytest.approx(slope, abs=2e-5)
        ends = [score_of(parts, moved(result, row, column, by), head) for by in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert got.result.pulls[row, column] == pytest.approx(slope, abs=2e-5)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_pulls_foretell_what_leaving_a_cell_out_does(name: str):
    """Not a small step, so not exactly: but the cells that pull down are those better left out."""
    head = HEADS[name]
    for seed in range(10):
        query, result = random_cells(seed, side=7), random_cells(seed + 100, side=7)
        got = explain([query], result, head)
        lost = []
        for cell in range(49):
            weights = query.weights.copy()
            weights.reshape(-1)[cell] = 0
            left = replace(query, weights=weights / weights.sum())
            lost.append(got.score - score_of([left], result, head))
        pulls = got.query[0].pulls.reshape(-1)
        assert np.corrcoef(pulls, lost)[0, 1] > 0.9
        assert lost[int(pulls.argmin())] < 0 < lost[int(pulls.argmax())]


def test_the_target_is_never_the_image_itself():
    """A cosine with itself is at its top: the gradient is zero, and its rounding is no map."""
    for head in HEADS.values():
        image = random_cells(3)
        rng = np.random.default_rng(1)
        noisy = embedding(image, head) + rng.normal(0, 1e-3, head.dim_out)
        stored = (noisy / np.linalg.norm(noisy)).astype(np.float32)
        for other in (image, replace(image, embedding=stored)):
            got = explain([image], other, head)
            for side in (*got.query, got.result):
                assert not side.gradcam.any()
                assert not side.pulls.any()
                assert side.contributions.sum() == pytest.approx(got.score, abs=1e-9)
            assert got.differs == ()
            assert got.matches


def finite(explanation: Explanation) -> None:
    for side in (*explanation.query, explanation.result):
        for array in (side.contributions, side.gradcam, side.pulls):
            assert np.isfinite(array).all()
        assert np.isfinite(side.residual)
    numbers = [explanation.score, *(match.contribution for match in explanation.matches)]
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("name", sorted(HEADS))
def test_degenerate_images_give_numbers(name: str):
    head = HEADS[name]
    usual = random_cells(1)
    alike = replace(usual, maps=np.repeat(usual.maps[:, :1, :1], 16, axis=2).reshape(12, 4, 4))
    flat = replace(usual, weights=np.full((4, 4), 1 / 16, np.float32))
    zero = replace(usual, maps=np.zeros_like(usual.maps))
    unknown = replace(zero, embedding=np.zeros(head.dim_out, np.float32))
    one = Cells(usual.maps[:, :1, :1], np.ones((1, 1), np.float32))
    tiny = replace(usual, maps=usual.maps * np.float32(1e-30))
    for odd in (alike, flat, zero, unknown, one, tiny):
        for query, result in ((odd, usual), (usual, odd), (odd, odd)):
            finite(explain([query], result, head))


def test_cells_all_alike_have_no_map_and_no_foreground():
    usual = random_cells(1)
    alike = replace(usual, maps=np.repeat(usual.maps[:, :1, :1], 16, axis=2).reshape(12, 4, 4))

    got = explain([alike], random_cells(2), Head.identity(12))

    assert not got.query[0].gradcam.any()
    assert not got.query[0].foreground.any()
    assert got.query[0].foreground_share is None and got.query_foreground_share is None
    assert got.foreground_share is None and got.background_share is None
    np.testing.assert_allclose(got.query[0].contributions, got.score * alike.weights, rtol=1e-5)


def test_a_score_of_zero_has_no_shares():
    query, result = Cells(grid([1, 0]), shares(1)), Cells(grid([0, 1]), shares(1))

    got = explain([query], result, Head.identity(2))

    assert got.score == 0
    assert got.matches == ()
    assert got.foreground_share is None and got.result.foreground_share is None


def test_foreground_is_what_stands_out_of_the_border():
    maps = np.zeros((2, 3, 3), dtype=np.float32)
    maps[0] = 1
    maps[:, 1, 1] = [0, 2]

    expected = np.zeros((3, 3), dtype=bool)
    expected[1, 1] = True
    assert (foreground_cells(maps) == expected).all()


def test_the_foreground_of_a_searched_region_is_the_region():
    maps = np.ones((2, 3, 3), dtype=np.float32)
    maps[:, 1, 1] = (5, 0)
    corner = np.zeros((3, 3), dtype=np.float32)
    corner[0, :2] = 0.5

    got = explain([Cells(maps, corner)], random_cells(1, side=3, channels=2), Head.identity(2))

    assert (got.query[0].foreground == (corner > 0)).all()
    assert got.query[0].foreground_share == pytest.approx(1)


def test_a_border_like_the_middle_tells_no_foreground():
    """Border (1, 0), middle (1, 1): a cosine of 0.71, and so a contrast of 0.29."""
    maps = np.zeros((2, 3, 3), dtype=np.float32)
    maps[0] = 1
    maps[1, 1, 1] = 1

    image = Cells(maps, np.full((3, 3), 1 / 9, dtype=np.float32))

    got = explain([image], image, Head.identity(2))

    assert not got.result.foreground.any()
    assert got.result.foreground_share is None and got.foreground_share is None


def test_foreground_shares_by_hand():
    """Middle (1, 2), border (1, 0), and a result with the axes exchanged.

    With w = ½ for the middle and 1/16 for a border cell, all cosines are in reach of a pencil.
    """
    weights = np.full((3, 3), 1 / 16, dtype=np.float32)
    weights[1, 1] = 0.5
    query_maps = np.zeros((2, 3, 3), dtype=np.float32)
    result_maps = np.zeros((2, 3, 3), dtype=np.float32)
    query_maps[0], result_maps[1] = 1, 1
    query_maps[:, 1, 1], result_maps[:, 1, 1] = (1, 2), (2, 1)

    got = explain([Cells(query_maps, weights)], Cells(result_maps, weights), Head.identity(2))

    # g_q = ½·(1, 2) + ½·(1, 0) = (1, 1) = g_r.
    assert got.score == pytest.approx(1)
    # Foreground to foreground ¼·(1, 2)·(2, 1) = 1; background to background 0; of g_q·g_r = 2.
    assert got.foreground_share == pytest.approx(0.5)
    assert got.background_share == pytest.approx(0, abs=1e-7)
    # ½·(1, 2)·(1, 1) = 3/2 of the query's side.
    assert got.query[0].foreground_share == pytest.approx(0.75)
    assert got.query_foreground_share == pytest.approx(0.75)
    assert got.result.foreground_share == pytest.approx(0.75)
