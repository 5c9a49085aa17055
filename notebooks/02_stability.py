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
# Stability: which solutions survive, and when a latent collapses

With the noise variance $\sigma^2$ held fixed, probabilistic PCA has many stationary points. This chapter
finds all of them, tells which are maxima, redraws the paper's Figure 1 on MNIST with a $\sigma^2$ that you
can move, and asks whether collapsed solutions are really "spurious local maxima".

> **In short**
>
> - A stationary point of pPCA at a fixed $\sigma^2$ uses some eigenvectors with $\lambda > \sigma^2$; its other
>   columns are zero. All of them are listed.
> - A zero column can grow along a free eigenvector $u_j$ exactly when $\lambda_j > \sigma^2$. That is the whole
>   mechanism of collapse in this model.
> - Stable means global: the only local maxima are the global ones. A collapsed maximum is no trap of the
>   optimiser, but the right answer to a $\sigma^2$ that is too large.
> - For your VAE: if latents collapse, look at $\sigma^2$ (or the weight of the KL, which is the same) before you
>   look at the optimiser.

**You need**: [chapter 1](01_ppca.ipynb), the singular value decomposition, and gradients of matrices
(derived here step by step). **Time to run**: about 10 seconds on a laptop; no GPU needed.

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
from itertools import combinations, product
from pathlib import Path

import numpy as np
import sympy as sp
import torch
from flint import fmpq, fmpq_mat, fmpq_poly
from scipy.optimize import least_squares, minimize
from scipy.stats import multivariate_normal

from helpers import data, plots, ppca
from helpers.exact import enclosures, scatter
from helpers.ledger import Ledger
from helpers.moments import Moments
from helpers.ppca import PPCA
from helpers.scorecard import Scorecard

# %% tags=["hide-input"]
ledger = Ledger("02_stability")

# %% [markdown]
r"""
## The question, and the letters

[Chapter 1](01_ppca.ipynb) found the best $W$ and the best $\sigma^2$ together. Many people who
train a VAE do something else: they fix $\sigma^2$, often without knowing it (half the squared error plus
the KL term, with no weight, is $\sigma^2 = 1$), and optimise the rest. So we now hold $\sigma^2$ fixed and
ask where an optimiser of $W$ can come to rest.

| letter | size | meaning |
|---|---|---|
| $W$, columns $w_i$ | $n \times k$ | decoder: $n$ pixels, $k$ latents |
| $S$ | $n \times n$ | covariance of the data, divided by $N$ |
| $\lambda_j$, $u_j$ | $1$, $n$ | eigenvalues of $S$, descending, and its orthonormal eigenvectors |
| $C$ | $n \times n$ | $W W^\top+ \sigma^2 I$ ([Eq. 5](01_ppca.ipynb#equation-5)) |
| $M$ | $k \times k$ | $W^\top W + \sigma^2 I$ ([Eq. 6](01_ppca.ipynb#equation-6)) |
| $\ell(W)$ | number | average log likelihood, $\frac1N \sum \log p(x)$, in nats per sample |

The paper's appendix writes $d$ for our $n$ and $q$ for our $k$, and uses $V$ for the right factor
of the singular value decomposition, while its main text uses $V$ for the encoder. We keep $n$ and
$k$ and write $W = U L R^\top$. A small change of $W$ is $\Delta$. Where the paper has a sum over all $N$ samples,
ours is $N$ times smaller.

Setting $\mu$ to the mean of the data, as the paper does, [Eq. 5](01_ppca.ipynb#equation-5)
averages to

$$\ell(W) = -\tfrac12 \left[n \log 2\pi + \log\det C +
\operatorname{tr}(C^{-1} S) \right].$$

For the checks we keep a small data set at hand: 500 samples in six dimensions whose covariance has
eigenvalues that we choose, in directions that we do not.
"""

# %% tags=["hide-input"]
n, k = 6, 3
rng = np.random.default_rng(0)
basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
noise = rng.standard_normal((500, n))
noise -= noise.mean(axis=0)
white = noise @ np.linalg.inv(np.linalg.cholesky(noise.T @ noise / 500)).T  # covariance exactly I
x = white * np.sqrt([6.0, 4.0, 2.5, 1.5, 0.8, 0.3]) @ basis.T + rng.standard_normal(n)
moments = Moments.from_samples(x)
S, eigenvalues, U = moments.covariance, moments.eigenvalues, moments.eigenvectors
print("eigenvalues:", eigenvalues.round(6))

# %% [markdown]
r"""
## Where the gradient vanishes

### Equation 10

**The paper says** that $W$ is a stationary point of the likelihood when

$$ S C^{-1} W = W. \tag{10}$$

**Derivation.** We follow a small change $d W$ ($n \times k$) through $\ell$, one factor at a
time, and keep what is of first order.

*Step 1, the covariance.* By the product rule,
$d C = d W\, W^\top+ W\, d W^\top$, an $n \times n$ symmetric matrix.

*Step 2, the log determinant.* Write
$C + d C = C(I + C^{-1} d C)$, so that
$\det(C + d C) = \det C \cdot \det(I + X)$ with
$X = C^{-1} d C$. If $X$ has eigenvalues $x_1, \dots, x_n$, then
$\det(I + X) = \prod_i (1 + x_i) = 1 + \sum_i x_i + \text{products of two or more}$, and
$\sum_i x_i = \operatorname{tr} X$. The logarithm of $1 + t$ is $t$ to first order. Hence

$$d \log\det C = \operatorname{tr}(C^{-1} d C).$$

*Step 3, the inverse.* From $C C^{-1} = I$ and the product rule,
$d C\, C^{-1} + C\, d(C^{-1}) = 0$. Multiply by $C^{-1}$ from
the left: $d(C^{-1}) = - C^{-1} d C\, C^{-1}$. So

$$d \operatorname{tr}(C^{-1} S) =
-\operatorname{tr}(C^{-1} d C\, C^{-1} S) =
-\operatorname{tr}(C^{-1} S C^{-1} d C),$$

the last step because a trace lets factors move around in a circle.

*Step 4, together.* With the symmetric $n \times n$ matrix
$G = C^{-1} - C^{-1} S C^{-1}$,

$$d\ell= -\tfrac12 \operatorname{tr}(G\, d C) =
-\tfrac12\operatorname{tr}(G\, d W\, W^\top) -
\tfrac12 \operatorname{tr}(G W\, d W^\top).$$

The two traces are equal. In the first, move $W^\top$ to the front:
$\operatorname{tr}(W^\top G\, d W)$. In the second, transpose the whole product, which
leaves a trace alone: $\operatorname{tr}(d W\, W^\top G^\top)$, and with
$G^\top= G$ and one more move it is the same. Hence
$d\ell= -\operatorname{tr}((G W)^\top d W)$. The gradient is the matrix whose
entries multiply those of $d W$:

$$\nabla \ell= - G W =
 C^{-1} S C^{-1} W - C^{-1} W \qquad (n \times k).$$

*Step 5.* At a stationary point this is zero. $C$ is invertible, since $\sigma^2 > 0$; multiplying
by it from the left loses nothing and gives $S C^{-1} W - W = 0$,
which is Equation 10.

The same steps give the gradient in $\mu$, namely
$C^{-1}(\bar{x} - \mu)$. It vanishes only at the mean, whatever $W$ is;
that is why $\mu$ can be set once and for all.

Here is the gradient as the package computes it. It never builds $C$: the two helper methods divide
by the variances along the axes of $W$, and by $\sigma^2$ everywhere else.
"""

# %%
plots.show_source(ppca.gradient)

# %% [markdown]
r"""
**Check.** Three ways that share no code with it: automatic differentiation of PyTorch's Gaussian density
over the 500 samples, finite differences of SciPy's, and the dense matrices of Equation 10. The first two
are taken at a $W$ of random numbers, where nothing is zero.
"""

# %% tags=["hide-cell"]
W0 = rng.standard_normal((n, k))
generic = PPCA(W0, moments.mean, 0.7)


def torch_log_likelihood(W, sigma2=0.7):
    C = W @ W.T + sigma2 * torch.eye(n, dtype=torch.float64)
    density = torch.distributions.MultivariateNormal(torch.tensor(moments.mean), C)
    return density.log_prob(torch.tensor(x)).mean()


leaf = torch.tensor(W0, requires_grad=True)
(by_autograd,) = torch.autograd.grad(torch_log_likelihood(leaf), leaf)
ledger.check(
    10, "gradient at a generic W against PyTorch", "autograd", ppca.gradient(generic, moments), by_autograd, 1e-10
)


# %% tags=["hide-cell"]
def central_differences(function, W, step):
    """Derivative of `function` in every entry of W, stacked along the first axis."""
    steps = step * np.eye(W.size).reshape(W.size, *W.shape)
    return np.array([(function(W + h) - function(W - h)) / (2 * step) for h in steps])


def scipy_log_likelihood(W, sigma2=0.7):
    return multivariate_normal(moments.mean, W @ W.T + sigma2 * np.eye(n)).logpdf(x).mean()


by_differences = central_differences(scipy_log_likelihood, W0, 1e-5).reshape(n, k)
ledger.check(
    10, "gradient against SciPy's density", "finite differences", ppca.gradient(generic, moments), by_differences, 1e-6
)

# %% [markdown]
r"""
For the third, multiply the package's gradient by $C$ and add $W$. What is left must be
$S C^{-1} W$ at any $W$, and must be $W$ itself at a stationary point.
We compare both at once: no zero is compared with a zero.
"""


# %% tags=["hide-cell"]
def pull(model):
    """S C^-1 W, from the package's gradient."""
    return model.C @ ppca.gradient(model, moments) + model.W


point = ppca.stationary_point(moments, [0, 2], k, 0.7)
value = np.hstack([pull(generic), pull(point)])
reference = np.hstack([S @ np.linalg.solve(generic.C, W0), point.W])
ledger.check(10, "S C^-1 W by dense algebra, and W where stationary", "algebra", value, reference, 1e-10)

