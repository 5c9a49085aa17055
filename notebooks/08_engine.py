# ---
# jupyter:
#   jupytext:
#     cell_markers: r"""
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
r"""
# The deep engine

From here on the book trains networks. This chapter builds the machine that does it, in front of you: from
[Eq. 4](00_preliminaries.ipynb#equation-4) to a VAE of a few lines, from one training step to a loop that
trains many VAEs at once, and from there to an ensemble that learns scikit-learn's digits while you wait. Each
part is held against something that we already know. Towards the end stands a network without hidden layers, for
which the chapters before say to what ELBO training must lead, and where it may be held up on the way.

> **In short**
>
> - A Gaussian VAE needs few lines: a squared error over $2 \sigma^2$, a sum of KLs, and one draw of $z$ per
>   image. All that a study needs beyond that is many of them trained side by side.
> - Where a VAE has converged, every unit has $\mathbb E[m_j^2 + v_j] = 1$, and a learned $\sigma^2$ is the
>   squared error per dimension. Both can be read off the encoder's outputs.
> - For your VAE: compute $c_j$, the average of $m_j^2 + v_j$ over the data. If a unit is far from 1, training is
>   not done, and $\tfrac12 \sum_j (c_j - 1 - \log c_j)$ nats can be had by rescaling alone.
> - On digits deep VAEs use fewer units than there are eigenvalues above $\sigma^2$: the linear count is a guide,
>   and no law.

**You need**: [Eq. 4](00_preliminaries.ipynb#equation-4), the closed forms of
[chapter 7](07_what_linear_theory_predicts.ipynb), and to have seen PyTorch before. **Time to run**: under 30
seconds on a laptop; no GPU needed.

Run it in Colab: not yet, since the book has no public address; [how to give it one](../book/reproduce.md).
"""

# %%
# Where the book's package is missing, as in a fresh Colab, fetch it. What is installed already stays as it is.
import importlib.util
import os
import subprocess
import sys

repository = os.environ.get("BOOK_REPOSITORY", "")
found = importlib.util.find_spec("helpers")
if found is not None and not found.submodule_search_locations:
    raise ImportError(f"{found.origin} is found in place of the book's package `helpers`; rename or move it")
if found is None and not repository:
    raise ModuleNotFoundError(
        "no package `helpers`: run `pip install .` in a clone of the book, or set BOOK_REPOSITORY to its address"
    )
if found is None:
    address = f"git+{repository.removeprefix('git+')}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", address, "python-flint", "sympy"], check=True)

# %% tags=["parameters"]
profile = "quick"

# %% tags=["hide-input"]
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from helpers import collapse, data, plans, plots, ppca, spectrum, vae
from helpers.ensemble import LinearAnnealing, Member, Stack
from helpers.ledger import Ledger
from helpers.linear_vae import LinearVAE, optimal_encoder, posterior_gap
from helpers.lockstep import Lockstep
from helpers.moments import Moments
from helpers.train import train
from helpers.vae import VAE, elbo

# %% tags=["hide-input"]
ledger = Ledger("08_engine")

# %% [markdown]
r"""
The chapter is the same in every profile: the digits come with scikit-learn, and everything is trained live.

## From Eq. 4 to code

What a VAE maximises is, for each data point $x$,

$$ \text{ELBO} = \mathbb E_{q(z \mid x)}\big[ \log p(x \mid z) \big] - D_{KL}\big( q(z \mid x) \,\|\, p(z) \big) . \tag{4} $$

A Gaussian VAE fills in three densities. The prior is $p(z) = \mathcal N(0, I_k)$. A *decoder* network
$d : \mathbb R^k \to \mathbb R^n$ makes the mean of $p(x \mid z) = \mathcal N(d(z),\, \sigma^2 I_n)$, and an
*encoder* network makes, from $x$, the $k$ means $m(x)$ and the $k$ log variances $\log v(x)$ of
$q(z \mid x) = \mathcal N(m, \operatorname{diag}(v))$. Logarithms, because a network's output may be any number
and a variance may not.

| quantity | size, for a batch of $B$ | in the code |
|---|---|---|
| $x$, and $d(z)$ | $B \times n$ | `x`, `decode(z)` |
| $m$ and $\log v$ | $B \times k$ each | `mean`, `logvar` |
| $\varepsilon$, below | $B \times k$ | `noise` |
| $\lVert x - d(z) \rVert^2$, and $D_{KL}(q \,\Vert\, p(z))$ | $B$ each | `squared_error`, `kl` |
| $\log \sigma^2$ | one number | `log_sigma2` |

**The reconstruction term.** The log density of $\mathcal N(d(z), \sigma^2 I_n)$ at $x$ is
$-\tfrac n2 \log 2\pi - \tfrac n2 \log \sigma^2 - \lVert x - d(z) \rVert^2 / 2\sigma^2$, and so

$$ \mathbb E_q \big[ \log p(x \mid z) \big] = -\tfrac12 \Big[ n \log 2\pi + n \log \sigma^2
+ \frac{1}{\sigma^2}\, \mathbb E_q \lVert x - d(z) \rVert^2 \Big] . $$

For the linear decoder the last average had a closed form. For a network it has none, and one draw of $z$
stands in for it.

**The draw must let derivatives through.** The encoder's parameters $\varphi$ sit in the density that is drawn
from, and a number, once drawn, does not tell how it would have moved with them. But
$z \sim \mathcal N(m, \operatorname{diag}(v))$ is the same thing
as $z = m + \sqrt v \odot \varepsilon$ with $\varepsilon \sim \mathcal N(0, I_k)$: an affine function of a
standard Gaussian is Gaussian, with mean $m$ and variances $v$. So for any function $f$

$$ \mathbb E_{q_\varphi} f(z) = \mathbb E_\varepsilon\, f\big( m_\varphi + \sqrt{v_\varphi} \odot \varepsilon \big),
\qquad
\nabla_\varphi\, \mathbb E_{q_\varphi} f(z) = \mathbb E_\varepsilon\, \nabla_\varphi f\big( m_\varphi + \sqrt{v_\varphi} \odot \varepsilon \big) . $$

On the right the density of $\varepsilon$ has no $\varphi$ in it, so derivative and average change places. (That
is allowed here, for almost every $\varphi$. The networks are continuous, smooth but for kinks, on which a draw
falls with probability zero, and for all parameters near a given $\varphi$ the derivatives grow no faster than a
polynomial in $\lVert \varepsilon \rVert$, which has an average.) The gradient at *one* draw therefore has the
right average. This is the reparametrisation of
[Kingma & Welling, 2013](../book/references.md) and [Rezende et al., 2014](../book/references.md).

**The KL term** was [derived with Eq. 4](00_preliminaries.ipynb#equation-4): a sum over the units,

$$ D_{KL}\big( q(z \mid x) \,\|\, p(z) \big) = \tfrac12 \sum_{j=1}^k \big( m_j^2 + v_j - 1 - \log v_j \big) . $$

Here is all of it, from the package.
"""

