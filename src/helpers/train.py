"""The training loop: M VAEs in lock-step, each with its own learning rate, noise variance, beta and seed.

Maximises the ELBO (Eq. 4) of every member with Adam, on minibatches, as section 5.2 of the paper does. Serves
chapters 08 to 11. A run's outcome depends on its arguments alone: what an epoch draws is seeded by the member's
seed and the epoch's number, so a run that was stopped and resumed goes on exactly as if it had not been.
"""

import contextlib
import dataclasses
import hashlib
import math
import numbers
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from helpers import checkpoint, collapse
from helpers._validation import (
    brief,
    file_of,
    finite_array,
    instance,
    integer,
    non_negative,
    one_of,
    plain_array,
    positive,
    refuse_not_finite,
)
from helpers.lockstep import HISTORY, PRECISIONS, Lockstep, measurable, rows_at_a_time, scaled
from helpers.vae import Stack, architecture, find_device

RULES = ("fixed", "adam", "closed form")
MOST_STEPS = 2**26  # of a run whose beta changes: it is read at each before the first


@dataclass(frozen=True)
class LinearAnnealing:
    """beta rising from 0 at the first step to 1 after `epochs` epochs, a little at each step; `epochs` above 0."""

    epochs: float

    def __post_init__(self):
        epochs = positive("epochs", self.epochs)  # a plain number of its kind, which its text shows
        object.__setattr__(self, "epochs", int(epochs) if isinstance(self.epochs, numbers.Integral) else epochs)

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
        Weight of the KL term, or its schedule: a function of the epochs elapsed, fractions included. It is read at
        every step before the training begins. A frozen dataclass of numbers says what it is; what any other function
        is, its values say.
    decay : float
        Share of the epochs, the last ones, over which the learning rate falls linearly towards 0; 0 to 1.
    """

    seed: int = 0
    learning_rate: float = 1e-3
    sigma2: float = 1.0
    sigma2_rule: str = "fixed"
    beta: float | Callable[[float], float] = 1.0
    decay: float = 0.0

    def __post_init__(self):
        checked = {
            "seed": integer("seed", self.seed, 0, 2**32 - 1),
            "learning_rate": positive("learning_rate", self.learning_rate),
            "sigma2": positive("sigma2", self.sigma2),
            "decay": non_negative("decay", self.decay),
        }
        if checked["decay"] > 1:
            raise ValueError(f"decay is {self.decay}; expected a share of the epochs, 0 to 1")
        one_of("sigma2_rule", self.sigma2_rule, RULES)
        if isinstance(self.beta, type):
            raise ValueError(f"beta is the class {self.beta.__name__}; expected a number or a function")
        if not callable(self.beta):
            checked["beta"] = non_negative("beta", self.beta)
        for name, value in checked.items():  # plain numbers, which JSON takes
            object.__setattr__(self, name, value)

    def beta_at(self, elapsed):
        """The weight of the KL term after `elapsed` epochs."""
        elapsed = non_negative("elapsed", elapsed)
        return self.beta(elapsed) if callable(self.beta) else self.beta

    def rate_at(self, epoch, epochs):
        """The learning rate in an epoch, counted from 0, of so many."""
        integer("epoch", epoch, 0, integer("epochs", epochs, 1, 2**31) - 1)
        falling = self.decay * epochs
        return self.learning_rate * min(1.0, (epochs - epoch) / falling if falling else 1.0)

    def describe(self, values=None):
        """The settings as plain values, the same in every process; beta as text, and decay only where there is one.

        A schedule that does not say what it is stands there under its name, and with a digest of `values`, (epochs,
        steps), where these are given: what it was at every step.
        """
        beta = self.beta
        if values is not None:
            values = finite_array("values", values, ("epochs", "steps"))
        if callable(beta) and not _says_itself(beta):
            beta = getattr(beta, "__qualname__", type(beta).__qualname__)
            if values is not None:
                beta = f"{beta}, sha256 {_digest(values)[:16]} of {len(values)} epochs"
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"beta": str(beta)}
        return settings if self.decay else {name: value for name, value in settings.items() if name != "decay"}


def _says_itself(beta):
    """Whether a schedule is a frozen dataclass of numbers, whose text is all of it."""
    parameters = getattr(type(beta), "__dataclass_params__", None)
    return (
        parameters is not None
        and parameters.frozen
        and parameters.repr
        and all(f.repr and type(getattr(beta, f.name)) in (int, float) for f in dataclasses.fields(beta))
    )


def _digest(values):
    return hashlib.sha256(np.ascontiguousarray(values, "<f4")).hexdigest()


def _values(member, m, epochs, steps):
    """beta at every step of a run, (epochs, steps), all checked."""
    if not callable(member.beta):
        values = np.broadcast_to(member.beta, (epochs, steps))
    elif epochs * steps > MOST_STEPS:
        raise ValueError(
            f"epochs is {epochs}; expected at most {MOST_STEPS // steps}, of {steps} steps, where beta changes"
        )
    else:
        values = np.empty((epochs, steps))
        for epoch in range(epochs):
            for step in range(steps):
                value = member.beta(epoch + step / steps)
                if not isinstance(value, (float, np.floating)):
                    value = finite_array(f"beta of members[{m}] in epoch {epoch + 1}", value, ())
                values[epoch, step] = value
    with np.errstate(over="ignore"):
        read = values if callable(member.beta) else values[:1, :1]
        bad = np.argwhere(~((read >= 0) & np.isfinite(read.astype(np.float32))))
    if len(bad):
        (epoch, step), at = bad[0], f" in epoch {bad[0][0] + 1}" if callable(member.beta) else ""
        value = values[epoch, step]
        raise ValueError(f"beta of members[{m}] is {value}{at}; expected a finite number from 0, in float32")
    return values


def warn_of_long_schedules(members, epochs):
    """Warn of members whose beta says after how many epochs it has come to its end, where the run is shorter."""
    _refuse_no_members(members)
    integer("epochs", epochs, 1, 2**31)
    for m, member in enumerate(members):
        wanted = getattr(member.beta, "epochs", None)
        if callable(member.beta) and isinstance(wanted, (int, float)) and wanted > epochs:
            message = f"beta of members[{m}] comes to its end after {wanted:g} epochs; the run has {epochs}"
            warnings.warn(message, stacklevel=3)


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
    betas : list of (epochs, steps) ndarray
        Each member's weight of the KL term at every step.
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
    betas: list = field(default_factory=list)  # of every member, at every step (epochs, steps)


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
    members : list of Member
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
    Run

    Raises
    ------
    ValueError
        When an argument is bad, the network does not fit x, or the checkpoint is damaged or belongs to another run.
    OSError
        When the checkpoint cannot be written, or another run holds it.

    Notes
    -----
    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run after the epoch, with a checkpoint; the next one stops it at once.
    """
    began = time.monotonic()
    x, snapshots, device = _checked(
        build, x, members, epochs, batch_size, snapshots, device, precision, path, checkpoint_seconds, budget
    )
    members, steps = list(members), len(x) // batch_size
    betas = [_values(member, m, epochs, steps) for m, member in enumerate(members)]
    warn_of_long_schedules(members, epochs)
    run = _start(build, members, device)
    run.betas = betas
    _refuse_misfit(run.stack, torch.tensor(x[:2]))
    settings = {
        "members": [member.describe() for member in members],
        "network": architecture(run.stack.module),
        "parameters": {name: list(p.shape) for name, p in run.stack.parameters.items()},
        "data": hashlib.sha256(x).hexdigest(),
        "batch_size": int(batch_size),
        "precision": precision,
        "beta": [_identity(member, values) for member, values in zip(members, betas, strict=True)],
    }
    if any(member.decay for member in members):
        settings["epochs"] = epochs  # of which it is a share
    with contextlib.ExitStack() as held:
        if path is not None:
            held.enter_context(checkpoint.alone(path))
            if Path(path).exists():
                _resume(path, run, settings, epochs, snapshots)
        data = torch.tensor(x, device=device)
        lockstep = Lockstep(run, data, batch_size, precision)
        before, saved, longest = run.seconds, began, 0.0
        per_epoch = steps * batch_size * len(members)
        bar = tqdm(total=epochs * per_epoch, initial=run.epoch * per_epoch, unit="sample", unit_scale=True, delay=2)
        held.enter_context(bar)
        interrupted = held.enter_context(_interrupts())
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


