"""The training loop against a textbook's, the linear VAE's optimum, and itself after every kind of interruption."""

import ast
import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass, replace
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import run_training
import scipy.sparse
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import helpers
from helpers import checkpoint, collapse, data, experiments, lockstep, ppca, train, vae
from helpers.moments import Moments
from helpers.train import LinearAnnealing, Member

DIGITS = data.digits_bytes()
# Smooth, as at a ReLU's kink two paths that differ by rounding part for good.
NETWORK = partial(vae.mlp, n=64, hidden=(24,), k=3, activation=nn.Tanh)
DIGEST_ERROR = "is damaged|is no readable checkpoint"
pytestmark = pytest.mark.filterwarnings("ignore:beta of members")  # runs cut short on purpose


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.tqdm, "__init__", partialmethod(train.tqdm.__init__, disable=True))
        yield


@pytest.fixture
def at_each_step(monkeypatch):
    """Has a function called before every step, with the `Lockstep` that does it."""
    step = lockstep.Lockstep.step

    def install(act):
        monkeypatch.setattr(lockstep.Lockstep, "step", lambda self: (act(self), step(self))[1])

    return install


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


# One member at a time, and a textbook's loop

MIXED = [
    Member(seed=0, learning_rate=1e-3, sigma2=0.1),
    Member(seed=1, learning_rate=3e-3, sigma2=1.0, beta=LinearAnnealing(6)),
    Member(seed=2, learning_rate=3e-4, sigma2=0.5, sigma2_rule="adam", beta=0.5),
    Member(seed=3, learning_rate=1e-3, sigma2=0.2, sigma2_rule="closed form", beta=lambda elapsed: 2 - elapsed / 10),
    Member(seed=0, learning_rate=3e-3, sigma2=0.01, sigma2_rule="adam"),
    Member(seed=4, learning_rate=1e-3, sigma2=0.1, decay=0.45),
]
MIXED_EPOCHS, MIXED_BATCH = 10, 87  # 20 steps an epoch, more than the noise is drawn for at a time


@pytest.fixture(scope="module")
def together():
    return run(MIXED, MIXED_EPOCHS, x=DIGITS, batch_size=MIXED_BATCH)


@pytest.mark.parametrize("m", range(len(MIXED)))
def test_members_together_are_members_apart(m, together):
    apart = run([MIXED[m]], MIXED_EPOCHS, x=DIGITS, batch_size=MIXED_BATCH)
    assert_close(state(together, slice(m, m + 1)), state(apart), 1e-4)


def textbook(member, x, epochs, batch_size):
    """Trains `member` alone: modules, `backward` and Adam as ever, and the ELBO from torch's distributions."""
    with torch.random.fork_rng():
        torch.manual_seed(member.seed)
        model = NETWORK(sigma2=member.sigma2)
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]
    learned = [model.log_sigma2] if member.sigma2_rule == "adam" else []
    optimizer = torch.optim.Adam(networks + learned, lr=member.learning_rate)
    falling = max(member.decay * epochs, 1e-9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, (epochs - epoch) / falling))
    images, n = torch.tensor(x / 255, dtype=torch.float32), x.shape[1]
    history = []
    for epoch in range(epochs):
        seed = np.random.SeedSequence([member.seed, epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) // 2)
        batches = torch.randperm(len(x), generator=generator).split(batch_size)[: len(x) // batch_size]
        noise = []
        for first in range(0, len(batches), 16):
            noise.extend(torch.randn(min(16, len(batches) - first), batch_size, 3, generator=generator))
        sums = np.zeros(3)
        for step, batch in enumerate(batches):
            mean, logvar = model.encoder(images[batch]).chunk(2, dim=1)
            q = Normal(mean, logvar.exp().sqrt())
            output = model.decoder(mean + q.scale * noise[step])
            reconstruction = Normal(output, model.log_sigma2.exp().sqrt()).log_prob(images[batch]).sum(1).mean()
            kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
            beta = member.beta(epoch + step / len(batches)) if callable(member.beta) else member.beta
            optimizer.zero_grad()
            (beta * kl - reconstruction).backward()
            optimizer.step()
            sse = ((output - images[batch]) ** 2).sum(1).mean()
            sums += [(reconstruction - kl).item(), sse.item(), kl.item()]
        schedule.step()
        elbo, sse, kl = sums / len(batches)
        if member.sigma2_rule == "closed form":
            with torch.no_grad():
                model.log_sigma2.fill_(np.log(sse / n))
        history.append([elbo, sse, kl, model.log_sigma2.exp().item(), beta])
    return model, dict(zip(("elbo", "sse", "kl", "sigma2", "beta"), np.transpose(history), strict=True))


@pytest.mark.parametrize("m", range(len(MIXED)))
def test_members_are_those_of_a_textbooks_loop(m, together):
    model, history = textbook(MIXED[m], DIGITS, MIXED_EPOCHS, MIXED_BATCH)
    member = together.stack.member(m)
    found = {f"parameter/{name}": p.detach().numpy() for name, p in member.named_parameters()}
    found |= {name: values[:, m] for name, values in together.history.items()}
    expected = {f"parameter/{name}": p.detach().numpy() for name, p in model.named_parameters()}
    assert_close(found, expected | history, 1e-4)


def test_the_learning_rate_falls_over_the_last_share_of_the_epochs():
    member = Member(learning_rate=0.6, decay=0.3)
    rates = [member.rate_at(epoch, 10) for epoch in range(10)]
    np.testing.assert_allclose(rates, [0.6] * 8 + [0.4, 0.2])
    assert Member(learning_rate=0.6).rate_at(9, 10) == Member(learning_rate=0.6, decay=0.01).rate_at(9, 10) == 0.6
    assert "decay" not in Member().describe() and member.describe()["decay"] == 0.3
    for epoch, epochs in ((-1, 10), (10, 10), (0, 0)):
        with pytest.raises(ValueError, match="epoch"):
            member.rate_at(epoch, epochs)


def test_a_run_that_decays_goes_on_as_if_it_had_not_stopped(tmp_path):
    members, path = [replace(MIXED[-1], decay=1.0), MIXED[0]], tmp_path / "run"
    run(members, 4, path=path, budget=0)
    assert_same_bits(state(run(members, 4, path=path)), state(run(members, 4)))
    with pytest.raises(ValueError, match="epochs is 4; expected 5"):  # of which the decay is a share
        run(members, 5, path=path)


def test_the_history_says_what_was_set(together):
    sigma2, beta = together.history["sigma2"], together.history["beta"]
    np.testing.assert_allclose(sigma2[:, [0, 1, 5]], [[0.1, 1.0, 0.1]] * MIXED_EPOCHS, rtol=1e-6)
    np.testing.assert_allclose(sigma2[:, 3], together.history["sse"][:, 3] / 64, rtol=1e-6)
    np.testing.assert_allclose(beta[[0, 4, 5, 9], 1], [0.95 / 6, 4.95 / 6, 5.95 / 6, 1.0], rtol=1e-6)
    assert (beta[:, 2] == 0.5).all() and together.stopped == "" and together.epoch == MIXED_EPOCHS


def test_a_run_depends_on_its_arguments_alone():
    members = [replace(MIXED[1], beta=LinearAnnealing(2)), MIXED[2]]
    torch.manual_seed(1)
    one = run(members, 2)
    before = torch.get_rng_state()
    other = run(members, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_bits(state(one), state(other))
    found = [None]
    thread = threading.Thread(target=lambda: found.append(run(members, 2)))  # where no signal can be handled
    thread.start()
    thread.join()
    assert_same_bits(state(found[-1]), state(one))


def test_float32_images_are_used_as_they_are():
    bytes_, floats = (run([Member()], 1, x=x) for x in (DIGITS[:600], np.float32(DIGITS[:600]) / np.float32(255)))
    assert_same_bits(state(bytes_), state(floats))


def test_snapshots_are_the_statistics_at_the_end_of_their_epochs():
    members = MIXED[:2]
    result = run(members, 4, snapshots=(epoch for epoch in (2, 4)))
    assert sorted(result.snapshots) == [2, 4]
    for epoch, found in result.snapshots.items():
        stack = run(members, epoch).stack
        for m in range(2):
            with torch.no_grad():
                outputs = stack.member(m).encode(torch.tensor(DIGITS[:600]).float() / 255)
            for name, values in collapse.unit_statistics(*outputs)._asdict().items():
                np.testing.assert_allclose(found[name][m], values, rtol=1e-4, atol=1e-6)


def test_networks_of_convolutions_train():
    def build():
        encoder = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Flatten())
        decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 1, 4, 2, 1))
        return vae.VAE(encoder.append(nn.Linear(64, 6)), decoder.append(nn.Flatten()))

    members = [Member(seed=s, sigma2=0.1, learning_rate=3e-3) for s in range(2)]
    result = run(members, build=build, snapshots=[3])
    assert (np.diff(result.history["elbo"], axis=0) > 0).all() and result.snapshots[3]["quantile"].shape == (2, 3)
    assert_close(state(result, slice(1, 2)), state(run(members[1:], build=build, snapshots=[3])), 1e-4)


