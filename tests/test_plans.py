"""The paper's experiments as data: their sizes, the rehearsal of the paper's commands, the choice of learning rates."""

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from helpers import data, designs, experiments, pictures, records, studies, vae
from helpers.train import LinearAnnealing

ROOT = Path(__file__).resolve().parent.parent
PLANS = [(name, profile) for name, study in designs.STUDIES.items() for profile, plan in study.plans.items()]
PLANS = [(name, profile) for name, profile in PLANS if not callable(designs.STUDIES[name].plans[profile])]


@pytest.fixture
def tiny(monkeypatch):
    """The paper's plans with the smallest networks, data and number of epochs, and otherwise as they are."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    pixels = np.random.default_rng(0).integers(0, 256, (700, 784), np.uint8)
    monkeypatch.setitem(experiments.DATA, "mnist", lambda: pixels)
    monkeypatch.setitem(
        experiments.DATA, "mnist-dequantised", lambda: experiments._dequantised(pixels.astype(np.float32), 256)
    )
    faces = np.random.default_rng(1).integers(0, 256, (300, 64, 64, 3), np.uint8)
    monkeypatch.setitem(experiments.DATA, "faces", lambda: faces)
    for study in designs.STUDIES.values():
        plan = study.plans.get("paper")
        if plan is not None and not callable(plan):
            sizes = {"channels": (3, 2, 2), "dense": 4} if plan.data == "faces" else {"hidden": (8,)}
            network = partial(plan.network, **sizes, k=3)
            small = replace(plan, network=network, epochs=2, snapshots=plan.snapshots and (1,))
            monkeypatch.setitem(study.plans, "paper", small)


def test_the_grid_has_the_paper_s_forty_members():
    assert sum(len(designs.find(study, "paper").members) for study in designs.GRID) == 40
    for study in designs.GRID:
        plan = designs.find(study, "paper")
        assert (plan.epochs, plan.batch_size, plan.data) == (1000, 128, "mnist")
    network = designs.find("mnist-fixed", "paper").network()
    widths = [layer.in_features for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths == [784, 1024, 512, 200, 512, 1024]  # 784-1024-512-k-512-1024-784 (Appendix D)
    annealed = designs.find("mnist-annealed", "paper")
    assert {member.beta for member in annealed.members} == {LinearAnnealing(100)} and annealed.snapshots == (80,)
    assert {member.sigma2 for member in annealed.members} == {0.1, 0.05, 0.01, 0.001}
    assert {member.sigma2_rule for member in designs.find("mnist-learned", "paper").members} == {"adam"}
    assert sum(len(designs.find(study, "laptop").members) for study in designs.GRID) == 10


@pytest.mark.parametrize("study", sorted({name for name, profile in PLANS if profile == "paper"}))
def test_rehearsal_of_the_paper_s_command(study, tiny, tmp_path, capsys):
    command = [study, "--profile", "paper", "--device", "cpu", "--out", str(tmp_path)]
    assert studies.main(["run", *command, "--members", "1:3", "--budget", "540"]) == 0
    assert studies.main(["show", study, "--profile", "paper", "--out", str(tmp_path)]) == 0
    record = records.load(tmp_path / f"{study}-paper-1-3.nc")
    assert record.member.values.tolist() == [1, 2] and np.isfinite(record.elbo).all()
    assert records.parts(record)[0]["settings"]["epochs"] == 2
    assert "error" not in capsys.readouterr().err


def test_seeds_follow_the_best_learning_rates(tiny, tmp_path, monkeypatch):
    for study in designs.GRID:
        assert studies.main(["run", study, "--profile", "paper", "--out", str(tmp_path)]) == 0
    with pytest.raises(ValueError, match="mnist-seeds follows mnist-fixed, profile paper, which has no record yet"):
        designs.find("mnist-seeds", "paper")
    found = {study: records.load(tmp_path / f"{study}-paper.nc") for study in designs.GRID}
    monkeypatch.setattr(records, "recorded", lambda study, profile: found[study])
    plan = designs.find("mnist-seeds", "paper")
    assert len(plan.members) == 30 and {member.seed for member in plan.members} == {1, 2, 3}
    at_smallest = found["mnist-fixed"].elbo.values[-4:]  # the four learning rates at sigma2 = 0.001
    members = [member for member in plan.members if member.sigma2 == 0.001 and member.beta == 1.0]
    assert {member.learning_rate for member in members} == {designs.RATES[int(at_smallest.argmax())]}


def test_faces_are_trained_longer_at_the_best_learning_rates(tiny, tmp_path, monkeypatch):
    for study in ("faces-learned", "faces-fixed"):
        with pytest.raises(ValueError, match=f"{study}-longer follows {study}, profile paper, which has no record yet"):
            designs.find(f"{study}-longer", "paper")
        assert studies.main(["run", study, "--profile", "paper", "--out", str(tmp_path)]) == 0
    found = {study: records.load(tmp_path / f"{study}-paper.nc") for study in ("faces-learned", "faces-fixed")}
    monkeypatch.setattr(records, "recorded", lambda study, profile: found[study])
    learned, fixed = (designs.find(f"{study}-longer", "paper") for study in found)
    assert [(len(plan.members), plan.epochs, plan.snapshots) for plan in (learned, fixed)] == [
        (4, 100, (27,)),
        (8, 100, (27,)),
    ]
    assert {member.beta for member in learned.members} == {1.0, LinearAnnealing(33)}
    assert {member.sigma2 for member in fixed.members} == set(designs.SIGMA2)
    best = found["faces-learned"].elbo.values[:3].argmax()  # without annealing, the three learning rates
    assert {m.learning_rate for m in learned.members if m.beta == 1.0} == {designs.FACE_RATES[best]}


def test_quick_study_of_faces_end_to_end(tmp_path, monkeypatch, capsys):
    """On patches, all of it but the number of epochs; the chapter runs it whole."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    plan = designs.find("faces-learned", "quick")
    monkeypatch.setitem(designs.STUDIES["faces-learned"].plans, "quick", replace(plan, epochs=2, snapshots=(1,)))
    assert studies.main(["run", "faces-learned", "--out", str(tmp_path)]) == 0
    record = records.load(tmp_path / "faces-learned-quick.nc")
    assert record["count"].values.tolist() == [512, 512] and record.sizes["unit"] == plan.network.keywords["k"]
    assert record.reconstructed.shape == (2, 8, 64, 64, 3) and "original" not in record
    assert record.plane.shape == (2, 5, 5, 64, 64, 3)
    found, images = (
        x / 255.0 for x in (pictures.from_record(record.reconstructed), data.patches(64, 512)[list(plan.pictures)])
    )
    distance = ((found[:, :, None] - images) ** 2).sum(axis=(3, 4, 5))
    np.testing.assert_allclose(record.distance, distance, rtol=0.01)  # of pictures rounded to 256 levels
    corners = pictures.from_record(record.plane.values[:, [0, 0, -1], [0, -1, 0]])
    np.testing.assert_allclose(corners, pictures.from_record(record.reconstructed[:, :3]), atol=1)  # a level
    # Blurred as yet, and no longer grey: the second epoch is nearer to the images than the first.
    assert (np.diff(record.history_sse, axis=0) < 0).all()
    np.testing.assert_allclose(record.sigma2, record.history_sse[-1] / (3 * 64**2), rtol=1e-5)
    assert "faces-learned-quick.nc" in capsys.readouterr().out


