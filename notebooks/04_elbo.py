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
# The ELBO, term by term

What a linear VAE maximises is a difference of two terms, and both have a closed form. This chapter derives
them (Equations 14 to 19 of the paper), differentiates them (Equations 20 to 22), and solves for the best
encoder. On the way it supplies the equations for $\sigma^2$ and $\mu$, which the paper announces and leaves
out, and shows what becomes of an encoder with a diagonal covariance when the decoder's columns are not
orthogonal: its mean is right all the same, and its variances are too small. At the end it derives the package's
`fit`.

> **In short**
>
> - For a linear VAE both terms of the ELBO, and all their derivatives, have closed forms in the mean and the
>   covariance of the data.
> - The best encoder is $V^* = M^{-1} W^\top$ and $D_i^* = \sigma^2 / M_{ii}$, with $M = W^\top W + \sigma^2 I$.
>   Its means are those of the true posterior, always.
> - Its variances are right only if the columns of $W$ are orthogonal; otherwise they are too small, and the ELBO
>   lies below the log likelihood.
> - For your VAE: the noise variance has a closed form as well, the average squared error per dimension,
>   $\sigma^2 = \mathbb E \|x - \hat x\|^2 / n$.

**You need**: [Eq. 4](00_preliminaries.ipynb#equation-4), the ELBO; [Eq. 6](01_ppca.ipynb#equation-6), the
true posterior; and [Eq. 9](03_linear_vae.ipynb#equation-9), the linear VAE. **Time to run**: under 15 seconds
on a laptop; no GPU needed.

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
from fractions import Fraction
from importlib.resources import files

import numpy as np
import sympy as sp
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch.distributions import Normal, kl_divergence

# %% tags=["hide-input"]
from helpers import data, linear_vae, plots, ppca
from helpers.ledger import Ledger
from helpers.linear_vae import LinearVAE, fit, optimal_encoder, posterior_gap, profile_elbo
from helpers.moments import Moments

ledger = Ledger("04_elbo")

# %% [markdown]
r"""
The chapter is the same in every profile: its largest input is the covariance of MNIST, which travels with the
package.

## What we work with

The linear VAE, [Eq. 9](03_linear_vae.ipynb#equation-9), has a linear decoder and a linear encoder,

$$ p(z) = \mathcal N(0, I_k), \qquad p(x \mid z) = \mathcal N(Wz + \mu,\; s I_n), \qquad
q(z \mid x) = \mathcal N\big( V(x - \mu),\; D \big), $$

with $W$ of size $n \times k$, $V$ of size $k \times n$, $D$ diagonal with $k$ positive variances
$D_1, \dots, D_k$ that are the same for every $x$, and $s = \sigma^2 > 0$. Throughout the chapter
$y = x - \mu$ ($n$ entries) and $m = V y$ ($k$ entries, the mean of $q$). The paper changes letters in its
Appendix C, from which all of this comes: its $d$ is our $n$, its $q$ (as a number) is our $k$.

Two facts do nearly all the work.

**A trace may be turned round.** For $A$ ($a \times b$) and $B$ ($b \times a$),
$\operatorname{tr}(AB) = \sum_{i} \sum_{j} A_{ij} B_{ji} = \sum_j \sum_i B_{ji} A_{ij} = \operatorname{tr}(BA)$.
A matrix and its transpose have the same diagonal, so $\operatorname{tr}(A^\top) = \operatorname{tr}(A)$. And
a number is its own trace: $y^\top A y = \operatorname{tr}(y^\top A y) = \operatorname{tr}(A\, y y^\top)$.

**The average of a quadratic.** If $z$ has mean $m$ and covariance $D$, and $A$ is any $k \times k$ matrix, then
$\mathbb E\, z^\top A z = m^\top A m + \operatorname{tr}(A D)$. The proof is in
[chapter 0](00_preliminaries.ipynb#equation-2) (with $a = 0$); it uses the mean and the covariance of $z$ and not that
$z$ is Gaussian.

For the checks we take a model and data with nothing special about them: no symmetry, no zero, $\mu$ far from
the mean of the data, an encoder that has not been fitted to anything.
"""

# %% tags=["hide-input"]
rng = np.random.default_rng(0)
n, k, N = 4, 2, 6
W, V = rng.standard_normal((n, k)), 0.4 * rng.standard_normal((k, n))
D, mu, s = np.array([0.7, 0.25]), rng.standard_normal(n), 0.6
x = rng.standard_normal((N, n)) @ rng.standard_normal((n, n)) + np.array([0.5, -1.0, 0.8, 0.3])
vae, moments = LinearVAE(W, V, D, mu, s), Moments.from_samples(x)
y, m = x - mu, (x - mu) @ V.T
print("the mean of the data is off μ by up to", np.abs(moments.mean - mu).max().round(1))

# %% [markdown]
r"""
A data set of one sample has that sample as its mean and the covariance zero, so the package, which works with
averages, also gives the value for each $x$. Where an equation gives a whole term, (15) and (19), its checks face
three forms at once: typed from the paper, from the package per sample, and from the package on average.
"""


# %% tags=["hide-input"]
def package(vae, x):
    """The package's two terms for each row of x, and on average: (B) and (C), each (N + 1,)."""
    sets = [*(Moments.from_samples(row[None]) for row in x), Moments.from_samples(x)]
    return np.transpose([vae.terms(data_set) for data_set in sets])


def with_average(values):
    """Values per sample (N,), and their average: (N + 1,)."""
    return np.r_[values, np.mean(values)]


# %% [markdown]
r"""
Two ways to average over $q$ that know nothing of the formulas. Random draws; and Gauss–Hermite quadrature,
whose few points and weights average every polynomial up to degree 5 in each coordinate without error. Both
come as points $z = m + D^{1/2} e$ with weights.
"""


# %% tags=["hide-input"]
def draws(seed, count=100_000):
    """Random points (N, count, k) from q(z | x), and equal weights (count,)."""
    e = np.random.default_rng(seed).standard_normal((N, count, k))
    return m[:, None] + np.sqrt(D) * e, np.full(count, 1 / count)


def nodes():
    """Three Gauss-Hermite points per latent for q(z | x): points (N, 9, k), weights (9,)."""
    e, w = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack(np.meshgrid(e, e), axis=-1).reshape(-1, k)
    return m[:, None] + np.sqrt(D) * grid, np.outer(w, w).ravel() / (2 * np.pi)


# %% [markdown]
r"""
And a third way, with letters in the place of numbers: SymPy, on the smallest case in which a transpose can go
wrong, $n = 2$ and $k = 1$. Here $z = m + \sqrt{d}\, t$ with a standard normal $t$, so the average of a
polynomial in $t$ is found by integrating $t^j$ against the normal density.
"""

# %% tags=["hide-input"]
w1, w2, v1, v2, y1, y2, t = sp.symbols("w1 w2 v1 v2 y1 y2 t", real=True)
d_, s_ = sp.symbols("d s", positive=True)
W_, Y_ = sp.Matrix([w1, w2]), sp.Matrix([y1, y2])
m_ = v1 * y1 + v2 * y2
z_ = m_ + sp.sqrt(d_) * t

# %% tags=["hide-input"]
density = sp.exp(-(t**2) / 2) / sp.sqrt(2 * sp.pi)
normal_moments = [sp.integrate(t**j * density, (t, -sp.oo, sp.oo)) for j in range(3)]


def average(polynomial):
    """E over t of a polynomial in t of degree at most 2, term by term."""
    terms = sp.Poly(sp.expand(polynomial), t).terms()
    return sp.expand(sum(coefficient * normal_moments[j] for (j,), coefficient in terms))


print("E 1, E t, E t² =", normal_moments)

# %% [markdown]
r"""
The same small case in numbers, so that SymPy's formulas can be compared with the package's.
"""

# %% tags=["hide-input"]
small_x = np.array([[1.4, -0.7]])
small = LinearVAE([[1.2], [0.5]], [[0.3, -0.8]], [0.35], [0.2, 0.4], 0.6)
letters = [w1, w2, v1, v2, y1, y2, d_, s_]
numbers = [*small.W[:, 0], *small.V[0], *(small_x[0] - small.mu), small.D[0], small.sigma2]


def evaluate(expression):
    """A SymPy expression at the small case's numbers."""
    return float(expression.subs(dict(zip(letters, numbers, strict=True))))


# %% [markdown]
r"""
## The three terms

### Equation 14

**The paper says** that the log likelihood of a data point has three parts:

$$ \log p(x) = \underbrace{KL\big(q(z \mid x) \,\Vert\, p(z \mid x)\big)}_{(A)}
- \underbrace{KL\big(q(z \mid x) \,\Vert\, p(z)\big)}_{(B)}
+ \underbrace{\mathbb E_{q(z \mid x)} \big[ \log p(x \mid z) \big]}_{(C)} . \tag{14} $$

The text calls the terms (A), (B), (C), and later by numbers; our copy prints no labels under the equation, and we
have put the letters where they must belong.

**Derivation.** Bayes' rule, $p(z \mid x)\, p(x) = p(x \mid z)\, p(z)$, in logarithms and with
$\log q(z \mid x)$ added and subtracted:

$$ \begin{aligned}
\log p(x) &= \log p(x \mid z) + \log p(z) - \log p(z \mid x) \\
&= \big[ \log q(z \mid x) - \log p(z \mid x) \big] - \big[ \log q(z \mid x) - \log p(z) \big]
+ \log p(x \mid z) .
\end{aligned} $$

This holds at every $z$. Average both sides over $z \sim q(z \mid x)$. The left side does not depend on $z$
and stays; the three parts on the right become (A), (B) and (C) by definition. (All the logarithms are quadratic in
$z$, so each average is finite.) As $(A) \ge 0$, the rest, $-(B) + (C)$, is a lower bound: the ELBO, as in [Eq.
4](00_preliminaries.ipynb#equation-4).

**Term (A) in closed form.** The paper writes out (B) and (C), in the next five equations; we add (A), from the KL
divergence of two Gaussians in [chapter 0](00_preliminaries.ipynb#equation-2). By
[Eq. 6](01_ppca.ipynb#equation-6) the true posterior has $m_1 = M^{-1} W^\top y$ and $V_1 = s M^{-1}$ with
$M = W^\top W + s I_k$, so $V_1^{-1} = M / s$ and $\log \det V_1 = k \log s - \log \det M$. With $m_0 = V y$,
$V_0 = D$ and $\delta = V y - M^{-1} W^\top y$,

$$ (A) = \tfrac12 \Big[ \tfrac1s \operatorname{tr}(M D) + \tfrac1s\, \delta^\top M \delta - k + k \log s
- \log \det M - \log \det D \Big] . $$

At $\delta = 0$ this is [Eq. 23](05_theorem_1.ipynb#equation-23).

**Check.** First, the three terms.
"""


# %% tags=["hide-input"]
def term_A(vae, x):
    """KL from q(z | x) to the true posterior, for each row of x, (N,)."""
    s, D = vae.sigma2, vae.D
    M = vae.W.T @ vae.W + s * np.eye(len(D))
    delta = (x - vae.mu) @ (vae.V.T - vae.W @ np.linalg.inv(M))
    quadratic = ((delta @ M) * delta).sum(axis=1)
    log_dets = np.linalg.slogdet(M)[1] + np.log(D).sum()
    return (np.diag(M) @ D / s + quadratic / s - len(D) + len(D) * np.log(s) - log_dets) / 2


def three_terms(vae, x):
    """(A) - (B) + (C) for each row of x, (N,): Eq. 14, with (B) and (C) from the package."""
    B, C = package(vae, x)[:, :-1]
    return term_A(vae, x) - B + C


# %% tags=["hide-input"]
A, total = term_A(vae, x), three_terms(vae, x)
for gap, both in zip(A, total, strict=True):
    print(f"(A) = {gap:6.2f}   ELBO = -(B) + (C) = {both - gap:7.2f}   their sum = {both:7.2f}")

# %% [markdown]
r"""
The encoder is a bad one, so (A) is large. The sum should be $\log p(x)$. SciPy's density of
[Eq. 5](01_ppca.ipynb#equation-5) says so:
"""

# %% tags=["hide-cell"]
log_p = multivariate_normal(mu, W @ W.T + s * np.eye(n)).logpdf(x)
ledger.check(14, "the three terms against SciPy's log p(x)", "library", total, log_p, 1e-10)

# %% [markdown]
r"""
The integral $p(x) = \int p(x \mid z)\, p(z)\, dz$ says so, by the trapezoidal rule on a grid of $z$:
"""

# %% tags=["hide-cell"]
axis = np.linspace(-9, 9, 181)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, k)
log_prior = norm.logpdf(grid).sum(axis=1) + k * np.log(axis[1] - axis[0])
log_joint = np.stack([norm.logpdf(row, grid @ W.T + mu, np.sqrt(s)).sum(axis=1) + log_prior for row in x])
by_grid = logsumexp(log_joint, axis=1)
ledger.check(14, "the three terms against a grid over z", "quadrature", total, by_grid, 1e-10)

# %% [markdown]
r"""
**Note.** Eq. 14 is right. The paper adds that (A) is smallest when $q$ is exactly the posterior, and that
this is possible when the columns of $W$ are orthogonal. Both are right, and [below](#the-best-encoder) we
show that "when" can be read as "exactly when".

### Equation 15

**The paper says** that term (B) is

$$ KL\big(q(z \mid x) \,\Vert\, p(z)\big) = \tfrac12 \Big( -\log \det D + (x - \mu)^\top V^\top V (x - \mu)
+ \operatorname{tr}(D) - k \Big) . \tag{15} $$

**Derivation.** Put $m_0 = V y$, $V_0 = D$, $m_1 = 0$ and $V_1 = I_k$ into the KL divergence of two Gaussians: the
trace is $\operatorname{tr}(D)$, the quadratic form $(Vy)^\top V y = y^\top V^\top V y$, and the logarithm
$-\log \det D$. That is Eq. 15. As $D$ is diagonal, it is a sum over
the latents of $\tfrac12 (m_i^2 + D_i - 1 - \log D_i)$, as in [Eq. 4](00_preliminaries.ipynb#equation-4). $\square$

**Check.** Typed from the paper:
"""


# %% tags=["hide-cell"]
def kl_15(vae, x):
    """Eq. 15 for each row of x, (N,)."""
    V, D, y = vae.V, np.diag(vae.D), x - vae.mu
    quadratic = np.einsum("ni,ij,nj->n", y, V.T @ V, y)
    return 0.5 * (-np.log(np.linalg.det(D)) + quadratic + np.trace(D) - len(D))


def forms_15(vae, x):
    """(B) typed from the paper, and from the package."""
    return np.stack([with_average(kl_15(vae, x)), package(vae, x)[0]])


def twice(values):
    """Values per sample from elsewhere, laid out as the forms are."""
    return np.stack([with_average(values)] * 2)


# %% [markdown]
r"""
PyTorch's own KL divergence of Gaussians, latent by latent:
"""

# %% tags=["hide-cell"]
q = Normal(torch.tensor(m), torch.tensor(np.sqrt(D)))
prior = Normal(torch.zeros(k, dtype=torch.float64), torch.ones(k, dtype=torch.float64))
torch_kl = kl_divergence(q, prior).sum(dim=1).numpy()
ledger.check(15, "PyTorch's KL divergence", "library", forms_15(vae, x), twice(torch_kl), 1e-10)

# %% [markdown]
r"""
And the definition, $\mathbb E_q[\log q(z \mid x) - \log p(z)]$, averaged by SymPy in the small case:
"""


# %% tags=["hide-input"]
def log_normal(z, mean, variance):
    """Log density of a one-dimensional Gaussian, in SymPy."""
    return -sp.log(2 * sp.pi) / 2 - sp.log(variance) / 2 - (z - mean) ** 2 / (2 * variance)


B_ = average(log_normal(z_, m_, d_) - log_normal(z_, 0, 1))
C_ = average(log_normal(y1, w1 * z_, s_) + log_normal(y2, w2 * z_, s_))  # for Eqs 16 to 19

# %% tags=["hide-input"]
assert sp.simplify(B_ - (-sp.log(d_) + m_**2 + d_ - 1) / 2) == 0
print("(B) =", B_)
ledger.check(15, "SymPy's average", "symbolic", forms_15(small, small_x), twice([evaluate(B_)]), 1e-10)

# %% [markdown]
r"""
**Note.** Eq. 15 is right, with the paper's $q$ read as the number of latents, our $k$. (The same letter is
the variational distribution on the left side of the equation.)

### Equation 16

**The paper says** that term (C) starts as

$$ \mathbb E_{q(z \mid x)} \big[ \log p(x \mid z) \big] = \mathbb E_{q(z \mid x)} \Big[
-\tfrac{1}{2\sigma^2} \big( Wz - (x - \mu) \big)^\top \big( Wz - (x - \mu) \big)
- \tfrac n2 \log 2 \pi \sigma^2 \Big] . \tag{16} $$

**Derivation.** $p(x \mid z)$ is the density of $\mathcal N(Wz + \mu, s I_n)$ at $x$. Its covariance has the
determinant $s^n$ and the inverse $\tfrac1s I_n$, so its logarithm is
$-\tfrac n2 \log 2\pi - \tfrac n2 \log s - \tfrac1{2s} \|x - \mu - Wz\|^2$. This is the bracket in Eq. 16. $\square$

**Check.** The bracket, typed from the paper:
"""


# %% tags=["hide-cell"]
def bracket_16(x, z, W=W, mu=mu, s=s):
    """The bracket of Eq. 16 for x (..., n) and z (..., k)."""
    error = z @ W.T - (x - mu)
    return -(error**2).sum(axis=-1) / (2 * s) - len(mu) / 2 * np.log(2 * np.pi * s)


# %% [markdown]
r"""
SciPy's density, at five $z$ for each sample:
"""

# %% tags=["hide-cell"]
few = draws(seed=2, count=5)[0]
scipy_conditional = norm.logpdf(x[:, None], few @ W.T + mu, np.sqrt(s)).sum(axis=-1)
at_few = bracket_16(x[:, None], few)
ledger.check(16, "SciPy's p(x | z) at drawn z", "library", at_few, scipy_conditional, 1e-10)

# %% [markdown]
r"""
Averaged by quadrature, it must be the package's term (C), which averages in closed form:
"""

# %% tags=["hide-cell"]
points, weights = nodes()
averaged = with_average(bracket_16(x[:, None], points) @ weights)
ledger.check(16, "average over nine nodes of z", "quadrature", averaged, package(vae, x)[1], 1e-10)

# %% [markdown]
r"""
**Note.** Right, with $d$ read as the number of data dimensions, our $n$, which the paper calls $n$ up to here. Only
this reading gives the density:
"""

# %% tags=["hide-input"]
true_value = scipy_conditional[0, 0]
for name, dimension in (("n, data dimensions", n), ("k, latents", k)):
    reading = bracket_16(x[0], few[0, 0]) + (n - dimension) / 2 * np.log(2 * np.pi * s)
    print(f"d read as {name}: off by {abs(reading - true_value):.4f} nats")

# %% [markdown]
r"""
### Equation 17

**The paper says** that multiplying out gives, as our copy prints,

$$ \mathbb E_{q(z \mid x)} \left[ \frac{-W^\top W z + 2 (x - \mu)^\top W z - (x - \mu)^\top (x - \mu)}{2\sigma^2}
- \frac n2 \log 2\pi\sigma^2 \right] . \tag{17} $$

The first term cannot be meant. It should be $-z^\top W^\top W z$:

$$ \mathbb E_{q(z \mid x)} \left[
\frac{-z^\top W^\top W z + 2 (x - \mu)^\top W z - (x - \mu)^\top (x - \mu)}{2\sigma^2}
- \frac n2 \log 2\pi\sigma^2 \right] . $$

**Derivation.** With $y = x - \mu$,

$$ (Wz - y)^\top (Wz - y) = (Wz)^\top Wz - (Wz)^\top y - y^\top Wz + y^\top y . $$

The first product is $z^\top W^\top W z$. The second and third are numbers, and each is the transpose of the
other, so they are equal: together $-2 y^\top W z$. Divide by $-2s$, and that is the corrected Eq. 17. $\square$

**Check.** The corrected bracket:
"""


# %% tags=["hide-cell"]
def bracket_17(x, z, W=W, mu=mu, s=s):
    """The bracket of the corrected Eq. 17 for x (..., n) and z (..., k)."""
    y = x - mu
    quadratic, cross = np.einsum("...i,ij,...j", z, W.T @ W, z), np.einsum("...i,ij,...j", y, W, z)
    return (-quadratic + 2 * cross - (y**2).sum(axis=-1)) / (2 * s) - len(mu) / 2 * np.log(2 * np.pi * s)


# %% [markdown]
r"""
Against SciPy's density, at the same $z$ as before:
"""

# %% tags=["hide-cell"]
at_few = bracket_17(x[:, None], few)
ledger.check(17, "SciPy's p(x | z) at drawn z", "library", at_few, scipy_conditional, 1e-10)

# %% [markdown]
r"""
And against SymPy, whose `expand` does the multiplication, with the numbers of the small case at three values of
$z = m + \sqrt d\, t$.
"""

# %% tags=["hide-cell"]
e = np.array([-1.5, 0.3, 2.0])
small_z = (small_x - small.mu) @ small.V.T + np.sqrt(small.D) * e[:, None]
expanded = sp.expand((Y_ - W_ * z_).dot(Y_ - W_ * z_))
assert expanded - sp.expand(z_ * (W_.T * W_)[0] * z_ - 2 * (Y_.T * W_)[0] * z_ + (Y_.T * Y_)[0]) == 0
by_sympy = [evaluate(-expanded.subs(t, value) / (2 * s_) - sp.log(2 * sp.pi * s_)) for value in e]
small_17 = bracket_17(np.repeat(small_x, 3, axis=0), small_z, small.W, small.mu, small.sigma2)
ledger.check(17, "SymPy's expansion", "symbolic", small_17, by_sympy, 1e-10)

# %% [markdown]
r"""
#### The first term of Eq. 17 as printed

$W^\top W z$ is a vector with $k$ entries, and the other two terms are numbers. NumPy adds the two without complaint,
so a program typed from the printed line would run, and return $k$ values for the density at one point:
"""

# %% tags=["hide-input"]
z0, y0 = few[0, 0], y[0]
printed = (-W.T @ W @ z0 + 2 * y0 @ W @ z0 - y0 @ y0) / (2 * s) - n / 2 * np.log(2 * np.pi * s)
print("printed:", printed.round(3))
print("corrected:", bracket_17(x[0], z0).round(3), "| SciPy:", true_value.round(3))

# %% [markdown]
r"""
With $k = 1$ the dimensions are right, and the value is wrong all the same: the printed sum less the corrected one is
$W^\top W\, z\, (z - 1)$. One case in fractions, with no rounding: $n = k = 1$, $W = 2$, $y = 1$, and $z$ with
mean $3$ and variance $\tfrac14$. The two points $3 \pm \tfrac12$ with equal weights have that mean and variance, so
they average any quadratic as $q$ does. The three terms must average to the squared error, less its sign:
"""

# %% tags=["hide-cell"]
two_points, w_1, y_3 = (Fraction(5, 2), Fraction(7, 2)), 2, 1
squared_error = sum((w_1 * z - y_3) ** 2 for z in two_points) / 2
corrected = sum(-z * w_1 * w_1 * z + 2 * y_3 * w_1 * z - y_3 * y_3 for z in two_points) / 2
printed = sum(-w_1 * w_1 * z + 2 * y_3 * w_1 * z - y_3 * y_3 for z in two_points) / 2
ledger.certify("Eq. 17 corrected averages to the squared error", -corrected, "==", squared_error)
ledger.certify("Eq. 17 as printed does not", -printed, "!=", squared_error, erratum="| Eq. 17 | ")

# %% [markdown]
r"""
Nothing that follows in the paper uses the slip: Eq. 18 is the average of the corrected line.

### Equation 18

**The paper says** that the average can be computed by noting that, under $q$, the vector $Wz$ is
$\mathcal N(WV(x - \mu),\, W D W^\top)$, and gives the result in two lines with a number each. The first, as
our copy prints, is

$$ \mathbb E_{q(z \mid x)} \big[ \log p(x \mid z) \big] = \frac{1}{2\sigma^2} \big[ -\operatorname{tr}(W D W^\top)
- (x - \mu)^\top V^\top W^\top W V (x - \mu) \big] \tag{18} $$

**Derivation.** These are the two terms that come from $-z^\top W^\top W z = -\|Wz\|^2$. Under $q$, $z = m + e$ with $e \sim \mathcal N(0, D)$ and $m = Vy$. Then
$Wz = WVy + We$, which is Gaussian, being affine in $e$, with mean $WVy$ and covariance
$\mathbb E\, W e e^\top W^\top = W D W^\top$. The average of a quadratic, with the identity for its matrix, is

$$ \mathbb E\, \|Wz\|^2 = \|WVy\|^2 + \operatorname{tr}(W D W^\top)
= y^\top V^\top W^\top W V y + \operatorname{tr}(W D W^\top) . $$

With a minus sign and divided by $2s$, this is Eq. 18. As $D$ is diagonal, the trace is
$\sum_i D_i \|w_i\|^2$, with $w_i$ the columns of $W$: each latent adds noise in proportion to the squared
length of its column. $\square$

**Check.** The two terms of the line, without the $\tfrac{1}{2\sigma^2}$:
"""


# %% tags=["hide-cell"]
def line_18(vae, x):
    """The two terms in the bracket of Eq. 18, added, for each row of x, (N,)."""
    W, V, y = vae.W, vae.V, x - vae.mu
    return -np.trace(W @ np.diag(vae.D) @ W.T) - np.einsum("ni,ij,nj->n", y, V.T @ W.T @ W @ V, y)


# %% [markdown]
r"""
Random draws of $z$ and the squared length of $Wz$:
"""

# %% tags=["hide-cell"]
points, weights = draws(seed=3)
sampled = -((points @ W.T) ** 2).sum(axis=-1) @ weights
ledger.check(18, "|Wz|² over draws of z", "Monte Carlo", line_18(vae, x), sampled, 2e-2)

# %% [markdown]
r"""
SymPy, in the small case:
"""

# %% tags=["hide-input"]
square_ = average((W_ * z_).dot(W_ * z_))
print("E |Wz|² =", sp.factor(square_))
ledger.check(18, "SymPy's average", "symbolic", line_18(small, small_x), [-evaluate(square_)], 1e-10)

# %% [markdown]
r"""
**Note.** The bracket that opens in this line must stay open at its end: see under [Eq. 19](#equation-19).

### Equation 19

**The paper says**, in the second line of the same equation,

$$ \phantom{=} + 2 (x - \mu)^\top W V (x - \mu) - (x - \mu)^\top (x - \mu) \big]
- \frac n2 \log 2\pi\sigma^2 . \tag{19} $$

**Derivation.** These are the averages of the other terms of Eq. 17. The second is linear in $z$, so $z$ is
replaced by its mean: $\mathbb E\, 2 y^\top W z = 2 y^\top W V y$. The others contain no $z$. Adding Eq. 18,
with *one* bracket around all four terms that were divided by $2\sigma^2$,

$$ (C) = \frac{1}{2s} \Big[ -\operatorname{tr}(W D W^\top) - y^\top V^\top W^\top W V y
+ 2 y^\top W V y - y^\top y \Big]
- \frac n2 \log 2\pi s . $$

The last three terms in the bracket are a square: $-\|y - WVy\|^2$, the error of the reconstruction $WVy$ of
$y$. So (C) has a shorter form, which is also how the package computes it,

$$ (C) = -\frac{1}{2s} \Big[ \|(I - WV)\, y\|^2 + \sum_i D_i \|w_i\|^2 \Big] - \frac n2 \log 2\pi s , $$

in words: what the mean of the code fails to reconstruct, plus the noise that the encoder's variances send
through the decoder. $\square$

**Check.** Both lines with one bracket, typed from the paper; and the package's (C).
"""


# %% tags=["hide-cell"]
def line_19(vae, x):
    """The two terms of Eq. 19 before the bracket closes, added, for each row of x, (N,)."""
    y = x - vae.mu
    return 2 * np.einsum("ni,ij,nj->n", y, vae.W @ vae.V, y) - (y**2).sum(axis=1)


def forms_19(vae, x):
    """(C) with one bracket over the terms of Eqs 18-19, and from the package."""
    constant = len(vae.mu) / 2 * np.log(2 * np.pi * vae.sigma2)
    typed = (line_18(vae, x) + line_19(vae, x)) / (2 * vae.sigma2) - constant
    return np.stack([with_average(typed), package(vae, x)[1]])


# %% [markdown]
r"""
Random draws of $z$ with SciPy's $\log p(x \mid z)$:
"""

# %% tags=["hide-cell"]
points, weights = draws(seed=4)
sampled = norm.logpdf(x[:, None], points @ W.T + mu, np.sqrt(s)).sum(axis=-1) @ weights
ledger.check(19, "SciPy's log p(x | z) over draws of z", "Monte Carlo", forms_19(vae, x), twice(sampled), 2e-2)

# %% [markdown]
r"""
SymPy's average of $\log p(x \mid z)$ in the small case:
"""

# %% tags=["hide-input"]
four = average(-((W_ * z_).dot(W_ * z_))) + 2 * (Y_.T * W_)[0] * m_ - (Y_.T * Y_)[0]
difference = sp.simplify(sp.expand_log(C_ - (four / (2 * s_) - sp.log(2 * sp.pi * s_)), force=True))
print("SymPy's E log p(x | z) minus one bracket over four terms =", difference)
ledger.check(19, "SymPy's average", "symbolic", forms_19(small, small_x), twice([evaluate(C_)]), 1e-10)

# %% [markdown]
r"""
#### The bracket that closes twice

As our copy prints, Eq. 18 ends with a bracket and Eq. 19 has another one after its second term. Taken at its
word, the first one leaves the two terms of Eq. 19 outside of the factor $\tfrac{1}{2\sigma^2}$. The two readings differ by
$(1 - \tfrac1{2\sigma^2})$ times those terms, $2 y^\top W V y - y^\top y$. So they agree for *all* $x$ only at
$\sigma^2 = \tfrac12$, and at any $\sigma^2$ for the $x$ at which the two terms cancel. Which is right, one case decides,
in fractions: $n = 2$, $k = 1$, and the average of $-\|y - Wz\|^2 / 2\sigma^2$ over two points $z$ with the mean $Vy$
and the variance $D = \tfrac14$.
"""

# %% tags=["hide-cell"]
w_2, y_4, s_4, mean = (2, 1), (1, 1), Fraction(3, 5), Fraction(1, 3) - Fraction(1, 2)  # V = (1/3, -1/2)
errors = [
    sum((y - w * z) ** 2 for y, w in zip(y_4, w_2, strict=True)) for z in (mean - Fraction(1, 2), mean + Fraction(1, 2))
]
averaged = -sum(errors) / 2 / (2 * s_4)
squares, products = sum(w * w for w in w_2), sum(y * w for y, w in zip(y_4, w_2, strict=True))
first = -Fraction(1, 4) * squares - mean**2 * squares
second = 2 * mean * products - sum(y * y for y in y_4)
ledger.certify("Eqs 18-19 with one bracket are the average", (first + second) / (2 * s_4), "==", averaged)
claim = "with the bracket closed early they are not"
ledger.certify(claim, first / (2 * s_4) + second, "!=", averaged, erratum="closed at the end of both lines")

# %% [markdown]
r"""
One bracket over all four terms it is. A test at $\sigma^2 = \tfrac12$, a convenient number, would not have noticed.

## From one sample to all of them

The objective is the average of $-\beta (B) + (C)$ over the data. We keep a weight $\beta$ on the KL term: the
paper's equations have $\beta = 1$, and its section 5.2 needs other values. Let

$$ S_\mu = \frac1N \sum_{i=1}^N (x_i - \mu)(x_i - \mu)^\top = S + (\bar x - \mu)(\bar x - \mu)^\top $$

($n \times n$; the second form holds because the deviations from $\bar x$ sum to zero, as in [chapter
1](01_ppca.ipynb#equation-5)). For any matrix $A$, the average of $y^\top A y$ is the average of
$\operatorname{tr}(A y y^\top)$, which is $\operatorname{tr}(A S_\mu)$. So, turning traces round where it
helps,

$$ \begin{aligned}
\overline{(B)} &= \tfrac12 \Big[ \operatorname{tr}(V S_\mu V^\top) + \sum_i (D_i - 1 - \log D_i) \Big], \\
\overline{(C)} &= -\tfrac{1}{2s} \Big[ \operatorname{tr}(W D W^\top)
+ \operatorname{tr}(W V S_\mu V^\top W^\top)
- 2 \operatorname{tr}(W V S_\mu) + \operatorname{tr}(S_\mu) \Big] - \tfrac n2 \log 2\pi s , \\
L_\beta &= -\beta\, \overline{(B)} + \overline{(C)} .
\end{aligned} $$

The mean and the covariance of the data are all that the objective sees: its cost does not depend on $N$. For the
sake of precision the package takes a matrix $Q$ with $Q Q^\top = S_\mu$ and writes each trace as
$\operatorname{tr}(A S_\mu A^\top) = \|A Q\|^2$ (the sum of the squared entries). A sum of squares has no
cancellation, where the four terms of Eqs 18 and 19 nearly cancel once $\sigma^2$ is small.
"""

# %%
plots.show_source(linear_vae._deviations)

# %%
plots.show_source(LinearVAE.terms)

# %%
plots.show_source(LinearVAE.elbo)

# %% [markdown]
r"""
## Derivatives

The paper now differentiates $-(B) + (C)$ and sets the result to zero. It fixes $\mu$ at the mean of the data,
where $S_\mu = S$. We keep any $\mu$ and write $S_\mu$. Three conventions:

- The paper's equations are for the sum over the data set, hence the factor $N$; ours are averages. (The paper
  calls the sum "the marginal likelihood over the whole dataset"; what it differentiates is the ELBO.)
- The gradient of $f$ in a matrix $X$ is the matrix $G$, of the size of $X$, with
  $df = \operatorname{tr}(G^\top dX) = \sum_{ij} G_{ij}\, dX_{ij}$.
- $D$ has $k$ free entries, its diagonal. A derivative in $D$ is $k$ numbers, or a diagonal matrix.

So change $X$ by $dX$, keep what is linear in it, and turn the trace until $dX$ stands last: before it stands $G^\top$.

**Four other ways to differentiate**, each blind to Eqs 15 to 19 or to the rules just stated.

*Automatic differentiation* of an objective built from PyTorch's densities. The average over $q$ is taken over
the $2k$ points $m \pm \sqrt{k D_i}\, e_i$ with equal weights ($e_i$ unit vectors): their mean is $m$, their
covariance is $\tfrac{1}{2k} \sum_i 2 k D_i\, e_i e_i^\top = D$, and by the second fact above this is all that
the average of a quadratic needs.
"""


# %% tags=["hide-input"]
def torch_elbo(W, V, D, mu, s, beta):
    """L_beta from PyTorch's densities, averaged over the data and over 2k points for each sample."""
    mean, spread = (x_t - mu) @ V.T, torch.diag((k * D).sqrt())
    z = mean[:, None] + torch.cat([spread, -spread])
    reconstruction = Normal(z @ W.T + mu, s.sqrt()).log_prob(x_t[:, None]).sum(dim=-1).mean()
    kl = kl_divergence(Normal(mean, D.sqrt()), prior).sum(dim=1).mean()
    return reconstruction - beta * kl


betas = (1.0, 0.3)
x_t = torch.tensor(x)
leaves = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (W, V, D, mu, s)]
automatic = [torch.autograd.grad(torch_elbo(*leaves, beta), leaves) for beta in betas]


