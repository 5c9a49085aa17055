"""Train in processes that are killed one after the other, each resuming what the one before left: for test_train."""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch._dynamo  # noqa: F401  Adam loads it, which takes seconds; once before the forks is enough

from helpers import vae
from helpers.ensemble import LinearAnnealing, Member
from helpers.train import train

EPOCHS, STRIDE = 45, 4
MEMBERS = [
    Member(seed=1, learning_rate=3e-3, sigma2=0.2, sigma2_rule="adam", beta=LinearAnnealing(EPOCHS / 2)),
    Member(seed=2, sigma2=0.1, sigma2_rule="closed form", beta=0.5),
]


def run(path, epochs=EPOCHS, **options):
    x = np.random.default_rng(0).integers(0, 256, (400, 20), np.uint8)
    snapshots = range(1, epochs + 1, 9)
    network = partial(vae.mlp, n=20, hidden=(16,), k=3)
    return train(network, x, MEMBERS, epochs, 40, snapshots=snapshots, path=path, checkpoint_seconds=0, **options)


def main(path, kills, seed):
    """Kill -9 that many times, by turns at a random moment and within a write, and let the last go on to the end.

    A new process writes at least one checkpoint before it dies, and stops after STRIDE epochs at the latest, so that
    neither a slow machine nor a fast one makes the run end too early.
    """
    delays = random.Random(seed)

    def in_a_write():
        return any(path.parent.glob(f".{path.name}.*.part"))

    for attempt in range(kills):
        before = written(path)
        child = os.fork()
        if child == 0:
            run(path, STRIDE * (attempt + 1))
            signal.pause()
        while written(path) == before:
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit("training failed")
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.06))
        deadline = time.monotonic() + 1
        while attempt % 2 and not in_a_write() and time.monotonic() < deadline:
            pass
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(f"signal {os.WTERMSIG(status)}", "in a write" if in_a_write() else "")
    run(path)


def written(path):
    """Changes with every checkpoint, as each is a new file."""
    return path.exists() and (path.stat().st_ino, path.stat().st_mtime_ns)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
