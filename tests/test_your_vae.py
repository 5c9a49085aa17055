"""The page "Is your VAE collapsing?" in a browser with no network: the package's numbers, and sentences of refusal."""

import contextlib
import io
import json
import random
import re
import shlex
import subprocess
import sys
import tomllib
import types
from functools import cache
from urllib.parse import urlencode

import numpy as np
import pytest
import readme_picture
import spectra
import test_objective
import torch
from pairs import ROOT
from sklearn.datasets import load_breast_cancer, load_wine
from test_page import AXE, CHROMIUM, RUN_AXE, VIEWS, chromium, opened  # noqa: F401

from helpers import bernoulli, celeba, data, objective, spectrum
from helpers.forecast import forecast
from helpers.moments import Moments, covariance_eigenvalues
from helpers.verdict import VERDICTS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FACTORS = {"given": 1, "twice": 4, "bytes": 255**2}


@cache
def samples(name):
    tables = {"breast-cancer": load_breast_cancer, "wine": load_wine}
    if name in tables:
        x = tables[name]().data
        return (x - x.mean(axis=0)) / x.std(axis=0)
    return data.digits() if name == "digits" else data.patches(16).reshape(-1, 768) / 255


@cache
def eigenvalues(name):
    if name == "mnist":
        return data.mnist_moments().eigenvalues
    return celeba.eigenvalues()[0] if name == "faces" else covariance_eigenvalues(samples(name))


def shown(value):
    """A number to the digits that the page shows."""
    return round(value) if value >= 1000 else float(f"{value:.4g}")


@pytest.fixture(scope="module")
def page(built, chromium):  # noqa: F811
    page, said = opened(chromium, built / "html" / "book" / "your_vae.html", VIEWS["desk"])
    yield page
    assert said == []
    page.context.close()


def choose(page, **settings):
    """Open the page's link to these settings, and nothing else."""
    defaults = {"loss": "mean(se) + kl", "data": "mnist", "scale": "given", "k": 32, "batch": 128, "keep": ""}
    query = urlencode({**defaults, **settings})
    page.evaluate("hash => { location.hash = hash; dispatchEvent(new HashChangeEvent('hashchange')); }", query)


def part(page, name):
    return page.locator(f"[data-part={name}]")


def numbers(page):
    """The rows of the table: the value of each, a number where it is one."""
    rows = page.eval_on_selector_all(
        "[data-part=numbers] tr:has(td)",
        "rows => rows.map(row => [row.children[0].textContent, row.querySelector('b').textContent])",
    )
    return {name: float(text.replace(",", "")) if re.fullmatch(r"[\d.,e+-]+", text) else text for name, text in rows}


def settings(seed):
    """A random loss on random data."""
    rng = random.Random(seed)
    name = rng.choice(["mnist", "digits", "faces", "patches", "breast-cancer", "wine"])
    n = eigenvalues(name).size
    chosen = {"data": name, "k": rng.randint(1, min(n + 3, 300)), "batch": rng.randint(1, 512)}
    chosen["scale"] = "given" if is_a_table(name) else rng.choice(list(FACTORS))
    a, b = (float(f"{10 ** rng.uniform(-4, 2):.3g}") for _ in range(2))
    one, other = (rng.choice(["sum", "mean"]) for _ in range(2))
    over, by = (rng.choice(["", ", batch=sum"]) for _ in range(2))
    forms = [
        f"{a}*{one}(se{over}) + {b}*{other}(kl{by})",
        f"nll(sigma2={a}) + kl*{b}",
        "nll(learned) + kl",
        f"nll(learned) + {rng.uniform(0.3, 3):.2f}*kl",
        f"sum(se)/n + {b}*max(kl, {rng.uniform(0, 1):.2f})",
        rng.choice([text for text in objective.PRESETS.values() if "se" in text]),
    ]
    return {**chosen, "loss": rng.choice(forms)}


def is_a_table(name):
    return name in ("breast-cancer", "wine")


