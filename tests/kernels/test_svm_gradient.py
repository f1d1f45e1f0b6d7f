"""Derivatives of the solution, against differences and against a generic implicit layer."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.kernels import SvmStatus, svm

with warnings.catch_warnings():
    # jaxopt is no longer developed and says so; it serves here as an oracle only.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jaxopt import implicit_diff

LOSSES = ["hinge", "squared_hinge", "logistic"]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def problem(n=24, d=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 3 == 0, 1, -1)
    x = rng.normal(size=(n, d)) + 0.5 * y[:, None] + 2
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.uniform(0.5, 1.5, size=n))


def outputs(x, y, C, weight, loss):
    solution = svm(x, y, C=C, loss=loss, sample_weight=weight)
    return jnp.concatenate([solution.weights, solution.bias[None], 0.1 * solution.info.multipliers])


def central_difference(f, at, direction, step=1e-5):
    move = jax.tree.map(lambda d: step * d, direction)
    ahead = f(*jax.tree.map(jnp.add, at, move))
    behind = f(*jax.tree.map(jnp.subtract, at, move))
    return (ahead - behind) / (2 * step)


def random_like(values, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), values)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("C", [0.02, 1.0, 30.0])
def test_derivative_is_the_central_difference(C, loss):
    x, y, weight = problem()
    at = (x, jnp.asarray(C), weight)
    direction = random_like(at)
    direction = (direction[0], 0.1 * C * direction[1], 0.1 * direction[2])

    def f(*at):
        return outputs(at[0], y, *at[1:], loss)

    expected = central_difference(f, at, direction, 1e-6)
    value, forward = jax.jvp(f, at, direction)
    assert jnp.all(jnp.isfinite(value))
    scale = jnp.max(jnp.abs(expected))
    np.testing.assert_allclose(forward, expected, atol=2e-6 * scale)

    cotangent = random_like(value)
    gradient = jax.vjp(f, *at)[1](cotangent)
    through = sum(jnp.vdot(g, d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(through, cotangent @ forward, rtol=1e-9)


def generic_layer(y, c, loss):
    """The same layer by jaxopt: any solver, and the root of its optimality conditions."""

    def conditions(parameters, x):
        w, b, alpha = parameters
        margin = y * (x @ w + b)
        if loss == "hinge":
            dual = alpha - jnp.clip(alpha - (margin - 1), 0, c)
        elif loss == "squared_hinge":
            dual = alpha - 2 * c * jnp.maximum(1 - margin, 0)
        else:
            dual = alpha - c * jax.nn.sigmoid(-margin)
        return w - (alpha * y) @ x, alpha @ y, dual

    def solve(_, x):
        solution = svm(x, y, C=1.0, loss=loss, sample_weight=c)
        return solution.weights, solution.bias, solution.info.multipliers

    def dense(matvec, b):
        flat, unravel = ravel_pytree(b)
        matrix = jax.vmap(lambda e: ravel_pytree(matvec(unravel(e)))[0])(jnp.eye(len(flat))).T
        return unravel(jnp.linalg.solve(matrix, flat))

    return implicit_diff.custom_root(conditions, solve=dense)(solve)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_a_generic_implicit_layer(loss):
    x, y, weight = problem(seed=3)
    target = random_like((x[0], x[0, 0]))

    def score(w, b):
        return w @ target[0] + jnp.sin(b * target[1])

    generic = generic_layer(y, weight, loss)
    expected = jax.grad(lambda x: score(*generic(None, x)[:2]))(x)

    def ours(x):
        solution = svm(x, y, C=1.0, loss=loss, sample_weight=weight)
        return score(solution.weights, solution.bias)

    assert jnp.max(jnp.abs(expected)) > 1e-3
    np.testing.assert_allclose(jax.grad(ours)(x), expected, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivative(loss):
    x, y, weight = problem()
    direction = random_like(x)

    def slope(x):
        def f(x):
            return jnp.sum(outputs(x, y, 0.5, weight, loss)[:3] ** 2)

        return jnp.vdot(jax.grad(f)(x), direction)

    expected = central_difference(slope, (x,), (direction,), 1e-5)
    curvature = jnp.vdot(jax.grad(slope)(x), direction)
    np.testing.assert_allclose(curvature, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_folds_by_vmap_is_the_loop(loss):
    x, y, weight = problem()
    masks = jnp.asarray(np.arange(24) % 3 != np.arange(3)[:, None]) * weight

    def loss_of(x, mask):
        return jnp.sum(outputs(x, y, 1.0, mask, loss)[:3])

    together = jax.vmap(jax.grad(loss_of), (None, 0))(x, masks)
    for k in range(3):
        np.testing.assert_allclose(together[k], jax.grad(loss_of)(x, masks[k]), atol=1e-10)


def test_bias_in_the_middle_of_its_interval_moves_with_both_ends():
    x, _, _ = problem()
    y = jnp.asarray([1, -1] * 12)
    assert svm(x, y, C=1e-3).info.status == SvmStatus.BIAS_NOT_UNIQUE

    def f(x):
        return outputs(x, y, 1e-3, jnp.ones(24), "hinge")[:3]

    direction = random_like(x)
    expected = central_difference(f, (x,), (direction,))
    assert jnp.abs(expected[2]) > 1e-6
    np.testing.assert_allclose(jax.jvp(f, (x,), (direction,))[1], expected, atol=1e-9)


def test_duplicated_margin_moved_together_has_the_derivative_of_one():
    x, y, _ = problem(8, 2, seed=5)

    def f(x, copies, C):
        copied = jnp.repeat(x, copies, axis=0)
        return svm(copied, jnp.repeat(y, copies), C=C).weights

    once = jax.jacrev(lambda x: f(x, 1, 3.0))(x)
    np.testing.assert_allclose(jax.jacrev(lambda x: f(x, 3, 1.0))(x), once, atol=1e-8)


def test_float32_gradient_is_near_that_of_float64():
    x, y, weight = problem(400, 5)

    def gradient(x, weight):
        return jax.grad(lambda x: jnp.sum(outputs(x, y, 1.0, weight, "hinge")[:6]))(x)

    exact = gradient(x, weight)
    rough = gradient(x.astype(jnp.float32), weight.astype(jnp.float32))
    assert rough.dtype == jnp.float32
    assert jnp.linalg.norm(rough - exact) <= 1e-4 * jnp.linalg.norm(exact)
