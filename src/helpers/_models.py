"""Models and loaders as they are written in many ways: what in them encodes, decodes and is data.

Serves `codes`.
"""

import sys

import numpy as np

from helpers._networks import expect, is_module, is_tensor, output_of, refuse_not_floating, wide
from helpers._validation import brief, plain_array

MEANS = ("mean", "mu", "loc", "z_mean", "embedding", "qz_m", "qzm")
LOG_VARIANCES = ("logvar", "log_var", "log_variance", "log_covariance", "z_log_var", "logsigma2")
VARIANCES = ("variance", "var", "qz_v", "qzv")
DEVIATIONS = ("std", "stddev", "scale", "sigma")
OUTPUTS = ("reconstruction", "recon_x", "recon", "x_hat", "output", "sample", *MEANS)
DATA = ("x", "data", "image", "images", "img", "input", "inputs", "pixel_values", "features")
ROWS = 256  # samples of an array that are taken at a time


def functions(model):
    """What encodes and what decodes in a model: a pair of functions.

    Parameters
    ----------
    model : object, or tuple of two functions
        With methods or parts `encode` or `encoder`, and `decode` or `decoder`; where the encoder stops short of its
        heads `fc_mu` and `fc_var`, they are joined to it.

    Raises
    ------
    ValueError
        When it has none; the message says what it has, and what to pass.
    """
    remedy = "pass the two functions, say (lambda x: (net(x).mu, net(x).logvar), net.generate)"
    if isinstance(model, (tuple, list)):
        if len(model) != 2 or not all(map(callable, model)):
            raise ValueError(f"model is {brief(model)}; expected two functions, encode and decode")
        return tuple(model)
    found = []
    for names in (("encode", "encoder"), ("decode", "decoder")):
        found += [name for name in names if callable(getattr(model, name, None))][:1]
    if len(found) != 2:
        own = {**getattr(model, "__dict__", {}), **getattr(model, "_modules", {})}
        parts = ", ".join(name for name, part in own.items() if callable(part) and name[:1] != "_") or "no parts"
        raise ValueError(
            f"model is a {type(model).__name__} with {parts:.200}; expected encode or encoder, and decode or decoder: "
            f"{remedy}"
        )
    encode, decode = (getattr(model, name) for name in found)
    heads = [getattr(model, name, None) for name in ("fc_mu", "fc_var")]
    if found[0] == "encoder" and all(map(callable, heads)):
        trunk = encode

        def encode(x):
            hidden = trunk(x)
            return [head(hidden) for head in heads]

    return encode, decode


