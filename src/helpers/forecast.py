"""What a loss asks for on given data, before training: survivors, KL, distortion, and whether collapse is stable.

Serves chapter 12. Two kinds of statement stand here, and `Forecast` says of each field which it is.

For every encoder and decoder (Theorem 12.1): if lambda_1, the largest eigenvalue of the data's covariance, is below
theta, complete collapse is a strict local maximum: whatever has the encoder's means and log variances near 0 on all
samples has less, unless it is the same. If it is above, a linear change gains; at equality nothing is decided. Whether
something better lies far away this does not say. Under a Bernoulli likelihood the same holds to second order along
smooth changes, with `score_eigenvalues` and beta, as log p(x | z) then changes by (x - p)^T g - g^T A g / 2 with the
logits' change g.

For the linear VAE alone: which units live at the optimum and what they carry, in closed form (`helpers.spectrum`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh

from helpers import spectrum
from helpers._validation import brief, finite_array, instance, integer, non_negative, plain_array, positive, words
from helpers.moments import Moments
from helpers.objective import PRESETS, Objective, read

PER_DIMENSION = 5  # samples per dimension below which the small eigenvalues are said to carry sampling noise


@dataclass(frozen=True, eq=False)
class Forecast:
    """What `forecast` found. Nats are averages over the data; None where nothing exact is known.

    Attributes
    ----------
    objective : Objective
        The loss, as it was read.
    n, k : int
        Features and latents.
    theta : float or None
        That of the loss; where sigma2 is learned, at the linear VAE's optimum, or at the sigma2 that was given. None
        unless the likelihood is Gaussian.
    eigenvalues : (n,) ndarray or None
        Of the data's covariance, descending; for a Bernoulli likelihood `score_eigenvalues`.
    lambda_1 : float or None
        The first of them.
    unstable : int or None
        Directions in which complete collapse is no maximum: eigenvalues above theta, or above beta for a Bernoulli
        likelihood. Exact for every decoder, at a theta that is held where it is. With free bits every direction that
        varies.
    collapse_is_stable : bool or None
        Whether `unstable` is 0. Below the threshold, complete collapse is then a strict local maximum, whatever encoder
        and decoder are. At equality the second order decides nothing: under a Gaussian likelihood collapse is still the
        optimum of the linear VAE, and of others nothing is known.
    survivors : int or None
        Units that pay for themselves in the best linear VAE, lambda > theta, at most k. Exact for linear VAEs; for
        others a rule of thumb.
    kl_per_unit : (k,) ndarray or None
        Average KL divergence of each unit in the best linear VAE, descending. Exact for linear VAEs.
    kl : float or None
        Its sum, K.
    distortion : float or None
        E, the expected squared error there, summed over the features. Exact for linear VAEs.
    learned_sigma2 : float or None
        Noise variance that the best linear VAE learns, at the beta of the loss if that learns it, else at beta = 1.
        None where no sigma2 is the best, as k leaves no variance, or the loss has one for each feature.
    learned_survivors : int or None
        Units that survive at that one.
    notes : tuple of str
        What the loss depends on, and what the data leave in doubt, a sentence each.
    """

    objective: Objective
    n: int
    k: int
    theta: float | None
    eigenvalues: np.ndarray | None
    lambda_1: float | None
    unstable: int | None
    collapse_is_stable: bool | None
    survivors: int | None
    kl_per_unit: np.ndarray | None
    kl: float | None
    distortion: float | None
    learned_sigma2: float | None
    learned_survivors: int | None
    notes: tuple

    @property
    def J(self):
        """The function `J` of the best linear VAE, a float; None without theta.

        Exact: a linear VAE has it, so no optimum over networks that contain the linear maps has less.
        """
        if self.theta is None:
            return None
        return J(self.distortion, self.kl_per_unit, self.theta, self.objective.free_bits)


def J(distortion, kl_per_unit, theta, free_bits=0.0):
    """-E / (2 theta) less the KL that is charged, a float: minus the loss per sample, over its weight of the KL.

    With free bits a unit is charged what it has or they are, whichever is more. Terms in sigma2 alone are left out.

    Parameters
    ----------
    distortion : float
        E, the expected squared error.
    kl_per_unit : (k,) array_like
        In nats.
    theta : float
        Above 0.
    free_bits : float
        In nats, from 0.

    Raises
    ------
    ValueError
        When it exceeds float64.
    """
    charged = np.maximum(finite_array("kl_per_unit", kl_per_unit, ("k",)), non_negative("free_bits", free_bits))
    with np.errstate(over="ignore"):
        found = -np.divide(non_negative("distortion", distortion) / 2, positive("theta", theta)) - charged.sum()
    if not np.isfinite(found):
        raise ValueError("distortion over theta, or kl_per_unit, exceeds float64: rescale the columns")
    return float(found)


def _read(objective, n, k, batch, sigma2):
    """The loss, and what of sigma2 is the model's own: None where the words of the loss ask for it."""
    if isinstance(instance("objective", objective, (str, Objective)), Objective):
        found = objective
    else:
        text = PRESETS.get(words("objective", objective), objective)
        in_it = "nll(sigma2)" in text.replace(" ", "")
        found = read(objective, n, k, batch, sigma2 if in_it else None)
        sigma2 = None if in_it else sigma2
    if not found.learned and sigma2 is not None:
        raise ValueError(f"sigma2 is {brief(sigma2)}, and the loss does not learn it; expected None")
    return found, None if sigma2 is None else positive("sigma2", sigma2)


