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
# What the linear theory predicts

For the linear VAE the best parameters can be written down, for every noise variance $\sigma^2$ and every
weight $\beta > 0$ of the KL term. So can, for this model, much that people measure on deep VAEs: how many
latents survive, the KL of each, the reconstruction error, the curves of Figures 4 and 5, the tuned ELBO of Table 1, what annealing
does on the way and what it leaves behind. This chapter derives these closed forms from the spectrum of the
data, checks each against a computation that does not use it, and ends with a table of the $\sigma^2$ that
popular losses imply. The paper has no equations for them; where it makes a statement in words, we say so and
compare.

> **In short**
>
> - One number decides how many latents a linear VAE keeps: $\theta = \beta \sigma^2$. Unit $i$ is in use exactly
>   when its eigenvalue $\lambda_i > \theta$.
> - A unit in use has the KL $\tfrac12 \log (\lambda_i / \theta)$ and leaves the error $\theta$ behind; a
>   collapsed one has no KL and leaves $\lambda_i$. KL and error lie on Shannon's rate–distortion curve.
> - Annealing changes the way and not the end. While $\beta \le 1$ a learned $\sigma^2$ keeps $\theta$ at or below
>   $\lambda_{k+1}$, so that the $k$ leading directions keep their units.
> - For your VAE: a loss $a\,\text{SSE} + b\,\text{KL}$ has $\theta = b / 2a$. Compare that with the eigenvalues
>   of your data before you train.

