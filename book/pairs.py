"""The pairs notebooks/NN_name.py and .ipynb: making one from the other, executing, telling if they agree."""

import ast
import fnmatch
import hashlib
import json
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
# Seconds, for the build and for the tests (notebooks/conftest.py). It is wall time, so generous: a chapter is meant to
# take under 30 in all, but on a loaded machine that can be many times as much.
CELL_TIMEOUT = 900
# What a kernel gets of this process's environment: what it runs on, and nothing that could put a password on a page.
PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "LC_*", "TMPDIR", "TEMP", "TMP", "XDG_*"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_*", "SSL_CERT_*"),
    *("JUPYTER_PATH", "JUPYTER_*_DIR", "JUPYTER_PREFER_ENV_PATH", "IPYTHONDIR", "MPLCONFIGDIR", "TORCH_HOME"),
    *("BOOK_*", "OMP_*", "MKL_*", "CUDA_*", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT"),
    *("USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS"),
)


def chapters():
    """Sources of the chapters, in the order of the table of contents; a draft that is not listed there is none."""
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    return [ROOT / "notebooks" / f"{name}.py" for name in re.findall(r"notebooks/(\w+)\.ipynb", contents)]


class NotebookFailed(Exception):
    """A cell raised, ran past its limit or lost its kernel."""


