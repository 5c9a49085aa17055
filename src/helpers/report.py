"""A forecast or a diagnosis for people: in words, as text, Markdown or one HTML file, and as a figure.

Serves chapter 12. Every number stands beside what it is: predicted (by linear theory), measured, exact (but for
the draws of z), or a rule of thumb.
"""

import html as escape
import io

import matplotlib.pyplot as plt
import numpy as np

from helpers import plots, spectrum
from helpers._validation import instance, integer, positive
from helpers.forecast import Forecast
from helpers.objective import TERMS, at_theta
from helpers.verdict import NATS, Diagnosis, at_collapse

DATA_TERMS = {"bernoulli": "the binary cross-entropy", "gaussian": "the squared error"} | {
    likelihood: f"the {name}" for likelihood, name in TERMS.values() if likelihood not in ("bernoulli", "gaussian")
}
STYLE = """:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #8886 }
td:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto; background: #fff }
@media (max-width: 32rem) { table { font-size: .8rem } th, td { padding-right: .4rem } }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 0 1rem }"""


def _parts(found):
    """The forecast and the diagnosis in what was given; None for a diagnosis that there is not."""
    if isinstance(found, Diagnosis):
        return found.forecast, found
    return instance("found", found, Forecast), None


def verdict(found):
    """What to remember of a forecast or a diagnosis, and why: two texts.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    headline, reason : str
    """
    predicted, measured = _parts(found)
    if measured is not None:
        return measured.verdict, measured.reason
    if predicted.collapse_is_stable is None:
        return (
            "measured only",
            f"For a {predicted.objective.likelihood} likelihood nothing exact is known before training.",
        )
    if predicted.collapse_is_stable:
        return "asked for", at_collapse(predicted)
    if predicted.objective.free_bits:
        why = "With free bits each direction that varies may be used at no charge"
    elif predicted.theta is None:
        why = f"{predicted.unstable} directions lie above beta = {predicted.objective.beta:.4g}"
    else:
        why = f"The largest eigenvalue, {predicted.lambda_1:.4g}, is above theta = {predicted.theta:.4g}"
    said = f"{why}: complete collapse is no maximum of this loss."
    if predicted.survivors is not None:
        said += f" In the best linear VAE {predicted.survivors} of {predicted.k} latents pay for themselves."
    return "alive", said


def restated(found):
    """The loss in other words: its weights for one sample, and the noise variance that it implies.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    str
    """
    predicted, _ = _parts(found)
    objective, theta = predicted.objective, predicted.theta
    term = DATA_TERMS[objective.likelihood]
    if objective.learned:
        term = "the negative log density, whose sigma2 is learned"
    if objective.sigma2:
        term = "the squared error, that of each feature over its own sigma2,"
    said = (
        f"For one sample the loss is {objective.data:.6g} times {term} summed over {predicted.n} features, plus "
        f"{objective.kl:.6g} times the KL divergence summed over {predicted.k} latents."
    )
    if objective.free_bits:
        said += f" Of each latent {objective.free_bits:g} nats are free."
    if objective.sigma2:
        said += f" In units of these deviations that is theta = {theta:.6g}."
    elif theta is not None:
        said += f" That is theta = {theta:.6g}: a Gaussian decoder of noise variance {theta:.6g} with the KL weighed 1."
    else:
        said += f" The KL divergence weighs beta = {objective.beta:.6g} beside the data term; it implies no sigma2."
    return said


