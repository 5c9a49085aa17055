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
# Probabilistic PCA

Probabilistic PCA is a latent variable model in which everything can be worked out with pencil and paper: the
density of the data, the posterior over the latents, and the best parameters there are. This chapter derives
all three (Equations 5 to 8 of the paper), each by two routes where two are to be had, and checks each by
machine. It ends with the whole curve of best log likelihoods for MNIST, and with the spectra for which the
formulas need care.

> **In short**
>
> - A linear model with Gaussian noise sees the data through their mean and covariance $S$ alone, and all about it
>   can be worked out.
> - Its best noise variance is the average of the eigenvalues that get no latent,
>   $\sigma^2_{\text{MLE}} = \frac{1}{n - k} \sum_{i > k} \lambda_i$. Its best weights are
>   $W = U_k (\Lambda_k - \sigma^2 I)^{1/2} R$, the leading eigenvectors, rotated at will.
> - At a noise variance that is set by hand the best $W$ uses just the eigenvalues above it. The other columns are
>   zero, and their latents have collapsed.
> - For your VAE: count the eigenvalues of your data's covariance that exceed your $\sigma^2$. That is how many
>   latents a linear decoder could use.

**You need**: [Eq. 1](00_preliminaries.ipynb#equation-1), and linear algebra as far as eigenvectors and the
singular value decomposition. **Time to run**: under 10 seconds on a laptop; no GPU needed.

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
from pathlib import Path

import numpy as np
import torch
from flint import fmpq, fmpq_mat, fmpz_mat
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA

from helpers import data, plots
from helpers.exact import enclosures, scatter
from helpers.ledger import Ledger
from helpers.moments import Moments
from helpers.ppca import PPCA, fit, gradient, max_log_likelihood

# %% tags=["hide-input"]
ledger = Ledger("01_ppca")

# %% [markdown]
r"""
The chapter is the same in every profile: its largest input is the covariance of MNIST, which travels with the
package.

## The model, drawn

The model is [Eq. 1](00_preliminaries.ipynb#equation-1): draw $z \in \mathbb R^k$ from $\mathcal N(0, I_k)$,
map it to $Wz + \mu \in \mathbb R^n$, and add noise $\varepsilon \sim \mathcal N(0, \sigma^2 I_n)$. Here $W$
is $n \times k$ with $k \le n$, $\mu$ has $n$ entries, and $\sigma^2 > 0$ is one number. Two matrices will be
with us all the way,

$$ C = W W^\top + \sigma^2 I_n \quad (n \times n), \qquad M = W^\top W + \sigma^2 I_k \quad (k \times k). $$

Both are symmetric, and both are positive definite because of the $\sigma^2$, so both have inverses. $C$ lives
in the space of the data and $M$ in the space of the latents. For MNIST $n$ is 784 and $k$ may be 10: most of
this chapter's tricks are ways to do in $k$ dimensions what seems to ask for $n$.

The smallest interesting case has $n = 2$ and $k = 1$, and can be drawn.
"""

# %% tags=["hide-input"]
small = PPCA(W=[[1.6], [0.9]], mu=[0.0, 0.0], sigma2=0.15)
cloud, _ = small.sample(400, seed=0)
point = np.array([[1.9, 0.2]])
(z_mean,), z_variance = small.posterior(point)
turn = np.linspace(0, 2 * np.pi, 200)
ellipse = 2 * np.linalg.cholesky(small.C) @ np.stack([np.cos(turn), np.sin(turn)])

# %% mystnb={"image": {"alt": "Samples about a line, inside an ellipse; beside it, a broad prior, a narrow posterior"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.0, height=3.4)
left.plot(*cloud.T, ".", color="0.6", markersize=3, label="samples of x")
left.plot(*(small.W @ [[-2.4, 2.4]]), "--", label="the line Wz + μ")
left.plot(*ellipse, "-", label="two standard deviations of p(x)")
left.plot(*point.T, "k*", markersize=11, label="one x")
left.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-4.6, 4.6), ylim=(-2.9, 4.9))
left.legend(loc="upper left", fontsize=8.5)
z_axis = np.linspace(-3.5, 3.5, 300)
right.plot(z_axis, norm.pdf(z_axis), "--", label="prior p(z)")
right.plot(z_axis, norm.pdf(z_axis, z_mean, np.sqrt(z_variance[0])), "-", label="posterior p(z | x), the starred x")
right.set(xlabel="z", ylabel="density", ylim=(0, 2.6))
_ = right.legend(loc="upper left", fontsize=8.5)

# %% [markdown]
r"""
**Figure 1.1.** A model with $n = 2$ and $k = 1$: samples of it, and what one of them says of its latent.

On the left, the latent $z$ says where on the dashed line a sample starts, and the noise moves it off the
line; the ellipse is [Eq. 5](#equation-5). On the right, one observation has narrowed what we know of $z$ from
the prior to the posterior, which is [Eq. 6](#equation-6). If $W$ were zero the two densities on the right
would coincide: the observation would say nothing of $z$. That is posterior collapse, in one dimension.

## The marginal and the posterior

### Equation 5

**The paper says** that integrating $z$ out of the model leaves a Gaussian for $x$,

$$ p(x) = \mathcal N(\mu,\; W W^\top + \sigma^2 I). \tag{5} $$

**First derivation: moments.** By Eq. 1, $x = Wz + \mu + \varepsilon$, where $z$ ($k$ entries) and
$\varepsilon$ ($n$ entries) are independent Gaussians. Stacked, they are one Gaussian vector with $k + n$
entries, and $x$ is an affine function of it:

$$ x = \begin{pmatrix} W & I_n \end{pmatrix} \begin{pmatrix} z \\ \varepsilon \end{pmatrix} + \mu . $$

An affine function $Ag + b$ of a Gaussian vector $g \sim \mathcal N(0, \Gamma)$ is Gaussian: its
characteristic function is

$$ \mathbb E\, e^{i t^\top (Ag + b)} = e^{i t^\top b}\, \mathbb E\, e^{i (A^\top t)^\top g}
= \exp\!\big( i t^\top b - \tfrac12 t^\top A \Gamma A^\top t \big), $$

which is that of $\mathcal N(b, A \Gamma A^\top)$. So $x$ is Gaussian, and only its mean and covariance are
left to find. The mean is $W\,\mathbb E z + \mu + \mathbb E \varepsilon = \mu$. With
$y = x - \mu = Wz + \varepsilon$, the covariance is

$$ \mathbb E\, y y^\top = W\, \mathbb E[z z^\top]\, W^\top + W\, \mathbb E[z \varepsilon^\top]
+ \mathbb E[\varepsilon z^\top]\, W^\top + \mathbb E[\varepsilon \varepsilon^\top]
= W W^\top + 0 + 0 + \sigma^2 I_n = C, $$

where the middle terms vanish because $z$ and $\varepsilon$ are independent with mean zero. That is Eq. 5.

**Second derivation: completing the square.** This one is longer. It pays for itself, since the posterior and
two matrix identities fall out on the way. Write $s = \sigma^2$ and, again, $y = x - \mu$. The joint density
is

$$ p(x \mid z)\, p(z) = (2\pi s)^{-n/2} (2\pi)^{-k/2}
\exp\!\Big( -\tfrac{1}{2s} \|y - Wz\|^2 - \tfrac12 \|z\|^2 \Big). $$

Multiply the exponent by $-2s$ and expand, collecting what is quadratic in $z$:

$$ \|y - Wz\|^2 + s \|z\|^2 = y^\top y - 2 z^\top W^\top y + z^\top (W^\top W + s I_k)\, z
= y^\top y - 2 z^\top W^\top y + z^\top M z . $$

Let $m = M^{-1} W^\top y$, a vector with $k$ entries, so that $W^\top y = M m$. Then

$$ z^\top M z - 2 z^\top M m = (z - m)^\top M (z - m) - m^\top M m, \qquad m^\top M m = y^\top W M^{-1} W^\top y, $$

and the joint density splits into a factor with $z$ and a factor without:

$$ p(x, z) = (2\pi s)^{-n/2} (2\pi)^{-k/2}\;
\exp\!\Big( -\tfrac{1}{2s} (z - m)^\top M (z - m) \Big)\;
\exp\!\Big( -\tfrac{1}{2}\, y^\top\, \tfrac{1}{s} \big(I_n - W M^{-1} W^\top\big)\, y \Big). $$

The first exponential is an unnormalised Gaussian in $z$ with covariance $s M^{-1}$. Its integral over
$\mathbb R^k$ is $(2\pi)^{k/2} |s M^{-1}|^{1/2} = (2\pi)^{k/2}\, s^{k/2}\, |M|^{-1/2}$. Hence

$$ p(x) = (2\pi)^{-n/2}\, \big( s^{\,n-k} |M| \big)^{-1/2}
\exp\!\Big( -\tfrac12\, y^\top\, \tfrac1s \big(I_n - W M^{-1} W^\top\big)\, y \Big). $$

This is $\mathcal N(\mu, C)$ provided that two identities hold, and both are worth having for their own sake.

*Woodbury:* $\;C^{-1} = \tfrac1s (I_n - W M^{-1} W^\top)$. Multiply the right side by $C$ and see that $I_n$
comes out:

$$ \begin{aligned} \tfrac1s (W W^\top + s I_n)(I_n - W M^{-1} W^\top)
&= \tfrac1s \big( W W^\top + s I_n - W (W^\top W) M^{-1} W^\top - s\, W M^{-1} W^\top \big) \\
&= \tfrac1s \big( W W^\top + s I_n - W (W^\top W + s I_k) M^{-1} W^\top \big) \\
&= \tfrac1s \big( W W^\top + s I_n - W W^\top \big) = I_n . \end{aligned} $$

*Determinant:* $\;|C| = s^{\,n-k} |M|$. Take the square matrix with $n + k$ rows below and factor it in two
ways (multiply out each product to see that it is right; the blocks are $n$ and $k$ wide):

$$ \begin{pmatrix} s I_n & W \\ -W^\top & I_k \end{pmatrix}
= \begin{pmatrix} s I_n & 0 \\ -W^\top & I_k \end{pmatrix}
  \begin{pmatrix} I_n & \tfrac1s W \\ 0 & I_k + \tfrac1s W^\top W \end{pmatrix}
= \begin{pmatrix} I_n & W \\ 0 & I_k \end{pmatrix}
  \begin{pmatrix} s I_n + W W^\top & 0 \\ -W^\top & I_k \end{pmatrix}. $$

The determinant of a block triangular matrix is the product of the determinants of its diagonal blocks. The
first factorisation gives $s^n\, |I_k + \tfrac1s W^\top W| = s^n\, |\tfrac1s M| = s^{\,n-k} |M|$, the second
gives $|C|$. They are determinants of one matrix, so they are equal. With both identities
$p(x) = \mathcal N(\mu, C)$, as the first derivation said.

**$M$ or $C$: why no $n \times n$ matrix need be inverted.** The two identities trade the $n \times n$ matrix
$C$ for the $k \times k$ matrix $M$, in $O(nk^2)$ operations instead of $O(n^3)$. The package goes one step
further and takes the singular value decomposition $W = U L R^\top$, with $U$ ($n \times k$) and $R$
($k \times k$) having orthonormal columns and $L$ diagonal with entries $l_1, \dots, l_k \ge 0$. Then
$W W^\top = U L^2 U^\top$, so

$$ C = U (L^2 + s I_k)\, U^\top + s\, (I_n - U U^\top): $$

variance $l_i^2 + s$ along the $i$-th axis, and $s$ in the $n - k$ directions that are left. Inverse and
determinant are read off: divide by those variances, multiply them. In finite precision this is kinder than
Woodbury's formula, which subtracts two nearly equal numbers when $s$ is small.

**From one sample to all of them.** The average log likelihood of samples $x_1, \dots, x_N$ is

$$ \ell = \frac1N \sum_{i=1}^N \log p(x_i)
= -\tfrac12 \Big[ n \log 2\pi + \log |C| + \frac1N \sum_i (x_i - \mu)^\top C^{-1} (x_i - \mu) \Big]. $$

A number is its own trace, and $\operatorname{tr}(AB) = \operatorname{tr}(BA)$, so the last term is
$\operatorname{tr}\big( C^{-1} \tfrac1N \sum_i (x_i - \mu)(x_i - \mu)^\top \big)$. Let
$\bar x = \tfrac1N \sum_i x_i$ and $S = \tfrac1N \sum_i (x_i - \bar x)(x_i - \bar x)^\top$. Write
$x_i - \mu = (x_i - \bar x) + (\bar x - \mu)$; the mixed terms sum to zero because
$\sum_i (x_i - \bar x) = 0$. So, exactly and for any $\mu$,

$$ \ell = -\tfrac12 \Big[ n \log 2\pi + \log |C| + \operatorname{tr}(C^{-1} S)
+ (\bar x - \mu)^\top C^{-1} (\bar x - \mu) \Big]. $$

The data enter through $\bar x$ and $S$ and in no other way. Whoever has those two has all that this model can
ever learn from the data, and a million images weigh no more than a thousand. Note the $1/N$ in $S$: it came
with the average, nobody chose it. [Eq. 7](#equation-7) will come back to this.

Here are these lines as code. First the axes and the standard deviations along them, then the
pieces of Eq. 5.
"""

