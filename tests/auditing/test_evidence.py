"""What so many examples can show."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing import least_p_value, least_visible_auc, needs, rank_p_value


@pytest.mark.parametrize(("members", "others"), [(1, 4), (2, 3), (3, 3)])
def test_the_least_p_value_is_that_of_counting_all_orders(members, others):
    places = list(itertools.combinations(range(members + others), members))
    sums = [sum(p) for p in places]
    extreme = sum(s in (min(sums), max(sums)) for s in sums)
    assert least_p_value(members, others) == pytest.approx(extreme / len(places))


def test_large_numbers_are_counted_by_logarithms_alike():
    exact = 2 / np.prod([(60 + i) / i for i in range(1, 61)])
    assert least_p_value(60, 60) == pytest.approx(exact)
    assert least_p_value(5000, 5000) == 0.0


@given(st.integers(1, 40), st.integers(1, 40))
def test_more_unseen_examples_show_more(members, others):
    assert least_p_value(members, others + 1) <= least_p_value(members, others)
    assert least_visible_auc(members, others + 1) <= least_visible_auc(members, others)


def test_one_row_needs_39_unseen_ones_and_tells_no_rate():
    found = {need.statement: need for need in needs(1, 30)}
    first, second = list(found.values())[:2]
    assert (first.unseen, first.met) == (39, False)
    assert second.unseen == 199
    assert least_p_value(1, 39) == pytest.approx(0.05)
    assert not any("false positive" in statement for statement in found)
    assert list(found.values())[-1].unseen is None
    assert needs(1, 39)[0].met


def test_the_visible_auc_is_seen_in_four_audits_of_five():
    """Normal scores of that AUC, by simulation."""
    rng, m, k = np.random.default_rng(0), 40, 60
    shift = np.sqrt(2) * stats.norm.ppf(least_visible_auc(m, k))
    seen = [
        stats.mannwhitneyu(rng.normal(shift, size=m), rng.normal(size=k)).pvalue < 0.05
        for _ in range(400)
    ]
    assert 0.72 < np.mean(seen) < 0.88


def test_the_rank_of_one_row_is_uniform():
    others = np.arange(19.0)
    found = sorted(rank_p_value(np.array([x]), others) for x in np.arange(20) - 0.5)
    assert found == pytest.approx(sorted(2 * [0.1 * i for i in range(1, 11)]))
    assert rank_p_value(np.array([7.0]), np.full(9, 7.0)) == 1.0


def test_several_rows_are_ranked_as_scipy_does():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=12), rng.normal(0.5, size=30)
    assert rank_p_value(one, other) == stats.mannwhitneyu(one, other).pvalue


@pytest.mark.parametrize(("members", "others"), [(0, 3), (1, -1)])
def test_bad_input(members, others):
    with pytest.raises(ValueError, match="members >= 1"):
        needs(members, others)
