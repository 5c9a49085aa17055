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
# Your VAE: what it was asked for, and what it did

Why is the KL of a VAE zero? Its loss may have asked for that. Or the loss did not, and training is unfinished or
stuck. Or the network is better off without latents. This chapter takes small networks through all three: it reads a
loss, forecasts what the loss pays for, trains, and counts what lives. Two tests then need no second training; what
they cannot see, only a second training tells. What is proved here is ours and not in the paper.

> **In short**
>
> - A loss of squared errors is $E/2\theta + K$ up to a factor, and $\theta$ can be read off. If the largest eigenvalue of
>   the data's covariance is below $\theta$, complete collapse is a local maximum, whatever the networks.
> - Let $J = -E/2\theta - K$. The best linear VAE has a $J$ in closed form. A network that contains the linear maps and
>   has less is not trained to its best, and its counts of living units say nothing.
> - A further unit, affine in what the network leaves over, raises $J$ by up to $\tfrac12 (\rho - 1 - \log \rho)$ if the
>   covariance of that has an eigenvalue $\rho\, \theta$ above $\theta$; otherwise none helps.
> - Units that are dead may be wrong, with clusters that a network should tell apart, or right, with a decoder that needs
>   no latent. Compare $J$, not counts.
> - For your VAE: one call, `diagnose(model, loader, loss)`. Trust $J$ and $K$ before any count of units.

**You need**: the linear optimum and $\theta = \beta \sigma^2$ of [chapter 7](07_what_linear_theory_predicts.ipynb).
**Time to run**: about half a minute on a laptop; no GPU needed.

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
import itertools
import textwrap

import flint
import numpy as np
import sympy
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import nn
from torch.nn import functional as F

from helpers import data, objective, plans, plots, records, residual, spectrum
from helpers.diagnose import diagnose, forecast, with_linear_units
from helpers.ledger import Ledger
from helpers.moments import Moments, covariance_eigenvalues

ledger = Ledger("12_your_vae")

# %% [markdown]
r"""
The chapter is the same in every profile.

## A default loss, and no latent lives

Here is a VAE as people write it, with sixteen latents, on scikit-learn's 8 × 8 digits, and the loss that comes to
mind first: `mse_loss` and the KL.
"""


# %%
class VAE(nn.Module):
    def __init__(self, n, k, width=128):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, 2 * k))
        self.decoder = nn.Sequential(nn.Linear(k, width), nn.ReLU(), nn.Linear(width, n))

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


# %%
def kl_of(mean, logvar):
    """KL of each sample and unit, (B, k)."""
    return (mean**2 + logvar.exp() - 1 - logvar) / 2


def default_loss(y, x, kl):
    return F.mse_loss(y, x) + kl.sum(dim=1).mean()


# %%
def train(model, x, loss, epochs, rate=2e-3, batch=100):
    """Adam on minibatches; the loss is a function of reconstruction, samples and KL (B, k)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            mean, logvar = model.encode(x[rows])
            z = mean + (logvar / 2).exp() * torch.randn_like(mean)
            optimizer.zero_grad()
            loss(model.decode(z), x[rows], kl_of(mean, logvar)).backward()
            optimizer.step()
    return model


# %%
images = data.digits()
x, k = torch.tensor(images, dtype=torch.float32), 16
_ = torch.manual_seed(0)
dead = train(VAE(64, k), x, default_loss, epochs=30)
with torch.no_grad():
    kl = kl_of(*dead.encode(x)).mean(dim=0)
assert kl.sum() < 0.01
print("KL of all sixteen units together below 0.01 nats:", bool(kl.sum() < 0.01))

# %% [markdown]
r"""
Nothing is wrong with the network or the learning rate: below, both keep their latents alive under another loss.

## Read the loss

Whatever its factors and reductions, a loss of squared errors is for one sample, up to one factor,

$$ \frac{E}{2\theta} + K , \qquad J = -\frac{E}{2\theta} - K , \tag{a} $$

