"""The training loop against a textbook's, the linear VAE's optimum, and itself after every kind of interruption."""

import ast
import os
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import run_training
import scipy.sparse
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from training import DIGITS, MIXED, NETWORK, assert_close, assert_same_bits, exploding, run, state

import helpers
from helpers import checkpoint, collapse, data, lockstep, ppca, train, vae
from helpers.ensemble import LinearAnnealing, Member
from helpers.moments import Moments

pytestmark = [
    pytest.mark.usefixtures("no_bars"),
    pytest.mark.filterwarnings("ignore:beta of members"),  # runs cut short on purpose
]


# One member at a time, and a textbook's loop

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


# Divergence, precision, devices


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
from helpers import cli, ensemble, train, vae
x = np.random.default_rng(0).integers(0, 256, (50, 6), np.uint8)
run = train.train(partial(vae.mlp, n=6, hidden=(4,), k=2), x, [ensemble.Member()], 1, 10, snapshots=[1])
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


def test_a_schedule_longer_than_the_run_is_said_so():
    with pytest.warns(UserWarning, match=r"beta of members\[1\] comes to its end after 100 epochs; the run has 1"):
        run([Member(), Member(beta=LinearAnnealing(100))], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run([Member(beta=LinearAnnealing(2))], 2)


# Two at once


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
