"""The command: its exit codes, stopped, resumed, in parts, by signals, and without what it needs."""

import contextlib
import dataclasses
import errno
import os
import runpy
import signal
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import torch
from tiny_study import MEMBERS, PLAN, STUDIES, assert_same_values, names, whole

from helpers import cli, experiments, plans, records, vae
from helpers.ensemble import LinearAnnealing, Member
from helpers.plans import Study

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(":", (0, 6)), ("0:6", (0, 6)), ("2:4", (2, 4)), ("4:", (4, 6)), (":1", (0, 1)), ("05:6", (5, 6))],
)
def test_members_from_a_range(text, expected):
    assert cli.members_from(text, 6) == range(*expected)


@pytest.mark.parametrize(
    "text", ["", "3", "0:7", "6:", "3:3", "4:2", "-1:", ":-1", "0:0", "a:b", "0:4:2", "1.5:2", " 1:2", "1:2\n"]
)
def test_members_from_anything_else(text):
    with pytest.raises(ValueError, match=r"members is .*; expected a range like 0:6, within the 6 members there are"):
        cli.members_from(text, 6)


def test_list_prints_every_study_and_profile(command):
    code, printed, _ = command("list")
    assert code == 0
    for name, study in plans.STUDIES.items():
        assert f"{name}: {study.title}" in printed
    assert printed.count("\n    ") == sum(len(study.plans) for study in plans.STUDIES.values())
    assert "    quick: 4 members, 3 epochs of digits" in printed


def test_run_records_and_show_prints(command, tmp_path):
    code, printed, _ = command("run tiny")
    assert code == 0
    assert names(tmp_path) == ["tiny-quick-0-4.nc", "tiny-quick-0-4.safetensors", "tiny-quick.nc"]
    record = records.load(tmp_path / "tiny-quick.nc")
    assert_same_values(record, whole()[0])
    assert records.table(record) in printed and "tiny-quick-0-4.nc" in printed
    code, printed, _ = command("show tiny")
    assert code == 0 and printed.endswith(records.table(record) + "\n")
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


def test_show_without_a_record(command, tmp_path):
    code, printed, error = command("show tiny")
    assert (code, printed) == (1, "")
    assert error == f"error: there is no record of tiny, profile quick, in {tmp_path}\n"


def test_show_finds_the_packages_record(command, tmp_path, monkeypatch):
    package = tmp_path / "package"
    monkeypatch.setattr(records, "files", lambda name: package)
    records.save(whole()[0], package / "recorded" / "tiny-quick.nc")
    code, printed, _ = command("show tiny")
    assert code == 0 and records.table(whole()[0]) in printed


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
        "run tiny --data x.npy",
        "run tiny --sigma2 0.1",
        "run own",
        "run own --data x.npy",
        "resume own --latents 3",
        "run own --data x.npy --latents 3 --processes 2",
    ],
)
def test_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(text.split())
    assert stopped.value.code == 2 and "usage: python -m helpers.studies" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["", "list", "run", "resume", "show"])
