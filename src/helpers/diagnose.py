"""Is a VAE collapsing, and why: what its loss asks for beside what the network did, and a verdict.

Serves chapter 12. With E the expected squared error, K the KL divergence and theta that of the loss, the value of a
network is J = -E / (2 theta) - K, in nats (`forecast.J`). Three statements are exact, for every network:

- lambda_1 < theta makes complete collapse a strict local maximum (`forecast`), not more than a local one.
- The best linear VAE has the J of the forecast. A network that contains the linear maps and has less is not at its
  best, whatever its units do.
- Further units, affine in what is left over, gain what `residual` says. A network that they would raise is not at the
  best of the networks that have them.

Linear is the rest of the forecast. What is a rule of thumb is called so.
"""

import math
import runpy
from dataclasses import replace

import numpy as np

from helpers import codes, collapse
from helpers._networks import expect
from helpers._validation import brief, instance
from helpers.forecast import J, asked, forecast, kind
from helpers.moments import Moments, covariance_eigenvalues
from helpers.residual import eigenpairs, gain, rho_of, scores_rho, with_linear_units  # noqa: F401, that all is at hand here
from helpers.verdict import NATS, Diagnosis, judged

USED = 0.01  # share of all use above which a unit is used, where no theta is known
TINY = 1e-10  # of the largest eigenvalue, what counts as no variance
NEAR = 0.1  # share of the free bits within which a unit is parked at them


def diagnose(model, loader, objective, held_out=None, sigma2=None, batch=None, pairs=4, seed=0):
    """What a trained model does with data, beside what its loss asks for, and a verdict.

    Parameters
    ----------
    model : object, or tuple of two functions
        As for `codes.measure`: a module with `encode` and `decode`, or with `encoder` and `decoder`, or those two
        functions. It is left as it was found.
    loader : iterable of batches, or (N, ...) array_like
        The training data, as the model takes it; likewise.
    objective : Objective or str
        The loss, or text that `objective.read` reads.
    held_out : iterable of batches, or (N, ...) array_like, optional
        Data that the model was not trained on.
    sigma2 : float or (n,) array_like, optional
        The model's own noise variance, needed where the loss learns it; or what ``nll(sigma2)`` stands for in its
        words. With one for each feature, all here is in units of its square root.
    batch : int, optional
        Samples of a minibatch in training, where the loss depends on it.
    pairs : int
        Pairs of draws of z in each half: 4 * pairs decodings of each sample.
    seed : int

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        When an argument, a batch or an output is not what is expected, or not finite.

    See Also
    --------
    of_codes : the same from arrays.
    helpers.residual.with_linear_units : the surgery that a further gain speaks of.
    helpers.collapse.evaluate : the ELBO alone.

    Examples
    --------
    A VAE whose units have collapsed, where its loss asks for it:

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> dead = (lambda x: (x[:, :2] * 0, x[:, :2] * 0), lambda z: np.zeros((len(z), 3)) + x.mean(axis=0))
    >>> diagnose(dead, x, "mean(se) + 4*kl").verdict
    'asked for'
    """
    codes.functions(model)
    loss = kind(objective, batch, sigma2)  # which also finds any fault of it, before the model runs
    likelihood, widths = loss.likelihood, loss.sigma2
    found = codes.measure(model, loader, likelihood, pairs, seed, widths)
    if held_out is not None:
        try:
            held_out = codes.measure(model, held_out, likelihood, pairs, seed, widths)
        except ValueError as error:
            raise ValueError(f"held_out: {error}") from error
    return of_codes(found, objective, held_out, sigma2, batch, seed)


def of_codes(found, objective, held_out=None, sigma2=None, batch=None, seed=0):
    """The diagnosis from codes, say those of arrays that another framework has written.

    Parameters
    ----------
    found : codes.Codes
        Of the training data, for the likelihood of the loss.
    objective, sigma2, batch
        As for `diagnose`.
    held_out : codes.Codes, optional
        Of other data.
    seed : int
        Of what is drawn: the mutual information, and for a Bernoulli likelihood the division of the samples.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        When an argument is not what is expected, or the codes are of another likelihood.
    """
    (count, n), k = instance("found", found, codes.Codes).x.shape, found.mean.shape[1]
    objective, theta = asked(objective, n, k, batch, sigma2)
    _of_likelihood("found", found, objective)
    units = collapse.unit_statistics(found.mean, found.logvar)
    kl, K, bits = units.kl_per_unit, float(units.kl_per_unit.sum()), objective.free_bits
    # The codes are in units of each feature's deviation, where these differ, and so are their moments.
    plain, own = replace(objective, sigma2=()), None if not objective.learned else sigma2
    predicted = forecast(_moments(found, objective), k, plain, count, sigma2=own)
    if objective.sigma2:
        predicted = replace(predicted, objective=objective, learned_sigma2=None, learned_survivors=None)
    weight = _weight(objective, theta)
    distortion = value = error = gap = rho = None
    if weight is not None:
        distortion = float(found.error.mean())
        value = J(distortion, kl, weight, bits)
        if len(found.error) > 1:  # the two halves differ by twice the error of their mean
            error = float(np.sqrt((np.diff(found.error, axis=0) ** 2).sum()) / (2 * count) / (2 * weight))
        if theta is not None:
            gap = value - predicted.J
        if found.residual is not None:
            rho = rho_of(found, theta) if theta is not None else scores_rho(found, objective.beta, seed)
    information = collapse.mutual_information(found.mean, found.logvar, seed=seed)
    saturated = bool(information > 0.99 * math.log(count))
    charged = kl > bits
    held = (None, None, None) if held_out is None else _held_out(found, held_out, predicted, weight)
    measured = Diagnosis(
        verdict="measured only",
        reason="",
        forecast=predicted,
        count=count,
        n=n,
        k=k,
        theta=theta,
        sigma2=None if own is None else float(own),
        kl_per_unit=kl,
        kl=K,
        distortion=distortion,
        J=value,
        J_error=error,
        gap=gap,
        units_above=int((kl > NATS).sum()),
        active_units=int((units.variance_of_mean > collapse.ACTIVE).sum()),
        decoder_use=found.use,
        decoder_units=_decoder_units(found.use, theta),
        second_moment=units.second_moment,
        drift=float(np.abs(units.second_moment[charged] - 1).max(initial=0.0)),
        mutual_information=information,
        saturated=saturated,
        rho=rho,
        further_units=None if rho is None else int((rho > 1).sum()),
        further_gain=None if rho is None else gain(rho),
        parked=int((np.abs(kl - bits) <= NEAR * bits).sum()) if bits else 0,
        held_out_J=held[0],
        held_out_gap=held[1],
        held_out_error=held[2],
        notes=(*predicted.notes, *_notes(found, saturated, objective)),
    )
    verdict, reason = judged(measured)
    return replace(measured, verdict=verdict, reason=reason)


