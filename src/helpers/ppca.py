"""Probabilistic PCA: the model, its maximum likelihood fit, its stationary points and their stability.

Serves chapters 01 (Eqs 1 and 5-8) and 02 (Eqs 10-12, Appendix A, Figure 1). All closed forms work in the
k-dimensional column space of W or through the eigenpairs of the covariance: no n x n matrix is inverted.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from helpers._validation import finite_array, integer, positive

STATIONARY = 1e-6  # relative residual of Eq. 10 up to which a model counts as stationary


@dataclass(frozen=True, eq=False)
class PPCA:
    """The model p(x) = N(mu, W W^T + sigma2 I) of Eqs 1 and 5.

    Parameters
    ----------
    W : (n, k) array_like, 1 <= k <= n
    mu : (n,) array_like
    sigma2 : float
        Variance of the observation noise, above 0.
    """

    W: np.ndarray
    mu: np.ndarray
    sigma2: float

    def __post_init__(self):
        W = finite_array("W", self.W, ("n", "k"))
        n, k = W.shape
        if k > n:
            raise ValueError(f"W has shape {W.shape}; expected (n, k) with k at most n")
        object.__setattr__(self, "W", W)
        object.__setattr__(self, "mu", finite_array("mu", self.mu, (n,)))
        object.__setattr__(self, "sigma2", positive("sigma2", self.sigma2))

    @property
    def M(self):
        """W^T W + sigma2 I, (k, k)."""
        return self.W.T @ self.W + self.sigma2 * np.eye(self.W.shape[1])

    @property
    def C(self):
        """W W^T + sigma2 I, (n, n): the covariance of x (Eq. 5)."""
        return self.W @ self.W.T + self.sigma2 * np.eye(self.W.shape[0])

    @cached_property
    def _axes(self):
        # W = U diag(l) R^T: the axes U (n, k), the singular values l, and the variances of x along the axes.
        U, l, Rt = np.linalg.svd(self.W, full_matrices=False)
        return U, l, Rt, l**2 + self.sigma2

    def _precision_times(self, Y):
        """C^-1 Y for Y (n, m): divide by each axis' variance, and by sigma2 off the axes."""
        U, _, _, variances = self._axes
        along = U.T @ Y
        return U @ (along / variances[:, None]) + (Y - U @ along) / self.sigma2

    def _precision_times_W(self):
        """C^-1 W, (n, k), without the detour off the axes, which would amplify rounding by 1 / sigma2."""
        U, l, Rt, variances = self._axes
        return (U * (l / variances)) @ Rt

    def _mahalanobis(self, Y):
        """Squared length of each column of Y (n, m) under C^-1, (m,).

        The part of a column off the axes is formed as a vector before it is squared: subtracting squared
        lengths instead would lose every digit when sigma2 is tiny.
        """
        U, _, _, variances = self._axes
        along = U.T @ Y
        off = Y - U @ along
        return (along**2 / variances[:, None]).sum(axis=0) + (off**2).sum(axis=0) / self.sigma2

    def _log_normaliser(self):
        """n log 2 pi + log det C."""
        n, k = self.W.shape
        return n * np.log(2 * np.pi) + (n - k) * np.log(self.sigma2) + np.log(self._axes[3]).sum()

    def log_likelihood(self, moments):
        """Average log p(x) per sample, in nats, from the moments of the data (Eq. 5)."""
        self._require_same_n(moments.mean.size, "moments")
        # The average of (x - mu)(x - mu)^T is S plus the square of what the mean misses, so one extra column.
        root = np.sqrt(moments.eigenvalues) * moments.eigenvectors
        columns = np.column_stack([root, moments.mean - self.mu])
        return float(-(self._log_normaliser() + self._mahalanobis(columns).sum()) / 2)

    def log_likelihood_samples(self, x):
        """log p(x) of each row of `x` (N, n), in nats, (N,) (Eq. 5)."""
        return -(self._log_normaliser() + self._mahalanobis(self._deviations(x).T)) / 2

    def posterior(self, x):
        """Mean of p(z | x) for each row of `x` (N, n), and the covariance all rows share (Eq. 6).

        Returns
        -------
        means : (N, k) ndarray
        covariance : (k, k) ndarray
        """
        M = self.M
        means = np.linalg.solve(M, self.W.T @ self._deviations(x).T).T
        return means, self.sigma2 * np.linalg.inv(M)

    def sample(self, count, seed):
        """Draw `count` pairs from the two-stage model of Eq. 1: x (count, n) and z (count, k)."""
        count = integer("count", count, 1, 2**63 - 1)
        rng = np.random.default_rng(seed)
        n, k = self.W.shape
        z = rng.standard_normal((count, k))
        x = z @ self.W.T + self.mu + np.sqrt(self.sigma2) * rng.standard_normal((count, n))
        return x, z

    def _deviations(self, x):
        return finite_array("x", x, ("N", self.mu.size)) - self.mu

    def _require_same_n(self, n, name):
        if n != self.mu.size:
            raise ValueError(f"{name} has n = {n}; expected n = {self.mu.size} as in W")


