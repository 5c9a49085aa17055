"""The package's front door: every container of numbers comes in whole or is refused by name, with the remedy."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from helpers._validation import (
    file_of,
    finite_array,
    folder_to_write,
    instance,
    integer,
    integers,
    non_negative,
    one_of,
    path_of,
    plain_array,
    positive,
    record_with,
    refuse_below_rounding,
    samples,
    weighed,
    words,
)

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
SAME = {
    "list": X.tolist(),
    "integers": X.astype(int),
    "uint8": X.astype(np.uint8),
    "float16": X.astype(np.float16),
    "longdouble": X.astype(np.longdouble),
    "Fortran order": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "big-endian": X.astype(">f8"),
    "matrix": np.matrix(X),
    "fractions": [[Fraction(v) for v in row] for row in X.tolist()],
    "objects": X.astype(object),
    "frame": pd.DataFrame(X, index=["a", "b", "c"]),
    "nullable": pd.DataFrame(X).astype("Int64"),
    "mixed columns": pd.DataFrame({"a": pd.array([1, 3, 5], dtype="Int64"), "b": X[:, 1]}),
    "tensor": torch.tensor(X),
    "parameter": torch.nn.Parameter(torch.tensor(X)),
    "bfloat16": torch.tensor(X).bfloat16(),
    "half": torch.tensor(X).half(),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_stands_for_numbers_enters_exactly(kind):
    found = finite_array("x", SAME[kind], ("N", 2))
    assert type(found) is np.ndarray and found.dtype == np.float64
    np.testing.assert_array_equal(found, X)


def test_a_memory_map_and_a_dask_array_enter_exactly(tmp_path):
    dask_array = pytest.importorskip("dask.array")
    mapped = np.memmap(tmp_path / "x", dtype=np.float64, mode="w+", shape=X.shape)
    mapped[:] = X
    for lazy in (mapped, dask_array.from_array(X, chunks=2)):
        np.testing.assert_array_equal(finite_array("x", lazy, ("N", 2)), X)


class Tagged(np.ndarray):
    """An array whose class might mean anything, say a unit."""


REFUSED = {
    "masked": (np.ma.masked_equal(X, 4.0), "x is a masked array.*fill it"),
    "list of masked": ([np.ma.masked_equal(X[0], 2.0)], "x is a masked array"),
    "subclass": (X.view(Tagged), "x is a Tagged.*numpy.asarray"),
    "sparse": (scipy.sparse.csr_matrix(X), "x is sparse.*toarray"),
    "sparse tensor": (torch.tensor(X).to_sparse(), "x is sparse.*to_dense"),
    "meta tensor": (torch.tensor(X, device="meta"), "x is tensor"),
    "complex": (X + 1j, "x is complex"),
    "complex tensor": (torch.tensor(X + 1j), "x is complex"),
    "boolean": (X > 2, "x is boolean.*astype"),
    "boolean tensor": (torch.tensor(X > 2), "x is boolean"),
    "text": ([["1", "2"]], "x is .*expected numbers"),
    "bytes": ([[b"1", b"2"]], "x is .*expected numbers"),
    "text column": (pd.DataFrame({"a": ["1", "2"]}), "x is .*expected numbers"),
    "boolean column": (pd.DataFrame({"a": [True, False], "b": [1.0, 2.0]}), "x is .*holds a bool"),
    "dates": (np.array([["2019-11-06"]], "datetime64[D]"), "datetime64"),
    "durations": (np.array([[1]], "timedelta64[s]"), "timedelta64"),
    "structured": (np.zeros((2, 2), [("a", float)]), "x is .*expected numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "x is .*expected numbers"),
    "decimal": ([[Decimal("0.1")]], "holds a Decimal"),
    "huge": ([[10**400]], "x is .*expected numbers"),
    "nothing": (None, r"x has shape \(\)"),
    "dict": ({"a": 1}, "holds a dict"),
    "generator": ((row for row in X), "holds a generator"),
    "axes": (X[0], r"x has shape \(2,\); expected \(N, 2\)"),
    "empty": (X[:0], r"x has shape \(0, 2\)"),
    "missing": (pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1, 2]}), r"first nan at \[1, 0\]"),
    "NaN": (np.where(X == 4, np.nan, X), r"x contains NaN or infinity, first nan at \[1, 1\], 1 of 6"),
    "infinity": (np.where(X > 4, -np.inf, X), r"first -inf at \[2, 0\], 2 of 6"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_might_mean_something_else_is_refused_by_name(kind):
    value, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        finite_array("x", value, ("N", 2))


def test_booleans_are_samples_where_asked_for():
    for truth in (X > 2, torch.tensor(X > 2)):
        assert plain_array("x", truth, truth=True).dtype == np.uint8
        np.testing.assert_array_equal(finite_array("x", truth, ("N", 2), truth=True), X > 2)


def test_a_plain_array_is_not_copied():
    assert plain_array("x", X) is X


def test_numbers():
    assert positive("s", np.float32(2)) == positive("s", torch.tensor(2.0)) == 2.0
    assert non_negative("beta", 0) == 0.0 and integer("k", np.int64(3), 1, 3) == 3
    for bad in (True, "1", 1j, [1.0], None, np.nan, -1.0, np.datetime64("2019-11-06")):
        with pytest.raises(ValueError, match=r"^s "):
            positive("s", bad)
        with pytest.raises(ValueError, match=r"^beta "):
            non_negative("beta", bad)
    for bad in (True, 1.0, "1", 0, 4, None, 10**400):
        with pytest.raises(ValueError, match=r"^k is"):
            integer("k", bad, 1, 3)
    with pytest.raises(ValueError, match="m is 1, of type int; expected dict or list"):
        instance("m", 1, (dict, list))


def test_several_integers():
    assert (
        integers("epochs", (epoch for epoch in (np.int64(2), 3)), 1, 3) == [2, 3] and integers("epochs", [], 1, 3) == []
    )
    for bad in ([0], [4], [1.0], [True], "12", b"1", None, 1, {"a": 1}):
        with pytest.raises(ValueError, match=r"^epochs is"):
            integers("epochs", bad, 1, 3)


def test_samples_are_bytes_or_float32():
    for good in (np.zeros((2, 3), np.uint8), torch.ones(2, 3, 4), pd.DataFrame(np.ones((2, 3), np.float32))):
        assert samples("x", good).shape == tuple(good.shape)
    nan = np.full((2, 3), np.nan, np.float32)
    for bad in ([[1, 2]], None, "x", np.zeros((2, 3)), np.zeros(3, np.uint8), np.zeros((0, 3), np.uint8), nan):
        with pytest.raises(ValueError, match=r"^x (is|contains)"):
            samples("x", bad)


def test_a_product_that_leaves_float64_is_refused():
    assert weighed(0.5, Fraction(1, 2)) == 0.25
    for sigma2, beta in ((1e-300, 1e-300), (1e300, 1e300)):
        with pytest.raises(ValueError, match=r"^beta times sigma2"):
            weighed(sigma2, beta)


def test_entries_too_large_for_what_follows_are_refused():
    assert finite_array("W", [-3.0, 2.0], (2,), largest=3).tolist() == [-3.0, 2.0]
    with pytest.raises(ValueError, match=r"W reaches 4; expected at most 3: rescale the columns"):
        finite_array("W", [-4.0, 2.0], (2,), largest=3)


@pytest.mark.parametrize(("doubt", "refused"), [(0.9e-5, False), (1.1e-5, True), (np.nan, True), (np.inf, True)])
def test_what_rounding_hides_is_refused_from_a_share_of_the_answer(doubt, refused):
    if not refused:
        return refuse_below_rounding(doubt, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"sigma2 is 0.5.*below rounding: rescale the columns"):
        refuse_below_rounding(doubt, 1.0, 0.5)


def test_words_and_choices():
    assert words("claim", "a") == one_of("kind", "a", ("a", "b")) == "a"
    for bad in ("", None, 1, b"a", ["a"]):
        with pytest.raises(ValueError, match=r"claim is .*; expected words"):
            words("claim", bad)
        with pytest.raises(ValueError, match=r"kind is .*; expected one of a, b"):
            one_of("kind", bad, {"a": 1, "b": 2})


def test_paths_and_folders(tmp_path):
    assert path_of("path", "a/b").name == file_of("path", tmp_path / "b").name == "b"
    assert folder_to_write("folder", tmp_path / "new" / "er").is_dir()
    (tmp_path / "file").touch()
    for bad in ("", None, 1, b"a", True):
        for check in (path_of, file_of, folder_to_write):
            with pytest.raises(ValueError, match=r"^p is "):
                check("p", bad)
    for bad in ("/", "."):
        with pytest.raises(ValueError, match="expected the name of a file"):
            file_of("path", bad)
    with pytest.raises(ValueError, match="expected a folder that can be written into"):
        folder_to_write("folder", tmp_path / "file")


def test_a_record_has_its_variables():
    record = xr.Dataset({"elbo": ("member", [1.0])})
    assert record_with(record, "elbo") is record
    with pytest.raises(ValueError, match="record lacks kl, sse; expected"):
        record_with(record, "kl", "elbo", "sse")
    for bad in (None, {"elbo": 1}, record.elbo):
        with pytest.raises(ValueError, match=r"record is .*; expected Dataset"):
            record_with(bad, "elbo")
