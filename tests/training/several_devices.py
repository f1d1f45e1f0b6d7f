"""Trains networks on two simulated devices and on one: python several_devices.py."""

import collections
import dataclasses
import importlib
import tempfile
from typing import Any

import jax

jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from unlearnkit import models  # noqa: E402
from unlearnkit.base import Dataset, Model, Params  # noqa: E402
from unlearnkit.models import from_functions  # noqa: E402
from unlearnkit.training import CheckpointError, Recipe, TrainState, fit, fit_many  # noqa: E402


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
    share_runs_unevenly(model, dataset, recipe)
    share_batches(model, dataset, recipe)
    share_batches_of_one_image_repeated()
    print("same on two devices")


def share_runs_unevenly(model: Model, dataset: Dataset, recipe: Recipe) -> None:
    """Three runs on two devices: the bits of each alone."""
    keys = jax.random.split(jax.random.key(1), 3)
    taken: collections.Counter[int] = collections.Counter()
    module = importlib.import_module(
        "unlearnkit.training.fit"
    )  # the package has a function so named
    plain = module.take_steps

    def counted(state: TrainState, *rest: Any, **options: Any) -> Any:
        taken.update(device.id for device in state.step.devices())
        return plain(state, *rest, **options)

    module.take_steps = counted
    odd = fit_many(keys, model, dataset, recipe)
    module.take_steps = plain
    assert dict(taken) == {0: 2 * recipe.epochs, 1: recipe.epochs}, taken
    for i, key in enumerate(keys):
        one = fit(key, model, dataset, recipe)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), odd.variables, one.variables
        )


def share_batches(model: Model, dataset: Dataset, recipe: Recipe) -> None:
    """One run whose batches are split in two, against the same run on one device."""
    two = jax.devices()
    key = jax.random.key(2)
    noisy = dataclasses.replace(recipe, gradient_noise=0.01, clip_norm=0.5)
    for how in (recipe, noisy):
        apart = fit(key, model, dataset, how)
        shared = fit(key, model, dataset, how, devices=two)
        assert len(jax.tree.leaves(shared.variables)[0].sharding.device_set) == 2
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            shared.variables,
            apart.variables,
        )
        again = fit(key, model, dataset, how, devices=two, epochs_per_call=2)
        jax.tree.map(np.testing.assert_array_equal, again.variables, shared.variables)
        for name, values in apart.info.history.items():
            np.testing.assert_allclose(shared.info.history[name], values, rtol=1e-3, atol=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        fit(key, model, dataset, recipe, devices=two, checkpoint=folder)
        with pytest.raises(CheckpointError, match="shares"):
            fit(key, model, dataset, recipe, checkpoint=folder)


def share_batches_of_one_image_repeated() -> None:
    """Each device draws its own shifts: copies of one image come out differently on the two."""
    seen: list[np.ndarray] = []

    def apply(params: Params, x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), x)
        return x.reshape(x.shape[0], -1) @ params["w"]

    model = from_functions(lambda key: {"w": jnp.zeros((256, 3))}, apply, input_shape=(16, 16, 1))
    image = jax.random.normal(jax.random.key(3), (16, 16, 1))
    dataset = Dataset(jnp.stack([image] * 8), jnp.arange(8, dtype=jnp.int32) % 3)
    recipe = Recipe(epochs=1, batch_size=8, augmentation="shift", shift=4)
    seen.clear()
    fit(jax.random.key(4), model, dataset, recipe, devices=jax.devices())
    jax.effects_barrier()
    one, other = [rows for rows in seen if len(rows) == 4][:2]
    assert not np.array_equal(one, other)


if __name__ == "__main__":
    main()
