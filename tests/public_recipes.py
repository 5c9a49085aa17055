"""Good arguments for every public function and method, and what each argument is. Serves `test_public`."""

import contextlib
import dataclasses
import datetime
import gzip
import hashlib
import io
import logging
import os
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

import helpers


@dataclass
class Given:
    """One argument of a recipe.

    `value` is a good one, `role` a key of `BAD`. `names` are words of which a message must have one, besides the
    argument's own. `takes` are kinds that are right here and not tried, with commas. `extra` are further bad values,
    functions without arguments that make one, by kind. `same`, where given, are the only kinds of `SAME` to try.
    """

    value: object
    role: str
    names: tuple = ()
    takes: str = ""
    extra: dict = dataclasses.field(default_factory=dict)
    same: str | None = None


class Tagged(np.ndarray):
    """An array whose class might mean anything, say a unit."""


HUGE = 10**400
ANYTHING = {  # functions that make a value, so that a generator is a fresh one
    "None": lambda: None,
    "text": lambda: "nonsense",
    "empty text": lambda: "",
    "text of a number": lambda: "1",
    "bytes": lambda: b"1",
    "boolean": lambda: True,
    "complex": lambda: 1 + 2j,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "minus infinity": lambda: float("-inf"),
    "integer": lambda: 1,
    "zero": lambda: 0,
    "negative": lambda: -1,
    "float": lambda: 1.5,
    "whole float": lambda: 1.0,
    "10**30": lambda: 10**30,
    "10**400": lambda: HUGE,
    "decimal": lambda: Decimal("0.5"),
    "datetime64": lambda: np.datetime64("2019-11-06"),
    "date": lambda: datetime.date(2019, 11, 6),
    "timedelta64": lambda: np.timedelta64(1, "s"),
    "timedelta": lambda: datetime.timedelta(1),
    "masked": lambda: np.ma.masked,
    "structured": lambda: np.zeros(2, [("a", float)]),
    "object array": lambda: np.array([object(), None]),
    "array": lambda: np.arange(4.0),
    "meta tensor": lambda: torch.zeros(2, device="meta"),
    "sparse": lambda: scipy.sparse.eye_array(3).tocsr(),
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "empty list": list,
    "list": lambda: [1, 2],
    "dict": lambda: {"a": 1},
    "empty dict": dict,
    "set": lambda: {1},
    "generator": lambda: (i for i in range(2)),
    "object": object,
    "function": lambda: abs,
    "class": lambda: int,
    "other object": lambda: helpers.ppca.PPCA([[1.0], [0.0]], [0.0, 0.0], 1.0),
}


SCALARS = "integer, zero, negative, float, whole float, 10**30"
SHAPE = "empty, empty list, extra axis, fewer axes, wider, integer, zero, negative, float, whole float, 10**30"
NOT_FINITE = "NaN, infinity, minus infinity, NaN in it, infinity in it, minus infinity in it, NaN in a tensor, missing"
OF_ANY_SHAPE = f"{SHAPE}, array, list, boolean, boolean array"  # and of truths as well
LAYOUT = "Fortran, strided, reversed, memmap"


def _first(g, value):
    g = np.array(g, dtype=float)
    g.flat[0] = value
    return g


def _structured(g):
    made = np.zeros(g.shape, [("a", float)])
    made["a"] = g
    return made


def bad_arrays(g):
    """Values that are not the array `g` of numbers, by kind."""
    kinds = {
        "text array": lambda: g.astype(str),
        "bytes array": lambda: g.astype("S"),
        "list of text": lambda: g.astype(str).tolist(),
        "boolean array": lambda: g.astype(bool),
        "complex array": lambda: g + 1j,
        "complex tensor": lambda: torch.tensor(g + 1j),
        "dates": lambda: g.astype(np.int64).astype("datetime64[D]"),
        "durations": lambda: g.astype(np.int64).astype("timedelta64[s]"),
        "structured array": lambda: _structured(g),
        "masked array": lambda: np.ma.array(g, mask=_first(g * 0, 1)),
        "masked array with no mask": lambda: np.ma.array(g),
        "subclass": lambda: g.view(Tagged),
        "array of objects": lambda: np.full(g.shape, object()),
        "array of None": lambda: np.full(g.shape, None),
        "array of text objects": lambda: g.astype(str).astype(object),
        "array of decimals": lambda: np.vectorize(Decimal, otypes=[object])(g),
        "array of 10**400": lambda: np.full(g.shape, HUGE, object),
        "NaN in it": lambda: _first(g, np.nan),
        "infinity in it": lambda: _first(g, np.inf),
        "minus infinity in it": lambda: _first(g, -np.inf),
        "NaN in a tensor": lambda: torch.tensor(_first(g, np.nan)),
        "array on meta": lambda: torch.tensor(g, device="meta"),
        "sparse tensor": lambda: torch.tensor(g).to_sparse(),
        "empty": lambda: g[:0],
        "extra axis": lambda: g[None],
        "fewer axes": lambda: g[0],
        "wider": lambda: np.concatenate([g, g], axis=-1),
    }
    if g.ndim == 2:
        kinds["sparse matrix"] = lambda: scipy.sparse.csr_array(g)
        kinds["ragged rows"] = lambda: [*g[:-1].tolist(), g[-1, :-1].tolist()]
        kinds["text column"] = lambda: pd.DataFrame(g.astype(str))
        kinds["missing"] = lambda: pd.DataFrame(_first(g, np.nan)).astype("Float64")
    return kinds


@dataclass
class Recipe:
    """A call, its arguments by name, and errors that answer a wrong one as well (say argparse's exit)."""

    call: object
    arguments: dict
    also: tuple = ()


def a(value, **options):
    return Given(np.array(value, dtype=float), "array", **options)


def whole_numbers(value, **options):
    return Given(np.array(value), "array", **options)


def given(role):
    return lambda value, *names, **options: Given(value, role, names, **options)


pos, non, whole, word, choice = map(given, ("positive", "non_negative", "integer", "text", "choice"))
thing, function, flag, place, many, tensor = map(given, ("object", "callable", "flag", "path", "sequence", "tensor"))

RNG = np.random.default_rng(0)
X = RNG.integers(0, 8, (6, 3)).astype(float)
BITS = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=float)
W = np.array([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]])
MEAN, LOGVAR = RNG.integers(-3, 4, (6, 2)).astype(float), RNG.integers(-4, 2, (6, 2)).astype(float)
MU, SPECTRUM = np.array([1.0, 0.0, -2.0]), np.array([8.0, 4.0, 2.0, 1.0])
COVARIANCE = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
TINY = {"n": 3, "hidden": (), "k": 2}
OPTIONAL = {"takes": "None"}
NONE_BELOW_0 = {"extra": {"negative entry": lambda: [-1.0, 1.0, 2.0]}}


def below_0(value):
    return {"negative in it": lambda: _first(value, -1.0)}


def not_positive(value):
    return {"negative in it": lambda: _first(value, -1.0), "zero in it": lambda: _first(value, 0.0)}


