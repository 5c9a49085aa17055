"""How a loss was written, and the theta it implies: against the losses themselves, by autograd."""

import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers import objective, ppca, spectrum
from helpers.moments import Moments
from helpers.objective import Objective, read

N, K, BATCH = 12, 3, 5


def pieces(seed=0):
    """Minibatch, reconstruction and encoder outputs of a random model, and the parameters they depend on."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    encoder, decoder = nn.Linear(N, 2 * K).double(), nn.Linear(K, N).double()
    x = torch.rand(BATCH, N, generator=generator, dtype=torch.float64)
    mean, logvar = encoder(x).chunk(2, dim=1)
    z = mean + (logvar / 2).exp() * torch.randn(BATCH, K, generator=generator, dtype=torch.float64)
    return x, decoder(z), mean, logvar, [*encoder.parameters(), *decoder.parameters()]


def kl_of(mean, logvar):
    return (mean**2 + logvar.exp() - 1 - logvar) / 2  # (BATCH, K)


# Losses as they stand in the code of others, of (x, output, mean, logvar).
WRITTEN = {
    "pythae VAE, mse": lambda x, y, m, v: (
        (0.5 * F.mse_loss(y, x, reduction="none").sum(-1)).mean() + kl_of(m, v).sum(-1).mean()
    ),
    "pythae BetaVAE, mse, beta = 4": lambda x, y, m, v: (
        0.5 * F.mse_loss(y, x, reduction="none").sum(-1) + 4 * kl_of(m, v).sum(-1)
    ).mean(),
    "pythae VAE, bce": lambda x, y, m, v: (
        F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(-1) + kl_of(m, v).sum(-1)
    ).mean(),
    "PyTorch-VAE VanillaVAE": lambda x, y, m, v: (
        F.mse_loss(y, x) + 0.00025 * torch.mean(-0.5 * torch.sum(1 + v - m**2 - v.exp(), dim=1), dim=0)
    ),
    "PyTorch-VAE BetaVAE, loss_type H": lambda x, y, m, v: (
        F.mse_loss(y, x) + 10.0 * 0.00025 * torch.mean(-0.5 * torch.sum(1 + v - m**2 - v.exp(), dim=1), dim=0)
    ),
    "pytorch/examples vae": lambda x, y, m, v: (
        F.binary_cross_entropy_with_logits(y, x, reduction="sum") - 0.5 * torch.sum(1 + v - m.pow(2) - v.exp())
    ),
    "Keras example, VAE": lambda x, y, m, v: (
        torch.mean(F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(1))
        + torch.mean(torch.sum(-0.5 * (1 + v - m**2 - v.exp()), dim=1))
    ),
    "Keras example, VAE, of three channels": lambda x, y, m, v: (
        F.binary_cross_entropy_with_logits(y, x, reduction="none").reshape(BATCH, 2, 2, 3).mean(3).sum((1, 2)).mean()
        + torch.mean(torch.sum(-0.5 * (1 + v - m**2 - v.exp()), dim=1))
    ),
    "Keras example, MLP with mse": lambda x, y, m, v: (
        ((x - y) ** 2).mean(-1) * N - 0.5 * (1 + v - m**2 - v.exp()).sum(-1)
    ).mean(),
    "Lightning Bolts VAE": lambda x, y, m, v: (
        F.mse_loss(y, x, reduction="mean")
        + 0.1
        * torch.distributions.kl_divergence(
            torch.distributions.Normal(m, (v / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        ).mean()
    ),
    "summed squared error plus KL": lambda x, y, m, v: F.mse_loss(y, x, reduction="sum") + kl_of(m, v).sum(),
    "mean squared error plus KL": lambda x, y, m, v: F.mse_loss(y, x) + kl_of(m, v).sum(1).mean(),
    "mean squared error plus mean KL": lambda x, y, m, v: F.mse_loss(y, x) + kl_of(m, v).mean(),
    "mean squared error plus KL summed over the minibatch": lambda x, y, m, v: F.mse_loss(y, x) + kl_of(m, v).sum(),
    "mean binary cross-entropy plus KL": lambda x, y, m, v: (
        F.binary_cross_entropy_with_logits(y, x) + kl_of(m, v).sum(1).mean()
    ),
    "a Gaussian decoder, sigma2 = 0.1": lambda x, y, m, v: (
        -torch.distributions.Normal(y, 0.1**0.5).log_prob(x).sum(1) + kl_of(m, v).sum(1)
    ).mean(),
}


def normal_form(found, x, y, mean, logvar, log_prob=None):
    data = ((y - x) ** 2).sum(1).mean()
    if log_prob is not None:
        data = -log_prob.sum(1).mean()
    elif found.likelihood == "bernoulli":
        data = F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(1).mean()
    return found.data * data + found.kl * kl_of(mean, logvar).sum(1).mean()


def assert_same_gradient(theirs, ours, parameters, tolerance):
    """Up to one factor, all of it: so the two have the same optima."""
    theirs = torch.autograd.grad(theirs, parameters, retain_graph=True)
    ours = torch.autograd.grad(ours, parameters)
    theirs, ours = (torch.cat([g.flatten() for g in one]) for one in (theirs, ours))
    factor = (theirs @ ours) / (ours @ ours)
    assert factor > 0 and (theirs - factor * ours).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_preset_has_the_gradient_of_the_loss_as_it_is_written(name):
    x, y, mean, logvar, parameters = pieces()
    found = read(name, n=N, k=K, batch=BATCH)
    theirs = WRITTEN[name](x, y, mean, logvar)
    assert_same_gradient(theirs, normal_form(found, x, y, mean, logvar), parameters, 1e-12)


def test_every_preset_but_two_is_written_out():
    """A learned sigma2 is a parameter more, and counts have a likelihood of the library's own (below)."""
    assert {name for name in objective.PRESETS if name not in WRITTEN} == {
        "a Gaussian decoder, sigma2 learned",
        "scvi-tools SCVI",
        "scvi-tools SCVI, nb",
    }


