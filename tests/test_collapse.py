"""The measures of collapse against torch's distributions, quadrature, the linear VAE, by hand, and at their edges."""

import tracemalloc
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import collapse, data, linear_vae, spectrum
from helpers.moments import Moments


def encoder_outputs(seed=0, count=50, k=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, k)), rng.normal(-1, 1, (count, k))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_kl_agrees_with_torch_distributions(seed):
    mean, logvar = encoder_outputs(seed)
    q = torch.distributions.Normal(torch.tensor(mean), torch.tensor(logvar / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).numpy()
    np.testing.assert_allclose(collapse.kl_samples(mean, logvar), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(collapse.kl_per_unit(mean, logvar), expected.mean(axis=0), rtol=1e-9)


def test_kl_of_a_nearly_collapsed_unit_keeps_its_digits():
    """log var = t and mean 0 give t^2 / 4 to leading order, far below the rounding of var - 1."""
    assert collapse.kl_per_unit([[0.0]], [[1e-9]])[0] == pytest.approx(0.25e-18, rel=1e-3, abs=1e-17)
    assert collapse.kl_per_unit([[1e-6]], [[0.0]])[0] == pytest.approx(0.5e-12)


def test_torch_and_numpy_agree_and_gradients_are_left_alone():
    mean, logvar = encoder_outputs()
    tensors = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in (mean, logvar)]
    result = collapse.kl_per_unit(*tensors)
    assert isinstance(result, np.ndarray) and result.dtype == np.float64
    np.testing.assert_allclose(result, collapse.kl_per_unit(mean, logvar), rtol=1e-5)
    assert collapse.active_units(tensors[0]) == collapse.active_units(mean)


def test_active_units_count_variances_above_the_threshold():
    mean = np.array([[1.0, 0.09, 0.05, 3.0], [-1.0, -0.09, -0.05, 3.0]])  # variances 1, .0081, .0025, 0
    assert collapse.active_units(mean) == 1
    assert collapse.active_units(mean, threshold=0.005) == 2
    assert collapse.active_units(mean, threshold=0.001) == 3


def test_inactive_fraction_is_the_share_below_each_threshold():
    kl = [0.0, 0.5, 0.5, 2.0]
    np.testing.assert_array_equal(collapse.inactive_fraction(kl, [0.0, 0.1, 0.5, 0.6, 3.0]), [0, 0.25, 0.25, 0.75, 1])


def test_epsilon_delta_counts_samples():
    kl = np.zeros((100, 3))
    kl[:1, 1] = 1.0  # one sample in a hundred
    kl[:2, 2] = 1.0
    np.testing.assert_array_equal(collapse.epsilon_delta(kl, 0.5, 0.01), [True, True, False])
    np.testing.assert_array_equal(collapse.epsilon_delta(kl, 0.5, 0.0), [True, False, False])
    np.testing.assert_array_equal(collapse.epsilon_delta(kl, 1.5), [True, True, True])


@pytest.mark.parametrize(("delta", "may"), [(0.29, 29), (0.57, 57), (0.07, 7), (0.289, 28)])
def test_epsilon_delta_takes_whole_samples(delta, may):
    """0.29 of 100 samples are 29, though 0.29 * 100 is below 29 in float64."""
    kl = np.array([[1.0] * 2] * may + [[0.0] * 2] * (100 - may))
    kl[may, 1] = 1.0
    np.testing.assert_array_equal(collapse.epsilon_delta(kl, 0.5, delta), [True, False])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 40), st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.999]))
def test_quantile_is_where_epsilon_delta_collapse_begins(seed, count, k, delta):
    mean, logvar = encoder_outputs(seed, count, k)
    kl, quantile = collapse.kl_samples(mean, logvar), collapse.unit_statistics(mean, logvar, delta).quantile
    for i in range(k):
        assert collapse.epsilon_delta(kl, np.nextafter(quantile[i], np.inf), delta)[i]
        assert not collapse.epsilon_delta(kl, quantile[i], delta)[i]


def test_quantile_of_gaussian_means_is_the_predicted_one():
    eigenvalues, rng = np.array([8.0, 2.0, 1.1, 0.5]), np.random.default_rng(0)
    D = spectrum.encoder_variances(eigenvalues, 1.0)
    mean = rng.standard_normal((200_000, 4)) * np.sqrt(1 - D)
    units = collapse.unit_statistics(mean, np.tile(np.log(D), (200_000, 1)))
    np.testing.assert_allclose(units.quantile, spectrum.epsilon_delta_threshold(eigenvalues, 1.0), rtol=0.02)
    np.testing.assert_allclose(units.second_moment, 1, atol=0.02)


