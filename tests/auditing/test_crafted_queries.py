"""Crafted queries, and the null space that queries do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearnkit import models
from unlearnkit.auditing import (
    GaussianWeights,
    craft_queries,
    null_space_share,
    query_information,
)
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import NtkScrub

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def linear():
    """x -> x W, without a bias: 6 inputs, 2 outputs."""

    def init(key):
        return {"w": jax.random.normal(key, (6, 2))}

    return from_functions(init, lambda p, x: x @ p["w"], input_shape=(6,))


def test_the_most_telling_query_of_a_linear_network_is_its_singular_vector(linear):
    """With noise σ² in each weight a query tells ‖ΔWᵀ x‖² / (2 σ² ‖x‖²), at most s₁² / (2 σ²)."""
    ones = [linear.init(key) for key in jax.random.split(KEY)]
    noisy = [GaussianWeights(v, 0.25) for v in ones]
    x = jax.random.normal(jax.random.key(1), (4, 6))
    found = craft_queries(linear, *noisy, x, radius=20.0, steps=200)
    singular = np.linalg.svd(ones[0].params["w"] - ones[1].params["w"])[1]
    np.testing.assert_allclose(found.information, singular[0] ** 2 / 0.5, rtol=1e-3)
    assert np.all(found.before < 0.9 * found.information)
    assert np.linalg.norm(found.x - x, axis=1).max() <= 20.0 * (1 + 1e-5)


def test_bounds_and_the_ball_hold_and_nothing_becomes_worse(linear, unchecked_types):
    noisy = [GaussianWeights(linear.init(key), 0.25) for key in jax.random.split(KEY)]
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    found = craft_queries(linear, *noisy, x, radius=0.3, steps=5, bounds=(0.0, 1.0))
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert np.linalg.norm(found.x - x, axis=1).max() <= 0.3 * (1 + 1e-5)
    assert np.all(found.information >= found.before)
    same = [noisy[0], noisy[0]]
    flat = craft_queries(linear, *same, x, radius=0.3, steps=3)
    np.testing.assert_allclose(flat.information, 0, atol=1e-5)
    for options, match in (
        ({"radius": 0.0}, "radius must be > 0"),
        ({"radius": 1.0, "steps": 0}, "steps >= 1, got 1.0 and 0"),
        ({"radius": 1.0, "bounds": (1.0, 0.0)}, r"bounds must be \(least, largest\)"),
    ):
        with pytest.raises(ValueError, match=match):
            craft_queries(linear, *noisy, x, **options)
    with pytest.raises(ValueError, match="must be floats, got int32"):
        craft_queries(linear, *noisy, jnp.ones((2, 6), jnp.int32), radius=1.0)


@pytest.fixture(scope="module")
def scrubbed():
    """A scrubbed network, one that was retrained, and their task: three clouds in 12 dimensions."""
    model = models.create("mlp", input_shape=(12,), n_classes=3, hidden=(8,))
    centres = jax.random.normal(jax.random.key(5), (3, 12))

    def draw(seed, n):
        y = jnp.arange(n) % 3
        return Dataset(centres[y] + jax.random.normal(jax.random.key(seed), (n, 12)), y)

    task = Task(draw(0, 45), draw(1, 6), draw(2, 6), draw(3, 30))
    recipe = Recipe(
        epochs=40, batch_size=16, learning_rate=0.1, weight_decay=0.1, decay_toward="start"
    )
    start = jax.jit(model.init)(KEY)
    networks = [
        fit(KEY, model, part, recipe, variables=start).variables
        for part in (task.train, task.retain)
    ]
    method = NtkScrub(weight_decay=0.1, noise=0.0)
    return model, method(KEY, model, networks[0], task, initial=start).variables, networks[1], task


def answers(model, noisy, x, draws, key):
    """Two differences of the logits, of as many draws of the weights, [draws, n, 2]."""
    mean, variance = noisy
    flat, unravel = jax.flatten_util.ravel_pytree(mean.params)
    noise = jnp.sqrt(variance) * jax.random.normal(key, (draws, flat.size))
    logits = jax.vmap(lambda e: model.apply(Variables(unravel(flat + e)), x))(noise)
    return np.asarray(logits[..., :2] - logits[..., 2:])


def told_apart(model, noisy, x, draws=400):
    """How often answers of noisy weights are told right, by the ratio of Gaussians fitted to them.

    The Gaussians are fitted to other draws than those that are told.
    """
    keys = jax.random.split(jax.random.key(8), 4)
    fitted = [answers(model, g, x, draws, key) for g, key in zip(noisy, keys[:2], strict=True)]
    asked = [answers(model, g, x, draws, key) for g, key in zip(noisy, keys[2:], strict=True)]
    rates = []
    for q in range(len(x)):
        one, other = (stats.multivariate_normal(f[:, q].mean(0), np.cov(f[:, q].T)) for f in fitted)
        ratios = [one.logpdf(a[:, q]) - other.logpdf(a[:, q]) for a in asked]
        rates.append(np.mean([ratios[0] > 0, ratios[1] < 0]))
    return float(np.mean(rates))


def test_a_scrubbed_network_is_told_from_a_retrained_one_by_crafted_queries(scrubbed):
    model, forgotten, retrained, task = scrubbed
    noisy = [GaussianWeights(v, 1e-3) for v in (forgotten, retrained)]
    x = task.forget.x
    found = craft_queries(model, *noisy, x, radius=3.0, steps=30)
    np.testing.assert_allclose(found.before, query_information(model, *noisy, x), rtol=1e-6)
    assert np.median(found.information / found.before) > 2
    rates = [told_apart(model, noisy, queries) for queries in (x, found.x)]
    assert rates[1] > rates[0] + 0.05


def test_what_no_query_shows_is_the_projection_on_the_null_space(scrubbed):
    model, forgotten, retrained, task = scrubbed
    x = task.test.x[:8]
    flat, unravel = jax.flatten_util.ravel_pytree(retrained.params)
    rows = jax.jacobian(lambda w: model.apply(Variables(unravel(w)), x))(flat)
    j = np.asarray(rows, np.float64).reshape(24, -1)
    away = np.asarray(jax.flatten_util.ravel_pytree(forgotten.params)[0] - flat, np.float64)
    hidden = away - np.linalg.pinv(j, rcond=1e-4) @ (j @ away)
    found = null_space_share(model, forgotten, retrained, x)
    rank = np.linalg.matrix_rank(j, tol=1e-4 * np.linalg.norm(j, 2))
    assert found.share == pytest.approx(hidden @ hidden / (away @ away), abs=1e-3)
    assert found.by_chance == pytest.approx(1 - rank / j.shape[1])
    chance = away @ away * np.sum(j**2) / j.shape[1]
    assert found.sensitivity == pytest.approx(np.sum((j @ away) ** 2) / chance, rel=1e-4)
    within = jax.tree.map(jnp.add, retrained.params, unravel(jnp.asarray(hidden, jnp.float32)))
    assert null_space_share(model, Variables(within), retrained, x).share > 0.999
    with pytest.raises(ValueError, match="must differ, got equal weights"):
        null_space_share(model, retrained, retrained, x)