# %%
plots.show_source(PPCA.axes.func)

# %%
plots.show_source(PPCA.split)

# %%
plots.show_source(PPCA.mahalanobis)

# %%
plots.show_source(PPCA.log_normaliser)

# %%
plots.show_source(PPCA.log_likelihood_samples)

# %%
plots.show_source(PPCA.average_mahalanobis)

# %%
plots.show_source(PPCA.log_likelihood)

# %% [markdown]
r"""
For the average, write $S = F F^\top$ with a root $F$ of as many columns as $S$ has rank (Cholesky's method with
pivoting finds one). Then $\operatorname{tr}(C^{-1} S) = \sum_j f_j^\top C^{-1} f_j$, the squared lengths under
$C^{-1}$ of the columns of $F$. The column $\bar x - \mu$ joins them. The diagonal matrix measures what the rounding of
$S$ can hide: where that could change the answer, the code says so and gives none.

**Check.** A generic model with $n = 5$ and $k = 2$, and twelve points moved off its mean, so that a mistake
in $\mu$ could not hide. The package holds Eq. 5 in three forms: per sample, as the matrix $C$, and averaged
from moments. Each check faces all three.
"""

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
n, k, sigma2 = 5, 2, 0.6
W, mu = rng.standard_normal((n, k)), rng.standard_normal(n)
model = PPCA(W, mu, sigma2)
x = model.sample(12, seed=1)[0] + 0.7


# %% tags=["hide-cell"]
def three_forms(model, x):
    """Eq. 5 as the package has it: per sample, as the matrix C, and averaged from moments."""
    through_C = multivariate_normal(model.mu, model.C).logpdf(x)
    return np.r_[model.log_likelihood_samples(x), through_C, model.log_likelihood(Moments.from_samples(x))]


def three_times(log_p):
    """log p(x) from elsewhere, (N,), laid out as `three_forms` does."""
    return np.r_[log_p, log_p, log_p.mean()]


# %% [markdown]
r"""
SciPy's Gaussian density, with $W W^\top + \sigma^2 I$ typed out:
"""

# %% tags=["hide-cell"]
scipy_log_p = multivariate_normal(mu, W @ W.T + sigma2 * np.eye(n)).logpdf(x)
ledger.check(5, "SciPy's Gaussian density", "library", three_forms(model, x), three_times(scipy_log_p), 1e-10)

# %% [markdown]
r"""
The identities of the second derivation, with the $k \times k$ matrix $M$ only:
"""

# %% tags=["hide-cell"]
M, y = W.T @ W + sigma2 * np.eye(k), x - mu
log_det = (n - k) * np.log(sigma2) + np.linalg.slogdet(M)[1]
squares = ((y**2).sum(1) - ((y @ W) @ np.linalg.inv(M) * (y @ W)).sum(1)) / sigma2
woodbury_log_p = -(n * np.log(2 * np.pi) + log_det + squares) / 2
ledger.check(
    5, "Woodbury and determinant identities", "algebra", three_forms(model, x), three_times(woodbury_log_p), 1e-10
)

# %% [markdown]
r"""
The integral itself, $p(x) = \int p(x \mid z)\, p(z)\, dz$, by the trapezoidal rule on a grid over $z$. For
smooth functions that vanish at both ends of the grid this simple rule is extremely accurate.
"""

# %% tags=["hide-cell"]
axis = np.linspace(-9, 9, 181)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, k)
cell = (axis[1] - axis[0]) ** k


def log_conditional(x, z):
    """log p(x | z) of Eq. 1 for one x (n,) and many z (Z, k), (Z,)."""
    return norm.logpdf(x, z @ W.T + mu, np.sqrt(sigma2)).sum(axis=1)


log_joint = np.stack([log_conditional(point, grid) + norm.logpdf(grid).sum(axis=1) for point in x])
grid_log_p = logsumexp(log_joint, axis=1) + np.log(cell)
ledger.check(5, "integral over z on a grid", "quadrature", three_forms(model, x), three_times(grid_log_p), 1e-10)

# %% [markdown]
r"""
And the same integral as an average over draws of $z$ from its prior, $p(x) = \mathbb E_{z}\, p(x \mid z)$:
"""

# %% tags=["hide-cell"]
draws = rng.standard_normal((100_000, k))
mc_log_p = np.array([logsumexp(log_conditional(point, draws)) for point in x]) - np.log(len(draws))
ledger.check(5, "average over draws of z", "Monte Carlo", three_forms(model, x), three_times(mc_log_p), 1e-2)

