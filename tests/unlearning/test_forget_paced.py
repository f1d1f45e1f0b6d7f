"""Gradient difference and NPO against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.training import cross_entropy, predict
from unlearnkit.unlearning import GradientDifference, NegativePreference

KEY = jax.random.key(4)
RATE = 0.1
ONE_STEP = {"epochs": 1, "batch_size": 8, "learning_rate": RATE, "weight_decay": 0.0}


@pytest.fixture
def problem(make_task, make_model):
    """As many retain examples as forget ones, so that one step sees all of both."""
    return (*make_model(), make_task(retain=8, forget=8))


def gradient(model, variables, part):
    def loss(params):
        return cross_entropy(model.apply(variables._replace(params=params), part.x), part.y)

    return jax.grad(loss)(variables.params)


def moved(method, model, variables, task):
    found = method(KEY, model, variables, task).variables.params
    return jax.tree.map(lambda after, before: (after - before) / RATE, found, variables.params)


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_step_of_gradient_difference(problem, weight):
    model, variables, task = problem
    method = GradientDifference(**ONE_STEP, retain_weight=weight)
    up, down = (gradient(model, variables, part) for part in (task.forget, task.retain))
    expected = jax.tree.map(lambda u, d: u - weight * d, up, down)
    assert_close(moved(method, model, variables, task), expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_the_first_step_of_npo_is_that_of_ascent(problem, beta):
    """There the network is the original: 2 r^β / (1 + r^β) = 1 whatever β."""
    method = NegativePreference(**ONE_STEP, retain_weight=0.0, beta=beta)
    assert_close(moved(method, *problem), gradient(*problem[:2], problem[2].forget))


@pytest.mark.usefixtures("x64")
def test_the_second_step_of_npo_weighs_what_is_forgotten_already(problem):
    model, variables, task = problem
    settings = {**ONE_STEP, "retain_weight": 0.0, "beta": 2.0, "momentum": 0.0, "learning_rate": 1}
    one = NegativePreference(**settings)(KEY, model, variables, task).variables
    two = NegativePreference(**{**settings, "epochs": 2})(KEY, model, variables, task).variables
    x, y = task.forget.x, task.forget.y

    def losses(params):
        log_p = jax.nn.log_softmax(model.apply(variables._replace(params=params), x))
        return -jnp.take_along_axis(log_p, y[:, None], 1)[:, 0]

    def npo(params):
        ratio = jnp.exp(losses(variables.params) - losses(params))
        return jnp.mean(jnp.log1p(ratio**2.0))  # 2/β log(1 + r^β) of β = 2

    expected = jax.tree.map(lambda w, g: w - g, one.params, jax.grad(npo)(one.params))
    assert_close(two.params, expected)


def test_ascent_runs_away_and_npo_does_not(problem):
    model, variables, task = problem
    settings = {**ONE_STEP, "epochs": 60, "retain_weight": 0.0}
    ascent, npo = (
        method(KEY, model, variables, task).variables
        for method in (GradientDifference(**settings), NegativePreference(**settings, beta=1.0))
    )
    of = [cross_entropy(predict(model, v, task.forget.x), task.forget.y) for v in (ascent, npo)]
    assert of[0] > 3 * of[1] > 3 * np.log(3)


def test_costs_and_bad_settings(problem):
    model, variables, task = problem
    for method in (GradientDifference(**ONE_STEP), NegativePreference(**ONE_STEP)):
        cost = method(KEY, model, variables, task).info.cost.example_gradients
        assert cost == method.example_gradients(variables, task) >= 16
    with pytest.raises(ValueError, match="beta must be finite and > 0"):
        NegativePreference(beta=0)
    with pytest.raises(ValueError, match="retain_weight must be >= 0"):
        GradientDifference(retain_weight=-1)
    few = task._replace(retain=task.retain.take(np.arange(4)))
    with pytest.raises(ValueError, match=r"batch_size=8 is larger than the data \(4 retain"):
        GradientDifference(**ONE_STEP)(KEY, model, variables, few)
