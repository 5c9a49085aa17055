"""Recorded runs: what a study leaves behind, as NetCDF 3 files that say where they come from.

Serves chapters 09 to 12, which show them, and `studies`, which makes them. A record is an `xarray.Dataset` over the
dimensions member, epoch, unit and snapshot. Its attributes name the study and the profile, and `parts` lists the calls
it was made by, each with the keys of `PROVENANCE`. The variables `set_*` say what each member was, and `SCHEMA` what
every variable is. A file has a further attribute, `digest`: a checksum of every other byte of it.
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

from helpers._files import whole
from helpers._validation import brief, file_of, instance, path_of, record_with, words

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

# Of every variable: its dimensions, its unit and what it is. A file has the numbers alone; who reads one, by `load` or
# `recorded`, finds units and long names with them. Pixels are from 0 to 1, so squares of them have the unit 1.
ONE = ("member", "image", "height", "width", "colour")
SCHEMA = {
    "member": (("member",), "", "number of the member in its plan"),
    "epoch": (("epoch",), "epochs", "epochs done"),
    "snapshot": (("snapshot",), "epochs", "epochs done at a snapshot"),
    "set_seed": (("member",), "", "seed of weights, minibatches and noise"),
    "set_learning_rate": (("member",), "1", "learning rate of Adam"),
    "set_sigma2": (("member",), "1", "noise variance, or its initial value where it is learned"),
    "set_sigma2_rule": (("member",), "", "how the noise variance is set"),
    "set_beta": (("member",), "", "weight of the KL term, or its schedule"),
    "set_decay": (("member",), "1", "share of the epochs over which the learning rate falls to 0"),
    "diverged": (("member",), "epochs", "epoch in which a number was not finite, 0 for none"),
    "elbo": (("member",), "nats", "ELBO per sample"),
    "sse": (("member",), "1", "expected squared error per sample"),
    "kl": (("member",), "nats", "KL divergence from the prior per sample"),
    "sigma2": (("member",), "1", "noise variance after training"),
    "tuned_elbo": (("member",), "nats", "ELBO per sample at the best noise variance"),
    "tuned_sigma2": (("member",), "1", "best noise variance with the rest held"),
    "mutual_information": (("member",), "nats", "mutual information of x and z"),
    "active_units": (("member",), "units", "active units"),
    "count": (("member",), "samples", "samples evaluated"),
    "further_gain": (("member",), "nats", "what further affine units would add, by the residual test"),
    "kl_per_unit": (("member", "unit"), "nats", "KL divergence of a unit"),
    "variance_of_mean": (("member", "unit"), "1", "variance over the data of a unit's posterior mean"),
    "second_moment": (("member", "unit"), "1", "mean square of a unit"),
    "quantile": (("member", "unit"), "nats", "epsilon above which a unit has collapsed, at delta = 0.01"),
    "snapshot_kl_per_unit": (("snapshot", "member", "unit"), "nats", "KL divergence of a unit at a snapshot"),
    "snapshot_variance_of_mean": (("snapshot", "member", "unit"), "1", "variance of a unit's mean at a snapshot"),
    "snapshot_second_moment": (("snapshot", "member", "unit"), "1", "mean square of a unit at a snapshot"),
    "snapshot_quantile": (("snapshot", "member", "unit"), "nats", "epsilon of a unit's collapse at a snapshot"),
    "history_elbo": (("epoch", "member"), "nats", "ELBO per sample in training"),
    "history_sse": (("epoch", "member"), "1", "squared error per sample in training"),
    "history_kl": (("epoch", "member"), "nats", "KL divergence per sample in training"),
    "history_sigma2": (("epoch", "member"), "1", "noise variance at the end of an epoch"),
    "history_beta": (("epoch", "member"), "1", "weight of the KL term at the end of an epoch"),
    "reconstructed": (ONE, "", "reconstruction of an image, bytes less 128"),
    "plane": (("member", "row", "column", *ONE[2:]), "", "image on the plane through three means, bytes less 128"),
    "distance": (("member", "image", "other"), "1", "squared distance of a reconstruction from an image"),
}

# An attribute as NetCDF 3 stores it: the name, filled up to 8 bytes; 2, for text; the length; the value.
CARRIED = re.compile(rb"(?<=digest\0\0\0\0\0\x02\0\0\0\x40)[0-9a-f]{64}")


def digest(content):
    """Checksum (sha256, hex) of the `content` of a record's file, but for the checksum that it carries itself."""
    instance("content", content, (bytes, bytearray, memoryview))
    return hashlib.sha256(CARRIED.sub(b"0" * 64, content)).hexdigest()


