"""Bernoulli pPCA: quadratures against SciPy, Monte Carlo and autograd; known thresholds; errata of Eqs 29-32."""

import inspect
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad, simpson
from scipy.linalg import eigh
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from scipy.stats import multivariate_normal, norm, ortho_group

from helpers import bernoulli, data
from helpers.bernoulli import collapse_threshold, elbo, log_marginal, optimal_encoder

W = np.array([[1.4, -0.5], [0.7, 1.1], [-0.9, 0.6]])
MU = np.array([0.4, -0.8, 0.2])
IMAGES = np.array(list(product([0.0, 1.0], repeat=3)))
GREY = np.array([[0.1, 0.7, 0.5], [0.0, 0.3, 1.0]])


def random_model(seed, n, k, scale, count=4):
    rng = np.random.default_rng(seed)
    W, mu = scale * rng.standard_normal((n, k)), rng.standard_normal(n)
    x = (rng.random((count, n)) < expit(rng.standard_normal((count, k)) @ W.T + mu)).astype(float)
    return x, W, mu


def on_a_line(x, W, mu):
    """log p(x) for k = 1 by the trapezoidal rule on a fine grid."""
    z = np.linspace(-10, 10, 100_001)
    logits = z[:, None] * W[:, 0] + mu
    log_joint = x @ logits.T - np.logaddexp(0, logits).sum(axis=1) + norm.logpdf(z)
    return np.logaddexp.reduce(log_joint, axis=1) + np.log(z[1] - z[0])


# Eq. 28


def test_log_conditional_is_a_product_of_coins():
    z = np.array([0.6, -1.1])
    y = expit(W @ z + MU)
    expected = np.where(IMAGES, y, 1 - y).prod(axis=1)
    np.testing.assert_allclose(
        np.exp(bernoulli.log_conditional(IMAGES, np.tile(z, (8, 1)), W, MU)), expected, rtol=1e-13
    )


def test_log_conditional_at_huge_logits():
    # 1 - y is 0 in floating point, its logarithm is -1000
    assert bernoulli.log_conditional([[0.0], [1.0]], [[1.0], [1.0]], [[1000.0]], [0.0]).tolist() == [-1000.0, 0.0]


# Eq. 29


def test_logit_normal_density_in_one_dimension_integrates_to_one():
    density = lambda y: np.exp(bernoulli.logit_normal_log_density([[y]], [[0.8]], [0.3])[0])  # noqa: E731
    assert quad(density, 0, 1)[0] == pytest.approx(1, abs=1e-8)


def test_logit_normal_density_in_two_dimensions():
    gaussian = multivariate_normal(MU[:2], W[:2] @ W[:2].T)
    for top in ([1 - 1e-9, 1 - 1e-9], [0.55, 0.35]):
        a, b = np.linspace(1e-9, top[0], 801), np.linspace(1e-9, top[1], 801)
        points = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)
        density = np.exp(bernoulli.logit_normal_log_density(points, W[:2], MU[:2])).reshape(801, 801)
        assert simpson(simpson(density, x=a), x=b) == pytest.approx(gaussian.cdf(logit(top)), abs=1e-5)


