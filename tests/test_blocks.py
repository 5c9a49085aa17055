"""Blocks of the pages: numbers without gaps, mentions that lead somewhere, and what becomes of each form."""

import re

import blocks
import nbformat
import pairs
import pytest

SOURCES = pairs.chapters()
STATEMENTS = set(blocks.STATEMENTS.split("|"))


def markdown(source):
    return [cell.source for cell in pairs.read_source(source).cells if cell.cell_type == "markdown"]


def drawn(notebook):
    """For each cell with a figure: the cell and the text of the one below it."""
    below = [*notebook.cells[1:], nbformat.v4.new_markdown_cell()]
    return [
        (a, b) for a, b in zip(notebook.cells, below, strict=True) if a.cell_type == "code" and blocks.has_figure(a)
    ]


@pytest.fixture(params=SOURCES, ids=lambda source: source.stem)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def known():
    return blocks.all_defined(map(pairs.read_source, SOURCES))


def gaps(numbers, chapter):
    """Those of the numbers that are not the next of the chapter, beside what was expected."""
    expected = [f"{chapter}.{i}" for i in range(1, len(numbers) + 1)]
    return [(found, wanted) for found, wanted in zip(numbers, expected, strict=True) if found != wanted]


def test_numbers_run_without_a_gap(source):
    found = [block for text in markdown(source) for block in blocks.defined(text)]
    chapter = int(source.stem[:2])
    for kinds in (STATEMENTS, {"Exercise"}, {"Figure"}):  # statements of all kinds share one count
        assert gaps([number for kind, number in found if kind in kinds], chapter) == []
    assert {"Exercise", "Figure"} <= {kind for kind, _ in found}


def test_a_gap_is_seen():
    assert gaps(["3.1", "3.3"], 3) == [("3.3", "3.2")]


def test_mentions_lead_to_blocks(source, known):
    text = "\n\n".join(markdown(source))
    assert [block for block in blocks.mentioned(text) if block not in known] == []
    assert not re.search(rf"\b[a-z]*({'|'.join(map(str.lower, blocks.KINDS.split('|')))}) \d", text), (
        "by number: capital"
    )


def test_every_figure_has_a_numbered_caption(source):
    for cell, below in drawn(pairs.read_source(source)):
        assert blocks.CAPTION.match(below.source), cell.source


def test_every_form_that_looks_like_a_block_is_one(source):
    for text in markdown(source):
        for quotation in re.findall(r"^> \*\*(?:\w+ \d+\.|In short).*", text, re.MULTILINE):
            assert blocks.LABEL.match(quotation[2:]), quotation
        for begin in re.findall(r"^(?:\*\*Figure \d+\.\d|\*\*Exercise).*", text, re.MULTILINE):
            assert blocks.CAPTION.match(text) or blocks.EXERCISE.match(begin), begin


def test_no_formula_of_a_quotation_is_broken(source):
    # JupyterLab and Colab take a formula out of the text before the mark at the next line's beginning is read.
    for text in markdown(source):
        for line in re.findall(r"^>.*", text, re.MULTILINE):
            assert line.count("$") % 2 == 0, line


def test_every_chapter_begins_with_what_it_shows(source):
    first = markdown(source)[0]
    box = blocks.to_directives(first, set()).partition("::::{admonition} In short\n:class: tip in-short\n\n")[2]
    points = re.findall(r"^- ", box.partition("\n::::")[0], re.MULTILINE)
    assert 3 <= len(points) <= 5
    assert first.index("**In short**") < first.index("**You need**")


STATEMENT = "> **Theorem 1.1** (A name). *Let $x$ be*\n>\n> $$ x = 1 . $$\n\nAfter."
PROOF = "**Proof.** By Theorem 1.1.\n\n$$ y = 1 . \\square $$\n\nAfter."
EXERCISES = "## Exercises\n\n**Exercise 1.1. What?** One.\n\nMore.\n\n**Exercise 1.2.** Two.\n\n## References"


