"""Probabilistic PCA against SciPy, scikit-learn, autograd, finite differences and enumeration."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from sklearn.decomposition import PCA

from helpers import data, ppca
from helpers.moments import Moments
from helpers.ppca import PPCA

seeds = st.integers(0, 2**31)


def problem(seed=0, n=6, k=3, count=80):
    """Correlated samples, their moments, and a generic model whose mu is not the mean."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, n)) @ rng.standard_normal((n, n)) + 2
    model = PPCA(rng.standard_normal((n, k)), rng.standard_normal(n), rng.uniform(0.2, 2))
    return x, Moments.from_samples(x), model


def spectrum(eigenvalues, seed=0):
    n = len(eigenvalues)
    Q = ortho_group(n, seed=seed).rvs() if n > 1 else np.eye(1)  # older SciPy refuses 1
    return Moments(np.arange(len(eigenvalues)), Q * np.asarray(eigenvalues, float) @ Q.T, 100)


# --- the likelihood and the posterior -------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6))
def test_log_likelihood_agrees_with_scipy(seed, k):
    x, moments, model = problem(seed, k=k)
    expected = multivariate_normal(model.mu, model.C).logpdf(x)
    np.testing.assert_allclose(model.log_likelihood_samples(x), expected, rtol=1e-9)
    assert model.log_likelihood(moments) == pytest.approx(expected.mean(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_log_likelihood_does_not_feel_a_rotation_of_the_latents(seed):
    _, moments, model = problem(seed)
    R = ortho_group(3, seed=seed).rvs()
    rotated = PPCA(model.W @ R, model.mu, model.sigma2)
    assert rotated.log_likelihood(moments) == pytest.approx(model.log_likelihood(moments), rel=1e-11)


@pytest.mark.parametrize("sigma2", [1e-10, 1e-4, 1.0, 1e4, 1e10])
def test_log_likelihood_keeps_its_digits_at_extreme_noise(sigma2):
    """On an axis-aligned model the answer is a sum of one-dimensional Gaussians, exact at any sigma2."""
    lam = np.array([3.0, 2.0, 1e-9, 0.0])
    moments = Moments(np.zeros(4), np.diag(lam), 10)
    W = np.zeros((4, 2))
    W[0, 0], W[1, 1] = 1.5, 0.5
    variances = np.array([1.5**2, 0.5**2, 0, 0]) + sigma2
    expected = -(np.log(2 * np.pi * variances) + lam / variances).sum() / 2
    assert PPCA(W, np.zeros(4), sigma2).log_likelihood(moments) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_posterior_agrees_with_conditioning_the_joint_gaussian(k):
    x, _, model = problem(k=k)
    means, covariance = model.posterior(x)
    gain = model.W.T @ np.linalg.inv(model.C)
    np.testing.assert_allclose(means, (x - model.mu) @ gain.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(covariance, np.eye(k) - gain @ model.W, rtol=1e-9, atol=1e-12)


def test_samples_follow_the_two_stage_model():
    _, _, model = problem()
    x, z = model.sample(200_000, seed=1)
    joint = np.cov(np.hstack([x, z]).T, bias=True)
    expected = np.block([[model.C, model.W], [model.W.T, np.eye(3)]])
    np.testing.assert_allclose(joint, expected, atol=0.05)
    np.testing.assert_allclose(x.mean(axis=0), model.mu, atol=0.02)


# --- at any scale ---------------------------------------------------------------------------------------------


def awkward(seed):
    """Samples of columns of very different units, of a decaying spectrum, of exact rank, or of copied columns."""
    rng = np.random.default_rng(seed)
    n, count = int(rng.integers(1, 6)), int(rng.integers(2, 9))
    units = 10.0 ** rng.uniform(-9, 9, n)
    kind = seed % 4
    if kind == 0:
        x = rng.standard_normal((count, n)) * units
    elif kind == 1:
        units = np.ones(n)
        decay = np.logspace(0, -rng.uniform(0, 12), n)
        x = rng.standard_normal((count, n)) * decay @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    elif kind == 2:
        rank = max(1, n - 1)
        x = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, n)) * units
    else:
        units = 10.0 ** rng.integers(-3, 4, n)
        x = np.tile(rng.standard_normal((count, 1)), (1, n)) * units
    return x, units, rng


def exact_log_likelihood(model, x):
    """Average over samples in 90 digits, and the average of the squared distances in it."""
    W, n = mpmath.matrix(model.W.tolist()), model.mu.size
    C = W * W.T + mpmath.mpf(model.sigma2) * mpmath.eye(n)
    inverse, distance = C**-1, mpmath.mpf(0)
    for row in x:
        d = mpmath.matrix([mpmath.mpf(float(a)) - mpmath.mpf(float(b)) for a, b in zip(row, model.mu, strict=True)])
        distance += (d.T * inverse * d)[0] / len(x)
    return -(n * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(C)) + distance) / 2, distance


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seeds)
def test_likelihood_at_any_scale_is_right_or_refused(seed):
    """From the moments and sample by sample, at sigma2 down to far below rounding, fitted models and others."""
    x, units, rng = awkward(seed)
    moments, n = Moments.from_samples(x), x.shape[1]
    k, sigma2 = int(rng.integers(1, n + 1)), float(units.min() ** 2 * 10.0 ** rng.uniform(-14, 3))
    try:
        if seed % 8 < 4:
            model = ppca.fit(moments, k, sigma2)
        else:
            model = PPCA(rng.standard_normal((n, k)) * units[:, None], moments.mean + units, sigma2)
    except ValueError as error:
        assert "below rounding: rescale the columns" in str(error)
        return
    for average in (lambda: model.log_likelihood(moments), lambda: model.log_likelihood_samples(x).mean()):
        try:
            value = float(average())
        except ValueError as error:
            assert "below rounding: rescale the columns" in str(error)
        else:
            with mpmath.workdps(90):
                expected, distance = exact_log_likelihood(model, x)
                assert abs(value - expected) < 1e-5 * (n + distance)