def test_help(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*verb.split(), "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "Exit codes: 0 done; 1 failed" in printed
    expected = {"": ["list", "resume"], "list": [], "show": ["--profile", "--out"]}
    running = "--data --latents --sigma2 --profile --device --precision --members --budget --out --scheduler".split()
    running += ["--processes", "--block"]
    assert all(option in printed for option in expected.get(verb, running))


def test_a_study_of_own_data(command, tmp_path):
    """Stopped and resumed, it is what the same plan gives by name; floats are used as they are, bytes over 255."""
    x = np.random.default_rng(0).integers(0, 256, (90, 3, 2), dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", x)
    np.save(tmp_path / "floats.npy", x.reshape(90, 6) / 255)
    found = {}
    for kind in ("bytes", "floats"):
        out = tmp_path / kind
        options = f"own --data {tmp_path}/{kind}.npy --latents 2 --sigma2 0.1 0.03 --epochs 3 --hidden 5 --out {out}"
        assert cli.main(["run", *options.split(), "--budget", "0"]) == 3
        assert cli.main(["resume", *options.split()]) == 0
        found[kind] = records.load(out / "own-quick.nc")
    code, printed, _ = command("show own", out=tmp_path / "floats")
    assert code == 0 and records.table(found["floats"]) in printed
    assert "own" not in plans.STUDIES
    for name in ("elbo", "kl", "sse"):
        np.testing.assert_allclose(found["bytes"][name], found["floats"][name], rtol=1e-4)
    plan = plans.own(f"{tmp_path}/bytes.npy", 2, [0.1, 0.03], 3, [5])
    assert plan.batch_size == 9
    assert_same_values(found["bytes"], experiments.run(plan, "own", "quick")[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"no array", "no readable .npy file"),
        (np.zeros(3), "float64 of shape (3,); expected numbers (N, ...), a row for each sample"),
        (np.zeros((0, 3)), "shape (0, 3)"),
        (np.array([["a"]]), "<U1 of shape (1, 1)"),
        (np.array([[1.0, np.nan]]), "x.npy"),
        (np.array([[1.0, 1e300]]), "x.npy"),
    ],
)
def test_own_data_that_is_none(content, message, command, tmp_path, untrained):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    code, _, error = command("run own --latents 2", data=path)
    assert code == 1 and message in error and "Traceback" not in error
    assert "own" not in plans.STUDIES


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
    monkeypatch.setitem(plans.STUDIES, "tiny", Study("A question", {"laptop": plan}))
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
    monkeypatch.setitem(plans.STUDIES, "tiny", Study("A question", {"quick": plan}))
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
    monkeypatch.setitem(plans.STUDIES, "tiny", Study("A question", {"quick": plan}))
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


DRIVER = """
import sys, time
from helpers import cli, lockstep
epoch = lockstep.Lockstep.epoch

def slow(self, bar):
    epoch(self, bar)
    print("epoch", self.run.epoch, flush=True)
    time.sleep(0.5)

lockstep.Lockstep.epoch = slow
sys.exit(cli.main(sys.argv[1:]))
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


def test_a_folder_that_cannot_be_written_is_noticed_before_the_training(untrained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(plans.STUDIES, "tiny", STUDIES["tiny"])
    blocked = tmp_path / "a file"
    blocked.write_text("")
    for out in (blocked, blocked / "below"):
        assert cli.main(["run", "tiny", f"--out={out}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: --out {out} is no folder that can be written: ") and error.count("\n") == 1

    def forbidden(**options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(cli.tempfile, "TemporaryFile", forbidden)
    assert cli.main(["run", "tiny", f"--out={tmp_path}"]) == 1
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


@pytest.mark.filterwarnings("default")
def test_a_schedule_longer_than_the_run_is_said_on_the_command_line(command, monkeypatch):
    plan = dataclasses.replace(PLAN, members=(Member(), Member(beta=LinearAnnealing(100))))
    monkeypatch.setitem(plans.STUDIES, "tiny", Study("A question", {"quick": plan}))
    _, _, error = command("run tiny", budget=0)
    assert "warning: beta of members[1] comes to its end after 100 epochs; the run has 3\n" in error


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


@pytest.mark.filterwarnings("ignore:'helpers.(studies|cli)' found in sys.modules")
def test_what_the_command_submits_is_known_to_workers(tmp_path, monkeypatch, capsys):
    def submit(function, *arguments, **options):
        raise RuntimeError(f"{function.__module__} was submitted")

    monkeypatch.setattr(distributed, "Client", lambda address: contextlib.nullcontext(SimpleNamespace(submit=submit)))
    monkeypatch.setattr(sys, "argv", ["studies", "run", "demo", "--scheduler=tcp://127.0.0.1:9", f"--out={tmp_path}"])
    with pytest.raises(SystemExit):
        runpy.run_module("helpers.studies", run_name="__main__")
    assert capsys.readouterr().err == "error: helpers.studies was submitted\n"
