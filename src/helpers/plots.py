"""The book's figures, from arrays, white behind in dark mode too and legible in grey. Serves chapters 00 to 12."""

import ast
import importlib
import inspect
import json
import math
import textwrap
from importlib.resources import files
from string import ascii_lowercase

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm

from helpers import collapse
from helpers._validation import brief, finite_array, instance, integer, one_of, positive, record_with
from helpers.moments import Moments

# Okabe and Ito's colours, which readers with any colour vision can tell apart, in an order of falling darkness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^", "v", "P")
QUANTITIES = ("elbo", "sse", "kl", "sigma2", "beta")  # of a training history
HEIGHT = "viridis"  # its lightness rises all the way, so a map of heights keeps its order in grey

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
    """A figure and its axes in the book's style.

    Parameters
    ----------
    rows, columns : int
        Of axes.
    width, height : float
        Of the whole, in inches, from 0.1 to 500.
    **options
        As for ``plt.subplots``.

    Returns
    -------
    figure, axes

    Raises
    ------
    ValueError
        When the figure would be smaller or larger than that.
    """
    rows, columns = integer("rows", rows, 1, 100), integer("columns", columns, 1, 100)
    width, height = positive("width", width), positive("height", height)
    if not 0.1 <= min(width, height) <= max(width, height) <= 500:
        raise ValueError(f"width is {width} and height is {height}; expected inches, from 0.1 to 500")
    plt.rcParams.update(STYLE)  # for good, since legends and lines are drawn after this returns
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def panels(count, width=8.6, height=3.5, **options):
    """A figure of `count` lettered panels, two a row, the last of an odd number across both columns.

    Parameters
    ----------
    count : int
        From 2 to 26.
    width, height : float
        Of the figure, and of one row, in inches.
    **options
        Of every panel, as for ``add_subplot``.

    Returns
    -------
    figure, list of axes
    """
    count, height = integer("count", count, 2, 26), positive("height", height)
    rows = (count + 1) // 2
    fig, placed = figure(rows, 2, width=width, height=height * rows, squeeze=False, subplot_kw=options)
    axes = list(placed.flat)
    if count % 2:
        axes.pop().remove()
        axes[-1].set_subplotspec(placed[0, 0].get_gridspec()[-1, :])
    for ax, letter in zip(axes, ascii_lowercase, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=11)
    return fig, axes


def show_source(function):
    """The source of a function or class of the package, shown once in full in the chapter that derives it.

    Of its docstrings only the words stand there; the lists of arguments and the examples are on the package's pages.

    Parameters
    ----------
    function : function or class

    Returns
    -------
    IPython.display.Markdown

    Raises
    ------
    ValueError
        When it has no source in Python.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (TypeError, OSError) as error:
        raise ValueError(f"function is {brief(function)}; expected a function or class with Python source") from error
    return _display("Markdown")(f"```python\n{_without_lists(source).rstrip()}\n```")


def _without_lists(source):
    """Source whose docstrings end before their first section, which a line of hyphens under its heading begins."""
    lines = source.splitlines()
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in sorted(nodes, key=lambda node: -node.lineno):  # from the last on, so that the others stay in place
        if ast.get_docstring(node) is None:
            continue
        first, last, indent = node.body[0].lineno - 1, node.body[0].end_lineno, node.body[0].col_offset
        rule = next((i for i in range(first, last) if lines[i].strip() and not lines[i].strip(" -")), None)
        if rule:
            words = "\n".join(lines[first : rule - 1]).rstrip()
            quotes = "\n" + " " * indent + '"""' if "\n" in words else '"""'
            lines[first:last] = (words + quotes).split("\n")
    return "\n".join(lines)


def _display(kind):
    """A class of IPython's by which a notebook shows text as more than text."""
    try:
        return getattr(importlib.import_module("IPython.display"), kind)
    except ImportError as error:
        raise ImportError(
            "this is shown by IPython, which is not installed: it comes with every notebook, or with "
            "pip install 'posterior-collapse-book[book]'"
        ) from error


