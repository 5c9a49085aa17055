"""Data sets: bundled, synthetic, and MNIST with its recorded moments (Appendix D).

MNIST is looked for in ``$BOOK_DATA``, then in the user's cache, then downloaded through torchvision into that
cache, and its checksum is verified wherever it comes from. The linear chapters need only its moments, which
travel with the package as exact integer sums. ``python -m helpers.data`` makes those records again.
"""

import argparse
import gzip
import hashlib
import io
import os
from importlib.resources import files
from pathlib import Path

import numpy as np

from helpers._validation import finite_array, integer, positive
from helpers.moments import Moments

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 60_000),
    "test": ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 10_000),
}
SUBSET = {"size": 10_000, "seed": 0}  # the random training images of Figure 1
MOMENT_RECORDS = {"train": "mnist-moments-60000.npz", "subset": "mnist-moments-10000.npz"}


def digits():
    """scikit-learn's bundled handwritten digits, (1797, 64) float64 in [0, 1]: 8 x 8 pixels, 17 grey levels."""
    from sklearn.datasets import load_digits

    return load_digits().data / 16.0


def synthetic_ppca(count, eigenvalues, k, seed, mean=None):
    """Samples of a pPCA model whose covariance has known eigenvalues, in a random orthonormal basis.

    Parameters
    ----------
    count : int
        Number of samples N.
    eigenvalues : (n,) array_like
        Of the true covariance, descending. The n - k smallest must be equal: they are the noise variance.
    k : int
        Number of latents, 1 to n - 1.
    seed : int
    mean : (n,) array_like, optional
        Zero by default.

    Returns
    -------
    x : (N, n) ndarray
    W, mu, sigma2
        The truth: (n, k), (n,), float.
    """
    eigenvalues = finite_array("eigenvalues", eigenvalues, ("n",))
    n = eigenvalues.size
    k, count = integer("k", k, 1, n - 1), integer("count", count, 1, 2**63 - 1)
    sigma2 = positive("the smallest of eigenvalues", eigenvalues[-1])
    if (np.diff(eigenvalues) > 0).any() or not np.allclose(eigenvalues[k:], sigma2, rtol=1e-12, atol=0):
        raise ValueError(f"eigenvalues is {eigenvalues}; expected descending, the last {n - k} of them equal")
    mu = np.zeros(n) if mean is None else finite_array("mean", mean, (n,))
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    W = basis[:, :k] * np.sqrt(eigenvalues[:k] - sigma2)
    z = rng.standard_normal((count, k))
    x = z @ W.T + mu + np.sqrt(sigma2) * rng.standard_normal((count, n))
    return x, W, mu, float(sigma2)


def cache_folder():
    """Where downloads are kept: ``$XDG_CACHE_HOME`` or ``~/.cache``, and there ``posterior-collapse-book``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posterior-collapse-book"


def mnist(split="train"):
    """MNIST images, (60000, 28, 28) or (10000, 28, 28) uint8, for `split` ``"train"`` or ``"test"``.

    Raises
    ------
    ValueError
        When a file is truncated or is not the one published; a copy in the cache is removed first, so that the
        next call fetches it anew. A file under ``$BOOK_DATA`` is never touched.
    """
    if split not in MNIST_FILES:
        raise ValueError(f"split is {split!r}; expected one of {sorted(MNIST_FILES)}")
    name, sha256, count = MNIST_FILES[split]
    path = _find_mnist(name)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        if path.is_relative_to(cache_folder()):
            path.unlink()
        raise ValueError(f"{path} has sha256 {found}; expected {sha256}. Fetch it again")
    return np.frombuffer(gzip.decompress(content), np.uint8, offset=16).reshape(count, 28, 28)


def _find_mnist(name):
    roots = [cache_folder()]
    if os.environ.get("BOOK_DATA"):
        roots.insert(0, Path(os.environ["BOOK_DATA"]))
    for root in roots:
        path = root / "MNIST" / "raw" / name
        if path.is_file():
            return path
    from torchvision.datasets import MNIST

    MNIST(cache_folder(), download=True)
    return cache_folder() / "MNIST" / "raw" / name


def mnist_subset_indices():
    """Which 10,000 of the 60,000 training images Figure 1 uses, ascending (10000,): drawn without replacement."""
    rng = np.random.default_rng(SUBSET["seed"])
    return np.sort(rng.choice(60_000, SUBSET["size"], replace=False))


def mnist_moments(which="train"):
    """Recorded moments of MNIST, n = 784, pixels in [0, 1].

    Parameters
    ----------
    which : {"train", "subset"}
        All 60,000 training images, or the 10,000 of Figure 1.

    Returns
    -------
    Moments
        From exact integer sums: the covariance is rounded once, when it is divided.
    """
    if which not in MOMENT_RECORDS:
        raise ValueError(f"which is {which!r}; expected one of {sorted(MOMENT_RECORDS)}")
    with np.load(io.BytesIO((files("helpers") / "records" / MOMENT_RECORDS[which]).read_bytes())) as record:
        total, products, count = record["total"].astype(np.int64), record["products"], int(record["count"])
    n = total.size
    upper = np.zeros((n, n), np.int64)
    upper[np.triu_indices(n)] = products
    full = upper + np.triu(upper, 1).T
    # N sum(x x^T) - sum(x) sum(x)^T stays below 2^49, so the subtraction is exact.
    covariance = (count * full - np.outer(total, total)) / (255.0 * count) ** 2
    return Moments(total / (255.0 * count), covariance, count)


def integer_sums(images):
    """Exact sums of uint8 images (N, 28, 28) or (N, n): `total` (n,) and the upper triangle of `products`, uint32.

    Both fit because 60,000 times 255 squared is below 2^32; float64 holds every partial sum exactly.
    """
    x = images.reshape(len(images), -1)
    if x.dtype != np.uint8 or len(x) * 255**2 >= 2**32:
        raise ValueError(f"images has dtype {x.dtype} and {len(x)} rows; expected uint8 and at most 66,051 rows")
    products = np.zeros((x.shape[1], x.shape[1]))
    for i in range(0, len(x), 4096):
        batch = x[i : i + 4096].astype(np.float64)
        products += batch.T @ batch
    total = x.sum(axis=0, dtype=np.uint32)
    return total, products[np.triu_indices(x.shape[1])].astype(np.uint32)


def record_mnist_moments(folder):
    """Write both moment records into `folder`; the same bytes every time with one version of zlib."""
    images = mnist("train")
    indices = mnist_subset_indices()
    for which, chosen in (("train", images), ("subset", images[indices])):
        total, products = integer_sums(chosen)
        arrays = {
            "total": total,
            "products": products,
            "count": np.int64(len(chosen)),
            "source_sha256": np.array(MNIST_FILES["train"][1]),
        }
        if which == "subset":
            arrays |= {"indices": indices.astype(np.uint16), "seed": np.int64(SUBSET["seed"])}
        _write_npz(Path(folder) / MOMENT_RECORDS[which], arrays)


def _write_npz(path, arrays):
    """Written beside its place and moved there, so that a reader never meets half a file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    part = path.with_suffix(".part")
    part.write_bytes(buffer.getvalue())
    os.replace(part, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Make the MNIST moment records again.")
    parser.add_argument("--out", default=Path(__file__).parent / "records", type=Path, help="folder to write into")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    record_mnist_moments(out)
