"""The notebooks: source and stored copy in step, outputs fresh, and the form that every chapter has."""

import ast
import os
import re
import shutil
import subprocess
import sys

import blocks
import nbformat
import pairs
import pytest
import repository
import yaml
from pairs import ROOT

SOURCES = pairs.chapters()
EQUATIONS = {  # which numbers of the paper each chapter has
    "00_preliminaries": range(1, 5),
    "01_ppca": range(5, 9),
    "02_stability": range(10, 13),
    "03_linear_vae": (9, 13),
    "04_elbo": range(14, 23),
    "05_theorem_1": range(23, 28),
    "06_bernoulli": range(28, 33),
}
LEDGER_LINE = re.compile(r"^Eq\. (\d+) · ([^·]+) · .+: (?:exact|relative error below \S+)$", re.MULTILINE)


@pytest.fixture(params=SOURCES, ids=lambda source: source.stem)
def source(request):
    return request.param


@pytest.fixture
def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_all_chapters_are_in_the_contents():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == sorted(source.with_suffix(".ipynb") for source in SOURCES)


def test_pair_is_in_step(source):
    assert pairs.differences(source, source.with_suffix(".ipynb")) == []


def test_outputs_were_made_by_this_code(source, stored):
    message = f"run `make notebooks NAMES={source.stem}`: it was executed with other code or data than the present"
    assert stored.metadata["book"]["digest"] == pairs.digest(source), message


def test_every_cell_was_executed_in_order_without_error(stored):
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_digest_sees_code_and_data_but_not_docstrings(tmp_path):
    package = tmp_path / "helpers"
    (package / "records").mkdir(parents=True)
    (package / "__init__.py").write_text('"""Doc."""\n')
    (package / "low.py").write_text('def f(x):\n    """Doc."""\n    return x\n')
    (package / "high.py").write_text('from helpers import low\n\nFILE = f"numbers-{low}.npz"\n')
    (package / "aside.py").write_text("x = 1\n")
    (package / "records" / "numbers-1.npz").write_bytes(b"1")
    (package / "records" / "others.npz").write_bytes(b"1")
    notebook = tmp_path / "n.py"
    notebook.write_text("from helpers import high\n")
    first = pairs.digest(notebook, package)

    def after(path, text):
        before = path.read_bytes()
        path.write_bytes(text)
        changed = pairs.digest(notebook, package) != first
        path.write_bytes(before)
        return changed

    assert not after(package / "low.py", b'# Why.\ndef f(x):\n    """Another."""\n    return x\n')
    assert not after(package / "aside.py", b"x = 2\n")
    assert not after(package / "records" / "others.npz", b"2")
    assert after(package / "low.py", b"def f(x):\n    return -x\n")
    assert after(package / "records" / "numbers-1.npz", b"2")
    assert after(notebook, b"from helpers import high, low\n")


