"""The linear VAE against autograd, finite differences, Monte Carlo and pPCA; and the paper's misprints."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.optimize import minimize
from scipy.stats import ortho_group

from helpers import data, linear_vae, ppca, spectrum
from helpers.linear_vae import LinearVAE, fit, optimal_encoder, posterior_gap, profile_elbo, profile_gradient
from helpers.moments import Moments
from helpers.ppca import PPCA

seeds = st.integers(0, 2**31)
noises = st.sampled_from([1e-10, 1e-3, 0.5, 2.0, 1e3, 1e10])


def problem(seed=0, n=6, k=3, count=80):
    """Correlated samples, their moments, and a generic linear VAE whose mu is not the mean."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, n)) @ rng.standard_normal((n, n)) + 2
    W, V = rng.standard_normal((n, k)), rng.standard_normal((k, n)) / n
    model = LinearVAE(W, V, rng.uniform(0.1, 2, k), rng.standard_normal(n), rng.uniform(0.2, 2))
    return x, Moments.from_samples(x), model


def with_eigenvalues(eigenvalues, seed=0):
    n = len(eigenvalues)
    Q = ortho_group(n, seed=seed).rvs() if n > 1 else np.eye(1)  # older SciPy refuses 1
    return Moments(np.arange(len(eigenvalues)), Q * np.asarray(eigenvalues, float) @ Q.T, 100)


def best(moments, k, sigma2, beta=1.0):
    """The linear VAE that the theory says is best: the top eigenvectors, scaled by (lambda - beta sigma2)_+."""
    scales = np.sqrt(np.maximum(moments.eigenvalues[:k] - beta * sigma2, 0))
    W = moments.eigenvectors[:, :k] * scales
    return LinearVAE(W, *optimal_encoder(W, sigma2, beta), moments.mean, sigma2)


def torch_terms(W, V, D, mu, sigma2, x):
    """Eqs 15 and 16 sample by sample through torch.distributions, and what the encoder's variances add."""
    q = torch.distributions.Normal((x - mu) @ V.T, D.sqrt().expand(len(x), -1))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(D), 1)).sum(1).mean()
    noise = torch.distributions.Normal(q.mean @ W.T + mu, torch.sqrt(sigma2))
    spread = (W**2 @ D).sum() / (2 * sigma2)
    return kl, noise.log_prob(x).sum(1).mean() - spread


def as_torch(model):
    return [
        torch.tensor(getattr(model, name), dtype=torch.float64, requires_grad=True)
        for name in ("W", "V", "D", "mu", "sigma2")
    ]


def central_difference(f, at, step=1e-6):
    """Derivative of a scalar function in every entry of an array."""
    at = np.asarray(at, float)
    out = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        shift = np.zeros(at.shape)
        shift[index] = step
        out[index] = (f(at + shift) - f(at - shift)) / (2 * step)
    return out


# --- the two terms of the ELBO --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 6))
def test_terms_agree_with_torch_for_any_mu(seed, k):
    x, moments, model = problem(seed, k=k)
    kl, reconstruction = torch_terms(*as_torch(model), torch.tensor(x))
    terms = model.terms(moments)
    assert terms.kl == pytest.approx(kl.item(), rel=1e-9)
    assert terms.reconstruction == pytest.approx(reconstruction.item(), rel=1e-9)


def test_terms_agree_with_monte_carlo():
    x, moments, model = problem()
    rng = np.random.default_rng(1)
    draws = 4000
    z = (x - model.mu) @ model.V.T + np.sqrt(model.D) * rng.standard_normal((draws, len(x), 3))
    squares = ((x - model.mu - z @ model.W.T) ** 2).sum(axis=2)
    log_px = -squares / (2 * model.sigma2) - 3 * np.log(2 * np.pi * model.sigma2)
    log_q = -(((z - (x - model.mu) @ model.V.T) ** 2 / model.D + np.log(2 * np.pi * model.D)).sum(axis=2)) / 2
    log_prior = -((z**2 + np.log(2 * np.pi)).sum(axis=2)) / 2
    for value, sampled in zip(model.terms(moments), (log_q - log_prior, log_px), strict=True):
        per_draw = sampled.mean(axis=1)
        assert abs(value - per_draw.mean()) < 5 * per_draw.std() / np.sqrt(draws)


def test_terms_on_a_case_by_hand():
    """n = k = 1 with unit variance: E(x - wz)^2 = (1 - wv)^2 + w^2 d."""
    moments = Moments([3.0], [[1.0]], 10)
    model = LinearVAE([[2.0]], [[0.25]], [0.5], [3.0], 0.8)
    kl, reconstruction = model.terms(moments)
    assert kl == pytest.approx((0.25**2 + 0.5 - 1 - np.log(0.5)) / 2)
    assert reconstruction == pytest.approx(-((0.25 + 4 * 0.5) / 0.8 + np.log(2 * np.pi * 0.8)) / 2)
    assert model.elbo(moments, 0.3) == pytest.approx(reconstruction - 0.3 * kl)


def test_elbo_weighs_the_kl_term():
    _, moments, model = problem()
    kl, reconstruction = model.terms(moments)
    assert model.elbo(moments) == reconstruction - kl
    assert model.elbo(moments, 0) == reconstruction
    assert model.elbo(moments, beta=2.5) == reconstruction - 2.5 * kl


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seeds, noises, st.integers(1, 6))
def test_elbo_is_a_bound_that_the_best_encoder_misses_by_the_gap(seed, sigma2, k):
    _, moments, model = problem(seed, k=k)
    W, n = model.W, 6
    log_p = PPCA(W, model.mu, sigma2).log_likelihood(moments)
    other = LinearVAE(W, model.V, model.D, model.mu, sigma2)
    tight = LinearVAE(W, *optimal_encoder(W, sigma2), model.mu, sigma2)
    rounding = 1e-11 * (abs(log_p) + n)
    assert other.elbo(moments) <= log_p + rounding
    assert other.elbo(moments) <= tight.elbo(moments) + rounding
    assert log_p - tight.elbo(moments) == pytest.approx(posterior_gap(W, sigma2), abs=rounding)
    assert other.log_likelihood(moments) == log_p


