"""Samples per second of the deep engine on the paper's MNIST network, 784-1024-512-200-512-1024-784.

On a CPU, in rounds that take turns: the engine in float32 and bfloat16 with one member and with several, and in two
processes at once (``--processes 2``); pythae's trainer (where it is installed: ``pip install pythae``); a DataLoader
loop as tutorials have it; and three ceilings: the rate of a square matrix product of that batch, of the network's own
matrix products and nothing else, and of these and Adam's reading and writing, at the rate of a copy.

On a GPU (``--device cuda``): M members for several M, the ceilings of a matrix product and of a copy, and how long
20 members of 1000 epochs of MNIST would take at the measured rate.

The pixels are random: what they are changes no rate. Run with ``make bench`` or ``python benchmarks/engine.py``.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from helpers import vae
from helpers.ensemble import Member, Run
from helpers.lockstep import Lockstep, keep_freed_memory
from helpers.vae import scaled

COUNT = 20_480
LATENTS = 200
CEILING = "ceiling: the network's products, "
SQUARE = "ceiling: a square product, "
FLOOR = "ceiling: products and Adam's bytes, "
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
    def __init__(self, x, members, batch_size, precision, device="cpu", build=vae.mlp):
        if device == "cpu":
            keep_freed_memory()  # as `train` does
        several = [Member(seed=m, sigma2=0.01) for m in range(members)]
        run = Run.start(build, several, torch.tensor(x[:2]), 2**20, len(x) // batch_size, device)
        self.lockstep = Lockstep(run, torch.tensor(x, device=device), batch_size, precision)
        self.members, self.batch_size, self.device, self.most = members, batch_size, device, len(x) // batch_size

    def __call__(self, seconds):
        """Samples per second, over as many steps as fill about so many seconds."""
        self.lockstep.steps = 4
        start = time.perf_counter()
        self._epoch()
        self.lockstep.steps = int(np.clip(4 * seconds / (time.perf_counter() - start), 4, self.most))
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


def loader_loop(x, batch_size, build):
    """The usual tutorial's loop: a DataLoader over float images, one model, the default Adam."""
    model = build(sigma2=0.01)
    images = scaled(torch.tensor(x))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    n, k = images[0].numel(), model.encode(images[:1])[0].shape[1]

    def batches():
        while True:
            yield from loader

    source = batches()

    def step():
        (batch,) = next(source)
        optimizer.zero_grad()
        squared_error, kl = model(batch, torch.randn(len(batch), k))
        (-vae.elbo(squared_error.mean(), kl.mean(), model.log_sigma2, n)).backward()
        optimizer.step()

    return lambda seconds: repeated(step, batch_size, seconds)


