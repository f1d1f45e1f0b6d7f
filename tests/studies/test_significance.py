"""Verdicts: paired differences, corrections, words."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.base import Cost
from unlearnkit.records import Record
from unlearnkit.reporting import MISSING, verdict_rows, verdicts_to_markdown
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    benjamini_hochberg,
    cell_from_json,
    cell_to_json,
    holm,
    significance,
)

FREE = Cost(0.0, 0.0)


def cells(values, question="q", metric="m", **where):
    """Returns records of {method: a value a seed}; None has no metric."""
    return [
        Record(
            method, seed, {} if value is None else {metric: value}, FREE, question=question, **where
        )
        for method, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def test_the_paired_test_is_that_of_scipy():
    original, method = [0.5, 0.6, 0.4, 0.55], [0.3, 0.45, 0.28, 0.31]
    (cell,) = significance(cells({ORIGINAL: original, "a": method}), "m", correction="none")
    expected = stats.ttest_rel(method, original)
    interval = expected.confidence_interval(0.95)
    assert cell.to_original.p_value == pytest.approx(expected.pvalue)
    assert (cell.to_original.low, cell.to_original.high) == pytest.approx(tuple(interval))
    assert cell.distance == pytest.approx(np.mean(method))
    assert cell.verdict == "nearer"
    assert cell.words.startswith("nearer to Retrain than the untouched network by 0.177")


def test_a_metric_that_the_reference_has_becomes_a_distance_to_it_seed_by_seed():
    """The method's value lies beyond the reference's: farther, although it is below the other's."""
    records = cells(
        {ORIGINAL: [0.5, 0.52, 0.51], RETRAIN: [0.4, 0.42, 0.41], "a": [0.1, 0.13, 0.11]}
    )
    (cell,) = significance(records, "m")
    assert cell.distance == pytest.approx(np.mean([0.3, 0.29, 0.3]))
    assert cell.to_original.mean == pytest.approx(0.2 - 0.01 / 3)
    assert cell.to_retrain.mean == pytest.approx(-0.89 / 3)
    assert cell.verdict == "farther"


def test_a_distance_is_taken_as_it_is():
    records = cells({ORIGINAL: [0.5, 0.6], RETRAIN: [None, None], "a": [0.1, 0.1]})
    (cell,) = significance(records, "m")
    assert cell.distance == pytest.approx(0.1)
    assert math.isnan(cell.to_retrain.mean)


def test_behind_a_defence_the_reference_is_that_of_no_defence():
    plain = cells({ORIGINAL: [0.5, 0.5], RETRAIN: [0.4, 0.4]})
    behind = cells({ORIGINAL: [0.45, 0.44], "a": [0.41, 0.4]}, defence="sever")
    (cell,) = significance(plain + behind, "m")
    assert cell.distance == pytest.approx(0.005)
    assert cell.to_original.mean == pytest.approx(0.005 - 0.045)


def test_one_seed_decides_nothing_and_no_seed_has_no_result():
    records = cells({ORIGINAL: [0.5], "a": [0.1], "b": [None]})
    a, b = significance(records, "m")
    assert (a.verdict, a.to_original.low, a.to_original.high) == ("undecided", -np.inf, np.inf)
    assert b.verdict == "no result"
    assert "no seed" in b.words


def test_correction_takes_away_what_many_cells_make_by_chance():
    """Fifty methods that do nothing: about two and a half pass uncorrected, none by Holm."""
    generator = np.random.default_rng(0)
    values = {ORIGINAL: list(0.5 + 0.1 * generator.normal(size=6))}
    values |= {f"m{i}": list(0.5 + 0.1 * generator.normal(size=6)) for i in range(50)}
    verdicts = {
        correction: sum(
            cell.verdict != "undecided"
            for cell in significance(cells(values), "m", correction=correction)
        )
        for correction in ("none", "holm", "benjamini-hochberg")
    }
    assert verdicts["none"] >= 1
    assert verdicts["holm"] == verdicts["benjamini-hochberg"] == 0


def test_all_cells_of_a_study_are_corrected_together():
    one = cells({ORIGINAL: [0.5, 0.6, 0.4], "a": [0.4, 0.52, 0.27]})
    two = cells({ORIGINAL: [0.5, 0.6, 0.4], "a": [0.4, 0.52, 0.27]}, question="p")
    (alone,) = significance(one, "m")
    both = significance(one + two, "m")
    assert [cell.question for cell in both] == ["q", "p"]
    for cell in both:
        assert cell.to_original.adjusted == pytest.approx(2 * alone.to_original.adjusted)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12))
def test_corrected_p_values(p_values):
    given_values = np.array(p_values, float)
    tested = ~np.isnan(given_values)
    m = tested.sum()
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(given_values)
        assert np.array_equal(np.isnan(adjusted), ~tested)
        assert np.all(adjusted[tested] >= given_values[tested] - 1e-12)
        assert np.all(adjusted[tested] <= np.minimum(1, m * given_values[tested]) + 1e-12)
        order = np.argsort(given_values[tested], kind="stable")
        assert np.all(np.diff(adjusted[tested][order]) >= -1e-12)
    assert np.all(holm(given_values)[tested] >= benjamini_hochberg(given_values)[tested] - 1e-12)


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"primary": "other"}, "no record has the metric 'other'; there are m"),
        ({"level": 1.0}, "level must be in"),
        ({"correction": "bonferroni"}, "correction must be"),
    ],
)
def test_refuses(arguments, message, unchecked_types):
    records = cells({ORIGINAL: [0.5, 0.6], "a": [0.1, 0.1]})
    with pytest.raises(ValueError, match=message):
        significance(records, **{"primary": "m", **arguments})


def test_cells_go_through_json_and_back():
    records = cells({ORIGINAL: [0.5, 0.6], RETRAIN: [0.4, 0.3], "a": [0.1, 0.2], "b": [0.1, None]})
    for cell in significance(records, "m"):
        back = cell_from_json(json.loads(json.dumps(cell_to_json(cell), allow_nan=False)))
        assert repr(back) == repr(cell)


def test_the_table_has_a_row_for_each_method_and_a_column_for_each_question():
    records = cells({ORIGINAL: [0.5, 0.6, 0.4], "a": [0.1, 0.21, 0.02], "b": [0.5, 0.62, 0.38]})
    records += cells({ORIGINAL: [0.5, 0.6, 0.4], "a": [0.5, 0.62, 0.38]}, question="p|x")
    found = significance(records, "m")
    head, body = verdict_rows(found, decimals=2)
    assert head == ["Method", "q", "p|x"]
    assert [row[0] for row in body] == ["a", "b"]
    assert body[0][1].startswith("0.11 [-0.4")
    assert body[0][1].endswith("↓")
    assert not body[1][1].endswith(("↓", "↑"))
    assert body[1][2] == MISSING
    lines = verdicts_to_markdown(found).splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