def rows(found):
    """What was predicted and measured, a row each: what, its kind, predicted, measured; all text.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    list of tuple of str
        "" where there is none.
    """
    predicted, measured = _parts(found)

    def said(value):
        return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"

    def own(name):
        return said(None if measured is None else getattr(measured, name))

    gaussian = predicted.theta is not None
    further = "exact" if gaussian else "approximate"
    stable = {True: "yes", False: "no", None: ""}[predicted.collapse_is_stable]
    if predicted.collapse_is_stable and predicted.lambda_1 == (
        predicted.theta if gaussian else predicted.objective.beta
    ):
        stable = "not decided"
    table = [
        ("largest eigenvalue", "exact", said(predicted.lambda_1), ""),
        ("complete collapse is a local maximum", "exact", stable, ""),
        ("sigma2, where it is learned", "linear", said(predicted.learned_sigma2), own("sigma2")),
        ("latents that live at that sigma2", "linear", said(predicted.learned_survivors), ""),
        ("latents that live; units above 0.1 nats", "linear", said(predicted.survivors), own("units_above")),
        ("K, KL divergence in nats", "linear", said(predicted.kl), own("kl")),
        ("E, error of the data term", "linear", said(predicted.distortion), own("distortion")),
        (f"J = -E / {'(2 theta)' if gaussian else 'beta'} - K", "linear", said(predicted.J), own("J")),
        ("J above the best linear VAE's", "measured", "", own("gap")),
        ("further affine units that would pay", further, "", own("further_units")),
        ("what these would add to J", further, "", own("further_gain")),
        ("J above the linear VAE's, held out", "measured", "", own("held_out_gap")),
        ("units whose mean varies by 0.01", "rule of thumb", "", own("active_units")),
        ("units that the decoder uses", "rule of thumb", "", own("decoder_units")),
        ("drift of E[m^2 + s^2] from 1", "rule of thumb", "", own("drift")),
        ("mutual information, at most log N", "measured", "", own("mutual_information")),
    ]
    return [row for row in table if row[2] or row[3]]


def at(predicted, theta, k=None):
    """Latents that live, K and E of the best linear VAE for the data of a forecast, without free bits.

    Parameters
    ----------
    predicted : Forecast
    theta : float
        Above 0.
    k : int, optional
        Number of latents, from 1; by default that of the forecast.

    Returns
    -------
    survivors : int
    kl, distortion : float

    Raises
    ------
    ValueError
        When the forecast has no theta.
    """
    if instance("predicted", predicted, Forecast).theta is None:
        raise ValueError(f"predicted is of a {predicted.objective.likelihood} likelihood; expected a Gaussian one")
    k = min(integer("k", predicted.k if k is None else k, 1, 2**31), predicted.n)
    eigenvalues, theta = predicted.eigenvalues, positive("theta", theta)
    kl = spectrum.kl(eigenvalues[:k], theta)
    return int((kl > 0).sum()), float(kl.sum()), spectrum.distortion(eigenvalues, k, theta)


