"""The evaluation of every member: the numbers of `collapse`, and NaN for those that have none."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes
from training import DIGITS, NETWORK, NoFloat64, run

from helpers import collapse, evaluation, vae
from helpers.ensemble import Member, Stack

pytestmark = [
    pytest.mark.usefixtures("no_bars"),
    pytest.mark.filterwarnings("ignore:beta of members"),  # runs cut short on purpose
]


def test_it_is_evaluated_on_the_host_where_the_device_knows_no_float64(monkeypatch):
    evaluate = collapse.evaluate

    def on_the_host(*arguments):
        with _disable_current_modes():
            return evaluate(*arguments)

    stack, moved, to = Stack([NETWORK()]), [], nn.Module.to
    expected = evaluation.evaluate(stack, DIGITS[:100])
    monkeypatch.setattr(collapse, "evaluate", on_the_host)
    monkeypatch.setattr(nn.Module, "to", lambda module, device: moved.append(device) or to(module, device))
    with NoFloat64(monkeypatch):
        found = evaluation.evaluate(stack, DIGITS[:100])
    assert moved == ["cpu"] and found["elbo"] == expected["elbo"]


def test_snapshots_of_a_member_beyond_float32_are_nan():
    """After the one step of an epoch the parameters are still finite, and what the network makes of them is not."""
    members = [Member(learning_rate=1e20), Member()]
    options = {"batch_size": 600, "snapshots": [1], "build": partial(NETWORK, activation=nn.ReLU)}
    result = run(members, 1, **options)
    expected = run([replace(members[0], learning_rate=1e-3), members[1]], 1, **options)
    for name, values in result.snapshots[1].items():
        assert np.isnan(values[0]).all()
        np.testing.assert_array_equal(values[1], expected.snapshots[1][name][1])


NARROW = partial(vae.mlp, n=64, hidden=(8,), k=4)
PLACES = {"mean": ("encoder.2.bias", 0), "logvar": ("encoder.2.bias", -1), "output": ("decoder.2.bias", 0)}
PLACES["sigma2"] = ("log_sigma2", 0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1000.0, -1000.0])
def test_a_member_beyond_what_floats_hold_is_nan_throughout(place, value):
    model, (name, i) = NARROW(), PLACES[place]
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[i] = value
    found = evaluation.evaluate(Stack([model]), DIGITS[:50])
    finite = abs(value) == 1000 and place in ("mean", "output")
    assert all(np.isfinite(one).all() if finite else np.isnan(one).all() for one in found.values())
