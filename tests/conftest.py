"""What several test files share: one built book, and what happens in training."""

import fcntl
import shutil
import subprocess
import sys
from functools import partialmethod

import pytest
from pairs import ROOT

FIRST = ("test_page.py", "test_colab.py", "test_mutations.py")  # files that take minutes: last, one process would idle
SLOW = {
    *("test_page.py", "test_site.py", "test_colab.py", "test_mutations.py", "test_notebooks.py", "test_api_page.py"),
    *("test_cli.py", "test_long_runs.py", "test_studies.py", "test_train.py", "test_public.py", "test_celeba.py"),
    *("test_plans.py", "test_conv_training.py", "test_cells.py", "test_blocks.py", "test_experiments.py"),
    *("test_bernoulli.py", "test_plots.py", "test_workflows.py", "test_docstrings.py", "test_reconstructions.py"),
    *("test_vae.py", "test_lockstep.py", "test_checkpoint.py", "test_evaluation.py", "test_linear_vae.py"),
    *("test_your_vae.py", "test_diagnose.py", "test_diagnose_cli.py", "test_residual.py", "test_report.py"),
    *("test_reproduce.py", "test_monitor.py", "test_records.py"),
}


def pytest_collection_modifyitems(items):
    """The files that take minutes come first; `make check` leaves out what is not done in a moment."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
    for item in items:
        if item.path.name in SLOW or item.path.suffix == ".ipynb":
            item.add_marker("slow")


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


@pytest.fixture(scope="module")
def no_bars():
    """No bar of progress."""
    from tqdm import tqdm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "__init__", partialmethod(tqdm.__init__, disable=True))
        yield


@pytest.fixture
def at_each_step(monkeypatch):
    """Has a function called before every step, with the `Lockstep` that does it."""
    from helpers.lockstep import Lockstep

    step = Lockstep.step

    def install(act):
        monkeypatch.setattr(Lockstep, "step", lambda self: (act(self), step(self))[1])

    return install


@pytest.fixture
def one_thread():
    """As in the workers of a cluster: sums in several threads may round otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command with the tiny studies, writing to `tmp_path`: its exit code, what it printed, and its errors."""
    from tiny_study import STUDIES

    from helpers import cli, plans

    for name, study in STUDIES.items():
        monkeypatch.setitem(plans.STUDIES, name, study)

    def call(text, **options):
        options = [f"--{name}={value}" for name, value in options.items()]
        code = cli.main([*text.split(), *([] if text == "list" else [f"--out={tmp_path}"]), *options])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def untrained(monkeypatch):
    """Fails where anything is trained."""
    from helpers import experiments

    monkeypatch.setattr(experiments, "train", lambda *a, **k: pytest.fail("it trains"))
