"""Logs of training in which every batch with a forgotten example was exchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from unlearnkit.base import Dataset, Forger, Model
from unlearnkit.forging.opening import open_log
from unlearnkit.forging.steps import honest_step
from unlearnkit.host.reserve import reserve
from unlearnkit.io.files import write_bytes, write_json
from unlearnkit.rows import check_rows
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    TrainState,
    Trajectory,
    manifest,
)
from unlearnkit.training.logged_run import npy_content
from unlearnkit.training.unit import take_steps


class ForgedLog(NamedTuple):
    """A log that was forged.

    Attributes:
      folder: where it is.
      steps: [m] whose batches were exchanged, from 0.
      errors: [m] η ‖∇L(forged) - ∇L(true)‖₂ of each.
    """

    folder: Path
    steps: np.ndarray
    errors: np.ndarray


def forge_trajectory(
    key: Key[Array, ""],
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    forget: Int[np.ndarray | Array, " m"] | Bool[np.ndarray | Array, " n"],
    forger: Forger,
    folder: str | os.PathLike[str],
    model: Model | None = None,
) -> ForgedLog:
    """Writes a log of the same checkpoints in which no batch holds a forgotten example.

    The owner keeps the weights and exchanges each batch that holds a forgotten example for one
    of the others that takes nearly the same step; digests and chain are made anew, so that the log
    reads like any other. `verify` then judges it: INVALID, whatever the errors of its steps, for
    its batches are no longer those that its key draws.

    Args:
      key: split over the steps.
      path: the true log, with its run complete.
      dataset: what it was trained on.
      forget: [m] rows of `dataset`, or [n] booleans.
      forger: one that chooses among allowed examples (its `info.indices` says which), for a log
        holds rows of the data: `GreedyForger` or `SwapForger`.
      folder: a new one, for the forged log.
      model: the network; None makes the one that the log names.

    Raises:
      TrajectoryError: see `verify`.
      ValueError: an incomplete log, rows outside of the data, a recipe whose batch gradient is no
        mean over examples as they are, a forger that makes examples of its own, or a folder that
        is there already.

    Example:
      rows = np.arange(10)  # what the log is to have been made without
      forger = forging.SwapForger(points=1000)
      forging.forge_trajectory(key, "log", train, forget=rows, forger=forger, folder="forged")

    Source: Suliman et al. 2024, figure 1 and definition 2; Thudi et al. 2022, Kong et al. 2023.
    """
    log, network = open_log(path, dataset, model)
    target, rows = Path(folder), _check(log, dataset, forget, Path(folder))
    kept = np.setdiff1d(np.arange(dataset.size), rows)
    allowed = dataset.take(kept)
    batches = log.batches.copy()
    steps = np.flatnonzero(np.isin(batches, rows).any(axis=1))
    errors = []
    rates = log.claim.rates
    for step, state in _states(log, network, dataset, steps):
        batch = dataset.take(log.batches[step])
        wanted = honest_step(network, state.variables, batch, float(rates[step]))
        forged = forger(jax.random.fold_in(key, step), network, wanted, allowed)
        if not hasattr(forged.info, "indices"):
            raise ValueError(
                f"a log holds rows of the data, but {type(forger).__name__} makes examples of its "
                "own; take GreedyForger or SwapForger"
            )
        batches[step] = kept[np.asarray(forged.info.indices)]
        errors.append(float(forged.error))
    _write(log, batches, target)
    return ForgedLog(target, steps, np.array(errors))


def _check(log: Trajectory, dataset: Dataset, forget: object, folder: Path) -> np.ndarray:
    rows = np.unique(np.asarray(check_rows(forget, dataset.size, name="forget")))
    if rows.size == 0:
        raise ValueError(f"forget must name rows 0 … {dataset.size - 1} of the data, got none")
    if not log.complete:
        raise ValueError(f"the log ends at step {log.steps} of {log.claim.steps}; finish the run")
    if folder.exists():
        raise ValueError(f"{folder} is there already; name a new folder")
    _check_recipe(log.claim.recipe)
    return rows


def _check_recipe(recipe: Recipe) -> None:
    plain = {"augmentation": "none", "label_smoothing": 0.0, "compute_dtype": "float32"}
    for name, value in plain.items():
        if getattr(recipe, name) != value:
            raise ValueError(
                f"forging needs {name}={value!r}, the log's run has {getattr(recipe, name)!r}"
            )


def _states(
    log: Trajectory, model: Model, dataset: Dataset, steps: np.ndarray
) -> Iterator[tuple[int, TrainState]]:
    """Yields (step, the state before it), replayed from the checkpoint before."""
    claim, objective = log.claim, CrossEntropy(model, log.claim.recipe)
    held = reserve(dataset)
    for segment in range(log.segments):
        first = claim.checkpoint_step(segment)
        wanted = steps[(steps >= first) & (steps < first + len(log.rows(segment)))]
        if len(wanted) == 0:
            continue
        state: TrainState = jax.tree.map(jnp.asarray, log.read(segment, model).state)
        for step in range(first, int(wanted[-1]) + 1):
            if step in wanted:
                yield step, state
            with jax.default_matmul_precision(claim.matmul_precision):
                state, _ = take_steps(
                    state,
                    held,
                    log.batches[step : step + 1],
                    claim.rates[step : step + 1],
                    claim.step_key,
                    objective=objective,
                    recipe=claim.recipe,
                    keep=True,
                )


def _write(log: Trajectory, batches: np.ndarray, folder: Path) -> None:
    folder.mkdir(parents=True)
    content = npy_content(batches, "<i4")
    write_bytes(folder / manifest.BATCHES, content)
    shutil.copyfile(log.folder / manifest.EXAMPLES, folder / manifest.EXAMPLES)
    for index in range(len(log.digests)):
        name = manifest.state_file(log.claim.checkpoint_step(index))
        shutil.copyfile(log.folder / name, folder / name)
    claim = log.claim._replace(batches_sha256=hashlib.sha256(content).hexdigest())
    write_json(folder / manifest.MANIFEST, manifest.encode(claim, log.digests))
