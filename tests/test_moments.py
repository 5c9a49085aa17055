"""The moments against NumPy and SciPy, streamed and at once, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from helpers.moments import Moments, covariance_eigenvalues


def samples(count=200, n=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, n)) @ rng.standard_normal((n, n)) + rng.standard_normal(n)


def test_agree_with_numpy():
    x = samples()
    moments = Moments.from_samples(x)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(x.T, bias=True), rtol=1e-12)
    assert moments.count == len(x)


def test_eigenpairs_descend_and_rebuild_the_covariance():
    moments = Moments.from_samples(samples())
    lam, U = moments.eigenvalues, moments.eigenvectors
    assert (np.diff(lam) <= 0).all()
    np.testing.assert_allclose(U.T @ U, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(U * lam @ U.T, moments.covariance, atol=1e-13 * lam[0])
    assert (U[np.abs(U).argmax(axis=0), np.arange(5)] > 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(-1e6, 1e6))
def test_streaming_equals_batch(seed, sizes, offset):
    x = np.random.default_rng(seed).standard_normal((sum(sizes), 3)) + offset
    pieces = np.split(x, np.cumsum(sizes)[:-1])
    streamed, whole = Moments.from_batches(iter(pieces)), Moments.from_samples(x)
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-12, atol=1e-12)
    # A float64 near 1e6 keeps ten digits of a deviation of size 1.
    np.testing.assert_allclose(streamed.covariance, whole.covariance, atol=1e-8)
    assert streamed.count == whole.count


def test_streaming_holds_one_batch_at_a_time():
    alive = []

    def batches():
        for seed in range(20):
            alive.append(seed)
            yield samples(50, seed=seed)
            alive.remove(seed)
            assert len(alive) == 0

    assert Moments.from_batches(batches()).count == 1000


def test_large_offset_costs_no_precision():
    x = samples()
    shifted = Moments.from_samples(x + 1e8)
    np.testing.assert_allclose(shifted.covariance, np.cov(x.T, bias=True), rtol=1e-6)


@pytest.mark.parametrize("extreme", [0, 255])
def test_sums_of_bytes_are_exact(extreme):
    """A corner case of the float32 sums: every product at its largest, and one row more than a batch."""
    x = np.full((1025, 3), extreme, np.uint8)
    x[::7, 1] = 128
    moments = Moments.from_samples(x)
    wide = x.astype(np.int64)
    exact = (1025 * wide.T @ wide - np.outer(wide.sum(0), wide.sum(0))) / 1025**2
    np.testing.assert_allclose(moments.covariance, exact, rtol=1e-15)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_integers_and_float32_are_summed_in_float64(dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype is bool else 200, (3000, 4)).astype(dtype)
    moments = Moments.from_samples(x)
    np.testing.assert_allclose(moments.covariance, np.cov(x.T.astype(float), bias=True), rtol=1e-11)
    assert moments.covariance.dtype == moments.mean.dtype == np.float64


def test_one_sample_has_no_variance():
    moments = Moments.from_samples(np.array([[1.0, 2.0]]))
    assert (moments.eigenvalues == 0).all() and moments.count == 1


def test_rounding_below_the_rank_is_zero():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 8))
    assert np.count_nonzero(Moments.from_samples(x).eigenvalues) == 3


def test_tied_eigenvalues():
    Q = ortho_group(6, seed=0).rvs()
    moments = Moments(np.zeros(6), Q @ np.diag([5, 2, 2, 2, 1, 1]) @ Q.T, 10)
    np.testing.assert_allclose(moments.eigenvalues, [5, 2, 2, 2, 1, 1], rtol=1e-13)


@pytest.mark.parametrize(
    ("mean", "covariance", "count", "message"),
    [
        (np.zeros((2, 2)), np.eye(2), 5, "mean has shape"),
        (np.zeros(2), np.eye(3), 5, r"covariance has shape \(3, 3\); expected \(2, 2\)"),
        (np.array([0, np.nan]), np.eye(2), 5, "mean contains NaN"),
        (np.zeros(2), np.diag([1, np.inf]), 5, "covariance contains NaN or infinity"),
        (np.zeros(2), np.array([[1, 0.5], [0.2, 1]]), 5, "covariance differs from its transpose"),
        (np.zeros(2), np.diag([1.0, -1.0]), 5, "covariance has the variance -1"),
        (np.zeros(2), np.eye(2), 0, "count is 0; expected an integer"),
        (np.zeros(2), np.eye(2), 2.5, "count is 2.5"),
        (np.zeros(2), np.eye(2) * 1j, 5, "covariance is complex"),
        ("ab", np.eye(2), 5, "mean is 'ab'"),
    ],
)
def test_bad_moments(mean, covariance, count, message):
    with pytest.raises(ValueError, match=message):
        Moments(mean, covariance, count)


def test_an_indefinite_covariance_is_refused_when_its_eigenvalues_are_asked_for():
    with pytest.raises(ValueError, match="positive semi-definite"):
        _ = Moments(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]), 5).eigenvalues


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), "x has shape"),
        (np.zeros((0, 3)), "x has shape"),
        (np.array([[1.0, np.nan], [0.0, 0.0]]), "NaN or infinity"),
        (np.array([[1.0, np.inf], [0.0, 0.0]]), "NaN or infinity"),
        (np.array([["a", "b"]]), "dtype"),
    ],
)
def test_bad_samples(x, message):
    with pytest.raises(ValueError, match=message):
        Moments.from_samples(x)


def test_bad_batches():
    with pytest.raises(ValueError, match="iterable is empty"):
        Moments.from_batches([])
    with pytest.raises(ValueError, match=r"a batch has shape \(2, 4\); expected \(N, 3\)"):
        Moments.from_batches([np.zeros((2, 3)), np.zeros((2, 4))])


def test_arrays_are_copies():
    covariance = np.eye(2)
    moments = Moments(np.zeros(2), covariance, 5)
    covariance[0, 0] = 7
    assert moments.covariance[0, 0] == 1


# Eigenvalues alone


def squared_singular_values(x):
    """Eigenvalues of the 1/N covariance, descending, without forming it."""
    x = np.asarray(x, np.float64)
    found = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / len(x)
    return np.pad(found, (0, x.shape[1] - found.size))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.int16])
@pytest.mark.parametrize(("count", "n"), [(4, 9), (8, 9), (9, 9), (10, 9), (300, 9), (5000, 3), (2, 40), (40, 1)])
def test_eigenvalues_alone_are_those_of_numpys_covariance(count, n, dtype):
    """Fewer samples than dimensions, as many, and more, where there are no others than 0 beyond N - 1 of them."""
    x = (40 * samples(count, n) + 100).clip(0, 255).astype(dtype)
    before = x.copy()
    found = covariance_eigenvalues(x)
    expected = np.linalg.eigvalsh(np.atleast_2d(np.cov(x.T.astype(np.float64), bias=True)))[::-1]
    tolerance = 1e-12 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=tolerance)
    assert found.shape == (n,) and found.dtype == np.float64
    assert (np.diff(found) <= 0).all() and (found >= 0).all() and (found[max(count - 1, 0) :] <= tolerance).all()
    np.testing.assert_array_equal(x, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.floats(-1e3, 1e3))
def test_eigenvalues_alone_are_squared_singular_values(seed, count, n, rank, offset):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, n)) + offset
    found = covariance_eigenvalues(x)
    np.testing.assert_allclose(found, squared_singular_values(x), rtol=1e-8, atol=1e-10)
    assert found.sum() == pytest.approx(x.var(axis=0).sum(), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(covariance_eigenvalues(x[::-1, ::-1]), found, rtol=1e-8, atol=1e-10)


def test_eigenvalues_alone_are_those_of_the_moments():
    x = np.random.default_rng(0).integers(0, 256, (200, 12), dtype=np.uint8)
    np.testing.assert_allclose(covariance_eigenvalues(x), Moments.from_samples(x).eigenvalues, rtol=1e-12)


def test_samples_doubled_have_the_same_eigenvalues():
    """From the N x N matrix and from the covariance itself."""
    x = samples(6, 10)
    np.testing.assert_allclose(covariance_eigenvalues(np.repeat(x, 2, axis=0)), covariance_eigenvalues(x), atol=1e-12)


@pytest.mark.parametrize("x", [np.full((3, 5), 7, np.uint8), np.full((9, 5), 7, np.uint8), np.full((9, 5), 0.5)])
def test_constant_samples_have_no_eigenvalue_but_zero(x):
    np.testing.assert_array_equal(covariance_eigenvalues(x), np.zeros(5), strict=True)


@pytest.mark.parametrize("x", [[[3.5, -1.0, 1e8]], [[3]], np.full((1, 4), 255, np.uint8)])
def test_eigenvalues_of_one_sample_are_zero(x):
    np.testing.assert_array_equal(covariance_eigenvalues(x), np.zeros(len(x[0])), strict=True)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"x has shape \(3,\); expected \(N, n\) with at least one sample and one dimension"),
        (np.zeros((0, 3)), r"x has shape \(0, 3\)"),
        (np.zeros((3, 0)), r"x has shape \(3, 0\)"),
        (np.zeros((2, 2, 2)), r"x has shape \(2, 2, 2\)"),
        (np.array([[1.0, np.nan]]), "x contains NaN or infinity"),
        (np.array([[1.0], [np.inf]]), "contains NaN or infinity"),
        (np.array([[1j, 0]]), "x is complex"),
        (np.array([[1j], [0]]), "x is complex; expected real"),
        (np.array([["a", "b"]]), "x is array"),
        (np.array([["a"], ["b"]]), "not <U1"),
    ],
)
def test_bad_samples_for_eigenvalues_alone(x, message):
    with pytest.raises(ValueError, match=message):
        covariance_eigenvalues(x)