# %% [markdown]
r"""
**Note.** The paper's gradient is that of the sum over samples, $N$ times ours. Nothing else to add:
Equation 10 is right as printed.

## All the stationary points

### Equation 11

**The paper says** that Equation 10 has three kinds of solution, $W = 0$,
$C = S$, and "the more general solutions", and treats the last. Substituting the singular
value decomposition of $W$ into [Eq. 10](#equation-10) it finds

$$ S U L = U(\sigma^2 I + L^2) L \tag{11}$$

and concludes that the columns of $U$ with $l_j \ne 0$ are eigenvectors of $S$ with
$\lambda_j = \sigma^2 + l_j^2$.

**Derivation.** We go a way that never inverts anything, and come to Equation 11 at its end.

*Step 1, move $C$ past $W$.* Multiply out: $C W = W W^\top W + \sigma^2 W = W M$, hence $C^{-1} W = W M^{-1}$.
Equation 10 becomes $S W M^{-1} = W$. $M$ ($k \times k$) is invertible, so we may multiply by it from the right:

$$ S W = W M = W (W^\top W + \sigma^2 I_k). $$

*Step 2, turn the latents.* $M$ is symmetric, so $M = R K R^\top$ with $R$ orthogonal and
$K = \operatorname{diag}(k_1, \dots, k_k)$. Let $Y = W R$ ($n \times k$, columns $y_i$). Multiply the equation
of step 1 by $R$ from the right, and the definition of $M$ by $R^\top$ and $R$ from the two sides:

$$ S Y = Y K, \qquad Y^\top Y = K - \sigma^2 I_k . $$

The second says that the columns of $Y$ are orthogonal to each other, with squared lengths $k_i - \sigma^2$. The
first says that each column that is not zero is an eigenvector of $S$, with eigenvalue $k_i$. Nothing else is
asked, and every step can be walked back.

*Step 3, in the paper's letters.* Let $L$ be diagonal with the lengths $l_i = (k_i - \sigma^2)^{1/2} \ge 0$, and
write $Y = U L$ with $U$ of size $n \times k$ and $U^\top U = I_k$: $u_i = y_i / l_i$ where $l_i \ne 0$, and
elsewhere whatever completes the set. Then $W = U L R^\top$ is a singular value decomposition (any of $W$'s arises
so, from a choice of $R$), $K = \sigma^2 I + L^2$, and since diagonal matrices commute, $S Y = Y K$ is
$S U L = U (\sigma^2 I + L^2) L$, which is Equation 11.

*Step 4, read it by columns.* Column $j$ is
$l_j\, S u_j = l_j(\sigma^2 + l_j^2)\, u_j$. If $l_j \ne 0$ we may divide by it:
$u_j$ is an eigenvector of $S$ and its eigenvalue is
$\lambda_j = \sigma^2 + l_j^2 > \sigma^2$. If $l_j = 0$ the equation is $0 = 0$; such a
$u_j$ is multiplied by zero in $W$ too, so it does not matter what it is.

So here they are, all of them:

> **Theorem 2.1** (All stationary points). *At a fixed $\sigma^2$ the stationary points of $\ell$ in $W$ are these.
> Choose a set $A$ of at most $k$ orthonormal eigenvectors of $S$, each with $\lambda > \sigma^2$. Let their columns have
> squared length $\lambda - \sigma^2$, fill up with zero columns, and turn the result by any orthogonal $R$:*
>
> $$ W = U_k(K_k - \sigma^2 I)^{1/2} R^\top, $$
>
> $$ k_i = \begin{cases}\lambda_i & \text{column used}\\ \sigma^2 & \text{column zero.}\end{cases}$$

Here $\lambda_i$ is the eigenvalue that column $i$ uses, not necessarily the $i$-th largest; so too below, wherever
$i$ numbers a used column. The $k_i$ are the eigenvalues of
$M = W^\top W + \sigma^2 I$. With distinct
eigenvalues, $m$ of them above $\sigma^2$, there are $\sum_{a \le \min(k, m)} \binom ma$ choices of $A$.

*Step 5, tied eigenvalues.* Step 2 holds as it stands when some of the $k_i$ are equal. Any orthonormal vectors
of an eigenspace may then enter $A$. Say that $a$ of the $m$ dimensions of the eigenspace of $\lambda$ are used. They
contribute $(\lambda - \sigma^2)$ times the projection on the $a$-dimensional space that they span to $W W^\top$. For
$0 < a < m$ that space may be turned within the eigenspace, and the isolated choices become a continuous family. For
$a = m$ it is the whole eigenspace, and there is nothing to turn: $S = \operatorname{diag}(4, 4, 1)$ with $k = 2$,
$\sigma^2 = 2$ and both of the fours used is one single $W W^\top$. An eigenvalue exactly equal to $\sigma^2$ would
give a column of length zero: it adds nothing new.

*Step 6, the three cases are one.* $W = 0$ is $A = \varnothing$. And $C = S$
means $W W^\top= S - \sigma^2 I$, which needs every eigenvalue to be at least
$\sigma^2$ and at most $k$ of them to exceed it; then $A$ is all of those that exceed it. For $k < n$ that
asks the smallest $n - k$ eigenvalues to be exactly $\sigma^2$, which real data never grant.

**Check.** First Equation 11 itself, at a stationary point of the package, turned by a random $R$ so
that the columns of $W$ are no longer eigenvectors and the SVD has to find them again.
"""

# %% tags=["hide-cell"]
R, _ = np.linalg.qr(rng.standard_normal((k, k)))
turned = PPCA(point.W @ R.T, moments.mean, 0.7)
axes, l, _ = np.linalg.svd(turned.W, full_matrices=False)
L = np.diag(l)
ledger.check(
    11, "S U L against U (sigma2 I + L^2) L", "algebra", S @ axes @ L, axes @ (0.7 * np.eye(k) + L @ L) @ L, 1e-10
)

# %% [markdown]
r"""
Then a case small enough for SymPy, $n = 2$ and $k = 1$ with $\sigma^2 = \frac12$ and eigenvalues 3 and 2 along
$(4, 3)/5$ and $(-3, 4)/5$. It solves for the zeros of the gradient without hearing of singular values. The sign
of $w = (a, b)$ is free, so we compare $a^2$, $ab$ and $b^2$.
"""

# %% tags=["hide-cell"]
a, b = sp.symbols("a b", real=True)
s, S2 = sp.Rational(1, 2), [["66/25", "12/25"], ["12/25", "59/25"]]
C = sp.Matrix([[a * a + s, a * b], [a * b, b * b + s]])
log_p = -(sp.log(C.det()) + (C.inv() * sp.Matrix(S2)).trace()) / 2
slopes = [sp.numer(sp.together(sp.diff(log_p, v))) for v in (a, b)]
by_sympy = sorted({(p * p, p * q, q * q) for p, q in sp.solve(slopes, [a, b])})
tiny = Moments(np.zeros(2), np.array([[66, 12], [12, 59]]) / 25, 1)
ours = [ppca.stationary_point(tiny, A, 1, 0.5).W[:, 0] for A in ([], [0], [1])]
ours = sorted((p * p, p * q, q * q) for p, q in ours)
ledger.check(11, "every zero of the gradient, n = 2, k = 1", "symbolic", ours, by_sympy, 1e-12)

# %% [markdown]
r"""
Last, with $n = 4$ and $k = 2$, a search that knows only [Eq. 10](#equation-10): from 100 random starts,
near and far, drive $S C^{-1} W - W$ to zero by least squares. (Climbing the
likelihood would only ever find its maxima; this also stops at saddles.) $R$ is free, so we compare
$W W^\top$.
"""

# %% tags=["hide-input"]
Q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
four = Moments(np.zeros(4), Q @ np.diag([4.0, 2.5, 1.2, 0.4]) @ Q.T, 1)


def residual(w):
    W = w.reshape(4, 2)
    return (four.covariance @ np.linalg.solve(W @ W.T + 0.7 * np.eye(4), W) - W).ravel()


sets = [A for size in range(3) for A in combinations(range(3), size)]
listed = [ppca.stationary_point(four, A, 2, 0.7).W for A in sets]
listed = np.array([W @ W.T for W in listed])
starts = [scale * rng.standard_normal(8) for scale in np.geomspace(0.05, 2, 100)]
ends = [least_squares(residual, start, xtol=1e-15, ftol=1e-15, gtol=1e-15) for start in starts]
found = np.array([(W := end.x.reshape(4, 2)) @ W.T for end in ends if np.abs(end.fun).max() < 1e-9])

# %% tags=["hide-input"]
nearest = np.abs(found[:, None] - listed).max(axis=(2, 3)).argmin(axis=1)
assert set(nearest) == set(range(len(listed)))  # and no point is listed that is not there to be found
ledger.check(11, "random searches end at listed points", "optimisation", found, listed[nearest], 1e-6)
print(f"points listed: {len(sets)}, of which a search found: {len(set(nearest))}")

# %% tags=["hide-cell"]
# S = diag(10, 1/2), σ² = 1: W = (3 e_1), M = 10. And the squared length that a column along e_2 would need.
column = sp.Matrix([3, 0])
M_exact, singular = (column.T * column)[0] + 1, sp.sqrt((column.T * column)[0])
ledger.certify("k_1 and the singular value of W", M_exact, "!=", singular, erratum="$l_j = \\sqrt{k_j - \\sigma^2}$")
claim = "squared length of a column whose eigenvalue 1/2 is below σ² = 1"
ledger.certify(claim, sp.Rational(1, 2) - 1, "<", sp.Integer(0), erratum="is not real")

