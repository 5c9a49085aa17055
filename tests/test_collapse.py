"""The measures of collapse against torch's distributions, quadrature, the linear VAE, by hand, and at their edges."""

import tracemalloc

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_perfect_reconstruction_has_no_best_sigma2():
    x = np.zeros((5, 3))
    found = collapse.evaluate([x], lambda x: (x, x), lambda z: np.zeros_like(z), 1.0)
    assert found.sse == 0 and found.tuned_elbo == np.inf


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
        (lambda: collapse.mutual_information([[0.0], [1.0]], [[0.0], [-2000.0]]), "beyond float64"),
        (lambda: collapse.mutual_information([[0.0]], [[0.0]], samples=0), "samples is 0"),
        (lambda: collapse.mutual_information([[0.0]], [[0.0]], seed=-1), "seed is -1"),
        (lambda: run(sigma2=0.0), "sigma2 is 0.0"),
        (lambda: run(samples=0), "samples is 0"),
        (lambda: run(seed=0.5), "seed is 0.5"),
        (lambda: run(batches=[]), "batches is empty"),
        (lambda: run(batches=np.ones((3, 2))), r"a batch is array\(\[1., 1.\]\)"),
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
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
