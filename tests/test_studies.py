"""Studies: what a run records, and the command with its exit codes, stopped, resumed, in parts and on a cluster."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import torch

from helpers import _files, data, experiments, records, studies, vae
from helpers import train as train_module
from helpers.designs import Study
from helpers.experiments import Plan
from helpers.lockstep import PRECISIONS, Lockstep
from helpers.train import LinearAnnealing, Member, train

MEMBERS = (
    Member(sigma2=0.01, learning_rate=0.01),
    Member(seed=1, sigma2=0.1, beta=LinearAnnealing(2)),
    Member(seed=2, sigma2_rule="adam"),
    Member(seed=3, sigma2_rule="closed form"),
)
PLAN = Plan("digits", partial(vae.mlp, n=64, hidden=(8,), k=4), MEMBERS, epochs=3, batch_size=256, snapshots=(1, 3))
FLAWED = dataclasses.replace(PLAN, members=(Member(), Member(seed=2**31), Member(seed=2)))
STUDIES = {"tiny": Study("A question", {"quick": PLAN}), "flawed": Study("Its second block fails", {"quick": FLAWED})}


@pytest.fixture(autouse=True)
def one_thread():
    """As in the workers of a cluster: sums in several threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command with `STUDIES`, writing to `tmp_path`: its exit code, what it printed, and its errors."""
    for name, study in STUDIES.items():
        monkeypatch.setitem(studies.STUDIES, name, study)

    def call(text, **options):
        options = [f"--{name}={value}" for name, value in options.items()]
        code = studies.main([*text.split(), *([] if text == "list" else [f"--out={tmp_path}"]), *options])
        return code, *capsys.readouterr()

    return call


@functools.cache
def whole():
    """The record of `PLAN`, undisturbed, and its run."""
    return experiments.run(PLAN, "tiny", "quick")


def assert_same_values(a, b):
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What a run records


def test_the_record_says_what_was_trained_and_how():
    record, run = whole()
    assert dict(record.sizes) == {"member": 4, "epoch": 3, "unit": 4, "snapshot": 2}
    described = [member.describe() for member in MEMBERS]
    for key in described[0]:
        assert record[f"set_{key}"].values.tolist() == [row[key] for row in described]
    assert record.epoch.values.tolist() == [1, 2, 3] and record.snapshot.values.tolist() == [1, 3]
    for name, values in run.history.items():
        np.testing.assert_array_equal(record[f"history_{name}"], values.astype(np.float32))
    assert (record.attrs["study"], record.attrs["profile"]) == ("tiny", "quick")
    (part,) = records.parts(record)
    assert set(part) == set(records.PROVENANCE)
    assert part["members"] == [0, 4]
    assert part["settings"] == {
        "data": "digits",
        "network": {"name": "mlp", "n": 64, "hidden": [8], "k": 4},
        "epochs": 3,
        "batch_size": 256,
        "snapshots": [1, 3],
        "pictures": [],
    }
    assert part["data_sha256"] == _files.sha256(data.digits_bytes())
    assert part["commit"] == experiments.commit()
    assert part["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert part["device"].startswith("cpu ") and part["precision"] == "float32"
    assert part["seconds"] == pytest.approx(run.seconds, abs=0.1)
    assert part["samples_per_second"] == pytest.approx(4 * 3 * 7 * 256 / run.seconds, abs=1)
    assert datetime.fromisoformat(part["date"]).utcoffset().total_seconds() == 0


def test_the_record_evaluates_the_trained_networks_on_all_data():
    record, run = whole()
    n, sigma2 = 64, record.sigma2.values
    for name in experiments.UNITS:  # the last snapshot was taken by the training itself
        np.testing.assert_allclose(record[name], record[f"snapshot_{name}"][-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(record.kl, record.kl_per_unit.sum("unit"), rtol=1e-5)
    np.testing.assert_allclose(record.sigma2, run.history["sigma2"][-1], rtol=1e-6)
    elbo = -n / 2 * np.log(2 * np.pi * sigma2) - record.sse / (2 * sigma2) - record.kl
    np.testing.assert_allclose(record.elbo, elbo)
    x = torch.tensor(data.digits_bytes()) / 255
    model = run.stack.member(0)
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(len(x), 4, generator=generator) for _ in range(16)]
    with torch.no_grad():
        sse = float(np.mean([model(x, draw)[0].mean() for draw in noise]))
    assert float(record.sse[0]) == pytest.approx(sse, rel=0.02)  # two Monte-Carlo estimates


def test_every_batch_is_evaluated(monkeypatch):
    x = np.concatenate([data.digits_bytes(), 255 - data.digits_bytes()])
    monkeypatch.setitem(experiments.DATA, "digits", lambda: x)
    record, _ = experiments.run(PLAN, "tiny", "quick", range(1))
    np.testing.assert_allclose(record.kl_per_unit, record.snapshot_kl_per_unit[-1], rtol=1e-5)


def test_snapshots_are_in_order_after_a_checkpoint(tmp_path):
    long = dataclasses.replace(PLAN, epochs=11, batch_size=1797, snapshots=(2, 10))
    experiments.run(dataclasses.replace(long, epochs=10), "tiny", "quick", range(1), path=tmp_path / "checkpoint")
    resumed, _ = experiments.run(long, "tiny", "quick", range(1), path=tmp_path / "checkpoint")
    assert resumed.snapshot.values.tolist() == [2, 10]
    assert_same_values(resumed, experiments.run(long, "tiny", "quick", range(1))[0])


def test_blocks_of_members_merge_into_the_same_record():
    blocks = [experiments.run(PLAN, "tiny", "quick", range(*block))[0] for block in ((2, 4), (0, 2))]
    merged = records.merge([records.from_bytes(records.to_bytes(block)) for block in blocks])
    for name in merged.variables:
        values, expected = merged[name].values, whole()[0][name].values
        if values.dtype.kind == "f":  # a batched product may round otherwise in another company
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(values, expected, err_msg=name)
    assert merged.member.values.tolist() == [0, 1, 2, 3]


def test_a_member_that_cannot_be_evaluated_is_recorded_as_nan():
    wild = Member(learning_rate=1000, sigma2=1e-3, sigma2_rule="adam")  # log sigma2 becomes thousands
    plan = dataclasses.replace(PLAN, members=(wild, Member()))
    record, run = experiments.run(plan, "tiny", "quick")
    assert run.diverged.tolist() == [0, 0]
    for name in experiments.FINAL + experiments.UNITS:
        assert np.isnan(record[name].values[0]).all() and np.isfinite(record[name].values[1]).all()
    assert "nan" in studies.table(record)
    records.from_bytes(records.to_bytes(record))


def test_a_seed_the_file_cannot_hold_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr(experiments, "train", None)
    with pytest.raises(ValueError, match=r"a member's seed is 2147483648; expected below 2\^31"):
        experiments.run(FLAWED, "flawed", "quick")


def test_table_says_which_members_diverged():
    record = whole()[0].copy(deep=True)
    record.diverged[1] = 2
    head, *rows = studies.table(record).splitlines()
    assert head.split()[:3] == ["member", "sigma2", "sigma2_rule"] and len(rows) == 4
    assert "LinearAnnealing(epochs=2)" in rows[1] and rows[1].endswith("diverged in epoch 2")
    assert "diverged" not in rows[0] + rows[2]


@pytest.mark.parametrize(("name", "profile"), [(n, p) for n, study in studies.STUDIES.items() for p in study.plans])
def test_every_plan_can_be_run_and_recorded(name, profile):
    assert profile in ("quick", "laptop", "paper") and studies.STUDIES[name].title
    try:
        plan = studies.find(name, profile)
    except ValueError as error:
        pytest.skip(str(error))  # it follows from a record that is not there yet
    assert plan.data in experiments.DATA and len(plan.members) == len(set(map(repr, plan.members)))
    assert max(member.seed for member in plan.members) < 2**31
    assert all(1 <= epoch <= plan.epochs for epoch in plan.snapshots) and plan.precision in PRECISIONS
    assert json.loads(json.dumps(plan.settings())) == plan.settings()
    with torch.device("meta"):
        assert isinstance(plan.network(), vae.VAE)


def test_dequantised_digits_are_the_digits_with_noise():
    x, grey = experiments.DATA["digits-dequantised"](), data.digits() * 16
    assert x.shape == (1797, 64) and x.dtype == np.float32 and 0 <= x.min() and x.max() < 1
    np.testing.assert_array_equal(np.floor(x.astype(np.float64) * 17), grey)
    noise = x * 17 - grey
    assert noise.mean() == pytest.approx(0.5, abs=0.005) and noise.var() == pytest.approx(1 / 12, abs=0.002)
    np.testing.assert_array_equal(experiments.DATA["digits-dequantised"](), x)


# Where the code comes from


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, that of `experiments.commit`."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    for name in ("BOOK_COMMIT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    package = tmp_path / "book" / "helpers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(experiments, "__file__", str(package / "experiments.py"))

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(package.parent), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return package, git


def test_commit_is_that_of_the_package(repository):
    package, git = repository
    assert experiments.commit() == "unknown"
    git("init")
    (package.parent / "other.txt").write_text("the repository the package was installed into")
    git("add", "other.txt")
    git("commit", "-m", "another project's")
    assert experiments.commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "the package's")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40 and experiments.commit() == head
    (package.parent / "other.txt").write_text("no part of the package")
    assert experiments.commit() == head
    (package / "__init__.py").write_text("changed")
    assert experiments.commit() == head + "+changes"


def test_commit_may_be_said(repository, monkeypatch):
    monkeypatch.setenv("BOOK_COMMIT", "abc123")
    assert experiments.commit() == "abc123"


def test_commit_is_that_of_the_start(monkeypatch):
    said = iter(["first", "second"])
    monkeypatch.setattr(experiments, "commit", lambda: next(said))
    monkeypatch.setattr(experiments, "train", lambda *a, **k: (experiments.commit(), train(*a, **k))[1])
    record, _ = experiments.run(PLAN, "tiny", "quick", range(1))
    assert records.parts(record)[0]["commit"] == "first"


# The command


@pytest.mark.parametrize(
    ("text", "expected"),
    [(":", (0, 6)), ("0:6", (0, 6)), ("2:4", (2, 4)), ("4:", (4, 6)), (":1", (0, 1)), ("05:6", (5, 6))],
)
def test_members_from_a_range(text, expected):
    assert studies.members_from(text, 6) == range(*expected)


@pytest.mark.parametrize(
    "text", ["", "3", "0:7", "6:", "3:3", "4:2", "-1:", ":-1", "0:0", "a:b", "0:4:2", "1.5:2", " 1:2", "1:2\n"]
)
def test_members_from_anything_else(text):
    with pytest.raises(ValueError, match=r"members is .*; expected a range like 0:6, within the 6 members there are"):
        studies.members_from(text, 6)


def test_list_prints_every_study_and_profile(command):
    code, printed, _ = command("list")
    assert code == 0
    for name, study in studies.STUDIES.items():
        assert f"{name}: {study.title}" in printed
    assert printed.count("\n    ") == sum(len(study.plans) for study in studies.STUDIES.values())
    assert "    quick: 4 members, 3 epochs of digits" in printed


def test_run_records_and_show_prints(command, tmp_path):
    code, printed, _ = command("run tiny")
    assert code == 0
    assert names(tmp_path) == ["tiny-quick-0-4.nc", "tiny-quick-0-4.safetensors", "tiny-quick.nc"]
    record = records.load(tmp_path / "tiny-quick.nc")
    assert_same_values(record, whole()[0])
    assert studies.table(record) in printed and "tiny-quick-0-4.nc" in printed
    code, printed, _ = command("show tiny")
    assert code == 0 and printed.endswith(studies.table(record) + "\n")
    assert "members [0, 4], device cpu" in printed and f"commit {experiments.commit()}" in printed


def test_what_was_run_is_not_run_again(command, tmp_path):
    command("run tiny --members 0:2")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for again in ("run tiny --members 0:2", "run tiny", "run tiny --members 1:2"):
        code, _, error = command(again)
        assert code == 1 and "were begun before: " in error and "Resume, or remove it" in error
    code, _, error = command("resume tiny")
    assert code == 1 and "members 0:4 are partly done" in error and "tiny-quick-0-2.nc has [0, 1]" in error
    for recorded in ("resume tiny --members 0:2", "resume tiny --members 1:2"):
        assert command(recorded)[0] == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "tiny-quick-0-2.nc").unlink()
    code, _, error = command("run tiny --members 0:2")
    assert code == 1 and "tiny-quick-0-2.safetensors exists" in error


def test_calls_for_some_members_become_one_record(command, tmp_path):
    assert command("run tiny --members 2:4")[0] == 0
    assert not (tmp_path / "tiny-quick.nc").exists()
    code, printed, _ = command("show tiny")
    assert code == 0 and "members [2, 4]" in printed and len(printed.splitlines()) == 4
    code, printed, _ = command("run tiny --members :2")
    assert code == 0 and f"all 4 members: {tmp_path / 'tiny-quick.nc'}" in printed
    record = records.load(tmp_path / "tiny-quick.nc")
    assert [part["members"] for part in records.parts(record)] == [[0, 2], [2, 4]]
    assert record.member.values.tolist() == [0, 1, 2, 3]
    shown = command("show tiny")
    for path in tmp_path.glob("tiny-quick-*-*"):
        path.unlink()
    assert command("show tiny") == shown
    assert command("run tiny")[0] == 1
    assert command("resume tiny")[0] == 0


def test_a_run_out_of_time_is_resumed_to_the_same_numbers(command, tmp_path):
    for verb, epoch in (("run", 1), ("resume", 2)):
        code, _, error = command(f"{verb} tiny", budget=1e-9)
        assert code == 3 and f"stopped (budget) after epoch {epoch} of 3; `resume` goes on" in error
        assert names(tmp_path) == ["tiny-quick-0-4.safetensors"]
    assert command("resume tiny", budget=1000)[0] == 0
    assert_same_values(records.load(tmp_path / "tiny-quick.nc"), whole()[0])


def test_nothing_to_resume(command, tmp_path):
    code, _, error = command("resume tiny --members 0:2")
    assert code == 1 and "members 0:2 cannot be resumed" in error and "no checkpoint like tiny-quick-0-2" in error
    assert names(tmp_path) == []


def test_precision_replaces_the_plans(command, tmp_path):
    assert command("run tiny --members 0:1", precision="bfloat16")[0] == 0
    record = records.load(tmp_path / "tiny-quick-0-1.nc")
    assert records.parts(record)[0]["precision"] == "bfloat16"
    plan = dataclasses.replace(PLAN, precision="bfloat16")
    assert_same_values(record, experiments.run(plan, "tiny", "quick", range(1))[0])
    assert not np.array_equal(record.elbo, whole()[0].elbo[:1])


def test_obtain_prefers_the_packages_record(command, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "files", lambda name: tmp_path)
    assert_same_values(studies.obtain("tiny", device="cpu"), whole()[0])
    packaged = records.merge([whole()[0].isel(member=[0])])
    records.save(packaged, tmp_path / "recorded" / "tiny-quick.nc")
    assert_same_values(studies.obtain("tiny"), packaged)
    assert_same_values(studies.obtain("tiny", device="cpu", rerun=True), whole()[0])


def test_show_without_a_record(command, tmp_path):
    code, printed, error = command("show tiny")
    assert (code, printed) == (1, "")
    assert error == f"error: there is no record of tiny, profile quick, in {tmp_path}\n"


def test_show_finds_the_packages_record(command, tmp_path, monkeypatch):
    package = tmp_path / "package"
    monkeypatch.setattr(records, "files", lambda name: package)
    records.save(whole()[0], package / "recorded" / "tiny-quick.nc")
    code, printed, _ = command("show tiny")
    assert code == 0 and studies.table(whole()[0]) in printed


def test_show_refuses_a_damaged_record(command, tmp_path):
    content = bytearray(records.to_bytes(whole()[0]))
    content[-1] ^= 1
    (tmp_path / "tiny-quick-0-4.nc").write_bytes(content)
    for text in ("show tiny", "run tiny"):
        code, _, error = command(text)
        assert code == 1 and "tiny-quick-0-4.nc is damaged" in error


@pytest.mark.parametrize("verb", ["run", "resume", "show"])
def test_unknown_names_are_answered_with_what_there_is(verb, command):
    code, _, error = command(f"{verb} nonsense")
    assert code == 1 and "study is 'nonsense'; expected one of demo, " in error and "tiny" in error
    code, _, error = command(f"{verb} tiny", profile="paper")
    assert code == 1 and error == "error: profile is 'paper'; tiny has quick\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "walk tiny",
        "run",
        "run tiny --budget soon",
        "run tiny --block 0 --processes 1",
        "run tiny --processes 0",
        "run tiny --block 2",
        "resume tiny --block 1",
        "run tiny --budget -1",
        "run tiny --budget nan",
        "run tiny --budget inf",
        "run tiny --processes 2 --scheduler tcp://127.0.0.1:1",
        "run tiny --processes 2 --budget 5",
        "resume tiny --scheduler tcp://127.0.0.1:1 --budget 5",
    ],
)
def test_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        studies.main(text.split())
    assert stopped.value.code == 2 and "usage: python -m helpers.studies" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["", "list", "run", "resume", "show"])
def test_help(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        studies.main([*verb.split(), "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "Exit codes: 0 done; 1 failed" in printed
    expected = {"": ["list", "resume"], "list": [], "show": ["--profile", "--out"]}
    running = "--profile --device --precision --members --budget --out --scheduler --processes --block".split()
    assert all(option in printed for option in expected.get(verb, running))


def test_a_device_that_is_not_there(command, tmp_path):
    code, _, error = command("run tiny", device="gpu")
    assert code == 1 and "gpu" in error
    if not torch.cuda.is_available():
        code, _, error = command("run tiny", device="cuda")
        assert code == 1 and error == "error: device is 'cuda', but torch finds no GPU here; expected 'cpu'\n"
    assert names(tmp_path) == []


def test_data_that_is_not_there(command, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    plan = dataclasses.replace(PLAN, data="mnist", network=partial(vae.mlp, hidden=(8,)))
    monkeypatch.setitem(studies.STUDIES, "tiny", Study("A question", {"laptop": plan}))
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    code, _, error = command("run tiny", profile="laptop")
    assert code == 1 and "train-images-idx3-ubyte.gz is neither under $BOOK_DATA" in error
    assert "Download it elsewhere" in error and "set BOOK_DATA" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 128}, "belongs to another run: its batch_size is 256; expected 128"),
        ({"members": MEMBERS[1:] + MEMBERS[:1]}, "belongs to another run: its members is"),
        ({"network": partial(vae.mlp, n=64, hidden=(9,), k=4)}, "belongs to another run: its network is"),
        ({"precision": "bfloat16"}, "belongs to another run: its precision is 'float32'"),
        ({"epochs": 1, "snapshots": (1,)}, "belongs to another run: its epochs is 2; expected at most 1"),
        ({"snapshots": (2, 3)}, "belongs to another run: its snapshots is [1]; expected [2]"),
    ],
)
def test_a_checkpoint_of_another_plan(change, message, command, tmp_path, monkeypatch):
    for verb in ("run", "resume"):
        command(f"{verb} tiny", budget=1e-9)
    plan = dataclasses.replace(PLAN, **change)
    monkeypatch.setitem(studies.STUDIES, "tiny", Study("A question", {"quick": plan}))
    code, _, error = command("resume tiny")
    assert code == 1 and "tiny-quick-0-4.safetensors" in error and message in error
    assert names(tmp_path) == ["tiny-quick-0-4.safetensors"]


def test_a_damaged_checkpoint(command, tmp_path):
    (tmp_path / "tiny-quick-0-4.safetensors").write_bytes(b"nothing of use")
    code, _, error = command("resume tiny")
    assert code == 1 and "is no readable checkpoint" in error and "Remove it to start anew" in error


def test_records_of_another_plan_are_kept_apart(command, tmp_path, monkeypatch):
    command("run tiny --members 0:2")
    plan = dataclasses.replace(PLAN, epochs=2, snapshots=())
    monkeypatch.setitem(studies.STUDIES, "tiny", Study("A question", {"quick": plan}))
    code, _, error = command("run tiny --members 2:4")
    assert code == 1 and "records of different kinds: settings is" in error
    assert {"tiny-quick-0-2.nc", "tiny-quick-2-4.nc"} < set(names(tmp_path))
    assert not (tmp_path / "tiny-quick.nc").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "nc"])
def test_a_full_disk(suffix, command, tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith(suffix):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    command("run tiny", budget=1e-9)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        code, _, error = command("resume tiny")
    assert code == 1 and "could not be written: " in error and "No space left on device" in error
    if suffix == "safetensors":
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert names(tmp_path) == ["tiny-quick-0-4.safetensors"]
    assert command("resume tiny")[0] == 0
    assert_same_values(records.load(tmp_path / "tiny-quick.nc"), whole()[0])


def test_interrupted_at_once(command, monkeypatch):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "train", interrupted)
    code, _, error = command("run tiny")
    assert code == 130 and "`resume` goes on" in error


def test_the_module_is_a_command(tmp_path):
    call = [sys.executable, "-m", "helpers.studies", "run", "demo", "--members", "0:1", "--budget", "0.001"]
    done = subprocess.run([*call, "--out", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "stopped (budget) after epoch 1 of 60; `resume` goes on" in done.stderr
    assert names(tmp_path) == ["demo-quick-0-1.safetensors"]


# Signals, two at once, and where there is no torch

DRIVER = """
import sys, time
from helpers import lockstep, studies
epoch = lockstep.Lockstep.epoch

