"""The verdict on a trained VAE: what was found and predicted, and the first of a few words that holds.

Serves chapter 12, through `diagnose`.
"""

from dataclasses import dataclass

import numpy as np

from helpers._validation import instance
from helpers.forecast import Forecast

NATS = 0.1  # what a unit, a gap or a gain has to exceed before anything is said of it
ERRORS = 3  # standard errors that a difference has to exceed likewise
VERDICTS = {  # in the order in which they are tried
    "asked for": "complete collapse is a local maximum of this loss, or at the threshold, and the network is there",
    "worse than linear": "the best linear VAE with as many latents has more: a network that contains the linear maps "
    "is not trained to its best",
    "another unit would pay": "a further affine unit would raise it: training is unfinished or stuck, or the network "
    "has too few latents or is too small",
    "parked at free bits": "most units carry what costs nothing, and no more",
    "memorising": "what it gains over the best linear VAE on the training data, it loses on held-out data",
    "measured only": "nothing exact is known for this likelihood",
    "settled": "none of these: nothing that is looked for here would raise it",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found. Nats are averages over the samples; None where it does not apply to the likelihood.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`, the first that holds.
    reason : str
        Why, in a sentence or two, with the numbers.
    forecast : Forecast
        Predicted: what the loss asks for. Where sigma2 is learned, it is made at the model's own one, and
        `learned_sigma2` says what the best linear VAE would learn.
    count, n, k : int
        Samples, features and latents.
    theta : float or None
        Exact, from the loss: beta sigma2 for a Gaussian likelihood.
    sigma2 : float or None
        The model's own one, as given, where it is learned.
    kl_per_unit : (k,) ndarray
        Measured: average KL divergence of each unit from the prior.
    kl : float
        Measured: its sum, K.
    distortion : float or None
        Measured: E, the average squared error; for a Bernoulli likelihood the cross-entropy.
    J : float or None
        Measured: the value of the network, see the module; for a Bernoulli likelihood -E / beta - K.
    J_error : float or None
        Its standard error from the draws of z; None where there was one draw.
    gap : float or None
        J less that of the best linear VAE. Below 0 by more than the error of the draws, the network is not at its
        best: exact where the network contains the linear maps, which one whose output ends in a sigmoid does not.
    units_above : int
        Measured: units with a KL above 0.1 nats. To call these used is a rule of thumb.
    active_units : int
        Measured: units whose mean varies by more than 0.01 over the data. A rule of thumb, and the least to be trusted:
        during training it counts units that are on their way to 0.
    decoder_use : (k,) ndarray or None
        Measured: half the average squared change of the output between two draws of z_i from its prior. For a linear
        decoder it is |w_i|^2.
    decoder_units : int or None
        Units of which (1/2) log(1 + use / theta) exceeds 0.1 nats, which is the KL of a unit of a linear VAE with this
        use: a rule of thumb. Without theta those with more than 1% of all use.
    second_moment : (k,) ndarray
        Measured: average of m^2 + s^2. It is 1 at convergence if the encoder's output and the decoder's first layer are
        affine, and a unit's KL is charged.
    drift : float
        Largest distance of these from 1, over the units whose KL is charged: how far from convergence. One that has
        converged has none, under the same conditions; the other way round it is a rule of thumb.
    mutual_information : float
        Measured by draws: of x and z, with x uniform on the samples. It is at most log(count).
    saturated : bool
        Whether it is within 1% of that, and so only says how many samples there were.
    rho : (n,) ndarray or None
        Measured: eigenvalues of the residual covariance over theta, descending (`residual`). For a Bernoulli likelihood
        of the whitened scores over beta, cross-validated, and to second order only.
    further_units : int or None
        How many of them exceed 1: affine units that would pay. For a Gaussian likelihood exact on these samples, but
        for the error of the draws.
    further_gain : float or None
        Predicted: what those would add to J. Exact likewise, and `with_linear_units` attains it; free bits would add to
        it. For a Bernoulli likelihood an approximation.
    parked : int
        Measured: units with a KL within 10% of their free bits; 0 without.
    held_out_J, held_out_gap : float or None
        Measured on held-out data: J, and its distance to the J there of the linear VAE that is best on the training
        data.
    held_out_error : float or None
        Standard error of the held-out gap, from the samples.
    notes : tuple of str
        What is in doubt, a sentence each.
    """

    verdict: str
    reason: str
    forecast: Forecast
    count: int
    n: int
    k: int
    theta: float | None
    sigma2: float | None
    kl_per_unit: np.ndarray
    kl: float
    distortion: float | None
    J: float | None
    J_error: float | None
    gap: float | None
    units_above: int
    active_units: int
    decoder_use: np.ndarray | None
    decoder_units: int | None
    second_moment: np.ndarray
    drift: float
    mutual_information: float
    saturated: bool
    rho: np.ndarray | None
    further_units: int | None
    further_gain: float | None
    parked: int
    held_out_J: float | None
    held_out_gap: float | None
    held_out_error: float | None
    notes: tuple


def at_collapse(predicted):
    """What is known of small steps from complete collapse, where no eigenvalue is above theta or beta: a sentence.

    Parameters
    ----------
    predicted : Forecast
        Whose `collapse_is_stable` is true.

    Returns
    -------
    str
    """
    gaussian = instance("predicted", predicted, Forecast).theta is not None
    limit, value = ("theta", predicted.theta) if gaussian else ("beta", predicted.objective.beta)
    if predicted.lambda_1 == value:
        linear = ", and no linear VAE does better" if gaussian else ""
        return (
            f"The largest eigenvalue equals {limit} = {value:.4g}: to second order nothing is gained or lost by "
            f"leaving complete collapse{linear}."
        )
    return (
        f"The largest eigenvalue, {predicted.lambda_1:.4g}, is below {limit} = {value:.4g}: complete collapse is a "
        f"local maximum of this loss, {'whatever the networks' if gaussian else 'for every smooth decoder'}."
    )


def judged(found):
    """The first of `VERDICTS` that holds for a diagnosis that has none yet, and why.

    Parameters
    ----------
    found : Diagnosis

    Returns
    -------
    verdict, reason : str
    """
    predicted, idle = instance("found", found, Diagnosis).forecast, found.k - found.units_above
    doubt = max(NATS, ERRORS * (found.J_error or 0.0))
    below = found.gap is not None and found.gap < -doubt
    if predicted.collapse_is_stable and found.kl < NATS:
        reason = (
            f"{at_collapse(predicted)} With K = {found.kl:.2g} nats the network is there. Whether something better "
            "lies far away is not said."
        )
        if below:
            reason += f" Its J is {-found.gap:.4g} nats below that of collapse to the mean of the data."
        return "asked for", reason
    if below:
        return "worse than linear", (
            f"J is {-found.gap:.4g} nats below that of the best linear VAE with {found.k} latents at the same theta. "
            f"There {predicted.survivors} units pay for themselves; here {found.units_above} carry more than {NATS:g} "
            "nats. Unless it cannot be linear, as with a sigmoid at its end, it is not trained to its best, and its "
            "units say nothing about the optimum."
        )
    if found.further_gain is not None and found.further_gain > doubt:
        why = (
            f"while {idle} of its {found.k} units lie idle: it is unfinished or stuck, or too small"
            if idle
            else f"and all its {found.k} units are in use: it has too few latents"
        )
        about = "" if found.theta is not None else " about"
        return "another unit would pay", (
            f"{found.further_units} further affine units would raise J by{about} {found.further_gain:.4g} nats, {why}."
        )
    if found.parked > found.k / 2:
        return "parked at free bits", (
            f"{found.parked} of {found.k} units carry their {predicted.objective.free_bits:g} free nats and no more: "
            "without free bits they would have to pay for themselves."
        )
    if found.held_out_gap is not None and found.held_out_gap < -max(NATS, 2 * found.held_out_error):
        return "memorising", (
            f"J is {found.gap:+.4g} nats from the best linear VAE's on the training data, and on held-out data "
            f"{found.held_out_gap:+.4g}, with an error of {found.held_out_error:.2g}."
        )
    if found.J is None:
        return "measured only", f"For a {predicted.objective.likelihood} likelihood nothing exact is known."
    beside = "" if found.gap is None else f"J is {found.gap:+.4g} nats from the best linear VAE's. "
    if found.rho is None:
        return "settled", beside + "Whether further units would pay is not known."
    return "settled", beside + f"No further affine units would raise it by more than {doubt:.2g} nats."
