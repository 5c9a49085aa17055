"""Many VAEs that train as one: what each member is, their parameters side by side, and how far the run has come.

Serves `train`, and chapter 08, which derives why M together are M apart.
"""

import copy
import dataclasses
import hashlib
import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from helpers._validation import brief, finite_array, instance, integer, non_negative, one_of, positive, words
from helpers.vae import architecture, find_device, scaled

RULES = ("fixed", "adam", "closed form")
PRECISIONS = ("float32", "tf32", "bfloat16")
HISTORY = ("elbo", "sse", "kl", "sigma2", "beta")
MOST_STEPS = 2**26  # of a run whose beta changes: it is read at each before the first
# Layers whose output is no function of their input alone.
DRAWS = (nn.modules.dropout._DropoutNd, nn.RReLU)
REMEMBERS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class LinearAnnealing:
    """beta rising from 0 at the first step to 1 after `epochs` epochs, a little at each step; `epochs` above 0.

    See Also
    --------
    Member : takes it as its `beta`.

    Examples
    --------
    >>> beta = LinearAnnealing(epochs=10)
    >>> beta(0), beta(5), beta(20)
    (0.0, 0.5, 1.0)
    """

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

    See Also
    --------
    helpers.train.train : trains several of them on one data set.

    Examples
    --------
    >>> member = Member(seed=1, sigma2=0.1, beta=LinearAnnealing(4), decay=0.5)
    >>> member.beta_at(1), member.rate_at(epoch=0, epochs=10), member.rate_at(epoch=9, epochs=10)
    (0.25, 0.001, 0.0002)
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

    def betas(self, epochs, steps, name="beta"):
        """The weight of the KL term at every step of a run, all checked.

        Parameters
        ----------
        epochs, steps : int
            Epochs in all, and steps in each.
        name : str
            What messages call it.

        Returns
        -------
        (epochs, steps) ndarray

        Raises
        ------
        ValueError
            When a weight is below 0 or not finite in float32, or there would be too many of them to read.
        """
        epochs, steps, name = (
            integer("epochs", epochs, 1, 2**31),
            integer("steps", steps, 1, 2**31),
            words("name", name),
        )
        if not callable(self.beta):
            values = np.broadcast_to(self.beta, (epochs, steps))
        elif epochs * steps > MOST_STEPS:
            raise ValueError(
                f"epochs is {epochs}; expected at most {MOST_STEPS // steps}, of {steps} steps, where beta changes"
            )
        else:
            values = np.empty((epochs, steps))
            for epoch in range(epochs):
                for step in range(steps):
                    value = self.beta(epoch + step / steps)
                    if not isinstance(value, (float, np.floating)):
                        value = finite_array(f"{name} in epoch {epoch + 1}", value, ())
                    values[epoch, step] = value
        with np.errstate(over="ignore"):
            read = values if callable(self.beta) else values[:1, :1]
            bad = np.argwhere(~((read >= 0) & np.isfinite(read.astype(np.float32))))
        if len(bad):
            (epoch, step), at = bad[0], f" in epoch {bad[0][0] + 1}" if callable(self.beta) else ""
            raise ValueError(f"{name} is {values[epoch, step]}{at}; expected a finite number from 0, in float32")
        return values

    def rate_at(self, epoch, epochs):
        """The learning rate in an epoch.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        epochs : int
            Of the whole run.

        Returns
        -------
        float
        """
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
                beta = f"{beta}, sha256 {digest(values)[:16]} of {len(values)} epochs"
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"beta": str(beta)}
        return settings if self.decay else {name: value for name, value in settings.items() if name != "decay"}


def digest(values):
    """Checksum (sha256, hex) of `values`, what a beta was at every step, (epochs, steps), in float32."""
    values = finite_array("values", values, ("epochs", "steps"))
    return hashlib.sha256(np.ascontiguousarray(values, "<f4")).hexdigest()


def _says_itself(beta):
    """Whether a schedule is a frozen dataclass of numbers, whose text is all of it."""
    parameters = getattr(type(beta), "__dataclass_params__", None)
    return (
        parameters is not None
        and parameters.frozen
        and parameters.repr
        and all(f.repr and type(getattr(beta, f.name)) in (int, float) for f in dataclasses.fields(beta))
    )


