"""The data sets: recorded moments against the images, checksums, and what happens to damaged files."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import sys
import threading
import warnings

import numpy as np
import pytest

from helpers import _files, data
from helpers.moments import Moments

needs_mnist = pytest.mark.skipif(not os.environ.get("BOOK_DATA"), reason="BOOK_DATA names no folder with MNIST")


def test_digits_are_in_the_unit_interval():
    x = data.digits()
    assert x.shape == (1797, 64) and x.min() == 0 and x.max() == 1


def test_bytes_of_the_digits_are_the_nearest_to_their_grey_levels():
    x = data.digits_bytes()
    assert x.shape == (1797, 64) and x.dtype == np.uint8 and len(np.unique(x)) == 17
    assert np.abs(x / 255 - data.digits()).max() <= 1 / 510 + 1e-15
    assert (x.min(), x.max()) == (0, 255)


def test_patches_are_pieces_of_the_photographs():
    from sklearn.datasets import load_sample_images

    x = data.patches(size=9, count=40, seed=3)
    assert x.shape == (40, 9, 9, 3) and x.dtype == np.uint8 and x.flags.c_contiguous
    photographs = [image.tobytes() for image in load_sample_images().images]
    found = [[patch[0].tobytes() in image for image in photographs] for patch in x]  # its first row of pixels
    assert np.any(found, axis=1).all() and np.any(found, axis=0).all()  # all from a photograph, some from each
    whole = data.patches(size=427, count=2, seed=0)  # the full height: rows are in order, only the column varies
    columns = [image[:, i : i + 427].tobytes() for image in load_sample_images().images for i in range(640 - 427 + 1)]
    assert all(patch.tobytes() in columns for patch in whole)


def test_patches_come_from_their_seed():
    np.testing.assert_array_equal(data.patches(8, 50, seed=1), data.patches(8, 50, seed=1))
    assert (data.patches(8, 50, seed=1) != data.patches(8, 50, seed=2)).any()
    distinct = {patch.tobytes() for patch in data.patches(8, 50)}
    assert len(distinct) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 428}, "size is 428; expected an integer from 1 to 427"),
        ({"size": 0}, "size is 0"),
        ({"size": 8.0}, "size is 8.0"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_patches_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.patches(**arguments)


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
        ((10, [2, 1], 1, None), "seed is None"),
        ((10, [2, 1], 1, "0"), "seed is '0'"),
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
    record = np.load(data.files("helpers") / "recorded" / data.MOMENT_RECORDS["subset"])
    np.testing.assert_array_equal(record["indices"], indices)


def test_integer_sums_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 3), dtype=np.uint8)
    total, products = data.integer_sums(images)
    x = images.reshape(5000, 9).astype(np.int64)
    np.testing.assert_array_equal(total, x.sum(axis=0))
    np.testing.assert_array_equal(products, (x.T @ x)[np.triu_indices(9)])
    assert total.dtype == products.dtype == np.uint32
    for bad in (images / 255, images[0, 0], images[:0], images.tolist(), None, np.ma.array(images), 3):
        with pytest.raises(ValueError, match=r"^images "):
            data.integer_sums(bad)


@needs_mnist
def test_records_are_made_again_bit_for_bit(tmp_path):
    data.record_mnist_moments(tmp_path)
    for name in data.MOMENT_RECORDS.values():
        made, kept = np.load(tmp_path / name), np.load(data.files("helpers") / "recorded" / name)
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


NAME = "train-images-idx3-ubyte.gz"


@contextlib.contextmanager
def serving(folder, monkeypatch):
    """torchvision downloads MNIST from `folder` instead of its mirrors. Yields the paths asked for."""
    from torchvision.datasets import MNIST

    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            if self.path not in asked:  # torchvision asks twice, the first time whether it is redirected
                asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield asked
        server.shutdown()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two images published as MNIST's training set, no BOOK_DATA, an empty cache, and no network; their bytes."""
    from torchvision.datasets import MNIST

    content = gzip.compress(bytes(16) + bytes(range(196)) * 8)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(data, "MNIST_FILES", {"train": (NAME, digest, 2)})
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BOOK_DATA", raising=False)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / NAME).write_bytes(content)
    return content