def remedies(found):
    """What to change, and what linear theory predicts that it changes: a sentence each.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    list of str
    """
    predicted, measured = _parts(found)
    said = []
    if measured is not None and measured.verdict == "worse than linear":
        said.append(
            f"Train longer, at a smaller rate, or start from the best linear VAE: it has {-measured.gap:.4g} nats more."
        )
    elif measured is not None and measured.verdict == "another unit would pay":
        how = "train on or restart the idle units" if measured.k > measured.units_above else "give it more latents"
        said.append(
            f"To have the {measured.further_gain:.4g} nats, {how}; `with_linear_units` adds the units by surgery."
        )
    if predicted.theta is None:
        if predicted.collapse_is_stable:
            said.append(
                f"A weight of the KL below {predicted.lambda_1:.4g} times that of the data term makes complete "
                "collapse unstable."
            )
        return said
    eigenvalues, k, n = predicted.eigenvalues, predicted.k, predicted.n
    rank = int((eigenvalues > 0).sum())
    for wanted in sorted({max(1, min(k, rank) // 2), min(k, rank)}) if predicted.survivors < min(k, rank) else []:
        below = eigenvalues[wanted] if wanted < n and eigenvalues[wanted] > 0 else eigenvalues[wanted - 1] / 2
        theta = float(np.sqrt(eigenvalues[wanted - 1] * below))
        live, kl, error = at(predicted, theta)
        said.append(
            f"For {live} latents multiply the weight of the KL by {theta / predicted.theta:.3g}, or write "
            f"{at_theta(theta)}: theta = {theta:.3g}, K = {kl:.4g} nats, E = {error:.4g}."
        )
    if not predicted.objective.learned and predicted.learned_sigma2 is not None:
        live, kl, error = at(predicted, predicted.learned_sigma2)
        said.append(
            f"Learn sigma2, with the KL weighed 1: it goes to {predicted.learned_sigma2:.4g}, {live} latents live, "
            f"K = {kl:.4g} nats, E = {error:.4g}."
        )
    if predicted.survivors == k < rank and (eigenvalues[k] > predicted.theta):
        live, kl, error = at(predicted, predicted.theta, 2 * k)
        said.append(f"With {2 * k} latents at the same theta, {live} live: K = {kl:.4g} nats, E = {error:.4g}.")
    if predicted.objective.free_bits:
        said.append("Without free bits the units that do not pay collapse; judge by J at the loss that you want.")
    return said


def text(found):
    """A forecast or a diagnosis as plain text.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    str

    Examples
    --------
    >>> from helpers.forecast import forecast
    >>> said = text(forecast([4.0, 2.0, 1.0], k=2, objective="0.5*sum(se) + 5*kl")).splitlines()
    >>> print(said[0][:57])
    ASKED FOR. The largest eigenvalue, 4, is below theta = 5:
    >>> print(said[-2][:55])
    - For 2 latents multiply the weight of the KL by 0.283,
    """
    headline, reason = verdict(found)
    table = [("", "", "predicted", "measured"), *rows(found)]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = [f"{headline.upper()}. {reason}", "", restated(found), ""]
    lines += [
        f"{what:{widths[0]}}  {kind:{widths[1]}}  {one:>{widths[2]}}  {two:>{widths[3]}}".rstrip()
        for what, kind, one, two in table
    ]
    for title, said in _lists(found):
        lines += ["", title, *(f"- {one}" for one in said)]
    return "\n".join(lines)


def _lists(found):
    parts = [("What to change, and what linear theory predicts:", remedies(found)), ("Mind:", list(found.notes))]
    return [(title, said) for title, said in parts if said]


def markdown(found):
    """A forecast or a diagnosis as Markdown.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    str
    """
    headline, reason = verdict(found)
    lines = [f"## {headline.capitalize()}", "", reason, "", restated(found), ""]
    lines += ["| | kind | predicted | measured |", "|---|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    for title, said in _lists(found):
        lines += ["", f"**{title}**", "", *(f"- {one}" for one in said)]
    return "\n".join(lines) + "\n"


def html(found):
    """A forecast or a diagnosis as one HTML file, picture included, that needs nothing else.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    str
    """
    headline, reason = verdict(found)
    safe = escape.escape
    parts = [
        f"<h1>{safe(headline.capitalize())}</h1><p><strong>{safe(reason)}</strong></p><p>{safe(restated(found))}</p>"
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("quantity", "kind", "predicted", "measured"))
    body = "".join("<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>" for row in rows(found))
    parts.append(f'<table tabindex="0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')
    parts.append(f'<div class="panels">{"".join(_drawings(found))}</div>')
    for title, said in _lists(found):
        parts.append(f"<h2>{safe(title)}</h2><ul>" + "".join(f"<li>{safe(one)}</li>" for one in said) + "</ul>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{safe(headline.capitalize())}</title><style>{STYLE}</style><main>{''.join(parts)}</main></html>\n"
    )


def _drawings(found):
    """Each panel of the figure as HTML, for a page on which they stand beside or below each other."""
    for name, draw in _panels(*_parts(found)):
        picture, ax = plots.figure(1, 1, width=4.3, height=3.2)
        draw(ax)
        drawing = io.StringIO()
        with plt.rc_context({"svg.hashsalt": name}):  # the same in every report, and in no two panels
            picture.savefig(drawing, format="svg", metadata={"Date": None})
        plt.close(picture)
        svg = drawing.getvalue()
        yield f'<figure role="img" aria-label="{escape.escape(name)}">{svg[svg.index("<svg") :]}</figure>'


def described(found):
    """The figure in a sentence, for whoever does not see it.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    str
    """
    names = [name for name, _ in _panels(*_parts(found))]
    return f"Panels: {', '.join(names)}."


def figure(found):
    """The picture: spectrum and theta, KL of each unit, rate and distortion, and the spectrum of what is left over.

    Parameters
    ----------
    found : Forecast or Diagnosis

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is nothing to draw, before training with a likelihood of which nothing is known.
    """
    drawn = _panels(*_parts(found))
    if not drawn:
        return None
    if len(drawn) == 1:
        fig, ax = plots.figure(1, 1, width=4.3, height=3.2)
        axes = [ax]
    else:
        fig, axes = plots.panels(len(drawn), height=3.2)
    for ax, (_, draw) in zip(axes, drawn, strict=True):
        draw(ax)
    return fig


def _panels(predicted, measured):
    """What can be drawn: a name and a function of the axes each."""
    found = []
    if predicted.eigenvalues is not None:
        limit = predicted.theta if predicted.theta is not None else predicted.objective.beta
        name = "θ" if predicted.theta is not None else "β"
        found.append(
            (f"eigenvalues of the data and {name}", lambda ax: _spectrum(ax, predicted.eigenvalues, limit, name))
        )
    if measured is not None or predicted.kl_per_unit is not None:
        found.append(("KL divergence of each unit", lambda ax: _bars(ax, predicted, measured)))
    if predicted.theta is not None:
        found.append(("rate and distortion", lambda ax: _plane(ax, predicted, measured)))
    if measured is not None and measured.rho is not None:
        found.append(("eigenvalues of what is left over", lambda ax: _left_over(ax, measured)))
    return found


def _positive(values):
    """Positions from 1 and values of those that stand out from rounding; all descend."""
    values = values[values > max(1e-9 * values[0], 0.0)]
    return np.arange(1, 1 + values.size), values


def _spectrum(ax, eigenvalues, limit, name):
    ax.semilogy(*_positive(eigenvalues), ".-", ms=3, label="eigenvalue of the data")
    ax.axhline(limit, color=plots.COLOURS[1], linestyle="--", label=f"{name} = {limit:.3g}")
    ax.set(xlabel="component i", ylabel="variance", xscale="log")
    ax.legend()


def _bars(ax, predicted, measured):
    if measured is not None:
        kl = np.sort(measured.kl_per_unit)[::-1]
        ax.bar(np.arange(1, len(kl) + 1), kl, width=0.9, color=plots.COLOURS[0], label="measured")
    if predicted.kl_per_unit is not None:
        units = np.arange(1, predicted.k + 1)
        ax.step(units, predicted.kl_per_unit, where="mid", color="black", label="best linear VAE")
    ax.axhline(NATS, color="0.4", linestyle=":", label=f"{NATS:g} nats")
    ax.set(xlabel="unit, by its KL", ylabel="KL divergence (nats)")
    ax.legend()


def _plane(ax, predicted, measured):
    top, last = predicted.eigenvalues[0], predicted.eigenvalues[min(predicted.k, predicted.n) - 1]
    low = min(predicted.theta, max(last, 1e-6 * top)) / 2
    curve = (
        [at(predicted, theta)[1:] for theta in np.geomspace(max(top, 1e-300), max(low, 1e-306), 200)] if top > 0 else []
    )
    if curve:
        ax.plot(*zip(*curve, strict=True), color="black", label="linear, any θ")
    ax.plot(0, predicted.eigenvalues.sum(), "s", color="0.4", label="collapsed")
    ax.plot(predicted.kl, predicted.distortion, "o", color=plots.COLOURS[1], label="linear, at this θ")
    if measured is not None:
        ax.plot(measured.kl, measured.distortion, "*", ms=12, color=plots.COLOURS[0], label="this network")
    ax.set(xlabel="rate K (nats)", ylabel="distortion E")
    ax.legend()


def _left_over(ax, measured):
    ax.semilogy(*_positive(measured.rho), ".-", ms=3, label="ρ, eigenvalue over θ" if measured.theta else "ρ")
    ax.axhline(1, color=plots.COLOURS[1], linestyle="--", label="above 1 a unit would pay")
    ax.set(xlabel="component i of what is left over", ylabel="ρ", xscale="log")
    ax.legend()