# %% [markdown]
r"""
**Note.** Eq. 5 stands as printed. We add one thing. Only $W W^\top$ enters it, so $W$ and $WR$ give the same
density whenever $R$ is orthogonal: no amount of data can tell them apart. [Eq. 8](#equation-8) shows that
at a given $\sigma^2$ this is the only ambiguity there is.

### Equation 6

**The paper says** that the posterior over the latents is Gaussian too,

$$ p(z \mid x) = \mathcal N\big( M^{-1} W^\top (x - \mu),\; \sigma^2 M^{-1} \big), \qquad
M = W^\top W + \sigma^2 I. \tag{6} $$

**First derivation: completing the square.** The work is done already. In the second derivation of Eq. 5 the
joint density came out as a factor $\exp\big(-\tfrac{1}{2s}(z - m)^\top M (z - m)\big)$, with
$m = M^{-1} W^\top (x - \mu)$, times a factor without $z$. By Bayes' rule $p(z \mid x) = p(x, z) / p(x)$, and
for a given $x$ both $p(x)$ and the second factor are constants. So as a function of $z$ the posterior is
proportional to the first factor, which is the density of $\mathcal N(m, s M^{-1})$ without its constant; and
a density has only one constant with which it integrates to 1. That is Eq. 6.

**Second derivation: conditioning a joint Gaussian.** By the first derivation of Eq. 5, $(z, x)$ is jointly
Gaussian with means $0$ and $\mu$. With $y = x - \mu = Wz + \varepsilon$, the covariances are
$\mathbb E\, z z^\top = I_k$, $\mathbb E\, y y^\top = C$, and
$\mathbb E\, z y^\top = \mathbb E[z z^\top] W^\top + \mathbb E[z \varepsilon^\top] = W^\top$, which is
$k \times n$. Predict $z$ linearly from $y$ and call what is left over $r$:

$$ z = W^\top C^{-1} y + r . $$

The remainder is uncorrelated with $y$:
$\;\mathbb E\, r y^\top = \mathbb E\, z y^\top - W^\top C^{-1}\, \mathbb E\, y y^\top = W^\top - W^\top C^{-1} C = 0$.
Jointly Gaussian and uncorrelated means independent, so knowing $x$ fixes the first term and leaves the
distribution of $r$ as it was: Gaussian, with mean zero and covariance

$$ \mathbb E\, r r^\top = \mathbb E\, r z^\top = \mathbb E\, z z^\top - W^\top C^{-1}\, \mathbb E\, y z^\top
= I_k - W^\top C^{-1} W . $$

(The first step uses $\mathbb E\, r y^\top = 0$ once more.) Therefore
$p(z \mid x) = \mathcal N\big( W^\top C^{-1} (x - \mu),\; I_k - W^\top C^{-1} W \big)$. The inverse here is
$n \times n$. To come back to $k \times k$, multiply out both sides of

$$ W M = W W^\top W + s W = C W, $$

then multiply by $C^{-1}$ from the left and by $M^{-1}$ from the right: $C^{-1} W = W M^{-1}$, or, transposed,
$W^\top C^{-1} = M^{-1} W^\top$. The mean is now that of Eq. 6. The covariance is
$I_k - M^{-1} W^\top W = M^{-1} (M - W^\top W) = s M^{-1}$, that of Eq. 6 as well.

In code, with $W = U \operatorname{diag}(l) R^\top$ we have
$M^{-1} W^\top = R \operatorname{diag}\big(l / (l^2 + s)\big) U^\top$. The matrix $M$ itself is never formed, since it
would lose a small $s$ in its rounding.
"""

# %%
plots.show_source(PPCA.posterior)

# %% [markdown]
r"""
**Check.** The same model and points. Each check compares the twelve means and the covariance at once.
"""

# %% tags=["hide-cell"]
means, covariance = model.posterior(x)
posterior = np.r_[means.ravel(), covariance.ravel()]

C = W @ W.T + sigma2 * np.eye(n)
joint_means, joint_covariance = y @ np.linalg.inv(C) @ W, np.eye(k) - W.T @ np.linalg.inv(C) @ W
conditioned = np.r_[joint_means.ravel(), joint_covariance.ravel()]
ledger.check(6, "conditioning the joint Gaussian, n x n inverse", "algebra", posterior, conditioned, 1e-10)

# %% [markdown]
r"""
Bayes' rule on the grid of before: weigh each $z$ by $p(x, z)$, normalise, and take the mean and the
covariance.
"""

# %% tags=["hide-cell"]
weights = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
grid_means = weights @ grid
off = grid - grid_means[0]
grid_covariance = (weights[0][:, None] * off).T @ off
by_bayes = np.r_[grid_means.ravel(), grid_covariance.ravel()]
ledger.check(6, "Bayes' rule on a grid of z", "quadrature", posterior, by_bayes, 1e-10)

# %% [markdown]
r"""
Draws from the joint model: a least squares regression of $z$ on $x - \mu$ estimates the posterior mean as a
function of $x$, and what the regression leaves unexplained has the posterior's covariance.
"""

# %% tags=["hide-cell"]
x_draws, z_draws = model.sample(200_000, seed=2)
slope, *_ = np.linalg.lstsq(x_draws - mu, z_draws, rcond=None)
left_over = z_draws - (x_draws - mu) @ slope
regressed = np.r_[(y @ slope).ravel(), (left_over.T @ left_over / len(left_over)).ravel()]
ledger.check(6, "regression of sampled z on sampled x", "Monte Carlo", posterior, regressed, 1e-2)

# %% [markdown]
r"""
Read the other way round, one observation $x$ is a small data set of its own: $n$ numbers $x - \mu$ to be
explained by $k$ regressors, the columns of $W$, with coefficients $z$ that have a standard Gaussian prior.
That is Bayesian linear regression, or a Gaussian process with a dot product kernel, and scikit-learn knows
how to do that.
"""

# %% tags=["hide-cell"]
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

kernel = DotProduct(sigma_0=0.0, sigma_0_bounds="fixed")
regression = GaussianProcessRegressor(kernel, alpha=sigma2, optimizer=None).fit(W, y.T)
gp_means, gp_covariances = regression.predict(np.eye(k), return_cov=True)
by_regression = np.r_[gp_means.T.ravel(), gp_covariances[..., 0].ravel()]
ledger.check(6, "scikit-learn's Gaussian process regression", "library", posterior, by_regression, 1e-10)