def test_bound_is_tight_if_and_only_if_the_columns_are_orthogonal():
    _, moments, model = problem()
    U, l, _ = np.linalg.svd(model.W, full_matrices=False)
    for W, tight in ((U * l, True), (U * l * [1, -1, 0], True), (model.W, False)):
        vae = LinearVAE(W, *optimal_encoder(W, 0.7), model.mu, 0.7)
        gap = vae.log_likelihood(moments) - vae.elbo(moments)
        assert (abs(gap) < 1e-11) == tight and (posterior_gap(W, 0.7) < 1e-25) == tight


def test_below_one_beta_gives_more_than_the_elbo_and_can_exceed_the_likelihood():
    """The paper calls it a loose lower bound on the ELBO: it is an upper one."""
    _, moments, _ = problem()
    vae = best(moments, 3, 0.5)
    assert vae.elbo(moments, 0.5) > vae.log_likelihood(moments) > vae.elbo(moments) - 1e-9


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds, st.floats(0.05, 20))
def test_beta_amounts_to_another_noise(seed, beta):
    """L_beta(s) + c(s) = beta [ELBO(beta s) + c(beta s)] with c(s) = (n / 2) log 2 pi s."""
    _, moments, model = problem(seed)
    s = model.sigma2
    other = LinearVAE(model.W, model.V, model.D, model.mu, beta * s)

    def c(noise):
        return 3 * np.log(2 * np.pi * noise)

    right = beta * (other.elbo(moments) + c(beta * s))
    assert model.elbo(moments, beta) + c(s) == pytest.approx(right, rel=1e-10)


# --- Eq 13: what a rescaling of the latents leaves alone --------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds)
def test_rescaled_latents_reconstruct_the_same_under_another_elbo(seed):
    _, moments, model = problem(seed)
    a = np.random.default_rng(seed).uniform(1.5, 3, 3) * [1, -1, 1]
    scaled = LinearVAE(model.W * a, model.V / a[:, None], model.D / a**2, model.mu, model.sigma2)
    np.testing.assert_allclose(scaled.W @ scaled.V, model.W @ model.V, rtol=1e-9, atol=1e-12)
    before, after = model.terms(moments), scaled.terms(moments)
    assert after.reconstruction == pytest.approx(before.reconstruction, rel=1e-10)
    assert abs(after.kl - before.kl) > 1e-3


def test_with_free_variances_only_signs_and_order_are_left_open():
    moments = with_eigenvalues([6, 4, 2.5, 0.4, 0.3])
    vae = best(moments, 3, 0.35)
    for change in (np.diag([1.0, -1, 1]), np.eye(3)[[2, 0, 1]]):
        same = LinearVAE(vae.W @ change, change.T @ vae.V, change.T**2 @ vae.D, vae.mu, vae.sigma2)
        assert same.elbo(moments) == pytest.approx(vae.elbo(moments), abs=1e-12)
    R = ortho_group(3, seed=0).rvs()
    assert profile_elbo(vae.W @ R, moments, 0.35) < vae.elbo(moments) - 1e-2
    a = np.array([1.2, 1, 1])
    scaled = LinearVAE(vae.W * a, vae.V / a[:, None], vae.D / a**2, vae.mu, vae.sigma2)
    assert scaled.elbo(moments) < vae.elbo(moments) - 1e-2


def test_unit_variances_bring_no_unique_maximum():
    """With D = I every rotation of the latents keeps the ELBO, and the maximum is lower than with D free."""
    moments = with_eigenvalues([6, 4, 2.5, 0.4, 0.3])
    _, _, model = problem(n=5, k=3)
    R = ortho_group(3, seed=0).rvs()
    before = LinearVAE(model.W, model.V, np.ones(3), model.mu, 0.35)
    after = LinearVAE(model.W @ R, R.T @ model.V, np.ones(3), model.mu, 0.35)
    assert after.elbo(moments) == pytest.approx(before.elbo(moments), rel=1e-12)

    def negative(parameters):
        W, V = parameters[:15].reshape(5, 3), parameters[15:].reshape(3, 5)
        vae = LinearVAE(W, V, np.ones(3), moments.mean, 0.35)
        gradients = vae.gradients(moments)
        return -vae.elbo(moments), -np.concatenate([gradients.W.ravel(), gradients.V.ravel()])

    starts = (np.random.default_rng(seed).standard_normal(30) for seed in range(4))
    lowered = max(-minimize(negative, start, jac=True).fun for start in starts)
    assert lowered < best(moments, 3, 0.35).elbo(moments) - 1


