"""VAEs and stacks of them against torch's distributions, each other, and the linear VAE in closed form."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from helpers import vae
from helpers.checkpoint import _same_architecture
from helpers.ensemble import Stack
from helpers.linear_vae import LinearVAE
from helpers.moments import Moments


def small(**options):
    return vae.mlp(**{"n": 9, "hidden": (8, 6), "k": 3, "sigma2": 0.3} | options)


def colours_first():
    """A network of one's own, for images (3, 8, 8), k = 5."""
    encoder = nn.Sequential(nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    decoder = nn.Sequential(
        nn.Linear(5, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)
    )
    return vae.VAE(encoder, decoder, 0.2)


def small_conv(**options):
    return vae.conv(**{"size": 16, "channels": (3, 4, 6), "dense": 10, "k": 5, "sigma2": 0.2} | options)


KINDS = {
    "mlp": (small, (9,), 3),
    "linear": (partial(small, hidden=()), (9,), 3),
    "conv": (small_conv, (16, 16, 3), 5),
    "colours first": (colours_first, (3, 8, 8), 5),
}


def inputs(shape, k, *leading, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*leading, *shape, generator=generator, dtype=dtype), torch.randn(
        *leading, k, generator=generator, dtype=dtype
    )


def seeded(build, seed):
    torch.manual_seed(seed)
    return build()


def test_the_papers_network():
    """784-1024-512-200-512-1024-784: 2,965,664 weights and biases by hand, the encoder's last layer twice as wide."""
    model = vae.mlp()
    networks = (model.encoder, model.decoder)
    shapes = [[(layer.in_features, layer.out_features) for layer in network[::2]] for network in networks]
    assert shapes == [[(784, 1024), (1024, 512), (512, 400)], [(200, 512), (512, 1024), (1024, 784)]]
    assert [[type(layer) for layer in network[1::2]] for network in networks] == [[nn.ReLU] * 2] * 2
    assert [len(network) for network in networks] == [5, 5]  # linear heads
    layers = 803_840 + 524_800 + 205_200 + 102_912 + 525_312 + 803_600
    assert sum(p.numel() for p in model.parameters()) == layers + 1 == 2_965_665
    assert model.log_sigma2.item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_terms_are_those_of_torch_distributions(kind):
    build, shape, k = KINDS[kind]
    model = seeded(build, 1).double()
    x, noise = inputs(shape, k, 7, dtype=torch.float64)
    squared_error, kl = model(x, noise)
    mean, logvar = model.encode(x)
    q = Normal(mean, logvar.exp().sqrt())
    p = Normal(model.decode(mean + q.scale * noise), model.log_sigma2.exp().sqrt())
    expected_kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    assert mean.shape == logvar.shape == (7, k) and p.mean.shape == x.shape
    torch.testing.assert_close(kl, expected_kl)
    log_prob = p.log_prob(x).flatten(1).sum(1)
    for beta in (1.0, 0.0, torch.linspace(0, 2, 7, dtype=torch.float64)):
        found = vae.elbo(squared_error, kl, model.log_sigma2, x[0].numel(), beta)
        torch.testing.assert_close(found, log_prob - beta * expected_kl)
    torch.testing.assert_close(vae.elbo(squared_error, kl, model.log_sigma2, x[0].numel()), log_prob - expected_kl)


def layers(network):
    """Its layers that have parameters."""
    return [layer for layer in network if list(layer.parameters())]


def test_the_papers_network_for_faces():
    """Higgins et al. (2016): convolutions of 32, 32, 64 and 64 channels, all 4 x 4 with a stride of 2, 256 units and
    ReLU, mirrored in the decoder; 1,143,595 weights and biases by hand."""
    model = vae.conv()
    encoder, decoder = layers(model.encoder), layers(model.decoder)
    convolutions, transposed = encoder[:4], decoder[2:]
    assert [type(layer) for layer in encoder + decoder] == [nn.Conv2d] * 4 + [nn.Linear] * 4 + [nn.ConvTranspose2d] * 4
    for layer in convolutions + transposed:
        assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
        assert layer.dilation == (1, 1) and layer.groups == 1 and layer.bias is not None
    assert all(layer.output_padding == (0, 0) for layer in transposed)
    channels = [(layer.in_channels, layer.out_channels) for layer in convolutions + transposed]
    assert channels == [(3, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 32), (32, 32), (32, 3)]
    dense = [(layer.in_features, layer.out_features) for layer in encoder[4:] + decoder[:2]]
    assert dense == [(4 * 4 * 64, 256), (256, 2 * 500), (500, 256), (256, 4 * 4 * 64)]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in encoder + decoder]
    assert counts[:4] == [
        3 * 32 * 16 + 32,  # 1,568
        32 * 32 * 16 + 32,  # 16,416
        32 * 64 * 16 + 64,  # 32,832
        64 * 64 * 16 + 64,  # 65,600
    ]
    assert counts[4:8] == [
        1024 * 256 + 256,  # 262,400
        256 * 1000 + 1000,  # 257,000
        500 * 256 + 256,  # 128,256
        256 * 1024 + 1024,  # 263,168
    ]
    assert counts[8:] == [
        64 * 64 * 16 + 64,  # 65,600
        64 * 32 * 16 + 32,  # 32,800
        32 * 32 * 16 + 32,  # 16,416
        32 * 3 * 16 + 3,  # 1,539
    ]
    assert sum(p.numel() for p in model.parameters()) == 635_816 + 507_779 + 1 == 1_143_596
    assert model.log_sigma2.item() == 0


