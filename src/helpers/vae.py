"""Gaussian VAEs (Eq. 4) as ordinary torch modules, and what of torch they need: devices, types, pixels.

The model is p(z) = N(0, I), p(x | z) = N(decoder(z), sigma2 I) and q(z | x) = N(mean(x), diag(exp(logvar(x)))),
with n observed and k latent dimensions. Serves chapter 08 onwards.
"""

import itertools
import math

import torch
from torch import nn

from helpers._validation import brief, instance, integer, non_negative, positive


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
    """The `torch.device` of a name, or ``ValueError`` with those there are where torch does not find it here.

    Raises
    ------
    ValueError
        When torch does not find it here, with those there are, or it names none.
    """
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

    See Also
    --------
    mlp, conv : the paper's networks.
    helpers.train.train : trains several at once.
    helpers.linear_vae.LinearVAE : the model that is solved on paper.
    """

    def __init__(self, encoder, decoder, sigma2=1.0):
        super().__init__()
        self.encoder = instance("encoder", encoder, nn.Module)
        self.decoder = instance("decoder", decoder, nn.Module)
        self.log_sigma2 = nn.Parameter(torch.tensor(math.log(positive("sigma2", sigma2))))

    def encode(self, x):
        """Mean and log variance of q(z | x) for `x`, (B, k) each, in the type of x even where products are bfloat16.

        Raises
        ------
        ValueError
            When what the encoder returns is not (B, 2k).
        """
        output = _tensor("the encoder's output", self.encoder(self._mine("x", x)))
        if output.ndim != 2 or output.shape[1] % 2 or not output.shape[1]:
            raise ValueError(
                f"the encoder's output has shape {tuple(output.shape)}; expected (B, 2k), k means and k log variances"
            )
        return output.to(x.dtype).chunk(2, dim=-1)

    def decode(self, z):
        """Mean of p(x | z) for `z` (B, k), of x's shape and in the type of z."""
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

    Returns
    -------
    tensor
        Of the shape they broadcast to, in nats.

    Raises
    ------
    ValueError
        When the terms lie on several devices, or do not broadcast.
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

    Returns
    -------
    VAE

    Examples
    --------
    >>> model = mlp(n=64, hidden=(32,), k=5)
    >>> mean, logvar = model.encode(torch.zeros(10, 64))
    >>> mean.shape, model.decode(mean).shape
    (torch.Size([10, 5]), torch.Size([10, 64]))
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
    """Reorders the dimensions of what passes through, without copying it.

    Parameters
    ----------
    *order : int
        As for ``torch.permute``, that of the samples included.

    Raises
    ------
    ValueError
        When they are not 0 to the number of dimensions, each once.
    """

    def __init__(self, *order):
        super().__init__()
        axes = [integer("order", axis, 0, len(order) - 1) for axis in order]
        if not axes or sorted(axes) != list(range(len(axes))):
            raise ValueError(f"order is {order}; expected each of 0 to {len(order) - 1} once")
        self.order = order

    def forward(self, x):
        """`x` with its dimensions in the new order.

        Raises
        ------
        ValueError
            When it has another number of dimensions.
        """
        if not isinstance(x, torch.Tensor) or x.ndim != len(self.order):
            raise ValueError(f"x has shape {getattr(x, 'shape', brief(x))}; expected {len(self.order)} dimensions")
        return x.permute(self.order)

    def extra_repr(self):
        """What torch prints of it: the order."""
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

    Returns
    -------
    VAE

    Raises
    ------
    ValueError
        When the size is no multiple of 2 to the number of convolutions, or there are none.
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


def scaled(x):
    """Pixels as the model sees them: `x`, a tensor, divided by 255 where it lies if it is uint8; float32 as it is.

    Raises
    ------
    ValueError
        When it is no dense tensor of one of these types.
    """
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_meta:
        raise ValueError(f"x is {brief(x)}; expected a dense tensor, of uint8 or float32")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"x is {brief(x)}; expected a tensor, of uint8 or float32")
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def has_float64(device):
    """Whether numbers of float64 can lie on a device: Apple's have none."""
    if instance("device", device, torch.device).type in ("cpu", "cuda"):
        return True
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        return False
    return True


def wide(tensor):
    """A tensor in float64, where it lies or else on the host."""
    instance("tensor", tensor, torch.Tensor)
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()