# --- gradients ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0, 4.0]))
def test_gradients_agree_with_autograd(seed, k, beta):
    x, moments, model = problem(seed, k=k)
    parameters = as_torch(model)
    kl, reconstruction = torch_terms(*parameters, torch.tensor(x))
    (reconstruction - beta * kl).backward()
    gradients = model.gradients(moments, beta)
    for name, parameter in zip(("W", "V", "D", "mu", "sigma2"), parameters, strict=True):
        if name != "mu":
            expected = parameter.grad.numpy()
            np.testing.assert_allclose(getattr(gradients, name), expected, atol=1e-9 * np.abs(expected).max() + 1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", ["W", "V", "D", "sigma2"])
def test_gradients_agree_with_finite_differences(name, beta):
    _, moments, model = problem()
    given_ = {field: getattr(model, field) for field in ("W", "V", "D", "mu", "sigma2")}
    expected = central_difference(lambda v: LinearVAE(**given_ | {name: v}).elbo(moments, beta), given_[name])
    np.testing.assert_allclose(getattr(model.gradients(moments, beta), name), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_profile_gradient_agrees_with_finite_differences(beta):
    _, moments, model = problem()
    expected = central_difference(lambda W: profile_elbo(W, moments, 0.7, beta), model.W)
    np.testing.assert_allclose(profile_gradient(model.W, moments, 0.7, beta), expected, rtol=1e-6, atol=1e-6)
    vae = LinearVAE(model.W, *optimal_encoder(model.W, 0.7, beta), moments.mean, 0.7)
    np.testing.assert_allclose(profile_gradient(model.W, moments, 0.7, beta), vae.gradients(moments, beta).W, atol=1e-9)


def test_profile_elbo_is_the_likelihood_less_the_gap():
    _, moments, model = problem()
    log_p = PPCA(model.W, moments.mean, 0.7).log_likelihood(moments)
    assert profile_elbo(model.W, moments, 0.7) == pytest.approx(log_p - posterior_gap(model.W, 0.7), abs=1e-10)


# --- the best encoder and the gap ------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds, st.sampled_from([0.2, 1.0, 5.0]), st.integers(1, 6))
def test_optimal_encoder_is_stationary_and_beats_its_neighbours(seed, beta, k):
    _, moments, model = problem(seed, k=k)
    V, D = optimal_encoder(model.W, model.sigma2, beta)
    vae = LinearVAE(model.W, V, D, model.mu, model.sigma2)
    gradients = vae.gradients(moments, beta)
    size = np.abs(model.gradients(moments, beta).V).max()
    assert np.abs(gradients.V).max() < 1e-9 * size and np.abs(gradients.D).max() < 1e-9 / D.min()
    rng = np.random.default_rng(seed)
    for step in (1e-3, 0.1, 1.0):
        near_V = V + step * rng.standard_normal(V.shape)
        near_D = D * np.exp(step * rng.standard_normal(k))
        near = LinearVAE(model.W, near_V, near_D, model.mu, model.sigma2)
        assert near.elbo(moments, beta) < vae.elbo(moments, beta)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 6))
def test_optimal_encoder_has_the_mean_of_the_posterior_and_its_conditional_variances(seed, k):
    x, _, model = problem(seed, k=k)
    V, D = optimal_encoder(model.W, model.sigma2)
    means, covariance = PPCA(model.W, model.mu, model.sigma2).posterior(x)
    np.testing.assert_allclose((x - model.mu) @ V.T, means, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(D, 1 / np.diag(np.linalg.inv(covariance)), rtol=1e-8)


def test_encoder_of_a_collapsed_decoder_is_the_prior():
    for sigma2 in (1e-10, 1.0, 1e10):
        V, D = optimal_encoder(np.zeros((4, 2)), sigma2)
        assert (V == 0).all() and (D == 1).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, st.integers(2, 6), st.floats(0.05, 50))
def test_posterior_gap_is_the_kl_to_the_true_posterior(seed, k, sigma2):
    x, _, model = problem(seed, k=k)
    V, D = optimal_encoder(model.W, sigma2)
    means, covariance = PPCA(model.W, model.mu, sigma2).posterior(x[:1])
    normal = torch.distributions.MultivariateNormal
    q = normal(torch.tensor(V @ (x[0] - model.mu)), torch.diag(torch.tensor(D)))
    p = normal(torch.tensor(means[0]), torch.tensor(covariance))
    expected = torch.distributions.kl_divergence(q, p).item()
    assert posterior_gap(model.W, sigma2) == pytest.approx(expected, rel=1e-7, abs=1e-11)


@pytest.mark.parametrize("sigma2", [1e-10, 1e-5, 1.0, 1e5, 1e10])
def test_posterior_gap_keeps_its_digits_at_extreme_noise(sigma2):
    """For two columns with the inner product m it is -log(1 - m^2 / (M_11 M_22)) / 2."""
    orthogonal = np.array([[1.0, 2], [2, -1], [0, 0]])
    assert 0 <= posterior_gap(orthogonal, sigma2) < 1e-30
    assert posterior_gap(np.ones((3, 1)), sigma2) == 0 and posterior_gap(np.zeros((3, 2)), sigma2) == 0
    W = np.array([[1.0, 0.6], [0, 0.8]])
    expected = -np.log1p(-0.36 / (1 + sigma2) ** 2) / 2
    assert posterior_gap(W, sigma2) == pytest.approx(expected, rel=1e-5)
    # Parallel columns: 1 - m^2 / (M_11 M_22) = (2 + s) s / (1 + s)^2.
    expected = -np.log((2 + sigma2) * sigma2 / (1 + sigma2) ** 2) / 2
    assert posterior_gap(np.ones((1, 2)), sigma2) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, st.integers(2, 6))
def test_rotations_move_the_gap_which_is_the_printed_difference_of_logarithms(seed, k):
    _, _, model = problem(seed, k=k)
    R = ortho_group(k, seed=seed).rvs() if k > 1 else np.eye(1)  # older SciPy refuses 1
    M = model.W.T @ model.W + 0.7 * np.eye(k)
    expected = (np.log(np.diag(R.T @ M @ R)).sum() - np.linalg.slogdet(M)[1]) / 2
    assert posterior_gap(model.W @ R, 0.7) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    _, _, Rt = np.linalg.svd(model.W)
    assert posterior_gap(model.W @ Rt.T, 0.7) < 1e-12


# --- Theorem 1 ------------------------------------------------------------------------------------------------