def test_layers_of_the_papers_network_for_faces():
    """What each makes of two images, and where the nonlinearities are: after all but the last of either network."""
    model, seen = vae.conv(), []
    for layer in {*model.encoder, *model.decoder}:  # a layer may stand in both
        layer.register_forward_hook(lambda layer, _, output: seen.append((type(layer).__name__, tuple(output.shape))))
    with torch.no_grad():
        mean, logvar = model.encode(torch.rand(2, 64, 64, 3))
        assert mean.shape == logvar.shape == (2, 500)
        encoder, seen[:] = list(seen), []
        assert model.decode(mean).shape == (2, 64, 64, 3)
    assert encoder == [
        ("Permute", (2, 3, 64, 64)),
        ("Conv2d", (2, 32, 32, 32)),
        ("ReLU", (2, 32, 32, 32)),
        ("Conv2d", (2, 32, 16, 16)),
        ("ReLU", (2, 32, 16, 16)),
        ("Conv2d", (2, 64, 8, 8)),
        ("ReLU", (2, 64, 8, 8)),
        ("Conv2d", (2, 64, 4, 4)),
        ("ReLU", (2, 64, 4, 4)),
        ("Permute", (2, 4, 4, 64)),
        ("Flatten", (2, 1024)),
        ("Linear", (2, 256)),
        ("ReLU", (2, 256)),
        ("Linear", (2, 1000)),
    ]
    assert seen == [
        ("Linear", (2, 256)),
        ("ReLU", (2, 256)),
        ("Linear", (2, 1024)),
        ("Unflatten", (2, 4, 4, 64)),
        ("Permute", (2, 64, 4, 4)),
        ("ReLU", (2, 64, 4, 4)),
        ("ConvTranspose2d", (2, 64, 8, 8)),
        ("ReLU", (2, 64, 8, 8)),
        ("ConvTranspose2d", (2, 32, 16, 16)),
        ("ReLU", (2, 32, 16, 16)),
        ("ConvTranspose2d", (2, 32, 32, 32)),
        ("ReLU", (2, 32, 32, 32)),
        ("ConvTranspose2d", (2, 3, 64, 64)),
        ("Permute", (2, 64, 64, 3)),
    ]


def plain_conv(model, x, z, channels, side):
    """What the networks of `vae.conv` make of x and z, as one writes it: colours first, features flattened so."""
    encoder = [(layer.weight, layer.bias) for layer in layers(model.encoder)]
    decoder = [(layer.weight, layer.bias) for layer in layers(model.decoder)]

    def turned(features):
        """Features of a dense layer, in their first dimension, from colours last to colours first."""
        return features.unflatten(0, (side, side, channels)).movedim(2, 0).flatten(0, 2)

    h = x.movedim(-1, 1).contiguous()
    for weight, bias in encoder[:-2]:
        h = F.relu(F.conv2d(h, weight, bias, stride=2, padding=1))
    (weight, bias), head = encoder[-2:]
    encoded = F.linear(F.relu(h.flatten(1) @ turned(weight.T) + bias), *head)
    h, (weight, bias) = F.relu(F.linear(z, *decoder[0])), decoder[1]
    h = (h @ turned(weight).T + turned(bias)).unflatten(1, (channels, side, side))
    for weight, bias in decoder[2:]:
        h = F.conv_transpose2d(F.relu(h), weight, bias, stride=2, padding=1)
    return encoded, h.movedim(1, -1)


