"""Where the parts of a study are computed besides this process."""

from __future__ import annotations

import dataclasses
import re

_DASK = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})")
_FORMS = "serial, processes:4, dask:4 for a local cluster, or dask://HOST:PORT for a running one"


class ExecutorError(RuntimeError):
    """An executor cannot be reached, its workers do not fit, or it was lost."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Processes on this machine, which share its processors or its accelerators.

    Attributes:
      count: how many.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"there must be at least 1 process, got {self.count}")

    def __str__(self) -> str:
        return f"processes:{self.count}"


@dataclasses.dataclass(frozen=True)
class Dask:
    """A cluster of dask.distributed; needs the extra `cluster`.

    Attributes:
      address: of the scheduler, as `tcp://host:port`; None starts a cluster on this machine.
      count: of the workers of that cluster; None for one that is there already.
    """

    address: str | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.address is None) == (self.count is None):
            raise ValueError("give the address of a scheduler, or the count of local workers")
        if self.count is not None and self.count < 1:
            raise ValueError(f"there must be at least 1 worker, got {self.count}")

    def __str__(self) -> str:
        return f"dask:{self.count}" if self.address is None else self.address


def parse_executor(text: str) -> Processes | Dask | None:
    """Returns what a text names, None for this process alone; nothing is started or reached yet.

    Args:
      text: `serial`, `processes:4`, `dask:4` or `dask://host:port`.

    Raises:
      ValueError: another text.

    Example:
      run(study, key, store="runs/store", executor=parse_executor("processes:4"))
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "serial" and not rest:
        return None
    if kind == "dask" and rest.startswith("//"):
        found = _DASK.fullmatch(rest[2:].rstrip("/"))
        if found is None or not 0 < int(found["port"]) < 2**16:
            raise ValueError(f"a scheduler is written as dask://HOST:PORT, got {text!r}")
        return Dask(address=f"tcp://{found[0]}")
    if kind in ("processes", "dask"):
        if not re.fullmatch(r"[1-9]\d{0,4}", rest):
            raise ValueError(f"how many is written as {kind}:4, got {text!r}")
        return Processes(int(rest)) if kind == "processes" else Dask(count=int(rest))
    raise ValueError(f"unknown executor {text!r}; it is one of {_FORMS}")
