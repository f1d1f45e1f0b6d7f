"""Derivatives of the solution, against differences and against a generic implicit layer."""

import warnings
from functools import partial

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
    return x, y, rng.uniform(0.5, 1.5, size=n)


def outputs(x, C, weight, y, loss):
    solution = svm(x, y, C=C, loss=loss, sample_weight=weight)
    out = jnp.concatenate([solution.weights, solution.bias[None], 0.1 * solution.info.multipliers])
    return out, solution


@partial(jax.jit, static_argnames="loss")
def derivatives(at, y, direction, cotangent, loss):
    """The tangent of the outputs, the gradient of cotangent @ outputs, and the solution."""
    value, tangent, solution = jax.linearize(lambda *at: outputs(*at, y, loss), *at, has_aux=True)
    return tangent(*direction), jax.linear_transpose(tangent, *at)(cotangent), value, solution


def pull_back(at, y, cotangent, loss):
    _, gradient, _, solution = derivatives(at, y, jax.tree.map(np.zeros_like, at), cotangent, loss)
    return gradient, solution


def push_forward(at, y, direction, loss):
    x = at[0]
    cotangent = np.zeros(len(x) + x.shape[1] + 1, x.dtype)
    forward, _, value, solution = derivatives(at, y, direction, cotangent, loss)
    return value, forward, solution


def random_like(values, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: rng.normal(size=np.shape(v)), values)


def difference(at, y, direction, loss, step=1e-6):
    """The central difference of the outputs along the direction."""

    def moved(length):
        there = jax.tree.map(lambda v, d: v + length * d, at, direction)
        return push_forward(there, y, direction, loss)[0]

    ahead, behind = moved(step), moved(-step)
    return (np.asarray(ahead) - np.asarray(behind)) / (2 * step)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("C", [0.02, 1.0, 30.0])