def expected(loss, data, k, batch, scale="given"):
    """What the package says, by the page's words."""
    lam = FACTORS[scale] * eigenvalues(data)
    found = forecast(lam, k, loss, batch=batch)
    learned = found.learned_sigma2
    return {
        "θ = βσ²": shown(found.theta),
        "λ₁/θ": shown(lam[0] / found.theta),
        "Is complete collapse stable?": "yes" if found.collapse_is_stable else "no",
        "Latents that live": f"{found.survivors} of {min(k, lam.size)}",
        "KL": shown(found.kl),
        "Distortion": shown(found.distortion),
        "σ², if learned": "none" if learned is None else shown(learned),
    }


def test_every_way_to_scale_gives_numbers(page):
    for name in page.eval_on_selector_all("[name=data] option", "nodes => nodes.map(node => node.value)"):
        choose(page, data=name)
        for scale in page.eval_on_selector_all("[name=scale] option", "nodes => nodes.map(node => node.value)"):
            choose(page, data=name, scale=scale)
            assert name == "file" or numbers(page)["λ₁/θ"] > 0, (name, scale)


@pytest.mark.parametrize("seed", range(30))
def test_the_numbers_are_the_packages(page, seed):
    chosen = settings(seed)
    choose(page, **chosen)
    try:
        values = expected(**chosen)
    except ValueError as error:  # no sigma2 is the best
        assert "leaves no residual variance" in str(error) and "σ² is learned" in part(page, "verdict").inner_text()
        return
    found = numbers(page)
    assert {name: found[name] for name in values} == values
    if part(page, "keep").is_visible():
        check_remedy(page, chosen)


def check_remedy(page, chosen):
    """The line to copy keeps the latents that it says; the same optimum as its PyTorch has, and as the other line."""
    words = {name: part(page, name).text_content() for name in ("instead", "line", "free", "code")}
    lam = FACTORS[chosen["scale"]] * eigenvalues(chosen["data"])
    sizes = {"n": lam.size, "k": chosen["k"], "batch": chosen["batch"]}
    found, used = objective.read(words["line"], **sizes), min(chosen["k"], lam.size)
    alive = spectrum.active(lam[:used], found.theta()).sum()
    claimed = int(re.search(r"To keep (?:all )?(\d+)", words["instead"])[1])
    assert alive == claimed == min(used, np.count_nonzero(lam))
    if used < np.count_nonzero(lam):  # all are kept, and at the sigma2 that a linear VAE would learn
        assert found.theta() == pytest.approx(spectrum.learned_sigma2(lam, used), rel=5e-3)
    assert objective.read(words["free"]).theta() == pytest.approx(found.theta(), rel=1e-5)
    assert f"θ = {shown(found.theta()):,}" in words["instead"] or shown(found.theta()) < 1e-4
    check_code(words["code"], found, **sizes)


