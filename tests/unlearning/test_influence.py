"""Influence unlearning against retraining, dense float64 matrices and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Task, Variables, concatenate
from unlearnkit.unlearning import Influence, SolveWarning

KEY = jax.random.key(3)


def dense(model, start, task):
    """Returns the mean loss as a function of flat weights, and its inverse."""
    flat, unravel = ravel_pytree(start.params)

    def losses(w, part):
        logits = model.apply(Variables(unravel(w)), part.x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), part.y[:, None], 1)[:, 0]

    return flat, unravel, losses


def test_undoes_the_forget_set_to_first_order(make_model, make_task, ridge, distance, x64):
    """The error to retraining is quadratic in the share that is forgotten: of k copies of it."""
    model, start = make_model()
    base = make_task(200, 1)
    train = ridge(0.1).train
    copies = 8
    original = train(concatenate(base.retain, *[base.forget] * copies), start)
    errors, moved = [], []
    for k in (2, 4):
        rest = concatenate(base.retain, *[base.forget] * (copies - k))
        task = Task(rest, concatenate(*[base.forget] * k), base.validation, base.test)
        method = Influence(loss="l2", weight_decay=0.1, damping=0.0, tol=1e-12, chunk=7)
        unlearned = method(KEY, model, original, task).variables
        retrained = train(rest, start)
        errors.append(distance(unlearned, retrained))
        moved.append(distance(original, retrained))
    assert errors[0] < 0.3 * moved[0]
    assert 3.7 < errors[1] / errors[0] < 4.5


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
@pytest.mark.parametrize("chunk", [3, 100])
def test_is_the_dense_solve(make_model, make_task, curvature, chunk, x64):
    model, start = make_model("mlp", hidden=(4,), activation="tanh")
    task = make_task()
    flat, unravel, losses = dense(model, start, task)
    n_f, n_r = task.forget.size, task.retain.size
    n = n_f + n_r
    train = task.train
    if curvature == "hessian":
        matrix = jax.hessian(lambda w: jnp.mean(losses(w, train)))(flat)
    else:
        rows = jax.jacobian(lambda w: model.apply(Variables(unravel(w)), train.x))(flat)
        p = jax.nn.softmax(model.apply(start, train.x))
        blocks = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
        matrix = jnp.einsum("iap,iab,ibq->pq", rows, blocks, rows) / n
    g_f = jax.grad(lambda w: jnp.sum(losses(w, task.forget)) / n)(flat)
    g_r = jax.grad(lambda w: jnp.sum(losses(w, task.retain)) * n_f / (n * n_r))(flat)
    wanted = flat + 2 * jnp.linalg.solve(matrix + 0.35 * jnp.eye(len(flat)), g_f - g_r)
    method = Influence(
        alpha=2.0, curvature=curvature, weight_decay=0.05, damping=0.3, tol=1e-11, chunk=chunk
    )
    unlearned = method(KEY, model, start, task)
    got = ravel_pytree(unlearned.variables.params)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-10)
    assert bool(unlearned.info.solves["influence"].converged)


def test_woodfisher_is_the_published_recursion(make_model, make_task, x64):
    model, start = make_model("mlp", hidden=(4,))
    task = make_task()
    flat, _, losses = dense(model, start, task)
    method = Influence(form="woodfisher", samples=6)
    got = ravel_pytree(method(KEY, model, start, task).variables.params)[0] - flat
    gradients = np.asarray(jax.jacobian(lambda w: losses(w, task.retain))(flat))
    order = np.asarray(jax.random.permutation(KEY, task.retain.size))[:6]
    share = task.forget.size / task.train.size
    g_f = np.asarray(jax.grad(lambda w: jnp.mean(losses(w, task.forget)))(flat))
    k = share * (g_f - gradients.mean(0))
    difference = k.copy()
    o = gradients[order[0]].copy()
    for g in gradients[order[1:]]:
        overlap = o @ g
        k = k - (k @ g) / (6 + overlap) * o
        o = o - overlap / (6 + overlap) * o
    np.testing.assert_allclose(got, k, rtol=1e-8, atol=1e-12)
    first = gradients[order[0]]
    change = np.asarray(got) - difference
    cosine = change @ first / np.linalg.norm(change) / np.linalg.norm(first)
    assert abs(cosine) > 1 - 1e-9


def test_a_solve_that_falls_short_is_told(make_model, make_task):
    model, start = make_model("mlp", hidden=(4,))
    with pytest.warns(SolveWarning, match="'influence' did not converge"):
        info = Influence(max_steps=1)(KEY, model, start, make_task()).info
    assert not bool(info.solves["influence"].converged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"damping": -1.0}, "damping must be >= 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"curvature": "fisher"}, "unknown curvature 'fisher'; known: ggn, hessian"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"form": "lissa"}, "unknown form 'lissa'; known: solve, woodfisher"),
        ({"tol": 0.0}, "tol must be > 0"),
        ({"max_steps": 0}, "max_steps must be >= 1"),
        ({"samples": 0}, "samples must be >= 1"),
    ],
)
def test_bad_settings_are_refused(options, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        Influence(**options)
