"""Networks of any library, as functions of batches: their outputs checked, and the networks left as they were found.

Serves `collapse` and `codes`.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from helpers._validation import brief, plain_array, refuse_not_finite


def is_tensor(value):
    return hasattr(value, "detach")  # without importing torch


def is_module(value):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def batch_of(batch):
    """The data of a batch, floating point: a tensor as it is, anything else as an ndarray."""
    x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not hasattr(x, "shape") or len(x.shape) < 2:
        what = f" (a dict with {brief(list(x))})" if isinstance(x, dict) else ""
        raise ValueError(
            f"a batch is {brief(batch)}{what}; expected an array or a tensor (B, ...), or a tuple of x and more"
        )
    x = output_of("a batch", x, x)
    if str(x.dtype).removeprefix("torch.") == "uint8":
        return x.float() / 255 if is_tensor(x) else x / np.float32(255)
    refuse_not_floating("a batch", x, "floating point, or uint8, which is used as x / 255")
    return x


def output_of(name, value, x):
    """Real numbers of the library of x: a tensor on a device, or else an ndarray."""
    if not hasattr(value, "shape"):
        raise ValueError(f"{name} is {brief(value)}, a {type(value).__name__}; expected an array of numbers like x")
    if is_tensor(value) != is_tensor(x):
        raise ValueError(f"{name} is a {type(value).__name__} and x a {type(x).__name__}; expected both of one library")
    if (
        not is_tensor(value)
        or value.is_sparse
        or value.is_meta
        or value.is_complex()
        or str(value.dtype) == "torch.bool"
    ):
        return plain_array(name, value, "an array of numbers like x")  # which refuses such a tensor
    return value


def refuse_not_floating(name, value, expected):
    if "float" not in str(value.dtype):
        raise ValueError(f"{name} has dtype {value.dtype}; expected {expected}: convert it, and scale it, by yourself")


def wide(value):
    """At least float32, whose range a squared error fits into."""
    if value.dtype.itemsize >= 4:
        return value
    return value.float() if is_tensor(value) else value.astype(np.float32)


def as_like(value, like):
    """An array in the library and the precision of another, and on its device."""
    if not is_tensor(like):
        return value.astype(like.dtype)
    return value.to(like.dtype) if is_tensor(value) else like.new_tensor(value)


class Library(NamedTuple):
    """What `evaluate` needs of the library that the batches are of."""

    tensors: bool
    exp: Callable
    normal: Callable  # of a shape: noise from N(0, 1)


def library_of(x, seed):
    if not is_tensor(x):
        return Library(False, np.exp, partial(np.random.default_rng(seed).standard_normal, dtype=np.float32))
    torch = sys.modules["torch"]
    generator = torch.Generator(x.device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=x.dtype, device=x.device)
    return Library(True, torch.exp, normal)


@contextlib.contextmanager
def undisturbed(functions, seed):
    """No gradients, modules in evaluation mode, global random states from the seed; all as before at the end."""
    torch, numpy_state = sys.modules.get("torch"), np.random.get_state()  # noqa: NPY002
    with contextlib.ExitStack() as stack:
        stack.callback(np.random.set_state, numpy_state)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if torch is not None:
            stack.enter_context(torch.no_grad())
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices))
            torch.default_generator.manual_seed(seed)
            modules = {id(part): part for root in modules_in(functions) for part in root.modules()}.values()
            found = [(part, part.training, [*part.__dict__["_buffers"].items()]) for part in modules]
            copies = [(buffer, buffer.clone()) for *_, buffers in found for _, buffer in buffers if buffer is not None]

            def put_back():
                for part, training, buffers in found:
                    part.training = training
                    part.__dict__["_buffers"].update(buffers)
                for buffer, copy in copies:
                    buffer.copy_(copy)

            stack.callback(put_back)
            for part in modules:
                part.training = False
        yield


def modules_in(values, depth=6, seen=None):
    """The torch modules that values hold, or functions among them name: in closures, globals, partials, attributes."""
    seen = set() if seen is None else seen
    for value in values:
        if id(value) in seen or depth == 0:
            continue
        seen.add(id(value))
        if is_module(value):
            yield value
            continue
        within = []
        if isinstance(value, partial):
            within = [value.func, *value.args, *value.keywords.values()]
        elif inspect.ismethod(value):
            within = [value.__self__, value.__func__]
        elif inspect.isfunction(value):
            with contextlib.suppress(ValueError):  # a variable of the closure that has no value yet
                named = inspect.getclosurevars(value)
                within = [*named.nonlocals.values(), *named.globals.values()]
            within += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        elif isinstance(value, (list, tuple)):
            within = value
        elif isinstance(value, dict):
            within = list(value.values())
        elif not inspect.ismodule(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
            within = list(vars(value).values())
        yield from modules_in(within, depth - 1, seen)


def expect(name, value, shape):
    """Raise ``ValueError`` unless `value` has this shape, where a str stands for any length above 0."""
    have, shape = tuple(value.shape), tuple(shape)
    fits = len(have) == len(shape) and all(
        h > 0 if isinstance(s, str) else h == s for h, s in zip(have, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {have}; expected ({', '.join(map(str, shape))})")


def floats(name, value, shape):
    """Return finite floating-point numbers of this shape, a tensor or an ndarray, or raise ``ValueError``."""
    if not hasattr(value, "shape"):
        raise ValueError(f"{name} is {brief(value)}; expected an array or a tensor ({', '.join(map(str, shape))})")
    value = output_of(name, value, value)
    refuse_not_floating(name, value, "floating point")
    expect(name, value, shape)
    refuse_not_finite(name, plain_array(name, value))
    return value