def check_code(code, found, n, k, batch):
    """The code has the gradient of the loss, up to one factor."""
    generator = torch.Generator().manual_seed(n)
    x, x_hat, mu, logvar = (torch.rand(batch, m, generator=generator, dtype=torch.float64) for m in (n, n, k, k))
    leaves = [one.requires_grad_() for one in (x_hat, mu, logvar)]
    names = {"x": x, "x_hat": x_hat, "mu": mu, "logvar": logvar, "F": torch.nn.functional}
    exec(code, names)
    rates = (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean(0).clamp(min=found.free_bits).sum()
    normal = found.data * ((x - x_hat) ** 2).sum(1).mean() + found.kl * rates
    theirs, ours = (
        torch.cat([g.flatten() for g in torch.autograd.grad(one, leaves)]) for one in (names["loss"], normal)
    )
    factor = (theirs @ ours) / (ours @ ours)
    assert factor > 0 and torch.allclose(theirs, factor * ours, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def written(rng, depth=0):
    """A random text, mostly a loss and now and then none."""
    number = lambda: rng.choice(["2", "0.5", "1e-3", "k", "n/2", "2**-1", "(1 + 3)", "batch", "-1", "1/0", ".5"])  # noqa: E731
    term = lambda: rng.choice(["se", "bce", "nll(learned)", "nll(sigma2=0.1)", "nll(sigma2=n/2)", "ae", "mse", "nll"])  # noqa: E731
    reduced = lambda one: rng.choice(  # noqa: E731
        [
            one,
            one,
            f"sum({one})",
            f"mean({one})",
            f"mean({one}, batch=sum)",
            f"sum({one},batch = mean)",
            f"sum({one}, axis=1)",
        ]
    )
    kl = reduced(rng.choice(["kl", "kl", "max(kl, 0.5)", "max(kl, n)", "2*kl", "kl*kl"]))
    parts = [reduced(term()), kl]
    for i in range(2):
        for _ in range(rng.randint(0, 2)):
            parts[i] = rng.choice(
                [f"{number()}*{parts[i]}", f"{parts[i]}*{number()}", f"{parts[i]}/{number()}", f"-(-{parts[i]})"]
            )
    rng.shuffle(parts)
    return rng.choice(["{} + {}", "{} + {}", "{} - -1*{}", "({} + {})*3", "{}+{}/2", "{} - {}", "{} + {} + kl"]).format(
        *parts
    )


def test_the_page_reads_what_the_package_reads_and_refuses_what_it_refuses(page):
    rng = random.Random(0)
    refused = [text for text, _ in test_objective.test_what_is_no_loss_is_named.pytestmark[0].args[1]]
    texts = (
        [written(rng) for _ in range(1500)]
        + refused
        + [
            "007*se + kl",
            "1_0*se + 0*n*kl + kl",
            "sum(se,) + 0_0.5*kl",
            *objective.PRESETS,
            *objective.PRESETS.values(),
        ]
    )
    found = page.evaluate(
        """([texts, sizes]) => texts.map(text => {
          try {
            const {likelihood, weight, learned, freeBits, notes} = yourVae.read(text, sizes);
            return [likelihood, weight.data, weight.kl, learned, freeBits, notes];
          } catch (error) {
            return error.message;
          }
        })""",
        [texts, {"n": 784, "k": 16, "batch": 100}],
    )
    accepted = 0
    for text, one in zip(texts, found, strict=True):
        try:
            ours = objective.read(text, n=784, k=16, batch=100)
        except ValueError:
            assert isinstance(one, str) and len(one) > 10, text
            continue
        accepted += 1
        assert [one[0], *one[3:]] == [ours.likelihood, ours.learned, ours.free_bits, list(ours.notes)], text
        assert one[1:3] == pytest.approx([ours.data, ours.kl], rel=1e-13), text
    assert 300 < accepted < len(texts) - 300
    for text in refused:
        choose(page, loss=text, data="digits")
        if page.locator("[name=loss]").get_attribute("aria-invalid") is None:  # the page knows n, k and the minibatch
            objective.read(text, n=64, k=32, batch=128)


def test_what_is_refused_is_a_sentence(page):
    for settings, words in (
        ({"loss": "mse + kl"}, "The loss: mse is no term (write mean(se) for a mean over the features"),
        ({"loss": "se + kl)"}, "The loss: it cannot be read"),
        ({"loss": ""}, "The loss: it cannot be read"),
        ({"loss": "se - kl"}, "The loss: the weight of kl is -1, not above 0"),
        ({"loss": "nll(sigma2) + kl"}, "The loss: sigma2 is not given"),
        ({"k": "0"}, "the number of latents k is 0; expected a whole number"),
        ({"k": "1.5"}, "the number of latents k is 1.5; expected a whole number"),
        ({"batch": "-3"}, "the batch size is -3"),
        ({"data": "faces", "k": "5000"}, "k is 5000, and of this spectrum the 1024 largest eigenvalues are known"),
        ({"loss": "nll(learned) + kl", "data": "digits", "k": "61"}, "k = 61 latents can explain all the data"),
        ({"data": "pasted", "eigenvalues": "3 2 one"}, 'The data: "one" is no eigenvalue'),
        ({"data": "pasted", "eigenvalues": "3, -2"}, 'The data: "-2" is no eigenvalue'),
        ({"data": "pasted", "eigenvalues": " "}, "The data: no eigenvalues are pasted"),
        ({"data": "pasted", "eigenvalues": "0 0"}, "The data: all the eigenvalues are 0"),
        ({"data": "pasted", "eigenvalues": "3 2 1", "n": 2}, "The data: n is 2 and there are 3 eigenvalues"),
        ({"data": "pasted", "eigenvalues": "3 2 1", "n": 5, "trace": 4}, "The data: the trace is 4, below 6"),
        ({"data": "pasted", "eigenvalues": "3 2 1", "n": 4, "trace": 9}, "none of them can exceed 1"),
        ({"data": "file"}, "The data: no file has been read yet"),
    ):
        choose(page, **settings)
        said = part(page, "verdict").inner_text()
        assert words in said and said.endswith("."), settings
        assert not part(page, "numbers").is_visible() and not part(page, "chart").is_visible()
    choose(page)
    assert part(page, "numbers").is_visible()


def test_pasted_eigenvalues_may_be_a_part_of_all(page):
    lam = eigenvalues("digits")
    some = " ".join(map(repr, lam[:20].tolist()[::-1]))
    choose(page, data="pasted", eigenvalues=some, n=64, trace=repr(float(lam.sum())), k=10, loss="nll(learned) + kl")
    found, sigma2 = numbers(page), spectrum.learned_sigma2(lam, 10)
    assert found["σ², if learned"] == shown(sigma2)
    assert found["Distortion"] == shown(spectrum.distortion(lam, 10, sigma2))


def test_at_a_tie_a_latent_is_not_alive(page):
    for theta, alive, stable in ((2, 1, "no"), (4, 0, "at the threshold"), (0.5, 3, "no")):
        choose(page, data="pasted", eigenvalues="4 2 1", k=3, loss=f"0.5*sum(se) + {theta}*kl")
        found = numbers(page)
        assert (found["Latents that live"], found["Is complete collapse stable?"]) == (f"{alive} of 3", stable)


TABLES = {
    "tall": (200, 12, {"sep": ",", "header": True}),
    "wide": (15, 40, {"sep": ";", "header": False}),
    "spaces": (60, 7, {"sep": "  ", "header": False}),
}


def csv(x, sep, header):
    lines = [sep.join(f'"column {i}"' for i in range(x.shape[1]))] * header
    return "\r\n".join([*lines, *(sep.join(map(repr, row)) for row in x.tolist()), ""])


def drop(page, content, name="samples.csv"):
    """Let a file fall on the calculator, and wait until it has been read."""
    choose(page, data="file")
    page.evaluate(
        """([content, name]) => {
          const dataTransfer = new DataTransfer(), root = document.querySelector(".your-vae");
          dataTransfer.items.add(new File([content], name));
          root.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
        }""",
        [content, name],
    )
    page.wait_for_function("() => !document.querySelector('[data-part=status]').textContent.startsWith('Reading')")
    return part(page, "status").inner_text()


@pytest.mark.parametrize("kind", TABLES)
def test_a_dropped_table_has_its_eigenvalues(page, kind):
    count, n, form = TABLES[kind]
    rng = np.random.default_rng(n)
    x = rng.standard_normal((count, n)) @ rng.standard_normal((n, n)) * np.geomspace(1, 0.1, n) + 5
    x[:, 2] = 0.1  # a column that does not vary
    assert f"{count} rows, {n} columns" in drop(page, csv(x, **form))
    deviation = x.std(axis=0)
    for scale, divisor in (
        ("given", 1.0),
        ("unbytes", 255.0),
        ("all", x.std()),
        ("columns", np.where(deviation > 0, deviation, 1.0)),
    ):
        page.locator("[name=scale]").select_option(scale)
        lam = covariance_eigenvalues(x / divisor)
        theta = float(np.sqrt(lam[2] * lam[3]))
        page.locator("[name=k]").fill("5")
        page.locator("[name=loss]").fill(f"sum(se) + {2 * theta!r}*kl")
        found = numbers(page)
        assert found["θ = βσ²"] == shown(theta) and found["Latents that live"] == "3 of 5"
        assert found["λ₁/θ"] == shown(lam[0] / theta)
        assert found["Distortion"] == shown(spectrum.distortion(lam, 5, theta)), scale
        assert found["σ², if learned"] == shown(spectrum.learned_sigma2(lam, 5)), scale


def test_all_eigenvalues_of_a_table_by_itself(page):
    x = np.random.default_rng(0).standard_normal((80, 50)) @ np.diag(np.geomspace(1, 1e-4, 50))
    x[:, 7:12] = x[:, :5] + 2 * x[:, 1:6]
    table = {"n": 50, "count": 80}
    found = page.evaluate(
        """([text, {n, count}]) => {
          const table = yourVae.table(text);
          return [table.n === n && table.count === count, yourVae.eigenvaluesOf(table, Array(n).fill(1))];
        }""",
        [csv(x, ",", False), table],
    )
    assert found[0] and found[1]["rank"] == 45
    assert np.allclose(found[1]["top"], Moments.from_samples(x).eigenvalues, rtol=1e-6, atol=1e-14)


def test_black_and_white_data_have_a_threshold(page):
    x = (data.digits()[:400] > 0.5).astype(float)
    threshold = bernoulli.collapse_threshold(x)
    drop(page, csv(x, ",", False))
    for beta, verdict in ((0.9, "no"), (1.1, "yes")):
        page.locator("[name=loss]").fill(f"bce + {beta * threshold!r}*kl")
        found = numbers(page)
        assert found["β*, the threshold"] == shown(threshold) and found["Is complete collapse stable?"] == verdict
    line = objective.read(part(page, "line").text_content(), n=64)
    assert line.beta == pytest.approx(1.0, rel=1e-3)
    for name, x in (("digits", samples("digits")), ("patches", samples("patches"))):
        choose(page, data=name, loss="sum(bce) + kl")
        assert numbers(page)["β*, the threshold"] == shown(bernoulli.collapse_threshold(x))
    for settings in ({"data": "faces"}, {"data": "digits", "scale": "bytes"}, {"data": "wine"}):
        choose(page, loss="sum(bce) + kl", **settings)
        assert "it is not known" in part(page, "verdict").inner_text()


def test_other_likelihoods_are_measured_only(page):
    for term, (likelihood, _) in objective.TERMS.items():
        if likelihood in ("gaussian", "bernoulli"):
            continue
        choose(page, loss=f"{term} + 2*kl")
        assert "can be measured, not forecast" in part(page, "verdict").inner_text()
        assert numbers(page) == {"β, the weight of the KL": 2} and not part(page, "chart").is_visible()
        assert not part(page, "remedy").is_visible()


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("1,2,3\n", "one row of numbers; expected at least two"),
        ("a,b\n1,2\n", "one row of numbers; expected at least two"),
        ("1,2\n3,4,5\n", "line 2 has 3 values and line 1 has 2"),
        ("a,b\n1,2\n\n3,x\n", 'line 4, column 2 is "x"; expected a number'),
        ("1,2\n3,\n", 'line 2, column 2 is ""; expected a number'),
        ("1,2\n3,nan\n", 'line 2, column 2 is "nan"'),
        ("1,2\n3,inf\n", 'line 2, column 2 is "inf"'),
        ("1;2\n3;0,5\n", 'line 2, column 2 is "0,5"'),
        ("1,2\n1,2\n1,2\n", "no column varies"),
        ("PK\x03\x04\x00\x01", "one row of numbers|expected a number"),
        ("\n".join([",".join("1" * 1100)] * 1100), "too many for this page; expected fewer: take 1,000 rows at random"),
    ],
)
def test_a_malformed_table_gets_a_sentence(page, content, words):
    said = drop(page, content, "bad.csv")
    assert re.search(words.replace("(", r"\("), said) and said.startswith("bad.csv: ") and said.endswith(".")
    assert "no file has been read yet" in part(page, "verdict").inner_text()