def test_logit_normal_density_takes_more_latents_than_pixels():
    y = np.array([[0.3, 0.6]])
    wide = np.array([[1.0, 0.4, -0.2], [0.1, 0.8, 0.5]])
    square = np.linalg.cholesky(wide @ wide.T)
    np.testing.assert_allclose(
        bernoulli.logit_normal_log_density(y, wide, MU[:2]), bernoulli.logit_normal_log_density(y, square, MU[:2])
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_erratum_29_the_printed_normaliser(n):
    square, mu = np.eye(n) + 0.3 * np.random.default_rng(n).standard_normal((n, n)), MU[:n]
    y = np.full((1, n), 0.4)
    truth = multivariate_normal(mu, square @ square.T).logpdf(logit(y[0])) - np.log(y * (1 - y)).sum()
    a = logit(y[0]) - mu
    covariance = square @ square.T
    printed = -np.log(2 * np.pi * np.linalg.det(covariance)) / 2 - np.log(y * (1 - y)).sum()
    printed -= a @ np.linalg.solve(covariance, a) / 2
    assert bernoulli.logit_normal_log_density(y, square, mu)[0] == pytest.approx(truth, abs=1e-10)
    assert printed - truth == pytest.approx((n - 1) / 2 * np.log(2 * np.pi), abs=1e-10)


def test_no_density_for_fewer_latents_than_pixels_or_a_singular_W():
    for singular in (W[:2, :1], np.array([[1.0, 2.0], [2.0, 4.0]])):
        with pytest.raises(ValueError, match="rank"):
            bernoulli.logit_normal_log_density([[0.3, 0.4]], singular, MU[:2])


# Eqs 30 and 31


def test_log_marginal_against_scipy_on_the_plane():
    for i in (1, 6):
        sign = 2 * IMAGES[i] - 1
        integrand = lambda b, a: expit(sign * (W @ [a, b] + MU)).prod() * norm.pdf(a) * norm.pdf(b)  # noqa: B023, E731
        p = dblquad(integrand, -5, 5, -5, 5, epsabs=1e-6)[0]
        assert np.exp(log_marginal(IMAGES[i : i + 1], W, MU)[0]) == pytest.approx(p, abs=2e-6)


def test_log_marginal_against_monte_carlo():
    y = expit(np.random.default_rng(0).standard_normal((200_000, 2)) @ W.T + MU)
    drawn = [np.where(image, y, 1 - y).prod(axis=1).mean() for image in IMAGES]
    np.testing.assert_allclose(np.exp(log_marginal(IMAGES, W, MU)), drawn, rtol=0.02)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_probabilities_of_all_images_sum_to_one(k):
    _, W, mu = random_model(k, 4, k, 0.7)
    images = np.array(list(product([0, 1], repeat=4)))
    p = np.exp(log_marginal(images, W, mu))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    means = [quad(lambda a, i=i: expit(a) * norm.pdf(a, mu[i], np.linalg.norm(W[i])), -30, 30)[0] for i in range(4)]
    np.testing.assert_allclose(p @ images, means, atol=1e-8)


@pytest.mark.parametrize("scale", [0.01, 1, 5, 20])
@pytest.mark.parametrize("n", [1, 4, 40])
def test_log_marginal_keeps_its_accuracy(n, scale):
    x, W, mu = random_model(n, n, 1, scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(log_marginal(x, W, mu), on_a_line(x, W, mu), atol=1e-9)


def test_log_marginal_where_the_tails_are_wide():
    # By ball arithmetic. In units of the curvature at the mode the tails reach beyond 38, where exp(-t^2/2) is 0.
    value = log_marginal([[0.9076933661298838]], [[47.175328477294585]], [-3.1546005916465703])[0]
    assert value == pytest.approx(-2.43834622538, abs=1e-9)


def test_log_marginal_is_as_good_as_it_says_or_warns():
    rng, warned = np.random.default_rng(0), 0
    for i in range(400):
        n = rng.integers(1, 4)
        w = np.exp(rng.uniform(0, np.log(50))) * rng.uniform(-1, 1, (n, 1))
        mu, x = 3 * rng.standard_normal(n), rng.random((1, n))
        if i % 2:
            x = np.round(x)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = log_marginal(x, w, mu)
        warned += len(said) > 0
        assert said or value == pytest.approx(on_a_line(x, w, mu), abs=1e-9), (x, w, mu)
    assert warned < 20


@pytest.mark.parametrize("weight", [1e3, 1e5, 1e8])
def test_log_marginal_warns_where_the_sigmoid_is_a_step(weight):
    # By symmetry p(x = 1) is 1/2. A rule that steps over the sigmoid agrees with the next on a wrong value.
    with pytest.warns(RuntimeWarning, match="too few"):
        value = log_marginal([[1.0]], [[weight]], [0.0])[0]
    assert value == pytest.approx(np.log(0.5), abs=0.01)


def test_log_marginal_warns_in_three_dimensions():
    x, W, mu = random_model(0, 3, 3, 40.0, count=1)
    with pytest.warns(RuntimeWarning, match="too few"):
        assert np.isfinite(log_marginal(x, W, mu)).all()


def test_log_marginal_at_no_weights_is_independent_pixels():
    y = expit(MU)
    np.testing.assert_allclose(log_marginal(GREY, np.zeros((3, 2)), MU), GREY @ np.log(y) + (1 - GREY) @ np.log(1 - y))


def test_log_marginal_of_grey_pixels_is_the_cross_entropy_average():
    z = np.linspace(-9, 9, 20_001)
    y = expit(z[:, None] * W[:, 0] + MU)
    for image in GREY:
        integrand = np.exp(np.log(y) @ image + np.log1p(-y) @ (1 - image)) * norm.pdf(z)
        got = log_marginal(image[None], W[:, :1], MU)[0]
        assert got == pytest.approx(np.log(integrand.sum() * (z[1] - z[0])), abs=1e-9)


def test_gradient_of_log_marginal_against_autograd():
    x = IMAGES[[1, 3, 3, 6]]
    t, weights = np.polynomial.hermite_e.hermegauss(48)
    z = torch.tensor(np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2))
    log_weights = torch.tensor(np.log(np.outer(weights, weights) / weights.sum() ** 2).ravel())
    W_t = torch.tensor(W, requires_grad=True)
    logits = z @ W_t.T + torch.tensor(MU)
    log_p = torch.tensor(x) @ logits.T - torch.nn.functional.softplus(logits).sum(dim=1) + log_weights
    torch.logsumexp(log_p, dim=1).mean().backward()
    h, differences = 1e-4, np.zeros((3, 2))
    for i, j in product(range(3), range(2)):
        step = np.zeros((3, 2))
        step[i, j] = h
        differences[i, j] = (log_marginal(x, W + step, MU) - log_marginal(x, W - step, MU)).mean() / (2 * h)
    np.testing.assert_allclose(differences, W_t.grad.numpy(), atol=1e-7)


def test_erratum_31_the_power_is_a_product_over_pixels():
    y = expit(np.random.default_rng(0).standard_normal((200_000, 2)) @ W.T + MU)
    entries = np.where(IMAGES[6], y, 1 - y)
    p = np.exp(log_marginal(IMAGES[6:7], W, MU)[0])
    assert entries.prod(axis=1).mean() == pytest.approx(p, rel=0.02)
    printed = entries.mean(axis=0)  # elementwise, as printed: a vector
    assert printed.shape == (3,)
    assert abs(printed.prod() / p - 1) > 0.1


# Eq. 32


@pytest.mark.parametrize("s", [0, 1e-8, 0.3, 0.999, 1.001, 3, 30, 1e6])
@pytest.mark.parametrize("a", [-40, -3, -0.5, 0, 5, 60])
def test_one_dimensional_integrals(a, s):
    if s <= 3:
        t = np.linspace(-12, 12, 40_001)
        weights, u = norm.pdf(t) * (t[1] - t[0]), a + s * t
        expected = [weights @ np.logaddexp(0, u), weights @ expit(u), weights @ (expit(u) * expit(-u))]
    else:  # average over a logistic variable, on a grid
        r = np.linspace(-45, 45, 90_001)
        weights = expit(r) * expit(-r) * (r[1] - r[0])
        b = (a + r) / s
        expected = [weights @ (s * (b * norm.cdf(b) + norm.pdf(b))), weights @ norm.cdf(b), weights @ norm.pdf(b) / s]
    got = bernoulli.gaussian_logistic(np.array([float(a)]), np.array([float(s)]))[:, 0]
    np.testing.assert_allclose(got, expected, atol=1e-12 * max(1, s), rtol=1e-11)


def test_softplus_of_a_wide_gaussian_against_scipy():
    for s in (5.0, 100.0):
        parts = [quad(lambda u: np.logaddexp(0, u) * norm.pdf(u, 1.0, s), low, high, epsabs=1e-11)[0]  # noqa: B023
                 for low, high in ((-8 * s, -20), (-20, 0), (0, 20), (20, 9 * s)) if low < high]  # fmt: skip
        got = bernoulli.gaussian_logistic(np.array([1.0]), np.array([s]))[0, 0]
        assert got == pytest.approx(sum(parts), rel=1e-9)


def test_one_dimensional_integrals_at_huge_arguments():
    a, s = np.array([1e300, -1e300, 0.0, 0.0, 1e200]), np.array([1.0, 1e299, 1e300, 0.0, 1e-300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        softplus, y, spread = bernoulli.gaussian_logistic(a, s)
    np.testing.assert_allclose(softplus, [1e300, 0, 1e300 * norm.pdf(0), np.log(2), 1e200], atol=1e287)
    np.testing.assert_allclose(y, [1, 0, 0.5, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(spread, [0, 0, 0, 0.25, 0], atol=1e-12)


def test_expected_log_likelihood_against_monte_carlo_and_erratum_32():
    rng = np.random.default_rng(0)
    m, v = rng.standard_normal((8, 2)), rng.uniform(0.1, 2, (8, 2))
    z = m[:, None] + np.sqrt(v)[:, None] * rng.standard_normal((8, 100_000, 2))
    y = expit(z @ W.T + MU)
    log_p = np.log(np.where(IMAGES[:, None], y, 1 - y)).sum(axis=2)
    got = bernoulli.expected_log_likelihood(IMAGES, W, MU, m, v)
    np.testing.assert_allclose(got, log_p.mean(axis=1), rtol=0.02)
    printed = np.exp(log_p).mean(axis=1)  # without the logarithm
    assert (printed > 0).all() and (got < 0).all()
    assert (np.log(printed) > got + 0.05).all()


def test_elbo_falls_short_by_the_divergence_from_the_posterior():
    x, m, v = IMAGES[[1, 6]], np.array([[0.5], [-1.0]]), np.array([[0.4], [1.5]])
    z = np.linspace(-10, 10, 20_001)
    dz = z[1] - z[0]
    y = expit(z[:, None] * W[:, 0] + MU)
    for i in range(2):
        joint = np.where(x[i], y, 1 - y).prod(axis=1) * norm.pdf(z)
        q = norm.pdf(z, m[i], np.sqrt(v[i]))
        kl = (q * (norm.logpdf(z, m[i], np.sqrt(v[i])) - np.log(joint / (joint.sum() * dz)))).sum() * dz
        gap = log_marginal(x, W[:, :1], MU)[i] - elbo(x, W[:, :1], MU, m, v)[i]
        assert gap == pytest.approx(kl, abs=1e-8)


def test_beta_weighs_the_divergence_from_the_prior():
    m, v = np.full((8, 2), 0.3), np.full((8, 2), 0.5)
    one, three = (elbo(IMAGES, W, MU, m, v, beta) for beta in (1.0, 3.0))
    np.testing.assert_allclose((one - three) / 2, (0.3**2 + 0.5 - 1 - np.log(0.5)))


def test_elbo_takes_many_latents_and_extreme_weights():
    x, W, mu = random_model(1, 12, 40, 1e4)
    values = elbo(x, W, mu, np.ones((4, 40)), np.full((4, 40), 0.5))
    # A wide logit makes the softplus the positive part, whose Gaussian mean is known.
    a, s = np.ones((4, 40)) @ W.T + mu, np.sqrt(np.full((4, 40), 0.5) @ (W**2).T)
    kl = 40 * (1 + 0.5 - 1 - np.log(0.5)) / 2
    positive_part = a * norm.cdf(a / s) + s * norm.pdf(a / s)
    np.testing.assert_allclose(values, (x * a - positive_part).sum(axis=1) - kl, rtol=1e-8)


def assert_encoder_is_optimal(encoder, beta):
    """Compare an `optimal_encoder` with a general optimiser that knows nothing of its equations."""
    x = np.vstack([IMAGES[2:5], GREY])
    m, v = encoder(x, W, MU, beta)
    best = elbo(x, W, MU, m, v, beta)
    for i in range(len(x)):
        objective = lambda q: -elbo(x[i : i + 1], W, MU, [q[:2]], [np.exp(q[2:])], beta)[0]  # noqa: B023, E731
        found = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
        assert best[i] == pytest.approx(-found.fun, abs=1e-9)
        np.testing.assert_allclose(np.r_[m[i], np.log(v[i])], found.x, atol=1e-4)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_optimal_encoder_against_a_general_optimiser(beta):
    assert_encoder_is_optimal(optimal_encoder, beta)


def mutant(function, old, new):
    """The function with `old` in its source replaced by `new`."""
    source = inspect.getsource(function)
    assert old in source, f"{function.__name__} no longer contains {old!r}"
    namespace = dict(vars(bernoulli))
    exec(source.replace(old, new), namespace)
    return namespace[function.__name__]


@pytest.mark.parametrize(("old", "new"), [("W**2 / beta)", "W**2)"), ("spread, W, m, beta)", "spread, W, m, 1.0)")])
def test_an_encoder_without_beta_is_noticed(old, new):
    with pytest.raises((AssertionError, ValueError)):  # or by the function itself, whose equations then do not hold
        assert_encoder_is_optimal(mutant(optimal_encoder, old, new), 4.0)


def test_optimal_encoder_of_no_weights_is_the_prior():
    m, v = optimal_encoder(IMAGES, np.zeros((3, 4)), MU)
    assert (m == 0).all() and (v == 1).all()


def test_optimal_encoder_of_large_weights():
    x, W, mu = random_model(3, 10, 2, 10.0, count=2)
    m, v = optimal_encoder(x, W, mu)
    best, rng = elbo(x, W, mu, m, v), np.random.default_rng(0)
    for _ in range(20):
        near = elbo(x, W, mu, m + 0.02 * rng.standard_normal(m.shape), v * np.exp(0.1 * rng.standard_normal(v.shape)))
        assert (near <= best).all()


# Collapse


def test_threshold_of_copies_is_their_number():
    coin = np.array([[0], [1], [1]])
    for n in (1, 2, 7):
        assert collapse_threshold(np.repeat(coin, n, axis=1)) == pytest.approx(n, rel=1e-12)
    assert collapse_threshold(np.hstack([coin, 1 - coin])) == pytest.approx(2, rel=1e-12)  # a negative copes as well


def test_threshold_of_independent_pixels():
    assert collapse_threshold(IMAGES) == pytest.approx(1, rel=1e-12)
    coins = np.random.default_rng(0).random((200_000, 3)) < [0.2, 0.5, 0.9]
    assert collapse_threshold(coins) == pytest.approx(1, abs=0.02)


def test_threshold_of_two_correlated_coins_is_one_plus_the_correlation():
    x = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [4, 1, 1, 4], axis=0)
    assert collapse_threshold(x) == pytest.approx(1.6, rel=1e-12)


def test_threshold_of_the_digits():
    ink = data.digits() > 0.5
    varies = ink.any(axis=0) & ~ink.all(axis=0)
    largest = np.linalg.eigvalsh(np.corrcoef(ink[:, varies].T))[-1]
    assert collapse_threshold(ink) == pytest.approx(largest, rel=1e-10)
    assert collapse_threshold(ink) == pytest.approx(4.76, abs=0.005)
    assert collapse_threshold(ink.astype(np.float32)) == collapse_threshold(ink)


def test_threshold_of_grey_pixels_scales_with_the_squared_contrast():
    grey = data.digits()
    p = grey.mean(axis=0)
    assert collapse_threshold(p + 0.4 * (grey - p)) == pytest.approx(0.16 * collapse_threshold(grey), rel=1e-9)
    assert collapse_threshold(p + 0.4 * (grey - p)) < 1


def test_threshold_drops_constant_pixels():
    x = np.array([[0.0, 1], [1, 0], [1, 1], [0, 0], [1, 1]])
    constants = np.column_stack([np.zeros(5), x, np.ones(5), np.full(5, 0.1)])
    assert collapse_threshold(constants) == pytest.approx(collapse_threshold(x), rel=1e-12)


def covariance_and_coins(x):
    p = x.mean(axis=0)
    return np.cov(x.T, bias=True), np.diag(p * (1 - p)), logit(p)


@pytest.mark.parametrize("grey", [False, True])
def test_hessian_at_collapse(grey):
    x = IMAGES[[0, 0, 1, 2, 3, 3, 3, 4, 5, 7, 7]]
    if grey:
        x = 0.2 + 0.7 * x
    S, A, mu = covariance_and_coins(x)
    level = lambda w: log_marginal(x, w[:, None], mu).mean()  # noqa: E731
    h, units = 0.02, np.eye(3)
    hessian = np.array([[level(h * (a + b)) - level(h * (a - b)) for b in units] for a in units]) / (2 * h**2)
    np.testing.assert_allclose(hessian, S - A, atol=3e-4)


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_beta_elbo_rises_below_the_threshold_and_falls_above(ratio):
    x = IMAGES[[0, 0, 1, 2, 3, 3, 3, 4, 5, 7, 7]]
    S, A, mu = covariance_and_coins(x)
    beta = ratio * collapse_threshold(x)
    scale = np.diag(A) ** -0.5
    u = np.linalg.eigh(S * np.outer(scale, scale))[1][:, -1] * scale
    w = 0.02 * (u / np.linalg.norm(u))[:, None]
    gain = (elbo(x, w, mu, *optimal_encoder(x, w, mu, beta), beta) - log_marginal(x, 0 * w, mu)).mean()
    assert gain == pytest.approx(w[:, 0] @ (S / beta - A) @ w[:, 0] / 2, rel=0.02)
    assert (gain > 0) == (ratio < 1)


FEW = IMAGES[[0, 0, 1, 2, 3, 3, 3, 4, 5, 7, 7]]
FEW_GREY = 0.1 + FEW @ np.diag([0.8, 0.5, 0.7])


def assert_threshold_is_where_the_curvature_changes_sign(threshold, x):
    """Compare a threshold with the beta at which a small step along the best direction neither gains nor loses."""
    S, A, mu = covariance_and_coins(x)
    w = 0.005 * eigh(S, A)[1][:, -1:]
    level = log_marginal(x, 0 * w, mu).mean()
    gain = lambda beta: elbo(x, w, mu, *optimal_encoder(x, w, mu, beta), beta).mean() - level  # noqa: E731
    assert threshold(x) == pytest.approx(brentq(gain, 0.1, 3, xtol=1e-8), rel=2e-4)


@pytest.mark.parametrize("x", [FEW, FEW_GREY], ids=["binary", "grey"])
def test_threshold_is_where_the_curvature_changes_sign(x):
    assert_threshold_is_where_the_curvature_changes_sign(collapse_threshold, x)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("moments.mean * (1 - moments.mean)", "np.diag(moments.covariance)"),
        ("eigh(moments.covariance *", "eigh(moments.covariance * len(x) / (len(x) - 1) *"),
        ("[last, last]", "[0, 0]"),
    ],
)
def test_another_threshold_is_noticed(old, new):
    changed = mutant(collapse_threshold, old, new)
    with pytest.raises(AssertionError):
        for x in (FEW, FEW_GREY):
            assert_threshold_is_where_the_curvature_changes_sign(changed, x)


# At the threshold


def fourth_order(x):
    """Coefficient of step^4 in the gain along the leading direction at the threshold, and that direction."""
    S, A, _ = covariance_and_coins(x)
    values, directions = eigh(S, A)
    e = np.sqrt(np.diag(A)) * directions[:, -1]
    return ((e**4).sum() - 1 / values[-1]) / 4, directions[:, -1], values[-1]


def best_gain(x, u, beta, step):
    """Gain over collapse at W = step u with the best offset and the best q."""
    mu, w = logit(x.mean(axis=0)), step * u[:, None]

    def objective(offset):
        m, v = optimal_encoder(x, w, offset, beta)
        y = bernoulli.gaussian_logistic(m @ w.T + offset, np.sqrt(v @ (w**2).T))[1]
        return -elbo(x, w, offset, m, v, beta).mean(), -(x - y).mean(axis=0)

    found = minimize(objective, mu, jac=True, method="BFGS", options={"gtol": 1e-12})
    return -found.fun - log_marginal(x, 0 * w, mu).mean()


@pytest.mark.parametrize("x", [FEW, FEW_GREY], ids=["binary", "grey"])
def test_gain_at_the_threshold_is_of_fourth_order_and_not_positive(x):
    coefficient, u, threshold = fourth_order(x)
    assert coefficient < 0
    gains = np.array([best_gain(x, u, threshold, step) / step**4 for step in (0.1, 0.2)])
    assert (4 * gains[0] - gains[1]) / 3 == pytest.approx(coefficient, rel=5e-3)  # free of the next order


def test_gain_at_the_threshold_is_flat_for_copies_of_one_coin():
    coefficient, _, threshold = fourth_order(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
    assert threshold == pytest.approx(2)
    assert coefficient == pytest.approx(0, abs=1e-14)


def test_an_affine_encoder_gains_as_much_to_fourth_order():
    _, A, mu = covariance_and_coins(FEW)
    _, u, threshold = fourth_order(FEW)
    beta, loss = 0.9 * threshold, []
    for step in (0.1, 0.05):
        w = step * u[:, None]
        m, v = (FEW - FEW.mean(axis=0)) @ w / beta, np.full((len(FEW), 1), 1 - step**2 * (u @ A @ u) / beta)
        loss.append((elbo(FEW, w, mu, *optimal_encoder(FEW, w, mu, beta), beta) - elbo(FEW, w, mu, m, v, beta)).mean())
    assert loss[0] < 1e-4 * 0.1**2
    assert loss[0] / loss[1] == pytest.approx(2**6, rel=0.2)


# Input


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
def test_awkward_types_give_the_same_numbers(dtype):
    x = IMAGES.astype(dtype)
    np.testing.assert_array_equal(log_marginal(x, W, MU), log_marginal(IMAGES, W, MU))
    m, v = np.zeros((8, 2), np.float32), np.ones((8, 2), int)
    np.testing.assert_array_equal(elbo(x, W, MU, m, v), elbo(IMAGES, W, MU, m, v))
    single = log_marginal(IMAGES, W.astype(np.float32), MU.astype(np.float32))
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, log_marginal(IMAGES, W, MU), atol=1e-6)


ONE = np.ones((8, 2))
BAD = [
    (lambda: log_marginal(IMAGES + 0.5, W, MU), "x has values"),
    (lambda: log_marginal(-IMAGES, W, MU), "x has values"),
    (lambda: log_marginal(IMAGES[0], W, MU), "x has shape"),
    (lambda: log_marginal(IMAGES[:, :2], W, MU), "W has shape"),
    (lambda: log_marginal(IMAGES[:0], W, MU), "x has shape"),
    (lambda: log_marginal(IMAGES * np.nan, W, MU), "x contains NaN"),
    (lambda: log_marginal(IMAGES, W * np.inf, MU), "W contains NaN"),
    (lambda: log_marginal(IMAGES, W, MU[:2]), "mu has shape"),
    (lambda: log_marginal(IMAGES, np.zeros((3, 4)), MU), "W has k = 4"),
    (lambda: log_marginal(IMAGES, W + 1j, MU), "W is complex"),
    (lambda: bernoulli.log_conditional(IMAGES, ONE[:7], W, MU), "z has shape"),
    (lambda: elbo(IMAGES, W, MU, ONE[:7], ONE), "m has shape"),
    (lambda: elbo(IMAGES, W, MU, ONE, ONE[:, :1]), "v has shape"),
    (lambda: elbo(IMAGES, W, MU, ONE, 0 * ONE), "v has the entry"),
    (lambda: elbo(IMAGES, W, MU, ONE, -ONE), "v has the entry"),
    (lambda: elbo(IMAGES, W, MU, ONE, ONE, beta=0), "beta is"),
    (lambda: bernoulli.expected_log_likelihood(IMAGES, W, MU, ONE * np.nan, ONE), "m contains"),
    (lambda: optimal_encoder(IMAGES, W, MU, beta=-1), "beta is"),
    (lambda: bernoulli.logit_normal_log_density([[0.0, 0.5]], W[:2], MU[:2]), "y has values"),
    (lambda: bernoulli.logit_normal_log_density([[1.5, 0.5]], W[:2], MU[:2]), "y has values"),
    (lambda: bernoulli.gaussian_logistic([np.nan], [1.0]), "a contains NaN"),
    (lambda: bernoulli.gaussian_logistic([1.0], [np.inf]), "s contains NaN"),
    (lambda: bernoulli.gaussian_logistic([1.0], [-1.0]), "s has the entry"),
    (lambda: bernoulli.gaussian_logistic(["1"], [1.0]), "a is"),
    (lambda: bernoulli.gaussian_logistic(np.ones(2), np.ones(3)), "s has shape"),
    (lambda: log_marginal(IMAGES, 1e160 * W, MU), "W reaches"),
    (lambda: elbo(IMAGES, W, MU, 1e160 * ONE, ONE), "m reaches"),
    (lambda: bernoulli.log_conditional(IMAGES, 1e160 * ONE, W, MU), "z reaches"),
    (lambda: collapse_threshold(2 * IMAGES), "x has values"),
    (lambda: collapse_threshold(IMAGES[:1]), "no pixel that varies"),
    (lambda: collapse_threshold(np.full((5, 3), 0.3)), "no pixel that varies"),
    (lambda: collapse_threshold(["a"]), "x is"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message + f" {i}" for i, (_, message) in enumerate(BAD)])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_density_beyond_float64_is_no_infinity():
    y, W = np.array([[0.5, 0.25]]), np.diag([1.0, 2.0])
    with pytest.raises(ValueError, match="W has the singular value 1e-200, at which log f"):
        bernoulli.logit_normal_log_density(y, W * 1e-200, np.zeros(2))
    assert bernoulli.logit_normal_log_density(y, W * 1e-100, np.zeros(2)) < -1e199


@pytest.mark.parametrize(("beta", "scale"), [(1e-20, 1.0), (1e-300, 1.0), (1.0, 1e20)])
def test_an_encoder_that_rounding_decides_is_refused(beta, scale):
    """At 1e-20 its variances were off by a factor of 1,000, and with W large its means wholly."""
    W, mu = scale * np.array([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]]), np.array([1.0, 0.0, -2.0])
    with pytest.raises(ValueError, match=f"beta is {beta:g} beside W up to"):
        optimal_encoder([[1.0, 1.0, 0.0]], W, mu, beta)


@pytest.mark.parametrize("beta", [1e-14, 1e-8, 1e300])
def test_an_extreme_weight_has_its_encoder_all_the_same(beta):
    x, W, mu = np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]]), np.array([1.0, 0.0, -2.0])
    m, v = optimal_encoder(x, W, mu, beta)
    mean, spread = m @ W.T + mu, np.sqrt(v @ (W**2).T)
    _, y, slope = bernoulli.gaussian_logistic(mean, spread)
    np.testing.assert_allclose(beta * m, (x - y) @ W, rtol=1e-2, atol=1e-300)
    np.testing.assert_allclose(1 / v, 1 + slope @ W**2 / beta, rtol=1e-3)


