"""Data sets: bundled, synthetic, and MNIST with its recorded moments (Appendix D).

Serves chapters 00 to 12. MNIST is looked for in ``$BOOK_DATA``, then in the user's cache, then downloaded through
torchvision into that cache, and its checksum is verified wherever it comes from. A file under ``$BOOK_DATA``, or linked
into the cache, is the reader's and never touched. The linear chapters need only MNIST's moments, which travel with the
package as exact integer sums. ``python -m helpers.data`` makes those records again.
"""

import argparse
import gzip
import hashlib
import io
import os
import sys
import warnings
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path

import numpy as np

from helpers import celeba
from helpers._files import answered, cache_folder, whole, write_npz
from helpers._validation import (
    finite_array,
    folder_to_write,
    integer,
    one_of,
    plain_array,
    positive,
    refuse_not_finite,
)
from helpers.moments import Moments

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 60_000),
    "test": ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 10_000),
}
SUBSET = {"size": 10_000, "seed": 0}  # the random training images of Figure 1
MOMENT_RECORDS = {"train": "mnist-moments-60000.npz", "subset": "mnist-moments-10000.npz"}


def digits():
    """scikit-learn's bundled handwritten digits, (1797, 64) float64 in [0, 1]: 8 x 8 pixels, 17 grey levels.

    Examples
    --------
    >>> x = digits()
    >>> x.shape, float(x.min()), float(x.max())
    ((1797, 64), 0.0, 1.0)
    """
    from sklearn.datasets import load_digits

    return load_digits().data / 16.0


def digits_bytes():
    """`digits` as bytes, (1797, 64) uint8, for what scales by 1/255: 17 grey levels, each within 1/510 of its own."""
    return np.rint(digits() * 255).astype(np.uint8)


def patches(size=32, count=4096, seed=0):
    """Patches of the two colour photographs that come with scikit-learn, a temple and a flower of 427 x 640 pixels.

    Parameters
    ----------
    size : int
        Height and width of a patch, 1 to 427.
    count : int
        Number of patches. They are cut at random places, each photograph and place as likely as any other, and
        may overlap.
    seed : int

    Returns
    -------
    (count, size, size, 3) ndarray of uint8
    """
    from sklearn.datasets import load_sample_images

    photographs = np.stack(load_sample_images().images)
    which, height, width, _ = photographs.shape
    size, count = integer("size", size, 1, min(height, width)), integer("count", count, 1, 2**31 - 1)
    rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (size, size), axis=(1, 2))
    chosen = (rng.integers(n, size=count) for n in (which, height - size + 1, width - size + 1))
    return np.ascontiguousarray(np.moveaxis(windows[tuple(chosen)], 1, -1))


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

    Raises
    ------
    ValueError
        When the eigenvalues are not descending, or the last n - k of them differ.
    """
    eigenvalues = finite_array("eigenvalues", eigenvalues, ("n",))
    n = eigenvalues.size
    k, count = integer("k", k, 1, n - 1), integer("count", count, 1, 2**63 - 1)
    sigma2 = positive("the smallest of eigenvalues", eigenvalues[-1])
    if (np.diff(eigenvalues) > 0).any() or not np.allclose(eigenvalues[k:], sigma2, rtol=1e-12, atol=0):
        raise ValueError(f"eigenvalues is {eigenvalues}; expected descending, the last {n - k} of them equal")
    mu = np.zeros(n) if mean is None else finite_array("mean", mean, (n,))
    rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    W = basis[:, :k] * np.sqrt(eigenvalues[:k] - sigma2)
    z = rng.standard_normal((count, k))
    x = z @ W.T + mu + np.sqrt(sigma2) * rng.standard_normal((count, n))
    return x, W, mu, float(sigma2)


def mnist(split="train"):
    """MNIST images, (60000, 28, 28) or (10000, 28, 28) uint8, for `split` ``"train"`` or ``"test"``.

    A file in the cache that is truncated or not the one published is removed, with a warning, and fetched anew.

    Raises
    ------
    ValueError
        When such a file lies under ``$BOOK_DATA``, or in the cache only as a link: it is named, and left alone.
    FileNotFoundError
        When the file is nowhere and cannot be fetched. The message says what to put where.
    """
    name, published, count = MNIST_FILES[one_of("split", split, sorted(MNIST_FILES))]
    cached, content = _raw(cache_folder()) / name, None
    if os.environ.get("BOOK_DATA") and (path := _raw(os.environ["BOOK_DATA"]) / name).is_file():
        content = _verified(path, published, ours=False)
    elif cached.is_file():
        content = _verified(cached, published, ours=True)
    if content is None:
        content = _fetch(name, published)
    return np.frombuffer(gzip.decompress(content), np.uint8, offset=16).reshape(count, 28, 28)


def _raw(root):
    return Path(root) / "MNIST" / "raw"  # torchvision's layout


def _verified(path, published, ours):
    """Content of the file at `path`; None when it was a bad one of the cache's own, which is then removed."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found == published:
        return content
    problem = f"{path} has sha256 {found}; expected {published}"
    if not ours or not path.resolve().is_relative_to(cache_folder().resolve()):
        raise ValueError(f"{problem}. It was not fetched by this package, which leaves it alone: put it right by hand")
    warnings.warn(f"{problem}. It is removed and fetched anew", stacklevel=3)
    path.unlink(missing_ok=True)
    return None


