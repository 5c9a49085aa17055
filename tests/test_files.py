"""Files: whole or not at all, with the usual mode; checksums; the cache of a user without a home."""

import hashlib
import os

import numpy as np
import pytest

from helpers import _files


def test_a_file_appears_when_the_block_has_ended_and_with_the_usual_mode(tmp_path):
    path = tmp_path / "new" / "a file"
    for mask, mode in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            with _files.whole(path) as part:
                part.write_bytes(b"half")
                part.chmod(0o600)  # as a library may leave it
                assert path.exists() == (mask != 0o022) and part.name == path.name
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == mode and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(step, tmp_path, monkeypatch):
    path = tmp_path / "a file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), _files.whole(path) as part:
        part.write_bytes(b"new")
        raise KeyError

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"), _files.whole(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [path.name]


def test_what_a_killed_write_left_is_removed_by_a_later_one(tmp_path):
    path = tmp_path / "a file"
    old, new, other = (tmp_path / f".{name}.part" for name in ("a file.1", "a file.2", "another.1"))
    for part in (old, new, other):
        part.mkdir()
        (part / path.name).write_bytes(b"cut short")
    for part in (old, other):
        os.utime(part, (0, 0))
    with _files.whole(path) as part:
        part.write_bytes(b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, new.name, other.name])  # somebody may write the new one
    _files.remove_parts(path)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, other.name])


def test_digest_depends_on_values_shape_and_dtype_alone():
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert _files.sha256(x) == hashlib.sha256(b"|u1 (3, 4) " + bytes(range(12))).hexdigest()
    assert _files.sha256(np.asfortranarray(x)) == _files.sha256(x) == _files.sha256(np.repeat(x, 2, axis=1)[:, ::2])
    others = [x.reshape(4, 3), x.view(np.int8), x.T, x + np.uint8(1), x.astype(np.uint16)]
    assert len({_files.sha256(y) for y in [x, *others]}) == 6
    assert _files.sha256(np.zeros((0, 2))) != _files.sha256(np.zeros((0, 3)))
    for bad in (np.array(["a"]), np.array([None]), np.array([1.0, np.nan]), np.ma.masked_equal(x, 3), x > 3):
        with pytest.raises(ValueError, match=r"^array "):
            _files.sha256(bad)
    assert _files.sha256(x.tolist()) == _files.sha256(x.astype(np.int64))


def test_a_user_without_a_home_has_a_cache(tmp_path, monkeypatch):
    """As in a container that runs under a number the system does not know."""
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(_files.tempfile, "tempdir", str(tmp_path / "temporary"))
    assert _files.cache_folder() == tmp_path / "temporary" / ".cache" / "posterior-collapse-book"


def test_an_archive_has_no_python_objects_and_appears_whole(tmp_path, monkeypatch):
    for arrays in ({"a": np.array([None])}, {1: np.ones(2)}, None, [np.ones(2)]):
        with pytest.raises(ValueError, match=r"^arrays "):
            _files.write_npz(tmp_path / "a.npz", arrays)
    _files.write_npz(tmp_path / "a.npz", {"a": np.ones(2)})

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"a\.npz could not be written: No space left"):
        _files.write_npz(tmp_path / "a.npz", {"a": np.zeros(2)})
    assert os.listdir(tmp_path) == ["a.npz"] and np.load(tmp_path / "a.npz")["a"].tolist() == [1, 1]


def test_a_command_answers_with_a_code_and_a_line(capsys):
    def failing(error):
        raise error

    assert _files.answered(print, "done") == 0
    assert _files.answered(failing, OSError("no")) == _files.answered(failing, ValueError("no")) == 1
    assert capsys.readouterr() == ("done\n", "error: no\nerror: no\n")
    with pytest.raises(KeyError):
        _files.answered(failing, KeyError("a fault of ours"))