def non_orthogonal_stationary_point(full=True):
    """W whose M = W^T W + s I has the equal diagonal of a 2 x 2 block with K_i = sqrt(a lambda_i) (theory)."""
    lam, s = np.array([9.0, 4.0]), 0.4
    a = np.sqrt(lam).mean() ** 2
    root = np.sqrt(np.sqrt(a * lam) - s)
    turn = np.array([[1.0, 1], [-1, 1]]) / np.sqrt(2)
    block = np.diag(root) @ turn
    if not full:
        return block, Moments(np.zeros(2), np.diag(lam), 10), s
    W = block_diag(block, [[np.sqrt(30 - s)]])
    return W, Moments(np.zeros(3), np.diag([9.0, 4, 30]), 10), s


@pytest.mark.parametrize("full", [True, False])
def test_a_stationary_point_without_orthogonal_columns_is_a_saddle(full):
    W, moments, s = non_orthogonal_stationary_point(full)
    assert np.abs(profile_gradient(W, moments, s)).max() < 1e-12
    assert np.abs(ppca.gradient(PPCA(W, moments.mean, s), moments)).max() > 1e-2
    M = W.T @ W + s * np.eye(W.shape[1])
    m, a = M[0, 1], M[0, 0]
    assert M[1, 1] == pytest.approx(a) and posterior_gap(W, s) > 0.01
    previous = profile_elbo(W, moments, s)
    for t in np.linspace(0, np.pi / 4, 10)[1:]:
        G = np.eye(len(M))
        G[:2, :2] = [[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]
        value = profile_elbo(W @ G, moments, s)
        gain = np.log(1 - (m / a) ** 2 * np.sin(2 * t) ** 2) / -2
        assert value > previous
        assert value - profile_elbo(W, moments, s) == pytest.approx(gain, abs=1e-12)
        previous = value


# --- the paper's misprints: the printed form fails, the corrected one holds -------------------------------------


def test_erratum_17_quadratic_term_of_z():
    """Printed: -W^T W z, a vector; meant: -z^T W^T W z."""
    x, _, model = problem()
    z, y = np.random.default_rng(1).standard_normal(3), x[0] - model.mu
    exact = -((y - model.W @ z) ** 2).sum()
    rest = 2 * y @ model.W @ z - y @ y
    printed = -model.W.T @ model.W @ z
    assert printed.shape == (3,) and not np.isclose(printed.sum() + rest, exact)
    assert -z @ model.W.T @ model.W @ z + rest == pytest.approx(exact)


def test_erratum_18_19_the_bracket():
    """Printed with the bracket closed after the first two terms; all four are over 2 sigma^2."""
    _, moments, model = problem()
    deviation = moments.mean - model.mu
    G = moments.covariance + np.outer(deviation, deviation)
    W, V, s = model.W, model.V, model.sigma2
    first = -np.trace(W * model.D @ W.T) - np.trace(V.T @ W.T @ W @ V @ G)
    second = 2 * np.trace(W @ V @ G) - np.trace(G)
    constant = -3 * np.log(2 * np.pi * s)
    value = model.terms(moments).reconstruction
    assert (first + second) / (2 * s) + constant == pytest.approx(value, rel=1e-10)
    assert abs(first / (2 * s) + second + constant - value) > 0.1


def test_erratum_21_the_encoder_is_free_where_the_data_have_no_variance():
    moments = with_eigenvalues([4, 2, 1, 0, 0])
    _, _, model = problem(n=5, k=2)
    V, D = optimal_encoder(model.W, 0.5)
    free = np.random.default_rng(0).standard_normal((2, 2)) @ moments.eigenvectors[:, 3:].T
    one, other = (LinearVAE(model.W, each, D, moments.mean, 0.5) for each in (V, V + free))
    assert other.elbo(moments) == pytest.approx(one.elbo(moments), rel=1e-12)
    assert np.abs(other.gradients(moments).V).max() < 1e-12


def test_erratum_22_the_order_of_a_product():
    """Printed: D W, which has no shape unless n = k; meant: W D."""
    _, moments, model = problem(n=4, k=4)
    deviation = moments.mean - model.mu
    G = moments.covariance + np.outer(deviation, deviation)
    W, V, D = model.W, model.V, np.diag(model.D)
    exact = central_difference(lambda W: LinearVAE(W, V, model.D, model.mu, model.sigma2).elbo(moments), model.W)
    common = G @ V.T - W @ V @ G @ V.T
    np.testing.assert_allclose((common - W @ D) / model.sigma2, exact, rtol=1e-5, atol=1e-6)
    assert np.abs((common - D @ W) / model.sigma2 - exact).max() > 0.1


def test_erratum_after_22_the_noise_that_is_best():
    _, moments, model = problem()
    s, n = model.sigma2, 6
    error = 2 * s * (-model.terms(moments).reconstruction - n / 2 * np.log(2 * np.pi * s))
    at_best = LinearVAE(model.W, model.V, model.D, model.mu, error / n)
    assert abs(at_best.gradients(moments).sigma2) < 1e-12 < abs(model.gradients(moments).sigma2)


def test_erratum_24_the_trace_is_of_m_with_the_other_m():
    """Printed: tr(M M^-1), equal to q whatever D is; meant: tr(M Mt^-1), equal to q because Mt is M's diagonal."""
    _, _, model = problem()
    s = model.sigma2
    M = model.W.T @ model.W + s * np.eye(3)
    for D in (s / np.diag(M), model.D):
        exact = torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.diag(torch.tensor(D))),
            torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.tensor(s * np.linalg.inv(M))),
        ).item()
        Mt_inverse = np.diag(D) / s  # what (24) writes for D, with its D put in
        log_ratio = np.linalg.slogdet(M)[1] + np.linalg.slogdet(Mt_inverse)[1]
        assert (np.trace(M @ Mt_inverse) - 3 - log_ratio) / 2 == pytest.approx(exact, rel=1e-9)
        printed = (np.trace(M @ np.linalg.inv(M)) - 3 - log_ratio) / 2
        assert np.isclose(printed, exact) == (D is not model.D)


