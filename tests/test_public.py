"""Every public function and method of the package, each argument in turn given what it is not for.

`public_recipes` has good arguments for each, and what each argument is (its role). From the role follow the bad
values, all of which must be answered by a ``ValueError`` that names the argument, and the awkward ones, which hold the
same numbers in another container and must give the same result or such an error. A public name without a recipe fails.

Run as a program, it prints all faults: ``python tests/test_public.py [MODULE ...]``.
"""

import contextlib
import dataclasses
import importlib
import inspect
import io
import pkgutil
import re
import sys
import tempfile
import warnings
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from public_recipes import ANYTHING, SCALARS, SHAPE, bad_arrays, world
from torch import nn

import helpers

# Containers of results, which the package makes and nobody calls; their methods have recipes like any other.
RESULTS = {
    "codes.Codes",
    "collapse.Evaluation",
    "collapse.UnitStatistics",
    "ledger.Certificate",
    "ledger.CheckFailed",
    "ledger.Entry",
    "linear_vae.Gradients",
    "linear_vae.Terms",
    "long_runs.Progress",
    "ppca.Axes",
    "scorecard.Row",
    "ensemble.Run",
    "evaluation.NotFinite",
    "forecast.Forecast",
    "residual.Widened",
    "verdict.Diagnosis",
}


def public():
    """Names and callables of all that is public and defined in the package, classes' own methods included."""
    found = {}
    for module in (importlib.import_module(f"helpers.{m.name}") for m in pkgutil.iter_modules(helpers.__path__)):
        short = module.__name__.removeprefix("helpers.")
        for name, value in vars(module).items() if not short.startswith("_") else ():
            if name.startswith("_") or getattr(value, "__module__", "") != module.__name__ or not callable(value):
                continue
            found[f"{short}.{name}"] = value
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                kinds = (classmethod, staticmethod)
                if not method.startswith("_") and (inspect.isfunction(function) or isinstance(function, kinds)):
                    found[f"{short}.{name}.{method}"] = getattr(value, method)
    return found


# Bad and awkward values


def _without(*kinds):
    return {kind: make for kind, make in ANYTHING.items() if kind not in kinds}


NOT_A_NUMBER = _without(*SCALARS.split(", "))
BAD = {
    "number": NOT_A_NUMBER,  # any real number
    "non_negative": NOT_A_NUMBER | {"negative": ANYTHING["negative"]},
    "positive": NOT_A_NUMBER | {kind: ANYTHING[kind] for kind in ("negative", "zero")},
    "integer": _without("integer"),
    "text": _without("text", "text of a number"),
    "choice": dict(ANYTHING),
    "object": dict(ANYTHING),
    "callable": _without("function", "class"),
    "flag": _without("boolean"),
    "path": _without("text", "text of a number"),
    "sequence": _without("list"),  # of what, its recipe says
    "tensor": dict(ANYTHING),
    "array": _without("array", "list"),
}


def _mapped(g):
    file = tempfile.TemporaryFile()
    made = np.memmap(file, dtype=g.dtype, mode="w+", shape=g.shape)
    made[:] = g
    return made


def _dask(g):
    import dask.array

    return dask.array.from_array(g)


def same_arrays(g):
    """The same numbers in other containers, by kind. They survive float16 where the recipe chose them so."""
    kinds = {
        "list": g.tolist,
        "tuple": lambda: tuple(map(tuple, g.tolist())) if g.ndim == 2 else tuple(g.tolist()),
        "list of rows": lambda: list(g),
        "Fortran": lambda: np.asfortranarray(g),
        "strided": lambda: np.repeat(g, 2, axis=-1)[..., ::2],
        "reversed": lambda: g[::-1].copy()[::-1],
        "big-endian": lambda: g.astype(">f8"),
        "memmap": lambda: _mapped(g),
        "dask": lambda: _dask(g),
        "xarray": lambda: xr.DataArray(g),
        "objects": lambda: g.astype(object),
        "fractions": lambda: np.vectorize(Fraction, otypes=[object])(g).tolist(),
        "tensor": lambda: torch.tensor(g),
        "tensor with a gradient": lambda: torch.tensor(g).requires_grad_(g.dtype.kind == "f"),
        "tensor turned": lambda: torch.tensor(g).T.contiguous().T if g.ndim == 2 else torch.tensor(g),
        "longdouble": lambda: g.astype(np.longdouble),
    }
    for dtype in (np.float32, np.float16, np.int64, np.int8, np.uint8):
        with np.errstate(all="ignore"):
            if (g.astype(dtype).astype(float) == g).all():
                kinds[np.dtype(dtype).name] = partial(g.astype, dtype)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8):
        if (torch.tensor(g).to(dtype).double().numpy() == g).all():
            kinds[str(dtype)] = partial(torch.tensor(g).to, dtype)
    if g.ndim == 2:
        kinds["frame"] = lambda: pd.DataFrame(g)
        kinds["nullable frame"] = lambda: pd.DataFrame(g).astype("Float64")
        kinds["matrix"] = lambda: np.matrix(g)
    if g.ndim == 1:
        kinds["series"] = lambda: pd.Series(g, index=[f"r{i}" for i in range(g.size)])
    return kinds


