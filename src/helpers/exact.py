"""Eigenvalues of integer matrices between proved bounds, with no rounding on the way.

Serves chapters 01 (how many eigenvalues exceed the noise) and 02 (Figure 1). Samples of whole numbers, such as pixels
from 0 to 255, have a covariance of whole numbers over a common denominator, so that what is said of its eigenvalues
can be decided exactly.
"""

import numpy as np
from flint import fmpz_mat

from helpers._validation import finite_array, integer, plain_array

LIMIT = 2**62  # int64 with room to add


def scatter(total, products, count):
    """N sum(x x^T) - sum(x) sum(x)^T of N integer samples: N^2 times their 1/N covariance.

    Parameters
    ----------
    total : (n,) array_like of int
        Sum of the samples.
    products : (n (n + 1) / 2,) array_like of int
        Upper triangle of the sum of x x^T, row by row, as the records of `helpers.data` hold it.
    count : int
        N, at least 1.

    Returns
    -------
    (n, n) int64 ndarray

    Raises
    ------
    ValueError
        When the number of products is not that of n, or the result might not fit into int64.
    """
    total, products = _whole("total", total, 1), _whole("products", products, 1)
    count, n = integer("count", count, 1, LIMIT), total.size
    if products.size != n * (n + 1) // 2:
        raise ValueError(f"products has {products.size} entries; expected the {n * (n + 1) // 2} of n = {n}")
    if count * int(np.abs(products).max()) + int(np.abs(total).max()) ** 2 >= LIMIT:
        raise ValueError(f"products is up to {np.abs(products).max()} at count {count}; expected what fits into int64")
    upper = np.zeros((n, n), np.int64)
    upper[np.triu_indices(n)] = products
    return count * (upper + np.triu(upper, 1).T) - np.outer(total, total)


def enclosures(matrix, eigenvectors, denominator, digits):
    """Proved bounds on each eigenvalue of matrix / denominator, in units of 10^-digits.

    With Q the eigenvectors rounded to multiples of 2^-45, both B = Q^T A Q and G = Q^T Q are computed exactly. Each
    eigenvalue of B is within e of its place among the sorted diagonal entries, e the largest row sum off the diagonal
    (Weyl; Gershgorin for the norm), and is an eigenvalue of A times a number between the smallest and the largest
    eigenvalue of G (Ostrowski), which are within g of 1 (Gershgorin). Good eigenvectors make the bounds narrow; with
    bad ones they are wide, and true all the same.

    Parameters
    ----------
    matrix : (n, n) array_like of int
        Symmetric.
    eigenvectors : (n, n) array_like
        Approximate orthonormal eigenvectors as columns, in floating point.
    denominator : int
        At least 1.
    digits : int
        Decimal places, 0 to 30.

    Returns
    -------
    lower, upper : (n,) lists of int
        Descending. Rounded outward, so that lower[i] <= 10^digits lambda_i <= upper[i].

    Raises
    ------
    ValueError
        When the matrix is not symmetric, or the eigenvectors are so far from orthonormal that nothing follows.
    """
    matrix = _whole("matrix", matrix, 2)
    if matrix.shape[0] != matrix.shape[1] or (matrix != matrix.T).any():
        raise ValueError(f"matrix has shape {matrix.shape}; expected a symmetric (n, n)")
    n = len(matrix)
    vectors = finite_array("eigenvectors", eigenvectors, (n, n))
    if np.abs(vectors).max() > 2:
        raise ValueError(f"eigenvectors has an entry of {np.abs(vectors).max():.3g}; expected columns of length 1")
    denominator, digits = integer("denominator", denominator, 1, LIMIT), integer("digits", digits, 0, 30)
    Q = fmpz_mat(np.rint(vectors * 2**45).astype(np.int64).tolist())
    one = 4**45
    diagonal, off = _diagonal_and_rest(Q.transpose() * (fmpz_mat(matrix.tolist()) * Q))
    squares, slack = _diagonal_and_rest(Q.transpose() * Q)
    slack += max(abs(square - one) for square in squares)
    if slack >= one:
        raise ValueError("eigenvectors is far from orthonormal; expected Q^T Q within 1 of the identity")
    narrow, wide = denominator * (one - slack), denominator * (one + slack)
    low = [10**digits * (d - off) for d in sorted(diagonal, reverse=True)]
    high = [10**digits * (d + off) for d in sorted(diagonal, reverse=True)]
    # Floor and ceiling, each with the divisor that moves it outward.
    lower = [v // (wide if v >= 0 else narrow) for v in low]
    return lower, [-(-v // (narrow if v >= 0 else wide)) for v in high]


def _diagonal_and_rest(square):
    """Diagonal of an integer matrix, and its largest row sum of moduli off the diagonal, as Python's integers."""
    rows = [[int(entry) for entry in row] for row in square.tolist()]
    rest = max(sum(map(abs, row)) - abs(row[i]) for i, row in enumerate(rows))
    return [row[i] for i, row in enumerate(rows)], rest


def _whole(name, value, axes):
    """An int64 array of whole numbers with this many axes, or ``ValueError``."""
    array = plain_array(name, value, "integers")
    if array.dtype.kind not in "iu" or array.ndim != axes or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} of {array.dtype}; expected {axes} axes of integers")
    if int(array.max()) >= LIMIT or int(array.min()) <= -LIMIT:
        raise ValueError(f"{name} has an entry of {array.max()}; expected integers below 2^62 in modulus")
    return array.astype(np.int64)