# The libraries' own code, where one is installed: each takes what `pieces` gives and returns its loss.


def _pythae(name, likelihood, **settings):
    models = pytest.importorskip("pythae.models", reason="pythae is not installed; its formula is compared above")
    kind = getattr(models, name)
    config = SimpleNamespace(reconstruction_loss=likelihood)

    def loss(x, y, m, v):
        y = y.sigmoid() if likelihood == "bce" else y
        return kind.loss_function(SimpleNamespace(model_config=config, **settings), y, x, m, v, None)[0]

    return loss


def _bolts():
    reason = "lightning-bolts is not installed; its formula is compared above"
    module = pytest.importorskip("pl_bolts.models.autoencoders.basic_vae.basic_vae_module", reason=reason)
    weight = re.search(r"kl_coeff: float = ([0-9.]+)", inspect.getsource(inspect.getmodule(module.VAE.step)))

    def loss(x, y, m, v):
        normal = torch.distributions.Normal
        p, q = normal(torch.zeros_like(m), torch.ones_like(v)), normal(m, (v / 2).exp())
        this = SimpleNamespace(_run_step=lambda x: (None, y, p, q), kl_coeff=float(weight[1]))
        return module.VAE.step(this, (x, None), 0)[0]

    return loss


def _keras(shape):
    keras = pytest.importorskip("keras", reason="keras is not installed; its formula is compared above")
    if keras.backend.backend() != "torch":
        pytest.skip("keras runs on another backend than torch: set KERAS_BACKEND=torch")

    def loss(x, y, m, v):
        each = keras.losses.binary_crossentropy(x.reshape(BATCH, *shape), y.sigmoid().reshape(BATCH, *shape))
        return keras.ops.mean(keras.ops.sum(each, axis=(1, 2))) + kl_of(m, v).sum(1).mean()

    return loss