def _identity(member, values):
    """What a checkpoint knows a schedule by: its values over all epochs it was made for. None for a number."""
    return {"epochs": len(values), "sha256": _digest(values)} if callable(member.beta) else None


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


def _resume(path, run, settings, epochs, snapshots):
    """Take over what the checkpoint holds, or raise ``ValueError`` where it is another run's."""

    def same(name, was, value):
        if name == "network":  # format 1 has torch's text of it
            return _same_architecture(was, value) or was == str(run.stack.module)
        if name == "beta":  # format 1 has none, and is judged by its history, below
            return was is None or all(map(same_beta, was, value, range(len(run.members))))
        return was == value

    def same_beta(was, value, m):
        if was is None or value is None or was["epochs"] == value["epochs"]:
            return was == value
        values = run.betas[m][: was["epochs"]]  # the run may have been longer then, or shorter
        if len(values) < was["epochs"]:
            values = _values(run.members[m], m, was["epochs"], values.shape[1])
        return was["sha256"] == _digest(values)

    def refuse(what, was, expected):
        raise ValueError(f"{path} belongs to another run: its {what} is {was}; expected {expected}")

    checkpoint.load(path, run, settings, same)
    run.stopped = ""
    if run.epoch > epochs:
        refuse("epochs", run.epoch, f"at most {epochs}")
    if sorted(run.snapshots) != (expected := sorted(epoch for epoch in set(snapshots) if epoch <= run.epoch)):
        refuse("snapshots", sorted(run.snapshots), expected)
    for epoch, found in run.snapshots.items():
        if found.keys() != set(collapse.UnitStatistics._fields):
            refuse(f"snapshot after epoch {epoch}", sorted(found), sorted(collapse.UnitStatistics._fields))
    for m, values in enumerate(run.betas):
        for epoch, was in enumerate(run.history["beta"][:, m]):
            expected = float(np.float32(values[epoch, -1]))
            if np.isfinite(was) and was != expected:
                refuse(f"beta of members[{m}] in epoch {epoch + 1}", was, expected)


