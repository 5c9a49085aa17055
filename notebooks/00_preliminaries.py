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
# Preliminaries

What a latent variable model is, what a variational autoencoder (VAE) maximises in place of its
likelihood, what it means for a posterior to collapse, and how one measures it. These are section 2 of the
paper and its Equations 1 to 4. At the end you will watch the latents of a small model of handwritten
digits go quiet one after another, as a single number grows.

> **In short**
>
> - A VAE does not maximise its likelihood but a lower bound:
>   $\log p(x) = \text{ELBO} + D_{KL}\big( q(z \mid x) \,\|\, p(z \mid x) \big)$. The second term is the posterior
>   gap.
> - A unit has collapsed when its posterior is its prior, whatever $x$ is. The encoder's $q$ and the true
>   posterior can each do so without the other.
> - Average KL of a unit, variance of its mean, and $(\varepsilon, \delta)$-collapse are three measures, and they
>   can disagree. So say which you used, and with which threshold.
> - For your VAE: begin with the KL of each unit, averaged over the data. In pPCA on digits, units fall to zero
>   one by one as $\sigma^2$ passes the eigenvalues of the data's covariance.

**You need**: means and covariances of Gaussian vectors, and Bayes' rule. Everything else is derived here.
**Time to run**: under 10 seconds on a laptop; no GPU needed.

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
import numpy as np
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm

from helpers import ppca
from helpers.collapse import active_units, epsilon_delta, inactive_fraction, kl_per_unit, kl_samples
from helpers.data import digits
from helpers.ledger import Ledger
from helpers.moments import Moments
from helpers.plots import COLOURS, LINES, figure, show_source
from helpers.ppca import PPCA

ledger = Ledger("00_preliminaries")

# %% [markdown]
r"""
## How to read a chapter

Every equation of the paper has its own heading with the paper's number. Under it come four things: **the
paper says**, in our words around the paper's formula; **derivation**, every step; **check**, where the
machine computes both sides by means that share as little as possible, and stops if they differ; and
sometimes a **note**, where something printed deserves care. What stands under *note* is ours, not the
paper's. What we state and prove ourselves is numbered by chapter, as Theorem 2.2 is, and so are our exercises and
figures; a number without a point is the paper's. On the pages of the book the code of checks and drawings is folded, and
opens with a click. The checks of all chapters are collected in the [equation ledger](../book/ledger.md), and the
symbols in the [notation](../book/notation.md).

Throughout, $x \in \mathbb R^n$ is a data point, $z \in \mathbb R^k$ its latent variables, and logarithms
are natural, so that information is measured in nats.

## The model

### Equation 1

**The paper says.** Probabilistic PCA (pPCA) makes a data point in two stages. First draw latent variables
from a standard Gaussian, the *prior*. Then map them linearly and add the same amount of independent noise
to every coordinate:

$$
p(z) = \mathcal N(0, I), \qquad p(x \mid z) = \mathcal N(Wz + \mu,\; \sigma^2 I).
\tag{1}
$$

Here $W$ is $n \times k$, $\mu \in \mathbb R^n$, and $\sigma^2 > 0$, the *observation variance*, is the
number this book is about.

**Derivation.** A definition needs none, but it pays to write out what it implies. The joint density is
the product $p(x, z) = p(z)\,p(x \mid z)$, so

$$
\log p(x, z) = -\tfrac{k}{2}\log 2\pi - \tfrac12\lVert z\rVert^2 -
 \tfrac n2 \log 2\pi\sigma^2 - \tfrac{1}{2\sigma^2}\lVert x - Wz - \mu\rVert^2 .
$$

Equivalently, with a standard Gaussian vector $e \in \mathbb R^n$ independent of $z$,

$$ x = \mu + Wz + \sigma e . $$

The pair $(z, x)$ is an affine map of the Gaussian vector $(z, e)$, hence Gaussian itself. Its mean is
$(0, \mu)$. For its covariance, multiply out and use $\mathbb E zz^\top = I$, $\mathbb E ee^\top = I$,
$\mathbb E ze^\top = 0$:

$$
\begin{aligned}
\mathbb E\,(x-\mu)z^\top &= \mathbb E\,(Wz + \sigma e)z^\top = W,\\
\mathbb E\,(x-\mu)(x-\mu)^\top &= W\,\mathbb E zz^\top\, W^\top + \sigma^2\, \mathbb E ee^\top =
 WW^\top + \sigma^2 I .
\end{aligned}
$$

So the covariance of the $k + n$ numbers $(z, x)$ is the block matrix

$$
\begin{pmatrix} I & W^\top \\ W & WW^\top + \sigma^2 I \end{pmatrix}.
$$

**Check.** We take a small model with nothing special about it: $n = 3$, $k = 2$, no symmetry, no zero, no
entry one.
"""

# %% tags=["hide-input"]
W = np.array([[1.2, -0.4], [0.5, 0.9], [-0.3, 0.7]])
mu = np.array([0.3, -0.8, 0.5])
sigma2 = 0.6
n, k = W.shape
model = PPCA(W, mu, sigma2)

# %% [markdown]
r"""
This is how the package draws from it. (When the book shows a function of its package, it shows the whole
source, once.)
"""

# %%
show_source(PPCA.sample)

# %% [markdown]
r"""
And this is the log joint density, typed from the formula above. The arrays may carry further axes in
front.
"""


# %% tags=["hide-cell"]
def log_joint(x, z):
    """log p(z) + log p(x | z) of Eq. 1, for x (..., n) and z (..., k)."""
    residual = x - z @ W.T - mu
    log_prior = -(k * np.log(2 * np.pi) + (z**2).sum(axis=-1)) / 2
    log_conditional = -(n * np.log(2 * np.pi * sigma2) + (residual**2).sum(axis=-1) / sigma2) / 2
    return log_prior + log_conditional


# %% [markdown]
r"""
*First check, by change of variables.* A model with $W = 0$, $\mu = 0$, $\sigma = 1$ and the same seed
hands us the very noise $e$ that went into $x$. The map from $(z, e)$ to $(z, x)$ has Jacobian determinant
$\sigma^n$, so the density of the pair must be that of $(z, e)$ divided by $\sigma^n$. SciPy knows the
density of $(z, e)$: it is standard normal.
"""

# %% tags=["hide-cell"]
x, z = model.sample(200_000, seed=0)
e, same_z = PPCA(np.zeros((n, k)), np.zeros(n), 1.0).sample(200_000, seed=0)
assert np.array_equal(z, same_z)

