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
# Bernoulli probabilistic PCA

Images in black and white ask for another observation model: each pixel is a coin whose bias depends on $z$.
Appendix C.1 of the paper writes this model down (Equations 28 to 32), finds that the integrals have no closed
form, and leaves it there. We go on. For a few latents the integrals can be *computed*, to better than $10^{-9}$
and with their gradients. And of the question when this model collapses, one part has a short exact answer:
complete collapse becomes locally stable at a threshold on $\beta$, which for black and white data is the
largest eigenvalue of their correlation matrix.

> **In short**
>
> - For black and white pixels the marginal likelihood has no closed form, but for a few latents quadrature
>   computes it to $10^{-9}$, with its gradient.
> - Complete collapse is a local maximum of the $\beta$-ELBO once $\beta$ exceeds
>   $\beta^* = \lambda_{\max}(A^{-1/2} S A^{-1/2})$, with $A$ the variances of a coin at each pixel.
> - For data in black and white $\beta^*$ is the largest eigenvalue of their correlation matrix, and above 1 as
>   soon as two pixels are correlated. So at $\beta = 1$ collapse is not stable there.
> - For your VAE: with a Bernoulli decoder $\beta$ plays the part of $\sigma^2$. For grey images the threshold can
>   lie below 1, and then the standard ELBO may collapse.

**You need**: the ELBO, [Eq. 3](00_preliminaries.ipynb#equation-3), and integration by quadrature (a weighted
sum of values at chosen nodes). **Time to run**: about 15 seconds on a laptop; no GPU needed.

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
from itertools import product

import numpy as np
import sympy
import torch
from flint import acb, arb, fmpz_mat
from scipy.integrate import dblquad, simpson
from scipy.linalg import eigh
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit, roots_hermitenorm
from scipy.stats import bernoulli as coin
from scipy.stats import multivariate_normal, norm

from helpers import bernoulli, data, plots
from helpers.ledger import Ledger

# %% tags=["hide-input"]
ledger = Ledger("06_bernoulli")

# %% [markdown]
r"""
The chapter is the same in every profile: it uses a model small enough to integrate in several ways, and
scikit-learn's bundled digits.

## The model

### Equation 28

**The paper says** that the latents stay Gaussian and that the pixels become independent coins, given $z$:

$$ p(z) = \mathcal N(0, I), \qquad p(x \mid z) = \operatorname{Bernoulli}(y), \qquad y = \sigma(Wz + \mu), \tag{28} $$

with the sigmoid $\sigma(a) = 1/(1 + e^{-a})$ applied entry by entry.

**Derivation.** Here $x \in \{0, 1\}^n$, $z \in \mathbb R^k$, $W$ is $n \times k$ with rows $w_i^\top$, and
$\mu$ has $n$ entries. In this chapter $\sigma$ with an argument is the sigmoid; there is no $\sigma^2$. Call
$a_i = w_i^\top z + \mu_i$ the *logit* of pixel $i$, so $y_i = \sigma(a_i)$. A coin with bias $y_i$ shows $x_i
\in \{0, 1\}$ with probability $y_i^{x_i} (1 - y_i)^{1 - x_i}$. The pixels are independent given $z$, so the
probabilities multiply and the logarithms add:

$$ \log p(x \mid z) = \sum_{i=1}^n \big[ x_i \log y_i + (1 - x_i) \log (1 - y_i) \big]. $$

Computed like this it loses digits when $y_i$ comes close to 0 or 1. Two lines mend that. First, $1 -
\sigma(a) = e^{-a}/(1 + e^{-a}) = 1/(1 + e^{a})$, so $\log(1 - y_i) = -\log(1 + e^{a_i})$. Second, $y_i / (1 -
y_i) = e^{a_i}$, so $\log y_i = a_i + \log(1 - y_i)$. Put both in:

$$ \log p(x \mid z) = \sum_{i=1}^n \big[ x_i a_i - s(a_i) \big], \qquad s(a) = \log(1 + e^a). $$

The function $s$ is called the *softplus*. Its derivatives will be with us for the whole chapter:

$$ s'(a) = \frac{e^a}{1 + e^a} = \sigma(a) = y, \qquad
s''(a) = \sigma'(a) = \frac{e^{-a}}{(1 + e^{-a})^2} = y\,(1 - y). $$

Everything that makes this model different from pPCA sits in $s$: for pPCA the curvature $s''$ would be a
constant.
"""

# %%
plots.show_source(bernoulli.log_conditional)

# %% [markdown]
r"""
**Check.** A small generic model, $n = 3$ and $k = 2$, which serves for the whole chapter, and all eight
images it can draw. SciPy's Bernoulli distribution is a first reference:
"""

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
n, k = 3, 2
W, mu = np.array([[1.4, -0.5], [0.7, 1.1], [-0.9, 0.6]]), np.array([0.4, -0.8, 0.2])
images = np.array(list(product([0.0, 1.0], repeat=n)))
z0 = np.array([0.6, -1.1])
conditional = bernoulli.log_conditional(images, np.tile(z0, (8, 1)), W, mu)
from_scipy = coin.logpmf(images, expit(W @ z0 + mu)).sum(axis=1)
ledger.check(28, "SciPy's Bernoulli distribution", "library", conditional, from_scipy, 1e-12)

# %% [markdown]
r"""
A second reference uses no sigmoid at all. A logistic variable $r$ has distribution function $P(r < a) =
\sigma(a)$, so a pixel is on when noise of that kind stays below the logit. We count how often each of the
eight images comes up. A third adds over all images: the probabilities must sum to 1, and their means must be
$y$, written as a hyperbolic tangent, $\sigma(a) = \tfrac12 (1 + \tanh \tfrac a2)$.
"""

# %% tags=["hide-cell"]
drawn = rng.logistic(size=(400_000, n)) < W @ z0 + mu
counts = np.bincount(drawn @ [4, 2, 1], minlength=8)
ledger.check(28, "thresholded logistic noise", "Monte Carlo", np.exp(conditional), counts / counts.sum(), 0.02)
sums = np.exp(conditional) @ np.c_[np.ones(8), images]
means = np.r_[1.0, (1 + np.tanh((W @ z0 + mu) / 2)) / 2]
ledger.check(28, "sum and mean over all images", "enumeration", sums, means, 1e-12)

# %% [markdown]
r"""
**Note.** Eq. 28 stands as printed. Two remarks. The letter $\mu$ is now an offset of the *logits*, no longer
the mean of the data; the next equations keep writing $x - \mu$ where that matters. And VAEs are often trained
with this likelihood on *grey* images, $x_i \in [0, 1]$. Then $\log p(x \mid z)$ is minus a cross-entropy and
not the log of a probability. The formulas below hold for it nevertheless, and the [last
section](#grey-pixels) looks at what it does to collapse.

## The density of $y$

### Equation 29

**The paper says** that $y$ has a logit-normal distribution, with the density

$$ f(y) = \frac{1}{\sqrt{2\pi |W W^\top|}}\, \frac{1}{\prod_i y_i (1 - y_i)}
\exp\Big\{ -\tfrac12 \Big( \log \tfrac{y}{1 - y} - \mu \Big)^{\!\top} (W W^\top)^{-1}
\Big( \log \tfrac{y}{1 - y} - \mu \Big) \Big\}. \tag{29} $$

**Derivation.** The logits $a = Wz + \mu$ are an affine function of a Gaussian, so $a \sim \mathcal N(\mu, W
W^\top)$ in $n$ dimensions. Suppose for now that $k \ge n$ and that $W$ has rank $n$, so that the $n \times n$
matrix $W W^\top$ is invertible. Then $a$ has the density

$$ g(a) = |2\pi W W^\top|^{-1/2} \exp\big\{ -\tfrac12 (a - \mu)^\top (W W^\top)^{-1} (a - \mu) \big\},
\qquad |2\pi W W^\top| = (2\pi)^n\, |W W^\top| . $$

The map $y_i = \sigma(a_i)$ is one-to-one from $\mathbb R^n$ to the open cube $(0, 1)^n$, with inverse $a_i =
\log \frac{y_i}{1 - y_i}$. The change of variables formula says $f(y) = g(a(y))\, |\det \partial a / \partial
y|$. Each $a_i$ depends on its own $y_i$ only, so the Jacobian is diagonal, and

$$ \frac{\partial a_i}{\partial y_i} = \frac{1}{y_i} + \frac{1}{1 - y_i} = \frac{1}{y_i (1 - y_i)}, \qquad
\Big| \det \frac{\partial a}{\partial y} \Big| = \prod_{i=1}^n \frac{1}{y_i (1 - y_i)} . $$

The product of the two is

$$ f(y) = |2\pi W W^\top|^{-1/2}\, \frac{1}{\prod_i y_i (1 - y_i)}
\exp\big\{ -\tfrac12 (a(y) - \mu)^\top (W W^\top)^{-1} (a(y) - \mu) \big\} : $$

Eq. 29 but for the normaliser. As our copy prints it, there is one factor $2\pi$ for all $n$ dimensions
together; there must be one for each.
"""

# %%
plots.show_source(bernoulli.logit_normal_log_density)

# %% [markdown]
r"""
The package works along the singular axes of $W$, where the quadratic form is a sum of squares and the
determinant a product.

**Check.** First point by point, for $n = k = 3$ (our $W$ with a third column), with SciPy's Gaussian density
for the logits and the Jacobian by finite differences:
"""