def same_numbers(value):
    """One number in other types, by kind."""
    kinds = {
        "0-d array": lambda: np.array(value),
        "0-d tensor": lambda: torch.tensor(value, dtype=torch.float64),
        "float64": lambda: np.float64(value),
        "fraction": lambda: Fraction(value),
    }
    if float(np.float32(value)) == value:
        kinds["float32"] = lambda: np.float32(value)
    if float(value).is_integer():
        kinds |= {
            "int": lambda: int(value),
            "int64": lambda: np.int64(value),
            "0-d integers": lambda: np.array(int(value)),
        }
    return kinds


def bad_values(given):
    kinds = dict(BAD[given.role])
    if given.role == "array":
        kinds |= bad_arrays(given.value)
    return {kind: make for kind, make in (kinds | given.extra).items() if kind not in given.takes.split(", ")}


def same_values(given):
    if given.role == "array":
        kinds = same_arrays(given.value)
    elif given.role in ("number", "positive", "non_negative") and given.value is not None:
        kinds = same_numbers(given.value)
    elif given.role == "integer" and given.value is not None:
        kinds = {"int64": lambda: np.int64(given.value), "uint8": lambda: np.uint8(given.value)}
    else:
        kinds = {}
    return (
        kinds if given.same is None else {kind: make for kind, make in kinds.items() if kind in given.same.split(", ")}
    )


# Results


def leaves(value):
    """What a result is made of: arrays of numbers, and text; pictures and modules count by their numbers."""
    if isinstance(value, torch.Tensor):
        return [value.detach().double().numpy()]
    if isinstance(value, nn.Module):
        return leaves(list(value.state_dict().values()))
    if isinstance(value, xr.Dataset):
        return leaves({name: variable.values for name, variable in value.items()})
    if isinstance(value, dict):
        return [leaf for key, entry in value.items() if key != "seconds" for leaf in [str(key), *leaves(entry)]]
    if isinstance(value, (list, tuple)):
        return [leaf for entry in value for leaf in leaves(entry)]
    if isinstance(value, (str, bytes, Path)):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return leaves(vars(value))
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        array = np.asarray(value)
        return [array.astype(float)] if array.dtype.kind in "biuf" else [str(array.tolist())]
    return []


def same_result(a, b):
    a, b = leaves(a), leaves(b)
    if len(a) != len(b):
        return False
    for one, other in zip(a, b, strict=True):
        if isinstance(one, np.ndarray) != isinstance(other, np.ndarray):
            return False
        if not isinstance(one, np.ndarray):
            if one != other:
                return False
        elif one.shape != other.shape:
            return False
        else:
            scale = np.max(np.abs(one[np.isfinite(one)]), initial=0.0)
            if not np.allclose(one, other, rtol=1e-9, atol=1e-10 * scale, equal_nan=True):
                return False
    return True


def finite(result):
    return all(np.isfinite(leaf).all() for leaf in leaves(result) if isinstance(leaf, np.ndarray))


# The walk


def call(recipe, changed=None, make=None):
    """The result, or the error, with one argument replaced by what `make` makes."""
    arguments = {name: given.value for name, given in recipe.arguments.items()}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            with contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                arguments |= {changed: make()} if changed else {}
                return recipe.call(**arguments), None
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return None, error
    finally:
        plt.close("all")


def says(error, words):
    """Whether it is a ValueError with one of these names in it; one letter must stand as a name does."""
    verb = r" (is|has|contains|differs|equals|leaves|lies|reaches)\b"
    patterns = [r"\b" + re.escape(word) + (verb if len(word) == 1 else r"\b") for word in words]
    return isinstance(error, ValueError) and any(re.search(pattern, str(error)) for pattern in patterns)


