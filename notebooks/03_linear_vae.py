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
# The linear VAE

Give probabilistic PCA an encoder, and it is a variational autoencoder. This chapter asks what such a VAE
learns. The answer is the paper's Lemma 1 and Corollary 1: at its best it is pPCA at its best, and the columns
of its decoder are the principal components, one by one, which pPCA's own are not. We prove both, find exactly
how much freedom is left, and look closely at what the paper says of identifiability (Equations 9 and 13,
Appendix B). Then we fit linear VAEs to MNIST from random starts, and draw the paper's Figure 2.

> **In short**
>
> - Give pPCA an encoder and maximise the ELBO: the highest value is that of the log likelihood, so nothing is
>   lost at the optimum.
> - What changes is the rotation. The ELBO wants a diagonal posterior covariance, and so the decoder's columns are
>   the principal components, $\pm \sqrt{\lambda_i - \sigma^2}\, u_i$, one by one and in any order.
> - The outputs of a VAE identify neither lengths nor directions of its latents; the ELBO identifies both. Fixing
>   the encoder's variances at 1 undoes that, and lowers the ELBO.
> - For your VAE: if directions matter to you, let every unit have its own variance $D_i$. Close eigenvalues are
>   told apart only weakly, with the curvature $(\lambda_i - \lambda_j)^2 / (\lambda_i \lambda_j)$.