# The optimum of linear networks


@pytest.fixture(scope="module")
def linear():
    """Runs in large batches, to their end, and the best that pPCA can do for each."""
    x = data.synthetic_ppca(2048, (5, 3, 0.5, 0.5, 0.5), 2, seed=2)[0].astype(np.float32)
    moments = Moments.from_samples(x.astype(np.float64))
    members = [Member(sigma2=sigma2) for sigma2 in (1.0, 4.0)]  # all units used, and one of two
    members += [Member(seed=1, sigma2_rule=rule) for rule in ("adam", "closed form")]
    members = [replace(member, learning_rate=1e-2) for member in members]
    best = [ppca.fit(moments, 2, sigma2=sigma2).log_likelihood(moments) for sigma2 in (1.0, 4.0)]
    best += 2 * [ppca.max_log_likelihood(moments)[1]]
    result = run(members, 400, x=x, batch_size=1024, build=partial(vae.mlp, n=5, hidden=(), k=2))
    return result, x, moments, best


def exact_elbo(model, x):
    """ELBO of linear networks over all data: the expectation over the noise in closed form."""
    model, x = model.double(), torch.tensor(x).double()
    with torch.no_grad():
        mean, logvar = model.encode(x)
        spread = logvar.exp() @ model.decoder[0].weight.square().sum(0)
        squared_error = (x - model.decode(mean)).square().sum(1) + spread
        kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
        return vae.elbo(squared_error, kl, model.log_sigma2, x.shape[1]).mean().item()


def test_training_reaches_the_maximum_of_ppca(linear):
    result, x, _, best = linear
    found = [exact_elbo(result.stack.member(m), x) for m in range(len(best))]
    np.testing.assert_allclose(found, best, rtol=0, atol=0.01)
    assert (found <= np.array(best) + 1e-6).all()  # float32 has no better optimum


def test_learned_noise_variance_is_sse_over_n(linear):
    result, _, moments, _ = linear
    sigma2, sse = (result.history[name][-100:, 2:].mean(axis=0) for name in ("sigma2", "sse"))
    np.testing.assert_allclose(sigma2, sse / 5, rtol=2e-3)
    np.testing.assert_allclose(sigma2[0], sigma2[1], rtol=5e-3)
    np.testing.assert_allclose(sigma2, ppca.fit(moments, 2).sigma2, rtol=1e-2)


def test_beta_at_sigma2_is_the_elbo_at_beta_sigma2():
    """The gradients differ by the factor beta, which Adam does not see."""
    members = [Member(seed=3, sigma2=0.4, beta=0.25), Member(seed=3, sigma2=0.1), Member(seed=3, sigma2=0.4)]
    members += [Member(seed=4, sigma2=0.05, beta=3.0), Member(seed=4, sigma2=0.15), Member(seed=4, sigma2=0.05)]
    result = run(members, 8, x=DIGITS, batch_size=120)  # 112 steps
    found = state(result)
    for i in (0, 3):
        for name in ("sse", "kl"):
            one, same, other = found[name][:, i : i + 3].T
            np.testing.assert_allclose(one, same, rtol=1e-3)
            assert abs(one[-1] / other[-1] - 1) > 0.01
        for name in (name for name in found if name.startswith("parameter/") and "sigma2" not in name):
            one, same, other = found[name][i : i + 3]
            assert np.linalg.norm(one - same) < 1e-3 * np.linalg.norm(same), name
            assert np.linalg.norm(one - other) > 0.01 * np.linalg.norm(other), name
    objective = -(64 * np.log(2 * np.pi * found["sigma2"]) + found["sse"] / found["sigma2"]) / 2 - found["kl"]
    np.testing.assert_allclose(found["elbo"], objective, rtol=1e-5)


