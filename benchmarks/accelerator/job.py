"""What a job is, and what came of one."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

State = Literal["done", "failed", "cut off", "unavailable", "not started"]
"""`cut off`: the watchdog ended it, and the rows that it had made by then stand; `unavailable`:
what it needs is not here."""

DETERMINISTIC = ("--xla_gpu_deterministic_ops=true",)
"""XLA flags under which the same program gives the same bits on a GPU."""
SLACK, REHEARSAL_SLACK = 1.6, 10.0
"""How many times its estimate a job, or its rehearsal, may take before the watchdog ends it."""


class Unavailable(Exception):
    """What a job needs is not here; its message is the note of the job's row."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing worth a card's time.

    Attributes:
      name: unique, as `resnet18`.
      group: the results file that it goes to.
      about: what one learns from it, a phrase for the list.
      run: `module:function`, called with a `Context` and yielding rows; imported in the worker.
      seconds: what it takes on an H100, compilation included.
      rehearsal: seconds of its rehearsal on one CPU core, likewise.
      gigabytes: of the card's memory that it needs.
      data: names of the datasets without which it cannot run.
      flags: XLA flags that its process is started with.
    """

    name: str
    group: str
    about: str
    run: str
    seconds: float
    rehearsal: float = 15.0
    gigabytes: float = 8.0
    data: tuple[str, ...] = ("cifar10",)
    flags: tuple[str, ...] = ()

    def estimate(self, rehearse: bool) -> float:
        """Returns the seconds that the job is expected to take."""
        return self.rehearsal if rehearse else self.seconds


@dataclasses.dataclass
class Outcome:
    """What came of a job, as JSON values but for its name.

    Attributes:
      job: its name.
      state: how it ended.
      rows: of the benchmark's table, as `benchmarks.frame.row_to_json` makes them.
      note: why it has no rows, or not all.
      seconds: what it took, the start of a process included; 0 where it was not started.
      provenance: of the process that ran it, None where it did not say.
      rehearsal: whether the sizes were tiny.
    """

    job: str
    state: State
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    note: str = ""
    seconds: float = 0.0
    provenance: dict[str, Any] | None = None
    rehearsal: bool = False