def fit(moments, k, sigma2=None):
    """Maximum likelihood fit with R = I (Eqs 7-8), or the global maximum at a fixed `sigma2`.

    Parameters
    ----------
    moments : Moments
    k : int
        Number of latents, 1 to n.
    sigma2 : float, optional
        A fixed noise variance. Without it, the maximum likelihood one is used.

    Raises
    ------
    ValueError
        When `sigma2` is to be estimated but the k leading eigenvalues leave no variance, so that the likelihood
        has no upper bound; or k = n, where no sigma2 is the best.
    """
    n = moments.mean.size
    k = integer("k", k, 1, n)
    leading, rest = moments.eigenvalues[:k], moments.eigenvalues[k:]
    if sigma2 is None:
        if k == n:
            raise ValueError(
                f"k = {k} equals n: the likelihood is the same at every sigma2 up to the smallest eigenvalue "
                f"{leading[-1]:.3g}; expected a smaller k or a given sigma2"
            )
        if rest.sum() == 0:
            raise ValueError(
                f"k = {k} leaves no residual variance (rank {np.count_nonzero(moments.eigenvalues)} of n = {n}): "
                "the likelihood is unbounded as sigma2 goes to 0; expected a smaller k or a given sigma2"
            )
        sigma2 = rest.mean()
    sigma2 = positive("sigma2", sigma2)
    scales = np.sqrt(np.maximum(leading - sigma2, 0.0))
    return PPCA(moments.eigenvectors[:, :k] * scales, moments.mean, sigma2)


def max_log_likelihood(moments):
    """Maximum of the average log likelihood over W, mu and sigma2 (Eqs 7-8), for every k = 1, ..., n - 1.

    Returns
    -------
    (n - 1,) ndarray
        In nats per sample; infinite from the rank of the covariance on.
    """
    eigenvalues = moments.eigenvalues
    n = eigenvalues.size
    k = np.arange(1, n)
    residual = eigenvalues[::-1].cumsum()[::-1][1:]  # smallest first, so that small sums keep their digits
    with np.errstate(divide="ignore"):
        log_det = np.log(eigenvalues).cumsum()[:-1] + (n - k) * np.log(residual / (n - k))
    return np.where(residual > 0, -(n * np.log(2 * np.pi) + log_det + n) / 2, np.inf)


def stationary_point(moments, indices, k, sigma2):
    """The stationary point of Appendix A whose columns use the eigenvectors `indices`; the rest are zero.

    Parameters
    ----------
    moments : Moments
    indices : sequence of int
        Which eigenvectors, counted from 0 in descending order of eigenvalue; distinct, at most k of them. May be
        empty: W = 0, complete collapse.
    k : int
        Number of latents, 1 to n.
    sigma2 : float
        The fixed noise variance, below each eigenvalue used: column i has squared length lambda_i - sigma2.
    """
    n = moments.mean.size
    k, sigma2 = integer("k", k, 1, n), positive("sigma2", sigma2)
    indices = [integer("an entry of indices", i, 0, n - 1) for i in indices]
    if len(set(indices)) != len(indices) or len(indices) > k:
        raise ValueError(f"indices is {indices}; expected distinct indices, at most k = {k} of them")
    excess = moments.eigenvalues[indices] - sigma2
    if (excess <= 0).any():
        raise ValueError(
            f"sigma2 is {sigma2}; expected less than every eigenvalue used, {moments.eigenvalues[indices]}"
        )
    W = np.zeros((n, k))
    W[:, : len(indices)] = moments.eigenvectors[:, indices] * np.sqrt(excess)
    return PPCA(W, moments.mean, sigma2)


def _second_moment(model, moments):
    """Average of (x - mu)(x - mu)^T, (n, n): S when mu is the mean."""
    model._require_same_n(moments.mean.size, "moments")
    deviation = moments.mean - model.mu
    return moments.covariance + np.outer(deviation, deviation)


def gradient(model, moments):
    """Gradient of the average log likelihood with respect to W, (n, k): C^-1 S C^-1 W - C^-1 W (Eq. 10)."""
    PW = model._precision_times_W()
    return model._precision_times(_second_moment(model, moments) @ PW) - PW


