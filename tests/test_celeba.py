"""CelebA: torchvision's crop, the same faces from a folder and from a pack, and what happens to damaged ones.

No face is needed: pieces of scikit-learn's two photographs are published here as CelebA's are.
"""

import hashlib
import io
import os
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import celeba, data

PACK = Path(os.environ.get("BOOK_DATA") or "nowhere") / "CelebA64" / "celeba_64.npz"
needs_pack = pytest.mark.skipif(not PACK.is_file(), reason="BOOK_DATA names no folder with CelebA64/celeba_64.npz")

PARTITION = np.array([0, 0, 1, 2, 0, 2, 1, 0, 0, 1, 2, 0])  # mixed, where CelebA's parts follow one another
NAMES = [f"{i + 1:06}.jpg" for i in range(len(PARTITION))]
LISTS = {  # file: the lines above the images, and what follows an image's name
    "list_eval_partition.txt": ([], "{part}"),
    "identity_CelebA.txt": ([], "{i}"),
    "list_bbox_celeba.txt": (["12", "image_id x_1 y_1 width height"], " 95  71 226 313"),
    "list_landmarks_align_celeba.txt": (["12", " ".join(f"l{i}" for i in range(10))], " 69 " * 10),
    "list_attr_celeba.txt": (["12", "Eyeglasses Smiling "], "-1  1"),
}


def jpeg(image, quality):
    """The bytes of an image (height, width, 3) as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def reference(image):
    """torchvision's crop of an image of PIL."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    transform = Compose([CenterCrop(148), Resize(64, InterpolationMode.BILINEAR)])
    return np.asarray(transform(image.convert("RGB")))


@pytest.fixture(scope="module")
def pieces():
    """Twelve pieces of the photographs, of the size of CelebA's images."""
    return data.patches(218, len(PARTITION), seed=0)[:, :, 20:198]


@pytest.fixture(scope="module")
def published(pieces, tmp_path_factory):
    """A folder that holds `celeba` as published."""
    root = tmp_path_factory.mktemp("published")
    images = root / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    for name, piece in zip(NAMES, pieces, strict=True):
        (images / name).write_bytes(jpeg(piece, 95))
    for name, (lines, rest) in LISTS.items():
        lines = lines + [f"{NAMES[i]} " + rest.format(part=part, i=i) for i, part in enumerate(PARTITION)]
        (images.parent / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def crops(published):
    """What is to come of the folder: every image, cropped by torchvision."""
    return np.stack([reference(Image.open(published / "celeba" / "img_align_celeba" / name)) for name in NAMES])


@pytest.fixture(scope="module")
def jpegs(crops):
    return [jpeg(image, 92) for image in crops]


def write_pack(path, jpegs, partition=PARTITION):
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum([0, *map(len, jpegs)])
    content = np.frombuffer(b"".join(jpegs), np.uint8)
    np.savez_compressed(path, jpeg=content, offsets=offsets, partition=np.uint8(partition), index=np.arange(12))
    return path


def of(split, images):
    """Those of a part."""
    return [image for image, part in zip(images, PARTITION, strict=True) if part == celeba.SPLITS.index(split)]


@pytest.fixture
def root(tmp_path, monkeypatch, jpegs):
    """The folder BOOK_DATA, empty; an empty cache, no network, and torchvision takes the lists above as published."""
    from torchvision.datasets import CelebA

    def download(_):
        raise RuntimeError("no network")

    monkeypatch.setattr(CelebA, "file_list", [])
    monkeypatch.setattr(CelebA, "download", download)
    packed = {split: of(split, jpegs) for split in celeba.SPLITS}
    packed = {split: (len(part), hashlib.sha256(b"".join(part)).hexdigest()) for split, part in packed.items()}
    monkeypatch.setattr(celeba, "PACKED", packed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.fixture
def pack(root, jpegs):
    return write_pack(root / "CelebA64" / "celeba_64.npz", jpegs)


@pytest.fixture
def folder(root, published):
    """A copy of the folder as published, under BOOK_DATA."""
    return Path(shutil.copytree(published / "celeba", root / "celeba"))
