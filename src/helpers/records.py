"""Recorded runs: what a study leaves behind, as NetCDF 3 files that say where they come from. Serves `studies`.

A record is an `xarray.Dataset` over the dimensions member, epoch, unit and snapshot. Its attributes name the study
and the profile, and `parts` lists the calls it was made by, each with the keys of `PROVENANCE`. The variables `set_*`
say what each member was. A file has a further attribute, `digest`: a checksum of every other byte of it.
"""

import hashlib
import io
import json
import os
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import xarray as xr

PROVENANCE = (
    "members",
    "settings",
    "data_sha256",
    "commit",
    "versions",
    "device",
    "precision",
    "seconds",
    "samples_per_second",
    "date",
)

# An attribute as NetCDF 3 stores it: the name, filled up to 8 bytes; 2, for text; the length; the value.
CARRIED = re.compile(rb"(?<=digest\0\0\0\0\0\x02\0\0\0\x40)[0-9a-f]{64}")


def digest(content):
    """Checksum (sha256, hex) of a record's file, but for the checksum that it carries itself."""
    return hashlib.sha256(CARRIED.sub(b"0" * 64, content)).hexdigest()


def parts(record):
    """The calls a record was made by, a list of dict with the keys of `PROVENANCE`."""
    return json.loads(record.attrs["parts"])


def seal(record, study, profile, part_list):
    """The record with its provenance, members in ascending order."""
    record = record.sortby("member")
    record.attrs = {"study": study, "profile": profile, "parts": json.dumps(part_list)}
    return record


def to_bytes(record):
    """The record as a NetCDF 3 file, with its digest: the same bytes for the same record, read from a file or not."""
    blank = record[sorted(record.variables)].drop_encoding().assign_attrs(digest="0" * 64)
    content = bytes(blank.to_netcdf(engine="scipy", format="NETCDF3_64BIT"))
    return CARRIED.sub(digest(content).encode(), content)


def save(record, path):
    """Write a sealed record to `path`, at once or not at all.

    Raises
    ------
    OSError
        When it cannot be written, say because the disk is full; what was at `path` stays.
    """
    path, content = Path(path), to_bytes(record)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # two calls may end at once, and both write the whole
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"the record {path} could not be written: {error}") from error


def load(path):
    """Read a record and verify it.

    Raises
    ------
    ValueError
        When it is no NetCDF 3 file with a digest, does not match its digest, or lacks provenance.
    """
    return from_bytes(Path(path).read_bytes(), path)


def from_bytes(content, name="the record"):
    """`load` from a file's content; `name` is what messages call it."""
    carried = CARRIED.search(content)
    if not content.startswith(b"CDF") or not carried:
        raise ValueError(f"{name} is no record: it is no NetCDF 3 file with a digest")
    if carried[0].decode() != (found := digest(content)):
        raise ValueError(f"{name} is damaged: its digest is {found}; expected {carried[0].decode()}")
    record = xr.load_dataset(io.BytesIO(content), engine="scipy")
    missing = {"study", "profile", "parts"} - set(record.attrs)
    if "parts" not in missing:
        missing |= {key for part in parts(record) or [{}] for key in PROVENANCE if key not in part}
    if not any(str(variable).startswith("set_") for variable in record):
        missing.add("set_*")
    if missing:
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}; a record says where it comes from")
    return record


def merge(records):
    """One record of the members of several, all of one study and profile.

    Raises
    ------
    ValueError
        When they differ in study, profile, settings, data or precision, or share a member.
    """
    part_list = sorted((part for record in records for part in parts(record)), key=lambda part: part["members"])
    sources = {name: [record.attrs[name] for record in records] for name in ("study", "profile")}
    sources |= {name: [part[name] for part in part_list] for name in ("settings", "data_sha256", "precision")}
    for name, values in sources.items():
        if other := [value for value in values if value != values[0]]:
            raise ValueError(f"records of different kinds: {name} is {values[0]} in one and {other[0]} in another")
    members = np.concatenate([record.member.values for record in records])
    if len(set(members.tolist())) < len(members):
        raise ValueError(f"records share members: they have {sorted(members.tolist())}")
    merged = xr.concat(records, "member", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return seal(merged, sources["study"][0], sources["profile"][0], part_list)


def begun(study, profile):
    """What is recorded so far of a study whose members come one by one: one record of these, or None for none."""
    paths = sorted(Path(str(files("helpers") / "records")).glob(f"{study}-{profile}-*-*.nc"))
    return merge([load(path) for path in paths]) if paths else None


def recorded(study, profile):
    """The record that travels with the package, or None where there is none."""
    path = files("helpers") / "records" / f"{study}-{profile}.nc"
    return from_bytes(path.read_bytes(), path.name) if path.is_file() else None


def largest(study):
    """The recorded run of a study nearest to the paper's scale: profile paper, else laptop, else None."""
    found = (recorded(study, profile) for profile in ("paper", "laptop"))
    return next((record for record in found if record is not None), None)


def label(record):
    """Which run a record is, in a line for captions."""
    part = parts(record)[0]
    settings, device = part["settings"], part["device"].split(",")[0]
    run = f"{settings['epochs']} epochs of {settings['data']}, batch {settings['batch_size']}"
    return f"{record.attrs['study']}, {record.attrs['profile']}: {run}, {part['precision']}, {device}"