def read_source(path):
    """The notebook that a .py file in percent format describes, without outputs.

    A cell's id comes from its text and from how many equal cells precede it, so that a new cell leaves
    the ids of the others, and with them the stored file, as they were.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    seen = {}
    for cell in notebook.cells:
        key = (cell.cell_type, cell.source)
        seen[key] = seen.get(key, 0) + 1
        cell.id = hashlib.sha256(json.dumps([*key, seen[key]]).encode()).hexdigest()[:12]
    # What a kernel reports of itself includes its Python's version, which would differ between machines.
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def passed_on(environment):
    """The part of an environment that a kernel gets."""
    return {
        name: value
        for name, value in environment.items()
        if any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in PASSED_ON)
    }


def execute(notebook, name, folder, environment=None, timeout=CELL_TIMEOUT, kernel="python3", extension=None):
    """Execute `notebook` in place, in `folder`; raise `NotebookFailed` naming the notebook and the cell.

    `extension` is the module of an IPython extension that the kernel loads first.
    """
    variables = {
        **passed_on(os.environ),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # pictures, whatever the shell has set
    }
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=kernel,
        record_timing=False,
        coalesce_streams=True,  # where a print is cut in two depends on the clock
        # No note on sockets that stay inside this machine.
        extra_arguments=["--IPKernelApp.log_level=40"]
        + ([f"--IPKernelApp.extra_extensions={extension}"] if extension else []),
        resources={"metadata": {"path": str(folder)}},
    )
    language = notebook.metadata.get("language_info")
    try:
        client.execute(env={**variables, **(environment or {})})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        number, cell = failed_cell(notebook)
        raise NotebookFailed(f"{name}, cell {number}:\n{cell.source}\n\n{error}") from error
    if language:
        notebook.metadata["language_info"] = language
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def failed_cell(notebook):
    """Position from 1 and cell of the last code cell that was started."""
    started = [
        (number, cell)
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code" and (cell.execution_count or cell.outputs)
    ]
    return started[-1] if started else (1, notebook.cells[0])


def execute_all(sources, folder, store, environment=None, extension=None):
    """Execute the .py files `sources` in `folder`, two at a time, with an IPython extension if one is named.

    The last comes first: the later chapters take longest, and one of these alone at the end would leave a core idle.

    Hands each finished notebook to ``store(source, notebook)`` and prints the seconds it took. Returns the number of
    failures, each printed with its notebook and cell.
    """

    storing = Lock()  # Python 3.11 parses in one thread at a time; in two it can lose count of the depth of a tree

    def one(source):
        start = time.perf_counter()
        try:
            notebook = execute(read_source(source), source.stem, folder, environment, extension=extension)
            with storing:
                store(source, notebook)
        except NotebookFailed as error:
            print(f"FAILED {error}", flush=True)
            return 1
        print(f"executed {source.stem} in {time.perf_counter() - start:.1f} s", flush=True)
        return 0

    pool = ThreadPoolExecutor(WORKERS)
    try:
        return sum(pool.map(one, reversed(sources)))
    finally:  # on Ctrl-C without waiting for the cells that run
        pool.shutdown(wait=False, cancel_futures=True)


def write_notebook(notebook, path):
    """Write `notebook` whole or not at all."""
    text = nbformat.writes(nbformat.from_dict(notebook)) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        file.write(text)
    try:
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise


def differences(source, stored):
    """What differs, in words, between the notebook that `source` (.py) describes and `stored` (.ipynb)."""
    want, have = read_source(source), nbformat.read(stored, as_version=4)
    if len(want.cells) != len(have.cells):
        return [f"{source.name} has {len(want.cells)} cells, {stored.name} {len(have.cells)}"]
    found = []
    for number, (a, b) in enumerate(zip(want.cells, have.cells, strict=True), 1):
        for field in ("cell_type", "source", "metadata", "id"):
            if a.get(field) != b.get(field):
                both = f"{a.get(field)!r:.80} in {source.name}, {b.get(field)!r:.80} in {stored.name}"
                found.append(f"cell {number}: {field} is {both}")
    return found


def canonical(node):
    """A syntax tree as nested tuples of (class name, non-empty fields), the same under Python 3.11 to 3.13.

    Positions and docstrings are left out, so that a comment or a better sentence asks for no new run.
    """
    if isinstance(node, list):
        return tuple(canonical(item) for item in node)
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        body = fields["body"]
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                fields["body"] = body[1:]
    kept = [(name, canonical(value)) for name, value in fields.items() if value is not None and value != []]
    return (type(node).__name__, *kept)


def module_file(name, package):
    """The file of the module that is called `name` inside the package, or None: ``low``, ``sub``, ``sub.low``."""
    if name == "__init__":
        return package / "__init__.py"
    path = package.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(tree, package, module=None):
    """Names of the modules of `helpers` (folder `package`) that a syntax tree imports, whatever the depth.

    `module` is the name, inside the package, of what the tree is the text of; None for a notebook.

    Raises
    ------
    ValueError
        For an import from the package, relative or not, that leads to no file.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted, inside = [alias.name for alias in node.names], []
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package, module)
            wanted, inside = [base], [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        # The names after "import" are modules or not; those before it must be.
        for name in [*wanted, *inside]:
            parts = name.split(".")
            if parts[0] != "helpers":
                continue
            for depth in range(1, len(parts) + 1):  # a sub-package is imported on the way to what is in it
                inner = ".".join(parts[1:depth]) or "__init__"
                if module_file(inner, package):
                    names.add(inner)
                elif name in wanted:
                    raise ValueError(f"{module or 'a notebook'} imports {name}, and {package} has no such module")
    return names


def absolute(node, package, module):
    """The module that a ``from ... import`` names, from the root on."""
    if node.level == 0:
        return node.module
    if module is None:
        raise ValueError(f"a notebook has the relative import {ast.unparse(node)!r}; expected from helpers import ...")
    parts = [] if module == "__init__" else module.split(".")
    up = node.level - (module_file(module, package).name == "__init__.py")
    if up > len(parts):
        raise ValueError(f"{module} has the relative import {ast.unparse(node)!r}, which leads out of the package")
    return ".".join(["helpers", *parts[: len(parts) - up], *([node.module] if node.module else [])])


def named_files(tree, files):
    """Those of `files` that a string in the syntax tree names; a field of an f-string stands for anything."""
    patterns = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
            patterns.add("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            patterns.add(node.value)
    ends = {pattern.rsplit("/", 1)[-1] for pattern in patterns}
    return {path for path in files if any(end.strip("*") and fnmatch.fnmatchcase(path.name, end) for end in ends)}


def digest(source, package=ROOT / "src" / "helpers"):
    """SHA-256 of what the outputs of a notebook depend on: its .py, the helpers it reaches, the data they name."""
    text = source.read_text(encoding="utf-8")
    trees, waiting = {}, {"__init__"} | imported(ast.parse(text), package)
    while waiting:
        name = waiting.pop()
        trees[name] = ast.parse(module_file(name, package).read_text(encoding="utf-8"))
        waiting |= imported(trees[name], package, name) - set(trees)
    data = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    named = set().union(*(named_files(tree, data) for tree in [ast.parse(text), *trees.values()]))
    total = hashlib.sha256(text.encode())
    for name in sorted(trees):
        total.update(repr((name, canonical(trees[name]))).encode())
    for path in sorted(named):
        total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def store_pair(source, notebook):
    """Write an executed notebook beside its .py, with the digest of what it was made from."""
    notebook.metadata["book"] = {"digest": digest(source)}
    write_notebook(notebook, source.with_suffix(".ipynb"))