INSTALLED = {
    "pythae VAE, mse": lambda: _pythae("VAE", "mse"),
    "pythae VAE, bce": lambda: _pythae("VAE", "bce"),
    "pythae BetaVAE, mse, beta = 4": lambda: _pythae("BetaVAE", "mse", beta=4),
    "Lightning Bolts VAE": _bolts,
    "Keras example, VAE": lambda: _keras((2, 6, 1)),
    "Keras example, VAE, of three channels": lambda: _keras((2, 2, 3)),
}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_preset_has_the_gradient_of_the_installed_library(name):
    theirs = INSTALLED[name]()
    x, y, mean, logvar, parameters = pieces(2)
    found = read(name, n=N, k=K, batch=BATCH)
    assert_same_gradient(theirs(x, y, mean, logvar), normal_form(found, x, y, mean, logvar), parameters, 1e-6)


@pytest.mark.parametrize(("name", "likelihood"), [("scvi-tools SCVI", "zinb"), ("scvi-tools SCVI, nb", "nb")])
def test_a_preset_has_the_gradient_of_scvi_tools(name, likelihood):
    module = pytest.importorskip("scvi.module", reason="scvi-tools is not installed, and its likelihoods with it")
    from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

    assert inspect.signature(module.VAE.__init__).parameters["gene_likelihood"].default == "zinb"
    x, y, mean, logvar, parameters = pieces(3)
    x, rate, dispersion = (4 * x).floor(), y.exp(), torch.ones(N, dtype=torch.float64)
    if likelihood == "zinb":
        px = ZeroInflatedNegativeBinomial(mu=rate, theta=dispersion, zi_logits=y / 2)
    else:
        px = NegativeBinomial(mu=rate, theta=dispersion)
    normal = torch.distributions.Normal
    inferred = {"qz": normal(mean, (logvar / 2).exp()), "ql": None, "z": mean}
    generated = {"px": px, "pl": None, "pz": normal(torch.zeros_like(mean), torch.ones_like(mean))}
    own = module.VAE(N, n_latent=K)
    theirs = own.loss({"X": x}, inferred, generated).loss
    found = read(name, n=N, k=K, batch=BATCH)
    ours = normal_form(found, x, y, mean, logvar, px.log_prob(x))
    assert_same_gradient(theirs, ours, parameters, 1e-6)


@pytest.mark.parametrize("name", [name for name in WRITTEN if "bce" not in objective.PRESETS[name]])
def test_theta_is_the_price_of_a_nat(name):
    """E / 2 theta + K: the ratio of the two derivatives of the loss as it is written, by autograd."""
    x, y, mean, logvar, _ = pieces(1)
    scale = torch.ones(2, dtype=torch.float64, requires_grad=True)
    error, log_scale = (y - x) * scale[0].sqrt(), scale[1]
    loss = WRITTEN[name](x, x + error, mean, logvar)
    (per_error,) = torch.autograd.grad(loss, scale, retain_graph=True)
    per_unit = ((y - x) ** 2).sum(1).mean()
    wider = logvar.detach().requires_grad_()
    (per_kl,) = torch.autograd.grad(WRITTEN[name](x, y.detach(), mean.detach(), wider), wider)
    (own,) = torch.autograd.grad(kl_of(mean.detach(), wider).sum(1).mean(), wider)
    assert log_scale == 1
    theta = (per_kl / own).mean() / (2 * per_error[0] / per_unit)
    assert read(name, n=N, k=K, batch=BATCH).theta() == pytest.approx(theta.item(), rel=1e-9)