# %% [markdown]
r"""
*Finite differences* of the package's own `elbo`, entry by entry:
"""


# %% tags=["hide-input"]
def differences(name, beta, step=1e-5):
    """Central differences of the package's elbo in each entry of the parameter `name`, in its shape."""
    values = {"W": W, "V": V, "D": D, "mu": mu, "sigma2": np.array(s)}
    slopes = np.empty(values[name].size)
    for i in range(slopes.size):
        change = np.zeros(slopes.size)
        change[i] = step
        change = change.reshape(values[name].shape)
        up, down = (values | {name: values[name] + sign * change} for sign in (1, -1))
        slopes[i] = (LinearVAE(**up).elbo(moments, beta) - LinearVAE(**down).elbo(moments, beta)) / (2 * step)
    return slopes.reshape(values[name].shape)


# %% [markdown]
r"""
*Monte Carlo*: what a VAE's training step does (here with the KL term sampled, too).
With $z = m + D^{1/2} e$ and $e \sim \mathcal N(0, I)$ held
fixed, the sample's objective is $\log p(x \mid z) + \beta \log p(z) - \beta \log q(z \mid x)$, in which
$\log q(z \mid x) = -\tfrac12 \sum_i \log D_i - \tfrac12 \|e\|^2 + \text{const}$. Its derivative in $z$ is
$g = \tfrac1s W^\top (y - Wz) - \beta z$, and the chain rule gives, for $V$, $D_i$ and $W$,

$$ g\, y^\top, \qquad \frac{g_i\, e_i}{2 \sqrt{D_i}} + \frac{\beta}{2 D_i}, \qquad \frac1s (y - Wz)\, z^\top . $$

These are averaged over data and draws.
"""


