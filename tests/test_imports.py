"""What importing the package costs, what stands on what, and that each module has its place and its tests."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pairs import ROOT

import helpers

PACKAGE = Path(helpers.__file__).parent
# The layers, from the ground up: a module imports from the layers below its own, and from nothing else.
FLOORS = {
    "_validation": set(),
    "_files": {"_validation"},
    "moments": {"_validation"},
    "spectrum": {"_validation"},
    "objective": {"_validation", "moments", "spectrum"},
    "_networks": {"_validation"},
    "_models": {"_networks", "_validation"},
    "collapse": {"_networks", "_validation"},
    "exact": {"_validation"},
    "vae": {"_validation"},
    "ppca": {"_validation", "moments"},
    "bernoulli": {"_validation", "moments"},
    "ledger": {"_files", "_validation"},
    "records": {"_files", "_validation"},
    "celeba": {"_files", "_validation", "moments"},
    "ensemble": {"_validation", "vae"},
    "plots": {"_validation", "collapse", "moments"},
    "linear_vae": {"_validation", "moments", "ppca"},
    "forecast": {"_validation", "moments", "objective", "spectrum"},
    "codes": {"_models", "_networks", "_validation", "objective"},
    "verdict": {"_validation", "forecast"},
    "residual": {"_models", "_networks", "_validation", "codes", "forecast"},
    "diagnose": {"_networks", "_validation", "codes", "collapse", "forecast", "moments", "residual", "verdict"},
    "report": {"_validation", "forecast", "objective", "plots", "spectrum", "verdict"},
    "monitor": {"_models", "_validation", "diagnose", "objective"},
    "diagnose_cli": {"_files", "_validation", "codes", "diagnose", "forecast", "moments", "objective", "report"},
    "scorecard": {"_validation", "ledger"},
    "standing": {"_validation", "records", "spectrum"},
    "data": {"_files", "_validation", "celeba", "moments"},
    "lockstep": {"_validation", "ensemble", "vae"},
    "checkpoint": {"_files", "_validation", "collapse", "ensemble", "vae"},
    "evaluation": {"_validation", "collapse", "ensemble", "vae"},
    "reconstructions": {"_validation", "ensemble", "vae"},
    "train": {"_validation", "checkpoint", "ensemble", "evaluation", "lockstep", "vae"},
    "plans": {"_validation", "celeba", "data", "ensemble", "objective", "records", "spectrum", "vae"},
    "experiments": {
        "_files",
        "_validation",
        "checkpoint",
        "codes",
        "data",
        "evaluation",
        "plans",
        "reconstructions",
        "records",
        "residual",
        "train",
    },
    "studies": {"_validation", "ensemble", "experiments", "plans", "records", "vae"},
    "long_runs": {"_validation", "checkpoint", "ensemble", "plans", "records"},
    "cli": {"_validation", "ensemble", "long_runs", "plans", "records", "studies"},
}
DEEP = {  # these may load torch, or xarray
    *("vae", "records", "ensemble", "standing", "lockstep", "checkpoint", "evaluation", "reconstructions", "train"),
    *("plans", "experiments", "studies", "long_runs", "cli"),
}
HEAVY = {"torch", "torchvision", "PIL", "sklearn", "matplotlib", "sympy", "IPython", "xarray", "distributed"}


def modules():
    return {path.stem for path in PACKAGE.rglob("*.py")} - {"__init__"}


def imported_helpers(path):
    """Modules of the package that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} has a relative import"
            if node.module.split(".")[0] == "helpers":
                yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("helpers.")]


def test_every_module_has_a_place_and_imports_what_the_table_says():
    assert modules() == set(FLOORS)
    for name, expected in FLOORS.items():
        assert set(imported_helpers(PACKAGE / f"{name}.py")) == expected, name


def test_nothing_imports_upward():
    """The table itself stands in an order in which everything comes after what it imports, so there is no cycle."""
    order = list(FLOORS)
    for name, below in FLOORS.items():
        assert all(order.index(one) < order.index(name) for one in below), name


def test_the_map_of_the_layers_is_that_of_the_table():
    floor = {}
    for name, below in FLOORS.items():
        floor[name] = 1 + max((floor[one] for one in below), default=0)
    rows = re.findall(r"^ *(\d+) +(.*)$", helpers.__doc__, re.MULTILINE)
    shown = {name: int(number) for number, names in rows for name in names.split()}
    assert shown == floor


def test_every_module_has_a_test_file_of_its_name():
    tests = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    assert {f"test_{name.lstrip('_')}" for name in modules()} <= tests


def test_theory_modules_load_nothing_heavy():
    names = sorted(FLOORS.keys() - DEEP - {"plots", "report", "diagnose_cli"})  # which draw
    code = f"import sys\nfor name in {names}: __import__('helpers.' + name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_tracked_tree_stays_small():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not in a git repository")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert sum(path.stat().st_size for path in paths if path.exists()) < 12 * 2**20
