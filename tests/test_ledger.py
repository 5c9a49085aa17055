"""The ledger: what it accepts, what turns it red, and what it writes."""

import json
from fractions import Fraction

import flint
import ledger_page
import numpy as np
import pytest
import sympy as sp

from helpers.ledger import KINDS, CheckFailed, Ledger, relative_error, write_rows


def test_a_passing_check_prints_the_same_line_everywhere(capsys):
    Ledger("x").check(5, "two ways", "algebra", [1.0, 2.0 + 1e-13], [1.0, 2.0], tolerance=1e-10)
    assert capsys.readouterr().out == "Eq. 5 · algebra · two ways: relative error below 1e-10\n"


def test_an_exact_check_says_so(capsys):
    Ledger("x").check(12, "signs", "enumeration", [True, False], [True, False], tolerance=0)
    assert capsys.readouterr().out.endswith(": exact\n")


A = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize("wrong", [-A, 1.2 * A, A.T, A + 0.5, A * np.nan, A[:1], A.ravel()])
def test_wrong_values_raise(wrong):
    ledger = Ledger("x")
    with pytest.raises(CheckFailed, match=r"Eq\. 5, two ways"):
        ledger.check(5, "two ways", "algebra", wrong, A, tolerance=0.09)
    assert not ledger.entries[0].passed


