"""Codes of a model: averages over z against closed forms, by two halves that are independent."""

import numpy as np
import pytest
import torch

from helpers import codes

X = np.random.default_rng(0).standard_normal((300, 4))
SD = 0.7


def encode(x):
    return x[:, :2], np.full((len(x), 2), 2 * np.log(SD))


def linear(z):
    return z @ np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, -1.0]])


def squares(z):
    return np.column_stack([z**2, z])


def test_residuals_of_a_linear_decoder_are_exact():
    found = codes.measure((encode, linear), X, pairs=1)
    assert np.allclose(found.residual, X - linear(X[:, :2]))
    assert found.shape == (4,) and found.latents == (2,) and found.count == 300
    expected = ((X - linear(X[:, :2])) ** 2).sum(axis=1) + SD**2 * 7
    assert found.error.mean() == pytest.approx(expected.mean(), rel=0.05)


def test_halves_err_independently():
    """E z^2 = m^2 + s^2; what each half has beside it is noise, and the noises have nothing to do with each other."""
    found = codes.measure((encode, squares), X, pairs=2)
    exact = X - np.column_stack([X[:, :2] ** 2 + SD**2, X[:, :2]])
    first, second = (part[:, :2] - exact[:, :2] for part in found.residual)
    noise = np.sqrt((first**2).mean() * (second**2).mean())
    assert noise > 0.1 and abs((first * second).mean()) < 0.1 * noise and abs(first.mean()) < 0.1
    assert not np.allclose(found.error[0], found.error[1])


def test_draws_come_from_the_seed():
    runs = [codes.measure((encode, squares), X, seed=seed).residual for seed in (0, 0, 1)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2])[:, :, :2].all()


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_cross_entropies_are_those_of_torch(scale):
    x = (X > 0).astype(float)
    p = np.clip(0.5 + scale * np.linspace(-0.5, 0.5, 4), 0, 1)  # with a 0 and a 1, where the log is bounded
    model = (lambda x: (0 * x[:, :1], 0 * x[:, :1])), (lambda z: np.zeros((len(z), 4)) + p)
    found = codes.measure(model, x, "bernoulli", pairs=1)
    expected = torch.nn.functional.binary_cross_entropy(torch.tensor(x * 0 + p), torch.tensor(x), reduction="none")
    assert np.allclose(found.error, expected.sum(dim=1).numpy())
    assert np.allclose(found.spread, p * (1 - p)) and np.allclose(found.residual, x - p)


def test_use_is_measured_by_draws_from_the_prior():
    found = codes.measure((encode, lambda z: np.column_stack([z, 0 * z]) * [3.0, 0.0, 1.0, 1.0]), X)
    assert found.use[0] == pytest.approx(9.0, rel=0.3) and found.use[1] == 0


def test_other_likelihoods_have_no_errors():
    found = codes.measure((encode, linear), X, "poisson")
    assert found.error is found.residual is found.spread is None and found.use.shape == (2,)


def test_arrays_of_draws_make_halves():
    mean, logvar = encode(X)
    draws = np.stack([X + i for i in range(4)])
    found = codes.of_arrays(X.reshape(300, 2, 2), mean, logvar, draws.reshape(4, 300, 2, 2))
    assert np.allclose(found.residual[0], -1) and np.allclose(found.residual[1], -2)
    assert np.allclose(found.error[0], 4 * (0 + 4) / 2) and np.allclose(found.error[1], 4 * (1 + 9) / 2)
    one = codes.of_arrays(X, mean, logvar, draws[1])
    assert one.residual is None and np.allclose(one.error, 4.0) and one.error.shape == (1, 300)
    bits = codes.of_arrays((X > 0).astype(float), mean, logvar, np.full((2, 300, 4), 0.25), "bernoulli")
    assert np.allclose(bits.spread, 0.1875)
    assert codes.of_arrays(X, mean, logvar, draws, "huber").error is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_precisions_are_kept_and_widened(dtype):
    found = codes.measure((encode, linear), X.astype(dtype))
    assert found.x.dtype == max(np.dtype(dtype), np.dtype(np.float32)) and found.error.dtype == np.float64
    assert np.allclose(found.residual, X - linear(X[:, :2]), atol=0.02)