def test_derivative_is_the_central_difference(C, loss):
    x, y, weight = problem()
    at = (x, np.float64(C), weight)
    direction = random_like(at)
    direction = (direction[0], np.float64(0.1 * C * direction[1]), 0.1 * direction[2])
    expected = difference(at, y, direction, loss)
    value, forward, _ = push_forward(at, y, direction, loss)
    assert np.all(np.isfinite(value))
    np.testing.assert_allclose(forward, expected, atol=2e-6 * np.max(np.abs(expected)))

    cotangent = random_like(value)
    gradient, _ = pull_back(at, y, cotangent, loss)
    through = sum(np.vdot(g, d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(through, cotangent @ np.asarray(forward), rtol=1e-9)


def conditions(parameters, x, y, c, loss):
    """What is zero at a solution."""
    w, b, alpha = parameters
    margin = y * (x @ w + b)
    if loss == "hinge":
        dual = alpha - jnp.clip(alpha - (margin - 1), 0, c)
    elif loss == "squared_hinge":
        dual = alpha - 2 * c * jnp.maximum(1 - margin, 0)
    else:
        dual = alpha - c * jax.nn.sigmoid(-margin)
    return w - (alpha * y) @ x, alpha @ y, dual


def dense_solve(matvec, b):
    flat, unravel = ravel_pytree(b)
    matrix = jax.vmap(lambda e: ravel_pytree(matvec(unravel(e)))[0])(jnp.eye(len(flat))).T
    return unravel(jnp.linalg.solve(matrix, flat))


@partial(jax.jit, static_argnames="loss")
def generic_pull_back(x, y, c, solved, cotangent, loss):
    """The same by jaxopt, which needs a solution and the root it is of."""
    layer = implicit_diff.custom_root(
        lambda parameters, x: conditions(parameters, x, y, c, loss), solve=dense_solve
    )(lambda _, x: solved)
    return jax.vjp(lambda x: layer(None, x)[:2], x)[1](cotangent)[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_a_generic_implicit_layer(loss):
    x, y, weight = problem(seed=3)
    cotangent = random_like(np.zeros(4))
    padded = np.concatenate([cotangent, np.zeros(24)])
    (gradient, _, _), solution = pull_back((x, np.float64(1), weight), y, padded, loss)
    solved = (solution.weights, solution.bias, solution.info.multipliers)
    halves = (cotangent[:3], cotangent[3])
    expected = generic_pull_back(x, y, weight, solved, halves, loss)
    assert np.max(np.abs(expected)) > 1e-3
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_jit_is_no_jit(loss):
    x, y, weight = problem()
    at = (x, np.float64(1), weight)
    _, inside = pull_back(at, y, np.zeros(28), loss)
    x, y, weight = (jnp.asarray(v) for v in (x, y, weight))
    outside = svm(x, y, C=1.0, loss=loss, sample_weight=weight)
    np.testing.assert_allclose(inside.weights, outside.weights, rtol=1e-10)
    np.testing.assert_allclose(inside.bias, outside.bias, rtol=1e-10)
    np.testing.assert_array_equal(inside.info.status, outside.info.status)


@partial(jax.jit, static_argnames="loss")
def slope_and_curvature(x, y, weight, direction, loss):
    def slope(x):
        def f(x):
            return jnp.sum(outputs(x, 0.5, weight, y, loss)[0][:3] ** 2)

        return jnp.vdot(jax.grad(f)(x), direction)

    return jax.value_and_grad(slope)(x)


@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivative(loss):
    x, y, weight = problem()
    direction = random_like(x)
    ahead, behind = (
        slope_and_curvature(x + step * direction, y, weight, direction, loss)[0]
        for step in (1e-5, -1e-5)
    )
    curvature = np.vdot(slope_and_curvature(x, y, weight, direction, loss)[1], direction)
    np.testing.assert_allclose(curvature, (ahead - behind) / 2e-5, rtol=1e-5)


@partial(jax.jit, static_argnames="loss")
def pull_back_folds(x, C, weights, y, cotangent, loss):
    def one(weight):
        _, pullback, solution = jax.vjp(
            lambda *at: outputs(*at, y, loss), x, C, weight, has_aux=True
        )
        return pullback(cotangent), solution

    return jax.vmap(one)(weights)


@pytest.mark.parametrize("loss", LOSSES)
def test_folds_by_vmap_are_the_loop(loss):
    x, y, weight = problem()
    C = np.float64(1)
    folds = (np.arange(24) % 4 != np.arange(3)[:, None]) * weight
    one_class, none = (y == 1) * weight, np.zeros(24)
    weights = np.stack([*folds, one_class, none])
    cotangent = random_like(np.zeros(28))
    together, solutions = pull_back_folds(x, C, weights, y, cotangent, loss)
    np.testing.assert_array_equal(
        solutions.info.status[3:], [SvmStatus.ONE_CLASS, SvmStatus.NO_EXAMPLES]
    )
    np.testing.assert_array_equal(solutions.weights[3:], 0)
    assert np.all(solutions.info.converged)
    for k in range(5):
        alone, solution = pull_back((x, C, weights[k]), y, cotangent, loss)
        for ours, own in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[k], own, atol=1e-10)
        np.testing.assert_allclose(solutions.weights[k], solution.weights, atol=1e-9)
        np.testing.assert_allclose(solutions.bias[k], solution.bias, atol=1e-9)
        np.testing.assert_array_equal(solutions.info.n_support[k], solution.info.n_support)
        np.testing.assert_allclose(
            solutions.info.multipliers[k], solution.info.multipliers, atol=1e-7
        )


def test_bias_in_the_middle_of_its_interval_moves_with_both_ends():
    x, _, _ = problem()
    y = np.asarray([1, -1] * 12)
    at = (x, np.float64(1e-3), np.ones(24))
    direction = (random_like(x), np.float64(0), np.zeros(24))
    expected = difference(at, y, direction, "hinge", 1e-5)
    _, forward, solution = push_forward(at, y, direction, "hinge")
    assert solution.info.status == SvmStatus.BIAS_NOT_UNIQUE
    assert abs(expected[3]) > 1e-6
    np.testing.assert_allclose(forward[:4], expected[:4], atol=1e-9)


def test_duplicated_margin_moved_together_has_the_derivative_of_one():
    x, y, _ = problem(8, 3, seed=5)

    def jacobian(x, y, C, weight, copies):
        rows = [pull_back((x, C, weight), y, e, "hinge")[0][0] for e in np.eye(4, 28)]
        return np.asarray(rows).reshape(4, -1, copies, 3).sum(2)[:, :8]

    once = jacobian(
        np.r_[x, x, x], np.r_[y, y, y], np.float64(3), np.repeat([1.0, 0, 0], 8), copies=1
    )
    copied = jacobian(
        np.repeat(x, 3, axis=0), np.repeat(y, 3), np.float64(1), np.ones(24), copies=3
    )
    assert np.max(np.abs(once)) > 1e-3
    np.testing.assert_allclose(copied, once, atol=1e-8)


def test_float32_gradient_is_near_that_of_float64():
    x, y, weight = problem(400, 5)
    cotangent = np.ones(406) * (np.arange(406) < 6)
    exact, rough = (
        pull_back(
            (x.astype(dtype), dtype(1), weight.astype(dtype)), y, cotangent.astype(dtype), "hinge"
        )[0][0]
        for dtype in (np.float64, np.float32)
    )
    assert rough.dtype == np.float32
    assert np.linalg.norm(rough - exact) <= 1e-4 * np.linalg.norm(exact)
