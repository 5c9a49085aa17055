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

from helpers._validation import integer, positive


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
        self.encoder, self.decoder = encoder, decoder
        self.log_sigma2 = nn.Parameter(torch.tensor(math.log(positive("sigma2", sigma2))))

    def encode(self, x):
        """Mean and log variance of q(z | x), (B, k) each, in the type of x even where products are bfloat16."""
        return self.encoder(x).to(x.dtype).chunk(2, dim=-1)

    def decode(self, z):
        """Mean of p(x | z), of x's shape and in the type of z."""
        return self.decoder(z).to(z.dtype)

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
        """
        mean, logvar = self.encode(x)
        z = mean + torch.exp(logvar / 2) * noise
        squared_error = nn.functional.mse_loss(self.decode(z), x, reduction="none").flatten(1).sum(1)
        kl = (mean.square() + torch.expm1(logvar) - logvar).sum(1) / 2
        return squared_error, kl


def elbo(squared_error, kl, log_sigma2, n, beta=1.0):
    """Eq. 4 from its terms, tensors that broadcast, in nats; `beta` weighs the KL term."""
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
    hidden = [integer("hidden", width, 1, 2**31) for width in hidden]

    def network(*widths):
        layers = [(nn.Linear(a, b), activation()) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(*itertools.chain(*layers))[:-1]

    return VAE(network(n, *hidden, 2 * k), network(k, *reversed(hidden), n), sigma2)


class Permute(nn.Module):
    """Reorders the dimensions of what passes through, without copying it."""

    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
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
    channels = [integer("channels", c, 1, 2**31) for c in channels]
    side, rest = divmod(integer("size", size, 1, 2**31), 2 ** (len(channels) - 1))
    if rest or len(channels) < 2:
        raise ValueError(
            f"size is {size} and channels {tuple(channels)}; expected an image's channels, then those of at least one "
            "convolution, each of which halves the size"
        )
    flat = side * side * channels[-1]
    settings = {"kernel_size": 4, "stride": 2, "padding": 1}
    down = [(nn.Conv2d(a, b, **settings), activation()) for a, b in itertools.pairwise(channels)]
    up = [(activation(), nn.ConvTranspose2d(a, b, **settings)) for a, b in itertools.pairwise(channels[::-1])]
    first, last = Permute(0, 3, 1, 2), Permute(0, 2, 3, 1)
    encoder = (first, *itertools.chain(*down), last, nn.Flatten(), nn.Linear(flat, dense), activation())
    decoder = (nn.Linear(k, dense), activation(), nn.Linear(dense, flat), nn.Unflatten(1, (side, side, channels[-1])))
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
        M modules with the same parameters' names and shapes, without buffers. They are copied.
    device : torch.device or str

    Attributes
    ----------
    parameters : dict of str to tensor
        The leaves to train. Those of a ``Linear`` are kept as (M, in, out), the order in which batched matrix
        products return their gradients: as (M, out, in) each would be transposed and copied at every step.
    """

    def __init__(self, members, device="cpu"):
        parameters, buffers = stack_module_state(members)
        if buffers:
            raise ValueError(f"members have the buffers {sorted(buffers)}; expected none")
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
        module = copy.deepcopy(self.module)
        state = {
            name: self._turned(p.detach())[m].clone(memory_format=torch.contiguous_format)
            for name, p in self.parameters.items()
        }
        module.load_state_dict(state, assign=True)
        return module