def batches_of(loader):
    """An iterable of batches, from what holds data."""
    loader = data_of(loader) if isinstance(loader, dict) else loader
    if hasattr(loader, "shape"):
        if len(loader.shape) < 2 or not all(loader.shape):
            raise ValueError(f"loader has shape {tuple(loader.shape)}; expected (N, ...), with at least one sample")
        return (loader[i : i + ROWS] for i in range(0, loader.shape[0], ROWS))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(loader, torch.utils.data.Dataset):
        if not isinstance(loader, torch.utils.data.IterableDataset):
            raise ValueError("loader is a data set of single samples; expected batches: wrap it in a DataLoader")
    if isinstance(loader, (str, bytes)) or (not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__")):
        raise ValueError(f"loader is {brief(loader)}, a {type(loader).__name__}; expected an array, or batches")
    return loader


def data_of(batch):
    """x, where a batch is a dict."""
    if not isinstance(batch, dict):
        return batch
    found = [name for name in DATA if name in batch]
    if not found:
        raise ValueError(f"a batch is a dict with {brief(list(batch))}; expected one of {', '.join(DATA)} among them")
    return batch[found[0]]


def takes_arrays(encode, x):
    """Whether functions that run a torch model take arrays, as x came, and turn them into tensors by themselves."""
    if is_tensor(x) or is_module(getattr(encode, "__self__", encode)):
        return False
    try:
        encode(x)
    except Exception:  # whatever a network says of what is no tensor
        return False
    return True


def at_home(x, home):
    """x as a tensor where the parameter `home` lies, and in its precision."""
    x = x if is_tensor(x) else sys.modules["torch"].tensor(np.ascontiguousarray(x))
    return x.to(home.device, home.dtype if home.dtype.is_floating_point else None)


def _like(name, value, x):
    """An output in the library of x: a tensor where it lies, or an ndarray."""
    if is_tensor(value) and not is_tensor(x):
        value = plain_array(name, value)
    elif is_tensor(value):
        value = output_of(name, value, x).to(x.device)
    else:
        value = plain_array(name, value, "an array of numbers like x")
        value = sys.modules["torch"].tensor(value, device=x.device) if is_tensor(x) else value
    refuse_not_floating(name, value, "floating point")
    return value


def _field(value, names):
    """What a dict or an object has under the first of these names; None without."""
    for name in names:
        found = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        if found is not None:
            return found() if callable(found) and not hasattr(found, "shape") else found
    return None


def _is_array(value):
    return not isinstance(value, dict) and hasattr(value, "shape")


def _is_distribution(value):
    return not isinstance(value, dict) and hasattr(value, "sample") and hasattr(value, "log_prob")


def posterior_of(outputs, x):
    """Mean and log variance, in the library of x, from what an encoder returned."""
    had = f"a {type(outputs).__name__}"
    if isinstance(outputs, (tuple, list)):
        inner = [one for one in outputs if _is_distribution(one)]
        outputs = inner[0] if inner else outputs
    elif not _is_array(outputs):
        inner = _field(outputs, ("latent_dist", "posterior", "qz"))
        outputs = outputs if inner is None else inner
    if _is_distribution(outputs):
        base = getattr(outputs, "base_dist", outputs)
        if (kind := type(base).__name__) not in ("Normal", "MultivariateNormalDiag", "DiagonalGaussianDistribution"):
            raise ValueError(f"encode returned a distribution {kind}; expected a normal one of independent latents")
    mean = spread = None
    if isinstance(outputs, (tuple, list)) and len(outputs) >= 2:
        (mean, spread), kind = outputs[:2], LOG_VARIANCES
    elif not isinstance(outputs, (tuple, list)) and not _is_array(outputs):
        mean = _field(outputs, MEANS)
        for kind in (LOG_VARIANCES, VARIANCES, DEVIATIONS):
            if (spread := _field(outputs, kind)) is not None:
                break
        keys = list(outputs) if isinstance(outputs, dict) else list(getattr(outputs, "__dict__", ()))
        had += f" with {brief(keys)}" if keys else ""
    if mean is None or spread is None:
        raise ValueError(
            f"encode returned {had}; expected the mean and the log variance: a pair, a normal distribution, or fields "
            f"such as {MEANS[0]} and {LOG_VARIANCES[0]}; split one array by lambda x: encode(x).chunk(2, 1)"
        )
    mean, spread = _like("encode's mean", mean, x), _like("encode's logvar", spread, x)
    if kind is LOG_VARIANCES:
        return mean, spread
    log = spread.log() if is_tensor(spread) else np.log(spread)
    return mean, log if kind is VARIANCES else 2 * log


def reconstruction_of(value, x):
    """The decoder's mean in the shape of x, from what it returned."""
    value = value[0] if isinstance(value, (tuple, list)) and value else value
    if not _is_array(value) and not isinstance(value, (int, float, str, bytes, complex)):
        found = _field(value, MEANS if _is_distribution(value) else OUTPUTS)
        if found is None:
            keys = list(value) if isinstance(value, dict) else list(getattr(value, "__dict__", ()))
            raise ValueError(
                f"decode's output is a {type(value).__name__} with {brief(keys)}; expected an array like x"
            )
        value = found
    value = wide(_like("decode's output", value, x))
    if tuple(value.shape) != tuple(x.shape) and len(value.shape) and len(value) == len(x):
        if np.prod(value.shape) == np.prod(x.shape):
            return value.reshape(x.shape)
    expect("decode's output", value, x.shape)
    return value


def called(name, function, argument):
    """What a model's function returns, or ``ValueError`` with its own error and what it was given."""
    try:
        return function(argument)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        given = f"a batch {tuple(argument.shape)} of {argument.dtype}"
        raise ValueError(f"{name} fails on {given}: {type(error).__name__}: {error!s:.300}") from error
