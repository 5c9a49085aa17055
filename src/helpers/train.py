"""The training loop: M VAEs in lock-step, each with its own learning rate, noise variance, beta and seed.

Maximises the ELBO (Eq. 4) of every member with Adam, on minibatches, as section 5.2 of the paper does. Serves
chapters 08 to 11. A run's outcome depends on its arguments alone: what an epoch draws is seeded by the member's
seed and the epoch's number, so a run that was stopped and resumed goes on exactly as if it had not been.
"""

import contextlib
import hashlib
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from helpers import checkpoint, evaluation
from helpers._validation import (
    file_of,
    integer,
    integers,
    non_negative,
    one_of,
    samples,
)
from helpers.ensemble import PRECISIONS, Run, warn_of_long_schedules
from helpers.lockstep import Lockstep, keep_freed_memory
from helpers.vae import find_device


def train(
    build,
    x,
    members,
    epochs,
    batch_size=128,
    *,
    snapshots=(),
    device="cpu",
    precision="float32",
    path=None,
    checkpoint_seconds=60.0,
    budget=None,
):
    """Train one VAE per member, all of one architecture, on the same data.

    Parameters
    ----------
    build : callable
        Makes one VAE; the member's seed decides its weights, the member's sigma2 replaces its own.
    x : (N, ...) ndarray
        uint8, used as x / 255, or float32, used as it is. A tensor or a data frame of these is taken too.
    members : list of ensemble.Member
    epochs : int
        In all, those of a resumed checkpoint included.
    batch_size : int
        At most N. The N mod batch_size samples that fill no minibatch sit out the epoch, others each time.
    snapshots : iterable of int
        Epochs, counted from 1, after which the statistics of every unit are taken.
    device : str or torch.device
        Any that torch knows and finds here.
    precision : {"float32", "tf32", "bfloat16"}
        Of the matrix products. Parameters and Adam are float32 in all three, and an epoch's sums have more digits.
    path : path, optional
        Of the checkpoint: written at the end of an epoch once `checkpoint_seconds` have passed since the last,
        and when the run ends or stops. Where it exists, the run resumes from it. It is locked meanwhile.
    checkpoint_seconds : float
        From 0.
    budget : float, optional
        Seconds, from 0. The run stops before an epoch that would likely pass it, but not before its first.

    Returns
    -------
    ensemble.Run

    Raises
    ------
    ValueError
        When an argument is bad, the network does not fit x, or the checkpoint is damaged or belongs to another run.
    OSError
        When the checkpoint cannot be written, or another run holds it.

    See Also
    --------
    helpers.studies.run : trains what a plan says, and records it.
    helpers.collapse.evaluate : what the trained networks are worth.

    Notes
    -----
    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run after the epoch, with a checkpoint; the next one stops it at once.

    Examples
    --------
    Two VAEs without hidden layers on the digits, side by side, one of them annealed. It takes a second.

    >>> from helpers import data, ensemble, vae
    >>> members = [ensemble.Member(sigma2=0.1), ensemble.Member(sigma2=0.1, beta=ensemble.LinearAnnealing(2))]
    >>> run = train(lambda: vae.mlp(n=64, hidden=(), k=5), data.digits_bytes(), members, epochs=2)
    >>> run.epoch, run.history["elbo"].shape, run.history["beta"].round(2).tolist()
    (2, (2, 2), [[1.0, 0.46], [1.0, 0.96]])
    >>> bool((run.history["elbo"][1] > run.history["elbo"][0]).all())  # each is better after its second epoch
    True
    """
    began = time.monotonic()
    x, snapshots, device = checked(
        x, epochs, batch_size, snapshots, device, precision, path, checkpoint_seconds, budget
    )
    warn_of_long_schedules(members, epochs)
    run = Run.start(build, members, torch.tensor(x[:2]), epochs, len(x) // batch_size, device)
    settings = checkpoint.identity(run, hashlib.sha256(x).hexdigest(), batch_size, precision)
    with contextlib.ExitStack() as held:
        if path is not None:
            held.enter_context(checkpoint.alone(path))
            if Path(path).exists():
                checkpoint.resume(path, run, settings, snapshots)
        if device.type == "cpu":
            keep_freed_memory()
        data = torch.tensor(x, device=device)
        lockstep = Lockstep(run, data, batch_size, precision)
        before, saved, longest = run.seconds, began, 0.0
        per_epoch = lockstep.steps * batch_size * len(members)
        bar = tqdm(total=epochs * per_epoch, initial=run.epoch * per_epoch, unit="sample", unit_scale=True, delay=2)
        held.enter_context(bar)
        interrupted = held.enter_context(interrupts())
        while run.epoch < epochs and not run.stopped:
            start = time.monotonic()
            lockstep.epoch(bar)
            if run.epoch in snapshots:
                run.snapshots[run.epoch] = evaluation.unit_statistics(run.stack, data)
            now = time.monotonic()
            longest, run.seconds = max(longest, now - start), before + now - began
            if run.epoch < epochs:
                late = budget is not None and now - began + longest > budget
                run.stopped = "interrupt" if interrupted.is_set() else "budget" if late else ""
            if path is not None and (run.epoch == epochs or run.stopped or now - saved >= checkpoint_seconds):
                checkpoint.save(path, run, settings)
                saved = time.monotonic()
    return run


def checked(x, epochs, batch_size, snapshots, device, precision, path, checkpoint_seconds, budget):
    """Of the arguments of `train`, x as a plain array, the epochs of the snapshots and the device.

    Parameters
    ----------
    x, epochs, batch_size, snapshots, device, precision, path, checkpoint_seconds, budget
        As for `train`.

    Returns
    -------
    x : (N, ...) ndarray
    snapshots : set of int
    device : torch.device

    Raises
    ------
    ValueError
        When one is bad.
    """
    x = samples("x", x)
    if x.dtype == np.float32:
        if (largest := float(np.abs(x).max())) ** 2 * x[0].size > float(np.finfo(np.float32).max):
            raise ValueError(f"x has entries up to {largest:.3g}, whose squares float32 cannot hold: rescale it")
    integer("epochs", epochs, 1, 2**31)
    integer("batch_size", batch_size, 1, len(x))
    snapshots = integers("snapshots", snapshots, 1, epochs)
    one_of("precision", precision, PRECISIONS)
    if path is not None:
        file_of("path", path)
    non_negative("checkpoint_seconds", checkpoint_seconds)
    if budget is not None:
        non_negative("budget", budget)
    return np.ascontiguousarray(x), snapshots, find_device(device)


@contextlib.contextmanager
def interrupts():
    """An event that the first SIGINT, SIGTERM or SIGHUP sets; the next one does at once what it ever did."""
    asked, before = threading.Event(), {}
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield asked
        return

    def give_back():
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number, frame):
        give_back()
        asked.set()
        with contextlib.suppress(OSError):  # whoever hung up may have taken the terminal, or the pipe, along
            tqdm.write("Stopping after this epoch; interrupt again to stop at once.", file=sys.stderr)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has them all
        # What is ignored stays so, as under nohup; None is a handler that is not Python's.
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        give_back()
