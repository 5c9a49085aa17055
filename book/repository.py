"""Set the address of the book's repository: python book/repository.py https://github.com/OWNER/NAME

The address is kept in one place, ``repository: url:`` of _config.yml. This command writes it there and, from there,
into what has to repeat it: the buttons, the notebooks' Colab line and bootstrap cell, pyproject.toml. With no address
it repeats the one that is set, and with --unset it takes it away. Doing it twice changes nothing more. The branch is
--branch, else the repository's default one where it can be asked, else the one that _config.yml has.
"""

import argparse
import os
import re
import subprocess

import nbformat
import pairs
import yaml
from pairs import ROOT

COLAB = "https://colab.research.google.com"
UNSET = "Run it in Colab: not yet, since the book has no public address; [how to give it one](../book/reproduce.md)."


def colab_line(url, branch, name):
    """The line of a notebook's first cell that says how to run it in Colab."""
    if not url:
        return UNSET
    if not url.startswith("https://github.com/"):
        return "Run it in Colab: upload this notebook there; its second cell fetches the book's package."
    link = f"{COLAB}/github/{url.removeprefix('https://github.com/')}/blob/{branch}/notebooks/{name}.ipynb"
    return f"Run it in Colab: [open this notebook there]({link})."


def pages_url(url):
    """Where the pages of a repository on GitHub are published; empty for others, whose address cannot be told."""
    if not url.startswith("https://github.com/"):
        return ""
    owner, name = url.removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def substitute(text, pattern, line):
    """`text` with the one line that matches `pattern` replaced by `line`; its indentation stays."""
    new, count = re.subn(rf"^([ \t]*){pattern}.*$", lambda match: match[1] + line, text, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"expected one line that begins {pattern!r}, found {count}")
    return new


def set_notebook(source, url, branch):
    """Write the address into a notebook's .py and, where the two are in step, into its .ipynb.

    No output depends on the address, so the outputs stay, and a digest that was right is made right again.
    """
    text = source.read_text(encoding="utf-8")
    new = substitute(text, "Run it in Colab:", colab_line(url, branch, source.stem))
    address = f"{url}@{branch}" if url else ""  # as pip reads it after git+
    new = substitute(new, "repository = os.environ", f'repository = os.environ.get("BOOK_REPOSITORY", "{address}")')
    if new == text:
        return
    stored = source.with_suffix(".ipynb")
    in_step = stored.exists() and not pairs.differences(source, stored)
    if in_step:
        notebook = nbformat.read(stored, as_version=4)
        fresh = notebook.metadata["book"]["digest"] == pairs.digest(source)
    source.write_text(new, encoding="utf-8")
    if in_step:
        for cell, described in zip(notebook.cells, pairs.read_source(source).cells, strict=True):
            cell.source, cell.id = described.source, described.id
        if fresh:
            notebook.metadata["book"]["digest"] = pairs.digest(source)
        pairs.write_notebook(notebook, stored)


def checked(url):
    """The address of a repository's root without a last slash or .git, or SystemExit."""
    url = url.rstrip("/").removesuffix(".git")
    good = re.fullmatch(r"https://[\w.-]+(/[\w.~-]+){2,}", url)
    if url.startswith("https://github.com/"):
        good = re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", url)
    if not good or re.search(r"/(-|tree|blob|src|commit|raw)/", url):
        raise SystemExit(
            f"URL is {url!r}; expected a repository's root, like https://github.com/OWNER/NAME, and no page inside it; "
            "a branch is given by BRANCH=NAME"
        )
    return url


def default_branch(url):
    """The name of the branch that a repository shows first, or None where that cannot be asked."""
    command = ["git", "-c", "credential.helper=", "ls-remote", "--symref", url, "HEAD"]
    silent = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=silent, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", done.stdout, re.MULTILINE)
    return found[1] if found else None


def set_address(url=None, branch=None):
    """Set address and branch everywhere; with `url` None, repeat the ones that _config.yml has."""
    config = ROOT / "_config.yml"
    text = config.read_text(encoding="utf-8")
    repository = yaml.safe_load(text)["repository"]
    if url is None:
        url, branch = repository["url"], branch or repository["branch"]
    elif url:
        url = checked(url)
        branch = branch or default_branch(url) or repository["branch"]
    else:
        branch = "main"
    if not re.fullmatch(r"\w[\w./-]*", branch):
        raise SystemExit(f"BRANCH is {branch!r}; expected a branch's name, like main")
    github = url.startswith("https://github.com/")
    text = substitute(text, "url:", f'url: "{url}"')
    text = substitute(text, "branch:", f"branch: {branch}")
    text = substitute(text, "colab_url:", f'colab_url: "{COLAB if github else ""}"')
    text = substitute(text, "baseurl:", f'baseurl: "{pages_url(url)}"')
    text = substitute(text, "use_repository_button:", f"use_repository_button: {'true' if url else 'false'}")
    config.write_text(text, encoding="utf-8")

    project = ROOT / "pyproject.toml"
    text = re.sub(r"\n\[project\.urls\]\nRepository = .*\n", "", project.read_text(encoding="utf-8"))
    if url:
        table = f'\n[project.urls]\nRepository = "{url}"\n'
        text = text.replace("\n[project.optional-dependencies]", f"{table}\n[project.optional-dependencies]", 1)
    project.write_text(text, encoding="utf-8")

    for source in [*pairs.chapters(), ROOT / "book" / "template.py"]:
        set_notebook(source, url, branch)
    return url, branch


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="for instance https://github.com/OWNER/NAME")
    parser.add_argument("--branch", help="for instance main")
    parser.add_argument("--unset", action="store_true", help="take the address away")
    arguments = parser.parse_args()
    if arguments.url == "":  # an empty variable, not a wish to take the address away
        parser.error("the address is empty; expected something like https://github.com/OWNER/NAME")
    url, branch = set_address("" if arguments.unset else arguments.url, arguments.branch)
    print(f"The book's address is {url}, branch {branch}" if url else "The book has no address")


if __name__ == "__main__":
    main()