def printable(value):
    """A `value` that is text from a file, as one may print it: what would steer a terminal comes as its escape."""
    instance("value", value, str)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def parts(record):
    """The calls that a `record` was made by, a list of dict with the keys of `PROVENANCE`.

    Raises
    ------
    ValueError
        When its attribute does not hold that.
    """
    text = instance("record", record, xr.Dataset).attrs.get("parts")
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"record has parts {brief(text)}; expected a list in JSON") from error
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise ValueError(f"record has parts {brief(text)}; expected a list of what made it")
    return found


def seal(record, study, profile, part_list):
    """The record with its provenance, members in ascending order.

    Parameters
    ----------
    record : xarray.Dataset
    study, profile : str
    part_list : list of dict
        The calls that made it, each with the keys of `PROVENANCE`.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        When the list is none, lacks a key, or holds what JSON cannot.
    """
    record = record_with(record, "member").sortby("member")
    _names(study, profile)
    if not isinstance(part_list, list) or not part_list or not all(isinstance(part, dict) for part in part_list):
        raise ValueError(f"part_list is {brief(part_list)}; expected a list of dict with the keys of PROVENANCE")
    if missing := {key for part in part_list for key in PROVENANCE if key not in part}:
        raise ValueError(f"part_list lacks {', '.join(sorted(missing))}; a record says where it comes from")
    try:
        text = json.dumps(part_list)
    except (TypeError, ValueError) as error:
        raise ValueError(f"part_list is {brief(part_list)}; expected what JSON can hold: {error}") from error
    record.attrs = {"study": study, "profile": profile, "parts": text}
    return _labelled(record)


def _labelled(record):
    """The record, each variable with its unit and long name by `SCHEMA`."""
    for name in record.variables.keys() & SCHEMA.keys():
        _, unit, long_name = SCHEMA[name]
        record[name].attrs = {"long_name": long_name} | ({"units": unit} if unit else {})
    return record


def _names(study, profile):
    for name, value in (("study", study), ("profile", profile)):
        if not isinstance(value, str) or not re.fullmatch(r"[\w-]+", value):
            raise ValueError(f"{name} is {brief(value)}; expected a name")


def file_name(study, profile, members=None, suffix="nc"):
    """Name of the file of a run's record or checkpoint.

    Parameters
    ----------
    study, profile : str
    members : range, optional
        Those that the file is of; all by default.
    suffix : {"nc", "safetensors"}
        Of a record, or of a checkpoint.

    Returns
    -------
    str
    """
    _names(study, profile)
    if members is None:
        return f"{study}-{profile}.{words('suffix', suffix)}"
    members = instance("members", members, range)
    return f"{study}-{profile}-{members.start}-{members.stop}.{words('suffix', suffix)}"


def to_bytes(record):
    """The record as a NetCDF 3 file, with its digest: the same bytes for the same record, read from a file or not."""
    _refuse_unsealed(record_with(record), "record")
    blank = record[sorted(record.variables)].drop_encoding().copy().assign_attrs(digest="0" * 64)
    for name in blank.variables:  # units and long names come from the schema, and stand in no file
        blank[name].attrs = {}
    content = bytes(blank.to_netcdf(engine="scipy", format="NETCDF3_64BIT"))
    return CARRIED.sub(digest(content).encode(), content)