# Stopping and going on


def test_killed_ten_times_is_bit_for_bit_uninterrupted(tmp_path):
    path = tmp_path / "run.safetensors"
    command = [sys.executable, run_training.__file__, str(path), "10", "0"]
    killed = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"})
    assert killed.returncode == 0, killed.stderr
    assert killed.stdout.count("signal 9") == 10
    resumed, whole = run_training.run(path), run_training.run(None)
    assert whole.epoch == run_training.EPOCHS and resumed.seconds > 0
    assert_same_bits(state(resumed), state(whole))
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_was_cut_short_is_as_if_it_had_not_been(tmp_path):
    path, whole = tmp_path / "run.safetensors", run(MIXED[:2], 4, snapshots=[1, 3])
    run(MIXED[:2], 2, snapshots=[1], path=path)
    path.with_name(path.name + ".part").write_bytes(path.read_bytes()[:1000])
    resumed = run(MIXED[:2], 4, snapshots=[1, 3], path=path)
    assert_same_bits(state(resumed), state(whole))
    assert list(tmp_path.iterdir()) == [path]


def test_stops_within_its_budget_and_goes_on(tmp_path):
    path, whole = tmp_path / "run.safetensors", run(MIXED[:3], 4, snapshots=[2, 4])
    spent = 0.0
    for epoch in (1, 2, 3):
        result = run(MIXED[:3], 4, snapshots=[2, 4], path=path, budget=1e-9)
        assert (result.stopped, result.epoch) == ("budget", epoch) and result.seconds > spent
        spent = result.seconds
    result = run(MIXED[:3], 4, snapshots=[2, 4], path=path, budget=1e9)
    assert result.stopped == "" and result.seconds > spent
    assert_same_bits(state(result), state(whole))
    finished = run(MIXED[:3], 4, snapshots=[4, 2, 2], path=path, budget=1e-9)
    assert finished.stopped == "" and finished.seconds == result.seconds
    assert_same_bits(state(finished), state(whole))


class Clock:
    """The time, of which each step takes a second: 5 an epoch."""

    now = 0.0

    def monotonic(self):
        return self.now

    def tick(self, _):
        self.now += 1.0


@pytest.fixture
def clock(at_each_step, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    at_each_step(clock.tick)
    return clock


@pytest.mark.parametrize(("budget", "epochs"), [(14.5, 2), (15.5, 3), (24, 4), (25, 5), (1e9, 5), (None, 5)])
def test_the_budget_counts_the_epoch_to_come(budget, epochs, clock):
    result = run([Member()], 5, budget=budget)
    assert result.epoch == epochs and result.seconds == 5 * epochs
    assert result.stopped == ("budget" if epochs < 5 else "")


def test_checkpoints_are_written_when_so_many_seconds_have_passed(clock, monkeypatch, tmp_path):
    save, written = checkpoint.save, []
    monkeypatch.setattr(
        checkpoint, "save", lambda path, run, *rest: (written.append(run.epoch), save(path, run, *rest))
    )
    run([Member()], 7, path=tmp_path / "a", checkpoint_seconds=10)
    assert written == [2, 4, 6, 7]
    written.clear()
    run([Member()], 5, path=tmp_path / "b", checkpoint_seconds=1e9)
    assert written == [5]
    run([Member()], 7, path=tmp_path / "b", checkpoint_seconds=0)
    assert written == [5, 6, 7]


def interrupting(*signals, epoch=1):
    """Sends the process these signals, a step each, from the beginning of that epoch on, counted from 0."""
    left = list(signals)

    def act(engine):
        if left and engine.run.epoch >= epoch:
            signal.raise_signal(left.pop(0))

    return act


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def handler():
    """A handler of the signals that stop a run, which it has to give back."""

    def raising(number, frame):
        raise KeyboardInterrupt(number)

    before = [signal.signal(number, raising) for number in STOPS]
    yield raising
    for number, old in zip(STOPS, before, strict=True):
        signal.signal(number, old)


def given_back(handler):
    return all(signal.getsignal(number) is handler for number in STOPS)


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_stops_after_the_epoch(number, handler, at_each_step, tmp_path, capsys):
    path, whole = tmp_path / "run.safetensors", run([Member()], 4)
    at_each_step(interrupting(number))
    result = run([Member()], 4, path=path)
    assert (result.stopped, result.epoch) == ("interrupt", 2) and given_back(handler)
    printed = capsys.readouterr()
    assert "interrupt again to stop at once" in printed.err and not printed.out
    resumed = run([Member()], 4, path=path)
    assert (resumed.stopped, resumed.epoch) == ("", 4)
    assert_same_bits(state(resumed), state(whole))


def test_an_interrupt_in_the_last_epoch_stops_nothing(handler, at_each_step):
    at_each_step(interrupting(signal.SIGINT))
    result = run([Member()], 2)
    assert (result.stopped, result.epoch) == ("", 2) and given_back(handler)


@pytest.mark.parametrize("second", STOPS)
def test_a_second_signal_stops_at_once(second, handler, at_each_step, tmp_path):
    path, whole = tmp_path / "run.safetensors", run([Member()], 4)
    at_each_step(interrupting(signal.SIGINT, second))
    with pytest.raises(KeyboardInterrupt) as stopped:
        run([Member()], 4, path=path, checkpoint_seconds=0)
    assert stopped.value.args == (second,) and given_back(handler)
    assert list(tmp_path.iterdir()) == [path]
    assert_same_bits(state(run([Member()], 4, path=path)), state(whole))


def test_what_is_ignored_stays_ignored(handler, at_each_step):
    """As under nohup, which has the processes it starts ignore SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_each_step(interrupting(signal.SIGHUP))
    assert run([Member()], 3).epoch == 3 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_an_error_gives_the_handlers_back(handler, at_each_step, tmp_path):
    at_each_step(lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run([Member()], path=tmp_path / "run.safetensors")
    assert given_back(handler) and list(tmp_path.iterdir()) == []


# Checkpoints


@pytest.fixture
def saved(tmp_path):
    """A finished run's checkpoint, by a name of its own and with settings of its own."""
    path, result = tmp_path / "a run.safetensors", run(MIXED[:1], 1, build=partial(vae.mlp, 64, (2,), 1), snapshots=[1])
    checkpoint.save(path, result, {"settings": 1})
    return path, result


def refused(path, result, message=DIGEST_ERROR):
    before = state(result)
    with pytest.raises(ValueError, match=message) as error:
        checkpoint.load(path, result, {"settings": 1})
    with pytest.raises(ValueError, match="same is 'equal'; expected a function"):
        checkpoint.load(path, result, {"settings": 1}, "equal")
    assert str(path) in str(error.value)
    assert_same_bits(state(result), before)


def test_a_whole_checkpoint_is_read_back(saved):
    path, result = saved
    expected = state(result)
    for p in (*result.stack.parameters.values(), *(p for average in result.adam for p in average.values())):
        p.data.zero_()
    result.history, result.epoch, result.snapshots = dict.fromkeys(result.history), 0, {}
    checkpoint.load(path, result, {"settings": 1})
    assert_same_bits(state(result), expected)


def test_flipped_bytes_are_noticed_wherever_they_are(saved):
    path, result = saved
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    counts = range(content.index(b"epoch", content.index(b"settings")), content.index(b"digest"))
    anywhere = np.random.default_rng(0).choice(start, 200, replace=False).tolist()
    for i in (*range(8), *counts, *anywhere):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        refused(path, result)
    for i in (start, *np.random.default_rng(1).integers(start, len(content), 50).tolist(), len(content) - 1):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        refused(path, result, "is damaged: its digest")


def test_truncated_and_foreign_files_are_refused(saved):
    path, result = saved
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, result)
    for other in (content + b"\0", b"no checkpoint but a text\n" * 20, b"CDF\2" + bytes(100)):
        path.write_bytes(other)
        refused(path, result)
    path.unlink()
    path.mkdir()
    refused(path, result)