**You need**: [Eq. 4](00_preliminaries.ipynb#equation-4), the ELBO, and Equations
[6](01_ppca.ipynb#equation-6), [7](01_ppca.ipynb#equation-7) and [8](01_ppca.ipynb#equation-8), pPCA and its
maximum. **Time to run**: under 15 seconds on a laptop; no GPU needed.

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
from itertools import permutations, product

import numpy as np
import sympy as sp
import torch
from flint import arb, fmpq
from scipy.optimize import brentq, minimize
from scipy.stats import norm, ortho_group
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal, kl_divergence

# %% tags=["hide-input"]
from helpers import data, plots, ppca
from helpers.ledger import Ledger, relative_error
from helpers.linear_vae import LinearVAE, fit, optimal_encoder, posterior_gap
from helpers.moments import Moments
from helpers.ppca import PPCA, max_log_likelihood
from helpers.scorecard import Scorecard

ledger = Ledger("03_linear_vae")

# %% [markdown]
r"""
The chapter is the same in every profile: its largest input is the covariance of MNIST, which travels with the
package.

## The model

### Equation 9

**The paper says** that the VAE to consider has a linear decoder and a linear encoder,

$$ p(x \mid z) = \mathcal N(W z + \mu,\; \sigma^2 I), \qquad
q(z \mid x) = \mathcal N\big( V (x - \mu),\; D \big), \tag{9} $$

where $D$ is a diagonal covariance matrix, one for all data points.

The decoder and the prior $\mathcal N(0, I_k)$ are those of pPCA ([Eq. 1](00_preliminaries.ipynb#equation-1)):
$W$ is $n \times k$, $\mu$ has $n$ entries, $\sigma^2 > 0$. New are $V$, which is $k \times n$, and the $k$
positive variances $D_1, \dots, D_k$ on the diagonal of $D$. As always $s = \sigma^2$, $y = x - \mu$,
$M = W^\top W + s I_k$ and $C = W W^\top + s I_n$. The package keeps the five as
`LinearVAE(W, V, D, mu, sigma2)`, with `D` the vector of variances. Here is a small one with nothing special
about it, and three points.
"""

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
n, k = 5, 2
W, V, mu = rng.standard_normal((n, k)), 0.5 * rng.standard_normal((k, n)), rng.standard_normal(n)
vae = LinearVAE(W, V, D=[0.4, 1.3], mu=mu, sigma2=0.6)
x = vae.mu + rng.standard_normal((3, n)) @ rng.standard_normal((n, n))

# %% [markdown]
r"""
**Is one $D$ for all $x$, and a diagonal one, too little?** The encoder has to imitate the true posterior,
which [Eq. 6](01_ppca.ipynb#equation-6) gives as $\mathcal N(M^{-1} W^\top y,\; s M^{-1})$. Its mean is linear
in $y$, and its covariance does not depend on $x$ at all. So a linear mean and a single covariance lose
nothing. The one true restriction is that $D$ is diagonal: $s M^{-1}$ is so exactly when $M$ is, that is, when
the columns of $W$ are orthogonal. This chapter is about the consequences of that one restriction.

**What comes out for a given input.** Appendix B looks at the *output* $\tilde x$ of the VAE: encode $x$, draw
$z$, decode. The draw is $z = V y + D^{1/2} \xi$ with $\xi \sim \mathcal N(0, I_k)$, so the decoder's mean is

$$ W z + \mu = W V (x - \mu) + \mu + W D^{1/2} \xi . $$

That is an affine function of the Gaussian vector $\xi$, hence Gaussian ([Eq. 5](01_ppca.ipynb#equation-5),
first derivation), with mean $W V (x - \mu) + \mu$ and covariance $W D^{1/2} (W D^{1/2})^\top = W D W^\top$.
Whoever draws a sample of $p(x \mid z)$ instead of taking its mean adds independent noise with covariance
$\sigma^2 I_n$:

$$ \text{decoder mean} \mid x \sim \mathcal N\big( W V (x - \mu) + \mu,\; W D W^\top \big), \qquad
\tilde x \mid x \sim \mathcal N\big( W V (x - \mu) + \mu,\; W D W^\top + \sigma^2 I_n \big) . $$
"""


# %% tags=["hide-cell"]
def output(vae, x):
    """Mean and covariance of a sample the VAE puts out for one input x (n,): (n,) and (n, n)."""
    mean = vae.W @ vae.V @ (x - vae.mu) + vae.mu
    return mean, (vae.W * vae.D) @ vae.W.T + vae.sigma2 * np.eye(len(x))


# %% [markdown]
r"""
**What is maximised.** The ELBO, [Eq. 4](00_preliminaries.ipynb#equation-4):
$\mathbb E_q[\log p(x \mid z)] - D_{KL}(q(z \mid x) \,\|\, p(z))$. The closed forms of both terms are derived
there, with the encoder's $m = V y$ and $v_i = D_i$; `vae.elbo(moments)` is their average over a data set with
the given mean and covariance. A data set of a single $x$ is its own mean and has covariance zero, so the
same code also gives the ELBO of one point.

**Check.** For each of the three points: the ELBO, the mean and the covariance of the output, in one vector.
The checks know Eq. 9 and the definition of the ELBO, $\mathbb E_q[\log p(x, z) - \log q(z \mid x)]$, and none
of the closed forms.
"""


# %% tags=["hide-cell"]
def together(elbos, means, covariances):
    """Three (3,), (3, n), (3, n, n) in one vector."""
    return np.concatenate([np.ravel(elbos), np.ravel(means), np.ravel(covariances)])


elbos = [vae.elbo(Moments.from_samples(point[None])) for point in x]
closed = together(elbos, *zip(*(output(vae, point) for point in x), strict=True))


def log_ratio(x, z):
    """log p(x, z) - log q(z | x) of Eq. 9, for one x (n,) and many z (Z, k), (Z,)."""
    log_p = norm.logpdf(x, z @ vae.W.T + vae.mu, np.sqrt(vae.sigma2)).sum(axis=1) + norm.logpdf(z).sum(axis=1)
    return log_p - norm.logpdf(z, vae.V @ (x - vae.mu), np.sqrt(vae.D)).sum(axis=1)


# %% [markdown]
r"""
Gauss–Hermite quadrature over the $k + n$ standard normals that make a sample, $k$ for $z$ and $n$ for the noise
of the decoder: three nodes on each axis. It is exact for polynomials up to degree 5 in each, and here there is
none above degree 2. Nothing is said about covariances; they come out.
"""


# %% tags=["hide-cell"]
def generate(vae, x, standard):
    """Encode x (n,), draw z (Q, k), decode and draw the output (Q, n), from standard normals (Q, k + n)."""
    z = vae.V @ (x - vae.mu) + np.sqrt(vae.D) * standard[:, :k]
    return z, z @ vae.W.T + vae.mu + np.sqrt(vae.sigma2) * standard[:, k:]


nodes, weights = np.polynomial.hermite_e.hermegauss(3)
standard = np.stack(np.meshgrid(*[nodes] * (k + n)), axis=-1).reshape(-1, k + n)
weights = np.prod(np.meshgrid(*[weights] * (k + n)), axis=0).ravel() / (2 * np.pi) ** ((k + n) / 2)

# %% tags=["hide-cell"]
results = []
for point in x:
    z, drawn = generate(vae, point, standard)
    mean = weights @ drawn
    results.append((weights @ log_ratio(point, z), mean, (weights * (drawn - mean).T) @ (drawn - mean)))
by_nodes = together(*zip(*results, strict=True))
ledger.check(9, "encode, decode and ELBO on nodes", "quadrature", closed, by_nodes, 1e-10)

# %% [markdown]
r"""
The same by drawing: encode, sample, decode, sample.
"""

# %% tags=["hide-cell"]
results = []
for point in x:
    z, drawn = generate(vae, point, rng.standard_normal((200_000, k + n)))
    results.append((log_ratio(point, z).mean(), drawn.mean(axis=0), np.cov(drawn.T)))
ledger.check(9, "draws of z and of the output", "Monte Carlo", closed, together(*zip(*results, strict=True)), 1e-2)

# %% [markdown]
r"""
And through PyTorch. The ELBO is the log likelihood less the divergence from $q$ to the true posterior ([Eq.
2](00_preliminaries.ipynb#equation-2)). The output is an affine function of the $k + n$ standard normals, and
automatic differentiation finds its matrix $J$: the mean is the value at zero, the covariance is $J J^\top$.
"""

# %% tags=["hide-cell"]
W, V, D, mu = (torch.tensor(array) for array in (vae.W, vae.V, vae.D, vae.mu))
s, zero = vae.sigma2, torch.zeros(k + n, dtype=torch.float64)
M, C = (gram + s * torch.eye(len(gram), dtype=torch.float64) for gram in (W.T @ W, W @ W.T))


def put_out(e, mean):
    """A sample of the output (n,) from standard normals (k + n,), for an encoder mean (k,)."""
    return W @ (mean + D.sqrt() * e[:k]) + mu + s**0.5 * e[k:]


# %% tags=["hide-cell"]
results = []
for point in torch.tensor(x):
    q = MultivariateNormal(V @ (point - mu), torch.diag(D))
    posterior = MultivariateNormal(torch.linalg.solve(M, W.T @ (point - mu)), s * torch.linalg.inv(M))
    elbo = MultivariateNormal(mu, C).log_prob(point) - kl_divergence(q, posterior)
    J = jacobian(lambda e, mean=q.mean: put_out(e, mean), zero)
    results.append((elbo, put_out(zero, q.mean), J @ J.T))
by_torch = together(*([np.asarray(entry) for entry in column] for column in zip(*results, strict=True)))
ledger.check(9, "PyTorch's divergence and Jacobian", "library", closed, by_torch, 1e-10)

# %% [markdown]
r"""
**Note: the covariance of the output.** The mean that Appendix B prints is right. Where we have $W D W^\top$, our
copy prints $\sigma^2 W D^{-1} W^\top$. One case with fractions decides between them without rounding. Take
$k = 2$ and $D = \operatorname{diag}(\tfrac14, 4)$. The four points $z = V y + (\pm \tfrac12, \pm 2)$, each with
weight $\tfrac14$, have the mean $V y$ and the covariance $D$, and the covariance of $W z$ depends on nothing
else of the law of $z$. So the covariance of the four points $W z$ must be what is printed.
"""

# %% tags=["hide-cell"]
W_4, D_4, s_4 = sp.Matrix([[1, 2], [0, 1], [3, -1]]), sp.diag(sp.Rational(1, 4), 4), sp.Rational(3, 5)
points = [W_4 * sp.Matrix([sp.Rational(a, 2), 2 * b]) for a, b in product((1, -1), repeat=2)]
covariance_4 = sum((point * point.T for point in points), sp.zeros(3)) / 4
ledger.certify("the decoder's mean has the covariance W D Wᵀ", covariance_4, "==", W_4 * D_4 * W_4.T)
printed_4 = s_4 * W_4 * D_4.inv() * W_4.T
claim = "it is not the covariance printed in Appendix B"
ledger.certify(claim, covariance_4[0, 0], "!=", printed_4[0, 0], erratum="App. B, output of the VAE")

# %% [markdown]
r"""
The printed form would be right if $D$ stood for $M$ and the covariance of $q$ were $\sigma^2 D^{-1}$, which
is how the true posterior is written; perhaps it is a trace of such a parametrisation. With Eq. 9 as printed
it cannot be meant: from the law of $\tilde x$ the paper concludes that the linear VAE is invariant under
[Eq. 13](#equation-13), and that follows from $W D W^\top$, not from the printed covariance, as we compute there.

## What the linear VAE learns

### Lemma 1

**The paper says** that the global maximum of the ELBO of the linear VAE is identical to the global maximum of
the marginal log likelihood of pPCA; in its proof, that the linear VAE recovers that maximum *only* when
$R = I$ in [Eq. 8](01_ppca.ipynb#equation-8).

The first half is right, once $k$ is below the rank of $S$, which the paper does not say: from the rank on (if
it is below $n$) neither has a maximum, as both grow without bound when $\sigma^2 \to 0$. And at $R = I$ the paper's
encoder does recover it. The "only" is too strong. Here is a full proof of what is true. Write
$\mathcal L(W, V, D, \mu, s)$ for the average ELBO of the samples $x_1, \dots, x_N$ and $\ell(W, \mu, s)$ for
their average log likelihood. Suppose that $k$ is below the rank of $S$, so that $\ell$ has a maximum
$\ell_{\max}$ at all ([Eq. 7](01_ppca.ipynb#equation-7), Step 5).

**Step 1: the bound.** By [Eq. 2](00_preliminaries.ipynb#equation-2), averaged over the data,

$$ \mathcal L = \ell - \frac1N \sum_i D_{KL}\big( q(z \mid x_i) \,\big\|\, p(z \mid x_i) \big)
\;\le\; \ell \;\le\; \ell_{\max} , \tag{a} $$

for every value of the parameters, because no divergence is negative.

**Step 2: the bound is met.** Take Eq. 8 with $R = I$: $\mu = \bar x$, $s = \sigma^2_{\text{MLE}}$,
$W = U_k (\Lambda_k - s I)^{1/2}$. As $U_k^\top U_k = I_k$,

$$ M = W^\top W + s I_k = (\Lambda_k - s I_k)^{1/2}\, U_k^\top U_k\, (\Lambda_k - s I_k)^{1/2} + s I_k = \Lambda_k , $$

so the true posterior is $\mathcal N(\Lambda_k^{-1} W^\top y,\; s \Lambda_k^{-1})$. Its covariance is
diagonal. Choose $V = \Lambda_k^{-1} W^\top$ and $D = s \Lambda_k^{-1}$, and $q$ *is* the posterior, for every
$x$: each divergence in (a) is zero, and $\mathcal L = \ell = \ell_{\max}$. With Step 1, the two global maxima
have the same value. $\square$

**Step 3: who else meets it?** By (a), $\mathcal L = \ell_{\max}$ exactly when $\ell(W, \mu, s) = \ell_{\max}$
*and* every divergence is zero. The first, we claim, leaves $\mu = \bar x$, $s = \sigma^2_{\text{MLE}}$ and
$W = U_k (\Lambda_k - s I)^{1/2} R$ with $R R^\top = I_k$, where the columns of $U_k$ are *any* orthonormal
eigenvectors of $S$ with the eigenvalues $\lambda_1, \dots, \lambda_k$. (So ties are included: if
$\lambda_k = \lambda_{k+1} > s$ there is a choice of $U_k$; if $\lambda_k = s$ there is too, but the column is
zero.)

**Proof of the claim.** Steps 1 and 4 of [Eq. 7](01_ppca.ipynb#equation-7) leave no other $\mu$ and no other $s$. Let
$W$ be a maximum at this $s$. By Step 3 there, $C$ has the eigenvalues $c_i = \max(\lambda_i, s)$ for $i \le k$
and $s$ for the rest, since no other $c_i$ minimises its bracket. A maximum is stationary in $W$. Write
$W = \sum_i l_i\, a_i r_i^\top$ with orthonormal $a_i$ ($n$ entries), orthonormal $r_i$ ($k$ entries) and
$l_1 \ge \dots \ge l_k \ge 0$. The second route under [Eq. 8](01_ppca.ipynb#equation-8) says that $a_i$ with
$l_i > 0$ is an eigenvector of $S$, with the eigenvalue $l_i^2 + s$. That is an eigenvalue of $C$ too, the $i$-th
largest, so it is $c_i$, and as it exceeds $s$ it is $\lambda_i$. So $a_1, a_2, \dots$, as far as $l_i > 0$, are
orthonormal eigenvectors with the eigenvalues $\lambda_1, \lambda_2, \dots$, and $l_i = \sqrt{\lambda_i - s}$. The
$a_i$ with $l_i = 0$ do not matter to $W$; replace them by further orthonormal eigenvectors. With
$U_k = (a_1, \dots, a_k)$ and $R$ the matrix with the rows $r_i^\top$, this is the form claimed. Conversely every such
$W$ has a $C$ with exactly these eigenvalues and eigenvectors, for which all inequalities of Step 3 are
equalities. $\square$

For the second, $q(z \mid x_i) = p(z \mid x_i)$ means equal covariances,
$D = s M^{-1}$, and equal means, $V y_i = M^{-1} W^\top y_i$ for all $i$. (The means pin $V$ down on the span
of the data only; [chapter 4](04_elbo.ipynb#equation-21) returns to that.) Given $W$, such a $D$ exists if and
only if $M$ is diagonal. And now

$$ M = R^\top (\Lambda_k - s I_k) R + s R^\top R = R^\top \Lambda_k R . $$

> **Theorem 3.1** (Who attains the maximum). *Let $k$ be below the rank of $S$. The global maxima of the ELBO and of the
> log likelihood have the same value. The ELBO attains it at $W = U_k (\Lambda_k - s I)^{1/2} R$, with
> $s = \sigma^2_{\text{MLE}}$ and a suitable encoder, if and only if $R^\top \Lambda_k R$ is diagonal; and at no other $W$
> and $\sigma^2$.*

**Step 4: which $R$ are these?** Suppose $R^\top \Lambda_k R = \Delta$ with $\Delta$ diagonal. Multiply by $R$
from the left: $\Lambda_k R = R \Delta$. Entry $(i, j)$ of this says $\lambda_i R_{ij} = R_{ij} \Delta_j$. So
in column $j$ of $R$ only those entries may differ from zero whose $\lambda_i$ equals $\Delta_j$: each column
of $R$ lives within one group of equal eigenvalues. The columns of $R$ are independent, so a group of $g$
members has room for at most $g$ of them; all $k$ must be placed, so it gets exactly $g$, and these are
orthonormal within the group's $g$ coordinates. In words, $R = Q P$ with $P$ a permutation of the columns, and
$Q$ block diagonal with one orthogonal block per group. The converse is the same computation read backwards:
$Q^\top \Lambda_k Q = \Lambda_k$, as $\Lambda_k$ is a multiple of the identity on each group, and
$P^\top \Lambda_k P$ is $\Lambda_k$ with its entries reordered.

- *Distinct eigenvalues:* all blocks are $1 \times 1$, $R$ is a **signed permutation**, and there are
  $2^k k!$ of them. They reorder the columns and flip their signs. $R = I$ is one of these.
- *Equal eigenvalues:* **any rotation within a group of equal $\lambda_i$** is allowed as well.
- *Collapsed columns:* if $\lambda_i = s$ the column is zero. With learned $s$ this happens only if
  $\lambda_i = \dots = \lambda_n$, as $s$, the average of $\lambda_{k+1}, \dots, \lambda_n$, is then their
  largest possible value. All columns with this eigenvalue are zero; they form one
  group, and turning them among themselves does not even change $W$.

The same holds at any *fixed* $s$. There the best weights have $\max(\lambda_i - s, 0)$ in the place of
$\lambda_i - s$ (by the same proof), so $M = R^\top \max(\Lambda_k, s) R$, entry by
entry, and all columns whose eigenvalue is at most $s$ form one collapsed group.

**Step 5: how far short does another $R$ fall?** With equal means, the divergence of two Gaussians
([Eq. 2](00_preliminaries.ipynb#equation-2)) from $q$ to the true posterior is

$$ \tfrac12 \Big[ \sum_i \Big( \frac{M_{ii} D_i}{s} - 1 - \log \frac{M_{ii} D_i}{s} \Big) +
\sum_i \log M_{ii} - \log |M| \Big] . $$

Each term of the first sum is $t - 1 - \log t \ge 0$ with $t = M_{ii} D_i / s$, and zero at $D_i = s / M_{ii}$ alone.
Other means only add to the divergence. So the best encoder with a diagonal covariance misses $\ell$ by

$$ \text{gap} = \tfrac12 \Big( \sum_i \log M_{ii} - \log |M| \Big) , $$

`posterior_gap` in the package, which the paper has as [Eq. 26](05_theorem_1.ipynb#equation-26). At a maximum of the
likelihood it is positive unless $M$ is diagonal, by Step 3.

**Exactly, in one case.** Let $S = \operatorname{diag}(5, 2, 1)$ and $k = 2$. Then $\sigma^2_{\text{MLE}} = 1$, and the
columns of $W$ at $R = I$ have the lengths 2 and 1. The rotation with the columns $(3, 4)/5$ and $(-4, 3)/5$ keeps
everything rational. For a decoder with its best encoder we need the ELBO; for any encoder, twice the average ELBO
is a number without logarithms, plus $\log \prod_i D_i$, less $n \log 2 \pi s$:
"""


# %% tags=["hide-cell"]
def twice_elbo(W, V, D, s, S):
    """(a, p): at mu = mean, twice the average ELBO is a + log p - n log(2 pi s); D holds the k variances."""
    error = sp.eye(W.rows) - W * V
    kl = (V * S * V.T).trace() + sum(D) - len(D)
    return -kl - ((error * S * error.T).trace() + (W * sp.diag(*D) * W.T).trace()) / s, sp.prod(D)


def best_exact(W, s):
    """V and D of the best encoder of a decoder W: the posterior's mean, and s / M_ii."""
    M = W.T * W + s * sp.eye(W.cols)
    return M.inv() * W.T, [s / M[i, i] for i in range(W.cols)]


# %% [markdown]
r"""
If two VAEs with the same $s$ have the same $a$, their ELBOs are ordered as their $p$, and no logarithm need be
computed. The eight signed permutations give eight different decoders; that they agree with $R = I$ in $a$ and in
$p$ proves that the maximum is not attained *only* there. That the rotation agrees in $a$ and has a smaller $p$
proves that it is not attained everywhere; and the ratio of the two $p$ is $\prod_i M_{ii} / |M|$, as Step 5 says.
"""

# %% tags=["hide-cell"]
S_3, W_3 = sp.diag(5, 2, 1), sp.Matrix([[2, 0], [0, 1], [0, 0]])
turn = sp.Matrix([[3, -4], [4, 3]]) / 5
signed = [
    sp.diag(*signs) * sp.eye(2)[:, list(order)]
    for order in permutations((0, 1))
    for signs in product((1, -1), repeat=2)
]
at_identity = twice_elbo(W_3, *best_exact(W_3, 1), 1, S_3)
at_signed = list({twice_elbo(W_3 * R, *best_exact(W_3 * R, 1), 1, S_3) for R in signed})
claim = "a and p at all signed permutations are those at R = I"
ledger.certify(claim, at_signed, "==", [at_identity], erratum="*only* when $R = I$")
different = len({tuple(W_3 * R) for R in signed})
ledger.certify("so the maximum has this many decoders", different, "==", 8, erratum="uniquely identifiable")

# %% tags=["hide-cell"]
at_turn = twice_elbo(W_3 * turn, *best_exact(W_3 * turn, 1), 1, S_3)
M_turn = (W_3 * turn).T * W_3 * turn + sp.eye(2)
ledger.certify("the rotation has the same a", at_turn[0], "==", at_identity[0])
ledger.certify("and a smaller p: its ELBO is lower", at_turn[1], "<", at_identity[1])
ledger.certify("by M_11 M_22 / |M|", at_identity[1] / at_turn[1], "==", M_turn[0, 0] * M_turn[1, 1] / M_turn.det())

# %% [markdown]
r"""
In numbers: seven dimensions, $k = 5$, with a pair of equal eigenvalues and
two columns that collapse because $\lambda_4 = \lambda_5 = \sigma^2_{\text{MLE}} = 1$.
"""

# %% tags=["hide-input"]
leading = np.array([9.0, 6.0, 6.0, 1.0, 1.0])
basis = ortho_group.rvs(7, random_state=1)
tied = Moments(rng.standard_normal(7), basis * np.r_[leading, 1.0, 1.0] @ basis.T, 100)
best = ppca.fit(tied, 5)
print("σ²_MLE =", round(best.sigma2, 12), "| column lengths", np.round(np.linalg.norm(best.W, axis=0), 4) + 0.0)


def plane_rotation(i, j, degrees):
    """The 5 x 5 rotation by an angle in the plane of coordinates i and j, counted from 1."""
    R, t = np.eye(5), np.radians(degrees)
    R[[i - 1, i - 1, j - 1, j - 1], [i - 1, j - 1, i - 1, j - 1]] = np.cos(t), -np.sin(t), np.sin(t), np.cos(t)
    return R


# %% tags=["hide-input"]
choices = {
    "identity": np.eye(5),
    "signed permutation": np.eye(5)[[2, 0, 3, 4, 1]] * [1, -1, -1, 1, -1],
    "30° in the equal pair 2, 3": plane_rotation(2, 3, 30),
    "30° in the collapsed pair 4, 5": plane_rotation(4, 5, 30),
    "30° in the plane of 1 and 2": plane_rotation(1, 2, 30),
    "30° in the plane of 1 and 4": plane_rotation(1, 4, 30),
    "random rotation": ortho_group.rvs(5, random_state=2),
}

# %% tags=["hide-input"]
gaps = {}
for name, R in choices.items():
    turned = R.T @ np.diag(leading) @ R
    diagonal = np.allclose(turned, np.diag(np.diag(turned)), atol=1e-10)
    gaps[name] = posterior_gap(best.W @ R, best.sigma2)
    print(f"{name:30s} diagonal: {diagonal!s:5s}  gap {gaps[name]:.4f} nats")
    assert diagonal == (gaps[name] < 1e-12)

# %% [markdown]
r"""
The gap is zero exactly where $R^\top \Lambda_k R$ is diagonal, as Step 3 says. That it is what the ELBO falls
short by, and that the log likelihood itself cannot tell these $R$ apart:
"""

# %% tags=["hide-input"]
top = max_log_likelihood(tied)[4]
for name, R in choices.items():
    W_R = best.W @ R
    turned = LinearVAE(W_R, *optimal_encoder(W_R, best.sigma2), tied.mean, best.sigma2)
    assert abs(turned.log_likelihood(tied) - top) < 1e-10
    assert abs(top - turned.elbo(tied) - gaps[name]) < 1e-10
print("seven R, one log likelihood; the ELBO is short of it by the gap, to 1e-10 nats")

# %% [markdown]
r"""
For a turn by $t$ in the plane of columns $i$ and $j$ the gap has a simple form. The two diagonal entries of
$R^\top \Lambda_k R$ are $\lambda_i \cos^2 t + \lambda_j \sin^2 t$ and
$\lambda_i \sin^2 t + \lambda_j \cos^2 t$. Their sum is $\lambda_i + \lambda_j$, their difference
$(\lambda_i - \lambda_j) \cos 2t$, and four times their product is the square of the sum less that of the
difference. So

$$ M_{ii} M_{jj} = \tfrac14 \big[ (\lambda_i + \lambda_j)^2 - (\lambda_i - \lambda_j)^2 \cos^2 2t \big]
= \lambda_i \lambda_j + \tfrac14 (\lambda_i - \lambda_j)^2 \sin^2 2t , $$

and with $|M| = \prod_i \lambda_i$ unchanged by $R$,

$$ \text{gap}(t) = \tfrac12 \log \Big( 1 + \frac{(\lambda_i - \lambda_j)^2}{4 \lambda_i \lambda_j} \sin^2 2t \Big) . $$

(At a fixed $s$ put $\max(\lambda, s)$ for $\lambda$.)
"""

# %% mystnb={"image": {"alt": "Gap by angle: humps between zeros at multiples of 90 degrees; flat zero for equal eigenvalues"}} tags=["hide-input"]
degrees = np.linspace(0, 180, 181)
fig, ax = plots.figure(width=7.0, height=3.2)
for (i, j), line in zip([(1, 4), (1, 2), (2, 3)], plots.LINES, strict=False):
    gap = [posterior_gap(best.W @ plane_rotation(i, j, angle), best.sigma2) for angle in degrees]
    a, b = leading[i - 1], leading[j - 1]
    assert np.allclose(gap, np.log1p((a - b) ** 2 / (4 * a * b) * np.sin(np.radians(2 * degrees)) ** 2) / 2)
    ax.plot(degrees, gap, line, label=f"λ = {a:.0f} and {b:.0f}")
ax.set(xlabel="angle of the rotation (degrees)", ylabel="log p − best ELBO\n(nats)", xticks=range(0, 181, 45))
ax.set_ylim(-0.02, 0.72)
_ = ax.legend(ncols=3, loc="upper center", fontsize=9)

# %% [markdown]
r"""
**Figure 3.1.** How far the ELBO is below the log likelihood when two columns are turned in their plane by an
angle, for pairs of eigenvalues.

All along each line the log likelihood is at its maximum. Between two different eigenvalues the ELBO is there
only at multiples of 90°, the signed permutations of that plane; between two equal ones it is there at every
angle.

**How strongly is a direction identified?** For small $t$, $\sin^2 2t = 4t^2 + O(t^4)$ and $\log(1 + u) = u + O(u^2)$,
so

$$ \text{gap}(t) = \tfrac12 \kappa_{ij}\, t^2 + O(t^4), \qquad
\kappa_{ij} = \frac{(\lambda_i - \lambda_j)^2}{\lambda_i \lambda_j} . $$

This curvature, in nats per sample and radian squared, is all the force with which the ELBO turns two columns
into their places. It has the square of the *difference* of the eigenvalues in it: at a ratio of 2 it is
$\tfrac12$, at a ratio of 1.01 about $0.0001$. So gradient ascent finds the span of the columns early and the
directions of close pairs late. [Bao et al., 2020](../book/references.md) study this slowness in linear
autoencoders whose regularisation is what identifies the components, and call the recovery *eventual*. Here is
$\kappa$ for neighbouring components of MNIST, with second differences of the gap as a check.
"""

# %% tags=["hide-input"]
mnist = data.mnist_moments()
leading_20 = mnist.eigenvalues[:21]
kappa = (leading_20[:-1] - leading_20[1:]) ** 2 / (leading_20[:-1] * leading_20[1:])
W_20, s_20, small = ppca.fit(mnist, 21).W, ppca.fit(mnist, 21).sigma2, 1e-3
for i, curvature in enumerate(kappa):
    pair = W_20[:, [i, i + 1]] @ np.array([[np.cos(small), -np.sin(small)], [np.sin(small), np.cos(small)]])
    assert abs(2 * posterior_gap(pair, s_20) / small**2 / curvature - 1) < 1e-4
order = kappa.argsort()
print(f"components {order[-1] + 1} and {order[-1] + 2}: {kappa.max():.3f} nats per radian squared")
print(f"components {order[0] + 1} and {order[0] + 2}: {kappa.min():.6f} nats per radian squared")

# %% [markdown]
r"""
**Check.** Lemma 1 says what number the ELBO of Eq. 9 can reach, and so it is a check on the ELBO as well. We
maximise it with an optimiser that is told nothing but the ELBO and its derivatives (in the package; any
optimiser would do, since it is the value that is compared), over $W$, $V$, $\log D$ and $\log \sigma^2$ at once, from random
starts. The data are 2,000 samples in eight dimensions with three strong directions.
"""


# %% tags=["hide-cell"]
def unpack(p, moments, k):
    """The linear VAE whose W, V, log σ² and (unless D = I) log D stand in the vector p."""
    n = moments.mean.size
    W, V, log_s, log_D = np.split(p, [n * k, 2 * n * k, 2 * n * k + 1])
    D = np.exp(log_D) if log_D.size else np.ones(k)
    return LinearVAE(W.reshape(n, k), V.reshape(k, n), D, moments.mean, np.exp(log_s[0]))


# %% tags=["hide-cell"]
def ascend(moments, k, seed, free_D=True):
    """L-BFGS on the ELBO over W, V, log σ² and log D, from a random start; `free_D` False holds D at I."""

    def descent(p):
        vae = unpack(p, moments, k)
        slope = vae.gradients(moments)
        in_D = slope.D * vae.D if free_D else []
        return -vae.elbo(moments), -np.r_[slope.W.ravel(), slope.V.ravel(), slope.sigma2 * vae.sigma2, in_D]

    n = moments.mean.size
    start = np.r_[0.5 * np.random.default_rng(seed).standard_normal(2 * n * k), np.zeros(1 + k * free_D)]
    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-15, "gtol": 1e-9}
    return unpack(minimize(descent, start, jac=True, method="L-BFGS-B", options=options).x, moments, k)


# %% tags=["hide-cell"]
sampled, *_ = data.synthetic_ppca(2000, [6, 4, 2.5, 0.5, 0.5, 0.5, 0.5, 0.5], k=3, seed=0)
moments = Moments.from_samples(sampled)
climbed = [ascend(moments, 3, seed) for seed in range(5)]
reached = [vae.elbo(moments) for vae in climbed]
highest = max_log_likelihood(moments)[2]
ledger.check(9, "L-BFGS on the ELBO reaches pPCA's maximum", "optimisation", reached, np.full(5, highest), 1e-8)

# %% [markdown]
r"""
**Note.** What is "identical" in Lemma 1 is the value of the maximum, together with $\mu$, $\sigma^2$ and the
density $p(x)$. The sets of best parameters are not the same: pPCA has one for every $R$, the linear VAE only
for the $R$ of Step 4. That difference is Corollary 1.

### Corollary 1

**The paper says** that at the global optimum the columns of the decoder are the scaled principal components.

**Derivation.** By Steps 3 and 4 the best decoders for $\lambda_1 > \dots > \lambda_k > \lambda_{k+1}$ are
$W = U_k (\Lambda_k - s I)^{1/2} R$ with $R$ a signed permutation: up to order and sign its columns are

$$ w_i = \sqrt{\lambda_i - \sigma^2}\; u_i , \qquad \text{with} \quad
v_i = \frac{\sqrt{\lambda_i - \sigma^2}}{\lambda_i}\, u_i^\top , \qquad D_i = \frac{\sigma^2}{\lambda_i} $$

as the encoder's rows and variances. (The encoder is $V = M^{-1} W^\top$ and $D = s M^{-1}$ with
$M = \Lambda_k$, reordered; on a covariance without full rank this is the simplest of several equivalent $V$.) So the
scale is $\sqrt{\lambda_i - \sigma^2}$ and not $\sqrt{\lambda_i}$, the standard deviation of the data along
$u_i$: the noise supplies the variance $\sigma^2$ in every direction, and the column only what is missing.
When eigenvalues are equal, the columns of their group are some orthogonal basis of the common eigenspace (or
of a part of it, if the group goes on beyond $\lambda_k$), which is all that "the principal components" can
mean there. When $\lambda_i = \sigma^2$ the column is zero
and has no direction.

Do the five runs above agree? We compare directions by the modulus of their cosine, to leave the sign out.
"""


# %% tags=["hide-input"]
def cosines(W, moments):
    """|cos| of the angles between the k leading eigenvectors (rows) and the k columns of W, (k, k)."""
    k = W.shape[1]
    return np.abs(moments.eigenvectors[:, :k].T @ W) / np.linalg.norm(W, axis=0)


# %% tags=["hide-input"]
s_hat = moments.eigenvalues[3:].mean()
scales = np.sqrt(moments.eigenvalues[:3] - s_hat)
for vae in climbed:
    table = cosines(vae.W, moments)
    order = table.argmax(axis=0)
    assert sorted(order) == [0, 1, 2] and table.max(axis=0).min() > 1 - 1e-6
    assert np.allclose(np.linalg.norm(vae.W, axis=0), scales[order], rtol=1e-4)
    assert np.allclose(vae.D, s_hat / moments.eigenvalues[:3][order], rtol=1e-4)
    signed_u = moments.eigenvectors[:, order] * np.sign((vae.W * moments.eigenvectors[:, order]).sum(axis=0))
    assert np.allclose(vae.V, (signed_u * scales[order] / moments.eigenvalues[:3][order]).T, atol=1e-5)
print("five runs: each column along one principal direction, |cos| above 0.999999, of length √(λ - σ²)")
print("each row of V is √(λ - σ²)/λ times that direction, with the column's sign, to 1e-5; each D is σ²/λ to 1e-4")

# %% [markdown]
r"""
Each run found the principal directions; in which order, its random start decided. (These data have a covariance of
full rank, so the encoder is unique too and its rows can be compared.)

**Note.** The corollary stands, with the scale made explicit and with the provision for equal eigenvalues. The
abstract's "uniquely identifiable global maximum" should be read in the same way: unique up to order and sign.
[Sicks, Korn & Schwaar, 2021](../book/references.md) carry this analysis, for any $\beta$, beyond the Gaussian to
observation models of the exponential dispersion families, and use its optimum to initialise deep VAEs.

## What the outputs identify, and what the ELBO does

### Equation 13

**The paper says** that the linear VAE is invariant under

$$ W \leftarrow W A, \qquad V \leftarrow A^{-1} V, \qquad D \leftarrow A^{-1} D A^{-1}, \tag{13} $$

where $A$ ($k \times k$) is diagonal with non-zero entries; that therefore the direction of the columns of $W$
is always identifiable; and that fixing $D = I$ recovers complete identifiability, so that there is a unique
global maximum. We take the three statements in turn.

**Derivation: what is invariant.** The law of the output depends on the parameters through $W V$,
$W D W^\top$, $\mu$ and $\sigma^2$ ([Eq. 9](#equation-9)). Under Eq. 13

$$ \begin{aligned} (W A)(A^{-1} V) &= W V, \\
(W A)(A^{-1} D A^{-1})(W A)^\top &= W D A^{-1} A W^\top = W D W^\top , \end{aligned} $$

using $A^\top = A$. So every input is put out with the same distribution as before. Then the *reconstruction*
term of the ELBO is unchanged too: it is
$-\tfrac{1}{2s} \mathbb E \|x - (Wz + \mu)\|^2 - \tfrac n2 \log 2 \pi s$, an average over the law of the
decoder's mean $W z + \mu$.

**Derivation: what is not.** The other term of the ELBO is the divergence from the prior. For Gaussians
([Eq. 4](00_preliminaries.ipynb#equation-4)), with $m = V y$, averaged over the data,

$$ \text{KL} = \tfrac12 \sum_{i=1}^k \big( \mathbb E\, m_i^2 + D_i - 1 - \log D_i \big) . $$

The prior $\mathcal N(0, I)$ does not take part in Eq. 13. With $A = \operatorname{diag}(a_1, \dots, a_k)$ the
transformation divides $m_i$ by $a_i$ and $D_i$ by $a_i^2$. Put $c_i = \mathbb E\, m_i^2 + D_i$, which is the
average of $z_i^2$ under the encoder. Then

$$ \text{ELBO after} - \text{ELBO before}
= -\tfrac12 \sum_{i=1}^k \Big[ c_i \Big( \frac{1}{a_i^2} - 1 \Big) + 2 \log |a_i| \Big] . $$

This is zero for $a_i = \pm 1$, and for generic $A$ it is not zero. Seen as a function of $a_i^2$, minus twice
the $i$-th term is $c_i / a_i^2 + \log a_i^2$ up to a constant, which falls until $a_i^2 = c_i$ and rises from
there. *Among all the VAEs that Eq. 13 calls equivalent, the ELBO prefers one $|a_i|$ in each latent:
$|a_i| = \sqrt{c_i}$, after which the average of $z_i^2$ under the encoder is 1, as it is under the prior.* So
the scale of the columns is identified too, and by the ELBO itself; only signs are left over. The likelihood
changes likewise, since $W W^\top$ becomes $W A^2 W^\top$.

**Check.** A new generic VAE, data whose mean is not $\mu$, and one $A$.
"""


# %% tags=["hide-input"]
def rescale(vae, a):
    """Eq. 13 with A = diag(a), a (k,)."""
    return LinearVAE(vae.W * a, vae.V / a[:, None], vae.D / a**2, vae.mu, vae.sigma2)


n, k = 4, 2
W, V = rng.standard_normal((n, k)), 0.6 * rng.standard_normal((k, n))
vae = LinearVAE(W, V, [0.5, 1.4], rng.standard_normal(n), 0.7)
data_13 = vae.mu + 0.3 + rng.standard_normal((40, n)) @ rng.standard_normal((n, n))
moments_13, a = Moments.from_samples(data_13), np.array([1.7, -0.6])
rescaled = rescale(vae, a)
mean_before, covariance_before = output(vae, data_13[0])
mean_after, covariance_after = output(rescaled, data_13[0])

# %% [markdown]
r"""
The law of the output and the reconstruction term before and after, and the change of the ELBO against the
formula just derived, with $c_i$ averaged over the forty samples:
"""

# %% tags=["hide-input"]
c = ((data_13 - vae.mu) @ vae.V.T).var(axis=0) + ((data_13 - vae.mu) @ vae.V.T).mean(axis=0) ** 2 + vae.D
change = -(c * (1 / a**2 - 1) + 2 * np.log(np.abs(a))).sum() / 2
before, after = vae.terms(moments_13), rescaled.terms(moments_13)
difference = rescaled.elbo(moments_13) - vae.elbo(moments_13)
value = np.r_[mean_after, covariance_after.ravel(), after.reconstruction, difference]
reference = np.r_[mean_before, covariance_before.ravel(), before.reconstruction, change]
ledger.check(13, "outputs unchanged, ELBO changed by the formula", "algebra", value, reference, 1e-10)
print(f"the ELBO changes by {change:.3f} nats")

# %% [markdown]
r"""
The same without rounding, in fractions. That $WV$ and $W D W^\top$ are equal before and after says that the paper's
conclusion about the outputs, and with it the reconstruction term, is right. With `twice_elbo` from Lemma 1, twice the
change of the ELBO is $a' - a + \log(p'/p)$, a fraction and the logarithm of a fraction; a ball that provably holds
it, and does not hold zero, proves that the ELBO is not invariant.
"""


# %% tags=["hide-cell"]
def twice_change(new, old):
    """A ball that holds twice the change of the ELBO between two results of `twice_elbo` at one s."""
    a, ratio = new[0] - old[0], new[1] / old[1]
    return arb(fmpq(int(a.p), int(a.q))) + arb(fmpq(int(ratio.p), int(ratio.q))).log()


V_3, D_3, A_3 = sp.Matrix([[1, -1, 2], [0, 2, 1]]) / 4, [sp.Integer(1), sp.Integer(4)], sp.diag(2, -3)
W_new, V_new, D_new = W_4 * A_3, A_3.inv() * V_3, [D_3[0] / 4, D_3[1] / 9]
outputs = [W_4 * V_3, W_4 * sp.diag(*D_3) * W_4.T]
ledger.certify("Eq. 13 leaves the output as it was", [W_new * V_new, W_new * sp.diag(*D_new) * W_new.T], "==", outputs)
before_3 = twice_elbo(W_4, V_3, D_3, s_4, S_3)
moved = twice_change(twice_elbo(W_new, V_new, D_new, s_4, S_3), before_3)
ledger.certify("Eq. 13 changes twice the ELBO", moved, ">", arb(0), erratum="App. B, Eq. 13")

# %% [markdown]
r"""
By drawing: encode the first of the samples with the rescaled encoder, 200,000 times, and decode. The means
that come out should have the law of the VAE before.
"""

# %% tags=["hide-cell"]
z = rescaled.V @ (data_13[0] - rescaled.mu) + np.sqrt(rescaled.D) * rng.standard_normal((200_000, k))
decoded = z @ rescaled.W.T + rescaled.mu
value = np.r_[decoded.mean(axis=0), np.cov(decoded.T).ravel()]
without_noise = covariance_before - vae.sigma2 * np.eye(n)
reference = np.r_[mean_before, without_noise.ravel()]
ledger.check(13, "sampled outputs of the rescaled VAE", "Monte Carlo", value, reference, 1e-2)

# %% [markdown]
r"""
With SymPy, all entries left as letters: the product after the transformation simplifies to one in which no
$a_i$ occurs. Its value at our numbers is what the rescaled VAE puts out.
"""

# %% tags=["hide-cell"]
W_, V_ = sp.Matrix(n, k, sp.symbols(f"w:{n * k}")), sp.Matrix(k, n, sp.symbols(f"v:{n * k}"))
d_, a_ = sp.symbols("d:2", positive=True), sp.symbols("a:2", nonzero=True, real=True)
A_, D_ = sp.diag(*a_), sp.diag(*d_)
product_mean = ((W_ * A_) * (A_.inv() * V_)).applyfunc(sp.simplify)
product_covariance = ((W_ * A_) * (A_.inv() * D_ * A_.inv()) * (W_ * A_).T).applyfunc(sp.simplify)
assert not (product_mean.free_symbols | product_covariance.free_symbols) & set(a_)
numbers = dict(zip([*W_, *V_, *d_], np.r_[vae.W.ravel(), vae.V.ravel(), vae.D], strict=True))
evaluated = [np.array(matrix.subs(numbers), dtype=float) for matrix in (product_mean, product_covariance)]
reference = np.concatenate([matrix.ravel() for matrix in evaluated])
W_A, V_A = rescaled.W, rescaled.V
value = np.r_[(W_A @ V_A).ravel(), ((W_A * rescaled.D) @ W_A.T).ravel()]
ledger.check(13, "no a is left in the law of the output", "symbolic", value, reference, 1e-10)

# %% [markdown]
r"""
Last, the slope. Differentiating the change of the ELBO by $\log a_i$ gives $c_i / a_i^2 - 1$, here compared
with central differences of the package's ELBO at our $a$:
"""

# %% tags=["hide-cell"]
step, slopes = 1e-5, []
for i in range(k):
    factor = np.exp(step * np.eye(k)[i])
    up, down = rescale(vae, a * factor), rescale(vae, a / factor)
    slopes.append((up.elbo(moments_13) - down.elbo(moments_13)) / (2 * step))
ledger.check(13, "slope of the ELBO along log a", "finite differences", slopes, c / a**2 - 1, 1e-6)

# %% mystnb={"image": {"alt": "Along the scale a: the reconstruction term is level, the ELBO has one peak, at root c"}} tags=["hide-input"]
factors = np.geomspace(0.3, 10, 200)
orbit = [rescale(vae, np.array([factor, 1.0])) for factor in factors]
fig, ax = plots.figure(width=7.0, height=3.2)
fidelity = [point.terms(moments_13).reconstruction - before.reconstruction for point in orbit]
ax.semilogx(factors, fidelity, "--", label="reconstruction term")
ax.semilogx(factors, [point.elbo(moments_13) - vae.elbo(moments_13) for point in orbit], "-", label="ELBO")
ax.axvline(np.sqrt(c[0]), color="0.4", linestyle=":", label="$\\sqrt{c_1}$")
ax.set(xlabel="scale $a_1$ of the first latent ($a_2 = 1$)", ylabel="change (nats)", ylim=(-4, 1))
ax.minorticks_off()
ax.set_xticks([0.3, 0.5, 1, 2, 4, 8], ["0.3", "0.5", "1", "2", "4", "8"])
_ = ax.legend()

# %% [markdown]
r"""
**Figure 3.2.** The ELBO and its reconstruction term along the family of Eq. 13, one latent scaled by $a$.

Along the family of Eq. 13 the outputs and the reconstruction term do not move; the ELBO has one peak.

And the covariance that our copy of Appendix B prints is not invariant. As $D^{-1}$ becomes $A D^{-1} A$,
$\sigma^2 W D^{-1} W^\top$ becomes $\sigma^2 W A^2 D^{-1} A^2 W^\top$:
"""

# %% tags=["hide-input"]
print_before = vae.sigma2 * (vae.W / vae.D) @ vae.W.T
print_after = rescaled.sigma2 * (rescaled.W / rescaled.D) @ rescaled.W.T
assert relative_error(covariance_after, covariance_before) < 1e-12 and relative_error(print_after, print_before) > 0.5
print("printed covariance: changed by more than half of its size; W D Wᵀ + σ² I: unchanged")

# %% [markdown]
r"""
#### Are the directions of the columns always identifiable?

From the invariance under diagonal $A$ alone this does not follow: it shows that rescaling a column goes
unnoticed, and leaves open whether something else does too. So let us ask for *all* changes that leave the law
of the output as it is.

> **Theorem 3.2** (What the outputs identify). *Let two linear VAEs have the same $\mu$ and $\sigma^2$, decoders $W$ and
> $W'$ of rank $k$, and the same law of $\tilde x$ for every $x$. Then $W' = W A$, $V' = A^{-1} V$ with*
>
> $$ A = D^{1/2}\, Q\, D'^{-1/2}, \qquad Q \text{ orthogonal, } D' \text{ diagonal and positive;} $$
>
> *and every such $A$ will do.*

**Proof.** The law fixes $W V$ and $W D W^\top = (W D^{1/2})(W D^{1/2})^\top$. Two
$n \times k$ matrices with the same product $G G^\top = G' G'^\top$ differ by an orthogonal factor, $G' = G Q$
([Eq. 8](01_ppca.ipynb#equation-8), "$R$ is all the freedom"). With $G = W D^{1/2}$ and $G' = W' D'^{1/2}$
this gives $W' = W D^{1/2} Q D'^{-1/2} = W A$. From $W V = W' V' = W A V'$ and rank $k$ we get $V = A V'$.
Conversely, with this $A$,

$$ A^{-1} D A^{-\top} = D'^{1/2} Q^\top D^{-1/2}\, D\, D^{-1/2} Q D'^{1/2} = D'^{1/2} Q^\top Q D'^{1/2} = D' , $$

which is diagonal, and $W A D' A^\top W^\top = W D W^\top$. $\square$

Eq. 13 is the special case of a diagonal $Q$, with entries $\pm 1$. Any other orthogonal $Q$ does as well, and
unless it is a signed permutation it mixes the columns. With $D'$ other than $D$ and a rotation by 40°:
"""

# %% tags=["hide-input"]
t = np.radians(40)
Q = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
D_mixed = np.array([1.1, 0.3])
A = np.diag(np.sqrt(vae.D)) @ Q @ np.diag(1 / np.sqrt(D_mixed))
mixed = LinearVAE(vae.W @ A, np.linalg.solve(A, vae.V), D_mixed, vae.mu, vae.sigma2)
for point in data_13[:5]:
    old, new = output(vae, point), output(mixed, point)
    assert relative_error(new[0], old[0]) < 1e-12 and relative_error(new[1], old[1]) < 1e-12
unit = [w / np.linalg.norm(w, axis=0) for w in (vae.W, mixed.W)]
print("same output for every input; |cos| between old and new column 1:", round(abs(unit[0][:, 0] @ unit[1][:, 0]), 2))
print(f"the ELBO differs by {abs(mixed.elbo(moments_13) - vae.elbo(moments_13)):.3f} nats")

# %% [markdown]
r"""
And in fractions: the rotation with $3/5$ and $4/5$, and variances $D$ and $D'$ that have rational roots. That the two
products are equal proves that no input tells the two VAEs apart; that the first columns are not parallel (their
cross product is not zero) proves that the direction is not identified by the outputs; and the balls say that the
ELBO does tell them apart.
"""

# %% tags=["hide-cell"]
half, third = sp.Rational(1, 2), sp.Integer(3)
A_3 = sp.diag(1, 2) * turn * sp.diag(1 / half, 1 / third)  # roots of D = (1, 4) and of D' = (1/4, 9)
W_new, V_new, D_new = W_4 * A_3, A_3.inv() * V_3, [half**2, third**2]
ledger.certify("mixed columns, the same output", [W_new * V_new, W_new * sp.diag(*D_new) * W_new.T], "==", outputs)
cross = W_4[:, 0].cross(W_new[:, 0])
ledger.certify("another direction", cross.dot(cross), ">", sp.Integer(0), erratum="is always identifiable")
moved = twice_change(twice_elbo(W_new, V_new, D_new, s_4, S_3), before_3)
ledger.certify("twice the ELBO differs", moved, "<", arb(0))

# %% [markdown]
r"""
So for $k > 1$ what the VAE puts out identifies the span of the columns, and neither their lengths nor their
directions.
What identifies them is the ELBO, through the prior, and at its global maximum: there, for distinct
eigenvalues, directions and lengths are fixed up to order and sign ([Corollary 1](#corollary-1)). "Always" has
three exceptions: away from the maximum, within a group of equal eigenvalues, and for a collapsed column.

#### Does fixing D = I make the maximum unique?

It does the opposite. Fix $D = I$ and let $R$ be any $k \times k$ orthogonal matrix. Replace $W$ by $W R$ and
$V$ by $R^\top V$. Then $(W R)(R^\top V) = W V$ and $(W R)(W R)^\top = W W^\top$: the law of the output is as
it was, and with it the reconstruction term. And the divergence from the prior, with $D_i = 1$, is

$$ \text{KL} = \tfrac12\, \mathbb E \| R^\top V y \|^2 = \tfrac12\, \mathbb E \| V y \|^2 . $$

*With $D = I$ the ELBO is invariant under every rotation of the latents.* Unless $k = 1$ or $W = 0$, its
maximum is attained on a continuum. The rotational freedom of pPCA, which a free diagonal $D$ removes (Lemma
1, Step 4), is back in full. (With the prior and $D$ equal, the divergence is $\tfrac12 \mathbb E \|V y\|^2$, plain
shrinkage of the codes, the same for every latent. That a linear autoencoder with uniform penalties has its columns
only up to a rotation is known: [Kunin et al., 2019](../book/references.md).)

The maximum is lower, too. We can find it in closed form. With $D = I$ the average ELBO is

$$ \mathcal L = -\tfrac12 \Big[ n \log 2 \pi s + \tfrac1s\, \mathbb E \|y - W V y\|^2
+ \tfrac1s \operatorname{tr}(W W^\top) + \mathbb E \|V y\|^2 \Big] . $$

*Over $V$.* For each $y$, $\tfrac1s \|y - W v\|^2 + \|v\|^2$ is smallest at $v = M^{-1} W^\top y$: by
completing the square ([Eq. 5](01_ppca.ipynb#equation-5), second derivation) it is
$\tfrac1s (v - M^{-1} W^\top y)^\top M (v - M^{-1} W^\top y) + y^\top C^{-1} y$. So $V = M^{-1} W^\top$ is
best, and leaves $\mathbb E\, y^\top C^{-1} y = \operatorname{tr}(C^{-1} S)$ (with $\mu = \bar x$, best as in
Eq. 7, Step 1).

*Over $W$.* Let $C$ have the eigenvalues $c_1 \ge \dots \ge c_n$, so that $c_i \ge s$ for $i \le k$ and
$c_i = s$ beyond. By Step 3 of [Eq. 7](01_ppca.ipynb#equation-7),
$\operatorname{tr}(C^{-1} S) \ge \sum_i \lambda_i / c_i$, with equality if the eigenvectors of $C$ are the
$u_i$; and $\operatorname{tr}(W W^\top) = \sum_{i \le k} (c_i - s)$. What remains splits:

$$ \mathcal L \le -\tfrac12 \Big[ n \log 2 \pi s
+ \sum_{i \le k} \Big( \frac{\lambda_i}{c_i} + \frac{c_i}{s} - 1 \Big) + \sum_{i > k} \frac{\lambda_i}{s} \Big] . $$

The derivative of $\lambda / c + c / s$ in $c$ is $1/s - \lambda / c^2$: the best $c_i$ is
$\max(\sqrt{\lambda_i s},\, s)$. So a column has squared length $(\sqrt{\lambda_i s} - s)_+$, and it survives
under the same condition as with a free $D$, $\lambda_i > s$. With $t_i = \lambda_i / s$ its bracket is
$2 \sqrt{t_i} - 1$, where the free $D$ has $1 + \log t_i$ (Eq. 7, Step 3, relative to $\log s$). The
difference $2\sqrt t - 2 - \log t$ is zero at $t = 1$ and has the derivative $1/\sqrt t - 1/t > 0$ beyond.
Hence at each $s$

$$ \max_{D \text{ free}} \mathcal L - \max_{D = I} \mathcal L
= \tfrac12 \sum_{i \le k,\; \lambda_i > s} \big( 2 \sqrt{t_i} - 2 - \log t_i \big) \;>\; 0 $$

unless everything has collapsed.

This threshold without a learned $D$ fits what [Wang & Ziyin, 2022](../book/references.md) find in a wider class of
linear models: collapse is a matter of the likelihood against the prior's pull on the *mean* of the code.

*Over $s$.* Let $F(s) = n \log s + \sum_{i \le k} h(\lambda_i / s) + \sum_{i > k} \lambda_i / s$ with
$h(t) = 2 \sqrt t - 1$ for $t > 1$ and $h(t) = t$ otherwise; the two pieces meet at $t = 1$ in value and
slope. Then $s F'(s) = n - \sum_{i \le k} \min(t_i, \sqrt{t_i}) - \sum_{i > k} t_i$, which increases strictly
with $s$, from $-\infty$ to $n$ (if $S \ne 0$). Its only root is the best $s$. *So with $D = I$ a maximum over $s$
exists for every $k$, and at one $s$ only*, even where $k$ reaches the rank of $S$ and a free $D$ lets
the ELBO grow without bound as $\sigma^2 \to 0$ (Lemma 1's condition; what gradient ascent does there is the subject
of [Koehler et al., 2022](../book/references.md)). This much of the remark is true: $D = I$ regularises. At $s = \lambda_1$ it is
$n - \sum_i \lambda_i / \lambda_1$, positive unless all eigenvalues are equal; so the root lies below
$\lambda_1$, something survives, and the maximum over $s$ is lower than with a free $D$, too.
"""


# %% tags=["hide-input"]
def best_with_unit_D(moments, k):
    """The best linear VAE with D = I, in closed form: its W with R = I, its σ² and its ELBO."""
    eigenvalues = moments.eigenvalues
    n = eigenvalues.size

    def slope(s):
        t = eigenvalues / s
        return n - np.minimum(t[:k], np.sqrt(t[:k])).sum() - t[k:].sum()

    s = brentq(slope, 1e-12 * eigenvalues[0], eigenvalues[0], xtol=1e-15)
    c = np.maximum(np.sqrt(eigenvalues[:k] * s), s)
    brackets = (eigenvalues[:k] / c + c / s - 1).sum() + eigenvalues[k:].sum() / s
    return moments.eigenvectors[:, :k] * np.sqrt(c - s), s, -(n * np.log(2 * np.pi * s) + brackets) / 2


# %% [markdown]
r"""
Against the optimiser, from five random starts, on the data of Lemma 1's check:
"""

# %% tags=["hide-input"]
W_unit, s_unit, elbo_unit = best_with_unit_D(moments, 3)
unit_runs = [ascend(moments, 3, seed, free_D=False) for seed in range(5)]
for run in unit_runs:
    assert abs(run.elbo(moments) - elbo_unit) < 1e-8 and abs(run.sigma2 / s_unit - 1) < 1e-5
    assert np.allclose(run.W @ run.W.T, W_unit @ W_unit.T, atol=1e-4)
print(f"D free: ELBO {highest:.4f} nats, σ² = {climbed[0].sigma2:.4f}")
print(f"D = I:  ELBO {elbo_unit:.4f} nats, σ² = {s_unit:.4f}, in all five runs and in closed form")
apart = [np.abs(run.W - unit_runs[0].W).max() > 0.1 for run in unit_runs[1:]]
print("the other four decoders are the first one's:", [not value for value in apart])

# %% tags=["hide-input"]
lowest = [
    LinearVAE(W_unit @ R, optimal_encoder(W_unit @ R, s_unit)[0], np.ones(3), moments.mean, s_unit).elbo(moments)
    for R in ortho_group.rvs(3, size=100, random_state=3)
]
assert np.ptp(lowest) < 1e-10 and abs(lowest[0] - elbo_unit) < 1e-10
print("100 random rotations, all at this maximum")

# %% [markdown]
r"""
**In fractions.** Let $S = \operatorname{diag}(16, \tfrac{25}4, 2, 1)$ and $k = 2$. At $s = 4$ the roots $\sqrt{t_i}$ are
$2$ and $\tfrac54$, and $n - 2 - \tfrac54 - \tfrac12 - \tfrac14 = 0$: this is the best $s$. The columns have
squared lengths $\sqrt{16 \cdot 4} - 4$ and $5 - 4$, so their lengths are 2 and 1. Three claims: the slope is zero, so that we
are at the maximum; a rotation gives *another* decoder with the same $a$ and the same $p = 1$, hence the same ELBO, so
that the maximum is not unique; and the best free $D$ at this very decoder has more.
"""

# %% tags=["hide-cell"]
S_4, W_I = sp.diag(16, sp.Rational(25, 4), 2, 1), sp.Matrix([[2, 0], [0, 1], [0, 0], [0, 0]])
roots = [sp.sqrt(S_4[i, i] / 4) for i in range(2)]
ledger.certify(
    "D = I: the slope in s is zero at s = 4", 4 - sum(roots) - S_4[2, 2] / 4 - S_4[3, 3] / 4, "==", sp.Integer(0)
)
ones, (V_I, D_free) = [sp.Integer(1)] * 2, best_exact(W_I, sp.Integer(4))
at_unit = twice_elbo(W_I, V_I, ones, 4, S_4)
at_turned = twice_elbo(W_I * turn, turn.T * V_I, ones, 4, S_4)
ledger.certify("D = I: another decoder", (W_I * turn)[0, 0], "!=", W_I[0, 0])
ledger.certify("with exactly the same ELBO", at_turned, "==", at_unit, erratum="gives full identifiability")
ledger.certify("a free D has more", twice_change(twice_elbo(W_I, V_I, D_free, 4, S_4), at_unit), ">", arb(0))

# %% [markdown]
r"""
And where a free $D$ has no maximum at all: a covariance of rank 3, with $k = 3$. As $\sigma^2$ falls a hundredfold
the best ELBO with a free $D$ gains $\tfrac12 (n - 3) \log 100$ each time; with $D = I$ it has one peak.
"""

# %% tags=["hide-input"]
flat = Moments(np.zeros(8), np.diag([6.0, 4, 2.5, 0, 0, 0, 0, 0]), 100)
gains = np.diff([ppca.fit(flat, 3, s).log_likelihood(flat) for s in (1e-2, 1e-4, 1e-6)])
assert np.allclose(gains, 2.5 * np.log(100))
_, s_flat, elbo_flat = best_with_unit_D(flat, 3)
held = [ascend(flat, 3, seed, free_D=False) for seed in range(3)]
assert all(abs(run.elbo(flat) - elbo_flat) < 1e-8 and abs(run.sigma2 / s_flat - 1) < 1e-5 for run in held)
print(f"free D: {gains[0]:.2f} and {gains[1]:.2f} nats more, and no end; D = I: the peak is at σ² = {s_flat:.4f}")

# %% [markdown]
r"""
Side by side: which principal directions do the columns of $W$ take, when three objectives are maximised from
random starts? For the log likelihood we use the same optimiser, over $W$ and $\log \sigma^2$.
"""


# %% tags=["hide-input"]
def ascend_log_likelihood(moments, k, seed):
    """L-BFGS on the log likelihood of pPCA over W and log σ², from a random start; the W it finds (n, k)."""
    n = moments.mean.size
    start = np.r_[0.5 * np.random.default_rng(seed).standard_normal(n * k), 0.0]

    def descent(p):
        return -PPCA(p[:-1].reshape(n, k), moments.mean, np.exp(p[-1])).log_likelihood(moments)

    return minimize(descent, start, jac="3-point", method="L-BFGS-B").x[:-1].reshape(n, k)


# %% tags=["hide-input"]
panels = {
    "log likelihood": ascend_log_likelihood(moments, 3, 0),
    "ELBO, D free": climbed[0].W,
    "ELBO, D = I": unit_runs[0].W,
}

# %% mystnb={"image": {"alt": "Cosines of columns and principal directions: a permutation for free D, mixtures otherwise"}} tags=["hide-input"]
fig, axes = plots.panels(3, height=3.1)
for ax, (title, W_run) in zip(axes, panels.items(), strict=True):
    table = cosines(W_run, moments)
    picture = ax.imshow(table, cmap="gray_r", vmin=0, vmax=1)
    for i, j in product(range(3), repeat=2):
        ax.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", color="white" if table[i, j] > 0.5 else "black")
    ax.set(xticks=range(3), xticklabels=[1, 2, 3], yticks=range(3), xlabel="column of W")
    ax.set_yticklabels(["$u_1$", "$u_2$", "$u_3$"])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=11.5)