# %% tags=["hide-input"]
def training_step(beta, seed=5):
    """Averages over draws of the gradients that a VAE would follow: W (n, k), V (k, n), D (k,)."""
    z, _ = draws(seed)
    e, residual = (z - m[:, None]) / np.sqrt(D), y[:, None] - z @ W.T
    g = residual @ W / s - beta * z
    by_W = np.einsum("qna,qnb->ab", residual, z) / e[..., 0].size / s
    by_D = (g * e).mean(axis=(0, 1)) / (2 * np.sqrt(D)) + beta / (2 * D)
    return {"W": by_W, "V": g.mean(axis=1).T @ y / N, "D": by_D}


sampled_gradients = [training_step(beta) for beta in betas]

# %% [markdown]
r"""
*SymPy*, with $n = k = 2$ and a letter for every entry of $W$, $V$, $D$ and $S_\mu$, and for $s$ and $\beta$.
It differentiates $L_\beta$ entry by entry, knowing no rule for matrices.
"""

# %% tags=["hide-input"]
Wm, Vm = sp.Matrix(2, 2, sp.symbols("W11 W12 W21 W22")), sp.Matrix(2, 2, sp.symbols("V11 V12 V21 V22"))
Dm, beta_ = sp.diag(*sp.symbols("D1 D2", positive=True)), sp.Symbol("beta", positive=True)
S11, S12, S22 = sp.symbols("S11 S12 S22")
Sm = sp.Matrix([[S11, S12], [S12, S22]])
kl_m = ((Vm * Sm * Vm.T).trace() + Dm.trace() - 2 - sp.log(Dm[0, 0]) - sp.log(Dm[1, 1])) / 2
four_m = (Wm * Dm * Wm.T + Wm * Vm * Sm * Vm.T * Wm.T - 2 * Wm * Vm * Sm + Sm).trace()
L_m = -beta_ * kl_m - four_m / (2 * s_) - sp.log(2 * sp.pi * s_)
exact_W, exact_V = (matrix.applyfunc(lambda entry: sp.diff(L_m, entry)) for matrix in (Wm, Vm))
exact_D = sp.Matrix([sp.diff(L_m, Dm[i, i]) for i in range(2)])