def theory():
    """Recipes for the linear theory, the Bernoulli model and the measures of collapse."""
    from helpers import bernoulli, collapse, exact, linear_vae, moments, objective, ppca, spectrum, standing

    M = moments.Moments(MU, COVARIANCE, 10)
    other = moments.Moments([0.0, 0.0], np.eye(2), 10)
    model, stationary = ppca.PPCA(W, MU, 0.5), ppca.stationary_point(M, [0], 2, 0.5)
    vae = linear_vae.LinearVAE(W, W.T, [0.5, 0.25], MU, 0.5)
    moments_ = thing(M, "covariance", extra={"other n": lambda: other, "a model": lambda: model})
    with_W = {"W": a(W), "moments": dataclasses.replace(moments_, names=("W",))}
    any_n = thing(M, "covariance", extra={"a model": lambda: model})
    model_ = thing(model, extra={"moments": lambda: M}, takes="other object")
    eigenvalues = a(SPECTRUM, extra=below_0(SPECTRUM[::-1]) | {"rising": lambda: [1.0, 2.0]})
    all_eigenvalues = a(SPECTRUM, extra=below_0(SPECTRUM[::-1]) | {"rising": lambda: [1.0, 2.0, 4.0, 8.0]})
    eigenvalues.takes = all_eigenvalues.takes = "wider, fewer axes"
    theta = {"sigma2": pos(0.5), "beta": pos(1.0)}
    whole_spectrum = {"eigenvalues": all_eigenvalues, "k": whole(2), **theta}
    part = {"eigenvalues": eigenvalues, **theta}
    x = a(BITS, takes="boolean array", extra=below_0(BITS) | {"above 1": lambda: _first(BITS, 2.0)})
    bits = {"x": x, "W": a(W), "mu": a(MU)}
    q = {"m": a(MEAN), "v": a(MEAN**2 + 1, extra=not_positive(MEAN**2 + 1))}
    square = np.array([[1.0, 0.0, 1.0], [2.0, -1.0, 0.0], [0.0, 3.0, 1.0]])
    y = a(BITS / 2 + 0.25, extra={"zero in it": lambda: BITS / 2, "one in it": lambda: BITS / 2 + 0.5})
    k, wider = whole(2), a(W, takes="wider")
    direction = np.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]])
    outputs = {"mean": a(MEAN), "logvar": a(LOGVAR)}
    grid = a([-1.0, 0.0, 1.0, 2.0], takes="wider")
    learned = whole_spectrum | {"eigenvalues": all_eigenvalues}
    del learned["sigma2"]
    encode, decode = (lambda x: (x[:, :2], x[:, :2] * 0)), (lambda z: np.column_stack([z, z[:, 0]]))
    outputs_that_do_not_fit = {
        "gives None": lambda: lambda x: None,
        "gives text": lambda: lambda x: "xy",
        "gives one array": lambda: lambda x: x[:, :2],
        "gives three": lambda: lambda x: (x[:, :2],) * 3,
        "gives a dict": lambda: lambda x: {"a": x},
        "gives other widths": lambda: lambda x: (x[:, :2], x[:, :1]),
        "gives numbers": lambda: lambda x: (1.0, 2.0),
        "gives NaN": lambda: lambda x: (x[:, :2] * np.nan, x[:, :2]),
        "gives text arrays": lambda: lambda x: (x[:, :2].astype(str),) * 2,
        "gives masked": lambda: lambda x: (np.ma.masked_greater(x[:, :2], 3.0),) * 2,
        "gives complex": lambda: lambda x: (x[:, :2] + 1j, x[:, :2]),
        "gives tensors for arrays": lambda: lambda x: (torch.zeros(6, 2), torch.zeros(6, 2)),
    }
    reconstructions_that_do_not_fit = {
        "gives None": lambda: lambda z: None,
        "gives a tuple": lambda: lambda z: (decode(z), z),
        "gives a dict": lambda: lambda z: {"a": decode(z)},
        "gives another width": lambda: lambda z: z,
        "gives NaN": lambda: lambda z: decode(z) * np.nan,
        "gives text": lambda: lambda z: decode(z).astype(str),
        "gives masked": lambda: lambda z: np.ma.masked_greater(decode(z), 1.0),
        "gives complex": lambda: lambda z: decode(z) + 1j,
    }
    record = history(np.stack([np.arange(5.0), np.arange(5.0) ** 2], axis=1)).assign(
        elbo=("member", np.full(2, 100.0)),
        history_sse=(("epoch", "member"), np.ones((5, 2))),
        diverged=("member", np.zeros(2, int)),
        set_sigma2=("member", np.ones(2)),
        set_sigma2_rule=("member", np.array(["fixed", "adam"])),
        set_beta=("member", np.array(["1.0", "LinearAnnealing(epochs=2)"])),
    )
    at_its_end = {
        "record": thing(record, extra={"of nothing": lambda: xr.Dataset(), "a history": lambda: record.history_elbo}),
        "eigenvalues": all_eigenvalues,
        "k": whole(2, **OPTIONAL),
    }
    in_it = "NaN in it, infinity in it, minus infinity in it, NaN in a tensor, missing, array of None"
    gains = a(X[:5, :2], takes=f"wider, {in_it}")  # of a member that diverged
    batches = {
        f"batches of {kind}": (lambda make=make: [make()])
        for kind, make in bad_arrays(X).items()
        if kind not in ("wider", "extra axis", "NaN in a tensor")  # other shapes, which this decode does not have
    }
    batches |= {"an array": lambda: X, "a tensor": lambda: torch.tensor(X), "batches of None": lambda: [None]}
    batches |= {"batches of other widths": lambda: [X, X[:, :2]], "a frame": lambda: pd.DataFrame(X)}
    return {
        "moments.Moments": Recipe(
            moments.Moments,
            {
                "mean": a(MU),
                "covariance": a(
                    COVARIANCE,
                    extra={
                        "asymmetric": lambda: COVARIANCE + np.triu(COVARIANCE, 1),
                        "indefinite": lambda: np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
                    },
                ),
                "count": whole(10, takes="10**30"),
            },
        ),
        "moments.Moments.from_samples": Recipe(moments.Moments.from_samples, {"x": a(X, takes="wider, boolean array")}),
        "moments.Moments.from_batches": Recipe(
            moments.Moments.from_batches,
            {
                "iterable": many(
                    [X, X + 1],
                    "batch",
                    extra={f"batches of {kind}": (lambda make=make: [make()]) for kind, make in bad_arrays(X).items()}
                    | {"batches of other widths": lambda: [X, X[:, :2]]},
                    takes="batches of wider, batches of boolean array",
                )
            },
        ),
        "moments.covariance_eigenvalues": Recipe(
            moments.covariance_eigenvalues, {"x": a(X, takes="wider, boolean array")}
        ),
        "moments.svd": Recipe(moments.svd, {"A": a(W, takes="wider")}),
        "exact.scatter": Recipe(
            exact.scatter,
            {"total": whole_numbers([3, 1]), "products": whole_numbers([5, 1, 3]), "count": whole(4)},
        ),
        "exact.enclosures": Recipe(
            exact.enclosures,
            {
                "matrix": whole_numbers(
                    [[4, 1, 0], [1, 3, 0], [0, 0, 1]], extra={"asymmetric": lambda: np.triu(np.ones((3, 3), int))}
                ),
                "eigenvectors": a(np.eye(3)),
                "denominator": whole(2),
                "digits": whole(3, takes="zero"),
            },
        ),
        "ppca.PPCA": Recipe(ppca.PPCA, {"W": a(W), "mu": a(MU), "sigma2": pos(0.5)}),
        "ppca.PPCA.log_likelihood": Recipe(model.log_likelihood, {"moments": moments_}),
        "ppca.PPCA.log_likelihood_samples": Recipe(model.log_likelihood_samples, {"x": a(X, takes="boolean array")}),
        "ppca.PPCA.posterior": Recipe(model.posterior, {"x": a(X, takes="boolean array")}),
        "ppca.PPCA.average_mahalanobis": Recipe(model.average_mahalanobis, {"moments": moments_}),
        "ppca.PPCA.log_normaliser": Recipe(model.log_normaliser, {}),
        "ppca.PPCA.mahalanobis": Recipe(model.mahalanobis, {"Y": a(X.T, takes="wider")}),
        "ppca.PPCA.split": Recipe(model.split, {"Y": a(X.T, takes="wider")}),
        "ppca.PPCA.solve": Recipe(model.solve, {"Y": a(X.T, takes="wider")}),
        "ppca.PPCA.solve_W": Recipe(model.solve_W, {}),
        "ppca.PPCA.sample": Recipe(model.sample, {"count": whole(3), "seed": whole(0, takes="zero")}),
        "ppca.fit": Recipe(ppca.fit, {"moments": any_n, "k": k, "sigma2": pos(0.5, **OPTIONAL)}),
        "ppca.refuse_no_residual": Recipe(ppca.refuse_no_residual, {"moments": any_n, "k": k, "beta": pos(1.0)}),
        "ppca.max_log_likelihood": Recipe(ppca.max_log_likelihood, {"moments": any_n}),
        "ppca.stationary_point": Recipe(
            ppca.stationary_point,
            {
                "moments": any_n,
                "indices": many([0, 2], takes="empty list", extra={"twice": lambda: [0, 0]}),
                "k": k,
                "sigma2": pos(0.5),
            },
        ),
        "ppca.gradient": Recipe(ppca.gradient, {"model": model_, "moments": moments_}),
        "ppca.hessian_product": Recipe(
            ppca.hessian_product, {"model": model_, "moments": moments_, "direction": a(direction)}
        ),
        "ppca.hessian": Recipe(ppca.hessian, {"model": model_, "moments": moments_}),
        "ppca.is_stable": Recipe(
            ppca.is_stable,
            {"model": thing(stationary, "moments", extra={"not stationary": lambda: model}), "moments": moments_},
        ),
        "ppca.landscape": Recipe(
            ppca.landscape,
            {
                "model": model_,
                "moments": moments_,
                "column": whole(1, takes="zero"),
                "directions": a(direction),
                "a": grid,
                "b": grid,
            },
        ),
        "linear_vae.LinearVAE": Recipe(
            linear_vae.LinearVAE,
            {
                "W": a(W),
                "V": a(W.T),
                "D": a([0.5, 0.25], extra=not_positive([0.5, 0.25])),
                "mu": a(MU),
                "sigma2": pos(0.5),
            },
        ),
        "linear_vae.LinearVAE.terms": Recipe(vae.terms, {"moments": moments_}),
        "linear_vae.LinearVAE.elbo": Recipe(vae.elbo, {"moments": moments_, "beta": non(1.0)}),
        "linear_vae.LinearVAE.gradients": Recipe(vae.gradients, {"moments": moments_, "beta": non(1.0)}),
        "linear_vae.LinearVAE.log_likelihood": Recipe(vae.log_likelihood, {"moments": moments_}),
        "linear_vae.optimal_encoder": Recipe(linear_vae.optimal_encoder, {"W": wider, **theta}),
        "linear_vae.posterior_gap": Recipe(linear_vae.posterior_gap, {"W": wider, "sigma2": pos(0.5)}),
        "linear_vae.profile_elbo": Recipe(linear_vae.profile_elbo, with_W | theta),
        "linear_vae.profile_gradient": Recipe(linear_vae.profile_gradient, with_W | theta),
        "linear_vae.fit": Recipe(
            linear_vae.fit,
            {
                "moments": any_n,
                "k": k,
                "sigma2": pos(0.5, **OPTIONAL),
                "beta": pos(1.0),
                "seed": whole(0, takes="zero"),
            },
        ),
        "objective.Objective": Recipe(
            objective.Objective,
            {
                "likelihood": choice("gaussian"),
                "data": pos(0.5),
                "kl": pos(2.0),
                "learned": flag(False),
                "free_bits": non(0.25),
                "notes": many(("A note.",), takes="empty tuple", extra={"empty": lambda: ("",)}),
                "sigma2": many((0.5, 2.0), takes="empty tuple", extra={"zero": lambda: (0.0,)}),
            },
        ),
        "objective.Objective.whitened": Recipe(
            objective.read("nll(sigma2) + kl", sigma2=[0.5, 2.0, 1.0]).whitened, {"moments": moments_}
        ),
        "objective.Objective.theta": Recipe(
            objective.read("nll(learned) + 2*kl").theta, {"eigenvalues": all_eigenvalues, "k": whole(2)}
        ),
        "objective.read": Recipe(
            objective.read,
            {
                "loss": word(
                    "mean(nll(sigma2)) + mean(kl)", extra={"no sum": lambda: "se", "no text": lambda: "import os"}
                ),
                "n": whole(3),
                "k": whole(2),
                "batch": whole(4, **OPTIONAL),
                "sigma2": a(
                    [0.5, 2.0, 1.0],
                    takes="integer, float, whole float, 10**30, fewer axes",
                    extra=not_positive([0.5, 2.0, 1.0]),
                ),
            },
        ),
        "objective.at_theta": Recipe(objective.at_theta, {"theta": pos(0.5)}),
        **{f"spectrum.{name}": Recipe(getattr(spectrum, name), part) for name in ("active", "encoder_variances", "kl")},
        "spectrum.escape_rate": Recipe(spectrum.escape_rate, part | {"beta": non(1.0)}),
        "spectrum.epsilon_delta_threshold": Recipe(spectrum.epsilon_delta_threshold, part | {"delta": pos(0.25)}),
        "spectrum.distortion": Recipe(spectrum.distortion, whole_spectrum),
        "spectrum.tuned_sigma2": Recipe(spectrum.tuned_sigma2, whole_spectrum),
        "spectrum.elbo": Recipe(spectrum.elbo, whole_spectrum | {"noise": pos(0.5, **OPTIONAL)}),
        "spectrum.learned_sigma2": Recipe(spectrum.learned_sigma2, learned),
        **{
            f"standing.{name}": Recipe(getattr(standing, name), at_its_end)
            for name in ("linear_floor", "describe", "beside")
        },
        "standing.further_gain": Recipe(standing.further_gain, {"record": at_its_end["record"]}),
        "standing.fell": Recipe(standing.fell, {"record": at_its_end["record"]}),
        "standing.slope": Recipe(standing.slope, {"history": gains}),
        "standing.undecided": Recipe(
            standing.undecided,
            at_its_end
            | {
                "difference": Given(1.0, "number"),
                "history": dataclasses.replace(gains, takes=f"{gains.takes.replace('wider', '')}, None"),
            },
        ),
        "bernoulli.log_conditional": Recipe(bernoulli.log_conditional, bits | {"z": a(MEAN)}),
        "bernoulli.logit_normal_log_density": Recipe(
            bernoulli.logit_normal_log_density, {"y": y, "W": a(square, takes="wider"), "mu": a(MU)}
        ),
        "bernoulli.log_marginal": Recipe(bernoulli.log_marginal, bits | {"W": a(W / 4)}),
        "bernoulli.gaussian_logistic": Recipe(
            bernoulli.gaussian_logistic,
            {
                "a": a([[1.0, -2.0], [0.0, 3.0]], takes=f"extra axis, fewer axes, empty, {SCALARS}"),
                "s": a(
                    [[1.0, 0.5], [2.0, 0.0]],
                    takes="extra axis, fewer axes, empty, integer, zero, float, whole float, 10**30",
                    extra=below_0(np.ones((2, 2))),
                ),
            },
        ),
        "bernoulli.expected_log_likelihood": Recipe(bernoulli.expected_log_likelihood, bits | q),
        "bernoulli.elbo": Recipe(bernoulli.elbo, bits | q | {"beta": pos(1.0)}),
        "bernoulli.optimal_encoder": Recipe(
            bernoulli.optimal_encoder, bits | {"W": a(W / 4, takes="wider"), "beta": pos(1.0)}
        ),
        "bernoulli.collapse_threshold": Recipe(
            bernoulli.collapse_threshold, {"x": dataclasses.replace(x, takes="boolean array, wider")}
        ),
        "collapse.kl_samples": Recipe(collapse.kl_samples, outputs),
        "collapse.kl_per_unit": Recipe(collapse.kl_per_unit, outputs),
        "collapse.active_units": Recipe(
            collapse.active_units, {"mean": a(MEAN, takes="wider"), "threshold": pos(0.25)}
        ),
        "collapse.inactive_fraction": Recipe(
            collapse.inactive_fraction,
            {"kl": a([0.0, 0.5, 2.0], takes="wider"), "thresholds": a([0.25, 1.0], takes="wider")},
        ),
        "collapse.epsilon_delta": Recipe(
            collapse.epsilon_delta,
            {"kl_samples": a(MEAN**2, takes="wider"), "epsilon": pos(0.5), "delta": non(0.25)},
        ),
        "collapse.unit_statistics": Recipe(collapse.unit_statistics, outputs | {"delta": non(0.25)}),
        "collapse.mutual_information": Recipe(
            collapse.mutual_information, outputs | {"samples": whole(8), "seed": whole(0, takes="zero")}
        ),
        "collapse.evaluate": Recipe(
            collapse.evaluate,
            {
                "batches": Given([X, X + 1], "object", ("batch",), extra=batches),
                "encode": function(encode, extra=outputs_that_do_not_fit),
                "decode": function(decode, extra=reconstructions_that_do_not_fit),
                "sigma2": pos(0.5),
                "samples": whole(2),
                "model": thing(None, takes="None"),
                "seed": whole(0, takes="zero"),
            },
        ),
    }


