"""Running the paper's experiments: from a notebook, from the command line, on a cluster. Serves chapters 08 to 11.

What the experiments are stands in `designs`; the command explains itself: ``python -m helpers.studies --help``.
"""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # The imports take seconds, and an interrupt in them is to leave no traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import contextlib
import math
import re
import tempfile
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    missing = "helpers.studies needs torch, of the extra [deep]: pip install 'posterior-collapse-book[deep]'"
    if __name__ == "__main__":
        sys.exit(f"error: {missing}")
    raise ModuleNotFoundError(missing, name="torch") from error

from helpers import experiments, long_runs, records
from helpers._validation import brief, instance, integer, one_of, path_of, record_with, words
from helpers.designs import STUDIES, find
from helpers.lockstep import PRECISIONS
from helpers.train import warn_of_long_schedules
from helpers.vae import find_device


def members_from(text, count):
    """The members that "a:b" names, a range: a to b - 1, of 0 to `count` - 1; either end may be left out."""
    integer("count", count, 1, 2**31)
    found = re.fullmatch(r"([0-9]{0,9}):([0-9]{0,9})", instance("members", text, str))
    start, stop = (int(found[1] or 0), int(found[2] or count)) if found else (0, 0)
    if not start < stop <= count:
        raise ValueError(f"members is {text!r}; expected a range like 0:{count}, within the {count} members there are")
    return range(start, stop)


def run(study, profile="quick", members=None, device="cpu", path=None, budget=None, precision=None):
    """`experiments.run` for a study by name, its record (None when it stopped before the end) and its `train.Run`.

    `precision`, where it is given, replaces the plan's.
    """
    plan = find(study, profile)
    plan = replace(plan, precision=plan.precision if precision is None else precision)
    return experiments.run(plan, study, profile, members, device, path, budget)


def obtain(study, profile="quick", device=None, rerun=False):
    """The record of a study: the one that travels with the package, or else of a run made here and now.

    Parameters
    ----------
    study, profile : str
    device : str, optional
        To train on; by default a GPU where there is one.
    rerun : bool
        Train even where there is a record.
    """
    instance("rerun", rerun, bool)
    if device is not None:
        find_device(device)
    record = None if rerun else records.recorded(study, profile)
    if record is None:
        record, result = run(study, profile, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if record is None:
            raise KeyboardInterrupt(f"stopped after epoch {result.epoch}")
    return record


_one_block = threading.Lock()


def run_block(study, profile, members, device="cpu", path=None, precision=None):
    """The same as one task of many: the record's bytes, which may come from another machine."""
    with _one_block:  # torch's seed belongs to the process, and a worker may have several threads
        return records.to_bytes(run(study, profile, members, device, path, precision=precision)[0])


def run_distributed(study, profile, blocks, address, save, device="cpu", folder=None, precision=None):
    """Run blocks of members as tasks of a dask.distributed scheduler; a task whose worker dies runs elsewhere.

    Parameters
    ----------
    study, profile : str
    blocks : list of range
    address : str
        Of the scheduler. Its workers need this package, and the data where it is not bundled.
    save : callable
        Called with each block and its record, as they come.
    device : str
    folder : path, optional
        For checkpoints, where the workers share a file system; a block begun by a worker that died is then resumed.
    precision : str, optional
        In place of the plan's.

    Raises
    ------
    RuntimeError
        When blocks failed, after all others were saved; the message says which and why.
    """
    count = len(find(study, profile).members)
    if not isinstance(blocks, (list, tuple)) or not blocks:
        raise ValueError(f"blocks is {brief(blocks)}; expected a list of ranges of members")
    for block in blocks:
        if not (isinstance(block, range) and block.step == 1 and 0 <= block.start < block.stop <= count):
            raise ValueError(f"blocks has {brief(block)}; expected ranges of step 1 within {range(count)}")
    for name, value in (("address", address), ("device", device)):
        words(name, value)
    if device.startswith("cpu"):
        find_device(device)  # of others there may be some where the workers are
    if not callable(save):
        raise ValueError(f"save is {brief(save)}; expected a function of a block and its record")
    if folder is not None:
        path_of("folder", folder)
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    from distributed import Client, as_completed

    failures = []
    with Client(address) as client:
        tasks = {}
        for block in blocks:
            path = None if folder is None else Path(folder) / _name(study, profile, block, "safetensors")
            task = client.submit(run_block, study, profile, block, device, path, precision, pure=False)
            tasks[task] = block
        for task in as_completed(tasks):
            block = tasks[task]
            try:
                save(block, records.from_bytes(task.result()))
            except Exception as error:  # of whatever kind, the other blocks are not to suffer for it
                failures.append(f"members {block.start}:{block.stop}: {error}")
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(blocks)} blocks failed: {'; '.join(failures)}")


def _name(study, profile, members, suffix):
    return f"{study}-{profile}-{members.start}-{members.stop}.{suffix}"


