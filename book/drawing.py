"""IPython extension of the build: how a figure looks on a page, and how it looks on a phone.

A figure without images becomes a drawing (SVG), which is sharp at any size; one with images, or one whose drawing
is large, becomes a picture (WebP) with two dots for each of the page's. For a narrow screen the panels of a row
stand below each other. `book/build.py` takes both from the cell's output; elsewhere figures are what Jupyter makes.
"""

import base64
import io
import re
import textwrap

import matplotlib as mpl
from IPython.core.pylabtools import print_figure
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from PIL import Image

FIGURE = "application/vnd.book.figure+json"  # the wide and the narrow form, each with its format, data and size
NARROW = 4.6  # inches; on a phone, whose screen leaves 358 dots, letters keep four fifths of their size
LINE = 54  # letters of a title that fit on one line of it
LARGEST = 120_000  # bytes of a drawing; a picture of as many lines has about as many
WIDTH = re.compile(r'<svg [^>]*?\bwidth="([\d.]+)pt"')
STRIP = 4  # a row of more panels than that is a strip of small pictures, which stays one


def is_drawn(figure):
    """Whether a figure has no images, but lines and areas alone."""
    return not figure.findobj(lambda artist: isinstance(artist, (AxesImage, QuadMesh)))


def form(figure):
    """A figure as {"format", "data", "width"}, the width in the page's dots of 96 an inch."""
    if is_drawn(figure):
        drawing = drawn(figure)
        if len(drawing) <= LARGEST:
            return {"format": "svg", "data": drawing, "width": round(float(WIDTH.search(drawing)[1]) * 96 / 72)}
    image = Image.open(io.BytesIO(print_figure(figure, fmt="png", dpi=2 * figure.dpi))).convert("RGB")
    picture = io.BytesIO()
    image.save(picture, "WEBP", quality=80)
    data = base64.b64encode(picture.getvalue()).decode()
    return {"format": "webp", "data": data, "width": round(image.width * 96 / (2 * figure.dpi))}


def drawn(figure):
    """A figure as SVG, the same in each build, without comments and with coordinates to a hundredth of a point."""
    with mpl.rc_context({"svg.hashsalt": "book", "svg.fonttype": "path"}):
        text = print_figure(figure, fmt="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"\b([1-9]\d*\.\d\d)\d+", r"\1", re.sub(r"\n\s+", "\n", text))


def stack(figure):
    """Lay a figure out for a narrow screen, in place: its panels below each other, a strip of pictures in lines."""
    panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None]  # a colour bar has none
    rows, columns = panels[0].get_gridspec().get_geometry() if panels else (1, 1)
    width, height = figure.get_size_inches()
    if columns == 1:
        figure.set_size_inches(NARROW, height * max(NARROW / width, 0.85))
    elif columns <= STRIP:
        row = max(2.6, height / rows * min(1.0, NARROW * columns / width))
        ratios = [0.6 if is_picture(ax) else 1.0 for ax in panels]
        figure.set_size_inches(NARROW, row * sum(ratios))
        grid = GridSpec(len(panels), 1, figure=figure, height_ratios=ratios)
        for ax, cell in zip(panels, grid, strict=True):
            ax.set_subplotspec(cell)
    else:
        lines = -(-columns // STRIP)
        figure.set_size_inches(NARROW, height * lines * (NARROW / STRIP) / (width / columns))
        grid = GridSpec(rows * lines, STRIP, figure=figure)
        for i, ax in enumerate(panels):
            row, column = divmod(i, columns)
            ax.set_subplotspec(grid[row + rows * (column // STRIP), column % STRIP])
    for text in [*figure.texts, *(ax.title for ax in figure.axes)]:
        if len(text.get_text()) > LINE and "$" not in text.get_text():
            text.set_text(textwrap.fill(text.get_text(), LINE))


def is_picture(ax):
    """Whether a panel is one image without axes' numbers, for which a smaller place will do."""
    return bool(ax.images) and not ax.get_xticks().size


def forms(figure):
    """The mime bundle of a figure: Jupyter's own picture, and its forms on the page."""
    png = print_figure(figure, fmt="png", base64=True)
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")  # it has laid the figure out, and would do so again at each printing
    wide = form(figure)
    figure.set_layout_engine(engine)
    stack(figure)
    return {"image/png": png, FIGURE: {"wide": wide, "narrow": form(figure)}}


def load_ipython_extension(shell):
    """Called by IPython."""
    shell.display_formatter.mimebundle_formatter.for_type(Figure, forms)
