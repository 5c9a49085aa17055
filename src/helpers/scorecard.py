"""The scorecard: what each figure and table of the paper claims, and whether our run bears it out.

Serves chapters 02, 03, 09, 10 and 11, which have the paper's figures. Each states a claim as something computable and
hands over the outcome. When the environment variable ``BOOK_SCORECARD`` names a folder, the rows are also written there
as JSON; the book's scorecard page is made from those files.
"""

from dataclasses import asdict, dataclass

import numpy as np

from helpers._validation import brief, instance, one_of, words
from helpers.ledger import say, write_rows

FIGURES = (*(f"Figure {number}" for number in range(1, 12)), "Table 1")
VERDICTS = ("reproduced", "partly", "not reproduced", "not decided", "shown, not judged", "not yet run")


@dataclass(frozen=True)
class Row:
    """One claim, as the scorecard page lists it.

    Attributes
    ----------
    figure, notebook : str
        One of `FIGURES`, and the chapter.
    claim : str
        What the paper says, or what a figure shows.
    verdict : str
        One of `VERDICTS`.
    paper, ours : str
        The numbers.
    run : str
        Which run ours come from.
    """

    figure: str
    notebook: str
    claim: str
    verdict: str
    paper: str
    ours: str
    run: str


class Scorecard:
    """The claims that one chapter tests.

    Parameters
    ----------
    notebook : str
        Name of the chapter, without suffix.
    """

    def __init__(self, notebook):
        self.notebook = words("notebook", notebook)
        self.rows = []

    def claim(self, figure, claim, holds, paper, ours, run, undecided=""):
        """Record whether a claim holds in our run, and print it.

        Parameters
        ----------
        figure : str
            One of `FIGURES`.
        claim : str
            What the paper says, as a statement that can be computed.
        holds : list, tuple or (P,) ndarray of bool, or None
            Its parts. All true: reproduced; some: partly; none: not reproduced. None where nothing was run yet.
        paper, ours : str
            The numbers, the paper's and ours.
        run : str
            Which run ours come from: study, profile, data.
        undecided : str
            Why the run cannot decide the claim, where it cannot, as `standing.undecided` says it: then the verdict is
            "not decided", whatever `holds` is, and the reason stands with our numbers.

        Returns
        -------
        str
            The verdict, one of `VERDICTS`.
        """
        one_of("figure", figure, FIGURES)
        for name, text in {"claim": claim, "paper": paper, "ours": ours, "run": run}.items():
            words(name, text)
        instance("undecided", undecided, str)
        if holds is not None:
            share = sum(map(bool, _truths(holds))) / len(holds)
        if holds is None:
            verdict = "not yet run"
        elif undecided:
            verdict, ours = "not decided", f"{ours}. But {undecided}"
        else:
            verdict = "reproduced" if share == 1 else "partly" if share else "not reproduced"
        return self._add(Row(figure, self.notebook, claim, verdict, paper, ours, run))

    def show(self, figure, what, ours, run):
        """Record a figure of which the paper claims nothing computable.

        Parameters
        ----------
        figure : str
            One of `FIGURES`.
        what : str
            What it shows.
        ours : str
            Our numbers.
        run : str
            Which run ours come from: study, profile, data.

        Returns
        -------
        str
            The verdict: "shown, not judged".
        """
        one_of("figure", figure, FIGURES)
        for name, text in {"what": what, "ours": ours, "run": run}.items():
            words(name, text)
        return self._add(Row(figure, self.notebook, what, "shown, not judged", "pictures; no number", ours, run))

    def _add(self, row):
        self.rows.append(row)
        write_rows("BOOK_SCORECARD", self.notebook, [asdict(row) for row in self.rows])
        say(f"{row.figure} · {row.claim}: {row.verdict}\n  paper: {row.paper}\n  ours: {row.ours} ({row.run})")
        return row.verdict


def _truths(holds):
    """The parts of a claim; nothing but booleans, whose truth nobody has to guess, and at least one."""
    if type(holds) not in (list, tuple, np.ndarray) or not all(isinstance(part, (bool, np.bool_)) for part in holds):
        raise ValueError(f"holds is {brief(holds)}; expected a list of booleans, or None")
    if not len(holds):
        raise ValueError("holds is empty; expected the truth of each part of the claim, or None")
    return holds
