"""How a VAE's loss was written, and what it asks for: the weights of its terms and the theta they imply.

Serves chapters 07 and 12. Whatever its reductions and factors, a loss of squared errors is, for one sample and up to a
factor,

    E / (2 theta) + K,

E the squared error summed over the features and K the KL divergence summed over the latents. Nothing but theta decides
where its optimum is, what survives there and what collapses: theta is beta sigma2 of a Gaussian VAE (chapter 07). A
loss is read from text as one would say it, ``"mean(se) + 0.00025*kl"``.

A noise variance for each feature is one for all in other units: divide each column by its standard deviation sigma_i,
and the squared error weighs the same everywhere. Such a loss has its theta there (`Objective.whitened`).
"""

import ast
import math
import operator
import re
from dataclasses import dataclass, field

import numpy as np

from helpers import spectrum
from helpers._validation import finite_array, instance, integer, non_negative, one_of, plain_array, positive, words
from helpers.moments import Moments

# Data terms by the name they have in a loss, and what each is per feature.
TERMS = {
    "se": ("gaussian", "squared error"),
    "nll": ("gaussian", "negative log density of a Gaussian, with its sigma2"),
    "bce": ("bernoulli", "binary cross-entropy"),
    "ce": ("categorical", "cross-entropy over classes"),
    "poisson": ("poisson", "negative log probability of a Poisson count"),
    "nb": ("negative binomial", "negative log probability of a negative binomial count"),
    "zinb": ("zero-inflated negative binomial", "the same, with more zeros"),
    "ae": ("laplace", "absolute error"),
    "huber": ("huber", "Huber's loss"),
}
GRAMMAR = (
    "one data term and kl in a sum, each with a factor: se, nll(sigma2=0.1), nll(sigma2) of an argument, nll(learned), "
    "bce, ce, poisson, nb, zinb, ae or huber; sum(...) over features or latents, which is understood, or mean(...); "
    "batch=sum in either for a sum over the minibatch where a mean is understood; max(kl, 0.5) for free bits; numbers, "
    "n, k and batch in factors"
)
# Words that code has for these, and what to write.
SAID = {
    **dict.fromkeys(("mse", "mse_loss", "l2"), "write mean(se) for a mean over the features and sum(se) for a sum"),
    **dict.fromkeys(("mae", "l1", "l1_loss"), "write mean(ae) for a mean over the features and sum(ae) for a sum"),
    **dict.fromkeys(("kld", "kl_loss", "kl_divergence"), "write kl"),
    **dict.fromkeys(("BCE", "binary_cross_entropy"), "write bce"),
    "sse": "write sum(se)",
    "KL": "write kl",
    "cross_entropy": "write ce for classes and bce for yes and no",
    "gaussian_nll": "write nll(sigma2=0.1), or nll(learned)",
    "beta": "write the number that it is",
}
# How well-known code writes its loss, by the names of its settings.
PRESETS = {
    "pythae VAE, mse": "0.5*sum(se) + kl",
    "pythae VAE, bce": "sum(bce) + kl",
    "pythae BetaVAE, mse, beta = 4": "0.5*sum(se) + 4*kl",
    "PyTorch-VAE VanillaVAE": "mean(se) + 0.00025*kl",
    "PyTorch-VAE BetaVAE, loss_type H": "mean(se) + 10*0.00025*kl",
    "pytorch/examples vae": "sum(bce, batch=sum) + sum(kl, batch=sum)",
    "Keras example, VAE": "sum(bce) + kl",
    "Keras example, VAE, of three channels": "sum(bce)/3 + kl",
    "Keras example, MLP with mse": "n*mean(se) + kl",
    "Lightning Bolts VAE": "mean(se) + 0.1*mean(kl)",
    "scvi-tools SCVI": "sum(zinb) + kl",
    "scvi-tools SCVI, nb": "sum(nb) + kl",
    "summed squared error plus KL": "sum(se) + kl",
    "mean squared error plus KL": "mean(se) + kl",
    "mean squared error plus mean KL": "mean(se) + mean(kl)",
    "mean squared error plus KL summed over the minibatch": "mean(se) + sum(kl, batch=sum)",
    "mean binary cross-entropy plus KL": "mean(bce) + kl",
    "a Gaussian decoder, sigma2 = 0.1": "nll(sigma2=0.1) + kl",
    "a Gaussian decoder, sigma2 learned": "nll(learned) + kl",
}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Objective:
    """A loss per sample, up to constants: `data` times its data term plus `kl` times the KL divergence.

    Parameters
    ----------
    likelihood : str
        gaussian, bernoulli, categorical, poisson, negative binomial, zero-inflated negative binomial, laplace or huber.
    data : float
        Weight of the data term summed over the features; for a Gaussian that of the squared error, or, where sigma2 is
        learned, of the negative log density.
    kl : float
        Weight of the KL divergence summed over the latents.
    learned : bool
        Whether sigma2 is learned with the rest, one for all features.
    free_bits : float
        Nats of each latent that cost nothing.
    notes : tuple of str
        What the way it is written makes depend on something else, a sentence each.
    sigma2 : tuple of float
        Noise variance of each feature, where it is not one for all: `data` then weighs the squared error over these.
    """

    likelihood: str
    data: float
    kl: float
    learned: bool = False
    free_bits: float = 0.0
    notes: tuple = field(default=(), compare=False)
    sigma2: tuple = ()

    def __post_init__(self):
        one_of("likelihood", self.likelihood, [likelihood for likelihood, _ in TERMS.values()])
        for name, value in (("data", self.data), ("kl", self.kl)):
            object.__setattr__(self, name, positive(name, value))
        object.__setattr__(self, "free_bits", non_negative("free_bits", self.free_bits))
        if instance("learned", self.learned, bool) and self.likelihood != "gaussian":
            raise ValueError(f"learned is True of a {self.likelihood} likelihood; expected it of a gaussian one alone")
        object.__setattr__(self, "notes", tuple(words("notes", note) for note in instance("notes", self.notes, tuple)))
        if instance("sigma2", self.sigma2, tuple):
            if self.likelihood != "gaussian" or self.learned:
                raise ValueError("sigma2 is given to a loss that is learned or not gaussian; expected ()")
            object.__setattr__(self, "sigma2", tuple(_variances(self.sigma2).tolist()))

    @property
    def beta(self):
        """The weight of the KL divergence beside a data term that weighs 1, a float."""
        return self.kl / self.data

    def theta(self, eigenvalues=None, k=None):
        """The theta that the loss implies, a float; None where no exact one is known for this likelihood.

        Where each feature has a noise variance of its own it is that of the `whitened` data, whose eigenvalues it is
        to be compared with.

        Parameters
        ----------
        eigenvalues : (n,) array_like, optional
            Of the data's covariance, descending: needed where sigma2 is learned.
        k : int, optional
            Number of latents: likewise. The theta is then that at the linear VAE's optimum.

        Raises
        ------
        ValueError
            When sigma2 is learned and what it depends on is not given, or has no best sigma2.
        """
        if self.likelihood != "gaussian":
            return None
        if not self.learned:
            return self.kl / (2 * self.data)
        if eigenvalues is None or k is None:
            missing = "eigenvalues is None" if eigenvalues is None else "k is None"
            raise ValueError(
                f"{missing}, and sigma2 is learned; expected the data's eigenvalues and a number of latents"
            )
        return self.beta * spectrum.learned_sigma2(eigenvalues, k, self.beta)

    def whitened(self, moments):
        """The moments in the units in which `theta` holds.

        Parameters
        ----------
        moments : Moments
            Of the data.

        Returns
        -------
        Moments
            Of the data with column i divided by the square root of its noise variance; the same where one is for all.

        Raises
        ------
        ValueError
            When the data have another number of features.

        Examples
        --------
        >>> found = read("nll(sigma2) + kl", sigma2=[0.5, 2.0])
        >>> moments = found.whitened(Moments([0.0, 0.0], [[2.0, 0.0], [0.0, 1.0]], 10))
        >>> found.theta(), moments.covariance.round(6).tolist()
        (1.0, [[4.0, 0.0], [0.0, 0.5]])
        """
        instance("moments", moments, Moments)
        if not self.sigma2:
            return moments
        if moments.mean.size != len(self.sigma2):
            raise ValueError(f"moments has {moments.mean.size} features; expected {len(self.sigma2)}, as sigma2 has")
        scale = np.sqrt(self.sigma2)
        return Moments(moments.mean / scale, moments.covariance / np.outer(scale, scale), moments.count)