# %%
plots.show_source(VAE)

# %%
plots.show_source(elbo)

# %% [markdown]
r"""
`expm1(logvar)` is $e^{\log v} - 1 = v - 1$, without losing digits when $v$ is nearly 1, as it is for a unit
that has all but collapsed. The networks themselves are ordinary stacks of layers. By default this is the
paper's network for MNIST (the widths are the paper's; it does not name the nonlinearity, ReLU is our choice):
"""

# %%
plots.show_source(vae.mlp)

# %% [markdown]
r"""
**Check.** A small network with random weights, half as large again as PyTorch makes them, so that the tanh
bends; three data points; float64.
"""

# %% tags=["hide-cell"]
torch.manual_seed(0)
n, k = 5, 2
small = vae.mlp(n, hidden=(6,), k=k, activation=torch.nn.Tanh, sigma2=0.3).double()
with torch.no_grad():
    for p in [*small.encoder.parameters(), *small.decoder.parameters()]:
        p.mul_(1.5)
x = torch.randn(3, n, dtype=torch.float64)

# %% [markdown]
r"""
*The terms at given draws*, against PyTorch's own densities and its own KL divergence:
"""

# %% tags=["hide-cell"]
noise = torch.randn(3, k, dtype=torch.float64)
squared_error, kl = small(x, noise)
ours = elbo(squared_error, kl, small.log_sigma2, n).detach()

mean, logvar = small.encode(x)
q, prior = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros_like(mean), 1.0)
log_p = Normal(small.decode(q.mean + q.stddev * noise), (small.log_sigma2 / 2).exp()).log_prob(x).sum(1)
theirs = (log_p - kl_divergence(q, prior).sum(1)).detach()
ledger.check(4, "a VAE's terms at one draw, against PyTorch's densities", "library", ours, theirs, 1e-10)

# %% [markdown]
r"""
*Their average.* `average` takes the engine's terms over many values of $\varepsilon$ with weights: sixty
Gauss–Hermite nodes on each axis, or random draws. `integral` knows nothing of draws, of $\varepsilon$ or of
the split into two terms. It integrates the other form of the bound,
$\mathbb E_q [\log p(x, z) - \log q(z \mid x)]$ of [Eq. 3](00_preliminaries.ipynb#equation-3), over a grid of
$z$ that stays where it is.
"""


# %% tags=["hide-cell"]
def average(model, x, noise, weights):
    """The ELBO averaged over `noise` (Q, k) with `weights` (Q,), for each row of x (B, n), (B,)."""
    squared_error, kl = model(x.repeat_interleave(len(noise), 0), noise.repeat(len(x), 1))
    squared_error = squared_error.reshape(len(x), -1) @ weights
    return elbo(squared_error, kl.reshape(len(x), -1)[:, 0], model.log_sigma2, x.shape[1])


def gauss_hermite(count):
    """Nodes (count^2, 2) and weights (count^2,) for two standard normal variables."""
    t, w = np.polynomial.hermite_e.hermegauss(count)
    nodes = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    return torch.tensor(nodes), torch.tensor(np.outer(w, w).ravel() / (2 * np.pi))


# %% tags=["hide-cell"]
axis = torch.linspace(-12, 12, 121, dtype=torch.float64)
z = torch.cartesian_prod(axis, axis)


def integral(model, x):
    """E_q[log p(x, z) - log q(z | x)] by the trapezoidal rule over z, for each row of x (B, n), (B,)."""
    mean, logvar = model.encode(x)
    log_q = Normal(mean[:, None], (logvar / 2).exp()[:, None]).log_prob(z).sum(-1)
    log_p = Normal(model.decode(z), (model.log_sigma2 / 2).exp()).log_prob(x[:, None]).sum(-1)
    log_p = log_p + Normal(0.0, 1.0).log_prob(z).sum(-1)
    return (log_q.exp() * (log_p - log_q)).sum(-1) * (axis[1] - axis[0]) ** 2


# %% tags=["hide-cell"]
with torch.no_grad():
    by_grid, by_nodes = integral(small, x), average(small, x, *gauss_hermite(60))
    count = 50_000
    by_draws = average(small, x, torch.randn(count, k, dtype=torch.float64), torch.full((count,), 1 / count).double())
ledger.check(4, "a VAE's ELBO over nodes, against Eq. 3 over a grid of z", "quadrature", by_nodes, by_grid, 1e-6)
ledger.check(4, "a VAE's ELBO over draws, against Eq. 3 over a grid of z", "Monte Carlo", by_draws, by_grid, 2e-2)

# %% [markdown]
r"""
*The gradient.* On the grid $z$ does not move with the encoder, so its derivative owes nothing to the
reparametrisation. We step a little to both sides along a random direction in each of the nine parameter
tensors and compare the slopes with what `backward` finds through $z = m + \sqrt v \odot \varepsilon$.
"""

# %% tags=["hide-cell"]
gradients = torch.autograd.grad(average(small, x, *gauss_hermite(60)).mean(), list(small.parameters()))
slopes, differences = [], []
for p, gradient in zip(small.parameters(), gradients, strict=True):
    direction, values = torch.randn_like(p), []
    for step in (1e-5, -2e-5, 1e-5):  # there, past the start to the other side, and back
        p.data += step * direction
        values.append(integral(small, x).mean().item())
    slopes.append((gradient * direction).sum().item())
    differences.append((values[0] - values[1]) / 2e-5)
method = "slopes through the draw, against a grid of z that does not move"
ledger.check(4, method, "finite differences", slopes, differences, 1e-5)

# %% [markdown]
r"""
## One network, one step

The digits are 1,797 images of $8 \times 8$ pixels, kept as bytes and divided by 255 when they are used. Here
is a training loop for one VAE, in full, in plain PyTorch. Each minibatch takes one draw of $z$ per
image, averages the two terms over its images, and lets Adam ([Kingma & Ba, 2014](../book/references.md))
take one step up the ELBO.
"""

# %%
pixels = data.digits_bytes()
images = torch.tensor(pixels) / 255
n, k, size = 64, 16, 64
build = partial(vae.mlp, n=n, hidden=(32,), k=k)
print(f"digits: {len(pixels)} images of {n} pixels, from {pixels.min()} to {pixels.max()}")


