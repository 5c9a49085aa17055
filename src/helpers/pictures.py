"""What a VAE makes of images: reconstructions (Figure 10) and a plane of its latent space (Figure 11).

Serves chapter 11. Images are (..., height, width, colours); records keep them as bytes, shifted by 128, since a
NetCDF 3 file has signed bytes alone.
"""

import numpy as np
import torch

from helpers._validation import integer


def reconstruct(model, x):
    """Images decoded from the means of q(z | x), of x's shape (B, ...)."""
    return model.decode(model.encode(x)[0])


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
    """
    if len(x) != 3:
        raise ValueError(f"x has {len(x)} images; expected 3, of the three corners of a plane")
    a, b, c = model.encode(x)[0]
    share = torch.linspace(0, 1, integer("steps", steps, 2, 2**31), dtype=a.dtype, device=a.device)
    z = a + share[None, :, None] * (b - a) + share[:, None, None] * (c - a)
    return model.decode(z.flatten(0, 1)).unflatten(0, (steps, steps))


def to_record(images):
    """Images with values from 0 to 1, others cut off, as signed bytes for a record."""
    values = np.nan_to_num(images.detach().cpu().numpy()).clip(0, 1)
    return (np.rint(255 * values) - 128).astype(np.int8)


def from_record(values):
    """The images that a record keeps as signed bytes, uint8."""
    return (np.asarray(values).astype(np.int16) + 128).astype(np.uint8)