def _fetch(name, published):
    """Download a file of MNIST into the cache, and return its content."""
    folder, failures = _raw(cache_folder()), []
    try:
        from torchvision.datasets import MNIST
        from torchvision.datasets.utils import download_url

        folder.mkdir(parents=True, exist_ok=True)
        for mirror in MNIST.mirrors:
            try:
                with whole(folder / name) as part:
                    download_url(mirror + name, part.parent)
                    content = part.read_bytes()
                    if (found := hashlib.sha256(content).hexdigest()) != published:
                        raise OSError(f"{name} has sha256 {found}; expected {published}")
                return content
            except (OSError, HTTPException, RuntimeError) as error:
                failures.append(f"{mirror}{name}: {error}")
    except (OSError, ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        failures.append(str(error))
    raise FileNotFoundError(
        f"MNIST's {name} is neither under $BOOK_DATA ({os.environ.get('BOOK_DATA') or 'not set'}) nor in the cache "
        f"({folder}), and could not be fetched: {'; '.join(failures)}. Download it elsewhere, put it into a folder "
        f"MNIST/raw, and set BOOK_DATA to the folder that holds MNIST"
    )


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
    one_of("which", which, sorted(MOMENT_RECORDS))
    with np.load(io.BytesIO((files("helpers") / "recorded" / MOMENT_RECORDS[which]).read_bytes())) as record:
        total, products, count = record["total"].astype(np.int64), record["products"], int(record["count"])
    n = total.size
    upper = np.zeros((n, n), np.int64)
    upper[np.triu_indices(n)] = products
    full = upper + np.triu(upper, 1).T
    # N sum(x x^T) - sum(x) sum(x)^T stays below 2^49, so the subtraction is exact.
    covariance = (count * full - np.outer(total, total)) / (255.0 * count) ** 2
    return Moments(total / (255.0 * count), covariance, count)


def integer_sums(images):
    """Exact sums of uint8 `images`, (N, 28, 28) or (N, n): `total` (n,) and the upper triangle of `products`, uint32.

    Both fit because 60,000 times 255 squared is below 2^32; float64 holds every partial sum exactly.

    Raises
    ------
    ValueError
        When the images are not uint8, or more than 66,051.
    """
    x = plain_array("images", images, "bytes (N, ...)")
    if x.dtype != np.uint8 or x.ndim < 2 or x.size == 0 or len(x) * 255**2 >= 2**32:
        had = f"dtype {x.dtype} and shape {x.shape}"
        raise ValueError(f"images has {had}; expected uint8, (N, ...), with at most 66,051 rows")
    x = x.reshape(len(x), -1)
    products = np.zeros((x.shape[1], x.shape[1]))
    for i in range(0, len(x), 4096):
        batch = x[i : i + 4096].astype(np.float64)
        products += batch.T @ batch
    total = x.sum(axis=0, dtype=np.uint32)
    return total, products[np.triu_indices(x.shape[1])].astype(np.uint32)


def record_mnist_moments(folder):
    """Write both moment records into `folder`; the same bytes every time with one version of zlib."""
    folder, images = folder_to_write("folder", folder), mnist("train")
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
        write_npz(folder / MOMENT_RECORDS[which], arrays)


def _mnist():
    return mnist("train").reshape(-1, 784)


def _mnist_10000():
    return _mnist()[mnist_subset_indices()]


def _gaussian():
    """10,000 samples of a Gaussian with the mean and the covariance of those images of MNIST."""
    moments = mnist_moments("subset")
    white = np.random.default_rng(0).standard_normal((10_000, moments.mean.size))
    x = moments.mean + white * np.sqrt(moments.eigenvalues) @ moments.eigenvectors.T
    return x.astype(np.float32)


def _breast_cancer():
    """scikit-learn's table of 569 samples, each of its 30 columns standardised."""
    from sklearn.datasets import load_breast_cancer

    x = load_breast_cancer().data
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)


def _dequantised(x, levels):
    """Whole numbers 0 to levels - 1 with uniform noise on top, in [0, 1): a density where there was none."""
    noise = np.random.default_rng(0).random(x.shape, np.float32)
    return np.minimum((x + noise) / np.float32(levels), np.float32(1 - 2**-24))


DATA = {
    "digits": digits_bytes,
    "digits-dequantised": lambda: _dequantised((digits() * 16).astype(np.float32), 17),
    "mnist": _mnist,
    "mnist-dequantised": lambda: _dequantised(_mnist(), 256),
    "mnist-10000": _mnist_10000,
    "mnist-gaussian": _gaussian,
    "patches": lambda: patches(64, 512),
    "patches-8": lambda: patches(8, 10_000).reshape(10_000, -1),
    "breast-cancer": _breast_cancer,
    "faces": celeba.faces,
}


def load(data):
    """Data by its key in `DATA`, or from a file of your own.

    Parameters
    ----------
    data : str
        A key, or the path of a file that ``numpy.save`` wrote, which ends in .npy.

    Returns
    -------
    (N, ...) ndarray
        Of a file its samples as they are where they are uint8 (which training divides by 255), else as float32,
        (N, n).

    Raises
    ------
    ValueError
        When there is no such key, or the file holds no finite numbers of two axes or more.
    FileNotFoundError
        When there is no such file.
    """
    if not (isinstance(data, str) and data.endswith(".npy")):
        return DATA[one_of("data", data, DATA)]()
    with open(data, "rb") as file:
        try:
            x = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"data is {data}, no readable .npy file: {error}") from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "uif" or x.ndim < 2 or x.size == 0:
        had = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"data is {data} with {had}; expected numbers (N, ...), a row for each sample")
    x = x.reshape(len(x), -1)
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # which is refused
            x = x.astype(np.float32)
        refuse_not_finite(f"data in {data}", x)
    return x


def _main(arguments=None):
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Make the MNIST moment records again.")
    parser.add_argument("--out", default=Path(__file__).parent / "recorded", type=Path, help="folder to write into")
    return answered(record_mnist_moments, parser.parse_args(arguments).out)


if __name__ == "__main__":
    sys.exit(_main())
