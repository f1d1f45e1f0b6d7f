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
    for name, reach in (("accuracy", 0.025), ("auc", 0.025), ("tpr_at_fpr_0.01", 0.02)):
        assert metrics[name] - reach < metrics[f"{name}_low"] < metrics[name]
        assert metrics[name] < metrics[f"{name}_high"] < metrics[name] + reach


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


def test_a_classifier_that_learns_noise_by_heart_is_at_chance():
    """With 200 features for 100 examples it is right on all that it is fitted on."""
    sets = draw(50, 0.0, 1, d=200), draw(50, 0.0, 2, d=200)
    for attacker in ("logistic", "svm"):
        metrics = MembershipInference("logits", attacker).attack(KEY, *sets).metrics
        for name in ("accuracy", "auc"):
            assert abs(metrics[name] - 0.5) < 0.2
        assert metrics["tpr_at_fpr_0.01"] < 0.3


def test_no_more_others_than_the_target_allows_are_called_members():
    """Of 50 others one is 2 %: at a target of 1 % the threshold is above all of them."""
    others = np.linspace(0, 1, 50)[:, None]
    members = np.concatenate([np.full((40, 1), 0.99), np.full((10, 1), 1.5)])
    metrics = MembershipInference().attack(KEY, members, others).metrics
    # The one other at 1 is above 40 members; scores of several folds differ a little.
    assert metrics["tpr_at_fpr_0.01"] < 0.5
    assert metrics["tpr_at_fpr_0.001"] == metrics["tpr_at_fpr_0.01"]


def test_the_splits_spread_is_that_of_single_splits():
    """And the mean over many splits differs by less from key to key than one split does."""
    sets = draw(40, 0.5, 1), draw(400, 0.0, 2)
    few, many = (
        [MembershipInference(repeats=r).attack(jax.random.key(i), *sets).metrics for i in range(10)]
        for r in (2, 8)
    )
    single = np.sqrt(np.mean([m["accuracy_split_std"] ** 2 for m in [*few, *many]]))
    for metrics, repeats in ((few, 2), (many, 8)):
        spread = np.std([m["accuracy"] for m in metrics], ddof=1) * np.sqrt(repeats)
        assert 0.4 < spread / single < 1.9
    assert single > 0.01


def test_the_interval_shrinks_with_the_examples_and_not_with_the_repeats():
    widths = {}
    for n, repeats in ((40, 2), (40, 12), (640, 2)):
        attack = MembershipInference(repeats=repeats)
        metrics = attack.attack(KEY, draw(n, 0.7, 1), draw(n, 0.0, 2)).metrics
        widths[n, repeats] = metrics["accuracy_high"] - metrics["accuracy_low"]
        exact = stats.binomtest(round(metrics["accuracy"] * 2 * n), 2 * n).proportion_ci()
        assert metrics["accuracy_low"] <= exact.low + 1e-12
        assert metrics["accuracy_high"] >= exact.high - 1e-12
    assert widths[40, 12] > 0.7 * widths[40, 2]
    assert widths[640, 2] < 0.4 * widths[40, 2]


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
        ({"repeats": 1}, "repeats must be >= 2"),
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