def test_unit_statistics_are_those_of_each_function():
    mean, logvar = encoder_outputs(k=37)
    units = collapse.unit_statistics(mean, logvar)
    np.testing.assert_allclose(units.kl_per_unit, collapse.kl_per_unit(mean, logvar), rtol=1e-12)
    np.testing.assert_allclose(units.variance_of_mean, mean.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(units.second_moment, (mean**2 + np.exp(logvar)).mean(axis=0), rtol=1e-12)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        tensors = [torch.tensor(a, dtype=dtype, requires_grad=True) for a in (mean, logvar)]
        same = collapse.unit_statistics(*[t.detach().double().numpy() for t in tensors])
        np.testing.assert_array_equal(collapse.unit_statistics(*tensors), same)


def exact_information(mean, logvar):
    """By quadrature, of one unit: the entropy of the mixture less the average entropy of its components."""
    deviation = np.exp(np.ravel(logvar) / 2)
    q = scipy.stats.norm(np.ravel(mean), deviation)
    ends = (np.ravel(mean) - 12 * deviation).min(), (np.ravel(mean) + 12 * deviation).max()
    entropy = scipy.integrate.quad(lambda z: scipy.special.entr(q.pdf(z).mean()), *ends, points=mean, limit=500)[0]
    return entropy - q.entropy().mean()


@pytest.mark.parametrize("seed", range(4))
def test_mutual_information_agrees_with_quadrature(seed):
    mean, logvar = encoder_outputs(seed, count=2 + 3 * seed, k=1)
    estimate = collapse.mutual_information(mean, logvar, samples=100_000)
    assert estimate == pytest.approx(exact_information(mean, logvar), abs=0.02)


def test_mutual_information_of_independent_units_adds_up():
    """x on a grid of 7 x 5 with one unit for each coordinate: the two are independent, and so are their z."""
    (a, la), (b, lb) = encoder_outputs(1, 7, 1), encoder_outputs(2, 5, 1)
    mean, logvar = (np.column_stack([np.repeat(p, 5), np.tile(q[:, 0], 7)]) for p, q in ((a, b), (la, lb)))
    exact = exact_information(a, la) + exact_information(b, lb)
    assert collapse.mutual_information(mean, logvar, samples=100_000) == pytest.approx(exact, abs=0.02)
    one = collapse.mutual_information(mean[:, [1]], logvar[:, [1]], samples=100_000)
    assert one == pytest.approx(exact_information(b, lb), abs=0.02)


def test_mutual_information_of_gaussian_means_is_that_of_a_gaussian_channel():
    D = 0.2
    mean = np.sqrt(1 - D) * np.random.default_rng(0).standard_normal((20_000, 1))
    estimate = collapse.mutual_information(mean, np.full_like(mean, np.log(D)), samples=4000)
    assert estimate == pytest.approx(np.log(1 / D) / 2, abs=0.04)


def test_mutual_information_of_separate_and_of_equal_posteriors():
    mean, logvar = np.arange(300.0).reshape(100, 3), np.full((100, 3), -9.0)
    assert collapse.mutual_information(mean, logvar) == pytest.approx(np.log(100), abs=1e-12)
    equal = collapse.mutual_information(np.full((100, 3), 0.7), np.full((100, 3), -30.0))
    assert equal == pytest.approx(0, abs=1e-9)
    assert collapse.mutual_information([[0.3]], [[-1.0]]) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(1, 6), st.floats(-8, 2))
def test_mutual_information_is_bounded(seed, count, k, shift):
    mean, logvar = encoder_outputs(seed, count, k)
    estimate = collapse.mutual_information(mean, logvar + shift, samples=2000)
    assert estimate <= np.log(count) + 1e-12
    assert -0.2 < estimate <= collapse.kl_per_unit(mean, logvar + shift).sum() + 0.2


