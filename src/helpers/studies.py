"""Running the paper's experiments: from a notebook, on a cluster, in parts. Serves chapters 08 to 11, and `cli`.

What the experiments are stands in `plans`. As a command it is `cli`: ``python -m helpers.studies --help``.
"""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # The imports take seconds, and an interrupt in them is to leave no traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import runpy
import threading
from dataclasses import replace
from pathlib import Path

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    missing = "helpers.studies needs torch, of the extra [deep]: pip install 'posterior-collapse-book[deep]'"
    if __name__ == "__main__":
        sys.exit(f"error: {missing}")
    raise ModuleNotFoundError(missing, name="torch") from error

from helpers import experiments, records
from helpers._validation import brief, instance, one_of, path_of, words
from helpers.ensemble import PRECISIONS
from helpers.plans import find
from helpers.vae import find_device


def run(study, profile="quick", members=None, device="cpu", path=None, budget=None, precision=None):
    """Train, evaluate and record a study by name, as `experiments.run` does with its plan.

    Parameters
    ----------
    study, profile : str
    members : range, optional
        Which, one after the other; all by default.
    device : str
    path : path, optional
        Of the checkpoint, to resume from where it exists.
    budget : float, optional
        Seconds for the training; the evaluation comes on top.
    precision : str, optional
        In place of the plan's.

    Returns
    -------
    record : xarray.Dataset or None
        None when the run stopped before its end.
    result : ensemble.Run

    See Also
    --------
    obtain : takes the recorded run where there is one.
    helpers.records.table : a record as text.

    Examples
    --------
    >>> record, result = run("demo", members=range(1), budget=0)  # seconds for one epoch and no more
    >>> record is None, result.epoch, result.stopped
    (True, 1, 'budget')
    """
    plan = find(study, profile)
    plan = replace(plan, precision=plan.precision if precision is None else precision)
    return experiments.run(plan, study, profile, members, device, path, budget)


def obtain(study, profile="quick", device=None, rerun=False):
    """The record of a study: the one that travels with the package, or else of a run made here and now.

    Parameters
    ----------
    study, profile : str
    device : str, optional
        To train on; by default a GPU where there is one.
    rerun : bool
        Train even where there is a record.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    KeyboardInterrupt
        When the run was interrupted, and there is no record.
    """
    instance("rerun", rerun, bool)
    if device is not None:
        find_device(device)
    record = None if rerun else records.recorded(study, profile)
    if record is None:
        record, result = run(study, profile, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if record is None:
            raise KeyboardInterrupt(f"stopped after epoch {result.epoch}")
    return record


_one_block = threading.Lock()


def run_block(study, profile, members, device="cpu", path=None, precision=None):
    """`run` as one task of many, for a process that may be on another machine.

    Parameters
    ----------
    study, profile : str
    members : range
    device : str
    path : path, optional
        Of the checkpoint.
    precision : str, optional
        In place of the plan's.

    Returns
    -------
    bytes
        The record, as `records.to_bytes` writes it.
    """
    with _one_block:  # torch's seed belongs to the process, and a worker may have several threads
        return records.to_bytes(run(study, profile, members, device, path, precision=precision)[0])


def run_distributed(study, profile, blocks, address, save, device="cpu", folder=None, precision=None):
    """Run blocks of members as tasks of a dask.distributed scheduler; a task whose worker dies runs elsewhere.

    Parameters
    ----------
    study, profile : str
    blocks : list of range
    address : str
        Of the scheduler. Its workers need this package, and the data where it is not bundled.
    save : callable
        Called with each block and its record, as they come.
    device : str
    folder : path, optional
        For checkpoints, where the workers share a file system; a block begun by a worker that died is then resumed.
    precision : str, optional
        In place of the plan's.

    Raises
    ------
    ValueError
        When the blocks are no ranges of the study's members, or another argument is bad.
    RuntimeError
        When blocks failed, after all others were saved; the message says which and why.
    """
    count = len(find(study, profile).members)
    if not isinstance(blocks, (list, tuple)) or not blocks:
        raise ValueError(f"blocks is {brief(blocks)}; expected a list of ranges of members")
    for block in blocks:
        if not (isinstance(block, range) and block.step == 1 and 0 <= block.start < block.stop <= count):
            raise ValueError(f"blocks has {brief(block)}; expected ranges of step 1 within {range(count)}")
    for name, value in (("address", address), ("device", device)):
        words(name, value)
    if device.startswith("cpu"):
        find_device(device)  # of others there may be some where the workers are
    if not callable(save):
        raise ValueError(f"save is {brief(save)}; expected a function of a block and its record")
    if folder is not None:
        path_of("folder", folder)
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    from distributed import Client, as_completed

    failures = []
    with Client(address) as client:
        tasks = {}
        for block in blocks:
            path = None if folder is None else Path(folder) / records.file_name(study, profile, block, "safetensors")
            task = client.submit(run_block, study, profile, block, device, path, precision, pure=False)
            tasks[task] = block
        for task in as_completed(tasks):
            block = tasks[task]
            try:
                save(block, records.from_bytes(task.result()))
            except Exception as error:  # of whatever kind, the other blocks are not to suffer for it
                failures.append(f"members {block.start}:{block.stop}: {error}")
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(blocks)} blocks failed: {'; '.join(failures)}")


