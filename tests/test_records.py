"""Records: the same numbers after a file, no byte of it changed unnoticed, and nothing merged that does not belong."""

import errno
import json
import os
from importlib.resources import files

import numpy as np
import pytest
import xarray as xr
from tiny_study import whole

from helpers import records

PART = {
    "settings": {"data": "digits", "epochs": 3, "network": {"name": "mlp", "hidden": [8]}},
    "data_sha256": "5e" * 32,
    "commit": "unknown",
    "versions": {"python": "3.12.0"},
    "device": "cpu",
    "precision": "float32",
    "seconds": 0.5,
    "samples_per_second": 1000,
    "date": "2020-01-01T00:00:00+00:00",
}


def made(start=0, stop=2, study="demo", profile="quick", **changes):
    """A sealed record of some members, whose numbers depend on the member alone."""
    members = np.arange(start, stop, dtype=np.int32)
    rng = np.random.default_rng(0)
    elbo, kl = rng.standard_normal(10), rng.standard_normal((10, 3))
    kl[1, 2], elbo[1] = np.nan, -np.inf
    table = {
        "set_seed": ("member", members),
        "set_beta": ("member", np.array(["1.0", "LinearAnnealing(epochs=10)"])[members % 2]),
        "elbo": ("member", elbo[members]),
        "kl_per_unit": (("member", "unit"), kl[members].astype(np.float32)),
        "history_kl": (("epoch", "member"), kl.T[:, members].astype(np.float32)),
    }
    part = {"members": [start, stop], **PART, **changes}
    return records.seal(xr.Dataset(table, {"member": members, "epoch": [1, 2, 3]}), study, profile, [part])


def assert_same(a, b):
    xr.testing.assert_equal(a, b)
    assert {k: v for k, v in a.attrs.items() if k != "digest"} == {k: v for k, v in b.attrs.items() if k != "digest"}


def test_bytes_and_file_give_the_record_back_and_keep_its_digest(tmp_path):
    record, path = made(), tmp_path / "new" / "demo-quick.nc"
    records.save(record, path)
    loaded = records.load(path)
    assert_same(loaded, record)
    assert loaded.elbo.dtype == np.float64 and loaded.kl_per_unit.dtype == np.float32
    assert np.isnan(loaded.kl_per_unit.values[1, 2]) and loaded.elbo.values[1] == -np.inf
    assert records.to_bytes(record) == path.read_bytes() == records.to_bytes(loaded)
    assert loaded.attrs["digest"] == records.digest(path.read_bytes())
    assert os.listdir(path.parent) == [path.name]


def test_the_file_is_plain_netcdf_3(tmp_path):
    from scipy.io import netcdf_file

    path = tmp_path / "a.nc"
    records.save(made(), path)
    with netcdf_file(path, mmap=False) as file:
        np.testing.assert_array_equal(file.variables["elbo"][:], made().elbo.values)
        assert json.loads(file.parts)[0]["members"] == [0, 2]


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_byte_counts(flip):
    content = records.to_bytes(made())
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= flip
        with pytest.raises(ValueError, match=r"is damaged|is no record"):
            records.from_bytes(bytes(changed))