# %% [markdown]
r"""
And numbers to put in, for a comparison with the package's gradients.
"""

# %% tags=["hide-input"]
square = LinearVAE([[1.1, -0.6], [0.4, 0.8]], [[0.5, -0.2], [0.3, 0.7]], [0.6, 0.2], [0.3, -0.4], 0.7)
square_moments = Moments([0.8, -0.1], [[1.3, -0.4], [-0.4, 0.9]], 5)
off = square_moments.mean - square.mu
second = square_moments.covariance + np.outer(off, off)
pairs = zip([*Wm, *Vm, Dm[0, 0], Dm[1, 1]], [*square.W.ravel(), *square.V.ravel(), *square.D], strict=True)
at = dict(pairs) | {S11: second[0, 0], S12: second[0, 1], S22: second[1, 1], s_: square.sigma2}


def at_both(expression):
    """A SymPy matrix at these numbers, for each of the two betas."""
    return [np.array(expression.subs(at | {beta_: beta}), float) for beta in betas]


# %% [markdown]
r"""
This is the package's version, whose parts are derived in the three equations that follow and in the
[section after them](#the-equations-that-are-missing).
"""

# %%
plots.show_source(LinearVAE.gradients)

# %% tags=["hide-cell"]
ours = [vae.gradients(moments, beta) for beta in betas]
ours_square = [square.gradients(square_moments, beta) for beta in betas]


# %% tags=["hide-cell"]
def check_gradient(equation, name):
    """Compare one of the package's gradients, at two betas, with three other ways."""
    mine = [getattr(gradient, name) for gradient in ours]
    by_torch = [gradient["WVD".index(name)] for gradient in automatic]
    ledger.check(equation, f"PyTorch's derivative in {name}", "autograd", mine, np.stack(by_torch), 1e-10)
    by_steps = [differences(name, beta) for beta in betas]
    ledger.check(equation, f"central differences in {name}", "finite differences", mine, by_steps, 1e-7)
    by_draws = [gradient[name] for gradient in sampled_gradients]
    ledger.check(equation, "what a training step averages", "Monte Carlo", mine, by_draws, 2e-2)


# %% tags=["hide-cell"]
def check_small_gradient(equation, name, exact):
    """Compare one of the package's gradients, at two betas, with SymPy's at the same numbers."""
    mine = np.stack([getattr(gradient, name) for gradient in ours_square])
    numbers = np.reshape(at_both(exact), mine.shape)
    ledger.check(equation, "SymPy's derivative, entry by entry", "symbolic", mine, numbers, 1e-10)


# %% [markdown]
r"""
### Equation 20

**The paper says** that the derivative in the encoder's variances is

$$ \frac{\partial}{\partial D} \big( -(B) + (C) \big)
= \frac N2 \Big( D^{-1} - I - \frac{1}{\sigma^2} \operatorname{diag}(W^\top W) \Big) = 0 . \tag{20} $$

**Derivation.** $D_i$ occurs in $L_\beta$ in two places. In $-\beta\,\overline{(B)}$ it is
$-\tfrac\beta2 (D_i - 1 - \log D_i)$, with derivative $\tfrac\beta2 (1/D_i - 1)$. In $\overline{(C)}$ it is
$-\tfrac{1}{2s} \operatorname{tr}(W D W^\top)$. By the rule for turning traces
$\operatorname{tr}(W D W^\top) = \operatorname{tr}(D\, W^\top W) = \sum_i D_i (W^\top W)_{ii}$, since $D$ is
diagonal; the derivative is $-\tfrac{1}{2s} (W^\top W)_{ii} = -\tfrac{1}{2s} \|w_i\|^2$. Together,

$$ \frac{\partial L_\beta}{\partial D_i}
= \frac12 \Big[ \beta \Big( \frac{1}{D_i} - 1 \Big) - \frac{\|w_i\|^2}{s} \Big] . $$

With $\beta = 1$ and times $N$ this is the $i$-th diagonal entry of Eq. 20. $\square$

**Check.**
"""

# %% tags=["hide-input"]
check_gradient(20, "D")
check_small_gradient(20, "D", exact_D)

# %% [markdown]
r"""
SymPy can also say that the matrix form is right for all values of the letters:
"""

# %% tags=["hide-input"]
matrix_form = (beta_ * (Dm.inv() - sp.eye(2)) - sp.diag(*(Wm.T * Wm).diagonal()) / s_) / 2
print("SymPy's derivative minus Eq. 20 with β:", sp.simplify(exact_D - matrix_form.diagonal().T).T)

# %% [markdown]
r"""
**Note.** Eq. 20 is right as printed. The "diag" is there because $D$ is restricted to diagonal matrices; without the
restriction $W^\top W$ stands there in full ([Exercise 4.1](#exercises)).

### Equation 21

**The paper says** that the derivative in the encoder is

$$ \frac{\partial}{\partial V} \big( -(B) + (C) \big)
= \frac{N}{\sigma^2} \Big( W^\top - (W^\top W + \sigma^2 I)\, V \Big) S = 0 . \tag{21} $$

**Derivation.** $V$ occurs in three of the traces. Change $V$ by $dV$ ($k \times n$), keep what is linear.

1. *A rule.* For symmetric $A$ and $B$, the change of $\operatorname{tr}(A V B V^\top)$ is
   $\operatorname{tr}(A\, dV\, B V^\top) + \operatorname{tr}(A V B\, dV^\top)$. The second trace is that of the transpose
   of the first matrix, turned, so they are equal: $2 \operatorname{tr}(B V^\top A\, dV)$, and the gradient is
   $G = 2 A V B$.
2. So $\operatorname{tr}(V S_\mu V^\top)$ has the gradient $2 V S_\mu$, and
   $\operatorname{tr}(W V S_\mu V^\top W^\top) = \operatorname{tr}(W^\top W\, V S_\mu V^\top)$ has $2 W^\top W V S_\mu$.
3. $d \operatorname{tr}(W V S_\mu) = \operatorname{tr}(W\, dV\, S_\mu) = \operatorname{tr}(S_\mu W\, dV)$: the
   gradient is $W^\top S_\mu$.

With the factors $-\tfrac\beta2$, $-\tfrac{1}{2s}$ and $+\tfrac{2}{2s}$ that they have in $L_\beta$,

$$ \frac{\partial L_\beta}{\partial V} = -\beta V S_\mu - \frac1s W^\top W V S_\mu + \frac1s W^\top S_\mu
= \frac1s \Big( W^\top - (W^\top W + \beta s I_k)\, V \Big) S_\mu . $$

With $\beta = 1$, $S_\mu = S$ and times $N$ this is Eq. 21. $\square$

**Check.**
"""

# %% tags=["hide-input"]
check_gradient(21, "V")
check_small_gradient(21, "V", exact_V)