def _refuse_no_members(members):
    if not isinstance(members, (list, tuple)) or not members or not all(isinstance(one, Member) for one in members):
        raise ValueError(f"members is {brief(members)}; expected a list of at least one Member")


def _checked(build, x, members, epochs, batch_size, snapshots, device, precision, path, checkpoint_seconds, budget):
    """x as a plain array, the epochs of the snapshots and the device; ``ValueError`` where an argument is bad."""
    expected = "a uint8 or float32 array (N, ...)"
    if isinstance(x, (list, tuple, str, bytes, dict)) or x is None:
        raise ValueError(f"x is {type(x).__name__}; expected {expected}")
    x = plain_array("x", x, expected)
    if x.dtype not in (np.uint8, np.float32) or x.ndim < 2 or not x.size:
        remedy = ": uint8 holds 0 to 255 and is used as x / 255, float32 as it is; take .astype of the one you mean"
        remedy = "" if x.dtype in (np.uint8, np.float32) else remedy
        raise ValueError(f"x is {x.dtype} array of shape {x.shape}; expected {expected}{remedy}")
    if x.dtype == np.float32:
        refuse_not_finite("x", x)
        if (largest := float(np.abs(x).max())) ** 2 * x[0].size > float(np.finfo(np.float32).max):
            raise ValueError(f"x has entries up to {largest:.3g}, whose squares float32 cannot hold: rescale it")
    _refuse_no_members(members)
    integer("epochs", epochs, 1, 2**31)
    integer("batch_size", batch_size, 1, len(x))
    if not callable(build) or isinstance(build, torch.nn.Module):
        raise ValueError(f"build is {brief(build)}; expected what makes a VAE")
    if isinstance(snapshots, (str, bytes)) or not np.iterable(snapshots):
        raise ValueError(f"snapshots is {brief(snapshots)}; expected a list of epochs")
    snapshots = [integer("snapshots", epoch, 1, epochs) for epoch in snapshots]
    one_of("precision", precision, PRECISIONS)
    if path is not None:
        file_of("path", path)
    non_negative("checkpoint_seconds", checkpoint_seconds)
    if budget is not None:
        non_negative("budget", budget)
    return np.ascontiguousarray(x), snapshots, find_device(device)


