"""The figures: white behind, legible in grey, honest about bad input; and the one that the reader moves."""

import ast
import inspect
import itertools
import json
import re
import shutil
import subprocess
import sys
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pairs
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from helpers import collapse, plots, ppca, spectrum
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


@pytest.mark.parametrize("shown", [ppca.fit, ppca.PPCA, ppca.hessian_product, collapse.evaluate, Moments, plots.figure])
def test_show_source_leaves_out_lists_and_examples_and_nothing_else(shown):
    source = textwrap.dedent(inspect.getsource(shown))
    text = plots.show_source(shown).data.removeprefix("```python").removesuffix("```")
    assert "Parameters\n" in source and "-----" not in text and ">>>" not in text
    assert pairs.canonical(ast.parse(text)) == pairs.canonical(ast.parse(source))
    words = ast.get_docstring(ast.parse(text).body[0])
    assert words == inspect.getdoc(shown).split("\n\nParameters\n")[0]


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


def test_pictures_stand_beside_the_panels_under_their_own_names():
    grid, pictures = np.linspace(-1, 1, 5), [np.eye(5), -np.arange(25.0).reshape(5, 5)]
    fig, _ = plots.stability_panels(grid, grid, [np.zeros((5, 5))], ["a"], names=("v_2", "v_9"), pictures=pictures)
    drawn = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in drawn] == ["$v_2$", "$v_9$"]
    for ax, picture in zip(drawn, pictures, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), picture)
        assert ax.images[0].get_clim() == (-np.abs(picture).max(), np.abs(picture).max())  # zero lies in the middle
    fig.canvas.draw()
    assert drawn[0].get_position().x1 <= drawn[1].get_position().x0


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_panels_stand_two_a_row_and_have_letters(count):
    fig, axes = plots.panels(count)
    assert len(axes) == count and [ax.get_title(loc="left") for ax in axes] == list("abcde")[:count]
    fig.canvas.draw()
    places = [ax.get_position() for ax in axes]
    lefts = sorted({round(place.x0, 2) for place in places})
    assert len(lefts) == 2 and len({round(place.y0, 2) for place in places}) == (count + 1) // 2
    if count % 2:
        assert places[-1].width > 1.8 * places[0].width
    with pytest.raises(ValueError, match="count is 1"):
        plots.panels(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": [0, 2, 1, 3, 4]}, "a is .*expected ascending"),
        ({"titles": "a"}, "titles is 'a'; expected a list"),
        ({"titles": [1]}, r"titles is \[1\]; expected a list of texts"),
        ({"names": ("u",)}, "there are 1 names and 0 pictures"),
        ({"pictures": [np.eye(2)]}, "there are 2 names and 1 pictures"),
        ({"pictures": None}, "pictures is None"),
        ({"gains": None}, "gains is None"),
    ],
)
def test_stability_panels_name_what_does_not_fit(options, message):
    grid = np.arange(5.0)
    with pytest.raises(ValueError, match=message):
        plots.stability_panels(**{"a": grid, "b": grid, "gains": [np.zeros((5, 5))], "titles": ["a"], **options})


def test_figures_have_a_size():
    for options in ({"width": 0}, {"height": "3"}, {"width": 1e9}, {"rows": 0}, {"columns": 1.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))} is|width is 1"):
            plots.figure(**options)


@pytest.mark.parametrize("bad", [None, "moments", EIGENVALUES, {"eigenvalues": EIGENVALUES}])
def test_explorers_need_moments(bad):
    for call in (plots.landscape_explorer, lambda m: plots.spectrum_explorer(m, 3)):
        with pytest.raises(ValueError, match=r"^moments is .*expected Moments"):
            call(bad)


