"""A small network with two BatchNorm layers, the same of flax.linen and of flax.nnx."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_linen, from_nnx


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for name in ("first", "second"):
            x = nn.Dense(5, name=name)(x)
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"{name}_norm")
            x = nn.relu(norm(x))
        return nn.Dense(3, name="classifier")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.first_norm = nnx.BatchNorm(5, rngs=rngs)
        self.second = nnx.Linear(5, 5, rngs=rngs)
        self.second_norm = nnx.BatchNorm(5, rngs=rngs)
        self.classifier = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first_norm(self.first(x)))
        return self.classifier(nnx.relu(self.second_norm(self.second(x))))


def build(rngs):
    return Nnx(rngs)


LINEN = from_linen(Linen(), input_shape=(4,))
NNX = from_nnx(build, input_shape=(4,))


def draw(seed, n):
    x = 0.5 + 0.1 * jax.random.normal(jax.random.key(seed), (n, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


TASK = Task(draw(1, 32), draw(2, 12), draw(3, 12), draw(4, 12))


def trained(model=LINEN):
    """Weights whose running statistics are no longer those of an initialisation."""
    fresh = model.init(jax.random.key(7))
    state = jax.tree.map(lambda s: 0.8 * s + 0.3, fresh.state)
    return Variables(fresh.params, state)