def test_mutual_information_does_not_depend_on_units_of_z_or_blocks(monkeypatch):
    mean, logvar = encoder_outputs(count=100)
    estimate = collapse.mutual_information(mean, logvar, samples=150, seed=5)
    assert estimate != collapse.mutual_information(mean, logvar, samples=150, seed=6)
    scaled = collapse.mutual_information(1e-5 * mean, logvar + 2 * np.log(1e-5), samples=150, seed=5)
    far = collapse.mutual_information(mean + 1e5, logvar, samples=150, seed=5)
    tensors = collapse.mutual_information(torch.tensor(mean), torch.tensor(logvar), samples=150, seed=5)
    monkeypatch.setattr(collapse, "BLOCK", 37)
    blocks = collapse.mutual_information(mean, logvar, samples=150, seed=5)
    np.testing.assert_allclose([scaled, tensors, blocks], estimate, rtol=1e-12)
    assert far == pytest.approx(estimate, rel=1e-8)


def direct_information(mean, logvar, samples=1024, seed=0):
    """The same average of the same draws, by its definition, in extended precision and from differences alone."""
    rng, count = np.random.default_rng(seed), len(mean)
    drawn, m, l = np.resize(rng.permutation(count), samples), mean.astype(np.longdouble), logvar.astype(np.longdouble)
    total = np.longdouble(0)
    for s, noise in zip(drawn, rng.standard_normal((samples, mean.shape[1])), strict=True):
        deviations = (m[s] - m) * np.exp(-l / 2) + np.exp((l[s] - l) / 2) * noise
        log_q = -(deviations**2 + l).sum(axis=1) / 2
        total += log_q[s] - log_q.max() - np.log(np.exp(log_q - log_q.max()).sum())
    return float(total / samples + np.log(np.longdouble(count)))


def awkward_outputs():
    rng = np.random.default_rng(0)
    mean, narrow = rng.standard_normal((300, 4)), np.full((300, 4), -6.0)
    few, half = np.arange(300)[:, None] == 7, np.arange(300)[:, None] < 150
    signs = rng.choice([-1.0, 1.0], (300, 4))
    return {
        "one mean of 1e10": (np.where(few, 1e10, mean), narrow),
        "one log variance of 60": (mean, np.where(few, 60.0, narrow)),
        "one log variance of -2000": (mean, np.where(few, -2000.0, narrow)),
        "log variances of 60 and -60": (mean, 60 * signs),
        "log variances of 85 and -85": (mean, 85 * signs),
        "all log variances from -85 to 85": (mean, rng.uniform(-85, 85, (300, 4))),
        "two clusters 1e10 apart": (mean + 1e10 * half, narrow + 8),
        "far from 0": (mean + 1e12, narrow + 6),
        "means of 1e200": (mean * 1e200, narrow),
        "log variances of 1400": (mean, narrow + 1406),
    }


@pytest.mark.parametrize("kind", awkward_outputs())
def test_mutual_information_is_right_whatever_the_scales(kind):
    mean, logvar = awkward_outputs()[kind]
    assert collapse.mutual_information(mean, logvar) == pytest.approx(direct_information(mean, logvar), abs=1e-8)
    assert -1e-9 < collapse.mutual_information(mean, logvar) <= np.log(300) + 1e-12


def test_a_sum_that_no_draws_can_have_is_refused(monkeypatch):
    """The products alone, with nothing computed again, lose all digits of clusters far apart."""
    monkeypatch.setattr(collapse, "ROUNDING", np.inf)
    with pytest.raises(
        ValueError, match=r"mean is up to 1e\+10 and logvar from 2 to 2; expected densities within float64"
    ):
        collapse.mutual_information(*awkward_outputs()["two clusters 1e10 apart"])


def test_mutual_information_of_a_point_beside_a_gaussian():
    """Of two samples the one has no variance to speak of: every z tells them apart, and so says log 2."""
    assert collapse.mutual_information([[0.0], [1.0]], [[0.0], [-2000.0]]) == pytest.approx(np.log(2), abs=1e-12)


def test_evaluation_says_when_the_information_is_all_there_is(digits_vae):
    x, _, vae = digits_vae
    found = collapse.evaluate([x[:20]], *networks(vae), vae.sigma2)
    assert found.saturated and found.mutual_information > 0.99 * np.log(20)
    assert not collapse.evaluate([x], lambda x: (x[:, :5] * 0.1, x[:, :5] * 0), networks(vae)[1], 1.0).saturated


