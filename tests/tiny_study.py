"""A study that runs in no time, and its record: for the tests of the modules that run studies."""

import dataclasses
import functools
from functools import partial

import numpy as np

from helpers import experiments, vae
from helpers.ensemble import LinearAnnealing, Member
from helpers.plans import Plan, Study

MEMBERS = (
    Member(sigma2=0.01, learning_rate=0.01),
    Member(seed=1, sigma2=0.1, beta=LinearAnnealing(2)),
    Member(seed=2, sigma2_rule="adam"),
    Member(seed=3, sigma2_rule="closed form"),
)


PLAN = Plan("digits", partial(vae.mlp, n=64, hidden=(8,), k=4), MEMBERS, epochs=3, batch_size=256, snapshots=(1, 3))


FLAWED = dataclasses.replace(PLAN, members=(Member(), Member(seed=2**31), Member(seed=2)))


STUDIES = {"tiny": Study("A question", {"quick": PLAN}), "flawed": Study("Its second block fails", {"quick": FLAWED})}


@functools.cache
def whole():
    """The record of `PLAN`, undisturbed, and its run."""
    return experiments.run(PLAN, "tiny", "quick")


def assert_same_values(a, b):
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