def instruments(folder):
    """Recipes for what is forecast of a loss, and found in a trained model."""
    from helpers import codes, diagnose, diagnose_cli, forecast, moments, monitor, report, residual, verdict

    learned = "nll(learned) + 2*kl"
    encode, decode = (lambda x: (x[:, :2] / 8, x[:, :2] * 0 - 1)), (lambda z: np.column_stack([z, z[:, 0]]) + MU)
    found = codes.measure((encode, decode), X, "gaussian", 1)
    bits = codes.measure((encode, lambda z: 1 / (1 + np.exp(-decode(z)))), BITS, "bernoulli", 1)
    measured, predicted = diagnose.of_codes(found, "se + kl"), forecast.forecast(SPECTRUM, 2, "se + kl")
    collapsed = forecast.forecast(SPECTRUM, 2, "se + 99*kl")
    np.savez(folder / "codes.npz", x=X, mean=MEAN, logvar=LOGVAR, reconstructions=[X, X + 1])
    np.save(folder / "x.npy", X)
    asked = ["forecast", "--data", str(folder / "x.npy"), "--latents", "2", "--loss", "se + kl", "--json"]
    lightning = mock.Mock(Callback=object)

    def callback(**arguments):
        with mock.patch.dict("sys.modules", {"lightning": lightning, "lightning.pytorch": lightning}):
            return monitor.callback(**arguments) and None

    wider = residual.with_linear_units((encode, decode), X, "se + kl", 2)
    M = moments.Moments(MU, COVARIANCE, 10)
    loss = {
        "objective": thing(learned, "loss"),
        "sigma2": pos(0.5),
        "batch": whole(4, **OPTIONAL),
    }
    model = {
        "model": thing((encode, decode), "encode", "decode"),
        "loader": thing(X, "batch", extra={"rows of NaN": lambda: X * np.nan, "integers": lambda: X.astype(int)}),
        "pairs": whole(1),
        "seed": whole(0, takes="zero"),
    }
    spectrum_ = a(SPECTRUM, takes="wider, fewer axes", extra=below_0(SPECTRUM[::-1]) | {"rising": lambda: [1.0, 2.0]})
    others = {"of another likelihood": lambda: bits}
    widths = thing((0.5, 2.0, 1.0), extra={"too few": lambda: (1.0, 2.0), "zero in it": lambda: (1.0, 0.0, 2.0)})
    arrays = {
        "x": a(X, names=("mean", "logvar", "reconstructions"), same="list, strided, float32, tensor, objects"),
        "mean": a(MEAN, names=("logvar",), takes="wider", same="list, strided, float32, tensor, objects"),
        "logvar": a(LOGVAR, same="list, strided, float32, tensor, objects"),
        "reconstructions": a([X, X + 1], takes="fewer axes", same="strided, float32, tensor"),
        "likelihood": choice("gaussian"),
        "sigma2": widths,
    }
    rho = a([4.0, 0.5, 2.0], takes="wider")
    return {
        "forecast.forecast": Recipe(
            forecast.forecast,
            {
                "moments": spectrum_,
                "k": whole(2),
                "count": whole(9, **OPTIONAL),
                **loss,
                "sigma2": pos(0.5, **OPTIONAL),
            },
        ),
        "forecast.asked": Recipe(forecast.asked, {"n": whole(3, **OPTIONAL), "k": whole(2, **OPTIONAL), **loss}),
        "forecast.kind": Recipe(forecast.kind, loss),
        "forecast.J": Recipe(
            forecast.J,
            {
                "distortion": non(2.0),
                "kl_per_unit": a([1.0, 0.5], takes="wider"),
                "theta": pos(0.5),
                "free_bits": non(0.25),
            },
        ),
        "forecast.score_eigenvalues": Recipe(
            forecast.score_eigenvalues,
            {"moments": thing(moments.Moments.from_samples(BITS), extra={"of other data": lambda: M})},
        ),
        "codes.measure": Recipe(codes.measure, model | {"likelihood": choice("gaussian"), "sigma2": widths}),
        "codes.of_arrays": Recipe(codes.of_arrays, arrays),
        "residual.gain": Recipe(residual.gain, {"rho": rho, "units": whole(2, takes="None, zero")}),
        "residual.eigenpairs": Recipe(
            lambda first, second: residual.eigenpairs(first, second)[0],
            {"first": a(X, names=("second",)), "second": a(X[::-1] + X, names=("first",))},
        ),
        "residual.rho_of": Recipe(residual.rho_of, {"found": thing(found), "theta": pos(0.5)}),
        "residual.scores_rho": Recipe(
            residual.scores_rho, {"found": thing(bits), "beta": pos(0.5), "seed": whole(0, takes="zero")}
        ),
        "residual.with_linear_units": Recipe(residual.with_linear_units, {**model, **loss, "units": whole(2)}),
        "residual.Widened.encode": Recipe(wider.encode, {"x": a(X, same="strided, tensor")}),
        "residual.Widened.decode": Recipe(wider.decode, {"z": a(np.hstack([MEAN, MEAN]), same="strided, tensor")}),
        "verdict.at_collapse": Recipe(verdict.at_collapse, {"predicted": thing(collapsed)}),
        "verdict.judged": Recipe(verdict.judged, {"found": thing(measured)}),
        "diagnose.diagnose": Recipe(
            diagnose.diagnose, {**model, **loss, "held_out": dataclasses.replace(model["loader"], takes="None")}
        ),
        "diagnose.of_codes": Recipe(
            diagnose.of_codes,
            {
                "found": thing(found, extra=others),
                "held_out": thing(found, extra=others, **OPTIONAL),
                "seed": whole(0, takes="zero"),
                **loss,
            },
        ),
        "monitor.numbers": Recipe(
            monitor.numbers, {name: one for name, one in (model | loss).items() if name != "pairs"}
        ),
        **{
            f"report.{one.__name__}": Recipe(one, {"found": thing(measured)})
            for one in (report.verdict, report.restated, report.rows, report.remedies, report.described)
        },
        **{
            f"report.{one.__name__}": Recipe(one, {"found": thing(measured)})
            for one in (report.text, report.markdown, report.html, report.figure)
        },
        "monitor.callback": Recipe(
            callback,
            {
                "loader": thing(
                    X, "batch", takes="sparse, ragged, empty list, list, set, generator"
                ),  # it is not read yet
                "objective": thing("se + kl", "loss"),
                "every": whole(1),
                "sigma2": function(len, **OPTIONAL),
                "batch": whole(4, **OPTIONAL),
                "prefix": word("p/", takes="empty text"),
            },
        ),
        "diagnose_cli.main": Recipe(
            diagnose_cli.main,
            {"arguments": many(asked, takes="None", extra={"text": lambda: "forecast"})},
            (SystemExit,),
        ),
        "diagnose_cli.samples_from": Recipe(diagnose_cli.samples_from, {"data": place(folder / "x.npy")}),
        "diagnose_cli.codes_from": Recipe(
            diagnose_cli.codes_from, {"path": place(folder / "codes.npz", "codes"), "likelihood": choice("gaussian")}
        ),
        "report.at": Recipe(report.at, {"predicted": thing(predicted), "theta": pos(0.5), "k": whole(2, **OPTIONAL)}),
    }


