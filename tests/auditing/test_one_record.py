"""Every audit answers for a single record to forget, and says how little it tells."""

import jax
import numpy as np
import pytest
from scipy import stats

from unlearnkit.auditing import (
    EntropySvm,
    Lira,
    MembershipInference,
    PopulationAttack,
    QuantileAttack,
    ThresholdAttack,
    auc,
    bounded_interval,
    bounded_mean,
    clopper_pearson,
    evaluate,
    forgetting_quality,
    klom,
    score_attack,
)
from unlearnkit.auditing._one_member import attack_one
from unlearnkit.training import Recipe

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def one(task):
    return task._replace(forget=task.forget.take(np.arange(1)))


AUDITS = {
    "threshold": (ThresholdAttack(), ("auc", "member_share")),
    "population": (PopulationAttack(), ("auc", "tpr_at_level_0.1")),
    "quantile": (QuantileAttack(levels=(0.1,), iterations=5), ("auc", "tpr_at_level_0.1")),
    "entropy_svm": (EntropySvm(), ("member_share_forget",)),
    "membership": (MembershipInference(), ("auc", "accuracy")),
    "membership_svm": (MembershipInference("logits", "svm"), ("auc", "accuracy")),
    "lira": (Lira(Recipe(epochs=2, batch_size=32), count=4), ("auc",)),
}


@pytest.mark.parametrize("name", list(AUDITS))
def test_answers_with_an_interval_as_wide_as_one_record_is_little(name, mlp, original, one):
    audit, rates = AUDITS[name]
    metrics = audit(KEY, mlp, original, one).metrics
    assert all(np.isfinite(value) for value in metrics.values())
    for rate in rates:
        low, high = metrics[f"{rate}_low"], metrics[f"{rate}_high"]
        assert low <= metrics[rate] <= high
        # One of one is [0.025, 1]; the accuracy is half a rate, the other half being known.
        assert high - low >= (0.975 / 2 if rate == "accuracy" else 0.975) - 1e-9


def test_lira_ranks_one_record_among_some_twenty(mlp, one):
    attack, _ = AUDITS["lira"]
    candidates, is_member, shadows = attack.train(KEY, mlp, one)
    assert candidates.size == len(is_member) == 20  # even: two shadows halve them
    assert np.flatnonzero(is_member).tolist() == [0]
    np.testing.assert_array_equal(candidates.x[0], one.forget.x[0])
    np.testing.assert_array_equal(np.sum(shadows.is_in, axis=0), 2)  # of four


def test_evaluate_measures_one_record_against_a_reference(mlp, original, retrained, one):
    metrics = evaluate(KEY, mlp, original, one, reference=retrained).metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["accuracy_forget_high"] - metrics["accuracy_forget_low"] == pytest.approx(0.975)
    assert metrics["mia_loss_logistic_folds"] == 1
    assert metrics["mia_logits_svm_folds"] == 1


def test_few_records_are_left_out_one_by_one(mlp, original, task):
    five = task._replace(forget=task.forget.take(np.arange(5)))
    assert MembershipInference()(KEY, mlp, original, five).metrics["folds"] == 5
    assert "folds" not in MembershipInference()(KEY, mlp, original, task).metrics


def test_one_record_that_stands_out_is_told_and_one_that_does_not_is_not():
    generator = np.random.default_rng(0)
    others = generator.normal(size=(60, 1))
    for shift in (-8.0, 8.0):
        metrics = MembershipInference().attack(KEY, np.array([[shift]]), others).metrics
        assert (metrics["auc"], metrics["accuracy"]) == (1.0, 0.75)
        assert metrics["accuracy_low"] == pytest.approx((0.025 + 0.5) / 2)
    # Like the others, its rank among them is uniform: no answer is favoured.
    found = [
        MembershipInference().attack(KEY, generator.normal(size=(1, 1)), others).metrics["auc"]
        for _ in range(60)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_each_example_is_learned_against_all_the_others_and_as_often_as_they_are():
    learned = []

    def decide(x, y, weights):
        for is_member, weight in zip(y == 1, weights, strict=True):
            sides = (is_member, ~is_member)
            counted = np.repeat(x.ravel(), weight.astype(int))
            told = np.repeat(is_member, weight.astype(int))
            learned.append(tuple(sorted(counted[told == side].tolist()) for side in (True, False)))
            assert weight[sides[0]].sum() == weight[sides[1]].sum()
        return np.broadcast_to(x[:, 0], weights.shape)

    audited = attack_one(decide, np.array([[7.0]]), np.array([[1.0], [2.0], [3.0]]), 0)
    expected = [([7.0] * 3, [1.0, 2.0, 3.0]), ([1.0] * 3, [2.0, 3.0, 7.0])]
    expected += [([2.0] * 3, [1.0, 3.0, 7.0]), ([3.0] * 3, [1.0, 2.0, 7.0])]
    assert sorted(learned) == sorted(expected)
    assert audited.metrics["auc"] == 1


def test_an_auc_of_one_member_is_its_rank_and_its_error_the_largest():
    others = np.arange(10.0)
    area = auc(np.array([6.5]), others)
    assert area.value == 0.7
    spread = (0.1 * np.array([0, 0, 0, 0, 0, 0, 0, 10, 10, 10])).var(ddof=1)
    assert area.standard_error == pytest.approx(np.sqrt(0.25 + spread / 10))
    metrics = score_attack(np.array([99.0]), others).metrics
    assert (metrics["auc_low"], metrics["auc_high"]) == pytest.approx((0.025, 1.0))


@pytest.mark.parametrize(("mean", "count"), [(0.0, 1), (1.0, 1), (0.5, 4), (0.2, 10), (1.0, 30)])
def test_the_interval_of_whole_successes_is_that_of_clopper_and_pearson(mean, count):
    expected = clopper_pearson(round(mean * count), count)
    np.testing.assert_allclose(bounded_interval(mean, count), expected, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_interval_covers_the_mean_of_bounded_values(count):
    generator = np.random.default_rng(1)
    for a, b in ((0.2, 0.2), (1.0, 1.0), (2.0, 0.5)):
        means = generator.beta(a, b, size=(400, count)).mean(axis=1)
        ends = np.array([bounded_interval(mean, count) for mean in means])
        truth = a / (a + b)
        assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) >= 0.93


def test_a_bounded_mean_scales_with_its_bounds_and_refuses_what_is_outside():
    metrics = bounded_mean("x", [5.0], least=1.0, most=5.0)
    assert metrics == pytest.approx({"x": 5.0, "x_se": 2.0, "x_low": 1.1, "x_high": 5.0})
    assert bounded_mean("x", [0.0, 0.5])["x_se"] == pytest.approx(0.25)
    for values in ([], [1.5], [float("nan")]):
        with pytest.raises(ValueError, match=r"values must be in \[0, 1\]"):
            bounded_mean("x", values)


def test_ensembles_answer_for_one_record():
    generator = np.random.default_rng(0)
    unlearned, retrained = generator.normal(size=(2, 40, 1))
    quality = forgetting_quality(unlearned, retrained).metrics
    low, high = (quality[f"forgetting_quality_{end}"] for end in ("low", "high"))
    assert low <= quality["forgetting_quality"] <= high
    assert high - low > 0.8
    divergence = klom(unlearned, retrained).metrics
    assert divergence["klom_mean_low"] <= divergence["klom_mean"] <= divergence["klom_mean_high"]
    assert divergence["klom_mean_high"] > 5
    apart = klom(unlearned + 90, retrained).metrics
    assert apart["klom_mean_low"] < 0.3 < 10 < apart["klom_mean"]
