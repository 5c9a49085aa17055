"""The order of the verdicts, where several hold at once; what each is made of is in test_diagnose."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import codes, diagnose
from helpers.forecast import forecast
from helpers.moments import Moments
from helpers.verdict import VERDICTS, at_collapse, judged

X = np.random.default_rng(0).standard_normal((200, 3))
MODEL = (lambda x: (x[:, :2] / 2, 0 * x[:, :2] - 1)), (lambda z: np.column_stack([z, z[:, 0]]))
BASE = diagnose.of_codes(codes.measure(MODEL, X), "0.5*sum(se) + max(kl, 0.01)")
STABLE = replace(BASE.forecast, collapse_is_stable=True)
HOLDS = {  # what makes each hold, in any order
    "asked for": {"forecast": STABLE, "kl": 0.01},
    "worse than linear": {"gap": -1.0},
    "another unit would pay": {"further_gain": 1.0, "further_units": 2},
    "parked at free bits": {"parked": 2},
    "memorising": {"held_out_gap": -1.0, "held_out_error": 0.1},
    "measured only": {"J": None},
}
NONE = {"gap": 0.5, "J_error": 0.01, "further_gain": 0.0, "parked": 0, "held_out_gap": None, "units_above": 2}


def test_each_verdict_gives_way_to_those_before_it():
    names = list(HOLDS)
    assert [name for name in VERDICTS if name in names] == names
    for i, name in enumerate(names):
        changes = NONE.copy()
        for later in reversed(names[i:]):
            changes |= HOLDS[later]
        verdict, reason = judged(replace(BASE, **changes))
        assert verdict == name and reason.endswith(".") and len(reason) < 300
    assert judged(replace(BASE, **NONE))[0] == "settled"


@pytest.mark.parametrize("name, value", [("gap", -0.5), ("further_gain", 0.5)])
def test_nothing_is_said_within_the_error_of_the_draws(name, value):
    found = replace(BASE, **NONE | {"further_units": 1, name: value})
    assert judged(found)[0] == ("worse than linear" if name == "gap" else "another unit would pay")
    assert judged(replace(found, J_error=0.2))[0] == "settled"


def test_at_the_threshold_collapse_is_not_called_a_maximum():
    for theta, maximum in ((1.0, False), (1.1, True)):
        predicted = forecast([1.0, 0.5, 0.5], 2, f"0.5*sum(se) + {theta}*kl")
        verdict, reason = judged(replace(BASE, **NONE | {"forecast": predicted, "kl": 0.01}))
        assert verdict == "asked for" and ("local maximum" in reason) == maximum
        assert ("no linear VAE does better" in reason) == (not maximum)
    x = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(float)  # one feature: its score eigenvalue is 1
    scores = replace(forecast(Moments.from_samples(x), 1, "sum(bce) + kl"), lambda_1=1.0)
    assert "equals beta = 1" in at_collapse(scores) and "linear" not in at_collapse(scores)


def test_the_reason_tells_idle_units_from_too_few():
    found = replace(BASE, **NONE | HOLDS["another unit would pay"])
    assert "too few latents" in judged(found)[1]
    assert "1 of its 2 units lie idle" in judged(replace(found, units_above=1))[1]