def test_mutual_information_never_holds_all_densities():
    mean, logvar = (a.astype(np.float32) for a in encoder_outputs(count=20_000, k=2))
    tracemalloc.start()
    collapse.mutual_information(mean, logvar)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 1024 * 8 / 4


@pytest.fixture(scope="module")
def digits_vae():
    x = data.digits()
    moments = Moments.from_samples(x)
    return x, moments, linear_vae.fit(moments, 5, sigma2=0.02)


def networks(vae, library=np):
    W, V, D, mu = (library.asarray(a) for a in (vae.W, vae.V, vae.D, vae.mu))

    def encode(x):
        mean = (x - mu) @ V.T
        return mean, library.log(D) + 0 * mean

    return encode, lambda z: z @ W.T + mu


def sse_error(x, vae, samples):
    """Standard error of the Monte-Carlo sse: of |r + W sqrt(D) e|^2 with r the residual and e standard normal."""
    residual = (x - vae.mu) @ (np.eye(x.shape[1]) - vae.V.T @ vae.W.T)
    WD = vae.W * np.sqrt(vae.D)
    variance = 4 * ((residual @ WD) ** 2).sum(axis=1) + 2 * ((WD.T @ WD) ** 2).sum()
    return np.sqrt(variance.sum() / samples) / len(x)


@pytest.mark.parametrize("samples", [1, 16])
@pytest.mark.parametrize("library", [np, torch])
def test_evaluate_agrees_with_the_closed_form(library, samples, digits_vae):
    x, moments, vae = digits_vae
    batches = np.split(x, [600, 700]) if library is np else torch.tensor(x).split(600)
    found = collapse.evaluate(batches, *networks(vae, library), vae.sigma2, samples=samples)
    terms = vae.terms(moments)
    sse = -(2 * terms.reconstruction + 64 * np.log(2 * np.pi * vae.sigma2)) * vae.sigma2
    assert found.kl == pytest.approx(terms.kl, rel=1e-9)
    assert abs(found.sse - sse) < 4 * sse_error(x, vae, samples)
    assert found.elbo == pytest.approx(vae.elbo(moments) - (found.sse - sse) / (2 * vae.sigma2), rel=1e-9)
    assert found.tuned_sigma2 == found.sse / 64 and found.sigma2 == vae.sigma2
    np.testing.assert_allclose(found.second_moment, 1, atol=1e-6)  # theory: 1 at every optimum
    np.testing.assert_allclose(found.variance_of_mean, 1 - vae.D, atol=1e-6)
    assert (found.count, found.active_units) == (1797, collapse.active_units((x - vae.mu) @ vae.V.T))
    assert 0 < found.mutual_information < min(found.kl, np.log(1797))
    assert all(type(value) in (float, int) for value in list(vars(found).values())[:9])


def test_evaluate_gives_the_statistics_of_all_batches_together(digits_vae):
    x, _, vae = digits_vae
    outputs = networks(vae)[0](x)
    units, information = collapse.unit_statistics(*outputs), collapse.mutual_information(*outputs, seed=7)
    generator = (x[i : i + 500] for i in range(0, 1797, 500))
    for batches, library in (([x], np), (np.array_split(x, 13), np), (generator, np), ([torch.tensor(x)], torch)):
        found = collapse.evaluate(batches, *networks(vae, library), 0.1, samples=1, seed=7)
        for name, value in units._asdict().items():
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-10)
        assert found.mutual_information == pytest.approx(information, rel=1e-10)


def test_evaluate_counts_active_units_by_their_means():
    x = np.array([[1.0, 0.11, 0.09, 0.0], [-1.0, -0.11, -0.09, 0.0]])  # variances 1, .0121, .0081, 0; all KLs large
    assert collapse.evaluate([x], lambda x: (x, x * 0 - 5), lambda z: z, 1.0).active_units == 2


def test_tuned_elbo_is_the_best_over_sigma2(digits_vae):
    x, _, vae = digits_vae
    at = lambda log_sigma2: collapse.evaluate([x[:50]], *networks(vae), np.exp(log_sigma2), samples=2)  # noqa: E731
    best = scipy.optimize.minimize_scalar(lambda t: -at(t).elbo, bracket=(-5, 0))
    assert at(0.0).tuned_elbo == pytest.approx(-best.fun, rel=1e-9)
    assert at(0.0).tuned_sigma2 == pytest.approx(np.exp(best.x), rel=1e-4)
    assert at(np.log(at(0.0).tuned_sigma2)).elbo == pytest.approx(-best.fun, rel=1e-9)


