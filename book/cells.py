"""What a page shows of a notebook's cells: figures for two widths, printed tables that keep their shape, no set-up."""

import base64
import html
import re

import nbformat
from drawing import FIGURE
from repository import UNSET

SETUP = 1  # the cell that fetches the package for a notebook that is alone, as in Colab
ABSENT = "no recorded run yet; make one with: "
COMMAND = re.compile(r"python -m helpers\.studies run \S+ --profile \S+ --device \w+")
WHERE_RECORDED = "where-recorded"  # the tag of text about a figure that needs a recorded run
COLUMNS = re.compile(r"\S {2,}\S|^ *\[|^ {8,}\S")  # of a line that is one of a table or of a matrix


def prepare(notebook, name, folder):
    """Make of an executed notebook, in place, what its page shows; its figures go into `folder`/_static/figures."""
    first = notebook.cells[0]
    first.source = first.source.replace(UNSET, "").rstrip()
    notebook.cells[SETUP].metadata["tags"] = ["remove-cell"]
    figures = 0
    for i, cell in enumerate(notebook.cells):
        if WHERE_RECORDED in cell.metadata.get("tags", []) and is_absent(notebook.cells, i):
            remove(cell)
    for cell in notebook.cells[SETUP + 1 :]:
        if cell.cell_type != "code":
            continue
        missing = missing_runs(cell)
        if missing and "image" in cell.metadata.get("mystnb", {}):
            remove(cell)
            cell.metadata["tags"] = ["remove-input"]
            cell.outputs = [shown(admonition(cell.metadata["mystnb"]["image"]["alt"], missing))]
            continue
        if missing:
            remove(cell)
            continue
        for i, output in enumerate(cell.outputs):
            if output.output_type == "stream" and output.name == "stdout":
                cell.outputs[i] = shown(printed(output.text))
            elif FIGURE in output.get("data", {}):
                alt = cell.metadata["mystnb"]["image"]["alt"]
                figures += 1
                cell.outputs[i] = shown(figure(output.data[FIGURE], f"{name}-{figures}", alt, folder))
    return notebook


def is_absent(cells, i):
    """Whether text `i` is about a run that is not there: of the next cell if it ends in a colon, else of the last."""
    nearby = cells[i + 1 :] if cells[i].source.rstrip().endswith(":") else reversed(cells[:i])
    return next((bool(missing_runs(cell)) for cell in nearby if cell.get("outputs")), False)


def shown(text):
    """An output of HTML."""
    return nbformat.v4.new_output("display_data", {"text/html": text})


def remove(cell):
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), "remove-cell"]


def missing_runs(cell):
    """The commands by which the recorded runs that a cell shows can be made; empty for a cell that shows something."""
    if not cell.outputs or any(output.output_type != "stream" for output in cell.outputs):
        return []
    lines = "".join(output.text for output in cell.outputs).splitlines()
    return [COMMAND.search(line)[0] for line in lines] if all(line.startswith(ABSENT) for line in lines) else []


def admonition(alt, commands):
    """What stands in place of a figure whose run has not been recorded."""
    listed = "<br>".join(f"<code>{html.escape(command)}</code>" for command in commands)
    return (
        '<div class="admonition note"><p class="admonition-title">Not recorded yet</p>'
        f"<p>{html.escape(alt)}: this figure needs a longer run than a page can make. To make it:<br>{listed}</p></div>"
    )


def printed(text):
    """Printed lines as HTML: a table keeps its shape and scrolls where it must, the others wrap, one by one."""
    blocks = []
    for line in text.rstrip("\n").split("\n"):
        kind = "columns" if COLUMNS.search(line) and len(line) < 120 else "words"
        if blocks and (blocks[-1][0] == kind == "columns" or not line.strip()):
            blocks[-1][1].append(line)
        else:
            blocks.append((kind, [line]))
    parts = (f'<pre class="{kind}">{html.escape(chr(10).join(lines))}</pre>' for kind, lines in blocks)
    return f'<div class="printed">{"".join(parts)}</div>'


def figure(forms, name, alt, folder):
    """Write both forms of a figure; the HTML that shows the one for the reader's screen."""
    places = {}
    for width in ("wide", "narrow"):
        form = forms[width]
        data = form["data"].encode() if form["format"] == "svg" else base64.b64decode(form["data"])
        file = folder / "_static" / "figures" / f"{name}{'' if width == 'wide' else '-narrow'}.{form['format']}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        places[width] = f"../_static/figures/{file.name}"
    size = f'width="{forms["wide"]["width"]}"'
    return (
        f'<picture><source media="(max-width: 600px)" srcset="{places["narrow"]}">'
        f'<img src="{places["wide"]}" {size} alt="{html.escape(alt)}" loading="lazy"></picture>'
    )