def save(record, path):
    """Write a sealed record to `path`, at once or not at all.

    Parameters
    ----------
    record : xarray.Dataset
        Sealed.
    path : path

    Raises
    ------
    OSError
        When it cannot be written, say because the disk is full; what was at `path` stays.
    """
    path, content = file_of("path", path), to_bytes(record)
    try:
        with whole(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise OSError(f"the record {path} could not be written: {error}") from error


def load(path):
    """Read the record at `path` and verify it.

    Raises
    ------
    ValueError
        When it is no NetCDF 3 file with a digest, does not match its digest, or lacks provenance.

    See Also
    --------
    recorded : those that travel with the package.
    """
    return from_bytes(path_of("path", path).read_bytes(), path)


def from_bytes(content, name="the record"):
    """`load` from a file's content.

    Parameters
    ----------
    content : bytes
    name : str
        What messages call it.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        As `load`.
    """
    content = bytes(instance("content", content, (bytes, bytearray, memoryview)))
    instance("name", name, (str, os.PathLike))
    carried = CARRIED.search(content)
    if not content.startswith(b"CDF") or not carried:
        other = ": it is of another format, NetCDF 4" if content.startswith(b"\x89HDF") else ""
        raise ValueError(f"{name} is no record: it is no NetCDF 3 file with a digest{other}")
    if carried[0].decode() != (found := digest(content)):
        raise ValueError(f"{name} is damaged: its digest is {found}; expected {carried[0].decode()}")
    try:
        record = xr.load_dataset(io.BytesIO(content), engine="scipy")
    except Exception as error:  # of whatever kind the readers raise on a header that says what cannot be
        raise ValueError(f"{name} is no readable record: {type(error).__name__}: {error!s:.200}") from error
    _refuse_unsealed(record, name)
    return _labelled(record)


def _refuse_unsealed(record, name):
    """Raise ``ValueError`` unless a record has members, what they were and where they come from."""
    missing = {key for key in ("study", "profile", "parts") if not isinstance(record.attrs.get(key), str)}
    if "parts" not in missing:
        missing |= {key for part in parts(record) or [{}] for key in PROVENANCE if key not in part}
    if "member" not in record.coords or not record.sizes.get("member"):
        missing.add("member")
    if not any(str(variable).startswith("set_") for variable in record):
        missing.add("set_*")
    if missing:
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}; a record says where it comes from")


def merge(records):
    """One record of the members of several `records`, all of one study and profile.

    Raises
    ------
    ValueError
        When they differ in study, profile, settings, data or precision, or share a member.
    """
    if not isinstance(records, (list, tuple)) or not records:
        raise ValueError(f"records is {brief(records)}; expected a list of at least one record")
    for i, record in enumerate(records):
        instance(f"records[{i}]", record, xr.Dataset)
        _refuse_unsealed(record, f"records[{i}]")
    part_list = sorted((part for record in records for part in parts(record)), key=lambda part: part["members"])
    sources = {name: [record.attrs[name] for record in records] for name in ("study", "profile")}
    sources |= {name: [part[name] for part in part_list] for name in ("settings", "data_sha256", "precision")}
    for name, values in sources.items():
        if other := [value for value in values if value != values[0]]:
            one, other = printable(str(values[0])), printable(str(other[0]))
            raise ValueError(f"records of different kinds: {name} is {one} in one and {other} in another")
    members = np.concatenate([record.member.values for record in records])
    if len(set(members.tolist())) < len(members):
        raise ValueError(f"records share members: they have {sorted(members.tolist())}")
    merged = xr.concat(records, "member", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return seal(merged, sources["study"][0], sources["profile"][0], part_list)


def begun(study, profile):
    """What is recorded so far of a study whose members come one by one.

    Parameters
    ----------
    study, profile : str

    Returns
    -------
    xarray.Dataset or None
        One record of these members; None where there are none.
    """
    _names(study, profile)
    paths = sorted(Path(str(files("helpers") / "recorded")).glob(f"{study}-{profile}-*-*.nc"))
    return merge([load(path) for path in paths]) if paths else None


def recorded(study, profile):
    """The record that travels with the package.

    Parameters
    ----------
    study, profile : str

    Returns
    -------
    xarray.Dataset or None
        None where there is none.

    See Also
    --------
    largest : of a study, the one nearest to the paper's scale.
    helpers.studies.obtain : runs the study where there is none.

    Examples
    --------
    >>> record = recorded("mnist-fixed", "laptop")
    >>> record.attrs["study"], record.sizes["unit"], sorted(set(record.set_sigma2.values.tolist()))
    ('mnist-fixed', 200, [0.001, 0.01, 0.05, 0.1])
    >>> recorded("mnist-fixed", "quick") is None  # seconds to run, so none is kept
    True
    """
    _names(study, profile)
    path = files("helpers") / "recorded" / file_name(study, profile)
    return named(from_bytes(path.read_bytes(), path.name), path.name, study, profile) if path.is_file() else None


def named(record, name, study, profile):
    """Return the record of a file, or refuse it where the file's name is another's.

    Parameters
    ----------
    record : xarray.Dataset
    name : path
        Of the file, for the message.
    study, profile : str
        By the file's name.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        When the record is of another study or profile.
    """
    _names(study, profile)
    _refuse_unsealed(record_with(record), instance("name", name, (str, os.PathLike)))
    found = tuple(record.attrs[key] for key in ("study", "profile"))
    if found != (study, profile):
        found = ", profile ".join(map(printable, found))
        raise ValueError(f"{name} is a record of {found}; expected one of {study}, profile {profile}")
    return record


def largest(study):
    """The recorded run of a study nearest to the paper's scale: profile paper, else laptop, else None."""
    found = (recorded(study, profile) for profile in ("paper", "laptop"))
    return next((record for record in found if record is not None), None)


def label(record):
    """Which run a `record` is, in a line for captions.

    Raises
    ------
    ValueError
        When it does not say what made it.
    """
    part = (parts(record) or [{}])[0]
    try:
        settings, device = part["settings"], part["device"].split(",")[0]
        run = f"{settings['epochs']} epochs of {settings['data']}, batch {settings['batch_size']}"
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"record has parts {brief(part)}; expected what made it") from error
    return printable(f"{record.attrs['study']}, {record.attrs['profile']}: {run}, {part['precision']}, {device}")


