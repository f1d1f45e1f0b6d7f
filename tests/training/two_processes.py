"""One of two processes that train one network together: python two_processes.py PORT NUMBER.

Without a number, it trains the same network alone, on two simulated devices.
"""

import sys

import jax

port, *number = sys.argv[1:]
if number:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(number[0]))
else:
    jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from compilation_cache import keep_programs  # noqa: E402

from unlearnkit import models  # noqa: E402
from unlearnkit.base import Dataset  # noqa: E402
from unlearnkit.training import Recipe, fit  # noqa: E402

keep_programs()
assert jax.device_count() == 2, jax.devices()
x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
dataset = Dataset(jnp.asarray(x), jnp.asarray(np.arange(40, dtype=np.int32) % 3))
model = models.create("mlp", input_shape=(6,), n_classes=3, hidden=(8,))
recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.1, momentum=0.9)
heard = []
trained = fit(
    jax.random.key(1), model, dataset, recipe, devices=jax.devices(),
    on_epoch=lambda epoch, metrics: heard.append(metrics["loss"]),
)  # fmt: skip
weights = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(trained.variables)])
print("weights", weights.tobytes().hex())
print("losses", np.asarray(heard).tobytes().hex())
