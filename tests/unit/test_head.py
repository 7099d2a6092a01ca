from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.errors import CorruptFile
from lookalike.core.head import Head, decode_head, encode_head, fit_head, with_shards


def rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32) + 0.5


def normalized(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def clustered(clusters: int, per_cluster: int, dim: int) -> np.ndarray:
    centres = normalized(rows(clusters, dim, 1) - 0.5)
    noise = rows(clusters * per_cluster, dim, 2) - 0.5
    return (np.repeat(centres, per_cluster, axis=0) + 0.02 * noise).astype(np.float32)


def test_the_identity_normalises_and_has_one_shard():
    head, raw = Head.identity(8), rows(5, 8)
    before = raw.copy()
    assert np.allclose(head.project(raw), normalized(raw), atol=1e-6)
    assert (raw == before).all(), "the caller's rows are left alone"
    assert (head.dim_in, head.dim_out, head.shards) == (8, 8, 1)
    assert head.route(raw).tolist() == [0] * 5


def test_a_fit_is_the_formula_of_the_design():
    # Rows in a plane through (1, 1, 1, …): three axes vary, so three components say all there is.
    rng = np.random.default_rng(3)
    raw = (rng.normal(size=(400, 3)) @ rng.normal(size=(3, 12)) + 1).astype(np.float32)
    head = fit_head(raw, 64)
    unit = normalized(raw)
    centred = unit - unit.mean(axis=0)
    assert np.allclose(head.mean, unit.mean(axis=0), atol=1e-6)
    assert np.allclose(head.components @ head.components.T, np.eye(head.dim_out), atol=1e-5)
    # Everything kept: cosines after the head are those of the centred rows.
    expected = normalized(centred) @ normalized(centred).T
    projected = head.project(raw)
    assert np.allclose(projected @ projected.T, expected, atol=1e-4)
    assert np.allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)
    values = np.linalg.svd(centred, compute_uv=False)
    variances = ((centred @ head.components.T) ** 2).sum(axis=0)
    assert np.allclose(variances, values[: head.dim_out] ** 2, rtol=1e-3)


def test_few_rows_of_many_dimensions_are_fitted_alike():
    rng = np.random.default_rng(5)
    few = rng.standard_normal((30, 40)).astype(np.float32)
    # Twice each: as many rows as dimensions, and the same mean and covariance.
    fitted, again = fit_head(few, 20), fit_head(np.concatenate([few, few]), 20)
    assert np.allclose(fitted.project(few), again.project(few), atol=2e-5)
    assert len(fit_head(few, 40).components) == 29


def test_the_dimension_is_at_most_the_rank():
    assert fit_head(rows(300, 20), 8).dim_out == 8
    assert fit_head(rows(300, 20), 64).dim_out <= 20
    assert fit_head(rows(5, 20), 64).dim_out == 4
    same = np.repeat(rows(1, 20), 10, axis=0)
    assert fit_head(same, 64).mean is None


def test_a_fit_does_not_depend_on_the_order_and_has_fixed_signs():
    raw = rows(500, 16)
    raw[:, :4] *= np.array([9, 7, 5, 3], dtype=np.float32)
    first, second = fit_head(raw, 4), fit_head(raw[::-1], 4)
    assert np.allclose(first.components, second.components, atol=1e-3)
    peaks = np.abs(first.components).argmax(axis=1)
    assert (first.components[np.arange(4), peaks] > 0).all()


def test_rows_go_to_the_shard_of_their_cluster():
    raw = clustered(4, 50, 24)
    head = with_shards(fit_head(raw, 8), raw, 4, seed=7)
    embeddings = head.project(raw)
    shards = head.route(embeddings)
    assert head.shards == 4
    groups = [set(shards[start : start + 50].tolist()) for start in range(0, 200, 50)]
    assert all(len(group) == 1 for group in groups)
    assert set.union(*groups) == {0, 1, 2, 3}
    again = with_shards(fit_head(raw, 8), raw, 4, seed=7)
    assert encode_head(again) == encode_head(head)


def test_no_more_shards_than_rows():
    raw = rows(3, 8)
    assert with_shards(Head.identity(8), raw, 10).shards == 3
    assert with_shards(Head.identity(8), raw, 1).shards == 1


def test_shards_that_get_too_much_are_split_further():
    rng = np.random.default_rng(5)
    centres = normalized(rng.normal(size=(30, 16)))
    chosen = rng.choice(30, 4000, p=(p := np.arange(1, 31.0) ** -1.2) / p.sum())
    raw = (centres[chosen] + 0.15 * rng.normal(size=(4000, 16))).astype(np.float32)
    head = Head.identity(16)

    def counts(routed: Head) -> np.ndarray:
        return np.bincount(routed.route(head.project(raw)), minlength=routed.shards)

    as_asked = counts(with_shards(head, raw, 8))
    assert as_asked.max() > 0.2 * 4000, "or there is nothing to split"
    split = counts(with_shards(head, raw, 8, share=0.2))
    assert 8 < len(split) <= 16 and split.max() <= 0.2 * 4000 and split.min() > 0


def test_rows_that_are_alike_are_not_split():
    raw = np.concatenate([np.repeat(rows(1, 8), 90, axis=0), rows(10, 8, 3)])
    head = with_shards(Head.identity(8), raw, 3, share=0.2)
    assert head.shards <= 6
    found = np.bincount(head.route(head.project(raw)), minlength=head.shards)
    assert found.max() >= 90


def test_the_origin_makes_the_name_one_of_a_kind_and_changes_nothing_else():
    head = fit_head(rows(20, 4), 2)
    files = {
        encode_head(head, built_at=built_at, generation=generation)
        for built_at in (0.0, 1.5, 2.5)
        for generation in ("", "g1", "g2")
    }
    assert len(files) == 9
    for data in files:
        assert encode_head(decode_head(data, "h")) == encode_head(head)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 5), st.booleans())
def test_round_trip(count, dim, shards, fitted):
    raw = rows(count, dim, seed=count)
    head = with_shards(fit_head(raw, 6) if fitted else Head.identity(dim), raw, shards)
    again = decode_head(encode_head(head), "h")
    assert (again.dim_in, again.dim_out, again.shards) == (head.dim_in, head.dim_out, head.shards)
    assert (again.project(raw) == head.project(raw)).all()
    assert (again.route(again.project(raw)) == head.route(head.project(raw))).all()


def test_every_truncation_and_every_altered_byte_is_refused_by_name():
    raw = rows(6, 4)
    data = encode_head(with_shards(fit_head(raw, 2), raw, 2))
    for length in range(len(data)):
        with pytest.raises(CorruptFile, match="the-name"):
            decode_head(data[:length], "the-name")
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(CorruptFile, match="the-name"):
            decode_head(bytes(altered), "the-name")


def test_the_golden_head_still_loads(request):
    path = request.config.rootpath / "tests/golden/head-v1.head"
    head = decode_head(path.read_bytes(), path.name)
    assert (head.dim_in, head.dim_out, head.shards) == (4, 2, 2)
    raw = np.array([[1, 0, 0, 0], [0, 0, 3, 0]], dtype=np.float32)
    # (1, 0) − (0.5, 0) and (0, 1) − (0.5, 0), of length one.
    expected = np.array([[1, 0], [-(0.2**0.5), 2 * 0.2**0.5]], dtype=np.float32)
    assert np.allclose(head.project(raw), expected, atol=1e-6)
    assert head.route(head.project(raw)).tolist() == [0, 1]
    assert encode_head(head) == path.read_bytes()
