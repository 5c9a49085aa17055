"""An epoch in lock-step: sums, precision, and what becomes of a member that diverges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training import DIGITS, MIXED, NETWORK, NoFloat64, assert_close, assert_same_bits, exploding, networks, run, state

from helpers import lockstep
from helpers.ensemble import Member, Run

pytestmark = [
    pytest.mark.usefixtures("no_bars"),
    pytest.mark.filterwarnings("ignore:beta of members"),  # runs cut short on purpose
]


def test_sums_in_two_parts_lose_nothing_that_matters(monkeypatch):
    values = np.random.default_rng(0).standard_normal((20_000, 3)).astype(np.float32) * np.float32([1, 1e4, 1e-3])
    values[::2] += np.float32(1e4)
    exact = values.sum(axis=0, dtype=np.longdouble)
    monkeypatch.setattr(lockstep, "has_float64", lambda device: False)
    sums, plain = lockstep._Sums(3, device=torch.device("cpu")), torch.zeros(3)
    for row in torch.tensor(values):
        sums.add_(row)
        plain += row
    assert sums.total().dtype == torch.float64
    np.testing.assert_allclose(sums.total(), exact.astype(float), rtol=1e-11)
    assert np.abs(plain.numpy() / exact.astype(float) - 1).max() > 1e-7  # a float32 alone does lose digits
    sums.zero_()
    assert (sums.total() == 0).all()


def test_products_are_in_the_precision_asked_for_and_only_there(at_each_step):
    met, before = [], torch.get_float32_matmul_precision()
    at_each_step(lambda engine: met.append(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("medium")
    try:
        for precision in ("float32", "tf32", "bfloat16"):
            run([Member()], 1, batch_size=600, precision=precision)
        assert met == ["highest", "high", "highest"] and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("bad", "harmless", "epoch"),
    [
        (Member(seed=1, beta=exploding), Member(seed=1), 3),
        (Member(seed=1, beta=lambda elapsed: 1.0 if elapsed < 2 else 1e30), Member(seed=1), 3),
        (Member(seed=1, learning_rate=1e30), Member(seed=1), 1),
    ],
)
def test_divergence_is_a_members_own(bad, harmless, epoch, tmp_path):
    path = tmp_path / "run.safetensors"
    run([MIXED[0], bad, MIXED[2]], 3, path=path)
    found = run([MIXED[0], bad, MIXED[2]], 4, snapshots=[4], path=path)
    expected = run([MIXED[0], harmless, MIXED[2]], 4, snapshots=[4])
    assert found.diverged.tolist() == [0, epoch, 0]
    for others in (slice(0, 1), slice(2, 3)):
        assert_same_bits(state(found, others), state(expected, others))
    for name, values in found.history.items():
        assert np.isnan(values[epoch - 1 :, 1]).all()
        np.testing.assert_array_equal(values[: epoch - 1, 1], expected.history[name][: epoch - 1, 1])
    if epoch > 1:
        last_finite = state(run([MIXED[0], harmless, MIXED[2]], epoch - 1))
    else:
        last_finite = {f"parameter/{name}": p for name, p in initial(harmless)}
    for name, p in found.stack.parameters.items():
        kept = last_finite[f"parameter/{name}"]
        np.testing.assert_array_equal(p[1].detach(), kept[1] if epoch > 1 else kept)
    assert all(np.isfinite(values).all() for name, values in state(found).items() if "/" in name)


def initial(member):
    stack = Run.start(NETWORK, [member], torch.tensor(DIGITS[:2]), 1, 1).stack
    return [(name, p[0].detach().numpy()) for name, p in stack.parameters.items()]


def test_bfloat16_products_leave_all_else_in_float32():
    members = [replace(member, learning_rate=3e-3) for member in MIXED[:3]]
    exact, found = (run(members, 6, precision=precision) for precision in ("float32", "bfloat16"))
    for result in (exact, found):
        assert all(values.dtype == np.float32 for _, _, values in networks(result))
    assert (np.diff(found.history["elbo"], axis=0) > 0).all()
    np.testing.assert_allclose(found.history["elbo"][-1], exact.history["elbo"][-1], rtol=0.02, atol=0.2)
    assert (found.history["elbo"] != exact.history["elbo"]).all()


def test_no_float64_lies_on_a_device_that_knows_none(monkeypatch):
    """As any other run does, to the digits of float32; the sums of an epoch to more."""
    options = {"snapshots": [2], "batch_size": 50}
    expected = run(MIXED[:4], 2, **options)
    with NoFloat64(monkeypatch):
        with pytest.raises(TypeError, match="knows no float64"):
            torch.zeros(1).double()
        found = run(MIXED[:4], 2, **options)
    assert_close(state(found), state(expected), 1e-6)
    assert found.history["elbo"].dtype == np.float64
