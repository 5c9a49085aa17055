"""Probabilistic PCA: the model, its maximum likelihood fit, its stationary points and their stability.

Serves chapters 01 (Eqs 1 and 5-8) and 02 (Eqs 10-12, Appendix A, Figure 1). All closed forms work in the
k-dimensional column space of W or through a root or the eigenpairs of the covariance: no n x n matrix is inverted.
What rounding of the covariance might decide is refused: "below rounding".
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from helpers._validation import (
    EPS,
    REMEDY,
    RESOLVED,
    brief,
    finite_array,
    instance,
    integer,
    positive,
    refuse_below_rounding,
)
from helpers.moments import LARGEST, Moments, svd

STATIONARY = 1e-4  # residual of Eq. 10, in deviations of the model, up to which it counts as stationary
TIE = 1e-6  # relative difference up to which variances are equal, and share of a deviation that is no use


class Axes(NamedTuple):
    """W = U diag(l) R^T, and what the model says along the columns of U.

    Attributes
    ----------
    U : (n, k) ndarray
        Orthonormal columns.
    l : (k,) ndarray
        Singular values of W, descending.
    Rt : (k, k) ndarray
        R^T.
    deviations : (k,) ndarray
        Standard deviations of x along the columns of U: sqrt(l^2 + sigma2).
    """

    U: np.ndarray
    l: np.ndarray
    Rt: np.ndarray
    deviations: np.ndarray


@dataclass(frozen=True, eq=False)
class PPCA:
    """The model p(x) = N(mu, W W^T + sigma2 I) of Eqs 1 and 5.

    Parameters
    ----------
    W : (n, k) array_like, 1 <= k <= n
    mu : (n,) array_like
    sigma2 : float
        Variance of the observation noise, above 0.

    See Also
    --------
    fit : the one of highest likelihood.
    stationary_point : any other that has no slope.
    helpers.linear_vae.LinearVAE : the same model with an encoder.
    """

    W: np.ndarray
    mu: np.ndarray
    sigma2: float

    def __post_init__(self):
        W = finite_array("W", self.W, ("n", "k"), largest=LARGEST**0.5)
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
        """The covariance of x, W W^T + sigma2 I, (n, n) (Eq. 5)."""
        return self.W @ self.W.T + self.sigma2 * np.eye(self.W.shape[0])

    @cached_property
    def axes(self):
        """W = U diag(l) R^T, and the standard deviations of x along the columns of U, as `Axes`."""
        U, l, Rt = svd(self.W)
        return Axes(U, l, Rt, np.hypot(l, np.sqrt(self.sigma2)))

    def split(self, Y):
        """Columns Y (n, m) along the axes, (k, m), and what is off them, (n, m).

        Projected twice: the first time, rounding of large entries of Y leaves some of them off the axes.
        """
        U, Y = self.axes.U, finite_array("Y", Y, (self.mu.size, "m"))
        along = U.T @ Y
        off = Y - U @ along
        again = U.T @ off
        return along + again, off - U @ again

    def solve(self, Y):
        """C^-1 Y for Y (n, m): divide by each axis' variance, and by sigma2 off the axes."""
        U, _, _, deviations = self.axes
        along, off = self.split(Y)
        return U @ (along / deviations[:, None] / deviations[:, None]) + off / self.sigma2

    def solve_W(self):
        """C^-1 W, (n, k), without the detour off the axes, which would amplify rounding by 1 / sigma2."""
        U, l, Rt, deviations = self.axes
        return (U * (l / deviations / deviations)) @ Rt

    def mahalanobis(self, Y):
        """Squared length of each column of Y (n, m) under C^-1, (m,).

        The part of a column off the axes is formed as a vector before it is squared: subtracting squared
        lengths instead would lose every digit when sigma2 is tiny.

        Raises
        ------
        ValueError
            When one of them exceeds float64.
        """
        along, off = self.split(Y)
        with np.errstate(over="ignore"):
            squares = ((along / self.axes.deviations[:, None]) ** 2).sum(axis=0)
            squares += ((off / np.sqrt(self.sigma2)) ** 2).sum(axis=0)
        if not np.isfinite(squares).all():
            raise ValueError(f"Y beside sigma2 = {self.sigma2:g} would exceed float64: rescale the columns")
        return squares

    def average_mahalanobis(self, moments):
        """Average of (x - mu)^T C^-1 (x - mu) from `moments`, refused where their rounding could be seen in it."""
        self._require_same_n(moments)
        # The average of (x - mu)(x - mu)^T is S plus the square of what the mean misses, so one extra column.
        columns = np.column_stack([moments.root, moments.mean - self.mu, np.diag(moments.hidden)])
        squares = self.mahalanobis(columns)
        n = self.mu.size
        average, doubt = squares[:-n].sum(), squares[-n:].sum()
        refuse_below_rounding(doubt, average + n, self.sigma2, columns[:, :-n])
        return average

    def log_normaliser(self):
        """n log 2 pi + log det C."""
        n, k = self.W.shape
        return n * np.log(2 * np.pi) + (n - k) * np.log(self.sigma2) + 2 * np.log(self.axes.deviations).sum()

    def log_likelihood(self, moments):
        """Average log p(x) per sample, in nats, from the `moments` of the data: a float (Eq. 5).

        Examples
        --------
        A model of pure noise, and data that have its covariance: half of n (log 2 pi + 1), below 0.

        >>> model = PPCA(W=[[0.0], [0.0]], mu=[0, 0], sigma2=1.0)
        >>> round(model.log_likelihood(Moments([0, 0], [[1, 0], [0, 1]], count=10)), 4)
        -2.8379
        """
        return float(-(self.log_normaliser() + self.average_mahalanobis(moments)) / 2)

    def log_likelihood_samples(self, x):
        """log p(x) of each row of `x` (N, n), in nats, (N,) (Eq. 5)."""
        with np.errstate(over="ignore", invalid="ignore"):  # which is refused
            deviations = self._deviations(x)
            distances = self.mahalanobis(deviations.T)
            doubtful = ((deviations**2).sum(axis=1) / (distances + self.mu.size)).argmax()
        refuse_below_rounding(0.0, distances[doubtful] + self.mu.size, self.sigma2, deviations[doubtful])
        return -(self.log_normaliser() + distances) / 2

    def posterior(self, x):
        """Mean of p(z | x) for each row of `x` (N, n), and the covariance all rows share (Eq. 6).

        Returns
        -------
        means : (N, k) ndarray
        covariance : (k, k) ndarray
        """
        # M^-1 W^T = R diag(l / (l^2 + sigma2)) U^T: M itself, once formed, would have lost a small sigma2.
        U, l, Rt, deviations = self.axes
        means = (self._deviations(x) @ U * (l / deviations / deviations)) @ Rt
        half = Rt.T * (np.sqrt(self.sigma2) / deviations)
        return means, half @ half.T

    def sample(self, count, seed):
        """Draw pairs from the two-stage model of Eq. 1.

        Parameters
        ----------
        count : int
            Number of pairs, at least 1.
        seed : int
            From 0.

        Returns
        -------
        x : (count, n) ndarray
        z : (count, k) ndarray
        """
        count = integer("count", count, 1, 2**63 - 1)
        rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
        n, k = self.W.shape
        z = rng.standard_normal((count, k))
        x = z @ self.W.T + self.mu + np.sqrt(self.sigma2) * rng.standard_normal((count, n))
        return x, z

    def _deviations(self, x):
        return finite_array("x", x, ("N", self.mu.size)) - self.mu

    def _require_same_n(self, moments):
        n = instance("moments", moments, Moments).mean.size
        if n != self.mu.size:
            raise ValueError(f"moments has n = {n}; expected n = {self.mu.size} as in W")