def test_evaluate_draws_from_its_seed_alone(digits_vae):
    x, _, vae = digits_vae
    for batches, library in (([x], np), ([torch.tensor(x)], torch)):
        state = torch.get_rng_state()
        one, same, other = (collapse.evaluate(batches, *networks(vae, library), 0.1, seed=s).sse for s in (3, 3, 4))
        assert one == same != other
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("library", [np, torch])
def test_networks_in_float32_are_summed_in_float64(library):
    """Every error is the float32 nearest to 0.1, so the sums are known to all digits; in float32 they are not."""
    tenth = float(np.float32(0.1))
    x = library.zeros((4000, 3, 10, 10), dtype=library.float32)
    encode = lambda x: (x[:, 0, 0] * 0 + tenth, x[:, 0, 0] * 0)  # noqa: E731
    decode = lambda z: x[: len(z)] + tenth  # noqa: E731
    found = collapse.evaluate([x[:1500], x[1500:]], encode, decode, 2.0, samples=3)
    assert found.sse == pytest.approx(300 * float(np.float32(tenth) ** 2), rel=1e-13)
    assert found.kl == pytest.approx(10 * tenth**2 / 2, rel=1e-13)
    assert found.elbo == pytest.approx(-150 * np.log(4 * np.pi) - found.sse / 4 - found.kl, rel=1e-13)


def test_evaluate_takes_no_gradients():
    weight = torch.ones(4, 4, requires_grad=True)
    modes = []

    def network(x):
        modes.append(torch.is_grad_enabled())
        return x @ weight

    collapse.evaluate([torch.ones(3, 4)], lambda x: (network(x), network(x)), network, 1.0)
    assert len(modes) == 2 + 16 and not any(modes)
    assert torch.is_grad_enabled()


X = np.random.default_rng(3).random((40, 6)).astype(np.float32)


