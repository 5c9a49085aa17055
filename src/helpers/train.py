"""The training loop: M VAEs in lock-step, each with its own learning rate, noise variance, beta and seed.

Maximises the ELBO (Eq. 4) of every member with Adam, on minibatches, as section 5.2 of the paper does. Serves
chapters 08 to 11. A run's outcome depends on its arguments alone: what an epoch draws is seeded by the member's
seed and the epoch's number, so a run that was stopped and resumed goes on exactly as if it had not been.
"""

import contextlib
import dataclasses
import hashlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from helpers import checkpoint, collapse
from helpers._validation import finite_array, integer, positive
from helpers.lockstep import HISTORY, PRECISIONS, Lockstep, rows_at_a_time, scaled
from helpers.vae import Stack

RULES = ("fixed", "adam", "closed form")


@dataclass(frozen=True)
class LinearAnnealing:
    """beta rising from 0 at the first step to 1 after `epochs` epochs, a little at each step."""

    epochs: float

    def __call__(self, elapsed):
        return min(1.0, elapsed / self.epochs)


@dataclass(frozen=True)
class Member:
    """What one member of a run has of its own.

    Parameters
    ----------
    seed : int
        Of the initial weights, the order of the minibatches and the noise.
    learning_rate : float
        Of Adam, for every parameter, log sigma2 among them.
    sigma2 : float
        The noise variance, or its initial value where it is learned.
    sigma2_rule : {"fixed", "adam", "closed form"}
        Kept; a parameter like the others; or set to SSE / n, its best value, after each epoch.
    beta : float or callable
        Weight of the KL term, or its schedule: a function of the epochs elapsed, fractions included.
    """

    seed: int = 0
    learning_rate: float = 1e-3
    sigma2: float = 1.0
    sigma2_rule: str = "fixed"
    beta: float | Callable[[float], float] = 1.0

    def __post_init__(self):
        checked = {
            "seed": integer("seed", self.seed, 0, 2**32 - 1),
            "learning_rate": positive("learning_rate", self.learning_rate),
            "sigma2": positive("sigma2", self.sigma2),
        }
        if self.sigma2_rule not in RULES:
            raise ValueError(f"sigma2_rule is {self.sigma2_rule!r}; expected one of {RULES}")
        if not callable(self.beta):
            checked["beta"] = float(finite_array("beta", self.beta, ()))
            if checked["beta"] < 0:
                raise ValueError(f"beta is {self.beta}; expected a number from 0 or a function of the epochs elapsed")
        for name, value in checked.items():  # plain numbers, which JSON takes
            object.__setattr__(self, name, value)

    def beta_at(self, elapsed):
        """The weight of the KL term after `elapsed` epochs."""
        return self.beta(elapsed) if callable(self.beta) else self.beta

    def describe(self):
        """The settings as text, the same in every process; a bare function stands there under its name."""
        beta = self.beta
        if callable(beta) and not dataclasses.is_dataclass(beta):
            beta = getattr(beta, "__qualname__", type(beta).__qualname__)
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "beta": str(beta)}


