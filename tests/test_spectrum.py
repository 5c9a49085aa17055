"""What the spectrum predicts, against closed cases, mpmath, the linear VAE itself and gradient ascent; and mutants."""

import inspect
import types

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from helpers import linear_vae, ppca, spectrum
from helpers.linear_vae import LinearVAE
from helpers.moments import Moments, covariance_eigenvalues


def with_eigenvalues(eigenvalues, seed=0):
    Q = ortho_group(len(eigenvalues), seed=seed).rvs()
    return Moments(np.arange(len(eigenvalues)), Q * np.asarray(eigenvalues, float) @ Q.T, 100)


def best(moments, k, sigma2, beta=1.0):
    """The linear VAE that the theory says is best: the top eigenvectors, scaled by (lambda - beta sigma2)_+."""
    W = moments.eigenvectors[:, :k] * np.sqrt(np.maximum(moments.eigenvalues[:k] - beta * sigma2, 0))
    return LinearVAE(W, *linear_vae.optimal_encoder(W, sigma2, beta), moments.mean, sigma2)


# --- known answers, and what they would catch -------------------------------------------------------------------
# Each check takes the module, so that it can also be put to a changed copy of it.

HAND = [8.0, 2.0, 1.0, 0.5]  # with sigma2 = 1/2 and beta = 2: theta = 1, and the third eigenvalue is a tie


def check_active(module):
    assert module.active(HAND, 0.5, 2.0).tolist() == [True, True, False, False]
    assert module.active(HAND, 0.25, 2.0).tolist() == [True, True, True, False]


def check_encoder_variances(module):
    assert module.encoder_variances(HAND, 0.5, 2.0).tolist() == [1 / 8, 1 / 2, 1.0, 1.0]


def check_kl(module):
    np.testing.assert_allclose(module.kl(HAND, 0.5, 2.0), [np.log(8) / 2, np.log(2) / 2, 0, 0], rtol=1e-15)


def check_distortion(module):
    assert module.distortion(HAND, 2, 0.5, 2.0) == 1 + 1 + 1 + 0.5
    assert module.distortion(HAND, 4, 0.5, 2.0) == 1 + 1 + 1 + 0.5
    assert module.distortion(HAND, 1, 0.5, 2.0) == 1 + 2 + 1 + 0.5


def check_elbo(module):
    rate = np.log(8) / 2 + np.log(2) / 2
    expected = -(4 * np.log(np.pi) + 3.5 / 0.5) / 2 - rate
    assert abs(module.elbo(HAND, 2, 0.5, 2.0) - expected) < 1e-14
    expected = -(4 * np.log(6 * np.pi) + 3.5 / 3) / 2 - rate
    assert abs(module.elbo(HAND, 2, 0.5, 2.0, noise=3.0) - expected) < 1e-14


def check_learned_sigma2(module):
    assert module.learned_sigma2(HAND, 2) == (1 + 0.5) / 2
    assert module.learned_sigma2(HAND, 3) == 0.5
    # At beta = 2 one unit counts: 2 + 3.5 / s = 4 (two would leave 4 - 4 = 0 for the noise).
    assert module.learned_sigma2(HAND, 2, 2.0) == 3.5 / 2
    assert module.learned_sigma2(HAND, 1, 0.5) == 3.5 / 3.5
    assert module.learned_sigma2([4.0, 2.0, 1.0, 0.0, 0.0], 4, 1.8) == pytest.approx(1 / 1.4)
    for k, beta in ((3, 1.0), (4, 5 / 3)):
        with pytest.raises(ValueError, match="leaves no residual variance"):
            module.learned_sigma2([4.0, 2.0, 1.0, 0.0, 0.0], k, beta)


def check_tuned_sigma2(module):
    assert module.tuned_sigma2(HAND, 2, 0.5, 2.0) == 3.5 / 4
    assert module.tuned_sigma2(HAND, 1, 0.25, 2.0) == (0.5 + 3.5) / 4


def check_epsilon_delta_threshold(module):
    quantile = 3.841458820694124  # chi-squared with one degree of freedom is below it with probability .95
    D = np.array([1 / 8, 1 / 2, 1, 1])
    expected = ((1 - D) * (quantile - 1) - np.log(D)) / 2
    np.testing.assert_allclose(module.epsilon_delta_threshold(HAND, 0.5, 2.0, 0.05), expected, rtol=1e-13)