def test_error_is_relative_to_the_largest_entry():
    assert relative_error([1.0, 99.0], [0.0, 100.0]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "m", "algebra", 1, 1, 1e-9), "equation is 0"),
        ((33, "m", "algebra", 1, 1, 1e-9), "equation is 33"),
        ((5, "m", "by eye", 1, 1, 1e-9), "kind is 'by eye'"),
        ((5, "m", "algebra", 1, 1, 0.5), "tolerance is 0.5"),
        ((5, "m", "algebra", 1, 1, np.nan), "tolerance is nan"),
        ((5, "m", "algebra", [0, 0], [0, 0], 1e-9), "reference is all zeros"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ledger("x").check(*arguments)


def test_entries_are_written_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_LEDGER", str(tmp_path / "ledger"))
    ledger = Ledger("01_ppca")
    for kind in KINDS:
        ledger.check(5, "m", kind, 2.0, 2.0, tolerance=1e-9)
    written = json.loads((tmp_path / "ledger" / "01_ppca.json").read_text())
    assert [entry["kind"] for entry in written] == list(KINDS)
    assert set(written[0]) == {"equation", "notebook", "method", "kind", "error", "tolerance", "passed"}
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["01_ppca.json"]


@pytest.mark.parametrize("name", [None, "", 3, b"x", ["01_ppca"], "../01_ppca", "a/b"])
def test_a_chapter_has_a_name_that_a_file_can_have(name, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_LEDGER", str(tmp_path))
    with pytest.raises(ValueError, match=r"^(name|notebook) is"):
        Ledger(name).check(5, "m", "algebra", 2.0, 2.0, tolerance=1e-9)
    assert not list(tmp_path.iterdir())


def test_rows_are_dicts():
    for rows in (None, "rows", [1], {"a": 1}, (row for row in [{}])):
        with pytest.raises(ValueError, match=r"^rows is .*expected a list of dict"):
            write_rows("BOOK_LEDGER", "x", rows)


@pytest.mark.parametrize("bad", [None, ["=="], {"==": 1}, np.array(["==", "!="]), b"=="])
def test_names_that_are_no_text_are_refused(bad):
    with pytest.raises(ValueError, match="relation is"):
        Ledger("x").certify("a claim", 1, bad, 1)
    with pytest.raises(ValueError, match="kind is"):
        Ledger("x").check(5, "m", bad, 1, 1, 1e-9)
    with pytest.raises(ValueError, match="erratum is"):
        Ledger("x").certify("a claim", 1, "==", 1, erratum=bad)


def test_a_list_is_not_compared_with_a_number():
    with pytest.raises(CheckFailed, match="it does not hold"):
        Ledger("x").certify("a claim", [1, 2], "==", 1)


def test_nothing_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOK_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    Ledger("x").check(5, "m", "algebra", 2.0, 2.0, tolerance=1e-9)
    assert not list(tmp_path.iterdir())


HALF = sp.Rational(1, 2)


@pytest.mark.parametrize(
    ("left", "relation", "right", "arithmetic"),
    [
        (712, "==", 712, "integer"),
        (Fraction(1, 3), "<", Fraction(1, 2), "rational"),
        (flint.fmpq(1, 3), ">=", flint.fmpq(1, 3), "rational"),
        (sp.Matrix([[1, HALF]]), "!=", sp.Matrix([[1, 0]]), "rational"),
        ((sp.sqrt(5) - 1) ** 2, "==", 6 - 2 * sp.sqrt(5), "algebraic"),
        (sp.log(2), ">", HALF, "algebraic"),
        (flint.arb(2).sqrt(), "<", flint.arb(3).sqrt(), "ball"),
        ([1, Fraction(3, 2)], "==", [1, Fraction(3, 2)], "rational"),
    ],
)
def test_a_certificate_decides_exactly(left, relation, right, arithmetic, capsys):
    ledger = Ledger("x")
    ledger.certify("a claim", left, relation, right)
    assert ledger.certificates[0].passed and ledger.certificates[0].arithmetic == arithmetic
    assert capsys.readouterr().out.startswith(f"Exact · {arithmetic} · a claim: ")


@pytest.mark.parametrize(
    ("left", "relation", "right"),
    [
        (711, "==", 712),
        (sp.sqrt(2) ** 2, "!=", sp.Integer(2)),
        ([1, 2], "==", [1]),
        (flint.arb(1, 0.5), "<", flint.arb(1.2)),  # the ball reaches beyond
        (flint.arb(1, 0.5), "==", flint.arb(1, 0.5)),
        (sp.Symbol("x"), ">", sp.Integer(0)),  # undecided is not proved
    ],
)
def test_what_does_not_provably_hold_raises(left, relation, right):
    ledger = Ledger("x")
    with pytest.raises(CheckFailed, match="a claim: it does not hold"):
        ledger.certify("a claim", left, relation, right)
    assert not ledger.certificates[0].passed


@pytest.mark.parametrize("rounded", [1.0, True, np.float64(1), np.eye(2), sp.Float(1), sp.nan, "1", [], None])
def test_a_certificate_refuses_what_may_be_rounded(rounded):
    with pytest.raises(ValueError, match=r"left is .*expected integers, fractions"):
        Ledger("x").certify("a claim", rounded, "==", 1)


def test_certificates_reach_the_ledger_and_their_row_of_the_errata(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_LEDGER", str(tmp_path))
    ledger = Ledger("02_stability")
    ledger.check(5, "m", "algebra", 2.0, 2.0, tolerance=1e-9)
    ledger.certify("two is two", 2, "==", 2, erratum="is three")
    found = ledger_page.certificates(tmp_path)
    assert len(ledger_page.merge(tmp_path)) == 1 and [one["claim"] for one in found] == ["two is two"]
    table = ledger_page.certificates_table(found)
    assert "`2 == 2`" in table and "notebooks/02_stability.ipynb" in table
    page = "| place | printed | shown in |\n|---|---|---|\n| Eq. 1 | is three | [Eq. 1](x) |\n| Eq. 2 | b | [y](y) |\n"
    marked = ledger_page.mark_exact(page, found)
    assert marked.splitlines()[2] == "| Eq. 1 | is three | [Eq. 1](x), **exact** |" and marked.count("exact") == 1
    with pytest.raises(SystemExit, match="2 rows with 'is three'"):
        ledger_page.mark_exact(page + "| Eq. 3 | is three | [z](z) |\n", found)
