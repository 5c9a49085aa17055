"""The equation ledger page: all 32 equations of the paper, from what the notebooks have just checked."""

import json
import re

CERTIFICATES = "certificates-"  # what the names of their files begin with

# What each numbered equation of the paper says, in a few words.
EQUATIONS = {
    1: "the pPCA model: prior and observation",
    2: "log likelihood as ELBO plus posterior gap",
    3: "the ELBO is a lower bound",
    4: "the ELBO as reconstruction minus KL",
    5: "marginal distribution of the data",
    6: "posterior of the latents",
    7: "maximum likelihood estimate of the noise variance",
    8: "maximum likelihood estimate of W",
    9: "the linear VAE: decoder and encoder",
    10: "condition for a stationary point of pPCA",
    11: "the same, in singular vectors",
    12: "slope along a perturbed column: stability",
    13: "rescaling that leaves the reconstruction unchanged",
    14: "log likelihood in three terms, A, B and C",
    15: "term B: KL from encoder to prior",
    16: "term C: expected log likelihood, defined",
    17: "term C, square expanded",
    18: "term C in closed form, first half",
    19: "term C in closed form, second half",
    20: "derivative of the ELBO in D",
    21: "derivative of the ELBO in V",
    22: "derivative of the ELBO in W",
    23: "posterior gap at a stationary point",
    24: "posterior gap, optimal D put in",
    25: "posterior gap, trace written out",
    26: "posterior gap as a ratio of determinants",
    27: "a number with no equation beside it",
    28: "the Bernoulli pPCA model",
    29: "density of the pixel probabilities",
    30: "marginal likelihood as an integral",
    31: "marginal likelihood as an expectation",
    32: "expected reconstruction under the encoder",
}


def merge(folder):
    """The checks that the notebooks left in `folder` as one JSON file each, in one list ordered by equation."""
    files = [file for file in sorted(folder.glob("*.json")) if not file.name.startswith(CERTIFICATES)]
    checks = [check for file in files for check in json.loads(file.read_text(encoding="utf-8"))]
    return sorted(checks, key=lambda check: check["equation"])


def certificates(folder):
    """The certificates that the notebooks left in `folder`, in one list ordered by chapter."""
    files = sorted(folder.glob(f"{CERTIFICATES}*.json"))
    return [one for file in files for one in json.loads(file.read_text(encoding="utf-8"))]


def certificates_table(found):
    """The table of what was decided exactly: each claim, the arithmetic, the numbers and the chapter."""
    lines = ["| what is certified | arithmetic | the numbers | shown in |", "|---|---|---|---|"]
    for one in found:
        chapter = int(one["notebook"].split("_")[0])
        link = f"[Chapter {chapter}](../notebooks/{one['notebook']}.ipynb)"
        evidence = f"`{one['evidence']}`".replace("|", r"\|")
        claim = one["claim"].replace("|", r"\|")
        lines.append(f"| {claim} | {one['arithmetic']} | {evidence} | {link} |")
    count = f"**{len(found)} claims are certified**, each by a cell that computes without rounding."
    return "\n".join([count, "", ":::{table}", ":class: certificates", "", *lines, ":::"])


def mark_exact(errata, found):
    """The errata page's text with "exact" in the rows that a certificate decides.

    Raises
    ------
    SystemExit
        When the words by which a certificate names its row are in no row of the page, or in several.
    """
    lines = errata.splitlines()
    for words in sorted({one["erratum"] for one in found if one["erratum"]}):
        rows = [i for i, line in enumerate(lines) if line.startswith("| ") and words in line]
        if len(rows) != 1:
            raise SystemExit(f"errata.md has {len(rows)} rows with {words!r}, which a certificate names; expected one")
        before, last = lines[rows[0]].removesuffix(" |").rsplit(" | ", 1)
        if not last.endswith("**exact**"):
            lines[rows[0]] = f"{before} | {last}, **exact** |"
    return "\n".join(lines) + "\n"


def headings(notebooks):
    """Which notebook has the heading of each equation: {number: name}, from {name: notebook}."""
    found = {}
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                for number in re.findall(r"^### Equation (\d+)\s*$", cell.source, re.MULTILINE):
                    found.setdefault(int(number), name)
    return found


def verdict(checks):
    """What the checks of one equation amount to."""
    if not checks:
        return "not yet here"
    if not all(check["passed"] for check in checks):
        return "**fails**"
    return "verified" if len({check["kind"] for check in checks}) >= 2 else "checked by one kind only"


def rounded(error):
    """A positive number to one digit, as 3·10⁻¹⁶."""
    if error == 0:
        return "0"
    digit, power = f"{error:.0e}".split("e")
    return f"{digit}·10" + str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def row(number, checks, chapter):
    """One line of the table."""
    link = f"[Eq. {number}](../notebooks/{chapter}.ipynb#equation-{number})" if chapter else f"Eq. {number}"
    methods = {}
    for check in checks:
        name = f"{check['method']} ({check['kind']}".replace("|", r"\|")
        methods[name] = max(methods.get(name, 0.0), check["error"])
    listed = "<br>".join(f"{name}, {rounded(error)})" for name, error in methods.items())
    error = "—"
    if checks:
        worst = max(checks, key=lambda check: check["error"])
        error = f"{rounded(worst['error'])} of {rounded(worst['tolerance'])}"
    return f"| {link} | {EQUATIONS[number]} | {verdict(checks)} | {listed or '—'} | {error} |"


def table(checks, chapters):
    """The page's text: a count, then a table of all equations.

    Parameters
    ----------
    checks : list of dict
        As `merge` returns them.
    chapters : dict
        As `headings` returns it.
    """
    of = {number: [check for check in checks if check["equation"] == number] for number in EQUATIONS}
    verdicts = [verdict(of[number]) for number in EQUATIONS]
    summary = (
        f"**{verdicts.count('verified')} of the paper's {len(EQUATIONS)} equations are verified** by {len(checks)} "
        f"checks; {verdicts.count('not yet here')} are not yet here."
    )
    head = "| equation | what it says | verdict | checked by (kind, error) | largest error, of what was allowed |"
    rows = [row(number, of[number], chapters.get(number)) for number in EQUATIONS]
    # The class lets a phone show a row as a block of lines.
    return "\n".join([summary, "", ":::{table}", ":class: ledger", "", head, "|---|---|---|---|---|", *rows, ":::"])
