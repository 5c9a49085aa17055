"""Measures of posterior collapse, for any VAE's encoder outputs (paper, section 2; Figures 4 and 5; Table 1).

Each function takes NumPy arrays or torch tensors, on any device, and returns NumPy in float64. The units are
the k latents; KL divergences are from q(z_i | x) to the prior N(0, 1), in nats. Serves chapter 00 onwards.
"""

import contextlib
import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from helpers._validation import finite_array, integer, positive

DELTA, ACTIVE = 0.01, 0.01  # the share of the samples, and the variance of the mean, that collapse is judged by
BLOCK = 1024  # samples taken at a time, so that no array grows with N times the draws


class UnitStatistics(NamedTuple):
    """What the encoder does with each unit, averaged over N samples: four arrays (k,), in float64.

    `kl_per_unit` and `variance_of_mean` (1/N) are those of the functions of these names. `second_moment` is the
    average of m^2 + s^2, the mean square of z; it is 1 for every unit of a VAE trained to convergence, if its
    encoder's output and its decoder's first layer are affine. `quantile` is where (epsilon, delta)-collapse
    begins: a unit has collapsed, by `epsilon_delta`, at every epsilon above it and at none up to and including it.
    """

    kl_per_unit: np.ndarray
    variance_of_mean: np.ndarray
    second_moment: np.ndarray
    quantile: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found. Everything is an average over the `count` samples, in nats where it is not squared error.

    `elbo` is -(n/2) log(2 pi sigma2) - sse / (2 sigma2) - kl (Eq. 4, Gaussian observations), where `sse` is
    E_q |x - decode(z)|^2 and `kl` the sum of `kl_per_unit`. `tuned_sigma2` = sse / n maximises it with the rest
    held, and `tuned_elbo` is that maximum: Table 1's column of this name. The four arrays (k,) are those of
    `UnitStatistics`, at delta = 0.01; `active_units` are counted at a variance above 0.01.
    """

    elbo: float
    sse: float
    kl: float
    sigma2: float
    tuned_elbo: float
    tuned_sigma2: float
    mutual_information: float
    active_units: int
    count: int
    kl_per_unit: np.ndarray
    variance_of_mean: np.ndarray
    second_moment: np.ndarray
    quantile: np.ndarray


def _array(name, value, shape):
    if _is_tensor(value):
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


def active_units(mean, threshold=ACTIVE):
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


def epsilon_delta(kl_samples, epsilon, delta=DELTA):
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
    return (kl >= positive("epsilon", epsilon)).sum(axis=0) <= _may_exceed(delta, len(kl))


def _may_exceed(delta, count):
    """How many of `count` samples may reach epsilon, in whole samples."""
    delta = float(finite_array("delta", delta, ()))
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability from 0 to below 1")
    return int(np.floor(delta * count + 1e-9))


def _encoder_outputs(mean, logvar):
    """Both on the host in their own precision, as a float64 copy of (60000, 200) takes 100 MB; shapes checked."""
    outputs = []
    for name, value in (("mean", mean), ("logvar", logvar)):
        if _is_tensor(value):
            value = value.detach().cpu()
        elif not isinstance(value, np.ndarray):
            value = _array(name, value, ("N", "k"))
        _expect(name, value, outputs[0].shape if outputs else ("N", "k"))
        outputs.append(value)
    return outputs


def unit_statistics(mean, logvar, delta=DELTA):
    """KL, variance of the mean, mean square of z, and least epsilon of every unit: `UnitStatistics`.

    Parameters
    ----------
    mean, logvar : (N, k) array_like
        Means and log variances of q(z | x) over the data.
    delta : float
        From 0 to below 1: the share of the samples whose KL may reach epsilon.
    """
    mean, logvar = _encoder_outputs(mean, logvar)
    count, k = mean.shape
    rank = count - 1 - _may_exceed(delta, count)  # all samples above this one may reach epsilon, itself may not
    columns = []
    for i in range(0, k, 16):
        m = _array("mean", mean[:, i : i + 16], ("N", "k"))
        l = _array("logvar", logvar[:, i : i + 16], ("N", "k"))
        kl = kl_samples(m, l)
        second_moment = (m**2 + np.exp(l)).mean(axis=0)
        quantile = np.partition(np.ascontiguousarray(kl.T), rank)[:, rank]
        columns.append([kl.mean(axis=0), m.var(axis=0), second_moment, quantile])
    return UnitStatistics(*np.hstack(columns))


def mutual_information(mean, logvar, samples=1024, seed=0):
    """Mutual information of x and z under the encoder, in nats, with x uniform on the N samples given; a float.

    The average of log q(z | x) - log (1/N) sum_j q(z | x_j) over draws of x and then z: a Monte-Carlo estimate,
    whose expectation lies below the sum of `kl_per_unit` by the KL from the aggregate (1/N) sum_j q(z | x_j) to
    the prior. N samples have an entropy of log N, so it is at most log N. That is a property of a finite data
    set and no artefact: once z tells every sample from all others, there is no more to know. For one unit, which
    rarely does, pass ``mean[:, [i]]`` and ``logvar[:, [i]]``.

    Parameters
    ----------
    mean, logvar : (N, k) array_like
        Means and log variances of q(z | x).
    samples : int
        Draws of (x, z). Every x is drawn once before any is drawn again.
    seed : int
    """
    mean, logvar = _encoder_outputs(mean, logvar)
    count, k = mean.shape
    samples = integer("samples", samples, 1, 2**31 - 1)
    rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
    drawn = np.resize(rng.permutation(count), samples)
    noise = rng.standard_normal((samples, k))
    l = _array("logvar", logvar[drawn], ("N", "k"))
    own = -(noise**2 + l).sum(axis=1) / 2  # log q(z | x), without the (2 pi)^(-k/2) that cancels
    with np.errstate(over="ignore", invalid="ignore"):
        z = _array("mean", mean[drawn], ("N", "k")) + np.exp(l / 2) * noise
        centre = z.mean(axis=0)  # nearer to 0, the squares below lose fewer digits
        z -= centre
        powers = np.hstack([z**2, z])
        log_sum = np.full(samples, -np.inf)
        step = max(1, min(BLOCK, BLOCK**2 // samples))
        for i in range(0, count, step):
            m = _array("mean", mean[i : i + step], ("N", "k")) - centre
            l = _array("logvar", logvar[i : i + step], ("N", "k"))
            precision = np.exp(-l)
            log_q = powers @ np.hstack([precision, -2 * m * precision]).T  # (samples, step): log q(z | x_j)
            log_q += (m**2 * precision + l).sum(axis=1)
            log_q /= -2
            here = np.flatnonzero((drawn >= i) & (drawn < i + step))
            log_q[here, drawn[here] - i] = own[here]  # with the very same number, no draw gives more than log N
            top = log_q.max(axis=1)
            log_q -= top[:, None]
            log_sum = np.logaddexp(log_sum, top + np.log(np.exp(log_q, out=log_q).sum(axis=1)))
    result = (own - log_sum).mean() + np.log(count)
    if not np.isfinite(result):
        raise ValueError("mean and logvar give densities beyond float64; expected variances within its range")
    return float(result)


def evaluate(batches, encode, decode, sigma2, samples=16, seed=0):
    """The ELBO of a Gaussian VAE over a whole data set, its tuned ELBO, and every measure of collapse here.

    The networks run in their own precision, without gradients and on the device of the batches; every sum over
    samples, pixels and draws is in float64. Torch and NumPy, a device, and the size of the batches each have noise
    of their own, so `sse` and what comes of it differ between them by the error of a Monte-Carlo estimate.

    Parameters
    ----------
    batches : iterable of (B, ...) arrays or tensors
        The data, in the units the networks take. B may differ between batches; n is the size of the rest.
    encode : callable
        x (B, ...) to the mean and log variance of q(z | x), each (B, k).
    decode : callable
        z (B, k) to the mean of p(x | z), in the shape of x.
    sigma2 : float
        Variance of the observation noise, above 0.
    samples : int
        Draws of z for each x.
    seed : int

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        When there are no batches, a shape does not fit, or a batch or an output has NaN or infinity.
    """
    sigma2 = positive("sigma2", sigma2)
    samples, seed = integer("samples", samples, 1, 2**31 - 1), integer("seed", seed, 0, 2**63 - 1)
    batches = iter(batches)
    x = next(batches, None)
    if x is None:
        raise ValueError("batches is empty; expected at least one batch (B, ...)")
    if len(getattr(x, "shape", ())) < 2:
        raise ValueError(f"a batch is {x!r:.80}; expected an array or a tensor (B, ...)")
    exp, normal, concatenate, float64, no_grad = _functions(x, seed)
    means, logvars, sums, shape = [], [], {}, x.shape[1:]

    def add(name, value):
        sums[name] = sums.get(name, 0.0) + value.sum(dtype=float64)  # stays on the device

    with no_grad:
        while x is not None:
            _expect("a batch", x, ("B", *shape))
            mean, logvar = encode(x)
            _expect("encode's mean", mean, (len(x), means[0].shape[1] if means else "k"))
            _expect("encode's logvar", logvar, mean.shape)
            add("a batch", x)
            add("encode's mean", mean)
            add("encode's logvar", logvar)
            deviation = exp(logvar / 2)
            for _ in range(samples):
                output = decode(mean + deviation * normal(mean.shape))
                _expect("decode's output", output, x.shape)
                add("decode's output", (x - output) ** 2)
            means.append(mean)
            logvars.append(logvar)
            x = next(batches, None)
    sums = {name: float(value) for name, value in sums.items()}
    for name, value in sums.items():  # in the order in which one spoils the next
        if not math.isfinite(value):
            raise ValueError(f"{name} contains NaN or infinity; expected finite numbers")
    means, logvars = _encoder_outputs(concatenate(means), concatenate(logvars))
    units = unit_statistics(means, logvars)
    n, count = math.prod(shape), len(means)
    sse, kl = sums["decode's output"] / (samples * count), float(units.kl_per_unit.sum())
    return Evaluation(
        elbo=-(n * math.log(2 * math.pi * sigma2) + sse / sigma2) / 2 - kl,
        sse=sse,
        kl=kl,
        sigma2=sigma2,
        tuned_elbo=-n * (math.log(2 * math.pi * sse / n) + 1) / 2 - kl if sse > 0 else math.inf,
        tuned_sigma2=sse / n,
        mutual_information=mutual_information(means, logvars, seed=seed),
        active_units=int((units.variance_of_mean > ACTIVE).sum()),
        count=count,
        **units._asdict(),
    )


def _is_tensor(value):
    return hasattr(value, "detach")  # without importing torch


def _functions(x, seed):
    """What `evaluate` needs of x's own library: exp, noise, concatenate, float64, a context without gradients."""
    if not _is_tensor(x):
        normal = partial(np.random.default_rng(seed).standard_normal, dtype=np.float32)
        return np.exp, normal, np.concatenate, np.float64, contextlib.nullcontext()
    import torch

    generator = torch.Generator(x.device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=x.dtype, device=x.device)
    return torch.exp, normal, torch.cat, torch.float64, torch.no_grad()


def _expect(name, value, shape):
    """Raise ``ValueError`` unless `value` has this shape, where a str stands for any length above 0."""
    have, shape = tuple(value.shape), tuple(shape)
    fits = len(have) == len(shape) and all(
        h > 0 if isinstance(s, str) else h == s for h, s in zip(have, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {have}; expected ({', '.join(map(str, shape))})")
