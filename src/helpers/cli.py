"""The command ``python -m helpers.studies``: what it takes, what it says, and how it ends. Serves chapters 08 to 11."""

import argparse
import contextlib
import math
import re
import signal
import sys
import tempfile
import threading
import warnings
from functools import partial
from pathlib import Path

from helpers import long_runs, records, studies
from helpers._validation import brief, instance, integer
from helpers.ensemble import PRECISIONS, warn_of_long_schedules
from helpers.plans import STUDIES, Study, find, own

OWN = "own"  # the study of a reader's data, which the options of a call describe
OPTIONS = ("data", "latents", "sigma2", "epochs", "hidden")


def members_from(text, count):
    """The members that a text like "a:b" names: a to b - 1. Either end may be left out.

    Parameters
    ----------
    text : str
    count : int
        Of all members; none that is named may be beyond it.

    Returns
    -------
    range

    Raises
    ------
    ValueError
        When it is no such text, or names a member that there is not, or none.
    """
    integer("count", count, 1, 2**31)
    found = re.fullmatch(r"([0-9]{0,9}):([0-9]{0,9})", instance("members", text, str))
    start, stop = (int(found[1] or 0), int(found[2] or count)) if found else (0, 0)
    if not start < stop <= count:
        raise ValueError(f"members is {text!r}; expected a range like 0:{count}, within the {count} members there are")
    return range(start, stop)


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
    shared.add_argument("study", help=f"its name, as `list` prints it, or {OWN} for your own data")
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
    data = running.add_argument_group(f"your own data, `run {OWN}`; `resume {OWN}` wants the same")
    data.add_argument("--data", metavar="FILE", help="a .npy file, (N, n); bytes are divided by 255")
    data.add_argument("--latents", type=int, metavar="K")
    data.add_argument("--sigma2", type=float, nargs="+", metavar="S", help="noise variances, a VAE each (default: 0.1)")
    data.add_argument("--epochs", type=int, metavar="E", help="(default: 100)")
    data.add_argument(
        "--hidden", type=int, nargs="*", metavar="WIDTH", help="hidden layers (default: 128); none: linear"
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
    """The command; returns its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        By default those that the process was started with.

    Returns
    -------
    int
        0, or 1 after an error, whose message stands on the standard error.

    Raises
    ------
    ValueError
        When they are no list of texts.
    """
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
        if options.study != OWN and any(getattr(options, name) is not None for name in OPTIONS):
            parser.error(f"--{', --'.join(OPTIONS)} go with the study {OWN}")
        if options.study == OWN and (options.data is None or options.latents is None):
            parser.error(f"the study {OWN} wants --data FILE and --latents K")
        if options.study == OWN and spread:
            parser.error(f"the study {OWN} runs in one process; it goes with neither --processes nor --scheduler")
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
    print(f"{OWN}: Your own data, with --data FILE --latents K")
    return 0


@contextlib.contextmanager
def _own(options):
    """The study of a reader's data, while this call lasts."""
    given = {name: getattr(options, name) for name in OPTIONS if getattr(options, name) is not None}
    STUDIES[OWN] = Study("Your own data", {options.profile: own(**given)})
    try:
        yield
    finally:
        del STUDIES[OWN]


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
    if options.study != OWN:
        find(options.study, options.profile)
    found = list(studies.recorded_in(options.study, options.profile, options.out).values())
    record = records.merge(found) if found else records.recorded(options.study, options.profile)
    if record is None:
        raise ValueError(f"there is no record of {options.study}, profile {options.profile}, in {options.out}")
    for part in records.parts(record):
        shown = ("members", "device", "precision", "seconds", "commit", "date")
        print(records.printable(", ".join(f"{key} {part[key]}" for key in shown)))
    print(records.table(record))
    return 0


def _writable(out):
    """Make the folder --out, or raise ``OSError`` where it cannot be written: now, and not after the training."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OSError(f"--out {out} is no folder that can be written: {error.strerror}") from error


def _run(options):
    """The commands run and resume; the exit code."""
    with _own(options) if options.study == OWN else contextlib.nullcontext():
        return _run_study(options)


def _run_study(options):
    study, profile, out = options.study, options.profile, options.out
    plan = find(study, profile)
    members = members_from(options.members, len(plan.members))
    size = (options.block or 1) if options.processes or options.scheduler else len(members)
    blocks = [members[i : i + size] for i in range(0, len(members), size)]
    blocks = studies.pending(study, profile, blocks, out, options.command == "resume")
    _writable(out)
    if not _execute(plan, blocks, options):
        return 3
    if (whole := studies.join(study, profile, out)) is not None:
        print(f"all {len(plan.members)} members: {whole}")
    return 0


def _execute(plan, blocks, options):
    """Train and record the blocks, here or on a cluster; whether all came to their end."""
    study, profile, out, where = options.study, options.profile, options.out, options.scheduler

    def save(block, record):
        path = out / records.file_name(study, profile, block)
        records.save(record, path)
        print(f"{path}\n{records.table(record)}", flush=True)

    if options.processes or where:
        with contextlib.ExitStack() as stack:
            if options.processes:
                from distributed import LocalCluster

                cluster = LocalCluster(n_workers=options.processes, threads_per_worker=1, dashboard_address=None)
                where = stack.enter_context(cluster).scheduler_address
            for block in blocks:  # the workers' own words may be far away
                warn_of_long_schedules([plan.members[m] for m in block], plan.epochs)
            studies.run_distributed(
                study, profile, blocks, where, save, options.device, out.absolute(), options.precision
            )
        return True
    for block in blocks:
        path = out / records.file_name(study, profile, block, "safetensors")
        record, result = studies.run(study, profile, block, options.device, path, options.budget, options.precision)
        if record is None:
            at = f"epoch {result.epoch} of {plan.epochs}"
            print(f"stopped ({result.stopped}) after {at}; `resume` goes on", file=sys.stderr)
            return False
        save(block, record)
    return True


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