def test_another_formats_checkpoint_is_refused(saved, monkeypatch):
    path, result = saved
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        checkpoint.save(path, result, {"settings": 1})
    refused(path, result, f"is of format {checkpoint.FORMAT + 1}; expected one from 1 to {checkpoint.FORMAT}")


class Bare(nn.Module):
    """A network whose text does not say how wide it is."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = (nn.Parameter(torch.ones(shape) / 9) for shape in ((64, width), (width, 8)))

    def forward(self, x):
        return x @ self.inner @ self.outer


def bare(width):
    return vae.VAE(Bare(width), nn.Linear(4, 64))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("members", {"members": [replace(MIXED[0], seed=5), MIXED[1]]}),
        ("members", {"members": [replace(MIXED[0], learning_rate=2e-3), MIXED[1]]}),
        ("members", {"members": [replace(MIXED[0], sigma2=0.3), MIXED[1]]}),
        ("members", {"members": [replace(MIXED[0], sigma2_rule="adam"), MIXED[1]]}),
        ("members", {"members": [replace(MIXED[0], beta=0.9), MIXED[1]]}),
        ("members", {"members": [MIXED[0], replace(MIXED[1], beta=LinearAnnealing(7))]}),
        ("members", {"members": MIXED[:1]}),
        ("members", {"members": MIXED[1::-1]}),
        ("network", {"build": partial(NETWORK, hidden=(23,))}),
        ("network", {"build": partial(NETWORK, activation=nn.ReLU)}),
        ("parameters", {"first": partial(bare, 2), "build": partial(bare, 3)}),
        ("data", {"x": DIGITS[599::-1]}),
        ("data", {"x": DIGITS[:599]}),
        ("batch_size", {"batch_size": 111}),
        ("precision", {"precision": "bfloat16"}),
    ],
)
def test_another_runs_checkpoint_is_refused(name, other, tmp_path):
    path = tmp_path / "run.safetensors"
    run(MIXED[:2], 1, path=path, **({"build": other.pop("first")} if "first" in other else {}))
    content = path.read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another run: its {name} is") as error:
        run(**{"members": MIXED[:2], "epochs": 2, "path": path} | other)
    assert str(path) in str(error.value) and path.read_bytes() == content


def test_a_damaged_checkpoint_stops_training_and_is_left_alone(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=f"{path} is no readable checkpoint.*Remove it to start anew"):
        run([Member()], path=path)
    assert path.read_text() == "not a checkpoint"


def test_checkpoints_hold_plain_numbers_whatever_was_given(tmp_path):
    """NumPy's integers and floats among the settings are the same run's."""
    path = tmp_path / "run.safetensors"
    members = [Member(seed=np.int64(3), learning_rate=np.float32(0.5), sigma2=np.float64(2), beta=np.float32(1))]
    run(members, np.int64(1), path=path, batch_size=np.int32(300), snapshots=np.array([1]))
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["state"])["settings"]
    expected = {"seed": 3, "learning_rate": 0.5, "sigma2": 2.0, "sigma2_rule": "fixed", "beta": "1.0"}
    assert settings["members"] == [expected] and settings["batch_size"] == 300
    resumed = run([Member(seed=3, learning_rate=0.5, sigma2=2.0, beta=1)], 1, path=path, batch_size=300, snapshots=[1])
    assert sorted(resumed.snapshots) == [1]


def unwritten(path, result, message):
    """Saving fails; what was there stays, and nothing else is left."""
    content = path.read_bytes()
    with pytest.raises(OSError, match=message) as error:
        checkpoint.save(path, result, {"settings": 2})
    assert str(path) in str(error.value)
    assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_outgrows_the_disk_leaves_the_old_one(saved):
    """The limit on a file's size stands for a full disk: the system refuses the bytes beyond."""
    path, result = saved
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="could not be written") as error:
            checkpoint.save(path, result, {"settings": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert str(path) in str(error.value) and list(path.parent.iterdir()) == [path]
    checkpoint.load(path, result, {"settings": 1})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_no_space_left_leaves_the_old_checkpoint(step, saved, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, step, full)
    unwritten(*saved, "could not be written: .*No space left on device")


def test_training_says_where_it_could_not_write(tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(OSError, match="could not be written") as error:
        run([Member()], 1, path=blocked / "run.safetensors")
    assert str(blocked / "run.safetensors") in str(error.value)
    assert run([Member()], 1, path=tmp_path / "new" / "folder" / "run.safetensors").epoch == 1


# Divergence, precision, devices


def exploding(elapsed):
    return 1.0 if elapsed < 2 else 3e38


@pytest.mark.parametrize(
    ("bad", "harmless", "epoch"),
    [
        (Member(seed=1, beta=exploding), Member(seed=1), 3),
        (Member(seed=1, beta=lambda elapsed: 1.0 if elapsed < 2 else 1e30), Member(seed=1), 3),
        (Member(seed=1, learning_rate=1e30), Member(seed=1), 1),
    ],
)
def test_divergence_is_a_members_own(bad, harmless, epoch, tmp_path):
    path = tmp_path / "run.safetensors"
    run([MIXED[0], bad, MIXED[2]], 3, path=path)
    found = run([MIXED[0], bad, MIXED[2]], 4, snapshots=[4], path=path)
    expected = run([MIXED[0], harmless, MIXED[2]], 4, snapshots=[4])
    assert found.diverged.tolist() == [0, epoch, 0]
    for others in (slice(0, 1), slice(2, 3)):
        assert_same_bits(state(found, others), state(expected, others))
    for name, values in found.history.items():
        assert np.isnan(values[epoch - 1 :, 1]).all()
        np.testing.assert_array_equal(values[: epoch - 1, 1], expected.history[name][: epoch - 1, 1])
    if epoch > 1:
        last_finite = state(run([MIXED[0], harmless, MIXED[2]], epoch - 1))
    else:
        last_finite = {f"parameter/{name}": p for name, p in initial(harmless)}
    for name, p in found.stack.parameters.items():
        kept = last_finite[f"parameter/{name}"]
        np.testing.assert_array_equal(p[1].detach(), kept[1] if epoch > 1 else kept)
    assert all(np.isfinite(values).all() for name, values in state(found).items() if "/" in name)


def initial(member):
    stack = train._start(NETWORK, [member], torch.device("cpu")).stack
    return [(name, p[0].detach().numpy()) for name, p in stack.parameters.items()]


def test_snapshots_of_a_member_beyond_float32_are_nan():
    """After the one step of an epoch the parameters are still finite, and what the network makes of them is not."""
    members = [Member(learning_rate=1e20), Member()]
    options = {"batch_size": 600, "snapshots": [1], "build": partial(NETWORK, activation=nn.ReLU)}
    result = run(members, 1, **options)
    expected = run([replace(members[0], learning_rate=1e-3), members[1]], 1, **options)
    for name, values in result.snapshots[1].items():
        assert np.isnan(values[0]).all()
        np.testing.assert_array_equal(values[1], expected.snapshots[1][name][1])


def test_bfloat16_products_leave_all_else_in_float32():
    members = [replace(member, learning_rate=3e-3) for member in MIXED[:3]]
    exact, found = (run(members, 6, precision=precision) for precision in ("float32", "bfloat16"))
    for result in (exact, found):
        assert all(values.dtype == np.float32 for _, _, values in networks(result))
    assert (np.diff(found.history["elbo"], axis=0) > 0).all()
    np.testing.assert_allclose(found.history["elbo"][-1], exact.history["elbo"][-1], rtol=0.02, atol=0.2)
    assert (found.history["elbo"] != exact.history["elbo"]).all()


def test_products_are_in_the_precision_asked_for_and_only_there(at_each_step):
    met, before = [], torch.get_float32_matmul_precision()
    at_each_step(lambda engine: met.append(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("medium")
    try:
        for precision in ("float32", "tf32", "bfloat16"):
            run([Member()], 1, batch_size=600, precision=precision)
        assert met == ["highest", "high", "highest"] and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestGPU:
    def test_replayed_steps_are_the_steps_themselves(self, monkeypatch):
        replayed = run(MIXED, 4, batch_size=MIXED_BATCH, device="cuda", snapshots=[4])
        monkeypatch.setattr(lockstep.Lockstep, "_replay", lockstep.Lockstep.step)
        eager = run(MIXED, 4, batch_size=MIXED_BATCH, device="cuda", snapshots=[4])
        assert_close(state(replayed), state(eager), 1e-4)

    def test_it_learns_as_on_a_cpu(self):
        """The noise is another, so the numbers agree no better than two seeds do."""
        cpu, gpu = (run(MIXED[:3], 20, device=device) for device in ("cpu", "cuda"))
        assert all(p.is_cuda for p in gpu.stack.parameters.values())
        np.testing.assert_allclose(gpu.history["elbo"][-1], cpu.history["elbo"][-1], rtol=0.05, atol=1)

    def test_it_goes_on_where_it_stopped(self, tmp_path):
        path, whole = tmp_path / "run.safetensors", run(MIXED, 4, device="cuda", snapshots=[1, 4])
        for _ in range(3):
            assert run(MIXED, 4, device="cuda", snapshots=[1, 4], path=path, budget=1e-9).stopped == "budget"
        assert_close(state(run(MIXED, 4, device="cuda", snapshots=[1, 4], path=path)), state(whole), 1e-4)

    def test_divergence_is_a_members_own(self):
        found, expected = (
            run([MIXED[0], Member(seed=1, beta=beta)], 4, device="cuda") for beta in (exploding, lambda elapsed: 1.0)
        )
        assert found.diverged.tolist() == [0, 3] and np.isnan(found.history["elbo"][2:, 1]).all()
        assert_close(state(found, slice(0, 1)), state(expected, slice(0, 1)), 1e-4)


# Arguments, and what the package needs

ABSENT = ("IPython", "ipykernel", "jupytext", "nbclient", "nbformat", "torchvision", "dask", "distributed")
ABSENT += ("matplotlib", "sklearn")
ALONE = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT})
import numpy as np
from functools import partial
from helpers import studies, train, vae
x = np.random.default_rng(0).integers(0, 256, (50, 6), np.uint8)
run = train.train(partial(vae.mlp, n=6, hidden=(4,), k=2), x, [train.Member()], 1, 10, snapshots=[1])
print(run.epoch, *run.snapshots[1])
"""


def test_it_trains_where_nothing_but_torch_and_the_core_is_installed():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", *collapse.UnitStatistics._fields]


def test_the_package_is_written_in_the_oldest_python_it_promises():
    for path in Path(helpers.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(), path.name, feature_version=(3, 11))


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": DIGITS.tolist()}, r"x is list; expected a uint8 or float32 array \(N, ...\)"),
        ({"x": DIGITS / 255}, r"x is float64 array of shape \(1797, 64\); expected a uint8 or float32 array"),
        ({"x": DIGITS[0]}, r"x is uint8 array of shape \(64,\); expected"),
        ({"x": DIGITS[:0]}, r"x is uint8 array of shape \(0, 64\); expected"),
        ({"x": np.float32([[0.0, np.nan]])}, r"x contains NaN or infinity, first nan at \[0, 1\]"),
        ({"members": []}, r"members is \[\]; expected a list of at least one Member"),
        ({"members": [{"seed": 0}]}, "expected a list of at least one Member"),
        ({"epochs": 0}, "epochs is 0; expected an integer from 1"),
        ({"epochs": 1.5}, "epochs is 1.5; expected an integer from 1"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer from 1 to 600"),
        ({"batch_size": 601}, "batch_size is 601; expected an integer from 1 to 600"),
        ({"snapshots": [0]}, "snapshots is 0; expected an integer from 1 to 3"),
        ({"snapshots": [1, 4]}, "snapshots is 4; expected an integer from 1 to 3"),
        ({"precision": "float16"}, r"precision is 'float16'; expected one of float32, tf32, bfloat16"),
        ({"device": "gpu"}, "device is 'gpu'; expected 'cpu' or 'cuda'"),
        ({"device": 1.5}, "device is 1.5; expected 'cpu' or 'cuda'"),
        ({"budget": "an hour"}, "budget is 'an hour'; expected numbers"),
        ({"budget": np.nan}, "budget contains NaN or infinity"),
        ({"build": partial(NETWORK, n=0)}, "n is 0; expected an integer from 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"members": [Member()]} | options)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda', but torch finds no GPU here; expected 'cpu'"):
        run([Member()], device="cuda")


# A run is what it says


def constant(value):
    return lambda elapsed: value


@dataclass(frozen=True)
class Rise:
    """A schedule that says what it is, though not how."""

    epochs: float

    def __call__(self, elapsed):
        return min(1.0, elapsed / self.epochs)


def test_two_schedules_of_one_name_are_two_runs(tmp_path):
    path = tmp_path / "run.safetensors"
    done = run([Member(beta=constant(1.0))], 2, path=path)
    for epochs in (2, 3):
        with pytest.raises(ValueError, match=r"belongs to another run: its beta is .*sha256"):
            run([Member(beta=constant(2.0))], epochs, path=path)
    assert_same_bits(state(run([Member(beta=constant(1.0))], 2, path=path)), state(done))
    assert_same_bits(
        state(run([Member(beta=constant(1.0))], 4, path=path)), state(run([Member(beta=constant(1.0))], 4))
    )


@pytest.mark.parametrize("epochs", [3, 4, 5])
def test_schedules_that_part_after_the_checkpoint_are_two_runs(epochs, tmp_path):
    path = tmp_path / "run.safetensors"

    def later(value):
        return lambda elapsed: 1.0 if elapsed < 3 else value

    run([Member(beta=later(1.0))], 4, path=path, budget=0)
    with pytest.raises(ValueError, match="belongs to another run: its beta is"):
        run([Member(beta=later(2.0))], epochs, path=path)
    assert run([Member(beta=later(1.0))], epochs, path=path).epoch == epochs


def test_a_schedule_whose_text_stays_while_it_changes_is_another(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run([Member(beta=Rise(1))], 2, path=path, budget=0)
    monkeypatch.setattr(Rise, "__call__", lambda self, elapsed: 0.5)
    with pytest.raises(ValueError, match="belongs to another run: its beta is"):
        run([Member(beta=Rise(1))], 2, path=path)


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


def test_beta_is_read_once_and_before_the_first_step():
    read = []
    result = run([Member(beta=lambda elapsed: read.append(elapsed) or float(len(read)))], 2)
    assert read == [epoch + step / 5 for epoch in range(2) for step in range(5)]
    assert result.history["beta"][:, 0].tolist() == [5.0, 10.0]


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf, 1e39, None, "1", True, 1j, [1.0, 2.0]])
def test_every_beta_is_checked_before_it_trains(value, at_each_step):
    at_each_step(lambda engine: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=r"beta of members\[1\].* epoch 3"):
        run([Member(), Member(beta=lambda elapsed: value if elapsed >= 2.5 else 1.0)], 3)


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


def test_a_schedule_longer_than_the_run_is_said_so():
    with pytest.warns(UserWarning, match=r"beta of members\[1\] comes to its end after 100 epochs; the run has 1"):
        run([Member(), Member(beta=LinearAnnealing(100))], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run([Member(beta=LinearAnnealing(2))], 2)


def test_a_checkpoint_that_is_further_or_has_other_snapshots_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run([Member()], 4, snapshots=[1, 3], path=path)
    content = path.read_bytes()
    for epochs, snapshots, message in (
        (3, [1, 3], "its epochs is 4; expected at most 3"),
        (4, [1], r"its snapshots is \[1, 3\]; expected \[1\]"),
        (5, [1, 2, 3], r"its snapshots is \[1, 3\]; expected \[1, 2, 3\]"),
        (5, [], r"its snapshots is \[1, 3\]; expected \[\]"),
    ):
        with pytest.raises(ValueError, match=f"belongs to another run: {message}"):
            run([Member()], epochs, snapshots=snapshots, path=path)
        assert path.read_bytes() == content
    assert sorted(run([Member()], 5, snapshots=[3, 1, 5], path=path).snapshots) == [1, 3, 5]


def in_format_1(path, change=lambda settings: settings):
    """Rewrite a checkpoint as format 1 had it."""
    with safe_open(path, "pt") as file:
        state, tensors = json.loads(file.metadata()["state"]), {name: file.get_tensor(name) for name in file.keys()}
    state["format"] = 1
    del state["settings"]["beta"]
    state["settings"]["network"] = str(NETWORK())
    state["settings"] = change(state["settings"])
    reseal(path, state, tensors)


def reseal(path, state, tensors):
    text = json.dumps(state)
    save_file(tensors, path, metadata={"state": text, "digest": checkpoint._digest(text, tensors)})


def test_format_1_goes_on_bit_for_bit(tmp_path):
    path, members = tmp_path / "run.safetensors", [*MIXED[:4]]
    run(members, 2, snapshots=[1], path=path)
    in_format_1(path)
    found = run(members, 4, snapshots=[1, 3], path=path)
    assert_same_bits(state(found), state(run(members, 4, snapshots=[1, 3])))


def test_a_beta_of_format_1_is_judged_by_its_history(tmp_path):
    path = tmp_path / "run.safetensors"
    run([Member(beta=constant(1.0))], 2, path=path)
    in_format_1(path)
    with pytest.raises(ValueError, match=r"its beta of members\[0\] in epoch 1 is 1.0; expected 100.0"):
        run([Member(beta=constant(100.0))], 3, path=path)
    assert run([Member(beta=constant(1.0))], 3, path=path).epoch == 3


def test_another_network_of_format_1_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run([Member()], 1, path=path)
    in_format_1(path)
    with pytest.raises(ValueError, match="belongs to another run: its network is"):
        run([Member()], 2, path=path, build=partial(NETWORK, activation=nn.ReLU))


def test_a_networks_identity_is_not_torchs_text_of_it(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run([Member()], 1, path=path, build=partial(NETWORK, activation=partial(nn.LeakyReLU, 0.1)))
    monkeypatch.setattr(nn.Linear, "extra_repr", lambda self: "as another release prints it")
    with pytest.raises(ValueError, match="belongs to another run: its network is"):
        run([Member()], 2, path=path, build=partial(NETWORK, activation=partial(nn.LeakyReLU, 0.2)))
    assert run([Member()], 2, path=path, build=partial(NETWORK, activation=partial(nn.LeakyReLU, 0.1))).epoch == 2


def without(name):
    return lambda state, tensors: (state.pop(name, None), tensors.pop(name, None))


def put(name, value):
    return lambda state, tensors: state.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("epoch"), "no whole checkpoint: it lacks 'epoch'"),
        (without("seconds"), "lacks 'seconds'"),
        (without("diverged"), "lacks 'diverged'"),
        (without("settings"), "settings are missing"),
        (without("format"), "is of format None; expected one from 1 to"),
        (without("history/kl"), "lacks 'history/kl'"),
        (without("parameter/log_sigma2"), "lacks 'parameter/log_sigma2'"),
        (without("snapshot/1/quantile"), "belongs to another run: its snapshot after epoch 1"),
        (put("epoch", 10**9), r"no whole checkpoint: its (history|diverged).*"),
        (put("epoch", "1"), "its epoch is '1'; expected an integer"),
        (put("epoch", -1), "its epoch is -1"),
        (put("format", 7), "is of format 7; expected one from 1 to"),
        (put("format", True), "is of format True"),
        (put("seconds", "long"), "its seconds is 'long'"),
        (put("seconds", float("nan")), "its seconds is nan"),
        (put("stopped", 3), "its stopped is 3"),
        (put("diverged", [0, 0]), r"its diverged is \[0, 0\]; expected an epoch for each of 1 members"),
        (put("diverged", [99]), "its diverged is 99"),
        (lambda state, tensors: state["settings"].update(more=1), "has a setting 'more', which this one has not"),
        (lambda state, tensors: state["settings"].update(beta=[{"epochs": "2"}]), "its beta is"),
        (lambda state, tensors: state["settings"].update(network=[["", "VAE"]]), "its network is"),
        (lambda state, tensors: tensors.update({"snapshot/9/kl": torch.zeros(1, 2)}), "snapshot/9/kl"),
        (lambda state, tensors: tensors.update({"parameter/log_sigma2": torch.zeros(2)}), "parameter/log_sigma2 is"),
    ],
)
def test_a_checkpoint_that_was_sealed_anew_is_refused_by_name(change, message, tmp_path):
    path = tmp_path / "run.safetensors"
    run([Member()], 2, snapshots=[1], path=path)
    with safe_open(path, "pt") as file:
        state, tensors = json.loads(file.metadata()["state"]), {name: file.get_tensor(name) for name in file.keys()}
    change(state, tensors)
    reseal(path, state, tensors)
    with pytest.raises(ValueError, match=message) as error:
        run([Member()], 3, snapshots=[1], path=path)
    assert str(path) in str(error.value)


def test_a_checkpoint_that_may_not_be_read_says_so(saved, monkeypatch):
    path, result = saved

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbidden)
    refused(path, result, "cannot be read: Permission denied")


# Two at once


def test_a_second_run_of_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    with checkpoint.alone(path):
        with pytest.raises(OSError, match=r"run\.safetensors is being written by another run; wait for it, or stop it"):
            run([Member()], 1, path=path)
        assert run([Member()], 1, path=tmp_path / "other.safetensors").epoch == 1
    assert run([Member()], 1, path=path).epoch == 1
    assert not [found for found in tmp_path.iterdir() if "lock" in found.name]


HOLD = """
import sys, time
from helpers import checkpoint
with checkpoint.alone(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_no_lock_and_no_part(tmp_path):
    path = tmp_path / "run.safetensors"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match="another run"):
            run([Member()], 1, path=path)
        holder.kill()
    for part in (tmp_path / ".run.safetensors.abc.part", tmp_path / ".other.abc.part"):
        part.mkdir()
        (part / "checkpoint").write_text("cut short")
    (tmp_path / "run.safetensors.part").write_text("as format 1 called it")
    run([Member()], 1, path=path)
    assert sorted(found.name for found in tmp_path.iterdir()) == [".other.abc.part", "run.safetensors"]


def test_a_lock_that_its_holder_has_removed_is_none(tmp_path, monkeypatch):
    """One opens the file, its holder removes it, a third makes a new one: the first must ask again, and is refused."""
    path, flock = tmp_path / "run.safetensors", fcntl.flock
    with contextlib.ExitStack() as third:

        def meanwhile(descriptor, operation):
            monkeypatch.setattr(fcntl, "flock", flock)
            (tmp_path / ".run.safetensors.lock").unlink()
            third.enter_context(checkpoint.alone(path))
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", meanwhile)
        with pytest.raises(BlockingIOError, match="another run"), checkpoint.alone(path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_writers_never_damage_a_checkpoint(saved):
    path, result = saved
    stop, written = threading.Event(), []

    def write():
        while not stop.is_set():
            checkpoint.save(path, result, {"settings": 1})
            written.append(threading.get_ident())

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            checkpoint.load(path, result, {"settings": 1})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert list(path.parent.iterdir()) == [path]
    assert [written.count(thread) > 10 for thread in set(written)] == [True, True]  # neither met an error


# Networks that do not fit, data that might mean something else, devices


class Wrong(vae.VAE):
    def __init__(self, decoder=None, encoder=None):
        super().__init__(encoder or nn.Linear(64, 6), decoder or nn.Linear(3, 64))


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Wrong(nn.Linear(3, 1)), r"the decoder's output has shape \(2, 1\); expected x's, \(2, 64\)"),
        (
            lambda: Wrong(nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (8, 8)))),
            r"\(2, 8, 8\); expected x's, \(2, 64\)",
        ),
        (lambda: Wrong(nn.Linear(4, 64)), r"does not fit x, of shape \(64,\) a sample"),
        (lambda: Wrong(encoder=nn.Linear(63, 6)), r"does not fit x, of shape \(64,\) a sample"),
        (lambda: Wrong(encoder=nn.Linear(64, 7)), r"the encoder's output has shape \(2, 7\); expected \(B, 2k\)"),
        (lambda: Wrong(Pair(3, 64)), "the decoder's output is tuple, .*; expected a tensor"),
        (lambda: Wrong(encoder=Pair(64, 6)), "the encoder's output is tuple"),
        (lambda: Wrong(Noisy(3, 64)), "draws random numbers; expected a function of its input alone"),
        (lambda: Wrong(nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.1))), "decoder.1, a Dropout, which draws"),
        (lambda: NETWORK().double(), "parameters of torch.float64; expected torch.float32"),
        (lambda: nn.Linear(3, 3), "build makes Linear.*; expected a VAE"),
        (lambda: None, "build makes None; expected a VAE"),
        (NETWORK(), "build is VAE"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_it_trains(build, message, at_each_step):
    at_each_step(lambda engine: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=message):
        run([Member(), Member(seed=1)], build=build)


BATCH = np.float32(DIGITS[:600]) / 16


@pytest.mark.parametrize("kind", ["tensor", "parameter", "frame", "Fortran order", "memory map", "strided"])
def test_data_that_are_float32_or_bytes_train_exactly(kind, tmp_path):
    mapped = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=BATCH.shape)
    mapped[:] = BATCH
    same = {
        "tensor": torch.tensor(BATCH),
        "parameter": nn.Parameter(torch.tensor(BATCH)),
        "frame": pd.DataFrame(BATCH),
        "Fortran order": np.asfortranarray(BATCH),
        "memory map": mapped,
        "strided": np.repeat(BATCH, 2, axis=0)[::2],
    }
    assert_same_bits(state(run([Member()], 1, x=same[kind])), state(run([Member()], 1, x=BATCH)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_equal(DIGITS[:600], 0), "x is a masked array; expected a uint8 or float32 array"),
        (scipy.sparse.csr_matrix(BATCH), "x is sparse; expected a uint8 or float32 array"),
        (torch.tensor(BATCH).to_sparse(), "x is sparse"),
        (torch.tensor(BATCH).double(), "x is float64 array of shape .*take .astype of the one you mean"),
        (torch.tensor(BATCH).bfloat16(), "x is float64 array"),
        (DIGITS[:600].astype(np.int64), "x is int64 array of shape .*take .astype of the one you mean"),
        (DIGITS[:600] > 3, "x is boolean"),
        (BATCH + 1j, "x is complex"),
        (BATCH * np.float32(1e30), "x has entries up to 1.59e[+]31, whose squares float32 cannot hold"),
        (np.float32([[0, np.inf]]), r"x contains NaN or infinity, first inf at \[0, 1\]"),
    ],
)
def test_data_that_might_mean_something_else_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        run([Member()], x=x)


