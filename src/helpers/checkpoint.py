"""Checkpoints of a run: one safetensors file, its settings and state as JSON in the header.

Serves chapters 08 to 11, through `train`.
"""

import contextlib
import hashlib
import json
import os

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers._files import remove_parts, whole
from helpers._validation import brief, file_of, instance, integer, integers, non_negative, one_of, words
from helpers.collapse import UnitStatistics
from helpers.ensemble import PRECISIONS, Run, digest
from helpers.vae import architecture

try:
    import fcntl
except ImportError:  # a system without it has no locks here, and the rest works
    fcntl = None

FORMAT = 2  # 1 had the network as torch prints it, and a beta that is a function by its name alone


@contextlib.contextmanager
def alone(path):
    """Hold `path` against every other process, and thread, that asks for it; what a killed one left is removed.

    The lock belongs to the open file ``.NAME.lock`` beside it, so that it ends with the process, however that ends.

    Raises
    ------
    BlockingIOError
        When another holds it.
    OSError
        When nothing can be written there.
    """
    path = file_of("path", path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(lock)
    except BlockingIOError as error:
        raise BlockingIOError(f"{path} is being written by another run; wait for it, or stop it") from error
    except OSError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    try:
        if fcntl is not None:
            path.with_name(f"{path.name}.part").unlink(missing_ok=True)  # as format 1 called it
            remove_parts(path)
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _text(settings):
    try:
        return json.dumps(instance("settings", settings, dict))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"settings is {brief(settings)}; expected a dict of what JSON can hold: {error}") from error


def _locked(lock):
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is None:
                return descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):  # whoever held it may have removed it in between
                if os.stat(lock).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def save(path, run, settings):
    """Write the run to `path` so that the file there is at every moment a whole one, old or new.

    Parameters
    ----------
    path : path
    run : ensemble.Run
    settings : dict
        What JSON can hold.

    Raises
    ------
    OSError
        When it cannot be written, say because the disk is full; what was at `path` stays.
    """
    path, settings = file_of("path", path), json.loads(_text(settings))
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in instance("run", run, Run).tensors().items()}
    state = {
        "format": FORMAT,
        "settings": settings,
        "epoch": run.epoch,
        "seconds": run.seconds,
        "stopped": run.stopped,
        "diverged": run.diverged.tolist(),
    }
    text = json.dumps(state)
    try:
        with whole(path) as part:
            save_file(tensors, part, metadata={"state": text, "digest": _seal(text, tensors)})
    except (OSError, SafetensorError) as error:
        raise OSError(f"the checkpoint {path} could not be written: {error}") from error


