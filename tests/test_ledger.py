"""The ledger: what it accepts, what turns it red, and what it writes."""

import json

import numpy as np
import pytest

from helpers.ledger import KINDS, CheckFailed, Ledger, relative_error


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


def test_nothing_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOK_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    Ledger("x").check(5, "m", "algebra", 2.0, 2.0, tolerance=1e-9)
    assert not list(tmp_path.iterdir())