def test_a_file_can_be_chosen_by_hand(page, tmp_path):
    (tmp_path / "mine.tsv").write_text("1\t2\n3\t5\n4\t4\n")
    choose(page, data="file")
    page.locator("[name=upload]").set_input_files(tmp_path / "mine.tsv")
    page.wait_for_function(
        "() => document.querySelector('[data-part=status]').textContent.startsWith('mine.tsv: 3 rows')"
    )
    lam = covariance_eigenvalues([[1, 2], [3, 5], [4, 4]])
    assert numbers(page)["λ₁/θ"] == shown(lam[0] / objective.read("mean(se) + kl", n=2).theta())


def test_term_by_term_and_in_words_say_the_same(page):
    rng = random.Random(1)
    choose(page, data="digits")
    page.locator(".your-vae details summary").first.click()
    for _ in range(12):
        chosen = {name: rng.choice(["sum", "mean"]) for name in ("features", "latents", "samples", "klsamples")}
        chosen["term"] = rng.choice(["se", "nll", "bce"])
        for name, value in chosen.items():
            page.locator(f"[name={name}]").select_option(value)
        weights = {name: f"{10 ** rng.uniform(-3, 3):.3g}" for name in ("factor", "weight")}
        weights["free"] = rng.choice(["0", "0.25"])
        for name, value in weights.items():
            page.locator(f"[name={name}]").fill(str(float(value)))
        sigma2 = ""
        if chosen["term"] == "nll":
            sigma2 = rng.choice(["learned", "0.2"])
            page.locator("[name=sigma2]").fill(sigma2)
        found = objective.read(page.locator("[name=loss]").input_value(), n=64, k=32, batch=128)
        data_weight, kl = float(weights["factor"]), float(weights["weight"])
        data_weight /= 64 if chosen["features"] == "mean" else 1
        kl /= 32 if chosen["latents"] == "mean" else 1
        if chosen["samples"] != chosen["klsamples"]:
            data_weight, kl = (
                w * (128 if chosen[name] == "sum" else 1) for w, name in ((data_weight, "samples"), (kl, "klsamples"))
            )
        if sigma2 == "0.2":
            data_weight /= 0.4
        assert (found.data, found.kl) == pytest.approx((data_weight, kl), rel=1e-5)
        assert (found.free_bits, found.learned) == (float(weights["free"]), sigma2 == "learned")
    choose(page, loss="0.5*mean(nll(sigma2=0.3), batch=sum) + 4*max(kl, 0.1)")
    wanted = {"term": "nll", "factor": "0.5", "features": "mean", "samples": "sum", "sigma2": "0.3"}
    wanted |= {"weight": "4", "latents": "sum", "klsamples": "mean", "free": "0.1"}
    assert {name: page.locator(f"[name={name}]").input_value() for name in wanted} == wanted
    page.locator(".your-vae details summary").first.click()


