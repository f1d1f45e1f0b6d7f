"""The learning rate of every step, and Muon's steps, against closed forms."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unlearnkit.training import Recipe, learning_rate_schedule, make_optimizer, speedrun_recipe

STEPS = 4  # per epoch


def rates(**options):
    recipe = Recipe(epochs=10, learning_rate=0.4, **options)
    schedule = learning_rate_schedule(recipe, STEPS)
    return np.array([float(schedule(step)) for step in range(10 * STEPS)])


@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_warm_up_is_linear_from_zero_and_then_the_rate_is_the_peak(warmup):
    step = np.arange(10 * STEPS)
    ramp = step / (warmup * STEPS) if warmup else np.ones(len(step))
    np.testing.assert_allclose(rates(warmup_epochs=warmup), 0.4 * np.minimum(1, ramp), rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_cosine_falls_from_the_peak_after_the_warm_up_to_zero_at_the_end(warmup):
    found, start = rates(warmup_epochs=warmup, schedule="cosine"), int(warmup * STEPS)
    share = (np.arange(start, 10 * STEPS) - start) / (10 * STEPS - start)
    np.testing.assert_allclose(
        found[start:], 0.2 * (1 + np.cos(np.pi * share)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found[:start], 0.4 * np.arange(start) / max(start, 1), rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_linear_rate_falls_by_step_from_the_peak_after_the_warm_up_to_zero(warmup):
    found, start = rates(warmup_epochs=warmup, schedule="linear"), int(warmup * STEPS)
    share = (np.arange(start, 10 * STEPS) - start) / (10 * STEPS - start)
    np.testing.assert_allclose(found[start:], 0.4 * (1 - share), rtol=1e-5)
    np.testing.assert_allclose(found[:start], 0.4 * np.arange(start) / max(start, 1), rtol=1e-6)


def newton_schulz(matrix):
    """Three steps of the quintic iteration toward the orthogonal factor, from Jordan's post."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / np.linalg.norm(matrix)
    for _ in range(3):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def test_muon_orthogonalises_kernels_and_takes_nesterov_steps_with_the_rest():
    recipe = Recipe(
        epochs=10,
        optimizer="muon",
        learning_rate=0.4,
        other_learning_rate=0.1,
        momentum=0.6,
        schedule="linear",
    )
    optimizer = make_optimizer(recipe, STEPS)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "head": (5, 4), "bias": (4,)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    memory = {name: np.zeros(shape) for name, shape in shapes.items()}
    found = {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}
    state = optimizer.init(found)
    for step in range(3):
        gradient = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        steps, state = optimizer.update(
            {name: jnp.asarray(g, jnp.float32) for name, g in gradient.items()}, state, found
        )
        found = optax.apply_updates(found, steps)
        left = 1 - step / (10 * STEPS)
        for name, g in gradient.items():
            memory[name] = 0.6 * memory[name] + g
            ahead = 0.6 * memory[name] + g
            if name == "kernel":  # [height, width, channels, features] as [features, rest]
                matrix = newton_schulz(ahead.reshape(-1, 4).T).T.reshape(shapes[name])
                weights[name] = weights[name] - 0.4 * left * matrix
            else:
                weights[name] = weights[name] - 0.1 * left * ahead
        if step == 0:  # the library's momentum is corrected for its start, later in another way
            for name, expected in weights.items():
                np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=2e-3)
    for name in ("head", "bias"):
        np.testing.assert_allclose(found[name], weights[name], rtol=1e-5, atol=1e-6)
    moved = np.asarray(steps["kernel"]).reshape(-1, 4) / (0.4 * (1 - 2 / (10 * STEPS)))
    values = np.linalg.svd(moved, compute_uv=False)
    assert values.min() > 0.3  # three steps bring singular values near 1, not to it
    assert values.max() < 1.3


def test_the_speed_run_is_a_recipe_like_any_other():
    recipe = speedrun_recipe(epochs=7, batch_size=100)
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (7, 100, "muon")
    smooth = speedrun_recipe(epochs=7, batch_size=100, optimizer="sgd")
    assert smooth.optimizer == "sgd"
    alike = ("epochs", "batch_size", "schedule", "augmentation", "shift", "label_smoothing")
    assert all(getattr(smooth, name) == getattr(recipe, name) for name in alike)
    with pytest.raises(ValueError, match="muon or sgd, got 'adam'"):
        speedrun_recipe(optimizer="adam")
    with pytest.raises(ValueError, match="other_learning_rate must be > 0"):
        dataclasses.replace(recipe, other_learning_rate=0.0)


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.0])
def test_milestones_count_epochs_from_the_start_of_the_run_warm_up_or_not(warmup):
    found = rates(warmup_epochs=warmup, schedule="step", milestones=(2, 5), step_factor=0.5)
    step = np.arange(10 * STEPS)
    expected = np.where(step < 2 * STEPS, 0.4, np.where(step < 5 * STEPS, 0.2, 0.1))
    start = int(warmup * STEPS)
    np.testing.assert_allclose(found[start:], expected[start:], rtol=1e-6)
    np.testing.assert_allclose(found[:start], 0.4 * step[:start] / max(start, 1), rtol=1e-6)


def test_a_warm_up_longer_than_the_run_never_gets_past_its_peak():
    """It takes the whole run instead of the epochs asked for."""
    np.testing.assert_allclose(rates(warmup_epochs=99.0), 0.4 * np.arange(40) / 40, rtol=1e-6)
