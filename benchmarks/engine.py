"""Samples per second of the deep engine on the paper's MNIST network, 784-1024-512-200-512-1024-784.

On a CPU, in rounds that take turns: the engine in float32 and bfloat16 with one member and with several; pythae's
trainer (where it is installed: ``pip install pythae``); a DataLoader loop as tutorials have it; and two ceilings,
the rate of a square matrix product of that batch, and of the network's own matrix products and nothing else.

On a GPU (``--device cuda``): M members for several M, the ceilings of a matrix product and of a copy, and how long
20 members of 1000 epochs of MNIST would take at the measured rate.

The pixels are random: what they are changes no rate. Run with ``make bench`` or ``python benchmarks/engine.py``.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch
from torch import nn

from helpers import vae
from helpers.lockstep import Lockstep
from helpers.train import Member, _start, scaled

COUNT = 20_480
LATENTS = 200
CEILING = "ceiling: the network's products, "
SQUARE = "ceiling: a square product, "
# In and out of each layer; every product is done three times, forward and for both gradients, but the first, whose
# input needs none.
LAYERS = ((784, 1024), (1024, 512), (512, 2 * LATENTS), (LATENTS, 512), (512, 1024), (1024, 784))
FLOP = 2 * (3 * sum(a * b for a, b in LAYERS) - 784 * 1024)  # a sample and step
ADAM_BYTES = 4 * 7  # a parameter and step: reads it, its gradient and two averages, writes three


class Silent:
    """Stands for the progress bar."""

    def update(self, samples):
        pass


class Engine:
    def __init__(self, x, members, batch_size, precision, device="cpu"):
        run = _start(vae.mlp, [Member(seed=m, sigma2=0.01) for m in range(members)], torch.device(device))
        self.lockstep = Lockstep(run, torch.tensor(x, device=device), batch_size, precision)
        self.members, self.batch_size, self.device = members, batch_size, device

    def __call__(self, seconds):
        """Samples per second, over as many steps as fill about so many seconds."""
        self.lockstep.steps = 4
        start = time.perf_counter()
        self._epoch()
        self.lockstep.steps = int(np.clip(4 * seconds / (time.perf_counter() - start), 4, COUNT // self.batch_size))
        start = time.perf_counter()
        self._epoch()
        return self.lockstep.steps * self.batch_size * self.members / (time.perf_counter() - start)

    def _epoch(self):
        self.lockstep.epoch(Silent())
        if self.device != "cpu":
            torch.cuda.synchronize()


def repeated(step, batch_size, seconds):
    """Samples per second of `step()`, each of one batch."""
    step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count * batch_size / (time.perf_counter() - start)


def loader_loop(x, batch_size):
    """The usual tutorial's loop: a DataLoader over float images, one model, the default Adam."""
    images = scaled(torch.tensor(x))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size, shuffle=True)
    model = vae.mlp(sigma2=0.01)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def batches():
        while True:
            yield from loader

    source = batches()

    def step():
        (batch,) = next(source)
        optimizer.zero_grad()
        squared_error, kl = model(batch, torch.randn(len(batch), LATENTS))
        (-vae.elbo(squared_error.mean(), kl.mean(), model.log_sigma2, 784)).backward()
        optimizer.step()

    return lambda seconds: repeated(step, batch_size, seconds)


