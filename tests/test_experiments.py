"""Experiments: what a run records, of which code, on which device."""

import dataclasses
import shutil
import subprocess
from datetime import datetime

import numpy as np
import pytest
import torch
from tiny_study import FLAWED, MEMBERS, PLAN, assert_same_values, whole

from helpers import _files, collapse, data, evaluation, experiments, records
from helpers.diagnose import diagnose
from helpers.ensemble import Member
from helpers.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_record_says_what_was_trained_and_how():
    record, run = whole()
    assert dict(record.sizes) == {"member": 4, "epoch": 3, "unit": 4, "snapshot": 2}
    described = [member.describe() for member in MEMBERS]
    for key in described[0]:
        assert record[f"set_{key}"].values.tolist() == [row[key] for row in described]
    assert record.epoch.values.tolist() == [1, 2, 3] and record.snapshot.values.tolist() == [1, 3]
    for name, values in run.history.items():
        np.testing.assert_array_equal(record[f"history_{name}"], values.astype(np.float32))
    assert (record.attrs["study"], record.attrs["profile"]) == ("tiny", "quick")
    (part,) = records.parts(record)
    assert set(part) == set(records.PROVENANCE)
    assert part["members"] == [0, 4]
    assert part["settings"] == {
        "data": "digits",
        "network": {"name": "mlp", "n": 64, "hidden": [8], "k": 4},
        "epochs": 3,
        "batch_size": 256,
        "snapshots": [1, 3],
        "pictures": [],
    }
    assert part["data_sha256"] == _files.sha256(data.digits_bytes())
    assert part["commit"] == experiments.commit()
    assert part["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert part["device"].startswith("cpu ") and part["precision"] == "float32"
    assert part["seconds"] == pytest.approx(run.seconds, abs=0.1)
    assert part["samples_per_second"] == pytest.approx(4 * 3 * 7 * 256 / run.seconds, abs=1)
    assert datetime.fromisoformat(part["date"]).utcoffset().total_seconds() == 0


def test_the_record_evaluates_the_trained_networks_on_all_data():
    record, run = whole()
    n, sigma2 = 64, record.sigma2.values
    for name in evaluation.UNITS:  # the last snapshot was taken by the training itself
        np.testing.assert_allclose(record[name], record[f"snapshot_{name}"][-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(record.kl, record.kl_per_unit.sum("unit"), rtol=1e-5)
    np.testing.assert_allclose(record.sigma2, run.history["sigma2"][-1], rtol=1e-6)
    elbo = -n / 2 * np.log(2 * np.pi * sigma2) - record.sse / (2 * sigma2) - record.kl
    np.testing.assert_allclose(record.elbo, elbo)
    gains = [
        diagnose(run.stack.member(m), data.digits_bytes(), f"nll(sigma2={s}) + kl").further_gain
        for m, s in enumerate(sigma2)
    ]
    np.testing.assert_allclose(record.further_gain, gains, rtol=1e-4)
    assert record.further_gain.max() > 1
    x = torch.tensor(data.digits_bytes()) / 255
    model = run.stack.member(0)
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(len(x), 4, generator=generator) for _ in range(16)]
    with torch.no_grad():
        sse = float(np.mean([model(x, draw)[0].mean() for draw in noise]))
    assert float(record.sse[0]) == pytest.approx(sse, rel=0.02)  # two Monte-Carlo estimates


def test_every_batch_is_evaluated(monkeypatch):
    x = np.concatenate([data.digits_bytes(), 255 - data.digits_bytes()])
    monkeypatch.setitem(data.DATA, "digits", lambda: x)
    record, _ = experiments.run(PLAN, "tiny", "quick", range(1))
    np.testing.assert_allclose(record.kl_per_unit, record.snapshot_kl_per_unit[-1], rtol=1e-5)


def test_snapshots_are_in_order_after_a_checkpoint(tmp_path):
    long = dataclasses.replace(PLAN, epochs=11, batch_size=1797, snapshots=(2, 10))
    experiments.run(dataclasses.replace(long, epochs=10), "tiny", "quick", range(1), path=tmp_path / "checkpoint")
    resumed, _ = experiments.run(long, "tiny", "quick", range(1), path=tmp_path / "checkpoint")
    assert resumed.snapshot.values.tolist() == [2, 10]
    assert_same_values(resumed, experiments.run(long, "tiny", "quick", range(1))[0])


def test_blocks_of_members_merge_into_the_same_record():
    blocks = [experiments.run(PLAN, "tiny", "quick", range(*block))[0] for block in ((2, 4), (0, 2))]
    merged = records.merge([records.from_bytes(records.to_bytes(block)) for block in blocks])
    for name in merged.variables:
        values, expected = merged[name].values, whole()[0][name].values
        if values.dtype.kind == "f":  # a batched product may round otherwise in another company
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(values, expected, err_msg=name)
    assert merged.member.values.tolist() == [0, 1, 2, 3]


def test_a_member_that_cannot_be_evaluated_is_recorded_as_nan():
    wild = Member(learning_rate=1000, sigma2=1e-3, sigma2_rule="adam")  # log sigma2 becomes thousands
    plan = dataclasses.replace(PLAN, members=(wild, Member()))
    record, run = experiments.run(plan, "tiny", "quick")
    assert run.diverged.tolist() == [0, 0]
    for name in evaluation.FINAL + evaluation.UNITS:
        assert np.isnan(record[name].values[0]).all() and np.isfinite(record[name].values[1]).all()
    assert "nan" in records.table(record)
    records.from_bytes(records.to_bytes(record))


def test_a_seed_the_file_cannot_hold_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr(experiments, "train", None)
    with pytest.raises(ValueError, match=r"a member's seed is 2147483648; expected below 2\^31"):
        experiments.run(FLAWED, "flawed", "quick")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, that of `experiments.commit`."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    for name in ("BOOK_COMMIT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    package = tmp_path / "book" / "helpers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(experiments, "__file__", str(package / "experiments.py"))

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(package.parent), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return package, git


def test_commit_is_that_of_the_package(repository):
    package, git = repository
    assert experiments.commit() == "unknown"
    git("init")
    (package.parent / "other.txt").write_text("the repository the package was installed into")
    git("add", "other.txt")
    git("commit", "-m", "another project's")
    assert experiments.commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "the package's")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40 and experiments.commit() == head
    (package.parent / "other.txt").write_text("no part of the package")
    assert experiments.commit() == head
    (package / "__init__.py").write_text("changed")
    assert experiments.commit() == head + "+changes"


def test_commit_may_be_said(repository, monkeypatch):
    monkeypatch.setenv("BOOK_COMMIT", "abc123")
    assert experiments.commit() == "abc123"


def test_commit_is_that_of_the_start(monkeypatch):
    said = iter(["first", "second"])
    monkeypatch.setattr(experiments, "commit", lambda: next(said))
    monkeypatch.setattr(experiments, "train", lambda *a, **k: (experiments.commit(), train(*a, **k))[1])
    record, _ = experiments.run(PLAN, "tiny", "quick", range(1))
    assert records.parts(record)[0]["commit"] == "first"


def test_two_schedules_of_one_name_have_records_that_tell_them_apart(monkeypatch):
    schedules = [lambda elapsed, value=value: value for value in (0.5, 0.25)]
    plan = dataclasses.replace(PLAN, members=tuple(Member(beta=beta) for beta in schedules))
    one, other = experiments.run(plan, "tiny", "quick")[0].set_beta.values
    assert one != other and "sha256" in one and "of 3 epochs" in one


def test_only_numbers_that_are_not_finite_end_as_nan(monkeypatch):
    def shapes(*arguments):
        raise ValueError("decode's output has shape (1797, 1); expected (1797, 64)")

    monkeypatch.setattr(collapse, "evaluate", shapes)
    with pytest.raises(ValueError, match=r"decode's output has shape \(1797, 1\)"):
        experiments.run(PLAN, "tiny", "quick", range(1))
    monkeypatch.setattr(collapse, "unit_statistics", shapes)
    with pytest.raises(ValueError, match=r"decode's output has shape"):
        train(PLAN.network, data.digits_bytes(), [Member()], 1, 256, snapshots=[1])


def test_devices_are_named_as_they_are(monkeypatch):
    assert experiments._name(torch.device("cpu")).startswith("cpu ")
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: f"Arc {device.index}", raising=False)
    assert experiments._name(torch.device("xpu", 1)) == "Arc 1"
    assert experiments._name(torch.device("mps")).startswith("mps ")