@pytest.mark.parametrize(
    "call", [lambda m: plots.spectrum_explorer(m, 3), plots.landscape_explorer, lambda m: plots.show_source(ppca.fit)]
)
def test_without_ipython_the_reader_is_told_what_to_install(call, moments, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(ImportError, match=r"pip install 'posterior-collapse-book\[book\]'"):
        call(moments)


@pytest.mark.parametrize("bad", [abs, 3, None, "fit", int])
def test_only_what_has_source_is_shown(bad):
    with pytest.raises(ValueError, match=r"^function is"):
        plots.show_source(bad)


def test_spectrum_explorer_shows_data_of_any_scale():
    """Eigenvalues below 1e-12 are data as well, where all are; those far below the largest are drawn, not at 0."""
    small = Moments(np.zeros(4), np.diag([4e-13, 2e-13, 1e-14, 0.0]), 100)
    numbers = json.loads(re.search(r"data-numbers='(.*?)'", plots.spectrum_explorer(small, 2, 1e-13).data).group(1))
    np.testing.assert_allclose(numbers["eigenvalues"], [4e-13, 2e-13, 1e-14, 4e-25], rtol=1e-3)


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
    assert 'type="range"' in page and "<label>" in page and "aria-live" in page and "--paper: #fff" in page
    numbers = json.loads(re.search(r"data-numbers='(.*?)'", page).group(1))
    np.testing.assert_allclose(numbers["eigenvalues"], EIGENVALUES[: len(numbers["eigenvalues"])], atol=1e-5)
    assert page == plots.landscape_explorer(moments).data
    assert "Run this cell" in re.sub(r"(?s)<script>.*?</script>|<style>.*?</style>", "", page)  # what untrusted shows


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
    assert "aria-live" in page and "--paper: #fff" in page
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


def history(**curves):
    """A record that has a training history, each keyword (epochs, M), and nothing else."""
    epochs = len(next(iter(curves.values())))
    variables = {f"history_{name}": (("epoch", "member"), values) for name, values in curves.items()}
    return xr.Dataset(variables, {"epoch": np.arange(1, epochs + 1)})


def names_at(ax):
    """Heights of the texts beside the axes, in the units of the vertical axis, by name."""
    to_data = ax.transAxes + ax.transData.inverted()
    return {text.get_text(): to_data.transform((0, text.get_position()[1]))[1] for text in ax.texts}


def test_training_curves_draw_each_member_and_name_it_at_its_end():
    t = np.arange(1, 101)
    elbo = np.stack([10 - 500 / t**2, 30 - 500 / t**2, 50 - 500 / t**2], axis=1)
    fig, ax = plots.figure()
    plots.training_curves(ax, history(elbo=elbo, kl=-elbo), ["a", "b", "c"])
    for line, values in zip(ax.lines, elbo.T, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([t, values], axis=1))
    assert len({line.get_linestyle() for line in ax.lines}) == 3  # told apart in grey
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.lines]
    assert names_at(ax) == pytest.approx(dict(zip("abc", elbo[-1], strict=True)), abs=1e-6)
    low, high = ax.get_ylim()
    assert elbo[0].max() < low < elbo[10:].min() and high > elbo.max()
    fig.canvas.draw()
    fig, ax = plots.figure()
    plots.training_curves(ax, history(elbo=elbo, kl=-elbo), ["a", "b", "c"], quantity="kl")
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), -elbo[:, 1])


def test_training_curves_that_end_together_are_named_one_above_the_other():
    elbo = np.linspace([0.0, 10.0, 5.0], [100.0, 100.2, 40.0], 50)
    fig, ax = plots.figure()
    plots.training_curves(ax, history(elbo=elbo), ["low", "high", "far"])
    heights = names_at(ax)
    assert heights["far"] == pytest.approx(40.0)
    assert heights["low"] < 100.0 and heights["high"] > 100.2
    fig.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))