def _of_likelihood(name, found, objective):
    """Refuse codes that were measured for another likelihood."""
    had = "another" if found.error is None else "gaussian" if found.spread is None else "bernoulli"
    if had != (objective.likelihood if objective.likelihood in ("gaussian", "bernoulli") else "another"):
        raise ValueError(f"{name} is of {had} likelihood; expected codes of the loss's, {objective.likelihood}")
    if found.sigma2 != objective.sigma2:
        raise ValueError(
            f"{name} is measured with sigma2 {brief(found.sigma2)}; expected the loss's, {brief(objective.sigma2)}"
        )


def _moments(found, objective):
    if objective.likelihood == "gaussian":
        return covariance_eigenvalues(found.x)
    if objective.likelihood == "bernoulli":
        return Moments.from_samples(found.x)
    return np.zeros(found.x.shape[1])  # of which nothing is used


def _weight(objective, theta):
    """What stands for theta in J: a cross-entropy weighs 1 where a squared error weighs 1/2."""
    return objective.beta / 2 if objective.likelihood == "bernoulli" else theta


def _decoder_units(use, theta):
    if use is None:
        return None
    return int((np.log1p(use / theta) / 2 > NATS).sum() if theta is not None else (use > USED * use.sum()).sum())


def _notes(found, saturated, objective):
    if saturated:
        yield (
            f"The mutual information has reached log N = {math.log(found.count):.3g} nats: z tells all samples apart, "
            "and how much more it knows cannot be seen on so few."
        )
    if found.logvar.min() > 0 and found.logvar.mean() > 0.05:
        yield "Every log variance is above 0: if these are standard deviations, give 2 log of them."
    if found.residual is None and found.error is not None:
        yield "There is one draw of z for each sample, so neither the residual test nor an error of the draws."
    if objective.free_bits:
        yield (
            "Free bits are held against each unit's average over all samples; held against each sample or minibatch, "
            "they charge more than is reckoned here."
        )


def _held_out(found, held_out, predicted, weight):
    """J on held-out data, its distance to that of the linear VAE that is best on the training data, and its error."""
    _of_likelihood("held_out", instance("held_out", held_out, codes.Codes), predicted.objective)
    expect("held_out", held_out.x, ("N", found.x.shape[1]))
    expect("held_out's mean", held_out.mean, ("N", found.mean.shape[1]))
    if weight is None:
        return None, None, None
    bits, theta, k = predicted.objective.free_bits, predicted.theta, predicted.k
    kl, error = collapse.kl_samples(held_out.mean, held_out.logvar), held_out.error.mean(axis=0)
    value = J(float(error.mean()), kl.mean(axis=0), weight, bits)
    if theta is None:
        return value, None, None
    # A unit at the rate -(1/2) log D leaves D of its eigenvalue: w^2 is values (1 - D), its mean w / values times y.
    values, vectors = eigenpairs(found.x, found.x)
    used = values[:k] > (theta if not bits else TINY * values[0])
    values, vectors = values[:k][used], vectors[:, :k][:, used]
    D = np.minimum(theta / values, np.exp(-2 * bits))
    x = held_out.x - found.x.mean(axis=0, dtype=np.float64)
    squares = (x @ vectors) ** 2
    linear_error = (x**2).sum(axis=1) + (squares * (D**2 - 1) + values * (1 - D) * D).sum(axis=1)
    linear_kl = np.zeros((held_out.count, k))
    linear_kl[:, : len(D)] = (squares * (1 - D) / values + D - 1 - np.log(D)) / 2
    gap = value - J(float(linear_error.mean()), linear_kl.mean(axis=0), theta, bits)
    differences = (error - linear_error) / (2 * theta) + (kl - linear_kl).sum(axis=1)
    size = np.abs(differences).max() or 1.0  # so that no square exceeds float64
    return value, gap, float(size * (differences / size).std() / math.sqrt(held_out.count))


if __name__ == "__main__":
    runpy.run_module("helpers.diagnose_cli", run_name="__main__")