# %% tags=["hide-input"]
matrix_form = (Wm.T - (Wm.T * Wm + beta_ * s_ * sp.eye(2)) * Vm) * Sm / s_
print("SymPy's derivative minus Eq. 21 with β:", sp.simplify(exact_V - matrix_form))

# %% [markdown]
r"""
**Note.** Eq. 21 is right. What the paper concludes from it, $V^* = M^{-1} W^\top$, needs one more word,
because $S$ stands behind the bracket: see [below](#when-the-covariance-is-singular).

### Equation 22

**The paper says** that the derivative in the decoder is, as our copy prints,

$$ \frac{\partial}{\partial W} \big( -(B) + (C) \big)
= \frac{N}{\sigma^2} \Big( S V^\top - D W - W V S V^\top \Big) = 0 . \tag{22} $$

The second term should be $-W D$:

$$ \frac{\partial}{\partial W} \big( -(B) + (C) \big)
= \frac{N}{\sigma^2} \Big( S V^\top - W D - W V S V^\top \Big) = 0 . $$

**Derivation.** $W$ does not occur in $(B)$. In $\overline{(C)}$ it occurs in three traces.

1. $\operatorname{tr}(W D W^\top)$ has the gradient $2 W D$, by the rule of Eq. 21 with $W$ for $V$, $A = I$ and $B = D$.
2. $\operatorname{tr}(W\, V S_\mu V^\top W^\top)$ has $2 W V S_\mu V^\top$, by the same with $B = V S_\mu V^\top$.
3. $d \operatorname{tr}(W V S_\mu) = \operatorname{tr}(dW\, V S_\mu) = \operatorname{tr}(V S_\mu\, dW)$: the
   gradient is $(V S_\mu)^\top = S_\mu V^\top$.

With the factors $-\tfrac{1}{2s}$, $-\tfrac{1}{2s}$ and $+\tfrac{2}{2s}$,

$$ \frac{\partial L_\beta}{\partial W} = \frac1s \Big( S_\mu V^\top - W D - W V S_\mu V^\top \Big) . $$

There is no $\beta$ in it: the KL term never sees the decoder. $\square$

**Check.**
"""

# %% tags=["hide-input"]
check_gradient(22, "W")
check_small_gradient(22, "W", exact_W)

# %% [markdown]
r"""
#### The second term of Eq. 22 as printed

$D W$ would be $(k \times k)(n \times k)$. With $n = 4$ and $k = 2$ it cannot be formed:
"""

# %% tags=["hide-input"]
try:
    np.diag(D) @ W
except ValueError:
    print(f"D is {np.diag(D).shape} and W is {W.shape}: there is no product D W")
    print(f"W D is {(W @ np.diag(D)).shape}, the size of W")

# %% [markdown]
r"""
With $n = k$ it can. SymPy's derivative, minus the corrected form and minus the printed one:
"""

# %% tags=["hide-input"]
corrected = (Sm * Vm.T - Wm * Dm - Wm * Vm * Sm * Vm.T) / s_
as_printed = (Sm * Vm.T - Dm * Wm - Wm * Vm * Sm * Vm.T) / s_
print("corrected:", sp.simplify(exact_W - corrected))
print("printed, times σ²:", sp.simplify(s_ * (exact_W - as_printed)))

# %% [markdown]
r"""
And at one point, in whole numbers and fractions. SymPy's derivative knows nothing of matrices, so that it equals the
corrected form, and not the printed one, settles the order of the factors.
"""

# %% tags=["hide-cell"]
letters_22 = [*Wm, *Vm, Dm[0, 0], Dm[1, 1], S11, S12, S22, s_]
at_22 = dict(zip(letters_22, [1, 2, 3, 1, 1, 0, -1, 1, sp.Rational(1, 2), 2, 3, 1, 2, 1], strict=True))
by_entries = exact_W.subs(at_22)
ledger.certify("Eq. 22 with W D is the derivative", by_entries, "==", corrected.subs(at_22))
ledger.certify("with D W it is not", by_entries, "!=", as_printed.subs(at_22), erratum="| Eq. 22 | ")

# %% [markdown]
r"""
$D W$ scales the *rows* of $W$, where the columns are meant. Entry $(i, j)$ of $D W - W D$ is
$(D_i - D_j) W_{ij}$, so the two agree exactly when $W_{ij} = 0$ wherever $D_i \ne D_j$: with distinct variances,
only for a diagonal $W$.

## The equations that are missing

The paper says that derivatives must be taken in $\mu$, $D$, $W$, $V$ and $\sigma^2$, fixes $\mu$, and gives
three of the others. Here are the two that are left.

**$\sigma^2$.** It occurs in $(C)$ only. Let
$R = \frac1N \sum_i \mathbb E_{q(z \mid x_i)} \|x_i - \mu - Wz\|^2$, the average squared error of a
reconstruction from a *sampled* code. By Eqs 18 and 19,
$R = \operatorname{tr}\big( (I - WV) S_\mu (I - WV)^\top \big) + \operatorname{tr}(W D W^\top)$ and
$\overline{(C)} = -\tfrac{R}{2s} - \tfrac n2 \log 2\pi s$, where $R$ does not depend on $s$. Hence

$$ \frac{\partial L_\beta}{\partial s} = \frac{R}{2s^2} - \frac{n}{2s} = \frac{n}{2 s^2} (s^* - s) = 0, \qquad
s^* = \frac Rn = \frac{1}{n}\, \mathbb E\, \|x - \mu - Wz\|^2 . $$

Here $R > 0$ unless $W = 0$ and every sample equals $\mu$, because
$R \ge \operatorname{tr}(W D W^\top) = \sum_i D_i \|w_i\|^2$, and with $W = 0$ it is $\operatorname{tr}(S_\mu)$.
The derivative is positive below $s^*$ and negative above, so $s^*$ is the one maximum for given $W$, $V$,
$D$: the mean squared error per dimension, for any $\beta$, at *sampled* codes; at the mean code the error is smaller by
$\operatorname{tr}(W D W^\top)$, and so would $\sigma^2$ be. Nothing here is special to a linear decoder.

**$\mu$.** With the encoder's mean tied to the decoder's, as $V(x - \mu)$, $\mu$ occurs in the two quadratics.
The terms that contain $y$ are

$$ -\tfrac\beta2\, y^\top V^\top V y - \tfrac{1}{2s} \|(I - WV)\, y\|^2 = -\tfrac12\, y^\top P\, y, \qquad
P = \beta V^\top V + \tfrac1s (I - WV)^\top (I - WV) . $$

As $y = x - \mu$, the gradient in $\mu$ is $P y$, and on average $P (\bar x - \mu)$. For $\beta > 0$ the
matrix $P$ is positive definite: if $a^\top P a = 0$, both squares vanish, so $V a = 0$ and $a = W V a = 0$.
Hence $\mu = \bar x$ is the only stationary point and the maximum, for *every* $W$, $V$, $D$, $s$, which is
more than the paper needs.

**Check** of both, against automatic differentiation and finite differences at both values of $\beta$. (They
have no number in the paper, so they do not enter the ledger.)
"""

# %% tags=["hide-cell"]
P = [beta * V.T @ V + (np.eye(n) - W @ V).T @ (np.eye(n) - W @ V) / s for beta in betas]
for beta, matrix, gradient, by_torch in zip(betas, P, ours, automatic, strict=True):
    assert np.allclose(gradient.sigma2, by_torch[4], rtol=1e-10, atol=0)
    assert np.allclose(gradient.sigma2, differences("sigma2", beta), rtol=1e-7, atol=0)
    by_mu = matrix @ (moments.mean - mu)
    assert np.allclose(by_mu, by_torch[3], rtol=1e-10) and np.allclose(by_mu, differences("mu", beta), rtol=1e-6)
print("both derivatives agree with PyTorch's and with finite differences")

# %% tags=["hide-input"]
points, weights = draws(seed=6)
sampled_error = ((y[:, None] - points @ W.T) ** 2).sum(axis=-1).mean()
best_s = s + 2 * s**2 / n * ours[0].sigma2
close = abs(sampled_error / n / best_s - 1) < 0.01
print(f"s* = {best_s:.4f}; the sampled mean squared error is within 1 %: {close}")
at_best = LinearVAE(W, V, D, mu, best_s).gradients(moments).sigma2
print("derivative at s* below 1e-12:", abs(at_best) < 1e-12)
print("error at the mean code, per dimension:", (((y - m @ W.T) ** 2).sum(axis=1).mean() / n).round(4))

# %% [markdown]
r"""
## The best encoder

**The paper says** that the equations give "the expected solution for the variational distribution directly":

$$ D^* = \sigma^2 \big( \operatorname{diag}(W^\top W) + \sigma^2 I \big)^{-1}, \qquad V^* = M^{-1} W^\top , $$

and that this recovers the true posterior mean in all cases, and the correct posterior covariance when the
columns of $W$ are orthogonal. We prove it for any $\beta > 0$, and that it is the maximum and not merely a
stationary point. Let

$$ \theta = \beta s, \qquad M_\theta = W^\top W + \theta I_k , $$

so that $M_\theta = M$ at $\beta = 1$.

> **Theorem 4.1** (The best encoder). *For any $W$, $\mu$, $s$ and $\beta > 0$ the $\beta$-ELBO is largest over $V$ and $D$
> at $D_i^* = \theta / (\|w_i\|^2 + \theta)$ and $V^* = M_\theta^{-1} W^\top$. No other $D$ attains it, and another $V$
> exactly when $(V - V^*)\, S_\mu = 0$.*

**Proof.** In $L_\beta$ the encoder's two parts do not meet: one set of terms
contains $D$, another $V$, none both. So they can be maximised one at a time.

**$D$.** The terms with $D_i$ are
$f_i(D_i) = \tfrac12 \big[ \beta \log D_i - (\beta + \|w_i\|^2 / s)\, D_i \big]$. The second derivative is
$-\beta / (2 D_i^2) < 0$, so $f_i$ is strictly concave. Its derivative, which is [Eq. 20](#equation-20),
vanishes at

$$ D_i^* = \frac{\beta}{\beta + \|w_i\|^2 / s} = \frac{\theta}{\|w_i\|^2 + \theta} , $$

and a strictly concave function has no other maximum. At $\beta = 1$ this is the paper's $D^*$. It is at most 1,
and 1 only for a column that is zero: no best encoder is less certain than the prior.

**$V$.** The terms with $V$ are, in the traces above and with
$\operatorname{tr}(W V S_\mu) = \operatorname{tr}(V S_\mu W)$,

$$ g(V) = -\tfrac{1}{2s} \Big[ \operatorname{tr}(M_\theta V S_\mu V^\top)
- 2 \operatorname{tr}(V S_\mu W) \Big] . $$

Complete the square. Let $V^* = M_\theta^{-1} W^\top$, so that $M_\theta V^* = W^\top$, and transposed
$V^{*\top} M_\theta = W$. Then

$$ \operatorname{tr}\big( M_\theta (V - V^*) S_\mu (V - V^*)^\top \big)
= \operatorname{tr}(M_\theta V S_\mu V^\top) - 2 \operatorname{tr}(V S_\mu V^{*\top} M_\theta)
+ \operatorname{tr}(M_\theta V^* S_\mu V^{*\top}) , $$

where the two mixed terms are traces of a matrix and its transpose, hence equal. The second term on the right
is $-2 \operatorname{tr}(V S_\mu W)$, and the third does not contain $V$. So

$$ g(V) = g(V^*) - \tfrac{1}{2s} \operatorname{tr}\big( M_\theta (V - V^*) S_\mu (V - V^*)^\top \big)
= g(V^*) - \tfrac{1}{2s} \big\| M_\theta^{1/2} (V - V^*)\, S_\mu^{1/2} \big\|^2 . $$

So $V^*$ is a maximum, and, as $M_\theta$ is positive definite, $V$ is another exactly when $(V - V^*)\, S_\mu = 0$: *if
$S_\mu$ is nonsingular*, when $V = V^*$. $\square$
"""

