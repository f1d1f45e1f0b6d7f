"""Small logs of training."""

import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.models import from_linen
from unlearnkit.training import Recipe, fit

FULL_RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    learning_rate=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-3,
    schedule="cosine",
    gradient_noise=1e-3,
    augmentation="shift_flip",
    shift=1,
)
"""Everything that a replay could get wrong, in one recipe."""


class Normed(nn.Module):
    """A hidden layer with BatchNorm and dropout."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        hidden = nn.Dense(4)(x.reshape(x.shape[0], -1))
        hidden = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(hidden))
        return nn.Dense(3)(nn.Dropout(self.dropout, deterministic=not train)(hidden))


@pytest.fixture(scope="session")
def full_recipe():
    return FULL_RECIPE


@pytest.fixture(scope="session")
def dropping():
    return from_linen(Normed(dropout=0.3), input_shape=(5, 5, 2))


@pytest.fixture(scope="session")
def normed():
    return from_linen(Normed(), input_shape=(5, 5, 2))


@pytest.fixture(scope="session")
def pictures():
    x = jax.random.uniform(jax.random.key(0), (40, 5, 5, 2))
    return Dataset(x, jnp.arange(40, dtype=jnp.int32) % 3)


@pytest.fixture(scope="session")
def points():
    x = jax.random.normal(jax.random.key(0), (40, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


@pytest.fixture(scope="session")
def mlp():
    return models.create("mlp", input_shape=(4,), n_classes=3, hidden=(5,))


@pytest.fixture(scope="session")
def picture_log(tmp_path_factory, dropping, pictures):
    """15 steps, a checkpoint each 4; the network has no name that makes it."""
    folder = tmp_path_factory.mktemp("pictures")
    fit(jax.random.key(1), dropping, pictures, FULL_RECIPE, trajectory=folder, every=4)
    return folder


@pytest.fixture(scope="session")
def point_log(tmp_path_factory, mlp, points):
    """10 steps, a checkpoint each 4, momentum."""
    folder = tmp_path_factory.mktemp("points")
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.1, momentum=0.9)
    fit(jax.random.key(1), mlp, points, recipe, trajectory=folder, every=4)
    return folder


@pytest.fixture
def copy(tmp_path):
    """Returns a function that copies a log to where a test may spoil it."""
    return lambda log: shutil.copytree(log, tmp_path / "copy")
