"""Logs on one of three simulated devices and verifies on all: python several_devices.py FOLDER."""

import collections
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.forging import replay, verify
from unlearnkit.training import Recipe, fit


def main(folder: str) -> None:
    assert jax.device_count() == 3
    x = jax.random.normal(jax.random.key(0), (40, 4))
    dataset = Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))
    model = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(5,))
    recipe = Recipe(epochs=6, batch_size=8, learning_rate=0.1)
    fit(jax.random.key(1), model, dataset, recipe, trajectory=Path(folder), every=5)
    used: collections.Counter[int] = collections.Counter()
    program = replay.take_steps

    def counted(start, *arguments, **options):
        used.update(device.id for device in start.step.devices())
        return program(start, *arguments, **options)

    replay.take_steps = counted
    report = verify(folder, dataset, tolerance=0, parallel=1)
    assert report.valid, report.summary()
    assert report.errors.tolist() == [0.0] * 6
    assert dict(used) == {0: 2, 1: 2, 2: 2}, used
    print("exact on three devices")


if __name__ == "__main__":
    main(*sys.argv[1:])