@pytest.mark.parametrize(
    ("text", "page"),
    [
        (
            STATEMENT,
            "::::{admonition} Theorem 1.1 (A name)\n:class: statement theorem\n:name: theorem-1-1\n\n*Let $x$ be*\n\n"
            "$$ x = 1 . $$\n::::\n\nAfter.",
        ),
        (
            PROOF,
            ":::::{container} proof\n\n**Proof.** By [Theorem 1.1](#theorem-1-1).\n\n$$ y = 1 . \\square $$\n:::::"
            "\n\nAfter.",
        ),
        (
            EXERCISES,
            "## Exercises\n\n::::{admonition} Exercise 1.1. What?\n:class: exercise\n:name: exercise-1-1\n\nOne."
            "\n\nMore.\n::::\n\n::::{admonition} Exercise 1.2\n:class: exercise\n:name: exercise-1-2\n\nTwo.\n::::"
            "\n\n## References",
        ),
        (
            "**Figure 1.1.** A $b$\nand c.\n\nAfter.",
            ":::{container} caption\n:name: figure-1-1\n\n**Figure 1.1.** A $b$\nand c.\n:::\n\nAfter.",
        ),
        ("> Somebody's words.", "> Somebody's words."),
        ("A proof without an end. **Proof.** It", "A proof without an end. **Proof.** It"),
        (
            "`Theorem 1.1`, $Theorem 1.1$, [see Theorem 1.1](x.md)",
            "`Theorem 1.1`, $Theorem 1.1$, [see Theorem 1.1](x.md)",
        ),
        ("Theorem 7.1, [Theorem 1.1](x.ipynb#y)", "Theorem 7.1, [Theorem 1.1](#theorem-1-1)"),
    ],
)
def test_forms_become_directives(text, page):
    assert blocks.to_directives(text, {("Theorem", "1.1")}) == page


def cell(source, *tags, **metadata):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=source)]
    return nbformat.v4.new_code_cell(source, metadata={"tags": [*tags], **metadata}, outputs=outputs)


def test_folded_cells_in_a_row_are_one_and_say_what_they_hold():
    image = {"image": {"alt": "Words"}}
    notebook = nbformat.v4.new_notebook(
        cells=[
            cell("p", "parameters"),
            cell("a", "hide-cell"),
            cell("b", "hide-cell", "nbval-ignore-output"),
            cell("c"),
            cell("d", "hide-input"),
            cell("e", "hide-input", mystnb=image),
            cell("f", "hide-input", mystnb=image),
            nbformat.v4.new_markdown_cell("**Exercise 1.1.** What?\n\n**Exercise 1.2.** And?"),
            cell("g", "hide-cell"),
        ]
    )
    page = blocks.prepare(notebook, set())
    assert [c.source for c in page.cells if c.cell_type == "code"] == ["p", "a\n\nb", "c", "d\n\ne", "f", "g"]
    assert [output.text for output in page.cells[1].outputs] == ["a", "b"]
    assert page.cells[3].metadata["mystnb"]["image"] == image["image"]
    prompts = [c.metadata.get("mystnb", {}).get("code_prompt_show") for c in page.cells]
    assert prompts == [
        "Show the code",
        "Show the check",
        None,
        "Show the code",
        "Show the code",
        None,
        "Show the solution of Exercise 1.2",
    ]


def test_blocks_and_links_on_a_built_page(tmp_path):
    from sphinx.application import Sphinx

    one = nbformat.v4.new_markdown_cell("\n\n".join(["# One", STATEMENT, PROOF, EXERCISES]))
    two = nbformat.v4.new_markdown_cell("# Two\n\nBy [Theorem 1.1](one.ipynb) and Exercise 1.2.")
    notebooks = {name: nbformat.v4.new_notebook(cells=[text]) for name, text in (("index", one), ("two", two))}
    notebooks["index"].cells.append(nbformat.v4.new_markdown_cell("```{toctree}\ntwo\n```"))
    known = blocks.all_defined(notebooks.values())
    for name, notebook in notebooks.items():
        nbformat.write(blocks.prepare(notebook, known), tmp_path / f"{name}.ipynb")
    settings = ["extensions = ['myst_nb']", "nb_execution_mode = 'off'"]
    settings.append("myst_enable_extensions = ['colon_fence', 'dollarmath']")
    (tmp_path / "conf.py").write_text("\n".join(settings))
    folders = [str(tmp_path), str(tmp_path), str(tmp_path / "html"), str(tmp_path / "trees")]
    Sphinx(*folders, "html", status=None, warningiserror=True).build()
    page, other = ((tmp_path / "html" / f"{name}.html").read_text() for name in ("index", "two"))
    assert re.search(
        r'<div class="statement theorem admonition" id="theorem-1-1">\s*<p class="admonition-title">', page
    )
    assert re.search(r'<div class="proof docutils container">\s*<p><strong>Proof.', page)
    assert 'href="index.html#theorem-1-1"' in other and 'href="index.html#exercise-1-2"' in other


def test_glossary_is_in_order_and_leads_to_chapters():
    text = (pairs.ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S.*)\n((?:  .*\n)+)", text.partition(":::{glossary}\n")[2], re.MULTILINE)
    assert len(entries) >= 25
    names = [re.sub(r"[^a-z]", "", name.lower().translate(str.maketrans("βεθ", "bet"))) for name, _ in entries]
    assert names == sorted(names)
    assert [name for name, body in entries if not re.search(r"\]\(\.\./notebooks/\d\d_\w+\.ipynb", body)] == []
    assert set(re.findall(r"\{term\}`(.+?)`", text)) <= {name for name, _ in entries}