by_change = norm.logpdf(z).sum(axis=1) + norm.logpdf(e).sum(axis=1) - n / 2 * np.log(sigma2)
method = "density of sampled pairs, against SciPy's of the noise behind them"
ledger.check(1, method, "library", log_joint(x, z), by_change, tolerance=1e-10)

# %% [markdown]
r"""
*Second check, by mean and covariance.* A quadratic function $f(y) = c + g^\top y + \tfrac12 y^\top H y$
gives up its coefficients to finite differences without error:
$f(e_i + e_j) - f(e_i) - f(e_j) + f(0) = H_{ij}$ and $\tfrac12(f(e_i) - f(-e_i)) = g_i$ for unit vectors
$e_i$. If it is the log density of a Gaussian, the covariance is $-H^{-1}$, and the mean, where the
gradient $g + Hy$ vanishes, is $-H^{-1}g$. So the density we typed must turn into the mean $(0, \mu)$ and
the block matrix, and both must match the pairs that were sampled.
"""


# %% tags=["hide-cell"]
def f(y):
    return log_joint(y[..., k:], y[..., :k])


unit = np.eye(k + n)
H = f(unit[:, None] + unit) - f(unit)[:, None] - f(unit) + f(np.zeros(k + n))
covariance = np.linalg.inv(-H)
centre = covariance @ (f(unit) - f(-unit)) / 2

block = np.block([[np.eye(k), W.T], [W, W @ W.T + sigma2 * np.eye(n)]])
assert np.allclose(covariance, block, atol=1e-12) and np.allclose(centre, np.r_[0, 0, mu], atol=1e-12)

# %% tags=["hide-cell"]
deviations = np.hstack([z, x]) - centre
sampled = deviations.T @ deviations / len(deviations)
method = "mean and covariance of sampled pairs, against differences of the log density"
ledger.check(1, method, "Monte Carlo", sampled, covariance, tolerance=2e-2)

# %% [markdown]
r"""
*Third check, by the entropy.* The average of $\log p(x, z)$ over pairs from the model is minus the
entropy of the joint Gaussian, which SciPy computes from the block matrix. This one also notices a wrong
constant.
"""

# %% tags=["hide-cell"]
entropy = multivariate_normal(np.r_[np.zeros(k), mu], block).entropy()
method = "average log density of sampled pairs, against the joint's entropy"
ledger.check(1, method, "Monte Carlo", log_joint(x, z).mean(), -entropy, tolerance=1e-2)

# %% [markdown]
r"""
**Note.** The paper introduces pPCA as a special case of factor analysis, and, as our copy prints, says
that factor analysis has a *full* covariance in place of $\sigma^2 I$. In factor analysis that covariance
is *diagonal* ([Bartholomew, 1987](../book/references.md)). It could not be full: with
$x \mid z \sim \mathcal N(Wz + \mu, \Psi)$ the data have covariance $WW^\top + \Psi$, and a free $\Psi$
can make this equal to the sample covariance $S$ (let it be positive definite) for every $W$ that leaves
$S - WW^\top$ positive definite. That is the best any Gaussian can do: with $\mu$ at the mean and another
covariance $C$ the average log likelihood is lower by the KL divergence from $\mathcal N(\mu, S)$
to $\mathcal N(\mu, C)$, by the closed form derived under [Eq. 2](#equation-2). Whatever $W$ explains,
$\Psi = S - WW^\top$ takes over, and $W = 0$ does as well as any. The next cell shows it: shrink $W$ from
its fitted value to nothing, let $\Psi$ take up the slack, and the likelihood does not move. The spherical
noise of pPCA cannot do that, which is why its $W$ means something. (The [errata page](../book/errata.md)
collects such slips. They are small; a paper with this many formulas has some, and so will this book.)
"""

# %% tags=["hide-input"]
moments = Moments.from_samples(x)
S, fitted = moments.covariance, ppca.fit(moments, k=1).W
print(f"pPCA with one latent: average log likelihood {ppca.max_log_likelihood(moments)[0]:.3f}")
for shrink in (1.0, 0.5, 0.0):
    Psi = S - shrink**2 * fitted @ fitted.T
    C = (shrink * fitted) @ (shrink * fitted).T + Psi
    average = -(n * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S))) / 2
    assert np.linalg.eigvalsh(Psi)[0] > 0
    print(f"full noise covariance, W shrunk to {shrink:.1f} of its length: {average:.3f}")

# %% [markdown]
r"""
## The evidence lower bound

A deep model replaces $Wz + \mu$ by a neural network. Then $p(x) = \int p(x \mid z)\,p(z)\,dz$ has no
closed form, and neither has the posterior $p(z \mid x)$. A VAE brings in a second distribution,
$q(z \mid x)$, made by an *encoder* network, to stand in for the posterior. The next three equations hold
for *any* model and *any* $q$. We check them on the linear model, because there both sides can be
computed.

### Equation 2

**The paper says.** The log likelihood of a data point splits into an average under $q$ and a
Kullback–Leibler (KL) divergence between $q$ and the true posterior:

$$
\log p(x) = \mathbb E_{q(z \mid x)}\bigl[\log p(x, z) - \log q(z \mid x)\bigr] +
 D_{KL}\bigl(q(z \mid x)\,\Vert\,p(z \mid x)\bigr).
\tag{2}
$$

Here $D_{KL}(q\,\Vert\,p) = \mathbb E_q[\log q - \log p]$, the average under $q$ of the log ratio. From
here on $\mathbb E_q$ is short for the average under $q(z \mid x)$.

**Derivation.** Fix one $x$ with $p(x) > 0$.

1. Bayes' rule is $p(z \mid x) = p(x, z) / p(x)$. Take logarithms, at any $z$ where $p(x, z) > 0$, and
   solve for the evidence: $\log p(x) = \log p(x, z) - \log p(z \mid x)$. The left side has no $z$ in it.
   The right side must therefore give the same number at every $z$.
2. Subtract and add $\log q(z \mid x)$, at any $z$ where also $q(z \mid x) > 0$:

   $$
   \log p(x) = \bigl[\log p(x, z) - \log q(z \mid x)\bigr] +
   \bigl[\log q(z \mid x) - \log p(z \mid x)\bigr].
   $$

3. Multiply both sides by $q(z \mid x)$ and integrate over $z$. On the left the constant $\log p(x)$ comes
   out, and $\int q(z \mid x)\,dz = 1$ remains. On the right the integral of a sum is the sum of the
   integrals, and these are the two terms of Eq. 2. $\square$

What was used: $q(\cdot \mid x)$ is a density; it puts no mass where $p(x, z) = 0$, so that step 1 holds
wherever we integrate; and the two integrals are finite, so that the sum may be split. (If the KL
divergence is infinite, the first term is $-\infty$ and Eq. 2 reads $\infty - \infty$.) For Gaussians all
densities are positive and all integrands are quadratic polynomials, so there is nothing to worry about.

**Check.** We need a $q$ that is *not* the posterior, or there would be nothing to see. Take
$q(z \mid x) = \mathcal N(m, LL^\top)$ with $m$ from a deliberately wrong linear encoder and a lower
triangular $L$ picked out of the air, and four data points.
"""

