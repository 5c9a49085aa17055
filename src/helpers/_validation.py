"""Checks of arguments: each names the argument, says what came and what was expected.

Every array enters the package through `plain_array`. It takes what stands for numbers without a doubt: nested
sequences, NumPy arrays and memory maps, data frames, dask and xarray arrays, tensors of any precision on any device.
It refuses, with the remedy, what NumPy would turn into numbers that mean something else: the hidden entries of a
masked array, text, dates, booleans.
"""

import numbers
import os
import tempfile
from pathlib import Path

import numpy as np

EPS = np.finfo(float).eps
RESOLVED = 1e-5  # share of an answer that rounding of the covariance may move
REMEDY = "below rounding: rescale the columns"
WHOLE = (np.ndarray, np.memmap, np.matrix)  # of NumPy's classes those whose entries are all that they mean


def brief(value):
    """A value as messages show it, on one line."""
    return " ".join(repr(value)[:200].split())[:80]


def plain_array(name, value, expected="numbers", truth=False):
    """Return `value` as an ndarray of real numbers in its own precision, or raise ``ValueError``.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : array_like
    expected : str
        What to say was expected.
    truth : bool
        Take booleans too, as uint8: for samples, in which 0 and 1 are what they say.

    Returns
    -------
    ndarray
        Of an integer or floating type; the values themselves where they lie in an ndarray already, and not a copy.
        Python objects, such as fractions or a data frame's columns of mixed types, come as float64, and missing
        ones among them as NaN.
    """
    parts = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise ValueError(f"{name} is a masked array; expected {expected}: fill it, or drop what is masked")
    if isinstance(value, np.ndarray) and type(value) not in WHOLE:
        raise ValueError(f"{name} is a {type(value).__name__}; expected {expected}: take a plain numpy.asarray of it")
    if hasattr(value, "tocsr") or getattr(value, "is_sparse", False):
        remedy = "to_dense()" if hasattr(value, "detach") else "toarray()"
        raise ValueError(f"{name} is sparse; expected {expected}: densify it with {remedy}, or give moments")
    try:
        array = _as_ndarray(value)
    except Exception as error:  # whatever a container raises that is none of numbers
        raise ValueError(f"{name} is {brief(value)}; expected {expected} ({error!s:.120})") from error
    if array.dtype.kind == "c":
        raise ValueError(f"{name} is complex; expected real {expected}")
    if array.dtype.kind == "b" and truth:
        return array.astype(np.uint8)
    if array.dtype.kind == "b":
        raise ValueError(f"{name} is boolean; expected {expected}: write .astype(float) if 0 and 1 are meant")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {brief(value)}; expected {expected}, not {array.dtype}")
    return array


def _as_ndarray(value):
    if hasattr(value, "detach"):  # a tensor, without importing torch; NumPy has no bfloat16
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
    array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
    return _from_objects(array) if array.dtype == object else array


def _from_objects(array):
    """Real numbers that come as Python objects, in float64: fractions, integers of any size, a data frame's NA."""
    numbers_of = np.empty(array.shape)
    for place, entry in np.ndenumerate(array):
        if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
            numbers_of[place] = np.nan
        elif isinstance(entry, numbers.Real) and not isinstance(entry, (bool, np.bool_)):
            numbers_of[place] = float(entry)
        else:
            raise TypeError(f"it holds a {type(entry).__name__}")
    return numbers_of


def samples(name, value):
    """Return `value` as an ndarray (N, ...) of uint8 or float32, all finite, or raise ``ValueError``."""
    expected = "a uint8 or float32 array (N, ...)"
    if isinstance(value, (list, tuple, str, bytes, dict)) or value is None:
        raise ValueError(f"{name} is {type(value).__name__}; expected {expected}")
    array = plain_array(name, value, expected)
    if array.dtype not in (np.uint8, np.float32) or array.ndim < 2 or not array.size:
        remedy = ": uint8 holds 0 to 255 and is used as x / 255, float32 as it is; take .astype of the one you mean"
        remedy = "" if array.dtype in (np.uint8, np.float32) else remedy
        raise ValueError(f"{name} is {array.dtype} array of shape {array.shape}; expected {expected}{remedy}")
    refuse_not_finite(name, array)
    return array


