"""Files: written whole or not at all, told by a checksum, kept in the user's cache.

Serves every module that writes: records, checkpoints, data sets and the chapters' ledgers.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers._validation import brief, file_of, folder_to_write, instance, plain_array, refuse_not_finite

STALE = 600  # seconds after which a part is one that a killed process left: no write takes as long


@contextlib.contextmanager
def whole(path):
    """A path to write a file to, which takes the place of `path` once the block has ended without an error.

    So the file at `path` is at every moment a whole one, old or new, whoever else writes or reads it, and on the disk
    when the block is left. The part lies in a folder ``.NAME.*.part`` of its own beside it; older ones are removed.

    Raises
    ------
    OSError
        When it cannot be written; what was at `path` stays.
    """
    path = file_of("path", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts(path, STALE)
    # A folder, as some libraries write to a file of a name and a mode of their own before they give it ours.
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        probe = folder / "mode"
        probe.touch()
        yield folder / path.name
        with (folder / path.name).open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(folder / path.name, probe.stat().st_mode & 0o777)  # what the umask leaves
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_parts(path, seconds=0.0):
    """Remove what writes of `path` left that were killed, where it is older than so many seconds."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(OSError):
            if not seconds or time.time() - part.stat().st_mtime > seconds:
                shutil.rmtree(part)


def write_npz(path, arrays):
    """Write a dict of arrays, which hold no Python objects, whole or not at all."""
    path = file_of("path", path)
    arrays = {name: np.asarray(value) for name, value in instance("arrays", arrays, dict).items()}
    for name, array in arrays.items():
        if not isinstance(name, str) or array.dtype.hasobject:
            raise ValueError(
                f"arrays has {brief(name)} with dtype {array.dtype}; expected names, and no Python objects"
            )
    folder_to_write("path", path.parent)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        with whole(path) as part:
            part.write_bytes(buffer.getvalue())
    except OSError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def sha256(array):
    """Hex digest of an array's dtype, shape and bytes in C order: what a record says it was made from."""
    array = plain_array("array", array)
    refuse_not_finite("array", array)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def cache_folder():
    """Where downloads are kept: ``$XDG_CACHE_HOME`` or ``~/.cache``, and there ``posterior-collapse-book``.

    A user without a home, as containers have them, keeps them in the system's folder for temporary files.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "posterior-collapse-book"


def answered(function, *arguments):
    """Call a function of a command: 0, or 1 and its reason on one line."""
    try:
        function(*arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
