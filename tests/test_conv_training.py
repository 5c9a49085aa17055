"""Training of convolutions against a textbook's loop, and of several networks of them against one at a time."""

from functools import partialmethod

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from helpers import data, train, vae
from helpers.ensemble import LinearAnnealing, Member

PATCHES = data.patches(8, 70)
EPOCHS, BATCH = 3, 4  # 17 steps an epoch, more than the noise is drawn for at a time, and 2 patches left over
pytestmark = pytest.mark.filterwarnings("ignore:beta of members")  # runs cut short on purpose


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.tqdm, "__init__", partialmethod(train.tqdm.__init__, disable=True))
        yield


def network():
    """Smooth, as at a ReLU's kink two paths that differ by rounding part for good."""
    return vae.conv(size=8, channels=(3, 4, 6), dense=10, k=3, activation=nn.Tanh)


MEMBERS = [
    Member(seed=0, learning_rate=3e-3, sigma2=0.1),
    Member(seed=1, learning_rate=1e-3, sigma2=0.5, sigma2_rule="adam", beta=LinearAnnealing(2)),
    Member(seed=0, learning_rate=1e-2, sigma2=0.2, sigma2_rule="closed form", beta=0.5),
]


def run(members, epochs=EPOCHS, **options):
    return train.train(network, PATCHES, members, epochs, BATCH, **options)


@pytest.fixture(scope="module")
def together():
    return run(MEMBERS)


def assert_close(found, expected, rtol):
    """Parameters, in their order, by their norms."""
    for one, (name, other) in zip(found.parameters(), expected.named_parameters(), strict=True):
        one, other = one.detach().double(), other.detach().double()
        assert (one - other).norm() <= rtol * other.norm(), name


class Plain(nn.Module):
    """The same network written out, colours first in memory too wherever there is a convolution."""

    def __init__(self):
        super().__init__()
        self.log_sigma2 = nn.Parameter(torch.zeros(()))
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 4, 2, 1), nn.Conv2d(4, 6, 4, 2, 1)])
        self.to_z = nn.ModuleList([nn.Linear(24, 10), nn.Linear(10, 6)])
        self.from_z = nn.ModuleList([nn.Linear(3, 10), nn.Linear(10, 24)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)])

    def encode(self, x):
        x = x.permute(0, 3, 1, 2).contiguous()
        for convolution in self.down:
            x = torch.tanh(convolution(x))
        x = x.permute(0, 2, 3, 1).reshape(len(x), 24)
        return self.to_z[1](torch.tanh(self.to_z[0](x))).chunk(2, dim=1)

    def decode(self, z):
        x = self.from_z[1](torch.tanh(self.from_z[0](z))).view(-1, 2, 2, 6).permute(0, 3, 1, 2).contiguous()
        for convolution in self.up:
            x = convolution(torch.tanh(x))
        return x.permute(0, 2, 3, 1)


def textbook(member):
    """Trains `member` alone: modules, `backward` and Adam as ever, and the ELBO from torch's distributions."""
    model, n = Plain(), 8 * 8 * 3
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(member.seed)
        for own, initial in zip(model.parameters(), network().parameters(), strict=True):
            own.copy_(initial)
        model.log_sigma2.fill_(np.log(member.sigma2))
    learned = [p for p in model.parameters() if p is not model.log_sigma2 or member.sigma2_rule == "adam"]
    optimizer = torch.optim.Adam(learned, lr=member.learning_rate, foreach=False, fused=False)
    images, history = torch.tensor(PATCHES / 255, dtype=torch.float32), []
    for epoch in range(EPOCHS):
        seed = np.random.SeedSequence([member.seed, epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) // 2)
        batches = torch.randperm(len(images), generator=generator).split(BATCH)[: len(images) // BATCH]
        noise = []
        for first in range(0, len(batches), 16):
            noise.extend(torch.randn(min(16, len(batches) - first), BATCH, 3, generator=generator))
        sums = np.zeros(3)
        for step, batch in enumerate(batches):
            mean, logvar = model.encode(images[batch])
            q = Normal(mean, logvar.exp().sqrt())
            output = model.decode(mean + q.scale * noise[step])
            p = Normal(output, model.log_sigma2.exp().sqrt())
            reconstruction = p.log_prob(images[batch]).flatten(1).sum(1).mean()
            kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
            beta = member.beta(epoch + step / len(batches)) if callable(member.beta) else member.beta
            optimizer.zero_grad()
            (beta * kl - reconstruction).backward()
            optimizer.step()
            sse = ((output - images[batch]) ** 2).flatten(1).sum(1).mean()
            sums += [(reconstruction - kl).item(), sse.item(), kl.item()]
        elbo, sse, kl = sums / len(batches)
        if member.sigma2_rule == "closed form":
            with torch.no_grad():
                model.log_sigma2.fill_(np.log(sse / n))
        history.append([elbo, sse, kl, model.log_sigma2.exp().item(), beta])
    return model, np.array(history)


@pytest.mark.parametrize("m", range(len(MEMBERS)))
def test_convolutions_train_as_in_a_textbooks_loop(m, together):
    """Gradients of convolutions lie in memory colours last, their parameters colours first: Adam has to match them."""
    model, history = textbook(MEMBERS[m])
    member = together.stack.member(m)
    assert_close(member, model, 1e-4)
    found = np.transpose([together.history[name][:, m] for name in ("elbo", "sse", "kl", "sigma2", "beta")])
    np.testing.assert_allclose(found, history, rtol=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(MEMBERS[m].seed)
        initial = network()
    for (name, before), after in zip(initial.named_parameters(), member.parameters(), strict=True):
        moved = (before - after).norm() > 0.01 * before.norm()  # a hundred times what is tolerated above
        assert moved or name == "log_sigma2", name


@pytest.mark.parametrize("m", range(len(MEMBERS)))
def test_networks_of_convolutions_together_are_networks_apart(m, together):
    apart = run([MEMBERS[m]])
    assert_close(together.stack.member(m), apart.stack.member(0), 1e-4)
    for averages, alone in zip(together.adam, apart.adam, strict=True):
        for name, average in averages.items():
            assert (average[m] - alone[name][0]).norm() <= 1e-4 * alone[name][0].norm(), name
    for name, values in together.history.items():
        np.testing.assert_allclose(values[:, m], apart.history[name][:, 0], rtol=1e-4)


def test_a_run_of_convolutions_goes_on_as_if_it_had_not_stopped(together, tmp_path):
    path = tmp_path / "run.safetensors"
    run(MEMBERS, 1, path=path)
    resumed = run(MEMBERS, path=path)
    assert resumed.epoch == EPOCHS
    for name, p in together.stack.parameters.items():
        assert torch.equal(resumed.stack.parameters[name], p), name
    for name, values in together.history.items():
        np.testing.assert_array_equal(resumed.history[name], values)


def test_convolutions_train_in_bfloat16(together):
    """Measured: the squared errors differ by 0.07 percent at most. Parameters and Adam stay in float32."""
    result = run(MEMBERS, precision="bfloat16")
    assert (result.diverged == 0).all()
    for tensors in (result.stack.parameters, *result.adam):
        for name, values in tensors.items():
            assert values.dtype == torch.float32 and torch.isfinite(values).all(), name
    for name, values in result.history.items():
        assert np.isfinite(values).all(), name
    assert not np.array_equal(result.history["sse"], together.history["sse"])
    np.testing.assert_allclose(result.history["sse"], together.history["sse"], rtol=0.005)
    assert (np.diff(result.history["sse"], axis=0) < 0).all()