def asked(objective, n, k, batch=None, sigma2=None):
    """A loss that is given in words or read already, and the theta that it asks of a model with its own sigma2.

    Parameters
    ----------
    objective : Objective or str
    n, k, batch : int
        As for `objective.read`.
    sigma2 : float or (n,) array_like, optional
        Noise variance of the model, where the loss learns it; or what ``nll(sigma2)`` stands for in its words.

    Returns
    -------
    objective : Objective
    theta : float or None
        None where none is known for the likelihood.

    Raises
    ------
    ValueError
        When sigma2 is missing where it is learned, or given where it is not.
    """
    found, own = _read(objective, n, k, batch, sigma2)
    if found.learned and own is None:
        raise ValueError("sigma2 is None, and the loss learns it; expected the model's own, above 0")
    return found, found.beta * own if found.learned else found.theta()


def kind(objective, batch=None, sigma2=None):
    """A loss before its data are known: its likelihood and its sigma2 are right, its weights not yet.

    Parameters
    ----------
    objective, batch, sigma2
        As for `asked`.

    Returns
    -------
    Objective
    """
    size = 1 if sigma2 is None else plain_array("sigma2", sigma2).size
    some = size if size > 1 else 1009  # neither 1 nor 2, of which a loss might have a difference
    return asked(objective, some, 1009, batch, sigma2)[0]


def forecast(moments, k, objective, count=None, batch=None, sigma2=None):
    """What a loss asks for on data of these moments, with k latents.

    Exact for linear VAEs are `survivors`, `kl_per_unit`, `kl` and `distortion`, with sigma2 fixed or learned. With free
    bits they are those of the best linear VAE whose units lie each along one eigenvector, with the average of each
    unit's KL over the data held against its free bits: it is attained, and no proof is given that no other is better.
    A limit on each sample's own KL, or on a minibatch's average, is another loss; it charges no less.

    Parameters
    ----------
    moments : Moments, or (n,) array_like
        Of the data, in the units that the loss sees; or all n eigenvalues of its 1/N covariance, descending and none
        below 0, as `Moments` and `moments.covariance_eigenvalues` give them. Sort those of ``eigvalsh``, and set to 0
        what is below your rounding: whether -3e-18 stands for 0 cannot be told here. A Bernoulli likelihood needs
        `Moments`, for the mean, and so does a noise variance for each feature; eigenvalues and the distortion are then
        those of the data with each column divided by its standard deviation.
    k : int
        Number of latents, from 1; those beyond n have nothing to carry.
    objective : Objective or str
        The loss, or text that `objective.read` reads.
    count : int, optional
        Samples that the eigenvalues come from; `Moments` know theirs.
    batch : int, optional
        Samples of a minibatch, where the loss depends on it.
    sigma2 : float or (n,) array_like, optional
        Where the loss learns it, the noise variance that a model has: the forecast is then for that one. Or what
        ``nll(sigma2)`` stands for in its words.

    Returns
    -------
    Forecast

    Raises
    ------
    ValueError
        When an argument is not what is expected, or sigma2 is learned and none is the best.

    See Also
    --------
    helpers.diagnose.diagnose : a trained model beside its forecast.

    Examples
    --------
    >>> found = forecast([4.0, 2.0, 1.0], k=2, objective="0.5*sum(se) + 3*kl")
    >>> found.theta, found.survivors, found.collapse_is_stable, round(found.distortion, 4)
    (3.0, 1, False, 6.0)
    """
    if isinstance(moments, Moments):
        count = moments.count if count is None else count
        eigenvalues = moments.eigenvalues
    else:
        eigenvalues = finite_array("moments", moments, ("n",))
        if eigenvalues[-1] < 0 or (np.diff(eigenvalues) > 0).any():
            raise ValueError(
                f"moments is {eigenvalues}; expected Moments, or their eigenvalues, descending and none below 0: sort "
                "them, and set those below your own rounding to 0"
            )
    n, k = eigenvalues.size, integer("k", k, 1, 2**31 - 1)
    objective, own = _read(objective, n, k, batch, sigma2)
    if objective.sigma2:
        if not isinstance(moments, Moments):
            raise ValueError(
                "moments is an array of eigenvalues, and the loss has a sigma2 per feature; expected Moments"
            )
        eigenvalues = objective.whitened(moments).eigenvalues
    notes = list(objective.notes)
    if count is not None and integer("count", count, 1, 2**63 - 1) < PER_DIMENSION * n:
        notes.append(
            f"{count} samples of {n} features are fewer than {PER_DIMENSION} for each: the large eigenvalues come out "
            "too large and the small ones too small, and what lives by the small ones may be sampling noise."
        )
    if objective.likelihood != "gaussian":
        return _without_theta(moments, n, k, objective, notes)
    used, bits = min(k, n), objective.free_bits
    beta = objective.beta if objective.learned else 1.0
    # A unit with b free bits leaves min(theta, lambda exp(-2 b)) of its eigenvalue: a smaller eigenvalue, as it were.
    left = eigenvalues.copy()
    left[:used] *= np.exp(-2 * bits)
    try:
        learned = spectrum.learned_sigma2(eigenvalues, used, beta)
    except ValueError:
        if objective.learned and own is None:
            raise
        learned = None
    if objective.sigma2:
        learned = None  # it has one for each feature, which are not learned
    elif objective.learned and bits and learned is not None:
        learned = _learned_sigma2(left, used, beta)
    theta = objective.theta() if not objective.learned else beta * (learned if own is None else own)
    theta = positive("theta", theta)
    kl = np.zeros(k)
    kl[:used] = np.where(eigenvalues[:used] > 0, np.maximum(spectrum.kl(eigenvalues[:used], theta), bits), 0.0)
    with np.errstate(over="ignore"):
        distortion = float(np.minimum(left[:used], theta).sum() + left[used:].sum())
    if not np.isfinite(distortion):
        raise ValueError("moments has a trace that exceeds float64: rescale the columns")
    unstable = int((eigenvalues > (0.0 if bits else theta)).sum())
    return Forecast(
        objective=objective,
        n=n,
        k=k,
        theta=theta,
        eigenvalues=eigenvalues,
        lambda_1=float(eigenvalues[0]),
        unstable=unstable,
        collapse_is_stable=not unstable,
        survivors=int((eigenvalues[:used] > theta).sum()),
        kl_per_unit=kl,
        kl=float(kl.sum()),
        distortion=distortion,
        learned_sigma2=learned,
        learned_survivors=None if learned is None else int((eigenvalues[:used] > beta * learned).sum()),
        notes=tuple(notes),
    )