# %% [markdown]
r"""
**Note.** Eq. 6 stands as printed. Two remarks that the rest of the book leans on are ours. First, the
posterior covariance $\sigma^2 M^{-1}$ does not depend on $x$, so an encoder with one covariance for all
inputs loses nothing by that. Second, if column $i$ of $W$ is zero, then row and column $i$ of $M$ are
$\sigma^2$ times those of the identity: the posterior of $z_i$ is $\mathcal N(0, 1)$ for every $x$, which is
its prior. The latent has collapsed, under the *true* posterior, with no variational approximation in sight.

## Maximum likelihood

Equations 7 and 8 give the parameters at which the likelihood is largest. Both come from one argument. We
prove in full that they are a global maximum, and when it is the only one, in five steps under Equation 7;
Equation 8 reads off the weights. The tool is a bound on the likelihood that holds for every parameter and is
met by these.

### Equation 7

**The paper says** that the best $\mu$ is the mean of the data, and the best noise variance the average of the
eigenvalues left out,

$$ \sigma^2_{\text{MLE}} = \frac{1}{n-k} \sum_{j=k+1}^{n} \lambda_j. \tag{7} $$

Throughout, $S = \sum_j \lambda_j u_j u_j^\top$ is the eigendecomposition of the $1/N$ covariance, with
$\lambda_1 \ge \dots \ge \lambda_n \ge 0$ and $u_1, \dots, u_n$ orthonormal; $s = \sigma^2$; and $k < n$.

**Derivation. Step 1: $\mu$.** In the average log likelihood $\ell$ above, $\mu$ appears only in
$-\tfrac12 (\bar x - \mu)^\top C^{-1} (\bar x - \mu)$. As $C^{-1}$ is positive definite this is negative
unless $\mu = \bar x$. So whatever $W$ and $s$ are, $\mu = \bar x$ is best, and it is the only best. What
remains to be maximised is

$$ \ell(W, s) = -\tfrac12 \big[ n \log 2\pi + \log |C| + \operatorname{tr}(C^{-1} S) \big]. $$

**Step 2: a sum over $m$ directions.** *For orthonormal $v_1, \dots, v_m$ in $\mathbb R^n$,
$\;\sum_{j \le m} v_j^\top S v_j \le \lambda_1 + \dots + \lambda_m$.* No $m$ directions hold more variance
than the first $m$ principal ones. To see it, put $q_i = \sum_{j \le m} (u_i^\top v_j)^2$. Then
$\sum_{j \le m} v_j^\top S v_j = \sum_i \lambda_i q_i$. Each $q_i$ is the squared length of the projection of
the unit vector $u_i$ on the span of the $v_j$, so $0 \le q_i \le 1$; and
$\sum_i q_i = \sum_{j \le m} \|v_j\|^2 = m$. Now

$$ \sum_{i \le m} \lambda_i - \sum_i \lambda_i q_i
= \sum_{i \le m} \lambda_i (1 - q_i) - \sum_{i > m} \lambda_i q_i
= \sum_{i \le m} (\lambda_i - \lambda_m)(1 - q_i) + \sum_{i > m} (\lambda_m - \lambda_i)\, q_i \;\ge\; 0 . $$

In the second equality we have added $\lambda_m \big[ \sum_{i > m} q_i - \sum_{i \le m} (1 - q_i) \big]$,
which is $\lambda_m [\, \sum_i q_i - m\,] = 0$; every term of the result is a product of two numbers that are
not negative.

**Step 3: the best $W$ for a given $s$.** Let $v_1, \dots, v_n$ be orthonormal eigenvectors of $C$ with
eigenvalues $c_1 \ge \dots \ge c_n$. As $W W^\top$ is positive semi-definite with rank at most $k$,
$c_i \ge s$ for $i \le k$, and $c_i = s$ for $i > k$. With $d_j = 1/s - 1/c_j$ we can write
$C^{-1} = \tfrac1s I - \sum_{j \le k} d_j v_j v_j^\top$, and $d_1 \ge \dots \ge d_k \ge 0$. Set $d_{k+1} = 0$.
Summation by parts and Step 2 give

$$ \sum_{j \le k} d_j\, v_j^\top S v_j
= \sum_{m=1}^{k} (d_m - d_{m+1}) \sum_{j \le m} v_j^\top S v_j
\;\le\; \sum_{m=1}^{k} (d_m - d_{m+1}) \sum_{j \le m} \lambda_j = \sum_{j \le k} d_j \lambda_j , $$

and so

$$ \operatorname{tr}(C^{-1} S) = \frac1s \sum_i \lambda_i - \sum_{j \le k} d_j\, v_j^\top S v_j
\;\ge\; \frac1s \sum_i \lambda_i - \sum_{j \le k} d_j \lambda_j = \sum_i \frac{\lambda_i}{c_i} . $$

(This is von Neumann's trace inequality for our case.) Together with $\log |C| = \sum_i \log c_i$,

$$ \ell(W, s) \;\le\; -\tfrac12 \Big[ n \log 2\pi + \sum_{i \le k} \Big( \log c_i + \frac{\lambda_i}{c_i} \Big)
+ \sum_{i > k} \Big( \log s + \frac{\lambda_i}{s} \Big) \Big]. $$

Each bracket with $i \le k$ can be made small on its own. The derivative of $\log c + \lambda/c$ is
$(c - \lambda)/c^2$: the function falls until $c = \lambda$ and rises from there, so on $c \ge s$ it is
smallest at $c = \max(\lambda, s)$, and only there. Hence

$$ \ell(W, s) \;\le\; g(s) = -\tfrac12 \Big[ n \log 2\pi
+ \sum_{i \le k} \Big( \log \max(\lambda_i, s) + \frac{\lambda_i}{\max(\lambda_i, s)} \Big)
+ \sum_{i > k} \Big( \log s + \frac{\lambda_i}{s} \Big) \Big]. $$

The bound is met. Let $W$ have the columns $u_i \sqrt{\max(\lambda_i - s,\, 0)}$, $i \le k$: then $C$ has the
eigenvectors $u_i$, with the eigenvalues $\max(\lambda_i, s)$ for $i \le k$ and $s$ for $i > k$, and every
inequality above is an equality. So $g(s)$ *is* the maximum of $\ell$ over $W$ at that $s$. In one sentence:

> **Theorem 1.1** (The best weights at a given noise variance). *For every $s > 0$ the largest $\ell(W, s)$ over all $W$
> is $g(s)$, and the columns $u_i \sqrt{\max(\lambda_i - s,\, 0)}$, $i \le k$, attain it.*

**Step 4: the best $s$.** The $i$-th term with $i \le k$ does not change with $s$ while $s < \lambda_i$, and
has derivative $(s - \lambda_i)/s^2$ once $s > \lambda_i$; at $s = \lambda_i$ both are zero. With the residual
variance $\rho = \sum_{j > k} \lambda_j$,

$$ -2 s^2\, g'(s) = \sum_{i \le k} \max(s - \lambda_i,\, 0) + (n - k)\, s - \rho . $$

The right side increases strictly in $s$, without limit, and tends to $-\rho$ as $s \to 0$. If $\rho > 0$ it
therefore crosses zero exactly once, so $g$ rises up to that $s$ and falls beyond it: one peak, and no other
local maximum. To find the crossing, try $s = \rho / (n - k)$. It is the average of
$\lambda_{k+1}, \dots, \lambda_n$, hence at most $\lambda_{k+1}$, hence at most every $\lambda_i$ with
$i \le k$. The sum over $i \le k$ is then zero, and so is the right side. This is the crossing, and that is
Eq. 7. Together with Theorem 1.1:

> **Theorem 1.2** (Maximum likelihood). *If $\rho = \sum_{j > k} \lambda_j > 0$, the log likelihood has a global maximum
> over $\mu$, $W$ and $\sigma^2$. It is at $\mu = \bar x$, at $\sigma^2_{\text{MLE}} = \rho / (n - k)$ and no other noise
> variance, and at the weights of Theorem 1.1 for it.*

**Step 5: when there is no maximum.** If $\rho = 0$, which means that $k$ is at least the rank $r$ of $S$, the
right side is positive for all $s > 0$: $g$ increases all the way as $s \to 0$. As soon as $s$ is below the
$r$ positive eigenvalues, $g(s) = \text{const} - \tfrac{n - r}{2} \log s$, which has no upper bound. The model
has found a subspace that holds the data exactly, and claims to know the rest with ever greater certainty. The
formula would say $\sigma^2 = 0$, where no density exists. The package refuses with a `ValueError` instead.
"""

# %%
plots.show_source(fit)

# %% [markdown]
r"""
Step 4 as a picture: the best likelihood that any $W$ can reach at a given $s$. Three spectra with $n = 4$,
each of the kind that the proof has to treat on its own.
"""

# %% tags=["hide-input"]
cases = {
    "λ = (4, 2, 1, 0.5), k = 2": (np.array([4, 2, 1, 0.5]), 2),
    "λ = (4, 2, 0, 0), k = 2: no residual": (np.array([4, 2, 0, 0]), 2),
    "λ = (4, 2, 1, 0.5), k = 4 = n": (np.array([4, 2, 1, 0.5]), 4),
}
noise = np.geomspace(0.01, 8, 300)
peaks = {}
for name, (eigenvalues, k_case) in cases.items():
    diagonal = Moments(np.zeros(4), np.diag(eigenvalues), 100)
    peaks[name] = [fit(diagonal, k_case, s).log_likelihood(diagonal) for s in noise]

# %% mystnb={"image": {"alt": "Best likelihood by noise: one peak, one curve without bound, one flat then falling"}} tags=["hide-input"]
fig, ax = plots.figure(width=7.0, height=3.6)
for (name, values), line in zip(peaks.items(), plots.LINES, strict=False):
    ax.semilogx(noise, values, line, label=name)
ax.plot(0.75, peaks["λ = (4, 2, 1, 0.5), k = 2"][np.abs(noise - 0.75).argmin()], "ko", label="Eq. 7: 0.75")
ax.set(xlabel="noise variance σ²", ylabel="best log likelihood\n(nats per sample)", ylim=(-10, -2))
_ = ax.legend(fontsize=8.5)

# %% [markdown]
r"""
**Figure 1.2.** The best log likelihood at each noise variance for three spectra with $n = 4$: with residual
variance, without, and with $k = n$.

With residual variance there is one peak, at Eq. 7 (from $\sigma^2 = 1$ on, this curve and the dotted one are
the same). Without it the curve rises for ever to the left (Step 5). With $k = n$ it is flat up to
$\lambda_n$: there $C = S$ can be had with any $\sigma^2 \le \lambda_n$, and the likelihood does not say
which.

**Check.** The data: 300 samples with $n = 6$, correlated in no special way, and $k = 2$. To compare with, we
write $\ell(W, s)$ out with the full $n \times n$ matrix and NumPy's own covariance.
"""

# %% tags=["hide-cell"]
n, k = 6, 2
x = rng.standard_normal((300, n)) @ rng.standard_normal((n, n)) + rng.standard_normal(n)
moments = Moments.from_samples(x)
best = fit(moments, k)
S = np.cov(x.T, bias=True)


def log_likelihood(W, s, mu=None):
    """Average log likelihood, term by term as in Step 1; with mu at the mean unless it is given."""
    C = W @ W.T + s * np.eye(n)
    second_moment = S if mu is None else S + np.outer(x.mean(axis=0) - mu, x.mean(axis=0) - mu)
    return -(n * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, second_moment))) / 2


# %% [markdown]
r"""
A numerical optimiser that knows nothing of eigenvalues or means, from a random start, over all of $W$, $\mu$
and $\log \sigma^2$:
"""

# %% tags=["hide-cell"]
start = rng.standard_normal(n * k + n + 1)
found = minimize(
    lambda p: -log_likelihood(p[: n * k].reshape(n, k), np.exp(p[-1]), p[n * k : -1]),
    start,
    jac="3-point",
    method="L-BFGS-B",
    options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-8},
)
W_found, mu_found, sigma2_found = found.x[: n * k].reshape(n, k), found.x[n * k : -1], np.exp(found.x[-1])
ours, theirs = [best.sigma2, *best.mu], [sigma2_found, *mu_found]
ledger.check(7, "L-BFGS over W, μ and log σ²: σ² and μ", "optimisation", ours, theirs, 1e-4)

# %% [markdown]
r"""
Automatic differentiation. At the maximum the derivative of $\ell$ in $\sigma^2$ is zero. Comparing zero with
zero proves little, so we compare its two halves: the pull of $-\tfrac12 \log |C|$ toward a smaller noise and
the push of $-\tfrac12 \operatorname{tr}(C^{-1} S)$ toward a larger one. The weights are turned by a rotation
of the latents, for [Eq. 8](#equation-8).
"""

# %% tags=["hide-cell"]
angle = 0.7
R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
W_torch = torch.tensor(best.W @ R, requires_grad=True)
s_torch = torch.tensor(best.sigma2, dtype=torch.float64, requires_grad=True)
C_torch = W_torch @ W_torch.T + s_torch * torch.eye(n, dtype=torch.float64)
volume = torch.logdet(C_torch) / 2
misfit = torch.trace(torch.linalg.solve(C_torch, torch.tensor(S))) / 2
volume_W, volume_s = torch.autograd.grad(volume, (W_torch, s_torch), retain_graph=True)
misfit_W, misfit_s = torch.autograd.grad(misfit, (W_torch, s_torch))
ledger.check(7, "the two halves of the derivative in σ² balance", "autograd", volume_s, -misfit_s, 1e-10)

