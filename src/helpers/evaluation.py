"""What trained networks do, member by member: statistics of every unit, and all numbers of `collapse.evaluate`.

A member whose numbers are beyond what floats hold, after a learning rate far too large, has NaN throughout, and the
others do not suffer for it. Serves chapters 08 to 11, through `train` and `experiments`.
"""

import dataclasses
import math

import numpy as np
import torch
from tqdm import tqdm

from helpers import collapse
from helpers._validation import brief, instance, integer, samples
from helpers.ensemble import Stack
from helpers.vae import find_device, has_float64, scaled, wide

UNITS = collapse.UnitStatistics._fields  # an array (k,) each; what else an evaluation has are single numbers
FINAL = tuple(f.name for f in dataclasses.fields(collapse.Evaluation) if f.name not in UNITS)


class NotFinite(ValueError):
    """What a network makes of the data is beyond the numbers it is evaluated in."""


def rows_at_a_time(n):
    """Samples of n numbers that an evaluation takes at a time: 2000, or what 8 MB hold where they are large."""
    return max(1, min(2000, 2**21 // integer("n", n, 1, 10**100)))


def measurable(mean, logvar):
    """Whether encoder outputs are finite, and so are in float64 the variances, their inverses and all sums of them.

    Parameters
    ----------
    mean, logvar : (B, k) tensor

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        When one of them is no tensor of floating-point numbers.
    """
    for name, value in (("mean", mean), ("logvar", logvar)):
        if not instance(name, value, torch.Tensor).is_floating_point() or value.is_meta:
            raise ValueError(f"{name} is {brief(value)}; expected a tensor of floating-point numbers")
    return bool(mean.isfinite().all() and (logvar.abs() < 500).all())


def _encode(model, x):
    """Mean and log variance of q(z | x), or `NotFinite`."""
    mean, logvar = model.encode(x)
    if not measurable(mean, logvar):
        raise NotFinite
    return mean, logvar


@torch.no_grad()
def unit_statistics(stack, data):
    """`collapse.unit_statistics` of every member over all of `data`.

    Parameters
    ----------
    stack : ensemble.Stack
    data : (N, ...) tensor
        uint8 or float32, where the stack lies.

    Returns
    -------
    dict of str to (M, k) ndarray

    Raises
    ------
    ValueError
        When the data is no tensor (N, ...).
    """
    instance("stack", stack, Stack)
    if not isinstance(data, torch.Tensor) or data.ndim < 2 or not len(data) or data.is_meta:
        raise ValueError(f"data is {brief(data)}; expected a tensor (N, ...)")
    batches = data.split(rows_at_a_time(data[0].numel()))

    def measure(model):
        outputs = [_encode(model, scaled(batch)) for batch in batches]
        return collapse.unit_statistics(*(torch.cat(part) for part in zip(*outputs, strict=True)))._asdict()

    k = _latents("data", stack, scaled(data[:1]))
    return _of_each(stack, range(len(stack)), measure, UNITS, k)


@torch.no_grad()
def evaluate(stack, x, device="cpu"):
    """The numbers of `collapse.evaluate` of every member.

    On the host where the device has no float64, in which it sums.

    Parameters
    ----------
    stack : ensemble.Stack
    x : (N, ...) ndarray
        uint8 or float32.
    device : str or torch.device
        Where the stack lies.

    Returns
    -------
    dict of str to ndarray
        (M,) for each of `FINAL`, (M, k) for each of `UNITS`.

    Raises
    ------
    ValueError
        When x is no array (N, ...).
    """
    instance("stack", stack, Stack)
    x, device = samples("x", x), find_device(device)
    stays = has_float64(device)
    rows = rows_at_a_time(x[0].size)

    def decode(model, z):
        output = model.decode(z)
        if not output.square().isfinite().all():
            raise NotFinite
        return output

    def measure(model):
        model = model if stays else model.to("cpu")
        sigma2 = float(wide(model.log_sigma2).exp())
        if not 0 < sigma2 < math.inf:
            raise NotFinite
        batches = (
            scaled(torch.tensor(x[i : i + rows], device=device if stays else "cpu")) for i in range(0, len(x), rows)
        )
        found = collapse.evaluate(batches, lambda x: _encode(model, x), lambda z: decode(model, z), sigma2)
        return {name: getattr(found, name) for name in FINAL + UNITS}

    k = _latents("x", stack, scaled(torch.tensor(x[:1], device=device)))
    numbers = tqdm(range(len(stack)), "evaluating", unit="member", delay=2)
    return _of_each(stack, numbers, measure, FINAL + UNITS, k)


def _latents(name, stack, sample):
    try:
        return stack.member(0).encode(sample)[0].shape[1]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} has samples of shape {tuple(sample.shape[1:])}; the networks fail: {error}"
        ) from error


def _of_each(stack, numbers, measure, names, k):
    """What `measure` says of each member, by name, stacked; NaN throughout where it raises `NotFinite`."""
    rows = []
    for m in numbers:
        try:
            rows.append(measure(stack.member(m)))
        except NotFinite:
            rows.append({name: np.full(k, np.nan) if name in UNITS else np.nan for name in names})
    return {name: np.stack([row[name] for row in rows]) for name in names}
