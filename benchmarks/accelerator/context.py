"""What a job is given: sizes, data on the device, and how much time there is."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from benchmarks.accelerator.job import Unavailable

if TYPE_CHECKING:
    from unlearnkit.base import Dataset

T = TypeVar("T")


class Split(NamedTuple):
    """Both halves of a dataset, on the device."""

    train: Dataset
    test: Dataset


class Context:
    """What a job is given.

    Args:
      work: the folder with the decoded data, and for temporary files.
      rehearse: whether sizes are tiny.
      ends: when the watchdog ends the job, by `time.monotonic`.
      gigabytes: of memory that the job said it needs.
      say: tells what the job is at.
    """

    def __init__(
        self,
        work: Path,
        *,
        rehearse: bool,
        ends: float,
        gigabytes: float,
        say: Callable[[str], None],
    ):
        self.work, self.rehearse, self.say = work, rehearse, say
        self._ends, self._gigabytes = ends, gigabytes

    def pick(self, full: T, tiny: T) -> T:
        """Returns the size for a card, or the one for a rehearsal."""
        return tiny if self.rehearse else full

    def left(self) -> float:
        """Returns the seconds until the job is ended."""
        return self._ends - time.monotonic()

    def check_memory(self) -> None:
        """Raises `Unavailable` if the card has too little memory for the job.

        Raises:
          Unavailable: the card reports less memory than the job needs.
        """
        from benchmarks.accelerator.worker import describe_device

        held = describe_device()["gigabytes"]
        if not self.rehearse and 0 < held < self._gigabytes:
            raise Unavailable(
                f"the card lends {held:.0f} GB, and the job needs {self._gigabytes:.0f} GB"
            )

    def data(self, name: str, *, normalisation: str = "standard") -> Split:
        """Returns a dataset, which is loaded once per process.

        Args:
          name: `cifar10` or `mnist`.
          normalisation: see `unlearnkit.data.load`.

        Raises:
          Unavailable: the file was not given.
        """
        path = self.work / f"{name}.npz"
        if not path.is_file():
            raise Unavailable(
                f"no {name} was given; add its file by --data (python -m "
                f"benchmarks.accelerator.pack {name} FILE makes one where TFDS has it)"
            )
        return _load(path, normalisation)


@functools.cache
def _load(path: Path, normalisation: str) -> Split:
    from unlearnkit.data import load

    train = load(path, split="train", normalisation=normalisation)
    return Split(train, load(path, split="test", normalisation=train.normalisation))
