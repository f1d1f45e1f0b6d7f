"""The Newton step against retraining and a dense float64 step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Variables
from unlearnkit.unlearning import NewtonScrub, SolveWarning

KEY = jax.random.key(3)


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_is_retraining_where_the_loss_is_quadratic(
    make_model, make_task, ridge, distance, curvature
):
    model, start = make_model()
    task, train = make_task(), ridge(0.1).train
    method = NewtonScrub(loss="l2", curvature=curvature, weight_decay=0.1, damping=0.0, tol=1e-6)
    original = train(task.train, start)
    for centre in (start, None):
        aim = start._replace(params=jax.tree.map(jnp.zeros_like, start.params))
        retrained = train(task.retain, centre or aim)
        scrubbed = method(KEY, model, original, task, initial=centre)
        assert distance(scrubbed.variables, retrained) < 1e-5


def test_is_the_dense_newton_step(make_model, make_task, x64):
    model, start = make_model("mlp", hidden=(4,), activation="tanh")
    task = make_task()
    flat, unravel = ravel_pytree(start.params)

    def loss(w):
        logits = model.apply(Variables(unravel(w)), task.retain.x)
        p = jnp.take_along_axis(jax.nn.log_softmax(logits), task.retain.y[:, None], 1)
        return -jnp.mean(p) + 0.02 * w @ w / 2

    matrix = jax.hessian(loss)(flat) + 0.2 * jnp.eye(len(flat))
    wanted = flat - jnp.linalg.solve(matrix, jax.grad(loss)(flat))
    method = NewtonScrub(curvature="hessian", weight_decay=0.02, damping=0.2, tol=1e-11, chunk=5)
    scrubbed = method(KEY, model, start, task)
    got = ravel_pytree(scrubbed.variables.params)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9)
    assert float(scrubbed.info.solves["newton"].residual) < 1e-11


def test_a_solve_that_falls_short_is_told(make_model, make_task):
    model, start = make_model("mlp", hidden=(4,))
    with pytest.warns(SolveWarning, match="'newton' did not converge"):
        NewtonScrub(max_steps=1)(KEY, model, start, make_task())


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="damping must be >= 0"):
        NewtonScrub(damping=-0.1)
