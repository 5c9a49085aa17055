"""Reconstructions, planes of the latent space and bytes for a record, against their definitions."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from helpers import reconstructions, vae

KINDS = {
    "conv": (partial(vae.conv, size=8, channels=(3, 4, 5), dense=10, k=4, activation=nn.Tanh), (8, 8, 3)),
    "mlp": (partial(vae.mlp, n=9, hidden=(8,), k=4, activation=nn.Tanh), (9,)),
}


@pytest.fixture(params=KINDS)
def model(request):
    """A VAE in float64 with large weights, and three images of which it makes three different ones."""
    build, shape = KINDS[request.param]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model, x = build().double(), torch.rand(3, *shape, dtype=torch.float64)
        for p in model.parameters():
            p *= 3
        assert (torch.pdist(reconstructions.reconstruct(model, x).flatten(1)) > 0.1).all()
    return model, x


def test_reconstructions_are_decoded_means(model):
    model, x = model
    mean, _ = model.encoder(x).split(4, dim=1)
    found = reconstructions.reconstruct(model, x)
    assert found.shape == x.shape
    torch.testing.assert_close(found, model.decoder(mean))
    for i in range(3):
        torch.testing.assert_close(reconstructions.reconstruct(model, x[i : i + 1])[0], found[i])


def test_corners_of_the_plane_are_the_three_images_and_their_sum(model):
    model, x = model
    a, b, c = model.encode(x)[0]
    expected = reconstructions.reconstruct(model, x)
    for steps in (2, 3, 5):
        plane = reconstructions.latent_plane(model, x, steps)
        assert plane.shape == (steps, steps, *x.shape[1:])
        torch.testing.assert_close(plane[0, 0], expected[0])
        torch.testing.assert_close(plane[0, -1], expected[1])
        torch.testing.assert_close(plane[-1, 0], expected[2])
        torch.testing.assert_close(plane[-1, -1], model.decode((b + c - a)[None])[0])


def test_inner_points_of_the_plane(model):
    """Rows go towards the third image, columns towards the second; five of each are the default."""
    model, x = model
    a, b, c = model.encode(x)[0].detach().numpy()
    plane = reconstructions.latent_plane(model, x)
    assert plane.shape[:2] == (5, 5)
    for row, column in ((0, 2), (1, 3), (3, 1), (4, 2)):
        z = a + column / 4 * (b - a) + row / 4 * (c - a)
        torch.testing.assert_close(plane[row, column], model.decode(torch.tensor(z)[None])[0])
    torch.testing.assert_close(plane[::4, ::4], reconstructions.latent_plane(model, x, steps=2))


@pytest.mark.parametrize(
    ("count", "steps", "message"),
    [
        (2, 5, "x has 2 images; expected 3, of the three corners of a plane"),
        (4, 5, "x has 4 images; expected 3"),
        (3, 1, "steps is 1; expected an integer from 2"),
        (3, 0, "steps is 0"),
        (3, 3.0, "steps is 3.0"),
        (3, "5", "steps is '5'"),
        (3, None, "steps is None"),
    ],
)
def test_bad_planes(count, steps, message):
    with pytest.raises(ValueError, match=message):
        reconstructions.latent_plane(vae.mlp(n=9, hidden=(), k=4), torch.zeros(count, 9), steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_record_keeps_all_256_levels(dtype):
    levels = torch.arange(256, dtype=torch.uint8).reshape(2, 8, 16)
    kept = reconstructions.to_record(levels.to(dtype) / 255)
    assert kept.dtype == np.int8 and kept.shape == (2, 8, 16)
    np.testing.assert_array_equal(kept.ravel(), np.arange(-128, 128))
    found = reconstructions.from_record(kept)
    np.testing.assert_array_equal(found, levels.numpy(), strict=True)
    np.testing.assert_array_equal(reconstructions.from_record(kept.tolist()), found, strict=True)


def test_values_between_two_levels_go_to_the_nearer_one():
    offsets = torch.tensor([[-0.49], [0.49]], dtype=torch.float64)
    values = (torch.arange(1, 255) + offsets) / 255
    np.testing.assert_array_equal(
        reconstructions.from_record(reconstructions.to_record(values)), [np.arange(1, 255)] * 2
    )


@pytest.mark.parametrize(
    "values",
    [[0.5], [np.nan], [[True]], np.array([200], np.uint8), [-129], [128], ["1"], None, np.ma.array([1]), [1 + 1j]],
)
def test_what_is_no_signed_byte_is_refused(values):
    """A byte of 200 would come out as 72, and half a level as another one."""
    with pytest.raises(ValueError, match=r"^values "):
        reconstructions.from_record(values)


@pytest.mark.parametrize("images", [torch.full((2, 2), 200, dtype=torch.uint8), [[-1, 0]], None, "x", [[True]], [1j]])
def test_what_is_no_image_from_0_to_1_is_refused(images):
    """A picture of bytes would be cut off to white."""
    with pytest.raises(ValueError, match=r"^images "):
        reconstructions.to_record(images)


def test_arrays_and_lists_are_images_too():
    for images in ([[0, 1]], np.array([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]).bfloat16()):
        np.testing.assert_array_equal(reconstructions.to_record(images), [[-128, 127]])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "x is None; expected a tensor"),
        (np.zeros((3, 9)), "x is array"),
        (torch.zeros(3, 9, dtype=torch.uint8), "x is tensor"),
        (torch.full((3, 9), torch.nan), "x contains NaN"),
        (torch.zeros(3, 8), r"x has shape \(3, 8\) and dtype torch.float32; the model takes others"),
        (torch.zeros(3, 9, dtype=torch.float64), "dtype torch.float64; the model takes others"),
    ],
)
def test_bad_images_and_models(bad, message):
    for call in (reconstructions.reconstruct, reconstructions.latent_plane):
        with pytest.raises(ValueError, match=message):
            call(vae.mlp(n=9, hidden=(), k=4), bad)
        for model in (None, "vae", vae.mlp, nn.Linear(9, 8)):
            with pytest.raises(ValueError, match=r"model is .*expected a VAE"):
                call(model, torch.zeros(3, 9))


def test_values_outside_of_the_unit_interval_are_cut_off():
    """So would be a decoder's that diverged: NaN is black."""
    values = torch.tensor([-0.5, -1e-9, 1 + 1e-6, 1.5, 1e30, np.inf, -np.inf, np.nan], requires_grad=True)
    found = reconstructions.from_record(reconstructions.to_record(values))
    assert found.tolist() == [0, 0, 255, 255, 255, 255, 0, 0] and found.dtype == np.uint8


def test_what_a_model_makes_goes_into_a_record(model):
    model, x = model
    output = reconstructions.reconstruct(model, x)
    assert output.requires_grad  # a record has no use for it
    found = reconstructions.from_record(reconstructions.to_record(output))
    assert found.shape == x.shape and found.dtype == np.uint8
    np.testing.assert_allclose(found / 255, output.detach().numpy().clip(0, 1), rtol=0, atol=0.5 / 255 + 1e-9)
