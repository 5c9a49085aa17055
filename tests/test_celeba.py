"""CelebA: torchvision's crop, the same faces from a folder and from a pack, and what happens to damaged ones.

No face is needed: pieces of scikit-learn's two photographs are published here as CelebA's are.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import _files, celeba, data

PACK = Path(os.environ.get("BOOK_DATA") or "nowhere") / "CelebA64" / "celeba_64.npz"
needs_pack = pytest.mark.skipif(not PACK.is_file(), reason="BOOK_DATA names no folder with CelebA64/celeba_64.npz")

PARTITION = np.array([0, 0, 1, 2, 0, 2, 1, 0, 0, 1, 2, 0])  # mixed, where CelebA's parts follow one another
NAMES = [f"{i + 1:06}.jpg" for i in range(len(PARTITION))]
LISTS = {  # file: the lines above the images, and what follows an image's name
    "list_eval_partition.txt": ([], "{part}"),
    "identity_CelebA.txt": ([], "{i}"),
    "list_bbox_celeba.txt": (["12", "image_id x_1 y_1 width height"], " 95  71 226 313"),
    "list_landmarks_align_celeba.txt": (["12", " ".join(f"l{i}" for i in range(10))], " 69" + 9 * " 111"),
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


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_crop_is_torchvisions(mode, pieces):
    for piece in pieces:
        image = Image.fromarray(piece).convert(mode)
        assert image.size == (178, 218)  # of CelebA's images, width first
        found = celeba.crop(image)
        np.testing.assert_array_equal(found, reference(image), strict=True)
        assert found.shape == (64, 64, 3) and found.dtype == np.uint8


@pytest.mark.parametrize("split", celeba.SPLITS)
def test_folder_gives_the_crops_of_its_part_in_order(split, folder, crops):
    found = celeba.faces(split)
    np.testing.assert_array_equal(found, np.stack(of(split, crops)), strict=True)
    assert found.shape == (PARTITION.tolist().count(celeba.SPLITS.index(split)), 64, 64, 3)


@pytest.mark.parametrize("split", celeba.SPLITS)
def test_pack_gives_its_jpegs_in_order(split, pack, jpegs):
    expected = [np.asarray(Image.open(io.BytesIO(content))) for content in of(split, jpegs)]
    np.testing.assert_array_equal(celeba.faces(split), np.stack(expected), strict=True)


def test_training_images_are_the_default(pack):
    np.testing.assert_array_equal(celeba.faces(), celeba.faces("train"), strict=True)


def test_folder_and_pack_have_the_same_faces_up_to_a_jpeg(root, published, jpegs):
    """Measured with Pillow 13.0: a JPEG of quality 92, its colours at half the resolution, moves the twelve pictures by
    2.66 of 255 levels on average and by 40 at most. Two different pictures are 9.1 levels apart or more."""
    packed = write_pack(root / "CelebA64" / "celeba_64.npz", jpegs)
    packs = np.concatenate([celeba.faces(split) for split in celeba.SPLITS]).astype(int)
    packed.unlink()
    shutil.copytree(published / "celeba", root / "celeba")
    folders = np.concatenate([celeba.faces(split) for split in celeba.SPLITS]).astype(int)
    assert packs.shape == folders.shape == (12, 64, 64, 3)
    loss = np.abs(packs - folders)
    assert loss.mean() == pytest.approx(2.66, abs=0.05) and loss.max() == pytest.approx(40, abs=2)
    distances = np.abs(packs[:, None] - folders).mean((2, 3, 4))  # of all pairs, so a wrong order would show
    assert (distances.argmin(axis=0) == np.arange(12)).all() and (distances.argmin(axis=1) == np.arange(12)).all()
    assert (distances + 1e9 * np.eye(12)).min() == pytest.approx(9.1, abs=0.1)


def plain(level):
    """JPEGs of twelve pictures of one colour, and the level that each decodes to."""
    return [jpeg(np.full((64, 64, 3), level, np.uint8), 92)] * 12


def test_book_data_comes_before_the_cache_and_a_pack_before_a_folder(root, published, crops, monkeypatch):
    cache = _files.cache_folder()
    part = hashlib.sha256(b"".join(plain(7)[:6])).hexdigest()
    monkeypatch.setitem(celeba.PACKED, "train", (6, part))
    folder = Path(shutil.copytree(published / "celeba", root / "celeba"))
    in_cache = write_pack(cache / "CelebA64" / "celeba_64.npz", plain(7))
    np.testing.assert_array_equal(celeba.faces(), np.stack(of("train", crops)))  # the folder, though the cache's a pack
    write_pack(root / "CelebA64" / "celeba_64.npz", plain(7))
    assert (celeba.faces() == 7).all()
    shutil.rmtree(root / "CelebA64")
    (cache / "celeba").parent.mkdir(exist_ok=True)
    folder.rename(cache / "celeba")
    assert (celeba.faces() == 7).all()  # the cache's pack
    in_cache.unlink()
    np.testing.assert_array_equal(celeba.faces(), np.stack(of("train", crops)))  # the cache's folder
    monkeypatch.delenv("BOOK_DATA")
    np.testing.assert_array_equal(celeba.faces(), np.stack(of("train", crops)))


@pytest.mark.parametrize("split", celeba.SPLITS)
def test_one_part_alone_is_enough_for_its_faces(split, pack, root, tmp_path, monkeypatch):
    expected = celeba.faces(split)
    part = celeba.write_part(pack, split, tmp_path / "gpu" / "CelebA64")
    assert part == tmp_path / "gpu" / "CelebA64" / f"celeba_64_{split}.npz"
    assert list(part.parent.iterdir()) == [part]
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "gpu"))
    np.testing.assert_array_equal(celeba.faces(split), expected, strict=True)
    for other in set(celeba.SPLITS) - {split}:
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            celeba.faces(other)


def test_one_part_is_written_on_the_command_line(pack, tmp_path, monkeypatch, capsys):
    arguments = ["--part", "valid", "--pack", str(pack), "--out", str(tmp_path / "gpu" / "CelebA64")]
    assert celeba._main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "gpu" / "CelebA64" / "celeba_64_valid.npz")
    expected = celeba.faces("valid")
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "gpu"))
    np.testing.assert_array_equal(celeba.faces("valid"), expected)
    for arguments in (["--part", "valid"], ["--pack", str(pack)]):
        with pytest.raises(SystemExit):
            celeba._main(arguments)
        assert "--part and --pack go together" in capsys.readouterr().err


def test_a_pack_without_the_part_asked_for_makes_none(pack, tmp_path, capsys):
    part = celeba.write_part(pack, "test", tmp_path)
    assert celeba._main(["--part", "valid", "--pack", str(part), "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err == f"error: {part} is a pack without valid images; expected some\n"
    assert not (tmp_path / "new").exists()


def test_the_record_goes_into_a_new_folder(pack, tmp_path):
    assert celeba._main(["--out", str(tmp_path / "new" / "er")]) == 0
    assert os.listdir(tmp_path / "new" / "er") == [celeba.EIGENVALUES]


def test_where_nothing_can_be_written_is_noticed_first(pack, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(celeba, "faces", lambda split: pytest.fail("the work came first"))
    (tmp_path / "file").write_text("mine")
    for arguments in (["--out", str(tmp_path / "file")], ["--out", str(tmp_path / "file" / "below")]):
        assert celeba._main(arguments) == 1
        assert "error: folder is " in capsys.readouterr().err


def test_the_module_is_a_command():
    done = subprocess.run([sys.executable, "-m", "helpers.celeba", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--pack" in done.stdout


# What is damaged, and what is missing


@pytest.mark.parametrize("damage", [lambda c: c[:-500], lambda c: b"", lambda c: b"<html>", None])
def test_image_of_the_folder_is_named_when_it_is_damaged_or_missing(damage, folder):
    path = folder / "img_align_celeba" / NAMES[4]  # a training image
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    with pytest.raises(ValueError, match=rf"{path} is no readable image: "):
        celeba.faces("train")
    assert len(celeba.faces("test")) == 3


def test_image_of_another_size_is_named(folder):
    path = folder / "img_align_celeba" / NAMES[4]
    Image.open(path).resize((64, 64)).save(path)
    with pytest.raises(ValueError, match=rf"{path} has \(64, 64\) pixels; expected \(178, 218\)"):
        celeba.faces("train")


def test_folder_with_other_lists_than_published_is_named(folder, monkeypatch):
    """Of a list the checksum that torchvision keeps is verified."""
    from torchvision.datasets import CelebA

    lists = [("id", hashlib.md5((folder / name).read_bytes()).hexdigest(), name) for name in LISTS]
    monkeypatch.setattr(CelebA, "file_list", lists)
    assert len(celeba.faces("valid")) == 3
    with (folder / "list_eval_partition.txt").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=rf"{folder} is not as published: Dataset not found or corrupted"):
        celeba.faces("valid")
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(ValueError, match=rf"{folder} is not as published"):
        celeba.faces("valid")


def test_pack_that_is_truncated_is_named(pack):
    content = pack.read_bytes()
    for size in (0, 10, 1000, len(content) // 2, len(content) - 1):
        pack.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: "):
            celeba.faces()


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_pack_with_a_wrong_byte_is_named(pack):
    content = pack.read_bytes()
    for place in (0, len(content) // 2, len(content) - 10):
        pack.write_bytes(flip(content, place))
        with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: "):
            celeba.faces()


def test_a_pack_that_would_inflate_is_not_read(pack, monkeypatch):
    """Of 2 GiB of zeros deflate makes 2 MB; the archive says beforehand what they would take."""
    arrays = dict(np.load(pack))
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("offsets", "partition"):
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, arrays[name])
        with archive.open("jpeg.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**31,)})
            for _ in range(2**7):
                file.write(bytes(2**24))
    assert pack.stat().st_size < 3e6
    monkeypatch.setattr(celeba.np, "load", lambda path: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: it would take 2147484\d+ bytes"):
        celeba.faces()


@pytest.mark.parametrize("name", ["jpeg", "offsets", "partition"])
def test_pack_with_a_wrong_byte_where_an_array_begins_is_named(name, pack):
    """There zlib's own error precedes the one about the checksum."""
    content = pack.read_bytes()
    with zipfile.ZipFile(pack) as archive:
        header = archive.getinfo(f"{name}.npy").header_offset
    sizes = [int.from_bytes(content[header + i : header + i + 2], "little") for i in (26, 28)]  # of its name and extras
    place = header + 30 + sum(sizes)
    pack.write_bytes(content[:place] + b"\xff" + content[place + 1 :])  # a kind of block that deflate does not have
    with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: "):
        celeba.faces()