def test_imports_are_followed_into_sub_packages_and_relative_ones(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("__init__", "low", "sub/__init__", "sub/a", "sub/deep/__init__", "sub/deep/b"):
        (tmp_path / f"{name}.py").touch()

    def found(code, module="low"):
        return pairs.imported(ast.parse(code), tmp_path, module) - {"__init__"}

    assert found("from . import low") == {"low"}
    assert found("from .sub import a") == {"sub", "sub.a"}
    assert found("import helpers.sub.deep.b") == {"sub", "sub.deep", "sub.deep.b"}
    assert found("from helpers.sub.deep import b as c") == {"sub", "sub.deep", "sub.deep.b"}
    assert found("from . import b", "sub.deep") == {"sub", "sub.deep", "sub.deep.b"}
    assert found("from ..a import x", "sub.deep.b") == {"sub", "sub.a"}
    assert found("from helpers.low import f\nimport numpy.sub", None) == {"low"}
    for code, module in [
        ("from . import low", None),
        ("from .nowhere import x", "low"),
        ("import helpers.nowhere", None),
        ("from ... import x", "sub.a"),
    ]:
        with pytest.raises(ValueError, match=r"relative|no such module"):
            found(code, module)


def test_a_secret_of_the_environment_does_not_reach_a_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted")
    monkeypatch.setenv("BOOK_DATA", "somewhere")
    source = tmp_path / "secret.py"
    source.write_text(PLANTED.format('import os\nprint(os.environ.get("SOME_TOKEN"), os.environ["BOOK_DATA"])'))
    notebook = pairs.execute(pairs.read_source(source), "secret", tmp_path)
    assert notebook.cells[-1].outputs[0].text == "None somewhere\n"


def test_the_limit_of_a_cell_is_set_in_one_place(pytestconfig):
    assert not re.search(r"cell-timeout", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pairs.CELL_TIMEOUT >= 600


def test_a_cell_after_one_that_ran_too_long_is_no_strict_xfail(tmp_path):
    source = tmp_path / "slow.py"
    source.write_text(PLANTED.format("import time\n\ntime.sleep(0)\n\n# %%\nprint(2)"))
    notebook = pairs.execute(pairs.read_source(source), "slow", tmp_path)
    notebook.cells[2].source = "import time\n\ntime.sleep(20)"
    pairs.write_notebook(notebook, source.with_suffix(".ipynb"))
    conftest = (ROOT / "notebooks" / "conftest.py").read_text(encoding="utf-8")
    assert "pairs.CELL_TIMEOUT" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("pairs.CELL_TIMEOUT", "2"), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert re.search(r"^FAILED \S+::Cell 1", done.stdout, re.MULTILINE), done.stdout
    assert "strict" not in done.stdout


def failing_build(folder, **variables):
    """`make notebooks` in a copy whose one chapter fails, as a process with other variables."""
    (folder / "notebooks").mkdir()
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "_toc.yml").write_text("chapters:\n  - file: notebooks/one.ipynb\n")
    (folder / "notebooks" / "one.py").write_text(PLANTED.format("raise RuntimeError('σ²')"), encoding="utf-8")
    command = [sys.executable, str(folder / "book" / "build.py"), "notebooks"]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **variables})


def test_the_failing_cell_is_named_in_any_encoding(tmp_path):
    done = failing_build(tmp_path, PYTHONIOENCODING="cp1252")
    assert done.returncode == 1
    assert b"FAILED one, cell 3" in done.stdout and b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock on Windows")
def test_a_second_build_says_that_another_is_running(tmp_path):
    import fcntl

    (tmp_path / "_build").mkdir()
    with open(tmp_path / "_build" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = failing_build(tmp_path)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().startswith("another build is running in this folder")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
@pytest.mark.parametrize("target", ["repository", "notebooks", "paper"])
@pytest.mark.parametrize("text", ["x; touch PWNED", "$$(touch PWNED)", "$(shell touch PWNED)", "x' ; touch PWNED; '"])
def test_what_a_user_gives_to_make_is_no_command(tmp_path, target, text):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > GOT\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".made-from").touch()
    given = [f"{name}={text}" for name in ("URL", "BRANCH", "NAMES", "STUDIES", "DEVICE", "PYTHON")]
    subprocess.run(["make", target, *given], cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "GOT").is_file() and not (tmp_path / "PWNED").exists()
    if target == "repository":
        assert text.replace("$$", "$$") in (tmp_path / "GOT").read_text().splitlines()


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/o",
        "https://github.com/o/n/tree/master",
        "https://github.com/o/n/blob/main/README.md",
        "https://gitlab.com/g/sub/n/-/tree/main",
        "http://github.com/o/n",
        "github.com/o/n",
        "https://github.com/o/n; touch PWNED",
    ],
)
def test_an_address_that_is_no_repository_is_refused(url):
    with pytest.raises(SystemExit, match="expected a repository's root"):
        repository.checked(url)


def test_addresses_of_repositories_are_taken():
    assert repository.checked("https://github.com/o/n.git") == "https://github.com/o/n"
    assert repository.checked("https://gitlab.com/g/sub/n/") == "https://gitlab.com/g/sub/n"


