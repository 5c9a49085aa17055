"""Bernoulli probabilistic PCA: its marginal and its ELBO by quadrature, and when it collapses.

Serves chapter 06 (Eqs 28-32, Appendix C.1). Every x may hold grey values in [0, 1] besides 0 and 1. For those,
x log y + (1 - x) log(1 - y) is no longer the log of a probability but the negative cross-entropy that VAEs are
trained with in practice; every formula here holds for it as it stands, except that nothing sums to 1 over x.
"""

import warnings
from functools import cache, partial

import numpy as np
from scipy.linalg import eigh
from scipy.special import expit, ndtr, roots_hermitenorm, roots_legendre

from helpers._validation import finite_array, plain_array, positive, refuse_not_finite
from helpers.moments import Moments

# Nats: log_marginal doubles its nodes until no sample changes by more, a tenth of what it promises, since two rules
# may agree by chance.
LAST_CHANGE = 1e-10
MISSED = 1e-3  # share of either side by which the equations of the best encoder may be missed: the ELBO is flat there
LARGEST = 1e100  # entries whose squares and products float64 holds
MOST_NODES = {1: 16384, 2: 512, 3: 64}  # along each of k axes, where log_marginal gives up
CHUNK = 2**21  # numbers held at a time


def _checked(x, W, mu, name="x"):
    x, W = _unit_interval(name, x), _moderate("W", W, ("n", "k"))
    if W.shape[0] != x.shape[1]:
        raise ValueError(f"W has shape {W.shape}; expected ({x.shape[1]}, k), with the n of {name}, {x.shape}")
    return x, W, _moderate("mu", mu, (len(W),))


def _moderate(name, value, shape):
    return finite_array(name, value, shape, largest=LARGEST)


def _unit_interval(name, x):
    x = finite_array(name, x, ("N", "n"), truth=True)
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"{name} has values from {x.min()} to {x.max()}; expected them in [0, 1]")
    return x


# By hand, as NumPy's logaddexp and SciPy's logsumexp take two to three times as long for the same digits.
def _softplus(a):
    """log(1 + exp(a)) with neither overflow nor lost digits; minus its value is log(1 - y)."""
    return np.maximum(a, 0.0) + np.log1p(np.exp(-np.abs(a)))


@cache
def _hermite(nodes):
    """Gauss-Hermite nodes and weights for the standard Gaussian."""
    t, weights = roots_hermitenorm(nodes)
    return t, weights / weights.sum()


@cache
def _log_hermite(nodes):
    """Gauss-Hermite nodes and the logarithms of their weights.

    Far out, where float64 has no such weights, each is the density at its node times the distance between nodes: a
    steep likelihood has tails that are wide beside the curvature at the mode, and they count there.
    """
    t, weights = _hermite(nodes)
    held = weights > 1e-250
    far = np.log(np.gradient(t)) - (t**2 + np.log(2 * np.pi)) / 2
    return t, np.where(held, np.log(np.where(held, weights, 1.0)), far)


def log_conditional(x, z, W, mu):
    """log p(x | z) of each row of `x` at the same row of `z` (Eq. 28).

    Parameters
    ----------
    x : (N, n) array_like in [0, 1]
    z : (N, k) array_like
    W : (n, k) array_like
    mu : (n,) array_like
        The logits are W z + mu.

    Returns
    -------
    (N,) ndarray
        In nats.
    """
    x, W, mu = _checked(x, W, mu)
    logits = _moderate("z", z, (len(x), W.shape[1])) @ W.T + mu
    return (x * logits - _softplus(logits)).sum(axis=1)