def test_best_ignores_members_without_an_elbo():
    table = {
        "set_sigma2": ("member", [0.1, 0.1, 0.1, 0.01, 0.01]),
        "set_sigma2_rule": ("member", ["fixed"] * 5),
        "set_beta": ("member", ["1.0"] * 5),
        "elbo": ("member", [np.nan, 1.0, 2.0, 5.0, np.nan]),
    }
    assert designs.best(xr.Dataset(table)) == [2, 3]


def test_annealed_is_whose_beta_rose():
    """By the numbers: of schedules of one's own as well, and of old records."""
    nan, texts = np.nan, ["1.0", "LinearAnnealing(epochs=4)", "rise, sha256 12", "fall", "LinearAnnealing(epochs=0.5)"]
    beta = [
        [1, 1, 1],
        [0.2, 0.5, 0.7],
        [0.1, 0.1, 0.9],
        [2, 1, 1],
        [1, 1, 1],
        [nan, nan, nan],
        [nan] * 3,
        [0.1, 0.4, nan],
    ]
    texts += ["LinearAnnealing(epochs=4)", "1.0", "rise"]
    table = {"set_beta": ("member", texts), "history_beta": (("epoch", "member"), np.transpose(beta))}
    assert designs.is_annealed(xr.Dataset(table)).tolist() == [False, True, True, False, True, True, False, True]
    without = designs.is_annealed(xr.Dataset({"set_beta": table["set_beta"]}))
    assert without.tolist() == [False, True, False, False, True, True, False, False]


