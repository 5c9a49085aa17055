"""The workflows of a public host are valid by its own schema, and say what the project's files say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def jobs():
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield f"{path.stem}/{name}", job


def checked(*arguments):
    command = [sys.executable, "-m", "check_jsonschema", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_workflows_are_valid_by_their_hosts_schema(tmp_path):
    assert len(WORKFLOWS) == 3
    done = checked("--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert checked("--builtin-schema", "vendor.github-workflows", broken).returncode == 1


def test_the_citation_is_valid(tmp_path):
    assert checked("--builtin-schema", "vendor.citation-file-format", ROOT / "CITATION.cff").returncode == 0
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]


def test_every_job_ends_by_itself():
    assert all(job["timeout-minutes"] <= 90 for _, job in jobs())


def test_every_version_of_python_is_allowed_by_the_package():
    lowest = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])[1]  # a cap breaks Colab one day
    versions = {
        entry["python"] if isinstance(entry, dict) else entry
        for _, job in jobs()
        for entry in job.get("strategy", {}).get("matrix", {}).get("include", [])
        + job.get("strategy", {}).get("matrix", {}).get("python", [])
    }
    assert {f"3.{minor}" for minor in range(int(lowest), 15)} == versions


def test_what_a_job_runs_is_there():
    """Targets of the Makefile and files of the repository, as the steps name them."""
    makefile = (ROOT / "Makefile").read_text()
    for name, job in jobs():
        for step in job["steps"]:
            for target in re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), (name, target)
            for file in re.findall(r"python (\S+\.py)", step.get("run", "")):
                assert (ROOT / file).is_file(), (name, file)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_every_variable_is_documented(name):
    """In the one table of CONTRIBUTING.md, and none that is not there in what a stranger reads first."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "book").glob("*.py"), ROOT / "Makefile", ROOT / ".ci" / "run"]
    read = {found for path in files for found in re.findall(r"\bBOOK_[A-Z]+\b", path.read_text())}
    said = set(re.findall(r"\bBOOK_[A-Z]+\b", (ROOT / name).read_text()))
    assert said <= read if name == "README.md" else said == read