def test_file_that_is_no_pack_is_named(pack):
    arrays = dict(np.load(pack))
    for missing in ("jpeg", "offsets", "partition"):
        np.savez(pack, **{name: array for name, array in arrays.items() if name != missing})
        with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: .*{missing}"):
            celeba.faces()
    for content in (b"<html>", b"version https://git-lfs.github.com/spec/v1\n"):
        pack.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: "):
            celeba.faces()
    np.savez(pack, **arrays | {"jpeg": np.array([None])})  # a pickle, which is not opened
    with pytest.raises(ValueError, match=rf"{pack} is no readable pack of faces: .*allow_pickle=False"):
        celeba.faces()


@pytest.mark.parametrize("change", ["another image", "another order", "one fewer", "another part"])
def test_pack_with_other_images_is_named(change, pack, jpegs):
    other, partition = list(jpegs), PARTITION.copy()
    if change == "another image":
        other[4] = plain(0)[0]
    elif change == "another order":
        other[:2] = other[1::-1]
    else:
        partition[4] = 1 if change == "another part" else 3
    write_pack(pack, other, partition)
    part = [image for image, number in zip(other, partition, strict=True) if number == 0]
    found, published = (hashlib.sha256(b"".join(images)).hexdigest() for images in (part, of("train", jpegs)))
    message = f"{pack} has {len(part)} train images with sha256 {found}; expected 6 with {published}"
    with pytest.raises(ValueError, match=message):
        celeba.faces()
    if change != "another part":
        assert len(celeba.faces("valid")) == 3


