"""book/reproduce.md: what it says of your own data runs as it stands, in its order, and prints what it says."""

import re
import shlex

import pytest
from pairs import ROOT

from helpers import cli, diagnose_cli

PAGE = (ROOT / "book" / "reproduce.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Your own data\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)[1]
BLOCKS = re.findall(r"```(python|bash|text)\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = {".venv/bin/python -m helpers.studies ": cli.main, ".venv/bin/posterior-collapse ": diagnose_cli.main}


@pytest.mark.usefixtures("one_thread")
def test_your_own_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert SECTION.count("```") == 2 * len(BLOCKS) > 0
    namespace, kinds = {}, [kind for kind, _ in BLOCKS]
    assert {"python", "bash", "text"} == set(kinds)
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "text":
            assert number and kinds[number - 1] == "python"
            continue
        if kind == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                (command,) = (one for one in COMMANDS if line.startswith(one))
                assert COMMANDS[command](shlex.split(line.removeprefix(command))) == 0, line
            capsys.readouterr()
            continue
        exec(compile(text, "reproduce.md", "exec"), namespace)
        printed = BLOCKS[number + 1][1] if kinds[number + 1 : number + 2] == ["text"] else ""
        assert capsys.readouterr().out == printed, text
