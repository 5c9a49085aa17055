"""What a trained model says of data: its encoder's outputs and its residuals, by whatever library it is written in.

Serves chapter 12. A model is anything with an encoder and a decoder, by whatever names, and `measure` runs the two over
the data. An encoder returns a pair of mean and log variance, a longer tuple that begins with the two, a normal
distribution, or a dict or an object with such fields; a decoder an array, a distribution, a dict or an object.

Averages over z are taken twice, by two independent halves of the draws, so that a product of the two has the
expectation that the product of the exact averages has. Each half draws z in pairs mean + s e and mean - s e: what is
odd in the noise cancels, so that a linear decoder's average is exact.
"""

from dataclasses import dataclass

import numpy as np

from helpers._models import (
    at_home,
    batches_of,
    called,
    data_of,
    functions,
    posterior_of,
    reconstruction_of,
    takes_arrays,
)
from helpers._networks import as_like, batch_of, expect, library_of, modules_in, refuse_not_floating, undisturbed, wide
from helpers._validation import finite_array, instance, integer, one_of, plain_array, refuse_not_finite
from helpers.objective import TERMS

USE = 8192  # decodings, about, by which the decoder's use of all units is measured; 8 to 128 samples for each


@dataclass(frozen=True, eq=False)
class Codes:
    """Data, encoder outputs and residuals of N samples.

    Parameters
    ----------
    x : (N, n) ndarray
    mean, logvar : (N, k) ndarray
        Of q(z | x).
    error : (2, N) ndarray or None
        E_q of the squared error, or for a Bernoulli likelihood of the cross-entropy, by each half of the draws; None
        for other likelihoods.
    residual : (2, N, n) ndarray or None
        E_q[x - d(z)] likewise, d(z) the decoder's mean. None where there are no two draws.
    spread : (n,) ndarray or None
        Average of p (1 - p) over samples and draws, for a Bernoulli likelihood.
    use : (k,) ndarray or None
        Half the average squared change of the output between two draws of z_i from its prior.
    shape, latents : tuple of int
        Of a sample and of its z as the model has them: (n,) or that of an image, (k,) or that of a map.
    sigma2 : tuple of float
        Noise variance of each feature, by whose square root x, reconstructions and residuals have been divided; ()
        where one is for all.
    """

    x: np.ndarray
    mean: np.ndarray
    logvar: np.ndarray
    error: np.ndarray | None
    residual: np.ndarray | None
    spread: np.ndarray | None
    use: np.ndarray | None
    shape: tuple
    latents: tuple
    sigma2: tuple = ()

    @property
    def count(self):
        """Samples, N."""
        return len(self.x)


