"""What all parts of a running study share: its stages, its listeners, and what must wait."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from unlearnkit.base import Cost
from unlearnkit.host.random import AnyKey
from unlearnkit.records import NO_DEFENCE, Record
from unlearnkit.studies.announcing import OnNetwork, OnPoisoned, OnStage
from unlearnkit.studies.parts import Wanted, Where
from unlearnkit.studies.stage_cache import Busy, Deferred, OutOfTime, StageCache
from unlearnkit.studies.study import ORIGINAL, Study
from unlearnkit.training import DivergedError

T = TypeVar("T")
FREE = Cost(0.0, 0.0)
Coordinates: TypeAlias = Mapping[str, Any]
"""Fields of a record that tell where its cell stands."""
_BRANCHES = 1 << 31
"""Keys of places in a mapping are folded from here on, apart from those of seeds."""


def check_minutes(minutes: float | None) -> None:
    """Raises ValueError if a limit of time is not positive."""
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be > 0, got {minutes}")


class Unfinished(RuntimeError):
    """The time that a study was given is over; the same call goes on with it.

    Attributes:
      records: how many there are.
    """

    def __init__(self, records: int) -> None:
        super().__init__(
            f"the time is over: {records} records are there, others need stages that were not "
            "begun; what was computed is in the store, and the same call goes on from there"
        )
        self.records = records


@dataclasses.dataclass(eq=False)
class Running:
    """A study that runs; see `run` for its arguments.

    Attributes:
      study: what is run.
      cache: its stages.
      on_stage: called as the work goes on.
      on_poisoned: called with each poisoned set.
      width: trainings that one program makes side by side; None for one after another.
      compile_at_once: methods that run side by side at first.
      strict: whether what fails is raised.
      wanted: which cells are asked for.
      postponed: what another process is at, to be taken up in the end.
      on_network: called with each record and the weights that it judges.
      out_of_time: whether something was left out as the time was over.
      blocked: whether the networks of a question could not be made.
      digests: of places, by their names.
    """

    study: Study
    cache: StageCache
    on_stage: OnStage | None
    on_poisoned: OnPoisoned | None
    width: int | None
    compile_at_once: int
    strict: bool
    wanted: Wanted
    postponed: list[Callable[[], Iterator[Record]]] = dataclasses.field(default_factory=list)
    on_network: OnNetwork | None = None
    out_of_time: bool = False
    blocked: bool = False
    digests: dict[tuple[str, ...], str] = dataclasses.field(default_factory=dict)

    def when_ready(
        self, prepare: Callable[[], T], go_on: Callable[[T], Iterator[Record]]
    ) -> Iterator[Record]:
        """Yields from `go_on` of what is prepared; in the end where another process is at it now.

        Where the time is over, nothing is yielded.

        Args:
          prepare: computes, or raises `Busy`.
          go_on: yields records of the result.
        """
        try:
            prepared = prepare()
        except Busy:
            self.postponed.append(lambda: self.when_ready(prepare, go_on))
            return
        except OutOfTime:
            self.out_of_time = True
            return
        yield from go_on(prepared)

    def attempt(self, compute: Callable[[], T]) -> T | Failure:
        """Returns what is computed, or why there is nothing.

        Args:
          compute: may fail.

        Raises:
          Deferred: another process is at it, or the time is over.
          Exception: whatever it raises but `DivergedError`, where the study is strict.
        """
        try:
            return compute()
        except Deferred:
            raise
        except DivergedError as error:
            return Failure(diverged=str(error))
        except Exception as error:
            if self.strict:
                raise
            return Failure(failed=f"{type(error).__name__}: {error}")

    def wants(self, where: Mapping[str, object], row: str) -> bool:
        """Whether a cell is asked for.

        Args:
          where: the coordinates of its question.
          row: the method or network.
        """
        there = (where[name] for name in Where._fields[:5])
        return self.wanted(*there, where.get("defence", NO_DEFENCE), row)

    def without_result(self, failure: Failure, where: Coordinates) -> Iterator[Record]:
        """Yields the one record of a question whose networks could not be made.

        Args:
          failure: why.
          where: the coordinates of the question.
        """
        self.blocked = True
        if self.wants(where, ORIGINAL):
            yield failure.record(where)

    def seed(self, seed: int) -> str:
        """Returns which seed of how many, in words."""
        return f"seed {seed + 1} of {self.study.seeds}"


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no result: the fields of a record; all but one are None."""

    diverged: str | None = None
    over_budget: str | None = None
    failed: str | None = None

    def record(
        self, where: Coordinates, method: str = ORIGINAL, budget: float | None = None
    ) -> Record:
        """Returns the record of a cell without a result.

        Args:
          where: the coordinates of the question.
          method: the row; that of the untouched network where the question itself failed.
          budget: of the cell.
        """
        return Record(
            method,
            metrics={},
            cost=FREE,
            budget=budget,
            diverged=self.diverged,
            over_budget=self.over_budget,
            failed=self.failed,
            **where,
        )


def branch(key: AnyKey, axis: int, index: int) -> AnyKey:
    """Returns the key of an entry of a mapping: that of the first entry is the key itself.

    So what is appended to a mapping leaves the keys of all that was there as they are.

    Args:
      key: of the whole.
      axis: which mapping.
      index: the entry's place in it.
    """
    return key.fold_in(_BRANCHES + axis).fold_in(index) if index else key
