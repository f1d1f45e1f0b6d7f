import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing.intervals import (
    clopper_pearson,
    gap_and_reach,
    mean_and_error,
    mean_and_reach,
    rate,
)


@given(st.integers(1, 200), st.data())
def test_ends_are_where_the_tails_hold_a_fortieth(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(successes, trials)
    assert low <= successes / trials <= high
    if successes:
        assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
    if successes < trials:
        assert stats.binom.cdf(successes, trials, high) == pytest.approx(0.025, rel=1e-6)
    oracle = stats.binomtest(successes, trials).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)


def test_a_rate_has_its_interval():
    assert set(rate("tpr", 3, 10)) == {"tpr", "tpr_low", "tpr_high"}
    assert rate("tpr", 3, 10)["tpr"] == 0.3


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes must be in"):
        clopper_pearson(successes, trials)
    with pytest.raises(ValueError, match="confidence must be in"):
        clopper_pearson(1, 2, confidence=1.0)


def test_the_standard_error_is_that_of_the_mean():
    values = [0.2, 0.5, 0.9, 0.4]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(stats.sem(values))


def test_student_s_interval_is_of_each_column_and_has_no_width_for_one_value():
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    mean, reach = mean_and_reach(rows, 0.9)
    low, high = stats.t.interval(0.9, 2, 3.0, stats.sem(rows[:, 0]))
    np.testing.assert_allclose(mean, [3.0, 5.0])
    np.testing.assert_allclose(reach[0], (high - low) / 2)
    assert reach[1] == 0
    alone, unknown = mean_and_reach([2.5])
    assert float(alone) == 2.5
    assert np.isnan(unknown)


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=9),
    st.lists(st.floats(-5, 5), min_size=2, max_size=9),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_welch_s_interval_is_scipy_s(first, second, level):
    mean, reach = gap_and_reach(first, second, level)
    np.testing.assert_allclose(mean, np.mean(first) - np.mean(second), atol=1e-12)
    if min(np.var(first), np.var(second)) < 1e-6:  # scipy warns
        return
    oracle = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    np.testing.assert_allclose([mean - reach, mean + reach], oracle, rtol=1e-6, atol=1e-9)


def test_two_means_without_spread_differ_surely_and_one_value_has_no_interval():
    assert gap_and_reach([2.0, 2.0], [1.0, 1.0, 1.0]) == (1.0, 0.0)
    gap, reach = gap_and_reach([2.0], [1.0, 3.0])
    assert gap == 0.0
    assert np.isnan(reach)