def test_what_the_thetas_are():
    for text, theta in [
        ("mean(se) + kl", 392.0),  # MNIST
        ("mean(se) + 0.00025*kl", 0.098),
        ("mean(se) + 0.1*mean(kl)", 0.6125),
        ("mean(se) + sum(kl, batch=sum)", 50176.0),
        ("sum(se) + kl", 0.5),
        ("0.5*sum(se) + 4*kl", 4.0),
        ("nll(sigma2=0.01) + 2*kl", 0.02),
        ("se/(2*0.25) + kl", 0.25),
        ("(se + kl)*3", 0.5),
        ("sum(0.5*se) + kl/2", 0.5),
        ("mean(se, batch=sum) + sum(kl, batch=sum)", 392.0),
        ("n*mean(se) + 2*kl", 1.0),
        ("kl + se", 0.5),
        ("2**-1*se + kl", 1.0),
    ]:
        assert read(text, n=784, k=64, batch=128).theta() == pytest.approx(theta, rel=1e-12), text


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 10**4), st.integers(1, 500), st.integers(1, 512))
def test_reductions_are_factors(a, b, n, k, batch):
    def theta(text):
        return read(text, n=n, k=k, batch=batch).theta()

    base = b / (2 * a)
    assert theta(f"{a!r}*sum(se) + {b!r}*kl") == pytest.approx(base)
    assert theta(f"{a!r}*mean(se) + {b!r}*kl") == pytest.approx(base * n)
    assert theta(f"{a!r}*mean(se) + {b!r}*mean(kl)") == pytest.approx(base * n / k)
    assert theta(f"{a!r}*sum(se, batch=sum) + {b!r}*kl") == pytest.approx(base / batch)
    assert theta(objective.at_theta(base)) == pytest.approx(base, rel=1e-5)


def test_a_learned_sigma2_needs_the_data():
    found = read("nll(learned) + 2*kl")
    eigenvalues = np.array([4.0, 2.0, 1.0, 0.5])
    assert found.theta(eigenvalues, 2) == 2 * spectrum.learned_sigma2(eigenvalues, 2, 2.0)
    with pytest.raises(ValueError, match="eigenvalues is None, and sigma2 is learned"):
        found.theta()


def test_other_likelihoods_have_no_theta():
    for term in ("bce", "ce", "poisson", "nb", "zinb", "ae", "huber"):
        found = read(f"2*{term} + 3*kl")
        assert found.theta() is None and found.beta == 1.5