def test_the_latents_to_keep_are_kept(page):
    lam = eigenvalues("mnist")
    for keep in (1, 7, 16, 31):
        choose(page, keep=keep)
        theta = objective.read(part(page, "line").text_content(), n=784).theta()
        assert spectrum.active(lam[:32], theta).sum() == keep
        assert f"To keep {keep} of 32 latents" in part(page, "instead").inner_text()
    choose(page, keep=2, data="pasted", eigenvalues="1 0.99999 0.99998", k=3)  # three digits of a weight are too few
    theta = objective.read(part(page, "line").text_content(), n=3).theta()
    assert 0.99998 <= theta < 0.99999


def test_the_same_loss_at_other_sizes(page):
    choose(page, loss="mean(se) + 0.00025*kl")
    part(page, "elsewhere").locator("summary").click()
    rows = [row.locator("th, td").all_inner_texts() for row in part(page, "sizes").locator("tbody tr").all()]
    assert len(rows) == 4
    for _, n, theta in rows:
        n = int(n.replace(",", ""))
        assert float(theta.replace(",", "")) == shown(objective.read("mean(se) + 0.00025*kl", n=n).theta())
    choose(page, loss="sum(se) + kl")
    assert len({row.split("\t")[-1] for row in part(page, "sizes").locator("tbody").inner_text().splitlines()}) == 1


