"""The equation ledger: which equation was checked, by what means, to what error; and what was proved exactly.

Serves chapters 00 to 08 and 12. Each opens a `Ledger` and passes every check through it. A check compares two
computations of the same quantity, prints one line that is the same on every machine, and raises when they differ. A
certificate decides a claim in exact arithmetic, with no tolerance. When the environment variable ``BOOK_LEDGER`` names
a folder, both are also written there as JSON; the book's ledger and errata pages are made from those files.
"""

import json
import operator
import os
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from helpers._files import whole
from helpers._validation import brief, instance, integer, one_of, plain_array, words

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

RELATIONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# From the simplest on. An algebraic number is one that SymPy keeps as an expression, say with roots or logarithms;
# a ball is an interval that provably holds the number, as FLINT computes with it.
ARITHMETIC = ("integer", "rational", "algebraic", "ball")


class CheckFailed(AssertionError):
    """Two computations of the same quantity disagree, or a claim does not hold."""


@dataclass(frozen=True)
class Entry:
    """One check of one equation, as the ledger page lists it.

    Attributes
    ----------
    equation : int
        The paper's number.
    notebook, method, kind : str
        The chapter, what was compared with what, and which of `KINDS` that is.
    error, tolerance : float
        Relative error found, and accepted.
    passed : bool
    """

    equation: int
    notebook: str
    method: str
    kind: str
    error: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Certificate:
    """One claim that was decided exactly, as the ledger page lists it.

    Attributes
    ----------
    claim, notebook : str
        What is proved, and in which chapter.
    arithmetic : str
        One of `ARITHMETIC`.
    evidence : str
        The two numbers and the relation between them, as text.
    erratum : str
        Words of the row of the errata page that it decides; "" for none.
    passed : bool
    """

    claim: str
    notebook: str
    arithmetic: str
    evidence: str
    erratum: str
    passed: bool


def relative_error(value, reference):
    """Largest absolute difference of two arrays of one shape, relative to the largest entry of `reference`.

    A NaN in `value`, or a difference of shape, makes the error infinite.

    Parameters
    ----------
    value, reference : array_like
        The reference without NaN, and not all zeros.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        When the reference has NaN or is all zeros, so that there is no scale.
    """
    value, reference = _numbers("value", value), _numbers("reference", reference)
    if np.isnan(reference).any():
        raise ValueError("reference contains NaN; expected numbers")
    scale = np.max(np.abs(reference), initial=0.0)
    if not scale > 0:
        raise ValueError("reference is all zeros; expected a quantity whose size gives the error a scale")
    if value.shape != reference.shape:
        return float("inf")
    error = np.max(np.abs(value - reference)) / scale
    return float(error) if np.isfinite(error) else float("inf")


def _numbers(name, value):
    """Real numbers or truth values (signs, verdicts) as float64."""
    try:
        truth = np.asarray(value).dtype.kind == "b"
    except Exception:  # it is for plain_array to say what is wrong with it
        truth = False
    return np.asarray(value, dtype=float) if truth else plain_array(name, value).astype(float)


def _arithmetic_of(name, value):
    """Which of `ARITHMETIC` a value is exact in, the widest for a list or tuple; a floating-point one is refused."""
    if isinstance(value, (list, tuple)) and value:
        return max((_arithmetic_of(name, part) for part in value), key=ARITHMETIC.index)
    if isinstance(value, int) and not isinstance(value, bool):
        return "integer"
    if isinstance(value, Fraction):
        return "rational"
    library, kind = type(value).__module__.split(".")[0], type(value).__name__
    if library == "flint" and kind.startswith(("fmpz", "fmpq", "arb")):
        return {"fmpz": "integer", "fmpq": "rational"}.get(kind[:4], "ball")
    if library == "sympy":
        sympy = sys.modules["sympy"]
        entries = list(value) if isinstance(value, sympy.MatrixBase) else [value]
        if all(isinstance(entry, sympy.Expr) and not entry.atoms(sympy.Float, sympy.nan) for entry in entries):
            whole = (entry.is_Integer for entry in entries), (entry.is_Rational for entry in entries)
            return "integer" if all(whole[0]) else "rational" if all(whole[1]) else "algebraic"
    raise ValueError(f"{name} is {brief(value)}, a {kind}; expected integers, fractions, exact SymPy numbers or balls")


def _holds(left, relation, right):
    """Whether a relation provably holds, entry by entry in lists; of balls, whatever the points meant are."""
    if isinstance(left, (list, tuple)) != isinstance(right, (list, tuple)):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(_holds(a, relation, b) for a, b in zip(left, right, strict=True))
    if type(left).__module__.startswith("sympy") and relation in ("==", "!="):
        sympy = sys.modules["sympy"]
        difference = sympy.simplify(left - right)
        zero = difference.is_zero_matrix if isinstance(difference, sympy.MatrixBase) else difference == 0
        return zero if relation == "==" else zero is False
    try:
        return bool(RELATIONS[relation](left, right))
    except TypeError:  # SymPy cannot decide it
        return False


