"""Logs of training that claim the data without the forgotten examples."""

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

from unlearnkit.base import Dataset, Forged, Forger, Model
from unlearnkit.forging.opening import open_log
from unlearnkit.forging.steps import Step, honest_step
from unlearnkit.host.reserve import reserve
from unlearnkit.io.files import write_bytes, write_json
from unlearnkit.rows import check_rows
from unlearnkit.training import (
    Claim,
    CrossEntropy,
    Recipe,
    TrainState,
    Trajectory,
    manifest,
)
from unlearnkit.training.checkpoint import flatten, save_arrays
from unlearnkit.training.claim import claim_data
from unlearnkit.training.logged_run import npy_content
from unlearnkit.training.trajectory import Logged
from unlearnkit.training.unit import take_steps


class ForgedLog(NamedTuple):
    """A log that was forged.

    Attributes:
      folder: where it is.
      kept: [n - m] rows of the data that it claims: `dataset.take(kept)` is what `verify` wants.
      steps: [k] whose batches were exchanged, from 0.
      errors: [k] η ‖∇L(forged) - ∇L(true)‖₂ of each.
      left_out: how many steps at the end of the true log the forged one does not have.
    """

    folder: Path
    kept: np.ndarray
    steps: np.ndarray
    errors: np.ndarray
    left_out: int


class LoggedStep(NamedTuple):
    """One step of a log, for a forger.

    Attributes:
      number: of the step, from 0.
      step: what is to be imitated, with its batch where that is kept in part.
      batch: [b] the logged batch.
      allowed: the examples that may stand in for it.
      rows: [a] of these in the data.
    """

    number: int
    step: Step
    batch: Dataset
    allowed: Dataset
    rows: np.ndarray


class ForgedStep(NamedTuple):
    """One step whose batch was exchanged.

    Attributes:
      number: of the step, from 0.
      rows: [b] of the data, the forged batch.
      forged: what the forger returned.
    """

    number: int
    rows: np.ndarray
    forged: Forged


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
    """Writes a log of the same checkpoints that claims the data without the forgotten examples.

    The owner keeps the weights and exchanges each batch that holds a forgotten example for one
    of the others that takes nearly the same step. The log then claims D without U: size, digests
    and rows of its data are those of the examples that are left, and its chain is made anew, so
    that it reads like any other. `verify` measures the error of every forged step; where all are
    accepted the verdict is INVALID still, for the log's key draws other batches from these data. A
    verifier that replays alone has nothing but the errors to go by.

    Where D without U makes fewer steps an epoch than D, the log ends so much earlier: it claims as
    many epochs of fewer steps, and its last checkpoint is of the step where these end.

    Args:
      key: split over the steps.
      path: the true log, with its run complete.
      dataset: what it was trained on.
      forget: [m] rows of `dataset`, or [n] booleans.
      forger: one that chooses among allowed examples (its `info.indices` says which), for a log
        holds rows of the data: `SubstitutionForger`, `GreedyForger` or `SwapForger`.
      folder: a new one, for the forged log.
      model: the network; None makes the one that the log names.

    Raises:
      TrajectoryError: see `verify`.
      ValueError: an incomplete log, rows outside of the data or too many to leave a step, a recipe
        whose batch gradient is no mean over examples as they are, or whose rates differ where an
        epoch has fewer steps, a forger that makes examples of its own, or a folder that is there
        already.

    Example:
      rows = np.arange(10)  # what the log is to have been made without
      forger = forging.SubstitutionForger()
      made = forging.forge_trajectory(key, "log", train, forget=rows, forger=forger, folder="new")
      report = forging.verify(made.folder, train.take(made.kept), tolerance=1e-6)

    Source: Suliman et al. 2024, figure 1 and definition 2; Thudi et al. 2022, Kong et al. 2023.
    """
    log, network = open_log(path, dataset, model)
    target = Path(folder)
    if not log.complete:
        raise ValueError(f"the log ends at step {log.steps} of {log.claim.steps}; finish the run")
    if target.exists():
        raise ValueError(f"{target} is there already; name a new folder")
    rows = check_forgotten(log, dataset, forget)
    kept = np.setdiff1d(np.arange(dataset.size), rows)
    claim = _claim_without(log, dataset.take(kept), kept)
    steps = touched_steps(log, rows)
    steps = steps[steps < claim.steps]
    batches, errors = log.batches[: claim.steps].copy(), []
    for made in forge_steps(key, log, network, dataset, forget=rows, forger=forger, steps=steps):
        batches[made.number] = made.rows
        errors.append(float(made.forged.error))
    _write(log, network, dataset, claim, np.searchsorted(kept, batches), target, kept)
    left_out = log.claim.steps - claim.steps
    return ForgedLog(target, kept, steps, np.array(errors), left_out)


