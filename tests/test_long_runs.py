"""A list of members: what it says, what is left of it, and that nothing killed loses more than an epoch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import checkpoint, long_runs, plans, records, studies
from helpers.long_runs import Entry

EPOCHS = 60  # of the study demo


def a_list(folder, text):
    path = folder / "list.txt"
    path.write_text(text)
    return path


def test_a_list_is_read_line_by_line(tmp_path):
    text = "# the first\ndemo quick 0:1\n\ndemo quick 1:3 bfloat16  # two in lock-step\n"
    first, second = long_runs.read(a_list(tmp_path, text))
    assert (first, second) == (
        Entry("demo", "quick", range(0, 1)),
        Entry("demo", "quick", range(1, 3), "bfloat16"),
    )
    assert second.path(tmp_path, "nc").name == "demo-quick-1-3.nc" and str(second) == "demo quick 1:3"


def test_the_books_own_list_is_one():
    entries = long_runs.read(Path(__file__).parents[1] / "book" / "on_a_cpu.txt")
    four = [plans.find(entry.study, entry.profile).members[entry.members.start] for entry in entries[:4]]
    assert [(one.sigma2, one.learning_rate) for one in four] == [(s, 3e-4) for s in plans.SIGMA2]


@pytest.mark.parametrize(
    "line, message",
    [
        ("demo quick", "expected `study profile A:B"),
        ("demo quick 1", "expected `study profile A:B"),
        ("demo quick 1:a", "expected `study profile A:B"),
        ("demo quick 1:5", r"members is range\(1, 5\); expected"),
        ("demo quick 1:1", r"members is range\(1, 1\); expected"),
        ("demo quick 0:1 float16", "precision is 'float16'"),
        ("other quick 0:1", "study is 'other'"),
        ("demo paper 0:1", "profile is 'paper'"),
        ("demo quick 0:1 float32 more", "expected `study profile A:B"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, line, message):
    with pytest.raises(ValueError, match=r"(?s)line 2 of .*" + message):
        long_runs.read(a_list(tmp_path, f"demo quick 0:2\n{line}\n"))


@pytest.mark.parametrize("text, message", [("# nothing\n", "no entries"), ("demo quick 0:1\n" * 2, "line 2.*before")])
def test_an_empty_list_and_a_line_twice_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        long_runs.read(a_list(tmp_path, text))


def test_the_report_says_what_is_done_and_what_is_left(tmp_path):
    entries = long_runs.read(a_list(tmp_path, "demo quick 0:1\ndemo quick 1:2\ndemo quick 2:3\n"))
    assert "time not known yet" in long_runs.report(entries, tmp_path, 1)
    assert long_runs.report(entries, tmp_path, 1).endswith("0 of 3 recorded")
    record, _ = studies.run("demo", "quick", range(0, 1), path=entries[0].path(tmp_path, "safetensors"))
    records.save(record, entries[0].path(tmp_path, "nc"))
    studies.run("demo", "quick", range(1, 2), path=entries[1].path(tmp_path, "safetensors"), budget=0)
    (done, begun, none) = (long_runs.progress(entry, tmp_path) for entry in entries)
    assert done.recorded and done.seconds == records.parts(record)[0]["seconds"]
    assert (begun.epoch, begun.epochs, begun.recorded) == (1, EPOCHS, False) and begun.seconds > 0
    assert (none.epoch, none.seconds, none.recorded) == (0, 0, False)
    lines = long_runs.report(entries, tmp_path, 2).splitlines()
    assert lines[0].endswith("recorded") and "epoch 1 of 60, 0.0 hours left" in lines[1]
    assert lines[-1] == "1 of 3 recorded; about 0.0 hours left with 2 at a time"


def test_hours_left_are_the_epochs_at_the_pace_so_far(tmp_path, monkeypatch):
    entries = long_runs.read(a_list(tmp_path, "demo quick 0:1\ndemo quick 1:2\ndemo quick 2:3\n"))
    for entry in entries[:2]:
        entry.path(tmp_path, "safetensors").touch()
    monkeypatch.setattr(checkpoint, "progress", lambda path: (20, 72000.0) if "-0-1" in path.name else (40, 72000.0))
    lines = long_runs.report(entries, tmp_path, 2).splitlines()
    hours = [float(line.split(", ")[1].split()[0]) for line in lines[:3]]
    assert hours == [40.0, 10.0, 45.0]  # an hour and half an hour an epoch, and their mean
    assert "about 47.5 hours left with 2 at a time" in lines[-1]
    assert "about 95.0 hours left with 1 at a time" in long_runs.report(entries, tmp_path, 1)


# Stands for the command: after the epochs 2 and 4 it says so, and waits for the death of its parent, or its own.
CHILD = """
import os, sys, time
from pathlib import Path
from helpers import cli, lockstep
epoch, parent, said = lockstep.Lockstep.epoch, os.getppid(), Path(sys.argv[1])
def slowly(self, bar):
    epoch(self, bar)
    if self.run.epoch in (2, 4) and not said.with_name("on").exists():
        said.write_text(str(self.run.epoch))
        while os.getppid() == parent:
            time.sleep(0.01)