_ = fig.colorbar(picture, ax=axes, label="|cos| of the angle", shrink=0.8)

# %% [markdown]
r"""
**Figure 3.3.** Cosines between the columns of $W$ and the principal directions, after ascents from random starts
on synthetic data, for three objectives.

Only panel b, the ELBO with a free diagonal $D$, has one dark cell in each row and column. The log
likelihood finds some rotation of the components, and so does the ELBO with $D = I$.

**Note.** There is a charitable reading, under which something like the paper's remark is true. Within Eq. 13,
that is among diagonal $A$ and for one law of the output, $D = I$ does fix the scale of each latent. It is the
right way to fix it *if the prior is allowed to scale along*, $p(z) = \mathcal N(0, \Pi)$ with $\Pi$ diagonal
and $\Pi \leftarrow A^{-1} \Pi A^{-1}$. Then the whole ELBO is invariant under Eq. 13, $D = I$ can be had from
any optimum by $A = D^{1/2}$ and loses nothing, and $\Pi = D^{-1}$ keeps the eigenvalues apart; Exercise 3.3
proves this. With the prior fixed at $\mathcal N(0, I)$, as in the paper, the scale is not free in the first
place, and fixing $D$ takes away the very thing that broke the symmetry. And as we saw, $D = I$ does make one thing
unique that is not so otherwise: the best $\sigma^2$, for every $k$. The [errata page](../book/errata.md) lists this.

## Fitting MNIST from a random start

The optimiser above is fine for eight dimensions. The package's `fit` reaches the maximum for MNIST in seconds; it
climbs from random numbers, and [chapter 4](04_elbo.ipynb#fitting-from-a-random-start) derives it and says why it
ends where it does. Here we use it as we used L-BFGS: the proof says what number an ascent must reach, and which
directions. On the synthetic data, and on MNIST with 20 latents, we start five times each. The maxima to
compare with come from the eigenvalues ([Eq. 7](01_ppca.ipynb#equation-7)), which `fit` never sees.
"""