class Plain(nn.Module):
    """A VAE with all that depends on the mode or changes when it is used."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head, self.tail = nn.Linear(8, 4), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 6), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x):
        self.calls = self.calls + 1
        return self.head(self.body(x)).chunk(2, dim=1)

    def decode(self, z):
        self.calls += 1
        return self.tail(z)


def state(net):
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return [part.training for part in net.modules()], tensors, torch.get_rng_state(), np.random.get_state()  # noqa: NPY002


WAYS = {
    "bound methods": lambda net: (net.encode, net.decode),
    "lambdas": lambda net: (lambda x: net.encode(x), lambda z: net.decode(z)),
    "partials": lambda net: (partial(Plain.encode, net), partial(lambda which, z: which.decode(z), net)),
    "defaults": lambda net: (lambda x, net=net: net.encode(x), lambda z, net=net: net.decode(z)),
    "an object that is no module": lambda net: (Wrapped(net).encode, Wrapped(net).decode),
}


class Wrapped:
    def __init__(self, net):
        self.parts = {"net": net}

    def encode(self, x):
        return self.parts["net"].encode(x)

    def decode(self, z):
        return self.parts["net"].decode(z)


@pytest.mark.parametrize("way", WAYS)
def test_evaluate_leaves_the_model_as_it_found_it(way):
    """And runs it in evaluation mode: the numbers are those of a model that was in it before."""
    torch.manual_seed(0)
    net, other = Plain(), Plain()
    other.load_state_dict(net.state_dict())
    net.body[1].eval()  # a part that was frozen stays so
    before = state(net)
    batches = torch.tensor(X).split(15)
    found = collapse.evaluate(batches, *WAYS[way](net), 0.5, samples=2)
    after = state(net)
    assert before[0] == after[0] and before[0].count(False) == 1
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    assert torch.equal(after[2], before[2]) and (after[3][1] == before[3][1]).all()
    other.eval()
    expected = collapse.evaluate(batches, other.encode, other.decode, 0.5, samples=2)
    assert found.elbo == expected.elbo and found.mutual_information == expected.mutual_information


def test_evaluate_takes_the_model_where_it_cannot_find_it():
    net = Plain()
    hidden = {"net": net}.__getitem__  # a builtin method, into which nothing looks
    ways = (lambda x: hidden("net").encode(x)), (lambda z: hidden("net").decode(z))
    batches, before = torch.tensor(X).split(20), state(net)
    found = collapse.evaluate(batches, *ways, 0.5, model=net)
    torch.testing.assert_close(state(net)[1], before[1], rtol=0, atol=0)
    assert found.elbo == collapse.evaluate(batches, net.encode, net.decode, 0.5).elbo and net.training


def test_evaluate_leaves_the_model_as_it_found_it_after_an_error():
    net = Plain()
    before = state(net)
    with pytest.raises(ValueError, match="decode's output has shape"):
        collapse.evaluate([torch.tensor(X)], net.encode, lambda z: net.decode(z)[:, :3], 0.5)
    assert before[0] == state(net)[0] and torch.equal(before[1]["calls"], state(net)[1]["calls"])


def test_noise_drawn_by_the_networks_themselves_comes_from_the_seed():
    noisy = lambda x: (x[:, :2] + torch.randn(len(x), 2), x[:, :2] * 0)  # noqa: E731
    decode = lambda z: z[:, [0] * 6] + np.random.standard_normal()  # noqa: E731, NPY002
    one, same = (collapse.evaluate([torch.tensor(X)], noisy, decode, 0.5, seed=4).elbo for _ in range(2))
    assert one == same != collapse.evaluate([torch.tensor(X)], noisy, decode, 0.5, seed=5).elbo


def test_bytes_are_used_as_x_over_255_as_in_training():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4), dtype=np.uint8)
    encode, decode = (lambda x: (x[:, :2], x[:, :2] * 0)), (lambda z: z[:, [0, 1, 0, 1]])
    for make in (np.asarray, torch.tensor):
        scaled = make(pixels / np.float32(255))
        found, expected = (collapse.evaluate([b], encode, decode, 0.5) for b in (make(pixels), scaled))
        assert found.elbo == pytest.approx(expected.elbo, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_without_overflow(dtype):
    """An error of 1000 has a square beyond float16."""
    x = torch.full((50, 300), 1000.0, dtype=dtype)
    found = collapse.evaluate(
        [x], lambda x: (x[:, :3] * 0, x[:, :3] * 0), lambda z: z[:, :1] * torch.zeros(300).to(dtype), 1.0
    )
    assert found.sse == 300 * 1000.0**2
    if dtype == torch.float16:
        same = collapse.evaluate(
            [x.numpy()], lambda x: (x[:, :3] * 0,) * 2, lambda z: np.zeros((50, 300), np.float16), 1.0
        )
        assert same.sse == found.sse


def test_loaders_of_tuples_are_taken_by_their_first():
    data_set = torch.utils.data.TensorDataset(torch.tensor(X), torch.arange(40))
    encode, decode = (lambda x: (x[:, :2], x[:, :2] * 0)), (lambda z: z[:, [0] * 6])
    expected = collapse.evaluate(torch.tensor(X).split(16), encode, decode, 0.5)
    alone = torch.utils.data.TensorDataset(torch.tensor(X))
    for loader in (torch.utils.data.DataLoader(one, 16) for one in (data_set, alone)):
        assert collapse.evaluate(loader, encode, decode, 0.5).elbo == expected.elbo


def test_latent_maps_count_as_units():
    encode = lambda x: (x[:, :4].reshape(-1, 1, 2, 2), x[:, :4].reshape(-1, 1, 2, 2) * 0)  # noqa: E731
    found = collapse.evaluate(torch.tensor(X).split(16), encode, lambda z: z.flatten(1)[:, [0] * 6], 0.5)
    assert found.kl_per_unit.shape == (4,)
    np.testing.assert_allclose(found.kl_per_unit, collapse.kl_per_unit(X[:, :4], X[:, :4] * 0), rtol=1e-6)


class NoFloat64(torch.Tensor):
    """As on a device that has none: sums in it are refused until the tensor is on the host."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.sum and kwargs.get("dtype") == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        found = super().__torch_function__(function, types, args, kwargs)
        return found.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else found


def test_a_device_without_float64_sums_on_the_host():
    encode, decode = (lambda x: (x[:, :2], x[:, :2] * 0)), (lambda z: z[:, [0] * 6])
    found = collapse.evaluate([torch.tensor(X).as_subclass(NoFloat64)], encode, decode, 0.5)
    assert found.elbo == collapse.evaluate([torch.tensor(X)], encode, decode, 0.5).elbo


