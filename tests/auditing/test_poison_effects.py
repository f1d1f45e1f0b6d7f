"""Targeted success, accuracy drop and model shift against float64 and counts made by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit import models
from unlearnkit.auditing import (
    AccuracyDrop,
    Case,
    PoisonTargets,
    Subject,
    TargetedSuccess,
    model_shift,
    poison_targets,
    update_cosines,
)
from unlearnkit.base import Dataset, Poisoned, Task, Variables
from unlearnkit.training import Recipe, fit

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def weights():
    """The logits are the first three inputs."""
    return Variables({"w": jnp.eye(5, 3)})


def says(*classes):
    """Inputs that the network of `weights` takes for these classes."""
    return 2.0 * jax.nn.one_hot(jnp.array(classes), 5)


def a_task(x, y):
    data = Dataset(x, jnp.asarray(y, jnp.int32))
    return Task(data, data, data, data)


def targets(said, true, wanted):
    return PoisonTargets(says(*said), jnp.asarray(true, jnp.int32), wanted)


def test_targeted_success_counts_the_adversarial_class_alone(linear, weights):
    audit = TargetedSuccess(targets([2, 2, 1, 0], [0, 1, 0, 0], wanted=2))
    found = audit(KEY, linear, weights, a_task(says(0, 1), [0, 1]))
    assert found.metrics["targeted_success"] == 0.5
    assert found.metrics["targeted_misclassified"] == 0.75
    assert found.metrics["targeted_success_low"] == pytest.approx(stats.beta.ppf(0.025, 2, 3))
    assert found.metrics["targeted_misclassified_high"] == pytest.approx(
        stats.beta.ppf(0.975, 4, 1)
    )
    total = np.exp(2.0) + 2
    expected = np.array([np.exp(2.0), np.exp(2.0), 1, 1]) / total
    np.testing.assert_allclose(found.curves["adversarial_probability"], expected, rtol=1e-6)
    assert found.metrics["adversarial_probability"] == pytest.approx(expected.mean())


def poisoned_set(labels, extras):
    data = Dataset(jnp.zeros((4, 5)), jnp.asarray(labels, jnp.int32))
    return Poisoned(data, jnp.array([False, True, True, False]), SimpleNamespace(extras=extras))


def test_targets_are_rows_of_the_validation_set():
    validation = Dataset(says(0, 1, 0, 1), jnp.array([0, 1, 0, 1], jnp.int32))
    poisoned = poisoned_set([0, 2, 2, 1], {"targets": jnp.array([3, 0])})
    x, y, wanted = poison_targets(poisoned, validation)
    np.testing.assert_array_equal(x, says(1, 0))
    np.testing.assert_array_equal(y, [1, 0])
    assert wanted == 2


def test_refuses_poisons_without_targets_or_of_several_classes():
    validation = Dataset(says(0, 1), jnp.array([0, 1], jnp.int32))
    for extras in ({}, {"targets": jnp.zeros(0, jnp.int32)}):  # MetaPoison without targets
        with pytest.raises(ValueError, match="no targets.*GradientMatching"):
            poison_targets(poisoned_set([0, 2, 2, 1], extras), validation)
    with pytest.raises(ValueError, match=r"of one class, got \[1, 2\]"):
        poison_targets(poisoned_set([0, 1, 2, 1], {"targets": jnp.array([0])}), validation)
    with pytest.raises(ValueError, match="0 … 1, got"):
        poison_targets(poisoned_set([0, 2, 2, 1], {"targets": jnp.array([2])}), validation)


def test_refuses_targets_that_are_no_mistake_or_no_class(linear, weights):
    with pytest.raises(ValueError, match="adversarial class already, row 1 of class 1"):
        TargetedSuccess(targets([0, 0], [0, 1], wanted=1))
    with pytest.raises(ValueError, match="each target needs its label"):
        TargetedSuccess(targets([0, 0], [0], wanted=1))
    audit = TargetedSuccess(targets([0], [0], wanted=3))
    with pytest.raises(ValueError, match="0 … 2, got 3"):
        audit(KEY, linear, weights, a_task(says(0), [0]))


def test_accuracy_drop_and_its_paired_error(linear, weights):
    """Right before: 3 of 4; right now: 1 of 4, on other examples too."""
    clean = Variables({"w": jnp.roll(jnp.eye(5, 3), 1, axis=1)})  # says 1 where `weights` say 0
    y = [1, 1, 1, 0]
    found = AccuracyDrop(clean)(KEY, linear, weights, a_task(says(0, 0, 0, 0), y)).metrics
    assert found["accuracy_clean"] == 0.75
    assert found["accuracy_test"] == 0.25
    assert found["accuracy_drop"] == 0.5
    differences = np.array([1, 1, 1, -1.0])
    assert found["accuracy_drop_se"] == pytest.approx(differences.std(ddof=1) / 2)


def test_the_drop_of_the_clean_network_is_zero(linear, weights):
    found = AccuracyDrop(weights)(KEY, linear, weights, a_task(says(0, 1), [0, 0])).metrics
    assert (found["accuracy_drop"], found["accuracy_drop_se"]) == (0.0, 0.0)


def test_the_drop_is_known_where_every_training_example_is_a_poison(linear, weights):
    """What stays and what is forgotten are not asked; a test set of inputs of another size is."""
    task = a_task(says(0, 1, 0), [0, 0, 0])
    bare = task._replace(retain=task.retain.take(np.arange(0)))
    found = AccuracyDrop(weights)(KEY, linear, weights, bare).metrics
    assert (found["accuracy_test"], found["accuracy_drop"]) == (pytest.approx(2 / 3), 0.0)
    with pytest.raises(ValueError, match="test"):
        AccuracyDrop(weights)(KEY, linear, weights, bare._replace(test=bare.retain))


def test_further_victims_are_pairs_of_their_own_keys():
    """The figures are means over pairs, each trained on both sets by one key."""
    x = jax.random.normal(KEY, (40, 4, 4, 1))
    data = Dataset(x, (x[:, 0, 0, 0] > 0).astype(jnp.int32))
    model = models.create("logistic", input_shape=(4, 4, 1), n_classes=2)
    recipe, key = Recipe(epochs=2, batch_size=10), jax.random.key(4)
    poisoned = data._replace(y=data.y.at[:15].set(1 - data.y[:15]))
    keys = [key, jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)]
    pairs = [[fit(k, model, d, recipe).variables for d in (poisoned, data)] for k in keys]
    task = Task(poisoned.take(np.arange(15, 40)), poisoned.take(np.arange(15)), data, data)
    case = Case(
        KEY, model, recipe, task, pairs[0][0], None, clean=pairs[0][1],
        poisoned=Poisoned(poisoned, jnp.arange(40) < 15, {}), train_key=key, clean_data=data,
    )  # fmt: skip
    subject = Subject(pairs[0][0])
    each = [AccuracyDrop(clean)(KEY, model, victim, task).metrics for victim, clean in pairs]
    found = AccuracyDrop(victims=3).judge(KEY, case, subject).metrics
    for name in ("accuracy_test", "accuracy_clean", "accuracy_drop"):
        assert found[name] == pytest.approx(np.mean([metrics[name] for metrics in each]))
    assert len({metrics["accuracy_test"] for metrics in each}) > 1
    assert 0 < found["accuracy_drop_se"] < max(metrics["accuracy_drop_se"] for metrics in each)
    after = subject._replace(unlearner=poisoned)
    assert AccuracyDrop(victims=3).judge(KEY, case, after).metrics == each[0]
    with pytest.raises(ValueError, match="victims must be >= 1, got 0"):
        AccuracyDrop(victims=0)


def tree(rng, *front):
    return {"a": rng.normal(size=(*front, 3, 2)), "b": {"c": rng.normal(size=(*front, 4))}}


def flat(params, *front):
    return np.concatenate([leaf.reshape(*front, -1) for leaf in jax.tree.leaves(params)], -1)


@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_shift_norms_are_those_of_the_flat_difference(seed, factor):
    rng = np.random.default_rng(seed)
    w, w0 = tree(rng), tree(rng)
    w = jax.tree.map(lambda leaf: factor * leaf, w)
    difference = flat(w) - flat(w0)
    found = model_shift(w, w0)
    np.testing.assert_allclose(found.l1, np.linalg.norm(difference, 1), rtol=1e-12)
    np.testing.assert_allclose(found.l2, np.linalg.norm(difference), rtol=1e-12)
    np.testing.assert_allclose(found.linf, np.abs(difference).max(), rtol=1e-12)
    np.testing.assert_allclose(found.relative, found.l2 / np.linalg.norm(flat(w0)), rtol=1e-12)
    assert found.linf <= found.l2 <= found.l1


def test_a_small_shift_of_large_weights_is_not_lost():
    """One float32 sum of a million entries of 1e-4 would be off by percents."""
    w0 = {"w": jnp.ones(1_000_000)}
    w = {"w": w0["w"] + jnp.float32(2.0**-13)}
    assert model_shift(w, w0).l1 == pytest.approx(1_000_000 * 2.0**-13, rel=1e-12)
    assert model_shift(w0, w0) == (0, 0, 0, 0)


@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_cosines_are_those_of_flat_vectors_and_do_not_see_lengths(seed, factor):
    rng = np.random.default_rng(seed)
    updates, v = tree(rng, 5), tree(rng)
    g, direction = flat(updates, 5), flat(v)
    expected = [row @ direction / np.sqrt(row @ row) / np.sqrt(direction @ direction) for row in g]
    found = update_cosines(updates, v)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    longer = jax.tree.map(lambda leaf: factor * leaf, updates)
    np.testing.assert_allclose(update_cosines(longer, v), found, rtol=1e-10, atol=1e-12)
    opposite = jax.tree.map(lambda leaf: -factor * leaf[None], v)
    np.testing.assert_allclose(update_cosines(opposite, v), -1, rtol=1e-12)


def test_refuses_what_has_no_direction_or_is_of_another_network():
    v = {"w": np.ones(3)}
    with pytest.raises(ValueError, match="update 1 is"):
        update_cosines({"w": np.array([[1.0, 0, 0], [0, 0, 0]])}, v)
    with pytest.raises(ValueError, match="direction must not be 0"):
        update_cosines({"w": np.ones((2, 3))}, {"w": np.zeros(3)})
    with pytest.raises(ValueError, match="shapes of direction"):
        update_cosines({"w": np.ones((2, 4))}, v)
    with pytest.raises(ValueError, match="updates must be finite"):
        update_cosines({"w": np.full((2, 3), np.nan)}, v)
    with pytest.raises(ValueError, match="shapes of reference"):
        model_shift(v, {"w": np.ones(4)})
    with pytest.raises(ValueError, match="params must be finite"):
        model_shift({"w": np.full(3, np.inf)}, v)