def test_a_column_of_small_units_counts_as_the_samples_say():
    x = np.random.default_rng(0).standard_normal((1000, 2)) * [1e9, 1.0]
    moments = Moments.from_samples(x)
    model = PPCA([[1e9], [0.0]], moments.mean, 0.01)
    value = model.log_likelihood(moments)
    assert value == pytest.approx(model.log_likelihood_samples(x).mean(), rel=1e-10) == pytest.approx(-68.87, abs=0.01)
    assert ppca.fit(moments, 1).sigma2 == pytest.approx(moments.eigenvalues[1])
    assert moments.eigenvalues[1] == pytest.approx(
        np.linalg.det(moments.covariance / [1e18, 1]) * 1e18 / moments.eigenvalues[0]
    )


def test_derivatives_with_columns_of_different_units():
    """In units of the columns, they are those of the data rescaled."""
    x, _, model = problem()
    units = np.array([1e6, 1e-6, 1.0, 1e3, 1e-3, 10.0])
    rng = np.random.default_rng(1)
    moments, scaled = Moments.from_samples(x), Moments.from_samples(x * units)
    with mpmath.workdps(60):
        W = mpmath.matrix((model.W * units[:, None]).tolist())
        S = mpmath.matrix(scaled.covariance.tolist())
        sigma2 = 1e-9
        P = (W * W.T + mpmath.mpf(sigma2) * mpmath.eye(6)) ** -1
        expected = P * S * P * W - P * W
        wide = PPCA(model.W * units[:, None], scaled.mean, sigma2)
        found = ppca.gradient(wide, scaled)
        direction = rng.standard_normal((6, 3)) * units[:, None]
        D = mpmath.matrix(direction.tolist())
        E = D * W.T + W * D.T
        slope = -P * E * P * S * P * W - P * S * P * E * P * W + P * S * P * D + P * E * P * W - P * D
        product = ppca.hessian_product(wide, scaled, direction)
        # A row of either is in nats over the units of its column.
        for ours, exact in ((found, expected), (product, slope)):
            exact = np.array(exact.tolist(), float).reshape(6, 3) * units[:, None]
            np.testing.assert_allclose(ours * units[:, None], exact, atol=1e-5 * np.abs(exact).max())
    assert moments.count == scaled.count


