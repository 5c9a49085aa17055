"""Sphinx extension: what a page of the book has that neither theme nor Jupyter Book gives it.

Chapters carry the numbers by which the text calls them; a citation leads to its own entry, a link to an equation or to
an entry shows it when pointed at; each page describes itself to search engines; and what the theme does that a screen
reader, a phone or a browser's console would stumble over is mended.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from pybtex.database import parse_file
from sphinx.util import logging

CHAPTER = re.compile(r"notebooks/(\d\d)_\w+$")
REFERENCES = "book/references"
SUMMARY = 'aria-label="Toggle hidden content"'  # MyST-NB's; it hides the summary's own words
SEARCH = 'search-button-field search-button__button pst-js-only" title="Search"'  # its own words are its name
MENDED = (
    (SUMMARY, ""),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),  # docutils gives it no list items
    (' role="doc-biblioentry"', ""),
    ('<summary><span class="toctree-toggle"', '<summary aria-label="Its pages"><span class="toctree-toggle"'),
    ('console.log("[PST]', 'void ("[PST]'),
    ('search-button-field search-button__button pst-js-only" title="Search" aria-label="Search"', SEARCH),
    ('data-mode="light" title="Light"', 'data-mode="light"'),  # the button's own name is enough
    ('data-mode="dark"  title="Dark"', 'data-mode="dark"'),
    ('data-mode="auto"  title="System Settings"', 'data-mode="auto"'),
    ('<div id="pst-primary-sidebar" class', '<div id="pst-primary-sidebar" role="navigation" aria-label="Book" class'),
)
STANDALONE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{description}">
<link rel="icon" href="{icon}">
{more}<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 34rem; margin: 4rem auto; padding: 0 1rem; font: 1.1rem/1.6 system-ui, sans-serif; }}
a:focus-visible {{ outline: 3px solid; outline-offset: 2px; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{text}
</main>
</body>
</html>
"""
LOGO = "book/_static/logo.svg"


def number_chapter(app, doctree):
    """Put "7. " before the title of notebooks/07_name, and with it into sidebar, browser and search."""
    found = CHAPTER.match(app.env.docname)
    title = next(iter(doctree.findall(nodes.title)), None)
    if found and title is not None:
        title.insert(0, nodes.Text(f"{int(found[1])}. "))


def surnames(person):
    return " ".join(person.prelast_names + person.last_names)


def citations(path):
    """The keys of a bibliography by first author's surname and year, with the letter that a key has after its year."""
    keys = {}
    for key, entry in parse_file(path).entries.items():
        name = surnames(entry.persons["author"][0]).replace("{", "").replace("}", "")
        letter = re.search(r"\d([a-z]?)$", key)[1]
        keys[name, entry.fields["year"] + letter] = key
    return keys


def lead_to_entries(app, doctree, docname):
    """Let a link to the references whose text is "Surname ..., year" lead to that entry."""
    keys = citations(Path(app.srcdir) / app.config.bibtex_bibfiles[0])
    for link in doctree.findall(nodes.reference):
        address, text = link.get("refuri", ""), " ".join(link.astext().split())
        year = re.search(r"\b\d{4}[a-z]?$", text)
        if not address.endswith("references.html") or not year:
            continue
        key = keys.get((re.split(r",| et al\.| & ", text)[0], year[0]))
        if key is None:
            logging.getLogger(__name__).warning("no entry of the references is %r", text, location=link)
        else:
            link["refuri"] = f"{address}#{key}"


def collect_previews(app, doctree, docname):
    """Remember the first display of each section "Equation N", and each entry of the references, as HTML."""
    found = app.env.book_previews = getattr(app.env, "book_previews", {})
    for section in doctree.findall(nodes.section):
        names = [name for name in section["ids"] if re.fullmatch(r"equation-\d+", name)]
        displays = list(section.findall(nodes.math_block))
        if names and displays:
            tex = displays[0].astext()
            if "\\\\" in tex and "\\begin" not in tex:  # as Sphinx does for lines without an environment
                tex = f"\\begin{{split}}{tex}\\end{{split}}"
            found[names[0]] = f"\\[{html.escape(tex)}\\]"
    if docname == REFERENCES:
        for entry in doctree.findall(nodes.citation):
            found[entry["ids"][0]] = html.escape(" ".join(node.astext() for node in entry.children[1:]))


def description(doctree):
    """The first paragraph without formulas, cut to what a search engine shows."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 60 and not list(paragraph.findall(nodes.math)) and isinstance(paragraph.parent, nodes.section):
            return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " …"
    return ""


def describe(app, pagename, templatename, context, doctree):
    """Description and OpenGraph of a page; its address only where the book has one."""
    text = description(doctree) if doctree is not None else ""
    text = text or f"{app.config.project}: an executable book on posterior collapse in variational autoencoders."
    plain = html.unescape(re.sub("<[^>]+>", "", context.get("title", "")))
    tags = {"og:title": plain, "og:description": text, "og:type": "article", "og:site_name": app.config.project}
    if app.config.html_baseurl:
        tags["og:url"] = f"{app.config.html_baseurl.rstrip('/')}/{pagename}.html"
    lines = [f'<meta property="{name}" content="{html.escape(value)}" />' for name, value in tags.items()]
    lines.append(f'<meta name="description" content="{html.escape(text)}" />')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines) + "\n"


def mend_pages(app, error):
    """Write what is shown on pointing, the pages outside of the contents, and mend the theme's markup."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    previews = json.dumps(dict(sorted(app.env.book_previews.items())), ensure_ascii=False)
    (out / "_static" / "previews.js").write_text(f"window.bookPreviews({previews});\n", encoding="utf-8")
    root = app.config.root_doc
    title, text = app.config.project, "An executable book on posterior collapse in variational autoencoders."
    more = f'<meta http-equiv="refresh" content="0; url={root}.html">\n'
    link = f'<p><a href="{root}.html">Open the book</a>.</p>'
    page = STANDALONE.format(title=title, description=text, icon="_static/logo.svg", more=more, text=link)
    (out / "index.html").write_text(page, encoding="utf-8")
    base = app.config.html_baseurl
    base = base.rstrip("/") + "/" if base else ""  # a missing page may be missing in any folder
    text = f'<p>There is no page of this name. <a href="{base}{root}.html">The book begins here</a>.</p>'
    page = STANDALONE.format(title="Not found", description=title, icon="data:,", more="", text=text)
    (out / "404.html").write_text(page, encoding="utf-8")
    for path in out.rglob("*.html"):
        page = new = path.read_text(encoding="utf-8")
        for old, better in MENDED:
            new = new.replace(old, better)
        if new != page:
            path.write_text(new, encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", number_chapter, priority=100)  # before the titles are collected
    app.connect("doctree-resolved", lead_to_entries, priority=900)
    app.connect("doctree-resolved", collect_previews)
    app.connect("html-page-context", describe)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
