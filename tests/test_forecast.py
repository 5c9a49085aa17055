"""The forecast of a loss: against linear VAEs that are ascended, autograd's curvature, and the closed forms apart."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from helpers import bernoulli, linear_vae, objective, ppca, spectrum
from helpers.forecast import J, forecast, score_eigenvalues
from helpers.moments import Moments


def moments_of(eigenvalues, seed=0, count=10**6):
    """Moments with these eigenvalues, along random axes."""
    n = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    covariance = Q * np.asarray(eigenvalues) @ Q.T
    return Moments(np.arange(n) / 3, (covariance + covariance.T) / 2, count)


def written(scale, weight, n, k):
    """The same loss in several reductions and factors, with theta = weight * n / 2 in all of them."""
    return [
        f"{scale}*mean(se) + {scale * weight}*kl",
        f"{scale}*sum(se) + {scale * weight * n}*kl",
        f"{scale}*mean(se) + {scale * weight * k}*mean(kl)",
        f"{scale}*nll(sigma2={weight * n / 2}) + {scale}*kl",
        f"{scale}*sum(se, batch=sum) / n + {scale * weight}*sum(kl, batch=sum)",
    ]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(3, 6),
    k=st.integers(1, 3),
    logs=st.tuples(st.floats(-2, 2), st.floats(-2, 1)),
    form=st.integers(0, 4),
)
def test_forecast_is_exact_for_linear_vaes_of_any_scaling(seed, n, k, logs, form):
    """Against `linear_vae.fit`, which ascends from a random start and takes no eigenvalues."""
    scale, weight = (float(f"{10**log:.6g}") for log in logs)
    eigenvalues = np.sort(np.random.default_rng(seed).exponential(2.0, n))[::-1]
    moments = moments_of(eigenvalues, seed)
    theta = weight * n / 2
    # Away from where a unit is just about to live, which an ascent reaches slowly.
    if np.abs(np.log(eigenvalues[:k] / theta)).min() < 0.05:
        return
    found = forecast(moments, k, written(scale, weight, n, k)[form])
    vae = linear_vae.fit(moments, k, sigma2=theta, seed=seed % 1000)
    terms = vae.terms(moments)
    assert found.theta == pytest.approx(theta)
    assert found.survivors == (np.linalg.norm(vae.W, axis=0) > 1e-3 * np.sqrt(theta)).sum()
    assert np.allclose(np.sort(-np.log(vae.D) / 2)[::-1], found.kl_per_unit, atol=1e-4)
    assert found.kl == pytest.approx(terms.kl, abs=1e-4)
    error = -2 * theta * (terms.reconstruction + n * np.log(2 * np.pi * theta) / 2)
    assert found.distortion == pytest.approx(error, rel=1e-4)
    assert found.J == pytest.approx(-error / (2 * theta) - terms.kl, rel=1e-6, abs=1e-6)


def test_learned_sigma2_is_what_the_linear_vae_learns():
    moments = moments_of([4.0, 2.0, 1.0, 0.3, 0.1])
    for beta in (0.5, 1.0, 1.7):
        found, vae = forecast(moments, 2, f"nll(learned) + {beta}*kl"), linear_vae.fit(moments, 2, beta=beta)
        assert found.learned_sigma2 == pytest.approx(vae.sigma2, rel=1e-6)
        assert found.theta == pytest.approx(beta * vae.sigma2, rel=1e-6)
        assert found.survivors == found.learned_survivors == (np.linalg.norm(vae.W, axis=0) > 1e-3).sum()
    fixed = forecast(moments, 2, "0.5*sum(se) + 3*kl")  # which learns none: the one that it would learn at beta = 1
    assert fixed.learned_sigma2 == pytest.approx(ppca.fit(moments, 2).sigma2)
    assert (fixed.survivors, fixed.learned_survivors) == (1, 2)


def test_no_sigma2_is_named_where_none_is_the_best():
    found = forecast([4.0, 2.0, 1.0], 3, "sum(se) + kl")
    assert found.learned_sigma2 is None and found.learned_survivors is None
    with pytest.raises(ValueError, match="leaves no residual variance"):
        forecast([4.0, 2.0, 1.0], 3, "nll(learned) + kl")


def best_along_axes(eigenvalues, k, bits, objective_of):
    """The least loss over the KL of k units, one for each of the leading eigenvalues, numerically."""

    def loss(rates):
        error = (eigenvalues[:k] * np.exp(-2 * rates)).sum() + eigenvalues[k:].sum()
        return objective_of(error, np.maximum(rates, bits).sum())

    starts = [np.full(k, start) for start in (0.1, bits, 1.0, 2.0)]
    runs = [minimize(loss, start, bounds=[(0, 20)] * k, method="Powell", tol=1e-12) for start in starts]
    best = min(runs, key=lambda run: run.fun)
    return best.x, best.fun


@pytest.mark.parametrize("bits", [0.05, 0.3, 0.9])
def test_free_bits_against_a_search_over_the_rates(bits):
    eigenvalues = np.array([4.0, 2.0, 1.0, 0.5])
    found = forecast(eigenvalues, 3, f"0.5*sum(se) + 0.8*max(kl, {bits})")
    rates, least = best_along_axes(eigenvalues, 3, bits, lambda error, kl: error / 1.6 + kl)
    assert np.allclose(found.kl_per_unit, rates, atol=1e-3) and -found.J == pytest.approx(least, rel=1e-6)
    assert not found.collapse_is_stable and found.unstable == 4
    learned = forecast(eigenvalues, 3, f"nll(learned) + 1.2*max(kl, {bits})")
    rates, _ = best_along_axes(eigenvalues, 3, bits, lambda error, kl: 2 * np.log(error) + 1.2 * kl)
    assert np.allclose(learned.kl_per_unit, rates, atol=2e-3)
    assert learned.learned_sigma2 == pytest.approx(learned.distortion / 4)


@pytest.mark.parametrize("theta", [0.9, 0.999, 1.0, 1.001, 1.3])
def test_collapse_is_stable_from_theta_equal_to_the_first_eigenvalue(theta):
    """Against the slope of the path out of collapse, found from the ELBO itself and no eigenvalue."""
    moments = moments_of([1.0, 0.7, 0.2])
    found = forecast([1.0, 0.7, 0.2], 2, objective.at_theta(theta))
    axis = moments.eigenvectors[:, :1]
    values = [linear_vae.profile_elbo(axis * w, moments, theta) for w in (0.0, 1e-2)]
    assert found.collapse_is_stable == (values[1] < values[0]) == (theta >= 1)
    assert found.unstable == (theta < 1)


def test_a_bernoulli_likelihood_has_a_threshold_of_its_own():
    x = (np.random.default_rng(0).random((200, 3)) < [0.2, 0.5, 0.9]).astype(float)
    x = np.column_stack([x, x[:, 0], np.ones(200)])  # two that agree, and one that never varies
    threshold = bernoulli.collapse_threshold(x)
    for beta in (0.99 * threshold, 1.01 * threshold):
        found = forecast(Moments.from_samples(x), 2, f"sum(bce) + {beta}*kl")
        assert found.lambda_1 == pytest.approx(threshold)
        assert found.collapse_is_stable == (beta > threshold)
        assert found.theta is found.survivors is found.kl is found.learned_sigma2 is found.J is None
    blind = forecast(Moments.from_samples(x).eigenvalues, 2, "sum(bce) + kl")
    assert blind.collapse_is_stable is None and "give Moments" in blind.notes[-1]
    assert not forecast(Moments.from_samples(x), 2, "sum(bce) + 99*max(kl, 0.1)").collapse_is_stable


@pytest.mark.parametrize("term", ["ce", "poisson", "nb", "ae", "huber"])
def test_other_likelihoods_are_measured_only(term):
    found = forecast([2.0, 1.0], 1, f"{term} + kl")
    assert found.theta is found.collapse_is_stable is found.survivors is found.J is None
    assert "measured" in found.notes[-1]


def test_sampling_noise_is_said_where_samples_are_few():
    said = [
        any("sampling noise" in note for note in forecast([2.0, 1.0], 1, "se + kl", count).notes) for count in (9, 10)
    ]
    assert said == [True, False]
    assert "9 samples of 2 features" in forecast(moments_of([2.0, 1.0], count=9), 1, "se + kl").notes[0]


def test_more_latents_than_features_have_nothing_to_carry():
    found = forecast([2.0, 1.0], 4, "sum(se) + kl")
    assert found.kl_per_unit.tolist() == [*spectrum.kl([2.0, 1.0], 0.5), 0.0, 0.0] and found.survivors == 2


def test_an_objective_and_its_words_are_the_same():
    words, moments = "mean(se) + 2*mean(kl)", moments_of([2.0, 1.0, 0.5])
    one, other = forecast(moments, 2, words), forecast(moments, 2, objective.read(words, n=3, k=2))
    assert one.theta == other.theta == 1.5 and one.J == other.J
    assert forecast([2.0, 1.0], 1, "sum(se, batch=sum) + kl", batch=8).theta == 1 / 16


def test_a_noise_variance_for_each_feature_is_a_change_of_units():
    moments, sigma2 = moments_of([4.0, 2.0, 1.0]), np.array([0.5, 2.0, 1.0])
    found = forecast(moments, 2, "nll(sigma2) + kl", sigma2=sigma2)
    scale = np.sqrt(sigma2)
    other = forecast(
        Moments(moments.mean / scale, moments.covariance / np.outer(scale, scale), 9), 2, "nll(sigma2=1) + kl"
    )
    assert found.theta == other.theta == 1 and found.J == pytest.approx(other.J)
    assert np.allclose(found.kl_per_unit, other.kl_per_unit) and found.learned_sigma2 is None
    assert forecast(moments, 2, objective.read("nll(sigma2) + kl", sigma2=sigma2)).J == found.J
    with pytest.raises(ValueError, match="expected Moments"):
        forecast([4.0, 2.0, 1.0], 2, "nll(sigma2) + kl", sigma2=sigma2)
    assert forecast([4.0, 2.0, 1.0], 2, "nll(sigma2) + kl", sigma2=0.3).theta == pytest.approx(0.3)


def test_J_charges_free_bits():
    assert J(3.0, [1.0, 0.1], 1.5) == pytest.approx(-2.1)
    assert J(3.0, [1.0, 0.1], 1.5, free_bits=0.5) == -2.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: forecast([1.0, 2.0], 1, "se + kl"), "descending and none below 0: sort them"),
        (lambda: forecast([1.0, -3e-18], 1, "se + kl"), "set those below your own rounding to 0"),
        (lambda: forecast(np.eye(2), 1, "se + kl"), "moments has shape (2, 2); expected (n,)"),
        (lambda: forecast([1.0], 0, "se + kl"), "k is 0"),
        (lambda: forecast([1.0], 1, 3.0), "objective is 3.0"),
        (lambda: forecast([1.0], 1, "nonsense"), "nonsense"),
        (lambda: forecast([1.0], 1, "sum(se, batch=sum) + kl"), "batch is None"),
        (lambda: forecast(Moments([2.0], [[1.0]], 9), 1, "bce + kl"), "no data in [0, 1] have"),
        (lambda: score_eigenvalues(Moments([0.5], [[0.0]], 9)), "no feature that varies"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