# %%
def draws(seed, epoch, steps):
    """What one epoch draws: the images of each minibatch (steps, size), and the noise (steps, size, k)."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) >> 1)
    order = torch.randperm(steps * size, generator=generator).reshape(steps, size)
    return order, torch.randn(steps, size, k, generator=generator)


# %%
def train_alone(model, x, member, epochs):
    """One VAE, trained as everybody does; average ELBO over the minibatches of each epoch, (epochs,)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=member.learning_rate)
    values = []
    for epoch in range(epochs):
        for rows, noise in zip(*draws(member.seed, epoch, len(x) // size), strict=True):
            squared_error, kl = model(x[rows], noise)
            objective = elbo(squared_error.mean(), kl.mean(), model.log_sigma2, n, member.beta)
            optimizer.zero_grad()
            (-objective).backward()
            optimizer.step()
            values.append(objective.item())
    return np.reshape(values, (epochs, -1)).mean(axis=1)


# %% [markdown]
r"""
What is drawn depends on the seed and the number of the epoch alone; why that is worth having, we see
[below](#what-can-go-wrong). A `Member` holds what one VAE has of its own. The first 1,024 digits, sixteen
minibatches an epoch, $\sigma^2 = 0.1$ to begin with and learned:
"""


# %%
def fresh(member):
    """The VAE that a member starts from: its seed decides the weights."""
    torch.manual_seed(member.seed)
    model = build()
    model.log_sigma2.data.fill_(np.log(member.sigma2))
    return model


part = images[:1024]
first = Member(seed=1, sigma2=0.1, sigma2_rule="adam", learning_rate=2e-3)
values = train_alone(fresh(first), part, first, epochs=8)
assert (np.diff(values) > 0).all() and values[-1] - values[0] > 30
print(f"average ELBO: from {values[0]:.0f} nats in the first epoch to {values[-1]:.0f} in the eighth")

# %% [markdown]
r"""
## Many at once

An experiment of this book is never one network. It is four values of $\sigma^2$, four learning rates,
three seeds. Each of those networks is small, and a good part of its time goes into starting operations rather
than into doing them. So we train $M$ networks *in lock-step*: all take their first step together, then all
their second.

**Why that is the same.** Let $\theta_m$ be the parameters of member $m$ and $\mathcal L_m(\theta_m)$ its
objective on its own minibatch. Nothing is shared, so in the sum of all objectives only one term knows
$\theta_m$:

$$ \frac{\partial}{\partial \theta_m} \sum_{j=1}^M \mathcal L_j(\theta_j) = \frac{\partial \mathcal L_m}{\partial \theta_m} . $$

One `backward` through the sum yields every member's own gradient. And Adam works number by number: the step
of a parameter depends on that parameter's gradients, past and present, on the learning rate and on how many
steps there were. So one
optimiser over all of them, with a group for each learning rate, is $M$ optimisers.

**How they are stacked.** The weight matrices of the $M$ members become one tensor with $M$ slices, and the
product with each becomes one batched product. `torch.func.functional_call` runs a module with parameters from
elsewhere, and `vmap` runs it for each of the $M$.
"""

# %%
plots.show_source(Stack)

# %% [markdown]
r"""
One step of all members is the inner loop of `train_alone`, with one more axis:
"""

# %%
plots.show_source(Lockstep.step)

# %% [markdown]
r"""
Where Adam does not learn a member's $\sigma^2$, `detach` keeps the gradient from it. An epoch draws for each member
its own order and noise, and takes the steps. (The noise is drawn for `CHUNK`, that is sixteen, minibatches at a time,
so that it never fills the memory; `_replay` is the same step on a GPU.) At its end it keeps the averages, sets
$\sigma^2$ where the closed form is the rule, and looks for members that have diverged:
"""

# %%
plots.show_source(Lockstep.epoch)

# %%
plots.show_source(Lockstep.generator)

# %%
plots.show_source(Lockstep.finish)

# %% [markdown]
r"""
And this is what repeats it, with checkpoints, a budget of time, and an interrupt that waits for the end of the
epoch.
"""

# %%
plots.show_source(train)

# %% [markdown]
r"""
**Check: M together is M separate.** Four members that differ in seed, learning rate, first $\sigma^2$ and
$\beta$, trained by the loop that you saw first, one after the other, and by the engine, together. (Sixteen
minibatches are one `CHUNK`, so both draw the same.) Floating-point sums in another order
differ in their last digits, so we do not ask for equality but for $10^{-4}$ in every weight.
"""

# %%
members = [
    first,
    Member(seed=2, sigma2=0.05, sigma2_rule="adam", learning_rate=1e-3),
    Member(seed=3, sigma2=0.01, sigma2_rule="adam", learning_rate=5e-4, beta=0.5),
    Member(seed=4, sigma2=0.2, sigma2_rule="adam", learning_rate=2e-3, beta=2.0),
]
together = train(build, pixels[:1024], members, epochs=5, batch_size=size)
worst = 0.0
for m, member in enumerate(members):
    alone = fresh(member)
    train_alone(alone, part, member, epochs=5)
    for p, q in zip(alone.parameters(), together.stack.member(m).parameters(), strict=True):
        worst = max(worst, (p - q).abs().max().item())
assert worst < 1e-4
print("80 steps: no weight of any of the four differs by 1e-4")

# %% [markdown]
r"""
## An ensemble on digits

The package keeps the book's experiments as data. The study `demo` trains four VAEs on the digits, with the
four noise variances of the paper's section 5.2. We add two that learn theirs, from $\sigma^2 = 1$: one by
Adam, as one more parameter, and one by its closed form, set after every epoch.
"""

# %%
plan = plans.find("demo", "quick")
rate = plan.members[0].learning_rate
learned = [Member(sigma2_rule=rule, learning_rate=rate) for rule in ("adam", "closed form")]
members = [*plan.members, *learned]
names = [f"σ² = {member.sigma2}" for member in plan.members] + ["learned, Adam", "learned, closed form"]
print(f"network {plan.network.keywords}, {plan.epochs} epochs of minibatches of {plan.batch_size}, Adam at {rate}")

# %%
ensemble = train(plan.network, pixels, members, plan.epochs, plan.batch_size, snapshots=(40,))
history = ensemble.history
assert not ensemble.diverged.any() and (history["elbo"][-1] > history["elbo"][0]).all()
rise = history["elbo"][-5:].mean(axis=0) - history["elbo"][-10:-5].mean(axis=0)
assert rise[3] > 2 and rise[4] > 2

# %% tags=["hide-input"]
epochs = np.arange(1, plan.epochs + 1)
steps = len(pixels) // plan.batch_size
assert 0.8 < -np.log(history["sigma2"][-1, 4]) / (rate * steps * plan.epochs) < 1  # the dotted line below
STYLES = [*zip(plots.COLOURS, [*plots.LINES, (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))], strict=True)]

# %% mystnb={"image": {"alt": "ELBO of six members rising over sixty epochs; beside it learned variances: one falls slowly along a line, one at once"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=9.4, height=3.9)
for values, name, (colour, line) in zip(history["elbo"].T, names, STYLES, strict=True):
    left.plot(epochs, values, color=colour, linestyle=line, label=name)
left.set(xlabel="epoch", ylabel="ELBO (nats per image)", ylim=(-340, 60))
left.legend(fontsize=8.5, loc="lower right")
for m in (4, 5):
    colour, line = STYLES[m]
    right.semilogy(epochs, history["sigma2"][:, m], color=colour, linestyle=line)
    right.semilogy(epochs, history["sse"][:, m] / n, color=colour, linewidth=0.9)
right.semilogy(epochs, np.exp(-rate * steps * epochs), ":", color="0.3")
texts = [("σ² by Adam", 32, 0.2), ("dotted: one\nlearning rate a step", 1, 0.14)]
for text, *place in [*texts, ("its error per pixel", 21, 0.07), ("σ² by closed form, and its error", 18, 0.019)]:
    right.annotate(text, place, fontsize=9)
_ = right.set(xlabel="epoch", ylabel="variance (pixel units squared)", ylim=(0.007, 1.3))

# %% [markdown]
r"""
**Figure 8.1.** ELBO and noise variance of six VAEs trained together on digits, live.

On the left every ELBO rises; that of the smallest $\sigma^2$, and that of Adam's, still do so when we stop. On
the right the learned $\sigma^2$ (broken lines)
and the average squared error per pixel (thin lines). The closed form jumps to its error after each epoch.
Adam's $\sigma^2$ comes down nearly along a straight line on this logarithmic axis, and the dotted line says why:
while a gradient keeps its sign and changes its size slowly, Adam's step is about one learning rate, whatever that
size is. So
in $t$ steps $\log \sigma^2$ moves by about $t$ learning rates, and from 1 to 0.01 it has 4.6 units to go. The paper
does not say from which value it starts its learned $\sigma^2$; how long the way is depends on that and on the
learning rate.

**How many units are active?** Every member evaluated on all 1,797 digits, with 16 draws for each; and beside
it what [chapter 7](07_what_linear_theory_predicts.ipynb) says of the best *linear* VAE with 16 latents on the
same pixels: the number of eigenvalues above $\sigma^2$, and its ELBO.
"""

# %%
networks = [ensemble.stack.member(m) for m in range(len(members))]
final = [collapse.evaluate([images], net.encode, net.decode, np.exp(net.log_sigma2.item())) for net in networks]
digits = Moments.from_samples(images.double().numpy())
lam = digits.eigenvalues

# %% tags=["hide-input", "nbval-ignore-output"]
print("member                  σ²       active   #{λ > σ²}   ELBO   linear   total KL   I(x; z)")
for name, e in zip(names, final, strict=True):
    alive, best = spectrum.active(lam, e.sigma2).sum(), spectrum.elbo(lam, 16, e.sigma2)
    row = f"{name:22s} {e.sigma2:.4f} {e.active_units:5d} of 16 {alive:8d} {e.elbo:9.1f} {best:8.1f}"
    print(row + f"{e.kl:9.1f} {e.mutual_information:10.1f}")

# %% [markdown]
r"""
These numbers differ a little from machine to machine, since rounding does, and training magnifies it. What
does not:
"""

# %% tags=["hide-input"]
fixed = final[:4]
counts = [e.active_units for e in fixed]
linear_counts = [min(16, int(spectrum.active(lam, e.sigma2).sum())) for e in fixed]
assert counts[0] <= counts[1] < counts[2] == counts[3] == 16
assert (np.diff([e.kl for e in fixed]) > 0).all()
assert counts[0] < linear_counts[0] and counts[1] < linear_counts[1]
assert all(e.elbo > spectrum.elbo(lam, 16, e.sigma2) for e in final)
print("linear: active units of 16 by σ²:", linear_counts)
print("the networks: fewer at 0.1 and at 0.05, all at 0.01 and at 0.001; the total KL rises all the way")
earlier = (ensemble.snapshots[40]["variance_of_mean"] > collapse.ACTIVE).sum(axis=1)
assert (earlier[:2] > counts[:2]).all()
print("after 40 epochs the networks at 0.1 and at 0.05 used more units than at the end")

# %% tags=["hide-input"]
most_likely = ppca.max_log_likelihood(digits)[15]
assert final[5].elbo > most_likely + 5
print("every ELBO is above the linear one of its σ²;")
print(f"with σ² by closed form, above pPCA's best log likelihood too, {most_likely:.1f} nats")
assert all(e.mutual_information < min(e.kl, np.log(e.count)) + 0.05 for e in final)
assert min(e.mutual_information for e in final[2:4]) > np.log(final[0].count) - 0.1
print(f"I(x; z) is below the KL, and at most log {final[0].count} = {np.log(final[0].count):.2f} nats")

# %% tags=["hide-input"]
sorted_kl = np.array([np.sort(e.kl_per_unit)[::-1] for e in fixed])
predicted = np.array([spectrum.kl(lam[:16], e.sigma2) for e in fixed])
assert (sorted_kl[:2, :4].sum(axis=1) > predicted[:2, :4].sum(axis=1)).all()

# %% mystnb={"image": {"alt": "Sorted KL of sixteen units at four noise variances: at the larger two, networks use fewer units than the linear model, the leading ones for more"}} tags=["hide-input"]
fig, axes = plots.panels(4, height=3)
units = np.arange(1, 17)
for ax, e, deep, linear, count in zip(axes, fixed, sorted_kl, predicted, linear_counts, strict=True):
    ax.plot(units, deep, "o-", color=plots.COLOURS[0], markersize=4, label="trained network")
    ax.plot(units, linear, "--", color=plots.COLOURS[1], label="linear optimum")
    ax.axvline(count + 0.5, color="0.4", linestyle=":", label="λ > σ² to the left")
    ax.set(title=f"σ² = {e.sigma2:.3g}", xlabel="unit, by KL", xticks=(1, 8, 16))
    ax.set(ylim=(-0.15, 1.05 * max(sorted_kl.max(), predicted.max())), ylabel="average KL (nats)")
_ = axes[0].legend()

# %% [markdown]
r"""
**Figure 8.2.** The KL of each of sixteen units, sorted, at four noise variances: networks on digits, trained
live, beside the best linear VAE.

The smaller $\sigma^2$, the more units are in use, as in the linear model. But at the two larger $\sigma^2$
the network gets by with fewer, and puts more into the leading four. (It is hardly for want of training: the
number falls as training goes on. Presumably a curved decoder can lay out in one latent
what takes a linear one several.) The number of eigenvalues above $\sigma^2$ is a guide for deep networks, not a
law. The dotted line stands after unit 16 where more eigenvalues than that exceed $\sigma^2$. In the table, the
information about $x$ stops at the logarithm of the number of images: with the two smaller $\sigma^2$ the code $z$
tells each image from all others.

## A test that a converged VAE must pass

When is such a run done? Two identities must hold by then, and whether they do can be measured.

**The scale of a latent.** Let the layer that puts out $m$ and $\log v$ be affine, and the first layer of the
decoder too: $z \mapsto A z + c$. Take a latent $j$ and a number $\alpha > 0$, and change three things:

- multiply the row and the bias that make $m_j$ by $\alpha$, so that $m_j$ becomes $\alpha m_j$ for every $x$;
- add $2 \log \alpha$ to the bias that makes $\log v_j$, so that $v_j$ becomes $\alpha^2 v_j$ for every $x$;
- divide column $j$ of $A$ by $\alpha$.

Then $z_j = m_j + \sqrt{v_j}\, \varepsilon_j$ becomes $\alpha z_j$, and $A z$ is what it was, for every $x$ and
every $\varepsilon$. The reconstruction term does not change. The KL of unit $j$, averaged over the data,
becomes $\tfrac12 \big( \alpha^2\, \mathbb E[m_j^2 + v_j] - 1 - \log \alpha^2 - \mathbb E \log v_j \big)$. With
$c_j = \mathbb E[m_j^2 + v_j]$, which is the mean square of $z_j$, the objective therefore changes by

$$ \Delta_j(\alpha) = -\frac\beta2 \big[ (\alpha^2 - 1)\, c_j - 2 \log \alpha \big],
\qquad \frac{d \Delta_j}{d \log \alpha} \Big|_{\alpha = 1} = -\beta\, (c_j - 1) . $$

This holds at *every* value of the parameters, trained or not. Let $\beta > 0$. Where the objective is stationary
in all parameters, it is stationary along $\alpha$, so **$\mathbb E[m_j^2 + v_j] = 1$ for every unit**, collapsed
or not; and then $\text{KL}_j = -\tfrac12 \mathbb E \log v_j$. In the linear VAE this was
$\mathbb E m_i^2 + D_i = 1$ ([Exercise 3.2](03_linear_vae.ipynb#exercises)).
If $c_j \neq 1$, the best $\alpha$ is where the derivative
$-\beta(\alpha^2 c_j - 1)$ vanishes, $\alpha^2 = 1/c_j$, and there is

$$ \Delta_j = \frac\beta2 \big( c_j - 1 - \log c_j \big) \text{ nats} $$

to be had for nothing. Two conditions hide in "stationary in all parameters": no weight decay, which would pull at
$A$, and no part shared between latents that fixes their scale.

**The noise variance.** With $E = \mathbb E \lVert x - d(z) \rVert^2$ over data and draws, the part of the
objective in which $\sigma^2$ occurs is $-\tfrac12 [n \log \sigma^2 + E / \sigma^2]$. Its derivative by
$\log \sigma^2$ is $-\tfrac12 [n - E / \sigma^2]$, zero at $\sigma^2 = E / n$ only, and this is a maximum:
below it the derivative is positive, above it negative. So **a learned $\sigma^2$ is the error per dimension**
at convergence, and this is also the closed form that the second rule uses. Elsewhere tuning it would add the
difference of the two values,

$$ \frac n2 \Big[ \log \frac{\sigma^2}{E / n} + \frac{E / n}{\sigma^2} - 1 \Big] \text{ nats,} $$

which is the difference between the tuned ELBO and the ELBO in the paper's Table 1.

**Check.** The three changes are made to the weights of the small network of the first section, and the
derivative is taken by automatic differentiation, at $\beta = 1$:
"""

# %% tags=["hide-input"]
log_alpha = torch.zeros(2, dtype=torch.float64, requires_grad=True)
alpha, changed = log_alpha.exp(), dict(small.named_parameters())
rows, biases = changed["encoder.2.weight"], changed["encoder.2.bias"]
changed["encoder.2.weight"] = torch.cat([rows[:2] * alpha[:, None], rows[2:]])
changed["encoder.2.bias"] = torch.cat([biases[:2] * alpha, biases[2:] + 2 * log_alpha])
changed["decoder.0.weight"] = changed["decoder.0.weight"] / alpha

# %% tags=["hide-input"]
nodes, weights = gauss_hermite(60)
pairs = x.repeat_interleave(len(nodes), 0), nodes.repeat(len(x), 1)
squared_error, kl = (terms.reshape(len(x), -1) @ weights for terms in functional_call(small, changed, pairs))
(slope,) = torch.autograd.grad(elbo(squared_error, kl, small.log_sigma2, 5).mean(), log_alpha)
mean, logvar = small.encode(x)
c = (mean.square() + logvar.exp()).mean(0).detach()
assert torch.allclose(slope, 1 - c, rtol=1e-10)
print("slopes:", slope.numpy().round(4), "| 1 - E[m² + v]:", (1 - c).numpy().round(4))

# %% [markdown]
r"""
**The test on the live run.** For each member: the unit that is furthest off, what rescaling all units would
gain, and what tuning $\sigma^2$ would gain (for a member whose $\sigma^2$ is fixed, the last is no fault of the
training).
"""


# %%
def left_on_the_table(e):
    """What a rescaling of every latent would add to the ELBO of an evaluated VAE (beta = 1), in nats."""
    return float((e.second_moment - 1 - np.log(e.second_moment)).sum() / 2)


# %% tags=["hide-input", "nbval-ignore-output"]
print("member                 largest |E[m² + v] - 1|   rescaling gains   σ²/(E/n)   tuning σ² gains")
for name, e in zip(names, final, strict=True):
    off = np.abs(e.second_moment - 1).max()
    numbers = f"{left_on_the_table(e):20.3f} {e.sigma2 / e.tuned_sigma2:12.2f} {e.tuned_elbo - e.elbo:14.1f}"
    print(f"{name:22s} {off:15.2f} {numbers}")

# %% tags=["hide-input"]
gains = [left_on_the_table(e) for e in final]
assert max(gains[:2]) < 0.05 and gains[3] > 0.15 and max(gains) < 3
slow, quick = final[4:]
assert slow.sigma2 / slow.tuned_sigma2 > 1.3 and abs(quick.sigma2 / quick.tuned_sigma2 - 1) < 0.1
print("σ² = 0.1 and 0.05: rescaling gains less than 0.05 nats; σ² = 0.001: more than 0.15")
print("learned by Adam: σ² still more than 1.3 times E/n; by closed form: within 10% of it")

# %% mystnb={"image": {"alt": "Mean square of each unit by member: close to one for large noise variances, scattered for the smallest"}} tags=["hide-input"]
fig, ax = plots.figure(width=8.4, height=3.4)
for m, e in enumerate(final):
    at = m + np.linspace(-0.25, 0.25, 16)
    ax.plot(at, np.sort(e.second_moment), "o", color=plots.COLOURS[0], markersize=4)
ax.axhline(1, color="0.4", linestyle=":")
ax.set(ylabel="E[m² + v] of each unit", xlabel="member", ylim=(0, None))
_ = ax.set_xticks(range(6), [name.replace("learned, ", "learned,\n") for name in names])

# %% [markdown]
r"""
**Figure 8.3.** The mean square $\mathbb E[m_j^2 + v_j]$ of each unit of the same six VAEs. A converged VAE has 1
everywhere.

Sixty epochs are a demonstration and not a result. With $\sigma^2 = 0.1$ or $0.05$ the run nearly passes the
test; with $\sigma^2 = 0.001$ it is far from that, and Adam's $\sigma^2$ is on its way. A run can pass and
still not be done, since the test looks along $k + 1$ directions of very many: the first two were still losing
units. One that fails it is not done.
The recorded runs of the coming chapters are read with this in hand.

## The linear limit

Without hidden layers the engine's network is $m = A x + a$, $\log v = B x + b$ and $d(z) = W z + \mu$. That
is the linear VAE of [Eq. 9](03_linear_vae.ipynb#equation-9), except that its variances may depend on $x$ and
its encoder has a mean of its own. Neither can raise the maximum: the ELBO is still at most the log likelihood,
whose maximum over $W, \mu, \sigma^2$ is pPCA's, and the linear VAE with $B = 0$ attains it
([Lemma 1](03_linear_vae.ipynb#lemma-1)). So here we know the number to which training must lead.

First the gradients, at random parameters: the engine's against the closed forms of
[chapter 4](04_elbo.ipynb#equation-20). Three nodes per latent average a quadratic exactly.
"""

# %% tags=["hide-cell"]
x, _, _, _ = data.synthetic_ppca(4096, [4.0, 2.0, 0.5, 0.5, 0.5, 0.5], 2, seed=0)
x = x.astype(np.float32)
exact = torch.tensor(x).double()
moments = Moments.from_samples(exact.numpy())
rng = np.random.default_rng(0)
n, k = 6, 2
V, D = rng.standard_normal((k, n)) / 3, np.array([0.4, 1.3])
anyone = LinearVAE(rng.standard_normal((n, k)), V, D, mu=rng.standard_normal(n), sigma2=0.7)

# %% tags=["hide-cell"]
network = vae.mlp(n, hidden=(), k=k, sigma2=anyone.sigma2).double()
state = {
    "log_sigma2": np.log(anyone.sigma2),
    "encoder.0.weight": np.vstack([V, np.zeros((k, n))]),
    "encoder.0.bias": np.r_[-V @ anyone.mu, np.log(D)],
    "decoder.0.weight": anyone.W,
    "decoder.0.bias": anyone.mu,
}
network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
value = average(network, exact, *gauss_hermite(3)).mean()
assert abs(value.item() - anyone.elbo(moments)) < 1e-10

# %% [markdown]
r"""
The mean is $Ax + a$ here and $V(x - \mu)$ there. With $g_i$ for the derivative by $m(x_i)$, the gradient in
$V$ is the average of $g_i (x_i - \mu)^\top$: that in $A$ less that in $a$ times $\mu^\top$. And a derivative
by $\log D$ is $D$ times the one by $D$.
"""

# %% tags=["hide-cell"]
value.backward()
A, a = network.encoder[0].weight.grad.numpy(), network.encoder[0].bias.grad.numpy()
closed = anyone.gradients(moments)
by_engine = A[:k] - np.outer(a[:k], anyone.mu)
ledger.check(20, "the engine's derivative in D", "autograd", a[k:] / D, closed.D, 1e-10)
ledger.check(21, "the engine's derivative in V", "autograd", by_engine, closed.V, 1e-10)
ledger.check(22, "the engine's derivative in W", "autograd", network.decoder[0].weight.grad, closed.W, 1e-10)
assert np.isclose(network.log_sigma2.grad.item(), anyone.sigma2 * closed.sigma2, rtol=1e-10)

# %% [markdown]
r"""
Now training. The data are 4,096 samples of a pPCA model with two latents. Four members: three seeds that
learn $\sigma^2$ by Adam, and the third seed again, by the closed form. To look at the ELBO on the way we stop
the run and resume it. The ELBO itself needs no draws: for a linear decoder
$\mathbb E_q \lVert x - d(z) \rVert^2 = \lVert x - d(m) \rVert^2 + \sum_i v_i \lVert w_i \rVert^2$.
"""


# %% tags=["hide-input"]
@torch.no_grad()
def linear_elbo(model, x):
    """The average ELBO of a network without hidden layers, exactly."""
    mean, logvar = model.encode(x)
    spread = logvar.exp() @ model.decoder[0].weight.square().sum(0)
    squared_error = (x - model.decode(mean)).square().sum(1) + spread
    kl = (mean.square() + logvar.expm1() - logvar).sum(1) / 2
    return elbo(squared_error, kl, model.log_sigma2, x.shape[1]).mean().item()


# %%
linear = [Member(seed=seed, sigma2_rule="adam", learning_rate=1e-2) for seed in (0, 1, 2)]
linear.append(Member(seed=2, sigma2_rule="closed form", learning_rate=1e-2))
looks, models = (2, 5, 10, 20, 30, 40, 50, 75, 100, 125, 150, 175, 200, 250), {}
with tempfile.TemporaryDirectory() as folder:
    for epoch in looks:
        run = train(partial(vae.mlp, n, (), k), x, linear, epoch, 1024, path=Path(folder) / "linear.safetensors")
        models[epoch] = [run.stack.member(m).double() for m in range(len(linear))]
best, sigma2_mle = ppca.max_log_likelihood(moments)[k - 1], ppca.fit(moments, k).sigma2
gaps = np.array([[best - linear_elbo(model, exact) for model in models[epoch]] for epoch in looks])

# %%
for model, gap in zip(models[250], gaps[-1], strict=True):
    assert 0 < gaps.min() and gap < 0.01
    assert abs(model.log_sigma2.exp().item() / sigma2_mle - 1) < 0.03
    columns = model.decoder[0].weight.detach().numpy()
    cosines = np.abs(moments.eigenvectors[:, :k].T @ (columns / np.linalg.norm(columns, axis=0)))
    assert np.abs(np.sort(cosines.max(axis=0)) - 1).max() < 0.01 and set(cosines.argmax(axis=0)) == {0, 1}
print(f"pPCA's maximum: {best:.3f} nats, at σ² = {sigma2_mle:.3f}")
print("all four: ELBO within 0.01 nats of it and never above, σ² within 3%, columns along u_1 and u_2")

# %% [markdown]
r"""
The way there holds a surprise, which the chapters before have prepared. The ELBO has stationary points that
$\log p$ has not, with columns that are not orthogonal; for two columns that share two eigenvalues,
$K_i = \sqrt{\lambda_i} \cdot \tfrac12 (\sqrt{\lambda_1} + \sqrt{\lambda_2})$ in place of $\lambda_i$, turned
by 45° ([chapter 5](05_theorem_1.ipynb#all-stationary-points-of-the-elbo)). They are saddles. How high does
this one lie?
"""


# %% tags=["hide-input"]
def saddle(log_sigma2):
    """ELBO of the stationary point with both columns in one block, at this noise variance."""
    s, roots = np.exp(log_sigma2), np.sqrt(moments.eigenvalues[:k])
    lengths = np.sqrt(roots * roots.mean() - s)
    W = moments.eigenvectors[:, :k] * lengths @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    return LinearVAE(W, *optimal_encoder(W, s), moments.mean, s).elbo(moments)


height = best - max(saddle(t) for t in np.linspace(-2, 0.5, 1001))
stuck = (np.abs(gaps - height) < 0.005).sum(axis=0)
assert height > 0.01 and max(stuck[:2]) <= 1 and min(stuck[2:]) >= 2
print(f"the saddle lies {height:.4f} nats below the maximum")

# %% mystnb={"image": {"alt": "Gap to the pPCA maximum falling to a few thousandths of a nat; two members rest at the saddle's height before they go on"}} tags=["hide-input"]
fig, ax = plots.figure(width=7.6, height=3.8)
labels = [f"seed {member.seed}, σ² by {member.sigma2_rule.replace('adam', 'Adam')}" for member in linear]
for gap, label, (colour, line) in zip(gaps.T, labels, STYLES, strict=False):
    ax.semilogy(looks, gap, marker="o", markersize=3.5, color=colour, linestyle=line, label=label)
ax.axhline(height, color="0.4", linewidth=0.9)
ax.annotate("saddle, columns not orthogonal", (250, height), (0, 4), textcoords="offset points", ha="right", fontsize=9)
ax.axhline(0.01, color="0.4", linewidth=0.9, linestyle=":")
ax.annotate("0.01 nats", (0, 0.01), (0, 3), textcoords="offset points", fontsize=9)
ax.set(xlabel="epoch", ylabel="pPCA's maximum − ELBO (nats)")
_ = ax.legend(fontsize=9)

# %% [markdown]
r"""
**Figure 8.4.** How far four networks without hidden layers are below pPCA's maximum while they train, on
synthetic data, live.

Seeds 0 and 1 go straight down. Seed 2, by either rule, first settles at the height of the saddle and stays
near it for some fifty epochs before it has found the way out. A saddle costs time, and no more. At the end
all hover a few thousandths of a nat below the maximum, because Adam with a fixed learning rate does not come to
rest: its steps do not shrink with the gradients, and these are those of a minibatch and one draw.

What held the third seed up can be read from its columns. While it rests, the gap of
[Eq. 26](05_theorem_1.ipynb#equation-26) between $\log p$ and the best ELBO of its $W$ is there; at the end it
is gone:
"""

# %% tags=["hide-input"]
gap, cosine = {}, {}
for epoch in (100, 250):
    model = models[epoch][2]
    W, s = model.decoder[0].weight.detach().numpy(), model.log_sigma2.exp().item()
    gap[epoch] = posterior_gap(W, s)
    cosine[epoch] = abs(W[:, 0] @ W[:, 1]) / np.linalg.norm(W, axis=0).prod()
assert gap[100] > 0.01 and cosine[100] > 0.15 and gap[250] < 0.002 and cosine[250] < 0.08
print("seed 2 after 100 epochs: gap above 0.01 nats, cosine of the two columns above 0.15")
print("seed 2 after 250 epochs: gap below 0.002 nats, cosine below 0.08")

# %% [markdown]
r"""
## β and σ² under Adam

[Chapter 7](07_what_linear_theory_predicts.ipynb) begins with an identity for every VAE with one $\sigma^2$. At
a fixed $\sigma^2$, the objective with weight $\beta$ is $\beta$ times the ELBO at the noise variance
$\beta \sigma^2$, plus a constant. So the gradients of the networks' weights differ by the factor $\beta$ and
nothing else. Adam divides the average of the gradients by the root of the average of their squares:

$$ \frac{\bar g}{\sqrt{\overline{g^2}} + 10^{-8}} \;\longrightarrow\;
\frac{\beta\, \bar g}{\beta \sqrt{\overline{g^2}} + 10^{-8}} , $$

the same but for the $10^{-8}$, which is far below most of these roots. With the same seed the two should walk *the
same path*: same KL, same squared error, epoch by epoch.
The paper remarks that for suitable $\beta$ and learning rate the KL weight amounts to
tuning $\sigma^2$. Under Adam the learning rate needs no change. Two pairs, live:
"""

# %%
settings = [(0.25, 0.04), (1.0, 0.01), (3.0, 0.01), (1.0, 0.03)]
members = [Member(seed=1, beta=beta, sigma2=sigma2) for beta, sigma2 in settings]
paired = train(build, pixels[:1024], members, epochs=8, batch_size=64)
for one, other in ((0, 1), (2, 3)):
    for name in ("kl", "sse"):
        path = paired.history[name]
        assert np.allclose(path[:, one], path[:, other], rtol=1e-4)
    assert not np.allclose(paired.history["elbo"][:, one], paired.history["elbo"][:, other], rtol=0.1)
    print(f"(β, σ²) = {settings[one]} and {settings[other]}: KL and squared error agree to 1e-4 in all 8 epochs")
assert abs(paired.history["kl"][-1, 0] / paired.history["kl"][-1, 2] - 1) > 0.1

# %% [markdown]
r"""
The ELBO that the history reports is the ELBO at each member's own $\sigma^2$ with $\beta = 1$, and is not the
same within a pair. With $\sigma^2$ learned the identity does not help: there the constant depends on a
parameter.

## What can go wrong

**A member diverges.** A learning rate that is too large may send one member to infinity. The others share
nothing with it, so nothing happens to them. After every epoch the engine looks for numbers that are not
finite. It notes the epoch, puts the member back to its last finite parameters and reports NaN from then on.
"""

# %%
sane, wild = Member(sigma2=0.1), Member(sigma2=0.1, learning_rate=100.0)
both = train(build, pixels[:512], [sane, wild], epochs=3, batch_size=64)
alone = train(build, pixels[:512], [sane], epochs=3, batch_size=64)
assert both.diverged.tolist() == [0, 1] and np.isnan(both.history["elbo"][:, 1]).all()
assert np.allclose(both.history["elbo"][:, 0], alone.history["elbo"][:, 0], rtol=1e-5)
assert all(torch.isfinite(p).all() for p in both.stack.parameters.values())
print("epoch in which each diverged (0: never):", both.diverged.tolist(), "| the other trains as if alone")

# %% [markdown]
r"""
**The run is cut off.** A long run is stopped, or killed, or its time is up. With a `path` the engine writes
a checkpoint, whole or not at all, and resumes from it. As an epoch's draws depend on the seed and its number
alone, an epoch that was cut off is done again with the same draws. The end is the same, bit for bit (on one
machine):
"""

# %%
members = [Member(seed=5), Member(seed=6, sigma2=0.1, sigma2_rule="adam", beta=LinearAnnealing(4))]
arguments = {"build": build, "x": pixels[:512], "epochs": 6, "batch_size": 64}
whole = train(members=members, **arguments)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "run.safetensors"
    stopped = train(members=members, path=path, budget=0, **arguments)
    resumed = train(members=members, path=path, **arguments)
    try:
        train(members=members[:1], path=path, **arguments)
    except ValueError as error:
        refusal = str(error)
assert "belongs to another run: its members" in refusal

# %%
assert all(torch.equal(p, resumed.stack.parameters[name]) for name, p in whole.stack.parameters.items())
assert all(np.array_equal(values, resumed.history[name]) for name, values in whole.history.items())
print(
    f"stopped by its {stopped.stopped} after epoch {stopped.epoch}, resumed to {resumed.epoch}: equal to the last bit"
)

# %% [markdown]
r"""
A checkpoint of other members, other data, another network or another batch size is refused. So is one that has
trained for more epochs than asked for, one made at another $\beta$ in any of its epochs, and one that took its
snapshots after other epochs.

**Sums are rounded.** Parameters, gradients and Adam are in float32, whose relative spacing is about
$10^{-7}$. That is enough for steps that carry noise anyhow, and not for sums over thousands of images and
pixels: from $2^{24}$ on, adding 1 changes nothing. So the minibatches of an epoch, and all that
`collapse.evaluate` reports, are summed in float64. (`precision="tf32"`, on a GPU, or `"bfloat16"` makes the
matrix products coarser and, on hardware built for it, faster; parameters, sums and Adam stay.)
"""

# %%
assert {p.dtype for p in whole.stack.parameters.values()} == {torch.float32}
assert np.float32(2**24) + np.float32(1) == np.float32(2**24)
print(f"spacing of float32 at 1: {np.finfo(np.float32).eps:.1e}; of float64: {np.finfo(float).eps:.1e}")

# %% [markdown]
r"""
## Studies from the command line

A study is a question and its plans, one per profile. The same run as in this chapter, without the two learned
members, recorded with its settings, data digest, versions and time:

```bash
python -m helpers.studies list
python -m helpers.studies run demo --out runs        # under a minute; stop it with Ctrl-C if you like
python -m helpers.studies resume demo --out runs     # goes on from where it stopped
python -m helpers.studies show demo --out runs
```

`--device cuda` trains on a GPU, `--budget 3600` stops the training within the hour, `--members 0:2` trains
the first two members alone, and records of parts are joined. The studies there are:
"""

# %%
for name, study in plans.STUDIES.items():
    print(f"{name}: {study.title}")

# %% [markdown]
r"""
## What we showed

- The code of the VAE is Eq. 4, term by term: checked against PyTorch's densities, a grid of $z$, random draws
  and finite differences.
- Training many VAEs in lock-step is training each alone, to $10^{-4}$ in every weight after 80 steps; a
  diverging member leaves the others alone, and a resumed run is the same to the last bit.
- On digits, the deep VAEs with $\sigma^2 = 0.1$ and $0.05$ use fewer units than the linear optimum; each reaches a
  higher ELBO than any linear VAE of its $\sigma^2$ and $k$; the smaller $\sigma^2$, the more KL.
- At convergence $\mathbb E[m_j^2 + v_j] = 1$ for each unit and a learned $\sigma^2$ is the error per dimension.
  How far a run is from it can be said in nats.
- A network without hidden layers reaches pPCA's maximum within 0.01 nats, with principal components as
  columns; a start may rest near a saddle that chapter 5 describes.
- Under Adam, at a fixed $\sigma^2$, $(\beta, \sigma^2)$ and $(1, \beta \sigma^2)$ walk the same path.

## Exercises

**Exercise 8.1. Take what is on the table.** Rescale the latents of the ensemble's member with $\sigma^2 = 0.001$ so that
$\mathbb E[m_j^2 + v_j] = 1$ for each, by changing weights as in the text. Confirm that its ELBO rises by
$\tfrac12 \sum_j (c_j - 1 - \log c_j)$ and its squared error stays.
"""

# %% tags=["hide-cell"]
# The first 16 rows of the encoder's last layer make m, the others log v; α² = 1/c.
model, before = ensemble.stack.member(3), final[3]
alpha = torch.tensor(before.second_moment**-0.5).float()
head, entry = model.encoder[-1], model.decoder[0]
with torch.no_grad():
    head.weight[:16] *= alpha[:, None]
    head.bias[:16] *= alpha
    head.bias[16:] += 2 * alpha.log()
    entry.weight /= alpha
after = collapse.evaluate([images], model.encode, model.decode, before.sigma2)
assert np.allclose(after.second_moment, 1, atol=1e-4) and np.isclose(after.sse, before.sse, rtol=1e-4)
assert abs(after.elbo - before.elbo - left_on_the_table(before)) < 0.01
print("E[m² + v] = 1 for all units; the ELBO rose by what was left on the table, to 0.01 nats")

# %% [markdown]
r"""
**Exercise 8.2. Plain gradient descent.** With steps $\eta\, \nabla \mathcal L$ in place of Adam's, how must the learning
rates of $(\beta, \sigma^2)$ and $(1, \beta \sigma^2)$ be related for the two to walk the same path? Check it
on twenty steps.
"""

# %% tags=["hide-cell"]
# The gradient of the first is β times that of the second, so the second needs the rate βη.
n, k, ends = 64, 16, []
for beta, sigma2, eta in ((0.3, 0.1, 1e-3), (1.0, 0.03, 0.3e-3), (1.0, 0.03, 1e-3)):
    torch.manual_seed(0)
    model = build(sigma2=sigma2)
    model.log_sigma2.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=eta)
    for rows, noise in zip(*draws(0, 0, 20), strict=True):
        optimizer.zero_grad()
        squared_error, kl = model(images[rows], noise)
        (-elbo(squared_error.mean(), kl.mean(), model.log_sigma2, n, beta)).backward()
        optimizer.step()
    ends.append(torch.cat([p.detach().ravel() for name, p in model.named_parameters() if name != "log_sigma2"]))
