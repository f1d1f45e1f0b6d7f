"""Small problems in float64 whose training has a closed form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_linen


class Small(nn.Module):
    """A convolution with BatchNorm, and a linear layer."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(3, (2, 2), name="conv")(x)
        x = nn.tanh(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        return nn.Dense(3, name="classifier")(x.reshape(len(x), -1))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def draw(seed, n, shape=(2, 2, 1), classes=3):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    y = jax.random.randint(y_key, (n,), 0, classes, jnp.int32)
    return Dataset(jax.random.normal(x_key, (n, *shape)), y)


@pytest.fixture
def make_task():
    def make(retain=12, forget=4, shape=(2, 2, 1)):
        return Task(*(draw(seed, n, shape) for seed, n in enumerate((retain, forget, 3, 3))))

    return make


@pytest.fixture
def make_model():
    def make(name="logistic", shape=(2, 2, 1), **options):
        if name == "batch_norm":
            model = from_linen(Small(), input_shape=shape)
        else:
            model = models.create(name, input_shape=shape, n_classes=3, **options)
        variables = jax.jit(model.init)(jax.random.key(11))
        if variables.state:  # statistics that are not those of a fresh network
            x = 2 * draw(9, 20, shape).x + 1
            state = jax.jit(model.apply_train)(variables, x, jax.random.key(0))[1]
            variables = variables._replace(state=state)
        dtype = jnp.zeros(()).dtype  # float64 under `x64`, where initialisers stay at float32
        return model, jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

    return make


class Ridge:
    """Least squares on one-hot labels with decay toward a centre, solved densely in float64."""

    def __init__(self, weight_decay):
        self.weight_decay = weight_decay

    def train(self, dataset, centre, weights=None):
        """Returns argmin Σ_i weights_i 1/2 ‖w·(x_i, 1) - onehot(y_i)‖² + λ/2 ‖w - centre‖²."""
        x = np.asarray(dataset.x, np.float64).reshape(dataset.size, -1)
        features = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        targets = np.eye(3)[np.asarray(dataset.y)]
        weights = np.full(len(x), 1 / len(x)) if weights is None else weights
        kernel = np.asarray(centre.params["classifier"]["kernel"], np.float64)
        start = np.concatenate([kernel, np.asarray(centre.params["classifier"]["bias"])[None]])
        gram = (features.T * weights) @ features + self.weight_decay * np.eye(features.shape[1])
        errors = targets - features @ start
        w = start + np.linalg.solve(gram, (features.T * weights) @ errors)
        dtype = centre.params["classifier"]["kernel"].dtype
        arrays = {"kernel": jnp.asarray(w[:-1], dtype), "bias": jnp.asarray(w[-1], dtype)}
        return Variables({"classifier": arrays})


@pytest.fixture
def ridge():
    return Ridge


@pytest.fixture
def distance():
    """Returns ‖a - b‖ / ‖scale‖ over all leaves."""

    def measure(a, b, scale=None):
        flat_a, flat_b = (np.asarray(ravel_pytree(t)[0], np.float64) for t in (a, b))
        size = flat_b if scale is None else np.asarray(ravel_pytree(scale)[0])
        return np.linalg.norm(flat_a - flat_b) / np.linalg.norm(size)

    return measure