def fit(moments, k, sigma2=None):
    """Maximum likelihood fit with R = I (Eqs 7-8), or the global maximum at a fixed `sigma2`.

    Parameters
    ----------
    moments : Moments
    k : int
        Number of latents, 1 to n.
    sigma2 : float, optional
        A fixed noise variance. Without it, the maximum likelihood one is used.

    Returns
    -------
    PPCA
        Column i of W is eigenvector i, of squared length lambda_i - sigma2; 0 where that would be negative.

    Raises
    ------
    ValueError
        When `sigma2` is to be estimated but the k leading eigenvalues leave no variance, so that the likelihood
        has no upper bound, or none above rounding; or k = n, where no sigma2 is the best.

    See Also
    --------
    max_log_likelihood : the likelihood that it reaches, for every k at once.
    stationary_point : the points where an ascent may stop short of it.
    helpers.linear_vae.fit : the same maximum through the ELBO, by ascent.

    Examples
    --------
    >>> moments = Moments([0, 0, 0], [[4, 0, 0], [0, 2, 0], [0, 0, 1]], count=100)
    >>> model = fit(moments, k=1)
    >>> round(model.sigma2, 4), abs(model.W).round(4).ravel().tolist()  # the mean of 2 and 1; the root of 4 - 1.5
    (1.5, [1.5811, 0.0, 0.0])
    >>> abs(fit(moments, k=2, sigma2=3.0).W).round(4).tolist()  # sigma2 above 2: the second latent collapses
    [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    n = instance("moments", moments, Moments).mean.size
    k = integer("k", k, 1, n)
    leading, rest = moments.eigenvalues[:k], moments.eigenvalues[k:]
    if sigma2 is None:
        if k == n:
            raise ValueError(
                f"k = {k} equals n: the likelihood is the same at every sigma2 up to the smallest eigenvalue "
                f"{leading[-1]:.3g}; expected a smaller k or a given sigma2"
            )
        refuse_no_residual(moments, k)
        sigma2 = rest.mean()
    sigma2 = positive("sigma2", sigma2)
    variances = np.where(np.arange(n) < k, np.maximum(moments.eigenvalues, sigma2), sigma2)
    refuse_below_rounding(
        (_hidden_along(moments) / variances).sum(), n + (moments.eigenvalues / variances).sum(), sigma2
    )
    scales = np.sqrt(np.maximum(leading - sigma2, 0.0))
    return PPCA(moments.eigenvectors[:, :k] * scales, moments.mean, sigma2)


def refuse_no_residual(moments, k, beta=1.0):
    """Refuse moments that leave no variance to learn sigma2 from after k latents; a strong KL term may hold it up.

    Parameters
    ----------
    moments : Moments
    k : int
        Number of latents, 1 to n.
    beta : float
        Weight of the KL term, above 0.

    Raises
    ------
    ValueError
        When the rank of the covariance is at most k, and beta times it at most n. The message says whether that is
        certain or only so up to rounding.
    """
    n, rank = instance("moments", moments, Moments).root.shape
    k, beta = integer("k", k, 1, n), positive("beta", beta)
    if rank > k or beta * rank > n:
        return
    what = f"k = {k} leaves no residual variance"
    # Certain with no more samples than latents, or when the factorisation of the covariance comes out exactly.
    if rank == n or moments.count - 1 <= k or (moments.hidden == np.sqrt(EPS * moments.covariance.diagonal())).all():
        unbounded = f"the {'likelihood' if beta == 1 else 'objective'} is unbounded as sigma2 goes to 0"
        raise ValueError(
            f"{what} (rank {rank} of n = {n}): {unbounded if beta * rank < n else 'no sigma2 is the best'}; expected a "
            "smaller k or a given sigma2"
        )
    raise ValueError(f"{what} above rounding (rank {rank} of n = {n}): {REMEDY}, choose a smaller k or give sigma2")


def _hidden_along(moments):
    """Variance that rounding of the covariance can hide, as it bears on each eigenvector, (n,)."""
    return moments.hidden**2 @ moments.eigenvectors**2


def max_log_likelihood(moments):
    """Maximum of the average log likelihood over W, mu and sigma2 (Eqs 7-8), for every k = 1, ..., n - 1.

    Parameters
    ----------
    moments : Moments

    Returns
    -------
    (n - 1,) ndarray
        In nats per sample; infinite from the rank of the covariance on.

    Raises
    ------
    ValueError
        When rounding of the covariance could be seen in one of them.

    See Also
    --------
    fit : the model that reaches it, for one k.

    Examples
    --------
    >>> moments = Moments([0, 0, 0], [[4, 0, 0], [0, 2, 0], [0, 0, 1]], count=100)
    >>> max_log_likelihood(moments).round(4).tolist()  # at k = 1, sigma2 = 1.5; at k = 2, sigma2 = 1
    [-5.3554, -5.2965]
    """
    eigenvalues = instance("moments", moments, Moments).eigenvalues
    n = eigenvalues.size
    k = np.arange(1, n)
    residual = eigenvalues[::-1].cumsum()[::-1][1:]  # smallest first, so that small sums keep their digits
    hidden = _hidden_along(moments)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # beyond the rank
        log_det = np.log(eigenvalues).cumsum()[:-1] + (n - k) * np.log(residual / (n - k))
        doubt = (hidden / eigenvalues).cumsum()[:-1] + hidden[::-1].cumsum()[::-1][1:] * (n - k) / residual
    for at in np.flatnonzero((residual > 0) & ~(doubt <= RESOLVED * 2 * n))[:1]:
        refuse_below_rounding(doubt[at], 2 * n, residual[at] / (n - k[at]))
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

    Returns
    -------
    PPCA

    Raises
    ------
    ValueError
        When `indices` is no sequence, has an entry twice or more than k, or an eigenvalue used is not above sigma2.

    See Also
    --------
    is_stable : whether the likelihood falls in every direction from there.

    Examples
    --------
    >>> moments = Moments([0, 0, 0], [[4, 0, 0], [0, 2, 0], [0, 0, 1]], count=100)
    >>> second = stationary_point(moments, [1], k=1, sigma2=1.0)
    >>> abs(second.W).round(4).ravel().tolist()  # of length sqrt(2 - 1), along the second eigenvector
    [0.0, 1.0, 0.0]
    """
    n = instance("moments", moments, Moments).mean.size
    k, sigma2 = integer("k", k, 1, n), positive("sigma2", sigma2)
    if not isinstance(indices, (list, tuple, range)) and not (type(indices) is np.ndarray and indices.ndim == 1):
        raise ValueError(f"indices is {brief(indices)}; expected a sequence of integers")
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


