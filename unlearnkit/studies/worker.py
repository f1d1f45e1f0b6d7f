"""What a worker does: it says what it is, is bound to its device, and computes parts of a study."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pickle
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import jax
from jaxtyping import Array, Key

from unlearnkit.base import Poisoned
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.io.provenance import cpu_threads
from unlearnkit.records import Record
from unlearnkit.studies.parts import Wanted, Where
from unlearnkit.studies.running import Running
from unlearnkit.studies.stage_cache import StageCache
from unlearnkit.studies.store import Environment, Store
from unlearnkit.studies.study import Study

Walk: TypeAlias = Callable[[Running, AnyKey], Iterator[Record]]


class Errand(NamedTuple):
    """A study as all of its workers are given it.

    Attributes:
      study: what is run.
      key: decides everything.
      folder: of the store.
      reuse: of the store.
      strict: whether what fails is raised.
      walk: yields the records of the cells that are wanted.
    """

    study: Study
    key: Key[Array, ""]
    folder: str
    reuse: Literal["any-version"] | None
    strict: bool
    walk: Walk


class Order(NamedTuple):
    """What a worker is told of each part.

    Attributes:
      errand: what the errand is called.
      pickled: the errand itself, for workers that were not given it before.
      facts: what the worker's environment must be.
      width: of the lanes in which networks are trained.
      until: when the last stage may begin, in seconds since the epoch.
      poisoned: whether to return what attacks made.
    """

    errand: str
    pickled: bytes | None
    facts: tuple[tuple[str, str], ...]
    width: int | None
    until: float | None
    poisoned: bool


class Done(NamedTuple):
    """What a worker made of a part.

    Attributes:
      records: of its cells.
      poisoned: by attack and seed.
      blocked: whether the networks that others start from could not be made.
      out_of_time: whether something is missing as the time was over.
      facts: the worker's environment, where it is not as it must be; then nothing was computed.
      error: what is to be raised in a strict study.
    """

    records: Sequence[Record] = ()
    poisoned: Sequence[tuple[str, int, Poisoned]] = ()
    blocked: bool = False
    out_of_time: bool = False
    facts: tuple[tuple[str, str], ...] | None = None
    error: Exception | None = None


class Hello(NamedTuple):
    """What a worker says of itself.

    Attributes:
      name: host and process.
      facts: its environment.
      sees: whether a folder of the store is there.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    sees: bool


@dataclasses.dataclass(frozen=True)
class Binding:
    """How several workers share one machine.

    Attributes:
      count: of the workers.
      variable: of the environment, which names the accelerators of a process; empty on a CPU.
      devices: the accelerators, which workers take in turn.
      options: of JAX, that the workers take over.
    """

    count: int
    variable: str
    devices: tuple[str, ...]
    options: Mapping[str, bool | int | float | str | None]

    def bind(self, slot: int) -> None:
        """Gives this process its accelerator, or its share of the processors.

        JAX starts with all processors and is then confined to some of them: a program's bits depend
        on the number of threads that it is compiled for, and so they stay those of one process.

        Args:
          slot: which of the workers this is.
        """
        if self.devices:
            os.environ[self.variable] = self.devices[slot % len(self.devices)]
            if self.count > len(self.devices):
                os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        for name, value in self.options.items():
            jax.config.update(name, value)
        cpu_threads()
        jax.devices()
        if not self.devices:
            confine(slot, self.count)


def confine(slot: int, count: int) -> None:
    """Confines all threads of this process to its share of the processors, where that can be done.

    Args:
      slot: which of the processes this is.
      count: of the processes.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    first, end = (len(cores) * number // count for number in (slot % count, slot % count + 1))
    share = cores[first:end] or [cores[slot % len(cores)]]
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), share)
        except ProcessLookupError:  # it ended meanwhile
            continue


_GIVEN: dict[str, bytes] = {}
"""Errands that this process was given before any part, by what they are called."""


def give(errand: str, pickled: bytes) -> None:
    """Keeps an errand for the parts to come."""
    _GIVEN[errand] = pickled


def take_back(errand: str) -> None:
    """Drops an errand."""
    _GIVEN.pop(errand, None)


def pack(errand: Errand) -> bytes:
    """Returns an errand as bytes.

    Raises:
      TypeError: a part of the study that another process cannot have.
    """
    try:
        pickled = pickle.dumps(errand)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"the study cannot be sent to workers: {error}; define its parts at the top of a module"
        ) from error
    if _names_main(pickled):
        raise TypeError(
            "a part of the study is defined in the script that is run, which workers do not have "
            "by this name; move it to a module that they can import"
        )
    return pickled


class _Finds(pickle.Unpickler):
    """Tells the modules that a pickle asks for."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> object:
        self.modules.add(module)
        return super().find_class(module, name)


def _names_main(pickled: bytes) -> bool:
    finds = _Finds(pickled)
    finds.load()
    return "__main__" in finds.modules


class _Received:
    """A study as this worker has it: what all of its parts share."""

    def __init__(self, pickled: bytes) -> None:
        self.errand: Errand = pickle.loads(pickled)
        self.store = Store(Path(self.errand.folder), reuse=self.errand.reuse)
        self.facts = Environment.current().facts
        self.digests: dict[tuple[str, ...], str] = {}


@functools.lru_cache(maxsize=1)
def _received(pickled: bytes) -> _Received:
    return _Received(pickled)


def say_hello(folder: str) -> Hello:
    """Returns what this worker is.

    Args:
      folder: that it must see.
    """
    name = f"{platform.node()}, process {os.getpid()}"
    return Hello(name, Environment.current().facts, Path(folder).is_dir())


def compute(order: Order, cells: Sequence[Where]) -> Done:
    """Returns what becomes of a part; stages that others compute now are waited for.

    Args:
      order: what is the same for all parts.
      cells: of the part.
    """
    pickled = order.pickled or _GIVEN.get(order.errand)
    if pickled is None:
        raise LookupError("this worker was not given the study")
    received = _received(pickled)
    if received.facts != order.facts:
        return Done(facts=received.facts)
    errand = received.errand
    environment = Environment.of({**dict(received.facts), "lane_width": str(order.width)})
    cache = StageCache(received.store, environment=environment, until=order.until)
    cache.patient = True
    poisoned: list[tuple[str, int, Poisoned]] = []
    running = Running(
        errand.study,
        cache,
        on_stage=None,
        on_poisoned=(lambda *made: poisoned.append(made)) if order.poisoned else None,
        width=order.width,
        compile_at_once=1,
        strict=errand.strict,
        wanted=Wanted(cells),
        digests=received.digests,
    )
    try:
        records = list(errand.walk(running, host_key(errand.key)))
    except Exception as error:
        return Done(error=_portable(error))
    return Done(records, poisoned, running.blocked, running.out_of_time)


def _portable(error: Exception) -> Exception:
    """Returns an error, or one that says the same and can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