@pytest.mark.parametrize(
    ("build", "size", "channels", "side"),
    [
        (small_conv, 16, 6, 4),
        (partial(small_conv, size=8), 8, 6, 2),
        (partial(small_conv, size=12, channels=(3, 5)), 12, 5, 6),
        (partial(small_conv, size=8, channels=(3, 2, 4, 7)), 8, 7, 1),
        (vae.conv, 64, 64, 4),
    ],
)
def test_convolutions_are_those_of_a_plain_network(build, size, channels, side):
    """Twice each, for x that lies in memory colours last and colours first."""
    model = seeded(build, 2).double()
    k = model.decoder[0].in_features
    x, z = inputs((size, size, 3), k, 3, dtype=torch.float64)
    expected = plain_conv(model, x, z, channels, side)
    torch.testing.assert_close((model.encoder(x), model.decoder(z)), expected)
    torch.testing.assert_close(model.encoder(x.movedim(-1, 1).contiguous().movedim(1, -1)), expected[0])


def test_options_of_convolutions():
    model = small_conv(activation=nn.Tanh, sigma2=0.25, channels=(1, 2, 4))
    assert model.log_sigma2.exp().item() == pytest.approx(0.25)
    kinds = [type(layer) for layer in [*model.encoder, *model.decoder]]
    assert kinds.count(nn.Tanh) == 6 and nn.ReLU not in kinds
    assert model.decode(model.encode(torch.zeros(2, 16, 16, 1))[0]).shape == (2, 16, 16, 1)


def test_images_lie_in_memory_as_they_came():
    """Permute copies nothing, and its name is what a checkpoint knows it by."""
    x = torch.rand(2, 5, 4, 3)
    found = vae.Permute(0, 3, 1, 2)(x)
    assert torch.equal(found, x.permute(0, 3, 1, 2)) and found.data_ptr() == x.data_ptr()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(vae.Permute(0, 2, 3, 1)(found), x)
    assert str(vae.Permute(0, 3, 1, 2)) == "Permute((0, 3, 1, 2))"


def test_kl_of_a_nearly_collapsed_unit_keeps_its_digits_in_float32():
    """log var = t and mean 0 give t^2 / 4 to leading order; with exp(t) - 1 float32 would lose it all."""
    model = small(hidden=(), k=1)
    with torch.no_grad():
        model.encoder[0].weight.zero_()
        model.encoder[0].bias.copy_(torch.tensor([0.0, 1e-4]))
    _, kl = model(torch.zeros(1, 9), torch.zeros(1, 1))
    assert kl.item() == pytest.approx(1e-8 / 4, rel=0.01)


def test_noise_variance_is_the_parameter_and_the_default_one():
    assert small(sigma2=0.25).log_sigma2.exp().item() == pytest.approx(0.25)
    assert vae.mlp(4, (), 2).log_sigma2.item() == 0
    assert isinstance(small(activation=nn.Tanh).decoder[1], nn.Tanh)


def test_products_in_bfloat16_give_terms_in_float32():
    model = seeded(small, 0)
    x, noise = inputs((9,), 3, 20)
    exact = model(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(x).dtype == torch.bfloat16
        found = model(x, noise)
        assert model.encode(x)[0].dtype == model.decode(noise).dtype == torch.float32
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32 and not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.02)


def linear_member(rng, n, k):
    """A linear VAE in closed form and as a module, its encoder's log variance free of x."""
    W, V, mu = rng.standard_normal((n, k)), rng.standard_normal((k, n)) / n, rng.standard_normal(n)
    closed = LinearVAE(W, V, rng.uniform(0.2, 2, k), mu, rng.uniform(0.3, 3))
    model = vae.mlp(n, (), k, sigma2=closed.sigma2).double()
    state = {
        "encoder.0.weight": np.vstack([V, np.zeros((k, n))]),
        "encoder.0.bias": np.hstack([-V @ mu, np.log(closed.D)]),
        "decoder.0.weight": W,
        "decoder.0.bias": mu,
        "log_sigma2": np.log(closed.sigma2),
    }
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return closed, model