# %%
plots.show_source(optimal_encoder)

# %% [markdown]
r"""
**Check.** An optimiser over $V$ and $\log D$, from a random start, with nothing but values of the package's
`elbo`, at $\beta = 1$ and $0.3$.
"""


# %% tags=["hide-cell"]
def unpack(numbers):
    """V (k, n) and D (k,) from one vector."""
    return numbers[: k * n].reshape(k, n), np.exp(numbers[k * n :])


for beta in betas:
    start = np.random.default_rng(1).standard_normal(k * n + k)
    found = minimize(lambda p, beta=beta: -LinearVAE(W, *unpack(p), mu, s).elbo(moments, beta), start, tol=1e-10)
    V_best, D_best = optimal_encoder(W, s, beta)
    V_found, D_found = unpack(found.x)
    assert np.allclose(V_found, V_best, atol=1e-4) and np.allclose(D_found, D_best, atol=1e-4)
    print(f"β = {beta}: the optimiser's V and D agree with the formulas to 1e-4")

# %% [markdown]
r"""
And the completed square, which says how much *any* other $V$ loses, at $\beta = 1$:
"""

# %% tags=["hide-input"]
V_star, D_star = optimal_encoder(W, s)
M, S_mu = W.T @ W + s * np.eye(k), y.T @ y / N
loss = LinearVAE(W, V_star, D, mu, s).elbo(moments) - vae.elbo(moments)
square_loss = np.trace(M @ (V - V_star) @ S_mu @ (V - V_star).T) / (2 * s)
assert np.isclose(loss, square_loss, rtol=1e-10)
print(f"our V loses {loss:.3f} nats against V*; the square gives {square_loss:.3f}")

# %% [markdown]
r"""
**The posterior mean, in all cases.** By [Eq. 6](01_ppca.ipynb#equation-6) the true posterior of $z$ has mean
$M^{-1} W^\top (x - \mu)$. At $\beta = 1$ this is $V^* (x - \mu)$, whatever $W$ is.

> **Corollary 4.2** (When the ELBO is tight). *At $\beta = 1$ the best encoder has the mean of the true posterior for every
> $W$, and its covariance if and only if the columns of $W$ are orthogonal. Then, and only then, the largest ELBO is
> $\log p$.*

**Proof.** The mean was compared just now. The true covariance is $s M^{-1}$, and
$D^* = s \widetilde M^{-1}$ with $\widetilde M$ the diagonal part of $M$. They agree exactly when $W^\top W = M - sI$ is
diagonal: when the columns are orthogonal. (Zero columns are orthogonal to everything.) Then, and only then, $q$ is the posterior, term (A) is zero for
every $x$, and the ELBO is $\log p(x)$. $\square$
"""


# %% tags=["hide-input"]
def mean_and_covariance_right(W):
    """Whether the best encoder has the true posterior's mean, and its covariance."""
    V_best, D_best = optimal_encoder(W, s)
    means, covariance = ppca.PPCA(W, mu, s).posterior(x)
    return np.allclose(y @ V_best.T, means), np.allclose(np.diag(D_best), covariance)


orthogonal = np.linalg.qr(W)[0] * np.array([1.5, 0.6])
print("generic W: mean right {}, covariance right {}".format(*mean_and_covariance_right(W)))
print("orthogonal columns: mean right {}, covariance right {}".format(*mean_and_covariance_right(orthogonal)))

# %% [markdown]
r"""
**Note.** The paper draws both $D^*$ and $V^*$ from Eq. 20; $V^*$ is from [Eq. 21](#equation-21). At
$\beta \ne 1$ the best encoder is the one that belongs to another model, with $\theta = \beta \sigma^2$ in the place
of $\sigma^2$: a $\beta$ below 1 makes the encoder believe that there is less noise than the decoder says.
[Chapter 7](07_what_linear_theory_predicts.ipynb) follows this thread.

## When the covariance is singular

Eq. 21 has $S$ behind the bracket, so the bracket itself need not vanish. By the completed square, the best
encoders are all of $V^* + A$ with $A S_\mu = 0$: the rows of $A$ may be any vectors in the null space of
$S_\mu$. With $\mu = \bar x$ these are the directions in which the data do not vary at
all, since $a^\top S a = \frac1N \sum_i (a^\top (x_i - \bar x))^2$. So the encoders agree on every sample.

This is no curiosity. MNIST has 784 pixels and a covariance of rank 712. Some of the 72 directions that are left are
easy to name: the pixels that are black in every training image. Let $A$ be 1 on these and 0 elsewhere, in each of
its ten rows. The record of MNIST holds $\sum x$ and $\sum x x^\top$ of the pixel values 0 to 255 as whole numbers, so
$N \sum x x^\top - (\sum x)(\sum x)^\top$, which is $255^2 N^2 S$, is known without rounding; that $A$ times it is zero
proves $A S = 0$, and with the completed square that $V^*$ and $V^* + A$ have the same ELBO for every $W$, $D$ and
$\sigma^2$.
"""

# %% tags=["hide-input"]
record = np.load(files("helpers") / "recorded" / data.MOMENT_RECORDS["train"])
total, count = record["total"].astype(np.int64), int(record["count"])
products = np.zeros((784, 784), np.int64)
products[np.triu_indices(784)] = record["products"]
scaled_S = count * (products + np.triu(products, 1).T) - np.outer(total, total)  # below 2^49: exact
A = np.tile((total == 0).astype(np.int64), (10, 1))
print("pixels that are black in all", count, "images:", A[0].sum())
claim = "A S = 0 on MNIST, for an A that is not zero"
ledger.certify(claim, (A @ scaled_S)[0].tolist(), "==", [0] * 784, erratum="the solution of Eq. 21")

# %% [markdown]
r"""
Ten latents at the maximum likelihood solution, with $V^*$ and with $V^* + A$:
"""

# %% tags=["hide-input"]
mnist = data.mnist_moments()
decoder = ppca.fit(mnist, 10)
V_best, D_best = optimal_encoder(decoder.W, decoder.sigma2)
encoders = [LinearVAE(decoder.W, V_any, D_best, mnist.mean, decoder.sigma2) for V_any in (V_best, V_best + A)]
rank = int((mnist.eigenvalues > 0).sum())
print(f"rank {rank} of 784: {784 - rank} directions without data")
print(f"largest entry of V* {np.abs(V_best).max():.2f}, of what we add 1")
for encoder in encoders:
    slope = np.abs(encoder.gradients(mnist).V).max()
    assert np.isclose(encoder.elbo(mnist), encoder.log_likelihood(mnist), rtol=1e-9)
    print(f"ELBO {encoder.elbo(mnist):.4f} nats, largest derivative in V below 1e-8: {slope < 1e-8}")

# %% [markdown]
r"""
Two different encoders, both stationary, with the same ELBO, which is the log likelihood. They part company on
an image that lights one of these pixels:
"""

# %% tags=["hide-input"]
image = mnist.mean.copy()
image[np.flatnonzero(total == 0)[0]] += 1.0
lengths = [np.linalg.norm(encoder.V @ (image - encoder.mu)) for encoder in encoders]
assert lengths[0] < 1e-12
print(f"length of its code: {lengths[0]:.1f} with V*, {lengths[1]:.1f} with the other")

# %% [markdown]
r"""
$V^*$ ignores the pixel, as the true posterior does: no column of $W$ reaches it, so it says nothing about
$z$. The other encoder reports it as news. What the data determine is $V$ on their own span; off it, gradient
descent (with $\mu$ at the mean) leaves $V$ where it was initialised.
So "recovering the true posterior mean in all cases" holds on that span.

A picture of the same thing, with the small generic model and its data projected on the plane of their first two
principal directions: the first row of $V$ moves away from that of $V^*$ by a distance $r$, once in a direction in
which the projected data vary and once in one in which they do not. On the right, with the data as they were, the
objective as $\sigma^2$ moves, all else fixed.
"""

# %% tags=["hide-input"]
basis = Moments.from_samples(x).eigenvectors
flat_moments = Moments.from_samples((x - moments.mean) @ basis[:, :2] @ basis[:, :2].T)
reach = np.linspace(-1.5, 1.5, 61)


def along(direction):
    """ELBO on the flat data as the first row of V leaves V* along a direction, for each reach."""
    steps = [V_star + np.outer([r, 0], direction) for r in reach]
    return [LinearVAE(W, V_any, D_star, flat_moments.mean, s).elbo(flat_moments) for V_any in steps]


noise = np.geomspace(2, 40, 200)
heights = [LinearVAE(W, V, D, mu, value).elbo(moments) for value in noise]

# %% mystnb={"image": {"alt": "The ELBO is a parabola along u1 and flat along u4; beside it, one peak at s*"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.4, height=3.4)
left.plot(reach, along(basis[:, 0]), "-", label="along $u_1$: the data vary")
left.plot(reach, along(basis[:, 3]), "--", label="along $u_4$: they do not")
left.set(xlabel="distance r of the first row of V from V*", ylabel="ELBO (nats per sample)")
left.legend(loc="lower center", fontsize=8.5)
right.semilogx(noise, heights, "-", label="ELBO, generic W, V, D, μ")
right.plot(best_s, LinearVAE(W, V, D, mu, best_s).elbo(moments), "ko", label="$s^* = E\\,|x - μ - Wz|^2 / n$")
right.set(xlabel="noise variance σ²", ylabel="ELBO (nats per sample)")
right.set_xticks([2, 5, 10, 20, 40], ["2", "5", "10", "20", "40"])
right.minorticks_off()
_ = right.legend(loc="lower center", fontsize=8.5)

# %% [markdown]
r"""
**Figure 4.1.** A small model whose data do not vary along $u_4$: the ELBO as the encoder moves along $u_1$ and
along $u_4$, and as $\sigma^2$ changes.

On the left, the solid line is the parabola of the completed square and has its top at $V^*$; the dashed one
is exactly flat, so nothing pulls $V$ to $V^*$ in that direction. On the right, the one peak is where the
missing equation puts it.

## When the columns are not orthogonal

Then $D^*$ is not the true covariance. What is it? The true posterior has the precision (inverse covariance)
$M / s$, and

$$ D_i^* = \frac{s}{M_{ii}} = \frac{1}{(\text{posterior precision})_{ii}} . $$

This is the variance of $z_i$ when $x$ *and all other latents* are given: then the log posterior is a quadratic in
$z_i$ with second derivative $-M_{ii}/s$. The variance of $z_i$ given $x$ alone is $(s M^{-1})_{ii}$.

> **Proposition 4.3** (Too small a variance). *It is never smaller:*
>
> $$ D_i^* = \frac{s}{M_{ii}} \;\le\; s\, (M^{-1})_{ii}, $$
>
> *with equality exactly when $w_i$ is orthogonal to all other columns.*

**Proof.** Let $e_i$ be the $i$-th unit vector. By the Cauchy–Schwarz inequality

$$ 1 = (e_i^\top e_i)^2 = \big( (M^{1/2} e_i)^\top (M^{-1/2} e_i) \big)^2
\le (e_i^\top M e_i)(e_i^\top M^{-1} e_i) = M_{ii}\, (M^{-1})_{ii} . $$

Equality holds exactly when $M^{1/2} e_i$ and $M^{-1/2} e_i$ are multiples of each other; multiply by
$M^{1/2}$: when $M e_i$ is a multiple of $e_i$, that is, when $M_{ji} = w_j^\top w_i = 0$ for all $j \ne i$.
$\square$

So a diagonal encoder, at its best, *underestimates* the marginal variances of the posterior: the usual price
of a factorised $q$ that minimises $KL(q \Vert p)$ rather than $KL(p \Vert q)$. Here is the case $n = k = 2$
with two columns of length 1.5 and $\sigma^2 = 0.5$, as the angle $\varphi$ between them varies. Then
$M_{11} = M_{22} = a = 2.75$ and $M_{12} = 2.25 \cos\varphi$, and the ratio of the two variances is
$D_i^* / (s M^{-1})_{ii} = 1 - M_{12}^2 / a^2$ (the second exercise).
"""


