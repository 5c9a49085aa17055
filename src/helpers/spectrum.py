"""Posterior collapse predicted: the linear VAE at its optimum, in closed form, from the eigenvalues of the covariance.

Serves chapters 07 and 12. Each function takes the eigenvalues lambda, descending, the noise variance and the weight
`beta` of the KL term; only the product theta = beta sigma2 decides what collapses. Where a function takes k,
the eigenvalues are all n of them; elsewhere any part of the spectrum will do, one latent for each. An eigenvalue
is taken at its word: what is rounding was decided where it was made (`helpers.moments`). In nats, averaged over the
data.
"""

import numpy as np
from scipy.special import chdtri

from helpers._validation import finite_array, integer, non_negative, positive, weighed


def _eigenvalues(values):
    values = finite_array("eigenvalues", values, ("n",))
    if values[-1] < 0 or (np.diff(values) > 0).any():
        raise ValueError(
            f"eigenvalues is {values}; expected descending and none below 0: take them from Moments or "
            "covariance_eigenvalues, or sort them and set those below your own rounding to 0"
        )
    return values


def _finite(name, value):
    """Return a result, or raise ``ValueError`` where it has left the range of float64."""
    if not np.isfinite(value).all():
        raise ValueError(f"{name} of these eigenvalues, sigma2 and beta exceeds float64: rescale the columns")
    return value


def active(eigenvalues, sigma2, beta=1.0):
    """Which units the optimum uses: those with lambda > beta sigma2. The others collapse.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    sigma2, beta : float
        Above 0.

    Returns
    -------
    (n,) ndarray of bool

    Examples
    --------
    >>> active([4.0, 2.0, 1.0], sigma2=1.5).tolist()
    [True, True, False]
    >>> active([4.0, 2.0, 1.0], sigma2=1.5, beta=2.0).tolist()  # theta = 3
    [True, False, False]
    """
    return _eigenvalues(eigenvalues) > weighed(sigma2, beta)


def encoder_variances(eigenvalues, sigma2, beta=1.0):
    """D at the optimum: min(1, beta sigma2 / lambda). The encoder's mean has variance 1 - D.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    sigma2, beta : float
        Above 0.

    Returns
    -------
    (n,) ndarray

    Examples
    --------
    >>> encoder_variances([4.0, 2.0, 1.0], sigma2=1.5).tolist()
    [0.375, 0.75, 1.0]
    """
    theta = weighed(sigma2, beta)
    return theta / np.maximum(_eigenvalues(eigenvalues), theta)


def kl(eigenvalues, sigma2, beta=1.0):
    """Average KL(q(z_i | x) || p(z_i)) of each unit at the optimum, (n,).

    Half of log(lambda / (beta sigma2)) where that is above 0, and 0 for the others. For Gaussian data it is
    also the mutual information of x and z_i, as q(z_i | x) then averages to N(0, 1) exactly.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    sigma2, beta : float
        Above 0.

    See Also
    --------
    helpers.collapse.kl_per_unit : the same, measured on an encoder's outputs.
    epsilon_delta_threshold : where the KL of single samples lies.

    Examples
    --------
    >>> kl([4.0, 2.0, 1.0], sigma2=1.0).round(4).tolist()
    [0.6931, 0.3466, 0.0]
    """
    with np.errstate(divide="ignore", over="ignore"):
        return _finite("the KL", np.log(1 / encoder_variances(eigenvalues, sigma2, beta)) / 2)


def distortion(eigenvalues, k, sigma2, beta=1.0):
    """Expected squared error E|x - mu - W z|^2 at the optimum, a float.

    Each of the k units leaves min(lambda, beta sigma2), each further eigenvalue all of itself: reverse
    water-filling, the rate-distortion curve of a Gaussian cut off at k components, with `kl` the rate.

    Parameters
    ----------
    eigenvalues : (n,) array_like
        All n of them.
    k : int
        Number of latents, 1 to n.
    sigma2, beta : float
        Above 0.

    Examples
    --------
    >>> round(distortion([4.0, 2.0, 1.0], k=2, sigma2=1.5), 4)  # 1.5 + 1.5 + 1
    4.0
    """
    eigenvalues = _eigenvalues(eigenvalues)
    k = integer("k", k, 1, eigenvalues.size)
    with np.errstate(over="ignore"):
        error = np.minimum(eigenvalues[:k], weighed(sigma2, beta)).sum() + eigenvalues[k:].sum()
    return float(_finite("the distortion", error))


def elbo(eigenvalues, k, sigma2, beta=1.0, noise=None):
    """The ELBO (with the KL weighed 1) of the optimum for `beta` and `sigma2`, a float.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    k : int
        Number of latents, 1 to n.
    sigma2, beta : float
        What W, V and D are optimal for.
    noise : float, optional
        The noise variance that the ELBO is evaluated at. By default `sigma2`.

    See Also
    --------
    helpers.linear_vae.LinearVAE.elbo : of any linear VAE, the best or not.

    Examples
    --------
    >>> round(elbo([4.0, 2.0, 1.0], k=2, sigma2=1.0), 4)
    -5.2965
    """
    noise = positive("sigma2" if noise is None else "noise", sigma2 if noise is None else noise)
    error = distortion(eigenvalues, k, sigma2, beta)
    eigenvalues = _eigenvalues(eigenvalues)
    rate = kl(eigenvalues[:k], sigma2, beta).sum()
    with np.errstate(over="ignore"):
        value = -(eigenvalues.size * np.log(2 * np.pi * noise) + np.divide(error, noise)) / 2 - rate
    return float(_finite("the ELBO", value))


