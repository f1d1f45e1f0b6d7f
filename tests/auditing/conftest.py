import jax
import jax.numpy as jnp
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.models import from_functions
from unlearnkit.training import Recipe, fit

RECIPE = Recipe(epochs=20, batch_size=32, learning_rate=0.05)


def draw(seed, n, noise=1.5):
    """Three classes of overlapping clouds, so that a network has something to memorise."""
    x_key, y_key = jax.random.split(jax.random.key(seed))
    y = jax.random.randint(y_key, (n,), 0, 3)
    x = noise * jax.random.normal(x_key, (n, 6)) + jax.nn.one_hot(y, 6)
    return Dataset(x, y.astype(jnp.int32))


@pytest.fixture(scope="session")
def recipe():
    return RECIPE


@pytest.fixture(scope="session")
def linear():
    """Logits x W of five inputs and three classes."""
    return from_functions(
        lambda key: {"w": jax.random.normal(key, (5, 3))},
        lambda params, x: x @ params["w"],
        input_shape=(5,),
    )


@pytest.fixture(scope="session")
def mlp():
    return models.create("mlp", input_shape=(6,), n_classes=3, hidden=(24,))


@pytest.fixture(scope="session")
def task():
    return Task(draw(1, 160), draw(2, 40), draw(3, 80), draw(4, 80))


@pytest.fixture(scope="session")
def original(mlp, task, recipe):
    return fit(jax.random.key(0), mlp, task.train, recipe).variables


@pytest.fixture(scope="session")
def retrained(mlp, task, recipe):
    return fit(jax.random.key(1), mlp, task.retain, recipe).variables
