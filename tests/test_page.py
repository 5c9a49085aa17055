"""The built pages as a reader has them: in a browser, wide and narrow, light and dark, by keyboard and on paper."""

import json
import re
import shutil
from pathlib import Path

import axe_playwright_python
import pytest
import yaml
from bs4 import BeautifulSoup
from pairs import ROOT
from playwright.sync_api import sync_playwright
from pybtex.database import parse_file

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

VIEWS = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PAPER = {"width": 688, "height": 1000}  # A4 less margins of 14 mm, in the browser's dots
SURVEY = (Path(__file__).parent / "survey.js").read_text(encoding="utf-8")
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
SECONDS = 300  # for a page of thousands of formulas on a busy machine
# axe looks at every node, and a chapter has tens of thousands: of formulas and of each kind of word in code a few do.
PRUNE = """() => {
  const seen = {};
  const enough = kind => (seen[kind] = (seen[kind] || 0) + 1) > 3;
  document.querySelectorAll("mjx-container").forEach(node => {
    if (node.tabIndex < 0 && enough("formula")) node.replaceWith("x");
  });
  document.querySelectorAll("pre span").forEach(node => { if (enough(node.className)) node.remove(); });
}"""
RUN_AXE = """async rules => {
  const more = rules ? {runOnly: rules} : {rules: {"label-content-name-mismatch": {enabled: true}}};
  const options = {preload: false, resultTypes: ["violations"], ...more};
  const {violations} = await axe.run(document, options);
  const some = nodes => nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(" | ");
  return violations.map(one => `${one.id} (${one.impact}): ${some(one.nodes)}`);
}"""
# What has the focus must look different from what has not: an outline, or a shadow.
FOCUS = """() => {
  const stops = [...document.querySelectorAll("a[href], button, summary, input, [tabindex='0']")].filter(node =>
    node.checkVisibility({checkVisibilityCSS: true, checkOpacity: true}));
  const kinds = new Map(stops.map(node => [`${node.tagName}.${node.className}`, node])), bad = [];
  for (const [kind, node] of kinds) {
    node.focus();
    const style = getComputedStyle(node);
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    if (document.activeElement === node && !ring) bad.push(kind);
  }
  return [kinds.size, bad];
}"""
SETTLED = """async () => {
  await window.MathJax?.startup?.promise;
  await new Promise(done => document.readyState === "complete" ? done() : addEventListener("load", done));
  document.querySelectorAll("img").forEach(image => { image.loading = "eager"; });
  await Promise.all([...document.images].map(image => image.decode().catch(() => 0)));
  await new Promise(done => setTimeout(done, 300));
}"""


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def opened(chromium, path, size):
    """A page of its own at `size`, its formulas set, and the list that its messages go to."""
    page = chromium.new_context(viewport=size, color_scheme="light").new_page()
    page.set_default_timeout(SECONDS * 1000)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"not found: {request.url}"))
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate(SETTLED)
    return page, said


def visit(chromium, path):
    """All that the tests below want to know of one page, by view. It is opened once: setting formulas takes longest."""
    page, said = opened(chromium, path, VIEWS["desk"])
    found = {"desk": page.evaluate(SURVEY)}
    page.emulate_media(media="print")
    page.set_viewport_size(PAPER)
    found["desk"]["paper"] = page.evaluate(SURVEY)["cut"] + page.evaluate(ON_PAPER)
    page.emulate_media(media="screen")
    page.set_viewport_size(VIEWS["desk"])
    page.keyboard.press("Tab")  # from here on the browser takes it that the keyboard is used
    found["desk"]["stops_seen"], found["desk"]["unseen"] = page.evaluate(FOCUS)
    page.set_viewport_size(VIEWS["phone"])
    page.evaluate("document.activeElement.blur()")
    page.evaluate(SETTLED)  # other forms of the figures
    found["phone"] = page.evaluate(SURVEY)
    for one in found.values():
        one["said"] = list(said)  # before axe, which says something itself
    page.evaluate(PRUNE)
    page.evaluate(AXE)
    page.add_style_tag(content="#pst-back-to-top { display: block !important }")  # as for who has scrolled down
    for view, size in VIEWS.items():
        page.set_viewport_size(size)
        page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'light'")
        page.wait_for_timeout(400)  # for colours that fade
        found[view]["axe"] = page.evaluate(RUN_AXE, None)
        page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark'")
        page.wait_for_timeout(400)
        found[view]["axe"] += ["dark: " + one for one in page.evaluate(RUN_AXE, ["color-contrast"])]
    page.context.close()
    return found


ON_PAPER = """() => [...document.querySelectorAll("article pre, article table, article td")].filter(node =>
  node.getClientRects().length && node.scrollWidth > node.clientWidth + 1).map(node =>
  `cut on paper: ${node.tagName} ${node.textContent.trim().slice(0, 50)}`)"""


