"""Regions, the links between them, and what pulls the score down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lookalike.core import explanation
from lookalike.core.attribution import pool_cells, region_embeddings
from lookalike.core.explanation import Cells, explain
from lookalike.core.head import Head
from lookalike.core.pooling import border_saliency
from lookalike.core.regions import MOST, regions


def quarters(side: int = 6, noise: float = 0.0) -> np.ndarray:
    """A map of four squares that point along four axes."""
    maps = np.zeros((4, side, side), dtype=np.float32)
    half = side // 2
    for axis, (top, left) in enumerate(np.ndindex(2, 2)):
        maps[axis, top * half : (top + 1) * half, left * half : (left + 1) * half] = 1 + axis
    rng = np.random.default_rng(0)
    return maps + rng.random(maps.shape).astype(np.float32) * np.float32(noise)


def random_map(seed: int, side: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0.3, 1, (8, side, side)), 0).astype(np.float32)


def contiguous(cells: np.ndarray, width: int) -> bool:
    left = {divmod(int(cell), width) for cell in cells}
    edge = [left.pop()]
    while edge:
        row, column = edge.pop()
        near = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & left
        left -= near
        edge += near
    return not left


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_parts_that_look_alike_are_found(noise: float):
    found = regions(quarters(noise=noise), np.ones((6, 6), bool), 4)

    rows, columns = np.divmod(np.arange(36), 6)
    expected = [
        np.flatnonzero((rows // 3 == top) & (columns // 3 == left))
        for top, left in np.ndindex(2, 2)
    ]
    assert [group.tolist() for group in found] == [group.tolist() for group in expected]


def test_the_cheapest_merge_is_wards():
    """Angles 0°, 5°, 50°, 60° in a row: 0 and 5 join, then 50 and 60, then these two pairs."""
    angles = np.radians([0, 5, 50, 60])
    row = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)[:, None, :]

    def groups(most: int) -> list[list[int]]:
        return [group.tolist() for group in regions(row, np.ones((1, 4), bool), most)]

    assert groups(3) == [[0, 1], [2], [3]]
    assert groups(2) == [[0, 1], [2, 3]]
    assert groups(1) == [[0, 1, 2, 3]]


def test_only_neighbours_are_merged():
    """Both ends look alike and the middle does not: the ends stay apart."""
    row = np.array([[1, 1, 0, 1, 1], [0, 0, 1, 0, 0]], dtype=np.float32)[:, None, :]

    found = regions(row, np.ones((1, 5), bool), 3)

    assert [group.tolist() for group in found] == [[0, 1], [2], [3, 4]]


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.1, 1))
def test_regions_divide_what_was_chosen(seed: int, side: int, density: float):
    rng = np.random.default_rng(seed)
    chosen = rng.random((side, side)) < density
    maps = random_map(seed, side)

    found = regions(maps, chosen)

    together = np.concatenate([*found, np.empty(0, np.intp)])
    assert sorted(together.tolist()) == np.flatnonzero(chosen).tolist()
    assert all(contiguous(group, side) for group in found)
    if chosen.all():
        assert len(found) == min(MOST, side * side)
    again = regions(maps, chosen)
    assert all((a == b).all() for a, b in zip(found, again, strict=True))


def test_nothing_chosen_has_no_regions():
    assert regions(random_map(1), np.zeros((5, 5), bool)) == ()


def fitted(seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    components = np.linalg.qr(rng.normal(size=(8, 3)))[0].T.astype(np.float32)
    return Head(8, 3, (rng.random(8) * 0.3).astype(np.float32), components)


def saliency_cells(seed: int, coefficient: float = 1.0) -> Cells:
    maps = random_map(seed)
    return Cells(maps, border_saliency(maps[None])[0], coefficient=coefficient)


@pytest.mark.parametrize("head", [Head.identity(8), fitted()], ids=["identity", "fitted"])
@given(seed=st.integers(0, 10**6))
@example(seed=53151)  # an embedding so short that float32 rounding is 1e-6 of it
def test_all_pairs_of_regions_add_up_to_the_score(head: Head, seed: int):
    """What regions have of an embedding adds up to it, and to what their cells have one by one."""
    rng = np.random.default_rng(seed)
    stored = rng.normal(size=head.dim_out)
    stored /= np.linalg.norm(stored)
    query = replace(saliency_cells(seed), embedding=stored.astype(np.float32))
    result = saliency_cells(seed + 1)
    images = pool_cells([query, result], head)
    got = explain([query], result, head)

    members = []
    for image in (query, result):
        groups = regions(image.maps, image.weights > 0)
        members.append(np.stack([np.isin(np.arange(25), group) for group in groups]) * 1.0)
    ours, theirs = (
        region_embeddings(image, member, head)
        for image, member in zip(images, members, strict=True)
    )

    links = ours @ theirs.T
    assert links.sum() == pytest.approx(got.score, abs=1e-12)
    cells = got.query[0].contributions.reshape(-1)
    np.testing.assert_allclose(links.sum(axis=1), members[0] @ cells, atol=1e-5)
    cells = got.result.contributions.reshape(-1)
    np.testing.assert_allclose(links.sum(axis=0), members[1] @ cells, atol=1e-5)
    listed = sorted((match.contribution for match in got.matches), reverse=True)
    strongest = sorted(links.reshape(-1), reverse=True)[: len(listed)]
    np.testing.assert_allclose(listed, strongest, atol=1e-6)


def test_matches_are_between_like_parts():
    """The quarters of one photo against the same quarters, turned by half: each finds its own."""
    maps = quarters()
    turned = maps[:, ::-1, ::-1].copy()
    weights = np.full((6, 6), 1 / 36, dtype=np.float32)

    got = explain([Cells(maps, weights)], Cells(turned, weights), Head.identity(4))

    by_quarter = dict.fromkeys(range(4), 0.0)
    for match in got.matches:
        ours = {int(maps[:, row, column].argmax()) for row, column in match.query_cells}
        theirs = {int(turned[:, row, column].argmax()) for row, column in match.result_cells}
        assert ours == theirs and len(ours) == 1
        assert match.share == pytest.approx(match.contribution / got.score)
        by_quarter[ours.pop()] += match.contribution
    # g = (1, 2, 3, 4)/4: the quarter of length 4 has 16 of 30, that of length 1 one of 30.
    assert by_quarter[3] == pytest.approx(16 / 30, abs=1e-5)
    assert by_quarter[2] == pytest.approx(9 / 30, abs=1e-5)


def test_weak_links_are_left_out_and_few_are_listed():
    got = explain([saliency_cells(1)], saliency_cells(2), fitted())

    assert 0 < len(got.matches) <= explanation.MOST_LISTED
    assert all(match.contribution >= 0.03 * got.score for match in got.matches)
    assert 0 < len(got.differs) <= explanation.MOST_LISTED
    values = [match.contribution for match in got.matches]
    assert values == sorted(values, reverse=True)


def test_cells_of_the_second_image_are_below_those_of_the_first():
    head = Head.identity(8)
    first, second, result = saliency_cells(1), saliency_cells(2), saliency_cells(3)
    embeddings = [image.own for image in pool_cells([first, second], head)]
    length = float(np.linalg.norm(embeddings[0] + embeddings[1]))
    parts = [replace(image, coefficient=1 / length) for image in (first, second)]

    got = explain(parts, result, head)

    assert {match.query_part for match in got.matches} == {0, 1}
    for match in got.matches:
        rows = {row for row, _ in match.query_cells}
        assert rows <= set(range(5 * match.query_part, 5 * match.query_part + 5))
        assert all(row < 5 for row, _ in match.result_cells)
        assert match.contribution < got.score
    assert {difference.side for difference in got.differs} == {"query", "result"}


def test_what_differs_pulls_down():
    got = explain([saliency_cells(4)], saliency_cells(5), fitted())

    sides = {"query": got.query[0], "result": got.result}
    for difference in got.differs:
        pulls = [sides[difference.side].pulls[cell] for cell in difference.cells]
        assert max(pulls) < 0
        assert sum(pulls) == pytest.approx(difference.pull)
    ranked = [difference.pull for difference in got.differs]
    assert ranked == sorted(ranked)


def test_an_image_it_should_not_be_like_takes_from_the_score():
    head = Head.identity(8)
    liked, avoided, result = saliency_cells(1), saliency_cells(2), saliency_cells(3)
    embeddings = [image.own for image in pool_cells([liked, avoided], head)]
    length = float(np.linalg.norm(embeddings[0] - 0.5 * embeddings[1]))
    parts = [replace(liked, coefficient=1 / length), replace(avoided, coefficient=-0.5 / length)]

    got = explain(parts, result, head)

    assert got.query[0].contributions.sum() > got.score
    assert got.query[1].contributions.sum() < 0
    assert {match.query_part for match in got.matches} == {0}


def test_matches_are_among_the_chosen_cells():
    chosen = np.zeros((5, 5), dtype=np.float32)
    chosen[1:3, 1:4] = 1 / 6
    query = replace(saliency_cells(1), weights=chosen)

    got = explain([query], saliency_cells(2), fitted())

    inside = {(row, column) for row in (1, 2) for column in (1, 2, 3)}
    assert got.matches
    for match in got.matches:
        assert set(match.query_cells) <= inside
    for difference in got.differs:
        assert difference.side == "result" or set(difference.cells) <= inside
