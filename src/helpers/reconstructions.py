"""What a VAE makes of images: reconstructions (Figure 10) and a plane of its latent space (Figure 11).

Serves chapter 11. Images are (..., height, width, colours); records keep them as bytes, shifted by 128, since a
NetCDF 3 file has signed bytes alone.
"""

import numpy as np
import torch

from helpers._validation import brief, instance, integer, plain_array, samples
from helpers.ensemble import Stack
from helpers.vae import find_device, scaled


def _means(model, x):
    """Means of q(z | x) for images x, a tensor (B, ...) that the model takes."""
    if not isinstance(model, torch.nn.Module) or not (hasattr(model, "encode") and hasattr(model, "decode")):
        raise ValueError(f"model is {brief(model)}; expected a VAE, with encode and decode")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.layout != torch.strided or x.is_meta:
        raise ValueError(f"x is {brief(x)}; expected a tensor of floating point, (B, ...)")
    if not torch.isfinite(x).all():
        raise ValueError("x contains NaN or infinity; expected finite numbers")
    try:
        return model.encode(x)[0]
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and dtype {x.dtype}; the model takes others: {error}"
        ) from error


def reconstruct(model, x):
    """Images decoded from the means of q(z | x).

    Parameters
    ----------
    model : VAE
    x : (B, ...) tensor

    Returns
    -------
    (B, ...) tensor
    """
    means = _means(model, x)
    return model.decode(means)


def latent_plane(model, x, steps=5):
    """Images on the plane through the means of three (Figure 11).

    With a, b and c the means of q(z | x) for the three, row t and column s show the decoded
    z = a + s (b - a) + t (c - a), where s and t go from 0 to 1: a stands top left, b top right, c bottom left. Rows
    and columns interpolate linearly between these, and the fourth corner, z = b + c - a, is extrapolated.

    Parameters
    ----------
    model : VAE
    x : (3, ...) tensor
    steps : int
        Rows, and columns, at least 2.

    Returns
    -------
    (steps, steps, ...) tensor

    Raises
    ------
    ValueError
        When there are not three images.
    """
    steps, means = integer("steps", steps, 2, 2**31), _means(model, x)
    if len(x) != 3:
        raise ValueError(f"x has {len(x)} images; expected 3, of the three corners of a plane")
    a, b, c = means
    share = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)
    z = a + share[None, :, None] * (b - a) + share[:, None, None] * (c - a)
    return model.decode(z.flatten(0, 1)).unflatten(0, (steps, steps))


def to_record(images):
    """`images` with values from 0 to 1, others cut off and NaN black, as signed bytes for a record.

    Integers are refused unless they are 0 and 1: bytes are from 0 to 255, and would come out white.

    Raises
    ------
    ValueError
        When they are integers of another kind.
    """
    values = plain_array("images", images)
    if values.ndim == 0 or (values.dtype.kind in "iu" and values.size and not 0 <= values.min() <= values.max() <= 1):
        raise ValueError(f"images is {brief(values)}, {values.dtype}; expected images with values from 0 to 1")
    values = np.nan_to_num(values.astype(float)).clip(0, 1)
    return (np.rint(255 * values) - 128).astype(np.int8)


def from_record(values):
    """The images, uint8, whose `values` a record keeps as signed bytes.

    Raises
    ------
    ValueError
        When they are no whole numbers of a signed byte.
    """
    values = plain_array("values", values, "signed bytes")
    if values.size and (values.dtype.kind not in "iu" or values.min() < -128 or values.max() > 127):
        ends = f"{values.dtype} from {values.min()} to {values.max()}"
        raise ValueError(f"values is {ends}; expected signed bytes, whole numbers from -128 to 127")
    return (values.astype(np.int16) + 128).astype(np.uint8)


@torch.no_grad()
def variables(stack, x, device="cpu"):
    """Figures 10 and 11 of every member, as variables for a record.

    The images themselves are not among them, since those of some data sets may not be passed on. How far each
    reconstruction, as it is shown, is from each of them is: "distance", squared, of reconstruction i from image j.

    Parameters
    ----------
    stack : ensemble.Stack
    x : (B, height, width, colours) ndarray
        uint8 or float32, at least three images.
    device : str or torch.device
        Where the stack lies.

    Returns
    -------
    dict of str to (dimensions, ndarray)

    Raises
    ------
    ValueError
        When x is no array of at least three images.
    """
    instance("stack", stack, Stack)
    x = samples("x", x)
    if x.ndim != 4 or len(x) < 3:
        raise ValueError(f"x has shape {x.shape}; expected (B, height, width, colours), at least three images")
    images = scaled(torch.tensor(x, device=find_device(device)))
    models, one = [stack.member(m) for m in range(len(stack))], ("height", "width", "colour")
    found = [reconstruct(model, images) for model in models]
    planes = [latent_plane(model, images[:3]) for model in models]
    distance = [(made.clamp(0, 1)[:, None] - images).square().flatten(2).sum(2) for made in found]
    return {
        "reconstructed": (("member", "image", *one), to_record(torch.stack(found))),
        "plane": (("member", "row", "column", *one), to_record(torch.stack(planes))),
        "distance": (("member", "image", "other"), torch.stack(distance).cpu().numpy()),
    }
