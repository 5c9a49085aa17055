"""Sphinx extension: pages that need no network and say nothing to the browser's console."""

import re
import shutil
from importlib.metadata import files
from pathlib import Path

MATHJAX = "tex-chtml.js"
TALKATIVE = ("togglebutton.js", "scripts/pydata-sphinx-theme.js")

ICONS = "scripts/fontawesome.js"
ICON = re.compile(  # name: [width, height, [other names], "code", outline]
    r'"?([a-z0-9-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)


def remove_thebe(app, config):
    """Jupyter Book loads thebe whether asked to or not, and with it a script's address on another host."""
    for event, listeners in app.events.listeners.items():
        for listener in list(listeners):
            if event != "config-inited" and listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def remove_thebes_sheet(app, pagename, templatename, context, doctree):
    """With thebe goes the style sheet that it would have copied; a page that asks for it gets a 404."""
    context["css_files"] = [sheet for sheet in context.get("css_files", []) if "thebe" not in str(sheet.filename)]


def default_to_the_readers_mode(app, config):
    """Light or dark as the reader's system says; left empty, the theme calls its own default an error."""
    config.html_context.setdefault("default_mode", "auto")


def copy_mathjax(app, error):
    """Put MathJax beside the pages: of the installed package's 24 MB one script, its fonts and what it loads on
    demand (``boldsymbol`` for one), 2 MB."""
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    for file in files("sphinx-mathjax-offline"):
        on_demand = file.parent.name == "extensions" and file.name != "all-packages.js"
        if file.name == MATHJAX or file.suffix == ".woff" or on_demand:
            place = target / str(file).split("static/mathjax/")[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), place)


def silence(app, error):
    """Drop the theme's messages about its own doings, so that what the console does show is worth reading."""
    if error or app.builder.format != "html":
        return
    for name in TALKATIVE:
        path = Path(app.outdir) / "_static" / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("console.log(", "void(").replace("console.warn(", "void("), encoding="utf-8")


def keep_used_icons(app, error):
    """Of the theme's two thousand icons, 1.4 MB on every page, keep the dozen that the pages name."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    icons = out / "_static" / ICONS
    naming = [path for kind in ("*.html", "*.js") for path in out.rglob(kind) if path != icons]
    used = {name for path in naming for name in re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))}

    def kept(match):
        names = {match[1], *re.findall(r'"([a-z0-9-]+)"', match[2])}
        return match[0] if names & used else ""

    icons.write_text(ICON.sub(kept, icons.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", remove_thebe)
    app.connect("html-page-context", remove_thebes_sheet)
    app.connect("config-inited", default_to_the_readers_mode)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", silence)
    app.connect("build-finished", keep_used_icons, priority=900)  # when every page is there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
