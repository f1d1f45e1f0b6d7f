"""The mean gradient over poisons and its derivative, against dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Variables
from unlearnkit.poisoning._gradients import cosine_distance, judge_gradient, mean_gradient
from unlearnkit.training import cross_entropy

KEY = jax.random.key(0)


@pytest.fixture
def double(problems, x64):
    """A trained network and six examples in float64."""
    model, variables, task = problems["any"]
    to_double = lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v  # noqa: E731
    variables = jax.tree.map(to_double, variables)
    return model, variables, task.train.x[:6].astype(jnp.float64), task.train.y[:6]


def dense_gradient(model, variables, x, y):
    def loss(w):
        return cross_entropy(model.apply(Variables(w, variables.state), x), y)

    return jax.grad(loss)(variables.params)


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_the_mean_gradient_does_not_depend_on_chunks(double, chunk):
    got = mean_gradient(*double, chunk=chunk)
    want = jax.jit(dense_gradient, static_argnums=0)(*double)
    np.testing.assert_allclose(ravel_pytree(got)[0], ravel_pytree(want)[0], atol=1e-14)


@pytest.mark.parametrize("chunk", [4, 6])
def test_the_derivative_is_that_of_central_differences(double, chunk):
    model, variables, x, y = double
    target = jax.tree.map(lambda v: jnp.sin(1 + v), variables.params)

    @jax.jit
    def dense(x):
        return cosine_distance(dense_gradient(model, variables, x, y), target)

    judged = jax.jit(
        lambda x: judge_gradient(
            lambda g: cosine_distance(g, target), model, variables, x, y, chunk=chunk
        )
    )
    value, slope = judged(x)
    np.testing.assert_allclose(value, dense(x), rtol=1e-12)
    assert jnp.linalg.norm(slope) > 1e-4
    for seed in range(2):
        way, h = jax.random.normal(jax.random.key(seed), x.shape), 1e-5
        ends = dense(x + h * way), dense(x - h * way)
        np.testing.assert_allclose(
            jnp.vdot(slope, way), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-11
        )


def test_the_cosine_distance_against_hand_computed():
    one, other = (
        {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])},
        {
            "a": jnp.array([1.0, 0.0]),
            "b": jnp.array([0.0]),
        },
    )
    np.testing.assert_allclose(cosine_distance(one, other), 0.4, rtol=1e-6)
    np.testing.assert_allclose(cosine_distance(one, jax.tree.map(jnp.negative, one)), 2, rtol=1e-6)
    tiny = jax.tree.map(lambda v: 1e-15 * v, one)
    np.testing.assert_allclose(cosine_distance(tiny, other), 0.4, rtol=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, one)
    value, slope = jax.value_and_grad(cosine_distance)(nothing, other)
    assert value == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_the_cosine_of_tiny_and_huge_gradients(size):
    """A confident network's gradients have squares that vanish in float32."""
    gradient, target = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([4.0, 3.0])}
    scaled = jax.tree.map(lambda leaf: jnp.float32(size) * leaf, gradient)
    value, slope = jax.value_and_grad(cosine_distance)(scaled, target)
    np.testing.assert_allclose(value, 1 - 24 / 25, rtol=1e-5)
    want = jax.grad(cosine_distance)(gradient, target)["w"]
    np.testing.assert_allclose(slope["w"] * size, want, rtol=1e-4)