# %% tags=["hide-cell"]
W3 = np.c_[W, [0.5, -0.3, 1.2]]
gaussian = multivariate_normal(mu, W3 @ W3.T)
y = expit(gaussian.rvs(20, random_state=1))
h = 1e-6
jacobian = (logit(y + h) - logit(y - h)) / (2 * h)
reference = gaussian.logpdf(logit(y)) + np.log(jacobian).sum(axis=1)
ledger.check(
    29,
    "SciPy's Gaussian and a numerical Jacobian",
    "library",
    bernoulli.logit_normal_log_density(y, W3, mu),
    reference,
    1e-7,
)

# %% [markdown]
r"""
Then as a whole, for $n = k = 2$ (the first two rows of our $W$). We integrate $f$ over two boxes in the unit
square, with SciPy's Simpson rule: over all of it, where a density gives 1, and over a part, whose probability
we also get from SciPy's distribution function of the logits, and as the share of drawn $y$ that falls in.
"""


# %% tags=["hide-cell"]
W2, mu2 = W[:2], mu[:2]


def corrected(y, W, mu):
    """The density f, from the package."""
    return np.exp(bernoulli.logit_normal_log_density(y, W, mu))


def box_probability(density, top_1, top_2):
    """Integral of a density over (0, top_1) x (0, top_2)."""
    a, b = np.linspace(1e-9, top_1, 801), np.linspace(1e-9, top_2, 801)
    points = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)
    return simpson(simpson(density(points, W2, mu2).reshape(len(b), len(a)), x=a), x=b)


# %% tags=["hide-cell"]
whole, part = box_probability(corrected, 1 - 1e-9, 1 - 1e-9), box_probability(corrected, 0.55, 0.35)
exact_part = multivariate_normal(mu2, W2 @ W2.T).cdf(logit([0.55, 0.35]))
ledger.check(29, "total and a box, integrated", "quadrature", [whole, part], [1.0, exact_part], 1e-4)

# %% tags=["hide-cell"]
y_drawn = expit(rng.standard_normal((400_000, 2)) @ W2.T + mu2)
share = (y_drawn < [0.55, 0.35]).all(axis=1).mean()
ledger.check(29, "share of drawn y in a box", "Monte Carlo", part, share, 0.02)

# %% [markdown]
r"""
**Note: the normaliser.** We type out the printed formula as it stands and integrate it, over an interval for $n
= 1$ and over the square for $n = 2$. For $n = 1$ nothing is wrong; for $n = 2$ the total is not 1.
"""


# %% tags=["hide-input"]
def printed(y, W, mu):
    """Eq. 29 as our copy prints it."""
    S, a = W @ W.T, logit(y) - mu
    quadratic = (a @ np.linalg.inv(S) * a).sum(axis=1)
    return np.exp(-quadratic / 2) / np.sqrt(2 * np.pi * np.linalg.det(S)) / (y * (1 - y)).prod(axis=1)


line = np.linspace(1e-9, 1 - 1e-9, 20_001)[:, None]
print(f"n = 1: as our copy prints it, it integrates to {simpson(printed(line, W[:1, :1], mu[:1]), x=line[:, 0]):.3f}")
print(f"n = 2: as our copy prints it, it integrates to {box_probability(printed, 1 - 1e-9, 1 - 1e-9):.3f}")

# %% [markdown]
r"""
How much is it for every $n$? The two formulas differ by a constant factor alone, the ratio of $|2\pi W
W^\top|^{1/2}$ to $(2\pi |W W^\top|)^{1/2}$, and the right one integrates to 1. So the printed one integrates to
that ratio, and comparing the two constants as expressions in $n$ and $|W W^\top|$ decides the matter exactly.
"""

# %% tags=["hide-cell"]
size, determinant = sympy.Symbol("n", integer=True, positive=True), sympy.Symbol("d", positive=True)
excess = sympy.sqrt((2 * sympy.pi) ** size * determinant) / sympy.sqrt(2 * sympy.pi * determinant)
ledger.certify("the printed Eq. 29 integrates to this", excess, "==", (2 * sympy.pi) ** ((size - 1) / 2))
ledger.certify(
    "the printed Eq. 29 is no density for n = 2",
    sympy.simplify(excess.subs(size, 2)),
    "!=",
    sympy.Integer(1),
    erratum="the printed form integrates to",
)

# %% [markdown]
r"""
**Note: for $k < n$ there is no density.** In a latent variable model $k$ is smaller than $n$; that is its
purpose. Then $W z$ stays in the column space of $W$, a subspace of $k < n$ dimensions, so $a$ stays on a
shifted copy of it and $y$ on a curved $k$-dimensional surface in the cube. That surface has volume zero. A
density on the cube would give it probability zero, while $y$ is on it with probability one: no such density
exists. In the formula, $|W W^\top| = 0$ and $(W W^\top)^{-1}$ is missing. The package refuses it:
"""

# %% tags=["hide-input"]
try:
    bernoulli.logit_normal_log_density([[0.5, 0.5]], W2[:, :1], mu2)
except ValueError as error:
    print(error)

# %% mystnb={"image": {"alt": "Left: one latent, and draws of y lie on one curve. Right: two latents, a cloud with contours"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=8.0, height=3.6)
curve = expit(np.linspace(-4, 4, 300)[:, None] @ W2[:, :1].T + mu2)
few = expit(rng.standard_normal((60, 1)) @ W2[:, :1].T + mu2)
left.plot(*curve.T, "-", label="all values y can take")
left.plot(*few.T, "k.", markersize=5, label="60 draws")
left.set(title="k = 1, n = 2: no density", xlabel="$y_1$", ylabel="$y_2$", xlim=(0, 1), ylim=(0, 1))
left.legend(loc="upper left", fontsize=8.5)
axis = np.linspace(0.005, 0.995, 120)
square = np.stack(np.meshgrid(axis, axis), axis=-1)
heights = np.exp(bernoulli.logit_normal_log_density(square.reshape(-1, 2), W2, mu2)).reshape(120, 120)
right.plot(*y_drawn[:1500].T, ".", color="0.7", markersize=2)
right.contour(axis, axis, heights, levels=[0.4, 0.8, 1.6], colors="k", linewidths=1)
_ = right.set(title="k = 2, n = 2: Eq. 29, corrected", xlabel="$y_1$", ylabel="$y_2$", xlim=(0, 1), ylim=(0, 1))

# %% [markdown]
r"""
**Figure 6.1.** The law of two pixels' probabilities $y$: with one latent on a curve, with two spread over the
square.

On the left, one latent for two pixels: every $y$ lies on one curve. On the right, two latents: the draws fill
the square, and the contours of the corrected density (at 0.4, 0.8, 1.6) follow them.

Nothing of what comes needs the density. We can integrate over $z$ instead of over $y$, and $z$ always has
one.

The paper cites "Atchison & Shen" for the logit-normal distribution; the first author's name is Aitchison.

## The marginal likelihood

### Equation 30

**The paper says** that

$$ p(x) = \int p(x \mid z)\, p(z)\, dz, \tag{30} $$

that numerical integration "may make it easy to evaluate" this, but that it "will not immediately provide us a
good gradient signal".

**Derivation.** The law of total probability: $p(x, z) = p(x \mid z)\, p(z)$, integrated over $z \in \mathbb
R^k$.

How to compute it? For small $k$, by Gauss–Hermite quadrature. The rule with $m$ nodes $t_j$ and weights
$\omega_j$ gives $\int h(t)\, \mathcal N(t; 0, 1)\, dt = \sum_j \omega_j h(t_j)$ exactly for polynomials $h$
of degree up to $2m - 1$, and for smooth $h$ the error falls very fast with $m$. In $k$ dimensions we take all
$m^k$ combinations.

The nodes should be where the integrand is. With many pixels $p(z \mid x)$ is far narrower than the prior, and
a rule laid out for the prior puts most nodes where nothing happens. So we move the rule for each $x$. The
logarithm of the integrand is

$$ \phi(z) = \sum_i \big[ x_i (w_i^\top z + \mu_i) - s(w_i^\top z + \mu_i) \big]
- \tfrac12 \|z\|^2 - \tfrac k2 \log 2\pi, $$

with gradient and Hessian

$$ \nabla \phi = W^\top (x - y) - z, \qquad
\nabla^2 \phi = -\big( W^\top \operatorname{diag}(y_i (1 - y_i))\, W + I_k \big), $$

since $s' = y$ and $s'' = y (1 - y)$. All eigenvalues of the Hessian are at most $-1$ everywhere, so $\phi$ is
strictly concave and falls to $-\infty$ far out: it has exactly one maximum $\hat z$, which Newton's method finds. Let $H = -\nabla^2 \phi(\hat z)$ and let $B$ be a $k \times k$
matrix with $B B^\top = H^{-1}$. Substitute $z = \hat z + B t$, so $dz = |B|\, dt$, and multiply and divide by
the standard Gaussian density of $t$:

$$ p(x) = |B| \int \frac{e^{\phi(\hat z + B t)}}{\mathcal N(t; 0, I)}\, \mathcal N(t; 0, I)\, dt
\approx |B| \sum_j \omega_j\, \exp\big\{ \phi(\hat z + B t_j) + \tfrac12 \|t_j\|^2 + \tfrac k2 \log 2\pi \big\} . $$

If the posterior were Gaussian the sum would be exact with a single node. It is not, but it is smooth, and a
few nodes do. The package doubles $m$ until nothing changes by more than $10^{-9}$ nats, adds everything up in
logarithms, and says so when it does not get there.
"""

