import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import UNIT, Variables
from unlearnkit.poisoning import Bounds, Budget, ErrorMinimizing, PoisonWarning, perturbation
from unlearnkit.poisoning._noise import Noise, step_classes, step_samples
from unlearnkit.training import Recipe, cross_entropy, fit, predict

KEY = jax.random.key(0)
ATTACK = ErrorMinimizing(
    bounds=Bounds(radius=0.2),
    step_size=0.05,
    steps=5,
    rounds=30,
    stop_error=0.05,
    recipe=Recipe(batch_size=20, learning_rate=0.1),
)


def slope(model, variables, x, y):
    return jax.grad(lambda x: cross_entropy(model.apply(variables, x), y))(x)


@pytest.mark.parametrize("scope", ["sample", "class"])
def test_the_error_falls_to_where_it_was_asked_for(problems, scope):
    problem = problems["any"]
    poisoned = dataclasses.replace(ATTACK, scope=scope)(KEY, *problem)
    error = np.asarray(poisoned.info.history["error"])
    assert error[-1] <= 0.05
    assert np.all(error[:-1] > 0.05)
    assert poisoned.info.history["loss"][-1] < poisoned.info.history["loss"][0]
    assert bool(poisoned.is_poison.all())
    np.testing.assert_array_equal(poisoned.dataset.y, problem.clean.y)


def test_what_a_network_learns_is_the_noise(problems):
    """A network trained on the poisons is worse on clean images than one trained on those."""
    problem = problems["any"]
    strong = dataclasses.replace(
        ATTACK, bounds=Bounds(radius=0.5), scope="class", stop_error=0.0, step_size=0.1
    )
    poisoned = strong(KEY, *problem)
    recipe = Recipe(epochs=30, batch_size=20, learning_rate=0.3)
    accuracy = {}
    for name, dataset in (("clean", problem.clean), ("poisoned", poisoned.dataset)):
        trained = fit(jax.random.key(4), problem.model, dataset, recipe).variables
        guess = predict(problem.model, trained, problem.task.test.x).argmax(-1)
        accuracy[name] = float((guess == problem.task.test.y).mean())
    assert accuracy["poisoned"] < accuracy["clean"] - 0.1


def test_a_step_is_signed_descent_within_bounds(problems):
    problem = problems["any"]
    model, variables, _ = problem
    rules = dataclasses.replace(ATTACK, steps=1)._rules(model)
    x, y = problem.clean.x[:7], problem.clean.y[:7]
    region = ATTACK.bounds.region(x, UNIT)
    stepped = step_samples(rules, variables, Noise(x, x[:0]), region, y, jnp.ones(1)).x
    want = jnp.clip(x - 0.05 * jnp.sign(slope(model, variables, x, y)), 0, 1)
    np.testing.assert_allclose(stepped, want, atol=1e-6)


def test_a_class_shares_its_step(problems):
    problem = problems["any"]
    model, variables, _ = problem
    rules = dataclasses.replace(ATTACK, steps=1, scope="class")._rules(model)
    x, y = problem.clean.x[:9], problem.clean.y[:9]
    region = ATTACK.bounds.region(x, UNIT)
    noise = Noise(x, jnp.zeros((3, *x.shape[1:])))
    stepped = step_classes(rules, variables, noise, region, y, jnp.ones(1))
    slopes = slope(model, variables, x, y)
    for label in range(3):
        want = -0.05 * jnp.sign(slopes[y == label].sum(0))
        np.testing.assert_allclose(stepped.of_class[label], want, atol=1e-6)
    np.testing.assert_allclose(stepped.x, jnp.clip(x + stepped.of_class[y], 0, 1), atol=1e-6)


def test_the_adversary_finds_a_larger_loss_within_its_radius(problems):
    problem = problems["any"]
    model, variables, _ = problem
    rules = dataclasses.replace(ATTACK, adversary=0.05)._rules(model)
    x, y = problem.clean.x, problem.clean.y
    worst = rules.worst(variables, x, y, jnp.ones(1))
    assert jnp.abs(worst - x).max() <= 0.05 + 1e-6
    losses = [float(cross_entropy(model.apply(variables, at), y)) for at in (x, worst)]
    assert losses[1] > losses[0]
    robust = rules.slope(variables, x, y, jnp.ones(1))
    want = jax.grad(lambda v: cross_entropy(model.apply(variables, v), y) * len(y))(worst)
    np.testing.assert_allclose(robust, want, atol=1e-6)


def test_the_robust_form_runs_and_differs(problems):
    problem = problems["any"]
    robust = dataclasses.replace(ATTACK, adversary=0.02, adversary_steps=2, stop_error=0.3)
    plain = dataclasses.replace(ATTACK, stop_error=0.3)
    noises = [perturbation(one(KEY, *problem), problem.clean) for one in (robust, plain)]
    assert not np.allclose(*noises)
    assert robust(KEY, *problem).info.history["error"][-1] <= 0.3


def test_part_of_the_examples_can_be_added(problems):
    problem = problems["any"]
    some = dataclasses.replace(ATTACK, budget=Budget(0.2), placement="add", stop_error=1.0)
    poisoned = some(KEY, *problem)
    assert poisoned.dataset.size == 72
    assert len(poisoned.info.history["error"]) == 1


def test_what_is_not_reached_is_said(problems):
    hasty = dataclasses.replace(ATTACK, rounds=1, batches=1, stop_error=0.0)
    with pytest.warns(PoisonWarning, match="after 1 rounds the network still errs"):
        hasty(KEY, *problems["any"])


def test_fresh_weights_are_trained_and_not_those_given(problems):
    model, variables, task = problems["any"]
    other = Variables(jax.tree.map(lambda leaf: leaf + 1.0, variables.params))
    one, two = (
        dataclasses.replace(ATTACK, stop_error=1.0)(KEY, model, given, task).dataset.x
        for given in (variables, other)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": Bounds()}, "bounds need a radius in the norm linf"),
        ({"bounds": Bounds(radius=0.1, norm="l2")}, "bounds need a radius in the norm linf"),
        ({"scope": "image"}, "scope must be one of sample, class"),
        ({"adversary": 0.1}, "adversary must be in"),
        ({"stop_error": 2.0}, "stop_error must be in"),
        ({"rounds": 0}, "rounds must be >= 1"),
    ],
)
def test_refuses_bad_hyperparameters(arguments, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        ErrorMinimizing(**arguments)