def check_escape_rate(module):
    # w' = (lambda v - w) / s, v' = lambda w / s - beta lambda v: at lambda = beta s the larger root is 0.
    rates = module.escape_rate([2.0, 1.0, 0.5], 0.5, 2.0)
    for lam, rate in zip((2.0, 1.0, 0.5), rates, strict=True):
        largest = np.linalg.eigvalsh([[-2.0, 2 * lam], [2 * lam, -2 * lam]])[-1]
        assert abs(rate - largest) < 1e-14


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def changed(module, old, new):
    """A copy of a module with one formula changed."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} holds {old!r} {source.count(old)} times"
    copy = types.ModuleType(f"changed_{module.__name__.split('.')[-1]}")
    exec(compile(source.replace(old, new), copy.__name__, "exec"), copy.__dict__)
    return copy


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_known_answers(check):
    check(spectrum)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_eigenvalues(eigenvalues) > weighed", "_eigenvalues(eigenvalues) >= weighed"),
        ("theta = weighed(sigma2, beta)", "theta = weighed(sigma2, 1.0)"),
        ("theta / np.maximum(_eigenvalues(eigenvalues), theta)", "theta / (_eigenvalues(eigenvalues) + theta)"),
        ("encoder_variances(eigenvalues, sigma2, beta)) / 2)", "encoder_variances(eigenvalues, sigma2)) / 2)"),
        ("encoder_variances(eigenvalues, sigma2, beta)) / 2)", "encoder_variances(eigenvalues, sigma2, beta)))"),
        ("np.minimum(eigenvalues[:k], weighed(sigma2, beta))", "np.minimum(eigenvalues[:k], sigma2)"),
        (".sum() + eigenvalues[k:].sum()", ".sum()"),
        ("error = distortion(eigenvalues, k, sigma2, beta)", "error = distortion(eigenvalues, k, sigma2)"),
        ("rate = kl(eigenvalues[:k], sigma2, beta)", "rate = kl(eigenvalues[:k], sigma2)"),
        ("rate = kl(eigenvalues[:k], sigma2, beta)", "rate = beta * kl(eigenvalues[:k], sigma2, beta)"),
        ("np.divide(error, noise)) / 2 - rate", "np.divide(error, sigma2)) / 2 - rate"),
        ("rank <= k and beta * rank <= n", "rank < k and beta * rank <= n"),
        ("rank <= k and beta * rank <= n", "rank <= k and beta * rank < n"),
        ("rank <= k and beta * rank <= n", "rank <= k"),
        ("free = n - beta * np.arange(k + 1)", "free = n - np.arange(k + 1)"),
        ("0.0)[: k + 1]", "0.0)[1 : k + 2]"),
        ("free[free > 0]).min()", "free[free > 0]).max()"),
        ("distortion(eigenvalues, k, sigma2, beta) / _", "distortion(eigenvalues, k, sigma2) / _"),
        ("beta) / _eigenvalues(eigenvalues).size", "beta) / (_eigenvalues(eigenvalues).size - 1)"),
        ("D = encoder_variances(eigenvalues, sigma2, beta)", "D = encoder_variances(eigenvalues, sigma2)"),
        ("chdtri(1, delta) - 1", "chdtri(1, 0.01) - 1"),
        ("chdtri(1, delta) - 1", "chdtri(1, delta)"),
        ("beta * eigenvalues, eigenvalues / sigma2", "eigenvalues, eigenvalues / sigma2"),
        ('return _finite("the rate", 2 *', 'return _finite("the rate", 1 *'),
    ],
)
def test_a_changed_formula_is_noticed(old, new):
    mutant, noticed = changed(spectrum, old, new), 0
    for check in CHECKS:
        try:
            check(mutant)
        except (AssertionError, ValueError, pytest.fail.Exception):
            noticed += 1
    assert noticed


# --- against mpmath -------------------------------------------------------------------------------------------


def relative(found, expected):
    return abs(mpmath.mpf(float(found)) - expected) <= mpmath.mpf("1e-12") * abs(expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(-60, 60), min_size=1, max_size=6), st.floats(-60, 60), st.floats(-20, 20), st.data())
def test_agrees_with_mpmath_at_any_scale(powers, noise, weight, data):
    lam = np.sort(10.0 ** np.array(powers))[::-1]
    n, s, beta = lam.size, 10.0**noise, 10.0**weight
    k = data.draw(st.integers(1, n))
    with mpmath.workdps(60):
        exact, theta = [mpmath.mpf(v) for v in lam], mpmath.mpf(s) * mpmath.mpf(beta)
        D = [min(mpmath.mpf(1), theta / v) for v in exact]
        error = sum(min(v, theta) for v in exact[:k]) + sum(exact[k:])
        assert relative(spectrum.distortion(lam, k, s, beta), error)
        assert relative(spectrum.tuned_sigma2(lam, k, s, beta), error / n)
        for d, found, kl in zip(D, spectrum.encoder_variances(lam, s, beta), spectrum.kl(lam, s, beta), strict=True):
            assert relative(found, d) and abs(kl + mpmath.log(d) / 2) < 1e-13 * max(1, kl)
        rate = -sum(mpmath.log(d) for d in D[:k]) / 2
        parts = n * mpmath.log(2 * mpmath.pi * s), error / mpmath.mpf(s), rate
        size = sum(abs(part) for part in parts)
        assert abs(spectrum.elbo(lam, k, s, beta) + (parts[0] + parts[1]) / 2 + rate) < 1e-13 * size
        if k < n:
            learned = mpmath.mpf(spectrum.learned_sigma2(lam, k, beta))
            left = sum(min(mpmath.mpf(beta), v / learned) for v in exact[:k]) + sum(exact[k:]) / learned
            assert abs(left - n) < 1e-10 * n


# --- rank -----------------------------------------------------------------------------------------------------


def copied_columns():
    x = np.random.default_rng(0).standard_normal((100, 10))
    x[:, 2:5] = x[:, [0]]
    return x, 7


def exact_rank():
    rng = np.random.default_rng(1)
    return rng.standard_normal((300, 6)) @ rng.standard_normal((6, 20)) * 10.0 ** rng.integers(-6, 7, 20), 6


def fewer_samples_than_dimensions():
    return np.random.default_rng(2).standard_normal((12, 40)), 11


@pytest.mark.parametrize("make", [copied_columns, exact_rank, fewer_samples_than_dimensions])
def test_one_rule_for_the_rank(make):
    """What `learned_sigma2` makes of the eigenvalues alone is what the fits make of the moments."""
    x, rank = make()
    moments, eigenvalues = Moments.from_samples(x), covariance_eigenvalues(x)
    assert np.count_nonzero(eigenvalues) == np.count_nonzero(moments.eigenvalues) == rank
    for k in (rank, rank + 1):
        for refused in (
            lambda k=k: spectrum.learned_sigma2(eigenvalues, k),
            lambda k=k: ppca.fit(moments, k),
            lambda k=k: linear_vae.fit(moments, k),
        ):
            with pytest.raises(ValueError, match=f"k = {k} leaves no residual variance"):
                refused()
    learned = spectrum.learned_sigma2(eigenvalues, rank - 1)
    assert learned == pytest.approx(ppca.fit(moments, rank - 1).sigma2, rel=1e-6)


# --- what the spectrum predicts -------------------------------------------------------------------------------

LAM = np.array([6, 4, 2.5, 1, 0.4, 0.1])


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_spectrum_describes_the_optimum(beta):
    moments, k, s = with_eigenvalues(LAM), 4, 0.5
    vae = best(moments, k, s, beta)
    kl, reconstruction = vae.terms(moments)
    error = -2 * s * reconstruction - s * 6 * np.log(2 * np.pi * s)
    np.testing.assert_allclose(vae.D, spectrum.encoder_variances(LAM[:k], s, beta), rtol=1e-9)
    assert kl == pytest.approx(spectrum.kl(LAM[:k], s, beta).sum(), abs=1e-10)
    assert error == pytest.approx(spectrum.distortion(LAM, k, s, beta), rel=1e-9)
    assert vae.elbo(moments) == pytest.approx(spectrum.elbo(LAM, k, s, beta), rel=1e-10)
    variance = np.diag(vae.V @ moments.covariance @ vae.V.T)
    np.testing.assert_allclose(variance + vae.D, 1, rtol=1e-9)
    assert (spectrum.active(LAM[:k], s, beta) == (variance > 1e-9)).all()


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0, 100.0])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_learned_sigma2_is_the_root_and_the_maximum(k, beta):
    s = spectrum.learned_sigma2(LAM, k, beta)
    assert np.minimum(beta, LAM[:k] / s).sum() + LAM[k:].sum() / s == pytest.approx(6)

    def objective(noise):
        kl = spectrum.kl(LAM[:k], noise, beta).sum()
        return spectrum.elbo(LAM, k, noise, beta) + (1 - beta) * kl

    grid = s * np.exp(np.linspace(-3, 3, 601))
    assert objective(s) >= max(objective(noise) for noise in grid) - 1e-12
    if beta == 1:
        assert s == pytest.approx(ppca.fit(with_eigenvalues(LAM), k).sigma2)


def test_tuned_noise_is_the_best_for_the_model_as_it_stands():
    k, s, beta = 4, 0.05, 2.0
    tuned = spectrum.tuned_sigma2(LAM, k, s, beta)
    value = spectrum.elbo(LAM, k, s, beta, noise=tuned)
    others = [spectrum.elbo(LAM, k, s, beta, noise=tuned * f) for f in np.exp(np.linspace(-2, 2, 81))]
    assert value == pytest.approx(max(others), abs=1e-12) and value > spectrum.elbo(LAM, k, s, beta)
    active = spectrum.active(LAM[:k], s, beta)
    closed = -3 * (np.log(2 * np.pi * tuned) + 1) - np.log(LAM[:k][active] / (beta * s)).sum() / 2
    assert value == pytest.approx(closed, rel=1e-12)
    model = best(with_eigenvalues(LAM), k, s, beta)
    moved = LinearVAE(model.W, model.V, model.D, model.mu, tuned)
    assert abs(moved.gradients(with_eigenvalues(LAM)).sigma2) < 1e-8


def test_epsilon_delta_threshold_agrees_with_simulated_encoders():
    s, beta, delta = 0.5, 1.5, 0.05
    D = spectrum.encoder_variances(LAM, s, beta)
    m = np.sqrt(1 - D) * np.random.default_rng(0).standard_normal((400_000, 6))
    expected = np.quantile((m**2 + D - 1 - np.log(D)) / 2, 1 - delta, axis=0)
    threshold = spectrum.epsilon_delta_threshold(LAM, s, beta, delta)
    np.testing.assert_allclose(threshold, expected, rtol=0.02, atol=1e-12)
    assert (threshold[LAM <= s * beta] == 0).all()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_escape_rates_are_those_of_gradient_ascent(beta):
    """Against the eigenvalues of the gradients' Jacobian at complete collapse, by finite differences."""
    moments, s = with_eigenvalues(LAM[:3]), 1.2

    def flow(parameters):
        vae = LinearVAE(parameters[:3, None], parameters[None, 3:], [1.0], moments.mean, s)
        gradients = vae.gradients(moments, beta)
        return np.concatenate([gradients.W.ravel(), gradients.V.ravel()])

    jacobian = np.stack([(flow(1e-6 * e) - flow(-1e-6 * e)) / 2e-6 for e in np.eye(6)])
    expected = np.sort(np.linalg.eigvalsh((jacobian + jacobian.T) / 2))[::-1][:3]
    rates = spectrum.escape_rate(LAM[:3], s, beta)
    np.testing.assert_allclose(np.sort(rates)[::-1], expected, rtol=1e-6, atol=1e-7)
    assert ((rates > 0) == (LAM[:3] > beta * s)).all()


