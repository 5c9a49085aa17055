"""Studies: their records, found or made; blocks of members, in turns and on a cluster."""

import contextlib
import functools
import os
import signal
import threading
import time
from pathlib import Path

import distributed
import pytest
from tiny_study import PLAN, STUDIES, assert_same_values, names, whole

from helpers import evaluation, experiments, plans, records, studies
from helpers.lockstep import Lockstep

pytestmark = pytest.mark.usefixtures("one_thread")


def test_obtain_prefers_the_packages_record(command, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "files", lambda name: tmp_path)
    assert_same_values(studies.obtain("tiny", device="cpu"), whole()[0])
    packaged = records.merge([whole()[0].isel(member=[0])])
    records.save(packaged, tmp_path / "recorded" / "tiny-quick.nc")
    assert_same_values(studies.obtain("tiny"), packaged)
    assert_same_values(studies.obtain("tiny", device="cpu", rerun=True), whole()[0])


@pytest.mark.parametrize(
    "members",
    [[0, 1], (0, 1), range(0, 4, 2), range(3, 9), range(2, 2), range(-1, 2), range(3, -1, -1), 1, "0:2", slice(2)],
)
def test_members_that_are_no_range_of_the_plans(members, untrained, command):
    with pytest.raises(ValueError, match=r"^members is .*; expected a range of step 1 within range\(0, 4\)"):
        studies.run("tiny", members=members)


# On a cluster


@functools.cache  # dask runs what it preloads twice
def prepare_worker(folder):
    """What each worker of `cluster` does first: from then on it counts its epochs, and it may have to die."""
    plans.STUDIES.update(STUDIES)
    epoch, evaluate, sign = Lockstep.epoch, evaluation.evaluate, Path(folder) / "one is to die"

    def counted(*arguments):
        with (Path(folder) / "epochs").open("a") as file:
            file.write("x")
        epoch(*arguments)

    def mortal(*arguments):
        with contextlib.suppress(FileNotFoundError):
            sign.unlink()  # by the first that comes along
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(*arguments)

    Lockstep.epoch, evaluation.evaluate = counted, mortal


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers on the loopback device, and the folder whose signs they heed."""
    folder = tmp_path_factory.mktemp("cluster")
    preload = folder / "preload.py"
    lines = f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_studies import prepare_worker\n"
    preload.write_text(f"{lines}prepare_worker({str(folder)!r})\n")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, preload=[str(preload)]
    ) as cluster:
        yield cluster, folder


def test_a_worker_killed_in_a_task_costs_nothing(cluster, command, tmp_path):
    cluster, folder = cluster
    (folder / "one is to die").touch()
    code, printed, _ = command("run tiny", scheduler=cluster.scheduler_address)
    assert code == 0 and names(folder) == ["epochs", "preload.py"]  # one did die
    assert (folder / "epochs").read_text() == "x" * 4 * 3  # the other went on from its checkpoint
    for m in range(4):
        path = tmp_path / f"tiny-quick-{m}-{m + 1}.nc"
        assert str(path) in printed
        assert_same_values(records.load(path), experiments.run(PLAN, "tiny", "quick", range(m, m + 1))[0])
    assert records.load(tmp_path / "tiny-quick.nc").member.values.tolist() == [0, 1, 2, 3]


def test_a_block_that_fails_costs_the_others_nothing(cluster, command, tmp_path):
    cluster, _ = cluster
    code, _, error = command("run flawed", scheduler=cluster.scheduler_address)
    assert code == 1 and "1 of 3 blocks failed: members 1:2: a member's seed is 2147483648" in error
    assert {"flawed-quick-0-1.nc", "flawed-quick-2-3.nc"} < set(names(tmp_path))
    code, printed, _ = command("show flawed")
    assert code == 0 and len(printed.splitlines()) == 5
    before = (tmp_path / "flawed-quick-0-1.nc").stat().st_mtime_ns
    code, _, error = command("resume flawed", scheduler=cluster.scheduler_address)
    assert code == 1 and "1 of 1 blocks failed: members 1:2" in error
    assert (tmp_path / "flawed-quick-0-1.nc").stat().st_mtime_ns == before


def test_processes_are_a_cluster_of_this_machine(cluster, command, tmp_path, monkeypatch):
    cluster, _ = cluster
    asked = []
    local = lambda **settings: asked.append(settings) or contextlib.nullcontext(cluster)  # noqa: E731
    monkeypatch.setattr(distributed, "LocalCluster", local)
    assert command("run tiny --members 0:3", processes=2, block=2)[0] == 0
    assert asked == [{"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}]
    assert [name for name in names(tmp_path) if name.endswith(".nc")] == ["tiny-quick-0-2.nc", "tiny-quick-2-3.nc"]
    assert_same_values(
        records.load(tmp_path / "tiny-quick-0-2.nc"), experiments.run(PLAN, "tiny", "quick", range(2))[0]
    )


def test_blocks_in_one_process_take_turns(monkeypatch):
    """Torch's seed belongs to the process: two blocks begun at once would draw each other's initial weights."""
    record, inside, most = whole(), [], []

    def watched(*arguments, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return record

    monkeypatch.setattr(studies, "run", watched)
    threads = [threading.Thread(target=studies.run_block, args=("tiny", "quick", range(4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
