"""The book's figures, from arrays. Every figure is white behind, in dark mode too, and legible in grey."""

import inspect

import matplotlib.pyplot as plt

# Okabe and Ito's colours, which readers with any colour vision can tell apart, in an order of falling darkness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")

STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 110,
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def figure(rows=1, columns=1, width=7.0, height=3.6, **options):
    """A figure and its axes in the book's style; sizes in inches, `options` as for ``plt.subplots``."""
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def show_source(function):
    """The source of a function of the package, to be shown once in full in the chapter that derives it."""
    from IPython.display import Markdown

    return Markdown(f"```python\n{inspect.cleandoc(inspect.getsource(function))}\n```")
