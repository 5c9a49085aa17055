"""CelebA, 202,599 aligned faces, cropped to 64 x 64 pixels (section 5.2.1). Serves chapter 11.

A folder ``celeba`` as published, read through torchvision, or a folder ``CelebA64`` with a pack: the same crops,
stored as JPEGs in one ``.npz`` without pickles. Both are looked for in ``$BOOK_DATA``, then in the user's cache, into
which torchvision otherwise downloads the published files. The images are for non-commercial research and may not be
passed on, so the package carries none: the eigenvalues of their covariance, which ``python -m helpers.celeba`` finds
again, and in the records of runs what networks made of a few. The same command writes a pack of one part.
"""

import argparse
import hashlib
import io
import os
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from helpers._files import answered, cache_folder, sha256, write_npz
from helpers._validation import folder_to_write, instance, one_of
from helpers.moments import covariance_eigenvalues

SPLITS = ("train", "valid", "test")  # as CelebA numbers its partitions
ALIGNED, CROP, SIZE = (178, 218), 148, 64  # pixels, of a published image (width, height), its square, and ours
PACKED = {  # images of the pack and the checksum of their JPEGs
    "train": (20_000, "850fd33ec102ce1e6b407d6d0bd58a5d0eabb705afe02b1ba0e17962c0cf15e0"),
    "valid": (2_000, "762ed0a4cc7cf9a3adfa10a286b6b368ed418a62609e2e01f409003ace82c559"),
    "test": (2_000, "324341f74b9fb49b36e224c9ee85a47104fc3633f85f5dba3692b19704c21a95"),
}
LARGEST_PACK = 2**30  # bytes inflated; all of CelebA's crops take half of it, so a file that claims more is none
EIGENVALUES = "celeba-eigenvalues.npz"


def faces(split="train"):
    """Faces of one of CelebA's three parts, (N, 64, 64, 3) uint8, colours last.

    Each is the central square of 148 pixels, resized by bilinear interpolation. The whole of CelebA has 162,770
    training images, the pack 20,000 of them, which went through one more JPEG (quality 92).

    Parameters
    ----------
    split : {"train", "valid", "test"}

    Raises
    ------
    ValueError
        When an image cannot be read, or a pack or the lists of a folder are not as published; the message names it.
        (The images of a folder have no checksums.)
    FileNotFoundError
        When there is neither, and nothing could be downloaded; the message says what to put where.
    """
    one_of("split", split, SPLITS)
    roots = [Path(root) for root in (os.environ.get("BOOK_DATA"), cache_folder()) if root]
    for root in roots:
        for pack in (root / "CelebA64" / name for name in ("celeba_64.npz", _part_name(split))):
            if pack.is_file():
                return _from_pack(pack, split)
        if (root / "celeba" / "img_align_celeba").is_dir():
            return _from_folder(root, split)
    try:
        from torchvision.datasets import CelebA

        CelebA(cache_folder(), split, download=True)
    except Exception as error:  # of many kinds: torchvision's, requests', and those of gdown, which it calls
        raise FileNotFoundError(
            f"CelebA is neither under $BOOK_DATA ({os.environ.get('BOOK_DATA') or 'not set'}) nor in the cache "
            f"({cache_folder()}), and could not be downloaded: {error}. Put the published files, img_align_celeba "
            "unpacked and the five lists, into a folder celeba, and set BOOK_DATA to the folder that holds it"
        ) from error
    return _from_folder(cache_folder(), split)


def crop(image):
    """The central square of an `image` of `PIL.Image`, resized: (64, 64, 3) uint8.

    Raises
    ------
    ValueError
        When the image is smaller than the square.
    """
    from PIL import Image

    if min(instance("image", image, Image.Image).size) < CROP:
        raise ValueError(
            f"image has {image.size} pixels; expected at least {CROP} by {CROP}, the square that is cut out"
        )
    left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
    square = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _open(source, name):
    """An image, decoded; `name` is what the message calls it."""
    from PIL import Image

    try:
        with Image.open(source) as image:
            return image.copy()  # which has all of its pixels read
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: of a PNG, by the name alone
        raise ValueError(f"{name} is no readable image: {error}") from error