def finite_array(name, value, shape, truth=False, largest=np.inf):
    """Return `value` as a new float64 array of the given shape, or raise ``ValueError``.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value, truth
        As for `plain_array`.
    shape : tuple
        One entry per axis: an int to require that length, a str (say ``"N"``) to accept any positive length.
    largest : float
        Size of an entry up to which what is done with the array stays in float64.
    """
    expected = "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
    array = plain_array(name, value, f"numbers of shape {expected}", truth)
    fits = array.ndim == len(shape) and all(
        have == want if isinstance(want, numbers.Integral) else have > 0
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    array = np.array(array, dtype=np.float64)
    refuse_not_finite(name, array, f"finite numbers of shape {expected}")
    if (reached := np.abs(array).max(initial=0.0)) > largest:
        raise ValueError(f"{name} reaches {reached:.3g}; expected at most {largest:g}: rescale the columns")
    return array


def refuse_not_finite(name, array, expected="finite numbers", first_row=0):
    """Raise ``ValueError`` where an ndarray has NaN or infinity, and name the first place.

    `first_row` is what to add to its row where `array` is a part of what the caller was given.
    """
    bad = ~np.isfinite(array)
    if bad.any():
        place = np.unravel_index(bad.argmax(), array.shape)
        value = array[place]
        at = ", ".join(str(i + first_row * (axis == 0)) for axis, i in enumerate(place))
        where = f", first {value} at [{at}], {bad.sum()} of {array.size} entries" if array.ndim else ""
        raise ValueError(f"{name} contains NaN or infinity{where}; expected {expected}")


def refuse_below_rounding(doubt, size, sigma2, deviations=0.0):
    """Raise ``ValueError`` when what rounding hides could be seen in an answer.

    Parameters
    ----------
    doubt : float
        What `Moments.hidden` would add to an average of squares over sigma2.
    size : float
        That average itself, and n for the terms beside it.
    sigma2 : float
    deviations : array_like
        Those whose squares are averaged, if they were projected: they are rounded, and so are the axes, to some 10 eps.
    """
    with np.errstate(over="ignore"):
        doubt = doubt + ((64 * EPS / np.sqrt(sigma2) * deviations) ** 2).sum()
    if not np.isfinite(size):
        raise ValueError(f"sigma2 is {sigma2:.3g}, and the squares over it exceed float64: rescale the columns")
    if not doubt <= RESOLVED * size:
        raise ValueError(
            f"sigma2 is {sigma2:.3g}, where rounding may be {doubt:.2g} of {size:.2g}: {REMEDY}, or take a larger "
            "sigma2"
        )


def instance(name, value, kind):
    """Return `value`, or raise ``ValueError`` unless it is of the class `kind`, or of one of a tuple of classes."""
    if not isinstance(value, kind):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{name} is {brief(value)}, of type {type(value).__name__}; expected {wanted}")
    return value


def positive(name, value):
    """Return `value` as a float, or raise ``ValueError`` unless it is a finite number above zero."""
    number = float(finite_array(name, value, ()))
    if number <= 0:
        raise ValueError(f"{name} is {number}; expected a number above 0")
    return number


def non_negative(name, value):
    """Return `value` as a float, or raise ``ValueError`` unless it is a finite number from 0."""
    number = float(finite_array(name, value, ()))
    if number < 0:
        raise ValueError(f"{name} is {number}; expected 0 or more")
    return number


def weighed(sigma2, beta):
    """beta sigma2, a float, or raise ``ValueError`` unless both and their product are finite and above 0."""
    return positive("beta times sigma2", positive("beta", beta) * positive("sigma2", sigma2))


def integer(name, value, low, high):
    """Return `value` as an int, or raise ``ValueError`` unless it is an integer from `low` to `high`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, (bool, np.timedelta64)) or not low <= value <= high:
        raise ValueError(f"{name} is {brief(value)}; expected an integer from {low} to {high}")
    return int(value)


def integers(name, values, low, high):
    """Return a list of int, or raise ``ValueError`` unless `values` are integers from `low` to `high`."""
    if isinstance(values, (str, bytes)) or not np.iterable(values):
        raise ValueError(f"{name} is {brief(values)}; expected a list of integers from {low} to {high}")
    return [integer(name, value, low, high) for value in values]


def words(name, value):
    """Return `value`, or raise ``ValueError`` unless it is text, and not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {brief(value)}; expected words")
    return value


def one_of(name, value, options):
    """Return `value`, or raise ``ValueError`` unless it is one of these texts."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} is {brief(value)}; expected one of {', '.join(options)}")
    return value


def path_of(name, value, expected="a path"):
    """Return `value` as a path, or raise ``ValueError`` unless it is one, or text, and not empty."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or isinstance(os.fspath(value), bytes):
        raise ValueError(f"{name} is {brief(value)}; expected {expected}")
    return Path(value)


def file_of(name, value):
    """The same for a path that ends in the name of a file."""
    if not path_of(name, value, "the name of a file").name:
        raise ValueError(f"{name} is {brief(value)}; expected the name of a file")
    return Path(value)


def folder_to_write(name, value):
    """The folder as a path, made where it was not; ``ValueError`` where it cannot be, or cannot be written into."""
    folder = path_of(name, value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"{name} is {folder}; expected a folder that can be written into: {error}") from error


def record_with(record, *variables):
    """Return a record, or raise ``ValueError`` unless it is a data set with these variables."""
    if not hasattr(record, "data_vars"):  # a Dataset, without importing xarray
        raise ValueError(f"record is {brief(record)}, of type {type(record).__name__}; expected Dataset")
    if missing := [name for name in variables if name not in record]:
        raise ValueError(f"record lacks {', '.join(missing)}; expected what a run of a study records")
    return record