where $E$ is the squared error *summed* over the features and $K$ the KL *summed* over the latents: a loss
$a\,E + b\,K$ is $b$ times $E/2\theta + K$ with $\theta = b/2a$. This $\theta$ is $\beta\sigma^2$ of a Gaussian VAE,
and all of a loss that decides where its optimum is ([chapter
7](07_what_linear_theory_predicts.ipynb#which-σ²-did-your-loss-mean)). A mean over $n$ features is $a = 1/n$, so the
loss above has $\theta = n/2$. `objective.read` does this for a loss in
words:
"""

# %%
for loss in ("mean(se) + kl", "0.5*sum(se) + kl", "mean(se) + 0.00025*kl", "mean(se) + sum(kl, batch=sum)"):
    found = objective.read(loss, n=64, k=k, batch=100)
    print(f"{loss:32s} θ = {found.theta():g}")

# %% [markdown]
r"""
`se` stands for the squared error, and `sum` or `mean` for what is done over the features; the last line has the slip
of summing one of the terms over the minibatch and averaging the other, which makes the KL a hundred times as dear.
The losses of well-known code have names (`objective.PRESETS`). Where the likelihood is not Gaussian there is no
$\theta$ of this kind, and none is made up.

## Forecast, before training

The eigenvalues of the data's covariance are all that a forecast needs. For the *linear* VAE it is exact
([Theorem 7.1](07_what_linear_theory_predicts.ipynb#theorem-7-1)): unit $i$ lives if $\lambda_i > \theta$, with
$\tfrac12 \log (\lambda_i / \theta)$ nats.
"""

# %%
moments = Moments.from_samples(images)
for loss in ("mean(se) + kl", "0.5*sum(se) + kl", "5*sum(se) + kl"):
    asked = forecast(moments, k, loss)
    fate = "a local maximum" if asked.collapse_is_stable else "no maximum"
    print(f"{loss:17s} θ = {asked.theta:<5g} λ₁ = {asked.lambda_1:.2f}  survivors {asked.survivors:2d}", end="  ")
    print(f"K {asked.kl:.2f}  E {asked.distortion:.2f}; collapse is {fate}")

# %% [markdown]
r"""
The network above had $\theta = 32$, far above the largest eigenvalue of the digits. A linear VAE was thus asked to
collapse. What does $\lambda_1 < \theta$ say about a *deep* one?

> **Theorem 12.1** (Where complete collapse is stable). *Let $\lambda_1 < \theta$. There is a $\delta > 0$, which depends
> on $\lambda_1 / \theta$ and the number of latents alone, such that every VAE whose encoder means $m(x)$ and log variances
> $\ell(x)$ stay within $\delta$ of 0, for all units and samples, has a $J$ no larger than complete collapse, whatever
> its decoder. Equal it is only if almost surely $m = \ell = 0$ and $d$ is the mean $\mu$ of the data. If
> $\lambda_1 > \theta$, a VAE with affine encoder and decoder as near to collapse as one likes has a larger $J$.*

**Proof.** Write $p$ for the prior and $w(x, z) = q(z \mid x) / p(z)$, so that an average over $q$ is one over $p$
with the weight $w$; at collapse $w = 1$. Let $\bar w(z) = \mathbb E_x w$, $g = d - \mu$ and
$a(z) = \mathbb E_x\, w\, (x - \mu)$.

*The best decoder.* With all $\mathbb E_p$ over $z$, and as $w$ averages to 1 over $p$ for each $x$,

$$ E = \mathbb E_x \mathbb E_p\, w\, |x - \mu - g(z)|^2 = \operatorname{tr} S - \mathbb E_p \big( 2\, a^\top g - \bar w\, |g|^2 \big) . $$

No $g$ makes more of the bracket than $g = a / \bar w$ (which is $\mathbb E[x \mid z] - \mu$), where it is
$|a|^2 / \bar w$.

*The eigenvalue.* As $x - \mu$ averages to zero, $a = \mathbb E_x\, (w - 1)(x - \mu)$. For each unit vector $u$, by the
inequality of Cauchy and Schwarz, $(u^\top a)^2 \le \mathbb E_x (w - 1)^2 \cdot u^\top S u$, so
$|a|^2 \le \lambda_1\, \mathbb E_x (w - 1)^2$. With $J = -E / 2\theta - K$, together

$$ J + \frac{\operatorname{tr} S}{2\theta} \le \frac{\lambda_1}{2\theta}\; \mathbb E_x \mathbb E_p\, \frac{(w - 1)^2}{\bar w} - K . \tag{b} $$

*Both to second order.* $C$ stands for constants that depend on the number of latents alone. As
$\log w = \tfrac12 \sum_i \big( z_i^2 - (z_i - m_i)^2 e^{-\ell_i} - \ell_i \big)$, we have
$|\log w| \le C \delta (1 + |z|^2)$, and the same for the average $\bar w$. The first derivatives of $w$ at
$m = \ell = 0$ are $z_i$ and $\tfrac12 (z_i^2 - 1)$, and the second ones are $w$ times polynomials in $z$ and $m$ and
powers of $e^{-\ell}$, so

$$ w - 1 = h + O(r), \qquad h = \sum_i m_i z_i + \tfrac12 \ell_i (z_i^2 - 1), $$

where $r(x) = \sum_i (m_i^2 + \tfrac12 \ell_i^2)$, and the factor in $O$ is at most
$C (1 + |z|^4)\, e^{C \delta (1 + |z|^2)}$. Under the prior $z_i$ and $z_i^2 - 1$ have the variances 1 and 2 and are
uncorrelated, hence $\mathbb E_p h^2 = r$. Since $r \le C \delta^2$, all that is left out adds a share of order $\delta$
at most, once $\delta$ is so small that the exponentials can be integrated:
$\mathbb E_p (w - 1)^2 / \bar w \le r\, (1 + C \delta)$. The KL of one sample is
$\tfrac12 \sum_i (m_i^2 + e^{\ell_i} - 1 - \ell_i) \ge \tfrac12 r\, (1 - C \delta)$. So, with another $C$,

$$ J + \frac{\operatorname{tr} S}{2\theta} \le \Big[ \frac{\lambda_1}{\theta} (1 + C \delta) - 1 \Big] K , $$

and for small $\delta$ the bracket is negative. Equality needs $K = 0$, so $m = \ell = 0$ and $w = 1$; then $a = 0$,
$E = \operatorname{tr} S + \mathbb E_p |g|^2$, and $g = 0$.

*The converse.* Let one unit have $m = \varepsilon\, u_1^\top (x - \mu)$, $\ell = 0$, and
$d = \mu + \varepsilon \lambda_1 u_1 z$. Then
$E = \operatorname{tr} S - \varepsilon^2 \lambda_1^2 + \varepsilon^4 \lambda_1^3$ and
$K = \tfrac12 \varepsilon^2 \lambda_1$, so
$J + \operatorname{tr} S / 2\theta = \tfrac12 \varepsilon^2 \lambda_1 (\lambda_1 / \theta - 1) - \varepsilon^4 \lambda_1^3 / 2\theta$,
which is positive for small $\varepsilon$. $\square$

A network whose encoder depends continuously on its weights stays within $\delta$ when these change little: on finitely
many samples always, with ReLU or without. So $\lambda_1 < \theta$ makes collapse a local maximum in *every* Gaussian
VAE. Whether something better lies far away it does not say; we come to a case where it does. At
$\lambda_1 = \theta$ nothing is decided, but for the linear VAE, where collapse is then still the optimum.

**Check**: encoders near the prior, each with its best decoder, by quadrature over $z$.
"""

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
points = rng.standard_normal((40, 3)) * [1.5, 1.0, 0.5]
points -= points.mean(axis=0)
variances, axes = np.linalg.eigh(points.T @ points / len(points))
largest, along = variances[-1], points @ axes[:, -1]
nodes, mass = hermegauss(40)
mass /= mass.sum()


# %% tags=["hide-cell"]
def above_collapse(m, logvar, theta, change=0.0):
    """J less that of collapse, and K, of the best decoder or one that differs from it by a constant."""
    m, logvar = m[:, None], logvar[:, None]
    w = mass * np.exp((nodes**2 - (nodes - m) ** 2 * np.exp(-logvar) - logvar) / 2)
    d = points.T @ w / w.sum(axis=0) + change
    error = (w * ((points.T[:, :, None] - d[:, None]) ** 2).sum(axis=0)).sum() / len(points)
    K = (m**2 + np.exp(logvar) - 1 - logvar).mean() / 2
    return ((points**2).sum() / len(points) - error) / (2 * theta) - K, K


# %% tags=["hide-cell"]
for theta in (0.5 * largest, 1.1 * largest, 3 * largest):
    best, K = above_collapse(1e-2 * along, 0 * along, theta)
    assert np.isclose(best / K, largest / theta - 1, atol=0.01) and (best < 0) == (largest < theta)
    assert above_collapse(1e-2 * along, 0 * along, theta, change=0.01)[0] < best
    for _ in range(100):
        changes = along + rng.standard_normal(40), rng.standard_normal(40) * rng.random()
        gained, K = above_collapse(*(1e-2 * one for one in changes), theta)
        assert gained / K < largest / theta - 1 + 0.01
print("none changes J by more than (λ₁/θ - 1) K, and a mean along the first eigenvector by that")

# %% [markdown]
r"""
## Train, and count

We want more from the digits than their mean, say $\theta = 0.1$: an error of 0.1 is left in each direction that a
linear VAE uses, and the last line of the forecast says how many these are. The loss, in words and as code:
"""

# %%
loss = objective.at_theta(0.1)
theta, lam = 0.1, moments.eigenvalues
print(loss, "  θ =", objective.read(loss).theta())


def corrected_loss(y, x, kl):
    return 5 * ((y - x) ** 2).sum(dim=1).mean() + kl.sum(dim=1).mean()


# %% [markdown]
r"""
Beside the digits we train on draws from a Gaussian with the digits' mean and covariance. On that distribution no VAE,
however deep, has a larger $J$ than the linear one, since sixteen latents are more than it needs ([Theorem
7.2](07_what_linear_theory_predicts.ipynb#theorem-7-2) and $K \ge I(x; \hat x)$). An optimum then carries the linear
$K$ and leaves the linear $E$, up to what can be learned by heart of a finite sample. Each network is looked at three
times, after 5, 30 and 180 epochs.
"""

# %%
white = np.random.default_rng(1).standard_normal(images.shape)
twin = moments.mean + white * np.sqrt(lam) @ moments.eigenvectors.T
sets = {"digits": x, "Gaussian": torch.tensor(twin, dtype=torch.float32)}
stages, networks = {}, {}
for name, samples in sets.items():
    _ = torch.manual_seed(0)
    networks[name] = model = VAE(64, k)
    for epochs in (5, 25, 150):
        train(model, samples, corrected_loss, epochs)
        stages.setdefault(name, []).append(diagnose(model, samples, loss))
        if name == "digits" and epochs == 5:
            early = VAE(64, k)
            _ = early.load_state_dict(model.state_dict())

# %% tags=["hide-input", "nbval-ignore-output"]
print("                         K      AU    KL>0.1   decoder")
for name, found in stages.items():
    for epochs, one in zip((5, 30, 180), found, strict=True):
        counts = f"{one.active_units:8d}{one.units_above:10d}{one.decoder_units:10d}"
        print(f"{name:9s}{epochs:4d} epochs{one.kl:6.2f}{counts}")
    asked = one.forecast
    print(f"{'  linear optimum':20s}{asked.kl:6.2f}{asked.survivors:8d}{(asked.kl_per_unit > 0.1).sum():10d}")

# %% [markdown]
r"""
Three counts, and they disagree. *Active units* (AU) have a mean that varies by more than 0.01. *KL > 0.1* is what it
says. *Decoder* counts the units that change the reconstruction when they are drawn anew from the prior, by as much as
a linear unit of 0.1 nats would.

Early on nearly all units are active, for 0.01 is little: in a linear unit at its optimum, where
$\operatorname{Var} m = 1 - D = 1 - e^{-2K_i}$, it is a KL of 0.005 nats. On Gaussian data the count comes down to the
truth, or near it, but nothing in it says when. A KL of 0.1 nats is a variance of 0.18; this count moves less, and
leaves out the weakest. The total $K$ has no threshold, and does not depend on how the nats are shared out among units.
The digits show why that matters: the network ends with about as many nats as the linear optimum, in little more than
half as many units. **Trust $K$, then KL > 0.1, active units last**, and any of them only for a network that has been trained
to its best. Whether it has is what the next two sections are about.
"""

# %% tags=["hide-cell"]
first, _, last = stages["Gaussian"]
assert first.active_units > first.forecast.survivors and first.active_units >= last.active_units
assert abs(last.kl / last.forecast.kl - 1) < 0.2
assert np.isclose(-np.log(1 - 0.01) / 2, 0.005, atol=1e-4) and np.isclose(1 - np.exp(-0.2), 0.18, atol=2e-3)
print("Gaussian data: too many active units early, and in the end K within a fifth of the truth")

# %% [markdown]
r"""
## The linear certificate

> **Proposition 12.2** (The linear floor). *If a family of encoders and decoders contains the linear VAE with as many
> latents, on these data, then no global maximum over the family has a $J$ below*
>
> $$ J_{\text{lin}} = -\frac{1}{2\theta} \Big( \sum_{i \le k} \min(\lambda_i, \theta) + \sum_{i > k} \lambda_i \Big) - \sum_{i \le k} \tfrac12 \Big( \log \frac{\lambda_i}{\theta} \Big)_+ . $$

**Proof.** The right-hand side is $-E/2\theta - K$ of the linear optimum ([Theorem
7.1](07_what_linear_theory_predicts.ipynb#theorem-7-1)), which is a member of the family, and a maximum is no less
than a member. $\square$

Networks of ReLU layers with an affine last one contain it if every hidden layer has $2k$ units or more, as ours have:
a layer computes the pairs $\max(0, t)$ and $\max(0, -t)$ of $k$ linear functions $t$, the next takes their
differences, and so a linear map passes through exactly. So do networks with a linear path beside the deep one. A
network with a sigmoid at its end does not: for it the floor is a yardstick, and no bound.

$J$ is measured by draws, and but for their error nothing here is approximate. A run below the floor is unfinished or
at a poor local maximum, and what lives in it says nothing about what the loss asks for. The *gap*
$J - J_{\text{lin}}$:
"""

# %% tags=["hide-input", "nbval-ignore-output"]
for name, found in stages.items():
    gaps = ", ".join(f"{one.gap:+.2f}" for one in found)
    print(f"{name:9s} gap to the best linear VAE after 5, 30 and 180 epochs: {gaps} nats")

# %% tags=["hide-cell"]
best = spectrum.distortion(lam, k, theta) / (2 * theta) + spectrum.kl(lam[:k], theta).sum()
assert np.isclose(stages["digits"][0].forecast.J, -best, rtol=1e-6)
assert stages["digits"][0].gap < -1 and stages["Gaussian"][0].gap < -0.5
assert stages["digits"][2].gap > 1 and abs(stages["Gaussian"][2].gap) < 0.5
print("after 5 epochs both networks are below the floor; at the end the digits' is more than a nat above it")


# %% mystnb={"image": {"alt": "Squared error against KL for digits and for Gaussian data: the curve of linear VAEs, complete collapse at its end, and a deep network at three stages of training, which comes down to the curve on Gaussian data and gets below it on digits"}} tags=["hide-input", "nbval-ignore-output"]
fig, axes = plots.panels(2)
levels = np.geomspace(lam[0], 0.03, 80)
for ax, (name, found) in zip(axes, stages.items(), strict=True):
    values = covariance_eigenvalues(sets[name].numpy().astype(float))
    curve = [(spectrum.distortion(values, k, t), spectrum.kl(values[:k], t).sum()) for t in levels]
    ax.plot(*np.array(curve).T, color="0.4", label="linear VAEs")
    ax.plot(values.sum(), 0, "ks", label="collapsed")
    ax.plot(found[0].forecast.distortion, found[0].forecast.kl, "k^", label="linear, θ = 0.1")
    ax.plot([one.distortion for one in found], [one.kl for one in found], "o-", label="deep: 5, 30, 180 epochs")
    ax.set(xlabel="squared error E", ylabel="KL divergence K (nats)", title=name)
_ = axes[0].legend(fontsize=8.5)

# %% [markdown]
r"""
**Figure 12.1.** Error and KL. The curve is that of the best linear VAEs for all $\theta$; on it complete collapse,
and the one for $\theta = 0.1$. The deep network at three stages of training.

Here $J$ is constant on lines of slope $-1/2\theta$, and larger on lower ones. On Gaussian data the curve is a wall, where no
more than $k$ eigenvalues exceed $\theta$, and the network comes to it; on digits, which are not Gaussian, there is room
behind it.

## One more unit: the residual test

A network may be above the floor and still leave something on the table. Take a trained network as it is, give it
further latents $y$ beside $z$, and let the decoder be $d(z) + W y$. Would that help? Let

$$ \bar r(x) = \mathbb E_{q(z \mid x)} [x - d(z)] , \qquad R = \operatorname{Cov} \bar r(x) , $$

what the network leaves of each sample, averaged over its own noise, and the covariance of that over the data.

> **Theorem 12.3** (The residual test). *Let $\mathbb E\, \bar r = 0$, and let $\rho_1 \ge \rho_2 \ge \dots$ be the
> eigenvalues of $R/\theta$. The largest gain in $J$ by $u \le n$ further affine units, over all $W$ and all encoders
> $q(y \mid x) = \mathcal N(m(x), D(x))$ with $D$ diagonal, is*
>
> $$ \tfrac12 \sum_{i \le u,\; \rho_i > 1} ( \rho_i - 1 - \log \rho_i ) . $$
>
> *For one unit, with $\rho = \rho_1 > 1$ and its unit eigenvector $v$, it is attained at*
>
> $$ w = \sqrt{\theta (\rho - 1)}\; v, \quad m(x) = \frac{w^\top \bar r(x)}{\theta \rho}, \quad D = \frac1\rho . $$

**Proof.** Given $x$, draw $y = m + \sqrt D\, \xi$ apart from $z$. Then

$$ \mathbb E\, |x - d(z) - Wy|^2 - \mathbb E\, |x - d(z)|^2
= \mathbb E_x \big[ |W m(x)|^2 - 2\, \bar r(x)^\top W m(x) + \operatorname{tr}(W^\top W D(x)) \big] : $$

the cross term is the only one in which $z$ occurs, and in it $x - d(z)$ may be averaged over $z$ first. The KL of $y$
adds to that of $z$. So the change of $J$ is

$$ \mathbb E_x \Big[ \frac{2 \bar r^\top W m - |W m|^2 - \operatorname{tr}(W^\top W D)}{2\theta} - \tfrac12 \sum_i \big( m_i^2 + D_i - 1 - \log D_i \big) \Big] . $$

Now *one unit*, $W = w$ with $|w|^2 = t$. For each $x$ the bracket is concave in $m$; its slope
$(w^\top \bar r - t m)/\theta - m$ vanishes at $m = w^\top \bar r / (t + \theta)$. In $D$ it is
$-\tfrac12 (1 + t/\theta) D + \tfrac12 \log D$, largest at $D = \theta / (t + \theta)$, the same for every $x$. Put
in, with $\tau = 1 + t/\theta$,

$$ \text{gain} = \frac{\mathbb E\, (w^\top \bar r)^2}{2\theta\, (t + \theta)} - \tfrac12 \log \tau . $$

With $w = \sqrt t\, v$ with any unit vector $v$,
$\mathbb E (w^\top \bar r)^2 = t\, v^\top R v = t\, \theta \rho_v$, and the gain is
$\tfrac12 [ \rho_v (1 - 1/\tau) - \log \tau ]$. It rises with $\rho_v$, so $v$ is the first eigenvector. Its slope in
$\tau$ is $\tfrac12 (\rho / \tau^2 - 1 / \tau)$: positive below $\tau = \rho$, negative above. As $\tau \ge 1$, the best is
$\tau = \rho$ if $\rho > 1$, which is $t = \theta (\rho - 1)$ and the gain $\tfrac12 (\rho - 1 - \log \rho)$; otherwise
$\tau = 1$, $w = 0$, and nothing. (If $\mathbb E\, \bar r \neq 0$, the output's own offset is not at its best; setting
it right gains $|\mathbb E\, \bar r|^2 / 2\theta$ for itself and centres $\bar r$. We count that apart.)

*Several units.* The change of $J$ is that of a linear VAE with noise variance $\theta$ whose data are the vectors
$\bar r(x)$, against that VAE collapsed. By [Theorem 7.1](07_what_linear_theory_predicts.ipynb#theorem-7-1), with the
eigenvalues $\rho_i \theta$ of $R$, its best has the error
$\sum_{i \le u} \min(\rho_i, 1)\, \theta + \sum_{i > u} \rho_i \theta$ and the KL
$\tfrac12 \sum_{i \le u} (\log \rho_i)_+$; subtract the collapsed $\theta \sum \rho_i$. (There the encoder's mean was
linear and $D$ the same for all samples. Neither is a restriction: for any $W$ the bracket is largest at
$m = (W^\top W + \theta I)^{-1} W^\top \bar r$ and $D_i = \theta / (|w_i|^2 + \theta)$.) $\square$

A network without latents, $d = \mu$, has $\bar r = x - \mu$ and $R = S$: the test is then the linear forecast. If some
$\rho > 1$ and all units live, the network wants more latents. If some $\rho > 1$ *while units lie dead*, it has the
latents: it is unfinished or stuck, unless encoder and decoder are too small to compute $\bar r$ and add $W y$. Where no
$\rho$ exceeds 1, no affine unit helps; something nonlinear still might.

**Check** of the calculus, exactly: the gain's slope vanishes at $\tau = \rho$, and its value there.
"""

# %% tags=["hide-cell"]
rho, tau = sympy.symbols("rho tau", positive=True)
gained = (rho * (1 - 1 / tau) - sympy.log(tau)) / 2
slope, value = sympy.diff(gained, tau).subs(tau, rho), gained.subs(tau, rho)
ledger.certify(
    "the residual test: the gain of one unit is stationary at its stated length", slope, "==", sympy.Integer(0)
)
ledger.certify("the residual test: the gain there", value, "==", (rho - 1 - sympy.log(rho)) / 2)

# %% [markdown]
r"""
Measured, $\bar r$ is an average over draws, and the covariance of such averages has their noise in it, which would pass
for residual. The covariance between two independent halves of the draws, $\operatorname{Cov}(\bar r_1, \bar r_2)$, has
on average none. `diagnose` takes $\rho$ from that, and the gain is
"""

# %%
plots.show_source(residual.gain)

# %% mystnb={"image": {"alt": "Largest eigenvalues of the residual covariance over theta on digits at three stages of training: several above one after 5 epochs, fewer after 30, none after 180"}} tags=["hide-input", "nbval-ignore-output"]
fig, ax = plots.figure(width=6.4, height=3.2)
for epochs, one, mark in zip((5, 30, 180), stages["digits"], "os^", strict=True):
    ax.plot(np.arange(1, 13), one.rho[:12], mark + "-", label=f"{epochs} epochs: further gain {one.further_gain:.2f}")
ax.axhline(1, color="0.4", linestyle=":")
ax.set(xlabel="i", ylabel="$\\rho_i$")
_ = ax.legend()

# %% [markdown]
r"""
**Figure 12.2.** Digits: the largest eigenvalues of the residual covariance over $\theta$, at three stages of
training. Above the dotted line a further affine unit pays.

**Surgery.** After 5 epochs the test says that further units pay, and how much. `with_linear_units` returns
the network with the further units of the theorem: `encode` gives their mean and variance beside the old ones, `decode`
adds $Wy$. Nothing is trained.
"""

# %% tags=["hide-input", "nbval-ignore-output"]
before = diagnose(early, x, loss, pairs=16)
wide = with_linear_units(early, x, loss, units=before.further_units, pairs=64)
after = diagnose(wide, x, loss, pairs=16)
print(f"{before.further_units} further units: predicted {wide.gain:.3f} nats, measured {after.J - before.J:.3f}")
print(f"and what another would add now: {after.further_gain:.3f}")

# %% tags=["hide-cell"]
assert before.further_units >= 3 and abs((after.J - before.J) / wide.gain - 1) < 0.05
assert after.further_gain < 0.1 * wide.gain and stages["digits"][2].further_gain < 0.1 * wide.gain
print("predicted and measured agree within 5 %, and after the surgery nothing more is to be gained that way")

# %% [markdown]
r"""
After 180 epochs the same network has nothing to gain by such units: it has found by itself what they would add.

## Where "linear says dead" is wrong

Twenty groups of samples, each around a point of its own axis: $x = r e_j + \nu$, $r^2 = 20$, all groups equally
frequent, and $\nu$ with every coordinate $\pm 0.2$, uncorrelated. The covariance has
$\lambda_1 = r^2/20 + 0.04 = 1.04$, nineteen times. Take $\theta = 1.4$. The linear forecast is that nothing lives, and
by Theorem 12.1 collapse is a local maximum for every network. But to tell the groups apart takes a single latent and
little more than $\log 20$ nats, and saves far more in squared error:

> **Proposition 12.4** (A dead end far below the best). *Let $m$ groups of equal weight lie at $r e_1, \dots, r e_m$,
> with noise $\nu$ of mean zero in each group. One latent with $q(z \mid x) = \mathcal N(c_j, s^2)$ for group $j$,
> $c_j = (j - \tfrac{m+1}{2}) \Delta$, and the decoder $d(z) = r e_j$ for the $j$ with $c_j$ nearest to $z$ have, against
> complete collapse, the gain*
>
> $$ \frac{r^2 (1 - \frac1m) - 2 r^2 P}{2\theta} - K, \qquad P = 2 \Big( 1 - \frac1m \Big) Q\Big( \frac{\Delta}{2s} \Big), $$
>
> $$ K = \tfrac12 \Big( \Delta^2\, \frac{m^2 - 1}{12} + s^2 - 1 - \log s^2 \Big) , $$
>
> *where $Q(t)$ is the probability that a standard normal variable exceeds $t$.*

**Proof.** $z$ depends on the group alone, and given the group $\nu$ has mean zero, so
$E = \mathbb E |\nu|^2 + \mathbb E\, |r e_j - d(z)|^2$. The last is $2r^2$ times the probability $P$ that $z$ is
nearer to another code, since $|r e_i - r e_j|^2 = 2r^2$. An inner code is missed on two sides, each with probability
$Q(\Delta/2s)$, the two outer ones on one, which makes $(2(m-2) + 2)/m = 2(1 - 1/m)$ times $Q$. Collapse has
$\operatorname{tr} S = r^2 (1 - 1/m) + \mathbb E |\nu|^2$, and the noise cancels. $K$ is the average of
$\tfrac12 (c_j^2 + s^2 - 1 - \log s^2)$, and the average of $(j - \tfrac{m+1}{2})^2$ is $(m^2 - 1)/12$. $\square$

With $\Delta = 0.173$, $s = 0.032$, in interval arithmetic that rounds outwards:
"""


# %% tags=["hide-cell"]
def ball(p, q=1):
    return flint.arb(flint.fmpq(p, q))


def explicit_gain(theta, m=20, r2=20):
    """The gain of Proposition 12.4, as a ball that holds it."""
    delta, s = ball(173, 1000), ball(32, 1000)
    Q = (delta / (2 * s) / ball(2).sqrt()).erfc() / 2
    kept = r2 * ball(m - 1, m) - 2 * r2 * 2 * ball(m - 1, m) * Q
    K = (delta**2 * ball(m**2 - 1, 12) + s**2 - 1 - (s**2).log()) / 2
    return kept / (2 * theta) - K


# %% tags=["hide-cell"]
claim = "twenty groups, λ₁ = 1.04, θ = 1.4: one latent is more than 3 nats above a collapse that is a local maximum"
ledger.certify(claim, [explicit_gain(ball(7, 5)), ball(7, 5)], ">", [ball(3), ball(104, 100)])
claim = "and at θ = 1.1, still above λ₁ = 1.04, by more than 5 nats"
ledger.certify(claim, [explicit_gain(ball(11, 10)), ball(11, 10)], ">", [ball(5), ball(104, 100)])

# %% [markdown]
r"""
(The decoder jumps; a steep smooth one comes as near as one likes.) So complete collapse is a local maximum, and more
than 3 nats below another network. What does training find? Four latents, the loss as it stands; and the same
loss with *free bits* for the first half of the epochs, which do not charge a unit for its first nat, and then without
them. What is compared is $J$ at the same $\theta$, without free bits.
"""

# %%
rng = np.random.default_rng(0)
half = rng.choice([-0.2, 0.2], (200, 20))
centres = np.sqrt(20) * np.eye(20)[np.arange(200) % 20]
groups = torch.tensor(np.concatenate([centres + half, centres - half]), dtype=torch.float32)
collapsed = -groups.var(dim=0, correction=0).sum().item() / 2.8


# %%
def with_free_bits(bits):
    def loss(y, x, kl):
        return ((y - x) ** 2).sum(dim=1).mean() / 2.8 + kl.mean(dim=0).clamp(min=bits).sum()

    return loss


# %%
trained = {}
for name, bits in (("plain", 0.0), ("free bits, then without", 1.0)):
    _ = torch.manual_seed(0)
    model = VAE(20, 4, width=64)
    for now in (bits, 0.0):
        train(model, groups, with_free_bits(now), epochs=100, rate=3e-3)
    trained[name] = diagnose(model, groups, objective.at_theta(1.4), pairs=16)

# %% tags=["hide-input", "nbval-ignore-output"]
lam_groups = covariance_eigenvalues(groups.numpy().astype(float))
print(f"λ₁ of these 400 samples {lam_groups[0]:.2f}, θ = 1.4")
for name, one in trained.items():
    print(
        f"{name:24s} K {one.kl:5.2f}, units above 0.1 nats: {one.units_above}, J - J(collapse) = {one.J - collapsed:+.2f}"
    )
    print(f"{'':24s} verdict: {one.verdict}; a further affine unit would gain {one.further_gain:.2f}")

# %% tags=["hide-cell"]
plain, rescued = trained.values()
assert lam_groups[0] < 1.4 and plain.kl < 0.1 and plain.verdict == "asked for" and abs(plain.J - collapsed) < 0.1
assert rescued.kl > 2.5 and rescued.J - collapsed > 0.8
print("plain training collapses; with free bits first, the same loss ends more than 0.8 nats above that")

# %% [markdown]
r"""
The verdict of the plain run, "asked for", is right, *locally*. Neither test sees the other maximum, for the one asks
what the linear VAE has and the other what affine units add. What can: train a second time with the KL held down at
first, take the help away, compare $J$ at the $\theta$ you care about, and keep the better run. The paper finds that a
network which is annealed at too large a $\sigma^2$ collapses again in the end, and shows for the linear VAE that the
ELBO adds no local maximum of its own. Neither speaks against trying this on deep ones.

## Where dead is right

The same comparison can come out the other way. Words are often decoded one after the other, each given those before.
Such a decoder may not need a latent at all:

> **Proposition 12.5** (Nothing left to say). *Let $x$ be discrete with entropy $H$, and let the decoder, at some
> parameters at which it ignores $z$, have exactly the distribution of the data. Then no encoder and decoder have an
> ELBO above $-H$, and complete collapse attains it.*

**Proof.** The ELBO is at most $\mathbb E \log p(x)$ ([Eq. 3](00_preliminaries.ipynb#equation-3)), and for every
distribution $p$, by Gibbs' inequality, $\mathbb E \log p(x) \le \mathbb E \log p_{\text{data}}(x) = -H$. Collapse at
those parameters has $K = 0$ and $\mathbb E \log p(x \mid z) = -H$. $\square$

So whatever keeps the KL up can at best tie. A toy grammar, with two letters and words of five: the first letter is a
fair coin, each next one repeats the last with probability 0.85. The decoder's logit for the second of the two letters
is $a + b z$; it has an $a$ and a $b$ for each letter that may have come before, and for the beginning. $z$ is one
number. With 32 words nothing is drawn: the average over the words is a sum, that over $z$ a quadrature, and each word
has an encoder mean and variance of its own, so that no encoder network is in the way.
"""

# %%
letters = np.array(list(itertools.product((0, 1), repeat=5)))
repeats = (letters[:, 1:] == letters[:, :-1]).sum(axis=1)
p_word = 0.5 * 0.85**repeats * 0.15 ** (4 - repeats)
entropy = -(p_word * np.log(p_word)).sum()
words, weights = torch.tensor(letters, dtype=torch.float64), torch.tensor(p_word)
before = torch.cat([torch.full((32, 1), 2), torch.tensor(letters[:, :-1])], dim=1)  # 2: the word begins
nodes, mass = (torch.tensor(a) for a in hermegauss(20))
mass = mass / mass.sum()


# %%
def grammar_elbo(parameters, memory):
    """Reconstruction term and KL over all words; a decoder without memory has one a and one b for all letters."""
    a, b, mean, logvar = parameters
    z = mean[:, None] + (logvar / 2).exp()[:, None] * nodes
    seen = before if memory else 0 * before
    logits = a[seen][:, None] + b[seen][:, None] * z[..., None]
    log_p = (words[:, None] * logits - F.softplus(logits)).sum(dim=2) @ mass
    return weights @ log_p, weights @ kl_of(mean, logvar)


# %%
def fit_grammar(memory=True, beta=lambda step: 1.0, bits=lambda step: 0.0, steps=400):
    """ELBO and KL at the end, of a loss with a weight and free bits for the KL that may depend on the step."""
    generator = torch.Generator().manual_seed(0)
    sizes = (3, 3, 32, 32)
    parameters = [0.1 * torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=0.05)
    for step in range(steps):
        log_p, kl = grammar_elbo(parameters, memory)
        optimizer.zero_grad()
        (beta(step) * kl.clamp(min=bits(step)) - log_p).backward()
        optimizer.step()
    log_p, kl = grammar_elbo(parameters, memory)
    return (log_p - kl).item(), kl.item()


# %% tags=["hide-input", "nbval-ignore-output"]
ways = {
    "plain": {},
    "annealed over half the steps": {"beta": lambda step: min(1.0, step / 200)},
    "free bits, then without": {"bits": lambda step: 0.5 * (step < 200)},
    "free bits kept": {"bits": lambda step: 0.5},
}
grammar = {name: fit_grammar(**way) for name, way in ways.items()}
grammar["plain, decoder without memory"] = fit_grammar(memory=False)
print(f"the data's entropy: {entropy:.4f} nats")
for name, (elbo, kl) in grammar.items():
    print(f"{name:30s} -ELBO {-elbo:.4f}, KL {kl:.4f}")

# %% tags=["hide-cell"]
assert all(elbo <= -entropy + 1e-9 for elbo, _ in grammar.values())
assert -entropy - grammar["plain"][0] < 1e-3 and grammar["free bits kept"][0] < -entropy - 0.01
assert grammar["plain, decoder without memory"][1] > 0.3
print("none is above -H; plain training is there; half a nat that is kept costs more than a hundredth")

# %% [markdown]
r"""
None exceeds $-H$, plain training reaches it with the latent dead, and the latent that free bits keep alive is paid
for. With a decoder *without memory*, in the last line, the same words keep the latent alive: without it no letter
could depend on another. So whether dead is right cannot be read from the data alone, nor from the count of units.
**Rank remedies by $J$ at your own $\theta$ (by the ELBO for other likelihoods), never by active units.**

## The one call

All this is one call. It wants the model (with `encode` and `decode`, or `encoder` and `decoder`, or the two functions),
the data, and the loss as one says it; it leaves the model as it was.
"""

# %% tags=["nbval-ignore-output"]
for name, model, said in (
    ("default loss", dead, "mean(se) + kl"),
    ("θ = 0.1, 5 epochs", early, loss),
    ("θ = 0.1, 180 epochs", networks["digits"], loss),
):
    found = diagnose(model, x, said)
    print(textwrap.fill(f"{name}: {found.verdict}. {found.reason}", 84, subsequent_indent="  "))

# %% tags=["hide-cell"]
assert diagnose(dead, x, "mean(se) + kl").verdict == "asked for"
assert diagnose(early, x, loss).verdict == "worse than linear"
print("asked for; worse than linear; and the last depends on how far its training has come")

# %% [markdown]
r"""
## How far to trust a forecast

The $K$ and the counts of a forecast are promises about linear VAEs. How good are they for deep ones, on data that are
not Gaussian? Five data sets, five losses, each network with one hidden layer of 256 (64 for the table) in
encoder and decoder, one seed, trained by Adam at $10^{-3}$, falling to zero over the last third.
`python -m helpers.studies run forecast-digits --profile laptop` makes a run again. In the table *live* are the units of
the best linear VAE, *gap* is to its $J$, and *further* is what further affine units would add.
"""

# %% tags=["hide-input"]
SPECTRA = {
    "digits": lambda: covariance_eigenvalues(data.load("digits") / 255.0),
    "mnist": lambda: data.mnist_moments("subset").eigenvalues,
    "gaussian": lambda: covariance_eigenvalues(data.load("mnist-gaussian").astype(float)),
    "patches": lambda: covariance_eigenvalues(data.load("patches-8") / 255.0),
    "table": lambda: covariance_eigenvalues(data.load("breast-cancer").astype(float)),
}


def compared(name, record):
    """For each loss of a study: its name, the forecast and the member of the record."""
    values, network = SPECTRA[name](), plans.find(f"forecast-{name}", "laptop").network.keywords
    for said, m in zip(plans.LOSSES, range(record.member.size), strict=True):
        asked = forecast(values, network["k"], said)
        one = record.isel(member=m)
        assert np.isclose(asked.theta, one.set_sigma2.item())
        yield said, asked, one, -one.sse.item() / (2 * asked.theta) - one.kl.item() - asked.J


# %% tags=["hide-input"]
rows = []
print(f"{'':34s}{'':7s}  forecast         measured")
print(f"{'':34s}{'θ':>7s}  live     K   AU  KL>0.1     K    gap  further")
for name in SPECTRA:
    record = records.recorded(f"forecast-{name}", "laptop")
    for number, (said, asked, one, gap) in enumerate(compared(name, record)):
        if not number:
            title = plans.STUDIES[f"forecast-{name}"].title.split(", ")[-1]
            print(f"{title}: λ₁ = {asked.lambda_1:.2f}, {asked.k} latents\n({records.label(record)})")
        alive, active = (one.kl_per_unit > 0.1).sum().item(), int(one.active_units)
        rows.append((name, asked, one.kl.item(), alive, gap))
        line = f"  {said:32s}{asked.theta:7.3g}{asked.survivors:6d}{asked.kl:6.1f}{active:5d}{alive:8d}"
        print(f"{line}{one.kl.item():6.1f}{round(gap, 1) + 0.0:+7.1f}{one.further_gain.item():9.2f}")

# %% tags=["hide-input"]
alive_rows = [(name, asked, found, alive, gap) for name, asked, found, alive, gap in rows if asked.survivors]
ratios = {name: [found / asked.kl for one, asked, found, *_ in alive_rows if one == name] for name in SPECTRA}
assert all(found < 0.01 for _, asked, found, *_ in rows if not asked.survivors)
assert all(alive <= asked.survivors for _, asked, _, alive, _ in rows)
print(f"{len(rows) - len(alive_rows)} runs with λ₁ < θ, and none of them keeps 0.01 nats")
assert all(gap > 0 for name, *_, gap in alive_rows if name != "gaussian")
misses = {name: max(abs(np.log(of))) for name, of in ratios.items()}
assert min(misses, key=misses.get) == "gaussian"
print("none has more units above 0.1 nats than the linear theory has survivors")
for name, of in ratios.items():
    gaps = [round(gap, 1) + 0.0 for one, *_, gap in alive_rows if one == name]
    print(
        f"{name:9s} K measured is {min(of):.2f} to {max(of):.2f} of the forecast, gaps {min(gaps):+.1f} to {max(gaps):+.1f}"
    )

# %% mystnb={"image": {"alt": "Total KL measured in deep networks against the linear forecast, on logarithmic axes, for five data sets and the losses whose forecast is not zero; the points lie along the diagonal"}} tags=["hide-input"]
fig, ax = plots.figure(width=5.6, height=4.2)
for name, mark in zip(SPECTRA, "os^Dv", strict=True):
    pairs = np.array([(asked.kl, found) for one, asked, found, *_ in alive_rows if one == name])
    ax.loglog(*pairs.T, mark, label=name)
limits = (1, 100)
ax.plot(limits, limits, color="0.4", linestyle=":")
ax.set(xlabel="K forecast (nats)", ylabel="K measured (nats)")
_ = ax.legend()

# %% [markdown]
r"""
**Figure 12.3.** Total KL, forecast by the linear theory and measured in trained networks, of all runs in which the
theory has survivors. On the dotted line the two agree.

*Nothing lives where $\lambda_1 < \theta$.* On these data plain training finds no exception; the groups above show that
this is no theorem. *The total KL is forecast better than the units*: best on Gaussian data, where the linear optimum
is the truth, and on the others within the ranges printed above, mostly in fewer units. That no network has more units
above 0.1 nats than the theory has survivors is an observation too. *And where $\theta$ is small the two tests have to
be looked at first.* On Gaussian data at $\theta = 0.1$ the network ends a nat below the linear VAE, and further affine
units would gain about as much, while some of the 64 lie idle: it is not at its best after 120 epochs, and its counts
say nothing about the optimum. (On the table at the smallest $\theta$ further units would pay as well, but there all
sixteen are in use: it wants more latents.) On all other data the gaps are positive, and largest at the smallest
$\theta$, since there is structure that is not linear. They are gaps on the training data: of a large one on few
samples a part is fitted noise, which only held-out data tell. One seed each.

## What we showed

- A loss of squared errors is $E/2\theta + K$; the first loss that comes to mind has $\theta = n/2$ and asks for
  collapse.
- $\lambda_1 < \theta$ makes complete collapse a local maximum of $J$, whatever encoder and decoder are (Theorem 12.1).
- A network that contains the linear maps and is below the linear floor is not at its best (Proposition 12.2).
- Further affine units gain $\tfrac12 \sum (\rho - 1 - \log \rho)$ (Theorem 12.3), as surgery confirms.
- Collapse can be a local maximum more than three nats below another network (Proposition 12.4), and it can be the best
  there is (Proposition 12.5).

## Exercises

**Exercise 12.1. One sum too many.** Somebody averages the squared error over pixels and minibatch, sums the KL over
latents *and* minibatch of 128, and trains on MNIST, $n = 784$. What is $\theta$? Which factor before the KL gives
$\theta = 0.1$?
"""

# %% tags=["hide-cell"]
# The error weighs a = 1/n per sample, the KL b = 128 (both times 1/128): θ = b/2a = 64 n.
theta_of = objective.read("mean(se) + sum(kl, batch=sum)", n=784, batch=128).theta()
assert np.isclose(theta_of, 64 * 784)
factor = 0.1 / theta_of
found = objective.read(f"mean(se) + {factor!r}*sum(kl, batch=sum)", n=784, batch=128)
assert np.isclose(found.theta(), 0.1)
print(f"θ = {theta_of:.0f}; a factor of {factor:.2g} makes it 0.1")

# %% [markdown]
r"""
**Exercise 12.2. The forecast is a residual test.** Show that the residual test of the collapsed network, $d = \mu$,
gives back the linear optimum: with $u = k$ units its gain is $J_{\text{lin}} - J_{\text{collapse}}$.
"""

# %% tags=["hide-cell"]
# R = S, so ρ = λ/θ. J_lin - J_collapse is, over i ≤ k, ½ Σ (λ - min(λ, θ))/θ - (log λ/θ)₊; for λ > θ a term is
# ½ (ρ - 1 - log ρ), and otherwise 0.
for level in (0.3, 0.1, 0.03):
    linear = -spectrum.distortion(lam, k, level) / (2 * level) - spectrum.kl(lam[:k], level).sum()
    assert np.isclose(residual.gain(lam / level, units=k), linear + lam.sum() / (2 * level))
print("ρ = λ/θ: the same number, for three θ")

# %% [markdown]
r"""
**Exercise 12.3. A test of convergence.** If the encoder's last layer and the decoder's first are affine, as here, every
unit has $\mathbb E\, (m^2 + s^2) = 1$ at a stationary point of $J$ ([chapter
8](08_engine.ipynb#a-test-that-a-converged-vae-must-pass)). How near to that does the network on Gaussian data come?
"""

# %% tags=["hide-cell"]
# Each stage's largest distance from 1 is `drift`, but for units whose KL is free, of which there are none here.
drifts = [one.drift for one in stages["Gaussian"]]
assert drifts[2] < 0.15 and drifts[2] < drifts[0]
print("at the end all sixteen within 0.15 of 1, and nearer than after 5 epochs")

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md). Annealing is due to [Bowman et al.,
2015](../book/references.md); error and rate of a VAE as a plane to [Alemi et al., 2017](../book/references.md). That
deep VAEs have poor local minima by construction is shown by [Dai et al., 2020](../book/references.md); the threshold
of the linear model by [Wang & Ziyin, 2022](../book/references.md).

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn", "torch"):
    print(name, version(name))