# %%
plots.show_source(bernoulli.log_marginal)

# %%
plots.show_source(bernoulli._on_grid)

# %% [markdown]
r"""
**Check.** SciPy's adaptive quadrature over the plane of $z$, and an average over draws from the prior, for
all eight images:
"""

# %% tags=["hide-cell"]
marginal = np.exp(bernoulli.log_marginal(images, W, mu))


def probability(image):
    """Eq. 30 by SciPy, with the integrand typed out."""
    sign = 2 * image - 1  # sigmoid(-a) = 1 - sigmoid(a)

    def integrand(b, a):
        return expit(sign * (W @ [a, b] + mu)).prod() * np.exp(-(a * a + b * b) / 2) / (2 * np.pi)

    return dblquad(integrand, -6, 6, -6, 6, epsabs=1e-6, epsrel=1e-6)[0]


# %% tags=["hide-cell"]
chosen = [1, 6]
ledger.check(
    30,
    "SciPy's quadrature over the plane of z",
    "quadrature",
    marginal[chosen],
    [probability(image) for image in images[chosen]],
    1e-5,
)

# %% tags=["hide-cell"]
y_prior = expit(rng.standard_normal((400_000, k)) @ W.T + mu)
average = np.array([np.where(image, y_prior, 1 - y_prior).prod(axis=1).mean() for image in images])
ledger.check(30, "average over draws of z", "Monte Carlo", marginal, average, 0.01)

# %% [markdown]
r"""
**Note.** Eq. 30 stands as printed, and for a few latents it is easy to evaluate, as the paper says. The
remark on gradients is taken up [below](#is-there-a-gradient-signal). The limits are honest ones: the number
of nodes grows as $m^k$, so this is a tool for $k \le 3$; and for very large $W$ the sigmoids turn into steps,
which no polynomial follows. Here is where the accuracy ends, for one pixel with $\mu = 0$, whose $p(x = 1)$
is $\tfrac12$ by symmetry:
"""

# %% tags=["hide-input"]
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for weight in (1.0, 10.0, 100.0, 1e5):
        heard = len(caught)
        error = abs(bernoulli.log_marginal([[1.0]], [[weight]], [0.0])[0] - np.log(0.5))
        said = "with a warning" if len(caught) > heard else "silently"
        print(f"w = {weight:g}: error {'below 1e-9' if error < 1e-9 else 'above 1e-9'}, {said}")

# %% [markdown]
r"""
**How right are these numbers?** A second opinion that cannot be wrong: ball arithmetic integrates with proved
bounds on every error, here over $|z| \le 14$, beyond which less than $10^{-40}$ of the prior lies and $p(x \mid
z) \le 1$. Our model with its first column alone, all eight images; we count for how many the package's value lies
provably within $10^{-10}$ of the truth.
"""


# %% tags=["hide-cell"]
def ball_log_marginal(image):
    """A ball that holds log p(x) for k = 1."""

    def integrand(z, _):
        value = (-z * z / 2).exp()
        for pixel, weight, offset in zip(image, W[:, 0], mu, strict=True):
            value /= 1 + ((1 - 2 * int(pixel)) * (arb(weight) * z + arb(offset))).exp()
        return value

    inside = acb.integral(integrand, arb(-14), arb(14)).real / (2 * arb.pi()).sqrt()
    return (inside + arb(0, 1e-40)).log()


pairs = zip(bernoulli.log_marginal(images, W[:, :1], mu), map(ball_log_marginal, images), strict=True)
right = sum(abs(arb(value) - ball) < arb("1e-10") for value, ball in pairs)
ledger.certify("images whose log p(x) is right to 1e-10, of eight", right, "==", 8)

# %% [markdown]
r"""
### Equation 31

**The paper says** that, written over $y$, the marginal is

$$ p(x) = \mathbb E_z\big[ y(z)^x (1 - y(z))^{1 - x} \big], \tag{31} $$

"where $(\cdot)^x$ is taken to be elementwise", and that it has no closed form because logit-normal
expectations have none.

**Derivation.** Put $p(x \mid z) = \prod_i y_i^{x_i} (1 - y_i)^{1 - x_i}$ from [Eq. 28](#equation-28) into
[Eq. 30](#equation-30); an integral against $p(z)$ is an expectation over $z$:

$$ p(x) = \mathbb E_z \prod_{i=1}^n y_i(z)^{x_i} (1 - y_i(z))^{1 - x_i} . $$

**Check.** For $n = k = 2$ we take the words literally, and integrate over $y$ with the density of [Eq.
29](#equation-29). Then we add over all images: the sum must be 1, and the mean of $x_i$ must be $\mathbb E\,
y_i$, a one-dimensional integral over $a_i \sim \mathcal N(\mu_i, \|w_i\|^2)$. The mean of $x_1 x_2$ must be
$\mathbb E\, y_1 y_2$, for which we draw.
"""


# %% tags=["hide-cell"]
def over_y(image):
    """E_y of the product, with the density f of Eq. 29."""
    a = np.linspace(1e-9, 1 - 1e-9, 801)
    y = np.stack(np.meshgrid(a, a), axis=-1).reshape(-1, 2)
    density = corrected(y, W2, mu2)
    return simpson(simpson((np.where(image, y, 1 - y).prod(axis=1) * density).reshape(801, 801), x=a), x=a)


two = np.array([[1.0, 0.0], [0.0, 1.0]])
ledger.check(
    31,
    "integral over y with the density of Eq. 29",
    "quadrature",
    np.exp(bernoulli.log_marginal(two, W2, mu2)),
    [over_y(image) for image in two],
    1e-4,
)

# %% tags=["hide-cell"]
axis = np.linspace(-10, 10, 4001)[:, None]
mean_y = (expit(mu + np.linalg.norm(W, axis=1) * axis) * norm.pdf(axis)).sum(axis=0) * 0.005
ledger.check(
    31, "sum and mean over all images", "enumeration", marginal @ np.c_[np.ones(8), images], np.r_[1.0, mean_y], 1e-9
)
second = marginal @ (images[:, 0] * images[:, 1])
ledger.check(
    31, "mean of x_1 x_2 against draws of y", "Monte Carlo", second, (y_prior[:, 0] * y_prior[:, 1]).mean(), 0.01
)

# %% [markdown]
r"""
**Note.** An elementwise power makes a vector of $n$ numbers where a probability is one number; what is meant
is their product. The difference matters, since the product has to be taken *before* the expectation. The
expectations of the $n$ entries are the marginals of single pixels, and their product forgets that the pixels
share a $z$:
"""

# %% tags=["hide-input"]
elementwise = np.where(images, mean_y, 1 - mean_y)
print("entries of the printed form for x = (1, 1, 0):", np.round(elementwise[6], 3))
print(f"their product {elementwise[6].prod():.3f}; p(x) {marginal[6]:.3f}")

# %% [markdown]
r"""
## Is there a gradient signal?

A rule with fixed nodes is a sum of smooth functions of $W$ and $\mu$, so it can be differentiated like any
other formula. And there is a closed form. Differentiate the logarithm of [Eq. 30](#equation-30) under the
integral, then write $\nabla p(x \mid z) = p(x \mid z)\, \nabla \log p(x \mid z)$:

$$ \nabla \log p(x) = \frac{1}{p(x)} \int \nabla p(x \mid z)\, p(z)\, dz
= \int \frac{p(x \mid z)\, p(z)}{p(x)}\, \nabla \log p(x \mid z)\, dz
= \mathbb E_{p(z \mid x)} \nabla \log p(x \mid z), $$

which is known as Fisher's identity. With $\partial \log p(x \mid z) / \partial a_i = x_i - y_i$ and $a_i =
w_i^\top z + \mu_i$,

$$ \nabla_W \log p(x) = \mathbb E_{p(z \mid x)} \big[ (x - y)\, z^\top \big] \quad (n \times k), \qquad
\nabla_\mu \log p(x) = \mathbb E_{p(z \mid x)} [x - y] . $$

The posterior expectation is a ratio of two integrals of the same kind, taken with the same nodes. We compute
the gradient three ways: by automatic differentiation of a rule centred on the prior, six lines of PyTorch; by
Fisher's identity; and by finite differences of the package's function, whose nodes move with $W$.
"""


# %% tags=["hide-cell"]
def prior_rule(nodes, k):
    """Gauss-Hermite nodes (nodes^k, k) for the prior N(0, I), and the logarithms of their weights."""
    t, weights = roots_hermitenorm(nodes)
    grid = np.stack(np.meshgrid(*[t] * k), axis=-1).reshape(-1, k)
    log_weights = np.log(np.stack(np.meshgrid(*[weights / weights.sum()] * k), axis=-1)).reshape(-1, k).sum(axis=1)
    return torch.tensor(grid), torch.tensor(log_weights)


def torch_log_marginal(x, W, mu, rule):
    """log p(x) of each row of x, differentiable: log-sum-exp over the nodes."""
    grid, log_weights = rule
    logits = grid @ W.T + mu
    log_conditional = x @ logits.T - torch.nn.functional.softplus(logits).sum(dim=1)
    return torch.logsumexp(log_conditional + log_weights, dim=1)


# %% tags=["hide-cell"]
x_small = torch.tensor(images[[1, 3, 3, 6, 7]])
W_t, mu_t = torch.tensor(W, requires_grad=True), torch.tensor(mu, requires_grad=True)
torch_log_marginal(x_small, W_t, mu_t, prior_rule(48, k)).mean().backward()
by_autograd = np.c_[W_t.grad.numpy(), mu_t.grad.numpy()]


