"""One experiment: a plan, trained, evaluated and recorded. Serves chapters 08 to 11, through `studies`."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from helpers import codes, evaluation, reconstructions, records
from helpers._files import sha256
from helpers._validation import brief, file_of, instance, words
from helpers.checkpoint import alone
from helpers.data import load
from helpers.plans import Plan
from helpers.residual import gain, rho_of
from helpers.train import train

# Samples that the residual test is done on, and features of a sample beyond which so few of these say nothing.
RESIDUALS, LARGEST_RESIDUAL = 10_000, 1_000


def run(plan, study, profile, members=None, device="cpu", path=None, budget=None):
    """Train the members of a plan, evaluate them on all data, and make a record of both.

    Parameters
    ----------
    plan : Plan
    study, profile : str
        Names, for the record.
    members : range, optional
        Which, one after the other (a step of 1); all by default.
    device : str
    path : path, optional
        Of the checkpoint, to resume from where it exists.
    budget : float, optional
        Seconds for the training; the evaluation comes on top.

    Returns
    -------
    record : xarray.Dataset or None
        None when the run stopped before its end.
    result : ensemble.Run

    Raises
    ------
    ValueError
        When an argument is bad, the checkpoint is damaged or belongs to another run, or there is no such device.
    FileNotFoundError
        When the data is nowhere; the message says how to get it.
    OSError
        When another run of any of these members writes beside the same checkpoint.
    """
    instance("plan", plan, Plan)
    for name, value in (("study", study), ("profile", profile)):
        words(name, value)
    count = len(plan.members)
    members = range(count) if members is None else members
    if not (isinstance(members, range) and members.step == 1 and 0 <= members.start < members.stop <= count):
        raise ValueError(f"members is {brief(members)}; expected a range of step 1 within {range(count)}")
    chosen = [plan.members[m] for m in members]
    if large := [member.seed for member in chosen if member.seed >= 2**31]:
        raise ValueError(f"a member's seed is {large[0]}; expected below 2^31, which a NetCDF 3 file can hold")
    path = None if path is None else file_of("path", path)
    with contextlib.ExitStack() as held:
        for m in members if path is not None else ():  # blocks that overlap have checkpoints of different names
            held.enter_context(alone(path.with_name(f"{study}-{profile}-{m}")))
        return _run(plan, study, profile, members, chosen, device, path, budget)


def _run(plan, study, profile, members, chosen, device, path, budget):
    code, x = commit(), load(plan.data)  # the commit of what was imported, and not of what the files may become
    if too_far := [one for one in plan.pictures if one >= len(x)]:
        raise ValueError(f"pictures has {too_far[0]}; expected positions below {len(x)}, the samples of {plan.data}")
    result = train(
        plan.network,
        x,
        chosen,
        plan.epochs,
        plan.batch_size,
        snapshots=plan.snapshots,
        device=device,
        precision=plan.precision,
        path=path,
        budget=budget,
    )
    if result.stopped:
        return None, result
    numbers = evaluation.evaluate(result.stack, x, device)
    numbers["further_gain"] = _further_gains(result.stack, numbers["sigma2"], x)
    images = reconstructions.variables(result.stack, x[list(plan.pictures)], device) if plan.pictures else {}
    record, where = _dataset(result, numbers, members).assign(images), _name(torch.device(device))
    samples = len(x) // plan.batch_size * plan.batch_size * plan.epochs * len(chosen)
    part = {
        "members": [members.start, members.stop],
        "settings": plan.settings(),
        "data_sha256": sha256(x),
        "commit": code,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "numpy")}},
        "device": where,
        "precision": plan.precision,
        "seconds": round(result.seconds, 1),
        "samples_per_second": round(samples / max(result.seconds, 1e-9)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return records.seal(record, study, profile, [part]), result


def _further_gains(stack, sigma2, x):
    """What further affine units would add to each member's ELBO (`residual`), (M,); NaN where that is not measured."""
    found = np.full(len(stack), np.nan)
    if x[0].size <= LARGEST_RESIDUAL:
        for m in range(len(stack)):
            with contextlib.suppress(ValueError):  # of outputs that are not finite
                model = stack.member(m).to("cpu")
                found[m] = gain(rho_of(codes.measure(model, x[:RESIDUALS]), float(sigma2[m])))
    return found


@np.errstate(over="ignore")  # a history that grows beyond float32 is stored as infinity
def _dataset(run, numbers, members):
    described = [member.describe(values) for member, values in zip(run.members, run.betas, strict=True)]
    keys = max(described, key=len)  # decay stands only where there is one
    table = {f"set_{key}": ("member", np.array([row.get(key, 0.0) for row in described])) for key in keys}
    table["diverged"] = ("member", run.diverged.astype(np.int32))
    for name in (*evaluation.FINAL, "further_gain"):
        table[name] = ("member", numbers[name].astype(np.float64))
    for name in evaluation.UNITS:
        table[name] = (("member", "unit"), numbers[name].astype(np.float32))
        if run.snapshots:
            values = np.stack([statistics[name] for _, statistics in sorted(run.snapshots.items())])
            table[f"snapshot_{name}"] = (("snapshot", "member", "unit"), values.astype(np.float32))
    for name, values in run.history.items():
        table[f"history_{name}"] = (("epoch", "member"), values.astype(np.float32))
    coordinates = {"member": np.array(members, np.int32), "epoch": np.arange(1, run.epoch + 1, dtype=np.int32)}
    if run.snapshots:
        coordinates["snapshot"] = np.array(sorted(run.snapshots), np.int32)
    return xr.Dataset(table, coordinates)


def commit():
    """The commit of the code that runs, with "+changes" where the files differ from it; "unknown" outside git.

    ``$BOOK_COMMIT`` comes before what git says, for a machine that has a copy of the files alone.
    """
    if os.environ.get("BOOK_COMMIT"):
        return os.environ["BOOK_COMMIT"]

    def git(*arguments):
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # it may lie, installed, in another project's folder
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _name(device):
    """A device as records name it."""
    if device.type == "cpu":
        return f"cpu {platform.machine()}, {torch.get_num_threads()} threads"
    name = getattr(getattr(torch, device.type), "get_device_name", None)  # Apple's has none
    return f"{device.type} {platform.machine()}" if name is None else name(device)