@pytest.mark.parametrize(
    "device", ["cpu:3", "xpu", "mps", "hpu:0", "meta", "cuda:9", torch.device("xpu", 1), 0, None, "tpu"]
)
def test_a_device_that_is_not_there_is_one_line_that_names_what_is(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        ValueError, match=r"^device is .*; expected 'cpu'( or 'cuda:0' or 'cuda:1'$| or 'cuda', or)"
    ) as error:
        run([Member()], device=device)
    assert "\n" not in str(error.value)


class NoFloat64(TorchDispatchMode):
    """A device that knows no float64, as Apple's: what `Tensor.cpu` gives lies on the host, and all else on it."""

    def __init__(self, patch):
        super().__init__()
        cpu = torch.Tensor.cpu
        patch.setattr(torch.Tensor, "cpu", lambda tensor: self.take(cpu(tensor).clone()))
        patch.setattr(lockstep, "has_float64", lambda device: False)
        patch.setattr(experiments, "has_float64", lambda device: False)

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


def test_no_float64_lies_on_a_device_that_knows_none(monkeypatch):
    """As any other run does, to the digits of float32; the sums of an epoch to more."""
    options = {"snapshots": [2], "batch_size": 50}
    expected = run(MIXED[:4], 2, **options)
    with NoFloat64(monkeypatch):
        with pytest.raises(TypeError, match="knows no float64"):
            torch.zeros(1).double()
        found = run(MIXED[:4], 2, **options)
    assert_close(state(found), state(expected), 1e-6)
    assert found.history["elbo"].dtype == np.float64


