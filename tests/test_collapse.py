"""The measures of collapse against torch's distributions, by hand, and at their edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import collapse


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
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