@pytest.mark.parametrize("sigma2", [1e-17, 1e-15, 1e-12, 1e-3])
@pytest.mark.parametrize("W", [[[1, 1], [1, 1]], [[1, 1], [2, 2], [3, 3]], [[1, 1e-6], [1, 2e-6]], [[1, 0], [1, 0]]])
def test_posterior_at_tiny_noise_agrees_with_mpmath(W, sigma2):
    model = PPCA(W, np.zeros(len(W)), sigma2)
    x = np.arange(1.0, len(W) + 1)[None] ** 2
    means, covariance = model.posterior(x)
    with mpmath.workdps(80):
        exact = mpmath.matrix(W)
        M = exact.T * exact + mpmath.mpf(sigma2) * mpmath.eye(2)
        mean = np.array((M**-1 * exact.T * mpmath.matrix(x[0])).tolist(), float).ravel()
        expected = np.array((mpmath.mpf(sigma2) * M**-1).tolist(), float).reshape(2, 2)
    np.testing.assert_allclose(means[0], mean, rtol=1e-8, atol=1e-8 * np.abs(mean).max())
    np.testing.assert_allclose(covariance, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def test_what_rounding_hides_is_refused_and_never_called_unbounded():
    rng = np.random.default_rng(2)
    U, V = np.linalg.qr(rng.standard_normal((200, 10)))[0], np.linalg.qr(rng.standard_normal((10, 10)))[0]
    decaying = Moments.from_samples(14 * U * np.logspace(0, -9, 10) @ V.T)
    rank = decaying.root.shape[1]
    assert 7 <= rank < 10
    model = ppca.fit(decaying, 5)
    assert np.isfinite(model.log_likelihood(decaying))
    turned = spectrum([4, 2, 1, 0, 0])
    tiny = PPCA(ppca.fit(turned, 3, 1e-3).W, turned.mean, 1e-15)
    for refused in (
        lambda: ppca.fit(decaying, rank),
        lambda: ppca.fit(decaying, 9),
        lambda: ppca.fit(decaying, 9, 1e-20),
        lambda: ppca.max_log_likelihood(decaying),
        lambda: tiny.log_likelihood(turned),
        lambda: ppca.gradient(tiny, turned),
        lambda: ppca.hessian(tiny, turned),
        lambda: ppca.hessian_product(tiny, turned, tiny.W),
        lambda: ppca.is_stable(tiny, turned),
        lambda: ppca.landscape(tiny, turned, 2, np.eye(5)[:, :2], [0], [0]),
    ):
        with pytest.raises(ValueError, match="below rounding: rescale the columns") as caught:
            refused()
        assert "unbounded" not in str(caught.value)


@pytest.mark.parametrize(
    ("moments", "k"),
    [
        (Moments.from_samples(np.random.default_rng(3).standard_normal((5, 8))), 4),  # no more than 4 directions
        (Moments(np.zeros(4), np.diag([2.0, 0, 1, 0]), 100), 2),  # constant columns
        (Moments(np.zeros(2), [[1.0, 2.0], [2.0, 4.0]], 100), 1),  # one column twice the other, to the last digit
    ],
)
def test_unbounded_is_said_where_it_is_certain(moments, k):
    with pytest.raises(ValueError, match=f"k = {k} leaves no residual variance .*: the likelihood is unbounded"):
        ppca.fit(moments, k)


@pytest.mark.parametrize("scale", [1e-100, 1e100, 1e140])
def test_fit_and_likelihood_at_extreme_units(scale):
    x, moments, _ = problem(count=300)
    model, wide = ppca.fit(moments, 3), Moments.from_samples(x * scale)
    fitted = ppca.fit(wide, 3)
    assert fitted.sigma2 == pytest.approx(model.sigma2 * scale**2, rel=1e-10)
    expected = model.log_likelihood(moments) - 6 * np.log(scale)
    assert fitted.log_likelihood(wide) == pytest.approx(expected, rel=1e-12)
    assert ppca.max_log_likelihood(wide)[2] == pytest.approx(expected, rel=1e-12)
    assert ppca.is_stable(fitted, wide)


def test_stability_does_not_depend_on_the_units_of_the_columns():
    moments = Moments(np.zeros(2), np.diag([1e18, 1.0]), 10)
    used = ppca.stationary_point(moments, [0], 1, 0.5)
    assert ppca.is_stable(used, moments)  # its only column is in use, and beats the free direction
    spare = PPCA(np.column_stack([used.W, np.zeros(2)]), moments.mean, 0.5)
    assert not ppca.is_stable(spare, moments)  # the second column gains from an eigenvalue of 1
    both = PPCA(np.column_stack([used.W, [0, 5.0]]), moments.mean, 0.5)
    with pytest.raises(ValueError, match="model is not stationary"):
        ppca.is_stable(both, moments)


# --- the maximum likelihood fit -------------------------------------------------------------------------------


def test_fit_agrees_with_scikit_learn_once_its_covariance_is_rescaled():
    x, moments, _ = problem(count=500)
    model, pca = ppca.fit(moments, 3), PCA(3).fit(x)
    c = 500 / 499  # scikit-learn divides by N - 1
    assert model.sigma2 == pytest.approx(pca.noise_variance_ / c, rel=1e-10)
    np.testing.assert_allclose(model.C, pca.get_covariance() / c, atol=1e-10)
    loss = 6 / 2 * (np.log(c) + 1 / c - 1)
    assert model.log_likelihood(moments) - pca.score(x) == pytest.approx(loss, rel=1e-6)


def test_fit_is_where_an_optimiser_ends():
    _, moments, _ = problem(count=300)

    def negative(parameters):
        model = PPCA(parameters[:-1].reshape(6, 2), moments.mean, np.exp(parameters[-1]))
        return -model.log_likelihood(moments)

    best = min(minimize(negative, np.random.default_rng(s).standard_normal(13)).fun for s in range(3))
    assert ppca.fit(moments, 2).log_likelihood(moments) == pytest.approx(-best, abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.sampled_from([None, 1e-3, 0.5, 3.0, 1e3]))
def test_no_other_model_is_likelier(seed, k, sigma2):
    _, moments, model = problem(seed, k=k)
    if k == 6 and sigma2 is None:
        return
    best = ppca.fit(moments, k, sigma2)
    other = PPCA(best.W + 0.1 * model.W, moments.mean, best.sigma2 if sigma2 else model.sigma2)
    assert best.log_likelihood(moments) >= other.log_likelihood(moments)


def test_max_log_likelihood_is_the_likelihood_of_each_fit():
    _, moments, _ = problem()
    fitted = [ppca.fit(moments, k).log_likelihood(moments) for k in range(1, 6)]
    np.testing.assert_allclose(ppca.max_log_likelihood(moments), fitted, rtol=1e-12)


def test_likelihood_is_unbounded_from_the_rank_on():
    moments = spectrum([4, 2, 1, 0, 0])
    curve = ppca.max_log_likelihood(moments)
    assert np.isfinite(curve[:2]).all() and (curve[2:] == np.inf).all()
    assert ppca.fit(moments, 2).sigma2 == pytest.approx(1 / 3)
    for k in (3, 4):
        with pytest.raises(ValueError, match=f"k = {k} leaves no residual variance"):
            ppca.fit(moments, k)
    with pytest.raises(ValueError, match="k = 5 equals n"):
        ppca.fit(moments, 5)


def test_fit_on_degenerate_spectra():
    equal = spectrum([2, 2, 2, 2])
    assert np.allclose(ppca.fit(equal, 2).W, 0, atol=1e-6) and ppca.fit(equal, 2).sigma2 == pytest.approx(2)
    tied = spectrum([5, 2, 2, 2, 1, 1])
    model = ppca.fit(tied, 2)
    assert ppca.is_stable(model, tied)
    assert model.log_likelihood(tied) == pytest.approx(ppca.max_log_likelihood(tied)[1])
    full = ppca.fit(tied, 6, sigma2=0.5)
    np.testing.assert_allclose(full.C, tied.covariance, atol=1e-12)


@pytest.mark.parametrize("sigma2", [1e-10, 1e10])
@pytest.mark.parametrize("k", [1, 6])
def test_fit_at_extreme_noise(k, sigma2):
    _, moments, _ = problem()
    model = ppca.fit(moments, k, sigma2)
    assert ppca.is_stable(model, moments)
    survivors = min(k, (moments.eigenvalues > sigma2).sum())
    assert (np.linalg.norm(model.W, axis=0) > 0).sum() == survivors


def test_mnist_numbers_of_the_paper():
    moments = data.mnist_moments()
    sigma2 = ppca.fit(moments, 50).sigma2
    assert f"{sigma2:.7f}" == "0.0125960"
    assert (moments.eigenvalues > sigma2).sum() == 222
    curve = ppca.max_log_likelihood(moments)
    np.testing.assert_allclose(curve[[9, 49, 99, 199, 299]], [182.15, 507.91, 680.95, 839.54, 948.87], atol=0.006)
    assert np.isfinite(curve[:711]).all() and (curve[711:] == np.inf).all()


# --- derivatives ----------------------------------------------------------------------------------------------


def log_likelihood_torch(W, model, moments):
    deviation = torch.tensor(moments.mean - model.mu)
    S = torch.tensor(moments.covariance) + torch.outer(deviation, deviation)
    C = W @ W.T + model.sigma2 * torch.eye(len(W), dtype=torch.float64)
    return -(torch.logdet(2 * torch.pi * C) + torch.trace(torch.linalg.solve(C, S))) / 2


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 6))
def test_gradient_and_hessian_agree_with_autograd(seed, k):
    _, moments, model = problem(seed, k=k)
    W = torch.tensor(model.W, requires_grad=True)

    def objective(W):
        return log_likelihood_torch(W, model, moments)

    expected = torch.autograd.grad(objective(W), W)[0].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ppca.gradient(model, moments), expected, atol=1e-9 * scale)
    direction = np.random.default_rng(seed).standard_normal(model.W.shape)
    _, expected = torch.autograd.functional.hvp(objective, W, torch.tensor(direction))
    product = ppca.hessian_product(model, moments, direction)
    np.testing.assert_allclose(product, expected.numpy(), atol=1e-8 * np.abs(expected.numpy()).max())