# %% tags=["hide-cell"]
def central_differences(f, point, h=1e-4):
    """Gradient of f at an array, entry by entry."""
    units = np.eye(point.size).reshape(-1, *point.shape)
    return np.array([(f(point + h * u) - f(point - h * u)) / (2 * h) for u in units]).reshape(point.shape)


def joined(both):
    """Average log p(x), W and mu side by side."""
    return bernoulli.log_marginal(x_small, both[:, :k], both[:, k]).mean()


by_differences = central_differences(joined, np.c_[W, mu])
ledger.check(31, "gradient: differences against autograd", "autograd", by_differences, by_autograd, 1e-6)

# %% tags=["hide-cell"]
grid, log_weights = (part.numpy() for part in prior_rule(48, k))
y_grid = expit(grid @ W.T + mu)
by_fisher = np.zeros((n, k + 1))
for image in x_small.numpy():
    posterior = np.exp(log_weights) * np.where(image, y_grid, 1 - y_grid).prod(axis=1)
    posterior /= posterior.sum()
    by_fisher += (posterior[:, None] * (image - y_grid)).T @ np.c_[grid, np.ones(len(grid))] / len(x_small)
ledger.check(
    31, "gradient: differences against Fisher's identity", "finite differences", by_differences, by_fisher, 1e-6
)

# %% [markdown]
r"""
All three agree. So the signal is there and it is exact; is it *good*, in the sense that one can train with
it? We take the digits, call a pixel on when it exceeds half of full ink, drop the pixels that never change,
and fit one latent by L-BFGS on the exact log likelihood, starting next to complete collapse.
"""

# %% tags=["hide-input"]
grey = data.digits()
ink = (grey > 0.5).astype(float)
varies = ink.min(axis=0) < ink.max(axis=0)
x = ink[:, varies]
p = x.mean(axis=0)
print(f"{len(x)} images, {x.shape[1]} of {grey.shape[1]} pixels vary")

# %% tags=["hide-input"]
rule, x_torch, start = prior_rule(160, 1), torch.tensor(x), 0.01 * rng.standard_normal(x.shape[1])


def minus_log_p(parameters):
    """Minus the average log p(x), and its gradient; the parameters are W, then mu."""
    both = torch.tensor(parameters, requires_grad=True)
    value = -torch_log_marginal(x_torch, both[: len(p), None], both[len(p) :], rule).mean()
    value.backward()
    return value.item(), both.grad.numpy()


fitted = minimize(minus_log_p, np.r_[start, logit(p)], jac=True, method="L-BFGS-B", options={"maxiter": 80})

# %% tags=["hide-input"]
W1, mu1 = fitted.x[: len(p), None], fitted.x[len(p) :]
exact = bernoulli.log_marginal(x, W1, mu1).mean()
some = x[::12]
m, v = bernoulli.optimal_encoder(some, W1, mu1)
gap = (bernoulli.log_marginal(some, W1, mu1) - bernoulli.elbo(some, W1, mu1, m, v)).mean()
print(f"average log p(x): {bernoulli.log_marginal(x, 0 * W1, logit(p)).mean():.1f} collapsed, {exact:.1f} nats fitted")
print(f"in under 120 evaluations: {fitted.nfev < 120}")
print(f"the rule it was trained with is off by less than 1e-3 nats: {abs(exact + fitted.fun) < 1e-3}")
print(f"the best Gaussian q loses between 0 and 0.05 nats: {0 < gap < 0.05}")

# %% mystnb={"image": {"alt": "Seven images of pixel probabilities as the latent goes from -2.4 to 2.4"}} tags=["hide-input"]
fig, panels = plots.figure(1, 7, width=8.0, height=1.7)
for panel, z in zip(panels, np.linspace(-2.4, 2.4, 7), strict=True):
    image = ink.mean(axis=0)
    image[varies] = expit(W1[:, 0] * z + mu1)
    panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    panel.set(xticks=[], yticks=[], title=f"z = {z:.1f}")
    panel.spines[:].set_visible(True)

# %% [markdown]
r"""
**Figure 6.2.** What one latent has learned, live, from digits in black and white: the probabilities $y(z)$ as $z$
moves.

What the one latent has learned: the probabilities $y(z)$ as $z$ moves from $-2.4$ to $2.4$, from something
like a 3 to something like a 6. For one latent, then, the gradient of a quadrature rule does train the model. The
paper's caution holds for many latents, where $m^k$ nodes are out of reach. But there one would use the ELBO,
and the ELBO, as we see next, needs one-dimensional integrals only, whatever $k$ is.

## The ELBO

### Equation 32

**The paper says** that the expected reconstruction term is "another intractable integral",

$$ \mathbb E_{q(z \mid x)} [\log p(x \mid z)]
= \int y(z)^x (1 - y(z))^{1 - x}\; \mathcal N\big( z;\, V(x - \mu),\, D \big)\, dz . \tag{32} $$

**Derivation.** The left side is the expectation of a *logarithm*. On the right, as our copy prints it, the
logarithm is missing: what stands there is $\mathbb E_q\, p(x \mid z)$, a number between 0 and 1. Put it back
and insert [Eq. 28](#equation-28) in its stable form. Write $q(z \mid x) = \mathcal N(m, \operatorname{diag}
v)$ with $m, v \in \mathbb R^k$ (in the paper $m = V(x - \mu)$ and $v$ is the diagonal of $D$):

$$ \mathbb E_q \log p(x \mid z) = \sum_{i=1}^n \big[ x_i\, \mathbb E_q\, a_i - \mathbb E_q\, s(a_i) \big],
\qquad a_i = w_i^\top z + \mu_i . $$

The logarithm turned the product over pixels into a sum, and each term sees $z$ only through *one number*,
$a_i$. Under $q$ that number is an affine function of a Gaussian, so it is Gaussian, with

$$ \alpha_i = \mathbb E_q\, a_i = w_i^\top m + \mu_i, \qquad
\tau_i^2 = \operatorname{Var}_q a_i = \sum_{j=1}^k w_{ij}^2\, v_j . $$

Therefore

$$ \mathbb E_q \log p(x \mid z)
= \sum_{i=1}^n \Big[ x_i \alpha_i - \int s(\alpha_i + \tau_i t)\; \mathcal N(t; 0, 1)\, dt \Big] : $$

$n$ one-dimensional Gaussian integrals of one fixed function, for any $k$. They have no closed form, and need
none. For $\tau_i \le 1$ Gauss–Hermite takes them with a few dozen nodes. For large $\tau_i$ the softplus looks
like a corner to that rule, so we exchange roles. If $r$ has the logistic density $s''(r)$, which is even,
then

$$ s(u) = \mathbb E_r \max(u + r, 0), $$

because both sides vanish as $u \to -\infty$, and the derivative of the right side is $P(r > -u) = P(r < u) =
\sigma(u) = s'(u)$. Take the expectation over $u = \alpha + \tau t$ first. With $b = \alpha + r$, $\phi$ the
standard normal density and $\Phi$ its distribution function,

$$ \mathbb E_t \max(b + \tau t, 0) = \int_{-b/\tau}^{\infty} (b + \tau t)\, \phi(t)\, dt
= b\, \Phi(b/\tau) + \tau\, \phi(b/\tau), $$

where the second term comes from $\int_c^\infty t\, \phi(t)\, dt = \phi(c)$. What is left is an average of
this function, which is smooth on the scale $\tau$, over $r$. The wider the Gaussian, the easier it gets.
"""

# %%
plots.show_source(bernoulli.gaussian_logistic)

# %% [markdown]
r"""
Ball arithmetic once more, for narrow, middling and wide Gaussians on either side of the corner. Beyond $|t| = 14$
the softplus is below $|\alpha| + \tau |t| + 1$, which adds less than $10^{-35}$. We count the integrals that lie
provably within $10^{-12} \max(1, \tau)$ of the truth.
"""


# %% tags=["hide-cell"]
def ball_softplus(alpha, tau):
    """A ball that holds the mean of softplus(alpha + tau t)."""

    def integrand(t, analytic):
        return (1 + (alpha + tau * t).exp()).log(analytic=analytic) * (-t * t / 2).exp()

    return acb.integral(integrand, arb(-14), arb(14)).real / (2 * arb.pi()).sqrt() + arb(0, 1e-35)


places = [(alpha, tau) for alpha in (-3, 0, 2) for tau in (Fraction(1, 4), 1, 3, 30)]
values = bernoulli.gaussian_logistic(*np.array(places, dtype=float).T)[0]
balls = [ball_softplus(arb(alpha), arb(float(tau))) for alpha, tau in places]
limits = [arb("1e-12") * max(1, int(tau)) for _, tau in places]
right = sum(abs(arb(v) - ball) < limit for v, ball, limit in zip(values, balls, limits, strict=True))
ledger.certify("Gaussian means of the softplus right to 1e-12 max(1, tau), of twelve", right, "==", 12)

# %%
plots.show_source(bernoulli._expected_log_likelihood)

# %% [markdown]
r"""
The $\beta$-ELBO subtracts $\beta$ times the KL divergence between $\mathcal N(m, \operatorname{diag} v)$ and
the prior, which is $\tfrac12 \sum_j (m_j^2 + v_j - 1 - \log v_j)$ as in the Gaussian model.
"""

# %%
plots.show_source(bernoulli.elbo)

