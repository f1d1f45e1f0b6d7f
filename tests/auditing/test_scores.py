import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from unlearnkit.auditing import auc, score_attack, tpr_at_fpr

NORMAL = stats.norm


def normals(shift, n=4000, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, n), generator.normal(0, 1, n)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(2, 30), st.integers(0, 99))
def test_the_area_is_the_share_of_ordered_pairs(members, k, seed):
    members = np.array(members, float)
    others = np.random.default_rng(seed).integers(0, 6, k).astype(float)
    pairs = np.sign(members[:, None] - others[None, :])
    found = auc(members, others)
    assert found.value == pytest.approx(np.mean((pairs + 1) / 2))
    y = np.repeat([1, 0], [len(members), k])
    audited = score_attack(members, others)
    assert found.value == pytest.approx(roc_auc_score(y, np.concatenate([members, others])))
    area = np.trapezoid(audited.curves["tpr"], audited.curves["fpr"])
    assert area == pytest.approx(found.value)
    assert audited.metrics["auc_max"] >= 0.5


def test_normals_are_told_apart_as_theory_says():
    audited = score_attack(*normals(1.0))
    metrics = audited.metrics
    assert metrics["auc"] == pytest.approx(NORMAL.cdf(np.sqrt(0.5)), abs=4 * metrics["auc_se"])
    assert metrics["accuracy"] == pytest.approx(NORMAL.cdf(0.5), abs=0.02)
    for target in (0.01, 0.001):
        name = f"tpr_at_fpr_{target:g}"
        power = NORMAL.sf(NORMAL.isf(target) - 1)
        assert metrics[name] == pytest.approx(power, abs=0.02)
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]


def test_the_standard_error_is_that_of_repeated_samples():
    areas, errors = zip(*(auc(*normals(0.5, 60, seed)) for seed in range(400)), strict=True)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.1)


def test_a_turned_score_is_as_telling():
    members, others = normals(1.0, 500)
    metrics = score_attack(-members, -others).metrics
    assert metrics["auc"] < 0.3
    assert metrics["auc_max"] == pytest.approx(1 - metrics["auc"])


def test_no_more_others_than_allowed_are_above_the_threshold():
    members, others = np.full(10, 99.5), np.arange(100.0)
    assert tpr_at_fpr(members, others, 0.01)["tpr_at_fpr_0.01"] == 1.0
    assert tpr_at_fpr(members - 1, others, 0.001)["tpr_at_fpr_0.001"] == 0.0
    assert tpr_at_fpr(members - 1, others, 0.01)["tpr_at_fpr_0.01"] == 1.0
    assert tpr_at_fpr(np.full(10, 98.0), others, 0.01)["tpr_at_fpr_0.01"] == 0.0  # a tie is no hit


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="scores of members must be finite, got nan at index 1"):
        score_attack(np.array([0.0, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match="others must hold at least 1 example, got none"):
        score_attack(np.zeros(2), np.zeros(0))