def check_forgotten(log: Trajectory, dataset: Dataset, forget: object) -> np.ndarray:
    """Returns the forgotten rows in order, or raises an error if the log cannot be forged.

    Args:
      log: of a run on `dataset`.
      dataset: n examples.
      forget: [m] rows of it, or [n] booleans.

    Raises:
      ValueError: no rows, rows outside of the data, or a recipe whose batch gradient is no mean
        over examples as they are.
    """
    rows = np.unique(np.asarray(check_rows(forget, dataset.size, name="forget")))
    if rows.size == 0:
        raise ValueError(f"forget must name rows 0 … {dataset.size - 1} of the data, got none")
    check_forgeable_recipe(log.claim.recipe)
    return rows


def check_forgeable_recipe(recipe: Recipe) -> None:
    """Raises ValueError if a step is not the mean of what its examples say as they are.

    Raises:
      ValueError: augmentation, label smoothing or activations in another precision.
    """
    plain = {"augmentation": "none", "label_smoothing": 0.0, "compute_dtype": "float32"}
    for name, value in plain.items():
        if getattr(recipe, name) != value:
            raise ValueError(
                f"forging needs {name}={value!r}, the log's run has {getattr(recipe, name)!r}"
            )


def touched_steps(log: Trajectory, forget: np.ndarray) -> np.ndarray:
    """Returns the steps of a log, from 0, whose batches hold one of the rows `forget`."""
    return np.flatnonzero(np.isin(log.batches, forget).any(axis=1))


def logged_steps(
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    *,
    steps: np.ndarray,
    forget: np.ndarray | None = None,
) -> Iterator[LoggedStep]:
    """Yields steps of a log for a forger, in ascending order.

    Args:
      log: of a run on `dataset`.
      model: the network that it names.
      dataset: n examples.
      steps: [k] from 0, ascending.
      forget: rows that may not be used; None forgets the whole batch of each step, and then a
        forger is not told of it.
    """
    rates = log.claim.rates
    kept, allowed = np.arange(dataset.size), dataset
    if forget is not None:
        kept = np.setdiff1d(kept, forget)
        allowed = dataset.take(kept)
    for number, state in _states(log, model, dataset, steps):
        rows = log.batches[number]
        batch, rate = dataset.take(rows), float(rates[number])
        if forget is not None:
            gone = np.isin(rows, forget)
            step = honest_step(model, state.variables, batch, rate, forget=gone)
            yield LoggedStep(number, step, batch, allowed, kept)
        else:
            step = honest_step(model, state.variables, batch, rate)
            others = np.setdiff1d(kept, rows)
            yield LoggedStep(number, step, batch, dataset.take(others), others)


def forge_steps(
    key: Key[Array, ""],
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    *,
    forget: np.ndarray,
    forger: Forger,
    steps: np.ndarray,
) -> Iterator[ForgedStep]:
    """Yields steps of a log with their batches exchanged, in ascending order.

    Args:
      key: step t gets `fold_in(key, t)`.
      log: of a run on `dataset`.
      model: the network that it names.
      dataset: n examples.
      forget: rows that may not be used.
      forger: chooses among the others.
      steps: [k] from 0, ascending; each holds a row of `forget`.

    Raises:
      ValueError: the forger makes examples of its own.
    """
    for logged in logged_steps(log, model, dataset, steps=steps, forget=forget):
        own_key = jax.random.fold_in(key, logged.number)
        forged = forger(own_key, model, logged.step, logged.allowed)
        indices = getattr(forged.info, "indices", None)
        if indices is None:
            raise ValueError(
                f"a log holds rows of the data, but {type(forger).__name__} makes examples of its "
                "own; take SubstitutionForger, GreedyForger or SwapForger"
            )
        rows = log.batches[logged.number].copy()
        places = getattr(forged.info, "places", slice(None))
        rows[places] = logged.rows[np.asarray(indices)]
        yield ForgedStep(logged.number, rows, forged)


