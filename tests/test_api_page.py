"""The package's pages: one for each module there is, and docstrings as links."""

import re

import api_page
import pytest
from bs4 import BeautifulSoup
from pairs import ROOT
from test_docstrings import PUBLIC

MODULES = api_page.modules()


def test_every_module_has_its_page_and_its_row(tmp_path):
    assert set(MODULES) == {path.stem for path in api_page.PACKAGE.glob("[!_]*.py")}
    api_page.write(tmp_path / "api")
    assert {path.stem for path in (tmp_path / "api").iterdir()} == set(MODULES)
    rows = api_page.table().splitlines()[2:]
    assert sorted(re.search(r"\[(\w+)\]", row)[1] for row in rows) == MODULES
    assert all(row.count("|") == 4 and len(row.split("|")[3].strip()) > 10 for row in rows)
    assert "glob: book/api/*" in (ROOT / "_toc.yml").read_text(encoding="utf-8")


def test_a_layer_stands_on_lower_ones_alone():
    for name in MODULES:
        below = [api_page.layer(other) for other in api_page.imports(name)]
        assert api_page.layer(name) == max(below, default=0) + 1, name
    assert [api_page.layer(name) for name in ("_validation", "moments", "ppca", "linear_vae")] == [1, 2, 3, 4]
    order = [int(row.split()[1]) for row in api_page.table().splitlines()[2:]]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("helpers.ppca.fit", "stationary_point", "helpers.ppca.stationary_point"),
        ("helpers.ppca.fit", "Moments", "helpers.moments.Moments"),  # imported, and documented where it is from
        ("helpers.ppca.PPCA.log_likelihood", "posterior", "helpers.ppca.PPCA.posterior"),
        ("helpers.moments.Moments.eigenvectors", "eigenvalues", "helpers.moments.Moments.eigenvalues"),
        ("helpers.train", "collapse.unit_statistics", "helpers.collapse.unit_statistics"),
        ("helpers.moments", "helpers.data", "helpers.data"),
        ("helpers.ppca.fit", "_hidden_along", None),  # private
        ("helpers.ppca.fit", "helpers._validation.positive", None),
        ("helpers.ppca.fit", "np.linalg", None),
        ("helpers.ppca.fit", "sigma2", None),
        ("helpers.collapse", "ACTIVE", None),  # a number, which has no page
    ],
)
def test_names_lead_to_what_has_a_page(name, text, found):
    assert api_page.target(name, text) == found


def test_a_line_becomes_what_sphinx_takes_literally():
    line = "the average of |A (x - mu)|^2 in `fit`, of `k` and ``2 * log(sd)``, *args and a_ b"
    assert api_page.as_rst(line, "helpers.ppca.max_log_likelihood", {"k"}) == (
        r"the average of \|A (x - mu)\|^2 in :py:obj:`fit <helpers.ppca.fit>`, of ``k`` and ``2 * log(sd)``, "
        r"\*args and a\_ b"
    )


def test_chapters_and_equations_become_links():
    text = "Serves chapters 01 (Eqs 1 and\n10-12, Appendix A.1) and 02. In Eq. 12 and Eq. 99 it is 02."
    linked = api_page.linked(text, {"01": "notebooks/01_a", "02": "notebooks/02_b"}, {10: "notebooks/02_b", 12: "n"})
    of = "Serves :py:obj:`train <helpers.train>`, and chapter 02. Chapter 01 is named."
    assert api_page.linked(of, {"01": "a", "02": "b"}, {}) == of.replace("02", ":doc:`02 </b>`")
    assert linked == (
        "Serves chapters :doc:`01 </notebooks/01_a>` (Eqs 1 and\n"
        "`10-12 <../../notebooks/02_b.html#equation-10>`__, Appendix A.1) and :doc:`02 </notebooks/02_b>`. "
        "In Eq. `12 <../../n.html#equation-12>`__ and Eq. 99 it is 02."
    )


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_says_which_chapters_it_serves(name):
    text = (api_page.PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    assert re.search(r"\b\d\d\b", api_page.CHAPTERS.search(text)[0])


@pytest.mark.parametrize("name", MODULES)
def test_a_built_page_has_the_public_names_and_no_others(built, name):
    folder = built / "html" / "book"
    article = parsed(folder / "api" / f"{name}.html").select_one("article")
    shown = {node["id"].removeprefix("helpers.") for node in article.select("dt.sig[id]")}
    assert shown == {other for other in PUBLIC if other.split(".")[0] == name}
    text = article.get_text()
    assert not re.findall(r"(?<![\w.\[])_\w+", text) and "object at 0x" not in text and "`" not in text
    assert article.select('a[href*="notebooks/"]'), "no link to a chapter"
    row = parsed(folder / "api.html").select_one(f'article table a[href="api/{name}.html"]')
    assert row.get_text() == name


def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
