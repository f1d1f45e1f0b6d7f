"""Loss, influence and Sever against dense float64 gradients."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import models
from unlearnkit.base import Dataset, Variables
from unlearnkit.defences import DefenceWarning, InfluenceFilter, LossFilter, Sever
from unlearnkit.host import choose_rows
from unlearnkit.models import from_functions
from unlearnkit.training import DivergedError, Recipe, fit

KEY = jax.random.key(3)


def dropped(defended):
    return set(np.flatnonzero(~np.asarray(defended.keep)).tolist())


def spread(rows):
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (s[0] * u[:, 0]) ** 2


def test_loss_drops_the_largest_losses(dense, x64):
    problem = dense()
    defended = LossFilter(fraction=0.2)(KEY, problem.model, problem.variables, problem.dataset)
    losses = np.asarray(problem.losses(problem.flat()[0]))
    np.testing.assert_allclose(defended.scores, losses, rtol=1e-10)
    assert dropped(defended) == set(np.argsort(-losses)[:5].tolist())


def test_loss_of_each_class(dense, x64):
    problem = dense()
    defended = LossFilter(fraction=0.4, per_class=True)(
        KEY, problem.model, problem.variables, problem.dataset
    )
    losses, labels = np.asarray(defended.scores), np.asarray(problem.dataset.y)
    for label in range(3):
        rows = np.flatnonzero(labels == label)
        order = rows[np.argsort(-losses[rows])]
        wanted = order[: round(0.4 * len(rows))]
        assert set(wanted.tolist()) == dropped(defended) & set(rows.tolist())


@pytest.mark.parametrize("chunk", [4, 100])
def test_self_influence_is_the_dense_quadratic_form(dense, chunk, x64):
    problem = dense()
    g = problem.gradients()
    matrix = problem.gauss_newton() + 0.05 * np.eye(g.shape[1])
    wanted = np.einsum("ip,pq,iq->i", g, np.linalg.inv(matrix), g)
    method = InfluenceFilter(fraction=0.2, damping=0.05, rank=1000, chunk=chunk)
    defended = method(KEY, problem.model, problem.variables, problem.dataset)
    np.testing.assert_allclose(defended.scores, wanted, rtol=1e-6)
    assert dropped(defended) == set(np.argsort(-wanted)[:5].tolist())


@pytest.mark.parametrize("target", ["self", "objective"])
def test_the_curvature_of_a_share_of_the_examples_is_that_of_what_is_drawn(dense, target, x64):
    problem = dense()
    g, n = problem.gradients(), problem.dataset.size
    rows = choose_rows(jax.random.split(KEY)[0], n, 9)
    few = dense()
    few.dataset = problem.dataset.take(rows)
    matrix = few.gauss_newton() + 0.05 * np.eye(g.shape[1])
    left = g if target == "self" else np.broadcast_to(g.mean(0), g.shape)
    wanted = np.abs(np.einsum("ip,pq,iq->i", left, np.linalg.inv(matrix), g))
    method = InfluenceFilter(
        target=target, damping=0.05, rank=1000, tol=1e-12, curvature_examples=9
    )
    defended = method(KEY, problem.model, problem.variables, problem.dataset)
    np.testing.assert_allclose(defended.scores, wanted, rtol=1e-6)
    whole = dataclasses.replace(method, curvature_examples=10 * n)
    every = dataclasses.replace(method, curvature_examples=None)
    all_costs = [
        m(KEY, problem.model, problem.variables, problem.dataset).info.cost.example_gradients
        for m in (method, whole, every)
    ]
    assert all_costs[0] < all_costs[1] == all_costs[2]


def test_a_low_rank_bounds_self_influence_from_above(dense, x64):
    """A Nyström approximation never exceeds H, so its inverse is never too small."""
    problem = dense()
    call = (KEY, problem.model, problem.variables, problem.dataset)
    exact = InfluenceFilter(damping=10.0, rank=1000)(*call)
    rough = InfluenceFilter(damping=10.0, rank=5)(*call)
    assert np.all(np.asarray(rough.scores) >= np.asarray(exact.scores) * (1 - 1e-9))
    assert not np.allclose(rough.scores, exact.scores)


def test_a_rank_that_leaves_much_out_is_told(dense, x64):
    problem = dense()
    with pytest.warns(DefenceWarning, match="rank=2 leaves out"):
        defended = InfluenceFilter(damping=1e-6, rank=2)(
            KEY, problem.model, problem.variables, problem.dataset
        )
    assert defended.info.history["least_curvature"][0] > 1e-6


@pytest.mark.parametrize("chunk", [4, 100])
def test_influence_on_the_objective_is_the_dense_solve(dense, chunk, x64):
    problem = dense()
    g = problem.gradients()
    matrix = problem.gauss_newton() + 0.05 * np.eye(g.shape[1])
    wanted = np.abs(g @ np.linalg.solve(matrix, g.mean(axis=0)))
    method = InfluenceFilter(target="objective", fraction=0.2, damping=0.05, tol=1e-11, chunk=chunk)
    defended = method(KEY, problem.model, problem.variables, problem.dataset)
    np.testing.assert_allclose(defended.scores, wanted, rtol=1e-7, atol=1e-10)
    info = defended.info.solves["influence"]
    assert bool(info.converged)
    assert defended.info.cost.example_gradients == pytest.approx(
        23 * (1 + 4 / 3 * (int(info.steps) + 1) + 2 / 3)
    )


def test_influence_on_the_objective_predicts_what_leaving_out_does(x64):
    """Of a regularised logistic regression, trained to its minimum with less of each example."""
    model = models.create("logistic", input_shape=(3,), n_classes=2)
    x = jax.random.normal(jax.random.key(0), (12, 3))
    y = (x[:, 0] + jax.random.normal(jax.random.key(1), (12,)) > 0).astype(jnp.int32)
    decay = 0.3
    flat, unravel = ravel_pytree(model.init(jax.random.key(0)).params)

    def losses(w):
        logits = model.apply(Variables(unravel(w)), x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]

    def train(weights):
        def objective(w):
            return jnp.mean(losses(w) * weights) + decay / 2 * w @ w

        def newton(_, w):
            return w - jnp.linalg.solve(jax.hessian(objective)(w), jax.grad(objective)(w))

        return jax.lax.fori_loop(0, 12, newton, flat.astype(x.dtype))

    step = 0.01
    trained = jax.jit(train)(jnp.ones(12))
    less = jax.jit(jax.vmap(train))(jnp.ones((12, 12)) - step * jnp.eye(12))
    change = jnp.mean(losses(trained)) - jnp.mean(jax.vmap(losses)(less), axis=1)
    method = InfluenceFilter(target="objective", damping=decay, tol=1e-11)
    scores = method(KEY, model, Variables(unravel(trained)), Dataset(x, y)).scores
    np.testing.assert_allclose(scores / 12, np.abs(change) / step, rtol=0.05, atol=1e-4)


def test_a_solve_that_falls_short_is_told(dense):
    problem = dense()
    with pytest.warns(DefenceWarning, match="the influence did not converge"):
        InfluenceFilter(target="objective", max_steps=1, tol=1e-6)(
            KEY, problem.model, problem.variables, problem.dataset
        )


@pytest.mark.parametrize("chunk", [4, 100])
@pytest.mark.parametrize("per_class", [True, False])
def test_sever_projects_on_the_top_singular_vector(dense, chunk, per_class, x64):
    problem = dense()
    method = Sever(fraction=0.2, rounds=1, per_class=per_class, tol=1e-9, chunk=chunk)
    defended = method(KEY, problem.model, problem.variables, problem.dataset)
    g, labels = problem.gradients(), np.asarray(problem.dataset.y)
    groups = [labels == c for c in range(3)] if per_class else [labels >= 0]
    wanted, out = np.zeros(23), set()
    for group in groups:
        rows = np.flatnonzero(group)
        wanted[rows] = spread(g[rows])
        out |= set(rows[np.argsort(-wanted[rows])][: round(0.2 * len(rows))].tolist())
    np.testing.assert_allclose(defended.scores, wanted, rtol=1e-4, atol=1e-8)
    assert dropped(defended) == out


def test_sever_retrains_on_what_is_left_between_rounds(dense, x64):
    problem = dense()
    recipe = Recipe(epochs=2, batch_size=5)
    start = problem.variables
    one = Sever(fraction=0.2, rounds=1, tol=1e-5)(KEY, problem.model, start, problem.dataset)
    both = Sever(fraction=0.4, rounds=2, tol=1e-5, recipe=recipe)(
        KEY, problem.model, start, problem.dataset
    )
    assert dropped(one) <= dropped(both)
    np.testing.assert_array_equal(both.info.history["dropped"].sum(), len(dropped(both)))
    kept = np.flatnonzero(one.keep)
    train_key, _ = jax.random.split(jax.random.fold_in(KEY, 2))
    problem.variables = fit(train_key, problem.model, problem.dataset.take(kept), recipe).variables
    g, labels = problem.gradients(), np.asarray(problem.dataset.y)
    for label in range(3):
        left = kept[labels[kept] == label]
        np.testing.assert_allclose(both.scores[left], spread(g[left]), rtol=1e-3, atol=1e-7)
        quota = round(0.4 * int((labels == label).sum()))
        gone = set(np.flatnonzero(labels == label).tolist()) & dropped(both)
        assert len(gone) == quota
        assert both.info.cost.example_gradients > len(kept)


def test_sever_counts_products_and_training(dense):
    problem = dense()
    recipe = Recipe(epochs=2, batch_size=5)
    info = Sever(fraction=0.4, rounds=2, recipe=recipe)(
        KEY, problem.model, problem.variables, problem.dataset
    ).info
    largest = int(np.bincount(problem.dataset.y).max())
    products = sum(int(solve.steps) for solve in info.solves.values())
    left = 23 - int(info.history["dropped"][0])
    wanted = products * largest * (1 + 2 / 3) + 2 * (left // 5 * 5)
    assert info.cost.example_gradients == pytest.approx(wanted)


def test_sever_finds_a_gradient_outlier(dense, x64):
    problem = dense("logistic")
    data = problem.dataset
    x = data.x.at[7].multiply(30.0)
    wrong = jnp.argmin(problem.model.apply(problem.variables, x)[7])
    data = Dataset(x, data.y.at[7].set(wrong.astype(jnp.int32)))
    method = Sever(fraction=0.05, rounds=1, per_class=False)
    assert dropped(method(KEY, problem.model, problem.variables, data)) == {7}


@pytest.mark.parametrize(
    "method", [LossFilter(), InfluenceFilter(rank=2), Sever(rounds=1)], ids=["loss", "inf", "sever"]
)
def test_weights_that_diverged_are_refused(dense, method):
    problem = dense()
    broken = jax.tree.map(lambda w: w * jnp.nan, problem.variables)
    with pytest.raises((DivergedError, ValueError), match="finite|diverged"):
        method(KEY, problem.model, broken, problem.dataset)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LossFilter(fraction=0.0), "fraction must be in (0, 1), got 0.0"),
        (lambda: LossFilter(fraction=1.0), "fraction must be in (0, 1), got 1.0"),
        (lambda: InfluenceFilter(target="test"), "unknown target 'test'; known: self, objective"),
        (lambda: InfluenceFilter(damping=0.0), "damping must be > 0"),
        (lambda: InfluenceFilter(tol=0.0), "tol must be > 0"),
        (lambda: InfluenceFilter(rank=0), "rank must be >= 1"),
        (lambda: InfluenceFilter(curvature_examples=0), "curvature_examples must be >= 1"),
        (lambda: InfluenceFilter(chunk=0), "chunk must be >= 1"),
        (lambda: Sever(rounds=0), "rounds must be >= 1"),
        (lambda: Sever(tol=-1.0), "tol must be > 0"),
        (lambda: Sever(max_steps=0), "max_steps must be >= 1"),
    ],
)
def test_bad_settings_are_refused(build, message, unchecked_types):

    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    "method",
    [
        Sever(fraction=0.2, rounds=1, per_class=False),
        InfluenceFilter(fraction=0.2, damping=1.0, rank=100),
        InfluenceFilter(target="objective", fraction=0.2, damping=1.0),
    ],
    ids=["sever", "self", "objective"],
)
def test_tiny_gradients_are_ranked_as_others_are(method):
    """Their products are below float32; the ranking of a confident network must not be by index."""
    model = from_functions(
        lambda key: {"w": jnp.zeros((5, 3))}, lambda params, x: x @ params["w"], input_shape=(5,)
    )
    x = jax.random.normal(jax.random.key(2), (20, 5)) * jnp.linspace(1, 3, 20)[:, None]
    y = jnp.arange(20, dtype=jnp.int32) % 3
    tiny, ordinary = (
        method(KEY, model, model.init(KEY), Dataset(size * x, y)) for size in (1e-25, 1e-3)
    )
    assert dropped(tiny) == dropped(ordinary)
    assert dropped(tiny) != set(range(4))
    assert dropped(tiny) != set(range(16, 20))
