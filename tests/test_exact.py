"""Enclosures: true against rational eigenvalues, narrow, rounded outward; bad eigenvectors widen them; bad input."""

from fractions import Fraction

import numpy as np
import pytest

from helpers.data import integer_sums
from helpers.exact import enclosures, scatter

HOUSEHOLDER = 2 * np.eye(4, dtype=int) - 1  # symmetric, its square is 4 I
EIGENVALUES = [7, 3, 3, -2]


def integer_matrix():
    """Eigenvalues 4 * EIGENVALUES, whole entries."""
    return HOUSEHOLDER @ np.diag(EIGENVALUES) @ HOUSEHOLDER


@pytest.mark.parametrize("digits", [0, 3, 8])
def test_enclosures_hold_what_they_enclose_and_are_narrow(digits):
    lower, upper = enclosures(integer_matrix(), HOUSEHOLDER / 2, 12, digits)
    for low, value, high in zip(lower, EIGENVALUES, upper, strict=True):
        exact = Fraction(4 * value, 12) * 10**digits
        assert low <= exact <= high
        assert high - low <= 1 + 10**digits * 1e-7


def test_bad_eigenvectors_widen_the_bounds_and_leave_them_true():
    rng = np.random.default_rng(0)
    widths = []
    for size in (0, 1e-6, 1e-3, 3e-2):
        vectors = HOUSEHOLDER / 2 + size * rng.standard_normal((4, 4))
        lower, upper = enclosures(integer_matrix(), vectors, 4, 9)
        assert all(low <= v * 10**9 <= high for low, v, high in zip(lower, EIGENVALUES, upper, strict=True))
        widths.append(max(np.subtract(upper, lower)))
    assert widths == sorted(widths) and widths[-1] > 1000 * widths[1]


def test_columns_that_are_too_long_or_short_are_allowed_for():
    # Ostrowski's factor alone: B = c^2 D, so that the bounds would be off by c^2 without it.
    for c in (0.9, 1.1):
        lower, upper = enclosures(integer_matrix(), c * HOUSEHOLDER / 2, 4, 6)
        assert all(low <= v * 10**6 <= high for low, v, high in zip(lower, EIGENVALUES, upper, strict=True))


def test_scatter_is_the_exact_covariance():
    images = np.random.default_rng(1).integers(0, 256, (50, 6), dtype=np.uint8)
    total, products = integer_sums(images)
    exact = scatter(total, products, 50)
    x = images.astype(int)
    assert (exact == 50 * x.T @ x - np.outer(x.sum(0), x.sum(0))).all() and exact.dtype == np.int64
    np.testing.assert_allclose(exact / 50**2, np.cov(x.T, bias=True), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"matrix": np.eye(4)}, "matrix"),
        ({"matrix": np.triu(np.ones((4, 4), int))}, "matrix"),
        ({"matrix": np.ones((4, 3), int)}, "matrix"),
        ({"eigenvectors": np.eye(3)}, "eigenvectors"),
        ({"eigenvectors": np.full((4, 4), np.nan)}, "eigenvectors"),
        ({"eigenvectors": np.zeros((4, 4))}, "orthonormal"),
        ({"eigenvectors": 1e9 * np.eye(4)}, "eigenvectors"),
        ({"denominator": 0}, "denominator"),
        ({"digits": 1.5}, "digits"),
    ],
)
def test_bad_input_of_enclosures_is_refused_by_name(change, word):
    arguments = {"matrix": np.eye(4, dtype=int), "eigenvectors": np.eye(4), "denominator": 1, "digits": 3}
    with pytest.raises(ValueError, match=word):
        enclosures(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"total": [1.0, 2.0]}, "total"),
        ({"total": []}, "total"),
        ({"products": [1, 2]}, "products"),
        ({"products": [2**61, 0, 0]}, "products"),
        ({"products": np.array([2**63, 0, 0], np.uint64)}, "products"),
        ({"count": 0}, "count"),
    ],
)
def test_bad_input_of_scatter_is_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        scatter(**({"total": [1, 2], "products": [1, 2, 4], "count": 3} | change))
