"""Blocks of a page, made of what a chapter's text marks by its form: statements, proofs, exercises, captions, folds.

The source reads well as plain Markdown, in JupyterLab and in Colab:

- a quotation that begins ``> **Theorem 5.1** (its name).``, or Proposition, Lemma, Corollary or Definition;
- a quotation that begins ``> **In short**``, in the first cell;
- a proof, from ``**Proof.**`` to its ``$\\square$``, within one cell;
- a paragraph that begins ``**Exercise 5.1. Its title.**``, up to the next or to the end of the cell;
- a paragraph that begins ``**Figure 5.1.**``, at the head of the cell under the figure.

The numbers are typed, so that text, book and Colab agree; tests/test_blocks.py holds that they run without a gap.
On the page each block has an address, such as theorem-5-1, and every mention of it elsewhere is a link.
"""

import re

STATEMENTS = "Theorem|Proposition|Lemma|Corollary|Definition"
KINDS = f"{STATEMENTS}|Exercise|Figure"
NUMBER = r"\d+\.\d+"
QUOTATION = re.compile(r"^>.*(?:\n>.*)*", re.MULTILINE)
LABEL = re.compile(rf"\*\*(?:({STATEMENTS}) ({NUMBER})\*\*(?: \(([^)]+)\))?\.|(In short)\*\*)\s*")
PROOF = re.compile(r"^\*\*Proof(?: of [^*]+)?\.\*\*(?:(?!\n#)[\s\S])*?\$?\\square\s?\$+$", re.MULTILINE)
EXERCISE = re.compile(
    rf"^\*\*Exercise ({NUMBER})\.(?: ([^*]+?)\.?)?\*\*\s*((?:(?!^#|^\*\*Exercise )[\s\S])*)", re.MULTILINE
)
CAPTION = re.compile(rf"\A\*\*Figure ({NUMBER})\.\*\* (?:.|\n(?!\n))+")
DEFINED = re.compile(rf"\*\*(?:({STATEMENTS}) ({NUMBER})\*\*|(Exercise|Figure) ({NUMBER})\.)")
# A mention is plain text or the whole text of a link. Code, mathematics, other links, headings and bold type have none.
MENTION = re.compile(
    rf"\[({KINDS})\s({NUMBER})\]\([^)]*\)|```[\s\S]*?```|`[^`]*`|\$\$[\s\S]*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\)"
    rf"|^#.*|\*\*[^*]+\*\*|\b({KINDS})\s({NUMBER})\b",
    re.MULTILINE,
)
FOLDED = {"hide-cell", "hide-input"}


def address(kind, number):
    """The anchor of a block: theorem-5-1."""
    return f"{kind.lower()}-{number.replace('.', '-')}"


def defined(text):
    """The blocks that a text defines, as pairs (kind, number), in its order."""
    return [(a or b, n or m) for a, n, b, m in DEFINED.findall(text)]


def mentioned(text):
    """The blocks that a text speaks of, as pairs (kind, number)."""
    return [block for match in MENTION.finditer(text) if (block := spoken_of(match))]


def spoken_of(match):
    """The block (kind, number) of a match of `MENTION`, or None."""
    linked, in_link, plain, in_text = match.groups()
    return (linked or plain, in_link or in_text) if linked or plain else None


def directive(name, argument, body, classes=(), anchor=None, fence=":::"):
    """A MyST directive as text."""
    options = [f":class: {' '.join(classes)}"] * bool(classes) + [f":name: {anchor}"] * bool(anchor)
    return "\n".join([f"{fence}{{{name}}} {argument}", *options, "", body.strip(), fence])


def statement(match):
    """A quotation as an admonition, if it begins with the label of one."""
    body = re.sub(r"^> ?", "", match[0], flags=re.MULTILINE)
    label = LABEL.match(body)
    if not label:
        return match[0]
    kind, number, name, short = label.groups()
    body = body[label.end() :]
    if short:
        return directive("admonition", short, body, ("tip", "in-short"), fence="::::")
    title = f"{kind} {number}" + (f" ({name})" if name else "")
    return directive("admonition", title, body, ("statement", kind.lower()), address(kind, number), "::::")


def exercise(match):
    number, title, body = match.groups()
    title = f"Exercise {number}" + (f". {title}" if title else "")
    return directive("admonition", title, body, ("exercise",), address("Exercise", number), "::::") + "\n\n"


def to_directives(text, known):
    """The Markdown of one cell with its blocks as directives; mentions of `known` blocks are links to them."""

    def link(match):
        block = spoken_of(match)
        return f"[{' '.join(block)}](#{address(*block)})" if block in known else match[0]

    text = MENTION.sub(link, text)
    text = QUOTATION.sub(statement, text)
    text = PROOF.sub(lambda match: directive("container", "proof", match[0], fence=":::::"), text)
    text = EXERCISE.sub(exercise, text)
    return CAPTION.sub(lambda m: directive("container", "caption", m[0], anchor=address("Figure", m[1])), text)


def all_defined(notebooks):
    """The blocks of all chapters that their pages show, a set of pairs (kind, number)."""
    cells = [cell for notebook in notebooks for cell in notebook.cells if cell.cell_type == "markdown"]
    shown = [cell for cell in cells if "remove-cell" not in cell.metadata.get("tags", [])]
    return {block for cell in shown for block in defined(cell.source)}


def prepare(notebook, known):
    """Make of the cells of an executed notebook, in place, those of its page; `known` are all chapters' blocks."""
    kept, solved = [], None
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):  # of use to who runs the notebook, not to who reads the page
            cell.metadata["tags"].append("hide-input")
        if cell.cell_type == "markdown":
            solved = next((number for kind, number in reversed(defined(cell.source)) if kind == "Exercise"), solved)
            cell.source = to_directives(cell.source, known)
        elif folded(cell):
            if kept and folded(kept[-1]) == folded(cell) and not has_figure(kept[-1]):  # one fold for a row of cells
                kept[-1].source += f"\n\n{cell.source}"
                kept[-1].outputs += cell.outputs
                kept[-1].metadata["mystnb"].update(cell.metadata.get("mystnb", {}))
                continue
            what = "the code" if folded(cell) == "hide-input" else "the check"
            what = f"the solution of Exercise {solved}" if solved else what
            prompts = {"code_prompt_show": f"Show {what}", "code_prompt_hide": f"Hide {what}"}
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **prompts}
        kept.append(cell)
    notebook.cells = kept
    return notebook


def folded(cell):
    """How a cell is folded on the page, hide-cell or hide-input; None for one that is not, or not on the page."""
    tags = set(cell.metadata.get("tags", []))
    return None if cell.cell_type != "code" or "remove-cell" in tags else next(iter(FOLDED & tags), None)


def has_figure(cell):
    """Whether a cell draws, and so has a description of its own."""
    return "image" in cell.metadata.get("mystnb", {})