def test_a_link_keeps_everything(chromium, page):  # noqa: F811
    choose(
        page,
        loss="nll(sigma2=0.2) + 3*kl",
        data="pasted",
        scale="twice",
        k=2,
        batch=64,
        keep=1,
        eigenvalues="3 2\n1",
        n=9,
    )
    link, before = part(page, "link").input_value(), numbers(page)
    other, said = chromium.new_context().new_page(), []
    other.on("pageerror", lambda error: said.append(str(error)))
    other.goto(link)
    assert numbers(other) == before and part(other, "link").input_value() == link
    assert part(other, "instead").inner_text() == part(page, "instead").inner_text() and said == []
    other.context.close()


def test_what_is_to_be_copied_is_copied_or_selected(page):
    choose(page)
    for name, allowed in (("line", False), ("code", True), ("link", True)):
        page.evaluate("""allowed => Object.defineProperty(navigator, "clipboard", {configurable: true, value: allowed ?
          {writeText: async text => { window.copied = text; }} : undefined})""", allowed)  # fmt: skip
        button = page.locator(f"[data-copy={name}]")
        button.click()
        text = part(page, name).input_value() if name == "link" else part(page, name).text_content()
        assert page.evaluate("allowed => allowed ? window.copied : String(getSelection())", allowed) == text
        assert button.inner_text() == ("Copied" if allowed else "Selected")
    page.wait_for_function("() => document.querySelector('[data-copy=link]').textContent === 'Copy the link'")