# %% [markdown]
r"""
Data from a model whose $\sigma^2$ we know. The estimate comes close to the truth, as maximum likelihood
should:
"""

# %% tags=["hide-cell"]
x_known, W_known, _, sigma2_known = data.synthetic_ppca(100_000, [5, 3, 2, 0.5, 0.5, 0.5, 0.5], k=3, seed=0)
recovered = fit(Moments.from_samples(x_known), 3)
ledger.check(7, "recovered from samples of a known model", "Monte Carlo", recovered.sigma2, sigma2_known, 2e-2)

# %% [markdown]
r"""
scikit-learn's PCA calls it `noise_variance_`. It divides by $N - 1$; we undo that here and come back to it
[below](#the-divisor-of-the-covariance). The data are its 1,797 handwritten digits, $n = 64$, with $k = 10$.
"""

# %% tags=["hide-cell"]
digits = data.digits()
digit_moments = Moments.from_samples(digits)
N, c = len(digits), len(digits) / (len(digits) - 1)
pca = PCA(10, svd_solver="full").fit(digits)
ledger.check(
    7, "scikit-learn's PCA on digits", "library", fit(digit_moments, 10).sigma2, pca.noise_variance_ / c, 1e-10
)

# %% [markdown]
r"""
And "the average variance lost in the projection", literally: project the digits on the ten principal axes
with a least squares solver, and divide the mean squared residual by the 54 directions that were lost.
"""

# %% tags=["hide-cell"]
axes = fit(digit_moments, 10).W
centred = digits - digits.mean(axis=0)
coefficients, *_ = np.linalg.lstsq(axes, centred.T, rcond=None)
lost = ((centred.T - axes @ coefficients) ** 2).sum(axis=0).mean() / (64 - 10)
ledger.check(7, "residual of the projection, per lost direction", "algebra", fit(digit_moments, 10).sigma2, lost, 1e-10)

# %% [markdown]
r"""
**Note.** The paper does not say which eigenvalues $\lambda$ are. The derivation leaves no choice: those of
$S$ with $1/N$, because $S$ entered as an average. Dividing by $N - 1$ makes the covariance unbiased, which is
a fine thing to want, but it is not what maximises the likelihood; what it costs is worked out
[below](#the-divisor-of-the-covariance). The paper's reading of $\sigma^2_{\text{MLE}}$ as the average
variance lost in the projection is exactly right: the average is over the $n - k$ directions lost. The paper
also does not say that $k$ must stay below the rank. Both are on the [errata page](../book/errata.md).

### Equation 8

**The paper says** that the best weights are

$$ W_{\text{MLE}} = U_k\, (\Lambda_k - \sigma^2_{\text{MLE}} I)^{1/2}\, R, \tag{8} $$

where $U_k = (u_1, \dots, u_k)$ is $n \times k$,
$\Lambda_k = \operatorname{diag}(\lambda_1, \dots, \lambda_k)$, and $R$ is an arbitrary $k \times k$ rotation.

**Derivation.** Step 3 found a maximiser at each $s$: the columns $u_i \sqrt{\max(\lambda_i - s,\, 0)}$,
$i \le k$. Step 4 found the best $s$ to be $\sigma^2_{\text{MLE}} \le \lambda_{k+1} \le \lambda_k$, so the
"max" is not needed, and $W = U_k (\Lambda_k - \sigma^2_{\text{MLE}} I)^{1/2}$ attains the global maximum. Any
$WR$ with $R R^\top = I$ has the same $C$ and does as well. Two questions remain: is $R$ all the freedom there
is for a given $C$, and is there only one best $C$?

**$R$ is all the freedom.** *If $W W^\top = W' W'^\top$ for two $n \times k$ matrices, then $W' = W R$ with
$R$ orthogonal.* Let $G = W W^\top$ have rank $r$, with eigendecomposition $G = E\, \Gamma E^\top$, where $E$
is $n \times r$ with orthonormal columns and $\Gamma$ is diagonal and positive. First, the columns of $W$ lie
in the span of $E$: with $P = I - E E^\top$ we have $(P W)(P W)^\top = P G P = 0$, and a matrix times its own
transpose is zero only if the matrix is. So $W = E E^\top W = E\, \Gamma^{1/2} A$ with
$A = \Gamma^{-1/2} E^\top W$, which is $r \times k$ and has orthonormal rows:
$A A^\top = \Gamma^{-1/2} E^\top G E\, \Gamma^{-1/2} = I_r$. In the same way $W' = E\, \Gamma^{1/2} A'$.
Extend $A$ and $A'$ by further orthonormal rows to orthogonal $k \times k$ matrices $\bar A$ and $\bar A'$,
and let $R = \bar A^\top \bar A'$. It is orthogonal; and $\bar A R = \bar A'$, whose first $r$ rows say
$A R = A'$. So $W R = E\, \Gamma^{1/2} A R = W'$.

**One best $C$, if $\lambda_k > \lambda_{k+1}$.** At a maximum every inequality of Step 3 is an equality.
Since $\lambda_i \ge \lambda_k > \lambda_{k+1} \ge \sigma^2_{\text{MLE}} = s$, we must have $c_i = \lambda_i$
for $i \le k$, and $d_m > d_{m+1}$ exactly where $\lambda_m > \lambda_{m+1}$, $m = k$ included. At each such
$m$ Step 2 must be an equality: all its terms are zero, so $q_i = 0$ for each $i > m$ (there
$\lambda_m - \lambda_i > 0$). That is, $v_1, \dots, v_m$ are orthogonal to $u_{m+1}, \dots, u_n$, and so have
the same span as $u_1, \dots, u_m$. Taking two such $m$ in succession, the $v_i$ that belong to one value of
$\lambda$ span the eigenspace of that value. So $C = \sum_i c_i v_i v_i^\top$ is fixed, and with it
$W W^\top$.

**A tie at the boundary, $\lambda_k = \lambda_{k+1}$.** Write $t = \lambda_k$; let $p$ be the number of eigenvalues
above $t$, and $m$ the number equal to $t$, so that $p < k < p + m$. There are two cases.

*$t > \sigma^2_{\text{MLE}} = s$.* For equality in Step 3 we need $c_i = \lambda_i$ for $i \le k$, as before. The steps
above, at each $m' \le p$ with $\lambda_{m'} > \lambda_{m'+1}$ in the place of $m$, fix $v_1, \dots, v_p$ up to the choice of
bases in eigenspaces. At $k$ itself $d_k - d_{k+1} = 1/s - 1/t > 0$, so there Step 2 must be an equality too; its terms with
$i > k$ are $(t - \lambda_i)\, q_i = 0$, hence $q_i = 0$ where $\lambda_i < t$. So $v_{p+1}, \dots, v_k$ are orthogonal to
every eigenvector above and below $t$: they span some $(k - p)$-dimensional subspace $T$ of the $m$-dimensional eigenspace of
$t$. Conversely every such $T$ gives equality, since $v_j^\top S v_j = \lambda_j$ for all $j \le k$. With $P_T$ the projection on $T$, the best
covariances are exactly

$$ C = \sum_{i \le p} (\lambda_i - s)\, u_i u_i^\top + (t - s) P_T + s I , $$

one for each $T$. As $0 < k - p < m$, they are a continuous family.

*$t = \sigma^2_{\text{MLE}} = s$.* As $s$ is the average of $\lambda_{k+1}, \dots, \lambda_n$, all at most $t$, this
happens only if $\lambda_k = \dots = \lambda_n = s$. Then $c_i = \max(\lambda_i, s)$ is $\lambda_i$ for $i \le p$ and $s$
for $i > p$, so $d_i = 0$ for $p < i \le k$: the columns beyond the $p$-th are zero, and have no direction. The steps at
$m' \le p$, $p$ included since $d_p > 0 = d_{p+1}$ and $\lambda_p > \lambda_{p+1}$, fix the rest. So
$C = \sum_{i \le p} (\lambda_i - s)\, u_i u_i^\top + s I$ is unique after all. Both cases are computed
[below](#degenerate-spectra).

**A second route, through stationary points.** Tipping and Bishop set the gradient to zero instead.
[Chapter 2](02_stability.ipynb#equation-10) derives it, $C^{-1} S C^{-1} W - C^{-1} W$, and finds all its zeros at a
given $s$ ([Eq. 11](02_stability.ipynb#equation-11)): up to a rotation of the latents, each column of $W$ is zero, or
it is an eigenvector of $S$ of squared length $\lambda_j - s > 0$. Say that the eigenvalues with indices in a set $A$ are
retained, $q \le k$ of them. Then

$$ \ell = -\tfrac12 \Big[ n \log 2\pi + \sum_{i \in A} (\log \lambda_i + 1)
+ (n - q) \log s + \frac1s \sum_{i \notin A} \lambda_i \Big] . $$

Its derivative in $s$ vanishes at $s =$ the average of the eigenvalues *not* retained, and there

$$ \ell_A = -\tfrac12 \Big[ n \log 2\pi + n + \sum_{i} \log \lambda_i
+ (n - q) \Big( \log \operatorname*{avg}_{i \notin A} \lambda_i
- \operatorname*{avg}_{i \notin A} \log \lambda_i \Big) \Big]. $$

(We have added and subtracted $\sum_{i \notin A} \log \lambda_i$, and take all $\lambda_i > 0$.) By the
concavity of the logarithm the last bracket is never negative: it measures how unequal the discarded
eigenvalues are. The best set discards the eigenvalues that are most alike, in this sense. It is not obvious
from this formula alone that the top $k$ are the ones to retain; that is why we proved it by a bound. With the
bound in hand, a list of all candidates serves as a check.

**Check.** The optimiser's weights. They differ from the package's by an $R$, which a Procrustes solver finds:
"""

