"""One experiment: a plan, trained, evaluated and recorded. Serves `studies`."""

import contextlib
import json
import math
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from helpers import celeba, collapse, data, pictures, records
from helpers._files import sha256
from helpers._validation import brief, file_of, instance, integer, one_of, words
from helpers.checkpoint import alone
from helpers.lockstep import PRECISIONS, has_float64, measurable, rows_at_a_time, scaled, wide
from helpers.train import Member, train


def _mnist():
    return data.mnist("train").reshape(-1, 784)


def _dequantised(x, levels):
    """Whole numbers 0 to levels - 1 with uniform noise on top, in [0, 1): a density where there was none."""
    noise = np.random.default_rng(0).random(x.shape, np.float32)
    return np.minimum((x + noise) / np.float32(levels), np.float32(1 - 2**-24))


DATA = {
    "digits": data.digits_bytes,
    "digits-dequantised": lambda: _dequantised((data.digits() * 16).astype(np.float32), 17),
    "mnist": _mnist,
    "mnist-dequantised": lambda: _dequantised(_mnist(), 256),
    "patches": lambda: data.patches(64, 512),
    "faces": celeba.faces,
}


@dataclass(frozen=True)
class Plan:
    """All that decides a run of a study.

    Parameters
    ----------
    data : str
        A key of `DATA`.
    network : functools.partial
        Makes one VAE, from keyword arguments alone; records name the function and them.
    members : tuple of Member
        With seeds below 2^31, the largest integer of a NetCDF 3 file.
    epochs, batch_size : int
    snapshots : tuple of int
        Epochs with the statistics of every unit; those at the end are always taken.
    precision : str
    pictures : tuple of int
        Positions of images in the data that the record shows reconstructed, the first three also as the corners of a
        plane of the latent space; none by default.
    """

    data: str
    network: partial
    members: tuple
    epochs: int
    batch_size: int = 128
    snapshots: tuple = ()
    precision: str = "float32"
    pictures: tuple = ()

    def __post_init__(self):
        one_of("data", self.data, DATA)
        if instance("network", self.network, partial).args:
            raise ValueError(f"network has the arguments {brief(self.network.args)}; expected keyword arguments alone")
        one_of("precision", self.precision, PRECISIONS)
        members = tuple(instance("members", self.members, (tuple, list)))
        if not members or not all(isinstance(member, Member) for member in members):
            raise ValueError(f"members is {brief(members)}; expected at least one Member")
        epochs = integer("epochs", self.epochs, 1, 2**31)
        checked = {"members": members, "epochs": epochs, "batch_size": integer("batch_size", self.batch_size, 1, 2**31)}
        for name, low, high in (("snapshots", 1, epochs), ("pictures", 0, 2**31)):
            several = instance(name, getattr(self, name), (tuple, list))
            checked[name] = tuple(integer(name, one, low, high) for one in several)
        for name, value in checked.items():  # plain numbers, which JSON takes
            object.__setattr__(self, name, value)

    def settings(self):
        """The plan as plain values, for records."""
        network = {"name": self.network.func.__name__, **self.network.keywords}
        network = {key: getattr(value, "__name__", value) for key, value in network.items()}
        names = ("data", "epochs", "batch_size", "snapshots", "pictures")
        settings = {"network": network, **{name: getattr(self, name) for name in names}}
        return json.loads(json.dumps(settings))  # as a record gives them back, lists for tuples


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
    result : train.Run

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
    code, x = commit(), DATA[plan.data]()  # the commit of what was imported, and not of what the files may become
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
    numbers = tqdm(range(len(chosen)), "evaluating", unit="member", delay=2)
    evaluations = [_evaluate(result.stack.member(m), x, device) for m in numbers]
    samples = len(x) // plan.batch_size * plan.batch_size * plan.epochs * len(chosen)
    part = {
        "members": [members.start, members.stop],
        "settings": plan.settings(),
        "data_sha256": sha256(x),
        "commit": code,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "numpy")}},
        "device": _name(torch.device(device)),
        "precision": plan.precision,
        "seconds": round(result.seconds, 1),
        "samples_per_second": round(samples / max(result.seconds, 1e-9)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record = _dataset(result, evaluations, members)
    if plan.pictures:
        record = record.assign(_pictures(result.stack, x[list(plan.pictures)], device))
    return records.seal(record, study, profile, [part]), result


FINAL = ("elbo", "sse", "kl", "sigma2", "tuned_elbo", "tuned_sigma2", "mutual_information", "active_units", "count")
UNITS = ("kl_per_unit", "variance_of_mean", "second_moment", "quantile")


class _NotFinite(ValueError):
    """What a network makes of the data is beyond the numbers it is evaluated in."""


@torch.no_grad()
def _evaluate(model, x, device):
    """The numbers of `collapse.evaluate`, a dict; NaN, all of them, where a member's are beyond float32.

    On the host where the device has no float64, in which it sums.
    """
    if not has_float64(torch.device(device)):
        model, device = model.to("cpu"), "cpu"
    rows = rows_at_a_time(x[0].size)
    batches = (scaled(torch.tensor(x[i : i + rows], device=device)) for i in range(0, len(x), rows))

    def encode(x):
        mean, logvar = model.encode(x)
        if not measurable(mean, logvar):
            raise _NotFinite
        return mean, logvar

    def decode(z):
        output = model.decode(z)
        if not output.square().isfinite().all():
            raise _NotFinite
        return output

    try:
        sigma2 = float(wide(model.log_sigma2).exp())
        if not 0 < sigma2 < math.inf:
            raise _NotFinite
        found = collapse.evaluate(batches, encode, decode, sigma2)
    except _NotFinite:  # after a learning rate far too large; the other members are not to suffer for it
        k = model.encode(scaled(torch.tensor(x[:1], device=device)))[0].shape[1]
        return dict.fromkeys(FINAL, np.nan) | dict.fromkeys(UNITS, np.full(k, np.nan))
    return {name: getattr(found, name) for name in FINAL + UNITS}


@torch.no_grad()
def _pictures(stack, x, device):
    """Figures 10 and 11 of every member, as variables for the record.

    The images themselves are not among them, since those of some data sets may not be passed on. How far each
    reconstruction, as it is shown, is from each of them is: "distance", squared, of reconstruction i from image j.
    """
    images, models = scaled(torch.tensor(x, device=device)), [stack.member(m) for m in range(len(stack))]
    one, found = ("height", "width", "colour"), [pictures.reconstruct(model, images) for model in models]
    planes = [pictures.latent_plane(model, images[:3]) for model in models]
    distance = [(made.clamp(0, 1)[:, None] - images).square().flatten(2).sum(2) for made in found]
    return {
        "reconstructed": (("member", "image", *one), pictures.to_record(torch.stack(found))),
        "plane": (("member", "row", "column", *one), pictures.to_record(torch.stack(planes))),
        "distance": (("member", "image", "other"), torch.stack(distance).cpu().numpy()),
    }


@np.errstate(over="ignore")  # a history that grows beyond float32 is stored as infinity
def _dataset(run, evaluations, members):
    described = [member.describe(values) for member, values in zip(run.members, run.betas, strict=True)]
    keys = max(described, key=len)  # decay stands only where there is one
    table = {f"set_{key}": ("member", np.array([row.get(key, 0.0) for row in described])) for key in keys}
    table["diverged"] = ("member", run.diverged.astype(np.int32))
    for name in FINAL:
        table[name] = ("member", np.array([one[name] for one in evaluations], np.float64))
    for name in UNITS:
        values = np.stack([one[name] for one in evaluations])
        table[name] = (("member", "unit"), values.astype(np.float32))
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