def test_from_the_landing_page_to_what_to_write_instead(built, chromium):  # noqa: F811
    """One click, and no scrolling: theta of the mean squared error plus KL on MNIST, the verdict, and the line."""
    page, said = opened(chromium, built / "html" / "book" / "intro.html", VIEWS["desk"])
    link = page.locator("article p").first.get_by_role("link", name="Is your VAE collapsing?")
    assert page.locator("nav.bd-links a[href='your_vae.html']").count() == 1
    link.click()
    page.wait_for_selector("[data-part=numbers] td")
    assert page.locator("[name=preset]").input_value() == "mean squared error plus KL"
    assert "θ = 392, and no latent lives" in part(page, "verdict").inner_text()
    line = part(page, "line")
    assert line.bounding_box()["y"] + line.bounding_box()["height"] < VIEWS["desk"]["height"]
    theta = objective.read(line.text_content(), n=784).theta()
    assert spectrum.active(eigenvalues("mnist")[:32], theta).all() and said == []
    page.context.close()


def test_slider_and_result_share_a_phones_screen(built, chromium):  # noqa: F811
    page, said = opened(chromium, built / "html" / "book" / "your_vae.html", VIEWS["phone"])
    slider, header = page.locator("[name=slider]"), page.locator(".bd-header-article").bounding_box()["height"]
    top = slider.bounding_box()["y"]
    for name in ("verdict", "chart", "line"):
        box = part(page, name).bounding_box()
        assert box["y"] + box["height"] - top <= VIEWS["phone"]["height"] - header, name
    assert slider.bounding_box()["height"] >= 24
    before = part(page, "verdict").inner_text()
    slider.focus()
    for _ in range(150):
        page.keyboard.press("ArrowLeft")
    loss = page.locator("[name=loss]").input_value()
    after = part(page, "verdict").inner_text()
    alive = spectrum.active(eigenvalues("mnist")[:32], objective.read(loss, n=784).theta()).sum()
    assert before != after and f"and {alive} of 32 latents live" in after
    assert after in slider.get_attribute("aria-valuetext") and said == []
    page.context.close()


def test_everything_is_reached_by_keyboard(page):
    choose(page)
    page.locator(".your-vae [name=preset]").focus()
    reached = []
    for _ in range(20):
        reached.append(
            page.evaluate("(({name, dataset, tagName}) => name || dataset.copy || tagName)(document.activeElement)")
        )
        page.keyboard.press("Tab")
    wanted = ["preset", "loss", "SUMMARY", "data", "scale", "k", "batch", "slider", "keep", "line", "code", "SUMMARY"]
    assert reached[: len(wanted)] == wanted and "link" in reached
    page.locator("[name=data]").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("[name=data]").input_value() == "digits"


def test_axe_finds_nothing_in_any_state(page):
    page.evaluate(AXE)
    page.locator(".your-vae details summary").first.click()
    for settings in (
        {"data": "pasted", "eigenvalues": "3 x"},
        {"loss": "mse"},
        {"data": "file"},
        {"loss": "sum(bce) + kl"},
    ):
        choose(page, **settings)
        for theme in ("light", "dark"):
            page.evaluate(
                "t => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = t; }", theme
            )
            page.wait_for_timeout(400)
            assert page.evaluate(RUN_AXE, None) == [], (settings, theme)
    page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'light'")
    page.locator(".your-vae details summary").first.click()
    choose(page)


def test_the_landing_picture_is_alive(built, chromium):  # noqa: F811
    page, said = opened(chromium, built / "html" / "book" / "intro.html", VIEWS["phone"])
    picture, lam = page.locator(".theta-picture"), eigenvalues("digits")[: readme_picture.SHOWN]
    assert picture.locator("img").count() == 0 and picture.locator("svg").get_attribute("aria-label")
    slider, said_of = picture.locator("input"), set()
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
        theta = float(slider.input_value())
        words = picture.locator("output").inner_text()
        nats = shown(spectrum.kl(lam, theta).sum())
        assert words == f"θ = {theta:g}: {(lam > theta).sum()} of 20 latents live, with {nats:g} nats between them."
        assert picture.locator("path.alive").get_attribute("d").count("M") == (lam > theta).sum()
        said_of.add(words)
    assert len(said_of) == 12 and said == []
    page.context.close()