# %% tags=["hide-input"]
x, _ = model.sample(4, seed=1)
encoder = np.array([[0.3, -0.2, 0.4], [-0.1, 0.6, 0.2]])
m = (x - mu) @ encoder.T + np.array([0.5, -0.3])
L = np.array([[0.9, 0.0], [-0.4, 0.6]])


# %% tags=["hide-input"]
def log_gaussian(z, m, L):
    """Log density of N(m, L L^T) at z (B, Q, k), for m (B, k): Q points for each of B means."""
    u = (z - m[:, None]) @ np.linalg.inv(L).T
    return -(k * np.log(2 * np.pi) + (u**2).sum(axis=-1)) / 2 - np.log(np.diag(L)).sum()


# %% [markdown]
r"""
To average under $q$ we use two methods that choose their points in unrelated ways. Gauss–Hermite quadrature evaluates
the integrand at a few chosen nodes and is exact for polynomials up to some degree (here 9, and ours has
degree 2). Monte Carlo draws at random. Both come as points $z = m + Lt$ and weights.
"""


# %% tags=["hide-input"]
def quadrature(m, L):
    """Five Gauss-Hermite nodes per dimension for N(m, L L^T): points (B, 25, 2), weights (25,)."""
    t, w = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    return m[:, None] + grid @ L.T, np.outer(w, w).ravel() / (2 * np.pi)


def draws(m, L, seed, count=200_000):
    """Random points (B, count, 2) from N(m, L L^T) with equal weights (count,)."""
    t = np.random.default_rng(seed).standard_normal((len(m), count, k))
    return m[:, None] + t @ L.T, np.full(count, 1 / count)


# %% [markdown]
r"""
The first term of Eq. 2, with the log joint density of Eq. 1. It will turn out to be a lower bound, hence
its name.
"""


# %% tags=["hide-input"]
def bound(x, m, L, points, weights):
    """E_q[log p(x, z) - log q(z | x)] for each row of x, (B,)."""
    return (log_joint(x[:, None], points) - log_gaussian(points, m, L)) @ weights


# %% [markdown]
r"""
For the second term there is a closed form. It rests on one small fact that this book uses again and
again.

**An average of a quadratic.** If $z$ has mean $m$ and covariance $\Sigma$, then for any vector $a$ and matrix
$A$

$$ \mathbb E\,(z - a)^\top A (z - a) = \operatorname{tr}(A\Sigma) + (m - a)^\top A (m - a). $$

Write $z - a = (z - m) + (m - a)$ and multiply out. The two cross terms average to zero, since
$\mathbb E(z - m) = 0$. The last term is not random. The first is a number, hence its own trace, and
$\operatorname{tr}\bigl((z-m)^\top A(z-m)\bigr) = \operatorname{tr}\bigl(A(z-m)(z-m)^\top\bigr)$, whose
average is $\operatorname{tr}(A\Sigma)$.

**The KL divergence of two Gaussians.** Let $q = \mathcal N(m_0, \Sigma_0)$ and $p = \mathcal N(m_1, \Sigma_1)$ in
$\mathbb R^k$. The log densities are
$\log q = -\tfrac12\bigl[k \log 2\pi + \log\det \Sigma_0 + (z - m_0)^\top \Sigma_0^{-1}(z - m_0)\bigr]$, and the
same for $p$ with the other index. Average both under $q$ with the fact above. In the first,
$A = \Sigma_0^{-1}$ and $a = m_0$, which gives $\operatorname{tr}(\Sigma_0^{-1}\Sigma_0) = k$. In the second,
$A = \Sigma_1^{-1}$ and $a = m_1$. The difference is

$$
D_{KL}(q\,\Vert\,p) = \tfrac12\Bigl[\operatorname{tr}(\Sigma_1^{-1}\Sigma_0) + (m_1 - m_0)^\top \Sigma_1^{-1}(m_1 - m_0) -
 k + \log\frac{\det \Sigma_1}{\det \Sigma_0}\Bigr].
$$
"""


# %% tags=["hide-input"]
def kl_gaussian(m0, covariance0, m1, covariance1):
    """KL(N(m0, covariance0) || N(m1, covariance1)) for means (B, k) and covariances (k, k), in nats, (B,)."""
    P = np.linalg.inv(covariance1)
    distance = (((m1 - m0) @ P) * (m1 - m0)).sum(axis=1)
    log_ratio = np.linalg.slogdet(covariance1)[1] - np.linalg.slogdet(covariance0)[1]
    return (np.trace(P @ covariance0) + distance - len(covariance0) + log_ratio) / 2


# %% [markdown]
r"""
The log likelihood and the true posterior come from the package. Their formulas are Equations 5 and 6,
derived in the [next chapter](01_ppca.ipynb#equation-5); here they stand in for "somebody who knows the
answer". Both terms of Eq. 2 are far from zero, so the check has something to bite on.
"""

# %% tags=["hide-input"]
log_p = model.log_likelihood_samples(x)
posterior_mean, posterior_covariance = model.posterior(x)
first = bound(x, m, L, *quadrature(m, L))
second = kl_gaussian(m, L @ L.T, posterior_mean, posterior_covariance)
for row in zip(log_p, first, second, strict=True):
    print("log p(x) = {:6.2f}   average under q = {:6.2f}   KL to the posterior = {:5.2f}".format(*row))

# %% tags=["hide-cell"]
method = "quadrature of the first term plus closed form of the second, against log p(x)"
ledger.check(2, method, "quadrature", first + second, log_p, tolerance=1e-10)

# %% [markdown]
r"""
*By Monte Carlo*, each term with its own random draws. (With the *same* draws for both the errors would
cancel exactly, whatever the draws are. That is step 1 of the derivation at work, but as a check it would
be too kind.)
"""