def stability_panels(a, b, gains, titles, names=("u_5", "u_7"), pictures=()):
    """Figure 1: how the log likelihood changes as one column of W moves in a plane, one panel per sigma2.

    Each panel has its own heights, from its lowest point (dark) to its highest (light), in steps that grow finer
    toward the top. A ring marks the stationary point, a star each summit of the plane with its gain.

    Parameters
    ----------
    a, b : (A,), (B,) array_like
        Coordinates along the two directions, ascending, in the units of x.
    gains : sequence of (B, A) array_like
        Average log likelihood minus its value at the stationary point, in nats, one per panel.
    titles : sequence of str
        One per panel.
    names : pair of str
        The two directions, as mathematics.
    pictures : sequence of 2-d array_like, optional
        The two directions as images, drawn beside the panels.

    Returns
    -------
    figure, axes

    Raises
    ------
    ValueError
        When titles, names and pictures do not match the panels in number.
    """
    a, b = (_ascending(name, finite_array(name, value, ("n",))) for name, value in (("a", a), ("b", b)))
    gains = [finite_array("an entry of gains", gain, (b.size, a.size)) for gain in _several("gains", gains)]
    titles, names, pictures = _texts("titles", titles), _texts("names", names), _several("pictures", pictures)
    if not gains or len(titles) != len(gains):
        raise ValueError(f"there are {len(titles)} titles for {len(gains)} gains; expected one each, at least one")
    if len(names) != 2 or len(pictures) not in (0, 2):
        raise ValueError(f"there are {len(names)} names and {len(pictures)} pictures; expected 2, and 2 or no pictures")
    cells = len(gains) + bool(len(pictures))
    rows, columns = (cells + 1) // 2, min(cells, 2)
    fig, axes = figure(rows, columns, width=3.9 * columns, height=4.1 * rows, squeeze=False)
    spare = list(axes.flat)[len(gains) :]
    axes = axes.flat[: len(gains)]
    for ax, gain, title in zip(axes, gains, titles, strict=True):
        top, span = gain.max(), max(np.ptp(gain), 1e-12)
        levels = top - span * np.linspace(1, 0, 27) ** 2
        ax.contourf(a, b, gain, levels=levels, norm=BoundaryNorm(levels, 256), cmap=HEIGHT)
        ax.contour(a, b, gain, levels=levels[::2], colors="white", linestyles="-", linewidths=0.6, alpha=0.7)
        ax.plot(0, 0, "o", ms=13, mfc="white", mec="black", mew=1.6, zorder=3)
        for row, column in np.argwhere(_summits(gain)):
            ax.plot(a[column], b[row], "*", ms=11, mfc="black", mec="white", mew=0.8, zorder=4)
            height = f"{gain[row, column]:+.3f}".replace("+0.000", "0").replace("-0.000", "0")
            ax.annotate(height, (a[column], b[row]), (0, 11), textcoords="offset points", ha="center")
        ax.set(xlabel=f"perturbation along ${names[0]}$\n(pixel intensity)", aspect="equal")
        ax.set_title(title, fontsize=11.5)
    for ax in axes[::2]:
        ax.set_ylabel(f"perturbation along ${names[1]}$\n(pixel intensity)")
    if len(pictures):
        _pictures(fig, spare[0].get_subplotspec(), pictures, names)
    for ax in spare:
        ax.remove()
    return fig, axes


def _ascending(name, values):
    if (np.diff(values) <= 0).any():
        raise ValueError(f"{name} is {brief(values)}; expected ascending")
    return values


def _several(name, values):
    """A list of what a sequence holds."""
    if not isinstance(values, (list, tuple)) and not (isinstance(values, np.ndarray) and values.ndim):
        raise ValueError(f"{name} is {brief(values)}; expected a list")
    return list(values)


def _texts(name, values):
    values = _several(name, values)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is {brief(values)}; expected a list of texts")
    return values


def _on(ax):
    if not isinstance(ax, Axes):
        raise ValueError(f"ax is {brief(ax)}; expected axes of matplotlib")
    return ax


