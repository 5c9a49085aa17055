"""Where a run stands: the floor by an independent route, slopes, setbacks, and what they forbid to say."""

import numpy as np
import pytest
import xarray as xr

from helpers import data, linear_vae, records, standing
from helpers.moments import Moments

LAM = np.array([4.0, 2.0, 1.0, 0.5, 0.2])
MOMENTS = Moments(np.zeros(5), np.diag(LAM), 100)


def a_record(elbo=(3.0, 5.0), rise=(0.0, 0.0), sse=None, rules=("fixed", "fixed"), sigma2=(0.5, 0.1)):
    """Two members, 50 epochs, three units; ELBOs far above any linear one unless said."""
    epochs = np.arange(-49, 1)[:, None]
    sse = np.full((50, 2), 7.0) if sse is None else sse
    return xr.Dataset(
        {
            "set_sigma2": ("member", np.array(sigma2)),
            "set_sigma2_rule": ("member", np.array(rules)),
            "set_beta": ("member", np.array(["1.0", "LinearAnnealing(epochs=5)"])),
            "diverged": ("member", np.zeros(2, np.int32)),
            "elbo": ("member", np.array(elbo)),
            "history_elbo": (("epoch", "member"), np.array(elbo) + epochs * np.array(rise)),
            "history_sse": (("epoch", "member"), sse),
            "kl_per_unit": (("member", "unit"), np.zeros((2, 3))),
        },
        {"epoch": np.arange(1, 51)},
    )


def test_the_floor_is_what_ascent_finds():
    fixed = standing.linear_floor(a_record(), LAM)
    by_ascent = [linear_vae.fit(MOMENTS, 3, s).elbo(MOMENTS) for s in (0.5, 0.1)]
    np.testing.assert_allclose(fixed, by_ascent, rtol=1e-9)
    learned = standing.linear_floor(a_record(rules=("adam", "closed form")), LAM)
    np.testing.assert_allclose(learned, linear_vae.fit(MOMENTS, 3).elbo(MOMENTS), rtol=1e-9)
    narrow = standing.linear_floor(a_record(), LAM, k=1)
    np.testing.assert_allclose(narrow[1], linear_vae.fit(MOMENTS, 1, 0.1).elbo(MOMENTS), rtol=1e-9)


def test_the_slope_is_that_of_the_end():
    history = np.concatenate([np.linspace(0, 1000, 90), 1000 + 0.25 * np.arange(10)])[:, None]
    np.testing.assert_allclose(standing.slope(history), 25.0)


def test_a_run_decides_only_what_it_is_fit_for():
    high, low = (30.0, 50.0), (-60.0, -90.0)
    assert standing.undecided(a_record(high), LAM, 1.0) == ""
    assert "below the best linear VAE" in standing.undecided(a_record((30.0, low[1])), LAM, 1.0)
    assert standing.undecided(a_record(high, rise=(0, 0.02)), LAM, 2.5) == ""
    assert "σ² = 0.1 still changes by 2 nats per 100" in standing.undecided(a_record(high, rise=(0, 0.02)), LAM, 1.5)
    assert "σ² = 0.5 still changes" in standing.undecided(a_record(high, rise=(-0.02, 0)), LAM, 1.5)
    sse = np.full((50, 2), 7.0)
    sse[20, 1] = 3.0
    assert "σ² = 0.1 fell" in standing.undecided(a_record(high, sse=sse), LAM, 1e9)
    sse[-1, 1] = np.nan
    assert standing.fell(a_record(high, sse=sse)).tolist() == [False, True]


def test_a_member_that_diverged_changes_no_other_slope_and_decides_nothing():
    history = np.arange(50.0)[:, None] * [0.25, 1.0]
    history[-3:, 1] = np.nan
    slopes = standing.slope(history)
    assert slopes[0] == 25.0 and np.isnan(slopes[1])
    assert "σ² = 0.1 still changes by nan" in standing.undecided(a_record((30.0, 50.0)), LAM, 1e9, history)
    assert "σ² = 0.5 ends nan nats below" in standing.undecided(a_record((np.nan, 50.0)), LAM, 1e9, np.ones((9, 2)))


def test_a_record_and_a_history_are_what_they_say():
    for call in (standing.linear_floor, standing.describe, lambda *two: standing.undecided(*two, 1.0)):
        with pytest.raises(ValueError, match=r"record is Moments.*; expected Dataset"):
            call(MOMENTS, LAM)
        with pytest.raises(ValueError, match=r"record lacks .*set_sigma2"):
            call(a_record().drop_vars("set_sigma2"), LAM)
        with pytest.raises(ValueError, match="eigenvalues"):
            call(a_record(), "nonsense")
    with pytest.raises(ValueError, match="record lacks history_sse"):
        standing.fell(a_record().drop_vars("history_sse"))
    with pytest.raises(ValueError, match="history has 3 columns; expected one for each of 2 members"):
        standing.undecided(a_record(), LAM, 1.0, np.ones((9, 3)))


def test_a_difference_is_a_number():
    with pytest.raises(ValueError, match="difference"):
        standing.undecided(a_record(), LAM, np.nan)
    with pytest.raises(ValueError, match="k is 6"):
        standing.linear_floor(a_record(), LAM, k=6)
    with pytest.raises(ValueError, match="at least two epochs"):
        standing.slope(np.zeros((1, 2)))


def test_the_recorded_runs_of_few_epochs_are_seen_for_what_they_are():
    record, lam = records.recorded("mnist-fixed", "laptop"), data.mnist_moments().eigenvalues
    assert standing.fell(record).tolist() == [False, False, False, True]
    text = standing.describe(record, lam)
    assert text.count("\n") == 4 and "fell and did not recover" in text.splitlines()[-1]
    assert standing.undecided(record, lam, 1e9) == "σ² = 0.001 fell and did not recover"


def test_what_stands_beside_a_verdict():
    record = a_record((30.0, -50.0))
    floors = standing.linear_floor(record, LAM)
    assert np.isnan(standing.further_gain(record)).all()
    assert standing.beside(record, LAM) == (
        f"{30 - floors[0]:+.0f}, {-50 - floors[1]:+.0f} nats from the best linear VAE"
    )
    assert "not measured" in standing.describe(record, LAM)
    measured = record.assign(further_gain=("member", [0.25, 12.0]))
    assert standing.beside(measured, LAM).endswith("; further affine units would add 0.2, 12.0")
    assert "12.0" in standing.describe(measured, LAM).splitlines()[2]