def test_default_branch_is_asked_for(tmp_path):
    subprocess.run(["git", "init", "--quiet", "-b", "trunk", str(tmp_path)], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    assert repository.default_branch(tmp_path.as_uri()) == "trunk"
    assert repository.default_branch((tmp_path / "nowhere").as_uri()) is None


def test_beginning_is_the_same_in_every_chapter(source):
    notebook, template = pairs.read_source(source), pairs.read_source(ROOT / "book" / "template.py")
    title, bootstrap, parameters = notebook.cells[:3]
    assert title.cell_type == "markdown" and re.match(r"# \S.*\n", title.source)
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    assert repository.colab_line(address["url"], address["branch"], source.stem) in title.source.splitlines()
    assert "time to run" in title.source.lower() and "you need" in title.source.lower()
    assert bootstrap.source == template.cells[1].source
    assert parameters.metadata.tags == ["parameters"] and parameters.source.startswith('profile = "quick"')
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"


def test_end_is_the_same_in_every_chapter(source):
    notebook = pairs.read_source(source)
    sections = re.findall(r"^## (.+)$", markdown(notebook), re.MULTILINE)
    assert sections[-4:] == ["What we showed", "Exercises", "References", "Versions"]
    assert "nbval-ignore-output" in notebook.cells[-1].metadata.tags
    exercises = next(i for i, cell in enumerate(notebook.cells) if "\n## Exercises\n" in f"\n{cell.source}")
    later = [cell for cell in notebook.cells[exercises:] if cell.cell_type == "code"]
    assert all("hide-cell" in cell.metadata.get("tags", []) for cell in later[:-1])
    posed = [number for kind, number in blocks.defined(markdown(notebook)) if kind == "Exercise"]
    assert len(later) - 1 >= len(posed) >= 3, "an exercise has no solution that runs"


def test_checks_are_folded(source):
    for cell in code_cells(pairs.read_source(source)):
        assert not re.search(r"\bledger\.(check|certify)\(", cell.source) or blocks.folded(cell), cell.source


def test_every_equation_has_its_heading_and_its_number(source):
    text = markdown(pairs.read_source(source))
    numbers = list(EQUATIONS.get(source.stem, []))
    assert [int(n) for n in re.findall(r"^### Equation (\d+)$", text, re.MULTILINE)] == numbers
    for number in numbers:
        assert f"\\tag{{{number}}}" in text


def test_markdown_reads_well_everywhere(source):
    notebook = pairs.read_source(source)
    text = markdown(notebook)
    for trap in (r"\\label\{", r"\\eqref", r"\{(ref|eq|cite|numref)\}`", r"^```\{", r"<img"):
        assert not re.search(trap, text, re.MULTILINE), f"{trap} reads badly in the book, JupyterLab or Colab"
    assert all(c.metadata.get("cell_marker") == 'r"""' for c in notebook.cells if c.cell_type == "markdown")
    for opening in re.finditer(r"^:::\{.+\n(?::\w.*\n)*(.*)$", text, re.MULTILINE):
        assert opening[1] == "", f"no blank line after the options of {opening[0]!r}"


def test_cells_are_short(source):
    longest = max(code_cells(pairs.read_source(source)), key=lambda cell: len(cell.source.splitlines()))
    assert len(longest.source.splitlines()) <= 17, longest.source


def test_pictures_have_alt_text(stored):
    for cell in code_cells(stored):
        if any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})):
            assert len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 20, cell.source


def test_stored_checks_cover_every_equation_by_two_kinds():
    kinds = {}
    for source in SOURCES:
        for cell in code_cells(nbformat.read(source.with_suffix(".ipynb"), as_version=4)):
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            for number, kind in LEDGER_LINE.findall(printed):
                kinds.setdefault(int(number), set()).add(kind)
    for source in SOURCES:
        for number in EQUATIONS.get(source.stem, []):
            assert len(kinds.get(number, ())) >= 2, f"Eq. {number} was checked by {kinds.get(number)}"


PLANTED = '# %% [markdown]\nr"""\n# Planted\n"""\n\n# %%\nprint(6 * 7)\n\n# %%\n{}\n'


