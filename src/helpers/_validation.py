"""Checks of arguments: each names the argument, says what came and what was expected."""

import numbers

import numpy as np


def finite_array(name, value, shape):
    """Return `value` as a new float64 array of the given shape, or raise ``ValueError``.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : array_like
        Real numbers of any dtype.
    shape : tuple
        One entry per axis: an int to require that length, a str (say ``"N"``) to accept any positive length.
    """
    expected = "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
    if np.iscomplexobj(value):
        raise ValueError(f"{name} is complex; expected real numbers of shape {expected}")
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {value!r:.80}; expected numbers of shape {expected}") from error
    fits = array.ndim == len(shape) and all(
        have == want if isinstance(want, numbers.Integral) else have > 0
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; expected finite numbers of shape {expected}")
    return array


def positive(name, value):
    """Return `value` as a float, or raise ``ValueError`` unless it is a finite number above zero."""
    number = float(finite_array(name, value, ()))
    if number <= 0:
        raise ValueError(f"{name} is {number}; expected a number above 0")
    return number


def integer(name, value, low, high):
    """Return `value` as an int, or raise ``ValueError`` unless it is an integer from `low` to `high`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected an integer from {low} to {high}")
    return int(value)
