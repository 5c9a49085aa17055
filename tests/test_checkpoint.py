"""Checkpoints: whole, of one run and no other, of one writer at a time, in both formats."""

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
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from training import DIGITS, MIXED, NETWORK, Rise, assert_same_bits, constant, run, state

from helpers import checkpoint, vae
from helpers.ensemble import LinearAnnealing, Member

pytestmark = [
    pytest.mark.usefixtures("no_bars"),
    pytest.mark.filterwarnings("ignore:beta of members"),  # runs cut short on purpose
]


DIGEST_ERROR = "is damaged|is no readable checkpoint"


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
    save_file(tensors, path, metadata={"state": text, "digest": checkpoint._seal(text, tensors)})


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


def test_a_write_that_was_cut_short_is_as_if_it_had_not_been(tmp_path):
    path, whole = tmp_path / "run.safetensors", run(MIXED[:2], 4, snapshots=[1, 3])
    run(MIXED[:2], 2, snapshots=[1], path=path)
    path.with_name(path.name + ".part").write_bytes(path.read_bytes()[:1000])
    resumed = run(MIXED[:2], 4, snapshots=[1, 3], path=path)
    assert_same_bits(state(resumed), state(whole))
    assert list(tmp_path.iterdir()) == [path]