def test_it_is_evaluated_on_the_host_where_the_device_knows_no_float64(monkeypatch):
    evaluate = collapse.evaluate

    def on_the_host(*arguments):
        with _disable_current_modes():
            return evaluate(*arguments)

    model, moved, to = NETWORK(), [], nn.Module.to
    expected = experiments._evaluate(model, DIGITS[:100], "cpu")
    monkeypatch.setattr(collapse, "evaluate", on_the_host)
    monkeypatch.setattr(nn.Module, "to", lambda module, device: moved.append(device) or to(module, device))
    with NoFloat64(monkeypatch):
        found = experiments._evaluate(model, DIGITS[:100], "cpu")
    assert moved == ["cpu"] and found["elbo"] == expected["elbo"]


def test_sums_in_two_parts_lose_nothing_that_matters(monkeypatch):
    values = np.random.default_rng(0).standard_normal((20_000, 3)).astype(np.float32) * np.float32([1, 1e4, 1e-3])
    values[::2] += np.float32(1e4)
    exact = values.sum(axis=0, dtype=np.longdouble)
    monkeypatch.setattr(lockstep, "has_float64", lambda device: False)
    sums, plain = lockstep._Sums(3, device=torch.device("cpu")), torch.zeros(3)
    for row in torch.tensor(values):
        sums.add_(row)
        plain += row
    assert sums.total().dtype == torch.float64
    np.testing.assert_allclose(sums.total(), exact.astype(float), rtol=1e-11)
    assert np.abs(plain.numpy() / exact.astype(float) - 1).max() > 1e-7  # a float32 alone does lose digits
    sums.zero_()
    assert (sums.total() == 0).all()


def test_devices_are_named_as_they_are(monkeypatch):
    assert experiments._name(torch.device("cpu")).startswith("cpu ")
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: f"Arc {device.index}", raising=False)
    assert experiments._name(torch.device("xpu", 1)) == "Arc 1"
    assert experiments._name(torch.device("mps")).startswith("mps ")
