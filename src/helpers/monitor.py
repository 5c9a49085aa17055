"""Five numbers to log while a VAE trains: whether it collapses, and whether it is to blame. Serves chapter 12.

`kl` and `units` say what the latents carry, `gap` whether the best linear VAE does better, `further_gain` what further
affine units would add, and `drift` how far from convergence the units are.
"""

import importlib
import math

from helpers._models import batches_of
from helpers._validation import brief, instance, integer
from helpers.diagnose import diagnose
from helpers.objective import Objective, read

NUMBERS = {"kl": "kl", "units": "units_above", "gap": "gap", "further_gain": "further_gain", "drift": "drift"}


def numbers(model, loader, objective, sigma2=None, batch=None, seed=0):
    """The five numbers of a model as it is now, for any logger.

    Parameters
    ----------
    model, loader, objective, sigma2, batch, seed
        As for `diagnose.diagnose`.

    Returns
    -------
    dict of str to float
        NaN where a number does not apply to the likelihood.

    Raises
    ------
    ValueError
        As `diagnose.diagnose`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> dead = (lambda x: (x[:, :2] * 0, x[:, :2] * 0), lambda z: np.zeros((len(z), 3)) + x.mean(axis=0))
    >>> numbers(dead, x, "mean(se) + 4*kl")["units"]
    0.0
    """
    found = diagnose(model, loader, objective, sigma2=sigma2, batch=batch, seed=seed)
    values = {name: getattr(found, field) for name, field in NUMBERS.items()}
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def callback(loader, objective, every=1, sigma2=None, batch=None, prefix="collapse/"):
    """A callback for Lightning that logs the five numbers after every so many epochs.

    Parameters
    ----------
    loader : iterable of batches, or (N, ...) array_like
        What they are measured on: a thousand samples or so, always the same.
    objective, batch
        As for `numbers`.
    every : int
        Epochs from one measurement to the next.
    sigma2 : callable, optional
        Where the loss learns it, what gives the module's noise variance: called with the module.
    prefix : str
        Of their names in the log.

    Returns
    -------
    lightning.pytorch.Callback

    Raises
    ------
    ValueError
        When an argument is not what is expected; of the loader's batches only once they are used.
    ImportError
        When Lightning is not installed; `numbers` serves any other loop.
    """
    batches_of(loader)  # refuses what holds no batches
    every, prefix = integer("every", every, 1, 2**31), instance("prefix", prefix, str)
    if isinstance(instance("objective", objective, (str, Objective)), str):
        read(
            objective, 1009, 1009, 1009 if batch is None else batch
        )  # any fault of it now, and not after the first epoch
    if sigma2 is not None and not callable(sigma2):
        raise ValueError(f"sigma2 is {brief(sigma2)}; expected a function of the module, or None")
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            base = importlib.import_module(name).Callback
            break
        except ImportError:
            continue
    else:
        raise ImportError("Lightning is not installed: pip install lightning, or log what monitor.numbers returns")

    class Collapse(base):
        """Logs the numbers of `helpers.monitor`."""

        def on_train_epoch_end(self, trainer, module):
            if (trainer.current_epoch + 1) % every == 0:
                found = numbers(module, loader, objective, sigma2 and sigma2(module), batch)
                module.log_dict({prefix + name: value for name, value in found.items()})

    return Collapse()