@pytest.mark.parametrize(("seed", "beta"), [(0, 1.0), (1, 0.3), (2, 2.0)])
def test_linear_networks_have_the_gradients_of_the_linear_vae(seed, beta):
    """Through a decoder that is affine the ELBO is quadratic in the noise, so the 2k points +-sqrt(k) e_i of
    equal weight, whose mean is 0 and covariance I, give its expectation exactly."""
    rng, n, k, count, M = np.random.default_rng(seed), 7, 3, 11, 2
    points = np.sqrt(k) * np.vstack([np.eye(k), -np.eye(k)])
    x = rng.standard_normal((M, count, n)) @ rng.standard_normal((n, n)) + rng.standard_normal(n)
    closed, models = zip(*(linear_member(rng, n, k) for _ in range(M)), strict=True)
    stack = Stack(models)
    noise = torch.tensor(np.repeat(points, count, axis=0)).expand(M, -1, -1)
    squared_error, kl = stack(torch.tensor(np.tile(x, (1, 2 * k, 1))), noise)
    objective = vae.elbo(squared_error.mean(1), kl.mean(1), stack.parameters["log_sigma2"], n, beta)
    objective.sum().backward()
    gradient = {name: p.grad.numpy() for name, p in stack.parameters.items()}
    for m, model in enumerate(closed):
        moments = Moments.from_samples(x[m])
        assert objective[m].item() == pytest.approx(model.elbo(moments, beta), rel=1e-12)
        expected = model.gradients(moments, beta)
        weight, bias = gradient["encoder.0.weight"][m].T, gradient["encoder.0.bias"][m]
        # The mean is V (x - mu), of which the module has V mu in a bias of its own.
        found = {
            "W": gradient["decoder.0.weight"][m].T,
            "V": weight[:k] - np.outer(bias[:k], model.mu),
            "D": bias[k:] / model.D,
            "sigma2": gradient["log_sigma2"][m] / model.sigma2,
        }
        for name, value in found.items():
            np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vae.mlp(n=0), "n is 0; expected an integer from 1"),
        (lambda: vae.mlp(k=2.0), "k is 2.0; expected an integer"),
        (lambda: vae.mlp(hidden=(8, 0)), "hidden is 0; expected an integer from 1"),
        (lambda: vae.mlp(hidden=(8, "6")), "hidden is '6'; expected an integer from 1"),
        (
            lambda: vae.conv(size=60),
            r"size is 60 and channels \(3, 32, 32, 64, 64\); expected an image's channels, then those of at least one "
            "convolution, each of which halves the size",
        ),
        (lambda: vae.conv(size=8), "size is 8 and channels"),
        (lambda: vae.conv(channels=(3,)), r"size is 64 and channels \(3,\); expected an image's channels, then those"),
        (lambda: vae.conv(channels=()), r"size is 64 and channels \(\); expected"),
        (lambda: vae.conv(channels=(3, 0)), "channels is 0; expected an integer from 1"),
        (lambda: vae.conv(channels=(3, 4.0)), "channels is 4.0; expected an integer from 1"),
        (lambda: vae.conv(size=0), "size is 0; expected an integer from 1"),
        (lambda: vae.conv(size=64.0), "size is 64.0; expected an integer from 1"),
        (lambda: vae.conv(k=0), "k is 0; expected an integer from 1"),
        (lambda: vae.conv(dense=0), "dense is 0; expected an integer from 1"),
        (lambda: small_conv(sigma2=-1), "sigma2 is -1.0; expected a number above 0"),
        (lambda: small(sigma2=0), "sigma2 is 0.0; expected a number above 0"),
        (lambda: small(sigma2=np.nan), "sigma2 contains NaN or infinity"),
        (
            lambda: Stack([vae.VAE(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(2, 4))]),
            r"members have the buffers \['encoder.1.num_batches_tracked', .*; expected none",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Shapes and kinds


class Says(nn.Module):
    """Gives the same whatever comes."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (torch.zeros(4, 6), torch.zeros(4, 1), r"the decoder's output has shape \(4, 1\); expected x's, \(4, 9\)"),
        (torch.zeros(4, 6), torch.zeros(1, 9), r"the decoder's output has shape \(1, 9\); expected x's, \(4, 9\)"),
        (torch.zeros(4, 6), torch.zeros(9), r"the decoder's output has shape \(9,\); expected x's"),
        (torch.zeros(4, 6), (torch.zeros(4, 9), 1), "the decoder's output is tuple, .*; expected a tensor"),
        (torch.zeros(4, 6), None, "the decoder's output is NoneType, None; expected a tensor"),
        (torch.zeros(4, 6), torch.zeros(4, 9).int(), "the decoder's output is torch.int32; expected floating point"),
        (torch.zeros(4, 5), torch.zeros(4, 9), r"the encoder's output has shape \(4, 5\); expected \(B, 2k\)"),
        (torch.zeros(4, 4, 2, 2), torch.zeros(4, 9), r"the encoder's output has shape \(4, 4, 2, 2\)"),
        (torch.zeros(4, 2), torch.zeros(4, 9), r"noise has shape \(4, 3\); expected that of the means, \(4, 1\)"),
        ([torch.zeros(4, 3)] * 2, torch.zeros(4, 9), "the encoder's output is list"),
    ],
)
def test_a_loss_is_never_broadcast(encoder, decoder, message):
    with pytest.raises(ValueError, match=message):
        vae.VAE(Says(encoder), Says(decoder))(torch.zeros(4, 9), torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 9), np.float32), "x is ndarray, .*; expected a tensor"),
        ([[0.0] * 9], "x is list"),
        (torch.zeros(4, 9, dtype=torch.uint8), r"x is torch.uint8; expected floating point, such as .float\(\) of it"),
        (torch.zeros(4, 9).to_sparse(), r"x is sparse; expected a dense tensor: densify it with to_dense\(\)"),
        (torch.zeros(4, 9) + 1j, "x is torch.complex64"),
        (torch.zeros(4, 9, device="meta"), "x is on meta; expected cpu, as the network does"),
    ],
)
def test_what_a_network_does_not_take(x, message):
    model = small()
    for call in (model.encode, lambda x: model(x, torch.zeros(4, 3))):
        with pytest.raises(ValueError, match=message):
            call(x)
    with pytest.raises(ValueError, match=message.replace("x is", "z is", 1)):
        model.decode(x)


ONE = torch.ones(3)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((np.ones(3), ONE, ONE, 5), "squared_error is ndarray"),
        ((np.ma.ones(3), ONE, ONE, 5), "squared_error is MaskedArray"),
        ((ONE, [1.0], ONE, 5), "kl is list"),
        ((ONE, ONE, 0.0, 5), "log_sigma2 is float"),
        ((ONE, ONE.int(), ONE, 5), "kl is torch.int32"),
        ((ONE, ONE + 1j, ONE, 5), "kl is torch.complex64"),
        ((ONE.to_sparse(), ONE, ONE, 5), "squared_error is sparse"),
        ((ONE, torch.ones(2), ONE, 5), r"do not broadcast: squared_error \(3,\), kl \(2,\), log_sigma2 \(3,\)"),
        ((ONE, ONE, ONE, 5.0), "n is 5.0; expected an integer"),
        ((ONE, ONE, ONE, 0), "n is 0; expected an integer from 1"),
        ((ONE, ONE, ONE, 5, -1.0), "beta is -1.0; expected 0 or more"),
        ((ONE, ONE, ONE, 5, np.nan), "beta contains NaN"),
        ((ONE, ONE, ONE, 5, np.inf), "beta contains NaN or infinity"),
        ((ONE, ONE, ONE, 5, "1"), "beta is '1'"),
        ((ONE, ONE, ONE, 5, True), "beta is boolean"),
    ],
)
def test_what_an_elbo_does_not_take(terms, message):
    with pytest.raises(ValueError, match=message):
        vae.elbo(*terms)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vae.VAE(None, nn.Linear(2, 3)), "encoder is None, of type NoneType; expected Module"),
        (lambda: vae.VAE(nn.Linear(3, 4), torch.relu), "decoder is .*; expected Module"),
        (lambda: small(hidden=5), "hidden is 5, of type int; expected tuple or list"),
        (lambda: small(hidden="86"), "hidden is '86'"),
        (lambda: small(activation=nn.ReLU()), r"activation is ReLU\(\); expected what makes a layer"),
        (lambda: small(activation="relu"), "activation is 'relu'; expected what makes a layer"),
        (lambda: small(activation=int), "activation's result is 0, of type int; expected Module"),
        (lambda: small_conv(channels=3), "channels is 3, of type int"),
        (lambda: small_conv(activation=None), "activation is None"),
        (lambda: vae.Permute(0, 0, 1), r"order is \(0, 0, 1\); expected each of 0 to 2 once"),
        (lambda: vae.Permute(), "order is"),
        (lambda: vae.Permute(1, 0)(torch.zeros(1, 2, 3)), r"x has shape .*; expected 2 dimensions"),
    ],
)
def test_bad_networks(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_architecture_is_its_layers_and_their_constants():
    def made(**options):
        return vae.architecture(nn.Sequential(nn.Conv2d(1, 2, 3, **options), nn.LeakyReLU(0.1)))

    assert _same_architecture(made(), made()) and not _same_architecture(made(), made(stride=2))
    assert not _same_architecture(made(), made()[:2]) and not _same_architecture(None, made())
    older = [[name, kind, {k: v for k, v in constants.items() if k != "padding"}] for name, kind, constants in made()]
    assert _same_architecture(older, made())  # from before a release of torch had it
    assert json.loads(json.dumps(made())) == made()
    assert not _same_architecture(vae.architecture(nn.Tanh()), vae.architecture(nn.ReLU()))
