"""The five numbers, for any loop and for Lightning."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from helpers import data, monitor, vae
from helpers.diagnose import diagnose


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vae.mlp(n=64, hidden=(8,), k=3)


X = data.digits()[:120].astype(np.float32)


def test_the_numbers_are_those_of_a_diagnosis(model):
    found = diagnose(model, X, "nll(sigma2=0.1) + kl")
    numbers = monitor.numbers(model, X, "nll(sigma2=0.1) + kl")
    assert numbers == {
        "kl": found.kl,
        "units": found.units_above,
        "gap": found.gap,
        "further_gain": found.further_gain,
        "drift": found.drift,
    }
    assert monitor.numbers(model, X, "nll(learned) + kl", sigma2=0.1) == numbers
    assert math.isnan(monitor.numbers(model, X, "sum(poisson) + kl")["gap"])


def test_the_callback_logs_every_so_many_epochs(model, monkeypatch):
    lightning = types.ModuleType("lightning.pytorch")
    lightning.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", lightning)
    made = monitor.callback(X, "nll(learned) + kl", every=2, sigma2=lambda module: module.noise)
    assert isinstance(made, lightning.Callback)
    logged = []

    class Module(torch.nn.Module):  # what Lightning hands to it
        noise = 0.1
        encode, decode = staticmethod(model.encode), staticmethod(model.decode)

        def log_dict(self, values):
            logged.append(values)

    for epoch in range(4):
        made.on_train_epoch_end(types.SimpleNamespace(current_epoch=epoch), Module())
    assert len(logged) == 2 and logged[0] == logged[1]
    numbers = monitor.numbers(model, X, "nll(learned) + kl", sigma2=0.1)
    assert logged[0] == {f"collapse/{name}": value for name, value in numbers.items()}


def test_without_lightning_it_says_what_to_do(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install lightning, or log what monitor\.numbers"):
        monitor.callback(X, "se + kl")