def pythae_trainer(x, batch_size):
    """pythae's own trainer on the same network; None where pythae is not installed."""
    try:
        import logging

        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return None
    logging.disable(logging.INFO)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU())
            self.mean, self.logvar = nn.Linear(512, LATENTS), nn.Linear(512, LATENTS)

        def forward(self, x):
            h = self.body(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.logvar(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            widths = ((LATENTS, 512), (512, 1024))
            layers = [layer for a, b in widths for layer in (nn.Linear(a, b), nn.ReLU())]
            self.body = nn.Sequential(*layers, nn.Linear(1024, 784))

        def forward(self, z):
            return ModelOutput(reconstruction=self.body(z))

    images = scaled(torch.tensor(x))
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-3,
        optimizer_cls="Adam",
        no_cuda=True,
    )
    model = VAE(VAEConfig(input_dim=(784,), latent_dim=LATENTS, reconstruction_loss="mse"), Encoder(), Decoder())
    trainer = BaseTrainer(model, BaseDataset(images, torch.zeros(COUNT)), training_config=config)
    trainer.prepare_training()

    def rate(seconds):
        start = time.perf_counter()
        trainer.train_step(1)
        return COUNT / (time.perf_counter() - start)

    return rate


def square_product(batch_size, dtype=torch.float32, device="cpu"):
    """The rate a square product allows, were the network nothing but products that fast."""
    a, b = (torch.randn(rows, 1024, dtype=dtype, device=device) for rows in (batch_size, 1024))
    share = FLOP / (2 * 1024 * 1024)  # products like this one, a batch
    return lambda seconds: repeated(lambda: a @ b, batch_size, seconds) / share


def own_products(batch_size, dtype=torch.float32):
    """The rate of the network's own products, forward and backward, and nothing else."""
    inputs = [torch.randn(batch_size, a, dtype=dtype) for a, _ in LAYERS]
    outputs = [torch.randn(batch_size, b, dtype=dtype) for _, b in LAYERS]
    weights = [torch.randn(a, b, dtype=dtype) for a, b in LAYERS]

    def step():
        for x, W in zip(inputs, weights, strict=True):
            x @ W
        for i, (x, W, y) in enumerate(zip(inputs, weights, outputs, strict=True)):
            x.T @ y
            if i:
                y @ W.T

    return lambda seconds: repeated(step, batch_size, seconds)


def on_cpu(rounds, seconds):
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 784), np.uint8)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; samples per second, median of {rounds} rounds"
    )
    for batch_size, several in ((128, 8), (512, 4)):
        entries = {
            "ours, float32, 1 member": Engine(x, 1, batch_size, "float32"),
            f"ours, float32, {several} members": Engine(x, several, batch_size, "float32"),
            f"ours, bfloat16, {several} members": Engine(x, several, batch_size, "bfloat16"),
            "pythae's trainer": pythae_trainer(x, batch_size),
            "DataLoader loop": loader_loop(x, batch_size),
            CEILING + "float32": own_products(batch_size),
            CEILING + "bfloat16": own_products(batch_size, torch.bfloat16),
            SQUARE + "float32": square_product(batch_size),
            SQUARE + "bfloat16": square_product(batch_size, torch.bfloat16),
        }
        entries = {name: entry for name, entry in entries.items() if entry}
        rates = {name: [] for name in entries}
        for _ in range(rounds):
            for name, entry in entries.items():
                rates[name].append(entry(seconds))
        rates = {name: statistics.median(values) for name, values in rates.items()}
        print(f"batch {batch_size}")
        peers = {
            "pythae": "pythae's trainer",
            "own": CEILING + "float32",
            "square": "ceiling: a square product, float32",
        }
        print(f"  {'':42s}{'samples/s':>9s} {'GFLOP/s':>8s}" + "".join(f"{'/ ' + peer:>9s}" for peer in peers))
        for name, rate in rates.items():
            ratios = "".join(f"{rate / rates.get(other, np.nan):9.2f}" for other in peers.values())
            print(f"  {name:42s}{rate:9,.0f} {rate * FLOP / 1e9:8.0f}{ratios}")


def on_gpu(device, batch_size, seconds, precision):
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 784), np.uint8)
    square = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def timed(operation, count):
        operation()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            operation()
        torch.cuda.synchronize()
        return count / (time.perf_counter() - start)

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    product = 2 * 8192**3 * timed(lambda: square @ square, 20)
    copy = 2 * source.numel() * timed(lambda: target.copy_(source), 20)
    parameters = sum(p.numel() for p in vae.mlp().parameters())
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}: product {product / 1e12:.0f} TFLOP/s, copy {copy / 1e12:.2f} TB/s")
    for members in (1, 8, 20, 40):
        engine = Engine(x, members, batch_size, precision, device)
        engine(1.0)
        rate = statistics.median(engine(seconds) for _ in range(3))
        floor = FLOP / product + parameters * ADAM_BYTES / batch_size / copy  # seconds a sample
        minutes = 60_000 * 1000 * 20 / rate / 60
        print(
            f"  M = {members:2d}: {rate:11,.0f} samples/s, {rate * floor:.2f} of the ceiling; "
            f"20 members x 1000 epochs of MNIST in {minutes:.1f} min"
        )
        del engine
        torch.cuda.empty_cache()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=128, help="on a GPU")
    parser.add_argument("--precision", default="bfloat16", help="on a GPU")
    options = parser.parse_args()
    if options.device == "cpu":
        on_cpu(options.rounds, options.seconds)
    else:
        on_gpu(options.device, options.batch_size, options.seconds, options.precision)
