"""Where a recorded run stands: beside the best linear VAE, and on its own way up. Serves chapters 09 to 11.

A network that contains the linear VAE is, at its best, no worse. One that ends below it was not trained to its best,
and says nothing about optima, whatever its units do. One that still rises says nothing finer than what it still gains.
Such a run decides no claim; `undecided` says why.
"""

import numpy as np

from helpers import records, spectrum
from helpers._validation import finite_array, integer, plain_array, record_with

SPAN = 100  # epochs that a slope is given for
LAST = 10  # it is that of the last tenth of the epochs
SETBACK = 2.0  # a squared error of so many times its least is a run that fell and did not recover


def linear_floor(record, eigenvalues, k=None):
    """ELBO of the best linear VAE for each member of a record, (M,), in nats.

    Parameters
    ----------
    record : xarray.Dataset
    eigenvalues : (n,) array_like
        Of the 1/N covariance of the data that the record was trained on, descending.
    k : int, optional
        Latents of the linear VAE: by default as many as the record's. Fewer where the network has a narrower layer.

    Returns
    -------
    (M,) ndarray
        At the member's own sigma2 where that is fixed, at the best one where it is learned.
    """
    record_with(record, "set_sigma2", "set_sigma2_rule")
    eigenvalues = finite_array("eigenvalues", eigenvalues, ("n",))
    k = integer("k", record.sizes.get("unit") if k is None else k, 1, eigenvalues.size)
    best = spectrum.learned_sigma2(eigenvalues, k) if (record.set_sigma2_rule != "fixed").any() else None
    rules = zip(record.set_sigma2_rule.values, record.set_sigma2.values, strict=True)
    return np.array([spectrum.elbo(eigenvalues, k, s if rule == "fixed" else best) for rule, s in rules])


def slope(history):
    """Slope of the last tenth of a `history`, (epochs, M), by least squares, in its unit per 100 epochs, (M,).

    Raises
    ------
    ValueError
        When it has another number of axes, or fewer than two epochs.
    """
    history = plain_array("history", history, "numbers (epochs, M)").astype(float)
    if history.ndim != 2 or len(history) < 2 or not history.size:
        raise ValueError(f"history has shape {history.shape}; expected (epochs, M) with at least two epochs")
    last = max(2, len(history) // LAST)
    steps = np.arange(last) - (last - 1) / 2
    with np.errstate(over="ignore", invalid="ignore"):  # a member that diverged has NaN or infinity, and others none
        return SPAN * (steps[:, None] * history[-last:]).sum(axis=0) / (steps**2).sum()


def fell(record):
    """Which members of a `record` diverged, or ended with a squared error of twice the least it had had, (M,) bool."""
    record_with(record, "history_sse", "diverged")
    history = np.nan_to_num(record.history_sse.values, nan=np.inf, posinf=np.inf)
    return (record.diverged.values > 0) | (history[-1] > SETBACK * history.min(axis=0))


def undecided(record, eigenvalues, difference, history=None, k=None):
    """Why the members of a record cannot decide a claim, as text; "" where they can.

    Parameters
    ----------
    record : xarray.Dataset
        With the members that the claim is about, and no others.
    eigenvalues, k
        As for `linear_floor`.
    difference : float
        What the claim turns on, in nats: two ELBOs that far apart, say. A run that gains as much in 100 epochs might
        yet turn it.
    history : (epochs, M) array_like, optional
        Of the quantity that the claim is about; by default the ELBO.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        When the history has not one column for each member.
    """
    record_with(record, "elbo", "history_elbo", "set_sigma2", "set_sigma2_rule")
    difference = abs(float(finite_array("difference", difference, ())))
    names = [f"σ² = {s:g}" if rule == "fixed" else "σ² learned" for s, rule in _kinds(record)]
    bad, below = fell(record), linear_floor(record, eigenvalues, k) - record.elbo.values
    rise = np.abs(slope(record.history_elbo.values if history is None else history))
    if rise.shape != below.shape:
        raise ValueError(f"history has {rise.size} columns; expected one for each of {below.size} members")
    if bad.any():
        return f"{names[int(bad.argmax())]} fell and did not recover"
    if not below.max() <= 0:  # NaN decides nothing either
        return f"{names[int(below.argmax())]} ends {below.max():,.0f} nats below the best linear VAE"
    if not rise.max() <= difference:
        change = f"still changes by {rise.max():,.3g} nats per {SPAN} epochs"
        return f"{names[int(rise.argmax())]} {change}, and the claim turns on {difference:,.3g}"
    return ""


def _kinds(record):
    return zip(record.set_sigma2.values, record.set_sigma2_rule.values, strict=True)


def further_gain(record):
    """What further affine units would add to the ELBO of each member of a `record`, (M,); NaN where not measured."""
    record_with(record, "elbo")
    return record.further_gain.values if "further_gain" in record else np.full(record.elbo.shape, np.nan)


def beside(record, eigenvalues, k=None):
    """How far each member is from the best linear VAE, and what further units would add, in a few words.

    Parameters
    ----------
    record, eigenvalues, k
        As for `linear_floor`.

    Returns
    -------
    str
    """
    record_with(record, "elbo")
    above = ", ".join(f"{gap:+,.0f}" for gap in record.elbo.values - linear_floor(record, eigenvalues, k))
    gains = further_gain(record)
    if not np.isfinite(gains).any():
        return f"{above} nats from the best linear VAE"
    return (
        f"{above} nats from the best linear VAE; further affine units would add {', '.join(f'{g:.1f}' for g in gains)}"
    )


def describe(record, eigenvalues, k=None):
    """The standing of every member as text: ELBO, floor, further gain and slope, a line each.

    Parameters
    ----------
    record, eigenvalues, k
        As for `linear_floor`.

    Returns
    -------
    str
    """
    record_with(record, "elbo", "history_elbo", "set_beta")
    floors, slopes = linear_floor(record, eigenvalues, k), slope(record.history_elbo.values)
    annealed = ["annealed" if rises else "" for rises in records.is_annealed(record)]
    lines = [
        "                              ELBO    best linear    above it  further gain   nats per 100 epochs, at the end"
    ]
    gains = [f"{gain:13,.1f}" if np.isfinite(gain) else f"{'not measured':>13s}" for gain in further_gain(record)]
    rows = zip(_kinds(record), annealed, record.elbo.values, floors, gains, slopes, fell(record), strict=True)
    for (s, rule), kind, elbo, floor, gain, rise, bad in rows:
        name = f"σ² {f'= {s:g}' if rule == 'fixed' else 'learned'} {kind}"
        note = "   fell and did not recover" if bad else ""
        lines.append(f"{name:22s} {elbo:12,.1f} {floor:12,.1f} {elbo - floor:12,.1f} {gain} {rise:14.2f}{note}")
    return "\n".join(lines)
