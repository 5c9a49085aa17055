"""Run a chapter's code cells one after the other, going on after an error, and print the ledger as JSON.

Usage: python run_cells.py NOTEBOOK.py [LAST]

With LAST, the run ends after the cell of that number. Each entry says in which cell it was made.

A failed check does not stop its cell here, so that one run tells which checks a changed formula turns red.
"""

import contextlib
import io
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path


def read(path):
    """(type, source) of each cell of a py:percent file: jupytext's, without the two seconds that its import takes."""
    _, *cells = re.split(r"^# %%(.*)\n", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    kinds = ["markdown" if options.startswith(" [markdown]") else "code" for options in cells[::2]]
    return list(zip(kinds, (source.strip("\n") for source in cells[1::2]), strict=True))


def run(notebook, last=None):
    """Entries of the ledger, and errors, of a chapter on the package `helpers` that is found first."""
    import matplotlib

    matplotlib.use("Agg")
    from helpers import ledger

    entries, raising = [], ledger.Ledger.check

    def check(self, *arguments, **named):
        with contextlib.suppress(ledger.CheckFailed):
            raising(self, *arguments, **named)
        entries.append({**asdict(self.entries[-1]), "cell": number})

    ledger.Ledger.check = check
    namespace, errors = {"__name__": "__main__"}, []
    for number, (kind, source) in enumerate(read(notebook)[: None if last is None else last + 1]):
        if kind == "code":
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(source, f"cell {number}", "exec"), namespace)
            except Exception as error:
                errors.append(f"cell {number}: {type(error).__name__}: {error}")
    return {"entries": entries, "errors": errors}


def send(connection, notebook, source, last):
    """`run` on the package in the folder `source`, in a process of its own that has not imported it yet."""
    assert "helpers" not in sys.modules
    sys.path.insert(0, str(source))
    os.environ.pop("BOOK_LEDGER", None)
    result = run(notebook, last)
    assert Path(sys.modules["helpers"].__file__).is_relative_to(source)
    connection.send(result)


if __name__ == "__main__":
    json.dump(run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None), sys.stdout)