def pending(study, profile, blocks, out, resuming):
    """Those of the blocks of members that have no record in the folder `out` yet.

    Parameters
    ----------
    study, profile : str
    blocks : list of range
    out : path
    resuming : bool
        Whether to go on with what was begun. Otherwise none of it may have been.

    Raises
    ------
    ValueError
        When a record or a checkpoint is there and nothing is to be resumed, when none is there to resume, or when a
        block is recorded in part.
    """
    out = path_of("out", out)
    if not isinstance(blocks, (list, tuple)) or not blocks or not all(isinstance(block, range) for block in blocks):
        raise ValueError(f"blocks is {brief(blocks)}; expected a list of ranges of members")
    instance("resuming", resuming, bool)
    checkpoints = [out / records.file_name(study, profile, block, "safetensors") for block in blocks]
    begun = [path for path in checkpoints if path.exists()]
    owner = {
        m: path for path, record in recorded_in(study, profile, out).items() for m in record.member.values.tolist()
    }
    begun += [owner[m] for block in blocks for m in block if m in owner]
    these = f"members {blocks[0].start}:{blocks[-1].stop}"
    if begun and not resuming:
        raise ValueError(f"{these} were begun before: {begun[0]} exists. Resume, or remove it to start anew")
    if resuming and not begun:
        raise ValueError(f"{these} cannot be resumed: {out} has no checkpoint like {checkpoints[0].name}. Run them")
    left = [block for block in blocks if not owner.keys() >= set(block)]
    if partly := [m for block in left for m in block if m in owner]:
        raise ValueError(f"{these} are partly done: {owner[partly[0]]} has {partly}. Choose others, or remove it")
    return left


def join(study, profile, out):
    """Where all members of a study have a record in a folder, write that of the whole there.

    Parameters
    ----------
    study, profile : str
    out : path
        The folder.

    Returns
    -------
    path or None
        Of the record of the whole; None where members are missing.
    """
    found = list(recorded_in(study, profile, out).values())
    if sum(record.member.size for record in found) < len(find(study, profile).members):
        return None
    whole = Path(out) / records.file_name(study, profile)
    records.save(records.merge(found), whole)
    return whole


def recorded_in(study, profile, out):
    """The records of a study in a folder by their paths: those of blocks of members or else the whole.

    Parameters
    ----------
    study, profile : str
    out : path
        The folder.

    Returns
    -------
    dict of path to xarray.Dataset

    Raises
    ------
    ValueError
        When a record is damaged, or its own study, profile or members are not those of its name.
    """
    out = path_of("out", out)
    whole = records.file_name(study, profile)
    paths = sorted(out.glob(f"{study}-{profile}-*-*.nc")) or sorted(out.glob(whole))
    found = {}
    for path in paths:
        record = found[path] = records.named(records.load(path), path, study, profile)
        members = record.member.values.tolist()
        name = records.file_name(study, profile, range(members[0], members[-1] + 1))
        if path.name not in (whole, name) or len(members) != members[-1] + 1 - members[0]:
            raise ValueError(f"{path} is a record of members {members}; expected those of its name")
    return found


if __name__ == "__main__":
    runpy.run_module("helpers.cli", run_name="__main__")
