"""Posterior collapse measured, on any VAE's encoder outputs (paper, section 2; Figures 4 and 5; Table 1).

Each function takes NumPy arrays or torch tensors, on any device, and returns NumPy in float64. The units are
the k latents; KL divergences are from q(z_i | x) to the prior N(0, 1), in nats. Where log variances are asked for,
standard deviations cannot be told from them: pass ``2 * log(sd)``. Serves chapters 00 and 07 to 11.
"""

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers._networks import (
    batch_of,
    expect,
    is_module,
    is_tensor,
    library_of,
    output_of,
    refuse_not_floating,
    undisturbed,
    wide,
)
from helpers._validation import brief, finite_array, integer, plain_array, positive, refuse_not_finite

DELTA, ACTIVE = 0.01, 0.01  # the share of the samples, and the variance of the mean, that collapse is judged by
BLOCK = 1024  # samples taken at a time, so that no array grows with N times the draws
ROUNDING = 1e-6  # nats by which rounding may change a log density before it is computed again, the slow and safe way


class UnitStatistics(NamedTuple):
    """What the encoder does with each unit, averaged over N samples.

    Attributes
    ----------
    kl_per_unit : (k,) ndarray
        That of the function of this name, in nats.
    variance_of_mean : (k,) ndarray
        Of the encoder's mean over the samples, 1/N: what `active_units` goes by.
    second_moment : (k,) ndarray
        Average of m^2 + s^2, the mean square of z. It is 1 for every unit of a VAE trained to convergence, if its
        encoder's output and its decoder's first layer are affine.
    quantile : (k,) ndarray
        Where (epsilon, delta)-collapse begins, in nats: a unit has collapsed, by `epsilon_delta`, at every epsilon
        above it and at none up to and including it.
    """

    kl_per_unit: np.ndarray
    variance_of_mean: np.ndarray
    second_moment: np.ndarray
    quantile: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found. Everything is an average over the samples, in nats where it is not squared error.

    Attributes
    ----------
    elbo : float
        -(n/2) log(2 pi sigma2) - sse / (2 sigma2) - kl (Eq. 4, Gaussian observations).
    sse : float
        E_q |x - decode(z)|^2.
    kl : float
        Sum of `kl_per_unit`.
    sigma2 : float
        The noise variance that was given.
    tuned_elbo, tuned_sigma2 : float
        tuned_sigma2 = sse / n maximises the ELBO with the rest held, and tuned_elbo is that maximum: Table 1's column
        of this name.
    mutual_information : float
        That of the function of this name; at most log(count), see `saturated`.
    active_units : int
        Counted at a variance above 0.01.
    count : int
        Samples.
    kl_per_unit, variance_of_mean, second_moment, quantile : (k,) ndarray
        As in `UnitStatistics`, at delta = 0.01.
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

    @property
    def saturated(self):
        """Whether `mutual_information` is within 1% of log(count), and so only says how many samples there were."""
        return bool(self.mutual_information > 0.99 * math.log(self.count))


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

    Raises
    ------
    ValueError
        When the shapes differ, or a KL would exceed float64.
    """
    mean = finite_array("mean", mean, ("N", "k"))
    logvar = finite_array("logvar", logvar, mean.shape)
    with np.errstate(over="ignore"):  # reported below, by name
        # expm1 keeps the digits of var - 1 when a unit has all but collapsed.
        kl = (mean**2 + np.expm1(logvar) - logvar) / 2
    if not np.isfinite(kl).all():
        raise ValueError(
            f"mean is up to {np.abs(mean).max():.3g} and logvar up to {logvar.max():.3g}; expected a KL within float64"
        )
    return kl


def kl_per_unit(mean, logvar):
    """Average over the samples of `kl_samples`: one KL per unit.

    Parameters
    ----------
    mean, logvar : (N, k) array_like
        Means and log variances of q(z | x).

    Returns
    -------
    (k,) ndarray
        In nats.

    See Also
    --------
    helpers.spectrum.kl : what linear theory predicts.

    Examples
    --------
    >>> kl_per_unit(mean=[[1.0, 0.0], [-1.0, 0.0]], logvar=[[0.0, 0.0], [0.0, 0.0]]).round(4).tolist()
    [0.5, 0.0]
    """
    return kl_samples(mean, logvar).mean(axis=0)


def active_units(mean, threshold=ACTIVE):
    """Number of units whose encoder mean varies over the data by more than `threshold` (Burda et al., 2016).

    Parameters
    ----------
    mean : (N, k) array_like
        Means of q(z | x), N at least 2.
    threshold : float
        On the variance (1/N) of the mean, which the prior's variance of 1 sets the scale of.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        When there are fewer than two samples, or the squares exceed float64.

    Examples
    --------
    >>> active_units([[1.0, 0.01], [-1.0, 0.02]])  # variances 1 and 0.000025
    1
    """
    mean = finite_array("mean", mean, ("N", "k"))
    if len(mean) < 2:
        raise ValueError(f"mean has shape {mean.shape}; expected at least 2 samples, to have a variance")
    with np.errstate(over="ignore", invalid="ignore"):
        variance = mean.var(axis=0)
    if not np.isfinite(variance).all():
        raise ValueError(f"mean is up to {np.abs(mean).max():.3g}; expected variances within float64")
    return int((variance > positive("threshold", threshold)).sum())


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

    Examples
    --------
    >>> inactive_fraction(kl=[2.0, 0.5, 0.001, 0.0], thresholds=[0.01, 1.0]).tolist()
    [0.5, 0.75]
    """
    kl, thresholds = finite_array("kl", kl, ("k",)), finite_array("thresholds", thresholds, ("T",))
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

    See Also
    --------
    unit_statistics : gives the least epsilon of every unit.
    helpers.spectrum.epsilon_delta_threshold : that of the linear optimum.

    Examples
    --------
    >>> samples = [[0.0, 3.0], [0.001, 0.0], [0.0, 0.0], [0.002, 0.0]]
    >>> epsilon_delta(samples, epsilon=0.01, delta=0.0).tolist()  # every sample has to say nothing
    [True, False]
    >>> epsilon_delta(samples, epsilon=0.01, delta=0.25).tolist()  # one in four may speak
    [True, True]
    """
    kl = finite_array("kl_samples", kl_samples, ("N", "k"))
    return (kl >= positive("epsilon", epsilon)).sum(axis=0) <= _may_exceed(delta, len(kl))


def _may_exceed(delta, count):
    """How many of `count` samples may reach epsilon, in whole samples."""
    delta = float(finite_array("delta", delta, ()))
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability from 0 to below 1")
    return int(np.floor(delta * count + 1e-9))


def _encoder_outputs(mean, logvar):
    """Both on the host in their own precision, as a float64 copy of (60000, 200) takes 100 MB; checked."""
    outputs = []
    for name, value in (("mean", mean), ("logvar", logvar)):
        shape = outputs[0].shape if outputs else ("N", "k")
        value = plain_array(name, value, f"numbers of shape ({', '.join(map(str, shape))})")
        expect(name, value, shape)
        refuse_not_finite(name, value)
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

    Returns
    -------
    UnitStatistics
    """
    mean, logvar = _encoder_outputs(mean, logvar)
    count, k = mean.shape
    rank = count - 1 - _may_exceed(delta, count)  # all samples above this one may reach epsilon, itself may not
    columns = []
    for i in range(0, k, 16):
        m, l = (part[:, i : i + 16].astype(np.float64) for part in (mean, logvar))
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

    Raises
    ------
    ValueError
        When the shapes differ, or the squares would exceed float64.
    """
    mean, logvar = _encoder_outputs(mean, logvar)
    count, k = mean.shape
    samples = integer("samples", samples, 1, 2**31 - 1)
    rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
    drawn = np.resize(rng.permutation(count), samples)
    noise = rng.standard_normal((samples, k))
    # An affine change of z changes nothing. This one brings the many near 0 and 1, whatever the few are, so that the
    # products below lose few digits.
    own_m, own_l = (part[drawn].astype(np.float64) for part in (mean, logvar))
    centre, width = np.median(own_m, axis=0), np.median(own_l, axis=0)
    own_l -= width
    own = -(noise**2 + own_l).sum(axis=1) / 2  # log q(z | x), without the (2 pi)^(-k/2) that cancels
    log_sum = np.full(samples, -np.inf)
    step = max(1, min(BLOCK, BLOCK**2 // samples))
    with np.errstate(over="ignore", invalid="ignore"):
        own_m = (own_m - centre) * np.exp(-width / 2)
        z = own_m + np.exp(own_l / 2) * noise
        for i in range(0, count, step):
            m = (mean[i : i + step].astype(np.float64) - centre) * np.exp(-width / 2)
            l = logvar[i : i + step] - width
            precision = np.exp(-l)
            sizes = z**2 @ precision.T  # (samples, step), like log_q, which is log q(z | x_j)
            sizes += (m**2 * precision).sum(axis=1)
            log_q = z @ (2 * m * precision).T
            log_q -= sizes
            log_q -= l.sum(axis=1)
            log_q /= 2
            here = np.flatnonzero((drawn >= i) & (drawn < i + step))
            log_q[here, drawn[here] - i] = own[here]  # with the very same number, no draw gives more than log N
            sizes *= 2 * k * np.finfo(float).eps  # a bound on what rounding does to log_q
            if not sizes.max() < ROUNDING:  # or NaN
                unsure = ~((sizes < ROUNDING) | (log_q + sizes < own[:, None] - 50))  # e^-50 does not count
                unsure[here, drawn[here] - i] = False
                for s, j in _in_blocks(*np.nonzero(unsure)):
                    # From the differences of the means, which are exact where they matter most.
                    apart, own_logvar = (part[drawn[s]].astype(np.float64) for part in (mean, logvar))
                    apart -= mean[i + j]
                    ratio = np.exp((own_logvar - logvar[i + j]) / 2)
                    away = (apart + np.exp(own_logvar / 2) * noise[s]) * np.exp(-logvar[i + j].astype(np.float64) / 2)
                    deviations = np.where(apart == 0, ratio * noise[s], away)
                    log_q[s, j] = -(deviations**2 + l[j]).sum(axis=1) / 2
            top = log_q.max(axis=1)
            log_q -= top[:, None]
            log_sum = np.logaddexp(log_sum, top + np.log(np.exp(log_q, out=log_q).sum(axis=1)))
    result = (own - log_sum).mean() + math.log(count)
    # Above log N no draw can come; and as (1/N) sum_j q(z | x_j) / q(z | x) averages to at most 1, the sum over the
    # draws lies below -40 with a probability of at most e^-40.
    if not -40 / samples <= result <= math.log(count) + 1e-9:
        raise ValueError(
            f"mean is up to {np.abs(mean).max():.3g} and logvar from {logvar.min():.3g} to {logvar.max():.3g}; "
            "expected densities within float64"
        )
    return float(result)


def _in_blocks(*arrays):
    for i in range(0, len(arrays[0]), BLOCK):
        yield [array[i : i + BLOCK] for array in arrays]


def evaluate(batches, encode, decode, sigma2, samples=16, seed=0, model=None):
    """The ELBO of a Gaussian VAE over a whole data set, its tuned ELBO, and every measure of collapse here.

    The networks run in their own precision, without gradients and on the device of the batches; every sum over
    samples, pixels and draws is in float64. Torch and NumPy, a device, and the size of the batches each have noise
    of their own, so `sse` and what comes of it differ between them by the error of a Monte-Carlo estimate.

    Torch modules are put into evaluation mode, without dropout and with BatchNorm's running statistics, and left as
    they were found: the mode of every submodule, the buffers, and the global random state of torch and NumPy. Those
    of `model`, and those found where `encode` and `decode` come from: a module or its bound method, a partial, or a
    function that names a module, by itself or in what it calls. A module that they reach some other way, say through
    a registry, is run as it is: pass it as `model`.

    Parameters
    ----------
    batches : iterable of (B, ...) arrays or tensors, or of pairs or longer tuples that begin with one
        The data, in the units the networks take; labels and what else follows in a tuple are ignored. uint8 is used
        as x / 255, as `train` does. B may differ between batches; n is the size of the rest.
    encode : callable
        x (B, ...) to the mean and log variance of q(z | x), a pair of (B, k). Latent maps (B, ...) count as k units,
        one for each entry.
    decode : callable
        z, of the shape of the mean, to the mean of p(x | z), in the shape of x.
    sigma2 : float
        Variance of the observation noise, above 0.
    samples : int
        Draws of z for each x.
    seed : int
    model : torch.nn.Module, optional
        To put into evaluation mode, where it cannot be found.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        When there are no batches, a batch or an output is not what is expected, or has NaN or infinity; the message
        says which, and in which row.

    See Also
    --------
    kl_per_unit, active_units, mutual_information : its parts.

    Examples
    --------
    A VAE whose only unit has collapsed, on data of variance 1: the noise explains everything.

    >>> x = np.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> found = evaluate([x], lambda x: (x[:, :1] * 0, x[:, :1] * 0), lambda z: z[:, [0, 0]] * 0, sigma2=1.0)
    >>> round(found.elbo, 4), found.kl, found.active_units, round(found.tuned_sigma2, 4)
    (-2.8379, 0.0, 0, 1.0)
    """
    sigma2 = positive("sigma2", sigma2)
    samples, seed = integer("samples", samples, 1, 2**31 - 1), integer("seed", seed, 0, 2**63 - 1)
    for name, function in (("encode", encode), ("decode", decode)):
        if not callable(function):
            raise ValueError(f"{name} is {brief(function)}; expected a function")
    if model is not None and not is_module(model):
        raise ValueError(f"model is {brief(model)}; expected a torch.nn.Module")
    if hasattr(batches, "shape") or isinstance(batches, (str, bytes, dict)) or not hasattr(batches, "__iter__"):
        kind = f"a {type(batches).__name__}, {brief(batches)}"
        raise ValueError(f"batches is {kind}; expected an iterable of batches: x.split(500), np.array_split(x, 9), [x]")
    with undisturbed([encode, decode, model], seed):
        return _evaluate(batches, encode, decode, sigma2, samples, seed)


def _evaluate(batches, encode, decode, sigma2, samples, seed):
    means, logvars, shape, count, squares = [], [], None, 0, 0.0
    for batch in batches:
        x = batch_of(batch)
        if shape is None:
            shape, library = x.shape[1:], library_of(x, seed)
        if is_tensor(x) != library.tensors:
            raise ValueError(f"a batch is a {type(x).__name__} and the first was not; expected all of one library")
        expect("a batch", x, ("B", *shape))
        mean, logvar = _pair(encode(x), x)
        expect("encode's mean", mean, (len(x), *(means[0].shape[1:] if means else ("k",) * max(1, mean.ndim - 1))))
        expect("encode's logvar", logvar, mean.shape)
        deviation, error = library.exp(logvar / 2), 0.0
        for _ in range(samples):
            output = output_of("decode's output", decode(mean + deviation * library.normal(mean.shape)), x)
            expect("decode's output", output, x.shape)
            error = error + _sum(wide(x) - wide(output))  # stays on the device
        if not math.isfinite(error := float(error)):
            for name, value in (("a batch", x), ("encode's mean", mean), ("encode's logvar", logvar)):
                refuse_not_finite(name, plain_array(name, value), first_row=count)
            wrong = f"in the batch of the rows from {count} on"
            raise ValueError(
                f"decode's output contains NaN or infinity, or is too far from x, {wrong}; expected finite"
            )
        squares += error
        count += len(x)
        means.append(mean)
        logvars.append(logvar)
    if not means:
        raise ValueError("batches is empty; expected at least one batch (B, ...)")
    means = np.concatenate([plain_array("encode's mean", mean) for mean in means]).reshape(count, -1)
    logvars = np.concatenate([plain_array("encode's logvar", logvar) for logvar in logvars]).reshape(count, -1)
    for name, value in (("encode's mean", means), ("encode's logvar", logvars)):
        refuse_not_finite(name, value)
    units = unit_statistics(means, logvars)
    n, sse, kl = math.prod(shape), squares / (samples * count), float(units.kl_per_unit.sum())
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


def _pair(outputs, x):
    """Mean and log variance, from what `encode` returned for x."""
    if not isinstance(outputs, (tuple, list)) or len(outputs) != 2:
        had = f"a {type(outputs).__name__}"
        had += f" of {len(outputs)}" if isinstance(outputs, (tuple, list)) else ""
        keys = outputs if isinstance(outputs, dict) else getattr(outputs, "__dict__", ())
        had += f" with {', '.join(map(str, keys))}" if keys and not hasattr(outputs, "shape") else ""
        remedy = (
            "lambda x: net(x)[:2]" if isinstance(outputs, (tuple, list)) else "lambda x: (net(x).mean, net(x).logvar)"
        )
        raise ValueError(f"encode returned {had}; expected a pair, the mean and the log variance, say {remedy}")
    outputs = [
        output_of(name, value, x) for name, value in zip(("encode's mean", "encode's logvar"), outputs, strict=True)
    ]
    for name, value in zip(("encode's mean", "encode's logvar"), outputs, strict=True):
        refuse_not_floating(name, value, "floating point")
    return outputs


def _sum(difference):
    """The sum of squares, in float64: on the device where it has that."""
    squares = difference**2
    if not is_tensor(squares):
        return squares.sum(dtype=np.float64)
    float64 = sys.modules["torch"].float64
    try:
        return squares.sum(dtype=float64)
    except (TypeError, RuntimeError):  # Apple's GPUs have no float64
        return squares.cpu().sum(dtype=float64)
