"""Penultimate features against the networks' own last layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unlearnkit import models
from unlearnkit.base import Variables
from unlearnkit.models import from_functions, from_linen, from_nnx
from unlearnkit.training import penultimate


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.last = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


def build(rngs):
    return Nnx(rngs)


class Shared(nn.Module):
    """Its logits share their weights."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(3, name="last")(x)
        return h + h.sum(axis=1, keepdims=True)


def draw(shape, n=11):
    return jax.random.normal(jax.random.key(1), (n, *shape))


@pytest.mark.parametrize("name", ["logistic", "mlp", "lenet"])
def test_the_last_layer_turns_them_into_the_logits(name):
    model = models.create(name, input_shape=(12, 12, 1), n_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0))
    x = draw((12, 12, 1))
    h = penultimate(model, variables, x)
    last = variables.params[model.layers[-1][0][0]]
    wanted = model.apply(variables, x)
    np.testing.assert_allclose(h @ last["kernel"] + last["bias"], wanted, rtol=1e-4, atol=1e-5)


def test_those_of_logistic_regression_are_its_inputs():
    model = models.create("logistic", input_shape=(2, 2, 1), n_classes=3)
    variables = model.init(jax.random.key(0))
    x = draw((2, 2, 1))
    assert np.array_equal(penultimate(model, variables, x), x.reshape(11, 4))


def test_a_convolution_before_an_average_pool_is_averaged():
    model = models.create("allcnn_small", input_shape=(8, 8, 3), n_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0))
    x = draw((8, 8, 3), 3)
    h = penultimate(model, variables, x)
    assert h.shape[1] > 3
    groups = variables.params
    for name in model.layers[-1][0]:
        groups = groups[name]
    bias = groups.get("bias", 0.0)
    kernel = groups["kernel"].reshape(-1, 3)
    wanted = model.apply(variables, x)
    np.testing.assert_allclose(h @ kernel + bias, wanted, rtol=1e-3, atol=1e-4)


def test_square_kernels_of_nnx_in_evaluation_mode():
    model = from_nnx(build, input_shape=(4,))
    variables = model.init(jax.random.key(0))
    variables = variables._replace(state=jax.tree.map(lambda s: s + 0.3, variables.state))
    x = draw((4,))
    last = variables.params["last"]
    found = penultimate(model, variables, x) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(found, model.apply(variables, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_users_functions_with_rows_for_logits(as_dict):
    def init(key):
        first, last = jax.random.split(key)
        layers = [jax.random.normal(first, (3, 4)), jax.random.normal(last, (3, 3))]
        return dict(zip(("a", "b"), layers, strict=True)) if as_dict else layers

    def apply(params, x):
        first, last = params.values() if as_dict else params
        return jnp.tanh(x @ first.T) @ last.T

    model = from_functions(init, apply, input_shape=(4,))
    variables = model.init(jax.random.key(0))
    x = draw((4,))
    first = jax.tree.leaves(variables.params)[0]
    np.testing.assert_allclose(
        penultimate(model, variables, x), np.tanh(x @ first.T), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("chunk", [1, 4, 11, 50])
def test_the_chunk_does_not_matter(chunk):
    model = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(5,))
    variables = model.init(jax.random.key(0))
    x = draw((4,))
    layer = variables.params["fc1"]
    wanted = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(
        penultimate(model, variables, x, chunk=chunk), wanted, rtol=1e-5, atol=1e-6
    )


def test_logits_that_share_their_weights_are_refused():
    model = from_linen(Shared(), input_shape=(4,))
    with pytest.raises(ValueError, match="no weights that belong to one logit each"):
        penultimate(model, model.init(jax.random.key(0)), draw((4,)))


def test_a_chunk_of_none_is_refused():
    model = models.create("logistic", input_shape=(4,), n_classes=3)
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        penultimate(model, Variables({}), draw((4,)), chunk=0)
