"""The shared problems: small networks in float64, with their dense matrices as oracles."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Dataset
from unlearnkit.models import from_linen


class Logistic(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), -1))


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(5)(x.reshape(len(x), -1)))
        return nn.Dense(3)(nn.tanh(nn.Dense(4)(x)))


class LeNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.softplus(nn.Conv(2, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.softplus(nn.Conv(3, (2, 2))(x))
        return nn.Dense(3)(nn.tanh(nn.Dense(4)(x.reshape(len(x), -1))))


class BatchNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(5)(x.reshape(len(x), -1))
        x = nn.tanh(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3)(x)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    apply: Callable[[Any, jax.Array], jax.Array]
    params: Any
    dataset: Dataset

    def loss(self, params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(self.apply(params, x), y).mean()

    def full_loss(self, params):
        return self.loss(params, *self.dataset[:2])

    @property
    def flat(self):
        """The raveled parameters, and their inverse."""
        return ravel_pytree(self.params)

    @functools.cached_property
    def hessian(self):
        """[p, p]."""
        flat, unravel = self.flat
        return jax.jit(jax.hessian(lambda p: self.full_loss(unravel(p))))(flat)

    @functools.cached_property
    def jacobian(self):
        """[n, c, p]."""
        flat, unravel = self.flat
        return jax.jit(jax.jacrev(lambda p: self.apply(unravel(p), self.dataset.x)))(flat)

    @functools.cached_property
    def gradients(self):
        """[n, p], from the dense Jacobian and the softmax."""
        p = jax.nn.softmax(self.apply(self.params, self.dataset.x))
        errors = p - jax.nn.one_hot(self.dataset.y, p.shape[1])
        return jnp.einsum("ia,iap->ip", errors, self.jacobian)

    def vector(self, seed=0):
        flat, unravel = self.flat
        return unravel(jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype))


MODULES = {"logistic": Logistic, "mlp": Mlp, "lenet": LeNet, "batch_norm": BatchNorm}


@functools.cache
def make_problem(name, *, n=7, dtype=jnp.float64):
    model = from_linen(MODULES[name](), input_shape=(4, 4, 1))
    x = jax.random.normal(jax.random.key(1), (n, 4, 4, 1), dtype)
    y = jax.random.randint(jax.random.key(2), (n,), 0, 3)
    variables = jax.jit(model.init)(jax.random.key(3))
    if variables.state:  # statistics that are not those of a fresh network
        _, state = jax.jit(model.apply_train)(variables, 2 * x + 1, jax.random.key(4))
        variables = variables._replace(state=state)
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

    def apply(params, inputs):
        return model.apply(variables._replace(params=params), inputs)

    return Problem(apply, variables.params, Dataset(x, y))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=list(MODULES))
def problem(request, x64):
    return make_problem(request.param)


@pytest.fixture
def mlp(x64):
    return make_problem("mlp")


@pytest.fixture
def lenet(x64):
    return make_problem("lenet")


@pytest.fixture(params=["float32", "float64"])
def precise(request):
    """Runs a test in both precisions; gives the dtype."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def compilations():
    """Counts traces: returns a function's wrapper whose `.count` is how often it was traced."""

    def counted(function):
        def wrapped(*args):
            wrapped.count += 1
            return function(*args)

        wrapped.count = 0
        return wrapped

    return counted
