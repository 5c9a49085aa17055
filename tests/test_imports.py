"""What importing the package costs and what stands on what."""

import ast
import subprocess
import sys
from pathlib import Path

import helpers

FLOORS = {  # design: nothing imports upward
    "_validation": set(),
    "_files": {"_validation"},
    "moments": {"_validation"},
    "ppca": {"_validation", "moments"},
    "linear_vae": {"_validation", "moments", "ppca"},
    "spectrum": {"_validation"},
    "bernoulli": {"_validation", "moments"},
    "collapse": {"_validation"},
    "data": {"_files", "_validation", "moments"},
    "celeba": {"_files", "_validation", "moments"},
    "exact": {"_validation"},
    "ledger": {"_files", "_validation"},
    "scorecard": {"_validation", "ledger"},
    "standing": {"_validation", "spectrum"},
    "vae": {"_validation"},
    "lockstep": {"_validation", "vae"},
    "checkpoint": {"_files", "_validation"},
    "train": {"_validation", "checkpoint", "collapse", "lockstep", "vae"},
    "records": {"_files", "_validation"},
    "pictures": {"_validation"},
    "experiments": {
        "_files",
        "_validation",
        "celeba",
        "checkpoint",
        "collapse",
        "data",
        "lockstep",
        "pictures",
        "records",
        "train",
    },
    "designs": {"_validation", "celeba", "experiments", "records", "spectrum", "train", "vae"},
    "long_runs": {"_validation", "checkpoint", "designs", "lockstep", "records"},
    "studies": {"_validation", "designs", "experiments", "lockstep", "long_runs", "records", "studies", "train", "vae"},
}
DEEP = {
    "vae",
    "lockstep",
    "checkpoint",
    "train",
    "records",
    "pictures",
    "long_runs",
    "experiments",
    "designs",
    "studies",
}  # these may load torch
HEAVY = {"torch", "torchvision", "PIL", "sklearn", "matplotlib", "sympy", "IPython", "xarray", "distributed"}


def imported_helpers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "helpers":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("helpers.")]


def test_nothing_imports_upward():
    folder = Path(helpers.__file__).parent
    for name, allowed in FLOORS.items():
        assert set(imported_helpers(folder / f"{name}.py")) <= allowed, name


def test_theory_modules_load_nothing_heavy():
    names = sorted(FLOORS.keys() - DEEP)
    code = f"import sys\nfor name in {names}: __import__('helpers.' + name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}