# --- the fit --------------------------------------------------------------------------------------------------


def aligned(vae, moments):
    """|cos| of each column with its eigenvector, where the eigenvalue stands clear of its neighbours."""
    lam = moments.eigenvalues
    k = vae.W.shape[1]
    spacing = np.abs(np.diff(lam)) / np.maximum(lam[:-1], 1e-300)
    clear = np.minimum(np.append(np.inf, spacing), np.append(spacing, np.inf))[:k] > 1e-3
    norms = np.linalg.norm(vae.W, axis=0)
    cosines = np.abs((vae.W * moments.eigenvectors[:, :k]).sum(axis=0)) / np.maximum(norms, 1e-300)
    return cosines[clear & (norms > 1e-3 * norms.max())]


@pytest.fixture(scope="module")
def digits():
    return Moments.from_samples(data.digits())


@pytest.mark.parametrize("k", [1, 5, 20, 40, 60])
def test_fit_reaches_the_maximum_likelihood_on_digits(digits, k):
    for seed in range(2):
        vae = fit(digits, k, seed=seed)
        assert vae.elbo(digits) == pytest.approx(ppca.max_log_likelihood(digits)[k - 1], abs=1e-9)
        assert vae.sigma2 == pytest.approx(ppca.fit(digits, k).sigma2, rel=1e-6)
        assert aligned(vae, digits).min() > 0.999999
        assert (np.diff((vae.W**2).sum(axis=0)) < 1e-9).all()


@pytest.mark.parametrize("sigma2", [1e-10, 1e-3, 0.3, 1e3, 1e10])
@pytest.mark.parametrize("k", [1, 8, 63, 64])
def test_fit_at_a_fixed_noise_on_digits(digits, k, sigma2):
    expected = ppca.fit(digits, k, sigma2).log_likelihood(digits)
    vae = fit(digits, k, sigma2)
    resolution = 1e-9 + 1e-13 * np.trace(digits.covariance) / sigma2
    assert vae.sigma2 == sigma2 and vae.elbo(digits) == pytest.approx(expected, abs=resolution)
    assert vae.log_likelihood(digits) - vae.elbo(digits) < resolution


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("sigma2", [None, 0.05, 1.0])
def test_fit_at_any_beta_ends_where_the_spectrum_predicts(beta, sigma2):
    moments, k = with_eigenvalues([6, 5, 3, 2.5, 1, 0.7, 0.5, 0.3]), 5
    vae = fit(moments, k, sigma2, beta)
    s = spectrum.learned_sigma2(moments.eigenvalues, k, beta) if sigma2 is None else sigma2
    lengths = np.maximum(moments.eigenvalues[:k] - beta * s, 0)
    assert vae.sigma2 == pytest.approx(s, rel=1e-7)
    # At a tie, lambda = beta s, a column shrinks only as one over the number of updates, and costs its square.
    np.testing.assert_allclose((vae.W**2).sum(axis=0), lengths, atol=3e-5)
    np.testing.assert_allclose(vae.D, spectrum.encoder_variances(moments.eigenvalues[:k], s, beta), atol=3e-5)
    assert vae.elbo(moments, beta) == pytest.approx(best(moments, k, s, beta).elbo(moments, beta), abs=1e-9)
    assert vae.elbo(moments) == pytest.approx(spectrum.elbo(moments.eigenvalues, k, s, beta), abs=1e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 5), st.sampled_from([None, 0.05, 1.0, 20.0]))
def test_fit_is_the_best_and_every_start_agrees(seed, k, sigma2):
    _, moments, _ = problem(seed)
    expected = ppca.fit(moments, k, sigma2).log_likelihood(moments)
    for start in range(2):
        assert fit(moments, k, sigma2, seed=start).elbo(moments) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("eigenvalues", "k", "sigma2"),
    [
        ([4, 4, 4, 2, 2, 1], 2, None),  # the cut runs through a tie
        ([4, 4, 4, 2, 2, 1], 4, 0.5),
        ([1, 1, 1, 1], 2, None),  # white: complete collapse is the answer even with learned noise
        ([1, 1, 1, 1], 4, 1.0),  # and every unit is critical here
        ([5, 3, 2, 1, 0, 0], 3, None),  # rank-deficient
        ([5, 3, 2, 1, 0, 0], 6, 0.5),
        ([5, 3, 2, 1, 0, 0], 6, 1e-10),
        ([3, 2, 1], 2, 3.0),  # sigma2 at and above the largest eigenvalue
        ([3, 2, 1], 3, 1e3),
        ([1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9], 9, None),
        ([3, 2.0002, 2, 1.9998, 1], 3, None),  # neighbours within 1e-4
        ([0, 0, 0], 2, 0.1),  # one sample
        ([2.0], 1, 0.5),
    ],
)
def test_fit_on_degenerate_spectra(eigenvalues, k, sigma2):
    moments = with_eigenvalues(eigenvalues)
    vae, expected = fit(moments, k, sigma2), ppca.fit(moments, k, sigma2).log_likelihood(moments)
    resolution = 1e-8 + 1e-13 * np.trace(moments.covariance) / vae.sigma2
    assert vae.elbo(moments) == pytest.approx(expected, abs=resolution)
    assert np.isfinite(vae.W).all() and vae.mu is not moments.mean and (vae.mu == moments.mean).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_spectrum_does_not_lose_its_small_units_while_the_noise_is_learned(seed):
    """From a start at a large sigma2 the last unit collapses to rounding, and some starts end there."""
    moments = with_eigenvalues(10.0 ** -np.arange(10))
    assert fit(moments, 9, seed=seed).elbo(moments) == pytest.approx(ppca.max_log_likelihood(moments)[8], abs=1e-7)


