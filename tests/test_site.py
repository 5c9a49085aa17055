"""The built pages: complete, checked by the ledger, at home on a disk with no network."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import ledger_page
import pairs
import pytest
import readme_picture
from bs4 import BeautifulSoup
from pairs import ROOT

from helpers.ledger import ARITHMETIC

FETCHING = {  # attributes by which a page fetches something without being asked
    "script": ["src"],
    "img": ["src", "srcset"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "use": ["href", "xlink:href"],
    "image": ["href", "xlink:href"],
    "link": ["href"],
}
LINK_KINDS_NOT_FETCHED = {"canonical", "next", "prev", "search", "index", "author", "license"}
REMOTE_IN_CSS = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="session")
def pages(built):
    return {path: parsed(path) for path in sorted((built / "html").rglob("*.html"))}


@cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def remote(address):
    return bool(re.match(r"\s*(https?:)?//", address or "", re.IGNORECASE))


def test_every_page_of_the_contents_is_there(built, pages):
    names = {path.relative_to(built / "html").with_suffix("").as_posix() for path in pages}
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    wanted = {name.removesuffix(".ipynb") for name in re.findall(r"(?:file|root): (\S+)", contents)}
    assert wanted <= names and "index" in names


def test_nothing_is_fetched_from_elsewhere(built, pages):
    found = []
    for path, page in pages.items():
        for tag, attributes in FETCHING.items():
            for node in page.find_all(tag):
                if tag == "link" and set(node.get("rel", [])) <= LINK_KINDS_NOT_FETCHED:
                    continue
                for attribute in attributes:
                    parts = (node.get(attribute) or "").split(",") if attribute == "srcset" else [node.get(attribute)]
                    found += [(path.name, tag, part) for part in parts if remote(part)]
        styles = [node.get_text() for node in page.find_all("style")] + [n["style"] for n in page.select("[style]")]
        found += [(path.name, "style", style[:80]) for style in styles if REMOTE_IN_CSS.search(style)]
        for script in page.find_all("script", src=False):
            text = re.sub(r'"@context": "https://schema.org"', "", script.get_text())
            found += [(path.name, "script", address) for address in re.findall(r"https?://[\w./@-]+", text)]
    for path in (built / "html").rglob("*.css"):
        if REMOTE_IN_CSS.search(path.read_text(encoding="utf-8")):
            found.append((path.name, "css", ""))
    assert not found


def test_internal_links_and_anchors_lead_somewhere(built, pages):
    html, broken = built / "html", []
    anchors = {path: {n["id"] for n in page.select("[id]")} | {n["name"] for n in page.select("a[name]")}
               for path, page in pages.items()}  # fmt: skip
    for path, page in pages.items():
        for node in page.find_all("a", href=True):
            parts = urlsplit(node["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            fragment = unquote(parts.fragment)
            if not target.is_file():
                broken.append((str(path.relative_to(html)), node["href"]))
            elif fragment and target in anchors and fragment not in anchors[target]:
                broken.append((str(path.relative_to(html)), node["href"]))
    assert not broken


def test_every_picture_says_what_it_shows(pages):
    for path, page in pages.items():
        for image in page.find_all("img"):
            alt = image.get("alt", "").strip()
            if image["src"].endswith("logo.svg"):
                continue  # the theme names the logo after the book
            assert len(alt) > 20 and not re.search(r"\.(png|svg|jpe?g)$|^(\.\.|_)", alt), (path.name, image["src"], alt)


def test_ledger_page_lists_all_equations(built, pages):
    checks = json.loads((built / "ledger.json").read_text(encoding="utf-8"))
    page = pages[built / "html" / "book" / "ledger.html"]
    rows = page.select("article table.ledger tbody tr")
    assert [row.td.get_text(strip=True) for row in rows] == [f"Eq. {number}" for number in range(1, 33)]
    for number, row in zip(range(1, 33), rows, strict=True):
        of = [check for check in checks if check["equation"] == number]
        verdict = row.find_all("td")[2].get_text(strip=True)
        assert verdict == ledger_page.verdict(of)
        if of:
            assert verdict == "verified" and len({check["kind"] for check in of}) >= 2
            assert row.a["href"].endswith(f"#equation-{number}")
    assert {check["equation"] for check in checks} >= {*range(1, 9), 10, 11, 12}


def test_every_certificate_is_listed_and_none_has_a_tolerance(built, pages):
    found = json.loads((built / "certificates.json").read_text(encoding="utf-8"))
    assert found and all(one["passed"] for one in found)
    for one in found:
        assert set(one) == {"claim", "notebook", "arithmetic", "evidence", "erratum", "passed"}
        assert one["arithmetic"] in ARITHMETIC
    rows = pages[built / "html" / "book" / "ledger.html"].select("table.certificates tbody tr")
    assert len(rows) == len(found)
    for one, row in zip(found, rows, strict=True):
        cells = [cell.get_text() for cell in row.find_all("td")]
        assert cells[1].strip() == one["arithmetic"]
        assert "".join(cells[2].split()) == "".join(one["evidence"].split())
        assert one["notebook"] in row.a["href"]


def test_every_certificate_in_a_source_was_made(built):
    found = json.loads((built / "certificates.json").read_text(encoding="utf-8"))
    for source in pairs.chapters():
        calls = source.read_text(encoding="utf-8").count("ledger.certify(")
        assert sum(one["notebook"] == source.stem for one in found) >= calls, source.stem


def test_rows_are_exact_where_a_certificate_decides_them_and_nowhere_else(built, pages):
    found = json.loads((built / "certificates.json").read_text(encoding="utf-8"))
    rows = pages[built / "html" / "book" / "errata.html"].select("table.errata tbody tr")
    marked = [row for row in rows if row.find_all("td")[-1].get_text().strip().endswith("exact")]
    assert len(marked) == len({one["erratum"] for one in found if one["erratum"]})


def test_a_certificate_marks_the_one_row_that_it_names():
    page = "| a | first words | [x](y) |\n| b | other words | [x](y) |\n"
    one = {"erratum": "first words"}
    marked = ledger_page.mark_exact(page, [one, one, {"erratum": ""}])
    assert marked == "| a | first words | [x](y), **exact** |\n| b | other words | [x](y) |\n"
    assert ledger_page.mark_exact(marked, [one]) == marked
    for words in ("words", "nowhere"):
        with pytest.raises(SystemExit):
            ledger_page.mark_exact(page, [{"erratum": words}])


def test_verdicts_of_the_ledger():
    algebra = {"kind": "algebra", "passed": True}
    assert ledger_page.verdict([]) == "not yet here"
    assert ledger_page.verdict([algebra, algebra]) == "checked by one kind only"
    assert ledger_page.verdict([algebra, {"kind": "library", "passed": True}]) == "verified"
    assert ledger_page.verdict([algebra, {"kind": "library", "passed": False}]) == "**fails**"


def test_landing_page_has_its_picture_without_a_script_too(built, pages):
    image = pages[built / "html" / "book" / "intro.html"].select_one("article .theta-picture img")
    shown = (built / "html" / "book" / image["src"]).resolve().read_text(encoding="utf-8")
    assert shown == readme_picture.picture()


def test_download_buttons_always_and_the_others_with_an_address(built, pages):
    page = pages[built / "html" / "notebooks" / "01_ppca.html"]
    assert page.select('a[href$="01_ppca.ipynb"]')
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    address = re.search(r'^  url: "(.*)"', config, re.MULTILINE)[1]
    assert bool(page.select("a.btn-source-repository-button, .dropdown-source-buttons a")) == bool(address)
    assert bool(page.select('a[href*="colab.research.google.com"]')) == address.startswith("https://github.com/")


def test_data_folder_may_be_given_relative_to_here():
    probe = "import os, build; print(os.environ['BOOK_DATA'])"
    command = f"import sys; sys.path.insert(0, {str(ROOT / 'book')!r}); sys.argv = ['build.py', '--help']\n"
    command += "import build\ntry:\n    build.main()\nexcept SystemExit:\n    pass\n" + probe
    environment = {**os.environ, "BOOK_DATA": "somewhere"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=True)
    assert Path(done.stdout.splitlines()[-1]).name == "somewhere"
