"""The pages of the package, one per module, and the Sphinx extension that makes them from the docstrings.

The modules are those that the package has, so that a new one gets its page, its row and its layer by being there.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from functools import cache, cached_property
from pathlib import Path

import ledger_page
import nbformat
import pairs

import helpers

PACKAGE = Path(helpers.__file__).parent
PAGE = """# {name}

{place}

```{{eval-rst}}
.. automodule:: helpers.{name}
   :members:
   :member-order: bysource
```
"""
CHAPTERS = re.compile(r"Serves\s(?:[^.(`]|`[^`]*`|\([^)]*\))*")  # up to the period that ends the sentence
EQUATIONS = re.compile(r"\bEqs?\.? \d+(?:-\d+)?(?:(?:,| and|, and)\s+\d+(?:-\d+)?)*")


def modules():
    """Names of the public modules of the package, in alphabetical order."""
    return [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if not module.name.startswith("_")]


@cache
def imports(name):
    """The modules of the package that one of them imports itself, a frozenset of names."""
    tree = ast.parse(pairs.module_file(name, PACKAGE).read_text(encoding="utf-8"))
    return frozenset(pairs.imported(tree, PACKAGE, name) - {name, "__init__"})


@cache
def layer(name):
    """The layer of a module: 1 where it imports no other, else one above the highest of those that it imports."""
    return 1 + max(map(layer, imports(name)), default=0)


def summary(name):
    """The first sentence of a module's docstring."""
    tree = ast.parse(pairs.module_file(name, PACKAGE).read_text(encoding="utf-8"))
    first = " ".join(ast.get_docstring(tree).split("\n\n")[0].split())
    return re.split(r"(?<=\.) Serves ", first)[0]


def table():
    """The modules as a Markdown table, from the lowest layer to the highest."""
    rows = [f"| {layer(name)} | [{name}](api/{name}.md) | {summary(name)} |" for name in modules()]
    rows.sort(key=lambda row: int(row.split()[1]))  # which keeps the alphabet within a layer
    return "\n".join(["| layer | module | what it is |", "|---|---|---|", *rows])


def write(folder):
    """Write the page of each module into `folder`."""
    folder.mkdir()
    for name in modules():
        below = ", ".join(f"[{other}]({other}.md)" for other in sorted(imports(name)) if other[0] != "_")
        place = f"Layer {layer(name)} of [the package](../api.md)" + (f", on {below}." if below else ".")
        (folder / f"{name}.md").write_text(PAGE.format(name=name, place=place), encoding="utf-8")


# From here on the Sphinx extension: docstrings are written to be read in a terminal, and become links here.


def target(name, text):
    """Full name of the documented object that `text` means inside the docstring of `name`; None where there is none."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        wanted = [*parts[:depth], *text.removeprefix("helpers.").split(".")]
        try:
            found = importlib.import_module(".".join(wanted[:2]))
            for part in wanted[2:]:
                owner, found = found, inspect.getattr_static(found, part)
        except (ImportError, AttributeError):
            continue
        if any(part.startswith("_") for part in wanted):
            return None
        if inspect.ismodule(found):
            return found.__name__ if found.__name__.startswith("helpers.") else None
        if isinstance(found, (property, cached_property)):
            return f"{owner.__module__}.{owner.__qualname__}.{wanted[-1]}"
        found = getattr(found, "__func__", found)
        home = getattr(found, "__module__", None) or ""
        documented = home.startswith("helpers.") and callable(found) and not hasattr(found, "func")
        return f"{home}.{found.__qualname__}" if documented and found.__doc__ else None
    return None


def as_rst(line, name, arguments):
    """One line of a docstring as reStructuredText: what is in backticks as a link or as code, and no other markup."""
    parts = re.split(r"(``.+?``|`[^`]+`)", line)
    for i, part in enumerate(parts):
        if part.startswith("``"):
            continue
        if part.startswith("`"):
            text = part.strip("`")
            full = None if text in arguments else target(name, text)
            parts[i] = f":py:obj:`{text} <{full}>`" if full else f"``{text}``"
        else:
            parts[i] = re.sub(r"\||(?<=\w)_(?!\w)|(?<!\S)\*(?=\w)", r"\\\g<0>", part)
    return "".join(parts)


def linked(docstring, chapters, equations):
    """The docstring with links from the chapters that it says it serves, and from equations to where they are derived.

    `chapters` has the page of each chapter by its number as text, "01", and `equations` that of each equation's heading
    by its number.
    """

    def chapter(number):
        return f":doc:`{number[0]} </{chapters[number[0]]}>`" if number[0] in chapters else number[0]

    def serves(match):
        parts = re.split(r"(\([^)]*\))", match[0])  # what stands in parentheses is equations
        parts[::2] = [re.sub(r"\b\d\d\b", chapter, part) for part in parts[::2]]
        return "".join(parts)

    def equation(match):
        number = int(match[0].split("-")[0])
        if number not in equations:
            return match[0]
        return f"`{match[0]} <../../{equations[number]}.html#equation-{number}>`__"

    docstring = CHAPTERS.sub(serves, docstring)
    return EQUATIONS.sub(lambda match: re.sub(r"\d+(?:-\d+)?", equation, match[0]), docstring)


@cache
def pages(folder):
    """The pages of the chapters by their numbers, and those of the equations, in the folder that Sphinx reads."""
    files = {path.stem: path for path in sorted(Path(folder, "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    headings = ledger_page.headings({name: nbformat.read(path, as_version=4) for name, path in files.items()})
    chapters = {name[:2]: f"notebooks/{name}" for name in files}
    return chapters, {number: f"notebooks/{name}" for number, name in headings.items()}


def docstring_to_rst(app, what, name, thing, options, lines):
    """Sphinx's event autodoc-process-docstring, before napoleon sees the text."""
    try:
        arguments = set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        arguments = set()
    parts = re.split(r"^(\s*>>>(?:.*\S.*\n?)+)", "\n".join(lines), flags=re.MULTILINE)  # to a blank line
    for i in range(0, len(parts), 2):
        words = "\n".join(as_rst(line, name, arguments) for line in parts[i].split("\n"))
        parts[i] = linked(words, *pages(str(app.srcdir)))
    lines[:] = "".join(parts).split("\n")


def skip(app, what, name, thing, skipped, options):
    """Sphinx's event autodoc-skip-member: the fields of a named tuple, of which its docstring speaks."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def settings(app, config):
    """What autodoc and napoleon do; nothing is looked up elsewhere, as the book is built without a network."""
    config.autodoc_typehints = "none"  # the docstrings say more
    config.autodoc_preserve_defaults = True
    config.napoleon_google_docstring = False
    config.napoleon_use_param = config.napoleon_use_rtype = False  # types are prose, and no references
    config.napoleon_custom_sections = [("Attributes", "params_style")]
    config.add_module_names = config.html_domain_indices = False


def setup(app):
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=300)  # napoleon has 500
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-skip-member", skip)
    app.connect("config-inited", settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