def slow(self, bar):
    epoch(self, bar)
    print("epoch", self.run.epoch, flush=True)
    time.sleep(0.5)

lockstep.Lockstep.epoch = slow
sys.exit(studies.main(sys.argv[1:]))
"""


def heed_signals():
    """Undo what nohup, or a shell that starts jobs in the background, has had this process ignore."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


started_here = partial(
    subprocess.Popen,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"TQDM_DISABLE": "1"},  # on a slow machine a bar would come between the lines
    preexec_fn=heed_signals,
)


@contextlib.contextmanager
def process(*arguments):
    """The command in a process of its own, that waits after each epoch and says so."""
    with started_here([sys.executable, "-c", DRIVER, *map(str, arguments)]) as child:
        try:
            yield child
        finally:
            child.kill()


DEMO = ("demo", "--members", "0:2", "--out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_at_the_end_of_an_epoch_and_what_is_left_is_done(number, tmp_path):
    with process("run", *DEMO, tmp_path) as child:
        assert child.stdout.readline() == "epoch 1\n"
        child.send_signal(number)
        printed, error = child.communicate()
    assert child.returncode == 3 and "Traceback" not in error
    assert "stopped (interrupt) after epoch" in error and "`resume` goes on" in error
    assert names(tmp_path) == ["demo-quick-0-2.safetensors"]
    with process("resume", *DEMO, tmp_path) as child:
        assert child.stdout.readline() == f"epoch {printed.count('epoch') + 2}\n"


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGTERM, signal.SIGTERM, 143), (signal.SIGINT, signal.SIGHUP, 129), (signal.SIGTERM, signal.SIGINT, 130)],
)
def test_a_second_signal_stops_at_once(first, second, code, tmp_path):
    with process("run", *DEMO, tmp_path) as child:
        assert child.stdout.readline() == "epoch 1\n"
        child.send_signal(first)
        assert "Stopping after this epoch" in child.stderr.readline()
        child.send_signal(second)
        _, error = child.communicate()
    assert child.returncode == code and "Traceback" not in error
    assert "interrupted; `resume` goes on from the last checkpoint" in error
    assert [name for name in names(tmp_path) if not name.endswith(".safetensors")] == []