def test_truncated_or_grown_files_are_refused():
    content = records.to_bytes(made())
    for part in (content[:-1], content[: len(content) // 2], content[:100], content[:3], content + b"\0"):
        with pytest.raises(ValueError, match=r"is damaged|is no record"):
            records.from_bytes(part)


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89HDF\r\n\x1a\n", b"CDF\x02" + bytes(100)])
def test_other_files_are_refused_by_their_name(content, tmp_path):
    path = tmp_path / "demo-quick.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"demo-quick\.nc is no record: it is no NetCDF 3 file with a digest"):
        records.load(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        records.load(tmp_path / "absent.nc")


def test_a_file_without_a_digest_is_refused():
    content = bytes(made().to_netcdf(engine="scipy", format="NETCDF3_64BIT"))
    with pytest.raises(ValueError, match="with a digest"):
        records.from_bytes(content)


@pytest.mark.parametrize("name", records.PROVENANCE)
def test_a_part_without_some_provenance_is_refused(name):
    record = made()
    whole = records.parts(record)[0]
    less = {key: value for key, value in whole.items() if key != name}
    record.attrs["parts"] = json.dumps([whole, less])
    with pytest.raises(ValueError, match=f"lacks {name};"):
        records.from_bytes(records.to_bytes(record))


@pytest.mark.parametrize("name", ["study", "profile", "parts"])
def test_a_record_without_some_attribute_is_refused(name):
    record = made()
    del record.attrs[name]
    with pytest.raises(ValueError, match=f"lacks {name};"):
        records.from_bytes(records.to_bytes(record))


def test_a_record_without_parts_or_members_settings_is_refused():
    record = made()
    record.attrs["parts"] = "[]"
    with pytest.raises(ValueError, match="lacks commit, data_sha256, date, device"):
        records.from_bytes(records.to_bytes(record))
    with pytest.raises(ValueError, match=r"lacks set_\*;"):
        records.from_bytes(records.to_bytes(made().drop_vars(["set_seed", "set_beta"])))


@pytest.mark.filterwarnings("error")
def test_merged_parts_equal_the_whole_in_any_order():
    whole = made(0, 10)
    for blocks in ([(0, 1), (1, 10)], [(5, 10), (0, 2), (2, 5)]):
        pieces = [records.from_bytes(records.to_bytes(made(*block))) for block in blocks]
        merged = records.merge(pieces)
        xr.testing.assert_equal(merged, whole)
        assert [part["members"] for part in records.parts(merged)] == sorted(map(list, blocks))
        assert (merged.attrs["study"], merged.attrs["profile"]) == ("demo", "quick")
        content = records.to_bytes(merged)
        assert_same(records.from_bytes(content), merged)
        assert content == records.to_bytes(whole.assign_attrs(merged.attrs))
    xr.testing.assert_equal(records.merge([whole]), whole)


def test_parts_may_come_from_other_machines_and_commits():
    parts = records.parts(records.merge([made(0, 2), made(2, 4, device="NVIDIA", commit="abc", versions={})]))
    assert [part["device"] for part in parts] == ["cpu", "NVIDIA"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("study", "other"),
        ("profile", "paper"),
        ("settings", {**PART["settings"], "epochs": 4}),
        ("data_sha256", "00" * 32),
        ("precision", "tf32"),
    ],
)
def test_what_differs_in_kind_is_not_merged(name, value):
    with pytest.raises(ValueError, match=f"of different kinds: {name} is .* in one and .* in another"):
        records.merge([made(0, 2), made(2, 3, **{name: value})])


def test_shared_members_are_not_merged():
    with pytest.raises(ValueError, match=r"share members: they have \[0, 1, 1, 2\]"):
        records.merge([made(0, 2), made(1, 3)])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(step, tmp_path, monkeypatch):
    path = tmp_path / "demo-quick.nc"
    records.save(made(0, 2), path)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"the record .*demo-quick\.nc could not be written: .*No space left"):
        records.save(made(2, 4), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_what_netcdf_3_cannot_hold_leaves_no_file(tmp_path):
    record = made().assign(set_seed=("member", [0, 2**40]))
    with pytest.raises(ValueError, match="int64"):
        records.save(record, tmp_path / "demo-quick.nc")
    assert os.listdir(tmp_path) == []


def test_the_packages_records_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "files", lambda package: tmp_path)
    assert records.recorded("demo", "quick") is None
    records.save(made(), tmp_path / "recorded" / "demo-quick.nc")
    assert_same(records.recorded("demo", "quick"), made())
    assert records.recorded("demo", "paper") is None
    (tmp_path / "recorded" / "demo-paper.nc").write_bytes(b"CDF")
    with pytest.raises(ValueError, match=r"^demo-paper\.nc is no record"):
        records.recorded("demo", "paper")


def test_the_packages_records_are_whole():
    for path in (files("helpers") / "recorded").iterdir():
        if path.name.endswith(".nc"):
            record = records.from_bytes(path.read_bytes(), path.name)
            whole, (first, *_) = f"{record.attrs['study']}-{record.attrs['profile']}", record.member.values
            assert path.name in (f"{whole}.nc", f"{whole}-{first}-{first + record.member.size}.nc")


def test_largest_is_the_the_papers_profile_or_else_the_laptops(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "files", lambda package: tmp_path)
    records.save(made(), tmp_path / "recorded" / "demo-quick.nc")
    assert records.largest("demo") is None
    for profile in ("laptop", "paper"):
        records.save(made(profile=profile), tmp_path / "recorded" / f"demo-{profile}.nc")
        assert records.largest("demo").attrs["profile"] == profile


def test_label_says_which_run():
    settings = {**PART["settings"], "batch_size": 128}
    record = made(study="demo", profile="paper", settings=settings, device="cpu x86_64, 2 threads")
    assert records.label(record) == "demo, paper: 3 epochs of digits, batch 128, float32, cpu x86_64"


def test_members_that_come_one_by_one_are_one_record():
    found = records.begun("mnist-fixed", "paper")
    assert found.member.values.tolist() == sorted(found.member.values.tolist()) and found.epoch.size == 1000
    assert {part["settings"]["epochs"] for part in records.parts(found)} == {1000}
    assert records.begun("mnist-fixed", "laptop") is None and records.recorded("mnist-fixed", "paper") is None


def test_every_variable_has_its_place_in_the_schema(tmp_path):
    """Those of the package's records and of a new one; and the schema has none that no record has."""
    paths = [path for path in (files("helpers") / "recorded").iterdir() if path.name.endswith(".nc")]
    found = [records.from_bytes(path.read_bytes(), path.name) for path in paths] + [whole()[0]]
    for record in found:
        for name, variable in record.variables.items():
            dimensions, unit, long_name = records.SCHEMA[name]
            assert variable.dims == dimensions and variable.attrs.get("units", "") == unit, name
            assert variable.attrs["long_name"] == long_name and long_name
    assert {name for record in found for name in record.variables} | {"set_decay", "further_gain"} == set(
        records.SCHEMA
    )


def test_units_and_long_names_stand_in_no_file():
    content = (files("helpers") / "recorded" / "mnist-fixed-laptop.nc").read_bytes()
    record = records.from_bytes(content)
    assert records.to_bytes(record) == content
    assert record.elbo.attrs == {"long_name": "ELBO per sample", "units": "nats"}  # and it still has them


# A header that says what cannot be


def resealed(content):
    """The same bytes with a digest that fits them."""
    return records.CARRIED.sub(records.digest(content).encode(), bytes(content))


@pytest.mark.filterwarnings("ignore")  # of xarray's, on times that a mutation makes of a variable
@pytest.mark.parametrize(("first", "flip"), [(4, 0x01), (5, 0x80), (6, 0x20), (7, 0xFF)])
def test_a_file_that_was_changed_and_sealed_anew_is_read_or_refused(first, flip):
    content, other = records.to_bytes(made()), {"read": 0, "refused": 0}
    for i in range(first, len(content), 4):
        mutant = bytearray(content)
        mutant[i] ^= flip
        try:
            found = records.from_bytes(resealed(bytes(mutant)), "demo.nc")
        except ValueError as error:
            assert str(error).startswith(("demo.nc ", "record "))
            other["refused"] += 1
        else:
            other["read"] += 1
            assert found.sizes["member"] and records.parts(found)
    assert other["read"] > 50 and other["refused"] > 50, other


@pytest.mark.parametrize("parts", ["{", "3", "[3]", "null", "[[]]", "[" * 100_000])
def test_parts_that_are_no_list_are_refused(parts):
    record = made()
    record.attrs["parts"] = parts
    with pytest.raises(ValueError, match=r"record has parts|record lacks"):
        records.to_bytes(record)


def test_a_record_of_another_format_says_so():
    with pytest.raises(ValueError, match="no NetCDF 3 file with a digest: it is of another format, NetCDF 4"):
        records.from_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


def test_a_record_under_anothers_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "files", lambda package: tmp_path)
    records.save(made(), tmp_path / "recorded" / "demo-paper.nc")
    with pytest.raises(ValueError, match=r"demo-paper\.nc is a record of demo, profile quick; expected one of demo, "):
        records.recorded("demo", "paper")
    for study in ("../demo", "", None, 3, "a/b"):
        with pytest.raises(ValueError, match=r"^study is"):
            records.recorded(study, "quick")