def hessian_product(model, moments, direction):
    """Derivative of `gradient` along `direction` (n, k), (n, k): the Hessian applied to a direction.

    With P = C^-1 and E the derivative of C, P changes by -P E P.
    """
    direction = finite_array("direction", direction, model.W.shape)
    S, W, times = _second_moment(model, moments), model.W, model._precision_times
    PW, PD = model._precision_times_W(), times(direction)
    change = direction @ (W.T @ PW) + W @ (direction.T @ PW)  # E P W, with E = D W^T + W D^T
    PEPW = times(change)
    SPW = S @ PW
    PSPW = times(SPW)
    EPSPW = direction @ (W.T @ PSPW) + W @ (direction.T @ PSPW)
    return times(S @ (PD - PEPW)) - times(EPSPW) - PD + PEPW


def hessian(model, moments):
    """Hessian of the average log likelihood in the entries of W, row by row, (nk, nk). For small models."""
    n, k = model.W.shape
    directions = np.eye(n * k).reshape(n * k, n, k)
    return np.stack([hessian_product(model, moments, d).ravel() for d in directions], axis=1)


def is_stable(model, moments):
    """Whether a stationary point is stable: no direction in W raises the likelihood to second order (Eq. 12).

    A column of W with k_i = l_i^2 + sigma2 gains from a free eigenvector u_j exactly when lambda_j > k_i, so
    the point is stable when no free eigenvalue exceeds the smallest k_i (sigma2 itself, when a column is free
    to grow from zero). Ties count as stable: the direction neither gains nor loses.

    Raises
    ------
    ValueError
        When the model is not stationary in W and mu at its sigma2.
    """
    S, W = _second_moment(model, moments), model.W
    pull = S @ model._precision_times_W()
    size = max(np.linalg.norm(pull), np.linalg.norm(W))
    off_mean = np.abs(moments.mean - model.mu).max()
    spread = np.sqrt(max(moments.eigenvalues[0], model.sigma2))
    if np.linalg.norm(pull - W) > STATIONARY * size or off_mean > STATIONARY * spread:
        raise ValueError(
            f"model is not stationary: S C^-1 W differs from W by {np.linalg.norm(pull - W):.3g} "
            f"and mu from the mean by {off_mean:.3g}; expected a stationary point (Eq. 10)"
        )
    U, l, _, variances = model._axes
    used = l**2 > STATIONARY * variances
    # The free eigenvalues are those of S on the complement of the used axes.
    off = np.eye(len(U)) - U[:, used] @ U[:, used].T
    largest_free = np.linalg.eigvalsh(off @ S @ off)[-1]
    smallest_used = variances.min() if used.all() else model.sigma2
    rounding = len(U) * np.finfo(float).eps * moments.eigenvalues[0]
    return bool(largest_free <= smallest_used * (1 + STATIONARY) + rounding)


def landscape(model, moments, column, directions, a, b):
    """Average log likelihood when one column of W moves in a plane (Figure 1).

    The column becomes w = w_i + a d_1 + b d_2. Only w w^T changes in C, so the matrix determinant lemma and
    the Sherman-Morrison formula give every point of the grid from two 3 x 3 matrices.

    Parameters
    ----------
    model : PPCA
    moments : Moments
    column : int
        Which column of W moves, counted from 0.
    directions : (n, 2) array_like
        d_1 and d_2, for instance two eigenvectors of the covariance.
    a, b : (A,), (B,) array_like
        Coordinates along d_1 and d_2, in the units of x.

    Returns
    -------
    (B, A) ndarray
        In nats per sample; row for b, column for a, as a contour plot wants it.
    """
    n, k = model.W.shape
    column = integer("column", column, 0, k - 1)
    directions = finite_array("directions", directions, (n, 2))
    a, b = finite_array("a", a, ("A",)), finite_array("b", b, ("B",))
    others = model.W.copy()
    others[:, column] = 0.0
    rest = PPCA(others, model.mu, model.sigma2)
    plane = np.column_stack([model.W[:, column], directions])
    P_plane = rest._precision_times(plane)
    P_form = plane.T @ P_plane
    PSP_form = P_plane.T @ _second_moment(model, moments) @ P_plane
    points = np.stack(np.broadcast_arrays(1.0, a[None, :], b[:, None]), axis=-1)
    wPw = ((points @ P_form) * points).sum(axis=-1)
    wPSPw = ((points @ PSP_form) * points).sum(axis=-1)
    return rest.log_likelihood(moments) - (np.log1p(wPw) - wPSPw / (1 + wPw)) / 2