# %% [markdown]
r"""
**Note.** Equation 11 is right as printed, and so is what the paper concludes from it. The paper calls the $k_j$
"singular values". They are the eigenvalues of $M$, in the units of a variance; the singular values of $W$ are
$\sqrt{k_j - \sigma^2}$. A little later it speaks of "arbitrary eigenvectors". Not every eigenvector will do: its
own $\lambda_j = \sigma^2 + l_j^2$ asks for $\lambda_j > \sigma^2$, since $l_j$ is a real number. This small
condition is the whole mechanism of collapse, an eigenvalue below the noise cannot be used, so we keep it in sight. Both
are on the [errata page](../book/errata.md). (The paper sets $W = 0$ aside as not interesting to it, which is no
error. We keep it: it is complete collapse, and it has [a section of its own](#complete-collapse) below.)

The value of $\ell$ at such a point will be needed. $C$ has eigenvalue $\lambda_j$ along the
used eigenvectors and $\sigma^2$ along the others, so
$\log\det C = \sum_{A}\log\lambda_j + (n - |A|)\log\sigma^2$ and
$\operatorname{tr}(C^{-1} S) = |A|+ \sum_{j\notin A}\lambda_j/\sigma^2$. Adding and
subtracting the terms of $A$ in the second sums,

$$\ell_A = \ell_\varnothing +
\tfrac12\sum_{j\in A}\Big(\frac{\lambda_j}{\sigma^2} - 1 - \log\frac{\lambda_j}{\sigma^2}\Big),
\quad \ell_\varnothing = -\tfrac12\Big[n\log 2\pi\sigma^2 + \frac{\operatorname{tr} S}{\sigma^2}\Big].$$

Every eigenvector brings its own gain $\frac12(t - 1 - \log t)$, $t = \lambda_j/\sigma^2 > 1$. Its
derivative in $t$ is $\frac12(1 - 1/t) > 0$ and it is $0$ at $t = 1$, so each gain is positive and a larger
eigenvalue gains more. The best choice is therefore to use as many as allowed, largest first: the top
$\min(k, \#\{\lambda > \sigma^2\})$.

## A small step from a stationary point

### Equation 12

**The paper says** this. Take $W = U_k(K_k - \sigma^2 I)^{1/2}$ and perturb
one column, $w_i \to w_i + \epsilon u_j$. To first order in $\epsilon$, the dot
product of the perturbation with the gradient of the (summed) log likelihood is

$$\epsilon N(\lambda_j/k_i - 1)\, u_j^\top C^{-1} u_j. \tag{12}$$

If it is positive, the step leads uphill and the point is not a maximum.

**Derivation.** Let $u_j$ be a *free* eigenvector, one that no column of $W$ uses. (The paper does not ask for
this, but Equation 12 needs it; the note below shows what happens without. Where
eigenvalues are tied, choose the eigenvectors so that the used ones are among them.) Let
$W_\epsilon = W + \epsilon u_j e_i^\top$, where $e_i$ is the $i$-th unit
vector of $k$ entries. We shall get an exact expression and take the limit at the end.

*Step 1, the small matrix.*
$W_\epsilon^\top W_\epsilon =
 W^\top W + \epsilon(W^\top u_j e_i^\top+ e_i u_j^\top W) +
\epsilon^2 e_i e_i^\top$.
The columns of $W$ are orthogonal to $u_j$, so the bracket vanishes. $M_\epsilon$
stays diagonal; only its $i$-th entry moves, from $k_i$ to $\kappa = k_i + \epsilon^2$.

*Step 2, the inverse on the column.* As in step 1 of [Eq. 11](#equation-11),
$C_\epsilon W_\epsilon =
 W_\epsilon W_\epsilon^\top W_\epsilon + \sigma^2 W_\epsilon =
 W_\epsilon M_\epsilon$,
so $C_\epsilon^{-1} W_\epsilon = W_\epsilon M_\epsilon^{-1}$. Its $i$-th
column:
$C_\epsilon^{-1}(w_i + \epsilon u_j) = (w_i + \epsilon u_j)/\kappa$.

*Step 3, the gradient's $i$-th column.* $S w_i = k_i w_i$: for a used column because
$k_i = \lambda_i$, for a zero column because both sides are zero. With
$S u_j = \lambda_j u_j$ the gradient of [Eq. 10](#equation-10) is

$$ g_i = C_\epsilon^{-1}\Big[S\frac{w_i + \epsilon u_j}{\kappa} -
 w_i - \epsilon u_j\Big] =
 C_\epsilon^{-1}\Big[\Big(\frac{k_i}{\kappa} - 1\Big) w_i + \epsilon\Big(\frac{\lambda_j}{\kappa} -
1\Big) u_j\Big].$$

*Step 4, the limit.* $k_i/\kappa - 1 = -\epsilon^2/\kappa$ is already of second order, and
$u_j^\top C_\epsilon^{-1} w_i$, zero at $\epsilon = 0$, is of first order; their product
is of third. The other term carries a factor $\epsilon$ already, so to first order $\kappa$ may be replaced by
$k_i$ and $C_\epsilon$ by $C$, the covariance *before* the step (that the error is of third
order, not second, is seen in step 5):

$$ u_j^\top g_i = \epsilon\Big(\frac{\lambda_j}{k_i} - 1\Big) u_j^\top C^{-1} u_j +
O(\epsilon^3), \qquad u_j^\top C^{-1} u_j = \frac1{\sigma^2}.$$

The last equality holds because $C u_j = \sigma^2 u_j$ for a free $u_j$. This
is Equation 12, per sample.

*Step 5, the exact expression.* Here $u_i$ is the eigenvector that column $i$ uses, or, for a zero
column, where $l_i = 0$, any unit vector orthogonal to $u_j$ and to all columns (if there is none, drop that
coordinate). On the plane of $u_i$ and $u_j$, with
$l_i^2 = k_i - \sigma^2$, $C_\epsilon$ is $\sigma^2 I + v v^\top$ with
$v = (l_i, \epsilon)$, and it does not leave the plane. Its inverse there is
$\frac1{\sigma^2}(I - v v^\top/\kappa)$, because
$\sigma^2 + v^\top v = \kappa$. So
$u_j^\top C_\epsilon^{-1} u_j = \frac{1}{\sigma^2}\frac{\kappa - \epsilon^2}\kappa =
\frac{k_i}{\sigma^2\kappa}$
and $u_j^\top C_\epsilon^{-1} w_i = -\frac{\epsilon l_i^2}{\sigma^2\kappa}$. Put both
into step 3:

$$ u_j^\top g_i = \frac{\epsilon^3 l_i^2}{\sigma^2\kappa^2} + \frac{\epsilon k_i(\lambda_j -
\kappa)}{\sigma^2\kappa^2} =
\epsilon\,\frac{k_i(\lambda_j - k_i) - \sigma^2\epsilon^2}{\sigma^2(k_i + \epsilon^2)^2},$$

where the terms in $\epsilon^3$ were collected: $l_i^2 - k_i = -\sigma^2$. The expression is positive for
small $\epsilon > 0$ exactly when $\lambda_j > k_i$. In a tie, $\lambda_j = k_i$, it is
$-\epsilon^3/(k_i + \epsilon^2)^2$: level to second order, and then downhill.

*Step 6, the two cases.* If the column is used, $k_i = \lambda_i$: the step climbs if a free eigenvector has
a larger eigenvalue than the one in use. If the column is zero, $k_i = \sigma^2$: it climbs if a free
eigenvalue exceeds the noise variance.

**The Hessian.** Equation 12 is one entry of something larger. For any direction $\Delta$ ($n\times k$),
let $\mathcal H[\Delta]$ be the derivative of the gradient along $\Delta$. Write
$P = C^{-1}$ and $E = \Delta W^\top+ W \Delta^\top$, the derivative
of $C$. By step 3 of Equation 10 the derivative of $P$ is $- P E P$.
The product rule over the four factors of $P S P W$ and the two of
$P W$ gives

$$\mathcal H[\Delta] = - P E P S P W -
 P S P E P W + P S P \Delta +
 P E P W - P \Delta.$$

The package computes just this, grouping
$P S(P \Delta - P E P W)$, and forming $E$
only against thin matrices:
"""

# %%
plots.show_source(ppca.hessian_product)

# %% [markdown]
r"""
At a stationary point it becomes short. There $S P W = W$, and with
$P W = W M^{-1}$ (step 1 of [Eq. 11](#equation-11)) the gradient is
$P(S W M^{-1} - W)$, whose bracket is zero, so only the bracket needs
to be differentiated. The derivative of $M$ is $\Delta^\top W + W^\top \Delta$, hence

$$\mathcal H[\Delta] = C^{-1}\big(S \Delta M^{-1} - \Delta -
 W(\Delta^\top W + W^\top \Delta) M^{-1}\big).$$

Take $R = I$ and $\Delta = u_j e_i^\top$, now with *any* eigenvector
$u_j$, and let $c_j = u_j^\top C u_j$: it is $\sigma^2$ if $u_j$ is free
and $\lambda_j$ if it is used, by the column $w_j = l_j u_j$ say. The last term contributes,
along $u_j$ in column $i$, $l_j^2/k_i$, and twice that when $u_j$ is column $i$'s own. So

$$ u_j^\top\mathcal H[u_j e_i^\top]\, e_i =
\frac1{c_j}\Big(\frac{\lambda_j}{k_i} - 1 - (1 + \delta)\frac{l_j^2}{k_i}\Big),$$

where $\delta$ is $1$ if $u_j$ is the eigenvector that column $i$ itself uses, and $0$ if not.
For free $u_j$, $l_j = 0$ and it is Equation 12 divided by $\epsilon N$.

**Check.** All $6 \times 3$ pairs at the point that uses $u_1$ and $u_3$ and has one zero
column, at $\sigma^2 = 0.7$. The used eigenvectors are included, so that every term of the Hessian is
exercised.
"""


# %% tags=["hide-cell"]
def curvature(model, moments, j, i):
    """Second derivative of the average log likelihood when column i moves along eigenvector j."""
    direction = np.zeros_like(model.W)
    direction[:, i] = moments.eigenvectors[:, j]
    return np.sum(direction * ppca.hessian_product(model, moments, direction))


table = np.array([[curvature(point, moments, j, i) for i in range(k)] for j in range(n)])
k_i = np.diag(point.M)
precision = np.diag(U.T @ np.linalg.inv(point.C) @ U)  # u_j^T C^-1 u_j
l_squared = 1 / precision - 0.7
own = np.zeros((n, k))
own[0, 0] = own[2, 1] = 1
formula = precision[:, None] * (eigenvalues[:, None] / k_i - 1 - (1 + own) * l_squared[:, None] / k_i)
ledger.check(12, "closed form of every diagonal entry, Eq. 12 where u_j is free", "algebra", table, formula, 1e-10)

# %% tags=["hide-input"]
print("rows u1 ... u6; columns with k_i =", k_i.round(3))
print(table.round(3) + 0.0)

# %% [markdown]
r"""
Read the table by columns. The third one is zero ($k_3 = \sigma^2 = 0.7$), and it climbs along
$u_2$, $u_4$ and $u_5$, whose eigenvalues 4, 1.5 and 0.8 exceed 0.7. The second
holds $u_3$ ($k_2 = 2.5$) and would climb along $u_2$. The two zeros at $u_1$ and
$u_3$ are rotations; we come to them below.

The whole Hessian, as an $18\times18$ matrix, against finite differences of the dense gradient of Equation
10, and its product with a random direction against PyTorch, at the turned stationary point and away from
any.
"""