def progress(path):
    """Epochs done and seconds spent, of the run that `path` holds: (int, float), from the header alone.

    Raises
    ------
    ValueError
        When the file cannot be read as a checkpoint.
    """
    try:
        with safe_open(file_of("path", path), framework="pt") as file:
            state = json.loads(file.metadata()["state"])
        return integer("epoch", state["epoch"], 0, 2**31), non_negative("seconds", state["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint: {error}. Remove it to start anew") from error


def identity(run, data, batch_size, precision):
    """What tells one run from another, as plain values: the settings that a checkpoint is written with.

    Parameters
    ----------
    run : ensemble.Run
    data : str
        Checksum of the data.
    batch_size : int
    precision : str
    """
    instance("run", run, Run)
    settings = {
        "members": [member.describe() for member in run.members],
        "network": architecture(run.stack.module),
        "parameters": {name: list(p.shape) for name, p in run.stack.parameters.items()},
        "data": words("data", data),
        "batch_size": integer("batch_size", batch_size, 1, 2**31),
        "precision": one_of("precision", precision, PRECISIONS),
        "beta": [_schedule(member, values) for member, values in zip(run.members, run.betas, strict=True)],
    }
    if any(member.decay for member in run.members):
        settings["epochs"] = len(run.betas[0])  # of which it is a share
    return settings


def _schedule(member, values):
    """What a checkpoint knows a schedule by: its values over all epochs it was made for. None for a number."""
    return {"epochs": len(values), "sha256": digest(values)} if callable(member.beta) else None


def resume(path, run, settings, snapshots):
    """Let `run`, which has just been started, go on where the checkpoint `path` ends.

    Parameters
    ----------
    path, run, settings
        As for `load`.
    snapshots : iterable of int
        Epochs after which the statistics of every unit are asked for.

    Raises
    ------
    ValueError
        When the checkpoint cannot be used or is another run's; the message says why.
    """

    def refuse(what, was, expected):
        raise ValueError(f"{path} belongs to another run: its {what} is {was}; expected {expected}")

    epochs, fields = len(instance("run", run, Run).betas[0]), set(UnitStatistics._fields)
    wanted = set(integers("snapshots", snapshots, 1, 2**31))
    load(path, run, settings)
    run.stopped = ""
    if run.epoch > epochs:
        refuse("epochs", run.epoch, f"at most {epochs}")
    if sorted(run.snapshots) != (expected := sorted(epoch for epoch in wanted if epoch <= run.epoch)):
        refuse("snapshots", sorted(run.snapshots), expected)
    for epoch, found in run.snapshots.items():
        if found.keys() != fields:
            refuse(f"snapshot after epoch {epoch}", sorted(found), sorted(fields))
    for m, values in enumerate(run.betas):
        for epoch, was in enumerate(run.history["beta"][:, m]):
            expected = float(np.float32(values[epoch, -1]))
            if np.isfinite(was) and was != expected:
                refuse(f"beta of members[{m}] in epoch {epoch + 1}", was, expected)


def _same(name, was, value, run):
    """Whether what a checkpoint was made with is what is expected now, for a setting by name."""
    if name == "network":  # format 1 has torch's text of it
        return _same_architecture(was, value) or was == str(run.stack.module)
    if name == "beta":  # format 1 has none, and is judged by its history
        return was is None or all(map(_same_schedule, was, value, run.members, run.betas))
    return was == value


def _same_schedule(was, value, member, values):
    if was is None or value is None or was["epochs"] == value["epochs"]:
        return was == value
    found = values[: was["epochs"]]  # the run may have been longer then, or shorter
    if len(found) < was["epochs"]:
        found = member.betas(was["epochs"], values.shape[1])
    return was["sha256"] == digest(found)


def _same_architecture(one, other):
    """Whether two of `vae.architecture` agree in all constants that both name; a release of torch may add some."""
    if not isinstance(one, list) or len(one) != len(other):
        return False
    for (name, kind, constants), (other_name, other_kind, others) in zip(one, other, strict=True):
        if (name, kind) != (other_name, other_kind):
            return False
        if any(constants[key] != others[key] for key in constants.keys() & others.keys()):
            return False
    return True


def load(path, run, settings):
    """Put the state that `path` holds into `run`, which has just been started with the same settings.

    Parameters
    ----------
    path : path
    run : ensemble.Run
    settings : dict
        What JSON can hold.

    Raises
    ------
    ValueError
        When the file cannot be read, is damaged, is of another format, or was made with other settings; the message
        says which. The run is left as it was.
    """
    path, expected = file_of("path", path), json.loads(_text(settings))
    instance("run", run, Run)
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read one that is not there
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except OSError:
        pass
    try:
        with safe_open(path, framework="pt") as file:
            text, carried = (file.metadata()[name] for name in ("state", "digest"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(text)
        intact = carried == _seal(text, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint: {error}. Remove it to start anew") from error
    if not intact:
        raise ValueError(f"{path} is damaged: its digest or format is not what it says. Remove it to start anew")
    made = state.get("format") if isinstance(state, dict) else None
    if type(made) is not int or not 1 <= made <= FORMAT:
        raise ValueError(f"{path} is of format {made!r:.40}; expected one from 1 to {FORMAT}, which this code reads")
    if not isinstance(state.get("settings"), dict):
        raise ValueError(f"{path} is no whole checkpoint: its settings are missing. Remove it to start anew")
    for name in state["settings"].keys() - expected.keys():
        raise ValueError(f"{path} belongs to another run: it has a setting {name!r:.80}, which this one has not")
    for name, value in expected.items():
        was = state["settings"].get(name)
        try:
            fits = _same(name, was, value, run)
        except (KeyError, TypeError, ValueError):  # of a kind that cannot be compared
            fits = False
        if not fits:
            raise ValueError(f"{path} belongs to another run: its {name} is {was!r:.300}; expected {value!r:.300}")
    try:
        snapshots = _complete(state, tensors, run)
    except KeyError as error:
        raise ValueError(f"{path} is no whole checkpoint: it lacks {error}. Remove it to start anew") from error
    except ValueError as error:
        raise ValueError(f"{path} is no whole checkpoint: its {error}. Remove it to start anew") from error
    run.epoch, run.seconds, run.stopped = state["epoch"], state["seconds"], state["stopped"]
    run.diverged[:] = state["diverged"]
    for name, tensor in run.networks().items():
        tensor.copy_(tensors[name])
    for name in run.history:
        run.history[name] = tensors[f"history/{name}"].numpy()
    run.snapshots.update(snapshots)


def _complete(state, tensors, run):
    """Refuse what `load` could not use, whoever sealed it; the snapshots, by epoch and name."""
    epoch, M = integer("epoch", state["epoch"], 0, 2**31), len(run.members)
    if not isinstance(state["seconds"], (int, float)) or not 0 <= state["seconds"] < float("inf"):
        raise ValueError(f"seconds is {state['seconds']!r:.80}; expected a number from 0")
    if not isinstance(state["stopped"], str):
        raise ValueError(f"stopped is {state['stopped']!r:.80}; expected text")
    if not isinstance(state["diverged"], list) or len(state["diverged"]) != M:
        raise ValueError(f"diverged is {state['diverged']!r:.80}; expected an epoch for each of {M} members")
    for one in state["diverged"]:
        integer("diverged", one, 0, epoch)
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in run.networks().items()}
    shapes |= {f"history/{name}": (torch.float64, (epoch, M)) for name in run.history}
    for name, expected in shapes.items():
        if (found := (tensors[name].dtype, tuple(tensors[name].shape))) != expected:
            raise ValueError(f"{name} is {found[0]} of shape {found[1]}; expected {expected[0]} of {expected[1]}")
    snapshots = {}
    for key in sorted(key for key in tensors if key.startswith("snapshot/")):
        _, after, name = key.split("/")
        if not after.isdecimal() or not 1 <= int(after) <= epoch or tensors[key].ndim != 2 or len(tensors[key]) != M:
            raise ValueError(f"{key} has shape {tuple(tensors[key].shape)}; expected ({M}, k), up to epoch {epoch}")
        snapshots.setdefault(int(after), {})[name] = tensors[key].numpy()
    return snapshots


def _seal(text, tensors):
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name].numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()
