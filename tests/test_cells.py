"""What becomes of a notebook's cells and figures on a page, and of the pages in one file."""

import base64
import io
import re

import cells
import drawing
import matplotlib
import nbformat
import numpy as np
import onefile
import page
import pytest
from bs4 import BeautifulSoup
from pairs import ROOT
from PIL import Image
from repository import UNSET

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from helpers import plots

TABLE = "of 20 units:  λ > σ²   KL > 0.1\nσ² = 0.1           69         12\n"
SENTENCE = "Eq. 7 · formula (algebra): passed, error 3e-16 of 1e-12\n"
ABSENT = "no recorded run yet; make one with: python -m helpers.studies run s --profile paper --device cuda (last)\n"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_printed_tables_keep_their_shape_and_sentences_wrap():
    blocks = BeautifulSoup(cells.printed(SENTENCE + TABLE + SENTENCE), "html.parser").select("pre")
    assert [block["class"] for block in blocks] == [["words"], ["columns"], ["words"]]
    assert "".join(f"{block.get_text()}\n" for block in blocks) == SENTENCE + TABLE + SENTENCE
    matrix = cells.printed("[[ 1. 2.]\n [ 3. 4.]]\na < b\n")
    assert '<pre class="columns">[[ 1. 2.]\n [ 3. 4.]]</pre><pre class="words">a &lt; b</pre>' in matrix


def code(source, *texts, **metadata):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in texts]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata=metadata)


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def test_absent_runs_leave_one_note_a_figure_and_no_text(tmp_path):
    picture = {"mystnb": {"image": {"alt": "Figure 3"}}}
    notebook = nbformat.v4.new_notebook(
        cells=[
            text(f"# Title\n\n{UNSET}"),
            code("import importlib.util"),
            code("print(1)", "1\n"),
            text("As it was on Tuesday.", "where-recorded"),
            text("And with seeds:", "where-recorded"),
            code("show()", ABSENT),
            code("draw()", ABSENT, **picture),
            text("In the picture, red.", "where-recorded"),
            text("## On"),
        ]
    )
    page = cells.prepare(notebook, "one", tmp_path)
    kept = [cell for cell in page.cells if "remove-cell" not in cell.metadata.get("tags", [])]
    assert [cell.source for cell in kept] == ["# Title", "print(1)", "As it was on Tuesday.", "draw()", "## On"]
    note = kept[3].outputs[0].data["text/html"]
    assert kept[3].metadata["tags"] == ["remove-input"] and note.count("admonition note") == 1
    assert "<code>python -m helpers.studies run s --profile paper --device cuda</code>" in note and "Figure 3" in note


def forms(*shape, draw=lambda ax: ax.plot([0, 1], [1, 2])):
    fig, axes = plots.figure(*shape, squeeze=False, width=4.0 * shape[1], height=3.0 * shape[0])
    for ax in axes.flat:
        draw(ax)
    made = drawing.forms(fig)
    picture = Image.open(io.BytesIO(base64.b64decode(made["image/png"])))
    assert (
        abs(picture.width / fig.dpi - made[drawing.FIGURE]["wide"]["width"] / 96) < 0.2
    )  # Jupyter's own is the wide one
    return fig, made[drawing.FIGURE]


def test_figures_of_lines_are_drawings_that_every_build_makes_alike():
    (_, first), (_, second) = forms(1, 2), forms(1, 2)
    assert first == second and first["wide"]["format"] == first["narrow"]["format"] == "svg"
    assert not re.search(r"<dc:date>|<!--|\d\.\d{3}", re.sub(r"scale\([^)]*\)|0\.\d+", "", first["wide"]["data"]))


def test_panels_of_a_row_stand_below_each_other_on_a_phone():
    fig, made = forms(1, 3)
    places = [ax.get_position() for ax in fig.axes]
    assert places[0].y0 > places[1].y1 and places[1].y0 > places[2].y1
    assert made["narrow"]["width"] < 500 < made["wide"]["width"]
    fig, made = forms(2, 7, draw=lambda ax: ax.imshow(np.eye(3)) and ax.set(xticks=[], yticks=[]))
    places = np.array([(round(ax.get_position().x0, 3), round(ax.get_position().y0, 3)) for ax in fig.axes])
    assert len(set(places[:, 0])) == 4 and len(set(places[:, 1])) == 4
    assert (places[7:, 1] < places[:7, 1]).all() and made["wide"]["format"] == "webp"


def test_citations_are_told_apart_by_name_and_year():
    keys = page.citations(ROOT / "book" / "references.bib")
    assert keys["Lucas", "2019"] == "lucas2019" and keys["Lucas", "2019b"] == "lucas2019b"
    assert keys["Rolínek", "2018"] == "rolinek2018" and keys["Dai", "2020"] == "dai2020"


def test_links_of_the_one_file_lead_into_it():
    names = {"book/errata", "notebooks/01_ppca"}
    assert (
        onefile.turned("../notebooks/01_ppca.html#equation-7", "book/errata", names) == "#notebooks/01_ppca--equation-7"
    )
    assert onefile.turned("#here", "book/errata", names) == "#book/errata--here"
    assert onefile.turned("https://example.org/a.html", "book/errata", names) == "https://example.org/a.html"
    assert onefile.turned("../search.html", "book/errata", names) == "html/search.html"
    assert onefile.beside("../_static/a.svg", "book/errata") == "html/_static/a.svg"
    assert onefile.pages((ROOT / "_toc.yml").read_text(encoding="utf-8"))[:3] == [
        "book/intro",
        "book/your_vae",
        "book/notation",
    ]