# Properties


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 2), st.floats(0.01, 4), st.booleans())
def test_elbo_never_exceeds_log_marginal(seed, n, k, scale, grey):
    x, W, mu = random_model(seed, n, k, scale)
    rng = np.random.default_rng(seed + 1)
    if grey:
        x = rng.random(x.shape)
    m, v = rng.standard_normal((4, k)), np.exp(rng.standard_normal((4, k)))
    best = elbo(x, W, mu, *optimal_encoder(x, W, mu))
    assert (elbo(x, W, mu, m, v) <= best + 1e-9).all()
    assert (best <= log_marginal(x, W, mu) + 1e-9).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 3), st.floats(0.01, 0.6))
def test_log_marginal_does_not_see_a_rotation(seed, k, scale):
    x, W, mu = random_model(seed, 4, k, scale)
    R = ortho_group(k, seed=seed).rvs()
    np.testing.assert_allclose(log_marginal(x, W @ R, mu), log_marginal(x, W, mu), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(3, 30))
def test_binary_threshold_is_between_one_and_n(seed, n, count):
    rng = np.random.default_rng(seed)
    x = rng.random((count, n)) < 0.5
    varying = x[:, x.any(axis=0) & ~x.all(axis=0)].shape[1]
    if varying:
        assert 1 - 1e-9 <= collapse_threshold(x) <= varying + 1e-9
        assert collapse_threshold(~x) == pytest.approx(collapse_threshold(x), rel=1e-9)
