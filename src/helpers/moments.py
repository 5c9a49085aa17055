"""The first two moments of a data set: all that a linear Gaussian model ever sees of it.

Serves chapters 00 to 05, 07 and 12. S in the paper's Eqs 10-12 and 20-22, and the eigenvalues and eigenvectors of
Eqs 7-8, are those of the covariance kept here, which divides by N.

One rule says what is rounding, here and in all that builds on this module. The covariance is brought to unit
diagonal, so that the units of the columns do not matter, and factored by Cholesky's method with pivoting; what is
then left of each coordinate's variance, where it is within the rounding of n such steps, counts as 0. Where that much
could change an answer, the answer is refused: "below rounding".
"""

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
from scipy.linalg import eigvalsh, qr
from scipy.linalg.lapack import dgejsv, dpstrf

from helpers._validation import EPS, finite_array, integer, plain_array, refuse_not_finite

BLOCK = 2**22  # entries of the samples that are centred and multiplied at a time
LARGEST = 1e300  # variance up to which sums over dimensions stay finite
GRADED = 1e-5 / EPS  # ratio of eigenvalues up to which a plain decomposition has them all to 5 digits
SPREAD = 1e3  # ratio of singular values up to which a plain decomposition has the axes to 13 digits


def _rounding(n):
    """Share of a coordinate's variance that counts as rounding, of n coordinates.

    Of data of exact rank the factorisation leaves less than n eps, and for small n some 4 eps.
    """
    return max(n, 16) * EPS


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean, covariance and count of N samples in n dimensions.

    Parameters
    ----------
    mean : (n,) array_like
    covariance : (n, n) array_like
        Divided by N, not N - 1: symmetric and positive semi-definite.
    count : int
        N, at least 1.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, or a covariance that is not symmetric or not positive semi-definite
        beyond rounding.

    See Also
    --------
    helpers.data.mnist_moments : those of MNIST, recorded.
    helpers.ppca.fit : the pPCA model of highest likelihood, from moments.
    helpers.linear_vae.fit : the linear VAE of highest ELBO, from moments.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    def __post_init__(self):
        mean = finite_array("mean", self.mean, ("n",))
        covariance = finite_array("covariance", self.covariance, (mean.size, mean.size))
        count = integer("count", self.count, 1, 2**63 - 1)
        variances = covariance.diagonal()
        if variances.min() < 0:
            raise ValueError(
                f"covariance has the variance {variances.min():.3g} on its diagonal; expected none below 0"
            )
        if np.abs(covariance).max() > LARGEST:
            raise ValueError(f"covariance reaches {np.abs(covariance).max():.3g}; expected at most {LARGEST:g}")
        asymmetry, scales = np.abs(covariance - covariance.T), np.sqrt(variances)
        if (asymmetry > 1e-10 * np.outer(scales, scales)).any():
            raise ValueError(
                f"covariance differs from its transpose by {asymmetry.max():.3g}; expected a symmetric matrix"
            )
        covariance = (covariance + covariance.T) / 2
        root, left = _root(covariance)
        hidden = np.sqrt(EPS * variances + left)
        for name, value in (("mean", mean), ("covariance", covariance), ("root", root), ("hidden", hidden)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        object.__setattr__(self, "count", count)

    root = None  # (n, rank), with root root^T the covariance: right in each row to that row's own rounding
    hidden = None  # (n,) standard deviation in each coordinate that rounding of the covariance can hide

    @classmethod
    def from_samples(cls, x):
        """Moments of the rows of `x`, summed in float64, or exactly for uint8.

        Parameters
        ----------
        x : (N, n) array_like
            A memory map or a dask array is read in blocks of rows and never held whole.

        Returns
        -------
        Moments

        See Also
        --------
        from_batches : for what does not fit into memory.

        Examples
        --------
        >>> moments = Moments.from_samples([[0, 1], [2, 1], [0, 3], [2, 3], [1, 2]])
        >>> moments.mean.round(6).tolist(), moments.covariance.round(6).tolist(), moments.count
        ([1.0, 2.0], [[0.8, 0.0], [0.0, 0.8]], 5)
        """
        return cls._of_blocks("x", _blocks("x", x))

    @classmethod
    def from_batches(cls, iterable):
        """Moments of all rows of several arrays, of which only one is held at a time.

        Parameters
        ----------
        iterable : iterable of (N_b, n) array_like
            Any N_b from 1, one n.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            When it is no iterable or an empty one, or a batch is not what is expected; the message says in which row.
        """
        try:
            batches = iter(iterable)
        except TypeError:
            kind = type(iterable).__name__
            raise ValueError(f"iterable is of type {kind}; expected an iterable of arrays (N, n)") from None

        def blocks():
            rows, width = 0, "n"
            for batch in batches:
                for block in _blocks("a batch", batch, rows, width):
                    rows, width = rows + len(block), block.shape[1]
                    yield block

        return cls._of_blocks("a batch", blocks())

    @classmethod
    def _of_blocks(cls, name, blocks):
        """Moments of all rows of an iterator over plain arrays.

        Each block is summed about its own mean, and two are merged as Chan, Golub and LeVeque (1979) do: only
        squares are added, so that neither a mean much larger than the spread nor the order of rows costs digits.
        """
        count, origin = 0, None
        for block in blocks:
            if origin is None:
                origin = np.zeros(block.shape[1])
                if block.dtype != np.uint8:  # whose sums are exact
                    # Between the extremes even after rounding: a constant column has deviations of exactly 0.
                    origin = block.mean(axis=0, dtype=np.float64).clip(block.min(axis=0), block.max(axis=0))
                center, products = np.zeros_like(origin), np.zeros((origin.size, origin.size))
            with np.errstate(over="ignore", invalid="ignore"):  # reported below, by name
                mean, scatter = _of_bytes(block, origin) if block.dtype == np.uint8 else _about(block, origin)
                change = mean - center
                products += scatter + np.outer(change, change) * (count * len(block) / (count + len(block)))
            count += len(block)
            center += change * (len(block) / count)
            if not (products.diagonal() <= LARGEST).all():
                column = int((~(products.diagonal() <= LARGEST)).argmax())
                raise ValueError(f"{name} is too large in column {column} for its squares: rescale the columns")
        if origin is None:
            raise ValueError("iterable is empty; expected at least one batch of shape (N, n)")
        return cls(origin + center, products / count, count)

    @cached_property
    def _eigenpairs(self):
        rank = self.root.shape[1]
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        eigenvalues, eigenvectors = eigenvalues[::-1].copy(), eigenvectors[:, ::-1].copy()
        if rank and eigenvalues[rank - 1] * GRADED < eigenvalues[0]:
            # Rounding of the largest eigenvalue reaches the smallest: take them from the factor instead.
            axes, scales, _ = svd(self.root)
            eigenvalues[:rank], eigenvectors[:, :rank] = scales**2, axes
            eigenvectors[:, rank:] = qr(axes)[0][:, rank:]
        eigenvalues[rank:] = 0.0
        # LAPACK leaves each sign open; the entry of largest modulus is made positive so that pictures agree.
        largest = np.abs(eigenvectors).argmax(axis=0)
        eigenvectors *= np.where(eigenvectors[largest, np.arange(eigenvalues.size)] < 0, -1.0, 1.0)
        eigenvalues.flags.writeable = eigenvectors.flags.writeable = False
        return eigenvalues, eigenvectors

    @property
    def eigenvalues(self):
        """Eigenvalues of the covariance (n,), descending; beyond its rank they are 0."""
        return self._eigenpairs[0]

    @property
    def eigenvectors(self):
        """Orthonormal eigenvectors (n, n) as columns, in the order of `eigenvalues`."""
        return self._eigenpairs[1]


def _root(covariance):
    """F (n, rank) with F F^T the covariance, and what it leaves of each variance, (n,); refuses an indefinite one."""
    n = len(covariance)
    scales = np.sqrt(covariance.diagonal())
    safe = np.where(scales > 0, scales, 1.0)
    if (covariance[scales == 0] != 0).any():
        raise ValueError(
            "covariance has a variance of 0 beside a covariance other than 0; expected a semi-definite one"
        )
    correlation = covariance / safe / safe[:, None]
    packed, pivots, rank, _ = dpstrf(correlation, tol=_rounding(n), lower=1)
    order = pivots - 1
    packed = np.tril(packed)[:, :rank]
    rest = correlation[np.ix_(order[rank:], order[rank:])] - packed[rank:] @ packed[rank:].T
    if rest.size and np.abs(rest).max() > 10 * _rounding(n):
        raise ValueError(
            f"covariance has negative eigenvalues: brought to unit variances, {np.abs(rest).max():.3g} is left of it "
            f"once {rank} of its {n} dimensions are taken out; expected a positive semi-definite matrix"
        )
    root, left = np.empty((n, rank)), np.zeros(n)
    root[order] = packed
    left[order[rank:]] = np.abs(rest.diagonal())
    return root * scales[:, None], left * covariance.diagonal()


def _blocks(name, x, first_row=0, width="n"):
    """Samples (N, n) as blocks of rows, plain arrays of finite numbers; `first_row` is added to a row in messages."""
    if not _in_blocks(x):
        x = plain_array(name, x, "samples of shape (N, n)", truth=True)
    shape = _checked_shape(name, x.shape, width)
    whole_numbers = isinstance(x, np.ndarray) and x.dtype == np.uint8
    rows = 2**18 if whole_numbers else max(1, BLOCK // shape[1])  # of bytes as many as `_of_bytes` sums exactly
    for i in range(0, shape[0], rows):
        block = plain_array(name, x[i : i + rows], "samples of shape (N, n)", truth=True)
        if block.dtype.kind == "f":
            refuse_not_finite(name, block, first_row=first_row + i)
        yield block


def _in_blocks(x):
    """Whether x is to be read in parts: a memory map, or an array of dask, xarray, HDF5 or zarr."""
    return isinstance(x, np.ndarray) or (hasattr(x, "chunks") and hasattr(x, "shape"))


def _checked_shape(name, shape, width="n"):
    fits = len(shape) == 2 and all(isinstance(size, Integral) and size > 0 for size in shape)
    if not fits or width not in ("n", shape[1]):
        flat = "; flatten: x.reshape(len(x), -1)" if len(shape) > 2 else ""
        raise ValueError(
            f"{name} has shape {tuple(shape)}; expected (N, {width}) with at least one sample and one dimension{flat}"
        )
    return shape


def _about(block, origin):
    """Mean of a block less the origin, (n,), and the sum of its squares about that mean, (n, n)."""
    deviations = np.subtract(block, origin, dtype=np.float64)
    mean = deviations.mean(axis=0)
    deviations -= mean
    scatter = deviations.T @ deviations
    lost = (scatter.diagonal() < 1e-280) & deviations.any(axis=0)
    if lost.any():
        raise ValueError(f"column {lost.argmax()} of the samples is too small for its squares: rescale the columns")
    return mean, scatter


def _of_bytes(block, origin):
    """The same for uint8, from sums that are exact in float32, which is twice as fast as float64.

    The products of x - 128 are integers up to 2^14; a sum of 1,024 of them stays within 2^24, up to which
    float32 holds every integer.
    """
    total, products = np.zeros(block.shape[1]), np.zeros((block.shape[1], block.shape[1]))
    for i in range(0, len(block), 1024):
        deviations = block[i : i + 1024].astype(np.float32) - np.float32(128)
        total += np.ones(len(deviations), np.float32) @ deviations
        products += deviations.T @ deviations
    # Whole numbers up to here, and up to the division for any block of less than 2^19 rows.
    mean = (total + 128 * len(block)) / len(block)
    return mean - origin, (len(block) * products - np.outer(total, total)) / len(block)


def svd(A):
    """U, the singular values and V^T of `A`, in full precision also where its rows or columns differ in units.

    Where the smallest singular value is lost in the rounding of the largest, LAPACK's one-sided Jacobi method, which
    is slower, finds it to a precision of its own. Those that the entries of A, of any unit, leave at rounding are 0.

    Parameters
    ----------
    A : (n, k) array_like

    Returns
    -------
    U : (n, m) ndarray
        m is the smaller of n and k.
    values : (m,) ndarray
        Descending, from 0.
    Vt : (m, k) ndarray
    """
    A = finite_array("A", A, ("n", "k"), largest=LARGEST**0.5)
    U, values, Vt = np.linalg.svd(A, full_matrices=False)
    used = np.count_nonzero(A.any(axis=0))  # a collapsed unit has a column of 0
    values[used:] = 0.0
    if (values[:used] * SPREAD >= values[0]).all():
        return U, values, Vt
    if A.shape[0] < A.shape[1]:
        V, values, Ut = svd(A.T)
        return Ut.T, values, V.T
    by_rows = A / np.where(A.any(axis=1), np.abs(A).max(axis=1), 1.0)[:, None]
    lengths = np.linalg.norm(by_rows, axis=0)
    pivots = np.abs(np.diag(qr(by_rows / np.where(lengths > 0, lengths, 1.0), mode="r", pivoting=True)[0]))
    rank = np.count_nonzero(pivots > _rounding(len(A)))
    if rank == 0 or values[rank - 1] * SPREAD < values[0]:
        scaled, U, V, work, _, _ = dgejsv(A, joba=2, jobu=0, jobv=0, jobr=0, jobt=0, jobp=0)
        values, Vt = scaled * (work[0] / work[1]), V.T
    values[rank:] = 0.0
    return U, values, Vt


def covariance_eigenvalues(x):
    """Eigenvalues of the 1/N covariance of samples, where n is too large for its eigenvectors, or to keep it at all.

    With fewer samples than dimensions they are found from the N x N matrix of the inner products of the centred
    samples, which has the same eigenvalues other than 0.

    Parameters
    ----------
    x : (N, n) array_like
        Summed in float64. A memory map or a dask array is read in blocks.

    Returns
    -------
    (n,) ndarray
        Descending; beyond the rank they are 0.
    """
    if not _in_blocks(x):
        x = plain_array("x", x, "samples of shape (N, n)", truth=True)
    count, n = _checked_shape("x", x.shape)
    if count >= n:
        moments = Moments.from_samples(x)
        products, rank = moments.covariance, moments.root.shape[1]
    else:
        products, correlations = np.zeros((count, count)), np.zeros((count, count))
        for deviations, lengths in _columns(x):
            products += deviations @ deviations.T
            deviations /= np.where(lengths > 0, lengths, 1.0)
            correlations += deviations @ deviations.T
        largest = correlations.diagonal().max()
        rank = int(dpstrf(correlations, tol=_rounding(n) * largest)[2]) if largest > 0 else 0
    found = eigvalsh(products)[::-1].copy()
    if rank and found[rank - 1] * GRADED < found[0]:
        factor = moments.root if count >= n else np.hstack([deviations for deviations, _ in _columns(x)]).T
        found[:rank] = svd(factor)[1][:rank] ** 2
    found[rank:] = 0.0
    return found if count >= n else np.pad(found / count, (0, n - count))


def _columns(x):
    """Samples (N, n) as blocks of columns about their means, in float64, and the length of each column."""
    width = max(1, BLOCK // len(x))
    for j in range(0, x.shape[1], width):
        block = plain_array("x", x[:, j : j + width], "samples of shape (N, n)", truth=True).astype(np.float64)
        if not np.isfinite(block).all():
            for _ in _blocks("x", x):  # which names the place
                pass
        with np.errstate(over="ignore", invalid="ignore"):  # reported in the next lines, by name
            deviations = block - block.mean(axis=0).clip(block.min(axis=0), block.max(axis=0))
            deviations -= deviations.mean(axis=0)
            squares = (deviations**2).sum(axis=0)
        lost = (squares < 1e-280) & deviations.any(axis=0)
        if lost.any() or not (squares <= LARGEST).all():
            column = int((lost | ~(squares <= LARGEST)).argmax())
            raise ValueError(f"x is too large or too small in column {j + column} for its squares: rescale the columns")
        yield deviations, np.sqrt(squares)
