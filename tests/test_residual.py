"""The residual test: predicted gains against surgery on trained networks, closed forms and ascent."""

import re

import numpy as np
import pytest
import torch

from helpers import bernoulli, codes, collapse, data, linear_vae, spectrum, vae
from helpers.moments import Moments
from helpers.residual import eigenpairs, gain, rho_of, scores_rho, with_linear_units


def gaussian(n=20, count=1500, seed=0):
    """Gaussian samples whose eigenvalues fall as 4 / i, along random axes."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (rng.standard_normal((count, n)) * np.sqrt(4 / np.arange(1, n + 1))) @ axes.T


def trained(x, hidden, k, theta, steps, seed):
    """A small VAE after some steps of Adam on squared error / (2 theta) + KL."""
    torch.manual_seed(seed)
    model = vae.mlp(x.shape[1], hidden, k, activation=torch.nn.Tanh)
    ascent = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        squared_error, kl = model(batch, torch.randn(128, k))
        ascent.zero_grad()
        (squared_error / (2 * theta) + kl).mean().backward()
        ascent.step()
    return model


def measured_gain(model, wider, x, theta, samples=128):
    """The difference of two ELBOs, each with its own draws."""
    elbos = [collapse.evaluate(x.split(500), m.encode, m.decode, theta, samples).elbo for m in (model, wider)]
    return elbos[1] - elbos[0]


def linear_functions(model):
    """A `LinearVAE` as the two functions of a model of arrays."""
    return (
        lambda x: ((x - model.mu) @ model.V.T, np.zeros((len(x), len(model.D))) + np.log(model.D)),
        lambda z: z @ model.W.T + model.mu,
    )


NETWORKS = [  # hidden layers, k, theta of networks on digits and on Gaussian data; trained little, and longer
    ("digits", (32,), 4, 0.05),
    ("digits", (64, 32), 8, 0.02),
    ("digits", (), 3, 0.1),
    ("gaussian", (32,), 5, 0.3),
    ("gaussian", (32, 16), 3, 0.1),
]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [60, 1000])
@pytest.mark.parametrize("kind, hidden, k, theta", NETWORKS)
def test_surgery_gains_what_the_residual_test_predicts(kind, hidden, k, theta, steps):
    x = torch.tensor(data.digits() if kind == "digits" else gaussian(), dtype=torch.float32)
    x = x / 16 if x.max() > 10 else x
    model = trained(x, hidden, k, theta, steps, seed=len(hidden) + k)
    wider = with_linear_units(model, x, f"nll(sigma2={theta}) + kl", units=10)
    assert wider.gain > 0.1
    assert measured_gain(model, wider, x, theta) == pytest.approx(wider.gain, rel=0.05)


def test_surgery_on_one_network_quickly():
    x = torch.tensor(gaussian(), dtype=torch.float32)
    model = trained(x, (32,), 5, 0.1, 60, seed=0)
    wider = with_linear_units(model, x, "nll(sigma2=0.1) + kl", units=3)
    assert measured_gain(model, wider, x, 0.1, 32) == pytest.approx(wider.gain, rel=0.02)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in wider.model.state_dict().items())
    # The wider model is a model again, and has no more to gain by as many units in the same directions.
    again = with_linear_units(wider, x, "nll(sigma2=0.1) + kl", units=20)
    rest = with_linear_units(model, x, "nll(sigma2=0.1) + kl", units=20).gain - wider.gain
    assert again.gain == pytest.approx(rest, rel=0.05)


def test_a_linear_vae_that_lacks_units_gains_what_the_spectrum_says():
    """Closed form on both sides: exact, whatever the draws, as a linear decoder's average over pairs is."""
    x, theta = gaussian(), 0.3
    eigenvalues = Moments.from_samples(x).eigenvalues
    model = linear_vae.fit(Moments.from_samples(x), 3, sigma2=theta)
    found = codes.measure(linear_functions(model), x)
    rho = rho_of(found, theta)
    expected = np.sort(np.append(eigenvalues[3:] / theta, theta / eigenvalues[:3]))[::-1]
    assert np.allclose(rho, expected, rtol=1e-6)
    for units in (1, 4, 20):
        best = [spectrum.elbo(eigenvalues, min(k, 20), theta) for k in (3, 3 + units)]
        assert gain(rho, units) == pytest.approx(best[1] - best[0], rel=1e-6)


