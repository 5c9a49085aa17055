"""Every check of an equation turns red when the formula it checks is changed: a sign, a factor, a transpose."""

import functools
import multiprocessing
import re
import shutil
import sys

import nbformat
import pairs
import pytest
import run_cells
from pairs import ROOT

# Chapters run in processes forked from one that has imported the libraries, not the package: a third of their time.
FORKS = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
FORKS.set_forkserver_preload(["torch", "sympy", "flint", "scipy.stats", "matplotlib.pyplot", "sklearn.datasets"])

# equation, chapter, file, what stands there, what is put in its place
MUTANTS = [
    (1, "00_preliminaries", "src/helpers/ppca.py", "self.W.T + self.mu + np.sqrt", "self.W.T - self.mu + np.sqrt"),
    (1, "00_preliminaries", "src/helpers/ppca.py", "+ np.sqrt(self.sigma2) * rng", "+ self.sigma2 * rng"),
    (2, "00_preliminaries", "src/helpers/ppca.py", "return -(self.log_normaliser()", "return (self.log_normaliser()"),
    (2, "00_preliminaries", "notebooks/00_preliminaries.py", "x - z @ W.T - mu", "x + z @ W.T - mu"),
    (
        3,
        "00_preliminaries",
        "src/helpers/ppca.py",
        "return means, half @ half.T",
        "return means, half @ half.T / self.sigma2",
    ),
    (3, "00_preliminaries", "src/helpers/ppca.py", "return means, half", "return -means, half"),
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
    (5, "01_ppca", "src/helpers/ppca.py", "np.hypot(l, np.sqrt(self", "np.hypot(l, 2 * np.sqrt(self"),
    (5, "01_ppca", "src/helpers/ppca.py", "+ (n - k) * np.log(self.sigma2) +", "- (n - k) * np.log(self.sigma2) +"),
    (6, "01_ppca", "src/helpers/ppca.py", "means = (self._deviations(x)", "means = -(self._deviations(x)"),
    (6, "01_ppca", "src/helpers/ppca.py", "Rt.T * (np.sqrt(self.sigma2) /", "Rt.T * (self.sigma2 /"),
    (7, "01_ppca", "src/helpers/ppca.py", "sigma2 = rest.mean()", "sigma2 = rest.sum() / n"),
    (7, "01_ppca", "src/helpers/ppca.py", "moments.eigenvalues[k:]", "moments.eigenvalues[k - 1 :]"),
    (8, "01_ppca", "src/helpers/ppca.py", "np.maximum(leading - sigma2", "np.maximum(leading + sigma2"),
    (8, "01_ppca", "src/helpers/ppca.py", "PPCA(moments.eigenvectors[:, :k]", "PPCA(moments.eigenvectors.T[:, :k]"),
    (10, "02_stability", "src/helpers/ppca.py", "moments, PW)) - PW", "moments, PW)) + PW"),
    (
        10,
        "02_stability",
        "src/helpers/ppca.py",
        "(U * (l / deviations / deviations)) @ Rt",
        "(U * (l / deviations / deviations)) @ Rt.T",
    ),
    (11, "02_stability", "src/helpers/ppca.py", "eigenvalues[indices] - sigma2", "eigenvalues[indices] + sigma2"),
    (11, "02_stability", "src/helpers/ppca.py", "[:, indices] * np.sqrt(excess)", "[:, indices] * excess"),
    (12, "02_stability", "src/helpers/ppca.py", "- times(EPSPW) - PD", "- 2 * times(EPSPW) - PD"),
    (12, "02_stability", "src/helpers/ppca.py", "PEPW = times(change)", "PEPW = change"),
    (9, "03_linear_vae", "src/helpers/linear_vae.py", "(self.W**2 @ self.D).sum()", "(self.W @ self.D).sum()"),
    (9, "03_linear_vae", "src/helpers/linear_vae.py", "Q - self.W @ means", "Q + self.W @ means"),
    (13, "03_linear_vae", "notebooks/03_linear_vae.py", "vae.D / a**2, vae.mu", "vae.D * a**2, vae.mu"),
    (13, "03_linear_vae", "notebooks/03_linear_vae.py", "vae.V / a[:, None]", "vae.V * a[:, None]"),
    (14, "04_elbo", "notebooks/04_elbo.py", "return term_A(vae, x) - B + C", "return term_A(vae, x) + B + C"),
    (15, "04_elbo", "src/helpers/linear_vae.py", "(self.D - 1 - np.log(self.D))", "(self.D - 1 + np.log(self.D))"),
    (
        16,
        "04_elbo",
        "notebooks/04_elbo.py",
        "return -(error**2).sum(axis=-1) / (2 * s)",
        "return -(error**2).sum(axis=-1) / s",
    ),
    (17, "04_elbo", "notebooks/04_elbo.py", "(-quadratic + 2 * cross -", "(-quadratic + cross -"),
    (
        18,
        "04_elbo",
        "notebooks/04_elbo.py",
        "return -np.trace(W @ np.diag(vae.D) @ W.T) -",
        "return np.trace(W @ np.diag(vae.D) @ W.T) -",
    ),
    (
        19,
        "04_elbo",
        "src/helpers/linear_vae.py",
        "reconstruction = -(error / self.sigma2 +",
        "reconstruction = -(error * self.sigma2 +",
    ),
    (20, "04_elbo", "src/helpers/linear_vae.py", "(1 / D - 1) - squares / s) / 2", "(1 / D - 1) + squares / s) / 2"),
    (21, "04_elbo", "src/helpers/linear_vae.py", "residual / s - beta * means) @", "residual / s + beta * means) @"),
    (22, "04_elbo", "src/helpers/linear_vae.py", "means.T - W * D) / s", "means.T + W * D) / s"),
    (
        23,
        "05_theorem_1",
        "notebooks/05_theorem_1.py",
        "return (np.trace(M @ np.diag(D)) / sigma2 - k",
        "return (np.trace(M @ np.diag(D)) - k",
    ),
    (
        24,
        "05_theorem_1",
        "notebooks/05_theorem_1.py",
        "under_trace = M @ np.linalg.inv(M_tilde)",
        "under_trace = M @ np.linalg.inv(M)",
    ),
    (
        25,
        "05_theorem_1",
        "notebooks/05_theorem_1.py",
        "- np.linalg.slogdet(M)[1] + np.linalg.slogdet(M_tilde)[1]) / 2",
        "+ np.linalg.slogdet(M)[1] - np.linalg.slogdet(M_tilde)[1]) / 2",
    ),
    (
        26,
        "05_theorem_1",
        "src/helpers/linear_vae.py",
        "return float(-log_diagonal.sum())",
        "return float(-2 * log_diagonal.sum())",
    ),
    (27, "05_theorem_1", "src/helpers/linear_vae.py", "(pull - W / np.diag(model.M))", "(pull + W / np.diag(model.M))"),
    (28, "06_bernoulli", "src/helpers/bernoulli.py", "W.shape[1])) @ W.T + mu", "W.shape[1])) @ W.T - mu"),
    (
        29,
        "06_bernoulli",
        "src/helpers/bernoulli.py",
        "log_det = len(W) * np.log(2 * np.pi)",
        "log_det = np.log(2 * np.pi)",
    ),
    (30, "06_bernoulli", "src/helpers/bernoulli.py", "log_dets = np.log(np.abs", "log_dets = -np.log(np.abs"),
    (
        31,
        "06_bernoulli",
        "src/helpers/bernoulli.py",
        "x[part]) - _softplus(logits)",
        "x[part]) - 2 * _softplus(logits)",
    ),
    (
        32,
        "06_bernoulli",
        "src/helpers/bernoulli.py",
        "return (x * logit - gaussian_logistic",
        "return (x * logit + gaussian_logistic",
    ),
]


