"""The command: every kind of data, one object of JSON, an exit code for each verdict, one sentence for what is bad."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pairs import ROOT
from PIL import Image

from helpers import data, diagnose_cli
from helpers.forecast import forecast
from helpers.moments import Moments
from helpers.verdict import VERDICTS


@pytest.fixture
def x(tmp_path):
    x = data.digits_bytes()[:300]
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "x.csv", x / 255, delimiter=",", header=",".join(f"c{i}" for i in range(64)), comments="")
    (tmp_path / "images").mkdir()
    for i, row in enumerate(x):
        Image.fromarray(row.reshape(8, 8)).save(tmp_path / "images" / f"{i:03}.png")
    return x


def ran(capsys, *arguments):
    code = diagnose_cli.main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_folder_a_table_and_an_array_are_the_same_data(x, tmp_path, capsys):
    loss, said = "mean(se) + 0.002*kl", []
    for name in ("x.npy", "x.csv", "images"):
        code, out, err = ran(capsys, "forecast", "--data", tmp_path / name, "--latents", 16, "--loss", loss, "--json")
        assert code == 0 and not err
        said.append(json.loads(out))
    direct = forecast(Moments.from_samples(x / 255), 16, loss)
    for one in said:
        assert one["survivors"] == direct.survivors and one["collapse_is_stable"] is False
        for name in ("theta", "lambda_1", "learned_sigma2", "kl", "distortion"):
            assert one[name] == pytest.approx(getattr(direct, name), rel=1e-9)


def test_a_loss_that_asks_for_collapse_ends_with_its_code_and_a_page(x, tmp_path, capsys):
    page = tmp_path / "out" / "report.html"
    asked = ("forecast", "--data", tmp_path / "x.npy", "--latents", 16, "--loss", "mean(se) + kl")
    code, out, _ = ran(capsys, *asked, "--html", page)
    assert code == diagnose_cli.EXITS["asked for"] and out.startswith("ASKED FOR.")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(ran(capsys, *asked, "--json")[1])["verdict"] == "asked for"


def codes(folder, name="codes.npz", **arrays):
    rng = np.random.default_rng(0)
    x = data.digits()[:200]
    good = {"x": x, "mean": rng.standard_normal((200, 3)) / 50, "logvar": np.zeros((200, 3))}
    good["reconstructions"] = np.stack([np.tile(x.mean(axis=0), (200, 1))] * 2)
    np.savez(folder / name, **{name: one for name, one in (good | arrays).items() if one is not None})
    return folder / name


def test_codes_of_any_framework_are_judged(tmp_path, capsys):
    path = codes(tmp_path)
    code, out, _ = ran(capsys, "check", "--codes", path, "--loss", "0.5*sum(se) + kl", "--json")
    found = json.loads(out)
    assert code == 10 and found["verdict"] == "asked for" and abs(found["gap"]) < 0.1
    code, out, _ = ran(capsys, "check", "--codes", path, "--loss", "nll(sigma2=0.01) + kl", "--json")
    assert code == 11 and json.loads(out)["verdict"] == "worse than linear" and json.loads(out)["gap"] < -10
    code, out, _ = ran(capsys, "check", "--codes", path, "--loss", "nll(learned) + kl", "--sigma2", 0.06, "--json")
    assert json.loads(out)["theta"] == 0.06
    code, out, _ = ran(capsys, "check", "--codes", path, "--loss", "sum(poisson) + kl")
    assert code == diagnose_cli.EXITS["measured only"]


def test_every_verdict_has_a_code_of_its_own():
    assert VERDICTS.keys() <= diagnose_cli.EXITS.keys()
    codes = [code for code in diagnose_cli.EXITS.values() if code]
    assert len(set(codes)) == len(codes) and 2 not in codes and 1 not in codes


def test_what_is_bad_gets_one_sentence_and_code_2(x, tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3,four\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "latin.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    (tmp_path / "none").mkdir()
    (tmp_path / "mixed").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "mixed" / "a.png")
    Image.new("L", (4, 5)).save(tmp_path / "mixed" / "b.png")
    (tmp_path / "x.txt").write_text("1")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1.0], [0.0, 1.0]]))
    good = ("--latents", "4", "--loss", "se + kl")
    cases = {
        "bad.csv": "no table of numbers",
        "ragged.csv": "no table of numbers",
        "latin.csv": "no readable text",
        "empty.csv": "no table of numbers",
        "bad.npy": "no readable .npy",
        "none": "a folder without images",
        "mixed": "images of one size",
        "x.txt": "expected .npy, .csv or a folder",
        "missing": "neither a file nor a folder",
        "words.npy": "expected numbers",
        "nan.npy": "NaN",
    }
    for name, message in cases.items():
        code, out, err = ran(capsys, "forecast", "--data", tmp_path / name, *good)
        assert code == 2 and not out and message in err and len(err.splitlines()) == 1, name
    for loss in ("mse + kl", "kl", "mean(se)", "", "se + kl)", "0*se + kl"):
        code, out, err = ran(capsys, "forecast", "--data", tmp_path / "x.npy", "--latents", "4", "--loss", loss)
        assert code == 2 and not out and "loss is" in err and len(err.splitlines()) == 1, loss
    arguments = {"logvar": None}, {"mean": np.zeros((199, 3))}, {"x": np.full((200, 64), np.inf)}
    for number, arrays in enumerate(arguments):
        path = codes(tmp_path, f"{number}.npz", **arrays)
        code, out, err = ran(capsys, "check", "--codes", path, "--loss", "se + kl")
        assert code == 2 and not out and len(err.splitlines()) == 1
    for path in (tmp_path / "bad.npy", tmp_path / "x.npy", tmp_path / "gone.npz"):
        code, out, err = ran(capsys, "check", "--codes", path, "--loss", "se + kl")
        assert code == 2 and "no readable .npz" in err
    code, _, err = ran(capsys, "forecast", "--data", tmp_path / "x.npy", *good, "--html", tmp_path / "x.npy" / "r.html")
    assert code == 2 and len(err.splitlines()) == 1


def test_it_runs_as_a_module_and_as_a_program_beside_a_file_called_helpers(x, tmp_path):
    (tmp_path / "helpers.py").write_text("raise SystemExit('not this one')")
    program = [os.path.join(os.path.dirname(sys.executable), "posterior-collapse")]
    module = [sys.executable, "-m", "helpers.diagnose"]
    arguments = ["forecast", "--data", str(tmp_path / "x.npy"), "--latents", "4", "--loss", "mean(se) + kl", "--json"]
    ways = [(module, ROOT)] + ([(program, tmp_path)] if os.path.exists(program[0]) else [])
    for command, folder in ways:
        done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 10 and json.loads(done.stdout)["theta"] == 32.0, done.stderr