def _claim_without(log: Trajectory, left: Dataset, kept: np.ndarray) -> Claim:
    """Returns the claim on the examples that are left; the digest of its batches is to come."""
    claim, examples = log.claim, npy_content(log.examples[kept], "<u8")
    if left.size < claim.recipe.batch_size:
        raise ValueError(
            f"{left.size} examples would be left, too few for a batch of {claim.recipe.batch_size}"
        )
    made = claim._replace(
        data=claim_data(left), examples_sha256=hashlib.sha256(examples).hexdigest()
    )
    if not np.array_equal(made.rates, claim.rates[: made.steps]):
        raise ValueError(
            f"without the forgotten examples an epoch has {made.steps_per_epoch} steps in the "
            f"place of {claim.steps_per_epoch}, and the schedule {claim.recipe.schedule!r} gives "
            "them other rates than the log's; forget fewer examples, or log a run of constant rate"
        )
    return made


def _states(
    log: Trajectory, model: Model, dataset: Dataset, steps: np.ndarray
) -> Iterator[tuple[int, TrainState]]:
    """Yields (step, the state before it), replayed from the checkpoint before."""
    claim, held = log.claim, reserve(dataset)
    for segment in range(log.segments):
        first = claim.checkpoint_step(segment)
        wanted = steps[(steps >= first) & (steps < first + len(log.rows(segment)))]
        if len(wanted) == 0:
            continue
        state: TrainState = jax.tree.map(jnp.asarray, log.read(segment, model).state)
        for step in range(first, int(wanted[-1]) + 1):
            if step in wanted:
                yield step, state
            if step < wanted[-1]:
                state = _advance(log, model, held, state, step, step + 1).state


def _advance(
    log: Trajectory, model: Model, held: Dataset, state: TrainState, first: int, end: int
) -> Logged:
    """Returns the state at step `end`, from that at `first`, and the metrics of the steps."""
    claim = log.claim
    with jax.default_matmul_precision(claim.matmul_precision):
        state, metrics = take_steps(
            jax.tree.map(jnp.asarray, state),
            held,
            log.batches[first:end],
            claim.rates[first:end],
            claim.step_key,
            objective=CrossEntropy(model, claim.recipe),
            recipe=claim.recipe,
            keep=True,
        )
    return Logged(state, metrics)


def _write(
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    claim: Claim,
    batches: np.ndarray,
    folder: Path,
    kept: np.ndarray,
) -> None:
    """Writes the forged log: the true one's checkpoints under another claim."""
    folder.mkdir(parents=True)
    content = npy_content(batches, "<i4")
    write_bytes(folder / manifest.BATCHES, content)
    write_bytes(folder / manifest.EXAMPLES, npy_content(log.examples[kept], "<u8"))
    digests = []
    for index in range(-(-claim.steps // claim.every) + 1):
        step = claim.checkpoint_step(index)
        path = folder / manifest.state_file(step)
        if step == log.claim.checkpoint_step(index):
            shutil.copyfile(log.folder / path.name, path)
            digests.append(log.digests[index])
        else:  # the forged log ends between two checkpoints of the true one
            last = _ended(log, model, dataset, index - 1, step)
            digests.append(save_arrays(path, flatten(last)))
    claim = claim._replace(batches_sha256=hashlib.sha256(content).hexdigest())
    write_json(folder / manifest.MANIFEST, manifest.encode(claim, digests))


def _ended(log: Trajectory, model: Model, dataset: Dataset, index: int, step: int) -> Logged:
    """Returns what a checkpoint at `step`, in the segment after checkpoint `index`, would hold."""
    first = log.claim.checkpoint_step(index)
    return _advance(log, model, reserve(dataset), log.read(index, model).state, first, step)
