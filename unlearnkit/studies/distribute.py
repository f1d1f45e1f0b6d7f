"""A study on workers: what is ready is handed to them, and records come back in their order."""

from __future__ import annotations

import contextlib
import heapq
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)

from jaxtyping import Array, Key

from unlearnkit.records import NO_DEFENCE, Record
from unlearnkit.studies.executors import Dask, ExecutorError, Processes
from unlearnkit.studies.parts import Part, Where, parts, shares_of
from unlearnkit.studies.pools import Pool, opened
from unlearnkit.studies.running import Failure, Running
from unlearnkit.studies.store import Environment, Store
from unlearnkit.studies.study import ORIGINAL, RETRAIN
from unlearnkit.studies.worker import Done, Errand, Hello, Order, Walk, compute, pack
from unlearnkit.training import Batching

_HARDWARE = ("platform", "device", "processor", "threads", "device_count")
"""What workers have in common with one another, though not with the process that asks them."""
_TRIES = 3
"""How often a part is begun whose worker dies; the last time with no other beside it."""


def distribute(
    running: Running,
    key: Key[Array, ""],
    store: Store,
    walk: Walk,
    executor: Executor | Processes | Dask,
    chosen: Sequence[Where],
    *,
    batching: Batching | None,
    lanes: int | None,
    until: float | None,
) -> Iterator[Record]:
    """Greets the workers, and returns an iterator that has them compute the records.

    Args:
      running: the study.
      key: decides everything.
      store: in a folder that all workers see.
      walk: yields the records of the cells that are wanted, in a worker.
      executor: of the workers.
      chosen: the cells.
      batching: see `run`; None goes by the workers' device.
      lanes: see `run`.
      until: when the last stage may begin, in seconds since the epoch.

    Raises:
      TypeError: the study cannot be sent to workers.
      ExecutorError: they cannot be reached, or do not fit.
    """
    folder = str(store.folder.resolve())
    called = uuid.uuid4().hex
    pickled = pack(Errand(running.study, key, folder, store.reuse, running.strict, walk))
    with contextlib.ExitStack() as last:
        pool = last.enter_context(opened(executor, (called, pickled)))
        facts = _agreed(pool, store)
        batching = batching or ("map" if dict(facts)["platform"] == "cpu" else "vmap")
        width = (lanes or running.study.seeds) if batching == "vmap" else None
        sent = pickled if pool.sends else None
        order = Order(called, sent, facts, width, until, poisoned=False)
        driver = _Driver(running, pool, order, chosen)
        opened_pool = last.pop_all()
    return _closed_after(opened_pool, driver.records())


def _closed_after(last: contextlib.ExitStack, records: Iterator[Record]) -> Iterator[Record]:
    with last:
        yield from records


def _agreed(pool: Pool, store: Store) -> tuple[tuple[str, str], ...]:
    """Returns the environment of all workers.

    Raises:
      ExecutorError: they differ in what decides the last bit of a result, from one another or from
        this process, or do not see the store.
    """
    with store.probe() as probe:
        hellos = pool.greet(str(probe.resolve()))
    here = dict(Environment.current().facts)
    first = hellos[0]
    expected = Environment.of(here | {name: dict(first.facts)[name] for name in _HARDWARE}).facts
    for hello in hellos:
        _refuse_others(hello, expected)
        if not hello.sees:
            raise ExecutorError(
                f"{hello.name} does not see the store {store.folder.resolve()}; put it in a folder "
                "that all workers share"
            )
    return expected


