"""Ensembles: what a member is, schedules, and networks side by side that compute what each does alone."""

import numpy as np
import pytest
import torch
from test_vae import KINDS, inputs, seeded, small, small_conv
from torch import nn
from training import Rise, constant, run

from helpers import ensemble, vae
from helpers.ensemble import LinearAnnealing, Member

pytestmark = [
    pytest.mark.usefixtures("no_bars"),
    pytest.mark.filterwarnings("ignore:beta of members"),  # runs cut short on purpose
]


def test_the_learning_rate_falls_over_the_last_share_of_the_epochs():
    member = Member(learning_rate=0.6, decay=0.3)
    rates = [member.rate_at(epoch, 10) for epoch in range(10)]
    np.testing.assert_allclose(rates, [0.6] * 8 + [0.4, 0.2])
    assert Member(learning_rate=0.6).rate_at(9, 10) == Member(learning_rate=0.6, decay=0.01).rate_at(9, 10) == 0.6
    assert "decay" not in Member().describe() and member.describe()["decay"] == 0.3
    for epoch, epochs in ((-1, 10), (10, 10), (0, 0)):
        with pytest.raises(ValueError, match="epoch"):
            member.rate_at(epoch, epochs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; expected an integer from 0"),
        ({"seed": 2**32}, "seed is 4294967296; expected an integer"),
        ({"seed": 0.5}, "seed is 0.5; expected an integer"),
        ({"learning_rate": 0}, "learning_rate is 0.0; expected a number above 0"),
        ({"decay": -0.1}, "decay is -0.1; expected 0 or more"),
        ({"decay": 1.5}, "decay is 1.5; expected a share of the epochs, 0 to 1"),
        ({"learning_rate": np.inf}, "learning_rate contains NaN or infinity"),
        ({"sigma2": -0.1}, "sigma2 is -0.1; expected a number above 0"),
        ({"sigma2": "small"}, "sigma2 is 'small'; expected numbers"),
        ({"sigma2_rule": "learned"}, r"sigma2_rule is 'learned'; expected one of fixed, adam, closed form"),
        ({"beta": -0.5}, "beta is -0.5; expected 0 or more"),
        ({"beta": np.nan}, "beta contains NaN or infinity"),
        ({"beta": "linear"}, "beta is 'linear'; expected numbers"),
    ],
)
def test_bad_members(options, message):
    with pytest.raises(ValueError, match=message):
        Member(**options)


def test_beta_may_be_zero():
    assert Member(beta=0).beta_at(3) == 0


def test_settings_tell_schedules_apart():
    flat, steep = np.ones((3, 5)), np.arange(15.0).reshape(3, 5)
    assert Member(beta=Rise(2)).describe(flat)["beta"] == "Rise(epochs=2)"
    one, other = (Member(beta=constant(1.0)).describe(values)["beta"] for values in (flat, steep))
    assert one != other and "lambda" in one and "sha256" in one and "3 epochs" in one
    thing = Rise(constant(1.0))  # a dataclass, but of a function, whose text says only where it lies
    assert "0x" not in Member(beta=thing).describe(flat)["beta"]
    assert Member(beta=0.5).describe()["beta"] == "0.5"
    for values in ("nonsense", flat[0], flat * np.nan):
        with pytest.raises(ValueError, match=r"^values "):
            Member(beta=constant(1.0)).describe(values)
    assert Member(beta=LinearAnnealing(np.int64(50))).describe(flat)["beta"] == "LinearAnnealing(epochs=50)"


def test_a_beta_beyond_float32_is_refused():
    with pytest.raises(
        ValueError, match=r"beta of members\[0\] is 1e\+300; expected a finite number from 0, in float32"
    ):
        run([Member(beta=1e300)])
    with pytest.raises(ValueError, match="beta is the class LinearAnnealing; expected a number or a function"):
        Member(beta=LinearAnnealing)
    with pytest.raises(ValueError, match="epochs is 16777216; expected at most 13421772, of 5 steps"):
        run([Member(beta=LinearAnnealing(2))], 2**24)


@pytest.mark.parametrize("epochs", [0, -1, np.nan, np.inf, "2", None, True, [1]])
def test_annealing_takes_a_number_of_epochs(epochs):
    with pytest.raises(ValueError, match=r"^epochs "):
        LinearAnnealing(epochs)


# Networks side by side


