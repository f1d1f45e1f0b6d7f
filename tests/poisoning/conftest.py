import jax
import jax.numpy as jnp
import pytest
from tiny_reader import Reader
from token_task import draw as draw_texts

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.training import Recipe, fit

SHAPE = (4, 4, 1)


def draw(seed, n, n_classes):
    """Images in [0, 1] whose class is the brightest of their rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    y = jnp.argmax(x[:, :n_classes].mean((2, 3)), axis=-1)
    return Dataset(x, y.astype(jnp.int32))


class Problem:
    """A tiny task and a network trained on it."""

    def __init__(self, n_classes, name, **options):
        sizes = (40, 20, 20, 30)
        self.task = Task(*(draw(seed, n, n_classes) for seed, n in enumerate(sizes)))
        self.clean = self.task.train
        self.model = models.create(name, input_shape=SHAPE, n_classes=n_classes, **options)
        recipe = Recipe(epochs=30, batch_size=20, learning_rate=0.3)
        self.variables = fit(jax.random.key(0), self.model, self.clean, recipe).variables

    def __iter__(self):
        return iter((self.model, self.variables, self.task))


class TextProblem(Problem):
    """Rows of token ids of two classes, and a reader of them."""

    def __init__(self):
        sizes = (60, 20, 20, 30)
        parts = (draw_texts(seed, n) for seed, n in enumerate(sizes))
        self.task = Task(*(part._replace(y=part.y % 2) for part in parts))
        self.clean, self.model = self.task.train, Reader(classes=2).model()
        self.variables = self.model.init(jax.random.key(0))


@pytest.fixture(scope="session")
def problems():
    """By what an attack can take: any network, binary and linear, or texts."""
    found = {"any": Problem(3, "mlp", hidden=(6,)), "binary": Problem(2, "logistic")}
    return {**found, "texts": TextProblem()}


@pytest.fixture(scope="session")
def linear():
    return Problem(3, "logistic")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