# %% tags=["hide-cell"]
points, weights = draws(m, L, seed=2)
root = np.linalg.cholesky(posterior_covariance)
log_ratio = log_gaussian(points, m, L) - log_gaussian(points, posterior_mean, root)
sampled = bound(x, m, L, *draws(m, L, seed=3)) + log_ratio @ weights
method = "both terms from separate random draws, against log p(x)"
ledger.check(2, method, "Monte Carlo", sampled, log_p, tolerance=2e-2)

# %% [markdown]
r"""
*By Bayes' rule at single points*, with SciPy's density for the posterior: step 1 says that
$\log p(x, z) - \log p(z \mid x)$ is $\log p(x)$ at whatever $z$ one looks. We look at six.
"""

# %% tags=["hide-cell"]
anywhere = np.random.default_rng(4).normal(scale=2, size=(6, k))
ratio = []
for row, mean in zip(x, posterior_mean, strict=True):
    posterior = multivariate_normal(mean, posterior_covariance)
    ratio.append(log_joint(row, anywhere) - posterior.logpdf(anywhere))
method = "log p(x, z) - log p(z | x) at six z, posterior density from SciPy"
ledger.check(2, method, "library", ratio, np.repeat(log_p[:, None], 6, axis=1), tolerance=1e-10)

# %% [markdown]
r"""
### Equation 3

**The paper says.** Dropping the KL divergence leaves a lower bound:

$$
\log p(x) \;\geq\; \mathbb E_q\bigl[\log p(x, z) - \log q(z \mid x)\bigr].
\tag{3}
$$

**Derivation.** By [Eq. 2](#equation-2) the difference of the two sides is
$D_{KL}(q(z \mid x)\,\Vert\,p(z \mid x))$, so all we need is that a KL divergence is never negative.

1. For every $t > 0$, $\log t \le t - 1$, with equality only at $t = 1$. Indeed $g(t) = t - 1 - \log t$
   has derivative $g'(t) = 1 - 1/t$, negative below $1$ and positive above, so $g$ has its one minimum at
   $t = 1$, and $g(1) = 0$.
2. Let $q$ and $p$ be densities. Where $q > 0$, put $t = p/q$ (where $p = 0$ the inequality holds as
   $-\infty \le -1$):

   $$
   -D_{KL}(q\,\Vert\,p) = \int_{q > 0} q \log\frac pq\,dz \;\le\; \int_{q > 0} q\Bigl(\frac pq - 1\Bigr)dz =
   \int_{q > 0} p\,dz - 1 \;\le\; 0 .
   $$

   The last step uses that $p$ has total mass one and may have some of it where $q = 0$.
3. Equality: the first inequality is strict unless $p = q$ at almost every $z$ with $q > 0$; then $p$ has
   mass one there and the second is an equality too. So $D_{KL}(q\,\Vert\,p) = 0$ *if and only if* $q = p$
   almost everywhere. $\square$

Hence Eq. 3, with equality exactly when $q(z \mid x)$ is the true posterior. The word *gap* below always
means $\log p(x)$ minus the bound.

**Check.** An inequality can hold for a thousand wrong reasons: a bound that is too low by ten nats still
is one. So we check the gap itself. It must equal the KL divergence to the posterior, computed without the
bound.
"""

# %% tags=["hide-cell"]
gap = kl_gaussian(m, L @ L.T, posterior_mean, posterior_covariance)
method = "log p(x) minus the bound by quadrature, against the KL in closed form"
ledger.check(3, method, "quadrature", log_p - bound(x, m, L, *quadrature(m, L)), gap, tolerance=1e-10)
method = "log p(x) minus the bound by random draws, against the KL in closed form"
ledger.check(3, method, "Monte Carlo", log_p - bound(x, m, L, *draws(m, L, seed=5)), gap, tolerance=2e-2)

# %% [markdown]
r"""
And the part about equality: let an optimiser, which knows nothing of posteriors, choose the $q$ that
makes the bound as large as it can for the first data point. It has five numbers to move, the two of $m$
and the three of $L$. It should arrive at the value $\log p(x)$, and at the posterior's mean and
covariance.
"""


# %% tags=["hide-cell"]
def unpack(numbers):
    """Mean (1, 2) and lower triangular factor (2, 2), its diagonal kept positive by exp."""
    a, b, c, d, e = numbers
    return np.array([[a, b]]), np.array([[np.exp(c), 0.0], [d, np.exp(e)]])


def negative_bound(numbers):
    m, L = unpack(numbers)
    return -bound(x[:1], m, L, *quadrature(m, L))[0]


best = minimize(negative_bound, np.array([1.0, -1.0, 0.3, 0.4, -0.2]))

# %% tags=["hide-cell"]
best_m, best_L = unpack(best.x)
found = np.r_[-best.fun, best_m[0], (best_L @ best_L.T).ravel()]
truth = np.r_[log_p[0], posterior_mean[0], posterior_covariance.ravel()]
method = "largest bound and the q that attains it, against log p(x) and the posterior"
ledger.check(3, method, "optimisation", found, truth, tolerance=1e-4)

# %% [markdown]
r"""
### Equation 4

**The paper says.** The bound can be rearranged so that the data appear in one term and the prior in the
other:

$$
\mathbb E_q\bigl[\log p(x, z) - \log q(z \mid x)\bigr] =
 \mathbb E_q\bigl[\log p(x \mid z)\bigr] - D_{KL}\bigl(q(z \mid x)\,\Vert\,p(z)\bigr)
 \quad (= \text{ELBO}).
\tag{4}
$$

The paper writes Equations 2 to 4 as one chain, beginning with $\log p(x) =$. The label *(= ELBO)*, for
evidence lower bound, stands after the last line, but the last two lines are equal, so either is the ELBO.

**Derivation.** Split the joint density as in [Eq. 1](#equation-1),
$\log p(x, z) = \log p(x \mid z) + \log p(z)$, inside the average, and regroup:

$$
\mathbb E_q\bigl[\log p(x \mid z)\bigr] + \mathbb E_q\bigl[\log p(z) - \log q(z \mid x)\bigr],
$$

and the second average is $-D_{KL}(q(z \mid x)\,\Vert\,p(z))$ by definition. As before, both averages must
be finite. $\square$

Mind the two KL divergences. The one in Eq. 4 is to the *prior*, and is a term of what a VAE maximises.
The one in [Eq. 2](#equation-2) is to the *posterior*, and is what the VAE loses. They are easily mixed
up.

**In closed form.** A VAE takes $q(z \mid x) = \mathcal N(m, \operatorname{diag}(v))$: a mean $m_i$ and a
variance $v_i$ for each of the $k$ latents, which we call *units*.

*The KL to the prior.* Put $\Sigma_0 = \operatorname{diag}(v)$, $m_0 = m$, $\Sigma_1 = I$, $m_1 = 0$ into the KL
divergence of two Gaussians, derived under Eq. 2. The trace is $\sum_i v_i$, the quadratic form is
$\sum_i m_i^2$, and the log ratio is $-\sum_i \log v_i$. It is a sum over the units:

$$
D_{KL}\bigl(q(z \mid x)\,\Vert\,p(z)\bigr) = \sum_{i=1}^k \tfrac12\bigl(m_i^2 + v_i - 1 - \log v_i\bigr).
$$

Each summand is the divergence of unit $i$ alone. It is zero only for $m_i = 0$ and $v_i = 1$, by step 1
under Eq. 3 with $t = v_i$. This is the function in the package; its argument is $\log v_i$, as encoders
give it.
"""