def say(line):
    """Print a line, with escapes for letters that the output's encoding lacks: a passed check must not raise."""
    try:
        print(words("line", line))
    except UnicodeEncodeError as error:
        print(line.encode(error.encoding, "backslashreplace").decode(error.encoding))


def write_rows(variable, name, rows):
    """Write rows as a JSON file into the folder that an environment variable names, if it names any.

    Parameters
    ----------
    variable : str
        The environment variable.
    name : str
        Of the file, without folder and suffix.
    rows : list of dict

    Raises
    ------
    ValueError
        When the rows are no list of dict, or the name has a folder in it.
    """
    words("variable", variable)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"rows is {brief(rows)}; expected a list of dict")
    if Path(words("name", name)).name != name:
        raise ValueError(f"name is {brief(name)}; expected that of a file, without a folder")
    folder = os.environ.get(variable)
    if not folder:
        return
    with whole(Path(folder) / f"{name}.json") as part:  # a reader never meets half a file
        part.write_text(json.dumps(rows, indent=1), encoding="utf-8")


class Ledger:
    """The checks of one chapter.

    Parameters
    ----------
    notebook : str
        Name of the chapter, without suffix, for instance ``"01_ppca"``.

    Examples
    --------
    >>> ledger = Ledger("00_example")
    >>> ledger.check(4, "log 2, by a series and by the library", "library", 0.6931471805, 0.6931471806, tolerance=1e-9)
    Eq. 4 · library · log 2, by a series and by the library: relative error below 1e-09
    >>> ledger.certify("a half and a third are less than one", Fraction(1, 2) + Fraction(1, 3), "<", 1)
    Exact · rational · a half and a third are less than one: 5/6 < 1
    """

    def __init__(self, notebook):
        self.notebook = words("notebook", notebook)
        self.entries, self.certificates = [], []

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
        ValueError
            When an argument is bad: a tolerance from 0.1, say, or a reference of zeros.
        """
        integer("equation", equation, 1, 32)
        one_of("kind", kind, KINDS)
        words("method", method)
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 0.1:
            raise ValueError(f"tolerance is {tolerance!r}; expected a relative error from 0 to below 0.1")
        error = relative_error(value, reference)
        entry = Entry(equation, self.notebook, method, kind, error, float(tolerance), error <= tolerance)
        self.entries.append(entry)
        write_rows("BOOK_LEDGER", self.notebook, [asdict(entry) for entry in self.entries])
        if not entry.passed:
            raise CheckFailed(f"Eq. {equation}, {method} ({kind}): relative error {error:.3g}, allowed {tolerance:.3g}")
        bound = "exact" if tolerance == 0 else f"relative error below {tolerance:.0e}"
        say(f"Eq. {equation} · {kind} · {method}: {bound}")

    def certify(self, claim, left, relation, right, erratum=""):
        """Decide a claim exactly: compare two numbers that carry no rounding, record the outcome, raise if it fails.

        Parameters
        ----------
        claim : str
            What is proved, a statement in a few words.
        left, right : int, fractions.Fraction, SymPy expression or matrix without floating-point numbers, FLINT
            number, or a list of such; the two of the same kind.
            FLINT's balls (``flint.arb``) satisfy an inequality only where every point of the one does with every
            point of the other.
        relation : {"==", "!=", "<", "<=", ">", ">="}
            In lists, of every entry to its partner.
        erratum : str
            Words that one row of the errata page has and no other: the row is then marked "exact".

        Raises
        ------
        CheckFailed
            When the relation does not provably hold.
        """
        words("claim", claim)
        instance("erratum", erratum, str)
        one_of("relation", relation, RELATIONS)
        kinds = _arithmetic_of("left", left), _arithmetic_of("right", right)
        arithmetic = max(kinds, key=ARITHMETIC.index)
        evidence = f"{_shown(left)} {relation} {_shown(right)}"
        certificate = Certificate(claim, self.notebook, arithmetic, evidence, erratum, _holds(left, relation, right))
        self.certificates.append(certificate)
        write_rows("BOOK_LEDGER", f"certificates-{self.notebook}", [asdict(each) for each in self.certificates])
        if not certificate.passed:
            raise CheckFailed(f"{claim}: it does not hold that {evidence}")
        say(f"Exact · {arithmetic} · {claim}: {evidence}")


def _shown(value):
    """A number as the reader is to see it, long lists by their ends."""
    if isinstance(value, (list, tuple)):
        parts = [_shown(part) for part in value]
        return "(" + ", ".join(parts if len(parts) <= 8 else [*parts[:3], "…", *parts[-2:]]) + ")"
    if type(value).__name__ == "arb":
        return value.str(12)
    return str(value.tolist() if hasattr(value, "tolist") and not isinstance(value, int) else value)
