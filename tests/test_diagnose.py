"""The diagnosis: exact on linear VAEs, the same however a model is written, and each verdict where it is due."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from helpers import bernoulli, codes, collapse, diagnose, linear_vae, spectrum
from helpers.moments import Moments
from helpers.residual import gain
from helpers.verdict import VERDICTS


def samples(eigenvalues, count=400, seed=0):
    """Samples whose 1/N covariance has exactly these eigenvalues, along random axes."""
    n = len(eigenvalues)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, n))
    white = np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(count)
    return (white * np.sqrt(eigenvalues)) @ np.linalg.qr(rng.standard_normal((n, n)))[0].T + 0.5


def functions(model):
    """A `LinearVAE` as two functions of arrays."""
    return (
        lambda x: ((x - model.mu) @ model.V.T, np.zeros((len(x), len(model.D))) + np.log(model.D)),
        lambda z: z @ model.W.T + model.mu,
    )


EIGENVALUES = [4.0, 2.0, 1.0, 0.3, 0.1]
LINEAR = linear_vae.fit(Moments.from_samples(samples(EIGENVALUES)), 3, sigma2=0.5)
LOSS = "nll(sigma2=0.5) + kl"


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999), n=st.integers(3, 6), log_theta=st.floats(-1, 1.5), scale=st.sampled_from([0.01, 1, 30])
)
def test_a_linear_vae_at_its_optimum_is_settled_or_asked_for(seed, n, log_theta, scale):
    """With as many latents as pay, whatever the loss is scaled by."""
    theta = 10**log_theta
    eigenvalues = np.sort(np.random.default_rng(seed).exponential(2.0, n))[::-1]
    x = samples(eigenvalues, 60, seed)
    if np.abs(np.log(eigenvalues / theta)).min() < 0.05:  # where an ascent is slow
        return
    model = linear_vae.fit(Moments.from_samples(x), n, sigma2=theta, seed=seed)
    found = diagnose.diagnose(functions(model), x, f"{scale}*sum(se) + {scale * 2 * theta}*kl", pairs=32)
    survivors = (eigenvalues > theta).sum()
    assert found.verdict == ("settled" if survivors else "asked for")
    assert found.theta == pytest.approx(theta)
    assert abs(found.gap) <= 5 * found.J_error + 1e-6
    assert np.allclose(np.sort(found.kl_per_unit)[::-1], spectrum.kl(eigenvalues, theta), atol=1e-4)
    left = np.minimum(theta / eigenvalues, eigenvalues / theta)
    assert np.allclose(found.rho, np.sort(left)[::-1], atol=1e-3)
    assert found.rho.max() <= 1 and found.further_units == 0 == found.further_gain
    assert found.drift < 1e-3 and found.forecast.survivors == survivors


def test_the_error_of_the_draws_is_that_between_seeds():
    x = samples(EIGENVALUES)
    runs = [diagnose.diagnose(functions(LINEAR), x, LOSS, pairs=1, seed=seed) for seed in range(40)]
    assert np.std([run.J for run in runs]) == pytest.approx(np.mean([run.J_error for run in runs]), rel=0.35)
    assert np.mean([run.distortion for run in runs]) == pytest.approx(
        spectrum.distortion(EIGENVALUES, 3, 0.5), rel=3e-3
    )
    evaluated = collapse.evaluate([x], *functions(LINEAR), 0.5)
    assert runs[0].kl == evaluated.kl and runs[0].active_units == evaluated.active_units


def test_decoder_use_of_a_linear_decoder_is_the_length_of_its_columns():
    W = np.array([[1.0, 0.0, 0.1], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    x = samples([2.0, 1.0, 0.5])
    found = diagnose.diagnose((lambda x: (x, 0 * x), lambda z: z @ W.T), x, "0.5*sum(se) + kl")
    assert np.allclose(found.decoder_use, [2.0, 0.0, 0.01], rtol=0.3, atol=0)
    assert found.decoder_units == 1 and found.units_above == 3  # the encoder uses all, the decoder one


# One network with BatchNorm, written in five ways


class Trunk(nn.Module):
    """Layers with BatchNorm and dropout, left in training mode, which would change what they give and themselves."""

    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sizes[0], 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, sizes[1])
        )

    def forward(self, x):
        return self.layers(x)


def parts():
    torch.manual_seed(0)
    encoder, decoder = Trunk((5, 6)), Trunk((3, 5))
    for part in (encoder, decoder):
        part(torch.randn(50, 5 if part is encoder else 3))  # so that the running averages are not those at birth
    return encoder, decoder


class ByHand(nn.Module):
    """encode gives a pair, decode a tensor."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = parts()

    def encode(self, x):
        return self.inner(x).chunk(2, dim=1)

    def decode(self, z):
        return self.outer(z)