@torch.no_grad()
def _refuse_misfit(stack, x):
    """Raise ``ValueError`` unless the networks make of two samples, on the host, what those of a VAE do."""
    x, M = scaled(x), len(stack)
    if types := sorted({str(p.dtype) for p in stack.parameters.values()} - {"torch.float32"}):
        raise ValueError(f"build makes parameters of {types[0]}; expected torch.float32")
    stack = Stack([stack.member(m).to("cpu") for m in range(M)])
    model = stack.member(0)
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        try:
            mean, logvar = model.encode(x)
            if mean.ndim != 2 or len(mean) != len(x) or logvar.shape != mean.shape:
                shapes = f"{tuple(mean.shape)} and {tuple(logvar.shape)}"
                raise ValueError(f"encode gives shapes {shapes} for x {tuple(x.shape)}; expected (B, k) twice")
            noise = torch.zeros_like(mean)
            output = model.decode(noise)
            if output.shape != x.shape:
                shapes = f"{tuple(output.shape)}; expected x's, {tuple(x.shape)}"
                raise ValueError(f"the decoder's output has shape {shapes}")
            for term in model(x, noise):
                if tuple(term.shape) != (len(x),):
                    raise ValueError(f"forward gives a term of shape {tuple(term.shape)}; expected ({len(x)},)")
            if torch.equal(torch.get_rng_state(), before):
                stack(x.expand(M, *x.shape), noise.expand(M, *noise.shape))
        except (RuntimeError, TypeError, AttributeError, LookupError) as error:
            message = f"build makes a network that does not fit x, of shape {tuple(x.shape[1:])} a sample: {error}"
            raise ValueError(message) from error
        if not torch.equal(torch.get_rng_state(), before):
            raise ValueError("build makes a network that draws random numbers; expected a function of its input alone")


def _start(build, members, device):
    modules = []
    for member in members:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(member.seed)
            modules.append(build())
        if not isinstance(getattr(modules[-1], "log_sigma2", None), torch.nn.Parameter):
            raise ValueError(f"build makes {brief(modules[-1])}; expected a VAE")
        with torch.no_grad():
            modules[-1].log_sigma2.fill_(math.log(member.sigma2))
    stack, M = Stack(modules, device), len(members)
    adam = tuple({name: torch.zeros_like(p) for name, p in stack.parameters.items()} for _ in range(2))
    betas = [np.broadcast_to(member.beta, (2**20, 2**20)) for member in members]  # for a benchmark, which has no plan
    return Run(members, stack, adam, {name: np.empty((0, M)) for name in HISTORY}, np.zeros(M, np.int64), betas=betas)


@torch.no_grad()
def unit_statistics(stack, data):
    """`collapse.unit_statistics` of every member over all of `data`, each (M, k); NaN where one is beyond float32."""
    instance("stack", stack, Stack)
    if not isinstance(data, torch.Tensor) or data.ndim < 2 or not len(data) or data.is_meta:
        raise ValueError(f"data is {brief(data)}; expected a tensor (N, ...)")
    rows = []
    for m in range(len(stack)):
        encode = stack.member(m).encode
        outputs = [encode(scaled(batch)) for batch in data.split(rows_at_a_time(data[0].numel()))]
        mean, logvar = (torch.cat(part) for part in zip(*outputs, strict=True))
        if measurable(mean, logvar):
            rows.append(collapse.unit_statistics(mean, logvar)._asdict())
        else:  # after a learning rate far too large; the other members are not to suffer for it
            nan = np.full(mean.shape[1], np.nan)
            rows.append(dict.fromkeys(collapse.UnitStatistics._fields, nan))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@contextlib.contextmanager
def _interrupts():
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