# %%
show_source(kl_samples)

# %% [markdown]
r"""
*The reconstruction term.* By Eq. 1,
$\log p(x \mid z) = -\tfrac n2\log 2\pi\sigma^2 - \lVert x - \mu - Wz\rVert^2 / (2\sigma^2)$. Under $q$
the vector $x - \mu - Wz$ has mean $x - \mu - Wm$ and covariance $W\operatorname{diag}(v)W^\top$. The
average of a quadratic, now with $A = I$ and $a = 0$, gives

$$
\mathbb E_q\lVert x - \mu - Wz\rVert^2 = \lVert x - \mu - Wm\rVert^2 + \sum_{i=1}^k v_i \lVert w_i\rVert^2 ,
$$

because $\operatorname{tr}(W \operatorname{diag}(v) W^\top) = \sum_i v_i\, w_i^\top w_i$ with $w_i$ the
$i$th column of $W$. Together:
"""


# %% tags=["hide-cell"]
def elbo(x, m, v):
    """Eq. 4 for q = N(m, diag(v)): x (B, n), m (B, k), v (k,); in nats, (B,)."""
    squared = ((x - mu - m @ W.T) ** 2).sum(axis=1) + v @ (W**2).sum(axis=0)
    reconstruction = -(n * np.log(2 * np.pi * sigma2) + squared / sigma2) / 2
    return reconstruction - kl_samples(m, np.tile(np.log(v), (len(m), 1))).sum(axis=1)


# %% [markdown]
r"""
**Check.** Against quadrature of the other side, which knows nothing of the split.
"""

# %% tags=["hide-cell"]
v = np.array([0.7, 0.25])
diagonal = np.diag(np.sqrt(v))
method = "closed form of the two terms, against quadrature of Eq. 3"
other_side = bound(x, m, diagonal, *quadrature(m, diagonal))
ledger.check(4, method, "quadrature", elbo(x, m, v), other_side, tolerance=1e-10)

# %% [markdown]
r"""
Against random draws, with every density from SciPy:
"""

# %% tags=["hide-cell"]
points, weights = draws(m, diagonal, seed=6)
data = norm.logpdf(x[:, None], points @ W.T + mu, np.sqrt(sigma2)).sum(axis=-1)
to_prior = (norm.logpdf(points, m[:, None], np.sqrt(v)) - norm.logpdf(points)).sum(axis=-1)
method = "closed form of the two terms, against random draws of them"
ledger.check(4, method, "Monte Carlo", elbo(x, m, v), (data - to_prior) @ weights, tolerance=2e-2)

# %% [markdown]
r"""
And against the other route to the same number, Eq. 2: SciPy's log likelihood of $x$, minus the KL
divergence to the posterior.
"""

# %% tags=["hide-cell"]
evidence = multivariate_normal(mu, W @ W.T + sigma2 * np.eye(n)).logpdf(x)
lost = kl_gaussian(m, np.diag(v), posterior_mean, posterior_covariance)
method = "closed form of the two terms, against SciPy's log p(x) minus the gap"
ledger.check(4, method, "library", elbo(x, m, v), evidence - lost, tolerance=1e-10)

# %% [markdown]
r"""
## What posterior collapse means

**The paper says.** A posterior has collapsed when some unit's variational distribution is nearly the
prior, whatever the data point:

$$ \exists i \ \text{ such that } \ \forall x \quad q_\phi(z_i \mid x) \approx p(z_i). $$

It adds that one can define the same for the true posterior,

$$ \exists i \ \text{ such that } \ \forall x \quad p(z_i \mid x) \approx p(z_i). $$

These are two definitions, not one. The first is about the *encoder*: it tells the decoder nothing through
$z_i$. The second is about the *model*: even a perfect encoder would find nothing to say. They agree when
$q$ is the true posterior. In general, neither implies the other. Here is one example each way.

**The model has collapsed.** Set a column of $W$ to zero, say $w_2 = 0$. Then $z_2$ does not enter
$p(x \mid z)$ at all, so $p(x, z) = p(x, z_1)\,p(z_2)$ and $p(z_2 \mid x) = p(z_2)$ exactly, for every
$x$.

In pPCA this is the only way:

> **Proposition 0.1** (Collapse in pPCA). *The posterior of unit $i$ is the prior for every $x$ if and only if its column
> $w_i$ is zero.*

**Proof.** A zero column has just been dealt with. By Eq. 6 of the [next chapter](01_ppca.ipynb#equation-6) the posterior mean
is $M^{-1}W^\top(x - \mu)$ with $M = W^\top W + \sigma^2 I$. If unit $i$ has the prior as its posterior
for every $x$, row $i$ of $M^{-1}W^\top$ is zero. Then row $i$ of
$M^{-1}W^\top W = M^{-1}(M - \sigma^2 I) = I - \sigma^2 M^{-1}$ is zero too, so
$\sigma^2 e_i^\top M^{-1} = e_i^\top$. Multiply by $M$ from the right:
$\sigma^2 e_i^\top = e_i^\top M = e_i^\top W^\top W + \sigma^2 e_i^\top$. So $e_i^\top W^\top W = 0$,
whose $i$th entry says $\lVert w_i\rVert^2 = 0$. $\square$
"""

# %% tags=["hide-input"]
dead = PPCA(W * np.array([1.0, 0.0]), mu, sigma2)
x_dead, _ = dead.sample(5000, seed=7)
means, covariance = dead.posterior(x_dead)
print(f"largest modulus of unit 2's posterior mean: {abs(means[:, 1]).max():.3f}")
print(f"its posterior variance: {covariance[1, 1]:.3f}; that of unit 1: {covariance[0, 0]:.3f}")