class ModelOutput(OrderedDict):
    """As pythae returns it: a dict whose entries are attributes."""

    def __getattr__(self, name):
        return self[name]


class Pythae(nn.Module):
    """encoder and decoder are modules of their own, which return such outputs."""

    def __init__(self):
        super().__init__()

        class Encoder(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                mean, logvar = self.inner(x).chunk(2, dim=1)
                return ModelOutput(embedding=mean, log_covariance=logvar)

        class Decoder(nn.Module):
            def __init__(self, outer):
                super().__init__()
                self.outer = outer

            def forward(self, z):
                return ModelOutput(reconstruction=self.outer(z))

        inner, outer = parts()
        self.encoder, self.decoder = Encoder(inner), Decoder(outer)


class Lightning(nn.Module):
    """A trunk, and heads beside it, as in bolts."""

    def __init__(self):
        super().__init__()
        inner, self.decoder = parts()
        *trunk, last = inner.layers
        self.encoder, self.fc_mu, self.fc_var = nn.Sequential(*trunk), nn.Linear(16, 3), nn.Linear(16, 3)
        for head, (weight, bias) in zip(
            (self.fc_mu, self.fc_var), zip(last.weight.chunk(2), last.bias.chunk(2), strict=True), strict=True
        ):
            head.weight, head.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())


class Distributions(nn.Module):
    """encode gives a distribution, and so does decode."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = parts()

    def encode(self, x):
        mean, logvar = self.inner(x).chunk(2, dim=1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, (logvar / 2).exp()), 1)

    def decode(self, z):
        return torch.distributions.Normal(self.outer(z), 1.0)


class Keras:
    """No torch module: functions of arrays, the encoder's with a sample of z as the third."""

    def __init__(self):
        self.inner, self.outer = (part.eval() for part in parts())

    def encoder(self, x):
        with torch.no_grad():
            mean, logvar = (part.numpy() for part in self.inner(torch.tensor(x)).chunk(2, dim=1))
        return [mean, logvar, mean + np.exp(logvar / 2) * np.random.standard_normal(mean.shape)]  # noqa: NPY002

    def decoder(self, z):
        with torch.no_grad():
            return self.outer(torch.tensor(z)).numpy()


class Maps(ByHand):
    """Latents as maps (B, 3, 1, 1), images for samples, and a dataclass between."""

    def encode(self, x):
        @dataclass
        class Posterior:
            mu: torch.Tensor
            std: torch.Tensor

        mean, logvar = super().encode(x.flatten(1))
        return Posterior(mean[:, :, None, None], (logvar / 2).exp()[:, :, None, None])

    def decode(self, z):
        return {"recon_x": super().decode(z.flatten(1))}  # flat, where x is an image


X = samples(EIGENVALUES).astype(np.float32)


def by_hand():
    return diagnose.diagnose(ByHand(), torch.tensor(X), LOSS)


def same(found, other, rtol=1e-5):
    names = ("kl_per_unit", "distortion", "gap", "rho", "decoder_use", "second_moment", "mutual_information")
    for name in names:
        assert np.allclose(getattr(found, name), getattr(other, name), rtol=rtol, atol=1e-6), name
    return found.verdict == other.verdict


@pytest.mark.parametrize("kind", [ByHand, Pythae, Lightning, Distributions, Maps])
def test_a_module_is_read_however_it_is_written_and_left_as_it_was(kind):
    model = kind().train()
    x = torch.tensor(X).reshape(-1, 1, 5, 1) if kind is Maps else torch.tensor(X)
    model.get_submodule(next(iter(dict(model.named_children())))).eval()  # a part that is not in training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = diagnose.diagnose(model, DataLoader(x, 64), LOSS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert modes == [part.training for part in model.modules()] and len(set(modes)) == 2
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert same(found, diagnose.diagnose(ByHand(), torch.tensor(X).split(64), LOSS))