def test_hessian_is_symmetric_and_made_of_its_products():
    _, moments, model = problem()
    H = ppca.hessian(model, moments)
    np.testing.assert_allclose(H, H.T, atol=1e-12 * np.abs(H).max())
    direction = np.random.default_rng(1).standard_normal(model.W.shape)
    np.testing.assert_allclose(
        (H @ direction.ravel()).reshape(model.W.shape), ppca.hessian_product(model, moments, direction), rtol=1e-10
    )


def test_landscape_is_the_likelihood_of_the_moved_column():
    _, moments, model = problem()
    directions = np.random.default_rng(1).standard_normal((6, 2))
    a, b = np.linspace(-2, 2, 5), np.linspace(-1, 3, 4)
    grid = ppca.landscape(model, moments, 1, directions, a, b)
    assert grid.shape == (4, 5)
    for i, j in itertools.product(range(4), range(5)):
        W = model.W.copy()
        W[:, 1] += directions @ [a[j], b[i]]
        assert grid[i, j] == pytest.approx(PPCA(W, model.mu, model.sigma2).log_likelihood(moments), rel=1e-10)


# --- stationary points and stability --------------------------------------------------------------------------


@pytest.mark.parametrize("eigenvalues", [[6, 4, 3, 2, 1.5, 0.5], [6, 4, 4, 2, 2, 0], [3, 3, 3, 3, 3, 3]])
@pytest.mark.parametrize("sigma2", [0.2, 1.7, 2.5, 7.0])
def test_stable_if_and_only_if_globally_best_at_that_noise(eigenvalues, sigma2):
    """Every stationary point of Appendix A, in random rotation: three definitions of stability agree."""
    moments, k = spectrum(eigenvalues), 3
    R = ortho_group(k, seed=1).rvs() if k > 1 else np.eye(1)  # older SciPy refuses 1
    best = ppca.fit(moments, k, sigma2).log_likelihood(moments)
    usable = [i for i, lam in enumerate(eigenvalues) if lam > sigma2]
    seen = 0
    for indices in itertools.chain.from_iterable(itertools.combinations(usable, r) for r in range(k + 1)):
        point = ppca.stationary_point(moments, indices, k, sigma2)
        rotated = PPCA(point.W @ R, point.mu, sigma2)
        np.testing.assert_allclose(ppca.gradient(rotated, moments), 0, atol=1e-10)
        stable = ppca.is_stable(rotated, moments)
        assert stable == (np.linalg.eigvalsh(ppca.hessian(rotated, moments))[-1] < 1e-9)
        assert stable == (point.log_likelihood(moments) > best - 1e-9)
        seen += 1
    assert seen >= 1


