"""What several test files share: one built book."""

import fcntl
import shutil
import subprocess
import sys

import pytest
from pairs import ROOT


def contents(folder):
    """Every file below `folder` with its bytes, the built ones and caches aside."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {file: (folder / file).read_bytes() for file in files if not {"_build", "__pycache__"} & set(file.parts)}


def build_in(copy):
    """Build the book in the empty folder `copy`, where nobody is editing."""
    for name in ("book", "notebooks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, copy)
    before = contents(copy)
    command = [sys.executable, str(copy / "book" / "build.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("index.html")
    assert contents(copy) == before, "building the book changed what it is made from"


@pytest.fixture(scope="session")
def built(tmp_path_factory, worker_id):
    """The folder ``_build`` that `make book` leaves in a copy of the book; the test processes share one."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    copy, finished = shared / "book", shared / "book-is-built"
    with open(shared / "book-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
        if not finished.exists():
            shutil.rmtree(copy, ignore_errors=True)  # left by a process that failed
            copy.mkdir()
            build_in(copy)
            finished.touch()
    return copy / "_build"