def test_a_sigma2_for_each_feature():
    """The whitened problem: pPCA there, mapped back, has a gradient of 0 in the likelihood of the data as they are."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    each, beta = np.array([0.5, 0.1, 2.0, 1.0]), 1.0
    found = read("nll(sigma2) + kl", n=4, sigma2=each)
    assert found.theta() == beta and found.beta == 2.0 and found.sigma2 == tuple(each)
    moments = Moments.from_samples(x)
    there = found.whitened(moments)
    np.testing.assert_allclose(there.covariance, moments.covariance / np.sqrt(np.outer(each, each)), rtol=1e-12)
    W = torch.tensor(np.sqrt(each)[:, None] * ppca.fit(there, 2, found.theta()).W, requires_grad=True)
    total = W @ W.T + torch.diag(torch.tensor(each))
    value = torch.logdet(total) + torch.trace(torch.linalg.solve(total, torch.tensor(moments.covariance)))
    (gradient,) = torch.autograd.grad(value, W)
    assert W.detach().abs().max() > 0.1 and gradient.abs().max() < 1e-9


def test_one_sigma2_as_an_argument_is_the_same_as_in_the_text():
    assert read("nll(sigma2) + kl", sigma2=0.1) == read("nll(sigma2=0.1) + kl")
    uniform, moments = read("3*nll(sigma2) + 2*kl", sigma2=[0.25] * 3), Moments([0] * 3, np.diag([3.0, 2.0, 1.0]), 9)
    single = read("3*nll(sigma2=0.25) + 2*kl")
    assert single.whitened(moments) is moments
    ratio = np.diag(uniform.whitened(moments).covariance) / uniform.theta()
    np.testing.assert_allclose(ratio, np.diag(moments.covariance) / single.theta(), rtol=1e-12)


def test_bad_variances():
    for sigma2, message in (
        ([0.5, 0.0], "sigma2 reaches 0"),
        (-1.0, "sigma2 is -1"),
        ([[1.0]], "sigma2 has shape"),
        ("a", "sigma2 is"),
    ):
        with pytest.raises(ValueError, match=message):
            read("nll(sigma2) + kl", sigma2=sigma2)
    with pytest.raises(ValueError, match="sigma2 is None"):
        read("nll(sigma2) + kl")
    with pytest.raises(ValueError, match=re.escape("no nll(sigma2), and sigma2 is given")):
        read("se + kl", sigma2=0.1)
    with pytest.raises(ValueError, match="sigma2 has 2 entries; expected 3"):
        read("nll(sigma2) + kl", n=3, sigma2=[1.0, 2.0])
    with pytest.raises(ValueError, match="moments has 1 features; expected 2"):
        read("nll(sigma2) + kl", sigma2=[1.0, 2.0]).whitened(Moments([0.0], [[1.0]], 3))
    with pytest.raises(ValueError, match="sigma2 is given to a loss"):
        Objective("bernoulli", 1.0, 1.0, sigma2=(1.0,))


def test_free_bits_and_notes():
    assert read("se + max(kl, 0.25)") == Objective("gaussian", 1.0, 1.0, free_bits=0.25)
    assert read("se + kl").notes == ()
    mismatched = read("mean(se) + k/n*sum(kl, batch=sum)", n=784, k=64, batch=128)
    for words in (
        "kl is summed",
        "128",
        "mean over the 784 features",
        "depends on k, here 64",
        "depends on n, here 784",
    ):
        assert any(words in note for note in mismatched.notes), words
    assert any("mean over the 3 latents" in note for note in read("se + mean(kl)", k=3).notes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("se", "1 data terms and 0 of kl"),
        ("se + kl + kl", "1 data terms and 2 of kl"),
        ("se + bce + kl", "2 data terms"),
        ("se - kl", "weight of kl is -1"),
        ("0*se + kl", "weight of se is 0"),
        ("se + kl/0", "divides by 0"),
        ("se + 1/0*kl", "is no number"),
        ("se + (-1)**0.5*kl", "is no number"),
        ("se*kl", "is no number"),
        ("se + True*kl", "is no number"),
        ("se + 1j*kl", "is no number"),
        ("mean(se) + kl", "n is None, and mean(se)"),
        ("se + mean(kl)", "k is None, and mean(kl)"),
        ("se + sum(kl, batch=sum)", "batch is None, and the sum of kl"),
        ("batch*se + kl", "batch is None, and a factor"),
        ("sum(mean(se)) + kl", "reduces twice"),
        ("sum(se + kl)", "reduces several terms"),
        ("sum(se, axis=1) + kl", "axis=1"),
        ("nll + kl", "nll has no sigma2"),
        ("nll(sigma2=0) + kl", "sigma2 is 0"),
        ("se + max(kl, -1)", "free bits are -1"),
        ("mse + kl", "mse is no term (write mean(se) for a mean"),
        ("F.mse_loss(y, x) + kl", "F.mse_loss(y, x) is no term (write mean(se)"),
        ("se + KLD", "KLD is no term (write kl)"),
        ("BCE + kl", "BCE is no term (write bce)"),
        ("se + beta*kl", "beta is no number (write the number that it is)"),
        ("se + kl)", "cannot be read"),
        ("se; kl", "cannot be read"),
        ("__import__('os').system('true') + kl", "is no"),
        ("(" * 500 + "se" + ")" * 500, "cannot be read"),
    ],
)
def test_what_is_no_loss_is_named(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text)


def test_bad_sizes():
    for sizes, message in (({"n": 0}, "n is 0"), ({"k": 1.5}, "k is 1.5"), ({"batch": "2"}, "batch is '2'")):
        with pytest.raises(ValueError, match=message):
            read("se + kl", **sizes)
    with pytest.raises(ValueError, match="theta is 0"):
        objective.at_theta(0)