@pytest.fixture(scope="module")
def surveys(built, chromium):
    """What `visit` found, by (page, view); every page of the site, its 404 page too."""
    html = built / "html"
    paths = [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    paths = [path for path in paths if path != html / "index.html"]  # it leads on at once
    found = {(str(path.relative_to(html)), view): one for path in paths for view, one in visit(chromium, path).items()}
    assert ("404.html", "phone") in found and sum(one["formulas"] for one in found.values()) > 5000
    return found


def listed(surveys, what, views=VIEWS):
    return {key: one[what] for key, one in surveys.items() if key[1] in views and one.get(what)}


def test_every_formula_is_set_and_no_latex_is_left_in_the_text(surveys):
    assert not listed(surveys, "raw") and not listed(surveys, "errors") and not listed(surveys, "undrawn")


def test_every_drawing_says_what_it_shows(surveys):
    assert not listed(surveys, "unnamed")


def test_nothing_is_cut_that_cannot_be_scrolled_to(surveys):
    assert not listed(surveys, "cut")
    assert all(one["sideways"] <= 0 for one in surveys.values())


def test_tables_keep_their_shape(surveys):
    assert not listed(surveys, "tables")


def test_a_desk_has_room_for_every_line_of_code(surveys):
    assert not listed(surveys, "code", ["desk"])


def test_the_keyboard_stops_where_there_is_something_to_do_and_nowhere_else(surveys):
    assert not listed(surveys, "stops") and not listed(surveys, "unreachable")


def test_what_has_the_focus_shows_it(surveys):
    assert all(one["stops_seen"] > 2 for (name, view), one in surveys.items() if view == "desk" and name != "404.html")
    assert not listed(surveys, "unseen")


def test_axe_finds_nothing(surveys):
    assert not listed(surveys, "axe")


def test_no_page_says_anything_to_the_console(surveys):
    assert not listed(surveys, "said")


def test_paper_has_every_line_and_every_column(surveys):
    assert not listed(surveys, "paper", ["desk"])


def test_figures_can_be_read_at_every_width(surveys):
    small = {}
    for key, one in surveys.items():
        assert not one["broken"], key
        for address, scale in one["figures"]:
            if "/figures/" not in address:
                continue
            assert ("-narrow" in address) == (key[1] == "phone")
            size = letters(Path(address.removeprefix("file://"))) * scale
            if size < 8:
                small[key, Path(address).name] = round(size, 1)
    assert not small


def letters(path):
    """The size of most letters of a figure, in the dots of its own size: of a drawing as it says, else 9.5 points."""
    if path.suffix == ".webp":
        return 9.5 * 2 * 110 / 72  # the book's pictures have twice 110 dots an inch, and letters of 9.5 points or more
    drawing = path.read_text(encoding="utf-8")
    return glyphs(drawing)


def glyphs(drawing):
    """A tenth of a drawing's runs of letters are smaller than this, in dots (its own are points)."""
    sizes = sorted(100 * float(size) for size in re.findall(r"<g transform=\"[^\"]*scale\((0\.\d+) -", drawing))
    return sizes[len(sizes) // 10] * 96 / 72


def test_an_explorer_and_its_result_share_a_phones_screen(built, chromium):
    for name, number in (("02_stability", 1), ("07_what_linear_theory_predicts", 2)):
        page, _ = opened(chromium, built / "html" / "notebooks" / f"{name}.html", VIEWS["phone"])
        box = page.locator("[class$=-explorer]")
        assert box.count() == 1 and box.locator("input").count() == number and box.locator(".asleep").count() == 0
        height, header = box.bounding_box()["height"], page.locator(".bd-header-article").bounding_box()["height"]
        assert height <= VIEWS["phone"]["height"] - header
        slider, shown = box.locator("input").first, box.locator(".value").first
        assert slider.bounding_box()["height"] >= 24
        before = shown.inner_text(), box.locator("output").inner_text()
        slider.focus()
        page.keyboard.press("ArrowRight")
        after = shown.inner_text(), box.locator("output").inner_text()
        assert before[0] != after[0] and before[1] != after[1] and f"σ² = {after[0]}" in after[1]
        light = box.evaluate("node => getComputedStyle(node).backgroundColor")
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        assert box.evaluate("node => getComputedStyle(node).backgroundColor") != light
        page.context.close()


def test_pointing_at_an_equation_or_a_citation_shows_it(built, chromium):
    page, said = opened(chromium, built / "html" / "book" / "errata.html", VIEWS["desk"])
    page.locator("article a[href*='#equation-7']").first.hover()
    page.wait_for_selector(".book-preview mjx-container")
    page.keyboard.press("Escape")
    assert page.locator(".book-preview").count() == 0
    page.context.close()
    page, more = opened(chromium, built / "html" / "notebooks" / "01_ppca.html", VIEWS["desk"])
    page.locator("article a[href$='references.html#tipping1999']").first.focus()
    page.wait_for_selector(".book-preview")
    assert "Probabilistic principal component analysis" in page.locator(".book-preview").inner_text()
    page.context.close()
    assert said == more == []


def test_paper_has_what_is_folded(built, chromium, tmp_path):
    page, said = opened(chromium, built / "html" / "notebooks" / "08_engine.html", VIEWS["desk"])
    folds = page.locator("article details")
    assert folds.count() > 5 and page.locator("article details[open]").count() == 0
    page.evaluate("""() => addEventListener("beforeprint", () => {
      document.title = [...document.querySelectorAll("article details")].filter(fold => fold.open).length;
    })""")
    page.pdf(path=tmp_path / "page.pdf")
    assert page.title() == str(folds.count())
    assert page.locator("article details[open]").count() == 0 and said == []
    page.context.close()


def soup(built, name):
    return BeautifulSoup((built / "html" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def test_chapters_have_the_numbers_that_the_text_calls_them_by(built):
    for path in sorted((built / "html" / "notebooks").glob("*.html")):
        number = f"{int(path.name[:2])}. "
        page = soup(built, f"notebooks/{path.stem}")
        assert page.h1.get_text().startswith(number) and page.title.get_text().startswith(number)
        assert (
            page.select_one("nav.bd-links .current.active > a, nav.bd-links li.active > a")
            .get_text()
            .strip()
            .startswith(number)
        )


def test_every_reference_can_be_reached_and_every_citation_leads_to_its_own(built):
    entries = parse_file(ROOT / "book" / "references.bib").entries
    page = soup(built, "book/references")
    assert {node["id"] for node in page.select("div.citation")} == set(entries)
    for key in entries:
        links = page.find(id=key).select("a[href^=http]")
        assert links or key == "bartholomew1987", key  # a book of 1987, of which there is no address
    for path in (built / "html").rglob("*.html"):
        chapter = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for link in chapter.select("article a[href*='references.html']"):
            if re.search(r"\d{4}[a-z]?$", link.get_text()):
                assert link["href"].partition("#")[2] in entries, (path.name, link.get_text())


def test_every_page_describes_itself(built):
    seen = set()
    for name in [*contents(), "index", "404"]:
        page = soup(built, name)
        text = page.select_one("meta[name=description]")["content"]
        assert page.title.get_text(strip=True) and len(text) > 15
        if name in contents():
            assert page.select_one("meta[property='og:title']") and page.select_one("meta[property='og:description']")
            seen.add(text)
    assert len(seen) > 0.8 * len(contents())
    assert soup(built, "index").select_one("main a[href='book/intro.html']")


def contents():
    table = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [table["root"], *(page["file"] for part in table["parts"] for page in part["chapters"])]
    return [name.removesuffix(".ipynb") for name in files]


def test_a_page_has_no_set_up_and_speaks_of_no_picture_that_is_not_there(built):
    for name in contents():
        text = soup(built, name).article.get_text()
        assert "importlib.util" not in text and "not yet, since the book has no public address" not in text
        assert "Where the record is there" not in text
        shown = [node.get_text() for node in soup(built, name).select(".cell_output pre")]
        assert not any(text.startswith("no recorded run yet") for text in shown)


def test_a_download_is_the_whole_notebook(built):
    for path in (built / "html" / "_sources" / "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        source = "".join("".join(cell["source"]) for cell in notebook["cells"])
        assert "importlib.util" in source and "Run it in Colab" in source
        kinds = {
            kind for cell in notebook["cells"] for output in cell.get("outputs", []) for kind in output.get("data", {})
        }
        assert "image/png" in kinds and not any("book" in kind for kind in kinds)


def test_previews_are_small(built):
    script = built / "html" / "_static" / "previews.js"
    assert 5_000 < script.stat().st_size < 60_000
    texts = json.loads(
        script.read_text(encoding="utf-8").removeprefix("window.bookPreviews(").rstrip().removesuffix(");")
    )
    equations = {key for key in texts if key.startswith("equation-")}
    assert len(equations) >= 31 and set(parse_file(ROOT / "book" / "references.bib").entries) <= set(texts)


def test_the_contents_of_a_page_open_behind_their_button_and_close_again(built, chromium):
    for size in VIEWS.values():
        page, said = opened(chromium, built / "html" / "book" / "reproduce.html", size)
        page.locator("button.secondary-toggle").click()
        link = page.locator("dialog[open] a[href='#data']")
        link.wait_for(state="visible")
        page.keyboard.press("Escape")
        link.wait_for(state="hidden")
        assert not said
        page.context.close()


def test_no_page_is_heavy(built):
    """A chapter with its figures is at most 0.8 MB; what all pages share, MathJax and its fonts above all, 2 MB."""
    for name in contents():
        page, folder = soup(built, name), (built / "html" / name).parent
        figures = [image["src"] for image in page.select("article img")]
        narrow = [source["srcset"] for source in page.select("article source")]
        shared = {node.get("href") or node.get("src") for node in page.select("link[rel=stylesheet], script[src]")}
        weight = {
            kind: sum((folder / address.split("?")[0]).stat().st_size for address in addresses)
            for kind, addresses in {"wide": figures, "narrow": narrow, "shared": shared}.items()
        }
        page_itself = (built / "html" / f"{name}.html").stat().st_size
        assert page_itself + max(weight["wide"], weight["narrow"]) < 800_000, (name, weight)
        assert weight["shared"] < 2_000_000, (name, weight)
