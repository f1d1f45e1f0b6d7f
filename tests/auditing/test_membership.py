import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from unlearnkit.auditing import MembershipInference

KEY = jax.random.key(0)


def draw(n, shift, seed=0, d=1):
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d)).astype(np.float32)


@pytest.mark.parametrize("attacker", ["logistic", "svm"])
def test_separates_two_normals_as_well_as_theory_allows(attacker):
    attack = MembershipInference(attacker=attacker)
    metrics = attack.attack(KEY, draw(3000, 1.0, 1), draw(3000, 0.0, 2)).metrics
    # Two unit normals one apart: the best accuracy is Φ(1/2), the AUC Φ(1/√2), and a one-sided
    # test of size α has power Φ(1 - Φ⁻¹(1 - α)).
    assert metrics["accuracy"] == pytest.approx(stats.norm.cdf(0.5), abs=0.015)
    assert metrics["auc"] == pytest.approx(stats.norm.cdf(np.sqrt(0.5)), abs=0.015)
    power = stats.norm.cdf(1 - stats.norm.ppf(0.99))
    assert metrics["tpr_at_fpr_0.01"] == pytest.approx(power, abs=0.025)
    assert metrics["tpr_at_fpr_0.001"] < metrics["tpr_at_fpr_0.01"]
    assert 0 < metrics["accuracy_se"] < 0.02


def test_knows_nothing_of_equal_distributions():
    metrics = MembershipInference().attack(KEY, draw(3000, 0.0, 1), draw(3000, 0.0, 2)).metrics
    assert metrics["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert metrics["auc"] == pytest.approx(0.5, abs=0.03)
    assert metrics["auc_max"] >= 0.5


def test_the_larger_set_is_subsampled_to_the_smaller():
    attack = MembershipInference()
    many = attack.attack(KEY, draw(4000, 0.0, 1), draw(200, 0.0, 2)).metrics
    assert many["accuracy"] < 0.65  # an unbalanced attack would answer "member" and score 0.95


def test_perfect_separation_is_found():
    audited = MembershipInference().attack(KEY, draw(100, 20.0, 1), draw(100, 0.0, 2))
    for name in ("accuracy", "auc", "f1", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001"):
        assert audited.metrics[name] == 1.0
    assert audited.curves["fpr"][0] == 0.0
    assert audited.curves["tpr"][-1] == 1.0


def test_features_of_several_dimensions_are_used_together():
    members, others = draw(1000, 0.0, 1, d=3), draw(1000, 0.0, 2, d=3)
    members[:, 0] += 5 * members[:, 1] + 2.5
    others[:, 0] += 5 * others[:, 1] - 2.5
    metrics = MembershipInference("logits", "svm").attack(KEY, members, others).metrics
    assert metrics["auc"] > 0.99


def test_same_key_same_verdict():
    sets = draw(300, 0.3, 1), draw(300, 0.0, 2)
    first, second = (MembershipInference().attack(KEY, *sets).metrics for _ in range(2))
    assert first == second
    assert MembershipInference().attack(jax.random.key(1), *sets).metrics != first


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="10 folds need at least 10 .* got 9 and 50"):
        MembershipInference(folds=10).attack(KEY, draw(9, 0.0), draw(50, 0.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"feature": "los"}, "unknown feature 'los'; known: loss"),
        ({"attacker": "forest"}, "unknown attacker 'forest'; known: logistic, svm"),
        ({"folds": 1}, "folds must be >= 2"),
        ({"C": 0.0}, "C must be > 0"),
    ],
)
def test_nonsense_is_refused(wrong, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        MembershipInference(**wrong)


def test_an_attack_is_a_value():
    attack = MembershipInference("margin", "svm")
    assert dataclasses.replace(attack, folds=None) == attack
    assert len({attack, MembershipInference("margin", "svm")}) == 1


def test_features_that_are_not_finite_are_refused():
    members = draw(20, 0.0)
    members[3] = np.nan
    with pytest.raises(ValueError, match="features of members must be finite"):
        MembershipInference().attack(KEY, members, draw(20, 0.0))
