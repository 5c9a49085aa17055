"""What a forecast and a diagnosis say of themselves: every number beside what it is, in text, Markdown and one page."""

import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import codes, data, diagnose, linear_vae, report, spectrum
from helpers.forecast import forecast
from helpers.moments import Moments
from helpers.objective import read


@pytest.fixture(scope="module")
def moments():
    return Moments.from_samples(data.digits())


@pytest.fixture(scope="module")
def found(moments):
    """Of a linear VAE whose noise is larger than what its loss says, so that further units would pay."""
    x, rng = data.digits()[:400], np.random.default_rng(0)
    part = Moments.from_samples(x)
    W, mu = linear_vae.fit(part, 4, 0.1).W, part.mean
    V, D = linear_vae.optimal_encoder(W, 0.1)
    mean = (x - mu) @ V.T
    draws = mean + np.sqrt(D) * rng.standard_normal((6, *mean.shape))
    return diagnose.of_codes(codes.of_arrays(x, mean, mean * 0 + np.log(D), draws @ W.T + mu), "nll(sigma2=0.1) + kl")


def test_a_forecast_says_what_to_write_and_it_holds(moments):
    predicted = forecast(moments, 16, "mean(se) + kl")
    said = report.text(predicted)
    assert said.startswith("ASKED FOR. The largest eigenvalue") and "theta = 32" in said
    offers = re.findall(r"For (\d+) latents multiply the weight of the KL by (\S+), or write (.*?): theta", said)
    assert [int(count) for count, _, _ in offers] == [8, 16]
    for count, factor, loss in offers:
        for objective in (loss, f"mean(se) + {factor}*kl"):
            again = forecast(moments, 16, objective)
            assert again.survivors == int(count)
        K, E = re.search(rf"{re.escape(loss)}: theta = \S+, K = (\S+) nats, E = (\S+)\.", said).groups()
        assert float(K) == pytest.approx(forecast(moments, 16, loss).kl, rel=1e-3)
        assert float(E) == pytest.approx(forecast(moments, 16, loss).distortion, rel=1e-3)
    learned = re.search(r"Learn sigma2, with the KL weighed 1: it goes to (\S+), (\d+) latents", said)
    assert float(learned[1]) == pytest.approx(spectrum.learned_sigma2(moments.eigenvalues, 16), rel=1e-3)


def test_the_loss_is_restated_as_it_is_read(moments):
    predicted = forecast(moments, 4, "2*mean(se) + 0.5*max(kl, 0.25)")
    objective = read("2*mean(se) + 0.5*max(kl, 0.25)", n=64, k=4)
    said = report.restated(predicted)
    assert f"{objective.data:g} times the squared error" in said and "0.5 times the KL" in said
    each = read("nll(sigma2) + kl", sigma2=np.linspace(0.1, 1, 64))
    assert "of each feature over its own sigma2" in report.restated(forecast(moments, 4, each))
    assert "0.25 nats are free" in said and f"theta = {objective.theta():g}" in said


def test_what_is_measured_stands_beside_what_is_predicted(found):
    rows = {row[0]: row for row in report.rows(found)}
    assert rows["K, KL divergence in nats"][2:] == (f"{found.forecast.kl:.4g}", f"{found.kl:.4g}")
    assert rows["J above the best linear VAE's"] == (
        "J above the best linear VAE's",
        "measured",
        "",
        f"{found.gap:.4g}",
    )
    assert all(predicted or measured for _, _, predicted, measured in rows.values())
    for written in (report.text(found), report.markdown(found)):
        assert all(cell in written for row in rows.values() for cell in row) and found.reason in written
    assert found.verdict == "another unit would pay" and "give it more latents" in report.text(found)
    table = [line for line in report.markdown(found).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {5}


class Page(HTMLParser):
    """Tags opened and not closed, and everything that a page would have to fetch."""

    def __init__(self):
        super().__init__()
        self.fetched, self.words = [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, text):
        self.words.append(text)


def test_the_page_needs_nothing_else_and_shows_text_as_text(found):
    parser = Page()
    parser.feed(report.html(found))
    assert not [one for one in parser.fetched if not one.startswith("data:image/png")]
    assert found.reason in parser.words and "url(http" not in report.html(found)
    strange = type(found)(**{**vars(found), "reason": "<b>R & D</b>"})
    assert "&lt;b&gt;R &amp; D&lt;/b&gt;" in report.html(strange)


def test_the_figure_has_the_panels_that_there_are_numbers_for(found, moments):
    for what, count in ((found, 4), (found.forecast, 3), (forecast(moments, 4, "sum(bce) + kl"), 1)):
        figure = report.figure(what)
        assert len(figure.axes) == count == len(report.described(what).split(","))
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
        plt.close(figure)
    bars = [patch.get_height() for patch in report.figure(found).axes[1].patches]
    assert bars == sorted(found.kl_per_unit, reverse=True)
    nothing = forecast(moments, 4, "sum(poisson) + kl")
    assert report.figure(nothing) is None and "othing exact" in report.html(nothing)
    plt.close("all")


def test_degenerate_spectra_are_drawn_and_told():
    for eigenvalues, k, loss in (
        ([1.0, 1.0], 2, "0.5*sum(se) + kl"),
        ([2.0, 0.0], 2, "0.5*sum(se) + kl"),
        ([3.0], 1, "se + kl"),
    ):
        predicted = forecast(eigenvalues, k, loss)
        assert report.text(predicted) and report.html(predicted)
        plt.close("all")
    assert "equals theta = 1" in report.verdict(forecast([1.0, 0.5], 1, "0.5*sum(se) + kl"))[1]
    assert report.verdict(forecast(moments_of_noise(), 2, "sum(bce) + 0.01*kl"))[0] == "alive"


def test_what_is_called_exact_depends_on_the_likelihood_and_on_the_threshold():
    for loss, J in (("0.5*sum(se) + kl", "J = -E / (2 theta) - K"), ("sum(bce) + kl", "J = -E / beta - K")):
        x = (np.random.default_rng(0).random((200, 5)) < 0.3).astype(float)
        model = (lambda x: (x[:, :2] - 0.3, 0 * x[:, :2])), (lambda z: np.full((len(z), 5), 0.3))
        rows = {row[0]: row[1] for row in report.rows(diagnose.diagnose(model, x, loss))}
        assert J in rows and rows["what these would add to J"] == ("approximate" if "bce" in loss else "exact")
    for theta, said in ((0.9, "no"), (1.0, "not decided"), (1.1, "yes")):
        rows = {row[0]: row[2] for row in report.rows(forecast([1.0, 0.5], 1, f"0.5*sum(se) + {theta}*kl"))}
        assert rows["complete collapse is a local maximum"] == said


def test_free_bits_and_not_an_eigenvalue_are_the_reason_where_they_are():
    for loss in ("0.5*sum(se) + 9*max(kl, 0.1)", "sum(bce) + 99*max(kl, 0.1)"):
        headline, reason = report.verdict(forecast(moments_of_noise(), 2, loss))
        assert headline == "alive" and "free bits" in reason and "above" not in reason


def moments_of_noise():
    return Moments.from_samples((np.random.default_rng(0).random((200, 5)) < 0.3).astype(float))


def test_at_is_the_closed_form():
    predicted = forecast([4.0, 2.0, 1.0], 2, "0.5*sum(se) + 9*kl")
    assert report.at(predicted, 1.5) == (2, pytest.approx(np.log(4 / 1.5 * 2 / 1.5) / 2), 4.0)
    assert report.at(predicted, 0.5, 5) == report.at(predicted, 0.5, 3)