def test_a_planted_exception_or_wrong_output_turns_nbval_red(tmp_path):
    for name, last in (("good", "print(1)"), ("raises", "print(1)"), ("differs", "print(1)")):
        source = tmp_path / f"{name}.py"
        source.write_text(PLANTED.format(last))
        notebook = pairs.execute(pairs.read_source(source), name, tmp_path)
        if name == "raises":
            notebook.cells[-1].source = "print(1)\nraise RuntimeError('planted')"
        if name == "differs":
            notebook.cells[-1].outputs[0].text = "2\n"
        pairs.write_notebook(notebook, source.with_suffix(".ipynb"))
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    # The options are those of pyproject.toml, as in `make test`.
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    outcomes = re.findall(r"^(PASSED|FAILED) \S*?(\w+)\.ipynb::Cell (\d)", done.stdout, re.MULTILINE)
    assert sorted(outcomes) == [
        ("FAILED", "differs", "1"),
        ("FAILED", "raises", "1"),
        ("PASSED", "differs", "0"),
        ("PASSED", "good", "0"),
        ("PASSED", "good", "1"),
        ("PASSED", "raises", "0"),
    ]


def test_a_planted_exception_stops_the_build_and_names_its_place(tmp_path, capsys):
    source = tmp_path / "planted.py"
    source.write_text(PLANTED.format("raise RuntimeError('here')"))
    kept = []
    assert pairs.execute_all([source], tmp_path, lambda *pair: kept.append(pair)) == 1
    assert kept == []
    assert "FAILED planted, cell 3" in capsys.readouterr().out


def test_a_source_changed_behind_its_copy_is_noticed(tmp_path):
    source = tmp_path / "pair.py"
    source.write_text(PLANTED.format("print(1)"))
    pairs.write_notebook(pairs.read_source(source), source.with_suffix(".ipynb"))
    assert pairs.differences(source, source.with_suffix(".ipynb")) == []
    source.write_text(PLANTED.format("print(2)"))
    assert pairs.differences(source, source.with_suffix(".ipynb"))


def test_address_is_set_everywhere_by_one_command(tmp_path):
    book = tmp_path / "book"
    shutil.copytree(ROOT / "book", book, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("_config.yml", "_toc.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    def state():
        files = [path for path in tmp_path.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {path.relative_to(tmp_path): path.read_bytes() for path in files}

    def run(*arguments):
        subprocess.run([sys.executable, book / "repository.py", *arguments], check=True, capture_output=True)
        return state()

    run("--unset")
    unset = state()
    url = "https://github.com/somebody/some-book"
    first = run(f"{url}.git", "--branch", "next")
    assert run() == first
    assert first != unset
    config = yaml.safe_load((tmp_path / "_config.yml").read_text())
    assert config["repository"]["url"] == url and config["html"]["use_repository_button"] is True
    assert config["launch_buttons"]["colab_url"].startswith("https://colab")
    assert config["html"]["baseurl"] == "https://somebody.github.io/some-book/"
    for source in (tmp_path / "notebooks" / path.name for path in SOURCES):
        stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
        assert f"/somebody/some-book/blob/next/notebooks/{source.stem}.ipynb)" in stored.cells[0].source
        assert f'"{url}@next"' in stored.cells[1].source
        assert pairs.differences(source, source.with_suffix(".ipynb")) == []
        assert stored.metadata["book"]["digest"] == pairs.digest(source)
    assert run("--unset") == unset


def test_a_passed_check_does_not_fail_on_what_a_terminal_cannot_show():
    code = "from helpers.ledger import Ledger\nLedger('x').check(1, 'λ and σ²', 'algebra', 1.0, 1.0, 1e-9)\n"
    code += "from helpers.scorecard import Scorecard\n"
    code += "Scorecard('x').claim('Figure 1', 'σ² ≤ λ', [True], 'as printed', 'σ² = 1', 'live')"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\\u03bb" in done.stdout and b"\\u03c3" in done.stdout