def test_every_symptom_leads_to_its_proof(page):
    rows = page.locator("table.symptoms tbody tr")
    assert rows.count() >= 12
    for row in rows.all():
        assert row.locator("td").last.locator("a").count() > 0, row.inner_text()


class Network(torch.nn.Module):
    """A VAE of two latents, by the names that code has for its parts."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (
            torch.nn.Linear(6, 4),
            torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Sigmoid()),
        )
        self.logged = {}

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)

    def log_dict(self, values):
        self.logged |= values


class Trainer:
    """Lightning's, for the length of one epoch."""

    current_epoch = 0

    def __init__(self, callbacks):
        self.callbacks = callbacks

    def fit(self, module, datamodule):
        for one in self.callbacks:
            one.on_train_epoch_end(self, module)


def test_the_snippets_run(page, tmp_path, monkeypatch):
    """Each with a network of its kind in place of the reader's, and libraries that may not be here by their outside."""
    network, x = Network(), torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    outside = {
        "pythae": {},
        "pythae.models": {"AutoModel": types.SimpleNamespace(load_from_folder=lambda folder: network)},
        "lightning": {"Trainer": Trainer},
        "lightning.pytorch": {"Callback": object},
    }
    for name, inside in outside.items():
        module = types.ModuleType(name)
        module.__dict__.update(inside)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 4)) / 9
    names = {
        "model": network,
        "module": network,
        "loader": [(x[:20], None), (x[20:], None)],
        "datamodule": None,
        "encoder": lambda x: [x @ weights[:, :2], x @ weights[:, 2:], None],
        "decoder": lambda z: 1 / (1 + np.exp(-z @ weights[:, :2].T)),
        "x_train": x.numpy().astype(float)[:30],
        "x_test": x.numpy().astype(float)[30:],
        **dict(zip(("mean", "logvar", "x", "reconstructions"), rng.standard_normal((4, 9, 3)), strict=True)),
    }
    snippets = page.eval_on_selector_all(".highlight-python pre", "nodes => nodes.map(node => node.textContent)")
    printed = []
    for snippet in snippets:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(snippet, "snippet", "exec"), dict(names))
        printed.append(said.getvalue())
    assert len(snippets) == 5 and sum(text.startswith(tuple(VERDICTS)) for text in printed) == 3
    assert len(network.logged) == 5
    command = page.locator(".highlight-bash pre").inner_text()
    program, *arguments = shlex.split(command)
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    done = subprocess.run(
        [sys.executable, "-m", "helpers.diagnose", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode != 2 and done.stderr == "" and (tmp_path / "report.html").is_file()


def test_every_verdict_is_explained():
    assert set(spectra.REMEDIES) == set(VERDICTS)


def test_what_the_page_computes_with_is_the_packages():
    found = json.loads(re.search(r">(\{.*\})<", spectra.numbers())[1])
    assert found["presets"] == objective.PRESETS and set(found["terms"]) == set(objective.TERMS)
    for name, one in found["spectra"].items():
        lam = eigenvalues(name)
        assert np.allclose(one["top"], lam[: len(one["top"])], rtol=1e-9, atol=0)
        assert sum(one["top"]) + one["rest"] == pytest.approx(lam.sum(), rel=1e-9)
        assert (one["n"], one["rank"]) == (lam.size, np.count_nonzero(lam))
        if one["kind"] == "image" and name in ("digits", "patches"):
            assert one["spread"] == pytest.approx(samples(name).var())
            assert one["bernoulli"] == pytest.approx(bernoulli.collapse_threshold(samples(name)))


def test_the_rule_of_thumb_has_the_recorded_runs(page):
    table = page.locator("table.thumb tbody tr")
    assert table.count() >= 4
    for row in table.all():
        cells = row.locator("td").all_inner_texts()
        theta, alive = float(cells[0]), int(cells[1].split()[0])
        assert alive == spectrum.active(eigenvalues("mnist")[:200], theta).sum()
        if cells[7].startswith("+"):  # as the text above it says
            assert int(cells[2]) < alive and float(cells[4]) < float(cells[3]) and float(cells[6]) < float(cells[5])
