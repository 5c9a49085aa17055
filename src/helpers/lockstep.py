"""One epoch of many VAEs in lock-step: what `train` repeats. Serves chapter 08.

The members' parameters lie side by side in a `vae.Stack`, so that a step is one batched product where M networks
trained one after the other would do M small ones.
"""

import contextlib
import ctypes
import sys

import numpy as np
import torch

from helpers._validation import brief, instance, integer, one_of
from helpers.vae import Stack, elbo

CHUNK = 16  # minibatches drawn at a time; part of what a seed means, so the same for every stack and device
HISTORY = ("elbo", "sse", "kl", "sigma2", "beta")
PRECISIONS = ("float32", "tf32", "bfloat16")
FUSED = ("cpu", "cuda", "mps", "xpu")  # where torch's Adam does a step in one go


def scaled(x):
    """Pixels as the model sees them: uint8 divided by 255, where they lie; float32 as it is."""
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_meta:
        raise ValueError(f"x is {brief(x)}; expected a dense tensor, of uint8 or float32")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"x is {brief(x)}; expected a tensor, of uint8 or float32")
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def rows_at_a_time(n):
    """Samples of n numbers that an evaluation takes at a time: 2000, or what 8 MB hold where they are large."""
    return max(1, min(2000, 2**21 // integer("n", n, 1, 10**100)))


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


def measurable(mean, logvar):
    """Whether encoder outputs are finite, and so are in float64 the variances, their inverses and all sums of them."""
    for name, value in (("mean", mean), ("logvar", logvar)):
        if not instance(name, value, torch.Tensor).is_floating_point() or value.is_meta:
            raise ValueError(f"{name} is {brief(value)}; expected a tensor of floating-point numbers")
    return bool(mean.isfinite().all() and (logvar.abs() < 500).all())


class _Sums:
    """Running sums of float32 tensors of one shape, to more digits: in float64, or where there is none in two parts.

    The second part holds what the first loses to rounding at each addition, which is exactly a float32 number again
    (Knuth's two-sum), so that together they lose no more than the rounding of these small parts among themselves.
    """

    def __init__(self, *shape, device):
        self.float64 = has_float64(device)
        self.first = torch.zeros(shape, dtype=torch.float64 if self.float64 else torch.float32, device=device)
        self.rest = None if self.float64 else torch.zeros(shape, device=device)

    def zero_(self):
        for part in (self.first, self.rest)[: 1 if self.float64 else 2]:
            part.zero_()

    def add_(self, values):
        if self.float64:
            self.first += values
            return
        total = self.first + values
        share = total - self.first
        self.rest += (self.first - (total - share)) + (values - share)
        self.first.copy_(total)

    def total(self):
        """In float64, where it lies or else on the host."""
        return self.first if self.float64 else wide(self.first) + wide(self.rest)


class Lockstep:
    """A run's next epochs on `data`, a tensor (N, ...) on the device that trains. `epoch` does one."""

    def __init__(self, run, data, batch_size, precision):
        if not isinstance(getattr(run, "stack", None), Stack):
            raise ValueError(f"run is {brief(run)}; expected a train.Run")
        if not isinstance(data, torch.Tensor) or data.ndim < 2 or not len(data) or data.is_meta:
            raise ValueError(f"data is {brief(data)}; expected a tensor (N, ...)")
        integer("batch_size", batch_size, 1, len(data))
        one_of("precision", precision, PRECISIONS)
        self.run, self.data, self.batch_size, self.precision = run, data, batch_size, precision
        self.device, self.steps, M = data.device, len(data) // batch_size, len(run.members)
        self.n = data[0].numel()
        with torch.no_grad():  # whatever the network, its encoder tells k
            self.k = run.stack.member(0).encode(scaled(data[:1]))[0].shape[1]
        self.learned = torch.tensor([member.sigma2_rule == "adam" for member in run.members], device=self.device)
        # What a step reads and writes: a CUDA graph replays on these very tensors.
        self.index = torch.zeros(M, batch_size, dtype=torch.int64, device=self.device)
        self.noise = torch.zeros(M, batch_size, self.k, device=self.device)
        self.beta = torch.zeros(M, device=self.device)
        self.totals = _Sums(3, M, device=self.device)
        self.graph, self.warm_up = None, 3
        self.last_finite = {name: p.detach().clone() for name, p in run.stack.parameters.items()}
        self._make_optimizer()
        if self.device.type == "cpu":
            _keep_freed_memory()

    def _make_optimizer(self):
        """Torch's Adam, a group per learning rate, on views of the stacked parameters and of its own averages."""
        self.views = [p.detach().unbind() for p in self.run.stack.parameters.values()]
        groups = {}
        for m, member in enumerate(self.run.members):
            group = groups.setdefault((member.learning_rate, member.decay), {"params": [], "member": member})
            group["params"].extend(views[m] for views in self.views)
            # A number is part of a CUDA graph; what changes has to be a tensor there.
            changes = member.decay and self.device.type == "cuda"
            group["lr"] = torch.tensor(member.learning_rate, device=self.device) if changes else member.learning_rate
        self.optimizer = torch.optim.Adam(
            list(groups.values()), fused=self.device.type in FUSED, capturable=self.device.type == "cuda"
        )
        for name, views in zip(self.run.stack.parameters, self.views, strict=True):
            for view, *averages in zip(views, *(average[name].unbind() for average in self.run.adam), strict=True):
                step = torch.tensor(float(self.run.epoch * self.steps), device=self.device)
                state = dict(zip(("exp_avg", "exp_avg_sq"), averages, strict=True))
                self.optimizer.state[view] = {"step": step, **state}

    def epoch(self, bar):
        """Each member sees its data once, in its own order; `bar` is told how many samples were, by `update`."""
        if not callable(getattr(bar, "update", None)) or isinstance(bar, (dict, set)):
            raise ValueError(f"bar is {brief(bar)}; expected a progress bar, with `update`")
        run, members, size = self.run, self.run.members, self.batch_size
        if run.epoch >= min(map(len, run.betas)):
            raise ValueError(f"run has done its {run.epoch} epochs; expected one that has some left")
        generators = [self._generator(member.seed) for member in members]
        order = [torch.randperm(len(self.data), generator=g, device=self.device) for g in generators]
        order = torch.stack(order)[:, : self.steps * size].reshape(len(members), self.steps, size)
        for group in self.optimizer.param_groups:
            rate = group["member"].rate_at(run.epoch, len(run.betas[0]))
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.totals.zero_()
        with _products_in(self.precision):
            for first in range(0, self.steps, CHUNK):
                chunk = range(first, min(first + CHUNK, self.steps))
                shape = (len(chunk), size, self.k)
                noise = [torch.randn(shape, generator=g, device=self.device) for g in generators]
                beta = [[beta[run.epoch, step] for beta in run.betas] for step in chunk]
                beta = torch.tensor(beta, dtype=torch.float32).to(self.device)
                for i, step in enumerate(chunk):
                    self.index.copy_(order[:, step])
                    torch.stack([draws[i] for draws in noise], out=self.noise)
                    self.beta.copy_(beta[i])
                    self._replay() if self.device.type == "cuda" else self.step()
                bar.update(len(chunk) * size * len(members))
        self._finish()

    def _generator(self, seed):
        """What a seed draws in one epoch depends on nothing else, so that an interrupted epoch can be done again."""
        state = np.random.SeedSequence([seed, self.run.epoch]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(state) >> 1)

    def step(self):
        """One step of Adam for every member, each on a minibatch of its own."""
        parameters = self.run.stack.parameters
        x = scaled(self.data[self.index])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            squared_error, kl = self.run.stack(x, self.noise)
        squared_error, kl = squared_error.mean(1), kl.mean(1)
        log_sigma2 = parameters["log_sigma2"]
        log_sigma2 = torch.where(self.learned, log_sigma2, log_sigma2.detach())
        objective = elbo(squared_error, kl, log_sigma2, self.n, self.beta)
        # The members share nothing, so the gradient of the sum is each one's own.
        gradients = torch.autograd.grad(-objective.sum(), list(parameters.values()))
        for views, gradient in zip(self.views, gradients, strict=True):
            # Fused Adam takes a gradient to lie in memory as its parameter does; those of convolutions may not.
            for view, part in zip(views, gradient.contiguous().unbind(), strict=True):
                view.grad = part
        self.optimizer.step()
        with torch.no_grad():
            self.totals.add_(torch.stack([elbo(squared_error, kl, log_sigma2, self.n), squared_error, kl]))

    def _replay(self):
        """A step on a GPU: the first few as they are, then recorded as a CUDA graph, then replayed from it."""
        if self.graph is None and self.warm_up:
            self.warm_up -= 1
            stream = torch.cuda.Stream()  # where a capture wants what precedes it to have run
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.step()
            torch.cuda.current_stream().wait_stream(stream)
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        self.graph.replay()

    @torch.no_grad()
    def _finish(self):
        """The epoch's averages go into the history; closed-form sigma2 is set; diverged members are put back."""
        run, parameters = self.run, self.run.stack.parameters
        run.epoch += 1
        averages = self.totals.total() / self.steps
        rule = [member.sigma2_rule == "closed form" for member in run.members]
        parameters["log_sigma2"][rule] = (averages[1, rule] / self.n).log().float().to(self.device)
        finite = torch.isfinite(averages).all(0).to(self.device)
        for tensors in (parameters, *run.adam):  # an average at infinity holds its parameter still for ever
            for p in tensors.values():
                finite &= torch.isfinite(p.reshape(len(run.members), -1).sum(1))
        bad = ~finite.cpu().numpy()
        run.diverged[bad & (run.diverged == 0)] = run.epoch
        bad = run.diverged > 0
        for name, p in parameters.items():
            p[bad] = self.last_finite[name][bad]
            self.last_finite[name].copy_(p)
            for average in run.adam:
                average[name][bad] = 0
        row = dict(zip(("elbo", "sse", "kl"), averages.cpu().numpy(), strict=True))
        row["sigma2"] = wide(parameters["log_sigma2"]).exp().cpu().numpy()
        row["beta"] = wide(self.beta).cpu().numpy()
        for name, values in row.items():
            run.history[name] = np.vstack([run.history[name], np.where(bad, np.nan, values)])


@contextlib.contextmanager
def _products_in(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _keep_freed_memory():
    """Have glibc's malloc keep what is freed: each step asks for the same large blocks, and fresh pages are slow."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at the largest value it takes
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