def test_no_other_affine_unit_gains_more():
    """Against ascent over the unit's decoder, encoder and variance on the residuals, from a random start."""
    x = torch.tensor(gaussian(), dtype=torch.float32)
    model, theta = trained(x, (16,), 3, 0.3, 80, seed=1), 0.3
    found = codes.measure(model, x, pairs=32)
    r = torch.tensor(found.residual.mean(axis=0), dtype=torch.float64)
    r = r - r.mean(dim=0)
    torch.manual_seed(0)
    w, v = (0.1 * torch.randn(20, dtype=torch.float64) for _ in range(2))
    log_D = torch.zeros((), dtype=torch.float64)
    unit = [one.requires_grad_() for one in (w, v, log_D)]

    def loss():
        m, D = r @ v, log_D.exp()
        change = ((r - m[:, None] * w) ** 2).sum(1).mean() + (w**2).sum() * D - (r**2).sum(1).mean()
        value = change / (2 * theta) + ((m**2).mean() + D - 1 - log_D) / 2
        ascent.zero_grad()
        value.backward()
        return value

    ascent = torch.optim.LBFGS(unit, max_iter=500, line_search_fn="strong_wolfe")
    ascent.step(loss)
    assert -float(loss().detach()) == pytest.approx(gain(rho_of(found, theta), 1), rel=0.01)


def test_the_noise_of_the_draws_adds_no_units():
    """Pure noise in each estimate: its covariance would be that of many units, the cross-covariance is near 0."""
    first, second = np.random.default_rng(0).standard_normal((2, 4000, 10))
    assert eigenpairs(first, first)[0].min() > 0.8
    assert np.abs(eigenpairs(first, second)[0]).max() < 0.1


@pytest.mark.parametrize("count, n", [(3, 40), (30, 40), (50, 40)])
def test_fewer_samples_than_features_have_the_same_eigenpairs(count, n):
    first, second = np.random.default_rng(0).standard_normal((2, count, n))
    values, vectors = eigenpairs(first, second)
    first, second = (part - part.mean(axis=0) for part in (first, second))
    C = (first.T @ second + second.T @ first) / (2 * count)
    expected = np.linalg.eigvalsh(C)[::-1]
    assert np.allclose(np.sort(np.append(values, np.zeros(n - len(values))))[::-1], expected)
    assert np.allclose(C @ vectors, vectors * values) and np.allclose(vectors.T @ vectors, np.eye(len(values)))


def test_gain_of_units_that_pay():
    assert gain([0.5, 4.0, 2.0], 1) == pytest.approx((3 - np.log(4)) / 2)
    assert gain([0.5, 4.0, 2.0]) == pytest.approx((4 - np.log(8)) / 2)
    assert gain([4.0], 0) == gain([0.5, -0.1]) == 0


def bits(count, seed=0):
    """Six pixels of which two pairs agree in 80 % of the samples."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 6)) < [0.5, 0.3, 0.7, 0.5, 0.2, 0.5]
    x[:, 3] = np.where(rng.random(count) < 0.6, x[:, 0], x[:, 3])
    return x.astype(float)


def collapsed(x):
    p = x.mean(axis=0)
    return (lambda x: (x[:, :1] * 0, x[:, :1] * 0)), (lambda z: np.zeros((len(z), len(p))) + p)


def test_scores_of_a_collapsed_model_have_the_threshold_of_chapter_6():
    x = bits(20_000)
    found = codes.measure(collapsed(x), x, "bernoulli")
    for beta in (1.0, 1.7):
        assert scores_rho(found, beta)[0] == pytest.approx(bernoulli.collapse_threshold(x) / beta, rel=0.02)


def test_scores_are_cross_validated():
    """Of independent pixels and few samples the eigenvalues in-sample are well above 1, which is noise."""
    x = (np.random.default_rng(0).random((60, 30)) < 0.5).astype(float)
    found = codes.measure(collapsed(x), x, "bernoulli")
    assert bernoulli.collapse_threshold(x) > 2
    assert gain(scores_rho(found, 1.0)) < 0.2 * gain(eigenpairs(*found.residual / np.sqrt(found.spread))[0])


def test_surgery_on_latent_maps_and_arrays():
    x = gaussian(12, 400).reshape(400, 3, 2, 2)
    maps = (
        lambda x: (x[:, :1] * 0.5, x[:, :1] * 0 - 1.0),
        lambda z: np.repeat(z, 3, axis=1) * 0.3,
    )
    wider = with_linear_units(maps, x, "nll(sigma2=0.2) + kl", units=5)
    before, after = (collapse.evaluate([x], *m, 0.2, 64).elbo for m in (maps, (wider.encode, wider.decode)))
    assert after - before == pytest.approx(wider.gain, rel=0.02)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: with_linear_units(collapsed(x), x, "bce + kl", 1), "bernoulli likelihood; expected a gaussian"),
        (lambda x: with_linear_units(collapsed(x), x, "se + kl", 0), "units is 0"),
        (lambda x: with_linear_units(collapsed(x), x, "nll(learned) + kl", 1), "sigma2 is None, and the loss learns"),
        (lambda x: with_linear_units(collapsed(x), x, "se + kl", 1, sigma2=1.0), "does not learn it"),
        (lambda x: scores_rho(codes.measure(collapsed(x), x), 1.0), "of a Bernoulli likelihood"),
        (lambda x: rho_of(codes.of_arrays(x, x, x, x), 1.0), "found has no residuals"),
        (lambda x: eigenpairs(x, x[:3]), "second has shape (3, 6)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(bits(50))