# %% [markdown]
r"""
An encoder that has not noticed can still let $q(z_2 \mid x)$ vary with $x$. It is not collapsed by the
first definition, and it pays for its chatter: the decoder gains nothing, so the gap is exactly the KL
divergence of unit 2 to the prior. Below, unit 1 is the exact posterior, and unit 2 reports the third
coordinate of $x$.
"""

# %% tags=["hide-input"]
chatter = np.column_stack([means[:, 0], 0.8 * (x_dead[:, 2] - mu[2])])
variances = np.array([covariance[0, 0], 0.4])
gap = kl_gaussian(chatter, np.diag(variances), means, covariance)
to_prior = kl_samples(chatter, np.tile(np.log(variances), (5000, 1)))[:, 1]
assert np.allclose(gap, to_prior, rtol=1e-10)
print(f"average gap: {gap.mean():.2f} nats, all of it the KL of unit 2 to the prior")

# %% [markdown]
r"""
**The encoder has collapsed, the model has not.** Go back to the first model, whose two columns both
matter. Let the encoder ignore unit 2, $q(z_2 \mid x) = \mathcal N(0, 1)$ for every $x$, and give unit 1
the posterior it would have if $z_2$ were zero: variance $\sigma^2 / M_{11}$ and mean
$w_1^\top(x - \mu) / M_{11}$ (Eq. 6 for the model with the one column $w_1$).
"""

# %% tags=["hide-input"]
x, _ = model.sample(5000, seed=8)
means, covariance = model.posterior(x)
M11 = W[:, 0] @ W[:, 0] + sigma2
lazy = np.column_stack([(x - mu) @ W[:, 0] / M11, np.zeros(5000)])
variances = np.array([sigma2 / M11, 1.0])
gap = kl_gaussian(lazy, np.diag(variances), means, covariance)
assert np.allclose(model.log_likelihood_samples(x) - elbo(x, lazy, variances), gap, rtol=1e-9)
to_prior = kl_samples(lazy, np.tile(np.log(variances), (5000, 1)))[:, 1]
print(f"largest KL of unit 2 from q to the prior: {to_prior.max():.3f}")
print(f"variance of its true posterior mean over the data: {means[:, 1].var():.2f}, where collapse gives 0")
print(f"ELBO below the log likelihood by {gap.mean():.2f} nats on average")

# %% [markdown]
r"""
The assertion is Eq. 2 once more: the ELBO falls short of $\log p(x)$ by exactly this gap.

| unit | collapsed under $q$ | not collapsed under $q$ |
|---|---|---|
| **collapsed under $p(z \mid x)$** | neither uses the unit | a wasteful encoder: there is a gap |
| **not collapsed under $p(z \mid x)$** | a lazy encoder: there is a gap | the unit is in use |

So each definition detects something else. Collapse under $q$ is easy to measure for any VAE, and mixes
two causes. Collapse under the true posterior concerns the model alone, and no better encoder can cure it.
The paper's argument is about the second: it shows that the log likelihood itself, without any encoder,
can prefer to leave units unused. Where the gap is zero the two are one. Where the gap is large, a
collapsed $q$ tells little about the model.

## How collapse is measured

The definitions leave two things open: how near is "$\approx$", and how often is "$\forall x$". The
measures in use fill them in differently. All of them look at $q$.

**Mean KL per unit.** Average the KL divergence of each unit over the data. Since KL is zero only for
equal distributions, $q(z_i \mid x) = p(z_i)$ for (almost) all $x$ if and only if this average is zero.
"""

# %%
show_source(kl_per_unit)

# %% [markdown]
r"""
What does it measure when it is not zero? Let $q(z_i) = \mathbb E_x\, q(z_i \mid x)$ be the average of the
unit's distribution over the data, the *aggregate posterior*. Add and subtract $\log q(z_i)$:

$$
\mathbb E_x D_{KL}\bigl(q(z_i \mid x)\,\Vert\,p(z_i)\bigr) =
\underbrace{\mathbb E_x D_{KL}\bigl(q(z_i \mid x)\,\Vert\,q(z_i)\bigr)}_{\text{information about } x} +
\underbrace{D_{KL}\bigl(q(z_i)\,\Vert\,p(z_i)\bigr)}_{\text{distance of the aggregate from the prior}} .
$$

(In the second term, $\log q(z_i) - \log p(z_i)$ does not depend on $x$, so averaging it under
$q(z_i \mid x)$ and then over $x$ is averaging it under $q(z_i)$.) The first term is the mutual
information between $x$ and $z_i$ under the encoder. A unit can have a large mean KL and carry none, if
its distribution is the same for all $x$ but is not the prior.

**Active units** ([Burda et al., 2016](../book/references.md)) avoid this. A unit counts as active when
its mean varies over the data by more than a threshold, usually $0.01$. The price is that variances are
not looked at.
"""

# %%
show_source(active_units)

# %% [markdown]
r"""
**The inactive fraction** is how the paper draws collapse in its Figures 4 and 5: for each threshold on
the horizontal axis, the share of units whose mean KL is below it. No single threshold has to be chosen.
"""

# %%
show_source(inactive_fraction)

# %% [markdown]
r"""
**$(\varepsilon, \delta)$-collapse** ([Lucas et al., 2019b](../book/references.md), the authors' longer
follow-up) replaces "for all $x$" by "for most $x$". Unit $i$ has collapsed when

$$ \mathbb P_x\bigl[D_{KL}(q(z_i \mid x)\,\Vert\,p(z_i)) < \varepsilon\bigr] \ge 1 - \delta . $$

With $\delta = 0$ this is the paper's definition (for almost every $x$), its "$\approx$" read as a KL
divergence below $\varepsilon$.
"""

# %%
show_source(epsilon_delta)

# %% [markdown]
r"""
The measures agree on clear cases and part on odd ones. Four made-up units on 1000 data points:

- *dead*: the prior for every $x$;
- *shifted*: $\mathcal N(1, 1)$ for every $x$, which says nothing about $x$ either;
- *specialist*: the prior for all but 20 data points, and $\mathcal N(3, 0.1)$ for those;
- *in use*: means spread like $\mathcal N(0, 0.8)$, variance $0.2$.
"""