# %% tags=["hide-cell"]
def dense_gradient(W, sigma2=0.7):
    P = np.linalg.inv(W @ W.T + sigma2 * np.eye(n))
    return P @ S @ P @ W - P @ W


two = (turned, generic)
by_differences = [central_differences(dense_gradient, model.W, 1e-5).reshape(n * k, n * k).T for model in two]
hessians = [ppca.hessian(model, moments) for model in two]
ledger.check(12, "Hessian against the dense gradient", "finite differences", hessians, by_differences, 1e-6)

# %% tags=["hide-cell"]
direction = rng.standard_normal((n, k))
ours, by_autograd = [], []
for model in two:
    ours.append(ppca.hessian_product(model, moments, direction))
    _, turned_by_torch = torch.autograd.functional.hvp(
        torch_log_likelihood, torch.tensor(model.W), torch.tensor(direction)
    )
    by_autograd.append(turned_by_torch.numpy())
ledger.check(12, "Hessian times a direction against PyTorch", "autograd", ours, by_autograd, 1e-9)

# %% [markdown]
r"""
And the exact expression of step 5, for a step that is not small at all. The dot product at $\epsilon = 0.8$
is the integral of the curvature from 0 to 0.8, since it starts from zero; twenty Gauss–Legendre nodes of
the package's Hessian do it, for every free $u_j$ and every column.
"""

# %% tags=["hide-cell"]
epsilon, free = 0.8, [1, 3, 4, 5]
nodes, weights = np.polynomial.legendre.leggauss(20)
integral = np.zeros((len(free), k))
for row, j in enumerate(free):
    for i in range(k):
        step = np.outer(U[:, j], np.eye(k)[i])
        for t, weight in zip(epsilon * (nodes + 1) / 2, epsilon * weights / 2, strict=True):
            integral[row, i] += weight * curvature(PPCA(point.W + t * step, moments.mean, 0.7), moments, j, i)
lam = eigenvalues[free, None]
exact = epsilon * (k_i * (lam - k_i) - 0.7 * epsilon**2) / (0.7 * (k_i + epsilon**2) ** 2)
ledger.check(12, "exact dot product at a finite step", "quadrature", integral, exact, 1e-9)

# %% [markdown]
r"""
**Note.** For a free $u_j$ Equation 12 is right as the dot product with the *unit* vector $u_j$. With the
perturbation $\epsilon u_j$, as the text has it, there is one more factor $\epsilon$, the result is of order
$\epsilon^2$, and "ignoring terms in $\epsilon^2$" would leave nothing. The sign, which is all the argument
needs, is the same for both when $\epsilon > 0$. Here is the difference of orders, for the zero column along
$u_2$:
"""

# %% tags=["hide-input"]
for epsilon in (0.1, 0.01, 0.001):
    moved = PPCA(point.W + epsilon * np.outer(U[:, 1], [0, 0, 1]), moments.mean, 0.7)
    unit = U[:, 1] @ ppca.gradient(moved, moments)[:, 2]
    print(f"ε = {epsilon:<6} dot product with u_j: {unit:.1e}   with ε u_j: {epsilon * unit:.1e}")

# %% [markdown]
r"""
More matters that the paper lets $u_j$ be *any* eigenvector. For a used one Equation 12 is wrong, in value and in
sign. Take $S = \operatorname{diag}(10, \frac12)$, $\sigma^2 = 1$ and $W = (3e_1, 0)$, which uses the one eigenvalue
above the noise and is, by Theorem 2.2 below, a global maximum. Moving its zero column along $u_1 = e_1$ makes
$W W^\top = (9 + \epsilon^2)\, e_1 e_1^\top$, whose variance is too large: the step leads down, if only in the third order.
The printed formula says $\epsilon(\frac{10}{1} - 1)\frac1{10} = +\frac9{10}\epsilon$. Read to the letter, it would make
every point with a used and a zero column unstable, and there would be no collapsed maxima at all. Two used columns
show it in the first order: $S = \operatorname{diag}(10, 5, \frac12)$, $W = (3e_1, 2e_2)$, the second column along $u_1$. The
right values come from the table of all pairs above: $0$ and $-\frac2{25}$.

The cells compute the dot product $u_j^\top g_i$ from the gradient of [Eq. 10](#equation-10) in rational functions of
$\epsilon$. Each is compared with the true expression, and then, at $\epsilon = \frac1{10}$ and to first order, shown to
lie on the other side of zero than the printed formula.
"""

# %% tags=["hide-cell"]
eps = sp.Symbol("epsilon", positive=True)


def exact_dot(variances, W, j, i, sigma2=1):
    """u_j^T g_i of Eq. 12 after column i of W has moved by epsilon u_j, where u_j is the unit vector e_j."""
    moved = sp.Matrix(W)
    moved[j, i] += eps
    P = (moved * moved.T + sigma2 * sp.eye(len(W))).inv()
    return sp.factor((P * sp.diag(*variances) * P * moved - P * moved)[j, i])


# %% tags=["hide-cell"]
zero_column = exact_dot([10, sp.Rational(1, 2)], [[3, 0], [0, 0]], 0, 1)
claim = "a zero column moved along a used eigenvector"
ledger.certify(claim, zero_column, "==", -(eps**3) / (10 + eps**2) ** 2, erratum="for a *free* $u_j$, one that")
at_tenth = zero_column.subs(eps, sp.Rational(1, 10))
claim = "it is below 0 at ε = 1/10, and what Eq. 12 says of it above"
ledger.certify(claim, [at_tenth, sp.Integer(0)], "<", [sp.Integer(0), sp.Rational(9, 10) / 10])
two_used = exact_dot([10, 5, sp.Rational(1, 2)], [[3, 0], [0, 2], [0, 0]], 0, 1)
first_order = sp.diff(two_used, eps).subs(eps, 0)
ledger.certify("a used column along another's, to first order; Eq. 12: 1/10", first_order, "==", sp.Rational(-2, 25))

# %% tags=["hide-cell"]
# Free: the zero column along u_2 with eigenvalue 3. Coefficient of ε, with u_j and with ε u_j.
free_dot = exact_dot([10, 3], [[3, 0], [0, 0]], 1, 1)
orders = [sp.diff(each, eps).subs(eps, 0) for each in (free_dot, eps * free_dot)]
claim = "a free direction: Eq. 12's term in ε, with u_j and with ε u_j"
ledger.certify(claim, orders, "==", [sp.Integer(2), sp.Integer(0)], erratum="with the unit vector $u_j$")

# %% [markdown]
r"""
## Which stationary points are stable, and why

Signs along single columns show when a point is *not* a maximum. To show that it *is* one needs more: a
direction could mix columns, and a zero eigenvalue decides nothing. Two arguments settle it.

**The whole spectrum.** Put $\Delta = \sum d_{ji} u_j e_i^\top$ into the short form of
$\mathcal H$ above. Let $a = |A|$ columns be used, the $p$-th by $w_p = l_p u_p$. Entry
$(p, i)$ of $\Delta^\top W + W^\top \Delta$ is $l_i d_{ip} + l_p d_{pi}$ (with $l_i = 0$ for a
zero column), so the bracket of $\mathcal H[\Delta]$ is, along $u_j$ in column $i$,

$$\Big(\frac{\lambda_j}{k_i} - 1\Big)d_{ji}\quad\text{for free } u_j,\qquad
\Big(\frac{\lambda_p}{k_i} - 1\Big)d_{pi} - \frac{l_p}{k_i}(l_id_{ip} + l_pd_{pi})\quad\text{for used } u_p,$$

and $C^{-1}$ divides it by $\sigma^2$ or by $\lambda_p$. No entry meets another, except $d_{pi}$ and
$d_{ip}$ of two used columns: the Hessian falls apart into blocks of size one and two.

| directions | how many | curvature |
|---|---|---|
| free $u_j$ into column $i$ | $(n - a)k$ | $\frac1{\sigma^2}\big(\frac{\lambda_j}{k_i} - 1\big)$ |
| a used column along itself | $a$ | $-2l_i^2/\lambda_i^2$ |
| sheared: $(d_{pi}, d_{ip}) \propto (l_i, l_p)$ | $a(a-1)/2$ | $-(l_i^2 + l_p^2)/(\lambda_i\lambda_p)$ |
| rotated: $(d_{pi}, d_{ip}) \propto (l_p, -l_i)$ | $a(a-1)/2$ | $0$ |
| a used column rotated into a zero column | $a(k-a)$ | $0$ |

The first row is the first expression. For the second row put $p = i$ and $k_i = \lambda_i$:
$0 - \frac{l_i}{\lambda_i}\cdot 2l_id_{ii}$, divided by $\lambda_i$. For the last row, $k_i = \sigma^2$ and
$l_i = 0$: $(\lambda_p - \sigma^2 - l_p^2)\,d_{pi}/\sigma^2 = 0$, since $l_p^2 = \lambda_p - \sigma^2$. For
two used columns $p \neq i$, use $\lambda_p - \lambda_i - l_p^2 = \sigma^2 - \lambda_i = -l_i^2$: the
bracket is $-\frac{l_i}{\lambda_i}(l_id_{pi} + l_pd_{ip})$, to be divided by $\lambda_p$. With the roles
exchanged, the block of $(d_{pi}, d_{ip})$ is

$$-\frac1{\lambda_i\lambda_p}\begin{pmatrix}l_i^2 & l_il_p\\ l_il_p & l_p^2\end{pmatrix}.$$

Its determinant is zero and its trace is $-(l_i^2 + l_p^2)/(\lambda_i\lambda_p)$, so these are its
eigenvalues, with eigenvectors $(l_p, -l_i)$ and $(l_i, l_p)$.

The zeros are harmless. $\ell$ depends on $W$ through $W W^\top$ only, so moving
along $W R$ changes nothing *exactly*, not only to second order. They count
$\frac{a(a-1)}2 + a(k-a)$, the dimension of the set of all $W R$. Any further zero comes from
a tie, $\lambda_j = k_i$.
"""