def test_a_tie_is_stable():
    moments = spectrum([4, 2, 1])
    assert ppca.is_stable(ppca.stationary_point(moments, [0], 2, 2.0 - 1e-12), moments)
    assert not ppca.is_stable(ppca.stationary_point(moments, [0], 2, 1.99), moments)


def test_collapse_of_everything_is_stable_from_the_largest_eigenvalue_on():
    moments = spectrum([4, 2, 1])
    zero = np.zeros((3, 2))
    assert ppca.is_stable(PPCA(zero, moments.mean, 4.0), moments)
    assert not ppca.is_stable(PPCA(zero, moments.mean, 3.99), moments)


@pytest.mark.parametrize("sigma2", [1e-10, 1e-6])
def test_stability_with_tiny_noise_and_wide_spectrum(sigma2):
    moments = spectrum([1e3, 1.0, 1e-4, 1e-5])
    assert ppca.is_stable(ppca.fit(moments, 3, sigma2), moments)
    assert not ppca.is_stable(ppca.stationary_point(moments, [0, 1, 3], 3, sigma2), moments)


def test_mnist_point_of_figure_1_is_a_maximum_only_between_the_fourth_and_third_eigenvalue():
    moments = data.mnist_moments("subset")
    lam = moments.eigenvalues
    for sigma2, stable in [((lam[2] + lam[3]) / 2, True), ((lam[3] + lam[4]) / 2, False), (lam[6] / 2, False)]:
        point = ppca.stationary_point(moments, [0, 1, 2], 4, sigma2)
        assert ppca.is_stable(point, moments) == stable


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.zeros(3)}, r"W has shape \(3,\); expected \(n, k\)"),
        ({"W": np.zeros((3, 4))}, "k at most n"),
        ({"W": np.full((3, 2), np.nan)}, "W contains NaN or infinity"),
        ({"mu": np.zeros(2)}, r"mu has shape \(2,\); expected \(3,\)"),
        ({"mu": np.array([0, 0, np.inf])}, "mu contains NaN or infinity"),
        ({"sigma2": 0.0}, "sigma2 is 0.0; expected a number above 0"),
        ({"sigma2": -1}, "sigma2 is -1.0"),
        ({"sigma2": np.nan}, "sigma2 contains NaN"),
        ({"sigma2": [1, 2]}, "sigma2 has shape"),
        ({"sigma2": "small"}, "sigma2 is 'small'"),
        ({"W": np.full((3, 2), 1e200)}, r"W reaches 1e\+200; expected at most .*rescale the columns"),
    ],
)
def test_bad_models(change, message):
    with pytest.raises(ValueError, match=message):
        PPCA(**({"W": np.zeros((3, 2)), "mu": np.zeros(3), "sigma2": 1.0} | change))