def test_training_curves_of_members_that_diverged_or_leave_the_axes():
    elbo = np.linspace([0.0, 0.0, 0.0, 0.0], [10.0, 20.0, -900.0, 30.0], 20)
    elbo[10:, 0], elbo[:, 3] = np.nan, -np.inf
    _, ax = plots.figure()
    plots.training_curves(ax, history(elbo=elbo), ["stops", "goes on", "falls out", "never was"], ylim=(-50, 30))
    assert names_at(ax) == pytest.approx({"stops": elbo[9, 0], "goes on": 20.0})
    _, ax = plots.figure()
    plots.training_curves(ax, history(elbo=elbo), ["stops", "goes on", "falls out", "never was"])
    assert np.isfinite(ax.get_ylim()).all() and ax.get_ylim()[0] < -900


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c"]])
def test_curves_reject_labels_that_do_not_fit(labels):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=f"there are {len(labels)} labels for 2 members"):
        plots.training_curves(ax, history(elbo=np.zeros((5, 2))), labels)
    with pytest.raises(ValueError, match=f"there are {len(labels)} labels for 2 members"):
        plots.inactive_curves(ax, np.ones((2, 3)), labels)
    with pytest.raises(ValueError, match="there are 7 labels for 7 members"):
        plots.training_curves(ax, history(elbo=np.zeros((5, 7))), list("abcdefg"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax, r: plots.training_curves(None, r, ["a", "b"]), "ax is None; expected axes"),
        (lambda ax, r: plots.training_curves(ax, None, ["a", "b"]), r"record is None.*; expected Dataset"),
        (lambda ax, r: plots.training_curves(ax, r[[]], ["a", "b"]), "record lacks history_elbo"),
        (lambda ax, r: plots.training_curves(ax, r, "ab"), "labels is 'ab'; expected a list"),
        (lambda ax, r: plots.training_curves(ax, r, ["a", 2]), "labels is .*expected a list of texts"),
        (lambda ax, r: plots.training_curves(ax, r, ["a", "b"], "loss"), "quantity is 'loss'; expected one of"),
        (lambda ax, r: plots.training_curves(ax, r, ["a", "b"], ylim=(2, 1)), "ylim is .*expected ascending"),
        (lambda ax, r: plots.training_curves(ax, r, ["a", "b"], ylim=3), r"ylim has shape \(\)"),
        (lambda ax, r: plots.inactive_curves("ax", np.ones((2, 3)), ["a", "b"]), "ax is 'ax'"),
        (lambda ax, r: plots.inactive_curves(ax, np.ones((2, 3)), ["a", "b"], earlier=3), "earlier is"),
        (lambda ax, r: plots.learned_variance([ax, ax], {"a": r}), "axes has 2 of them; expected three"),
        (lambda ax, r: plots.learned_variance([ax] * 3, {}), "ways has 0 records"),
        (lambda ax, r: plots.learned_variance([ax] * 3, [r]), "ways is .*expected dict"),
        (lambda ax, r: plots.learned_variance([ax] * 3, {"a": r[[]]}), "record lacks history_elbo"),
    ],
)
def test_curves_name_what_does_not_fit(call, message):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=message):
        call(ax, history(elbo=np.zeros((5, 2)), sigma2=np.ones((5, 2))))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 0.3))
def test_apart_moves_names_as_little_as_possible(heights, gap):
    heights = np.array(heights)
    moved = plots._apart(heights, gap)
    order = np.argsort(heights, kind="stable")
    assert (np.diff(moved[order]) >= gap - 1e-9).all()
    # The same by bounded least squares: the lowest is free, each further one at least `gap` above the one before.
    count = len(heights)
    lower = np.r_[-np.inf, np.full(count - 1, gap)]
    best = lsq_linear(np.tril(np.ones((count, count))), heights[order], (lower, np.inf), tol=1e-12)
    assert ((moved - heights) ** 2).sum() <= 2 * best.cost + 1e-6


def test_inactive_curves_are_the_shares_below_each_threshold():
    kl = np.array([[0.0, 0.002, 0.5, 2.0], [0.3, 0.3, 1.0, 3.0]])
    snapshot, predicted = kl + 0.1, np.full((2, 4), 0.7)
    _, ax = plots.figure()
    plots.inactive_curves(ax, kl, ["a", "b"], snapshot, predicted, earlier="epoch 8")
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    for line, values in zip(drawn, [*kl, *snapshot, *predicted], strict=True):
        thresholds, share = line.get_data()
        np.testing.assert_array_equal(share, [(values < threshold).mean() for threshold in thresholds])
        assert thresholds[0] == pytest.approx(1e-3) and share[-1] == 1
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(named) == sorted(["a", "b", "trained", "epoch 8", "linear optimum"])
    assert ax.get_xscale() == "log"


def test_inactive_curves_can_be_told_apart_in_grey():
    kl = np.array([[0.0, 0.5], [0.0, 0.5]])  # two curves that coincide
    _, ax = plots.figure()
    plots.inactive_curves(ax, kl, ["a", "b"], snapshot=kl)
    first, second, early, _ = (line for line in ax.lines if len(line.get_xdata()))
    assert first.get_marker() != second.get_marker() and first.get_marker() == early.get_marker()
    assert first.get_linestyle() != early.get_linestyle()
    assert first.get_markerfacecolor() != early.get_markerfacecolor() == "white"
    places = [set(range(line.get_markevery()[0], 561, line.get_markevery()[1])) for line in (first, second)]
    assert not places[0] & places[1]
    assert "trained" in [text.get_text() for text in ax.get_legend().get_texts()]
    _, ax = plots.figure()
    plots.inactive_curves(ax, kl, ["a", "b"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": np.full((2, 3), np.nan)}, "kl contains NaN"),
        ({"snapshot": np.ones((2, 4))}, "snapshot has shape"),
        ({"predicted": np.ones((1, 3))}, "predicted has shape"),
        ({"low": 0.0}, "low is 0.0"),
    ],
)
def test_inactive_curves_reject_what_does_not_fit(options, message):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=message):
        plots.inactive_curves(ax, **{"kl": np.ones((2, 3)), "labels": ["a", "b"], **options})
