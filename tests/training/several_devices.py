"""Trains four networks on two simulated devices and on one: python several_devices.py."""

import jax

jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from unlearnkit import models  # noqa: E402
from unlearnkit.base import Dataset  # noqa: E402
from unlearnkit.training import Recipe, fit, fit_many  # noqa: E402


def main() -> None:
    assert jax.device_count() == 2
    x = jax.random.normal(jax.random.key(0), (40, 12, 12, 1))
    dataset = Dataset(x, jnp.arange(40, dtype=jnp.int32) % 3)
    model = models.create("cnn_mnist", input_shape=(12, 12, 1), n_classes=3)
    recipe = Recipe(epochs=2, batch_size=10, learning_rate=0.05)
    keys = jax.random.split(jax.random.key(1), 4)
    for batching in ("map", "vmap"):
        many = fit_many(keys, model, dataset, recipe, batching=batching)
        leaf = jax.tree.leaves(many.variables)[0]
        assert len(leaf.sharding.device_set) == 2, leaf.sharding
        for i, key in enumerate(keys):
            one = fit(key, model, dataset, recipe)
            jax.tree.map(
                lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4),
                many.variables,
                one.variables,
            )
    odd = fit_many(keys[:3], model, dataset, recipe)
    assert len(jax.tree.leaves(odd.variables)[0].sharding.device_set) == 1
    print("same on two devices")


if __name__ == "__main__":
    main()