def files_and_figures(folder):
    """Recipes for the data sets, the ledger, the scorecard, the figures and the pictures."""
    from PIL import Image

    from helpers import celeba, data, ensemble, ledger, plots, reconstructions, scorecard, vae

    book, card = ledger.Ledger("01_x"), scorecard.Scorecard("01_x")
    M = helpers.moments.Moments(np.zeros(10), np.diag([5.0, 3.8, 3.2, 2.8, 2.6, 2.3, 1.7, 1.5, 0.4, 0.2]), 100)
    bytes_ = a(X, takes="wider, extra axis", same="Fortran, uint8, torch.uint8, memmap")
    bytes_.value = X.astype(np.uint8)
    pack = folder / "CelebA64" / "celeba_64.npz"
    net = vae.mlp(**TINY).requires_grad_(False)
    record = history(np.stack([np.arange(5.0), np.arange(5.0) ** 2], axis=1))
    labels = many(["u", "v"], extra={"one": lambda: ["u"], "two letters": lambda: "uv", "numbers": lambda: [1, 2]})
    labels.takes = "list"  # it is of numbers

    canvas = Figure()  # one for all, since what is drawn is not looked at here
    ax, three = canvas.gca(), list(canvas.subplots(1, 3))

    def drawn(function):
        return lambda **arguments: function(**arguments) and None

    grid, gain = np.arange(4.0), RNG.integers(0, 5, (4, 4)).astype(float)
    ways = {"one": record, "other": record}

    def check(**arguments):
        book.entries.clear()
        return book.check(**arguments)

    return {
        "data.digits": Recipe(data.digits, {}),
        "data.digits_bytes": Recipe(data.digits_bytes, {}),
        "data.mnist_subset_indices": Recipe(data.mnist_subset_indices, {}),
        "data.patches": Recipe(data.patches, {"size": whole(2), "count": whole(3), "seed": whole(0, takes="zero")}),
        "data.synthetic_ppca": Recipe(
            data.synthetic_ppca,
            {
                "count": whole(5),
                "eigenvalues": a(
                    [4.0, 2.0, 1.0, 1.0], extra={"rising": lambda: [1, 2, 2, 2], "unequal": lambda: [4, 3, 2, 1]}
                ),
                "k": whole(2),
                "seed": whole(0, takes="zero"),
                "mean": a([1.0, 0.0, 2.0, 0.0], **OPTIONAL),
            },
        ),
        "data.load": Recipe(data.load, {"data": choice("digits")}),
        "data.mnist": Recipe(data.mnist, {"split": choice("train")}),
        "data.mnist_moments": Recipe(data.mnist_moments, {"which": choice("subset")}),
        "data.integer_sums": Recipe(data.integer_sums, {"images": bytes_}),
        "data.record_mnist_moments": Recipe(data.record_mnist_moments, {"folder": place(folder / "moments")}),
        "celeba.faces": Recipe(celeba.faces, {"split": choice("train")}),
        "celeba.crop": Recipe(celeba.crop, {"image": thing(Image.new("RGB", (178, 218)))}),
        "celeba.write_part": Recipe(
            celeba.write_part,
            {
                "source": place(pack, "nonsense", "pack", takes=""),
                "split": choice("valid"),
                "folder": place(folder / "part"),
            },
        ),
        "celeba.eigenvalues": Recipe(celeba.eigenvalues, {}),
        "celeba.record_eigenvalues": Recipe(celeba.record_eigenvalues, {"folder": place(folder / "eigenvalues")}),
        "ledger.relative_error": Recipe(
            ledger.relative_error,
            {
                "value": a(
                    X,
                    takes=f"{OF_ANY_SHAPE}, {NOT_FINITE}, None, array of None",
                ),
                "reference": a(
                    X,
                    takes=f"{OF_ANY_SHAPE}, infinity, minus infinity, infinity in it, minus infinity in it",
                ),
            },
        ),
        "ledger.say": Recipe(ledger.say, {"line": word("a line")}),
        "ledger.write_rows": Recipe(
            ledger.write_rows,
            {"variable": word("BOOK_NOWHERE"), "name": word("01_x"), "rows": many([{"a": 1}], takes="empty list")},
        ),
        "ledger.Ledger": Recipe(ledger.Ledger, {"notebook": word("01_x")}),
        "ledger.Ledger.check": Recipe(
            check,
            {
                "equation": whole(5),
                "method": word("two ways"),
                "kind": choice("algebra"),
                "value": a(
                    X,
                    takes=f"{OF_ANY_SHAPE}, {NOT_FINITE}, None, array of None",
                ),
                "reference": a(
                    X,
                    takes=f"{OF_ANY_SHAPE}, infinity, minus infinity, infinity in it, minus infinity in it",
                ),
                "tolerance": Given(0.0625, "non_negative"),
            },
            (ledger.CheckFailed,),
        ),
        "ledger.Ledger.certify": Recipe(
            book.certify,
            {
                "claim": word("one is one"),
                "left": thing(1, takes="integer"),
                "relation": choice("=="),
                "right": thing(1, takes="integer"),
                "erratum": word("", takes="empty text"),
            },
            (ledger.CheckFailed,),
        ),
        "scorecard.Scorecard": Recipe(scorecard.Scorecard, {"notebook": word("01_x")}),
        "scorecard.Scorecard.claim": Recipe(
            card.claim,
            {
                "figure": choice("Figure 1"),
                "claim": word("rises"),
                "holds": many(
                    [True, False],
                    takes="None",
                    extra={
                        "numbers": lambda: [1, 0],
                        "floats": lambda: [1.0],
                        "texts": lambda: ["no"],
                        "Nones": lambda: [None],
                        "array of floats": lambda: np.ones(2),
                        "matrix": lambda: np.ones((2, 2), bool),
                        "masked truth": lambda: np.ma.array([True], mask=[True]),
                        "lists": lambda: [[True]],
                    },
                ),
                "paper": word("1"),
                "ours": word("2"),
                "run": word("quick"),
                "undecided": word("", takes="empty text"),
            },
        ),
        "scorecard.Scorecard.show": Recipe(
            card.show,
            {"figure": choice("Figure 1"), "what": word("a picture"), "ours": word("2"), "run": word("quick")},
        ),
        "plots.figure": Recipe(
            lambda **arguments: plots.figure(**arguments) and None,
            {"rows": whole(1), "columns": whole(1), "width": pos(2.0), "height": pos(2.0)},
        ),
        "plots.panels": Recipe(
            lambda **arguments: plots.panels(**arguments) and None,
            {"count": whole(2), "width": pos(4.0), "height": pos(2.0)},
        ),
        "plots.show_source": Recipe(
            lambda function: plots.show_source(function).data,
            {
                "function": function(
                    plots.figure, extra={"a builtin": lambda: abs, "a class of C": lambda: int}, takes=""
                )
            },
        ),
        "plots.stability_panels": Recipe(
            lambda **arguments: plots.stability_panels(**arguments) and None,
            {
                "a": a(grid, extra={"falling": lambda: grid[::-1]}),
                "b": a(grid, extra={"falling": lambda: grid[::-1]}),
                "gains": many(
                    [gain, gain], takes="", extra={f"of {k}": (lambda m=m: [m()]) for k, m in bad_arrays(gain).items()}
                ),
                "titles": many(["one", "two"], extra={"one": lambda: ["one"], "two letters": lambda: "ab"}),
                "names": many(["u", "v"], extra={"one": lambda: ["u"], "three": lambda: ["u", "v", "w"]}),
                "pictures": many(
                    [gain, gain], takes="empty list", extra={"one": lambda: [gain], "three": lambda: [gain] * 3}
                ),
            },
        ),
        "plots.training_curves": Recipe(
            drawn(plots.training_curves),
            {
                "ax": thing(ax),
                "record": thing(record, extra={"without a history": lambda: record.drop_vars("history_elbo")}),
                "labels": labels,
                "quantity": choice("elbo"),
                "ylim": many(
                    [0.0, 20.0], takes="None", extra={"falling": lambda: [2.0, 1.0], "NaN": lambda: [0.0, np.nan]}
                ),
            },
        ),
        "plots.inactive_curves": Recipe(
            drawn(plots.inactive_curves),
            {
                "ax": thing(ax),
                "kl": a(MEAN[:2] ** 2, takes="wider", same="list, tensor, frame, float16"),
                "labels": labels,
                "snapshot": a(MEAN[:2] ** 2, same="list, tensor", **OPTIONAL),
                "predicted": a(MEAN[:2] ** 2, same="list, tensor", **OPTIONAL),
                "earlier": word("earlier", takes="empty text"),
                "low": pos(0.5),
            },
        ),
        "plots.learned_variance": Recipe(
            lambda axes=None, **arguments: plots.learned_variance(axes, **arguments),
            {
                "axes": many(three, extra={"two": lambda: three[:2]}),
                "ways": thing(
                    ways,
                    "record",
                    extra={
                        "without a history": lambda: {"a": record.drop_vars("history_elbo")},
                        "five": lambda: {str(i): record for i in range(5)},
                    },
                ),
            },
        ),
        "plots.landscape_explorer": Recipe(
            lambda **arguments: plots.landscape_explorer(**arguments).data,
            {
                "moments": thing(M),
                "used": whole(3),
                "directions": many([4, 6], extra={"falling": lambda: [6, 4], "floats": lambda: [4.0, 6.0]}),
                "low": pos(0.5),
                "start": pos(2.0),
                "reach": pos(2.0),
            },
        ),
        "plots.spectrum_explorer": Recipe(
            lambda **arguments: plots.spectrum_explorer(**arguments).data,
            {"moments": thing(M), "k": whole(6), "sigma2": pos(0.5), "beta": pos(1.0)},
        ),
        "reconstructions.reconstruct": Recipe(
            reconstructions.reconstruct, {"model": thing(net), "x": tensor(torch.zeros(3, 3), extra=PICTURES)}
        ),
        "reconstructions.latent_plane": Recipe(
            reconstructions.latent_plane,
            {
                "model": thing(net),
                "x": tensor(torch.rand(3, 3), extra=PICTURES | {"two": lambda: torch.zeros(2, 3)}),
                "steps": whole(2),
            },
        ),
        "reconstructions.variables": Recipe(
            reconstructions.variables,
            {
                "stack": thing(ensemble.Stack([vae.conv(8, (3, 2), 4, 2)])),
                "x": Given(np.zeros((3, 8, 8, 3), np.uint8), "array", same="uint8", takes="taller, wider"),
                "device": choice("cpu", extra={"cuda": lambda: "cuda:7"}),
            },
        ),
        "reconstructions.to_record": Recipe(
            reconstructions.to_record,
            {
                "images": a(
                    BITS,
                    takes=f"{NOT_FINITE}, extra axis, fewer axes, wider, empty, empty list, array, boolean array, "
                    "array of None",
                    extra={"bytes of a picture": lambda: np.full((2, 2), 200, np.uint8)},
                )
            },
        ),
        "reconstructions.from_record": Recipe(
            reconstructions.from_record,
            {
                "values": Given(
                    (BITS * 100 - 50).astype(np.int8),
                    "array",
                    takes="extra axis, fewer axes, wider, integer, zero, negative, empty, list, empty list",
                    extra={f"{value}": lambda value=value: _first(BITS, value).astype(int) for value in (200, -129)}
                    | {"halves": lambda: BITS / 2, "uint8 of 200": lambda: np.full((2, 2), 200, np.uint8)},
                )
            },
        ),
    }


