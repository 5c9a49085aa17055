"""Build the book, or store the outputs of its notebooks.

python book/build.py                        the book, in _build/html
python book/build.py notebooks [NAME ...]   execute notebooks/NAME.py (all by default) into notebooks/NAME.ipynb
"""

import argparse
import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import api_page
import blocks
import cells
import ledger_page
import nbformat
import pairs
import scorecard_page
import spectra
from drawing import FIGURE
from pairs import ROOT

try:
    import fcntl
except ImportError:  # Windows has none, and goes without the lock
    fcntl = None


@contextlib.contextmanager
def alone():
    """Hold the lock of this checkout, or exit with a sentence while another build holds it."""
    (ROOT / "_build").mkdir(exist_ok=True)
    with open(ROOT / "_build" / "lock", "w") as lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another build is running in this folder; wait for it, or build in a copy") from None
        yield


def build_book():
    """Execute every notebook on a copy under _build, generate ledger and scorecard, render; returns 0 on success."""
    build = ROOT / "_build"
    source, ledger, scorecard = build / "source", build / "ledger", build / "scorecard"
    executed = build / "executed"
    for old in (source, executed, ledger, scorecard, build / "html", build / ".doctrees", build / "jupyter_execute"):
        shutil.rmtree(old, ignore_errors=True)
    source.mkdir(parents=True)
    executed.mkdir()
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "notebooks").mkdir()

    notebooks = {}

    def keep(path, notebook):
        pairs.write_notebook(notebook, executed / f"{path.stem}.ipynb")
        notebooks[path.stem] = notebook

    folders = {"BOOK_LEDGER": str(ledger), "BOOK_SCORECARD": str(scorecard)}
    folders["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "book"), os.environ.get("PYTHONPATH"))))
    if pairs.execute_all(pairs.chapters(), source / "notebooks", keep, folders, extension="drawing"):
        return 1
    pages = {name: cells.prepare(copy.deepcopy(nb), name, source / "book") for name, nb in notebooks.items()}
    known = blocks.all_defined(pages.values())
    for name, page in pages.items():
        blocks.prepare(page, known)
        pairs.write_notebook(page, source / "notebooks" / f"{name}.ipynb")

    checks = ledger_page.merge(ledger)
    (build / "ledger.json").write_text(json.dumps(checks, indent=1), encoding="utf-8")
    table = ledger_page.table(checks, ledger_page.headings(notebooks))
    fill(source / "book" / "ledger.md", "ledger", table)
    certificates = ledger_page.certificates(ledger)
    (build / "certificates.json").write_text(json.dumps(certificates, indent=1), encoding="utf-8")
    fill(source / "book" / "ledger.md", "certificates", ledger_page.certificates_table(certificates))
    errata = source / "book" / "errata.md"
    errata.write_text(ledger_page.mark_exact(errata.read_text(encoding="utf-8"), certificates), encoding="utf-8")
    rows = scorecard_page.merge(scorecard)
    (build / "scorecard.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    fill(source / "book" / "scorecard.md", "scorecard", scorecard_page.table(rows))
    api_page.write(source / "book" / "api")
    fill(source / "book" / "api.md", "modules", api_page.table())
    for page, name, text in spectra.parts():
        fill(source / "book" / page, name, text)
    return render(source)


def fill(page, name, text):
    """Replace what stands between the comments ``name`` and ``/name`` of a page by `text`."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    content = page.read_text(encoding="utf-8")
    if start not in content or end not in content:
        raise SystemExit(f"{page.name} has no place marked {start} ... {end}")
    before, rest = content.split(start)
    page.write_text(f"{before}{text}{rest.split(end)[1]}", encoding="utf-8")


def without(notebook, kind):
    """A notebook, in place, without the outputs of one kind."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(kind, None)
    return notebook


def render(source):
    """Render the copy at `source` into _build/html, every warning an error."""
    options = ["--path-output", str(ROOT), "-W", "-n", "--keep-going", "--quiet"]
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    print("rendering", flush=True)
    # Warnings come on the standard error; the standard output only repeats where the pages are.
    command = [jupyter_book, "build", str(source), *options]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    for notebook in (ROOT / "_build" / "executed").glob("*.ipynb"):  # what a reader downloads is whole, and runs
        offered = ROOT / "_build" / "html" / "_sources" / "notebooks" / notebook.name
        if offered.exists():
            pairs.write_notebook(without(nbformat.read(notebook, as_version=4), FIGURE), offered)
    if code:
        print("FAILED: the pages were not rendered without a warning", flush=True)
        return code
    print(f"The book is built. Open {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


def store_notebooks(names):
    """Execute the chapters `names` (all when empty) and store each beside its source; returns the failures."""
    folder = ROOT / "notebooks"
    sources = [folder / f"{Path(name).stem}.py" for name in names] or pairs.chapters()
    for source in sources:
        if not source.is_file():
            raise SystemExit(f"there is no notebooks/{source.name}")
    return pairs.execute_all(sources, folder, pairs.store_pair)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="book", choices=("book", "notebooks"))
    parser.add_argument("names", nargs="*", help="for notebooks: which ones, for instance 01_ppca")
    arguments = parser.parse_args()
    # The kernel of this environment, not one that a user's folder happens to call python3.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    if os.environ.get("BOOK_DATA"):  # kernels run elsewhere, where a relative path would mean another folder
        os.environ["BOOK_DATA"] = os.path.abspath(os.environ["BOOK_DATA"])
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter must not hide which cell failed
        stream.reconfigure(errors="backslashreplace")
    try:
        with alone():
            code = build_book() if arguments.what == "book" else min(1, store_notebooks(arguments.names))
    except OSError as error:
        raise SystemExit(f"the book could not be written: {error}") from None
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left, and the next build begins anew", flush=True)
        os._exit(130)  # without waiting for the threads; the kernels end when they find their parent gone
    sys.exit(code)


if __name__ == "__main__":
    main()
