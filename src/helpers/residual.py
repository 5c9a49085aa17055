r"""The residual test: what further affine units would add to a trained VAE, and the surgery that adds them.

Serves chapter 12. Beside a trained encoder q(z | x) and decoder d(z), take further latents y with a q(y | x) of their
own, N(m(x), D), independent of z given x, and let the decoder be d(z) + W y. With the residual averaged over z,
r(x) = E_q[x - d(z)], the squared error changes by

    E |x - d(z) - W y|^2 - E |x - d(z)|^2 = E_x |r(x) - W m(x)|^2 + tr(W^T W D) - E_x |r(x)|^2,

in which z occurs through r(x) alone: this is a linear VAE on the data r(x). So its optimum is known (Theorem 7.1; the
whole is Theorem 12.3). The columns of W lie along eigenvectors u of the covariance of r, each with an eigenvalue
rho theta above theta, and are of length sqrt(rho theta - theta); the best mean is sqrt(rho theta - theta) / (rho theta)
times u^T (r(x) - E r), the best variance D = 1 / rho, and the value J = -E / (2 theta) - K rises by

    (1/2) sum of rho - 1 - log rho    over the rho > 1 that are used.

That is exact for every decoder, smooth or not, on the samples that r is averaged over; measured it is up to the error
of the draws of z. The encoder that attains it is affine in r(x), and no other does better; a network has to be large
enough to compute r(x) before it can have such a unit of its own. An encoder that has to be affine in x itself attains
the same sum with the covariance of the best affine prediction of r from x in place of that of r, and so no more. An
offset beside W y would add the square of the mean of r over 2 theta; it is no unit, and is left out.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from helpers import codes
from helpers._models import called, functions, posterior_of, reconstruction_of
from helpers._networks import as_like, expect, floats, is_tensor, library_of
from helpers._validation import finite_array, instance, integer, plain_array, positive, refuse_not_finite
from helpers.forecast import asked, kind

ROWS = 1024  # samples that are multiplied at a time
SPREAD = 1e-4  # p (1 - p), on average, below which a feature is left out of the scores


def gain(rho, units=None):
    """What further units add to J: (1/2) sum of rho - 1 - log rho over the largest `units` of those above 1, a float.

    Parameters
    ----------
    rho : (m,) array_like
        Eigenvalues of the residual covariance over theta, in any order.
    units : int, optional
        By default as many as pay.

    Examples
    --------
    >>> round(gain([4.0, 0.5]), 4), gain([1.0, 0.5])
    (0.8069, 0.0)
    """
    rho = np.sort(finite_array("rho", rho, ("m",)))[::-1]
    rho = rho[: rho.size if units is None else integer("units", units, 0, 2**31 - 1)]
    above = rho[rho > 1]
    return float((above - 1 - np.log(above)).sum() / 2)


def eigenpairs(first, second):
    """Eigenvalues and eigenvectors of the covariance of what two estimates with independent errors have in common.

    That is of the symmetric part of their cross-covariance, (1/N) sum of (a - mean a) (b - mean b)^T: what errs in one
    alone adds nothing to its expectation. Its eigenvalues can fall below 0, by what the errors leave of noise.

    Parameters
    ----------
    first, second : (N, n) array_like

    Returns
    -------
    values : (m,) ndarray
        Descending; m is n, or where that is less 2 N, the others being 0.
    vectors : (n, m) ndarray
        Orthonormal columns.

    Raises
    ------
    ValueError
        When the shapes differ, something is not finite, or the products exceed float64.
    """
    parts = []
    for name, value in (("first", first), ("second", second)):
        value = plain_array(name, value, "numbers (N, n)")
        expect(name, value, ("N", "n") if not parts else parts[0].shape)
        refuse_not_finite(name, value)
        parts.append(value)
    (first, second), (count, n) = parts, parts[0].shape
    centres = [part.mean(axis=0, dtype=np.float64) for part in parts]
    with np.errstate(over="ignore", invalid="ignore"):
        if 2 * count >= n:
            common, axes = np.zeros((n, n)), None
            for i in range(0, count, ROWS):
                a, b = (part[i : i + ROWS] - centre for part, centre in zip(parts, centres, strict=True))
                common += a.T @ b / count
        else:  # in the space that the samples span
            axes, coordinates = np.linalg.qr(np.vstack([first - centres[0], second - centres[1]]).T)
            common = coordinates[:, :count] @ coordinates[:, count:].T / count
    if not np.isfinite(common).all():
        raise ValueError("first times second exceeds float64: rescale the columns")
    values, vectors = eigh((common + common.T) / 2)
    values, vectors = values[::-1].copy(), vectors[:, ::-1]
    return values, vectors if axes is None else axes @ vectors


def rho_of(found, theta):
    """Eigenvalues of the covariance of the residual over theta, descending: those above 1 are units that would pay.

    Parameters
    ----------
    found : codes.Codes
        With residuals, of a Gaussian likelihood.
    theta : float

    Returns
    -------
    (m,) ndarray
    """
    theta = positive("theta", theta)
    with np.errstate(over="ignore"):
        return finite_array("rho", eigenpairs(*_residual(found))[0] / theta, ("m",))


def scores_rho(found, beta, seed=0):
    """The same for a Bernoulli likelihood, to second order in the further units: an approximation, cross-validated.

    A unit that adds W y to the logits changes the log likelihood by (x - p)^T W y - (W y)^T A (W y) / 2 and terms of
    third order, A = diag(p (1 - p)). With the average of A in its place that is the Gaussian case, with the scores
    A^-1/2 (x - p) for residuals and beta for theta. Their covariance is as large as its noise where the data are few,
    so each half of the samples is measured along the eigenvectors of the other.

    Parameters
    ----------
    found : codes.Codes
        With residuals, of a Bernoulli likelihood and at least 4 samples.
    beta : float
    seed : int
        Of the division into halves.

    Returns
    -------
    (m,) ndarray
        Descending.

    Raises
    ------
    ValueError
        When there are too few samples, or no residuals or no probabilities among the codes.
    """
    beta, residual = positive("beta", beta), _residual(found)
    if found.spread is None or found.count < 4:
        raise ValueError(f"found has {found.count} samples; expected at least 4, of a Bernoulli likelihood")
    used = found.spread > SPREAD
    if not used.any():
        raise ValueError("found has no feature whose reconstruction is in doubt; expected at least one")
    scores = residual[:, :, used] / np.sqrt(found.spread[used])
    order = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1)).permutation(found.count)
    halves, measured = (order[::2], order[1::2]), []
    for fit, judge in (halves, halves[::-1]):
        vectors = eigenpairs(*scores[:, fit])[1]
        first, second = ((part - part.mean(axis=0)) @ vectors for part in scores[:, judge].astype(np.float64))
        measured.append((first * second).mean(axis=0))
    m = min(map(len, measured))
    return np.sort((measured[0][:m] + measured[1][:m]) / (2 * beta))[::-1]


def _residual(found):
    if instance("found", found, codes.Codes).residual is None:
        raise ValueError("found has no residuals by two halves of the draws; expected two draws of z, or more")
    return found.residual


@dataclass(frozen=True, eq=False)
class Widened:
    """A model with further affine latents, the last ones: itself a model, with `encode` and `decode`.

    Attributes
    ----------
    model : object
        The model that was given, untouched.
    W : (n, units) ndarray
        The decoder adds W y for the further latents y. A column that would not pay is 0.
    V : (units, n) ndarray
        The mean of y is V (r(x) - centre).
    D : (units,) ndarray
        Its variances.
    centre : (n,) ndarray
        Average of r(x).
    rho : (units,) ndarray
        Eigenvalues of the covariance of r(x) over theta, the largest.
    gain : float
        Predicted: what the further latents add to J.
    shape, latents : tuple of int
        Of a sample, and of the model's own latents.
    pairs, seed : int
        Pairs of draws of z by which r(x) is averaged, and their seed.
    """

    model: object
    W: np.ndarray
    V: np.ndarray
    D: np.ndarray
    centre: np.ndarray
    rho: np.ndarray
    gain: float
    shape: tuple
    latents: tuple
    pairs: int
    seed: int

    def encode(self, x):
        """Mean and log variance of q(z, y | x) for `x` (B, ...), (B, k + units) each."""
        x = floats("x", x, ("B", *self.shape))
        encode, decode = functions(self.model)
        mean, logvar = posterior_of(called("encode", encode, x), x)
        library, total = library_of(x, self.seed), 0.0
        deviation = library.exp(logvar / 2)
        for _ in range(self.pairs):
            noise = deviation * library.normal(mean.shape)
            for z in (mean + noise, mean - noise):
                total = total + reconstruction_of(called("decode", decode, z), x)
        r = (x - total / (2 * self.pairs)).reshape(len(x), -1)
        y = (r - as_like(self.centre, r)) @ as_like(self.V.T, r)
        flat = mean.reshape(len(x), -1)
        y, width = as_like(y, flat), as_like(np.log(self.D), flat)
        return _beside(flat, y), _beside(logvar.reshape(len(x), -1), 0 * y + width)

    def decode(self, z):
        """Mean of p(x | z, y), (B, ...), for both latents side by side, `z` (B, k + units)."""
        k = math.prod(self.latents)
        z = floats("z", z, ("B", k + len(self.D)))
        decode = functions(self.model)[1]
        output = called("decode", decode, z[:, :k].reshape(len(z), *self.latents))
        more = (z[:, k:] @ as_like(self.W.T, z)).reshape(len(z), *self.shape)
        return reconstruction_of(output, more) + more


def _beside(left, right):
    if not is_tensor(left):
        return np.concatenate([left, right], axis=1)
    import torch

    return torch.cat([left, right], dim=1)


def with_linear_units(model, loader, objective, units, sigma2=None, batch=None, pairs=16, seed=0):
    """The surgery: the model with further affine latents, the best there are for this encoder and decoder.

    Parameters
    ----------
    model, loader
        As for `codes.measure`.
    objective : Objective or str
        Of a Gaussian likelihood.
    units : int
        Further latents, 1 to n.
    sigma2 : float or (n,) array_like, optional
        As for `forecast.asked`.
    batch : int, optional
        Samples of a minibatch, where the loss depends on it.
    pairs : int
        Pairs of draws of z by which the residual is averaged, in each half and in the encoder that comes back. The
        draws cost the encoder some of its gain, the less the more there are.
    seed : int

    Returns
    -------
    Widened

    Raises
    ------
    ValueError
        When the likelihood is not Gaussian, or an argument is not what is expected.

    See Also
    --------
    helpers.diagnose.diagnose : whether it would pay.
    """
    widths = kind(objective, batch, sigma2).sigma2
    found = codes.measure(model, loader, "gaussian", pairs, seed, widths)
    objective, theta = asked(objective, found.x.shape[1], found.mean.shape[1], batch, sigma2)
    if theta is None:
        raise ValueError(f"objective is of a {objective.likelihood} likelihood; expected a gaussian one")
    units = integer("units", units, 1, found.x.shape[1])
    values, vectors = eigenpairs(*found.residual)
    values, vectors = values[:units], vectors[:, :units]
    kept = np.maximum(values, theta)
    W = vectors * np.sqrt(kept - theta)
    unit = np.sqrt(objective.sigma2) if objective.sigma2 else np.ones(len(W))  # in which the codes are
    return Widened(
        model=model,
        W=W * unit[:, None],
        V=W.T / kept[:, None] / unit,
        D=theta / kept,
        centre=found.residual.mean(axis=(0, 1), dtype=np.float64) * unit,
        rho=values / theta,
        gain=gain(values / theta),
        shape=found.shape,
        latents=found.latents,
        pairs=pairs,
        seed=seed + 1,
    )