def table(record):
    """A record as text: what each member was and what became of it."""
    columns = ("set_sigma2", "set_sigma2_rule", "set_beta", "set_learning_rate", "set_seed")
    numbers = ("elbo", "tuned_elbo", "sse", "kl", "sigma2", "active_units")
    record_with(record, "member", "diverged", *columns, *numbers)
    names = [name.removeprefix("set_") for name in columns] + list(numbers)
    rows = [["member", *names]]
    for m, member in enumerate(record.member.values):
        set_values = [records.printable(str(record[name].values[m])) for name in columns]
        values = [f"{record[name].values[m]:.4g}" for name in numbers]
        note = f"  diverged in epoch {record.diverged.values[m]}" if record.diverged.values[m] else ""
        rows.append([str(member), *set_values, *values[:-1], values[-1] + note])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m helpers.studies",
        description="Run the paper's experiments and record them.",
        epilog="Exit codes: 0 done; 1 failed, with the reason; 2 wrong usage; 3 stopped early, at the end of an epoch "
        "(by --budget, Ctrl-C, SIGTERM or SIGHUP), and resume goes on; 130, 143 or 129 stopped at once by a signal.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, does, parents=()):
        commands.add_parser(name, parents=parents, help=does, description=does, epilog=parser.epilog)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("study", help="its name, as `list` prints it")
    shared.add_argument("--profile", default="quick", help="quick, laptop or paper (default: quick)")
    shared.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder of checkpoints and records (default: runs)"
    )
    running = argparse.ArgumentParser(add_help=False, parents=[shared])
    running.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, xpu, ... (default: cpu)")
    running.add_argument("--precision", choices=PRECISIONS, help="of the products (default: the plan's)")
    running.add_argument("--members", default=":", metavar="A:B", help="members A to B - 1 alone (default: all)")
    running.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="stop the training at the end of an epoch, before it takes longer; a budget of 0 trains one epoch",
    )
    where = running.add_mutually_exclusive_group()
    where.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="run blocks of members in N processes; this and --scheduler need the package distributed",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run blocks of members on the dask.distributed cluster of this scheduler; its workers need this package, "
        "the data, one thread each, and --out on a file system they share",
    )
    running.add_argument(
        "--block",
        type=int,
        metavar="M",
        help="with --processes or --scheduler: members a block, trained in lock-step (default: 1)",
    )
    queue = argparse.ArgumentParser(add_help=False)
    queue.add_argument("list", type=Path, help="a file of lines `study profile A:B [precision]`, in order")
    queue.add_argument("--out", type=Path, default=Path("runs"), help="folder of checkpoints and records")
    queue.add_argument("--processes", type=int, default=1, metavar="N", help="so many at a time (default: 1)")
    queue.add_argument("--device", default="cpu", help="(default: cpu)")
    queue.add_argument("--nice", type=int, default=19, help="their priority, 0 as this command's to 19, the lowest")
    queue.add_argument("--show", action="store_true", help="only say what is done, what is left and how long it takes")
    command("list", "Print what studies there are, with their profiles.")
    command("run", "Train, evaluate and record members of a study.", [running])
    command("resume", "Go on with a run that was stopped or killed; what it has recorded is left alone.", [running])
    command("queue", "Work through a list of members, at a low priority; again, it goes on.", [queue])
    command("show", "Print the record of a study, from --out or, where it is not there, from the package.", [shared])
    return parser


def main(arguments=None):
    """The command; returns its exit code."""
    if arguments is not None and not all(
        isinstance(one, str) for one in instance("arguments", arguments, (list, tuple))
    ):
        raise ValueError(f"arguments is {brief(arguments)}; expected a list of text")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command in ("run", "resume"):
        spread = options.processes is not None or options.scheduler
        if spread and options.budget is not None:
            parser.error("--budget is for one process; it goes with neither --processes nor --scheduler")
        if options.block is not None and not spread:
            parser.error("--block goes with --processes or --scheduler; without these all members are one block")
        if any(number is not None and number < 1 for number in (options.block, options.processes)):
            parser.error("--block and --processes are at least 1")
        if options.budget is not None and not 0 <= options.budget < math.inf:
            parser.error(f"--budget is {options.budget:g}; it is a number of seconds from 0")
        if options.budget == 0:
            print("a budget of 0 trains one epoch", file=sys.stderr)
    with _signals(), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            return {"list": _list, "show": _show, "queue": _queue}.get(options.command, _run)(options)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as stop:
            print("interrupted; `resume` goes on from the last checkpoint", file=sys.stderr)
            return 128 + (stop.args[0] if stop.args and isinstance(stop.args[0], int) else signal.SIGINT)


