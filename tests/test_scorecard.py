"""The scorecard: verdicts, what is refused, and the page made of the rows."""

import json

import numpy as np
import pytest
import scorecard_page

from helpers.scorecard import FIGURES, Scorecard


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [([True, True], "reproduced"), ([True, False], "partly"), ([False], "not reproduced"), (None, "not yet run")],
)
def test_verdict_follows_from_the_parts(holds, verdict, capsys):
    assert Scorecard("09_x").claim("Table 1", "a < b", holds, "1", "2", "quick") == verdict
    assert f"Table 1 · a < b: {verdict}" in capsys.readouterr().out


def test_a_run_that_cannot_decide_gives_no_verdict_and_says_why():
    card = Scorecard("09_x")
    assert card.claim("Figure 3", "a < b", [True], "1", "2", "laptop", undecided="it still rises") == "not decided"
    assert card.rows[0].ours == "2. But it still rises"
    assert card.claim("Figure 3", "a < b", None, "1", "2", "laptop", undecided="it still rises") == "not yet run"
    assert card.show("Figure 10", "pictures", "3", "laptop") == "shown, not judged"


def test_bad_rows_are_refused():
    with pytest.raises(ValueError, match="figure is 'Figure 12'; expected one of Figure 1,"):
        Scorecard("09_x").claim("Figure 12", "a", [True], "1", "2", "quick")
    for name in ("claim", "paper", "ours", "run"):
        words = {"claim": "a", "paper": "1", "ours": "2", "run": "quick", name: None}
        with pytest.raises(ValueError, match=f"{name} is None; expected words"):
            Scorecard("09_x").claim("Figure 1", holds=[True], **words)
    with pytest.raises(ValueError, match="figure is 'Figure 12'"):
        Scorecard("09_x").show("Figure 12", "a", "b", "quick")
    with pytest.raises(ValueError, match="holds is empty"):
        Scorecard("09_x").claim("Figure 1", "a", [], "1", "2", "quick")


@pytest.mark.parametrize(
    "holds",
    [
        *("no", True, {"a": True}, {True}, 1, [1, 0], [1.0], [None], ["yes"], [[True]], (part for part in [True])),
        *(np.ones(2), np.ones((2, 2), bool), np.ma.array([True, True], mask=[True, False])),
    ],
)
def test_a_verdict_comes_of_booleans_alone(holds):
    """Text, numbers and nested lists have a truth as well, and it is nearly always true."""
    card = Scorecard("09_x")
    with pytest.raises(ValueError, match=r"holds is .*expected a list of booleans, or None"):
        card.claim("Figure 1", "a", holds, "1", "2", "quick")
    with pytest.raises(ValueError, match="holds is"):
        card.claim("Figure 1", "a", holds, "1", "2", "quick", undecided="it still rises")
    assert not card.rows


def test_numpys_booleans_are_real_ones():
    for holds in (np.array([1, 2, 3]) > 1, [np.True_, False], (True, False)):
        assert Scorecard("09_x").claim("Figure 1", "a", holds, "1", "2", "quick") == "partly"


def test_page_lists_every_figure_and_links_to_the_chapter(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_SCORECARD", str(tmp_path))
    Scorecard("10_b").claim("Figure 5", "rises | falls", [True], "p", "o", "paper")
    first = Scorecard("09_a")
    first.claim("Table 1", "ordered", [True, False], "p", "o", "laptop")
    first.claim("Figure 3", "smaller is better", [False], "p", "o", "laptop")
    rows = scorecard_page.merge(tmp_path)
    assert [row["figure"] for row in rows] == ["Figure 3", "Figure 5", "Table 1"]
    assert json.loads((tmp_path / "09_a.json").read_text())[0]["verdict"] == "partly"
    text = scorecard_page.table(rows)
    assert "**3 claims: 1 reproduced, 1 partly, 1 not reproduced.**" in text
    row = r"| [Figure 5](../notebooks/10_b.ipynb) | rises \| falls | "
    assert row + '<strong class="reproduced">reproduced</strong> | p | o | paper |' in text
    assert text.count("not yet run") == len(FIGURES) - 3
