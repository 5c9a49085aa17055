"""The figures: white behind, legible in grey, honest about bad input; and the one that the reader moves."""

import json
import re
import shutil
import subprocess

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import plots, ppca, spectrum
from helpers.moments import Moments

EIGENVALUES = np.array([5.0, 3.8, 3.2, 2.8, 2.6, 2.3, 1.7, 1.5, 0.4, 0.2])
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def moments():
    return Moments(np.zeros(10), np.diag(EIGENVALUES), 100)


def surfaces(moments, sigmas, grid):
    gains = []
    for sigma2 in sigmas:
        model = ppca.stationary_point(moments, [0, 1, 2], 4, sigma2)
        plane = moments.eigenvectors[:, [4, 6]]
        gains.append(ppca.landscape(model, moments, 3, plane, grid, grid) - model.log_likelihood(moments))
    return gains


def test_figure_is_white_behind_and_its_style_lasts():
    fig, ax = plots.figure()
    assert fig.get_facecolor() == (1, 1, 1, 1) and ax.get_facecolor() == (1, 1, 1, 1)
    (line,) = ax.plot([0, 1], label="a line")
    assert line.get_linewidth() == plots.STYLE["lines.linewidth"]
    assert not ax.legend().get_frame_on()


def test_heights_keep_their_order_in_grey():
    rgb = plt.get_cmap(plots.HEIGHT)(np.linspace(0, 1, 256))[:, :3]
    assert (np.diff(rgb @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_show_source_shows_the_package():
    text = plots.show_source(ppca.gradient).data
    assert text.startswith("```python\ndef gradient(model, moments):") and text.endswith("```")
    compile(text.removeprefix("```python").removesuffix("```"), "shown", "exec")
    assert "\n    return" in plots.show_source(ppca.PPCA.posterior).data


def test_stability_panels_mark_the_summits(moments):
    grid = np.linspace(-2, 2, 81)
    gains = surfaces(moments, (1.0, 2.1, 3.0), grid)
    pictures = np.arange(50.0).reshape(2, 5, 5)
    fig, axes = plots.stability_panels(grid, grid, gains, ["a", "b", "c"], pictures=pictures)
    assert len(fig.axes) == 5 and all(axis.get_xlabel() and axis.get_title() for axis in axes)
    assert axes[0].get_ylabel()
    for axis, summits in zip(axes, (2, 2, 1), strict=True):
        assert len(axis.texts) == summits
    # Along u5 the summit lies at the square root of lambda_5 - sigma2.
    assert abs(abs(axes[0].texts[0].xy[0]) - np.sqrt(2.6 - 1.0)) < 0.05
    assert fig.get_facecolor() == (1, 1, 1, 1)
    fig.canvas.draw()


def test_stability_panels_reject_what_does_not_fit(moments):
    grid = np.linspace(-1, 1, 5)
    with pytest.raises(ValueError, match="an entry of gains"):
        plots.stability_panels(grid, grid, [np.zeros((4, 5))], ["a"])
    with pytest.raises(ValueError, match="2 titles for 1 gains"):
        plots.stability_panels(grid, grid, [np.zeros((5, 5))], ["a", "b"])
    with pytest.raises(ValueError, match="b contains NaN"):
        plots.stability_panels(grid, np.full(5, np.nan), [np.zeros((5, 5))], ["a"])


def test_explorer_is_small_self_contained_and_labelled(moments):
    page = plots.landscape_explorer(moments).data
    assert 2_000 < len(page.encode()) < 20_000
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|src=|\bid=", page)
    assert not re.search(r"__[A-Z]+__", page)
    assert 'type="range"' in page and "<label>" in page and "aria-live" in page and "background: #fff" in page
    numbers = json.loads(re.search(r"data-numbers='(.*?)'", page).group(1))
    np.testing.assert_allclose(numbers["eigenvalues"], EIGENVALUES[: len(numbers["eigenvalues"])], atol=1e-5)
    assert page == plots.landscape_explorer(moments).data


@pytest.mark.parametrize(
    "options",
    [{"used": 0}, {"directions": (6, 4)}, {"directions": (2, 6)}, {"start": 3.3}, {"low": 0.0}, {"reach": np.nan}],
)
def test_explorer_rejects(moments, options):
    with pytest.raises(ValueError, match=next(iter(options)).replace("directions", "direction")):
        plots.landscape_explorer(moments, **options)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
@pytest.mark.parametrize(
    ("sigma2", "escapes", "in_plane", "full"),
    [
        (1.0, "u₄, u₅, u₆, u₇, and 1 further", "minimum", "saddle"),
        (2.1, "u₄, u₅, u₆", "saddle", "saddle"),
        (2.7, "u₄", "maximum", "saddle"),
        (3.0, "none", "maximum", "maximum"),
    ],
)
def test_explorer_says_what_the_package_computes(moments, tmp_path, sigma2, escapes, in_plane, full):
    model = ppca.stationary_point(moments, [0, 1, 2], 4, sigma2)
    assert ppca.is_stable(model, moments) == (full == "maximum")
    gain = surfaces(moments, [sigma2], np.linspace(-2, 2, 401))[0].max()
    move = f"const i = document.querySelector('input'); i.value = {sigma2}; i.dispatchEvent(new Event('input'));"
    errors = "<script>window.onerror = e => document.title = e;</script>"
    page = tmp_path / "page.html"
    html = plots.landscape_explorer(moments).data
    page.write_text(f"<!doctype html><meta charset='utf-8'>{errors}{html}<script>{move}</script>", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "<title>" not in dom  # an error would have written one
    said = re.search(r"<output[^>]*>(.*?)</output>", dom).group(1)
    assert said.startswith(f"σ² = {sigma2:.2f}. Escape directions among u₄ to u₇: {escapes}")
    assert f"the ring at the centre is a {in_plane}" in said and f"In the full space it is a {full}" in said
    if in_plane != "maximum":
        assert abs(float(re.search(r"rises ([\d.]+) nats", said).group(1)) - gain) < 6e-4
    assert f'aria-valuetext="sigma squared {sigma2:.2f}: {in_plane}' in dom


def test_spectrum_explorer_is_small_self_contained_and_labelled(moments):
    page = plots.spectrum_explorer(moments, 6).data
    assert 2_000 < len(page.encode()) < 20_000
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|src=|\bid=", page)
    assert not re.search(r"__[A-Z0-9]+__", page)
    assert page.count('type="range"') == 2 and page.count("<label>") == 2
    assert "aria-live" in page and "background: #fff" in page
    numbers = json.loads(re.search(r"data-numbers='(.*?)'", page).group(1))
    assert numbers == {"eigenvalues": list(EIGENVALUES[:8]), "k": 6, "n": 10, "rest": 0.6}
    assert page == plots.spectrum_explorer(moments, 6).data


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"k": 11}, {"sigma2": 0.0}, {"sigma2": 1e-5}, {"sigma2": 100.0}, {"beta": 0.001}, {"beta": np.nan}],
)
def test_spectrum_explorer_rejects(moments, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        plots.spectrum_explorer(moments, **{"k": 6, **options})


def test_spectrum_explorer_needs_variance():
    with pytest.raises(ValueError, match="largest eigenvalue"):
        plots.spectrum_explorer(Moments(np.zeros(3), np.zeros((3, 3)), 10), 1)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
@pytest.mark.parametrize(("log_sigma2", "log_beta"), [(-1.0, 0.0), (0.0, 0.5), (-2.0, -1.0), (0.3, 0.6), (0.0, -0.4)])
def test_spectrum_explorer_says_what_the_package_computes(moments, tmp_path, log_sigma2, log_beta):
    sigma2, beta, k = 10**log_sigma2, 10**log_beta, 6
    alive = int(spectrum.active(EIGENVALUES[:k], sigma2, beta).sum())
    rate, lost = spectrum.kl(EIGENVALUES[:k], sigma2, beta).sum(), spectrum.distortion(EIGENVALUES, k, sigma2, beta)
    move = "const i = document.querySelectorAll('input');"
    move += f"i[0].value = {log_sigma2}; i[1].value = {log_beta}; i[1].dispatchEvent(new Event('input'));"
    errors = "<script>window.onerror = e => document.title = e;</script>"
    page = tmp_path / "page.html"
    html = plots.spectrum_explorer(moments, k).data
    page.write_text(f"<!doctype html><meta charset='utf-8'>{errors}{html}<script>{move}</script>", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "<title>" not in dom  # an error would have written one
    said = re.search(r"<output[^>]*>(.*?)</output>", dom).group(1)
    assert f": {alive} of {k} latents survive" in said
    assert f"KL {rate:.1f} nats, distortion {lost:.2f}," in said
    learned = spectrum.learned_sigma2(EIGENVALUES, k, beta)
    assert f"would {'fall' if learned < sigma2 else 'rise'}." in said
    assert f'aria-valuetext="beta {beta:.3g}: {alive} of {k} latents survive"' in dom
    assert "NaN" not in dom and "undefined" not in dom