# %% tags=["hide-input"]
def closed_spectrum(eigenvalues, used, k, sigma2):
    """Eigenvalues of the Hessian at a stationary point, ascending (nk,)."""
    lam, free, a = eigenvalues[used], np.delete(eigenvalues, used), len(used)
    k_i = np.append(lam, np.full(k - a, sigma2))
    escapes = (free[:, None] / k_i - 1) / sigma2
    stretches = -2 * (lam - sigma2) / lam**2
    p, i = np.triu_indices(a, 1)
    shears = -(lam[p] + lam[i] - 2 * sigma2) / (lam[p] * lam[i])
    rotations = np.zeros(a * (a - 1) // 2 + a * (k - a))
    return np.sort(np.concatenate([escapes.ravel(), stretches, shears, rotations]))


# %% tags=["hide-input"]
by_package = np.linalg.eigvalsh(ppca.hessian(turned, moments))
closed = closed_spectrum(eigenvalues, [0, 2], k, 0.7)
ledger.check(12, "whole spectrum of the Hessian in closed form", "algebra", by_package, closed, 1e-9)
print("directions that climb, fall, stay level:", [int(f.sum()) for f in (closed > 0, closed < 0, closed == 0)])

# %% [markdown]
r"""
The same once more with no rounding at all, in fractions: $n = 4$, $k = 3$, $\sigma^2 = 1$, eigenvalues
$10, 5, 2, \frac12$, of which 10 and 2 are used, so that the columns have the whole lengths 3 and 1. The
eigenvectors are the columns of the reflection $I - \frac12 \mathbf 1 \mathbf 1^\top$. Equation 10 holds to the letter; the long
form of $\mathcal H$, applied to each of the twelve unit matrices, gives the Hessian. Its eigenvalues are the
roots of its characteristic polynomial, with their multiplicities. So if this polynomial is the one that the table
above predicts, the table holds here, and the number of directions that climb is the number of positive roots.
"""

# %% tags=["hide-cell"]
half = fmpq(1, 2)


def diagonal(entries):
    return fmpq_mat(
        len(entries), len(entries), [e * (i == j) for i, e in enumerate(entries) for j in range(len(entries))]
    )


reflection = fmpq_mat(4, 4, [half if i == j else -half for i in range(4) for j in range(4)])
S4 = reflection * diagonal([10, 5, 2, half]) * reflection.transpose()
W4 = reflection * fmpq_mat(4, 3, [3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
P4 = (W4 * W4.transpose() + diagonal([1] * 4)).inv()
ledger.certify("a stationary point in fractions: S C^-1 W and W", (S4 * P4 * W4).entries(), "==", W4.entries())


# %% tags=["hide-input"]
def exact_product(direction):
    """H[direction] of the paper's log likelihood at W4, all in fractions."""
    E = direction * W4.transpose() + W4 * direction.transpose()
    first = P4 * S4 * P4 * direction - P4 * E * P4 * S4 * P4 * W4 - P4 * S4 * P4 * E * P4 * W4
    return first + P4 * E * P4 * W4 - P4 * direction


H = fmpq_mat([exact_product(fmpq_mat(4, 3, [int(i == j) for i in range(12)])).entries() for j in range(12)])
X = fmpq_poly([0, 1])
predicted = X**3 * (X - 4) * (2 * X - 3) * (2 * X + 1) ** 4 * (4 * X + 3) * (20 * X + 19) * (50 * X + 9)
predicted /= predicted[12]
claim = "characteristic polynomial of a Hessian, coefficients: as the table predicts"
ledger.certify(claim, H.charpoly().coeffs(), "==", predicted.coeffs())
print("its factors and their powers:", H.charpoly().factor()[1])

# %% [markdown]
r"""
Two roots are positive, 4 and $\frac32$: the zero column along $u_2$, and the column that holds 2 along $u_2$.
Three are zero, the $\frac{a(a-1)}2 + a(k-a)$ rotations, and seven are negative.
"""

# %% [markdown]
r"""
> **Theorem 2.2** (Stable means global). *At a fixed $\sigma^2$ a stationary point is a local maximum if and only if no
> free eigenvalue exceeds the smallest $k_i$; and then it is a global maximum.*

**Proof.** $\ell$ is the same at $W R$ as at $W$, so we may take $R = I$. *Only if.*
Suppose $\lambda_j > k_i$ for some free $j$ and some column $i$. By [Eq. 12](#equation-12) the
curvature along $u_j e_i^\top$ is positive, so there are higher points arbitrarily near.

*If.* Suppose $\lambda_j \le k_i$ for all free $j$ and all $i$. When some column is zero, the smallest $k_i$
is $\sigma^2$ (used columns have $\lambda_i > \sigma^2$), so all free eigenvalues are at most $\sigma^2$:
$A$ holds *every* eigenvalue above $\sigma^2$. When no column is zero, no free eigenvalue exceeds a used
one: $A$ holds the $k$ largest, ties broken either way. In both cases $A$ is the top
$\min(k, \#\{\lambda > \sigma^2\})$, which we saw at the end of [Eq. 11](#equation-11) to have the largest
$\ell_A$ of all stationary points. It remains to see that $\ell$ has a global maximum at all. It
does: $\operatorname{tr}(C^{-1} S) \ge 0$, and
$\log\det C \ge (n-1)\log\sigma^2 + \log(\sigma^2 + \|W\|^2/k)$, because the largest squared
singular value is at least the average $\|W\|^2/k$ ($\|W\|^2$ is the sum of all squared entries). So $\ell\to -\infty$ as $W$
grows; being continuous, it attains its maximum, and there the gradient is zero. The global maximum is one
of our points, hence the top one. $\square$

**What the paper says rightly, and what Theorem 2.2 adds.** Appendix A.1 looks at single columns along eigenvectors and
calls a positive sign unstable; that is right, and the "only if" above. That the top $q$ components are
stable is right as well, and so is this: there are local maxima with zero columns when $\lambda_j < \sigma^2$ "for too
many $j$". One can say how many. By Theorem 2.2 a local maximum uses all the eigenvalues above $\sigma^2$ or has no zero
column. So a local maximum with a zero column exists if and only if $\#\{\lambda > \sigma^2\} < k$, which is to say that
*more than $n - k$ of the $\lambda_j$ are at most $\sigma^2$*. Two things are ours. A sign of zero, a tie, is no
instability, so "negative" should read "not positive" and $\lambda_i > \lambda_j$ should read $\ge$: with $S = 2I$,
$k = 1$ and $\sigma^2 = 1$ every $w$ of length 1 is a global maximum (certified below). And tests of single columns
alone cannot show that a point *is* a maximum, since a direction may mix columns.

It turns out that single columns were enough: whenever the point is not
the best, one of *them* climbs. And it covers ties, which a Hessian alone cannot decide: a tied point has
the same value as the best one, so it is a maximum too. (When a free eigenvalue equals a used one, the maxima
form a family larger than the rotations; when it equals $\sigma^2$, by step 5 of [Eq. 12](#equation-12), they do
not.) Hence `is_stable` counts ties as stable.

**How strict the saddles are.** The proof gives a number. Every stationary point that is no maximum has a direction of
curvature

$$ \max_{j\ \text{free}} \frac{\lambda_j - k_{\min}}{\sigma^2\, k_{\min}} > 0, \qquad k_{\min} = \min_i k_i, $$

namely $u_j e_i^\top$ with the largest free eigenvalue and the column with the smallest $k_i$. By the table above it is
the largest curvature there is, all others being negative, zero or of the same form. Gradient ascent in
continuous time leaves along it as $e^{t \cdot \text{curvature}}$: a deviation $\epsilon$ has grown by a factor of
$e$ after the inverse of this number, and to order one after $\log(1/\epsilon)$ times that. It is small only where an
eigenvalue nearly equals $\sigma^2$ or another one.

Let us not rely on the proof alone. For $n = 6$, $k = 3$ we list every stationary point at seven values of
$\sigma^2$, and for each compare three things: the package's verdict, the largest eigenvalue of the Hessian,
and whether the likelihood equals that of the global fit.
"""


# %% tags=["hide-input"]
def all_points(sigma2):
    """Every stationary point of the small model at sigma2, as (indices, model)."""
    above = range(int((eigenvalues > sigma2).sum()))
    chosen = [A for size in range(k + 1) for A in combinations(above, size)]
    return [(A, ppca.stationary_point(moments, A, k, sigma2)) for A in chosen]


# %% tags=["hide-input"]
for sigma2 in (0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0):
    best = ppca.fit(moments, k, sigma2).log_likelihood(moments)
    points = all_points(sigma2)
    stable = [ppca.is_stable(model, moments) for _, model in points]
    steepest = [np.linalg.eigvalsh(ppca.hessian(model, moments))[-1] for _, model in points]
    globally = [abs(model.log_likelihood(moments) - best) < 1e-9 for _, model in points]
    assert stable == [curved < 1e-9 for curved in steepest] == globally
    (winner,) = [A for (A, _), yes in zip(points, stable, strict=True) if yes]
    names = ", ".join(f"u{j + 1}" for j in winner) or "nothing"
    print(f"σ² = {sigma2}: {len(points):2d} stationary; one is stable, uses {names}, and is the global maximum")
    for (A, model), curved in zip(points, steepest, strict=True):
        smallest = np.diag(model.M).min()
        strict = (np.delete(eigenvalues, A).max() - smallest) / (sigma2 * smallest)
        assert A == winner or (strict > 0 and np.isclose(strict, curved))

# %% tags=["hide-cell"]
# A tie: S = 2I, σ² = 1, k = 1, and w = (1, 0) or (3, 4)/5. The likelihood is a function of det C and tr(C^-1 S).
tied_values = []
for w in (sp.Matrix([1, 0]), sp.Matrix([3, 4]) / 5):
    tied_C = w * w.T + sp.eye(2)
    tied_values += [tied_C.det(), (tied_C.inv() * 2).trace()]
claim = "det C and tr C^-1 S at two w of length 1, S = 2I: a tie at the maximum"
ledger.certify(claim, tied_values[:2], "==", tied_values[2:], erratum="a tie is no loss")

# %% [markdown]
r"""
**Found from outside.** So far the maxima were compared with the package's own functions. Now an optimiser that knows
of no eigenvector, no stationary point and no gradient: L-BFGS with numerical differences, on the
likelihood written out with the matrix $C$, from random starts near zero and far from it. Four spectra: distinct eigenvalues; ties; a singular
$S$; one direction in noise. Three $k$ and four $\sigma^2$ for each, up to complete collapse. Where it stops we
count the columns that are in use (eigenvalues of $W^\top W$ above $10^{-3}$) and compare the height with the
theorem's: the point that uses the top $\min(k, \#\{\lambda > \sigma^2\})$.
"""


# %% tags=["hide-input"]
def ascend(S, k, sigma2, start):
    """Height (nats) and number of used columns where L-BFGS ends, from W = start."""
    n, steps = len(S), 1e-5 * np.eye(start.size)

    def minus_log_likelihood(w):
        W = w.reshape(*w.shape[:-1], n, k)
        C = W @ np.swapaxes(W, -1, -2) + sigma2 * np.eye(n)
        return (n * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + (np.linalg.inv(C) * S).sum(axis=(-1, -2))) / 2

    def slopes(w):
        return (minus_log_likelihood(w + steps) - minus_log_likelihood(w - steps)) / 2e-5

    end = minimize(minus_log_likelihood, start, jac=slopes, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-7})
    W = end.x.reshape(len(S), k)
    return -end.fun, int((np.linalg.eigvalsh(W.T @ W) > 1e-3).sum())


# %% tags=["hide-input"]
spectra = [6, 4, 2.5, 1.5, 0.8, 0.3], [5, 3, 3, 3, 1, 1], [5, 3, 2, 1, 0, 0], [4, 1, 1, 1, 1, 1]
heights, closed_heights, collapsed = [], [], 0
for spectrum in map(np.array, spectra):
    directions, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    data_moments = Moments(np.zeros(6), directions * spectrum @ directions.T, 1)
    for columns, sigma2, scale in product((1, 2, 3), (0.5, 2.0, 3.5, 7.0), (0.1, 1.5)):
        start = scale * rng.standard_normal(6 * columns)
        height, in_use = ascend(data_moments.covariance, columns, sigma2, start)
        used = min(columns, int((spectrum > sigma2).sum()))
        assert in_use == used
        model = ppca.stationary_point(data_moments, range(used), columns, sigma2)
        heights, closed_heights = [*heights, height], [*closed_heights, model.log_likelihood(data_moments)]
        collapsed += used < columns

# %% tags=["hide-input"]
ledger.check(11, "L-BFGS on the likelihood: the top point", "optimisation", heights, closed_heights, 1e-8)
print(f"{len(heights)} ascents, {collapsed} to a maximum with a zero column; none ended anywhere else")

# %% [markdown]
r"""
One stable point at every $\sigma^2$ (up to a rotation $R$), always the global one, among up to 42
stationary points. As $\sigma^2$ passes one of the $k$ largest eigenvalues from below, one latent less survives.
"""

# %% mystnb={"image": {"alt": "Two charts over the noise variance from 0.1 to 8. Above: the log likelihood of every stationary point, saddles as thin grey curves, all below one thick curve, the stable point, which peaks at the maximum likelihood variance 0.87. Below: the number of surviving latents, a staircase from 3 down to 0."}} tags=["hide-input"]
grid = np.geomspace(0.1, 8, 80)
fig, (top, bottom) = plots.figure(2, 1, width=7, height=5, sharex=True, height_ratios=[2.4, 1])
for A in (A for size in range(k + 1) for A in combinations(range(n), size)):
    s = grid[grid < eigenvalues[list(A)].min(initial=np.inf)]
    values = [ppca.stationary_point(moments, A, k, v).log_likelihood(moments) for v in s]
    top.plot(s, values, color="0.65", linewidth=0.7, label=None if A else "saddles")
envelope = [ppca.fit(moments, k, v).log_likelihood(moments) for v in grid]
top.plot(grid, envelope, linewidth=3.2, label="the stable point")
mle = ppca.fit(moments, k)
top.plot(mle.sigma2, mle.log_likelihood(moments), "*", color="black", ms=12, label="maximum likelihood σ²")
top.set(ylabel="average log likelihood\n(nats per sample)", ylim=(-13.5, -9.6), xscale="log")
top.legend(loc="upper left", frameon=False)
bottom.step(grid, [min(k, (eigenvalues > v).sum()) for v in grid], where="post", color="black")
bottom.set(xlabel="noise variance σ² (units of x²)", ylabel="surviving latents", yticks=range(k + 1))
_ = bottom.set_xticks([0.1, 0.3, 1, 3, 8], ["0.1", "0.3", "1", "3", "8"])

# %% [markdown]
r"""
**Figure 2.1.** The small data set of this chapter, $k = 3$: the log likelihood of every stationary point as
$\sigma^2$ changes, and the number of latents that survive at the stable one.

Each thin curve is one choice of eigenvectors, followed as $\sigma^2$ changes; it ends where $\sigma^2$
reaches the smallest eigenvalue it uses and that column has shrunk to nothing. The stable point is the upper
edge of them all. Collapse, in the lower chart, is what happens to that upper edge each time $\sigma^2$ is set
above one more of the $k$ largest eigenvalues.

## Figure 1

**The paper** takes 10,000 random training images of MNIST, gives $W$ three principal columns and
zeros elsewhere, and draws the likelihood as a zero column moves in the plane of $u_5$ and
$u_7$, for three values of $\sigma^2$. (It writes $\mu_5$ and $\mu_7$;
elsewhere $\mu$ is the mean.) Its caption: on the left $\sigma^2$ can capture both directions, in
the middle only one, on the right neither.

**What we do.** The package carries the moments of such a subset. We take $k = 4$: columns along
$u_1, u_2, u_3$ and one zero column, which moves in *both* directions of the plot,
$w_4 = a u_5 + b u_7$. The paper speaks of "the same stationary point" in all three
panels. Columns of a stationary point have length $\sqrt{\lambda_i - \sigma^2}$, so with one fixed
$W$ at most one panel would show a stationary point; we recompute $W$ for each $\sigma^2$.
"""

# %% tags=["hide-input"]
mnist = data.mnist_moments("subset")
print("λ1 ... λ8:", mnist.eigenvalues[:8].round(2))

# %% [markdown]
r"""
**The landscape in closed form.** Let $v = a u_p + b u_q$ be the moved column,
$r^2 = a^2 + b^2$, and $C$ the covariance with that column at zero. Then the new covariance is
$C + v v^\top$, and $C v = \sigma^2 v$ since both directions are
free. The matrix determinant lemma and the Sherman–Morrison formula (multiply out to verify them) give

$$\log\det(C + v v^\top) = \log\det C + \log(1 + v^\top C^{-1} v),\qquad
(C + v v^\top)^{-1} =
 C^{-1} - \frac{C^{-1} v v^\top C^{-1}}{1 + v^\top C^{-1} v}.$$

Here $v^\top C^{-1} v = r^2/\sigma^2$ and
$v^\top C^{-1} S C^{-1} v = (\lambda_pa^2 + \lambda_qb^2)/\sigma^4$, so

$$\ell(a, b) - \ell(0, 0) =
-\frac12\Big[\log\Big(1 + \frac{r^2}{\sigma^2}\Big) -
 \frac{\lambda_pa^2 + \lambda_qb^2}{\sigma^2(\sigma^2 + r^2)}\Big].$$

Two eigenvalues and $\sigma^2$ are all that is needed. The used columns do not enter, for this plane never
meets them. `ppca.landscape` does the same for any column and any plane:
"""

# %%
plots.show_source(ppca.landscape)


# %% tags=["hide-input"]
def zero_column_point(sigma2):
    """Three principal columns and a zero column, stationary at this sigma2."""
    return ppca.stationary_point(mnist, [0, 1, 2], 4, sigma2)


# %% tags=["hide-input"]
grid = np.linspace(-2, 2, 201)
plane = mnist.eigenvectors[:, [4, 6]]
sigmas, gains = (1.0, 2.1, 3.0), []
for sigma2 in sigmas:
    model = zero_column_point(sigma2)
    surface = ppca.landscape(model, mnist, 3, plane, grid, grid) - model.log_likelihood(mnist)
    r2 = grid**2 + grid[:, None] ** 2
    pull_out = mnist.eigenvalues[4] * grid**2 + mnist.eigenvalues[6] * grid[:, None] ** 2
    closed = -(np.log1p(r2 / sigma2) - pull_out / (sigma2 * (sigma2 + r2))) / 2
    np.testing.assert_allclose(surface, closed, atol=1e-9)
    gains.append(surface)
print("ppca.landscape and the closed form agree at all", 3 * surface.size, "points, to 1e-9 nats")

# %% [markdown]
r"""
Both could share a mistake, so one point of each surface is also evaluated with the dense $784 \times 784$
covariance. Then the captions, from the computed curvature along $u_5$ and $u_7$ rather than from
the look of the picture, and the verdict over *all* directions.
"""


# %% tags=["hide-input"]
def dense(W, sigma2):
    """Average log likelihood with the covariance as a matrix, up to a constant."""
    C = W @ W.T + sigma2 * np.eye(784)
    return -(np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, mnist.covariance))) / 2