@pytest.mark.parametrize("kind", KINDS)
def test_only_convolutions_take_their_turns(kind):
    stack = ensemble.Stack([KINDS[kind][0]() for _ in range(2)])
    assert stack.batched == (kind in ("mlp", "linear"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_evaluates_each_member_on_its_own_part(kind):
    build, shape, k = KINDS[kind]
    models = [seeded(build, seed).double() for seed in range(3)]
    stack = ensemble.Stack(models)
    x, noise = inputs(shape, k, 3, 6, dtype=torch.float64)
    found = stack(x, noise)
    assert len(stack) == 3
    for m, model in enumerate(models):
        for one, other in zip(found, model(x[m], noise[m]), strict=True):
            torch.testing.assert_close(one[m], other)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_stack_are_those_of_each_member(kind):
    build, shape, k = KINDS[kind]
    models = [seeded(build, seed).double() for seed in range(3)]
    stack = ensemble.Stack(models)
    x, noise = inputs(shape, k, 3, 6, dtype=torch.float64)
    n = x[0, 0].numel()
    squared_error, kl = stack(x, noise)
    vae.elbo(squared_error.mean(1), kl.mean(1), stack.parameters["log_sigma2"], n, 0.7).sum().backward()
    for m, model in enumerate(models):
        squared_error, kl = model(x[m], noise[m])
        vae.elbo(squared_error.mean(), kl.mean(), model.log_sigma2, n, 0.7).backward()
        own = dict(model.named_parameters())
        assert own.keys() == stack.parameters.keys()
        for name, p in stack.parameters.items():
            gradient = p.grad[m].mT if p.ndim == 3 else p.grad[m]  # a Linear's weight is kept as (in, out)
            torch.testing.assert_close(gradient, own[name].grad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_comes_back_as_it_went_in_and_as_a_copy(kind):
    build, shape, k = KINDS[kind]
    models = [seeded(build, seed) for seed in range(3)]
    states = [{name: p.clone() for name, p in model.state_dict().items()} for model in models]
    stack = ensemble.Stack(models)
    with torch.no_grad():
        for p in models[1].parameters():
            p.zero_()
    for m, state in enumerate(states):
        member = stack.member(m)
        assert type(member) is vae.VAE and member.state_dict().keys() == state.keys()
        for name, p in member.named_parameters():
            assert torch.equal(p, state[name]) and p.is_contiguous() and p.requires_grad
            p.data.zero_()
        assert torch.equal(stack.member(m).log_sigma2, state["log_sigma2"])
    again = ensemble.Stack([stack.member(m) for m in range(3)])
    for name, p in stack.parameters.items():
        assert torch.equal(p, again.parameters[name]) and p.is_contiguous() and p.is_leaf and p.requires_grad
    x, noise = inputs(shape, k, 4)
    torch.testing.assert_close(stack.member(2)(x, noise), seeded(build, 2)(x, noise))


# What a stack cannot train


def with_layer(layer, **options):
    """A network that has one more layer in its encoder."""
    model = small(**options)
    model.encoder = nn.Sequential(*model.encoder, layer)
    return model


class Attention(nn.Module):
    """A layer of one's own that draws inside another."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, dropout=0.1)

    def forward(self, x):
        return self.inner(x, x, x)[0]


REFUSED = {
    "dropout": (lambda: with_layer(nn.Dropout(0.1)), r"encoder.5, a Dropout, which draws random numbers of its own"),
    "alpha dropout": (lambda: with_layer(nn.AlphaDropout(0.1)), "an AlphaDropout|a AlphaDropout"),
    "channel dropout": (lambda: with_layer(nn.Dropout2d()), "a Dropout2d, which draws"),
    "random slopes": (lambda: with_layer(nn.RReLU()), "a RReLU, which draws"),
    "attention": (lambda: with_layer(Attention()), r"encoder.5.inner, a MultiheadAttention, which draws"),
    "recurrent": (lambda: with_layer(nn.GRU(6, 6, 2, dropout=0.2)), "a GRU, which draws"),
    "batch norm": (lambda: with_layer(nn.BatchNorm1d(6)), r"have the buffers .* of BatchNorm1d; expected none"),
    "its batch": (
        lambda: with_layer(nn.BatchNorm1d(6, track_running_stats=False)),
        "a BatchNorm1d, whose output depends on the other samples of the batch",
    ),
    "spectral norm": (
        lambda: with_layer(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))),
        r"have the buffers .* of _SpectralNorm; expected none",
    ),
    "no VAE": (lambda: nn.Linear(3, 3), "is a Linear without log_sigma2; expected a VAE"),
    "none": (lambda: None, r"members\[0\] is None, of type NoneType; expected Module"),
}


@pytest.mark.parametrize(
    "other", [small_conv(), small(n=8), small(activation=nn.Tanh), small().double(), with_layer(nn.Identity())]
)
def test_members_of_other_kinds_are_refused(other):
    with pytest.raises(ValueError, match=r"members\[2\] is another network than members\[0\]"):
        ensemble.Stack([small(), small(), other])


@pytest.mark.parametrize("members", [[], (), {"a": small()}, {}, None, "VAE", small(), iter([small()])])
def test_members_are_a_list(members):
    with pytest.raises(ValueError, match=r"members is .*; expected a list of at least one module"):
        ensemble.Stack(members)


def test_a_stack_takes_a_tuple_and_gives_members_by_their_number():
    stack = ensemble.Stack((small(), small()), "cpu:0")
    for m in (2, -1, 0.5, True, None):
        with pytest.raises(ValueError, match=r"m is .*; expected an integer from 0 to 1"):
            stack.member(m)


@pytest.mark.parametrize("kind", REFUSED)
def test_layers_that_draw_or_remember_are_refused_by_name(kind):
    build, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        ensemble.Stack([build(), build()])
