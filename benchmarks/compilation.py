"""Compilation: what a whole study compiles, once, again, and where it is changed.

`python -m benchmarks.compilation` prints the table alone; `python -m benchmarks compilation` keeps
it. A study of eight methods at three budgets on digits, poisoned, trained and audited, in a process
of its own without programs on disk. Under a minute on two CPU cores.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from benchmarks.frame import Row, Timing, markdown
from unlearnkit import models
from unlearnkit.base import Dataset, Model, Unlearner
from unlearnkit.data import load
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import poison_and_unlearn
from unlearnkit.training import Recipe
from unlearnkit.unlearning import (
    CatastrophicLastLayers,
    ExactLastLayers,
    FineTune,
    GradientAscent,
    NegGradPlus,
    NoisyDescent,
    Retrain,
    Scrub,
)

EVENT = "/jax/core/compile/backend_compile_duration"
WHAT = {
    "first": "a study, in a fresh process with its data",
    "again": "the same study again",
    "rates": "with other learning rates",
    "budget": "with a further budget",
    "seed": "with another seed",
    "size": "with poisons of another number",
}
COMPILATIONS = {"first": 40, "again": 0, "rates": 0, "budget": 0, "seed": 0, "size": 5}
"""The most that each is meant to compile."""
SECONDS = {"first": 8.0, "again": 0.3}
"""How long each is meant to take at most."""
SIZE = "8 methods at 3 budgets, mlp, digits, 10 epochs"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of poisons, and what of it is changed here."""

    seed: int = 0
    share: float = 0.1
    budgets: tuple[float, ...] = (0.2, 0.4, 0.6)
    faster: float = 1.0

    def run(self) -> int:
        """Returns the number of its rows."""
        model, train, test = problem()
        recipe = Recipe(
            epochs=10, batch_size=32, learning_rate=0.1 * self.faster, schedule="cosine"
        )
        own: dict[str, Any] = {"batch_size": 32, "learning_rate": 0.02 * self.faster}
        methods: dict[str, Unlearner] = {
            "retrain": Retrain(recipe),
            "fine_tune": FineTune(**own),
            "noisy_descent": NoisyDescent(**own, noise_std=1e-3),
            "gradient_ascent": GradientAscent(batch_size=16, learning_rate=1e-4 * self.faster),
            "neg_grad_plus": NegGradPlus(**own, beta=0.999),
            "exact_last_layers": ExactLastLayers(**own, k=1),
            "catastrophic_last_layers": CatastrophicLastLayers(**own, k=1),
            "scrub": Scrub(
                batch_size=32, learning_rate=5e-4 * self.faster, alpha=0.999, gamma=0.99
            ),
        }
        attacks = {"gaussian": GaussianPoison(budget=Budget(self.share))}
        rows = poison_and_unlearn(
            jax.random.key(self.seed), model, train, test,
            attacks=attacks, recipe=recipe, methods=methods, budgets=self.budgets,
        )  # fmt: skip
        return len(list(rows))


@lru_cache(maxsize=1)
def problem() -> tuple[Model, Dataset, Dataset]:
    """Returns the network, the training and the test data."""
    train, test = (load("digits", split=split) for split in ("train", "test"))
    return models.create("mlp", input_shape=train.x.shape[1:], n_classes=10), train, test


STUDIES = {
    "first": Study(),
    "again": Study(),
    "rates": Study(faster=0.7),
    "budget": Study(budgets=(0.2, 0.4, 0.6, 0.8)),
    "seed": Study(seed=1),
    "size": Study(share=0.05),
}


def run() -> list[Row]:
    measured = measure()
    counts = [
        Row(
            f"compilations: {WHAT[name]}",
            SIZE,
            value=found["compilations"],
            goal=COMPILATIONS[name],
            lower_is_better=True,
        )
        for name, found in measured.items()
    ]
    times = [
        Row(
            f"seconds: {WHAT[name]}",
            SIZE,
            Timing(found["seconds"], found["seconds"], 1, found["compile_seconds"]),
            value=found["seconds"],
            goal=SECONDS.get(name),
            lower_is_better=True,
            note="compilation included",
        )
        for name, found in measured.items()
    ]
    return counts + times


def measure() -> dict[str, dict[str, float]]:
    """Returns the compilations and the seconds of each study, run in turn in a fresh process."""
    root = Path(__file__).resolve().parents[1]
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.compilation", "measure"],
        cwd=root,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    return found


def _measure(call: Callable[[], Any]) -> dict[str, float]:
    compiled: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == EVENT:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    try:
        call()
    finally:
        seconds = time.perf_counter() - start
        jax.monitoring.unregister_event_duration_listener(listen)
    return {
        "compilations": len(compiled), "seconds": seconds, "compile_seconds": sum(compiled)
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        problem()
        print(json.dumps({name: _measure(study.run) for name, study in STUDIES.items()}))
    else:
        print(markdown(run()))