def test_a_keras_style_model_of_arrays_is_read():
    """Its draws are NumPy's, so only what has none is the same to all digits."""
    found, other = diagnose.diagnose(Keras(), X, LOSS, pairs=64), diagnose.diagnose(ByHand(), X, LOSS, pairs=64)
    assert np.allclose(found.kl_per_unit, other.kl_per_unit, rtol=1e-5)
    assert found.gap == pytest.approx(other.gap, abs=5 * other.J_error) and found.verdict == other.verdict
    assert np.allclose(found.rho, other.rho, rtol=0.02, atol=0.01)


@pytest.mark.filterwarnings("ignore")
def test_pythaes_own_vae_is_read_and_left_as_it_was():
    models = pytest.importorskip("pythae.models", reason="pythae is not installed")
    datasets = pytest.importorskip("pythae.data.datasets")
    x = torch.tensor(X[:200]).reshape(-1, 1, 5, 1)
    torch.manual_seed(0)
    model = models.VAE(models.VAEConfig(input_dim=(1, 5, 1), latent_dim=2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = diagnose.diagnose(model, DataLoader(datasets.BaseDataset(x, torch.zeros(200)), 50), "pythae VAE, mse")
    with torch.no_grad():
        output = model.eval()({"data": x})
        mean, logvar = (getattr(model.encoder(x), name) for name in ("embedding", "log_covariance"))
    assert found.theta == 1 and found.kl == pytest.approx(output.reg_loss.item(), rel=1e-5)
    assert np.allclose(found.kl_per_unit, collapse.kl_per_unit(mean, logvar), rtol=1e-5)
    assert found.distortion / 2 == pytest.approx(output.recon_loss.item(), rel=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_keras_is_read(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    x, z = keras.Input((5,)), keras.Input((2,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="tanh")(x))
    mean, logvar = keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)
    model = keras.Model(x, mean)
    model.encoder, model.decoder = keras.Model(x, [mean, logvar, mean]), keras.Model(z, keras.layers.Dense(5)(z))
    before = [value.copy() for value in model.encoder.get_weights()]
    found = diagnose.diagnose(model, X, LOSS)
    outputs = [output.detach().cpu() for output in model.encoder(X)[:2]]
    assert np.allclose(found.kl_per_unit, collapse.kl_per_unit(*outputs), rtol=1e-5)
    assert all((value == kept).all() for value, kept in zip(model.encoder.get_weights(), before, strict=True))


class Labelled(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"label": i, "data": X[i]}


@pytest.mark.parametrize(
    "loader",
    [
        X,
        torch.tensor(X),
        torch.tensor(X).double(),
        DataLoader(TensorDataset(torch.tensor(X)), 256),
        DataLoader(TensorDataset(torch.tensor(X), torch.arange(len(X))), 256),
        DataLoader(Labelled(), 256),
        {"x": X},
        [X[:256], (X[256:], "label")],
    ],
    ids=["array", "tensor", "double", "of one", "of pairs", "of dicts", "dict", "list"],
)
def test_data_are_taken_however_they_come(loader):
    assert same(diagnose.diagnose(ByHand(), loader, LOSS), by_hand())


def test_bytes_are_used_as_x_over_255():
    x = np.random.default_rng(0).integers(0, 256, (100, 5)).astype(np.uint8)
    model = ByHand()
    assert same(diagnose.diagnose(model, x, LOSS), diagnose.diagnose(model, (x / 255).astype(np.float32), LOSS))


def test_arrays_give_the_diagnosis_that_the_model_gives():
    x, rng = samples(EIGENVALUES), np.random.default_rng(0)
    encode, decode = functions(LINEAR)
    mean, logvar = encode(x)
    draws = np.stack([decode(mean + np.exp(logvar / 2) * rng.standard_normal(mean.shape)) for _ in range(64)])
    found = diagnose.of_codes(codes.of_arrays(x, mean, logvar, draws), LOSS)
    other = diagnose.diagnose((encode, decode), x, LOSS, pairs=16)
    assert found.verdict == other.verdict == "settled" and found.decoder_use is None
    assert found.kl == other.kl and found.gap == pytest.approx(other.gap, abs=5 * found.J_error)
    assert np.allclose(found.rho, other.rho, atol=0.03)
    one = diagnose.of_codes(codes.of_arrays(x, mean, logvar, draws[0]), LOSS)
    assert one.rho is one.J_error is one.further_gain is None and "one draw" in one.notes[-1]
    assert one.verdict == "settled" and "not known" in one.reason


# Verdicts


def dead(x):
    return (lambda x: (0 * x[:, :2], 0 * x[:, :2])), (lambda z: np.zeros((len(z), x.shape[1])) + x.mean(axis=0))


def test_collapse_that_the_loss_asks_for():
    found = diagnose.diagnose(dead(X), X, "mean(se) + 2*kl")  # theta = 5
    assert found.verdict == "asked for" and "local maximum" in found.reason
    assert found.gap == pytest.approx(0, abs=1e-6) and found.further_gain == 0


def test_collapse_that_the_loss_does_not_ask_for_is_worse_than_linear():
    found = diagnose.diagnose(dead(X), X, LOSS)
    assert found.verdict == "worse than linear" and found.kl == 0
    # What the best linear VAE with two latents has more, and what units for all directions that pay would add.
    assert -found.gap == pytest.approx(gain(np.array(EIGENVALUES) / 0.5, 2), rel=1e-4)
    assert found.further_gain == pytest.approx(gain(np.array(EIGENVALUES) / 0.5), rel=1e-4)
    assert "2 units pay for themselves; here 0 carry" in found.reason


def test_a_decoder_that_is_off_is_worse_than_linear():
    encode, decode = functions(LINEAR)
    found = diagnose.diagnose((encode, lambda z: decode(z) + 1.0), samples(EIGENVALUES), LOSS)
    assert found.verdict == "worse than linear" and found.gap == pytest.approx(-5.0, abs=5 * found.J_error)
    almost = diagnose.diagnose((encode, lambda z: decode(z) + 0.05), samples(EIGENVALUES), LOSS)
    assert almost.verdict == "settled"  # a hundredth of a nat, of which nothing is made


def test_too_few_latents():
    x = samples(EIGENVALUES)
    model = linear_vae.fit(Moments.from_samples(x), 2, sigma2=0.5)
    found = diagnose.diagnose(functions(model), x, LOSS)
    assert found.verdict == "another unit would pay" and "too few latents" in found.reason
    assert found.further_units == 1 and found.further_gain == pytest.approx(gain([2.0]), rel=1e-3)


def test_an_idle_unit_beside_a_nonlinear_one():
    """Two clusters, cheaper by a step than by a line, and a direction that the second unit ignores."""
    rng = np.random.default_rng(0)
    x = np.column_stack([3.0 * np.sign(rng.standard_normal(2000)), np.sqrt(1.2) * rng.standard_normal(2000)])

    def encode(x):
        return np.column_stack([1.2 * np.sign(x[:, 0]), 0 * x[:, 1]]), np.tile([2 * np.log(0.4), 0.0], (len(x), 1))

    found = diagnose.diagnose((encode, lambda z: np.column_stack([3 * np.sign(z[:, 0]), 0 * z[:, 1]])), x, LOSS)
    assert found.verdict == "another unit would pay" and "1 of its 2 units lie idle" in found.reason
    assert found.gap > 0.2 and found.units_above == found.decoder_units == 1
    assert found.further_gain == pytest.approx(gain([x[:, 1].var() / 0.5]), rel=0.02)


def with_free_bits(theta, bits):
    """The linear VAE along the axes, each unit at its own rate or at the free bits, whichever is more."""
    moments = Moments.from_samples(samples(EIGENVALUES))
    values, axes = moments.eigenvalues[:3], moments.eigenvectors[:, :3]
    D = np.minimum(theta / values, np.exp(-2 * bits))
    return linear_vae.LinearVAE(
        axes * np.sqrt(values * (1 - D)), axes.T * np.sqrt((1 - D) / values)[:, None], D, moments.mean, theta
    )


def test_units_parked_at_free_bits():
    found = diagnose.diagnose(functions(with_free_bits(2.2, 0.5)), samples(EIGENVALUES), "se + 4.4*max(kl, 0.5)")
    assert found.verdict == "parked at free bits" and found.parked == 3
    assert found.gap == pytest.approx(0, abs=5 * found.J_error) and np.allclose(found.kl_per_unit, 0.5)
    above = diagnose.diagnose(functions(with_free_bits(0.2, 0.2)), samples(EIGENVALUES), "se + 0.4*max(kl, 0.2)")
    assert above.verdict == "settled" and above.parked == 0 and above.drift < 1e-6


def test_a_model_that_memorises():
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, 60, 40))
    places = np.linspace(-1.7, 1.7, 60)

    def encode(y):
        nearest = ((y[:, None] - x) ** 2).sum(axis=2).argmin(axis=1)
        return places[nearest][:, None], np.full((len(y), 1), 2 * np.log(1e-3))

    model = (encode, lambda z: x[np.abs(z - places).argmin(axis=1)])
    found = diagnose.diagnose(model, x, "nll(sigma2=0.05) + kl", held_out=other)
    assert found.verdict == "memorising" and found.gap > 100 and found.held_out_gap < -10
    assert diagnose.diagnose(model, x, "nll(sigma2=0.05) + kl").verdict == "settled"
    assert found.held_out_J < found.J and found.saturated and "reached log N" in found.notes[-1]


@pytest.mark.parametrize("free", [False, True])
def test_the_linear_vae_has_no_held_out_gap(free):
    """Neither on the samples it was fitted to nor on others: there its J is that of `LinearVAE` on their moments."""
    x, other, theta = samples(EIGENVALUES), samples([3.0, 2.0, 1.5, 0.3, 0.2], seed=1), 0.5
    model = with_free_bits(theta, 0.2) if free else LINEAR
    found = diagnose.diagnose(
        functions(model), x, f"se + {2 * theta}*{'max(kl, 0.2)' if free else 'kl'}", held_out=other
    )
    assert found.held_out_gap == pytest.approx(0, abs=5 * found.J_error)
    expected = model.elbo(Moments.from_samples(other)) + 5 * np.log(2 * np.pi * theta) / 2
    assert found.held_out_J == pytest.approx(expected, abs=5 * found.J_error) and found.verdict == "settled"


def test_other_likelihoods_are_measured_only():
    found = diagnose.diagnose(functions(LINEAR), samples(EIGENVALUES), "ae + kl", held_out=X)
    assert found.verdict == "measured only" and "laplace" in found.reason
    assert found.J is found.gap is found.rho is found.theta is found.distortion is found.held_out_J is None
    assert found.kl == pytest.approx(spectrum.kl(EIGENVALUES[:3], 0.5).sum(), rel=1e-3) and found.decoder_units == 3


def test_a_learned_sigma2_is_the_models_own():
    x = samples(EIGENVALUES)
    model = linear_vae.fit(Moments.from_samples(x), 3)
    found = diagnose.diagnose(functions(model), x, "nll(learned) + kl", sigma2=model.sigma2)
    assert found.theta == found.sigma2 == model.sigma2 and found.verdict == "settled"
    assert found.forecast.learned_sigma2 == pytest.approx(model.sigma2)
    other = diagnose.diagnose(functions(LINEAR), x, "nll(learned) + 2*kl", sigma2=0.25)
    assert other.theta == 0.5 and other.gap == pytest.approx(0, abs=5 * other.J_error)
    assert other.forecast.learned_sigma2 == pytest.approx(spectrum.learned_sigma2(EIGENVALUES, 3, 2.0))


def test_a_noise_variance_for_each_feature_is_a_change_of_units():
    """The same network on data in other units, whose noise has variance 1, is the same in every number."""
    sigma2 = np.array([0.5, 2.0, 0.1, 1.0, 0.3])
    x, scale = samples(EIGENVALUES), np.sqrt(sigma2)
    encode, decode = functions(LINEAR)
    turned = (lambda y: encode(y * scale)), (lambda z: decode(z) / scale)
    loss, other_loss = "nll(sigma2) + kl", "nll(sigma2=1) + kl"
    found = diagnose.diagnose((encode, decode), x, loss, held_out=x[:100], sigma2=sigma2)
    other = diagnose.diagnose(turned, x / scale, other_loss, held_out=x[:100] / scale)
    assert same(found, other) and found.held_out_gap == pytest.approx(other.held_out_gap)
    assert found.forecast.learned_sigma2 is found.sigma2 is None and found.theta == 1
    wider = diagnose.with_linear_units((encode, decode), x, loss, 2, sigma2=sigma2)
    again = diagnose.with_linear_units(turned, x / scale, other_loss, 2)
    assert wider.gain == pytest.approx(again.gain) and wider.gain > 0.01
    one, two = wider.encode(x), again.encode(x / scale)
    assert np.allclose(np.abs(one[0]), np.abs(two[0])) and np.allclose(one[1], two[1])  # eigenvectors have no sign
    assert np.allclose(wider.decode(one[0]), again.decode(two[0]) * scale)
    with pytest.raises(ValueError, match="found is measured with sigma2"):
        diagnose.of_codes(codes.measure((encode, decode), x), loss, sigma2=sigma2)
    arrays = codes.of_arrays(x, *encode(x), decode(encode(x)[0]), sigma2=tuple(sigma2.tolist()))
    assert diagnose.of_codes(arrays, loss, sigma2=sigma2).distortion < found.distortion


def test_a_bernoulli_likelihood():
    rng = np.random.default_rng(0)
    x = (rng.random((800, 1)) < 0.5) ^ (rng.random((800, 12)) < 0.1)
    x = x.astype(float)
    threshold = bernoulli.collapse_threshold(x)
    asked = diagnose.diagnose(dead(x), x, f"bce + {1.01 * threshold}*kl")
    assert asked.verdict == "asked for" and asked.theta is asked.gap is None
    p = x.mean(axis=0)
    assert asked.distortion == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum())
    found = diagnose.diagnose(dead(x), x, "bce + kl")
    assert found.verdict == "another unit would pay" and "about" in found.reason and "idle" in found.reason
    assert found.rho[0] == pytest.approx(threshold, rel=0.05)


