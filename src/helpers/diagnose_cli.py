"""The commands ``python -m helpers.diagnose`` and ``posterior-collapse``: what they take, what they say, how they end.

Serves chapter 12.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from helpers import codes, diagnose, report
from helpers._files import whole
from helpers._validation import instance, path_of
from helpers.forecast import forecast
from helpers.moments import Moments, covariance_eigenvalues
from helpers.objective import GRAMMAR, PRESETS, read

EXITS = {
    "settled": 0,
    "alive": 0,
    "asked for": 10,
    "worse than linear": 11,
    "another unit would pay": 12,
    "parked at free bits": 13,
    "memorising": 14,
    "measured only": 15,
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
ARRAYS = ("mean", "logvar", "x", "reconstructions")


def samples_from(data):
    """Samples from a file or a folder.

    Parameters
    ----------
    data : path
        An array that ``numpy.save`` wrote, .npy; a table of numbers, .csv, with a line of names or without; or a folder
        of images of one size. Bytes, those of images too, are divided by 255.

    Returns
    -------
    (N, n) float64 ndarray

    Raises
    ------
    ValueError
        When there is none of these, or it is not what is expected.
    """
    data = path_of("data", data)
    if data.is_dir():
        return _images(data)
    if not data.is_file():
        raise ValueError(
            f"data is {data}, which is neither a file nor a folder; expected .npy, .csv or a folder of images"
        )
    if data.suffix.lower() == ".npy":
        x = _array(data)
    elif data.suffix.lower() == ".csv":
        x = _table(data)
    else:
        raise ValueError(f"data is {data}; expected .npy, .csv or a folder of images")
    if x.dtype.kind not in "uif" or x.ndim < 2 or not x.size:
        raise ValueError(f"data in {data} is {x.dtype} of shape {x.shape}; expected numbers (N, ...)")
    x = x / 255 if x.dtype == np.uint8 else x.astype(np.float64)
    return x.reshape(len(x), -1)


def _array(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"data is {path}, no readable .npy file: {error}") from error


def _table(path):
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"data is {path}, no readable text: {error}") from error
    lines = [line for line in lines if line.strip()]
    if lines[1:] and not all(map(_is_number, lines[0].split(","))):
        lines = lines[1:]  # a first line of names
    if not lines:
        raise ValueError(f"data in {path} is no table of numbers: it is empty")
    try:
        return np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"data in {path} is no table of numbers with commas between them: {error}") from error


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _images(folder):
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"data is {folder}, a folder without images; expected some of {', '.join(SUFFIXES)}")
    found = []
    for file in files:
        try:
            with Image.open(file) as image:
                found.append(np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"data has {file.name}, which is no readable image: {error}") from error
        if found[-1].shape != found[0].shape:
            raise ValueError(
                f"data has {files[0].name} of shape {found[0].shape} and {file.name} of {found[-1].shape}; expected "
                "images of one size, all grey or all of colours"
            )
    return np.stack(found).reshape(len(found), -1) / 255


def codes_from(path, likelihood="gaussian"):
    """The codes in a file that ``numpy.savez`` wrote, of `mean`, `logvar`, `x` and `reconstructions`.

    Parameters
    ----------
    path : path
    likelihood : str
        As for `codes.measure`.

    Returns
    -------
    codes.Codes

    Raises
    ------
    ValueError
        When the file cannot be read, lacks an array, or these do not fit together.
    """
    path = path_of("path", path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS if name in file}
    except (ValueError, EOFError, OSError, BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"codes is {path}, no readable .npz file: {error}") from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ValueError(f"codes is {path} without {', '.join(missing)}; expected the arrays {', '.join(ARRAYS)}")
    return codes.of_arrays(arrays["x"], arrays["mean"], arrays["logvar"], arrays["reconstructions"], likelihood)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m helpers.diagnose",
        description="What a VAE's loss asks for, and what a trained VAE did.",
        epilog="Exit codes: 0 alive or settled; 2 wrong usage, with the reason; else one for each verdict: "
        + ", ".join(f"{code} {name}" for name, code in EXITS.items() if code)
        + ".",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--loss", required=True, help=f"{GRAMMAR}; or one of: {'; '.join(PRESETS)}".replace("%", "%%"))
    shared.add_argument("--batch", type=int, metavar="B", help="samples of a minibatch, where the loss depends on it")
    shared.add_argument("--sigma2", type=float, metavar="S", help="the model's own noise variance, where it is learned")
    shared.add_argument("--html", type=Path, metavar="FILE", help="write the report there, as one page")
    shared.add_argument("--json", action="store_true", help="print one object in place of text")
    before = commands.add_parser(
        "forecast", parents=[shared], help="before training: what the loss asks for on data", epilog=parser.epilog
    )
    before.add_argument("--data", required=True, metavar="PATH", help=".npy, .csv or a folder of images; bytes / 255")
    before.add_argument("--latents", required=True, type=int, metavar="K")
    after = commands.add_parser(
        "check", parents=[shared], help="after training: what the model did, from arrays", epilog=parser.epilog
    )
    after.add_argument(
        "--codes",
        required=True,
        metavar="FILE",
        help="an .npz file with x (N, ...), mean and logvar (N, k) of its codes, "
        "and reconstructions (N, ...) at a draw of z, or (S, N, ...) at S independent ones",
    )
    after.add_argument("--held-out", metavar="FILE", help="the same of data that the model was not trained on")
    return parser


def _number(value):
    return None if value is None else value if isinstance(value, (bool, int, str)) else float(value)


def main(arguments=None):
    """Read the command line, print what was found, and return the exit code.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.

    Returns
    -------
    int
        One of `EXITS`, or 2, after a sentence on the standard error.

    Raises
    ------
    ValueError
        When they are no list of texts.
    """
    if arguments is not None:
        arguments = [
            instance("an entry of arguments", one, str) for one in instance("arguments", arguments, (list, tuple))
        ]
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        found = _forecast(options) if options.command == "forecast" else _check(options)
        page = report.html(found) if options.html is not None else None
    except (ValueError, MemoryError) as error:
        print(f"{parser.prog} {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    headline, reason = report.verdict(found)
    if page is not None:
        try:
            with whole(options.html) as file:
                Path(file).write_text(page, encoding="utf-8")
        except (ValueError, OSError) as error:
            print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
            return 2
    if options.json:
        predicted = found if options.command == "forecast" else found.forecast
        names = (
            "theta",
            "survivors",
            "lambda_1",
            "learned_sigma2",
            "collapse_is_stable",
            "kl",
            "distortion",
            "J",
            "n",
            "k",
        )
        answer = {name: _number(getattr(predicted, name)) for name in names}
        answer |= {"verdict": headline, "reason": reason, "notes": list(found.notes)}
        if options.command == "check":
            own = (
                "gap",
                "further_gain",
                "further_units",
                "kl",
                "distortion",
                "J",
                "units_above",
                "active_units",
                "drift",
            )
            answer |= {
                name: _number(getattr(found, name)) for name in (*own, "mutual_information", "held_out_gap", "count")
            }
        print(json.dumps(answer, allow_nan=False))
    else:
        print(report.text(found))
    return EXITS[headline]


def _forecast(options):
    x = samples_from(options.data)
    # The eigenvalues alone take the shorter way where there are fewer samples than features.
    gaussian = _likelihood(options) == "gaussian"
    moments = covariance_eigenvalues(x) if gaussian else Moments.from_samples(x)
    return forecast(moments, options.latents, options.loss, len(x), options.batch, options.sigma2)


def _check(options):
    found = codes_from(options.codes, _likelihood(options))
    held_out = None if options.held_out is None else codes_from(options.held_out, _likelihood(options))
    return diagnose.of_codes(found, options.loss, held_out, options.sigma2, options.batch)


def _likelihood(options):
    return read(options.loss, 1009, 1009, options.batch).likelihood  # sizes that stand in for those of the data


if __name__ == "__main__":
    sys.exit(main())
