"""A list of members worked through one by one, for days, on a machine that has other things to do.

Serves chapters 09 to 11, whose recorded runs it makes. Each member is a process of ``python -m helpers.studies`` at a
low priority, with checkpoints and a record of its own. So nothing that is killed loses more than the time since its
last checkpoint, and the list is the whole state: what is done has a record, what was begun has a checkpoint, and the
rest has neither.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial

from helpers import checkpoint, records
from helpers._validation import brief, instance, integer, one_of, path_of, words
from helpers.ensemble import PRECISIONS
from helpers.plans import find

LOWEST = 19  # of the priorities that Unix calls niceness
COMMAND = (sys.executable, "-m", "helpers.studies")
PARENT_DIED = 1  # PR_SET_PDEATHSIG of Linux's prctl


@dataclass(frozen=True)
class Entry:
    """One line of a list: members of a study that train in lock-step.

    Parameters
    ----------
    study, profile : str
    members : range
        Of a step of 1.
    precision : str, optional
        In place of the plan's.
    """

    study: str
    profile: str
    members: range
    precision: str | None = None

    def __post_init__(self):
        count = len(find(self.study, self.profile).members)
        there = instance("members", self.members, range)
        if there.step != 1 or not 0 <= there.start < there.stop <= count:
            raise ValueError(f"members is {there}; expected a range of step 1 within {range(count)}")
        if self.precision is not None:
            one_of("precision", self.precision, PRECISIONS)

    def __str__(self):
        return f"{self.study} {self.profile} {self.members.start}:{self.members.stop}"

    def path(self, folder, suffix):
        """Where `studies` keeps its checkpoint or its record.

        Parameters
        ----------
        folder : path
        suffix : {"safetensors", "nc"}

        Returns
        -------
        path
        """
        return path_of("folder", folder) / records.file_name(self.study, self.profile, self.members, suffix)


@dataclass(frozen=True)
class Progress:
    """How far an entry is.

    Attributes
    ----------
    epoch, epochs : int
        Epochs done, of so many.
    seconds : float
        Of training so far.
    recorded : bool
        Whether nothing is left to do.
    """

    epoch: int
    epochs: int
    seconds: float
    recorded: bool


def read(path):
    """The entries of a list, in order, from the file at `path`.

    Its lines are ``study profile A:B [precision]``; what follows a # is a remark.

    Raises
    ------
    ValueError
        When a line is none, or names what there is not; the message says which line.
    """
    entries = []
    for number, line in enumerate(path_of("path", path).read_text().splitlines(), 1):
        said = line.partition("#")[0].split()
        if not said:
            continue
        try:
            study, profile, members, *precision = said
            start, stop = map(int, members.split(":"))
            entry = Entry(study, profile, range(start, stop), *precision)
        except (ValueError, TypeError) as error:
            expected = "expected `study profile A:B [precision]`"
            raise ValueError(f"line {number} of {path} is {brief(line.strip())}; {expected}: {error}") from error
        if entry in entries:
            raise ValueError(f"line {number} of {path} is {entry}, which stands there before")
        entries.append(entry)
    if not entries:
        raise ValueError(f"{path} has no entries; expected lines `study profile A:B [precision]`")
    return entries


def progress(entry, folder):
    """How far an entry is, by its record in the folder or in the package, or else by its checkpoint.

    Parameters
    ----------
    entry : Entry
    folder : path

    Returns
    -------
    Progress
    """
    epochs = find(instance("entry", entry, Entry).study, entry.profile).epochs
    path, whole = entry.path(folder, "nc"), path_of("folder", folder) / records.file_name(entry.study, entry.profile)
    found = [records.load(one) for one in (path, whole) if one.is_file()]
    found += [records.recorded(entry.study, entry.profile), records.begun(entry.study, entry.profile)]
    for record in found:
        if record is not None and set(entry.members) <= set(record.member.values.tolist()):
            parts = [part for part in records.parts(record) if set(range(*part["members"])) & set(entry.members)]
            return Progress(epochs, epochs, sum(part["seconds"] for part in parts), True)
    path = entry.path(folder, "safetensors")
    epoch, seconds = checkpoint.progress(path) if path.is_file() else (0, 0.0)
    return Progress(epoch, epochs, seconds, False)


def _checked(entries, folder):
    path_of("folder", folder)
    if not all(isinstance(entry, Entry) for entry in instance("entries", entries, (list, tuple))):
        raise ValueError(f"entries is {brief(entries)}; expected a list of Entry")


def report(entries, folder, processes):
    """What is done, what is left and how long it will take, as text.

    Parameters
    ----------
    entries : list of Entry
    folder : path
        Of checkpoints and records.
    processes : int
        That run at a time.

    Returns
    -------
    str
    """
    _checked(entries, folder)
    integer("processes", processes, 1, 2**31)
    found = [progress(entry, folder) for entry in entries]
    rates = {}
    for entry, one in zip(entries, found, strict=True):
        if one.epoch and one.seconds:
            rates.setdefault(entry.study, []).append(one.seconds / one.epoch)
    everywhere = [rate for several in rates.values() for rate in several]
    lines, left = [], []
    for entry, one in zip(entries, found, strict=True):
        state = "recorded" if one.recorded else f"epoch {one.epoch} of {one.epochs}"
        known = [one.seconds / one.epoch] if one.epoch else rates.get(entry.study, everywhere)
        hours = (one.epochs - one.epoch) * sum(known) / len(known) / 3600 if known else None
        if not one.recorded:
            left.append(hours)
        need = "" if one.recorded else ", time not known yet" if hours is None else f", {hours:.1f} hours left"
        lines.append(f"{entry!s:32s} {entry.precision or 'plan':9s} {state}{need}")
    total = f"{len(entries) - len(left)} of {len(entries)} recorded"
    if left and None not in left:
        total += f"; about {max(sum(left) / processes, max(left)):.1f} hours left with {processes} at a time"
    return "\n".join([*lines, total])


def _child(niceness):
    """In a child before it becomes the command: its priority, and to stop at the end of an epoch if the parent dies."""
    os.nice(niceness)
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)


def _start(entry, folder, device, niceness):
    verb = "resume" if entry.path(folder, "safetensors").exists() else "run"
    members = f"{entry.members.start}:{entry.members.stop}"
    command = [*COMMAND, verb, entry.study, "--profile", entry.profile]
    command += ["--members", members, "--out", str(folder), "--device", device]
    command += ["--precision", entry.precision] if entry.precision else []
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"TQDM_DISABLE": "1"}
    said = tempfile.TemporaryFile("w+")  # and no pipe, on which a child would stumble if this process were killed
    ours = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": said}
    return subprocess.Popen(command, preexec_fn=partial(_child, niceness), **ours), said


def work(entries, folder, processes=1, device="cpu", niceness=LOWEST, say=print):
    """Train and record what is not recorded yet, in order, so many entries at a time; each failure is said at the end.

    Parameters
    ----------
    entries : list of Entry
    folder : path
        Of checkpoints and records.
    processes : int
        Of one thread each, unless ``$OMP_NUM_THREADS`` says otherwise.
    device : str
    niceness : int
        Priority of the processes, from 0, as this one's, to 19, the lowest.
    say : callable
        Told in a line what begins and what ends.

    Raises
    ------
    ValueError
        When the entries are no list of them.
    RuntimeError
        When entries failed, after all others were done; the message says which, and their last words.
    """
    _checked(entries, folder)
    integer("processes", processes, 1, 2**31)
    integer("niceness", niceness, 0, LOWEST)
    words("device", device)
    if not callable(say):
        raise ValueError(f"say is {brief(say)}; expected a function of a line")
    waiting = [entry for entry in entries if not progress(entry, folder).recorded]
    running, failures = {}, []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                entry = waiting.pop(0)
                running[entry] = _start(entry, folder, device, niceness)
                say(f"{time.strftime('%H:%M')} {entry} goes on after epoch {progress(entry, folder).epoch}")
            time.sleep(0.2)
            for entry, (child, said) in list(running.items()):
                if child.poll() is None:
                    continue
                del running[entry]
                with said:
                    said.seek(0)
                    last = (said.read().strip() or "no word").splitlines()[-1]
                if child.returncode:
                    failures.append(f"{entry}: exit code {child.returncode}, {records.printable(last)}")
                say(f"{time.strftime('%H:%M')} {failures[-1] if child.returncode else f'{entry} is recorded'}")
    finally:
        for child, _ in running.values():  # they stop at the end of their epoch
            child.terminate()
        for child, said in running.values():
            child.wait()
            said.close()
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(entries)} entries failed: {'; '.join(failures)}")
