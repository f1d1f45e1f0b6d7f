"""Stages of a study that are computed once: in its store where it has one, else as they come."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unlearnkit.base import Variables
from unlearnkit.studies.store import (
    Environment,
    Stage,
    StageKey,
    Store,
    StoreError,
    StoreWarning,
    content_hash,
    stage_key,
)
from unlearnkit.studies.store.keys import ArrayDigests
from unlearnkit.studies.store.stages import as_read
from unlearnkit.training import CheckpointError, DivergedError, keep_trainings

T = TypeVar("T")
CHECKPOINT_SECONDS = 30.0
"""Between two checkpoints of a training: shorter ones have none."""


class UnkeptWarning(StoreWarning):
    """A stage was computed, but could not be kept."""


class Deferred(Exception):
    """A stage is not computed now."""


class Busy(Deferred):
    """Another process computes this stage now; there may be other work meanwhile."""


class OutOfTime(Deferred):
    """The time is over, and no further stage is begun."""


class StageCache:
    """Gives the results of stages, and computes those that are not there.

    Attributes:
      reused: digests of the other environments that stages were taken from.
      patient: whether to wait for a stage that another process computes; otherwise `Busy` is
        raised, and the caller does something else first.
    """

    def __init__(
        self,
        store: Store | None,
        *,
        lane_width: int | None = None,
        environment: Environment | None = None,
        until: float | None = None,
    ) -> None:
        """Makes a cache.

        Args:
          store: keeps the results; None keeps nothing, and then nothing is hashed.
          lane_width: of the trainings that one program makes side by side.
          environment: of all stages; by default the one of this process.
          until: when the last stage may begin, in seconds since the epoch; None is never too late.
        """
        self.patient = False
        self.reused: dict[str, None] = {}
        self._store = store
        self._digests = ArrayDigests()
        self._until = until
        self._environment = environment
        if store is not None and environment is None:
            self._environment = Environment.current(lane_width=lane_width)

    def digest(self, value: Any) -> str:
        """Returns a hash of inputs that many stages share; empty where nothing is kept.

        Raises:
          TypeError: a value that nothing sure can be said of.
        """
        return "" if self._store is None else content_hash(value, digests=self._digests)

    def obtain(
        self, kind: str, settings: Any, inputs: Any, compute: Callable[[], T], *, say: str
    ) -> T:
        """Returns the result of one stage; the trainings in it go on where they were killed.

        Args:
          kind: what the stage does.
          settings: what was asked for.
          inputs: what it is computed from.
          compute: makes it.
          say: the stage in words, for people who read the store.

        Raises:
          DivergedError: the stage diverged, now or when it was computed.
          Busy: see `patient`.
          OutOfTime: the stage is not there, and the time is over.
        """

        def resumed(folder: Path | None) -> T:
            with keep_trainings(folder, seconds=CHECKPOINT_SECONDS):
                return compute()

        return self.obtain_resumable(kind, settings, inputs, resumed, say=say)

    def obtain_resumable(
        self,
        kind: str,
        settings: object,
        inputs: object,
        compute: Callable[[Path | None], T],
        *,
        say: str,
    ) -> T:
        """Returns the result of one stage that keeps what it has done itself; see `obtain`.

        Args:
          kind: what the stage does.
          settings: what was asked for.
          inputs: what it is computed from.
          compute: makes it; takes a folder for its checkpoints, or None.
          say: the stage in words.
        """
        (result,) = self.obtain_many(
            kind,
            settings,
            [inputs],
            lambda _, folders: [(0, _attempt(lambda: resume(compute, folders[0])))],
            say=[say],
        )
        if isinstance(result, DivergedError):
            raise result
        return result

    def obtain_many(
        self,
        kind: str,
        settings: Any,
        inputs: Sequence[Any],
        compute: Callable[
            [list[int], Sequence[Path | None]], Iterable[tuple[int, T | DivergedError]]
        ],
        *,
        say: Sequence[str],
    ) -> list[T | DivergedError]:
        """Returns the results of stages that are computed together, or how each diverged.

        Args:
          kind: what each does.
          settings: of all.
          inputs: of each.
          compute: takes the numbers of those that are missing, and for each stage a folder for
            checkpoints, or None; yields each with its result, which is kept as it comes.
          say: each in words.

        Raises:
          Busy: another process computes one of them, see `patient`.
          OutOfTime: one of them is not there, and the time is over.
        """
        if self._store is None:
            made = dict(compute(list(range(len(inputs))), [None] * len(inputs)))
            return [made[i] for i in range(len(inputs))]
        keys = [
            stage_key(kind, settings, each, self._environment, digests=self._digests)
            for each in inputs
        ]
        found: dict[int, T | DivergedError] = {}
        missing = self._look(self._store, keys, range(len(keys)), found)
        if missing:
            self._check_time(say[missing[0]])
            wanted = [keys[i] for i in missing]
            claim = self._store.claim(*wanted, wait=self.patient, until=self._until)
            with keep_trainings(None), claim as mine:  # within a stage another keeps its own
                if not mine:
                    self._check_time(say[missing[0]])
                    raise Busy(say[missing[0]])
                # Another process may have finished between looking and claiming.
                missing = self._look(self._store, keys, missing, found)
                folders = [self._store.unfinished(key) for key in keys]
                for i, result in compute(missing, folders) if missing else ():
                    found[i] = self._keep(self._store, keys[i], result, say[i])
                    if len(found) < len(keys):
                        self._check_time(say[i])
        return [found[i] for i in range(len(keys))]

    def _check_time(self, say: str) -> None:
        if self._until is not None and time.time() >= self._until:
            raise OutOfTime(say)

    def _look(
        self,
        store: Store,
        keys: Sequence[StageKey],
        which: Sequence[int],
        found: dict[int, Any],
    ) -> list[int]:
        """Adds what is there to `found`; returns the numbers of the rest."""
        stages = {i: store.get(keys[i]) for i in which}
        there = {i: stage for i, stage in stages.items() if stage is not None}
        for stage in there.values():
            if stage.reused_from is not None:
                self.reused[Environment.of(stage.reused_from).digest[:12]] = None
        found |= {i: _result(stage) for i, stage in there.items()}
        return [i for i, stage in stages.items() if stage is None]

    def _keep(self, store: Store, key: StageKey, result: T | DivergedError, say: str) -> Any:
        """Returns a result as it will be read, and writes it where that can be done."""
        stage = Stage({"stage": say}, tree=result)
        if isinstance(result, DivergedError):
            stage = Stage({"stage": say}, failure=str(result))
        try:
            stage = as_read(stage)
            store.put(key, stage)
            store.discard_unfinished(key)
        except TypeError as error:
            _warn(
                f"{say} cannot be kept, and will be computed again next time: {error}",
                UnkeptWarning,
            )
            return result
        except StoreError as error:
            _warn(f"{error}; the study goes on without", UnkeptWarning)
        return _result(stage)


def resume(compute: Callable[[Path | None], T], folder: Path | None) -> T:
    """Returns what is computed with checkpoints in a folder; from the start where they are damaged.

    Args:
      compute: takes the folder, or None.
      folder: of the checkpoints, which are removed where they are of no use.
    """
    try:
        return compute(folder)
    except CheckpointError as error:
        if folder is None:
            raise
        _warn(f"{error}; this training begins again")
        shutil.rmtree(folder, ignore_errors=True)
        return compute(folder)


def start_input(start: Variables | None) -> dict[str, Variables]:
    """Returns where trainings begin, as an input of stages; empty where each begins afresh."""
    return {} if start is None else {"start": start}


def _attempt(compute: Callable[[], T]) -> T | DivergedError:
    try:
        return compute()
    except DivergedError as error:
        return error


def _result(stage: Stage) -> Any:
    return stage.tree if stage.failure is None else DivergedError(stage.failure)


def _warn(message: str, kind: type[StoreWarning] = StoreWarning) -> None:
    warnings.warn(message, kind, stacklevel=4)