def test_units_collapse_above_their_eigenvalue():
    moments = with_eigenvalues([6, 4, 2, 0.5])
    for sigma2, used in ((5.0, 1), (3.0, 2), (7.0, 0)):
        lengths = (fit(moments, 3, sigma2).W ** 2).sum(axis=0)
        assert (lengths > 1e-6).sum() == used


def test_fit_never_decomposes_the_covariance(monkeypatch, digits):
    moments = Moments(digits.mean, digits.covariance, digits.count)

    def refuse(*args, **kwargs):
        raise AssertionError("the covariance was decomposed")

    for name in ("eigenvalues", "eigenvectors", "_eigenpairs"):
        monkeypatch.setattr(Moments, name, property(refuse))
    for name in ("eig", "eigh", "eigvals", "eigvalsh"):
        monkeypatch.setattr(np.linalg, name, refuse)
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, **kwargs: refuse() if a.shape == (64, 64) else svd(a, **kwargs))
    fit(moments, 10)


def test_every_update_of_the_fit_ascends():
    """Without momentum the objective never falls, at any beta; its last value is the ELBO of the fit."""
    _, moments, _ = problem()
    root, spread = moments.root, np.trace(moments.covariance)
    for beta in (0.3, 1.0, 3.0):
        W, s, values = np.random.default_rng(0).standard_normal((6, 3)), 5.0, []
        for _ in range(300):
            value, W, s = linear_vae._update(W, root, spread, s, beta)
            values.append(value)
        assert (np.diff(values) > -1e-12 * abs(value)).all() and values[-1] > values[0] + 0.1
        assert values[-1] == pytest.approx(fit(moments, 3, None, beta).elbo(moments, beta), abs=1e-5)


def test_the_objective_of_an_update_is_the_likelihood():
    _, moments, model = problem()
    value, W, s = linear_vae._update(model.W, moments.root, np.trace(moments.covariance), 0.7, 1.0)
    assert value == pytest.approx(PPCA(model.W, moments.mean, 0.7).log_likelihood(moments), rel=1e-12)
    assert PPCA(W, moments.mean, s).log_likelihood(moments) > value


def test_same_seed_same_fit(digits):
    one, two, other = (fit(digits, 4, seed=seed).W for seed in (1, 1, 2))
    assert (one == two).all() and not (one == other).all()


def test_giving_up_is_said_aloud(monkeypatch, digits):
    monkeypatch.setattr(linear_vae, "MAX_UPDATES", 5)
    with pytest.raises(RuntimeError, match="still rises after 5 updates"):
        fit(digits, 4)


@pytest.mark.parametrize(
    ("eigenvalues", "k", "beta"),
    [
        ([4, 2, 1, 0, 0], 3, 1.0),
        ([4, 2, 1, 0, 0], 5, 1.5),
        ([4, 2, 1], 3, 1.0),  # no residual, and no best sigma2
        ([4, 2, 1], 3, 0.5),
        ([0, 0, 0], 1, 1.0),
    ],
)
def test_unbounded_objectives_are_refused(eigenvalues, k, beta):
    with pytest.raises(ValueError, match="leaves no residual variance"):
        fit(with_eigenvalues(eigenvalues), k, beta=beta)
    with pytest.raises(ValueError, match="leaves no residual variance"):
        spectrum.learned_sigma2(eigenvalues, k, beta)


def test_a_strong_kl_term_bounds_the_noise_of_data_without_residual():
    moments = with_eigenvalues([4, 2, 1, 0, 0])
    s = spectrum.learned_sigma2(moments.eigenvalues, 4, 1.8)
    assert fit(moments, 4, beta=1.8).sigma2 == pytest.approx(s, rel=1e-7)


def test_mnist():
    moments, k = data.mnist_moments(), 10
    vae = fit(moments, k)
    assert vae.elbo(moments) == pytest.approx(ppca.max_log_likelihood(moments)[k - 1], abs=1e-7)
    assert aligned(vae, moments).min() > 0.99999
    assert moments.root.shape == (784, 712)


# --- at any scale ---------------------------------------------------------------------------------------------


def awkward(seed):
    """Samples of columns of very different units, of a decaying spectrum, or of exact rank; and a linear VAE."""
    rng = np.random.default_rng(seed)
    n, count = int(rng.integers(1, 6)), int(rng.integers(2, 9))
    units = 10.0 ** rng.uniform(-9, 9, n) if seed % 3 else np.ones(n)
    if seed % 3 == 0:
        decay = np.logspace(0, -rng.uniform(0, 12), n)
        x = rng.standard_normal((count, n)) * decay @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    else:
        rank = n if seed % 3 == 1 else max(1, n - 1)
        x = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, n)) * units
    k, sigma2 = int(rng.integers(1, n + 1)), float(units.min() ** 2 * 10.0 ** rng.uniform(-14, 3))
    W = rng.standard_normal((n, k)) * units[:, None]
    V, D = optimal_encoder(W, sigma2) if seed % 2 else (np.linalg.pinv(W / units[:, None]) / units, np.full(k, 0.1))
    return x, LinearVAE(W, V, D, Moments.from_samples(x).mean + units * (seed % 5 == 0), sigma2)


def exact_terms(model, x):
    """KL and reconstruction averaged over samples in 60 digits, and the average of the squares in them."""
    W, V, s = mpmath.matrix(model.W.tolist()), mpmath.matrix(model.V.tolist()), mpmath.mpf(model.sigma2)
    D, n = [mpmath.mpf(d) for d in model.D.tolist()], model.mu.size
    means, errors = mpmath.mpf(0), mpmath.mpf(0)
    for row in x:
        y = mpmath.matrix([mpmath.mpf(float(a)) - mpmath.mpf(float(b)) for a, b in zip(row, model.mu, strict=True)])
        z = V * y
        residual = y - W * z
        means += (z.T * z)[0] / len(x)
        errors += (residual.T * residual)[0] / len(x)
    errors += sum(W[i, j] ** 2 * D[j] for i in range(n) for j in range(len(D)))
    kl = (means + sum(d - 1 - mpmath.log(d) for d in D)) / 2
    return kl, -(errors / s + n * mpmath.log(2 * mpmath.pi * s)) / 2, errors / s + means