def place(root, content):
    path = root / "MNIST" / "raw" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_fetched_once_and_then_found(small, tmp_path, monkeypatch):
    with serving(tmp_path / "mirror", monkeypatch) as asked, warnings.catch_warnings():
        warnings.simplefilter("error")
        x = data.mnist()
        assert asked == [f"/{NAME}"]
        asked.clear()
        np.testing.assert_array_equal(data.mnist(), x)
    assert not asked
    assert x.shape == (2, 28, 28) and x.ravel()[:3].tolist() == [0, 1, 2]
    assert [path.name for path in (_files.cache_folder() / "MNIST" / "raw").iterdir()] == [NAME]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-5], lambda c: c[:50] + b"!" + c[51:], lambda c: b"", lambda c: b"<html>"]
)
def test_damaged_file_in_the_cache_is_named_and_fetched_anew(damage, small, tmp_path, monkeypatch):
    path = place(_files.cache_folder(), damage(small))
    with serving(tmp_path / "mirror", monkeypatch) as asked:
        with pytest.warns(UserWarning, match=rf"{NAME} has sha256 .* removed and fetched anew"):
            assert data.mnist().shape == (2, 28, 28)
    assert asked and path.read_bytes() == small


def test_damaged_file_in_the_cache_is_removed_even_if_it_cannot_be_fetched(small):
    path = place(_files.cache_folder(), b"not the images")
    with pytest.warns(UserWarning, match=str(path)), pytest.raises(FileNotFoundError, match="could not be fetched"):
        data.mnist()
    assert not path.exists()


def test_wrong_file_from_the_mirror_is_not_kept(small, tmp_path, monkeypatch):
    (tmp_path / "mirror" / NAME).write_bytes(b"a login page")
    found = hashlib.sha256(b"a login page").hexdigest()
    with (
        serving(tmp_path / "mirror", monkeypatch),
        pytest.raises(FileNotFoundError, match=f"{NAME} has sha256 {found}"),
    ):
        data.mnist()
    assert list((_files.cache_folder() / "MNIST" / "raw").iterdir()) == []


