"""Trains, audits and verifies on eight simulated devices: python eight_devices.py FOLDER."""

import sys
import unittest.mock
from functools import partial

import jax

jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from compilation_cache import keep_programs  # noqa: E402

from unlearnkit import models  # noqa: E402
from unlearnkit.auditing import train_shadows  # noqa: E402
from unlearnkit.base import Dataset, Task  # noqa: E402
from unlearnkit.forging import verify  # noqa: E402
from unlearnkit.training import Recipe, fit, fit_many  # noqa: E402

keep_programs()
assert jax.device_count() == 8
KEY = jax.random.key(1)
RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.1)
X = jax.random.normal(jax.random.key(0), (64, 6))
DATA = Dataset(X, jnp.argmax(X[:, :3], axis=1).astype(jnp.int32))
MODEL = models.create("mlp", input_shape=(6,), n_classes=3, hidden=(8,))


def devices_of(tree):
    return len(jax.tree.leaves(tree)[0].sharding.device_set)


def same(one, other, **bounds):
    compare = np.testing.assert_allclose if bounds else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: compare(a, b, **bounds), one, other)


# Batches: sums of eight shares in the place of one sum.
shared = fit(KEY, MODEL, DATA, RECIPE, devices=jax.devices())
assert devices_of(shared.variables) == 8
alone = fit(KEY, MODEL, DATA, RECIPE)
same(shared.variables, alone.variables, rtol=1e-5, atol=1e-6)

# Runs: the bits of each alone, also where the devices have unequally many.
keys = jax.random.split(KEY, 11)
many = fit_many(keys, MODEL, DATA, RECIPE, batching="map")
for i in (0, 1, 10):
    run = jax.tree.map(lambda leaf, i=i: leaf[i], many.variables)
    same(run, fit(keys[i], MODEL, DATA, RECIPE).variables)
lanes = fit_many(keys[:8], MODEL, DATA, RECIPE, batching="vmap")
assert devices_of(lanes.variables) == 8
same(lanes.variables, jax.tree.map(lambda leaf: leaf[:8], many.variables), rtol=1e-5, atol=1e-6)

# Shadows: the margins of those that one device trains.
task = Task(*(DATA.take(np.arange(start, start + 16)) for start in (0, 16, 32, 32)))
ask = partial(train_shadows, KEY, MODEL, task, DATA.take(np.arange(48, 64)), RECIPE, count=8)
margins = ask().margins
with unittest.mock.patch("jax.local_devices", return_value=jax.devices()[:1]):
    same(margins, ask().margins, rtol=1e-5, atol=1e-5)

# A log's segments are shared out, and replayed to the bit.
fit(KEY, MODEL, DATA, RECIPE, trajectory=sys.argv[1], every=1)
report = verify(sys.argv[1], DATA, tolerance=0)
assert report.valid, report.summary()
assert report.errors.tolist() == [0.0] * 8
print("same on eight devices")