def run(notebook, source, last=None):
    """Ledger entries and errors of a chapter run on the package in `source`, up to a cell."""
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=run_cells.send, args=(theirs, notebook, source, last))
    process.start()
    theirs.close()
    try:
        assert ours.poll(300), f"{notebook} takes more than 300 s"
        return ours.recv()
    finally:
        process.terminate()
        process.join()


@functools.cache
def unchanged(chapter):
    result = run(ROOT / "notebooks" / f"{chapter}.py", ROOT / "src")
    assert not result["errors"] and all(entry["passed"] for entry in result["entries"])
    return result["entries"]


@pytest.mark.parametrize("source", pairs.chapters(), ids=lambda source: source.stem)
def test_cells_are_those_of_jupytext(source):
    cells = [(cell.cell_type, cell.source) for cell in pairs.read_source(source).cells if cell.cell_type == "code"]
    assert [cell for cell in run_cells.read(source) if cell[0] == "code"] == cells


@pytest.mark.parametrize(("equation", "chapter", "file", "old", "new"), MUTANTS)
def test_changed_formula_turns_every_check_red(equation, chapter, file, old, new, tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    text = (tmp_path / file).read_text()
    assert old in text, f"{file} no longer contains {old!r}"
    (tmp_path / file).write_text(text.replace(old, new))
    checks = [entry for entry in unchanged(chapter) if entry["equation"] == equation]
    assert len({entry["kind"] for entry in checks}) >= 2
    last = max(entry["cell"] for entry in checks)
    entries = run(tmp_path / "notebooks" / f"{chapter}.py", tmp_path / "src", last)["entries"]
    # A check that its cell no longer reaches has turned red too: the formula made the cell fail before it.
    green = {(e["method"], e["kind"]) for e in entries if e["equation"] == equation and e["passed"]}
    assert not green & {(e["method"], e["kind"]) for e in checks}


def test_every_equation_has_a_mutant():
    written = set()
    for source in pairs.chapters():
        for cell in nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells:
            printed = "".join(output.get("text", "") for output in cell.get("outputs", []))
            written |= {int(number) for number in re.findall(r"^Eq\. (\d+) · ", printed, re.MULTILINE)}
    assert written == {mutant[0] for mutant in MUTANTS}