PICTURES = {
    "an array": lambda: np.zeros((3, 3)),
    "NaN in it": lambda: torch.full((3, 3), float("nan")),
    "another width": lambda: torch.zeros(3, 4),
    "text": lambda: "x",
}


def history(values):
    """A record of a training history, (epochs, M) each, and of each member's KL."""
    epochs, members = values.shape
    variables = {f"history_{name}": (("epoch", "member"), values + 1) for name in ("elbo", "sse", "kl", "sigma2")}
    variables["kl_per_unit"] = (("member", "unit"), np.ones((members, 3)))
    return xr.Dataset(variables, {"epoch": np.arange(1, epochs + 1), "member": np.arange(members)})


PART = {
    "settings": {"data": "digits", "epochs": 3, "network": {"name": "mlp", "hidden": [8]}, "batch_size": 4},
    "data_sha256": "5e" * 32,
    "commit": "unknown",
    "versions": {"python": "3.12.0"},
    "device": "cpu",
    "precision": "float32",
    "seconds": 0.5,
    "samples_per_second": 1000,
    "date": "2020-01-01T00:00:00+00:00",
}


def recorded(start, stop):
    members = np.arange(start, stop, dtype=np.int32)
    settings = {"sigma2": 1.0, "sigma2_rule": "fixed", "beta": "1.0", "learning_rate": 0.5, "seed": 0}
    table = {f"set_{name}": ("member", np.array([value] * len(members))) for name, value in settings.items()}
    for name in ("elbo", "tuned_elbo", "sse", "kl", "sigma2", "active_units", "diverged"):
        table[name] = ("member", members if name == "diverged" else members + 0.5)
    part = {"members": [start, stop], **PART}
    return helpers.records.seal(xr.Dataset(table, {"member": members}), "demo", "quick", [part])


