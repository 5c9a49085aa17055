"""Checkpoints of a run: one safetensors file, its settings and state as JSON in the header. Serves `train`."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

FORMAT = 1


def save(path, run, settings):
    """Write the run to `path` so that the file there is at every moment a whole one, old or new.

    Raises
    ------
    OSError
        When it cannot be written, say because the disk is full; what was at `path` stays.
    """
    path = Path(path)
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
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"state": text, "digest": _digest(text, tensors)})
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(f"the checkpoint {path} could not be written: {error}") from error


def load(path, run, settings):
    """Put the state that `path` holds into `run`, which has just been started with the same settings.

    Raises
    ------
    ValueError
        When the file is damaged, or was made with other settings; the message says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text, digest = (file.metadata()[name] for name in ("state", "digest"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(text)
        whole = digest == _digest(text, tensors) and state["format"] == FORMAT
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint: {error}. Remove it to start anew") from error
    if not whole:
        raise ValueError(f"{path} is damaged: its digest or format is not what it says. Remove it to start anew")
    for name, value in settings.items():
        if json.loads(json.dumps(value)) != state["settings"].get(name):
            was = state["settings"].get(name)
            raise ValueError(f"{path} belongs to another run: its {name} is {was!r:.300}; expected {value!r:.300}")
    run.epoch, run.seconds, run.stopped = state["epoch"], state["seconds"], state["stopped"]
    run.diverged[:] = state["diverged"]
    for name, tensor in _networks(run):
        tensor.copy_(tensors[name])
    for name in run.history:
        run.history[name] = tensors[f"history/{name}"].numpy()
    for key in sorted(key for key in tensors if key.startswith("snapshot/")):
        _, epoch, name = key.split("/")
        run.snapshots.setdefault(int(epoch), {})[name] = tensors[key].numpy()


def _networks(run):
    for kind, dictionary in zip(("parameter", "exp_avg", "exp_avg_sq"), (run.stack.parameters, *run.adam), strict=True):
        for name, tensor in dictionary.items():
            yield f"{kind}/{name}", tensor.detach()


def _tensors(run):
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