def learned_sigma2(eigenvalues, k, beta=1.0):
    """The noise variance that is best together with W, V and D, a float; Eq. 7 at `beta` = 1.

    It is the one root of sum_{i <= k} min(beta, lambda_i / s) + sum_{i > k} lambda_i / s = n. The left side
    is the least of beta a + (sum_{i > a} lambda_i) / s over a = 0, ..., k units counted as active, so its
    root is the least of the roots of these.

    Parameters
    ----------
    eigenvalues : (n,) array_like
        All n of them.
    k : int
        Number of latents, 1 to n.
    beta : float
        Above 0.

    Raises
    ------
    ValueError
        When no eigenvalue is left after k and the KL term is too weak to hold sigma2 above 0.

    See Also
    --------
    tuned_sigma2 : with the rest of the model held.

    Examples
    --------
    >>> round(learned_sigma2([4.0, 2.0, 1.0], k=1), 4)  # the mean of the eigenvalues left over
    1.5
    """
    eigenvalues, beta = _eigenvalues(eigenvalues), positive("beta", beta)
    n = eigenvalues.size
    k = integer("k", k, 1, n)
    rank = np.count_nonzero(eigenvalues)
    if rank <= k and beta * rank <= n:
        raise ValueError(
            f"k = {k} leaves no residual variance (rank {rank} of n = {n}): no sigma2 is the best at "
            f"beta = {beta}; expected a smaller k or a larger beta"
        )
    with np.errstate(over="ignore"):
        residual = np.append(eigenvalues[::-1].cumsum()[::-1], 0.0)[: k + 1]  # smallest first keeps their digits
    free = n - beta * np.arange(k + 1)
    return float(_finite("the noise", (residual[free > 0] / free[free > 0]).min()))


def tuned_sigma2(eigenvalues, k, sigma2, beta=1.0):
    """The noise variance that raises the ELBO most when W, V and D of the optimum stay (Table 1's tuning): a float.

    Parameters
    ----------
    eigenvalues : (n,) array_like
        All n of them.
    k : int
        Number of latents, 1 to n.
    sigma2, beta : float
        What W, V and D are optimal for.

    Examples
    --------
    >>> round(tuned_sigma2([4.0, 2.0, 1.0], k=2, sigma2=0.4), 4)  # (0.4 + 0.4 + 1) / 3
    0.6
    """
    return distortion(eigenvalues, k, sigma2, beta) / _eigenvalues(eigenvalues).size


def epsilon_delta_threshold(eigenvalues, sigma2, beta=1.0, delta=0.01):
    """The least epsilon at which each unit counts as (epsilon, delta)-collapsed, for Gaussian data, (n,).

    The KL of one sample is (m^2 + D - 1 - log D) / 2 with the encoder's mean m ~ N(0, 1 - D), so its
    1 - delta quantile comes from that of chi-squared with one degree of freedom.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    sigma2, beta : float
    delta : float
        Between 0 and 1: the share of the samples that may exceed epsilon.

    Raises
    ------
    ValueError
        When delta is not between 0 and 1.

    See Also
    --------
    helpers.collapse.epsilon_delta : which units have collapsed, measured.

    Examples
    --------
    >>> epsilon_delta_threshold([4.0, 2.0, 1.0], sigma2=1.0).round(4).tolist()
    [2.8062, 1.7553, 0.0]
    """
    delta = positive("delta", delta)
    if delta >= 1:
        raise ValueError(f"delta is {delta}; expected a probability between 0 and 1")
    D = encoder_variances(eigenvalues, sigma2, beta)
    with np.errstate(divide="ignore"):
        return _finite("epsilon", ((1 - D) * (chdtri(1, delta) - 1) - np.log(D)) / 2)


def escape_rate(eigenvalues, sigma2, beta=1.0):
    """Growth rates of W and V along each eigenvector from complete collapse, under gradient ascent.

    At W = 0, V = 0, D = 1 the gradients linearise to w' = (lambda v - w) / sigma2 and
    v' = lambda w / sigma2 - beta lambda v; this is the larger eigenvalue of that system. It is above 0
    exactly when lambda > beta sigma2.

    Parameters
    ----------
    eigenvalues : (n,) array_like
    sigma2 : float
        Above 0.
    beta : float
        From 0.

    Returns
    -------
    (n,) ndarray
        Per unit of the ascent's time.

    Examples
    --------
    >>> escape_rate([4.0, 2.0, 1.0], sigma2=2.0).round(4).tolist()
    [0.4075, 0.0, -0.191]
    """
    eigenvalues, sigma2 = _eigenvalues(eigenvalues), positive("sigma2", sigma2)
    beta = non_negative("beta", beta)
    with np.errstate(over="ignore", invalid="ignore"):
        decay_w, decay_v, drive = 1 / np.float64(sigma2), beta * eigenvalues, eigenvalues / sigma2
        root = np.hypot(decay_w - decay_v, 2 * drive)
        # Twice the product of the eigenvalues over the smaller one: the difference root - (w + v) would cancel.
        return _finite("the rate", 2 * (drive**2 - decay_w * decay_v) / (root + decay_w + decay_v))
