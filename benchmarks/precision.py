"""Is a precision safe where the noise variance is small? The same VAE trained in float32, TF32's products and bfloat16.

TF32's products are imitated on any device: the factors of every matrix product are rounded to 10 bits of mantissa, and
the sums are float32's. Each precision trains the same members, one seed after the other, with the same minibatches and
draws, so that their differences are those of rounding, as far as training does not magnify them; the spread over the
seeds says how much that is. What it prints for each: the ELBO during training at a few epochs, its largest fall from
one epoch to a later one, and the ELBO of the trained network on all training data.

Run with ``python benchmarks/precision.py --sigma2 0.001 --epochs 30 --seeds 2`` (about an hour on one CPU core).
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import collapse, data, plans
from helpers.ensemble import Member
from helpers.train import train
from helpers.vae import scaled

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm}
KEPT = 10  # bits of mantissa of TF32, of float32's 23


def rounded(tensor):
    """The nearest number with TF32's mantissa; halves away from 0."""
    shift = 23 - KEPT
    bits = tensor.view(torch.int32)
    return ((bits + (1 << (shift - 1))) & ~((1 << shift) - 1)).view(torch.float32)


class TF32Products(TorchDispatchMode):
    """Rounds the two factors of matrix products, forward and backward, that float32 would take whole."""

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        if operator.overloadpacket in PRODUCTS and arguments[-1].dtype == torch.float32:
            arguments = (*arguments[:-2], rounded(arguments[-2]), rounded(arguments[-1]))
        return operator(*arguments, **(keywords or {}))


def trained(plan, member, x, epochs, precision):
    """History of the ELBO (epochs,) and the ELBO of the trained network on all of x."""
    settings = (plan.network, x, [member], epochs, plan.batch_size)
    if precision == "tf32":
        with TF32Products():
            run = train(*settings)
    else:
        run = train(*settings, precision=precision)
    model = run.stack.member(0)
    with torch.no_grad():
        batches = (scaled(torch.tensor(x[i : i + 4096])) for i in range(0, len(x), 4096))
        found = collapse.evaluate(batches, model.encode, model.decode, float(model.log_sigma2.exp()))
    return run.history["elbo"][:, 0], found.elbo


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--sigma2", type=float, default=0.001)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    plan = plans.find("mnist-fixed", "paper" if options.data == "mnist" else "quick")
    x = data.mnist("train").reshape(-1, 784) if options.data == "mnist" else data.digits_bytes()
    shown = sorted({round(f * options.epochs) for f in (0.1, 0.25, 0.5, 0.75, 1)} - {0})
    print(f"sigma2 {options.sigma2:g}, rate {options.rate:g}, batch {plan.batch_size}; ELBO in training after epoch")
    print(
        f"{'seed':>4s} {'precision':>9s}" + "".join(f"{epoch:10d}" for epoch in shown) + "  largest fall   at the end"
    )
    for seed in range(options.seeds):
        for precision in ("float32", "tf32", "bfloat16"):
            member = replace(Member(), seed=seed, learning_rate=options.rate, sigma2=options.sigma2)
            history, end = trained(plan, member, x, options.epochs, precision)
            fall = (np.maximum.accumulate(history) - history).max()
            values = "".join(f"{history[epoch - 1]:10.1f}" for epoch in shown)
            print(f"{seed:4d} {precision:>9s}{values}{fall:14.1f}{end:13.1f}", flush=True)


if __name__ == "__main__":
    main()