def test_a_second_run_in_one_folder_is_refused_and_the_first_goes_on(tmp_path, command):
    with process("run", *DEMO, tmp_path) as child:
        assert child.stdout.readline() == "epoch 1\n"
        for verb in ("run", "resume"):
            if verb == "resume":
                (tmp_path / "demo-quick-1-2.safetensors").touch()  # as one that was begun
            code, _, error = command(f"{verb} demo --members 1:2")  # one that the first has too
            assert code == 1 and error.count("\n") == 1
            assert "demo-quick-1 is being written by another run; wait for it, or stop it" in error
        code, _, error = command("run demo --members 2:3", budget=0)
        assert code == 3
        assert child.stdout.readline().startswith("epoch ")
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 3
    (tmp_path / "demo-quick-1-2.safetensors").unlink()
    assert names(tmp_path) == ["demo-quick-0-2.safetensors", "demo-quick-2-3.safetensors"]


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path, command):
    with process("run", *DEMO, tmp_path) as child:
        assert child.stdout.readline() == "epoch 1\n"
        child.kill()
    assert names(tmp_path)  # its locks
    assert command("run demo --members 0:2", budget=0)[0] == 3
    assert names(tmp_path) == ["demo-quick-0-2.safetensors"]


def test_an_interrupt_while_importing_leaves_no_traceback(tmp_path):
    with started_here([sys.executable, "-X", "importtime", "-m", "helpers.studies", "list"]) as child:
        for line in child.stderr:
            if line.rstrip().endswith("torch.version"):
                child.send_signal(signal.SIGINT)
                break
        printed, error = child.communicate()
    assert child.returncode == 130 and printed == "" and "Traceback" not in error


