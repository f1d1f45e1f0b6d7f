"""Multinomial logistic regression in float64 NumPy: the closed forms of one linear layer."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables

MODEL = models.create("logistic", input_shape=(4,), n_classes=3)
KERNEL, BIAS = "kernel", "bias"


def draw(seed, n, *, scale=1.0):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    x = scale * jax.random.normal(x_key, (n, 4))
    return Dataset(x, jax.random.randint(y_key, (n,), 0, 3).astype(jnp.int32))


TASK = Task(draw(1, 24), draw(2, 10), draw(3, 12), draw(4, 12))


def weights(seed=5):
    kernel_key, bias_key = jax.random.split(jax.random.key(seed))
    layer = {
        KERNEL: 0.7 * jax.random.normal(kernel_key, (4, 3)),
        BIAS: 0.3 * jax.random.normal(bias_key, (3,)),
    }
    return Variables({"classifier": layer})


def as_float64(variables):
    layer = variables.params["classifier"]
    return {name: np.asarray(layer[name], np.float64) for name in (KERNEL, BIAS)}


def logits(w, x):
    return np.asarray(x, np.float64) @ w[KERNEL] + w[BIAS]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def pull_back(x, residual):
    """The gradient of a mean over examples whose gradient in each logit is `residual`."""
    x = np.asarray(x, np.float64)
    return {KERNEL: x.T @ residual / len(x), BIAS: residual.mean(0)}


def gradient(w, dataset, labels=None):
    """The gradient of the mean cross-entropy."""
    labels = np.asarray(dataset.y if labels is None else labels)
    return pull_back(dataset.x, softmax(logits(w, dataset.x)) - np.eye(3)[labels])


def combine(*terms):
    """Σ a_i g_i of pairs (a_i, g_i)."""
    return {name: sum(a * g[name] for a, g in terms) for name in (KERNEL, BIAS)}


def assert_close(variables, w, *, rtol=1e-5, atol=1e-6):
    for name, value in as_float64(variables).items():
        np.testing.assert_allclose(value, w[name], rtol=rtol, atol=atol, err_msg=name)