def logit_normal_log_density(y, W, mu):
    """log f(y) of each row of `y`, the sigmoid of W z + mu (Eq. 29, corrected).

    Parameters
    ----------
    y : (N, n) array_like
        Strictly between 0 and 1.
    W : (n, n) array_like
        Of rank n.
    mu : (n,) array_like

    Returns
    -------
    (N,) ndarray
        In nats.

    Raises
    ------
    ValueError
        When y reaches 0 or 1; or when W W^T is singular, as it is for every k < n: y then lies on a surface of lower
        dimension and has no density in n dimensions.
    """
    y, W, mu = _checked(y, W, mu, "y")
    if y.min() <= 0 or y.max() >= 1:
        raise ValueError(f"y has values from {y.min()} to {y.max()}; expected them strictly between 0 and 1")
    axes, l, _ = np.linalg.svd(W)
    if W.shape[1] < len(W) or l.min() <= len(W) * np.finfo(float).eps * l.max():
        raise ValueError(f"W has shape {W.shape} and rank below n = {len(W)}; expected rank n, or y has no density")
    with np.errstate(over="ignore"):  # which is refused
        squares = (((np.log(y) - np.log1p(-y) - mu) @ axes / l) ** 2).sum(axis=1)
    if not np.isfinite(squares).all():
        raise ValueError(
            f"W has the singular value {l.min():.3g}, at which log f(y) exceeds float64: expected larger ones"
        )
    log_det = len(W) * np.log(2 * np.pi) + 2 * np.log(l).sum()
    return -(log_det + squares) / 2 - (np.log(y) + np.log1p(-y)).sum(axis=1)


def log_marginal(x, W, mu):
    """log p(x) of each row of `x` by Gauss-Hermite quadrature over z (Eqs 30-31).

    The grid of each sample is centred on the mode of p(z | x) and shaped by the curvature there. Its m^k nodes
    are doubled along every axis, from m = 8, until the nodes stand close enough to see the steepest sigmoid and
    the value changes by less than 1e-10 nats, or by no more than rounding where the value itself is large; the error
    left is then below 1e-9 nats. That suffices for entries of W up to about 50 for k = 1, 5 for k = 2 and 2 for
    k = 3. For larger ones p(x | z) is nearly a step in z; where `MOST_NODES` are not enough, a ``RuntimeWarning``
    says so, and the value may be off by more.

    Parameters
    ----------
    x : (N, n) array_like in [0, 1]
    W : (n, k) array_like, k at most 3
    mu : (n,) array_like

    Returns
    -------
    (N,) ndarray
        In nats. Average it for the objective per sample.

    Raises
    ------
    ValueError
        When k is above 3, where a grid has too many nodes.
    """
    x, W, mu = _checked(x, W, mu)
    k = W.shape[1]
    if k not in MOST_NODES:
        raise ValueError(f"W has k = {k} latents; expected at most {max(MOST_NODES)}, since the grid has m^k nodes")
    # p(x) depends on W W^T alone: with R = I in W = U L R^T, a rotation of W changes no digit to speak of.
    U, l, _ = np.linalg.svd(W, full_matrices=False)
    W = U * l
    k = W.shape[1]
    modes, roots = _modes(x, W, mu)
    # A rule with m nodes has them pi / sqrt(m) apart at the centre. While a logit rises by more than pi from one to
    # the next the rule steps over a sigmoid, and then two rules may agree on the same wrong value.
    steepest = np.sqrt(((W @ roots) ** 2).sum(axis=2)).max(axis=1)
    nodes, value = 8, _on_grid(x, W, mu, modes, roots, 8)
    enough = np.maximum(LAST_CHANGE, 32 * np.finfo(float).eps * np.abs(value))  # a sum of n terms rounds
    waiting = np.arange(len(x))
    while nodes < MOST_NODES[k]:
        nodes *= 2
        finer = _on_grid(x[waiting], W, mu, modes[waiting], roots[waiting], nodes)
        change = np.abs(finer - value[waiting])
        value[waiting] = finer
        waiting = waiting[(change > enough[waiting]) | (steepest[waiting] > np.sqrt(nodes))]
        if waiting.size == 0:
            return value
    warnings.warn(
        f"log_marginal: for {waiting.size} of {len(x)} samples, {nodes} nodes along each of {k} axes are too few for "
        f"entries of W up to {np.abs(W).max():.3g}; the last doubling changed a value by {change.max():.1g} nats",
        RuntimeWarning,
        stacklevel=2,
    )
    return value