# %% tags=["hide-cell"]
turn_found, _ = orthogonal_procrustes(best.W, W_found)
ledger.check(8, "L-BFGS over W, μ and log σ², up to R", "optimisation", best.W @ turn_found, W_found, 1e-3)

# %% [markdown]
r"""
The two halves of the gradient in $W$, at the turned weights, from the computation above:
"""

# %% tags=["hide-cell"]
ledger.check(8, "the two halves of the gradient in W balance", "autograd", volume_W, -misfit_W, 1e-10)

# %% [markdown]
r"""
Every stationary point of the second route, in $W$ and $\sigma^2$ together: all sets $A$ of at most two of the
six eigenvalues, which are distinct here. A set qualifies when each of its eigenvalues exceeds the noise that
it implies, since the squared length $\lambda_j - s$ must be positive. The likelihoods come from the full matrix.
"""

# %% tags=["hide-input"]
from itertools import combinations

values, vectors = np.linalg.eigh(S)
candidates = []
for chosen in (list(A) for q in range(k + 1) for A in combinations(range(n), q)):
    s = np.delete(values, chosen).mean()
    if (values[chosen] > s).all():
        W_A = vectors[:, chosen] * np.sqrt(values[chosen] - s)
        candidates.append((log_likelihood(W_A, s), s, W_A @ W_A.T, chosen))
candidates.sort(key=lambda candidate: -candidate[0])
_, s_listed, gram_listed, kept = candidates[0]
print(f"{len(candidates)} of 22 sets qualify; the best keeps the two largest: {sorted(kept) == [n - 2, n - 1]}")
print(f"the runner-up is {candidates[0][0] - candidates[1][0]:.3f} nats behind")

# %% tags=["hide-cell"]
ledger.check(7, "best of all stationary points", "enumeration", best.sigma2, s_listed, 1e-10)
ledger.check(8, "best of all stationary points", "enumeration", best.W @ best.W.T, gram_listed, 1e-10)

# %% [markdown]
r"""
The known model and scikit-learn once more, for $W W^\top$:
"""

# %% tags=["hide-cell"]
ledger.check(
    8, "recovered from samples of a known model", "Monte Carlo", recovered.W @ recovered.W.T, W_known @ W_known.T, 2e-2
)
digit_model = fit(digit_moments, 10)
pca_gram = (pca.get_covariance() - pca.noise_variance_ * np.eye(64)) / c
ledger.check(8, "scikit-learn's PCA on digits", "library", digit_model.W @ digit_model.W.T, pca_gram, 1e-9)

# %% [markdown]
r"""
**Note.** Eq. 8 stands as printed, with "rotation" in the wide sense of any orthogonal matrix, as the paper's
Appendix A says: reflections, such as the flip of one column's sign, are included. The sentence "the MLE solution is the global optima" is true, for the
whole family over $R$, under the conditions that we met: $k$ below the rank of $S$, so that there is a maximum
at all; and when $\lambda_k = \lambda_{k+1} > \sigma^2_{\text{MLE}}$ the family is larger than Eq. 8 shows,
since the choice of eigenvectors is then free too. And Eq. 8 is for learned $\sigma^2$. At a *fixed*
$\sigma^2$ the maximum has $\max(\lambda_i - \sigma^2, 0)$ in the place of
$\lambda_i - \sigma^2_{\text{MLE}}$, by Step 3: columns whose eigenvalue does not exceed the noise are zero.
Much of [chapter 2](02_stability.ipynb) turns on this. See the [errata page](../book/errata.md).

## The divisor of the covariance

Eigenvalues of the covariance with $1/(N-1)$ are those of $S$ times $c = N/(N-1)$. Where they slip into the
formulas above, something is lost, and how much depends on where. At the maximum $C$ shares its eigenvectors
with $S$, so

$$ \operatorname{tr}(C^{-1} S) = \sum_{i \le k} \frac{\lambda_i}{\lambda_i}
+ \sum_{j > k} \frac{\lambda_j}{\sigma^2_{\text{MLE}}} = k + (n - k) = n , $$

and the maximum of the average log likelihood is

$$ \ell_{\max} = -\tfrac12 \Big[ n \log 2\pi + \sum_{i \le k} \log \lambda_i
+ (n - k) \log \sigma^2_{\text{MLE}} + n \Big]. $$

*In the formula.* Put $c \lambda_i$ in the place of each $\lambda_i$. Then $\sigma^2_{\text{MLE}}$ is
multiplied by $c$ as well, each of the $n$ logarithms grows by $\log c$, and the result is
**$\tfrac n2 \log c$ too low**. It is not the likelihood of any model on these data; it is what the data would
score if they were larger by $\sqrt c$. It happens when one covariance with $1/(N-1)$, for instance NumPy's
`cov` as it comes, serves both as the source of the model and as the $S$ of the likelihood.

*In the model.* scikit-learn's `PCA(k).fit(X).score(X)` also takes the model from $c\lambda$, so that its
covariance is $c\,C$; but it then evaluates that model honestly, on the data themselves. With
$\log |cC| = \log |C| + n \log c$ and $\operatorname{tr}((cC)^{-1} S) = n / c$, what is lost is

$$ \ell_{\max} - \ell(cC) = \tfrac12 \big[ n \log c + \tfrac nc - n \big]
= \tfrac n2 \Big( \log c + \frac1c - 1 \Big) . $$

As $1/c = 1 - 1/N$ and $\log c = -\log(1 - \tfrac1N) = \tfrac1N + \tfrac1{2N^2} + \dots$, the first loss is
about $n/2N$ and the second only about $n/4N^2$: near a maximum, a small mistake in the model costs only its
square.
"""


# %% tags=["hide-input"]
def losses(n, N):
    """What 1/(N - 1) eigenvalues cost, in nats per sample: in the formula, and in the model."""
    c = N / (N - 1)
    return n / 2 * np.log(c), n / 2 * (np.log(c) + 1 / c - 1)


for n_pixels, count in [(64, 1797), (784, 1000), (784, 60_000)]:
    formula, in_model = losses(n_pixels, count)
    print(f"n = {n_pixels:3d}, N = {count:5d}: formula {formula:.4f} nats, model {in_model:.2e} nats")

# %% [markdown]
r"""
On the digits, with $k = 10$: scikit-learn's score, our maximum, and the formula with the wrong eigenvalues.
"""

# %% tags=["hide-input"]
maximum, score = digit_model.log_likelihood(digit_moments), pca.score(digits)
wide = np.sort(np.linalg.eigvalsh(np.cov(digits.T)))[::-1]  # NumPy's default: 1/(N - 1)
log_det = np.log(wide[:10]).sum() + 54 * np.log(wide[10:].mean())
in_formula = -(64 * np.log(2 * np.pi) + log_det + 64) / 2
print(f"maximum {maximum:.4f}, scikit-learn {score:.4f}, wrong eigenvalues in the formula {in_formula:.4f}")
print(f"lost: scikit-learn {maximum - score:.2e}, formula {maximum - in_formula:.4f}")

# %% tags=["hide-input"]
formula, in_model = losses(64, N)
assert abs(score + in_model - maximum) < 1e-11 * abs(maximum)
assert abs(in_formula + formula - maximum) < 1e-11 * abs(maximum)
print("each difference is accounted for to eleven digits of the log likelihood")

# %% [markdown]
r"""
## The best log likelihood for every k

The formula for $\ell_{\max}$ needs $\sum_{i \le k} \log \lambda_i$ and $\sum_{j > k} \lambda_j$. For all $k$
at once these are cumulative sums, one from each end of the spectrum. So a single eigendecomposition gives the
best log likelihood for every number of latents, where refitting would need one per $k$. From the rank of $S$ on the
maximum is infinite. Where the rounding of the covariance could be seen in one of the values, as when columns of very
different units hide the smallest eigenvalues, there is no curve but a `ValueError` that asks for other units.
"""

# %%
plots.show_source(max_log_likelihood)

# %% [markdown]
r"""
The whole curve, and the fitted model's own likelihood, against scikit-learn fitted anew for each $k$, its
loss added:
"""

# %% tags=["hide-cell"]
chosen = [1, 5, 10, 20, 40, 60]
refitted = [PCA(q, svd_solver="full").fit(digits).score(digits) + in_model for q in chosen]
curve = max_log_likelihood(digit_moments)[np.array(chosen) - 1]
own = [fit(digit_moments, q).log_likelihood(digit_moments) for q in chosen]
both, twice = np.r_[curve, own], np.r_[refitted, refitted]
ledger.check(7, "maximum likelihood against scikit-learn's score, six k", "library", both, twice, 1e-9)

# %% [markdown]
r"""
Now MNIST: 60,000 training images, $n = 784$ pixels in $[0, 1]$, through their recorded mean and covariance.
The paper works with $\sigma^2_{\text{MLE}}$ at $k = 50$, and notes that it is close to $\lambda_{222}$.
"""

