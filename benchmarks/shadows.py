"""Shadow networks: 16 LeNets trained together against one after another.

`python -m benchmarks.shadows` prints the row alone; `python -m benchmarks shadows` keeps it.
The shadows run in a process of their own with a CPU device per core, which they share.
A few minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.frame import (
    Row,
    Timing,
    compare,
    markdown,
    print_timings,
    time_on_cpu_devices,
)
from unlearnkit.auditing import train_shadows
from unlearnkit.base import Dataset, Task
from unlearnkit.data import load
from unlearnkit.models import create
from unlearnkit.training import Recipe, fit

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
COUNT = 16
RETAIN, CANDIDATES, EPOCHS = 1_000, 1_000, 5
GOAL = 1.5


def run() -> list[Row]:
    if jax.default_backend() == "cpu":
        timings = time_on_cpu_devices("benchmarks.shadows", "time")
    else:
        timings = _time_shadows()
    ours, peer = timings["together"], timings["in turn"]
    size = (
        f"lenet, mnist, {RETAIN:,} examples of all and {CANDIDATES // 2:,} of its own, batch 100, "
        f"{EPOCHS} epochs"
    )
    note = f"of the fastest of {ours.repeats}: {peer.least / ours.least:.2f}"
    return [
        Row(f"{COUNT} shadows together", size, ours, "fit, in turn", peer, goal=GOAL, note=note)
    ]


def _data() -> Dataset:
    rows = jnp.arange(RETAIN + CANDIDATES)
    try:
        return load("mnist", split="train", data_dir=DATA).take(rows)
    except (ImportError, FileNotFoundError):
        x = jax.random.uniform(jax.random.key(0), (len(rows), 28, 28, 1))
        return Dataset(x, jax.random.randint(jax.random.key(1), (len(rows),), 0, 10))


def _time_shadows() -> dict[str, Timing]:
    """Times `train_shadows`, margins included, against as many calls of `fit` on their halves."""
    data = _data()
    retain, candidates = (
        data.take(jnp.arange(start, stop))
        for start, stop in ((0, RETAIN), (RETAIN, RETAIN + CANDIDATES))
    )
    nothing = candidates.take(jnp.arange(0))
    task = Task(retain, nothing, retain, retain)
    recipe = Recipe(epochs=EPOCHS, batch_size=100, learning_rate=0.01, momentum=0.0)
    model = create("lenet", input_shape=(28, 28, 1), n_classes=10)
    key = jax.random.key(0)
    shadows = train_shadows(key, model, task, candidates, recipe, count=COUNT)
    chosen = [RETAIN + np.flatnonzero(row) for row in shadows.is_in]
    halves = [data.take(jnp.asarray(np.r_[np.arange(RETAIN), rows])) for rows in chosen]
    keys = jax.random.split(key, COUNT)
    return compare(
        {
            "together": lambda: train_shadows(key, model, task, candidates, recipe, count=COUNT)[0],
            "in turn": lambda: [
                fit(k, model, half, recipe).variables.params
                for k, half in zip(keys, halves, strict=True)
            ],
        },
        repeats=5,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["time"]:
        print_timings(_time_shadows())
    else:
        print(markdown(run()))