for sigma2, surface in zip(sigmas, gains, strict=True):
    W = zero_column_point(sigma2).W
    moved = W.copy()
    moved[:, 3] = plane @ [grid[150], grid[120]]
    np.testing.assert_allclose(surface[120, 150], dense(moved, sigma2) - dense(W, sigma2), atol=1e-8)
print("landscape and dense covariance agree to 1e-8 nats")

# %% tags=["hide-input"]
titles = []
for sigma2 in sigmas:
    model = zero_column_point(sigma2)
    up5, up7 = (bool(curvature(model, mnist, j, 3) > 0) for j in (4, 6))
    in_plane = {2: "minimum", 1: "saddle", 0: "maximum"}[up5 + up7]
    full = "maximum" if ppca.is_stable(model, mnist) else "saddle"
    titles.append(f"σ² = {sigma2:.1f}: {in_plane} of this plane\n{full} of the full space")
    print(f"σ² = {sigma2}: climbs along u5: {up5}, along u7: {up7}; {in_plane} of the plane, {full} in full")

# %% mystnb={"image": {"alt": "Three contour maps of the log likelihood as a zero column of W moves along the fifth and seventh principal directions of MNIST. At variance 1.0 the centre is a basin between two summits, a minimum of the plane. At 2.1 it is a saddle between two nearby summits. At 3.0 it is the only summit. Beside them the two directions as small images."}} tags=["hide-input"]
pictures = mnist.eigenvectors[:, [4, 6]].T.reshape(2, 28, 28)
_ = plots.stability_panels(grid, grid, gains, titles, pictures=pictures)

