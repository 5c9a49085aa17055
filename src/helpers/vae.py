"""Gaussian VAEs (Eq. 4) as ordinary torch modules, and many of them stacked so that they train as one.

The model is p(z) = N(0, I), p(x | z) = N(decoder(z), sigma2 I) and q(z | x) = N(mean(x), diag(exp(logvar(x)))),
with n observed and k latent dimensions. Serves chapter 08 onwards.
"""

import copy
import itertools
import math

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from helpers._validation import brief, instance, integer, non_negative, positive

# Layers whose output is no function of their input alone.
DRAWS = (nn.modules.dropout._DropoutNd, nn.RReLU)
REMEMBERS = (nn.modules.batchnorm._BatchNorm,)


def _tensor(name, value, ndim=None):
    """Return `value`, or raise ``ValueError`` unless it is a dense tensor of real floating-point numbers."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} is {type(value).__name__}, {brief(value)}; expected a tensor")
    if value.layout != torch.strided:
        raise ValueError(f"{name} is sparse; expected a dense tensor: densify it with to_dense()")
    if not value.is_floating_point():
        raise ValueError(f"{name} is {value.dtype}; expected floating point, such as .float() of it")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {ndim} dimensions")
    return value


def find_device(device):
    """The `torch.device` of a name, or ``ValueError`` with those there are where torch does not find it here."""
    try:
        found = torch.device(instance("device", device, (str, torch.device)))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"device is {brief(device)}; expected 'cpu' or 'cuda', or another that torch knows") from error
    count = 1 if found.type == "cpu" else _count(found.type)
    if (found.index or 0) >= count:
        there = ["cpu", *(f"{kind}:{i}" for kind in ("cuda", "mps", "xpu") for i in range(_count(kind)))]
        kind = "GPU" if found.type == "cuda" else found.type if found.type != "cpu" else "second CPU"
        expected = " or ".join(map(repr, there))
        raise ValueError(f"device is {str(found)!r}, but torch finds no {kind} here; expected {expected}")
    return torch.device("cpu") if found.type == "cpu" else found


def _count(kind):
    """How many devices of a kind torch finds here."""
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    available = getattr(module, "is_available", None)
    return getattr(torch, kind).device_count() if available is not None and available() else 0


class VAE(nn.Module):
    """A Gaussian VAE with a diagonal Gaussian encoder.

    Parameters
    ----------
    encoder : nn.Module
        From x (B, ...) to (B, 2k): the mean of q(z | x), then its log variance.
    decoder : nn.Module
        From z (B, k) to the mean of p(x | z), of x's shape.
    sigma2 : float
        Initial value of the noise variance; the parameter is `log_sigma2`.
    """

    def __init__(self, encoder, decoder, sigma2=1.0):
        super().__init__()
        self.encoder = instance("encoder", encoder, nn.Module)
        self.decoder = instance("decoder", decoder, nn.Module)
        self.log_sigma2 = nn.Parameter(torch.tensor(math.log(positive("sigma2", sigma2))))

    def encode(self, x):
        """Mean and log variance of q(z | x), (B, k) each, in the type of x even where products are bfloat16."""
        output = _tensor("the encoder's output", self.encoder(self._mine("x", x)))
        if output.ndim != 2 or output.shape[1] % 2 or not output.shape[1]:
            raise ValueError(
                f"the encoder's output has shape {tuple(output.shape)}; expected (B, 2k), k means and k log variances"
            )
        return output.to(x.dtype).chunk(2, dim=-1)

    def decode(self, z):
        """Mean of p(x | z), of x's shape and in the type of z."""
        return _tensor("the decoder's output", self.decoder(self._mine("z", z))).to(z.dtype)

    def _mine(self, name, value):
        """Return a tensor, or raise ``ValueError`` unless it lies where the network does."""
        if _tensor(name, value).device.type != self.log_sigma2.device.type:
            raise ValueError(f"{name} is on {value.device}; expected {self.log_sigma2.device}, as the network does")
        return value

    def forward(self, x, noise):
        """The two terms of Eq. 4 that depend on the data, each (B,).

        Parameters
        ----------
        x : (B, ...) tensor
        noise : (B, k) tensor
            From N(0, I); z = mean + exp(logvar / 2) noise is then a sample of q(z | x).

        Returns
        -------
        squared_error, kl : (B,) tensors
            |x - decode(z)|^2, and KL(q(z | x) || p(z)) in nats.

        Raises
        ------
        ValueError
            When x or the noise is no floating-point tensor, or a shape is not what it has to be: broadcast, a decoder
            of another shape than x would train on a wrong loss.
        """
        mean, logvar = self.encode(x)
        if self._mine("noise", noise).shape != mean.shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}; expected that of the means, {tuple(mean.shape)}")
        z = mean + torch.exp(logvar / 2) * noise
        output = self.decode(z)
        if output.shape != x.shape:
            raise ValueError(f"the decoder's output has shape {tuple(output.shape)}; expected x's, {tuple(x.shape)}")
        squared_error = nn.functional.mse_loss(output, x, reduction="none").flatten(1).sum(1)
        kl = (mean.square() + torch.expm1(logvar) - logvar).sum(1) / 2
        return squared_error, kl


