"""Checkpoints of a run: one safetensors file, its settings and state as JSON in the header. Serves `train`."""

import contextlib
import hashlib
import json
import os

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers._files import remove_parts, whole
from helpers._validation import brief, file_of, instance, integer, non_negative

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
    OSError
        When another holds it, or nothing can be written there.
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

    Raises
    ------
    OSError
        When it cannot be written, say because the disk is full; what was at `path` stays.
    """
    path, settings = file_of("path", path), json.loads(_text(settings))
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in _tensors(run)}
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
            save_file(tensors, part, metadata={"state": text, "digest": _digest(text, tensors)})
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


def load(path, run, settings, same=lambda name, was, value: was == value):
    """Put the state that `path` holds into `run`, which has just been started with the same settings.

    Parameters
    ----------
    path : path
    run : train.Run
    settings : dict
        What JSON can hold.
    same : callable
        Of a setting's name, what it is in the file and what is expected: whether these are one run's. If equal, by
        default.

    Raises
    ------
    ValueError
        When the file cannot be read, is damaged, is of another format, or was made with other settings; the message
        says which. The run is left as it was.
    """
    path, expected = file_of("path", path), json.loads(_text(settings))
    _refuse_no_run(run)
    if not callable(same):
        raise ValueError(f"same is {brief(same)}; expected a function of a setting's name and two values of it")
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read one that is not there
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except OSError:
        pass
    try:
        with safe_open(path, framework="pt") as file:
            text, digest = (file.metadata()[name] for name in ("state", "digest"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(text)
        whole = digest == _digest(text, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint: {error}. Remove it to start anew") from error
    if not whole:
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
            fits = same(name, was, value)
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
    for name, tensor in _networks(run):
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
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in _networks(run)}
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


def _refuse_no_run(run):
    if missing := [name for name in ("members", "stack", "adam", "history", "diverged") if not hasattr(run, name)]:
        raise ValueError(f"run is {brief(run)}, without {', '.join(missing)}; expected a train.Run")


def _networks(run):
    for kind, dictionary in zip(("parameter", "exp_avg", "exp_avg_sq"), (run.stack.parameters, *run.adam), strict=True):
        for name, tensor in dictionary.items():
            yield f"{kind}/{name}", tensor.detach()


def _tensors(run):
    _refuse_no_run(run)
    yield from _networks(run)
    for name, values in run.history.items():
        yield f"history/{name}", torch.from_numpy(values)
    for epoch, statistics in run.snapshots.items():
        for name, values in statistics.items():
            yield f"snapshot/{epoch}/{name}", torch.from_numpy(np.ascontiguousarray(values))


def _digest(text, tensors):
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name].numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()
