"""The scorecard: what each figure and table of the paper claims, and whether our run bears it out.

A chapter states each claim as something computable and hands over the outcome. When the environment variable
``BOOK_SCORECARD`` names a folder, the rows are also written there as JSON; the book's scorecard page is made
from those files.
"""

from dataclasses import asdict, dataclass

from helpers.ledger import write_rows

FIGURES = (*(f"Figure {number}" for number in range(1, 12)), "Table 1")
VERDICTS = ("reproduced", "partly", "not reproduced", "not yet run")


@dataclass(frozen=True)
class Row:
    """One claim, as the scorecard page lists it."""

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
        self.notebook = notebook
        self.rows = []

    def claim(self, figure, claim, holds, paper, ours, run):
        """Record whether a claim holds in our run, and print it.

        Parameters
        ----------
        figure : str
            One of `FIGURES`.
        claim : str
            What the paper says, as a statement that can be computed.
        holds : list of bool, or None
            Its parts. All true: reproduced; some: partly; none: not reproduced. None where nothing was run yet.
        paper, ours : str
            The numbers, the paper's and ours.
        run : str
            Which run ours come from: study, profile, data.

        Returns
        -------
        str
            The verdict, one of `VERDICTS`.
        """
        if figure not in FIGURES:
            raise ValueError(f"figure is {figure!r}; expected one of {', '.join(FIGURES)}")
        if holds is not None and not len(holds):
            raise ValueError("holds is empty; expected the truth of each part of the claim, or None")
        if holds is None:
            verdict = "not yet run"
        else:
            share = sum(map(bool, holds)) / len(holds)
            verdict = "reproduced" if share == 1 else "partly" if share else "not reproduced"
        self.rows.append(Row(figure, self.notebook, claim, verdict, paper, ours, run))
        write_rows("BOOK_SCORECARD", self.notebook, [asdict(row) for row in self.rows])
        print(f"{figure} · {claim}: {verdict}\n  paper: {paper}\n  ours: {ours} ({run})")
        return verdict