def test_perfect_reconstruction_has_no_best_sigma2():
    x = np.zeros((5, 3))
    found = collapse.evaluate([x], lambda x: (x, x), lambda z: np.zeros_like(z), 1.0)
    assert found.sse == 0 and found.tuned_elbo == np.inf


@dataclass
class Output:
    """As libraries of VAEs return it."""

    embedding: np.ndarray
    log_covariance: np.ndarray


def run(batches=None, encode=lambda x: (x, x), decode=lambda z: z, sigma2=1.0, **options):
    return collapse.evaluate([np.ones((3, 2))] if batches is None else batches, encode, decode, sigma2, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collapse.kl_per_unit(np.zeros(3), np.zeros(3)), "mean has shape"),
        (
            lambda: collapse.kl_per_unit(np.zeros((3, 2)), np.zeros((3, 1))),
            r"logvar has shape \(3, 1\); expected \(3, 2\)",
        ),
        (lambda: collapse.kl_samples([[np.nan]], [[0.0]]), "mean contains NaN"),
        (lambda: collapse.kl_samples([[0.0]], [[np.inf]]), "logvar contains NaN or infinity"),
        (lambda: collapse.active_units(np.zeros((1, 2))), "at least 2 samples"),
        (lambda: collapse.active_units(np.zeros((3, 2)), threshold=0), "threshold is 0.0"),
        (lambda: collapse.inactive_fraction([], [0.1]), "kl has shape"),
        (lambda: collapse.inactive_fraction([0.1], [np.nan]), "thresholds contains NaN"),
        (lambda: collapse.epsilon_delta(np.zeros(3), 0.1), "kl_samples has shape"),
        (lambda: collapse.epsilon_delta(np.zeros((3, 2)), 0.0), "epsilon is 0.0"),
        (lambda: collapse.epsilon_delta(np.zeros((3, 2)), 0.1, delta=1.0), "delta is 1.0"),
        (lambda: collapse.epsilon_delta(np.zeros((3, 2)), 0.1, delta=-0.1), "delta is -0.1"),
        (lambda: collapse.unit_statistics(np.zeros(3), np.zeros(3)), r"mean has shape \(3,\); expected \(N, k\)"),
        (lambda: collapse.unit_statistics([[1.0], [np.nan]], np.zeros((2, 1))), "mean contains NaN"),
        (lambda: collapse.unit_statistics(np.zeros((3, 2)), np.zeros((3, 2)), delta=1), "delta is 1.0"),
        (lambda: collapse.mutual_information(np.zeros((0, 2)), np.zeros((0, 2))), r"mean has shape \(0, 2\)"),
        (
            lambda: collapse.mutual_information(torch.zeros(3, 2), torch.zeros(2, 2)),
            r"logvar has shape \(2, 2\); expected \(3, 2\)",
        ),
        (lambda: collapse.mutual_information([["one"]], [[0.0]]), "mean is"),
        (lambda: collapse.mutual_information([[0.0], [1.0]], [[0.0], [np.inf]], samples=1), "logvar contains NaN"),
        (lambda: collapse.kl_samples([[1e200]], [[0.0]]), r"mean is up to 1e\+200 and logvar up to 0"),
        (lambda: collapse.kl_samples([[0.0]], [[800.0]]), "logvar up to 800"),
        (lambda: collapse.active_units([[1e200], [-1e200]]), r"mean is up to 1e\+200"),
        (lambda: collapse.mutual_information([[0.0]], [[0.0]], samples=0), "samples is 0"),
        (lambda: collapse.mutual_information([[0.0]], [[0.0]], seed=-1), "seed is -1"),
        (lambda: run(sigma2=0.0), "sigma2 is 0.0"),
        (lambda: run(samples=0), "samples is 0"),
        (lambda: run(seed=0.5), "seed is 0.5"),
        (lambda: run(batches=[]), "batches is empty"),
        (lambda: run(batches=np.ones((3, 2))), r"batches is a ndarray, .*x.split\(500\), np.array_split"),
        (lambda: run(batches=torch.ones(3, 2)), r"batches is a Tensor, .*expected an iterable of batches"),
        (lambda: run(batches="ab"), "batches is a str, 'ab'"),
        (lambda: run(batches=5), "batches is a int, 5"),
        (lambda: run(batches=[{"x": np.ones((3, 2))}]), r"a batch is .*a dict with \['x'\]"),
        (lambda: run(batches=[np.ones((3, 2)), torch.ones(3, 2)]), "a batch is a Tensor and the first was not"),
        (
            lambda: run(batches=[np.ones((3, 2), np.int64)]),
            "a batch has dtype int64; expected floating point, or uint8",
        ),
        (lambda: run(batches=[torch.ones(3, 2, dtype=torch.int32)]), "a batch has dtype torch.int32"),
        (lambda: run(batches=[torch.ones(3, 2).to_sparse()]), "a batch is sparse.*to_dense"),
        (lambda: run(batches=[torch.ones(3, 2, device="meta")]), "a batch is tensor.*meta"),
        (lambda: run(batches=[torch.ones(3, 2) > 0]), "a batch is boolean"),
        (lambda: run(batches=[np.ma.masked_equal(np.ones((3, 2)), 2)]), "a batch is a masked array.*fill it"),
        (
            lambda: run(batches=[np.ones((3, 2)), np.array([[1, np.nan]])]),
            r"a batch contains NaN.*first nan at \[3, 1\]",
        ),
        (lambda: run(encode=None), "encode is None; expected a function"),
        (lambda: run(model=3), "model is 3; expected a torch.nn.Module"),
        (lambda: run(encode=lambda x: (x, x, x)), r"encode returned a tuple of 3; expected a pair.*\[:2\]"),
        (lambda: run(encode=lambda x: x), "encode returned a ndarray; expected a pair"),
        (lambda: run([torch.ones(2, 3)], lambda x: x), "encode returned a Tensor; expected a pair"),
        (lambda: run(encode=lambda x: {"mu": x, "log_var": x}), "encode returned a dict with mu, log_var; expected"),
        (lambda: run(encode=lambda x: Output(x, x)), "encode returned a Output with embedding, log_covariance"),
        (lambda: run(encode=lambda x: (torch.ones(3, 2), x)), "encode's mean is a Tensor and x a ndarray"),
        (lambda: run(encode=lambda x: (x.astype(int), x)), "encode's mean has dtype int64"),
        (lambda: run(decode=lambda z: None), "decode's output is None, a NoneType; expected an array"),
        (lambda: run(decode=lambda z: (z, z)), "decode's output is .*, a tuple; expected an array"),
        (lambda: run([torch.ones(3, 2)], decode=lambda z: z.numpy()), "decode's output is a ndarray and x a Tensor"),
        (lambda: run(batches=[[[1.0, 2.0]]]), r"a batch is \[\[1.0, 2.0\]\]; expected an array or a tensor"),
        (lambda: run(batches=[np.ones((3, 2)), np.ones((3, 4))]), r"a batch has shape \(3, 4\); expected \(B, 2\)"),
        (lambda: run(batches=[np.ones((3, 2)), np.ones((0, 2))]), r"a batch has shape \(0, 2\); expected \(B, 2\)"),
        (lambda: run(batches=[np.full((3, 2), np.nan)]), "a batch contains NaN"),
        (lambda: run(encode=lambda x: (x[0], x[0])), r"encode's mean has shape \(2,\); expected \(3, k\)"),
        (lambda: run(encode=lambda x: (x, x[:, :1])), r"encode's logvar has shape \(3, 1\); expected \(3, 2\)"),
        (
            lambda: run(
                [np.ones((3, 2)), np.ones((4, 2))], lambda x: (x[:, : len(x) - 2],) * 2, lambda z: z[:, [0, 0]]
            ),
            r"encode's mean has shape \(4, 2\); expected \(4, 1\)",
        ),
        (lambda: run(encode=lambda x: (x + np.inf, x)), "encode's mean contains NaN or infinity"),
        (lambda: run(encode=lambda x: (x, x - np.inf)), "encode's logvar contains NaN or infinity"),
        (lambda: run(decode=lambda z: z[:, 0]), r"decode's output has shape \(3,\); expected \(3, 2\)"),
        (lambda: run(decode=lambda z: z[0:1]), r"decode's output has shape \(1, 2\); expected \(3, 2\)"),
        (lambda: run(decode=lambda z: z + np.nan), "decode's output contains NaN or infinity"),
        (
            lambda: run([torch.ones(3, 2)], decode=lambda z: z * 0 + 1e30),
            "decode's output contains NaN or infinity, or is too far from x, in the batch of the rows from 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
