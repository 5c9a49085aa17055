"""Run a chapter's code cells one after the other, going on after an error, and print the ledger as JSON.

Usage: python run_cells.py NOTEBOOK.py [LAST]

With LAST, the run ends after the cell of that number. Each entry says in which cell it was made.

A failed check does not stop its cell here, so that one run tells which checks a changed formula turns red.
"""

import contextlib
import io
import json
import sys
from dataclasses import asdict

import jupytext
import matplotlib

matplotlib.use("Agg")

from helpers import ledger

entries, raising = [], ledger.Ledger.check


def check(self, *arguments, **named):
    try:
        raising(self, *arguments, **named)
    except ledger.CheckFailed:
        pass
    entries.append({**asdict(self.entries[-1]), "cell": number})


ledger.Ledger.check = check
namespace, errors = {"__name__": "__main__"}, []
cells = jupytext.read(sys.argv[1]).cells
last = int(sys.argv[2]) if len(sys.argv) > 2 else len(cells)
for number, cell in enumerate(cells[: last + 1]):
    if cell.cell_type == "code":
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"cell {number}", "exec"), namespace)
        except Exception as error:
            errors.append(f"cell {number}: {type(error).__name__}: {error}")
json.dump({"entries": entries, "errors": errors}, sys.stdout)
