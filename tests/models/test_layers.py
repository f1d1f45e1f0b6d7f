import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.models import freeze_state, from_linen
from unlearnkit.models.layers import (
    Conv,
    average_pool,
    batch_norm,
    default_implementation,
    flatten,
    global_average_pool,
    images,
    max_pool,
    to_nhwc,
)

# (side, size, stride, padding): all that the networks use, and what they might.
CONVOLUTIONS = [
    (9, 5, 1, 2),
    (9, 5, 1, 0),
    (8, 3, 1, 1),
    (8, 3, 2, 1),
    (7, 3, 2, 1),
    (8, 1, 1, 0),
    (8, 1, 2, 0),
    (5, 5, 1, 0),
    (9, 4, 1, 1),
]
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def networks(size, stride, padding):
    conv = Conv(4, size, stride=stride, padding=padding)
    kernel = 0.2 * jax.random.normal(jax.random.key(1), (size, size, 3, 4))
    bias = jax.random.normal(jax.random.key(2), (4,))
    params = {"kernel": kernel, "bias": bias}

    def apply(how, params, x):
        return to_nhwc(conv.apply({"params": params}, images(x, how)))

    return params, *(functools.partial(apply, how) for how in ("xla", "patches", "bilinear"))


def energy(apply, params, x):
    return (jnp.tanh(apply(params, x)) ** 2).sum()


@pytest.mark.parametrize(("side", "size", "stride", "padding"), CONVOLUTIONS)
def test_convolutions_agree(side, size, stride, padding):
    params, *implementations = networks(size, stride, padding)
    x = jax.random.normal(jax.random.key(0), (6, side, side + 1, 3))
    tangent = jax.tree.map(jnp.cos, (params, x))

    def derivatives(apply):
        gradient = jax.grad(functools.partial(energy, apply), argnums=(0, 1))
        hvp = jax.jvp(gradient, (params, x), tangent)[1]
        linear = jax.linearize(gradient, params, x)[1](*tangent)
        per_example = jax.vmap(
            lambda one: jax.grad(functools.partial(energy, apply))(params, one[None])
        )(x)
        return apply(params, x), gradient(params, x), hvp, linear, per_example

    expected, *others = (jax.jit(derivatives, static_argnums=0)(f) for f in implementations)
    for found in others:
        jax.tree.map(close, found, expected)


@pytest.mark.parametrize(("side", "size", "stride", "padding"), CONVOLUTIONS[:4])
def test_convolutions_of_many_seeds_agree(side, size, stride, padding):
    params, *implementations = networks(size, stride, padding)
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 - leaf, leaf**2]), params)
    x = jax.random.normal(jax.random.key(0), (6, side, side, 3))

    def both(apply):
        gradient = jax.vmap(jax.grad(functools.partial(energy, apply)), (0, None))
        return jax.vmap(apply, (0, None))(seeds, x), gradient(seeds, x)

    expected, *others = (jax.jit(both, static_argnums=0)(f) for f in implementations)
    for found in others:
        jax.tree.map(close, found, expected)


@pytest.mark.parametrize(
    ("how", "side"), list(itertools.product(("xla", "patches", "bilinear"), (8, 7, 2)))
)
def test_max_pool_has_the_value_and_gradient_of_reduce_window(how, side):
    x = jax.random.normal(jax.random.key(0), (3, side, side + 1, 2))

    def ours(x):
        return to_nhwc(max_pool(images(x, how)))

    def reference(x):
        return nn.max_pool(x, (2, 2), strides=(2, 2))

    def derivatives(pool):
        loss = lambda x: (pool(x) ** 3).sum()  # noqa: E731
        hvp = jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),))[1]
        return pool(x), jax.grad(loss)(x), hvp, jax.jvp(pool, (x,), (jnp.cos(x),))[1]

    jax.tree.map(close, derivatives(ours), derivatives(reference))


@pytest.mark.parametrize("how", ["xla", "patches", "bilinear"])
def test_tied_maxima_share_one_unit_of_gradient(how):
    # A constant image is all ties: whatever the rule, the pool passes each cotangent on once.
    x = jnp.zeros((2, 4, 4, 3))
    gradient = jax.grad(lambda x: max_pool(images(x, how)).values.sum())(x)
    blocks = gradient.reshape(2, 2, 2, 2, 2, 3).sum((2, 4))
    close(blocks, np.ones_like(blocks))


@pytest.mark.parametrize("how", ["xla", "patches", "bilinear"])
def test_averages_and_rows(how):
    x = jax.random.normal(jax.random.key(0), (3, 4, 7, 2))
    close(to_nhwc(average_pool(images(x, how), 2)), nn.avg_pool(x, (2, 2), strides=(2, 2)))
    close(global_average_pool(images(x, how)), x.mean((1, 2)))
    close(flatten(images(x, how)), x.reshape(3, -1))


class Normalised(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x, train=False):
        maps = Conv(4, 3, use_bias=False, name="conv")(images(x, self.how))
        return flatten(batch_norm(maps, train, name="norm"))


@pytest.mark.parametrize("how", ["xla", "patches", "bilinear"])
def test_batch_norm_moves_in_training_mode_alone(how):
    x = 3 + jax.random.normal(jax.random.key(1), (6, 5, 5, 1))
    model = from_linen(Normalised(how), input_shape=x.shape[1:])
    variables = model.init(jax.random.key(0))
    conv = jax.lax.conv(x.transpose(0, 3, 1, 2), _oihw(variables), (1, 1), "VALID")
    mean, variance = conv.mean((0, 2, 3)), conv.var((0, 2, 3))

    logits, state = model.apply_train(variables, x, jax.random.key(2))
    normalised = (conv - mean[:, None, None]) / jnp.sqrt(variance + 1e-5)[:, None, None]
    close(logits, normalised.transpose(0, 2, 3, 1).reshape(6, -1))
    close(state["batch_stats"]["norm"]["mean"], 0.1 * mean)
    close(state["batch_stats"]["norm"]["var"], 0.9 + 0.1 * variance)

    frozen, kept = freeze_state(model).apply_train(variables, x, jax.random.key(2))
    close(frozen, conv.transpose(0, 2, 3, 1).reshape(6, -1))
    jax.tree.map(np.testing.assert_array_equal, kept, variables.state)


def _oihw(variables):
    return variables.params["conv"]["kernel"].transpose(3, 2, 0, 1)


def test_default_follows_the_backend():
    expected = "patches" if jax.default_backend() == "cpu" else "xla"
    assert default_implementation() == expected
    assert images(jnp.zeros((1, 2, 2, 1)), None).implementation == expected