def elbo(squared_error, kl, log_sigma2, n, beta=1.0):
    """Eq. 4 from its terms, tensors that broadcast, in nats; `beta` weighs the KL term.

    Parameters
    ----------
    squared_error, kl, log_sigma2 : tensors
        Of floating-point numbers; their values are not looked at.
    n : int
        Observed dimensions.
    beta : float or tensor
    """
    terms = {"squared_error": squared_error, "kl": kl, "log_sigma2": log_sigma2}
    integer("n", n, 1, 2**63 - 1)
    if isinstance(beta, torch.Tensor):
        terms["beta"] = beta
    elif type(beta) is not float or not 0 <= beta < math.inf:
        beta = non_negative("beta", beta)
    shapes = [_tensor(name, term).shape for name, term in terms.items()]
    if len({term.is_meta for term in terms.values()}) > 1:
        raise ValueError(f"{' and '.join(terms)} lie partly on the device meta; expected numbers")
    try:
        torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        shown = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(terms, shapes, strict=True))
        raise ValueError(f"squared_error and the other terms have shapes that do not broadcast: {shown}") from error
    return -(n * (math.log(2 * math.pi) + log_sigma2) + squared_error * torch.exp(-log_sigma2)) / 2 - beta * kl


def mlp(n=784, hidden=(1024, 512), k=200, activation=nn.ReLU, sigma2=1.0):
    """The paper's MNIST network, n-1024-512-k-512-1024-n (Appendix D); ReLU and the linear heads are our choice.

    Parameters
    ----------
    n, k : int
        Observed and latent dimensions.
    hidden : tuple of int
        Widths from x to z; the decoder has them in reverse. With () both networks are linear.
    activation : callable
        Makes the nonlinearity that follows each hidden layer.
    sigma2 : float
        Initial noise variance.
    """
    n, k = integer("n", n, 1, 2**31), integer("k", k, 1, 2**31)
    hidden = _widths("hidden", hidden)

    def network(*widths):
        layers = [(nn.Linear(a, b), _made(activation)) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(*itertools.chain(*layers))[:-1]

    return VAE(network(n, *hidden, 2 * k), network(k, *reversed(hidden), n), sigma2)


def _widths(name, widths):
    return [integer(name, width, 1, 2**31) for width in instance(name, widths, (tuple, list))]


def _made(activation):
    """A layer of the nonlinearity; a layer itself stands for none, as two places would share it."""
    if isinstance(activation, nn.Module) or not callable(activation):
        raise ValueError(f"activation is {brief(activation)}; expected what makes a layer, such as the class nn.ReLU")
    return instance("activation's result", activation(), nn.Module)


class Permute(nn.Module):
    """Reorders the dimensions of what passes through, without copying it."""

    def __init__(self, *order):
        super().__init__()
        axes = [integer("order", axis, 0, len(order) - 1) for axis in order]
        if not axes or sorted(axes) != list(range(len(axes))):
            raise ValueError(f"order is {order}; expected each of 0 to {len(order) - 1} once")
        self.order = order

    def forward(self, x):
        if not isinstance(x, torch.Tensor) or x.ndim != len(self.order):
            raise ValueError(f"x has shape {getattr(x, 'shape', brief(x))}; expected {len(self.order)} dimensions")
        return x.permute(self.order)

    def extra_repr(self):
        return str(self.order)


def conv(size=64, channels=(3, 32, 32, 64, 64), dense=256, k=500, activation=nn.ReLU, sigma2=1.0):
    """The paper's network for faces, of Higgins et al. (2016): convolutions, a dense layer, and all of it mirrored.

    Every convolution has a kernel of 4 x 4 and a stride of 2, and halves height and width; those of the decoder
    double them again. Images are (B, size, size, channels[0]), colours last. For the convolutions the colours come
    first, but in memory they stay last, in which order convolutions are fastest on a CPU.

    Parameters
    ----------
    size : int
        Height and width of an image, a multiple of 2 to the number of convolutions.
    channels : tuple of int
        Of the image, then of what each convolution of the encoder makes; the decoder has them in reverse.
    dense : int
        Width of the layer between the convolutions and z.
    k, activation, sigma2
        As in `mlp`.
    """
    k, dense = integer("k", k, 1, 2**31), integer("dense", dense, 1, 2**31)
    channels = _widths("channels", channels)
    if len(channels) < 2:
        raise ValueError(
            f"size is {brief(size)} and channels {tuple(channels)}; expected an image's channels, then those of at "
            "least one convolution, each of which halves the size"
        )
    side, rest = divmod(integer("size", size, 1, 2**31), 2 ** (len(channels) - 1))
    if rest:
        raise ValueError(
            f"size is {size} and channels {tuple(channels)}; expected an image's channels, then those of at least one "
            "convolution, each of which halves the size"
        )
    flat = side * side * channels[-1]
    settings = {"kernel_size": 4, "stride": 2, "padding": 1}
    down = [(nn.Conv2d(a, b, **settings), _made(activation)) for a, b in itertools.pairwise(channels)]
    up = [(_made(activation), nn.ConvTranspose2d(a, b, **settings)) for a, b in itertools.pairwise(channels[::-1])]
    first, last = Permute(0, 3, 1, 2), Permute(0, 2, 3, 1)
    encoder = (first, *itertools.chain(*down), last, nn.Flatten(), nn.Linear(flat, dense), _made(activation))
    decoder = (
        nn.Linear(k, dense),
        _made(activation),
        nn.Linear(dense, flat),
        nn.Unflatten(1, (side, side, channels[-1])),
    )
    return VAE(
        nn.Sequential(*encoder, nn.Linear(dense, 2 * k)),
        nn.Sequential(*decoder, first, *itertools.chain(*up), last),
        sigma2,
    )


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


def architecture(module):
    """What a module is made of, as plain values: of every layer its name, its class and its constants.

    Unlike torch's text of it, this does not change where a release of torch prints a layer otherwise.
    """
    layers = []
    for name, layer in instance("module", module, nn.Module).named_modules():
        constants = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in sorted(vars(layer).items())
            if not key.startswith("_") and key != "training" and _is_plain(value)
        }
        layers.append([name, type(layer).__name__, constants])
    return layers


def _is_plain(value):
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


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