def test_second_mirror_is_asked_when_the_first_is_wrong(small, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    (tmp_path / "mirror" / "old").mkdir()
    (tmp_path / "mirror" / "old" / NAME).write_bytes(b"an older file")
    with serving(tmp_path / "mirror", monkeypatch) as asked:
        monkeypatch.setattr(MNIST, "mirrors", [MNIST.mirrors[0] + folder for folder in ("gone/", "old/", "")])
        assert data.mnist().shape == (2, 28, 28)
    assert asked == [f"/gone/{NAME}", f"/old/{NAME}", f"/{NAME}"]


def test_without_a_network_the_reader_is_told_what_to_put_where(small, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError) as raised:
        data.mnist()
    for part in (NAME, str(tmp_path / "mine"), str(_files.cache_folder()), "127.0.0.1:9", "MNIST/raw", "set BOOK_DATA"):
        assert part in str(raised.value)


def test_without_torchvision_the_reader_is_told_the_same(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(FileNotFoundError, match=r"could not be fetched: .*torchvision.*set BOOK_DATA"):
        data.mnist()


@pytest.mark.parametrize("cache", ["cache", "mine"])
def test_damaged_file_of_the_reader_is_named_and_left_alone(cache, small, tmp_path, monkeypatch):
    """Even where the reader's folder is the cache itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
    mine = tmp_path / "mine" / "posterior-collapse-book"
    path = place(mine, b"not the images")
    monkeypatch.setenv("BOOK_DATA", str(mine))
    with serving(tmp_path / "mirror", monkeypatch) as asked, pytest.raises(ValueError, match=rf"{path} has sha256"):
        data.mnist()
    assert path.read_bytes() == b"not the images" and not asked


@pytest.mark.parametrize("what", ["file", "folder"])
def test_damaged_file_linked_into_the_cache_is_left_alone(what, small, tmp_path, monkeypatch):
    path = place(tmp_path / "mine", b"not the images")
    link = _files.cache_folder() / "MNIST" / "raw" / NAME
    if what == "folder":
        link, target = link.parents[1], path.parents[1]
    else:
        target = path
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with serving(tmp_path / "mirror", monkeypatch), pytest.raises(ValueError, match="leaves it alone"):
        data.mnist()
    assert link.is_symlink() and path.read_bytes() == b"not the images"


def test_cache_may_itself_be_a_link(small, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    path = place(_files.cache_folder(), b"not the images")
    with serving(tmp_path / "mirror", monkeypatch), pytest.warns(UserWarning, match="fetched anew"):
        data.mnist()
    assert path.read_bytes() == small


@pytest.mark.parametrize("split", [None, 0, ["train"], {"train": 1}, np.array(["train", "test"]), b"train", "valid"])
def test_bad_names(split):
    with pytest.raises(ValueError, match=r"split is .*expected one of test, train"):
        data.mnist(split)
    with pytest.raises(ValueError, match=r"which is .*expected one of subset, train"):
        data.mnist_moments(split)


def test_the_records_go_into_a_new_folder(small, tmp_path, monkeypatch, capsys):
    place(tmp_path / "mine", small)
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr(data, "mnist_subset_indices", lambda: np.array([1]))
    assert data._main(["--out", str(tmp_path / "new" / "er")]) == 0
    assert sorted(os.listdir(tmp_path / "new" / "er")) == sorted(data.MOMENT_RECORDS.values())


def test_where_nothing_can_be_written_is_noticed_first(small, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(data, "mnist", lambda split: pytest.fail("the work came first"))
    assert data._main(["--out", str(tmp_path / "file")]) == 1
    assert (
        f"error: folder is {tmp_path / 'file'}; expected a folder that can be written into" in capsys.readouterr().err
    )
    assert (tmp_path / "file").read_text() == "mine"
    for bad in (None, "", b"here", 3):
        with pytest.raises(ValueError, match=r"^folder is"):
            data.record_mnist_moments(bad)


@needs_mnist
def test_missing_files_are_downloaded_into_the_cache(tmp_path, monkeypatch):
    """The real files, by torchvision's own download, from a mirror on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(os.path.join(os.environ["BOOK_DATA"], "MNIST", "raw"), monkeypatch):
        monkeypatch.delenv("BOOK_DATA")
        assert data.mnist("test").shape == (10_000, 28, 28)
    assert (_files.cache_folder() / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").is_file()


def test_dequantised_digits_are_the_digits_with_noise():
    x, grey = data.DATA["digits-dequantised"](), data.digits() * 16
    assert x.shape == (1797, 64) and x.dtype == np.float32 and 0 <= x.min() and x.max() < 1
    np.testing.assert_array_equal(np.floor(x.astype(np.float64) * 17), grey)
    noise = x * 17 - grey
    assert noise.mean() == pytest.approx(0.5, abs=0.005) and noise.var() == pytest.approx(1 / 12, abs=0.002)
    np.testing.assert_array_equal(data.DATA["digits-dequantised"](), x)


def test_data_of_the_forecasts():
    table, patches = data.DATA["breast-cancer"](), data.DATA["patches-8"]()
    assert table.shape == (569, 30) and patches.shape == (10_000, 192) and patches.dtype == np.uint8
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(table.std(axis=0), 1, rtol=1e-5)
    gaussian, moments = data.DATA["mnist-gaussian"](), data.mnist_moments("subset")
    assert gaussian.shape == (10_000, 784) and gaussian.dtype == np.float32
    found = moments.eigenvectors[:, :20].T @ (gaussian - moments.mean).T
    np.testing.assert_allclose(found.var(axis=1), moments.eigenvalues[:20], rtol=0.06)
    assert abs(((found / found.std(axis=1, keepdims=True)) ** 4).mean() - 3) < 0.1


@needs_mnist
def test_a_part_of_mnist_has_its_recorded_moments():
    x = data.DATA["mnist-10000"]()
    np.testing.assert_allclose(x.mean(axis=0) / 255, data.mnist_moments("subset").mean, atol=1e-12)


def test_own_data_is_read_as_it_is_meant(tmp_path):
    x = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for dtype, expected in ((np.uint8, np.uint8), (np.float64, np.float32), (np.int64, np.float32)):
        np.save(tmp_path / "x.npy", x.astype(dtype))
        found = data.load(str(tmp_path / "x.npy"))
        assert found.dtype == expected and found.shape == (2, 12)
        np.testing.assert_array_equal(found, x.reshape(2, 12))