def pythae_trainer(x, batch_size, build):
    """pythae's own trainer on the networks of a VAE of ours; None where pythae is not installed."""
    model = build()
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
            self.body = model.encoder

        def forward(self, x):
            mean, logvar = self.body(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.body = model.decoder

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
    settings = VAEConfig(
        input_dim=tuple(images.shape[1:]),
        latent_dim=model.encode(images[:1])[0].shape[1],
        reconstruction_loss="mse",
    )
    data = BaseDataset(images, torch.zeros(len(images)))
    trainer = BaseTrainer(VAE(settings, Encoder(), Decoder()), data, training_config=config)
    trainer.prepare_training()

    def rate(seconds):
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_step(1)
        return len(images) / (time.perf_counter() - start)

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


def products_and_adam(batch_size, dtype=torch.float32):
    """The rate of the network's own products and of a copy of as many bytes as Adam reads and writes."""
    products = own_products(batch_size, dtype)
    parameters = sum(p.numel() for p in vae.mlp().parameters())
    source = torch.zeros(8 * parameters)  # more than the caches hold, as with several members
    target = torch.zeros_like(source)

    def rate(seconds):
        copies = repeated(lambda: target.copy_(source), 1, seconds)
        step = batch_size / products(seconds) + ADAM_BYTES * parameters / (8 * source.numel() * copies)
        return batch_size / step

    return rate


class Apart:
    """An entry in a process of its own, since the engine changes how its process keeps memory; or in two at once,
    of half the threads each, whose rates add up."""

    def __init__(self, make, *arguments, processes=1, **options):
        context, make = multiprocessing.get_context("spawn"), functools.partial(make, *arguments, **options)
        prepare = (make, max(1, torch.get_num_threads() // processes))
        self.pools = [ProcessPoolExecutor(1, context, _prepare, prepare) for _ in range(processes)]

    def __call__(self, seconds):
        tasks = [pool.submit(_measure, seconds) for pool in self.pools]
        rates = [task.result() for task in tasks]
        return None if None in rates else sum(rates)

    def close(self):
        for pool in self.pools:
            pool.shutdown()


def _prepare(make, threads):
    global entry
    torch.set_num_threads(threads)
    entry = make()


def _measure(seconds):
    return entry(seconds) if entry else None


def in_turns(entries, rounds, seconds):
    """The median rate of each entry, by name, over rounds in which they take turns; without those that have none."""
    rates = {name: [] for name in entries}
    for _ in range(rounds):
        for name, values in rates.items():
            values.append(entries[name](seconds))
    for entry in entries.values():
        entry.close()
    return {name: statistics.median(values) for name, values in rates.items() if None not in values}


def on_cpu(rounds, seconds):
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 784), np.uint8)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; samples per second, median of {rounds} rounds"
    )
    for batch_size, several in ((128, 8), (512, 4)):
        entries = {
            "ours, float32, 1 member": Apart(Engine, x, 1, batch_size, "float32"),
            f"ours, float32, {several} members": Apart(Engine, x, several, batch_size, "float32"),
            f"ours, bfloat16, {several} members": Apart(Engine, x, several, batch_size, "bfloat16"),
            f"ours, bfloat16, 2 processes of {several}": Apart(Engine, x, several, batch_size, "bfloat16", processes=2),
            "pythae's trainer": Apart(pythae_trainer, x, batch_size, vae.mlp),
            "pythae's trainer, 2 processes": Apart(pythae_trainer, x, batch_size, vae.mlp, processes=2),
            "DataLoader loop": Apart(loader_loop, x, batch_size, vae.mlp),
            CEILING + "float32": Apart(own_products, batch_size),
            CEILING + "bfloat16": Apart(own_products, batch_size, torch.bfloat16),
            FLOOR + "float32": Apart(products_and_adam, batch_size),
            FLOOR + "bfloat16": Apart(products_and_adam, batch_size, torch.bfloat16),
            SQUARE + "float32": Apart(square_product, batch_size),
            SQUARE + "bfloat16": Apart(square_product, batch_size, torch.bfloat16),
        }
        rates = in_turns(entries, rounds, seconds)
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


def ceilings(device, precision):
    """Measured rates of a GPU: a large matrix product (FLOP/s), and a copy (bytes/s, read and written)."""
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
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}: product {product / 1e12:.0f} TFLOP/s, copy {copy / 1e12:.2f} TB/s")
    return product, copy


def on_gpu(x, build, flop, several, options, note=lambda rate: ""):
    """Print samples per second for several M, with the share of what the ceilings allow."""
    product, copy = ceilings(options.device, options.precision)
    parameters = sum(p.numel() for p in build().parameters())
    floor = flop / product + parameters * ADAM_BYTES / options.batch_size / copy  # seconds a sample
    for members in several:
        engine = Engine(x, members, options.batch_size, options.precision, options.device, build)
        engine(1.0)
        rate = statistics.median(engine(options.seconds) for _ in range(3))
        print(f"  M = {members:2d}: {rate:11,.0f} samples/s, {rate * floor:.2f} of the ceiling{note(rate)}")
        del engine
        torch.cuda.empty_cache()


def parse(description):
    """The command line of this benchmark and of that of faces."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=128, help="on a GPU")
    parser.add_argument("--precision", default="bfloat16", help="on a GPU")
    return parser.parse_args()


def grid_time(rate):
    """How long half of the paper's grid takes at that rate, as text."""
    return f"; 20 members x 1000 epochs of MNIST in {60_000 * 1000 * 20 / rate / 60:.1f} min"


if __name__ == "__main__":
    options = parse(__doc__.splitlines()[0])
    if options.device == "cpu":
        on_cpu(options.rounds, options.seconds)
    else:
        x = np.random.default_rng(0).integers(0, 256, (COUNT, 784), np.uint8)
        on_gpu(x, vae.mlp, FLOP, (1, 8, 20, 40), options, grid_time)