def _variances(sigma2):
    sigma2 = finite_array("sigma2", sigma2, ("n",))
    if (sigma2 <= 0).any():
        raise ValueError(f"sigma2 reaches {sigma2.min():g}; expected variances above 0")
    return sigma2


@dataclass
class _Term:
    """One term as it is read: its name, weight over (features or latents, minibatch), and settings."""

    name: str
    weight: float = 1.0
    mean: bool = False
    batch: str = "mean"
    sigma2: object = None
    free_bits: float = 0.0


class _Reader:
    """Walks the syntax tree of a loss, as Python parses it, and refuses what is none."""

    def __init__(self, text, sizes, sigma2):
        self.text, self.sizes, self.sigma2, self.used = text, sizes, sigma2, set()

    def refuse(self, what):
        said = [SAID.get(word, SAID.get(word.lower())) for word in re.findall(r"\w+", what)]
        what += "".join(f" ({one})" for one in said if one)
        raise ValueError(f"loss is {self.text!r:.200}: {what}; expected {GRAMMAR}")

    def needed(self, name, what):
        """The size called `name`, or ``ValueError`` where it was not given and the loss depends on it."""
        if self.sizes[name] is None:
            raise ValueError(f"{name} is None, and {what} in {self.text!r:.200} depends on it; expected a whole number")
        return float(self.sizes[name])

    def number(self, node):
        """The value of a factor."""
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return float(value)
            case ast.Name(id=name) if name in self.sizes:
                self.used.add(name)
                return self.needed(name, "a factor")
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.number(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                try:
                    value = ARITHMETIC[type(op)](self.number(left), self.number(right))
                except (ZeroDivisionError, OverflowError):
                    self.refuse(f"{ast.unparse(node)} is no number")
                if isinstance(value, complex) or not math.isfinite(value):
                    self.refuse(f"{ast.unparse(node)} is no number")
                return value
        self.refuse(f"{ast.unparse(node)} is no number")

    def has_term(self, node):
        return any(isinstance(one, ast.Name) and (one.id in TERMS or one.id == "kl") for one in ast.walk(node))

    def terms(self, node, weight=1.0):
        """The terms of an expression, all with their weights."""
        match node:
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                sign = 1.0 if isinstance(op, ast.Add) else -1.0
                return self.terms(left, weight) + self.terms(right, sign * weight)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                factor, rest = (right, left) if self.has_term(left) else (left, right)
                return self.terms(rest, weight * self.number(factor))
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                divisor = self.number(right)
                if not divisor:
                    self.refuse("it divides by 0")
                return self.terms(left, weight / divisor)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self.terms(inner, -weight)
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return self.terms(inner, weight)
        term = self.term(node)
        term.weight *= weight
        return [term]

    def term(self, node):
        match node:
            case ast.Name(id=name) if name in TERMS or name == "kl":
                if name == "nll":
                    self.refuse("nll has no sigma2")
                return _Term(name)
            case ast.Call(func=ast.Name(id="sum" | "mean" as reduction), args=[inner], keywords=keywords):
                if (
                    isinstance(inner, ast.Call)
                    and isinstance(inner.func, ast.Name)
                    and inner.func.id in ("sum", "mean")
                ):
                    self.refuse(f"{ast.unparse(node)} reduces twice")
                (term, *others) = self.terms(inner)
                if others:
                    self.refuse(f"{ast.unparse(node)} reduces several terms at once")
                term.mean = reduction == "mean"
                for keyword in keywords:
                    over = keyword.value.id if isinstance(keyword.value, ast.Name) else ""
                    if keyword.arg != "batch" or over not in ("sum", "mean"):
                        self.refuse(f"{ast.unparse(keyword)} is no batch=sum or batch=mean")
                    term.batch = over
                return term
            case ast.Call(func=ast.Name(id="max"), args=[ast.Name(id="kl"), floor], keywords=[]):
                bits = self.number(floor)
                if bits < 0:
                    self.refuse(f"free bits are {bits:g}, below 0")
                return _Term("kl", free_bits=bits)
            case ast.Call(func=ast.Name(id="nll"), args=[ast.Name(id="learned")], keywords=[]):
                return _Term("nll", sigma2="learned")
            case ast.Call(func=ast.Name(id="nll"), args=[ast.Name(id="sigma2")], keywords=[]):
                if self.sigma2 is None:
                    raise ValueError(
                        f"sigma2 is None, and {self.text!r:.200} depends on it; expected variances above 0"
                    )
                return _Term("nll", sigma2=self.sigma2)
            case ast.Call(func=ast.Name(id="nll"), args=[], keywords=[ast.keyword(arg="sigma2", value=value)]):
                sigma2 = self.number(value)
                if sigma2 <= 0:
                    self.refuse(f"sigma2 is {sigma2:g}, not above 0")
                return _Term("nll", sigma2=sigma2)
        self.refuse(f"{ast.unparse(node)} is no term")


def read(loss, n=None, k=None, batch=None, sigma2=None):
    """The `Objective` of a loss in words.

    Parameters
    ----------
    loss : str
        One of `PRESETS`, or like ``"mean(se) + 0.00025*kl"``; a refusal says what the words are.
    n, k, batch : int, optional
        Features, latents and samples of a minibatch; each is needed only where the loss depends on it.
    sigma2 : float or (n,) array_like, optional
        What ``nll(sigma2)`` stands for in the loss: a noise variance, or one for each feature.

    Returns
    -------
    Objective

    Raises
    ------
    ValueError
        When the text is no loss, a weight is not above 0, or a number is missing that the weights depend on, or too
        many.

    See Also
    --------
    at_theta : a loss with a given theta.
    helpers.spectrum.active : what survives at that theta.

    Examples
    --------
    >>> round(read("mean(se) + 0.00025*kl", n=784).theta(), 6)
    0.098
    >>> round(read("mean(se) + kl", n=784).theta(), 6)
    392.0
    """
    text = PRESETS.get(words("loss", loss), loss)
    sizes = {"n": n, "k": k, "batch": batch}
    sizes = {name: None if size is None else integer(name, size, 1, 2**53) for name, size in sizes.items()}
    if sigma2 is not None:
        one = plain_array("sigma2", sigma2).ndim == 0
        sigma2 = positive("sigma2", sigma2) if one else _variances(sigma2)
    reader = _Reader(text, sizes, sigma2)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        reader.refuse("it cannot be read")
    terms = reader.terms(tree)
    kinds = ["kl" if term.name == "kl" else "data" for term in terms]
    if sorted(kinds) != ["data", "kl"]:
        reader.refuse(f"it has {kinds.count('data')} data terms and {kinds.count('kl')} of kl")
    data, kl = sorted(terms, key=lambda term: term.name == "kl")
    if sigma2 is not None and data.sigma2 is not sigma2:
        reader.refuse("it has no nll(sigma2), and sigma2 is given")
    weights = {}
    for term, own in ((data, "n"), (kl, "k")):
        weight = term.weight
        if term.mean:
            weight /= reader.needed(own, f"mean({term.name})")
        if term.batch == "sum" and data.batch != kl.batch:
            weight *= reader.needed("batch", f"the sum of {term.name} over the minibatch")
        if not weight > 0 or not math.isfinite(weight):
            reader.refuse(f"the weight of {term.name} is {weight:g}, not above 0")
        weights[term.name] = weight
    weight, learned = weights[data.name], isinstance(data.sigma2, str)
    each = ()
    if data.name == "nll" and not learned:  # its other term is a constant
        if isinstance(data.sigma2, np.ndarray):
            weight, each = weight / 2, tuple(data.sigma2.tolist())
        else:
            weight /= 2 * data.sigma2
    if each and n is not None and sizes["n"] != len(each):
        raise ValueError(f"sigma2 has {len(each)} entries; expected {sizes['n']}, as many as n says")
    notes = tuple(_notes(data, kl, reader.used, sizes))
    return Objective(TERMS[data.name][0], weight, weights["kl"], learned, kl.free_bits, notes, each)


def _notes(data, kl, used, sizes):
    if data.batch != kl.batch:
        summed = data.name if data.batch == "sum" else "kl"
        yield (
            f"Over the minibatch {summed} is summed and the other term averaged, so the balance of the two changes "
            f"with the size of the minibatch, here {sizes['batch']}."
        )
    if data.mean:
        yield (
            f"The mean over the {sizes['n']} features divides the data term by their number, so the same weight asks "
            "for something else at another size of the data."
        )
    if kl.mean:
        yield (
            f"The mean over the {sizes['k']} latents divides the KL divergence by their number, so more latents are "
            "each cheaper."
        )
    for name in sorted(used):
        yield f"A factor depends on {name}, here {sizes[name]}."


def at_theta(theta):
    """A loss of squared errors whose theta is `theta`, above 0: text that `read` reads, and that no size changes."""
    return f"{1 / (2 * positive('theta', theta)):.6g}*sum(se) + kl"
