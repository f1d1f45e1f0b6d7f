"""Greedy data forging: the Gram matrix of gradients against one gradient per candidate.

`python -m benchmarks.forging` prints the table alone; `python -m benchmarks forging` keeps it.
LeNet on MNIST, n = 2,000 points, batches of 100. About three minutes on two CPU cores.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks.frame import Row, Timing, compare, markdown
from benchmarks.training import SHAPES, examples
from unlearnkit.base import Dataset, Model
from unlearnkit.forging import GreedyForger, Step, SwapForger, honest_step, step_error
from unlearnkit.forging.greedy import candidate
from unlearnkit.forging.steps import difference_products
from unlearnkit.models import create
from unlearnkit.training import Recipe, fit

POINTS, BATCH, RATE = 2_000, 100, 0.01
TRIED = 200
"""Candidates whose own gradients are timed; the peer's time for M is M / TRIED times theirs."""
GOALS = {2_000: 8.0, 100_000: 100.0, 1_000_000: None}


def run() -> list[Row]:
    dataset, source = examples("mnist", 20_000)
    model = create("lenet", input_shape=SHAPES["mnist"], n_classes=10)
    recipe = Recipe(epochs=1, batch_size=BATCH, learning_rate=RATE, momentum=0.9)
    variables = fit(jax.random.key(0), model, dataset, recipe).variables
    step = honest_step(model, variables, dataset.take(np.arange(BATCH)), RATE)
    allowed = dataset.take(np.arange(BATCH, dataset.size))
    key = jax.random.key(1)
    forgers: dict[str, Any] = {str(m): GreedyForger(POINTS, m) for m in GOALS}
    forgers["swap"] = SwapForger(POINTS)
    calls: dict[str, Any] = {
        name: (lambda forger=forger: forger(key, model, step, allowed).error)
        for name, forger in forgers.items()
    }
    batches, errors = _candidates(key, model, step, allowed)
    gradients = lambda: [step_error(model, step, batch) for batch in batches]  # noqa: E731
    timings = compare({**calls, "gradients": gradients}, repeats=3)
    agreement = float(np.max(np.abs(np.array(gradients()) - errors)))
    size = f"lenet, {source}, n {POINTS:,}, b {BATCH}"
    rows = []
    for m, goal in GOALS.items():
        forged = forgers[str(m)](key, model, step, allowed)
        rows.append(
            Row(
                "greedy forging",
                f"{size}, M {m:,}",
                timings[str(m)],
                "a gradient a candidate",
                _scaled(timings["gradients"], m / TRIED),
                goal=goal,
                accuracy=f"best error {float(forged.error):.3g}",
                note=f"peer timed on {TRIED} candidates; errors agree to {agreement:.1g}",
            )
        )
    swapped = forgers["swap"](key, model, step, allowed)
    rows.append(
        Row(
            "forging by exchanges",
            size,
            timings["swap"],
            accuracy=f"best error {float(swapped.error):.3g}",
            note=f"no choice of these points errs less than {float(swapped.info.bound):.3g}",
        )
    )
    return rows


def _candidates(
    key: jax.Array, model: Model, step: Step, allowed: Dataset
) -> tuple[list[Dataset], np.ndarray]:
    """Returns the first candidates of a search, and the errors that the Gram matrix gives them."""
    forger = GreedyForger(POINTS, TRIED)
    points = allowed.take(np.arange(POINTS))
    _, scores = forger.search(key, difference_products(model, step, points), BATCH)
    plan = forger.plan(POINTS, BATCH)
    batches = [points.take(candidate(key, plan, i)) for i in range(TRIED)]
    return batches, RATE / BATCH * np.sqrt(np.asarray(scores))


def _scaled(timing: Timing, factor: float) -> Timing:
    return dataclasses.replace(timing, seconds=factor * timing.seconds, least=factor * timing.least)


if __name__ == "__main__":
    print(markdown(run()))