def test_part_of_another_split_is_refused(pack, root):
    part = celeba.write_part(pack, "valid", pack.parent)
    pack.unlink()
    part.rename(part.with_name("celeba_64_train.npz"))
    with pytest.raises(ValueError, match=r"celeba_64_train\.npz has 0 train images"):
        celeba.faces()


def test_image_of_a_pack_is_named_when_it_is_damaged(pack, jpegs, monkeypatch):
    """Should a pack ever be published with such an image."""
    jpegs = [*jpegs[:4], jpegs[4][:-500], *jpegs[5:]]
    write_pack(pack, jpegs)
    part = of("train", jpegs)
    monkeypatch.setitem(celeba.PACKED, "train", (6, hashlib.sha256(b"".join(part)).hexdigest()))
    with pytest.raises(ValueError, match=rf"image 2 of {pack} is no readable image: "):
        celeba.faces()


class DownloadError(Exception):
    """As gdown's, which torchvision downloads with: it derives from nothing nearer."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("'gdown' is required"),
        OSError("Network is unreachable"),
        ModuleNotFoundError("No module named 'requests'"),
        DownloadError("Too many users have viewed or downloaded this file recently"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_a_network_the_reader_is_told_what_to_put_where(error, root, monkeypatch):
    from torchvision.datasets import CelebA

    def download(_):
        raise error

    monkeypatch.setattr(CelebA, "download", download)
    with pytest.raises(FileNotFoundError) as raised:
        celeba.faces("test")
    for part in (
        f"$BOOK_DATA ({root})",
        f"the cache ({_files.cache_folder()})",
        f"downloaded: {error}. ",
        "set BOOK_DATA",
    ):
        assert part in str(raised.value)
    assert "img_align_celeba" in str(raised.value)
    monkeypatch.delenv("BOOK_DATA")
    with pytest.raises(FileNotFoundError, match=r"under \$BOOK_DATA \(not set\)"):
        celeba.faces("test")


def test_without_torchvision_the_reader_is_told_the_same(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded: .*torchvision.*set BOOK_DATA"):
        celeba.faces()


def test_missing_files_are_downloaded_into_the_cache(root, published, crops, monkeypatch):
    from torchvision.datasets import CelebA

    monkeypatch.setattr(CelebA, "download", lambda self: shutil.copytree(published, self.root))
    np.testing.assert_array_equal(celeba.faces("valid"), np.stack(of("valid", crops)))
    assert (_files.cache_folder() / "celeba" / "img_align_celeba" / NAMES[0]).is_file() and not list(root.iterdir())
    monkeypatch.setattr(CelebA, "download", lambda self: pytest.fail("downloaded twice"))
    np.testing.assert_array_equal(celeba.faces("test"), np.stack(of("test", crops)))


@pytest.mark.parametrize("split", ["all", "Train", None, 0, ["train"], {"train": 1}, np.array(["train", "valid"])])
def test_bad_split(split, pack, tmp_path):
    for call in (celeba.faces, lambda split: celeba.write_part(pack, split, tmp_path)):
        with pytest.raises(ValueError, match=r"split is .*; expected one of train, valid, test"):
            call(split)


@pytest.mark.parametrize("image", [None, "face.jpg", np.zeros((218, 178, 3), np.uint8), Image.new("RGB", (178, 147))])
def test_only_images_that_hold_the_square_are_cropped(image):
    """PIL would fill up what is missing with black."""
    with pytest.raises(ValueError, match=r"^image (is|has)"):
        celeba.crop(image)


def test_nothing_heavy_is_imported_for_the_eigenvalues():
    code = "import sys; from helpers import celeba; celeba.eigenvalues(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "torchvision", "PIL", "matplotlib"} & set(loaded)


# The record


def test_recorded_eigenvalues():
    """Their sum, the variance of an image, is 0.0646 a pixel and channel; the largest has 29 percent of it."""
    found, count = celeba.eigenvalues()
    assert found.shape == (64 * 64 * 3,) and found.dtype == np.float64 and count == celeba.PACKED["train"][0] == 20_000
    assert (np.diff(found) <= 0).all() and found[-1] > 0  # more images than pixels, so none is 0
    assert found.sum() / found.size == pytest.approx(0.06464, rel=1e-4)
    assert found[0] / found.sum() == pytest.approx(0.2878, rel=1e-3)


def test_the_record_is_made_of_the_training_images(pack, tmp_path):
    celeba.record_eigenvalues(tmp_path)
    made = dict(np.load(tmp_path / celeba.EIGENVALUES))
    x = celeba.faces("train")
    pixels = x.reshape(6, -1) / 255
    expected = np.linalg.svd(pixels - pixels.mean(axis=0), compute_uv=False) ** 2 / 6
    np.testing.assert_allclose(made["eigenvalues"][:6], expected, rtol=1e-9, atol=1e-9)
    assert made["eigenvalues"].shape == (12288,) and (made["eigenvalues"][6:] == 0).all()
    assert int(made["count"]) == 6 and str(made["data_sha256"]) == _files.sha256(x)
    assert made.keys() == dict(np.load(data.files("helpers") / "recorded" / celeba.EIGENVALUES)).keys()


def test_eigenvalues_of_other_images_are_not_recorded(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(celeba, "faces", lambda split: np.zeros((5, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="there are 5 training images; expected the 6 of the pack"):
        celeba.record_eigenvalues(tmp_path)


@needs_pack
def test_recorded_eigenvalues_are_those_of_the_pack():
    """Their sum is the trace of the covariance, which the variances of single pixels give."""
    x = celeba.faces("train").reshape(-1, 12288)
    assert x.shape == (20_000, 12288) and x.dtype == np.uint8
    total, squares = np.zeros(12288), 0.0
    for i in range(0, len(x), 500):
        pixels = x[i : i + 500].astype(np.float64)
        total += pixels.sum(axis=0)
        squares += np.vdot(pixels, pixels)  # whole numbers below 2^53, so exact
    trace = (squares - np.vdot(total, total) / len(x)) / len(x) / 255**2
    eigenvalues, count = celeba.eigenvalues()
    assert count == len(x) and eigenvalues.sum() == pytest.approx(trace, rel=1e-6)


@needs_pack
@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_parts_of_the_pack_are_there(split):
    x = celeba.faces(split)
    assert x.shape == (2_000, 64, 64, 3) and x.dtype == np.uint8