@settings(max_examples=120, deadline=None, derandomize=True)
@given(seeds)
def test_terms_at_any_scale_are_right_or_refused(seed):
    x, model = awkward(seed)
    try:
        terms = model.terms(Moments.from_samples(x))
    except ValueError as error:
        assert "below rounding: rescale the columns" in str(error)
        return
    with mpmath.workdps(60):
        kl, reconstruction, size = exact_terms(model, x)
        size += model.mu.size + 2 * kl
        assert abs(terms.kl - kl) < 1e-5 * size and abs(terms.reconstruction - reconstruction) < 1e-5 * size


def test_terms_see_a_column_of_small_units():
    """Its variance of 1 is below rounding of the largest eigenvalue, 1e18, and costs 50 nats here."""
    x = np.random.default_rng(0).standard_normal((1000, 2)) * [1e9, 1.0]
    moments = Moments.from_samples(x)
    W = np.array([[1e9], [0.0]])
    model = LinearVAE(W, *optimal_encoder(W, 0.01), moments.mean, 0.01)
    with mpmath.workdps(60):
        kl, reconstruction, _ = exact_terms(model, x)
    assert model.terms(moments) == (
        pytest.approx(float(kl), rel=1e-11),
        pytest.approx(float(reconstruction), rel=1e-11),
    )
    assert model.elbo(moments) == pytest.approx(model.log_likelihood(moments), rel=1e-11)
    assert model.gradients(moments).sigma2 == pytest.approx(4800, rel=0.1)


@pytest.mark.parametrize("scale", [1e-140, 1e-100, 1e100, 1e140])
@pytest.mark.parametrize("sigma2", [None, 0.7])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_fit_does_not_depend_on_the_units(scale, sigma2, beta):
    x, moments, _ = problem()
    one = fit(moments, 3, sigma2, beta)
    other = fit(Moments.from_samples(x * scale), 3, sigma2 and sigma2 * scale**2, beta)
    assert other.sigma2 == pytest.approx(one.sigma2 * scale**2, rel=1e-9)
    np.testing.assert_allclose(other.W / scale, one.W, atol=1e-5)
    value = other.elbo(Moments.from_samples(x * scale), beta) + 6 * np.log(scale)
    assert value == pytest.approx(one.elbo(moments, beta), abs=1e-8)


@pytest.mark.parametrize("sigma2", [None, 1e-3, 1e-12])
def test_fit_of_columns_of_different_units_reaches_the_closed_form(sigma2):
    rng = np.random.default_rng(1)
    moments = Moments.from_samples(rng.standard_normal((300, 5)) * [1e4, 1e2, 1.0, 1e-1, 1e-2])
    for k in (2, 4):
        best_value = ppca.fit(moments, k, sigma2).log_likelihood(moments)
        assert fit(moments, k, sigma2).elbo(moments) == pytest.approx(best_value, rel=1e-9, abs=1e-6)


def test_fit_of_a_decaying_spectrum():
    """Singular values 1 to 1e-6 are resolved; 1 to 1e-9 leave a residual at rounding, and that is said."""
    rng = np.random.default_rng(2)
    U, V = np.linalg.qr(rng.standard_normal((200, 10)))[0], np.linalg.qr(rng.standard_normal((10, 10)))[0]
    resolved, beyond = (Moments.from_samples(14 * U * np.logspace(0, -p, 10) @ V.T) for p in (6, 9))
    for k in (3, 7, 9):
        expected = ppca.max_log_likelihood(resolved)[k - 1]
        assert fit(resolved, k).elbo(resolved) == pytest.approx(expected, abs=1e-6)
    for k in (7, 8, 9):
        with pytest.raises(ValueError, match="below rounding: rescale the columns"):
            fit(beyond, k)
    rank3 = Moments.from_samples(rng.standard_normal((100, 3)) @ rng.standard_normal((3, 6)))
    for sigma2 in (1e-8, 1e-6):
        expected = ppca.fit(rank3, 5, sigma2).log_likelihood(rank3)
        assert fit(rank3, 5, sigma2).elbo(rank3) == pytest.approx(expected, abs=1e-4)
    for refused in (
        lambda: fit(rank3, 5, sigma2=1e-15),
        lambda: fit(rank3, 5),
        lambda: best(rank3, 3, 1e-15).terms(rank3),
        lambda: best(rank3, 3, 1e-15).gradients(rank3),
        lambda: best(rank3, 3, 1e-15).log_likelihood(rank3),
        lambda: profile_elbo(best(rank3, 3, 1e-15).W, rank3, 1e-15),
        lambda: profile_gradient(best(rank3, 3, 1e-15).W, rank3, 1e-15),
    ):
        with pytest.raises(ValueError, match="below rounding: rescale the columns") as caught:
            refused()
        assert "unbounded" not in str(caught.value)