def test_the_packages_records_say_who_was_annealed():
    for study, expected in (
        ("mnist-fixed", [False] * 4),
        ("mnist-annealed", [True] * 4),
        ("mnist-learned", [False, True]),
    ):
        assert designs.is_annealed(records.recorded(study, "laptop")).tolist() == expected


@pytest.mark.parametrize(
    ("study", "profile", "message"),
    [("mnist", "quick", "study is 'mnist'; expected one of demo, mnist-fixed"), ("demo", "paper", "demo has quick")],
)
def test_what_there_is_not(study, profile, message):
    with pytest.raises(ValueError, match=message):
        designs.find(study, profile)


def test_dequantised_pixels_are_a_density_in_the_unit_interval():
    x = experiments.DATA["digits-dequantised"]()
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() < 1
    whole = np.floor(x * 17)
    np.testing.assert_array_equal(whole, np.rint(experiments.data.digits() * 16))
    assert abs((x * 17 - whole).mean() - 0.5) < 0.01


def test_largest_and_label(tiny, tmp_path, monkeypatch):
    record, _ = studies.run("mnist-fixed", "paper", range(2))
    there = {"laptop": record}
    monkeypatch.setattr(records, "recorded", lambda study, profile: there.get(profile))
    assert records.largest("mnist-fixed") is record
    there["paper"] = record.copy()
    assert records.largest("mnist-fixed") is there["paper"]
    there.clear()
    assert records.largest("mnist-fixed") is None
    assert records.label(record).startswith("mnist-fixed, paper: 2 epochs of mnist, batch 128, tf32, cpu")


def test_obtain_runs_what_is_not_recorded(tiny, monkeypatch):
    ran = []
    monkeypatch.setattr(studies, "run", lambda *a, **o: ran.append((a, o)) or (f"run {len(ran)}", None))
    monkeypatch.setattr(records, "recorded", lambda study, profile: "recorded" if profile == "paper" else None)
    assert studies.obtain("mnist-fixed", "paper") == "recorded"
    assert studies.obtain("mnist-fixed", "paper", rerun=True, device="cpu") == "run 1"
    assert studies.obtain("mnist-fixed", "quick", device="cpu") == "run 2"
    assert ran[0] == (("mnist-fixed", "paper"), {"device": "cpu"})


def test_networks_of_every_plan_fit_their_data(monkeypatch):
    for name, profile in PLANS:
        plan = designs.find(name, profile)
        images = plan.data in ("patches", "faces")
        shape = (64, 64, 3) if images else (64,) if plan.data.startswith("digits") else (784,)
        with torch.device("meta"):
            model = plan.network()
            assert isinstance(model, vae.VAE) and model.encode(torch.empty(1, *shape))[0].ndim == 2
            assert model.decode(torch.empty(1, plan.network.keywords["k"])).shape == (1, *shape)


def test_the_tracked_tree_stays_small():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not in a git repository")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert sum(path.stat().st_size for path in paths if path.exists()) < 12 * 2**20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: designs.find(["demo"], "quick"), r"study is \['demo'\]; expected one of"),
        (lambda: designs.find("demo", None), "profile is None; demo has quick"),
        (lambda: designs.best(None), "record is None"),
        (lambda: designs.best(xr.Dataset()), "record lacks elbo"),
        (lambda: designs.is_annealed({}), "record is {}"),
        (lambda: designs.Study("", {}), "title is ''"),
        (lambda: designs.Study("A question", {}), "plans is {}"),
        (lambda: designs.Study("A question", {"quick": 3}), "plans has"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "cats"}, "data is 'cats'; expected one of digits"),
        ({"data": np.ma.ones(3)}, "data is masked_array"),
        ({"network": vae.mlp}, "network is .*; expected partial"),
        ({"network": partial(vae.mlp, 64)}, r"network has the arguments \(64,\); expected keyword arguments alone"),
        ({"members": ()}, r"members is \(\); expected at least one Member"),
        ({"members": {}}, "members is {}"),
        ({"members": (None,)}, "members is"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 2.0}, "epochs is 2.0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"snapshots": (0,)}, "snapshots is 0; expected an integer from 1"),
        ({"snapshots": (10**6,)}, "snapshots is 1000000"),
        ({"snapshots": 3}, "snapshots is 3"),
        ({"precision": "float64"}, "precision is 'float64'; expected one of"),
        ({"pictures": (-1,)}, "pictures is -1"),
    ],
)
def test_bad_plans(change, message):
    with pytest.raises(ValueError, match=message):
        replace(designs.find("demo", "quick"), **change)