def deep(folder, closing):
    """Recipes for the networks, their training, the studies and their records."""
    from helpers import (
        checkpoint,
        cli,
        ensemble,
        evaluation,
        experiments,
        lockstep,
        long_runs,
        plans,
        records,
        studies,
        train,
        vae,
    )

    x, T = X.astype(np.float32), torch.tensor(X, dtype=torch.float32)
    build = partial(vae.mlp, **TINY)
    member = ensemble.Member(seed=1)
    net = build().requires_grad_(False)
    stack = ensemble.Stack([build(), build()])
    z = torch.zeros(6, 2)
    plan = plans.Plan("digits", partial(vae.mlp, n=64, hidden=(), k=2), (member, member), 1, 1797)

    run, settings = train.train(build, x, [member], 1, 2), {"b": 2}
    saved = folder / "saved.safetensors"
    checkpoint.save(saved, run, settings)

    def begun_lockstep():
        return lockstep.Lockstep(train.train(build, x, [member], 2, 2, budget=0), T, 2, "float32")

    def step(**arguments):
        made = begun_lockstep()
        return (made.epoch if arguments else made.step)(**arguments)

    def finish():
        made = begun_lockstep()
        made.step()
        made.finish()

    def products(precision):
        with lockstep.products_in(precision):
            pass

    def held(path):
        with checkpoint.alone(path):
            pass

    one = recorded(0, 2)
    record_file, listed = folder / "record.nc", folder / "list.txt"
    listed.write_text("demo quick 0:1\n")
    entry = long_runs.Entry("demo", "quick", range(1))
    records.save(one, record_file)
    record = thing(one, extra={"without provenance": lambda: xr.Dataset(one.variables)})
    runs = {
        "study": choice("tiny"),
        "profile": choice("quick"),
        "members": thing(
            range(1), extra={"a list": lambda: [0, 1], "steps": lambda: range(0, 2, 2), "beyond": lambda: range(3, 9)}
        ),
        "device": choice("cpu", extra={"cpu:3": lambda: "cpu:3", "xpu": lambda: "xpu", "cuda": lambda: "cuda:7"}),
        "path": place(folder / "run.safetensors", **OPTIONAL),
        "precision": choice("float32", **OPTIONAL),
    }
    budget = {"budget": pos(1e6, takes="None, zero")}
    one_run = {**runs, "members": dataclasses.replace(runs["members"], takes="None")}

    def fresh(function):
        def call(**arguments):
            (folder / "run.safetensors").unlink(missing_ok=True)
            found = function(**arguments)
            return found[0].elbo.values if isinstance(found, tuple) else None

        return call

    @cache
    def cluster():
        from distributed import LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        made = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
        return closing.enter_context(made).scheduler_address

    def distributed(**arguments):
        if isinstance(arguments["address"], str) and arguments["address"] == "cluster":
            arguments["address"] = cluster()
        studies.run_distributed(**arguments)

    networks = {
        "n": whole(3),
        "hidden": many(
            [2],
            extra={"floats": lambda: [2.0], "zeros": lambda: [0]},
            takes="list, empty list, dict, empty dict",
        ),
        "k": whole(2),
        "activation": function(nn.ReLU, takes="other object", extra={"not a layer": lambda: int}),
        "sigma2": pos(0.5),
    }
    found = {
        "vae.VAE": Recipe(
            lambda **arguments: vae.VAE(**arguments).log_sigma2,
            {"encoder": thing(nn.Linear(3, 4)), "decoder": thing(nn.Linear(2, 3)), "sigma2": pos(0.5)},
        ),
        "vae.VAE.encode": Recipe(net.encode, {"x": tensor(T)}),
        "vae.VAE.decode": Recipe(net.decode, {"z": tensor(z)}),
        "vae.VAE.forward": Recipe(net.forward, {"x": tensor(T), "noise": tensor(z)}),
        "vae.elbo": Recipe(
            vae.elbo,
            {
                "squared_error": tensor(torch.ones(2)),
                "kl": tensor(torch.ones(2)),
                "log_sigma2": tensor(torch.zeros(2)),
                "n": whole(3, takes="10**30"),
                "beta": thing(1.0, takes=SCALARS),
            },
        ),
        "vae.mlp": Recipe(lambda **arguments: str(vae.mlp(**arguments)), networks),
        "vae.conv": Recipe(
            lambda **arguments: str(vae.conv(**arguments)),
            {
                "size": whole(8),
                "channels": many([3, 2, 2], extra={"floats": lambda: [3.0, 2.0], "one": lambda: [3]}, takes="list"),
                "dense": whole(4),
                **{name: networks[name] for name in ("k", "activation", "sigma2")},
            },
        ),
        "vae.Permute": Recipe(lambda order: vae.Permute(order, 1), {"order": whole(0, takes="zero")}),
        "vae.Permute.forward": Recipe(vae.Permute(1, 0).forward, {"x": tensor(T)}),
        "vae.Permute.extra_repr": Recipe(vae.Permute(1, 0).extra_repr, {}),
        "ensemble.Stack": Recipe(
            lambda **arguments: len(ensemble.Stack(**arguments)),
            {
                "members": many(
                    [net, net],
                    extra={
                        "mixed types": lambda: [net, vae.conv(8, (3, 2), 4, 2)],
                        "other widths": lambda: [net, vae.mlp(n=4, hidden=(), k=2)],
                        "Nones": lambda: [None, None],
                        "with buffers": lambda: [vae.VAE(nn.BatchNorm1d(3), nn.Linear(2, 3))],
                    },
                ),
                "device": runs["device"],
            },
        ),
        "ensemble.Stack.member": Recipe(stack.member, {"m": whole(1, takes="zero")}),
        "vae.find_device": Recipe(vae.find_device, {"device": runs["device"]}),
        "vae.architecture": Recipe(vae.architecture, {"module": thing(net)}),
        "vae.has_float64": Recipe(vae.has_float64, {"device": thing(torch.device("cpu"))}),
        "vae.wide": Recipe(vae.wide, {"tensor": tensor(T, takes="meta tensor")}),
        "evaluation.measurable": Recipe(evaluation.measurable, {"mean": tensor(T), "logvar": tensor(T)}),
        "vae.scaled": Recipe(vae.scaled, {"x": tensor(T, takes="meta tensor")}),
        "evaluation.rows_at_a_time": Recipe(evaluation.rows_at_a_time, {"n": whole(3, takes="10**30")}),
        "lockstep.Lockstep": Recipe(
            lambda **arguments: lockstep.Lockstep(**arguments) and None,
            {"run": thing(run), "data": tensor(T), "batch_size": whole(2), "precision": choice("float32")},
        ),
        "lockstep.Lockstep.epoch": Recipe(step, {"bar": thing(tqdm(disable=True), takes="dict, empty dict, set")}),
        "lockstep.Lockstep.step": Recipe(step, {}),
        "lockstep.Lockstep.finish": Recipe(finish, {}),
        "lockstep.Lockstep.set_sigma2": Recipe(lambda: begun_lockstep().set_sigma2(), {}),
        "lockstep.Lockstep.put_back": Recipe(lambda: begun_lockstep().put_back(), {}),
        "lockstep.Lockstep.generator": Recipe(
            lambda seed: begun_lockstep().generator(seed).initial_seed(), {"seed": whole(1, takes="zero")}
        ),
        "lockstep.products_in": Recipe(products, {"precision": choice("float32")}),
        "lockstep.keep_freed_memory": Recipe(lockstep.keep_freed_memory, {}),
        "checkpoint.identity": Recipe(
            checkpoint.identity,
            {
                "run": thing(run),
                "data": word("5e" * 32),
                "batch_size": whole(2),
                "precision": choice("float32"),
            },
        ),
        "checkpoint.resume": Recipe(
            checkpoint.resume,
            {
                "path": place(saved, "nonsense", "1"),
                "run": thing(run),
                "settings": thing(settings, "another run", takes=""),
                "snapshots": many([], takes="empty list, empty dict, set", extra={"floats": lambda: [1.0]}),
            },
        ),
        "checkpoint.alone": Recipe(held, {"path": place(folder / "held.safetensors")}, (OSError,)),
        "checkpoint.save": Recipe(
            checkpoint.save,
            {
                "path": place(folder / "again.safetensors"),
                "run": thing(run),
                "settings": thing(settings, takes="dict, empty dict", extra={"of objects": lambda: {"a": object()}}),
            },
            (OSError,),
        ),
        "checkpoint.load": Recipe(
            checkpoint.load,
            {
                "path": place(saved, "nonsense", "1"),
                "run": thing(run),
                "settings": thing(settings, "another run", takes=""),
            },
        ),
        "checkpoint.progress": Recipe(checkpoint.progress, {"path": place(saved, "nonsense", "1")}),
        "ensemble.LinearAnnealing": Recipe(ensemble.LinearAnnealing, {"epochs": pos(3.0)}),
        "ensemble.Member": Recipe(
            ensemble.Member,
            {
                "seed": whole(1, takes="zero"),
                "learning_rate": pos(0.5),
                "sigma2": pos(0.5),
                "sigma2_rule": choice("fixed"),
                "beta": non(1.0, takes="function, class"),
                "decay": non(0.5, extra={"above 1": lambda: 1.5}),
            },
        ),
        "ensemble.Member.rate_at": Recipe(member.rate_at, {"epoch": whole(1, takes="zero"), "epochs": whole(2)}),
        "ensemble.Member.betas": Recipe(
            ensemble.Member(beta=lambda elapsed: 1.0).betas,
            {"epochs": whole(2), "steps": whole(3), "name": word("beta")},
        ),
        "ensemble.digest": Recipe(ensemble.digest, {"values": a(X, takes="wider")}),
        "ensemble.Run.start": Recipe(
            lambda **arguments: ensemble.Run.start(**arguments).epoch,
            {
                "build": function(build, extra={"gives None": lambda: lambda: None}),
                "members": many([member], extra={"Nones": lambda: [None]}),
                "sample": tensor(T[:2], "x"),
                "epochs": whole(2),
                "steps": whole(2),
                "device": runs["device"],
            },
        ),
        "ensemble.Run.networks": Recipe(lambda: sorted(run.networks()), {}),
        "ensemble.Run.tensors": Recipe(lambda: sorted(run.tensors()), {}),
        "ensemble.Member.beta_at": Recipe(member.beta_at, {"elapsed": non(1.0)}),
        "ensemble.Member.describe": Recipe(
            ensemble.Member(beta=lambda elapsed: 1.0).describe, {"values": a(X, takes="None, wider")}
        ),
        "ensemble.warn_of_long_schedules": Recipe(
            ensemble.warn_of_long_schedules,
            {"members": many([member], extra={"Nones": lambda: [None]}), "epochs": whole(1)},
        ),
        "train.train": Recipe(
            lambda **arguments: train.train(**arguments).history,
            {
                "build": function(
                    build,
                    extra={
                        "gives None": lambda: lambda: None,
                        "gives another module": lambda: lambda: nn.Linear(3, 3),
                        "gives another width": lambda: partial(vae.mlp, n=4, hidden=(), k=2),
                    },
                ),
                "x": Given(x, "array", same="float32", takes="array"),
                "members": many(
                    [member],
                    extra={"Nones": lambda: [None]}
                    | {
                        f"beta gives {value!r}": (lambda value=value: [ensemble.Member(beta=lambda t: value)])
                        for value in (-1.0, float("nan"), None, "1", 1j)
                    },
                ),
                "epochs": whole(1),
                "batch_size": whole(2),
                "snapshots": many(
                    [1], takes="empty list, empty dict, set", extra={"floats": lambda: [1.0], "zero": lambda: [0]}
                ),
                "device": runs["device"],
                "precision": choice("float32"),
                "path": place(None, **OPTIONAL),
                "checkpoint_seconds": non(60.0),
                "budget": pos(1e6, takes="None, zero"),
            },
        ),
        "evaluation.evaluate": Recipe(
            evaluation.evaluate,
            {"stack": thing(stack), "x": Given(x, "array", same="float32", takes="array"), "device": runs["device"]},
        ),
        "evaluation.unit_statistics": Recipe(evaluation.unit_statistics, {"stack": thing(stack), "data": tensor(T)}),
        "plans.Plan": Recipe(
            lambda **arguments: plans.Plan(**arguments) and None,
            {
                "data": choice("digits"),
                "network": function(plan.network),
                "members": many((member,)),
                "epochs": whole(1),
                "batch_size": whole(128, takes="10**30"),
                "snapshots": many((1,), takes="empty list, empty dict"),
                "precision": choice("float32"),
                "pictures": many((), takes="empty list, list, empty dict"),
            },
        ),
        "plans.Plan.settings": Recipe(plan.settings, {}),
        "experiments.run": Recipe(
            fresh(experiments.run),
            {
                "plan": thing(plan),
                "study": word("tiny"),
                "profile": word("quick"),
                **{key: one_run[key] for key in ("members", "device", "path")},
                **budget,
            },
        ),
        "experiments.commit": Recipe(experiments.commit, {}),
        "plans.Study": Recipe(
            lambda **arguments: plans.Study(**arguments) and None,
            {"title": word("A question"), "plans": thing({"quick": plan}, takes="empty dict")},
        ),
        "plans.own": Recipe(
            lambda **arguments: plans.own(**arguments) and None,
            {
                "data": choice("digits"),
                "latents": whole(2),
                "sigma2": many((0.5, 0.1), extra={"zero": lambda: (0.0,)}),
                "epochs": whole(3),
                "hidden": many((8,), takes="empty tuple, empty list", extra={"zero": lambda: (0,)}),
                "learning_rate": pos(0.01),
            },
        ),
        "plans.find": Recipe(
            lambda **arguments: plans.find(**arguments) and None,
            {"study": choice("demo"), "profile": choice("quick")},
        ),
        "records.best": Recipe(records.best, {"record": thing(one)}),
        "records.is_annealed": Recipe(records.is_annealed, {"record": thing(one)}),
        "records.printable": Recipe(records.printable, {"value": word("a", takes="empty text")}),
        "records.named": Recipe(
            records.named,
            {
                "record": record,
                "name": word("a name", takes="empty text"),
                "study": word("demo"),
                "profile": word("quick"),
            },
        ),
        "records.file_name": Recipe(
            records.file_name,
            {
                "study": word("demo"),
                "profile": word("quick"),
                "members": thing(range(1), takes="None"),
                "suffix": word("nc"),
            },
        ),
        "records.begun": Recipe(records.begun, {"study": word("mnist-fixed"), "profile": word("laptop")}),
        "records.digest": Recipe(records.digest, {"content": thing(b"abc", takes="bytes")}),
        "records.parts": Recipe(records.parts, {"record": record}),
        "records.seal": Recipe(
            records.seal,
            {
                "record": thing(one),
                "study": word("demo"),
                "profile": word("quick"),
                "part_list": many(
                    [{"members": [0, 2], **PART}],
                    extra={"Nones": lambda: [None], "lacking": lambda: [{"members": [0, 2]}]},
                ),
            },
        ),
        "records.to_bytes": Recipe(records.to_bytes, {"record": record}),
        "records.save": Recipe(records.save, {"record": record, "path": place(folder / "other.nc")}, (OSError,)),
        "records.load": Recipe(records.load, {"path": place(record_file)}, (OSError,)),
        "records.from_bytes": Recipe(
            records.from_bytes,
            {"content": thing(record_file.read_bytes(), "record"), "name": word("the record", takes="empty text")},
        ),
        "records.merge": Recipe(
            records.merge,
            {"records": many([one, recorded(2, 3)], extra={"one twice": lambda: [one, one], "Nones": lambda: [None]})},
        ),
        "records.recorded": Recipe(records.recorded, {"study": word("mnist-fixed"), "profile": word("laptop")}),
        "records.largest": Recipe(records.largest, {"study": word("mnist-fixed")}),
        "records.label": Recipe(records.label, {"record": record}),
        "cli.members_from": Recipe(
            cli.members_from,
            {"text": choice("0:2", "members"), "count": whole(4, "members", takes="integer, 10**30")},
        ),
        "studies.run": Recipe(fresh(studies.run), one_run | budget),
        "studies.obtain": Recipe(
            lambda **arguments: studies.obtain(**arguments) and None,
            {
                "study": choice("mnist-fixed"),
                "profile": choice("laptop"),
                "device": choice("cpu", takes="None"),
                "rerun": flag(False),
            },
        ),
        "studies.pending": Recipe(
            studies.pending,
            {
                "study": word("tiny"),
                "profile": word("quick"),
                "blocks": many([range(1)], extra={"Nones": lambda: [None]}),
                "out": place(folder / "out"),
                "resuming": flag(False),
            },
        ),
        "studies.recorded_in": Recipe(
            studies.recorded_in, {"study": word("tiny"), "profile": word("quick"), "out": place(folder / "out")}
        ),
        "studies.join": Recipe(
            studies.join, {"study": choice("tiny"), "profile": choice("quick"), "out": place(folder / "out")}
        ),
        "studies.run_block": Recipe(fresh(studies.run_block), one_run),
        "studies.run_distributed": Recipe(
            distributed,
            {
                "study": choice("tiny"),
                "profile": choice("quick"),
                "blocks": many([range(1)], extra={"beyond": lambda: [range(7, 9)], "lists": lambda: [[0]]}),
                "address": choice("cluster"),
                "save": function(lambda block, record: None),
                "device": runs["device"],
                "folder": place(None, takes="None, empty text"),
                "precision": choice("float32", **OPTIONAL),
            },
            (RuntimeError,),  # of blocks that failed, with their reasons
        ),
        "records.table": Recipe(records.table, {"record": thing(one)}),
        "long_runs.Entry": Recipe(
            long_runs.Entry,
            {
                "study": choice("demo"),
                "profile": choice("quick"),
                "members": thing(range(2), extra={"too far": lambda: range(9), "backwards": lambda: range(2, 0, -1)}),
                "precision": choice("float32", **OPTIONAL),
            },
        ),
        "long_runs.Entry.path": Recipe(entry.path, {"folder": place(folder), "suffix": word("nc")}),
        "long_runs.read": Recipe(long_runs.read, {"path": place(listed)}, (OSError,)),
        "long_runs.progress": Recipe(long_runs.progress, {"entry": thing(entry), "folder": place(folder)}),
        "long_runs.report": Recipe(
            long_runs.report,
            {"entries": many([entry], takes="empty list"), "folder": place(folder), "processes": whole(1)},
        ),
        "long_runs.work": Recipe(
            long_runs.work,
            {
                "entries": many([], takes="empty list"),
                "folder": place(folder),
                "processes": whole(1),
                "device": word("cpu"),
                "niceness": whole(1, takes="zero"),
                "say": function(print),
            },
        ),
        "cli.main": Recipe(
            cli.main,
            {
                "arguments": many(
                    ["list"], takes="None", extra={"nonsense": lambda: ["nonsense"], "text": lambda: "list"}
                )
            },
            (SystemExit,),
        ),
    }
    given = {name: one for name, one in found["train.train"].arguments.items() if name not in ("build", "members")}
    given["x"] = dataclasses.replace(given["x"], takes="array, wider")
    found["train.checked"] = Recipe(lambda **arguments: train.checked(**arguments) and None, given)
    found["train.interrupts"] = Recipe(lambda: train.interrupts() and None, {})
    return found


