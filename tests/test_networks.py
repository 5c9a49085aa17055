"""What stands under `collapse` and `codes`: networks run undisturbed, and what they take and give is checked."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from helpers._networks import batch_of, expect, floats, is_module, is_tensor, library_of, modules_in, undisturbed, wide


class Holder:
    def __init__(self, part):
        self.part = part


def test_modules_are_found_where_functions_have_them():
    net = nn.Linear(2, 2)
    ways = [
        net,
        net.forward,
        partial(net.forward),
        lambda x: net(x),
        Holder(net),
        [{"a": net}],
        (lambda x, n=net: n(x)),
    ]
    for way in ways:
        assert [*modules_in([way])] == [net]
    assert [*modules_in([len, 3, "text", None])] == []
    assert is_module(net) and not is_module(Holder(net))


def test_networks_are_run_in_evaluation_mode_and_left_as_they_were():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()).train()
    net[1].eval()
    before = net[0].running_mean.clone()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    with pytest.raises(KeyError), undisturbed([net], seed=0):
        assert not any(part.training for part in net.modules()) and not torch.is_grad_enabled()
        first = torch.randn(3), np.random.random(3)  # noqa: NPY002
        net[0].running_mean += 1
        raise KeyError
    assert [part.training for part in net.modules()] == [True, True, False]
    assert torch.equal(net[0].running_mean, before) and torch.equal(torch.random.get_rng_state(), state)
    with undisturbed([], seed=0):
        assert torch.equal(torch.randn(3), first[0]) and (np.random.random(3) == first[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("x", [np.zeros((4, 2)), torch.zeros(4, 2)])
def test_noise_is_of_the_library_and_the_seed(x):
    library = library_of(x, seed=3)
    noise, again = library.normal((4, 2)), library_of(x, seed=3).normal((4, 2))
    assert is_tensor(noise) == is_tensor(x) == library.tensors and (noise == again).all()
    assert not (library.normal((4, 2)) == noise).any()


def test_batches_are_floating_point():
    assert batch_of((torch.ones(2, 3), "label")).shape == (2, 3)
    assert batch_of(np.full((1, 2), 51, np.uint8)).tolist() == pytest.approx(np.full((1, 2), 0.2))
    with pytest.raises(ValueError, match="a batch has dtype int64"):
        batch_of(np.ones((2, 3), int))
    assert wide(torch.ones(2, dtype=torch.float16)).dtype == torch.float32 and wide(np.ones(2)).dtype == float


def test_shapes_are_those_expected():
    expect("x", np.zeros((2, 3)), ("B", 3))
    for shape in [("B", 4), ("B",), (3, 3)]:
        with pytest.raises(ValueError, match="x has shape"):
            expect("x", np.zeros((2, 3)), shape)
    assert floats("x", torch.ones(1, 2), ("B", 2)).shape == (1, 2)
    for bad in (3, np.ones((2, 2), int), np.full((2, 2), np.nan), torch.full((2, 2), torch.inf)):
        with pytest.raises(ValueError, match=r"^x "):
            floats("x", bad, ("B", 2))
