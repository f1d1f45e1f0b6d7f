"""The metagradient attack: who trains on what, which labels, and whose network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.poisoning import Bounds, Budget, MetagradientAttack, Surrogate, perturbation
from unlearnkit.poisoning.metagradient import Turns
from unlearnkit.training import Recipe, differentiate

KEY = jax.random.key(4)
ATTACK = MetagradientAttack(
    Budget(0.1), recipe=Recipe(epochs=2, batch_size=20, learning_rate=0.3), steps=4, hidden=(8,)
)
SMOOTH = Surrogate("cnn_mnist", (("activation", "gelu"), ("pool", "average")))


@pytest.mark.parametrize("placement", ["add", "perturb"])
def test_a_step_trains_in_the_proportion_of_the_victim_and_judges_by_others(placement):
    base = np.array([3, 8, 20, 31, 57, 59, 60, 61, 70, 99])
    turns = Turns.of(KEY, 100, base, 0.2, placement)
    clean = 100 if placement == "add" else 90
    assert turns.size == 0.8 * clean + 8
    seen = np.zeros(10, int)
    for step in range(10):
        ours, theirs, present = turns.draw(jax.random.fold_in(KEY, step), step)
        assert len(ours) == 0.8 * clean
        assert len(theirs) == 0.2 * clean
        rows = np.concatenate([ours, theirs])
        assert len(np.unique(rows)) == clean
        assert placement == "add" or not np.intersect1d(rows, base).size
        seen[present] += 1
    assert seen.tolist() == [8] * 10
    again = turns.draw(jax.random.fold_in(KEY, 11), 11)[1]
    assert not np.array_equal(np.sort(again), np.sort(theirs))


def test_a_step_goes_up_the_loss_of_networks_that_train_on_it(linear):
    """One unaveraged signed step moves each value by α, against the slope of nothing but noise."""
    attack = dataclasses.replace(ATTACK, steps=1, averaging=0.0, step_size=1e-3)
    longer = dataclasses.replace(attack, step_size=0.2)
    small, large = (perturbation(a(KEY, *linear), linear.clean) for a in (attack, longer))
    moved = np.asarray(small)[np.any(np.asarray(small) != 0, axis=(1, 2, 3))]
    assert len(moved) == 5
    inside = np.abs(moved) > 0
    np.testing.assert_allclose(np.abs(moved)[inside], 1e-3, atol=1e-6)
    assert np.all(np.sign(large) * np.sign(small) >= 0)


def test_free_labels_are_the_least_likely_and_clean_ones_stay(linear):
    free = dataclasses.replace(ATTACK, labels="free")(KEY, *linear)
    kept = ATTACK(KEY, *linear)
    base = np.asarray(free.info.base)
    np.testing.assert_array_equal(kept.dataset.y[kept.is_poison], linear.clean.y[base])
    logits = linear.model.apply(linear.variables, linear.clean.x[base])
    own = np.asarray(jax.nn.one_hot(linear.clean.y[base], 3, dtype=bool))
    least = np.argmin(np.where(own, np.inf, logits), axis=1)
    np.testing.assert_array_equal(free.dataset.y[free.is_poison], least)
    assert free.info.cost.example_gradients > kept.info.cost.example_gradients


def test_a_generator_makes_the_poisons_within_their_bounds(linear):
    attack = dataclasses.replace(ATTACK, form="generator", bounds=Bounds(radius=0.2))
    still = dataclasses.replace(attack, generator_rate=1e-12)
    moved, unmoved = (perturbation(a(KEY, *linear), linear.clean) for a in (attack, still))
    assert float(jnp.abs(moved).max()) <= np.float32(0.2)
    assert not np.array_equal(moved, unmoved)


def test_another_network_is_trained_in_the_place_of_one_with_max_pool():
    x = jax.random.uniform(KEY, (30, 4, 4, 1))
    data = Dataset(x, jnp.arange(30, dtype=jnp.int32) % 3)
    few = data.take(np.arange(3))
    task = Task(data, few, few, few)
    victim = models.create("cnn_mnist", input_shape=(4, 4, 1), n_classes=3)
    variables = victim.init(KEY)
    attack = dataclasses.replace(
        ATTACK, steps=1, recipe=Recipe(epochs=1, batch_size=20, learning_rate=0.1)
    )
    with pytest.raises(ValueError, match="has max-pool in training"):
        attack(KEY, victim, variables, task)
    poisoned = dataclasses.replace(attack, surrogate=SMOOTH)(KEY, victim, variables, task)
    assert poisoned.dataset.size == 36
    assert float(jnp.abs(perturbation(poisoned, task.train)).max()) > 0


def test_later_steps_and_other_keys_compile_nothing(linear):
    dataclasses.replace(ATTACK, steps=1)(KEY, *linear)
    before = differentiate._differentiate._cache_size()
    ATTACK(jax.random.key(6), *linear)
    assert differentiate._differentiate._cache_size() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "soft"}, "labels must be one of clean, free"),
        ({"form": "images"}, "form must be one of pixels, generator"),
        ({"averaging": 1.0}, r"averaging must be in \[0, 1\)"),
        ({"held_out": 0.0}, "held_out must be in"),
        ({"recipe": Recipe(epochs=0)}, "recipe must have epochs >= 1"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"step_size": 0.0}, "step_size must be > 0"),
    ],
)
def test_refuses_bad_hyperparameters(changes, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ATTACK, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": Recipe(optimizer="adam", batch_size=20)}, "optimizer='adam' cannot be diff"),
        ({"recipe": Recipe(batch_size=60)}, "batch_size=60 is larger than the data"),
        ({"checkpoints": 2}, "checkpoints=2 are too few for a schedule of 4 steps"),
        ({"budget": Budget(1.0), "placement": "perturb"}, "0 clean examples are left"),
        ({"surrogate": Surrogate("lenet5")}, "unknown network 'lenet5'"),
    ],
)
def test_refuses_what_the_data_or_the_schedule_cannot_give(linear, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ATTACK, **changes)(KEY, *linear)
