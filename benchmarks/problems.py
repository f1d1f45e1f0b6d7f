"""The networks and data that the benchmarks run on, as pure functions of parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearnkit import models
from unlearnkit.base import Variables

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
Params = Any
Apply = Callable[[Params, jax.Array], jax.Array]


def mnist(n: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns images [n, 28, 28, 1] in [0, 1], labels [n], and where they come from.

    MNIST where its TFDS copy is at hand; else scikit-learn's digits, enlarged to 28 x 28.
    """
    try:
        import tensorflow_datasets as tfds

        source = tfds.data_source("mnist", split="train", data_dir=str(DATA), download=False)
        rows = source.__getitems__(list(range(n)))
        x = np.stack([row["image"] for row in rows]).astype(np.float32) / 255
        return x, np.array([row["label"] for row in rows], np.int32), "MNIST"
    except Exception:
        from sklearn.datasets import load_digits

        digits = load_digits()
        index = np.arange(n) % len(digits.target)
        x = np.kron(digits.images[index], np.ones((1, 3, 3))).astype(np.float32) / 16
        x = np.pad(x, ((0, 0), (2, 2), (2, 2)))[..., None]
        noise = np.random.default_rng(0).normal(0, 0.02, x.shape).astype(np.float32)
        return x + noise, digits.target[index].astype(np.int32), "digits at 28 x 28"


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Returns the convolution of x [n, h, w, c] with a kernel [k, k, c, out], by XLA's own."""
    pads = ((padding, padding), (padding, padding))
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=numbers
    )


def dense_layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
    fan_in = int(np.prod(shape[:-1]))
    kernel = jax.random.normal(key, shape) * jnp.sqrt(2 / fan_in)
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])}


LENET, LENET_BY_XLA = (
    models.create("lenet", input_shape=(28, 28, 1), n_classes=10, implementation=how)
    for how in (None, "xla")
)
LENET_LAYERS = ("conv1", "conv2", "fc1", "fc2", "classifier")


def init_lenet(key: jax.Array) -> Params:
    """LeNet-5 with 61,706 parameters, the library's own."""
    return LENET.init(key).params


def apply_lenet(params: Params, x: jax.Array) -> jax.Array:
    return LENET.apply(Variables(params), x)


def apply_lenet_by_xla(params: Params, x: jax.Array) -> jax.Array:
    return LENET_BY_XLA.apply(Variables(params), x)


def init_mlp(key: jax.Array, sizes: tuple[int, ...] = (784, 784, 784, 10)) -> Params:
    """The fully connected network of Lu et al. 2022; 1,238,730 parameters."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [dense_layer(k, *sizes[i : i + 2]) for i, k in enumerate(keys)]


def apply_mlp(params: Params, x: jax.Array) -> jax.Array:
    h = x.reshape(len(x), -1)
    for layer in params[:-1]:
        h = jax.nn.relu(h @ layer["kernel"] + layer["bias"])
    return h @ params[-1]["kernel"] + params[-1]["bias"]


ALL_CNN = ((3, 1), (3, 1), (3, 2), (3, 1), (3, 1), (3, 2), (3, 1), (1, 1), (1, 1))


def init_all_cnn(key: jax.Array, *, width: int = 96, channels: int = 3) -> Params:
    """All-CNN-C (Springenberg et al. 2015): nine convolutions, the mean over places at the end."""
    outs = (width,) * 3 + (2 * width,) * 5 + (10,)
    params, previous = [], channels
    for k, (size, _), out in zip(jax.random.split(key, 9), ALL_CNN, outs, strict=True):
        params.append(dense_layer(k, size, size, previous, out))
        previous = out
    return params


def apply_all_cnn(params: Params, x: jax.Array) -> jax.Array:
    h = x
    for i, (layer, (size, stride)) in enumerate(zip(params, ALL_CNN, strict=True)):
        h = conv(h, layer["kernel"], stride=stride, padding=size // 2) + layer["bias"]
        h = jax.nn.relu(h) if i < 8 else h
    return h.mean(axis=(1, 2))


def train(
    apply: Apply, params: Params, x: np.ndarray, y: np.ndarray, *, epochs: int, batch: int = 100
) -> Params:
    """Returns the parameters after Adam at 1e-3, deterministic."""
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params: Params, state: Any, x: jax.Array, y: jax.Array) -> tuple[Params, Any]:
        gradient = jax.grad(lambda p: cross_entropy(apply(p, x), y))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y) - batch + 1, batch):
            index = order[start : start + batch]
            params, state = step(params, state, x[index], y[index])
    return params