# %% tags=["hide-input"]
rare = np.arange(1000) < 20
spread = np.sqrt(0.8) * norm.ppf((np.arange(1000) + 0.5) / 1000)
mean = np.column_stack([np.zeros(1000), np.ones(1000), 3.0 * rare, spread])
logvar = np.log(np.column_stack([np.ones(1000), np.ones(1000), np.where(rare, 0.1, 1.0), np.full(1000, 0.2)]))

kl = kl_samples(mean, logvar)
print("                   dead  shifted  specialist  in use")
print("mean KL        {:8.2f} {:8.2f} {:11.2f} {:7.2f}".format(*kl_per_unit(mean, logvar)))
active = [str(active_units(column[:, None]) == 1) for column in mean.T]
print("active         {:>8} {:>8} {:>11} {:>7}".format(*active))
for delta in (0.05, 0.01):
    verdicts = map(str, epsilon_delta(kl, epsilon=0.01, delta=delta))
    print("collapsed, {:.0%}  {:>8} {:>8} {:>11} {:>7}".format(delta, *verdicts))

# %% [markdown]
r"""
The two thresholds sit where the definitions put them. A unit is active when the *variance* of its mean exceeds $0.01$, so a
standard deviation just above or just below $0.1$ decides. And a unit that is the prior but for a share of exactly $\delta$ of the
data counts as collapsed, as $\mathbb P \ge 1 - \delta$ allows it, and for one data point more it is not.
"""

# %% tags=["hide-input"]
alternating = np.where(np.arange(1000) % 2, 1.0, -1.0)[:, None]
print("active at a standard deviation of 0.11, 0.09:", [active_units(sd * alternating) == 1 for sd in (0.11, 0.09)])
assert [active_units(sd * alternating) for sd in (0.11, 0.09)] == [1, 0]
specialist = [kl_samples(3.0 * (np.arange(1000) < share)[:, None], np.zeros((1000, 1))) for share in (20, 21)]
verdicts = [bool(epsilon_delta(values, epsilon=0.01, delta=0.02)[0]) for values in specialist]
print("collapsed with 2% of exceptions allowed, 20 and 21 of 1000:", verdicts)
assert verdicts == [True, False]

# %% [markdown]
r"""
The shifted unit has half a nat of KL and no information; only the count of active units says so. The
specialist is active, but collapsed if we allow 5% of exceptions, and not if we allow 1%. When a paper
reports one of these numbers, it is worth asking what the others would have said.

## A live example: digits going quiet

Now real data: scikit-learn's 1797 handwritten digits of $8 \times 8$ pixels, scaled to $[0, 1]$. We fit
pPCA with $k = 20$ latents, at several *fixed* values of $\sigma^2$. `ppca.fit` returns the best $W$ for
each; [chapter 1](01_ppca.ipynb#equation-8) and [chapter 2](02_stability.ipynb) prove that it is the best.

The fit has orthogonal columns along the principal components,
$\lVert w_i\rVert^2 = \max(\lambda_i - \sigma^2, 0)$, where $\lambda_i$ is the $i$th eigenvalue of the
data's covariance. Therefore $M = W^\top W + \sigma^2 I$ is diagonal, and so is the posterior's
covariance. We can hand the exact posterior to the measures as if it came from an encoder: $q$ and
$p(z \mid x)$ are the same here, and so are the two definitions of collapse.
"""

# %% tags=["hide-input"]
images = digits()
moments = Moments.from_samples(images)
largest = moments.eigenvalues[0]
most_likely = ppca.fit(moments, k=20).sigma2
print(f"largest eigenvalue {largest:.3f}, maximum likelihood sigma2 {most_likely:.4f}")


# %% tags=["hide-input"]
def posterior_at(sigma2):
    """Means and log variances (1797, 20) of the exact posterior, at the best W for this sigma2."""
    means, covariance = ppca.fit(moments, k=20, sigma2=sigma2).posterior(images)
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    return means, np.tile(np.log(np.diag(covariance)), (len(images), 1))


for s in (most_likely, 0.05, 0.2, 0.8):
    means, logvar = posterior_at(s)
    collapsed = epsilon_delta(kl_samples(means, logvar), epsilon=0.01).sum()
    total, active = kl_per_unit(means, logvar).sum(), active_units(means)
    print(f"sigma2 = {s:.4f}: total KL {total:4.1f} nats, {active:2d} active units, {collapsed:2d} collapsed")
    # Var m_i = 1 - sigma2 / lambda_i, so a variance above 0.01 is lambda_i above sigma2 / 0.99.
    assert active == (moments.eigenvalues[:20] > s / 0.99).sum()

# %% [markdown]
r"""
All twenty units are in use at the maximum likelihood value. Fewer are left as $\sigma^2$ grows, and none
at $0.8$, which exceeds the largest eigenvalue: the model has given up its latents entirely, and calls the
whole picture noise.

The mean KL of a unit has a simple form here. With $M_{ii} = \max(\lambda_i, \sigma^2)$,
[Eq. 6](01_ppca.ipynb#equation-6) gives the variance $v_i = \sigma^2 / \lambda_i$ for a unit in use. Its
mean $m_i = w_i^\top(x - \mu)/\lambda_i$ averages to zero over the data, and
$\mathbb E_x m_i^2 = w_i^\top S w_i / \lambda_i^2 = \lambda_i (\lambda_i - \sigma^2) / \lambda_i^2 = 1 - v_i$,
because $w_i$ is an eigenvector of $S$. Put into the KL, all but the logarithm cancels:
$\tfrac12(1 - v_i + v_i - 1 - \log v_i) = \tfrac12\log(\lambda_i/\sigma^2)$. For a unit not in use it is
zero.
"""

# %% tags=["hide-input"]
for s in (most_likely, 0.05, 0.2, 0.8):
    by_formula = np.log(np.maximum(moments.eigenvalues[:20] / s, 1.0)) / 2
    assert np.allclose(kl_per_unit(*posterior_at(s)), by_formula, atol=1e-9)
print("mean KL of unit i is log(lambda_i / sigma2) / 2, or zero where lambda_i is below sigma2")

# %% mystnb={"image": {"alt": "Share of inactive units by KL threshold: higher for larger sigma2"}} tags=["hide-input"]
thresholds = np.geomspace(1e-3, 10, 400)
fig, ax = figure()
for s, colour, line in zip((most_likely, 0.05, 0.2), COLOURS, LINES, strict=False):
    share = inactive_fraction(kl_per_unit(*posterior_at(s)), thresholds)
    ax.plot(thresholds, share, color=colour, linestyle=line, label=f"σ² = {s:.3g}")
