"""A study of 64 cells on one worker and on two, and what the engine adds to each cell.

`python -m benchmarks.scaling` prints the table alone, and `python -m benchmarks.scaling rehearse`
that of a small study, whose figures mean nothing; `python -m benchmarks scaling` keeps it. Programs
are on disk before anything is timed, as in all runs of a study but the first; each run has a fresh
process and an empty store. Some minutes on two CPU cores, which must be quiet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax

from benchmarks.frame import Row, Timing, markdown
from unlearnkit import models, studies
from unlearnkit.data import RandomForget, load
from unlearnkit.records import Record
from unlearnkit.training import Recipe
from unlearnkit.unlearning import (
    CatastrophicLastLayers,
    FineTune,
    GradientAscent,
    NegGradPlus,
    NoisyDescent,
    Scrub,
)

ROOT = Path(__file__).resolve().parents[1]
EXECUTORS = ("serial", "processes:1", "processes:2", "dask:1", "dask:2")
WORKERS = ("processes", "dask")
OVERHEAD = 0.05
"""Seconds that the engine may add to a cell whose results are there."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a study is: eight cells a seed, and so many epochs of training."""

    seeds: int = 8
    epochs: int = 60

    def __str__(self) -> str:
        return f"{8 * self.seeds} cells, mlp, digits, {self.epochs} epochs"


FULL, SMALL = Size(), Size(seeds=1, epochs=1)


def declare(size: Size) -> studies.Study:
    """Returns the study: two networks and six methods on each seed."""
    train, test = (load("digits", split=split) for split in ("train", "test"))
    rate, epochs = 0.02, max(1, size.epochs // 4)
    return studies.Study(
        data=studies.Pair(train, test),
        networks=models.create("mlp", input_shape=train.x.shape[1:], n_classes=10),
        recipes=Recipe(epochs=size.epochs, batch_size=32, learning_rate=0.1, schedule="cosine"),
        forget={"tenth": RandomForget(fraction=0.1)},
        methods={
            "fine_tune": FineTune(epochs=epochs, batch_size=32, learning_rate=rate),
            "noisy_descent": NoisyDescent(epochs=epochs, batch_size=32, learning_rate=rate),
            "gradient_ascent": GradientAscent(epochs=1, batch_size=32, learning_rate=1e-4),
            "neg_grad_plus": NegGradPlus(epochs=epochs, batch_size=32, learning_rate=rate),
            "last_layers": CatastrophicLastLayers(
                epochs=epochs, batch_size=32, learning_rate=rate, k=1
            ),
            "scrub": Scrub(epochs=epochs, batch_size=32, learning_rate=5e-4),
        },
        seeds=size.seeds,
    )


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one run told.

    Attributes:
      seconds: of the whole study on an empty store, with the start of its workers.
      start: of these, until the first part was done.
      again: a cell of the same study on the same store, where nothing is left to compute.
      records: a digest of all metrics.
    """

    seconds: float
    start: float
    again: float
    records: str


def run() -> list[Row]:
    """Returns the rows of the study of 64 cells."""
    return rows(measure(FULL), FULL)


def rows(found: Mapping[str, Measured], size: Size) -> list[Row]:
    """Returns a row for each pair of one and two workers, and for each overhead.

    Args:
      found: by executor.
      size: of the study.
    """
    alone = found["serial"]
    scaled = [
        Row(
            f"a study on two workers: {kind}",
            str(size),
            _once(found[f"{kind}:2"].seconds),
            f"{kind}, one worker",
            _once(found[f"{kind}:1"].seconds),
            note=f"one process without an executor {alone.seconds:.3g} s; first part done after "
            f"{found[f'{kind}:2'].start:.3g} s; {_agreement(found[f'{kind}:2'], alone)}",
            metrics={"start_seconds": found[f"{kind}:2"].start, "serial_seconds": alone.seconds},
        )
        for kind in WORKERS
    ]
    overheads = [
        Row(
            f"the engine's overhead a cell: {name}",
            str(size),
            _once(found[name].again),
            value=found[name].again,
            goal=OVERHEAD,
            lower_is_better=True,
            note="seconds a cell, all results in the store, workers started",
        )
        for name in ("serial", *(f"{kind}:1" for kind in WORKERS))
    ]
    return scaled + overheads


def _once(seconds: float) -> Timing:
    return Timing(seconds, seconds, 1)


def _agreement(one: Measured, other: Measured) -> str:
    return "the same records" if one.records == other.records else "OTHER RECORDS"


def measure(size: Size) -> dict[str, Measured]:
    """Returns what each executor tells, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        programs = Path(folder) / "programs"
        for name in ("serial", "processes:1"):  # compiles for both ways of starting
            _measure(name, size, Path(folder) / f"first-{name[:4]}", programs)
        return {
            name: _measure(name, size, Path(folder) / f"store-{number}", programs)
            for number, name in enumerate(EXECUTORS)
        }


def _measure(executor: str, size: Size, store: Path, programs: Path) -> Measured:
    command = [sys.executable, "-m", "benchmarks.scaling", "measure", executor, str(store)]
    output = subprocess.run(
        [*command, str(size.seeds), str(size.epochs)],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return Measured(**json.loads(output.splitlines()[-1]))


def time_study(executor: str, store: str, size: Size) -> Measured:
    """Returns what a run tells, and another one on its store."""
    study = declare(size)
    first, _, records = _time(study, executor, store)
    again, started, _ = _time(study, executor, store)
    cells = len(records)
    return Measured(
        seconds=first[-1],
        start=first[0],
        again=(again[-1] - again[0]) / max(1, cells - started),
        records=_digest(records),
    )


def _time(study: studies.Study, executor: str, store: str) -> tuple[list[float], int, list[Record]]:
    """Returns when the first part and all were done, the records of the first part, and all."""
    start = time.perf_counter()
    when: list[float] = []
    records: list[Record] = []
    for record in studies.run(study, jax.random.key(0), store=store, executor=executor):
        records.append(record)
        when.append(time.perf_counter() - start)
    # The original and the retrained network are one part.
    return [when[1], when[-1]], 2, records


def _digest(records: list[Record]) -> str:
    said = [[r.method, r.seed, sorted(r.metrics.items()), r.problem] for r in records]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        name, folder, seeds, epochs = sys.argv[2:]
        told = time_study(name, folder, Size(int(seeds), int(epochs)))
        print(json.dumps(dataclasses.asdict(told)))
    else:
        chosen = SMALL if sys.argv[1:] == ["rehearse"] else FULL
        print(markdown(rows(measure(chosen), chosen)))
