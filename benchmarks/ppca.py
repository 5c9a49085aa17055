"""Closed forms through the moments against the ways a reader would otherwise go.

1. The whole curve of maximum log likelihood over k, from the raw MNIST images, against refitting scikit-learn's
   PCA for each k (timed at three k, scaled to 783), and against one full PCA fit followed by the same formula.
2. The 201 x 201 landscape of Figure 1 against a Cholesky factorisation of C at each point (timed on 5 x 5).
3. The time that importing the theory modules adds to NumPy and SciPy.

Run with ``make bench`` or ``python benchmarks/ppca.py``; needs MNIST (see How to run). Every pair is timed in
this one run, alternating; the best of the repeats counts.
"""

import subprocess
import sys
import time

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.decomposition import PCA

from helpers import data, ppca
from helpers.moments import Moments


def best_of(repeats, *functions):
    """Shortest wall time of each function in seconds, taking turns so that a busy machine slows all alike."""
    times = np.full(len(functions), np.inf)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[i] = min(times[i], time.perf_counter() - start)
    return times


def curve(eigenvalues):
    """The formula of `ppca.max_log_likelihood` alone, up to the rank."""
    n, rank = eigenvalues.size, np.count_nonzero(eigenvalues > 1e-12 * eigenvalues[0])
    k = np.arange(1, rank)
    noise = eigenvalues[rank - 1 : 0 : -1].cumsum()[::-1] / (n - k)
    return -(n * np.log(2 * np.pi) + np.log(eigenvalues[:rank]).cumsum()[:-1] + (n - k) * np.log(noise) + n) / 2


def likelihood_curve(images):
    def ours():
        return ppca.max_log_likelihood(Moments.from_samples(images))

    def one_full_fit():
        pca = PCA().fit(images)
        count = pca.n_samples_
        eigenvalues = np.maximum(pca.explained_variance_, 0) * (count - 1) / count
        return curve(eigenvalues)

    reached = one_full_fit()
    print(f"largest difference of the two curves: {np.abs(ours()[: reached.size] - reached).max():.1e} nats")
    ours_s, full_s = best_of(5, ours, one_full_fit)
    print(f"whole curve, k = 1..783, from {len(images):,} raw images: {ours_s:.2f} s")
    print(f"  one full scikit-learn fit and the same formula: {full_s:.2f} s, {full_s / ours_s:.2f} times ours")
    per_k = []
    for k in (10, 200, 600):
        (seconds,) = best_of(1, lambda k=k: PCA(k).fit(images).score(images))
        per_k.append(seconds)
        print(f"  PCA({k}).fit(X).score(X): {seconds:.2f} s")
    refit = 783 * np.mean(per_k)
    print(f"  refitting for each k, scaled from these: {refit:.0f} s, {refit / ours_s:.0f} times ours")


def landscape():
    moments = data.mnist_moments("subset")
    sigma2 = moments.eigenvalues[4:7].mean()
    model = ppca.stationary_point(moments, [0, 1, 2], 4, sigma2)
    directions = moments.eigenvectors[:, [4, 6]]
    grid, coarse = np.linspace(-2, 2, 201), np.linspace(-2, 2, 5)

    def ours():
        return ppca.landscape(model, moments, 3, directions, grid, grid)

    def by_cholesky():
        values = np.empty((coarse.size, coarse.size))
        for i, b in enumerate(coarse):
            for j, a in enumerate(coarse):
                W = model.W.copy()
                W[:, 3] += directions @ [a, b]
                factor = cho_factor(W @ W.T + sigma2 * np.eye(len(W)))
                log_det = 2 * np.log(np.diag(factor[0])).sum()
                quadratic = np.trace(cho_solve(factor, moments.covariance))
                values[i, j] = -(len(W) * np.log(2 * np.pi) + log_det + quadratic) / 2
        return values

    difference = np.abs(ours()[::50, ::50] - by_cholesky()).max()
    ours_s, cholesky_s = best_of(5, ours, by_cholesky)
    cholesky_s *= (grid.size / coarse.size) ** 2
    print(f"201 x 201 landscape on MNIST: {ours_s * 1e3:.0f} ms")
    print(f"  by Cholesky, scaled from 5 x 5: {cholesky_s:.0f} s, {cholesky_s / ours_s:,.0f} times ours")
    print(f"  largest difference on the common points: {difference:.1e} nats")


def import_time():
    base = "import numpy, scipy.linalg, scipy.special, scipy.optimize"
    ours = f"{base}\nimport helpers.moments, helpers.ppca, helpers.collapse, helpers.ledger"

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    base_s, ours_s = best_of(7, run(base), run(ours))
    print(f"importing the theory modules adds {(ours_s - base_s) * 1e3:.0f} ms to NumPy and SciPy ({base_s:.2f} s)")


if __name__ == "__main__":
    likelihood_curve(data.mnist("train").reshape(60_000, 784))
    landscape()
    import_time()
