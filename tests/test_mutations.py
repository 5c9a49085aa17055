"""Every check of an equation turns red when the formula it checks is changed: a sign, a factor, a transpose."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# equation, chapter, file, what stands there, what is put in its place
MUTANTS = [
    (1, "00_preliminaries", "src/helpers/ppca.py", "self.W.T + self.mu + np.sqrt", "self.W.T - self.mu + np.sqrt"),
    (1, "00_preliminaries", "src/helpers/ppca.py", "+ np.sqrt(self.sigma2) * rng", "+ self.sigma2 * rng"),
    (2, "00_preliminaries", "src/helpers/ppca.py", "return -(self._log_normaliser()", "return (self._log_normaliser()"),
    (2, "00_preliminaries", "notebooks/00_preliminaries.py", "x - z @ W.T - mu", "x + z @ W.T - mu"),
    (3, "00_preliminaries", "src/helpers/ppca.py", "return means, self.sigma2 * np", "return means, np"),
    (3, "00_preliminaries", "src/helpers/ppca.py", "return means, self", "return -means, self"),
    (
        4,
        "00_preliminaries",
        "src/helpers/collapse.py",
        "np.expm1(logvar) - logvar) / 2",
        "np.expm1(logvar) + logvar) / 2",
    ),
    (
        4,
        "00_preliminaries",
        "notebooks/00_preliminaries.py",
        "return reconstruction - kl",
        "return reconstruction + kl",
    ),
    (5, "01_ppca", "src/helpers/ppca.py", "Rt, l**2 + self.sigma2", "Rt, l**2 + 2 * self.sigma2"),
    (5, "01_ppca", "src/helpers/ppca.py", "+ (n - k) * np.log(self.sigma2) +", "- (n - k) * np.log(self.sigma2) +"),
    (6, "01_ppca", "src/helpers/ppca.py", "means = np.linalg.solve(M", "means = np.linalg.solve(-M"),
    (6, "01_ppca", "src/helpers/ppca.py", "self.sigma2 * np.linalg.inv(M)", "np.linalg.inv(M)"),
    (7, "01_ppca", "src/helpers/ppca.py", "sigma2 = rest.mean()", "sigma2 = rest.sum() / n"),
    (7, "01_ppca", "src/helpers/ppca.py", "moments.eigenvalues[k:]", "moments.eigenvalues[k - 1 :]"),
    (8, "01_ppca", "src/helpers/ppca.py", "np.maximum(leading - sigma2", "np.maximum(leading + sigma2"),
    (8, "01_ppca", "src/helpers/ppca.py", "PPCA(moments.eigenvectors[:, :k]", "PPCA(moments.eigenvectors.T[:, :k]"),
    (10, "02_stability", "src/helpers/ppca.py", "moments) @ PW) - PW", "moments) @ PW) + PW"),
    (10, "02_stability", "src/helpers/ppca.py", "(U * (l / variances)) @ Rt", "(U * (l / variances)) @ Rt.T"),
    (11, "02_stability", "src/helpers/ppca.py", "eigenvalues[indices] - sigma2", "eigenvalues[indices] + sigma2"),
    (11, "02_stability", "src/helpers/ppca.py", "[:, indices] * np.sqrt(excess)", "[:, indices] * excess"),
    (12, "02_stability", "src/helpers/ppca.py", "- times(EPSPW) - PD", "- 2 * times(EPSPW) - PD"),
    (12, "02_stability", "src/helpers/ppca.py", "PEPW = times(change)", "PEPW = change"),
]


def run(notebook, source):
    """Ledger entries and errors of a chapter run on the package in `source`."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    environment.pop("BOOK_LEDGER", None)
    command = [sys.executable, str(ROOT / "tests" / "run_cells.py"), str(notebook)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@functools.cache
def unchanged(chapter):
    result = run(ROOT / "notebooks" / f"{chapter}.py", ROOT / "src")
    assert not result["errors"] and all(entry["passed"] for entry in result["entries"])
    return result["entries"]


@pytest.mark.parametrize(("equation", "chapter", "file", "old", "new"), MUTANTS)
def test_changed_formula_turns_every_check_red(equation, chapter, file, old, new, tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    text = (tmp_path / file).read_text()
    assert old in text, f"{file} no longer contains {old!r}"
    (tmp_path / file).write_text(text.replace(old, new))
    expected = {(e["method"], e["kind"]) for e in unchanged(chapter) if e["equation"] == equation}
    assert len({kind for _, kind in expected}) >= 2
    result = run(tmp_path / "notebooks" / f"{chapter}.py", tmp_path / "src")
    green = {(e["method"], e["kind"]) for e in result["entries"] if e["equation"] == equation and e["passed"]}
    assert not green & expected


def test_every_equation_has_a_mutant():
    written = {e["equation"] for path in sorted((ROOT / "notebooks").glob("*.py")) for e in unchanged(path.stem)}
    assert written <= {mutant[0] for mutant in MUTANTS}
