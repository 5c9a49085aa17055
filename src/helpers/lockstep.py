"""One epoch of many VAEs in lock-step: what `train` repeats. Serves chapter 08.

The members' parameters lie side by side in an `ensemble.Stack`, so that a step is one batched product where M networks
trained one after the other would do M small ones.
"""

import contextlib
import ctypes
import sys

import numpy as np
import torch

from helpers._validation import brief, instance, integer, one_of
from helpers.ensemble import PRECISIONS, Run
from helpers.vae import elbo, has_float64, scaled, wide

CHUNK = 16  # minibatches drawn at a time; part of what a seed means, so the same for every stack and device
FUSED = ("cpu", "cuda", "mps", "xpu")  # where torch's Adam does a step in one go


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
    """A run's next epochs, which `epoch` does one by one.

    Parameters
    ----------
    run : ensemble.Run
    data : (N, ...) tensor
        uint8 or float32, on the device that trains.
    batch_size : int
        At most N.
    precision : {"float32", "tf32", "bfloat16"}
        Of the matrix products.
    """

    def __init__(self, run, data, batch_size, precision):
        instance("run", run, Run)
        if not isinstance(data, torch.Tensor) or data.ndim < 2 or not len(data) or data.is_meta:
            raise ValueError(f"data is {brief(data)}; expected a tensor (N, ...)")
        integer("batch_size", batch_size, 1, len(data))
        one_of("precision", precision, PRECISIONS)
        self.run, self.data, self.batch_size, self.precision = run, data, batch_size, precision
        self.device, self.steps, M = data.device, len(data) // batch_size, len(run.members)
        self.n, self.k = data[0].numel(), run.k
        self.learned = torch.tensor([member.sigma2_rule == "adam" for member in run.members], device=self.device)
        # What a step reads and writes: a CUDA graph replays on these very tensors.
        self.index = torch.zeros(M, batch_size, dtype=torch.int64, device=self.device)
        self.noise = torch.zeros(M, batch_size, self.k, device=self.device)
        self.beta = torch.zeros(M, device=self.device)
        self.totals = _Sums(3, M, device=self.device)
        self.averages = self.totals.total()  # of the last epoch: ELBO, SSE and KL, (3, M)
        self.graph, self.warm_up = None, 3
        self.one_step = self._replay if self.device.type == "cuda" else self.step
        self.last_finite = {name: p.detach().clone() for name, p in run.stack.parameters.items()}
        self._make_optimizer()

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
        """Each member sees its data once, in its own order; `bar` is told how many samples were, by `update`.

        Raises
        ------
        ValueError
            When `bar` has no `update`, or all epochs are done.
        """
        if not callable(getattr(bar, "update", None)) or isinstance(bar, (dict, set)):
            raise ValueError(f"bar is {brief(bar)}; expected a progress bar, with `update`")
        run, members, size = self.run, self.run.members, self.batch_size
        if run.epoch >= min(map(len, run.betas)):
            raise ValueError(f"run has done its {run.epoch} epochs; expected one that has some left")
        generators = [self.generator(member.seed) for member in members]
        order = [torch.randperm(len(self.data), generator=g, device=self.device) for g in generators]
        order = torch.stack(order)[:, : self.steps * size].reshape(len(members), self.steps, size)
        for group in self.optimizer.param_groups:
            rate = group["member"].rate_at(run.epoch, len(run.betas[0]))
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.totals.zero_()
        with products_in(self.precision):
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
                    self.one_step()
                bar.update(len(chunk) * size * len(members))
        self.finish()

    def generator(self, seed):
        """What a seed draws in one epoch depends on nothing else, so that an interrupted epoch can be done again."""
        seed = integer("seed", seed, 0, 2**32 - 1)
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
    def finish(self):
        """The end of an epoch: closed-form sigma2 is set, diverged members are put back, the history grows."""
        self.run.epoch += 1
        self.averages = self.totals.total() / self.steps
        self.set_sigma2()
        diverged = self.put_back()
        row = dict(zip(("elbo", "sse", "kl"), self.averages.cpu().numpy(), strict=True))
        row["sigma2"] = wide(self.run.stack.parameters["log_sigma2"]).exp().cpu().numpy()
        row["beta"] = wide(self.beta).cpu().numpy()
        for name, values in row.items():
            self.run.history[name] = np.vstack([self.run.history[name], np.where(diverged, np.nan, values)])

    @torch.no_grad()
    def set_sigma2(self):
        """Where the rule is closed form, sigma2 is SSE / n, by the epoch's average."""
        rule = [member.sigma2_rule == "closed form" for member in self.run.members]
        best = (self.averages[1, rule] / self.n).log()
        self.run.stack.parameters["log_sigma2"][rule] = best.float().to(self.device)

    @torch.no_grad()
    def put_back(self):
        """Which members have diverged, (M,) bool; each has the parameters of its last finite epoch again."""
        run = self.run
        finite = torch.isfinite(self.averages).all(0).to(self.device)
        for tensors in (run.stack.parameters, *run.adam):  # an average at infinity holds its parameter still for ever
            for p in tensors.values():
                finite &= torch.isfinite(p.reshape(len(run.members), -1).sum(1))
        run.diverged[~finite.cpu().numpy() & (run.diverged == 0)] = run.epoch
        diverged = run.diverged > 0
        for name, p in run.stack.parameters.items():
            p[diverged] = self.last_finite[name][diverged]
            self.last_finite[name].copy_(p)
            for average in run.adam:
                average[name][diverged] = 0
        return diverged


@contextlib.contextmanager
def products_in(precision):
    """Matrix products are in this `precision`, one of `PRECISIONS`, meanwhile; bfloat16 is autocast's to see to."""
    one_of("precision", precision, PRECISIONS)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory():
    """Have glibc's malloc keep what is freed: each step asks for the same large blocks, and fresh pages are slow."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at the largest value it takes
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
