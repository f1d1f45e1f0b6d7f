"""Workers behind one face: processes of our own, dask's, or an executor that was given."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol, TypeVar, runtime_checkable

import jax

from unlearnkit.studies.executors import Dask, ExecutorError, Processes
from unlearnkit.studies.store.environment import OPTIONS
from unlearnkit.studies.worker import Binding, Hello, give, say_hello

T = TypeVar("T")
_AHEAD = 2
"""Parts for each process, the one that it computes included, so that none waits for us."""
_VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}
_PROGRAMS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
_DECIDING = ("jax_enable_x64", "jax_threefry_partitionable")
"""Options of JAX, besides those of the store's environment."""


@runtime_checkable
class Pool(Protocol):
    """Workers that compute what they are handed.

    Attributes:
      capacity: how many parts to hand over at a time; None for all that are ready.
      sends: whether every part must carry the study, as workers cannot be given it before.
      killed: errors by which a part is known to have ended its workers again and again.
      lost: errors that tell that there are no workers any more.
    """

    capacity: int | None
    sends: bool
    killed: tuple[type[BaseException], ...]
    lost: tuple[type[BaseException], ...]

    def greet(self, folder: str) -> list[Hello]:
        """Returns what workers say of themselves: all that can be asked, at least one.

        Args:
          folder: whether they see it.

        Raises:
          ExecutorError: there is none, or none that answers.
        """
        ...

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Hands a call over."""
        ...

    def renew(self) -> bool:
        """Puts new workers in the place of broken ones; returns whether that can be done."""
        ...


@contextlib.contextmanager
def opened(executor: Executor | Processes | Dask, errand: tuple[str, bytes]) -> Iterator[Pool]:
    """Yields workers; those that were started for it are ended with it.

    Args:
      executor: where they are.
      errand: what it is called, and the pickled errand.

    Raises:
      ExecutorError: they cannot be reached or started.
    """
    if isinstance(executor, Processes):
        with contextlib.closing(_OwnProcesses(executor.count, errand)) as own:
            yield own
    elif isinstance(executor, Executor) and not _is_of_dask(executor):
        yield _Given(executor)
    else:
        try:
            from unlearnkit.studies.dask_pool import opened_dask
        except ImportError as error:
            raise ExecutorError(
                f"dask.distributed cannot be imported ({error}); pip install unlearnkit[cluster]"
            ) from error
        with opened_dask(executor, errand) as pool:
            yield pool


def _is_of_dask(executor: Executor) -> bool:
    return type(executor).__module__.partition(".")[0] == "distributed"


class _Given:
    """An executor of which nothing else is known."""

    capacity: int | None = None
    sends = True
    killed: tuple[type[BaseException], ...] = ()
    lost: tuple[type[BaseException], ...] = (BrokenExecutor, CancelledError)

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def greet(self, folder: str) -> list[Hello]:
        return [first_hello(self, folder, type(self._executor).__name__)]

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        return self._executor.submit(function, *arguments)

    def renew(self) -> bool:
        return False


class _OwnProcesses:
    """Processes on this machine, which end with this one."""

    sends = False
    killed: tuple[type[BaseException], ...] = ()
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, count: int, errand: tuple[str, bytes]) -> None:
        self.capacity: int | None = _AHEAD * count
        self._binding, self._errand = binding_of(count), errand
        self._running: tuple[ProcessPoolExecutor, Connection] | None = None

    def greet(self, folder: str) -> list[Hello]:
        return [first_hello(self, folder, f"pool of {self._binding.count} processes")]

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        if self._running is None:
            self._running = self._begin()
        with _interrupts_held():  # processes start here, and Ctrl-C is for this one alone
            return self._running[0].submit(function, *arguments)

    def renew(self) -> bool:
        self.close()
        return True

    def close(self) -> None:
        """Ends all processes, with whatever they are at."""
        if self._running is not None:
            pool, alive = self._running
            alive.close()
            pool.shutdown(wait=True, cancel_futures=True)
        self._running = None

    def _begin(self) -> tuple[ProcessPoolExecutor, Connection]:
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        slots = context.Value("i", 0)
        pool = ProcessPoolExecutor(
            self._binding.count,
            mp_context=context,
            initializer=_begin_process,
            initargs=(slots, theirs, self._binding, *self._errand),
        )
        return pool, ours


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back meanwhile; processes that start do so for good, and end with this one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(
    slots: Synchronized[int], alive: Connection, binding: Binding, errand: str, pickled: bytes
) -> None:
    """Begins a process of ours, which ends when the other end of the pipe does."""
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    with slots.get_lock():
        slot = slots.value
        slots.value += 1
    binding.bind(slot)
    give(errand, pickled)


def _end_with(alive: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)


def binding_of(count: int) -> Binding:
    """Returns how workers of this machine share what this process has.

    Args:
      count: of the workers.
    """
    values = jax.config.values
    options = {
        name: values[name]
        for name in (*OPTIONS, *_DECIDING, *_PROGRAMS)
        if isinstance(values[name], bool | int | float | str | None)
    }
    kind = jax.default_backend()
    variable = _VARIABLES.get("cuda" if kind == "gpu" else kind, "")
    named = os.environ.get(variable, "") if variable else ""
    devices = named.split(",") if named else [str(i) for i in range(jax.local_device_count())]
    return Binding(count, variable, tuple(devices) if variable else (), options)


def first_hello(pool: Pool, folder: str, name: str) -> Hello:
    """Returns what the first worker says that answers.

    Args:
      pool: of the workers.
      folder: whether it sees it.
      name: of the pool, for people.

    Raises:
      ExecutorError: none answers.
    """
    try:
        return pool.submit(say_hello, folder).result()
    except (Exception, CancelledError) as error:
        raise ExecutorError(
            f"no worker of the {name} answers: {type(error).__name__}: {error}; workers must be "
            "able to import unlearnkit, and a script that starts processes must do so under "
            "`if __name__ == '__main__':`"
        ) from error
