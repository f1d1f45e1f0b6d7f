"""Tiny problems in float64 with dense gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import models
from unlearnkit.base import Dataset, Variables


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Dense:
    """A network whose per-example gradients are one matrix."""

    def __init__(self, name="mlp"):
        options = {"hidden": (4,), "activation": "tanh"} if name == "mlp" else {}
        self.model = models.create(name, input_shape=(5,), n_classes=3, **options)
        start = self.model.init(jax.random.key(1))
        dtype = jnp.zeros(()).dtype
        self.variables = jax.tree.map(lambda w: 2 * w.astype(dtype), start)
        x = jax.random.normal(jax.random.key(2), (23, 5))
        y = jnp.repeat(jnp.arange(3), jnp.array([6, 7, 10]))  # unequal classes, in no order
        self.dataset = Dataset(x, jax.random.permutation(jax.random.key(3), y).astype(jnp.int32))

    def flat(self):
        return ravel_pytree(self.variables.params)

    def logits(self, w):
        return self.model.apply(Variables(self.flat()[1](w)), self.dataset.x)

    def losses(self, w):
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(self.logits(w)), self.dataset.y[:, None], axis=1
        )
        return -picked[:, 0]

    def gradients(self):
        """[n, p]."""
        return np.asarray(jax.jacobian(self.losses)(self.flat()[0]))

    def gauss_newton(self):
        """[p, p], of the mean loss."""
        rows = jax.jacobian(self.logits)(self.flat()[0])
        p = jax.nn.softmax(self.logits(self.flat()[0]))
        blocks = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
        return np.asarray(jnp.einsum("iap,iab,ibq->pq", rows, blocks, rows)) / self.dataset.size


@pytest.fixture
def dense():
    return Dense