# %% [markdown]
r"""
**Check.** The same small model, five images, and a generic $q$ for each; some variances large enough to use
the second rule. Draws from $q$, and SciPy's quadrature over the plane of $z$:
"""

# %% tags=["hide-cell"]
x5 = images[[1, 3, 4, 6, 7]]
m5, v5 = rng.standard_normal((5, k)), rng.uniform(0.1, 2.0, (5, k))
expected = bernoulli.expected_log_likelihood(x5, W, mu, m5, v5)
z_drawn = m5[:, None] + np.sqrt(v5)[:, None] * rng.standard_normal((5, 200_000, k))
y_q = expit(z_drawn @ W.T + mu)
log_likelihoods = np.log(np.where(x5[:, None], y_q, 1 - y_q)).sum(axis=2)
ledger.check(32, "average over draws from q", "Monte Carlo", expected, log_likelihoods.mean(axis=1), 0.01)


# %% tags=["hide-cell"]
def over_plane(i):
    """E_q log p(x | z) of row i as one two-dimensional integral, corrected Eq. 32 with nothing simplified."""
    sign, spread = 2 * x5[i] - 1, np.sqrt(v5[i])

    def integrand(t2, t1):
        logits = W @ (m5[i] + spread * [t1, t2]) + mu
        return np.log(expit(sign * logits)).sum() * np.exp(-(t1**2 + t2**2) / 2) / (2 * np.pi)

    return dblquad(integrand, -7, 7, -7, 7, epsabs=1e-5, epsrel=1e-5)[0]


ledger.check(
    32, "SciPy's quadrature over the plane of z", "quadrature", expected[:2], [over_plane(i) for i in range(2)], 1e-5
)

# %% [markdown]
r"""
The ELBO must fall short of $\log p(x)$ by exactly the KL divergence from $q$ to the posterior, which we sum
on a grid. This ties the two quadratures of the chapter to each other.
"""

# %% tags=["hide-cell"]
axis = np.linspace(-9, 9, 241)
plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, k)
y_plane = expit(plane @ W.T + mu)
log_prior = norm.logpdf(plane).sum(axis=1)
cell = (axis[1] - axis[0]) ** 2
kl = []
for image, mean, variance in zip(x5, m5, v5, strict=True):
    log_joint = np.log(np.where(image, y_plane, 1 - y_plane)).sum(axis=1) + log_prior
    log_posterior = log_joint - np.log(np.exp(log_joint).sum() * cell)
    log_q = norm.logpdf(plane, mean, np.sqrt(variance)).sum(axis=1)
    kl.append((np.exp(log_q) * (log_q - log_posterior)).sum() * cell)
shortfall = bernoulli.log_marginal(x5, W, mu) - bernoulli.elbo(x5, W, mu, m5, v5)
ledger.check(32, "log p minus ELBO is KL(q || posterior)", "quadrature", shortfall, kl, 1e-6)

# %% [markdown]
r"""
And the gradient in $W$, from automatic differentiation of the one-dimensional rule, against finite
differences of the package's ELBO:
"""

# %% tags=["hide-cell"]
t, weights = (torch.tensor(part) for part in roots_hermitenorm(120))
W_t = torch.tensor(W, requires_grad=True)
alpha = torch.tensor(m5) @ W_t.T + torch.tensor(mu)
tau = torch.sqrt(torch.tensor(v5) @ (W_t**2).T)
softplus = torch.nn.functional.softplus(alpha[..., None] + tau[..., None] * t) @ (weights / weights.sum())
(torch.tensor(x5) * alpha - softplus).sum(dim=1).mean().backward()
differences = central_differences(lambda W: bernoulli.elbo(x5, W, mu, m5, v5).mean(), W)
ledger.check(32, "gradient in W: differences against autograd", "autograd", differences, W_t.grad.numpy(), 1e-6)

# %% [markdown]
r"""
**Note.** As our copy prints it, the right side of Eq. 32 is $\mathbb E_q\, p(x \mid z)$. Jensen's inequality
says that its logarithm is at least the left side. The numbers, for the first three images, show that the two
are not the same thing:
"""

# %% tags=["hide-input"]
printed = np.exp(log_likelihoods).mean(axis=1)
for left_side, right_side in zip(expected[:3], printed[:3], strict=True):
    print(f"E log p = {left_side:.2f}; printed right side {right_side:.2f}, its logarithm {np.log(right_side):.2f}")

# %% [markdown]
r"""
One more thing to read with care: $V(x - \mu)$. In the Gaussian model $\mu$ is the mean of the data, so the
encoder sees centred data. Here $\mu$ is an offset of logits and can be any real number. An encoder $V x + b$
with an offset of its own is what is needed. We give $q$ a free $m$ and $v$ for every sample, which is at
least as good.

**The best $q$.** The ELBO is concave in $m$ and $\sqrt{v}$, so each sample has one best $q$. Concavity: with
$d_j = \sqrt{v_j}$, the standard deviation $\tau_i = \sqrt{\sum_j w_{ij}^2 d_j^2}$ is a Euclidean length, so convex
in $d$. The function $(\alpha, \tau) \mapsto \mathbb E_t\, s(\alpha + \tau t)$ is convex as an average of
convex functions of $(\alpha, \tau)$; it is even in $\tau$, as $t$ and $-t$ are equally likely, and being even
and convex it does not decrease for $\tau \ge 0$. A convex function that does not
decrease in an argument stays convex when a convex function is put there. So $-\mathbb E_q\, s(a_i)$ is
concave in $(m, d)$; $x_i \alpha_i$ is linear; and the KL term contributes $\beta$ times $-\tfrac12 (m_j^2 +
d_j^2) + \log d_j$, strictly concave. Setting its derivatives to zero (the derivative of $\mathbb E\, s(\alpha + \tau t)$ in
$\alpha$ is $\mathbb E\, y$, that in $\tau^2$ is $\tfrac12 \mathbb E\, y (1 - y)$, by parts),

$$ \beta\, m = W^\top (x - \mathbb E_q\, y), \qquad
\frac{1}{v_j} = 1 + \frac1\beta \sum_i w_{ij}^2\; \mathbb E_q [y_i (1 - y_i)] . $$

For $W = 0$ they give $m = 0$ and $v = 1$: the prior. We compare the package's solution with a general
optimiser that knows nothing of these equations.
"""

# %%
plots.show_source(bernoulli.optimal_encoder)

# %% tags=["hide-input"]
m_best, v_best = bernoulli.optimal_encoder(x5[:1], W, mu, beta=1.7)
found = bernoulli.elbo(x5[:1], W, mu, m_best, v_best, beta=1.7)


def objective(q):
    """Minus the ELBO, as a function of means and log variances in one array."""
    return -bernoulli.elbo(x5[:1], W, mu, [q[:k]], [np.exp(q[k:])], beta=1.7)[0]


searched = minimize(objective, np.zeros(2 * k), method="BFGS", options={"gtol": 1e-8})
q_best = np.r_[m_best[0], np.log(v_best[0])]
print(f"the same maximum to 1e-9 nats: {abs(found[0] + searched.fun) < 1e-9}")
ledger.check(32, "best means and log variances, beta = 1.7", "optimisation", q_best, searched.x, 1e-5)