@pytest.mark.parametrize("sigma2", [1e-17, 1e-16, 1e-15, 1e-12, 1e-3])
@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize(
    "W", [[[1, 1], [1, 1]], [[1, 1], [2, 2], [3, 3]], [[1, 1e-6], [1, 2e-6]], [[1, 2]], [[1e9, 0], [0, 1e-6]]]
)
def test_optimal_encoder_at_tiny_noise_agrees_with_mpmath(W, beta, sigma2):
    V, D = optimal_encoder(W, sigma2, beta)
    with mpmath.workdps(80):
        exact, theta = mpmath.matrix(W), mpmath.mpf(beta) * mpmath.mpf(sigma2)
        gram = exact.T * exact
        expected = np.array(((gram + theta * mpmath.eye(2)) ** -1 * exact.T).tolist(), float).reshape(V.shape)
        variances = [float(theta / (gram[i, i] + theta)) for i in range(2)]
    np.testing.assert_allclose(V, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(D, variances, rtol=1e-12)


# --- input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.ones(6)}, "W has shape"),
        ({"W": np.ones((2, 3)), "mu": np.zeros(2)}, "expected .n, k. with k at most n"),
        ({"W": np.full((6, 3), np.nan)}, "W contains NaN"),
        ({"V": np.ones((6, 3))}, r"V has shape \(6, 3\); expected \(3, 6\)"),
        ({"V": np.full((3, 6), np.inf)}, "V contains NaN or infinity"),
        ({"D": np.ones((3, 3))}, r"D has shape \(3, 3\); expected \(3,\)"),
        ({"D": [1, 0, 1]}, "D has the entry 0.0; expected variances above 0"),
        ({"D": [1, -1, 1]}, "D has the entry -1.0"),
        ({"mu": np.zeros(5)}, "mu has shape"),
        ({"sigma2": 0}, "sigma2 is 0.0"),
        ({"sigma2": "much"}, "sigma2 is 'much'"),
    ],
)
def test_bad_models(change, message):
    good = {"W": np.ones((6, 3)), "V": np.ones((3, 6)), "D": np.ones(3), "mu": np.zeros(6), "sigma2": 1.0}
    with pytest.raises(ValueError, match=message):
        LinearVAE(**good | change)


def test_bad_arguments():
    _, moments, model = problem()
    other = Moments([0.0, 0.0], np.eye(2), 5)
    W = model.W
    cases = [
        (lambda: model.terms(other), "moments has n = 2; expected n = 6"),
        (lambda: model.elbo(other), "moments has n = 2"),
        (lambda: model.gradients(other), "moments has n = 2"),
        (lambda: model.log_likelihood(other), "moments has n = 2"),
        (lambda: model.elbo(moments, -1), "beta is -1.0; expected 0 or more"),
        (lambda: model.elbo(moments, np.nan), "beta contains NaN"),
        (lambda: model.gradients(moments, -0.1), "beta is -0.1"),
        (lambda: model.terms(model), "moments is LinearVAE.*; expected Moments"),
        (lambda: model.elbo(None), "moments is None, of type NoneType; expected Moments"),
        (lambda: model.gradients(W), "moments is array.*; expected Moments"),
        (lambda: model.log_likelihood(W), "moments is array.*; expected Moments"),
        (lambda: profile_elbo(W, W, 1.0), "moments is array.*; expected Moments"),
        (lambda: profile_gradient(W, W, 1.0), "moments is array.*; expected Moments"),
        (lambda: fit(W, 2), "moments is array.*; expected Moments"),
        (lambda: optimal_encoder(W, 1e200, 1e200), "beta times sigma2 contains NaN or infinity"),
        (lambda: optimal_encoder(np.ma.masked_less(W, 0), 1.0), "W is a masked array"),
        (lambda: optimal_encoder(W[0], 1.0), "W has shape"),
        (lambda: optimal_encoder(W, 0.0), "sigma2 is 0.0"),
        (lambda: optimal_encoder(W, 1.0, 0), "beta is 0.0; expected a number above 0"),
        (lambda: posterior_gap(W * np.nan, 1.0), "W contains NaN"),
        (lambda: posterior_gap(W, -1.0), "sigma2 is -1.0"),
        (lambda: posterior_gap(np.sign(W) * 1e200, 1.0), r"W reaches 1e\+200; expected at most .*rescale the columns"),
        (lambda: optimal_encoder(np.sign(W) * 1e200, 1.0), r"W reaches 1e\+200"),
        (lambda: profile_elbo(W[:4], moments, 1.0), r"W has shape \(4, 3\); expected \(6, k\)"),
        (lambda: profile_elbo(W, moments, 0.0), "sigma2 is 0.0"),
        (lambda: profile_gradient(W[:4], moments, 1.0), "W has shape"),
        (lambda: profile_gradient(W, moments, 1.0, 0.0), "beta is 0.0"),
        (lambda: fit(moments, 0), "k is 0; expected an integer from 1 to 6"),
        (lambda: fit(moments, 7), "k is 7"),
        (lambda: fit(moments, 2.0), "k is 2.0"),
        (lambda: fit(moments, 2, sigma2=-1), "sigma2 is -1.0"),
        (lambda: fit(moments, 2, beta=0), "beta is 0.0"),
        (lambda: fit(moments, 2, seed=-1), "seed is -1"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_float32_and_integers_are_taken_in():
    W, V = np.array([[1, 2], [0, 1], [1, 1]]), np.array([[1, 0, 1], [0, 1, 0]])
    moments = Moments(np.zeros(3, int), np.eye(3, dtype=int), 4)
    ints = LinearVAE(W, V, [1, 2], [0, 0, 0], 1)
    floats = LinearVAE(*(a.astype(np.float32) for a in (W, V)), np.float32([1, 2]), np.zeros(3), np.float32(1))
    assert ints.elbo(moments) == floats.elbo(moments) and isinstance(ints.sigma2, float)
    assert all(getattr(ints, name).dtype == np.float64 for name in ("W", "V", "D", "mu"))
    assert posterior_gap(W.astype(np.float32), 1) == posterior_gap(W, 1.0)
    W[0, 0] = 9
    assert ints.W[0, 0] == 1  # a copy


def test_a_fraction_is_a_weight_as_any_other():
    W, moments = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, 0.0]]), Moments(np.zeros(3), np.diag([3.0, 2.0, 1.0]), 10)
    found = profile_gradient(W, moments, 0.5, Fraction(1, 2))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, profile_gradient(W, moments, 0.5, 0.5))