# %% tags=["hide-input"]
mnist = data.mnist_moments()
mnist_50 = fit(mnist, 50)
mnist_curve = max_log_likelihood(mnist)
above = int((mnist.eigenvalues > mnist_50.sigma2).sum())
print(f"σ²_MLE(50) = {mnist_50.sigma2:.7f}; {above} eigenvalues exceed it")
for q in (10, 50, 100, 200, 300):
    print(f"k = {q:3d}: {mnist_curve[q - 1]:.2f} nats")
print("finite up to k =", int(np.isfinite(mnist_curve).sum()), "| rank", int((mnist.eigenvalues > 0).sum()))
empty = int((np.diag(mnist.covariance) == 0).sum())
print(f"pixels without any variance: {empty}; directions without any: {784 - int((mnist.eigenvalues > 0).sum())}")

# %% [markdown]
r"""
Two of these numbers are counts, and 64-bit arithmetic cannot quite promise a count: an eigenvalue that ought to be zero comes out as a
small number. But the record holds whole numbers, the sums of $x$ and of $x x^\top$ over the pixel values $0, \dots, 255$. So $A = N^2\, 255^2\, S$
is a matrix of integers, its rank is found by elimination with no rounding, and the rank of $S$ is that of $A$.
"""

# %% tags=["hide-cell"]
record = np.load(Path(data.__file__).parent / "recorded" / data.MOMENT_RECORDS["train"])
A, N_images = scatter(record["total"], record["products"], int(record["count"])), int(record["count"])
ledger.certify("rank of the covariance of MNIST's 60,000 images", int(fmpz_mat(A.tolist()).rank()), "==", 712)

# %% [markdown]
r"""
For the 222 we need bounds on eigenvalues. Let $Q$ be the computed eigenvectors, rounded to multiples of $2^{-45}$. Then $B = Q^\top A Q$ and
$G = Q^\top Q$ can be computed exactly. They are nearly diagonal, and three classical facts turn "nearly" into bounds.

- A symmetric matrix with zero diagonal has no eigenvalue of modulus above its largest row sum of moduli, $e$ (Gershgorin).
- So the $i$-th largest eigenvalue of $B$ is within $e$ of its $i$-th largest diagonal entry (Weyl: adding a matrix of norm $e$ moves no
  eigenvalue by more than $e$).
- The $i$-th eigenvalue of $Q^\top A Q$ is that of $A$ times a number between the extreme eigenvalues of $G$, which are within a tiny,
  known $g$ of 1 (Ostrowski).
"""

# %%
plots.show_source(enclosures)

# %% [markdown]
r"""
The bounds are whole numbers in units of $10^{-10}$, rounded outward. By Eq. 7 those on $\lambda_{51}, \dots, \lambda_{784}$ add up to
bounds on $\sigma^2_{\text{MLE}}(50)$. If $\lambda_{222}$ is above it and $\lambda_{223}$ below, exactly 222 eigenvalues exceed it. Such gaps
are visible in units of $10^{-7}$, so that is how they are shown.
"""