# %% [markdown]
r"""
**Figure 2.2.** Figure 1 of the paper, from the recorded moments of 10,000 images of MNIST: the log likelihood as
a zero column moves in the plane of $u_5$ and $u_7$, at three noise variances.

The verdicts rest on which eigenvalues lie above $\sigma^2$ and which below, and that can be decided without rounding:
the moments of these images are sums of whole numbers, and [chapter 1](01_ppca.ipynb#the-best-log-likelihood-for-every-k) shows how to
enclose the eigenvalues of such a covariance. By [Eq. 12](#equation-12) a zero column climbs along a free $u_j$ exactly when
$\lambda_j > \sigma^2$. So the captions say $1.0 < \lambda_7$ and $1.0 < \lambda_5$ (left), $\lambda_7 < 2.1 < \lambda_5$
(middle) and $\lambda_5 < 3.0$, $\lambda_7 < 3.0$ (right); and $\lambda_4 < 3.0 < \lambda_3$ makes the right-hand point a maximum in all
directions. As the eigenvalues are in descending order, five comparisons decide it all.
"""

# %% tags=["hide-input"]
record = np.load(Path(data.__file__).parent / "recorded" / data.MOMENT_RECORDS["subset"])
count = int(record["count"])
integers = scatter(record["total"], record["products"], count)
low, high = enclosures(integers, mnist.eigenvectors, count**2 * 255**2, 4)
for j in (3, 4, 5, 7):
    print(f"λ{j} is between {low[j - 1] / 1e4:.4f} and {high[j - 1] / 1e4:.4f}")
claim = "Figure 1: 1.0 < λ7; λ7 < 2.1 < λ5; λ4 < 3.0 < λ3, in units of 1e-4"
smaller, larger = [10_000, high[6], 21_000, high[3], 30_000], [low[6], 21_000, low[4], 30_000, low[2]]
ledger.certify(claim, smaller, "<", larger)

# %% [markdown]
r"""
A word on "the same stationary point" at three values of $\sigma^2$. A $W$ that is stationary at one is not at another.
With $S = \operatorname{diag}(10, \frac12)$, $W = (3e_1, 0)$ is stationary at $\sigma^2 = 1$. The slope along its first column at
$\sigma^2 = 1$ and at $\sigma^2 = 2$:
"""

# %% tags=["hide-cell"]
along_own = [exact_dot([10, sp.Rational(1, 2)], [[3, 0], [0, 0]], 0, 0, s).subs(eps, 0) for s in (1, 2)]
ledger.certify("stationary at σ² = 1", along_own[0], "==", sp.Integer(0))
ledger.certify(
    "the same W at σ² = 2", along_own[1], "!=", sp.Integer(0), erratum='"the same stationary point" at three'
)

# %% tags=["hide-input"]
climbs = [[bool(curvature(zero_column_point(s), mnist, j, 3) > 0) for j in (4, 6)] for s in sigmas]
_ = Scorecard("02_stability").claim(
    "Figure 1",
    "a small σ² lets both directions climb, a middling one only the first, a large one neither",
    [found == said for found, said in zip(climbs, ([True, True], [True, False], [False, False]), strict=True)],
    "the three panels' captions; σ² not printed",
    f"signs of the curvature at σ² = {', '.join(map(str, sigmas))}",
    "closed form, moments of 10,000 MNIST images",
)

# %% [markdown]
r"""
The ring is the stationary point; each star is a summit, with its gain in nats per image over the ring.
Colours run from the lowest point of each panel (dark) to its highest (light), in finer steps near the top.
Left, $\sigma^2 < \lambda_7 < \lambda_5$: both directions climb. Middle, $\lambda_7 < \sigma^2 < \lambda_5$:
only $u_5$ climbs. Right, $\sigma^2 > \lambda_5$: neither does. The signs of the curvature are those
of the paper's captions.

Now move $\sigma^2$ yourself. The slider takes the mouse, a finger or the arrow keys; no kernel is needed.
"""

# %%
plots.landscape_explorer(mnist)

# %% [markdown]
r"""
**Why the right-hand panel has $\sigma^2 = 3.0$.** To be *sure* of a maximum we need more than the picture
shows. Put the slider at 2.70. In the plane the ring is a perfect maximum, but $u_4$ is free too, it
is not in the plane, and $\lambda_4 = 2.78 > 2.70$. Only for $\sigma^2$ between $\lambda_4$ and $\lambda_3$
are all free directions below the noise while the three used ones are still above it:
"""

# %% tags=["hide-input"]
model = zero_column_point(2.7)
for j in (3, 4, 6):
    print(f"curvature along u{j + 1}: {curvature(model, mnist, j, 3):+.4f} per squared intensity")
along_u4 = ppca.landscape(model, mnist, 3, mnist.eigenvectors[:, [3, 4]], grid, [0.0])[0]
gain = along_u4.max() - model.log_likelihood(mnist)
print(
    f"stable: {ppca.is_stable(model, mnist)}; highest gain along u4: {gain:.5f} nats, "
    f"at a = {abs(grid[along_u4.argmax()]):.2f}"
)

# %% [markdown]
r"""
The gain is tiny, because $\sigma^2$ is close to $\lambda_4$, but it is a gain: the point is a saddle. The
paper does not print its three values of $\sigma^2$, so we cannot say whether its right-hand panel is a
maximum or one of these; the statement of its caption, about the two directions shown, holds either way.

## Are the collapsed points spurious?

The paper's explanation of posterior collapse is that, for too large a $\sigma^2$, pPCA "has spurious local
maxima, which correspond to a collapsed posterior". Theorem 2.2 lets us look closely at that sentence.

**The maxima are there.** For $\lambda_4 < \sigma^2 < \lambda_3$ the point with three used columns and one zero column
is a true local maximum. That part of the paper is right, and it is the important part: the likelihood
itself, without any variational bound, prefers to leave a latent unused.

**They are not spurious.** A spurious local maximum is one that is not global: a trap, which a better
optimiser or a luckier start would avoid. Theorem 2.2 says there are none. At every fixed $\sigma^2$, each
local maximum is global. The collapsed point is the *best possible answer* for that $\sigma^2$; what is
wrong is the $\sigma^2$. No restart, no cleverer optimiser and no annealing that ends at the same objective
can undo it.

**When $\sigma^2$ is learned, they are not stationary at all.** The paper says that then, "in non-degenerate
cases", they "become saddle
points where $\sigma^2$ is made smaller by its gradient". The second half is right; but where a gradient
remains there is no saddle, which is a stationary point. From
$\ell= -\frac12[n\log2\pi + \log\det C + \operatorname{tr} C^{-1} S]$ with
$d C = I\,d\sigma^2$ and steps 2 and 3 of [Eq. 10](#equation-10),

$$\frac{\partial\ell}{\partial\sigma^2} =
-\tfrac12\big[\operatorname{tr} C^{-1} - \operatorname{tr}(C^{-1} S C^{-1})\big].$$

At a stationary point in $W$, along a used eigenvector the two traces contribute $1/\lambda_j$ each
and cancel; along a free one, $1/\sigma^2$ and $\lambda_j/\sigma^4$. So

$$\frac{\partial\ell}{\partial\sigma^2} =
\frac{n - |A|}{2\sigma^4}\,\big(\bar\lambda_{\text{free}} - \sigma^2\big),\qquad \bar\lambda_{\text{free}} =
\text{the average free eigenvalue}.$$

It vanishes only if $\sigma^2$ equals that average. At a stable point with a zero column all free
eigenvalues are at most $\sigma^2$, so their average is below it (unless all of them equal $\sigma^2$) and
the slope is strictly negative: $\sigma^2$ wants to shrink, until the next eigenvalue emerges and the zero
column can grow. With all $k$ columns in use the balance is [Eq. 7](01_ppca.ipynb#equation-7),
$\sigma^2_{\text{MLE}}$.
"""


# %% tags=["hide-input"]
def slope_in_sigma2(model, moments, step=1e-5):
    """d L / d sigma2 with W held, by central differences of the likelihood."""
    values = [PPCA(model.W, model.mu, model.sigma2 + h).log_likelihood(moments) for h in (step, -step)]
    return (values[0] - values[1]) / (2 * step)


for sigma2 in (0.5, mle.sigma2, 2.0, 3.0, 5.0, 7.0):
    model = ppca.fit(moments, k, sigma2)
    a = int((np.abs(model.W).max(axis=0) > 0).sum())
    expected = (n - a) / (2 * sigma2**2) * (eigenvalues[a:].mean() - sigma2)
    slope = slope_in_sigma2(model, moments)
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)
    print(f"σ² = {sigma2:.3f}: {a} latents in use, ∂L/∂σ² = {slope:+.3f}".replace("-0.000", "+0.000"))

# %% [markdown]
r"""
Exactly, at the collapsed maximum $W = (3e_1, 0)$ for $S = \operatorname{diag}(10, \frac12)$ and $\sigma^2 = 1$: the formula
gives $\frac{1}{2}(\frac12 - 1)$, and so does differentiating $\ell$ in $\sigma^2$. A slope that is not zero excludes a
stationary point, and with it a saddle.
"""

# %% tags=["hide-cell"]
noise_variance = sp.Symbol("sigma2", positive=True)
C_of_noise, S_small = sp.diag(9, 0) + noise_variance * sp.eye(2), sp.diag(10, sp.Rational(1, 2))
log_p_of_noise = -(sp.log(C_of_noise.det()) + (C_of_noise.inv() * S_small).trace()) / 2
slope = sp.diff(log_p_of_noise, noise_variance).subs(noise_variance, 1)
ledger.certify("slope along σ² at a collapsed maximum", slope, "<", sp.Integer(0), erratum="so they are no saddles")

# %% [markdown]
r"""
The slope is zero at $\sigma^2_{\text{MLE}} = 0.867$ and nowhere else on the list. (Saddles of the joint
problem do exist: take any $A$ other than the top $k$ whose eigenvalues exceed the average of the free ones, and
that average as $\sigma^2$. If all columns are used, a free eigenvalue exceeds a used one; if a column is zero,
some free eigenvalue lies above their average, unless all are equal. Either way a column escapes. These are not
the collapsed maxima; $\sigma^2$ is different.)

### Complete collapse

$W = 0$ is the first of the paper's three cases, which it passes over. For our
subject it is: every latent is ignored, and by [Eq. 6](01_ppca.ipynb#equation-6) the posterior is
$\mathcal N(0, I)$ for every $x$, which is the prior. Theorem 2.2 with
$A = \varnothing$: **complete collapse is stable, and then globally optimal, if and only if
$\lambda_1 \le \sigma^2$.** For these images the border is $\lambda_1 = 5.10$. [Wang & Ziyin, 2022](../book/references.md)
study when this happens in a wider class of linear models, and [Li et al., 2025](../book/references.md) reach the same border, a noise variance
above the largest eigenvalue of the data's covariance, from the stability of the collapsed solution of a VAE; they read it as a phase transition.
"""