# %% tags=["hide-input"]
mnist_maximum = max_log_likelihood(mnist)
small_fits = [fit(moments, 3, seed=seed) for seed in range(5)]
mnist_fits = [fit(mnist, 20, seed=seed) for seed in range(5)]
value = [run.elbo(moments) for run in small_fits] + [run.elbo(mnist) for run in mnist_fits]
reference = np.repeat([highest, mnist_maximum[19]], 5)
ledger.check(9, "fit reaches pPCA's maximum, MNIST included", "optimisation", value, reference, 1e-11)
for name, runs, source in [("synthetic", small_fits, moments), ("MNIST, k = 20", mnist_fits, mnist)]:
    own = min(np.diag(cosines(run.W, source)).min() for run in runs)
    assert own > 0.999999 and all(run.log_likelihood(source) - run.elbo(source) < 1e-9 for run in runs)
    print(f"{name}, five runs: |cos| of column i and u_i above 0.999999; ELBO = log p to 1e-9 nats")

# %% [markdown]
r"""
The lengths as Corollary 1 has them, and the columns themselves, as pictures:
"""

# %% tags=["hide-input"]
lengths = np.linalg.norm(mnist_fits[0].W, axis=0)
expected = np.sqrt(mnist.eigenvalues[:20] - mnist_fits[0].sigma2)
assert relative_error(lengths, expected) < 1e-6
print(f"σ² = {mnist_fits[0].sigma2:.5f}; lengths of columns 1, 2, 20:", np.round(lengths[[0, 1, 19]], 4))
print("standard deviations √λ of the data there:         ", np.round(np.sqrt(mnist.eigenvalues[[0, 1, 19]]), 4))