ax.set(xscale="log", xlabel="threshold on the mean KL (nats)")
ax.set(ylabel="share of inactive units", ylim=(-0.03, 1.03))
_ = ax.legend(title="observation variance", loc=(0.03, 0.28), frameon=False)

# %% [markdown]
r"""
**Figure 0.1.** Share of the twenty units whose mean KL is below a threshold, for three noise variances: exact
posteriors of pPCA on digits.
"""

# %% tags=["hide-input"]
for s in (most_likely, 0.05, 0.2):
    kl, means = kl_per_unit(*posterior_at(s)), posterior_at(s)[0]
    inactive = round(20 * inactive_fraction(kl, [0.01])[0])
    print(f"sigma2 = {s:.3g}: {inactive} of 20 units below 0.01 nats", end="; ")
    print(f"7th unit: mean KL {kl[6]:.4f} nats, variance of its mean {means[:, 6].var():.4f}")

# %% [markdown]
r"""
The larger $\sigma^2$, the higher the curve, as the counts at a threshold of $0.01$ nats say; the smallest $\sigma^2$ is the
maximum likelihood value. (Above, at the largest of the three, there was one unit more in use than here. It is the seventh, which is
on the edge: its mean varies a little more than $0.01$, its mean KL is a little less.)

This is the book in miniature, so let us be careful about what it shows. There is no encoder in it that
could be to blame, no ELBO, no optimiser that got stuck: each curve belongs to the *best* model with that
$\sigma^2$. Units fell silent because the observation variance was set by hand to a value that makes their
direction of the data look like noise: unit $i$ is in use exactly when $\lambda_i > \sigma^2$. That deep,
non-linear VAEs do the same is a further claim, and this example is no evidence for it.

## What we showed

- [Eq. 1](#equation-1): the two-stage model, its joint density and covariance, and that the package
  samples from it.
- [Eqs 2](#equation-2), [3](#equation-3) and [4](#equation-4): the log likelihood is the ELBO plus the KL
  divergence from $q$ to the true posterior; the ELBO is a lower bound, with equality only at the
  posterior; and it splits into reconstruction and KL to the prior. Each was checked with a $q$ that is
  far from the posterior.
- Collapse under $q$ and collapse under the true posterior are different statements. The gap of Eq. 2 is
  what stands between them.
- The usual measures answer different questions, and can disagree.
- In pPCA on digits, units go quiet one by one as $\sigma^2$ passes the eigenvalues, at the best $W$ for
  that $\sigma^2$.

## Exercises

**Exercise 0.1. A shifted unit.** A unit has $q(z_i \mid x) = \mathcal N(a, 1)$ for every $x$, as the *shifted* one above. Show that
moving its mean to zero, and changing one parameter of the decoder to compensate, raises the ELBO of every
data point by exactly $a^2/2$. Which parameter? Check it on our small model.
"""

# %% tags=["hide-cell"]
# With z_2 = a + t, W z + mu = w_1 z_1 + w_2 t + (mu + a w_2): the decoder's mean mu takes up the shift. The
# reconstruction is unchanged and the KL loses a^2 / 2. Our function `elbo` reads mu, so adding a w_2 to mu is
# the same as taking it from x.
a = 1.5
x, _ = model.sample(6, seed=9)
shifted = np.column_stack([m[0, 0] * np.ones(6), np.full(6, a)])
centred = np.column_stack([m[0, 0] * np.ones(6), np.zeros(6)])
variances = np.array([0.7, 1.0])
gain = elbo(x - a * W[:, 1], centred, variances) - elbo(x, shifted, variances)
assert np.allclose(gain, a**2 / 2)
print(f"gain of every data point: {gain[0]:.3f} nats, and a squared over 2 is {a**2 / 2:.3f}")

# %% [markdown]
r"""
**Exercise 0.2. A formula for the curves.** Give a formula for the curves in the figure that uses only the eigenvalues and $\sigma^2$: for
which $\lambda_i$ is the mean KL of unit $i$ below the threshold $\varepsilon$? Check it against
`inactive_fraction`.
"""

# %% tags=["hide-cell"]
# log(lambda / s) / 2 < eps is lambda < s exp(2 eps). A unit with lambda below s has KL 0 and satisfies it.
for s in (most_likely, 0.05, 0.2):
    predicted = [(moments.eigenvalues[:20] < s * np.exp(2 * eps)).mean() for eps in thresholds]
    measured = inactive_fraction(kl_per_unit(*posterior_at(s)), thresholds)
    assert np.allclose(predicted, measured)
print("the curves are the shares of eigenvalues below sigma2 exp(2 threshold)")

# %% [markdown]
r"""
**Exercise 0.3. What a diagonal covariance loses.** How much must a *diagonal* $q$ lose on a model whose posterior is correlated? Use the closed form
of the KL divergence with the posterior mean as $m$, and minimise it over the variances $v_i$. (The
posterior covariance is $\sigma^2 M^{-1}$.) Check that no other variances do better. The answer comes back
in the paper as its Equation 26.
"""

# %% tags=["hide-cell"]
# With equal means, 2 KL = sum_i v_i M_ii / s - k + log det(s M^-1) - sum_i log v_i. The derivative in v_i is
# M_ii / s - 1 / v_i, zero at v_i = s / M_ii, and 2 KL is then sum_i log M_ii - log det M.
M = W.T @ W + sigma2 * np.eye(k)
smallest = (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1]) / 2
means, covariance = model.posterior(x)
others = np.random.default_rng(10).uniform(0.05, 1.0, size=(2000, k))
gaps = [kl_gaussian(means[:1], np.diag(row), means[:1], covariance)[0] for row in others]
at_best = kl_gaussian(means[:1], np.diag(sigma2 / np.diag(M)), means[:1], covariance)[0]
assert np.isclose(at_best, smallest) and smallest < min(gaps) < 1.2 * smallest
print(f"smallest gap {smallest:.4f} nats; 2000 other choices of the variances all lose more")

# %% [markdown]
r"""
## References

The paper is [Lucas, Tucker, Grosse & Norouzi, 2019](../book/references.md). Probabilistic PCA is due to
[Tipping & Bishop, 1999](../book/references.md), factor analysis is treated by
[Bartholomew, 1987](../book/references.md), VAEs were proposed by
[Kingma & Welling, 2013](../book/references.md), active units by
[Burda et al., 2016](../book/references.md), and $(\varepsilon, \delta)$-collapse in
[Lucas et al., 2019b](../book/references.md), *Don't Blame the ELBO! A Linear VAE Perspective on Posterior
Collapse*.

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn"):
    print(name, version(name))
