"""README.md: its example prints what it says, its picture shows the data, and it names what the package needs."""

import re
import tomllib
import xml.etree.ElementTree as ElementTree

import readme_picture
from pairs import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def test_every_python_block_has_its_output():
    assert len(EXAMPLES) == README.count("```python") == README.count("```text") > 0


def test_examples_print_what_they_say(capsys):
    names = {}
    for code, output in EXAMPLES:
        exec(compile(code, "README.md", "exec"), names)
        assert capsys.readouterr().out == output


def test_picture_is_of_the_data():
    text = readme_picture.PLACE.read_text(encoding="utf-8")
    assert text == readme_picture.picture()
    ElementTree.fromstring(text)
    for source in re.findall(r'<img src="([^"]+)"', README):
        assert (ROOT / source).is_file()


def test_what_the_package_needs_is_said():
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in needed}
    sentence = re.search(r"It needs ([^;]*);", README)[1].lower()
    missing = [name for name in names if not re.search(rf"\b{name}\b", sentence)]
    assert not missing