def test_bad_arguments():
    x, moments, model = problem()
    other = spectrum([2, 1])
    cases = [
        (lambda: model.log_likelihood(other), "moments has n = 2; expected n = 6"),
        (lambda: ppca.gradient(model, other), "moments has n = 2"),
        (lambda: ppca.hessian_product(model, moments, np.zeros((6, 2))), "direction has shape"),
        (lambda: model.log_likelihood(x), "moments is array.* of type ndarray; expected Moments"),
        (lambda: ppca.gradient(moments, moments), "model is Moments.*; expected PPCA"),
        (lambda: ppca.hessian_product(model, model, model.W), "moments is PPCA.*; expected Moments"),
        (lambda: ppca.hessian(None, moments), "model is None, of type NoneType; expected PPCA"),
        (lambda: ppca.is_stable("model", moments), "model is 'model', of type str; expected PPCA"),
        (lambda: ppca.is_stable(model, x), "moments is array.*; expected Moments"),
        (lambda: ppca.landscape(model, x, 0, np.eye(6)[:, :2], [0], [0]), "moments is array"),
        (lambda: ppca.landscape(x, moments, 0, np.eye(6)[:, :2], [0], [0]), "model is array"),
        (lambda: ppca.fit(x, 2), "moments is array.*; expected Moments"),
        (lambda: ppca.max_log_likelihood(moments.eigenvalues), "moments is array.*; expected Moments"),
        (lambda: ppca.stationary_point(model, [0], 1, 0.1), "moments is PPCA.*; expected Moments"),
        (lambda: ppca.stationary_point(moments, 0, 1, 0.1), "indices is 0"),
        (lambda: ppca.stationary_point(moments, "", 1, 0.1), "indices is ''; expected a sequence"),
        (lambda: ppca.stationary_point(moments, {0, 1}, 2, 0.1), "indices is {0, 1}; expected a sequence"),
        (lambda: ppca.refuse_no_residual(moments, 7), "k is 7; expected an integer from 1 to 6"),
        (lambda: model.log_likelihood_samples(x * 1e300), "exceed float64: rescale the columns"),
        (lambda: model.posterior(np.ma.masked_less(x, 0)), "x is a masked array"),
        (lambda: PPCA(np.eye(6, 2) * 1e-150, np.zeros(6), 1e-320).log_likelihood(moments), "rescale the columns"),
        (lambda: ppca.hessian(model, other), "moments has n = 2"),
        (lambda: ppca.is_stable(model, moments), "model is not stationary"),
        (lambda: ppca.is_stable(PPCA(np.zeros((6, 2)), moments.mean + 1, 9.0), moments), "model is not stationary"),
        (lambda: model.log_likelihood_samples(x[:, :4]), "x has shape"),
        (lambda: model.log_likelihood_samples(np.full((2, 6), np.inf)), "x contains NaN or infinity"),
        (lambda: model.posterior(x[0]), "x has shape"),
        (lambda: model.posterior(np.full((2, 6), np.nan)), "x contains NaN"),
        (lambda: model.sample(0, seed=0), "count is 0"),
        *[(lambda seed=seed: model.sample(1, seed), f"seed is {seed}") for seed in (None, -1, True, 1.0)],
        (lambda: ppca.fit(moments, 0), "k is 0; expected an integer from 1 to 6"),
        (lambda: ppca.fit(moments, 7), "k is 7"),
        (lambda: ppca.fit(moments, 2.0), "k is 2.0"),
        (lambda: ppca.fit(moments, 2, sigma2=-1), "sigma2 is -1.0"),
        (lambda: ppca.fit(Moments.from_samples(x[:1]), 2), "leaves no residual variance"),
        (lambda: ppca.stationary_point(moments, [0, 0], 3, 0.1), "indices is"),
        (lambda: ppca.stationary_point(moments, [0, 1, 2], 2, 0.1), "at most k = 2"),
        (lambda: ppca.stationary_point(moments, [6], 2, 0.1), "an entry of indices is 6"),
        (lambda: ppca.stationary_point(moments, [0], 2, 1e6), "expected less than every eigenvalue used"),
        (lambda: ppca.landscape(model, moments, 3, np.zeros((6, 2)), [0], [0]), "column is 3"),
        (lambda: ppca.landscape(model, moments, 0, np.zeros((6, 3)), [0], [0]), "directions has shape"),
        (lambda: ppca.landscape(model, moments, 0, np.zeros((6, 2)), [np.nan], [0]), "a contains NaN"),
        (lambda: ppca.landscape(model, moments, 0, np.zeros((6, 2)), [0], [[0]]), "b has shape"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_float32_and_integers_are_taken_in():
    model = PPCA(np.eye(3, 2, dtype=np.float32), np.zeros(3, int), 1)
    assert model.W.dtype == model.mu.dtype == np.float64 and isinstance(model.sigma2, float)
    ints = np.arange(12).reshape(4, 3)
    np.testing.assert_allclose(
        model.log_likelihood_samples(ints.astype(np.float32)), model.log_likelihood_samples(ints), rtol=1e-12
    )
