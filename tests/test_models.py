"""Outputs and loaders in the forms that code has them in; whole models are in test_diagnose."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Laplace, Normal
from torch.utils.data import IterableDataset

from helpers._models import at_home, batches_of, data_of, functions, posterior_of, reconstruction_of, takes_arrays

X = torch.arange(12.0).reshape(4, 3)
MEAN, LOGVAR = torch.ones(4, 2), torch.full((4, 2), math.log(0.25))


class Diffusers:
    """A distribution that is none of torch's, with attributes."""

    def __init__(self):
        self.mean, self.logvar, self.std = MEAN, LOGVAR, None

    def sample(self):
        return self.mean

    log_prob = sample


Diffusers.__name__ = "DiagonalGaussianDistribution"
POSTERIORS = {
    "pair": (MEAN, LOGVAR),
    "list": [MEAN, LOGVAR],
    "Keras": [MEAN, LOGVAR, MEAN],
    "Normal": Normal(MEAN, 0.5),
    "Independent": Independent(Normal(MEAN, 0.5), 1),
    "scvi": (Normal(MEAN, 0.5), MEAN),
    "pythae": {"embedding": MEAN, "log_covariance": LOGVAR},
    "names": SimpleNamespace(mu=MEAN, log_var=LOGVAR),
    "deviation": SimpleNamespace(loc=MEAN, scale=MEAN / 2),
    "variance": {"qz_m": MEAN, "qz_v": MEAN / 4},
    "diffusers": SimpleNamespace(latent_dist=Diffusers()),
    "arrays": (MEAN.numpy(), LOGVAR.numpy()),
    "double": (MEAN.double(), LOGVAR.double()),
}


@pytest.mark.parametrize("kind", POSTERIORS)
def test_mean_and_log_variance_are_found(kind):
    mean, logvar = posterior_of(POSTERIORS[kind], X)
    assert torch.equal(mean.float(), MEAN) and torch.allclose(logvar.float(), LOGVAR)
    mean, logvar = posterior_of(POSTERIORS[kind], X.numpy())
    assert isinstance(mean, np.ndarray) and np.allclose(logvar, LOGVAR)


@pytest.mark.parametrize(
    "outputs, message",
    [
        (MEAN, "split one array"),
        ([MEAN], "encode returned a list"),
        ({"mean": MEAN}, r"a dict with \['mean'\]"),
        (Normal, "encode returned"),
        (Laplace(MEAN, 1.0), "a distribution Laplace"),
        ((MEAN.int(), LOGVAR), "encode's mean has dtype torch.int32"),
        (("a", "b"), "encode's mean is 'a'"),
    ],
)
def test_other_posteriors_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        posterior_of(outputs, X)


@pytest.mark.parametrize(
    "output",
    [X, (X, MEAN), {"reconstruction": X}, SimpleNamespace(sample=X), Normal(X, 1.0), X.numpy(), X.reshape(4, 3, 1)],
    ids=["tensor", "tuple", "dict", "object", "distribution", "array", "other shape"],
)
def test_reconstructions_are_found(output):
    assert torch.equal(reconstruction_of(output, X), X)


def test_other_reconstructions_are_refused():
    for output in (X[:, :2], X[:2], {"a": X}, "text", 3.0, None):
        with pytest.raises(ValueError, match="decode's output"):
            reconstruction_of(output, X)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([X])


def test_what_holds_data_is_taken_apart():
    x = np.zeros((600, 2))
    assert [len(batch) for batch in batches_of(x)] == [256, 256, 88]
    assert [len(batch) for batch in batches_of({"image": x, "label": 3})] == [256, 256, 88]
    assert [*batches_of(Stream())] == [X]
    assert data_of({"pixel_values": 1, "label": 2}) == 1 and data_of((1, 2)) == (1, 2)
    for bad in (np.zeros(3), np.zeros((0, 3)), "text", 3, {"label": x}):
        with pytest.raises(ValueError, match=r"loader|a batch is a dict"):
            batches_of(bad)


def test_functions_by_either_name():
    encode, decode = (lambda x: x), (lambda z: z)
    for names in (("encode", "decode"), ("encoder", "decoder"), ("encode", "decoder"), ("encoder", "decode")):
        assert functions(SimpleNamespace(**dict(zip(names, (encode, decode), strict=True)))) == (encode, decode)
    assert functions([encode, decode]) == (encode, decode)


def test_arrays_go_where_the_network_lies():
    net = torch.nn.Linear(3, 2).double()
    x = at_home(X.numpy(), net.weight)
    assert x.dtype == torch.float64 and torch.equal(x.float(), X)
    assert takes_arrays(lambda x: net(torch.tensor(x).double()), X.numpy())
    assert not takes_arrays(lambda x: net(x), X.numpy()) and not takes_arrays(net, X.numpy())