# %% [markdown]
r"""
## When does the model collapse?

The paper says that in this model it is difficult to reason about the stationary points. That is so for most
of them. But one can be reached exactly: complete collapse, $W = 0$. All of this section is ours. Throughout,
constant pixels are left out, so that $0 < p_i < 1$ for the mean $p_i$ of each pixel.

**The stationary point.** At $W = 0$ the pixels do not depend on $z$, and $\log p(x) = \sum_i [x_i \mu_i -
s(\mu_i)]$. Averaged over the data, with $p = \frac1N \sum x$ the mean image, the best offset solves $p_i -
\sigma(\mu_i) = 0$, so $\mu_i = \operatorname{logit} p_i$. Let

$$ S = \frac1N \sum (x - p)(x - p)^\top, \qquad
A = \operatorname{diag}\big( p_i (1 - p_i) \big), \qquad (n \times n \text{ both}). $$

**The Hessian of the exact log likelihood.** Move $W$ from 0 to $\varepsilon W$ with columns $u_1, \dots, u_k
\in \mathbb R^n$; the logits become $\mu_i + \varepsilon\, w_i^\top z$. Expand the softplus, with $s'(\mu_i) =
p_i$ and $s''(\mu_i) = p_i (1 - p_i) = A_{ii}$:

$$ \log p(x \mid z) = \ell_0(x)
+ \varepsilon\, z^\top W^\top (x - p) - \tfrac{\varepsilon^2}{2}\, z^\top W^\top A W z + O(\varepsilon^3), $$

where $\ell_0$ is the value at $W = 0$. Call the first-order term $\varepsilon B$, the second
$-\frac{\varepsilon^2}{2} Q$. Then $p(x \mid z) = e^{\ell_0} \big( 1 + \varepsilon B + \frac{\varepsilon^2}{2}
(B^2 - Q) + O(\varepsilon^3) \big)$. Take the expectation over $z \sim \mathcal N(0, I_k)$. Odd powers of
$\varepsilon$ come with odd powers of $z$ and vanish. With $\mathbb E\, z z^\top = I$, $\mathbb E\, B^2 =
\|W^\top (x - p)\|^2$ and $\mathbb E\, Q = \operatorname{tr}(W^\top A W)$. As $\log(1 + \delta) = \delta +
O(\delta^2)$,

$$ \log p(x) = \ell_0(x)
+ \tfrac{\varepsilon^2}{2} \big[ \|W^\top (x - p)\|^2 - \operatorname{tr}(W^\top A W) \big] + O(\varepsilon^4) . $$

Average over the data. $\frac1N \sum \|W^\top (x - p)\|^2 = \operatorname{tr}(W^\top S W)$, and both traces
are sums over columns:

$$ \frac1N \sum \log p(x) = \text{const}
+ \frac{\varepsilon^2}{2} \sum_{j=1}^k u_j^\top (S - A)\, u_j + O(\varepsilon^4) . $$

So the Hessian is $S - A$ for each column, and columns do not interact. (Moving $\mu$ at the same time changes
nothing: $\log p$ is even in $W$, because $z$ and $-z$ are equally likely, so mixed second derivatives in $W$
and $\mu$ vanish, and in $\mu$ alone the Hessian is $-A$, negative definite.)

**Binary data with any correlation leave $W = 0$ at $\beta = 1$.** If $x_i \in \{0, 1\}$ then $x_i^2 = x_i$, so $S_{ii} =
p_i - p_i^2 = A_{ii}$: the diagonal of $S - A$ is zero, and so is its trace, the sum of its eigenvalues. If
any two pixels correlate, $S - A$ is not the zero matrix; a symmetric matrix that is not zero has an
eigenvalue that is not zero; and as the sum is zero, there is a positive one. So $W = 0$ is not a local
maximum of $\log p$. It is a saddle point. There is no analogue here of a $\sigma^2$ set too high.

**The $\beta$-ELBO.** The same expansion under $q = \mathcal N(m, \operatorname{diag} v)$, for one column $u$
first ($k = 1$). The average of $z$ is $m$, that of $z^2$ is $m^2 + v$:

$$ \mathcal L_\beta = \ell_0 + \varepsilon\, m\, u^\top (x - p) - \tfrac{\varepsilon^2}{2} (m^2 + v)\, u^\top A u
- \tfrac\beta2 (m^2 + v - 1 - \log v) + O(\varepsilon^3\, \mathbb E_q z^3) + O(\varepsilon^4) . $$

At $\varepsilon = 0$ the best $q$ is $m = 0$, $v = 1$. For small $\varepsilon$ set the derivatives to zero. In
$m$: $\varepsilon\, u^\top (x - p) - \varepsilon^2 m\, u^\top A u - \beta m + \dots = 0$, so $m =
\frac\varepsilon\beta u^\top (x - p) + O(\varepsilon^3)$. In $v$: $-\frac{\varepsilon^2}{2} u^\top A u -
\frac\beta2 (1 - \frac1v) + \dots = 0$, so $v = 1 - \frac{\varepsilon^2}{\beta} u^\top A u +
O(\varepsilon^4)$. Since $m = O(\varepsilon)$, $\mathbb E_q z^3 = m^3 + 3mv$ is $O(\varepsilon)$ and the cubic
term is $O(\varepsilon^4)$. The penalty on $v$, $v - 1 - \log v$, is about $\frac12 (v - 1)^2$, also
$O(\varepsilon^4)$. What is left to order $\varepsilon^2$ is

$$ \underbrace{\tfrac{\varepsilon^2}{\beta} \big( u^\top (x - p) \big)^2}_{\text{linear term}}
- \underbrace{\tfrac{\varepsilon^2}{2} u^\top A u}_{v \approx 1}
- \underbrace{\tfrac{\varepsilon^2}{2\beta} \big( u^\top (x - p) \big)^2}_{\beta m^2 / 2},
\qquad\text{on average}\qquad
\frac{\varepsilon^2}{2}\; u^\top \Big( \tfrac1\beta S - A \Big) u . $$

With $k$ columns the best $m_j$ are found one by one to this order, the quadratic term is again
$\operatorname{tr}(W^\top A W)$ at $v = 1$ and $m = 0$, and the result is the sum over columns. At $\beta = 1$
it is the Hessian of $\log p$ itself: near collapse a diagonal Gaussian $q$ costs only $O(\varepsilon^4)$. The
offset may again move too: $W$ and $m$ may change their signs together, so the $\beta$-ELBO at the best $q$ is
even in $W$, and at $W = 0$ its Hessian in $\mu$ is $-A$.

**The threshold.** $W = 0$ is a strict local maximum of the $\beta$-ELBO when $\frac1\beta S - A$ is negative
definite, that is when $u^\top S u < \beta\, u^\top A u$ for every $u \ne 0$. Some direction rises when
$u^\top S u > \beta\, u^\top A u$ for some $u$. Where neither holds, the second order does not decide
(Exercise 6.2). Substitute $u = A^{-1/2} e$:

$$ \beta^* = \max_{e \ne 0} \frac{e^\top A^{-1/2} S A^{-1/2} e}{e^\top e}
= \lambda_{\max}\big( A^{-1/2} S A^{-1/2} \big) . $$

> **Theorem 6.1** (When complete collapse is stable). *With the best $q$ and $\mu = \operatorname{logit} p$, the point
> $W = 0$ is a strict local maximum of the $\beta$-ELBO in $W$ and $\mu$ for $\beta > \beta^*$, and none for
> $\beta < \beta^*$.*

For binary data $A$ holds the variances, so $A^{-1/2} S A^{-1/2}$ is the *correlation matrix*. Its trace is
$n$, so its largest eigenvalue is at least 1. It plays the part that $\lambda_1 / \sigma^2$ plays in the
linear Gaussian model.
"""

# %%
plots.show_source(bernoulli.collapse_threshold)

# %% [markdown]
r"""
**Check, on a small data set.** Seven of the eight images of our small model, in unequal numbers. The Hessian
of the package's exact marginal in $W$ ($3 \times 1$) at $W = 0$, by second differences, against $S - A$:
"""

# %% tags=["hide-cell"]
x_few = images[[0, 0, 1, 2, 3, 3, 3, 4, 5, 7, 7]]
p_few = x_few.mean(axis=0)
S_few, A_few = np.cov(x_few.T, bias=True), np.diag(p_few * (1 - p_few))


def level(w):
    """Average log p(x) at W = w, k = 1."""
    return bernoulli.log_marginal(x_few, w[:, None], logit(p_few)).mean()


h, units = 0.01, np.eye(n)
hessian = np.array([[level(h * (a + b)) - level(h * (a - b)) for b in units] for a in units]) / (2 * h**2)
ledger.check(31, "Hessian at W = 0 is S - diag(p(1-p))", "finite differences", hessian, S_few - A_few, 1e-3)
print("its diagonal is zero:", np.allclose(np.diag(hessian), 0, atol=1e-3))

# %% [markdown]
r"""
(The second difference uses $f(-w) = f(w)$.) The threshold, on these images and on a grey version of them, in which
$A$ and the variances differ. A root finder is given the best direction and no eigenvalue: it moves $\beta$ until
the best ELBO at a small step is as high as at $W = 0$.
"""


# %% tags=["hide-cell"]
def sign_change(data, low, high):
    """The beta at which a small step along the best direction neither gains nor loses."""
    mean = data.mean(axis=0)
    w = 0.005 * eigh(np.cov(data.T, bias=True), np.diag(mean * (1 - mean)))[1][:, -1:]
    collapsed = bernoulli.log_marginal(data, 0 * w, logit(mean)).mean()

    def gain(beta):
        q = bernoulli.optimal_encoder(data, w, logit(mean), beta)
        return bernoulli.elbo(data, w, logit(mean), *q, beta).mean() - collapsed

    return brentq(gain, low, high, xtol=1e-8)


grey_few = 0.1 + x_few @ np.diag([0.8, 0.5, 0.7])
thresholds = [bernoulli.collapse_threshold(x_few), bernoulli.collapse_threshold(grey_few)]
roots = [sign_change(x_few, 0.5, 3), sign_change(grey_few, 0.1, 3)]
ledger.check(32, "beta at which a small step turns to a loss", "optimisation", roots, thresholds, 2e-4)

# %% [markdown]
r"""
Now **the digits**. Their threshold, and the direction that
is the last to rise as $\beta$ grows, which is $A^{-1/2}$ times the leading eigenvector of the correlation matrix:
"""

# %% tags=["hide-input"]
A, S = p * (1 - p), np.cov(x.T, bias=True)
spectrum, axes = np.linalg.eigh(S / np.sqrt(np.outer(A, A)))
u = axes[:, -1] / np.sqrt(A)
u /= np.linalg.norm(u)
threshold = bernoulli.collapse_threshold(ink)
print(
    f"threshold {threshold:.2f}; "
    f"largest eigenvalue of NumPy's correlation matrix {np.linalg.eigvalsh(np.corrcoef(x.T))[-1]:.2f}"
)


# %% tags=["hide-cell"]
def curvature(beta, h=0.02):
    """Second derivative along u, at W = 0, of the average beta-ELBO with the best q, on all the digits."""
    w = h * u[:, None]
    m, v = bernoulli.optimal_encoder(x, w, logit(p), beta)
    collapsed = np.mean(x @ logit(p)) + np.log1p(-p).sum()
    return 2 * (bernoulli.elbo(x, w, logit(p), m, v, beta).mean() - collapsed) / h**2


# %% tags=["hide-cell"]
betas = [0.5, 1.0, 2.0, 8.0]
measured = [curvature(beta) for beta in betas]
ledger.check(
    32,
    "curvature of the beta-ELBO at W = 0",
    "finite differences",
    measured,
    [u @ S @ u / beta - u @ (A * u) for beta in betas],
    5e-4,
)

