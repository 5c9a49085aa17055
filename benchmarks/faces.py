"""Images per second of the deep engine on the paper's network for faces, 64 x 64 pixels in colour, 500 latents.

On a CPU, in rounds that take turns: the engine in float32 and bfloat16; pythae's trainer on the same network (where it
is installed: ``pip install pythae``), with the colours first in memory, as its users have them; a DataLoader loop as
tutorials have it; and the rate of a square matrix product, were the network nothing but products that fast.

On a GPU (``--device cuda``): one member and six, with the measured ceilings.

The pixels are random: what they are changes no rate. Run with ``make bench`` or ``python benchmarks/faces.py``.
"""

import numpy as np
import torch
from engine import Apart, Engine, in_turns, loader_loop, on_gpu, parse, pythae_trainer, repeated
from torch import nn

from helpers import vae

COUNT, BATCHES = 1024, (64, 128)
# Multiplications and additions of one image: 16 a pixel of the smaller side, channel in and channel out; dense layers.
# The decoder has as many. Three products each, forward and for both gradients, but the first, whose input needs none.
CONVOLUTIONS = ((32, 3, 32), (16, 32, 32), (8, 32, 64), (4, 64, 64))
DENSE = 1024 * 256 + 256 * 1000 + 500 * 256 + 256 * 1024
FLOP = 2 * (3 * (2 * sum(side**2 * 16 * a * b for side, a, b in CONVOLUTIONS) + DENSE) - 32**2 * 16 * 3 * 32)


def colours_first(sigma2=1.0):
    """The same network for images (3, 64, 64), in the layout of most code for images."""
    model = vae.conv(sigma2=sigma2)
    encoder = nn.Sequential(*(layer for layer in model.encoder if not isinstance(layer, vae.Permute)))
    decoder = nn.Sequential(*(layer for layer in model.decoder if not isinstance(layer, vae.Permute)))
    decoder[3] = nn.Unflatten(1, (64, 4, 4))
    return vae.VAE(encoder, decoder, sigma2)


def product():
    """The rate of a square product, in images a second."""
    a, b = torch.randn(512, 1024), torch.randn(1024, 1024)
    return lambda seconds: repeated(lambda: a @ b, 512, seconds) * (2 * 1024 * 1024) / FLOP


def on_cpu(x, rounds, seconds):
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; images per second, median of {rounds} rounds")
    for batch_size in BATCHES:
        entries = {
            "ours, float32, 1 member": Apart(Engine, x, 1, batch_size, "float32", build=vae.conv),
            "ours, float32, 2 members": Apart(Engine, x, 2, batch_size, "float32", build=vae.conv),
            "ours, bfloat16, 2 members": Apart(Engine, x, 2, batch_size, "bfloat16", build=vae.conv),
            "pythae's trainer": Apart(pythae_trainer, first, batch_size, colours_first),
            "DataLoader loop": Apart(loader_loop, first, batch_size, colours_first),
            "ceiling: a square product, float32": Apart(product),
        }
        rates = in_turns(entries, rounds, seconds)
        print(f"batch {batch_size}\n  {'':36s}{'images/s':>9s} {'/ pythae':>9s} {'/ product':>9s}")
        for name, rate in rates.items():
            peer = rates.get("pythae's trainer", np.nan)
            print(f"  {name:36s}{rate:9,.0f} {rate / peer:9.2f} {rate / list(rates.values())[-1]:9.2f}")


if __name__ == "__main__":
    options = parse(__doc__.splitlines()[0])
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), np.uint8)
    if options.device == "cpu":
        on_cpu(x, options.rounds, options.seconds)
    else:
        on_gpu(x, vae.conv, FLOP, (1, 6), options)