def walk(recipe, counts):
    """The faults of one public callable, each (what, argument, kind, answer); counts what was tried."""
    faults = []

    def fault(what, argument, kind, answer):
        counts[what] += 1
        faults.append((what, argument, kind, " ".join(str(answer).split())[:160]))

    good, error = call(recipe)
    if error is not None:
        return [("the recipe fails", "", "", repr(error)[:300])]
    for argument, given in recipe.arguments.items():
        own = (argument, *given.names)
        every = (*own, *recipe.arguments)
        for kind, make in bad_values(given).items():
            counts["tried"] += 1
            result, error = call(recipe, argument, make)
            if error is None:
                fault("silent", argument, kind, f"accepted: {result!r}")
            elif isinstance(error, recipe.also) or says(error, every if kind in SHAPE.split(", ") else own):
                counts["refused"] += 1
            elif isinstance(error, ValueError):
                fault("unnamed", argument, kind, f"ValueError: {error}")
            else:
                fault("foreign", argument, kind, f"{type(error).__name__}: {error}")
        for kind, make in same_values(given).items():
            counts["tried"] += 1
            result, error = call(recipe, argument, make)
            if error is None and same_result(result, good):
                counts["right"] += 1
            elif error is None:
                fault("silent", argument, kind, f"{result!r} in place of {good!r}")
            elif isinstance(error, recipe.also) or says(error, every):
                counts["refused"] += 1
            else:
                fault("foreign", argument, kind, f"{type(error).__name__}: {error}")
        extreme = {}
        if given.role in ("number", "positive", "non_negative"):
            extreme = {"1e300": lambda: 1e300, "1e-300": lambda: 1e-300}
        elif given.role == "array" and given.same is None:
            extreme = {"times 1e200": lambda g=given.value: g * 1e200, "times 1e-200": lambda g=given.value: g * 1e-200}
        for kind, make in extreme.items():
            counts["tried"] += 1
            result, error = call(recipe, argument, make)
            if error is None and finite(result):
                counts["finite"] += 1
            elif error is None:
                fault("silent", argument, kind, f"not finite: {result!r}")
            elif isinstance(error, recipe.also) or says(error, (*every, "rescale")):
                counts["refused"] += 1
            else:
                fault("foreign", argument, kind, f"{type(error).__name__}: {error}")
    return faults


PUBLIC = public()
NAMES = sorted(PUBLIC)
COUNTS = Counter()


@pytest.fixture(scope="module")
def all_recipes(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world")) as recipes:
        yield recipes


def test_results_have_no_methods():
    assert set(NAMES) >= RESULTS


def test_no_recipe_is_left_of_what_is_gone(all_recipes):
    assert all_recipes.keys() <= set(NAMES) - RESULTS


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RESULTS])
def test_wrong_arguments_are_refused_by_name_and_awkward_ones_taken_right(name, all_recipes):
    assert name in all_recipes, f"{name} is public and has no recipe: give it good arguments and their roles"
    recipe = all_recipes[name]
    assert_all_arguments(name, recipe)
    faults = walk(recipe, COUNTS)
    assert not faults, "\n" + "\n".join(" | ".join(fault) for fault in faults)


def assert_all_arguments(name, recipe):
    """A new argument cannot escape either."""
    try:
        signature = inspect.signature(PUBLIC[name])
    except ValueError:
        return
    there = {p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD} - {"self"}
    assert there == set(recipe.arguments), f"{name} has the arguments {sorted(there)}"


def test_the_counts(capsys):
    """Printed at the end: how much was tried, and that none of it went wrong."""
    with capsys.disabled():
        print(
            f"\n{len(NAMES)} public names, {COUNTS['tried']} inputs: {COUNTS['refused']} refused by name, "
            f"{COUNTS['right']} right, {COUNTS['finite']} of extreme size and finite; {COUNTS['silent']} silent, "
            f"{COUNTS['foreign']} foreign, {COUNTS['unnamed']} unnamed"
        )
    assert COUNTS["silent"] == COUNTS["foreign"] == COUNTS["unnamed"] == 0


def main(modules):
    total = Counter()
    with tempfile.TemporaryDirectory() as place, world(Path(place)) as known:
        for name in NAMES:
            if name in RESULTS or (modules and name.split(".")[0] not in modules):
                continue
            if name not in known:
                print(f"{name}: no recipe")
                continue
            faults = walk(known[name], total)
            print(f"## {name}: {len(faults)} faults", flush=True)
            for fault in faults:
                print("   " + " | ".join(fault))
    print(dict(total))


if __name__ == "__main__":
    main(sys.argv[1:])