assert torch.allclose(ends[0], ends[1], atol=1e-4) and (ends[0] - ends[2]).abs().max() > 1e-2
print("with the rate β η: the same weights to 1e-4; with the rate η: not")

# %% [markdown]
r"""
**Exercise 8.3. While β is below 1.** Train one member of the small network with `LinearAnnealing(10)` and one with
$\beta = 1$, on the first 1,024 digits, at $\sigma^2 = 0.1$. Show from the history that the annealed objective
is above the ELBO as long as $\beta < 1$ (the paper calls it a lower bound; see the
[errata](../book/errata.md)), and that its KL first rises and then falls.
"""

# %% tags=["hide-cell"]
# The history holds the ELBO and the KL; the objective is the ELBO + (1 - β) KL. It holds β at the end of the epoch,
# where it is largest, so what we compute is if anything too small.
annealed = Member(sigma2=0.1, learning_rate=2e-3, beta=LinearAnnealing(10))
plain = Member(sigma2=0.1, learning_rate=2e-3)
run = train(build, pixels[:1024], [annealed, plain], epochs=14, batch_size=64)
kl, beta = run.history["kl"][:, 0], run.history["beta"][:, 0]
objective = run.history["elbo"][:, 0] + (1 - beta) * kl
assert (objective[:9] > run.history["elbo"][:9, 0] + 0.1).all() and np.allclose(beta[10:], 1)
assert kl.max() > 2 * max(kl[0], kl[-1], run.history["kl"][:, 1].max())
print("annealed: the largest KL is more than twice the first, the last, and the largest without annealing")

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md). The VAE and its reparametrisation are due to
[Kingma & Welling, 2013](../book/references.md) and [Rezende et al., 2014](../book/references.md); annealing to
[Bowman et al., 2015](../book/references.md); the count of active units to
[Burda et al., 2016](../book/references.md). That the noise variance has a closed form, and what it does to
VAEs, is a subject of [Dai & Wipf, 2019](../book/references.md). Adam is due to
[Kingma & Ba, 2014](../book/references.md).

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn", "torch"):
    print(name, version(name))