def _history(record, quantity):
    """A quantity of a record's training history, (epochs, M)."""
    name = f"history_{quantity}"
    return record_with(record, name)[name].values


def _pictures(fig, cell, pictures, names):
    """Two directions as images side by side in a cell of the grid: white for negative, black for positive."""
    grid = cell.subgridspec(1, 2)
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        picture = finite_array("an entry of pictures", picture, ("height", "width"))
        size = np.abs(picture).max()
        ax = fig.add_subplot(grid[i])
        ax.imshow(picture, cmap="gray_r", vmin=-size, vmax=size)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"${name}$", fontsize=11.5)


def _summits(gain):
    """Where a (B, A) map exceeds all its neighbours, (B, A) bool; its border is never a summit."""
    above = np.zeros(gain.shape, bool)
    inner = gain[1:-1, 1:-1]
    rows, columns = gain.shape
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    neighbours = [gain[i : rows - 2 + i, j : columns - 2 + j] for i, j in shifts]
    above[1:-1, 1:-1] = np.all([inner > neighbour for neighbour in neighbours], axis=0)
    return above


def training_curves(ax, record, labels, quantity="elbo", ylim=None):
    """Figures 3 and 6: a quantity of the training history against the epoch, each line with its name at its end.

    Parameters
    ----------
    ax : matplotlib axes
    record : xarray.Dataset
        With the members to draw, at most six, and no others: ``record.isel(member=...)``.
    labels : sequence of str
        One per member.
    quantity : str
        What of the history: "elbo", "sse", "kl" or "sigma2".
    ylim : pair of float, optional
        By default room for all but the first tenth of the epochs. The names stand where the axis has the ends, so
        it is to be set here and not afterwards.
    """
    ax, values = _on(ax), _history(record, one_of("quantity", quantity, QUANTITIES))
    labels = _one_each(labels, values.shape[1])
    lines = (*LINES, (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
    for line, colour, style in zip(values.T, COLOURS, lines, strict=False):
        ax.plot(record.epoch.values, line, color=colour, linestyle=style)
    if ylim is None:
        later = values[len(values) // 10 :]
        low, high = later[np.isfinite(later)].min(), later[np.isfinite(later)].max()
        ylim = low - 0.06 * (high - low), high + 0.06 * (high - low)
    else:
        ylim = _ascending("ylim", finite_array("ylim", ylim, (2,)))
    ax.set(xlabel="epoch", xlim=(0, record.epoch.values[-1]), ylim=ylim)
    ends = [line[np.isfinite(line)][-1:] for line in values.T]  # a member that diverged has NaN from there on
    seen = [m for m, end in enumerate(ends) if end.size and ylim[0] <= end[0] <= ylim[1]]
    points = ax.transData.transform([(0, ends[m][0]) for m in seen])
    heights = ax.transAxes.inverted().transform(points)[:, 1]
    size = 9.5
    gap = 1.25 * size / 72 / (ax.get_position().height * ax.figure.get_figheight())
    for m, height in zip(seen, _apart(heights, gap), strict=True):
        ax.text(1.015, height, labels[m], transform=ax.transAxes, color=COLOURS[m], size=size, va="center")


def _apart(heights, gap):
    """Heights (M,) moved as little as possible, in squares, so that neighbours lie `gap` apart, in their order."""
    from sklearn.isotonic import isotonic_regression

    order, steps = np.argsort(heights, kind="stable"), gap * np.arange(len(heights))
    moved = np.empty(len(heights))
    moved[order] = isotonic_regression(heights[order] - steps) + steps
    return moved


def inactive_curves(ax, kl, labels, snapshot=None, predicted=None, earlier="earlier", low=1e-3):
    """Figures 4 and 5: the share of units whose average KL is below a threshold, a curve per member.

    Parameters
    ----------
    ax : matplotlib axes
    kl : (M, k) array_like
        Average KL of every unit, in nats, of at most six members.
    labels : sequence of str
        One per member.
    snapshot : (M, k) array_like, optional
        The same at an earlier epoch, which `earlier` names in the legend: dashed, with open markers.
    predicted : (M, k) array_like, optional
        The same at the linear optimum: thin and dotted, with small markers.
    earlier : str
    low : float
        Smallest threshold, in nats.
    """
    ax, kl = _on(ax), finite_array("kl", kl, ("M", "k"))
    labels, (earlier,) = _one_each(labels, len(kl)), _texts("earlier", [earlier])
    kinds = [("trained", kl, {"linestyle": "-", "markersize": 6})]
    if snapshot is not None:
        look = {"linestyle": "--", "markersize": 6, "markerfacecolor": "white", "linewidth": 1.3}
        kinds.append((earlier, finite_array("snapshot", snapshot, kl.shape), look))
    if predicted is not None:
        look = {"linestyle": ":", "markersize": 3.5, "linewidth": 1.2}
        kinds.append(("linear optimum", finite_array("predicted", predicted, kl.shape), look))
    low = positive("low", low)
    high = max(low, *(values.max() for _, values, _ in kinds))
    thresholds = np.geomspace(low, 8 * high, 561)  # 8: room for the legend, where every curve is at 1
    for kind, values, look in kinds:
        for m, (row, label) in enumerate(zip(values, labels, strict=True)):
            marks = {"marker": MARKERS[m], "markevery": (12 * m, 80)}  # seen also where curves lie on each other
            name = label if values is kl else None
            ax.semilogx(
                thresholds, collapse.inactive_fraction(row, thresholds), color=COLOURS[m], label=name, **marks, **look
            )
        if len(kinds) > 1:
            ax.plot([], [], color="black", label=kind, **look)
    ax.set(xlabel="threshold on the average KL (nats)", ylabel="share of units below it", ylim=(-0.03, 1.03))
    ax.legend(fontsize=9, loc="lower right")


def learned_variance(axes, ways):
    """Figures 6 to 8: ELBO and learned sigma2 against the epoch, and the share of inactive units at the end.

    Parameters
    ----------
    axes : three matplotlib axes
    ways : dict of str to xarray.Dataset
        At most four records by name, each with the members to draw, one per seed.

    Raises
    ------
    ValueError
        When there are not three axes, or not 1 to 4 records.
    """
    if len(axes := [_on(ax) for ax in _several("axes", axes)]) != 3:
        raise ValueError(f"axes has {len(axes)} of them; expected three")
    if not 0 < len(instance("ways", ways, dict)) <= len(LINES):
        raise ValueError(f"ways has {len(ways)} records; expected 1 to {len(LINES)}")
    for name, record in ways.items():
        _texts("ways", [name]), _history(record, "elbo"), _history(record, "sigma2")
    thresholds = np.geomspace(1e-3, 30, 400)
    for (name, record), colour, line in zip(ways.items(), COLOURS, LINES, strict=False):
        axes[0].plot(record.epoch, record.history_elbo.values, line, color=colour)
        axes[1].semilogy(record.epoch, record.history_sigma2.values, line, color=colour)
        shares = np.transpose([collapse.inactive_fraction(kl, thresholds) for kl in record.kl_per_unit])
        axes[2].semilogx(thresholds, shares, line, color=colour)[0].set_label(name)
    ends = np.concatenate([part.history_elbo.values[[-1, len(part.epoch) // 10]] for part in ways.values()], axis=1)
    axes[0].set(xlabel="epoch", ylabel="ELBO (nats per image)", ylim=(ends[1].min(), ends[0].max() + np.ptp(ends) / 20))
    axes[1].set(xlabel="epoch", ylabel="learned σ² (pixel units squared)")
    axes[2].set(xlabel="threshold on the average KL (nats)", ylabel="share of units below it, at the end")
    axes[2].legend(loc="lower right")


def _one_each(labels, members):
    labels = _texts("labels", labels)
    if len(labels) != members or not 0 < members <= len(COLOURS):
        raise ValueError(f"there are {len(labels)} labels for {members} members; expected one each, 1 to 6 of them")
    return labels


def landscape_explorer(moments, used=3, directions=(4, 6), low=0.5, start=2.1, reach=2.0):
    """Figure 1 with a sigma2 that the reader moves: HTML that needs no kernel and no network.

    Parameters
    ----------
    moments : Moments
    used : int
        How many leading eigenvectors the columns of W use; one further column is zero.
    directions : pair of int
        The eigenvectors, counted from 0 and ascending, that span the plane in which the zero column moves.
    low, start : float
        Smallest sigma2 of the slider, and the one it starts at. It ends below the smallest eigenvalue used.
    reach : float
        Half the side of the plane, in the units of x.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        When the directions are not two eigenvectors beyond those used, or no sigma2 is left for the slider.
    """
    eigenvalues = instance("moments", moments, Moments).eigenvalues
    used = integer("used", used, 1, eigenvalues.size - 2)
    low, start, reach = positive("low", low), positive("start", start), positive("reach", reach)
    if len(directions := _several("directions", directions)) != 2:
        raise ValueError(f"directions is {brief(directions)}; expected two")
    p, q = (integer("an entry of directions", i, used, eigenvalues.size - 1) for i in directions)
    high = math.floor(100 * eigenvalues[used - 1] - 1) / 100  # column `used` shrinks to nothing at its eigenvalue
    if not (p < q and low <= start <= high):
        raise ValueError(
            f"directions is {directions}, low {low} and start {start}; expected ascending directions "
            f"and low <= start <= {high}, just below the smallest eigenvalue used"
        )
    shown = max(9, q + 1, int((eigenvalues > low).sum()))
    numbers = {
        "eigenvalues": [round(float(value), 5) for value in eigenvalues[:shown]],
        "used": used,
        "plane": [p, q],
        "reach": reach,
    }
    page = (files("helpers") / "widgets" / "landscape.html").read_text(encoding="utf-8")
    for name, value in {"NUMBERS": json.dumps(numbers), "LOW": low, "HIGH": high, "START": start}.items():
        page = page.replace(f"__{name}__", str(value))
    return _display("HTML")(page)


def spectrum_explorer(moments, k, sigma2=0.1, beta=1.0):
    """Which latents a linear beta-VAE keeps, as the reader moves sigma2 and beta: HTML without kernel or network.

    Parameters
    ----------
    moments : Moments
    k : int
        Number of latents, 1 to the rank of the covariance.
    sigma2, beta : float
        Where the two sliders start. That of sigma2 spans four powers of ten below the largest eigenvalue and a
        little above it, that of beta 0.01 to 10.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        When a slider would start outside its range.
    """
    eigenvalues = instance("moments", moments, Moments).eigenvalues
    k = integer("k", k, 1, max(1, int((eigenvalues > 0).sum())))
    sigma2, beta = positive("sigma2", sigma2), positive("beta", beta)
    # Steps of 0.02 in log10, on a grid that holds 0: then 0.1 and 1 are exact.
    high = math.ceil(50 * (math.log10(positive("the largest eigenvalue", eigenvalues[0])) + 0.2)) / 50
    low = high - 4
    if not (10**low <= sigma2 <= 10**high and 0.01 <= beta <= 10):
        raise ValueError(
            f"sigma2 is {sigma2} and beta {beta}; expected sigma2 from {10**low:.3g} to {10**high:.3g} "
            "and beta from 0.01 to 10"
        )
    shown = min(eigenvalues.size, k + max(2, k // 4))  # and a few that there is no latent for
    numbers = {
        "eigenvalues": [float(f"{max(value, 1e-12 * eigenvalues[0]):.4g}") for value in eigenvalues[:shown]],
        "k": k,
        "n": eigenvalues.size,
        "rest": float(f"{eigenvalues[shown:].sum():.6g}"),
    }
    starts = {"LOW": low, "HIGH": high, "SIGMA2": math.log10(sigma2), "BETA": math.log10(beta)}
    page = (
        (files("helpers") / "widgets" / "spectrum.html")
        .read_text(encoding="utf-8")
        .replace("__NUMBERS__", json.dumps(numbers))
    )
    for name, value in starts.items():
        page = page.replace(f"__{name}__", f"{value:.2f}")
    return _display("HTML")(page)
