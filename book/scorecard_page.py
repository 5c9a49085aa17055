"""The scorecard page: each figure and table of the paper, from what the notebooks have just found."""

import json

from helpers.scorecard import FIGURES, VERDICTS


def merge(folder):
    """The rows that the notebooks left in `folder` as one JSON file each, in the paper's order of figures."""
    rows = [row for file in sorted(folder.glob("*.json")) for row in json.loads(file.read_text(encoding="utf-8"))]
    return sorted(rows, key=lambda row: FIGURES.index(row["figure"]))


def _cell(text):
    return text.replace("|", r"\|").replace("\n", "<br>")


def table(rows):
    """The page's text: a count, then a table of all figures, those without a row marked as not yet run.

    Parameters
    ----------
    rows : list of dict
        As `merge` returns them.
    """
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    lines = [f"**{len(rows)} claims: {listed}.**", "", ":::{table}", ":class: scorecard", ""]
    lines += ["| figure | the claim | verdict | the paper | ours | the run |", "|---|---|---|---|---|---|"]
    for figure in FIGURES:
        of_figure = [row for row in rows if row["figure"] == figure]
        if not of_figure:
            lines.append(f"| {figure} | — | not yet run | — | — | — |")
        for row in of_figure:
            link = f"[{figure}](../notebooks/{row['notebook']}.ipynb)"
            kind = row["verdict"].replace(", ", " ").replace(" ", "-")
            verdict = f'<strong class="{kind}">{row["verdict"]}</strong>'
            cells = (row["claim"], verdict, row["paper"], row["ours"], row["run"])
            lines.append(f"| {link} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join([*lines, ":::"])