def _second_moment_times(model, moments, Y):
    """The average of (x - mu)(x - mu)^T, which is S when mu is the mean, times Y (n, m)."""
    deviation = moments.mean - model.mu
    return moments.covariance @ Y + np.outer(deviation, deviation @ Y)


def gradient(model, moments):
    """Gradient of the average log likelihood with respect to W: C^-1 S C^-1 W - C^-1 W (Eq. 10).

    Parameters
    ----------
    model : PPCA
    moments : Moments

    Returns
    -------
    (n, k) ndarray
        In nats per unit of W.

    See Also
    --------
    hessian_product, hessian : its derivatives.
    """
    instance("model", model, PPCA).average_mahalanobis(moments)  # refuses what rounding could decide
    PW = model.solve_W()
    return model.solve(_second_moment_times(model, moments, PW)) - PW


def hessian_product(model, moments, direction):
    """Derivative of `gradient` along a direction: the Hessian applied to it.

    With P = C^-1 and E the derivative of C, P changes by -P E P.

    Parameters
    ----------
    model : PPCA
    moments : Moments
    direction : (n, k) array_like
        In the space of W.

    Returns
    -------
    (n, k) ndarray
    """
    instance("model", model, PPCA).average_mahalanobis(moments)  # refuses what rounding could decide
    return _hessian_product(model, moments, finite_array("direction", direction, model.W.shape))