@contextlib.contextmanager
def world(folder):
    """All recipes, in a place where MNIST has two images and CelebA six, and a study trains in no time."""
    from PIL import Image

    from helpers import celeba, data, ensemble, plans, vae

    name, content = data.MNIST_FILES["train"][0], gzip.compress(bytes(16) + bytes(range(196)) * 8)
    (folder / "MNIST" / "raw").mkdir(parents=True)
    (folder / "MNIST" / "raw" / name).write_bytes(content)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    (folder / "CelebA64").mkdir()
    offsets, partition = len(jpeg) * np.arange(7), np.array([0, 0, 1, 1, 2, 2], np.uint8)
    arrays = {"jpeg": np.frombuffer(jpeg * 6, np.uint8), "offsets": offsets, "partition": partition}
    np.savez_compressed(folder / "CelebA64" / "celeba_64.npz", **arrays)
    packed = dict.fromkeys(celeba.SPLITS, (2, hashlib.sha256(jpeg * 2).hexdigest()))
    network, member = partial(vae.mlp, n=64, hidden=(), k=2), ensemble.Member(seed=1)
    tiny = plans.Study("Tiny", {"quick": plans.Plan("digits", network, (member, member), 1, 1797)})
    environment = {"BOOK_DATA": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "BOOK_COMMIT": "unknown"}
    before, number = Path.cwd(), torch.get_num_threads()
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(data, "MNIST_FILES", {"train": (name, hashlib.sha256(content).hexdigest(), 2)}),
        mock.patch.object(data, "mnist_subset_indices", lambda: np.array([0])),
        mock.patch.object(celeba, "PACKED", packed),
        mock.patch.dict(plans.STUDIES, {"tiny": tiny}),
    ):
        os.chdir(folder)  # a path without a folder is one here
        torch.set_num_threads(1)
        try:
            with contextlib.ExitStack() as closing:
                yield recipes(folder, closing)
        finally:
            dask.config.set(scheduler=None)  # a client that was refused its scheduler leaves its own mark there
            os.chdir(before)
            torch.set_num_threads(number)


def recipes(folder, closing):
    return theory() | instruments(folder) | files_and_figures(folder) | deep(folder, closing)