@dataclass
class Run:
    """A run, finished or under way.

    Attributes
    ----------
    members : list of Member
    stack : Stack
    epoch : int
        Epochs done.
    history : dict of str to (epochs done, M) ndarray
        "elbo", "sse" and "kl": averages per sample over the minibatches of the epoch, each with the parameters
        it met and one noise sample; "sigma2" and "beta" at the epoch's end. NaN from the epoch a member diverged.
    snapshots : dict of int to dict of str to (M, k) ndarray
        `collapse.unit_statistics` over all data, after each epoch that was asked for.
    diverged : (M,) ndarray of int
        The epoch in which a member met NaN or infinity, counted from 1; 0 for the others. It keeps the
        parameters of the epoch before.
    seconds : float
        Time spent, over all resumptions.
    stopped : str
        "" when all epochs are done, else why not: "budget" or "interrupt".
    """

    members: list
    stack: Stack
    adam: tuple  # its averages of the gradient and of its square, named and shaped like stack.parameters
    history: dict
    diverged: np.ndarray
    epoch: int = 0
    snapshots: dict = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str = ""


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
        uint8, used as x / 255, or float32, used as it is.
    members : list of Member
    epochs : int
        In all, those of a resumed checkpoint included.
    batch_size : int
        At most N. The N mod batch_size samples that fill no minibatch sit out the epoch, others each time.
    snapshots : iterable of int
        Epochs, counted from 1, after which the statistics of every unit are taken.
    device : str or torch.device
    precision : {"float32", "tf32", "bfloat16"}
        Of the matrix products. Parameters, sums and Adam are float32 in all three.
    path : path, optional
        Of the checkpoint: written at the end of an epoch once `checkpoint_seconds` have passed since the last,
        and when the run ends or stops. Where it exists, the run resumes from it.
    budget : float, optional
        Seconds. The run stops before an epoch that would likely pass it.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        When an argument is bad, or the checkpoint is damaged or belongs to another run.
    """
    began = time.monotonic()
    snapshots = list(snapshots)
    x, device = _checked(x, members, epochs, batch_size, snapshots, device, precision, budget)
    run = _start(build, members, device)
    settings = {
        "members": [member.describe() for member in members],
        "network": str(run.stack.module),
        "parameters": {name: list(p.shape) for name, p in run.stack.parameters.items()},
        "data": hashlib.sha256(x).hexdigest(),
        "batch_size": int(batch_size),
        "precision": precision,
    }
    if path is not None and Path(path).exists():
        checkpoint.load(path, run, settings)
        run.stopped = ""
    data = torch.tensor(x, device=device)
    lockstep = Lockstep(run, data, batch_size, precision)
    before, saved, longest = run.seconds, began, 0.0
    per_epoch = lockstep.steps * batch_size * len(members)
    bar = tqdm(total=epochs * per_epoch, initial=run.epoch * per_epoch, unit="sample", unit_scale=True, delay=2)
    with bar, _interrupts() as interrupted:
        while run.epoch < epochs and not run.stopped:
            start = time.monotonic()
            lockstep.epoch(bar)
            if run.epoch in snapshots:
                run.snapshots[run.epoch] = unit_statistics(run.stack, data)
            now = time.monotonic()
            longest, run.seconds = max(longest, now - start), before + now - began
            if run.epoch < epochs:
                late = budget is not None and now - began + longest > budget
                run.stopped = "interrupt" if interrupted.is_set() else "budget" if late else ""
            if path is not None and (run.epoch == epochs or run.stopped or now - saved >= checkpoint_seconds):
                checkpoint.save(path, run, settings)
                saved = time.monotonic()
    return run


def _checked(x, members, epochs, batch_size, snapshots, device, precision, budget):
    if not isinstance(x, np.ndarray) or x.dtype not in (np.uint8, np.float32) or x.ndim < 2 or not x.size:
        got = f"{x.dtype} array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"x is {got}; expected a uint8 or float32 array (N, ...)")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise ValueError("x contains NaN or infinity; expected finite numbers")
    if not members or not all(isinstance(member, Member) for member in members):
        raise ValueError(f"members is {members!r:.80}; expected a list of at least one Member")
    integer("epochs", epochs, 1, 2**31)
    integer("batch_size", batch_size, 1, len(x))
    for epoch in snapshots:
        integer("snapshots", epoch, 1, epochs)
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {PRECISIONS}")
    if budget is not None:
        finite_array("budget", budget, ())
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is {device!r}; expected 'cpu' or 'cuda'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {str(device)!r}, but torch finds no GPU here; expected 'cpu'")
    return np.ascontiguousarray(x), device


def _start(build, members, device):
    modules = []
    for member in members:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(member.seed)
            modules.append(build())
        with torch.no_grad():
            modules[-1].log_sigma2.fill_(math.log(member.sigma2))
    stack, M = Stack(modules, device), len(members)
    adam = tuple({name: torch.zeros_like(p) for name, p in stack.parameters.items()} for _ in range(2))
    return Run(members, stack, adam, {name: np.empty((0, M)) for name in HISTORY}, np.zeros(M, np.int64))


@torch.no_grad()
def unit_statistics(stack, data):
    """`collapse.unit_statistics` of every member over all of `data`, each (M, k); NaN where one is beyond float32."""
    rows = []
    for m in range(len(stack)):
        encode = stack.member(m).encode
        outputs = [encode(scaled(batch)) for batch in data.split(rows_at_a_time(data[0].numel()))]
        mean, logvar = (torch.cat(part) for part in zip(*outputs, strict=True))
        try:
            rows.append(collapse.unit_statistics(mean, logvar)._asdict())
        except ValueError:  # after a learning rate far too large; the other members are not to suffer for it
            nan = np.full(mean.shape[1], np.nan)
            rows.append(dict.fromkeys(collapse.UnitStatistics._fields, nan))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@contextlib.contextmanager
def _interrupts():
    """An event that the first SIGINT sets; a second one interrupts at once, as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield asked
        return

    def ask(number, frame):
        signal.signal(signal.SIGINT, before)
        asked.set()
        tqdm.write("Stopping after this epoch; interrupt again to stop at once.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