**You need**: the best weights at a given $\sigma^2$ ([Eq. 7](01_ppca.ipynb#equation-7), Step 3), the linear
VAE ([chapter 3](03_linear_vae.ipynb)) and its gradients ([chapter 4](04_elbo.ipynb)). **Time to run**: about
10 seconds on a laptop; no GPU needed.

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
from dataclasses import replace

import flint
import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import logsumexp

from helpers import collapse, data, plots, ppca, spectrum
from helpers.ledger import Ledger
from helpers.linear_vae import LinearVAE, fit, optimal_encoder, profile_gradient
from helpers.moments import Moments

ledger = Ledger("07_what_linear_theory_predicts")

# %% [markdown]
r"""
The chapter is the same in every profile. Two data sets serve it: scikit-learn's 8 × 8 digits, small enough to
fit a VAE from a random start many times over, and MNIST's recorded covariance.
"""

# %% tags=["hide-input"]
images = data.digits()
digits, mnist = Moments.from_samples(images), data.mnist_moments()
lam, lam_mnist = digits.eigenvalues, mnist.eigenvalues
n, k = lam.size, 20
print(f"digits: n = {n}, λ from {lam[0]:.3f} down, sum {lam.sum():.2f}, rank {np.count_nonzero(lam)}")
print(f"MNIST:  n = {lam_mnist.size}, λ from {lam_mnist[0]:.3f} down, sum {lam_mnist.sum():.2f}")

# %% [markdown]
r"""
## One number: θ = β σ²

The letters are those of the [notation page](../book/notation.md): $s = \sigma^2$, eigenvalues
$\lambda_1 \ge \lambda_2 \ge \dots$ of the $1/N$ covariance $S$ with eigenvectors $u_i$, averages per sample,
nats. The mean $\mu$ is the data's. With the KL term weighed by $\beta$, the objective is

$$ \mathcal L_\beta(s) = \mathbb E_q[\log p(x \mid z)] - \beta\, D_{KL}\big( q(z \mid x) \,\|\, p(z) \big)
= -\frac{E}{2s} - c(s) - \beta K, \qquad c(s) = \frac n2 \log 2 \pi s . $$

Here $E = \mathbb E\,\|x - \mu - Wz\|^2$ is the expected squared error, over the data and over $z$ drawn from
the encoder, and $K$ the average KL. Both are numbers that depend on $W$, $V$ and $D$ and *not on $s$ or
$\beta$*. That is all that is needed for the identity on which this chapter rests. Put $\theta = \beta s$ and
write $\text{ELBO}(\theta)$ for the ordinary ELBO ($\beta = 1$) of the same $W, V, D$ with noise variance
$\theta$:

$$ \mathcal L_\beta(s) + c(s) = -\frac{E}{2s} - \beta K = \beta \Big[ -\frac{E}{2 \beta s} - K \Big]
= \beta\, \big[ \text{ELBO}(\theta) + c(\theta) \big] . \tag{a} $$

Nothing in this used linearity: (a) holds for every VAE whose decoder is Gaussian with one $\sigma^2$. **At a
fixed $s$, training with weight $\beta$ is training the ELBO of a model with noise variance $\beta s$.** The
two objectives are increasing affine functions of each other; they have the same maxima and saddles in
$W, V, D$, and gradients that differ by the factor $\beta$. The paper says that for suitable $\beta$ and
learning rate scaling the KL "can be made equivalent to tuning" $\sigma^2$; (a) is that remark, made exact.

**Check** on a VAE with random parameters:
"""

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
anyone = LinearVAE(
    rng.standard_normal((n, 3)), rng.standard_normal((3, n)) / 8, [0.4, 1.3, 0.2], digits.mean, sigma2=0.3
)


def c(s):
    return n / 2 * np.log(2 * np.pi * s)


# %% tags=["hide-cell"]
for beta in (0.2, 0.7, 3.0):
    other = replace(anyone, sigma2=beta * anyone.sigma2)
    left = anyone.elbo(digits, beta) + c(anyone.sigma2)
    assert np.isclose(left, beta * (other.elbo(digits) + c(other.sigma2)), rtol=1e-12)
    ours, theirs = anyone.gradients(digits, beta), other.gradients(digits)
    for name in ("W", "V", "D"):
        assert np.allclose(getattr(ours, name), beta * getattr(theirs, name), rtol=1e-10, atol=1e-10)
print("(a) holds, and the gradients in W, V and D differ by the factor β")

# %% [markdown]
r"""
## The optimum at a given σ² and β

By (a) the best $W, V, D$ are those of the ordinary ELBO at noise $\theta$. The ELBO at noise $\theta$ is at
most the log likelihood of pPCA at noise $\theta$, and that has its maximum, by
[Eq. 7](01_ppca.ipynb#equation-7), Step 3, at columns along the leading eigenvectors with squared lengths
$(\lambda_i - \theta)_+$, where $(a)_+ = \max(a, 0)$. These columns are orthogonal, so
$M = W^\top W + \theta I$ is diagonal with entries $M_{ii} = \max(\lambda_i, \theta)$, the true posterior of
that model is a diagonal Gaussian, and the encoder can be equal to it: $V = M^{-1} W^\top$ and
$D = \theta M^{-1}$ ([Eq. 6](01_ppca.ipynb#equation-6)). Then the bound is met, and nothing can be better. Row
by row:

> **Theorem 7.1** (The optimum). *At a given $\sigma^2$ and $\beta > 0$ the $\beta$-ELBO of the linear VAE is largest, with
> $\theta = \beta \sigma^2$ and for $i \le k$, at*
>
> $$ w_i = \sqrt{(\lambda_i - \theta)_+}\; u_i, \quad v_i = \frac{w_i}{\lambda_i}, \quad D_i = \min\Big( 1, \frac{\theta}{\lambda_i} \Big) . $$

(For a unit with $\lambda_i \le \theta$, $w_i = 0$, so $v_i = 0$ with either denominator.) Unit $i$ is
**active** if $\lambda_i > \theta$. If not, its column is zero, its encoder ignores $x$, and its variance is
the prior's: it has collapsed. As in [Lemma 1](03_linear_vae.ipynb#lemma-1), this maximum is unique up to the
order and the signs of the units and rotations among equal eigenvalues (and, where $S$ is singular, up to what $V$
does in directions in which [the data do not vary](04_elbo.ipynb#equation-21)).
"""


# %% tags=["hide-input"]
def best_vae(moments, k, sigma2, beta=1.0):
    """The optimum at a given sigma2 and beta, in closed form."""
    theta, eigenvalues = beta * sigma2, moments.eigenvalues[:k]
    W = moments.eigenvectors[:, :k] * np.sqrt(np.maximum(eigenvalues - theta, 0))
    D = spectrum.encoder_variances(eigenvalues, sigma2, beta)
    return LinearVAE(W, (W / np.maximum(eigenvalues, theta)).T, D, moments.mean, sigma2)


# %%
plots.show_source(spectrum.encoder_variances)

# %% [markdown]
r"""
**Check**, first by somebody who knows nothing: automatic derivatives and a general optimiser, in $W$, $V$ and
$\log D$, from small random numbers. What goes in is the loss as people write it,
$a \cdot \text{squared error} + b \cdot \text{KL}$ with $a = 1/2\sigma^2$ and $b = \beta$, and the freedom of eight
units. That the columns of $W$ come out orthogonal, and the encoder as stated, is then found and not put in.
"""

# %% tags=["hide-cell"]
S, eye = torch.tensor(digits.covariance), torch.eye(n, dtype=torch.float64)


def split(p, units):
    """W (n, units), V (units, n), log D (units,) and log s out of one vector."""
    return p[: n * units].reshape(n, units), p[n * units : -units - 1].reshape(units, n), p[-units - 1 : -1], p[-1]


# %% tags=["hide-cell"]
def weighted_loss(p, units, a, b):
    """a SSE + b KL averaged over the digits, and its gradient; with a = None, SSE/2s + (n/2) log s, s learned."""
    p = torch.tensor(p, requires_grad=True)
    W, V, log_D, log_s = split(p, units)
    left_over, VS, D = eye - W @ V, V @ S, log_D.exp()
    squared_error = ((left_over @ S) * left_over).sum() + (W**2).sum(dim=0) @ D
    kl = ((VS * V).sum() + (D - 1 - log_D).sum()) / 2
    value = (a * squared_error if a else squared_error / (2 * log_s.exp()) + n / 2 * log_s) + b * kl
    value.backward()
    return value.item(), p.grad.numpy()


# %% tags=["hide-cell"]
def descend(units, a, b, seed=0):
    """Minimise `weighted_loss` by L-BFGS from small random numbers; W (n, units), D (units,) and s."""
    start = np.append(0.3 * np.random.default_rng(seed).standard_normal(2 * n * units), np.zeros(units + 1))
    options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 300, "maxcor": 20}
    found = minimize(weighted_loss, start, args=(units, a, b), jac=True, method="L-BFGS-B", options=options)
    W, _, log_D, log_s = split(found.x, units)
    return W, np.exp(log_D), np.exp(log_s)


# %% tags=["hide-cell"]
settings = [(0.05, 1.0), (0.05, 0.4), (0.02, 3.0), (0.3, 1.0)]
for s, beta in settings:
    W, D, _ = descend(8, 1 / (2 * s), beta)
    by_length = np.argsort(-(W**2).sum(axis=0))
    gram, best = (W.T @ W)[np.ix_(by_length, by_length)], best_vae(digits, 8, s, beta)
    assert np.abs(gram - best.W.T @ best.W).max() < 0.02 and np.abs(D[by_length] - best.D).max() < 0.02
    print(f"σ² = {s}, β = {beta}: WᵀW diagonal with max(0, λ - θ), D = min(1, θ/λ), both within 0.02")

# %% [markdown]
r"""
The optimiser is stopped after 300 steps, whence the tolerance. To many more digits, and for 20 units, by the
package's `fit`. It climbs from a random start too and never computes an eigenvector of $S$, but it uses what
we know: it ascends with an unrestricted encoder, then takes the columns apart by a singular value decomposition
and adds the best encoder. So it confirms the subspace and the lengths, and not the rest. A column's sign is free.
"""

# %% tags=["hide-input"]
fits = {setting: fit(digits, k, *setting, seed=1) for setting in settings}
for (s, beta), found in fits.items():
    best = best_vae(digits, k, s, beta)
    sign = np.sign((found.W * best.W).sum(axis=0))
    assert np.abs(found.W * sign - best.W).max() < 1e-5
    assert abs(found.elbo(digits, beta) - best.elbo(digits, beta)) < 1e-8
    V, D = optimal_encoder(best.W, s, beta)  # Eqs 20 and 21 with β
    assert np.allclose(V, best.V, atol=1e-12) and np.allclose(D, best.D, rtol=1e-12)
    print(f"σ² = {s}, β = {beta}: {spectrum.active(lam[:k], s, beta).sum():2d} of {k} units active")

# %% [markdown]
r"""
At a tie, $\lambda_i = \theta$, the best column has length zero, so the unit does *not* count as active:
"""

# %% tags=["hide-input"]
assert spectrum.active([2.0, 0.5, 0.1], 0.25, beta=2.0).tolist() == [True, False, False]
print("λ = (2, 0.5, 0.1) at θ = 0.5: one active unit")

# %% [markdown]
r"""
Only the product decides: the third setting has the smallest $\sigma^2$ of all, but $\theta = 0.06$, and fewer
units than the first, where $\theta = 0.05$. Nothing the encoder or the optimiser could do would keep a unit with $\lambda_i \le \theta$: it has no part in the *best*
solution.

## What a survivor says: the KL of each unit

The encoder's mean $m_i = v_i^\top (x - \mu)$ varies over the data by

$$ \operatorname{Var} m_i = v_i^\top S v_i = \frac{\|w_i\|^2}{\lambda_i^2}\, \lambda_i
= \frac{\lambda_i - \theta}{\lambda_i} = 1 - D_i $$

for an active unit, and by $0 = 1 - D_i$ for a collapsed one. So **$\mathbb E\, m_i^2 + D_i = 1$ for every
unit** (which [Exercise 3.2](03_linear_vae.ipynb#exercises) finds from Eq. 13, for any linear VAE
at a maximum). The average KL of a Gaussian unit to the prior is
$\tfrac12 (\mathbb E\, m_i^2 + D_i - 1 - \log D_i)$; the first three terms cancel, and

$$ K_i = -\tfrac12 \log D_i = \tfrac12 \Big( \log \frac{\lambda_i}{\theta} \Big)_+ . $$

**In words of information.** For any VAE the average KL splits into two parts, both non-negative,

$$ K_i = I(x; z_i) + D_{KL}\big( \bar q(z_i) \,\|\, p(z_i) \big), \qquad
\bar q(z_i) = \frac1N \sum_x q(z_i \mid x), $$

because
$\mathbb E \log \frac{q(z_i \mid x)}{p(z_i)} = \mathbb E \log \frac{q(z_i \mid x)}{\bar q(z_i)} + \mathbb E \log \frac{\bar q(z_i)}{p(z_i)}$,
and the first term on the right is the mutual information of $x$ and $z_i$ when $x$ is drawn from the data. If
the data are Gaussian then $z_i = m_i + \sqrt{D_i}\, \xi$ is Gaussian, with mean 0 and variance
$1 - D_i + D_i = 1$: $\bar q$ *is* the prior, and $K_i = I(x; z_i)$. If they are not, $\bar q$ has the prior's
mean and variance, but its shape only where $m_i$ happens to be Gaussian (or the unit has collapsed);
elsewhere $K_i > I(x; z_i)$.
"""

# %%
plots.show_source(spectrum.kl)

# %% [markdown]
r"""
**Check.** First the averages over the actual 1,797 digits, from the encoder's outputs, as one would measure
them on a deep VAE ($\theta = 0.05$).
"""


# %% tags=["hide-input"]
def encoded(vae, x):
    """Mean and log variance of q(z | x) for each row of x (N, n), as a deep encoder would put them out."""
    mean = (x - vae.mu) @ vae.V.T
    return mean, np.broadcast_to(np.log(vae.D), mean.shape)


vae = fits[0.05, 1.0]
mean, logvar = encoded(vae, images)
assert np.allclose(collapse.kl_per_unit(mean, logvar), spectrum.kl(lam[:k], 0.05), atol=1e-6)
assert np.allclose((mean**2).mean(axis=0) + vae.D, 1, atol=1e-6)
print("KL of the first five units:", spectrum.kl(lam[:5], 0.05).round(4), "| E m² + D = 1 for all", k)

# %% [markdown]
r"""
Then the mutual information, estimated from samples alone: $\log q(z_i \mid x) - \log \bar q(z_i)$ with
$\bar q$ the mixture of all the encoder's Gaussians, on Gaussian data with the covariance of the digits, and
on the digits, a thousand of each.
"""


# %% tags=["hide-input"]
def information(mean, variance, rng):
    """Monte Carlo estimate of I(x; z) of one unit, from its means (N,) and its variance."""
    z = mean + np.sqrt(variance) * rng.standard_normal(mean.size)
    log_q = -((z[:, None] - mean) ** 2) / (2 * variance)  # q(z | x) up to a factor that cancels
    return (np.diag(log_q) - logsumexp(log_q, axis=1) + np.log(mean.size)).mean()


# %% tags=["hide-input"]
def gaussian_digits(count, seed):
    """Gaussian samples (count, n) with the mean and the covariance of the digits."""
    white = np.random.default_rng(seed).standard_normal((count, n))
    return digits.mean + white * np.sqrt(lam) @ digits.eigenvectors.T


# %% tags=["hide-input"]
vae, predicted = best_vae(digits, 4, 0.05), spectrum.kl(lam[:4], 0.05)
for x, name, tolerance in ((gaussian_digits(1000, seed=1), "Gaussian data", 0.1), (images[:1000], "digits", 0.2)):
    estimate = [information(m, d, rng) for m, d in zip(encoded(vae, x)[0].T, vae.D, strict=True)]
    assert np.allclose(estimate, predicted, atol=tolerance)
    print(f"{name}: I =", np.round(estimate, 2), "| KL =", predicted.round(2))

# %% [markdown]
r"""
## What is lost: the distortion, and Shannon's curve

**The error of one direction.** Along $u_i$ an active unit turns the coordinate $y_i = u_i^\top (x - \mu)$
into $z_i = v y_i + \sqrt{D_i}\, \xi$ and back into $w z_i$, where $w = \sqrt{\lambda_i - \theta}$ and
$v = w / \lambda_i$. As $1 - wv = \theta / \lambda_i$, the expected squared error is

$$ (1 - wv)^2 \lambda_i + w^2 D_i = \frac{\theta^2}{\lambda_i} + \frac{(\lambda_i - \theta)\, \theta}{\lambda_i} = \theta , $$

the same $\theta$ in every active direction. A direction without an active unit loses all of its variance
$\lambda_i$. Together

$$ E = \sum_{i \le k} \min(\lambda_i, \theta) + \sum_{i > k} \lambda_i , \qquad
K = \sum_{i \le k} \tfrac12 \Big( \log \frac{\lambda_i}{\theta} \Big)_+ . $$

**Reverse water-filling.** Pour water to the level $\theta$ over the spectrum: what is under water is lost,
what stands out is told. With $k$ at least the number of $\lambda_i > \theta$, this is the rate–distortion function of a Gaussian source,
derived in [Cover & Thomas, 2006](../book/references.md), section 10.3. It says that *no encoder whatsoever*
can do better on Gaussian data.

> **Theorem 7.2** (The rate–distortion function of a Gaussian source). *Let the coordinates $y_i$ be independent
> $\mathcal N(0, \lambda_i)$, and let $\hat y$ be any reconstruction with $\mathbb E \|y - \hat y\|^2 = E$. Then
> $I(y; \hat y) \ge \sum_i \tfrac12 ( \log (\lambda_i / \theta) )_+$, where $\theta$ is the level with
> $\sum_i \min(\lambda_i, \theta) = E$.*

**Proof.** Let $d_i = \mathbb E (y_i - \hat y_i)^2$. Then

$$ I(y; \hat y) = \sum_i H(y_i) - H(y \mid \hat y) \ge \sum_i \big[ H(y_i) - H(y_i \mid \hat y) \big]
\ge \sum_i \big[ H(y_i) - H(y_i - \hat y_i) \big] \ge \sum_i \tfrac12 \log \frac{\lambda_i}{d_i} . $$

With $H$ for differential entropy, the steps are: the joint entropy is at most the sum of the entropies; given $\hat y$, subtracting $\hat y_i$
changes nothing, and forgetting $\hat y$ can only raise the entropy; among all variables with second moment
$d_i$ the Gaussian has the largest entropy, $\tfrac12 \log 2 \pi e d_i$. (Directions with $\lambda_i = 0$ are
left out: they cost nothing.) Each bracket of the first sum is $I(y_i; \hat y)$, which is also non-negative, so
a direction with $d_i > \lambda_i$ helps nobody. It remains to minimise
$\sum_i \tfrac12 \log (\lambda_i / d_i)$ over $0 < d_i \le \lambda_i$ with $\sum d_i = E$. The function is
convex. Its derivative by $d_i$ is $-1/(2 d_i)$, so at the minimum all $d_i$ that are not at their bound
$\lambda_i$ share one value $\theta$, and those at their bound have $\lambda_i \le \theta$:
$d_i = \min(\lambda_i, \theta)$. $\square$

For every VAE, deep or not, $K \ge I(x; z) \ge I(x; \hat x)$: the KL is at least the information, and what the
decoder makes of $z$ can hold no more of it than $z$. So with Gaussian data no VAE gets below the curve, and
the linear one with that many units is on it. As $\theta$ moves between two eigenvalues with $a$ of them active, $dE = a\, d\theta$
and $dK = -a\, d\theta / 2 \theta$. **The slope of the curve is $-1/(2\theta) = -1/(2 \beta \sigma^2)$**:
whoever sets $\sigma^2$ sets the price, in squared error, of a nat.
"""

# %%
plots.show_source(spectrum.distortion)

# %% [markdown]
r"""
**Check**: the error and KL of VAEs fitted from random starts; and the least rate at the same distortion as a
numerical optimiser finds it, over all ways to share the distortion among twelve directions.
"""


# %% tags=["hide-cell"]
def error_of(vae, moments):
    """E|x - mu - W z|^2, taken out of the reconstruction term."""
    size = moments.mean.size
    return -2 * vae.sigma2 * vae.terms(moments).reconstruction - size * vae.sigma2 * np.log(2 * np.pi * vae.sigma2)


# %% tags=["hide-cell"]
for (s, beta), found in fits.items():
    assert np.isclose(error_of(found, digits), spectrum.distortion(lam, k, s, beta), rtol=1e-7)
    assert np.isclose(found.terms(digits).kl, spectrum.kl(lam[:k], s, beta).sum(), rtol=1e-6)
print("distortion and KL of fitted VAEs: as predicted")

# %% tags=["hide-cell"]
for theta in (0.02, 0.15, 0.3):
    ends = [fit(digits, k, theta * factor, seed=2) for factor in (0.99, 1.01)]
    rise = ends[1].terms(digits).kl - ends[0].terms(digits).kl
    slope = rise / (error_of(ends[1], digits) - error_of(ends[0], digits))
    assert np.isclose(slope, -1 / (2 * theta), rtol=1e-3)
    print(f"θ = {theta}: slope of KL against distortion {slope:.2f}, -1/(2θ) = {-1 / (2 * theta):.2f}")

# %% tags=["hide-cell"]
source = lam[:12]
for theta in (0.02, 0.15, 0.3):
    lost = np.minimum(source, theta).sum()
    least = minimize(
        lambda d: np.log(source / d).sum() / 2,
        x0=source * lost / source.sum(),
        jac=lambda d: -0.5 / d,
        bounds=[(1e-4, value) for value in source],
        constraints={"type": "eq", "fun": lambda d, lost=lost: d.sum() - lost, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-13},
    )
    rate = spectrum.kl(source, theta).sum()
    assert abs(least.fun - rate) < 1e-5
    print(f"θ = {theta}: distortion {lost:.3f}, least rate {least.fun:.3f} nats, the VAE's KL {rate:.3f}")

# %% [markdown]
r"""
## MNIST, for all σ² and β at once

Two hundred latents, as in the paper's Section 5.2. The picture shows three noise variances. Below it, you can
move $\sigma^2$ and $\beta$ yourself.
"""

# %% tags=["hide-input"]
K200 = 200
levels = [(1.0, "s"), (0.1, "o"), (0.01, "D")]
for s, _ in levels:
    alive = spectrum.active(lam_mnist[:K200], s).sum()
    rate, lost = spectrum.kl(lam_mnist[:K200], s).sum(), spectrum.distortion(lam_mnist, K200, s)
    print(f"σ² = {s}: {alive} of {K200} survive, KL {rate:.1f} nats, distortion {lost:.2f}")

# %% tags=["hide-input"]
index, theta = np.arange(1, 301), np.geomspace(1e-3, 6, 400)
curve = [(spectrum.distortion(lam_mnist, K200, t), spectrum.kl(lam_mnist[:K200], t).sum()) for t in theta]

# %% mystnb={"image": {"alt": "MNIST eigenvalues crossed by three noise levels; the KL against distortion curve with three marks"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.8, height=3.7)
left.semilogy(index, lam_mnist[:300], "k-", label="eigenvalue $\\lambda_i$")
left.vlines(K200, 2e-3, 15, color="0.4", linestyle=":", label="k = 200 latents")
right.plot(*np.transpose(curve), "k-")
for i, (s, marker) in enumerate(levels):
    alive = spectrum.active(lam_mnist[:K200], s).sum()
    left.fill_between(index[:alive], s, lam_mnist[:alive], color=plots.COLOURS[i], alpha=0.35, linewidth=0)
    left.axhline(s, linestyle=plots.LINES[1 + i], color=plots.COLOURS[i], label=f"σ² = {s}: {alive} survive")
    point = spectrum.distortion(lam_mnist, K200, s), spectrum.kl(lam_mnist[:K200], s).sum()
    right.plot(*point, marker, color=plots.COLOURS[i], markeredgecolor="black", label=f"σ² = {s}: KL {point[1]:.0f}")
left.set(xlabel="component i", ylabel="variance (pixel units squared)", ylim=(2e-3, 400))
left.legend(fontsize=8.5, ncols=2, loc="upper right")
right.set(xlabel="distortion (squared error per image)", ylabel="KL (nats per image)")
_ = right.legend()

# %% [markdown]
r"""
**Figure 7.1.** The linear optimum on MNIST, from its recorded moments: eigenvalues with three noise variances
across them, and all optima on the curve of KL against distortion.

On the left, a unit survives if its eigenvalue stands above the line, and twice its KL is the height by which
it does (on this logarithmic axis, in nats). On the right, all the optima lie on one curve; $\sigma^2$ only
says where. At $\sigma^2 = 1$, which is what half the squared error plus the KL amounts to, 12 of 200 latents
survive.
"""

# %%
plots.spectrum_explorer(mnist, K200, sigma2=0.1)

# %% [markdown]
r"""
The two sliders take the mouse, a finger or the arrow keys; no kernel is needed. Halve $\sigma^2$ and double
$\beta$: $\theta$ stays, so nothing moves except the last sentence, on what $\sigma^2$ would do if it were
free; that is [below](#learning-the-noise-variance).
"""

# %% [markdown]
r"""
## Active units, and Figures 4 and 5

**The usual count.** A unit is commonly called active if the variance of its encoder mean over the data
exceeds 0.01 ([Burda et al., 2016](../book/references.md)). By the above that variance is, for an active unit,
$1 - \theta / \lambda_i$, so the count is of the eigenvalues with $\lambda_i > \theta / 0.99$: at the optimum
it misses only units within about one per cent of the threshold.

**The KL curves.** Figure 4 plots the share of units whose average KL is below $\varepsilon$, against
$\varepsilon$. For $\varepsilon > 0$

$$ K_i < \varepsilon \iff \log \frac{\lambda_i}{\theta} < 2 \varepsilon \iff \lambda_i < \theta\, e^{2 \varepsilon} , $$

so the curve is the cumulative distribution of the first $k$ eigenvalues, read on a logarithmic scale that
starts at $\theta$. A smaller $\sigma^2$ shifts it to the right: by $\tfrac12 \log 10 = 1.15$ nats for a factor
of ten. In Figure 5,
$\beta$ goes from 0 to 1 over 100 epochs and the dashed curves are taken at epoch 80. If the rise is linear
then $\beta = 0.8$ there, and if training keeps up with the schedule, the dashed curve is the solid one
shifted to the right by $\tfrac12 \log \tfrac1{0.8} = 0.11$ nats (every active unit has that much more KL), and
nothing of the shift stays once $\beta = 1$.

**Check** on encoder outputs for the 1,797 digits:
"""

# %% tags=["hide-cell"]
thresholds = np.linspace(0.02, 2, 100)
for (s, beta), found in fits.items():
    mean, logvar = encoded(found, images)
    assert collapse.active_units(mean) == (lam[:k] > beta * s / 0.99).sum()
    measured = collapse.inactive_fraction(collapse.kl_per_unit(mean, logvar), thresholds)
    predicted = [(lam[:k] < beta * s * np.exp(2 * epsilon)).mean() for epsilon in thresholds]
    assert np.array_equal(measured, predicted)
print("active units and the whole inactive-fraction curve: as predicted, at four settings")

# %% [markdown]
r"""
And for MNIST with the paper's four $\sigma^2$ and 200 latents:
"""

# %% mystnb={"image": {"alt": "Share of inactive units against the KL threshold for four σ², solid at β = 1 and thin at β = 0.8"}} tags=["hide-input"]
fig, ax = plots.figure(height=3.8)
epsilons = np.linspace(1e-3, 4, 800)
for i, s in enumerate((0.1, 0.05, 0.01, 0.001)):
    for beta, width in ((1.0, 2.0), (0.8, 0.9)):
        share = collapse.inactive_fraction(spectrum.kl(lam_mnist[:K200], s, beta), epsilons)
        label = f"σ² = {s}" if beta == 1 else None
        ax.plot(epsilons, share, plots.LINES[i], color=plots.COLOURS[i], linewidth=width, label=label)
    print(f"σ² = {s}: no KL at all in {(spectrum.kl(lam_mnist[:K200], s) == 0).mean():.3f} of the units")
ax.set(xlabel="threshold ε on the average KL of a unit (nats)", ylabel="share of inactive units", ylim=(0, 1.02))
_ = ax.legend(title="thick: β = 1, thin: β = 0.8", loc="lower right")

# %% [markdown]
r"""
**Figure 7.2.** Share of 200 latents below each KL threshold at the paper's four noise variances: the linear
optimum on MNIST, at $\beta = 1$ and, thin, at $\beta = 0.8$.

A smaller $\sigma^2$ leaves fewer inactive units at every threshold, as in the paper's Figure 4, whose
networks are deep: at 0.1 about two thirds of the units have no KL at all, at 0.01 every one of the 200 has some.
The thin curves, to the right of the thick ones, are Figure 5's dashed ones as the linear theory has them. A
deep network at epoch 80 need not be near its optimum for $\beta = 0.8$.

## Collapse in the (ε, δ) sense

A stricter notion than the average: unit $i$ is $(\varepsilon, \delta)$-collapsed if its KL is below
$\varepsilon$ on a share of at least $1 - \delta$ of the data ([chapter 0](00_preliminaries.ipynb)). For one
sample

$$ K_i(x) = \tfrac12 \big( m_i(x)^2 + D_i - 1 - \log D_i \big) . $$

If the data are Gaussian then $m_i \sim \mathcal N(0, 1 - D_i)$, so that $m_i^2 / (1 - D_i)$ has a $\chi^2$
distribution with one degree of freedom. Let $\chi^2_{1, 1-\delta}$ be its $1 - \delta$ quantile. $K_i(x)$
increases with $m_i^2$, so its own $1 - \delta$ quantile is

$$ \varepsilon_i^* = \tfrac12 \big[ D_i - 1 - \log D_i + (1 - D_i)\, \chi^2_{1, 1-\delta} \big] , \qquad
D_i = \min(1, \theta / \lambda_i), $$

and an active unit is $(\varepsilon, \delta)$-collapsed exactly for $\varepsilon \ge \varepsilon_i^*$ (a
collapsed one has $\varepsilon_i^* = 0$ and is so for every $\varepsilon > 0$). For
$\delta = 0.01$ the quantile is 6.63. Near the threshold, with $t = 1 - D_i$ small,
$D_i - 1 - \log D_i \approx t^2/2$, so $\varepsilon_i^* \approx 3.3\, t$ while the average KL is
$-\tfrac12 \log(1 - t) \approx t / 2$: the first is about 6.6 times the second.
"""

# %%
plots.show_source(spectrum.epsilon_delta_threshold)

# %% tags=["hide-input"]
vae = best_vae(digits, k, 0.05)
alive = int(spectrum.active(lam[:k], 0.05).sum())
threshold = spectrum.epsilon_delta_threshold(lam[:alive], 0.05)
for x, name in ((gaussian_digits(50_000, seed=2), "Gaussian data"), (images, "digits")):
    samples = collapse.kl_samples(*encoded(vae, x))[:, :alive]
    off = np.quantile(samples, 0.99, axis=0) / threshold
    below, above = (collapse.epsilon_delta(samples / threshold, e) for e in (0.95, 1.05))
    print(f"{name}: 0.99 quantile of the KL over ε*, from {off.min():.2f} to {off.max():.2f}")
    assert name == "digits" or (above.all() and not below.any())

# %% [markdown]
r"""
On Gaussian data the formula holds to within the sampling error. The digits' scores are not Gaussian. Some have
lighter tails and some heavier ones, and $\varepsilon_i^*$ is off by up to a third, either way.

## What β < 1 bounds

The paper says that "for $\beta < 1$ this provides a loose lowerbound on the ELBO". The sentence is the wrong
way round. With the same $W, V, D$ and $s$,

$$ \mathcal L_\beta(s) = \text{ELBO}(s) + (1 - \beta)\, K , \qquad K \ge 0 , $$

so for $\beta < 1$ the objective is an **upper** bound on the ELBO, equal only under complete collapse; it is
for $\beta > 1$ that it is a loose lower bound. Nor does it bound the log likelihood, from either side:
$\log p - \mathcal L_\beta = D_{KL}(q \,\|\, p(z \mid x)) - (1 - \beta) K$ can have both signs. At a pPCA
optimum with an active unit the first term is zero and $K > 0$, and then every $\beta < 1$ puts the objective above
$\log p(x)$. What the objective is, is (a): an increasing function of the ELBO of *another* model, with noise
$\beta s$. (The paper is right twice nearby: the rest of the same sentence, that $\beta$ can stand for a change of
$\sigma^2$, is (a); and its Section 3 says that during annealing one no longer optimises a bound on the log
likelihood. Of the works which that section names for annealing from 0 to 1, [Higgins et al.,
2017](../book/references.md) has, by its abstract, a weight above 1 that is tuned and stays; we know of no annealing
in it, and have not read further for this.)

**One point, exactly.** Let $n = k = 1$, $S = 4$, $s = 1$, $w = \sqrt 3$, $v = w/4$, $D = \tfrac14$, the optimum.
Then $wv = \tfrac34$, $E = (1 - wv)^2 S + w^2 D = 1$ and $K = \tfrac12 (v^2 S + D - 1 - \log D) = \log 2$, while
$\log p = -\tfrac12 (\log 2\pi C + S/C)$ with $C = w^2 + s = 4$. The only numbers here that are not rational are
$\pi$ and logarithms, which FLINT encloses in intervals ("balls"); if the whole interval of
$\mathcal L_{1/2} - \log p$ lies above zero, then so does the number.
"""

# %% tags=["hide-cell"]
S_one, s, w_v, w_w, v_v, D, half = (
    *map(flint.fmpq, (4, 1)),
    *(flint.fmpq(*q) for q in ((3, 4), (3, 1), (3, 16), (1, 4), (1, 2))),
)
E_one = (1 - w_v) ** 2 * S_one + w_w * D
K_one = half * (flint.arb(v_v * S_one + D - 1) - flint.arb(D).log())
objective = -half * flint.arb(E_one / s) - half * (2 * flint.arb.pi() * flint.arb(s)).log() - half * K_one
log_p = -half * ((2 * flint.arb.pi() * flint.arb(w_w + s)).log() + flint.arb(S_one / (w_w + s)))
ledger.certify(
    "at β = 1/2 the objective exceeds log p at S = 4, σ² = 1",
    objective - log_p,
    ">",
    flint.arb(0),
    "provides a loose lowerbound",
)

# %% [markdown]
r"""
The optimum of $\mathcal L_\beta$ on the digits at $\sigma^2 = 0.05$, for a range of $\beta$:
"""

# %% tags=["hide-input"]
s = 0.05
betas = np.geomspace(0.1, 10, 41)
rows = np.array(
    [(v.elbo(digits, b), v.elbo(digits), v.log_likelihood(digits)) for b in betas for v in [best_vae(digits, k, s, b)]]
)
objective, elbo, log_p = rows.T
low, high = betas < 0.999, betas > 1.001
assert (objective[low] > log_p[low]).all() and (log_p[low] > elbo[low]).all()
collapsed = betas * s >= lam[0]
assert (objective[high & ~collapsed] < elbo[high & ~collapsed]).all()
print(f"β = {betas[10]:.2f}: objective {objective[10]:.2f}, log p {log_p[10]:.2f}, ELBO {elbo[10]:.2f}")

# %% mystnb={"image": {"alt": "Over β, the objective lies above log p for β below 1 and below the ELBO for β above 1"}} tags=["hide-input"]
fig, ax = plots.figure(height=3.6)
for line, values, name in (("-", objective, "objective with weight β"), ("--", log_p, "log p"), (":", elbo, "ELBO")):
    ax.semilogx(betas, values, line, label=name + ", same model")
ax.axvline(1, color="0.5", linewidth=0.8)
ax.set(xlabel="weight β of the KL term", ylabel="nats per image", xticks=[0.1, 1, 10], xticklabels=["0.1", "1", "10"])
_ = ax.legend()

# %% [markdown]
r"""
**Figure 7.3.** The objective, the ELBO and the log likelihood of linear models trained at each $\beta$.

To the left of $\beta = 1$ the objective stands above the log likelihood of its own model: it is no lower bound.
The ELBO of the models so trained is largest at $\beta = 1$, where it was asked for.

## Learning the noise variance

Now $s$ is free, and $\beta$ is given. Let $\varphi(s)$ be the largest value of $\mathcal L_\beta(s)$ over
$W, V, D$, as at the end of [chapter 5](05_theorem_1.ipynb#with-learned-noise-and-for-any-beta). The optimum
depends on $s$, but since the derivatives in $W$, $V$, $D$ vanish there, only the explicit $s$ counts:

$$ \varphi'(s) = \frac{\partial}{\partial s} \Big[ -\frac{E}{2s} - \frac n2 \log 2 \pi s \Big]
= \frac{n}{2 s^2} \Big[ \frac{E(s)}{n} - s \Big] , $$

with $E(s)$ the distortion at the optimum. $\varphi$ is stationary where $s = E(s) / n$: the noise variance must be
the error that is left, per dimension. Written out and divided by $s$,

$$ h(s) = \sum_{i \le k} \min\Big( \beta, \frac{\lambda_i}{s} \Big) + \frac1s \sum_{i > k} \lambda_i = n . \tag{b} $$

*There is one root.* Let $\sum_{i > k} \lambda_i > 0$. Then $h$ is continuous, strictly decreasing (its last
term is), grows beyond all bounds as $s \to 0$ and goes to 0 as $s \to \infty$. So (b) has exactly one root;
$\varphi' > 0$ below it and $\varphi' < 0$ above. The root is the maximum and there is nothing else.

*If that sum is 0*, the units leave nothing over. With $r \le k$ positive eigenvalues $h$ rises to $\beta r$ as
$s \to 0$, and stays there as soon as all are active. A root exists if $\beta r > n$; if $\beta r < n$,
$\varphi$ grows without bound as $s \to 0$; if they are equal, every small $s$ is as good as the next.

*Where it is.* With $a$ units active, (b) is linear in $1/s$ and gives
$s_a = \sum_{i > a} \lambda_i / (n - \beta a)$. Taking the smaller of two numbers for each $i \le k$ is taking
the smallest sum over all choices, and the best choice of $a$ members is the top $a$. So
$h(s) = \min_{0 \le a \le k} \big( \beta a + \tfrac1s \sum_{i > a} \lambda_i \big)$. As each of these curves
falls, the first to reach $n$ decides:

$$ s^* = \min_{0 \le a \le k,\; \beta a < n} \; \frac{\sum_{i > a} \lambda_i}{n - \beta a} . $$

*At $\beta = 1$* the fraction is the average of the eigenvalues after the first $a$. It does not grow with
$a$, so $a = k$ attains the minimum: $s^*$ is the average of the $n - k$ last eigenvalues, which is
$\sigma^2_{\text{MLE}}$ of [Eq. 7](01_ppca.ipynb#equation-7).
"""

# %%
plots.show_source(spectrum.learned_sigma2)

# %% [markdown]
r"""
**Check** against the general optimiser of above, which now has $\log s$ among its variables; against `fit` with
$\sigma^2$ learned; against a root finder on (b), and against a search for the maximum of $\varphi$:
"""


# %% tags=["hide-cell"]
def best_objective(log_s, beta):
    """The function above, phi(s), for the digits, from the ELBO terms of the optimum."""
    return best_vae(digits, k, np.exp(log_s), beta).elbo(digits, beta)


# %% tags=["hide-cell"]
for beta in (1.0, 5.0):
    _, D, s = descend(8, None, beta)
    assert np.isclose(s, spectrum.learned_sigma2(lam, 8, beta), rtol=1e-3)
    assert np.allclose(np.sort(D), spectrum.encoder_variances(lam[:8], s, beta), atol=0.02)
    print(f"β = {beta}: L-BFGS in W, V, log D and log s ends at σ² = {s:.4f}, as (b) has it")

# %% tags=["hide-input"]
for beta in (0.25, 1.0, 2.0, 5.0, 10.0):
    learned = spectrum.learned_sigma2(lam, k, beta)
    root = brentq(lambda s, b=beta: np.minimum(b, lam[:k] / s).sum() + lam[k:].sum() / s - n, 1e-4, 10)
    search = minimize_scalar(lambda t, b=beta: -best_objective(t, b), bounds=(-8, 1), options={"xatol": 1e-8})
    assert np.isclose(root, learned, rtol=1e-10) and np.isclose(np.exp(search.x), learned, rtol=1e-5)
    assert np.isclose(fit(digits, k, beta=beta, seed=5).sigma2, learned, rtol=1e-6)
    alive = spectrum.active(lam[:k], learned, beta).sum()
    print(f"β = {beta:5}: learned σ² = {learned:.5f}, θ = {beta * learned:.5f}, {alive:2d} of {k} units active")
assert np.isclose(spectrum.learned_sigma2(lam, k), ppca.fit(digits, k).sigma2, rtol=1e-12)

# %% tags=["hide-input"]
for name, values in (("digits", lam), ("MNIST", lam_mnist)):
    last = values[0] / values.mean()
    assert spectrum.active(values[:k], spectrum.learned_sigma2(values, k, 0.99 * last), 0.99 * last).any()
    assert not spectrum.active(values[:k], spectrum.learned_sigma2(values, k, 1.01 * last), 1.01 * last).any()
    first = brentq(lambda b, v=values: b * spectrum.learned_sigma2(v, k, b) - v[k - 1], 1, last)
    print(f"{name}, {k} latents: the first unit dies at β = {first:.2f}, the last at β = {last:.2f}")

# %% [markdown]
r"""
With $\beta \le 1$ all units stay, with one exception: at $\beta = 1$ the average of the eigenvalues after the
$k$-th lies below $\lambda_k$ *unless* $\lambda_k = \dots = \lambda_n$, and then unit $k$ sits at the threshold. A
smaller $\beta$ makes both $s^*$ and $\theta$ strictly smaller, so for $\beta < 1$ there is no exception. The first
is seen from $h$, which does not fall as $\beta$ grows; the second from (b) in terms of $\theta$,
$\sum_{i \le k} \min(1, \lambda_i / \theta) + \tfrac1\theta \sum_{i > k} \lambda_i = n / \beta$, whose left
side falls with $\theta$. With $\beta > 1$ a learned $\sigma^2$ does *not* protect the latents: as $\beta$ grows,
so do $s^*$ and $\theta$, and the units go one after the other. Each leaves more error than before, to which
$\sigma^2$ adapts, but nothing runs away: $s^*$ is the least of finitely many continuous functions of $\beta$, so
it is continuous itself. From $\beta = \lambda_1 / \bar\lambda$ on, with $\bar\lambda$ the mean of all eigenvalues,
nothing is left.

**Annealing cannot change the end point of the linear model.** Let $\beta$ rise from 0 to 1 while everything
is learned, $\sigma^2$ included, and let training then converge to a local maximum of the ELBO in all of
$W, V, D, s$. In $W, V, D$ alone, at its own $s$, that point is a local maximum too; then it is a global one
for that $s$, since neither pPCA nor the linear VAE has any other ([chapter 2](02_stability.ipynb),
[Theorem 1](05_theorem_1.ipynb)). Its derivative in $s$ is zero, so $s$ solves (b) with $\beta = 1$. That
equation has one root (if $\lambda_{k+1} > 0$). So whatever the schedule, and whatever the start from which
training does reach a local maximum (from $W = 0$, $V = 0$ exactly it would not: that is a saddle), *the end is
the maximum likelihood solution*, with $\sigma^2$ of Eq. 7. In Figure 6 of the paper, annealing while
$\sigma^2$ is learned ends at a much smaller $\sigma^2$ and less collapse. The linear model has no room for
such a difference, so it must come from what is not linear there. (Or from runs that have not converged:
[time](#leaving-collapse-how-fast) is what annealing does change.)
"""

# %% mystnb={"image": {"alt": "MNIST with 50 latents: learned σ² and θ rise with β; surviving units fall from 50 to none"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.6, height=3.4)
betas = np.geomspace(0.1, 100, 300)
learned = np.array([spectrum.learned_sigma2(lam_mnist, 50, beta) for beta in betas])
alive = [spectrum.active(lam_mnist[:50], s, beta).sum() for s, beta in zip(learned, betas, strict=True)]
left.loglog(betas, learned, "-", label="learned σ²")
left.loglog(betas, betas * learned, "--", label="threshold θ = βσ²")
left.axhline(lam_mnist[0], color="0.4", linestyle=":", label="largest eigenvalue")
left.plot(1, ppca.fit(mnist, 50).sigma2, "ko", label="Eq. 7")
right.semilogx(betas, alive, "-")
left.set(xlabel="weight β of the KL term", ylabel="variance (pixel units squared)")
left.legend(fontsize=9)
_ = right.set(xlabel="weight β of the KL term", ylabel="surviving units of 50")

# %% [markdown]
r"""
**Figure 7.4.** The linear optimum with $\sigma^2$ learned, on MNIST with 50 latents: $\sigma^2$,
$\theta = \beta \sigma^2$ and the units in use against $\beta$.

MNIST with 50 latents. Up to the $\beta$ printed here the learned $\sigma^2$ lets all of them live; from there on
they go one after the other, and at $\lambda_1 / \bar\lambda$ the last one dies:
"""

# %% tags=["hide-input"]
whole = betas[np.flatnonzero(np.array(alive) == 50)[-1]]
print(f"all 50 live up to β = {whole:.0f}; the last dies at β = {lam_mnist[0] / lam_mnist.mean():.0f}")

# %% [markdown]
r"""
## Tuning σ² afterwards: Table 1

For its Table 1 the paper trains at a fixed $\sigma^2$, then tunes $\sigma^2$ with everything else held, and
evaluates the ELBO again. With $W, V, D$ fixed, $E$ and $K$ are numbers, and
$-\tfrac{E}{2s} - \tfrac n2 \log 2 \pi s - K$ is largest at $\tilde s = E / n$. At the linear optimum for $s$,
with $\mathcal A$ the set of active units,

$$ \tilde s = \frac1n \Big( |\mathcal A|\, s + \sum_{i \notin \mathcal A} \lambda_i \Big) , \qquad
\text{tuned ELBO} = -\frac n2 \big( \log 2 \pi \tilde s + 1 \big) - \tfrac12 \sum_{i \in \mathcal A} \log \frac{\lambda_i}{s} . $$

**Check** on the digits, by a search over $\sigma^2$ with the fitted VAE's other parameters held:
"""

# %% tags=["hide-cell"]
for s in (0.3, 0.05, 0.005):
    found = fit(digits, k, s, seed=6)
    search = minimize_scalar(
        lambda t, v=found: -replace(v, sigma2=np.exp(t)).elbo(digits), bounds=(-8, 1), options={"xatol": 1e-9}
    )
    tuned = spectrum.tuned_sigma2(lam, k, s)
    assert np.isclose(np.exp(search.x), tuned, rtol=1e-6)
    assert np.isclose(-search.fun, spectrum.elbo(lam, k, s, noise=tuned), rtol=1e-8)
print("tuned σ² and tuned ELBO: as a search finds them")

# %% [markdown]
r"""
And the linear analogue of Table 1 on MNIST: 200 latents, the paper's four $\sigma^2$, and one row for the
learned one. The paper's own numbers stand beside it; they are of a deep network, so it is the pattern that
can be compared.
"""

# %% tags=["hide-input"]
paper = {0.1: (130.3, 1302.9), 0.05: (378.7, 1376.0), 0.01: (893.6, 1435.1), 0.001: (1379.0, 1485.9)}
print("      σ²  survivors      KL    ELBO   tuned σ²  tuned ELBO |  paper: ELBO   tuned")
for s in (0.1, 0.05, 0.01, spectrum.learned_sigma2(lam_mnist, K200), 0.001):
    alive, tuned = spectrum.active(lam_mnist[:K200], s).sum(), spectrum.tuned_sigma2(lam_mnist, K200, s)
    values = spectrum.elbo(lam_mnist, K200, s), spectrum.elbo(lam_mnist, K200, s, noise=tuned)
    theirs = "{:>13.1f} {:>7.1f}".format(*paper[s]) if s in paper else "            (learned)"
    rate = spectrum.kl(lam_mnist[:K200], s).sum()
    print(f"{s:8.5f} {alive:10d} {rate:7.1f} {values[0]:7.1f} {tuned:10.5f} {values[1]:11.1f} | {theirs}")
short = ppca.fit(mnist, K200).log_likelihood(mnist) - values[1]
print(f"the last row, tuned, is {short:.0f} nats short of the maximum")

# %% [markdown]
r"""
The pattern of the paper is there: down to 0.01 the ELBO rises steeply, tuning recovers much of it, and the
order remains. The paper concludes that the representations differ and not only the scale; in the linear model
that can be read off, as 69, 102 and 200 latents survive. The linear model also has an end to this, which the
paper's four rows do not reach: below the learned value a smaller $\sigma^2$ makes matters worse again. At
0.001 the ELBO is below that at 0.01. Tuned it is above (so the tuned column keeps the paper's order in all four
rows), but short of the maximum: 200 units are told to a precision that the error left by the other 584 directions
does not warrant.

**The paper's rows against one another, exactly.** [Chapter 9](09_fixed_variance.ipynb#table-1-against-itself) asks
what a row of Table 1 says about its network, if the two columns are one network's ELBO before and after $\sigma^2$ is
tuned. Here is the arithmetic with no rounding of ours. Tuning gains
$\tfrac n2 (x - 1 - \log x)$ nats, with $x = E / (n s)$. Call the gain $\tfrac n2 c$; then
$-x\, e^{-x} = -e^{-1-c}$, so $-x$ is Lambert's $W$ of $-e^{-1-c}$, which has two real branches: $x < 1$ on one
and $x > 1$ on the other. A printed 130.3 stands for any number within 0.05 of it, and a ball of that radius holds
them all. If the ball of $K$ lies below zero on the branch $x > 1$, that branch is out, as no KL is negative. On
the other branch each network has one $E$ and one $K$, and so its ELBO at the noise variance of every other row.
"""

# %% tags=["hide-cell"]
ball = flint.arb
noises = [flint.fmpq(1, 10), flint.fmpq(1, 20), flint.fmpq(1, 100), flint.fmpq(1, 1000)]
printed = [[ball(str(value), "0.05") for value in row] for row in paper.values()]


def error_and_kl(row, branch):
    """E and K of the network in a row of Table 1, as balls, on a branch of Lambert's W."""
    s, (at_s, tuned) = ball(noises[row]), printed[row]
    E = -784 * s * (-(-1 - 2 * (tuned - at_s) / 784).exp()).lambertw(branch=branch)
    return E, -at_s - E / (2 * s) - 392 * (2 * ball.pi() * s).log()


def ahead(row, other):
    """By how much the network of row `other` beats that of `row` at the noise of the latter."""
    s, (E, K) = ball(noises[row]), error_and_kl(other, 0)
    return -E / (2 * s) - 392 * (2 * ball.pi() * s).log() - K - printed[row][0]


# %% tags=["hide-cell"]
negative = [error_and_kl(row, -1)[1] for row in range(4)]
ledger.certify("on the branch with E > nσ² every row of Table 1 has a negative KL", negative, "<", [ball(0)] * 4)
claim = "three of Table 1's four networks are beaten at their own σ² by another of the four"
ledger.certify(
    claim, [ahead(1, 0), ahead(2, 0), ahead(3, 2)], ">", [ball(0)] * 3, "the two columns as the ELBO of four networks"
)

# %% [markdown]
r"""
## Leaving collapse: how fast

Complete collapse, $W = 0$, $V = 0$, $D = I$, is a stationary point for every $s$ and $\beta$. Where does
gradient ascent go from nearby, and how fast? With $\mu$ at the mean, the gradients of $\mathcal L_\beta$ are
([Eqs. 20](04_elbo.ipynb#equation-20) [to 22](04_elbo.ipynb#equation-22), with $\beta$ on the terms from the
KL)

$$ \dot W = \tfrac1s \big( S V^\top - W V S V^\top - W D \big), \quad
\dot V = \tfrac1s \big( W^\top - W^\top W V \big) S - \beta V S, \quad
\dot D = \tfrac12 \big( \beta (D^{-1} - I) - \tfrac1s \operatorname{diag}(W^\top W) \big) , $$

where the dot is the derivative by the time of the gradient flow: learning rate times steps, for the average
per sample. Put $D = I + \Delta$ and keep what is of first order in $W$, $V$ and $\Delta$:

$$ \dot W = \tfrac1s \big( S V^\top - W \big), \qquad \dot V^\top = \tfrac1s S W - \beta S V^\top, \qquad
\dot \Delta = -\tfrac\beta2 \Delta . $$

The variances go their own way. Of $W$ and $V^\top$ (both $n \times k$) take the coordinates along $u_i$ in
any column, $a = u_i^\top w$ and $b = u_i^\top v$. As $S u_i = \lambda_i u_i$, each pair moves by itself:

$$ \begin{pmatrix} \dot a \\ \dot b \end{pmatrix} = \begin{pmatrix} -1/s & \lambda_i / s \\
\lambda_i / s & -\beta \lambda_i \end{pmatrix} \begin{pmatrix} a \\ b \end{pmatrix} . $$

The matrix is symmetric, with trace $-(\tfrac1s + \beta \lambda_i) < 0$ and determinant
$\tfrac{\lambda_i}{s} (\beta - \tfrac{\lambda_i}{s})$. Its larger eigenvalue is

$$ \gamma_i = \tfrac12 \Big[ -\Big( \frac1s + \beta \lambda_i \Big) + \sqrt{ \Big( \frac1s - \beta \lambda_i \Big)^2
+ \frac{4 \lambda_i^2}{s^2} } \Big] , $$

from $\tfrac12 (\text{tr} + \sqrt{\text{tr}^2 - 4 \det})$. As the trace is negative, $\gamma_i > 0$ if and
only if the determinant is negative: **exactly when $\lambda_i > \beta s = \theta$**, the condition for being
active at the optimum. Along a direction that ought to be used, any unit is driven away from collapse at an
exponential rate; along one with $0 < \lambda_i < \theta$ it is drawn back. While $\beta = 0$ every direction with $\lambda_i > 0$ grows.

**With an encoder that is always optimal**, as if it were trained to convergence after every step of the
decoder, $V = (W^\top W + \theta I)^{-1} W^\top = W^\top / \theta$ to first order, and

$$ \dot a = \frac1s \Big( \frac{\lambda_i}{\theta} - 1 \Big) a = \frac{\lambda_i - \beta s}{\beta s^2}\, a . $$

The rate is larger in size, and changes sign at the same place. So it does for an encoder that learns at
$\eta > 0$ times the decoder's rate: its row of the matrix is multiplied by $\eta$, hence the determinant too, and
the trace stays negative (the eigenvalues stay real, since the two entries off the diagonal have one sign). [He et al., 2019](../book/references.md) trace
collapse to an encoder that lags behind. In the linear model a lagging encoder slows the escape; it does not
move the threshold, and it turns no direction that repels into one that attracts.
"""

# %%
plots.show_source(spectrum.escape_rate)

# %% [markdown]
r"""
**Check**: the full non-linear gradient flow, from a random start of size $10^{-9}$ in generic coordinates,
integrated numerically. The part of $(a, b)$ along the growing eigenvector should change by the factor
$e^{\gamma_i t}$, in all five directions.
"""

# %% tags=["hide-cell"]
basis, _ = np.linalg.qr(rng.standard_normal((5, 5)))
true = np.array([4.0, 2.0, 1.0, 0.5, 0.2])
toy = Moments(np.zeros(5), (basis * true) @ basis.T, 100)
U, start = toy.eigenvectors, 1e-9 * rng.standard_normal((2, 5, 3))
s, span = 0.7, 2.5
tight = {"rtol": 1e-7, "atol": 1e-17}


# %% tags=["hide-cell"]
def joint_flow(t, y, beta, lag=1.0):
    """The gradient in W, V and D of the beta-ELBO as one vector, with V and D learning at `lag` times W's rate."""
    W, Vt, D = y[:15].reshape(5, 3), y[15:30].reshape(5, 3), y[30:]
    gradients = LinearVAE(W, Vt.T, D, toy.mean, s).gradients(toy, beta)
    return np.concatenate([gradients.W.ravel(), lag * gradients.V.T.ravel(), lag * gradients.D])


# %% tags=["hide-cell"]
def measured_rates(beta, lag=1.0):
    """Rates of the flow along the left eigenvectors of the growing solutions, and the eigenvalues themselves."""
    end = solve_ivp(joint_flow, (0, span), np.r_[start.ravel(), np.ones(3)], args=(beta, lag), **tight).y[:30, -1]
    measured, stated = [], []
    for i, value in enumerate(true):
        rates, axes = np.linalg.eig(np.array([[-1 / s, value / s], [lag * value / s, -lag * beta * value]]).T)
        axis, grown = axes[:, rates.argmax()], end.reshape(2, 5, 3)
        before, after = (axis @ np.einsum("n,cnk->ck", U[:, i], w) for w in (start, grown))
        measured.append(np.log(np.linalg.norm(after) / np.linalg.norm(before)) / span)
        stated.append(rates.max())
    return np.array(measured), np.array(stated)


# %% tags=["hide-input"]
for beta in (0.0, 0.5, 1.0):
    measured, _ = measured_rates(beta)
    assert np.allclose(measured, spectrum.escape_rate(true, s, beta), atol=1e-4)
    print(f"β = {beta}, θ = {beta * s:.2f}: rates {np.round(measured, 3)} for λ = {true}")
measured, stated = measured_rates(1.0, lag=0.1)
assert np.allclose(measured, stated, atol=1e-4) and ((measured > 0) == (true > s)).all()
print(f"encoder at a tenth of the decoder's rate, θ = {s}: rates {np.round(measured, 3)}")

# %% [markdown]
r"""
And the decoder alone with its best encoder, by the gradient of [chapter 5](05_theorem_1.ipynb)'s profile
ELBO:
"""


# %% tags=["hide-input"]
def profile_flow(t, y, beta):
    return profile_gradient(y.reshape(5, 3), toy, s, beta).ravel()


for beta in (0.5, 1.0):
    end = solve_ivp(profile_flow, (0, 0.7), start[0].ravel(), args=(beta,), **tight).y[:, -1].reshape(5, 3)
    measured = np.log(np.linalg.norm(U.T @ end, axis=1) / np.linalg.norm(U.T @ start[0], axis=1)) / 0.7
    assert np.allclose(measured, (true - beta * s) / (beta * s**2), atol=1e-4)
    print(f"β = {beta}, θ = {beta * s:.2f}: rates {np.round(measured, 3)} for λ = {true}")

# %% mystnb={"image": {"alt": "Time to grow e-fold against eigenvalue; both curves rise without bound at the threshold"}} tags=["hide-input"]
fig, ax = plots.figure(height=3.5)
noise = 0.1
axis = noise * (1 + np.geomspace(1e-3, 50, 300))
ax.loglog(axis, 1 / spectrum.escape_rate(axis[::-1], noise)[::-1], "-", label="encoder learned alongside")
ax.loglog(axis, noise**2 / (axis - noise), "--", label="encoder always optimal")
ax.axvline(noise, color="0.4", linestyle=":", label="threshold θ = 0.1")
ax.set(xlabel="eigenvalue λ (σ² = 0.1, β = 1)", ylabel="time to grow e-fold (rate × steps)")
_ = ax.legend()

# %% [markdown]
r"""
**Figure 7.5.** The time in which a small unit grows $e$-fold under gradient flow, against its eigenvalue.

Both times grow without bound at the threshold, like $1 / (\lambda - \theta)$. Near it gradient flow, and plain
gradient ascent with short steps, need a long time to make use of a unit or to let go of one.

**Not with Adam.** The deep chapters train with Adam, which divides each step by a running mean of the gradient's own
size. A small gradient gives no small step, so this law is *not* one of their training, and we know of no closed form
that is. Let us measure. One unit, $n = 1$, $\theta = \sigma^2 = 0.1$, from $w = v = 10^{-3}$ and $D = 1$; how many
steps does it take until $|w|$ is half of what is best? First the gradient flow at a learning rate of 0.01 (a time
$t$ is $t / 0.01$ steps), then Adam at 0.001 with the exact gradient, then with one draw of $z$ for each of 128 draws
of $x$, as in training; there the median over five seeds.
"""

# %% tags=["hide-input"]
excess, noise = np.array([1.0, 0.1, 0.01, 0.001]), 0.1
values = noise * (1 + excess)


def unit_gradient(w, v, log_D, y, xi):
    """Gradient in w, v and log D of one unit's ELBO, averaged over draws y of x and xi of the encoder (first axis)."""
    scaled = np.exp(log_D / 2) * xi
    z = v * y + scaled
    pull = (y - w * z) / noise
    parts = pull * z, w * pull * y - v * y**2, (w * pull * scaled + 1 - np.exp(log_D)) / 2
    return np.array([part.mean(axis=0) for part in parts])


def exact(value):
    """Four draws whose second moments are those of the distribution; the ELBO needs no others."""
    return np.array([1, 1, -1, -1])[:, None] * np.sqrt(value), np.array([1, -1, 1, -1])[:, None] * np.ones(value.shape)


# %% tags=["hide-input"]
def adam(value, draw, steps=2500, rate=1e-3):
    """The path (steps, 3, ...) of w, v and log D under Adam, for eigenvalues of any shape."""
    p = np.array([np.full(value.shape, start) for start in (1e-3, 1e-3, 0)])
    first, second, path = 0, 0, []
    for step in range(1, steps + 1):
        slope = unit_gradient(*p, *draw(value))
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        p = p + rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        path.append(p)
    return np.array(path)


def half_way(w, value):
    """The first step at which |w| (steps, ...) is half of the best, infinite if there is none."""
    there = np.abs(w) >= np.sqrt(value - noise) / 2
    return np.where(there.any(axis=0), 1 + there.argmax(axis=0), np.inf)


# %% tags=["hide-input"]
def minibatch(value, size=128):
    return np.sqrt(value) * rng.standard_normal((size, *value.shape)), rng.standard_normal((size, *value.shape))


def unit_flow(t, p):
    return unit_gradient(*p.reshape(3, 4), *exact(values)).ravel()


when = np.geomspace(1, 1e5, 4000)
w_flow = solve_ivp(unit_flow, (0, 1e5), np.repeat([1e-3, 1e-3, 0], 4), t_eval=when, method="LSODA", rtol=1e-8).y[:4]
by_flow = when[half_way(w_flow.T, values).astype(int) - 1] / 0.01
by_adam = half_way(adam(values, exact)[:, 0], values)
noisy = adam(np.tile(np.append(values, noise / 2), (5, 1)), minibatch)
by_noisy = np.median(half_way(noisy[:, 0, :, :4], values), axis=0)

# %% tags=["hide-input"]
print("λ/θ - 1   gradient flow   Adam, exact   Adam, batches of 128   best KL of the unit")
for row in zip(excess, by_flow, by_adam, by_noisy, np.log1p(excess) / 2, strict=True):
    print("{:7.3f} {:15.1e} {:13.0f} {:22.0f} {:21.4f}".format(row[0], row[1], *np.round(row[2:4], -1), row[4]))
assert by_flow[2] > 100 * by_flow[0] and by_adam.max() < 5 * by_adam.min() + 500
w, v, log_D = noisy[-500:, :, :, 4].transpose(1, 0, 2)
floor = ((noise / 2 * v**2 + np.expm1(log_D) - log_D) / 2).mean()
assert floor < 1e-3
print(f"λ = θ/2, to be collapsed: mean KL over the last 500 steps {floor:.0e} nats")

# %% [markdown]
r"""
Over the four eigenvalues the time of gradient flow grows a thousandfold. Adam with the exact gradient needs some
hundreds of steps for three of them and less than two thousand for the last: no law, but no wall at the threshold
either. With batches the small gradients drown in noise: a unit near the threshold is pushed to and fro across "half
way", and a unit that ought to be collapsed keeps a small KL that is noise. And close to the threshold the best KL
is small itself. So in a run with Adam the count of active units near the threshold depends on where one draws the
line, on noise, and on the length of the run; a *slow escape* explains it only where a run with small plain
gradient steps is meant.

## Annealing: what it changes on the way

Let $\beta(t)$ rise from 0 to 1 at a fixed $s$. By the rates above, unit $i$ can grow as long as
$\beta(t) < \lambda_i / s$, so at the beginning all can. If the rise is slow, each unit follows the optimum
for the present $\beta$, with $\|w_i\|^2 = (\lambda_i - \beta(t)\, s)_+$, and **unit $i$ collapses again when
$\beta(t) = \lambda_i / s$**. If $\lambda_i > s$ that never happens; if $\lambda_i < s$ it does before the
schedule ends. This is "temporary relief", in the paper's words (its Figure 5). To see the flow itself, start
with each column of $W$ and row of $V$ along its own eigenvector: by symmetry they stay there, and three equations per unit are left.
As deep encoders do, we let $\log D$ move (and $\log s$, where $s$ is learned) instead of $D$.
"""

# %% tags=["hide-input"]
unit_lam, rest = np.array([4.0, 2.0, 1.0, 0.5]), np.array([0.2, 0.15, 0.1, 0.05])
T = 2000.0


def flow(t, y, schedule, learn):
    """Gradient flow of w, v and log D of four units (four each), and of log s."""
    w, v, D, s = y[:4], y[4:8], np.exp(y[8:12]), np.exp(y[12])
    beta, miss = schedule(t), 1 - w * v
    error = (unit_lam * miss**2 + w**2 * D).sum() + rest.sum()
    dw, dv = (unit_lam * v * miss - w * D) / s, unit_lam * w * miss / s - beta * unit_lam * v
    return np.r_[dw, dv, (beta * (1 - D) - w**2 * D / s) / 2, learn * (error / s - 8) / 2]


# %% [markdown]
r"""
These lines once against the package's gradients, in a random state:
"""

# %% tags=["hide-input"]
state = np.r_[rng.standard_normal(8), rng.uniform(-2, 0, 4), -0.4]
W, V, D, s = np.zeros((8, 4)), np.zeros((4, 8)), np.exp(state[8:12]), np.exp(state[12])
W[range(4), range(4)], V[range(4), range(4)] = state[:4], state[4:8]
line = Moments(np.zeros(8), np.diag(np.r_[unit_lam, rest]), 100)
gradients = LinearVAE(W, V, D, line.mean, s).gradients(line, 0.3)
expected = np.r_[np.diag(gradients.W), np.diag(gradients.V), D * gradients.D, s * gradients.sigma2]
assert np.allclose(flow(0, state, lambda t: 0.3, True), expected, rtol=1e-10)
print("the thirteen equations are those of the linear VAE")


# %% tags=["hide-input"]
def train(schedule, sigma2, learn):
    """Integrate to 3 T from small weights; times, and the states (13, times)."""
    start = np.r_[np.full(8, 0.01), np.zeros(4), np.log(sigma2)]
    when = np.linspace(0, 3 * T, 601)
    options = {"method": "LSODA", "rtol": 1e-6, "atol": 1e-10}
    return when, solve_ivp(flow, (0, 3 * T), start, t_eval=when, args=(schedule, learn), **options).y


def annealed(t):
    return min(1.0, t / T)


# %% tags=["hide-input"]
s = 0.7
when, path = train(annealed, s, learn=False)
beta = np.minimum(1, when / T)
slow = np.maximum(unit_lam[:, None] - beta * s, 0)
for at in (0.3, 0.6, 1.0):
    i = np.searchsorted(when, at * T)
    print(f"β = {at}: |w_i|² {np.round(path[:4, i] ** 2, 2)}, optimum for this β {np.round(slow[:, i], 2)}")
final = path[:4, -1] ** 2
assert np.allclose(final, np.maximum(unit_lam - s, 0), atol=1e-6)
print("at the end:", np.round(final, 3) + 0.0)

# %% [markdown]
r"""
Unit 4, with $\lambda = 0.5 < s$, has come to life, lived until $\beta = 0.5 / 0.7 = 0.71$, and is gone at the
end. With $\sigma^2$ learned as well, from $\sigma^2 = 3$, with annealing and without:
"""

# %% tags=["hide-input"]
runs = {"annealed": train(annealed, 3.0, True), "β = 1 all along": train(lambda t: 1.0, 3.0, True)}
best = spectrum.learned_sigma2(np.r_[unit_lam, rest], 4)
for name, (_, states) in runs.items():
    assert np.allclose(np.exp(states[12, -1]), best, rtol=1e-5)
    assert np.allclose(states[:4, -1] ** 2, unit_lam - best, rtol=1e-5)
    print(f"{name}: learned σ² = {np.exp(states[12, -1]):.5f}, Eq. 7: {best:.5f}; all four units active")

# %% [markdown]
r"""
That was one start, with every column on its own eigenvector. Three random ones, in the five generic directions of
the section before, with two units, $\sigma^2$ learned and $\beta$ annealed:
"""


# %% tags=["hide-input"]
def annealed_flow(t, y):
    """Gradient flow of W, V, log D and log s with two units, while beta rises to 1 in the time 100."""
    D, s = np.exp(y[20:22]), np.exp(y[22])
    model = LinearVAE(y[:10].reshape(5, 2), y[10:20].reshape(2, 5), D, toy.mean, s)
    slopes = model.gradients(toy, min(1.0, t / 100))
    return np.r_[slopes.W.ravel(), slopes.V.ravel(), D * slopes.D, s * slopes.sigma2]


# %% tags=["hide-input"]
ends, lowest = [], np.inf
for seed in range(3):
    draw = np.random.default_rng(seed)
    begin = np.r_[draw.standard_normal(20) / 2, draw.uniform(-2, 0, 2), draw.uniform(-2, 1)]
    y = solve_ivp(annealed_flow, (0, 250), begin, method="LSODA", rtol=1e-4, atol=1e-7).y
    ends, lowest = [*ends, y[20:, -1]], min(lowest, np.exp(y[22].min()))
best_s = spectrum.learned_sigma2(true, 2)
for end in np.exp(ends):
    assert np.isclose(end[2], best_s, rtol=1e-5)
    assert np.allclose(np.sort(end[:2]), spectrum.encoder_variances(true[:2], best_s), rtol=1e-5)
print(f"three starts, one end: σ² = {best_s:.4f}, as Eq. 7 has it; on the way σ² was as low as {lowest:.2f}")

# %% tags=["hide-input"]
D = np.exp(path[8:12])
kl = (unit_lam[:, None] * path[4:8] ** 2 + D - 1 - np.log(D)) / 2

# %% mystnb={"image": {"alt": "KL of four units while β rises, the fourth returning to zero; learned σ² by two schedules ending together"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.8, height=3.6)
for i in range(4):
    left.plot(when, kl[i], plots.LINES[i], color=plots.COLOURS[i], label=f"λ = {unit_lam[i]}")
left.axvline(T * 0.5 / s, color="0.3", linewidth=0.8)
left.annotate("β = 0.5/σ²", (T * 0.5 / s, 2.2), (-5, 0), textcoords="offset points", fontsize=9, ha="right")
left.axvline(T, color="0.3", linewidth=0.8)
left.annotate("β = 1", (T, 1.8), (5, 0), textcoords="offset points", fontsize=9)
left.set(xlabel="time", ylabel="KL of the unit (nats)", xlim=(0, 2 * T), ylim=(0, 3), title="σ² = 0.7 fixed")
left.legend(fontsize=9)
for (name, (times, states)), style in zip(runs.items(), ("-", "--"), strict=True):
    right.plot(times, np.exp(states[12]), style, label=name)
right.axhline(best, color="0.4", linestyle=":", label="Eq. 7")
right.set(xlabel="time", ylabel="σ²", xlim=(0, 2 * T), ylim=(0, 0.4), title="σ² learned")
_ = right.legend(fontsize=9)

# %% [markdown]
r"""
**Figure 7.6.** Annealing $\beta$ in the linear model: the KL of four units on the way at a fixed $\sigma^2$, and
a learned $\sigma^2$ by two schedules.

On the left the fourth unit's KL rises while $\beta$ is small and returns to zero near $\beta = 0.71$ (a
little later: near the threshold everything is slow). On the right the two schedules take different ways to
the same $\sigma^2$. Annealing goes below it first, to $E/n$ with next to no KL term, as (b) says for small
$\beta$.

## Which σ² did your loss mean?

Many implementations have no $\sigma^2$ in sight. They minimise $a \cdot \text{SSE} + b \cdot \text{KL}$ with
SSE the squared error of one sample, summed over its $n$ numbers, and KL summed over the latents. Compare with
$\text{SSE} / 2s + \beta\, \text{KL}$: the ratio of the two weights is $b / a = 2 \beta s$. So

$$ \theta = \beta \sigma^2 = \frac{b}{2a} , $$

which is the $\sigma^2$ of the ELBO that is being maximised, by (a). The survivors below are those of a linear
VAE with 200 latents on MNIST with pixels in $[0, 1]$, where $n = 784$ and $\lambda_1 = 5.12$.
"""

# %% tags=["hide-input"]
losses = [
    ("½ SSE + KL", 0.5, 1.0),
    ("SSE + KL", 1.0, 1.0),
    ("½ SSE + 4 KL  (a β-VAE)", 0.5, 4.0),
    ("mean squared error + KL", 1 / 784, 1.0),
    ("mean squared error + KL/200 (mean over latents)", 1 / 784, 1 / 200),
    ("mean squared error + 0.00025 KL", 1 / 784, 2.5e-4),
]


# %% tags=["hide-input"]
def implied_theta(a, b):
    """The noise variance of the ELBO that a SSE + b KL stands for."""
    return b / (2 * a)


print("loss                                              implied σ²  survivors of 200       KL  bound on any KL")
for name, a, b in losses:
    theta = implied_theta(a, b)
    alive, rate = spectrum.active(lam_mnist[:K200], theta).sum(), spectrum.kl(lam_mnist[:K200], theta).sum()
    assert rate < lam_mnist.sum() / (2 * theta)
    print(f"{name:48s} {theta:11.4g} {alive:10d} {rate:16.2f} {lam_mnist.sum() / (2 * theta):16.2f}")

# %% tags=["hide-input"]
colour = 1 / (64 * 64 * 3)
for w in (1, 2.5e-4):
    print(f"64 × 64 pixels in colour, mean squared error + {w} KL: σ² = {implied_theta(colour, w):.3f}")

# %% [markdown]
r"""
Half the squared error plus the KL is $\sigma^2 = 1$. A squared error averaged over $n$ pixels, plus $w$ times
the KL, is $\sigma^2 = n w / 2$: 392 for MNIST at $w = 1$, and for colour images of 64 × 64 pixels,
$n = 12{,}288$, it is 6,144. No eigenvalue of MNIST is anywhere near. There collapse is not a failure of the
optimiser; it is the answer to the question. And not only for the linear model: *any* VAE can ignore $z$ and
put out the mean, which has $K = 0$ and $E = \operatorname{tr} S$. Its best solution is no worse than that, so
by (a) $K \le (\operatorname{tr} S - E) / 2 \theta < \operatorname{tr} S / 2 \theta$, which for MNIST and
$\theta = 392$ is 0.07 nats per image, over all latents together. With $w = 2.5 \cdot 10^{-4}$ the same
average means 0.098 on MNIST and 1.536 on the colour images: a weight tuned for one size of image is another
model for the next.

**Check**: take a loss as people write it, give it to an optimiser with automatic derivatives, and look at the
variances of the encoder. With the mean squared error over the digits' 64 pixels, $w = 0.01$ and six units:
"""

# %% tags=["hide-input"]
weights = 1 / n, 0.01
theta = implied_theta(*weights)
_, D, _ = descend(6, *weights)
assert np.allclose(np.sort(D), spectrum.encoder_variances(lam[:6], theta), atol=5e-3)
print(
    f"θ = b/2a = {theta:.2f}; encoder variances:",
    np.sort(D).round(2),
    "| min(1, θ/λ):",
    np.minimum(1, theta / lam[:6]).round(2),
)

# %% [markdown]
r"""
## A sample is not the population

All of this is about the covariance $S$ of *the data at hand*, and it is on these that a model is trained. If they are a
sample of $N$ from a population, the eigenvalues of $S$ are not those of the population: they spread. Take pure
noise, $x \sim \mathcal N(0, \sigma_0^2 I)$, which has nothing to tell, and $\theta = \sigma_0^2$, the right
noise variance. Nearly half of the sample's eigenvalues lie above $\theta$, and a linear VAE trained to the optimum
would use all these directions. How far up they reach is known for large $n$ and $N$ (the law of Marchenko and
Pastur): the edge is at $\sigma_0^2 (1 + \sqrt{n/N})^2$. A direction of the population shows beyond doubt only if its eigenvalue *in the sample*
lies above that edge. On fresh data a unit that stands on noise loses: along a direction $\hat u$ chosen before
they were drawn they have the variance $\theta$, and against a collapsed unit $\log p$ changes by
$-\tfrac12 \big( \log \tfrac{\hat\lambda}{\theta} - 1 + \tfrac{\theta}{\hat\lambda} \big) < 0$ on average.
"""

# %% tags=["hide-input"]
for size, count in ((64, 1797), (100, 1000)):
    sample = Moments.from_samples(np.random.default_rng(0).standard_normal((count, size)))
    above, edge = spectrum.active(sample.eigenvalues, 1.0), (1 + np.sqrt(size / count)) ** 2
    used = sample.eigenvalues[above]
    change = -(np.log(used) - 1 + 1 / used).sum() / 2
    white = Moments(np.zeros(size), np.eye(size), count)  # fresh data, without end
    decoders = np.zeros((size, 1)), ppca.fit(sample, size, 1.0).W
    on_fresh = np.diff([ppca.PPCA(W, white.mean, 1.0).log_likelihood(white) for W in decoders])[0]
    assert 0.4 < above.mean() < 0.5 and abs(used[0] - edge) < 0.1 and np.isclose(on_fresh, change, atol=1e-9)
    print(
        f"n = {size}, N = {count}: {above.mean():.0%} of pure noise above θ, the largest {used[0]:.2f}, edge {edge:.2f};"
    )
    print(f"  on fresh data these {above.sum()} units change log p by {on_fresh:.2f} nats")

# %% [markdown]
r"""
What carries over to deep networks? Shown above for every Gaussian VAE with one $\sigma^2$, whatever its networks:
the identity (a), that an objective with $\beta < 1$ lies above the ELBO, $\tilde s = E/n$,
$K < \operatorname{tr} S / 2\theta$ at the optimum, and the rule $\theta = b / 2a$. The survivors, KLs and rates are
shown for the linear model only, for which $S$ says it all. A deep network may keep more units than the linear
count or fewer, and nothing here bounds it on either side. The chapters on deep VAEs measure how far the linear
numbers reach, and a later chapter takes up what can be proved for all of them.

## What we showed

- $\mathcal L_\beta(s) + c(s) = \beta\, [\text{ELBO}(\beta s) + c(\beta s)]$: at a fixed $\sigma^2$, $\beta$
  is a change of $\sigma^2$, for every Gaussian VAE.
- The optimum of the linear β-VAE; unit $i$ is active if and only if $\lambda_i > \theta = \beta \sigma^2$.
  Its KL is $\tfrac12 \log (\lambda_i / \theta)$, its mean and variance satisfy $\mathbb E\, m_i^2 + D_i = 1$,
  and it leaves the error $\theta$ behind.
- Distortion and KL lie on the Gaussian rate–distortion curve, of slope $-1 / (2\theta)$.
- In the linear model active units, the curves of Figures 4 and 5 and, for Gaussian data,
  $(\varepsilon, \delta)$-collapse are readings of the spectrum.
- "$\beta < 1$ gives a loose lower bound" is the wrong way round: it is an upper bound on the ELBO and none on
  $\log p$.
- If $\lambda_{k+1} > 0$, a learned $\sigma^2$ is the one root of (b), at any $\beta$; Eq. 7 at $\beta = 1$. Annealing cannot change
  the end point of the linear model. A $\beta$ above 1 can bring back collapse even with $\sigma^2$ learned.
- Gradient flow leaves collapse along $u_i$ if and only if $\lambda_i > \theta$, with the rates above; an
  optimal or a lagging encoder changes the speed and not the threshold. Training with Adam does not follow these rates.
- A loss $a\,\text{SSE} + b\,\text{KL}$ has $\sigma^2 = b / 2a$.
- In a sample, nearly half of the directions of pure noise lie above the right threshold.

## Exercises

**Exercise 7.1. An encoder that may not reach the prior.** δ-VAEs ([Razavi et al., 2019](../book/references.md)) keep $q$
away from the prior by construction. Suppose that the encoder's variances are bounded, $D_i \le D_u < 1$, and
let unit $i$ keep to $u_i$ (units that sit at the bound may be rotated into each other at no cost). Show that
$w_i \ne 0$ at the optimum if and only if $\lambda_i > \theta D_u$. Check it numerically.
"""

# %% tags=["hide-cell"]
# One unit along u_i, with β = 1, s = θ. If λ ≥ θ/D_u the bound is not felt, and λ > θ. Otherwise D = D_u. The slopes by w
# and by v vanish when λ v (1 - wv) = w D_u and w (1 - wv) = θ v. For v ≠ 0 the product of the first by w and the second
# by λ v gives w² D_u = θ λ v²; then 1 - wv = θ v / w = √(θ D_u / λ), which leaves wv > 0 just for λ > θ D_u.
theta, D_u = 0.5, 0.4


def loss_of_unit(p, value):
    w, v, D = p
    return (value * (1 - w * v) ** 2 + w**2 * D) / (2 * theta) + (value * v**2 + D - 1 - np.log(D)) / 2


# %% tags=["hide-cell"]
for value in (0.15, 0.25, 0.45, 2.0):
    p = minimize(loss_of_unit, [0.5, 0.5, 0.3], args=(value,), bounds=[(0, 9), (0, 9), (1e-3, D_u)], tol=1e-12).x
    predicted = max(0, 1 - np.sqrt(theta * D_u / value)) if value < theta / D_u else 1 - theta / value
    assert abs(p[0] * p[1] - predicted) < 1e-4
    print(f"λ = {value}: w v = {p[0] * p[1]:.3f}; above θ D_u = {theta * D_u:.1f}: {value > theta * D_u}")

# %% [markdown]
r"""
**Exercise 7.2. Free bits.** The scheme of this name, which the paper mentions in its Section 3, does not charge for the
first $\kappa$ nats of each unit: $\max(\kappa, K_i)$ takes the place of $K_i$. Let each unit keep to its own
eigenvector $u_i$. Show that the best it can do is
$K_i = \max(\kappa, \tfrac12 \log (\lambda_i / \theta))$ for every $\lambda_i > 0$, so that none collapses.
(Without that restriction it can pay to spend the free nats of a weak direction on a strong one: with
$\lambda = (4, 0.1)$, $\theta = 0.5$ and $\kappa = 0.7$ two units along $u_1$, of $\kappa$ nats each, do better
than one along each.)
"""

# %% tags=["hide-cell"]
# With r nats a direction can be told up to the error λ e^(-2r), and no better (the rate-distortion bound with one
# direction; reached with D = e^(-2r)). The unit's part of the loss, λ e^(-2r)/(2s) + β max(κ, r), falls until r = κ. From
# there its slope is β - λ e^(-2r)/s: negative while λ e^(-2r) > θ. So r = max(κ, ½ log(λ/θ)).
theta, kappa = 0.5, 0.7
for value in (0.1, 0.6, 1.0, 4.0, 9.0):
    grid = np.linspace(0, 4, 400_001)
    r = grid[np.argmin(value * np.exp(-2 * grid) / (2 * theta) + np.maximum(kappa, grid))]
    assert abs(r - max(kappa, np.log(value / theta) / 2)) < 2e-5
    print(f"λ = {value}: {r:.3f} nats")

# %% tags=["hide-cell"]
# The remark in brackets, in balls. Independent readings of one coordinate add their precisions: a unit of K nats has the
# signal-to-noise ratio e^(2K) - 1, so two of κ nats along u_1 leave the error λ_1 / (2 e^(2κ) - 1).
strong, weak, level, nats = (ball(flint.fmpq(*q)) for q in ((4, 1), (1, 10), (1, 2), (7, 10)))
apart = (level + weak * (-2 * nats).exp()) / (2 * level) + (strong / level).log() / 2 + nats
together = (strong / (2 * (2 * nats).exp() - 1) + weak) / (2 * level) + 2 * nats
ledger.certify("free bits: two units along one eigenvector have less loss than one along each", together, "<", apart)

# %% [markdown]
r"""
**Exercise 7.3. Units of measurement.** Someone trains on MNIST with pixels from 0 to 255, someone else standardises them
to $[-1, 1]$, both with half the squared error plus the KL. How many of 200 latents survive in the linear
model? Which $\beta$ would give each of them the survivors of pixels in $[0, 1]$?
"""

# %% tags=["hide-cell"]
# Multiplying the data by c multiplies every eigenvalue by c², so survivors have λ_i > θ/c²; β = c² puts it right. (A
# shift changes the mean only.)
for name, factor in (("[0, 1]", 1), ("[-1, 1]", 2), ("0 to 255", 255)):
    alive = spectrum.active(factor**2 * lam_mnist[:K200], 1.0).sum()
    assert alive == spectrum.active(lam_mnist[:K200], 1 / factor**2).sum()
    assert spectrum.active(factor**2 * lam_mnist[:K200], 1.0, beta=factor**2).sum() == 12
    print(f"pixels {name}: {alive} survive; β = {factor**2} would leave 12")

# %% [markdown]
r"""
**Exercise 7.4. Data on a subspace.** Let $S$ have rank $r < n$ and $k \ge r$. Show that as $s \to 0$ the largest ELBO
grows like $\tfrac{n - r}{2} \log \tfrac1s$, while exactly $r$ encoder variances go to 0 and the others stay
at 1.
"""

# %% tags=["hide-cell"]
# Once s < λ_r, E = r s, so the best ELBO is -(n/2) log 2πs - r/2 - ½ Σ_{i ≤ r} log(λ_i/s), and log(1/s) is counted
# n/2 - r/2 times. D_i = s/λ_i → 0 for i ≤ r; for i > r, λ_i = 0 and D_i = 1. On the digits r = 61 of 64.
gain = spectrum.elbo(lam, 64, 1e-7) - spectrum.elbo(lam, 64, 1e-6)
assert np.isclose(gain, (64 - 61) / 2 * np.log(10), rtol=1e-6)
variances = spectrum.encoder_variances(lam, 1e-7)
print(f"gain per tenfold smaller σ²: {gain:.4f} nats; variances at 1: {(variances == 1).sum()} of 64")

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md); the β-VAE is due to
[Higgins et al., 2017](../book/references.md), annealing to [Bowman et al., 2015](../book/references.md). The
rate–distortion view of VAEs is that of [Alemi et al., 2017](../book/references.md); the theorem is in
[Cover & Thomas, 2006](../book/references.md). On a lagging encoder, [He et al., 2019](../book/references.md).
The authors' longer paper is [Lucas et al., 2019b](../book/references.md).

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "torch"):
    print(name, version(name))