# %% mystnb={"image": {"alt": "Seven principal components of MNIST above seven decoder columns: the same pictures, pairwise"}} tags=["hide-input"]
fig, axes = plots.figure(2, 7, width=8.6, height=2.9)
for i, pair in enumerate(axes.T):
    component, column = mnist.eigenvectors[:, i], mnist_fits[0].W[:, i] / lengths[i]
    for ax, image in zip(pair, (component, column * np.sign(component @ column)), strict=True):
        ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=-0.12, vmax=0.12)
        ax.set(xticks=[], yticks=[])
    pair[0].set_title(f"{i + 1}", fontsize=10.5)
axes[0, 0].set_ylabel("principal\ncomponent", fontsize=9.5)
_ = axes[1, 0].set_ylabel("column\nof W", fontsize=9.5)

# %% [markdown]
r"""
**Figure 3.4.** Seven principal components of MNIST, and seven columns of a decoder fitted from random numbers,
live, to its recorded moments.

Above, the principal components of MNIST; below, the decoder columns of a linear VAE fitted from random
numbers, scaled to unit length and with the sign of the picture above (white is negative, black positive).
They are the same pictures.

## Figure 2

**The paper shows** three curves against the number of latents $k$, on MNIST: in green the maximum of the log
likelihood; in red, dashed, the optimal ELBO, on top of the green; and in blue "the marginal log-likelihood of
the solutions using the full decoder weights when $\sigma^2$ is fixed to its MLE solution for 50 hidden
dimensions". Of the blue line it says that the log likelihood is "optimal at $\sigma^2 = 50$ as expected" and
decreases for 300 latents; and that the fixed $\sigma^2$ is about $\lambda_{222}$. We draw all three for
$k = 1, \dots, 300$, on the moments of all 60,000 training images, with averages per image in nats.

**Green** is the formula of [Eq. 7](01_ppca.ipynb#equation-7). **Red** we evaluate in two ways: as the ELBO of
the linear VAE at the optimum of Corollary 1, with the encoder that goes with it, at
31 values of $k$; and as what `fit` reaches from a random start, at six.
"""

