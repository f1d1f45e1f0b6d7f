"""Proof of learning: what logging costs, and how long verification takes beside the training.

`python -m benchmarks.proof_of_learning` prints the table alone; `python -m benchmarks
proof_of_learning` keeps it. LeNet on MNIST, 1,000 steps of 100, a checkpoint each 100. About two
minutes on two CPU cores.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.frame import Row, Timing, compare, markdown
from benchmarks.training import SHAPES, examples
from unlearnkit.base import Dataset
from unlearnkit.forging import VerificationReport, replay, verify
from unlearnkit.models import create
from unlearnkit.training import Recipe, fit, take_steps

STEPS, EVERY, BATCH = 1_000, 100, 100
DEVICES = 8
RECIPE = Recipe(epochs=10, batch_size=BATCH, learning_rate=0.01, momentum=0.9)


def run() -> list[Row]:
    dataset, source = examples("mnist", STEPS // RECIPE.epochs * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        return [*_time(Path(folder), dataset, source), _shares()]


def _time(folder: Path, dataset: Dataset, source: str) -> list[Row]:
    model = create("lenet", input_shape=SHAPES["mnist"], n_classes=10)
    key = jax.random.key(0)
    numbers = count()

    def logged() -> Any:
        log = folder / f"log-{next(numbers)}"
        return fit(key, model, dataset, RECIPE, trajectory=log, every=EVERY).variables

    logged()
    reports: dict[str, VerificationReport] = {}

    def verified(steps: str, at_once: int = 1) -> VerificationReport:
        log = folder / "log-0"
        report = verify(log, dataset, tolerance=0, steps=steps, key=key, at_once=at_once)
        reports["at once" if at_once > 1 else steps] = report
        return report

    calls: dict[str, Callable[[], Any]] = {
        "training": lambda: fit(key, model, dataset, RECIPE).variables,
        "logged": logged,
        "all": lambda: verified("all").errors,
        "random:3": lambda: verified("random:3").errors,
    }
    if jax.default_backend() != "cpu":
        calls["at once"] = lambda: verified("all", at_once=STEPS // EVERY).errors
    timings = compare(calls, repeats=5)
    training = timings["training"]
    megabytes = f"{sum(path.stat().st_size for path in (folder / 'log-0').iterdir()) / 1e6:.1f} MB"
    names = {
        "all": "verification",
        "random:3": "verification of 3 segments of 10",
        "at once": "verification, segments in one call (rounds differently)",
    }
    size = f"lenet, {source}, {STEPS} steps of {BATCH}, a checkpoint each {EVERY}"
    rows = [_against("logging", size, timings["logged"], training, goal=1.05, note=megabytes)]
    for call, report in reports.items():
        error = f"largest error {report.errors.max():.3g}"
        goal = 2 / 3 if call == "all" else None
        if call == "all":
            share = min(report.cost.seconds / timings[call].seconds, 1.0)
            error += (
                f"; {share:.0%} of it is replay, every step of the training over again, which "
                "reading each checkpoint once in place of twice would leave as it is"
            )
        rows.append(_against(names[call], size, timings[call], training, goal=goal, note=error))
    return rows


def _against(
    kernel: str, size: str, ours: Timing, training: Timing, *, goal: float | None, note: str
) -> Row:
    least = f"of the fastest of {ours.repeats}: {ours.least / training.least:.3f}"
    return Row(
        kernel,
        size,
        ours,
        "fit, not logged",
        training,
        value=ours.seconds / training.seconds,
        goal=goal,
        lower_is_better=True,
        note=f"{note}; {least}",
    )


def _shares() -> Row:
    """Counts the steps that each of eight simulated devices replays, in a process of its own."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.proof_of_learning", "shares"]
    root = Path(__file__).resolve().parents[1]
    output = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout
    shares = json.loads(output.splitlines()[-1])
    return Row(
        f"largest share of the work on {DEVICES} simulated devices",
        f"lenet, noise shaped as mnist, {sum(shares)} steps of 8",
        value=max(shares) / sum(shares),
        goal=1 / DEVICES,
        lower_is_better=True,
        note=f"steps a device: {', '.join(map(str, shares))}; every error 0",
    )


def _print_shares() -> None:
    x_key, y_key = jax.random.split(jax.random.key(0))
    x = jax.random.uniform(x_key, (64, *SHAPES["mnist"]))
    dataset = Dataset(x, jax.random.randint(y_key, (64,), 0, 10))
    model = create("lenet", input_shape=SHAPES["mnist"], n_classes=10)
    recipe = Recipe(epochs=8, batch_size=8, learning_rate=0.01)
    steps: collections.Counter[int] = collections.Counter()
    program = take_steps

    def counted(start: Any, dataset: Dataset, rows: np.ndarray, *rest: Any, **options: Any) -> Any:
        (device,) = start.step.devices()
        steps[device.id] += len(rows)
        return program(start, dataset, rows, *rest, **options)

    with tempfile.TemporaryDirectory() as folder:
        fit(jax.random.key(0), model, dataset, recipe, trajectory=folder, every=4)
        setattr(replay, "take_steps", counted)  # noqa: B010 (mypy allows no assignment)
        report = verify(folder, dataset, tolerance=0)
    if not report.valid:
        raise RuntimeError(report.summary())
    print(json.dumps([steps[device.id] for device in jax.local_devices()]))


if __name__ == "__main__":
    if sys.argv[1:] == ["shares"]:
        _print_shares()
    else:
        print(markdown(run()))
