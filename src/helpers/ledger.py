"""The equation ledger: which equation was checked, by what means, to what error.

A chapter opens a `Ledger` and passes every check through it. A check compares two computations of the same
quantity, prints one line that is the same on every machine, and raises when they differ. When the environment
variable ``BOOK_LEDGER`` names a folder, what was checked is also written there as JSON; the book's ledger page
is made from those files.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

KINDS = (
    "algebra",  # another closed form, reached by another route
    "symbolic",  # SymPy on a small case
    "autograd",  # derivatives by automatic differentiation
    "finite differences",
    "quadrature",
    "Monte Carlo",
    "library",  # somebody else's implementation
    "optimisation",  # a numerical optimiser finds the same
    "enumeration",  # every case of a small problem
)


class CheckFailed(AssertionError):
    """Two computations of the same quantity disagree."""


@dataclass(frozen=True)
class Entry:
    """One check of one equation, as the ledger page lists it."""

    equation: int
    notebook: str
    method: str
    kind: str
    error: float
    tolerance: float
    passed: bool


def relative_error(value, reference):
    """Largest absolute difference of two arrays of one shape, relative to the largest entry of `reference`.

    A NaN anywhere, or a difference of shape, makes the error infinite.
    """
    value, reference = np.asarray(value, dtype=float), np.asarray(reference, dtype=float)
    scale = np.max(np.abs(reference), initial=0.0)
    if not scale > 0:
        raise ValueError("reference is all zeros; expected a quantity whose size gives the error a scale")
    if value.shape != reference.shape:
        return float("inf")
    error = np.max(np.abs(value - reference)) / scale
    return float(error) if np.isfinite(error) else float("inf")


def write_rows(variable, name, rows):
    """Write `rows` as ``name.json`` into the folder that the environment variable names, if it names one."""
    folder = os.environ.get(variable)
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there, so that a reader never meets half a file.
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False, encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
    os.replace(file.name, Path(folder) / f"{name}.json")


class Ledger:
    """The checks of one chapter.

    Parameters
    ----------
    notebook : str
        Name of the chapter, without suffix, for instance ``"01_ppca"``.
    """

    def __init__(self, notebook):
        self.notebook = notebook
        self.entries = []

    def check(self, equation, method, kind, value, reference, tolerance):
        """Compare two computations of one quantity of the paper, record the result, raise if they differ.

        Parameters
        ----------
        equation : int
            The paper's number, 1 to 32.
        method : str
            What was compared with what, in a few words.
        kind : str
            One of `KINDS`. The ledger calls an equation verified when checks of two kinds have passed.
        value, reference : array_like
            The two computations, of the same shape. `reference` must not be all zeros, so that the error has a
            scale and a wrong sign or factor cannot hide.
        tolerance : float
            Largest relative error accepted (see `relative_error`); below 0.1.

        Raises
        ------
        CheckFailed
            When the error exceeds the tolerance.
        """
        if equation not in range(1, 33):
            raise ValueError(f"equation is {equation!r}; expected one of the paper's numbers, 1 to 32")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
        if not 0 <= tolerance < 0.1:
            raise ValueError(f"tolerance is {tolerance!r}; expected a relative error from 0 to below 0.1")
        error = relative_error(value, reference)
        entry = Entry(equation, self.notebook, method, kind, error, float(tolerance), error <= tolerance)
        self.entries.append(entry)
        write_rows("BOOK_LEDGER", self.notebook, [asdict(entry) for entry in self.entries])
        if not entry.passed:
            raise CheckFailed(f"Eq. {equation}, {method} ({kind}): relative error {error:.3g}, allowed {tolerance:.3g}")
        bound = "exact" if tolerance == 0 else f"relative error below {tolerance:.0e}"
        print(f"Eq. {equation} · {kind} · {method}: {bound}")