# %% tags=["hide-input"]
latents = np.arange(1, 301)
green = mnist_maximum[:300]
red_at = np.r_[1, np.arange(10, 301, 10)]
red = []
for q in red_at:
    model = ppca.fit(mnist, q)
    red.append(LinearVAE(model.W, *optimal_encoder(model.W, model.sigma2), mnist.mean, model.sigma2).elbo(mnist))
fitted_at = np.array([1, 2, 5, 10, 20, 40])
fitted = [fit(mnist, q, seed=1).elbo(mnist) for q in fitted_at]
assert np.abs(red - green[red_at - 1]).max() < 1e-9 and np.abs(fitted - green[fitted_at - 1]).max() < 1e-9
print("optimal ELBO and best log likelihood agree to 1e-9 nats, evaluated (31 k) and fitted (6 k)")

# %% [markdown]
r"""
**Blue** is under-specified. "The solutions using the full decoder weights" at a $\sigma^2$ that does not
belong to them can be read in at least three ways. Let $s = \sigma^2_{\text{MLE}}(50)$. In each reading the
columns of $W$ are multiples of $u_1, \dots, u_k$, so $C$ has the eigenvectors of $S$, and the log likelihood
is

$$ \ell = -\tfrac12 \Big[ n \log 2 \pi + \sum_{i} \Big( \log c_i + \frac{\lambda_i}{c_i} \Big) \Big],
\qquad c_i = s \text{ for } i > k . $$

The readings differ in $c_i$ for $i \le k$:

- **(a) clamped**, the best $W$ for this $s$: $c_i = \max(\lambda_i, s)$;
- **(b) $W_{\text{MLE}}(k)$ as it is**, made with its own noise $\sigma^2_k = \sigma^2_{\text{MLE}}(k)$ and
  evaluated at $s$: $c_i = (\lambda_i - \sigma^2_k) + s$;
- **(c) modulus**: $W = U_k |\Lambda_k - s I|^{1/2}$, the formula of Eq. 8 with the square root of a negative
  number replaced by that of its modulus: $c_i = |\lambda_i - s| + s$.
"""