# %% tags=["hide-cell"]
root = brentq(curvature, 4.0, 6.0, xtol=1e-4)
ledger.check(32, "beta at which the curvature changes sign", "optimisation", root, threshold, 1e-4)

# %% [markdown]
r"""
Again the root finder was given a direction and no eigenvalue, and it ends within $10^{-4}$ of the largest
eigenvalue of the correlation matrix: close enough to tell it from the one that $1/(N - 1)$ would give in $S$.

Black and white digits are whole numbers, so two statements can be had **exactly**. With the counts $c_i = \sum
x_i$, $N^2 S = N X^\top X - c\, c^\top$ and $N^2 A_{ii} = c_i (N - c_i)$ are integers, and the trace of $N^2 (S -
A)$ is zero or it is not. And every vector of integers gives a lower bound on the threshold, $u^\top S u / u^\top
A u$, as a fraction. In the other direction, $\frac{953}{200} A - S$ is positive definite when all its leading
principal minors are positive (Sylvester), and then the threshold is below $4.765$. So the threshold is above 1,
collapse is a saddle at $\beta = 1$, and 4.76 is right in both decimals.
"""

# %% tags=["hide-cell"]
X, count = x.astype(int), len(x)
c = X.sum(axis=0)
S_whole, A_whole = count * X.T @ X - np.outer(c, c), c * (count - c)
ledger.certify("trace of N² (S - A) for the black and white digits", int(np.trace(S_whole) - A_whole.sum()), "==", 0)
direction = np.round(1000 * u).astype(int)
quotient = Fraction(int(direction @ S_whole @ direction), int(direction**2 @ A_whole))
ledger.certify("a lower bound on the threshold of the digits", quotient, ">", Fraction(951, 200))

# %% tags=["hide-cell"]
matrix = 953 * np.diag(A_whole) - 200 * S_whole
minors = [fmpz_mat(matrix[:i, :i].tolist()).det() for i in range(1, len(matrix) + 1)]
positive = sum(minor > 0 for minor in minors)
ledger.certify("positive leading minors of 4.765 A - S", positive, "==", len(matrix))

# %% [markdown]
r"""
Further out along $u$ the landscape looks like this.
"""

# %% tags=["hide-input"]
lengths = np.linspace(0, 7, 11)
profiles = {}
for beta in (1.0, 2.0, 4.0, 6.0):
    best = [bernoulli.optimal_encoder(some, t * u[:, None], logit(p), beta) for t in lengths]
    values = [
        bernoulli.elbo(some, t * u[:, None], logit(p), *q, beta).mean() for t, q in zip(lengths, best, strict=True)
    ]
    profiles[beta] = np.array(values) - values[0]
exact = np.array([bernoulli.log_marginal(some, t * u[:, None], logit(p)).mean() for t in lengths])

# %% mystnb={"image": {"alt": "Objective against length of W: it rises from zero for beta 1, 2 and 4, falls for beta 6"}} tags=["hide-input"]
fig, ax = plots.figure(height=3.8)
for (beta, values), line in zip(profiles.items(), plots.LINES, strict=True):
    ax.plot(lengths, values, line, label=f"β-ELBO, best q, β = {beta:g}")
ax.plot(lengths, exact - exact[0], "k+", markersize=8, label="exact log p")
ax.axhline(0, color="0.5", linewidth=0.8)
ax.set(xlabel="length of W along the leading direction", ylabel="gain over W = 0 (nats per image)", ylim=(-1, 1.3))
_ = ax.legend(loc="lower left", fontsize=9)

# %% [markdown]
r"""
**Figure 6.3.** The $\beta$-ELBO as $W$ grows from zero along the leading direction, for digits in black and
white, at four $\beta$.

Every twelfth digit, with $\mu = \operatorname{logit} p$ held fixed. At $\beta = 1$ the ELBO with the best
Gaussian $q$ lies on the exact $\log p$ (crosses) to the eye, and both rise from collapse at once. At $\beta =
4$, below the threshold of 4.76 (of all digits), the rise is slight. At $\beta = 6$ every step drawn along $u$
loses; and on all digits, where 6 is above the threshold, so does every small step in any direction.
"""

# %% tags=["hide-input"]
print("rises from W = 0:", {beta: bool(values[1] > 0) for beta, values in profiles.items()})
print(f"exact log p minus ELBO at β = 1 never exceeds 0.01 nats: {(exact - exact[0] - profiles[1.0]).max() < 0.01}")

# %% mystnb={"image": {"alt": "Falling eigenvalues of the correlation matrix: 15 lie above 1, three above 3, none above 6"}} tags=["hide-input"]
fig, ax = plots.figure(height=3.4)
ax.plot(np.arange(1, len(spectrum) + 1), spectrum[::-1], "o-", markersize=4)
for beta, line in ((1, "--"), (3, ":"), (6, "-.")):
    ax.axhline(beta, color="0.4", linestyle=line, linewidth=1.2)
    ax.text(
        len(spectrum), beta + 0.08, f"β = {beta}: {(spectrum > beta).sum()} directions rise", ha="right", fontsize=9
    )
_ = ax.set(xlabel="rank", ylabel="eigenvalue of the correlation matrix", ylim=(0, 6.8))

# %% [markdown]
r"""
**Figure 6.4.** Eigenvalues of the correlation matrix of the digits in black and white, with three values of
$\beta$ as horizontal lines.

The spectrum of the correlation matrix of the digits. For each $\beta$, the eigenvalues above the line are
directions along which the $\beta$-ELBO rises from $W = 0$; above the largest, at 4.76, there are none.

## At the threshold

Does collapse end with a jump, as water freezes, or does $W$ grow from zero? The fourth order decides. Take $k = 1$,
$W = \varepsilon u$ with $u = A^{-1/2} e$, where $e$ is a unit vector, so $h := u^\top A u = 1$; let $G = u^\top S
u$, and let the offset be free to follow: $\mu = \operatorname{logit} p + \varepsilon^2 d$. The next derivatives of
the softplus at $\operatorname{logit} p_i$ are $s^{(3)} = A_{ii} (1 - 2 p_i)$ and $s^{(4)} = A_{ii} (1 - 6 A_{ii})$. Put
in $m = \frac{\varepsilon}{\beta} u^\top (x - p)$ and $v = 1 - \frac{\varepsilon^2}{\beta}$, found above. They
are the best up to $O(\varepsilon^3)$ and $O(\varepsilon^4)$, and at a maximum such errors cost their squares, so
nothing up to order $\varepsilon^4$. Terms of order $\varepsilon^4$, averaged over the data (those with $\mathbb
E\, u^\top (x - p) = 0$ vanish):

- from $-\tfrac{\varepsilon^2}{2} (m^2 + v)$: $\; -\frac{G}{2\beta^2} + \frac{1}{2\beta}$;
- from $-\tfrac\beta2 (v - 1 - \log v)$: $\; -\frac{1}{4\beta}$;
- from the fourth derivative, with $\mathbb E\, z^4 = 3$: $\; -\frac18 \sum_i u_i^4 A_{ii} (1 - 6 A_{ii})$;
- from the offset: $\; -\frac12 \sum_i d_i\, u_i^2 A_{ii} (1 - 2 p_i) - \frac12 \sum_i A_{ii} d_i^2$, which is
  largest at $d_i = -\frac12 (1 - 2 p_i) u_i^2$, where it is $\frac18 \sum_i u_i^4 A_{ii} (1 - 2 p_i)^2$.

With $(1 - 2 p_i)^2 = 1 - 4 A_{ii}$ the last two lines add up to $\frac18 \sum_i u_i^4 A_{ii} \cdot 2 A_{ii} =
\frac14 \sum_i e_i^4$. At the threshold take for $e$ the leading eigenvector of $C = A^{-1/2} S A^{-1/2}$, so $\beta
= \beta^* = G$. The second order is gone, and the gain over collapse is

$$ \frac{\varepsilon^4}{4} \Big( \sum_i e_i^4 - \frac{1}{\beta^*} \Big) + O(\varepsilon^6) . $$

**It is never positive.** $C$ has the eigenvalue $\beta^*$ for $e$ and none below zero, so $C - \beta^* e e^\top$ is
positive semidefinite, and its diagonal says $\beta^* e_i^2 \le C_{ii} \le 1$. Hence $\sum_i e_i^4 \le \max_i
e_i^2 \le 1/\beta^*$. Equality needs $e_i^2 \in \{0, 1/\beta^*\}$, and $C_{ii} = 1$ where it is not 0; a positive
semidefinite matrix with a zero on its diagonal has a zero row, so there $C_{ij} = \beta^* e_i e_j = \pm 1$: copies of
one coin, or their negatives. For all other data with a simple largest eigenvalue, collapse is still a strict local
maximum *at* the threshold (a side step in $W$ of order $\varepsilon^2$ loses by itself, one of order $\varepsilon^3$
does not matter as $(S/\beta^* - A) u = 0$). Just below it the gain along $u$, $\frac{\varepsilon^2}{2}
(\frac{\beta^*}{\beta} - 1)$ less this, is largest at

$$ \varepsilon^2 = \frac{\beta^*/\beta - 1}{1/\beta^* - \sum_i e_i^4} , $$

to first order in $\beta^* - \beta$: $W$ grows continuously from zero, like a square root.

**An affine encoder is enough.** The $m$ above is affine in $x$ and $v$ is the same for every sample. So an amortised
encoder $q(z \mid x) = \mathcal N(V x + b, \operatorname{diag} v)$ with one $v$ for all $x$ has the same threshold,
and the same gain up to order $\varepsilon^4$.

**Check**, on the small binary data and on the grey ones: the gain at $\beta^*$ with the best offset and the best $q$,
at two steps, divided by $\varepsilon^4$ and extrapolated to $\varepsilon = 0$. Then the affine encoder at the second
step: what it loses is of order $\varepsilon^6$.
"""


