"""The first two moments of a data set: all that a linear Gaussian model ever sees of it.

Serves every linear chapter. S in the paper's Eqs 10-12 and 20-22, and the eigenvalues and eigenvectors
of Eqs 7-8, are those of the covariance kept here, which divides by N.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, eigvalsh

from helpers._validation import finite_array, integer

BATCH_ROWS = 4096  # rows centred and multiplied at a time


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
        For a wrong shape, NaN or infinity, or a covariance that is not symmetric or has a negative eigenvalue
        beyond rounding.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    def __post_init__(self):
        mean = finite_array("mean", self.mean, ("n",))
        covariance = finite_array("covariance", self.covariance, (mean.size, mean.size))
        asymmetry = np.abs(covariance - covariance.T).max()
        if asymmetry > 1e-10 * np.abs(covariance).max():
            raise ValueError(f"covariance differs from its transpose by {asymmetry:.3g}; expected a symmetric matrix")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", (covariance + covariance.T) / 2)
        object.__setattr__(self, "count", integer("count", self.count, 1, 2**63 - 1))
        if np.diag(covariance).min() < 0:
            raise ValueError(
                f"covariance has the variance {np.diag(covariance).min():.3g} on its diagonal; expected none below 0"
            )

    @classmethod
    def from_samples(cls, x):
        """Moments of the rows of `x` (N, n); integers and float32 are summed in float64."""
        x = np.asarray(x)
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"x has shape {x.shape}; expected (N, n) with at least one sample and one dimension")
        if x.dtype == np.uint8:
            return cls._from_bytes(x)
        return cls.from_batches(x[i : i + BATCH_ROWS] for i in range(0, len(x), BATCH_ROWS))

    @classmethod
    def _from_bytes(cls, x):
        """Moments of uint8 samples (N, n) from exact sums, in float32 and so at twice the speed of float64.

        The products of x - 128 are integers up to 2^14; a sum of 1,024 of them stays within 2^24, up to which
        float32 holds every integer.
        """
        total, products = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        for i in range(0, len(x), 1024):
            deviations = x[i : i + 1024].astype(np.float32) - np.float32(128)
            total += deviations.sum(axis=0, dtype=np.float64)
            products += deviations.T @ deviations
        # Whole numbers up to here and, for any but huge N, up to the divisions.
        covariance = (len(x) * products - np.outer(total, total)) / len(x) ** 2
        return cls((total + 128 * len(x)) / len(x), covariance, len(x))

    @classmethod
    def from_batches(cls, iterable):
        """Moments of all rows of an iterable of (N_b, n) arrays, of which only one is held at a time.

        Deviations are summed about the first batch's mean and corrected at the end, so that a mean much larger
        than the spread costs no precision.
        """
        count, origin = 0, None
        for batch in iterable:
            batch = np.asarray(batch)
            width = "n" if origin is None else origin.size
            if batch.ndim != 2 or 0 in batch.shape or (origin is not None and batch.shape[1] != width):
                raise ValueError(f"a batch has shape {batch.shape}; expected (N, {width}), with at least one row")
            if batch.dtype.kind not in "biuf":
                raise ValueError(f"a batch has dtype {batch.dtype}; expected real numbers")
            if origin is None:
                origin = batch.mean(axis=0, dtype=np.float64)
                total, products = np.zeros_like(origin), np.zeros((origin.size, origin.size))
            with np.errstate(invalid="ignore"):  # infinity is reported below, by name
                deviations = np.subtract(batch, origin, dtype=np.float64)
            total += deviations.sum(axis=0)
            products += deviations.T @ deviations
            count += len(batch)
            if not np.isfinite(total).all():
                raise ValueError("a batch contains NaN or infinity; expected finite numbers")
        if origin is None:
            raise ValueError("iterable is empty; expected at least one batch of shape (N, n)")
        shift = total / count
        return cls(origin + shift, products / count - np.outer(shift, shift), count)

    @cached_property
    def _eigenpairs(self):
        eigenvalues, eigenvectors = eigh(self.covariance, driver="evd")
        eigenvalues, eigenvectors = eigenvalues[::-1].copy(), eigenvectors[:, ::-1].copy()
        rounding = eigenvalues.size * np.finfo(float).eps * np.abs(eigenvalues).max()
        if eigenvalues[-1] < -10 * rounding:
            raise ValueError(
                f"covariance has the eigenvalue {eigenvalues[-1]:.3g}; expected a positive semi-definite matrix"
            )
        eigenvalues[eigenvalues <= rounding] = 0.0
        # LAPACK leaves each sign open; the entry of largest modulus is made positive so that pictures agree.
        largest = np.abs(eigenvectors).argmax(axis=0)
        eigenvectors *= np.where(eigenvectors[largest, np.arange(eigenvalues.size)] < 0, -1.0, 1.0)
        eigenvalues.flags.writeable = eigenvectors.flags.writeable = False
        return eigenvalues, eigenvectors

    @property
    def eigenvalues(self):
        """Eigenvalues of the covariance (n,), descending; those below rounding (n eps times the largest) are 0."""
        return self._eigenpairs[0]

    @property
    def eigenvectors(self):
        """Orthonormal eigenvectors (n, n) as columns, in the order of `eigenvalues`."""
        return self._eigenpairs[1]


def covariance_eigenvalues(x):
    """Eigenvalues of the 1/N covariance of samples, where n is too large for its eigenvectors, or to keep it at all.

    With fewer samples than dimensions they are found from the N x N matrix of the inner products of the centred
    samples, which has the same eigenvalues other than 0.

    Parameters
    ----------
    x : (N, n) array_like
        Integers and float32 are summed in float64.

    Returns
    -------
    (n,) ndarray
        Descending; none below 0, as rounding would have some be.
    """
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; expected (N, n) with at least one sample and one dimension")
    count, n = x.shape
    if count < n:
        deviations = finite_array("x", x, (count, n))
        deviations -= deviations.mean(axis=0)
        products = deviations @ deviations.T / count
    else:
        products = Moments.from_samples(x).covariance
    found = eigvalsh(products, overwrite_a=True)[::-1]
    return np.pad(np.maximum(found, 0.0), (0, n - found.size))