# %% tags=["hide-input"]
for sigma2 in (5.0, 5.2):
    nothing = PPCA(np.zeros((784, 4)), mnist.mean, sigma2)
    best = ppca.fit(mnist, 4, sigma2).log_likelihood(mnist)
    same = abs(best - nothing.log_likelihood(mnist)) < 1e-9
    print(f"σ² = {sigma2}: W = 0 is stable: {ppca.is_stable(nothing, mnist)}, is the global maximum: {same}")
means, covariance = nothing.posterior(np.random.default_rng(1).random((3, 784)))
print("posterior is the prior:", bool((means == 0).all() and np.allclose(covariance, np.eye(4))))

# %% [markdown]
r"""
### What remains of the story

The paper's central observation stands, and stands more firmly: the *variance of the observation model*
decides which latents survive, and it does so in the exact likelihood, with no bound involved. What changes is the
picture to carry away. It is not a rugged landscape in which an optimiser gets caught. It is a landscape
without traps, whose summit moves as $\sigma^2$ does; set $\sigma^2$ above an eigenvalue and the summit lies
where that latent is off. The cure is to change the question, by setting or learning $\sigma^2$, and not to
search harder for another answer.

Whether *deep* VAEs have local maxima that are truly spurious is a separate matter. The linear model neither
shows it nor rules it out, and later chapters have to look at trained networks.
([Dai, Wang & Wipf, 2020](../book/references.md) prove that small nonlinear changes of an affine decoder can create
bad local minima of a VAE's loss.) The [errata
page](../book/errata.md) lists these remarks beside the paper's words.

How much survives on MNIST? Here is the number of eigenvalues above $\sigma^2$, the most latents that a
linear model can keep.
"""

# %% mystnb={"image": {"alt": "Falling curve on logarithmic axes: the number of eigenvalues of the MNIST covariance above the noise variance, from several hundred at a variance of one hundred-thousandth to none at 5.1, with marks at 0.0126, 0.1 and 1."}} tags=["hide-input"]
train = data.mnist_moments("train")
grid = np.geomspace(1e-5, 6, 400)
fig, ax = plots.figure(width=6.4, height=3.3)
ax.step(grid, [(train.eigenvalues > v).sum() for v in grid], where="post")
for sigma2 in (0.0126, 0.1, 1.0):
    count = int((train.eigenvalues > sigma2).sum())
    ax.plot(sigma2, count, "o", color="black")
    ax.annotate(f"σ² = {sigma2:g}: {count}", (sigma2, count), (7, 5), textcoords="offset points")
ax.set(xscale="log", xlabel="noise variance σ² (squared intensity)", ylabel="latents that can survive")
ax.set_yscale("symlog", linthresh=1)
_ = ax.set(ylim=(0, 1000), yticks=[0, 1, 10, 100, 1000], yticklabels=["0", "1", "10", "100", "1000"])

# %% [markdown]
r"""
**Figure 2.3.** The number of eigenvalues of MNIST's covariance above a noise variance, from its recorded moments.
"""

# %% tags=["hide-input"]
print(f"λ1 = {train.eigenvalues[0]:.2f}; above 1: {(train.eigenvalues > 1).sum()} eigenvalues")

# %% [markdown]
r"""
The curve falls to zero at $\lambda_1 = 5.12$ of all 60,000 images. At $\sigma^2 = 1$, the value hidden in a
plain "half the squared error plus KL", the linear model keeps no more than the marked dozen, however many
latents it is given.

## What we showed

- The gradient of the average log likelihood is
  $C^{-1} S C^{-1} W - C^{-1} W$; it vanishes where [Eq.
  10](#equation-10) says.
- Every stationary point at a fixed $\sigma^2$ is made of eigenvectors with $\lambda > \sigma^2$ and zero
  columns ([Eq. 11](#equation-11)); the paper's three cases are one.
- A column with $k_i$ gains from a *free* eigenvector exactly when $\lambda_j > k_i$ ([Eq. 12](#equation-12)); for a
  used one Equation 12 does not hold. The whole spectrum of the Hessian is known, and how strict each saddle is.
- Stable means global: at every fixed $\sigma^2$ the only local maxima are the global ones, and an optimiser that
  knows only the likelihood finds no others. Collapsed points are the right answer to a wrong $\sigma^2$.
- Figure 1, its captions confirmed by computed curvature, and a right-hand panel that is a maximum in all
  directions.

## Exercises

**Exercise 2.1. How fast does a collapsed latent wake up?** At $W = 0$ and $\sigma^2 = 2$, in the small
model, start gradient ascent from a $W$ with tiny random entries. At which rate should the part of
$W$ along $u_1$ grow at first? Measure it.
"""

# %% tags=["hide-cell"]
# The Hessian at W = 0 gives the rate (lambda_1 / sigma2 - 1) / sigma2 per unit of time.
W, step, history = 1e-6 * np.random.default_rng(2).standard_normal((n, k)), 0.01, []
for _ in range(200):
    history.append(np.linalg.norm(U[:, 0] @ W))
    W = W + step * ppca.gradient(PPCA(W, moments.mean, 2.0), moments)
rate = np.log(history[-1] / history[0]) / (199 * step)
expected = (6.0 / 2.0 - 1) / 2.0
print(f"measured {rate:.1f}, predicted {expected:.1f}")
assert abs(rate - expected) < 0.02

# %% [markdown]
r"""
**Exercise 2.2. Ties.** Let $S$ have eigenvalues $4, 2, 2, 1$, and let $k = 2$, $\sigma^2 = \frac12$. Show that
the second column may point anywhere in the eigenspace of 2, that the point is stable, and that the Hessian
has one zero more than the rotations explain.
"""

# %% tags=["hide-cell"]
# Any unit vector of the eigenspace is an eigenvector, so Eq. 10 holds. The free eigenvalues are 2 and 1, the smallest
# k_i is 2: none exceeds it. The tie lambda_j = k_i = 2 adds one zero to the a(a - 1)/2 = 1 of the rotations.
tied = Moments(np.zeros(4), np.diag([4.0, 2.0, 2.0, 1.0]), 1)
for angle in (0.0, 0.4, 1.1):
    W = np.zeros((4, 2))
    W[0, 0] = np.sqrt(3.5)
    W[1:3, 1] = np.sqrt(1.5) * np.array([np.cos(angle), np.sin(angle)])
    model = PPCA(W, tied.mean, 0.5)
    zeros = int((np.abs(np.linalg.eigvalsh(ppca.hessian(model, tied))) < 1e-9).sum())
    print(f"angle {angle}: stable {ppca.is_stable(model, tied)}, zeros {zeros}, of which rotations 1")
    assert ppca.is_stable(model, tied) and zeros == 2

# %% [markdown]
r"""
**Exercise 2.3. Learn $\sigma^2$ from a collapsed start.** Begin at the collapsed global maximum for $\sigma^2 = 3$
(two columns used, one exactly zero) and climb in $W$ and $\log\sigma^2$ together. Where does it end
if the zero column stays exactly zero, and where with a little noise on it?
"""


# %% tags=["hide-cell"]
# The gradient in a zero column is C^-1 S C^-1 0 - C^-1 0 = 0, so it stays zero: the best model with two latents, where
# Eq. 7 averages four eigenvalues. Any noise has a part along u3 that grows, since lambda_3 exceeds that average.
def climb(noise):
    start = ppca.fit(moments, k, 3.0).W + noise * np.random.default_rng(3).standard_normal((n, k))

    def minus_log_likelihood(parameters):
        model = PPCA(parameters[:-1].reshape(n, k), moments.mean, np.exp(parameters[-1]))
        slope = -(np.trace(P := np.linalg.inv(model.C)) - np.trace(P @ S @ P)) / 2
        change = np.append(ppca.gradient(model, moments).ravel(), model.sigma2 * slope)
        return -model.log_likelihood(moments), -change

    end = minimize(minus_log_likelihood, np.append(start.ravel(), np.log(3.0)), jac=True, tol=1e-12)
    return np.exp(end.x[-1])


# %% tags=["hide-cell"]
print(f"exactly zero: σ² = {climb(0.0):.3f}, the average of λ3 ... λ6, a saddle: {eigenvalues[2:].mean():.3f}")
print(f"with noise:   σ² = {climb(1e-3):.3f}, the maximum likelihood value: {mle.sigma2:.3f}")
assert abs(climb(0.0) - eigenvalues[2:].mean()) < 1e-3 and abs(climb(1e-3) - mle.sigma2) < 1e-3

# %% [markdown]
r"""
**Exercise 2.4. The variance hidden in a loss.** A Gaussian VAE minimises
$\frac1{2\sigma^2}\|x - \hat{x}\|^2 + \mathrm{KL}$. Which $\sigma^2$ is implied by *mean*
squared error over the 784 pixels plus $w \cdot \mathrm{KL}$? How many latents can the linear model keep on
MNIST for $w = 1$, $10^{-2}$ and $10^{-4}$?
"""

# %% tags=["hide-cell"]
# Dividing the loss by w leaves |x - x_hat|^2 / (784 w), so 2 sigma2 = 784 w.
for w in (1.0, 1e-2, 1e-4):
    sigma2 = 784 * w / 2
    print(f"w = {w:g}: σ² = {sigma2:g}, latents kept at most {(train.eigenvalues > sigma2).sum()}")
assert not (train.eigenvalues > 784 / 2).any()  # w = 1 is complete collapse

# %% [markdown]
r"""
## References

- [Lucas et al., 2019](../book/references.md), the paper, Section 4.1 and Appendix A.
- [Tipping & Bishop, 1999](../book/references.md), whose Appendix A is the origin of Equations 10 to 12.
- [Wang & Ziyin, 2022](../book/references.md), [Li et al., 2025](../book/references.md) and
  [Dai, Wang & Wipf, 2020](../book/references.md), on when collapse is optimal and when it is not.

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "sympy", "torch"):
    print(name, version(name))
