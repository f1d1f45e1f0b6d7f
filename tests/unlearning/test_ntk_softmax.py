"""Newton's method on softmax regression: what it says of its end is true of its end."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.unlearning.ntk_scrub.products import Space
from unlearnkit.unlearning.ntk_scrub.softmax import newton_cg

N, D, C, DECAY = 12, 4, 3, 1e-2
X = jax.random.normal(jax.random.key(0), (N, D))
TARGETS = jax.nn.one_hot(jnp.arange(N) % C, C)
WEIGHTS = jnp.full((N, 1), 1 / N)


@partial(jax.jit, static_argnames=("newton_steps", "max_steps"))
def run(size, tol, newton_steps, max_steps=100):
    """A softmax regression whose inputs and start are `size` times those above."""
    settings = types.SimpleNamespace(
        weight_decay=DECAY * size**2, tol=tol, max_steps=max_steps, newton_steps=newton_steps
    )

    def push(w):
        return size * (X @ w)

    def pull(u):
        return size * (X.T @ u)

    return newton_cg(
        Space(push, pull, push, pull),
        jnp.zeros((N, C)),
        jnp.zeros((D, C)),
        targets=TARGETS,
        weights=WEIGHTS,
        settings=settings,
    )


def true_residual(step, size):
    x, w = size * np.asarray(X, np.float64), np.asarray(step, np.float64)
    p = np.exp(x @ w)
    p /= p.sum(axis=1, keepdims=True)
    of_loss, of_decay = x.T @ (p - np.asarray(TARGETS)) / N, DECAY * size**2 * w
    return np.linalg.norm(of_loss + of_decay) / (np.linalg.norm(of_loss) + np.linalg.norm(of_decay))


@pytest.mark.parametrize(
    ("newton_steps", "max_steps", "tol", "converged"),
    [(1, 100, 1e-3, False), (1, 100, 0.9, True), (30, 100, 1e-3, True), (3, 1, 1e-3, False)],
)
def test_converged_is_the_residuals_and_not_that_of_an_inner_solve(
    newton_steps, max_steps, tol, converged
):
    found = run(1.0, tol, newton_steps, max_steps)
    residual = true_residual(found.step, 1.0)
    np.testing.assert_allclose(found.info.residual, residual, rtol=1e-2, atol=1e-6)
    assert bool(found.info.converged) == (residual <= tol) == converged


@pytest.mark.parametrize("size", [1e-17, 1e17])
def test_a_tiny_gradient_is_not_taken_for_the_minimum(size):
    """The loss in the weights is the same function in other units."""
    found = run(size, 1e-3, 30)
    assert found.info.converged
    np.testing.assert_allclose(found.step * size, run(1.0, 1e-3, 30).step, rtol=2e-2, atol=2e-2)
    assert true_residual(found.step, size) < 2e-3
    assert not run(size, 1e-3, 1).info.converged