@contextlib.contextmanager
def _signals():
    """SIGTERM and SIGHUP interrupt as Ctrl-C does, with their number; what is ignored stays so, as under nohup."""

    def interrupt(number, frame):
        raise KeyboardInterrupt(int(number))

    before = {}
    for name in ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list(options):
    for name, study in STUDIES.items():
        print(f"{name}: {study.title}")
        for profile, plan in study.plans.items():
            if callable(plan):
                print(f"    {profile}: follows from other records")
            else:
                print(f"    {profile}: {len(plan.members)} members, {plan.epochs} epochs of {plan.data}")
    return 0


def _queue(options):
    entries = long_runs.read(options.list)
    if not options.show:
        _writable(options.out)
        print(long_runs.report(entries, options.out, options.processes), flush=True)
        settings = (options.processes, options.device, options.nice, partial(print, flush=True))
        long_runs.work(entries, options.out, *settings)
    print(long_runs.report(entries, options.out, options.processes))
    return 0


def _show(options):
    find(options.study, options.profile)
    found = list(_recorded(options).values())
    record = records.merge(found) if found else records.recorded(options.study, options.profile)
    if record is None:
        raise ValueError(f"there is no record of {options.study}, profile {options.profile}, in {options.out}")
    for part in records.parts(record):
        shown = ("members", "device", "precision", "seconds", "commit", "date")
        print(records.printable(", ".join(f"{key} {part[key]}" for key in shown)))
    print(table(record))
    return 0


def _recorded(options):
    """The records in --out by their paths: those of blocks of members or else the whole.

    A record whose own study, profile or members are not those of its name raises ``ValueError``.
    """
    study, profile = options.study, options.profile
    whole = f"{study}-{profile}"
    paths = sorted(options.out.glob(f"{whole}-*-*.nc")) or sorted(options.out.glob(f"{whole}.nc"))
    found = {}
    for path in paths:
        record = found[path] = records.named(records.load(path), path, study, profile)
        members = record.member.values.tolist()
        name = _name(study, profile, range(members[0], members[-1] + 1), "nc")
        if path.name not in (f"{whole}.nc", name) or len(members) != members[-1] + 1 - members[0]:
            raise ValueError(f"{path} is a record of members {members}; expected those of its name")
    return found


def _writable(out):
    """Make the folder --out, or raise ``OSError`` where it cannot be written: now, and not after the training."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OSError(f"--out {out} is no folder that can be written: {error.strerror}") from error


def _run(options):
    study, profile, out = options.study, options.profile, options.out
    plan = find(study, profile)
    members = members_from(options.members, len(plan.members))
    spread = options.processes or options.scheduler
    size = (options.block or 1) if spread else len(members)
    blocks = [members[i : i + size] for i in range(0, len(members), size)]

    checkpoints = [out / _name(study, profile, block, "safetensors") for block in blocks]
    begun = [path for path in checkpoints if path.exists()]
    owner = {m: path for path, record in _recorded(options).items() for m in record.member.values.tolist()}
    done = [owner[m] for m in members if m in owner]
    these = f"members {members.start}:{members.stop}"
    if options.command == "run" and (begun or done):
        raise ValueError(f"{these} were begun before: {(begun + done)[0]} exists. Resume, or remove it to start anew")
    if options.command == "resume" and not (begun or done):
        raise ValueError(f"{these} cannot be resumed: {out} has no checkpoint like {checkpoints[0].name}. Run them")
    blocks = [block for block in blocks if not owner.keys() >= set(block)]
    if partly := [m for block in blocks for m in block if m in owner]:
        raise ValueError(f"{these} are partly done: {owner[partly[0]]} has {partly}. Choose others, or remove it")

    _writable(out)

    def save(block, record):
        path = out / _name(study, profile, block, "nc")
        records.save(record, path)
        print(f"{path}\n{table(record)}", flush=True)

    if spread:
        with contextlib.ExitStack() as stack:
            if options.processes:
                from distributed import LocalCluster

                cluster = LocalCluster(n_workers=options.processes, threads_per_worker=1, dashboard_address=None)
                spread = stack.enter_context(cluster).scheduler_address
            for block in blocks:  # the workers' own words may be far away
                warn_of_long_schedules([plan.members[m] for m in block], plan.epochs)
            run_distributed(study, profile, blocks, spread, save, options.device, out.absolute(), options.precision)
    elif blocks:
        where = (options.device, checkpoints[0], options.budget, options.precision)
        record, result = run(study, profile, members, *where)
        if record is None:
            at = f"epoch {result.epoch} of {plan.epochs}"
            print(f"stopped ({result.stopped}) after {at}; `resume` goes on", file=sys.stderr)
            return 3
        save(members, record)
    found = _recorded(options)
    if sum(record.member.size for record in found.values()) == len(plan.members):
        whole = out / f"{study}-{profile}.nc"
        records.save(records.merge(list(found.values())), whole)
        print(f"all {len(plan.members)} members: {whole}")
    return 0


if __name__ == "__main__":
    from helpers.studies import main  # by this name, workers of a cluster find its functions

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
