"""The game's gradient against differences, path by path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from sklearn.linear_model import LogisticRegression
from tiny_game import KEY, MODEL, answer, apply, cost_of, init, make_game, make_task

from unlearnkit.base import Variables
from unlearnkit.unlearning import AUDITORS
from unlearnkit.unlearning.stackelberg.auditing_set import draw
from unlearnkit.unlearning.stackelberg.game import audit_fold, auditor_cost


def feature_for(name):
    return "margin" if name == "quantile" else "logits"


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def wide(tree):
    def one(leaf):
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in AUDITORS), ("logistic", {"per_class": True})],
    ids=lambda value: "per_class" if value == {"per_class": True} else str(value),
)
def test_the_total_gradient_is_that_of_central_differences(name, options, x64):
    task = make_task()
    pool, game = make_game(task, name=name, feature=feature_for(name), folds=2, **options)
    pool = pool._replace(dataset=wide(pool.dataset))
    flat, unravel = ravel_pytree(wide(init(jax.random.key(11))))
    weights = jnp.asarray(1.5), jnp.asarray(0.25)

    @jax.jit
    def value_and_slope(flat):
        def cost(flat):
            network = Variables(unravel(flat))
            return auditor_cost(KEY, MODEL, network, pool, weights, game=game)[0]

        return jax.value_and_grad(cost)(flat)

    _, gradient = value_and_slope(flat)
    for seed in range(3):
        way = jax.random.normal(jax.random.key(seed), flat.shape)
        ahead, behind = (value_and_slope(flat + step * way)[0] for step in (1e-6, -1e-6))
        np.testing.assert_allclose(gradient @ way, (ahead - behind) / 2e-6, rtol=2e-4, atol=1e-6)


def fold_evidence(d):
    rng = np.random.default_rng(0)
    labels = jnp.asarray(np.where(np.arange(20) % 2 == 0, 1.0, -1.0))
    features = jnp.asarray(rng.normal(size=(20, d)) + 0.4 * labels[:, None])
    return features, labels, jnp.asarray((np.arange(20) < 12).astype(float))


@pytest.mark.parametrize("name", list(AUDITORS))
def test_the_two_paths_sum_to_the_total(name, x64):
    features, labels, train = fold_evidence(1 if name == "quantile" else 2)
    gradients = {}
    for path in ("total", "implicit", "direct"):

        def utility(features, labels, train, held_out, path=path):
            return audit_fold(AUDITORS[name], path, KEY, features, labels, train, held_out).utility

        gradients[path] = jax.jit(jax.grad(utility))(features, labels, train, 1 - train)
        assert np.linalg.norm(gradients[path]) > 1e-3
    both = gradients["implicit"] + gradients["direct"]
    np.testing.assert_allclose(both, gradients["total"], rtol=1e-7, atol=1e-9)


def test_the_direct_path_is_that_of_an_auditor_who_does_not_respond(x64):
    features, labels, train = fold_evidence(2)

    def utility(features, path):
        auditor = AUDITORS["logistic"]
        return audit_fold(auditor, path, KEY, features, labels, train, 1 - train).utility

    direct = jax.grad(utility)(features, "direct")
    implicit = jax.grad(utility)(features, "implicit")
    assert np.all(direct[:12] == 0)
    assert np.all(direct[12:] != 0)
    assert np.all(implicit[12:] == 0)
    assert np.all(implicit[:12] != 0)


def test_the_step_descends_the_cost():
    pool, game = make_game(make_task(), name="logistic")
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(2.0), jnp.float32(0.0)
    moved, before = answer(KEY, MODEL, variables, pool, weights, 0.05, game=game)
    after = cost_of(KEY, MODEL, moved, pool, weights, game=game)[1]
    assert after["auditor_utility"] < before["auditor_utility"] - 1e-4


def test_the_answer_is_as_long_as_it_may_be():
    pool, game = make_game(make_task(), name="logistic")
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(2.0), jnp.float32(0.5)
    free, measured = answer(KEY, MODEL, variables, pool, weights, 0.05, game=game)
    step = optax.tree.sub(free.params, variables.params)
    norm = float(measured["answer_norm"])
    np.testing.assert_allclose(optax.tree.norm(step), 0.05 * norm, rtol=1e-4)
    for share in (0.1, 10.0):
        clipped = dataclasses.replace(game, clip_norm=share * norm / 2.5)
        moved, metrics = answer(KEY, MODEL, variables, pool, weights, 0.05, game=clipped)
        np.testing.assert_allclose(metrics["answer_norm"], norm, rtol=1e-5)
        for found, whole in zip(
            jax.tree.leaves(optax.tree.sub(moved.params, variables.params)),
            jax.tree.leaves(step),
            strict=True,
        ):
            np.testing.assert_allclose(found, min(share, 1) * whole, rtol=1e-4, atol=1e-7)


def test_utility_is_the_held_out_loss_of_classifiers_trained_apart(x64):
    """One fold after another with the public kernel, written apart from the game."""
    task = make_task()
    pool, game = make_game(task, name="logistic")
    variables = Variables(init(jax.random.key(11)))
    weights = jnp.float32(1.0), jnp.float32(0.0)
    _, metrics = cost_of(KEY, MODEL, variables, pool, weights, game=game)
    draw_key, _ = jax.random.split(KEY)
    rows, folds = (np.asarray(a) for a in draw(draw_key, pool, game.size, 3))
    x = np.asarray(apply(variables.params, pool.dataset.x[rows]), np.float64)
    y = np.where(rows < task.forget.size, 1, -1)
    losses, right = np.empty(len(y)), np.empty(len(y))
    for fold in range(3):
        out = folds == fold
        centre, scale = x[~out].mean(0), x[~out].std(0)
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000)
        model.fit((x[~out] - centre) / scale, y[~out])
        margins = y[out] * model.decision_function((x[out] - centre) / scale)
        losses[out], right[out] = np.logaddexp(0, -margins), margins > 0
    np.testing.assert_allclose(metrics["auditor_utility"], -losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["auditor_accuracy"], right.mean(), rtol=1e-6)