# %% tags=["hide-input"]
def two_columns(angle, length=1.5):
    """A decoder (2, 2) with two columns of one length at an angle, in radians."""
    return length * np.array([[1, np.cos(angle)], [0, np.sin(angle)]])


def posterior_and_best(W, sigma2):
    """Covariance of the true posterior (k, k), and the best D (k,)."""
    covariance = sigma2 * np.linalg.inv(W.T @ W + sigma2 * np.eye(W.shape[1]))
    return covariance, optimal_encoder(W, sigma2)[1]


# %% tags=["hide-input"]
angles = np.linspace(5, 175, 171)
ratios, gaps = [], []
for angle in np.deg2rad(angles):
    covariance, variances = posterior_and_best(two_columns(angle), 0.5)
    assert np.allclose(variances / np.diag(covariance), 1 - (2.25 * np.cos(angle) / 2.75) ** 2)
    ratios.append(variances[0] / covariance[0, 0])
    gaps.append(posterior_gap(two_columns(angle), 0.5))
covariance, variances = posterior_and_best(two_columns(np.deg2rad(40)), 0.5)
circle = 2 * np.stack([np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200))])
print(f"at 40 degrees: marginal variance {covariance[0, 0]:.3f}, D* {variances[0]:.3f}")

# %% mystnb={"image": {"alt": "A tilted ellipse around a round one; beside it, a variance ratio, 1 at 90 degrees"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.4, height=3.6)
left.plot(*(np.linalg.cholesky(covariance) @ circle), "-", label="true posterior")
left.plot(*(np.sqrt(variances)[:, None] * circle), "--", label="best diagonal q")
left.set(xlabel="$z_1$ minus its mean", ylabel="$z_2$ minus its mean", aspect="equal")
left.set(xlim=(-1.7, 1.7), ylim=(-1.7, 2.3))
left.legend(loc="upper right", fontsize=8.5)
right.plot(angles, ratios, "-", label="$D_i^*$ / marginal variance")
right.plot(angles, gaps, "--", label="log p − ELBO (nats)")
right.set(xlabel="angle between the columns (degrees)", ylim=(0, 1.25), xticks=[0, 45, 90, 135, 180])
right.set_ylabel("ratio (no unit), or nats per sample")
_ = right.legend(loc="upper right", fontsize=8.5)

# %% [markdown]
r"""
**Figure 4.2.** Two latents whose columns are not orthogonal: the posterior beside the best diagonal $q$, and the
ratio of their variances against the angle between the columns.

On the left, two standard deviations of the posterior and of the best diagonal $q$, for columns at 40 degrees.
$q$ has the right centre and cannot tilt: it meets the posterior's ellipse on the axes, and misses how far it reaches
beyond. On the right, only at 90 degrees are the variances right and the ELBO tight. The dashed curve is what
[chapter 5](05_theorem_1.ipynb#equation-26) is about.

The inequality, on a thousand random decoders with four latents:
"""

# %% tags=["hide-input"]
trials = np.random.default_rng(2).standard_normal((1000, 6, 4))
worst = 1.0
for trial in trials:
    covariance, variances = posterior_and_best(trial, 0.5)
    ratio = variances / np.diag(covariance)
    assert (ratio < 1).all()
    worst = min(worst, ratio.min())
print(f"D* is below the marginal variance in all 4,000 cases; smallest ratio below 0.2: {worst < 0.2}")

# %% [markdown]
r"""
## The ELBO with the encoder eliminated

As the best encoder is known for every decoder, it can be put into the objective, which is then a function of
the decoder alone: the *profile* ELBO. It is what [chapter 5](05_theorem_1.ipynb) studies. Let $\mu = \bar x$,
so that $S_\mu = S$.

The terms with $D$ are $\tfrac12 \sum_i \big[ \beta \log D_i + \beta - (\beta + \|w_i\|^2 / s)\, D_i \big]$.
Since $\beta + \|w_i\|^2/s = \beta / D_i^*$, the last two cancel at $D^*$, and
$\tfrac\beta2 \sum_i \log D_i^*$ is left.

The terms with $V$, and $\operatorname{tr}(S)$, are the average of
$-\tfrac\beta2 \|Vy\|^2 - \tfrac{1}{2s} \|(I - WV) y\|^2$, that is $-\tfrac12 \operatorname{tr}(P S)$ with the
matrix $P$ of the equation for $\mu$. At $V^* = M_\theta^{-1} W^\top$ it simplifies. Let
$C_\theta = W W^\top + \theta I_n$. By [chapter 1](01_ppca.ipynb#equation-6), with $\theta$ for $s$,
$M_\theta^{-1} W^\top = W^\top C_\theta^{-1}$. Hence
$I - W V^* = I - W W^\top C_\theta^{-1} = (C_\theta - W W^\top)\, C_\theta^{-1} = \theta\, C_\theta^{-1}$, and
with $1/s = \beta/\theta$

$$ P = \beta\, C_\theta^{-1} W W^\top C_\theta^{-1} + \tfrac{\beta}{\theta}\, \theta^2\, C_\theta^{-2}
= \beta\, C_\theta^{-1} (W W^\top + \theta I)\, C_\theta^{-1} = \beta\, C_\theta^{-1} . $$

Putting the pieces together, with $\widetilde M_\theta = \operatorname{diag}(W^\top W) + \theta I$,

$$ \max_{V, D} L_\beta = -\tfrac12 \Big[ n \log 2\pi s
+ \beta \sum_i \log \frac{(\widetilde M_\theta)_{ii}}{\theta} + \beta \operatorname{tr}(C_\theta^{-1} S) \Big] . $$

At $\beta = 1$ it is the average of $\log p$ ([chapter 1](01_ppca.ipynb#equation-5), with its
$\log \det C = (n - k) \log s + \log \det M$), but for $\log \det \widetilde M$ in the place of $\log \det M$: half the difference of the two is [Eq. 26](05_theorem_1.ipynb#equation-26).
"""

# %%
plots.show_source(profile_elbo)

# %% tags=["hide-input"]
for beta in betas:
    theta = beta * s
    C_theta, widened = W @ W.T + theta * np.eye(n), (W**2).sum(axis=0) + theta
    fit_term = np.trace(np.linalg.solve(C_theta, moments.covariance))
    closed = -(n * np.log(2 * np.pi * s) + beta * np.log(widened / theta).sum() + beta * fit_term) / 2
    assert np.isclose(profile_elbo(W, moments, s, beta), closed, rtol=1e-12)
    print(f"β = {beta}: package and closed form agree at {closed:.3f} nats")

# %% [markdown]
r"""
The determinants' difference is the average of term (A), which we typed in at the beginning:
"""

# %% tags=["hide-input"]
best = LinearVAE(W, V_star, D_star, moments.mean, s)
gap = (np.log((W**2).sum(axis=0) + s).sum() - np.linalg.slogdet(M)[1]) / 2
assert np.allclose(term_A(best, x), gap, rtol=1e-9)
assert np.isclose(best.log_likelihood(moments) - best.elbo(moments), gap, rtol=1e-9)
print(f"term (A) with the best encoder is {gap:.4f} nats for every sample")

# %% [markdown]
r"""
## Fitting from a random start

With the best encoder known, the package can climb from a random start: `fit`, which
[chapter 3](03_linear_vae.ipynb#fitting-mnist-from-a-random-start) uses on MNIST. It is an expectation–maximisation
algorithm, with one twist. As before $\theta = \beta s$ and $\mu = \bar x$, and all averages are over the data.

**An encoder without restriction.** For a while, let the encoder be $\mathcal N(V y, \Sigma)$ with any
positive definite $\Sigma$ ($k \times k$), and the prior $\mathcal N(0, \Pi)$ with any positive definite
$\Pi$. The objective is

$$ J = -\tfrac n2 \log 2 \pi s - \tfrac{1}{2s}\, \mathbb E \|y - W z\|^2
- \tfrac{\beta}{2} \Big[ \operatorname{tr}(\Pi^{-1} P) - k - \log |\Sigma| + \log |\Pi| \Big],
\qquad P = V S V^\top + \Sigma , $$

with $P = \mathbb E\, z z^\top$ under the encoder, and
$\mathbb E \|y - Wz\|^2 = \operatorname{tr} S - 2 \operatorname{tr}(W V S) + \operatorname{tr}(W P W^\top)$.
It is maximised over one half of its arguments and then the other, so it can only rise.

*The encoder, at $\Pi = I$.* Divide $J$ by $\beta$: what depends on $V$ and $\Sigma$ is an ordinary ELBO with
noise $\theta$, and it is best at the true posterior for that noise. With $M_\theta = W^\top W + \theta I$,
$V = M_\theta^{-1} W^\top$ and $\Sigma = \theta M_\theta^{-1}$. At $\beta = 1$, $J$ is then the log
likelihood.

*The decoder and the prior, at this encoder.* $J$ is a concave quadratic in $W$ with derivative
$\tfrac1s (S V^\top - W P)$, so $W = S V^\top P^{-1}$. The bracket is smallest at $\Pi = P$ (its derivative in
$\Pi^{-1}$ is $P - \Pi$). And $s$ is $\tfrac1n \mathbb E\|y - W z\|^2$, which at this $W$ is
$\tfrac1n \big( \operatorname{tr} S - \operatorname{tr}(W P W^\top) \big)$. (With a given $\sigma^2$ this last
is left out.)

*The twist: back to the prior $\mathcal N(0, I)$.* Write $P = L L^\top$ and $z = L z'$. Then $z'$ has the
prior $\mathcal N(0, I)$, the decoder for $z'$ is $W' = W L = S V^\top L^{-\top}$, and $J$ is what it was,
since a change of variables alters neither term. Plain EM would keep the prior at $I$ and creep toward the
right lengths of the columns; freeing the prior and folding it back gets them in one go. This is
parameter-expanded EM, [Liu, Rubin & Wu, 1998](../book/references.md). For pPCA without the twist it is the EM
algorithm of [Tipping & Bishop, 1999](../book/references.md).

**And the diagonal encoder?** When the ascent has settled, write $W = U L R^\top$ and take $U L$ instead. $J$
does not change under $R$ (turn $z$, and the prior is the same), and for orthogonal columns $M_\theta$ is
diagonal: the best $\Sigma$ is diagonal of itself, and $J$ *is* the objective of Eq. 9.
([Theorem 1](05_theorem_1.ipynb) is about this rotation.)

**Where does it end?** At $\beta = 1$ the ascent climbs the log likelihood $\ell(W, s)$ in $W$ and $s$ together. At a
*fixed* $s$, every stationary $W$ is a global maximum or has a direction of positive curvature
([chapter 2](02_stability.ipynb#which-stationary-points-are-stable-and-why)). One more step covers the two together:

> **Theorem 4.4** (No local maximum in weights and noise variance). *Let $k$ be below the rank of $S$. A stationary point
> $(W_0, s_0)$ of $\ell$ is a global maximum, or has a direction in $W$ of positive curvature. So every local maximum in
> $(W, s)$ is global.*

**Proof.** $W_0$ is stationary at the fixed $s_0$. If it is no global maximum there, it has such a direction, with $s$ at
rest. Otherwise $\ell(W_0, s_0) = g(s_0)$, where $g(s) = \max_W \ell(W, s)$ is the function of
[Eq. 7](01_ppca.ipynb#equation-7), Step 3. The difference $g(s) - \ell(W_0, s)$ is never negative, by the definition of
$g$, and zero at $s_0$: it has a minimum there, inside $s > 0$. Both functions are differentiable ($g$ by Step 4, where
its pieces meet with equal slopes). So their derivatives agree at $s_0$: $g'(s_0) = \partial \ell / \partial s\,(W_0, s_0)$,
which is the envelope theorem for our case, and zero, as the point is stationary. But $g'$ has one zero only, at the
peak $\sigma^2_{\text{MLE}}$ (Step 4). So $s_0 = \sigma^2_{\text{MLE}}$ and
$\ell(W_0, s_0) = \max_s g(s)$, the global maximum. $\square$

Other $\beta$ are in [chapter 5](05_theorem_1.ipynb#with-learned-noise-and-for-any-beta). So the only other places to
end are saddles. That a random start avoids these we do not prove for this update with its momentum; we see it in
every run. First the envelope step in numbers, then the code.
"""