# %% tags=["hide-input"]
low, high = enclosures(A, mnist.eigenvectors, N_images**2 * 255**2, 10)
sigma2_low, sigma2_high = sum(low[50:]) // 734, -(-sum(high[50:]) // 734)
print(f"σ²_MLE(50) is between {sigma2_low // 10 / 1e9:.9f} and {-(-sigma2_high // 10) / 1e9:.9f}")
print(f"λ222 is at least {low[221] // 1000 / 1e7:.7f}, λ223 at most {-(-high[222] // 1000) / 1e7:.7f}")
claim = "λ222 > σ²_MLE(50) > λ223 of MNIST, bounds in units of 1e-7"
above_it, below_it = [low[221] // 1000, sigma2_low // 1000], [-(-sigma2_high // 1000), -(-high[222] // 1000)]
ledger.certify(claim, above_it, ">", below_it)

# %% mystnb={"image": {"alt": "MNIST: falling eigenvalues, crossed by σ² at 222; maximum log likelihood rising with k"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.6, height=3.5)
rank = int((mnist.eigenvalues > 0).sum())
left.semilogy(np.arange(1, rank + 1), mnist.eigenvalues[:rank], label="eigenvalue $\\lambda_i$")
left.axhline(mnist_50.sigma2, color=plots.COLOURS[1], linestyle="--", label="$\\sigma^2_{MLE}$ at k = 50")
left.plot(above, mnist.eigenvalues[above - 1], "ko", label=f"$\\lambda_{{{above}}}$")
left.set(xlabel="component i", ylabel="variance (pixel units squared)", ylim=(1e-7, 20))
left.legend()
right.plot(np.arange(1, rank), mnist_curve[: rank - 1], label="maximum over W, μ, σ²")
right.plot([10, 50, 100, 200, 300], mnist_curve[[9, 49, 99, 199, 299]], "ko", label="k = 10, 50, 100, 200, 300")
right.axvline(rank, color="0.4", linestyle=":", label="rank 712: no bound")
right.set(xlabel="latents k", ylabel="log likelihood (nats per image)")
_ = right.legend()

# %% [markdown]
r"""
**Figure 1.3.** MNIST, from its recorded moments: the eigenvalues with $\sigma^2_{\text{MLE}}(50)$ across them,
and the maximum of the log likelihood for every $k$.

On the left, the noise variance that is best for 50 latents passes below exactly 222 eigenvalues: keep
$\sigma^2$ there, allow more latents, and 222 of them could be put to use. On the right, the maximum rises
with $k$ for as long as it exists. At $k = 712$, the rank of the covariance, the bound goes: 72 directions of
pixel space hold no variance at all (67 of them are pixels that are black in every image), and a model that
has a latent for each of the other 712 may let its noise variance go to zero. The curve on the right is the green line of
the paper's Figure 2, drawn on to the end; the rest of that figure is not drawn here.

## Degenerate spectra

Four cases where the formulas deserve a second look. In each we compute what happens.

**A tie at the boundary: $\lambda_k = \lambda_{k+1} > \sigma^2$.** Take $S = \operatorname{diag}(4, 2, 2, 1)$
and $k = 2$, so $\sigma^2_{\text{MLE}} = \tfrac12 (2 + 1) = 1.5$. The second column may be any unit vector in
the plane of $e_2$ and $e_3$, times $\sqrt{0.5}$.
"""

# %% tags=["hide-input"]
tied = Moments(np.zeros(4), np.diag([4.0, 2.0, 2.0, 1.0]), 100)
heights, covariances = [], []
for angle in np.linspace(0, np.pi / 2, 5):
    W_angle = np.zeros((4, 2))
    W_angle[0, 0] = np.sqrt(2.5)
    W_angle[1:3, 1] = np.sqrt(0.5) * np.array([np.cos(angle), np.sin(angle)])
    turned = PPCA(W_angle, np.zeros(4), 1.5)
    heights.append(turned.log_likelihood(tied))
    covariances.append(turned.C)
assert np.ptp(heights) < 1e-12 and abs(heights[0] - max_log_likelihood(tied)[1]) < 1e-12
print(f"five models, all at the maximum {heights[0]:.6f};")
print(f"the first and the last C differ by {np.abs(covariances[0] - covariances[-1]).max():.2f} in an entry")

# %% tags=["hide-cell"]
# Exactly: the likelihood is a function of det C and tr(C^-1 S), for these models and for any rational angle between.
pair = []
for a, b in [(fmpq(1), fmpq(0)), (fmpq(3, 5), fmpq(4, 5))]:  # the unit vector is a e_2 + b e_3
    middle = [0, fmpq(3, 2) + a * a / 2, a * b / 2, 0], [0, a * b / 2, fmpq(3, 2) + b * b / 2, 0]
    C_tied = fmpq_mat([[4, 0, 0, 0], *middle, [0, 0, 0, fmpq(3, 2)]])
    whitened = C_tied.inv() * fmpq_mat(4, 4, [4, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1])
    pair += [[C_tied.det(), sum(whitened[i, i] for i in range(4)), C_tied[1, 1]]]
ledger.certify(
    "det C and tr C^-1 S in a tie, two models", pair[0][:2], "==", pair[1][:2], erratum="unique up to $R$ if"
)
ledger.certify("the same two models differ in C", pair[0][2], "!=", pair[1][2])

# %% [markdown]
r"""
These models are *not* rotations of one another's latents: their $C$ differ, though the data cannot choose
between them. A tie inside the top $k$, by contrast, does no harm: with $k = 3$ the whole plane is retained,
whatever axes we pick in it. Where two eigenvalues differ by less than their sampling error, their eigenvectors
are as good as undetermined, so look at the gap before reading meaning into a single component.

**Eigenvalues have a sampling error too.** For Gaussian data with $N$ much larger than $n$, an eigenvalue that stands apart is
estimated with a standard deviation of about $\lambda\sqrt{2/N}$. When $n/N$ is not small, something else happens: the sample
eigenvalues of pure noise, whose true eigenvalues are all $\sigma^2$, spread over the interval from
$\sigma^2(1 - \sqrt{n/N})^2$ to $\sigma^2(1 + \sqrt{n/N})^2$ (the law of Marchenko and Pastur). About half of them lie above
$\sigma^2$. So a model whose noise variance is set to the exact truth would still put latents on them, and a latent
"in use" need not mean a direction in the world. With a learned $\sigma^2$ *every* latent is used, however many there are
below the rank, unless the eigenvalues left out are all equal to $\lambda_k$.
"""

# %% tags=["hide-input"]
noise_only = np.random.default_rng(7).standard_normal((500, 50))
spread = Moments.from_samples(noise_only).eigenvalues
edges = (1 - np.sqrt(50 / 500)) ** 2, (1 + np.sqrt(50 / 500)) ** 2
print(f"noise of variance 1, n = 50, N = 500: eigenvalues {spread[-1]:.1f} to {spread[0]:.1f}", end="; ")
print(f"the law: {edges[0]:.1f} to {edges[1]:.1f}")
fixed, learned = fit(Moments.from_samples(noise_only), 40, 1.0), fit(Moments.from_samples(noise_only), 40)
used = [int((np.abs(model.W).max(axis=0) > 0).sum()) for model in (fixed, learned)]
print(f"latents in use of 40: {used[0]} at the true σ² = 1, {used[1]} with σ² learned")

# %% [markdown]
r"""
**A covariance without full rank.** Five samples in eight dimensions: the rank is 4, one less than the
samples, since the mean takes one.
"""

# %% tags=["hide-input"]
few = Moments.from_samples(np.random.default_rng(3).standard_normal((5, 8)))
print("rank", int((few.eigenvalues > 0).sum()), "| finite maxima:", np.isfinite(max_log_likelihood(few)).tolist())
try:
    fit(few, 4)
except ValueError as error:
    print("ValueError:", error)
tenths = [fit(few, 4, s).log_likelihood(few) for s in (1e-3, 1e-4, 1e-5)]
print("gain per tenfold smaller σ²:", np.round(np.diff(tenths), 4), "| (8 - 4)/2 log 10 =", round(2 * np.log(10), 4))

# %% [markdown]
r"""
Up to $k = 3$ all is well. From $k = 4$ on the likelihood gains $\tfrac{n-r}{2} \log 10$ nats for each tenfold
smaller noise, for ever, just as Step 5 says. A given $\sigma^2$ cures it, and so does a floor under it.

**As many latents as dimensions: $k = n$.** Nothing is left over to estimate $\sigma^2$ from. At any
$\sigma^2 \le \lambda_n$ the model reaches $C = S$:
"""

# %% tags=["hide-input"]
full = Moments.from_samples(np.random.default_rng(4).standard_normal((50, 4)) * [2.0, 1.5, 1.0, 0.8])
smallest = full.eigenvalues[-1]
for share in (0.1, 0.5, 1.0, 1.5):
    square = fit(full, 4, share * smallest)
    reached = np.abs(square.C - full.covariance).max() < 1e-12
    print(f"σ² = {share} λ_n: C equals S: {reached}, log likelihood {square.log_likelihood(full):.6f}")

# %% [markdown]
r"""
The first three are one and the same density: $\sigma^2$ is not identified. The posterior of $z$ does depend
on it, though. The likelihood has no opinion on how to split the variance between latents and noise, and a
statement about the latents of such a model is a statement about whoever picked $\sigma^2$.

**All eigenvalues equal.** With $S = 2I$ no direction deserves a latent. $\sigma^2_{\text{MLE}} = 2$, every
column has length $\sqrt{2 - 2} = 0$, and $W = 0$ is the maximum likelihood fit, for every $k < n$: the one
kind of spectrum for which complete collapse is the right answer even with learned noise.
"""

# %% tags=["hide-input"]
sphere = Moments(np.zeros(5), 2.0 * np.eye(5), 100)
flat = [fit(sphere, q) for q in (1, 2, 3, 4)]
print("largest entry of W, k = 1 to 4:", [float(np.abs(model.W).max()) for model in flat])
print("σ²:", [model.sigma2 for model in flat])
print("log likelihood:", np.round([model.log_likelihood(sphere) for model in flat], 6))

# %% [markdown]
r"""
## What we showed

- The marginal ([Eq. 5](#equation-5)) and the posterior ([Eq. 6](#equation-6)), each derived twice; the matrix
  identities that move the work from $n$ to $k$ dimensions were proved on the way.
- The average log likelihood sees the data only through their mean and their $1/N$ covariance.
- $\sigma^2_{\text{MLE}}$ and $W_{\text{MLE}}$ ([Eq. 7](#equation-7), [Eq. 8](#equation-8)) are the global
  maximum, by a bound that holds everywhere; unique up to an orthogonal $R$ if $\lambda_k > \lambda_{k+1}$;
  and no maximum exists once $k$ reaches the rank $r < n$.
- For a given $\sigma^2$ the best $W$ uses just the eigenvalues above it, at most $k$ of them.
- Eigenvalues with $1/(N-1)$ cost $\tfrac n2 \log c$ in the formula and $\tfrac n2 (\log c + \tfrac1c - 1)$ in
  the model; with this, scikit-learn's score and ours agree to eleven digits.
- MNIST: $\sigma^2_{\text{MLE}}(50) = 0.0125960$, with exactly 222 eigenvalues above it, and rank 712: both proved.

## Exercises

**Exercise 1.1. What the latents look like on average.** Let the model be at its maximum with $R = I$. Show that the
posterior means, over the data, have covariance $I - \sigma^2 \Lambda_k^{-1}$; and that this and the posterior
covariance add up to the prior's. Check it on the digits.
"""

# %% tags=["hide-cell"]
# At the maximum M = Λ_k - σ² I + σ² I = Λ_k, and Wᵀ S W = (Λ_k - σ² I) Λ_k because S U_k = U_k Λ_k. The means are
# M⁻¹ Wᵀ (x - μ), so their covariance is M⁻¹ Wᵀ S W M⁻¹ = Λ_k⁻¹ (Λ_k - σ² I) = I - σ² Λ_k⁻¹; and σ² M⁻¹ = σ² Λ_k⁻¹.
means, covariance = digit_model.posterior(digits)
spread = means.T @ means / len(means)
assert np.allclose(spread, np.eye(10) - np.diag(digit_model.sigma2 / digit_moments.eigenvalues[:10]))
assert np.allclose(spread + covariance, np.eye(10))
print("covariance of the means + posterior covariance = I")

# %% [markdown]
r"""
**Exercise 1.2. One more latent.** Show that the maximum cannot fall when $k$ grows by one. Then compute, for MNIST, how
many nats the latents number 1, 51 and 301 bring.
"""

# %% tags=["hide-cell"]
# A model with k latents is a model with k + 1 latents one of whose columns is zero, so the larger family contains the
# smaller one and its maximum is at least as large.
assert (np.diff(mnist_curve[: rank - 1]) >= 0).all()
variances = mnist.eigenvalues.mean()
without = -784 / 2 * (np.log(2 * np.pi * variances) + 1)  # k = 0: W = 0 and σ² the average of all eigenvalues
gains = np.diff(np.r_[without, mnist_curve[: rank - 1]])
print("nats brought by latents 1, 51, 301:", np.round(gains[[0, 50, 300]], 2))

# %% [markdown]
r"""
**Exercise 1.3. A noise that is too large.** Keep $\sigma^2$ at MNIST's $\sigma^2_{\text{MLE}}(50)$ and give the model
300 latents. How many columns of the best $W$ are zero? What if $\sigma^2 = 6$? Is the fit with the zero
columns a stationary point in the sense of the second route above?
"""

# %% tags=["hide-cell"]
# By Step 3 the best columns have squared length max(λ_i - σ², 0), so 300 - 222 of them are zero; above λ_1 all are.
roomy = fit(mnist, 300, mnist_50.sigma2)
used = int((np.abs(roomy.W).max(axis=0) > 0).sum())
print(f"used {used}, zero {300 - used}; with σ² = 6, above λ_1, all zero: {not fit(mnist, 300, 6.0).W.any()}")
# The second route asks for a zero gradient. Its two halves have entries of the size of W / σ², so that is the scale.
assert np.abs(gradient(roomy, mnist)).max() < 1e-9 * np.abs(roomy.W).max() / roomy.sigma2
print("the gradient in W is zero: it is a stationary point, the one that uses the top", used)

# %% [markdown]
r"""
**Exercise 1.4. A hundred thousand dimensions.** Evaluate $\log p(x)$ for a model with $n = 100{,}000$ and $k = 3$, where
$C$ would fill 80 gigabytes. Convince yourself with the same seed at $n = 400$ that the value can be trusted.
"""


# %% tags=["hide-cell"]
def large_model(n):
    loadings = np.random.default_rng(5).standard_normal((n, 3))
    return PPCA(loadings, np.zeros(n), 0.5), np.random.default_rng(6).standard_normal((2, n))


modest, x_modest = large_model(400)
direct = multivariate_normal(modest.mu, modest.C).logpdf(x_modest)
assert np.allclose(modest.log_likelihood_samples(x_modest), direct, rtol=1e-10)
huge, x_huge = large_model(100_000)
print("n = 100,000, in units of 1,000 nats:", np.round(huge.log_likelihood_samples(x_huge) / 1000, 1))

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md). The model, Equations 5 to 8 and the second route are
due to [Tipping & Bishop, 1999](../book/references.md), whose Appendix A compares the stationary points with
one another; the bound of Steps 2 to 4 uses Ky Fan's and von Neumann's classical inequalities, proved here for
the case at hand.

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn", "torch"):
    print(name, version(name))