def test_standard_deviations_in_place_of_log_variances_are_pointed_out():
    encode, decode = functions(LINEAR)
    found = diagnose.diagnose((lambda x: (encode(x)[0], np.exp(encode(x)[1] / 2)), decode), samples(EIGENVALUES), LOSS)
    assert "standard deviations" in found.notes[-1]
    assert not diagnose.diagnose((encode, decode), samples(EIGENVALUES), LOSS).notes


def test_few_samples_are_pointed_out():
    assert "sampling noise" in diagnose.diagnose(functions(LINEAR), X[:20], LOSS).notes[0]


def test_the_instruments_are_at_hand():
    assert diagnose.forecast(EIGENVALUES, 3, LOSS).survivors == 3
    wider = diagnose.with_linear_units(functions(LINEAR), samples(EIGENVALUES), LOSS, 1)
    found = diagnose.diagnose(wider, samples(EIGENVALUES), LOSS)
    assert found.k == 4 and found.verdict in VERDICTS


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 5)


NORMAL = torch.distributions.MultivariateNormal(torch.zeros(5), torch.eye(5))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: diagnose.diagnose(Nothing(), X, LOSS), "model is a Nothing with net; expected encode or encoder"),
        (lambda: diagnose.diagnose(len, X, LOSS), "with no parts; expected encode"),
        (lambda: diagnose.diagnose((len, 3), X, LOSS), "expected two functions"),
        (lambda: diagnose.diagnose(ByHand(), X, "nll(learned) + kl"), "sigma2 is None, and the loss learns it"),
        (lambda: diagnose.diagnose(ByHand(), X, LOSS, sigma2=1.0), "the loss does not learn it"),
        (lambda: diagnose.diagnose(ByHand(), X, "sum(se, batch=sum) + kl"), "batch is None"),
        (lambda: diagnose.diagnose(ByHand(), TensorDataset(torch.tensor(X)), LOSS), "wrap it in a DataLoader"),
        (
            lambda: diagnose.diagnose(ByHand(), DataLoader(torch.tensor(X)[:, :4]), LOSS),
            "encode fails on a batch (1, 4)",
        ),
        (lambda: diagnose.diagnose(ByHand(), X, LOSS, held_out=X[:, :4]), "held_out: encode fails"),
        (lambda: diagnose.diagnose(ByHand(), [{"y": X}], LOSS), "a batch is a dict with ['y']"),
        (lambda: diagnose.diagnose(ByHand(), [], LOSS), "loader is empty"),
        (lambda: diagnose.diagnose(SimpleNamespace(encode=lambda x: x, decode=len), X, LOSS), "split one array by"),
        (lambda: diagnose.diagnose((lambda x: NORMAL, len), X, LOSS), "a distribution MultivariateNormal"),
        (
            lambda: diagnose.diagnose((lambda x: (x, x), lambda z: z[:, :2]), X, LOSS),
            "decode's output has shape (256, 2)",
        ),
        (lambda: diagnose.diagnose((lambda x: (x, x), lambda z: {"a": z}), X, LOSS), "is a dict with ['a']"),
        (lambda: diagnose.diagnose((lambda x: (x, x), lambda z: z), X, "bce + kl"), "expected it in [0, 1]"),
        (lambda: diagnose.diagnose((lambda x: (x, x * np.nan), lambda z: z), X, LOSS), "NaN or infinity"),
        (lambda: diagnose.of_codes(codes.measure(functions(LINEAR), X), "bce + kl"), "found is of gaussian likelihood"),
        (lambda: codes.of_arrays(X, X, X, X[:, :2]), "reconstructions has shape"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
