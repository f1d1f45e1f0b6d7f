"""Workers of dask.distributed; this file alone imports it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from typing import TypeVar

import distributed
from distributed.cfexecutor import ClientExecutor
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.diagnostics.plugin import WorkerPlugin

from unlearnkit.studies.executors import Dask, ExecutorError
from unlearnkit.studies.pools import binding_of, first_hello
from unlearnkit.studies.worker import Binding, Hello, give, say_hello, take_back

T = TypeVar("T")
_SECONDS_TO_CONNECT = 10


@contextlib.contextmanager
def opened_dask(wanted: Dask | Executor, errand: tuple[str, bytes]) -> Iterator[DaskPool]:
    """Yields the workers of a cluster; a local one is started, and ended again.

    Args:
      wanted: which cluster, or an executor of a client of it.
      errand: what it is called, and the pickled errand.

    Raises:
      ExecutorError: its scheduler does not answer.
    """
    with contextlib.ExitStack() as last:
        binding = None
        if isinstance(wanted, Dask):
            address: str | distributed.LocalCluster | None = wanted.address
            if wanted.count is not None:
                binding = binding_of(wanted.count)
                address = last.enter_context(
                    distributed.LocalCluster(
                        n_workers=wanted.count, threads_per_worker=1, dashboard_address=None
                    )
                )
            client = last.enter_context(_connected(address))
        elif isinstance(wanted, ClientExecutor):
            client = wanted._client
        else:
            raise TypeError(f"{wanted!r} is no executor of dask")
        pool = DaskPool(client)
        plugin = StudyPlugin(binding, errand)
        pool.begin(plugin)
        last.callback(pool.end, plugin)
        yield pool


def _connected(address: str | distributed.LocalCluster | None) -> distributed.Client:
    try:
        return distributed.Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExecutorError(
            f"no scheduler of dask answers at {address}: {error}; start one with `dask scheduler`, "
            "and workers with `dask worker`"
        ) from error


class DaskPool:
    """Workers of a cluster. The scheduler repeats what was lost with a worker."""

    capacity: int | None = None
    sends = False
    killed: tuple[type[BaseException], ...] = (distributed.KilledWorker,)
    lost: tuple[type[BaseException], ...] = (
        CancelledError, FutureCancelledError, CommClosedError, TimeoutError, OSError,
    )  # fmt: skip

    def __init__(self, client: distributed.Client) -> None:
        self._client, self._executor = client, client.get_executor(pure=False)

    def begin(self, plugin: StudyPlugin) -> None:
        """Gives all workers a study, those too that come later.

        Raises:
          ExecutorError: a worker cannot be given it.
        """
        try:
            self._client.register_plugin(plugin)
        except Exception as error:
            raise ExecutorError(
                f"a worker of {self._name} cannot begin: {type(error).__name__}: {error}; workers "
                "must be able to import unlearnkit and all that the study is made of"
            ) from error

    def end(self, plugin: StudyPlugin) -> None:
        """Lets the workers forget a study, and cancels what they have not begun of it."""
        self._executor.shutdown(wait=False)
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.unregister_worker_plugin(plugin.name)

    def greet(self, folder: str) -> list[Hello]:
        if not self._client.scheduler_info(n_workers=-1)["workers"]:
            warnings.warn(f"{self._name} has no worker yet; waiting for one", stacklevel=2)
        first_hello(self, folder, f"cluster {self._name}")
        return list(self._client.run(say_hello, folder).values())

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        found: Future[T] = self._executor.submit(function, *arguments)
        return found

    def renew(self) -> bool:
        return False

    @property
    def _name(self) -> str:
        return str(self._client.scheduler_info(n_workers=0)["address"])


class StudyPlugin(WorkerPlugin):
    """Binds a local worker to its device, and gives it a study."""

    def __init__(self, binding: Binding | None, errand: tuple[str, bytes]) -> None:
        self.name = f"unlearnkit-{errand[0]}"
        self._binding, self._errand = binding, errand

    def setup(self, worker: distributed.Worker) -> None:
        if self._binding is not None:
            self._binding.bind(int(worker.name))
        give(*self._errand)

    def teardown(self, worker: distributed.Worker) -> None:
        take_back(self._errand[0])