# %% tags=["hide-input"]
def log_likelihood(leading, s):
    """Average log likelihood on MNIST when C has the eigenvectors of S, eigenvalues `leading` (k,), then s."""
    c = np.r_[leading, np.full(784 - len(leading), s)]
    return -(784 * np.log(2 * np.pi) + (np.log(c) + mnist.eigenvalues / c).sum()) / 2


eigenvalues = mnist.eigenvalues
noise = np.array([ppca.fit(mnist, q).sigma2 for q in latents])
s_50 = noise[49]
clamped = np.array([log_likelihood(np.maximum(eigenvalues[:q], s_50), s_50) for q in latents])
as_it_is = np.array([log_likelihood(eigenvalues[:q] - noise[q - 1] + s_50, s_50) for q in latents])
modulus = np.array([log_likelihood(np.abs(eigenvalues[:q] - s_50) + s_50, s_50) for q in latents])

# %% [markdown]
r"""
The formula in `log_likelihood` agrees with the package's, which is given the matrices:
"""

# %% tags=["hide-input"]
U = mnist.eigenvectors
for q in (30, 250):
    as_is = ppca.fit(mnist, q).W
    in_modulus = U[:, :q] * np.sqrt(np.abs(eigenvalues[:q] - s_50))
    for W_q, line in ((ppca.fit(mnist, q, s_50).W, clamped), (as_is, as_it_is), (in_modulus, modulus)):
        assert abs(PPCA(W_q, mnist.mean, s_50).log_likelihood(mnist) - line[q - 1]) < 1e-8
readings = {"(a) clamped": (clamped, "-"), "(b) W of k as it is": (as_it_is, "-."), "(c) modulus": (modulus, ":")}
print("three readings, two k: equal to 1e-8 nats")

# %% mystnb={"image": {"alt": "Maximum and optimal ELBO rise together; fixed noise touches at 50, then one line stays, two fall"}} tags=["hide-input"]
fig, (left, right) = plots.figure(1, 2, width=9.2, height=4.2)
for ax in (left, right):
    ax.plot(latents, green, color=plots.COLOURS[2], linewidth=4, alpha=0.55, label="maximum of log p")
    ax.plot(red_at, red, "--", color=plots.COLOURS[1], label="optimal ELBO")
    ax.plot(fitted_at, fitted, "o", color="black", markersize=4.5, label="ELBO fitted from random starts")
    for name, (line, style) in readings.items():
        ax.plot(latents, line, style, color=plots.COLOURS[0], label=f"σ² = σ²_MLE(50), {name}")
    ax.plot(50, green[49], "k*", markersize=10, label="k = 50: they touch")
    ax.set(xlabel="latents k")
left.set(ylabel="log likelihood or ELBO\n(nats per image)", ylim=(-250, 1010))
left.legend(fontsize=8, loc="lower right")
right.axvline(222, color="0.6", linewidth=1)
for text, place in (("k = 222", (224, 630.4)), ("(a)", (286, 645.5)), ("(b)", (286, 635.5)), ("(c)", (286, 643.8))):
    right.annotate(text, place)
_ = right.set(xlim=(110, 300), ylim=(630, 647), ylabel="nats per image", title="the three readings, closer")

# %% [markdown]
r"""
**Figure 3.5.** Figure 2 of the paper, from the recorded moments of MNIST: the maximum of the log likelihood, the
optimal ELBO, and three readings of the blue line.

On the left the whole figure: the dashed line lies on the thick one. The three blue lines come up from far
below the frame, touch it at $k = 50$ and leave it again. On the right the blue lines from near by: (a) rises
and stays, (b) and (c) turn down. Numbers, beside the paper's words:
"""

# %% tags=["hide-input"]
print("     k   maximum  clamped    as is  modulus")
for q in (10, 50, 100, 150, 200, 222, 250, 300):
    row = [line[q - 1] for line in (green, clamped, as_it_is, modulus)]
    print(f"{q:6d}" + "".join(f"{entry:9.2f}" for entry in row))
for name, (line, _) in readings.items():
    print(f"{name}: highest at k = {line.argmax() + 1}, {line.max():.2f} nats; at k = 300 {line[-1] - line.max():+.2f}")

# %% tags=["hide-input"]
above = int((eigenvalues > s_50).sum())
print(f"the paper: σ² ≈ λ_222. Here σ²_MLE(50) = {s_50:.7f}, eigenvalues above it: {above}")
print(f"λ_222 = {eigenvalues[221]:.6f} > σ² > λ_223 = {eigenvalues[222]:.6f}")
for line, _ in readings.values():
    touching = np.flatnonzero(green - line < 1e-9) + 1
    assert touching.tolist() == [50]
print("the paper: optimal at 50. Each reading touches the maximum at k = 50 and nowhere else")
rises = [line.max() - line[49] for line, _ in readings.values()]
print("after k = 50 the readings still rise by", ", ".join(f"{rise:.1f}" for rise in rises), "nats")
zero_columns = int((ppca.fit(mnist, 300, s_50).W == 0).all(axis=0).sum())
print(f"zero columns of the best W for this σ² at k = 300: {zero_columns}")
assert min(rises) > 130 and zero_columns == 300 - above == 78
print("the paper: lower for 300. (a) never falls:", bool((np.diff(clamped) >= 0).all()))

# %% tags=["hide-input"]
scorecard = Scorecard("03_linear_vae")
RUN = "closed form, moments of 60,000 MNIST images"
_ = scorecard.claim(
    "Figure 2",
    "the optimal ELBO is the maximum log likelihood",
    [np.abs(red - green[red_at - 1]).max() < 1e-9, np.abs(fitted - green[fitted_at - 1]).max() < 1e-9],
    "the lines coincide",
    "equal to 1e-9 nats, at 31 k evaluated, at 6 k fitted from a random start",
    RUN,
)

