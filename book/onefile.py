"""The whole book as one file that needs no network: python book/onefile.py, after python book/build.py

Puts the built pages one after the other into _build/book.html and has headless Chromium print it to _build/book.pdf.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import yaml
from bs4 import BeautifulSoup
from pairs import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MINUTES = 20  # that Chromium may take; thousands of formulas are set
DROPPED = "a.headerlink, button, script, .prev-next-area, .toc, noscript, .asleep"
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light" data-content_root="./">
<head>
<meta charset="utf-8">
<title>{title}</title>
{styles}
<style>
@page {{ size: A4; margin: 16mm 14mm; }}
body {{ display: block; background: #fff; }}
article {{ break-before: page; }}
.bd-main .bd-content .bd-article h1:first-of-type {{ display: block; text-align: left; }}
article:first-of-type {{ break-before: auto; }}
</style>
<script>window.MathJax = {{options: {{processHtmlClass: "tex2jax_process|mathjax_process|math|output_area"}}}};</script>
<script defer src="html/_static/mathjax/tex-chtml.js"></script>
<script defer src="html/_static/book.js"></script>
</head>
<body>
<main class="bd-main"><div class="bd-content"><div class="bd-article-container">
{articles}
</div></div></main>
</body>
</html>
"""


def pages(contents):
    """Names of the pages in the order of the table of contents, read from _toc.yml."""
    table = yaml.safe_load(contents)
    files = [table["root"], *(page["file"] for part in table["parts"] for page in part["chapters"])]
    return [name.removesuffix(".ipynb") for name in files]


def place(html, name, names):
    """The article of a page, its names made unique in the book, its links turned to them, its files found from here."""
    soup = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article")
    explorers = {id(script) for script in article.select(".cell_output script")}  # these draw their figure
    for node in article.select(DROPPED):
        if id(node) not in explorers:
            node.decompose()
    for node in article.select("[id]"):
        node["id"] = f"{name}--{node['id']}"
    for node in article.select("details"):
        node["open"] = ""
    for node in article.select("a[href]"):
        node["href"] = turned(node["href"], name, names)
    for node in article.select("img[src]"):
        node["src"] = beside(node["src"], name)
    for node in article.select("source"):  # on paper the wide form
        node.decompose()
    for image in article.select("img"):
        del image["loading"]
    article["id"] = f"{name}--"
    return article.decode()


def beside(address, name):
    """Where a file that page `name` refers to lies, seen from the folder that holds html."""
    if re.match(r"[a-z]+:", address):
        return address
    return os.path.normpath(os.path.join("html", os.path.dirname(name), address))


def turned(address, name, names):
    """A link of page `name`: to a place in the book if it leads to one of its pages."""
    if re.match(r"[a-z]+:", address):
        return address
    path, _, fragment = address.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(name), path)).removesuffix(".html") if path else name
    return f"#{target}--{fragment}" if target in names else beside(address, name)


def write_page(build):
    """Write `build`/book.html from the pages in `build`/html; returns its path."""
    html = build / "html"
    names = pages((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    first = BeautifulSoup((html / f"{names[0]}.html").read_text(encoding="utf-8"), "html.parser")
    sheets = [node["href"].split("?")[0] for node in first.select('link[rel="stylesheet"]')]
    styles = "\n".join(f'<link rel="stylesheet" href="{beside(sheet, names[0])}">' for sheet in sheets)
    articles = "\n".join(place(html, name, set(names)) for name in names)
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    path = build / "book.html"
    path.write_text(PAGE.format(title=title, styles=styles, articles=articles), encoding="utf-8")
    return path


def print_page(path):
    """Let Chromium print `path` to a PDF beside it; returns the PDF's path."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(
            f"no Chromium was found (looked for {', '.join(BROWSERS)}); open {path} in a browser and print it"
        )
    pdf = path.with_suffix(".pdf")
    pdf.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            f"--user-data-dir={profile}",
        ]
        command += ["--disable-background-networking", "--allow-file-access-from-files", "--no-pdf-header-footer"]
        command += [
            "--generate-pdf-document-outline",
            f"--virtual-time-budget={MINUTES * 60_000}",
            f"--print-to-pdf={pdf}",
        ]
        done = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=MINUTES * 60, check=False)
    if not pdf.exists():
        raise SystemExit(f"Chromium printed nothing: {done.stderr.decode(errors='replace')[-500:]}")
    return pdf


def main():
    """Write both files."""
    build = ROOT / "_build"
    if not (build / "html" / "index.html").exists():
        raise SystemExit("there are no pages yet; run python book/build.py first")
    page = write_page(build)
    print(f"The book is one file: {print_page(page)}")


if __name__ == "__main__":
    sys.exit(main())
