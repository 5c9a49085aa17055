"""Runs of a few epochs, and what they come to: for the tests of the modules that train."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import data, evaluation, lockstep, train, vae
from helpers.ensemble import LinearAnnealing, Member

DIGITS = data.digits_bytes()
# Smooth, as at a ReLU's kink two paths that differ by rounding part for good.
NETWORK = partial(vae.mlp, n=64, hidden=(24,), k=3, activation=nn.Tanh)
MIXED = [
    Member(seed=0, learning_rate=1e-3, sigma2=0.1),
    Member(seed=1, learning_rate=3e-3, sigma2=1.0, beta=LinearAnnealing(6)),
    Member(seed=2, learning_rate=3e-4, sigma2=0.5, sigma2_rule="adam", beta=0.5),
    Member(seed=3, learning_rate=1e-3, sigma2=0.2, sigma2_rule="closed form", beta=lambda elapsed: 2 - elapsed / 10),
    Member(seed=0, learning_rate=3e-3, sigma2=0.01, sigma2_rule="adam"),
    Member(seed=4, learning_rate=1e-3, sigma2=0.1, decay=0.45),
]


def run(members, epochs=3, *, x=DIGITS[:600], batch_size=110, build=NETWORK, **options):
    """5 steps an epoch, 50 samples left over each time."""
    return train.train(build, x, members, epochs, batch_size, **options)


def state(result, members=slice(None)):
    """A copy of all that a run has come to, by name."""
    arrays = {f"{kind}/{name}": values[members] for kind, name, values in networks(result)}
    arrays |= {name: values[:, members] for name, values in result.history.items()}
    for epoch, statistics in result.snapshots.items():
        arrays |= {f"{epoch}/{name}": values[members] for name, values in statistics.items()}
    arrays |= {"epoch": result.epoch, "diverged": result.diverged[members]}
    return {name: np.array(values) for name, values in arrays.items()}


def networks(result):
    for kind, tensors in zip(("parameter", "mean", "square"), (result.stack.parameters, *result.adam), strict=True):
        for name, tensor in tensors.items():
            yield kind, name, tensor.detach().cpu().numpy()


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_close(found, expected, rtol):
    """Parameters by their norms, numbers of the history one by one."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "/" in name:
            assert np.linalg.norm(found[name] - value) <= rtol * np.linalg.norm(value), name
        else:
            np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


def constant(value):
    return lambda elapsed: value


@dataclass(frozen=True)
class Rise:
    """A schedule that says what it is, though not how."""

    epochs: float

    def __call__(self, elapsed):
        return min(1.0, elapsed / self.epochs)


def exploding(elapsed):
    return 1.0 if elapsed < 2 else 3e38


class NoFloat64(TorchDispatchMode):
    """A device that knows no float64, as Apple's: what `Tensor.cpu` gives lies on the host, and all else on it."""

    def __init__(self, patch):
        super().__init__()
        cpu = torch.Tensor.cpu
        patch.setattr(torch.Tensor, "cpu", lambda tensor: self.take(cpu(tensor).clone()))
        for module in (lockstep, evaluation, vae):
            patch.setattr(module, "has_float64", lambda device: False)

    def take(self, tensor):
        tensor.at_host = True
        return tensor

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        at_host = any(getattr(one, "at_host", False) for one in tree_leaves((arguments, keywords)))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor) and at_host:
                self.take(one)
            elif isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError(f"{function}: this device knows no float64")
        return found
