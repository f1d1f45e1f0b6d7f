import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearnkit.auditing import (
    MembershipInference,
    activation_distance,
    audit_reference,
    average_gap,
    evaluate,
    loss_divergence,
    prediction_agreement,
)
from unlearnkit.auditing.evaluate import GAP_METRICS
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import DivergedError
from unlearnkit.validation import InputWarning

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model():
    return from_functions(
        lambda key: {"w": jax.random.normal(key, (5, 3))},
        lambda params, x: x @ params["w"],
        input_shape=(5,),
    )


def draw(seed, n):
    x = jax.random.normal(jax.random.key(seed), (n, 5))
    return Dataset(x, jax.random.randint(jax.random.key(seed + 100), (n,), 0, 3))


@pytest.fixture(scope="module")
def task():
    return Task(draw(1, 90), draw(2, 30), draw(3, 20), draw(4, 40))


def test_a_model_is_no_distance_from_itself(model, task):
    variables = model.init(KEY)
    with pytest.warns(InputWarning, match="the reference answers as the audited network does"):
        metrics = evaluate(KEY, model, variables, task, reference=variables).metrics
    assert metrics["average_gap"] == 0.0
    assert metrics["wasserstein_reference"] == 0.0
    for name in ("retain", "forget", "test"):
        assert metrics[f"agreement_{name}"] == 1.0
        assert metrics[f"activation_distance_{name}"] == 0.0


def test_the_record_is_what_its_names_say(model, task):
    variables, reference = model.init(KEY), model.init(jax.random.key(1))
    audited = evaluate(KEY, model, variables, task, reference=reference)
    metrics = audited.metrics
    logits = np.asarray(task.forget.x @ variables.params["w"])
    share = np.mean(logits.argmax(1) == np.asarray(task.forget.y))
    assert metrics["accuracy_forget"] == pytest.approx(share)
    assert metrics["accuracy_gap"] == pytest.approx(
        abs(metrics["accuracy_forget"] - metrics["accuracy_test"])
    )
    loss = audited.curves["loss_forget"]
    assert loss.shape == (30,)
    np.testing.assert_allclose(
        loss[0], -np.asarray(jax.nn.log_softmax(logits[0]))[int(task.forget.y[0])], rtol=1e-5
    )
    ks = stats.ks_2samp(loss, audited.curves["loss_test"])
    assert metrics["ks_statistic"] == pytest.approx(ks.statistic)
    assert metrics["ks_pvalue"] == pytest.approx(ks.pvalue)
    alone = MembershipInference("logits", "svm")(KEY, model, variables, task).metrics
    assert metrics["mia_logits_svm_auc"] == pytest.approx(alone["auc"])
    other = evaluate(KEY, model, reference, task).metrics
    assert "average_gap" not in other
    assert metrics["average_gap"] == pytest.approx(average_gap(metrics, other))
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_reference_audited_before_gives_the_same_record(model, task):
    variables, reference = model.init(KEY), model.init(jax.random.key(1))
    once = audit_reference(KEY, model, reference, task)
    found, expected = (
        evaluate(KEY, model, variables, task, reference=given).metrics
        for given in (once, reference)
    )
    assert found == expected
    losses = [evaluate(KEY, model, v, task).curves["loss_forget"] for v in (variables, reference)]
    assert found["wasserstein_reference"] == pytest.approx(stats.wasserstein_distance(*losses))
    other = task._replace(forget=draw(9, 31))
    with pytest.raises(ValueError, match="audited on another task: forget has 31 examples, there"):
        evaluate(KEY, model, variables, other, reference=once)


def test_class_wise_forgetting_has_two_test_accuracies(model, task):
    """`class:1` keeps the class in the test set, `class:1:not-in-test` does not."""

    def without(data):
        return data.take(np.flatnonzero(np.asarray(data.y) != 1))

    variables = model.init(KEY)
    in_test = task._replace(retain=without(task.retain))
    metrics = evaluate(KEY, model, variables, in_test).metrics
    right = np.asarray(jnp.argmax(task.test.x @ variables.params["w"], -1) == task.test.y)
    kept = np.asarray(task.test.y) != 1
    assert metrics["accuracy_test_kept"] == pytest.approx(right[kept].mean())
    assert metrics["accuracy_test_forgotten"] == pytest.approx(right[~kept].mean())
    not_in_test = in_test._replace(test=without(task.test))
    metrics = evaluate(KEY, model, variables, not_in_test).metrics
    assert "accuracy_test_kept" not in metrics
    assert metrics["accuracy_test"] == pytest.approx(right[kept].mean())
    assert "accuracy_test_kept" not in evaluate(KEY, model, variables, task).metrics


def test_distances_of_known_networks():
    one = jnp.array([[0.0, 100.0], [100.0, 0.0]])
    other = jnp.array([[0.0, 100.0], [0.0, 100.0]])
    assert prediction_agreement(one, other) == 0.5
    assert activation_distance(one, other) == pytest.approx(1.0)


def test_shifted_losses_are_apart_by_the_shift():
    sample = np.random.default_rng(0).normal(size=500)
    found = loss_divergence(sample, sample + 0.75)
    assert found["wasserstein"] == pytest.approx(0.75)
    assert found["ks_pvalue"] < 1e-6
    assert loss_divergence(sample, sample)["ks_statistic"] == 0.0


def test_what_does_not_fit_is_refused(model, task):
    variables = model.init(KEY)
    with pytest.raises(ValueError, match="do not fit the model"):
        evaluate(KEY, model, variables, task, reference=Variables({"v": jnp.zeros((5, 3))}))
    with pytest.raises(ValueError, match="among the attacks"):
        evaluate(KEY, model, variables, task, reference=variables, attacks=[])
    empty = task._replace(forget=draw(1, 0))
    with pytest.raises(ValueError, match="forget"):
        evaluate(KEY, model, variables, empty)


def test_outputs_that_are_not_finite_are_no_record(model, task):
    broken = Variables({"w": jnp.full((5, 3), jnp.nan)})
    with pytest.raises(DivergedError, match="outputs on retain are not finite"):
        evaluate(KEY, model, broken, task)


def test_a_gap_below_the_reference_does_not_cancel_one_above():
    reference = dict.fromkeys(GAP_METRICS, 0.5)
    metrics = dict(zip(GAP_METRICS, (0.4, 0.6, 0.3, 0.7), strict=True))
    assert average_gap(metrics, reference) == pytest.approx(0.15)