# --- input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum.active([1, 2], 1.0), "eigenvalues is .* expected descending and none below 0: .*sort them"),
        (lambda: spectrum.kl([2, -1], 1.0), "expected descending and none below 0: take them from Moments"),
        (lambda: spectrum.kl([2, 1, -1e-17], 1.0), "below your own rounding to 0"),
        (lambda: spectrum.kl([[1]], 1.0), "eigenvalues has shape"),
        (lambda: spectrum.active(np.ma.masked_equal([2.0, 1.0], 1.0), 1.0), "eigenvalues is a masked array"),
        (lambda: spectrum.encoder_variances(LAM, 0), "sigma2 is 0.0"),
        (lambda: spectrum.distortion(LAM, 7, 1.0), "k is 7"),
        (lambda: spectrum.elbo(LAM, 2, 1.0, noise=0), "noise is 0.0"),
        (lambda: spectrum.elbo(LAM, 2, -1.0), "sigma2 is -1.0"),
        (lambda: spectrum.learned_sigma2(LAM, 2, 0), "beta is 0.0"),
        (lambda: spectrum.tuned_sigma2(LAM, 0, 1.0), "k is 0"),
        (lambda: spectrum.epsilon_delta_threshold(LAM, 1.0, delta=0), "delta is 0.0"),
        (lambda: spectrum.epsilon_delta_threshold(LAM, 1.0, delta=1), "delta is 1.0"),
        (lambda: spectrum.escape_rate(LAM, 1.0, -1), "beta is -1.0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum.kl(LAM, 1e200, 1e200), "beta times sigma2 contains NaN or infinity"),
        (lambda: spectrum.elbo(LAM, 2, 1e200, 1e200), "beta times sigma2"),
        (lambda: spectrum.active(LAM, 1e-200, 1e-200), "beta times sigma2 is 0.0; expected a number above 0"),
        (lambda: spectrum.kl([1e300, 1.0], 1e-300), "exceeds float64: rescale the columns"),
        (lambda: spectrum.epsilon_delta_threshold([1e300, 1.0], 1e-300), "exceeds float64"),
        (lambda: spectrum.distortion([1.5e308] * 2, 1, 1e308), "the distortion .* exceeds float64"),
        (lambda: spectrum.elbo([1e300, 1e300], 1, 1.0, noise=1e-300), "the ELBO .* exceeds float64"),
        (lambda: spectrum.learned_sigma2([1.5e308] * 3, 1), "the noise .* exceeds float64"),
        (lambda: spectrum.escape_rate([1e200], 1e-200), "the rate .* exceeds float64"),
    ],
)
def test_what_leaves_float64_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_tensor_of_eigenvalues_is_counted_as_well():
    assert spectrum.tuned_sigma2(torch.tensor(LAM), 2, 0.5) == spectrum.tuned_sigma2(LAM, 2, 0.5)