# %% tags=["hide-cell"]
def gain(data, u, beta, step):
    """Gain of the beta-ELBO over collapse at W = step u, best offset, best q."""
    w, start = step * u[:, None], logit(data.mean(axis=0))

    def loss(offset):
        m, v = bernoulli.optimal_encoder(data, w, offset, beta)
        y = bernoulli.gaussian_logistic(m @ w.T + offset, np.sqrt(v @ (w**2).T))[1]
        return -bernoulli.elbo(data, w, offset, m, v, beta).mean(), (y - data).mean(axis=0)

    best = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-12})
    return -best.fun - bernoulli.log_marginal(data, 0 * w, start).mean()


# %% tags=["hide-cell"]
predicted, measured = [], []
for values in (x_few, grey_few):
    mean = values.mean(axis=0)
    coins = np.diag(mean * (1 - mean))
    eigenvalues, directions = eigh(np.cov(values.T, bias=True), coins)
    top, lead = eigenvalues[-1], directions[:, -1]
    predicted.append(((np.sqrt(np.diag(coins)) * lead) ** 4).sum() / 4 - 1 / (4 * top))
    small, large = (gain(values, lead, top, step) / step**4 for step in (0.1, 0.2))
    measured.append((4 * small - large) / 3)
ledger.check(32, "fourth order of the gain at the threshold", "finite differences", measured, predicted, 5e-3)
print("both are below zero:", max(predicted) < 0)

# %% tags=["hide-input"]
w, offset, losses = lead[:, None], logit(mean), []
for step in (0.1, 0.2):
    m_affine, v_affine = (values - mean) @ w * step / top, np.full((len(values), 1), 1 - step**2 / top)
    best = bernoulli.elbo(values, step * w, offset, *bernoulli.optimal_encoder(values, step * w, offset, top), top)
    affine = bernoulli.elbo(values, step * w, offset, m_affine, v_affine, top)
    losses.append((best - affine).mean())
print(
    "doubling the step multiplies the affine encoder's loss by about 2^", round(np.log2(losses[1] / losses[0])), sep=""
)

# %% [markdown]
r"""
## Grey pixels

Many VAEs are trained with the same cross-entropy on grey images. All derivations above hold for $x_i \in [0,
1]$, since none used that $x$ is binary, except one: $x_i^2 = x_i$. For grey pixels $x_i^2 \le x_i$, so
$S_{ii} = \frac1N \sum x_i^2 - p_i^2 \le p_i (1 - p_i) = A_{ii}$. The trace of $S - A$ is now negative, and
nothing guarantees a positive eigenvalue. The likelihood believes that every pixel is a coin, which would have
the variance $p_i (1 - p_i)$. Grey data vary less than coins, and what they lack the model counts as evidence
against structure. $A$ acts as a noise level that nobody chose.

Reduce the contrast: $x_c = p + c\,(x - p)$ with $0 < c \le 1$. The mean stays, so $A$ stays; $S$ becomes $c^2
S$. The threshold is $c^2 \beta^*$. The pictures carry the same information, and yet with little contrast the
threshold passes below 1.
"""

# %% tags=["hide-input"]
grey_threshold = bernoulli.collapse_threshold(grey)
print(f"grey digits: threshold {grey_threshold:.2f}; black and white: {threshold:.2f}")
for contrast in (1.0, 0.8, 0.6, 0.4):
    faded = grey.mean(axis=0) + contrast * (grey - grey.mean(axis=0))
    print(f"contrast {contrast:.1f}: threshold {bernoulli.collapse_threshold(faded):.2f}")

# %% [markdown]
r"""
At contrast 0.4 the threshold is below 1: with the plain ELBO, $\beta = 1$, and even with the *exact*
objective, complete collapse is a local maximum. We look at the exact log likelihood itself, along the leading
direction, on either side:
"""

# %% tags=["hide-input"]
moving = grey[:, grey.min(axis=0) < grey.max(axis=0)]
p_grey = moving.mean(axis=0)
root_A = np.sqrt(p_grey * (1 - p_grey))
correlations = np.cov(moving.T, bias=True) / np.outer(root_A, root_A)
u_grey = np.linalg.eigh(correlations)[1][:, -1] / root_A
w_small = 0.3 * (u_grey / np.linalg.norm(u_grey))[:, None]
for contrast in (0.8, 0.4):
    faded = p_grey + contrast * (moving - p_grey)
    levels = [bernoulli.log_marginal(faded, w, logit(p_grey)).mean() for w in (w_small, 0 * w_small)]
    print(f"contrast {contrast}: a step from W = 0 {'raises' if levels[0] > levels[1] else 'lowers'} log p")

# %% [markdown]
r"""
So a collapsed VAE with a cross-entropy loss on low-contrast grey images need not be a failure of the ELBO or
of the optimiser. It can be the right answer to the likelihood that was chosen, just as a large fixed
$\sigma^2$ collapses [probabilistic PCA](02_stability.ipynb#equation-10). `collapse_threshold` tells in
advance, from two moments of the data.

One caution. The statement is about $W = 0$ and its neighbourhood in the *linear* decoder. It says when
collapse is locally stable, not that nothing better lies further off.

## What we showed

- Eq. 28 stands. Eq. 29 has the wrong power of $2\pi$, and for $k < n$ there is no density at all; nothing
  else depends on it.
- Eq. 30 stands; in Eq. 31 the product over pixels is missing. Quadrature computes both, for up to three
  latents, to $10^{-9}$ or with a warning, and its gradient is exact and trains the model.
- In Eq. 32 the logarithm is missing. With it, the term is $n$ one-dimensional Gaussian integrals, whatever
  $k$ is, each right to $10^{-12}$ of its scale.
- At $W = 0$ the Hessian of the exact log likelihood is $S - \operatorname{diag}(p (1 - p))$ for every column.
  Black and white data with any correlation are never at a local maximum there when $\beta = 1$.
- The $\beta$-ELBO collapses locally above $\beta^* = \lambda_{\max}(A^{-1/2} S A^{-1/2})$: 4.76 for the
  digits in black and white. For grey images it can be less than 1. Below it $W$ grows from zero continuously, and
  an encoder that is affine in $x$, with one variance for all $x$, has the same threshold.

## Exercises

**Exercise 6.1. The two extremes.** What is the threshold when all $n$ pixels are copies of one coin? And when they are independent?
"""

# %% tags=["hide-cell"]
# Copies: the correlation matrix is all ones, with the eigenvalue n for the vector (1, ..., 1) and 0 otherwise.
copies = np.repeat([[0.0], [1.0], [1.0]], 5, axis=1)
print(f"five copies: {bernoulli.collapse_threshold(copies):.6f}")
# Independent: the identity, so 1, up to what a finite sample adds (all images once each make it exact).
print(f"independent: {bernoulli.collapse_threshold(images):.6f}")

# %% [markdown]
r"""
**Exercise 6.2. Exclusive or.** Let $x_3 = x_1 \text{ xor } x_2$ with two fair coins $x_1, x_2$. Show that every pair of pixels is
uncorrelated although the three are not independent. What does the Hessian say, and which way does $\log p$ go
along $u = (1, 1, 1)$?
"""

# %% tags=["hide-cell"]
xor = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
print("S - A is zero:", np.allclose(np.cov(xor.T, bias=True), np.eye(3) / 4))


def level(t):
    """Average log p(x) at W = t (1, 1, 1)."""
    return bernoulli.log_marginal(xor, np.full((3, 1), t), np.zeros(3)).mean()


falls = np.array([level(0.0) - level(t) for t in (0.2, 0.4)])
# The second order says nothing; along this u log p falls, about with the fourth power of the step, and W = 0 is not
# left this way even at beta = 1. Along (1, 0, 0) log p stays level, as in Exercise 6.3.
print("falls:", bool((falls > 0).all()), "- doubling the step multiplies the fall by about", round(falls[1] / falls[0]))

# %% [markdown]
r"""
**Exercise 6.3. A single pixel.** With a single pixel, $n = 1$, $S - A = 0$ as well. Show that here the likelihood is *flat*: whatever
$W$ is, some $\mu$ gives the same maximum.
"""

# %% tags=["hide-cell"]
# One coin has one probability, E y; for any w a mu can be found that makes it equal to p = 3/4.
one_pixel = np.array([[1.0], [1.0], [1.0], [0.0]])


def off(mu, weight):
    """How far p(x = 1) is from 3/4."""
    return np.exp(bernoulli.log_marginal([[1.0]], [[weight]], [mu])[0]) - 0.75


for weight in (0.0, 1.0, 3.0):
    best = bernoulli.log_marginal(one_pixel, [[weight]], [brentq(off, -10, 10, args=(weight,))]).mean()
    print(f"w = {weight:g}: best average log p {best:.6f}")

# %% [markdown]
r"""
## References

[Aitchison & Shen, 1980](../book/references.md), on the logit-normal distribution · [Lucas et al.,
2019](../book/references.md), Appendix C.1 · [Tipping & Bishop, 1999](../book/references.md)

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn", "torch"):
    print(name, version(name))