def _learned_sigma2(left, k, beta):
    """`spectrum.learned_sigma2` where k of the eigenvalues have been lessened and those after them have not."""
    residual = np.append(left[::-1].cumsum()[::-1], 0.0)[: k + 1]
    free = left.size - beta * np.arange(k + 1)
    return float((residual[free > 0] / free[free > 0]).min())


def _without_theta(moments, n, k, objective, notes):
    """The forecast for a likelihood that implies no theta: for a Bernoulli one, whether collapse is stable."""
    scores = lambda_1 = unstable = None
    if objective.likelihood != "bernoulli":
        notes.append(f"For a {objective.likelihood} likelihood nothing exact is known, and it can only be measured.")
    elif not isinstance(moments, Moments):
        notes.append(
            "Where collapse is stable under a Bernoulli likelihood depends on the means as well: give Moments."
        )
    else:
        scores = score_eigenvalues(moments)
        lambda_1 = float(scores[0])
        unstable = int((scores > (0.0 if objective.free_bits else objective.beta)).sum())
        notes.append("Under a Bernoulli likelihood theory says whether complete collapse is stable, and no more.")
    return Forecast(
        objective=objective,
        n=n,
        k=k,
        theta=None,
        eigenvalues=scores,
        lambda_1=lambda_1,
        unstable=unstable,
        collapse_is_stable=None if unstable is None else not unstable,
        survivors=None,
        kl_per_unit=None,
        kl=None,
        distortion=None,
        learned_sigma2=None,
        learned_survivors=None,
        notes=tuple(notes),
    )


def score_eigenvalues(moments):
    """Eigenvalues of A^-1/2 S A^-1/2 with A = diag(p (1 - p)) and p the mean: what beta is held against, descending.

    Parameters
    ----------
    moments : Moments
        Of data in [0, 1]. Constant features are dropped.

    Returns
    -------
    (m,) ndarray
        m features that vary.

    Raises
    ------
    ValueError
        When the moments are not those of data in [0, 1], or nothing varies.

    See Also
    --------
    helpers.bernoulli.collapse_threshold : the first of them, from the data.
    """
    p, variances = instance("moments", moments, Moments).mean, moments.covariance.diagonal()
    varies = variances > 0
    if not varies.any():
        raise ValueError("moments has no feature that varies; expected at least one")
    p, S, A = p[varies], moments.covariance[np.ix_(varies, varies)], (moments.mean * (1 - moments.mean))[varies]
    if not ((p > 0) & (p < 1) & (variances[varies] <= A * (1 + 1e-9))).all():
        raise ValueError("moments has means or variances that no data in [0, 1] have; expected such data")
    scale = 1 / np.sqrt(A)
    return eigvalsh(S * np.outer(scale, scale))[::-1].clip(0.0)