def _from_folder(root, split):
    from torchvision.datasets import CelebA
    from tqdm import tqdm

    try:
        dataset = CelebA(root, split)
    except RuntimeError as error:
        raise ValueError(f"{Path(root) / 'celeba'} is not as published: {error}") from error
    folder = Path(root) / dataset.base_folder / "img_align_celeba"
    images = np.empty((len(dataset.filename), SIZE, SIZE, 3), np.uint8)
    for i, name in enumerate(tqdm(dataset.filename, "faces", unit="image", delay=2)):
        image = _open(folder / name, folder / name)
        if image.size != ALIGNED:
            raise ValueError(f"{folder / name} has {image.size} pixels; expected {ALIGNED}")
        images[i] = crop(image)
    return images


def _from_pack(path, split):
    jpegs = _jpegs(path, split)
    found = hashlib.sha256(b"".join(jpegs)).hexdigest()
    if (len(jpegs), found) != PACKED[split]:
        count, published = PACKED[split]
        raise ValueError(
            f"{path} has {len(jpegs)} {split} images with sha256 {found}; expected {count} with {published}"
        )
    images = (_open(io.BytesIO(jpeg), f"image {i} of {path}") for i, jpeg in enumerate(jpegs))
    return np.stack([np.asarray(image) for image in images])


def _jpegs(path, split):
    """The files of one part that a pack holds, a list of bytes."""
    try:
        with zipfile.ZipFile(path) as archive:  # which reads no more of an array than it says here
            names = ("jpeg.npy", "offsets.npy", "partition.npy")
            size = sum(archive.getinfo(name).file_size for name in names if name in archive.namelist())
        if size > LARGEST_PACK:
            raise ValueError(f"it would take {size} bytes, and no pack more than {LARGEST_PACK}")
        with np.load(path) as pack:
            content, offsets, partition = pack["jpeg"].tobytes(), pack["offsets"], pack["partition"]
        return [content[offsets[i] : offsets[i + 1]] for i in np.flatnonzero(partition == SPLITS.index(split))]
    except Exception as error:  # of many kinds: NumPy's, zipfile's, zlib's
        raise ValueError(f"{path} is no readable pack of faces: {error}") from error


def _part_name(split):
    return f"celeba_64_{split}.npz"


def write_part(source, split, folder):
    """Write the pack of one part alone, from a pack of more. It is what a GPU machine needs.

    Parameters
    ----------
    source : path
        Of the pack.
    split : {"train", "valid", "test"}
    folder : path
        Where to write.

    Returns
    -------
    path
        Of the new pack.

    Raises
    ------
    ValueError
        When the source is no pack, or has no images of that part.
    """
    jpegs = _jpegs(source, one_of("split", split, SPLITS))
    if not jpegs:
        raise ValueError(f"{source} is a pack without {split} images; expected some")
    path = folder_to_write("folder", folder) / _part_name(split)
    arrays = {
        "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)]),
        "partition": np.full(len(jpegs), SPLITS.index(split), np.uint8),
    }
    write_npz(path, arrays)
    return path


def eigenvalues():
    """Recorded eigenvalues (12288,) of the 1/N covariance of the pack's training images, pixels in [0, 1]; and N."""
    with np.load(io.BytesIO((files("helpers") / "recorded" / EIGENVALUES).read_bytes())) as record:
        return record["eigenvalues"], int(record["count"])


def record_eigenvalues(folder):
    """Write the record of `eigenvalues` into `folder`: some minutes, and gigabytes of memory.

    Raises
    ------
    ValueError
        When the images found are not those of the pack.
    """
    folder, x = folder_to_write("folder", folder), faces("train")
    if len(x) != PACKED["train"][0]:
        raise ValueError(f"there are {len(x)} training images; expected the {PACKED['train'][0]} of the pack")
    found = covariance_eigenvalues(x.reshape(len(x), -1)) / 255**2
    write_npz(
        folder / EIGENVALUES,
        {"eigenvalues": found, "count": np.int64(len(x)), "data_sha256": np.array(sha256(x))},
    )


def _main(arguments=None):
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.celeba", description="Make the record of CelebA's eigenvalues again, or a part's pack."
    )
    parser.add_argument("--out", default=Path(__file__).parent / "recorded", type=Path, help="folder to write into")
    parser.add_argument("--part", choices=SPLITS, help="write the pack of this part alone, in place of the record")
    parser.add_argument("--pack", type=Path, help="with --part: the pack to take it from")
    options = parser.parse_args(arguments)
    if (options.part is None) != (options.pack is None):
        parser.error("--part and --pack go together")
    if options.part:
        return answered(lambda: print(write_part(options.pack, options.part, options.out)))
    return answered(record_eigenvalues, options.out)


if __name__ == "__main__":
    sys.exit(_main())
