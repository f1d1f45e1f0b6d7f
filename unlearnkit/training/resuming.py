"""When a training run saves its progress, and how it goes on from there."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import PyTree

from unlearnkit.training.checkpoint import (
    CheckpointError,
    Progress,
    load_progress,
    save_progress,
)
from unlearnkit.training.recipe import Recipe, rate_table

Identity: TypeAlias = Mapping[str, Any]
"""What a run is, as JSON values; see `identify`."""


class _Series:
    """The checkpoints of all trainings that a computation makes, one folder for each."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._begun, self._written = 0, time.monotonic()
        self._ended: list[Callable[[], None]] = []

    def begin(self) -> Path:
        """Returns the folder of the next training; its number is what it is known by."""
        self._begun += 1
        return self._folder / f"training-{self._begun:03d}"

    def save(self, write: Callable[[], None], *, ended: bool) -> None:
        """Writes a checkpoint, and those of all trainings that ended before, if it is time.

        What came before a training that goes on must be there too, or it would begin again.
        """
        if time.monotonic() - self._written >= self._seconds:
            for one in (*self._ended, write):
                one()
            self._ended.clear()
            self._written = time.monotonic()
        elif ended:
            self._ended.append(write)


_SERIES: ContextVar[_Series | None] = ContextVar("series", default=None)


@contextlib.contextmanager
def keep_trainings(folder: Path | None, *, seconds: float = 0.0) -> Iterator[None]:
    """Lets the trainings in this block go on where an earlier process was killed in it.

    It is for computations that make the same trainings in the same order each time. The first call
    of `fit`, `fit_many` or `descend` without a checkpoint of its own keeps one in
    `training-001`, the second in `training-002`, and so on; those that have ended are read, not
    made again. Callers hear of all epochs, the earlier ones at once. A training that shows its
    snapshots, or writes a log, has none.

    Args:
      folder: of this computation alone; None keeps nothing, even within another block.
      seconds: at least so many between two checkpoints of all trainings.

    Example:
      with training.keep_trainings(folder, seconds=30):
          forgotten = unlearning.FineTune()(key, model, variables, task)
    """
    token = _SERIES.set(None if folder is None else _Series(folder, seconds))
    try:
        yield
    finally:
        _SERIES.reset(token)


class Checkpoints:
    """The checkpoints of one run in a folder; without a folder there are none."""

    def __init__(
        self,
        folder: Path | None,
        identify: Callable[[], Identity],
        *,
        every: int = 1,
        seconds: float = 0.0,
    ) -> None:
        """Opens the folder; where checkpoints are timed it is made when the first one is written.

        Args:
          folder: of this run alone, or None.
          identify: returns what the run is; called once, and only where there is a checkpoint to
            read or to write, since it reads all data.
          every: epochs between two checkpoints; the end of the run has one too.
          seconds: at least so many between two checkpoints, and none at the end of the run, for who
            keeps the result itself; 0 for as often as `every` says.

        Raises:
          ValueError: a number that is too small.
        """
        if every < 1:
            raise ValueError(f"checkpoint_every must be >= 1 epochs, got {every}")
        if not seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be >= 0, got {seconds}")
        self._folder, self._identify = folder, identify
        self._every, self._seconds = every, seconds
        self._series: _Series | None = None
        self._run: Identity | None = None
        self._written = time.monotonic()
        if folder is not None and not seconds:
            folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_series(cls, identify: Callable[[], Identity]) -> Checkpoints:
        """Returns those of the next training in a block of `keep_trainings`; outside of one, none.

        Args:
          identify: see `Checkpoints`.
        """
        series = _SERIES.get()
        made = cls(None, identify)
        if series is not None:
            made._series, made._folder = series, series.begin()
        return made

    def tell_earlier(
        self,
        on_epoch: Callable[[int, Any], None] | None,
        done: int,
        history: Mapping[str, Sequence[Any]],
    ) -> None:
        """Tells a caller of a series, who may keep what it hears, of the epochs that are done.

        Args:
          on_epoch: is told, or None.
          done: epochs.
          history: metrics of each, by name.
        """
        if on_epoch is None or self._series is None:
            return
        for epoch in range(done):
            on_epoch(epoch + 1, {name: values[epoch] for name, values in history.items()})

    def load(self, like: PyTree, recipe: Recipe, steps: int) -> Progress | None:
        """Returns how far the run is, or None where it has not begun.

        Args:
          like: a state of the same structure.
          recipe: of the run.
          steps: of an epoch.

        Raises:
          CheckpointError: a corrupt checkpoint, another run's, or one of other learning rates.
        """
        if self._folder is None or (self._timed and not self._folder.exists()):
            return None
        found = load_progress(self._folder, like, self._identity())
        if found is not None:
            _check_epochs(self._folder, recipe, found.epoch, found.planned, steps)
        return found

    def most_epochs(self, done: int) -> int | None:
        """Returns how many epochs there are until the next checkpoint; None where it is timed."""
        free = self._folder is None or self._timed
        return None if free else self._every - done % self._every

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint if there is to be one now."""
        if self._folder is None:
            return
        done, ended = progress.epoch, progress.epoch == progress.planned
        if self._series is not None:
            # The state is overwritten by the next step, or its network given to another program.
            kept = progress._replace(state=jax.device_get(progress.state)) if ended else progress
            self._series.save(lambda: self._write(kept), ended=ended)
            return
        if self._seconds:
            due = not ended and time.monotonic() - self._written >= self._seconds
        else:
            due = ended or done % self._every == 0
        if due:
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        assert self._folder is not None
        save_progress(self._folder, progress, self._identity())
        self._written = time.monotonic()

    @property
    def _timed(self) -> bool:
        return self._series is not None or self._seconds > 0

    def _identity(self) -> Identity:
        if self._run is None:
            self._run = self._identify()
        return self._run


def pack_history(history: Mapping[str, list[np.ndarray]]) -> dict[str, list[float]]:
    """Returns the metrics of several runs, [seeds] for each epoch, as one list per metric."""
    return {
        f"{name}:{values[0].dtype}": np.concatenate(values).tolist()
        for name, values in history.items()
    }


def unpack_history(packed: Mapping[str, list[float]], seeds: int) -> dict[str, list[np.ndarray]]:
    """Returns what `pack_history` packed."""
    named = {name.rpartition(":"): values for name, values in packed.items()}
    return {
        name: list(np.array(values, dtype).reshape(-1, seeds))
        for (name, _, dtype), values in named.items()
    }


def _check_epochs(folder: Path, recipe: Recipe, done: int, planned: int, steps: int) -> None:
    """Raises CheckpointError if a new number of epochs changes the rates of completed epochs."""
    if done > recipe.epochs:
        raise CheckpointError(
            f"{folder} holds {done} epochs of this run, more than the {recipe.epochs} that "
            "are asked for; ask for as many, or choose another folder"
        )
    earlier = dataclasses.replace(recipe, epochs=planned)
    then, now = (rate_table(each, steps, done * steps) for each in (earlier, recipe))
    if not np.array_equal(then, now):
        raise CheckpointError(
            f"{folder} holds {done} of {planned} epochs, and a run of {recipe.epochs} "
            f"would have had other learning rates in them: schedule={recipe.schedule!r} with "
            f"warmup_epochs={recipe.warmup_epochs:g} depends on the number of epochs; ask for "
            f"{planned}, or choose another folder"
        )
