"""The data sets: recorded moments against the images, checksums, and what happens to damaged files."""

import functools
import gzip
import http.server
import os
import threading

import numpy as np
import pytest

from helpers import data
from helpers.moments import Moments

needs_mnist = pytest.mark.skipif(not os.environ.get("BOOK_DATA"), reason="BOOK_DATA names no folder with MNIST")


def test_digits_are_in_the_unit_interval():
    x = data.digits()
    assert x.shape == (1797, 64) and x.min() == 0 and x.max() == 1


def test_synthetic_data_have_the_covariance_asked_for():
    eigenvalues = [4.0, 2.0, 0.5, 0.5, 0.5]
    x, W, mu, sigma2 = data.synthetic_ppca(200_000, eigenvalues, 2, seed=0, mean=np.arange(5))
    truth = W @ W.T + sigma2 * np.eye(5)
    np.testing.assert_allclose(np.linalg.eigvalsh(truth)[::-1], eigenvalues, rtol=1e-12)
    moments = Moments.from_samples(x)
    np.testing.assert_allclose(moments.covariance, truth, atol=0.05)
    np.testing.assert_allclose(moments.mean, mu, atol=0.02)
    np.testing.assert_array_equal(x, data.synthetic_ppca(200_000, eigenvalues, 2, seed=0, mean=np.arange(5))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, [2, 1, 0.5], 1, 0), "the last 2 of them equal"),
        ((10, [1, 2, 2], 1, 0), "descending"),
        ((10, [2, 1, 0], 2, 0), "the smallest of eigenvalues is 0.0"),
        ((10, [2, 1], 2, 0), "k is 2"),
        ((0, [2, 1], 1, 0), "count is 0"),
        ((10, [np.inf, 1], 1, 0), "eigenvalues contains NaN or infinity"),
    ],
)
def test_bad_synthetic_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.synthetic_ppca(*arguments)


def test_records_hold_what_they_say():
    train, subset = data.mnist_moments("train"), data.mnist_moments("subset")
    assert (train.count, subset.count) == (60_000, 10_000)
    assert np.count_nonzero(train.eigenvalues) == 712
    # Ten thousand of sixty thousand images: the same population, so nearly the same spectrum.
    np.testing.assert_allclose(subset.eigenvalues[:20], train.eigenvalues[:20], rtol=0.06)
    with pytest.raises(ValueError, match="which is 'all'"):
        data.mnist_moments("all")


def test_subset_is_drawn_without_replacement_from_its_seed():
    indices = data.mnist_subset_indices()
    assert indices.size == len(set(indices)) == 10_000 and indices.max() < 60_000
    record = np.load(data.files("helpers") / "records" / data.MOMENT_RECORDS["subset"])
    np.testing.assert_array_equal(record["indices"], indices)


def test_integer_sums_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 3), dtype=np.uint8)
    total, products = data.integer_sums(images)
    x = images.reshape(5000, 9).astype(np.int64)
    np.testing.assert_array_equal(total, x.sum(axis=0))
    np.testing.assert_array_equal(products, (x.T @ x)[np.triu_indices(9)])
    assert total.dtype == products.dtype == np.uint32
    with pytest.raises(ValueError, match="expected uint8"):
        data.integer_sums(images / 255)


@needs_mnist
def test_records_are_made_again_bit_for_bit(tmp_path):
    data.record_mnist_moments(tmp_path)
    for name in data.MOMENT_RECORDS.values():
        made, kept = np.load(tmp_path / name), np.load(data.files("helpers") / "records" / name)
        assert set(made) == set(kept)
        for key in kept:
            np.testing.assert_array_equal(made[key], kept[key], strict=True)


@needs_mnist
def test_recorded_moments_are_those_of_the_images():
    x = data.mnist("train").reshape(60_000, 784)
    direct, recorded = Moments.from_samples(x), data.mnist_moments()
    np.testing.assert_allclose(recorded.mean, direct.mean / 255, rtol=1e-12)
    np.testing.assert_allclose(recorded.covariance, direct.covariance / 255**2, atol=1e-14)


@needs_mnist
def test_both_splits_have_their_shapes():
    assert data.mnist("train").shape == (60_000, 28, 28)
    assert data.mnist("test").shape == (10_000, 28, 28)
    with pytest.raises(ValueError, match="split is 'valid'"):
        data.mnist("valid")


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A folder shaped like the cache, holding a file that is no MNIST; both places to look are redirected."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BOOK_DATA", raising=False)

    def place(root):
        path = root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(b"not the images"))
        return path

    return place


def test_damaged_file_in_the_cache_is_named_and_removed(damaged):
    path = damaged(data.cache_folder())
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz has sha256 .* expected 440fcabf"):
        data.mnist()
    assert not path.exists()


def test_damaged_file_of_the_reader_is_named_and_left_alone(damaged, tmp_path, monkeypatch):
    path = damaged(tmp_path / "mine")
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "mine"))
    with pytest.raises(ValueError, match="expected 440fcabf"):
        data.mnist()
    assert path.exists()


@needs_mnist
def test_missing_files_are_downloaded_into_the_cache(tmp_path, monkeypatch):
    """torchvision's own download, from a mirror on this machine."""
    from torchvision.datasets import MNIST

    folder = os.path.join(os.environ["BOOK_DATA"], "MNIST", "raw")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("BOOK_DATA")
        assert data.mnist("test").shape == (10_000, 28, 28)
        server.shutdown()
    assert (data.cache_folder() / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").is_file()
