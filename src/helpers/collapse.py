"""Measures of posterior collapse, for any VAE's encoder outputs (paper, section 2; Figures 4 and 5).

Each function takes NumPy arrays or torch tensors, on any device, and returns NumPy in float64. The units are
the k latents; KL divergences are from q(z_i | x) to the prior N(0, 1), in nats. Serves chapter 00 onwards.
"""

import numpy as np

from helpers._validation import finite_array, positive


def _array(name, value, shape):
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu().double().numpy()
    return finite_array(name, value, shape)


def kl_samples(mean, logvar):
    """KL(q(z_i | x) || N(0, 1)) of every sample and unit (Eq. 15, one term).

    Parameters
    ----------
    mean, logvar : (N, k) array_like
        Means and log variances of a diagonal Gaussian q(z | x).

    Returns
    -------
    (N, k) ndarray
        In nats, never negative.
    """
    mean = _array("mean", mean, ("N", "k"))
    logvar = _array("logvar", logvar, mean.shape)
    # expm1 keeps the digits of var - 1 when a unit has all but collapsed.
    return (mean**2 + np.expm1(logvar) - logvar) / 2


def kl_per_unit(mean, logvar):
    """Average over the samples of `kl_samples`: one KL per unit, in nats, (k,)."""
    return kl_samples(mean, logvar).mean(axis=0)


def active_units(mean, threshold=0.01):
    """Number of units whose encoder mean varies over the data by more than `threshold` (Burda et al., 2016).

    Parameters
    ----------
    mean : (N, k) array_like
        Means of q(z | x), N at least 2.
    threshold : float
        On the variance (1/N) of the mean, which the prior's variance of 1 sets the scale of.
    """
    mean = _array("mean", mean, ("N", "k"))
    if len(mean) < 2:
        raise ValueError(f"mean has shape {mean.shape}; expected at least 2 samples, to have a variance")
    return int((mean.var(axis=0) > positive("threshold", threshold)).sum())


def inactive_fraction(kl, thresholds):
    """Share of units whose average KL is below each threshold: the curves of Figures 4 and 5.

    Parameters
    ----------
    kl : (k,) array_like
        Average KL per unit, in nats.
    thresholds : (T,) array_like
        In nats.

    Returns
    -------
    (T,) ndarray
        Between 0 and 1.
    """
    kl, thresholds = _array("kl", kl, ("k",)), _array("thresholds", thresholds, ("T",))
    return np.searchsorted(np.sort(kl), thresholds, side="left") / kl.size


def epsilon_delta(kl_samples, epsilon, delta=0.01):
    """Which units have (epsilon, delta)-collapsed: P(KL(q(z_i | x) || p(z_i)) < epsilon) >= 1 - delta.

    Parameters
    ----------
    kl_samples : (N, k) array_like
        KL of every sample and unit, in nats; the probability is over the samples.
    epsilon : float
        In nats, above 0.
    delta : float
        From 0 (every sample) to below 1.

    Returns
    -------
    (k,) ndarray of bool
    """
    kl = _array("kl_samples", kl_samples, ("N", "k"))
    delta = float(finite_array("delta", delta, ()))
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability from 0 to below 1")
    allowed = int(np.floor(delta * len(kl) + 1e-9))  # samples that may exceed epsilon, in whole samples
    return (kl >= positive("epsilon", epsilon)).sum(axis=0) <= allowed