lockstep.Lockstep.epoch = slowly
sys.exit(cli.main(sys.argv[2:]))
"""
QUEUE = """
import sys
from helpers import cli, long_runs
long_runs.COMMAND = (sys.executable, "-c", *sys.argv[1:3])
sys.exit(cli.main(sys.argv[3:]))
"""


def queue(folder, path):
    """The queue in a process of its own, with children that wait."""
    words = [sys.executable, "-c", QUEUE, CHILD, str(folder / "epoch"), "queue", str(path)]
    words += ["--out", str(folder), "--nice", "0"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "not in five minutes"
        time.sleep(0.02)


def is_free(path):
    """Whether no run holds it: a child whose queue was killed has come to the end of its epoch."""
    try:
        with checkpoint.alone(path):
            return True
    except BlockingIOError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child outlives its parent and goes on")
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path):
    """The queue killed with -9, then its child, then again: what it records is what one run records."""
    path, said = a_list(tmp_path, "demo quick 2:4\n"), tmp_path / "epoch"
    (entry,) = long_runs.read(path)
    saved = entry.path(tmp_path, "safetensors")
    with queue(tmp_path, path) as process:
        wait_for(lambda: said.exists() and said.read_text() == "2")
        process.kill()
    wait_for(lambda: saved.exists() and is_free(saved))
    assert checkpoint.progress(saved)[0] == 2
    with queue(tmp_path, path) as process:
        wait_for(lambda: said.read_text() == "4")
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        assert "exit code -9" in process.communicate()[1] and process.returncode == 1
    assert checkpoint.progress(saved)[0] == 2
    (tmp_path / "on").touch()
    with queue(tmp_path, path) as process:
        said, wrong = process.communicate()
    assert process.returncode == 0, wrong
    assert "goes on after epoch 2" in said and said.rstrip().endswith("1 of 1 recorded")
    whole, _ = studies.run("demo", "quick", range(2, 4))
    for name in ("elbo", "history_elbo", "kl_per_unit"):
        np.testing.assert_array_equal(records.load(entry.path(tmp_path, "nc"))[name], whole[name])


def test_a_failure_is_said_and_the_others_are_done(tmp_path):
    path = a_list(tmp_path, "demo quick 0:1\ndemo quick 1:2\n")
    first, second = long_runs.read(path)
    for entry in (first, second):
        studies.run("demo", "quick", entry.members, path=entry.path(tmp_path, "safetensors"), budget=0)
    content = bytearray(first.path(tmp_path, "safetensors").read_bytes())
    content[-1] ^= 1  # which the header does not tell
    first.path(tmp_path, "safetensors").write_bytes(content)
    (tmp_path / "on").touch()
    with queue(tmp_path, path) as process:
        said, wrong = process.communicate()
    assert process.returncode == 1 and "1 of 2 entries failed: demo quick 0:1: exit code 1, error:" in wrong
    assert "is damaged" in wrong and "demo quick 1:2 is recorded" in said
    with pytest.raises(ValueError, match="no readable checkpoint"):
        checkpoint.progress(path)


@pytest.mark.parametrize("processes", [0, -1, 1.5])
def test_numbers_that_are_none(tmp_path, processes):
    entries = [Entry("demo", "quick", range(1))]
    for call in (long_runs.report, long_runs.work):
        with pytest.raises(ValueError, match="processes is"):
            call(entries, tmp_path, processes)