def measure(model, loader, likelihood="gaussian", pairs=4, seed=0, sigma2=()):
    """The codes of all samples: one run of a model over the data, that leaves it as it was.

    Torch modules are put into evaluation mode and run without gradients where they lie, and left as they were found:
    modes, buffers, and the random state of torch and NumPy; for which of them, see `collapse.evaluate`.

    Parameters
    ----------
    model : object, or tuple of two functions
        With methods or parts `encode` or `encoder`, and `decode` or `decoder`; where the encoder stops short of heads
        `fc_mu` and `fc_var`, they are joined to it. Or the two functions. Latent maps (B, ...) count as units, one for
        each entry.
    loader : iterable of batches, or (N, ...) array_like
        Batches of x, of tuples that begin with x, or of dicts with x under a name such as ``"x"``, ``"data"`` or
        ``"pixel_values"``. uint8 is used as x / 255.
    likelihood : str
        As in `objective.Objective`. Squared errors are taken for gaussian, cross-entropies for bernoulli, whose decoder
        has to give probabilities, and none for the others.
    pairs : int
        Pairs of draws of z in each half: 4 * pairs decodings of each sample.
    seed : int
    sigma2 : tuple of float
        Noise variance of each feature, where it is not one for all: errors and residuals are then taken over these.

    Returns
    -------
    Codes
        Held in memory whole: x and twice its size.

    Raises
    ------
    ValueError
        When there are no samples, or a batch or an output is not what is expected or not finite.
    """
    encode, decode = functions(model)
    one_of("likelihood", likelihood, [name for name, _ in TERMS.values()])
    instance("sigma2", sigma2, tuple)
    pairs, seed = integer("pairs", pairs, 1, 2**31 - 1), integer("seed", seed, 0, 2**63 - 1)
    batches = batches_of(loader)
    with undisturbed([model, encode, decode], seed):
        modules = modules_in([model, encode, decode])
        home = next((parameter for module in modules for parameter in module.parameters()), None)
        parts, use, library, shape, latents = [], None, None, None, ()
        for batch in batches:
            x = batch_of(data_of(batch))
            if shape is None:
                home = None if home is None or takes_arrays(encode, x) else home
            x = x if home is None else at_home(x, home)
            if shape is None:
                shape, library = tuple(x.shape[1:]), library_of(x, seed)
            expect("a batch", x, ("B", *shape))
            mean, logvar = posterior_of(called("encode", encode, x), x)
            latents = latents or tuple(mean.shape[1:])
            expect("encode's mean", mean, (len(x), *latents))
            expect("encode's logvar", logvar, mean.shape)

            width = as_like(_width(sigma2, shape), wide(x)) if sigma2 else None
            x = x if width is None else wide(x) / width

            def output(z, x=x, width=width):
                found = reconstruction_of(called("decode", decode, z), x[: len(z)])
                return found if width is None else found / width

            halves = _halves(x, mean, logvar, output, likelihood, pairs, library)
            parts.append([_host(x), _host(mean), _host(logvar), *halves])
            if use is None:
                rows = min(128, max(8, USE // (2 * max(1, int(np.prod(latents))))))
                use = _use(mean[:rows], logvar[:rows], output, library)
    if not parts:
        raise ValueError("loader is empty; expected at least one batch (B, ...)")
    x, mean, logvar, error, residual, spread = zip(*parts, strict=True)
    x, mean, logvar = (np.concatenate(part) for part in (x, mean, logvar))
    for name, value in (("loader", x), ("encode's mean", mean), ("encode's logvar", logvar)):
        refuse_not_finite(name, value)
    if error[0] is None:
        return Codes(x, mean, logvar, None, None, None, use, shape, latents, sigma2)
    error, residual = np.concatenate(error, axis=1), np.concatenate(residual, axis=1)
    if not np.isfinite(error).all() or not np.isfinite(use).all():
        raise ValueError("decode's output contains NaN or infinity, or is too far from x; expected finite")
    spread = None if spread[0] is None else np.sum(spread, axis=0) / len(x)
    return Codes(x, mean, logvar, error, residual, spread, use, shape, latents, sigma2)


def of_arrays(x, mean, logvar, reconstructions, likelihood="gaussian", sigma2=()):
    """The codes of samples from arrays that any framework can write.

    Parameters
    ----------
    x : (N, ...) array_like
        Floating point, or uint8, which is used as x / 255.
    mean, logvar : (N, ...) array_like
        Of q(z | x).
    reconstructions : (N, ...) or (S, N, ...) array_like
        The decoder's means at one draw of z from q(z | x), or at S independent ones; the residual test needs two.
    likelihood, sigma2
        As for `measure`.

    Returns
    -------
    Codes

    Raises
    ------
    ValueError
        When the shapes do not fit, or something is not finite.
    """
    one_of("likelihood", likelihood, [name for name, _ in TERMS.values()])
    values = {"x": x, "mean": mean, "logvar": logvar, "reconstructions": reconstructions}
    values = {name: plain_array(name, value, "numbers (N, ...)") for name, value in values.items()}
    for name, value in values.items():
        if value.ndim < 2 or not value.size:
            raise ValueError(f"{name} has shape {value.shape}; expected (N, ...), with at least one sample")
        if value.dtype == np.uint8 and name in ("x", "reconstructions"):
            values[name] = value / np.float32(255)
        else:
            refuse_not_floating(name, value, "floating point" + ", or uint8, which is used as x / 255" * (name == "x"))
        refuse_not_finite(name, value)
    x, outputs = values["x"], values["reconstructions"]
    outputs = outputs[None] if outputs.ndim == x.ndim else outputs
    expect("reconstructions", outputs, ("S", *x.shape))
    expect("mean", values["mean"], (len(x), *values["mean"].shape[1:]))
    expect("logvar", values["logvar"], values["mean"].shape)
    shape, latents = x.shape[1:], values["mean"].shape[1:]
    x, mean, logvar = (values[name].reshape(len(x), -1) for name in ("x", "mean", "logvar"))
    if likelihood not in ("gaussian", "bernoulli"):
        return Codes(x, mean, logvar, None, None, None, None, shape, latents, sigma2)
    outputs = outputs.reshape(len(outputs), *x.shape)
    if instance("sigma2", sigma2, tuple):
        width = _width(sigma2, shape).ravel()
        x, outputs = x / width, outputs / width
    error = np.stack([_error(x, output, likelihood) for output in outputs])
    spread = (outputs * (1 - outputs)).mean(axis=(0, 1)) if likelihood == "bernoulli" else None
    residual = None
    if len(outputs) > 1:
        residual = np.stack([x - outputs[half::2].mean(axis=0) for half in (0, 1)])
        error = np.stack([error[half::2].mean(axis=0) for half in (0, 1)])
    return Codes(x, mean, logvar, error, residual, spread, None, shape, latents, sigma2)


def _width(sigma2, shape):
    """Standard deviation of each feature, in the shape of a sample."""
    sigma2 = finite_array("sigma2", sigma2, (int(np.prod(shape)),))
    if sigma2.min() <= 0:
        raise ValueError(f"sigma2 reaches {sigma2.min():g}; expected variances above 0")
    return np.sqrt(sigma2).reshape(shape)


def _host(value):
    """(B, m) on the host, at least in float32."""
    return plain_array("an output", wide(value)).reshape(len(value), -1)


def _error(x, output, likelihood):
    """Squared error, or cross-entropy, of each sample: (B,)."""
    if likelihood == "gaussian":
        return ((x - output) ** 2).reshape(len(x), -1).sum(1)
    for name, value in (("x", x), ("decode's output", output)):
        if not (0 <= value.min() and value.max() <= 1):
            raise ValueError(
                f"{name} goes from {value.min():.3g} to {value.max():.3g}; expected it in [0, 1], as the likelihood is "
                "bernoulli: end the decoder in a sigmoid"
            )
    x, p = x.reshape(len(x), -1), output.reshape(len(x), -1).astype(np.float64)
    with np.errstate(divide="ignore"):  # torch's own cross-entropy has the same bound
        return -(x * np.maximum(np.log(p), -100) + (1 - x) * np.maximum(np.log1p(-p), -100)).sum(1)


def _halves(x, mean, logvar, output, likelihood, pairs, library):
    """Errors (2, B) and residuals (2, B, n) of a batch by two halves of the draws, and the sum of p (1 - p)."""
    if likelihood not in ("gaussian", "bernoulli"):
        return None, None, None
    deviation, x = library.exp(logvar / 2), wide(x)
    errors, residuals, spread = [], [], 0.0
    for _ in range(2):
        error = total = 0.0
        for _ in range(pairs):
            noise = deviation * library.normal(mean.shape)
            for z in (mean + noise, mean - noise):
                found = output(z)
                total = total + found
                if likelihood == "gaussian":
                    error = error + _error(x, found, likelihood)
                else:
                    p = _host(found)
                    error = error + _error(_host(x), p, likelihood)
                    spread = spread + (p * (1 - p)).sum(axis=0, dtype=np.float64) / (4 * pairs)
        errors.append(plain_array("an error", error).astype(np.float64) / (2 * pairs))
        residuals.append(_host(x - total / (2 * pairs)))
    return np.stack(errors), np.stack(residuals), spread if likelihood == "bernoulli" else None


def _use(mean, logvar, output, library):
    """Half the average squared change of the output between two draws of each z_i from its prior, (k,)."""
    z = mean + library.exp(logvar / 2) * library.normal(mean.shape)
    flat, use = z.reshape(len(z), -1), []
    for i in range(flat.shape[1]):
        outputs = []
        for _ in range(2):
            moved = flat + 0 * flat
            moved[:, i] = library.normal((len(z),))
            outputs.append(output(moved.reshape(z.shape)))
        use.append(float(((outputs[0] - outputs[1]) ** 2).sum()) / (2 * len(z)))
    return np.array(use)