# %% tags=["hide-input"]
step = 1e-5
for s_try in (0.05, 0.3, 2.0, 6.0):
    held = ppca.fit(moments, k, s_try)
    near = [s_try + step * s_try, s_try - step * s_try]
    g_slope = np.subtract(*(ppca.fit(moments, k, value).log_likelihood(moments) for value in near)) / np.subtract(*near)
    at_W = [ppca.PPCA(held.W, held.mu, value).log_likelihood(moments) for value in near]
    assert np.isclose(g_slope, np.subtract(*at_W) / np.subtract(*near), rtol=1e-5)
    print(f"s = {s_try}: g' and the slope of the log likelihood with W held agree at {g_slope:.3f}")

# %% [markdown]
r"""
The update does all this with two triangular factors, $M_\theta = A A^\top$ and
$\theta I + Q^\top S Q = F F^\top$ with $Q = W A^{-\top}$. Then $V = A^{-\top} Q^\top$, so
$P = A^{-\top} (Q^\top S Q + \theta I) A^{-1} = L L^\top$ with $L = A^{-\top} F$, and
$W' = S V^\top L^{-\top} = S Q A^{-1} A F^{-\top} = S Q F^{-\top}$. With a root $F_S$ of the covariance,
$S = F_S F_S^\top$, and $B = F_S^\top Q$, that is $W' = F_S B F^{-\top}$ and $Q^\top S Q = B^\top B$. Where $\theta$ is
small beside the rest, both factors come from QR factorisations, of $W$ above $\sqrt\theta\, I$ and of $B$ above
$\sqrt\theta\, I$. The root is only ever multiplied with matrices of $k$ columns.
"""

# %%
plots.show_source(linear_vae._update)

# %% [markdown]
r"""
The first return value is $J$ at the encoder just found:
$-\tfrac12 [\, n \log 2 \pi s + \beta \log |M_\theta / \theta| + \tfrac1s ( \operatorname{tr} S -
\operatorname{tr}(Q^\top S Q) ) ]$.
The loop around the update adds Nesterov's momentum, takes it back whenever $J$ would fall, and ends when $J$
has stopped rising beyond rounding. When $\sigma^2$ is learned, the first update is made at next to no noise,
so that no latent collapses only because the noise has yet to come down.
"""

# %%
plots.show_source(fit)

# %% tags=["hide-input"]
for beta in betas:
    runs = [fit(moments, k, s, beta, seed=seed) for seed in range(3)]
    top = profile_elbo(ppca.fit(moments, k, beta * s).W, moments, s, beta)
    assert np.allclose([run.elbo(moments, beta) for run in runs], top, rtol=1e-12)
free = [fit(moments, k, seed=seed).elbo(moments) for seed in range(3)]
assert np.allclose(free, ppca.max_log_likelihood(moments)[k - 1], rtol=1e-12)
print("three random starts, σ² given (at both β) and learned: all at the maximum in closed form")

# %% [markdown]
r"""
## What we showed

- $\log p(x)$ is (A) − (B) + (C) for any encoder ([Eq. 14](#equation-14)), and each term has a closed form
  (Equations [15](#equation-15) to [19](#equation-19)), which rests on one fact, the average of a quadratic.
- The objective sees the data through their mean and covariance only, for any $\mu$, at any $\beta$.
- The derivatives in $D$, $V$ and $W$ ([Eq. 20](#equation-20), [21](#equation-21), [22](#equation-22)), at any
  $\beta$, and the two that are missing: $s^* = \mathbb E \|x - \mu - Wz\|^2 / n$, and $\mu^* = \bar x$ for
  every choice of the rest.
- Four slips, each shown by computation: the first term of [Eq. 17](#equation-17), the bracket of [Eqs
  18](#equation-18) and [19](#equation-19), the order of factors in [Eq. 22](#equation-22), and the letters
  $d$ and $q$. None of them touches the paper's argument.
- The best encoder is unique, a concave maximum, if $S$ is nonsingular; otherwise $V^*$ is free where the data
  do not vary, as on MNIST.
- It has the true posterior's mean always, and its covariance exactly when the columns of $W$ are orthogonal.
  If they are not, $D_i^*$, the inverse of the $i$-th diagonal entry of the precision, is too small for every
  column that is not orthogonal to all the others.
- `fit` climbs by expectation–maximisation, and no local maximum in $(W, \sigma^2)$ can stop it short of the global one.

## Exercises

**Exercise 4.1. An encoder without the restriction.** Let $D$ be any symmetric positive definite matrix $\Sigma$. Show
that the derivative of the ELBO in it is $\tfrac12 (\Sigma^{-1} - I - \tfrac1s W^\top W)$, find the best
$\Sigma$, and show that the ELBO is then $\log p$, whatever $W$ is. Check it with PyTorch.
"""

# %% tags=["hide-cell"]
# d log det Σ = tr(Σ⁻¹ dΣ), and E zᵀAz = mᵀAm + tr(AΣ) holds for any Σ. So -(B) + (C) contains Σ in
# ½ [log det Σ - tr Σ - tr(WᵀW Σ)/s], and its derivative is ½ (Σ⁻¹ - I - WᵀW/s). It vanishes at
# Σ = s (WᵀW + sI)⁻¹ = s M⁻¹: with V*, the true posterior. Then (A) = 0 in Eq. 14.
Sigma = torch.tensor(s * np.linalg.inv(M), requires_grad=True)
gram = torch.tensor(W.T @ W)
with_Sigma = (torch.logdet(Sigma) - torch.trace(Sigma) - torch.trace(gram @ Sigma) / s) / 2
(slope,) = torch.autograd.grad(with_Sigma, Sigma)
with_D = (np.log(D_star) - D_star - (W**2).sum(axis=0) * D_star / s).sum() / 2
unrestricted = best.elbo(moments) - with_D + with_Sigma.item()
assert slope.abs().max() < 1e-12
assert np.isclose(unrestricted, best.log_likelihood(moments), rtol=1e-12)
print("with Σ = s M⁻¹ the ELBO is the log likelihood, and the slope is zero")

# %% [markdown]
r"""
**Exercise 4.2. How much too small?** For $k = 2$ show that $D_i^* / (s M^{-1})_{ii} = 1 - M_{12}^2 / (M_{11} M_{22})$
for both latents: one minus the squared correlation of the posterior. Which ratio can two parallel columns of
squared length $c$ reach as $s$ goes to zero?
"""

# %% tags=["hide-cell"]
# M⁻¹ has the diagonal entries M_22 / det M and M_11 / det M, with det M = M_11 M_22 - M_12². So
# D_1* / (s M⁻¹)_11 = (s / M_11) / (s M_22 / det M) = det M / (M_11 M_22), and the same for the second latent.
# Parallel columns: M_12 = c, M_ii = c + s, and the ratio is 1 - c² / (c + s)², about 2 s / c: it goes to 0.
covariance = s * np.linalg.inv(M)
correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
assert np.allclose(D_star / np.diag(covariance), 1 - correlation**2)
for tiny in (0.1, 0.01, 0.001):
    covariance, variances = posterior_and_best(two_columns(0.0, length=1.0), tiny)
    print(f"parallel columns, c = 1, σ² = {tiny}: ratio {variances[0] / covariance[0, 0]:.4f}")

# %% [markdown]
r"""
**Exercise 4.3. The price of a wrong variance.** An encoder has the right mean, but each of its variances is $t$ times
the best one. Show that this costs $\tfrac12 (t - 1 - \log t)$ nats per latent, whatever $W$, $\sigma^2$ and
the data. What does a factor of two cost?
"""

# %% tags=["hide-cell"]
# With β = 1 the terms with D_i are ½ [log D_i - D_i / D_i*]. At D_i = t D_i* they are ½ [log D_i* + log t - t],
# which is lower than at t = 1 by ½ (t - 1 - log t).
for factor in (0.5, 2.0):
    worse = LinearVAE(W, V_star, factor * D_star, moments.mean, s)
    price = (best.elbo(moments) - worse.elbo(moments)) / k
    assert np.isclose(price, (factor - 1 - np.log(factor)) / 2, rtol=1e-9)
    print(f"variances times {factor}: {price:.4f} nats per latent")

# %% [markdown]
r"""
**Exercise 4.4. Climbing without a step size.** Solve Eq. 22 for $W$ with everything else fixed. Is the solution a
maximum? Then alternate: best encoder, best $W$, best $\sigma^2$. No step can lower the ELBO. Does it reach
the maximum likelihood of [chapter 1](01_ppca.ipynb#equation-8), and do the columns become orthogonal?
"""

# %% tags=["hide-cell"]
# Eq. 22 with S at μ = mean: W (D + V S Vᵀ) = S Vᵀ. The matrix in brackets is positive definite because D is,
# so W = S Vᵀ (D + V S Vᵀ)⁻¹, a regression of x on z. In W the ELBO is -tr(W (D + V S Vᵀ) Wᵀ) / 2s plus something
# linear: concave, so this is the maximum. (The whole is variational EM.)
known, *_ = data.synthetic_ppca(500, [6, 3, 1, 1, 1, 1], k=2, seed=3)
known_moments = Moments.from_samples(known)
S, W_em, s_em = known_moments.covariance, np.random.default_rng(4).standard_normal((6, 2)), 1.0
elbos = []
for _ in range(300):
    V_em, D_em = optimal_encoder(W_em, s_em)
    W_em = S @ V_em.T @ np.linalg.inv(np.diag(D_em) + V_em @ S @ V_em.T)
    error = (np.eye(6) - W_em @ V_em) @ S @ (np.eye(6) - W_em @ V_em).T
    s_em = (np.trace(error) + (W_em**2).sum(axis=0) @ D_em) / 6
    elbos.append(profile_elbo(W_em, known_moments, s_em))

# %% tags=["hide-cell"]
assert (np.diff(elbos) > -1e-12).all()
short = ppca.max_log_likelihood(known_moments)[1] - elbos[-1]
cosine = W_em[:, 0] @ W_em[:, 1] / np.linalg.norm(W_em, axis=0).prod()
print(f"within 1e-6 nats of the maximum: {short < 1e-6}; columns orthogonal to 1e-3: {abs(cosine) < 1e-3}")

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md); Equations 14 to 22 are in its Appendix C. It takes
the rules for matrix derivatives from [Petersen & Pedersen, 2012](../book/references.md), where many more are
listed. The alternation of the last exercise, with an unrestricted encoder, is the expectation–maximisation
algorithm of [Tipping & Bishop, 1999](../book/references.md); parameter expansion for it is due to
[Liu, Rubin & Wu, 1998](../book/references.md).

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "torch", "sympy"):
    print(name, version(name))