def _refuse_no_members(members):
    if not isinstance(members, (list, tuple)) or not members or not all(isinstance(one, Member) for one in members):
        raise ValueError(f"members is {brief(members)}; expected a list of at least one Member")


def warn_of_long_schedules(members, epochs):
    """Warn of members whose beta says after how many epochs it has come to its end, where the run is shorter.

    Parameters
    ----------
    members : list of Member
    epochs : int
        Of the run.
    """
    _refuse_no_members(members)
    integer("epochs", epochs, 1, 2**31)
    for m, member in enumerate(members):
        wanted = getattr(member.beta, "epochs", None)
        if callable(member.beta) and isinstance(wanted, (int, float)) and wanted > epochs:
            message = f"beta of members[{m}] comes to its end after {wanted:g} epochs; the run has {epochs}"
            warnings.warn(message, stacklevel=3)


class Stack:
    """M networks of one architecture, evaluated together: each parameter is one tensor (M, ...).

    Networks of ``Linear`` layers are evaluated as one, their products batched. Convolutions take their turns, member
    after member: as one they would be a convolution in M groups, which was slower on the CPU we tried.

    Parameters
    ----------
    members : list of nn.Module
        M modules of one architecture, each with a parameter `log_sigma2`. They are copied. What their layers return
        must be a function of the input alone: none may draw, as dropout does, or keep something, as batch
        normalisation does.
    device : torch.device or str

    Attributes
    ----------
    parameters : dict of str to tensor
        The leaves to train. Those of a ``Linear`` are kept as (M, in, out), the order in which batched matrix
        products return their gradients: as (M, out, in) each would be transposed and copied at every step.
    """

    def __init__(self, members, device="cpu"):
        _refuse_unlike(members)
        device = find_device(device)
        parameters, _ = stack_module_state(list(members))
        self.module = copy.deepcopy(members[0]).to("meta")
        self.parameters = {
            name: self._turned(p.detach()).contiguous().to(device).requires_grad_() for name, p in parameters.items()
        }
        self.batched = all(p.ndim < 4 for p in self.parameters.values())

    @staticmethod
    def _turned(p):
        return p.mT if p.ndim == 3 else p

    def __len__(self):
        return len(self.parameters["log_sigma2"])

    def __call__(self, *inputs):
        """The modules' `forward`, each with its own part of the `inputs`, (M, ...) each."""
        turned = {name: self._turned(p) for name, p in self.parameters.items()}
        if self.batched:
            return vmap(lambda parameters, *x: functional_call(self.module, parameters, x))(turned, *inputs)
        members = zip(*(p.unbind() for p in turned.values()), strict=True)
        outputs = [
            functional_call(self.module, dict(zip(turned, parameters, strict=True)), tuple(x))
            for parameters, *x in zip(members, *inputs, strict=True)
        ]
        return tuple(map(torch.stack, zip(*outputs, strict=True)))

    def member(self, m):
        """Member m as an ordinary module of its own, a copy."""
        integer("m", m, 0, len(self) - 1)
        module = copy.deepcopy(self.module)
        state = {
            name: self._turned(p.detach())[m].clone(memory_format=torch.contiguous_format)
            for name, p in self.parameters.items()
        }
        module.load_state_dict(state, assign=True)
        return module