def _refuse_others(hello: Hello, expected: tuple[tuple[str, str], ...]) -> None:
    theirs, ours = dict(hello.facts), dict(expected)
    different = [
        f"{name} is {theirs.get(name, 'unknown')} there and {ours.get(name, 'unknown')} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if different:
        raise ExecutorError(
            f"the worker {hello.name} is not like this process, and results could differ: "
            f"{'; '.join(different)}; install the same versions and set the same options everywhere"
        )


class _Driver:
    """Hands the parts of a study to workers."""

    def __init__(self, running: Running, pool: Pool, order: Order, chosen: Sequence[Where]) -> None:
        self._running, self._pool, self._order = running, pool, order
        self._parts = parts(running.study, chosen)
        self._followers: dict[int, list[int]] = {}
        for number, part in enumerate(self._parts):
            if part.after is not None:
                self._followers.setdefault(part.after, []).append(number)
        self._deaths = [0] * len(self._parts)
        # Those whose worker died wait behind all others.
        self._ready = [(0, n) for n, part in enumerate(self._parts) if part.after is None]
        self._handed: dict[Future[Done], int] = {}
        self._done: dict[int, Done] = {}

    def records(self) -> Iterator[Record]:
        """Yields the records in the order of the study."""
        reused: dict[str, None] = {}
        told = 0
        try:
            while told < len(self._parts):
                self._hand_over()
                self._collect()
                while told in self._done:
                    done = self._done[told]
                    if (tell := self._running.on_poisoned) is not None:
                        for made in done.poisoned:
                            tell(*made)
                    for record in done.records:
                        reused |= dict.fromkeys(record.reused)
                        yield record._replace(reused=tuple(reused))
                    self._done[told] = Done()
                    told += 1
        finally:
            for future in self._handed:
                future.cancel()

    def _hand_over(self) -> None:
        capacity = self._pool.capacity
        while self._ready and (capacity is None or len(self._handed) < capacity):
            deaths, number = self._ready[0]
            alone = deaths == _TRIES - 1
            if self._handed and (alone or self._is_alone()):
                return
            heapq.heappop(self._ready)
            part = self._parts[number]
            wants_poisoned = self._running.on_poisoned is not None and _is_attacked(part)
            order = self._order._replace(poisoned=wants_poisoned)
            try:
                self._handed[self._pool.submit(compute, order, part.cells)] = number
            except BrokenExecutor as error:  # before anybody was asked for the reason
                heapq.heappush(self._ready, (deaths, number))
                if not self._handed:
                    self._begin_again(error)
                return

    def _is_alone(self) -> bool:
        return any(self._deaths[number] == _TRIES - 1 for number in self._handed.values())

    def _collect(self) -> None:
        """Waits for parts, and takes what became of them."""
        finished, _ = wait(self._handed, return_when=FIRST_COMPLETED)
        broken: BaseException | None = None
        for future in finished:
            number = self._handed.pop(future)
            error = _error_of(future)
            if isinstance(error, BrokenExecutor) and not isinstance(error, self._pool.lost):
                broken = error
                self._die(number, error)
            elif error is None:
                self._take(number, future.result())
            elif isinstance(error, self._pool.killed):
                self._deaths[number] = _TRIES - 1
                self._die(number, error)
            elif isinstance(error, self._pool.lost):
                raise ExecutorError(
                    f"the workers are lost ({type(error).__name__}: {error}); what they finished "
                    "is in the store: start them again, and the same call goes on from there"
                ) from error
            else:
                raise ExecutorError(
                    f"a worker could not begin {self._parts[number].words}: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if broken is not None:
            wait(self._handed)  # all are broken at once
            for future, number in self._handed.items():
                if _error_of(future) is None:
                    self._take(number, future.result())
                else:
                    self._die(number, broken)
            self._handed.clear()
            self._begin_again(broken)

    def _begin_again(self, error: BaseException) -> None:
        if not self._pool.renew():
            raise ExecutorError(f"the workers are lost: {error}") from error

    def _die(self, number: int, error: BaseException) -> None:
        self._deaths[number] += 1
        if self._deaths[number] < _TRIES:
            heapq.heappush(self._ready, (self._deaths[number], number))
            return
        said = f"its worker died {_TRIES} times, the last time with no other beside it: {error}"
        if self._running.strict:
            raise ExecutorError(f"{self._parts[number].words}: {said}") from error
        self._take(number, self._failed(self._parts[number], Failure(failed=said)))

    def _failed(self, part: Part, failure: Failure) -> Done:
        """Returns the records of a part that cannot be computed."""
        cell = part.cells[0]
        if cell.question is None:
            return Done()
        where = {name: getattr(cell, name) for name in Where._fields[:6]}
        if cell.row in (ORIGINAL, RETRAIN):
            return Done([failure.record(where)], blocked=True)
        budgets: Sequence[float | None] = self._running.study.budgets or [None]
        shares = shares_of(self._running.study, cell.question)
        return Done(
            [
                failure.record({**where, "identified": share}, cell.row, budget)
                for share in shares
                for budget in budgets
            ]
        )

    def _take(self, number: int, done: Done) -> None:
        if done.error is not None:
            raise done.error
        if done.facts is not None:
            _refuse_others(Hello("of a part", done.facts, True), self._order.facts)
        part = self._parts[number]
        self._done[number] = done
        self._running.out_of_time |= done.out_of_time
        if self._running.on_stage is not None:
            self._running.on_stage(part.words, 1, 1)
        for follower in self._followers.get(number, ()):
            if done.blocked and part.cells[0].question is not None:
                self._drop(follower)
            else:
                heapq.heappush(self._ready, (0, follower))

    def _drop(self, number: int) -> None:
        """Leaves a part out, and what comes after it, as its networks could not be made."""
        self._done[number] = Done()
        for follower in self._followers.get(number, ()):
            self._drop(follower)


def _is_attacked(part: Part) -> bool:
    return part.cells[0][5:] == (NO_DEFENCE, ORIGINAL)


def _error_of(future: Future[Done]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error