def best(record):
    """Of each configuration in a record, the position of the learning rate whose final training ELBO is best."""
    record_with(record, "elbo", "set_sigma2", "set_sigma2_rule", "set_beta")
    elbo = np.nan_to_num(record.elbo.values, nan=-np.inf)  # beyond float32: after the largest learning rates
    configurations = zip(*(record[f"set_{name}"].values for name in ("sigma2", "sigma2_rule", "beta")), strict=True)
    chosen = {}
    for m, configuration in enumerate(configurations):
        if elbo[m] > elbo[chosen.setdefault(configuration, m)]:
            chosen[configuration] = m
    return list(chosen.values())


def is_annealed(record):
    """Which members of a record had beta rising, (M,) bool: from the end of the first epoch to a later one's.

    Of a member whose history does not tell, as it diverged in the first epoch or beta rose within it, its text decides.
    """
    record_with(record, "set_beta")
    named = np.array([str(text).startswith("LinearAnnealing(") for text in record.set_beta.values])
    if "history_beta" not in record:
        return named
    beta = record.history_beta.transpose("epoch", "member").values
    rises, falls = np.fmax.reduce(beta) > beta[0], np.fmin.reduce(beta) < beta[0]
    return rises | (named & ~falls)


def table(record):
    """A record as text: what each member was and what became of it.

    Parameters
    ----------
    record : xarray.Dataset

    Returns
    -------
    str
        A line of headings, and one for each member.

    Examples
    --------
    >>> print(table(recorded("mnist-fixed", "laptop")).splitlines()[0])
    member  sigma2  sigma2_rule  beta  learning_rate  seed   elbo  tuned_elbo    sse     kl  sigma2  active_units
    """
    columns = ("set_sigma2", "set_sigma2_rule", "set_beta", "set_learning_rate", "set_seed")
    numbers = ("elbo", "tuned_elbo", "sse", "kl", "sigma2", "active_units")
    record_with(record, "member", "diverged", *columns, *numbers)
    names = [name.removeprefix("set_") for name in columns] + list(numbers)
    rows = [["member", *names]]
    for m, member in enumerate(record.member.values):
        set_values = [printable(str(record[name].values[m])) for name in columns]
        values = [f"{record[name].values[m]:.4g}" for name in numbers]
        note = f"  diverged in epoch {record.diverged.values[m]}" if record.diverged.values[m] else ""
        rows.append([str(member), *set_values, *values[:-1], values[-1] + note])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