def test_what_steers_a_terminal_is_not_printed_raw():
    settings = {**PART["settings"], "batch_size": 128}
    record = made(settings=settings, device="cpu\x1b[31m\r\u202e", precision="a\nb")
    assert records.label(record).isprintable() and r"cpu\x1b[31m\r\u202e" in records.label(record)
    other = made(3, 4, settings=settings, device="cpu", precision="\x07")
    with pytest.raises(ValueError, match="different kinds") as error:
        records.merge([record, other])
    assert str(error.value).isprintable()
    assert records.printable("σ² = 0.1, ü") == "σ² = 0.1, ü"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: records.merge([]), "records is .*; expected a list of at least one record"),
        (lambda: records.merge([made(), None]), r"records\[1\] is None"),
        (lambda: records.merge([xr.Dataset()]), r"records\[0\] lacks"),
        (lambda: records.merge(made()), "records is"),
        (lambda: records.parts(None), "record is None"),
        (lambda: records.best(None), "record is None"),
        (lambda: records.best(xr.Dataset()), "record lacks elbo"),
        (lambda: records.is_annealed({}), "record is {}"),
        (lambda: records.label(xr.Dataset()), "record has parts None"),
        (lambda: records.label(made(device=3)), "record has parts"),
        (lambda: records.seal(None, "a", "b", [{}]), "record is None"),
        (lambda: records.seal(made(), "", "b", [{}]), "study is ''"),
        (lambda: records.seal(made(), "a", "b", [{}]), "part_list lacks commit"),
        (lambda: records.seal(made(), "a", "b", [{"members": [0, 2], **PART, "date": b""}]), "part_list is"),
        (lambda: records.from_bytes("CDF"), "content is 'CDF'"),
        (lambda: records.from_bytes(b"CDF", 3), "name is 3"),
        (lambda: records.load(3), "path is 3"),
        (lambda: records.save(made(), ""), "path is ''"),
        (lambda: records.to_bytes(made().drop_vars("member")), "record lacks member"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# What a record says of its members


def test_best_ignores_members_without_an_elbo():
    table = {
        "set_sigma2": ("member", [0.1, 0.1, 0.1, 0.01, 0.01]),
        "set_sigma2_rule": ("member", ["fixed"] * 5),
        "set_beta": ("member", ["1.0"] * 5),
        "elbo": ("member", [np.nan, 1.0, 2.0, 5.0, np.nan]),
    }
    assert records.best(xr.Dataset(table)) == [2, 3]


def test_annealed_is_whose_beta_rose():
    """By the numbers: of schedules of one's own as well, and of old records."""
    nan, texts = np.nan, ["1.0", "LinearAnnealing(epochs=4)", "rise, sha256 12", "fall", "LinearAnnealing(epochs=0.5)"]
    beta = [
        [1, 1, 1],
        [0.2, 0.5, 0.7],
        [0.1, 0.1, 0.9],
        [2, 1, 1],
        [1, 1, 1],
        [nan, nan, nan],
        [nan] * 3,
        [0.1, 0.4, nan],
    ]
    texts += ["LinearAnnealing(epochs=4)", "1.0", "rise"]
    table = {"set_beta": ("member", texts), "history_beta": (("epoch", "member"), np.transpose(beta))}
    assert records.is_annealed(xr.Dataset(table)).tolist() == [False, True, True, False, True, True, False, True]
    without = records.is_annealed(xr.Dataset({"set_beta": table["set_beta"]}))
    assert without.tolist() == [False, True, False, False, True, True, False, False]


def test_the_packages_records_say_who_was_annealed():
    for study, expected in (
        ("mnist-fixed", [False] * 4),
        ("mnist-annealed", [True] * 4),
        ("mnist-learned", [False, True]),
    ):
        assert records.is_annealed(records.recorded(study, "laptop")).tolist() == expected


def test_table_says_which_members_diverged():
    record = whole()[0].copy(deep=True)
    record.diverged[1] = 2
    head, *rows = records.table(record).splitlines()
    assert head.split()[:3] == ["member", "sigma2", "sigma2_rule"] and len(rows) == 4
    assert "LinearAnnealing(epochs=2)" in rows[1] and rows[1].endswith("diverged in epoch 2")
    assert "diverged" not in rows[0] + rows[2]