def _hessian_product(model, moments, direction):
    W, times = model.W, model.solve
    PW, PD = model.solve_W(), times(direction)
    change = direction @ (W.T @ PW) + W @ (direction.T @ PW)  # E P W, with E = D W^T + W D^T
    PEPW = times(change)
    PSPW = times(_second_moment_times(model, moments, PW))
    EPSPW = direction @ (W.T @ PSPW) + W @ (direction.T @ PSPW)
    return times(_second_moment_times(model, moments, PD - PEPW)) - times(EPSPW) - PD + PEPW


def hessian(model, moments):
    """Hessian of the average log likelihood in the entries of W, row by row. For small models.

    Parameters
    ----------
    model : PPCA
    moments : Moments

    Returns
    -------
    (nk, nk) ndarray
    """
    instance("model", model, PPCA).average_mahalanobis(moments)  # refuses what rounding could decide
    n, k = model.W.shape
    directions = np.eye(n * k).reshape(n * k, n, k)
    return np.stack([_hessian_product(model, moments, d).ravel() for d in directions], axis=1)


def is_stable(model, moments):
    """Whether a stationary point is stable: no direction in W raises the likelihood to second order (Eq. 12).

    A column of W with k_i = l_i^2 + sigma2 gains from a free eigenvector u_j exactly when lambda_j > k_i, so
    the point is stable when no free eigenvalue exceeds the smallest k_i (sigma2 itself, when a column is free
    to grow from zero). Ties count as stable: the direction neither gains nor loses.

    Parameters
    ----------
    model : PPCA
        A stationary point.
    moments : Moments

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        When the model is not stationary in W and mu at its sigma2.

    See Also
    --------
    stationary_point : makes every one of them.
    hessian : its eigenvalues say the same.

    Examples
    --------
    >>> moments = Moments([0, 0, 0], [[4, 0, 0], [0, 2, 0], [0, 0, 1]], count=100)
    >>> second = stationary_point(moments, [1], k=1, sigma2=1.0)  # the largest eigenvalue, 4, is free
    >>> is_stable(second, moments), is_stable(fit(moments, k=1, sigma2=1.0), moments)
    (False, True)
    >>> is_stable(stationary_point(moments, [], k=1, sigma2=5.0), moments)  # W = 0, collapsed, and right to be
    True
    """
    instance("model", model, PPCA).average_mahalanobis(moments)  # refuses what rounding could decide
    U, l, _, deviations = model.axes
    used = l > TIE**0.5 * deviations
    # The free eigenvalues are those of S on the complement of the used axes: squares of its root there.
    off = moments.root - U[:, used] @ (U[:, used].T @ moments.root)
    off -= U[:, used] @ (U[:, used].T @ off)
    largest_free = np.linalg.eigvalsh(off @ off.T)[-1]
    # Each side of Eq. 10 in units of the model's own deviations, so that columns of all units count alike.
    along, rest = model.split(np.column_stack([moments.root, moments.mean - model.mu]))
    whitened = np.vstack([along / deviations[:, None], rest / np.sqrt(max(model.sigma2, largest_free))])
    share = l / deviations
    missed = whitened @ (whitened[: l.size].T * share)
    missed[: l.size] -= np.diag(share)
    slope, off_mean = np.linalg.norm(missed, axis=0).max(), np.linalg.norm(whitened[:, -1])
    if max(slope, off_mean) > STATIONARY:
        raise ValueError(
            f"model is not stationary: S C^-1 W differs from W by {slope:.3g} "
            f"and mu from the mean by {off_mean:.3g}, in units of the model's deviations; expected a stationary point "
            "(Eq. 10)"
        )
    smallest_used = deviations.min() ** 2 if used.all() else model.sigma2
    hidden = np.diag(moments.hidden) - U[:, used] @ (U[:, used].T * moments.hidden)
    return bool(largest_free <= smallest_used * (1 + TIE) + (hidden**2).sum())


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

    See Also
    --------
    helpers.plots.stability_panels : draws it.
    """
    instance("model", model, PPCA)._require_same_n(moments)
    n, k = model.W.shape
    column = integer("column", column, 0, k - 1)
    directions = finite_array("directions", directions, (n, 2))
    a, b = finite_array("a", a, ("A",)), finite_array("b", b, ("B",))
    others = model.W.copy()
    others[:, column] = 0.0
    rest = PPCA(others, model.mu, model.sigma2)
    plane = np.column_stack([model.W[:, column], directions])
    P_plane = rest.solve(plane)
    P_form = plane.T @ P_plane
    PSP_form = P_plane.T @ _second_moment_times(model, moments, P_plane)
    points = np.stack(np.broadcast_arrays(1.0, a[None, :], b[:, None]), axis=-1)
    wPw = ((points @ P_form) * points).sum(axis=-1)
    wPSPw = ((points @ PSP_form) * points).sum(axis=-1)
    # The average squared distance, which is a difference: refused where next to nothing would be left of it.
    average = rest.average_mahalanobis(moments)
    left = average - wPSPw / (1 + wPw)
    refuse_below_rounding(16 * EPS * average, n + left.min(), model.sigma2)
    return -(rest.log_normaliser() + np.log1p(wPw) + left) / 2