def _on_grid(x, W, mu, modes, roots, nodes):
    """log p(x), (N,), from `nodes` per axis: z = mode + root t, with t a standard Gaussian under the rule."""
    t, log_t = _log_hermite(nodes)
    k = W.shape[1]
    grid = np.stack(np.meshgrid(*[t] * k, indexing="ij"), axis=-1).reshape(-1, k)
    log_weights = sum(np.meshgrid(*[log_t] * k, indexing="ij")).ravel()
    if k > 1:
        keep = log_weights > -745.0  # what exp turns into 0 next to a weight of 1
        grid, log_weights = grid[keep], log_weights[keep]
    log_weights = log_weights + (grid**2).sum(axis=1) / 2
    log_dets = np.log(np.abs(np.linalg.det(roots)))
    rows, columns = max(1, CHUNK // (len(grid) * len(mu))), max(1, CHUNK // len(mu))
    value = np.full(len(x), -np.inf)
    for i in range(0, len(x), rows):
        part = slice(i, i + rows)
        for j in range(0, len(grid), columns):
            z = modes[part, None] + grid[None, j : j + columns] @ roots[part].transpose(0, 2, 1)
            logits = z @ W.T + mu
            integrand = np.einsum("ajn,an->aj", logits, x[part]) - _softplus(logits).sum(axis=2)
            integrand += log_weights[j : j + columns] - (z**2).sum(axis=2) / 2
            value[part] = np.logaddexp(value[part], _log_sum_exp(integrand) + log_dets[part])
    return value


# By hand, as `_softplus`.
def _log_sum_exp(a):
    top = a.max(axis=1)
    return top + np.log(np.exp(a - top[:, None]).sum(axis=1))


def _modes(x, W, mu):
    """Modes of p(z | x), (N, k), and square roots (N, k, k) of the inverse curvatures of -log p there.

    log p(x | z) + log p(z) is strictly concave in z, so Newton's method with step halving finds the one mode.
    """

    def value(z):
        logits = z @ W.T + mu
        return (x * logits - _softplus(logits)).sum(axis=1) - (z**2).sum(axis=1) / 2

    z = np.zeros((len(x), W.shape[1]))
    best = value(z)
    for _ in range(200):
        y = expit(z @ W.T + mu)
        step, curvature = _newton_step(x, y, y * (1 - y), W, z, 1.0)
        if np.abs(step).max() < 1e-10:
            break
        z, best = _ascend(value, z, step, best)
    return z, np.linalg.inv(np.linalg.cholesky(curvature)).transpose(0, 2, 1)


def _newton_step(x, y, spread, W, z, beta):
    """Newton step and curvature of sum_i (x_i a_i - softplus(a_i)) - beta |z|^2 / 2, given y and y (1 - y)."""
    curvature = np.einsum("an,nj,nl->ajl", spread, W, W, optimize=True) + beta * np.eye(W.shape[1])
    gradient = (x - y) @ W - beta * z
    return np.linalg.solve(curvature, gradient[..., None])[..., 0], curvature


def _ascend(value, z, step, best):
    """Move each row of `z` along `step`, halved until `value` is not below `best` beyond rounding."""
    scale = np.ones(len(z))
    for _ in range(40):
        found = value(z + scale[:, None] * step)
        worse = found < best - 1e-13 * (1 + np.abs(best))
        if not worse.any():
            break
        scale[worse] /= 2
    return z + scale[:, None] * step, found


def gaussian_logistic(a, s):
    """Means of softplus(u), y(u) and y(u) (1 - y(u)) for u ~ N(a, s^2), y the sigmoid: three arrays in one.

    The one-dimensional integrals of Eq. 32, to 1e-12 times max(1, s), and for |a| above 1000 to rounding, 1e-15 |a|,
    at any `a` and any `s` >= 0, arrays whose shapes broadcast. For s up to 1, Gauss-Hermite quadrature over u. For
    larger s the bend of the softplus is too sharp for that rule, but the three are also averages over a standard
    logistic variable r of (b Phi(b/s) + s phi(b/s)), Phi(b/s) and phi(b/s)/s at b = a + r, since softplus'' is the
    logistic density; these are smooth in r, and Gauss-Legendre takes them.

    Parameters
    ----------
    a : array_like
        Means.
    s : array_like
        Standard deviations, from 0, of a shape that broadcasts with that of `a`.

    Returns
    -------
    (3, ...) ndarray

    Raises
    ------
    ValueError
        When s has an entry below 0, or the two shapes do not broadcast.
    """
    a, s = plain_array("a", a).astype(float), plain_array("s", s, "standard deviations").astype(float)
    refuse_not_finite("a", a)
    refuse_not_finite("s", s)
    if (s < 0).any():
        raise ValueError(f"s has the entry {s.min()}; expected standard deviations of 0 or more")
    try:
        a, s = np.broadcast_arrays(a, s)
    except ValueError:
        raise ValueError(f"s has shape {s.shape}; expected one that broadcasts with that of a, {a.shape}") from None
    result = np.zeros((3, *a.shape))
    narrow = s <= 1.0
    if narrow.any():
        center, width = a[narrow], s[narrow]
        total = np.zeros((3, center.size))
        for node, weight in zip(*_hermite(8 + int(36 * width.max() ** 2)), strict=True):
            u = center + width * node
            small = np.exp(-np.abs(u))
            y = np.where(u < 0, small, 1.0) / (1 + small)
            total[0] += weight * (np.maximum(u, 0.0) + np.log1p(small))
            total[1] += weight * y
            total[2] += weight * (small / (1 + small) ** 2)
        result[:, narrow] = total
    if not narrow.all():
        center, width = a[~narrow], s[~narrow]
        total = np.zeros((3, center.size))
        t, weights = roots_legendre(60)
        # Half of the line at a time, up to 40, where the logistic density is below 1e-17: as seen from an end of
        # its interval, a pole of that density (at +-i pi) hinders the rule less.
        r = np.concatenate([20 * (t - 1), 20 * (t + 1)])
        weights = np.tile(weights, 2) * expit(r) * expit(-r)
        for node, weight in zip(r, weights / weights.sum(), strict=True):
            b = (center + node) / width
            below, bell = ndtr(b), np.exp(-np.minimum(b**2, 1600) / 2) / np.sqrt(2 * np.pi)
            total[0] += weight * (width * (b * below + bell))
            total[1] += weight * below
            total[2] += weight * (bell / width)
        result[:, ~narrow] = total
    return result


def _logit_moments(W, mu, m, v):
    """Mean and standard deviation of each logit w_i^T z + mu_i under q(z | x) = N(m, diag v), (N, n) each."""
    return m @ W.T + mu, np.sqrt(v @ (W**2).T)


def expected_log_likelihood(x, W, mu, m, v):
    """E log p(x | z) under q(z | x) = N(m, diag v) for each row of `x`, in nats, (N,) (Eq. 32, corrected).

    Each logit w_i^T z + mu_i is one Gaussian number, so this is a sum of n one-dimensional integrals whatever k
    is; see `gaussian_logistic` for how they are taken and to what accuracy.

    Parameters
    ----------
    x : (N, n) array_like in [0, 1]
    W : (n, k) array_like
    mu : (n,) array_like
    m, v : (N, k) array_like
        Means and variances of q, sample by sample; the variances above 0.

    Returns
    -------
    (N,) ndarray
        In nats.
    """
    x, W, mu = _checked(x, W, mu)
    m, v = _checked_encoder(m, v, (len(x), W.shape[1]))
    return _expected_log_likelihood(x, W, mu, m, v)


def _expected_log_likelihood(x, W, mu, m, v):
    logit, spread = _logit_moments(W, mu, m, v)
    return (x * logit - gaussian_logistic(logit, spread)[0]).sum(axis=1)


def _kl(m, log_v):
    """KL divergence of each N(m, diag v) from N(0, I), in nats, (N,)."""
    return (m**2 + np.expm1(log_v) - log_v).sum(axis=1) / 2


def _checked_encoder(m, v, shape):
    m, v = _moderate("m", m, shape), _moderate("v", v, shape)
    if v.min() <= 0:
        raise ValueError(f"v has the entry {v.min()}; expected variances above 0")
    return m, v


def elbo(x, W, mu, m, v, beta=1.0):
    """The beta-ELBO of each row of `x` at q(z | x) = N(m, diag v) (Eqs 14 and 32).

    Parameters
    ----------
    x, W, mu, m, v
        As for `expected_log_likelihood`.
    beta : float
        Weight of the KL term, above 0.

    Returns
    -------
    (N,) ndarray
        In nats. Average it for the objective per sample.
    """
    x, W, mu = _checked(x, W, mu)
    m, v = _checked_encoder(m, v, (len(x), W.shape[1]))
    return _expected_log_likelihood(x, W, mu, m, v) - positive("beta", beta) * _kl(m, np.log(v))


def optimal_encoder(x, W, mu, beta=1.0):
    """Means and variances (N, k) of the q(z | x) = N(m, diag v) that maximises the beta-ELBO, sample by sample.

    The objective is strictly concave in m and sqrt(v), so there is one maximum. At it beta m = W^T (x - E y)
    and 1 / v_j = 1 + sum_i w_ij^2 E[y_i (1 - y_i)] / beta; the means are moved by Newton's method and the variances
    to what the second equation asks for, with steps halved until the objective does not fall. They stop when
    they move by less than 1e-7; the ELBO, flat at its maximum, is then as good as exact.

    Parameters
    ----------
    x : (N, n) array_like in [0, 1]
    W : (n, k) array_like
    mu : (n,) array_like
    beta : float
        Weight of the KL term, above 0.

    Returns
    -------
    m, v : (N, k) ndarray

    Raises
    ------
    ValueError
        When the two equations do not hold where the steps end, since rounding decides them: beta is tiny, or W huge.

    See Also
    --------
    helpers.linear_vae.optimal_encoder : of the Gaussian model, in closed form.
    """
    x, W, mu = _checked(x, W, mu)
    k, beta = W.shape[1], positive("beta", beta)

    def value(rows, state):
        m, log_v = state[:, :k], state[:, k:]
        return _expected_log_likelihood(x[rows], W, mu, m, np.exp(log_v)) - beta * _kl(m, log_v)

    state, rows = np.zeros((len(x), 2 * k)), np.arange(len(x))
    best = value(rows, state)
    for _ in range(500):
        m, log_v = state[rows, :k], state[rows, k:]
        _, y, spread = gaussian_logistic(*_logit_moments(W, mu, m, np.exp(log_v)))
        try:
            mean_step, _ = _newton_step(x[rows], y, spread, W, m, beta)
        except np.linalg.LinAlgError:  # next to a beta this small the curvature is rounding: refused below
            break
        step = np.hstack([mean_step, -np.log1p(spread @ W**2 / beta) - log_v])
        moved, best[rows] = _ascend(partial(value, rows), state[rows], step, best[rows])
        moving = np.abs(moved - state[rows]).max(axis=1) > 1e-7
        state[rows] = moved
        rows = rows[moving]
        if rows.size == 0:
            break
    m, v = state[:, :k], np.exp(state[:, k:])
    _, y, spread = gaussian_logistic(*_logit_moments(W, mu, m, v))
    off = np.abs(beta * m - (x - y) @ W) > MISSED * (np.abs(x - y) @ np.abs(W))
    off |= ~(np.abs(v * (1 + spread @ W**2 / beta) - 1) <= MISSED)
    if off.any():
        raise ValueError(
            f"beta is {beta:g} beside W up to {np.abs(W).max():.3g}, where rounding decides the encoder of sample "
            f"{off.any(axis=1).argmax()}: expected a larger beta or a smaller W"
        )
    return m, v


def collapse_threshold(x):
    """The beta at which complete collapse, W = 0, becomes a local maximum of the beta-ELBO.

    It is the largest eigenvalue of A^-1/2 S A^-1/2, with S the 1/N covariance of `x`, p its mean and
    A = diag(p (1 - p)): above it every direction in W lowers the beta-ELBO at mu = logit p and the best q, below it
    some direction raises it. For x in {0, 1} that is the correlation matrix, whose largest eigenvalue is at
    least 1; for grey x it can be less. Constant pixels are dropped.

    Parameters
    ----------
    x : (N, n) array_like in [0, 1]

    Returns
    -------
    float

    Raises
    ------
    ValueError
        When no pixel varies.

    Examples
    --------
    >>> round(collapse_threshold([[0, 0], [1, 1], [0, 0], [1, 1]]), 4)  # two pixels that always agree
    2.0
    >>> round(collapse_threshold([[0, 0], [0, 1], [1, 0], [1, 1]]), 4)  # two that know nothing of each other
    1.0
    """
    x = _unit_interval("x", x)
    x = x[:, x.min(axis=0) < x.max(axis=0)]
    if x.shape[1] == 0:
        raise ValueError(f"x has {len(x)} rows and no pixel that varies; expected at least one")
    moments = Moments.from_samples(x)
    scale = 1 / np.sqrt(moments.mean * (1 - moments.mean))
    last = len(scale) - 1
    return float(eigh(moments.covariance * np.outer(scale, scale), eigvals_only=True, subset_by_index=[last, last])[0])