def _refuse_unlike(members):
    """Raise ``ValueError`` unless the members are modules of one architecture that `Stack` can evaluate."""
    if not isinstance(members, (list, tuple)) or not members:
        raise ValueError(f"members is {brief(members)}; expected a list of at least one module")
    first = None
    for m, member in enumerate(members):
        instance(f"members[{m}]", member, nn.Module)
        buffers = [name for name, _ in member.named_buffers()]
        for name, layer in member.named_modules():
            dropout = getattr(layer, "dropout", 0.0)  # of recurrent layers and attention
            if isinstance(layer, DRAWS) or (isinstance(dropout, (int, float)) and dropout > 0):
                raise ValueError(
                    f"members have {name}, a {type(layer).__name__}, which draws random numbers of its own; expected "
                    "layers whose output is a function of their input alone"
                )
            if isinstance(layer, REMEMBERS) and not buffers:
                raise ValueError(
                    f"members have {name}, a {type(layer).__name__}, whose output depends on the other samples of the "
                    "batch; expected layers whose output is a function of their input alone"
                )
        if buffers:
            kinds = sorted({type(layer).__name__ for layer in member.modules() if list(layer.buffers(recurse=False))})
            raise ValueError(f"members have the buffers {sorted(buffers)} of {', '.join(kinds)}; expected none")
        if not isinstance(getattr(member, "log_sigma2", None), nn.Parameter):
            raise ValueError(f"members[{m}] is a {type(member).__name__} without log_sigma2; expected a VAE")
        shapes = {name: (p.dtype, tuple(p.shape)) for name, p in member.named_parameters()}
        found = architecture(member), shapes
        first = first or found
        if found != first:
            raise ValueError(f"members[{m}] is another network than members[0]; expected one architecture for all")


@dataclass
class Run:
    """A run, finished or under way.

    Attributes
    ----------
    members : list of Member
    stack : Stack
    adam : pair of dict of str to tensor
        Adam's averages of the gradient and of its square, named and shaped like ``stack.parameters``.
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
    k : int
        Latents of each member.
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
    k: int
    epoch: int = 0
    snapshots: dict = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str = ""
    betas: list = field(default_factory=list)  # of every member, at every step (epochs, steps)

    @classmethod
    def start(cls, build, members, sample, epochs, steps, device="cpu"):
        """A run of which no step is done.

        Parameters
        ----------
        build : callable
            Makes one VAE; the member's seed decides its weights, the member's sigma2 replaces its own.
        members : list of Member
        sample : (B, ...) tensor
            A few of the samples, uint8 or float32, on the host: the networks have to fit them.
        epochs, steps : int
            Epochs in all, and steps in each.
        device : str or torch.device

        Raises
        ------
        ValueError
            When an argument is bad, or what `build` makes is no VAE that fits the sample.
        """
        _refuse_no_members(members)
        if not callable(build) or isinstance(build, nn.Module):
            raise ValueError(f"build is {brief(build)}; expected what makes a VAE")
        if not isinstance(sample, torch.Tensor) or sample.ndim < 2 or not len(sample) or sample.is_meta:
            raise ValueError(f"sample is {brief(sample)}; expected a tensor (B, ...), of uint8 or float32")
        betas = [member.betas(epochs, steps, f"beta of members[{m}]") for m, member in enumerate(members)]
        stack, M = Stack([_built(build, member) for member in members], device), len(members)
        k = _latents(stack, sample)
        adam = tuple({name: torch.zeros_like(p) for name, p in stack.parameters.items()} for _ in range(2))
        history = {name: np.empty((0, M)) for name in HISTORY}
        return cls(list(members), stack, adam, history, np.zeros(M, np.int64), k, betas=betas)

    def networks(self):
        """Parameters and Adam's averages by name, tensors (M, ...), the very ones that are trained."""
        kinds = zip(("parameter", "exp_avg", "exp_avg_sq"), (self.stack.parameters, *self.adam), strict=True)
        return {f"{kind}/{name}": tensor.detach() for kind, tensors in kinds for name, tensor in tensors.items()}

    def tensors(self):
        """All numbers of the run by name, tensors: those of `networks`, the history and the snapshots."""
        found = self.networks()
        found |= {f"history/{name}": torch.from_numpy(values) for name, values in self.history.items()}
        for epoch, statistics in self.snapshots.items():
            for name, values in statistics.items():
                found[f"snapshot/{epoch}/{name}"] = torch.from_numpy(np.ascontiguousarray(values))
        return found


def _built(build, member):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        module = build()
    if not isinstance(getattr(module, "log_sigma2", None), nn.Parameter):
        raise ValueError(f"build makes {brief(module)}; expected a VAE")
    with torch.no_grad():
        module.log_sigma2.fill_(math.log(member.sigma2))
    return module


@torch.no_grad()
def _latents(stack, x):
    """Latents k of the networks, or ``ValueError`` unless they make of x, on the host, what those of a VAE do."""
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
    return mean.shape[1]