def test_without_torch_the_command_says_which_extra_has_it():
    hidden = "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['studies', 'list']; "
    for code, message in (
        ("runpy.run_module('helpers.studies', run_name='__main__')", "error: helpers.studies needs torch"),
        ("import helpers.studies", "ModuleNotFoundError: helpers.studies needs torch"),
    ):
        done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.startswith(message)
        assert last.endswith("of the extra [deep]: pip install 'posterior-collapse-book[deep]'")
    assert (
        len(
            subprocess.run(
                [sys.executable, "-c", hidden + "runpy.run_module('helpers.studies', run_name='__main__')"],
                capture_output=True,
                text=True,
            ).stderr.splitlines()
        )
        == 1
    )


# What is refused before the training


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(experiments, "train", lambda *a, **k: pytest.fail("it trains"))


@pytest.mark.parametrize(
    "members",
    [[0, 1], (0, 1), range(0, 4, 2), range(3, 9), range(2, 2), range(-1, 2), range(3, -1, -1), 1, "0:2", slice(2)],
)
def test_members_that_are_no_range_of_the_plans(members, untrained, command):
    with pytest.raises(ValueError, match=r"^members is .*; expected a range of step 1 within range\(0, 4\)"):
        studies.run("tiny", members=members)


def test_a_folder_that_cannot_be_written_is_noticed_before_the_training(untrained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "tiny", STUDIES["tiny"])
    blocked = tmp_path / "a file"
    blocked.write_text("")
    for out in (blocked, blocked / "below"):
        assert studies.main(["run", "tiny", f"--out={out}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: --out {out} is no folder that can be written: ") and error.count("\n") == 1

    def forbidden(**options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(studies.tempfile, "TemporaryFile", forbidden)
    assert studies.main(["run", "tiny", f"--out={tmp_path}"]) == 1
    assert "is no folder that can be written: Permission denied" in capsys.readouterr().err


def test_a_budget_of_0_trains_one_epoch_and_says_so(command):
    code, _, error = command("run tiny", budget=0)
    assert code == 3 and "a budget of 0 trains one epoch\n" in error and "after epoch 1 of 3" in error


def test_a_record_under_anothers_name_is_refused(command, tmp_path):
    for name in ("tiny-quick.nc", "tiny-quick-0-4.nc"):
        other = records.seal(whole()[0].copy(), "flawed", "quick", records.parts(whole()[0]))
        records.save(other, tmp_path / name)
        for verb in ("show", "run", "resume"):
            code, _, error = command(f"{verb} tiny")
            assert code == 1 and f"{name} is a record of flawed, profile quick; expected one of tiny" in error
        (tmp_path / name).unlink()
    records.save(whole()[0].isel(member=[0, 1]), tmp_path / "tiny-quick-2-4.nc")
    code, _, error = command("resume tiny")
    assert code == 1 and "tiny-quick-2-4.nc is a record of members [0, 1]; expected those of its name" in error


def test_show_prints_nothing_raw(command, tmp_path):
    record = whole()[0].copy(deep=True)
    part = {**records.parts(record)[0], "device": "cpu\x1b[2J", "commit": "\r"}
    record["set_beta"] = ("member", np.array(["\x1b[31m", "1.0", "1.0", "1.0"]))
    records.save(records.seal(record, "tiny", "quick", [part]), tmp_path / "tiny-quick.nc")
    code, printed, _ = command("show tiny")
    assert code == 0 and printed.replace("\n", "").isprintable() and r"cpu\x1b[2J" in printed


def test_a_schedule_longer_than_the_run_is_said_on_the_command_line(command, monkeypatch):
    plan = dataclasses.replace(PLAN, members=(Member(), Member(beta=LinearAnnealing(100))))
    monkeypatch.setitem(studies.STUDIES, "tiny", Study("A question", {"quick": plan}))
    _, _, error = command("run tiny", budget=0)
    assert "warning: beta of members[1] comes to its end after 100 epochs; the run has 3\n" in error


def test_two_schedules_of_one_name_have_records_that_tell_them_apart(monkeypatch):
    schedules = [lambda elapsed, value=value: value for value in (0.5, 0.25)]
    plan = dataclasses.replace(PLAN, members=tuple(Member(beta=beta) for beta in schedules))
    one, other = experiments.run(plan, "tiny", "quick")[0].set_beta.values
    assert one != other and "sha256" in one and "of 3 epochs" in one


# What may end as NaN


def test_only_numbers_that_are_not_finite_end_as_nan(monkeypatch):
    def shapes(*arguments):
        raise ValueError("decode's output has shape (1797, 1); expected (1797, 64)")

    monkeypatch.setattr(experiments.collapse, "evaluate", shapes)
    with pytest.raises(ValueError, match=r"decode's output has shape \(1797, 1\)"):
        experiments.run(PLAN, "tiny", "quick", range(1))
    monkeypatch.setattr(train_module.collapse, "unit_statistics", shapes)
    with pytest.raises(ValueError, match=r"decode's output has shape"):
        train(PLAN.network, data.digits_bytes(), [Member()], 1, 256, snapshots=[1])


PLACES = {"mean": ("encoder.2.bias", 0), "logvar": ("encoder.2.bias", -1), "output": ("decoder.2.bias", 0)}
PLACES["sigma2"] = ("log_sigma2", 0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1000.0, -1000.0])
def test_a_member_beyond_what_floats_hold_is_nan_throughout(place, value):
    model, (name, i) = PLAN.network(), PLACES[place]
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[i] = value
    found = experiments._evaluate(model, data.digits_bytes()[:50], "cpu")
    finite = abs(value) == 1000 and place in ("mean", "output")
    assert all(np.isfinite(one).all() if finite else np.isnan(one).all() for one in found.values())


# On a cluster


@functools.cache  # dask runs what it preloads twice
def prepare_worker(folder):
    """What each worker of `cluster` does first: from then on it counts its epochs, and it may have to die."""
    studies.STUDIES.update(STUDIES)
    epoch, evaluate, sign = Lockstep.epoch, experiments._evaluate, Path(folder) / "one is to die"

    def counted(*arguments):
        with (Path(folder) / "epochs").open("a") as file:
            file.write("x")
        epoch(*arguments)

    def mortal(*arguments):
        with contextlib.suppress(FileNotFoundError):
            sign.unlink()  # by the first that comes along
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(*arguments)

    Lockstep.epoch, experiments._evaluate = counted, mortal


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers on the loopback device, and the folder whose signs they heed."""
    folder = tmp_path_factory.mktemp("cluster")
    preload = folder / "preload.py"
    lines = f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_studies import prepare_worker\n"
    preload.write_text(f"{lines}prepare_worker({str(folder)!r})\n")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, preload=[str(preload)]
    ) as cluster:
        yield cluster, folder


def test_a_worker_killed_in_a_task_costs_nothing(cluster, command, tmp_path):
    cluster, folder = cluster
    (folder / "one is to die").touch()
    code, printed, _ = command("run tiny", scheduler=cluster.scheduler_address)
    assert code == 0 and names(folder) == ["epochs", "preload.py"]  # one did die
    assert (folder / "epochs").read_text() == "x" * 4 * 3  # the other went on from its checkpoint
    for m in range(4):
        path = tmp_path / f"tiny-quick-{m}-{m + 1}.nc"
        assert str(path) in printed
        assert_same_values(records.load(path), experiments.run(PLAN, "tiny", "quick", range(m, m + 1))[0])
    assert records.load(tmp_path / "tiny-quick.nc").member.values.tolist() == [0, 1, 2, 3]


def test_a_block_that_fails_costs_the_others_nothing(cluster, command, tmp_path):
    cluster, _ = cluster
    code, _, error = command("run flawed", scheduler=cluster.scheduler_address)
    assert code == 1 and "1 of 3 blocks failed: members 1:2: a member's seed is 2147483648" in error
    assert {"flawed-quick-0-1.nc", "flawed-quick-2-3.nc"} < set(names(tmp_path))
    code, printed, _ = command("show flawed")
    assert code == 0 and len(printed.splitlines()) == 5
    before = (tmp_path / "flawed-quick-0-1.nc").stat().st_mtime_ns
    code, _, error = command("resume flawed", scheduler=cluster.scheduler_address)
    assert code == 1 and "1 of 1 blocks failed: members 1:2" in error
    assert (tmp_path / "flawed-quick-0-1.nc").stat().st_mtime_ns == before


def test_processes_are_a_cluster_of_this_machine(cluster, command, tmp_path, monkeypatch):
    cluster, _ = cluster
    asked = []
    local = lambda **settings: asked.append(settings) or contextlib.nullcontext(cluster)  # noqa: E731
    monkeypatch.setattr(distributed, "LocalCluster", local)
    assert command("run tiny --members 0:3", processes=2, block=2)[0] == 0
    assert asked == [{"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}]
    assert [name for name in names(tmp_path) if name.endswith(".nc")] == ["tiny-quick-0-2.nc", "tiny-quick-2-3.nc"]
    assert_same_values(
        records.load(tmp_path / "tiny-quick-0-2.nc"), experiments.run(PLAN, "tiny", "quick", range(2))[0]
    )


def test_blocks_in_one_process_take_turns(monkeypatch):
    """Torch's seed belongs to the process: two blocks begun at once would draw each other's initial weights."""
    record, inside, most = whole(), [], []

    def watched(*arguments, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return record

    monkeypatch.setattr(studies, "run", watched)
    threads = [threading.Thread(target=studies.run_block, args=("tiny", "quick", range(4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.mark.filterwarnings("ignore:'helpers.studies' found in sys.modules")
def test_what_the_command_submits_is_known_to_workers(tmp_path, monkeypatch, capsys):
    def submit(function, *arguments, **options):
        raise RuntimeError(f"{function.__module__} was submitted")

    monkeypatch.setattr(distributed, "Client", lambda address: contextlib.nullcontext(SimpleNamespace(submit=submit)))
    monkeypatch.setattr(sys, "argv", ["studies", "run", "demo", "--scheduler=tcp://127.0.0.1:9", f"--out={tmp_path}"])
    with pytest.raises(SystemExit):
        runpy.run_module("helpers.studies", run_name="__main__")
    assert capsys.readouterr().err == "error: helpers.studies was submitted\n"


def test_no_scheduler_at_the_address(command, tmp_path, monkeypatch):
    def unreachable(address):
        raise OSError(f"Timed out trying to connect to {address}")

    monkeypatch.setattr(distributed, "Client", unreachable)
    code, _, error = command("run tiny", scheduler="tcp://127.0.0.1:9")
    assert code == 1 and error == "error: Timed out trying to connect to tcp://127.0.0.1:9\n"
    assert names(tmp_path) == []


def test_without_distributed_the_rest_works(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, error = command("run tiny", processes=2)
    assert code == 1 and "distributed" in error
    assert command("run tiny --members 0:1")[0] == 0
