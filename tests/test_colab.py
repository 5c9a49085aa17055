"""A notebook alone, as in Colab: in a fresh environment, where the second cell fetches the package."""

import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pairs
import pytest
from packaging.requirements import Requirement
from pairs import ROOT

IN_COLAB = ("numpy", "scipy", "matplotlib", "scikit-learn", "torch", "ipython", "ipykernel")
FIRST = "02_stability"  # installs the package, and has the figures made from MNIST


def closure(names):
    """The distributions of this environment that `names` need, themselves included."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = distribution(name)
            needed = map(Requirement, found[name].requires or [])
            waiting += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found.values()


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository of the package as the working tree has it, and its address."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=unwanted)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-verify", "-m", "the book")
    return f"git+{folder.as_uri()}"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of a new environment that has what Colab has, linked rather than downloaded, and no more."""
    folder = tmp_path_factory.mktemp("colab") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    for each in closure(IN_COLAB):
        for top in {file.parts[0] for file in each.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(each.locate_file(top)).resolve())
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    return python


def run(python, code):
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=bare_environment())
    return done.stdout.strip()


def bare_environment():
    """This process's variables without those that could lend a notebook the clone or its data."""
    taken = ("PYTHONPATH", "VIRTUAL_ENV", "BOOK_DATA", "BOOK_REPOSITORY", "BOOK_LEDGER")
    return {name: value for name, value in os.environ.items() if name not in taken}


def test_without_an_address_the_second_cell_says_what_to_do(colab):
    bootstrap = pairs.read_source(ROOT / "book" / "template.py").cells[1].source
    code = bootstrap.replace('get("BOOK_REPOSITORY", "http', 'get("NO_SUCH_VARIABLE", "" and "http')
    done = subprocess.run([colab, "-c", code], capture_output=True, text=True, check=False, env=bare_environment())
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError") and "pip install ." in last and "BOOK_REPOSITORY" in last


@pytest.fixture
def kernel(colab, tmp_path, monkeypatch):
    """Name of a kernel that runs in the new environment."""
    spec = {"argv": [str(colab), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Colab"}
    folder = tmp_path / "jupyter" / "kernels" / "colab"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in set(os.environ) - set(bare_environment()):
        monkeypatch.delenv(name)
    return "colab"


def pictures(notebook):
    return [sum("image/png" in o.get("data", {}) for o in cell.get("outputs", [])) for cell in notebook.cells]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_notebooks_run_alone_and_draw_their_figures(repository, colab, kernel, tmp_path):
    torch = run(colab, "import torch; print(torch.__version__, torch.__file__)")
    for name in [FIRST, *(source.stem for source in pairs.chapters() if source.stem != FIRST)]:
        empty = tmp_path / name
        empty.mkdir()
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", empty)
        stored = nbformat.read(empty / f"{name}.ipynb", as_version=4)
        notebook = nbformat.read(empty / f"{name}.ipynb", as_version=4)
        # pip's settings and proxies do not reach a kernel of themselves, since they may hold a password.
        fetching = {
            name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "http", "no_"))
        }
        environment = {**fetching, "BOOK_REPOSITORY": repository, "XDG_CACHE_HOME": str(tmp_path / "no-data-here")}
        pairs.execute(notebook, name, empty, environment, kernel=kernel)
        assert pictures(notebook) == pictures(stored)
        if name == FIRST:
            assert any(pictures(notebook))
    where = run(colab, "import helpers; print(helpers.__file__)")
    assert Path(where).is_relative_to(colab.parent.parent), "the package was not installed, but found elsewhere"
    assert run(colab, "import torch; print(torch.__version__, torch.__file__)") == torch
