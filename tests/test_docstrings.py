"""The docstrings of all that is public: complete, and their examples right."""

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from functools import cached_property

import api_page
import matplotlib
import pytest

matplotlib.use("Agg")
ORDER = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "See Also", "Notes", "Examples")
# Names that the chapters use most: each has an example.
EXAMPLES = """
    moments.Moments.from_samples ppca.fit ppca.PPCA.log_likelihood ppca.max_log_likelihood ppca.stationary_point
    ppca.is_stable linear_vae.LinearVAE.elbo linear_vae.optimal_encoder linear_vae.posterior_gap linear_vae.fit
    spectrum.active spectrum.encoder_variances spectrum.kl spectrum.distortion spectrum.elbo spectrum.learned_sigma2
    spectrum.tuned_sigma2 spectrum.epsilon_delta_threshold spectrum.escape_rate bernoulli.collapse_threshold
    collapse.kl_per_unit collapse.active_units collapse.inactive_fraction collapse.epsilon_delta collapse.evaluate
    data.digits ledger.Ledger vae.mlp ensemble.Member ensemble.LinearAnnealing train.train records.recorded
    records.table studies.run
""".split()


def members(owner, name):
    """All that is public of a module or a class and defined there, by name: functions, classes, properties."""
    for short, value in vars(owner).items():
        if short.startswith("_"):
            continue
        if inspect.isclass(owner):
            value = getattr(value, "__func__", value)
            if inspect.isfunction(value) or isinstance(value, (property, cached_property)):
                yield f"{name}.{short}", value
        elif getattr(value, "__module__", "") == owner.__name__ and callable(value):
            yield f"{name}.{short}", value
            if inspect.isclass(value):
                yield from members(value, f"{name}.{short}")


PUBLIC = {
    name: value
    for module in api_page.modules()
    for name, value in members(importlib.import_module(f"helpers.{module}"), module)
}


def sections(docstring):
    """The text of each section of a NumPy-style docstring by its heading; what comes before them is under ""."""
    parts = re.split(r"^(\w[\w ]*)\n-+\n", docstring, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def arguments(value):
    """Names of what a function, or a class where it is made, takes."""
    if isinstance(value, (property, cached_property)) or (isinstance(value, type) and issubclass(value, Exception)):
        return []
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls", "args", "kwargs")]


def described(text):
    """The names at the left margin of a Parameters section, asterisks aside."""
    heads = [line.split(" : ")[0] for line in text.splitlines() if line and not line.startswith(" ")]
    return {name.strip("* ") for head in heads for name in head.split(",")}


def raised(value):
    """Names of the exceptions that the body of a function raises itself; functions within it answer for their own."""
    value = inspect.unwrap(value)
    if not inspect.isfunction(value) or value.__name__ == "<lambda>":
        return set()
    waiting, found = list(ast.parse(textwrap.dedent(inspect.getsource(value))).body[0].body), set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and node.exc:
            found.add(ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc).split(".")[-1])
        elif not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def faults(value):
    """What the docstring of a public object lacks, in words."""
    value_doc = value.__doc__ if not hasattr(value, "func") else value.func.__doc__
    if not value_doc or (inspect.isclass(value) and value_doc.startswith(f"{value.__name__}(")):
        return ["no docstring"]
    found = sections(inspect.cleandoc(value_doc))
    wanted, have = arguments(value), described(found.get("Parameters", found.get("Attributes", "")))
    lacking = [name for name in wanted if name not in have]
    if len(wanted) == 1 and re.search(rf"(?<!\w){re.escape(wanted[0])}(?!\w)", found[""]):
        lacking = []  # one argument that the words name needs no list
    known = [f"{name} is not described" for name in lacking]
    known += [f"{name} is described and no argument" for name in have - set(wanted) if "Parameters" in found]
    known += [f"{name} is not under Raises" for name in sorted(raised(value)) if name not in found.get("Raises", "")]
    known += [f"{name} is no section" for name in found if name and name not in ORDER]
    order = [ORDER.index(name) for name in found if name in ORDER]
    return known + (["the sections are not in order"] if order != sorted(order) else [])


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_says_all(name):
    assert not faults(PUBLIC[name])


def test_faults_are_found():
    def bad(x, y):
        """No list.

        Raises
        ------
        ValueError
        """
        raise TypeError

    def good(x):
        """Of `x`."""

    def other(x):
        """Of all.

        Parameters
        ----------
        z : int
        """

    assert faults(bad) == ["x is not described", "y is not described", "TypeError is not under Raises"]
    assert faults(good) == []
    assert faults(other) == ["x is not described", "z is described and no argument"]
    assert faults(lambda x: x) == ["no docstring"]


def examples():
    """The examples of the package, by name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in api_page.modules():
        for found in finder.find(importlib.import_module(f"helpers.{module}"), module):
            if found.examples:
                yield found.name, found


DOCTESTS = dict(examples())


def test_names_used_most_have_an_example():
    assert set(EXAMPLES) <= set(DOCTESTS)
    for name, one in DOCTESTS.items():
        assert any(example.want for example in one.examples), name


@pytest.mark.parametrize("name", DOCTESTS)
def test_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("BOOK_LEDGER", "BOOK_SCORECARD"):
        monkeypatch.delenv(variable, raising=False)
    report = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(DOCTESTS[name], out=report.append)
    assert not report, "".join(report)
