"""The speed-run network on CIFAR-10: its accuracy after two minutes and after ten, three seeds.

`python -m benchmarks speedrun` trains on all 50,000 images, each seed in a process of its own with
a CPU device per core, which share every batch. Time is of training alone; compilation stands apart.
Eight minutes on two cores. `python -m benchmarks.speedrun ten` trains a wider network for ten
minutes per seed, and writes a results file of its own.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys

import jax
import jax.numpy as jnp

from benchmarks.frame import Row, Timing, markdown, run_on_cpu_devices, write_json
from benchmarks.training import DATA, SHAPES
from unlearnkit import models
from unlearnkit.base import Dataset, Model, Normalisation, Variables
from unlearnkit.data import load
from unlearnkit.training import Recipe, fit, predict, speedrun_recipe

SEEDS = 3
NORMALISATION = Normalisation("cifar10", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
"""The customary constants, which no split changes."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network, how it is trained, and what is asked of it.

    Attributes:
      widths: of its blocks.
      recipe: how.
      minutes: that training may take.
      must: the accuracy that it is to reach.
    """

    widths: tuple[int, ...]
    recipe: Recipe
    minutes: float
    must: float


SETTINGS = {
    "two": Setting((48, 96), speedrun_recipe(), 2.0, 0.80),
    "ten": Setting((64, 256), speedrun_recipe(epochs=8), 10.0, 0.88),
}


def run() -> list[Row]:
    """Returns the row of two minutes; on an accelerator see `benchmarks.accelerator`."""
    return [measure("two")]


def measure(name: str) -> Row:
    """Returns the row of a setting."""
    setting = SETTINGS[name]
    runs = [run_on_cpu_devices("benchmarks.speedrun", name, str(seed)) for seed in range(SEEDS)]
    seconds = [one["seconds"] for one in runs]
    plain, flipped = ([one[kind] for one in runs] for kind in ("accuracy", "flipped"))
    compile_seconds = statistics.median(one["compile_seconds"] for one in runs)
    widths = "-".join(map(str, setting.widths))
    recipe = setting.recipe
    return Row(
        f"speed-run network, accuracy in {setting.minutes:g} minutes",
        f"CIFAR-10 as JPEG, 50,000 images, widths {widths}, {recipe.epochs} epochs of "
        f"{recipe.batch_size}, mean of {SEEDS} seeds",
        Timing(statistics.median(seconds), min(seconds), SEEDS, compile_seconds),
        value=statistics.mean(plain),
        goal=setting.must,
        accuracy=", ".join(f"{100 * value:.2f} %" for value in plain),
        note=f"the longest took {max(seconds):.0f} s of {60 * setting.minutes:.0f}; with flips at "
        f"test time {100 * statistics.mean(flipped):.2f} %",
    )


def train(setting: Setting, seed: int) -> dict[str, float]:
    """Returns the accuracies and the times of one run."""
    data = {
        split: load("cifar10", split=split, data_dir=DATA, normalisation=NORMALISATION)
        for split in ("train", "test")
    }
    model = models.create(
        "speedrun",
        input_shape=SHAPES["cifar10"],
        n_classes=10,
        widths=setting.widths,
        implementation="bilinear",
    )
    key, devices = jax.random.key(seed), jax.devices()
    variables, info = fit(key, model, data["train"], setting.recipe, devices=devices)
    plain, mirrored = (_logits(model, variables, data["test"], flip) for flip in (False, True))
    return {
        "accuracy": _accuracy(plain, data["test"]),
        "flipped": _accuracy(plain + mirrored, data["test"]),
        "seconds": info.cost.seconds,
        "compile_seconds": info.cost.compile_seconds,
    }


def _logits(model: Model, variables: Variables, dataset: Dataset, flip: bool) -> jax.Array:
    return predict(model, variables, dataset.x[:, :, ::-1] if flip else dataset.x)


def _accuracy(logits: jax.Array, dataset: Dataset) -> float:
    return float(jnp.mean(jnp.argmax(logits, -1) == dataset.y))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(train(SETTINGS[sys.argv[1]], int(sys.argv[2]))))
    elif len(sys.argv) == 2:
        write_json(f"speedrun_{sys.argv[1]}", [measure(sys.argv[1])])
    else:
        print(markdown(run()))