# %% tags=["hide-input"]
_ = scorecard.claim(
    "Figure 2",
    "with the σ² of k = 50 (about λ_222) the likelihood is the best at k = 50 only, and falls again by k = 300",
    [above == 222, *(line[-1] < line.max() - 1e-9 for line, _ in readings.values())],
    "σ² ≈ λ_222; decreases for 300",
    f"{above} eigenvalues above σ²; it falls in readings (b) and (c), not for the best W at this σ², (a)",
    RUN,
)

# %% [markdown]
r"""
**Why they touch at $k = 50$ only.** The best likelihood at a given $k$ is a function of the noise with a
single peak, at $\sigma^2_{\text{MLE}}(k)$ (Eq. 7, Step 4). At $k = 50$ the noise $s$ is the right one, and
all three readings are the same $W$. At another $k$ the right noise is another one, and whatever $W$ does, it
stays below the green line. So "optimal at $\sigma^2 = 50$" must be $k = 50$, and "optimal" must mean that the
blue line *meets* the green one there, which is true. It is not highest there: all three readings go on rising, by
more than 130 nats (printed above), since more latents help at the wrong noise too.

**Why (a) rises to 222 and then stays.** Adding component $k + 1$ moves $c_{k+1}$ from $s$ to
$\max(\lambda_{k+1}, s)$. If $\lambda_{k+1} > s$ this is the minimum of $\log c + \lambda_{k+1} / c$, so the
likelihood rises, by $\tfrac12 (t - 1 - \log t)$ with $t = \lambda_{k+1}/s$. If not, nothing changes: the
column is zero. There are 222 eigenvalues above $s$.

**Why (c) peaks at exactly 222.** Up to there it is (a). Beyond, $\lambda_{k+1} < s$, and $c_{k+1}$ moves from
$s$ to $2s - \lambda_{k+1} > s$, away from $\lambda_{k+1}$. As $\log c + \lambda/c$ increases for
$c > \lambda$, every further component lowers the likelihood. Such a column adds variance to a direction that
already has too much.

**Why (b) peaks earlier.** Let $\delta_k = s - \sigma^2_k$. It is zero at $k = 50$ and grows with $k$, since
the average of the residual eigenvalues falls. Here $c_i = \lambda_i + \delta_k$ for $i \le k$: every
direction in use has $\delta_k$ too much variance. Going from $k$ to $k + 1$ does two things. First, $\delta$
grows, and *all* earlier $c_i$ move further above their $\lambda_i$: a loss, since $\log c + \lambda / c$
increases there. Second, $c_{k+1}$ moves from $s$ up to
$\lambda_{k+1} + \delta_{k+1} = s + (\lambda_{k+1} - \sigma^2_{k+1})$: a gain at first, but if
$\lambda_{k+1} \le s$, a loss as well. So from 222 on both parts lose, and the line falls strictly. Already
before that, as $\lambda_{k+1}$ comes down to $s$, the second part has less and less to gain and overshoots by
$\delta_{k+1}$, while the first keeps costing. So one expects an earlier peak; how much earlier depends on the
spectrum. For MNIST it comes at 176.
"""

# %% tags=["hide-input"]
assert (np.diff(clamped)[:221] > 0).all() and np.abs(np.diff(clamped)[222:]).max() < 1e-9
assert (np.diff(modulus)[:221] > 0).all() and (np.diff(modulus)[221:] < 0).all()
assert (np.diff(as_it_is)[:175] > 0).all() and (np.diff(as_it_is)[175:] < 0).all()
assert (np.diff(noise) < 0).all()
print("(a) rises to 222 and stays; (b) rises to 176 and falls; (c) rises to 222 and falls")

# %% [markdown]
r"""
**Note.** Which one did the authors draw? Our copy of the paper is its text, without the pictures, and the
text does not say. Both (b) and (c) fall, as their text says. Only (c) turns at 222, and only it would explain
why the paper mentions $\lambda_{222}$ at all; that is a guess of ours. More important is what the fall means.
The paper reads it as a sign that "including the additional principal components has made the solution worse".
For (b) and (c) that is true, because in both of them $W$ is not the best one for its $\sigma^2$. It is not a
property of the likelihood: a model with $k + 1$ latents contains the one with $k$, whose last column is zero,
so at any fixed $\sigma^2$ the *optimum* can only rise with $k$, as (a) does. With a mis-set $\sigma^2$ the
additional latents do no harm at the optimum. They collapse: as printed above, 78 of the 300 columns are zero.

## What we showed

- The law of the linear VAE's output ([Eq. 9](#equation-9)): covariance $W D W^\top$, plus $\sigma^2 I$ for a
  sample.
- Lemma 1 with a full proof, ties included, for $k$ below the rank of $S$: ELBO $\le \log p$, attained at pPCA's
  maximum; attained with the rotation $R$ if
  and only if $R^\top \Lambda_k R$ is diagonal. That means signed permutations, and any rotation within equal
  eigenvalues.
- Corollary 1: the columns are $\pm \sqrt{\lambda_i - \sigma^2}\, u_i$, in any order.
- [Eq. 13](#equation-13) leaves the outputs as they are and changes the ELBO; the outputs alone identify
  neither lengths nor directions; the ELBO identifies both, at its maximum.
- The ELBO holds two columns in their places with the curvature $(\lambda_i - \lambda_j)^2 / (\lambda_i \lambda_j)$.
- Fixing $D = I$ makes the maximum a continuum, and lowers it by $\tfrac12 \sum (2 \sqrt{t_i} - 2 - \log t_i)$
  at each $s$, summed over the latents in use, $t_i = \lambda_i / s > 1$. But it makes the best $\sigma^2$ exist for
  every $k$.
- Random starts end at the maximum with the principal components as columns, MNIST included, and Figure 2's
  red line lies on the green. Its blue line falls in two of three readings, neither of which has the best $W$.

## Exercises

**Exercise 3.1. Count the maxima.** Let $k = 3$ and the eigenvalues be distinct. List all $2^3 \cdot 3! = 48$ signed
permutations, and confirm on the synthetic data that all of them give the maximal ELBO, with 48 different
decoders. Then try 1,000 random rotations.
"""

# %% tags=["hide-cell"]
model = ppca.fit(moments, 3)
signed = [np.eye(3)[list(p)] * signs for p in permutations(range(3)) for signs in product([1, -1], repeat=3)]
decoders = np.array([model.W @ R for R in signed])
assert max(posterior_gap(W_R, model.sigma2) for W_R in decoders) < 1e-12
apart = np.abs(decoders[:, None] - decoders[None]).max(axis=(2, 3))
assert (apart + np.eye(48) > 0.1).all()
random_gaps = [posterior_gap(model.W @ R, model.sigma2) for R in ortho_group.rvs(3, size=1000, random_state=4)]
print(f"{len(signed)} maxima, all different; random rotations with a gap of zero: {sum(np.array(random_gaps) < 1e-9)}")

# %% [markdown]
r"""
**Exercise 3.2. One second moment.** Deduce from Eq. 13 that at a maximum of the ELBO $\mathbb E\, m_i^2 + D_i = 1$ for
each latent, without using any formula for the optimum. Check it on a fit to MNIST. Why does it hold for a
collapsed latent as well?
"""

# %% tags=["hide-cell"]
# Along Eq. 13 the slope of the ELBO by log a_i is c_i - 1 at a = 1, with c_i = E m_i² + D_i. At a maximum every slope is
# zero, so c_i = 1. The encoder may be any, as long as the family of VAEs contains the rescaled ones. For a collapsed
# latent m_i = 0 and D_i = 1.
for sigma2 in (None, 1.0):
    run = fit(mnist, 20, sigma2)
    second = np.einsum("in,nm,im->i", run.V, mnist.covariance, run.V) + run.D
    assert np.allclose(second, 1, atol=1e-5)
    print(
        f"σ² {'learned' if sigma2 is None else sigma2}: collapsed {int((run.D > 0.999).sum())} of 20; E m² + D = 1 for all"
    )

# %% [markdown]
r"""
**Exercise 3.3. Appendix B, repaired.** Let the prior be $\mathcal N(0, \Pi)$ with $\Pi$ diagonal and learned. Show that
the ELBO is invariant under Eq. 13 if $\Pi \leftarrow A^{-1} \Pi A^{-1}$ as well, that $D = I$ may then be
assumed without loss, and that the columns are still identified up to order and sign for distinct $\lambda_i$.
Check the first two on a VAE of this chapter.
"""


# %% tags=["hide-cell"]
# KL to N(0, Π) is ½ Σ [(E m_i² + D_i)/Π_i - 1 - log(D_i/Π_i)]: under Eq. 13 all of E m_i², D_i and Π_i are divided by
# a_i², so the ratios stay. The reconstruction term stays by the text. From any VAE, A = D^(1/2) leads to D = I. And
# from the optimum over Π, A = Π^(1/2) leads to Π = I, where Corollary 1 holds; so every optimum is a rescaled one of
# those: columns along u_i in some order, with Π_i = 1/D_i = λ_i/σ² once D = I.
def elbo_with_prior(vae, prior, moments):
    root = np.column_stack([np.sqrt(moments.eigenvalues) * moments.eigenvectors, moments.mean - vae.mu])
    second = ((vae.V @ root) ** 2).sum(axis=1) + vae.D
    kl = (second / prior - 1 - np.log(vae.D / prior)).sum() / 2
    return vae.terms(moments).reconstruction - kl


# %% tags=["hide-cell"]
optimum = small_fits[0]
with_unit_D = rescale(optimum, np.sqrt(optimum.D))
assert np.allclose(with_unit_D.D, 1)
assert abs(elbo_with_prior(with_unit_D, 1 / optimum.D, moments) - optimum.elbo(moments)) < 1e-10
assert with_unit_D.elbo(moments) < optimum.elbo(moments) - 0.1
print("D = I with the prior 1/D: the same ELBO; with the prior I it is lower")

# %% [markdown]
r"""
**Exercise 3.4. What D = I costs on MNIST.** Compute the optimum with $D = I$ for $k = 10, 50, 200$ in closed form, and
compare ELBO, $\sigma^2$ and the number of latents in use with those of a free $D$.
"""

# %% tags=["hide-cell"]
for q in (10, 50, 200):
    W_q, s_q, elbo_q = best_with_unit_D(mnist, q)
    used = int((W_q**2).sum(axis=0).astype(bool).sum())
    print(f"k = {q:3d}: D free {green[q - 1]:.2f} nats, σ² = {noise[q - 1]:.5f}; ", end="")
    print(f"D = I {elbo_q:.2f} nats, σ² = {s_q:.5f}, {used} latents in use")

# %% [markdown]
r"""
## References

The paper is [Lucas et al., 2019](../book/references.md); the proof of Lemma 1 follows its plan. pPCA, its
maximum and its EM algorithm are in [Tipping & Bishop, 1999](../book/references.md). That a diagonal encoder
favours orthogonal columns, in deep networks too, is the subject of
[Rolínek et al., 2018](../book/references.md); how regularisation lets one read the components off a
linear autoencoder is in [Kunin et al., 2019](../book/references.md), and which kind makes them its columns, and how
slowly, in [Bao et al., 2020](../book/references.md). More general linear models, with collapse, are solved in
[Wang & Ziyin, 2022](../book/references.md); other observation models in
[Sicks, Korn & Schwaar, 2021](../book/references.md); data on a subspace, where Lemma 1's condition fails, in
[Koehler et al., 2022](../book/references.md).

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "sympy", "torch"):
    print(name, version(name))
